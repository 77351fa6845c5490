"""A folder of images without a table: all that lie in it and below, with one caption or none, and no labels.

So LSUN comes (Yu et al. 2015, 1506.03365) once its lmdb has been exported: by `data.py export` of its authors to .webp in folders
of the keys' letters, by `data.py save` to .jpg, by Song et al.'s scripts (openai/consistency_models, datasets/lsun_bedroom.py) to .png.
What an image is its bytes say, not its ending. The lmdb itself is not read: that needs a library which is not among ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from directcm.config import Data
from directcm.datasets import Item, evenly, listed, pictures
from directcm.errors import UserError

LAYOUT = {
    "rank": 3,
    "about": "images, all below a folder without a table, such as LSUN exported from its lmdb",
    "captions": False,
    "labels": False,
}
LMDB = "data.mdb"


def found(folder: Path) -> list[str]:
    """The names, relative to a folder, of the images in it and below, in order; those that begin with a point are passed over."""
    known = Image.registered_extensions()
    names = []
    for top, folders, here in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = os.path.relpath(top, folder)
        names += [
            os.path.normpath(os.path.join(inside, name))
            for name in here
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in known
        ]
    return sorted(names)


def chosen(settings: Data) -> list[str]:
    """The names of the images that are read, relative to data.path: all, or data.most of them. UserError where there is none."""
    folder = Path(settings.path or "")
    names = found(folder)
    if not names:
        lmdb = next(iter(folder.rglob(LMDB)), None)
        why = f"; {lmdb.relative_to(folder)} is an lmdb database: export its images" if lmdb is not None else ""
        raise UserError(f"{folder}: holds no images{why}")
    return list(evenly(names, settings.most))


def files(settings: Data) -> list[tuple[str, Path]]:
    """The images that are read."""
    return [(name, Path(settings.path or "", name)) for name in chosen(settings)]


def items(settings: Data) -> tuple[int, Iterator[Item]]:
    """The images in the order of their names: the middle square of each, by Lanczos at the resolution; data.caption is their caption."""
    names = chosen(settings)
    return len(names), read(settings, [(name, settings.caption or "", "", "") for name in names])


def read(settings: Data, rows: Sequence[tuple[str, str, str, str]]) -> Iterator[Item]:
    """An item for each (name, caption, label, part): the file of that name in the folder data.path.

    The iterator goes through all of them and then raises UserError naming those that are not there, unreadable or too small, if
    there were any.
    """
    folder = Path(settings.path or "")
    problems: dict[str, list[str]] = {}
    for name, text, label, part in rows:
        path = folder / name
        try:
            if not path.is_file():
                raise pictures.Unusable("not there")
            square = pictures.fitted(pictures.read(path, str(path)), settings.resolution, settings.crop)
        except pictures.Unusable as why:
            problems.setdefault(str(why), []).append(name)
            continue
        if not problems:
            yield Item(square, text, label, part)
    lines = [f"{len(names)} file(s), {listed(names)}: {why}" for why, names in problems.items()]
    for line in lines[1:]:
        pictures.say(str(folder), line)
    if lines:
        raise UserError(f"{folder}: {lines[0]}")
