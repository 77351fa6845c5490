"""The model card: numbers from the artefacts, text that cannot become markup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from directcm import card
from directcm.artifacts import Artifact, new_artifact, open_artifact, write_json
from directcm.card import _escape


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
    card.make(tiny.cm, tiny.teacher, tiny.data, [metrics], tmp_path / "README.md")
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
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
    again = tmp_path / "again.md"
    card.make(tiny.cm, tiny.teacher, tiny.data, [metrics], again)
    assert again.read_bytes() == (tmp_path / "README.md").read_bytes()


def test_the_front_matter_is_yaml(tiny: Any, metrics: Artifact, tmp_path: Path) -> None:
    import yaml

    card.make(tiny.direct_cm, tiny.teacher, tiny.data, [metrics], tmp_path / "README.md")
    front = yaml.safe_load((tmp_path / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert front == {
        "library_name": "diffusers",
        "license": "apache-2.0",
        "tags": ["consistency-model", "distillation", "lora"],
    }


def test_a_card_does_not_unsettle_its_student(tiny: Any, metrics: Artifact, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(tiny.cm.folder, tmp_path / "student")
    card.make(tiny.cm, tiny.teacher, tiny.data, [metrics], tmp_path / "student" / "README.md")
    assert open_artifact(tmp_path / "student", "student").verify().fingerprint == tiny.cm.fingerprint


def test_escape() -> None:
    assert _escape("a | b\n# <img src=x> [l](u) `c` *d*") == r"a \| b \# \<img src=x\> \[l\]\(u\) \`c\` \*d\*"
