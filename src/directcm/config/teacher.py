"""The blocks `process`, `teacher` and `encode`: the diffusion model that is distilled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from directcm.config.base import (
    Block,
    Count,
    Fraction,
    NonNegative,
    Positive,
    Rate,
    TeacherName,
    newer,
    with_blocks,
)
from directcm.config.registry import require
from directcm.config.specs import TEACHERS


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
        below = self.sigma_min < self.sigma_max
        require(below, f"sigma_min = {self.sigma_min} is not below sigma_max = {self.sigma_max}")
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
    def _of_its_kind(self, everything: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Of both kinds' keys those of this one: what is made under one kind does not depend on the other's."""
        other = ("timesteps", "time_input") if self.kind == "karras" else ("karras",)
        return {key: value for key, value in everything(self).items() if key not in other}

    def divides(self, intervals: int) -> bool:
        """Whether there is a grid of so many intervals: on the discrete process every k-th step, k = timesteps/N."""
        return self.kind != "vp" or self.timesteps % intervals == 0


def _multiples_of_16(channels: tuple[int, ...]) -> tuple[int, ...]:
    """Channels that the group norms of the small networks can divide; ValueError otherwise."""
    require(not any(c % 16 for c in channels), f"channels are {list(channels)}, expected multiples of 16")
    return channels


Channels = Annotated[tuple[Positive, ...], AfterValidator(_multiples_of_16)]


class MicroVae(Block):
    """The small VAE: each resolution after the first halves the side; 4 latent channels."""

    channels: Channels = Field(
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
        whole = self.width % self.heads == 0
        require(whole, f"width = {self.width} is not a multiple of heads = {self.heads}")
        return self


class MicroUnet(Block):
    """The small SDXL U-Net."""

    channels: Channels = Field((32, 64), min_length=1, description="channels per resolution, multiples of 16")
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
    vae_variant: str | None = newer(None, description="weight files' variant of that VAE, e.g. fp16")


class PixelUnet(Block):
    """A small UNet2DModel on pixels, told the class of what it denoises."""

    channels: Channels = Field((16, 32, 64), min_length=1, description="channels per resolution, multiples of 16")
    layers_per_block: Positive = Field(1, description="residual blocks per resolution")
    head_dim: Positive = Field(16, description="size of an attention head")
    attention: tuple[Count, ...] | None = newer(
        None, description="resolutions with attention, 0 is the full one; null: the lowest alone"
    )

    @model_validator(mode="after")
    def _check_attention(self) -> PixelUnet:
        named, last = max(self.attention or (0,)), len(self.channels) - 1
        require(named <= last, f"attention names resolution {named}, channels has those from 0 to {last}")
        return self


class EdmTraining(Block):
    """How a network on pixels is trained as Karras et al. (2206.00364) train theirs."""

    steps: Positive = Field(1100, description="optimiser steps")
    batch_size: Positive = Field(128, description="images a step")
    lr: Rate = Field(2e-3, description="peak learning rate, after a linear warm-up")
    warm_up: Count = newer(50, description="optimiser steps of the warm-up")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="what the learning rate does from there on")
    p_mean: float = Field(-1.2, allow_inf_nan=False, description="mean of ln(sigma) in training")
    p_std: Rate = Field(1.2, description="standard deviation of ln(sigma) in training")
    label_dropout: Fraction = Field(0.1, description="share of labels replaced by the class of guidance's no class")
    conditional: bool = newer(
        True, description="whether the network is told the class; if not, images need no labels and guidance w is 1"
    )
    dropout: Fraction = newer(
        0.0, description="dropout of the network's features while it is trained; students of it have none"
    )
    ema: Fraction = Field(0.995, description="decay of the weight average that is saved")


class EdmNetwork(Block):
    """The network of an EDM."""

    unet: PixelUnet = PixelUnet()


class Edm(EdmTraining, EdmNetwork):
    """An EDM on pixels, trained here, told the class of an image or not."""


class PixelDit(Block):
    """A small DiTTransformer2DModel on pixels (Peebles and Xie 2212.09748), told the class of what it denoises."""

    patch: Positive = Field(2, description="side of the patches that are tokens, pixels; divides data.resolution")
    width: Annotated[int, Field(ge=4, multiple_of=4)] = Field(64, description="channels of a token, a multiple of 4")
    layers: Positive = Field(4, description="transformer blocks")
    heads: Positive = Field(4, description="attention heads of each")

    @model_validator(mode="after")
    def _check(self) -> PixelDit:
        whole = self.width % self.heads == 0
        require(whole, f"width = {self.width} is not a multiple of heads = {self.heads}")
        return self


class DitNetwork(Block):
    """The network of a DiT teacher."""

    transformer: PixelDit = PixelDit()


class Dit(EdmTraining, DitNetwork):
    """A DiT on pixels, trained here as an EDM is, told the class of an image or not."""

    lr: Rate = Field(1e-3, description="peak learning rate, after a linear warm-up")


class Mixture(Block):
    """The exact teacher: every training image is the middle of a Gaussian, and nothing is learnt."""

    scale: NonNegative = Field(0.0, description="standard deviation of each Gaussian, pixels in [-1, 1]; 0: the images")
    student: PixelUnet = PixelUnet()


class Teacher(Block):
    """The diffusion model that is distilled."""

    kind: TeacherName = Field(
        "micro_sdxl", description="; ".join(f"{name}: {spec.about}" for name, spec in TEACHERS.items())
    )
    micro_sdxl: MicroSdxl = MicroSdxl()
    diffusers: Diffusers = Diffusers()
    edm: Edm = newer(Edm())
    mixture: Mixture = newer(Mixture())
    dit: Dit = newer(Dit())

    @model_validator(mode="after")
    def _check(self) -> Teacher:
        d = self.diffusers
        named = self.kind != "diffusers" or d.path or (d.id and d.revision)
        require(named, "diffusers needs a path, or an id with its revision (a full commit hash)")
        pinned = d.vae_revision or not d.vae_id
        require(pinned, "diffusers.vae_revision is missing: a hub id is used at a pinned commit only")
        return self

    @property
    def told_classes(self) -> bool:
        """Whether the network is told the class of each image, so that each needs a label."""
        return not TEACHERS[self.kind].latent and getattr(getattr(self, self.kind), "conditional", True)

    @property
    def pixel_unet(self) -> PixelUnet | None:
        """The network on pixels that students are, as the teacher's block has it; None where it has none."""
        key = TEACHERS[self.kind].unet
        return getattr(getattr(self, self.kind), key) if key else None


if not TYPE_CHECKING:
    Teacher = with_blocks(Teacher, TEACHERS.values())


class Encode(Block):
    """Latents and prompt embeddings."""

    batch_size: Positive = Field(128, description="images a forward")
    posterior: Literal["sample", "mode"] = Field(
        "sample", description="draw from the VAE's posterior (as SDXL is trained) or take its mode"
    )
