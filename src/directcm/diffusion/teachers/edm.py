"""The pixel teacher: an EDM (Karras et al. 2206.00364), class-conditional or not, by default of less than a million parameters, trained here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from directcm.config import Edm, EdmTraining, Process
from directcm.diffusion import processes
from directcm.diffusion.processes import VarianceExploding
from directcm.diffusion.teachers import Conditioning
from directcm.diffusion.teachers.pixel_diffusion import (
    NO_CLASS,
    PixelDiffusion,
    classes_of,
    make_unet,
    new_teacher,
    read_images,
)
from directcm.errors import UserError
from directcm.runtime import rng
from directcm.runtime.artifacts import Artifact, write_csv
from directcm.runtime.loop import CURVE, SCHEDULES, Job, fit, make_accelerator, put
from directcm.runtime.sources import digest

KIND = {
    "rank": 3,
    "title": "small EDM on pixels trained here",
    "about": "on pixels, trained here",
    "loader": "pixel_diffusion",
    "processes": ("karras",),
    "latent": False,
    "learns": True,
    "unet": "unet",
}


def weighted_loss(teacher: PixelDiffusion, x0: Tensor, eps: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
    """λ(t)·‖D(x₀ + t ε, t, c) − x₀‖² per component, (B,) (Karras et al., Equation 8 and Table 1)."""
    process = teacher.process
    assert isinstance(process, VarianceExploding)
    x = process.diffuse(x0, eps, t)
    denoised = process.clean(x, teacher.noise(x, t, cond), t)
    return process.loss_weight(t).float() * ((denoised - x0) ** 2).mean(dim=(1, 2, 3))


def make(settings: Edm, process: Process, data: Artifact, seed: int, scratch: Path, out: Path) -> None:
    """Train the U-Net, and save the exponential moving average of its weights."""

    def network(side: int, classes: int) -> Any:
        return make_unet(settings.unet, side, classes, settings.dropout)

    train("edm", settings, process, data, seed, scratch, out, network, PixelDiffusion)


def train(
    kind: str,
    settings: EdmTraining,
    process: Process,
    data: Artifact,
    seed: int,
    scratch: Path,
    out: Path,
    make_network: Callable[[int, int], Any],
    make_teacher: Callable[[Any, VarianceExploding], PixelDiffusion],
) -> None:
    """Train a network on pixels, made for a side (pixels) and a number of classes, and save the average of its weights.

    ln t is normal(p_mean, p_std), beyond the ends of the process's grid too (Karras et al., Table 1); a share of the labels
    becomes ∅. σ_data is the process's, as configured; the artefact's counts have the images' measured one.
    """
    schedule = processes.make(process)
    if not isinstance(schedule, VarianceExploding):
        raise UserError(f"teacher: {kind} needs process.kind karras, this one is {process.kind}")
    pixels, label = read_images(data, settings.conditional)
    rng.seed_torch(seed, "unet_init")
    network = make_network(pixels.shape[-1], len(classes_of(data)) if settings.conditional else 0)
    accelerator = make_accelerator()
    network.to(accelerator.device)
    teacher = make_teacher(network, schedule)

    def loss(step: int, positions: np.ndarray) -> Tensor:
        device = accelerator.device
        if settings.dropout:
            rng.seed_torch(seed, "teacher_dropout", int(positions[0]))
        pick = torch.from_numpy(rng.stream(seed, "teacher_batch", int(positions[0]), len(positions), len(pixels)))
        eps = rng.normal(seed, "teacher_noise", positions.tolist(), teacher.shape)
        mine = positions - step * settings.batch_size
        draws = rng.generator(seed, "teacher_draws", step)
        normal, uniform = draws.standard_normal(settings.batch_size)[mine], draws.random(settings.batch_size)[mine]
        t = torch.from_numpy(np.exp(settings.p_mean + settings.p_std * normal))
        dropped = torch.from_numpy(uniform < settings.label_dropout)
        cond = Conditioning({"label": torch.where(dropped, NO_CLASS, label[pick])})
        return weighted_loss(teacher, pixels[pick].to(device), eps.to(device), t.to(device), cond.to(device))

    fitted = fit(
        Job(
            "teacher: unet",
            {"unet": network},
            loss,
            settings.steps,
            settings.batch_size,
            SCHEDULES[settings.schedule](settings.lr, settings.steps, settings.warm_up),
            grad_clip=1.0,
            ema=settings.ema,
            scratch=scratch / "unet",
            key={
                "code": digest(f"diffusion.teachers.{kind}"),
                "settings": settings.model_dump(mode="json"),
                "process": process.model_dump(mode="json"),
                "seed": seed,
                "data": data.fingerprint,
            },
        ),
        accelerator,
    )
    put({"unet": network}, fitted.ema)
    if settings.dropout:
        # Students start from what is saved. Their dropout is the method's choice, not the teacher's (Song et al. have none).
        network.register_to_config(dropout=0.0)
    with new_teacher(kind, settings, process, network, data, seed, out, settings.conditional) as art:
        write_csv(art / "curve.csv", fitted.curve, CURVE)
        art.counts["sigma_data_measured"] = round(float(pixels.double().std()), 6)
