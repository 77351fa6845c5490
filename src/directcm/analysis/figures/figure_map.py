"""The map: in which regime of budget, capacity and guidance is CM or Direct CM ahead, in FD and in ODE error?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn
from matplotlib.colors import FuncNorm, LinearSegmentedColormap
from matplotlib.patches import Patch, Rectangle

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.analysis.figures.chart import of, panels, title
from directcm.config import Setting
from directcm.config.specs import METRICS
from directcm.errors import UserError

EXHIBITS = {
    "map": {
        "title": "Map: who is better where",
        "short": "Who is better where",
        "scope": "paper",
        "takes": "comparisons setting",
        "needs": "paired_snapshots or several_w",
        "place": 14,
    }
}

COLUMNS = [
    "panel", "metric", "reference", "adapter", "step", "w", "steps", "pool", "difference", "low", "high", "p", "n_seeds",
    "significant", "inversion",
]  # fmt: skip
HATCH = "#8a8a8a"


@dataclass(frozen=True)
class Cell:
    """One regime: what it is read from, and whether it shows the paper's inversion."""

    row: tidy.Row
    significant: bool
    inversion: bool

    @property
    def difference(self) -> float:
        return tidy.value(self.row["difference"])


@dataclass(frozen=True)
class Map:
    """Cells by (metric, x, adapter), and what x is."""

    name: str
    label: str
    cells: Mapping[tuple[str, float, str], Cell]

    @property
    def xs(self) -> list[float]:
        return sorted({x for _, x, _ in self.cells})


def inverted(ode: tidy.Row | None, distance: tidy.Row | None, alpha: float = tidy.ALPHA) -> bool:
    """The paper's inversion: Direct CM has the lower ODE error and CM the lower FD, both significant (`tidy.significant`, unadjusted).

    Rows are CM − Direct CM, so their differences are > 0 and < 0.
    """
    if ode is None or distance is None:
        return False
    sure = tidy.significant(ode, alpha) and tidy.significant(distance, alpha)
    return sure and tidy.value(ode["difference"]) > 0 and tidy.value(distance["difference"]) < 0


