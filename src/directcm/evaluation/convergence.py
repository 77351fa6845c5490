"""The verb `convergence`: theory's predictions for N → ∞, measured on exact teachers whose flow is known.

h = t − s is a step of the grid, h ~ 1/N; Φ the flow map of the probability-flow ODE to the process's end; slopes are
d log(value)/d log N. Expectations over x₀ given x_t are integrals, not samples, so that no noise hides a slope.

1. Solvers. The endpoint error of a solver of order p is O(hᵖ): slope −p. The discrete VP process differs in two ways. Its Σβ is
   −log ᾱ up to O(1/K), so that Euler and Heun converge not to Φ but to the flow of that β: an error floor at K = 1000 steps.
   And u = σ/α rises as √t from 0, so that DDIM's error, Σ(Δu)², is O(log N/N): a slope slightly above −1.

2. CM (Song et al. 2303.01469, Theorem 1). If f makes the consistency distillation loss zero, then f(x, t_n) =
   f(x̂_{n+1}, t_{n+1}) down to f(x, end) = x: f is the composition of solver steps, and sup‖f − Φ‖ = O(hᵖ). Here f is fitted to
   that loss time by time, from the end upwards, against a frozen target. For one Gaussian, whose steps are affine, f is affine, by
   least squares over diffused samples; for a mixture it is a table with cubic interpolation, whose samples are its nodes.

3. CT against CD. With x̂_s = x_t − h ε̂(x_t), the teacher's Euler step, CT's point is x_s = x_t − h ε, ε given x_t; its mean is x̂_s.
   Let ξ = ε − ε̂, Σ = Cov(ε | x_t), J and H the first and second derivatives of f(·, s) in x, D = f(x_t, t) − f(x̂_s, s) = O(h).

     f(x_s, s) = f(x̂_s, s) − h Jξ + ½h² H[ξ, ξ] + O(h³)                                                               (*)
     E‖D + h Jξ − …‖² − E‖D‖² = h² E tr(J Σ Jᵀ) + O(h³),

   - The loss. E‖D‖² is O(h²) itself (O(h⁴) at f = Φ), so the relative gap of the losses does not vanish: slope 0.
   - The gradient through both f. The gap is h² ∇E tr(J Σ Jᵀ), of the order of CD's gradient: slope 0. A penalty on J remains as
     N → ∞. Issenhuth et al. (2406.09570) claim that a gap remains; we have not compared their term with ours.
   - The gradient with a frozen target, as in all trainings here. For the squared loss it is linear in f(x_s, s): by (*) the gap is
     h² E⟨∂f/∂θ, tr(H Σ)⟩, and CD's gradient is O(h). The relative gap vanishes: slope −1.
   - The trained student. The squared loss's minimiser is the conditional mean: an error of ½h² tr(H Σ) a step, over N steps, beside
     Euler's own. The fitted CT student converges to Φ with slope −1.
   - The norm ‖·‖, the limit of pseudo-Huber at c ≪ h. Its gradient averages directions, (D + h Jξ)/‖D + h Jξ‖, and D and h Jξ are of
     the same order: slope 0. Its minimiser is the geometric median, which is O(h) from the mean at every step where ξ is skew: the
     student does not converge to Φ. (At c ≫ h pseudo-Huber is a squared loss.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.interpolate import RectBivariateSpline
from scipy.stats import linregress
from scipy.stats import t as student_t
from torch import Tensor

from directcm import config
from directcm.diffusion.processes import Process, VarianceExploding, VariancePreserving, expand
from directcm.diffusion.solvers import SOLVERS, Solver, make_solver
from directcm.diffusion.teachers import Conditioning, Gaussian, Prediction, Teacher
from directcm.diffusion.teachers.mixture import Mixture
from directcm.runtime import rng
from directcm.runtime.artifacts import new_artifact, write_csv
from directcm.runtime.progress import Progress

COLUMNS = ["part", "teacher", "process", "solver", "quantity", "N", "dt", "value", "n"]
SERIES = ["part", "teacher", "process", "solver", "quantity"]
SLOPES = [*SERIES, "predicted", "slope", "low", "high", "n", "N_low", "N_high"]
# Start times that all grids share, as shares of their N intervals.
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8)
# So many steps of VP that Σβ and −log ᾱ differ by far less than the measured errors.
FINE = 6_400_000
# The table's nodes along a side, and its half width in standard deviations of x_t.
NODES, CT_NODES, MEDIAN_NODES, REACH = 97, 49, 33, 6.0
# Gauss–Hermite nodes per dimension, for each component of x₀ given x_t: for smooth integrands, and for the norm.
SMOOTH, KINKED = 3, 6
FEATURES = 32
# A mixture's flow map is computed with Heun's method on a grid this many times finer than the finest.
REFINED = 10

ERROR = "error to the flow map"
ENDPOINT = "endpoint error"
SAME = "distance to the solver's endpoints"
APART = "distance to CD's student"
GAP, CD, LEADING = "CT's loss less CD's, over h²", "CD's loss, over h²", "E tr(J Σ Jᵀ)"
# CT against CD at one fixed student, relative to CD.
RELATIVE = "relative gap of the loss"
BOTH = "relative gap of the gradient, both arms"
FROZEN = "relative gap of the gradient, frozen target"
NORM = "relative gap of the gradient, frozen target, norm"
# In place of a solver's name: the losses of consistency training.
CT, CT_NORM = "ct", "ct_norm"

Map = Callable[[Tensor], Tensor]
Row = dict[str, Any]


class _Double(Teacher):
    """A teacher in float64, where the contract has float32, so that rounding does not hide an order."""

    def predict(
        self, x: Tensor, t: Tensor, cond: Conditioning | None, guidance: float = 1.0, told: Tensor | None = None
    ) -> Prediction:
        eps = self.noise(x, t, cond)
        return Prediction(self.process.clean(x, eps, t), eps)


class ExactGaussian(_Double, Gaussian):
    """One Gaussian in float64."""


class ExactMixture(_Double, Mixture):
    """A mixture in float64."""


def gaussian(process: Process) -> ExactGaussian:
    """N((0.7, −0.3), ½² I)."""
    return ExactGaussian(process, torch.tensor([0.7, -0.3], dtype=torch.float64), 0.5)


def mixture(process: Process) -> ExactMixture:
    """Three overlapping Gaussians in the plane: their flow is not affine, but smooth enough for a table."""
    means = torch.tensor([[0.0, 1.0], [0.9, -0.5], [-0.8, -0.6]], dtype=torch.float64)
    return ExactMixture(
        process, means, torch.tensor([0.6, 0.55, 0.5], dtype=torch.float64), torch.tensor([0.4, 0.35, 0.25])
    )


def moments(teacher: Mixture) -> tuple[Tensor, float]:
    """(mean (d,), standard deviation per dimension) of a mixture's x₀."""
    share = teacher.log_weights.exp()
    mean = share @ teacher.means
    off = ((teacher.means - mean) ** 2).mean(1)
    return mean, float((share @ (teacher.scales**2 + off)).sqrt())


