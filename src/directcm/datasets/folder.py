"""A folder of images with a metadata.csv (`file_name,text`, and `label` where there are classes), as Hugging Face's imagefolder has it.

docs/data.md says what images, tables and links may be, and what is refused in which words.
"""

from __future__ import annotations

import csv
import importlib
import io
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType

from PIL import Image

from directcm.config import Config, Data, local
from directcm.config.specs import LAYOUTS
from directcm.datasets import TRAIN, Item, check_classes, listed, pictures, split
from directcm.errors import UserError

DATA_SET = {
    "rank": 3,
    "about": "images with a metadata.csv (file_name,text, and label, the class, which teachers on pixels need)",
    "lies_in": "folder",
    "needs": ((("path",), "the folder that holds the images"),),
}
LAYOUT = {
    "rank": 1,
    "about": "folder, as data.kind folder has it",
    "mark": "metadata.csv",
    "needs": "it needs the columns file_name,text and a line per image",
}
MARK, NEEDS = LAYOUTS["folder"].mark, LAYOUTS["folder"].needs
NEEDED = ("file_name", "text")
OUTSIDE, MISSING, UNUSABLE, SMALL = range(4)


@dataclass(frozen=True)
class Row:
    """A line of the table: the number of its first line in the file, the image's name, caption and label ("" where there is none)."""

    line: int
    name: str
    text: str
    label: str


def check(settings: Data) -> Path:
    """The folder, if it is there and holds its layout's mark; a UserError that says what is missing otherwise."""
    folder, layout = local(settings.path or ""), LAYOUTS[settings.layout]
    if not folder.is_dir():
        found = "is a file" if folder.is_file() else "is not a folder"
        variables = " (variables are not replaced, ~ is)" if "$" in str(folder) else ""
        what = f"the images and their {MARK}" if layout.mark == MARK else f"{layout.about}"
        raise UserError(f"data.path: {folder} {found}{variables}; name the folder with {what}")
    if not (folder / layout.mark).exists():
        raise UserError(f"{folder / layout.mark}: missing; {layout.needs}")
    return folder


def _of_layout(settings: Data) -> tuple[ModuleType, Data] | None:
    """The module of a layout that is not this one, and what it reads: the folder in full."""
    layout = LAYOUTS[settings.layout]
    if layout.mark == MARK:
        return None
    there = settings.model_copy(update={"path": str(check(settings))})
    return importlib.import_module(f"directcm.{layout.module}"), there


def ready(config: Config) -> None:
    """What can be found wrong before the first job: a folder that is not there, too few images, or labels that a teacher misses."""
    folder = check(config.data)
    if (other := _of_layout(config.data)) is not None:
        module, settings = other
        count = module.items(settings)[0]
        if count < 2:
            raise UserError(
                f"data.path: {folder} holds {count} image, at least 2 are needed (one to train on, one held out)"
            )
        if count < config.least():
            raise UserError(
                f"data.path: {folder} holds {count} images; {config.why_least()} at least {config.least()}: add images, or leave those metrics out"
            )
        return
    rows = table(folder)
    if len(rows) < 2:
        raise UserError(
            f"{folder / MARK}: lists {len(rows)} image(s), at least 2 are needed (one to train on, one held out)"
        )
    train = split(len(rows), config.data.held_out, config.seed).count(TRAIN)
    if train < config.least():
        raise UserError(
            f"{folder / MARK}: lists {len(rows)} images, of which {train} are trained on; "
            f"{config.why_least()} at least {config.least()} of these: add images, lower data.held_out, or leave those metrics out"
        )
    if config.teacher.told_classes:
        check_labels(config.data)


def check_labels(settings: Data) -> None:
    """What a teacher on pixels asks of metadata.csv: a label of every image, the same of all images of one caption. UserError."""
    folder = check(settings)
    check_classes([(row.name, row.text, row.label) for row in table(folder)], str(folder / MARK))


