"""The verb `endpoints`: the ODE's endpoints for the errors by start time (`error_by_time`).

The start points are held-out images with keyed noise at evenly spaced times. They are the same for every solver and N, so that a
student can be compared with its own ODE and with a refined solution.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from directcm.config import Errors, Ode
from directcm.diffusion.processes import Process
from directcm.diffusion.teachers import load
from directcm.distill.encode import Latents
from directcm.distill.targets import solve_starts
from directcm.errors import UserError
from directcm.runtime import rng
from directcm.runtime.artifacts import Artifact


class ErrorStarts:
    """Start point j = point·times + time; all times of a point have the same image and noise."""

    def __init__(self, latents: Latents, process: Process, intervals: int, times: int, points: int, seed: int) -> None:
        if intervals % times:
            raise UserError(f"errors.times = {times} does not divide N = {intervals}")
        self.latents, self.process, self.seed, self.times = latents, process, seed, times
        self.grid = process.grid(intervals)
        self.stride = intervals // times
        held = latents.held_out
        order = rng.permutation(seed, "error_image", len(held))
        self.images = [held[order[p % len(held)]] for p in range(points)]

    def grid_index(self, index: Sequence[int]) -> Tensor:
        """Indices into the grid (B,): time 0 is pure noise."""
        return torch.tensor([j % self.times * self.stride for j in index])

    def __call__(self, index: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """(image ids (B,), grid indices (B,), x = α x₀ + σ ε (B, c, h, w))."""
        points = [j // self.times for j in index]
        ids, k = torch.tensor([self.images[p] for p in points]), self.grid_index(index)
        x0 = self.latents.latents(ids)
        eps = rng.normal(self.seed, "error_noise", points, x0.shape[1:])
        return ids, k, self.process.diffuse(x0, eps, self.grid[k])


def make(
    settings: Errors,
    ode: Ode,
    shard: int,
    batch_size: int,
    teacher: Artifact,
    latents: Artifact,
    seed: int,
    device: str,
    precision: str,
    scratch: Path,
    out: Path,
) -> None:
    """Solve one shard's endpoints: start points shard·size … of times × points in all."""
    model = load(teacher, device, precision)
    starts = ErrorStarts(Latents(latents), model.process, ode.N, settings.times, settings.points, seed)
    solve_starts(
        "endpoints",
        starts,
        settings,
        shard,
        settings.times * settings.points,
        ode,
        model,
        batch_size,
        {"times": settings.times, "points": settings.points, "seed": seed, "precision": precision},
        {"teacher": teacher, "latents": latents},
        scratch,
        out,
    )
