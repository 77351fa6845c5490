"""Figures of many methods: none hidden under another, bars that end where values can, differences from a base, extra students."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from matplotlib.colors import to_hex
from scipy import stats

from directcm.analysis.data import tidy
from directcm.analysis.figures import (
    figure_budget,
    figure_compute,
    figure_curves,
    figure_frontier,
    figure_results,
    figure_training,
    style,
)
from directcm.runtime.artifacts import read_csv, write_csv
from tests.analysis.tidy_tables import MAIN, METRIC_COLUMNS, STUDENT_COLUMNS, alike, outputs, spy

SEEDS = (0, 1, 2)
STEPS = (64, 128, 256)
SETTING = MAIN.at(steps=256)
NAMES = {"cm": "CM", "direct_cm": "Direct CM", "ct": "CT", "ict": "iCT", "gc_ct": "GC (CT)", "gc_ict": "GC (iCT)"}


def measured(method: str, seed: int, step: int, metric: str) -> float:
    """GC (CT) is 0.1·(1 + seed) below CT, whatever the step; iCT has one seed that ran away at the end."""
    level = {"cm": 1.0, "direct_cm": 0.5, "ct": 20.0, "ict": 30.0, "gc_ct": 20.0, "gc_ict": 31.0}[method] + 2.0 * seed
    level -= 0.1 * (1 + seed) if method == "gc_ct" else 0.0
    level += 400.0 if (method, seed, step) == ("ict", 2, 256) else 0.0
    return level if metric == "fd_tiny" else {"ode_error": level / 100, "kid_tiny": level / 10 - 0.28}[metric]


def metrics(path: Path, **extra: int) -> Path:
    """metrics.csv of all methods along training; `extra`: method → steps of a further finished student, seed 0."""
    rows: list[dict[str, Any]] = []
    pairs = (("ode_error", "teacher"), ("fd_tiny", "teacher"), ("fd_tiny", "data"), ("kid_tiny", "teacher"))
    for method, row in NAMES.items():
        runs = [(SETTING, seed, step) for seed in SEEDS for step in STEPS]
        runs += [(SETTING.at(steps=extra[method], pool=512), 0, extra[method])] if method in extra else []
        for setting, seed, step in runs:
            rows += [
                {
                    "row": row, "method": method, **setting.spelled, "seed": seed, "step": step, "sampling_steps": 1, "metric": m,
                    "reference": r, "value": measured(method, seed, step, m), "n": 1024,
                }
                for m, r in pairs
            ]  # fmt: skip
    write_csv(path, rows, METRIC_COLUMNS)
    return path


def marks(axes: Any, color: str) -> list[tuple[float, float]]:
    """Where marks of a colour's edge stand."""
    found = [c for c in axes.collections if len(c.get_offsets()) and to_hex(c.get_edgecolor()[0]) == color]
    return [(float(x), float(y)) for c in found for x, y in c.get_offsets()]


@pytest.mark.slow
def test_marks_stand_side_by_side_and_bases_show_under_what_is_built_over_them(tmp_path, monkeypatch):
    saved = spy(monkeypatch)
    for name in "ab":
        figure_budget.draw(metrics(tmp_path / "m.csv"), SETTING, *outputs(tmp_path, name))
    assert alike(tmp_path, "a", "b")
    axes = saved[0].axes[0]
    at = {n: [x for x, _ in marks(axes, style.LOOKS[n].color)] for n in NAMES.values()}
    assert all(len(xs) == len(STEPS) for xs in at.values())
    for place, step in enumerate(STEPS):
        own = sorted(xs[place] for xs in at.values())
        assert all(b / a > 1.02 for a, b in itertools.pairwise(own))
        assert own[0] < step < own[-1] and own[-1] / own[0] < 2**0.5
    # The table has the steps as they are.
    assert {r["step"] for r in read_csv(tmp_path / "a.csv") if r["step"]} == {str(s) for s in STEPS}
    lines = {to_hex(line.get_color()): line for line in axes.lines if len(line.get_xdata()) == len(STEPS)}
    base, over = lines[style.LOOKS["CT"].color], lines[style.LOOKS["GC (CT)"].color]
    assert base.get_linewidth() > 2 * over.get_linewidth() and base.get_zorder() < over.get_zorder()