def table(folder: Path) -> list[Row]:
    """The rows of a folder's metadata.csv, read strictly: what could be another table is a UserError with line and remedy."""
    path = folder / MARK
    try:
        # Not utf-8-sig's newline translation: a caption may hold a carriage return.
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not in UTF-8 ({error}); save it in that encoding") from None
    if "\0" in text:
        raise UserError(
            f"{path}: holds a NUL character, line {text[: text.index(chr(0))].count(chr(10)) + 1}; remove it"
        )
    # Strict: a quotation mark that is never closed, or closed in the middle of a field, is an error.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    header: list[str] | None = None
    start = 1
    try:
        for fields in reader:
            first, start = start, reader.line_num + 1
            # Empty lines, and empty rows as spreadsheets leave them at the end.
            if not any(field.strip() for field in fields):
                continue
            if header is None:
                header = _header(path, fields)
                continue
            where = f"{path}, line {first}"
            if first != reader.line_num:
                _one_row(folder, fields, where, reader.line_num)
            if len(fields) != len(header):
                raise UserError(
                    f"{where} ({fields[0]}): {'more' if len(fields) > len(header) else 'fewer'} fields than columns, {len(fields)} for "
                    f"{len(header)}; put a caption that has commas in double quotes, and write an empty field's comma"
                )
            for field in fields:
                if field.lstrip() != field and field.lstrip().startswith('"'):
                    raise UserError(
                        f"{where} ({fields[0]}): a space stands before a quotation mark that opens a field; remove the space"
                    )
            row = dict(zip(header, fields, strict=True))
            if not row["file_name"]:
                raise UserError(f"{where}: file_name is empty; name the image, or remove the line")
            rows.append(Row(first, row["file_name"], row["text"], row.get("label", "")))
    except csv.Error as error:
        raise UserError(
            f"{path}, line {start}: {_csv_reason(error)}; put the whole caption in double quotes and double those within it"
        ) from None
    if header is None:
        raise UserError(f"{path}: columns are none, it is empty; {NEEDS}")
    return rows


def _csv_reason(error: csv.Error) -> str:
    return {
        "unexpected end of data": "a quotation mark that opens a field is never closed",
        "',' expected after '\"'": "a field goes on after the quotation mark that closes it",
    }.get(str(error), str(error))


def _header(path: Path, fields: list[str]) -> list[str]:
    if not set(NEEDED) <= set(fields):
        odd = any(name != name.strip() or not name.isprintable() for name in fields)
        shown = ", ".join(repr(name) for name in fields) if odd else ",".join(fields)
        blank = ", without spaces around them" if odd else ""
        if len(fields) == 1 and any(mark in fields[0] for mark in ";\t|"):
            blank = ", separated by commas"
        raise UserError(f"{path}: columns are {shown}; file_name and text are needed{blank}")
    for name in (*NEEDED, "label"):
        if fields.count(name) > 1:
            raise UserError(f"{path}: the column {name} is there {fields.count(name)} times; one is needed")
    return fields


def _one_row(folder: Path, fields: list[str], where: str, last: int) -> None:
    """A caption may have several lines; one that holds what looks like other rows was not meant to. UserError."""
    for field in fields:
        lines = field.splitlines()
        for line in lines if len(lines) > 1 else ():
            # In whatever column the names stand.
            for name in (part.strip().strip('"') for part in line.split(",")) if "," in line else ():
                if name and (_is_image_name(name) or _Folder(folder).find(name) is not None):
                    raise UserError(
                        f"{where}: a quotation mark opens a field that runs to line {last}, over the row of {name!r}; close the caption "
                        'on its own line, and write a quotation mark within it twice: ""'
                    )


