"""Matched compute: what a network evaluation is, with and without the targets."""

from __future__ import annotations

import math

import pytest

from directcm.analysis.figures import figure_compute
from directcm.errors import UserError
from directcm.runtime.artifacts import read_csv
from tests.analysis import tidy_tables as tables
from tests.analysis.tidy_tables import MAIN, SNAPSHOTS, alike, outputs, spy


def test_cost_by_hand():
    student = {
        "student_forwards": "20", "student_backwards": "10", "teacher_forwards": "7", "target_forwards": "500", "seconds": "3",
        "target_seconds": "",
    }  # fmt: skip
    assert figure_compute.cost(student, "evaluations", targets=False) == 20 + 7 + 2 * 10
    assert figure_compute.cost(student, "evaluations", targets=True) == 20 + 7 + 2 * 10 + 500
    assert figure_compute.cost(student, "seconds", targets=False) == 3
    assert math.isnan(figure_compute.cost(student, "seconds", targets=True))


@pytest.mark.slow
def test_three_lines_in_both_columns(tmp_path, monkeypatch):
    m, s = tables.metrics(tmp_path / "m.csv"), tables.students(tmp_path / "s.csv")
    saved = spy(monkeypatch)
    for name in "ab":
        figure_compute.draw(m, s, MAIN, *outputs(tmp_path, name))
    assert alike(tmp_path, "a", "b")
    rows = [r for r in read_csv(tmp_path / "a.csv") if r["metric"] == "fd_tiny" and r["cost"] and not r["seed"]]
    lines = {(r["cost"], r["line"]) for r in rows}
    names = {"CM", "Direct CM, targets included", "Direct CM, targets excluded"}
    assert lines == {(c, n) for c in ("evaluations", "seconds") for n in names}
    for r in rows:
        pairs, step = int(r["step"]) * 16, int(r["step"])
        cm, included = r["row"] == "CM", r["line"].endswith("included")
        if r["cost"] == "evaluations":
            # CM: 2 student forwards, 2 guided teacher forwards, 1 backward; Direct CM: 1 forward, 1 backward, 50 for a target.
            expected = pairs * ((2 + 2 + 2) if cm else (1 + 2 + 50 * included))
        else:
            seconds = [step * (0.12 if cm else 0.05) * (1 + 0.02 * s) for s in range(3)]
            expected = sum(seconds) / 3 + (0.018 * pairs if included and not cm else 0)
        assert float(r["x"]) == pytest.approx(expected), r
    assert sorted({int(r["step"]) for r in rows}) == list(SNAPSHOTS)
    assert len(saved[0].axes) == 6 and all(a.get_xscale() == "log" for a in saved[0].axes)
    assert any("a backward as 2 forwards" in word for word in saved[0].words)


@pytest.mark.slow
def test_without_recorded_times_one_column_is_left(tmp_path, monkeypatch):
    m, s = tables.metrics(tmp_path / "m.csv"), tables.students(tmp_path / "s.csv", seconds=False)
    saved = spy(monkeypatch)
    figure_compute.draw(m, s, MAIN, *outputs(tmp_path, "f"))
    assert {r["cost"] for r in read_csv(tmp_path / "f.csv")} == {"evaluations", ""}
    assert len(saved[0].axes) == 3


def test_no_snapshots_or_other_students_are_errors(tmp_path):
    m = tables.metrics(tmp_path / "m.csv", [(MAIN, [0], [250])])
    s = tables.students(tmp_path / "s.csv")
    with pytest.raises(UserError, match=r"key students of config.yaml"):
        figure_compute.draw(m, s, MAIN, *outputs(tmp_path, "f"))
    m = tables.metrics(tmp_path / "m.csv")
    s = tables.students(tmp_path / "s.csv", [(MAIN.at(lr=0.5), [0], [250])])
    with pytest.raises(UserError, match="has no cost of the students"):
        figure_compute.draw(m, s, MAIN, *outputs(tmp_path, "f"))
