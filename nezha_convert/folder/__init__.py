"""The folder that a conversion writes, and what it says of itself."""
