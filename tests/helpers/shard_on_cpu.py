"""Makes FSDP2 shard on CPU processes as on GPUs: every Python begins with it where it is found as `sitecustomize`.

For CPU processes accelerate leaves FSDP out and says nothing: they run as DDP. Told that they are GPUs, it takes the
path that it takes there, over gloo; the device stays the CPU. Prints what FSDP2 sharded.
"""

from __future__ import annotations

import os
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


AcceleratorState.__init__ = as_gpus
torch.distributed.fsdp.fully_shard = noted
