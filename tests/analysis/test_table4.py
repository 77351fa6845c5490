"""Table 4: which trainings are equal in updates and in compute, and what stands there of them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from directcm.analysis.data.tidy import METRIC_COLUMNS, STUDENT_COLUMNS
from directcm.analysis.figures import figure_training
from directcm.analysis.tables import table4
from directcm.analysis.tables.table4 import COMPUTE, TABLE4_COLUMNS, UPDATES, equal_compute, evaluations
from directcm.config import Config, parse
from directcm.config.registry import methods
from directcm.config.specs import METHODS
from directcm.errors import UserError
from directcm.runtime.artifacts import write_csv
from tests.analysis.tidy_tables import MAIN, available, table

CONTENT: dict[str, Any] = {
    "process": {"kind": "karras"}, "teacher": {"kind": "edm"}, "ode": {"solver": "heun", "N": 16, "w": 2},
    "train": {"adapter": "full", "batch_size": 10, "pool": 1000, "steps": 100},
    "metrics": ["ode_error", "fd_tiny", "prompt_accuracy"],
    "students": [
        {"method": ["cm", "ct", "ect"], "seed": [0, 1], "sampling_steps": [1, 2], "snapshots": [50]},
        {"method": ["ct"], "steps": [200], "seed": [0, 1], "sampling_steps": [1, 2]},
    ],
}  # fmt: skip


def value(method: str, steps: int, seed: int, k: int) -> float:
    return 10 * list(METHODS).index(method) + steps / 100 + seed + 0.25 * (k == 2)


def tables(config: Config, folder: Path) -> tuple[Path, Path, Path]:
    """metrics.csv, an empty comparisons.csv and students.csv of a grid; values are `value`'s."""
    rows: list[dict[str, Any]] = []
    costs: list[dict[str, Any]] = []
    ode = {"solver": "heun", "N": 16, "w": 2}
    pairs = [("ode_error", "teacher"), ("fd_tiny", "teacher"), ("fd_tiny", "data"), ("prompt_accuracy", "prompt")]
    for row in ("Teacher", "Teacher, other noise"):
        rows += [
            {"row": row, **ode, "sampling_steps": 16, "metric": m, "reference": r, "value": 1, "n": 8, "flags": ""}
            for m, r in pairs[2:]
        ]
    for run in config.runs():
        for step, k in config.sets(run):
            own = {**run.axes(), "row": METHODS[run.method], "step": step, "sampling_steps": k, "n": 8, "flags": ""}
            rows += [
                {**own, "metric": m, "reference": r, "value": value(run.method, step, run.seed, k)} for m, r in pairs
            ]
        for step in {step for step, _ in config.sets(run)}:
            drawn = step * run.batch_size
            own = {"student_forwards": methods()[run.method].forwards * drawn, "student_backwards": drawn}
            own |= {"teacher_forwards": 4 * drawn if run.method == "cm" else 0, "target_forwards": 0}
            costs.append({**run.axes(), "step": step, **own})
    write_csv(folder / "metrics.csv", rows, METRIC_COLUMNS)
    write_csv(folder / "comparisons.csv", [], ["what", "a", "b", "a_step", "b_step"])
    write_csv(folder / "students.csv", costs, STUDENT_COLUMNS)
    return folder / "metrics.csv", folder / "comparisons.csv", folder / "students.csv"


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_table4_has_of_each_run_the_sampling_steps_that_the_grid_has(tmp_path: Path) -> None:
    first, longer = CONTENT["students"]
    students = [
        {**first, "method": ["cm", "ect"]},
        *({**line, "method": ["ct"], "sampling_steps": [1]} for line in (first, longer)),
    ]
    config = parse(Config, {**CONTENT, "students": students})
    metrics, _, costs = tables(config, tmp_path)
    found = {(r["part"], r["row"], r["steps"]) for r in table4.rows(metrics, config, costs)}
    assert {(row, k) for part, row, k in found if part == UPDATES} == {
        ("CM", 1), ("CM", 2), ("ECT", 1), ("ECT", 2), ("CT", 1)
    }  # fmt: skip
    assert {k for part, row, k in found if (part, row) == (COMPUTE, "CT")} == {1}
    kept = [r for r in read(metrics) if (r["row"], r["seed"], r["sampling_steps"]) != ("ECT", "1", "2")]
    write_csv(metrics, kept, METRIC_COLUMNS)
    with pytest.raises(UserError, match=r"none of ECT at 2 sampling steps with .*seed = 1; evaluate this student"):
        table4.rows(metrics, config, costs)


