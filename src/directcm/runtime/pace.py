"""How a training step uses its card: gradient checkpointing, and rows of one backward pass, decided by measuring."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from directcm.errors import UserError


class Pace(NamedTuple):
    """Whether activations are computed again in the backward pass, and rows of one backward pass."""

    gradient_checkpointing: bool
    micro_batch: int

    def text(self, rows: int) -> str:
        """In words, for a process's `rows` of a batch."""
        again = "computed again in the backward pass" if self.gradient_checkpointing else "kept"
        return f"activations {again}, {self.micro_batch} of {rows} rows at a time"


def checkpoint(network: Any, again: bool) -> None:
    """Compute activations again in the backward pass, or keep them."""
    (network.enable_gradient_checkpointing if again else network.disable_gradient_checkpointing)()


def attempt(
    network: Any, loss: Callable[[int, np.ndarray], Tensor], accelerator: Any, pace: Pace, others: Sequence[Any] = ()
) -> None:
    """A forward and a backward pass of the first step's first rows, with as much memory taken as in training.

    `others`: modules that are trained beside the network.
    """
    checkpoint(network, pace.gradient_checkpointing)
    trained = [p for module in (network, *others) for p in module.parameters() if p.requires_grad]
    # In place of the optimiser's two moments, which come with the first step.
    moments = [torch.empty_like(p) for p in trained for _ in range(2)]
    try:
        with accelerator.autocast():
            value = loss(0, np.arange(pace.micro_batch, dtype=np.int64)).float().mean()
        accelerator.backward(value)
    finally:
        # What did not fit may have left some, which the first step would add to its own.
        for p in trained:
            p.grad = None
        del moments


def measured(attempt: Callable[[Pace], None], pace: Pace) -> float | None:
    """Seconds a row of the second attempt, None if it does not fit; the first one compiles and warms up."""
    try:
        attempt(pace)
        torch.cuda.synchronize()
        begun = time.perf_counter()
        attempt(pace)
        torch.cuda.synchronize()
    except torch.OutOfMemoryError:
        return None
    finally:
        torch.cuda.empty_cache()
    return (time.perf_counter() - begun) / pace.micro_batch


def choose(
    rows: int,
    gradient_checkpointing: bool | str,
    micro_batch: int | str,
    attempt: Callable[[Pace], float | None] | None,
) -> Pace:
    """The fastest pace that fits, for a process's `rows` of a batch; what is not "auto" stays as given.

    `attempt` gives a pace's seconds a row, or None if it does not fit. Without it (no GPU) "auto" means no checkpointing and all
    rows at once. A UserError if not even one row fits.
    """
    given = None if micro_batch == "auto" else min(int(micro_batch), rows)
    if attempt is None or (given and gradient_checkpointing != "auto"):
        return Pace(gradient_checkpointing is True, given or rows)
    halves = [given] if given else [max(1, rows >> n) for n in range(rows.bit_length())]
    found: dict[Pace, float] = {}
    for again in (False, True) if gradient_checkpointing == "auto" else (bool(gradient_checkpointing),):
        for micro in halves:
            pace = Pace(again, micro)
            seconds = attempt(pace)
            if seconds is not None:
                found[pace] = seconds
                break
    if not found:
        raise UserError(
            "train: not even the smallest part of a batch fits this card; use a larger one, a smaller resolution, or precision bf16"
        )
    return min(found, key=lambda pace: found[pace])
