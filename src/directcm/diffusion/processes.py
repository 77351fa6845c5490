"""Noise processes x_t = α(t)·x₀ + σ(t)·ε. The rest of the code uses them through `Process` alone."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from directcm import config
from directcm.errors import UserError


def expand(values: Tensor, like: Tensor) -> Tensor:
    """Reshape per-row values (B,) to (B, 1, …) so that they scale the rows of `like` (B, …)."""
    return values.reshape(-1, *([1] * (like.dim() - 1))).to(like)


class Process(ABC):
    """A noise process with times from `start` (pure noise) down to `end` (data)."""

    start: float
    end: float
    # Whether a network that is asked for the slope at the end is told the end itself, not the `inner` time whose α and σ are used.
    tells_end = False

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Signal scale α(t) for times (B,), float64 (B,)."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Noise scale σ(t) for times (B,), float64 (B,)."""

    @abstractmethod
    def grid(self, intervals: int) -> Tensor:
        """Times from `start` down to `end`, (intervals + 1,), float64; UserError if there is no such grid."""

    @abstractmethod
    def time(self, share: Tensor) -> Tensor:
        """Times (B,) after shares (B,) in [0, 1] of the way from `start` to `inner(end)`, spaced as a grid of many intervals, float64."""

    @property
    def continuous(self) -> Process:
        """The same process, defined and differentiable at all times from `inner(end)` to `start`."""
        return self

    @abstractmethod
    def velocity(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """dx/dt of the probability-flow ODE at x (B, …) and t (B,), given the predicted noise ε̂."""

    @abstractmethod
    def boundary(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(c_skip, c_out) of the consistency parameterisation at times (B,); (1, 0) at `end`."""

    def student(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(a, b) at times (B,) of the student f = a·x + b·x̂₀, with x̂₀ from its network; (1, 0) at `end`.

        If c_out multiplies x̂₀, as on the VP process, these are c_skip and c_out.
        """
        return self.boundary(t)

    @abstractmethod
    def network_time(self, t: Tensor) -> Tensor:
        """The network's time input for times (B,), (B,)."""

    @abstractmethod
    def output_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(a, b) at times (B,): a pixel network's output F means the noise ε̂ = a·x + b·F."""

    def level(self, t: Tensor) -> Tensor:
        """The noise at times (B,) in excess of that at `end`: on DDIM's straight line to the end, x = α·x_end + level·ε̂."""
        return self.sigma(t)

    def inner(self, t: Tensor) -> Tensor:
        """The nearest times (B,) at which dx/dt is defined, which it is not where σ = 0."""
        return t

    def diffuse(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """α(t)·x₀ + σ(t)·ε, row by row."""
        return expand(self.alpha(t), x0) * x0 + expand(self.sigma(t), x0) * eps

    def clean(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x̂₀ = (x − σ(t)·ε̂)/α(t), row by row."""
        return (x - expand(self.sigma(t), x) * eps) / expand(self.alpha(t), x)

    def input_scale(self, t: Tensor) -> Tensor:
        """c_in at times (B,): the factor that gives the network's input about unit variance."""
        return torch.ones_like(t, dtype=torch.float64)

    def renoise(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t from x at `end` and fresh noise, row by row: between two sampling steps of a student."""
        return self.diffuse(x, eps, t)

    def prior(self, noise: Tensor) -> Tensor:
        """x at `start` from standard normal noise: σ(start)·noise on VE, the noise itself on VP."""
        return noise


class VariancePreserving(Process):
    """The discrete DDPM process of Stable Diffusion (Ho et al. 2006.11239, Section 2), with times counted from 1.

    Times t ∈ {0, …, K} with K = len(betas): α(t) = √ᾱ_{t−1}, σ(t) = √(1 − ᾱ_{t−1}), α(0) = 1, σ(0) = 0.
    `time_input`: the network gets t − 1 ("zero_based", as a diffusers U-Net was trained) or t ("one_based", as in the
    released code of 2411.08954).
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
        # So does the released code: its U-Net gets 0 there. Told t − 1, a network gets 0 at both times.
        self.tells_end = time_input == "one_based"

    @classmethod
    def scaled_linear(
        cls, beta_start: float = 0.00085, beta_end: float = 0.012, steps: int = 1000, time_input: str = "zero_based"
    ) -> VariancePreserving:
        """SDXL's schedule: √β linear in t."""
        betas = torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float64) ** 2
        return cls(betas, time_input)

    def _index(self, t: Tensor) -> Tensor:
        index = t.long()
        good, what = ((index == t) & (index >= 0) & (index <= len(self.betas))).all(), "VP times are integers from 0 to"
        # On a GPU the host does not wait for the answer.
        if t.is_cuda:
            torch._assert_async(good, f"{what} {len(self.betas)}")
        elif not good:
            raise ValueError(f"{what} {len(self.betas)}")
        return index

    # A process lives as long as its job.
    @functools.cache  # noqa: B019
    def _tables(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """(α, σ, β) on a device, where they stay."""
        return self._alpha.to(device), self._sigma.to(device), self.betas.to(device)

    def alpha(self, t: Tensor) -> Tensor:
        return self._tables(t.device)[0][self._index(t)]

    def sigma(self, t: Tensor) -> Tensor:
        return self._tables(t.device)[1][self._index(t)]

    def grid(self, intervals: int) -> Tensor:
        total = len(self.betas)
        if intervals < 1 or total % intervals:
            raise UserError(f"N = {intervals} does not divide the process's {total} time steps")
        return torch.arange(intervals, -1, -1, dtype=torch.float64) * (total // intervals)

    def time(self, share: Tensor) -> Tensor:
        """K − share·(K − 1): down to 1, below which dx/dt grows beyond all bounds."""
        return self.start - share.double() * (self.start - 1)

    @property
    def continuous(self) -> Process:
        return Interpolated(self.betas, self.time_input)

    def velocity(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """−½β x + ½β ε̂/σ with β = β_{t−1}; at t = 0 the values of t = 1, as in the released code of 2411.08954."""
        index = self._index(t).clamp(min=1)
        _, sigma, beta = self._tables(t.device)
        return 0.5 * expand(beta[index - 1], x) * (eps / expand(sigma[index], x) - x)

    def inner(self, t: Tensor) -> Tensor:
        return t.clamp(min=1)

    def boundary(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """c_skip = ¼/((10t)² + ¼), c_out = 10t/√((10t)² + ¼) (the student of 2411.08954)."""
        scaled = 10.0 * t.double()
        return 0.25 / (scaled**2 + 0.25), scaled / (scaled**2 + 0.25).sqrt()

    def network_time(self, t: Tensor) -> Tensor:
        return (t - 1).clamp(min=0) if self.time_input == "zero_based" else t

    def output_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(0, 1): the network predicts the noise itself (Ho et al.)."""
        one = torch.ones_like(t, dtype=torch.float64)
        return 0 * one, one


class Interpolated(VariancePreserving):
    """The discrete process at all times t ∈ [0, K]: between two of its times ln ᾱ is linear, so that β is constant within a step.

    That is the VP SDE (Song et al. 2011.13456, Equation 11) with β(t) = −ln(1 − β_k) for k < t ≤ k + 1. At whole times it is the table
    to rounding.
    """

    def _log_signal(self, t: Tensor) -> Tensor:
        """ln ᾱ(t) = 2 ln α(t), float64 (B,)."""
        total = len(self.betas)
        good, what = ((t >= 0) & (t <= total)).all(), f"VP times are from 0 to {total}"
        if t.is_cuda:
            torch._assert_async(good, what)
        elif not good:
            raise ValueError(what)
        low = t.detach().floor().clamp(max=total - 1).long()
        alpha, _, beta = self._tables(t.device)
        return 2 * alpha[low].log() + (t.double() - low) * torch.log1p(-beta[low])

    def alpha(self, t: Tensor) -> Tensor:
        return (0.5 * self._log_signal(t)).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(self._log_signal(t))).sqrt()


class VarianceExploding(Process):
    """Karras's process x_t = x₀ + t·ε, with the noise level as time (Karras et al. 2206.00364).

    From T = `start` to ε = `end`; the ODE's endpoint is x_ε. A larger `rho` puts more grid times near `end`. `sigma_data` is
    the data's standard deviation.
    """

    def __init__(self, start: float = 80.0, end: float = 0.002, rho: float = 7.0, sigma_data: float = 0.5) -> None:
        if not 0 < end < start or rho <= 0 or sigma_data <= 0:
            raise ValueError("expected 0 < end < start, rho > 0 and sigma_data > 0")
        self.start, self.end, self.rho, self.sigma_data = start, end, rho, sigma_data

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t, dtype=torch.float64)

    def sigma(self, t: Tensor) -> Tensor:
        return t.double()

    def grid(self, intervals: int) -> Tensor:
        """(T^(1/ρ) + i/N·(ε^(1/ρ) − T^(1/ρ)))^ρ for i = 0 … N; N in Song et al. is the number of times, one more."""
        if intervals < 1:
            raise UserError(f"N = {intervals} is not a number of intervals, 1 or more")
        first, last = self.start ** (1 / self.rho), self.end ** (1 / self.rho)
        # From the fraction i/N, so that a time that two grids share is the same float in both.
        inner = [(first + i / intervals * (last - first)) ** self.rho for i in range(1, intervals)]
        # The ends without rounding: the boundary condition holds at exactly ε.
        return torch.tensor([self.start, *inner, self.end], dtype=torch.float64)

    def time(self, share: Tensor) -> Tensor:
        """(T^(1/ρ) + share·(ε^(1/ρ) − T^(1/ρ)))^ρ."""
        first, last = self.start ** (1 / self.rho), self.end ** (1 / self.rho)
        return ((first + share.double() * (last - first)) ** self.rho).clamp(self.end, self.start)

    def level(self, t: Tensor) -> Tensor:
        """t − ε: the endpoint is x_ε."""
        return t.double() - self.end

    def velocity(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """dx/dt = (x − x̂₀)/t = ε̂."""
        return eps

    def boundary(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """c_skip = σ_d²/((t − ε)² + σ_d²), c_out = σ_d (t − ε)/√(t² + σ_d²) (Song et al. 2303.01469, Appendix C)."""
        t = t.double()
        off, data = t - self.end, self.sigma_data
        return data**2 / (off**2 + data**2), data * off / (t**2 + data**2).sqrt()

    def student(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """b = (t − ε)/t, a = c_skip − b·σ_d²/(t² + σ_d²): f = c_skip·x + c_out·F, with x̂₀ = D and the F of `denoiser`.

        A student with its teacher's weights is then about the teacher's D.
        """
        skip, _ = self.boundary(t)
        b = (t.double() - self.end) / t.double()
        return skip - b * self.denoiser(t)[0], b

    def denoiser(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(c_skip, c_out) of the teacher's D = c_skip·x + c_out·F (Karras et al., Table 1)."""
        t, data = t.double(), self.sigma_data
        return data**2 / (t**2 + data**2), data * t / (t**2 + data**2).sqrt()

    def output_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(t/(t² + σ_d²), −σ_d/√(t² + σ_d²)): ε̂ = (x − D)/t with the D of `denoiser`, without cancellation at small t."""
        t, data = t.double(), self.sigma_data
        return t / (t**2 + data**2), -data / (t**2 + data**2).sqrt()

    def loss_weight(self, t: Tensor) -> Tensor:
        """λ(t) = (t² + σ_d²)/(t σ_d)² of ‖D − x₀‖², which is weight 1 of ‖F − F*‖² (Karras et al., Table 1)."""
        t, data = t.double(), self.sigma_data
        return (t**2 + data**2) / (t * data) ** 2

    def input_scale(self, t: Tensor) -> Tensor:
        return 1 / (t.double() ** 2 + self.sigma_data**2).sqrt()

    def network_time(self, t: Tensor) -> Tensor:
        """250·ln t: Karras's ¼ ln t times 1000 (Song et al.), the range of DDPM's steps, for which diffusers' sinusoids are made."""
        return 250 * t.double().log()

    def renoise(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x + √(t² − ε²)·z, since x at ε has noise of variance ε² already (Song et al., Algorithm 1)."""
        return x + expand((t.double() ** 2 - self.end**2).clamp(min=0).sqrt(), x) * eps

    def prior(self, noise: Tensor) -> Tensor:
        return self.start * noise


def make(settings: config.Process) -> Process:
    """The process of a configuration."""
    if settings.kind == "karras":
        k = settings.karras
        return VarianceExploding(k.sigma_max, k.sigma_min, k.rho, k.sigma_data)
    return VariancePreserving.scaled_linear(steps=settings.timesteps, time_input=settings.time_input)
