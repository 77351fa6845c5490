"""A file fetched once: resumed where it was cut off, and never in its place before its SHA-256 has been checked.

What has come lies in NAME.part, and in NAME.part.json of which version of the file it is a part; both stay between runs.
One process fetches, others wait for it.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from directcm.errors import UserError
from directcm.runtime.artifacts import read_json, sha256, sync, write_json
from directcm.runtime.progress import Progress

# Tries in a row that bring nothing new; seconds before the second, doubled for each further one; seconds of silence.
TRIES = 5
WAIT = 1.0
TIMEOUT = 60.0
_BLOCK = 1 << 20
# What a server may answer while it is busy or its proxy is; other refusals stay the same however often one asks.
_BUSY = {408, 425, 429, 500, 502, 503, 504}
_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-[0-9]+|\*)/([0-9]{1,18}|\*)")


class _Again(Exception):
    """One try failed, and another may not."""


def verify(path: Path, digest: str, remedy: str) -> None:
    """Raise a UserError with both digests and the remedy where a file's SHA-256 is not `digest` (64 hex digits)."""
    found = sha256(path)
    if found != digest:
        raise UserError(f"{path}: has sha256 {found}, data.sha256 is {digest}; {remedy}")


def fetch(url: str, path: Path, digest: str, most: int) -> None:
    """Bring the file at `url` (http, https or file) to `path`, unless it is there; its SHA-256 is checked either way.

    digest: 64 hex digits, lower case. most: bytes that a file may have. Raises UserError where it cannot be had, is larger or
    is another than `digest` says; what came is then in NAME.part, to be resumed, or in NAME.wrong.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _partial(path) as file:
        if file is not None:
            _Download(url, path, digest, most, file).run()
            return
    verify(path, digest, f"delete it, and it is fetched again from {url}, or correct data.sha256")


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}.{ending}")


@contextmanager
def _partial(path: Path) -> Iterator[IO[bytes] | None]:
    """NAME.part, open and locked for this process alone; None where the whole file is there by the time it is to be had."""
    part = _beside(path, "part")
    said = False
    while not path.exists():
        with open(part, "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not said:
                    print(f"data: another process fetches {path}; waiting for it", file=sys.stderr, flush=True)
                    said = True
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                raise UserError(
                    f"{part}: cannot be locked on this file system ({error.strerror}); set data.path to a file on another one, or place the archive there by hand"
                ) from None
            # Who held the lock may have renamed the file meanwhile: then it is not the partial one any more.
            try:
                ours = os.path.samestat(os.fstat(file.fileno()), part.stat())
            except FileNotFoundError:
                ours = False
            if ours and path.exists():
                part.unlink()
            elif ours:
                yield file
                return
    yield None


def _opener() -> urllib.request.OpenerDirector:
    """http, https and file, through the proxies of the environment; a redirection leads to http or https alone."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.FileHandler,
    ):
        opener.add_handler(handler())
    return opener


def _span(text: str | None) -> tuple[int | None, int | None]:
    """(first byte, size of the whole) as a Content-Range has them, None for what it does not say."""
    match = _RANGE.fullmatch((text or "").strip())
    first, whole = match.groups() if match else (None, None)
    return (int(first) if first else None, int(whole) if whole and whole != "*" else None)


def _version(headers: Any) -> dict[str, str]:
    """What a server says a file's version by: "ETag", "Last-Modified", both or none."""
    found = {name: str(headers.get(name) or "") for name in ("ETag", "Last-Modified")}
    return {name: value for name, value in found.items() if value and value.isascii() and value.isprintable()}


def _validator(version: dict[str, str]) -> str | None:
    """What If-Range may name a version by: a weak ETag does not promise equal bytes."""
    etag = version.get("ETag", "W/")
    return version.get("Last-Modified") if etag.startswith("W/") else etag


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", None) or error
    return str(inner) or type(inner).__name__