def test_bars_end_where_values_can_and_leave_a_logarithmic_axis_with_a_head(tmp_path, monkeypatch):
    saved = spy(monkeypatch)
    figure_budget.draw(metrics(tmp_path / "m.csv"), SETTING, *outputs(tmp_path, "f"))
    ode, fd = saved[0].axes[:2]
    for axes in (ode, fd):
        bars = [line.get_ydata() for line in axes.lines if len(line.get_xdata()) == 2]
        assert all(min(y) >= 0 for y in bars)
        # iCT's sd is larger than its mean: 30, 32, 434.
        heads = [line for line in axes.lines if line.get_marker() == "v" and line.get_transform() != axes.transData]
        assert axes.get_yscale() == "log" and [to_hex(h.get_color()) for h in heads] == [style.LOOKS["iCT"].color]


@pytest.mark.slow
def test_differences_from_a_base_are_paired_by_seed(tmp_path, monkeypatch):
    saved = spy(monkeypatch)
    figure_training.draw(metrics(tmp_path / "m.csv"), SETTING, *outputs(tmp_path, "f"))
    rows = [r for r in read_csv(tmp_path / "f.csv") if r["base"]]
    assert {(r["row"], r["base"]) for r in rows} == {("GC (CT)", "CT"), ("GC (iCT)", "iCT")}
    assert {"GC (CT) − CT", "GC (iCT) − iCT"} <= set(saved[0].words)
    own = [r for r in rows if r["row"] == "GC (CT)" and r["n_seeds"]]
    assert [r["step"] for r in own] == [str(s) for s in STEPS]
    # −0.1, −0.2, −0.3: sd 0.1, though the values differ by 2 from seed to seed.
    half = stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    for r in own:
        found = [float(r[name]) for name in ("value", "sd", "low", "high")]
        assert found == pytest.approx([-0.2, 0.1, -0.2 - half, -0.2 + half])
    each = [float(r["value"]) for r in rows if r["row"] == "GC (CT)" and r["step"] == "64" and r["seed"]]
    assert each == pytest.approx([-0.1, -0.2, -0.3])


@pytest.mark.slow
def test_students_of_other_steps_stand_beside_the_lines(tmp_path, monkeypatch):
    saved = spy(monkeypatch)
    m = metrics(tmp_path / "m.csv", ct=512, direct_cm=325)
    rows = []
    for method in NAMES:
        runs = [(SETTING, seed, step) for seed in SEEDS for step in STEPS]
        runs += [(SETTING.at(steps=s, pool=512), 0, s) for n, s in (("ct", 512), ("direct_cm", 325)) if n == method]
        for setting, seed, step in runs:
            rows.append(
                {
                    "method": method, **setting.spelled, "seed": seed, "step": step, "student_forwards": 2 * step,
                    "student_backwards": step, "teacher_forwards": 0, "target_forwards": 100 if method == "direct_cm" else 0,
                }
            )  # fmt: skip
    write_csv(tmp_path / "s.csv", rows, STUDENT_COLUMNS)
    figure_compute.draw(m, tmp_path / "s.csv", SETTING, *outputs(tmp_path, "f"))
    drawn = [r for r in read_csv(tmp_path / "f.csv") if r["step"] in ("512", "325") and r["n_seeds"]]
    found = {(r["row"], r["metric"]): (float(r["x"]), float(r["value"]), r["n_seeds"]) for r in drawn}
    assert found["CT", "fd_tiny"] == (4 * 512, 20.0, "1") and found["Direct CM", "fd_tiny"] == (4 * 325 + 100, 0.5, "1")
    assert "another number of steps (1 seed)" in saved[0].words
    # Students of the lines' own steps are no marks beside them.
    figure_compute.draw(metrics(tmp_path / "n.csv"), tmp_path / "s.csv", SETTING, *outputs(tmp_path, "g"))
    assert not any("another number" in word for word in saved[1].words)


@pytest.mark.slow
def test_the_frontier_tells_steps_by_size_and_shows_values_around_0(tmp_path, monkeypatch):
    saved = spy(monkeypatch)
    figure_frontier.draw(metrics(tmp_path / "m.csv"), SETTING, *outputs(tmp_path, "f"))
    assert {f"after {step} steps" for step in STEPS} <= set(saved[0].words)
    panels = {axes.get_title("left"): axes for axes in saved[0].axes}
    assert panels["FD-tiny to teacher ↓"].get_yscale() == "log"
    # KID-tiny: −0.03 beside 17.
    kid = panels["KID-tiny to teacher ↓"]
    low, high = kid.get_ylim()
    assert kid.get_yscale() == "symlog" and low < -0.03 and high > 14
    sizes = sorted({round(float(c.get_sizes()[0]), 6) for c in kid.collections if len(c.get_offsets())})
    assert len(sizes) == 2 * len(STEPS)


