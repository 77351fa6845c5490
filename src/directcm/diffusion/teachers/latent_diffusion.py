"""SDXL-type latent diffusion, large or small: the U-Net as a Teacher, the VAE and text encoders as functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from directcm.diffusion.processes import VariancePreserving, expand
from directcm.diffusion.teachers import Conditioning, UnetTeacher, dtype, frozen
from directcm.diffusion.teachers.codec import Codec, Draw
from directcm.diffusion.teachers.weight_files import config as weight_config
from directcm.diffusion.teachers.weight_files import staged
from directcm.errors import UserError
from directcm.runtime.artifacts import LOCATION, read_json
from directcm.runtime.remembered import digest

if TYPE_CHECKING:
    from directcm.runtime.artifacts import Artifact

# Pixels from which a CPU encodes and decodes images one by one.
LARGE = 256


class LatentDiffusion(UnetTeacher):
    """A UNet2DConditionModel with SDXL's text-time conditioning.

    Conditioning: prompt_embeds (B, tokens, D), pooled (B, P). ∅ is both zeroed with the same time ids,
    as SDXL is released (Podell et al. 2307.01952). The network's own dtype is used inside; x and ε̂ are float32 outside.
    """

    def __init__(self, unet: Any, process: VariancePreserving, pixels: int, prediction_type: str = "epsilon") -> None:
        super().__init__(unet, process)
        self.pixels, self.prediction_type = pixels, prediction_type

    def noise(self, x: Tensor, t: Tensor, cond: Conditioning | None) -> Tensor:
        return self.noise_told(x, t, cond, self.process.network_time(t))

    def noise_told(self, x: Tensor, t: Tensor, cond: Conditioning | None, told: Tensor) -> Tensor:
        assert cond is not None
        kind = self.network.dtype
        side = float(self.pixels)
        ids = torch.tensor([side, side, 0.0, 0.0, side, side], device=x.device, dtype=kind)
        out = self.network(
            x.to(kind),
            told.to(torch.float32),
            encoder_hidden_states=cond.tensors["prompt_embeds"].to(kind),
            added_cond_kwargs={"text_embeds": cond.tensors["pooled"].to(kind), "time_ids": ids.expand(len(x), -1)},
        ).sample.float()
        if self.prediction_type == "v_prediction":
            # v = α ε − σ x₀ (Salimans & Ho 2202.00512), so ε = α v + σ x.
            out = expand(self.process.alpha(t), x) * out + expand(self.process.sigma(t), x) * x
        return out

    def unconditional(self, cond: Conditioning | None) -> Conditioning | None:
        assert cond is not None
        return Conditioning({k: torch.zeros_like(v) for k, v in cond.tensors.items()})


class Parts:
    """The files of a teacher: in its artefact where it was made here, where its `location.json` says where it is pinned.

    `about`: teacher.json. `pipeline`: its folder. `vae`: that of a VAE that replaces the pipeline's, or None. A UserError for a
    folder that is no longer there.
    """

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.about = artifact.json("teacher.json")
        places: dict[str, Any] = {"pipeline": artifact.folder, "vae": None}
        if self.about["pinned"]:
            places = read_json(artifact.folder / LOCATION)
        self.pipeline = Path(places["pipeline"])
        self.vae = Path(places["vae"]) if places["vae"] else None
        for part, place in (("pipeline", self.pipeline), ("vae", self.vae)):
            if place is not None and not place.is_dir():
                raise UserError(
                    f"{place}: the teacher's {part} is no longer there; put it back, or run the teacher step again"
                )

    def files(self, part: str) -> tuple[Path, list[str]]:
        """(folder, names in it) of a part's files, each compared with its recorded sha256."""
        folder, prefix, source = self.pipeline / part, f"{part}/", "pipeline"
        if part == "vae" and self.vae is not None:
            folder, prefix, source = self.vae, "", "vae"
        if not self.about["pinned"]:
            return folder, [name.removeprefix(prefix) for name in self.artifact.files(prefix)]
        names = []
        for row in self.artifact.csv("files.csv"):
            if row["part"] == source and row["path"].startswith(prefix):
                names.append(row["path"].removeprefix(prefix))
                path = folder / names[-1]
                if not path.is_file() or digest(path) != row["sha256"]:
                    raise UserError(
                        f"{path}: missing or changed since the teacher was pinned; put the file back, or run the teacher step again"
                    )
        return folder, names

    def weights(self, part: str) -> tuple[Path, list[str]]:
        """(folder, names of its weights' files) of a part: those that were pinned, or that the artefact holds, and no others."""
        folder, names = self.files(part)
        # Safetensors files, and the index of several: model.safetensors.index.json.
        found = [name for name in names if "/" not in name and ".safetensors" in name]
        if not found:
            raise UserError(f"{self.artifact.folder}: no weights of {part} are pinned; run the teacher step again")
        return folder, found


