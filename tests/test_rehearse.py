"""The rehearsal: what it lays over every preset, the rates it takes from what jobs say of themselves, and its stand-ins."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from directcm.analysis.data.selection import main_runs
from directcm.analysis.pages.provenance import read_record
from directcm.cli import plan, rehearse
from directcm.config import Config, load_config, parse, paths
from directcm.config.specs import DATA_SETS, TEACHERS
from directcm.errors import UserError
from directcm.runtime.artifacts import new_artifact, read_json, sha256, write_json
from directcm.runtime.progress import Progress

ROOT = Path(__file__).parents[1]
PRESETS = sorted((ROOT / "workflow/presets").glob("*.yaml"))
BASE = ROOT / "config.yaml"


def laid_over(preset: Path, size: str, own: bool, folder: Path) -> tuple[Config, Config, dict[str, Any]]:
    config = load_config(BASE, preset)
    laid = rehearse.overlay(config, size, folder, own)
    (folder / "overlay.yaml").write_text(json.dumps(laid))
    return config, load_config(BASE, preset, folder / "overlay.yaml"), laid


@pytest.mark.parametrize("size", rehearse.SIZES)
@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_every_preset_can_be_rehearsed(preset: Path, size: str, tmp_path: Path) -> None:
    config, small, laid = laid_over(preset, size, False, tmp_path)
    before, after = main_runs(config), main_runs(small)
    # The same students of the main comparison, and those alone, in another place.
    assert sorted((r.method, r.seed) for r in after) == sorted((r.method, r.seed) for r in before)
    assert len(small.runs()) == len(after)
    assert small.preset == f"rehearsal-{config.preset}-{size}"
    assert small.metrics == config.metrics and small.extractor_names() == config.extractor_names()
    assert {r.adapter for r in after} == {r.adapter for r in before} and {r.lr for r in after} == {r.lr for r in before}
    assert all(r.steps == rehearse.STEPS and r.N <= 10 for r in after)
    if size == "full":
        assert {r.batch_size for r in after} == {r.batch_size for r in before}
        assert small.data.resolution == config.data.resolution
        assert small.train.precision == config.train.precision
    # Nothing outside the rehearsal's folder is read.
    if DATA_SETS[small.data.kind].lies_in:
        assert small.data.path == str(tmp_path / "images")
    if TEACHERS[small.teacher.kind].pinned:
        assert small.teacher.diffusers.path == str(tmp_path / "pipeline") and small.teacher.diffusers.id is None
    # Images enough: those that are left for training are as many as the samples.
    if not small.data.embedded:
        count = rehearse.images_needed(laid, small.encode.batch_size)
        assert count * (1 - small.data.held_out) >= small.evaluation.samples


def test_what_is_in_place_is_used(tmp_path: Path) -> None:
    config, small, _ = laid_over(ROOT / "workflow/presets/paper.yaml", "full", True, tmp_path)
    assert small.teacher == config.teacher and small.data == config.data and small.ode.N == 10


def test_stand_in_images(tmp_path: Path) -> None:
    texts = rehearse.stand_in_images(tmp_path / "images", 10, 16)
    with open(tmp_path / "images/metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10 and {row["text"] for row in rows} == set(texts)
    # As teachers on pixels ask: one label a caption.
    assert len({(row["text"], row["label"]) for row in rows}) == len(texts) == 8
    assert len({sha256(path) for path in (tmp_path / "images").glob("*.png")}) == 10
    rehearse.stand_in_images(tmp_path / "again", 10, 16)
    assert all(sha256(path) == sha256(tmp_path / "again" / path.name) for path in (tmp_path / "images").iterdir())


def counted(name: str, unit: str, count: int, per_second: float) -> dict[str, Any]:
    return {"name": name, "unit": unit, "count": count, "seconds": count / per_second, "per_second": per_second}


@pytest.fixture
def made(tmp_path: Path) -> tuple[Config, Path]:
    """A rehearsal's artefacts with a provenance that is given."""
    lines = [{"method": ["cm", "direct_cm"], "seed": [0, 1]}]
    config = parse(Config, {"students": lines, "ode": {"N": 10, "w": 3}, "train": {"pool": 32, "steps": 2}})
    runs = main_runs(config)
    first, second = (run for run in runs if run.method == "cm")
    targets = next(folder for folder in paths.artefacts(config, runs, "main") if folder.startswith("targets/"))
    ode = config.ode.axes()
    about: dict[str, tuple[str, dict[str, Any], list[dict[str, Any]], float]] = {
        "latents": ("latents", {}, [counted("encode: images", "image", 40, 20.0)], 5.0),
        targets: ("targets", ode, [counted("targets: shard 0", "ODE step", 100, 50.0)], 4.0),
        f"students/{first.key}": ("student", {}, [counted("train: cm seed 0", "step", 2, 1.0)], 10.0),
        f"students/{second.key}": ("student", {}, [counted("train: cm seed 1", "step", 2, 0.5)], 16.0),
    }
    for folder, (kind, settings, work, seconds) in about.items():
        with new_artifact(tmp_path / folder, kind, settings=settings):
            pass
        beside = tmp_path / folder / "provenance.json"
        write_json(
            beside,
            {
                **read_json(beside),
                "counted": work,
                "log": f"{folder}.log",
                "seconds": seconds,
                "gpu": "A",
                "gpu_gib": 80.0,
                "gpu_peak_gib": seconds,
            },
        )
    return config, tmp_path