def test_table4(tmp_path: Path) -> None:
    config = parse(Config, CONTENT)
    assert "table4" in available(config)
    metrics, comparisons, students = tables(config, tmp_path)
    table("table4", metrics, comparisons, students, config, tmp_path / "table4.csv")
    # What is published is what the table's CSV has.
    published = [
        {k: "" if v is None else str(v) for k, v in row.items()} for row in table4.rows(metrics, config, students)
    ]
    assert [{k: row[k] for k in TABLE4_COLUMNS} for row in published] == read(tmp_path / "table4.csv")
    rows = [r for r in read(tmp_path / "table4.csv") if (r["metric"], r["reference"]) == ("fd_tiny", "data")]
    found = {
        (r["part"], r["row"], r["steps"]): (float(r["mean"]), int(r["n_seeds"]), int(r["evaluations"])) for r in rows
    }
    ct = 10 * list(METHODS).index("ct")
    # A pair of CM costs 2 + 2 + 4 rows, one of CT 2 + 2: at 200 steps CT has cost as much, and ECT never has.
    assert found == {
        (UPDATES, "CM", "1"): (1.5, 2, 8000), (UPDATES, "CM", "2"): (1.75, 2, 8000),
        (UPDATES, "CT", "1"): (ct + 1.5, 2, 4000), (UPDATES, "CT", "2"): (ct + 1.75, 2, 4000),
        (UPDATES, "ECT", "1"): (10 * list(METHODS).index("ect") + 1.5, 2, 4000),
        (UPDATES, "ECT", "2"): (10 * list(METHODS).index("ect") + 1.75, 2, 4000),
        (COMPUTE, "CM", "1"): (1.5, 2, 8000), (COMPUTE, "CM", "2"): (1.75, 2, 8000),
        (COMPUTE, "CT", "1"): (ct + 2.5, 2, 8000), (COMPUTE, "CT", "2"): (ct + 2.75, 2, 8000),
    }  # fmt: skip
    page = (tmp_path / "table4.html").read_text(encoding="utf-8")
    assert "No training of ECT cost as much" in page and "8,000 evaluations" in page and "<strong>" not in page
    assert r"\label{tab:table4}" in (tmp_path / "table4.tex").read_text(encoding="utf-8")


def test_what_counts_as_equal() -> None:
    main = MAIN.at(pool=1)
    base = {**main.axes(), "method": "ct", "teacher_forwards": 0, "target_forwards": 40, "student_backwards": 10}

    def student(steps: int, step: int, forwards: float, **more: float) -> dict[str, Any]:
        return {**base, "steps": steps, "step": step, "student_forwards": forwards, **more}

    rows = pd.DataFrame([student(9, 3, 20), student(9, 9, 35), student(5, 5, 42), student(5, 5, 40, lr=2)])
    assert [*evaluations(rows)] == [80, 95, 102, 100]
    assert equal_compute(rows, main, 100).to_dict("index") == {"ct": {"steps": 5, "pool": 1, "step": 5, "cost": 102}}
    assert equal_compute(rows[:2], main, 100).to_dict("index") == {"ct": {"steps": 9, "pool": 1, "step": 9, "cost": 95}}
    assert equal_compute(rows[:1], main, 100).empty


def test_with_the_papers_two_there_is_no_table4(tmp_path: Path) -> None:
    config = parse(Config, {**CONTENT, "students": [{"method": ["cm", "direct_cm"], "seed": [0]}]})
    assert "table4" not in available(config)
    with pytest.raises(UserError, match="name others too"):
        table("table4", "m.csv", "c.csv", "s.csv", config, tmp_path / "t.csv")


@pytest.mark.slow
def test_the_figure_along_training(tmp_path: Path) -> None:
    config = parse(Config, CONTENT)
    metrics, _, _ = tables(config, tmp_path)
    main = config.runs()[0].setting
    out = [tmp_path / f"f.{kind}" for kind in ("pdf", "png", "csv")]
    figure_training.draw(metrics, main, *out)
    rows = [r for r in read(out[2]) if r["metric"] == "fd_tiny" and r["n_seeds"]]
    ct = 10 * list(METHODS).index("ct")
    assert {(r["row"], r["step"]): float(r["value"]) for r in rows if r["row"] == "CT"} == {
        ("CT", "50"): ct + 1.0, ("CT", "100"): ct + 1.5,
    }  # fmt: skip
    assert {r["row"] for r in rows} == {"CM", "CT", "ECT"} and {r["reference"] for r in rows} == {"data"}
    assert out[0].read_bytes().startswith(b"%PDF") and out[1].read_bytes().startswith(b"\x89PNG")
    assert figure_training.family("ct") == "from data alone" and figure_training.family("direct_cm") == "from a teacher"
    config = parse(Config, {**CONTENT, "students": [{"method": ["cm", "ct"]}]})
    metrics, _, _ = tables(config, tmp_path)
    with pytest.raises(UserError, match="snapshots"):
        figure_training.draw(metrics, main, *out)
