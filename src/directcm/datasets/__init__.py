"""Data sets: images and captions, copied into one artefact of square RGB PNGs with a fixed split.

A data set is a module here with `items(settings) -> (how many, an iterator of Item)`; its name is its `kind`. Where items
overlap it has `groups(settings) -> one number per item` too, and the split keeps a group together.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from directcm import rng
from directcm.artifacts import new_artifact, write_csv, write_json
from directcm.config import Data
from directcm.errors import UserError
from directcm.progress import Progress

if TYPE_CHECKING:
    from PIL.Image import Image

COLUMNS = ["id", "file_name", "text", "label", "split"]
TRAIN, HELD_OUT = "train", "held_out"


@dataclass(frozen=True)
class Item:
    """One image (square RGB at the data set's resolution), its caption, its class where it has one, and its part of the split.

    The latter where the data set has a split of its own (TRAIN or HELD_OUT, of each some); "" where it is to be drawn.
    """

    image: Image
    text: str
    label: str = ""
    part: str = ""


def split(n: int, held_out: float, seed: int, groups: Sequence[int] | None = None) -> list[str]:
    """ "train" or "held_out" for each of n items: a fixed share, drawn once by the run's seed; neither is empty.

    `groups` (n,): items of one group stay together, so that nothing held out overlaps what is trained on.
    """
    names = list(dict.fromkeys(groups if groups is not None else range(n)))
    count = min(max(round(len(names) * held_out), 1), len(names) - 1)
    chosen = {names[i] for i in rng.permutation(seed, "split", len(names))[:count]}
    return [HELD_OUT if g in chosen else TRAIN for g in (groups if groups is not None else range(n))]


def write(
    count: int, items: Iterable[Item], settings: Data, seed: int, out: str | Path, groups: Sequence[int] | None = None
) -> None:
    """Write `count` items, one at a time, as the data artefact: images/, images.csv (id, file_name, text, label, split), data.json."""
    if count < 2:
        raise UserError(f"data: {count} image(s) found, at least 2 are needed (one to train on, one held out)")
    drawn = split(count, settings.held_out, seed, groups)
    progress = Progress("data", count, "image")
    with new_artifact(out, "data", settings={**json.loads(settings.model_dump_json()), "seed": seed}) as art:
        rows, labels, parts = [], set(), []
        for i, (item, part) in enumerate(zip(items, drawn, strict=True)):
            name = f"images/{i:05d}.png"
            item.image.save(art / name)
            labels.add(item.label)
            parts.append(item.part or part)
            progress.update()
            rows.append({"id": i, "file_name": name, "text": item.text, "label": item.label, "split": parts[-1]})
        write_csv(art / "images.csv", rows, COLUMNS)
        art.counts = {"n": count, "n_train": parts.count(TRAIN), "n_held_out": parts.count(HELD_OUT)}
        write_json(
            art / "data.json",
            {
                "name": settings.kind,
                "resolution": settings.resolution,
                "n_train": parts.count(TRAIN),
                "n_held_out": parts.count(HELD_OUT),
                "labels": sorted(labels - {""}),
            },
        )


def make(settings: Data, seed: int, out: str | Path) -> None:
    """The verb `data`: read a data set and write its artefact."""
    module = importlib.import_module(f"directcm.datasets.{settings.kind}")
    count, items = module.items(settings)
    groups = module.groups(settings) if hasattr(module, "groups") else None
    write(count, items, settings, seed, out, groups)
