"""The embedded teacher: a StableDiffusionXLPipeline of about a million parameters, trained here.

Same classes, same conditioning, same noise schedule as SDXL base 1.0; only the sizes differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from directcm.config import MicroSdxl, MicroText, Process
from directcm.diffusion.processes import VariancePreserving, expand
from directcm.diffusion.teachers import Conditioning
from directcm.diffusion.teachers.codec import read_pixels
from directcm.diffusion.teachers.latent_diffusion import LatentDiffusion, TextEncoders
from directcm.runtime import rng
from directcm.runtime.artifacts import Artifact, new_artifact, write_csv, write_json
from directcm.runtime.loop import CURVE, Job, cosine, fit, make_accelerator, put
from directcm.runtime.sources import digest

KIND = {
    "rank": 1,
    "title": "small SDXL trained here",
    "about": "trained here",
    "loader": "latent_diffusion",
    "processes": ("vp",),
    "latent": True,
    "learns": True,
}

LATENT_CHANNELS = 4
BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def make_tokenizer(texts: list[str], settings: MicroText) -> Any:
    """A CLIPTokenizer whose byte-level BPE is learnt from the captions; any text can be encoded."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    bpe = Tokenizer(models.BPE(unk_token=EOS, end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    # Both forms of every byte, inside and at the end of a word, so that nothing is out of vocabulary.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary - 256 - 2,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        special_tokens=[],
        show_progress=False,
    )
    bpe.train_from_iterator(sorted(set(texts)), trainer)
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    made = [left + right for left, right in merges]
    tokens = list(dict.fromkeys([*alphabet, *(letter + "</w>" for letter in alphabet), *made]))
    tokens = [*tokens[: settings.vocabulary - 2], BOS, EOS]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=[(left, right) for left, right in merges if {left, right, left + right} <= vocabulary.keys()],
        bos_token=BOS,
        eos_token=EOS,
        unk_token=EOS,
        pad_token=EOS,
        model_max_length=settings.length,
    )


def make_text_encoders(settings: MicroText, vocabulary: int, bos: int, eos: int) -> tuple[Any, Any]:
    """SDXL's pair: a CLIPTextModel and a CLIPTextModelWithProjection, the second twice as wide."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    def config(width: int, act: str) -> Any:
        return CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=2 * width,
            projection_dim=width,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            max_position_embeddings=settings.length,
            bos_token_id=bos,
            eos_token_id=eos,
            pad_token_id=eos,
            hidden_act=act,
        )

    # SDXL's first encoder uses quick_gelu, its second gelu.
    return (
        CLIPTextModel(config(settings.width, "quick_gelu")),
        CLIPTextModelWithProjection(config(2 * settings.width, "gelu")),
    )


def make_unet(settings: MicroSdxl, side: int) -> Any:
    """A UNet2DConditionModel with text-time conditioning; cross-attention below full resolution, as in SDXL."""
    from diffusers import UNet2DConditionModel

    u, text = settings.unet, settings.text
    time_ids = 32
    cross = ["CrossAttnDownBlock2D"] * max(1, len(u.channels) - 1)
    down = ["DownBlock2D", *cross] if len(u.channels) > 1 else cross
    return UNet2DConditionModel(
        sample_size=side,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=tuple(down),
        up_block_types=tuple(block.replace("Down", "Up") for block in reversed(down)),
        block_out_channels=u.channels,
        layers_per_block=u.layers_per_block,
        attention_head_dim=tuple(max(1, c // u.head_dim) for c in u.channels),
        cross_attention_dim=3 * text.width,
        norm_num_groups=16,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=time_ids,
        projection_class_embeddings_input_dim=2 * text.width + 6 * time_ids,
    )


def posteriors(vae: Any, images: Tensor) -> list[Any]:
    """The VAE's distributions of the latents of images (n, 3, H, W), 256 images each."""
    return [vae.encode(some.to(vae.device)).latent_dist for some in images.split(256)]


