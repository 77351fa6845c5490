"""Digests of large files, remembered until anything about the file changes."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from directcm.runtime import remembered


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read; small ones count as large, and all have settled."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(remembered, "LARGE", 4)
    monkeypatch.setattr(remembered, "SETTLED", -1.0)
    read: list[Path] = []

    def sha256(path: Path) -> str:
        read.append(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(remembered, "sha256", sha256)
    return read


def test_read_once(tmp_path: Path, asked: list[Path]) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"12345678")
    want = hashlib.sha256(b"12345678").hexdigest()
    assert [remembered.digest(file) for _ in range(3)] == [want] * 3
    (tmp_path / "link").symlink_to(file)
    assert remembered.digest(tmp_path / "link") == want
    assert len(asked) == 1


@pytest.mark.parametrize("keep_time", [False, True])
@pytest.mark.parametrize("how", ["in place", "replaced", "longer"])
def test_any_change_is_read_again(tmp_path: Path, asked: list[Path], how: str, keep_time: bool) -> None:
    """Even other bytes of the same length under the old time of change: the inode's own time tells."""
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"12345678")
    before = file.stat()
    remembered.digest(file)
    new = b"123456789" if how == "longer" else b"abcdefgh"
    if how == "replaced":
        (tmp_path / "new").write_bytes(new)
        (tmp_path / "new").replace(file)
    else:
        file.write_bytes(new)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns if keep_time else before.st_mtime_ns + 1))
    assert remembered.digest(file) == hashlib.sha256(new).hexdigest()
    assert len(asked) == 2


def test_damage_and_a_missing_cache_cost_time_alone(
    tmp_path: Path, asked: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"12345678")
    want = remembered.digest(file)
    (kept,) = remembered.folder().iterdir()
    for damage in ("", "{", "[]", "null", kept.read_text().replace(want, want[:-1] + "g"), '{"sha256": 3}'):
        kept.write_text(damage)
        assert remembered.digest(file) == want
    assert len(asked) == 7
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("not a folder")
    assert [remembered.digest(file) for _ in range(2)] == [want] * 2
    assert len(asked) == 9


def test_a_file_that_has_just_changed_is_not_remembered(
    tmp_path: Path, asked: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "SETTLED", 60.0)
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"12345678")
    for _ in range(2):
        remembered.digest(file)
    assert len(asked) == 2
