"""CM as initialisation for Direct CM: first a share `cm` of the training with CM's loss, then Direct CM's.

The reverse of `direct_then_cm`: it says whether Direct CM's loss takes from a finished CM what makes its samples good.
Both losses are those of 2411.08954, on the same start points in the same order.
"""

from __future__ import annotations

from torch import Tensor

from directcm.distill.methods import Batch, Context, cm, direct_cm
from directcm.distill.students import Student

LABEL = "CM, then Direct CM"
TEACHER, TARGETS, FORWARDS = True, "forward", 2
STORED = True
# The share of the training with CM's loss.
SETTINGS = {"cm": 0.5}
RANGES = "0 <= cm <= 1"


def first(step: int, steps: int, context: Context) -> bool:
    """Whether a step belongs to the first part, CM."""
    return step < round(context.hparams["cm"] * steps)


def teacher_steps(step: int, steps: int, context: Context) -> int:
    """Only the first part asks the teacher."""
    return int(first(step, steps, context))


def endpoints(step: int, steps: int, context: Context) -> bool:
    """Only the second part uses endpoints."""
    return not first(step, steps, context)


def student_forwards(step: int, steps: int, context: Context) -> int:
    """2 in CM, 1 in Direct CM."""
    return cm.FORWARDS if first(step, steps, context) else direct_cm.FORWARDS


def loss(student: Student, batch: Batch, context: Context) -> Tensor:
    """Per-sample losses (B,)."""
    part = cm if first(batch.step, batch.steps, context) else direct_cm
    return part.loss(student, batch, context)
