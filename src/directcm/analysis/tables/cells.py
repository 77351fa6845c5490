"""From the tidy tables to the lines of a table and their cells: selection, means over seeds, what is significant.

Students' cells are mean ± sample sd over training seeds. One is the best only where comparisons.csv finds the difference between
CM and Direct CM of that setting, step, number of sampling steps, metric and reference significant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from directcm.analysis.data import tidy
from directcm.analysis.data.selection import main_setting, select_axis, select_runs, steps_label
from directcm.analysis.data.tidy import significant
from directcm.analysis.tables.text import defined
from directcm.config import ODE_AXES, RUN_AXES, SETTING_AXES, Config, Run
from directcm.config.registry import FIRST
from directcm.config.specs import METHODS, METRICS
from directcm.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

PAPER_RESOLUTION = 1024
PAPER_SOLVER = "ddim"
A, B = (METHODS[name] for name in FIRST)
COLUMNS = ["row", "steps", "metric", "reference", "mean", "sd", "n_seeds", "n_samples", "paper"]

# A finished student or snapshot in a number of sampling steps.
SET = (*RUN_AXES, "step", "sampling_steps")
# What a student's error is against a baseline's: significantly below it, significantly above it, or neither.
VERDICTS = BEATEN, AHEAD, LEVEL = ("beaten", "ahead", "no difference shown")
Key = tuple[str, str]  # metric, reference
Place = tuple[Any, ...]  # values of columns that say where a number belongs


@dataclass(frozen=True)
class Value:
    """One metric of one row. `mean` is None where a seed's value is undefined, `sd` also for a single seed.

    `place`: what it shares with its test in comparisons.csv.
    """

    row: str
    steps: int
    solver: str
    metric: str
    reference: str
    mean: float | None
    sd: float | None
    n_seeds: int
    n_samples: int
    paper: float | None
    n_reference: float | None
    dim: float | None
    flags: tuple[str, ...]
    place: Place
    best: bool = False
    to_beat: tuple[tuple[str, str], ...] = ()  # baseline, and one of VERDICTS on it


@dataclass
class Line:
    """One line of a table: a row of the comparison under one solver and number of sampling steps."""

    row: str
    steps: int
    solver: str
    group: str
    rows: pd.DataFrame
    values: dict[Key, Value] = field(default_factory=dict)
    cost: float | None = None  # network evaluations, where the table has them

    @property
    def seeds(self) -> int:
        """Of students their number; 1 of the teacher, which has none."""
        return int(self.rows["seed"].nunique(dropna=False))

    @property
    def detail(self) -> str:
        """What stands under the row's name."""
        if self.row in (tidy.TEACHER, tidy.FLOOR):
            return f"{self.steps} solver steps"
        if self.row in tidy.TO_BEAT:
            return f"baseline, {steps_label(self.steps)}" if self.steps else "baseline, no network"
        cost = "" if self.cost is None else f", {self.cost:,.0f} evaluations"
        return f"{steps_label(self.steps)}, {self.seeds} seed{'s' * (self.seeds != 1)}{cost}"


def headline(config: Config) -> list[str]:
    """The metrics of Tables 1 to 4."""
    return [m for m in config.metric_names() if METRICS[m].headline]


def others(config: Config) -> list[str]:
    """The metrics that stand in none of them, nor in the table of parts."""
    return [m for m in config.metric_names() if not METRICS[m].headline and not METRICS[m].part_of]


def config_methods(config: Config) -> list[str]:
    """The methods of a grid, in their own order."""
    used = {run.method for run in config.runs()}
    return [name for name in METHODS if name in used]


def paper_value(row: str, steps: int, metric: str, reference: str) -> float | None:
    """What the paper reports for this cell: one step, and students' distances only against teacher samples."""
    if steps != 1 or reference == "data":
        return None
    return METRICS[metric].paper.get(row)


def same_scale(metric: str, config: Config) -> bool:
    """Whether the paper's number and ours are on one scale: its own extractor, on a teacher and at a size like its own."""
    own = config.teacher.kind == "diffusers" and config.data.resolution == PAPER_RESOLUTION
    return METRICS[metric].same_scale_as_paper and own


def _places(step: str) -> list[str]:
    """The columns that a value and its test share: setting, optimiser step, sampling steps, metric, reference."""
    return [*SETTING_AXES, step, "sampling_steps", "metric", "reference"]


