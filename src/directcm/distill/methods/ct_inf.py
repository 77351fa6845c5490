"""CT∞: consistency training in continuous time (Song et al. 2303.01469, Appendix B.2): no teacher.

CD∞ with the slope of the image's own line, dx/dt = z on Karras's process, whose mean given x_t is the ODE's: so its gradient is
CD∞'s on average, and at the exact flow map 0 on average, while its value is that slope's spread there.
"""

from __future__ import annotations

from torch import Tensor

from directcm.distill.methods import Batch, Context, cd_inf
from directcm.distill.students import Student
from directcm.distill.tangents import slope

LABEL = "CT∞"
TEACHER, TARGETS, FORWARDS = False, "", 3
TANGENT = True
SETTINGS = {"gap": 0.0, "dropout": 0.0}
RANGES = "0 <= gap <= 0.5, 0 <= dropout < 1"


def loss(student: Student, batch: Batch, context: Context) -> Tensor:
    """Per-sample losses (B,)."""
    assert batch.x0 is not None and batch.eps is not None
    x, t = cd_inf.points(student, batch)
    return cd_inf.pulled(student, batch, context, x, t, slope(student.process, batch.x0, batch.eps, t))
