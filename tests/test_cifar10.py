"""CIFAR-10's binary version: bytes to PNG and back the same bytes, its own split, and what can be wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from directcm import datasets
from directcm.config import Config, Data, Edm, Encode, Process, load_config, parse
from directcm.datasets import cifar10
from directcm.diffusion.teachers import edm, load
from directcm.distill import encode
from directcm.distill.encode import Latents
from directcm.errors import UserError
from directcm.runtime.artifacts import Artifact, open_artifact
from tests.cifar10 import CLASSES, make_files, pack

ROOT = Path(__file__).parents[1]


def settings(path: Path, files: dict[str, bytes], **more: Any) -> Data:
    return Data(
        **{
            "kind": "archive",
            "layout": "cifar10",
            "path": str(path),
            "sha256": pack(files, path),
            "resolution": 32,
            **more,
        }
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, np.ndarray, np.ndarray]:
    root = tmp_path_factory.mktemp("cifar10")
    files, images, classes = make_files()
    datasets.make(settings(root / "cifar.tar.gz", files), 24, root / "data")
    return open_artifact(root / "data", "data").verify(), images, classes


def test_every_byte_comes_out_as_it_went_in(made: tuple[Artifact, np.ndarray, np.ndarray]) -> None:
    data, images, classes = made
    rows = data.csv("images.csv")
    assert len(rows) == len(images) == 24 and data.json("data.json")["labels"] == sorted(CLASSES)
    for row, image, label in zip(rows, images, classes, strict=True):
        with Image.open(data.file(row["file_name"])) as opened:
            assert opened.format == "PNG" and opened.mode == "RGB"
            # Height, width, colour in the picture; planes in the archive.
            assert np.array_equal(np.asarray(opened), np.moveaxis(image, 0, 2))
        assert row["label"] == CLASSES[label]
        article = "an" if label in (0, 1) else "a"
        assert row["text"] == f"a photo of {article} {CLASSES[label]}"


def test_the_test_batch_is_held_out_and_nothing_else(made: tuple[Artifact, np.ndarray, np.ndarray]) -> None:
    data = made[0]
    assert [r["split"] for r in data.csv("images.csv")] == ["train"] * 20 + ["held_out"] * 4
    assert data.counts == {"n": 24, "n_train": 20, "n_held_out": 4}
    assert (data.json("data.json")["n_train"], data.json("data.json")["n_held_out"]) == (20, 4)


def test_smaller_images(tmp_path: Path) -> None:
    files, images, _ = make_files(1)
    datasets.make(settings(tmp_path / "a.tar.gz", files, resolution=16), 24, tmp_path / "data")
    with Image.open(tmp_path / "data" / "images" / "00000.png") as opened:
        assert opened.size == (16, 16)
        large = Image.fromarray(np.moveaxis(images[0], 0, 2))
        assert np.array_equal(np.asarray(opened), np.asarray(large.resize((16, 16), Image.Resampling.LANCZOS)))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("batches.meta.txt", None, ["holds no batches.meta.txt", "test_batch.bin"]),
        ("batches.meta.txt", b"airplane\nbird\n", ["is of class", "batches.meta.txt names 2"]),
        ("test_batch.bin", None, ["test_batch.bin", "0 bytes", "multiple of 3073"]),
        ("test_batch.bin", b"", ["test_batch.bin", "0 bytes"]),
        ("data_batch_3.bin", b"\0" * 3072, ["data_batch_3.bin", "3072 bytes", "multiple of 3073"]),
        ("data_batch", None, ["data_batch_1.bin", "missing"]),
    ],
)
def test_what_is_wrong_is_named(
    name: str, content: bytes | None, words: list[str], tmp_path: Path, one_line: Any
) -> None:
    files = make_files()[0]
    files = {n: c for n, c in files.items() if not n.startswith(name)} | ({} if content is None else {name: content})
    with pytest.raises(UserError) as error:
        datasets.make(settings(tmp_path / "cifar.tar.gz", files), 24, tmp_path / "data")
    text = one_line(error)
    assert all(word in text for word in [str(tmp_path / "cifar.tar.gz"), *words]), text
    assert not (tmp_path / "data").exists()


def test_it_has_no_larger_images(one_line: Any) -> None:
    content = {"kind": "archive", "layout": "cifar10", "path": "x", "sha256": "0" * 64}
    assert cifar10.SIDE == 32 == parse(Data, {**content, "resolution": 32}).resolution
    with pytest.raises(UserError) as error:
        parse(Data, {**content, "resolution": 40})
    assert "resolution is 40, but data.layout cifar10 has images of 32 pixels" in one_line(error)


def test_a_teacher_learns_its_classes(made: tuple[Artifact, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    """By the preset's own settings, all but the sizes."""
    preset = load_config(ROOT / "workflow/presets/cifar10.yaml")
    small = {
        "unet": {"channels": [16, 16, 16], "attention": [1], "head_dim": 16},
        "steps": 2,
        "batch_size": 4,
        "warm_up": 2,
    }
    edm.make(
        parse(Edm, {**preset.teacher.edm.model_dump(), **small}), Process(kind="karras"), made[0], 24, tmp_path / "s", tmp_path / "t"
    )  # fmt: skip
    teacher = open_artifact(tmp_path / "t", "teacher")
    assert teacher.json("teacher.json")["classes"] == sorted(CLASSES) and load(teacher).shape == (3, 32, 32)
    encode.make(Encode(), teacher, made[0], 24, "cpu", "no", tmp_path / "e", tmp_path / "latents")
    labels = Latents(open_artifact(tmp_path / "latents", "latents"))
    import torch

    assert labels.conditioning(torch.arange(24)).tensors["label"].tolist() == [
        sorted(CLASSES).index(CLASSES[i]) for i in made[2]
    ]


