"""Solvers: orders of convergence, diffusers' DDIM, hand-written steps; the queue; guidance."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from directcm.diffusion.processes import VariancePreserving, expand
from directcm.diffusion.solvers import SOLVERS, make_solver, solve
from directcm.diffusion.teachers import Conditioning, Gaussian, Prediction, Teacher
from directcm.runtime import rng


class Exact(Gaussian):
    """The Gaussian teacher without the contract's float32, so that rounding does not hide an order."""

    def predict(self, x: Tensor, t: Tensor, cond: Conditioning | None, guidance: float = 1.0) -> Prediction:
        eps = self.noise(x, t, cond)
        return Prediction(self.process.clean(x, eps, t), eps)


class Spy(Teacher):
    """A smooth made-up network that writes down what it is asked."""

    def __init__(self, steps: int = 1000) -> None:
        super().__init__()
        self.process = VariancePreserving.scaled_linear(steps=steps)
        self.shape = (2, 2)
        self.calls: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def noise(self, x: Tensor, t: Tensor, cond: Conditioning | None) -> Tensor:
        c = None if cond is None else cond.tensors["c"]
        self.calls.append((x, t, c))
        shift = 0.0 if c is None else c.reshape(-1, 1, 1)
        return torch.tanh(0.5 * x + shift + (t / 1000).reshape(-1, 1, 1).to(x))

    def unconditional(self, cond: Conditioning | None) -> Conditioning | None:
        return None if cond is None else Conditioning({k: torch.zeros_like(v) for k, v in cond.tensors.items()})


def fine(steps: int = 64000) -> VariancePreserving:
    """SDXL's noise spread over more and smaller steps, so that the grid comes close to the continuous ODE."""
    return VariancePreserving(VariancePreserving.scaled_linear(steps=steps).betas * (1000 / steps))


class Network(Exact):
    """The same as a network sees it: told t − 1 and never less than 0, it answers at time 0 as at time 1."""

    def noise(self, x: Tensor, t: Tensor, cond: Conditioning | None) -> Tensor:
        return super().noise(x, t.clamp(min=1), cond)


def run(teacher: Teacher, name: str, x: Tensor, intervals: int, end: float = 0.0) -> Tensor:
    grid = teacher.process.grid(intervals)
    grid = grid[grid >= end]
    assert grid[-1] == end
    solver = make_solver(name)
    for t, s in itertools.pairwise(grid):
        x = solver.step(teacher, x, t.expand(len(x)), s.expand(len(x)), None, 1.0)
    return x


MEAN, SCALE = torch.tensor([0.7, -0.3], dtype=torch.float64), 0.5


@functools.cache
def solved_finely(end: float) -> Tensor:
    """Where the ODE takes the four x of `measured_order`."""
    return run(Network(fine(), MEAN, SCALE), "heun", rng.normal(1, "x", range(4), (2,)).double(), 3200, end)


def measured_order(teacher: Teacher, name: str, end: float, sizes: tuple[int, ...]) -> float:
    """Minus the slope of log error over log N."""
    x = rng.normal(1, "x", range(4), (2,)).double()
    # DDIM and EDM's Heun share the discrete α with the flow map. Euler's and Heun's β integrates to it only as steps → ∞, which
    # would floor the small errors: their reference is the same ODE solved much finer.
    if name in ("ddim", "edm_heun"):
        goal = teacher.flow(x, torch.full((4,), teacher.process.start), torch.full((4,), end))
    else:
        goal = solved_finely(end)
    errors = [float((run(teacher, name, x, n, end) - goal).abs().mean()) for n in sizes]
    return float(-np.polyfit(np.log(sizes), np.log(errors), 1)[0])


