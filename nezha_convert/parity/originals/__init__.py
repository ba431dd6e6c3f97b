"""The original programs themselves, run in a process of their own."""
