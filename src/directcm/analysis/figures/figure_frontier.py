"""The frontier: ODE error against every quality metric, as each method's path along training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.analysis.figures.chart import main_path, names_of, of, tiles, title
from directcm.config import Setting
from directcm.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EXHIBITS = {
    "frontier": {
        "title": "The frontier: ODE error against quality along training",
        "short": "The frontier along training",
        "scope": "paper",
        "takes": "metrics setting",
        "needs": "main_snapshots",
        "place": 9,
    }
}

COLUMNS = ["metric", "reference", "row", "adapter", "steps", "pool", "step", "seed", "ode_error", "value", "n_seeds"]
# Up to how many methods' steps are written beside their paths; of more, numbers would lie on each other.
MOST_LABELLED = 3


@dataclass(frozen=True)
class Stop:
    """Students after one number of steps: the means over seeds of ODE error (x) and metric (y), and each seed's."""

    step: float
    x: float
    y: float
    seeds: Mapping[int, tuple[float, float]]


def stops(errors: Mapping[tuple[int, float], float], values: Mapping[tuple[int, float], float]) -> list[Stop]:
    """The path of one method, steps ascending, from two metrics by (seed, step); seeds that lack one of them stay out."""
    found: dict[float, dict[int, tuple[float, float]]] = {}
    for seed, step in sorted(errors.keys() & values.keys()):
        found.setdefault(step, {})[seed] = (errors[seed, step], values[seed, step])
    out = []
    for step, seeds in sorted(found.items()):
        x, y = (math.fsum(each) / len(each) for each in zip(*seeds.values(), strict=True))
        out.append(Stop(step, x, y, seeds))
    return out


@style.styled()
def draw(
    metrics_csv: str | Path, main: Setting, *files: str | Path, paper: Collection[str] = (), space: str = "latent"
) -> None:
    """One panel per quality metric: x the ODE error, y the metric, one path per method over its evaluated steps.

    Students of the setting `main` and its adapter, along `tidy.path`. Bold: means over seeds, thin:
    seeds; steps stand at the ends and at some points between. Of more than MOST_LABELLED methods means alone, their marks the
    larger the later. `files`: PDF, PNG and CSV to write. `space`: what ODE errors are in, latent or pixel. Raises UserError for
    fewer than two steps.
    """
    rows = tidy.read(metrics_csv, tidy.METRIC_COLUMNS)
    path, steps = main_path(rows, main)
    metrics = [key for key in tidy.keys(path) if key[0] != "ode_error"]
    if not metrics or ("ode_error", "teacher") not in tidy.keys(path):
        raise UserError(
            "metrics: the frontier needs ode_error and a quality metric; add them to the key metrics of config.yaml"
        )
    names = names_of(path)
    many = len(names) > MOST_LABELLED
    abreast = 4 if len(metrics) > 6 and not many else 3
    chart, _ = tiles(len(metrics), 2.35 if many else 2.0, (0.06, 0.07), abreast=abreast, head=0.5)
    errors = {n: _by(of(path, "ode_error", "teacher", n)) for n in names}
    spread = [v for own in errors.values() for v in own.values()]
    log = min(spread) > 0 and max(spread) / min(spread) > 10
    # What is drawn when the layout is final: heads along paths, and steps beside them.
    heads: list[tuple[Axes, style.Look, list[tuple[float, float]], int]] = []
    texts: list[tuple[Axes, list[style.Label], list[list[tuple[float, float]]]]] = []
    counts: dict[str, list[int]] = {n: [] for n in names}
    for axes, (metric, reference) in zip(chart.grid, metrics, strict=True):
        if log:
            style.log_axis(axes.xaxis, spread)
        labels: list[style.Label] = []
        lines: list[list[tuple[float, float]]] = []
        for order, name in enumerate(tidy.layered(names)):
            look, found = style.LOOKS[name], stops(errors[name], _by(of(path, metric, reference, name)))
            if not found:
                continue
            counts[name] += [len(stop.seeds) for stop in found]
            chart.lines += _lines(found, [r for r in path if r["row"] == name], metric, reference)
            line = [(stop.x, stop.y) for stop in found]
            lines.append(line)
            if many:
                _path(axes, found, look, steps, over=tidy.base(name) in names, order=order)
                continue
            base = 4 + 4 * order
            _means(axes, found, look, base)
            # The middle of the path, too, where that says more than its ends.
            wanted = {0, len(line) - 1} | ({len(line) // 2} if len(line) > 3 else set())
            labels += [style.Label(*line[i], f"{int(found[i].step):,}", look.color) for i in sorted(wanted)]
            heads.append((axes, look, line, base + 3))
        constants = tidy.constants(rows, main, metric, reference, paper)
        chart.constants([axes], metric, reference, constants)
        title(axes, tidy.title(metric, reference, space))
        axes.set_xlabel(tidy.title("ode_error", "teacher", space).removesuffix(" ↓") + "\n← better", linespacing=1.25)
        axes.margins(0.13)
        if not log:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=4, min_n_ticks=2))
        style.spread_axis(axes.yaxis, [y for line in lines for _, y in line] + list(constants.values()))
        texts.append((axes, labels, lines))
    among = names if many else None
    entries = [style.method_handle(n, f"{n} ({tidy.counted(counts[n])})", among) for n in names]
    entries += style.reference_handles(chart.shown)
    # What a mark's size means.
    entries += [
        style.mark_handle(
            f"after {int(step):,} steps", markersize=math.sqrt(_area(step, steps)), markerfacecolor=style.SOFT, markeredgewidth=0
        )
        for step in steps if many
    ]  # fmt: skip
    style.legend(chart.figure, entries)
    chart.references()
    for one in heads:
        _arrows(*one)
    for some in texts:
        style.place(*some)
    chart.save(COLUMNS, *files)


