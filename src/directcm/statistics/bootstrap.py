"""Percentile bootstrap (Efron 1979) of means of per-row values.

A plain bootstrap of a Fréchet or kernel distance is invalid: resampled rows repeat, which such a distance counts as structure. So those
have no interval here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from directcm.errors import UserError
from directcm.runtime import rng

_ELEMENTS = 8_000_000


def resampled_means(values: np.ndarray, resamples: int, level: float, seed: int, purpose: str) -> Any:
    """scipy's result of the bootstrap of the mean of values (n,): its percentile interval, and the resamples' means."""
    from scipy.stats import bootstrap

    return bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, min(resamples, _ELEMENTS // values.size)),
        confidence_level=level,
        method="percentile",
        vectorized=True,
        rng=rng.generator(seed, purpose),
    )


def mean_interval(values: np.ndarray, *, resamples: int, level: float, seed: int) -> tuple[float, float]:
    """Low and high of the mean of per-row values (n,), n ≥ 2, finite, at confidence `level` in (0, 1).

    Depends on (values, resamples, level, seed) alone: sets of equal n are resampled alike.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size < 2:
        raise UserError(f"bootstrap: values have shape {values.shape}, expected (rows,) with at least 2 rows")
    if not np.isfinite(values).all():
        raise UserError(f"bootstrap: the value of row {int(np.argmin(np.isfinite(values)))} is NaN or infinite")
    interval = resampled_means(values, resamples, level, seed, "bootstrap").confidence_interval
    return float(interval.low), float(interval.high)
