"""Data sets: the digits as they are, and folders with everything that can be wrong with them."""

from __future__ import annotations

import csv
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from directcm import datasets
from directcm.config import Config, Data, embedded_images, parse
from directcm.datasets import Item, split, write
from directcm.datasets import folder as folder_kind
from directcm.datasets.digits import WORDS
from directcm.errors import UserError
from directcm.runtime.artifacts import open_artifact

# Some are quick, all together they are not: `make quick` is for what tells most in a minute.
pytestmark = pytest.mark.slow


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


# Photographs


def photographs() -> dict[str, np.ndarray]:
    from sklearn.datasets import load_sample_image

    return {name: np.asarray(load_sample_image(f"{name}.jpg")) for name in ("china", "flower")}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("photos") / "data"
    datasets.make(Data(kind="photos", resolution=32, held_out=0.1), 24, out)
    return open_artifact(out, "data")


def corners(side: int) -> list[tuple[str, int, int, int, int]]:
    """(photograph, tile row, tile column, y, x) as the tiles of twice the side and 5×5 crops in each have it."""
    steps = [round(i * side / 4) for i in range(5)]
    return [
        (name, row, column, 2 * side * row + dy, 2 * side * column + dx)
        for name in ("china", "flower")
        for row in range(427 // (2 * side))
        for column in range(640 // (2 * side))
        for dy in steps
        for dx in steps
    ]


def test_photos(photos: Any) -> None:
    rows, where, pictures = photos.csv("images.csv"), corners(32), photographs()
    assert len(rows) == len(where) == 3000 == photos.counts["n"]
    assert photos.json("data.json")["labels"] == ["china", "flower"]
    assert [r["label"] for r in rows] == [w[0] for w in where]
    for i in range(0, 3000, 97):
        name, _, _, y, x = where[i]
        with Image.open(photos.file(rows[i]["file_name"])) as image:
            assert image.mode == "RGB" and image.size == (32, 32)
            assert np.array_equal(np.asarray(image), pictures[name][y : y + 32, x : x + 32]), (i, where[i])
    # Nothing of a photograph is asked for beyond its border, and crops are no copies of each other.
    assert max(w[3] for w in where) + 32 <= 427 and max(w[4] for w in where) + 32 <= 640
    assert len({photos.checksums[r["file_name"]][1] for r in rows}) == 3000


def test_captions_of_photos_name_photograph_and_region(photos: Any) -> None:
    words: dict[str, set[str]] = {}
    for row, (name, _, _, y, x) in zip(photos.csv("images.csv"), corners(32), strict=True):
        down = ("top", "middle", "bottom")[int((y + 16) * 3 // 427)]
        across = ("left", "centre", "right")[int((x + 16) * 3 // 640)]
        assert row["text"] == f"a detail of the photograph {name}, {down} {across}"
        words.setdefault(name, set()).add(row["text"])
    assert {name: len(found) for name, found in words.items()} == {"china": 9, "flower": 9}


def test_nothing_held_out_of_photos_shares_a_pixel_with_what_is_trained_on(photos: Any) -> None:
    seen = {name: {part: np.zeros((427, 640), bool) for part in ("train", "held_out")} for name in ("china", "flower")}
    tiles: dict[tuple, set[str]] = {}
    for row, (name, down, across, y, x) in zip(photos.csv("images.csv"), corners(32), strict=True):
        seen[name][row["split"]][y : y + 32, x : x + 32] = True
        tiles.setdefault((name, down, across), set()).add(row["split"])
    for name, parts in seen.items():
        assert not (parts["train"] & parts["held_out"]).any()
        # The tiles are covered whole, and nothing beyond them.
        assert int(parts["train"].sum() + parts["held_out"].sum()) == 60 * 64 * 64, name
    assert len(tiles) == 120 and all(len(parts) == 1 for parts in tiles.values())
    assert sum(parts == {"held_out"} for parts in tiles.values()) == 12
    assert photos.counts == {"n": 3000, "n_train": 2700, "n_held_out": 300}


def test_a_split_keeps_groups_together() -> None:
    groups = [7, 7, 7, 2, 2, 9, 9, 9, 9, 4]
    for seed in range(20):
        parts = split(10, 0.5, seed, groups)
        by_group = {g: {p for p, own in zip(parts, groups, strict=True) if own == g} for g in groups}
        assert all(len(found) == 1 for found in by_group.values())
        assert sum(found == {"held_out"} for found in by_group.values()) == 2
    assert len({tuple(split(10, 0.5, s, groups)) for s in range(20)}) > 1
    assert split(10, 0.5, 3, groups) == split(10, 0.5, 3, groups)
    # One group on either side at least; single items are groups of their own.
    assert set(split(10, 0.01, 0, groups)) == set(split(10, 0.99, 0, groups)) == {"train", "held_out"}
    assert split(10, 0.3, 5, list(range(10))) == split(10, 0.3, 5)


@pytest.mark.parametrize("held_out", [0.1, 0.2, 0.35])
@pytest.mark.parametrize("resolution", [8, 16, 24, 32, 64])
@pytest.mark.parametrize("kind", ["digits", "photos"])
def test_the_configuration_knows_how_many_images_there_are(kind: str, resolution: int, held_out: float) -> None:
    """Without making them: embedded_images, and the training images that evaluation.samples is held against."""
    settings = Data(kind=kind, resolution=resolution, held_out=held_out)
    module = import_module(f"directcm.datasets.{kind}")
    count, items = module.items(settings)
    groups = module.groups(settings) if kind == "photos" else list(range(count))
    assert (count, len(set(groups))) == embedded_images(kind, resolution) and len(groups) == count
    assert len({groups.count(g) for g in set(groups[:50])}) == 1
    first = next(iter(items))
    assert first.image.size == (resolution, resolution) and first.image.mode == "RGB"
    trained = split(count, held_out, 24, groups).count("train")
    limit = {"data": settings.model_dump(), "metrics": ["ode_error"], "evaluation": {"samples": trained}}
    unet = {"unet": {"channels": [16]}}
    assert parse(Config, {**limit, "teacher": {"micro_sdxl": unet}}).evaluation.samples == trained
    limit["evaluation"] = {"samples": trained + 1}
    with pytest.raises(UserError, match=f"more than the {trained} training images"):
        parse(Config, {**limit, "teacher": {"micro_sdxl": unet}})


@pytest.mark.parametrize("held_out", [0.01, 0.99])
def test_the_configuration_knows_that_neither_part_is_empty(held_out: float) -> None:
    trained = split(750, held_out, 24, [i // 25 for i in range(750)]).count("train")
    for samples, fits in ((trained, True), (trained + 1, False)):
        content = {
            "data": {"kind": "photos", "resolution": 64, "held_out": held_out},
            "evaluation": {"samples": samples, "batch_size": 2, "shards": 1},
            "metrics": ["ode_error"],
        }
        try:
            parse(Config, content)
        except UserError:
            assert not fits
        else:
            assert fits


@pytest.mark.slow
def test_photos_of_a_run_are_the_same_again(tmp_path: Path) -> None:
    fingerprints = set()
    for name in "ab":
        datasets.make(Data(kind="photos", resolution=64), 24, tmp_path / name)
        fingerprints.add(open_artifact(tmp_path / name, "data").fingerprint)
    assert len(fingerprints) == 1


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


def labelled(path: Path, lines: list[str]) -> Data:
    settings = folder(path)
    (path / "metadata.csv").write_text("\n".join(lines) + "\n")
    return settings


def test_labels_of_a_folder(tmp_path: Path) -> None:
    settings = labelled(tmp_path / "d", ["file_name,label,text", "a.png,cat,one", 'b.png,"dog, small",two'])
    folder_kind.check_labels(settings)
    datasets.make(settings, 0, tmp_path / "out")
    art = open_artifact(tmp_path / "out", "data").verify()
    assert [(r["text"], r["label"]) for r in art.csv("images.csv")] == [("one", "cat"), ("two", "dog, small")]
    assert art.json("data.json")["labels"] == ["cat", "dog, small"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["file_name,text", "a.png,one", "b.png,two"], ["2 image(s) of 2, 'a.png', 'b.png'", "column label"]),
        (["file_name,text,label", "a.png,one,cat", "b.png,two,"], ["1 image(s) of 2, 'b.png'", "column label"]),
        (["file_name,text,label", "a.png,one,cat", "b.png,one,dog"], ["'one'", "'cat' and 'dog'"]),
    ],
)
def test_what_a_teacher_on_pixels_asks_of_labels(
    lines: list[str], words: list[str], tmp_path: Path, one_line: Any
) -> None:
    settings = labelled(tmp_path / "d", lines)
    with pytest.raises(UserError) as error:
        folder_kind.check_labels(settings)
    assert all(word in one_line(error) for word in [str(tmp_path / "d" / "metadata.csv"), *words])
    # Others read no labels: the same folder is data for them.
    datasets.make(settings, 0, tmp_path / "out")


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
        (("", "x"), ["line 4", "file_name is empty"]),
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
