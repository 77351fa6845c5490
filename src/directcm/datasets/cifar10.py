"""CIFAR-10's binary version (Krizhevsky 2009): files of records, a byte of class and 3·32·32 of pixels each.

A record's pixels are planes, red, green, blue, each by rows. The training batches are what is trained on, the test batch is
what is held out. It is a layout of `archive`: https://www.cs.toronto.edu/~kriz/cifar.html describes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from directcm.config import Data
from directcm.config.specs import LAYOUTS
from directcm.datasets import HELD_OUT, TRAIN, Item, photo_of
from directcm.errors import UserError

LAYOUT = {
    "rank": 2,
    "about": "cifar10, CIFAR-10's binary version, whose test batch is what is held out",
    "mark": "batches.meta.txt",
    "needs": "CIFAR-10's binary version is a folder of batches.meta.txt, data_batch_1.bin … and test_batch.bin",
    "largest": 32,
    "images": 60000,
}
MARK, NEEDS = LAYOUTS["cifar10"].mark, LAYOUTS["cifar10"].needs
SIDE = 32
PIXELS = (3, SIDE, SIDE)
RECORD = 1 + 3 * SIDE**2


def items(settings: Data) -> tuple[int, Iterator[Item]]:
    """The images of the batches in the folder data.path, in the files' order; "a photo of a cat" is the caption of class cat.

    At 32 pixels they are the archive's bytes, else resized (Lanczos). A UserError that names a file that is missing or none
    of whole records.
    """
    folder = Path(settings.path or "")
    lines = (folder / MARK).read_text(encoding="utf-8", errors="replace").splitlines()
    classes = [line.strip() for line in lines if line.strip()]
    batches = [(path, TRAIN) for path in sorted(folder.glob("data_batch_*.bin"))]
    if not batches:
        raise UserError(f"{folder / 'data_batch_1.bin'}: missing; {NEEDS}")
    batches.append((folder / "test_batch.bin", HELD_OUT))
    count = 0
    for path, _ in batches:
        size = path.stat().st_size if path.is_file() else 0
        if size == 0 or size % RECORD:
            raise UserError(
                f"{path}: {size} bytes, expected a multiple of {RECORD}, records of a class and 32×32 pixels"
            )
        count += size // RECORD
    return count, _read(batches, classes, settings.resolution)


def _read(batches: list[tuple[Path, str]], classes: list[str], side: int) -> Iterator[Item]:
    for path, part in batches:
        for i, record in enumerate(np.fromfile(path, np.uint8).reshape(-1, RECORD)):
            if record[0] >= len(classes):
                raise UserError(
                    f"{path}: record {i} is of class {record[0]}, {path.parent / MARK} names {len(classes)}"
                )
            name = classes[record[0]]
            image = Image.fromarray(np.ascontiguousarray(record[1:].reshape(PIXELS).transpose(1, 2, 0)))
            if side != SIDE:
                image = ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)
            yield Item(image, photo_of(name), name, part)