def draw(teacher: Gaussian | Mixture, count: int, seed: int, purpose: str) -> Callable[[Tensor], Tensor]:
    """Time () → x_t (count, d) float64, of the same x₀ and noise at every time."""
    x0, eps = (rng.normal(seed, f"{purpose} {what}", range(count), teacher.shape).double() for what in ("x0", "eps"))
    if isinstance(teacher, Gaussian):
        x0 = teacher.mean + teacher.scale * x0
    else:
        at = torch.from_numpy(rng.uniform(seed, f"{purpose} component", range(count)))
        which = (at[:, None] > teacher.log_weights.exp().cumsum(0)[:-1]).sum(1)
        x0 = teacher.means[which] + teacher.scales[which, None] * x0
    return lambda t: teacher.process.diffuse(x0, eps, t.expand(count))


def walk(teacher: Teacher, solver: Solver, x: Tensor, times: Iterable[Tensor]) -> Tensor:
    """x (n, d) after solver steps through the times (k,)."""
    for t, s in itertools.pairwise(times):
        x = solver.step(teacher, x, t.expand(len(x)), s.expand(len(x)), None, 1.0)
    return x


def rms(a: Tensor, b: Tensor) -> float:
    """√E‖a − b‖² over rows (n, d)."""
    return float((a - b).square().sum(1).mean().sqrt())


def shared(intervals: int) -> list[int]:
    """The grid indices of the start times that all grids share."""
    return [round(share * intervals) for share in SHARES]


