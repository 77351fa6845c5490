"""A second pixel teacher: diffusers' DiTTransformer2DModel (Peebles and Xie 2212.09748) under EDM's preconditioning, trained as `edm` is.

Two things that diffusers' class leaves to its user. Its own dropout of labels, drawn from torch's global generator whenever the network is
in training mode, is switched off: which labels are dropped is the training's to say, and students learn with the label they are given.
And it starts as any linear layers do: here as in the paper, with gates, shifts, scales and the last layer at zero, so that every block
begins as the identity.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from directcm.config import Dit, PixelDit, Process
from directcm.diffusion.processes import Process as NoiseProcess
from directcm.diffusion.teachers import edm, pixel_diffusion
from directcm.diffusion.teachers.pixel_diffusion import PixelDiffusion
from directcm.runtime.artifacts import Artifact

KIND = {
    "rank": 5,
    "title": "small DiT on pixels trained here",
    "about": "a transformer on pixels, trained here",
    "loader": "dit",
    "processes": ("karras",),
    "latent": False,
    "learns": True,
    "network": "DiTTransformer2DModel",
}
# Standard deviation of the embeddings' weights (the paper's release).
EMBEDDING = 0.02


def make_dit(settings: PixelDit, side: int, classes: int, dropout: float = 0.0) -> Any:
    """A DiTTransformer2DModel for RGB images of a side (pixels); its table of classes has one more, which is none of them."""
    from diffusers import DiTTransformer2DModel

    network = DiTTransformer2DModel(
        sample_size=side,
        patch_size=settings.patch,
        in_channels=3,
        num_attention_heads=settings.heads,
        attention_head_dim=settings.width // settings.heads,
        num_layers=settings.layers,
        dropout=dropout,
        num_embeds_ada_norm=classes,
    )
    start(network)
    return network


def start(network: Any) -> None:
    """The paper's initial weights: Xavier's uniform for linear layers and patches, biases 0; adaLN-Zero and the last layer all 0."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
                torch.nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))
                if module.bias is not None:
                    module.bias.zero_()
        for block in network.transformer_blocks:
            embedding = block.norm1.emb
            for weight in (
                embedding.timestep_embedder.linear_1.weight,
                embedding.timestep_embedder.linear_2.weight,
                embedding.class_embedder.embedding_table.weight,
            ):
                weight.normal_(std=EMBEDDING)
        for layer in (
            *(block.norm1.linear for block in network.transformer_blocks),
            network.proj_out_1,
            network.proj_out_2,
        ):
            layer.weight.zero_()
            layer.bias.zero_()


class DitDiffusion(PixelDiffusion):
    """The same contract on a DiT, which is told 250·ln t too: its sinusoids are made for times up to a thousand, and take fractions."""

    def __init__(self, network: Any, process: NoiseProcess) -> None:
        super().__init__(network, process)
        _keep_labels(network)

    def twin(self, network: Any = None) -> DitDiffusion:
        """The same teacher on another network, whose own dropout of labels is off as well."""
        made = super().twin(network)
        assert isinstance(made, DitDiffusion)
        _keep_labels(made.network)
        return made

    @property
    def none(self) -> int:
        # The table has one row more than there are classes.
        return self.network.config.num_embeds_ada_norm


def _keep_labels(network: Any) -> None:
    for block in network.transformer_blocks:
        block.norm1.emb.class_embedder.dropout_prob = 0.0


def make(settings: Dit, process: Process, data: Artifact, seed: int, scratch: Path, out: Path) -> None:
    """Train the transformer, and save the exponential moving average of its weights."""

    def network(side: int, classes: int) -> Any:
        return make_dit(settings.transformer, side, classes, settings.dropout)

    edm.train("dit", settings, process, data, seed, scratch, out, network, DitDiffusion)


def load(artifact: Artifact, device: torch.device | str = "cpu", precision: str = "no") -> DitDiffusion:
    """The transformer of a teacher artefact, frozen, in evaluation mode."""
    from diffusers import DiTTransformer2DModel

    return DitDiffusion(*pixel_diffusion.read(artifact, DiTTransformer2DModel, device, precision))


load_codec = pixel_diffusion.load_codec
