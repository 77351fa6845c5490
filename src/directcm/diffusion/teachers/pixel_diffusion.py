"""Diffusion on pixels, class-conditional or not: a UNet2DModel as a Teacher, on any process; the identity as its codec."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from directcm.config import PixelUnet, parse
from directcm.config import Process as ProcessSettings
from directcm.config.specs import TEACHERS
from directcm.diffusion import processes
from directcm.diffusion.processes import expand
from directcm.diffusion.teachers import Conditioning, UnetTeacher, dtype, frozen
from directcm.diffusion.teachers.codec import Codec, Draw, read_pixels
from directcm.errors import UserError
from directcm.runtime.artifacts import Artifact, Writer, new_artifact, write_json

NO_CLASS = -1


def make_unet(settings: PixelUnet, side: int, classes: int, dropout: float = 0.0) -> Any:
    """A UNet2DModel for RGB images of a side (pixels); its last class, beyond the `classes`, is none of them, and all that it has of 0."""
    from diffusers import UNet2DModel

    levels = range(len(settings.channels))
    attention = settings.attention if settings.attention is not None else levels[-1:]
    return UNet2DModel(
        sample_size=side,
        in_channels=3,
        out_channels=3,
        down_block_types=tuple("AttnDownBlock2D" if i in attention else "DownBlock2D" for i in levels),
        up_block_types=tuple("AttnUpBlock2D" if i in attention else "UpBlock2D" for i in reversed(levels)),
        block_out_channels=settings.channels,
        layers_per_block=settings.layers_per_block,
        attention_head_dim=settings.head_dim,
        norm_num_groups=8,
        dropout=dropout,
        num_class_embeds=classes + 1,
    )


class PixelDiffusion(UnetTeacher):
    """A network F under its process's preconditioning: ε̂ = a·x + b·F(c_in·x, c_noise, class).

    On Karras's process that is EDM's D = c_skip·x + c_out·F (Karras et al. 2206.00364, Table 1) with c_noise = 250·ln t, the
    rescaling of Song et al. (2303.01469): a UNet2DModel's sinusoids are made for times up to a thousand and would tell
    ¼·ln t, which runs from −1.6 to 1.1, by their few fastest alone. Conditioning: label (B,) int64, −1 is ∅.
    """

    @property
    def none(self) -> int:
        """The number by which the network knows ∅: it comes after the classes."""
        return self.network.config.num_class_embeds - 1

    def noise(self, x: Tensor, t: Tensor, cond: Conditioning | None) -> Tensor:
        return self.noise_told(x, t, cond, self.process.network_time(t))

    def noise_told(self, x: Tensor, t: Tensor, cond: Conditioning | None, told: Tensor) -> Tensor:
        label = torch.full((len(x),), NO_CLASS, device=x.device) if cond is None else cond.tensors["label"]
        out = self.network(
            (expand(self.process.input_scale(t), x) * x).to(self.network.dtype),
            told.to(torch.float32),
            class_labels=torch.where(label == NO_CLASS, self.none, label),
        ).sample.float()
        a, b = self.process.output_scales(t)
        return expand(a, x) * x + expand(b, x) * out

    def unconditional(self, cond: Conditioning | None) -> Conditioning | None:
        return no_class(cond)


def no_class(cond: Conditioning | None) -> Conditioning | None:
    """∅ for as many rows as `cond` has."""
    return None if cond is None else Conditioning({"label": torch.full_like(cond.tensors["label"], NO_CLASS)})


class Pixels(Codec):
    """The identity; a class is a label's place among the data's."""

    latent = False

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = {name: i for i, name in enumerate(classes)}

    def encode(self, images: Tensor, draw: Draw | None) -> Tensor:
        return images.float().cpu()

    def decode(self, latents: Tensor) -> Tensor:
        return latents.float().clamp(-1, 1).cpu()

    def condition(self, texts: Sequence[str], labels: Sequence[str]) -> Conditioning:
        """A UserError for a label that the teacher does not know. One that knows none is told ∅ of every row."""
        if not self.classes:
            return Conditioning({"label": torch.full((len(texts),), NO_CLASS)})
        for text, label in zip(texts, labels, strict=True):
            if label not in self.classes:
                raise UserError(
                    f"the image {text[:60]!r} has the label {label!r}, the teacher knows {', '.join(self.classes)}; it needs labelled images"
                )
        return Conditioning({"label": torch.tensor([self.classes[label] for label in labels], dtype=torch.int64)})


def classes_of(data: Artifact) -> list[str]:
    """The labels of a data set in order; a UserError where it has none."""
    found = data.json("data.json")["labels"]
    if not found:
        raise UserError(
            f"{data.folder}: its images have no labels, a teacher on pixels needs them; add a column label to metadata.csv, or use data.kind digits"
        )
    return list(found)


def read_images(data: Artifact, conditional: bool = True) -> tuple[Tensor, Tensor]:
    """(pixels (n, 3, H, W) in [−1, 1], classes (n,) int64) of the training images.

    A UserError where they have no labels; of a teacher that is not `conditional` they need none, and all are −1, which is ∅.
    """
    rows = [r for r in data.csv("images.csv") if r["split"] == "train"]
    pixels = read_pixels(data, rows)
    codec = Pixels(classes_of(data) if conditional else [])
    cond = codec.condition([r["text"] for r in rows], [r["label"] for r in rows])
    return pixels, cond.tensors["label"]


@contextmanager
def new_teacher(
    kind: str,
    settings: Any,
    process: ProcessSettings,
    network: Any,
    data: Artifact,
    seed: int,
    out: Path,
    conditional: bool = True,
) -> Iterator[Writer]:
    """A new artefact of a kind of teacher on pixels: its network, and the process and the classes in `teacher.json`."""
    schedule = process.model_dump(mode="json")
    about = {"kind": kind, **settings.model_dump(mode="json"), "process": schedule, "seed": seed}
    with new_artifact(out, "teacher", settings=about, inputs={"data": data}) as art:
        network.cpu().eval().save_pretrained(art / "unet", safe_serialization=True)
        classes = classes_of(data) if conditional else []
        write_json(art / "teacher.json", {"loader": TEACHERS[kind].loader, "process": schedule, "classes": classes})
        art.counts = {"unet_parameters": network.num_parameters()}
        yield art


def load(artifact: Artifact, device: torch.device | str = "cpu", precision: str = "no") -> PixelDiffusion:
    """The U-Net of a teacher artefact, frozen, in evaluation mode."""
    from diffusers import UNet2DModel

    return PixelDiffusion(*read(artifact, UNet2DModel, device, precision))


def read(artifact: Artifact, kind: Any, device: torch.device | str, precision: str) -> tuple[Any, processes.Process]:
    """The network of a teacher artefact, of one of diffusers' classes, frozen, in evaluation mode; and its process."""
    artifact.files("unet/")
    network = frozen(kind, artifact.folder, device, dtype(precision, device), subfolder="unet")
    about = artifact.json("teacher.json")
    process = parse(ProcessSettings, about["process"], str(artifact.folder / "teacher.json"))
    return network, processes.make(process)


def load_codec(artifact: Artifact, device: torch.device | str = "cpu", precision: str = "no") -> Pixels:
    """The identity, with the classes of a teacher artefact."""
    return Pixels(artifact.json("teacher.json")["classes"])
