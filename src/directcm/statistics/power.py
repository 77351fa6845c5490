"""What a test of a crossed difference would have found: its power, and the smallest effect that it finds with a given power.

Both take the spread that was estimated for the true one: with few seeds they are themselves rough (a standard deviation of three seeds is
off by a factor of two as often as not).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from scipy import interpolate, optimize, stats

from directcm.statistics.inference import critical

# Quantiles of the spread between seeds, over which the power is a mean.
_QUANTILES = 2000


@functools.lru_cache(maxsize=64)
def _curve(seeds: int, n: int, alpha: float) -> Callable[[np.ndarray], np.ndarray]:
    """The critical size as a function of the angle whose sine is se_seeds and whose cosine is se_prompts."""
    angles = (1 - np.cos(np.linspace(0, np.pi, 33))) * np.pi / 4
    sizes = [critical(math.sin(angle), math.cos(angle), seeds, n, alpha) for angle in angles[1:-1]]
    ends = critical(None, 1.0, seeds, n, alpha), critical(1.0, None, seeds, n, alpha)
    return interpolate.PchipInterpolator(angles, [ends[0], *sizes, ends[1]])


def power(
    effect: float, se_seeds: float | None, se_prompts: float | None, seeds: int, n: int, alpha: float
) -> float | None:
    """The chance that `cautious_p` is at most alpha where the true difference is `effect` (in the metric's unit, either sign).

    `se_seeds`, `se_prompts`: the standard errors of the mean difference due to either, as `Crossed` has them, taken for the true
    ones; the spread between seeds that a repetition would estimate is se_seeds √(χ²_{S−1}/(S−1)), that over n prompts is taken as known.
    For an effect of one standard deviation between seeds ask with effect = se_seeds √S. None where nothing estimates a spread.
    """
    if seeds == 1:
        se_seeds = None
    if not se_seeds and not se_prompts:
        return None
    own, prompts = se_seeds or 0.0, se_prompts or 0.0
    if own == 0.0:
        shift, least = abs(effect) / prompts, float(stats.t.isf(alpha / 2, n - 1))
        # The other tail by symmetry: SciPy's nct.cdf is NaN at some places far out.
        return float(stats.nct.sf(least, n - 1, shift) + stats.nct.sf(least, n - 1, -shift))
    shares = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    estimated = own * np.sqrt(stats.chi2.ppf(shares, seeds - 1) / (seeds - 1))
    least = _curve(seeds, n, alpha)(np.arctan2(estimated, prompts)) * np.hypot(estimated, prompts)
    spread = math.hypot(own, prompts)
    return float(
        np.mean(stats.norm.sf((least - abs(effect)) / spread) + stats.norm.cdf((-least - abs(effect)) / spread))
    )


def detectable(
    se_seeds: float | None, se_prompts: float | None, seeds: int, n: int, alpha: float, wanted: float = 0.8
) -> float | None:
    """The smallest true difference (> 0, in the metric's unit) that is found at level alpha with probability `wanted` in (alpha, 1).

    See `power` for the arguments; None where nothing estimates a spread.
    """
    if not alpha < wanted < 1:
        raise ValueError(f"a power lies between alpha = {alpha:g} and 1, found {wanted:g}")

    def lacking(effect: float) -> float:
        found = power(effect, se_seeds, se_prompts, seeds, n, alpha)
        assert found is not None
        return found - wanted

    most = critical(se_seeds, se_prompts, seeds, n, alpha)
    if most is None:
        return None
    while lacking(most) < 0:
        most *= 2
    return float(optimize.brentq(lacking, 0.0, most, rtol=1e-8))
