"""Tidy tables: selections, means by hand, and one path along training."""

from __future__ import annotations

import math
import statistics

import pytest

from directcm.analysis.data import tidy
from directcm.errors import UserError
from directcm.runtime.artifacts import write_csv
from tests.analysis import tidy_tables as tables
from tests.analysis.tidy_tables import MAIN


def student(row="CM", step=250, seed=0, **axes):
    return {
        "row": row, **MAIN.at(**axes).spelled, "seed": str(seed), "step": str(step), "sampling_steps": "1",
        "metric": "ode_error", "reference": "teacher", "value": "0.5",
    }  # fmt: skip


def test_numbers_are_compared_as_numbers():
    row = {**MAIN.spelled, "lr": "1e-4", "w": "3.0"}
    assert tidy.matches(row, MAIN) and not tidy.matches({**row, "adapter": "lora4"}, MAIN)
    assert not tidy.matches({**row, "w": ""}, MAIN) and tidy.matches({**row, "w": ""}, MAIN, ["w"])
    assert math.isnan(tidy.value("")) and math.isnan(tidy.value("nan")) and math.isnan(tidy.value("x"))
    assert tidy.value("-2.5") == -2.5


def test_a_table_without_rows_or_columns_is_an_error(tmp_path):
    write_csv(tmp_path / "a.csv", [], ["row"])
    with pytest.raises(UserError, match="holds no rows"):
        tidy.read(tmp_path / "a.csv", ["row"])
    write_csv(tmp_path / "b.csv", [{"row": 1}], ["row"])
    with pytest.raises(UserError, match="lacks the columns value"):
        tidy.read(tmp_path / "b.csv", ["row", "value"])


def test_a_frame_has_numbers_and_text(tmp_path):
    path = tmp_path / "a.csv"
    write_csv(
        path, [{"row": "1", "value": "2", "n": ""}, {"row": "", "value": "inf", "n": "1e-4"}], ["row", "value", "n"]
    )
    table = tidy.frame(path, ["row", "value"])
    assert [*table["row"]] == ["1", ""] and table["value"].iloc[0] == 2 and table["n"].iloc[1] == 1e-4
    assert table[["value", "n"]].isna().to_numpy().tolist() == [[False, True], [True, False]]
    assert set(table.dtypes.astype(str)) == {"object", "float64"}
    write_csv(path, [{"value": "two"}], ["value"])
    with pytest.raises(UserError, match="value is 'two', expected a number"):
        tidy.frame(path, ["value"])
    write_csv(path, [], ["value"])
    with pytest.raises(UserError, match="holds no rows"):
        tidy.frame(path, ["value"])
    assert tidy.frame(path, ["value"], empty=True).empty


def test_points_are_means_and_sample_deviations():
    rows = [
        {"x": "1", "seed": "2", "value": "3"}, {"x": "1", "seed": "0", "value": "1"}, {"x": "1", "seed": "1", "value": "8"},
        {"x": "0.5", "seed": "0", "value": "4"}, {"x": "1", "seed": "3", "value": ""}, {"x": "", "seed": "4", "value": "9"},
    ]  # fmt: skip
    half, one = tidy.points(rows, "x")
    assert (half.x, half.mean, half.n, math.isnan(half.sd)) == (0.5, 4, 1, True)
    assert one.mean == pytest.approx(4) and one.sd == pytest.approx(statistics.stdev([1, 8, 3]))
    assert dict(one.values) == {0: 1, 1: 8, 2: 3}
    assert tidy.seeds([[half, one]]) == "1–3 seeds" and tidy.seeds([[half]]) == "1 seed"


def test_the_path_is_one_setting_with_snapshots():
    main = [student(seed=s) for s in (0, 1)]
    long = [student(step=k, steps=1000, pool=16000) for k in (62, 250, 1000)]
    other = [student(step=k, adapter="lora4", steps=1000, pool=16000) for k in (1, 2, 3, 4, 5)]
    assert tidy.path([*main, *long, *other], MAIN) == long
    assert tidy.path([*main, *other], MAIN) == main
    # The main setting wins among equals.
    own = [student(step=k) for k in (62, 125, 250)]
    assert tidy.path([*long, *own], MAIN) == own
    assert tidy.path(other, MAIN) == []


def test_without_snapshots_finished_students_of_several_lengths_make_the_path():
    short, main = student(step=125, steps=125), student()
    large, own = student(step=500, steps=500, pool=8000), student(step=500, steps=500)
    assert tidy.path([large, main, short], MAIN) == [short, main, large]
    assert tidy.path([large, main, own], MAIN) == [main, own]


def test_adapters_are_ordered_by_capacity():
    assert sorted(["full", "lora64", "lora8"], key=tidy.adapter_order) == ["lora8", "lora64", "full"]
    assert [tidy.adapter_title(a) for a in ("lora8", "full")] == ["LoRA, rank 8", "all weights"]


def test_titles_say_which_way_is_better():
    assert tidy.title("fd_tiny", "teacher") == "FD-tiny to teacher ↓"
    assert tidy.title("ode_error", "teacher") == "ODE error (latent MSE) ↓"
    assert tidy.title("ode_error", "teacher", "pixel") == "ODE error (pixel MSE) ↓"
    assert tidy.title("clip_tiny", "prompt") == "CLIP-tiny ↑"


def test_paper_values_need_the_papers_scale_and_its_reference():
    assert tidy.paper_values("fid", "teacher", ["fid"]) == {"paper, CM": 95.3, "paper, Direct CM": 166.0}
    assert tidy.paper_values("fid", "data", ["fid"]) == tidy.paper_values("fid", "teacher", []) == {}


def test_differences_leave_out_other_rows(tmp_path):
    rows = tidy.read(tables.comparisons(tmp_path / "c.csv"), tidy.COMPARISON_COLUMNS)
    found = tidy.differences(rows, MAIN)
    assert len(found) == len(tables.PAIRS)
    assert {(r["a"], r["b"], r["sampling_steps"], r["what"]) for r in found} == {("CM", "Direct CM", "1", "method")}


def test_signed():
    assert [tidy.signed(x, 2) for x in (0.125, -0.031, -0.001)] == ["+0.12", "−0.03", "0.00"]
