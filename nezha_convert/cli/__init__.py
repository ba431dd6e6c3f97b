"""The command line: the only folder that imports click and rich."""
