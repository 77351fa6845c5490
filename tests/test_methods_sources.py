"""The methods of the sources, each by the smallest case that its known bug would fail; and what all of them share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from directcm import methods, rng
from directcm.distances import norm_huber
from directcm.methods import (
    Batch,
    Setting,
    cd,
    cm,
    cmt,
    ct,
    direct_cm,
    direct_then_cm,
    ect,
    gc_ct,
    gc_ict,
    ict,
    pd,
    training_pair,
)  # fmt: skip
from directcm.processes import Process, VarianceExploding, VariancePreserving, expand
from directcm.registry import methods as registered
from directcm.solvers import make_solver, solve
from directcm.teachers import Gaussian

KARRAS = VarianceExploding()
Map = Callable[[Tensor, Tensor, Any], Tensor]


class Toy:
    """A student f(x, t) = a·x on a process, with a free."""

    def __init__(self, a: float = 2.0, process: Process = KARRAS) -> None:
        self.a, self.process = torch.tensor(a, dtype=torch.float64, requires_grad=True), process
        self.asked: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x: Tensor, t: Tensor, cond: object) -> Tensor:
        self.asked.append((x.detach(), t))
        return self.a * x


class Given:
    """A student that is a function."""

    def __init__(self, f: Map, process: Process) -> None:
        self.f, self.process = f, process

    def __call__(self, x: Tensor, t: Tensor, cond: object) -> Tensor:
        return self.f(x, t, cond)


def data_batch(rows: int = 4, d: int = 3, **changes: Any) -> Batch:
    """Images, noises and numbers of a method's own; no start points."""
    x0, eps = (rng.normal(0, n, range(rows), (d,)).double() for n in ("x0", "eps"))
    u, v = (torch.from_numpy(rng.uniform(0, n, range(rows))) for n in ("u", "v"))
    none = torch.zeros(0)
    made: dict[str, Any] = {"x0": x0, "eps": eps, "u": u, "v": v, "step": 0, "steps": 100}
    return Batch(none, none, none, None, None, **{**made, **changes})


def setting(name: str, **changes: Any) -> Setting:
    """A method's setting with its file's own numbers."""
    made: dict[str, Any] = {"intervals": 8, "own": dict(registered()[name].settings)}
    return Setting(changes.pop("teacher", None), make_solver("heun"), 1.0, methods.mse, **{**made, **changes})


# ----------------------------------------------------------------- what they share


@pytest.mark.parametrize("name", registered())
def test_the_average_and_the_targets_get_no_gradient(name: str) -> None:
    """Of a loss's two ends the student's alone moves it: scaling the target network must not appear in ∂/∂a."""
    process = KARRAS
    student, average = Toy(2.0), Toy(3.0)
    teacher = Gaussian(process, torch.zeros(3).double(), 0.5)
    base = data_batch(v=torch.ones(4))
    t = torch.full((4,), 5.0, dtype=torch.float64)
    x = process.diffuse(base.x0, base.eps, t)
    batch = Batch(x, t, t / 2, None, x / 3, base.x0, base.eps, None, base.u, base.v, 30, 100)
    methods.load(name).loss(student, batch, setting(name, teacher=teacher, average=average)).sum().backward()
    assert student.a.grad is not None and float(student.a.grad.abs()) > 0
    assert average.a.grad is None


EXACT = [(name, process) for name in registered() for process in registered()[name].processes]


