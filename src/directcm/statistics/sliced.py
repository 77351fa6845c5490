"""The sliced 2-Wasserstein distance: the mean over directions of one-dimensional ones (Rabin et al. 2011; Bonneel et al. 2015).

In one dimension W₂² = ∫₀¹ (F⁻¹(u) − G⁻¹(u))² du. Of two samples of n points each that is the mean squared difference in order. A
mixture's quantiles are taken at u = (i − ½)/n, the midpoints that a sample's i-th point stands for.

    SW₂² = E_θ W₂²(⟨θ, X⟩, ⟨θ, Y⟩), θ uniform on the sphere.

For X and Y of the same shape, a distance m apart in D dimensions, SW₂² = m²/D.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from directcm.errors import UserError
from directcm.runtime import rng

# Bisection halves an interval that holds all quantiles: to a part in 2^52 of it.
_HALVINGS = 52
_REACH = 40.0


def directions(count: int, dim: int, seed: int, purpose: str) -> np.ndarray:
    """`count` uniform directions (count, dim) of length 1. In one dimension there is one."""
    if dim == 1:
        return np.ones((1, 1))
    found = rng.generator(seed, purpose).standard_normal((count, dim))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def ordered(samples: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Samples (n, D) along directions (k, D), in order: (k, n)."""
    if samples.ndim != 2 or samples.shape[1] != along.shape[1] or not len(samples):
        raise UserError(f"sliced distance: shapes {samples.shape} and {along.shape} do not belong together")
    return np.sort(along @ samples.T, axis=1)


def quantiles(means: np.ndarray, scales: np.ndarray, weights: np.ndarray, along: np.ndarray, count: int) -> np.ndarray:
    """The same (k, count) of a mixture Σ_j w_j N(m_j, s_j² I): means (K, D), scales > 0 and weights (K,), by bisection."""
    centres = along @ means.T
    u = (np.arange(count) + 0.5) / count
    low = np.repeat((centres - _REACH * scales).min(1)[:, None], count, 1)
    high = np.repeat((centres + _REACH * scales).max(1)[:, None], count, 1)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        # A component at a time: (k, count) and no (k, count, K).
        below = sum(w * ndtr((middle - c[:, None]) / s) for c, s, w in zip(centres.T, scales, weights, strict=True)) < u
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return 0.5 * (low + high)


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """SW₂ of what `ordered` or `quantiles` returned, (k, n) each, along the same directions."""
    if first.shape != second.shape:
        raise UserError(f"sliced distance: {first.shape} against {second.shape}, expected as many of both")
    return float(np.sqrt(np.mean((first - second) ** 2)))
