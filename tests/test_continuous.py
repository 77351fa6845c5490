"""Continuous time: derivatives along the ODE, and CD∞, CT∞, sCD and sCT by their papers' formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from directcm.cli import plan
from directcm.config import Config, parse
from directcm.config.registry import methods as registered
from directcm.diffusion.processes import Process, VarianceExploding, VariancePreserving, expand
from directcm.diffusion.teachers import Conditioning, Gaussian, load
from directcm.distill import methods, students
from directcm.distill.encode import Latents
from directcm.distill.methods import Batch, cd, cd_inf, ct, ct_inf, scd, sct
from directcm.distill.tangents import curvature, derivative, free, slope
from directcm.errors import UserError
from directcm.runtime import compiled, rng
from tests.test_methods_sources import KARRAS, MEAN, Given, all_signs, context_of, data_batch

VP = VariancePreserving.scaled_linear().continuous
PROCESSES: dict[str, Process] = {"karras": KARRAS, "vp": VP}
CONTINUOUS = [name for name, method in registered().items() if method.tangent]


def network(d: int = 3, seed: int = 0) -> tuple[Callable[[Tensor, Tensor], Tensor], list[Tensor]]:
    """A small F(x, c) in float64 that depends on its time input c smoothly, and its weights."""
    shapes = ((d + 2, 16), (16,), (16, d))
    weights = [0.5 * rng.normal(seed, "weights", [i], shape)[0].double() for i, shape in enumerate(shapes)]
    for w in weights:
        w.requires_grad_()

    def f(x: Tensor, c: Tensor) -> Tensor:
        waves = torch.stack([(c / 100).sin(), (c / 300).cos()], 1)
        return torch.tanh(torch.cat([x, waves], 1) @ weights[0] + weights[1]) @ weights[2]

    return f, weights


def student_of(process: Process, seed: int = 0) -> tuple[Given, list[Tensor]]:
    """A student in float64 under its process's own parameterisation and time input, and its weights."""
    inner, weights = network(seed=seed)

    def f(x: Tensor, t: Tensor, cond: object) -> Tensor:
        a, b = process.student(t)
        out = inner(expand(process.input_scale(t), x) * x, process.network_time(t))
        p, q = process.output_scales(t)
        x0 = process.clean(x, expand(p, x) * x + expand(q, x) * out, t)
        return expand(a, x) * x + expand(b, x) * x0

    return Given(f, process), weights


class Guided(Gaussian):
    """A teacher whose guidance does something: w adds a constant to its noise."""

    def noise(self, x: Tensor, t: Tensor, cond: Conditioning | None) -> Tensor:
        return super().noise(x, t, cond) + (0.1 if cond is None else 0.3)

    def predict(self, x: Tensor, t: Tensor, cond: Any, guidance: float = 1.0, told: Tensor | None = None) -> Any:
        from directcm.diffusion.teachers import Prediction

        without, with_ = self.noise(x, t, None), self.noise(x, t, Conditioning({}))
        eps = without + guidance * (with_ - without)
        return Prediction(self.process.clean(x, eps, t), eps)


# ----------------------------------------------------------------- the process between its times


def test_between_whole_times_beta_is_constant() -> None:
    """The table at whole times; ᾱ(k + s) = ᾱ_k (1 − β_k)^s between; α² + σ² = 1."""
    table = VariancePreserving.scaled_linear()
    whole = torch.arange(0.0, 1001.0, dtype=torch.float64)
    torch.testing.assert_close(VP.alpha(whole), table.alpha(whole), rtol=1e-13, atol=0)
    torch.testing.assert_close(VP.sigma(whole), table.sigma(whole), rtol=1e-12, atol=0)
    for k, s in ((0, 0.5), (1, 0.25), (499, 0.9), (999, 0.5)):
        t = torch.tensor([k + s], dtype=torch.float64)
        bar = float(table.alpha(torch.tensor([float(k)]))[0]) ** 2 * (1 - float(table.betas[k])) ** s
        assert float(VP.alpha(t)) ** 2 == pytest.approx(bar, rel=1e-12)
        assert float(VP.alpha(t)) ** 2 + float(VP.sigma(t)) ** 2 == pytest.approx(1, rel=1e-14)
    assert KARRAS.continuous is KARRAS and VP.continuous.grid(10).tolist() == table.grid(10).tolist()


