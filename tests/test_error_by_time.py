"""Errors by start time: the start points that all solvers share, and a student's, its solver's and the whole error, by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from directcm.diffusion.processes import VariancePreserving
from directcm.diffusion.solvers import make_solver, solve
from directcm.diffusion.teachers import load
from directcm.diffusion.teachers.latent_diffusion import load_vae
from directcm.distill import students
from directcm.distill.encode import Latents
from directcm.distill.targets import join
from directcm.errors import UserError
from directcm.evaluation import error_by_time
from directcm.evaluation.endpoints import ErrorStarts
from directcm.evaluation.error_by_time import split
from directcm.runtime import rng
from directcm.runtime.artifacts import open_artifact

# Some are quick, all together they are not: `make quick` is for what tells most in a minute.
pytestmark = pytest.mark.slow

TIMES, POINTS = 5, 3
TOTAL = TIMES * POINTS


def starts_of(tiny: Any, intervals: int = 5, times: int = TIMES, points: int = POINTS, seed: int = 24) -> ErrorStarts:
    return ErrorStarts(Latents(tiny.latents), VariancePreserving.scaled_linear(), intervals, times, points, seed)


# Start points


def test_start_points_are_held_out_images_under_noise_that_all_times_share(tiny: Any) -> None:
    starts = starts_of(tiny)
    index = list(range(TOTAL))
    ids, k, x = starts(index)
    assert set(ids.tolist()) <= set(starts.latents.held_out) and len(set(ids.tolist())) == POINTS
    assert k.tolist() == [0, 1, 2, 3, 4] * POINTS
    times = torch.tensor([1000.0, 800, 600, 400, 200]).double().repeat(POINTS)
    assert torch.equal(starts.grid[k], times)
    eps = rng.normal(24, "error_noise", range(POINTS), (4, 8, 8))
    process, x0 = starts.process, starts.latents.latents(ids)
    for j in index:
        t = times[j : j + 1]
        assert int(ids[j]) == int(ids[j - j % TIMES]), "a point keeps its image"
        alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
        torch.testing.assert_close(x[j], alpha * x0[j] + sigma * eps[j // TIMES], rtol=1e-5, atol=1e-6)


def test_a_start_point_is_its_index(tiny: Any) -> None:
    starts = starts_of(tiny)
    ids, k, x = starts(range(TOTAL))
    some = [14, 2, 7, 2]
    ids_, k_, x_ = starts(some)
    assert torch.equal(ids_, ids[some]) and torch.equal(k_, k[some]) and torch.equal(x_, x[some])


def test_every_number_of_intervals_starts_from_the_same_points(tiny: Any) -> None:
    base = starts_of(tiny)
    ids, k, x = base(range(TOTAL))
    for intervals in (10, 25, 200):
        other = starts_of(tiny, intervals)
        ids_, k_, x_ = other(range(TOTAL))
        assert torch.equal(ids_, ids) and torch.equal(x_, x)
        assert torch.equal(other.grid[k_], base.grid[k]) and k_.tolist() == [int(i) * intervals // 5 for i in k]


def test_more_points_are_more_of_the_same(tiny: Any) -> None:
    few, many = starts_of(tiny), starts_of(tiny, points=20)
    assert torch.equal(few(range(TOTAL))[2], many(range(TOTAL))[2])
    held = len(few.latents.held_out)
    assert held == 8, "the images come round again, under other noise"
    ids, _, x = many([0, 8 * TIMES])
    assert int(ids[0]) == int(ids[1]) and not torch.equal(x[0], x[1])
    assert sorted(many.images[:held]) == sorted(few.latents.held_out)


def test_seeds_give_other_start_points(tiny: Any) -> None:
    assert not torch.equal(starts_of(tiny)(range(TOTAL))[2], starts_of(tiny, seed=25)(range(TOTAL))[2])


def test_times_that_do_not_divide_are_refused(tiny: Any, tmp_path: Path, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        starts_of(tiny, 8)
    assert "errors.times = 5 does not divide N = 8" in one_line(error)
    with pytest.raises(UserError):
        tiny.solve_errors(tmp_path / "e", intervals=8)
    assert not (tmp_path / "e").exists()


# Endpoints


@pytest.fixture(scope="module")
def solved(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The shards of the student's own ODE (DDIM, N = 5) and of the refined one (EDM's Heun, N = 10)."""
    root = tmp_path_factory.mktemp("endpoints")
    own = [tiny.solve_errors(root / f"own{i}", number=i) for i in range(2)]
    fine = [tiny.solve_errors(root / f"fine{i}", "edm_heun", 10, i) for i in range(2)]
    return {"own": own, "fine": fine, "root": root}


