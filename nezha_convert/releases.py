"""The releases of torch and transformers that the tests have shown. README and pyproject.toml say the same, by test."""

TORCH = ("2.10", "2.15")
"""First and last. Earlier ones do not compare a record of a file with its tensor's size."""

TRANSFORMERS = (("4.52.1", "4.57.6"), ("5.0.0", "5.24.0"))
"""First and last of each series that loads a converted folder. tests/matrix loads folders on these four."""
