"""The theory's convergence drawn: the values as they are, the slopes as measured and as predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from directcm.analysis.figures import figure_convergence
from directcm.analysis.figures.figure_convergence import PANELS, SERIES
from directcm.errors import UserError
from directcm.runtime.artifacts import Artifact, new_artifact, open_artifact, read_csv, write_csv
from tests.analysis.tidy_tables import alike, outputs, spy

SIZES = (10, 20, 50, 100)
FIT = ["predicted", "slope", "low", "high", "n", "N_low", "N_high"]


def artefact(folder: Path, leave_out: int = 0) -> Artifact:
    """Powers of N: series i falls as N^(−1 − i/10); every second one has a slope."""
    lines = [line for _, _, some in PANELS for line in some][leave_out:]
    rows: list[dict[str, Any]] = []
    slopes: list[dict[str, Any]] = []
    for i, line in enumerate(lines):
        own = dict(zip(SERIES, line.fields, strict=True))
        rows += [{**own, "N": n, "dt": 1 / n, "value": 0.3 * n ** (-1 - i / 10), "n": 8} for n in SIZES]
        if i % 2 == 0:
            fit = (-1.0, -1 - i / 10, -1.1 - i / 10, -0.9 - i / 10, 3, 20, 100)
            slopes.append({**own, **dict(zip(FIT, fit, strict=True))})
    with new_artifact(folder, "convergence", settings={}) as art:
        write_csv(art / "convergence.csv", rows, [*SERIES, "N", "dt", "value", "n"])
        write_csv(art / "slopes.csv", slopes, [*SERIES, *FIT])
    return open_artifact(folder, "convergence")


@pytest.mark.slow
def test_values_and_slopes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    art = artefact(tmp_path / "c")
    saved = spy(monkeypatch)
    for name in "ab":
        figure_convergence.draw(art, *outputs(tmp_path, name))
    assert alike(tmp_path, "a", "b")
    given, drawn = art.csv("convergence.csv"), read_csv(tmp_path / "a.csv")
    assert [(r["quantity"], r["N"], r["value"], r["n"]) for r in drawn] == [
        (r["quantity"], r["N"], r["value"], r["n"]) for r in given
    ]
    assert {r["slope"] for r in drawn[:4]} == {"-1.0"} and {r["slope"] for r in drawn[4:8]} == {""}
    axes = saved[0].axes
    assert [a.get_title() for a in axes] == [title for title, _, _ in PANELS]
    assert {(a.get_xscale(), a.get_yscale()) for a in axes} == {("log", "log")}
    texts = [t.get_text() for t in axes[0].get_legend().get_texts()]
    assert texts[0] == "DDIM  −1.00 (−1)" and texts[1] == "Euler" and texts[2] == "Heun  −1.20 (−1)"
    # Dashed through the geometric mean of what was fitted, N ≥ 20, with the predicted slope.
    x, y = axes[0].lines[0].get_data()
    fitted = [0.3 / n for n in (20, 50, 100)]
    middle = (20 * 50 * 100) ** (1 / 3)
    assert (
        float(y[0]) * float(x[0])
        == pytest.approx(float(y[1]) * float(x[1]))
        == pytest.approx((fitted[0] * fitted[1] * fitted[2]) ** (1 / 3) * middle)
    )


def test_a_slope_that_is_off_is_told_with_its_last_part() -> None:
    line = PANELS[5][2][1]
    fit = {"slope": "-0.65", "predicted": "-1.0"}
    rows = [{"N": str(n), "value": str(v)} for n, v in ((20, 0.5), (200, 0.09), (100, 0.09 * 2**0.78))]
    assert figure_convergence.last_slope(rows) == pytest.approx(-0.78)
    assert figure_convergence._label(line, rows, fit) == "CT, squared  −0.65 → −0.78 (−1)"
    assert figure_convergence._label(line, rows, {**fit, "slope": "-0.97"}) == "CT, squared  −0.97 (−1)"
    # What is off and gets no nearer is left as it is.
    assert figure_convergence._label(line, rows, {**fit, "slope": "-0.78"}) == "CT, squared  −0.78 (−1)"


def test_a_series_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no solver, gaussian, vp, ddim, endpoint error; delete the folder"):
        figure_convergence.draw(artefact(tmp_path / "c", 1), *outputs(tmp_path, "f"))