@pytest.mark.parametrize(
    ("name", "solver", "intervals", "forwards"), [("own", "ddim", 5, 1), ("fine", "edm_heun", 10, 2)]
)
def test_endpoints_are_those_of_the_guided_ode(
    tiny: Any, solved: Any, name: str, solver: str, intervals: int, forwards: int
) -> None:
    got = join(solved[name], "endpoints", TOTAL)
    assert [s.counts["endpoints"] for s in solved[name]] == [8, 7]
    teacher, starts = load(tiny.teacher), starts_of(tiny, intervals)
    ids, k, x = starts(range(TOTAL))
    ends, *_ = solve(teacher, make_solver(solver), x, k, intervals, starts.latents.conditioning(ids), tiny.w, 4)
    torch.testing.assert_close(got["endpoint"], ends, rtol=1e-3, atol=1e-3)
    assert torch.equal(got["id"], ids) and torch.equal(got["time"], starts.grid[k])
    steps = int((intervals - k).sum())
    assert sum(s.counts["teacher_forwards"] for s in solved[name]) == steps * forwards * 2


def test_shards_of_endpoints_do_not_change_a_byte(tiny: Any, solved: Any, tmp_path: Path) -> None:
    whole = tiny.solve_errors(tmp_path / "whole", shard=16)
    one, two = join([whole], "endpoints", TOTAL), join(solved["own"], "endpoints", TOTAL)
    assert one.keys() == two.keys() and all(torch.equal(v, two[k]) for k, v in one.items())
    assert whole.settings == solved["own"][0].settings