@pytest.mark.parametrize(("name", "kind"), EXACT)
def test_at_the_exact_map_the_loss_is_nothing(name: str, kind: str) -> None:
    """On one analytic Gaussian: ≤ 1e-6 with the flow map as the student.

    Of methods that ask a teacher or solved endpoints at width 0.5, with fine steps of a second-order solver; of those that pair
    two points of one image and one noise at width 0, the only one where such neighbours share an endpoint exactly.
    """
    declared = registered()[name]
    process: Process = KARRAS if kind == "karras" else VariancePreserving.scaled_linear()
    from_data = (
        not declared.teacher
        and declared.targets in ("", "trajectory")
        and kind == "karras"
        and name != "direct_cm_trajectory"
    )
    width = 0.0 if from_data else 0.5
    mean = torch.tensor([0.7, -0.3, 0.1], dtype=torch.float64)
    teacher = Gaussian(process, mean, width)
    base = data_batch(64, v=torch.zeros(64))
    x0 = mean + width * base.x0
    intervals = 8 if declared.halves else 1000
    grid = process.grid(intervals)
    k = torch.zeros(64, dtype=torch.int64) if declared.targets == "prior" else (base.u * intervals).long()
    x = process.prior(base.eps) if declared.targets == "prior" else process.diffuse(x0, base.eps, grid[k])
    solver = make_solver("edm_heun")

    def flow(x: Tensor, t: Tensor, cond: object) -> Tensor:
        return teacher.flow(x, t, torch.full_like(t, process.end))

    endpoint = None
    if declared.targets:
        endpoint = solve(teacher, solver, x, k, intervals, None, 1.0, 64)[0].double()
    student, average, step = Given(flow, process), Given(flow, process), 50
    if declared.halves:
        # The student's one step is the flow map in the last stage, if its teacher's two were the flow's own.
        step = 99

        def onward(x: Tensor, t: Tensor, cond: object) -> Tensor:
            near = process.grid(2)[2 - (t > process.grid(2)[1]).long()]
            return pd.aim(process, x, teacher.flow(x, t, near), t, near)

        average = Given(onward, process)
    batch = Batch(x, grid[k], grid[k + 1], None, endpoint, x0, base.eps, None, base.u, base.v, step, 100)
    own = Setting(teacher, solver, 1.0, methods.mse, intervals, dict(declared.settings), average)
    loss = methods.load(name).loss
    good = float(loss(student, batch, own).mean())
    assert good <= 1e-6
    wrong = Given(lambda x, t, cond: flow(x, t, cond) * (1 + t.reshape(-1, 1) / process.start), process)
    # Neighbours see little of a smooth map's error: a thousandth of it, squared, on a thousand intervals.
    assert float(loss(wrong, batch, own).mean()) > max(100 * good, 1e-7)


def test_both_forwards_of_a_pair_drop_the_same() -> None:
    torch.manual_seed(0)
    drop = nn.Dropout(0.5)
    student = Given(lambda x, t, cond: drop(torch.ones_like(x)), KARRAS)
    batch = data_batch(8, 16)
    t = torch.full((8,), 2.0, dtype=torch.float64)
    made, aim = training_pair(student, student, batch.x0, batch.eps, t, t / 2, None)
    assert torch.equal(made, aim) and 0 < int((made == 0).sum()) < made.numel()
    again, _ = training_pair(student, student, batch.x0, batch.eps, t, t / 2, None)
    assert not torch.equal(made, again)


# ----------------------------------------------------------------- consistency distillation


def test_cd_by_hand() -> None:
    """f = 2x, f⁻ = 3x, a solver that halves: δ = 2x − 1.5x."""

    class Half:
        def step(self, teacher: object, x: Tensor, *_: object) -> Tensor:
            return x / 2

    x = torch.tensor([[1.0, 3.0], [2.0, -2.0]], dtype=torch.float64)
    t = torch.tensor([20.0, 10.0])
    own = Setting(object(), Half(), 1.0, methods.mse, 8, {"mu": 0.95}, Toy(3.0))  # type: ignore[arg-type]
    losses = cd.loss(Toy(2.0), Batch(x, t, t / 2, None, None), own)
    torch.testing.assert_close(losses.detach(), torch.tensor([1.25, 1.0], dtype=torch.float64))
    assert cd.decay(0, 100, own) == 0.95


# ----------------------------------------------------------------- consistency training


