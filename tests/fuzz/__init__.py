"""Fuzzing of everything that reads a stranger's file; README.md has the commands."""

import sys
from pathlib import Path

HELPERS = str(Path(__file__).parents[1] / "helpers")
if HELPERS not in sys.path:  # pytest puts it there; `python -m fuzz` does not
    sys.path.append(HELPERS)
