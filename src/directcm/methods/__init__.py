"""Methods: one file per algorithm, each with what it needs (directcm.registry) and `loss(student, batch, context)`.

A method returns per-sample losses (B,). Everything random has been drawn before it is called. It may also have

    decay(step, steps, context)          how much of the weight average stays after a step: 1 all of it, 0 a copy of the
                                         student. A method that has it finds the student on that average as context.ema_target
    teacher_steps(step, steps, context)     solver steps of the teacher for one row of a step, where that is not always one
    student_forwards(step, steps, context)  rows through the student's network for one row of a step, where that is not always
                                         FORWARDS
    endpoints(step, steps, context)         whether a step learns from solved endpoints, where TARGETS has some and not all steps do
    jump(process, x, end, t, s)          where sampling goes on to time s, having found `end` from x at t, if not by fresh noise
    ready(sampling_steps, steps, intervals)  after which step the student that is sampled in so many steps was finished, where
                                         that is not always the last
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from directcm.distances import Distance, mse, pseudo_huber  # noqa: F401
from directcm.processes import Process, expand
from directcm.solvers import Solver
from directcm.teachers import Conditioning, Teacher

if TYPE_CHECKING:
    from directcm.students import Student


@dataclass(frozen=True)
class Batch:
    """The rows of one step, of `steps` in all.

    x at time t (B, …), the next grid time, their conditioning, and the ODE's endpoint from x where the method's TARGETS ask
    for it: start points of that coupling. x_next (B, …) is the ODE one step on from x, at t_next, where it was solved beforehand
    (see `next_point`). Beside them training images x0 (B, …), noise eps (B, …), the images' own conditioning,
    and two numbers u, v in [0, 1) a row (B,) float64, for times and choices of a method's own.
    """

    x: Tensor
    t: Tensor
    t_next: Tensor
    cond: Conditioning | None
    endpoint: Tensor | None
    x0: Tensor | None = None
    eps: Tensor | None = None
    data_cond: Conditioning | None = None
    u: Tensor | None = None
    v: Tensor | None = None
    step: int = 0
    steps: int = 1
    x_next: Tensor | None = None


@dataclass(frozen=True)
class Context:
    """What stays the same over a training: the frozen teacher (where the method needs it), its solver, guidance, N.

    `hparams`: the method's SETTINGS. `ema_target`: the student on the average of its weights, where the method has a `decay`.
    """

    teacher: Teacher | None
    solver: Solver
    w: float
    distance: Distance
    intervals: int = 1
    hparams: Mapping[str, float] = field(default_factory=dict)
    ema_target: Student | None = None


def load(name: str) -> ModuleType:
    """The module of a method."""
    return importlib.import_module(f"directcm.methods.{name}")


@torch.no_grad()
def next_point(batch: Batch, context: Context) -> Tensor:
    """x̂_n (B, …): one guided solver step of the teacher from (x_s, s), as it was stored, or else made here."""
    if batch.x_next is not None:
        return batch.x_next
    assert context.teacher is not None
    return context.solver.step(context.teacher, batch.x, batch.t, batch.t_next, batch.cond, context.w)


def training_pair(
    student: Student,
    target: Student,
    x0: Tensor,
    eps: Tensor,
    t: Tensor,
    r: Tensor,
    cond: Conditioning | None,
) -> tuple[Tensor, Tensor]:
    """(f(x_t, t), sg f⁻(x_r, r)) of points of the same image and noise at times t > r (B,); `target` is f⁻.

    Both forwards drop the same units of a network with dropout (Song et al. 2303.01469, Appendix C).
    """
    process = student.process
    # The generator is put back as it was before the first forward, so that the second draws the same masks.
    with torch.random.fork_rng(devices=[x0.device] if x0.is_cuda else []), torch.no_grad():
        aim = target(process.diffuse(x0, eps, r), r, cond)
    return student(process.diffuse(x0, eps, t), t, cond), aim


def noise_levels(process: Process, t: Tensor) -> Tensor:
    """σ/α at times (B,): on every process what Karras's calls σ."""
    return process.sigma(t) / process.alpha(t)


def scale(values: Tensor, losses: Tensor) -> Tensor:
    """Per-row weights (B,) times losses (B,), in the losses' own precision."""
    return expand(values, losses) * losses
