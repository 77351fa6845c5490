"""The gallery: a run's pictures on one page that loads nothing, each enlarged by a click or the space bar, without a script."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from directcm.analysis.page import data_uri, plain, write_page
from directcm.errors import UserError
from directcm.runtime.artifacts import read_json

PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """One picture: a PNG, its title (also its alternative text), a caption, and the section it stands in."""

    path: Path
    title: str
    caption: str = ""
    section: str = ""


def size(path: str | Path) -> tuple[int, int]:
    """Width and height of a PNG in pixels; UserError where the file is none."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            head = file.read(24)
    except FileNotFoundError:
        raise UserError(f"{path}: no such picture; draw the figure first") from None
    except OSError as error:
        raise UserError(f"{path}: not readable ({error}); delete it and draw the figure again") from None
    if head[:8] != PNG or head[12:16] != b"IHDR":
        raise UserError(f"{path}: not a PNG; delete it and draw the figure again")
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def read_items(text: str) -> list[Picture]:
    """Pictures from JSON, inline or a file: [{"path": …, "title": …, "caption": …, "section": …}], the last two optional."""
    where = "--pictures" if text.lstrip().startswith("[") else text
    try:
        content = json.loads(text) if where == "--pictures" else read_json(text)
    except json.JSONDecodeError as error:
        raise UserError(f"--pictures: not valid JSON ({error})") from None
    out = []
    for item in content if isinstance(content, list) else [content]:
        known = isinstance(item, dict) and set(item) <= {"path", "title", "caption", "section"}
        if not known or not {"path", "title"} <= set(item) or not all(isinstance(v, str) for v in item.values()):
            raise UserError(f"{where}: expected a list of objects with path, title, caption and section, all text")
        out.append(Picture(Path(item["path"]), item["title"], item.get("caption", ""), item.get("section", "")))
    return out


# A checkbox per picture holds whether it is enlarged. It is hidden from sight alone, so that it takes the focus and the
# space bar; the picture is its label. Enlarged, the label covers the window and scrolls; the button bar is the label too.


def gallery(items: Sequence[Picture], out_html: str | Path, title: str) -> None:
    """Write the pictures, by section in order of appearance, as one HTML page of their own bytes.

    Raises UserError where there is none, or where a file is no PNG.
    """
    if not items:
        raise UserError("gallery: no pictures given; draw the figures first")
    sections: dict[str, list[dict[str, object]]] = {}
    for number, item in enumerate(items):
        width, height = size(item.path)
        picture = {
            "number": number, "title": plain(item.title), "caption": list(filter(None, map(plain, item.caption.split("\n\n")))),
            "source": data_uri(item.path.read_bytes(), "png"), "width": width, "height": height,
        }  # fmt: skip
        sections.setdefault(plain(item.section), []).append(picture)
    write_page(
        out_html, "pages/gallery.html", title=plain(title), count=f"{len(items)} picture{'s' * (len(items) != 1)}",
        sections=[{"name": name, "pictures": pictures} for name, pictures in sections.items()],
    )  # fmt: skip
