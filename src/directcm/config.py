"""The configuration: pydantic models, the one source of validation, schema and documentation.

`config.yaml` is the embedded default, a preset in `workflow/presets/` an overlay on it. Settings that belong
to one kind of data set or teacher stand under that kind's own name, so that an overlay replaces a `kind` in
one line and leaves nothing invalid behind.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from directcm.errors import UserError
from directcm.registry import methods
from directcm.specs import DISTANCES, EXTRACTORS, METHODS, METRICS, SOLVERS, TEACHERS

_EXPONENT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][+-]?[0-9]{1,3}")


def _numbers(value: Any) -> Any:
    """1e2 and 1e-3, which YAML 1.1 takes for text where they have no point, as the numbers they are; whole ones stay whole."""
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        exact = Decimal(value)
        return int(exact) if exact == exact.to_integral_value() and abs(exact) < 10**18 else float(value)
    if isinstance(value, list | tuple):
        return [_numbers(one) for one in value]
    if isinstance(value, dict):
        return {key: _numbers(one) for key, one in value.items()}
    return value


# Strict: a whole number is not text, and not a number with a point.
Positive = Annotated[int, Field(ge=1, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
# An unquoted `no` is false to PyYAML and text to others; `dvc exp run --set-param` takes the quotes away.
Precision = Annotated[Literal["no", "fp16", "bf16"], BeforeValidator(lambda value: "no" if value is False else value)]
Solver = Literal["ddim", "euler", "heun", "edm_heun"]
if TYPE_CHECKING:
    Method = str
else:
    Method = Literal[tuple(METHODS)]
Loss = Literal["mse", "pseudo_huber", "l1", "lpips"]
ADAPTER = r"^(full|lora[1-9][0-9]*)$"
Adapter = Annotated[str, Field(pattern=ADAPTER)]


def embedded_images(kind: str, resolution: int) -> tuple[int, int]:
    """(images, groups that a split keeps together) of an embedded data set; groups are single images where there are none."""
    if kind == "digits":
        return 1797, 1797
    # As datasets/photos.py cuts them: two photographs of 427×640 pixels in tiles of twice the resolution, 5×5 crops a tile.
    tiles = 2 * (427 // (2 * resolution)) * (640 // (2 * resolution))
    return 25 * tiles, tiles


class Block(BaseModel):
    """A block of settings: unknown keys are errors, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    @model_validator(mode="before")
    @classmethod
    def _as_yaml_means(cls, data: Any) -> Any:
        """No booleans in the place of numbers, and numbers with an exponent as numbers."""
        if isinstance(data, dict):
            texts = {key for key, info in cls.model_fields.items() if info.annotation in (str, str | None)}
            # Blocks within do their own.
            data = {
                key: value if key in texts or (isinstance(value, dict) and key != "methods") else _numbers(value)
                for key, value in data.items()
            }
            for key, value in data.items():
                info = cls.model_fields.get(key)
                inside = value if isinstance(value, list | tuple) else [value]
                if value is False and info is not None and "no" in get_args(info.annotation):
                    continue
                if info is not None and info.annotation is not bool and any(isinstance(v, bool) for v in inside):
                    value = next(v for v in inside if isinstance(v, bool))
                    raise ValueError(
                        f'{key} is {str(value).lower()}, expected a number or text (text in quotes: "no" and "on" are truth values to YAML)'
                    )
        return data


class Data(Block):
    """Images and captions."""

    kind: Literal["digits", "photos", "folder", "archive"] = Field(
        "digits",
        description="digits: scikit-learn's 1,797 handwritten digits; photos: crops of its two photographs; "
        "folder: images with a metadata.csv (file_name,text, and label, the class, which teachers on pixels need); "
        "archive: the same in a tar (also .gz, .bz2, .xz) or zip",
    )
    path: str | None = Field(
        None,
        description="folder: the folder with metadata.csv; archive: the archive, placed by hand or where the download is kept, "
        "downloads/ and a name of its own where it is null",
    )
    # Left out of what is written where they are null: data that were made before these keys existed are not made anew.
    url: str | None = Field(
        None,
        pattern=r"^(https?://|file:///)[!-~]+$",
        exclude_if=lambda value: value is None,
        description="archive only: where it is fetched from, http, https or file; null where it is placed by hand",
    )
    sha256: str | None = Field(
        None,
        pattern=r"^[0-9a-fA-F]{64}$",
        exclude_if=lambda value: value is None,
        description="archive only: SHA-256 of the archive, 64 hex digits, as sha256sum prints it",
    )
    layout: Literal["folder", "cifar10"] = Field(
        "folder",
        exclude_if=lambda value: value == "folder",
        description="archive only: what it holds: folder, as data.kind folder has it, or cifar10, CIFAR-10's binary version, "
        "whose test batch is what is held out",
    )
    resolution: Positive = Field(
        16,
        description="side of the square RGB images, pixels; a folder's or an archive's are resized to it after a centre crop",
    )
    held_out: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="share of the images kept from all training, for checks"
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        # Both raise ValueError themselves where host or port cannot be read.
        parts = urlsplit(value)
        if (parts.hostname is None or parts.port == 0) and parts.scheme != "file":
            raise ValueError("has no host, or no port there")
        if "@" in parts.netloc:
            raise ValueError("holds a user's name; settings are printed in the report, so fetch the archive by hand")
        return value

    @field_validator("sha256")
    @classmethod
    def _lower(cls, value: str | None) -> str | None:
        return value and value.lower()

    @model_validator(mode="after")
    def _check(self) -> Data:
        if self.kind == "folder" and not self.path:
            raise ValueError("path is missing: data.kind folder needs the folder that holds metadata.csv")
        if self.kind == "archive" and not (self.url or self.path):
            raise ValueError("url and path are missing: data.kind archive needs one, to fetch it from or to find it at")
        if self.kind == "archive" and not self.sha256:
            raise ValueError("sha256 is missing: data.kind archive needs that of the archive, as sha256sum prints it")
        if self.kind == "archive" and self.layout == "cifar10" and self.resolution > 32:
            raise ValueError(f"resolution is {self.resolution}, but data.layout cifar10 has images of 32 pixels")
        if self.resolution % 8:
            raise ValueError(f"resolution is {self.resolution}, expected a multiple of 8")
        return self

    @property
    def embedded(self) -> bool:
        """Whether the images come with scikit-learn: their number is known beforehand, and they have labels."""
        return self.kind in ("digits", "photos")


