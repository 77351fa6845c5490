"""From the tidy tables to the lines of a table and their cells: selection, means over seeds, what is significant.

Students' cells are mean ± sample sd over training seeds. One is the best only where comparisons.csv finds the difference between
CM and Direct CM of that setting, step, number of sampling steps, metric and reference significant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from directcm.analysis.data.collect import METRICS_COLUMNS
from directcm.analysis.data.selection import FLOOR, ROWS, TEACHER, main_setting, select_axis, select_runs, steps_label
from directcm.analysis.data.tidy import Row, finished, mean_sd, read, value
from directcm.analysis.tables.text import rounded
from directcm.config import SETTING_AXES, Config, Ode, Run, spell
from directcm.config.registry import FIRST
from directcm.config.specs import METHODS, METRICS
from directcm.errors import UserError
from directcm.runtime.artifacts import read_csv

PAPER_RESOLUTION = 1024
PAPER_SOLVER = "ddim"
A, B = (METHODS[name] for name in FIRST)
COLUMNS = ["row", "steps", "metric", "reference", "mean", "sd", "n_seeds", "n_samples", "paper"]

Key = tuple[str, str]  # metric, reference
Set = tuple[Run, float, int]  # run, its step, sampling steps


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
    n_reference: int | None
    dim: int | None
    flags: tuple[str, ...]
    place: tuple[str, ...]
    best: bool = False


@dataclass
class Line:
    """One line of a table: a row of the comparison under one solver and number of sampling steps."""

    row: str
    steps: int
    solver: str
    group: str
    rows: list[Row]
    values: dict[Key, Value] = field(default_factory=dict)
    cost: float | None = None  # network evaluations, where the table has them

    @property
    def seeds(self) -> int:
        return len({row["seed"] for row in self.rows})

    @property
    def detail(self) -> str:
        """What stands under the row's name."""
        if self.row in (TEACHER, FLOOR):
            return f"{self.steps} solver steps"
        cost = "" if self.cost is None else f", {self.cost:,.0f} evaluations"
        return f"{steps_label(self.steps)}, {self.seeds} seed{'s' * (self.seeds != 1)}{cost}"


def headline(config: Config) -> list[str]:
    """The metrics of Tables 1 to 4."""
    return [m for m in config.metric_names() if METRICS[m].headline]


def others(config: Config) -> list[str]:
    """The metrics that stand in none of them."""
    return [m for m in config.metric_names() if not METRICS[m].headline]


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


# ----------------------------------------------------------------- what is significant


def _place(row: Row, step: str) -> tuple[str, ...]:
    """What a value and a comparison must share: setting, optimiser step, sampling steps, metric, reference."""
    return (*(spell(row[name]) for name in (*SETTING_AXES, step, "sampling_steps")), row["metric"], row["reference"])


def significant(comparison: Row, alpha: float) -> bool:
    """Whether a comparison's p is below alpha over seeds and prompts, and, where there is one, over prompts alone too."""
    p, conditional = value(comparison["p"]), value(comparison["p_prompts"])
    return p < alpha and (math.isnan(conditional) or conditional < alpha)


def winner(comparison: Row) -> str | None:
    """ "CM" or "Direct CM", whichever the difference CM − Direct CM favours in the metric's own direction."""
    difference = value(comparison["difference"])
    if math.isnan(difference) or difference == 0 or METRICS[comparison["metric"]].better not in ("lower", "higher"):
        return None
    return A if (difference < 0) == (METRICS[comparison["metric"]].better == "lower") else B


def tests_of(comparisons: Sequence[Row]) -> dict[tuple[str, ...], Row]:
    """Comparisons of CM and Direct CM at the same step of training, by place."""
    return {
        _place(row, "a_step"): row
        for row in comparisons
        if row["what"] == "method" and (row["a"], row["b"]) == (A, B) and value(row["a_step"]) == value(row["b_step"])
    }


# ----------------------------------------------------------------- lines


def lines_of(rows: Sequence[Row], group: Callable[[Row], str]) -> list[Line]:
    """Lines in the order of their groups' first appearance; within a group by number of sampling steps, then as ROWS has them."""
    found: dict[tuple[str, str, int, str], Line] = {}
    for row in rows:
        own, steps = group(row), int(row["sampling_steps"])
        line = Line(row["row"], steps, row["solver"], own, [])
        found.setdefault((own, row["row"], steps, row["solver"]), line).rows.append(row)
    groups, students = list(dict.fromkeys(line.group for line in found.values())), tuple(METHODS.values())

    def order(line: Line) -> tuple[int, bool, int, int]:
        student = line.row in students
        return groups.index(line.group), student, line.steps * student, ROWS.index(line.row)

    return sorted(found.values(), key=order)


