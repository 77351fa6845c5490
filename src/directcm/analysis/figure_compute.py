"""Matched compute: the students against what their training cost, target solving included and excluded."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from directcm.analysis import style, tidy
from directcm.config import SETTING_AXES
from directcm.errors import UserError
from directcm.registry import FIRST, methods
from directcm.specs import METHODS, METRICS

COSTS = {
    "evaluations": "network evaluations\n(teacher + student, a backward as 2 forwards)",
    "seconds": "wall time of training\n(seconds)",
}
FORWARDS = ("student_forwards", "student_backwards", "teacher_forwards", "target_forwards")
COLUMNS = ["metric", "reference", "cost", "line", "row", "step", "x", *tidy.DRAWN]


def cost(student: tidy.Row, kind: str, targets: bool) -> float:
    """What a student's training cost up to its step; NaN where that was not recorded.

    "evaluations": rows through a U-Net, F_student + F_teacher + 2 B (a backward costs about two forwards), with `targets`
    also those that solved its targets. "seconds": wall time, with `targets` also of the solving.
    """
    if kind == "seconds":
        own, solving = tidy.value(student["seconds"]), tidy.value(student["target_seconds"])
    else:
        own = tidy.value(student["student_forwards"]) + tidy.value(student["teacher_forwards"])
        own += 2 * tidy.value(student["student_backwards"])
        solving = tidy.value(student["target_forwards"])
    return own + solving if targets else own


def draw(
    metrics_csv: str | Path,
    students_csv: str | Path,
    main: Mapping[str, Any],
    out_pdf: str | Path,
    out_png: str | Path,
    out_csv: str | Path,
    *,
    paper: Collection[str] = (),
    space: str = "latent",
) -> None:
    """ODE error, the first FD to teacher and the first CLIP metric (rows) against evaluations and wall time (columns).

    Lines: CM, Direct CM with its targets, Direct CM without, or with further methods each with its targets; students of the setting `main` (SETTING_AXES) along
    `tidy.path`; x is the mean over seeds. The wall-time column is left out where no time was recorded. Raises UserError
    for fewer than two steps.
    `space`: what ODE errors are in, latent or pixel.
    """
    rows = tidy.read(metrics_csv, tidy.METRIC_COLUMNS)
    path = tidy.path(tidy.fewest(rows), main)
    steps = {tidy.value(r["step"]) for r in path}
    if len(steps) < 2:
        raise UserError(
            f"students: students of the main setting were evaluated after {len(steps)} number{'s' * (len(steps) != 1)} of steps, "
            "and this figure needs two; add snapshots: [62, 125] to a line of the key students of config.yaml"
        )
    columns = ("method", *SETTING_AXES, "seed", "step", *FORWARDS, "seconds", "target_seconds")
    costs = {_key(r): r for r in tidy.read(students_csv, columns)}
    pairs = tidy.keys(path)
    fd, clip = tidy.first_of(tidy.DISTANCES, pairs, "teacher"), tidy.first_of(tidy.ALIGNMENTS, pairs, "prompt")
    wanted = {("ode_error", "teacher"), (fd, "teacher"), (clip, "prompt")}
    panels = [key for key in pairs if key in wanted]
    if not panels:
        raise UserError("metrics: matched compute needs ode_error or an FD; add one to the key metrics of config.yaml")
    there = [name for name, n in METHODS.items() if any(r["row"] == n for r in path)]
    solving = {METHODS[name] for name in there if methods()[name].targets}
    # Of more methods than the paper's two, with what solving cost alone: the picture is full.
    lines = [
        (n if n not in solving else f"{n}, targets {'in' if targets else 'ex'}cluded", n, targets)
        for n in map(METHODS.__getitem__, there)
        for targets in ((True, False) if n in solving and len(there) <= len(FIRST) else (True,))
    ]
    out: list[dict[str, Any]] = []
    found: dict[tuple[str, str, str], dict[tuple[str, str], tuple[list[tidy.Point], list[float]]]] = {}
    for kind in COSTS:
        for label, name, targets in lines:
            for metric, reference in panels:
                own = [r for r in path if (r["row"], r["metric"], r["reference"]) == (name, metric, reference)]
                by_step = tidy.points(own, "step")
                group, kept = [], []
                for p in by_step:
                    spent = [
                        cost(costs[_key(r)], kind, targets)
                        for r in own
                        if tidy.value(r["step"]) == p.x and _key(r) in costs
                    ]
                    spent = [c for c in spent if math.isfinite(c) and c > 0]
                    if spent:
                        group.append(tidy.Point(math.fsum(spent) / len(spent), p.mean, p.sd, p.values))
                        kept.append(p.x)
                if group:
                    found.setdefault((kind, label, name), {})[metric, reference] = (group, kept)
    kinds = [kind for kind in COSTS if any(key[0] == kind for key in found)]
    if not kinds:
        raise UserError(f"{students_csv}: has no cost of the students of {metrics_csv}; make both tables again")
    spent_on: dict[str, list[float]] = {}
    heights: dict[tuple[str, str], list[float]] = {}
    for (kind, _, _), own_panels in found.items():
        for panel, (group, _) in own_panels.items():
            spent_on.setdefault(kind, []).extend(p.x for p in group)
            heights.setdefault(panel, []).extend(p.mean for p in group)
    with style.styled():
        import matplotlib.pyplot as plt
        import seaborn
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        figure, grid = plt.subplots(
            len(panels), len(kinds), figsize=(style.PAGE if len(kinds) > 1 else style.COLUMN + 0.4, 0.95 + 1.5 * len(panels)),
            squeeze=False, sharex="col", sharey="row", layout=ConstrainedLayoutEngine(wspace=0.05, hspace=0.05),
        )  # fmt: skip
        shown: set[str] = set()
        marks: list[list[style.Reference]] = []
        for r, (metric, reference) in enumerate(panels):
            here = {"metric": metric, "reference": reference}
            constants = tidy.constants(rows, main, metric, reference, paper)
            shown |= set(constants)
            out += [{**mark, "line": mark["row"]} for mark in tidy.constant_rows(metric, reference, constants)]
            marks.append(style.constants(constants, METRICS[metric].decimals))
            for c, kind in enumerate(kinds):
                axes = grid[r, c]
                for order, (label, name, targets) in enumerate(lines):
                    group, kept = found.get((kind, label, name), {}).get((metric, reference), ([], []))
                    style.series(axes, group, _look(name, targets), hollow=not targets, order=order, thin=False)
                    drawn = tidy.drawn(group, "x", **here, cost=kind, line=label, row=name)
                    step_of = {tidy.number(p.x): int(s) for p, s in zip(group, kept, strict=True)}
                    out += [{**line, "step": step_of[line["x"]]} for line in drawn]
                style.log_axis(axes.xaxis, spent_on[kind])
                axes.margins(x=0.05, y=0.1)
                if c == 0:
                    axes.set_title(tidy.title(metric, reference, space), loc="left", fontsize=6.8, pad=4)
                axes.tick_params(labelbottom=r == len(panels) - 1)
                if r == len(panels) - 1:
                    axes.set_xlabel(COSTS[kind])
            style.spread_axis(grid[r, 0].yaxis, heights.get((metric, reference), []), possible=tidy.possible(metric))
        entries = [
            style.handle(
                _look(name, targets),
                f"{label} ({tidy.seeds(g for (_, line, _), own in found.items() if line == label for g, _ in own.values())})"
                if targets
                else label,
                hollow=not targets,
            )
            for label, name, targets in lines
        ]
        entries += style.reference_handles(shown)
        style.legend(figure, entries)
        seaborn.despine(figure)
        for r, lines_of_row in enumerate(marks):
            style.references(grid[r], lines_of_row)
        style.save(figure, out_pdf, out_png)
    tidy.write(out_csv, out, COLUMNS)


def _look(name: str, targets: bool) -> style.Look:
    """A method's look; without its targets the line is dotted and the marker open."""
    look = style.LOOKS[name]
    return look if targets else style.Look(look.color, look.marker, (0, (1, 1)))


def _key(row: tidy.Row) -> tuple[str, ...]:
    """What tells one evaluated student from another, spelled alike in both tables."""
    out = [row["method"]]
    for name in (*SETTING_AXES, "seed", "step"):
        number = tidy.value(row[name])
        out.append(row[name] if math.isnan(number) else repr(number))
    return tuple(out)
