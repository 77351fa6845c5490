"""Noise processes: x_t = α(t)·x₀ + σ(t)·ε. Nothing else in the code knows which process it runs under."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from directcm.errors import UserError


def expand(values: Tensor, like: Tensor) -> Tensor:
    """Reshape per-row values (B,) to (B, 1, …) so that they scale the rows of `like` (B, …)."""
    return values.reshape(-1, *([1] * (like.dim() - 1))).to(like)


class Process(ABC):
    """A noise process with times from `start` (pure noise) down to `end` (data)."""

    start: float
    end: float

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Signal scale α(t) for times (B,), float64 (B,)."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Noise scale σ(t) for times (B,), float64 (B,)."""

    @abstractmethod
    def grid(self, intervals: int) -> Tensor:
        """Times from `start` down to `end`, (intervals + 1,), float64; raises UserError where impossible."""

    @abstractmethod
    def velocity(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """dx/dt of the probability-flow ODE at x (B, …), given the noise ε̂ there, per unit of t."""

    @abstractmethod
    def boundary(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(c_skip, c_out) of the consistency parameterisation at times (B,); (1, 0) at `end`."""

    @abstractmethod
    def network_time(self, t: Tensor) -> Tensor:
        """What the network is told instead of t, (B,)."""

    def inner(self, t: Tensor) -> Tensor:
        """The nearest times (B,) at which dx/dt is defined: where σ = 0 the slope of an ε̂ is not."""
        return t

    def diffuse(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """α(t)·x₀ + σ(t)·ε, row by row."""
        return expand(self.alpha(t), x0) * x0 + expand(self.sigma(t), x0) * eps

    def clean(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x̂₀ = (x − σ(t)·ε̂)/α(t), row by row."""
        return (x - expand(self.sigma(t), x) * eps) / expand(self.alpha(t), x)

    def prior(self, noise: Tensor) -> Tensor:
        """x at `start` from standard normal noise: σ(start)·noise for VE, the noise itself for VP."""
        return noise


class VariancePreserving(Process):
    """The discrete DDPM process of Stable Diffusion (METHODS.md; Ho et al. 2006.11239).

    Times t ∈ {0, …, K} with K = len(betas): α(t) = √ᾱ_{t−1}, σ(t) = √(1 − ᾱ_{t−1}), α(0) = 1, σ(0) = 0.
    `time_input`: "zero_based" tells the network t − 1 (what a diffusers U-Net was trained on), "one_based" t
    (what the paper's released code feeds it).
    """

    def __init__(self, betas: Sequence[float] | Tensor, time_input: str = "zero_based") -> None:
        if time_input not in ("zero_based", "one_based"):
            raise ValueError(f"time_input is {time_input!r}, expected zero_based or one_based")
        betas = torch.as_tensor(betas, dtype=torch.float64)
        if betas.dim() != 1 or not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError("betas must be a sequence of numbers between 0 and 1")
        self.betas = betas
        cumulative = torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - betas, 0)])
        self._alpha = cumulative.sqrt()
        self._sigma = (1 - cumulative).sqrt()
        self.start = float(len(betas))
        self.end = 0.0
        self.time_input = time_input

    @classmethod
    def scaled_linear(
        cls, beta_start: float = 0.00085, beta_end: float = 0.012, steps: int = 1000, time_input: str = "zero_based"
    ) -> VariancePreserving:
        """SDXL's schedule: √β linear in t."""
        betas = torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float64) ** 2
        return cls(betas, time_input)

    def _index(self, t: Tensor) -> Tensor:
        index = t.long()
        if not bool((index == t).all()) or not bool(((index >= 0) & (index <= len(self.betas))).all()):
            raise ValueError(f"VP times are integers from 0 to {len(self.betas)}")
        return index.cpu()

    def alpha(self, t: Tensor) -> Tensor:
        return self._alpha[self._index(t)].to(t.device)

    def sigma(self, t: Tensor) -> Tensor:
        return self._sigma[self._index(t)].to(t.device)

    def grid(self, intervals: int) -> Tensor:
        total = len(self.betas)
        if intervals < 1 or total % intervals:
            raise UserError(f"N = {intervals} does not divide the process's {total} time steps")
        return torch.arange(intervals, -1, -1, dtype=torch.float64) * (total // intervals)

    def velocity(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """−½β x + ½β ε̂/σ with β = β_{t−1}; at t = 0 the values of t = 1, as the release has it (METHODS.md)."""
        index = self._index(t).clamp(min=1)
        beta = expand(self.betas[index - 1].to(x.device), x)
        sigma = expand(self._sigma[index].to(x.device), x)
        return 0.5 * beta * (eps / sigma - x)

    def inner(self, t: Tensor) -> Tensor:
        return t.clamp(min=1)

    def boundary(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """c_skip = ¼/((10t)² + ¼), c_out = 10t/√((10t)² + ¼) (METHODS.md, "Student")."""
        scaled = 10.0 * t.double()
        return 0.25 / (scaled**2 + 0.25), scaled / (scaled**2 + 0.25).sqrt()

    def network_time(self, t: Tensor) -> Tensor:
        return (t - 1).clamp(min=0) if self.time_input == "zero_based" else t
