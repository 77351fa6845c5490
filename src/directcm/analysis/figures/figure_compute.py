"""Matched compute: the students against what their training cost, target solving included and excluded."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.analysis.figures.chart import main_path, names_of, of, panels, title
from directcm.config import SETTING_AXES, Setting, spell
from directcm.config.registry import FIRST, methods
from directcm.config.specs import METHODS
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


@style.styled()
def draw(
    metrics_csv: str | Path,
    students_csv: str | Path,
    main: Setting,
    *files: str | Path,
    paper: Collection[str] = (),
    space: str = "latent",
) -> None:
    """ODE error, the first FD to teacher and the first CLIP metric (rows) against evaluations and wall time (columns).

    Lines: CM, Direct CM with its targets, Direct CM without, or with further methods each with its targets; students of the
    setting `main` along `tidy.path`; x is the mean over seeds. Beside the lines, ringed: finished students of a
    number of steps that no path has, such as those trained at equal compute. The wall-time column is left out where no time was
    recorded. `files`: PDF, PNG and CSV to write. `space`: what ODE errors are in, latent or pixel. Raises UserError for fewer
    than two steps.
    """
    rows = tidy.read(metrics_csv, tidy.METRIC_COLUMNS)
    path, steps = main_path(rows, main)
    columns = ("method", *SETTING_AXES, "seed", "step", *FORWARDS, "seconds", "target_seconds")
    costs = {_key(r): r for r in tidy.read(students_csv, columns)}
    pairs = tidy.keys(path)
    fd, clip = tidy.first_of(tidy.DISTANCES, pairs, "teacher"), tidy.first_of(tidy.ALIGNMENTS, pairs, "prompt")
    metrics = [key for key in pairs if key in {("ode_error", "teacher"), (fd, "teacher"), (clip, "prompt")}]
    if not metrics:
        raise UserError("metrics: matched compute needs ode_error or an FD; add one to the key metrics of config.yaml")
    apart = [
        r
        for r in tidy.finished(tidy.fewest(rows))
        if tidy.matches(r, main, tidy.BUDGET_AXES) and tidy.value(r["step"]) not in steps
    ]
    names = names_of((*path, *apart))
    many = len(names) > len(FIRST)
    solving = {METHODS[name] for name, method in methods().items() if method.targets}
    # Of more methods than the paper's two, with what solving cost alone: the picture is full.
    lines = [
        (n if n not in solving else f"{n}, targets {'in' if targets else 'ex'}cluded", n, targets)
        for n in names
        for targets in ((True, False) if n in solving and not many else (True,))
    ]
    # By kind of cost, line and metric: points along the path, and those beside it.
    keys = [(kind, line, metric) for kind in COSTS for line in lines for metric in metrics]
    found, beside = (
        {
            (kind, line, metric): _spent(of(students, *metric, line[1]), costs, kind, line[2])
            for kind, line, metric in keys
            if line[2] or students is path
        }
        for students in (path, apart)
    )
    kinds = [kind for kind in COSTS if any(key[0] == kind and points for key, points in found.items())]
    if not kinds:
        raise UserError(f"{students_csv}: has no cost of the students of {metrics_csv}; make both tables again")
    every = [(key, p) for drawn in (found, beside) for key, points in drawn.items() for p in points]
    size = (style.PAGE if len(kinds) > 1 else style.COLUMN + 0.4, 0.95 + 1.5 * len(metrics))
    chart = panels(len(metrics), len(kinds), size, (0.05, 0.05), sharex="col", sharey="row")
    layered = tidy.layered(n for _, n, _ in lines)
    for row, key in zip(chart.grid, metrics, strict=True):
        possible = tidy.possible(key[0])
        chart.constants(row, *key, tidy.constants(rows, main, *key, paper))
        gone: list[style.Gone] = []
        for axes, kind in zip(row, kinds, strict=True):
            for order, line in enumerate(lines):
                label, name, targets = line
                along, alone = found[kind, line, key], beside.get((kind, line, key), [])
                look = _look(name, targets)
                if many:
                    gone += style.crowded(
                        axes, along, look, over=tidy.base(name) in names, order=layered.index(name), possible=possible
                    )
                else:
                    style.series(axes, along, look, hollow=not targets, order=order, thin=False)
                _ringed(axes, alone, look)
                for p in (*along, *alone):
                    fields = {"metric": key[0], "reference": key[1], "cost": kind, "line": label, "row": name}
                    chart.lines += tidy.drawn([p], "x", **fields, step=p.step)
            style.log_axis(axes.xaxis, [p.x for (its, _, _), p in every if its == kind])
            axes.margins(x=0.05, y=0.1)
            axes.tick_params(labelbottom=key == metrics[-1])
        title(row[0], tidy.title(*key, space))
        style.spread_axis(row[0].yaxis, [p.mean for (_, _, its), p in every if its == key], possible=possible)
        style.leaving(gone)
    for axes, kind in zip(chart.grid[-1], kinds, strict=True):
        axes.set_xlabel(COSTS[kind])
    entries = []
    for line in lines:
        label, name, targets = line
        text = f"{label} ({tidy.seeds(points for key, points in found.items() if key[1] == line)})"
        among = names if many else None
        entries.append(
            style.method_handle(name, text, among) if targets else style.handle(_look(name, False), label, hollow=True)
        )
    if any(beside.values()):
        text = f"another number of steps ({tidy.seeds(beside.values())})"
        entries.append(style.mark_handle(text, markersize=6.5, markerfacecolor="none", markeredgewidth=0.8))
    chart.legend(entries)
    chart.references()
    for drawn in chart.lines:
        # A reference line bears its row's name.
        drawn.setdefault("line", drawn["row"])
    chart.save(COLUMNS, *files)


@dataclass(frozen=True)
class Spent(tidy.Point):
    """A point at what its students cost on average, and their step."""

    step: int


def _spent(
    rows: Sequence[tidy.Row], costs: Mapping[tuple[str, ...], tidy.Row], kind: str, targets: bool
) -> list[Spent]:
    """Means over seeds by step; those of which no cost is known are left out."""
    out = []
    for p in tidy.points(rows, "step"):
        known = [costs[_key(r)] for r in rows if tidy.value(r["step"]) == p.x and _key(r) in costs]
        spent = [c for student in known if math.isfinite(c := cost(student, kind, targets)) and c > 0]
        if spent:
            out.append(Spent(math.fsum(spent) / len(spent), p.mean, p.sd, p.values, int(p.x)))
    return out


def _ringed(axes: Any, group: Sequence[tidy.Point], look: style.Look) -> None:
    """Marks without a line, each in a ring."""
    for p in group:
        axes.scatter(p.x, p.mean, s=11, marker=look.marker, facecolors=look.color, linewidths=0, zorder=71)
        axes.scatter(p.x, p.mean, s=42, marker="o", facecolors="none", edgecolors=look.color, linewidths=0.8, zorder=71)


def _look(name: str, targets: bool) -> style.Look:
    """A method's look; without its targets the line is dotted and the marker open."""
    look = style.LOOKS[name]
    return look if targets else replace(look, line=style.DOTTED)


def _key(row: tidy.Row) -> tuple[str, ...]:
    """What tells one evaluated student from another, spelled alike in both tables."""
    return (row["method"], *(spell(row[name]) for name in (*SETTING_AXES, "seed", "step")))
