"""TensorFlow's checkpoints ("bundles"): PREFIX.index and PREFIX.data-*."""
