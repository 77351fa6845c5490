"""The map: in which regime of budget, capacity and guidance is CM or Direct CM ahead, in FD and in ODE error?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.config import Setting
from directcm.config.specs import METRICS
from directcm.errors import UserError

EXHIBITS = {
    "map": {
        "title": "Map: who is better where",
        "short": "Who is better where",
        "scope": "paper",
        "takes": "comparisons setting",
        "needs": "snapshots or several_w",
        "place": 14,
    }
}

COLUMNS = [
    "panel", "metric", "reference", "adapter", "step", "w", "steps", "pool", "difference", "low", "high", "p", "n_seeds",
    "significant", "inversion",
]  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One regime: what it is read from, and whether it shows the paper's inversion."""

    row: tidy.Row
    significant: bool
    inversion: bool

    @property
    def difference(self) -> float:
        return tidy.value(self.row["difference"])


def inverted(ode: tidy.Row | None, distance: tidy.Row | None, alpha: float = tidy.ALPHA) -> bool:
    """The paper's inversion: Direct CM has the lower ODE error and CM the lower FD, both with p < `alpha` (unadjusted).

    Rows are CM − Direct CM, so their differences are > 0 and < 0.
    """
    if ode is None or distance is None:
        return False
    sure = tidy.value(ode["p"]) < alpha and tidy.value(distance["p"]) < alpha
    return sure and tidy.value(ode["difference"]) > 0 and tidy.value(distance["difference"]) < 0


