"""The exact teacher: a Gaussian mixture, or with points for components the exact score of a finite data set."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from directcm import config
from directcm.diffusion.processes import Process, expand
from directcm.diffusion.teachers import Conditioning, Teacher, pixel_diffusion
from directcm.diffusion.teachers.pixel_diffusion import classes_of, make_unet, new_teacher, no_class, read_images
from directcm.runtime import rng
from directcm.runtime.artifacts import Artifact, save_tensors

KIND = {
    "rank": 4,
    "title": "the exact score of the training images",
    "about": "the exact score of the training images",
    "loader": "mixture",
    "processes": ("vp", "karras"),
    "latent": False,
    "learns": False,
    "unet": "student",
}

COMPONENTS = "components.safetensors"


class Mixture(Teacher):
    """The closed-form ε̂ of x₀ ~ Σ_k π_k N(m_k, s_k² I) on any process (Karras et al. 2206.00364, Appendix B, for points).

    `means` (K, …), `scales` (K,) ≥ 0, where 0 makes a component a point, `weights` (K,) > 0, `labels` (K,) int64.
    Conditioning {"label": (B,)} restricts a row to the components of its label, −1 to none: that is ∅.
    In float64, so that the teacher itself has no error to speak of. `student`: the network that its students start from.
    """

    def __init__(
        self,
        process: Process,
        means: Tensor,
        scales: Tensor | float = 0.0,
        weights: Tensor | None = None,
        labels: Tensor | None = None,
        student: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.process, self.student = process, student
        count = len(means)
        self.shape = tuple(means.shape[1:])
        self.means = means.double().flatten(1)
        self.scales = torch.as_tensor(scales, dtype=torch.float64, device=means.device).expand(count)
        weights = torch.ones(count, device=means.device) if weights is None else weights
        if bool((self.scales < 0).any()) or bool((weights <= 0).any()) or len(weights) != count:
            raise ValueError("expected scales of 0 or more and a weight above 0 for every component")
        self.log_weights = (weights.double() / weights.double().sum()).log()
        self.labels = torch.zeros(count, dtype=torch.int64, device=means.device) if labels is None else labels

    @property
    def start(self) -> Teacher:
        if self.student is None:
            raise ValueError("an exact teacher has no network of its own; give it one for its students")
        return self.student

    def posterior(self, x: Tensor, t: Tensor, cond: Conditioning | None) -> tuple[Tensor, Tensor]:
        """(responsibilities (B, K), E[x₀ | x_t] (B, …)) at x (B, …) and times t (B,)."""
        flat = x.double().flatten(1)
        alpha, sigma = self.process.alpha(t)[:, None], self.process.sigma(t)[:, None]
        variance = alpha**2 * self.scales**2 + sigma**2
        # ‖x − α m‖² by its parts: (B, K) instead of (B, K, d).
        square = (flat**2).sum(1, keepdim=True) - 2 * alpha * flat @ self.means.T + alpha**2 * (self.means**2).sum(1)
        log = self.log_weights - 0.5 * square.clamp(min=0) / variance - 0.5 * flat.shape[1] * variance.log()
        label = None if cond is None else cond.tensors.get("label")
        if label is not None:
            other = (label[:, None] >= 0) & (self.labels[None] != label[:, None])
            log = log.masked_fill(other, -math.inf)
        share = log.softmax(1)
        # E[x₀ | x_t, k] = m_k + α s_k²/v_k (x − α m_k).
        gain = alpha * self.scales**2 / variance
        mean = (share * (1 - gain * alpha)) @ self.means + (share * gain).sum(1, keepdim=True) * flat
        return share, mean.reshape(x.shape)

    def noise(self, x: Tensor, t: Tensor, cond: Conditioning | None) -> Tensor:
        _, mean = self.posterior(x, t, cond)
        sigma = expand(self.process.sigma(t), mean)
        return (x.double() - expand(self.process.alpha(t), mean) * mean) / sigma

    def unconditional(self, cond: Conditioning | None) -> Conditioning | None:
        return no_class(cond)


def make(
    settings: config.Mixture, process: config.Process, data: Artifact, seed: int, scratch: Path, out: Path
) -> None:
    """Write the components, one per training image, and an untrained network for students to start from.

    `components.safetensors`: means (K, 3, H, W) in [−1, 1], scales (K,), labels (K,) int64.
    """
    means, labels = read_images(data)
    rng.seed_torch(seed, "unet_init")
    unet = make_unet(settings.student, means.shape[-1], len(classes_of(data)))
    with new_teacher("mixture", settings, process, unet, data, seed, out) as art:
        scales = torch.full((len(means),), settings.scale, dtype=torch.float64)
        save_tensors(art / COMPONENTS, {"means": means, "scales": scales, "labels": labels})
        art.counts["components"] = len(means)


def load(artifact: Artifact, device: torch.device | str = "cpu", precision: str = "no") -> Mixture:
    """The components of a teacher artefact, and the untrained network beside them."""
    student = pixel_diffusion.load(artifact, device, precision)
    found = {name: tensor.to(device) for name, tensor in artifact.tensors(COMPONENTS).items()}
    made = Mixture(student.process, **found, student=student)
    made.device = torch.device(device)
    return made


load_codec = pixel_diffusion.load_codec
