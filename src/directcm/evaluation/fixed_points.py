"""The verb `fixed_points`: what CM, Direct CM and the targets between them converge to, in closed form.

**Class.** φ (m,) are random features tanh(W·(x, time, 1)) with W fixed, and the weights a (m, d) are all that is learnt:

    f_a(x, t) = f_0(x, t) + q(t) φ(x, t)ᵀ a =: f_0 + gᵀa.

The student of this project is f = c_skip x + c_out x̂₀ with x̂₀ from its network's output F (`Process.student`, `output_scales`), thus
f = p(t) x + q(t) F: q is that of the process, 0 at the end (f = x there), σ/α on VP and c_out on Karras's. Three classes:

    "shared"     f_0 = a x + b E[x₀ | x_t]: the teacher's denoiser, where a student starts, plus m directions; one a for all times.
                 A network about its initial weights is such a class (its linearisation), and times compete for its m weights.
    "plain"      f_0 = p x: the features alone, one a for all times; its start is the fit of the denoiser.
    "per_time"   "shared" with an a of its own at every time of the grid: no times compete.

**Targets.** Φᵏ is k solver steps, s_k the time reached, s uniform over the grid's N start times, x_s diffused data. The k-step
loss E‖f_a(x_s, s) − sg f_a(Φᵏ(x_s), s_k)‖² has the semi-gradient 2(A a − b), with g' = g(Φᵏ(x_s), s_k) and f_0' likewise:

    A = E g (g − g')ᵀ,   b = E g (f_0' − f_0)ᵀ.

k = N: g' = 0, A = G = E g gᵀ, and a is Direct CM's least-squares fit of Φ: a projection. k = 1 is CM, and A a = b is LSTD's system
(Bradtke and Barto 1996), the fixed point of a = P T a with T the step and P the projection. "per_time" is solved from the end
upwards: a_s = P_s f(·, s_k) ∘ Φᵏ, a product of N/k projections.

**Existence.** Φᵏ takes the law of x_s to that of x_{s_k} (but for the solver's and the sample's error; exactly, where start points lie on
the solver's own trajectories), so that E(g'ᵀa)² ≤ E(gᵀa)²: sampling is on-policy, and A + Aᵀ ≥ 0 as for TD(0) (Tsitsiklis and Van Roy
1997). In the norm of G, Rᵀ G R = 1,

    c = coercivity = λ_min of (B + Bᵀ)/2, B = Rᵀ A R,   ‖f_a − Φ‖² ≤ (1 + 1/c²) ‖(1 − P)Φ‖²:

since with e = (1 − P)Φ and Φ(x) = Φ(Φᵏ(x)) one has A (a − a_N) = −E g e'ᵀ and ‖e'‖ ≤ ‖e‖. c is 1 at k = N and small at k = 1:
bootstrapping's bias. Above 0 the flow below is stable in every metric; where it is not, the eigenvalues of A say ("stable"). Directions
with less than CUT of G's largest eigenvalue are left out ("rank" are left).

**Flow.** da/dτ = b − A a from the denoiser (a = 0, or its fit). Exactly, in steps of decades: exp of [[−A, r], [0, 0]] with
r = b − A a₀. τ is in units of 1/λ_max(G), the same for all k: equal learning rates.

**Measures**, of one-step samples f(x_T, T) from pure noise, x in units of the data's standard deviation: `ode_error`, mean over components of
(f − y)², y the solver's endpoint, and its parts (`statistics.error_parts`); `path_error`, the same over the start points of all times,
which Direct CM minimises; `sw2_teacher`, sliced W₂ to the teacher's samples from other noise, `sw2_matched` after moving and scaling to their mean and total variance,
`sw2_same` to those from the same noise, `sw2_mixture` to the exact mixture; `log_p0`, the mean of the exact log density less that of the teacher's samples from the same noise.

**Inference.** A seed draws the mixture, the features, the start points and the noise anew, and all k and m of a seed share them.
Differences are paired over seeds, with Student's t. Of errors and distances p is that of the difference of logarithms, the ratio: they
span orders of magnitude, and one seed's near singular A must not decide for the others. Holm's adjustment is over m (and over k too, where an
interior one is against an end).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import linalg, stats
from scipy.special import logsumexp, ndtri
from torch import Tensor

from directcm import config
from directcm.diffusion.processes import Process, VarianceExploding, VariancePreserving
from directcm.diffusion.solvers import Solver, make_solver
from directcm.evaluation.convergence import ExactMixture
from directcm.runtime import rng
from directcm.runtime.artifacts import new_artifact, write_csv
from directcm.runtime.progress import Progress
from directcm.statistics import sliced
from directcm.statistics.error_parts import parts
from directcm.statistics.inference import holm

CELL = ["process", "dimension", "class", "m"]
MEASURES = [
    *("ode_error", "bias", "gain", "scatter", "correlation", "variance_ratio", "path_error"),
    *("sw2_teacher", "sw2_matched", "sw2_same", "sw2_mixture", "log_p0"),
]
FIXED = [*CELL, "k", "share", "seed", "rank", "coercivity", "stable", *MEASURES]
FLOW = [*CELL, "tau", "k", "share", "seed", *MEASURES]
REFERENCES = ["process", "dimension", "class", "m", "who", "seed", *MEASURES]
# What is contrasted, and whether less is better.
CONTRASTED = {
    **dict.fromkeys(("ode_error", "path_error", "sw2_teacher", "sw2_matched", "sw2_mixture"), True),
    "log_p0": False,
}
VALUES = ["difference", "low", "high", "ratio", "ratio_low", "ratio_high", "p", "p_holm", "n"]
CONTRASTS = [*CELL, "tau", "measure", "k", "against", *VALUES]
JUDGED = ("ode_error", "sw2_teacher", "sw2_matched", "log_p0")
SUMMARY = [
    *(*CELL, "tau", "verdict", "by_sw2_matched", "by_log_p0"),
    *(f"{name}_{value}" for name in JUDGED for value in VALUES[:-1] if value != "p"),
    *(*(f"best_{name}" for name in JUDGED), "beats_both_ends", "beats_both_in_both", "unstable", "n"),
]
LEVEL = 0.05
# tau of a fixed point.
AT_REST = math.inf
CUT = 1e-11
# The longest a flow that grows is followed, and the least that an error or a distance counts for.
LARGEST, TINY = 1e12, 1e-30

Row = dict[str, Any]


# ----------------------------------------------------------------- the teacher


def process_of(name: str) -> Process:
    """SDXL's discrete VP process, or Karras's."""
    return VariancePreserving.scaled_linear() if name == "vp" else VarianceExploding()


def unit_of(process: Process) -> float:
    """The data's standard deviation: what the process takes for granted."""
    return process.sigma_data if isinstance(process, VarianceExploding) else 1.0