def draw(
    comparisons_csv: str | Path,
    main: Setting,
    out_pdf: str | Path,
    out_png: str | Path,
    out_csv: str | Path,
    *,
    alpha: float = tidy.ALPHA,
) -> None:
    """Heat maps of CM − Direct CM: FD to teacher above, ODE error below; training step × adapter, and over ω at the right.

    Cells are settings that differ from the setting `main` in adapter, and along `tidy.path`, or in w alone; > 0 means
    that Direct CM is better. Hatched: p ≥ `alpha` (unadjusted) or not tested. Bold outline: the paper's inversion.
    Raises UserError where neither adapter nor training step nor ω takes two values.
    """
    rows = tidy.differences(
        tidy.read(comparisons_csv, tidy.COMPARISON_COLUMNS), main, (*tidy.BUDGET_AXES, "adapter", "w")
    )
    rows = [r for r in rows if math.isfinite(tidy.value(r["difference"]))]
    fd = tidy.first_of(tidy.DISTANCES, {(r["metric"], r["reference"]) for r in rows}, "teacher")
    metrics = [m for m in (fd, "ode_error") if m and any((r["metric"], r["reference"]) == (m, "teacher") for r in rows)]
    if not metrics:
        raise UserError("metrics: the map needs an FD and ode_error; add them to the key metrics of config.yaml")
    adapters = sorted({r["adapter"] for r in rows}, key=tidy.adapter_order)
    budget: list[tidy.Row] = []
    for adapter in adapters:
        budget += tidy.path([r for r in rows if r["adapter"] == adapter], main.at(adapter=adapter), step="a_step")
    guided = [r for r in tidy.finished(rows, "a_step") if tidy.matches(r, main, ("w",))]
    grids = [
        (
            "budget", "training steps", _table(budget, metrics, "a_step", alpha),
            sorted({r["adapter"] for r in budget}, key=tidy.adapter_order),
        ),
        ("guidance", f"guidance scale ω, at {main.steps} steps", _table(guided, metrics, "w", alpha), [main.adapter]),
    ]  # fmt: skip
    # A panel of one cell is no map.
    grids = [g for g in grids if len({(x, a) for _, x, a in g[2]}) > 1]
    if len(grids) == 2:
        # The row over ω stands level with its adapter's.
        lines = sorted({*grids[0][3], main.adapter}, key=tidy.adapter_order)
        grids = [(*g[:3], lines) for g in grids]
    if not grids:
        raise UserError(
            "students: the grid varies neither steps nor adapter nor w around the main setting, and the map needs one of them; "
            "add snapshots: [62, 125], adapter: [lora4, full] or w: [1, 8] to a line of the key students of config.yaml"
        )
    out: list[dict[str, Any]] = []
    with style.styled():
        import matplotlib.pyplot as plt
        from matplotlib.colors import FuncNorm, LinearSegmentedColormap
        from matplotlib.layout_engine import ConstrainedLayoutEngine
        from matplotlib.patches import Patch, Rectangle

        xs = [sorted({x for _, x, _ in table}) for _, _, table, _ in grids]
        deep = max(len(g[3]) for g in grids)
        width = min(style.PAGE, 1.6 + 0.56 * sum(map(len, xs)))
        figure, axes = plt.subplots(
            len(metrics), len(grids), squeeze=False, figsize=(max(style.COLUMN, width), (0.72 if deep > 1 else 0.55) + len(metrics) * ((0.62 if deep > 1 else 0.38) + 0.3 * deep)),
            width_ratios=[len(x) for x in xs], layout=ConstrainedLayoutEngine(wspace=0.06, hspace=0.06),
        )  # fmt: skip
        # Towards the colour of the method that is ahead: blue against orange, which colour-blind readers tell apart.
        ends = [style.LOOKS[name].color for name in tidy.PAIR]
        palette = LinearSegmentedColormap.from_list("ahead", [ends[0], "#f7f7f7", ends[1]])
        found = False
        for m, metric in enumerate(metrics):
            cells = [c for _, _, table, _ in grids for key, c in table.items() if key[0] == metric]
            # The largest differences, of the shortest trainings, would leave all others white on a linear scale.
            limit = max((abs(c.difference) for c in cells), default=1.0) or 1.0
            norm = FuncNorm((_root, _square), vmin=-limit, vmax=limit)
            for g, (name, label, table, lines) in enumerate(grids):
                panel = axes[m, g]
                for (own, x, adapter), cell in sorted(table.items(), key=lambda item: (item[0][1], item[0][2])):
                    if own != metric:
                        continue
                    at = (xs[g].index(x), lines.index(adapter))
                    color = palette(norm(cell.difference))
                    box: dict[str, Any] = {"width": 1, "height": 1, "linewidth": 0}
                    panel.add_patch(Rectangle((at[0] - 0.5, at[1] - 0.5), facecolor=color, **box))
                    if not cell.significant:
                        panel.add_patch(
                            Rectangle(
                                (at[0] - 0.5, at[1] - 0.5), facecolor="none", edgecolor="#8a8a8a", hatch="/////", **box
                            )
                        )
                    if cell.inversion:
                        found = True
                        panel.add_patch(
                            Rectangle(
                                (at[0] - 0.46, at[1] - 0.46), 0.92, 0.92, facecolor="none", edgecolor=style.INK, linewidth=1.8,
                                zorder=5,
                            )
                        )  # fmt: skip
                    text = tidy.signed(cell.difference, METRICS[metric].decimals)
                    if name == "guidance":
                        text = f"ω = {x:g}\n{text}"
                    behind = {"boxstyle": "round,pad=0.15", "facecolor": color, "edgecolor": "none"}
                    panel.text(
                        *at, text, ha="center", va="center", fontsize=5.8, zorder=6,
                        color="white" if _dark(color) else style.INK, bbox=None if cell.significant else behind,
                    )  # fmt: skip
                    out.append(
                        {
                            "panel": name, "metric": metric, "reference": "teacher", "adapter": adapter, "w": cell.row["w"],
                            "step": cell.row["a_step"], "steps": cell.row["steps"], "pool": cell.row["pool"],
                            **{k: tidy.number(tidy.value(cell.row[k])) for k in ("difference", "low", "high", "p", "n_seeds")},
                            "significant": int(cell.significant), "inversion": int(cell.inversion),
                        }
                    )  # fmt: skip
                panel.set(xlim=(-0.5, len(xs[g]) - 0.5), ylim=(len(lines) - 0.5, -0.5), facecolor="white")
                named = name == "budget" and m == len(metrics) - 1
                panel.set_xticks(range(len(xs[g])), [f"{x:g}" for x in xs[g]] if named else [""] * len(xs[g]))
                panel.set_yticks(range(len(lines)), [tidy.adapter_title(a) if g == 0 else "" for a in lines])
                panel.tick_params(length=0)
                panel.grid(False)
                for spine in panel.spines.values():
                    spine.set_visible(False)
                if g == 0 and m == len(metrics) - 1:
                    panel.set_xlabel(label)
                elif g and m == 0:
                    panel.annotate(
                        label, (-0.5, lines.index(main.adapter) - 0.5), xytext=(0, 3), textcoords="offset points",
                        annotation_clip=False,
                    )  # fmt: skip
                if g == 0:
                    panel.set_title(
                        f"{tidy.name_of(metric, 'teacher')}: CM − Direct CM", loc="left", fontsize=6.8, pad=4
                    )
            # A low bar holds few labels.
            shares = (-1.0, -0.25, 0.0, 0.25, 1.0) if deep > 1 else (-1.0, 0.0, 1.0)
            bar = figure.colorbar(
                plt.cm.ScalarMappable(norm, palette), ax=axes[m, -1], ticks=[limit * v for v in shares], fraction=0.12,
                aspect=12 if deep > 1 else 6,
            )  # fmt: skip
            decimals = max(0, 1 - math.floor(math.log10(limit)))
            bar.ax.set_yticklabels([tidy.signed(limit * v, decimals) for v in shares])
            bar.ax.tick_params(labelsize=5.8)
            bar.set_label("root scale", size=5.8, labelpad=2)
            bar.outline.set_visible(False)
        several = len(metrics) == 2
        entries: list[Any] = [
            Patch(facecolor=palette(0.8), label="> 0: Direct CM better"),
            Patch(facecolor=palette(0.2), label="< 0: CM better"),
            Patch(
                facecolor="white", edgecolor="#8a8a8a", hatch="/////", linewidth=0.3, label=f"p ≥ {alpha:g}, unadjusted"
            ),
        ]
        if several:
            text = "the paper's inversion" if found else "the paper's inversion: no such cell"
            entries.append(Patch(facecolor="white", edgecolor=style.INK, linewidth=1.4, label=text))
        style.legend(figure, entries, handlelength=1.6)
        style.save(figure, out_pdf, out_png)
    tidy.write(out_csv, out, COLUMNS)


def _table(
    rows: Sequence[tidy.Row], metrics: Sequence[str], x: str, alpha: float
) -> dict[tuple[str, float, str], Cell]:
    """(metric, x, adapter) → cell."""
    found = {
        (r["metric"], tidy.value(r[x]), r["adapter"]): r
        for r in rows
        if r["metric"] in metrics and r["reference"] == "teacher"
    }
    distance = next((m for m in metrics if m != "ode_error"), "")
    return {
        (metric, at, adapter): Cell(
            row,
            tidy.value(row["p"]) < alpha,
            inverted(found.get(("ode_error", at, adapter)), found.get((distance, at, adapter)), alpha),
        )
        for (metric, at, adapter), row in found.items()
    }


def _root(x: Any) -> Any:
    import numpy as np

    return np.sign(x) * np.sqrt(np.abs(x))


def _square(x: Any) -> Any:
    import numpy as np

    return np.sign(x) * np.square(x)


def _dark(color: Sequence[float]) -> bool:
    return style.luminance("#" + "".join(f"{round(255 * c):02x}" for c in color[:3])) < 55
