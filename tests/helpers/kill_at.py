"""Run a script that trains, and end it by SIGKILL after a step: `kill_at.py STEP SCRIPT ARGUMENTS`."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, trainer


class Kill(TrainerCallback):
    """Ends the process, which has no time to write or clean up."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    step, sys.argv = int(sys.argv[1]), sys.argv[2:]
    trainer.DEFAULT_CALLBACKS.append(Kill)
    sys.path.insert(0, str(Path(sys.argv[0]).parent))  # as Python does for a script
    runpy.run_path(sys.argv[0], run_name="__main__")
