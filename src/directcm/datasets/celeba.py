"""CelebA, aligned and cropped (Liu et al. 2015, 1411.7766): img_align_celeba/000001.jpg … of 178×218 pixels, with its authors' partition.

Partition 0 is trained on, 1 and 2 (validation and test) are held out. What is cut out of an image is the configuration's to say: the middle
140×140 pixels, brought to 64×64, are Song et al.'s (2011.13456; yang-song/score_sde, datasets.py); the middle 178×178 those of Issenhuth
et al. (2406.09570's release).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from directcm.config import Data
from directcm.config.specs import LAYOUTS
from directcm.datasets import HELD_OUT, TRAIN, Item, evenly
from directcm.datasets.images import read
from directcm.errors import UserError

LAYOUT = {
    "rank": 5,
    "about": "celeba, CelebA aligned and cropped, with its authors' partition",
    "mark": "list_eval_partition.txt",
    "needs": "CelebA is a folder of list_eval_partition.txt and img_align_celeba/000001.jpg …",
    "captions": False,
    "labels": False,
    "images": 202599,
}
MARK, NEEDS = LAYOUTS["celeba"].mark, LAYOUTS["celeba"].needs
IMAGES = "img_align_celeba"
PARTS = {"0": TRAIN, "1": HELD_OUT, "2": HELD_OUT}


def chosen(settings: Data) -> list[tuple[str, str]]:
    """(name relative to data.path, part) of each line of the partition. UserError for a line that is none."""
    path = Path(settings.path or "") / MARK
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 2 or fields[1] not in PARTS or Path(fields[0]).name != fields[0]:
            raise UserError(f"{path}, line {number}: {line[:60]!r}, expected a file name and 0, 1 or 2; {NEEDS}")
        rows.append((f"{IMAGES}/{fields[0]}", PARTS[fields[1]]))
    for part in (TRAIN, HELD_OUT):
        if part not in {found for _, found in rows}:
            raise UserError(f"{path}: has no image of partition {'0' if part == TRAIN else '1 or 2'}; {NEEDS}")
    return list(evenly(rows, settings.most))


def files(settings: Data) -> list[tuple[str, Path]]:
    """The partition, and the images that are read and there."""
    folder = Path(settings.path or "")
    here = [(name, folder / name) for name, _ in chosen(settings)]
    return [(MARK, folder / MARK), *((name, path) for name, path in here if path.is_file())]


def items(settings: Data) -> tuple[int, Iterator[Item]]:
    """The images in the partition's order: the middle square of each, by Lanczos at the resolution; data.caption is their caption."""
    rows = chosen(settings)
    return len(rows), read(settings, [(name, settings.caption or "", "", part) for name, part in rows])
