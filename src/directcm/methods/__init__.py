"""Methods: one file per algorithm, each with `TARGETS` (does it need solved endpoints?) and `loss(batch, …)`.

A method returns per-sample losses (B,). Everything random has been drawn before it is called.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from torch import Tensor

from directcm.solvers import Solver
from directcm.teachers import Conditioning, Teacher

Distance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Batch:
    """Start points: x at time t (B, …), the next grid time, the conditioning, and the ODE's endpoint where it is needed."""

    x: Tensor
    t: Tensor
    t_next: Tensor
    cond: Conditioning | None
    endpoint: Tensor | None


@dataclass(frozen=True)
class Setting:
    """What stays the same over a training: the frozen teacher (where the method needs it), its solver and guidance."""

    teacher: Teacher | None
    solver: Solver
    w: float
    distance: Distance


def load(name: str) -> ModuleType:
    """The module of a method."""
    return importlib.import_module(f"directcm.methods.{name}")


def mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference over everything but the first dimension, (B,)."""
    return ((a - b) ** 2).flatten(1).mean(1)


def pseudo_huber(c: float) -> Distance:
    """mean(√(δ² + c²) − c) over everything but the first dimension (Charbonnier et al. 1997; METHODS.md)."""
    return lambda a, b: (((a - b) ** 2 + c**2).sqrt() - c).flatten(1).mean(1)
