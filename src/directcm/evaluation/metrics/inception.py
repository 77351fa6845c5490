"""Inception v3 as TensorFlow's graph of 2015-12-05 runs it: what FID, precision, recall and Inception score have been reported with.

Its pool features are Heusel et al.'s (1706.08500), on which Song et al. report precision and recall too (2303.01469; openai/consistency_models,
evaluations/evaluator.py), its logits Salimans et al.'s (1606.03498). Beside the other two modes (extractors.py) it differs in how images are
resized, inside the graph, and in the scale of pixels, (x − 128)/128.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from directcm.config import specs
from directcm.errors import UserError
from directcm.evaluation.metrics.extractors import Device, FeatureExtractor, State, legacy_inception

EXTRACTORS = {
    "inception_legacy_tensorflow": {
        "rank": 9, "arrays": ("image", "logits"), "weights": ("pt_inception-2015-12-05-6726825d.pth",),
        "made_by": "InceptionLegacyTensorflow",
    },
}  # fmt: skip

SIDE = 299
# The last layer's rows: 1,000 classes of ImageNet and 8 that were never used.
CLASSES = 1008


def resize(pixels: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Bilinear resizing of (H, W, C) float32 to (side, side, C) as TensorFlow 1's `resize_bilinear` does it, without antialiasing.

    Output pixel i lies at i·H/side of the input, so that the first ones coincide and the last input pixel is repeated; later versions,
    and others' bilinear filters, align the pixels' middles.
    """
    for axis in (1, 0):
        n = pixels.shape[axis]
        place = np.arange(side, dtype=np.float32) * np.float32(n / side)
        low = place.astype(np.int64)
        share = (place - low.astype(np.float32)).reshape((-1, 1) if axis else (-1, 1, 1))
        first, second = (np.take(pixels, index, axis) for index in (low, np.minimum(low + 1, n - 1)))
        pixels = first + (second - first) * share
    return pixels


class InceptionLegacyTensorflow(FeatureExtractor):
    """2,048 pool features and 1,008 logits. The logits are without the last layer's bias, as the Inception score has always had them."""

    name = "inception_legacy_tensorflow"
    weights = specs.EXTRACTORS["inception_legacy_tensorflow"].weights[0]

    def __init__(self, device: Device = "cpu", *, state: State | None = None) -> None:
        super().__init__(device)
        found = self._state(self.weights, state)
        last = found.get("fc.weight")
        if last is None or last.shape != (CLASSES, 2048):
            shape = None if last is None else tuple(last.shape)
            raise UserError(f"{self.name}: fc.weight of the weights is {shape}, expected ({CLASSES}, 2048)")
        self.last = last.float().to(self.device)
        self.model = legacy_inception(found, normalize=False).float().eval().to(self.device)

    def preprocessing(self) -> dict[str, Any]:
        return {
            "size": SIDE,
            "resize": "TensorFlow 1 resize_bilinear, align_corners false",
            "scale": "(x - 128)/128",
            "logits": "without bias",
        }

    def _prepare(self, image: Image.Image) -> Tensor:
        resized = resize(np.asarray(image, dtype=np.float32))
        return torch.from_numpy(np.ascontiguousarray((resized.transpose(2, 0, 1) - 128) / 128))

    def _extract(self, images: Tensor, texts: Sequence[str]) -> dict[str, Tensor]:
        features = self.model(images)[0].flatten(1)
        return {"image": features, "logits": features @ self.last.T}