def slope(sizes: Sequence[float], values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """(slope, low, high) of log value over log N by least squares with Student's t interval; 3 sizes or more."""
    fit = linregress(np.log(sizes), np.log(values))
    wide = float(student_t.ppf(0.5 + level / 2, len(sizes) - 2)) * float(fit.stderr)
    return float(fit.slope), float(fit.slope) - wide, float(fit.slope) + wide


# ----------------------------------------------------------------- students


def affine(x: Tensor, target: Tensor) -> Map:
    """The affine map fitted by least squares to targets (n, d) at samples (n, d)."""

    def features(points: Tensor) -> Tensor:
        return torch.cat([points, torch.ones_like(points[:, :1])], 1)

    weights = torch.linalg.lstsq(features(x), target).solution
    return lambda points: features(points) @ weights


class Table:
    """A map of the plane: bicubic interpolation of values on a square grid, in standard deviations of x_t."""

    def __init__(self, teacher: Mixture, t: Tensor, nodes: int) -> None:
        process, time = teacher.process, t[None]
        mean, scale = moments(teacher)
        alpha, sigma = float(process.alpha(time)), float(process.sigma(time))
        self.mean, self.scale = alpha * mean, math.hypot(alpha * scale, sigma)
        self.axis = np.linspace(-REACH, REACH, nodes)
        square = torch.tensor(list(itertools.product(self.axis, self.axis)), dtype=torch.float64)
        self.x = self.mean + self.scale * square
        self.parts: list[RectBivariateSpline] = []

    def fit(self, target: Tensor) -> Table:
        """Set the values (nodes², 2) at the nodes, which makes the loss on the nodes minimal."""
        side = len(self.axis)
        values = target.numpy().reshape(side, side, 2)
        self.parts = [RectBivariateSpline(self.axis, self.axis, values[..., i]) for i in range(2)]
        return self

    def __call__(self, x: Tensor) -> Tensor:
        """The map at x (n, 2); outside the square its value at the nearest point of the edge."""
        y = ((x - self.mean) / self.scale).clamp(-REACH, REACH).numpy()
        return torch.from_numpy(np.stack([part.ev(y[:, 0], y[:, 1]) for part in self.parts], 1))


def backwards(process: Process, intervals: int, fit: Callable[[Tensor, Tensor, Map], Map]) -> list[Map]:
    """The students at the times of a grid, (N + 1,), made from its end upwards.

    `fit(t, s, later)` returns the student at time t () from the frozen one at the next time s ().
    """
    students: list[Map] = [lambda x: x]
    for s, t in itertools.pairwise(process.grid(intervals).flip(0)):
        students.append(fit(t, s, students[-1]))
    return students[::-1]


def distilled(teacher: Teacher, solver: Solver, intervals: int, fit: Callable[[Tensor, Map], Map]) -> list[Map]:
    """The students (`backwards`) that minimise CM's loss; `fit(t, target)` fits one to a map from x_t to f(x̂_s, s)."""
    return backwards(
        teacher.process, intervals, lambda t, s, later: fit(t, lambda x: later(walk(teacher, solver, x, (t, s))))
    )


# ----------------------------------------------------------------- x₀ given x_t


def posterior(teacher: Gaussian | Mixture, x: Tensor, t: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Quadrature nodes (n, q, d) and weights (n, q) for x₀ given x_t = x (n, d) at times t (n,).

    Gauss–Hermite with `side` nodes per dimension for each component: exact for polynomials of degree 2·side − 1.
    """
    if isinstance(teacher, Gaussian):
        means, scales = teacher.mean[None], torch.tensor([teacher.scale], dtype=torch.float64)
        share = torch.ones((len(x), 1), dtype=torch.float64)
    else:
        means, scales = teacher.means, teacher.scales
        share, _ = teacher.posterior(x, t, None)
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(side))
    d = x.shape[1]
    unit = torch.cartesian_prod(*[nodes] * d).reshape(-1, d)
    weight = torch.cartesian_prod(*[weights / weights.sum()] * d).reshape(-1, d).prod(1)
    alpha, sigma = teacher.process.alpha(t)[:, None], teacher.process.sigma(t)[:, None]
    variance = alpha**2 * scales**2 + sigma**2
    middle = means + (alpha * scales**2 / variance)[..., None] * (x[:, None] - alpha[..., None] * means)
    spread = scales * sigma / variance.sqrt()
    x0 = middle[:, :, None] + spread[..., None, None] * unit
    return x0.flatten(1, 2), (share[..., None] * weight).flatten(1)


def neighbours(process: Process, x: Tensor, x0: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """CT's x_s (n, q, d): with x₀ (n, q, d) and the noise that it has in x_t = x (n, d); times (n,)."""
    noise = (x[:, None] - expand(process.alpha(t), x0) * x0) / expand(process.sigma(t), x0)
    return process.diffuse(x0, noise, s)


def median(y: Tensor, weights: Tensor, steps: int = 30) -> Tensor:
    """Geometric medians (n, d) of points (n, q, d) under weights (n, q), by Weiszfeld's iteration from the mean."""
    middle = (weights[..., None] * y).sum(1)
    for _ in range(steps):
        pull = weights / (y - middle[:, None]).norm(dim=2).clamp(min=1e-12)
        middle = (pull[..., None] * y).sum(1) / pull.sum(1, keepdim=True)
    return middle


def trained(teacher: ExactMixture, intervals: int, nodes: int, side: int, norm: bool) -> list[Map]:
    """As `distilled`, for CT's loss on a mixture: the squared one or the norm."""

    def fit(t: Tensor, s: Tensor, later: Map) -> Map:
        table = Table(teacher, t, nodes)
        many = len(table.x)
        x0, weights = posterior(teacher, table.x, t.expand(many), side)
        y = neighbours(teacher.process, table.x, x0, t.expand(many), s.expand(many))
        ends = later(y.flatten(0, 1)).reshape(y.shape)
        return table.fit(median(ends, weights) if norm else (weights[..., None] * ends).sum(1))

    return backwards(teacher.process, intervals, fit)


# ----------------------------------------------------------------- one fixed student


class Fixed:
    """f(x, t) = a·x + b·(x̂₀ + Wᵀφ) at W = 0, the initial student; φ (FEATURES,) are random smooth features."""

    def __init__(self, teacher: Gaussian | Mixture, seed: int) -> None:
        self.teacher, self.process = teacher, teacher.process
        size = teacher.shape[0] + 2
        self.weights = rng.normal(seed, "convergence features", range(FEATURES), (size,)).double()

    def features(self, x: Tensor, t: Tensor) -> Tensor:
        """∂f/∂W per output: b·φ (n, FEATURES)."""
        alpha, sigma = self.process.alpha(t)[:, None], self.process.sigma(t)[:, None]
        size = (alpha**2 + sigma**2).sqrt()
        about = torch.cat([x / size, (sigma / alpha).clamp(min=1e-6).log() / 4, torch.ones_like(size)], 1)
        return self.process.student(t)[1][:, None] * torch.tanh(about @ self.weights.T)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        a, b = self.process.student(t)
        return a[:, None] * x + b[:, None] * self.teacher.predict(x, t, None).x0

    def jacobian(self, x: Tensor, t: Tensor) -> Tensor:
        """J (n, d, d)."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            out = self(x, t)
            rows = [torch.autograd.grad(out[:, i].sum(), x, retain_graph=True)[0] for i in range(out.shape[1])]
        return torch.stack(rows, 1)


def gaps(student: Fixed, x: Tensor, t: Tensor, s: Tensor) -> dict[str, Tensor]:
    """CT against CD at one student, x_t = x (n, d), times t > s (n,): means over rows, squared losses divided by h².

    "gap": CT's loss − CD's; "leading": E tr(J Σ Jᵀ) at (x_t, t); "cd": CD's loss. "frozen", "both" and "norm": gradients in W
    (2, FEATURES, d), of CT and of CD.
    """
    process, teacher = student.process, student.teacher
    n = len(x)
    h = (t - s)[:, None]
    there = make_solver("ddim").step(teacher, x, t, s, None, 1.0)
    x0, weights = posterior(teacher, x, t, KINKED)
    y = neighbours(process, x, x0, t, s)
    flat, later = y.flatten(0, 1), s.repeat_interleave(y.shape[1])
    here = student(x, t)
    cd, ct = here - student(there, s), here[:, None] - student(flat, later).reshape(y.shape)
    features = student.features(x, t)
    their, cts = student.features(there, s), student.features(flat, later).reshape(n, y.shape[1], FEATURES)
    scaled = (weights / h**2)[..., None]
    # Σ = Cov(x_s | x_t)/h².
    noise = (scaled * (y - there[:, None]))[..., None] * (y - there[:, None])[..., None, :]
    jacobian = student.jacobian(x, t)

    def gradient(features: Tensor, residual: Tensor) -> Tensor:
        return torch.einsum("nf,nd->fd", features, residual) / n

    squared = {
        "frozen": (gradient(features, 2 * (scaled * ct).sum(1)), gradient(features, 2 * cd / h**2)),
        "both": (
            gradient(features, 2 * (scaled * ct).sum(1)) - 2 * torch.einsum("nqf,nqd->fd", scaled * cts, ct) / n,
            gradient(features - their, 2 * cd / h**2),
        ),
        "norm": (
            gradient(features, (weights[..., None] * ct / ct.norm(dim=2, keepdim=True)).sum(1)),
            gradient(features, cd / cd.norm(dim=1, keepdim=True)),
        ),
    }
    losses = (scaled * ct**2).sum((1, 2)), (cd**2 / h**2).sum(1)
    return {
        "gap": (losses[0] - losses[1]).mean(),
        "cd": losses[1].mean(),
        "leading": torch.einsum("nij,nqjk,nik->n", jacobian, noise, jacobian).mean(),
        **{name: torch.stack(pair) for name, pair in squared.items()},
    }


# ----------------------------------------------------------------- the three parts


def _row(part: str, teacher: str, process: str, solver: str, quantity: str, grid: Tensor, value: float, n: int) -> Row:
    """A row; dt is the longest step of the grid, as in the theorem."""
    dt = float((grid[:-1] - grid[1:]).max())
    fields = (part, teacher, process, solver, quantity, len(grid) - 1, dt, value, n)
    return dict(zip(COLUMNS, fields, strict=True))


def fine() -> VariancePreserving:
    """SDXL's schedule on FINE steps: the continuous VP process, as far as float64 can tell."""
    return VariancePreserving(VariancePreserving.scaled_linear(steps=FINE).betas * (1000 / FINE))


def of_solvers(process: Process, name: str, sizes: Sequence[int], points: int, seed: int) -> Iterator[Row]:
    """Endpoint errors of solvers from pure noise, on one Gaussian."""
    teacher = gaussian(process)
    x = process.prior(rng.normal(seed, "convergence prior", range(points), teacher.shape).double())
    ends = (torch.full((points,), end, dtype=torch.float64) for end in (process.start, process.end))
    goal = teacher.flow(x, *ends)
    for solver, N in itertools.product(SOLVERS, sizes):
        grid = process.grid(N)
        error = rms(walk(teacher, make_solver(solver), x, grid), goal)
        yield _row("solver", "gaussian", name, solver, ENDPOINT, grid, error, points)


def of_cm_gaussian(process: Process, name: str, sizes: Sequence[int], points: int, seed: int) -> Iterator[Row]:
    """Affine students fitted to CM's loss: the largest error over start times, and the distance to the solver."""
    teacher = gaussian(process)
    training, test = (draw(teacher, points, seed, f"convergence {use}") for use in ("fit", "test"))

    def fit(t: Tensor, target: Map) -> Map:
        x = training(t)
        return affine(x, target(x))

    for solver, N in itertools.product(SOLVERS, sizes):
        grid, method = process.grid(N), make_solver(solver)
        students = distilled(teacher, method, N, fit)
        found, ends, steps = [], [], []
        for k in shared(N):
            x = test(grid[k])
            found.append(students[k](x))
            ends.append(teacher.flow(x, grid[k].expand(points), grid[-1].expand(points)))
            steps.append(walk(teacher, method, x, grid[k:]))
        for quantity, goals in ((ERROR, ends), (SAME, steps)):
            error = max(map(rms, found, goals))
            yield _row("cm", "gaussian", name, solver, quantity, grid, error, points)


def of_mixture(
    process: Process, sizes: Sequence[int], points: int, seed: int, done: Callable[[], None]
) -> Iterator[Row]:
    """Tables fitted to CM's and CT's losses on a mixture: the largest errors over start times."""
    teacher = mixture(process)
    test = draw(teacher, points, seed, "convergence test")
    finest = process.grid(REFINED * max(sizes))
    starts = shared(len(finest) - 1)
    tests = [test(finest[k]) for k in starts]

    def solved(solver: str, grid: Tensor, at: list[int]) -> list[Tensor]:
        return [walk(teacher, make_solver(solver), x, grid[k:]) for k, x in zip(at, tests, strict=True)]

    def fit(t: Tensor, target: Map) -> Map:
        table = Table(teacher, t, NODES)
        return table.fit(target(table.x))

    truth = solved("heun", finest, starts)
    for N in sizes:
        grid, at = process.grid(N), shared(N)
        found = {
            **{solver: distilled(teacher, make_solver(solver), N, fit) for solver in ("euler", "heun")},
            CT: trained(teacher, N, CT_NODES, SMOOTH, norm=False),
            CT_NORM: trained(teacher, N, MEDIAN_NODES, KINKED, norm=True),
        }
        ends = {name: [maps[k](x) for k, x in zip(at, tests, strict=True)] for name, maps in found.items()}
        for name, mine in ends.items():
            ct = name in CT_PREDICTED
            part, quantity, other = ("ct", APART, ends["euler"]) if ct else ("cm", SAME, solved(name, grid, at))
            for what, theirs in ((ERROR, truth), (quantity, other)):
                yield _row(part, "mixture", "karras", name, what, grid, max(map(rms, mine, theirs)), points)
        done()


def of_gap(process: Process, sizes: Sequence[int], points: int, seed: int) -> Iterator[Row]:
    """CT against CD at one fixed student, over the times that all grids share."""
    teacher = mixture(process)
    student, test = Fixed(teacher, seed), draw(teacher, points, seed, "convergence gap")
    for N in sizes:
        grid, at = process.grid(N), shared(N)
        x = torch.cat([test(grid[k]) for k in at])
        t, s = (torch.cat([grid[k + more].expand(points) for k in at]) for more in (0, 1))
        found = gaps(student, x, t, s)
        values = {GAP: found["gap"], LEADING: found["leading"], CD: found["cd"], RELATIVE: found["gap"] / found["cd"]}
        for name, quantity in (("both", BOTH), ("frozen", FROZEN), ("norm", NORM)):
            ct, cd = found[name]
            values[quantity] = (ct - cd).norm() / cd.norm()
        for quantity, value in values.items():
            yield _row("gap", "mixture", "karras", "ddim", quantity, grid, float(value), len(x))


# The predicted slopes; those of solvers and of CM are minus the solver's order.
PREDICTED = {GAP: 0.0, RELATIVE: 0.0, BOTH: 0.0, FROZEN: -1.0, NORM: 0.0}
CT_PREDICTED = {CT: -1.0, CT_NORM: 0.0}


def predicted(row: Row) -> float | None:
    """The predicted slope of a row's series; None if there is none."""
    if row["part"] == "ct":
        return CT_PREDICTED[row["solver"]]
    # With K = 1000 steps the error has a floor.
    if row["quantity"] in (ENDPOINT, ERROR) and row["process"] != "vp_1000":
        return -float(make_solver(row["solver"]).order)
    return PREDICTED.get(row["quantity"])


def slopes(rows: Sequence[Row], fit_from: int) -> list[Row]:
    """The slope (SLOPES) of each series with a prediction, over N ≥ `fit_from`; n is the number of these N."""
    series: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["N"] >= fit_from and predicted(row) is not None:
            series.setdefault(tuple(row[c] for c in SERIES), []).append(row)
    out = []
    for name, group in series.items():
        sizes = [row["N"] for row in group]
        found = slope(sizes, [row["value"] for row in group])
        fields = (*name, predicted(group[0]), *found, len(sizes), min(sizes), max(sizes))
        out.append(dict(zip(SLOPES, fields, strict=True)))
    return out


def make(settings: config.Convergence, seed: int, out: Path) -> None:
    """Write convergence.csv (COLUMNS: every value; n is the number of points behind it) and slopes.csv (SLOPES)."""
    sizes, points = settings.N, settings.points
    progress = Progress("convergence", 4 + len(sizes), "part")
    rows: list[Row] = []
    karras = VarianceExploding()
    vp, discrete = fine(), VariancePreserving.scaled_linear()
    with torch.no_grad():
        for process, name in ((vp, "vp"), (discrete, "vp_1000"), (karras, "karras")):
            rows += of_solvers(process, name, sizes, points, seed)
            if process is not discrete:
                rows += of_cm_gaussian(process, name, sizes, points, seed)
            progress.update(1)
        rows += of_mixture(karras, sizes, points, seed, lambda: progress.update(1))
        rows += of_gap(karras, settings.gaps, points // 4, seed)
        progress.update(1)
    found = slopes(rows, settings.fit_from)
    with new_artifact(out, "convergence", settings={**settings.model_dump(mode="json"), "seed": seed}) as art:
        write_csv(art / "convergence.csv", rows, COLUMNS)
        write_csv(art / "slopes.csv", found, SLOPES)
        art.counts = {"values": len(rows), "slopes": len(found)}
