"""Teachers: diffusion models that predict x̂₀ and ε̂ at any time, on any process.

A teacher's artefact holds `teacher.json`, whose "loader" names the module here that reads it back. A way to get a teacher (train it,
pin it) is a module here too, named after its `kind` in the configuration. It says what it is in plain values, KIND = {…}
(`specs.TeacherKind`), and has `make(settings, process, data, seed, scratch, out)`. Its block is a class in the configuration, or is
made of SETTINGS = {"NAME": (default, "what it is")} and RANGES = "0 <= NAME" here.
"""

from __future__ import annotations

import copy
import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from directcm.diffusion.processes import Process, expand
from directcm.errors import UserError
from directcm.runtime import compiled

if TYPE_CHECKING:
    from directcm.diffusion.teachers.codec import Codec
    from directcm.runtime.artifacts import Artifact

DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def dtype(precision: str, device: torch.device | str) -> torch.dtype:
    """The dtype of frozen weights; a UserError for fp16 without a GPU."""
    if precision == "fp16" and torch.device(device).type == "cpu":
        raise UserError("precision fp16 needs a GPU, and there is none here; use no or bf16")
    return DTYPES[precision]


@dataclass(frozen=True)
class Conditioning:
    """What a batch is conditioned on: named tensors (B, …), one row per sample."""

    tensors: dict[str, Tensor]

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

    @property
    def start(self) -> Teacher:
        """The teacher whose network a student copies: this one, or another where this one has no network."""
        return self

    def twin(self, network: Any = None) -> Teacher:
        """The same teacher on another network (None: on a copy of this one's)."""
        twin = copy.copy(self)
        twin.network = copy.deepcopy(self.network) if network is None else network
        twin.rows_evaluated = 0
        return twin

    def rows_per_prediction(self, w: float) -> int:
        """Rows through the network for one row's prediction: 1 at w = 1 and w = 0, else 2."""
        return 1 if w in (0.0, 1.0) else 2

    def noise_told(self, x: Tensor, t: Tensor, cond: Conditioning | None, told: Tensor) -> Tensor:
        """`noise` of a network that is told `told` (B,) in place of its time input at t; without a network, `noise`."""
        return self.noise(x, t, cond)

    def predict(
        self, x: Tensor, t: Tensor, cond: Conditioning | None, guidance: float = 1.0, told: Tensor | None = None
    ) -> Prediction:
        """x̂₀ and ε̂ at x (B, …), times t (B,), guidance w: ε̂ = ε_∅ + w(ε_c − ε_∅) (Imagen form) in one batched forward.

        w = 1 skips the unconditional half, w = 0 the conditional one. `told`: see `noise_told`.
        """

        def noise(x: Tensor, t: Tensor, cond: Conditioning | None) -> Tensor:
            if told is None:
                return self.noise(x, t, cond).float()
            return self.noise_told(x, t, cond, told.repeat(len(x) // len(told))).float()

        self.rows_evaluated += len(x) * self.rows_per_prediction(guidance)
        if guidance == 1.0:
            eps = noise(x, t, cond)
        elif guidance == 0.0:
            eps = noise(x, t, self.unconditional(cond))
        else:
            none = self.unconditional(cond)
            both = None
            if cond is not None and none is not None:
                both = Conditioning({k: torch.cat([none.tensors[k], cond.tensors[k]]) for k in cond.tensors})
            without, with_ = noise(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
            eps = without + guidance * (with_ - without)
        return Prediction(self.process.clean(x, eps, t), eps)


class UnetTeacher(Teacher):
    """A teacher on one of diffusers' U-Nets, which says the shape of a sample."""

    def __init__(self, unet: Any, process: Process) -> None:
        super().__init__()
        self.network, self.process = unet, process
        self.device = next(unet.parameters()).device
        side = unet.config.sample_size
        self.shape = (unet.config.in_channels, side, side)


def frozen(kind: Any, folder: Path, device: torch.device | str, dtype: torch.dtype, **where: Any) -> Any:
    """A network of one of diffusers' classes from safetensors files in a folder, in evaluation mode, without gradients."""
    network = kind.from_pretrained(folder, torch_dtype=dtype, use_safetensors=True, local_files_only=True, **where)
    return network.requires_grad_(False).eval().to(device)


class Gaussian(Teacher):
    """The exact teacher of x₀ ~ N(mean, scale²·I), whose ODE has a closed-form flow map.

    x_t ~ N(α m, α²s² + σ²), so ε̂ = σ (x − α m)/(α²s² + σ²); the flow keeps (x − α m)/√(α²s² + σ²) constant.
    """

    def __init__(self, process: Process, mean: Tensor, scale: float) -> None:
        super().__init__()
        self.process, self.mean, self.scale = process, mean, scale
        self.shape = tuple(mean.shape)

    def _marginal(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variance and σ of x_t, for the rows of x."""
        alpha, sigma = expand(self.process.alpha(t), x), expand(self.process.sigma(t), x)
        return alpha * self.mean, alpha**2 * self.scale**2 + sigma**2, sigma

    def noise(self, x: Tensor, t: Tensor, cond: Conditioning | None) -> Tensor:
        mean, variance, sigma = self._marginal(t, x)
        return sigma * (x - mean) / variance

    def unconditional(self, cond: Conditioning | None) -> Conditioning | None:
        return cond

    def flow(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The exact solution at times s (B,) of the ODE through x (B, …) at times t (B,)."""
        (before, variance, _), (after, variance_s, _) = self._marginal(t, x), self._marginal(s, x)
        return after + (x - before) * variance_s.sqrt() / variance.sqrt()


def loader(artifact: Artifact) -> str:
    """The module, without the package's name, that reads a teacher artefact: what is made with it depends on its code."""
    return f"diffusion.teachers.{artifact.json('teacher.json')['loader']}"


def load(artifact: Artifact, device: torch.device | str = "cpu", precision: str = "no") -> Teacher:
    """The teacher of an artefact, on a device, its frozen weights in a precision ("no" is float32)."""
    teacher: Teacher = importlib.import_module(f"directcm.{loader(artifact)}").load(artifact, device, precision)
    compiled.blocks(teacher.network)
    return teacher


def load_codec(artifact: Artifact, device: torch.device | str = "cpu", precision: str = "no") -> Codec:
    """What a teacher's images, captions and labels pass through; its parts are read when they are needed."""
    return importlib.import_module(f"directcm.{loader(artifact)}").load_codec(artifact, device, precision)
