"""Counter-based random numbers keyed by (run seed, purpose, index).

A draw depends on its key alone, not on batch size, number of processes, resuming or the order of work.
The bit generator is Philox (Salmon et al. 2011); its key is a BLAKE2 hash.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def deterministic(threads: int, wanted: str = "auto", device: str = "cpu") -> None:
    """Make torch's results reproducible to the byte for this number of CPU threads; another number changes the last bits.

    `wanted` is "on", "off" or "auto", which means on a CPU; on a GPU it costs 6 to 21 % of a step, and only the threads are set. Without it the gradient of indexing is summed in the threads' order. Call it before torch's first computation.
    """
    # If no verb has set it (directcm.runtime.environment).
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    torch.set_num_threads(threads)
    if wanted == "off" or (wanted == "auto" and device != "cpu"):
        return
    # As use_deterministic_algorithms(True, warn_only=True), which also imports a compiler: one or two seconds per job.
    torch.set_deterministic_debug_mode("warn")
    # Off: filling every new tensor costs a thirtieth of a small network's step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def generator(seed: int, purpose: str, *index: int) -> np.random.Generator:
    """The generator of one key. `purpose` names the use ("noise", "batch" …), `index` the item."""
    text = "\x1f".join([str(int(seed)), purpose, *(str(int(i)) for i in index)])
    key = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(key, dtype=np.uint64)))


def seed_torch(seed: int, purpose: str, *index: int) -> None:
    """Seed torch's global generator, which only libraries' weight initialisation and dropout use."""
    import torch

    torch.manual_seed(int(generator(seed, purpose, *index).integers(2**63)))


def normal(seed: int, purpose: str, indices: Iterable[int], shape: Sequence[int], *prefix: int) -> torch.Tensor:
    """Standard normal float32 tensor (len(indices), *shape); row i depends on (prefix, indices[i]) only."""
    import torch

    rows = [generator(seed, purpose, *prefix, i).standard_normal(tuple(shape), dtype=np.float32) for i in indices]
    return torch.from_numpy(np.array(rows, np.float32).reshape(len(rows), *shape))


def uniform(seed: int, purpose: str, indices: Iterable[int], *prefix: int) -> np.ndarray:
    """One number in [0, 1) per index, float64."""
    return np.array([generator(seed, purpose, *prefix, i).random() for i in indices])


def integers(seed: int, purpose: str, indices: Iterable[int], high: int) -> np.ndarray:
    """One integer in {0, …, high-1} per index, int64."""
    return np.array([int(generator(seed, purpose, i).integers(high)) for i in indices], dtype=np.int64)


def permutation(seed: int, purpose: str, n: int, epoch: int = 0) -> np.ndarray:
    """A permutation of range(n) for one epoch, int64."""
    return generator(seed, purpose, epoch).permutation(n)


def stream(seed: int, purpose: str, start: int, count: int, n: int) -> np.ndarray:
    """Positions start … start+count-1 of an endless stream of shuffled epochs over range(n), int64 (count,).

    Every item is seen once per epoch, and position p is the same whatever batch it falls into.
    """
    if n < 1:
        raise ValueError("a stream needs at least one item")
    first, offset = divmod(start, n)
    epochs = [permutation(seed, purpose, n, epoch) for epoch in range(first, (start + count) // n + 1)]
    return np.concatenate(epochs)[offset : offset + count]
