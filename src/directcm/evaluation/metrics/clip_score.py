"""CLIP score: the cosine between the embeddings of an image and of its prompt (Hessel et al. 2021, unscaled)."""

from __future__ import annotations

import numpy as np

from directcm.errors import UserError

SHARED = {
    "better": "higher",
    "references": ("prompt",),
    "takes": ("image", "text"),
    "function": "cosine",
    "per_sample": True,
    "headline": True,
    "paper_name": "CLIP score",
    "paper": {"CM": 0.21, "Direct CM": 0.19},
}
METRICS = {
    "clip_tiny": {"rank": 4, "title": "CLIP-tiny", "extractor": "clip_tiny", "stand_in_for": "clip_score"},
    "clip_score": {"rank": 24, "title": "CLIP score", "extractor": "clip_vitl14", "same_scale_as_paper": True},
}


def cosine(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Row-wise cosine of embeddings (n, D) and (n, D), float64 (n,), in [−1, 1].

    Embeddings need not be normalised. Unequal shapes, zero vectors and entries that are not finite are a UserError.
    """
    if image.shape != text.shape or image.ndim != 2:
        raise UserError(
            f"CLIP score: embeddings have shapes {image.shape} and {text.shape}, expected one shape (rows, size)"
        )
    image, text = image.astype(np.float64), text.astype(np.float64)
    norms = np.linalg.norm(image, axis=1) * np.linalg.norm(text, axis=1)
    bad = ~np.isfinite(norms) | (norms == 0)
    if bad.any():
        raise UserError(
            f"CLIP score: an embedding of row {int(np.argmax(bad))} is zero, NaN or infinite; make the features again"
        )
    return np.clip(np.einsum("nd,nd->n", image, text) / norms, -1.0, 1.0)
