"""The simulation of the tests' size: that it runs, what it simulates, and that its summary is what was found."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from directcm.statistics.frechet import frechet_infinite
from tests.runs import ROOT

FOUND = ROOT / "benchmarks/inference.csv"


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("simulated_inference", ROOT / "benchmarks/inference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_quick(
    simulation: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every kind in every design and world, as with --quick, here in one process and with fewer permutations."""
    monkeypatch.setattr(simulation, "PERMUTATIONS", 19)
    monkeypatch.setattr(simulation, "PAIRS", 6)

    class Here:
        def __init__(self, jobs: int) -> None: ...

        def __enter__(self) -> Here:
            return self

        def __exit__(self, *_: object) -> None: ...

        map = staticmethod(map)

    monkeypatch.setattr(simulation, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(sys, "argv", ["inference.py", "--quick", "--csv", str(tmp_path / "found.csv")])
    simulation.main()
    with (tmp_path / "found.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert {(r["design"], r["world"], r["kind"]) for r in lines} == {
        (d, w, k) for d in simulation.DESIGNS for w in simulation.WORLDS for k in simulation.KINDS
    }
    assert all(0 <= float(r[name]) <= 1 for r in lines for name in ("size", "coverage"))
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(simulation.KINDS) * len(simulation.DESIGNS)


def test_the_worlds_are_what_they_say(simulation: ModuleType) -> None:
    for design, (units, teachers) in simulation.DESIGNS.items():
        sets = [simulation.features(design, "near", run) for run in range(60)]
        a, b, reference = (np.array(x) for x in zip(*sets, strict=True))
        assert a.shape[1:] == b.shape[1:] == (units, simulation.PROMPTS, simulation.DIM)
        assert reference.ndim == (4 if teachers else 3)
        if not teachers:
            # One distribution for all three, and prompts that all share: half of the variance.
            assert [x.var() for x in (a, b, reference)] == pytest.approx([1] * 3, abs=0.05)
            assert np.mean(a[:, 0] * b[:, -1]) == pytest.approx(0.5, abs=0.04)
            assert np.mean(a[:, 0] * reference) == pytest.approx(0.5, abs=0.04)
    a, b, _ = (
        np.array(x) for x in zip(*(simulation.features("5 seeds", "apart", run) for run in range(100)), strict=True)
    )
    assert np.mean(a - b) == pytest.approx(0.15, abs=0.04)


def test_fd_infinite_is_the_metric(simulation: ModuleType) -> None:
    a, b, reference = simulation.features("3 seeds", "both", 0)
    found = simulation.fd_infinite([*a, *b], reference, 5)
    expected = [frechet_infinite(x, reference, 5).value for x in (*a, *b)]
    assert np.ptp(np.array(expected) - found) < 1e-12


def test_the_summary_is_what_was_found(simulation: ModuleType) -> None:
    """The table of docs/statistics.md is that of the CSV; every size and coverage is within what docs/statistics.md says of it."""
    with FOUND.open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    text = simulation.DOCS.read_text(encoding="utf-8")
    before, after = simulation.MARKS
    assert text.partition(before)[2].partition(after)[0].strip() == simulation.table(lines)
