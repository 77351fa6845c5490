"""What is missing is said before the first job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from directcm.cli import preflight
from directcm.config import Config, load_config, parse
from directcm.errors import UserError

ROOT = Path(__file__).parents[1]


def test_the_embedded_run_needs_nothing() -> None:
    preflight.check(Config())


def test_a_folder_that_is_there(tiny: Any) -> None:
    preflight.check(parse(Config, {"data": {"kind": "folder", "path": tiny.data_settings.path}}))


def test_a_folder_that_is_not(tmp_path: Path, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        preflight.check(parse(Config, {"data": {"kind": "folder", "path": str(tmp_path / "none")}}))
    assert "data.path" in one_line(error) and "metadata.csv" in str(error.value)


def test_labels_that_a_teacher_on_pixels_needs(tiny: Any, tmp_path: Path, one_line: Any) -> None:
    pixels = {"process": {"kind": "karras"}, "teacher": {"kind": "edm"}, "ode": {"N": 18}, "students": [{}]}
    with pytest.raises(UserError) as error:
        preflight.check(parse(Config, {**pixels, "data": {"kind": "folder", "path": tiny.data_settings.path}}))
    assert "metadata.csv" in one_line(error) and "column label" in str(error.value)
    (tmp_path / "metadata.csv").write_text("file_name,text,label\na.png,an a,a\nb.png,a b,b\n")
    few = {"metrics": ["ode_error"], "data": {"kind": "folder", "path": str(tmp_path)}}
    preflight.check(parse(Config, {**pixels, **few}))


def test_a_teacher_that_is_not(tmp_path: Path, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        preflight.check(
            parse(Config, {"teacher": {"kind": "diffusers", "diffusers": {"path": str(tmp_path / "none")}}})
        )
    assert "teacher.diffusers.path" in one_line(error)
    hub = {"id": "nobody/nothing", "revision": "c" * 40}
    with pytest.raises(UserError) as error:
        preflight.check(parse(Config, {"teacher": {"kind": "diffusers", "diffusers": hub}}))
    assert "nobody/nothing" in one_line(error)


@pytest.mark.parametrize("metric", ["fid", "fd_dino", "clip_score", "aesthetic"])
def test_weights_that_are_not(metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_line: Any) -> None:
    from directcm.config.specs import EXTRACTORS, METRICS
    from directcm.runtime import weights

    asked: list[str] = []

    def missing(name: str) -> Path:
        asked.append(name)
        raise UserError(f"{name}: not there")

    monkeypatch.setattr(weights, "weights_file", missing)
    with pytest.raises(UserError) as error:
        preflight.check(parse(Config, {"metrics": [metric]}))
    assert asked == [EXTRACTORS[METRICS[metric].extractor].weights[0]] and asked[0] in one_line(error)


def test_the_papers_preset_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, one_line: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        preflight.check(load_config(ROOT / "workflow/presets/paper.yaml"))
    assert "data/laion-aesthetics" in one_line(error)