def _lines(found: Sequence[Stop], rows: Sequence[tidy.Row], metric: str, reference: str) -> list[dict[str, Any]]:
    """CSV lines of one method's stops, each seed's after their mean; `rows` are what they come from."""
    source = {tidy.value(r["step"]): r for r in rows}
    out = []
    for stop in found:
        own = {name: source[stop.step][name] for name in ("row", "adapter", "steps", "pool")}
        where = {"metric": metric, "reference": reference, **own, "step": int(stop.step)}
        points: list[tuple[dict[str, int], tuple[float, float]]] = [({"n_seeds": len(stop.seeds)}, (stop.x, stop.y))]
        points += [({"seed": seed}, point) for seed, point in stop.seeds.items()]
        out += [{**where, **said, "ode_error": tidy.number(x), "value": tidy.number(y)} for said, (x, y) in points]
    return out


def _by(rows: Sequence[tidy.Row]) -> dict[tuple[int, float], float]:
    """(seed, step) → value; undefined ones left out."""
    found = {(int(r["seed"]), tidy.value(r["step"])): tidy.value(r["value"]) for r in rows}
    return {key: v for key, v in found.items() if math.isfinite(v)}


def _means(axes: Axes, found: Sequence[Stop], look: style.Look, base: int) -> None:
    """One of a few methods' paths: each seed's, and the mean over all, whose marks grow along it."""
    seeds = sorted({seed for stop in found for seed in stop.seeds})
    for seed in seeds if len(seeds) > 1 else ():
        line = [stop.seeds[seed] for stop in found if seed in stop.seeds]
        axes.plot(*zip(*line, strict=True), color=look.color, linewidth=0.35, alpha=0.5, zorder=3)
    x, y = [stop.x for stop in found], [stop.y for stop in found]
    axes.plot(x, y, color="white", linewidth=2.2, zorder=base)
    axes.plot(x, y, color=look.color, linestyle=look.line, linewidth=1.2, zorder=base + 1)
    axes.scatter(
        x, y, s=[8 + 26 * i / max(1, len(x) - 1) for i in range(len(x))], marker=look.marker, facecolors=look.color,
        edgecolors="white", linewidths=0.4, zorder=base + 2,
    )  # fmt: skip


def _area(step: float, steps: Sequence[float]) -> float:
    """A mark's area in square points: it grows with the step's place among all."""
    return 5 + 27 * steps.index(step) / max(1, len(steps) - 1)


def _path(
    axes: Axes, found: Sequence[Stop], look: style.Look, steps: Sequence[float], *, over: bool, order: int
) -> None:
    """One of many methods' paths: nothing white that hides others, small marks above large ones, open where it is built `over` another."""
    x, y = [stop.x for stop in found], [stop.y for stop in found]
    axes.plot(x, y, color=look.color, linestyle=look.line, linewidth=0.8 if over else 1.3, alpha=0.85, zorder=4 + over)
    for stop in found:
        # An open mark is a ring around its base's, should they lie at one place.
        axes.scatter(
            stop.x, stop.y, s=_area(stop.step, steps) * (2.4 if over else 1.0), marker=look.marker,
            facecolors="none" if over else look.color, edgecolors=look.color if over else "white",
            linewidths=0.6 if over else 0.3, zorder=10 + 20 * (len(steps) - steps.index(stop.step)) + order + 1000 * over,
        )  # fmt: skip


def _arrows(axes: Axes, look: style.Look, line: Sequence[tuple[float, float]], zorder: int) -> None:
    """A head in the middle of every segment that is long enough for one, pointing on along training."""
    at = axes.transData.transform(np.array(line))
    for a, b in itertools.pairwise(at):
        length = float(np.hypot(*(b - a))) * 72 / axes.figure.dpi
        if length < 11:
            continue
        back = axes.transData.inverted().transform([a + (b - a) * 0.45, a + (b - a) * 0.6])
        axes.annotate(
            "", xy=back[1], xytext=back[0], zorder=zorder,
            arrowprops={
                "arrowstyle": "-|>,head_length=0.5,head_width=0.26", "facecolor": look.color, "edgecolor": "white",
                "linewidth": 0.3, "shrinkA": 0, "shrinkB": 0,
            },
        ).set_in_layout(False)  # fmt: skip
