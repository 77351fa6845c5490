"""The tidy tables: what stands in them, and what may not stand side by side."""

from __future__ import annotations

import csv
import json
import shutil

import pytest

from directcm.analysis.data import collect
from directcm.analysis.data.collect import (
    comparisons_table,
    errors_table,
    metrics_table,
    over_teachers,
    students_table,
)
from directcm.analysis.data.tidy import COMPARISON_COLUMNS, TABLES, rounded, save
from directcm.errors import UserError
from directcm.runtime.artifacts import MANIFEST, read_csv, write_csv

ODE = {"solver": "ddim", "N": 50, "w": 3.0}
FD = ("fd_tiny", "teacher")


def saved(make, table):
    """The rows of a tidy table as its file has them."""
    path = make.folder("saved") / "table.csv"
    save(path, table)
    return read_csv(path)


def both(make, run, **more):
    """Teacher, floor, and a student of each method with a snapshot."""
    sets = {(250, 1): {("ode_error", "teacher"): 1 / 3, FD: 2.0}, (62, 1): {FD: 3.0}}
    return [
        make.student_metrics({**run, "method": "direct_cm"}, sets, **more),
        make.metrics("Teacher, other noise", {**ODE, "w": 3}, {FD: 0.1}, steps=50, noise="f" * 64).folder,
        make.student_metrics(run, sets, **more),
        make.metrics(
            "Teacher", ODE, {("fd_tiny", "data"): None}, steps=50, flags={("fd_tiny", "data"): ["a", "b"]}
        ).folder,
    ]


def test_metrics_have_a_line_per_value_in_one_order(make, run, tmp_path):
    paths = both(make, run)
    rows = saved(make, metrics_table(paths))
    assert rows == saved(make, metrics_table(paths[::-1]))
    assert all(list(row) == TABLES["metrics.csv"] for row in rows)
    shown = [(r["row"], r["seed"], r["step"], r["sampling_steps"], r["metric"], r["value"]) for r in rows]
    assert shown == [
        ("Teacher", "", "", "50", "fd_tiny", ""),
        ("Teacher, other noise", "", "", "50", "fd_tiny", "0.1"),
        ("CM", "0", "62", "1", "fd_tiny", "3.0"), ("CM", "0", "250", "1", "ode_error", "0.3333333333"),
        ("CM", "0", "250", "1", "fd_tiny", "2.0"), ("Direct CM", "0", "62", "1", "fd_tiny", "3.0"),
        ("Direct CM", "0", "250", "1", "ode_error", "0.3333333333"), ("Direct CM", "0", "250", "1", "fd_tiny", "2.0"),
    ]  # fmt: skip
    assert (rows[0]["flags"], rows[0]["dim"], rows[0]["n_reference"]) == ("a;b", "64", "8")
    assert (rows[0]["w"], rows[1]["w"], rows[2]["lr"], rows[0]["lr"], rows[0]["method"]) == ("3", "3", "0.0001", "", "")
    assert collect.collect(paths, [], [], [], [], tmp_path / "out") == {
        "metrics.csv": 8, "students.csv": 0, "errors.csv": 0, "comparisons.csv": 0, "directions.csv": 0, "correlations.csv": 0,
    }  # fmt: skip
    for name, columns in TABLES.items():
        with open(tmp_path / "out" / name, newline="", encoding="utf-8") as file:
            assert next(csv.reader(file)) == columns


def test_adapters_sort_by_rank_and_metrics_as_they_are_registered(make, run):
    paths = [make.student_metrics({**run, "adapter": a}, {(250, 1): {FD: 1.0}}) for a in ("full", "lora64", "lora4")]
    assert [*metrics_table(paths)["adapter"]] == ["lora4", "lora64", "full"]


def test_a_set_given_twice_is_an_error(make, run):
    paths = both(make, run)
    with pytest.raises(UserError, match=r"the same set as .*; give each run once"):
        metrics_table([*paths, paths[0]])
    twin = make.metrics("Teacher", {**ODE, "w": 3}, {("fd_tiny", "data"): 1.0}, steps=50).folder
    with pytest.raises(UserError, match="give each run once"):
        metrics_table([*paths, twin])


