"""k-step targets, between CM and Direct CM: n-step returns, where CM is TD(0) and Direct CM Monte Carlo.

    d( f_θ(x_s, s), sg f_θ(Φᵏ(x_s), s_k) ),  Φᵏ k guided solver steps of the teacher from (x_s, s), s_k the time that they reach.

Where fewer than k steps are left s_k is the end, at which f is the identity. k = 1 is CM, k = N Direct CM (2411.08954).
"""

from __future__ import annotations

import torch
from torch import Tensor

from directcm.distill.methods import Batch, Context
from directcm.distill.students import Student

LABEL = "k-step"
TEACHER, TARGETS, FORWARDS = False, "forward", 2
STATES = True


def student_forwards(step: int, steps: int, context: Context) -> float:
    """One, and one for each row whose target is not at the end: of N start times all but the last k."""
    return 2 - context.k / context.intervals


def loss(student: Student, batch: Batch, context: Context) -> Tensor:
    """Per-sample losses (B,)."""
    assert batch.x_next is not None
    target = batch.x_next.clone()
    inside = torch.nonzero(batch.t_next != student.process.end).flatten()
    if len(inside):
        cond = None if batch.cond is None else batch.cond.rows(inside)
        with torch.no_grad():
            target[inside] = student(batch.x_next[inside], batch.t_next[inside], cond).to(target)
    return context.distance(student(batch.x, batch.t, batch.cond), target)
