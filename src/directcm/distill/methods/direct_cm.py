"""Direct CM: regression onto the endpoint that the ODE solver reaches (2411.08954).

d( f_θ(x_s, s), Φ(x_s, s → 0) ),  Φ the guided ODE solved from (x_s, s) to the end.
"""

from __future__ import annotations

from torch import Tensor

from directcm.distill.methods import Batch, Context
from directcm.distill.students import Student

LABEL = "Direct CM"
TEACHER, TARGETS, FORWARDS = False, "forward", 1


def loss(student: Student, batch: Batch, context: Context) -> Tensor:
    """Per-sample losses (B,)."""
    assert batch.endpoint is not None
    return context.distance(student(batch.x, batch.t, batch.cond), batch.endpoint)