@style.styled()
def draw(comparisons_csv: str | Path, main: Setting, *files: str | Path, alpha: float = tidy.ALPHA) -> None:
    """Heat maps of CM − Direct CM: FD to teacher above, ODE error below; training step × adapter, and over ω at the right.

    Cells are settings that differ from the setting `main` in adapter, and along `tidy.path`, or in w alone; > 0 means
    that Direct CM is better. Hatched: not significant at `alpha` (`tidy.significant`, unadjusted) or not tested. Bold outline: the paper's inversion.
    `files`: PDF, PNG and CSV to write. Raises UserError where neither adapter nor training step nor ω takes two values.
    """
    free = (*tidy.BUDGET_AXES, "adapter", "w")
    rows = tidy.differences(tidy.read(comparisons_csv, tidy.COMPARISON_COLUMNS), main, free)
    rows = [r for r in rows if math.isfinite(tidy.value(r["difference"]))]
    fd = tidy.first_of(tidy.DISTANCES, {(r["metric"], r["reference"]) for r in rows}, "teacher")
    metrics = [m for m in (fd, "ode_error") if m and of(rows, m, "teacher")]
    if not metrics:
        raise UserError("metrics: the map needs an FD and ode_error; add them to the key metrics of config.yaml")
    budget = [
        row
        for adapter in sorted({r["adapter"] for r in rows}, key=tidy.adapter_order)
        for row in tidy.path([r for r in rows if r["adapter"] == adapter], main.at(adapter=adapter), step="a_step")
    ]
    guided = [r for r in tidy.finished(rows, "a_step") if tidy.matches(r, main, ("w",))]
    maps = [
        Map("budget", "training steps", _table(budget, metrics, "a_step", alpha)),
        Map("guidance", f"guidance scale ω, at {main.steps} steps", _table(guided, metrics, "w", alpha)),
    ]
    # A panel of one cell is no map.
    maps = [one for one in maps if len({key[1:] for key in one.cells}) > 1]
    if not maps:
        raise UserError(
            "students: the grid varies neither steps nor adapter nor w around the main setting, and the map needs one of them; "
            "add snapshots: [62, 125], adapter: [lora4, full] or w: [1, 8] to a line of the key students of config.yaml"
        )
    # The row over ω stands level with its adapter's.
    adapters = sorted({key[2] for one in maps for key in one.cells}, key=tidy.adapter_order)
    deep = len(adapters)
    size = (
        max(style.COLUMN, min(style.PAGE, 1.6 + 0.56 * sum(len(one.xs) for one in maps))),
        (0.72 if deep > 1 else 0.55) + len(metrics) * ((0.62 if deep > 1 else 0.38) + 0.3 * deep),
    )
    chart = panels(len(metrics), len(maps), size, (0.06, 0.06), width_ratios=[len(one.xs) for one in maps])
    # Towards the colour of the method that is ahead: blue against orange, which colour-blind readers tell apart.
    cm, direct = (style.LOOKS[name].color for name in tidy.PAIR)
    palette = LinearSegmentedColormap.from_list("ahead", [cm, "#f7f7f7", direct])
    for row, metric in zip(chart.grid, metrics, strict=True):
        # The largest differences, of the shortest trainings, would leave all others white on a linear scale.
        limit = (
            max((abs(c.difference) for one in maps for key, c in one.cells.items() if key[0] == metric), default=0)
            or 1.0
        )
        norm = FuncNorm((_root, _square), vmin=-limit, vmax=limit)
        for panel, one in zip(row, maps, strict=True):
            for (own, x, adapter), cell in sorted(one.cells.items(), key=lambda item: item[0][1:]):
                if own != metric:
                    continue
                text = tidy.signed(cell.difference, METRICS[metric].decimals)
                text = f"ω = {x:g}\n{text}" if one.name == "guidance" else text
                _draw_cell(panel, one.xs.index(x), adapters.index(adapter), cell, palette(norm(cell.difference)), text)
                chart.lines.append(
                    {
                        **{k: cell.row[k] for k in ("metric", "reference", "adapter", "w", "steps", "pool")},
                        **{k: tidy.number(tidy.value(cell.row[k])) for k in ("difference", "low", "high", "p", "n_seeds")},
                        "panel": one.name, "step": cell.row["a_step"], "significant": int(cell.significant), "inversion": int(cell.inversion),
                    }
                )  # fmt: skip
            panel.set(xlim=(-0.5, len(one.xs) - 0.5), ylim=(deep - 0.5, -0.5), facecolor="white")
            named = one.name == "budget" and metric == metrics[-1]
            panel.set_xticks(range(len(one.xs)), [f"{x:g}" if named else "" for x in one.xs])
            panel.set_yticks(range(deep), [tidy.adapter_title(a) if one is maps[0] else "" for a in adapters])
            panel.tick_params(length=0)
            panel.grid(False)
        title(row[0], f"{tidy.name_of(metric, 'teacher')}: CM − Direct CM")
        # A low bar holds few labels.
        shares = (-1.0, -0.25, 0.0, 0.25, 1.0) if deep > 1 else (-1.0, 0.0, 1.0)
        bar = chart.figure.colorbar(
            plt.cm.ScalarMappable(norm, palette), ax=row[-1], ticks=[limit * v for v in shares], fraction=0.12,
            aspect=12 if deep > 1 else 6,
        )  # fmt: skip
        decimals = max(0, 1 - math.floor(math.log10(limit)))
        bar.ax.set_yticklabels([tidy.signed(limit * v, decimals) for v in shares])
        bar.ax.tick_params(labelsize=5.8)
        bar.set_label("root scale", size=5.8, labelpad=2)
        bar.outline.set_visible(False)
    chart.grid[-1, 0].set_xlabel(maps[0].label)
    for panel, one in zip(chart.grid[0, 1:], maps[1:], strict=True):
        panel.annotate(
            one.label, (-0.5, adapters.index(main.adapter) - 0.5), xytext=(0, 3), textcoords="offset points",
            annotation_clip=False,
        )  # fmt: skip
    entries = [
        Patch(facecolor=palette(0.8), label="> 0: Direct CM better"),
        Patch(facecolor=palette(0.2), label="< 0: CM better"),
        Patch(facecolor="white", edgecolor=HATCH, hatch="/////", linewidth=0.3, label=f"p > {alpha:g}, unadjusted"),
    ]
    if len(metrics) == 2:
        absent = "" if any(line["inversion"] for line in chart.lines) else ": no such cell"
        label = f"the paper's inversion{absent}"
        entries.append(Patch(facecolor="white", edgecolor=style.INK, linewidth=1.4, label=label))
    style.legend(chart.figure, entries, handlelength=1.6)
    seaborn.despine(chart.figure, left=True, bottom=True)
    chart.save(COLUMNS, *files)


def _draw_cell(panel: Any, x: int, y: int, cell: Cell, color: tuple[float, ...], text: str) -> None:
    """A cell around (x, y): its colour, hatched where it is not significant, outlined where it is an inversion, and its text."""
    box: dict[str, Any] = {"xy": (x - 0.5, y - 0.5), "width": 1, "height": 1, "linewidth": 0}
    panel.add_patch(Rectangle(facecolor=color, **box))
    if not cell.significant:
        panel.add_patch(Rectangle(facecolor="none", edgecolor=HATCH, hatch="/////", **box))
    if cell.inversion:
        edge: dict[str, Any] = {"facecolor": "none", "edgecolor": style.INK, "linewidth": 1.8, "zorder": 5}
        panel.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, **edge))
    behind = {"boxstyle": "round,pad=0.15", "facecolor": color, "edgecolor": "none"}
    panel.text(
        x, y, text, ha="center", va="center", fontsize=5.8, zorder=6, color="white" if style.luminance(color[:3]) < 55 else style.INK,
        bbox=None if cell.significant else behind,
    )  # fmt: skip


def _table(
    rows: Sequence[tidy.Row], metrics: Sequence[str], x: str, alpha: float
) -> dict[tuple[str, float, str], Cell]:
    """(metric, x, adapter) → cell."""
    found = {(m, tidy.value(r[x]), r["adapter"]): r for m in metrics for r in of(rows, m, "teacher")}
    distance = next((m for m in metrics if m != "ode_error"), "")
    return {
        key: Cell(
            row,
            tidy.significant(row, alpha),
            inverted(found.get(("ode_error", *key[1:])), found.get((distance, *key[1:])), alpha),
        )
        for key, row in found.items()
    }


def _root(x: Any) -> Any:
    return np.sign(x) * np.sqrt(np.abs(x))


def _square(x: Any) -> Any:
    return np.sign(x) * np.square(x)
