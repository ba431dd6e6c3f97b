"""Fuzzing of everything that reads a stranger's file; README.md has the commands."""
