"""Contrasts over an axis: a mean over its values, a slope, a difference of two; and what a Fréchet distance owes to each prompt.

A contrast is Σ_j c_j y_j of a method's values, or of a difference between methods, at the values x_j of an axis. It is taken seed by seed and
prompt by prompt, so that `inference.crossed` judges it like any other difference.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from directcm.errors import UserError


def mean_weights(count: int) -> np.ndarray:
    """Weights (count,) whose contrast is the mean."""
    return np.full(count, 1 / count)


def slope_weights(x: Sequence[float]) -> np.ndarray:
    """Weights c_j = (x_j − x̄)/Σ(x − x̄)² whose contrast is the least-squares slope over x, per unit of x; UserError for one value."""
    values = np.asarray(x, dtype=np.float64)
    centred = values - values.mean()
    if values.size < 2 or not np.isfinite(values).all() or not np.ptp(values) > 0:
        raise UserError(f"a slope needs two finite values of its axis or more, found {', '.join(f'{v:g}' for v in x)}")
    return centred / (centred @ centred)


def _covariance(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centred rows, and the eigenvalues (≥ 0) and eigenvectors of their covariance."""
    centred = rows - rows.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / (len(rows) - 1))
    return centred, np.clip(values, 0.0, None), vectors


def _bent(centred: np.ndarray, values: np.ndarray, vectors: np.ndarray, other: np.ndarray) -> np.ndarray:
    """zᵀ (I − T) z for each centred row z (n,): T maps N(0, S) to N(0, R) optimally, S = V diag(values) Vᵀ, R = `other` (D, D)."""
    root = np.sqrt(values)
    kept = root > root.max(initial=0.0) * 1e-7
    # In whitened coordinates y = S^-½ z, zᵀ T z = yᵀ (S^½ R S^½)^½ y: no inverse of a small eigenvalue is left.
    own = centred @ vectors[:, kept]
    half = vectors[:, kept] * root[kept]
    inner, turns = np.linalg.eigh(half.T @ other @ half)
    whitened = (own / root[kept]) @ turns
    return (centred**2).sum(axis=1) - (whitened**2) @ np.sqrt(np.clip(inner, 0.0, None))


def frechet_influence(rows: np.ndarray, reference: np.ndarray, part: str = "whole") -> np.ndarray:
    """What each prompt adds to FD(rows, reference), (n,), of paired sets (n, D): the mean is 0, and s²/n the variance over prompts.

    `part`: of the whole, of its "mean" term |d|² alone, or of its "covariance" term alone.

    The first-order term of FD in the empirical distribution of pairs (the delta method; Rippl, Munk & Sturm 2016, J. Multivariate
    Anal. 151, the limit law of the distance between estimated Gaussians). With z = x − μ, w = y − μ_ref, d = μ − μ_ref and T, T_ref the
    optimal maps between the two Gaussians, it is 2 dᵀ(z − w) + zᵀ(I − T)z + wᵀ(I − T_ref)w, less its mean. Where the two distributions are
    equal it vanishes, and the variance is of second order: a contrast of distances that are themselves near 0 is not for it.
    """
    rows, reference = np.asarray(rows, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if rows.ndim != 2 or rows.shape != reference.shape or len(rows) < 2:
        raise UserError(f"features have shapes {rows.shape} and {reference.shape}: paired rows of one shape are needed")
    offset = rows.mean(axis=0) - reference.mean(axis=0)
    own, other = _covariance(rows), _covariance(reference)
    matrices = [(vectors * values) @ vectors.T for _, values, vectors in (own, other)]
    found = np.zeros(len(rows))
    if part != "covariance":
        found = 2 * (own[0] - other[0]) @ offset
    if part != "mean":
        found = found + _bent(*own, matrices[1]) + _bent(*other, matrices[0])
    return found - found.mean()
