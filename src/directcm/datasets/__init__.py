"""Data sets: images and captions, copied into one artefact of square RGB PNGs with a fixed split.

A data set is a module here that says what it is, DATA_SET = {…} in plain values (`specs.DataSet`), and has
`items(settings) -> (how many, an iterator of Item)`; its name is its `kind`. Numbers of its own, SETTINGS = {"NAME": (default,
"what it is")}, stand below `data` in a block of its name. Where items
overlap it has `groups(settings) -> one number per item` too, and the split keeps a group together, as it keeps together what is
pixel for pixel the same. Where it is read from outside the project, `files(settings) -> [(name, path)]` says what it is made from.
What its manifest is to say besides is `about(settings)`, plain values by name.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from directcm.config import Data, local, parse
from directcm.config.data import OUTSIDE
from directcm.config.specs import DATA_SETS
from directcm.errors import UserError
from directcm.runtime import outside, rng
from directcm.runtime.artifacts import (
    LOCATION,
    MANIFEST,
    SOURCES,
    Artifact,
    new_artifact,
    read_csv,
    read_json,
    write_csv,
    write_json,
)
from directcm.runtime.outside import SOURCE_COLUMNS
from directcm.runtime.progress import Progress

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
    if groups is None:
        groups = range(n)
    names = list(dict.fromkeys(groups))
    count = min(max(round(len(names) * held_out), 1), len(names) - 1)
    chosen = {names[i] for i in rng.permutation(seed, "split", len(names))[:count]}
    return [HELD_OUT if g in chosen else TRAIN for g in groups]


def _joined(*columns: Sequence[Any]) -> list[int]:
    """One number per item (n,): the same for items that have a value of a column in common, and for those joined by others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first: dict[Any, int] = {}
    links = [
        (item, first.setdefault((which, value), item))
        for which, column in enumerate(columns)
        for item, value in enumerate(column)
    ]
    n = len(columns[0])
    graph = coo_array(([1] * len(links), tuple(zip(*links, strict=True))), shape=(n, n))
    return connected_components(graph, directed=False)[1].tolist()


