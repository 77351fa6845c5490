"""Latents and captions: encoded once, read back by image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from directcm.config import Encode
from directcm.diffusion.teachers.codec import to_tensor
from directcm.diffusion.teachers.latent_diffusion import Latents as Codec
from directcm.diffusion.teachers.latent_diffusion import TextEncoders
from directcm.distill import encode
from directcm.distill.encode import Latents
from directcm.runtime import rng
from directcm.runtime.artifacts import open_artifact


def make(tiny: Any, out: Path, seed: int = 24, **settings: Any) -> Any:
    encode.make(
        Encode(**settings), tiny.teacher, tiny.data, seed, "cpu", "no", out.with_name(out.name + "-scratch"), out
    )
    return open_artifact(out, "latents")


def test_latents_are_draws_from_the_posterior_keyed_by_image(tiny: Any) -> None:
    rows = tiny.data.csv("images.csv")
    ids = torch.tensor([39, 0, 7, 0])
    pixels = to_tensor([Image.open(tiny.data.file(rows[i]["file_name"])) for i in ids.tolist()])
    noise = rng.normal(24, "posterior", ids.tolist(), (4, 8, 8))
    got = Latents(tiny.latents).latents(ids)
    torch.testing.assert_close(got, Codec(tiny.teacher).encode(pixels, lambda shape: noise), rtol=1e-4, atol=1e-4)
    assert torch.equal(got[1], got[3])


def test_conditioning_is_that_of_the_images_caption(tiny: Any) -> None:
    rows = tiny.data.csv("images.csv")
    ids = torch.tensor([5, 1, 5, 30])
    direct = TextEncoders.load(tiny.teacher)([rows[i]["text"] for i in ids.tolist()])
    got = Latents(tiny.latents).conditioning(ids)
    assert got.tensors.keys() == direct.tensors.keys() == {"prompt_embeds", "pooled"}
    for name, value in direct.tensors.items():
        torch.testing.assert_close(got.tensors[name], value, rtol=1e-4, atol=1e-5)


def test_artefact(tiny: Any) -> None:
    pool = Latents(tiny.latents.verify())
    rows = tiny.data.csv("images.csv")
    assert pool.shape == (4, 8, 8) and len(pool.text) == len({r["text"] for r in rows}) == 10
    assert pool.train == [int(r["id"]) for r in rows if r["split"] == "train"]
    assert [pool.text[r["text"]] for r in rows] == pool.caption.tolist()


def test_batch_and_mode(tiny: Any, tmp_path: Path) -> None:
    every = torch.arange(40)
    base = Latents(tiny.latents)
    batched = Latents(make(tiny, tmp_path / "a", batch_size=7))
    torch.testing.assert_close(batched.latents(every), base.latents(every), rtol=1e-4, atol=1e-4)
    mode, again = (Latents(make(tiny, tmp_path / n, posterior="mode", seed=s)) for n, s in (("b", 24), ("c", 25)))
    # Unit scale is what the noise process expects of the latents.
    assert float(mode.latents(torch.tensor(mode.train)).std()) == pytest.approx(1.0, rel=1e-3)
    assert torch.equal(mode.latents(every), again.latents(every))
    assert not torch.equal(mode.latents(every), base.latents(every))


def test_shards_are_read_across_their_borders(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "SHARD", 6)
    pool = Latents(make(tiny, tmp_path / "small"))
    assert (
        "latents-00006.safetensors" in pool.artifact.checksums
        and "captions-00001.safetensors" in pool.artifact.checksums
    )
    ids = torch.tensor([39, 5, 6, 0, 11, 12, 5])
    small_latents, small_cond = pool.latents(ids), pool.conditioning(ids)
    monkeypatch.undo()
    base = Latents(tiny.latents)
    torch.testing.assert_close(small_latents, base.latents(ids), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        small_cond.tensors["pooled"], base.conditioning(ids).tensors["pooled"], rtol=1e-4, atol=1e-4
    )


def test_the_same_bytes_again(tiny: Any, tmp_path: Path) -> None:
    assert make(tiny, tmp_path / "again", batch_size=16).fingerprint == tiny.latents.fingerprint