def test_metrics_of_a_set_may_lie_in_two_artefacts(make, run):
    paths = both(make, run)
    sets = {(250, 1): {("kid_lite0", "other_noise"): 0.25, ("fd_lite0", "data"): 4.0}, (62, 1): {}}
    rows = saved(make, metrics_table([*paths, make.student_metrics(run, sets)]))
    own = [(r["metric"], r["reference"], r["value"]) for r in rows if (r["row"], r["step"]) == ("CM", "250")]
    assert own == [
        ("ode_error", "teacher", "0.3333333333"), ("fd_tiny", "teacher", "2.0"), ("fd_lite0", "data", "4.0"),
        ("kid_lite0", "other_noise", "0.25"),
    ]  # fmt: skip
    with pytest.raises(UserError, match="evaluated on other noise than"):
        metrics_table([*paths, make.student_metrics(run, sets, noise="b" * 64)])


def test_other_noise_is_an_error_but_the_floor_has_its_own(make, run):
    paths = both(make, run)
    other = make.student_metrics({**run, "seed": 1}, {(250, 1): {FD: 1.0}}, noise="b" * 64)
    with pytest.raises(UserError, match="evaluated on other noise than"):
        metrics_table([*paths, other])
    floor = make.metrics("Teacher, other noise", {**ODE, "N": 10}, {FD: 0.1}, steps=10, noise="a" * 64).folder
    with pytest.raises(UserError, match="evaluated on other noise than"):
        metrics_table([*paths, floor])


@pytest.mark.parametrize("change", [{"n": 9}, {"dim": 32}])
def test_other_sizes_are_an_error(make, run, change):
    other = make.student_metrics({**run, "seed": 1}, {(250, 1): {FD: 1.0}}, **change)
    with pytest.raises(UserError, match=r"fd_tiny against teacher has \(n, n_reference, dim\) = .*not comparable"):
        metrics_table([*both(make, run), other])


def test_what_is_no_metrics_is_an_error(make, run, tmp_path):
    with pytest.raises(UserError, match="row is '<script>'"):
        metrics_table([make.metrics("<script>", ODE, {}).folder])
    with pytest.raises(UserError, match="outside its run's collection"):
        metrics_table([make.metrics("CM", run, {FD: 1.0}).folder])
    with pytest.raises(UserError, match="does not belong in the set"):
        collection = make.student_metrics(run, {(250, 1): {FD: 1.0}}).parent
        make.metrics("CM", run, {FD: 1.0}, step=62, folder=collection / "step~250,sampling_steps~1")
        from directcm.runtime.artifacts import new_collection

        new_collection(collection, "metrics", ["step~250,sampling_steps~1"], settings={})
        metrics_table([collection])
    with pytest.raises(UserError, match="its run lacks pool"):
        metrics_table([make.student_metrics({k: v for k, v in run.items() if k != "pool"}, {(250, 1): {FD: 1.0}})])
    with pytest.raises(UserError, match="is a 'targets', expected a 'metrics'"):
        metrics_table([make.targets(ODE, 1, 1).folder])
    damaged = make.metrics("Teacher", ODE, {}, steps=50).folder
    (damaged / "metrics.json").write_text("{")
    with pytest.raises(UserError, match="does not match its checksum"):
        metrics_table([damaged])
    shutil.copytree(damaged, tmp_path / "x")
    (tmp_path / "x" / MANIFEST).write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        metrics_table([tmp_path / "x"])


