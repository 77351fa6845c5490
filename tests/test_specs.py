"""Metrics, extractors, distances, data sets and teachers declare themselves: a file is all it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from directcm.config import specs
from directcm.config.specs import (
    DATA_SETS,
    DISTANCES,
    EXTRACTORS,
    LAYOUTS,
    METRICS,
    TEACHERS,
    DataSet,
    Metric,
    declared,
)

SHARED = 'SHARED = {"better": "lower", "references": ("teacher",), "function": "gap"}\n'
GOOD = (
    SHARED
    + 'METRICS = {\n    "gap": {"title": "gap", "takes": ("image", "reference.image"), "extractor": "clip_tiny"},\n}\n'
)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(specs, "PACKAGE", tmp_path)
    return tmp_path


def test_every_declared_thing_is_there() -> None:
    """What the literals name, without importing them: files, functions and classes."""
    for spec in (*METRICS.values(), *DISTANCES.values()):
        path = specs.PACKAGE / f"{spec.module.replace('.', '/')}.py"
        assert f"\ndef {spec.function}(" in path.read_text(encoding="utf-8"), spec.name
    for extractor in EXTRACTORS.values():
        text = (specs.PACKAGE / f"{extractor.module.replace('.', '/')}.py").read_text(encoding="utf-8")
        assert f"\nclass {extractor.made_by}(" in text, extractor.name
    for name, spec in (*DATA_SETS.items(), *LAYOUTS.items()):
        text = (specs.PACKAGE / f"datasets/{name}.py").read_text(encoding="utf-8")
        assert spec.module == f"datasets.{name}" and "\ndef items(" in text
        hooks = ("files", "ready") if getattr(spec, "lies_in", "") else ()
        assert all(f"\ndef {hook}(" in text for hook in hooks), name
    for name, kind in TEACHERS.items():
        text = (specs.PACKAGE / f"diffusion/teachers/{name}.py").read_text(encoding="utf-8")
        assert all(f"\ndef {hook}(" in text for hook in ("make", *(("locate", "content") if kind.pinned else ()))), name
        assert (specs.PACKAGE / f"diffusion/teachers/{kind.loader}.py").is_file()


def test_the_order_is_by_rank_then_by_name(package: Path) -> None:
    for name, text in (
        ("b", '{"about": "b"}'),
        ("a", '{"about": "a"}'),
        ("z", '{\n    "about": "z",\n    "rank": 1,\n}'),
    ):
        (package / f"{name}.py").write_text(f'"""A data set."""\n\nDATA_SET = {text}\n\nimport nothing_that_is_there\n')
    assert list(declared(DataSet, "*.py", "DATA_SET", one=True)) == ["z", "a", "b"]


def test_what_holds_for_all_of_a_module(package: Path) -> None:
    (package / "new.py").write_text(f"import numpy\n\n{GOOD}\nOTHER = 1\n")
    found = declared(Metric, "*.py", "METRICS")["gap"]
    assert (found.module, found.better, found.function, found.rank) == ("new", "lower", "gap", 100)


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        ('"title": "gap", ', "", "no gap as METRICS are: .*'title'"),
        ('"title"', '"tile"', "no gap as METRICS are: .*'tile'"),
        ('"lower"', '"less"', "better is 'less', expected lower, higher or neither"),
        ('("teacher",)', '("others",)', "references are .*, expected some of teacher, other_noise, data"),
        ('"clip_tiny"', '"clip"', "extractor is 'clip', expected one of clip_tiny"),
        ('"reference.image"', '"reference.sound"', "takes is .*, expected some of"),
        ('"title": "gap"', '"title": str(7)', "by something that is not a plain value"),
    ],
)
def test_what_a_file_says_wrongly(package: Path, old: str, new: str, wrong: str) -> None:
    assert old in GOOD
    (package / "broken.py").write_text("\n" + GOOD.replace(old, new))
    with pytest.raises(ValueError, match=f"broken.py declares .*{wrong}"):
        declared(Metric, "*.py", "METRICS")


@pytest.mark.parametrize(
    ("own", "wrong"),
    [
        ('SETTINGS = {"width": 2}', "SETTINGS has width = 2, expected"),
        ('SETTINGS = {"width": (2, "pixels")}\nRANGES = "3 <= width"', "RANGES has 3 <= width, expected"),
        ('SETTINGS = {"width": (2, "pixels")}\nRANGES = "1 <= height"', "RANGES has 1 <= height, expected"),
        ('SETTINGS = {"width": (2, "pixels")}\nRANGES = "width"', "'width' is not a comparison"),
    ],
)
def test_settings_that_are_none(package: Path, own: str, wrong: str) -> None:
    (package / "new.py").write_text(f'DATA_SET = {{"about": "new"}}\n{own}\n')
    with pytest.raises(ValueError, match=f"new.py declares no new as DATA_SET are: {wrong}"):
        declared(DataSet, "*.py", "DATA_SET", one=True)


def test_two_files_of_one_name(package: Path) -> None:
    for name in ("one", "two"):
        (package / f"{name}.py").write_text("\n" + GOOD)
    with pytest.raises(ValueError, match=r"two\.py declares gap, as another module does"):
        declared(Metric, "*.py", "METRICS")