SIZES = {
    "ddim": (160, 320, 640, 1280),
    "euler": (40, 80, 160, 320),
    "heun": (20, 40, 80, 160),
    "edm_heun": (20, 40, 80, 160),
}
ORDER = {"ddim": 1, "euler": 1, "heun": 2, "edm_heun": 2}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SOLVERS))
@pytest.mark.parametrize("end", [0.0, 16000.0])
@pytest.mark.parametrize("kind", [Exact, Network])
def test_order_of_convergence(name: str, kind: type[Gaussian], end: float) -> None:
    teacher = kind(fine(), MEAN, SCALE)
    assert measured_order(teacher, name, end, SIZES[name]) == pytest.approx(ORDER[name], abs=0.15)
    assert make_solver(name).order == ORDER[name]


FAR = {"ddim": (3200, 2e-3), "euler": (400, 2e-3), "heun": (400, 2e-4), "edm_heun": (400, 2e-4)}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SOLVERS))
def test_all_solvers_go_to_the_flow_map(name: str) -> None:
    steps, off = FAR[name]
    process = fine()
    teacher = Exact(process, torch.tensor([0.7], dtype=torch.float64), 0.5)
    x = rng.normal(1, "x", range(8), (1,)).double()
    exact = teacher.flow(x, torch.full((8,), process.start), torch.zeros(8))
    torch.testing.assert_close(run(teacher, name, x, steps), exact, rtol=0, atol=off)


def test_flow_map_of_the_gaussian() -> None:
    process = VariancePreserving.scaled_linear()
    teacher = Gaussian(process, torch.tensor([2.0, -1.0]).double(), 0.5)
    x = rng.normal(0, "x", range(5), (2,)).double()
    t, s, end = torch.full((5,), 900.0), torch.full((5,), 400.0), torch.zeros(5)
    torch.testing.assert_close(teacher.flow(x, t, t), x)
    torch.testing.assert_close(teacher.flow(teacher.flow(x, t, s), s, end), teacher.flow(x, t, end))
    # Noise of the marginal at t lands on the data's distribution: mean 2, −1 and standard deviation 0.5.
    many = rng.normal(0, "many", range(4000), (2,)).double()
    time = torch.full((4000,), 1000.0)
    x = process.diffuse(teacher.mean + 0.5 * many, rng.normal(0, "eps", range(4000), (2,)).double(), time)
    x0 = teacher.flow(x, time, torch.zeros(4000))
    torch.testing.assert_close(x0.mean(0), teacher.mean, rtol=0, atol=0.04)
    torch.testing.assert_close(x0.std(0), torch.tensor([0.5, 0.5]).double(), rtol=0.05, atol=0)
    # The velocity of the ODE is the flow map's derivative.
    process = fine()
    teacher = Gaussian(process, torch.tensor([2.0]).double(), 0.5)
    x = torch.tensor([[0.3]]).double()
    at, after = torch.tensor([30000.0]), torch.tensor([29999.0])
    slope = process.velocity(x, teacher.noise(x, at, None), at)
    assert float(x - teacher.flow(x, at, after)) == pytest.approx(float(slope), rel=1e-3)


@pytest.mark.parametrize("intervals", [10, 50])
def test_ddim_is_diffusers_ddim(intervals: int) -> None:
    from diffusers import DDIMScheduler

    teacher = Spy()
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(intervals)
    grid = teacher.process.grid(intervals)
    assert scheduler.timesteps.tolist() == (grid[:-1] - 1).long().tolist()
    x = rng.normal(2, "x", range(3), (2, 2))
    ours = make_solver("ddim")
    for i, time in enumerate(scheduler.timesteps):
        t, s = grid[i].expand(3), grid[i + 1].expand(3)
        eps = teacher.noise(x, t, None)
        theirs = scheduler.step(eps, int(time), x, eta=0.0).prev_sample
        mine = ours.step(teacher, x, t, s, None, 1.0)
        torch.testing.assert_close(mine, theirs, rtol=2e-5, atol=2e-5)
        x = mine


def slope_by_hand(teacher: Spy, x: Tensor, t: float) -> Tensor:
    """The paper's released code: d(x, s) = −½β x + ½β ε̂/σ_s, β = 1000·β_{s−1}; at s = 0 with β₀ and the σ of the first step."""
    k = max(int(t), 1)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    sigma = float((1 - torch.cumprod(1 - betas, 0)[k - 1]).sqrt())
    beta = 1000 * float(betas[k - 1])
    eps = teacher.noise(x, torch.tensor([float(k)]), None)
    return -0.5 * beta * x + 0.5 * beta * eps / sigma


