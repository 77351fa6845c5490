"""Image files of every mode that Pillow has, as 8-bit RGB (`read`).

Depth: 16-bit whole numbers v become v/257 rounded, numbers with a point in [0, 1] become 255·v rounded. Transparency: composited on
white. Orientation: as EXIF or XMP says. Colour profiles are not applied, and CMYK is converted as if there were none. Of an
animation or a file of several pages the first picture counts.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# What transparent parts are laid on.
BACKGROUND = (255, 255, 255)
_ORIENTATION = 0x0112
# EXIF's orientation → what turns the stored pixels upright (Exif 2.32, 4.6.4 A).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Modes of eight bits a channel that Pillow converts to RGB without a choice.
_PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


class Unusable(Exception):
    """Why a file is no picture that can be used: a phrase without the file's name."""


class Small(Unusable):
    """Of an image that has fewer pixels than are asked for."""


def read(path: Path, name: str) -> Image.Image:
    """The picture in a file, upright, 8-bit RGB; Unusable where it cannot be read or its numbers mean nothing certain.

    Warnings of the decoder go to standard error with `name`, the file's.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with Image.open(path) as image:
                image.load()
                # After the pixels: of a TIFF Pillow has then turned them, and says so no more.
                turn = _UPRIGHT.get(_orientation(image, name))
                picture = to_rgb(image, name)
        except Unusable:
            raise
        except Image.DecompressionBombError:
            most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
            raise Unusable(f"too large, it has more than {most:,} pixels") from None
        except MemoryError:
            raise Unusable("too large for this machine's memory") from None
        # A decoder's errors are an open set: struct.error, SyntaxError, zlib.error, IndexError, RuntimeError of a plugin …
        except Exception as error:
            raise Unusable(f"not a readable image ({_reason(error, path)})") from None
    for warning in caught:
        say(name, str(warning.message))
    return picture if turn is None else picture.transpose(turn)


def fitted(image: Image.Image, side: int, crop: int | None = None) -> Image.Image:
    """The middle square of an image, `crop` pixels a side (None: its shorter side), by Lanczos at `side` pixels.

    The square's corner is at ((width − crop)//2, (height − crop)//2). Unusable where the image is smaller than crop or side.
    """
    least, key = (side, "data.resolution") if crop is None else (crop, "data.crop")
    if min(image.size) < least:
        raise Small(f"smaller than {key} = {least}; lower it or leave the image out")
    if crop is not None:
        left, top = ((size - crop) // 2 for size in image.size)
        image = image.crop((left, top, left + crop, top + crop))
    return ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        with open(path, "rb") as file:
            head = file.read(64)
        if not head:
            return "an empty file"
        if head.startswith(b"version https://git-lfs"):
            return "a pointer of git-lfs in the picture's place; run git lfs pull"
        if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"hevc"):
            return "HEIC, which Pillow does not know; save it as JPEG or PNG"
        return "in no format that Pillow knows"
    text = " ".join(str(error).replace(str(path), "the file").split())
    return f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__


def _orientation(image: Image.Image, name: str) -> int:
    """EXIF's orientation, 1 where there is none that can be read; no other entry is looked at."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
        return int(found) if isinstance(found, int | float) else 1
    # Damage in an entry that nobody needs is no reason to lose a sound picture.
    except Exception as error:
        say(name, f"its EXIF cannot be read ({error}); taken as upright")
        return 1


# What stands in a note for a folder that is there for a moment only: an archive's, unpacked.
RENAMED: dict[str, str] = {}


def say(name: str, text: str) -> None:
    """A note about one file on standard error, in one line."""
    line = " ".join(f"data: {name}: {text}".split())
    for folder, shown in RENAMED.items():
        line = line.replace(folder, shown)
    print(line, file=sys.stderr, flush=True)


