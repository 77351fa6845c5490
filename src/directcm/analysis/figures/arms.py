"""What figures of the experiments on why share: the arms' values by unit, and means over units with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scipy import stats

from directcm.analysis.data import tidy
from directcm.analysis.data.experiments import CLOSED, DISPLACEMENT
from directcm.analysis.data.why import ARMS
from directcm.analysis.figures import style
from directcm.config.specs import METHODS, METRICS
from directcm.errors import UserError
from directcm.runtime.artifacts import read_csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVEL = 0.95
# A colour, marker and dash for each of a few values that grow: from light to dark, so that their order shows in greyscale too.
SHADES = (
    style.Look("#e08214", "o", (0, (1.2, 1.2))), style.Look("#35978f", "s", (0, (4, 1.6))), style.Look("#2d004b", "D", "-"),
    style.Look("#7a7a7a", "^", (0, (6, 1.2, 1, 1.2))),
)  # fmt: skip
# Which Fréchet distance and which fit to the prompt stand in a figure: the first that there is.
DISTANCES = ("fid", "fd_tiny")
ALIGNMENTS = ("clip_score", "clip_tiny")


@dataclass(frozen=True)
class Arm:
    """An arm by unit: value by (metric, reference), and what it is (`fields`, as text)."""

    name: str
    by: str
    fields: Mapping[str, str]
    values: dict[tuple[str, str], dict[int, float]]

    def number(self, field: str) -> float:
        return tidy.value(self.fields[field])

    def of(self, metric: str, reference: str) -> dict[int, float]:
        """Unit → value; none where it is not there."""
        return self.values.get((metric, reference), {})


def read(paths: Sequence[str | Path]) -> list[Arm]:
    """The arms of files that `why` wrote, in their order."""
    out: dict[tuple[str, str], Arm] = {}
    for path in paths:
        lines = read_csv(path)
        if not lines or set(lines[0]) != set(ARMS):
            raise UserError(f"{path}: holds no arms of an experiment; make it again: directcm why")
        for line in lines:
            key = line["arm"], line["by"]
            arm = out.setdefault(key, Arm(line["arm"], line["by"], line, {}))
            value = tidy.value(line["value"])
            if math.isfinite(value):
                arm.values.setdefault((line["metric"], line["reference"]), {})[int(line["unit"])] = value
    return list(out.values())


def first(arms: Iterable[Arm], names: Sequence[str], reference: str) -> tuple[str, str] | None:
    """The first of these metrics that the arms have, with its reference."""
    there = {key for arm in arms for key in arm.values}
    return next(((name, reference) for name in names if (name, reference) in there), None)


def shown(arms: Sequence[Arm]) -> list[tuple[str, str]]:
    """ODE error, Fréchet distance and fit to the prompt: (metric, reference) of those that the arms have."""
    found = [
        first(arms, ("ode_error",), "teacher"),
        first(arms, DISTANCES, "teacher"),
        first(arms, ALIGNMENTS, "prompt"),
    ]
    return [key for key in found if key is not None]


def interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float, float]:
    """(mean, low, high) over units by Student's t, prompts fixed; NaN ends for one unit."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, math.nan, math.nan
    sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = float(stats.t.isf((1 - level) / 2, n - 1)) * sd / math.sqrt(n)
    return mean, mean - half, mean + half


def title(metric: str, reference: str, space: str = "latent") -> str:
    """A metric's title in a panel."""
    if metric == DISPLACEMENT:
        return "Distance travelled (latent MSE)"
    return tidy.title(metric, reference, space) if metric in METRICS else CLOSED[metric][0]


def units_of(arms: Iterable[Arm]) -> str:
    """ "5 teachers", "3 and 5 seeds": how many units there are of these arms."""
    counts: dict[str, set[int]] = {}
    for arm in arms:
        counts.setdefault(arm.by, set()).update(len(own) for own in arm.values.values())
    texts = [f"{' or '.join(map(str, sorted(own)))} {by}{'s' * (max(own) > 1)}" for by, own in counts.items()]
    return ", ".join(texts)


def line(arm: Arm, metric: str, reference: str, x: float | None = None, **fields: Any) -> dict[str, Any]:
    """A line of a figure's CSV: an arm's mean and interval."""
    mean, low, high = interval([*arm.of(metric, reference).values()])
    own = {"arm": arm.name, "metric": metric, "reference": reference, "mean": mean, "low": low, "high": high}
    return {**fields, **own, "x": x, "n": len(arm.of(metric, reference))}


COLUMNS = ["panel", "series", "arm", "metric", "reference", "x", "mean", "low", "high", "n"]


def written(lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Lines of COLUMNS with empty fields where something is no number."""
    out = []
    for one in lines:
        found = {name: one.get(name) for name in COLUMNS}
        out.append(
            {
                k: None if isinstance(v, float) and not math.isfinite(v) else f"{v:.10g}" if isinstance(v, float) else v
                for k, v in found.items()
            }
        )
    return out


def curve(axes: Axes, points: Sequence[tuple[float, Mapping[int, float]]], look: style.Look, *, order: int = 0) -> None:
    """Means over units against x with intervals as bars, and each unit as a thin line."""
    points = sorted(points, key=lambda point: point[0])
    units = sorted({unit for _, own in points for unit in own})
    for unit in units if len(units) > 1 else ():
        axes.plot(
            [x for x, own in points if unit in own],
            [own[unit] for _, own in points if unit in own],
            color=look.color,
            linewidth=0.4,
            alpha=0.4,
            zorder=3,
        )
    found = [(x, *interval([*own.values()])) for x, own in points if own]
    base = 5 + 3 * order
    axes.plot(
        [x for x, *_ in found],
        [mean for _, mean, *_ in found],
        color=look.color,
        linestyle=look.line,
        linewidth=1.3,
        zorder=base,
    )
    for x, _, low, high in found:
        if math.isfinite(low):
            axes.plot([x, x], [low, high], color=look.color, linewidth=0.8, zorder=base, solid_capstyle="butt")
    axes.scatter(
        [x for x, *_ in found],
        [mean for _, mean, *_ in found],
        s=14,
        marker=look.marker,
        color=look.color,
        zorder=base + 1,
    )


def dots(
    axes: Axes, y: float, values: Sequence[float], color: str, *, marker: str = "s", filled: bool = True
) -> tuple[float, float, float]:
    """Units as small open dots, their mean and interval, on one line; returns the latter."""
    mean, low, high = interval(values)
    if math.isfinite(low):
        axes.plot([low, high], [y, y], color=color, linewidth=1.2, solid_capstyle="butt", zorder=3)
    if len(values) > 1:
        axes.scatter(
            values, [y] * len(values), s=7, facecolors="none", edgecolors=color, linewidths=0.5, alpha=0.6, zorder=3
        )
    axes.plot(
        mean,
        y,
        marker=marker,
        markersize=4.2,
        markerfacecolor=color if filled else "white",
        markeredgecolor=color,
        markeredgewidth=0.9,
        zorder=5,
    )
    return mean, low, high


def method(arm: Arm) -> str:
    """The label of an arm's method."""
    return METHODS.get(arm.fields["method"], arm.fields["method"])
