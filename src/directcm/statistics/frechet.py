"""Fréchet distance between two feature sets, each taken as a Gaussian (Dowson & Landau 1982; Heusel et al. 2017).

FD = |μ₁ − μ₂|² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁Σ₂)^{1/2}. With A, B the centred features over √(n − 1), Σ₁ = AᵀA and
Σ₂ = BᵀB, so the eigenvalues of Σ₁Σ₂ are the squared singular values of ABᵀ and the last trace is its nuclear norm.
No covariance is formed and no matrix square root taken: exact for rank-deficient covariances, where `sqrtm` is not.

FD∞ (Chong & Forsyth 2020, 1911.07023): to first order the bias of FD at n rows is proportional to 1/n, with a factor
that depends on the sets; so FD is computed on subsets of several sizes, and the intercept of its least-squares line in
1/n is the distance at n → ∞.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from directcm.errors import UserError
from directcm.runtime import rng

SHARED = {
    "better": "lower",
    "references": ("teacher", "data"),
    "takes": ("image", "reference.image"),
    "function": "frechet_distance",
    "test": "frechet",
    "bounds": (0.0, None),
}
METRICS = {
    "fd_tiny": {
        "rank": 2, "title": "FD-tiny", "extractor": "clip_tiny", "stand_in_for": "fid", "headline": True,
        "paper_name": "FID", "paper": {"CM": 95.3, "Direct CM": 166.0},
    },
    "fid": {
        "rank": 13, "title": "FID", "extractor": "inception_clean", "decimals": 1, "headline": True,
        "paper_name": "FID", "paper": {"CM": 95.3, "Direct CM": 166.0}, "same_scale_as_paper": True,
    },
    "fd_tiny_mean": {
        "rank": 60, "title": "FD-tiny (means)", "extractor": "clip_tiny", "stand_in_for": "fid_mean", "part": "mean",
        "part_of": "fd_tiny", "test": "",
    },
    "fd_tiny_covariance": {
        "rank": 61, "title": "FD-tiny (covariances)", "extractor": "clip_tiny", "stand_in_for": "fid_covariance",
        "part": "covariance", "part_of": "fd_tiny", "test": "",
    },
    "fid_mean": {
        "rank": 62, "title": "FID (means)", "extractor": "inception_clean", "decimals": 1, "part": "mean", "part_of": "fid",
        "test": "",
    },
    "fid_covariance": {
        "rank": 63, "title": "FID (covariances)", "extractor": "inception_clean", "decimals": 1, "part": "covariance",
        "part_of": "fid", "test": "",
    },
    "fd_dino_mean": {
        "rank": 64, "title": "FD-DINO (means)", "extractor": "dinov2_vitl14", "decimals": 1, "part": "mean",
        "part_of": "fd_dino", "test": "",
    },
    "fd_dino_covariance": {
        "rank": 65, "title": "FD-DINO (covariances)", "extractor": "dinov2_vitl14", "decimals": 1, "part": "covariance",
        "part_of": "fd_dino", "test": "",
    },
    "fid_legacy_pytorch": {
        "rank": 14, "title": "FID (legacy_pytorch)", "extractor": "inception_legacy_pytorch", "decimals": 1,
    },
    # As papers report it that measure with TensorFlow's graph (Song et al. 2303.01469 among them).
    "fid_legacy_tensorflow": {
        "rank": 31, "title": "FID (legacy_tensorflow)", "extractor": "inception_legacy_tensorflow", "decimals": 1,
    },
    "fd_dino": {
        "rank": 17, "title": "FD-DINO", "extractor": "dinov2_vitl14", "decimals": 1, "headline": True,
        "paper_name": "FD-DINO", "paper": {"CM": 747.7, "Direct CM": 1148.0}, "same_scale_as_paper": True,
    },
    "fd_inf_tiny": {
        "rank": 7, "title": "FD∞-tiny", "extractor": "clip_tiny", "stand_in_for": "fid_inf",
        "function": "frechet_infinite", "takes": ("image", "reference.image", "seed"), "test": "",
        "bounds": (None, None),
    },
    "fid_inf": {
        "rank": 15, "title": "FID∞", "extractor": "inception_clean", "decimals": 1, "function": "frechet_infinite",
        "takes": ("image", "reference.image", "seed"), "test": "", "bounds": (None, None),
    },
    "fd_inf_dino": {
        "rank": 18, "title": "FD∞-DINO", "extractor": "dinov2_vitl14", "decimals": 1, "function": "frechet_infinite",
        "takes": ("image", "reference.image", "seed"), "test": "", "bounds": (None, None),
    },
    # Beside the samples' own noise, which student and teacher share, the floor's. A permutation test at these sizes takes hours, and so
    # do halves: no p.
    "fd_lite0": {
        "rank": 41, "title": "FD-lite0", "extractor": "efficientnet_lite0", "test": "", "decimals": 2,
        "references": ("teacher", "other_noise", "data"),
    },
    "fd_pixels16": {
        "rank": 47, "title": "FD-pixels16", "extractor": "pixels16", "test": "",
        "references": ("teacher", "other_noise", "data"),
    },
    "fd_other_tiny": {
        "rank": 49, "title": "FD-tiny (other noise)", "extractor": "clip_tiny", "references": ("other_noise",),
        "stand_in_for": "fid",
    },
}  # fmt: skip

# As published: 15 sizes at regular intervals, the smallest a tenth of all rows. Below 2 D rows the bias bends away from
# a line in 1/n, and over less than a factor of 2 in n the line's slope is mostly noise.
_SIZES = 15
_LARGEST_RANGE = 10
_SMALLEST_RANGE = 2
_ROWS_PER_FEATURE = 2
SUBSETS = 8
_EQUAL = "a Fréchet distance needs"


@dataclass(frozen=True)
class Distance:
    """A distance between n rows of features of size `dim` and a reference; flags ("rank_deficient": n − 1 < dim).

    Of a Fréchet distance its two parts: `mean` = |μ₁ − μ₂|², and `covariance`, the rest of it.
    """

    value: float
    n: int
    dim: int
    flags: tuple[str, ...] = ()
    mean: float = 0.0
    covariance: float = 0.0


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


def pair(
    first: np.ndarray, second: np.ndarray, equal: str = "", names: tuple[str, str] = ("first set", "second set")
) -> tuple[np.ndarray, np.ndarray]:
    """Both sides, checked; UserError unless they are of one size D and, where `equal` says what needs that, of equal n."""
    first, second = checked(first, names[0]), checked(second, names[1])
    if first.shape[1] != second.shape[1]:
        raise UserError(
            f"features have sizes {first.shape[1]} and {second.shape[1]}: they come from different extractors"
        )
    if equal and first.shape[0] != second.shape[0]:
        raise UserError(
            f"features have {first.shape[0]} and {second.shape[0]} rows: {equal} equal numbers, cut the longer set"
        )
    return first, second


def _parts(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """FD of two checked sets, with a rounding error of either sign around 0 for equal ones, and of it |μ₁ − μ₂|²."""
    mean1, root1 = _root(first)
    mean2, root2 = _root(second)
    nuclear = float(linalg.svdvals(root1 @ root2.T, overwrite_a=True).sum())
    means = np.sum((mean1 - mean2) ** 2)
    value = float(means + np.sum(root1**2) + np.sum(root2**2) - 2 * nuclear)
    if not np.isfinite(value):
        raise UserError("the Fréchet distance overflows float64: the features are too large")
    return value, float(means)


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    return _parts(first, second)[0]


def frechet_distance(first: np.ndarray, second: np.ndarray) -> Distance:
    """Fréchet distance between features (n, D) and (n, D), in float64.

    The estimate is biased upwards by an amount that depends on n, so the two sides must have equal n and distances
    at different n are not comparable: unequal n, unequal D, n < 2 or an entry that is not finite is a UserError.
    """
    first, second = pair(first, second, _EQUAL)
    n, dim = first.shape
    value, means = _parts(first, second)
    flags = ("rank_deficient",) if n - 1 < dim else ()
    return Distance(max(value, 0.0), n, dim, flags, means, max(value - means, 0.0))


def infinite_sizes(n: int, dim: int) -> list[int]:
    """Subset sizes of FD∞, 15 from max(2 D, n/10) to n at regular intervals; [] where n < 4 D (or n < 15) is too few."""
    smallest = max(_ROWS_PER_FEATURE * dim, -(-n // _LARGEST_RANGE))
    if n < _SMALLEST_RANGE * smallest or n - smallest < _SIZES - 1:
        return []
    return [int(size) for size in np.round(np.linspace(smallest, n, _SIZES))]


def frechet_infinite(first: np.ndarray, second: np.ndarray, seed: int) -> Distance | None:
    """FD∞ between features (n, D) and (n, D): FD extrapolated linearly in 1/n to n → ∞; None where n is too small.

    At each of `infinite_sizes` FD is the mean over 8 random subsets (the whole at size n itself), which hold the same
    rows on both sides, so that rows that share a prompt stay together. Which rows depends on (seed, n, D) alone: sets
    of equal shape are cut alike. The estimate is nearly unbiased and so can fall below 0 (`value` is not cut off). Refuses
    what `frechet_distance` refuses. Source: Chong & Forsyth 2020, with independent subsets in place of generated ones.
    """
    first, second = pair(first, second, _EQUAL)
    n, dim = first.shape
    sizes = infinite_sizes(n, dim)
    if not sizes:
        return None

    def distance(size: int, subset: int) -> float:
        # Subsets cut from one permutation share no row: as many as fit, then from the next.
        epoch, place = divmod(subset, n // size)
        rows = rng.permutation(seed, f"fd_inf_{size}", n, epoch)[place * size : (place + 1) * size]
        return _distance(first[rows], second[rows])

    means = [np.mean([distance(size, i) for i in range(SUBSETS if size < n else 1)]) for size in sizes]
    design = np.stack([np.ones(len(sizes)), 1 / np.array(sizes, dtype=np.float64)], axis=1)
    return Distance(float(np.linalg.lstsq(design, np.array(means), rcond=None)[0][0]), n, dim)
