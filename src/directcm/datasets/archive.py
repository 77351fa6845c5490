"""An archive (tar, also compressed, or zip) of images, with a metadata.csv or in a layout of their own, fetched once or placed by hand.

It is unpacked into a temporary folder, which the module of its layout reads. Names and bytes of regular files are all that is taken from it.
"""

from __future__ import annotations

import errno
import importlib
import lzma
import re
import shutil
import stat
import tarfile
import tempfile
import urllib.parse
import urllib.request
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from directcm.config import Config, Data, local
from directcm.config.specs import LAYOUTS
from directcm.datasets import Item, pictures
from directcm.datasets.download import fetch, verify
from directcm.errors import UserError

DATA_SET = {
    "rank": 4,
    "about": "the same in a tar (also .gz, .bz2, .xz) or zip",
    "lies_in": "archive",
    "needs": (
        (("url", "path"), "one, to fetch it from or to find it at"),
        (("sha256",), "that of the archive, as sha256sum prints it"),
    ),
}
# Where downloads are kept, in the working folder; git ignores it, and `make clean` leaves it.
DOWNLOADS = Path("downloads")
# What an archive may unpack to: files and folders, and bytes. It may itself have as many bytes.
MOST_FILES = 250_000
MOST_BYTES = 64 * 2**30
_ELSEWHERE = "if another program reads it, unpack it with that and set data.kind to folder"
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    # Of zipfile: a compression or an encryption that it cannot undo. ValueError: names that are no names.
    NotImplementedError,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True)
class Member:
    """An entry of an archive: its name as it stands, its size unpacked (bytes), and what it is ("file", "folder" or else)."""

    name: str
    size: int
    kind: str
    open: Callable[[], Any]


def place(settings: Data) -> Path:
    """Where the archive lies or is to lie: data.path, or a name of its own for each sha256 and url under downloads/."""
    if settings.path:
        return local(settings.path)
    last = urllib.parse.unquote(urllib.parse.urlsplit(settings.url or "").path).rpartition("/")[2]
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", last)[-100:] or "archive"
    return DOWNLOADS / f"{(settings.sha256 or '')[:12]}-{name}"


def files(settings: Data) -> list[tuple[str, Path]]:
    """The archive, where it is there: what was fetched once need not stay."""
    path = place(settings)
    return [("archive", path)] if path.is_file() else []


def check(settings: Data) -> None:
    """What can be found wrong without fetching or reading the archive: a UserError that says what to place, and where."""
    path = place(settings)
    if path.is_file():
        return
    if path.exists():
        raise UserError(f"data.path: {path} is not a file; name the archive itself, or where the download is to lie")
    if not settings.url:
        raise UserError(
            f"data.path: {path}: no such file; place the archive with sha256 {settings.sha256} there, or set data.url"
        )
    if settings.url.startswith("file:"):
        source = Path(urllib.request.url2pathname(urllib.parse.urlsplit(settings.url).path))
        if not source.is_file():
            raise UserError(
                f"data.url: {source}: no such file; correct it, or place the archive with sha256 {settings.sha256} at {path}"
            )


def ready(config: Config) -> None:
    """`check`, before the first job."""
    check(config.data)


def items(settings: Data) -> tuple[int, Iterator[Item]]:
    """The images of the archive, as its layout's module reads them from a folder; its messages name the archive's files.

    Its SHA-256 is checked, and it is fetched where it is not there.
    metadata.csv (of another layout its own mark) lies at the archive's top, or in one folder there; file names are relative to it.
    """
    archive, digest = place(settings), settings.sha256 or ""
    check(settings)
    if settings.url:
        fetch(settings.url, archive, digest, MOST_BYTES)
    else:
        verify(archive, digest, "replace it by the right one, or correct data.sha256")
    layout = LAYOUTS[settings.layout]
    module = importlib.import_module(f"directcm.{layout.module}")
    with ExitStack() as folders:
        unpacked = Path(
            folders.enter_context(tempfile.TemporaryDirectory(prefix="directcm-", ignore_cleanup_errors=True))
        )
        unpack(archive, unpacked)
        root = _root(archive, unpacked, layout.mark, layout.needs)
        with _naming(root, archive):
            count, found = module.items(settings.model_copy(update={"kind": "folder", "path": str(root)}))
        kept = folders.pop_all()
    images = _read(found, root, archive, kept)
    # Where nothing is ever read of it: a generator that has not begun has no end yet.
    weakref.finalize(images, kept.close)
    return count, images


@contextmanager
def _naming(root: Path, archive: Path) -> Iterator[None]:
    """While the block lasts messages about the temporary folder are about the archive."""
    pictures.RENAMED[str(root)] = str(archive)
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(str(root), str(archive))) from None
    finally:
        pictures.RENAMED.pop(str(root), None)


