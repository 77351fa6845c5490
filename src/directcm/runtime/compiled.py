"""torch.compile of the blocks that a network repeats, where a job asks for it: a transformer of SDXL is 70 times the same block.

Only those are compiled, so that it takes seconds and not minutes. A block has a graph of its own with and without gradient.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch

# Graphs of one kind of block: its widths, with and without gradient or LoRA, the last batch's size; torch stops compiling at 8.
GRAPHS = 64
_backend: str | None = None


def enable(wanted: str, device: str, backend: str = "inductor") -> None:
    """From now on `blocks` compiles ("on") or does not ("off"); "auto": on a GPU."""
    global _backend
    _backend = backend if wanted == "on" or (wanted == "auto" and device == "cuda") else None


def enabled() -> bool:
    """Whether blocks are compiled."""
    return _backend is not None


def seconds() -> float:
    """Seconds that this process has spent compiling so far, forward and backward passes together."""
    if _backend is None:
        return 0.0
    from torch._dynamo.utils import calculate_time_spent

    return calculate_time_spent()["total_wall_time"]


def eager() -> contextlib.AbstractContextManager[Any]:
    """A context in which compiled blocks run as they are written: a graph knows nothing of forward mode's derivatives."""
    return contextlib.nullcontext() if _backend is None else torch.compiler.set_stance("force_eager")


def blocks(network: Any) -> None:
    """Have the blocks that the network's class names as repeated compiled when they are first called, if that is enabled."""
    if _backend is None or not getattr(network, "_repeated_blocks", None):
        return
    torch._dynamo.config.recompile_limit = GRAPHS
    network.compile_repeated_blocks(backend=_backend, fullgraph=True)
