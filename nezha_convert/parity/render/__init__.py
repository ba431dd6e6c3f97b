"""A parity report as a page, as charts, as JUnit's XML."""
