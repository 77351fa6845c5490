"""The model card: numbers from the artefacts, text that cannot become markup."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from directcm.analysis.pages.cards import _escape, card, cards
from directcm.runtime.artifacts import (
    Artifact,
    new_artifact,
    new_collection,
    open_artifact,
    read_csv,
    sha256,
    write_json,
)


@pytest.fixture
def metrics(tmp_path: Path) -> Artifact:
    rows = [
        {
            "metric": "ode_error",
            "reference": "teacher",
            "value": 0.123456,
            "low": 0.1,
            "high": 0.15,
            "n": 6,
            "n_reference": None,
            "dim": None,
            "flags": [],
        },
        {
            "metric": "fd_tiny",
            "reference": "data",
            "value": 41.0,
            "low": None,
            "high": None,
            "n": 6,
            "n_reference": 6,
            "dim": 64,
            "flags": [],
        },
    ]
    with new_artifact(tmp_path / "metrics", "metrics", settings={}) as art:
        write_json(
            art / "metrics.json", {"row": "CM", "step": 250, "steps": 1, "run": {}, "metrics": rows, "fingerprints": {}}
        )
    return open_artifact(tmp_path / "metrics", "metrics")


def test_card(tiny: Any, metrics: Artifact, tmp_path: Path) -> None:
    text = card(tiny.cm, tiny.teacher, tiny.data, [metrics])
    for part in (
        "# CM, one step, seed 0",
        "CM; DDIM, N = 5, w = 3; loss mse",
        "4 steps of 4, AdamW, lr 0.001, weight decay 0.01",
        "16 drawn, 16 distinct",
        tiny.data.fingerprint[:16],
        tiny.teacher.fingerprint[:16],
        f"{tiny.cm.counts['trainable_parameters']:,} trained",
        "load_lora_weights",
        "| 250 | 1 | ODE error | teacher | 0.1235 | 0.1000 to 0.1500 | 6 |",
        "| 250 | 1 | FD-tiny | data | 41.000 |  | 6 |",
    ):
        assert part in text, part
    assert text.startswith("---\n") and "lora]" in text and f"{32} training images" in text
    assert card(tiny.cm, tiny.teacher, tiny.data, [metrics]) == text


def test_the_front_matter_is_yaml(tiny: Any, metrics: Artifact) -> None:
    import yaml

    front = yaml.safe_load(card(tiny.direct_cm, tiny.teacher, tiny.data, [metrics]).split("---")[1])
    assert front == {
        "library_name": "diffusers",
        "license": "apache-2.0",
        "tags": ["consistency-model", "distillation", "lora"],
    }


def test_cards_go_into_the_students_folders_and_unsettle_none(tiny: Any, metrics: Artifact, tmp_path: Path) -> None:
    results = tmp_path / "results"
    for artifact, folder in ((tiny.data, "data"), (tiny.teacher, "teacher")):
        shutil.copytree(artifact.folder, results / folder)
    runs = [artifact.run for artifact in (tiny.cm, tiny.direct_cm)]
    for artifact, run in zip((tiny.cm, tiny.direct_cm), runs, strict=True):
        shutil.copytree(artifact.folder, results / "students" / run.key)
        part = results / "metrics/students" / run.key / "step~4,steps~1"
        shutil.copytree(metrics.folder, part)
        new_collection(part.parent, "metrics", [part.name], settings={})
    out = results / "cards/main.csv"
    assert cards(results, runs, out) == 2
    listed = read_csv(out)
    assert [row["student"] for row in listed] == [run.key for run in runs]
    for row, artifact in zip(listed, (tiny.cm, tiny.direct_cm), strict=True):
        file = results / "students" / row["student"] / "README.md"
        assert file.read_text(encoding="utf-8") == card(artifact, tiny.teacher, tiny.data, [metrics])
        assert sha256(file) == row["sha256"]
        assert open_artifact(file.parent, "student").verify().fingerprint == artifact.fingerprint
    before = [file.stat().st_mtime_ns for file in sorted(results.glob("students/*/README.md"))]
    cards(results, runs, out)
    assert [file.stat().st_mtime_ns for file in sorted(results.glob("students/*/README.md"))] == before


def test_escape() -> None:
    assert _escape("a | b\n# <img src=x> [l](u) `c` *d*") == r"a \| b \# \<img src=x\> \[l\]\(u\) \`c\` \*d\*"
