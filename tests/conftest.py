"""One thread a process: pytest-xdist already keeps the cores busy, and tiny models only get slower with more."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
