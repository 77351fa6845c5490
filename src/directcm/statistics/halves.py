"""Variance of a statistic over prompts, from its values on halves of them and on what these leave out.

A half w of the prompts and its complement w̄ are independent samples. With odd = (T(w) − T(w̄))/2, even = (T(w) + T(w̄))/2 and the mean
over random halves:

- E[odd²] = Var T(half)/2, whatever T is. Where the variance falls as 1/n that is the variance at n. (Shao & Wu 1989, for halves.)
- E[odd²] − Var(even) = −Cov(T(w), T(w̄)) = Var of the mean of T over all halves. For a statistic that is linear or quadratic in the
  sample (any kernel distance; a Fréchet distance to that order) that is Var T at n, also where the linear part is nothing: for
  two sets of one distribution the variance falls as 1/n², Var(even) estimates it and E[odd²] is twice as large. The
  delete-half jackknife without complements gives odd² + even² there: three times the variance.

Several seeds share their prompts: a statistic per seed gives matrices of odd·odd and even·even. Their mean over all pairs of seeds is
the variance of the mean, that over pairs of different seeds the part that all seeds share; the rest differs from seed to seed, and the
spread between seeds has it already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from directcm.runtime import rng

# Pairs of halves: the variance they give has a relative error of about 10 %.
PAIRS = 200


@dataclass(frozen=True)
class Spread:
    """Variance over prompts of a mean over these seeds: all of it, and the part that all seeds share (one seed: all)."""

    whole: float
    shared: float


def paired_halves(n: int, pairs: int, seed: int) -> np.ndarray:
    """Random halves of n prompts: bool (2 pairs, n), n // 2 true in each row; row pairs + j is what row j leaves out.

    With n odd, each pair leaves out one prompt more.
    """
    order = rng.generator(seed, "delete-half jackknife").random((pairs, n)).argsort(axis=1)
    kept = np.zeros((2 * pairs, n), dtype=bool)
    size = n // 2
    np.put_along_axis(kept[:pairs], order[:, :size], True, axis=1)
    np.put_along_axis(kept[pairs:], order[:, size : 2 * size], True, axis=1)
    return kept


@dataclass(frozen=True)
class Halves:
    """Values (S, 2 pairs) of a statistic per seed on `paired_halves` of n prompts."""

    values: np.ndarray
    n: int

    @property
    def pairs(self) -> int:
        return self.values.shape[1] // 2

    def _means(self, different: bool) -> tuple[float, float]:
        """Means of odd·odd and of the covariance of even over pairs of seeds: all of them, or different ones."""
        first, second = np.split(self.values, 2, axis=1)
        odd, even = (first - second) / 2, (first + second) / 2
        even = even - even.mean(axis=1, keepdims=True)

        def mean(x: np.ndarray) -> float:
            products = x @ x.T
            seeds = len(products)
            if not different or seeds == 1:
                return float(products.mean())
            return float((products.sum() - np.trace(products)) / (seeds * (seeds - 1)))

        return mean(odd) / self.pairs, mean(even) / max(self.pairs - 1, 1)

    @property
    def _kept(self) -> float:
        """The share of the prompts in a pair: with n odd one is left out."""
        return 2 * (self.n // 2) / self.n

    def _spread(self, of: Callable[[float, float], float]) -> Spread:
        whole, shared = (max(0.0, of(*self._means(different))) for different in (False, True))
        return Spread(whole, shared)

    @property
    def count(self) -> Spread:
        """Of a statistic whose variance falls as 1/n: a share of samples, say."""
        return self._spread(lambda odd, even: self._kept * odd)

    @property
    def distance(self) -> Spread:
        """Of a linear or quadratic statistic.

        Never less than half of the quadratic part alone: where that is all, odd² − even² of one sample is the smaller the smaller T
        is, down to 0. The floor makes the variance 15 to 40 % too large there in the mean, and the tests keep their size.
        """
        return self._spread(lambda odd, even: max(odd - even, self._kept**2 * even / 2))

    def extrapolated(self, sizes: list[int], subsets: int) -> Spread:
        """Of the intercept of the line in 1/m through means of a distance over `subsets` random subsets of m rows, m in `sizes`.

        The mean over all subsets has, but for a constant, the same linear and quadratic part at each m: the variance is that of
        the distance itself, and that of the draw. Drawn are subsets without common rows, as many as fit into n, then
        others. q of them have by the draw a mean of variance n L/(q m) (1 − q m/n) + (n/m)² Q/q (1 − q m(m−1)/(n(n−1))), with L and
        Q the variances of the linear and of the quadratic part at n.
        """
        n = self.n
        design = np.stack([np.ones(len(sizes)), 1 / np.array(sizes, dtype=np.float64)], axis=1)
        weights = np.linalg.pinv(design)[0]

        def total(odd: float, even: float) -> float:
            quadratic = max(self._kept**2 * even, 0.0)
            own = max(odd - even, quadratic / 2)
            linear = max(own - quadratic, 0.0)
            drawn = 0.0
            for m, weight in zip(sizes, weights, strict=True):
                if m == n:
                    continue
                together = m * (m - 1) / (n * (n - 1))
                fit, left = n // m, subsets
                while left:
                    q = min(fit, left)
                    left -= q
                    variance = n * linear / (q * m) * (1 - q * m / n) + (n / m) ** 2 * quadratic / q * (
                        1 - q * together
                    )
                    drawn += (weight * q / subsets) ** 2 * variance
            return own + drawn

        return self._spread(total)