# ----------------------------------------------------------------- what is significant


def winner(comparison: Mapping[str, Any]) -> str | None:
    """ "CM" or "Direct CM", whichever the difference CM − Direct CM favours in the metric's own direction."""
    difference, better = comparison["difference"], METRICS[comparison["metric"]].better
    if math.isnan(difference) or difference == 0 or better not in ("lower", "higher"):
        return None
    return A if (difference < 0) == (better == "lower") else B


def tests_of(comparisons: pd.DataFrame) -> dict[Place, dict[str, Any]]:
    """Comparisons of CM and Direct CM at the same step of training, by place."""
    found = comparisons.query("what == 'method' and a == @A and b == @B and a_step == b_step")
    return dict(zip(tidy.keys_of(found, _places("a_step")), found.to_dict("records"), strict=True))


def against_baselines(comparisons: pd.DataFrame, alpha: float) -> dict[Place, tuple[tuple[str, str], ...]]:
    """Every baseline that a student's ODE error was compared with, and the verdict, by row and place."""
    found = comparisons.query("what == 'baseline'")
    out: dict[Place, dict[str, str]] = {}
    for place, line in zip(tidy.keys_of(found, ["a", *_places("a_step")]), found.to_dict("records"), strict=True):
        clear = significant(line, alpha)
        out.setdefault(place, {})[line["b"]] = (BEATEN if line["difference"] < 0 else AHEAD) if clear else LEVEL
    return {place: tuple((name, own[name]) for name in tidy.TO_BEAT if name in own) for place, own in out.items()}


# ----------------------------------------------------------------- lines


def lines_of(rows: pd.DataFrame, groups: Sequence[str]) -> list[Line]:
    """Lines by the rows' group, as `groups` has them; within a group by number of sampling steps, then as ROWS has them."""
    lines = [
        Line(row, int(steps), solver, group, own)
        for (group, row, steps, solver), own in rows.groupby(["group", "row", "sampling_steps", "solver"])
    ]

    def order(line: Line) -> tuple[int, bool, int, int]:
        student = line.row in METHODS.values()
        return groups.index(line.group), student, line.steps * student, tidy.ROWS.index(line.row)

    return sorted(lines, key=order)


def _value(line: Line, rows: pd.DataFrame) -> Value:
    """The value of a line's rows of one metric and reference, a row a seed."""
    first, values = rows.iloc[0], rows["value"]
    metric, reference = first["metric"], first["reference"]
    mean, sd = tidy.mean_sd(values) if values.notna().all() else (math.nan, math.nan)
    return Value(
        line.row, line.steps, line.solver, metric, reference, defined(mean), defined(sd), len(rows), int(first["n"]),
        paper_value(line.row, line.steps, metric, reference) if line.solver == PAPER_SOLVER else None,
        tidy.number(first["n_reference"]), tidy.number(first["dim"]), tuple(dict.fromkeys(filter(None, ";".join(rows["flags"]).split(";")))),
        tuple(first[_places("step")]),
    )  # fmt: skip


def fill(
    lines: Sequence[Line],
    names: Sequence[str],
    tests: Mapping[Place, Mapping[str, Any]],
    alpha: float,
    where: str | Path,
) -> None:
    """Fill the lines' values from their rows, marking the better of CM and Direct CM where the difference is significant."""
    for line in lines:
        found = dict(iter(line.rows.groupby(["metric", "reference"])))
        for metric, reference in ((m, r) for m in names for r in METRICS[m].references if (m, r) in found):
            rows = found[metric, reference]
            if len(rows) < line.seeds:
                lacking = {*line.rows["seed"]} - {*rows["seed"]}
                raise UserError(
                    f"{where}: {line.row}, {line.detail}, seed {min(lacking):.0f} lacks {metric} against {reference}, "
                    f"which other seeds have; evaluate it again"
                )
            line.values[metric, reference] = _value(line, rows)
    # The test pairs seeds, a mean has all of them: where they disagree on which is better, nothing is marked.
    pairs = {(line.row, line.group, line.steps, line.solver): line for line in lines if line.row in (A, B)}
    for line in pairs.values():
        twin = pairs.get((B if line.row == A else A, line.group, line.steps, line.solver))
        for key, own in line.values.items() if twin else ():
            test, other = tests.get(own.place), twin and twin.values.get(key)
            if test and other and significant(test, alpha) and winner(test) == line.row and _better(own, other):
                line.values[key] = replace(own, best=True)