@pytest.mark.parametrize(("t", "s"), [(1000.0, 900.0), (500.0, 480.0), (100.0, 0.0), (1.0, 0.0)])
def test_euler_and_heun_steps_by_hand(t: float, s: float) -> None:
    teacher = Spy()
    x = rng.normal(4, "x", [0], (2, 2))
    first = slope_by_hand(teacher, x, t)
    euler = x + first * (s - t) / 1000
    time, after = torch.tensor([t]), torch.tensor([s])
    torch.testing.assert_close(
        make_solver("euler").step(teacher, x, time, after, None, 1.0), euler, rtol=1e-5, atol=1e-6
    )
    heun = x + 0.5 * (first + slope_by_hand(teacher, euler, s)) * (s - t) / 1000
    torch.testing.assert_close(make_solver("heun").step(teacher, x, time, after, None, 1.0), heun, rtol=1e-5, atol=1e-6)


class Told(Teacher):
    """A network whose ε̂ depends on what it is told, and on which row it is."""

    network = object()

    def __init__(self, time_input: str) -> None:
        super().__init__()
        self.process, self.shape = VariancePreserving.scaled_linear(time_input=time_input), (2,)
        self.heard: list[list[float]] = []

    def noise(self, x: Tensor, t: Tensor, cond: Conditioning | None) -> Tensor:
        return self.noise_told(x, t, cond, self.process.network_time(t))

    def noise_told(self, x: Tensor, t: Tensor, cond: Conditioning | None, told: Tensor) -> Tensor:
        self.heard.append(told.tolist())
        pull = 1.0 if cond is None else cond.tensors["pull"]
        return torch.tanh(x * (1 + expand(told, x) / 500)) * pull

    def unconditional(self, cond: Conditioning | None) -> Conditioning | None:
        return None if cond is None else Conditioning({"pull": torch.full_like(cond.tensors["pull"], 0.5)})