def train_vae(
    images: Tensor, held_out: Tensor, settings: MicroSdxl, seed: int, scratch: Path, key: Mapping[str, Any]
) -> tuple[Any, list[dict[str, float]], float]:
    """An AutoencoderKL on MSE + KL; returns it, its curve, and its MSE in [−1, 1] on held-out images.

    `key`, with its settings, says whose checkpoints it may resume from.
    """
    from diffusers import AutoencoderKL

    v = settings.vae
    rng.seed_torch(seed, "vae_init")
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(v.channels),
        up_block_types=("UpDecoderBlock2D",) * len(v.channels),
        block_out_channels=v.channels,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        # Four channels a group, as in SDXL's VAE at full resolution: a group of one would normalise the level of each away.
        norm_num_groups=v.channels[0] // 4,
        sample_size=images.shape[-1],
    )
    side = images.shape[-1] // v.factor

    def loss(step: int, rows: np.ndarray) -> Tensor:
        x = images[rng.stream(seed, "vae_batch", int(rows[0]), len(rows), len(images))].to(accelerator.device)
        noise = rng.normal(seed, "vae_noise", rows.tolist(), (LATENT_CHANNELS, side, side)).to(x.device)
        posterior = vae.encode(x).latent_dist
        out = vae.decode(posterior.mean + posterior.std * noise).sample
        return ((out - x) ** 2).mean(dim=(1, 2, 3)) + v.kl_weight * posterior.kl()

    accelerator = make_accelerator()
    vae.to(accelerator.device)
    curve = fit(
        Job(
            "teacher: vae",
            {"vae": vae},
            loss,
            v.steps,
            v.batch_size,
            cosine(v.lr, v.steps, 50),
            grad_clip=1.0,
            scratch=scratch / "vae",
            key={**key, "settings": v.model_dump(mode="json")},
        ),
        accelerator,
    ).curve
    vae.eval().requires_grad_(False)
    with torch.no_grad():
        scale = torch.cat([found.mean for found in posteriors(vae, images)]).std()
        vae.register_to_config(scaling_factor=float(1 / scale))
        errors = [
            ((vae.decode(found.mean).sample.cpu() - some) ** 2).mean(dim=(1, 2, 3))
            for found, some in zip(posteriors(vae, held_out), held_out.split(256), strict=True)
        ]
    return vae, curve, float(torch.cat(errors).mean())


def min_snr(process: VariancePreserving, t: Tensor, gamma: float) -> Tensor:
    """The weights min(SNR, γ)/SNR (B,) of the ε loss at times (B,), SNR = α²/σ² (Hang et al. 2303.09556, Min-SNR-γ)."""
    snr = (process.alpha(t) / process.sigma(t)) ** 2
    return snr.clamp(max=gamma) / snr


