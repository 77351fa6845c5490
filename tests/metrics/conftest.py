"""Small data, noise and sample artefacts of the contract, written with the project's own writer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from directcm.runtime import rng
from directcm.runtime.artifacts import Artifact, new_artifact, open_artifact, save_tensors, write_csv, write_json

SIDE = 8


def digits(side: int) -> tuple[list[Image.Image], list[str]]:
    """scikit-learn's digits as RGB images of a side, and their labels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    images = [Image.fromarray(g).resize((side, side), Image.Resampling.BICUBIC).convert("RGB") for g in grey]
    return images, [str(label) for label in bunch.target]


def write_data(
    folder: Path, images: Sequence[Image.Image], texts: Sequence[str], labels: Sequence[str], held_out: int
) -> Artifact:
    """A data artefact whose last `held_out` images are held out."""
    n = len(images)
    with new_artifact(folder, "data", settings={"kind": "test"}) as art:
        rows = []
        for i, image in enumerate(images):
            name = f"images/{i:05d}.png"
            image.save(art / name)
            split = "held_out" if i >= n - held_out else "train"
            rows.append({"id": i, "file_name": name, "text": texts[i], "label": labels[i], "split": split})
        write_csv(art / "images.csv", rows, ["id", "file_name", "text", "label", "split"])
        content = {"name": "test", "resolution": images[0].size[0], "n_train": n - held_out, "n_held_out": held_out}
        write_json(art / "data.json", content)
    return open_artifact(folder, "data")


def write_noise(folder: Path, data: Artifact, n: int, seed: int = 0, first: int = 0) -> Artifact:
    """A noise artefact of n rows over the training images, in order from image `first`, cycling."""
    train = [row for row in data.csv("images.csv") if row["split"] == "train"]
    with new_artifact(folder, "noise", settings={"samples": n}, inputs={"data": data}) as art:
        save_tensors(art / "noise.safetensors", {"noise": rng.normal(seed, "noise", range(n), (4, 2, 2))})
        rows = [
            {
                "row": i,
                "id": train[(first + i) % len(train)]["id"],
                "text": train[(first + i) % len(train)]["text"],
                "label": train[(first + i) % len(train)]["label"],
            }
            for i in range(n)
        ]
        write_csv(art / "prompts.csv", rows, ["row", "id", "text", "label"])
    return open_artifact(folder, "noise")


def write_samples(
    folder: Path,
    noise: Artifact,
    rows: Sequence[int],
    latents: np.ndarray,
    images: Sequence[Image.Image],
    **settings: Any,
) -> Artifact:
    """One shard of samples."""
    with new_artifact(folder, "samples", settings={"name": folder.name, **settings}, inputs={"noise": noise}) as art:
        tensors = {
            "latents": torch.from_numpy(latents.astype(np.float32)),
            "rows": torch.tensor(list(rows), dtype=torch.int64),
        }
        save_tensors(art / "latents.safetensors", tensors)
        for row, image in zip(rows, images, strict=True):
            image.save(art / f"images/{row:05d}.png")
    return open_artifact(folder, "samples")


def noisy(images: Sequence[Image.Image], seed: int, amount: float) -> list[Image.Image]:
    """Images with Gaussian noise of a standard deviation in grey levels."""
    out = []
    for i, image in enumerate(images):
        array = np.asarray(image) + amount * rng.generator(seed, "noisy", i).standard_normal(np.asarray(image).shape)
        out.append(Image.fromarray(np.clip(np.round(array), 0, 255).astype(np.uint8)))
    return out


@pytest.fixture(scope="session")
def build() -> SimpleNamespace:
    """The writers above (a fixture, because several conftest.py cannot be imported by name)."""
    return SimpleNamespace(digits=digits, data=write_data, noise=write_noise, samples=write_samples, noisy=noisy)


@pytest.fixture(scope="session")
def digit_data(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The first 400 digits at 8 × 8, captioned, 80 held out."""
    images, labels = digits(SIDE)
    texts = [f"digit {label}" for label in labels[:400]]
    return write_data(tmp_path_factory.mktemp("digits") / "data", images[:400], texts, labels[:400], 80)


@pytest.fixture(scope="session")
def digit_noise(tmp_path_factory: pytest.TempPathFactory, digit_data: Artifact) -> Artifact:
    """60 evaluation rows."""
    return write_noise(tmp_path_factory.mktemp("noise") / "noise", digit_data, 60)


@pytest.fixture(scope="session")
def make_samples(
    tmp_path_factory: pytest.TempPathFactory, digit_data: Artifact, digit_noise: Artifact
) -> Callable[..., list[Artifact]]:
    """A sample set: the prompts' own images plus noise of `amount` grey levels, in `shards` shards."""

    def make(
        name: str, seed: int, amount: float, shards: int = 1, noise: Artifact = digit_noise, **settings: Any
    ) -> list[Artifact]:
        prompts = noise.csv("prompts.csv")
        clean = [Image.open(digit_data.file(f"images/{int(p['id']):05d}.png")).convert("RGB") for p in prompts]
        images = noisy(clean, seed, amount)
        latents = np.stack([rng.generator(seed, "latents", i).standard_normal((4, 2, 2)) for i in range(len(prompts))])
        folder = tmp_path_factory.mktemp(name)
        out = []
        for s in range(shards):
            rows = list(range(s, len(prompts), shards))
            shown = [images[r] for r in rows]
            out.append(write_samples(folder / f"shard{s}", noise, rows, latents[rows], shown, **settings))
        return out

    return make
