"""The pipeline of random weights: SDXL's sizes, and files that are pinned, loaded and drawn from like the real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from directcm.config import Diffusers, Process
from directcm.diffusion.teachers import diffusers, load, load_codec
from directcm.diffusion.teachers.stand_in import FULL, SMALL, make_text_encoders, make_unet, make_vae, save_pipeline
from directcm.runtime.artifacts import open_artifact


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_full_is_as_large_as_sdxl() -> None:
    """The numbers of parameters of SDXL base 1.0's files."""
    with torch.device("meta"):
        unet, vae = make_unet(FULL, 1024), make_vae(FULL, 1024)
        first, second = make_text_encoders(FULL, 49406, 49407)
    assert count(unet) == 2_567_463_684
    assert count(vae) == 83_653_863
    assert count(first) == 123_060_480
    assert count(second) == 694_659_840
    assert unet.config.sample_size == 128


@pytest.mark.slow
def test_small_is_pinned_loaded_and_drawn_from(tmp_path: Path) -> None:
    from diffusers import StableDiffusionXLPipeline

    texts = ["a red square", "a blue circle"]
    save_pipeline(tmp_path / "pipeline", SMALL, 64, texts, "cpu")
    settings = Diffusers(path=str(tmp_path / "pipeline"))
    diffusers.pin(settings, Process(), 64, tmp_path / "teacher")
    artifact = open_artifact(tmp_path / "teacher", "teacher")
    teacher, codec = load(artifact), load_codec(artifact)
    assert teacher.shape == (4, 8, 8)
    cond = codec.condition(texts, ["", ""])
    with torch.no_grad():
        x0 = teacher.predict(torch.randn(2, 4, 8, 8), torch.tensor([999.0, 500.0]), cond, 5.0).x0
    assert bool(torch.isfinite(x0).all())
    assert codec.decode(x0).shape == (2, 3, 64, 64)
    pipeline = StableDiffusionXLPipeline.from_pretrained(tmp_path / "pipeline", local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    (image,) = pipeline(texts[0], num_inference_steps=2, height=64, width=64).images
    assert image.size == (64, 64)
