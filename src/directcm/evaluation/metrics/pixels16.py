"""Pixels at 16 × 16 as features: no network, so that nothing learnt decides what is near; it sees no detail, and no meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from directcm.evaluation.metrics.extractors import FeatureExtractor

EXTRACTORS = {"pixels16": {"rank": 8, "arrays": ("image",), "made_by": "Pixels16"}}

SIDE = 16


def coverage(pixels: int, side: int = SIDE) -> np.ndarray:
    """Weights (side, pixels) of a row of pixels in each of `side` equal parts of it, by the length that they share; rows sum to 1."""
    edges = np.arange(side + 1) * (pixels / side)
    place = np.arange(pixels)
    shared = np.minimum(edges[1:, None], place + 1) - np.maximum(edges[:-1, None], place)
    return np.clip(shared, 0, None) * (side / pixels)


class Pixels16(FeatureExtractor):
    """768 numbers in [0, 1] an image: each of the three channels as 16 × 16 means of what a pixel covers, not rounded.

    An image of 16 × 16 stays as it is, a smaller one is repeated; one that is not square is squeezed. PIL's box filter is the same
    where 16 divides the side, and else takes whole pixels.
    """

    name = "pixels16"

    def preprocessing(self) -> dict[str, Any]:
        return {"side": SIDE, "resize": "mean of the area covered", "range": [0, 1]}

    def _prepare(self, image: Image.Image) -> Tensor:
        channels = np.asarray(image, dtype=np.float64).transpose(2, 0, 1) / 255
        means = coverage(image.height) @ channels @ coverage(image.width).T
        return torch.from_numpy(means.astype(np.float32))

    def _extract(self, images: Tensor, texts: Sequence[str]) -> dict[str, Tensor]:
        return {"image": images.flatten(1)}
