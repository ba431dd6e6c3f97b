"""The originals' computation in float64, written apart from what it checks."""
