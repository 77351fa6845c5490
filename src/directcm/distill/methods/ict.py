"""Improved consistency training (Song & Dhariwal 2310.14189): CT without an EMA, with lognormal noise levels.

λ(σ_i)·( √(‖δ‖² + c²) − c ),  δ = f_θ(x + σ_{i+1} z, σ_{i+1}) − sg f_θ(x + σ_i z, σ_i),  λ = 1/(σ_{i+1} − σ_i), c = 0.00054·√d.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from directcm.diffusion.distances import norm_huber
from directcm.distill.methods import Batch, Context, noise_levels, scale, training_pair
from directcm.distill.students import Student

LABEL = "iCT"
TEACHER, TARGETS, FORWARDS = False, "", 2
PROCESSES = ("karras",)
# Song & Dhariwal, Table 1; the mean of ln σ is −1.1, not 1.1.
SETTINGS = {"s0": 10, "s1": 1280, "p_mean": -1.1, "p_std": 2.0, "huber": 0.00054, "dropout": 0.0}
# p_mean is an ln σ, and Karras's σ are 0.002 to 80: far outside no pair of neighbours has any probability.
RANGES = "1 <= s0 <= s1 <= 10000, -6 <= p_mean <= 4, 0 < p_std <= 100, 1e-6 <= huber <= 1, 0 <= dropout < 1"


def intervals(step: int, steps: int, s0: float, s1: float) -> int:
    """N(k) − 1 = min(s₀·2^⌊k/K′⌋, s₁), K′ = ⌊K/(log₂⌊s₁/s₀⌋ + 1)⌋: it doubles after equal parts of training."""
    part = max(math.floor(steps / (math.log2(math.floor(s1 / s0)) + 1)), 1)
    return int(min(s0 * 2 ** (step // part), s1))


def probabilities(levels: Tensor, mean: float, std: float) -> Tensor:
    """Of each pair of neighbours of descending levels (n + 1,): its share of normal(mean, std) over ln σ, (n,), sum 1."""
    mass = torch.special.erf((levels.log() - mean) / (math.sqrt(2) * std))
    between = mass[:-1] - mass[1:]
    return between / between.sum()


def times(student: Student, batch: Batch, context: Context) -> tuple[Tensor, Tensor]:
    """Neighbouring times t > r (B,) of the step's grid."""
    assert batch.u is not None
    hparams = context.hparams
    grid = student.process.grid(intervals(batch.step, batch.steps, hparams["s0"], hparams["s1"])).to(batch.u.device)
    chance = probabilities(noise_levels(student.process, grid), hparams["p_mean"], hparams["p_std"])
    index = torch.searchsorted(chance.cumsum(0), batch.u.contiguous(), right=True).clamp(max=len(chance) - 1)
    return grid[index], grid[index + 1]


def weighted(student: Student, context: Context, t: Tensor, r: Tensor, pair: tuple[Tensor, Tensor]) -> Tensor:
    """λ times the pseudo-Huber distance of the pair, (B,)."""
    gap = noise_levels(student.process, t) - noise_levels(student.process, r)
    return scale(1 / gap, norm_huber(context.hparams["huber"])(*pair))


def loss(student: Student, batch: Batch, context: Context) -> Tensor:
    """Per-sample losses (B,)."""
    assert batch.x0 is not None and batch.eps is not None
    t, r = times(student, batch, context)
    return weighted(student, context, t, r, training_pair(student, student, batch.x0, batch.eps, t, r, batch.data_cond))
