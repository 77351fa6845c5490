"""Trajectory mid-training (2509.24526), then easy consistency tuning.

For a share of the training Direct CM on the teacher's trajectories from pure noise; from there on ECT, which finds a student
that knows the endpoints already.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor

from directcm.methods import Batch, Setting, direct_cm_trajectory, ect
from directcm.students import Student

LABEL = "CMT + ECT"
TEACHER, TARGETS, FORWARDS = False, "trajectory", 1.5
PROCESSES = ("karras",)
# mid is the share of mid-training; the rest is ECT's.
SETTINGS = {"mid": 0.5, "p_mean": -1.1, "p_std": 2.0, "q": 2.0, "k": 8.0, "stages": 8}


def loss(student: Student, batch: Batch, setting: Setting) -> Tensor:
    """Per-sample losses (B,)."""
    before = round(setting.own["mid"] * batch.steps)
    if batch.step < before:
        return direct_cm_trajectory.loss(student, batch, setting)
    rest = dataclasses.replace(batch, step=batch.step - before, steps=batch.steps - before)
    return ect.loss(student, rest, setting)