def _is_image_name(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in Image.registered_extensions()


def normal(name: str) -> str:
    """A file name's one spelling: "./a//b.png" is "a/b.png", accents are composed (NFC)."""
    return unicodedata.normalize("NFC", os.path.normpath(name)) if name else name


class _Folder:
    """Finds files by names that may be composed otherwise than on the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listed: dict[Path, dict[str, str]] = {}

    def find(self, name: str) -> Path | None:
        """The file of a name, which may spell accents in another form than the disk does; None where there is none."""
        try:
            return self._find(name) or (self._find(name.replace("\\", "/")) if "\\" in name else None)
        except OSError:
            # Too long for any file system, say.
            return None

    def _find(self, name: str) -> Path | None:
        path = self.folder / name
        if path.is_file():
            return path
        path = self.folder
        for part in PurePosixPath(os.path.normpath(name)).parts:
            found = self._entries(path).get(unicodedata.normalize("NFC", part))
            if found is None:
                return None
            path = path / found
        return path if path.is_file() else None

    def _entries(self, folder: Path) -> dict[str, str]:
        if folder not in self.listed:
            names: list[str] = []
            with suppress(OSError):
                names = sorted(os.listdir(folder))
            self.listed[folder] = {unicodedata.normalize("NFC", name): name for name in names}
        return self.listed[folder]

    def why_missing(self, name: str) -> str:
        """What is known of a file that is not there."""
        path = self.folder / name
        if len(os.fsencode(path.name)) > 255:
            return f"{name[:60]!r}… (too long for a file's name: is it a caption?)"
        if path.is_symlink():
            return f"{name!r} (a link to {os.readlink(path)}, which is not there)"
        if path.is_dir():
            return f"{name!r} (a folder)"
        near = {n.lower(): n for n in self._entries(path.parent).values()}.get(path.name.lower())
        return f"{name!r} (there is {near!r})" if near else repr(name)


def _inside(name: str) -> bool:
    """Whether a name stays within the folder as it is written; where a link on the way leads is the user's own affair."""
    path = PurePosixPath(os.path.normpath(name)) if name else PurePosixPath("..")
    return "\0" not in name and not path.is_absolute() and ".." not in path.parts


def _all_files(folder: Path) -> list[tuple[str, Path]]:
    return [(path.relative_to(folder).as_posix(), path) for path in sorted(folder.rglob("*")) if path.is_file()]


def files(settings: Data) -> list[tuple[str, Path]]:
    """(name, path) of what the data are made from, in order: the table and the listed images that are there. UserError as `table`.

    Of another layout what its module says, or else all files of the folder.
    """
    folder = check(settings)
    if (other := _of_layout(settings)) is not None:
        module, full = other
        return module.files(full) if hasattr(module, "files") else _all_files(folder)
    there = _Folder(folder)
    found = [(MARK, folder / MARK)]
    for row in table(folder):
        if _inside(row.name) and (path := there.find(row.name)) is not None:
            found.append((normal(row.name), path))
    return found


def items(settings: Data) -> tuple[int, Iterator[Item]]:
    """The listed images: their middle square, then Lanczos to the resolution; captions and labels as they stand. Or those of another layout.

    The iterator goes through all of them and then raises UserError naming those that are missing, outside the folder,
    unreadable or too small, if there were any.
    """
    folder = check(settings)
    if (other := _of_layout(settings)) is not None:
        module, full = other
        return module.items(full)
    rows = table(folder)
    first: dict[str, Row] = {}
    again = []
    for row in rows:
        known = first.setdefault(normal(row.name), row)
        if known is not row:
            again.append(row.name if known.name == row.name else f"{row.name}, which is {known.name},")
    if again:
        raise UserError(f"{folder / MARK}: {listed(again)} listed twice; one line per image")
    return len(rows), _read(folder, rows, settings.resolution, settings.crop)


def _read(folder: Path, rows: list[Row], side: int, crop: int | None) -> Iterator[Item]:
    there = _Folder(folder)
    # By what is said first: the first of them is the error, the others are notes.
    problems: dict[tuple[int, str], list[str]] = defaultdict(list)
    for row in rows:
        if not _inside(row.name):
            problems[OUTSIDE, "not inside the folder; use paths relative to it"].append(row.name)
            continue
        path = there.find(row.name)
        if path is None:
            problems[MISSING, "not there; remove the line or add the file"].append(row.name)
            continue
        try:
            image = pictures.read(path, str(folder / row.name))
        except pictures.Unusable as why:
            remedy = "" if ";" in str(why) else "; remove the line or replace the file"
            problems[UNUSABLE, f"{why}{remedy}"].append(row.name)
            continue
        try:
            square = pictures.fitted(image, side, crop)
        except pictures.Small as why:
            problems[SMALL, str(why)].append(f"{row.name} ({image.width}×{image.height})")
        else:
            yield Item(square, row.text, row.label)
    lines = [
        f"{len(names)} file(s), {listed(names, there.why_missing if rank == MISSING else repr)}: {why}"
        for (rank, why), names in sorted(problems.items(), key=lambda problem: problem[0][0])
    ]
    for line in lines[1:]:
        pictures.say(str(folder / MARK), line)
    if lines:
        raise UserError(f"{folder / MARK}: {lines[0]}")


def note_unlisted(settings: Data) -> None:
    """Say how many images lie in the folder that its table does not name: they are left out, which may not be meant."""
    folder = check(settings)
    if _of_layout(settings) is not None:
        return
    named = {normal(row.name) for row in table(folder)}
    found = (
        os.path.relpath(os.path.join(top, name), folder)
        for top, _, names in os.walk(folder)
        for name in names
        if _is_image_name(name)
    )
    left = sorted(name for name in found if normal(name) not in named)
    if left:
        pictures.say(str(folder), f"{len(left)} image(s) that {MARK} does not list are left out: {listed(left)}")