def _value(line: Line, rows: Sequence[Row]) -> Value:
    """The value of a line's rows of one metric and reference, a row a seed."""

    def whole(name: str) -> int | None:
        return int(float(first[name])) if first[name] else None

    first, values = rows[0], [value(row["value"]) for row in rows]
    metric, reference = first["metric"], first["reference"]
    mean, sd = (math.nan, math.nan) if any(map(math.isnan, values)) else mean_sd(values)
    return Value(
        line.row, line.steps, line.solver, metric, reference, None if math.isnan(mean) else mean, None if math.isnan(sd) else sd,
        len(rows), int(first["n"]), paper_value(line.row, line.steps, metric, reference) if line.solver == PAPER_SOLVER else None,
        whole("n_reference"), whole("dim"), tuple(dict.fromkeys(flag for row in rows for flag in row["flags"].split(";") if flag)),
        _place(first, "step") if first["step"] else (),
    )  # fmt: skip


def fill(
    lines: Sequence[Line], names: Sequence[str], tests: Mapping[tuple[str, ...], Row], alpha: float, where: str | Path
) -> None:
    """Fill the lines' values from their rows, marking the better of CM and Direct CM where the difference is significant."""
    for line in lines:
        found: dict[Key, list[Row]] = {}
        for row in line.rows:
            found.setdefault((row["metric"], row["reference"]), []).append(row)
        for metric, reference in ((m, r) for m in names for r in METRICS[m].references if (m, r) in found):
            rows = found[metric, reference]
            if len(rows) < line.seeds:
                lacking = {row["seed"] for row in line.rows} - {row["seed"] for row in rows}
                raise UserError(
                    f"{where}: {line.row}, {line.detail}, seed {min(lacking)} lacks {metric} against {reference}, "
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


def sets_of(config: Config, numbers: Sequence[int], axis: str | tuple[str, ...] = ()) -> dict[Set, None]:
    """The grid's sets of these numbers of sampling steps, in its order: of runs whose setting is the main one but for `axis`.

    Not every run has all numbers: each line of `students` names its own.
    """
    runs = select_runs(config.runs(), main_setting(config), axis)
    return dict.fromkeys((run, step, k) for run in runs for step, k in config.sets(run) if k in numbers)


def set_of(row: Row, path: str | Path) -> Set:
    """Which one a student's line of metrics.csv is of."""
    return Run.of(row, f"{path}: a line"), value(row["step"]), int(row["sampling_steps"])


def require(rows: Sequence[Row], sets: Iterable[Set], path: str | Path) -> None:
    """UserError where a finished student among these sets, its teacher or its floor has no line in metrics.csv."""
    have = {set_of(r, path) for r in rows if r["method"]}
    teachers = {(r["row"], Ode.of(r, f"{path}: a line")) for r in rows}
    for run, step, k in sets:
        if step == run.steps and (run, step, k) not in have:
            raise UserError(
                f"{path}: none of {METHODS[run.method]} at {k} sampling step{'s' * (k > 1)} with {run.setting.words}, "
                f"seed = {run.seed}; evaluate this student and collect again"
            )
        # Of errors sample by sample alone neither has a line: the teacher has none to itself, another noise no counterpart.
        for row in (TEACHER, FLOOR) if any(r["metric"] != "ode_error" for r in rows) else ():
            if (row, run.ode) not in teachers:
                raise UserError(f"{path}: none of “{row}” with {run.ode.words}; evaluate it and collect again")


def select(
    metrics: str | Path,
    comparisons: str | Path,
    config: Config,
    *,
    numbers: Sequence[int],
    names: Sequence[str],
    axis: str | tuple[str, ...] = (),
    group: Callable[[Row], str] = lambda row: "",
    order: Callable[[Row], Any] = lambda row: 0,
) -> tuple[list[Line], int]:
    """A table's lines with their values, and how many of the students' values have a test.

    Finished students of the grid in those of `numbers` of sampling steps that it has for each, their setting the main one but for
    `axis`, with their teachers.
    """
    sets = sets_of(config, numbers, axis)
    rows = select_axis(read(metrics, METRICS_COLUMNS), main_setting(config), axis)
    students = [row for row in finished([r for r in rows if r["step"]]) if set_of(row, metrics) in sets]
    chosen = sorted([*(row for row in rows if not row["step"]), *students], key=order)
    require(chosen, sets, metrics)
    lines = lines_of(chosen, group)
    tests = tests_of(read_csv(comparisons))
    fill(lines, names, tests, config.statistics.alpha, metrics)
    if not any(line.values for line in lines):
        raise UserError(f"metrics: none of {', '.join(names)} has been evaluated; check the key metrics")
    return lines, sum(_place(row, "step") in tests for row in students if row["metric"] in names)


def csv_rows(lines: Sequence[Line], columns: Sequence[str] = COLUMNS) -> list[dict[str, Any]]:
    """A table's CSV: a line per value."""
    return [{c: rounded(getattr(own, c)) for c in columns} for line in lines for own in line.values.values()]
