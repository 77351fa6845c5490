"""Figures 3 and 4: every metric against the number of discretisation steps N, or against the guidance scale ω."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.config import Setting
from directcm.config.specs import METHODS, METRICS
from directcm.errors import UserError

EXHIBITS = {
    "sweep_{axis}": {
        "title": {"N": "Figure 3, sweep over N", "w": "Figure 4, sweep over ω"},
        "short": {"N": "Figure 3. Discretisation N", "w": "Figure 4. Guidance ω"},
        "scope": "paper",
        "takes": "metrics comparisons axis setting",
        "needs": "several_{axis}",
        "place": 8,
    }
}

LABELS = {"N": "discretisation steps N", "w": "guidance scale ω"}
EXAMPLES = {"N": "[10, 20, 50, 100]", "w": "[1, 3, 5, 8]"}
COLUMNS = ["axis", "metric", "reference", "row", "x", *tidy.DRAWN, "difference", "p"]


def draw(
    metrics_csv: str | Path,
    comparisons_csv: str | Path,
    axis: str,
    main: Setting,
    out_pdf: str | Path,
    out_png: str | Path,
    out_csv: str | Path,
    *,
    paper: Collection[str] = (),
    alpha: float = tidy.ALPHA,
    space: str = "latent",
) -> None:
    """Draw finished students that differ from the setting `main` in `axis` ("N" or "w") alone.

    Markers are open where CM − Direct CM has p ≥ `alpha` (comparisons.csv, unadjusted) or was not tested. The teacher and
    its floor are drawn as they are at each value. `paper` names the metrics that are on the paper's scale.
    Raises UserError for fewer than two values of the axis.
    `space`: what ODE errors are in, latent or pixel.
    """
    rows = tidy.read(metrics_csv, tidy.METRIC_COLUMNS)
    students = tidy.fewest([r for r in tidy.finished(rows) if tidy.matches(r, main, (axis,))])
    values = sorted({tidy.value(r[axis]) for r in students})
    if len(values) < 2:
        raise UserError(
            f"students: the grid has {len(values)} value{'s' * (len(values) != 1)} of {axis} in the main setting, and this "
            f"figure needs two; add a line with {axis}: {EXAMPLES[axis]} to the key students of config.yaml"
        )
    teachers = [r for r in tidy.teacher(rows, main, (axis,)) if tidy.value(r[axis]) in values]
    tests = {
        (r["metric"], r["reference"], tidy.value(r[axis])): r
        for r in tidy.differences(
            tidy.finished(tidy.read(comparisons_csv, tidy.COMPARISON_COLUMNS), "a_step"), main, (axis,),
            tidy.value(students[0]["sampling_steps"]),
        )
    }  # fmt: skip
    panels = tidy.keys(students)
    if not panels:
        raise UserError(f"{metrics_csv}: has no value of a headline metric; check the key metrics of config.yaml")
    names = [n for n in METHODS.values() if any(r["row"] == n for r in students)]
    out: list[dict[str, Any]] = []
    with style.styled():
        import matplotlib.pyplot as plt
        import seaborn
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        columns = min(4, len(panels))
        height = -(-len(panels) // columns)
        figure, grid = plt.subplots(
            height, columns, figsize=(max(style.PAGE * columns / 4, style.COLUMN), 0.42 + 1.5 * height), squeeze=False,
            layout=ConstrainedLayoutEngine(wspace=0.05, hspace=0.06),
        )  # fmt: skip
        every: dict[str, list[list[tidy.Point]]] = {name: [] for name in names}
        shown: set[str] = set()
        draws: list[tuple[Any, list[style.Reference]]] = []
        for index, axes in enumerate(grid.flat):
            if index >= len(panels):
                axes.remove()
                continue
            metric, reference = panels[index]
            here = {"axis": axis, "metric": metric, "reference": reference}
            for order, name in enumerate(names):
                own = [r for r in students if (r["row"], r["metric"], r["reference"]) == (name, metric, reference)]
                group = tidy.points(own, axis)
                found = [tests.get((metric, reference, p.x)) for p in group]
                p_values = [tidy.value(t["p"]) if t else math.nan for t in found]
                style.series(axes, group, style.LOOKS[name], filled=[p < alpha for p in p_values], order=order)
                every[name].append(group)
                lines = tidy.drawn(group, "x", **here, row=name)
                for line in lines:
                    test = tests.get((metric, reference, float(line["x"])))
                    if test and "seed" not in line:
                        line |= {c: tidy.number(tidy.value(test[c])) for c in ("difference", "p")}
                out += lines
            marks = []
            for row in (tidy.TEACHER, tidy.FLOOR):
                own = [r for r in teachers if (r["row"], r["metric"], r["reference"]) == (row, metric, reference)]
                group = tidy.points(own, axis)
                if group:
                    shown.add(row)
                    out += [{**here, "row": row, "x": tidy.number(p.x), "value": tidy.number(p.mean)} for p in group]
                    marks.append(
                        style.Reference(
                            row.removeprefix("Teacher, "), style.LOOKS[row], tuple(p.mean for p in group),
                            tuple(p.x for p in group), METRICS[metric].decimals,
                        )
                    )  # fmt: skip
            papers = tidy.paper_values(metric, reference, paper)
            marks += style.constants(papers, METRICS[metric].decimals)
            shown |= set(papers)
            out += [{**here, "row": row, "value": y} for row, y in papers.items()]
            axes.set_title(tidy.title(metric, reference, space), loc="left", fontsize=6.8, pad=4)
            axes.margins(x=0.07, y=0.1)
            draws.append((axes, marks))
            if index + columns >= len(panels):
                axes.set_xlabel(LABELS[axis])
        entries = [style.handle(style.LOOKS[n], f"{n} ({tidy.seeds(every[n])})") for n in names]
        entries += style.reference_handles(shown, marker=True)
        if len(names) == 2:
            entries.append(style.open_handle(f"difference not significant (p ≥ {alpha:g})"))
        style.legend(figure, entries)
        for axes, _ in draws:
            style.values_axis(axes, values, log=axis == "N")
        for axes, marks in draws:
            style.references([axes], marks)
        seaborn.despine(figure)
        style.save(figure, out_pdf, out_png)
    tidy.write(out_csv, out, COLUMNS)
