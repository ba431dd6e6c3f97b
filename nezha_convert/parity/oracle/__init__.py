"""The originals' computation in float64. It imports nothing that it checks."""