def to_rgb(image: Image.Image, name: str = "image") -> Image.Image:
    """8-bit RGB of an open image of any mode; Unusable for one whose numbers mean nothing certain."""
    image.load()
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        return _grey(image, name)
    if image.mode not in (*_PLAIN, *_WITH_ALPHA):
        raise Unusable(f"of mode {image.mode}, which is not converted; save it as RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = _layer(image)
    if layer.getchannel("A").getextrema() == (0, 0):
        say(name, "is wholly transparent, so that it becomes white")
    return Image.alpha_composite(Image.new("RGBA", layer.size, (*BACKGROUND, 255)), layer).convert("RGB")


def _layer(image: Image.Image) -> Image.Image:
    """RGBA of an image with transparency of any kind."""
    # Pillow makes straight alpha of premultiplied one, and of PA, in steps of its own.
    first = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}.get(image.mode)
    if first is not None:
        image = image.convert(first)
    key = image.info.get("transparency")
    if image.mode not in ("1", "L", "RGB") or key is None:
        return image.convert("RGBA")
    # One value or colour is transparent. A PNG states it in the bits of the file, Pillow's pixels have eight.
    depth = _png_depth(image)
    if image.mode == "RGB":
        colours = np.asarray(image)
        wanted = [value >> 8 if depth == 16 else value for value in key]
        clear = (colours == np.array(wanted)).all(-1)
    else:
        # Of one bit Pillow has made 255 itself.
        wanted_grey = 255 * bool(key) if image.mode == "1" else round(key * 255 / (2**depth - 1))
        clear = np.asarray(image.convert("L")) == wanted_grey
    alpha = Image.fromarray(np.where(clear, 0, 255).astype(np.uint8))
    # Without the note, which Pillow would apply in its own way.
    del image.info["transparency"]
    layer = image.convert("RGB").convert("RGBA")
    layer.putalpha(alpha)
    return layer


def _png_depth(image: Image.Image) -> int:
    """Bits a sample in the file: IHDR's of a PNG (its ninth byte), else 8."""
    if image.format != "PNG":
        return 8
    with open(image.filename, "rb") as file:  # type: ignore[attr-defined]
        return file.read(25)[24]


def _grey(image: Image.Image, name: str) -> Image.Image:
    """One deep channel as RGB; transparent values of a PNG become the background."""
    values = np.asarray(image)
    if image.mode == "F":
        share = _unit(values)
    elif image.mode == "I":
        share = _sixteen(values)
    else:
        most = 2 ** min(_tag(image, _BITS_PER_SAMPLE) or 16, 16) - 1
        high = int(values.max())
        if most == 65535:
            _not_eight(high)
            if 0 < high < 4096:
                say(name, f"is dark: its largest value is {high}, white is 65535")
        share = values.astype(np.float64) / most
    if _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO and image.format == "TIFF":
        share = 1 - share
    # Half a step up: np.rint would send halves to even numbers.
    eight = np.floor(255 * share + 0.5).astype(np.uint8)
    key = image.info.get("transparency")
    if isinstance(key, int):
        eight = np.where(values == key, BACKGROUND[0], eight).astype(np.uint8)
    return Image.fromarray(eight).convert("RGB")


def _tag(image: Image.Image, number: int) -> int | None:
    """A TIFF's tag as one number; None where it is no TIFF or has none."""
    found = getattr(image, "tag_v2", {}).get(number)
    first = found[0] if isinstance(found, tuple) and found else found
    return int(first) if isinstance(first, int) else None


def _unit(values: np.ndarray) -> np.ndarray:
    """Numbers with a point as shares of white."""
    if not np.isfinite(values).all():
        raise Unusable("numbers with a point that are not all finite; save it with values from 0 to 1, or with 8 bits")
    low, high = float(values.min()), float(values.max())
    # Resampling leaves a little beyond; half a step of 8 bits is nobody's other scale.
    if low < -1 / 510 or high > 1 + 1 / 510:
        raise Unusable(
            f"numbers with a point from {low:.4g} to {high:.4g}, expected 0 to 1; divide them by their white, or save it with 8 bits"
        )
    return values.astype(np.float64).clip(0, 1)


def _not_eight(high: int) -> None:
    if 0 < high <= 255:
        raise Unusable(
            f"deeper than 8 bits, with values of at most {high}: black as 16 bits, perhaps meant as 8; save it with 8 bits, or scaled to 65535"
        )


def _sixteen(values: np.ndarray) -> np.ndarray:
    """32-bit whole numbers as shares of white, which is that of 16 bits."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise Unusable(f"32-bit whole numbers from {low} to {high}, expected 0 to 65535; save it with 16 or 8 bits")
    _not_eight(high)
    return values / 65535