def mixture(process: Process, dimension: int, components: int, spread: float, seed: int) -> ExactMixture:
    """Random components of mean 0 and of the process's standard deviation, theirs being `spread` of it."""
    draw = rng.generator(seed, "fixed points mixture", dimension)
    means, weights = draw.standard_normal((components, dimension)), draw.uniform(0.5, 1.5, components)
    weights /= weights.sum()
    means -= weights @ means
    unit = unit_of(process)
    scale = unit * spread
    means *= math.sqrt((unit**2 - scale**2) / (weights @ means**2).mean())
    return ExactMixture(process, torch.from_numpy(means), torch.tensor(scale), torch.from_numpy(weights))


def log_density(teacher: ExactMixture, x: np.ndarray) -> np.ndarray:
    """Exact log p₀ (n,) at x (n, d) under the mixture; every component has a width above 0."""
    means, scales = teacher.means.numpy(), teacher.scales.numpy()
    square = ((x[:, None] - means) ** 2).sum(2)
    log = teacher.log_weights.numpy() - 0.5 * square / scales**2 - x.shape[1] * np.log(scales * math.sqrt(2 * math.pi))
    return np.asarray(logsumexp(log, axis=1))


def diffused(teacher: ExactMixture, t: Tensor, points: int, seed: int, index: int) -> Tensor:
    """x_t (points, d) of diffused data at a time (), from scrambled Sobol points of its own; `points` a power of two."""
    d = teacher.shape[0]
    scramble = int(rng.generator(seed, "fixed points starts", d, index).integers(2**63))
    unit = stats.qmc.Sobol(2 * d + 1, seed=scramble).random_base2(points.bit_length() - 1)
    # Scrambled points may be 0 itself.
    unit = unit.clip(1e-12, 1 - 1e-12)
    which = np.searchsorted(np.cumsum(teacher.log_weights.exp().numpy())[:-1], unit[:, 0], side="right")
    x0 = teacher.means.numpy()[which] + teacher.scales.numpy()[which, None] * ndtri(unit[:, 1 : d + 1])
    x0, eps = torch.from_numpy(x0), torch.from_numpy(ndtri(unit[:, d + 1 :]))
    return teacher.process.diffuse(x0, eps, t.expand(points))


