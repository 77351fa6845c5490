"""How sure a difference is: two trained methods on the same seeds, prompts and initial noise.

Two things are random: the training (seeds) and what it is judged on (prompts with their noise). `crossed` puts both into one interval
and one p. Given the trained students, the randomness of prompts alone is measured in three ways. Where a metric is a mean of per-prompt
values: by the paired bootstrap. Where it is a distance between sets (FD, KID, CMMD): by a permutation test, and a variance from halves of
the prompts (`statistics.halves`), since a plain bootstrap of a distance is invalid (repeated rows count as structure). Where it is
another function of whole sets (FD∞, precision, recall, density, coverage): by that variance alone.

Everything is paired: row i of every array is prompt i, first index s is training seed s of both methods, or teacher s with one student
of each method: whatever is drawn anew from s to s and shared by the two. Resampling takes whole prompts: row i of both
methods, all seeds and the reference together. The reference is one for all, or one for each s, where each has its own teacher.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize, special, stats

from directcm.errors import UserError
from directcm.runtime import rng
from directcm.statistics.bootstrap import resampled_means
from directcm.statistics.halves import PAIRS, Halves, paired_halves
from directcm.statistics.kernel import CMMD_SCALE, cubic, gaussian

# A permutation p that fewer than FEW permutations reach is drawn again from REFINE times as many.
FEW = 10
REFINE = 10
# Numbers held at a time by one array (128 MB).
_ELEMENTS = 16_000_000
# Numbers in a chunk of matrices (4 MB): what a processor's cache holds.
_CHUNK = 500_000
# |T*| ≥ |T| must hold for T* = T however its last bits fell.
_TIE = 1e-9


# ----------------------------------------------------------------- seeds × prompts


@dataclass(frozen=True)
class Crossed:
    """A difference with its interval and two-sided p over seeds and prompts; None where nothing estimates it.

    `se_seeds` and `se_prompts` are the standard errors due to either (None for one seed, or where the variance over
    prompts is not known); df says how many observations the sum of both is worth (Satterthwaite 1946), for a reader.
    """

    difference: float
    low: float | None = None
    high: float | None = None
    se_seeds: float | None = None
    se_prompts: float | None = None
    df: float | None = None
    p: float | None = None


def crossed(per_seed: np.ndarray, prompt_variance: float | None, n: int, level: float) -> Crossed:
    """The mean of per-seed differences d_s (S,) with seeds and prompts both random (Clark 1973).

    se_seeds² = s_d²/S with s_d² the sample variance of d_s, se_prompts² = `prompt_variance`: the variance over n prompts of the mean
    difference, given these students, as far as all seeds share it (`shared` of the tests below). What a prompt does in one seed
    alone is in s_d² already. p is `cautious_p`, the interval at `level` D̂ ± `critical`: the Behrens–Fisher solution, since either
    variance is estimated with its own degrees of freedom. Simulated (docs/statistics.md), a nominal 95 % covers 95 to 98 % at 3, 5 and
    10 seeds. (Satterthwaite's t_df covers 92 % at 3 seeds and 87 % at 2.)

    d_s may also be one difference per teacher, each of one student seed: what is drawn anew then is teacher and student both.
    One seed: se_prompts alone, which says nothing about other seeds; `prompt_variance` is then all of the variance. No variance over
    prompts (None): no interval and no p, since prompts that all seeds share would be taken for fixed. Neither has a
    difference without any spread that is not 0.
    """
    d = np.asarray(per_seed, dtype=np.float64)
    if d.ndim != 1 or d.size < 1 or not np.isfinite(d).all():
        raise UserError(f"per-seed differences: expected finite numbers, one per seed, found shape {d.shape}")
    if prompt_variance is not None and not (math.isfinite(prompt_variance) and prompt_variance >= 0 and n >= 2):
        raise UserError(
            f"variance over prompts: expected ≥ 0 over at least 2 prompts, found {prompt_variance} over {n}"
        )
    seeds = d.size
    v_p = prompt_variance
    difference = math.fsum(d) / seeds
    v_s = float(d.var(ddof=1)) / seeds if seeds > 1 else None
    se_seeds, se_prompts = (None if v is None else math.sqrt(v) for v in (v_s, v_p))
    if v_p is None:
        return Crossed(difference, se_seeds=se_seeds)
    # A spread of rounding errors is none.
    variance = (v_s or 0.0) + v_p
    if math.sqrt(variance) <= 1e-13 * float(np.abs(d).max()):
        if np.any(d):
            return Crossed(difference, se_seeds=se_seeds, se_prompts=se_prompts)
        return Crossed(0.0, 0.0, 0.0, se_seeds, se_prompts, None, 1.0)
    # Shares of the variance, whose squares cannot underflow.
    share_s, share_p = (v_s or 0.0) / variance, v_p / variance
    df = 1 / ((share_s**2 / (seeds - 1) if seeds > 1 else 0.0) + (share_p**2 / (n - 1)))
    half, p = (
        critical(se_seeds, se_prompts, seeds, n, 1 - level),
        cautious_p(difference, se_seeds, se_prompts, seeds, n),
    )
    assert half is not None
    return Crossed(difference, difference - half, difference + half, se_seeds, se_prompts, df, p)


def _tail(size: float, se_seeds: float, se_prompts: float, df_seeds: int, df_prompts: int) -> float:
    """P(|se_seeds T + se_prompts T'| ≥ size), T and T' independent Student variables of these degrees of freedom, both se > 0."""
    # E over T' of the tail of T: Gauss–Legendre on panels, finer where that tail has its step.
    panels, nodes, weights, scale = _panels(df_prompts)
    step = size / se_prompts + se_seeds / se_prompts * _STEP
    edges = np.sort(np.concatenate([panels, np.clip(step, panels[0], panels[-1])]))
    half = np.diff(edges)[:, None] / 2
    y = edges[:-1, None] + half * (nodes + 1)
    density = scale * np.exp(-(df_prompts + 1) / 2 * np.log1p(y * y / df_prompts))
    tail = density * special.stdtr(df_seeds, (y * se_prompts - size) / se_seeds)
    return min(1.0, 2 * float((half * weights * tail).sum()))


_STEP = np.array([-64.0, -16, -4, -1, 0, 1, 4, 16, 64])


@functools.lru_cache(maxsize=64)
def _panels(df: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Edges of panels for Student's density, the nodes and weights of each, and the density's factor."""
    furthest = float(stats.t.isf(1e-15, df))
    nodes, weights = np.polynomial.legendre.leggauss(12)
    scale = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)
    return np.sinh(np.linspace(-1, 1, 33) * math.asinh(furthest)), nodes, weights, scale


def cautious_p(difference: float, se_seeds: float | None, se_prompts: float | None, seeds: int, n: int) -> float | None:
    """Two-sided p of a crossed difference (Behrens 1929; Fisher 1935).

    p = P(|se_seeds T_{S−1} + se_prompts T_{n−1}| ≥ |D̂|) with independent Student variables, the Behrens–Fisher solution:
    never above its level (Robinson 1976, Ann. Stat. 4). A standard error that is None is left out; None where nothing
    estimates a spread.
    """
    if seeds == 1:
        se_seeds = None
    size = abs(difference)
    if not se_seeds and not se_prompts:
        return 1.0 if difference == 0 and (se_seeds is not None or se_prompts is not None) else None
    if not se_seeds or not se_prompts:
        alone = (se_seeds or 0.0) + (se_prompts or 0.0)
        return 2 * float(stats.t.sf(size / alone, seeds - 1 if se_seeds else n - 1))
    return _tail(size, se_seeds, se_prompts, seeds - 1, n - 1)


@functools.lru_cache(maxsize=256)
def _quantile(tail: float, df: int) -> float:
    """What Student's variable exceeds with this probability."""
    return float(stats.t.isf(tail, df))


def critical(se_seeds: float | None, se_prompts: float | None, seeds: int, n: int, alpha: float) -> float | None:
    """The size of a difference at which `cautious_p` is alpha: half the width of an interval at 1 − alpha; None without a spread."""
    if seeds == 1:
        se_seeds = None
    if not se_seeds and not se_prompts:
        return None
    if not se_seeds or not se_prompts:
        return (se_seeds or 0.0) * _quantile(alpha / 2, max(seeds - 1, 1)) + (se_prompts or 0.0) * _quantile(
            alpha / 2, n - 1
        )
    # Where each part is exceeded with probability alpha/2 their sum is, with alpha at most.
    most = se_seeds * _quantile(alpha / 4, seeds - 1) + se_prompts * _quantile(alpha / 4, n - 1)
    return float(
        optimize.brentq(lambda size: _tail(size, se_seeds, se_prompts, seeds - 1, n - 1) - alpha, 0.0, most, rtol=1e-10)
    )


# ----------------------------------------------------------------- means of per-prompt values


@dataclass(frozen=True)
class PairedBootstrap:
    """Mean paired difference given these students: percentile interval, two-sided p, variance over prompts, per seed (S,).

    `shared`: the part of the variance that all seeds share (one seed: all of it).
    """

    difference: float
    low: float
    high: float
    p: float
    variance: float
    shared: float
    per_seed: np.ndarray


def paired_bootstrap(a: np.ndarray, b: np.ndarray, resamples: int, seed: int, level: float = 0.95) -> PairedBootstrap:
    """Bootstrap over prompts (Efron 1979) of the seed-averaged difference of per-prompt values a − b, (S, n) each.

    A resample draws n prompts with replacement and takes both methods' values of all seeds there: what the two share at a
    prompt cancels, as it must. The interval is the percentile one at `level`; p = 2 min over both sides of
    (1 + #{D* on the other side of 0, or on it})/(1 + B), at most 1: the interval turned over. Variance: s²/n of the seed-averaged
    differences; `shared`: the mean covariance of two seeds' differences over n, at least 0. Equal n and seed draw the same prompts.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 2 or a.shape[0] < 1 or a.shape[1] < 2:
        raise UserError(
            f"paired bootstrap: values have shapes {a.shape} and {b.shape}, expected one shape (seeds, prompts), prompts ≥ 2"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UserError("paired bootstrap: a value is NaN or infinite; evaluate again")
    own = a - b
    differences = own.mean(axis=0)
    means = resampled_means(differences, resamples, level, seed, "paired bootstrap").bootstrap_distribution
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    # Differences that are all 0 at the drawn prompts average to 0 exactly.
    tail = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p = min(1.0, 2 * (1 + tail) / (1 + resamples))
    seeds, n = own.shape
    variance = float(differences.var(ddof=1)) / n
    # The variance of a mean over seeds is a share 1/S of their own variances, and the rest of their covariances.
    each = float(own.var(axis=1, ddof=1).mean()) / n
    shared = variance if seeds == 1 else max(0.0, (seeds * variance - each) / (seeds - 1))
    return PairedBootstrap(float(differences.mean()), float(low), float(high), p, variance, shared, own.mean(axis=1))


# ----------------------------------------------------------------- distances between sets


@dataclass(frozen=True)
class DistanceTest:
    """Difference of two distances to a reference, mean over seeds; per seed (S,); variance over prompts; permutation p.

    `shared`: the part of the variance that all seeds share (one seed: all of it). `halves`: what both come from.
    """

    difference: float
    per_seed: np.ndarray
    halves: Halves
    p: float

    @property
    def variance(self) -> float:
        return self.halves.distance.whole

    @property
    def shared(self) -> float:
        return self.halves.distance.shared


def _triple(a: np.ndarray, b: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three sets in float64, the reference as (S, n, D); UserError unless a and b are (S, n, D), it (n, D) or that, n ≥ 4, all finite."""
    a, b, reference = (np.asarray(x, dtype=np.float64) for x in (a, b, reference))
    if a.ndim != 3 or a.shape != b.shape or a.shape[0] < 1:
        raise UserError(
            f"features have shapes {a.shape} and {b.shape}: a paired test needs one shape (seeds, prompts, size)"
        )
    if reference.ndim == 2:
        reference = np.broadcast_to(reference, (a.shape[0], *reference.shape))
    if reference.shape != a.shape:
        raise UserError(
            f"features have shape {a.shape[1:]}, the reference {reference.shape[1:]}: distances at another n or of another "
            "extractor are not comparable; cut the longer set"
        )
    if a.shape[1] < 4 or a.shape[2] < 1:
        raise UserError(f"features have shape {a.shape[1:]}: a test of distances needs at least 4 rows")
    for name, x in (("first", a), ("second", b), ("reference", reference)):
        if not np.isfinite(x).all():
            raise UserError(f"features of the {name} set are NaN or infinite; make them again")
    return a, b, reference


def _flips(n: int, permutations: int, seed: int, *stage: int) -> np.ndarray:
    """Which prompts swap their labels: bool (permutations, n), each with probability ½."""
    generator = rng.generator(seed, "permutation test", *stage)
    return generator.integers(0, 2, size=(permutations, n), dtype=np.int8).astype(bool)


def _permutation_p(
    observed: float,
    statistic: Callable[[np.ndarray], np.ndarray],
    scale: float,
    n: int,
    permutations: int,
    seed: int,
    refine: int,
) -> float:
    """(1 + #{|T*| ≥ |T|})/(1 + B), where differences below 1e-9 relative, or 1e-13 of `scale`, are ties.

    `statistic` takes swaps (B, n) to T* (B,). Where fewer than FEW of them reach |T|, `refine` times as many are drawn in
    all, so that a small p is not cut off at 1/(1 + B): Holm and Bonferroni multiply it. Such a p keeps its size at any level:
    above (1 + FEW)/(1 + B) the first stage decides, below it the second (as in Besag & Clifford 1991).
    """
    bound = abs(observed) * (1 - _TIE) - 1e-13 * scale
    chunk = max(1, _ELEMENTS // n)

    def reach(count: int, stage: int) -> int:
        """How many of `count` permutations of a stage reach |T|."""
        return sum(
            int((np.abs(statistic(_flips(n, min(chunk, count - start), seed, stage, start))) >= bound).sum())
            for start in range(0, count, chunk)
        )

    reached, drawn = reach(permutations, 0), permutations
    if refine > 1 and reached < FEW:
        more = refine * (permutations + 1) - 1 - permutations
        reached, drawn = reached + reach(more, 1), drawn + more
    return (1 + reached) / (1 + drawn)


def _second_moments(
    rows: np.ndarray, weights: np.ndarray, minus: np.ndarray | None = None
) -> Iterator[tuple[slice, np.ndarray]]:
    """Σ_i w_bi (x_i x_iᵀ − z_i z_iᵀ) for rows x and z = `minus` (none: 0), (n, D), and weights (B, n): chunks (which b, (…, D, D))."""
    n, dim = rows.shape
    upper = np.triu_indices(dim)
    packed = None
    if n * upper[0].size <= _ELEMENTS:
        # A matrix is symmetric: half its entries, for all weights in one product.
        packed = rows[:, upper[0]] * rows[:, upper[1]]
        if minus is not None:
            packed -= minus[:, upper[0]] * minus[:, upper[1]]
        place = np.empty((dim, dim), dtype=np.intp)
        place[upper] = place.T[upper] = np.arange(upper[0].size)
    chunk = max(1, _CHUNK // (dim * dim))
    for start in range(0, len(weights), chunk):
        part = slice(start, min(start + chunk, len(weights)))
        some = weights[part].astype(np.float64)
        if packed is not None:
            yield part, (some @ packed).take(place, axis=1)
            continue
        out = np.empty((len(some), dim, dim))
        for k, weight in enumerate(some):
            out[k] = (rows * weight[:, None]).T @ rows
            if minus is not None:
                out[k] -= (minus * weight[:, None]).T @ minus
        yield part, out


def _nuclear(squares: np.ndarray) -> np.ndarray:
    """tr of the root of symmetric positive semi-definite matrices (B, r, r), (B,)."""
    return np.sqrt(np.clip(np.linalg.eigvalsh(squares), 0.0, None)).sum(axis=1)


def _frechet_permuted(
    a: np.ndarray, b: np.ndarray, reference: np.ndarray, swap: np.ndarray
) -> tuple[np.ndarray, float]:
    """FD(a*, ref) − FD(b*, ref) of one seed's sets (n, D) for each row of swap (B, n), and the scale of its rounding errors.

    With R_ref' R_ref = Σ_ref the last term of FD is 2 tr (R Σ R')^½, and in coordinates y = R (x − μ_ref) its argument is
    the covariance of y. Swapping is linear in second moments: M_a* = M_a + Σ_i f_i (y_b y_b' − y_a y_a'), M_b* = M_a + M_b − M_a*.
    """
    n = len(a)
    centre = reference.mean(axis=0)
    root = linalg.qr((reference - centre) / math.sqrt(n - 1), mode="r", check_finite=False)[0][: min(reference.shape)]
    a, b = a - centre, b - centre
    ya, yb = a @ root.T, b @ root.T
    swap = swap.astype(np.float64)
    moved = swap @ (b - a)
    squares_a, squares_b = np.einsum("nd,nd->n", a, a), np.einsum("nd,nd->n", b, b)
    traced = swap @ (squares_b - squares_a)
    out = np.zeros(len(swap))
    moment_a, moment_b = ya.T @ ya, yb.T @ yb
    for part, shift in _second_moments(yb, swap, minus=ya):
        for sign, sums, total, moment in (
            (1, a.sum(axis=0) + moved[part], squares_a.sum() + traced[part], moment_a + shift),
            (-1, b.sum(axis=0) - moved[part], squares_b.sum() - traced[part], moment_b - shift),
        ):
            mean = sums / n
            offset = np.einsum("bd,bd->b", mean, mean)
            projected = mean @ root.T
            moment -= (n * projected)[:, :, None] * projected[:, None, :]
            out[part] += sign * (offset + (total - n * offset - 2 * math.sqrt(n - 1) * _nuclear(moment)) / (n - 1))
    return out, float((squares_a.sum() + squares_b.sum()) / n)


def _frechet_halves(sets: Sequence[np.ndarray], reference: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """FD(set, ref) − tr Σ_ref for each set (n, D) and row of kept (J, n): rows of a half, of both sides; (len(sets), J)."""
    size = int(kept[0].sum())
    centre = reference.mean(axis=0)
    weights = kept.astype(np.float64)
    # Of few rows in many dimensions: nothing of them lies outside their span, and FD is the same in its coordinates.
    stacked = np.concatenate([*sets, reference]) - centre
    if len(stacked) < centre.size:
        stacked = linalg.qr(stacked.T, mode="r", check_finite=False)[0][: len(stacked)].T
        *sets, reference = np.split(stacked, len(sets) + 1)
        centre = np.zeros(stacked.shape[1])

    def moments(rows: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        means = weights @ rows / size
        for part, total in _second_moments(rows, weights):
            mean = means[part]
            yield part, mean, (total - size * mean[:, :, None] * mean[:, None, :]) / (size - 1)

    out = np.zeros((len(sets), len(kept)))
    for (part, mean_ref, cov_ref), *others in zip(
        moments(reference - centre), *(moments(rows - centre) for rows in sets), strict=True
    ):
        values, vectors = np.linalg.eigh(cov_ref)
        root = vectors * np.sqrt(np.clip(values, 0.0, None))[:, None, :]
        turned = root.transpose(0, 2, 1)
        for k, (_, mean, cov) in enumerate(others):
            out[k, part] = (
                ((mean - mean_ref) ** 2).sum(axis=1)
                + np.trace(cov, axis1=1, axis2=2)
                - 2 * _nuclear(turned @ cov @ root)
            )
    return out


def frechet_difference_halves(
    a: np.ndarray, b: np.ndarray, reference: np.ndarray, seed: int, pairs: int = PAIRS
) -> Halves:
    """FD(a_s, ref) − FD(b_s, ref) on halves of the prompts, for the sets of `frechet_difference_test`."""
    a, b, reference = _triple(a, b, reference)
    seeds, n, _ = a.shape
    kept = paired_halves(n, pairs, seed)
    if reference.strides[0] == 0:
        # One reference for all: its covariances are decomposed once.
        values = _frechet_halves([*a, *b], reference[0], kept)
        return Halves(values[:seeds] - values[seeds:], n)
    each = [_frechet_halves([x, y], r, kept) for x, y, r in zip(a, b, reference, strict=True)]
    return Halves(np.array([x - y for x, y in each]), n)


def frechet_difference_test(
    a: np.ndarray,
    b: np.ndarray,
    reference: np.ndarray,
    permutations: int,
    seed: int,
    *,
    refine: int = REFINE,
    pairs: int = PAIRS,
    halves: Halves | None = None,
) -> DistanceTest:
    """Test of T = mean over seeds of FD(a_s, ref) − FD(b_s, ref) for features a, b (S, n, D) and reference (n, D), or ref_s (S, n, D).

    Permutation (Pitman 1937; Good 2005): under the null that the methods' label means nothing, swapping a prompt's
    features between a and b leaves the distribution as it is. Each prompt is swapped or not with probability ½, in all
    seeds together: what a method makes of a prompt is alike from seed to seed, and a swap seed by seed would count it S times.
    p = (1 + #{|T*| ≥ |T|})/(1 + B), two-sided, refined where it is small (`_permutation_p`). Its null is equality of the two
    distributions, given these students. Variance over prompts: from `pairs` of halves, rows kept jointly in a, b and reference (`halves`:
    those of `frechet_difference_halves`, where they are there already).

    FD is that of `statistics.frechet` (to about 1e-10; 1e-7 where n − 1 < D); unequal n is a UserError. Time grows with
    S (B + J) D³: seconds at D = 64, hours at D = 2048, where `permutations` may be lowered.
    """
    a, b, reference = _triple(a, b, reference)
    seeds, n, _ = a.shape
    # Nothing swapped: the observed value comes out of the same arithmetic as the permuted ones.
    found = [_frechet_permuted(a[s], b[s], reference[s], np.zeros((1, n), dtype=bool)) for s in range(seeds)]
    per_seed = np.array([value[0] for value, _ in found])
    observed = float(per_seed.mean())

    def permuted(swap: np.ndarray) -> np.ndarray:
        return np.mean([_frechet_permuted(a[s], b[s], reference[s], swap)[0] for s in range(seeds)], axis=0)

    return DistanceTest(
        observed,
        per_seed,
        halves or frechet_difference_halves(a, b, reference, seed, pairs),
        _permutation_p(observed, permuted, float(np.mean([s for _, s in found])), n, permutations, seed, refine),
    )


@dataclass(frozen=True)
class Kernel:
    """A kernel distance: what is done to features (…, D) first, the kernel as a function of inner products, and a factor."""

    prepare: Callable[[np.ndarray], np.ndarray]
    of: Callable[[np.ndarray], np.ndarray]
    scale: float = 1.0


def _unit(features: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(features, axis=-1, keepdims=True)
    if not (norms > 0).all():
        raise UserError("CMMD: an embedding is zero; make the features again")
    return features / norms


# (x·y/D + 1)³, and exp(−|x − y|²/(2σ²)) between unit vectors, σ = 10, times 1000, as in `statistics.kernel`.
KERNELS = {
    "kid": Kernel(lambda features: features / math.sqrt(features.shape[-1]), cubic),
    "cmmd": Kernel(_unit, gaussian, CMMD_SCALE),
}


def kernel_difference_test(
    a: np.ndarray,
    b: np.ndarray,
    reference: np.ndarray,
    kernel: str,
    permutations: int,
    seed: int,
    *,
    refine: int = REFINE,
    pairs: int = PAIRS,
) -> DistanceTest:
    """The test of `frechet_difference_test` for unbiased MMD² (Gretton et al. 2012) with a kernel of `KERNELS`.

    With a_i = m_i + δ_i and b_i = m_i − δ_i in the kernel's space, a swap turns the sign of δ_i, and the difference of
    the two MMD² is linear in the signs: T(σ) = Σ_j σ_j t_j,
    t_j = Σ_{i≠j} [k(a_i, a_j) − k(a_i, b_j) + k(b_i, a_j) − k(b_i, b_j)]/(n(n − 1)) − 2 Σ_r [k(a_j, r) − k(b_j, r)]/n².
    So all permutations are one product of signs with t. A half's value is a quadratic form of its indicator, with the
    kernel matrices computed once, in blocks of rows.
    """
    a, b, reference = _triple(a, b, reference)
    seeds, n, _ = a.shape
    chosen = KERNELS[kernel]
    a, b, reference = map(chosen.prepare, (a, b, reference))
    kept = paired_halves(n, pairs, seed).astype(np.float64)
    size = n // 2
    block = max(1, _ELEMENTS // (8 * n))
    terms = np.zeros((seeds, n))
    half = np.zeros((seeds, *kept.shape))
    for s in range(seeds):
        for start in range(0, n, block):
            part = slice(start, min(start + block, n))
            here = np.arange(part.stop - start)
            aa, ab, ba, bb = (
                chosen.of(x[part] @ y.T) for x, y in ((a[s], a[s]), (a[s], b[s]), (b[s], a[s]), (b[s], b[s]))
            )
            for matrix in (aa, ab, ba, bb):
                matrix[here, start + here] = 0.0
            to_ref = chosen.of(a[s, part] @ reference[s].T) - chosen.of(b[s, part] @ reference[s].T)
            terms[s] += (aa - ab + ba - bb).sum(axis=0) / (n * (n - 1))
            terms[s, part] -= 2 * to_ref.sum(axis=1) / n**2
            half[s] += kept[:, part] @ ((aa - bb) / (size * (size - 1)) - 2 * to_ref / size**2)
    terms *= chosen.scale
    joint = terms.mean(axis=0)
    on_halves = chosen.scale * (half * kept).sum(axis=2)
    if not (np.isfinite(terms).all() and np.isfinite(on_halves).all()):
        raise UserError("the kernel distance overflows float64: the features are too large")
    observed = float(joint.sum())
    return DistanceTest(
        observed,
        terms.sum(axis=1),
        Halves(on_halves, n),
        _permutation_p(
            observed, lambda swap: (1.0 - 2.0 * swap) @ joint, float(np.abs(joint).sum()), n, permutations, seed, refine
        ),
    )


# ----------------------------------------------------------------- other functions of whole sets


def halves_p(difference: float, variance: float, n: int, pairs: int) -> float | None:
    """Two-sided p of a difference whose variance over n prompts, given these students, is known from so many pairs of halves.

    By Student's t with as many degrees of freedom as there were pairs, and n − 1 at most. No variance: 1 for no
    difference, else None.
    """
    if variance <= 0:
        return 1.0 if difference == 0 else None
    return 2 * float(stats.t.sf(abs(difference) / math.sqrt(variance), min(n - 1, pairs)))


# ----------------------------------------------------------------- several tests at once


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979), in the given order: rejecting where they are ≤ α errs in any of them with
    probability ≤ α, however the tests depend on each other."""
    if any(not 0 <= value <= 1 for value in p):
        raise ValueError("p-values lie in [0, 1]")
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(np.arange(len(p), 0, -1) * np.asarray(p)[order]).clip(max=1.0)
    return adjusted[np.argsort(order)].tolist()
