"""Straight distillation (Luhman & Luhman 2101.02388): Direct CM from pure noise only.

d( f_θ(x_T, T), Φ(x_T, T → 0) ) on stored pairs of pure noise and its endpoint under the teacher's ODE.
"""

from __future__ import annotations

from torch import Tensor

from directcm.distill.methods import Batch, Context
from directcm.distill.students import Student

LABEL = "Straight"
TEACHER, TARGETS, FORWARDS = False, "prior", 1


def loss(student: Student, batch: Batch, context: Context) -> Tensor:
    """Per-sample losses (B,)."""
    assert batch.endpoint is not None
    return context.distance(student(batch.x, batch.t, batch.cond), batch.endpoint)
