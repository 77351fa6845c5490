"""Teachers: diffusion models that predict x̂₀ and ε̂ at any time, on any process.

A teacher's artefact holds `teacher.json`, whose "loader" names the module here that reads it back. A way to
get a teacher (train it, pin it) is a module here too, named after its `kind` in the configuration.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from directcm.processes import Process, expand

if TYPE_CHECKING:
    from directcm.artifacts import Artifact


class Conditioning:
    """What a batch is conditioned on: named tensors (B, …), one row per sample."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = dict(tensors)

    def rows(self, index: Tensor) -> Conditioning:
        """The rows `index` (B',)."""
        return Conditioning({k: v[index] for k, v in self.tensors.items()})

    def to(self, device: torch.device | str) -> Conditioning:
        """The same on another device."""
        return Conditioning({k: v.to(device) for k, v in self.tensors.items()})


@dataclass(frozen=True)
class Prediction:
    """A teacher's x̂₀ and ε̂, both float32 (B, …)."""

    x0: Tensor
    eps: Tensor


class Teacher(ABC):
    """A diffusion model behind one contract.

    Subclasses give `noise(x, t, cond)`: ε̂ without guidance, and `unconditional(cond)`: the ∅ of guidance.
    """

    process: Process
    shape: tuple[int, ...]
    network: Any = None

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.rows_evaluated = 0

    @abstractmethod
    def noise(self, x: Tensor, t: Tensor, cond: Conditioning | None) -> Tensor:
        """ε̂(x, t, cond) (B, …) without guidance."""

    @abstractmethod
    def unconditional(self, cond: Conditioning | None) -> Conditioning | None:
        """∅ for as many rows as `cond` has."""

    def rows_per_prediction(self, w: float) -> int:
        """Rows through the network for one row's prediction: 1 at w = 1 and w = 0, else 2."""
        return 1 if w in (0.0, 1.0) else 2

    def predict(self, x: Tensor, t: Tensor, cond: Conditioning | None, guidance: float = 1.0) -> Prediction:
        """x̂₀ and ε̂ at x (B, …), times t (B,), guidance w: ε̂ = ε_∅ + w(ε_c − ε_∅) (Imagen form) in one batched forward.

        w = 1 skips the unconditional half, w = 0 the conditional one.
        """
        self.rows_evaluated += len(x) * self.rows_per_prediction(guidance)
        if guidance == 1.0:
            eps = self.noise(x, t, cond).float()
        elif guidance == 0.0:
            eps = self.noise(x, t, self.unconditional(cond)).float()
        else:
            none = self.unconditional(cond)
            both = None
            if cond is not None and none is not None:
                both = Conditioning({k: torch.cat([none.tensors[k], cond.tensors[k]]) for k in cond.tensors})
            without, with_ = self.noise(torch.cat([x, x]), torch.cat([t, t]), both).float().chunk(2)
            eps = without + guidance * (with_ - without)
        return Prediction(self.process.clean(x, eps, t), eps)


class Gaussian(Teacher):
    """The exact teacher of x₀ ~ N(mean, scale²·I), whose ODE has a closed-form flow map.

    x_t ~ N(α m, α²s² + σ²), so ε̂ = σ (x − α m)/(α²s² + σ²); the flow keeps (x − α m)/√(α²s² + σ²) constant.
    """

    def __init__(self, process: Process, mean: Tensor, scale: float) -> None:
        super().__init__()
        self.process = process
        self.mean = mean
        self.scale = scale
        self.shape = tuple(mean.shape)

    def noise(self, x: Tensor, t: Tensor, cond: Conditioning | None) -> Tensor:
        alpha, sigma = expand(self.process.alpha(t), x), expand(self.process.sigma(t), x)
        return sigma * (x - alpha * self.mean) / (alpha**2 * self.scale**2 + sigma**2)

    def unconditional(self, cond: Conditioning | None) -> Conditioning | None:
        return cond

    def flow(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The exact solution at times s (B,) of the ODE through x (B, …) at times t (B,)."""

        def moments(time: Tensor) -> tuple[Tensor, Tensor]:
            alpha, sigma = expand(self.process.alpha(time), x), expand(self.process.sigma(time), x)
            return alpha * self.mean, (alpha**2 * self.scale**2 + sigma**2).sqrt()

        (m_t, d_t), (m_s, d_s) = moments(t), moments(s)
        return m_s + (x - m_t) * d_s / d_t


def load(artifact: Artifact, device: torch.device | str = "cpu", precision: str = "no") -> Teacher:
    """The teacher of an artefact, on a device, its frozen weights in a precision ("no" is float32)."""
    loader = artifact.json("teacher.json")["loader"]
    return importlib.import_module(f"directcm.teachers.{loader}").load(artifact, device, precision)
