"""Images of every mode, and decoders' errors: the right pixels, or one line with the file's name."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from directcm import datasets
from directcm.cli import main
from directcm.config import Data
from directcm.errors import UserError

# Some are quick, all together they are not: `make quick` is for what tells most in a minute.
pytestmark = pytest.mark.slow

SIDE = 16
WHITE = 255


def made(folder: Path, *names: str) -> list[np.ndarray]:
    """The pixels that the verb `data` makes of these images, beside one that makes two; in order."""
    Image.fromarray(np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)).save(folder / "zz.png")
    lines = ["file_name,text", *(f"{name},a caption" for name in names), "zz.png,a ramp"]
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    out = folder.with_name(folder.name + "-made")
    datasets.make(Data(kind="folder", path=str(folder), resolution=SIDE), 0, out)
    return [np.asarray(Image.open(out / f"images/{i:05d}.png")).astype(int) for i in range(len(names))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    return tmp_path / "pictures"


def png(path: Path, depth: int, colour: int, rows: list[bytes], *extra: tuple[bytes, bytes]) -> None:
    """A PNG by its own chunks, for Pillow writes few of the kinds that there are (PNG, W3C 2003, 11.2)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", SIDE, len(rows), depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    whole = [(b"IHDR", head), *extra, (b"IDAT", body), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in whole))


RAMP = np.linspace(0, 65535, SIDE * SIDE).round().astype(np.uint16).reshape(SIDE, SIDE)
EIGHT = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)


def _tiff(path: Path, values: np.ndarray, order: str, form: int, photometric: int = 1, bits: int | None = None) -> None:
    """A grey TIFF of one strip (TIFF 6.0, section 8), for the kinds that Pillow does not write. `form`: SampleFormat."""
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    mark = b"II" if order == "<" else b"MM"
    entries = [
        (256, 4, SIDE),
        (257, 4, SIDE),
        (258, 3, bits or values.dtype.itemsize * 8),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, SIDE),
        (279, 4, len(data)),
        (339, 3, form),
    ]
    out = mark + struct.pack(f"{order}HI", 42, 8 + len(data)) + data + struct.pack(f"{order}H", len(entries))
    for tag, kind, value in entries:
        field = struct.pack(f"{order}I", value) if kind == 4 else struct.pack(f"{order}HH", value, 0)
        out += struct.pack(f"{order}HHI", tag, kind, 1) + field
    path.write_bytes(out + struct.pack(f"{order}I", 0))


