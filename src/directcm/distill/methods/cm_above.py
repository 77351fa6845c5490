"""CM's loss at noisy start times and Direct CM's below: which part of the time makes the difference between the two.

    t ≥ τ: d( f_θ(x_t, t), sg f_θ(x̂_n, n) ),   t < τ: d( f_θ(x_t, t), Φ(x_t, t → 0) ),  both of 2411.08954.

τ is the grid time after the share `tau` of its intervals, counted from pure noise: 0.1 is t = 900 of 1000 on VP.
"""

from __future__ import annotations

import torch
from torch import Tensor

from directcm.diffusion.processes import expand
from directcm.distill.methods import Batch, Context, next_point
from directcm.distill.students import Student

LABEL = "CM above τ"
TEACHER, TARGETS, FORWARDS = True, "forward", 2
STORED = True
SETTINGS = {"tau": 0.1}
RANGES = "0 <= tau <= 1"


def noisy(student: Student, batch: Batch, context: Context) -> Tensor:
    """Whether each row's time is τ or above, (B,)."""
    grid = student.process.grid(context.intervals)
    return batch.t >= grid[round(context.hparams["tau"] * context.intervals)].to(batch.t)


def switched(student: Student, batch: Batch, context: Context, by_cm: Tensor) -> Tensor:
    """Per-sample losses (B,): CM's in the rows `by_cm` (B,), Direct CM's in the others."""
    assert batch.endpoint is not None
    with torch.no_grad():
        following = student(next_point(batch, context), batch.t_next, batch.cond)
    target = torch.where(expand(by_cm, following).bool(), following, batch.endpoint.to(following))
    return context.distance(student(batch.x, batch.t, batch.cond), target)


def loss(student: Student, batch: Batch, context: Context) -> Tensor:
    """Per-sample losses (B,)."""
    return switched(student, batch, context, noisy(student, batch, context))
