"""Run a script on CPU processes as on GPUs: `shard_on_cpu.py SCRIPT ARGUMENTS`. Prints what FSDP2 sharded.

For CPU processes accelerate leaves FSDP out and says nothing: they run as DDP. Told that they are GPUs, it takes the
path that it takes there, over gloo; the device stays the CPU.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

import torch.distributed.fsdp
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

set_up = AcceleratorState.__init__
fully_shard = torch.distributed.fsdp.fully_shard


def as_gpus(state: AcceleratorState, *arguments: Any, **options: Any) -> None:
    """accelerate's choice between DDP and FSDP."""
    shared = PartialState._shared_state
    if shared.get("distributed_type") == DistributedType.MULTI_CPU:
        shared["distributed_type"] = DistributedType.MULTI_GPU
    set_up(state, *arguments, **options)


def noted(module: Any, **options: Any) -> Any:
    """`fully_shard`, with a line that says of what."""
    modules = module if isinstance(module, list) else [module]
    # At once: the processes share one output, and parts of a line would mix.
    os.write(1, f"sharded {' '.join(type(part).__name__ for part in modules)}\n".encode())
    return fully_shard(module, **options)


if __name__ == "__main__":
    AcceleratorState.__init__ = as_gpus
    torch.distributed.fsdp.fully_shard = noted
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))  # as Python does for a script
    runpy.run_path(sys.argv[0], run_name="__main__")
