"""ImageNet at 64×64 (Chrabaszcz et al. 2017, 1707.08819): train_data_batch_1.npz … of ten, and val_data.npz, which is held out.

Each file has `data` (n, 3·64·64) uint8, planes red, green, blue by rows, and `labels` (n,), 1 to 1000 in the authors' order of classes;
`mean` is not needed. The images are whole ImageNet images squeezed by a box filter, not crops. The training batches come in two archives, the
validation in a third: they are unpacked into one folder. Where the authors' map_clsloc.txt (a line "n02119789 1 kit_fox" a class) lies beside
them, captions have its words; labels are the numbers.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from directcm.config import Data
from directcm.config.specs import LAYOUTS
from directcm.datasets import HELD_OUT, TRAIN, Item, photo_of
from directcm.errors import UserError

LAYOUT = {
    "rank": 6,
    "about": "imagenet64, ImageNet downsampled to 64×64 in npz files, whose validation is what is held out",
    "mark": "train_data_batch_1.npz",
    "needs": "ImageNet at 64×64 is a folder of train_data_batch_1.npz … and val_data.npz",
    "largest": 64,
    "images": 1331167,
}
NEEDS = LAYOUTS["imagenet64"].needs
SIDE = 64
CLASSES = 1000
WORDS = "map_clsloc.txt"


def items(settings: Data) -> tuple[int, Iterator[Item]]:
    """The images of the files in the folder data.path, training batches by number, then the validation.

    At 64 pixels they are the files' bytes, else resized (Lanczos). A UserError that names a file that is missing or has other arrays.
    """
    folder = Path(settings.path or "")
    batches = sorted(folder.glob("train_data_batch_*.npz"), key=lambda path: (len(path.name), path.name))
    parts = [*((path, TRAIN) for path in batches), (folder / "val_data.npz", HELD_OUT)]
    count = sum(_labels(path).size for path, _ in parts)
    return count, _read(parts, _words(folder / WORDS), settings.resolution)


def _array(path: Path, name: str) -> np.ndarray:
    if not path.is_file():
        raise UserError(f"{path}: missing; {NEEDS}")
    try:
        with np.load(path, allow_pickle=False) as opened:
            return opened[name]
    except KeyError:
        raise UserError(f"{path}: has no array {name!r}; {NEEDS}") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: its {name} cannot be read ({error}); download and unpack it again") from None


def _labels(path: Path) -> np.ndarray:
    labels = _array(path, "labels")
    whole = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer) and labels.size > 0
    if not whole or labels.min() < 1 or labels.max() > CLASSES:
        raise UserError(f"{path}: its labels are {labels.dtype} {labels.shape}, expected (n,) from 1 to {CLASSES}")
    return labels


def _words(path: Path) -> dict[int, str]:
    """Class → its words; nothing where the map is not there."""
    if not path.is_file():
        return {}
    words = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 3 or not fields[1].isdecimal():
            raise UserError(f"{path}, line {number}: {line[:60]!r}, expected such as 'n02119789 1 kit_fox'")
        words[int(fields[1])] = fields[2].replace("_", " ")
    # One caption may have one label: "crane" and "maillot" are two classes each.
    twice = {word for word in words.values() if list(words.values()).count(word) > 1}
    return {number: f"{word} ({number})" if word in twice else word for number, word in words.items()}


def _read(parts: list[tuple[Path, str]], words: dict[int, str], side: int) -> Iterator[Item]:
    for path, part in parts:
        data, labels = _array(path, "data"), _labels(path)
        if data.shape != (labels.size, 3 * SIDE**2) or data.dtype != np.uint8:
            raise UserError(
                f"{path}: its data are {data.dtype} {data.shape}, expected uint8 {(labels.size, 3 * SIDE**2)}, 64×64 pixels of three planes"
            )
        for pixels, number in zip(data, labels.tolist(), strict=True):
            image = Image.fromarray(np.ascontiguousarray(pixels.reshape(3, SIDE, SIDE).transpose(1, 2, 0)))
            if side != SIDE:
                image = ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)
            yield Item(image, photo_of(words.get(number, f"thing of class {number}")), str(number), part)
