"""A folder of images with a metadata.csv (`file_name,text`, and `label` where there are classes), as Hugging Face's imagefolder has it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from directcm.config import Data
from directcm.datasets import Item
from directcm.errors import UserError

# The file beside which an archive has the others, and what is said where it is missing.
MARK = "metadata.csv"
NEEDS = "it needs the columns file_name,text and a line per image"


def check(settings: Data) -> Path:
    """The folder, if it is there and holds a metadata.csv; a UserError that says what is missing otherwise."""
    folder = Path(settings.path or "")
    if not folder.is_dir():
        raise UserError(f"data.path: {folder} is not a folder; put the images and their metadata.csv there")
    if not (folder / "metadata.csv").is_file():
        raise UserError(f"{folder / 'metadata.csv'}: missing; {NEEDS}")
    return folder


def check_labels(settings: Data) -> None:
    """What a teacher on pixels asks of metadata.csv: a label of every image, the same of all images of one caption. UserError."""
    path = check(settings) / "metadata.csv"
    rows = _rows(path)
    without = [name for name, _, label in rows if not label]
    if without:
        raise UserError(
            f"{path}: {len(without)} image(s) of {len(rows)}, {_list(without)}, without a label, which a teacher on pixels needs; "
            "name each image's class in the column label, or set teacher.kind to one on latents"
        )
    found: dict[str, str] = {}
    for _, text, label in rows:
        if found.setdefault(text, label) != label:
            raise UserError(
                f"{path}: the caption {text[:60]!r} has the labels {found[text]!r} and {label!r}; a teacher on pixels is told the "
                "class by the caption: one label a caption is needed"
            )


def _rows(path: Path) -> list[tuple[str, str, str]]:
    """File name, caption and label ("" where there is none) of each line."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not {"file_name", "text"} <= set(reader.fieldnames or []):
                raise UserError(
                    f"{path}: columns are {','.join(reader.fieldnames or []) or 'none'}; file_name and text are needed"
                )
            rows = []
            for row in reader:
                if None in row:
                    raise UserError(
                        f"{path}, line {reader.line_num} ({row['file_name']}): more fields than columns; put a caption that has commas in double quotes"
                    )
                rows.append((row["file_name"] or "", row["text"] or "", row.get("label") or ""))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8 ({error})") from None
    names = [name for name, _, _ in rows]
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise UserError(f"{path}: {_list(repeated)} listed twice; one line per image")
    return rows


def _list(names: list[str], most: int = 5) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def _open(path: Path) -> Image.Image | None:
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def items(settings: Data) -> tuple[int, Iterator[Item]]:
    """The listed images: centre crop to a square, then Lanczos to the resolution; captions and labels as they stand.

    The iterator goes through all of them and then raises UserError naming those that are missing, outside the folder,
    unreadable or too small, if there were any.
    """
    folder = check(settings)
    rows = _rows(folder / "metadata.csv")
    return len(rows), _read(folder, rows, settings.resolution)


def _read(folder: Path, rows: list[tuple[str, str, str]], side: int) -> Iterator[Item]:
    metadata = folder / "metadata.csv"
    missing, outside, unreadable, small = [], [], [], []
    for name, text, label in rows:
        path = folder / name
        if not name or "\0" in name or not path.resolve().is_relative_to(folder.resolve()):
            outside.append(name)
        elif not path.is_file():
            missing.append(name)
        elif (image := _open(path)) is None:
            unreadable.append(name)
        elif min(image.size) < side:
            small.append(f"{name} ({image.width}×{image.height})")
        else:
            yield Item(ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS), text, label)
    for names, what in (
        (outside, "not inside the folder; use paths relative to it"),
        (missing, "not there; remove the line or add the file"),
        (unreadable, "not a readable image; remove the line or replace the file"),
        (small, f"smaller than data.resolution = {side}; lower it or leave the image out"),
    ):
        if names:
            raise UserError(f"{metadata}: {len(names)} file(s), {_list(names)}: {what}")
