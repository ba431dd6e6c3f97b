"""TensorFlow's checkpoints of two kinds of files, PREFIX.index and PREFIX.data-*."""
