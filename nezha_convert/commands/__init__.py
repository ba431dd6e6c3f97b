"""One file a verb of the command line, and of the Python API."""
