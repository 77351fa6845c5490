"""sCT: continuous-time consistency training made stable (Lu & Song 2410.11081, Algorithm 1): no teacher.

sCD with dx̃/dθ = cos θ σ_d z − sin θ x₀ of the image and its noise in place of the teacher's.
"""

from __future__ import annotations

from torch import Tensor

from directcm.distill.methods import Batch, Context, scd
from directcm.distill.students import Student

LABEL = "sCT"
TEACHER, TARGETS, FORWARDS = False, "", 3
PROCESSES = ("karras",)
TANGENT = True
# Lu & Song, CIFAR-10; see sCD.
SETTINGS = {"p_mean": -1.0, "p_std": 1.4, "c": 0.1, "warm_up": 0.025, "gap": 0.0, "dropout": 0.0}
RANGES = "-6 <= p_mean <= 4, 0 < p_std <= 100, 1e-6 <= c <= 1e3, 0 <= warm_up <= 1, 0 <= gap <= 0.5, 0 <= dropout < 1"

own = scd.own


def loss(student: Student, batch: Batch, context: Context) -> Tensor:
    """Per-sample losses (B,)."""
    assert batch.x0 is not None and batch.eps is not None
    x, t = scd.points(student, batch, context)
    return scd.pulled(student, batch, context, x, t, batch.x0, batch.eps)
