"""The teachers that are trained here: as good as the documentation says, after half of their U-Net's steps already."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from directcm.config import Config, parse, read_yaml
from tests.runs import copy_repository, make_run

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]


def sampled(folder: Path, config: Config, ode: str, *overlays: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the teacher's counts, the metrics of its samples) under a preset.

    Half of the steps, which ask for more than the whole of them; a quarter of the samples tell 0.97 from 0.999 just as well.
    """
    goal = f"results/{config.preset}/metrics/teacher/{ode}/manifest.json"
    own: dict[str, Any] = {"unet": {"steps": config.teacher.micro_sdxl.unet.steps // 2}}
    if config.teacher.kind == "edm":
        own = {"steps": config.teacher.edm.steps // 2}
    fewer: dict[str, Any] = {"evaluation": {"samples": 256, "block": 128}, "teacher": {config.teacher.kind: own}}
    # What needs an extractor is left out: its own reading of digits is tested where it is (tests/metrics/test_clip_tiny.py).
    fewer |= {"metrics": ["ode_error", "prompt_accuracy"], "search": None}
    (folder / "fewer.yaml").write_text(yaml.safe_dump(fewer))
    # One thread: two that wait for one another beside the other worker's jobs take several times as long.
    start = ("snakemake", "--cores", "1", "--configfile", *overlays, "fewer.yaml")
    done = make_run(folder)(*start, "--", goal)
    assert done.returncode == 0, done.stderr[-4000:]
    counts = json.loads((folder / f"results/{config.preset}/teacher/manifest.json").read_text())["counts"]
    return counts, json.loads((folder / goal).with_name("metrics.json").read_text())


def reads_as_prompted(metrics: dict[str, Any]) -> float:
    """The share of samples that read as the prompted digit, by a classifier that reads real held-out digits."""
    assert metrics["checks"]["prompt_accuracy_held_out"] >= 0.97
    return {(m["metric"], m["reference"]): m["value"] for m in metrics["metrics"]}["prompt_accuracy", "prompt"]


def test_the_embedded_teacher_is_as_good_as_promised(tmp_path: Path) -> None:
    folder = copy_repository(tmp_path / "copy")
    counts, metrics = sampled(folder, parse(Config, {}), "solver~ddim,N~50,w~3")
    assert counts["vae_held_out_mse"] <= 1e-3
    assert 0.5e6 <= counts["unet_parameters"] <= 2e6
    # Guided samples (w = 3, N = 50, DDIM).
    assert reads_as_prompted(metrics) >= 0.97


def test_the_teacher_on_pixels_is_as_good_as_promised(tmp_path: Path) -> None:
    """Guided samples (w = 2, 16 intervals of Heun)."""
    preset = "workflow/presets/edm.yaml"
    folder = copy_repository(tmp_path / "copy")
    config = parse(Config, read_yaml(folder / preset))
    counts, metrics = sampled(folder, config, "solver~heun,N~16,w~2", preset)
    assert counts["unet_parameters"] <= 2e6
    # The preset's σ_data is the digits' own.
    assert counts["sigma_data_measured"] == pytest.approx(0.7, abs=0.01)
    assert reads_as_prompted(metrics) >= 0.97
