"""Fixed points of k-step targets: against solves written otherwise, the flow against an integrator, measures against closed forms."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import solve_ivp
from scipy.optimize import linear_sum_assignment

from directcm.config import FixedPoints
from directcm.diffusion.processes import expand
from directcm.diffusion.solvers import make_solver
from directcm.errors import UserError
from directcm.evaluation import convergence
from directcm.evaluation import fixed_points as fp
from directcm.runtime.artifacts import open_artifact
from directcm.statistics import sliced

DDIM = make_solver("ddim")
PROCESSES = ("vp", "karras")


def student(name: str = "karras", intervals: int = 10, features: int = 5, d: int = 2, seed: int = 0) -> fp.Student:
    process = fp.process_of(name)
    return fp.Student(fp.mixture(process, d, 3, 0.4, seed), process.grid(intervals), features, 1.0, seed)


def rows_of(one: fp.Student, k: int, points: int, kind: str, seed: int = 0) -> list[tuple[np.ndarray, ...]]:
    """By start time: g, g′, f₀, f₀′ and the endpoint, by the other walk of this project."""
    found, end = [], len(one.grid) - 1
    for i in range(end):
        x = fp.diffused(one.teacher, one.grid[i], points, seed, i)
        j = min(i + k, end)
        y = convergence.walk(one.teacher, DDIM, x, one.grid[i : j + 1])
        goal = convergence.walk(one.teacher, DDIM, y, one.grid[j:])
        then = one.features(y, j) if j < end else np.zeros((points, len(one.weights)))
        found.append((one.features(x, i), then, one.base(x, i, kind), one.base(y, j, kind), goal.numpy()))
    return found


# ----------------------------------------------------------------- the teacher, the class


@pytest.mark.parametrize("name", PROCESSES)
def test_the_mixture_has_the_processes_own_spread(name: str) -> None:
    process = fp.process_of(name)
    teacher = fp.mixture(process, 3, 6, 0.3, 4)
    mean, scale = convergence.moments(teacher)
    assert float(mean.abs().max()) < 1e-12 and scale == pytest.approx(1.0 if name == "vp" else 0.5)
    assert float(teacher.scales[0]) == pytest.approx(0.3 * scale) and len(teacher.means) == 6


def test_start_points_are_diffused_data() -> None:
    teacher = fp.mixture(fp.process_of("vp"), 2, 6, 0.3, 4)
    t = torch.tensor(400.0, dtype=torch.float64)
    x = fp.diffused(teacher, t, 4096, 1, 0).numpy()
    alpha, sigma = (float(f(t[None])) for f in (teacher.process.alpha, teacher.process.sigma))
    share, means = teacher.log_weights.exp().numpy(), teacher.means.numpy()
    within = (alpha * 0.3) ** 2 + sigma**2
    covariance = alpha**2 * (means.T * share) @ means + within * np.eye(2)
    np.testing.assert_allclose(x.mean(0), 0, atol=0.01)
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.02)
    # The third moment too: of N(αm, v) it is m̃³ + 3 m̃ v. No single Gaussian would do.
    third = share @ ((alpha * means) ** 3 + 3 * alpha * means * within)
    np.testing.assert_allclose((x**3).mean(0), third, atol=0.05)
    assert not np.allclose(x, fp.diffused(teacher, t, 4096, 1, 1).numpy())


def test_log_density_is_the_librarys() -> None:
    teacher = fp.mixture(fp.process_of("karras"), 3, 4, 0.3, 2)
    x = np.random.default_rng(0).normal(size=(20, 3))
    each = [
        stats.multivariate_normal(m, float(s) ** 2).logpdf(x) + float(w)
        for m, s, w in zip(teacher.means.numpy(), teacher.scales, teacher.log_weights, strict=True)
    ]
    np.testing.assert_allclose(fp.log_density(teacher, x), np.logaddexp.reduce(each, axis=0), rtol=1e-12)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_student_is_that_of_the_project(name: str) -> None:
    """f = a x + b x̂₀, with x̂₀ from the network's output; at the end the identity, whatever the weights."""
    one = student(name)
    process, i = one.process, 3
    t = one.grid[i].expand(7)
    x = fp.diffused(one.teacher, one.grid[i], 8, 0, i)[:7]
    output = torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (a, b), (own, scale) = process.student(t), process.output_scales(t)
    clean = process.clean(x, expand(own, x) * x + expand(scale, x) * output, t)
    p, q = one.scales(i)
    torch.testing.assert_close(p * x + q * output, expand(a, x) * x + expand(b, x) * clean)
    # A correction of the denoiser by q F is what a change of the output by F is.
    denoised = one.teacher.predict(x, t, None)
    moved = (expand(a, x) * x + expand(b, x) * denoised.x0).numpy()
    np.testing.assert_allclose(one.base(x, i, "shared"), moved)
    end = len(one.grid) - 1
    assert one.scales(end) == (1.0, 0.0) and not one.features(x, end).any()
    for kind in ("shared", "plain"):
        assert np.array_equal(one.base(x, end, kind), x.numpy())
    if name == "vp":
        assert abs(one.scales(0)[1]) == pytest.approx(14.6146, abs=1e-3)


