"""Bytes on disk: each format's reader and writer side by side; `open.py` lists the formats."""
