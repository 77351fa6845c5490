"""Fidelity and diversity apart: precision, recall, density and coverage, from balls around feature vectors.

With x_1 … x_n the reference (the "real" side), y_1 … y_n the samples, and B(x_i) the closed ball around x_i whose
radius is the distance from x_i to its k-th nearest neighbour among the other x:

- precision: share of samples that lie in any B(x_i) (Kynkäänniemi et al. 2019, 1904.06991);
- recall: share of the reference that lies in any ball B(y_j) around the samples (the same);
- density: 1/(k n) Σ_j Σ_i 1[y_j ∈ B(x_i)]: how many balls a sample lies in, over k, so that a lone outlier of the
  reference counts little (Naeem et al. 2020, 2002.09797);
- coverage: share of the B(x_i) that hold any sample (the same).

Density is not bounded by 1; near 1 is what equal distributions give. Coverage of equal distributions is
1 − Π_{i=1..k} (n − i)/(2n − i), about 1 − 2^{−k}. Precision and recall depend on n and k, and no closed form says what
equal distributions give. Balls are closed as in the papers; the published code of Naeem et al. takes them open, which
differs only where a distance equals a radius exactly (rows that repeat).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from directcm.errors import UserError
from directcm.statistics.frechet import pair

# k of the k-th nearest neighbour (Naeem et al. 2002.09797). Fewer than k + 1 images have none.
NEIGHBOURS = 5
SHARED = {
    "better": "higher",
    "references": ("teacher", "data"),
    "takes": ("image", "reference.image"),
    "function": "manifold",
    "least": 6,
}
METRICS = {
    "precision_tiny": {
        "rank": 9, "title": "precision-tiny", "part": "precision", "extractor": "clip_tiny",
        "stand_in_for": "precision_dino",
    },
    "recall_tiny": {
        "rank": 10, "title": "recall-tiny", "part": "recall", "extractor": "clip_tiny",
        "stand_in_for": "recall_dino",
    },
    "density_tiny": {
        "rank": 11, "title": "density-tiny", "part": "density", "extractor": "clip_tiny",
        "stand_in_for": "density_dino",
    },
    "coverage_tiny": {
        "rank": 12, "title": "coverage-tiny", "part": "coverage", "extractor": "clip_tiny",
        "stand_in_for": "coverage_dino",
    },
    "precision_dino": {"rank": 20, "title": "precision (DINOv2)", "part": "precision", "extractor": "dinov2_vitl14"},
    "recall_dino": {"rank": 21, "title": "recall (DINOv2)", "part": "recall", "extractor": "dinov2_vitl14"},
    "density_dino": {"rank": 22, "title": "density (DINOv2)", "part": "density", "extractor": "dinov2_vitl14"},
    "coverage_dino": {"rank": 23, "title": "coverage (DINOv2)", "part": "coverage", "extractor": "dinov2_vitl14"},
    "precision_lite0": {
        "rank": 44, "title": "precision-lite0", "part": "precision", "extractor": "efficientnet_lite0",
    },
    "recall_lite0": {"rank": 45, "title": "recall-lite0", "part": "recall", "extractor": "efficientnet_lite0"},
    # As Kynkäänniemi et al. have them, and Song et al. (2303.01469) after them: k = 3.
    "precision_inception": {
        "rank": 29, "title": "precision (Inception)", "part": "precision", "extractor": "inception_legacy_tensorflow",
        "function": "manifold_of_three", "least": 4,
    },
    "recall_inception": {
        "rank": 30, "title": "recall (Inception)", "part": "recall", "extractor": "inception_legacy_tensorflow",
        "function": "manifold_of_three", "least": 4,
    },
}  # fmt: skip

# Distances held at a time, 32 MB of float64 (a few such arrays live at once).
_ELEMENTS = 4_000_000


@dataclass(frozen=True)
class ManifoldResult:
    """Precision, recall, coverage in [0, 1] and density ≥ 0; n rows on either side, feature size `dim`, neighbours k."""

    precision: float
    recall: float
    density: float
    coverage: float
    n: int
    dim: int
    k: int
    flags: tuple[str, ...] = ()


def squared(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    # Sums of squared differences, not |x|² + |y|² − 2 x·y: a distance must be the same number wherever it is computed,
    # and 0 from a vector to itself, for ties with a radius to be ties.
    from scipy.spatial.distance import cdist

    distances = cdist(first, second, "sqeuclidean")
    if not np.isfinite(distances).all():
        raise UserError("a distance between features overflows float64: the features are too large")
    return distances


def _radii(features: np.ndarray, k: int, block: int) -> np.ndarray:
    """Squared distance of every row (n, D) to its k-th nearest other row, (n,)."""
    out = np.empty(features.shape[0])
    for start in range(0, features.shape[0], block):
        distances = squared(features[start : start + block], features)
        here = np.arange(distances.shape[0])
        distances[here, start + here] = np.inf
        out[start : start + block] = np.partition(distances, k - 1, axis=1)[:, k - 1]
    return out


def manifold(samples: np.ndarray, reference: np.ndarray, *, k: int = NEIGHBOURS) -> ManifoldResult:
    """The four numbers of samples (n, D) against a reference (n, D), Euclidean, in float64, in blocks of rows.

    All four depend on n, so both sides must have equal n: unequal n, unequal D, n ≤ k or an entry that is not finite is
    a UserError. Swapping the sides swaps precision and recall.
    """
    needs = "precision, recall, density and coverage need"
    samples, reference = pair(samples, reference, needs, ("samples", "reference"))
    n, dim = samples.shape
    if n <= k:
        raise UserError(
            f"{n} rows of features: {k} nearest neighbours need at least {k + 1}; the smaller of evaluation.samples and the training images has to be that, or leave these metrics out"
        )
    block = max(1, _ELEMENTS // n)
    near_samples, near_reference = _radii(samples, k, block), _radii(reference, k, block)
    precise = inside = 0
    recalled, covered = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    for start in range(0, n, block):
        distances = squared(samples[start : start + block], reference)
        in_ball = distances <= near_reference
        precise += int(in_ball.any(axis=1).sum())
        inside += int(in_ball.sum())
        covered |= in_ball.any(axis=0)
        recalled |= (distances <= near_samples[start : start + block, None]).any(axis=0)
    return ManifoldResult(precise / n, float(recalled.mean()), inside / (k * n), float(covered.mean()), n, dim, k)


def manifold_of_three(samples: np.ndarray, reference: np.ndarray) -> ManifoldResult:
    """`manifold` at k = 3 (Kynkäänniemi et al. 2019, Section 3)."""
    return manifold(samples, reference, k=3)