def test_cts_schedules_are_the_published() -> None:
    """N(k) runs from 2 to 151 times and μ(k) from 0.81 up: exp(2 ln 0.9/n) (Song et al., Appendix C)."""
    k = 800_000
    n = [ct.intervals(step, k, 2, 150) for step in (0, k // 4, k // 2, k)]
    assert n == [1, 75, 106, 150]
    own = setting("ct")
    assert ct.decay(0, k, own) == pytest.approx(0.81)
    assert ct.decay(k, k, own) == pytest.approx(0.9 ** (2 / 150))
    grown = [ct.intervals(step, 300, 2, 150) for step in range(300)]
    assert grown == sorted(grown) and grown[-1] <= 150


def test_ct_by_hand() -> None:
    """On the first step's grid of two times, T and ε, the pair is x + T z and x + ε z."""
    batch = data_batch(3)
    student, average = Toy(2.0), Toy(3.0)
    losses = ct.loss(student, batch, setting("ct", average=average))
    assert torch.equal(student.asked[0][1], torch.full((3,), 80.0).double())
    assert torch.equal(average.asked[0][1], torch.full((3,), 0.002, dtype=torch.float64))
    delta = 2 * (batch.x0 + 80 * batch.eps) - 3 * (batch.x0 + 0.002 * batch.eps)
    torch.testing.assert_close(losses.detach(), (delta**2).mean(1))


def test_cts_pairs_are_neighbours_and_all_as_likely() -> None:
    batch = data_batch(4000, 1, step=99, u=(torch.arange(4000) + 0.5).double() / 4000)
    own = setting("ct", own={"s0": 2, "s1": 20, "mu0": 0.9})
    t, r = ct.times(Toy(), batch, own)
    n = ct.intervals(99, 100, 2, 20)
    grid = KARRAS.grid(n)
    assert torch.equal(t.unique(), grid[:-1].sort().values) and torch.equal(r.unique(), grid[1:].sort().values)
    counts = torch.unique(t, return_counts=True)[1]
    assert int(counts.max()) - int(counts.min()) <= 1


# ----------------------------------------------------------------- improved consistency training


def test_icts_schedule_is_the_published() -> None:
    """10 → 1280, doubling eight times in 400,000 steps, after 50,000 each (2310.14189, Section 3.4)."""
    k = 400_000
    assert [ict.intervals(s, k, 10, 1280) for s in (0, 49_999, 50_000, 100_000, 350_000, k - 1)] == [
        10, 10, 20, 40, 1280, 1280,
    ]  # fmt: skip
    # Shorter than there are parts: no division by nothing.
    assert ict.intervals(3, 5, 10, 1280) == 80


def test_icts_noise_levels_have_the_median_of_their_normal() -> None:
    """exp(−1.1) = 0.33; with the sign of the released schedule wrong it would be 3.0."""
    grid = KARRAS.grid(1280)
    chance = ict.probabilities(grid, -1.1, 2.0)
    assert float(chance.sum()) == pytest.approx(1) and bool((chance > 0).all())
    middle = int(torch.searchsorted(chance.cumsum(0), torch.tensor(0.5, dtype=torch.float64)))
    assert float(grid[middle]) == pytest.approx(math.exp(-1.1), rel=0.03)


def test_ict_by_hand() -> None:
    batch = data_batch(5, 12)
    student = Toy(2.0)
    losses = ict.loss(student, batch, setting("ict"))
    (x_r, r), (x_t, t) = student.asked
    assert bool((t > r).all())
    torch.testing.assert_close(x_t - x_r, (t - r)[:, None] * batch.eps)
    c = 0.00054 * math.sqrt(12)
    delta = 2 * (x_t - x_r)
    want = (((delta**2).sum(1) + c**2).sqrt() - c) / (t - r)
    torch.testing.assert_close(losses.detach(), want)


def test_the_constant_of_pseudo_huber_is_the_published_at_cifars_size() -> None:
    """0.00054·√3072 = 0.03 (2310.14189, Section 3.3)."""
    zero, one = torch.zeros(1, 3, 32, 32).double(), torch.full((1, 3, 32, 32), 1e-6).double()
    squared = 3072 * 1e-12
    assert float(norm_huber(0.00054)(zero, one)) == pytest.approx(squared / (2 * 0.03), rel=0.01)


# ----------------------------------------------------------------- generator-augmented flows


@pytest.mark.parametrize(("gc", "base"), [(gc_ct, ct), (gc_ict, ict)])
def test_with_the_standard_coupling_alone_it_is_its_base(gc: Any, base: Any) -> None:
    name = gc.__name__.rpartition(".")[2]
    own = {**registered()[name].settings, "p": 1.0}
    batch = data_batch(6, step=40)
    want = base.loss(Toy(2.0), batch, setting(name, own=own, average=Toy(3.0)))
    got = gc.loss(Toy(2.0), batch, setting(name, own=own, average=Toy(3.0)))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("gc", [gc_ct, gc_ict])
def test_the_pair_is_of_what_the_generator_makes_with_the_same_noise(gc: Any) -> None:
    name = gc.__name__.rpartition(".")[2]
    batch = data_batch(6, step=40, v=torch.tensor([0.1, 0.9, 0.4, 0.6, 0.51, 0.49]).double())
    student, generator = Toy(2.0), Toy(3.0)
    gc.loss(student, batch, setting(name, average=generator))
    x_r, r = generator.asked[0]
    torch.testing.assert_close(x_r, batch.x0 + r[:, None] * batch.eps)
    x_t, t = student.asked[-1]
    made = torch.where(torch.tensor([True, False, True, False, False, True])[:, None], batch.x0, 3 * x_r)
    torch.testing.assert_close(x_t, made + t[:, None] * batch.eps)
    assert bool((t > r).all())


# ----------------------------------------------------------------- easy consistency tuning, mid-training


def test_ects_times() -> None:
    """ln t is normal(−1.1, 2) within the process; r is the end at first, then nears t (METHODS.md)."""
    u = (torch.arange(2000) + 0.5).double() / 2000
    t = ect.start_times(KARRAS, u, -1.1, 2.0)
    assert float(t.median()) == pytest.approx(math.exp(-1.1), rel=0.03)
    assert float(t.min()) > 0.002 and float(t.max()) <= 80
    far = torch.tensor([0.1, 60.0], dtype=torch.float64)
    # At 0.1: 1 + 8·sigmoid(−0.1) = 4.8 of 2, 4, 8 …; at 60: 1.
    assert ect.earlier(KARRAS, far, 0, 2, 8).tolist() == pytest.approx([0.002, 30])
    share = 1 - (1 + 8 / (1 + math.exp(0.1))) / 8
    assert ect.earlier(KARRAS, far, 2, 2, 8).tolist() == pytest.approx([0.1 * share, 60 * 7 / 8], rel=1e-6)
    assert bool((ect.earlier(KARRAS, t, 7, 2, 8) < t).all())


def test_ect_by_hand() -> None:
    batch = data_batch(5, step=99)
    student = Toy(2.0)
    losses = ect.loss(student, batch, setting("ect"))
    (_, r), (_, t) = student.asked
    # δ = 2 (t − r) z, so that what is left is 2 ‖z‖.
    torch.testing.assert_close(losses.detach(), 2 * batch.eps.norm(dim=1), rtol=1e-4, atol=0)
    assert torch.equal(r, ect.earlier(KARRAS, t, 7, 2, 8))


def test_cmt_is_direct_then_ect_from_its_first_stage() -> None:
    base = data_batch(4)
    x, end = 7 * torch.ones(4, 3).double(), torch.ones(4, 3).double()
    t = torch.full((4,), 5.0).double()

    def at(step: int) -> tuple[Tensor, Toy]:
        student = Toy(2.0)
        batch = Batch(x, t, t / 2, None, end, base.x0, base.eps, None, base.u, base.v, step, 100)
        return cmt.loss(student, batch, setting("cmt")).detach(), student

    losses, _ = at(49)
    torch.testing.assert_close(losses, torch.full((4,), 169.0).double())
    _, student = at(50)
    (_, r), (_, t_own) = student.asked
    assert torch.equal(r, ect.earlier(KARRAS, t_own, 0, 2, 8))


# ----------------------------------------------------------------- progressive distillation


def test_pd_halves_and_becomes_its_own_teacher() -> None:
    own = setting("pd", intervals=8)
    stages = [pd.stage_of(step, 90, 8) for step in range(90)]
    assert [stages.count(s) for s in range(3)] == [30, 30, 30] and stages == sorted(stages)
    copies = [step for step in range(90) if pd.decay(step, 90, own) == 0]
    assert copies == [29, 59] and all(pd.decay(s, 90, own) in (0.0, 1.0) for s in range(90))
    assert [pd.teacher_steps(s, 90, own) for s in (0, 29, 30, 89)] == [2, 2, 0, 0]


def test_pds_target_is_the_published() -> None:
    """D = x − t(x₃ − x)/(t₃ − t), of an end at 0; and a jump towards it leads to x₃."""
    process = VarianceExploding(end=1e-12)
    x, there = torch.tensor([[3.0, -1.0]]).double(), torch.tensor([[1.0, 2.0]]).double()
    t, s = torch.tensor([10.0]).double(), torch.tensor([4.0]).double()
    want = x - 10 * (there - x) / (4 - 10)
    torch.testing.assert_close(pd.aim(process, x, there, t, s), want, rtol=1e-9, atol=1e-9)
    for any_process, late, early in ((KARRAS, t, s), (VariancePreserving.scaled_linear(), t * 90, s * 100)):
        end = pd.aim(any_process, x, there, late, early)
        torch.testing.assert_close(pd.jump(any_process, x, end, late, early), there)
        last = torch.full_like(t, any_process.end)
        torch.testing.assert_close(pd.aim(any_process, x, there, late, last), there)


def test_pds_first_stage_takes_two_steps_of_the_guided_teacher() -> None:
    steps: list[tuple[float, float, float]] = []

    class Spy:
        def step(self, teacher: object, x: Tensor, t: Tensor, s: Tensor, cond: object, w: float) -> Tensor:
            steps.append((float(t[0]), float(s[0]), w))
            return x / 2

    batch = data_batch(1, u=torch.tensor([0.99]).double())
    student = Toy(2.0)
    losses = pd.loss(student, batch, Setting(object(), Spy(), 3.0, methods.mse, 4, {}, Toy(3.0)))  # type: ignore[arg-type]
    grid = KARRAS.grid(4).tolist()
    assert steps == [(grid[2], grid[3], 3.0), (grid[3], grid[4], 3.0)]
    x = batch.x0 + grid[2] * batch.eps
    # Down to the end the target is where the two steps led: x/4; the weight max(1/t², 1).
    want = max(1 / grid[2] ** 2, 1) * ((2 * x - x / 4) ** 2).mean(1)
    torch.testing.assert_close(losses.detach(), want)


def test_pds_later_stages_ask_the_student_before() -> None:
    batch = data_batch(2, step=99, u=torch.zeros(2).double())
    student, before = Toy(2.0), Toy(3.0)
    losses = pd.loss(student, batch, Setting(object(), object(), 1.0, methods.mse, 8, {}, before))  # type: ignore[arg-type]
    grid = KARRAS.grid(2)
    assert [float(t[0]) for _, t in before.asked] == [80.0, float(grid[1])]
    x = 80 * batch.eps + batch.x0
    ratio = float((grid[1] - 0.002) / (80 - 0.002))
    half = 3 * x + ratio * (x - 3 * x)
    torch.testing.assert_close(losses.detach(), ((2 * x - 3 * half) ** 2).mean(1))


def test_expand_keeps_rows_apart() -> None:
    assert torch.equal(methods.scale(torch.tensor([1.0, 2.0]), torch.ones(2)), torch.tensor([1.0, 2.0]))
    assert expand(torch.tensor([1.0, 2.0]), torch.ones(2, 3)).shape == (2, 1)


# ----------------------------------------------------------------- Direct CM, then CM


def test_direct_then_cm_is_one_and_then_the_other() -> None:
    x, end = torch.full((4, 3), 7.0).double(), torch.ones(4, 3).double()
    t = torch.full((4,), 5.0).double()
    teacher = Gaussian(KARRAS, torch.zeros(3).double(), 0.5)
    own = setting("direct_then_cm", teacher=teacher)
    for step, part in ((49, direct_cm), (50, cm)):
        batch = Batch(x, t, t / 2, None, end, step=step, steps=100)
        torch.testing.assert_close(
            direct_then_cm.loss(Toy(2.0), batch, own).detach(), part.loss(Toy(2.0), batch, own).detach()
        )
    assert [direct_then_cm.teacher_steps(step, 100, own) for step in (0, 49, 50, 99)] == [0, 0, 1, 1]
