"""The methods of the sources, each by the smallest case that its known bug would fail; and what all of them share."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import forward_ad

from directcm.config import Ode
from directcm.config.registry import methods as registered
from directcm.diffusion.distances import norm_huber
from directcm.diffusion.processes import Process, VarianceExploding, VariancePreserving, expand
from directcm.diffusion.solvers import make_solver, solve
from directcm.diffusion.teachers import Conditioning, Gaussian, Prediction
from directcm.distill import methods, targets
from directcm.distill.encode import Latents
from directcm.distill.methods import (
    Batch,
    Context,
    cd,
    cd_inf,
    cm,
    cm_then_direct,
    cmt,
    ct,
    direct_cm,
    direct_cm_trajectory,
    direct_then_cm,
    ect,
    gc_ct,
    gc_ict,
    ict,
    k_step,
    pd,
    scd,
    training_pair,
)
from directcm.runtime import rng
from directcm.runtime.artifacts import open_artifact

KARRAS = VarianceExploding()
VP = VariancePreserving.scaled_linear()
PROCESSES: dict[str, Process] = {"karras": KARRAS, "vp": VP}
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
    """A student that is a function; `made` are the times and values of what it was asked, in their order."""

    def __init__(self, f: Map, process: Process, made: list[tuple[Tensor, Tensor]] | None = None) -> None:
        self.f, self.process, self.made = f, process, [] if made is None else made

    def __call__(self, x: Tensor, t: Tensor, cond: object) -> Tensor:
        self.made.append((t, self.f(x, t, cond)))
        return self.made[-1][1]


def data_batch(rows: int = 4, d: int = 3, **changes: Any) -> Batch:
    """Images, noises and a method's draws; no start points."""
    x0, eps = (rng.normal(0, n, range(rows), (d,)).double() for n in ("x0", "eps"))
    u, v = (torch.from_numpy(rng.uniform(0, n, range(rows))) for n in ("u", "v"))
    none = torch.zeros(0)
    made: dict[str, Any] = {"x0": x0, "eps": eps, "u": u, "v": v, "step": 0, "steps": 100}
    return Batch(none, none, none, None, None, **{**made, **changes})


def process_of(name: str, kind: str) -> Process:
    """A process as training gives it to a method: at all times for one in continuous time."""
    return PROCESSES[kind].continuous if registered()[name].tangent else PROCESSES[kind]


def own_of(name: str, process: Process = KARRAS) -> nn.Module | None:
    """A method's own module, before it has learnt anything."""
    return getattr(methods.load(name), "own", lambda _: None)(process)


def context_of(name: str, **changes: Any) -> Context:
    """A method's context with its file's hyperparameters."""
    made: dict[str, Any] = {"w": 1.0, "distance": methods.mse, "intervals": 8, "hparams": registered()[name].hparams}
    made["own"] = own_of(name)
    return Context(changes.pop("teacher", None), make_solver("heun"), **{**made, **changes})


# ----------------------------------------------------------------- what they share


EVERY = [(name, kind) for name, method in registered().items() for kind in method.processes]
# Long enough for both halves of what has halves, and for three stages of eight intervals.
STEPS = 12
W = 3.0


