"""Direct CM on the teacher's trajectories, as in trajectory mid-training (2509.24526).

d( f_θ(x_s, s), Φ(x_T, T → 0) ),  x_s on the trajectory from pure noise x_T. All points of a trajectory have the same endpoint.
The distribution of x_s is the teacher's marginal, not that of noised data.
"""

from __future__ import annotations

from torch import Tensor

from directcm.distill.methods import Batch, Context
from directcm.distill.students import Student

LABEL = "Direct CM (trajectory)"
TEACHER, TARGETS, FORWARDS = False, "trajectory", 1


def loss(student: Student, batch: Batch, context: Context) -> Tensor:
    """Per-sample losses (B,)."""
    assert batch.endpoint is not None
    return context.distance(student(batch.x, batch.t, batch.cond), batch.endpoint)
