"""One thread a process: pytest-xdist already keeps the cores busy, and tiny models only get slower with more.

And Triton's interpreter, before anything imports Triton: the fused kernel is tested without a GPU.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRITON_INTERPRET", "1")

pytest_plugins = ["hub_fixtures"]
