"""Crops of the two photographs that scikit-learn ships (china.jpg and flower.jpg, 427×640): texture and detail.

A photograph is cut into tiles of twice the resolution, and each tile gives 5×5 overlapping crops. Crops of different tiles
share no pixel, and a split keeps a tile together.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
from PIL import Image

from directcm.config import Data
from directcm.datasets import Item

# Two photographs of 427×640 pixels, in tiles of twice the resolution, with 5×5 crops a tile.
DATA_SET = {
    "rank": 2,
    "about": "crops of its two photographs",
    "images": "25 * 2 * (427 // (2 * resolution)) * (640 // (2 * resolution))",
    "groups": "2 * (427 // (2 * resolution)) * (640 // (2 * resolution))",
    "largest": 64,
    "labels": True,
}
PHOTOGRAPHS = ("china", "flower")
# Height and width of both, pixels, and crops a side of a tile.
PHOTO_SIZE = (427, 640)
CROPS_ACROSS = 5
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")


def _corners(settings: Data) -> Iterator[tuple[int, int, int, int]]:
    """(photograph, tile, y, x) of every crop, in the order of the items."""
    side = settings.resolution
    down, across = (size // (2 * side) for size in PHOTO_SIZE)
    offsets = [round(i * side / (CROPS_ACROSS - 1)) for i in range(CROPS_ACROSS)]
    for photograph, tile, dy, dx in product(range(len(PHOTOGRAPHS)), range(down * across), offsets, offsets):
        y, x = tile // across * 2 * side, tile % across * 2 * side
        yield photograph, photograph * down * across + tile, y + dy, x + dx


def groups(settings: Data) -> list[int]:
    """The tile of each crop."""
    return [tile for _, tile, _, _ in _corners(settings)]


def items(settings: Data) -> tuple[int, Iterator[Item]]:
    """The crops, at the photographs' own scale; the caption names photograph and region (one of 3×3), the label the photograph."""
    from sklearn.datasets import load_sample_image

    side = settings.resolution
    pictures = [np.asarray(load_sample_image(f"{name}.jpg")) for name in PHOTOGRAPHS]
    corners = list(_corners(settings))

    def crop(where: tuple[int, int, int, int]) -> Item:
        photograph, _, y, x = where
        row = ROWS[min(2, int(3 * (y + side / 2) / PHOTO_SIZE[0]))]
        column = COLUMNS[min(2, int(3 * (x + side / 2) / PHOTO_SIZE[1]))]
        name = PHOTOGRAPHS[photograph]
        image = Image.fromarray(pictures[photograph][y : y + side, x : x + side])
        return Item(image, f"a detail of the photograph {name}, {row} {column}", name)

    return len(corners), map(crop, corners)
