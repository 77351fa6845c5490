"""The frontier: ODE error against every quality metric, as each method's path along training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.config import Setting
from directcm.config.specs import METHODS, METRICS
from directcm.errors import UserError

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
    out = []
    for step in sorted({step for _, step in errors} & {step for _, step in values}):
        own = {
            seed: (errors[seed, s], v) for (seed, s), v in sorted(values.items()) if s == step and (seed, s) in errors
        }
        if own:
            xs, ys = zip(*own.values(), strict=True)
            out.append(Stop(step, math.fsum(xs) / len(xs), math.fsum(ys) / len(ys), own))
    return out


def draw(
    metrics_csv: str | Path,
    main: Setting,
    out_pdf: str | Path,
    out_png: str | Path,
    out_csv: str | Path,
    *,
    paper: Collection[str] = (),
    space: str = "latent",
) -> None:
    """One panel per quality metric: x the ODE error, y the metric, one path per method over its evaluated steps.

    Students of the setting `main` and its adapter, along `tidy.path`. Bold: means over seeds, thin:
    seeds; steps stand at the ends and at some points between. Of more than MOST_LABELLED methods means alone, their marks the
    larger the later. Raises UserError for fewer than two steps.
    `space`: what ODE errors are in, latent or pixel.
    """
    rows = tidy.read(metrics_csv, tidy.METRIC_COLUMNS)
    path = tidy.path(tidy.fewest(rows), main)
    steps = {tidy.value(r["step"]) for r in path}
    if len(steps) < 2:
        raise UserError(
            f"students: students of the main setting were evaluated after {len(steps)} number{'s' * (len(steps) != 1)} of steps, "
            "and this figure needs two; add snapshots: [62, 125] to a line of the key students of config.yaml"
        )
    panels = [key for key in tidy.keys(path) if key[0] != "ode_error"]
    if not panels or ("ode_error", "teacher") not in tidy.keys(path):
        raise UserError(
            "metrics: the frontier needs ode_error and a quality metric; add them to the key metrics of config.yaml"
        )
    names = [n for n in METHODS.values() if any(r["row"] == n for r in path)]
    out: list[dict[str, Any]] = []
    with style.styled():
        import matplotlib.pyplot as plt
        import seaborn
        from matplotlib.layout_engine import ConstrainedLayoutEngine
        from matplotlib.ticker import MaxNLocator

        many = len(names) > MOST_LABELLED
        columns = min(4 if len(panels) > 6 and not many else 3, len(panels))
        height = -(-len(panels) // columns)
        figure, grid = plt.subplots(
            height, columns, figsize=(max(style.PAGE * columns / 3, style.COLUMN) if columns < 3 else style.PAGE, 0.5 + (2.35 if many else 2.0) * height),
            squeeze=False, layout=ConstrainedLayoutEngine(wspace=0.06, hspace=0.07),
        )  # fmt: skip
        errors = {n: _by(path, n, "ode_error", "teacher") for n in names}
        spread = [v for own in errors.values() for v in own.values()]
        log = min(spread) > 0 and max(spread) / min(spread) > 10
        draws, panel_texts = [], []
        counts: dict[str, list[int]] = {n: [] for n in names}
        shown: set[str] = set()
        for index, axes in enumerate(grid.flat):
            if index >= len(panels):
                axes.remove()
                continue
            metric, reference = panels[index]
            if log:
                style.log_axis(axes.xaxis, spread)
            labels, avoid = [], []
            for order, name in enumerate(tidy.layered(names)):
                look, found = style.LOOKS[name], stops(errors[name], _by(path, name, metric, reference))
                if not found:
                    continue
                counts[name] += [len(stop.seeds) for stop in found]
                source = {tidy.value(r["step"]): r for r in path if r["row"] == name}
                for stop in found:
                    where = {
                        "metric": metric, "reference": reference, "row": name, "adapter": main.adapter,
                        "steps": source[stop.step]["steps"], "pool": source[stop.step]["pool"], "step": int(stop.step),
                    }  # fmt: skip
                    own = {"ode_error": tidy.number(stop.x), "value": tidy.number(stop.y), "n_seeds": len(stop.seeds)}
                    out.append({**where, **own})
                    for seed, (x, y) in stop.seeds.items():
                        out.append({**where, "seed": seed, "ode_error": tidy.number(x), "value": tidy.number(y)})
                seeds = sorted({seed for stop in found for seed in stop.seeds})
                # The seeds of many methods would be a thicket.
                if len(seeds) > 1 and not many:
                    for seed in seeds:
                        line = [stop.seeds[seed] for stop in found if seed in stop.seeds]
                        axes.plot(*zip(*line, strict=True), color=look.color, linewidth=0.35, alpha=0.5, zorder=3)
                line = [(stop.x, stop.y) for stop in found]
                base = 4 + 4 * order
                if many:
                    _path(axes, found, look, sorted(steps), over=tidy.base(name) in names, order=order)
                    avoid.append(line)
                    continue
                axes.plot(*zip(*line, strict=True), color="white", linewidth=2.2, zorder=base)
                axes.plot(
                    *zip(*line, strict=True), color=look.color, linestyle=look.line, linewidth=1.2, zorder=base + 1
                )
                axes.scatter(
                    *zip(*line, strict=True), s=[8 + 26 * i / max(1, len(line) - 1) for i in range(len(line))],
                    marker=look.marker, facecolors=look.color, edgecolors="white", linewidths=0.4, zorder=base + 2,
                )  # fmt: skip
                # The middle of the path, too, where that says more than its ends.
                wanted = {0, len(line) - 1} | ({len(line) // 2} if len(line) > 3 else set())
                labels += [style.Label(*line[i], f"{int(found[i].step):,}", look.color) for i in sorted(wanted)]
                avoid.append(line)
                draws.append((axes, look, line, base))
            constants = tidy.constants(rows, main, metric, reference, paper)
            shown |= set(constants)
            out += tidy.constant_rows(metric, reference, constants)
            axes.set_title(tidy.title(metric, reference, space), loc="left", fontsize=6.8, pad=4)
            axes.set_xlabel(
                tidy.title("ode_error", "teacher", space).removesuffix(" ↓") + "\n← better", linespacing=1.25
            )
            axes.margins(0.13)
            if not log:
                axes.xaxis.set_major_locator(MaxNLocator(nbins=4, min_n_ticks=2))
            heights = [y for line in avoid for _, y in line] + list(constants.values())
            style.spread_axis(axes.yaxis, heights)
            panel_texts.append((axes, labels, avoid, style.constants(constants, METRICS[metric].decimals)))
        texts = {n: f"{n} ({tidy.counted(counts[n])})" for n in names}
        entries = [
            style.method_handle(n, text, over=tidy.base(n) in names) if many else style.handle(style.LOOKS[n], text)
            for n, text in texts.items()
        ]
        entries += style.reference_handles(shown)
        if many:
            entries += [_size_handle(step, sorted(steps)) for step in sorted(steps)]
        style.legend(figure, entries)
        seaborn.despine(figure)
        for axes, _, _, marks in panel_texts:
            style.references([axes], marks)
        for axes, look, line, base in draws:
            _arrows(axes, look, line, base + 3)
        for axes, labels, avoid, _ in panel_texts:
            style.place(axes, labels, avoid)
        style.save(figure, out_pdf, out_png)
    tidy.write(out_csv, out, COLUMNS)


def _by(rows: Sequence[tidy.Row], row: str, metric: str, reference: str) -> dict[tuple[int, float], float]:
    """(seed, step) → value; undefined ones left out."""
    found = {
        (int(r["seed"]), tidy.value(r["step"])): tidy.value(r["value"])
        for r in rows
        if (r["row"], r["metric"], r["reference"]) == (row, metric, reference)
    }
    return {key: v for key, v in found.items() if math.isfinite(v)}


def _area(step: float, steps: Sequence[float]) -> float:
    """A mark's area in square points: it grows with the step's place among all."""
    return 5 + 27 * steps.index(step) / max(1, len(steps) - 1)


def _path(
    axes: Any, found: Sequence[Stop], look: style.Look, steps: Sequence[float], *, over: bool, order: int
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


def _size_handle(step: float, steps: Sequence[float]) -> Any:
    """A legend's entry for what a mark's size means."""
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], linestyle="", marker="o", markersize=math.sqrt(_area(step, steps)), color=style.SOFT, markeredgewidth=0,
        label=f"after {int(step):,} steps",
    )  # fmt: skip


def _arrows(axes: Any, look: style.Look, line: Sequence[tuple[float, float]], zorder: int) -> None:
    """A head in the middle of every segment that is long enough for one, pointing on along training."""
    import numpy as np

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