@pytest.mark.parametrize("t", [-0.1, 1000.1])
def test_times_beyond_the_ends_are_refused(t: float) -> None:
    with pytest.raises(ValueError, match="VP times are from 0 to 1000"):
        VP.alpha(torch.tensor([t]))


def test_times_after_a_share_are_those_of_grids() -> None:
    """τ(i/N) is the grid's i-th time; on VP the end is 1, above 0, where no slope is defined."""
    torch.testing.assert_close(KARRAS.time(torch.arange(41) / 40), KARRAS.grid(40), rtol=1e-6, atol=0)
    share = torch.arange(8, dtype=torch.float64) / 7
    torch.testing.assert_close(KARRAS.time(share), KARRAS.grid(7))
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert KARRAS.time(ends).tolist() == pytest.approx([80.0, 0.002], rel=1e-14) and VP.time(ends).tolist() == [
        1000.0,
        1.0,
    ]
    assert VP.time(torch.tensor([0.5])).tolist() == [500.5]


@pytest.mark.parametrize("kind", PROCESSES)
def test_the_slope_is_the_odes(kind: str) -> None:
    """Against central differences of the exact flow, and on VP against −½b x + ½b ε̂/σ, b = −ln(1 − β); z on Karras's process."""
    process = PROCESSES[kind]
    base = data_batch(6)
    t = process.time(base.u)
    x = process.diffuse(base.x0, base.eps, t)
    teacher = Gaussian(process, MEAN, 0.5)
    there = teacher.predict(x, t, None, 1.0)
    eps = teacher.noise(x, t, None)
    x0 = process.clean(x, eps, t)
    h = 1e-5 * t
    ends = [teacher.flow(x, t, t + sign * h) for sign in (1, -1)]
    found = slope(process, x0, eps, t)
    torch.testing.assert_close(found, (ends[0] - ends[1]) / (2 * h[:, None]), rtol=1e-6, atol=1e-8)
    assert there.x0.shape == x.shape
    if kind == "vp":
        b = -torch.log1p(-process.betas[t.floor().long()])[:, None]
        torch.testing.assert_close(found, -0.5 * b * x + 0.5 * b * eps / process.sigma(t)[:, None])
    else:
        torch.testing.assert_close(slope(process, base.x0, base.eps, t), base.eps)


# ----------------------------------------------------------------- derivatives of a student


@pytest.mark.parametrize("kind", PROCESSES)
def test_the_derivative_is_that_of_central_differences(kind: str) -> None:
    """In float64, through the process's own time input: a rate per unit of the process's time, not of the network's."""
    process = PROCESSES[kind]
    student, _ = student_of(process)
    base = data_batch(16)
    t = process.time(base.u)
    x, dx = process.diffuse(base.x0, base.eps, t), base.x0 * base.eps + 0.3
    f, value, rate = derivative(student, x, t, None, dx)

    def central(h: Tensor) -> Tensor:
        up, down = (student(x + sign * h[:, None] * dx, t + sign * h, None) for sign in (1, -1))
        return ((up - down) / (2 * h[:, None])).detach()

    # Richardson's combination: what a step of h leaves is a quarter at half of it.
    h = 1e-5 * t
    torch.testing.assert_close(rate, (4 * central(h / 2) - central(h)) / 3, rtol=1e-6, atol=1e-7)
    assert torch.equal(f, value) and f.requires_grad and not value.requires_grad and not rate.requires_grad
    assert torch.equal(f, student(x, t, None))


def test_along_the_exact_flow_nothing_changes() -> None:
    for process in PROCESSES.values():
        teacher = Gaussian(process, MEAN, 0.5)
        end = torch.full((8,), process.end, dtype=torch.float64)
        student = Given(lambda x, t, cond, teacher=teacher, end=end: teacher.flow(x, t, end), process)
        base = data_batch(8)
        t = process.time(base.u)
        x = process.diffuse(base.x0, base.eps, t)
        eps = teacher.noise(x, t, None)
        along = derivative(student, x, t, None, slope(process, process.clean(x, eps, t), eps, t))
        other = derivative(student, x, t, None, 1.01 * slope(process, process.clean(x, eps, t), eps, t))
        assert float(along.rate.abs().max()) < 1e-13 < 1e-6 < float(other.rate.abs().max())


