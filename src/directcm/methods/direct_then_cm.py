"""Direct CM as a start for CM: half of the training on the solver's endpoints, the rest on neighbouring points.

Both losses are 2411.08954's own, on the same start points in the same order: if solving the ODE well were a good start (as trajectory
mid-training, 2509.24526, finds it to be for ECT), CM should end better from there than from the teacher.
"""

from __future__ import annotations

from torch import Tensor

from directcm.methods import Batch, Context, cm, direct_cm
from directcm.students import Student

LABEL = "Direct CM, then CM"
TEACHER, TARGETS, FORWARDS = True, "forward", 2
STORED = True
# The share of the training on endpoints.
SETTINGS = {"direct": 0.5}
RANGES = "0 <= direct <= 1"


def first(step: int, steps: int, context: Context) -> bool:
    """Whether a step is of the first part."""
    return step < round(context.hparams["direct"] * steps)


def teacher_steps(step: int, steps: int, context: Context) -> int:
    """The second part's alone ask the teacher."""
    return 0 if first(step, steps, context) else 1


# The first part alone learns from endpoints.
endpoints = first


def student_forwards(step: int, steps: int, context: Context) -> int:
    """Direct CM has one, CM two."""
    return direct_cm.FORWARDS if first(step, steps, context) else cm.FORWARDS


def loss(student: Student, batch: Batch, context: Context) -> Tensor:
    """Per-sample losses (B,)."""
    part = direct_cm if first(batch.step, batch.steps, context) else cm
    return part.loss(student, batch, context)
