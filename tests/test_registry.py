"""Methods declare themselves: a file is all it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from directcm import registry
from directcm.registry import Declared, declared, methods

GOOD = 'LABEL = "New"\nTEACHER, TARGETS, FORWARDS = True, "", 3\n'


def test_the_papers_two() -> None:
    found = methods()
    assert list(found)[:2] == ["cm", "direct_cm"]
    # CM evaluates both ends of a teacher's step; Direct CM regresses onto solved endpoints.
    assert found["cm"] == Declared("CM", True, "", 2)
    assert found["direct_cm"] == Declared("Direct CM", False, "forward", 1)
    assert len({method.label for method in found.values()}) == len(found)


def test_every_file_is_a_method() -> None:
    files = {path.stem for path in registry.FOLDER.glob("*.py")} - {"__init__"}
    assert set(methods()) == files


def test_a_new_file_is_a_new_method(tmp_path: Path) -> None:
    for name in ("zeta", "cm", "alpha", "_private"):
        (tmp_path / f"{name}.py").write_text(GOOD)
    assert list(methods(tmp_path)) == ["cm", "alpha", "zeta"]
    assert methods(tmp_path)["zeta"] == Declared("New", True, "", 3)


def test_what_may_be_left_out(tmp_path: Path) -> None:
    more = 'PROCESSES = ("karras",)\nHALVES = True\nSETTINGS = {"mu": 0.9, "s0": 2}\n'
    (tmp_path / "new.py").write_text(GOOD + more)
    assert declared(tmp_path / "new.py") == Declared("New", True, "", 3, ("karras",), True, {"mu": 0.9, "s0": 2})


@pytest.mark.parametrize(
    ("old", "new", "missing"),
    [
        ('LABEL = "New"\n', "", "LABEL = text"),
        ('"New"', "7", "LABEL = text"),
        ('True, "", 3', "True, 0, 3", "TARGETS"),
        ('True, "", 3', 'True, "backward", 3', "TARGETS"),
        ('True, "", 3', 'True, "", True', "FORWARDS = a number"),
        ('True, "", 3', 'len([]), "", 3', "TEACHER = True or False"),
        ("3\n", '3\nPROCESSES = ("ve",)\n', "PROCESSES"),
        ("3\n", '3\nSETTINGS = {"mu": True}\n', "SETTINGS = numbers by name"),
        ("3\n", "3\nHALVES = 1\n", "HALVES"),
    ],
)
def test_what_a_file_does_not_say(tmp_path: Path, old: str, new: str, missing: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ValueError, match=f"broken.py declares no {missing}"):
        declared(path)