def test_the_preset_has_the_published_numbers() -> None:
    c: Config = load_config(ROOT / "workflow/presets/cifar10.yaml")
    e = c.teacher.edm
    # Karras et al.: 200 M images, a warm-up of 10 M, an average with a half-life of 0.5 M.
    assert (e.batch_size, e.lr, e.dropout, e.p_mean, e.p_std) == (512, 1e-3, 0.13, -1.2, 1.2)
    assert (
        e.steps == 200e6 / 512
        and e.warm_up == int(10e6 / 512)
        and e.ema == pytest.approx(0.5 ** (512 / 0.5e6), abs=1e-6)
    )
    assert e.unet.channels == (256, 256, 256) and e.unet.layers_per_block == 4 and 32 / 2 ** e.unet.attention[0] == 16
    # Song et al.: 18 times, no target network, an average evaluated.
    runs = c.runs()
    song = {r.method for r in runs if (r.lr, r.batch_size, r.steps, r.loss) == (4e-4, 512, 800_000, "lpips")}
    assert {"cd", "ct", "cm", "direct_cm", "straight"} <= song
    assert {(r.solver, r.N) for r in runs} == {("heun", 18 - 1)}
    assert c.hparams("cd") == {"mu": 0} and c.train.ema == 0.9999
    assert c.hparams("ct") == {"s0": 2, "s1": 150, "mu0": 0.9}
    # Their ablation of the metric: CD's own, one value changed.
    assert {r.loss for r in runs if r.method == "cd" and r.lr == 4e-4} == {"lpips", "mse", "l1"}
    # Song & Dhariwal; GC's release; easy consistency tuning.
    trained = {(r.method, r.lr, r.batch_size, r.steps) for r in runs if r.lr == 1e-4}
    assert trained == {
        ("ict", 1e-4, 1024, 400_000), ("ict", 1e-4, 512, 100_000), ("gc_ict", 1e-4, 512, 100_000), ("ect", 1e-4, 128, 400_000),
    }  # fmt: skip
    assert {n: c.hparams(n)["dropout"] for n in ("ict", "gc_ict", "ect")} == {
        "ict": 0.3,
        "gc_ict": 0.3,
        "ect": 0.2,
    }
    assert c.hparams("gc_ict")["ema"] == 0.9999 and c.hparams("ict")["s1"] == 1280
    assert c.process.karras.sigma_data == 0.5 and c.train.weight_decay == 0 and c.ode.w == 1
    assert c.data.sha256 == "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
