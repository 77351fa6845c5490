"""Teachers that learn: small ones trained here, end to end, and the published numbers of the default one, against bars.

Digits at their own eight pixels, where a good teacher takes half a minute. What the default preset's has to reach is in tests/bars.py.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from directcm import datasets
from directcm.config import Data, Edm, Encode, Evaluation, MicroSdxl, Ode, Process, Statistics
from directcm.diffusion.teachers import edm, micro_sdxl
from directcm.distill import encode, noise
from directcm.evaluation import sampling
from directcm.evaluation.metrics.evaluate import Comparison, evaluate
from directcm.runtime.artifacts import Artifact, open_artifact
from tests import bars

ROOT = Path(__file__).parents[1]
SEED = 24
SAMPLES = 200


def test_the_published_teacher_reaches_the_bars() -> None:
    with open(ROOT / "docs/data/embedded/main/metrics.csv", newline="", encoding="utf-8") as file:
        assert bars.missed(bars.of_rows(csv.DictReader(file))) == []


def test_a_bar_is_missed_on_its_wrong_side_and_by_no_number() -> None:
    good = {"vae": bars.VAE_MSE, "prompts": bars.PROMPTS, "fd": bars.FD, "reader": bars.READER}
    assert bars.missed(good) == []
    for name, worse in (("vae", 0.0011), ("prompts", 0.994), ("fd", 0.86), ("reader", 0.96)):
        for value in (worse, math.nan):
            (line,) = bars.missed(good | {name: value})
            assert line.startswith(f"{name} = ")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("digits") / "data"
    datasets.make(Data(kind="digits", resolution=8), SEED, folder)
    return open_artifact(folder, "data")


def read(teacher: Artifact, digits: Artifact, ode: Ode, root: Path) -> SimpleNamespace:
    """How many of the teacher's guided samples read as prompted, by a classifier that reads so many of real held-out digits."""
    encode.make(Encode(), teacher, digits, SEED, "cpu", "no", root / "scratch", root / "latents")
    latents = open_artifact(root / "latents", "latents")
    noise.make(SAMPLES, "evaluation", digits, latents, SEED, root / "noise")
    start = open_artifact(root / "noise", "noise")
    settings = Evaluation(samples=SAMPLES, shards=1, block=SAMPLES, batch_size=50)
    evaluated = sampling.Evaluated(settings, teacher, latents, start, SEED, "cpu")
    sampling.sample_teacher(evaluated, ode, 0, 1, root / "scratch-samples", root / "samples")
    compared = Comparison(
        metrics=["prompt_accuracy"], row="Teacher", run=ode, statistics=Statistics(), seed=SEED, data=digits, noise=start,
        data_features={},
    )  # fmt: skip
    found = evaluate(compared, [open_artifact(root / "samples", "samples")], {}, root / "metrics", steps=ode.N)
    (metric,) = found["metrics"]
    return SimpleNamespace(prompts=metric["value"], reader=found["checks"]["prompt_accuracy_held_out"])


@pytest.mark.slow
def test_a_small_sdxl_learns_to_draw_what_it_is_told(digits: Artifact, tmp_path: Path) -> None:
    """VAE, tokenizer, text encoders, U-Net, and guided DDIM: the default's parts in a quarter of its steps."""
    settings = MicroSdxl.model_validate(
        {
            "vae": {"channels": [16, 32], "steps": 150, "batch_size": 32, "lr": 6e-3},
            "unet": {"steps": 500, "batch_size": 48, "lr": 4e-3, "ema": 0.98},
        }
    )
    micro_sdxl.make(settings, Process(), digits, SEED, tmp_path / "scratch-teacher", tmp_path / "teacher")
    teacher = open_artifact(tmp_path / "teacher", "teacher")
    assert 0.5e6 <= teacher.counts["unet_parameters"] <= 2e6
    # The digits' own variance is 0.57.
    assert teacher.counts["vae_held_out_mse"] <= 0.1
    found = read(teacher, digits, Ode(solver="ddim", N=10, w=3.0), tmp_path)
    assert found.reader >= bars.READER and found.prompts >= 0.95


@pytest.mark.slow
def test_a_small_edm_learns_to_draw_what_it_is_told(digits: Artifact, tmp_path: Path) -> None:
    """Karras's preconditioning, loss and process, and guided Heun on pixels: preset edm's parts in a quarter of its steps."""
    settings = Edm(steps=300, batch_size=64, lr=4e-3, warm_up=30, ema=0.98)
    process = Process.model_validate({"kind": "karras", "karras": {"sigma_data": 0.75}})
    edm.make(settings, process, digits, SEED, tmp_path / "scratch-teacher", tmp_path / "teacher")
    teacher = open_artifact(tmp_path / "teacher", "teacher")
    assert teacher.counts["unet_parameters"] <= 2e6
    assert teacher.counts["sigma_data_measured"] == pytest.approx(0.75, abs=0.01)
    found = read(teacher, digits, Ode(solver="heun", N=8, w=2.0), tmp_path)
    assert found.reader >= bars.READER and found.prompts >= 0.95
