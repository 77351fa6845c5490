"""scikit-learn's 1,797 handwritten digits (Alpaydin & Kaynak 1998), with a caption each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from directcm.config import Data
from directcm.datasets import Item

DATA_SET = {
    "rank": 1,
    "about": "scikit-learn's 1,797 handwritten digits",
    "images": 1797,
    "largest": 64,
    "labels": True,
}
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def items(settings: Data) -> tuple[int, Iterator[Item]]:
    """The digits, 8×8 grey levels 0 … 16 enlarged bicubically to RGB at the resolution asked for."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    side = (settings.resolution, settings.resolution)

    def draw(grey: np.ndarray, label: int) -> Item:
        image = Image.fromarray(np.round(grey * (255 / 16)).astype(np.uint8), mode="L")
        image = image.resize(side, Image.Resampling.BICUBIC).convert("RGB")
        return Item(image, f"a handwritten digit {WORDS[label]}", str(label))

    return len(bunch.images), map(draw, bunch.images, bunch.target)