def _better(own: Value, other: Value) -> bool:
    if own.mean is None or other.mean is None:
        return False
    return own.mean < other.mean if METRICS[own.metric].better == "lower" else own.mean > other.mean


def sets_of(config: Config, numbers: Sequence[int], axis: str | tuple[str, ...] = ()) -> dict[Place, Run]:
    """The grid's sets of these numbers of sampling steps, in its order: of runs whose setting is the main one but for `axis`.

    By the values of SET. Not every run has all numbers: each line of `students` names its own.
    """
    runs = select_runs(config.runs(), main_setting(config), axis)
    sets = ((run, step, k) for run in runs for step, k in config.sets(run) if k in numbers)
    return {(*run.axes().values(), step, k): run for run, step, k in sets}


def among(rows: pd.DataFrame, sets: Container[Place]) -> pd.DataFrame:
    """The students' rows of metrics.csv that are of these sets."""
    return rows[[place in sets for place in tidy.keys_of(rows, SET)]]


def require(rows: pd.DataFrame, sets: Mapping[Place, Run], path: str | Path) -> None:
    """UserError where a finished student among these sets, its teacher or its floor has no line in metrics.csv."""
    have, teachers = set(tidy.keys_of(rows, SET)), set(tidy.keys_of(rows, ("row", *ODE_AXES)))
    # Of errors sample by sample alone neither has a line: the teacher has none to itself, another noise no counterpart.
    needed = () if all(METRICS[metric].same_noise for metric in set(rows["metric"])) else (tidy.TEACHER, tidy.FLOOR)
    for place, run in sets.items():
        step, k = place[-2:]
        if step == run.steps and place not in have:
            raise UserError(
                f"{path}: none of {METHODS[run.method]} at {k} sampling step{'s' * (k > 1)} with {run.setting.words}, "
                f"seed = {run.seed}; evaluate this student and collect again"
            )
        for row in needed:
            if (row, *run.ode.axes().values()) not in teachers:
                raise UserError(f"{path}: none of “{row}” with {run.ode.words}; evaluate it and collect again")


def select(
    metrics: str | Path,
    comparisons: str | Path,
    config: Config,
    *,
    numbers: Sequence[int],
    names: Sequence[str],
    axis: str | tuple[str, ...] = (),
    groups: Sequence[str] = ("",),
    group: Callable[[pd.DataFrame], Any] = lambda rows: "",
) -> tuple[list[Line], int]:
    """A table's lines with their values, and how many of the students' values have a test.

    Finished students of the grid in those of `numbers` of sampling steps that it has for each, their setting the main one but for
    `axis`, with their teachers. `group` says which of `groups` each row is in.
    """
    sets = sets_of(config, numbers, axis)
    rows = select_axis(tidy.frame(metrics, tidy.METRIC_COLUMNS), main_setting(config), axis)
    teachers, students = rows[rows["step"].isna()], among(rows[rows["step"] == rows["steps"]], sets)
    chosen = rows.loc[[*teachers.index, *students.index]]
    require(chosen, sets, metrics)
    lines = lines_of(chosen.assign(group=group), groups)
    compared = tidy.frame(comparisons, tidy.COMPARISON_COLUMNS, empty=True)
    tests = tests_of(compared)
    fill(lines, names, tests, config.statistics.alpha, metrics)
    # A baseline has what can be said of final latents: where a table shows none of that, it has no line.
    lines = [line for line in lines if line.values or line.row not in tidy.TO_BEAT]
    to_beat = against_baselines(compared, config.statistics.alpha)
    for line in lines:
        for key, own in line.values.items():
            line.values[key] = replace(own, to_beat=to_beat.get((line.row, *own.place), ()))
    if not any(line.values for line in lines):
        raise UserError(f"metrics: none of {', '.join(names)} has been evaluated; check the key metrics")
    tested = students[students["metric"].isin(names)]
    return lines, sum(place in tests for place in tidy.keys_of(tested, _places("step")))


def csv_rows(lines: Sequence[Line], columns: Sequence[str] = COLUMNS) -> list[dict[str, Any]]:
    """A table's CSV: a line per value."""
    return [{c: tidy.rounded(getattr(own, c)) for c in columns} for line in lines for own in line.values.values()]
