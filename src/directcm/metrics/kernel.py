"""Kernel distance (KID): the unbiased MMD² with the kernel (x·y/D + 1)³ (Bińkowski et al. 2018; Gretton et al. 2012).

The whole sample makes one estimate. KID is often averaged over random subsets of 1,000: that adds the noise of the
draw, throws information away and needs a seed, while the estimate is unbiased at any n, so subsets gain nothing but
memory, and that is kept low here by going over the kernel matrix in blocks of rows.

Unbiased holds for independent sets. Sets that share noise or prompts row by row are correlated, which pulls the
estimate down by 2/n · (E k(x_i, y_i) − E k(x_i, y_j)): a set close to its reference can fall visibly below 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from directcm.errors import UserError
from directcm.metrics.frechet import checked

_BLOCK = 1024


@dataclass(frozen=True)
class KernelResult:
    """A kernel distance: `value` (unbiased, so it can fall below 0), rows of both sides, feature size `dim`."""

    value: float
    n: int
    n_reference: int
    dim: int
    flags: tuple[str, ...] = ()


def _kernel_sum(first: np.ndarray, second: np.ndarray) -> float:
    total = 0.0
    for start in range(0, first.shape[0], _BLOCK):
        base = first[start : start + _BLOCK] @ second.T / first.shape[1] + 1
        total += float((base * base * base).sum())
    return total


def _off_diagonal_mean(features: np.ndarray) -> float:
    n = features.shape[0]
    diagonal = float(((np.einsum("nd,nd->n", features, features) / features.shape[1] + 1) ** 3).sum())
    return (_kernel_sum(features, features) - diagonal) / (n * (n - 1))


def kernel_distance(first: np.ndarray, second: np.ndarray) -> KernelResult:
    """Unbiased MMD² between features (n, D) and (m, D), in float64; n, m ≥ 2, else a UserError."""
    first, second = checked(first, "first set"), checked(second, "second set")
    if first.shape[1] != second.shape[1]:
        raise UserError(
            f"features have sizes {first.shape[1]} and {second.shape[1]}: they come from different extractors"
        )
    n, m = first.shape[0], second.shape[0]
    value = _off_diagonal_mean(first) + _off_diagonal_mean(second) - 2 * _kernel_sum(first, second) / (n * m)
    if not np.isfinite(value):
        raise UserError("the kernel distance overflows float64: the features are too large")
    return KernelResult(value, n, m, first.shape[1])
