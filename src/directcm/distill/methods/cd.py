"""Consistency distillation with an EMA target network (Song et al. 2303.01469, Algorithm 2).

d( f_θ(x_s, s), f_θ⁻(x̂_n, n) ),  θ⁻ ← μ θ⁻ + (1 − μ) θ,  x̂_n one guided step of the teacher from (x_s, s); λ = 1.
With μ = 0 this is CM.
"""

from __future__ import annotations

import torch
from torch import Tensor

from directcm.distill.methods import Batch, Context, next_point
from directcm.distill.students import Student

LABEL = "CD"
TEACHER, TARGETS, FORWARDS = True, "", 2
STORED = True
# Song et al., Table 3, ImageNet 64.
SETTINGS = {"mu": 0.95}
RANGES = "0 <= mu <= 1"


def decay(step: int, steps: int, context: Context) -> float:
    """μ, constant."""
    return context.hparams["mu"]


def loss(student: Student, batch: Batch, context: Context) -> Tensor:
    """Per-sample losses (B,)."""
    assert context.ema_target is not None
    with torch.no_grad():
        target = context.ema_target(next_point(batch, context), batch.t_next, batch.cond)
    return context.distance(student(batch.x, batch.t, batch.cond), target)
