"""Files outside the results: their digests, kept and compared, and what is said of them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from directcm import datasets
from directcm.analysis.pages import trace
from directcm.config import Data, Diffusers, Process
from directcm.datasets import check_classes, folder
from directcm.diffusion.teachers import diffusers
from directcm.errors import UserError
from directcm.runtime import outside
from directcm.runtime.artifacts import open_artifact


def test_digests_are_kept_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, kept = tmp_path / "a", tmp_path / "kept.json"
    a.write_bytes(b"one")
    assert outside.rows([("a", a)], kept) == [{"name": "a", "size": 3, "sha256": hashlib.sha256(b"one").hexdigest()}]
    read: list[Path] = []
    monkeypatch.setattr(outside, "sha256", lambda path: read.append(path) or "new")
    assert outside.rows([("a", a)], kept)[0]["sha256"] == hashlib.sha256(b"one").hexdigest() and not read
    a.write_bytes(b"two")
    os.utime(a, ns=(1, 1))
    assert outside.rows([("a", a)], kept)[0]["sha256"] == "new" and read == [a.resolve()]
    # Damage of what is kept costs one reading.
    kept.write_text("[]")
    assert outside.rows([("a", a)], kept)[0]["sha256"] == "new" and len(read) == 2


def test_a_digest_is_of_names_and_bytes_in_order() -> None:
    one, two = {"name": "a", "sha256": "1"}, {"name": "b", "sha256": "2"}
    found = [outside.digest(rows) for rows in ([one, two], [two, one], [one], [{**one, "name": "c"}, two])]
    assert len(set(found)) == 4 and outside.digest([one, two]) == found[0]


def test_differences() -> None:
    before = [{"name": n, "sha256": d} for n, d in (("a", "1"), ("b", "2"), ("c", "3"))]
    now = [{"name": n, "sha256": d} for n, d in (("a", "1"), ("b", "9"), ("d", "4"))]
    assert outside.differences(before, now) == ["b has changed", "c is gone", "d is new"]
    assert outside.differences(before, before) == []


def test_a_folders_content_and_what_has_changed(
    digit_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Data(kind="folder", path="pictures", resolution=16)
    digit_folder(tmp_path / "pictures", 6)
    datasets.make(settings, 0, tmp_path / "data")
    data, before = open_artifact(tmp_path / "data", "data"), datasets.content(settings, tmp_path / "data")
    assert datasets.changes(data) == [] and len(before) == 64
    assert [link.state for link in trace.chain(data.folder, tmp_path)] == [trace.UNCHANGED]
    table = tmp_path / "pictures/metadata.csv"
    right = table.read_text()
    table.write_text(right.replace("zero", "nought", 1))
    assert datasets.changes(data) == ["metadata.csv has changed"] and datasets.content(settings, data.folder) != before
    (link,) = trace.chain(data.folder, tmp_path)
    assert link.state == trace.CHANGED and "metadata.csv has changed" in link.reason
    table.write_text("file_name\n")
    assert datasets.content(settings, data.folder).startswith("not readable")
    assert "columns are file_name" in datasets.changes(data)[0]
    table.write_text(right)
    # Not here any more: as it was, for all that can be known.
    (tmp_path / "pictures").rename(tmp_path / "gone")
    assert datasets.content(settings, data.folder) == before and datasets.changes(data) is None
    (link,) = trace.chain(data.folder, tmp_path)
    assert link.state == trace.UNCHANGED and "not here to compare" in link.reason
    assert datasets.content(settings, tmp_path / "never made") == ""
    assert datasets.content(Data(), tmp_path) == ""


def test_an_archives_content(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    settings = Data(kind="archive", path=str(archive), sha256="0" * 64)
    assert datasets.content(settings, tmp_path) == "0" * 64
    archive.write_bytes(b"x")
    assert datasets.content(settings, tmp_path) == hashlib.sha256(b"x").hexdigest()


def test_a_pinned_teachers_content_and_what_has_changed(tiny: Any, tmp_path: Path) -> None:
    pipeline, out = tmp_path / "pipeline", tmp_path / "teacher"
    shutil.copytree(tiny.teacher.folder, pipeline)
    settings = Diffusers(path=str(pipeline))
    diffusers.pin(settings, Process(), 16, out)
    pinned, before = open_artifact(out, "teacher"), diffusers.content(settings, out)
    assert outside.changes(pinned) == [] and len(before) == 64
    config = pipeline / "vae/config.json"
    config.write_text(config.read_text() + "\n")
    (pipeline / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 16}))
    assert sum("has changed" in one for one in outside.changes(pinned) or []) == 2
    assert diffusers.content(settings, out) != before
    config.unlink()
    assert any("config.json is gone" in one for one in outside.changes(pinned) or [])
    assert diffusers.content(settings, out).startswith("not usable")
    pipeline.rename(tmp_path / "moved")
    assert diffusers.content(settings, out) == before and outside.changes(pinned) is None


def test_limits_are_held_against_the_pictures_themselves(digit_folder: Any, tmp_path: Path, one_line: Any) -> None:
    """Pictures that are the same count once for the split."""
    where = digit_folder(tmp_path / "pictures", 12)
    for i in range(3, 12):
        shutil.copy(where / "00.png", where / f"{i:02d}.png")
    settings = Data(kind="folder", path=str(where), resolution=16, held_out=0.5)
    with pytest.raises(UserError) as error:
        datasets.make(settings, 2, tmp_path / "out", least=11)
    assert "at least 11" in one_line(error) and not (tmp_path / "out").exists()
    with pytest.raises(UserError) as error:
        datasets.make(settings, 2, tmp_path / "out", classes=True)
    assert "without a label" in one_line(error)
    with pytest.raises(UserError, match="the labels 'x' and 'y'"):
        check_classes([("a", "one", "x"), ("b", "one", "y")], "here")


def test_one_picture_alone_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from PIL import Image

    (tmp_path / "p").mkdir()
    for name in "ab":
        Image.new("RGB", (16, 16), (1, 2, 3)).save(tmp_path / f"p/{name}.png")
    (tmp_path / "p/metadata.csv").write_text("file_name,text\na.png,a\nb.png,b\n")
    datasets.make(Data(kind="folder", path=str(tmp_path / "p"), resolution=16), 0, tmp_path / "out")
    assert "the same picture" in capsys.readouterr().err
    assert {row["split"] for row in open_artifact(tmp_path / "out", "data").csv("images.csv")} == {"train", "held_out"}
    assert [name for name, _ in folder.files(Data(kind="folder", path=str(tmp_path / "p")))] == [
        "metadata.csv",
        "a.png",
        "b.png",
    ]
