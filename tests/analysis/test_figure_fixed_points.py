"""The fixed points drawn: geometric means of what the tables say, and where they speak of an inversion."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from matplotlib.colors import to_rgb
from scipy import stats

from directcm.analysis.figures import figure_fixed_points, style
from directcm.errors import UserError
from directcm.runtime.artifacts import Artifact, new_artifact, open_artifact, read_csv, write_csv
from tests.analysis.tidy_tables import alike, outputs, spy

CELL = ["process", "dimension", "class", "m"]
MEASURES = ["ode_error", "sw2_teacher", "sw2_matched"]


def value(m: int, k: int, seed: int, tau: float = math.inf) -> float:
    return (1 + 1 / m + 0.1 * k) * (1.1 if seed else 1 / 1.1) * (1 if math.isinf(tau) else 2 - tau / 100)


def artefact(folder: Path, classes: tuple[str, ...] = ("plain", "shared"), flow: bool = True) -> Artifact:
    """Two processes, three m, three k, two seeds that lie 10 % on either side of their mean."""
    fixed: list[dict[str, Any]] = []
    moving: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    for process, kind, m in itertools.product(("vp", "karras"), classes, (8, 16, 32)):
        place = {"process": process, "dimension": 2, "class": kind, "m": m}
        for k, seed in itertools.product((1, 5, 50), (0, 1)):
            # The class that is not drawn has other values.
            own = value(m, k, seed) * (1 if kind == "shared" else 7)
            fixed.append({**place, "k": k, "seed": seed, **dict.fromkeys(MEASURES, own)})
            for tau in (0.0, 1.0, 10.0, 100.0) if flow and m != 32 else ():
                # k = 5 of m = 16 has grown beyond numbers at the end.
                grown = (m, k, seed, tau) == (16, 5, 1, 100.0)
                own = value(m, k, seed, tau)
                moving.append(
                    {**place, "tau": tau, "k": k, "seed": seed, **dict.fromkeys(MEASURES, None if grown else own)}
                )
        verdict = {8: "inversion", 16: "opposite", 32: "undecided"}[m] if process == "karras" else "undecided"
        rest = {"verdict": verdict, "by_sw2_matched": "opposite" if process == "vp" and m == 32 else "CM better"}
        lines += [{**place, "tau": math.inf, **rest}, {**place, "tau": 1.0, **dict.fromkeys(rest, "inversion")}]
    known = [
        {"process": process, "dimension": 2, "class": None, "who": "teacher, other noise", "sw2_same": 1.05}
        for process in ("vp", "karras")
    ]
    with new_artifact(folder, "fixed_points", settings={}) as art:
        write_csv(art / "fixed_points.csv", fixed, [*CELL, "k", "seed", *MEASURES])
        write_csv(art / "flow.csv", moving, [*CELL, "tau", "k", "seed", *MEASURES])
        write_csv(art / "references.csv", known, ["process", "dimension", "class", "who", "sw2_same"])
        write_csv(art / "summary.csv", lines, [*CELL, "tau", "verdict", "by_sw2_matched"])
    return open_artifact(folder, "fixed_points")


@pytest.mark.slow
def test_what_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    art = artefact(tmp_path / "a")
    saved = spy(monkeypatch)
    for name in "ab":
        figure_fixed_points.draw(art, *outputs(tmp_path, name))
    assert alike(tmp_path, "a", "b")
    drawn = read_csv(tmp_path / "a.csv")
    assert {r["class"] for r in drawn} == {"shared"} and {r["n"] for r in drawn} == {"2"}
    rest = {(r["process"], r["measure"], r["m"], r["k"]): r for r in drawn if r["tau"] == "inf"}
    # Geometric means: the seeds are a factor 1.1 on either side.
    assert len(rest) == 2 * 3 * 3 * 3
    one = rest["vp", "ode_error", "16", "5"]
    assert float(one["mean"]) == pytest.approx(1 + 1 / 16 + 0.5)
    wide = math.exp(stats.t.ppf(0.975, 1) * math.log(1.1))
    assert float(one["high"]) / float(one["mean"]) == pytest.approx(wide)
    assert float(one["mean"]) / float(one["low"]) == pytest.approx(wide)
    # Of 8 and 16 the flow of the larger is shown, where a cell that has grown has no point.
    moving = [r for r in drawn if r["tau"] != "inf"]
    assert {r["m"] for r in moving} == {"16"} and len(moving) == 2 * 2 * (3 * 4 - 1)
    axes = saved[0].axes
    assert [a.get_title() for a in axes[:5]] == [
        "ODE error\nfixed points", "ODE error\nflow, m = 16",
        "sliced W₂\nfixed points", "sliced W₂\nflow, m = 16", "at the teacher's mean\nand variance",
    ]  # fmt: skip
    assert len(axes) == 10 and [a.get_ylabel() for a in axes[:3]] == ["VP, 2 dimensions\nODE error", "", "sliced W₂"]
    assert {a.get_yscale() for a in axes} == {"log"} and axes[0].get_ylim() == axes[1].get_ylim()
    triangles = {
        i: [(float(line.get_xdata()[0]), line.get_markerfacecolor()) for line in a.lines if line.get_marker() == "v" and len(line.get_xdata()) == 1]
        for i, a in enumerate(axes)
    }  # fmt: skip
    assert {i: found for i, found in triangles.items() if found} == {
        4: [(32.0, "white")], 7: [(8.0, style.INK), (16.0, "white")],
    }  # fmt: skip
    legend = [t.get_text() for t in saved[0].legends[0].get_texts()]
    assert set(legend) == {
        "k = 1 (CM)", "k = 5", "k = 50 = N (Direct CM)", "inversion", "opposite of an inversion", "Teacher, other noise",
    }  # fmt: skip


@pytest.mark.slow
def test_without_a_flow_and_of_another_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = spy(monkeypatch)
    figure_fixed_points.draw(artefact(tmp_path / "a", ("per_time",), flow=False), *outputs(tmp_path, "f"))
    assert [a.get_title().split("\n")[0] for a in saved[0].axes] == [
        "ODE error",
        "sliced W₂",
        "at the teacher's mean",
        *[""] * 3,
    ]
    assert {r["class"] for r in read_csv(tmp_path / "f.csv")} == {"per_time"}


def test_looks_go_from_one_method_to_the_other() -> None:
    found = figure_fixed_points.looks([1, 2, 5, 10, 50])
    assert found[1] is style.LOOKS["CM"] and found[50] is style.LOOKS["Direct CM"]
    assert len({look.color for look in found.values()}) == len({look.marker for look in found.values()}) == 5
    assert to_rgb(found[5].color) == pytest.approx(to_rgb(figure_fixed_points.CROWD), abs=0.01)


def test_means_of_few() -> None:
    mean, low, high = figure_fixed_points.geometric([1.0, 100.0])
    # The logarithms 0 and ln 100 have a standard error of ln 10, and t of one degree of freedom is 12.706.
    assert mean == pytest.approx(10)
    assert (math.log10(mean / low), math.log10(high / mean)) == pytest.approx((12.7062, 12.7062), abs=1e-4)
    single = figure_fixed_points.geometric([3.0])
    assert single[0] == pytest.approx(3) and all(map(math.isnan, single[1:]))


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no fixed points; delete the folder"):
        figure_fixed_points.draw(artefact(tmp_path / "a", ()), *outputs(tmp_path, "f"))
