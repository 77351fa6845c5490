"""Generator-augmented flows (2406.09570) on CT: a share 1 − p of the images are replaced by generated ones.

x̂ = sg f_θ⁻(x + σ_i z, σ_i); the pair is x̂ + σ_{i+1} z and x̂ + σ_i z with the same z. CT's EMA θ⁻ is also the generator.
"""

from __future__ import annotations

import torch
from torch import Tensor

from directcm.diffusion.processes import expand
from directcm.distill.methods import Batch, Context, ct, training_pair
from directcm.distill.students import Student

LABEL = "GC (CT)"
TEACHER, TARGETS, FORWARDS = False, "", 3
PROCESSES = ("karras",)
# p is the probability of the independent coupling of image and noise; the others are CT's.
SETTINGS = {"p": 0.5, "s0": 2, "s1": 150, "mu0": 0.9}
RANGES = "0 <= p <= 1, 1 <= s0 <= s1 <= 10000, 0 < mu0 <= 1"

decay = ct.decay


def augmented(generator: Student, batch: Batch, r: Tensor, p: float) -> Tensor:
    """Images (B, …): with probability 1 − p the generator's f(x + σ_r z, σ_r), else the batch's."""
    assert batch.x0 is not None and batch.eps is not None and batch.v is not None
    with torch.no_grad():
        made = generator(generator.process.diffuse(batch.x0, batch.eps, r), r, batch.data_cond)
    return torch.where(expand((batch.v < p).double(), made).bool(), batch.x0, made)


def loss(student: Student, batch: Batch, context: Context) -> Tensor:
    """Per-sample losses (B,)."""
    assert batch.eps is not None and context.ema_target is not None
    t, r = ct.times(student, batch, context)
    images = augmented(context.ema_target, batch, r, context.hparams["p"])
    return context.distance(*training_pair(student, context.ema_target, images, batch.eps, t, r, batch.data_cond))
