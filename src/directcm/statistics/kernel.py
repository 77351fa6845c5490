"""Kernel distances: unbiased squared maximum mean discrepancies (Gretton et al. 2012, their U-statistic).

MMD² = mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) − 2 mean_{i,j} k(x_i, y_j).

- KID (Bińkowski et al. 2018, 1801.01401): k(x, y) = (x·y/D + 1)³.
- CMMD (Jayasumana et al. 2024, 2401.09603): k(x, y) = exp(−|x − y|²/(2σ²)), σ = 10, on L2-normalised embeddings, times
  1000. The published code computes the V-statistic, whose means take in the pairs i = j: it is larger by
  1000·[(1 − mean_{i≠j} k(x_i, x_j))/n + (1 − mean_{i≠j} k(y_i, y_j))/m], so that equal distributions are not at 0 and
  numbers at different n differ. Its embeddings are those of CLIP ViT-L/14 at 336 pixels.

The whole sample makes one estimate. KID is often averaged over random subsets of 1,000, which adds the noise of the draw and needs a
seed. The estimate is unbiased at any n, so subsets only save memory; here blocks of rows of the kernel matrix do that.

It is unbiased for independent sets. Sets that share noise or prompts row by row are correlated, which pulls the estimate down by
2/n · (E k(x_i, y_i) − E k(x_i, y_j)): a set close to its reference can fall visibly below 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from directcm.errors import UserError
from directcm.statistics.frechet import Distance, pair

SHARED = {"better": "lower", "references": ("teacher", "data"), "takes": ("image", "reference.image")}
METRICS = {
    "kid_tiny": {
        "rank": 3, "title": "KID-tiny", "extractor": "clip_tiny", "stand_in_for": "kid", "decimals": 4,
        "headline": True, "function": "kernel_distance", "test": "kid",
    },
    "cmmd_tiny": {
        "rank": 8, "title": "CMMD-tiny", "extractor": "clip_tiny", "stand_in_for": "cmmd", "function": "cmmd",
        "test": "cmmd",
    },
    "kid": {
        "rank": 16, "title": "KID", "extractor": "inception_clean", "decimals": 4, "headline": True,
        "function": "kernel_distance", "test": "kid",
    },
    # The published CMMD embeds at 336 pixels; this is the same network at 224, the one of the CLIP score.
    "cmmd": {"rank": 19, "title": "CMMD (224 px)", "extractor": "clip_vitl14", "function": "cmmd", "test": "cmmd"},
    # Beside the samples' own noise, which student and teacher share, the floor's: what a distance has of shared noise falls away.
    "kid_lite0": {
        "rank": 42, "title": "KID-lite0", "extractor": "efficientnet_lite0", "function": "kernel_distance", "test": "kid",
        "references": ("teacher", "other_noise", "data"), "decimals": 4,
    },
    # CMMD's kernel and scale on features of another network.
    "mmd_lite0": {
        "rank": 43, "title": "MMD-lite0", "extractor": "efficientnet_lite0", "function": "cmmd", "test": "cmmd",
        "references": ("teacher", "other_noise", "data"),
    },
    "kid_pixels16": {
        "rank": 48, "title": "KID-pixels16", "extractor": "pixels16", "function": "kernel_distance", "test": "kid",
        "references": ("teacher", "other_noise", "data"), "decimals": 4,
    },
}  # fmt: skip

_BLOCK = 1024
CMMD_SIGMA = 10.0
CMMD_SCALE = 1000.0


# A kernel of both distances is a function of the inner product alone: an array of products → its values there.
_Kernel = Callable[[np.ndarray], np.ndarray]


def _kernel_sum(first: np.ndarray, second: np.ndarray, kernel: _Kernel) -> float:
    return sum(
        float(kernel(first[start : start + _BLOCK] @ second.T).sum()) for start in range(0, first.shape[0], _BLOCK)
    )


def _off_diagonal_mean(features: np.ndarray, kernel: _Kernel) -> float:
    n = features.shape[0]
    diagonal = float(kernel(np.einsum("nd,nd->n", features, features)).sum())
    return (_kernel_sum(features, features, kernel) - diagonal) / (n * (n - 1))


def _mmd(first: np.ndarray, second: np.ndarray, kernel: _Kernel) -> float:
    n, m = first.shape[0], second.shape[0]
    return (
        _off_diagonal_mean(first, kernel)
        + _off_diagonal_mean(second, kernel)
        - 2 * _kernel_sum(first, second, kernel) / (n * m)
    )


def cubic(product: np.ndarray) -> np.ndarray:
    """KID's kernel (p + 1)³ of inner products over D."""
    base = product + 1
    return base * base * base


def gaussian(product: np.ndarray) -> np.ndarray:
    """CMMD's kernel of inner products of unit vectors, less 1: that constant drops out of MMD², and with it the digits it would cost."""
    return np.expm1((product - 1) / CMMD_SIGMA**2)


def kernel_distance(first: np.ndarray, second: np.ndarray) -> Distance:
    """KID: unbiased MMD² between features (n, D) and (m, D), in float64; n, m ≥ 2, else a UserError."""
    first, second = pair(first, second)
    n, dim = first.shape
    value = _mmd(first, second, lambda product: cubic(product / dim))
    if not np.isfinite(value):
        raise UserError("the kernel distance overflows float64: the features are too large")
    return Distance(value, n, dim)


def _normalised(features: np.ndarray, name: str) -> np.ndarray:
    # By the largest entry first: squares of very large or small entries leave float64.
    largest = np.abs(features).max(axis=1, keepdims=True)
    if not largest.all():
        raise UserError(f"{name}: the embedding of row {int(np.argmin(largest))} is zero; make the features again")
    scaled = features / largest
    return scaled / np.linalg.norm(scaled, axis=1, keepdims=True)


def cmmd(first: np.ndarray, second: np.ndarray) -> Distance:
    """CMMD: 1000 times the unbiased MMD² with the Gaussian kernel, σ = 10, between CLIP embeddings (n, D) and (m, D).

    They are L2-normalised here, so that |x − y|² = 2 − 2 x·y. In float64; n, m ≥ 2 and no embedding zero, else a
    UserError. At this σ the kernel between unit vectors lies in [0.98, 1]: the distance is nearly (1000/σ²) times the
    squared distance of the mean embeddings.
    """
    first, second = pair(first, second)
    value = CMMD_SCALE * _mmd(_normalised(first, "first set"), _normalised(second, "second set"), gaussian)
    return Distance(value, *first.shape)