def test_results_cut_bars_and_mark_those_that_leave(tmp_path, monkeypatch):
    saved = spy(monkeypatch)
    rows = [
        {"row": row, "steps": 1, "metric": metric, "reference": "teacher", "mean": mean, "sd": sd, "n_seeds": 3, "n_samples": 9}
        for metric, values in (
            ("ode_error", {"CM": (0.2, 0.1), "CT": (0.3, 0.4)}),
            ("fd_tiny", {"CM": (0.5, 0.1), "CT": (40.0, 50.0)}),
            ("kid_tiny", {"CM": (-0.02, 0.01), "Direct CM": (0.03, 0.01), "CT": (2.4, 1.0)}),
        )
        for row, (mean, sd) in values.items()
    ]  # fmt: skip
    write_csv(
        tmp_path / "t.csv", [{c: r.get(c) for c in figure_results.COLUMNS} for r in rows], list(figure_results.COLUMNS)
    )
    figure_results.draw(tmp_path / "t.csv", *outputs(tmp_path, "f"))
    panels = {axes.get_xlabel().split("\n")[0]: axes for axes in saved[0].axes}
    ode, fd, kid = panels["ODE error"], panels["FD-tiny to teacher"], panels["KID-tiny to teacher"]
    assert [axes.get_xscale() for axes in (ode, fd, kid)] == ["linear", "log", "symlog"]
    ends = [segment[:, 0] for c in ode.collections for segment in c.get_segments()]
    assert [tuple(e) for e in ends] == [pytest.approx((0.1, 0.3)), pytest.approx((0.0, 0.7))]
    heads = [[line for line in axes.lines if line.get_marker() == "<"] for axes in (ode, fd, kid)]
    assert [len(h) for h in heads] == [0, 1, 0] and to_hex(heads[1][0].get_color()) == style.LOOKS["CT"].color


def test_curves_of_a_method_and_its_base_are_told_apart(make, tmp_path, monkeypatch):
    saved = spy(monkeypatch)
    curves = [figure_curves.read_curve(row, 0, make.curve(row, 60, 0.1, 0)) for row in NAMES.values()]
    figure_curves.plot(curves, *outputs(tmp_path, "f"))
    lines = {line.get_label().removesuffix(" (1 seed)"): line for line in saved[0].axes[0].lines}
    assert set(lines) >= set(NAMES.values())
    for over, base in (("GC (CT)", "CT"), ("GC (iCT)", "iCT")):
        assert (
            lines[base].get_zorder() < lines[over].get_zorder()
            and lines[base].get_linewidth() > lines[over].get_linewidth()
        )
        assert to_hex(lines[over].get_markerfacecolor()) == "#ffffff" != to_hex(lines[base].get_markerfacecolor())
    # No two methods have their marks at the same steps.
    first = [lines[n].get_markevery()[0] for n in NAMES.values()]
    assert len(set(first)) == len(first)


def test_bases_by_name_and_paired_differences():
    assert tidy.base("GC (CT)") == "CT" and tidy.base("GC (iCT)") == "iCT"
    assert tidy.base("CT") is tidy.base("Direct CM (trajectory)") is tidy.base("Direct CM, then CM") is None
    assert tidy.layered(["CM", "GC (iCT)", "iCT"]) == ["CM", "iCT", "GC (iCT)"]
    a = [tidy.Point(1, 0, 0, {0: 5.0, 1: 7.0, 3: 1.0}), tidy.Point(2, 0, 0, {0: 1.0}), tidy.Point(3, 0, 0, {0: 1.0})]
    b = [tidy.Point(1, 0, 0, {0: 4.0, 1: 4.0, 2: 9.0}), tidy.Point(2, 0, 0, {0: 3.0})]
    (one, low, high), (two, *none) = tidy.paired(a, b)
    half = stats.t.ppf(0.975, 1) * math.sqrt(2) / math.sqrt(2)
    assert one.values == {0: 1.0, 1: 3.0} and (one.mean, low, high) == pytest.approx((2, 2 - half, 2 + half))
    assert two.mean == -2 and all(map(math.isnan, none))
