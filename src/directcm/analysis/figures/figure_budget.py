"""What the budget and the capacity do: metrics against training steps, for each adapter."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.config import Setting
from directcm.config.registry import FIRST
from directcm.config.specs import METHODS, METRICS
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


def draw(
    metrics_csv: str | Path,
    main: Setting,
    out_pdf: str | Path,
    out_png: str | Path,
    out_csv: str | Path,
    *,
    paper: Collection[str] = (),
    space: str = "latent",
) -> None:
    """ODE error and the first FD to teacher (rows) against training steps, a column per adapter, smallest first.

    Students that differ from the setting `main` in adapter, and along `tidy.path`, alone. Raises UserError
    where no adapter was evaluated after two numbers of steps.
    `space`: what ODE errors are in, latent or pixel.
    """
    rows = tidy.read(metrics_csv, tidy.METRIC_COLUMNS)
    students = tidy.fewest(
        [r for r in rows if r["row"] not in tidy.STUDENTS or tidy.matches(r, main, (*tidy.BUDGET_AXES, "adapter"))]
    )
    adapters = sorted({r["adapter"] for r in students}, key=tidy.adapter_order)
    paths = {a: tidy.path(students, main.at(adapter=a)) for a in adapters}
    paths = {a: own for a, own in paths.items() if len({tidy.value(r["step"]) for r in own}) > 1}
    if not paths:
        raise UserError(
            "students: no adapter was evaluated after two numbers of training steps, and this figure needs two; add "
            "snapshots: [62, 125], or steps: [125, 250], to a line of the key students of config.yaml"
        )
    pairs = tidy.keys([r for own in paths.values() for r in own])
    fd = tidy.first_of(tidy.DISTANCES, pairs, "teacher")
    panels = [key for key in pairs if key in {("ode_error", "teacher"), (fd, "teacher")}]
    if not panels:
        raise UserError("metrics: this figure needs ode_error or an FD; add one to the key metrics of config.yaml")
    steps = sorted({tidy.value(r["step"]) for own in paths.values() for r in own})
    names = [n for n in METHODS.values() if any(r["row"] == n for own in paths.values() for r in own)]
    out: list[dict[str, Any]] = []
    with style.styled():
        import matplotlib.pyplot as plt
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        # The seeds and bands of more methods would be a thicket, and lines of like values one: their marks stand side by side.
        many = len(names) > len(FIRST)
        width = min(style.PAGE, max(style.PAGE if many else style.COLUMN, 0.5 + 1.6 * len(paths)))
        figure, grid = plt.subplots(
            len(panels), len(paths), figsize=(width, 0.75 + (1.9 if many else 1.45) * len(panels)), squeeze=False, sharex=True, sharey="row",
            layout=ConstrainedLayoutEngine(wspace=0.03, hspace=0.05),
        )  # fmt: skip
        shown: set[str] = set()
        every: dict[str, list[list[tidy.Point]]] = {n: [] for n in names}
        for r, (metric, reference) in enumerate(panels):
            heights: list[float] = []
            gone: list[tuple[Any, float, str]] = []
            for c, (adapter, own) in enumerate(paths.items()):
                axes = grid[r, c]
                for order, name in enumerate(tidy.layered(names) if many else names):
                    lines = [s for s in own if (s["row"], s["metric"], s["reference"]) == (name, metric, reference)]
                    group = tidy.points(lines, "step")
                    source = {tidy.value(s["step"]): s for s in lines}
                    every[name].append(group)
                    look = style.LOOKS[name]
                    if many:
                        over = tidy.base(name) in names
                        ends = style.crowded(
                            axes, group, look, over=over, place=names.index(name), count=len(names), order=order,
                            possible=tidy.possible(metric),
                        )  # fmt: skip
                        gone += [(axes, x, look.color) for x in ends]
                    else:
                        style.series(axes, group, look, order=order)
                    heights += [p.mean for p in group]
                    drawn = tidy.drawn(group, "step", metric=metric, reference=reference, adapter=adapter, row=name)
                    out += [{**d, **{k: source[float(d["step"])][k] for k in ("steps", "pool")}} for d in drawn]
                axes.margins(x=0.07, y=0.08)
                if r == 0:
                    axes.set_title(tidy.adapter_title(adapter), fontsize=6.8, pad=4)
                if r == len(panels) - 1:
                    axes.set_xlabel("training steps")
                if c == 0:
                    # Read upwards, the arrow of a turned title would point aside; "← better" points down.
                    label = tidy.title(metric, reference, space)[:-2]
                    axes.set_ylabel(f"{label}\n{'← better' if METRICS[metric].better == 'lower' else 'better →'}")
            style.spread_axis(grid[r, 0].yaxis, heights, possible=tidy.possible(metric))
            for axes, x, color in gone:
                style.leaving(axes, [(x, color)])
        marks = []
        for metric, reference in panels:
            constants = tidy.constants(rows, main, metric, reference, paper)
            shown |= set(constants)
            out += tidy.constant_rows(metric, reference, constants)
            marks.append(style.constants(constants, METRICS[metric].decimals))
        texts = {n: f"{n} ({tidy.seeds(every[n])})" for n in names}
        entries = [
            style.method_handle(n, text, over=tidy.base(n) in names) if many else style.handle(style.LOOKS[n], text)
            for n, text in texts.items()
        ]
        entries += style.reference_handles(shown)
        style.finish_steps(figure, grid, entries, steps, marks)
        style.save(figure, out_pdf, out_png)
    tidy.write(out_csv, out, COLUMNS)
