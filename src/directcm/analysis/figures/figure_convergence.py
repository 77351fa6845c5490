"""The convergence of the theory: measured values over N, and beside them lines of the slopes that theory predicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import seaborn
from matplotlib.ticker import NullFormatter

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.analysis.figures.chart import panels
from directcm.errors import UserError
from directcm.runtime.artifacts import Artifact

EXHIBITS = {
    "convergence": {"title": "Convergence of the theory", "takes": "convergence", "needs": "convergence", "place": 6}
}

SERIES = ("part", "teacher", "process", "solver", "quantity")
COLUMNS = [*SERIES, "N", "value", "n", "predicted", "slope", "low", "high", "N_low", "N_high"]
ERROR, ENDPOINT = "error to the flow map", "endpoint error"
BLUE, ORANGE, GREEN, PINK = "#004c8c", "#d97400", "#009e73", "#cc79a7"
LOOKS = {
    "ddim": style.Look(BLUE, "o", "-"),
    "euler": style.Look(ORANGE, "s", "-"),
    "heun": style.Look(GREEN, "^", "-"),
    "edm_heun": style.Look(PINK, "D", "-"),
}
# From this distance on of a measured slope from the predicted one its last part is told, too.
OFF = 0.1
FLOOR = style.Look("#8a8a8a", "^", (0, (1, 1.2)))


@dataclass(frozen=True)
class Line:
    """One series of a panel: its fields (SERIES), and how it is called and drawn."""

    fields: tuple[str, str, str, str, str]
    label: str
    look: style.Look
    hollow: bool = False


def _gap(quantity: str, label: str, look: style.Look, hollow: bool = False) -> Line:
    return Line(("gap", "mixture", "karras", "ddim", quantity), label, look, hollow)


PANELS: tuple[tuple[str, str, tuple[Line, ...]], ...] = (
    (
        "Solvers, VP",
        "error of the endpoint (RMS)",
        (
            *(
                Line(("solver", "gaussian", "vp", name, ENDPOINT), label, LOOKS[name])
                for name, label in (("ddim", "DDIM"), ("euler", "Euler"), ("heun", "Heun"), ("edm_heun", "Heun (EDM)"))
            ),
            Line(("solver", "gaussian", "vp_1000", "heun", ENDPOINT), "Heun, 1,000 steps", FLOOR, True),
        ),
    ),
    (
        "Solvers, Karras",
        "error of the endpoint (RMS)",
        (
            Line(("solver", "gaussian", "karras", "euler", ENDPOINT), "Euler = DDIM", LOOKS["euler"]),
            Line(("solver", "gaussian", "karras", "heun", ENDPOINT), "Heun = Heun (EDM)", LOOKS["heun"]),
        ),
    ),
    (
        "CM: the student of zero loss",
        "error to the flow map (RMS)",
        (
            Line(("cm", "mixture", "karras", "euler", ERROR), "Euler, mixture", LOOKS["euler"]),
            Line(("cm", "mixture", "karras", "heun", ERROR), "Heun, mixture", LOOKS["heun"]),
            Line(("cm", "gaussian", "vp", "euler", ERROR), "Euler, Gaussian, VP", LOOKS["euler"], True),
            Line(("cm", "gaussian", "vp", "heun", ERROR), "Heun, Gaussian, VP", LOOKS["heun"], True),
        ),
    ),
    (
        "CT against CD: the losses",
        "squared loss / h²",
        (
            _gap("CT's loss less CD's, over h²", "CT − CD", style.Look(BLUE, "o", "-")),
            _gap("E tr(J Σ Jᵀ)", "E tr(J Σ Jᵀ)", style.Look(style.INK, "", (0, (1, 1.2)))),
            _gap("CD's loss, over h²", "CD", style.Look(FLOOR.color, "s", "-"), True),
        ),
    ),
    (
        "CT against CD: the gradients",
        "‖CT − CD‖ / ‖CD‖",
        (
            _gap("relative gap of the gradient, both arms", "both arms", style.Look(PINK, "D", "-")),
            _gap("relative gap of the gradient, frozen target, norm", "frozen, norm", style.Look(ORANGE, "^", "-")),
            _gap("relative gap of the gradient, frozen target", "frozen, squared", style.Look(BLUE, "o", "-")),
        ),
    ),
    (
        "CT against CD: the students",
        "distance to CD's student (RMS)",
        (
            Line(("ct", "mixture", "karras", "ct_norm", "distance to CD's student"), "CT, norm", style.Look(ORANGE, "^", "-")),
            Line(("ct", "mixture", "karras", "ct", "distance to CD's student"), "CT, squared", style.Look(BLUE, "o", "-")),
        ),
    ),
)  # fmt: skip


@style.styled()
def draw(convergence: Artifact, *files: str | Path) -> None:
    """Draw an artefact of kind "convergence": a panel per prediction, log over log.

    Dashed: the predicted slope, through the last value. In a panel's legend the slope as measured and (predicted). `files`: PDF,
    PNG and CSV to write. Raises UserError where a series is not in the artefact.
    """
    values, slopes = (_by_series(convergence.csv(name)) for name in ("convergence.csv", "slopes.csv"))
    chart = panels(2, 3, (style.PAGE, 4.9), (0.04, 0.05))
    for axes, (title, unit, lines) in zip(chart.grid.flat, PANELS, strict=True):
        axes.set(xscale="log", yscale="log", xlabel="N", ylabel=unit)
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_title(title, fontsize=7.2, pad=5)
        entries = []
        for line in lines:
            rows = values.get(line.fields)
            if not rows:
                raise UserError(
                    f"{convergence.folder}: has no {', '.join(line.fields)}; delete the folder and run again"
                )
            fit = slopes.get(line.fields, [None])[0]
            _one(axes, rows, fit, line)
            text = _label(line, rows, fit)
            entries.append(style.handle(line.look, text, hollow=line.hollow, marker=bool(line.look.marker)))
            chart.lines += [{**row, **(fit or {}), "n": row["n"]} for row in rows]
        _room(axes, len(entries))
        axes.legend(
            handles=entries, loc="lower left", fontsize=style.SMALL, handlelength=2.0, handletextpad=0.5,
            labelspacing=0.3, borderpad=0.1, borderaxespad=0.3,
        )  # fmt: skip
    chart.figure.draw_without_rendering()
    for axes, (_, _, lines) in zip(chart.grid.flat, PANELS, strict=True):
        style.values_axis(axes, {tidy.value(r["N"]) for line in lines for r in values[line.fields]}, log=True)
    seaborn.despine(chart.figure)
    chart.save(COLUMNS, *files)


def _by_series(rows: Sequence[Mapping[str, str]]) -> dict[tuple[str, ...], list[dict[str, str]]]:
    out: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        out.setdefault(tuple(row[name] for name in SERIES), []).append(dict(row))
    return out


def _label(line: Line, rows: Sequence[Mapping[str, str]], fit: Mapping[str, str] | None) -> str:
    """ "Euler  −0.97 (−1)": the slope as measured, and as predicted; "CT  −0.65 → −0.78 (−1)" where it still nears that.

    After the arrow: the slope between the last two N, where the whole one is OFF or more from what is predicted.
    """
    if fit is None:
        return line.label
    slope, predicted = tidy.value(fit["slope"]), tidy.value(fit["predicted"])
    text = tidy.signed(slope, 2)
    last = last_slope(rows)
    if abs(slope - predicted) >= OFF and abs(last - predicted) < abs(slope - predicted) - 0.01:
        text += f" → {tidy.signed(last, 2)}"
    return f"{line.label}  {text} ({predicted:.0f})".replace("-", "−")


def last_slope(rows: Sequence[Mapping[str, str]]) -> float:
    """d log value / d log N between the two largest N; NaN where there are not two, or not above 0."""
    ends = sorted((tidy.value(row["N"]), tidy.value(row["value"])) for row in rows)[-2:]
    if len(ends) < 2 or not min(value for _, value in ends) > 0:
        return math.nan
    (n, a), (m, b) = ends
    return math.log(b / a) / math.log(m / n)


def _one(axes: Any, rows: Sequence[Mapping[str, str]], fit: Mapping[str, str] | None, line: Line) -> None:
    x, y = ([tidy.value(row[name]) for row in rows] for name in ("N", "value"))
    look = line.look
    if fit is not None:
        power = tidy.value(fit["predicted"])
        ends = (min(x) / 1.1, max(x) * 1.1)
        # Through the last point: what is predicted is what the values come to, not where they start.
        heights = [y[-1] * (end / x[-1]) ** power for end in ends]
        axes.plot(ends, heights, color=look.color, linestyle=(0, (5, 2)), linewidth=0.7, alpha=0.75, zorder=3)
    axes.plot(
        x, y, color=look.color, linestyle=look.line, linewidth=0.7 if fit is not None else 1.0, alpha=0.9, zorder=4
    )
    if look.marker:
        axes.scatter(
            x, y, s=15, marker=look.marker, facecolors="white" if line.hollow else look.color, edgecolors=look.color,
            linewidths=0.9, zorder=5,
        )  # fmt: skip


def _room(axes: Any, entries: int) -> None:
    """Place for a legend below what is drawn."""
    low, high = (math.log10(v) for v in axes.get_ylim())
    # At least a decade high, so that what is flat looks flat.
    high = max(high, low + 1.0)
    axes.set_ylim(10 ** (low - (high - low) * 0.075 * (entries + 0.6)), 10**high)
