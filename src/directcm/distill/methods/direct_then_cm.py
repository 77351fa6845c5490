"""Direct CM as initialisation for CM: first a share `direct` of the training with Direct CM's loss, then CM's.

Both losses are those of 2411.08954, on the same start points in the same order. Trajectory mid-training (2509.24526) finds such an
initialisation good for ECT; if that holds here, CM should end better from it than from the teacher.
"""

from __future__ import annotations

from torch import Tensor

from directcm.distill.methods import Batch, Context, cm, direct_cm
from directcm.distill.students import Student

LABEL = "Direct CM, then CM"
TEACHER, TARGETS, FORWARDS = True, "forward", 2
STORED = True
# The share of the training with Direct CM's loss.
SETTINGS = {"direct": 0.5}
RANGES = "0 <= direct <= 1"


def first(step: int, steps: int, context: Context) -> bool:
    """Whether a step belongs to the first part, Direct CM."""
    return step < round(context.hparams["direct"] * steps)


def teacher_steps(step: int, steps: int, context: Context) -> int:
    """Only the second part asks the teacher."""
    return 0 if first(step, steps, context) else 1


# Only the first part uses endpoints.
endpoints = first


def student_forwards(step: int, steps: int, context: Context) -> int:
    """1 in Direct CM, 2 in CM."""
    return direct_cm.FORWARDS if first(step, steps, context) else cm.FORWARDS


def loss(student: Student, batch: Batch, context: Context) -> Tensor:
    """Per-sample losses (B,)."""
    part = direct_cm if first(batch.step, batch.steps, context) else cm
    return part.loss(student, batch, context)
