"""The Space: `python app.py` here, with the requirements of requirements.txt, opens it on http://127.0.0.1:7860."""

from __future__ import annotations

import os
import signal
import sys

from page.limits import Limits
from page.visitors import Visitors


def serve(limits: Limits) -> None:
    """Open the page and serve it until the process is asked to end; then delete what visitors have left.

    Args:
        limits: what a visitor may use.
    """
    visitors = Visitors(limits)
    # Before gradio is imported, which reads them: the one folder that it serves; and no reports to its makers.
    os.environ |= {"GRADIO_TEMP_DIR": str(visitors.uploads), "GRADIO_ANALYTICS_ENABLED": "False"}
    os.environ["GRADIO_EXAMPLES_CACHE"] = str(visitors.uploads)  # else a folder of the current one would be served
    from page.screen import Screen

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        Screen(visitors, on_space=os.environ.get("SYSTEM") == "spaces").launch()
    finally:
        visitors.close()


if __name__ == "__main__":
    serve(Limits())
