"""Which runs the main comparison holds, and what it refuses to compare."""

from __future__ import annotations

import pytest

from directcm.analysis.selection import main_runs, select
from directcm.errors import UserError


def test_default_grid_is_the_main_comparison(config):
    assert [(r["method"], r["seed"]) for r in main_runs(config)] == [
        (m, s) for m in ("cm", "direct_cm") for s in (0, 1, 2)
    ]


def test_other_axes_stay_out(configure):
    config = configure(students=[{"seed": [0, 1]}, {"N": [10, 25], "seed": [0, 1]}, {"lr": [1e-3], "seed": [2]}])
    chosen = main_runs(config)
    assert len(config.runs()) == 14
    assert len(chosen) == 4
    assert {(r["N"], r["lr"]) for r in chosen} == {(50, 1e-4)}


def test_without_the_defaults_the_first_run_decides(configure):
    config = configure(students=[{"N": [100, 25], "seed": [0, 1]}])
    assert {r["N"] for r in main_runs(config)} == {100}
    assert len(main_runs(config)) == 4


def test_a_method_without_a_main_run_is_an_error(configure):
    config = configure(students=[{"method": ["cm"], "seed": [0]}, {"method": ["direct_cm"], "lr": [0.01]}])
    with pytest.raises(UserError, match=r"no run of direct_cm .*lr = 0\.0001.*no Direct CM"):
        main_runs(config)


def test_select_orders_and_drops_other_runs(make, configure):
    config = configure(evaluation={"steps": [4, 1]}, students=[{"seed": [1, 0]}, {"w": [1.0], "seed": [0]}])
    artifacts = make.main(config)[::-1]
    other = {**main_runs(config)[0], "w": 1.0}
    artifacts.append(make.metrics("CM", other, {("ode_error", "teacher"): 99.0}))
    artifacts.append(make.metrics("Teacher", {"solver": "ddim", "N": 50, "w": 1.0}, {}, steps=50))
    found = [(e.row, e.steps, e.seed) for e in select(artifacts, config)]
    students = [(row, k, s) for row in ("CM", "Direct CM") for k in (1, 4) for s in (0, 1)]
    assert found == [("Teacher", 50, None), *students]


def test_axes_compare_as_paths_spell_them(make, config):
    run = main_runs(config)[0]
    artifacts = make.main(config)[1:]
    artifacts.append(
        make.metrics("Teacher", {"solver": run["solver"], "N": 50.0, "w": 3}, {("clip_tiny", "prompt"): 1.0}, steps=50)
    )
    assert select(artifacts, config)[0].row == "Teacher"


@pytest.mark.parametrize(
    ("drop", "message"),
    [("Teacher", "none of the teacher"), ("CM", "none of CM at 1 sampling step"), ("Direct CM", "none of Direct CM")],
)
def test_a_missing_row_is_an_error(make, config, drop, message):
    artifacts = [a for a in make.main(config) if a.json("metrics.json")["row"] != drop]
    with pytest.raises(UserError, match=message):
        select(artifacts, config)


def test_incomparable_inputs_are_errors(make, config):
    artifacts = make.main(config)
    run = main_runs(config)[0]
    with pytest.raises(UserError, match="give each run once"):
        select([*artifacts, artifacts[1]], config)
    others = [a for a in artifacts if a.json("metrics.json")["run"] != run]
    values = {("fd_tiny", "teacher"): 1.0}
    with pytest.raises(UserError, match="other noise"):
        select([*others, make.metrics("CM", run, values, noise="b" * 64)], config)
    with pytest.raises(UserError, match=r"not comparable"):
        select([*others, make.metrics("CM", run, values, n=9)], config)
    with pytest.raises(UserError, match=r"not comparable"):
        select([*others, make.metrics("CM", run, values, dim=32)], config)
    with pytest.raises(UserError, match="row is '<script>'"):
        select([make.metrics("<script>", run, values)], config)
    with pytest.raises(UserError, match="unknown metric 'ode_error' against 'data'"):
        select([make.metrics("CM", run, {("ode_error", "data"): 1.0})], config)