def make(settings: MicroSdxl, process: Process, data: Artifact, seed: int, scratch: Path, out: Path) -> None:
    """Train VAE, text encoders and U-Net, and save them as a StableDiffusionXLPipeline folder.

    U-Net and text encoders learn the ε loss together, E w(t)‖ε − ε̂(x_t, t, c)‖² with t uniform and a share of the captions
    replaced by ∅ (zeros, as SDXL's pipeline has it); what is saved is their exponential moving average. w = min(SNR, γ)/SNR
    with SNR = α²/σ² (Hang et al. 2303.09556, Min-SNR-γ). A batch's times are spread evenly: row i of B has t uniform in the i-th
    of B parts (the low-discrepancy sampler of Kingma et al. 2107.00630), so that its loss varies less.
    """
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline

    key = {"code": digest("diffusion.teachers.micro_sdxl"), "seed": seed, "data": data.fingerprint}
    rows = data.csv("images.csv")
    pixels = read_pixels(data, rows)
    train = [i for i, r in enumerate(rows) if r["split"] == "train"]
    held = [i for i, r in enumerate(rows) if r["split"] == "held_out"]
    texts = [rows[i]["text"] for i in train]
    resolution = data.json("data.json")["resolution"]

    vae, vae_curve, vae_error = train_vae(pixels[train], pixels[held], settings, seed, scratch, key)

    with torch.no_grad():
        found = posteriors(vae, pixels[train])
        mean = torch.cat([p.mean for p in found]) * vae.config.scaling_factor
        std = torch.cat([p.std for p in found]) * vae.config.scaling_factor
    shape = tuple(mean.shape[1:])

    tokenizer = make_tokenizer(texts, settings.text)
    rng.seed_torch(seed, "unet_init")
    first, second = make_text_encoders(settings.text, len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    unet = make_unet(settings, shape[-1])
    schedule = VariancePreserving.scaled_linear(steps=process.timesteps, time_input=process.time_input)
    accelerator = make_accelerator()
    modules = {"unet": unet, "text_encoder": first, "text_encoder_2": second}
    for module in modules.values():
        module.to(accelerator.device)
    teacher = LatentDiffusion(unet, schedule, resolution)
    encoders = TextEncoders((first, second), (tokenizer, tokenizer))
    unique = sorted(set(texts))
    tokens = encoders.tokens(unique)
    caption = torch.tensor([unique.index(t) for t in texts])
    u = settings.unet

    def loss(step: int, positions: np.ndarray) -> Tensor:
        device = accelerator.device
        pick = torch.from_numpy(rng.stream(seed, "teacher_batch", int(positions[0]), len(positions), len(mean)))
        # One draw per position feeds time, noise and dropout: one generator each is the cost that matters here.
        noise = rng.normal(seed, "teacher_noise", positions.tolist(), (2, *shape)).to(device)
        mine = positions - step * u.batch_size
        draws = rng.generator(seed, "teacher_draws", step).random((u.batch_size, 2))[mine]
        spread = (mine + draws[:, 0]) / u.batch_size
        t = torch.from_numpy(np.floor(spread * process.timesteps) + 1).to(device)
        eps = noise[:, 0]
        x0 = mean[pick].to(device) + std[pick].to(device) * noise[:, 1]
        used, back = caption[pick].unique(return_inverse=True)
        cond = encoders.encode([ids[used] for ids in tokens]).rows(back.to(device))
        keep = torch.from_numpy(draws[:, 1] >= u.caption_dropout).to(device)
        cond = Conditioning({k: expand(keep, v) * v for k, v in cond.tensors.items()})
        losses = ((teacher.noise(schedule.diffuse(x0, eps, t), t, cond) - eps) ** 2).mean(dim=(1, 2, 3))
        return losses if u.snr_gamma is None else min_snr(schedule, t, u.snr_gamma).to(losses) * losses

    fitted = fit(
        Job(
            "teacher: unet",
            modules,
            loss,
            u.steps,
            u.batch_size,
            cosine(u.lr, u.steps, 50),
            weight_decay=0.0,
            grad_clip=1.0,
            ema=u.ema,
            scratch=scratch / "unet",
            key={**key, "settings": settings.model_dump(mode="json"), "process": process.model_dump()},
        ),
        accelerator,
    )
    put(modules, fitted.ema)
    for module in modules.values():
        module.eval()
    pipeline = StableDiffusionXLPipeline(
        vae=vae.cpu(),
        text_encoder=first.cpu(),
        text_encoder_2=second.cpu(),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet.cpu(),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
        scheduler=DDIMScheduler(
            num_train_timesteps=process.timesteps,
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=True,
            steps_offset=1,
            timestep_spacing="trailing",
        ),
    )
    about = {"kind": "micro_sdxl", **settings.model_dump(mode="json"), "process": process.model_dump(), "seed": seed}
    with new_artifact(out, "teacher", settings=about, inputs={"data": data}) as art:
        pipeline.save_pretrained(art.path, safe_serialization=True)
        write_json(
            art / "teacher.json",
            {
                "loader": "latent_diffusion",
                "pinned": False,
                "variant": None,
                "time_input": process.time_input,
                "resolution": resolution,
            },
        )
        write_csv(art / "vae_curve.csv", vae_curve, CURVE)
        write_csv(art / "curve.csv", fitted.curve, CURVE)
        art.counts = {
            "unet_parameters": unet.num_parameters(),
            "vae_parameters": vae.num_parameters(),
            "vae_held_out_mse": vae_error,
        }