@pytest.mark.parametrize("kind", PROCESSES)
def test_over_a_gap_it_is_the_rates_mean(kind: str) -> None:
    """Between the ends of the gap on the tangent, by Simpson's rule; at the process's ends the gap has one side. A small one is none."""
    process = PROCESSES[kind]
    student, _ = student_of(process)
    t = process.time(torch.tensor([0.0, 0.2, 0.5, 0.8, 0.9999], dtype=torch.float64))
    base = data_batch(5)
    x, dx = process.diffuse(base.x0, base.eps, t), base.x0 / t[:, None]
    f, value, rate = derivative(student, x, t, None, dx, 0.05)
    late, early = (1.05 * t).clamp(max=process.start), (0.95 * t).clamp(min=1.0 if kind == "vp" else process.end)
    n = 400
    parts = []
    for i in range(n + 1):
        s = early + (late - early) * i / n
        weight = (1 if i in (0, n) else 4 if i % 2 else 2) / (3 * n)
        parts.append(weight * derivative(student, x + (s - t)[:, None] * dx, s, None, dx).rate)
    # On VP ḟ jumps at whole times, where β does.
    torch.testing.assert_close(rate, torch.stack(parts).sum(0), rtol=1e-3 if kind == "vp" else 1e-7, atol=1e-6)
    assert torch.equal(value, f.detach()) and not rate.requires_grad
    assert torch.equal(derivative(student, x, t, None, dx, 9e-4).rate, derivative(student, x, t, None, dx).rate)


def unet_points(tiny: Any, rows: int = 3) -> tuple[Tensor, Tensor, Conditioning, Tensor]:
    """(x, t, conditioning, slope) for the tiny latent teacher, at times between the table's."""
    x, dx = rng.normal(0, "x", range(rows), (4, 8, 8)), rng.normal(0, "dx", range(rows), (4, 8, 8)) / 500
    return x, torch.tensor([900.5, 400.25, 20.75], dtype=torch.float64), Latents(tiny.latents).conditioning(torch.arange(rows)), dx  # fmt: skip


def unet_student(tiny: Any, adapter: str, dtype: torch.dtype = torch.float32) -> students.Student:
    teacher = load(tiny.teacher)
    teacher.process = teacher.process.continuous
    teacher.network.to(dtype)
    student = students.make_student(teacher, adapter, 0)
    with torch.no_grad():
        for i, (name, p) in enumerate(student.teacher.network.named_parameters()):
            if p.requires_grad and (adapter == "full" or "lora_B" in name):
                p.add_(0.05 * rng.normal(1, "shake", [i], tuple(p.shape))[0].to(p.dtype))
    return student


