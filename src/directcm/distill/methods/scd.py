"""sCD: continuous-time consistency distillation made stable (Lu & Song 2410.11081, Algorithm 1), in Karras's variables.

    e^w(t)/D·‖F_θ − sg F_θ − g/(‖g‖ + c)‖² − w(t),  w learnt,
    g = −cos²θ (σ_d F − dx̃/dθ) − r cos θ sin θ (x̃ + σ_d dF/dθ),  r from 0 to 1 in the first steps.

Their TrigFlow is x̃ = x cos θ, θ = arctan(t/σ_d), f = cos θ x̃ − sin θ σ_d F, which says what F is for any f. So F_θ − sg F_θ is
−(f_θ − sg f_θ)/(σ_d sin θ), and with dθ/dt = cos²θ/σ_d, σ_d F − dx̃/dθ = (x̂₀ − f)/sin θ:
    g = r·σ_d/cos θ·df/dt + (1 − r)·cos²θ/sin θ·(f − x̂₀).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from directcm.diffusion.processes import Process, VarianceExploding, expand
from directcm.distill.methods import Batch, Context, cd_inf, ect, scale
from directcm.distill.students import Student
from directcm.distill.tangents import derivative, free, slope

LABEL = "sCD"
TEACHER, TARGETS, FORWARDS = True, "", 3
PROCESSES = ("karras",)
TANGENT = True
# Lu & Song, CIFAR-10: ln t is normal(p_mean, p_std), c = 0.1, and r is 1 after 10,000 of 400,000 steps. gap: see CD∞.
SETTINGS = {"p_mean": -1.0, "p_std": 1.4, "c": 0.1, "warm_up": 0.025, "gap": 0.0, "dropout": 0.0}
RANGES = "-6 <= p_mean <= 4, 0 < p_std <= 100, 1e-6 <= c <= 1e3, 0 <= warm_up <= 1, 0 <= gap <= 0.5, 0 <= dropout < 1"

teacher_steps = cd_inf.teacher_steps


class Weight(nn.Module):
    """w(t) (B,) at times t (B,): linear in sinusoids of ln t, as Karras et al. (2312.02696, Appendix A) learn an uncertainty; 0 at first."""

    WAVES = 16

    def __init__(self, process: Process) -> None:
        super().__init__()
        self.low, self.high = math.log(process.end), math.log(process.start)
        self.linear = nn.Linear(2 * self.WAVES, 1, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, t: Tensor) -> Tensor:
        # The first wave is constant, the second goes up half a turn from the process's end to its start.
        angles = math.pi * (t.log() - self.low) / (self.high - self.low) * torch.arange(self.WAVES).to(t)[:, None]
        waves = torch.cat([angles.cos(), angles.sin()]).to(self.linear.weight.dtype)
        with torch.autocast(t.device.type, enabled=False):
            return self.linear(waves.T)[:, 0]


def own(process: Process) -> Weight:
    """w."""
    return Weight(process)


def ramp(step: int, steps: int, share: float) -> float:
    """r: 0 at the first step, 1 after a share of the training."""
    return min(step / (share * steps), 1.0) if share else 1.0


def points(student: Student, batch: Batch, context: Context) -> tuple[Tensor, Tensor]:
    """(x (B, …), t (B,)) of the batch's images and noise."""
    assert batch.x0 is not None and batch.eps is not None and batch.u is not None
    t = ect.start_times(student.process, batch.u, context.hparams["p_mean"], context.hparams["p_std"])
    return student.process.diffuse(batch.x0, batch.eps, t), t


def pulled(student: Student, batch: Batch, context: Context, x: Tensor, t: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
    """Per-sample losses (B,) at x (B, …) and times t (B,), along the line of x₀ and ε (B, …) through x."""
    process, r = student.process, ramp(batch.step, batch.steps, context.hparams["warm_up"])
    assert isinstance(process, VarianceExploding) and context.own is not None
    angle = torch.atan(t / process.sigma_data)
    cos, sin = angle.cos(), angle.sin()
    dx = slope(process, x0, eps, t)
    f, value, rate = derivative(student, x, t, batch.data_cond, dx, context.hparams["gap"])
    g = scale(r * process.sigma_data / cos, rate) + scale((1 - r) * cos**2 / sin, value - x0)
    g = g / (expand(g.flatten(1).norm(dim=1), g) + context.hparams["c"])
    moved = -scale(1 / (process.sigma_data * sin), free(f))
    w = context.own(t)
    return scale(w.exp(), ((moved - g) ** 2).flatten(1).mean(1)) - w


def loss(student: Student, batch: Batch, context: Context) -> Tensor:
    """Per-sample losses (B,)."""
    assert context.teacher is not None
    x, t = points(student, batch, context)
    with torch.no_grad():
        there = context.teacher.predict(x, t, batch.data_cond, context.w)
    return pulled(student, batch, context, x, t, there.x0, there.eps)
