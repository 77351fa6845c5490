"""Noto Color Emoji (Google), drawn from the system's font, captioned by Unicode's own names: open words, colour, sharp edges.

Nothing of the font comes with the project. A picture is a single character's, as wide as the font's bitmaps (136×128), centred in a
square of white, where other transparent images lie too (`pictures`), and brought to the resolution by the mean over each pixel's area
(a box): no ringing at edges, and no colour that the drawing has not. The caption is the character's name in
lower case, "grinning face". Left out are characters that Python's edition of Unicode does not name, those that draw nothing, and of
pictures the same pixel for pixel all but the first; the order is that of the code points.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from directcm.config import Config, Data, local
from directcm.datasets import Item, pictures
from directcm.errors import UserError

DATA_SET = {
    "rank": 2,
    "about": "Noto Color Emoji, drawn from the system's font",
    "largest": 128,
    "lies_in": "font",
}
SETTINGS = {"font": (None, "path of NotoColorEmoji.ttf, a build with bitmaps; null: where the system has it")}
FAMILY = "Noto Color Emoji"
# Debian's and Ubuntu's place, Arch's; fontconfig knows all others.
PLACES = ("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf", "/usr/share/fonts/noto/NotoColorEmoji.ttf")
INSTALL = "install it (Debian, Ubuntu: apt-get install fonts-noto-color-emoji), or name the file as data.emoji.font"
# Tables of bitmaps that FreeType draws in colour.
BITMAPS = ("CBDT", "CBLC")


@dataclass(frozen=True)
class Drawn:
    """The pictures, a name and an image each, and how many characters were left out for want of a name, of ink, or of a difference."""

    pictures: tuple[tuple[str, Image.Image], ...]
    without_name: int
    empty: int
    same: int


def place(settings: Data) -> Path | None:
    """Where the font lies: data.emoji.font, or where the system has it; None where it has none."""
    named = settings.emoji.font  # type: ignore[attr-defined]
    if named is not None:
        return local(named)
    for path in map(Path, PLACES):
        if path.is_file():
            return path
    asked = shutil.which("fc-match")
    if asked is None:
        return None
    done = subprocess.run([asked, "-f", "%{family}\n%{file}", FAMILY], capture_output=True, text=True, check=False)
    # fontconfig answers with another family where it has not this one.
    family, _, file = done.stdout.partition("\n")
    return Path(file) if FAMILY in family.split(",") and Path(file).is_file() else None


def font(settings: Data) -> Path:
    """The font's file; a UserError that says how to install it where there is none."""
    found = place(settings)
    if found is None:
        raise UserError(f"data.kind emoji: this machine has no font {FAMILY}; {INSTALL}")
    if not found.is_file():
        raise UserError(f"data.emoji.font: {found} is not a file; {INSTALL}")
    return found


def files(settings: Data) -> list[tuple[str, Path]]:
    """The font, where it is there: once drawn, it need not stay."""
    found = place(settings)
    return [("font", found)] if found is not None and found.is_file() else []


def read(path: Path) -> tuple[list[int], int]:
    """The code points that a font has, ascending, and its bitmaps' size (pixels an em); UserError where it has no bitmaps in colour."""
    from fontTools.ttLib import TTFont

    try:
        with TTFont(path, lazy=True) as opened:
            if not all(table in opened for table in BITMAPS):
                vectors = ", its drawings are vectors (COLR)" if "COLR" in opened else ""
                raise UserError(
                    f"{path}: has no bitmaps in colour (tables {' and '.join(BITMAPS)}){vectors}; data.kind emoji needs the build "
                    f"with bitmaps: {INSTALL}"
                )
            sizes = [strike.bitmapSizeTable.ppemY for strike in opened["CBLC"].strikes]
            return sorted(opened.getBestCmap() or ()), max(sizes)
    except UserError:
        raise
    # What damage raises is an open set: TTLibError, struct.error, AssertionError, ValueError of an empty list …
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{path}: not a font that can be read ({text[:200]}); {INSTALL}") from None


def ready(config: Config) -> None:
    """Before the first job: the font is there and has bitmaps."""
    read(font(config.data))


def area_mean(image: Image.Image, side: int) -> Image.Image:
    """A square RGB image at side × side, each pixel the mean over its area, rounded half up; a pixel that several share counts by its parts.

    Pillow's own box takes each pixel wholly or not at all. In whole numbers, so that it is the same everywhere.
    """
    fine = math.lcm(image.width, side)
    cells = np.arange(fine)
    # How many of a common multiple's cells a pixel of either size shares with one of the other.
    parts = np.zeros((side, image.width))
    np.add.at(parts, (cells * side // fine, cells * image.width // fine), 1)
    # Below 2⁵³, where float64 is exact.
    sums = parts @ np.moveaxis(np.asarray(image, dtype=np.float64), 2, 0) @ parts.T
    whole, per = sums.astype(np.int64), (fine // side) ** 2
    return Image.fromarray(np.moveaxis((2 * whole + per) // (2 * per), 0, 2).astype(np.uint8).copy())


@lru_cache(maxsize=1)
def drawn(path: Path, side: int) -> Drawn:
    """All pictures of a font at side × side pixels, in the order of the code points; UserError where FreeType cannot draw one."""
    points, size = read(path)
    try:
        return _draw(path, points, size, side)
    except OSError as error:
        raise UserError(f"{path}: its pictures cannot be drawn ({error}); {INSTALL}") from None


def _draw(path: Path, points: list[int], size: int, side: int) -> Drawn:
    # Single characters need no shaping, and the plain layout is the same wherever Pillow is.
    pen = ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
    found: dict[bytes, tuple[str, Image.Image]] = {}
    without_name = empty = same = 0
    for point in points:
        character = chr(point)
        name = unicodedata.name(character, "").lower()
        if not name:
            without_name += 1
            continue
        left, top, right, bottom = pen.getbbox(character)
        width, height = int(right - left), int(bottom - top)
        square = max(width, height)
        corner = (square - width) // 2 - left, (square - height) // 2 - top
        canvas = Image.new("RGB", (max(square, 1),) * 2, pictures.BACKGROUND)
        ImageDraw.Draw(canvas).text(corner, character, font=pen, embedded_color=True)
        if all(extremes == (255, 255) for extremes in canvas.getextrema()):
            empty += 1
            continue
        image = area_mean(canvas, side)
        if image.tobytes() in found:
            same += 1
        else:
            found[image.tobytes()] = name, image
    return Drawn(tuple(found.values()), without_name, empty, same)


def about(settings: Data) -> dict[str, Any]:
    """For the manifest: whose names and which font, and how many characters were left out."""
    from directcm.runtime import outside

    path = font(settings)
    made = drawn(path, settings.resolution)
    return {
        "font_sha256": outside.rows([("font", path)])[0]["sha256"],
        "unicode": unicodedata.unidata_version,
        "without_name": made.without_name,
        "empty": made.empty,
        "same": made.same,
    }


def items(settings: Data) -> tuple[int, Iterator[Item]]:
    """The emoji, a caption each and no label; what was left out is said on the screen."""
    path = font(settings)
    made = drawn(path, settings.resolution)
    pictures.say(
        str(path),
        f"{len(made.pictures)} emoji; left out are {made.without_name} characters without a name in Unicode "
        f"{unicodedata.unidata_version}, {made.empty} that draw nothing, and {made.same} of the same pixels as another",
    )
    return len(made.pictures), (Item(image, name) for name, image in made.pictures)
