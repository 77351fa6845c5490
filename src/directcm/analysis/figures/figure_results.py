"""Table 1 as a figure: every metric as dots, ± one standard deviation over seeds."""

from __future__ import annotations

import math
from pathlib import Path

import seaborn

from directcm.analysis.data import tidy
from directcm.analysis.data.selection import steps_label
from directcm.analysis.figures import style
from directcm.analysis.figures.chart import better, of, tiles
from directcm.config.specs import METRICS
from directcm.errors import UserError

EXHIBITS = {"results": {"title": "Table 1 as a figure", "takes": "table", "place": 4}}

COLUMNS = ("row", "steps", "metric", "reference", "mean", "sd", "n_seeds", "n_samples", "paper")


@style.styled()
def draw(table_csv: str | Path, *files: str | Path) -> None:
    """Table 1 as dots: one small panel with its own axis per metric and reference, ± sd over seeds as bars; baselines are left to the tables.

    `files`: PDF, PNG and CSV to write. Raises UserError where the table has no rows or names a model that has no look.
    """
    lines = [line for line in tidy.read(table_csv, COLUMNS) if line["row"] not in tidy.TO_BEAT]
    strangers = sorted({line["row"] for line in lines} - set(tidy.ROWS))
    if strangers:
        raise UserError(
            f"{table_csv}: unknown row {strangers[0]!r}; there are {', '.join(tidy.ROWS)}; make the table again"
        )
    # Panels as the students' lines of the table list them: the teacher's lack some.
    order = list(
        dict.fromkeys(line["metric"] for line in sorted(lines, key=lambda line: line["row"] not in tidy.STUDENTS))
    )
    metrics = sorted(
        {(line["metric"], line["reference"]) for line in lines},
        key=lambda key: (order.index(key[0]), METRICS[key[0]].references.index(key[1])),
    )
    names = sorted(
        {(line["row"], int(line["steps"])) for line in lines}, key=lambda name: (tidy.ROWS.index(name[0]), name[1])
    )
    several = len({steps for row, steps in names if row in tidy.STUDENTS}) > 1
    labels = [f"{row}, {steps_label(steps)}" if several and row in tidy.STUDENTS else row for row, steps in names]
    chart, abreast = tiles(len(metrics), 0.72 + 0.2 * len(names), (0.06, 0.08), least=2.4)
    for index, (axes, (metric, reference)) in enumerate(zip(chart.grid, metrics, strict=True)):
        found = {(line["row"], int(line["steps"])): line for line in of(lines, metric, reference)}
        least, most = possible = tidy.possible(metric)
        gone: list[style.Gone] = []
        for y, name in enumerate(names):
            look, line = style.LOOKS[name[0]], found.get(name)
            mean = tidy.value(line["mean"]) if line else math.nan
            if line is None or math.isnan(mean):
                note = "is the reference" if name[0] == tidy.TEACHER and reference == "teacher" else "not defined"
                axes.text(
                    0.5, y, note, transform=axes.get_yaxis_transform(), ha="center", va="center", fontsize=6,
                    style="italic", color=style.SOFT,
                )  # fmt: skip
                continue
            sd = tidy.value(line["sd"])
            chart.lines.append(dict(line))
            # A bar ends where values are not possible.
            reach = [[min(sd, mean - least)], [min(sd, most - mean)]]
            axes.errorbar(
                mean, y, xerr=None if math.isnan(sd) else reach, color=look.color, marker=look.marker, markersize=4.5,
                linewidth=0, elinewidth=1.1, capsize=2.2, capthick=1.1, zorder=3,
            )  # fmt: skip
            gone += [(axes, float(y), look.color)] if mean - sd <= 0 else []
        axes.set_yticks(range(len(names)), labels if index % abreast == 0 else [""] * len(names))
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.margins(x=0.18)
        means = [tidy.value(line["mean"]) for line in found.values()]
        style.spread_axis(axes.xaxis, means, nbins=3, possible=possible)
        style.leaving(gone, horizontal=True)
        axes.set_xlabel(f"{tidy.name_of(metric, reference)}\n{better(metric)}", linespacing=1.3)
    seaborn.despine(chart.figure)
    chart.save(COLUMNS, *files)
