"""CM: neighbouring points of the guided ODE have the same endpoint (2411.08954, after Song et al. 2303.01469).

    d( f_θ(x_s, s), sg f_θ(x̂_n, n) ),  x̂_n one guided solver step of the teacher from (x_s, s).

The target network is the online network itself: no EMA, no guidance.
"""

from __future__ import annotations

import torch
from torch import Tensor

from directcm.distill.methods import Batch, Context, next_point
from directcm.distill.students import Student

LABEL = "CM"
TEACHER, TARGETS, FORWARDS = True, "", 2
STORED = True


def loss(student: Student, batch: Batch, context: Context) -> Tensor:
    """Per-sample losses (B,)."""
    with torch.no_grad():
        target = student(next_point(batch, context), batch.t_next, batch.cond)
    return context.distance(student(batch.x, batch.t, batch.cond), target)
