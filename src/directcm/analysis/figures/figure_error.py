"""Where the error is: student error, solver error and their sum, by start time, in latents and in pixels."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.config import SETTING_AXES, Setting
from directcm.config.specs import METHODS
from directcm.errors import UserError

EXHIBITS = {
    "error": {
        "title": "Where the error is",
        "scope": "paper",
        "takes": "errors setting",
        "needs": "errors",
        "place": 11,
    }
}

SPACES = {"latent": "latents", "pixel": "pixels"}
COLUMNS = ["space", "N", "quantity", "row", "time", *tidy.DRAWN]
# Not "solver": that is the name of an axis of the setting.
PARTS = ("student_error", "solver_error", "total_error", "cross_term")
INPUT = ("method", *SETTING_AXES, "seed", "time", "space", *PARTS)


def draw(errors_csv: str | Path, main: Setting, out_pdf: str | Path, out_png: str | Path, out_csv: str | Path) -> None:
    """Errors by start time (log), a column per N in the setting `main`, latents above pixels; a log axis
    of times where they are not spaced evenly.

    Student ‖f − own endpoint‖², solver ‖own endpoint − refined‖² (no student in it: one line), total ‖f − refined‖²
    against the refined endpoint, each per component. Below each, what the sum leaves: the cross term as a share of the
    total, total = student + solver + cross; it can be negative. Raises UserError where the main setting has no errors.
    """
    rows = [r for r in tidy.read(errors_csv, INPUT) if tidy.matches(r, main, ("N",))]
    values = sorted({tidy.value(r["N"]) for r in rows})
    spaces = [s for s in SPACES if any(r["space"] == s for r in rows)]
    if not rows or not spaces:
        raise UserError(
            f"{errors_csv}: has no errors of the main setting; a line of the key students of config.yaml must have the "
            "values of ode and train"
        )
    even = _even({tidy.value(r["time"]) for r in rows})
    names = [METHODS[m] for m in METHODS if any(r["method"] == m for r in rows)]
    out: list[dict[str, Any]] = []
    with style.styled():
        import matplotlib.pyplot as plt
        import seaborn
        from matplotlib.layout_engine import ConstrainedLayoutEngine
        from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

        width = min(style.PAGE, max(style.COLUMN, 0.6 + 1.54 * len(values)))
        figure, grid = plt.subplots(
            2 * len(spaces), len(values), figsize=(width, 0.75 + 2.2 * len(spaces)), squeeze=False, sharex=True, sharey="row",
            height_ratios=[2.1, 1] * len(spaces), layout=ConstrainedLayoutEngine(wspace=0.03, hspace=0.03),
        )  # fmt: skip
        groups: list[list[tidy.Point]] = []
        for s, space in enumerate(spaces):
            for c, N in enumerate(values):
                above, below = grid[2 * s, c], grid[2 * s + 1, c]
                here = [r for r in rows if r["space"] == space and tidy.value(r["N"]) == N]
                where = {"space": space, "N": tidy.number(N)}
                for order, name in enumerate(names):
                    own = [r for r in here if METHODS[r["method"]] == name]
                    look = style.LOOKS[name]
                    total, student = tidy.points(own, "time", "total_error"), tidy.points(own, "time", "student_error")
                    share = tidy.points(own, "time", _share)
                    style.series(
                        above,
                        total,
                        style.Look(look.color, look.marker, (0, (1, 1))),
                        hollow=True,
                        thin=False,
                        order=order,
                    )
                    style.series(above, student, look, thin=False, order=order + 2)
                    style.series(below, share, look, thin=False, order=order)
                    groups += [total, student, share]
                    for quantity, group in (("student", student), ("total", total), ("cross / total", share)):
                        out += tidy.drawn(group, "time", **where, quantity=quantity, row=name)
                solver = _solver(here)
                style.series(above, solver, style.LOOKS[tidy.TEACHER], thin=False, band=False, order=4)
                out += [
                    {**where, "quantity": "solver", "time": tidy.number(p.x), "value": tidy.number(p.mean)}
                    for p in solver
                ]
                above.set_yscale("log", nonpositive="clip")
                above.yaxis.set_major_locator(LogLocator(numticks=6))
                above.yaxis.set_minor_formatter(NullFormatter())
                below.axhline(0, color=style.SOFT, linewidth=0.7, zorder=2)
                below.yaxis.set_major_locator(MaxNLocator(nbins=3, min_n_ticks=2))
                if even:
                    below.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10], integer=True))
                else:
                    below.set_xscale("log")
                    below.xaxis.set_major_locator(LogLocator(numticks=5))
                    below.xaxis.set_minor_formatter(NullFormatter())
                for axes in (above, below):
                    axes.margins(x=0.06, y=0.1)
                if s == 0:
                    above.set_title(f"N = {tidy.number(N)}", fontsize=6.8, pad=4)
                if s == len(spaces) - 1:
                    below.set_xlabel("start time t\n(noise at the right)")
            grid[2 * s, 0].set_ylabel(f"error in {SPACES[space]}\n(MSE)  ← better")
            grid[2 * s + 1, 0].set_ylabel("cross term\n(% of total)")
        _limits(grid, out, spaces)
        entries = [style.handle(style.LOOKS[n], f"{n}: student error ({tidy.seeds(groups)})") for n in names]
        entries += [
            style.handle(
                style.Look(style.LOOKS[n].color, style.LOOKS[n].marker, (0, (1, 1))), f"{n}: total", hollow=True
            )
            for n in names
        ]
        entries.append(style.handle(style.LOOKS[tidy.TEACHER], "solver error"))
        style.legend(figure, entries)
        seaborn.despine(figure)
        figure.align_ylabels(grid[:, 0])
        style.save(figure, out_pdf, out_png)
    tidy.write(out_csv, out, COLUMNS)


def _share(row: tidy.Row) -> float:
    """The cross term in per cent of the total; NaN where there is none."""
    total = tidy.value(row["total_error"])
    return 100 * tidy.value(row["cross_term"]) / total if total > 0 else math.nan


def _even(times: Collection[float]) -> bool:
    """Whether times are about evenly spaced; those of Karras's grid bunch towards the data and want a log axis."""
    steps = [b - a for a, b in pairwise(sorted(times))]
    return not steps or max(steps) < 2 * min(steps)


def _solver(rows: Sequence[tidy.Row]) -> list[tidy.Point]:
    """The solver's error by time: it depends on start points alone, so methods and seeds say the same; their mean."""
    found: dict[float, list[float]] = {}
    for row in rows:
        own = tidy.value(row["solver_error"])
        if math.isfinite(own):
            found.setdefault(tidy.value(row["time"]), []).append(own)
    return [
        tidy.Point(t, math.fsum(v) / len(v), math.nan, {0: math.fsum(v) / len(v)}) for t, v in sorted(found.items())
    ]


def _limits(grid: Any, out: list[dict[str, Any]], spaces: Sequence[str]) -> None:
    """Log axes span what is drawn, not a band's clipped lower end."""
    for s, space in enumerate(spaces):
        drawn = [r["value"] for r in out if r["space"] == space and r["quantity"] != "cross / total"]
        positive = [v for v in drawn if v is not None and v > 0]
        if positive:
            grid[2 * s, 0].set_ylim(min(positive) / 1.5, max(positive) * 1.5)