def twice_backward(student: Any, x: Tensor, t: Tensor, cond: Any, dx: Tensor) -> Tensor:
    """The same derivative without forward mode: torch's, by differentiating backward twice."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        return torch.autograd.functional.jvp(lambda x, t: student(x, t, cond), (x, t), (dx, torch.ones_like(t)))[1]


@pytest.mark.parametrize("adapter", ["lora4", "full"])
@pytest.mark.parametrize("again", [False, True])
def test_through_a_unet_it_is_what_differentiating_backward_twice_gives(tiny: Any, adapter: str, again: bool) -> None:
    """With attention, a merged LoRA, and activations that the backward pass computes again."""
    student = unet_student(tiny, adapter)
    student.teacher.network.train()
    x, t, cond, dx = unet_points(tiny)
    want = twice_backward(student, x, t, cond, dx)
    if again:
        student.teacher.network.enable_gradient_checkpointing()
    f, value, rate = derivative(student, x, t, cond, dx)
    torch.testing.assert_close(rate, want, rtol=1e-4, atol=1e-5 * float(want.abs().max()))
    torch.testing.assert_close(value, f.detach(), rtol=1e-5, atol=1e-5)
    (f * rate).sum().backward()
    for name, p in student.teacher.network.named_parameters():
        # SDXL does not use every layer's bias of a key; a weight that is used has a gradient.
        assert not p.requires_grad or p.grad is not None, name


def test_attention_has_no_forward_mode_but_by_the_plain_kernel(tiny: Any) -> None:
    """Why `derivative` asks for it: on a CPU torch refuses any other. Where it no longer does, this says so."""
    student = unet_student(tiny, "full")
    x, t, cond, dx = unet_points(tiny)
    with torch.no_grad(), forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward AD"):
        student(forward_ad.make_dual(x, dx), t, cond)


def test_compiled_blocks_run_as_written(tiny: Any) -> None:
    """With blocks compiled, the derivative is the same, and their graphs are not asked for it."""
    from torch._dynamo.utils import counters

    x, t, cond, dx = unet_points(tiny)
    want = derivative(unet_student(tiny, "lora4"), x, t, cond, dx).rate
    torch._dynamo.reset()
    counters.clear()
    compiled.enable("on", "cpu", backend="eager")
    try:
        student = unet_student(tiny, "lora4")
        f, _, rate = derivative(student, x, t, cond, dx)
        f.sum().backward()
        graphs = counters["stats"]["unique_graphs"]
        with torch.no_grad():
            student(x, t, cond)
        assert graphs and counters["stats"]["unique_graphs"] > graphs, "without gradient there was none yet"
        assert not counters["graph_break"]
    finally:
        compiled.enable("off", "cpu")
        torch._dynamo.reset()
    torch.testing.assert_close(rate, want)


@pytest.mark.parametrize("adapter", ["lora4", "full"])
def test_under_autocast_the_rate_keeps_the_weights_precision(tiny: Any, adapter: str) -> None:
    """Its forward is in half precision; the rate is in float32, and every weight still gets its gradient."""
    student = unet_student(tiny, adapter)
    x, t, cond, dx = unet_points(tiny)
    want = derivative(student, x, t, cond, dx)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        f, _, rate = derivative(student, x, t, cond, dx)
        (free(f) * rate).sum().backward()
    assert torch.equal(rate, want.rate) and not torch.equal(f, want.f)
    for name, p in student.teacher.network.named_parameters():
        assert not p.requires_grad or p.grad is not None, name


def test_in_half_precision_no_rate_overflows() -> None:
    """A time input of 250·ln t has the derivative 125,000 at t = 0.002, beyond half precision's 65,504; by ln t it is 250."""
    student, _ = student_of(KARRAS)
    told: list[float] = []

    def f(x: Tensor, t: Tensor, cond: object) -> Tensor:
        c = KARRAS.network_time(t)
        tangent = forward_ad.unpack_dual(c).tangent
        if tangent is not None:
            told.append(float(tangent.abs().max()))
        return student(x, t, cond)

    x, t = torch.ones(2, 3).double(), torch.tensor([0.002, 80.0], dtype=torch.float64)
    derivative(Given(f, KARRAS), x, t, None, x)
    assert told == [pytest.approx(250)]


def test_both_forwards_drop_the_same() -> None:
    torch.manual_seed(0)
    drop = nn.Dropout(0.5)
    student = Given(lambda x, t, cond: drop(x), KARRAS)
    x, t = 1 + rng.normal(0, "x", range(8), (16,)).abs(), torch.full((8,), 2.0, dtype=torch.float64)
    for gap in (0.0, 0.25):
        f, value, rate = derivative(student, x, t, None, torch.ones_like(x), gap)
        assert torch.equal(f, value) and 0 < int((f == 0).sum()) < f.numel()
        torch.testing.assert_close(rate, 2 * (f != 0).float())
    assert not torch.equal(derivative(student, x, t, None, torch.ones_like(x)).f, f)


def test_curvature_is_the_distances_hessian() -> None:
    """2/D for the mean square, 1/(c·D) for pseudo-Huber's, and for one with a metric of its own that metric's."""
    at, v = rng.normal(0, "at", range(4), (5,)).double(), rng.normal(0, "v", range(4), (5,)).double()
    torch.testing.assert_close(curvature(methods.mse, at, v), 2 * v / 5)
    torch.testing.assert_close(curvature(methods.pseudo_huber(1e-3), at, v), v / (5 * 1e-3))
    root = rng.normal(0, "root", range(5), (5,)).double()
    torch.testing.assert_close(
        curvature(lambda a, b: ((torch.sin(a) - torch.sin(b)) @ root).square().sum(1), at, v),
        2 * at.cos() * ((at.cos() * v) @ root @ root.T),
    )


# ----------------------------------------------------------------- CD∞ and CT∞


def gradient(losses: Tensor, weights: list[Tensor]) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(losses.mean(), weights, retain_graph=True)])