# ----------------------------------------------------------------- fixed points


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("kind", ["shared", "plain"])
def test_the_last_k_is_ordinary_least_squares(name: str, kind: str) -> None:
    one = student(name)
    systems = fp.assemble(one, DDIM, [1, 10], 32, 0)
    assert not systems.later[10].any()
    found = fp.at_rest(systems.gram, systems.later[10], systems.right[kind, 10], fp.principal(systems.gram))
    assert found.coercivity == pytest.approx(1, abs=1e-9) and found.stable and found.rank == 5
    rows = rows_of(one, 10, 32, kind)
    g, goal = (np.concatenate(parts) for parts in zip(*[(r[0], r[4] - r[2]) for r in rows], strict=True))
    weights, residual, _, _ = np.linalg.lstsq(g, goal, rcond=None)
    np.testing.assert_allclose(found.weights, weights, rtol=1e-7, atol=1e-9)
    # And its path error is the residual.
    path = systems.squares[kind] + float(np.sum(weights * (systems.gram @ weights - 2 * systems.right[kind, 10])))
    assert path == pytest.approx(residual.sum() / len(g), rel=1e-8)


@pytest.mark.parametrize("kind", ["shared", "plain"])
@pytest.mark.parametrize("k", [1, 3])
def test_a_fixed_point_is_where_fitted_values_come_to_rest(k: int, kind: str) -> None:
    """Regress on one's own values k steps on, and again: no system, no semi-gradient."""
    one = student()
    systems = fp.assemble(one, DDIM, [k], 64, 0)
    found = fp.at_rest(systems.gram, systems.later[k], systems.right[kind, k], fp.principal(systems.gram))
    assert 0 < found.coercivity < 1 and found.stable
    rows = rows_of(one, k, 64, kind)
    g, then, base, later = (np.concatenate([r[i] for r in rows]) for i in range(4))
    weights = np.zeros((5, 2))
    for _ in range(2000):
        old, weights = weights, np.linalg.lstsq(g, later + then @ weights - base, rcond=None)[0]
    np.testing.assert_allclose(weights, old, atol=1e-11)
    np.testing.assert_allclose(found.weights, weights, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("k", [1, 4, 10])
def test_weights_of_each_times_own_solve_one_system(k: int) -> None:
    """All times' weights at once, in a dense system of N·m unknowns; on the way they are fitted one after the other."""
    one = student("vp", features=4)
    systems = fp.assemble(one, DDIM, [k], 32, 0, own=[3])
    rows = rows_of(one, k, 32, "shared")
    whole, right = np.zeros((30, 30)), np.zeros((30, 2))
    for i, (g, then, base, later, _) in enumerate(rows):
        at, j = slice(3 * i, 3 * i + 3), i + k
        whole[at, at] = g[:, :3].T @ g[:, :3]
        if j < 10:
            whole[at, 3 * j : 3 * j + 3] -= g[:, :3].T @ then[:, :3]
        right[at] = g[:, :3].T @ (later - base)
    weights = np.linalg.solve(whole, right)
    np.testing.assert_allclose(systems.own[3, k], weights[:3], rtol=1e-5, atol=1e-8)
    off = [r[2] + r[0][:, :3] @ a - r[4] for r, a in zip(rows, np.split(weights, 10), strict=True)]
    assert systems.own_path[3, k] == pytest.approx(float(np.mean(np.square(off))), rel=1e-6)
    assert systems.own_rank == {3: 3}


@pytest.mark.slow
def test_cm_in_a_large_class_is_the_flow_map() -> None:
    settings = FixedPoints(
        processes=["karras"],
        dimensions=[1],
        N=10,
        k=[1, 10],
        features=[4, 128],
        points=256,
        samples=256,
        seeds=2,
        flow=[],
    )
    with torch.no_grad():
        fixed, _, known = fp.of_unit(settings, "karras", 1, 0)
    error = {(r["class"], r["m"], r["k"]): r["ode_error"] for r in fixed}
    assert min(v for (_, m, _), v in error.items() if m == 4) > 0.01
    for (kind, m, _), value in error.items():
        if m == 128 and kind != "per_time":
            assert value < 1e-3
    # The class "per_time" has at most a quarter of its points.
    assert {m for kind, m, _ in error if kind == "per_time"} == {4}
    assert [r["who"] for r in known] == ["denoiser", "teacher, other noise", *["fit of the denoiser"] * 2]


def test_sampling_is_on_policy() -> None:
    """E(g′ᵀa)² ≤ E(gᵀa)² for every a: λ_max of E g′g′ᵀ in the norm of E ggᵀ is not above 1, but for the sample's error."""
    one = student("vp", intervals=50, features=6)
    for k in (1, 5):
        rows = rows_of(one, k, 256, "shared")
        g, then = (np.concatenate([r[i] for r in rows]) for i in (0, 1))
        values, vectors = fp.principal(g.T @ g)
        white = vectors / np.sqrt(values)
        assert np.linalg.eigvalsh(white.T @ then.T @ then @ white).max() < 1.02


@pytest.mark.parametrize("name", PROCESSES)
def test_trajectories_are_exactly_on_policy(name: str) -> None:
    """However small the sample: A is coercive. And the start points are the solver's own states."""
    one = student(name, intervals=20, features=12)
    systems = fp.assemble(one, DDIM, [1, 20], 16, 0, own=[2], starts="trajectory")
    kept = fp.principal(systems.gram)
    rest = fp.at_rest(systems.gram, systems.later[1], systems.right["shared", 1], kept)
    assert 0 < rest.coercivity < 0.2 and rest.stable
    # Its distance to the flow map is bounded by Direct CM's.
    last = systems.right["shared", 20]
    direct = fp.fitted(systems.gram, last)
    path = [
        systems.squares["shared"] + float(np.sum(a * (systems.gram @ a - 2 * last))) for a in (rest.weights, direct)
    ]
    assert path[1] < path[0] <= (1 + 1 / rest.coercivity**2) * path[1]
    noise = fp.rng.normal(0, "fixed points trajectories", range(16), (2,), 2).double()
    x, gram, right = one.process.prior(noise), 0, 0
    end = convergence.walk(one.teacher, DDIM, x, one.grid)
    for i in range(20):
        g = one.features(x, i)
        gram, right = gram + g.T @ g / 320, right + g.T @ (end.numpy() - one.base(x, i, "shared")) / 320
        x = convergence.walk(one.teacher, DDIM, x, one.grid[i : i + 2])
    np.testing.assert_allclose(systems.gram, gram, atol=1e-12)
    np.testing.assert_allclose(systems.right["shared", 20], right, atol=1e-12)


def test_what_the_flow_would_leave_is_said() -> None:
    gram, kept = np.eye(2), (np.ones(2), np.eye(2))
    grows = fp.at_rest(gram, np.diag([3.0, 0.5]), np.ones((2, 1)), kept)
    assert not grows.stable and grows.coercivity == pytest.approx(-2)
    np.testing.assert_allclose(grows.weights, [[-0.5], [2.0]])
    # Not coercive, yet stable: 1 and 1 on the diagonal, and 4 beside it.
    sheared = fp.at_rest(gram, np.array([[0.0, 4.0], [0.0, 0.0]]), np.ones((2, 1)), kept)
    assert sheared.stable and sheared.coercivity == pytest.approx(-1)
    steps = list(fp.flow(gram, np.diag([3.0, 0.5]), np.ones((2, 1)), np.zeros((2, 1)), 3))
    assert [tau for tau, _ in steps] == [0, 1, 10, 100, 1000]
    assert steps[2][1][0, 0] == pytest.approx(0.5 * math.expm1(20)) and np.isnan(steps[-1][1]).all()


def test_the_flow_is_that_of_an_integrator() -> None:
    one = student("vp", features=4)
    systems = fp.assemble(one, DDIM, [1], 32, 0)
    gram, later, right = systems.gram, systems.later[1], systems.right["shared", 1]
    start = np.random.default_rng(0).normal(size=(4, 2))
    steps = dict(fp.flow(gram, later, right, start, 2))
    unit = 1 / np.linalg.eigvalsh(gram)[-1]
    assert np.array_equal(steps[0.0], start)

    def slope(_: float, a: np.ndarray) -> np.ndarray:
        return unit * (right - (gram - later) @ a.reshape(4, 2)).ravel()

    taus = [1.0, 10.0, 100.0]
    found = solve_ivp(slope, (0, 100), start.ravel(), t_eval=taus, rtol=1e-10, atol=1e-12, method="DOP853")
    for tau, values in zip(taus, found.y.T, strict=True):
        np.testing.assert_allclose(steps[tau], values.reshape(4, 2), rtol=1e-6, atol=1e-8)
    # In the end it comes to rest where the fixed point is.
    *_, (_, last) = fp.flow(gram, later, right, start, 9)
    np.testing.assert_allclose(last, np.linalg.solve(gram - later, right), rtol=1e-4, atol=1e-6)


# ----------------------------------------------------------------- measures


def test_sliced_distance_of_gaussians() -> None:
    """W₂² of N(m, s²) and N(m', s'²) is (m − m')² + (s − s')²; of two shapes a vector m apart in D dimensions SW₂² is m²/D."""
    line = sliced.directions(5, 1, 0, "test")
    assert line.shape == (1, 1)

    def normal(mean: float, sd: float) -> np.ndarray:
        return sliced.quantiles(np.array([[mean]]), np.array([sd]), np.ones(1), line, 4000)

    np.testing.assert_allclose(normal(1, 2)[0], stats.norm(1, 2).ppf((np.arange(4000) + 0.5) / 4000), atol=1e-9)
    assert sliced.distance(normal(0, 1), normal(3, 3)) == pytest.approx(math.sqrt(9 + 4), rel=2e-3)
    along = sliced.directions(4000, 3, 0, "test")
    np.testing.assert_allclose(np.linalg.norm(along, axis=1), 1)
    x = np.random.default_rng(0).normal(size=(50, 3))
    apart = sliced.distance(sliced.ordered(x, along), sliced.ordered(x + np.array([3, 0, 4]), along))
    assert apart == pytest.approx(5 / math.sqrt(3), rel=0.02)


def test_sliced_distance_is_the_best_coupling() -> None:
    rng = np.random.default_rng(1)
    x, y, along = rng.normal(size=(12, 2)), rng.gamma(2, size=(12, 2)), sliced.directions(7, 2, 3, "test")
    whole = 0.0
    for way in along:
        cost = (x @ way - (y @ way)[:, None]) ** 2
        whole += cost[linear_sum_assignment(cost)].mean() / len(along)
    assert sliced.distance(sliced.ordered(x, along), sliced.ordered(y, along)) == pytest.approx(math.sqrt(whole))
    by_hand = [sliced.ordered(np.array(v)[:, None], np.ones((1, 1))) for v in ([1.0, 0.0], [2.0, 5.0])]
    assert sliced.distance(*by_hand) == pytest.approx(math.sqrt((2**2 + 4**2) / 2))


def test_quantiles_of_a_mixture_are_its_samples() -> None:
    means, scales, weights = np.array([[-2.0, 0.0], [1.0, 1.0]]), np.array([0.2, 0.5]), np.array([0.3, 0.7])
    along = sliced.directions(3, 2, 0, "test")
    found = sliced.quantiles(means, scales, weights, along, 500)
    for way, values in zip(along, found, strict=True):
        below = sum(w * stats.norm.cdf(values, m @ way, s) for m, s, w in zip(means, scales, weights, strict=True))
        np.testing.assert_allclose(below, (np.arange(500) + 0.5) / 500, atol=1e-9)
    with pytest.raises(UserError, match="do not belong together"):
        sliced.ordered(np.zeros((3, 3)), along)
    with pytest.raises(UserError, match="as many of both"):
        sliced.distance(found, found[:, :10])


def test_measures_of_known_samples() -> None:
    one = student("karras")
    with torch.no_grad():
        measure = fp.Measures(one, DDIM, 512, 16, 0)
    # At the solver's own endpoints nothing is wrong.
    own = measure(measure.ends, 0.5)
    assert own["ode_error"] == 0 and own["sw2_same"] == 0 and own["log_p0"] == 0 and own["variance_ratio"] == 1
    assert own["path_error"] == pytest.approx(0.5 / 0.5**2)
    assert (
        own["sw2_teacher"] == pytest.approx(sliced.distance(measure.same, measure.other)) and own["sw2_teacher"] < 0.2
    )
    # Units are the data's standard deviation, ½: moved by ¼ in each component, half a unit.
    moved = measure(measure.ends + 0.25)
    assert (moved["ode_error"], moved["bias"]) == pytest.approx((0.25, 0.25)) and moved["path_error"] is None
    assert moved["log_p0"] < -0.1 and moved["sw2_same"] < math.sqrt(0.25 * 2) + 1e-9
    flat = measure(0 * measure.ends)
    assert flat["variance_ratio"] == 0 and flat["sw2_matched"] is None
    # Moved and scaled, the teacher's own other samples are at no distance once mean and variance are those again.
    scaled = measure(3 * measure.other_ends - 1)
    assert scaled["sw2_matched"] < 1e-12 and scaled["sw2_teacher"] > 1
    # And for other samples: moved and scaled before they are projected.
    own = measure.ends / 0.5
    other = measure.other_ends / 0.5
    moved = (own - own.mean(0)) * math.sqrt(other.var(0).sum() / own.var(0).sum()) + other.mean(0)
    expected = sliced.distance(sliced.ordered(moved, measure.along), measure.other)
    assert measure(measure.ends)["sw2_matched"] == pytest.approx(expected, rel=1e-9)
    assert set(measure(np.full((512, 2), np.nan)).values()) == {None}


def test_differences_are_paired() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 8))
    found, library = fp.paired(list(a - b)), stats.ttest_rel(a, b)
    interval = library.confidence_interval(0.95)
    np.testing.assert_allclose(found, (np.mean(a - b), interval.low, interval.high, library.pvalue))
    assert fp.paired([0.0, 0.0]) == (0, 0, 0, 1) and fp.paired([2.0, 2.0]) == (2, 2, 2, 0)


