"""Figures 3 and 4: every metric against the number of discretisation steps N, or against the guidance scale ω."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.analysis.figures.chart import names_of, of, tiles, title
from directcm.config import Setting
from directcm.config.specs import METRICS
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


@style.styled()
def draw(
    metrics_csv: str | Path,
    comparisons_csv: str | Path,
    axis: str,
    main: Setting,
    *files: str | Path,
    paper: Collection[str] = (),
    alpha: float = tidy.ALPHA,
    space: str = "latent",
) -> None:
    """Draw finished students that differ from the setting `main` in `axis` ("N" or "w") alone.

    Markers are open where CM − Direct CM is not significant at `alpha` (`tidy.significant`, unadjusted) or was not tested. The teacher and
    its floor are drawn as they are at each value. `files`: PDF, PNG and CSV to write. `paper` names the metrics that are on the
    paper's scale. `space`: what ODE errors are in, latent or pixel. Raises UserError for fewer than two values of the axis.
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
    compared = tidy.finished(tidy.read(comparisons_csv, tidy.COMPARISON_COLUMNS), "a_step")
    tests = {
        (r["metric"], r["reference"], tidy.value(r[axis])): r
        for r in tidy.differences(compared, main, (axis,), tidy.value(students[0]["sampling_steps"]))
    }
    metrics = tidy.keys(students)
    if not metrics:
        raise UserError(f"{metrics_csv}: has no value of a headline metric; check the key metrics of config.yaml")
    names = names_of(students)
    chart, abreast = tiles(len(metrics), 1.5, (0.05, 0.06), head=0.42)
    every: dict[str, list[list[tidy.Point]]] = {name: [] for name in names}
    for axes, (metric, reference) in zip(chart.grid, metrics, strict=True):
        here = {"axis": axis, "metric": metric, "reference": reference}
        for order, name in enumerate(names):
            group = tidy.points(of(students, metric, reference, name), axis)
            every[name].append(group)
            found = {p.x: tests.get((metric, reference, p.x), {}) for p in group}
            filled = [bool(test) and tidy.significant(test, alpha) for test in found.values()]
            style.series(axes, group, style.LOOKS[name], filled=filled, order=order)
            for line in tidy.drawn(group, "x", **here, row=name):
                test = {} if "seed" in line else found[float(line["x"])]
                chart.lines.append(line | {c: tidy.number(tidy.value(test.get(c))) for c in ("difference", "p")})
        marks = []
        for row in (tidy.TEACHER, tidy.FLOOR):
            if group := tidy.points(of(teachers, metric, reference, row), axis):
                chart.shown.add(row)
                lines = [{**here, "row": row, "x": tidy.number(p.x), "value": tidy.number(p.mean)} for p in group]
                chart.lines += lines
                x, y = zip(*((p.x, p.mean) for p in group), strict=True)
                name = row.removeprefix("Teacher, ")
                marks.append(style.Reference(name, style.LOOKS[row], y, x, METRICS[metric].decimals))
        papers = tidy.paper_values(metric, reference, paper)
        chart.shown |= set(papers)
        chart.lines += [{**here, "row": row, "value": y} for row, y in papers.items()]
        chart.marks.append(([axes], marks + style.constants(papers, METRICS[metric].decimals)))
        title(axes, tidy.title(metric, reference, space))
        axes.margins(x=0.07, y=0.1)
    for axes in chart.grid[-abreast:]:
        axes.set_xlabel(LABELS[axis])
    entries = [style.method_handle(n, f"{n} ({tidy.seeds(every[n])})") for n in names]
    entries += style.reference_handles(chart.shown, marker=True)
    if len(names) == 2:
        entries.append(style.mark_handle(f"difference not significant (p > {alpha:g})"))
    style.legend(chart.figure, entries)
    for axes in chart.grid:
        style.values_axis(axes, values, log=axis == "N")
    chart.references()
    chart.save(COLUMNS, *files)
