"""Matched compute: the students against what their training cost, target solving included and excluded."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.config import SETTING_AXES, Setting
from directcm.config.registry import FIRST, methods
from directcm.config.specs import METHODS, METRICS
from directcm.errors import UserError

EXHIBITS = {
    "compute": {
        "title": "Matched compute",
        "scope": "paper",
        "takes": "metrics students_table setting",
        "needs": "main_snapshots",
        "place": 10,
    }
}

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
    main: Setting,
    out_pdf: str | Path,
    out_png: str | Path,
    out_csv: str | Path,
    *,
    paper: Collection[str] = (),
    space: str = "latent",
) -> None:
    """ODE error, the first FD to teacher and the first CLIP metric (rows) against evaluations and wall time (columns).

    Lines: CM, Direct CM with its targets, Direct CM without, or with further methods each with its targets; students of the
    setting `main` along `tidy.path`; x is the mean over seeds. Beside the lines, ringed: finished students of a
    number of steps that no path has, such as those trained at equal compute. The wall-time column is left out where no time was
    recorded. Raises UserError for fewer than two steps.
    `space`: what ODE errors are in, latent or pixel.
    """
    rows = tidy.read(metrics_csv, tidy.METRIC_COLUMNS)
    evaluated = tidy.fewest(rows)
    path = tidy.path(evaluated, main)
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
    apart = [
        r
        for r in tidy.finished(evaluated)
        if tidy.matches(r, main, tidy.BUDGET_AXES) and tidy.value(r["step"]) not in steps
    ]
    there = [name for name, n in METHODS.items() if any(r["row"] == n for r in (*path, *apart))]
    many = len(there) > len(FIRST)
    solving = {METHODS[name] for name in there if methods()[name].targets}
    # Of more methods than the paper's two, with what solving cost alone: the picture is full.
    lines = [
        (n if n not in solving else f"{n}, targets {'in' if targets else 'ex'}cluded", n, targets)
        for n in map(METHODS.__getitem__, there)
        for targets in ((True, False) if n in solving and not many else (True,))
    ]
    out: list[dict[str, Any]] = []
    found: dict[tuple[str, str, str], dict[tuple[str, str], tuple[list[tidy.Point], list[float]]]] = {}
    beside: dict[tuple[str, str, str], dict[tuple[str, str], tuple[list[tidy.Point], list[float]]]] = {}
    for kind in COSTS:
        for label, name, targets in lines:
            for metric, reference in panels:
                for rows_of, into in ((path, found), (apart, beside)):
                    own = [r for r in rows_of if (r["row"], r["metric"], r["reference"]) == (name, metric, reference)]
                    group, kept = _spent(own, costs, kind, targets)
                    if group and (targets or into is found):
                        into.setdefault((kind, label, name), {})[metric, reference] = (group, kept)
    kinds = [kind for kind in COSTS if any(key[0] == kind for key in found)]
    if not kinds:
        raise UserError(f"{students_csv}: has no cost of the students of {metrics_csv}; make both tables again")
    spent_on: dict[str, list[float]] = {}
    heights: dict[tuple[str, str], list[float]] = {}
    for (kind, _, _), own_panels in (*found.items(), *beside.items()):
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
        labels = [label for label, *_ in lines]
        layered = tidy.layered(n for _, n, _ in lines) if many else []
        marks: list[list[style.Reference]] = []
        for r, (metric, reference) in enumerate(panels):
            here = {"metric": metric, "reference": reference}
            constants = tidy.constants(rows, main, metric, reference, paper)
            shown |= set(constants)
            out += [{**mark, "line": mark["row"]} for mark in tidy.constant_rows(metric, reference, constants)]
            marks.append(style.constants(constants, METRICS[metric].decimals))
            gone: list[tuple[Any, float, str]] = []
            for c, kind in enumerate(kinds):
                axes = grid[r, c]
                for order, (label, name, targets) in enumerate(lines):
                    group, kept = found.get((kind, label, name), {}).get((metric, reference), ([], []))
                    look = _look(name, targets)
                    if many:
                        over = tidy.base(name) in layered
                        ends = style.crowded(
                            axes, group, look, over=over, order=layered.index(name), possible=tidy.possible(metric)
                        )
                        gone += [(axes, x, look.color) for x in ends]
                    else:
                        style.series(axes, group, look, hollow=not targets, order=order, thin=False)
                    out += _drawn(group, kept, **here, cost=kind, line=label, row=name)
                    alone, kept = beside.get((kind, label, name), {}).get((metric, reference), ([], []))
                    _ringed(axes, alone, look)
                    out += _drawn(alone, kept, **here, cost=kind, line=label, row=name)
                style.log_axis(axes.xaxis, spent_on[kind])
                axes.margins(x=0.05, y=0.1)
                if c == 0:
                    axes.set_title(tidy.title(metric, reference, space), loc="left", fontsize=6.8, pad=4)
                axes.tick_params(labelbottom=r == len(panels) - 1)
                if r == len(panels) - 1:
                    axes.set_xlabel(COSTS[kind])
            style.spread_axis(grid[r, 0].yaxis, heights.get((metric, reference), []), possible=tidy.possible(metric))
            for axes, x, color in gone:
                style.leaving(axes, [(x, color)])
        count = {
            label: tidy.seeds(g for (_, line, _), own in found.items() if line == label for g, _ in own.values())
            for label in labels
        }
        entries = [
            style.method_handle(name, f"{label} ({count[label]})", over=tidy.base(name) in layered)
            if many
            else style.handle(
                _look(name, targets), f"{label} ({count[label]})" if targets else label, hollow=not targets
            )
            for label, name, targets in lines
        ]
        if beside:
            behind = tidy.seeds(g for own in beside.values() for g, _ in own.values())
            entries.append(style.ring_handle(f"another number of steps ({behind})"))
        entries += style.reference_handles(shown)
        style.legend(figure, entries)
        seaborn.despine(figure)
        for r, lines_of_row in enumerate(marks):
            style.references(grid[r], lines_of_row)
        style.save(figure, out_pdf, out_png)
    tidy.write(out_csv, out, COLUMNS)


def _spent(
    rows: Sequence[tidy.Row], costs: Mapping[tuple[str, ...], tidy.Row], kind: str, targets: bool
) -> tuple[list[tidy.Point], list[float]]:
    """Means over seeds by step, each at what its students cost on average, and these steps; none where no cost is known."""
    group, kept = [], []
    for p in tidy.points(rows, "step"):
        own = [r for r in rows if tidy.value(r["step"]) == p.x and _key(r) in costs]
        spent = [c for r in own if math.isfinite(c := cost(costs[_key(r)], kind, targets)) and c > 0]
        if spent:
            group.append(tidy.Point(math.fsum(spent) / len(spent), p.mean, p.sd, p.values))
            kept.append(p.x)
    return group, kept


def _ringed(axes: Any, group: Sequence[tidy.Point], look: style.Look) -> None:
    """Marks without a line, each in a ring."""
    for p in group:
        axes.scatter(p.x, p.mean, s=11, marker=look.marker, facecolors=look.color, linewidths=0, zorder=71)
        axes.scatter(p.x, p.mean, s=42, marker="o", facecolors="none", edgecolors=look.color, linewidths=0.8, zorder=71)


def _drawn(group: Sequence[tidy.Point], steps: Sequence[float], **fields: str) -> list[dict[str, Any]]:
    """CSV rows of points, with the steps that stand behind them."""
    step_of = {tidy.number(p.x): int(s) for p, s in zip(group, steps, strict=True)}
    return [{**line, "step": step_of[line["x"]]} for line in tidy.drawn(group, "x", **fields)]


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
