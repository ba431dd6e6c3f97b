"""The original programs themselves. Each runs in its own process."""
