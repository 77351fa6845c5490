"""Methods: one file per algorithm, each with its declarations (directcm.config.registry) and `loss(student, batch, context)`.

`loss` returns per-sample losses (B,). Everything random is drawn before it is called. Optional functions:

    decay(step, steps, context)             decay of the EMA of the student's weights after this step; 0 copies the student.
                                            context.ema_target is then the student with the averaged weights
    teacher_steps(step, steps, context)     solver steps of the teacher per row, if not always 1
    student_forwards(step, steps, context)  rows through the student's network per row, if not always FORWARDS
    endpoints(step, steps, context)         whether this step uses solved endpoints, if TARGETS is set and not every step does
    own(process)                            a module that is trained beside the student and not kept: context.own
    jump(process, x, end, t, s)             x at time s from x at time t and its predicted `end`: the sampler's step between
                                            two student steps, if it adds no fresh noise
    ready(sampling_steps, steps, intervals) the training step at which the student for this number of sampling steps is
                                            finished, if not always the last
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from directcm.diffusion.distances import Distance, mse, pseudo_huber  # noqa: F401
from directcm.diffusion.processes import Process, expand
from directcm.diffusion.solvers import Solver
from directcm.diffusion.teachers import Conditioning, Teacher

if TYPE_CHECKING:
    from directcm.distill.students import Student


@dataclass(frozen=True)
class Batch:
    """The rows of one training step; `steps` is the length of the training.

    x (B, …) at time t, the next grid time t_next, the conditioning, and the ODE's endpoint from x if the method's TARGETS
    name start points. x_next (B, …) is x after one solver step, at t_next, if it was solved beforehand (see `next_point`);
    of a method with STATES it is x after k steps, and t_next the time reached.
    Also training images x0 (B, …) with their conditioning data_cond, noise eps (B, …), and two uniform numbers u, v in [0, 1)
    per row, (B,) float64, from which a method takes its times and choices.
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
    """What is constant during a training: the frozen teacher (None if the method needs none), its solver, guidance, N, k.

    `hparams`: the method's hyperparameters. `ema_target`: the student with averaged weights, if the method has a `decay`. `own`: its module, if it has one.
    """

    teacher: Teacher | None
    solver: Solver
    w: float
    distance: Distance
    intervals: int = 1
    hparams: Mapping[str, float] = field(default_factory=dict)
    ema_target: Student | None = None
    k: int = 1
    own: nn.Module | None = None


def load(name: str) -> ModuleType:
    """The module of a method."""
    return importlib.import_module(f"directcm.distill.methods.{name}")


@torch.no_grad()
def next_point(batch: Batch, context: Context) -> Tensor:
    """x̂_n (B, …): one guided solver step of the teacher from (x_s, s): the stored one, or computed here."""
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
    """(f(x_t, t), sg f⁻(x_r, r)) for the same image and noise at times t > r (B,); `target` is f⁻.

    With dropout both forwards use the same mask (Song et al. 2303.01469, Appendix C).
    """
    process = student.process
    # The generator's state is restored after the first forward, so that the second draws the same masks.
    with torch.random.fork_rng(devices=[x0.device] if x0.is_cuda else []), torch.no_grad():
        aim = target(process.diffuse(x0, eps, r), r, cond)
    return student(process.diffuse(x0, eps, t), t, cond), aim


def noise_levels(process: Process, t: Tensor) -> Tensor:
    """σ/α at times (B,): the noise level that Karras et al. (2206.00364) call σ, on any process."""
    return process.sigma(t) / process.alpha(t)


def scale(values: Tensor, losses: Tensor) -> Tensor:
    """Per-row weights (B,) times losses (B,), in the losses' dtype."""
    return expand(values, losses) * losses