def walk(
    teacher: ExactMixture, solver: Solver, grid: Tensor, x: Tensor, start: int, stops: Iterable[int]
) -> dict[int, Tensor]:
    """The states (n, d) at grid indices `stops` on the way from index `start` to the end; the end is one of them."""
    wanted, found = set(stops), {}
    for i in range(start, len(grid) - 1):
        if i in wanted:
            found[i] = x
        t, s = (grid[j].expand(len(x)) for j in (i, i + 1))
        x = solver.step(teacher, x, t, s, None, 1.0)
    return found | {len(grid) - 1: x}


# ----------------------------------------------------------------- the class


class Student:
    """f_a = f_0 + q φᵀa at the times of a grid; the first m features are those of the class of m."""

    def __init__(self, teacher: ExactMixture, grid: Tensor, features: int, frequency: float, seed: int) -> None:
        self.teacher, self.process, self.grid = teacher, teacher.process, grid
        d = teacher.shape[0]
        self.weights = frequency * rng.normal(seed, "fixed points features", range(features), (d + 2,), d).double()
        # x as a whole counts for as much as time, and as the constant.
        self.weights[:, :d] /= math.sqrt(d)
        self.unit = unit_of(teacher.process)

    def _time(self, i: int) -> Tensor:
        return self.grid[i : i + 1]

    def scales(self, i: int) -> tuple[float, float]:
        """(p, q) at a grid index: f = p x + q F with F the network's output; (1, 0) at the end."""
        t = self._time(i)
        a, b = self.process.student(t)
        own, output = self.process.output_scales(t)
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        return float(a + b * (1 - sigma * own) / alpha), float(-b * sigma * output / alpha)

    def features(self, x: Tensor, i: int) -> np.ndarray:
        """g = q φ (n, features) at x (n, d) and a grid index; 0 at the end."""
        t = self._time(i)
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        size = (alpha**2 * self.unit**2 + sigma**2).sqrt()
        time = 0.25 * (sigma / alpha).clamp(min=1e-6).log()
        about = torch.cat([x / size, time.expand(len(x), 1), torch.ones_like(x[:, :1])], 1)
        return (self.scales(i)[1] * torch.tanh(about @ self.weights.T)).numpy()

    def base(self, x: Tensor, i: int, kind: str) -> np.ndarray:
        """f_0 (n, d) of a class; x itself at the end."""
        if i == len(self.grid) - 1:
            return x.numpy()
        if kind == "plain":
            return self.scales(i)[0] * x.numpy()
        a, b = (float(v) for v in self.process.student(self._time(i)))
        return (a * x + b * self.teacher.predict(x, self._time(i).expand(len(x)), None).x0).numpy()


@dataclass(frozen=True)
class Systems:
    """The linear systems of one sample, for all features at once: those of fewer are their corners.

    `gram` (M, M); `later` k → E g g'ᵀ (M, M); `right` (class, k) → b (M, d); `squares` class → E‖Φ − f_0‖²; `fit` (M, d) → the
    right-hand side of the fit of the denoiser in the class "plain"; `own` (m, k) → the weights (m, d) at the first time in the class
    "per_time", `own_rank` m → how many directions it has there, and `own_path` (m, k) → its path error, per component.
    """

    gram: np.ndarray
    later: dict[int, np.ndarray]
    right: dict[tuple[str, int], np.ndarray]
    squares: dict[str, float]
    fit: np.ndarray
    own: dict[tuple[int, int], np.ndarray]
    own_rank: dict[int, int]
    own_path: dict[tuple[int, int], float]


