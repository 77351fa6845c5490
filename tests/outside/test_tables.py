"""Tables, names and links: what is malformed is not read as another table, what is right is found under any spelling."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from directcm import datasets
from directcm.config import Data
from directcm.errors import UserError
from directcm.runtime.artifacts import open_artifact

# Some are quick, all together they are not: `make quick` is for what tells most in a minute.
pytestmark = pytest.mark.slow

SIDE = 8


def picture(path: Path, number: int) -> None:
    """One of many different images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(number).integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)
    Image.fromarray(values).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images without a table."""
    for i in range(12):
        picture(tmp_path / "pictures" / f"{i:02d}.png", i)
    return tmp_path / "pictures"


def made(folder: Path, table: str | bytes | None = None, held_out: float = 0.25, seed: int = 0) -> list[dict[str, str]]:
    """images.csv of what the verb `data` makes."""
    if table is not None:
        (folder / "metadata.csv").write_bytes(table.encode() if isinstance(table, str) else table)
    out = folder.with_name("made")
    datasets.make(Data(kind="folder", path=str(folder), resolution=SIDE, held_out=held_out), seed, out)
    return open_artifact(out, "data").csv("images.csv")


def refused(folder: Path, table: str | bytes) -> str:
    with pytest.raises(UserError) as error:
        made(folder, table)
    text = str(error.value)
    assert len(text.splitlines()) == 1 and "metadata.csv" in text
    return text


def rows(change: dict[int, str]) -> str:
    """A table of the twelve, some lines replaced."""
    return "file_name,text\n" + "".join(change.get(i, f"{i:02d}.png,caption {i}") + "\n" for i in range(12))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({3: '03.png,"the best of all'}, ["line 5", "never closed"]),
        ({3: '03.png,"the best of all', 8: '08.png,a plate of 9"'}, ["line 5", "line 10", "'04.png'"]),
        ({3: '03.png,"the best of all', 8: '08.png,a 9" plate'}, ["line 5", "goes on after"]),
        ({3: '03.png,"best" of all'}, ["line 5", "goes on after"]),
        ({3: "03.png"}, ["line 5 (03.png)", "fewer fields than columns"]),
        ({3: '03.png, "the best"'}, ["line 5 (03.png)", "a space stands before a quotation mark"]),
    ],
)
def test_a_malformed_line_is_named(change: dict[int, str], words: list[str], folder: Path) -> None:
    text = refused(folder, rows(change))
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    "table",
    [
        'text,file_name\na,00.png\n"best of,01.png\nc,02.png\nplate of 9",03.png\nd,04.png\n',
        'label,file_name,text\n1,00.png,a\n1,01.png,"best of\n2,02.png,c\n3,03.png,"\n2,04.png,d\n',
        'file_name,text\n00.png,a\n01.png,"best of\n./02.png,c\nsub/03.JPEG,d"\n',
    ],
)
def test_rows_are_not_swallowed_whatever_the_order_of_columns(table: str, folder: Path) -> None:
    assert ("line 3" in (text := refused(folder, table)) and "02.png" in text) or "01.png" in text


def test_what_spreadsheets_and_other_systems_leave(folder: Path) -> None:
    """Empty rows at the end, and names as Windows writes them; a caption in the column of names."""
    (folder / "sub").mkdir()
    (folder / "00.png").rename(folder / "sub/00.png")
    found = made(folder, "file_name,text\r\nsub\\00.png,a\r\n01.png,b\r\n,\r\n,\r\n")
    assert [row["text"] for row in found] == ["a", "b"]
    text = refused(folder, f"file_name,text\n01.png,a\n{'long caption ' * 40},02.png\n")
    assert "too long for a file's name" in text
    assert "separated by commas" in refused(folder, "file_name;text\n01.png;a\n")


def test_spaces_in_a_header_are_shown(folder: Path) -> None:
    assert "' text'" in refused(folder, rows({}).replace("file_name,text", "file_name, text"))
    assert "'file_name '" in refused(folder, rows({}).replace("file_name,text", "file_name ,text"))


@given(st.lists(st.text(alphabet='a",9 \t', max_size=8), min_size=12, max_size=12))
@example(['"x', *["y"] * 11])
@example(['"x', *["y"] * 6, 'z"', *["y"] * 4])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_captions_pasted_together_are_never_another_table(
    tmp_path_factory: pytest.TempPathFactory, captions: list[str]
) -> None:
    """Names and captions joined by commas, as people do: refused, or each of the twelve with its own caption."""
    where = tmp_path_factory.mktemp("csv") / "pictures"
    for i in range(12):
        picture(where / f"{i:02d}.png", i)
    text = "file_name,text\n" + "".join(f"{i:02d}.png,{caption}\n" for i, caption in enumerate(captions))
    try:
        found = made(where, text)
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and "metadata.csv" in str(error)
        return
    assert len(found) == 12
    for row, caption in zip(found, captions, strict=True):
        # One in quotation marks is what is between them.
        assert row["text"] in (caption, caption[1:-1].replace('""', '"')), (row["text"], caption)


def test_the_same_picture_is_on_one_side_of_the_split(folder: Path) -> None:
    """Copies, byte for byte and in another format, and links to one file."""
    for i in range(6):
        picture(folder / f"{i:02d}.png", i)
        content = (folder / f"{i:02d}.png").read_bytes()
        (folder / f"copy{i}.png").write_bytes(content)
        Image.open(folder / f"{i:02d}.png").save(folder / f"again{i}.bmp")
    names = (
        [f"{i:02d}.png" for i in range(12)] + [f"copy{i}.png" for i in range(6)] + [f"again{i}.bmp" for i in range(6)]
    )
    table = "file_name,text\n" + "".join(f"{name},{name}\n" for name in names)
    for seed in range(4):
        parts = {row["text"]: row["split"] for row in made(folder, table, 0.4, seed)}
        assert set(parts.values()) == {"train", "held_out"}
        for i in range(6):
            assert parts[f"{i:02d}.png"] == parts[f"copy{i}.png"] == parts[f"again{i}.bmp"], (seed, i)


@pytest.mark.parametrize("again", ["./03.png", "sub/../03.png", ".//03.png"])
def test_one_file_under_two_names_is_listed_twice(again: str, folder: Path) -> None:
    (folder / "sub").mkdir()
    text = refused(folder, rows({}) + f"{again},once more\n")
    assert again in text and "03.png" in text and "listed twice" in text


@given(st.text(alphabet="eaocnüéÅñçậ日本 -_", min_size=1, max_size=8).filter(lambda s: s.strip() == s))
@example("café")
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_accents_are_found_however_they_are_composed(tmp_path_factory: pytest.TempPathFactory, stem: str) -> None:
    for on_disk, listed in (("NFD", "NFC"), ("NFC", "NFD")):
        where = tmp_path_factory.mktemp("names") / "pictures"
        name, other = (unicodedata.normalize(form, f"{stem}/{stem}.png") for form in (on_disk, listed))  # type: ignore[arg-type]
        picture(where / name, 1)
        picture(where / "b.png", 2)
        assert [row["text"] for row in made(where, f"file_name,text\n{other},one\nb.png,two\n")] == ["one", "two"]


def test_linked_files_are_read(folder: Path, tmp_path: Path) -> None:
    """As a hub cache's snapshots and DVC's `cache.type symlink` have them: the table, an image, a folder."""
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for i in range(3):
        (folder / f"{i:02d}.png").rename(blobs / f"b{i}")
        (folder / f"{i:02d}.png").symlink_to(os.path.relpath(blobs / f"b{i}", folder))
    picture(tmp_path / "elsewhere/x.png", 99)
    (folder / "sub").symlink_to(tmp_path / "elsewhere")
    (blobs / "table").write_text(rows({}) + "sub/x.png,linked\n")
    (folder / "metadata.csv").symlink_to(blobs / "table")
    assert len(made(folder)) == 13


def test_a_link_that_leads_nowhere_says_so(folder: Path) -> None:
    (folder / "03.png").unlink()
    (folder / "03.png").symlink_to("../blobs/gone")
    text = refused(folder, rows({}))
    assert "'03.png' (a link to ../blobs/gone, which is not there)" in text


def test_the_users_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(2):
        picture(tmp_path / "pictures" / f"{i:02d}.png", i)
    (tmp_path / "pictures/metadata.csv").write_text("file_name,text\n00.png,a\n01.png,b\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    datasets.make(Data(kind="folder", path="~/pictures", resolution=SIDE), 0, tmp_path / "made")
    assert open_artifact(tmp_path / "made", "data").counts["n"] == 2


def test_a_name_in_another_case_is_pointed_at(folder: Path) -> None:
    assert "'03.PNG' (there is '03.png')" in refused(folder, rows({3: "03.PNG,caption"}))


def test_images_that_are_left_out_are_counted(folder: Path, capfd: Any) -> None:
    made(folder, "file_name,text\n00.png,a\n01.png,b\n")
    said = capfd.readouterr().err
    assert "10 image(s) that metadata.csv does not list" in said and "'02.png'" in said