# ----------------------------------------------------------------- what the tables say


def made_up(
    shifts: dict[int, dict[int, tuple[float, float, float]]], seeds: int = 6, **place: Any
) -> list[dict[str, Any]]:
    """Rows of m → k → mean ODE error, sliced W₂ and log density, with a seed's own level and a little noise."""
    rng = np.random.default_rng(0)
    out = []
    for seed, (m, by_k) in itertools.product(range(seeds), shifts.items()):
        for k, (error, quality, density) in by_k.items():
            noise = 0.01 * rng.normal(size=3) + 0.2 * seed
            values = {"ode_error": error + noise[0], "path_error": error + noise[0], "sw2_teacher": quality + noise[1]}
            # At matched variance there is nothing between them.
            values |= {"sw2_mixture": quality + noise[1], "sw2_matched": 1 + noise[1], "log_p0": density + noise[2]}
            out.append(
                {"process": "vp", "dimension": 2, "class": "shared", "m": m, "k": k, "seed": seed, **place, **values}
            )
    return out


def test_the_tables_say_inversion() -> None:
    rows = made_up(
        {
            # Worse in ODE error and better in sliced W₂, not in log density; k = 5 has the best of both.
            8: {1: (2, 1, -3), 5: (0.5, 0.5, 0), 50: (1, 2, -1)},
            16: {1: (1, 2, -1), 5: (1.5, 1.5, -1), 50: (2, 1, -1)},
            32: {1: (1, 1, -1), 5: (2, 2, -1), 50: (2, 2, -1)},
            64: {1: (2, 2, -1), 5: (3, 0.5, -1), 50: (1, 1, -1)},
            128: {1: (1, 1, -1), 5: (1, 1, -1), 50: (1, 2, -1)},
        }
    )
    found = fp.contrasts(rows)
    lines = fp.summary(rows, found)
    assert [(r["m"], r["verdict"]) for r in lines] == [
        (8, "inversion"), (16, "opposite"), (32, "CM better"), (64, "Direct CM better"), (128, "undecided"),
    ]  # fmt: skip
    first = lines[0]
    assert (first["by_log_p0"], first["by_sw2_matched"]) == ("Direct CM better", "undecided")
    assert first["best_sw2_matched"] in (1, 5, 50) and first["tau"] == math.inf and first["n"] == 6
    assert (first["best_ode_error"], first["best_sw2_teacher"], first["best_log_p0"]) == (5, 5, 5)
    assert [(r["beats_both_ends"], r["beats_both_in_both"]) for r in lines] == [
        ("5", "5"), ("", ""), ("", ""), ("5", ""), ("", ""),
    ]  # fmt: skip
    assert first["ode_error_difference"] == pytest.approx(1, abs=0.05)
    assert first["ode_error_low"] < 1 < first["ode_error_high"]
    # Levels of the seeds are 0, 0.2 … 1: the ratio is the geometric mean of (2 + l)/(1 + l).
    ratio = math.prod((2 + 0.2 * s) / (1 + 0.2 * s) for s in range(6)) ** (1 / 6)
    assert first["ode_error_ratio"] == pytest.approx(ratio, rel=0.02)
    assert first["ode_error_ratio_low"] < ratio < first["ode_error_ratio_high"]
    assert first["sw2_teacher_difference"] == pytest.approx(-1, abs=0.05) and first["log_p0_ratio"] is None
    assert first["sw2_teacher_p_holm"] < 1e-3
    # A family of Holm's is over m: five p-values of CM against Direct CM.
    ends = [r for r in found if (r["measure"], r["k"], r["against"]) == ("sw2_teacher", 1, 50)]
    assert len(ends) == 5 and min(r["p_holm"] for r in ends) == pytest.approx(5 * min(r["p"] for r in ends))
    interior = [r for r in found if (r["measure"], r["k"]) == ("log_p0", 5)]
    assert {r["against"] for r in interior} == {1, 50} and len(interior) == 10


