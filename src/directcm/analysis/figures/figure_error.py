"""Where the error is: student error, solver error and their sum, by start time, in latents and in pixels."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.analysis.figures.chart import panels
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


@style.styled()
def draw(errors_csv: str | Path, main: Setting, *files: str | Path) -> None:
    """Errors by start time (log), a column per N in the setting `main`, latents above pixels; a log axis
    of times where they are not spaced evenly.

    Student ‖f − own endpoint‖², solver ‖own endpoint − refined‖² (no student in it: one line), total ‖f − refined‖²
    against the refined endpoint, each per component. Below each, what the sum leaves: the cross term as a share of the
    total, total = student + solver + cross; it can be negative. `files`: PDF, PNG and CSV to write. Raises UserError where the
    main setting has no errors.
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
    looks = {label: style.LOOKS[label] for m, label in METHODS.items() if any(r["method"] == m for r in rows)}
    dotted = {name: replace(look, line=style.DOTTED) for name, look in looks.items()}
    size = (min(style.PAGE, max(style.COLUMN, 0.6 + 1.54 * len(values))), 0.75 + 2.2 * len(spaces))
    ratios = [2.1, 1] * len(spaces)
    chart = panels(len(ratios), len(values), size, (0.03, 0.03), sharex=True, sharey="row", height_ratios=ratios)
    groups: list[list[tidy.Point]] = []
    for space, uppers, lowers in zip(spaces, chart.grid[::2], chart.grid[1::2], strict=True):
        heights: list[float] = []
        for above, below, N in zip(uppers, lowers, values, strict=True):
            here = [r for r in rows if r["space"] == space and tidy.value(r["N"]) == N]
            where = {"space": space, "N": tidy.number(N)}
            for order, (name, look) in enumerate(looks.items()):
                own = [r for r in here if METHODS[r["method"]] == name]
                student, total = tidy.points(own, "time", "student_error"), tidy.points(own, "time", "total_error")
                share = tidy.points(own, "time", _share)
                style.series(above, total, dotted[name], hollow=True, thin=False, order=order)
                style.series(above, student, look, thin=False, order=order + 2)
                style.series(below, share, look, thin=False, order=order)
                groups += [total, student, share]
                heights += [value for p in (*student, *total) for value in (p.mean, *p.values.values())]
                for quantity, group in (("student", student), ("total", total), ("cross / total", share)):
                    chart.lines += tidy.drawn(group, "time", **where, quantity=quantity, row=name)
            solver = _solver(here)
            heights += [p.mean for p in solver]
            style.series(above, solver, style.LOOKS[tidy.TEACHER], thin=False, band=False, order=4)
            chart.lines += [
                {**where, "quantity": "solver", "time": tidy.number(p.x), "value": tidy.number(p.mean)} for p in solver
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
        uppers[0].set_ylabel(f"error in {SPACES[space]}\n(MSE)  ← better")
        lowers[0].set_ylabel("cross term\n(% of total)")
        # A log axis spans what is drawn, not a band's clipped lower end.
        if positive := [value for value in heights if value > 0]:
            uppers[0].set_ylim(min(positive) / 1.5, max(positive) * 1.5)
    for top, bottom, N in zip(chart.grid[0], chart.grid[-1], values, strict=True):
        top.set_title(f"N = {tidy.number(N)}", fontsize=6.8, pad=4)
        bottom.set_xlabel("start time t\n(noise at the right)")
    entries = [style.handle(look, f"{n}: student error ({tidy.seeds(groups)})") for n, look in looks.items()]
    entries += [style.handle(look, f"{n}: total", hollow=True) for n, look in dotted.items()]
    chart.legend([*entries, style.handle(style.LOOKS[tidy.TEACHER], "solver error")])
    chart.figure.align_ylabels(chart.grid[:, 0])
    chart.save(COLUMNS, *files)


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
        error = tidy.value(row["solver_error"])
        if math.isfinite(error):
            found.setdefault(tidy.value(row["time"]), []).append(error)
    means = {time: math.fsum(errors) / len(errors) for time, errors in sorted(found.items())}
    return [tidy.Point(time, mean, math.nan, {0: mean}) for time, mean in means.items()]