def test_rates_by_hand(made: tuple[Config, Path]) -> None:
    config, results = made
    runs = main_runs(config)
    rates = rehearse.rates_of(config, runs, rehearse._records(config, runs, results))
    # 100 steps of DDIM with guidance are 200 rows, in two seconds.
    assert rates["teacher"].per_second == pytest.approx(100.0)
    assert rates["encode"].per_second == pytest.approx(20.0)
    # Two steps of 16 pairs in 2 s, and two in 4 s.
    assert rates["cm"].per_second == pytest.approx(64 / 6) and rates["cm"].jobs == 2
    # 5 − 2, 4 − 2, and the median of 10 − 2 and 16 − 4.
    assert [1 / rates[plan.start_of(kind)].per_second for kind in ("latents", "targets", "students")] == pytest.approx(
        [3, 2, 10]
    )
    assert "direct_cm" not in rates


def test_rates_are_read_by_the_plan(made: tuple[Config, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, results = made
    runs = main_runs(config)
    records = rehearse._records(config, runs, results)
    rates = rehearse.rates_of(config, runs, records)
    monkeypatch.chdir(tmp_path)
    rehearse.write_rates(config, config, records, rates, "full")
    rehearse.write_rates(config, config, records, rates, "full")
    found = plan.rates_for(config, [plan.RATES, plan.REHEARSED])
    assert found == {"A": pytest.approx({what: rate.per_second for what, rate in rates.items()}, rel=1e-3)}
    # Small networks are another teacher's: no plan may take their rates.
    rehearse.write_rates(config, config, records, rates, "small")
    assert plan.rates_for(config, [plan.REHEARSED]) == found
    assert len(plan.read_rates(plan.REHEARSED)) == 2 * len(rates)


def test_whether_it_fits(made: tuple[Config, Path]) -> None:
    config, results = made
    records = rehearse._records(config, main_runs(config), results)
    assert rehearse._fits(records.values()) == ["It fits A: at most 16.0 of 80.0 GiB, in train."]
    text = rehearse.table(
        config, config, records, rehearse.rates_of(config, main_runs(config), records), results, "full"
    )
    line = next(line for line in text.splitlines() if line.startswith("train")).split()
    assert line[1] == "2" and line[2:4] == ["26.0", "13.0"] and line[5] == "16.0" and "10.7 pairs/s cm" in text


def test_a_progress_counts_what_it_did_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 5.0, 7.0, 9.0])
    monkeypatch.setattr("directcm.runtime.progress.time.monotonic", lambda: next(clock))
    progress = Progress("p", 20, "row")
    progress.skip(8)
    for _ in range(3):
        progress.update(4)
    assert progress.done == 20
    # The first update took 5 seconds, those after it two each.
    assert progress.record() == {"name": "p", "unit": "row", "count": 12, "seconds": 9.0, "per_second": 2.0}


def test_an_artefact_says_what_its_process_counted(tmp_path: Path) -> None:
    progress = Progress("something long", 3, "row")
    progress.update(2)
    progress.update(1)
    with new_artifact(tmp_path / "a", "x", settings={}):
        pass
    made = read_record(tmp_path / "a").provenance["counted"]
    assert [one["count"] for one in made if one["name"] == "something long"] == [3]


def test_the_overlay_is_yaml(tmp_path: Path) -> None:
    *_, laid = laid_over(ROOT / "workflow/presets/paper.yaml", "small", False, tmp_path)
    assert yaml.safe_load((tmp_path / "overlay.yaml").read_text()) == laid


def test_a_stage_that_fails_is_one_line_and_writes_no_rates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_line: Any
) -> None:
    """What Snakemake is given: the overlay last, stand-ins for all that is missing, and the user's own flags."""
    monkeypatch.chdir(tmp_path)
    called: dict[str, Any] = {}

    def run(words: list[str], env: dict[str, str]) -> Any:
        called.update(words=words, env=env)
        return SimpleNamespace(returncode=1)

    monkeypatch.setattr(rehearse.subprocess, "run", run)
    fewer = tmp_path / "fewer.yaml"
    fewer.write_text("metrics: [ode_error, fd_dino, clip_score]\nextractors: {clip_tiny: null}\nfurther_metrics: []\n")
    with pytest.raises(UserError, match="Snakemake ended with 1") as error:
        rehearse.rehearse([BASE, ROOT / "workflow/presets/paper.yaml", fewer], "small", False, ["--cores", "2"])
    one_line(error)
    folder = tmp_path / "rehearsals/paper-small"
    assert called["words"][-3:] == [str(folder / "overlay.yaml"), "--cores", "2"]
    assert called["env"]["DIRECTCM_WEIGHTS"] == str(folder / "weights")
    assert set(read_json(folder / "weights/stand-ins.json")) == {"dinov2_vitl14_pretrain.pth", "ViT-L-14.pt"}
    assert (folder / "pipeline/model_index.json").is_file() and (folder / "images/metadata.csv").is_file()
    assert not plan.REHEARSED.exists()