def test_killed_endpoints_resume_to_the_same_bytes(
    tiny: Any, solved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from directcm.distill import targets

    real, calls = targets.solve, []

    def dies(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(targets, "solve", dies)
    with pytest.raises(KeyboardInterrupt):
        tiny.solve_errors(tmp_path / "e")
    resumed = tiny.solve_errors(tmp_path / "e")
    assert len(calls) == 3
    assert (resumed.folder / "manifest.json").read_bytes() == (solved["own"][0].folder / "manifest.json").read_bytes()


def test_endpoints_are_no_targets(tiny: Any, solved: Any, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        open_artifact(solved["own"][0].folder, "targets")
    assert "is a 'endpoints', expected a 'targets'" in one_line(error)


# The errors


def measure(tiny: Any, solved: Any, out: Path, student: Any = None, **changes: Any) -> Any:
    settings_ = tiny.errors_settings.model_copy(update=changes.pop("settings", {}))
    error_by_time.make(
        settings_,
        changes.pop("batch_size", 4),
        "no",
        student or tiny.direct_cm,
        changes.pop("teacher", tiny.teacher),
        changes.pop("latents", tiny.latents),
        changes.pop("endpoints", solved["own"]),
        changes.pop("refined", solved["fine"]),
        changes.pop("seed", tiny.seed),
        "cpu",
        out,
    )
    return open_artifact(out, "errors")


@pytest.fixture(scope="module")
def measured(tiny: Any, solved: Any) -> Any:
    return measure(tiny, solved, solved["root"] / "errors")


def by_hand(tiny: Any, solved: Any, student: Any) -> dict[str, list[torch.Tensor]]:
    """f, own endpoints and refined ones, in latents and in pixels clamped to [−1, 1]."""
    who, starts = students.load(load(tiny.teacher), student), starts_of(tiny)
    ids, k, x = starts(range(TOTAL))
    vae = load_vae(tiny.teacher)
    with torch.no_grad():
        f = who(x, starts.grid[k], starts.latents.conditioning(ids))
        latents = [f, *(join(solved[n], "endpoints", TOTAL)["endpoint"] for n in ("own", "fine"))]
        pixels = [vae.decode(z / vae.config.scaling_factor).sample.clamp(-1, 1) for z in latents]
    return {"latent": latents, "pixel": pixels}


@pytest.mark.parametrize("method", ["cm", "direct_cm"])
def test_every_number_by_hand(tiny: Any, solved: Any, measured: Any, tmp_path: Path, method: str) -> None:
    art = measured if method == "direct_cm" else measure(tiny, solved, tmp_path / "e", tiny.cm)
    three = by_hand(tiny, solved, getattr(tiny, method))
    rows = art.csv("errors.csv")
    assert list(rows[0]) == error_by_time.COLUMNS
    assert [(float(r["time"]), r["space"]) for r in rows] == [
        (t, space) for space in ("latent", "pixel") for t in (1000.0, 800.0, 600.0, 400.0, 200.0)
    ]
    points = art.csv("per_point.csv")
    assert len(points) == 2 * TOTAL and art.counts == {"start_points": TOTAL, "student_forwards": TOTAL}
    for row in rows:
        f, own, fine = (v.double() for v in three[row["space"]])
        here = [j for j in range(TOTAL) if 1000 - 200 * (j % TIMES) == float(row["time"])]
        assert len(here) == int(row["n"]) == POINTS
        expected = {
            "student": float(((f - own)[here] ** 2).mean()),
            "solver": float(((own - fine)[here] ** 2).mean()),
            "total": float(((f - fine)[here] ** 2).mean()),
            "cross": float(2 * ((f - own)[here] * (own - fine)[here]).mean()),
        }
        for name, value in expected.items():
            assert float(row[name]) == pytest.approx(value, rel=2e-3, abs=1e-6), (row["time"], row["space"], name)
        assert math.isclose(
            float(row["total"]), sum(float(row[n]) for n in ("student", "solver", "cross")), rel_tol=1e-9, abs_tol=1e-12
        )
        mine = [p for p in points if p["space"] == row["space"] and p["time"] == row["time"]]
        assert sorted(int(p["point"]) for p in mine) == list(range(POINTS))
        for name in ("student", "solver", "total"):
            assert sum(float(p[name]) for p in mine) / POINTS == pytest.approx(float(row[name]), rel=1e-9)
    for j in (0, 7, 14):
        f, own, _ = (v.double() for v in three["pixel"])
        (point,) = [
            p for p in points[TOTAL:] if int(p["point"]) == j // TIMES and float(p["time"]) == 1000 - 200 * (j % 5)
        ]
        assert float(point["student"]) == pytest.approx(float(((f[j] - own[j]) ** 2).mean()), rel=2e-3, abs=1e-6)


def test_batches_change_rounding_only(tiny: Any, solved: Any, measured: Any, tmp_path: Path) -> None:
    other = measure(tiny, solved, tmp_path / "e", batch_size=7)
    for a, b in zip(other.csv("errors.csv"), measured.csv("errors.csv"), strict=True):
        assert float(a["student"]) == pytest.approx(float(b["student"]), rel=1e-3)
    again = measure(tiny, solved, tmp_path / "f", endpoints=solved["own"][::-1])
    assert again.csv("errors.csv") == measured.csv("errors.csv"), "the order of the shards does not matter"


def test_split_by_hand() -> None:
    f, own, fine = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 1.0]])
    assert split(f, own, fine).tolist() == [[2.5, 2.0, 2.5]]
    assert split(f, own, fine).dtype == torch.float64


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 4), scale=st.floats(1e-3, 1e3))
def test_the_parts_sum_to_the_whole(seed: int, rows: int, scale: float) -> None:
    f, own, fine = (rng.normal(seed, n, range(rows), (3, 2)) * scale for n in ("f", "own", "fine"))
    student, solver, total = split(f, own, fine).unbind(1)
    cross = 2 * ((f - own).double() * (own - fine).double()).flatten(1).mean(1)
    torch.testing.assert_close(total, student + solver + cross, rtol=1e-5, atol=1e-6 * scale**2)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"solver": "euler"}, "not this student's ODE (ddim, N = 5)"),
        ({"intervals": 10}, "not this student's ODE (ddim, N = 5)"),
        ({"w": 2.0}, "other start points or under another guidance"),
        ({"seed": 25}, "other start points or under another guidance"),
        ({"points": 4}, "other start points or under another guidance"),
    ],
)
def test_endpoints_of_something_else_are_refused(
    tiny: Any, solved: Any, tmp_path: Path, change: dict, word: str, one_line: Any
) -> None:
    other = [tiny.solve_errors(tmp_path / f"o{i}", number=i, **change) for i in range(2)]
    with pytest.raises(UserError) as error:
        measure(tiny, solved, tmp_path / "e", endpoints=other)
    assert word in one_line(error) and str(other[0].folder) in str(error.value)
    assert not (tmp_path / "e").exists()
    if word.startswith("other"):
        with pytest.raises(UserError, match=word):
            measure(tiny, solved, tmp_path / "e", refined=other)


