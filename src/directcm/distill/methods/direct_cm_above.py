"""Direct CM's loss at noisy start times and CM's below: `cm_above` the other way round.

t ≥ τ: d( f_θ(x_t, t), Φ(x_t, t → 0) ),   t < τ: d( f_θ(x_t, t), sg f_θ(x̂_n, n) ),  both of 2411.08954.
"""

from __future__ import annotations

from torch import Tensor

from directcm.distill.methods import Batch, Context
from directcm.distill.methods.cm_above import noisy, switched
from directcm.distill.students import Student

LABEL = "Direct CM above τ"
TEACHER, TARGETS, FORWARDS = True, "forward", 2
STORED = True
SETTINGS = {"tau": 0.1}
RANGES = "0 <= tau <= 1"


def loss(student: Student, batch: Batch, context: Context) -> Tensor:
    """Per-sample losses (B,)."""
    return switched(student, batch, context, ~noisy(student, batch, context))