def make_process(scheduler: Path, time_input: str) -> tuple[VariancePreserving, str]:
    """(process, prediction type) from a pipeline's scheduler/scheduler_config.json; a UserError for what is not SDXL's kind."""
    # Every key that changes what the network means at a time, or what its prediction is. The rest says how diffusers' own
    # sampler picks its times, which is `ode`'s affair here.
    expected = {
        "beta_schedule": "scaled_linear",
        "rescale_betas_zero_snr": False,
        "trained_betas": None,
        "thresholding": False,
        "timestep_type": "discrete",
    }
    # What a key that is left out means.
    config = {**expected, "beta_schedule": None, **weight_config(scheduler)}
    # Of these stock diffusers clips x̂₀ where they say so; others carry the key along and do not read it.
    if str(config.get("_class_name")).startswith(("DDIM", "DDPM", "LCM", "TCD")):
        expected["clip_sample"] = False
        config = {"clip_sample": True, **config}
    for key, value in expected.items():
        if config[key] != value:
            raise UserError(f"{scheduler}: {key} is {config[key]!r}, expected {value!r} (SDXL's)")
    for key in ("num_train_timesteps", "beta_start", "beta_end"):
        if key not in config:
            raise UserError(f"{scheduler}: {key} is missing; it is not a diffusion scheduler's configuration")
        if isinstance(config[key], bool) or not isinstance(config[key], int | float):
            raise UserError(f"{scheduler}: {key} is {config[key]!r}, expected a number")
    kind = config.get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction"):
        raise UserError(f"{scheduler}: prediction_type is {kind!r}, expected epsilon or v_prediction")
    schedule = VariancePreserving.scaled_linear(
        config["beta_start"], config["beta_end"], config["num_train_timesteps"], time_input
    )
    return schedule, kind


def load(artifact: Artifact, device: torch.device | str = "cpu", precision: str = "no") -> LatentDiffusion:
    """The U-Net of a teacher artefact, frozen, in evaluation mode."""
    from diffusers import UNet2DConditionModel

    parts = Parts(artifact)
    scheduler, _ = parts.files("scheduler")
    process, kind = make_process(scheduler / "scheduler_config.json", parts.about["time_input"])
    with staged(*parts.weights("unet")) as folder:
        unet = frozen(UNet2DConditionModel, folder, device, dtype(precision, device))
    # A student of all weights is saved with this name: not the temporary folder's.
    unet.register_to_config(_name_or_path=str(parts.pipeline))
    return LatentDiffusion(unet, process, parts.about["resolution"], kind)


def load_vae(artifact: Artifact, device: torch.device | str = "cpu", precision: str = "no") -> Any:
    """The VAE of a teacher artefact, frozen, in evaluation mode; in float32 where it overflows in fp16."""
    from diffusers import AutoencoderKL

    parts = Parts(artifact)
    with staged(*parts.weights("vae")) as folder:
        vae = frozen(AutoencoderKL, folder, device, dtype(precision, device))
    for key in ("latents_mean", "latents_std", "shift_factor"):
        if vae.config.get(key) is not None:
            raise UserError(
                f"{artifact.folder}: the VAE has a {key}, which SDXL's has not; this pipeline cannot use it"
            )
    if precision == "fp16" and vae.config.get("force_upcast"):
        vae = vae.float()
    return vae


