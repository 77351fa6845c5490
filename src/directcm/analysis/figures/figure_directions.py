"""Where in the teacher's samples the ODE error lies: along their principal directions, the one of largest variance first, in octaves.

Left: how much of the error lies in the first k directions, beside how much of the teacher's variance. Middle: the error over the
teacher's variance in each octave; 1 is what the mean of all samples has. Right: the variance of the samples over the teacher's there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.ticker import LogLocator, NullFormatter

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.analysis.figures.chart import panels, title
from directcm.config import Setting
from directcm.errors import UserError

EXHIBITS = {
    "directions": {
        "title": "The error along principal directions",
        "takes": "directions setting",
        "needs": "ode_error",
        "place": 12,
    }
}

COLUMNS = ["quantity", "row", "first", "last", *tidy.DRAWN]
SHARE, ERROR, VARIANCE = "share of the error", "error / teacher's variance", "variance / teacher's variance"
# The lowest ratio that is shown.
LEAST = 0.02
LOOKS = {
    "Conditional mean": style.Look("#9a9a9a", "s", (0, (1, 1))),
    "Affine map of the noise": style.Look("#5a5a5a", "D", (0, (3, 1))),
    "Untrained start": style.Look("#9a9a9a", "v", (0, (5, 1.5))),
    "One guided step": style.Look("#5a5a5a", "P", (0, (2, 2))),
}


@style.styled()
def draw(directions_csv: str | Path, main: Setting, *files: str | Path) -> None:
    """Three panels over the rank of a direction (log): the cumulated share of the error, and error and variance over the teacher's by octave.

    Finished students of the setting `main` in the fewest sampling steps, mean ± sd over seeds, and their baselines. `files`: PDF, PNG
    and CSV to write. Raises UserError where there are none.
    """
    rows = tidy.read(directions_csv, tidy.DIRECTION_COLUMNS)
    students = tidy.fewest([r for r in tidy.finished(rows) if tidy.matches(r, main)])
    if not students:
        raise UserError(f"{directions_csv}: has no students of the main setting; evaluate them and collect again")
    baselines = [r for r in rows if r["row"] in tidy.TO_BEAT and tidy.matches(r, main, (), tidy.ODE_AXES)]
    looks = {
        name: look
        for name, look in (LOOKS | style.LOOKS).items()
        if any(r["row"] == name for r in (*students, *baselines))
    }
    chart = panels(1, 3, (style.PAGE, 2.35), (0.04, 0.03), sharex=True)
    quantities: dict[str, Callable[[Sequence[tidy.Row]], list[tuple[tidy.Row, float]]]] = {
        SHARE: _shares,
        ERROR: lambda own: [(r, _over(r, "error")) for r in own],
        VARIANCE: lambda own: [(r, _over(r, "variance")) for r in own],
    }
    for axes, (quantity, values) in zip(chart.grid[0], quantities.items(), strict=True):
        for order, (name, look) in enumerate(looks.items()):
            own = [r for r in (*students, *baselines) if r["row"] == name]
            points = _points(own, values, at_end=quantity == SHARE)
            style.series(axes, [p for p, _ in points], look, thin=False, order=order)
            for point, (first, last) in points:
                for line in tidy.drawn([point], "x", quantity=quantity, row=name, first=first, last=last):
                    chart.lines.append({c: line.get(c) for c in COLUMNS})
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        axes.set_xlabel("rank of the direction" if quantity != SHARE else "first k directions")
        title(axes, quantity)
        axes.margins(x=0.05, y=0.08)
    first, *others = chart.grid[0]
    some = [r for r in (*students, *baselines) if r["row"] == next(iter(looks))]
    seed = some[0]["seed"]
    whole = _cumulated([r for r in some if r["seed"] == seed], "reference_variance")
    first.plot(
        [x for x, _ in whole], [y for _, y in whole], color=style.INK, linestyle=style.DOTTED, linewidth=1.1, zorder=3
    )
    chart.lines += [
        {"quantity": "share of the variance", "row": tidy.TEACHER, "last": int(x), "value": tidy.number(y)}
        for x, y in whole
    ]
    first.set_ylim(0, 1.02)
    for axes in others:
        axes.axhline(1, color=style.INK, linestyle=style.DOTTED, linewidth=0.8, zorder=2)
        axes.set_yscale("log", nonpositive="clip")
        # What does not vary has next to no variance anywhere: it need not be seen.
        axes.set_ylim(bottom=max(axes.get_ylim()[0], LEAST))
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        axes.yaxis.set_minor_formatter(NullFormatter())
    counts = [
        p
        for name in looks
        if name in tidy.STUDENTS
        for p, _ in _points([r for r in students if r["row"] == name], _shares, True)
    ]
    entries = [
        style.handle(look, f"{name} ({tidy.counted([p.n for p in counts])})" if name in tidy.STUDENTS else name)
        for name, look in looks.items()
    ]
    teacher = style.Look(style.INK, "", style.DOTTED)
    chart.legend([*entries, style.handle(teacher, "the teacher's variance", marker=False)])
    chart.save(COLUMNS, *files)


def _over(row: tidy.Row, column: str) -> float:
    """A column over the teacher's variance; NaN where the teacher has none there."""
    variance = tidy.value(row["reference_variance"])
    return tidy.value(row[column]) / variance if variance > 0 else math.nan


def _cumulated(rows: Sequence[tidy.Row], column: str) -> list[tuple[float, float]]:
    """(last rank, share of the column's sum up to there) of the bands of one set."""
    ordered = sorted(rows, key=lambda r: tidy.value(r["first"]))
    values = [tidy.value(r[column]) for r in ordered]
    whole = math.fsum(values)
    sums = itertools.accumulate(values)
    return [
        (tidy.value(r["last"]), part / whole if whole > 0 else math.nan) for r, part in zip(ordered, sums, strict=True)
    ]


def _shares(rows: Sequence[tidy.Row]) -> list[tuple[tidy.Row, float]]:
    """The cumulated share of the error at each band, set by set."""
    out: list[tuple[tidy.Row, float]] = []
    for seed in dict.fromkeys(r["seed"] for r in rows):
        own = sorted((r for r in rows if r["seed"] == seed), key=lambda r: tidy.value(r["first"]))
        out += [(r, share) for r, (_, share) in zip(own, _cumulated(own, "error"), strict=True)]
    return out


def _points(
    rows: Sequence[tidy.Row], values: Callable[[Sequence[tidy.Row]], list[tuple[tidy.Row, float]]], at_end: bool
) -> list[tuple[tidy.Point, tuple[int, int]]]:
    """Means over seeds by band, ascending, each with the band's ranks: at its last rank, or in its middle."""
    found: dict[tuple[int, int], dict[int, float]] = {}
    for row, y in values(rows):
        if not math.isnan(y):
            band = int(tidy.value(row["first"])), int(tidy.value(row["last"]))
            found.setdefault(band, {})[int(row["seed"] or 0)] = y
    return [
        (tidy.Point(last if at_end else math.sqrt(first * last), *tidy.mean_sd(own.values()), own), (first, last))
        for (first, last), own in sorted(found.items())
    ]
