"""Data sets: the digits as they are, and folders with everything that can be wrong with them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from directcm import datasets
from directcm.artifacts import open_artifact
from directcm.config import Data
from directcm.datasets import Item, split, write
from directcm.datasets.digits import WORDS
from directcm.errors import UserError


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("digits") / "data"
    datasets.make(Data(), 24, out)
    return open_artifact(out, "data")


def test_digits(digits: Any) -> None:
    from sklearn.datasets import load_digits

    rows, bunch = digits.csv("images.csv"), load_digits()
    assert len(rows) == 1797 and len(list((digits.folder / "images").iterdir())) == 1797
    assert [r["id"] for r in rows] == [str(i) for i in range(1797)]
    assert [r["label"] for r in rows] == [str(t) for t in bunch.target]
    assert all(r["text"] == f"a handwritten digit {WORDS[int(r['label'])]}" for r in rows)
    assert WORDS[0] == "zero" and WORDS[9] == "nine" and len(set(WORDS)) == 10
    for i in (0, 900, 1796):
        with Image.open(digits.file(rows[i]["file_name"])) as image:
            assert image.format == "PNG" and image.mode == "RGB" and image.size == (16, 16)
            pixels = np.asarray(image).astype(float)
        assert (pixels[..., 0] == pixels[..., 1]).all() and pixels.max() > 150
        # Each 2×2 of the enlarged image is about the pixel that it came from.
        small = pixels[..., 0].reshape(8, 2, 8, 2).mean((1, 3))
        assert np.corrcoef(small.ravel(), bunch.images[i].ravel())[0, 1] > 0.97


def test_split_of_the_digits(digits: Any) -> None:
    rows = digits.csv("images.csv")
    held = [r["id"] for r in rows if r["split"] == "held_out"]
    assert len(held) == round(1797 * 0.2) == 359 and {r["split"] for r in rows} == {"train", "held_out"}
    assert digits.json("data.json") == {
        "name": "digits",
        "resolution": 16,
        "n_train": 1438,
        "n_held_out": 359,
        "labels": [str(i) for i in range(10)],
    }
    assert digits.counts == {"n": 1797, "n_train": 1438, "n_held_out": 359}


def test_split() -> None:
    assert split(100, 0.25, 1) == split(100, 0.25, 1)
    assert split(100, 0.25, 1) != split(100, 0.25, 2)
    assert split(100, 0.25, 1).count("held_out") == 25
    # Neither part is ever empty.
    assert sorted(split(2, 0.01, 0)) == sorted(split(2, 0.99, 0)) == ["held_out", "train"]


def test_resolution(tmp_path: Path) -> None:
    datasets.make(Data(resolution=8), 24, tmp_path / "d")
    with Image.open(tmp_path / "d" / "images" / "00000.png") as image:
        assert image.size == (8, 8)


def test_one_image_is_too_few(tmp_path: Path, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        write(1, [Item(Image.new("RGB", (8, 8)), "x")], Data(), 0, tmp_path / "d")
    assert "1 image(s)" in one_line(error)


def folder(path: Path, rows: list[tuple[str, str]] | None = None, **sizes: tuple[int, int]) -> Data:
    """A folder with two good images, and rows for them."""
    path.mkdir()
    for name, size in {"a": (20, 16), "b": (16, 30), **sizes}.items():
        Image.new("RGB", size, (200, 10, 10)).save(path / f"{name}.png")
    with open(path / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [("file_name", "text"), *(rows if rows is not None else [("a.png", "one"), ("b.png", "two")])]
        )
    return Data(kind="folder", path=str(path), resolution=16)


def message(settings: Data, tmp_path: Path, one_line: Any) -> str:
    with pytest.raises(UserError) as error:
        datasets.make(settings, 0, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    return one_line(error)


GOOD = [("a.png", "one"), ("b.png", "two")]


def test_a_folder(tmp_path: Path) -> None:
    settings = folder(tmp_path / "d")
    datasets.make(settings, 0, tmp_path / "out")
    art = open_artifact(tmp_path / "out", "data").verify()
    assert [(r["text"], r["label"]) for r in art.csv("images.csv")] == [("one", ""), ("two", "")]
    assert art.json("data.json")["labels"] == []
    for i in range(2):
        assert Image.open(art.file(f"images/{i:05d}.png")).size == (16, 16)


def test_images_are_cropped_to_their_centre(tmp_path: Path) -> None:
    settings = folder(tmp_path / "d")
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = 255
    Image.fromarray(wide).save(tmp_path / "d" / "a.png")
    datasets.make(settings, 0, tmp_path / "out")
    assert np.asarray(Image.open(tmp_path / "out" / "images" / "00000.png")).min() == 255


def test_grey_palette_alpha_and_turned_images(tmp_path: Path) -> None:
    settings = folder(tmp_path / "d", [("a.png", "1"), ("b.png", "2"), ("c.png", "3"), ("d.jpg", "4")])
    Image.new("L", (16, 16), 77).save(tmp_path / "d" / "a.png")
    Image.new("P", (16, 16), 3).save(tmp_path / "d" / "b.png")
    Image.new("RGBA", (16, 16), (1, 2, 3, 255)).save(tmp_path / "d" / "c.png")
    half = np.zeros((32, 16, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(half).save(tmp_path / "d" / "d.jpg", exif=exif)
    datasets.make(settings, 0, tmp_path / "out")
    assert Image.open(tmp_path / "out/images/00000.png").getpixel((0, 0)) == (77, 77, 77)
    assert Image.open(tmp_path / "out/images/00002.png").getpixel((0, 0)) == (1, 2, 3)


CAPTIONS = [
    'say "cheese", please',
    "two\nlines",
    "emoji 🦊👩‍👩‍👧",
    "مرحبا بالعالم",
    "שלום, עולם",
    "tab\tand trailing space ",
    "",
    "=1+1",
    "á e\u0301",
    "\\N{x} {{}} <b>",
]


def test_captions_survive(tmp_path: Path) -> None:
    names = {f"c{i}": (16, 16) for i in range(len(CAPTIONS))}
    settings = folder(tmp_path / "d", [(f"c{i}.png", t) for i, t in enumerate(CAPTIONS)], **names)
    datasets.make(settings, 0, tmp_path / "out")
    assert [r["text"] for r in open_artifact(tmp_path / "out", "data").csv("images.csv")] == CAPTIONS


def test_a_caption_with_a_carriage_return(tmp_path: Path) -> None:
    settings = folder(tmp_path / "d", [("a.png", "old\rMac"), ("b.png", "two")])
    datasets.make(settings, 0, tmp_path / "out")
    assert [r["text"] for r in open_artifact(tmp_path / "out", "data").csv("images.csv")] == ["old\rMac", "two"]


def test_a_byte_order_mark(tmp_path: Path) -> None:
    settings = folder(tmp_path / "d")
    path = tmp_path / "d" / "metadata.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    datasets.make(settings, 0, tmp_path / "out")
    assert open_artifact(tmp_path / "out", "data").counts["n"] == 2


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("gone.png", "x"), ["'gone.png'", "not there"]),
        (("../outside.png", "x"), ["'../outside.png'", "not inside"]),
        (("/etc/hostname", "x"), ["'/etc/hostname'", "not inside"]),
        (("", "x"), ["''", "not inside"]),
        (("small.png", "x"), ["small.png (8×16)", "data.resolution = 16"]),
        (("text.png", "x"), ["'text.png'", "not a readable image"]),
        (("cut.png", "x"), ["'cut.png'", "not a readable image"]),
        (("empty.png", "x"), ["'empty.png'", "not a readable image"]),
        (("metadata.csv", "x"), ["'metadata.csv'", "not a readable image"]),
        (("a.png", "again"), ["'a.png'", "listed twice"]),
        (("sub", "x"), ["'sub'", "not there"]),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, row: tuple[str, str], words: list[str], one_line: Any) -> None:
    settings = folder(tmp_path / "d", [*GOOD, row], small=(8, 16))
    (tmp_path / "d" / "text.png").write_text("no image")
    noisy = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noisy).save(tmp_path / "d" / "cut.png")
    cut = (tmp_path / "d" / "cut.png").read_bytes()
    (tmp_path / "d" / "cut.png").write_bytes(cut[: len(cut) // 2])
    (tmp_path / "d" / "empty.png").write_bytes(b"")
    (tmp_path / "d" / "sub").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "outside.png")
    text = message(settings, tmp_path, one_line)
    assert str(tmp_path / "d" / "metadata.csv") in text
    assert all(word in text for word in words), text


def test_a_link_out_of_the_folder_is_outside(tmp_path: Path, one_line: Any) -> None:
    settings = folder(tmp_path / "d", [*GOOD, ("link.png", "x")])
    Image.new("RGB", (16, 16)).save(tmp_path / "outside.png")
    (tmp_path / "d" / "link.png").symlink_to(tmp_path / "outside.png")
    assert "'link.png'" in message(settings, tmp_path, one_line)


def test_many_missing_files_are_counted(tmp_path: Path, one_line: Any) -> None:
    settings = folder(tmp_path / "d", [*GOOD, *((f"{i}.png", "x") for i in range(9))])
    text = message(settings, tmp_path, one_line)
    assert "9 file(s)" in text and "'0.png'" in text and "and 4 more" in text


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "none"),
        (b"file,caption\na.png,x\n", "file,caption"),
        (b"file_name,text\n", "0 image(s)"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"file_name;text\na.png;x\n", "file_name;text"),
    ],
)
def test_wrong_metadata(tmp_path: Path, content: bytes, word: str, one_line: Any) -> None:
    settings = folder(tmp_path / "d")
    (tmp_path / "d" / "metadata.csv").write_bytes(content)
    assert word in message(settings, tmp_path, one_line)


def test_a_very_long_caption(tmp_path: Path) -> None:
    settings = folder(tmp_path / "d", [(GOOD[0][0], "x" * 140000), GOOD[1]])
    datasets.make(settings, 0, tmp_path / "out")
    assert len(open_artifact(tmp_path / "out", "data").csv("images.csv")[0]["text"]) == 140000


def test_an_unquoted_comma_is_not_lost_silently(tmp_path: Path, one_line: Any) -> None:
    settings = folder(tmp_path / "d")
    (tmp_path / "d" / "metadata.csv").write_text("file_name,text\na.png,a cat, sitting\nb.png,two\n")
    assert "a.png" in message(settings, tmp_path, one_line)


def test_a_nul_in_a_file_name(tmp_path: Path, one_line: Any) -> None:
    settings = folder(tmp_path / "d", [*GOOD, ("a\0.png", "x")])
    message(settings, tmp_path, one_line)


def test_no_folder_and_no_metadata(tmp_path: Path, one_line: Any) -> None:
    text = message(Data(kind="folder", path=str(tmp_path / "none")), tmp_path, one_line)
    assert "data.path" in text and str(tmp_path / "none") in text
    (tmp_path / "bare").mkdir()
    assert "metadata.csv: missing" in message(Data(kind="folder", path=str(tmp_path / "bare")), tmp_path, one_line)