def of_training(name: str, teacher: object, average: object, **changes: Any) -> Context:
    """A context with a teacher and an EMA target where training would give them, and nowhere else."""
    given = {"teacher": teacher if registered()[name].teacher else None, **changes}
    return context_of(name, w=W, ema_target=average if hasattr(methods.load(name), "decay") else None, **given)


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_every_forward_is_of_all_rows_under_their_own_conditioning(name: str, kind: str) -> None:
    """Of student, average and teacher, in every step of a training: batch.x's points under batch.cond, images' under data_cond.

    Row i of images and noises is a multiple of the i-th unit vector, row i of the start points of the (rows + i)-th. All maps
    here keep directions, so a point says which row it was made from, and its conditioning holds the numbers of those rows.
    """
    process, rows, module = process_of(name, kind), 4, methods.load(name)
    unit, numbers, size = torch.eye(2 * rows).double(), torch.arange(2 * rows), torch.arange(1.0, rows + 1)[:, None]
    seen: dict[str, list[tuple[Tensor, Any]]] = {}

    class Network(Toy):
        def __init__(self, who: str, a: float) -> None:
            super().__init__(a, process)
            self.who = who

        def __call__(self, x: Tensor, t: Tensor, cond: object) -> Tensor:
            # With its derivative a forward counts as two.
            seen[self.who] += [(x.detach(), cond)] * (1 + (forward_ad.unpack_dual(x).tangent is not None))
            return super().__call__(x, t, cond)

    class Watched(Gaussian):
        def predict(self, x: Tensor, t: Tensor, cond: Conditioning | None, guidance: float = 1.0) -> Prediction:
            assert guidance == W
            seen["teacher"].append((x, cond))
            return super().predict(x, t, cond, guidance)

    grid = process.grid(8)
    k = torch.arange(rows)
    u, v = (torch.from_numpy(rng.uniform(0, n, range(rows))) for n in ("u", "v"))
    context = of_training(name, Watched(process, torch.zeros(2 * rows).double(), 0.5), Network("average", 0.6))
    # A step that says that it learns from no endpoints is given none.
    solved = getattr(module, "endpoints", lambda *_: bool(module.TARGETS))
    images, points = (Conditioning({"row": part}) for part in numbers.split(rows))
    for step in range(STEPS):
        seen = {"student": [], "average": [], "teacher": []}
        end = 5 * unit[rows:] if solved(step, STEPS, context) else None
        x0, eps = size * unit[:rows], unit[:rows]
        state = 6 * unit[rows:] if registered()[name].states else None
        batch = Batch(7 * unit[rows:], grid[k], grid[k + 1], points, end, x0, eps, images, u, v, step, STEPS, state)
        module.loss(Network("student", 0.5), batch, context)
        for who, x, cond in ((who, *each) for who, asked in seen.items() for each in asked):
            made_from = x.abs().argmax(1)
            assert cond is not None, f"{who}'s conditioning is dropped in step {step}"
            assert torch.equal(cond.tensors["row"], made_from), f"{who}'s is another point's in step {step}"
            assert made_from.tolist() in (list(range(rows)), list(range(rows, 2 * rows)))
        # And there are as many as planning and costs count.
        forwards = getattr(module, "student_forwards", lambda *_: module.FORWARDS)
        asked_steps = getattr(module, "teacher_steps", lambda *_: int(module.TEACHER))
        # Of k-step targets some are at the end, where f is known: none of these rows.
        assert len(seen["student"] + seen["average"]) == math.ceil(forwards(step, STEPS, context))
        assert len(seen["teacher"]) == context.solver.evaluations_per_step * asked_steps(step, STEPS, context)