def released_slope(x: Tensor, eps: Tensor, t: int) -> Tensor:
    """−½β x + ½β ε̂/σ per unit of t/1000, at t = 0 the β and σ of the first step: the released code clamps its tables' index."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    index = max(t - 1, 0)
    beta, sigma = 1000 * betas[index], (1 - torch.cumprod(1 - betas, 0)[index]).sqrt()
    return -0.5 * beta * x + 0.5 * beta * eps / sigma


@pytest.mark.parametrize(("time_input", "told"), [("one_based", (20.0, 0.0)), ("zero_based", (19.0, 0.0))])
def test_heuns_last_step_tells_the_network_the_end(time_input: str, told: tuple[float, float]) -> None:
    """By hand, in float64: the released U-Net hears t and then 0; one told t − 1 hears 19, and 0 as at time 1."""
    teacher = Told(time_input)
    x = rng.normal(4, "x", [0], (2,)).double()

    def eps(x: Tensor, heard: float) -> Tensor:
        return torch.tanh(x * (1 + heard / 500))

    first = released_slope(x, eps(x, told[0]), 20)
    guess = x - first * 0.02
    by_hand = x - 0.01 * (first + released_slope(guess, eps(guess, told[1]), 0))
    got = make_solver("heun").step(teacher, x, torch.tensor([20.0]), torch.zeros(1), None, 1.0)
    assert teacher.heard == [[told[0]], [told[1]]]
    # ε̂ is float32 by contract.
    torch.testing.assert_close(got, by_hand, rtol=1e-6, atol=1e-7)


def test_under_guidance_both_halves_are_told_the_end_and_other_rows_their_time() -> None:
    teacher = Told("one_based")
    x, cond = rng.normal(4, "x", range(3), (2,)), Conditioning({"pull": torch.full((3, 1), 2.0)})
    t, s = torch.tensor([40.0, 20.0, 1.0]), torch.tensor([20.0, 0.0, 0.0])
    whole = make_solver("heun").step(teacher, x, t, s, cond, 3.0)
    assert teacher.heard == [[40, 20, 1] * 2, [20, 0, 0] * 2]
    for row in range(3):
        pick = torch.tensor([row])
        alone = make_solver("heun").step(Told("one_based"), x[pick], t[pick], s[pick], cond.rows(pick), 3.0)
        torch.testing.assert_close(whole[pick], alone)
    # With N = 1000 a step ends at time 1, which is no end.
    other = Told("one_based")
    make_solver("heun").step(other, x[:1], torch.tensor([2.0]), torch.tensor([1.0]), None, 1.0)
    assert other.heard == [[2], [1]]
    # Nothing else asks for the end so: EDM's Heun and DDIM are told times of the grid, and an exact teacher is asked at time 1.
    for name in ("ddim", "euler", "edm_heun"):
        other = Told("one_based")
        make_solver(name).step(other, x[:1], torch.tensor([20.0]), torch.zeros(1), None, 1.0)
        assert [0] not in other.heard
    exact = Gaussian(VariancePreserving.scaled_linear(time_input="one_based"), MEAN, SCALE)
    usual = Gaussian(VariancePreserving.scaled_linear(), MEAN, SCALE)
    ends = [make_solver("heun").step(one, x[:1].double(), t[1:2], s[1:2], None, 1.0) for one in (exact, usual)]
    assert torch.equal(*ends)


def test_ddim_step_by_hand() -> None:
    teacher = Spy()
    x = rng.normal(4, "x", [0], (2, 2))
    t, s = torch.tensor([800.0]), torch.tensor([600.0])
    abar = torch.cumprod(1 - teacher.process.betas, 0)
    eps = teacher.noise(x, t, None)
    x0 = (x - (1 - abar[799]).sqrt().float() * eps) / abar[799].sqrt().float()
    hand = abar[599].sqrt().float() * x0 + (1 - abar[599]).sqrt().float() * eps
    torch.testing.assert_close(make_solver("ddim").step(teacher, x, t, s, None, 1.0), hand)
    at_end = make_solver("ddim").step(teacher, x, t, torch.zeros(1), None, 1.0)
    torch.testing.assert_close(at_end, x0)


def test_edm_heun_step_by_hand() -> None:
    """Karras et al. 2206.00364, Algorithm 1: Euler's step of x̂ = x/α in u = σ/α, then the mean of the two ε̂."""
    teacher = Spy()
    x = rng.normal(4, "x", range(2), (2, 2)).double()
    t, s = torch.tensor([800.0, 300.0]), torch.tensor([600.0, 250.0])
    abar = torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - teacher.process.betas, 0)])
    u = ((1 - abar) / abar).sqrt()
    hand = []
    for row, (k, n) in enumerate(((800, 600), (300, 250))):
        start = x[row : row + 1]
        first = teacher.noise(start, torch.tensor([float(k)]), None)
        guess = start / abar[k].sqrt() + (u[n] - u[k]) * first
        second = teacher.noise(guess * abar[n].sqrt(), torch.tensor([float(n)]), None)
        hand.append((start / abar[k].sqrt() + (u[n] - u[k]) * 0.5 * (first + second)) * abar[n].sqrt())
    solver = make_solver("edm_heun")
    torch.testing.assert_close(
        solver.step(teacher, x.float(), t, s, None, 1.0), torch.cat(hand).float(), rtol=1e-5, atol=1e-5
    )


