"""Training curves: loss and gradient norm against optimiser steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import seaborn
from matplotlib.ticker import MaxNLocator

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.analysis.figures.chart import place_of
from directcm.config.specs import METHODS
from directcm.errors import UserError
from directcm.runtime.artifacts import Artifact, read_csv, write_csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EXHIBITS = {
    "curves": {"title": "Training curves", "takes": "students", "also": {"mean": "mean_curves.csv"}, "place": 5}
}

QUANTITIES = ("loss", "grad_norm")
CURVE_COLUMNS = ["method", "seed", "step", *QUANTITIES]
MOST_POINTS = 2000


@dataclass(frozen=True)
class Curve:
    """One student's training: `row` is "CM" or "Direct CM"; arrays (steps,), NaN where nothing was recorded."""

    row: str
    seed: int
    step: np.ndarray
    loss: np.ndarray
    grad_norm: np.ndarray


def read_curve(row: str, seed: int, path: str | Path) -> Curve:
    """Read a student's curve.csv (columns step, loss, grad_norm and more; one line per optimiser step)."""
    lines = read_csv(path)
    if not lines:
        raise UserError(f"{path}: holds no steps; train the student again")
    try:
        step = np.array([int(line["step"]) for line in lines])
        loss = np.array([float(line["loss"]) for line in lines])
        grad = np.array([float(line["grad_norm"] or "nan") for line in lines])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a training curve ({error}); train the student again") from None
    if (np.diff(step) <= 0).any():
        raise UserError(f"{path}: steps do not ascend; train the student again")
    return Curve(row, seed, step, loss, grad)


def table(curves: Sequence[Curve], out_csv: str | Path) -> None:
    """Write the curves as one tidy CSV (CURVE_COLUMNS), for `dvc plots` and for anyone's own figure."""
    rows = [
        {
            "method": curve.row, "seed": curve.seed, "step": int(step),
            **{name: float(value) if math.isfinite(value) else None for name, value in zip(QUANTITIES, values, strict=True)},
        }
        for curve in _ordered(curves)
        for step, *values in zip(curve.step, curve.loss, curve.grad_norm, strict=True)
    ]  # fmt: skip
    write_csv(out_csv, rows, CURVE_COLUMNS)


def mean_table(curves: Sequence[Curve], out_csv: str | Path) -> None:
    """Write the mean curves over seeds, a column per method and quantity ("loss_CM" …): the shape `dvc plots` draws."""
    values: dict[str, dict[int, list[float]]] = {}
    for quantity in QUANTITIES:
        for curve in _ordered(curves):
            column = values.setdefault(f"{quantity}_{curve.row.replace(' ', '_')}", {})
            for step, value in zip(curve.step, getattr(curve, quantity), strict=True):
                if math.isfinite(value):
                    column.setdefault(int(step), []).append(float(value))
    steps = sorted({int(step) for curve in curves for step in curve.step})
    rows = [
        {"step": step, **{label: math.fsum(own[step]) / len(own[step]) for label, own in values.items() if step in own}}
        for step in steps
    ]
    tidy.write(out_csv, rows, ["step", *values])