def write(
    count: int,
    items: Iterable[Item],
    settings: Data,
    seed: int,
    out: str | Path,
    groups: Sequence[int] | None = None,
    sources: list[dict[str, Any]] | None = None,
    least: int = 1,
    classes: bool = False,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write `count` items, one at a time, as the data artefact: images/, images.csv (id, file_name, text, label, split), data.json.

    `sources`: rows of the files outside the project that they were made from, for sources.csv; None where there are none.
    `least`: training images that the metrics need. `classes`: whether a teacher is told the class of each. `about`: what the
    manifest says besides of what they were made from.
    """
    if count < 2:
        raise UserError(f"data: {count} image(s) found, at least 2 are needed (one to train on, one held out)")
    progress = Progress("data", count, "image")
    with new_artifact(out, "data", settings={**json.loads(settings.model_dump_json()), "seed": seed}) as art:
        rows: list[dict[str, Any]] = []
        pixels: list[bytes] = []
        for i, item in enumerate(items):
            name = f"images/{i:05d}.png"
            item.image.save(art / name)
            pixels.append(hashlib.sha256(item.image.tobytes()).digest())
            rows.append({"id": i, "file_name": name, "text": item.text, "label": item.label, "split": item.part})
            progress.update()
        if len(rows) != count:
            raise ValueError(f"{count} items were announced, {len(rows)} came")
        together: Sequence[int] = _joined(pixels, groups) if groups is not None else _joined(pixels)
        if len(set(together)) < 2:
            # Nothing can be held out of one picture; whoever tries a pipeline on placeholders is told.
            print(f"data: all {count} images are the same picture, so it is trained on and held out", file=sys.stderr)
            together = range(count)
        if not all(row["split"] for row in rows):
            for row, part in zip(rows, split(count, settings.held_out, seed, together), strict=True):
                row["split"] = row["split"] or part
        train = sum(row["split"] == TRAIN for row in rows)
        if train < least:
            raise UserError(
                f"data: {train} of {count} images are trained on, the metrics need at least {least}: add images, lower data.held_out, "
                "or leave out the metrics that need most (precision, recall, density, coverage)"
            )
        if classes:
            check_classes([(row["file_name"], row["text"], row["label"]) for row in rows], "data")
        if sources is not None:
            write_csv(art / SOURCES, sources, SOURCE_COLUMNS)
            where = module_of(settings).font(settings) if _lies_in(settings) == "font" else folder_of(settings)
            write_json(art / LOCATION, {"data": str(where.absolute())})
        write_csv(art / "images.csv", rows, COLUMNS)
        parted = {"n_train": train, "n_held_out": count - train}
        art.counts = {"n": count, **parted, **(about or {})}
        labels = sorted({row["label"] for row in rows} - {""})
        whole = {"name": settings.kind, "resolution": settings.resolution, "labels": labels, **parted}
        write_json(art / "data.json", whole)


def photo_of(name: str) -> str:
    """The caption of an image of which the class is all that is known."""
    return f"a photo of {'an' if name[:1].lower() in tuple('aeiou') else 'a'} {name}"


def listed(names: Sequence[str], describe: Callable[[str], str] = repr) -> str:
    """The first five of some names, and how many more there are."""
    return ", ".join(map(describe, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def check_classes(rows: Sequence[tuple[str, str, str]], where: str) -> None:
    """What a teacher on pixels asks of (name, caption, label): a label of every image, the same of all of one caption. UserError."""
    without = [name for name, _, label in rows if not label]
    if without:
        raise UserError(
            f"{where}: {len(without)} image(s) of {len(rows)}, {listed(without)}, without a label, which a teacher on pixels needs; "
            "name each image's class in the column label, or set teacher.kind to one on latents"
        )
    found: dict[str, str] = {}
    for _, text, label in rows:
        if found.setdefault(text, label) != label:
            raise UserError(
                f"{where}: the caption {text[:60]!r} has the labels {found[text]!r} and {label!r}; a teacher on pixels is "
                "told the class by the caption: one label a caption is needed"
            )


def module_of(settings: Data) -> ModuleType:
    """The module of a data set."""
    return importlib.import_module(f"directcm.datasets.{settings.kind}")


def modules(settings: Data) -> list[str]:
    """The modules that read a data set, without the package's name: its own, and that of a folder's or an archive's layout."""
    names = [settings.kind] + ([settings.layout] if settings.kind in OUTSIDE else [])
    return [f"datasets.{name}" for name in dict.fromkeys(names)]


S = TypeVar("S")


def evenly(found: Sequence[S], most: int | None) -> Sequence[S]:
    """At most so many of some things, evenly spaced and in their order, the first and the last among them; None: all."""
    n = len(found)
    if most is None or n <= most:
        return found
    return [found[i * (n - 1) // (most - 1)] for i in range(most)]


def _lies_in(settings: Data) -> str:
    return DATA_SETS[settings.kind].lies_in


def make(settings: Data, seed: int, out: str | Path, least: int = 1, classes: bool = False) -> None:
    """The verb `data`: read a data set and write its artefact.

    `least`: training images that the metrics need; `classes`: whether a teacher is told the class of each. UserError otherwise.
    """
    module = module_of(settings)
    count, items = module.items(settings)
    kept = evenly(range(count), settings.most)
    if len(kept) < count:
        chosen = set(kept)
        count, items = len(kept), (item for i, item in enumerate(items) if i in chosen)
    groups = module.groups(settings) if hasattr(module, "groups") else None
    sources = outside.rows(module.files(settings)) if hasattr(module, "files") else None
    if hasattr(module, "note_unlisted"):
        module.note_unlisted(settings)
    about = module.about(settings) if hasattr(module, "about") else None
    write(count, items, settings, seed, out, groups, sources, least, classes, about)


def folder_of(settings: Data) -> Path:
    """Where a folder of images lies, or an archive that is placed by hand."""
    return local(settings.path or "")


def content(settings: Data, folder: Path) -> str:
    """A digest of what is outside the project that the data of `settings` are made from; "" where that is nothing.

    Where it is not here any more (results brought from another machine), that of the artefact in `folder`, which is right as
    far as anyone can tell.
    """
    if _lies_in(settings) == "archive":
        from directcm.datasets import archive

        path = archive.place(settings)
        return outside.rows([("archive", path)], outside.KEPT)[0]["sha256"] if path.is_file() else str(settings.sha256)
    if not _lies_in(settings):
        return ""
    try:
        here = _lies_in(settings) != "folder" or folder_of(settings).is_dir()
        if found := module_of(settings).files(settings) if here else []:
            return outside.digest(outside.rows(found, outside.KEPT))
        recorded = folder / SOURCES
        return outside.digest(read_csv(recorded)) if recorded.is_file() else ""
    except (UserError, OSError) as error:
        # Another table than what was read, then; what is wrong with it is said before the first job.
        return f"not readable: {error}"


def changes(data: Artifact) -> list[str] | None:
    """What has changed outside since a data artefact was made from it, a phrase per file; None where that cannot be seen here."""
    recorded = data.folder / SOURCES
    if not recorded.is_file():
        return []
    settings = parse(Data, {k: v for k, v in data.settings.items() if k != "seed"}, str(data.folder / MANIFEST))
    module = module_of(settings)
    if _lies_in(settings) == "folder" and (data.folder / LOCATION).is_file():
        # Where it lay, for a path may be relative to another folder than this one.
        settings = settings.model_copy(update={"path": read_json(data.folder / LOCATION)["data"]})
    if _lies_in(settings) == "folder" and not folder_of(settings).is_dir():
        return None
    try:
        found = module.files(settings)
    except UserError as error:
        return [str(error)]
    return outside.differences(read_csv(recorded), outside.rows(found)) if found else None