def test_costs_of_students_at_every_step(make, run):
    """CM: two student rows a pair and the solver's evaluations, doubled by guidance. Direct CM: one, and solved targets."""
    shards = [make.targets(ODE, 2000, 2000 * 50, 10.0), make.targets(ODE, 2000, 2000 * 52, 77.0, solving_seconds=30.0)]
    elsewhere = make.targets(ODE, 2000, 2000 * 999, 999.0)
    cm = make.student(run, snapshots=[62], forwards=4000 * 2, seconds={"62": 1.5, "250": 6.0})
    direct = make.student(
        {**run, "method": "direct_cm", "steps": 500}, targets=shards, snapshots=[125], seconds={"500": 8.0}
    )
    evaluated = metrics_table(
        [make.student_metrics({**run, "method": "direct_cm", "steps": 500}, {(500, 1): {}, (125, 1): {FD: 1.0}})]
    )
    rows = saved(make, students_table([direct, cm], [s.folder for s in (elsewhere, *shards)], evaluated))
    assert all(list(row) == TABLES["students.csv"] for row in rows)
    names = TABLES["students.csv"][TABLES["students.csv"].index("step") :]
    found = {
        (r["method"], int(r["step"])): {n: float(r[n]) if r[n] else None for n in names if n != "step"} for r in rows
    }
    assert list(found) == [("cm", 62), ("cm", 250), ("direct_cm", 125), ("direct_cm", 500)]

    def numbers(pairs, distinct, student, teacher, target, seconds, target_seconds):
        return dict(
            zip(names[1:], (10, pairs, distinct, student, pairs, teacher, target, seconds, target_seconds), strict=True)
        )

    assert found["cm", 62] == numbers(992, 992, 1984, 1984, 0, 1.5, 0)
    assert found["cm", 250] == numbers(4000, 4000, 8000, 8000, 0, 6.0, 0)
    # The mean over the targets is 51 forwards and 10 ms; seconds at step 125 were not recorded.
    assert found["direct_cm", 125] == numbers(2000, 2000, 2000, 0, 2000 * 51, None, 20.0)
    # Eight thousand pairs are drawn, of four thousand start points.
    assert found["direct_cm", 500] == numbers(8000, 4000, 8000, 0, 4000 * 51, 8.0, 40.0)


def test_a_step_whose_cost_is_not_recorded(make, run):
    student = make.student(run)
    evaluated = metrics_table([make.student_metrics(run, {(62, 1): {FD: 1.0}})])
    with pytest.raises(UserError, match="what step 62 had cost is not recorded"):
        students_table([student], [], evaluated)


def test_targets_of_another_ode_do_not_count(make, run):
    direct = make.student({**run, "method": "direct_cm"})
    with pytest.raises(UserError, match="its targets' manifests were not given"):
        students_table([direct], [make.targets({**ODE, "N": 10}, 1, 1).folder])
    (row,) = saved(make, students_table([direct], [make.targets({**ODE, "w": 3}, 100, 700, None).folder]))
    assert (row["target_forwards"], row["target_seconds"], row["seconds"]) == ("28000", "", "")
    with pytest.raises(UserError, match="give each run once"):
        students_table([make.student(run), make.student({**run, "w": 3})])


def line(**changes):
    return {
        "time": 1000,
        "space": "latent",
        "student": 0.25,
        "solver": 1e-12,
        "total": 0.3,
        "cross": -0.05,
        "n": 100,
    } | changes


def test_errors(make, run):
    paths = [make.errors({**run, "seed": s}, [line(time=t) for t in (1000, 100)]) for s in (1, 0)]
    rows = saved(make, errors_table(paths))
    assert all(list(row) == TABLES["errors.csv"] for row in rows)
    assert [(r["seed"], r["time"]) for r in rows] == [("0", "100"), ("0", "1000"), ("1", "100"), ("1", "1000")]
    assert (rows[0]["solver"], rows[0]["student_error"], rows[0]["cross_term"], rows[0]["n"]) == (
        "ddim",
        "0.25",
        "-0.05",
        "100",
    )
    with pytest.raises(UserError, match="give each run once"):
        errors_table([*paths, paths[0]])
    with pytest.raises(UserError, match=r"n = 99 start points at time 100, but 100 in .*not comparable"):
        errors_table([*paths, make.errors({**run, "seed": 2}, [line(time=100, n=99)])])
    with pytest.raises(UserError, match="space is 'sound'"):
        errors_table([make.errors(run, [line(space="sound")])])
    with pytest.raises(UserError, match="total is 'x', expected a number"):
        errors_table([make.errors(run, [line(total="x")])])