def _ordered(curves: Sequence[Curve]) -> list[Curve]:
    return sorted(curves, key=lambda c: (place_of(c.row), c.row, c.seed))


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Centred moving geometric mean, (n,): what a log axis shows as an average. Values ≤ 0 and NaN are left out."""
    positive = np.isfinite(values) & (values > 0)
    logs = np.log(np.where(positive, values, 1.0))
    total, count = (np.concatenate([[0.0], np.cumsum(part)]) for part in (logs, positive))
    at, half = np.arange(len(values)), window // 2
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    n = count[high] - count[low]
    return np.where(n > 0, np.exp((total[high] - total[low]) / np.maximum(n, 1)), np.nan)


def draw(students: Sequence[Artifact], *files: str | Path) -> None:
    """The curves of these students, and beside them their means over seeds (`mean_table`); `files`: PDF, PNG and CSV to write."""
    curves = [read_curve(METHODS[s.run.method], s.run.seed, s.file("curve.csv")) for s in students]
    plot(curves, *files)
    mean_table(curves, Path(files[-1]).with_name("mean_curves.csv"))


@style.styled()
def plot(curves: Sequence[Curve], out_pdf: str | Path, out_png: str | Path, out_csv: str | Path) -> None:
    """Training loss and gradient norm against optimiser steps, log axes, one colour and dash per method.

    Thin: every seed as recorded. Bold: the geometric mean over seeds of the smoothed curves; band: their range.
    The CSV is `table`'s, from which both follow.
    """
    if not curves:
        raise UserError("curves: none given; train a student first")
    groups: dict[str, list[Curve]] = {}
    for curve in _ordered(curves):
        groups.setdefault(curve.row, []).append(curve)
    # Many methods want height.
    figure, both = plt.subplots(1, 2, figsize=(style.PAGE, 2.5 if len(groups) <= 4 else 3.6), layout="constrained")
    layered = tidy.layered(groups)
    for axes, name, label in zip(both, QUANTITIES, ("training loss", "gradient norm"), strict=True):
        for order, row in enumerate(layered):
            _one(axes, groups, row, name, order)
        if any((getattr(curve, name) > 0).any() for curve in curves):
            axes.set_yscale("log")
        axes.set(xlabel="optimiser step", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.margins(x=0.02)
        axes.tick_params(which="minor", labelsize=5.5, labelcolor=style.SOFT)
    seaborn.despine(figure)
    drawn_as = dict(zip(layered, both[0].get_legend_handles_labels()[0], strict=True))
    style.legend(figure, [drawn_as[row] for row in groups], handlelength=3.2)
    style.save(figure, out_pdf, out_png)
    table(curves, out_csv)


def _one(axes: Axes, groups: Mapping[str, list[Curve]], row: str, name: str, order: int) -> None:
    """The curves of one method, the `order`th to be drawn, and their mean and range."""
    group, look = groups[row], style.LOOKS[row]
    window = 2 * (max(len(c.step) for c in group) // 40) + 1
    smoothed = []
    for curve in group:
        values = getattr(curve, name)
        stride = math.ceil(len(values) / MOST_POINTS)
        shown = np.where(np.isfinite(values) & (values > 0), values, np.nan)[::stride]
        axes.plot(curve.step[::stride], shown, color=look.color, linewidth=0.35, alpha=0.3, zorder=2)
        smoothed.append(smooth(values, window))
    # Seeds of one method have the same steps; a run that is still short ends the average early.
    length = min(map(len, smoothed))
    stack, steps = np.array([s[:length] for s in smoothed]), group[0].step[:length]
    with np.errstate(all="ignore"):
        middle = np.exp(np.log(stack).mean(axis=0))
    if len(group) > 1:
        low, high = stack.min(axis=0), stack.max(axis=0)
        axes.fill_between(steps, low, high, color=look.color, alpha=0.2, linewidth=0, zorder=3)
    # One that is built over another runs along it: thin and open, above its base's thick line.
    over, based = tidy.base(row) in groups, row in map(tidy.base, groups)
    # White under the line keeps it apart from the thin ones of the other method.
    if not over:
        axes.plot(steps, middle, color="white", linewidth=2.0, zorder=4 + 2 * order)
    # Marks of several methods take turns.
    first = (order % 2) * max(1, length // 16) if len(groups) <= 2 else order * length // (8 * len(groups))
    axes.plot(
        steps, middle, color=look.color, linestyle=look.line, marker=look.marker, markersize=3.2,
        markerfacecolor="white" if over else look.color, markeredgewidth=0.8 if over else None,
        markevery=(first, max(1, length // 8)), linewidth=0.8 if over else 2.0 if based else 1.3, zorder=5 + 2 * order,
        label=f"{row} ({len(group)} seed{'s' * (len(group) != 1)})",
    )  # fmt: skip
