"""The aesthetic score, and the stand-in's quality: what the extractor's head says of each image (`quality.py`)."""

from __future__ import annotations

import numpy as np

SHARED = {
    "better": "higher",
    "references": ("none",),
    "takes": ("score",),
    "function": "score",
    "per_sample": True,
    "headline": True,
    "paper_name": "aesthetic score",
    "paper": {"CM": 5.5, "Direct CM": 5.0},
}
METRICS = {
    "quality_tiny": {"rank": 5, "title": "quality-tiny", "extractor": "clip_tiny", "stand_in_for": "aesthetic"},
    "aesthetic": {
        "rank": 25, "title": "aesthetic score", "extractor": "aesthetic_laion", "decimals": 2,
        "same_scale_as_paper": True,
    },
}  # fmt: skip


def score(score: np.ndarray) -> np.ndarray:
    """Scores (n,) as float64."""
    return score.astype(np.float64)
