"""Trajectory mid-training (2509.24526), then easy consistency tuning.

The first share `mid` of the training is Direct CM on the teacher's trajectories from pure noise, the rest is ECT. So ECT
starts from a student that already knows the endpoints.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor

from directcm.distill.methods import Batch, Context, direct_cm_trajectory, ect
from directcm.distill.students import Student

LABEL = "CMT + ECT"
TEACHER, TARGETS, FORWARDS = False, "trajectory", 2
PROCESSES = ("karras",)
# mid is the share of mid-training; the others are ECT's.
SETTINGS = {"mid": 0.5, "p_mean": -1.1, "p_std": 2.0, "q": 2.0, "k": 8.0, "stages": 8, "dropout": 0.0}
RANGES = "0 <= mid <= 1, -6 <= p_mean <= 4, 0 < p_std <= 100, 1 < q, 0 <= k <= 1000, 1 <= stages, q**stages <= 1e6, 0 <= dropout < 1"


def before(steps: int, context: Context) -> int:
    """Steps of mid-training."""
    return round(context.hparams["mid"] * steps)


def student_forwards(step: int, steps: int, context: Context) -> int:
    """1 in mid-training, 2 in ECT."""
    return direct_cm_trajectory.FORWARDS if step < before(steps, context) else ect.FORWARDS


def endpoints(step: int, steps: int, context: Context) -> bool:
    """Only mid-training uses them."""
    return step < before(steps, context)


def loss(student: Student, batch: Batch, context: Context) -> Tensor:
    """Per-sample losses (B,)."""
    middle = before(batch.steps, context)
    if batch.step < middle:
        return direct_cm_trajectory.loss(student, batch, context)
    rest = dataclasses.replace(batch, step=batch.step - middle, steps=batch.steps - middle)
    return ect.loss(student, rest, context)
