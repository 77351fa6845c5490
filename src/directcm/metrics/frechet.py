"""Fréchet distance between two feature sets, each taken as a Gaussian (Dowson & Landau 1982; Heusel et al. 2017).

FD = |μ₁ − μ₂|² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁Σ₂)^{1/2}. With A, B the centred features over √(n − 1), Σ₁ = AᵀA and
Σ₂ = BᵀB, so the eigenvalues of Σ₁Σ₂ are the squared singular values of ABᵀ and the last trace is its nuclear norm.
No covariance is formed and no matrix square root taken: exact for rank-deficient covariances, where `sqrtm` is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from directcm.errors import UserError


@dataclass(frozen=True)
class FrechetResult:
    """A distance: `value` ≥ 0, n rows on either side, feature size `dim`, flags ("rank_deficient": n − 1 < dim)."""

    value: float
    n: int
    dim: int
    flags: tuple[str, ...] = ()


def checked(features: np.ndarray, name: str) -> np.ndarray:
    """Features as a float64 matrix (n, D); UserError unless n ≥ 2, D ≥ 1 and every entry is finite."""
    array = np.asarray(features)
    if array.ndim != 2 or array.shape[1] < 1:
        raise UserError(f"{name}: features have shape {array.shape}, expected (rows, size)")
    if array.shape[0] < 2:
        raise UserError(f"{name}: {array.shape[0]} row of features, a distance needs at least 2")
    array = array.astype(np.float64)
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise UserError(
            f"{name}: features of row {int(np.argmin(finite))} are NaN or infinite; make them again from sound images"
        )
    return array


def _root(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,), and a matrix R (min(n, D), D) with RᵀR = Σ."""
    mean = features.mean(axis=0)
    centred = (features - mean) / np.sqrt(features.shape[0] - 1)
    # A = QR with orthonormal Q leaves the singular values of ABᵀ as those of R₁R₂ᵀ, which is (D, D) instead of (n, n).
    if centred.shape[0] > centred.shape[1]:
        centred = linalg.qr(centred, mode="r", overwrite_a=True, check_finite=False)[0][: centred.shape[1]]
    return mean, centred


def frechet_distance(first: np.ndarray, second: np.ndarray) -> FrechetResult:
    """Fréchet distance between features (n, D) and (n, D), in float64.

    The estimate is biased upwards by an amount that depends on n, so the two sides must have equal n and distances
    at different n are not comparable: unequal n, unequal D, n < 2 or an entry that is not finite is a UserError.
    """
    first, second = checked(first, "first set"), checked(second, "second set")
    if first.shape[1] != second.shape[1]:
        raise UserError(
            f"features have sizes {first.shape[1]} and {second.shape[1]}: they come from different extractors"
        )
    if first.shape[0] != second.shape[0]:
        raise UserError(
            f"features have {first.shape[0]} and {second.shape[0]} rows: a Fréchet distance needs equal numbers, "
            "cut the longer set"
        )
    n, dim = first.shape
    mean1, root1 = _root(first)
    mean2, root2 = _root(second)
    nuclear = float(linalg.svdvals(root1 @ root2.T, overwrite_a=True).sum())
    value = float(np.sum((mean1 - mean2) ** 2) + np.sum(root1**2) + np.sum(root2**2) - 2 * nuclear)
    if not np.isfinite(value):
        raise UserError("the Fréchet distance overflows float64: the features are too large")
    # Equal sets leave a rounding error of either sign around 0.
    return FrechetResult(max(value, 0.0), n, dim, ("rank_deficient",) if n - 1 < dim else ())
