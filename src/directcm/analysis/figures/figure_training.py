"""Along training, every method: the distance to the data against training steps, methods of data alone beside those of a teacher.

Below, what a method that is built over another one changes: the difference from its base, seed by seed.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.config import Setting
from directcm.config.registry import methods
from directcm.config.specs import METHODS, METRICS
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


def draw(
    metrics_csv: str | Path,
    main: Setting,
    out_pdf: str | Path,
    out_png: str | Path,
    out_csv: str | Path,
) -> None:
    """The first FD to data and the prompt accuracy, if there (rows), against training steps, a column per family of methods.

    Below these, for every method whose `tidy.base` is there too, its difference from that, paired by seed, with 95 % intervals
    over seeds. Students of the setting `main`, each method along its own `tidy.path`. Raises UserError where no
    method was evaluated after two numbers of steps.
    """
    rows = tidy.read(metrics_csv, tidy.METRIC_COLUMNS)
    students = [r for r in tidy.fewest(rows) if r["row"] in tidy.STUDENTS]
    paths = {label: tidy.path([r for r in students if r["row"] == label], main) for label in METHODS.values()}
    paths = {label: own for label, own in paths.items() if len({r["step"] for r in own}) > 1}
    if not paths:
        raise UserError(
            "students: no method was evaluated after two numbers of training steps, and this figure needs two; add "
            "snapshots: [62, 125] to a line of the key students of config.yaml"
        )
    pairs = tidy.keys([r for own in paths.values() for r in own])
    fd = tidy.first_of(tidy.DISTANCES, pairs, "data")
    panels = [key for key in pairs if key in {(fd, "data"), ("prompt_accuracy", "prompt")}]
    if not panels:
        raise UserError(
            "metrics: this figure needs an FD or prompt_accuracy; add one to the key metrics of config.yaml"
        )
    names = {label: name for name, label in METHODS.items()}
    columns = [f for f in FAMILIES if any(family(names[label]) == f for label in paths)]
    steps = sorted({tidy.value(r["step"]) for own in paths.values() for r in own})
    out: list[dict[str, Any]] = []
    pairs_of = {label: own for label in paths if (own := tidy.base(label)) in paths}
    with style.styled():
        import matplotlib.pyplot as plt
        import numpy as np
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        below = len(panels) if pairs_of else 0
        width = style.PAGE if max(len(columns), len(pairs_of)) > 1 else style.COLUMN
        figure = plt.figure(
            figsize=(width, 1.0 + 1.9 * len(panels) + 1.15 * below),
            layout=ConstrainedLayoutEngine(wspace=0.04, hspace=0.05),
        )
        heights = [1.9] * len(panels) + [1.15] * below
        wide = math.lcm(len(columns), max(1, len(pairs_of)))
        space = figure.add_gridspec(len(heights), wide, height_ratios=heights)
        grid = np.empty((len(panels), len(columns)), dtype=object)
        every: dict[str, dict[tuple[str, str], list[tidy.Point]]] = {label: {} for label in paths}
        marks = []
        shown: set[str] = set()
        for r, (metric, reference) in enumerate(panels):
            gone: list[tuple[Any, float, str]] = []
            for c, title in enumerate(columns):
                span = wide // len(columns)
                shared = {"sharex": grid[0, 0] if r or c else None, "sharey": grid[r, 0] if c else None}
                axes = grid[r, c] = figure.add_subplot(space[r, c * span : (c + 1) * span], **shared)
                here = [label for label in paths if family(names[label]) == title]
                for order, label in enumerate(tidy.layered(here)):
                    lines = [s for s in paths[label] if (s["metric"], s["reference"]) == (metric, reference)]
                    group = every[label][metric, reference] = tidy.points(lines, "step")
                    source = {tidy.value(s["step"]): s for s in lines}
                    look = style.LOOKS[label]
                    ends = style.crowded(
                        axes, group, look, over=label in pairs_of, place=here.index(label), count=len(here), order=order,
                        possible=tidy.possible(metric),
                    )  # fmt: skip
                    gone += [(axes, x, look.color) for x in ends]
                    drawn = tidy.drawn(group, "step", metric=metric, reference=reference, row=label)
                    out += [{**d, **{k: source[float(d["step"])][k] for k in ("steps", "pool")}} for d in drawn]
                axes.margins(x=0.07, y=0.08)
                axes.tick_params(labelbottom=r == len(panels) - 1, labelleft=c == 0)
                if r == 0:
                    axes.set_title(f"Learnt {title}", fontsize=7, pad=4)
                if r == len(panels) - 1 and not below:
                    axes.set_xlabel("training steps")
                if c == 0:
                    text = tidy.title(metric, reference)[:-2]
                    axes.set_ylabel(f"{text}\n{'← better' if METRICS[metric].better == 'lower' else 'better →'}")
            means = [p.mean for own in every.values() for p in own[metric, reference]]
            style.spread_axis(grid[r, 0].yaxis, means, possible=tidy.possible(metric))
            for axes, x, color in gone:
                style.leaving(axes, [(x, color)])
            constants = tidy.constants(rows, main, metric, reference, ())
            shown |= set(constants)
            out += tidy.constant_rows(metric, reference, constants)
            marks.append(style.constants(constants, METRICS[metric].decimals))
        apart = []
        for r, (metric, reference) in enumerate(panels[:below]):
            for c, (label, own_base) in enumerate(pairs_of.items()):
                span = wide // len(pairs_of)
                axes = figure.add_subplot(space[len(panels) + r, c * span : (c + 1) * span], sharex=grid[0, 0])
                found = tidy.paired(every[label][metric, reference], every[own_base][metric, reference])
                _differences(axes, found, style.LOOKS[label])
                if r == 0:
                    axes.set_title(f"{label} − {own_base}", fontsize=7, pad=4)
                if c == 0:
                    axes.set_ylabel(f"difference in\n{tidy.name_of(metric, reference)}")
                axes.tick_params(labelbottom=r == below - 1)
                if r == below - 1:
                    axes.set_xlabel("training steps")
                apart.append(axes)
                for point, low, high in found:
                    ends_of = {"low": tidy.number(low), "high": tidy.number(high)}
                    fields = {"metric": metric, "reference": reference, "row": label, "base": own_base}
                    whole, *each = tidy.drawn([point], "step", **fields)
                    out += [{**whole, **ends_of}, *each]
        entries = [style.method_handle(n, f"{n} ({tidy.seeds(every[n].values())})", over=n in pairs_of) for n in paths]
        entries += style.reference_handles(shown)
        style.finish_steps(figure, grid, entries, steps, marks)
        for axes in apart:
            style.values_axis(axes, steps, log=True)
        style.save(figure, out_pdf, out_png)
    tidy.write(out_csv, out, COLUMNS)


def _differences(axes: Any, found: list[tuple[tidy.Point, float, float]], look: style.Look) -> None:
    """Differences with their intervals as bars, each seed's as a dot, and a line at 0."""
    from matplotlib.ticker import MaxNLocator

    axes.axhline(0, color=style.INK, linewidth=0.7, zorder=2)
    for point, low, high in found:
        if math.isfinite(low):
            axes.plot([point.x] * 2, [low, high], color=look.color, linewidth=1.1, solid_capstyle="butt", zorder=4)
        for value in point.values.values():
            # Beside the bar.
            axes.scatter(
                point.x * 1.045,
                value,
                s=5,
                marker="o",
                facecolors="none",
                edgecolors=look.color,
                linewidths=0.5,
                zorder=5,
            )
    x, y = [p.x for p, *_ in found], [p.mean for p, *_ in found]
    axes.plot(x, y, color=look.color, linestyle=look.line, linewidth=0.8, zorder=3)
    axes.scatter(x, y, s=15, marker=look.marker, facecolors="white", edgecolors=look.color, linewidths=0.9, zorder=6)
    axes.margins(y=0.12)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, min_n_ticks=2))
