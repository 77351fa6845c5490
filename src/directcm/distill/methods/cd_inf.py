"""CD∞: consistency distillation in continuous time (Song et al. 2303.01469, Appendix B.1, with θ⁻ = sg θ).

    f_θ(x_t, t)ᵀ H sg ḟ,  ḟ = ∂f/∂t + ∂f/∂x·dx/dt,  dx/dt the guided ODE's slope at (x_t, t), H the Hessian of d(·, f).

t = τ(u), u uniform, is a grid's time as N → ∞, and λ(t) = (τ⁻¹)′(t), as in their release, leaves no weight. In value it is
½ ḟᵀHḟ, the distance of two neighbours over their gap squared; the objective's own value means nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from directcm.distill.methods import Batch, Context
from directcm.distill.students import Student
from directcm.distill.tangents import curvature, derivative, free, slope

LABEL = "CD∞"
TEACHER, TARGETS, FORWARDS = True, "", 3
TANGENT = True
# gap: ḟ is its mean over the times from t(1 − gap) to t(1 + gap); 0, at t itself, as published.
SETTINGS = {"gap": 0.0, "dropout": 0.0}
RANGES = "0 <= gap <= 0.5, 0 <= dropout < 1"


def teacher_steps(step: int, steps: int, context: Context) -> float:
    """One evaluation, of those that a solver's step has."""
    return 1 / context.solver.evaluations_per_step


def points(student: Student, batch: Batch) -> tuple[Tensor, Tensor]:
    """(x (B, …), t (B,)): the batch's images and noise at times between all of the process's."""
    assert batch.x0 is not None and batch.eps is not None and batch.u is not None
    t = student.process.time(batch.u)
    return student.process.diffuse(batch.x0, batch.eps, t), t


def pulled(student: Student, batch: Batch, context: Context, x: Tensor, t: Tensor, dx: Tensor) -> Tensor:
    """Per-sample losses (B,) for a slope dx (B, …) at x (B, …) and times t (B,)."""
    f, value, rate = derivative(student, x, t, batch.data_cond, dx, context.hparams["gap"])
    bent = curvature(context.distance, value, rate)
    return ((free(f) + 0.5 * rate) * bent).flatten(1).sum(1)


def loss(student: Student, batch: Batch, context: Context) -> Tensor:
    """Per-sample losses (B,)."""
    assert context.teacher is not None
    x, t = points(student, batch)
    with torch.no_grad():
        there = context.teacher.predict(x, t, batch.data_cond, context.w)
    return pulled(student, batch, context, x, t, slope(student.process, there.x0, there.eps, t))
