"""SDXL-type latent diffusion, large or small: the U-Net as a Teacher, the VAE and text encoders as functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from directcm.diffusion.processes import VariancePreserving
from directcm.diffusion.teachers import Conditioning, Teacher, dtype
from directcm.diffusion.teachers.codec import Codec, Draw, to_images, to_tensor
from directcm.diffusion.teachers.weight_files import config as weight_config
from directcm.diffusion.teachers.weight_files import staged
from directcm.errors import UserError
from directcm.runtime.artifacts import LOCATION, read_json
from directcm.runtime.remembered import digest

if TYPE_CHECKING:
    from PIL.Image import Image

    from directcm.runtime.artifacts import Artifact

__all__ = ["to_images", "to_tensor"]

# Pixels from which a CPU encodes and decodes images one by one.
LARGE = 256


class LatentDiffusion(Teacher):
    """A UNet2DConditionModel with SDXL's text-time conditioning.

    Conditioning: prompt_embeds (B, tokens, D), pooled (B, P). ∅ is both zeroed with the same time ids,
    as SDXL is released (Podell et al. 2307.01952). The network's own dtype is used inside; x and ε̂ are float32 outside.
    """

    def __init__(self, unet: Any, process: VariancePreserving, pixels: int, prediction_type: str = "epsilon") -> None:
        super().__init__()
        self.network = unet
        self.process = process
        self.pixels = pixels
        self.prediction_type = prediction_type
        side = unet.config.sample_size
        self.shape = (unet.config.in_channels, side, side)
        self.device = next(unet.parameters()).device

    def noise(self, x: Tensor, t: Tensor, cond: Conditioning | None) -> Tensor:
        assert cond is not None and self.network is not None
        own = self.network.dtype
        side = float(self.pixels)
        ids = torch.tensor([side, side, 0.0, 0.0, side, side], device=x.device, dtype=own)
        out = self.network(
            x.to(own),
            self.process.network_time(t).to(torch.float32),
            encoder_hidden_states=cond.tensors["prompt_embeds"].to(own),
            added_cond_kwargs={
                "text_embeds": cond.tensors["pooled"].to(own),
                "time_ids": ids.expand(len(x), -1),
            },
        ).sample.float()
        if self.prediction_type == "v_prediction":
            # v = α ε − σ x₀ (Salimans & Ho 2202.00512), so ε = α v + σ x.
            alpha, sigma = self.process.alpha(t), self.process.sigma(t)
            scale = (-1, *([1] * (x.dim() - 1)))
            out = alpha.reshape(scale).float() * out + sigma.reshape(scale).float() * x
        return out

    def unconditional(self, cond: Conditioning | None) -> Conditioning | None:
        assert cond is not None
        return Conditioning({k: torch.zeros_like(v) for k, v in cond.tensors.items()})


def settings(artifact: Artifact) -> dict[str, Any]:
    """teacher.json, with the folders of its parts: "pipeline", "vae" (None: the pipeline's own).

    A teacher made here lies in its artefact; a pinned one where location.json says.
    """
    content = dict(artifact.json("teacher.json"))
    content["pipeline"], content["vae"] = artifact.folder, None
    if content["pinned"]:
        places = read_json(artifact.folder / LOCATION)
        for part in ("pipeline", "vae"):
            if places[part] is not None:
                content[part] = Path(places[part])
                if not content[part].is_dir():
                    raise UserError(
                        f"{content[part]}: the teacher's {part} is no longer there; put it back, or run the teacher step again"
                    )
    return content


def check(artifact: Artifact, content: dict[str, Any], *parts: str) -> None:
    """Compare the files of parts ("unet/" …, "vae:" for a VAE of its own) with their recorded sha256 before they are read."""
    if not content["pinned"]:
        for name in artifact.checksums:
            if name.startswith(parts):
                artifact.file(name)
        return
    for row in artifact.csv("files.csv"):
        own = row["part"] == "vae"
        if (own and "vae:" in parts) or (not own and row["path"].startswith(parts)):
            path = content[row["part"]] / row["path"]
            if not path.is_file() or digest(path) != row["sha256"]:
                raise UserError(
                    f"{path}: missing or changed since the teacher was pinned; put the file back, or run the teacher step again"
                )


def weights(artifact: Artifact, content: dict[str, Any], part: str) -> tuple[Path, list[str]]:
    """(folder, names of its weights' files) of a part: those that were pinned, or that the artefact holds, and no others."""
    if content["pinned"]:
        own = content["vae"] is not None and part == "vae"
        rows = [row["path"] for row in artifact.csv("files.csv") if row["part"] == ("vae" if own else "pipeline")]
        folder, prefix = (content["vae"], "") if own else (content["pipeline"] / part, f"{part}/")
    else:
        rows, folder, prefix = list(artifact.checksums), artifact.folder / part, f"{part}/"
    names = [name.removeprefix(prefix) for name in rows if name.startswith(prefix)]
    # Safetensors files, and the index of several: model.safetensors.index.json.
    names = [name for name in names if "/" not in name and (name.endswith(".safetensors") or ".safetensors." in name)]
    if not names:
        raise UserError(f"{artifact.folder}: no weights of {part} are pinned; run the teacher step again")
    return folder, names


def make_process(scheduler: Path, time_input: str) -> tuple[VariancePreserving, str]:
    """(process, prediction type) from a pipeline's scheduler/scheduler_config.json; a UserError for what is not SDXL's kind."""
    config = weight_config(scheduler)
    # Every key that changes what the network means at a time, or what its prediction is. The rest says how diffusers' own
    # sampler picks its times, which is `ode`'s affair here.
    expected = {
        "beta_schedule": "scaled_linear",
        "rescale_betas_zero_snr": False,
        "trained_betas": None,
        "thresholding": False,
        "timestep_type": "discrete",
    }
    # Of these stock diffusers clips x̂₀ where they say so; others carry the key along and do not read it.
    if str(config.get("_class_name")).startswith(("DDIM", "DDPM", "LCM", "TCD")):
        expected["clip_sample"] = False
        config = {"clip_sample": True, **config}
    for key, value in expected.items():
        if config.get(key, None if key == "beta_schedule" else value) != value:
            raise UserError(f"{scheduler}: {key} is {config.get(key)!r}, expected {value!r} (SDXL's)")
    for key in ("num_train_timesteps", "beta_start", "beta_end"):
        if key not in config:
            raise UserError(f"{scheduler}: {key} is missing; it is not a diffusion scheduler's configuration")
    kind = config.get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction"):
        raise UserError(f"{scheduler}: prediction_type is {kind!r}, expected epsilon or v_prediction")
    for key in ("num_train_timesteps", "beta_start", "beta_end"):
        if isinstance(config[key], bool) or not isinstance(config[key], int | float):
            raise UserError(f"{scheduler}: {key} is {config[key]!r}, expected a number")
    schedule = VariancePreserving.scaled_linear(
        config["beta_start"], config["beta_end"], config["num_train_timesteps"], time_input
    )
    return schedule, kind


def load(artifact: Artifact, device: torch.device | str = "cpu", precision: str = "no") -> LatentDiffusion:
    """The U-Net of a teacher artefact, frozen, in evaluation mode."""
    from diffusers import UNet2DConditionModel

    content = settings(artifact)
    check(artifact, content, "unet/", "scheduler/")
    process, kind = make_process(content["pipeline"] / "scheduler" / "scheduler_config.json", content["time_input"])
    with staged(*weights(artifact, content, "unet")) as folder:
        unet = UNet2DConditionModel.from_pretrained(
            folder, torch_dtype=dtype(precision, device), use_safetensors=True, local_files_only=True
        )
    # Saved with a student of all weights: where it was opened from is of no account.
    unet.register_to_config(_name_or_path=str(content["pipeline"]))
    unet.requires_grad_(False).eval().to(device)
    return LatentDiffusion(unet, process, content["resolution"], kind)


def load_vae(artifact: Artifact, device: torch.device | str = "cpu", precision: str = "no") -> Any:
    """The VAE of a teacher artefact, frozen, in evaluation mode; in float32 where it overflows in fp16."""
    from diffusers import AutoencoderKL

    content = settings(artifact)
    check(artifact, content, "vae/" if content["vae"] is None else "vae:")
    with staged(*weights(artifact, content, "vae")) as folder:
        vae = AutoencoderKL.from_pretrained(
            folder, torch_dtype=dtype(precision, device), use_safetensors=True, local_files_only=True
        )
    for key in ("latents_mean", "latents_std", "shift_factor"):
        if vae.config.get(key) is not None:
            raise UserError(
                f"{artifact.folder}: the VAE has a {key}, which SDXL's has not; this pipeline cannot use it"
            )
    if precision == "fp16" and vae.config.get("force_upcast"):
        vae = vae.float()
    return vae.requires_grad_(False).eval().to(device)


@torch.no_grad()
def decode_pixels(vae: Any, latents: Tensor) -> Tensor:
    """Scaled latents (B, c, h, w) to pixels (B, 3, H, W), float32, clamped to [−1, 1]."""
    x = latents.to(vae.device, vae.dtype) / vae.config.scaling_factor
    pixels = vae.decode(x).sample
    if not bool(torch.isfinite(pixels).all()):
        raise UserError("the VAE decodes to numbers that are not finite; use evaluation.precision no or bf16")
    return pixels.float().clamp(-1, 1)


def decode(vae: Any, latents: Tensor) -> list[Image]:
    """Scaled latents (B, c, h, w) to RGB images."""
    return to_images(decode_pixels(vae, latents))


@torch.no_grad()
def encode_images(vae: Any, images: Tensor, noise: Tensor | None) -> Tensor:
    """Images (B, 3, H, W) in [−1, 1] to scaled latents float32: the posterior's mode, or a draw with given noise."""
    posterior = vae.encode(images.to(vae.device, vae.dtype)).latent_dist
    latents = posterior.mean.float()
    if noise is not None:
        latents = latents + posterior.std.float() * noise.to(latents.device)
    return (latents * vae.config.scaling_factor).cpu()


def _whole(folder: Path, loaded: tuple[Any, dict[str, Any]]) -> Any:
    """A network whose weights were all there; libraries fill in others at random, and say so in a warning at most."""
    network, info = loaded
    if info["missing_keys"]:
        raise UserError(f"teacher: {folder}: the weights lack {sorted(info['missing_keys'])[0]}; download them whole")
    return network


def open_text_encoder(part: str, folder: Path, names: Sequence[str], device: torch.device | str, precision: str) -> Any:
    """One of SDXL's text encoders, from the weights' files of these names."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    kind = CLIPTextModel if part == "text_encoder" else CLIPTextModelWithProjection
    with staged(folder, names) as place:
        try:
            loaded = kind.from_pretrained(
                place,
                dtype=dtype(precision, device),
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
        except (RuntimeError, ValueError, OSError) as error:
            why = " ".join(str(error).replace(str(place), str(folder)).split())[:300]
            raise UserError(
                f"teacher: {folder}: its weights are not those of its config.json ({why}); download it whole"
            ) from None
    return _whole(folder, loaded)


class TextEncoders:
    """SDXL's two tokenizers and text encoders."""

    def __init__(self, first: Any, second: Any, tokenizers: Sequence[Any]) -> None:
        self.encoders = (first, second)
        self.tokenizers = tuple(tokenizers)

    @classmethod
    def load(cls, artifact: Artifact, device: torch.device | str = "cpu", precision: str = "no") -> TextEncoders:
        """Both encoders of a teacher artefact, frozen."""
        from transformers import CLIPTokenizer

        content = settings(artifact)
        check(artifact, content, "text_encoder/", "text_encoder_2/", "tokenizer/", "tokenizer_2/")
        encoders = [
            open_text_encoder(part, *weights(artifact, content, part), device, precision)
            for part in ("text_encoder", "text_encoder_2")
        ]
        tokenizers = [
            CLIPTokenizer.from_pretrained(content["pipeline"], subfolder=name, local_files_only=True)
            for name in ("tokenizer", "tokenizer_2")
        ]
        for encoder in encoders:
            encoder.requires_grad_(False).eval().to(device)
        return cls(encoders[0], encoders[1], tokenizers)

    def tokens(self, texts: Sequence[str]) -> tuple[Tensor, ...]:
        """Token ids of each tokenizer, (B, length)."""
        return tuple(
            t(
                list(texts), padding="max_length", max_length=t.model_max_length, truncation=True, return_tensors="pt"
            ).input_ids
            for t in self.tokenizers
        )

    def encode(self, tokens: Sequence[Tensor]) -> Conditioning:
        """Last-but-one hidden states of both encoders side by side, and the second's projection (SDXL, 2307.01952)."""
        hidden, pooled = [], None
        for ids, encoder in zip(tokens, self.encoders, strict=True):
            out = encoder(ids.to(encoder.device), output_hidden_states=True)
            hidden.append(out.hidden_states[-2])
            pooled = out[0]
        assert pooled is not None
        return Conditioning({"prompt_embeds": torch.cat(hidden, dim=-1), "pooled": pooled})

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Conditioning:
        """The conditioning of captions."""
        return self.encode(self.tokens(texts))


class Latents(Codec):
    """The VAE and the text encoders of a teacher artefact, each read when it is first needed."""

    latent = True

    def __init__(self, artifact: Artifact, device: torch.device | str, precision: str) -> None:
        self.artifact, self.device, self.precision = artifact, device, precision

    @cached_property
    def vae(self) -> Any:
        return load_vae(self.artifact, self.device, self.precision)

    @cached_property
    def rows(self) -> int | None:
        """Images that pass through the VAE together, None: as many as are asked for. Halved where they do not fit a card."""
        large = settings(self.artifact)["resolution"] >= LARGE
        return 1 if large and torch.device(self.device).type == "cpu" else None

    def _in_parts(self, call: Callable[[range], Tensor], count: int) -> Tensor:
        """call(rows) for all rows of a batch, in parts that fit."""
        while True:
            size = min(self.rows or count, count)
            try:
                return torch.cat([call(range(i, min(i + size, count))) for i in range(0, count, size)])
            except torch.OutOfMemoryError:
                if size == 1:
                    raise UserError(
                        f"{self.artifact.folder}: not one image fits the card with the VAE; use a larger card, or fp16"
                    ) from None
                self.rows = -(-size // 2)
                torch.cuda.empty_cache()

    @cached_property
    def text(self) -> TextEncoders:
        return TextEncoders.load(self.artifact, self.device, self.precision)

    def encode(self, images: Tensor, draw: Draw | None) -> Tensor:
        """Scaled latents (B, c, h, w) of the VAE's posterior."""
        side = images.shape[-1] // 2 ** (len(self.vae.config.block_out_channels) - 1)
        noise = None if draw is None else draw((self.vae.config.latent_channels, side, side))

        def part(rows: range) -> Tensor:
            some = slice(rows.start, rows.stop)
            return encode_images(self.vae, images[some], None if noise is None else noise[some])

        return self._in_parts(part, len(images))

    def decode(self, latents: Tensor) -> Tensor:
        return self._in_parts(lambda rows: decode_pixels(self.vae, latents[rows.start : rows.stop]), len(latents))

    def condition(self, texts: Sequence[str], labels: Sequence[str]) -> Conditioning:
        """The captions' embeddings; labels tell SDXL nothing."""
        return self.text(texts)


def load_codec(artifact: Artifact, device: torch.device | str = "cpu", precision: str = "no") -> Latents:
    """The VAE and the text encoders of a teacher artefact."""
    return Latents(artifact, device, precision)