class Twofold(Toy):
    """f(x, t) = a·x in the call of a number, b·x in all others."""

    def __init__(self, a: float, trained: int, process: Process) -> None:
        super().__init__(a, process)
        self.b, self.trained = torch.tensor(3.0, dtype=torch.float64, requires_grad=True), trained

    def __call__(self, x: Tensor, t: Tensor, cond: object) -> Tensor:
        self.asked.append((x.detach(), t))
        return (self.a if len(self.asked) == self.trained + 1 else self.b) * x


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_the_average_and_the_targets_get_no_gradient(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a loss's ends the later one alone moves it, in every step of a training.

    The student has one weight in its forward at the latest times and another elsewhere: the gradient of the first is the
    central difference of the loss with all else held, and there is none of the other, of the average's or of the teacher's.
    In continuous time both forwards are at the same times, the first is free, and what it is compared with is itself, held here.
    """
    process, loss = process_of(name, kind), methods.load(name).loss
    base = data_batch()
    grid = process.grid(8)
    x = process.diffuse(base.x0, base.eps, grid[2:6])
    for step in range(STEPS):
        average, teacher = Toy(1.5, process), Gaussian(process, torch.zeros(3).double().requires_grad_(), 0.5)
        context = of_training(name, teacher, average)
        batch = Batch(x, grid[2:6], grid[3:7], None, x / 3, base.x0, base.eps, None, base.u, base.v, step, STEPS)
        batch = dataclasses.replace(batch, x_next=x / 2 if registered()[name].states else None)
        first = Toy(2.0, process)
        loss(first, batch, context)
        trained = max(range(len(first.asked)), key=lambda i: float(first.asked[i][1].sum()))
        student = Twofold(2.0, trained, process)
        loss(student, batch, context).sum().backward()
        if registered()[name].tangent:
            base_of = 2.0 * student.asked[0][0]
            # pulled is cd_inf's or scd's, whichever the method is built on.
            for module in (cd_inf, scd):
                monkeypatch.setattr(module, "free", lambda f, held=base_of: f - held)
        up, down = (
            float(loss(Twofold(2.0 + h, trained, process), batch, context).detach().sum()) for h in (1e-5, -1e-5)
        )
        assert student.a.grad is not None and abs(float(student.a.grad)) > 0
        assert float(student.a.grad) == pytest.approx((up - down) / 2e-5, rel=1e-5)
        assert student.b.grad is None, f"of the student's own target, in step {step}"
        assert average.a.grad is None, f"of the average, in step {step}"
        assert teacher.mean.grad is None, f"of the teacher, in step {step}"


MEAN = torch.tensor([0.7, -0.3, 0.1], dtype=torch.float64)
# Of a hundred steps: one in either half of what has halves, and in each of three stages of eight intervals.
PARTS = (10, 50, 90)


def from_data(name: str, step: int) -> int:
    """Forwards of a step that asks no teacher and no endpoint; 0 where it does. Two are of points of one image and one noise."""
    process = process_of(name, registered()[name].processes[0])
    base = data_batch()
    x = process.diffuse(base.x0, base.eps, t := process.grid(4)[:4])
    batch = Batch(x, t, t, None, None, base.x0, base.eps, None, base.u, base.v, step, 100)
    student, average = Toy(2.0, process), Toy(3.0, process)
    try:
        methods.load(name).loss(student, batch, context_of(name, ema_target=average))
    except AssertionError:
        return 0
    return len(student.asked + average.asked)


@functools.cache
def start_points(kind: str, coupling: str, intervals: int, width: float) -> tuple[Any, ...]:
    """(x, index into the grid, x0, ε, u, endpoints from fine steps of a second-order solver) of one Gaussian of a width."""
    process = PROCESSES[kind]
    base = data_batch(64)
    x0 = MEAN + width * base.x0
    k = torch.zeros(64, dtype=torch.int64) if coupling == "prior" else (base.u * intervals).long()
    x = process.prior(base.eps) if coupling == "prior" else process.diffuse(x0, base.eps, process.grid(intervals)[k])
    end = None
    if coupling:
        end = solve(Gaussian(process, MEAN, width), make_solver("edm_heun"), x, k, intervals, None, 1.0, 64)[0].double()
    return x, k, x0, base.eps, base.u, end


def at_the_exact_map(name: str, kind: str, step: int, width: float, off: float = 0.0, generated: bool = False) -> float:
    """The mean loss with the exact flow map of one Gaussian of a width as the student, times 1 + off·t/T.

    `generated`: all images that a generator could make are its own, the exact map's; else none.
    CM and its like ask the teacher for one of a thousand steps. Progressive distillation has eight intervals: the teacher's
    steps are the flow's own there, and so are those of the student before; the student's one step is the flow over two of them.
    """
    declared, process = registered()[name], process_of(name, kind)
    intervals = 8 if declared.halves else 1000
    teacher, grid = Gaussian(process, MEAN, width), process.grid(intervals)

    class Flow:
        def step(self, teacher: Gaussian, x: Tensor, t: Tensor, s: Tensor, cond: object, w: float) -> Tensor:
            return teacher.flow(x, t, s)

    def onward(times: Tensor) -> Map:
        """What a student predicts whose one step from a time of these to the next is the flow's own."""

        def f(x: Tensor, t: Tensor, cond: object) -> Tensor:
            near = times[(times >= t[:, None]).sum(1)]
            return pd.aim(process, x, teacher.flow(x, t, near), t, near)

        return f

    def flow(x: Tensor, t: Tensor, cond: object) -> Tensor:
        return teacher.flow(x, t, torch.full_like(t, process.end))

    f, before = flow, flow
    solver: Any = make_solver("edm_heun")
    if declared.halves:
        left, solver = intervals >> pd.stage_of(step, 100, intervals), Flow()
        f, before = onward(process.grid(left // 2)), onward(process.grid(left))
    student = Given(lambda x, t, cond: f(x, t, cond) * (1 + off * t[:, None] / process.start), process)
    x, k, x0, eps, u, end = start_points(kind, declared.targets, intervals, width)
    v = torch.full_like(u, float(generated))
    state = teacher.flow(x, grid[k], grid[k + 1]) if declared.states else None
    batch = Batch(x, grid[k], grid[k + 1], None, end, x0, eps, None, u, v, step, 100, state)
    average, own = Given(before, process), own_of(name, process)
    context = Context(teacher, solver, 1.0, methods.mse, intervals, dict(declared.hparams), average, own=own)  # type: ignore[arg-type]
    return float(methods.load(name).loss(student, batch, context).detach().mean())


@pytest.mark.parametrize("step", PARTS)
@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_at_the_exact_map_the_loss_is_nothing(name: str, kind: str, step: int) -> None:
    """≤ 1e-6, of one Gaussian of width 0.5; of a single point in the steps that pair two points of one image and one noise.

    What those leave on a width, and on what a generator makes, is in the next test.
    """
    width = 0.0 if from_data(name, step) else 0.5
    good = at_the_exact_map(name, kind, step, width)
    assert 0 <= good <= 1e-6
    # Neighbours see little of a smooth map's error: a thousandth of it, squared, on a thousand intervals.
    assert at_the_exact_map(name, kind, step, width, off=1.0) > max(100 * good, 1e-7)


def all_signs(draws: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """(y, z, u): the four signs of an image's and a noise's deviation for each of u's draws, (4·draws, 3) and (4·draws,)."""
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=2))).double().repeat(draws, 1)
    y, z = (column[:, None].expand(-1, 3) for column in signs.T)
    return y, z, torch.from_numpy(rng.uniform(0, "u", range(draws))).repeat_interleave(4)


PAIRS = [
    (name, step)
    for name in registered()
    for step in PARTS
    if from_data(name, step) > 1 and not registered()[name].tangent
]


@pytest.mark.parametrize("width", [0.0, 0.5])
@pytest.mark.parametrize(("name", "step"), PAIRS)
def test_what_pairs_of_one_image_and_noise_leave_at_the_exact_map(name: str, step: int, width: float) -> None:
    """f(x_t, t) − f(x_r, r) of x₀ = m + s·y by hand, f(x, t) = m + (x − m)·d_ε/d_t, d_t = √(s² + t²); nothing at s = 0.

    Its mean square is d_ε²·2(1 − cos θ), θ between (s, t) and (s, r): on the four signs of y and z the means of y², z² and
    y·z are a normal's. Generated images are m + d_ε·n with n = (s·y + r·z)/d_r: points at ε in the place of points at 0.
    """
    process, module = KARRAS, methods.load(name)
    teacher = Gaussian(process, MEAN, width)
    y, z, u = all_signs()
    made: list[tuple[Tensor, Tensor]] = []

    def flow(x: Tensor, t: Tensor, cond: object) -> Tensor:
        return teacher.flow(x, t, torch.full_like(t, process.end))

    student, average = (Given(flow, process, made) for _ in range(2))
    for share in (0.0, 1.0):
        v = torch.full((64,), share, dtype=torch.float64)
        none = torch.zeros(0)
        batch = Batch(none, none, none, None, None, MEAN + width * y, z, None, u, v, step, 100)
        made.clear()
        losses = module.loss(student, batch, context_of(name, ema_target=average))
        # The pair's forwards are the last two; before them comes a generator's.
        (r, aim), (t, found) = made[-2:]
        generated = len(made) == 3 and share == 1.0
        d_t, d_r, d_end = (
            torch.sqrt(width**2 + time[:, None] ** 2) for time in (t, r, torch.full_like(t, process.end))
        )
        left, right = t[:, None], r[:, None]
        image = d_end * (width * y + right * z) / d_r if generated else width * y
        want = d_end * ((image + left * z) / d_t - (image + right * z) / d_r)
        torch.testing.assert_close(found - aim, want, rtol=1e-6, atol=1e-9)
        if width == 0 and not generated:
            assert float(want.abs().max()) < 1e-12
        squares = (want**2).mean(1).reshape(16, 4).mean(1)
        if not generated:
            cosine = (width**2 + left * right) / (d_t * d_r)
            predicted = (d_end**2 * 2 * (1 - cosine))[::4, 0]
            torch.testing.assert_close(squares, predicted, rtol=1e-6, atol=1e-13)
        if name in ("ct", "gc_ct"):
            torch.testing.assert_close(losses.reshape(16, 4).mean(1), squares, rtol=1e-6, atol=1e-13)


def test_on_a_fine_grid_that_is_the_trace_of_theory() -> None:
    """CT's loss nears tr(J Σ Jᵀ)·h², J = d_ε/d_t the map's slope, Σ = s²/d_t² the variance of z given x_t (docs/results.md)."""
    width = 0.5
    teacher = Gaussian(KARRAS, MEAN, width)
    made: list[tuple[Tensor, Tensor]] = []
    flow = Given(lambda x, t, cond: teacher.flow(x, t, torch.full_like(t, KARRAS.end)), KARRAS, made)
    y, z, u = all_signs()
    context = context_of("ct", hparams={"s0": 2, "s1": 10_000, "mu0": 0.9}, ema_target=flow)
    none = torch.zeros(0)
    batch = Batch(none, none, none, None, None, MEAN + width * y, z, None, u, None, 9999, 10_000)
    losses = ct.loss(flow, batch, context)
    (r, _), (t, _) = made
    predicted = (KARRAS.end**2 + width**2) * (width * (t - r) / (width**2 + t**2)) ** 2
    torch.testing.assert_close(losses.reshape(-1, 4).mean(1), predicted[::4], rtol=0.02, atol=0)


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


@pytest.mark.parametrize("name", [name for name in registered() if registered()[name].hparams])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(data=st.data())
def test_numbers_that_are_accepted_train(name: str, data: st.DataObject) -> None:
    """Two of a method's hyperparameters anywhere in their ranges: losses and gradients are finite from the first step to the last."""
    declared, module = registered()[name], methods.load(name)
    hparams = dict(declared.hparams)
    numbers = st.one_of(
        *(st.floats(*ends, exclude_min=True) for ends in ((0, 1), (-10, 10), (1, 1e4))), st.integers(0, 10_000)
    )
    for key in data.draw(st.lists(st.sampled_from(sorted(hparams)), min_size=1, max_size=2, unique=True)):
        hparams[key] = data.draw(
            numbers.filter(lambda value, key=key: declared.refused({**hparams, key: value}) is None)
        )
    process = process_of(name, declared.processes[-1])
    base, grid = data_batch(), process.grid(8)
    # As in training: times in double precision, images in single.
    x0, eps = base.x0.float(), base.eps.float()
    x = process.diffuse(x0, eps, grid[2:6])
    teacher = Gaussian(process, torch.zeros(3), 0.5)
    for step in (0, STEPS // 2 - 1, STEPS // 2, STEPS - 1):
        student, average = Toy(0.5, process), Toy(0.6, process)
        batch = Batch(x, grid[2:6], grid[3:7], None, x / 3, x0, eps, None, base.u, base.v, step, STEPS)
        context = of_training(name, teacher, average, hparams=hparams)
        losses = module.loss(student, batch, context)
        losses.sum().backward()
        assert bool(torch.isfinite(losses).all()) and bool((losses >= 0).all())
        assert student.a.grad is not None and math.isfinite(float(student.a.grad))
        assert not hasattr(module, "decay") or 0 <= module.decay(step, STEPS, context) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("coupling", targets.STARTS)
def test_start_points_keep_the_conditioning_that_they_were_solved_under(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, coupling: str
) -> None:
    """A trajectory's points are under its own image's caption, which is not that of the image in the same row."""
    targets.make(
        tiny.targets_settings.model_copy(update={"shard": 16}), Ode(solver="ddim", N=tiny.N, w=tiny.w), 0, tiny.teacher, tiny.latents,
        tiny.seed, "cpu", "no", tmp_path / "scratch", tmp_path / "targets", coupling,
    )  # fmt: skip
    shard = open_artifact(tmp_path / "targets", "targets")
    name = next(
        name for name, method in registered().items() if method.targets == coupling and "vp" in method.processes
    )
    module, batches = methods.load(name), []
    real = module.loss

    def loss(student: Any, batch: Batch, context: Context) -> Tensor:
        batches.append(batch)
        return real(student, batch, context)

    monkeypatch.setattr(module, "loss", loss)
    tiny.train(tmp_path / "student", name, targets=[shard])
    solved, pool = shard.tensors("targets.safetensors"), Latents(tiny.latents)
    everyone = torch.arange(tiny.images)
    others = 0
    for batch in batches:
        # Which rows of the pool a batch has is seen by their endpoints and times, which image by its pixels.
        same = (batch.endpoint[:, None] == solved["endpoint"]).flatten(2).all(2) & (batch.t[:, None] == solved["time"])
        assert bool((same.sum(1) == 1).all())
        ids = solved["id"][same.long().argmax(1)]
        images = (batch.x0[:, None] == pool.latents(everyone)).flatten(2).all(2).long().argmax(1)
        for cond, of in ((batch.cond, ids), (batch.data_cond, images)):
            want = pool.conditioning(of).tensors
            assert cond.tensors.keys() == want.keys()
            assert all(torch.equal(cond.tensors[key], want[key]) for key in want)
        others += sum(
            not torch.equal(a, b) for key in want for a, b in zip(batch.cond.tensors[key], want[key], strict=True)
        )
    assert bool(others) == (coupling == "trajectory")


# ----------------------------------------------------------------- consistency distillation


def test_cd_by_hand() -> None:
    """f = 2x, f⁻ = 3x, a solver that halves: δ = 2x − 1.5x."""

    class Half:
        def step(self, teacher: object, x: Tensor, *_: object) -> Tensor:
            return x / 2

    x = torch.tensor([[1.0, 3.0], [2.0, -2.0]], dtype=torch.float64)
    t = torch.tensor([20.0, 10.0])
    context = Context(object(), Half(), 1.0, methods.mse, 8, {"mu": 0.95}, Toy(3.0))  # type: ignore[arg-type]
    losses = cd.loss(Toy(2.0), Batch(x, t, t / 2, None, None), context)
    torch.testing.assert_close(losses.detach(), torch.tensor([1.25, 1.0], dtype=torch.float64))
    assert cd.decay(0, 100, context) == 0.95


# ----------------------------------------------------------------- consistency training


def test_cts_schedules_are_the_published() -> None:
    """N(k) runs from 2 to 151 times and μ(k) from 0.81 up: exp(2 ln 0.9/n) (Song et al., Appendix C)."""
    k = 800_000
    n = [ct.intervals(step, k, 2, 150) for step in (0, k // 4, k // 2, k)]
    assert n == [1, 75, 106, 150]
    context = context_of("ct")
    assert ct.decay(0, k, context) == pytest.approx(0.81)
    assert ct.decay(k, k, context) == pytest.approx(0.9 ** (2 / 150))
    grown = [ct.intervals(step, 300, 2, 150) for step in range(300)]
    assert grown == sorted(grown) and grown[-1] <= 150


def test_ct_by_hand() -> None:
    """On the first step's grid of two times, T and ε, the pair is x + T z and x + ε z."""
    batch = data_batch(3)
    student, average = Toy(2.0), Toy(3.0)
    losses = ct.loss(student, batch, context_of("ct", ema_target=average))
    assert torch.equal(student.asked[0][1], torch.full((3,), 80.0).double())
    assert torch.equal(average.asked[0][1], torch.full((3,), 0.002, dtype=torch.float64))
    delta = 2 * (batch.x0 + 80 * batch.eps) - 3 * (batch.x0 + 0.002 * batch.eps)
    torch.testing.assert_close(losses.detach(), (delta**2).mean(1))


def test_cts_pairs_are_neighbours_and_all_as_likely() -> None:
    batch = data_batch(4000, 1, step=99, u=(torch.arange(4000) + 0.5).double() / 4000)
    context = context_of("ct", hparams={"s0": 2, "s1": 20, "mu0": 0.9})
    t, r = ct.times(Toy(), batch, context)
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
    grid, hparams = KARRAS.grid(1280), registered()["ict"].hparams
    chance = ict.probabilities(grid, hparams["p_mean"], hparams["p_std"])
    assert float(chance.sum()) == pytest.approx(1) and bool((chance > 0).all())
    middle = int(torch.searchsorted(chance.cumsum(0), torch.tensor(0.5, dtype=torch.float64)))
    assert float(grid[middle]) == pytest.approx(math.exp(-1.1), rel=0.03)


def test_icts_pairs_have_the_mass_of_their_normal() -> None:
    """What lies above a time is what normal(−1.1, 2) has over its ln σ, of all that it has between ε and T (2310.14189, Section 3.5)."""
    grid = KARRAS.grid(10)
    of = [statistics.NormalDist(-1.1, 2.0).cdf(math.log(t)) for t in grid.tolist()]
    above = ict.probabilities(grid, -1.1, 2.0).cumsum(0)
    assert above.tolist() == pytest.approx([(of[0] - p) / (of[0] - of[-1]) for p in of[1:]], rel=1e-9)


def test_ict_by_hand() -> None:
    batch = data_batch(5, 12)
    student = Toy(2.0)
    losses = ict.loss(student, batch, context_of("ict"))
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
    hparams = {**registered()[name].hparams, "p": 1.0}
    batch = data_batch(6, step=40)
    want = base.loss(Toy(2.0), batch, context_of(name, hparams=hparams, ema_target=Toy(3.0)))
    got = gc.loss(Toy(2.0), batch, context_of(name, hparams=hparams, ema_target=Toy(3.0)))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("gc", [gc_ct, gc_ict])
def test_the_pair_is_of_what_the_generator_makes_with_the_same_noise(gc: Any) -> None:
    name = gc.__name__.rpartition(".")[2]
    batch = data_batch(6, step=40, v=torch.tensor([0.1, 0.9, 0.4, 0.6, 0.51, 0.49]).double())
    student, generator = Toy(2.0), Toy(3.0)
    gc.loss(student, batch, context_of(name, ema_target=generator))
    x_r, r = generator.asked[0]
    torch.testing.assert_close(x_r, batch.x0 + r[:, None] * batch.eps)
    x_t, t = student.asked[-1]
    made = torch.where(torch.tensor([True, False, True, False, False, True])[:, None], batch.x0, 3 * x_r)
    torch.testing.assert_close(x_t, made + t[:, None] * batch.eps)
    assert bool((t > r).all())


# ----------------------------------------------------------------- easy consistency tuning, mid-training


def test_ects_times() -> None:
    """ln t is normal(−1.1, 2) within the process; r is the end at first, then nears t (Geng et al. 2406.14548)."""
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
    losses = ect.loss(student, batch, context_of("ect"))
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
        return cmt.loss(student, batch, context_of("cmt")).detach(), student

    losses, _ = at(49)
    torch.testing.assert_close(losses, torch.full((4,), 169.0).double())
    _, student = at(50)
    (_, r), (_, t_own) = student.asked
    assert torch.equal(r, ect.earlier(KARRAS, t_own, 0, 2, 8))


@pytest.mark.parametrize(
    ("name", "share", "first", "rest"),
    [
        ("cmt", "mid", direct_cm_trajectory, ect),
        ("direct_then_cm", "direct", direct_cm, cm),
        ("cm_then_direct", "cm", cm, direct_cm),
        # τ at the end, or at pure noise: t = 5 is noisier, or not.
        ("cm_above", "tau", cm, direct_cm),
        ("direct_cm_above", "tau", direct_cm, cm),
    ],
)
def test_a_share_of_all_or_nothing_is_the_other_method(name: str, share: str, first: Any, rest: Any) -> None:
    base = data_batch(4)
    t = torch.full((4,), 5.0).double()
    teacher = Gaussian(KARRAS, torch.zeros(3).double(), 0.5)
    for value, part in ((1.0, first), (0.0, rest)):
        context = context_of(name, teacher=teacher, hparams={**registered()[name].hparams, share: value})
        for step in (0, 1, 2):
            batch = Batch(base.x0, t, t / 2, None, base.eps, base.x0, base.eps, None, base.u, base.v, step, 3)
            got, want = (module.loss(Toy(2.0), batch, context).detach() for module in (methods.load(name), part))
            assert torch.equal(got, want)


# ----------------------------------------------------------------- progressive distillation


def test_pd_halves_and_becomes_its_own_teacher() -> None:
    context = context_of("pd", intervals=8)
    stages = [pd.stage_of(step, 90, 8) for step in range(90)]
    assert [stages.count(s) for s in range(3)] == [30, 30, 30] and stages == sorted(stages)
    copies = [step for step in range(90) if pd.decay(step, 90, context) == 0]
    assert copies == [29, 59] and all(pd.decay(s, 90, context) in (0.0, 1.0) for s in range(90))
    assert [pd.teacher_steps(s, 90, context) for s in (0, 29, 30, 89)] == [2, 2, 0, 0]


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
    losses = pd.loss(student, batch, Context(object(), Spy(), 3.0, methods.mse, 8, {}, Toy(3.0)))  # type: ignore[arg-type]
    *_, t, middle, end = KARRAS.grid(8).tolist()
    assert steps == [(t, middle, 3.0), (middle, end, 3.0)]
    x = batch.x0 + t * batch.eps
    # Down to the end the target is where the two steps led: x/4; the weight max(1/t², 1), at t = 0.17.
    assert 1 / t**2 > 30
    want = 1 / t**2 * ((2 * x - x / 4) ** 2).mean(1)
    torch.testing.assert_close(losses.detach(), want)


def test_pds_later_stages_ask_the_student_before() -> None:
    batch = data_batch(2, step=99, u=torch.zeros(2).double())
    student, before = Toy(2.0), Toy(3.0)
    losses = pd.loss(student, batch, Context(object(), object(), 1.0, methods.mse, 8, {}, before))  # type: ignore[arg-type]
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
    context = context_of("direct_then_cm", teacher=teacher)
    for step, part in ((49, direct_cm), (50, cm)):
        batch = Batch(x, t, t / 2, None, end, step=step, steps=100)
        torch.testing.assert_close(
            direct_then_cm.loss(Toy(2.0), batch, context).detach(), part.loss(Toy(2.0), batch, context).detach()
        )
    assert [direct_then_cm.teacher_steps(step, 100, context) for step in (0, 49, 50, 99)] == [0, 0, 1, 1]


def test_cm_then_direct_is_one_and_then_the_other() -> None:
    x, end = torch.full((4, 3), 7.0).double(), torch.ones(4, 3).double()
    t = torch.full((4,), 5.0).double()
    context = context_of("cm_then_direct", teacher=Gaussian(KARRAS, torch.zeros(3).double(), 0.5))
    for step, part in ((49, cm), (50, direct_cm)):
        batch = Batch(x, t, t / 2, None, end, step=step, steps=100)
        got, want = (one.loss(Toy(2.0), batch, context).detach() for one in (cm_then_direct, part))
        assert torch.equal(got, want)
    costs = (cm_then_direct.teacher_steps, cm_then_direct.student_forwards, cm_then_direct.endpoints)
    assert [[cost(step, 100, context) for step in (0, 49, 50, 99)] for cost in costs] == [
        [1, 1, 0, 0], [2, 2, 1, 1], [False, False, True, True],
    ]  # fmt: skip


# ----------------------------------------------------------------- losses switched at τ


def test_above_tau_is_one_loss_and_below_the_other_row_by_row() -> None:
    """τ after two of eight intervals: the first three grid times are above it or on it."""
    process, base = PROCESSES["vp"], data_batch(6)
    grid = process.grid(8)
    x, end = process.diffuse(base.x0, base.eps, grid[:6]), 3 * base.x0
    batch = Batch(x, grid[:6], grid[1:7], None, end)
    teacher = Gaussian(process, torch.zeros(3).double(), 0.5)
    of_cm, of_direct = (
        module.loss(Toy(2.0, process), batch, context_of(name, teacher=teacher)).detach()
        for name, module in (("cm", cm), ("direct_cm", direct_cm))
    )
    above = torch.tensor([True, True, True, False, False, False])
    for name, upper, lower in (("cm_above", of_cm, of_direct), ("direct_cm_above", of_direct, of_cm)):
        context = context_of(name, teacher=teacher, hparams={"tau": 0.25})
        got = methods.load(name).loss(Toy(2.0, process), batch, context).detach()
        torch.testing.assert_close(got, torch.where(above, upper, lower))


# ----------------------------------------------------------------- k-step targets


def test_k_step_by_hand() -> None:
    """f(x, t) = 2x, but x at the end: rows whose target is inside are compared with twice the state, the last with the state."""
    process = PROCESSES["vp"]
    grid = process.grid(4)

    def f(x: Tensor, t: Tensor, cond: object) -> Tensor:
        return torch.where((t == process.end)[:, None], x, 2 * x)

    student = Given(f, process)
    x, state = torch.tensor([[1.0], [2.0], [3.0]]).double(), torch.tensor([[0.5], [7.0], [2.0]]).double()
    batch = Batch(x, grid[[0, 1, 3]], grid[[2, 3, 4]], None, None, x_next=state)
    losses = k_step.loss(student, batch, context_of("k_step", k=2, intervals=4))
    # (2·1 − 2·0.5)², (2·2 − 2·7)², (2·3 − 2)².
    assert losses.tolist() == [1.0, 100.0, 16.0]
    # The target at the end is not asked for; the trained forward is of all rows.
    assert [t.tolist() for t, _ in student.made] == [grid[[2, 3]].tolist(), grid[[0, 1, 3]].tolist()]
    assert k_step.student_forwards(0, 9, context_of("k_step", k=2, intervals=4)) == 1.5
    assert k_step.student_forwards(0, 9, context_of("k_step", k=4, intervals=4)) == 1.0


@pytest.mark.parametrize("kind", ["vp", "karras"])
def test_k_step_is_cm_with_one_step_and_direct_cm_with_all(kind: str) -> None:
    process, base = PROCESSES[kind], data_batch(8)
    grid, teacher = process.grid(8), Gaussian(PROCESSES[kind], MEAN, 0.5)
    k = torch.arange(8)
    x = process.diffuse(base.x0, base.eps, grid[k])
    states: dict[int, Tensor] = {1: x, 3: x, 8: x}
    ends, first, _ = solve(teacher, make_solver("heun"), x, k, 8, None, 1.0, 3, states=states)

    def student(x: Tensor, t: Tensor, cond: object) -> Tensor:
        c_skip, c_out = (expand(c, x) for c in process.boundary(t))
        return c_skip * x + c_out * torch.tanh(x)

    def loss(steps: int) -> Tensor:
        after = grid[(k + steps).clamp(max=8)]
        batch = Batch(x, grid[k], after, None, None, x_next=states[steps])
        return k_step.loss(Given(student, process), batch, context_of("k_step", k=steps))

    of_cm = cm.loss(Given(student, process), Batch(x, grid[k], grid[k + 1], None, None, x_next=first), context_of("cm"))
    of_direct = direct_cm.loss(
        Given(student, process), Batch(x, grid[k], grid[k + 1], None, ends), context_of("direct_cm")
    )
    torch.testing.assert_close(loss(1), of_cm)
    assert torch.equal(loss(8), of_direct) and torch.equal(states[8], ends) and torch.equal(states[1], first)
    assert not torch.allclose(loss(3), of_cm) and not torch.allclose(loss(3), of_direct)
