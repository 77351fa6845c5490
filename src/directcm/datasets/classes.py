"""A folder with a folder of images for each class, whose name is the label: ImageNet's training images as they come, and many others.

Of "n01440764" no word is made: the caption is "a photo of a n01440764", and a teacher on pixels is told the class alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from directcm.config import Data
from directcm.datasets import Item, evenly, photo_of
from directcm.datasets.images import found, read
from directcm.errors import UserError

LAYOUT = {
    "rank": 4,
    "about": "classes, a folder of images for each class, such as ImageNet's",
}


def chosen(settings: Data) -> list[str]:
    """The names of the images that are read, relative to data.path, class by class. UserError where there is no class."""
    folder = Path(settings.path or "")
    names = found(folder)
    beside = [name for name in names if len(Path(name).parts) < 2]
    if not names or beside:
        what = f"{beside[0]!r} lies in no folder of a class" if beside else "holds no folder of images"
        raise UserError(f"{folder}: {what}; data.layout classes is a folder for each class, with its images")
    return list(evenly(names, settings.most))


def files(settings: Data) -> list[tuple[str, Path]]:
    """The images that are read."""
    return [(name, Path(settings.path or "", name)) for name in chosen(settings)]


def items(settings: Data) -> tuple[int, Iterator[Item]]:
    """The images of all classes, in the order of their names: the middle square of each, by Lanczos at the resolution."""
    labels = [(name, Path(name).parts[0]) for name in chosen(settings)]
    return len(labels), read(settings, [(name, photo_of(label.replace("_", " ")), label, "") for name, label in labels])
