"""The faults of tests/mutations.py are where the code is, and the script tells what is caught from what is not."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests import mutations
from tests.mutations import MUTATIONS, PLACES, Mutation, Place, faulty
from tests.runs import ROOT

SOURCE = "def half(x):\n    return x / 2\n\n\ndef ready():\n    return True\n"
TESTS = """
import pytest
from directcm.half import half, ready

@pytest.fixture
def four():
    assert ready()
    return 4

def test_half(four):
    assert half(four) == 2
"""
FAULTS = {
    "doubled": ("return x / 2", "return x * 2"),
    "whole": ("return x / 2", "return x // 2"),
    "undefined": ("return x / 2", "return x / two"),
    "not-python": ("def half(x):", "def half(x:"),
    "no-fixture": ("return True", "return False"),
    "no-end": ("return True", "import os; os._exit(0)"),
}
HUNT = """
import sys
from pathlib import Path
from tests import mutations as m

copy, logs, faults = Path(sys.argv[1]), Path(sys.argv[2]), eval(sys.argv[3])
m.PLACES = {"half": m.Place("src/directcm/half.py", ("test_half.py",))}
raise SystemExit(not m.hunt([m.Mutation(name, "half", "…", *fault) for name, fault in faults.items()], copy, logs, print))
"""


def hunt(folder: Path, tests: str, **faults: tuple[str, str]) -> subprocess.CompletedProcess[str]:
    """The script on a repository of one function and one test, in a process of its own, for it forks."""
    for path, text in (("src/directcm/__init__.py", ""), ("src/directcm/half.py", SOURCE), ("test_half.py", tests)):
        (folder / "copy" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "copy" / path).write_text(text, encoding="utf-8")
    (folder / "logs").mkdir()
    command = [sys.executable, "-c", HUNT, str(folder / "copy"), str(folder / "logs"), repr(faults)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (folder / "copy/src/directcm/half.py").read_text(encoding="utf-8") == SOURCE, "the copy is whole again"
    return done


def test_every_snippet_is_there_once_and_changes_the_code() -> None:
    assert len(MUTATIONS) == len({m.name for m in MUTATIONS}) == 35
    assert {m.place for m in MUTATIONS} == set(PLACES)
    for m in MUTATIONS:
        text = (ROOT / PLACES[m.place].path).read_text(encoding="utf-8")
        assert ast.dump(ast.parse(faulty(text, m))) != ast.dump(ast.parse(text)), f"{m.name} changes a comment"


def test_the_tests_that_are_to_catch_them_are_there() -> None:
    for place in PLACES.values():
        for test in place.tests:
            path, _, name = test.partition("::")
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert not name or name in there, f"{test} is gone; name another in tests/mutations.py"


@pytest.mark.parametrize("text", ["", "x / 2 + x / 2"])
def test_a_snippet_that_is_not_there_once_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setitem(mutations.PLACES, "half", Place("half.py", ()))
    with pytest.raises(ValueError, match=f"doubled: 'x / 2' occurs {text.count('x / 2')} times in half.py"):
        faulty(text, Mutation("doubled", "half", "…", "x / 2", "x * 2"))


@pytest.mark.slow
def test_what_is_caught_and_what_is_not(tmp_path: Path) -> None:
    done = hunt(tmp_path, TESTS, **FAULTS)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    found = {name: next(line.partition(" s  ")[2] for line in lines if line.split()[:1] == [name]) for name in FAULTS}
    assert found == {
        "doubled": "test_half.py::test_half",
        "whole": "SURVIVED",
        "undefined": "NOT FAIR: NameError in call of test_half.py::test_half",
        "not-python": "NOT FAIR: CollectError in collect of test_half.py",
        "no-fixture": "NOT FAIR: AssertionError in setup of test_half.py::test_half",
        "no-end": "NOT FAIR: it did not end, or took pytest with it",
    }
    assert lines[-1] == "1 of 6 caught"


def test_all_caught_is_a_success(tmp_path: Path) -> None:
    done = hunt(tmp_path, TESTS, doubled=FAULTS["doubled"])
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "1 of 1 caught"), done.stdout + done.stderr


def test_tests_that_fail_without_a_fault_say_nothing(tmp_path: Path) -> None:
    done = hunt(tmp_path, TESTS.replace("== 2", "== 3"), doubled=FAULTS["doubled"])
    assert done.returncode == 1 and "Nothing can be said of faults" in done.stdout and "caught" not in done.stdout


@pytest.mark.parametrize(
    ("argv", "code"), [(["--list"], 0), (["--list", "--only", "holm"], 0), (["--only", "holms"], 2)]
)
def test_what_there_is(argv: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert mutations.main(argv) == code
    said = capsys.readouterr()
    if code:
        assert said.err == "mutations: no fault is called holms; --list says which there are\n"
    else:
        assert [line.split()[0] for line in said.out.splitlines()] == [
            m.name for m in mutations.chosen(argv[2:] or None)
        ]