def test_settings_that_differ_from_the_endpoints_are_refused(
    tiny: Any, solved: Any, tmp_path: Path, one_line: Any
) -> None:
    for settings_ in ({"points": 2}, {"times": 1}):
        with pytest.raises(UserError) as error:
            measure(tiny, solved, tmp_path / "e", settings=settings_)
        assert "other start points" in one_line(error)
    with pytest.raises(UserError, match="other start points"):
        measure(tiny, solved, tmp_path / "e", seed=25)


def test_shards_that_lack_rows_or_mix_are_refused(tiny: Any, solved: Any, tmp_path: Path, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        measure(tiny, solved, tmp_path / "e", endpoints=solved["own"][:1])
    assert "hold 8 rows, not the first 15" in one_line(error)
    with pytest.raises(UserError) as error:
        measure(tiny, solved, tmp_path / "e", refined=[solved["fine"][0], solved["own"][1]])
    assert "not solved with the settings" in one_line(error)


def test_another_teacher_or_student_is_refused(tiny: Any, solved: Any, tmp_path: Path, one_line: Any) -> None:
    other = open_artifact(tiny.teacher.folder, "teacher")
    other.manifest["checksums_sha256"] = "f" * 64
    with pytest.raises(UserError) as error:
        measure(tiny, solved, tmp_path / "e", teacher=other)
    assert "another teacher or on other latents" in one_line(error)
    stranger = open_artifact(tiny.direct_cm.folder, "student")
    stranger.manifest["inputs"] = {**stranger.manifest["inputs"], "teacher": "0" * 64}
    with pytest.raises(UserError) as error:
        measure(tiny, solved, tmp_path / "e", stranger)
    assert "distilled from another teacher" in one_line(error)


def test_an_error_that_is_not_finite_is_a_users_line(
    tiny: Any, solved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_line: Any
) -> None:
    real = students.Student.__call__

    def broken(self: Any, x: torch.Tensor, t: torch.Tensor, cond: Any) -> torch.Tensor:
        return real(self, x, t, cond) * float("inf")

    monkeypatch.setattr(students.Student, "__call__", broken)
    with pytest.raises(UserError) as error:
        measure(tiny, solved, tmp_path / "e")
    assert "not finite" in one_line(error) and not (tmp_path / "e").exists()


def test_a_student_that_is_its_own_ode_has_the_solvers_error_alone(
    tiny: Any, solved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """f = e: the student's error and the cross term are 0 and the whole error is the solver's, at every time."""
    ends, starts = join(solved["own"], "endpoints", TOTAL)["endpoint"], starts_of(tiny)
    _, _, x_all = starts(range(TOTAL))

    def exact(self: Any, x: torch.Tensor, t: torch.Tensor, cond: Any) -> torch.Tensor:
        rows = [int((x_all - row).flatten(1).abs().sum(1).argmin()) for row in x]
        return ends[rows]

    monkeypatch.setattr(students.Student, "__call__", exact)
    for row in measure(tiny, solved, tmp_path / "e").csv("errors.csv"):
        assert float(row["student"]) == 0.0 == float(row["cross"])
        assert float(row["total"]) == float(row["solver"]) > 0
