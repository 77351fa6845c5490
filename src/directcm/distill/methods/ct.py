"""Consistency training (Song et al. 2303.01469, Algorithm 3): no teacher; both points have the same image and noise.

d( f_θ(x + t_{n+1} z, t_{n+1}), f_θ⁻(x + t_n z, t_n) ) on a grid of N(k) times that grows during training; θ⁻ is an EMA of decay μ(k).
"""

from __future__ import annotations

import math

from torch import Tensor

from directcm.distill.methods import Batch, Context, training_pair
from directcm.distill.students import Student

LABEL = "CT"
TEACHER, TARGETS, FORWARDS = False, "", 2
PROCESSES = ("karras",)
# Song et al., Table 3, CIFAR-10.
SETTINGS = {"s0": 2, "s1": 150, "mu0": 0.9}
# Every step computes its grid; the upper limit keeps that cheap.
RANGES = "1 <= s0 <= s1 <= 10000, 0 < mu0 <= 1"


def intervals(step: int, steps: int, s0: float, s1: float) -> int:
    """n(k) = N(k) − 1 = max(⌈√(k/K·((s₁ + 1)² − s₀²) + s₀²) − 1⌉, 1) (Song et al., Appendix C)."""
    return max(math.ceil(math.sqrt(step / steps * ((s1 + 1) ** 2 - s0**2) + s0**2) - 1), 1)


def decay(step: int, steps: int, context: Context) -> float:
    """μ(k) = exp(s₀ ln μ₀/n(k)) (Song et al., Appendix C)."""
    hparams = context.hparams
    return math.exp(hparams["s0"] * math.log(hparams["mu0"]) / intervals(step, steps, hparams["s0"], hparams["s1"]))


def times(student: Student, batch: Batch, context: Context) -> tuple[Tensor, Tensor]:
    """Neighbouring times t > r (B,) of the step's grid, uniform over the pairs."""
    assert batch.u is not None
    n = intervals(batch.step, batch.steps, context.hparams["s0"], context.hparams["s1"])
    grid = student.process.grid(n).to(batch.u.device)
    index = (batch.u * n).long()
    return grid[index], grid[index + 1]


def loss(student: Student, batch: Batch, context: Context) -> Tensor:
    """Per-sample losses (B,)."""
    assert batch.x0 is not None and batch.eps is not None and context.ema_target is not None
    t, r = times(student, batch, context)
    return context.distance(*training_pair(student, context.ema_target, batch.x0, batch.eps, t, r, batch.data_cond))
