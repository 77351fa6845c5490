"""Table 4, every method in each number of sampling steps: after as many updates, and for as much compute."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from directcm.analysis.data.selection import main_setting, sampling_numbers, select_axis
from directcm.analysis.data.tidy import METRIC_COLUMNS, STUDENT_COLUMNS, TO_BEAT, frame
from directcm.analysis.tables import cells, grid
from directcm.analysis.tables.text import listed
from directcm.config import Config, Setting
from directcm.config.registry import FIRST
from directcm.config.specs import METHODS
from directcm.errors import UserError
from directcm.runtime.artifacts import write_csv

if TYPE_CHECKING:
    import pandas as pd

EXHIBITS = {
    "table4": {
        "title": "Table 4, every method",
        "scope": "paper",
        "takes": "metrics comparisons students_table",
        "needs": "headline and other_methods",
        "place": 4,
    }
}

BEFORE, UPDATES, COMPUTE = "Without training", "At equal student updates", "At equal compute"
# How far from the common budget a training may end and still be called equal.
WITHIN = 0.1
VALUES = [name for name in cells.COLUMNS if name != "paper"]
TABLE4_COLUMNS = ["part", *VALUES, "evaluations"]


def evaluations(students: pd.DataFrame) -> pd.Series:
    """Rows through a U-Net that students had cost at a step (lines of students.csv): their own forwards, backwards as two
    forwards each, the teacher's in training, and those that solved their targets.
    """
    forwards = students["student_forwards"] + students["teacher_forwards"] + students["target_forwards"]
    return forwards + 2 * students["student_backwards"]


def equal_compute(students: pd.DataFrame, main: Setting, budget: float) -> pd.DataFrame:
    """The steps, pool, step and cost that are nearest to the budget, by method: of those within WITHIN of it.

    `students` are lines of students.csv that differ from the main setting in steps and pool alone. Seeds cost the same.
    """
    found = select_axis(students, main, ("steps", "pool")).assign(cost=evaluations)
    apart = (found["cost"] / budget - 1).abs()
    near = found.loc[apart[apart <= WITHIN].sort_values(kind="stable").index]
    return near.drop_duplicates("method").set_index("method")[["steps", "pool", "step", "cost"]]


def _lines(metrics: str | Path, config: Config, students: str | Path) -> tuple[list[cells.Line], list[str]]:
    """Its lines with their values, each line's part its group, and the notes."""
    main, numbers = main_setting(config), sampling_numbers(config)
    if set(cells.config_methods(config)) <= set(FIRST):
        raise UserError("students: method has cm and direct_cm alone, so Table 4 has nothing to add; name others too")
    costs = frame(students, STUDENT_COLUMNS)
    whole = select_axis(costs[costs["step"] == main.steps], main)
    own = dict(zip(whole["method"], evaluations(whole), strict=True))
    reference = FIRST[0] if FIRST[0] in own else next(iter(own))
    compute = equal_compute(costs, main, own[reference])
    rows = select_axis(frame(metrics, METRIC_COLUMNS), main, ("steps", "pool"))
    trained = cells.among(rows, cells.sets_of(config, numbers, ("steps", "pool")))
    updates = select_axis(trained[trained["step"] == trained["steps"]], main)
    cells.require(rows.loc[[*updates.index, *rows.index[rows["step"].isna()]]], cells.sets_of(config, numbers), metrics)
    equal = trained.merge(compute.reset_index(), on=["method", "steps", "pool", "step"])
    lines = cells.lines_of(updates.assign(group=UPDATES), [UPDATES]) + cells.lines_of(
        equal.assign(group=COMPUTE), [COMPUTE]
    )
    cost = {UPDATES: own, COMPUTE: compute["cost"]}
    for line in lines:
        line.cost = cost[line.group][line.rows["method"].iloc[0]]
    baselines = rows[rows["row"].isin(TO_BEAT)]
    lines = cells.lines_of(baselines.assign(group=BEFORE), [BEFORE]) + lines
    cells.fill(lines, cells.headline(config), {}, config.statistics.alpha, metrics)
    absent = [METHODS[name] for name in own if name not in compute.index]
    notes = [
        "Students: mean ± sample standard deviation (n − 1) over training seeds. All from the same initial noise and prompts.",
        f"{UPDATES}: {main.steps} steps of {main.batch_size}. {COMPUTE}: as many evaluations as {METHODS[reference]} "
        f"took there, within {WITHIN:.0%}; fewer or more steps, and for solved targets fewer start points too. An evaluation is a row "
        "through a U-Net: the student's forwards, its backwards as two each, the teacher's, and those that solved targets.",
        "Nothing is bold: more than two methods are compared, and the tests of some pairs stand in the claims.",
        "Methods that ask no teacher learn from the data, without guidance; the others learn the guided teacher.",
    ]
    notes += grid.baselines(lines, config.statistics.alpha)
    if absent:
        notes.insert(2, f"No training of {listed(absent)} cost as much; a line of students with other steps would.")
    return lines, notes


def _csv(lines: Sequence[cells.Line]) -> list[dict[str, Any]]:
    return [
        {**row, "part": line.group, "evaluations": round(line.cost or 0)}
        for line in lines
        for row in cells.csv_rows([line], VALUES)
    ]


def rows(metrics: str | Path, config: Config, students: str | Path) -> list[dict[str, Any]]:
    """The lines of its CSV (TABLE4_COLUMNS), from the tidy tables; nothing is written."""
    return _csv(_lines(metrics, config, students)[0])


def write(metrics: str | Path, comparisons: str | Path, students: str | Path, config: Config, out: Path) -> None:
    """Write it as CSV (TABLE4_COLUMNS), LaTeX and HTML; `students` is students.csv.

    The first part holds the finished students of the main setting; the second those that differ from it in steps and pool and
    whose cost (`evaluations`) is nearest to CM's in the first part. Raises UserError where there are no methods but CM and Direct CM.
    """
    lines, notes = _lines(metrics, config, students)
    write_csv(out, _csv(lines), TABLE4_COLUMNS)
    grid.write(
        out, lines, notes, config, title="Table 4. Every method",
        caption="One row per method and number of steps, one column per metric",
        tex_caption=r"Every method: mean $\pm$ sd over training seeds.",
    )  # fmt: skip
