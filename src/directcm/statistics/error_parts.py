"""A mean squared error taken apart: into bias, gain and scatter, and along the principal directions of what is compared with.

**Parts** (Murphy 1988, Mon. Wea. Rev. 116, 2417). With f the samples, y what they should be and every group's means removed from
both, over all rows and components: s_f² and s_y² the variances, ρ the correlation,

    E(f − y)² = Σ_g n_g/n·|f̄_g − ȳ_g|²/D + (s_f − ρ s_y)² + (1 − ρ²) s_y².

The first is the bias. The second is what one factor on f would take away: it is 0 where s_f = ρ s_y, and large where f is spread too
far for how well it knows y. The third is what no factor takes away. A group of n_g rows has a bias of s²/n_g by chance alone.

**Directions.** With v_k the orthonormal eigenvectors of the covariance of y over all rows, largest variance first,
E‖f − y‖² = Σ_k E⟨f − y, v_k⟩² + the rest, which lies outside those that are kept. All numbers are divided by D, so that the parts and
the directions add up to the same mean over components.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import linalg, stats

from directcm.errors import UserError
from directcm.statistics.baselines import chunks, flat, mean_of, members

# Directions that are kept, and rows that they are computed from: any orthonormal ones share out the error exactly.
MOST = 1024
ROWS = 2048
# A variance below this share of the squared means is none.
_ROUNDING = 1e-24


@dataclass(frozen=True)
class Parts:
    """bias + gain + scatter = error. `correlation` and `variance_ratio` (s_f²/s_y²) are None where a variance is 0."""

    error: float
    bias: float
    gain: float
    scatter: float
    correlation: float | None
    variance_ratio: float | None


def parts(f: np.ndarray, y: np.ndarray, groups: np.ndarray) -> Parts:
    """The parts of the mean squared difference of f and y, (n, …) each, matched by row, in groups (n,) numbered from 0."""
    if f.shape != y.shape or groups.shape != f.shape[:1] or not f.size:
        raise UserError(f"error parts: shapes {f.shape}, {y.shape} and groups {groups.shape} do not belong together")
    bias, sizes = 0.0, np.zeros(2)
    sums = np.zeros(3)
    for rows in members(groups):
        f_mean, y_mean = mean_of(f, rows), mean_of(y, rows)
        bias += len(rows) * float(np.sum((f_mean - y_mean) ** 2))
        sizes += len(rows) * np.array([np.vdot(f_mean, f_mean), np.vdot(y_mean, y_mean)])
        for part in chunks(rows, f_mean.size):
            one, other = flat(f, part) - f_mean, flat(y, part) - y_mean
            sums += np.vdot(one, one), np.vdot(other, other), np.vdot(one, other)
    bias /= f.size
    own, theirs, both = (float(x) for x in sums / f.size)
    # What is left of numbers that do not vary is rounding, with which nothing is correlated.
    varies = [total > _ROUNDING * size for total, size in zip(sums, sizes, strict=False)]
    # ρ s_y: the slope on f, in units of s_f.
    explained = both / np.sqrt(own) if varies[0] else 0.0
    gain, scatter = float((np.sqrt(own) - explained) ** 2), max(float(theirs - explained**2), 0.0)
    known = all(varies)
    return Parts(
        error=bias + own + theirs - 2 * both,
        bias=bias,
        gain=gain,
        scatter=scatter,
        correlation=float(both / np.sqrt(own * theirs)) if known else None,
        variance_ratio=own / theirs if varies[1] else None,
    )


def influences(f: np.ndarray, y: np.ndarray, groups: np.ndarray) -> dict[str, np.ndarray]:
    """What each row adds to each of `parts`, (n,) by the name of the part, to first order: the mean is 0, and s²/n the variance over rows.

    The derivative of the part by the row's share among all rows (the delta method), of which those of its own group's means are a part.
    A part that is None, or that rows do not change, has zeros.
    """
    n, size = len(f), f[0].size
    apart, own, both, theirs, bias = (np.zeros(n) for _ in range(5))
    for rows in members(groups):
        f_mean, y_mean = mean_of(f, rows), mean_of(y, rows)
        offset = f_mean - y_mean
        for part in chunks(rows, f_mean.size):
            one, other = flat(f, part) - f_mean, flat(y, part) - y_mean
            own[part], theirs[part] = (one**2).sum(axis=1) / size, (other**2).sum(axis=1) / size
            both[part] = (one * other).sum(axis=1) / size
            apart[part] = 2 * (one - other) @ offset / size
            bias[part] = offset @ offset / size
    a, b, c = float(own.mean()), float(both.mean()), float(theirs.mean())
    da, db, dc = own - a, both - b, theirs - c
    nothing = np.zeros(n)
    if a <= 0 or c <= 0:
        return {
            "bias": apart + bias - bias.mean(),
            **dict.fromkeys(("gain", "scatter", "correlation", "variance_ratio"), nothing),
        }
    s = np.sqrt(a)
    explained = b / s
    slope = da / (2 * s)
    return {
        "bias": apart + bias - bias.mean(),
        "gain": 2 * (s - explained) * (slope - db / s + b / a * slope),
        "scatter": dc - 2 * b / a * db + (b / a) ** 2 * da,
        "correlation": (db - b / (2 * a) * da - b / (2 * c) * dc) / np.sqrt(a * c),
        "variance_ratio": da / c - a / c**2 * dc,
    }


@dataclass(frozen=True)
class Directions:
    """Principal directions of samples: `axes` (k, D) with orthonormal rows, the samples' `variances` (k,) along them, the mean (D,),
    and `variance`, that of all directions together. Variances are divided by D.
    """

    axes: np.ndarray
    variances: np.ndarray
    mean: np.ndarray
    variance: float

    @property
    def dim(self) -> int:
        return int(self.mean.size)


def _squares(rows: Iterator[np.ndarray], axes: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """Mean over `count` rows x of ⟨x, v_k⟩² (k,), and of ‖x‖², both divided by D; rows come in parts (b, D)."""
    along, whole = np.zeros(len(axes)), 0.0
    for x in rows:
        whole += float(np.vdot(x, x))
        along += ((x @ axes.T) ** 2).sum(axis=0)
    scale = count * axes.shape[1]
    return along / scale, whole / scale


def _about(values: np.ndarray, mean: np.ndarray) -> Iterator[np.ndarray]:
    return (flat(values, part) - mean for part in chunks(np.arange(len(values)), mean.size))


def principal(samples: np.ndarray, most: int = MOST, rows: int = ROWS) -> Directions:
    """The first `most` principal directions of samples (n, …), from the first `rows` of them, largest variance first."""
    x = flat(samples, np.arange(min(rows, len(samples))))
    x -= x.mean(axis=0)
    n, dim = x.shape
    if dim <= n:
        axes = linalg.eigh(x.T @ x)[1][:, ::-1].T
    else:
        values, vectors = linalg.eigh(x @ x.T)
        # Centred rows span n − 1 directions at most; what is left is rounding.
        kept = values > 1e-12 * max(float(values[-1]), 0.0)
        axes = ((vectors[:, kept] / np.sqrt(values[kept])).T @ x)[::-1]
        # Where the variance is small the quotients are no longer orthonormal to the last digits.
        axes = linalg.qr(axes.T, mode="economic")[0].T if len(axes) else axes
    axes = np.ascontiguousarray(axes[:most])
    mean = mean_of(samples, np.arange(len(samples)))
    variances, variance = _squares(_about(samples, mean), axes, len(samples))
    return Directions(axes, variances, mean, variance)


def bands(count: int, dim: int) -> list[tuple[int, int]]:
    """Ranks of `count` directions in octaves, (1, 1), (2, 3), (4, 7) … both ends included, and the rest of all `dim`."""
    found, first = [], 1
    while first <= count:
        found.append((first, min(2 * first - 1, count)))
        first *= 2
    return [*found, (count + 1, dim)] if count < dim else found


def spectrum(f: np.ndarray, y: np.ndarray, directions: Directions) -> list[dict[str, float]]:
    """By band of the directions of y: ranks `first` to `last`, the variance of y (`reference_variance`) and of f, the `error` of f.

    f and y are (n, …), matched by row. Every column adds up over the bands: the variances to the mean variance of a component, the
    errors to the mean squared error.
    """
    mean = mean_of(f, np.arange(len(f)))
    apart = (flat(f, part) - flat(y, part) for part in chunks(np.arange(len(f)), directions.dim))
    columns = {
        "reference_variance": (directions.variances, directions.variance),
        "variance": _squares(_about(f, mean), directions.axes, len(f)),
        "error": _squares(apart, directions.axes, len(f)),
    }
    kept = len(directions.axes)

    def inside(along: np.ndarray, whole: float, first: int, last: int) -> float:
        return float(along[first - 1 : last].sum()) if first <= kept else max(whole - float(along.sum()), 0.0)

    return [
        {"first": first, "last": last, **{name: inside(*own, first, last) for name, own in columns.items()}}
        for first, last in bands(kept, directions.dim)
    ]


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's ρ of two columns (n,): Pearson's of their ranks, equal values sharing the mean rank; None where one does not vary."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(stats.spearmanr(a, b).statistic)