def test_edm_heuns_last_step_stops_where_the_noise_is_last_defined() -> None:
    teacher = Spy()
    process = teacher.process
    x = rng.normal(4, "x", range(2), (2, 2))
    t, s = torch.tensor([100.0, 100.0]), torch.tensor([0.0, 50.0])
    teacher.calls.clear()
    edm = make_solver("edm_heun").step(teacher, x, t, s, None, 1.0)
    # Time 0 is never asked about: there ε̂ says nothing.
    assert [c[1].tolist() for c in teacher.calls] == [[100.0, 100.0], [1.0, 50.0]]

    def u(time: float) -> Tensor:
        at = torch.tensor([time])
        return (process.sigma(at) / process.alpha(at)).float()

    def scaled(y: Tensor, time: float) -> Tensor:
        return y / process.alpha(torch.tensor([time])).float()

    for row, stop in ((0, 1.0), (1, 50.0)):
        first = teacher.noise(x[row : row + 1], torch.tensor([100.0]), None)
        guess = scaled(x[row : row + 1], 100.0) + (u(stop) - u(100.0)) * first
        second = teacher.noise(guess * process.alpha(torch.tensor([stop])).float(), torch.tensor([stop]), None)
        there = scaled(x[row : row + 1], 100.0) + (u(stop) - u(100.0)) * (first + second) / 2
        # From the last time above the end, DDIM with the slope that is known there; α(0) = 1.
        expected = there - u(1.0) * second if row == 0 else there * process.alpha(torch.tensor([stop])).float()
        torch.testing.assert_close(edm[row : row + 1], expected, rtol=1e-5, atol=1e-5)


def test_edm_heun_goes_where_ddim_goes() -> None:
    """DDIM is Euler in the same variables: its limit, by Richardson's extrapolation, is what EDM's Heun reaches much sooner."""
    teacher = Exact(fine(), torch.tensor([0.7], dtype=torch.float64), 0.5)
    x = rng.normal(1, "x", range(8), (1,)).double()
    coarse, finer = (run(teacher, "ddim", x, n, 16000.0) for n in (1600, 3200))
    limit = 2 * finer - coarse
    heun = run(teacher, "edm_heun", x, 400, 16000.0)
    assert float((heun - limit).abs().max()) < 1e-5
    assert float((finer - limit).abs().max()) > 5e-5
    # 2 × 400 forwards do better than 3,200 of DDIM.
    exact = teacher.flow(x, torch.full((8,), teacher.process.start), torch.full((8,), 16000.0))
    assert float((heun - exact).abs().mean()) < 0.1 * float((finer - exact).abs().mean())


@pytest.mark.parametrize(("name", "forwards"), [("ddim", 1), ("euler", 1), ("heun", 2), ("edm_heun", 2)])
def test_forwards_of_a_step(name: str, forwards: int) -> None:
    teacher, x, cond = case(3)
    solver = make_solver(name)
    t, s = torch.tensor([1000.0, 500.0, 100.0]), torch.tensor([900.0, 400.0, 0.0])
    solver.step(teacher, x, t, s, cond, 3.0)
    assert solver.evaluations_per_step == forwards == len(teacher.calls)
    assert teacher.rows_evaluated == forwards * 3 * 2


def case(rows: int) -> tuple[Spy, Tensor, Conditioning]:
    return Spy(), rng.normal(7, "x", range(rows), (2, 2)), Conditioning({"c": torch.linspace(-1, 1, rows)})


