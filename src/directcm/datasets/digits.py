"""scikit-learn's 1,797 handwritten digits (Alpaydin & Kaynak 1998), with a caption each."""

from __future__ import annotations

import numpy as np
from PIL import Image

from directcm.config import Data
from directcm.datasets import Item

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def items(settings: Data) -> list[Item]:
    """The digits, 8×8 grey levels 0 … 16 enlarged bicubically to RGB at the resolution asked for."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    side = (settings.resolution, settings.resolution)
    out = []
    for grey, label in zip(bunch.images, bunch.target, strict=True):
        image = Image.fromarray(np.round(grey * (255 / 16)).astype(np.uint8), mode="L")
        image = image.resize(side, Image.Resampling.BICUBIC).convert("RGB")
        out.append(Item(image, f"a handwritten digit {WORDS[label]}", str(label)))
    return out
