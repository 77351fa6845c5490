"""Along training, every method: the distance to the data against training steps, methods of data alone beside those of a teacher.

Below, what a method that is built over another one changes: the difference from its base, seed by seed.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.analysis.figures.chart import Chart, better, drawn_along, of
from directcm.config import Setting
from directcm.config.registry import methods
from directcm.config.specs import METHODS
from directcm.errors import UserError

EXHIBITS = {
    "training": {
        "title": "Along training, every method",
        "scope": "paper",
        "takes": "metrics setting",
        "needs": "other_methods and main_snapshots",
        "place": 15,
    }
}

COLUMNS = ["metric", "reference", "row", "base", "steps", "pool", "step", *tidy.DRAWN, "low", "high"]
FAMILIES = ("from data alone", "from a teacher")


def family(name: str) -> str:
    """Of which family a method is, by what its file says it needs."""
    method = methods()[name]
    return FAMILIES[bool(method.teacher or method.targets)]


@style.styled()
def draw(metrics_csv: str | Path, main: Setting, *files: str | Path) -> None:
    """The first FD to data and the prompt accuracy, if there (rows), against training steps, a column per family of methods.

    Below these, for every method whose `tidy.base` is there too, its difference from that, paired by seed, with 95 % intervals
    over seeds. Students of the setting `main`, each method along its own `tidy.path`. `files`: PDF, PNG and CSV to write. Raises
    UserError where no method was evaluated after two numbers of steps.
    """
    rows = tidy.read(metrics_csv, tidy.METRIC_COLUMNS)
    students = [r for r in tidy.fewest(rows) if r["row"] in tidy.STUDENTS]
    paths = {label: tidy.path([r for r in students if r["row"] == label], main) for label in METHODS.values()}
    paths = {label: path for label, path in paths.items() if len({r["step"] for r in path}) > 1}
    if not paths:
        raise UserError(
            "students: no method was evaluated after two numbers of training steps, and this figure needs two; add "
            "snapshots: [62, 125] to a line of the key students of config.yaml"
        )
    there = [r for path in paths.values() for r in path]
    pairs, steps = tidy.keys(there), {tidy.value(r["step"]) for r in there}
    fd = tidy.first_of(tidy.DISTANCES, pairs, "data")
    metrics = [key for key in pairs if key in {(fd, "data"), ("prompt_accuracy", "prompt")}]
    if not metrics:
        raise UserError(
            "metrics: this figure needs an FD or prompt_accuracy; add one to the key metrics of config.yaml"
        )
    families: dict[str, list[str]] = {
        f: [n for n, label in METHODS.items() if label in paths and family(n) == f] for f in FAMILIES
    }
    families = {f"Learnt {f}": [METHODS[n] for n in own] for f, own in families.items() if own}
    bases = {label: base for label in paths if (base := tidy.base(label)) in paths}
    heights = [1.9] * len(metrics) + [1.15] * len(metrics) * bool(bases)
    width = style.PAGE if max(len(families), len(bases)) > 1 else style.COLUMN
    layout = ConstrainedLayoutEngine(wspace=0.04, hspace=0.05)
    figure = plt.figure(figsize=(width, 1.0 + math.fsum(heights)), layout=layout)
    wide = math.lcm(len(families), max(1, len(bases)))
    room = figure.add_gridspec(len(heights), wide, height_ratios=heights)
    chart = Chart(figure, np.empty((len(metrics), len(families)), dtype=object))
    every: dict[str, dict[tuple[str, str], list[tidy.Point]]] = {label: {} for label in paths}
    for r, (metric, reference) in enumerate(metrics):
        gone: list[style.Gone] = []
        possible = tidy.possible(metric)
        for c, (text, here) in enumerate(families.items()):
            shared = {"sharex": chart.grid[0, 0], "sharey": chart.grid[r, 0]}
            axes = chart.grid[r, c] = figure.add_subplot(room[r, _span(wide, c, len(families))], **shared)
            for order, label in enumerate(tidy.layered(here)):
                lines = of(paths[label], metric, reference)
                group = every[label][metric, reference] = tidy.points(lines, "step")
                gone += style.crowded(
                    axes, group, style.LOOKS[label], over=label in bases, order=order, place=here.index(label), count=len(here),
                    possible=possible,
                )  # fmt: skip
                chart.lines += drawn_along(lines, group, metric=metric, reference=reference, row=label)
            axes.margins(x=0.07, y=0.08)
            axes.tick_params(labelbottom=r == len(metrics) - 1, labelleft=c == 0)
            if r == 0:
                axes.set_title(text, fontsize=7, pad=4)
            if r == len(metrics) - 1 and not bases:
                axes.set_xlabel("training steps")
        chart.grid[r, 0].set_ylabel(f"{tidy.title(metric, reference)[:-2]}\n{better(metric)}")
        means = [p.mean for groups in every.values() for p in groups[metric, reference]]
        style.spread_axis(chart.grid[r, 0].yaxis, means, possible=possible)
        style.leaving(gone)
        chart.constants(chart.grid[r], metric, reference, tidy.constants(rows, main, metric, reference, ()))
    for r, (metric, reference) in enumerate(metrics):
        for c, (label, base) in enumerate(bases.items()):
            place = room[len(metrics) + r, _span(wide, c, len(bases))]
            axes = figure.add_subplot(place, sharex=chart.grid[0, 0])
            found = tidy.paired(every[label][metric, reference], every[base][metric, reference])
            _differences(axes, found, style.LOOKS[label])
            if r == 0:
                axes.set_title(f"{label} − {base}", fontsize=7, pad=4)
            if c == 0:
                axes.set_ylabel(f"difference in\n{tidy.name_of(metric, reference)}")
            axes.tick_params(labelbottom=r == len(metrics) - 1)
            if r == len(metrics) - 1:
                axes.set_xlabel("training steps")
            for point, low, high in found:
                fields = {"metric": metric, "reference": reference, "row": label, "base": base}
                whole, *each = tidy.drawn([point], "step", **fields)
                chart.lines += [{**whole, "low": tidy.number(low), "high": tidy.number(high)}, *each]
    chart.legend([style.method_handle(n, f"{n} ({tidy.seeds(every[n].values())})", paths) for n in paths])
    for axes in figure.axes:
        style.values_axis(axes, steps, log=True)
    chart.references()
    chart.save(COLUMNS, *files)


def _span(wide: int, index: int, count: int) -> slice:
    """Which of `wide` columns of a grid the one of `count` panels has."""
    return slice(index * wide // count, (index + 1) * wide // count)


def _differences(axes: Any, found: list[tuple[tidy.Point, float, float]], look: style.Look) -> None:
    """Differences with their intervals as bars, each seed's as a dot, and a line at 0."""
    axes.axhline(0, color=style.INK, linewidth=0.7, zorder=2)
    for point, low, high in found:
        if math.isfinite(low):
            axes.plot([point.x] * 2, [low, high], color=look.color, linewidth=1.1, solid_capstyle="butt", zorder=4)
        for value in point.values.values():
            # Beside the bar.
            axes.scatter(
                point.x * 1.045, value, s=5, marker="o", facecolors="none", edgecolors=look.color, linewidths=0.5, zorder=5
            )  # fmt: skip
    x, y = [p.x for p, *_ in found], [p.mean for p, *_ in found]
    axes.plot(x, y, color=look.color, linestyle=look.line, linewidth=0.8, zorder=3)
    axes.scatter(x, y, s=15, marker=look.marker, facecolors="white", edgecolors=look.color, linewidths=0.9, zorder=6)
    axes.margins(y=0.12)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, min_n_ticks=2))
