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
from directcm.distill.targets import Starts, solve_starts
from directcm.errors import UserError
from directcm.runtime import rng
from directcm.runtime.artifacts import Artifact


class ErrorStarts(Starts):
    """Start point j = point·times + time; all times of a point have the same image and noise."""

    def __init__(self, latents: Latents, process: Process, intervals: int, times: int, points: int, seed: int) -> None:
        super().__init__(latents, process, intervals, seed)
        if intervals % times:
            raise UserError(f"errors.times = {times} does not divide N = {intervals}")
        self.times = times
        held = latents.held_out
        order = rng.permutation(seed, "error_image", len(held))
        self.images = [held[order[p % len(held)]] for p in range(points)]

    def grid_index(self, index: Sequence[int]) -> Tensor:
        return torch.tensor([j % self.times * (self.intervals // self.times) for j in index])

    def pairs(self, index: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        points = [j // self.times for j in index]
        ids = torch.tensor([self.images[p] for p in points])
        x0 = self.latents.latents(ids)
        return ids, x0, rng.normal(self.seed, "error_noise", points, x0.shape[1:])


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
    key = settings.model_dump(include={"times", "points"}) | {"seed": seed, "precision": precision}
    inputs = {"teacher": teacher, "latents": latents}
    total = settings.times * settings.points
    solve_starts("endpoints", starts, settings, shard, total, ode, model, batch_size, key, inputs, scratch, out)