@pytest.mark.parametrize("name", list(SOLVERS))
@pytest.mark.parametrize("w", [0.0, 1.0, 3.0])
def test_mixed_starts_equal_each_row_alone(name: str, w: float) -> None:
    teacher, x, cond = case(9)
    starts = torch.tensor([0, 3, 9, 1, 0, 7, 5, 9, 2])
    ends, first, count = solve(teacher, make_solver(name), x, starts, 10, cond, w, 4)
    for i in range(9):
        one, ahead, _ = solve(
            teacher, make_solver(name), x[i : i + 1], starts[i : i + 1], 10, cond.rows(torch.tensor([i])), w, 1
        )
        torch.testing.assert_close(ends[i], one[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(first[i], ahead[0], rtol=1e-5, atol=1e-5)
    grid = teacher.process.grid(10)
    alone = make_solver(name).step(teacher, x, grid[starts], grid[starts + 1], cond, w)
    torch.testing.assert_close(first, alone, rtol=1e-5, atol=1e-5)
    steps = int((10 - starts).sum())
    per_step = (2 if name in ("heun", "edm_heun") else 1) * (2 if w == 3.0 else 1)
    assert count.made == count.minimum == steps * per_step


@settings(deadline=None, max_examples=25)
@given(
    starts=st.lists(st.integers(0, 4), min_size=1, max_size=12),
    batch=st.integers(1, 7),
    name=st.sampled_from(list(SOLVERS)),
    w=st.sampled_from([1.0, 3.0]),
)
def test_the_queue_never_does_too_much(starts: list[int], batch: int, name: str, w: float) -> None:
    teacher, x, cond = case(len(starts))
    done: list[int] = []
    *_, count = solve(teacher, make_solver(name), x, torch.tensor(starts), 5, cond, w, batch, done.append)
    halves = 2 if w == 3.0 else 1
    evaluations = make_solver(name).evaluations_per_step
    steps = sum(5 - s for s in starts)
    assert max(len(c[0]) for c in teacher.calls) <= batch * halves
    assert sum(len(c[0]) for c in teacher.calls) == steps * evaluations * halves == count.made == count.minimum
    assert sum(done) == steps and max(done) <= batch
    # Times above the end only, but for the second slopes; a row at the end is never stepped on.
    first = teacher.calls[::evaluations]
    assert all(bool((c[1] > 0).all()) for c in first)
    assert sum(int((c[1] == 200).sum()) for c in first) == len(starts) * halves


def test_batch_size_changes_nothing_but_rounding() -> None:
    for size in (1, 7, 100):
        teacher, x, cond = case(20)
        ends, _, count = solve(teacher, make_solver("ddim"), x, torch.arange(20) % 10, 10, cond, 3.0, size)
        if size == 1:
            first, made = ends, count.made
        torch.testing.assert_close(ends, first, rtol=1e-5, atol=1e-5)
        assert count.made == made


def test_solve_leaves_its_input_alone_and_checks_starts() -> None:
    teacher, x, cond = case(3)
    before = x.clone()
    solve(teacher, make_solver("ddim"), x, torch.zeros(3, dtype=torch.long), 5, cond, 1.0, 2)
    assert torch.equal(x, before)
    for wrong in (-1, 5):
        with pytest.raises(ValueError, match="starts are grid indices"):
            solve(teacher, make_solver("ddim"), x, torch.tensor([0, wrong, 0]), 5, cond, 1.0, 2)


def test_guidance_is_the_imagen_form_in_one_forward() -> None:
    teacher, x, cond = case(3)
    t = torch.tensor([1000.0, 600.0, 20.0])
    none = Conditioning({"c": torch.zeros(3)})
    with_, without = teacher.noise(x, t, cond), teacher.noise(x, t, none)
    expected: dict[float, Any] = {0.0: without, 1.0: with_, 3.0: without + 3 * (with_ - without)}
    rows = {0.0: 3, 1.0: 3, 3.0: 6}
    for w, eps in expected.items():
        teacher.calls.clear()
        teacher.rows_evaluated = 0
        got = teacher.predict(x, t, cond, w)
        assert len(teacher.calls) == 1 and len(teacher.calls[0][0]) == rows[w] == teacher.rows_evaluated
        assert teacher.rows_per_prediction(w) * 3 == rows[w]
        torch.testing.assert_close(got.eps, eps)
        torch.testing.assert_close(got.x0, teacher.process.clean(x, eps, t))
        assert got.eps.dtype == got.x0.dtype == torch.float32
    # w = 1 sees the captions alone, w = 0 none of them.
    teacher.calls.clear()
    teacher.predict(x, t, cond, 1.0)
    teacher.predict(x, t, cond, 0.0)
    assert torch.equal(teacher.calls[0][2], cond.tensors["c"]) and not teacher.calls[1][2].any()


def test_an_integer_scale_is_a_scale() -> None:
    teacher, x, cond = case(3)
    t = torch.full((3,), 500.0)
    teacher.predict(x, t, cond, 1)
    assert len(teacher.calls[0][0]) == 3