def test_comparisons_are_joined_and_each_setting_given_once(make, configure, tmp_path):
    config = configure(students=[{"seed": [0, 1]}, {"N": [10], "seed": [0, 1]}])
    _, whole = make.tidy(config)
    rows = read_csv(whole)
    parts = [tmp_path / "50.csv", tmp_path / "10.csv"]
    for path in parts:
        write_csv(path, [r for r in rows if r["N"] == path.stem], list(rows[0]))
    joined = saved(make, comparisons_table(parts))
    assert joined == saved(make, comparisons_table(parts[::-1]))
    assert [r["N"] for r in joined] == ["10"] * (len(rows) // 2) + ["50"] * (len(rows) // 2)
    assert list(joined[0]) == TABLES["comparisons.csv"] == COMPARISON_COLUMNS
    assert (joined[0]["lr"], joined[0]["a_step"], joined[0]["p"], joined[0]["test"]) == (
        "0.0001",
        "250",
        "0.01",
        "bootstrap",
    )
    with pytest.raises(UserError, match=r"compares what .* compares"):
        comparisons_table([*parts, parts[0]])
    write_csv(tmp_path / "x.csv", [{"a": 1}], ["a"])
    with pytest.raises(UserError, match="lacks the columns what, b, solver"):
        comparisons_table([tmp_path / "x.csv"])
    write_csv(tmp_path / "none.csv", [], COMPARISON_COLUMNS)
    assert comparisons_table([tmp_path / "none.csv"]).empty


def test_nothing_is_written_where_something_is_wrong(make, run, tmp_path):
    paths = both(make, run)
    with pytest.raises(UserError):
        collect.collect([*paths, paths[0]], [], [], [], [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_table_names_a_column_twice():
    assert all(len(set(columns)) == len(columns) for columns in TABLES.values())


def test_numbers_have_ten_significant_digits():
    assert rounded(1 / 3) == 0.3333333333
    assert rounded(123456789012.0) == 123456789000.0
    assert rounded(float("nan")) is None
    assert json.dumps(rounded(2e-20)) == "2e-20"


# ----------------------------------------------------------------- several teachers


def several(make, run, **more):
    """Metrics of CM and Direct CM under three teachers, of the default one with two seeds, by hand."""
    values = {
        # teacher's seed, seed: CM's ODE error and FD, Direct CM's
        (0, 0): ((1.0, 4.0), (0.75, 5.0)), (0, 1): ((9.0, 9.0), (1.0, 1.0)),
        (1, 0): ((1.5, 3.0), (1.0, 5.0)), (4, 0): ((2.0, 2.0), (2.125, 5.0)),
    }  # fmt: skip
    paths = []
    for (teacher_seed, seed), both in values.items():
        for method, (ode, fd) in zip(("cm", "direct_cm"), both, strict=True):
            axes = {**run, "method": method, "seed": seed, **({"teacher_seed": teacher_seed} if teacher_seed else {})}
            paths.append(make.student_metrics(axes, {(250, 1): {("ode_error", "teacher"): ode, FD: fd}}, **more))
    for teacher_seed in (0, 1, 4):
        ode = {**ODE, **({"teacher_seed": teacher_seed} if teacher_seed else {})}
        paths.append(make.metrics("Teacher", ode, {("fd_tiny", "data"): 1.0}, steps=50).folder)
    return paths


def own_comparisons(folder, run):
    """Each teacher's own: with its standard error over prompts, of the last teacher none of FD; and lines of other steps."""
    out = []
    for place, (teacher_seed, errors) in enumerate({0: (0.5, 0.25), 1: (1.0, 2.0), 4: (3.0, None)}.items()):
        axes = {name: value for name, value in run.items() if name not in ("method", "seed")}
        base = {
            **axes,
            "what": "method",
            "a": "CM",
            "b": "Direct CM",
            "a_step": 250,
            "b_step": 250,
            "sampling_steps": 1,
        }
        lines = [
            {**base, "metric": name, "reference": "teacher", "difference": 7, "se_prompts": error}
            for name, error in zip(("ode_error", "fd_tiny"), errors, strict=True)
        ]
        lines += [
            {**lines[0], **other, "se_prompts": 99}
            for other in ({"b_step": 62, "what": "along"}, {"sampling_steps": 4})
        ]
        if place == 1:
            # Whichever of the two is first.
            lines = [{**line, "a": "Direct CM", "b": "CM"} for line in lines]
        columns = [*(["teacher_seed"] if teacher_seed else []), *COMPARISON_COLUMNS]
        out.append(folder / f"own{teacher_seed}.csv")
        write_csv(
            out[-1], [{c: {**line, "teacher_seed": teacher_seed}.get(c) for c in columns} for line in lines], columns
        )
    return out


def test_each_teacher_has_a_difference_of_its_own(make, run, tmp_path, one_line):
    paths, compared = several(make, run), own_comparisons(tmp_path, run)
    with pytest.raises(UserError, match=r"own1.csv: compares what .*own1.csv compares") as error:
        comparisons_table([*compared, compared[1]])
    one_line(error)
    counts = collect.collect(paths[::-1], [], [], [], compared[::-1], tmp_path / "out", several=True)
    assert counts == {**dict.fromkeys(TABLES, 0), "metrics.csv": 19, "comparisons.csv": 6}
    metrics, found = (read_csv(tmp_path / "out" / f"{name}.csv") for name in ("metrics", "comparisons"))
    assert list(metrics[0]) == ["teacher_seed", *TABLES["metrics.csv"]]
    assert list(found[0]) == ["teacher_seed", *COMPARISON_COLUMNS]
    assert [r["teacher_seed"] for r in metrics if r["row"] == "Teacher"] == ["0", "1", "4"]
    # Seed 0, which all teachers have; the second seed of the default teacher is not among it.
    names = ("teacher_seed", "metric", "mean_a", "mean_b", "difference", "n_seeds", "se_prompts")
    assert sorted(tuple(r[n] for n in names) for r in found) == [
        ("0", "fd_tiny", "4.0", "5.0", "-1.0", "1", "0.25"), ("0", "ode_error", "1.0", "0.75", "0.25", "1", "0.5"),
        ("1", "fd_tiny", "3.0", "5.0", "-2.0", "1", "2.0"), ("1", "ode_error", "1.5", "1.0", "0.5", "1", "1.0"),
        ("4", "fd_tiny", "2.0", "5.0", "-3.0", "1", ""), ("4", "ode_error", "2.0", "2.125", "-0.125", "1", "3.0"),
    ]  # fmt: skip
    assert {(r["what"], r["a"], r["b"], r["a_step"], r["b_step"], r["n"], r["p"], r["low"]) for r in found} == {
        ("method", "CM", "Direct CM", "250", "250", "8", "", "")
    }
    assert {(r["metric"], r["dim"]) for r in found} == {("fd_tiny", "64"), ("ode_error", "")}


def test_a_difference_needs_several_teachers_with_one_seed_of_both_methods(make, run):
    none = comparisons_table([])
    assert over_teachers(metrics_table(several(make, run)[:4]), none).empty
    alone = [make.student_metrics({**run, "teacher_seed": 1, "seed": 3}, {(250, 1): {FD: 1.0}})]
    assert over_teachers(metrics_table([*several(make, run)[:4], *alone]), none).empty
    # Where a value is not defined neither is the difference.
    pair = [{**run, "method": m, "teacher_seed": t} for m in ("cm", "direct_cm") for t in (1, 2)]
    undefined = {("cm", 1): None}
    paths = [
        make.student_metrics(r, {(250, 1): {FD: undefined.get((r["method"], r["teacher_seed"]), 2.0)}}) for r in pair
    ]
    found = over_teachers(metrics_table(paths), none)
    assert found["difference"].isna().tolist() == [True, False] and found["se_prompts"].isna().all()


def test_students_and_errors_of_several_teachers_are_told_apart(make, run):
    """Costs of each teacher's student by its own targets, and steps by its own sets."""
    again = {**run, "method": "direct_cm", "teacher_seed": 2}
    shards = [make.targets(ODE, 100, 5000), make.targets({**ODE, "teacher_seed": 2}, 100, 7000)]
    first = make.student({**run, "method": "direct_cm"}, targets=shards[:1])
    # Which targets the other was trained on its manifest does not say: those of its teacher's ODE.
    other = make.student(again, snapshots=[62])
    evaluated = metrics_table([make.student_metrics(again, {(250, 1): {FD: 1.0}, (62, 1): {FD: 2.0}})])
    rows = saved(make, students_table([other, first], [s.folder for s in shards], evaluated))
    assert [(r["teacher_seed"], r["step"], r["target_forwards"]) for r in rows] == [
        ("0", "250", str(4000 * 50)), ("2", "62", str(992 * 70)), ("2", "250", str(4000 * 70)),
    ]  # fmt: skip
    assert list(rows[0]) == ["teacher_seed", *TABLES["students.csv"]]
