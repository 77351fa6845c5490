"""Easy consistency tuning (2406.14548): training moves from diffusion (r near the end) to consistency (r near t).

‖f_θ(x + t z, t) − sg f_θ(x + r z, r)‖/(t − r),  ln t ~ normal(−1.1, 2),  r = t·(1 − (1 + 8·sigmoid(−t))/q^(stage + 1)), at least the end.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from directcm.diffusion.processes import Process
from directcm.distill.methods import Batch, Context, scale, training_pair
from directcm.distill.students import Student

LABEL = "ECT"
TEACHER, TARGETS, FORWARDS = False, "", 2
PROCESSES = ("karras",)
# Geng et al. 2406.14548: the mapping from t to r and the normal of ln t. All stages are equally long; the exponent is stage + 1.
SETTINGS = {"p_mean": -1.1, "p_std": 2.0, "q": 2.0, "k": 8.0, "stages": 8, "dropout": 0.0}
# In the last stage t and r differ by about one part in q^stages, which a float32 network has to resolve.
RANGES = "-6 <= p_mean <= 4, 0 < p_std <= 100, 1 < q, 0 <= k <= 1000, 1 <= stages, q**stages <= 1e6, 0 <= dropout < 1"
# The gradient of a norm is not defined at 0.
TINY = 1e-8


def start_times(process: Process, u: Tensor, mean: float, std: float) -> Tensor:
    """t (B,) with ln t normal(mean, std), truncated to the process's times, by inverse CDF from u (B,) in [0, 1)."""
    ends = torch.tensor([process.end, process.start], dtype=torch.float64, device=u.device)
    low, high = torch.special.ndtr((ends.log() - mean) / std)
    # Above the end, where t − r would be 0.
    t = torch.exp(mean + std * torch.special.ndtri(low + (high - low) * u.clamp(min=1e-9)))
    return t.clamp(process.end * (1 + 1e-6), process.start)


def earlier(process: Process, t: Tensor, stage: int, q: float, k: float) -> Tensor:
    """r < t (B,) in a stage, at least the process's end."""
    ratio = 1 - (1 + k * torch.sigmoid(-t)) / q ** (stage + 1)
    return (t * ratio).clamp(min=process.end)


def loss(student: Student, batch: Batch, context: Context) -> Tensor:
    """Per-sample losses (B,)."""
    assert batch.x0 is not None and batch.eps is not None and batch.u is not None
    hparams, process = context.hparams, student.process
    stage = math.floor(batch.step * hparams["stages"] / batch.steps)
    t = start_times(process, batch.u, hparams["p_mean"], hparams["p_std"])
    r = earlier(process, t, stage, hparams["q"], hparams["k"])
    made, aim = training_pair(student, student, batch.x0, batch.eps, t, r, batch.data_cond)
    norm = (((made - aim) ** 2).flatten(1).sum(1) + TINY**2).sqrt() - TINY
    return scale(1 / (t - r), norm)
