"""Which runs the main comparison holds, and which rows differ from it in one axis alone."""

from __future__ import annotations

import pytest

from directcm.analysis.data.selection import (
    base_setting,
    describe,
    main_runs,
    main_setting,
    sampling_numbers,
    select_axis,
    select_runs,
    swept,
)
from directcm.analysis.data.tidy import METRIC_COLUMNS, frame, keys_of
from directcm.config import ODE_AXES, SETTING_AXES
from directcm.errors import UserError
from directcm.runtime.artifacts import read_csv, write_csv

GRID = {
    "students": [
        {"seed": [0, 1], "sampling_steps": [4, 1]},
        {"N": [100, 10], "seed": [0, 1]},
        {"solver": ["heun", "euler"]},
        {"N": [25], "lr": [1e-3]},
        {"lr": [1e-3], "loss": ["mse", "pseudo_huber"]},
    ]
}


def test_default_grid_holds_the_main_comparison(config):
    assert [(r.method, r.seed) for r in main_runs(config)] == [(m, s) for m in ("cm", "direct_cm") for s in range(5)]
    main = main_setting(config)
    assert (
        main.axes() == {n: getattr(config.ode if n in ODE_AXES else config.train, n) for n in SETTING_AXES}
        and main.ode.key == config.ode.key
    )
    assert f"{main.steps} steps of {main.batch_size} from {main.pool:,} start points" in describe(config)


def test_other_axes_stay_out(configure):
    chosen = main_runs(configure(**GRID))
    assert len(chosen) == 4
    assert {(r.N, r.lr, r.solver, r.loss) for r in chosen} == {(50, 1e-4, "ddim", "mse")}


def test_without_the_defaults_the_first_run_decides(configure):
    config = configure(students=[{"N": [100, 25], "seed": [0, 1]}])
    assert {r.N for r in main_runs(config)} == {100}
    assert len(main_runs(config)) == 4
    assert swept(config, "N") == [25, 100]


def test_a_method_without_a_main_run_is_an_error(configure):
    config = configure(students=[{"method": ["cm"], "seed": [0]}, {"method": ["direct_cm"], "lr": [0.01]}])
    with pytest.raises(UserError, match=r"no run of direct_cm .*lr = 0\.0001.*no Direct CM"):
        main_runs(config)


def test_sweeps_are_what_differs_in_one_axis_alone(configure):
    config = configure(**GRID)
    assert swept(config, "N") == [10, 50, 100]  # not 25, where the learning rate is another
    assert swept(config, "solver") == ["ddim", "euler", "heun"]
    assert swept(config, "lr") == [1e-4, 1e-3]
    assert swept(config, "loss") == ["mse"]
    assert swept(config, "sampling_steps") == sampling_numbers(config) == [1, 4]


def test_lines_of_a_table_are_selected_as_numbers_spell_them(make, configure):
    config = configure(**GRID)
    main = main_setting(config)
    path = make.tidy(config)[0]
    rows = read_csv(path)
    for row in rows:  # other spellings of the same numbers
        row["lr"], row["w"] = {"0.0001": "1e-4", "0.001": "1E-03"}.get(row["lr"], row["lr"]), "3.0"
    write_csv(path, rows, METRIC_COLUMNS)
    table = frame(path, METRIC_COLUMNS)
    found = select_axis(table, main, "N")
    assert found.index.is_monotonic_increasing
    assert {*keys_of(found, ("row", "N"))} == {
        *((row, n) for row in ("CM", "Direct CM") for n in (50, 100, 10)),
        # The teacher is of an ODE, whoever was trained with it.
        *((row, n) for row in ("Teacher", "Teacher, other noise") for n in (50, 100, 10, 25)),
    }
    assert {*select_axis(table, main)["N"]} == {50}
    assert {*select_axis(table, main, ("lr", "loss"))["loss"]} == {"mse", "pseudo_huber", ""}
    assert select_axis(table, main.at(w=4.0)).empty
    with pytest.raises(ValueError, match="no axes"):
        select_axis(table, main, "seed")
    # Of the grid's runs the same, without the teacher.
    assert {(r.method, r.N) for r in select_runs(config.runs(), main, "N")} == {
        (m, n) for m in ("cm", "direct_cm") for n in (10, 50, 100)
    }


def test_a_sweep_may_have_a_base_of_its_own(configure) -> None:
    """The paper's: main comparison at N = 100, ω swept at N = 50, N swept around the main setting."""
    config = configure(
        ode={"N": 100, "w": 9},
        students=[{"seed": [0]}, {"N": [10, 50]}, {"N": [50], "w": [1, 3]}],
    )
    assert base_setting(config, "N") == main_setting(config) and swept(config, "N") == [10, 50, 100]
    assert base_setting(config, "w") == main_setting(config).at(N=50) and swept(config, "w") == [1, 3, 9]
    alone = configure(students=[{"seed": [0]}])
    assert base_setting(alone, "w") == main_setting(alone) and swept(alone, "w") == [3.0]
