"""Table 1 as a figure: every metric as dots, ± one standard deviation over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from directcm.analysis.data import tidy
from directcm.analysis.data.selection import steps_label
from directcm.analysis.figures import style
from directcm.config.specs import METRICS
from directcm.errors import UserError

EXHIBITS = {"results": {"title": "Table 1 as a figure", "takes": "table", "place": 4}}

COLUMNS = ("row", "steps", "metric", "reference", "mean", "sd", "n_seeds", "n_samples", "paper")


def draw(table_csv: str | Path, out_pdf: str | Path, out_png: str | Path, out_csv: str | Path) -> None:
    """Table 1 as dots: one small panel with its own axis per metric and reference, ± sd over seeds as bars.

    Raises UserError where the table has no rows or names a model that has no look.
    """
    lines = tidy.read(table_csv, COLUMNS)
    strangers = sorted({line["row"] for line in lines} - set(tidy.ROWS))
    if strangers:
        raise UserError(
            f"{table_csv}: unknown row {strangers[0]!r}; there are {', '.join(tidy.ROWS)}; make the table again"
        )
    panels: dict[tuple[str, str], list[dict[str, str]]] = {}
    for line in lines:
        panels.setdefault((line["metric"], line["reference"]), []).append(line)
    panels = dict(sorted(panels.items(), key=lambda item: _order(item[0], lines)))
    names = list(dict.fromkeys((line["row"], int(line["steps"])) for line in lines))
    names.sort(key=lambda name: (tidy.ROWS.index(name[0]), name[1]))
    several = len({steps for row, steps in names if row in tidy.STUDENTS}) > 1
    out: list[dict[str, str]] = []
    with style.styled():
        import matplotlib.pyplot as plt
        import seaborn
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        columns = min(4, len(panels))
        rows = -(-len(panels) // columns)
        height = rows * (0.72 + 0.2 * len(names))
        figure, grid = plt.subplots(
            rows,
            columns,
            figsize=(max(style.PAGE * columns / 4, 2.4), height),
            layout=ConstrainedLayoutEngine(wspace=0.06, hspace=0.08),
            squeeze=False,
        )
        labels = [f"{row}, {steps_label(steps)}" if several and row in tidy.STUDENTS else row for row, steps in names]
        for index, axes in enumerate(grid.flat):
            if index >= len(panels):
                axes.remove()
                continue
            (metric, reference), found = list(panels.items())[index]
            spec = METRICS[metric]
            values = {(line["row"], int(line["steps"])): line for line in found}
            gone: list[tuple[float, str]] = []
            for y, name in enumerate(names):
                look, own = style.LOOKS[name[0]], values.get(name)
                mean = tidy.value(own["mean"]) if own else math.nan
                if own is None or not math.isfinite(mean):
                    note = "is the reference" if name[0] == tidy.TEACHER and reference == "teacher" else "not defined"
                    axes.text(
                        0.5, y, note, transform=axes.get_yaxis_transform(), ha="center", va="center", fontsize=6,
                        style="italic", color=style.SOFT,
                    )  # fmt: skip
                    continue
                sd = tidy.value(own["sd"])
                out.append(own)
                # A bar ends where values are not possible.
                least, most = tidy.possible(metric)
                reach = [[min(sd, mean - least)], [min(sd, most - mean)]]
                axes.errorbar(
                    mean, y, xerr=None if math.isnan(sd) else reach, color=look.color, marker=look.marker, markersize=4.5,
                    linewidth=0, elinewidth=1.1, capsize=2.2, capthick=1.1, zorder=3,
                )  # fmt: skip
                if mean - sd <= 0:
                    gone.append((float(y), look.color))
            axes.set_yticks(range(len(names)), labels if index % columns == 0 else [""] * len(names))
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.margins(x=0.18)
            means = [tidy.value(line["mean"]) for line in values.values()]
            style.spread_axis(axes.xaxis, means, nbins=3, possible=tidy.possible(metric))
            style.leaving(axes, gone, horizontal=True)
            against = {"teacher": " to teacher", "data": " to data"}.get(reference, "")
            if len(spec.references) == 1:
                against = ""
            better = "← better" if spec.better == "lower" else "better →"
            axes.set_xlabel(f"{spec.title}{against}\n{better}", linespacing=1.3)
        seaborn.despine(figure)
        style.save(figure, out_pdf, out_png)
    tidy.write(out_csv, out, COLUMNS)


def _order(key: tuple[str, str], lines: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Panels as the students' lines of the table list them: the teacher's lack some."""
    metrics = list(dict.fromkeys(line["metric"] for line in lines if line["row"] in tidy.STUDENTS))
    return metrics.index(key[0]) if key[0] in metrics else len(metrics), METRICS[key[0]].references.index(key[1])
