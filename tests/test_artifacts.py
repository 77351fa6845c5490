"""Artefacts: whole or not at all, checked before trusted, deterministic; readers that give one line for any bytes."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from directcm.errors import UserError
from directcm.runtime import artifacts
from directcm.runtime.artifacts import (
    Artifact,
    load_arrays,
    load_tensors,
    new_artifact,
    new_collection,
    open_artifact,
    open_collection,
    read_csv,
    read_json,
    save_tensors,
    write_bytes,
    write_csv,
    write_json,
    write_text,
)


def make(folder: Path, text: str = "hello", **settings: Any) -> Artifact:
    with new_artifact(folder, "data", settings=settings) as art:
        write_text(art / "a.txt", text)
        write_json(art / "sub/b.json", {"x": [1, 2]})
        save_tensors(art / "t.safetensors", {"t": torch.arange(6.0).reshape(2, 3)})
        write_csv(art / "rows.csv", [{"i": 0, "text": text}], ["i", "text"])
        art.counts = {"n": 1}
    return open_artifact(folder, "data")


def listing(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_contents(tmp_path: Path) -> None:
    art = make(tmp_path / "a", key="value").verify()
    assert art.kind == "data" and art.counts == {"n": 1} and art.settings == {"key": "value"}
    assert art.file("a.txt").read_text() == "hello" and art.json("sub/b.json") == {"x": [1, 2]}
    assert torch.equal(art.tensors("t.safetensors")["t"], torch.arange(6.0).reshape(2, 3))
    assert np.array_equal(art.arrays("t.safetensors")["t"], np.arange(6.0).reshape(2, 3))
    assert art.csv("rows.csv") == [{"i": "0", "text": "hello"}]
    assert set(art.checksums) == {"a.txt", "sub/b.json", "t.safetensors", "rows.csv"}
    assert art.manifest["files"] == 4
    assert art.manifest["bytes"] == sum((art.folder / n).stat().st_size for n in art.checksums)
    assert open_artifact(art.folder / "manifest.json", "data").fingerprint == art.fingerprint
    assert listing(tmp_path) == ["a"]


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one"), make(tmp_path / "two")
    for name in ("manifest.json", "checksums.csv"):
        text = (one.folder / name).read_text()
        assert text == (two.folder / name).read_text()
        assert not re.search(r"20\d\d-\d\d-\d\d", text) and str(tmp_path) not in text
    assert one.fingerprint != make(tmp_path / "three", "other").fingerprint
    made = json.loads((one.folder / "provenance.json").read_text())
    assert (
        re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", made["date"])
        and made["versions"]["torch"]
        and made["seconds"] >= 0
    )


def test_inputs_are_recorded(tmp_path: Path) -> None:
    source = make(tmp_path / "a")
    with new_artifact(tmp_path / "b", "noise", settings={}, inputs={"data": source}):
        pass
    assert open_artifact(tmp_path / "b", "noise").manifest["inputs"] == {"data": source.fingerprint}


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), new_artifact(tmp_path / "a", "data", settings={}) as art:
        write_text(art / "a.txt", "half")
        raise RuntimeError
    assert listing(tmp_path) == []


def test_an_exception_leaves_the_old_one(tmp_path: Path) -> None:
    before = make(tmp_path / "a").fingerprint
    with pytest.raises(KeyboardInterrupt), new_artifact(tmp_path / "a", "data", settings={}) as art:
        write_text(art / "a.txt", "half")
        raise KeyboardInterrupt
    assert open_artifact(tmp_path / "a", "data").verify().fingerprint == before
    assert listing(tmp_path) == ["a"]


def test_the_folder_is_not_there_before_it_is_whole(tmp_path: Path) -> None:
    with new_artifact(tmp_path / "a", "data", settings={}) as art:
        write_text(art / "a.txt", "x")
        assert not (tmp_path / "a").exists() and art.path.parent == tmp_path
    assert (tmp_path / "a" / "manifest.json").is_file()


def test_every_file_is_on_disk_before_the_folder_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = artifacts.sync

    def sync(path: Path) -> None:
        assert (tmp_path / "a").exists() == (path == tmp_path)
        synced.append(path.name)
        real(path)

    monkeypatch.setattr(artifacts, "sync", sync)
    with new_artifact(tmp_path / "a", "data", settings={}) as art:
        for i in range(100):
            (art / f"{i}.png").write_bytes(bytes([i]))
    assert sorted(synced) == sorted([*(f"{i}.png" for i in range(100)), tmp_path.name])

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(artifacts, "sync", full)
    with pytest.raises(OSError, match="No space left"), new_artifact(tmp_path / "b", "data", settings={}) as art:
        (art / "b.png").write_bytes(b"b")
    assert listing(tmp_path) == ["a"]


def test_a_new_one_replaces_all_of_the_old(tmp_path: Path) -> None:
    make(tmp_path / "a")
    (tmp_path / "a" / "README.md").write_text("card")
    with new_artifact(tmp_path / "a", "data", settings={}) as art:
        write_text(art / "only.txt", "x")
    assert listing(tmp_path / "a") == ["checksums.csv", "manifest.json", "only.txt", "provenance.json"]
    assert listing(tmp_path) == ["a"]


def test_leftovers_of_dead_processes_go_and_of_living_ones_stay(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    here = artifacts._NODE
    own, other = f".a.tmp-{here}-{pid}", f".a.tmp-elsewhere-{pid}"
    for name in (own, f"{own}-old", f".a.tmp-{here}-1", f".b.tmp-{here}-{pid}", other, f"{other}-old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("x")
    # Of another machine nobody knows what lives; after a day it is given up.
    os.utime(tmp_path / f"{other}-old", (0, 0))
    make(tmp_path / "a")
    assert listing(tmp_path) == sorted([f".a.tmp-{here}-1", f".b.tmp-{here}-{pid}", other, "a"])


def test_settings_that_are_no_json_leave_nothing(tmp_path: Path) -> None:
    for wrong in (float("nan"), object()):
        with pytest.raises((ValueError, TypeError)), new_artifact(tmp_path / "a", "data", settings={"x": wrong}):
            pass
    assert listing(tmp_path) == []


def truncate(art: Path) -> None:
    path = art / "t.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def flip(art: Path) -> None:
    path = art / "t.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def remove(art: Path) -> None:
    (art / "t.safetensors").unlink()


@pytest.mark.parametrize(("damage", "word"), [(truncate, "checksum"), (flip, "checksum"), (remove, "missing")])
def test_damage_is_named(tmp_path: Path, damage: Any, word: str, one_line: Any) -> None:
    make(tmp_path / "a")
    damage(tmp_path / "a")
    art = open_artifact(tmp_path / "a", "data")
    assert art.json("sub/b.json")
    for read in (lambda: art.tensors("t.safetensors"), lambda: art.arrays("t.safetensors"), art.verify):
        with pytest.raises(UserError) as error:
            read()
        assert str(tmp_path / "a" / "t.safetensors") in one_line(error) and word in str(error.value)


def test_a_file_that_is_not_listed_is_not_read(tmp_path: Path, one_line: Any) -> None:
    art = make(tmp_path / "a")
    write_text(art.folder / "extra.json", "{}")
    with pytest.raises(UserError) as error:
        art.json("extra.json")
    assert "extra.json" in one_line(error) and "not listed" in str(error.value)


def test_the_wrong_kind(tmp_path: Path, one_line: Any) -> None:
    make(tmp_path / "a")
    with pytest.raises(UserError) as error:
        open_artifact(tmp_path / "a", "teacher")
    assert "is a 'data', expected a 'teacher'" in one_line(error)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "3",
        '{"format": 2, "kind": "data"}',
        '{"format": 1}',
        '{"format": 1, "kind": "data"}',
        "\0",
    ],
)
def test_malformed_manifests(tmp_path: Path, text: str, one_line: Any) -> None:
    make(tmp_path / "a")
    (tmp_path / "a" / "manifest.json").write_text(text)
    with pytest.raises(UserError) as error:
        open_artifact(tmp_path / "a", "data")
    assert str(tmp_path / "a") in one_line(error)


@pytest.mark.parametrize("key", ["settings", "inputs", "counts"])
def test_a_manifest_that_lacks_a_key(tmp_path: Path, key: str) -> None:
    path = make(tmp_path / "a").folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest[key]
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError):
        _ = open_artifact(tmp_path / "a", "data").manifest[key]


def test_missing_parts(tmp_path: Path, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        open_artifact(tmp_path / "nothing", "data")
    assert "no such file" in one_line(error)
    make(tmp_path / "a")
    (tmp_path / "a" / "checksums.csv").write_text("path,size,sha256\n")
    with pytest.raises(UserError) as error:
        open_artifact(tmp_path / "a", "data")
    assert "checksums.csv" in one_line(error)
    (tmp_path / "a" / "checksums.csv").unlink()
    with pytest.raises(UserError):
        open_artifact(tmp_path / "a", "data")


def test_missing_files_of_every_reader(tmp_path: Path, one_line: Any) -> None:
    for read in (read_json, read_csv, load_tensors, load_arrays):
        with pytest.raises(UserError) as error:
            read(tmp_path / "none")
        assert str(tmp_path / "none") in one_line(error) and "no such file" in str(error.value)


def test_writes_are_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_bytes(path, b"old")
    # As any file that this process makes.
    (tmp_path / "g").touch()
    assert path.stat().st_mode == (tmp_path / "g").stat().st_mode
    (tmp_path / "g").unlink()

    def fails(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="disk full"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old" and listing(tmp_path) == ["f"]


def test_json_is_canonical(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": 1, "a": [1.5, None, "ü"]})
    assert (tmp_path / "a").read_text(
        encoding="utf-8"
    ) == '{\n  "a": [\n    1.5,\n    null,\n    "ü"\n  ],\n  "b": 1\n}\n'
    with pytest.raises(ValueError):
        write_json(tmp_path / "b", {"x": float("nan")})
    assert not (tmp_path / "b").exists()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, max_examples=80)
@given(value=JSON)
def test_json_round_trip(value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "x.json", value)
        assert read_json(Path(folder) / "x.json") == value


NO_RETURN = st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"]))


@settings(deadline=None, max_examples=80)
@given(rows=st.lists(st.tuples(NO_RETURN, NO_RETURN), max_size=5))
def test_csv_round_trip(rows: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        table = [{"a": a, "b": b} for a, b in rows]
        write_csv(path, table, ["a", "b"])
        assert read_csv(path) == table


@pytest.mark.parametrize("text", ["a\rb", "\r", "end\r"])
def test_a_carriage_return_survives_csv(tmp_path: Path, text: str) -> None:
    write_csv(tmp_path / "x.csv", [{"a": text, "b": "z"}], ["a", "b"])
    assert read_csv(tmp_path / "x.csv") == [{"a": text, "b": "z"}]


def test_csv_bytes(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", [{"a": 1, "b": None}, {"a": 0.1, "b": 'q"u'}], ["a", "b"])
    assert (tmp_path / "x.csv").read_bytes() == b'a,b\n1,\n0.1,"q""u"\n'


DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@settings(deadline=None, max_examples=40)
@given(
    name=st.text(min_size=1, max_size=8).filter(lambda s: s != "__metadata__"),
    shape=st.lists(st.integers(0, 4), max_size=3),
    dtype=st.sampled_from(DTYPES),
    transposed=st.booleans(),
)
def test_tensor_round_trip(name: str, shape: list[int], dtype: torch.dtype, transposed: bool) -> None:
    value = (torch.arange(int(np.prod(shape))) % 7).reshape(shape).to(dtype)
    if transposed and len(shape) > 1:
        value = value.transpose(0, 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        save_tensors(path, {name: value})
        back = load_tensors(path)
        assert list(back) == [name] and back[name].dtype == dtype and torch.equal(back[name], value)


@settings(deadline=None, max_examples=150)
@given(data=st.binary(max_size=300) | st.text().map(str.encode))
def test_safetensors_readers_give_a_line_for_any_bytes(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(data)
        for read in (load_tensors, load_arrays):
            try:
                read(path)
            except UserError as error:
                assert str(path) in str(error) and len(str(error).splitlines()) == 1


@settings(deadline=None, max_examples=150)
@given(data=st.binary(max_size=300) | st.text().map(str.encode))
def test_the_json_reader_gives_a_line_for_any_bytes(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(data)
        try:
            read_json(path)
        except UserError as error:
            assert str(path) in str(error) and len(str(error).splitlines()) == 1


@pytest.mark.parametrize("data", [b"9" * 5000, b"[" * 100000, None])
def test_the_json_reader_on_what_json_cannot_take(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "x"
    path.mkdir() if data is None else path.write_bytes(data)
    with pytest.raises(UserError):
        read_json(path)


def test_the_array_reader_on_a_type_numpy_lacks(tmp_path: Path) -> None:
    header = b'{"x":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}'
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + b"a")
    with pytest.raises(UserError, match="x"):
        load_arrays(tmp_path / "x")


@pytest.mark.parametrize("data", [b"\xff\xfe,b\n1,2", b"\x80"])
def test_the_csv_reader_on_what_is_no_csv(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(UserError, match="x"):
        read_csv(tmp_path / "x")


@settings(deadline=None, max_examples=60)
@given(text=st.text())
def test_the_csv_reader_takes_any_text(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "x").write_bytes(text.encode())
        assert isinstance(read_csv(Path(folder) / "x"), list)


# Collections


def part(folder: Path, text: str = "hello", kind: str = "metrics") -> None:
    with new_artifact(folder, kind, settings={"text": text}) as art:
        write_text(art / "a.txt", text)


def collection(folder: Path, *names: str, of: str = "metrics", **settings: Any) -> dict[str, Artifact]:
    for name in names:
        part(folder / name, name, of)
    new_collection(folder, of, names, settings=settings)
    return open_collection(folder, of)


def test_a_collection_gives_back_its_parts_in_order(tmp_path: Path) -> None:
    source = make(tmp_path / "source")
    names = ["step~4,sampling_steps~1", "step~4,sampling_steps~2", "step~2,sampling_steps~1"]
    for name in names:
        part(tmp_path / "c" / name, name)
    new_collection(tmp_path / "c", "metrics", names, settings={"key": 1}, inputs={"data": source})
    for path in (tmp_path / "c", tmp_path / "c" / "manifest.json"):
        parts = open_collection(path, "metrics")
        assert list(parts) == names
        assert [a.verify().file("a.txt").read_text() for a in parts.values()] == names
        assert [a.kind for a in parts.values()] == ["metrics"] * 3
    whole = open_artifact(tmp_path / "c", "collection").verify()
    assert whole.settings == {"of": "metrics", "parts": names, "key": 1} and whole.counts == {"parts": 3}
    assert whole.manifest["inputs"] == {"data": source.fingerprint}
    assert whole.manifest["files"] == 3 and whole.checksums.keys() == {f"{n}/manifest.json" for n in names}
    assert whole.manifest["bytes"] == sum((tmp_path / "c" / n / "manifest.json").stat().st_size for n in names)
    assert "seconds" in json.loads((tmp_path / "c" / "provenance.json").read_text())


def test_equal_parts_make_equal_collections(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    collection(one, "a", "b")
    collection(two, "a", "b")
    for name in ("manifest.json", "checksums.csv"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    before = open_artifact(one, "collection").fingerprint
    # A part's settings count as its files do.
    with new_artifact(one / "a", "metrics", settings={"text": "other"}) as art:
        write_text(art / "a.txt", "a")
    new_collection(one, "metrics", ["a", "b"], settings={})
    assert open_artifact(one, "collection").fingerprint != before


def test_parts_that_are_no_longer_asked_for_go(tmp_path: Path) -> None:
    collection(tmp_path / "c", "a", "b", "c")
    (tmp_path / "c" / "notes.txt").write_text("stays")
    (tmp_path / "c" / ".d.tmp-1").mkdir()
    new_collection(tmp_path / "c", "metrics", ["b"], settings={})
    assert list(open_collection(tmp_path / "c", "metrics")) == ["b"]
    assert listing(tmp_path / "c") == [
        ".d.tmp-1",
        "b",
        "checksums.csv",
        "manifest.json",
        "notes.txt",
        "provenance.json",
    ]


def test_a_part_that_changed_is_refused(tmp_path: Path, one_line: Any) -> None:
    collection(tmp_path / "c", "a", "b")
    part(tmp_path / "c" / "b", "changed")
    with pytest.raises(UserError) as error:
        open_collection(tmp_path / "c", "metrics")
    assert str(tmp_path / "c" / "b" / "manifest.json") in one_line(error) and "checksum" in str(error.value)


def test_a_part_whose_file_changed_is_refused_when_it_is_read(tmp_path: Path, one_line: Any) -> None:
    collection(tmp_path / "c", "a", "b")
    (tmp_path / "c" / "b" / "a.txt").write_text("x")
    parts = open_collection(tmp_path / "c", "metrics")
    parts["a"].file("a.txt")
    with pytest.raises(UserError) as error:
        parts["b"].file("a.txt")
    assert str(tmp_path / "c" / "b" / "a.txt") in one_line(error)


def test_a_part_that_is_gone_is_named(tmp_path: Path, one_line: Any) -> None:
    collection(tmp_path / "c", "a", "b")
    shutil.rmtree(tmp_path / "c" / "b")
    with pytest.raises(UserError) as error:
        open_collection(tmp_path / "c", "metrics")
    assert str(tmp_path / "c" / "b" / "manifest.json") in one_line(error) and "missing" in str(error.value)


def test_collections_of_the_wrong_kind(tmp_path: Path, one_line: Any) -> None:
    collection(tmp_path / "c", "a")
    part(tmp_path / "single")
    for path, of, word in (
        (tmp_path / "c", "features", "is a collection of 'metrics', expected 'features'"),
        (tmp_path / "single", "metrics", "is a 'metrics', expected a 'collection'"),
        (tmp_path / "none", "metrics", "no such file"),
    ):
        with pytest.raises(UserError) as error:
            open_collection(path, of)
        assert word in one_line(error)
    with pytest.raises(UserError) as error:
        open_artifact(tmp_path / "c", "metrics")
    assert "is a 'collection', expected a 'metrics'" in one_line(error)
    # A part of another kind is not sealed in.
    part(tmp_path / "d" / "a", kind="samples")
    with pytest.raises(UserError):
        new_collection(tmp_path / "d", "metrics", ["a"], settings={})
    assert not (tmp_path / "d" / "manifest.json").exists()


def test_a_part_that_was_not_made_is_not_sealed(tmp_path: Path, one_line: Any) -> None:
    collection(tmp_path / "c", "a")
    with pytest.raises(UserError) as error:
        new_collection(tmp_path / "c", "metrics", ["a", "b"], settings={})
    assert str(tmp_path / "c" / "b") in one_line(error)
    assert list(open_collection(tmp_path / "c", "metrics")) == ["a"], "the old one stands"
    with pytest.raises(ValueError, match="twice"):
        new_collection(tmp_path / "c", "metrics", ["a", "a"], settings={})


@pytest.mark.parametrize("name", ["checksums.csv", "provenance.json", "manifest.json"])
def test_a_rewrite_that_is_interrupted_is_no_collection(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while the seal is renewed: neither the old seal nor half a new one may be taken for the new parts'."""
    folder = tmp_path / "c"
    collection(folder, "a", "b")
    part(folder / "a", "new")
    real = artifacts.write_bytes

    def dies(path: Any, data: bytes) -> None:
        if Path(path) == folder / name:
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(artifacts, "write_bytes", dies)
    with pytest.raises(KeyboardInterrupt):
        new_collection(folder, "metrics", ["a", "b"], settings={})
    monkeypatch.undo()
    with pytest.raises(UserError):
        open_collection(folder, "metrics")
    new_collection(folder, "metrics", ["a", "b"], settings={})
    assert open_collection(folder, "metrics")["a"].file("a.txt").read_text() == "new"


@pytest.mark.parametrize("parts", [["a"], ["a", "b", "c"], "ab", None, [1, 2]])
def test_a_seal_whose_parts_are_others(tmp_path: Path, parts: Any, one_line: Any) -> None:
    collection(tmp_path / "c", "a", "b")
    path = tmp_path / "c" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["settings"]["parts"] = parts
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError) as error:
        open_collection(tmp_path / "c", "metrics")
    assert "its parts are not those of checksums.csv" in one_line(error)


def test_user_errors_are_one_line() -> None:
    assert str(UserError("a\n b\r\n\tc\x85d\u2028e")) == "a b c d e"
