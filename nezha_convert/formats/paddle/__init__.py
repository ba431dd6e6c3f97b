"""PaddlePaddle's state dicts."""
