"""A score in the manner of the Inception score (Salimans et al. 2016, 1606.03498), of any classifier's logits.

exp E_x KL(p(y|x) ‖ p(y)): high where each image is surely of one class and the images are of many classes. As published the set
is cut into ten splits of consecutive images, and mean and standard deviation are those of the splits' scores; p(y) is a
split's own mean. A split of m images scores at most min(m, classes), so numbers at other n do not compare. It compares with
nothing: the teacher's own score is what to read it against. With Inception v3 it is the Inception score; here it bears its
classifier's name. The Inception score's logits lack the last layer's bias (so it was published, and so OpenAI's evaluator, StyleGAN's and
torch-fidelity have it).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import log_softmax

from directcm.errors import UserError

SHARED = {
    "better": "higher",
    "references": ("none",),
    "takes": ("logits",),
    "function": "class_score",
    "decimals": 2,
    "bounds": (1.0, None),
}
METRICS = {
    "is_lite0": {"rank": 46, "title": "IS-lite0", "extractor": "efficientnet_lite0"},
    "inception_score": {"rank": 28, "title": "Inception score", "extractor": "inception_legacy_tensorflow"},
}  # fmt: skip

SPLITS = 10


@dataclass(frozen=True)
class ClassScore:
    """Mean and standard deviation (over `splits`, as published without n − 1) of the splits' scores."""

    value: float
    sd: float
    splits: int
    flags: tuple[str, ...] = ()
    # It compares nothing, so it has no dimension.
    dim: None = None
    checks: dict[str, float] = field(default_factory=dict)


def split_score(logits: np.ndarray) -> float:
    """exp of the mean KL divergence of softmax rows (m, classes) from their mean, in float64; 1 to min(m, classes)."""
    log_p = log_softmax(np.asarray(logits, dtype=np.float64), axis=1)
    p = np.exp(log_p)
    mean = p.mean(axis=0)
    # A class that no image has adds nothing: p log p → 0.
    log_mean = np.log(mean, out=np.zeros_like(mean), where=mean > 0)
    return float(np.exp((p * (log_p - log_mean)).sum(axis=1).mean()))


def class_score(logits: np.ndarray, splits: int = SPLITS) -> ClassScore | None:
    """The score of logits (n, classes), in the order of their rows; None where n < splits.

    Split i is the rows from ⌊i n/splits⌋ to ⌊(i + 1) n/splits⌋. Logits that are not finite, or no matrix, are a UserError.
    """
    logits = np.asarray(logits)
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise UserError(f"IS: logits have shape {logits.shape}, expected (rows, classes) with at least 2 classes")
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        raise UserError(f"IS: logits of row {int(np.argmin(finite))} are NaN or infinite; make the features again")
    n = len(logits)
    if n < splits:
        return None
    scores = np.array([split_score(logits[i * n // splits : (i + 1) * n // splits]) for i in range(splits)])
    sd = float(scores.std())
    return ClassScore(float(scores.mean()), sd, splits, checks={"sd_over_splits": sd})