@pytest.mark.parametrize("kind", PROCESSES)
@pytest.mark.parametrize("name", ["cd_inf", "ct_inf"])
def test_the_gradient_is_the_papers(name: str, kind: str) -> None:
    """∇ f_θᵀ H sg(∂f/∂t + ∂f/∂x·dx/dt), H = 2/D (2303.01469, Appendix B): Jacobians written out, the slope by the process's formula."""
    process = PROCESSES[kind]
    student, weights = student_of(process)
    batch = data_batch(6)
    teacher = Guided(process, MEAN, 0.5)
    context = context_of(name, teacher=teacher, w=3.0)
    losses = methods.load(name).loss(student, batch, context)
    t = process.time(batch.u)
    x = process.diffuse(batch.x0, batch.eps, t)
    eps = teacher.predict(x, t, None, 3.0).eps if name == "cd_inf" else batch.eps
    x0 = process.clean(x, eps, t)
    if kind == "karras":
        dx = (x - x0) / t[:, None]
    else:
        # α′ = −½bα and σ′ = ½bα²/σ, b = −ln(1 − β).
        b, alpha, sigma = -torch.log1p(-process.betas[t.floor().long()]), process.alpha(t), process.sigma(t)
        dx = (-0.5 * b * alpha)[:, None] * x0 + (0.5 * b * alpha**2 / sigma)[:, None] * eps
    by_x, by_t = torch.autograd.functional.jacobian(lambda x, t: student(x, t, None).sum(0), (x, t))
    rate = by_t.T + torch.einsum("ibj,bj->bi", by_x, dx)
    pseudo = (student(x, t, None) * 2 / 3 * rate.detach()).sum(1)
    torch.testing.assert_close(gradient(losses, weights), gradient(pseudo, weights), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(losses.detach(), (rate**2).mean(1))


def test_it_is_cds_limit() -> None:
    """CD between neighbours a gap apart, by one step of the exact flow: its gradient over the gap nears CD∞'s, and so does its value over the gap squared."""
    student, weights = student_of(KARRAS)
    teacher, batch = Gaussian(KARRAS, MEAN, 0.5), data_batch(6)
    losses = cd_inf.loss(student, batch, context_of("cd_inf", teacher=teacher))
    want, value = gradient(losses, weights), losses.detach()
    t = KARRAS.time(batch.u)
    x = KARRAS.diffuse(batch.x0, batch.eps, t)
    errors = []
    for gap in (1e-2, 1e-3):
        s = t * (1 - gap)
        near = teacher.flow(x, t, s)
        pair = Batch(x, t, s, None, None, x_next=near)
        of_cd = cd.loss(student, pair, context_of("cd", ema_target=student))
        over = gradient(of_cd / (t - s), weights)
        errors.append(float((over - want).norm() / want.norm()))
        torch.testing.assert_close((of_cd / (t - s) ** 2).detach(), value, rtol=20 * gap, atol=1e-9)
    assert errors[1] < 0.01 and errors[0] / errors[1] == pytest.approx(10, rel=0.3)


def test_ct_inf_is_cts_limit() -> None:
    """The same for CT's pairs of one image and one noise."""
    student, weights = student_of(KARRAS)
    batch = data_batch(6)
    losses = ct_inf.loss(student, batch, context_of("ct_inf"))
    want = gradient(losses, weights)
    t = KARRAS.time(batch.u)
    r = t * (1 - 1e-4)
    pair = methods.training_pair(student, student, batch.x0, batch.eps, t, r, None)
    over = gradient(methods.mse(*pair) / (t - r), weights)
    assert float((over - want).norm() / want.norm()) < 1e-3
    assert ct.FORWARDS == 2 < ct_inf.FORWARDS == 3


@pytest.mark.parametrize(("of_data", "of_teacher"), [("ct_inf", "cd_inf"), ("sct", "scd")])
def test_on_average_data_teach_what_the_exact_teacher_does(of_data: str, of_teacher: str) -> None:
    """Gradients of CT∞ over many images that a point may have come from are CD∞'s under the exact teacher (2303.01469, Theorem 6).

    Given x_t = x₀ + t z of x₀ ~ N(m, s²), z is normal of mean t(x − m)/(s² + t²) and variance s²/(s² + t²): two draws, a standard
    deviation on either side, have its mean. sCT's tangents are normalised one by one, and agree before that: with c beyond all norms.
    """
    student, weights = student_of(KARRAS)
    y, z, u = all_signs(4)
    s = 0.5
    t = KARRAS.time(u)
    batch = data_batch(16, x0=MEAN + s * y, eps=z, u=u, step=50)
    hparams = {"c": 1e3} if of_data == "sct" else {}
    made = {
        name: context_of(name, hparams={**registered()[name].hparams, **hparams}, teacher=Gaussian(KARRAS, MEAN, s))
        for name in (of_data, of_teacher)
    }
    if of_data == "sct":
        t, _ = (scd.points(student, batch, made["sct"])[i] for i in (1, 0))
    x = KARRAS.diffuse(batch.x0, batch.eps, t)
    variance = s**2 + t[:, None] ** 2
    mean, spread = t[:, None] * (x - MEAN) / variance, s / variance.sqrt()
    rows = []
    for sign in (1.0, -1.0):
        eps = mean + sign * spread
        one = data_batch(16, x0=x - t[:, None] * eps, eps=eps, u=u, step=50)
        rows.append(gradient(methods.load(of_data).loss(student, one, made[of_data]), weights))
    want = gradient(methods.load(of_teacher).loss(student, batch, made[of_teacher]), weights)
    both = (rows[0] + rows[1]) / 2
    # A teacher's noise is in float32.
    bound = 1e-6 if of_data == "ct_inf" else 5e-3
    assert float((both - want).norm()) < bound * float(want.norm()) < 0.1 * float((rows[0] - want).norm())


@pytest.mark.parametrize("name", ["ct_inf", "sct"])
def test_what_vanishes_at_the_exact_map_is_the_mean_rate(name: str) -> None:
    """On a width CT∞'s loss is J²·Var(z | x_t), J = d_ε/d_t, d_t = √(s² + t²), while ḟ is 0 on average; on a point both are 0."""
    s = 0.5
    teacher = Gaussian(KARRAS, MEAN, s)
    end = torch.full((16,), KARRAS.end, dtype=torch.float64)
    student = Given(lambda x, t, cond: teacher.flow(x, t, end), KARRAS)
    t = KARRAS.time(torch.from_numpy(rng.uniform(0, "u", range(16))))
    x = MEAN + rng.normal(0, "x", range(16), (3,)).double() * (s**2 + t[:, None] ** 2).sqrt()
    variance = s**2 + t[:, None] ** 2
    rates, losses = [], []
    for sign in (1.0, -1.0):
        eps = t[:, None] * (x - MEAN) / variance + sign * s / variance.sqrt()
        rates.append(derivative(student, x, t, None, slope(KARRAS, x - t[:, None] * eps, eps, t)).rate)
        losses.append(methods.mse(rates[-1], torch.zeros_like(x)))
    slopes = ((s**2 + KARRAS.end**2) / variance).sqrt()
    torch.testing.assert_close(losses[0], (slopes * s / variance.sqrt()).square()[:, 0], rtol=1e-8, atol=0)
    assert float((rates[0] + rates[1]).abs().max()) < 1e-12 * float(rates[0].abs().max()) + 1e-13
    context = context_of(name)
    base = data_batch(16, step=50)
    found = methods.load(name).loss(student, data_batch(16, x0=MEAN + s * base.x0, step=50), context).detach()
    point = Given(lambda x, t, cond: Gaussian(KARRAS, MEAN, 0.0).flow(x, t, end), KARRAS)
    alone = methods.load(name).loss(point, data_batch(16, x0=MEAN.expand(16, 3), step=50), context).detach()
    assert float(found.mean()) > 1e-3 and float(alone.abs().max()) < 1e-12


# ----------------------------------------------------------------- sCD and sCT


def lu_song(
    inner: Callable[[Tensor, Tensor], Tensor], x: Tensor, theta: Tensor, dx: Tensor, r: float, c: float, sigma: float
) -> tuple[Tensor, Tensor]:
    """(F, normalised g) of 2410.11081, Algorithm 1, as printed, in TrigFlow's variables: F(x̃/σ_d, θ) is `inner`."""
    cos, sin = theta.cos()[:, None], theta.sin()[:, None]
    _, rate = torch.autograd.functional.jvp(
        inner, (x / sigma, theta), (cos * sin * dx / sigma, theta.cos() * theta.sin())
    )
    F = inner(x / sigma, theta)
    g = -(cos**2) * (sigma * F.detach() - dx) - r * (cos * sin * x + sigma * rate)
    return F, g / (g.norm(dim=1, keepdim=True) + c)


@pytest.mark.parametrize("step", [0, 1, 2, 50])
@pytest.mark.parametrize("name", ["scd", "sct"])
def test_it_is_lu_and_songs_algorithm(name: str, step: int) -> None:
    """Loss and gradients, of the network and of w, by the paper's formulas in its own variables: before, in and after the warm-up."""
    process, sigma = VarianceExploding(sigma_data=0.7), 0.7
    student, weights = student_of(process)
    teacher = Guided(process, MEAN, 0.5)
    batch = data_batch(6, step=step)
    context = context_of(name, teacher=teacher, w=3.0, hparams={**registered()[name].hparams, "warm_up": 0.04})
    own: Any = context.own
    with torch.no_grad():
        own.linear.weight.copy_(rng.normal(0, "w", [0], (1, 32))[0])
    losses = methods.load(name).loss(student, batch, context)

    x, t = scd.points(student, batch, context)
    theta = torch.atan(t / sigma)
    cos, sin = theta.cos()[:, None], theta.sin()[:, None]
    # x̃ = cos θ x₀ + sin θ z̃ with z̃ of standard deviation σ_d.
    moved = cos * batch.x0 + sin * sigma * batch.eps
    torch.testing.assert_close(moved, x * cos)
    eps = teacher.predict(x, t, None, 3.0).eps if name == "scd" else batch.eps
    dx = cos * sigma * eps - sin * process.clean(x, eps, t)

    def inner(scaled: Tensor, theta: Tensor) -> Tensor:
        """F of f = cos θ x̃ − sin θ σ_d F, for the student's f."""
        cos, sin = theta.cos()[:, None], theta.sin()[:, None]
        x = sigma * scaled
        return (cos * x - student(x / cos, sigma * theta.tan(), None)) / (sin * sigma)

    F, g = lu_song(inner, moved, theta, dx, min(1.0, step / 4), 0.1, sigma)
    w = own(t)
    want = w.exp() / 3 * (F - F.detach() - g).square().sum(1) - w
    torch.testing.assert_close(losses, want.to(losses), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(gradient(losses, weights), gradient(want, weights), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(
        gradient(losses, [own.linear.weight]), gradient(want, [own.linear.weight]), rtol=1e-5, atol=1e-7
    )


def test_the_student_is_trigflows_but_for_the_end() -> None:
    """With ε → 0 Song's f = c_skip·x + c_out·F is cos θ x̃ − sin θ σ_d F̃ with F̃ = −F: one network, two names for its output."""
    process = VarianceExploding(end=1e-12, sigma_data=0.5)
    t, x, F = torch.tensor([0.01, 0.5, 40.0]).double(), torch.ones(3, 2).double(), torch.full((3, 2), 0.3).double()
    skip, out = process.boundary(t)
    theta = torch.atan(t / 0.5)[:, None]
    trig = theta.cos() * (theta.cos() * x) - theta.sin() * 0.5 * -F
    torch.testing.assert_close(skip[:, None] * x + out[:, None] * F, trig, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["cd_inf", "scd"])
def test_a_step_against_the_gradient_makes_the_student_more_consistent(name: str) -> None:
    """Which a tangent of the wrong sign does not: of f = x·(1 + a·t) no a but 0 is constant along the lines of a point at 0."""
    a = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    process = KARRAS

    def f(x: Tensor, t: Tensor, cond: object) -> Tensor:
        # The exact map of a point at 0 and an error that grows with t.
        return x * (process.end / t[:, None] + a * (t[:, None] - process.end) / 80)

    teacher = Gaussian(process, torch.zeros(3).double(), 0.0)
    batch = data_batch(16, step=50, x0=torch.zeros(16, 3).double())
    losses = methods.load(name).loss(Given(f, process), batch, context_of(name, teacher=teacher))
    losses.mean().backward()
    assert a.grad is not None and float(a.grad) > 0


def test_scds_times_and_warm_up() -> None:
    """ln t is normal(−1, 1.4), tan θ = t/σ_d (Lu & Song, CIFAR-10); r is 1 after 10,000 of 400,000 steps, g's norm below 1."""
    u = (torch.arange(2000) + 0.5).double() / 2000
    batch = data_batch(2000, 1, u=u)
    for name in ("scd", "sct"):
        _, t = scd.points(Given(lambda x, t, cond: x, KARRAS), batch, context_of(name))
        assert float(t.median()) == pytest.approx(math.exp(-1.0), rel=0.01)
        assert float(t.log().quantile(0.8413)) == pytest.approx(0.4, abs=0.02)
        assert float(t.min()) > 0.002 and float(t.max()) <= 80
    share = registered()["scd"].hparams["warm_up"]
    assert [scd.ramp(step, 400_000, share) for step in (0, 5_000, 10_000, 399_999)] == [0, 0.5, 1, 1]
    assert scd.ramp(0, 10, 0.0) == 1.0 and scd.ramp(3, 10, 1.0) == 0.3
    assert sct.own is scd.own


def test_the_weight_is_learnt_by_time() -> None:
    """Of losses that differ with t it makes e^w the reciprocal: then e^w·L is 1 at all of them (2410.11081, Equation 8)."""
    own = scd.Weight(KARRAS)
    t = KARRAS.time(torch.linspace(0, 0.999, 64))
    assert own(t).tolist() == [0.0] * 64
    losses = (0.1 + t / (1 + t)).float()
    optimizer = torch.optim.Adam(own.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        w = own(t)
        (w.exp() * losses - w).mean().backward()
        optimizer.step()
    torch.testing.assert_close(own(t).exp() * losses, torch.ones(64), rtol=0.05, atol=0)


# ----------------------------------------------------------------- in training


@pytest.mark.parametrize("name", CONTINUOUS)
def test_parts_of_a_batch_have_the_gradient_of_the_whole(name: str) -> None:
    """No row knows of another: so processes and parts average to the batch's gradient, w's too, whatever wraps the network."""
    student, weights = student_of(KARRAS)
    context = context_of(name, teacher=Guided(KARRAS, MEAN, 0.5), w=3.0)
    if context.own is not None:
        weights = [*weights, *context.own.parameters()]
    whole, loss = data_batch(8, step=50), methods.load(name).loss

    def rows(part: slice) -> Batch:
        taken = {key: getattr(whole, key)[part] for key in ("x0", "eps", "u", "v")}
        return data_batch(8, step=50, **taken)

    parts = [gradient(loss(student, rows(part), context), weights) for part in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close((parts[0] + parts[1]) / 2, gradient(loss(student, whole, context), weights).to(parts[0]))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            {"loss": ["l1"]},
            "students: method cd_inf needs a distance with a second derivative, and l1 has none; use mse",
        ),
        ({"density": [0.25]}, "students: cd_inf has start times of its own, and no density"),
        ({"weight": ["snr"]}, "students: cd_inf has start times of its own, and no weight"),
    ],
)
def test_what_its_times_and_its_distance_refuse(line: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as error:
        parse(Config, {"students": [{"method": ["cm"]}, {"method": ["cd_inf"], **line}]})
    assert words in str(error.value)


@pytest.mark.parametrize(("w", "solver"), [(1.0, "ddim"), (3.0, "heun")])
def test_a_plan_counts_one_slope_a_pair(w: float, solver: str) -> None:
    """One evaluation of the teacher, guided two rows, whatever the solver."""
    config = parse(Config, {"students": [{"method": ["cd_inf"]}], "ode": {"w": w, "solver": solver}})
    (job,) = [job for job in plan.jobs(config, config.runs()) if job.kind == "students" and job.method == "cd_inf"]
    assert job.forwards == job.pairs * (1 if w == 1.0 else 2)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["lora4", "full"])
def test_on_vp_a_latent_student_trains_between_the_tables_times(tiny: Any, tmp_path: Path, adapter: str) -> None:
    """CD∞ of a guided latent teacher: finite, resumed to the byte, one evaluation of the teacher a pair whatever the solver."""
    out = tiny.train(tmp_path / "s", "cd_inf", adapter=adapter, solver="heun")
    rows = out.csv("curve.csv")
    assert len(rows) == 4 and all(math.isfinite(float(r["loss"])) and float(r["grad_norm"]) > 0 for r in rows)
    assert (out.counts["teacher_forwards"], out.counts["student_forwards"]) == (4 * 4 * 2, 4 * 4 * 3)
    (tmp_path / "s-scratch").rename(tmp_path / "again-scratch")
    assert tiny.train(tmp_path / "again", "cd_inf", adapter=adapter, solver="heun").checksums == out.checksums
    half = tiny.train(
        tmp_path / "parts", "cd_inf", adapter=adapter, solver="heun", micro_batch=2, gradient_checkpointing=True
    )
    for a, b in zip(half.csv("curve.csv"), rows, strict=True):
        assert float(a["loss"]) == pytest.approx(float(b["loss"]), rel=1e-3)