class Karras(Block):
    """The process of Karras et al.: data plus noise whose standard deviation is the time."""

    sigma_min: Rate = Field(0.002, description="time of the ODE's end")
    sigma_max: Rate = Field(80.0, description="time of pure noise")
    rho: Rate = Field(7.0, description="bends the grid towards small times; 1 is even spacing")
    sigma_data: Rate = Field(
        0.5, description="standard deviation of the data, pixels in [-1, 1]; used as it stands here"
    )

    @model_validator(mode="after")
    def _check(self) -> Karras:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min = {self.sigma_min} is not below sigma_max = {self.sigma_max}")
        return self


class Process(Block):
    """The noise process of the teacher."""

    kind: Literal["vp", "karras"] = Field(
        "vp", description="vp: the discrete DDPM process of Stable Diffusion; karras: variance-exploding, as EDM's"
    )
    timesteps: Positive = Field(1000, description="vp: number of training time steps of the teacher")
    time_input: Literal["zero_based", "one_based"] = Field(
        "zero_based",
        description="vp: what the U-Net is told at time s: s-1 (as diffusers trains it) or s (as the paper's release feeds it)",
    )
    karras: Karras = Karras()

    @model_serializer(mode="wrap")
    def _own(self, everything: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Of both kinds' keys those of this one: what is made under one kind does not depend on the other's."""
        other = ("timesteps", "time_input") if self.kind == "karras" else ("karras",)
        return {key: value for key, value in everything(self).items() if key not in other}

    def divides(self, intervals: int) -> bool:
        """Whether there is a grid of so many intervals: of the discrete process's steps it takes every so-manieth."""
        return self.kind != "vp" or self.timesteps % intervals == 0


def multiples_of_16(channels: tuple[int, ...]) -> tuple[int, ...]:
    """Channels that the group norms of the small networks can divide; ValueError otherwise."""
    if any(c % 16 for c in channels):
        raise ValueError(f"channels are {list(channels)}, expected multiples of 16")
    return channels


class MicroVae(Block):
    """The small VAE: each resolution after the first halves the side; 4 latent channels."""

    channels: tuple[Positive, ...] = Field(
        (32, 64), min_length=2, description="channels at full resolution, half of it, …, multiples of 16"
    )
    steps: Positive = Field(280, description="optimiser steps")
    batch_size: Positive = Field(64, description="images a step")
    lr: Rate = Field(3e-3, description="peak learning rate, cosine decay")
    kl_weight: NonNegative = Field(1e-5, description="weight of the KL term against the MSE")

    @property
    def factor(self) -> int:
        """Pixels per latent along a side."""
        return 2 ** (len(self.channels) - 1)

    @field_validator("channels")
    @classmethod
    def _check(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return multiples_of_16(value)


class MicroText(Block):
    """The two small CLIP text encoders (SDXL has two) and their tokenizer."""

    width: Positive = Field(32, description="hidden size of the first; the second has twice as much")
    layers: Positive = Field(2, description="transformer layers of each")
    heads: Positive = Field(2, description="attention heads of each")
    vocabulary: Annotated[int, Field(ge=600)] = Field(
        1024, description="largest size of the byte-level BPE vocabulary; 514 are bytes and marks"
    )
    length: Annotated[int, Field(ge=4)] = Field(16, description="tokens a caption is padded or cut to")

    @model_validator(mode="after")
    def _check(self) -> MicroText:
        if self.width % self.heads:
            raise ValueError(f"width = {self.width} is not a multiple of heads = {self.heads}")
        return self


class MicroUnet(Block):
    """The small SDXL U-Net."""

    channels: tuple[Positive, ...] = Field(
        (32, 64), min_length=1, description="channels per resolution, multiples of 16"
    )
    layers_per_block: Positive = Field(1, description="residual blocks per resolution")
    head_dim: Positive = Field(16, description="size of an attention head")
    steps: Positive = Field(1050, description="optimiser steps of U-Net and text encoders together")
    batch_size: Positive = Field(64, description="latents a step")
    lr: Rate = Field(3e-3, description="peak learning rate, linear warm-up, cosine decay")
    snr_gamma: Rate | None = Field(
        5.0, description="γ of the min-SNR weighting of the ε loss (2303.09556); null: every time counts alike"
    )
    caption_dropout: Fraction = Field(
        0.25,
        description="share of captions replaced by the unconditional embedding, whose error guidance multiplies by w - 1",
    )
    ema: Fraction = Field(0.995, description="decay of the weight average that is saved")

    @field_validator("channels")
    @classmethod
    def _check(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return multiples_of_16(value)


class MicroSdxl(Block):
    """A small StableDiffusionXLPipeline, trained here."""

    vae: MicroVae = MicroVae()
    text: MicroText = MicroText()
    unet: MicroUnet = MicroUnet()


class Diffusers(Block):
    """Any SDXL-type pipeline, by local path or by hub id and revision (read from the local hub cache)."""

    path: str | None = Field(None, description="folder of a saved StableDiffusionXLPipeline; wins over id")
    id: str | None = Field(None, description="hub repository")
    revision: str | None = Field(None, pattern=r"^[0-9a-f]{40}$", description="full commit hash of the repository")
    variant: str | None = Field(None, description="weight files' variant, e.g. fp16")
    vae_path: str | None = Field(None, description="folder of a VAE that replaces the pipeline's; wins over vae_id")
    vae_id: str | None = Field(None, description="hub repository of a VAE that replaces the pipeline's")
    vae_revision: str | None = Field(
        None, pattern=r"^[0-9a-f]{40}$", description="full commit hash of the VAE's repository"
    )
    # Left out of what is written where it is null: teachers that were pinned before it existed stay.
    vae_variant: str | None = Field(
        None, exclude_if=lambda value: value is None, description="weight files' variant of that VAE, e.g. fp16"
    )


class PixelUnet(Block):
    """A small UNet2DModel on pixels, told the class of what it denoises."""

    channels: tuple[Positive, ...] = Field(
        (16, 32, 64), min_length=1, description="channels per resolution, multiples of 16"
    )
    layers_per_block: Positive = Field(1, description="residual blocks per resolution")
    head_dim: Positive = Field(16, description="size of an attention head")
    # Left out of what is written where it is null, as other keys below where they are as they stand here: what was made
    # before they existed stays.
    attention: tuple[Count, ...] | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="resolutions with attention, 0 is the full one; null: the lowest alone",
    )

    @field_validator("channels")
    @classmethod
    def _check(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return multiples_of_16(value)

    @model_validator(mode="after")
    def _check_attention(self) -> PixelUnet:
        if max(self.attention or (0,)) >= len(self.channels):
            raise ValueError(
                f"attention names resolution {max(self.attention or (0,))}, channels has those from 0 to {len(self.channels) - 1}"
            )
        return self


class Edm(Block):
    """A class-conditional EDM on pixels, trained here."""

    unet: PixelUnet = PixelUnet()
    steps: Positive = Field(1100, description="optimiser steps")
    batch_size: Positive = Field(128, description="images a step")
    lr: Rate = Field(2e-3, description="peak learning rate, after a linear warm-up")
    warm_up: Count = Field(50, exclude_if=lambda value: value == 50, description="optimiser steps of the warm-up")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="what the learning rate does from there on")
    p_mean: float = Field(-1.2, allow_inf_nan=False, description="mean of ln(sigma) in training")
    p_std: Rate = Field(1.2, description="standard deviation of ln(sigma) in training")
    label_dropout: Fraction = Field(0.1, description="share of labels replaced by the class of guidance's no class")
    dropout: Fraction = Field(
        0.0,
        exclude_if=lambda value: value == 0,
        description="dropout of the U-Net's features while it is trained; students of it have none",
    )
    ema: Fraction = Field(0.995, description="decay of the weight average that is saved")


class Mixture(Block):
    """The exact teacher: every training image is the middle of a Gaussian, and nothing is learnt."""

    scale: NonNegative = Field(0.0, description="standard deviation of each Gaussian, pixels in [-1, 1]; 0: the images")
    student: PixelUnet = PixelUnet()


class Teacher(Block):
    """The diffusion model that is distilled."""

    kind: Literal["micro_sdxl", "diffusers", "edm", "mixture"] = Field(
        "micro_sdxl",
        description="micro_sdxl: trained here; diffusers: an existing SDXL-type pipeline; edm: on pixels, trained here; "
        "mixture: the exact score of the training images",
    )
    micro_sdxl: MicroSdxl = MicroSdxl()
    diffusers: Diffusers = Diffusers()
    # Left out of what is written where they are as they stand here, so that what was made before they existed stays.
    edm: Edm = Field(default=Edm(), exclude_if=lambda value: value == Edm())
    mixture: Mixture = Field(default=Mixture(), exclude_if=lambda value: value == Mixture())

    @model_validator(mode="after")
    def _check(self) -> Teacher:
        d = self.diffusers
        if self.kind == "diffusers" and not d.path and not (d.id and d.revision):
            raise ValueError("diffusers needs a path, or an id with its revision (a full commit hash)")
        if d.vae_id and not d.vae_revision:
            raise ValueError("diffusers.vae_revision is missing: a hub id is used at a pinned commit only")
        return self

    @property
    def pixel_unet(self) -> PixelUnet:
        """The network on pixels that students are: the teacher's own, or the one given to a teacher that has none."""
        return self.edm.unet if self.kind == "edm" else self.mixture.student


class Encode(Block):
    """Latents and prompt embeddings."""

    batch_size: Positive = Field(128, description="images a forward")
    posterior: Literal["sample", "mode"] = Field(
        "sample", description="draw from the VAE's posterior (as SDXL is trained) or take its mode"
    )


class Ode(Block):
    """How the teacher's probability-flow ODE is solved unless a line of `students` says otherwise."""

    solver: Solver = Field("ddim", description="ddim, euler, heun or edm_heun")
    N: Positive = Field(50, description="intervals from pure noise to data; on vp it divides process.timesteps")
    w: Annotated[float, Field(ge=0, le=100)] = Field(3.0, description="guidance scale, Imagen form: 1 is unguided")


class Targets(Block):
    """The ODE's endpoints from the start points of training."""

    shard: Positive = Field(
        2000,
        description="start points a job; a student's pool is solved by as many jobs as it takes, does not change a byte",
    )
    block: Positive = Field(1000, description="start points solved in one go, the unit of resuming; divides shard")
    batch_size: Positive = Field(
        64, description="start points of one teacher evaluation; on a CPU few enough for its caches are fastest"
    )


class Train(Block):
    """Students. adapter, loss, lr, batch_size, pool and steps are axes that lines of `students` can vary."""

    adapter: Adapter = Field("lora4", description="loraR (LoRA of rank and alpha R) or full (all U-Net weights)")
    loss: Loss = Field(
        "mse", description="mse, pseudo_huber: mean(sqrt(d² + c²) - c), l1: mean|d|, or lpips, of pixels alone"
    )
    lr: Rate = Field(1e-4, description="AdamW's learning rate, constant")
    batch_size: Positive = Field(16, description="start points a step, over all processes")
    pool: Positive = Field(
        4000,
        description="start points (latent, noise, time) there are; CM and Direct CM see the same ones in the same order; what learns from data alone draws pairs of its own",
    )
    steps: Positive = Field(250, description="optimiser steps")
    weight_decay: NonNegative = Field(1e-2, description="AdamW's weight decay")
    grad_clip: Rate = Field(1.0, description="largest gradient norm")
    ema: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None,
        description="decay of an average of a student's weights that is evaluated in their place; null: the last weights",
    )
    huber_c: Rate = Field(1e-3, description="c of pseudo_huber")
    precision: Precision = Field("no", description="mixed precision of training: no, fp16 or bf16")
    gradient_checkpointing: bool = Field(False, description="trade time for memory")
    checkpoint_every: Positive = Field(100, description="steps between checkpoints")


class StudentAxes(Block):
    """One line of the grid: the product of these lists; what is left out comes from `ode` and `train`."""

    method: list[Method] = Field(["cm", "direct_cm"], min_length=1, description=", ".join(METHODS))
    solver: list[Solver] | None = Field(None, min_length=1)
    N: list[Positive] | None = Field(None, min_length=1)
    w: list[Annotated[float, Field(ge=0, le=100)]] | None = Field(None, min_length=1)
    adapter: list[Adapter] | None = Field(None, min_length=1)
    loss: list[Loss] | None = Field(None, min_length=1)
    lr: list[Rate] | None = Field(None, min_length=1)
    batch_size: list[Positive] | None = Field(None, min_length=1)
    pool: list[Positive] | None = Field(None, min_length=1)
    steps: list[Positive] | None = Field(None, min_length=1)
    seed: list[Count] = Field([0], min_length=1, description="training seeds")
    snapshots: list[Positive] = Field(
        [],
        description="optimiser steps after which the student is kept and evaluated too; those beyond steps are left out",
    )
    sampling_steps: list[Positive] | None = Field(
        None, min_length=1, description="numbers of student steps, if others than evaluation.steps"
    )
    errors: bool = Field(False, description="measure the ODE error by start time too (see errors)")


def paper_grid() -> list[StudentAxes]:
    """The grid of the embedded default: the main comparison first, then the paper's sweeps, then ours."""
    five, three = [0, 1, 2, 3, 4], [0, 1, 2]
    along = [62, 125, 250]
    return [
        StudentAxes(seed=five, sampling_steps=[1, 2, 4, 8], errors=True),
        StudentAxes(N=[10, 20, 100], seed=five),
        StudentAxes(N=[10, 20, 100], seed=three, errors=True),
        StudentAxes(w=[1, 5, 8], seed=five),
        StudentAxes(solver=["euler", "heun"], seed=three),
        StudentAxes(adapter=["lora4"], pool=[8000], steps=[500], seed=five, snapshots=along),
        StudentAxes(adapter=["lora64", "full"], pool=[8000], steps=[500], seed=three, snapshots=along),
        StudentAxes(lr=[1e-3], seed=three),
        StudentAxes(loss=["pseudo_huber"], seed=three),
    ]


class Evaluation(Block):
    """Samples from one shared noise, by teacher and students alike."""

    samples: Annotated[int, Field(ge=2)] = Field(1024, description="initial noises, each with a prompt")
    steps: list[Positive] = Field([1], min_length=1, description="numbers of student steps")
    shards: Positive = Field(
        4, description="jobs the teacher's samples are spread over, at most one a block; does not change a byte"
    )
    block: Positive = Field(256, description="samples made in one go, the unit of resuming")
    batch_size: Positive = Field(64, description="rows of one evaluation")
    precision: Precision = Field("no", description="precision of encoding, solving and sampling: no, fp16 or bf16")

    @property
    def jobs(self) -> int:
        """How many jobs the teacher's samples are spread over."""
        return min(self.shards, -(-self.samples // self.block))


class Refined(Block):
    """The high-accuracy solution that splits a student's error from its solver's."""

    solver: Solver = Field("edm_heun", description="ddim, euler, heun or edm_heun")
    N: Positive = Field(200, description="intervals; on vp it divides process.timesteps")


class Errors(Block):
    """Where the error is: students against their own ODE's endpoints and against a refined solution, by start time."""

    times: Positive = Field(
        10, description="start times, evenly spaced from pure noise; divides every N they are used with"
    )
    points: Annotated[int, Field(ge=2)] = Field(100, description="start points a time, from held-out images")
    shard: Positive = Field(1000, description="start points a job; does not change a byte")
    block: Positive = Field(500, description="start points solved in one go; divides shard")
    refined: Refined = Refined()


class ClipTiny(Block):
    """The small CLIP that is trained on the run's own captioned images."""

    width: Positive = Field(64, description="transformer width and embedding size")
    layers: Positive = Field(3, description="layers of each tower")
    patch: Positive = Field(4, description="patch side, pixels")
    steps: Positive = Field(400, description="optimiser steps")
    batch_size: Annotated[int, Field(ge=2)] = Field(128, description="pairs a step")
    lr: Rate = Field(1e-3, description="peak learning rate, cosine decay")
    head_steps: Positive = Field(600, description="optimiser steps of the quality head")


class Extractors(Block):
    """Feature extractors that are trained here."""

    clip_tiny: ClipTiny | None = ClipTiny()


# What `search` can minimise: distances of one number each; FD∞ is not defined at every n.
FRECHET = ("fd_tiny", "fid", "fid_legacy_pytorch", "fd_dino")
SOUGHT = (*FRECHET, "kid_tiny", "kid", "cmmd_tiny", "cmmd")


class Search(Block):
    """Sampling times of one student per method of the main setting, found by a greedy ternary search."""

    steps: list[Annotated[int, Field(ge=2, strict=True)]] = Field(
        [2, 4],
        min_length=1,
        description="numbers of student steps whose times are searched; the first is always pure noise",
    )
    samples: Annotated[int, Field(ge=2, strict=True)] = Field(
        512, description="samples a probe, of a noise and prompts that are not the evaluation's"
    )
    metric: str | None = Field(
        None, description=f"what is minimised: {', '.join(SOUGHT)}; null: the first Fréchet distance among metrics"
    )
    reference: Literal["data", "teacher"] = Field(
        "data", description="distance to the data's images or to the teacher's samples of the evaluation"
    )


class Statistics(Block):
    """Intervals and tests."""

    bootstrap: Annotated[int, Field(ge=100)] = Field(2000, description="resamples of the paired bootstrap")
    permutations: Annotated[int, Field(ge=99)] = Field(999, description="permutations of the tests of FD, KID and CMMD")
    level: Annotated[float, Field(gt=0, lt=1)] = Field(0.95, description="confidence level of intervals")
    alpha: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.05, description="family-wise error rate of the claims' verdicts (Holm), and level of bold type and hatching"
    )


class Editing(Block):
    """Editing without training, where the teacher works on pixels: the finished students of the main comparison, first seeds."""

    images: Positive = Field(64, description="held-out images that are edited, at most")
    steps: Positive = Field(4, description="student steps of an edit")
    patch: Annotated[int, Field(ge=2, strict=True)] = Field(
        4, description="super-resolution knows the means of patches of this side, pixels; divides data.resolution"
    )
    start: Fraction = Field(
        0.5,
        description="SDEdit starts after this share of the grid: 0 is pure noise, 0.9 leaves the strokes nearly as they are",
    )
    levels: list[Rate] = Field(
        [0.5, 2.0],
        min_length=1,
        description="standard deviations of the noise that denoising starts from; the nearest time of the grid is taken",
    )
    points: Annotated[int, Field(ge=3, strict=True)] = Field(
        7, description="points of an interpolation, its ends included"
    )


class Figures(Block):
    """Figures and tables."""

    samples: Positive = Field(10, description="columns of Figure 2, samples from the same noise")
    gallery: Positive = Field(30, description="columns of Figure 5, samples over all prompts; the prompts come first")
    trajectories: Positive = Field(8, description="trajectories of Figure 1, the two supervisions")
    editing: Positive = Field(4, description="images of each edit in the figure on editing, at most")


class Convergence(Block):
    """What theory predicts as N grows, measured on exact teachers of its own: no data, no network."""

    N: list[Positive] = Field(
        [10, 20, 50, 100, 200],
        min_length=3,
        description="numbers of ODE intervals, ascending; multiples of 5 that divide 1000",
    )
    gaps: list[Positive] = Field(
        [20, 50, 100, 200, 500, 1000],
        min_length=3,
        description="the same where CT is compared with CD at a student as it stands",
    )
    fit_from: Positive = Field(20, description="slopes are fitted over these N from here on, 3 or more of them")
    points: Annotated[int, Field(ge=2)] = Field(400, description="points that an error is measured at, per start time")

    @model_validator(mode="after")
    def _check(self) -> Convergence:
        for key, sizes in (("N", self.N), ("gaps", self.gaps)):
            if sizes != sorted(set(sizes)):
                raise ValueError(f"{key} = {sizes} is not ascending")
            for n in sizes:
                if n % 5 or 1000 % n:
                    raise ValueError(f"{key}: {n} is not a multiple of 5 that divides 1000")
            if sum(n >= self.fit_from for n in sizes) < 3:
                raise ValueError(f"fit_from = {self.fit_from} leaves fewer than 3 of {key} = {sizes}")
        return self


class Config(Block):
    """A whole run."""

    preset: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")] = Field(
        "embedded", description="name of the results folder"
    )
    seed: Count = Field(24, description="seed of everything but the students' training")
    data: Data = Data()
    process: Process = Process()
    teacher: Teacher = Teacher()
    encode: Encode = Encode()
    ode: Ode = Ode()
    targets: Targets = Targets()
    train: Train = Train()
    # Left out of what is written where it is empty, so that what was made before it existed stays.
    methods: dict[str, dict[str, Annotated[float, Field(strict=True)]]] = Field(
        {},
        exclude_if=lambda value: not value,
        description="numbers of a method's own (SETTINGS in its file) where they are to be others: {ct: {s1: 40}}",
    )
    students: list[StudentAxes] = Field(default_factory=lambda: paper_grid(), min_length=1)
    evaluation: Evaluation = Evaluation()
    metrics: list[str] = Field(
        default_factory=lambda: [
            *("ode_error", "fd_tiny", "kid_tiny", "clip_tiny", "quality_tiny", "prompt_accuracy"),
            *("fd_inf_tiny", "cmmd_tiny", "precision_tiny", "recall_tiny", "density_tiny", "coverage_tiny"),
        ],
        min_length=1,
    )
    extractors: Extractors = Extractors()
    errors: Errors = Errors()
    # Left out of what is written where it is null: tables that were made before this key existed are not made anew.
    search: Search | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="search sampling times too: a block of steps, samples, metric and reference; null: even times alone",
    )
    statistics: Statistics = Statistics()
    # As the teachers' own blocks: what was made before it existed stays.
    editing: Editing = Field(default=Editing(), exclude_if=lambda value: value == Editing())
    figures: Figures = Figures()
    # Left out of what is written where it is null: what was made before it existed stays.
    convergence: Convergence | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="null: not measured; a preset that wants it names at least one of its keys",
    )

    @model_validator(mode="after")
    def _check(self) -> Config:
        self._check_size()
        total, divides = self.process.timesteps, self.process.divides
        if not divides(self.ode.N):
            raise ValueError(f"ode.N = {self.ode.N} does not divide process.timesteps = {total}")
        for axes in self.students:
            for n in axes.N or []:
                if not divides(n):
                    raise ValueError(f"students: N = {n} does not divide process.timesteps = {total}")
            if axes.errors:
                for n in [self.errors.refined.N, *(axes.N or [self.ode.N])]:
                    if n % self.errors.times:
                        raise ValueError(
                            f"errors.times = {self.errors.times} does not divide N = {n} of a line with errors"
                        )
        for block, key, limit_key, limit in (
            (self.targets, "targets.batch_size", "targets.block", self.targets.block),
            (self.evaluation, "evaluation.batch_size", "evaluation.samples", self.evaluation.samples),
        ):
            if block.batch_size > limit:
                raise ValueError(f"{key} = {block.batch_size} is larger than {limit_key} = {limit}")
        for key, sized in (("targets", self.targets), ("errors", self.errors)):
            if sized.shard % sized.block:
                raise ValueError(f"{key}.block = {sized.block} does not divide {key}.shard = {sized.shard}")
        if not divides(self.errors.refined.N):
            raise ValueError(f"errors.refined.N = {self.errors.refined.N} does not divide process.timesteps = {total}")
        for run in self.runs():
            if run["batch_size"] > run["pool"]:
                raise ValueError(f"students: batch_size = {run['batch_size']} is larger than pool = {run['pool']}")
            for _, steps in self.sets(run):
                if steps > run["N"]:
                    raise ValueError(f"sampling steps: {steps} are more than the grid's N = {run['N']}")
        for where, numbers in (
            ("evaluation.steps", self.evaluation.steps),
            *(("students: sampling_steps", a.sampling_steps or []) for a in self.students),
            *(("students: snapshots", a.snapshots) for a in self.students),
        ):
            if len(set(numbers)) != len(numbers):
                raise ValueError(f"{where} names a number twice")
        if len(set(self.metrics)) != len(self.metrics):
            raise ValueError("metrics names one twice")
        for name in self.metrics:
            if name not in METRICS:
                raise ValueError(f"metrics: unknown metric {name!r}; there are {', '.join(METRICS)}")
            metric = METRICS[name]
            if metric.extractor == "clip_tiny" and self.extractors.clip_tiny is None:
                raise ValueError(f"metrics: {name} needs extractors.clip_tiny, which is null")
        if not self.metric_names():
            raise ValueError(
                f"metrics: {', '.join(self.metrics)} need labelled images (data.kind digits or photos); name others too"
            )
        if self.data.embedded:
            if self.data.resolution > 64:
                raise ValueError(f"data.resolution: {self.data.kind} come at 8, 16, 24 … 64 pixels")
            whole, groups = embedded_images(self.data.kind, self.data.resolution)
            held_out = min(max(round(groups * self.data.held_out), 1), groups - 1)
            images = whole - held_out * (whole // groups)
            if self.evaluation.samples > images:
                raise ValueError(
                    f"evaluation.samples = {self.evaluation.samples} is more than the {images} training images that are the data reference"
                )
        self._check_teacher()
        self._check_methods()
        self._check_search()
        if self.teacher.kind == "micro_sdxl":
            factor = self.teacher.micro_sdxl.vae.factor
            if self.data.resolution % factor:
                raise ValueError(
                    f"teacher.micro_sdxl.vae.channels has {len(self.teacher.micro_sdxl.vae.channels)} resolutions, too many "
                    f"for data.resolution = {self.data.resolution}"
                )
            latent = self.data.resolution // factor
            down = 2 ** (len(self.teacher.micro_sdxl.unet.channels) - 1)
            if latent % down:
                raise ValueError(
                    f"teacher.micro_sdxl.unet.channels has {len(self.teacher.micro_sdxl.unet.channels)} resolutions, too many for {latent}×{latent} latents"
                )
        tiny = self.extractors.clip_tiny
        if (
            tiny is not None
            and self.data.resolution % tiny.patch
            and any(METRICS[m].extractor == "clip_tiny" for m in self.metrics)
        ):
            raise ValueError(
                f"extractors.clip_tiny.patch = {tiny.patch} does not divide data.resolution = {self.data.resolution}"
            )
        return self

    def _check_size(self) -> None:
        """Whether the plan is one that can be made: thousands of jobs take Snakemake minutes, millions for ever."""
        students = sum(math.prod(len(self._values(axes, name)) for name in RUN_AXES) for axes in self.students)
        if students > MOST_JOBS:
            raise ValueError(
                f"students: {students:,} students, more than the {MOST_JOBS:,} of one plan; shorten the lists"
            )
        largest = max(pool for axes in self.students for pool in self._values(axes, "pool"))
        for key, items, sized in (
            ("targets", largest, self.targets),
            ("errors", self.errors.times * self.errors.points, self.errors),
        ):
            shards = -(-items // sized.shard)
            if shards > MOST_SHARDS:
                what = f"pool = {items:,}" if key == "targets" else f"errors.times · errors.points = {items:,}"
                raise ValueError(
                    f"{what} at {key}.shard = {sized.shard:,} makes {shards:,} jobs, more than {MOST_SHARDS:,}; raise {key}.shard, or lower it"
                )
        if self.evaluation.samples < self.least():
            raise ValueError(
                f"evaluation.samples = {self.evaluation.samples} is too few: {self.why_least()} at least {self.least()}"
            )

    def least(self) -> int:
        """How many images on either side the metrics need."""
        return max(
            (METRICS[m].least for m in self.metrics if m in METRICS and "data" in METRICS[m].references), default=1
        )

    def why_least(self) -> str:
        """Which metrics need the most images, as the beginning of a sentence."""
        those = [METRICS[m] for m in self.metrics if m in METRICS and "data" in METRICS[m].references]
        names = [metric.name for metric in those if metric.least >= self.least()]
        return f"{', '.join(names[:4])}{' …' if len(names) > 4 else ''} need{'s' if len(names) == 1 else ''}"

    def _check_teacher(self) -> None:
        """What a kind of teacher asks of process, data and students."""
        kind = TEACHERS[self.teacher.kind]
        if self.process.kind not in kind.processes:
            raise ValueError(
                f"process.kind is {self.process.kind}, but teacher.kind {kind.name} needs {' or '.join(kind.processes)}"
            )
        if kind.latent:
            for loss in {run["loss"] for run in self.runs()}:
                if DISTANCES[loss].images:
                    others = ", ".join(d.name for d in DISTANCES.values() if not d.images)
                    raise ValueError(
                        f"loss {loss} compares images, but what teacher.kind {kind.name} diffuses are latents; use {others}, "
                        "or a teacher on pixels"
                    )
            return
        levels = len(self.teacher.pixel_unet.channels)
        if self.data.resolution % 2 ** (levels - 1):
            raise ValueError(
                f"teacher.{kind.name}: channels has {levels} resolutions, too many for data.resolution = {self.data.resolution}"
            )
        if self.data.resolution % self.editing.patch:
            raise ValueError(
                f"editing.patch = {self.editing.patch} does not divide data.resolution = {self.data.resolution}"
            )

    def _check_methods(self) -> None:
        """What methods ask of process and grid, and that their settings are theirs."""
        for name, given in self.methods.items():
            if name not in methods():
                raise ValueError(f"methods: unknown method {name!r}; there are {', '.join(methods())}")
            # Some of these would fail, or mean nothing, after the teacher has been trained.
            if wrong := methods()[name].refused(given):
                raise ValueError(f"methods.{name}: {wrong}")
        for run in self.runs():
            method = methods()[run["method"]]
            if self.process.kind not in method.processes:
                raise ValueError(
                    f"students: method {run['method']} needs process.kind {' or '.join(method.processes)}, it is {self.process.kind}"
                )
            if method.halves and (run["N"] == 1 or run["N"].bit_count() != 1):
                raise ValueError(
                    f"students: method {run['method']} halves N until it is 1, but N = {run['N']} is not 2, 4, 8 …"
                )
            for _, k in self.sets(run) if method.halves else ():
                if k.bit_count() != 1 or k >= run["N"]:
                    raise ValueError(
                        f"students: method {run['method']} halves N = {run['N']}, so that its sampling_steps are powers of 2 below it, not {k}"
                    )

    def method_settings(self, name: str) -> dict[str, float]:
        """A method's own numbers: its file's, with those of `methods` in their place; whole ones stay whole."""
        own = {**methods()[name].settings, **self.methods.get(name, {})}
        return {
            k: int(v) if v == int(v) and isinstance(methods()[name].settings[k], int) else v for k, v in own.items()
        }

    def _check_search(self) -> None:
        """What a search of sampling times asks of grid, metrics and evaluation."""
        search = self.search
        if search is None:
            return
        if len(set(search.steps)) != len(search.steps):
            raise ValueError("search.steps names a number twice")
        for run in self.searched():
            if max(search.steps) > run["N"]:
                raise ValueError(f"search.steps: {max(search.steps)} are more than the grid's N = {run['N']}")
        if search.samples > self.evaluation.samples:
            raise ValueError(
                f"search.samples = {search.samples} is more than evaluation.samples = {self.evaluation.samples}, the reference's"
            )
        there = [m for m in self.metric_names() if m in SOUGHT]
        if search.metric is None and not set(there) & set(FRECHET):
            raise ValueError(
                f"search.metric is null, and metrics has no Fréchet distance; there are {', '.join(FRECHET)}"
            )
        if search.metric is not None and search.metric not in there:
            raise ValueError(
                f"search.metric is {search.metric!r}, expected a distance among metrics: {', '.join(there) or 'it has none'}"
            )

    def search_metric(self) -> str:
        """What the search of sampling times minimises."""
        assert self.search is not None
        return self.search.metric or next(m for m in self.metric_names() if m in FRECHET)

    def latent(self) -> tuple[int, int]:
        """(channels, side) of what the teacher diffuses."""
        if not TEACHERS[self.teacher.kind].latent:
            return 3, self.data.resolution
        # SDXL's VAE and its likes have 4 channels of an eighth of the side.
        factor = self.teacher.micro_sdxl.vae.factor if self.teacher.kind == "micro_sdxl" else 8
        return 4, self.data.resolution // factor

    def runs(self) -> list[dict[str, Any]]:
        """The grid of students: one dictionary of axes per run, without repetitions, in the order of `students`."""
        seen: dict[tuple[Any, ...], dict[str, Any]] = {}
        for axes in self.students:
            for run in self._product(axes):
                seen.setdefault(tuple(run.values()), run)
        return list(seen.values())

    def searched(self) -> list[dict[str, Any]]:
        """The runs whose sampling times are searched: of the main setting, the first of each method; none without `search`.

        The main setting is that of `ode` and `train`, or of the first run where no run has it. A method that halves N has learnt to go
        from one even time to the next, and has no others to choose from.
        """
        runs = self.runs() if self.search is not None else []
        main = {axis: self._default(axis) for axis in SETTING_AXES}
        chosen = [run for run in runs if main.items() <= run.items()]
        if runs and not chosen:
            main = {axis: runs[0][axis] for axis in SETTING_AXES}
            chosen = [run for run in runs if main.items() <= run.items()]
        first: dict[str, dict[str, Any]] = {}
        for run in chosen:
            if not methods()[run["method"]].halves:
                first.setdefault(run["method"], run)
        return list(first.values())

    def _values(self, axes: StudentAxes, name: str) -> list[Any]:
        given = getattr(axes, name)
        return [self._default(name)] if given is None else given

    def _product(self, axes: StudentAxes) -> Iterator[dict[str, Any]]:
        for combination in itertools.product(*(self._values(axes, name) for name in RUN_AXES)):
            yield dict(zip(RUN_AXES, combination, strict=True))

    def _lines(self, run: Mapping[str, Any]) -> list[StudentAxes]:
        return [axes for axes in self.students if all(run[n] in self._values(axes, n) for n in RUN_AXES)]

    def snapshots(self, run: Mapping[str, Any]) -> list[int]:
        """The optimiser steps before its last after which a run's student is kept, ascending."""
        return sorted({s for axes in self._lines(run) for s in axes.snapshots if s < run["steps"]})

    def sets(self, run: Mapping[str, Any]) -> list[tuple[int, int]]:
        """What is evaluated of a run: (optimiser step, sampling steps), the finished student first, then its snapshots.

        Snapshots are sampled in the smallest of the numbers of sampling steps alone.
        """
        lines = self._lines(run)
        numbers = sorted(
            {k for axes in lines for k in (axes.sampling_steps or self.evaluation.steps)} or set(self.evaluation.steps)
        )
        return [(run["steps"], k) for k in numbers] + [(s, numbers[0]) for s in self.snapshots(run)]

    def main(self) -> list[dict[str, Any]]:
        """The runs of the main comparison: their axes but method and seed are `ode`'s and `train`'s, or else the first run's."""
        runs = self.runs()
        for axes in ({name: self._default(name) for name in SETTING_AXES}, runs[0]):
            if chosen := [run for run in runs if all(run[name] == axes[name] for name in SETTING_AXES)]:
                break
        return chosen

    def edited(self) -> list[dict[str, Any]]:
        """The runs whose students edit images: where the teacher works on pixels, of the main comparison's methods the first of each.

        Not those that halve N: such a student knows pure noise alone, no image under less of it.
        """
        if TEACHERS[self.teacher.kind].latent:
            return []
        first: dict[str, dict[str, Any]] = {}
        for run in self.main():
            if not methods()[run["method"]].halves:
                first.setdefault(run["method"], run)
        return list(first.values())

    def measures_errors(self, run: Mapping[str, Any]) -> bool:
        """Whether some line asks for this run's error by start time."""
        return any(axes.errors for axes in self._lines(run))

    def _default(self, axis: str) -> Any:
        return getattr(self.ode if axis in ODE_AXES else self.train, axis)

    def metric_names(self) -> list[str]:
        """The metrics that this run's data allow: those that need labels only where the data set has them."""
        return [m for m in self.metrics if not METRICS[m].needs_labels or self.data.embedded]

    def floor_metrics(self) -> list[str]:
        """Those of the teacher under another noise: samples of two noises have no error sample by sample."""
        return [m for m in self.metric_names() if m != "ode_error"]

    def extractor_names(self) -> list[str]:
        """The extractors that the metrics need, in the registry's order."""
        needed = {METRICS[m].extractor for m in self.metric_names()}
        return [name for name in EXTRACTORS if name in needed]


ODE_AXES = ("solver", "N", "w")
# Of one plan: students, and jobs of one ODE.
MOST_JOBS, MOST_SHARDS = 20_000, 2_000
RUN_AXES = ("method", *ODE_AXES, "adapter", "loss", "lr", "batch_size", "pool", "steps", "seed")
SETTING_AXES = tuple(axis for axis in RUN_AXES if axis not in ("method", "seed"))

# Solvers are classes with torch beneath them: their names stand here, and this keeps the two from drifting.
assert set(SOLVERS) == set(Solver.__args__)  # type: ignore[attr-defined]
assert set(DISTANCES) == set(Loss.__args__)  # type: ignore[attr-defined]
assert set(TEACHERS) == set(Teacher.model_fields["kind"].annotation.__args__)  # type: ignore[union-attr]

B = TypeVar("B", bound=BaseModel)


def local(path: str) -> Path:
    """A path of the configuration: ~ is the user's home; variables stay as they stand."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        # Of a user that this machine does not know.
        return Path(path)


def number(value: float | int) -> str:
    """A number as paths spell it: 3.0 → 3, 0.0001 → 0.0001, never an exponent with a sign."""
    text = format(Decimal(repr(float(value))), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def describe(error: ValidationError, where: str) -> str:
    """One line for a validation error: where, key, what is wrong, what would be right."""
    problems = error.errors(include_url=False)
    first = problems[0]
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "unknown key; see config.yaml and docs/configuration.md for the keys there are"
    elif first["type"] == "string_type" and isinstance(first["input"], date | int | float):
        what = "date" if isinstance(first["input"], date) else "number"
        message = f"is {first['input']}, a {what} to YAML; put it in quotes where it is meant as text"
    elif first["type"] not in ("value_error", "missing"):
        shown = (
            str(first["input"])
            if isinstance(first["input"], dict)
            else json.dumps(first["input"], default=str, ensure_ascii=False)
        )
        message = f"is {shown[:80]}: {message[0].lower()}{message[1:]}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{where}: {key + ': ' if key else ''}{message}{more}"


def parse(model: type[B], settings: Any, where: str = "configuration") -> B:
    """Validate settings (a mapping) against a model; the first problem becomes a UserError of one line."""
    if not isinstance(settings, Mapping):
        raise UserError(f"{where}: expected a mapping of keys to values, found {type(settings).__name__}")
    try:
        return model.model_validate(dict(settings))
    except ValidationError as error:
        raise UserError(describe(error, where)) from None


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Lay an overlay over a base: mappings merge key by key, anything else is replaced (as Snakemake does)."""
    out = dict(base)
    for key, value in overlay.items():
        if isinstance(value, Mapping) and isinstance(out.get(key), Mapping):
            out[key] = merge(out[key], value)
        else:
            out[key] = value
    return out


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file's mapping; what is missing or malformed, or names a key twice, is a UserError with file and line.

    Numbers and dates are read as PyYAML's safe loader has them, which is what Snakemake uses.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """PyYAML's own takes the last of two equal keys without a word."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            first: dict[Any, int] = {}
            for key_node, _ in node.value:
                # Merged keys ("<<") are meant to be overridden.
                if key_node.tag == "tag:yaml.org,2002:merge":
                    continue
                key = self.construct_object(key_node, deep=True)
                line = key_node.start_mark.line + 1
                if isinstance(key, str | int | float) and key in first:
                    raise UserError(
                        f"{path}, line {line}: {key} is there twice, first in line {first[key]}; keep one of them"
                    )
                with suppress(TypeError):
                    first[key] = line
            return super().construct_mapping(node, deep)

        def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
            """YAML 1.1 reads 010 as eight and 1:30 as ninety, which nobody means here."""
            if re.fullmatch(r"[-+]?0[0-7]+|.*:.*", node.value):
                raise UserError(
                    f"{path}, line {node.start_mark.line + 1}: {node.value} is {super().construct_yaml_int(node)} to YAML; "
                    "write the number without a leading 0 or a colon, or put text in quotes"
                )
            return int(super().construct_yaml_int(node))

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise UserError(f"{path}: {key} is there twice; keep one of them")
        return dict(pairs)

    Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        try:
            content = Loader(text).get_single_data()
        except yaml.YAMLError:
            try:
                # JSON is YAML but for tabs, with which it may be indented; Snakemake reads it.
                content = json.loads(text, object_pairs_hook=unique)
            except json.JSONDecodeError:
                content = None
            if content is None:
                raise
        json.dumps(content, default=str, skipkeys=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such configuration file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = str(getattr(error, "problem", None) or error)
        tab = "; indent with spaces, not with tabs" if "\\t" in problem else ""
        raise UserError(f"{path}{line}: not valid YAML; {problem}{tab}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not in UTF-8 ({error}); save it in that encoding") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: a value cannot be read ({error}); put text in quotes") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: expected keys and values at its top, found a {type(content).__name__}; write `key: value` lines"
        )
    return content


def check_yaml(*paths: str | Path) -> None:
    """What Snakemake's own reading of configuration files would miss, or would say without file and line: a UserError."""
    for path in paths:
        if not read_yaml(path):
            raise UserError(
                f"{path}: has no keys; give it those that are to be others than config.yaml's, or leave it out"
            )


def load_config(*paths: str | Path) -> Config:
    """Read a configuration and its overlays, in order, and validate the whole."""
    settings: dict[str, Any] = {}
    for path in paths:
        settings = merge(settings, read_yaml(path))
    return parse(Config, settings, " + ".join(str(p) for p in paths) or "configuration")


def settings_argument(model: type[B], text: str) -> B:
    """A verb's --settings: inline JSON (as the workflow passes it) or a JSON or YAML file."""
    where = "--settings"
    if text.lstrip().startswith("{"):
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"--settings: not valid JSON ({error})") from None
    else:
        content, where = read_yaml(text), text
    return parse(model, content, where)


def schema() -> dict[str, Any]:
    """The JSON schema of a whole configuration (workflow/schemas/config.schema.json)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def lora_rank(adapter: str) -> int | None:
    """The rank of a "loraR" adapter, None for "full"."""
    if not re.match(ADAPTER, adapter):
        raise UserError(f"adapter: {adapter!r} is neither full nor loraR with a rank R ≥ 1")
    return None if adapter == "full" else int(adapter[4:])
