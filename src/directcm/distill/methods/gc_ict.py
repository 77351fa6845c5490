"""Generator-augmented flows (2406.09570) on iCT. iCT has no EMA; one is kept for the generator alone.

x̂ = sg f_EMA(x + σ_i z, σ_i); the pair is x̂ + σ_{i+1} z and x̂ + σ_i z with the same z.
"""

from __future__ import annotations

from torch import Tensor

from directcm.distill.methods import Batch, Context, gc_ct, ict, training_pair
from directcm.distill.students import Student

LABEL = "GC (iCT)"
TEACHER, TARGETS, FORWARDS = False, "", 3
PROCESSES = ("karras",)
# p as in GC (CT); ema is the generator's decay, chosen for trainings as short as the embedded ones; the others are iCT's.
SETTINGS = {"p": 0.5, "ema": 0.99, "s0": 10, "s1": 1280, "p_mean": -1.1, "p_std": 2.0, "huber": 0.00054, "dropout": 0.0}
RANGES = "0 <= p <= 1, 0 <= ema <= 1, 1 <= s0 <= s1 <= 10000, -6 <= p_mean <= 4, 0 < p_std <= 100, 1e-6 <= huber <= 1, 0 <= dropout < 1"


def decay(step: int, steps: int, context: Context) -> float:
    """That of the generator's EMA."""
    return context.hparams["ema"]


def loss(student: Student, batch: Batch, context: Context) -> Tensor:
    """Per-sample losses (B,)."""
    assert batch.eps is not None and context.ema_target is not None
    t, r = ict.times(student, batch, context)
    images = gc_ct.augmented(context.ema_target, batch, r, context.hparams["p"])
    return ict.weighted(
        student, context, t, r, training_pair(student, student, images, batch.eps, t, r, batch.data_cond)
    )