def open_text_encoder(part: str, folder: Path, names: Sequence[str], device: torch.device | str, precision: str) -> Any:
    """One of SDXL's text encoders, frozen, from the weights' files of these names."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    kind = CLIPTextModel if part == "text_encoder" else CLIPTextModelWithProjection
    with staged(folder, names) as place:
        try:
            network, info = kind.from_pretrained(
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
    # The library fills these in at random.
    if info["missing_keys"]:
        raise UserError(f"teacher: {folder}: the weights lack {sorted(info['missing_keys'])[0]}; download them whole")
    return network.requires_grad_(False).eval().to(device)


class TextEncoders:
    """SDXL's two tokenizers and text encoders."""

    def __init__(self, encoders: Sequence[Any], tokenizers: Sequence[Any]) -> None:
        self.encoders, self.tokenizers = encoders, tokenizers

    @classmethod
    def load(cls, artifact: Artifact, device: torch.device | str = "cpu", precision: str = "no") -> TextEncoders:
        """Both encoders of a teacher artefact, frozen."""
        from transformers import CLIPTokenizer

        parts = Parts(artifact)
        encoders = [
            open_text_encoder(part, *parts.weights(part), device, precision)
            for part in ("text_encoder", "text_encoder_2")
        ]
        tokenizers = []
        for name in ("tokenizer", "tokenizer_2"):
            parts.files(name)
            tokenizers.append(CLIPTokenizer.from_pretrained(parts.pipeline, subfolder=name, local_files_only=True))
        return cls(encoders, tokenizers)

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
        outs = [
            encoder(ids.to(encoder.device), output_hidden_states=True)
            for ids, encoder in zip(tokens, self.encoders, strict=True)
        ]
        embeds = torch.cat([out.hidden_states[-2] for out in outs], dim=-1)
        return Conditioning({"prompt_embeds": embeds, "pooled": outs[-1][0]})

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Conditioning:
        """The conditioning of captions."""
        return self.encode(self.tokens(texts))


class Latents(Codec):
    """The VAE and the text encoders of a teacher artefact, each read when it is first needed."""

    latent = True

    def __init__(self, artifact: Artifact, device: torch.device | str = "cpu", precision: str = "no") -> None:
        self.artifact, self.device, self.precision = artifact, device, precision

    @cached_property
    def vae(self) -> Any:
        return load_vae(self.artifact, self.device, self.precision)

    @cached_property
    def rows(self) -> int | None:
        """Images that pass through the VAE together, None: as many as are asked for. Halved where they do not fit a card."""
        large = Parts(self.artifact).about["resolution"] >= LARGE
        return 1 if large and torch.device(self.device).type == "cpu" else None

    def _in_parts(self, call: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
        """call(rows) of a batch (B, …), in parts that fit."""
        while True:
            size = min(self.rows or len(batch), len(batch))
            try:
                return torch.cat([call(part) for part in batch.split(size)])
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

    def _moments(self, images: Tensor) -> Tensor:
        posterior = self.vae.encode(images.to(self.vae.device, self.vae.dtype)).latent_dist
        return torch.stack([posterior.mean.float(), posterior.std.float()], dim=1)

    def _pixels(self, latents: Tensor) -> Tensor:
        x = latents.to(self.vae.device, self.vae.dtype) / self.vae.config.scaling_factor
        return self.vae.decode(x).sample.float().clamp(-1, 1)

    @torch.no_grad()
    def encode(self, images: Tensor, draw: Draw | None) -> Tensor:
        """Scaled latents (B, c, h, w): the mode of the VAE's posterior, or a draw from it."""
        latents, std = self._in_parts(self._moments, images).unbind(1)
        if draw is not None:
            latents = latents + std * draw(latents.shape[1:]).to(latents.device)
        return (latents * self.vae.config.scaling_factor).cpu()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        pixels = self._in_parts(self._pixels, latents)
        if not bool(torch.isfinite(pixels).all()):
            raise UserError("the VAE decodes to numbers that are not finite; use evaluation.precision no or bf16")
        return pixels

    def condition(self, texts: Sequence[str], labels: Sequence[str]) -> Conditioning:
        """The captions' embeddings; labels tell SDXL nothing."""
        return self.text(texts)


load_codec = Latents