@dataclass
class _Download:
    """A file under way. `file` is its partial file, locked, every write at its end."""

    url: str
    path: Path
    digest: str
    most: int
    file: IO[bytes]

    def __post_init__(self) -> None:
        self.part, self.note = _beside(self.path, "part"), _beside(self.path, "part.json")
        self.by_hand = f"place the file by hand at {self.path} (sha256 {self.digest})"

    def run(self) -> None:
        """Fetch, check, put in place."""
        for last in (False, True):
            resumed = self._whole()
            if sha256(self.part) == self.digest:
                break
            if last or not resumed:
                self._set_aside()
            # Parts of two versions perhaps, by a server that does not tell them apart: once more, from the start.
            self._empty()
        os.fsync(self.file.fileno())
        os.replace(self.part, self.path)
        self.note.unlink(missing_ok=True)
        sync(self.path.parent)

    def _set_aside(self) -> None:
        wrong = _beside(self.path, "wrong")
        found, size = sha256(self.part), self.part.stat().st_size
        os.replace(self.part, wrong)
        self.note.unlink(missing_ok=True)
        raise UserError(
            f"{self.url}: what it serves ({size} bytes, now in {wrong}) has sha256 {found}, data.sha256 is {self.digest}; "
            f"correct data.url or data.sha256, or {self.by_hand}"
        )

    def _empty(self) -> None:
        self.file.truncate(0)
        self.note.unlink(missing_ok=True)

    def _anew(self, why: str = "the file there is another one now") -> _Again:
        self._empty()
        return _Again(f"{why}; starting anew")

    def _whole(self) -> bool:
        """Ask until all of the file has come; whether it is in parts."""
        furthest, failures = self.file.seek(0, os.SEEK_END), 0
        while True:
            try:
                return self._ask()
            except _Again as error:
                size = self.file.seek(0, os.SEEK_END)
                failures = 1 if size > furthest else failures + 1
                furthest = max(furthest, size)
                if failures >= TRIES:
                    kept = f"; the {size} bytes that came are kept and resumed" if size else ""
                    raise UserError(
                        f"{self.url}: {error} ({failures} tries in a row brought nothing new{kept}); run again, or {self.by_hand}"
                    ) from None
                wait = WAIT * 2 ** (failures - 1)
                print(f"data: {self.url}: {error}; trying again in {wait:g} s", file=sys.stderr, flush=True)
                time.sleep(wait)

    def _known(self) -> dict[str, Any]:
        """What the note says of the version that the partial file is a part of; nothing where it came from elsewhere."""
        note: Any = None
        with suppress(UserError):
            note = read_json(self.note)
        if not (isinstance(note, dict) and note.get("url") == self.url and isinstance(note.get("version"), dict)):
            return {}
        size = note.get("size")
        return {"version": _version(note["version"]), "size": size if isinstance(size, int) else None}

    def _ask(self) -> bool:
        """One request: what comes is added to the partial file; returns, once that is whole, whether it was resumed."""
        known, have = self._known(), self.file.seek(0, os.SEEK_END)
        if have and not known:
            self._empty()
            have = 0
        request = urllib.request.Request(self.url, headers={"User-Agent": "directcm"})
        if have:
            request.add_header("Range", f"bytes={have}-")
            if validator := _validator(known["version"]):
                request.add_header("If-Range", validator)
        try:
            response = _opener().open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and have:
                # Whole already: it was stopped just before it was put in place.
                if _span(error.headers.get("Content-Range"))[1] == have:
                    return True
                raise self._anew() from None
            reason = f"HTTP {error.code} {error.reason}"
            if error.code in _BUSY:
                raise _Again(reason) from None
            raise UserError(f"{self.url}: {reason}; correct data.url, or {self.by_hand}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            if self.url.startswith("file:"):
                raise UserError(f"{self.url}: {_reason(error)}; correct data.url, or {self.by_hand}") from None
            raise _Again(_reason(error)) from None
        with response:
            resumed = getattr(response, "status", None) == 206
            if resumed:
                first, size = _span(response.headers.get("Content-Range"))
                if not have or first != have:
                    raise self._anew("it sends a part that was not asked for")
                size = size or known["size"]
                version = _version(response.headers)
                others = [name for name in version if known["version"].get(name, version[name]) != version[name]]
                if size != known["size"] or others:
                    raise self._anew()
            else:
                self._empty()
                length = re.fullmatch("[0-9]{1,18}", response.headers.get("Content-Length") or "")
                size = int(length[0]) if length else None
                write_json(self.note, {"url": self.url, "version": _version(response.headers), "size": size})
            self._copy(response, size)
        return resumed

    def _copy(self, response: IO[bytes], size: int | None) -> None:
        have = self.file.seek(0, os.SEEK_END)
        megabytes = Progress("data: download", size >> 20, "MB", done=have >> 20) if size else None
        while True:
            if max(have, size or 0) > self.most:
                self._empty()
                raise UserError(
                    f"{self.url}: has more than the {self.most} bytes that an archive may have; unpack it yourself and set data.kind to folder"
                )
            try:
                # read1, not read: what has come before a connection breaks is kept.
                block = response.read1(_BLOCK)  # type: ignore[attr-defined]
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise _Again(_reason(error)) from None
            if not block:
                break
            self.file.write(block)
            self.file.flush()
            if megabytes is not None:
                megabytes.update(((have + len(block)) >> 20) - (have >> 20))
            have += len(block)
        if size is not None and have < size:
            raise _Again(f"the connection ended after {have} of {size} bytes")
