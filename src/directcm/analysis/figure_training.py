"""Along training, every method: the distance to the data against training steps, methods of data alone beside those of a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from directcm.analysis import style, tidy
from directcm.errors import UserError
from directcm.registry import methods
from directcm.specs import METHODS, METRICS

COLUMNS = ["metric", "reference", "row", "steps", "pool", "step", *tidy.DRAWN]
FAMILIES = ("from data alone", "from a teacher")


def family(name: str) -> str:
    """Of which family a method is, by what its file says it needs."""
    method = methods()[name]
    return FAMILIES[bool(method.teacher or method.targets)]


def draw(
    metrics_csv: str | Path,
    main: Mapping[str, Any],
    out_pdf: str | Path,
    out_png: str | Path,
    out_csv: str | Path,
) -> None:
    """The first FD to data and the prompt accuracy, if there (rows), against training steps, a column per family of methods.

    Students of the setting `main` (SETTING_AXES), each method along its own `tidy.path`. Raises UserError where no method was
    evaluated after two numbers of steps.
    """
    rows = tidy.read(metrics_csv, tidy.METRIC_COLUMNS)
    students = [r for r in tidy.fewest(rows) if r["row"] in tidy.STUDENTS]
    paths = {label: tidy.path([r for r in students if r["row"] == label], main) for label in METHODS.values()}
    paths = {label: own for label, own in paths.items() if len({r["step"] for r in own}) > 1}
    if not paths:
        raise UserError(
            "students: no method was evaluated after two numbers of training steps, and this figure needs two; add "
            "snapshots: [62, 125] to a line of the key students of config.yaml"
        )
    pairs = tidy.keys([r for own in paths.values() for r in own])
    fd = tidy.first_of(tidy.DISTANCES, pairs, "data")
    panels = [key for key in pairs if key in {(fd, "data"), ("prompt_accuracy", "prompt")}]
    if not panels:
        raise UserError(
            "metrics: this figure needs an FD or prompt_accuracy; add one to the key metrics of config.yaml"
        )
    names = {label: name for name, label in METHODS.items()}
    columns = [f for f in FAMILIES if any(family(names[label]) == f for label in paths)]
    steps = sorted({tidy.value(r["step"]) for own in paths.values() for r in own})
    out: list[dict[str, Any]] = []
    with style.styled():
        import matplotlib.pyplot as plt
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        width = style.PAGE if len(columns) > 1 else style.COLUMN
        figure, grid = plt.subplots(
            len(panels), len(columns), figsize=(width, 1.0 + 1.9 * len(panels)), squeeze=False, sharex=True, sharey="row",
            layout=ConstrainedLayoutEngine(wspace=0.04, hspace=0.05),
        )  # fmt: skip
        every: dict[str, list[list[tidy.Point]]] = {label: [] for label in paths}
        marks = []
        shown: set[str] = set()
        for r, (metric, reference) in enumerate(panels):
            for c, title in enumerate(columns):
                axes = grid[r, c]
                for order, label in enumerate(label for label in paths if family(names[label]) == title):
                    lines = [s for s in paths[label] if (s["metric"], s["reference"]) == (metric, reference)]
                    group = tidy.points(lines, "step")
                    source = {tidy.value(s["step"]): s for s in lines}
                    every[label].append(group)
                    style.series(axes, group, style.LOOKS[label], order=order, thin=False)
                    drawn = tidy.drawn(group, "step", metric=metric, reference=reference, row=label)
                    out += [{**d, **{k: source[float(d["step"])][k] for k in ("steps", "pool")}} for d in drawn]
                axes.margins(x=0.07, y=0.08)
                if r == 0:
                    axes.set_title(f"Learnt {title}", fontsize=7, pad=4)
                if r == len(panels) - 1:
                    axes.set_xlabel("training steps")
                if c == 0:
                    text = tidy.title(metric, reference)[:-2]
                    axes.set_ylabel(f"{text}\n{'← better' if METRICS[metric].better == 'lower' else 'better →'}")
            here = [p.mean for own in every.values() for p in own[-1]]
            style.spread_axis(grid[r, 0].yaxis, here, possible=tidy.possible(metric))
            constants = tidy.constants(rows, main, metric, reference, ())
            shown |= set(constants)
            out += tidy.constant_rows(metric, reference, constants)
            marks.append(style.constants(constants, METRICS[metric].decimals))
        entries = [style.handle(style.LOOKS[n], f"{n} ({tidy.seeds(every[n])})") for n in paths]
        entries += style.reference_handles(shown)
        style.finish_steps(figure, grid, entries, steps, marks)
        style.save(figure, out_pdf, out_png)
    tidy.write(out_csv, out, COLUMNS)
