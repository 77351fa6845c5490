"""A metric, a data set and a teacher are one file each: help, schema, plan and results find them by themselves."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from directcm.runtime.artifacts import open_artifact
from tests.runs import copy_repository, make_run, planned

METRIC = '''"""Contrast: the standard deviation of an image's grey levels."""

import numpy as np

METRICS = {
    "contrast": {
        "title": "contrast",
        "better": "higher",
        "references": ("none",),
        "takes": ("images",),
        "function": "contrast",
        "per_sample": True,
    }
}


def contrast(images):
    """Standard deviations (n,) of images in [0, 255]."""
    return np.array([np.asarray(image, dtype=np.float64).std() for image in images])
'''
DATA_SET = '''"""Stripes across and down."""

import numpy as np
from PIL import Image

from directcm.datasets import Item

DATA_SET = {"about": "stripes of a width", "images": 160, "labels": True}
SETTINGS = {"width": (2, "width of a stripe, pixels")}
RANGES = "1 <= width <= 8"


def items(settings):
    """Black stripes on grey levels of their own."""

    def draw(i):
        stripes = np.indices((settings.resolution,) * 2)[i % 2] // settings.stripes.width % 2
        image = Image.fromarray((stripes * (60 + i)).astype(np.uint8)).convert("RGB")
        return Item(image, f"stripes {'across' if i % 2 == 0 else 'down'}", str(i % 2))

    return 160, map(draw, range(160))
'''
TEACHER = '''"""The exact score of Gaussians around the mean image of each class."""

import torch

from directcm.runtime.artifacts import new_artifact, save_tensors, write_json
from directcm.config import PixelUnet
from directcm.diffusion.teachers.mixture import COMPONENTS
from directcm.diffusion.teachers.pixel_diffusion import classes_of, make_unet, read_images

KIND = {
    "about": "Gaussians around the classes' means",
    "title": "Gaussians around the classes' means",
    "loader": "mixture",
    "processes": ("karras",),
    "latent": False,
    "learns": False,
}
SETTINGS = {"scale": (0.5, "standard deviation of each")}
RANGES = "0 < scale"


def make(settings, process, data, seed, scratch, out):
    """Write a component for each class, and a network for students to start from."""
    pixels, label = read_images(data)
    classes = classes_of(data)
    means = torch.stack([pixels[label == i].mean(0) for i in range(len(classes))])
    unet = make_unet(PixelUnet(channels=(16, 16)), pixels.shape[-1], len(classes))
    about = {"kind": "averages", **settings.model_dump(mode="json")}
    with new_artifact(out, "teacher", settings=about, inputs={"data": data}) as art:
        scales = torch.full((len(means),), settings.scale, dtype=torch.float64)
        save_tensors(art / COMPONENTS, {"means": means, "scales": scales, "labels": torch.arange(len(means))})
        unet.save_pretrained(art / "unet", safe_serialization=True)
        said = {"loader": "mixture", "process": process.model_dump(mode="json"), "classes": classes}
        write_json(art / "teacher.json", said)
'''
OVERLAY = """preset: own
data: {kind: stripes, stripes: {width: 4}}
teacher: {kind: averages, averages: {scale: 0.25}}
evaluation: {samples: 96}
metrics: [ode_error, fd_tiny, prompt_accuracy, contrast]
"""


@pytest.mark.slow
@pytest.mark.pipeline
def test_a_metric_a_data_set_and_a_teacher_are_one_file_each(tmp_path, digit_data, digit_noise, make_samples):
    folder = copy_repository(tmp_path / "copy")
    for path, text in (
        ("evaluation/metrics/contrast", METRIC),
        ("datasets/stripes", DATA_SET),
        ("diffusion/teachers/averages", TEACHER),
    ):
        (folder / f"src/directcm/{path}.py").write_text(text)
    (folder / "own.yaml").write_text(OVERLAY)
    run = make_run(folder)

    assert "'contrast'" in run("directcm", "evaluate", "--metrics", "brightness").stderr
    assert "averages" in run("directcm", "teacher", "--help").stdout
    run("directcm", "schema", "--out", "page.md")
    page = (folder / "page.md").read_text(encoding="utf-8")
    assert "| `data.stripes.width` | int | `2` | width of a stripe, pixels |" in page
    assert "| `teacher.averages.scale` | float | `0.5` | standard deviation of each |" in page
    assert "; stripes: stripes of a width |" in page and "; averages: Gaussians around the classes' means |" in page

    done = run("snakemake", "-n", "-p", "--configfile", "workflow/presets/smoke_edm.yaml", "own.yaml")
    assert done.returncode == 0, done.stderr
    jobs = planned(done.stdout + done.stderr)
    assert jobs["data"] == jobs["teacher"] == 1 and jobs["evaluate"] >= 4
    commands = [
        shlex.split(line[line.index("directcm") :]) for line in done.stdout.splitlines() if "command: directcm" in line
    ]
    first = {words[1]: words for words in reversed(commands)}
    assert "--classes" in first["data"] and "averages" in first["teacher"]
    assert all("contrast" in words for words in commands if words[1] == "evaluate")

    # The planned commands as they stand.
    made = run(*first["data"])
    assert made.returncode == 0, made.stderr
    data = open_artifact(folder / "results/own/data", "data")
    assert data.settings["stripes"] == {"width": 4} and data.json("data.json")["labels"] == ["0", "1"]
    made = run(*first["teacher"])
    assert made.returncode == 0, made.stderr
    teacher = open_artifact(folder / "results/own/teacher", "teacher")
    assert teacher.settings["scale"] == 0.25
    assert teacher.arrays("components.safetensors")["means"].shape == (2, 3, 16, 16)
    at = first["data"].index("--settings") + 1
    wide = json.dumps({**json.loads(first["data"][at]), "stripes": {"width": 9}})
    refused = run(*first["data"][:at], wide, *first["data"][at + 1 :])
    assert refused.returncode == 2 and "stripes: width = 9, expected 1 ≤ width ≤ 8" in refused.stderr

    samples = make_samples("declared", 1, 20.0)[0]
    words = ["evaluate", "--settings", '{"bootstrap": 100}', "--metrics", "contrast", "--row", "Teacher", "--run"]
    words += ['{"solver": "euler", "N": 10, "w": 1}', "--steps", "10", "--data", str(digit_data.folder)]
    words += ["--noise", str(digit_noise.folder), "--samples", str(samples.folder), "--seed", "3"]
    made = run("directcm", *words, "--out", str(tmp_path / "metrics"))
    assert made.returncode == 0, made.stderr
    values = _contrasts(samples.folder)
    (entry,) = open_artifact(tmp_path / "metrics", "metrics").json("metrics.json")["metrics"]
    assert (entry["metric"], entry["reference"], entry["n"]) == ("contrast", "none", 60)
    assert entry["value"] == pytest.approx(np.mean(values)) and entry["low"] < entry["value"] < entry["high"]


def _contrasts(folder: Path) -> list[float]:
    from PIL import Image

    return [float(np.asarray(Image.open(path), dtype=float).std()) for path in sorted(folder.glob("images/*.png"))]
