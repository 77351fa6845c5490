"""How near samples lie to training images, against how near held-out images do: a check for copies.

d(x) = min_i |x − x_i| / √D over all training images x_i, the root of the mean squared difference of pixels in [0, 1], of images reduced to
at most 32×32 by the mean over each pixel's area. With y_1 … y_m the held-out images, a sample x has

- nearer: the share of the y_j with d(y_j) > d(x), ties counting half. Its mean over samples is the Mann–Whitney statistic over n·m,
  the chance that a sample is nearer to the training images than a held-out image is (Meehan et al. 2020, 2004.05675, in
  one cell): ½ for samples like new images, 1 for copies;
- distance: d(x) over the median of d(y_j): 1 for samples like new images, 0 for copies.

Both are checks rather than scores: blurred images lie near to many, and samples far from all images lie farther than new ones.
Where each caption has one training image, a model that follows its caption draws that image: near samples are what it was asked for. The
held-out images are taken as given: intervals and tests speak of samples and seeds alone. All images are read once a job; at SDXL's
size that is minutes for a few thousand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from directcm.errors import UserError
from directcm.evaluation.metrics.samples import open_image
from directcm.runtime.artifacts import Artifact

SHARED = {
    "references": ("data",),
    "takes": ("images", "data"),
    "function": "nearness",
    "per_sample": True,
}
METRICS = {
    "nearer_than_held_out": {
        "rank": 26, "title": "nearer than held-out", "better": "lower", "part": "nearer", "unit": "share",
        "bounds": (0.0, 1.0),
    },
    "nearest_distance": {
        "rank": 27, "title": "nearest-image distance", "better": "higher", "part": "distance",
        "unit": "held-out images = 1", "bounds": (0.0, None),
    },
}  # fmt: skip

# Largest side that is compared, pixels, and training images a product.
SIDE = 32
_BLOCK = 4096


@dataclass(frozen=True)
class Nearness:
    """Per sample, float64 (n,): share of held-out images that lie farther from the training images, and the distance over theirs.

    `distance` is None where the median held-out image is a training image.
    """

    nearer: np.ndarray
    distance: np.ndarray | None


@dataclass(frozen=True)
class Known:
    """Reduced training images, uint8 (n_train, D), of a side, and the distances of the held-out ones from them, float64 (m,), ascending."""

    train: np.ndarray
    held_out: np.ndarray
    side: int


def reduced(images: Iterable[Image.Image], side: int) -> np.ndarray:
    """Square RGB images of `side` pixels as uint8 (n, D), D = 3·min(side, 32)²; another size is a UserError."""
    small = min(side, SIDE)
    rows = []
    for i, image in enumerate(images):
        if image.size != (side, side):
            raise UserError(f"nearness: image {i} is {image.size[0]}×{image.size[1]}, the data's are {side}×{side}")
        rows.append(np.asarray(image.convert("RGB").resize((small, small), Image.Resampling.BOX)).ravel())
    return np.stack(rows) if rows else np.empty((0, 3 * small * small), np.uint8)


def distances(images: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Root mean squared difference, in [0, 1], of each of images (n, D) from the nearest of `train` (m, D), both uint8; float64 (n,).

    Exact but for the root: the sums are whole numbers that float64 holds.
    """
    mine = images.astype(np.float64)
    least = np.full(len(images), np.inf)
    for start in range(0, len(train), _BLOCK):
        theirs = train[start : start + _BLOCK].astype(np.float64)
        least = np.minimum(least, ((theirs**2).sum(1) - 2 * mine @ theirs.T).min(1))
    return np.sqrt((least + (mine**2).sum(1)) / images.shape[1]) / 255


def share_farther(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of `others` (m,), ascending, above each of `values` (n,), equal ones counting half; (n,)."""
    below, up_to = (np.searchsorted(others, values, side) for side in ("left", "right"))
    return 1 - (below + up_to) / (2 * len(others))


@lru_cache(maxsize=1)
def known(data: Artifact) -> Known:
    """The training images of an opened data artefact and how far its held-out ones lie from them; the sets of a run share it."""
    rows, side = data.csv("images.csv"), int(data.json("data.json")["resolution"])

    def split(name: str) -> np.ndarray:
        return reduced((open_image(data, row["file_name"]) for row in rows if row["split"] == name), side)

    train, held_out = split("train"), split("held_out")
    if not (len(train) and len(held_out)):
        raise UserError(
            f"{data.folder / 'images.csv'}: {len(train)} training and {len(held_out)} held-out images, nearness needs both"
        )
    return Known(train, np.sort(distances(held_out, train)), side)


def nearness(images: Sequence[Image.Image], data: Artifact) -> Nearness:
    """Both numbers of n images, square RGB of the data's resolution."""
    there = known(data)
    found = distances(reduced(images, there.side), there.train)
    middle = float(np.median(there.held_out))
    return Nearness(share_farther(found, there.held_out), found / middle if middle > 0 else None)
