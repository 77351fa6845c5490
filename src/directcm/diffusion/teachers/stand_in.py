"""An SDXL pipeline of random weights, in SDXL's own classes and files: what a rehearsal and the benchmarks run on.

FULL has the sizes of SDXL base 1.0 (Podell et al. 2307.01952, table 1, and the released configurations), SMALL a few
million parameters in the same shape. Its images mean nothing; its time and memory are the real thing's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from directcm.config import MicroText
from directcm.runtime import rng

LATENT_CHANNELS = 4


@dataclass(frozen=True)
class Encoder:
    """A CLIP text encoder's width, layers and heads."""

    width: int
    layers: int
    heads: int


@dataclass(frozen=True)
class Sizes:
    """What the pipeline's networks have of everything.

    `channels`, `transformers` (layers of each resolution, none at the first) and `heads` are the U-Net's, `vae` the VAE's
    channels, `first` and `second` the text encoders, `tokens` a caption's length, `vocabulary` the rows of their tables.
    """

    channels: tuple[int, ...]
    transformers: tuple[int, ...]
    heads: tuple[int, ...]
    time_ids: int
    vae: tuple[int, ...]
    first: Encoder
    second: Encoder
    vocabulary: int
    tokens: int = 77
    groups: int = 32


FULL = Sizes(
    channels=(320, 640, 1280),
    transformers=(1, 2, 10),
    heads=(5, 10, 20),
    time_ids=256,
    vae=(128, 256, 512, 512),
    first=Encoder(768, 12, 12),
    second=Encoder(1280, 32, 20),
    vocabulary=49408,
)
SMALL = Sizes(
    channels=(32, 64, 128),
    transformers=(1, 1, 2),
    heads=(1, 2, 4),
    time_ids=32,
    vae=(16, 32, 32, 32),
    first=Encoder(32, 2, 2),
    second=Encoder(64, 2, 2),
    vocabulary=640,
    groups=16,
)
SIZES = {"full": FULL, "small": SMALL}


def make_unet(sizes: Sizes, resolution: int) -> Any:
    """The U-Net for images of `resolution` pixels, on torch's default device and in its default dtype."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=resolution // 2 ** (len(sizes.vae) - 1),
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * (len(sizes.channels) - 1)),
        up_block_types=(*["CrossAttnUpBlock2D"] * (len(sizes.channels) - 1), "UpBlock2D"),
        block_out_channels=sizes.channels,
        layers_per_block=2,
        transformer_layers_per_block=sizes.transformers,
        attention_head_dim=sizes.heads,
        cross_attention_dim=sizes.first.width + sizes.second.width,
        norm_num_groups=sizes.groups,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=sizes.time_ids,
        projection_class_embeddings_input_dim=sizes.second.width + 6 * sizes.time_ids,
    )


def make_vae(sizes: Sizes, resolution: int) -> Any:
    """The VAE, whose latents are an eighth of the image's side."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(sizes.vae),
        up_block_types=("UpDecoderBlock2D",) * len(sizes.vae),
        block_out_channels=sizes.vae,
        layers_per_block=2,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=min(sizes.groups, sizes.vae[0]),
        sample_size=resolution,
        scaling_factor=0.13025,
        force_upcast=False,
    )


def make_text_encoders(sizes: Sizes, bos: int, eos: int) -> tuple[Any, Any]:
    """CLIP's text encoder, and a second one with a projection."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    def config(one: Encoder, act: str) -> Any:
        return CLIPTextConfig(
            vocab_size=sizes.vocabulary,
            hidden_size=one.width,
            intermediate_size=4 * one.width,
            projection_dim=one.width,
            num_hidden_layers=one.layers,
            num_attention_heads=one.heads,
            max_position_embeddings=sizes.tokens,
            bos_token_id=bos,
            eos_token_id=eos,
            pad_token_id=eos,
            hidden_act=act,
        )

    return (
        CLIPTextModel(config(sizes.first, "quick_gelu")),
        CLIPTextModelWithProjection(config(sizes.second, "gelu")),
    )


def save_pipeline(
    folder: Path, sizes: Sizes, resolution: int, texts: Sequence[str], device: str, seed: int = 0
) -> None:
    """Write the pipeline's folder, weights in half precision (float32 for SMALL, which a CPU runs)."""
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline

    from directcm.diffusion.teachers.micro_sdxl import make_tokenizer

    tokenizer = make_tokenizer(list(texts), MicroText(vocabulary=640, length=sizes.tokens))
    rng.seed_torch(seed, "stand_in")
    with torch.device(device):
        unet, vae = make_unet(sizes, resolution), make_vae(sizes, resolution)
        first, second = make_text_encoders(sizes, tokenizer.bos_token_id, tokenizer.eos_token_id)
    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
        scheduler=DDIMScheduler(
            num_train_timesteps=1000,
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            steps_offset=1,
        ),
    )
    pipeline.to(torch.float16 if sizes is FULL else torch.float32)
    pipeline.save_pretrained(folder, safe_serialization=True)
    for part in ("tokenizer", "tokenizer_2"):
        # The two files that the released pipeline has beside, and in place of, tokenizer.json.
        model = json.loads((folder / part / "tokenizer.json").read_text())["model"]
        (folder / part / "vocab.json").write_text(json.dumps(model["vocab"]))
        merges = (m if isinstance(m, str) else " ".join(m) for m in model["merges"])
        (folder / part / "merges.txt").write_text("\n".join(merges))
