"""What the budget and the capacity do: metrics against training steps, for each adapter."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.analysis.figures.chart import better, drawn_along, names_of, of, panels
from directcm.config import Setting
from directcm.config.registry import FIRST
from directcm.errors import UserError

EXHIBITS = {
    "budget": {
        "title": "Budget and capacity",
        "scope": "paper",
        "takes": "metrics setting",
        "needs": "snapshots",
        "place": 12,
    }
}

COLUMNS = ["metric", "reference", "adapter", "row", "steps", "pool", "step", *tidy.DRAWN]


@style.styled()
def draw(
    metrics_csv: str | Path, main: Setting, *files: str | Path, paper: Collection[str] = (), space: str = "latent"
) -> None:
    """ODE error and the first FD to teacher (rows) against training steps, a column per adapter, smallest first.

    Students that differ from the setting `main` in adapter, and along `tidy.path`, alone. `files`: PDF, PNG and CSV to write.
    `space`: what ODE errors are in, latent or pixel. Raises UserError where no adapter was evaluated after two numbers of steps.
    """
    rows = tidy.read(metrics_csv, tidy.METRIC_COLUMNS)
    students = tidy.fewest(
        [r for r in rows if r["row"] not in tidy.STUDENTS or tidy.matches(r, main, (*tidy.BUDGET_AXES, "adapter"))]
    )
    adapters = sorted({r["adapter"] for r in students}, key=tidy.adapter_order)
    paths = {a: tidy.path(students, main.at(adapter=a)) for a in adapters}
    paths = {a: path for a, path in paths.items() if len({tidy.value(r["step"]) for r in path}) > 1}
    if not paths:
        raise UserError(
            "students: no adapter was evaluated after two numbers of training steps, and this figure needs two; add "
            "snapshots: [62, 125], or steps: [125, 250], to a line of the key students of config.yaml"
        )
    there = [r for path in paths.values() for r in path]
    pairs, names = tidy.keys(there), names_of(there)
    fd = tidy.first_of(tidy.DISTANCES, pairs, "teacher")
    metrics = [key for key in pairs if key in {("ode_error", "teacher"), (fd, "teacher")}]
    if not metrics:
        raise UserError("metrics: this figure needs ode_error or an FD; add one to the key metrics of config.yaml")
    # The seeds and bands of more methods would be a thicket, and lines of like values one: their marks stand side by side.
    many = len(names) > len(FIRST)
    width = min(style.PAGE, max(style.PAGE if many else style.COLUMN, 0.5 + 1.6 * len(paths)))
    size = (width, 0.75 + (1.9 if many else 1.45) * len(metrics))
    chart = panels(len(metrics), len(paths), size, (0.03, 0.05), sharex=True, sharey="row")
    every: dict[str, list[list[tidy.Point]]] = {n: [] for n in names}
    for row, (metric, reference) in zip(chart.grid, metrics, strict=True):
        heights: list[float] = []
        gone: list[style.Gone] = []
        possible = tidy.possible(metric)
        for axes, (adapter, path) in zip(row, paths.items(), strict=True):
            for order, name in enumerate(tidy.layered(names) if many else names):
                lines = of(path, metric, reference, name)
                group = tidy.points(lines, "step")
                every[name].append(group)
                if many:
                    gone += style.crowded(
                        axes, group, style.LOOKS[name], over=tidy.base(name) in names, order=order, place=names.index(name),
                        count=len(names), possible=possible,
                    )  # fmt: skip
                else:
                    style.series(axes, group, style.LOOKS[name], order=order)
                heights += [p.mean for p in group]
                chart.lines += drawn_along(lines, group, metric=metric, reference=reference, adapter=adapter, row=name)
            axes.margins(x=0.07, y=0.08)
        # Read upwards, the arrow of a turned title would point aside; "← better" points down.
        row[0].set_ylabel(f"{tidy.title(metric, reference, space)[:-2]}\n{better(metric)}")
        style.spread_axis(row[0].yaxis, heights, possible=possible)
        style.leaving(gone)
    for top, bottom, adapter in zip(chart.grid[0], chart.grid[-1], paths, strict=True):
        top.set_title(tidy.adapter_title(adapter), fontsize=6.8, pad=4)
        bottom.set_xlabel("training steps")
    for row, key in zip(chart.grid, metrics, strict=True):
        chart.constants(row, *key, tidy.constants(rows, main, *key, paper))
    among = names if many else None
    chart.legend([style.method_handle(n, f"{n} ({tidy.seeds(every[n])})", among) for n in names])
    for axes in chart.grid.flat:
        style.values_axis(axes, {tidy.value(r["step"]) for r in there}, log=True)
    chart.references()
    chart.save(COLUMNS, *files)
