"""Archives: what a folder gives, the same from a tar and a zip; and what an archive must not do."""

from __future__ import annotations

import functools
import gc
import hashlib
import http.server
import io
import json
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from directcm import cli, datasets
from directcm.analysis.data.selection import describe
from directcm.cli import preflight
from directcm.config import Config, Data, parse
from directcm.datasets import archive
from directcm.errors import UserError
from directcm.runtime.artifacts import open_artifact
from tests.patience import PATIENCE

# Some are quick, all together they are not: `make quick` is for what tells most in a minute.
pytestmark = pytest.mark.slow

SUFFIXES = ["tar", "tar.gz", "tar.bz2", "tar.xz", "zip"]


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder and a $TMPDIR of the test's own; nothing may be left in the latter."""
    temporary, work = tmp_path / "temporary", tmp_path / "work"
    temporary.mkdir()
    work.mkdir()
    monkeypatch.setattr(archive.tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.chdir(work)
    yield work
    if any(temporary.iterdir()):
        # An error's traceback holds on to what was being read. A collection takes half a second.
        gc.collect()
    assert list(temporary.iterdir()) == []


@pytest.fixture
def source(tmp_path: Path, digit_folder: Any) -> Path:
    """Six captioned images, one of them in a folder of its own."""
    folder = digit_folder(tmp_path / "source", 6)
    (folder / "more").mkdir()
    (folder / "00.png").rename(folder / "more" / "00.png")
    table = (folder / "metadata.csv").read_text().replace("00.png", "more/00.png", 1)
    (folder / "metadata.csv").write_text(table)
    return folder


def pack(folder: Path, to: Path, top: str = "") -> Path:
    """An archive of a folder, of the kind that its name says, all of it below `top`."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    names = [f"{top}{p.relative_to(folder).as_posix()}" for p in files]
    if to.name.endswith(".zip"):
        with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as made:
            for path, name in zip(files, names, strict=True):
                made.write(path, name)
    else:
        kind = to.name.partition(".tar")[2].removeprefix(".")
        with tarfile.open(to, f"w:{kind}") as tar:  # type: ignore[call-overload]
            for path, name in zip(files, names, strict=True):
                tar.add(path, name)
    return to


def given_by_hand(path: Path, **more: Any) -> Data:
    """Settings for an archive that lies there."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "0" * 64
    return Data(**{"kind": "archive", "path": str(path), "sha256": digest, **more})


def refused(settings: Data, one_line: Any, out: str = "out") -> str:
    with pytest.raises(UserError) as error:
        datasets.make(settings, 0, out)
    assert not Path(out).exists()
    return one_line(error)


def same(made: Path, folder: Path, settings: Data) -> None:
    """What an archive gave is what kind folder makes of the folder: every byte but the two lines that name the kind."""
    plain = Data(kind="folder", path=str(folder), resolution=settings.resolution, held_out=settings.held_out)
    datasets.make(plain, 24, "plain")
    a, b = open_artifact(made, "data").verify(), open_artifact("plain", "data").verify()
    assert a.checksums.keys() == b.checksums.keys() and len(a.csv("images.csv")) == 6
    assert {n for n in a.checksums if a.checksums[n] != b.checksums[n]} == {"data.json"}
    assert {**a.json("data.json"), "name": "folder"} == b.json("data.json")
    assert a.counts == b.counts


@pytest.mark.parametrize("top", ["", "./", "my photos/"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_archive_gives_what_its_folder_gives(source: Path, suffix: str, top: str) -> None:
    settings = given_by_hand(pack(source, Path(f"a.{suffix}"), top))
    datasets.make(settings, 24, "out")
    same(Path("out"), source, settings)
    assert open_artifact("out", "data").settings["sha256"] == settings.sha256


def test_a_tar_made_by_tar(source: Path) -> None:
    """With entries for the folders, and one of them at the very top."""
    with tarfile.open("a.tgz", "w:gz") as tar:
        tar.add(source, ".")
    settings = given_by_hand(Path("a.tgz"))
    datasets.make(settings, 24, "out")
    same(Path("out"), source, settings)


def test_a_zip_with_folders_and_what_another_system_adds(source: Path) -> None:
    pack(source, Path("a.zip"), "set/")
    with zipfile.ZipFile("a.zip", "a") as made:
        made.mkdir("set/empty")
        made.writestr("__MACOSX/set/._00.png", b"x")
        # Made on a system without modes.
        info = zipfile.ZipInfo("set/notes.txt")
        info.create_system, info.external_attr = 0, 0
        made.writestr(info, "hello")
    settings = given_by_hand(Path("a.zip"))
    datasets.make(settings, 24, "out")
    same(Path("out"), source, settings)


# Fetching


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A folder that a server on the loopback serves: its address, the folder, and what was asked for."""
    folder = tmp_path / "served"
    folder.mkdir()
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder, asked
    server.shutdown()
    server.server_close()
    thread.join(PATIENCE)


def test_an_archive_is_fetched_once(source: Path, served: Any) -> None:
    address, folder, asked = served
    digest = given_by_hand(pack(source, folder / "my photos.tar.gz")).sha256
    settings = Data(kind="archive", url=f"{address}/my%20photos.tar.gz?version=1", sha256=digest)
    for name in ("one", "two"):
        datasets.make(settings, 24, name)
    assert asked == ["/my%20photos.tar.gz?version=1"]
    assert [p.as_posix() for p in Path("downloads").iterdir()] == [f"downloads/{digest[:12]}-my_photos.tar.gz"]
    same(Path("one"), source, settings)
    assert open_artifact("one", "data").fingerprint == open_artifact("two", "data").fingerprint


def test_an_archive_is_fetched_to_where_path_says(source: Path, served: Any) -> None:
    address, folder, _ = served
    digest = given_by_hand(pack(source, folder / "a.zip")).sha256
    settings = Data(kind="archive", url=f"{address}/a.zip", path="kept/here", sha256=digest)
    datasets.make(settings, 24, "out")
    assert [p.name for p in Path("kept").iterdir()] == ["here"] and not Path("downloads").exists()
    same(Path("out"), source, settings)


def test_another_version_has_a_name_of_its_own() -> None:
    urls = {"url": "https://example.org/a/b.tar?x=1#y", "kind": "archive"}
    assert archive.place(Data(**urls, sha256="a" * 64)) == Path("downloads/aaaaaaaaaaaa-b.tar")
    assert archive.place(Data(**urls, sha256="b" * 64)) == Path("downloads/bbbbbbbbbbbb-b.tar")
    assert (
        archive.place(Data(kind="archive", url="https://example.org", sha256="b" * 64)).name == "bbbbbbbbbbbb-archive"
    )
    strange = Data(kind="archive", url="https://example.org/..%2F..%2F%00%0A" + "x" * 300, sha256="c" * 64)
    assert archive.place(strange).parent == Path("downloads") and len(archive.place(strange).name) < 120


def test_wrong_bytes_are_not_used_by_the_next_run(source: Path, served: Any, one_line: Any) -> None:
    address, folder, asked = served
    settings = Data(kind="archive", url=f"{address}/a.tar", sha256=given_by_hand(pack(source, Path("a.tar"))).sha256)
    (folder / "a.tar").write_bytes(b"<html>Please log in</html>")
    for _ in range(2):
        text = refused(settings, one_line)
        assert str(settings.sha256) in text and hashlib.sha256(b"<html>Please log in</html>").hexdigest() in text
    assert len(asked) == 2
    Path("a.tar").rename(folder / "a.tar")
    datasets.make(settings, 24, "out")
    same(Path("out"), source, settings)


def test_an_archive_by_hand_with_another_checksum(source: Path, one_line: Any) -> None:
    right = given_by_hand(pack(source, Path("a.tar")))
    with open("a.tar", "ab") as file:
        file.write(b"\0")
    for asked in (right, right.model_copy(update={"url": "http://127.0.0.1:1/never-asked"})):
        text = refused(asked, one_line)
        assert text.startswith("a.tar: has sha256") and str(right.sha256) in text and "correct data.sha256" in text
    assert Path("a.tar").exists()


# What an archive must not hold


def tar_with(*entries: tuple[str, dict[str, Any]], name: str = "a.tar") -> Path:
    """A tar with entries that have these attributes, before a file that would be good."""
    with tarfile.open(name, "w") as tar:
        for entry, attributes in (*entries, ("good.txt", {})):
            info = tarfile.TarInfo(entry)
            for key, value in attributes.items():
                setattr(info, key, value)
            if info.isreg():
                info.size = 5
                tar.addfile(info, io.BytesIO(b"bytes"))
            else:
                tar.addfile(info)
    return Path(name)


def zip_with(*entries: tuple[str, int], name: str = "a.zip") -> Path:
    """A zip with entries of these modes, before a file that would be good."""
    with zipfile.ZipFile(name, "w") as made:
        for entry, mode in (*entries, ("good.txt", 0o100644)):
            info = zipfile.ZipInfo(entry)
            info.create_system, info.external_attr = 3, mode << 16
            # Folders have nothing in them, a link has its target.
            made.writestr(info, b"" if entry.endswith("/") else b"/etc/passwd")
    return Path(name)


LINK, REGULAR = 0o120777, 0o100644
HOSTILE: list[tuple[str, Callable[[Path], Path], list[str]]] = [
    ("tar: up", lambda t: tar_with(("../up.txt", {})), ["'../up.txt'", "leads out"]),
    ("tar: up inside", lambda t: tar_with(("a/../../up.txt", {})), ["'a/../../up.txt'", "leads out"]),
    ("tar: up and back", lambda t: tar_with(("a/../b.txt", {})), ["'a/../b.txt'", "leads out"]),
    ("tar: absolute", lambda t: tar_with((f"{t}/up.txt", {})), ["/up.txt'", "leads out"]),
    ("tar: folder", lambda t: tar_with(("../d", {"type": tarfile.DIRTYPE})), ["'../d'", "leads out"]),
    ("tar: no name", lambda t: tar_with((".", {})), ["'.'", "leads out"]),
    (
        "tar: link out",
        lambda t: tar_with(("l", {"type": tarfile.SYMTYPE, "linkname": "/etc"}), ("l/up.txt", {})),
        ["'l'", "is a link"],
    ),
    ("tar: link in", lambda t: tar_with(("l", {"type": tarfile.SYMTYPE, "linkname": "good.txt"})), ["is a link"]),
    ("tar: hard link", lambda t: tar_with(("l", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"})), ["is a link"]),
    ("tar: pipe", lambda t: tar_with(("p", {"type": tarfile.FIFOTYPE})), ["'p'", "special file"]),
    ("tar: device", lambda t: tar_with(("d", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5})), ["special"]),
    ("tar: twice", lambda t: tar_with(("x", {}), ("./x", {})), ["x'", "twice"]),
    ("tar: file and folder", lambda t: tar_with(("x", {}), ("x/y", {})), ["'x/y'", "file and a folder"]),
    (
        "tar: a file's place",
        lambda t: tar_with(("x/y", {}), ("x", {})),
        ["'x'", "file and a folder"],
    ),
    ("zip: up", lambda t: zip_with(("../up.txt", REGULAR)), ["'../up.txt'", "leads out"]),
    ("zip: no name", lambda t: zip_with(("", REGULAR)), ["''", "leads out"]),
    ("zip: absolute", lambda t: zip_with((f"{t}/up.txt", REGULAR)), ["/up.txt'", "leads out"]),
    ("zip: folder", lambda t: zip_with(("../d/", 0o040755)), ["'../d/'", "leads out"]),
    ("zip: link out", lambda t: zip_with(("l", LINK)), ["'l'", "is a link"]),
    ("zip: link that ends like a folder", lambda t: zip_with(("l/", LINK)), ["'l/'", "is a link"]),
    ("zip: device", lambda t: zip_with(("d", 0o020666)), ["'d'", "special file"]),
    ("zip: file and folder", lambda t: zip_with(("x", REGULAR), ("x/y", REGULAR)), ["'x/y'", "file and a folder"]),
]


@pytest.mark.parametrize(("make", "words"), [h[1:] for h in HOSTILE], ids=[h[0] for h in HOSTILE])
def test_an_archive_that_leads_elsewhere(
    tmp_path: Path, own_places: Path, make: Callable[[Path], Path], words: list[str], one_line: Any
) -> None:
    made = make(tmp_path)
    before = sorted(p for p in tmp_path.rglob("*"))
    text = refused(given_by_hand(made), one_line)
    assert text.startswith(str(made)) and all(word in text for word in words), text
    assert sorted(p for p in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_bounds(source: Path, suffix: str, one_line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = given_by_hand(pack(source, Path(f"a.{suffix}")))
    size = sum(p.stat().st_size for p in source.rglob("*") if p.is_file())
    monkeypatch.setattr(archive, "MOST_FILES", 7)
    monkeypatch.setattr(archive, "MOST_BYTES", size)
    datasets.make(settings, 24, "just")
    monkeypatch.setattr(archive, "MOST_BYTES", size - 1)
    assert f"{size - 1} bytes" in refused(settings, one_line)
    monkeypatch.setattr(archive, "MOST_BYTES", size)
    monkeypatch.setattr(archive, "MOST_FILES", 6)
    assert "more than 6 files" in refused(settings, one_line)


@pytest.mark.parametrize("suffix", ["tar.gz", "zip"])
def test_a_bomb_is_not_unpacked(suffix: str, one_line: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred megabytes of nothing in less than one: refused by what the archive says of itself, before a byte is written."""
    monkeypatch.setattr(archive, "MOST_BYTES", 10 * 2**20)
    zeros = bytes(100 * 2**20)
    if suffix == "zip":
        with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as made:
            made.writestr("zeros", zeros)
    else:
        with tarfile.open("a.tar.gz", "w:gz") as tar:
            info = tarfile.TarInfo("zeros")
            info.size = len(zeros)
            tar.addfile(info, io.BytesIO(zeros))
    written: list[Path] = []
    monkeypatch.setattr(archive, "_write", lambda member, target: written.append(target))
    assert Path(f"a.{suffix}").stat().st_size < 2**20
    assert "unpacks to more than" in refused(given_by_hand(Path(f"a.{suffix}")), one_line) and not written


def test_a_zip_that_lies_about_its_size_gives_no_more_than_it_says(tmp_path: Path, one_line: Any) -> None:
    with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("zeros", bytes(10**6))
    content = Path("a.zip").read_bytes()
    assert content.count((10**6).to_bytes(4, "little")) == 2
    Path("a.zip").write_bytes(content.replace((10**6).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    assert "a.zip: not a readable archive" in refused(given_by_hand(Path("a.zip")), one_line)
    (tmp_path / "to").mkdir()
    with pytest.raises(UserError):
        archive.unpack(Path("a.zip"), tmp_path / "to")
    assert (tmp_path / "to" / "zeros").stat().st_size <= 10


def test_a_negative_size_does_not_make_room(tmp_path: Path, one_line: Any) -> None:
    info = tarfile.TarInfo("x")
    info.size = -(10**9)
    Path("a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert "negative size" in refused(given_by_hand(Path("a.tar")), one_line)


# What else may be wrong with it


@pytest.mark.parametrize("content", [b"", b"<html>Please log in</html>", b"\x1f\x8b", b"PK\x03\x04", bytes(5000)])
def test_what_is_no_archive(content: bytes, one_line: Any) -> None:
    Path("a.tar").write_bytes(content)
    text = refused(given_by_hand(Path("a.tar")), one_line)
    assert (text.startswith("a.tar: ") and "archive" in text) or "metadata.csv" in text


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_truncated_archive(source: Path, suffix: str, one_line: Any) -> None:
    path = pack(source, Path(f"a.{suffix}"))
    # A tar ends in zeros that nobody misses.
    whole = path.read_bytes().rstrip(b"\0")
    for share in (0.02, 0.5, 0.8, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        # Cut between two entries it is a good tar, which lacks what metadata.csv lists.
        assert refused(given_by_hand(path), one_line).startswith((f"a.{suffix}: ", f"a.{suffix}/metadata.csv: "))


def test_an_encrypted_zip(source: Path, one_line: Any) -> None:
    path = pack(source, Path("a.zip"))
    content = bytearray(path.read_bytes())
    # The first bit of the flags in every local and central header.
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(mark)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(mark, at + 1)
    path.write_bytes(content)
    assert "encrypted" in refused(given_by_hand(path), one_line)


def test_a_zip_whose_files_lie_before_its_beginning(source: Path, one_line: Any) -> None:
    path = pack(source, Path("a.zip"))
    content = bytearray(path.read_bytes())
    # Where the directory begins, by the record at the end.
    at = content.rfind(b"PK\x05\x06") + 16
    content[at : at + 4] = (int.from_bytes(content[at : at + 4], "little") + 200).to_bytes(4, "little")
    path.write_bytes(content)
    assert refused(given_by_hand(path), one_line).startswith("a.zip: not a readable archive")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(suffix=st.sampled_from(["tar", "tar.gz", "zip"]), data=st.data())
def test_whatever_an_archive_holds(tmp_path: Path, suffix: str, data: st.DataObject) -> None:
    """Bytes changed anywhere: it is unpacked into its folder, or one line says why not; nothing lies outside."""
    names = st.sampled_from(["f", "a", "b/c", "../d", "/e", "ü", "b", "x" * 300])
    buffer = io.BytesIO()
    chosen = data.draw(st.lists(names, max_size=3))
    if suffix == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
            for name in dict.fromkeys(chosen):
                made.writestr(name, b"content" * 20)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz" if suffix == "tar.gz" else "w") as tar:
            for name in chosen:
                info = tarfile.TarInfo(name)
                info.size = 140
                tar.addfile(info, io.BytesIO(b"content" * 20))
    content = bytearray(buffer.getvalue())
    changes = data.draw(
        st.lists(st.tuples(st.integers(0, min(len(content), 2000) - 1), st.integers(0, 255)), max_size=4)
    )
    for at, value in changes:
        content[at] = value
    path, to = tmp_path / f"fuzz.{suffix}", tmp_path / "to"
    path.write_bytes(content)
    to.mkdir()
    try:
        archive.unpack(path, to)
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and str(error).startswith(str(path))
    finally:
        shutil.rmtree(to)
        path.unlink()
    assert {p.name for p in tmp_path.iterdir()} == {"temporary", "work"}


def test_metadata_is_looked_for_at_the_top_and_in_one_folder(source: Path, digit_folder: Any, one_line: Any) -> None:
    text = refused(given_by_hand(pack(source, Path("deep.tar"), "a/b/")), one_line)
    assert text.startswith("deep.tar: holds no metadata.csv")
    pack(source, Path("two.zip"), "a/")
    with zipfile.ZipFile("two.zip", "a") as made:
        made.write(source / "metadata.csv", "b/metadata.csv")
    assert "'a' and 'b'" in refused(given_by_hand(Path("two.zip")), one_line)


def test_what_is_wrong_with_the_images_is_said_of_the_archive(source: Path, one_line: Any) -> None:
    (source / "03.png").unlink()
    text = refused(given_by_hand(pack(source, Path("a.tar"), "set/")), one_line)
    assert text.startswith("a.tar/metadata.csv: 1 file(s), '03.png': not there")
    (source / "metadata.csv").write_text("file,caption\n")
    text = refused(given_by_hand(pack(source, Path("b.tar"))), one_line)
    assert text.startswith("b.tar/metadata.csv: columns are file,caption")
    # Too few images: nothing of them is ever read.
    (source / "metadata.csv").write_text("file_name,text\n01.png,one\n")
    assert "1 image(s)" in refused(given_by_hand(pack(source, Path("c.tar"))), one_line)


def test_a_name_with_a_way_out_in_the_metadata(source: Path, tmp_path: Path, one_line: Any) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "outside.png")
    with open(source / "metadata.csv", "a") as file:
        file.write("../../../outside.png,x\n")
    assert "not inside the folder" in refused(given_by_hand(pack(source, Path("a.tar"))), one_line)


def test_a_full_disk_names_tmpdir(source: Path, one_line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive.shutil, "copyfileobj", full)
    assert "TMPDIR" in refused(given_by_hand(pack(source, Path("a.tar"))), one_line)


# Before the first job, and the command line


def checked(data: dict[str, Any]) -> None:
    preflight.check(parse(Config, {"data": {"kind": "archive", **data}}))


def test_preflight(source: Path, one_line: Any) -> None:
    pack(source, Path("a.tar"))
    checked({"path": "a.tar", "sha256": "0" * 64})
    checked({"url": "https://example.org/a.tar", "sha256": "0" * 64})
    checked({"url": Path("a.tar").resolve().as_uri(), "sha256": "0" * 64})
    for data, words in (
        ({"path": "none.tar"}, ["data.path: none.tar: no such file", "0" * 64, "data.url"]),
        ({"path": str(source)}, [f"data.path: {source} is not a file"]),
        ({"path": str(source), "url": "https://example.org/a.tar"}, ["is not a file"]),
        (
            {"url": Path("none.tar").resolve().as_uri()},
            ["data.url", "none.tar: no such file", "downloads/000000000000-"],
        ),
    ):
        with pytest.raises(UserError) as error:
            checked({**data, "sha256": "0" * 64})
        assert all(word in one_line(error) for word in words)
    assert not Path("downloads").exists()


def test_the_verb(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack(source, Path("a.tar"))
    flags = ["--seed", "24", "--out", "out"]
    wrong = json.dumps({"kind": "archive", "path": "a.tar", "sha256": "0" * 64})
    assert cli.main(["data", "--settings", wrong, *flags]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("directcm data: error: a.tar: has sha256") and "0" * 64 in lines[0]
    settings = given_by_hand(Path("a.tar"))
    assert cli.main(["data", "--settings", settings.model_dump_json(), *flags]) == 0
    same(Path("out"), source, settings)


def test_it_has_no_labels_and_any_resolution() -> None:
    config = parse(Config, {"data": {"kind": "archive", "path": "x", "sha256": "a" * 64, "resolution": 128}})
    assert "prompt_accuracy" not in config.metric_names() and "ode_error" in config.metric_names()
    assert describe(config).startswith("data: archive x, 128 px")