DEEP: dict[str, Callable[[Path], None]] = {
    "16-bit PNG": lambda p: Image.fromarray(RAMP).save(p.with_suffix(".png")),
    "16-bit TIFF, little-endian": lambda p: _tiff(p.with_suffix(".tif"), RAMP, "<", 1),
    "16-bit TIFF, big-endian": lambda p: _tiff(p.with_suffix(".tif"), RAMP, ">", 1),
    "16-bit TIFF, white is zero": lambda p: _tiff(p.with_suffix(".tif"), 65535 - RAMP, "<", 1, photometric=0),
    "32-bit TIFF of 16-bit values": lambda p: _tiff(p.with_suffix(".tif"), RAMP.astype(np.int32), "<", 2),
    "float TIFF in [0, 1]": lambda p: _tiff(p.with_suffix(".tif"), (RAMP / 65535).astype(np.float32), "<", 3),
    "float TIFF in [0, 1], big-endian": lambda p: _tiff(
        p.with_suffix(".tif"), (RAMP / 65535).astype(np.float32), ">", 3
    ),
    "PGM of 16 bits": lambda p: p.with_suffix(".pgm").write_bytes(b"P5 16 16 65535\n" + RAMP.astype(">u2").tobytes()),
    "PGM of 10 bits": lambda p: p.with_suffix(".pgm").write_bytes(
        b"P5 16 16 1023\n" + (RAMP // 64).astype(">u2").tobytes()
    ),
}


@pytest.mark.parametrize("kind", DEEP)
def test_depth_is_scaled(kind: str, folder: Path) -> None:
    """A ramp over the whole range becomes the ramp 0, 1, …, 255."""
    DEEP[kind](folder / "ramp")
    (name,) = [path.name for path in folder.iterdir()]
    (pixels,) = made(folder, name)
    assert np.abs(pixels - EIGHT[..., None]).max() <= (1 if "10 bits" in kind else 0)


def grey(value: int, alpha: int) -> int:
    return round(value * alpha / 255 + WHITE * (255 - alpha) / 255)


def _solid(mode: str, value: Any) -> Image.Image:
    return Image.new(mode, (SIDE, SIDE), value)


def test_every_kind_of_transparency_is_laid_on_white(folder: Path) -> None:
    """Alpha in LA, RGBA, PA and palettes; one transparent value or colour in 1, L, I;16, RGB, at each depth that PNG has."""
    _solid("LA", (40, 128)).save(folder / "la.png")
    _solid("RGBA", (10, 20, 30, 0)).save(folder / "rgba.png")
    _solid("RGBA", (10, 20, 30, 128)).save(folder / "half.tif")
    _solid("LA", (40, 0)).save(folder / "la.webp", lossless=True)
    half = [bytes([0] * 8 + [1] * 8)] * SIDE
    png(folder / "palette.png", 8, 3, half, (b"PLTE", bytes([1, 2, 3, 4, 5, 6])), (b"tRNS", bytes([0, 255])))
    png(folder / "palette_half.png", 8, 3, half, (b"PLTE", bytes([0, 0, 0, 4, 5, 6])), (b"tRNS", bytes([128])))
    png(folder / "one.png", 1, 0, [bytes([0b00000000, 0b11111111])] * SIDE, (b"tRNS", struct.pack(">H", 0)))
    png(folder / "two.png", 2, 0, [bytes([0b01010101] * 2 + [0] * 2)] * SIDE, (b"tRNS", struct.pack(">H", 1)))
    png(folder / "eight.png", 8, 0, [bytes([10] * 8 + [20] * 8)] * SIDE, (b"tRNS", struct.pack(">H", 10)))
    png(folder / "sixteen.png", 16, 0, [struct.pack(">16H", *[257] * 8, *[5140] * 8)] * SIDE, (b"tRNS", b"\1\1"))
    png(folder / "rgb.png", 8, 2, [bytes([1, 2, 3] * 8 + [4, 5, 6] * 8)] * SIDE, (b"tRNS", struct.pack(">3H", 1, 2, 3)))
    deep = struct.pack(">48H", *[256, 512, 768] * 8, *[4 * 257, 5 * 257, 6 * 257] * 8)
    png(folder / "rgb16.png", 16, 2, [deep] * SIDE, (b"tRNS", struct.pack(">3H", 256, 512, 768)))
    gif = Image.new("P", (SIDE, SIDE), 0)
    gif.putpalette([9, 9, 9, 90, 90, 90])
    gif.paste(1, (8, 0, SIDE, SIDE))
    gif.save(folder / "gif.gif", transparency=0)
    # Left and right half of each.
    wanted = {
        "la.png": (grey(40, 128), grey(40, 128)),
        "rgba.png": (WHITE, WHITE),
        "half.tif": (grey(10, 128), grey(10, 128)),
        "la.webp": (WHITE, WHITE),
        "palette.png": (WHITE, 4),
        "palette_half.png": (grey(0, 128), 4),
        "one.png": (WHITE, 255),
        "two.png": (WHITE, 0),
        "eight.png": (WHITE, 20),
        "sixteen.png": (WHITE, 20),
        "rgb.png": (WHITE, 4),
        "rgb16.png": (WHITE, 4),
        "gif.gif": (WHITE, 90),
    }
    for name, pixels in zip(wanted, made(folder, *wanted), strict=True):
        found = (pixels[0, 0, 0], pixels[0, -1, 0])
        assert np.abs(np.subtract(found, wanted[name])).max() <= 1, (name, found)


def test_what_means_nothing_certain_is_refused_by_name(folder: Path, one_line: Any) -> None:
    """Floats beyond [0, 1] or not finite, whole numbers beyond 16 bits or within 8, CIE L*a*b*."""
    values = np.linspace(0, 1, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
    kinds: dict[str, tuple[Callable[[Path], None], str]] = {
        "hdr.tif": (lambda p: _tiff(p, values * 7, "<", 3), "from 0 to 7"),
        "negative.tif": (lambda p: _tiff(p, values - 0.5, "<", 3), "from -0.5 to 0.5"),
        "nan.tif": (lambda p: _tiff(p, np.where(values > 0.5, np.nan, values).astype(np.float32), "<", 3), "finite"),
        "wide.tif": (lambda p: _tiff(p, (values * 2**30).astype(np.int32), "<", 2), "expected 0 to 65535"),
        "narrow.tif": (lambda p: _tiff(p, (values * 200).astype(np.int32), "<", 2), "at most 200"),
        "narrow.png": (lambda p: Image.fromarray((values * 255).astype(np.uint16)).save(p), "at most 255"),
        "pointer.png": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
        "empty.png": (lambda p: p.write_bytes(b""), "an empty file"),
        "photo.heic": (lambda p: p.write_bytes(b"\0\0\0\x18ftypheic" + bytes(40)), "HEIC"),
        "lab.tif": (lambda p: Image.new("LAB", (SIDE, SIDE)).save(p), "mode LAB"),
    }
    for name, (write, words) in kinds.items():
        write(folder / name)
        with pytest.raises(UserError) as error:
            made(folder, name)
        assert name in one_line(error) and words in str(error.value), (name, str(error.value))


def tiff_header(*entries: tuple[int, int, int, bytes], tail: bytes = b"") -> bytes:
    """EXIF: one IFD, entries of (tag, type, count, the four bytes of value or offset), and what offsets lead to."""
    ifd = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHI", *e[:3]) + e[3] for e in entries)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + ifd + struct.pack("<I", 0) + tail


ORIENTATION = (0x0112, 3, 1, struct.pack("<HH", 6, 0))
# X resolution, a signed rational: −1 by 0. The offset is that of what follows the IFD: 8 + 2 + 2·12 + 4.
BAD = tiff_header(ORIENTATION, (0x011A, 10, 1, struct.pack("<I", 38)), tail=struct.pack("<ii", -1, 0))


def turned(folder: Path, exif: bytes) -> np.ndarray:
    """What becomes of a JPEG that is dark on its left, under these bytes of EXIF."""
    stored = np.full((32, 32, 3), 240, np.uint8)
    stored[:, :16] = 10
    Image.fromarray(stored).save(folder / "photo.jpg", quality=95, exif=exif)
    return made(folder, "photo.jpg")[0]


def test_a_bad_entry_beside_a_good_orientation(folder: Path, capsys: pytest.CaptureFixture) -> None:
    pixels = turned(folder, BAD)
    # Orientation 6: the stored left is the top.
    assert pixels[:6].mean() < 40 and pixels[-6:].mean() > 200


@given(st.binary(max_size=200))
@example(BAD[6:])
@example(b"")
@example(b"II*\0\xff\xff\xff\xff")
@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
def test_no_bytes_of_exif_end_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, exif: bytes) -> None:
    where = tmp_path_factory.mktemp("exif") / "pictures"
    where.mkdir()
    assert turned(where, b"Exif\0\0" + exif[:60000]).shape == (SIDE, SIDE, 3)


def raising(error: BaseException) -> Callable[..., Any]:
    def load(*_: Any, **__: Any) -> None:
        raise error

    return load


@pytest.mark.parametrize(
    "error", [struct.error("argument out of range"), IndexError("x"), RuntimeError("a\nb"), EOFError(), KeyError(3)]
)
def test_whatever_a_decoder_raises_the_file_is_named(
    error: Exception, folder: Path, monkeypatch: pytest.MonkeyPatch, one_line: Any
) -> None:
    _solid("RGB", 0).save(folder / "a.bmp")
    monkeypatch.setattr("PIL.BmpImagePlugin.BmpImageFile.load", raising(error))
    with pytest.raises(UserError) as said:
        made(folder, "a.bmp")
    assert "a.bmp" in one_line(said) and type(error).__name__ in str(said.value)


def test_a_panorama_is_too_large_not_unreadable(folder: Path, one_line: Any) -> None:
    row = bytes(30000 // 8)
    head = struct.pack(">IIBBBBB", 30000, 6000, 1, 0, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    body = zlib.compress((b"\0" + row) * 6000)
    (folder / "wide.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )
    with pytest.raises(UserError) as error:
        made(folder, "wide.png")
    assert "wide.png" in one_line(error) and "too large" in str(error.value) and "readable" not in str(error.value)


def test_a_decoders_warning_names_the_file(folder: Path, capfd: pytest.CaptureFixture) -> None:
    # Metadata cut short: Pillow warns, and reads the pixels.
    exif = tiff_header(ORIENTATION)[:-6]
    _solid("RGB", (9, 9, 9)).save(folder / "warned.tif")
    content = (folder / "warned.tif").read_bytes()
    assert content[:2] == b"II"
    _solid("RGB", (9, 9, 9)).save(folder / "warned.jpg", exif=exif)
    (folder / "warned.tif").unlink()
    made(folder, "warned.jpg")
    said = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
    assert said and all("warned.jpg" in line for line in said), said


def test_a_little_beyond_one_is_one(folder: Path) -> None:
    values = np.linspace(-1e-9, 1.0000001, SIDE * SIDE).astype(np.float32).reshape(SIDE, SIDE)
    _tiff(folder / "resampled.tif", values, "<", 3)
    assert np.abs(made(folder, "resampled.tif")[0] - EIGHT[..., None]).max() == 0


def test_the_verb_says_it_in_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    turned_ok = _solid("RGB", 0)
    turned_ok.save(folder / "b.png")
    (folder / "metadata.csv").write_text("file_name,text\nhdr.tif,one\nb.png,two\n")
    _tiff(folder / "hdr.tif", np.full((SIDE, SIDE), 3, np.float32), "<", 3)
    flags = ["--settings", f'{{"kind": "folder", "path": "{folder}", "resolution": {SIDE}}}', "--seed", "0"]
    assert main(["data", *flags, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "hdr.tif" in said[0] and "expected 0 to 1" in said[0]
