"""Bytes on a disk: each format's reader and writer side by side."""