def test_flows_are_told_by_their_time_and_what_is_missing_is_not_judged() -> None:
    early = made_up({8: {1: (2, 1, 0), 50: (1, 2, 0)}}, tau=1.0)
    late = made_up({8: {1: (1, 1, 0), 50: (2, 2, 0)}}, tau=10.0)
    for row in late:
        if row["seed"] == 0 and row["k"] == 1:
            row |= dict.fromkeys(fp.CONTRASTED)
    rows = early + late
    found = fp.contrasts(rows)
    assert {r["tau"] for r in found} == {1.0}
    lines = fp.summary(rows, found)
    assert [(r["tau"], r["verdict"], r["best_sw2_teacher"]) for r in lines] == [
        (1.0, "inversion", 1),
        (10.0, "undecided", 50),
    ]
    assert lines[1]["ode_error_difference"] is None and lines[0]["unstable"] == 0


@pytest.mark.slow
def test_what_is_written(tmp_path: Path) -> None:
    settings = FixedPoints(
        processes=["vp"], dimensions=[2], N=10, k=[1, 5, 10], features=[4, 8], points=16, samples=64, directions=4, seeds=3,
        flow=[8], decades=2,
    )  # fmt: skip
    for name in "ab":
        fp.make(settings, 7, tmp_path / name)
    art = open_artifact(tmp_path / "a", "fixed_points")
    for file in ("fixed_points", "flow", "references", "contrasts", "summary"):
        assert (tmp_path / "a" / f"{file}.csv").read_bytes() == (tmp_path / "b" / f"{file}.csv").read_bytes()
    fixed, moving, lines = (art.csv(f"{name}.csv") for name in ("fixed_points", "flow", "summary"))
    assert len(fixed) == 3 * 3 * 5 and len(moving) == 3 * 3 * 2 * 4
    shared = set(itertools.product(("shared", "plain"), "48"))
    assert {(r["class"], r["m"]) for r in fixed} == shared | {("per_time", "4")}
    assert {r["seed"] for r in fixed} == {"7", "8", "9"} and {r["share"] for r in fixed} == {"0.1", "0.5", "1.0"}
    assert {r["tau"] for r in moving} == {"0.0", "1.0", "10.0", "100.0"}
    # All k start from the same weights, and "shared" from the denoiser itself.
    begin = {(r["class"], r["seed"], r["ode_error"]) for r in moving if r["tau"] == "0.0"}
    assert len(begin) == 6
    denoiser = {r["seed"]: r["ode_error"] for r in art.csv("references.csv") if r["who"] == "denoiser"}
    assert {(s, e) for c, s, e in begin if c == "shared"} == set(denoiser.items())
    assert [r["tau"] for r in lines[:6]] == ["inf"] * 5 + ["0.0"] and {r["n"] for r in lines} == {"3"}
    assert art.manifest["counts"] == {"fixed_points": 45, "flow": 72, "cells": 5 + 2 * 4}