def principal(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (r,) and orthonormal eigenvectors (m, r) of G, of the directions that have more than CUT of the largest."""
    values, vectors = linalg.eigh(gram)
    kept = values > CUT * values[-1]
    return values[kept], vectors[:, kept]


def fitted(gram: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The least-squares weights (m, c) in the directions that are kept: E g gᵀ (m, m) and E g yᵀ (m, c)."""
    values, vectors = principal(gram)
    return np.asarray(vectors @ ((vectors.T @ right) / values[:, None]))


def assemble(
    student: Student,
    solver: Solver,
    ks: Sequence[int],
    points: int,
    seed: int,
    own: Sequence[int] = (),
    starts: str = "data",
) -> Systems:
    """The expectations over `points` start points at each time of the grid; `own`: the m of the class "per_time".

    `starts`: "data", diffused and drawn anew at every time, or "trajectory": the solver's own, the same from pure noise to the end.
    The weights of "per_time" are fitted on the way, from the end upwards, each time's to its frozen successor's.
    """
    intervals, size = len(student.grid) - 1, len(student.weights)
    d = student.teacher.shape[0]
    gram = np.zeros((size, size))
    later = {k: np.zeros((size, size)) for k in ks}
    right = {(kind, k): np.zeros((size, d)) for kind in ("shared", "plain") for k in ks}
    squares = dict.fromkeys(("shared", "plain"), 0.0)
    fit = np.zeros((size, d))
    weights: dict[tuple[int, int, int], np.ndarray] = {}
    ranks, path = {}, dict.fromkeys(itertools.product(own, ks), 0.0)
    total = points * intervals
    paths: dict[int, Tensor] = {}
    if starts == "trajectory":
        noise = rng.normal(seed, "fixed points trajectories", range(points), (d,), d).double()
        paths = walk(student.teacher, solver, student.grid, student.process.prior(noise), 0, range(intervals))
    for i in reversed(range(intervals)):
        x = paths[i] if paths else diffused(student.teacher, student.grid[i], points, seed, i)
        reached = {k: min(i + k, intervals) for k in ks}
        states = paths or walk(student.teacher, solver, student.grid, x, i, reached.values())
        g, end = student.features(x, i), states[intervals].numpy()
        bases = {kind: student.base(x, i, kind) for kind in squares}
        gram += g.T @ g / total
        fit += g.T @ (bases["shared"] - bases["plain"]) / total
        for kind, base in bases.items():
            squares[kind] += float(np.sum((end - base) ** 2)) / total
        kept = {m: principal(g[:, :m].T @ g[:, :m]) for m in own}
        ranks = {m: len(values) for m, (values, _) in kept.items()}
        for k, j in reached.items():
            then = student.features(states[j], j) if j < intervals else None
            if then is not None:
                later[k] += g.T @ then / total
            targets = {kind: student.base(states[j], j, kind) for kind in bases}
            for kind, base in bases.items():
                right[kind, k] += g.T @ (targets[kind] - base) / total
            for m in own:
                goal = targets["shared"]
                if then is not None:
                    goal = goal + then[:, :m] @ weights[m, k, j]
                values, vectors = kept[m]
                a = vectors @ ((vectors.T @ (g[:, :m].T @ (goal - bases["shared"]))) / values[:, None])
                weights[m, k, i] = a
                path[m, k] += float(np.sum((bases["shared"] + g[:, :m] @ a - end) ** 2)) / (total * d)
    first = {(m, k): weights[m, k, 0] for m, k in path}
    return Systems(gram, later, right, squares, fit, first, ranks, path)


# ----------------------------------------------------------------- fixed points and flow


@dataclass(frozen=True)
class Rest:
    """A fixed point: weights (m, c), how many directions they are from, λ_min of A's symmetric part in G's norm, and stability."""

    weights: np.ndarray
    rank: int
    coercivity: float
    stable: bool


def at_rest(gram: np.ndarray, later: np.ndarray, right: np.ndarray, kept: tuple[np.ndarray, np.ndarray]) -> Rest:
    """The solution of (G − C) a = b in the directions that G has: gram and later (m, m), right (m, c), `kept` as of `principal`."""
    values, basis = kept
    white = basis / np.sqrt(values)
    system = np.eye(len(values)) - white.T @ later @ white
    coercivity = float(linalg.eigvalsh(0.5 * (system + system.T), subset_by_index=(0, 0))[0])
    stable = coercivity > 0
    if not stable:
        # Not of the whitened system: the flow is that of the weights as they are.
        stable = bool(linalg.eigvals(np.diag(values) - basis.T @ later @ basis).real.min() > 0)
    return Rest(white @ linalg.solve(system, white.T @ right), len(values), coercivity, stable)


def flow(
    gram: np.ndarray, later: np.ndarray, right: np.ndarray, start: np.ndarray, decades: int
) -> Iterator[tuple[float, np.ndarray]]:
    """(τ, weights (m, c)) of da/dτ = b − (G − C) a at τ = 0, 1, 10 … 10^decades, in units of 1/λ_max(G).

    A flow that has grown beyond what is a number of any use is NaN from there on.
    """
    m, d = start.shape
    system = gram - later
    step = 1 / float(linalg.eigvalsh(gram, subset_by_index=(m - 1, m - 1))[0])
    push = right - system @ start
    # [a − a₀, 1] goes to exp(·)[a − a₀, 1]: no inverse, and so no directions that are left out.
    generator = np.zeros((m + d, m + d))
    generator[:m, :m], generator[:m, m:] = -step * system, step * push
    whole = linalg.expm(generator)
    yield 0.0, start
    for decade in range(decades + 1):
        yield 10.0**decade, start + whole[:m, m:]
        if decade < decades:
            with np.errstate(over="ignore", invalid="ignore"):
                whole = np.linalg.matrix_power(whole, 10)
            if not np.abs(whole).max() < LARGEST:
                whole = np.full_like(whole, np.nan)


# ----------------------------------------------------------------- measures


class Measures:
    """What samples of a unit are measured against: the solver's endpoints from the same noise and from other, and the mixture."""

    def __init__(self, student: Student, solver: Solver, samples: int, directions: int, seed: int) -> None:
        teacher, self.unit = student.teacher, student.unit
        self.teacher = teacher
        d, last = teacher.shape[0], len(student.grid) - 1

        def solved(purpose: str) -> tuple[Tensor, np.ndarray]:
            noise = rng.normal(seed, f"fixed points {purpose}", range(samples), teacher.shape, d).double()
            x = teacher.process.prior(noise)
            return x, walk(teacher, solver, student.grid, x, 0, ())[last].numpy()

        self.noise, self.ends = solved("noise")
        _, self.other_ends = solved("other noise")
        self.along = sliced.directions(directions, d, seed, "fixed points directions")
        means, scales = teacher.means.numpy() / self.unit, teacher.scales.numpy() / self.unit
        self.same, self.other = (sliced.ordered(x / self.unit, self.along) for x in (self.ends, self.other_ends))
        self.mixture = sliced.quantiles(means, scales, teacher.log_weights.exp().numpy(), self.along, samples)
        self.level = float(log_density(teacher, self.ends).mean())
        self.one_group = np.zeros(samples, np.int64)
        self.middle = self.along @ (self.other_ends / self.unit).mean(0)
        self.spread = float((self.other_ends / self.unit).var(0).sum())

    def _matched(self, centred: np.ndarray, factor: float) -> float:
        return sliced.distance(factor * centred + self.middle[:, None], self.other)

    def __call__(self, f: np.ndarray, path: float | None = None) -> Row:
        """MEASURES of samples (n, d) from the noise; `path`: their path error, in data units. Of what is no number: empty ones."""
        if not np.isfinite(f).all():
            return dict.fromkeys(MEASURES)
        found = parts(f / self.unit, self.ends / self.unit, self.one_group)
        along = sliced.ordered(f / self.unit, self.along)
        # Moved and scaled as a whole, to the mean and the variance of the teacher's: what is left is the shape.
        middle, spread = (f / self.unit).mean(0), float((f / self.unit).var(0).sum())
        factor = math.sqrt(self.spread / spread) if spread else None
        return {
            "ode_error": found.error,
            **{name: getattr(found, name) for name in ("bias", "gain", "scatter", "correlation", "variance_ratio")},
            "path_error": None if path is None else path / self.unit**2,
            "sw2_teacher": sliced.distance(along, self.other),
            "sw2_matched": None if factor is None else self._matched(along - (self.along @ middle)[:, None], factor),
            "sw2_same": sliced.distance(along, self.same),
            "sw2_mixture": sliced.distance(along, self.mixture),
            "log_p0": float(log_density(self.teacher, f).mean()) - self.level,
        }


def of_unit(
    settings: config.FixedPoints, name: str, dimension: int, seed: int
) -> tuple[list[Row], list[Row], list[Row]]:
    """The rows FIXED, FLOW and REFERENCES of one process, dimension and seed."""
    process, solver = process_of(name), make_solver(settings.solver)
    teacher = mixture(process, dimension, settings.components, settings.spread, seed)
    grid = process.grid(settings.N)
    student = Student(teacher, grid, max(settings.features), settings.frequency, seed)
    own = settings.own() if "per_time" in settings.classes else []
    systems = assemble(student, solver, settings.k, settings.points, seed, own, settings.starts)
    measure = Measures(student, solver, settings.samples, settings.directions, seed)
    bases = {kind: student.base(measure.noise, 0, kind) for kind in ("shared", "plain")}
    g = student.features(measure.noise, 0)
    fixed: list[Row] = []
    moving: list[Row] = []
    place = {"process": name, "dimension": dimension, "seed": seed}
    # The teacher against itself says what two samples of this size are apart; its log density is relative to itself.
    known: list[Row] = [
        {**place, "who": "denoiser", **measure(bases["shared"])},
        {**place, "who": "teacher, other noise", **measure(measure.other_ends), **dict.fromkeys(MEASURES[:7])},
    ]
    for m, k in systems.own:
        more = {"class": "per_time", "m": m, "k": k, "share": k / settings.N, "rank": systems.own_rank[m]}
        f = bases["shared"] + g[:, :m] @ systems.own[m, k]
        # Solved from the end upwards: each is a least-squares fit, and there is one.
        fixed.append({**place, **more, "coercivity": None, "stable": True, **measure(f, systems.own_path[m, k])})
    kinds = [kind for kind in settings.classes if kind != "per_time"]
    for m in settings.features if kinds else ():
        gram, kept = systems.gram[:m, :m], principal(systems.gram[:m, :m])
        begin = {"shared": np.zeros((m, dimension)), "plain": fitted(gram, systems.fit[:m])}

        def rows(cell: Row, weights: np.ndarray, m: int = m, gram: np.ndarray = gram) -> Iterator[Row]:
            """A row for each class, of their weights side by side (m, classes · d)."""
            for kind, a in zip(kinds, np.split(weights, len(kinds), axis=1), strict=True):
                last = systems.right[kind, settings.N][:m]
                with np.errstate(invalid="ignore"):
                    path = systems.squares[kind] + float(np.sum(a * (gram @ a - 2 * last)))
                    yield {**cell, "class": kind, **measure(bases[kind] + g[:, :m] @ a, path / dimension)}

        start = np.hstack([begin[kind] for kind in kinds])
        known += [
            row for row in rows({**place, "m": m, "who": "fit of the denoiser"}, start) if row["class"] == "plain"
        ]
        for k in settings.k:
            later, right = systems.later[k][:m, :m], np.hstack([systems.right[kind, k][:m] for kind in kinds])
            cell = {**place, "m": m, "k": k, "share": k / settings.N}
            rest = at_rest(gram, later, right, kept)
            about = {"rank": rest.rank, "coercivity": rest.coercivity, "stable": rest.stable}
            fixed += rows({**cell, **about}, rest.weights)
            for tau, a in flow(gram, later, right, start, settings.decades) if m in settings.flow else ():
                moving += rows({**cell, "tau": tau}, a)
    return fixed, moving, known


# ----------------------------------------------------------------- inference


def paired(differences: Sequence[float]) -> tuple[float, float, float, float]:
    """(mean, low, high, two-sided p) of paired differences, by Student's t; no spread at all: p is 1 for none and 0 for some."""
    d = np.asarray(differences, dtype=np.float64)
    mean, se = float(d.mean()), float(d.std(ddof=1)) / math.sqrt(len(d))
    if se == 0:
        return mean, mean, mean, float(mean == 0)
    wide = float(stats.t.ppf(1 - LEVEL / 2, len(d) - 1)) * se
    return mean, mean - wide, mean + wide, 2 * float(stats.t.sf(abs(mean) / se, len(d) - 1))


def _cells(rows: Iterable[Row]) -> dict[tuple[Any, ...], dict[tuple[int, int], dict[int, Row]]]:
    """(process, dimension, class, τ) → (m, k) → seed → row."""
    found: dict[tuple[Any, ...], dict[tuple[int, int], dict[int, Row]]] = {}
    for row in rows:
        at = (row["process"], row["dimension"], row["class"], row.get("tau", AT_REST))
        found.setdefault(at, {}).setdefault((row["m"], row["k"]), {})[row["seed"]] = row
    return found


def contrasts(rows: Iterable[Row]) -> list[Row]:
    """CONTRASTS: every measure of CONTRASTED at each k less that at either end, the other end's own once.

    A family of Holm's: one process, dimension, class, τ and measure; over m for k = 1 against N, over m and the interior k
    against one end. Where a value is missing (a flow that grew) there is no contrast of that cell.
    """
    out: list[Row] = []
    for at, cells in _cells(rows).items():
        sizes, ks = (sorted({key[i] for key in cells}) for i in (0, 1))
        ends = [(ks[0], ks[-1]), *((k, end) for end in (ks[0], ks[-1]) for k in ks[1:-1])]
        for measure in CONTRASTED:
            families: dict[tuple[bool, int], list[Row]] = {}
            for (k, end), m in itertools.product(ends, sizes):
                a, b = cells.get((m, k), {}), cells.get((m, end), {})
                pairs = [(a[s][measure], b[s][measure]) for s in sorted(a.keys() & b.keys())]
                if len(pairs) < 2 or any(v is None for pair in pairs for v in pair):
                    continue
                mean, low, high, p = paired([x - y for x, y in pairs])
                place = {"process": at[0], "dimension": at[1], "class": at[2], "tau": at[3], "m": m}
                row = {**place, "measure": measure, "k": k, "against": end, "difference": mean, "low": low}
                row |= {"high": high, "p": p, "n": len(pairs)}
                if CONTRASTED[measure]:
                    *logs, p = paired([math.log(max(x, TINY) / max(y, TINY)) for x, y in pairs])
                    row |= dict(zip(VALUES[3:6], map(math.exp, logs), strict=True)) | {"p": p}
                families.setdefault((k == ks[0], end), []).append(row)
            for family in families.values():
                for row, adjusted in zip(family, holm([row["p"] for row in family]), strict=True):
                    out.append({**row, "p_holm": adjusted})
    return out


def better(contrast: Row | None) -> int:
    """1 where k is better than what it is against, −1 where it is worse, 0 where Holm's p is above LEVEL or nothing is known."""
    if contrast is None or contrast["p_holm"] > LEVEL:
        return 0
    if CONTRASTED[contrast["measure"]]:
        return 1 if contrast["ratio"] < 1 else -1
    return 1 if contrast["difference"] > 0 else -1


def verdict(error: int, quality: int) -> str:
    """What it is, where CM (k = 1) is better (1), worse (−1) or neither (0) than Direct CM (k = N) in ODE error and in quality."""
    names = {(-1, 1): "inversion", (1, -1): "opposite", (1, 1): "CM better", (-1, -1): "Direct CM better"}
    return names.get((error, quality), "undecided")


def summary(rows: Sequence[Row], found: Sequence[Row]) -> list[Row]:
    """SUMMARY: a line for each m, from rows FIXED or FLOW and their contrasts.

    `verdict` takes sliced W₂ to the teacher for quality, `by_sw2_matched` the same at the teacher's mean and variance, `by_log_p0` the log density. `best_…`: the k of the best (geometric) mean.
    `beats_both_ends`: the interior k whose sliced W₂ is below both ends'; `…_in_both`: and their ODE error too. `unstable`: how
    many of its fixed points, over k and seeds, the flow would leave.
    """
    by_key = {tuple(c[name] for name in (*CELL, "tau", "measure", "k", "against")): c for c in found}
    out = []
    for at, cells in _cells(rows).items():
        ks = sorted({k for _, k in cells})
        for m in sorted({m for m, _ in cells}):
            key = (*at[:3], m, at[3])

            def contrast(measure: str, k: int, end: int, key: tuple[Any, ...] = key) -> Row | None:
                return by_key.get((*key, measure, k, end))

            def beats(k: int, measure: str, ks: list[int] = ks) -> bool:
                return all(better(contrast(measure, k, end)) == 1 for end in (ks[0], ks[-1]))

            def best(
                measure: str, m: int = m, ks: list[int] = ks, cells: Mapping[Any, Mapping[int, Row]] = cells
            ) -> int | None:
                means = {}
                for k in ks:
                    values = [row[measure] for row in cells.get((m, k), {}).values()]
                    if values and None not in values:
                        means[k] = math.fsum(
                            (math.log(max(v, TINY)) for v in values) if CONTRASTED[measure] else (-v for v in values)
                        )
                return min(means, key=lambda k: means[k]) if means else None

            ends = {name: contrast(name, ks[0], ks[-1]) for name in JUDGED}
            signs = {name: better(row) for name, row in ends.items()}
            winners = [k for k in ks[1:-1] if beats(k, "sw2_teacher")]
            line: Row = dict(zip(CELL, key[:4], strict=True)) | {
                "tau": at[3],
                "verdict": verdict(signs["ode_error"], signs["sw2_teacher"]),
                "by_sw2_matched": verdict(signs["ode_error"], signs["sw2_matched"]),
                "by_log_p0": verdict(signs["ode_error"], signs["log_p0"]),
                **{f"best_{name}": best(name) for name in ends},
                "beats_both_ends": " ".join(map(str, winners)),
                "beats_both_in_both": " ".join(str(k) for k in winners if beats(k, "ode_error")),
                "unstable": sum(not row.get("stable", True) for k in ks for row in cells.get((m, k), {}).values()),
                "n": max(len(cells.get((m, k), {})) for k in ks),
            }
            for name, row in ends.items():
                line |= {f"{name}_{value}": row.get(value) if row else None for value in VALUES[:-1] if value != "p"}
            out.append(line)
    return out


def make(settings: config.FixedPoints, seed: int, out: Path) -> None:
    """Write fixed_points.csv (FIXED), flow.csv (FLOW), references.csv, contrasts.csv and summary.csv of both, rest first."""
    units = list(itertools.product(settings.processes, settings.dimensions, range(settings.seeds)))
    progress = Progress("fixed points", len(units), "unit")
    fixed: list[Row] = []
    moving: list[Row] = []
    known: list[Row] = []
    with torch.no_grad():
        for name, dimension, draw in units:
            for rows, more in zip((fixed, moving, known), of_unit(settings, name, dimension, seed + draw), strict=True):
                rows += more
            progress.update(1)
    both = [(rows, contrasts(rows)) for rows in (fixed, moving)]
    with new_artifact(out, "fixed_points", settings={**settings.model_dump(mode="json"), "seed": seed}) as art:
        write_csv(art / "fixed_points.csv", fixed, FIXED)
        write_csv(art / "flow.csv", moving, FLOW)
        write_csv(art / "references.csv", known, REFERENCES)
        write_csv(art / "contrasts.csv", [row for _, found in both for row in found], CONTRASTS)
        lines = [line for rows, found in both for line in summary(rows, found)]
        write_csv(art / "summary.csv", lines, SUMMARY)
        art.counts = {"fixed_points": len(fixed), "flow": len(moving), "cells": len(lines)}