def _read(found: Iterator[Item], root: Path, archive: Path, folders: ExitStack) -> Iterator[Item]:
    with folders, _naming(root, archive):
        yield from found


def _root(archive: Path, unpacked: Path, mark: str, needs: str) -> Path:
    """The folder with the file `mark`: the top, or the one folder there that has one; without a mark the first that is not alone."""
    if not mark:
        while len(entries := list(unpacked.iterdir())) == 1 and entries[0].is_dir():
            unpacked = entries[0]
        return unpacked
    places = [p for p in (unpacked, *sorted(unpacked.iterdir())) if (p / mark).is_file()]
    if not places:
        raise UserError(f"{archive}: holds no {mark}, at its top or in a folder there; {needs}")
    if places[0] != unpacked and len(places) > 1:
        names = " and ".join(repr(p.name) for p in places[:2])
        raise UserError(f"{archive}: holds {mark} in {names}; one data set is needed")
    return places[0]


def unpack(archive: Path, to: Path) -> None:
    """Write the files of an archive into the empty folder `to`: nothing outside it, no links, no more than the bounds allow.

    tarfile's filter="data" is not used: it comes with Python 3.11.4, lets links within the archive through (and of some
    versions links out of it), and cuts absolute names short in silence. Raises UserError naming the archive and the entry.
    """
    count = total = 0
    try:
        for member in _members(archive):
            if member.size < 0:
                raise ValueError(f"{member.name!r} has a negative size")
            count, total = count + 1, total + member.size
            if count > MOST_FILES or total > MOST_BYTES:
                raise UserError(
                    f"{archive}: unpacks to more than {MOST_FILES} files or {MOST_BYTES} bytes; unpack it yourself and set data.kind to folder"
                )
            target = to / _safe(archive, member)
            try:
                _write(member, target)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                raise UserError(f"{archive}: {member.name!r} is in it twice, or is a file and a folder") from None
    except _DAMAGE as error:
        raise UserError(f"{archive}: not a readable archive ({error or type(error).__name__}); {_ELSEWHERE}") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"{to}: the disk is full while {archive} is unpacked; make room, or set TMPDIR to a folder with more"
            ) from None
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{archive}: a name in it is too long for this system ({member.name[:40]!r}…)") from None
        # Without a file's name it is of a decompressor, or of an offset that is none: damage. Else it is the system's.
        if error.filename is not None:
            raise
        raise UserError(f"{archive}: not a readable archive ({error}); {_ELSEWHERE}") from None


def _safe(archive: Path, member: Member) -> PurePosixPath:
    """A member's name, if it leads nowhere but into the folder; UserError otherwise, or where it is neither file nor folder."""
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\0" in member.name or (member.kind == "file" and not name.parts):
        raise UserError(f"{archive}: {member.name!r} leads out of the archive; names relative to its top are needed")
    if member.kind not in ("file", "folder"):
        raise UserError(f"{archive}: {member.name!r} is a {member.kind}; an archive of files and folders is needed")
    return name


def _write(member: Member, target: Path) -> None:
    if member.kind == "folder":
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with member.open() as source, open(target, "xb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


def _members(archive: Path) -> Iterator[Member]:
    """The entries in their order, with the sizes that the archive states: no member yields more bytes than that."""
    # Not is_zipfile first: it finds a zip that lies at the end of a tar.
    try:
        tar = tarfile.open(archive)  # noqa: SIM115
    except tarfile.ReadError:
        if not zipfile.is_zipfile(archive):
            raise UserError(f"{archive}: neither a tar (also .gz, .bz2, .xz) nor a zip archive; {_ELSEWHERE}") from None
        with zipfile.ZipFile(archive) as opened:
            yield from _zip_members(opened)
    else:
        with tar:
            yield from _tar_members(tar)


def _tar_members(tar: tarfile.TarFile) -> Iterator[Member]:
    for info in tar:
        link = info.issym() or info.islnk()
        kind = "file" if info.isreg() else "folder" if info.isdir() else "link" if link else "special file"
        yield Member(info.name, info.size, kind, partial(tar.extractfile, info))


def _zip_members(opened: zipfile.ZipFile) -> Iterator[Member]:
    for info in opened.infolist():
        # The mode of the system that made it; 0 where it was none with modes.
        mode = stat.S_IFMT(info.external_attr >> 16)
        kind = "file" if mode in (0, stat.S_IFREG) else "link" if mode == stat.S_IFLNK else "special file"
        # Not info.is_dir, which fails where there is no name.
        if info.filename.endswith("/") and mode in (0, stat.S_IFDIR):
            kind = "folder"
        yield Member(info.filename, info.file_size, kind, partial(opened.open, info))
