"""A file fetched from a server on the loopback that does everything that servers do wrong."""

from __future__ import annotations

import fcntl
import hashlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from directcm.datasets import download
from directcm.datasets.download import fetch
from directcm.errors import UserError
from directcm.runtime.artifacts import sha256
from tests.patience import PATIENCE

MOST = 10**8
CONTENT = hashlib.shake_256(b"content").digest(300_000)
OTHER = hashlib.shake_256(b"other").digest(300_000)


class Server:
    """One file. `cuts`: bytes of the body after which a response breaks off, one a response, None and later ones whole."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.etag: str | None = '"one"'
        self.modified: str | None = None
        self.ranges = True
        self.lengths = True
        self.heeds_if_range = True
        # What a 206 says of its place instead of the truth.
        self.span: str | None = None
        self.cuts: list[int | None] = []
        self.statuses: list[int] = []
        self.on_request: Any = None
        # What was asked for and given: (Range, If-Range, status, bytes of the body).
        self.log: list[tuple[str | None, str | None, int, int]] = []
        own = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                own.answer(self)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/set/photos.tar"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(PATIENCE)

    def answer(self, h: http.server.BaseHTTPRequestHandler) -> None:
        if self.on_request:
            self.on_request(len(self.log))
        asked, condition = h.headers["Range"], h.headers["If-Range"]
        body, status, total = self.content, 200, len(self.content)
        same = condition is None or not self.heeds_if_range or condition in (self.etag, self.modified)
        if self.statuses:
            status, body = self.statuses.pop(0), b"no"
        elif asked and self.ranges and same:
            first = int(asked.removeprefix("bytes=").removesuffix("-"))
            body, status = (self.content[first:], 206) if first < total else (b"", 416)
        cut = self.cuts.pop(0) if self.cuts else None
        sent = body if cut is None else body[:cut]
        # Before anything is sent: who has the answer may look at once.
        self.log.append((asked, condition, status, len(sent)))
        h.send_response(status)
        if status == 206:
            h.send_header("Content-Range", self.span or f"bytes {total - len(body)}-{total - 1}/{total}")
        if status == 416:
            h.send_header("Content-Range", f"bytes */{total}")
        for name, value in (("ETag", self.etag), ("Last-Modified", self.modified)):
            if value and status in (200, 206):
                h.send_header(name, value)
        if self.lengths:
            h.send_header("Content-Length", str(len(body)))
        h.end_headers()
        # Who hangs up is no error here.
        with suppress(ConnectionError):
            h.wfile.write(sent)

    @property
    def asked(self) -> list[str | None]:
        return [entry[0] for entry in self.log]

    @property
    def served(self) -> int:
        return sum(entry[3] for entry in self.log)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "WAIT", 0.001)
    monkeypatch.setattr(download, "TIMEOUT", 10.0)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "downloads" / "photos.tar"


def is_whole(path: Path, content: bytes = CONTENT) -> bool:
    """It is there, and nothing else is beside it."""
    return path.read_bytes() == content and [p.name for p in path.parent.iterdir()] == [path.name]


def refused(server: Server, path: Path, one_line: Any, content: bytes = CONTENT, most: int = MOST) -> str:
    with pytest.raises(UserError) as error:
        fetch(server.url, path, digest(content), most)
    assert not path.exists()
    return one_line(error)


def test_a_file_comes_once(server: Server, path: Path) -> None:
    for _ in range(2):
        fetch(server.url, path, digest(CONTENT), MOST)
        assert is_whole(path)
    assert server.log == [(None, None, 200, 300_000)]
    umask_file = path.parent.parent / "plain"
    umask_file.touch()
    assert path.stat().st_mode == umask_file.stat().st_mode


def test_a_broken_connection_is_resumed_at_its_byte(server: Server, path: Path) -> None:
    server.cuts = [100_000, 50_001, None]
    fetch(server.url, path, digest(CONTENT), MOST)
    assert is_whole(path)
    assert [entry[:3] for entry in server.log] == [
        (None, None, 200),
        ("bytes=100000-", '"one"', 206),
        ("bytes=150001-", '"one"', 206),
    ]
    # Each byte was sent once.
    assert server.served == 300_000


def test_many_short_breaks_are_no_failure(server: Server, path: Path) -> None:
    server.cuts = [20_000] * 14
    fetch(server.url, path, digest(CONTENT), MOST)
    assert is_whole(path) and len(server.log) == 15 > download.TRIES and server.served == 300_000


def test_a_later_run_goes_on(server: Server, path: Path, one_line: Any) -> None:
    server.cuts = [123_456, *[0] * 9]
    text = refused(server, path, one_line)
    assert "the connection ended after 123456 of 300000 bytes" in text and "123456 bytes that came are kept" in text
    assert str(path) in text and digest(CONTENT) in text and server.url in text
    assert len(server.log) == download.TRIES
    server.cuts, server.log = [], []
    fetch(server.url, path, digest(CONTENT), MOST)
    assert is_whole(path) and server.log == [("bytes=123456-", '"one"', 206, 300_000 - 123_456)]


def test_a_date_does_where_there_is_no_strong_etag(server: Server, path: Path) -> None:
    server.etag, server.modified, server.cuts = 'W/"weak"', "Mon, 05 Jan 2026 10:00:00 GMT", [1000]
    fetch(server.url, path, digest(CONTENT), MOST)
    assert is_whole(path) and server.log[1][:2] == ("bytes=1000-", server.modified) and server.served == 300_000


def test_a_server_that_names_no_version_is_resumed_too(server: Server, path: Path) -> None:
    server.etag, server.cuts = None, [1000]
    fetch(server.url, path, digest(CONTENT), MOST)
    assert is_whole(path) and server.log[1][:3] == ("bytes=1000-", None, 206) and server.served == 300_000


def test_a_server_without_ranges_starts_anew(server: Server, path: Path) -> None:
    server.ranges, server.cuts = False, [100_000, 200_000, None]
    fetch(server.url, path, digest(CONTENT), MOST)
    assert is_whole(path) and [entry[2:] for entry in server.log] == [(200, 100_000), (200, 200_000), (200, 300_000)]


def test_a_server_without_ranges_that_always_breaks_is_given_up(server: Server, path: Path, one_line: Any) -> None:
    server.ranges, server.cuts = False, [100_000] * 50
    assert "after 100000 of 300000" in refused(server, path, one_line)
    # One that brings something, and TRIES that bring nothing more.
    assert len(server.log) <= download.TRIES + 1


@pytest.mark.parametrize("span", ["bytes 999-299999/300000", "bytes 1000-299999/299999", "nonsense", "bytes */300000"])
def test_a_part_that_was_not_asked_for_is_not_taken(server: Server, path: Path, span: str) -> None:
    server.cuts, server.span = [1000], span
    fetch(server.url, path, digest(CONTENT), MOST)
    assert is_whole(path) and [entry[2] for entry in server.log] == [200, 206, 200]


def test_a_part_of_unknown_size_is_taken(server: Server, path: Path) -> None:
    server.cuts, server.span = [1000], "bytes 1000-299999/*"
    fetch(server.url, path, digest(CONTENT), MOST)
    assert is_whole(path) and server.served == 300_000


def test_a_part_where_the_whole_was_asked_for(server: Server, path: Path, one_line: Any) -> None:
    server.statuses = [206] * 50
    assert "not asked for" in refused(server, path, one_line) and len(server.log) == download.TRIES


@pytest.mark.parametrize("heeds", [True, False])
@pytest.mark.parametrize("length", [300_000, 200_000, 50_000])
def test_a_file_that_changes_between_the_tries_starts_anew(
    server: Server, path: Path, heeds: bool, length: int
) -> None:
    """Whether the server heeds If-Range (200 with the whole) or not (206, or 416 where the new one is shorter)."""
    new = OTHER[:length]

    def change(number: int) -> None:
        if number == 1:
            server.content, server.etag = new, '"two"'

    server.on_request, server.heeds_if_range, server.cuts = change, heeds, [100_000]
    fetch(server.url, path, digest(new), MOST)
    assert is_whole(path, new) and server.log[-1][2:] == (200, length)
    assert len(server.log) == (2 if heeds else 3)


def test_versions_that_nobody_tells_apart_are_found_by_the_checksum(server: Server, path: Path) -> None:
    """No ETag, the same length: the parts of two versions do not have the checksum, and the whole comes anew."""

    def change(number: int) -> None:
        if number == 1:
            server.content = OTHER

    server.etag, server.on_request, server.cuts = None, change, [100_000]
    fetch(server.url, path, digest(OTHER), MOST)
    assert is_whole(path, OTHER) and [entry[2] for entry in server.log] == [200, 206, 200]


def partial(path: Path, content: bytes, note: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.with_name(path.name + ".part").write_bytes(content)
    path.with_name(path.name + ".part.json").write_text(note if isinstance(note, str) else json.dumps(note))


def test_a_partial_file_larger_than_the_whole_starts_anew(server: Server, path: Path) -> None:
    partial(path, b"x" * 400_000, {"url": server.url, "version": {"ETag": '"one"'}, "size": 300_000})
    fetch(server.url, path, digest(CONTENT), MOST)
    assert is_whole(path) and [entry[2] for entry in server.log] == [416, 200]


def test_a_partial_file_that_is_whole_is_put_in_place(server: Server, path: Path) -> None:
    """A run was killed between the last byte and the renaming."""
    partial(path, CONTENT, {"url": server.url, "version": {"ETag": '"one"'}, "size": 300_000})
    fetch(server.url, path, digest(CONTENT), MOST)
    assert is_whole(path) and [entry[2:] for entry in server.log] == [(416, 0)]


def test_a_partial_file_with_damage_is_not_trusted(server: Server, path: Path) -> None:
    partial(path, b"x" * 1000, {"url": server.url, "version": {"ETag": '"one"'}, "size": 300_000})
    fetch(server.url, path, digest(CONTENT), MOST)
    assert is_whole(path) and [entry[2] for entry in server.log] == [206, 200]


@pytest.mark.parametrize(
    "note",
    [
        "",
        "{",
        "[]",
        '{"url": 3}',
        {"url": "http://example.org/other", "version": {}, "size": 300_000},
        {"version": {"ETag": '"one"'}},
        {"url": "HERE", "version": [], "size": 300_000},
    ],
)
def test_a_partial_file_of_unknown_origin_starts_anew(server: Server, path: Path, note: Any) -> None:
    partial(
        path,
        CONTENT[:1000],
        {**note, "url": server.url} if isinstance(note, dict) and note.get("url") == "HERE" else note,
    )
    fetch(server.url, path, digest(CONTENT), MOST)
    assert is_whole(path) and server.asked == [None]


@settings(max_examples=25, deadline=None)
@given(
    note=st.dictionaries(
        st.sampled_from(["size", "version"]),
        st.none() | st.integers() | st.text() | st.dictionaries(st.sampled_from(["ETag", "Last-Modified"]), st.text()),
    ),
    start=st.integers(0, 1000),
)
def test_whatever_lies_beside_a_partial_file(note: dict[str, Any], start: int) -> None:
    """The note and the partial file may hold anything: the whole comes, or one line says why it does not."""
    import tempfile

    running = Server()
    running.content = CONTENT[:500]
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "photos.tar"
            partial(path, CONTENT[:start], {"url": running.url, **note})
            fetch(running.url, path, digest(running.content), MOST)
            assert is_whole(path, running.content)
    finally:
        running.stop()


@pytest.mark.parametrize("resumed", [False, True])
def test_wrong_bytes_are_set_aside(server: Server, path: Path, one_line: Any, resumed: bool) -> None:
    server.content, server.cuts = OTHER, [100_000] if resumed else []
    text = refused(server, path, one_line)
    wrong = path.with_name("photos.tar.wrong")
    assert digest(OTHER) in text and digest(CONTENT) in text and server.url in text and str(path) in text
    assert str(wrong) in text and wrong.read_bytes() == OTHER
    # From the start once more where parts of two versions were possible, and not for ever.
    assert len(server.log) == (3 if resumed else 1)
    assert [p.name for p in path.parent.iterdir()] == [wrong.name]
    server.content, server.log = CONTENT, []
    fetch(server.url, path, digest(CONTENT), MOST)
    assert path.read_bytes() == CONTENT and server.log == [(None, None, 200, 300_000)]


def test_wrong_bytes_in_one_go_are_not_fetched_twice(server: Server, path: Path, one_line: Any) -> None:
    """A broken try before, by a server without ranges, leaves nothing that could be mixed in."""
    server.content, server.ranges, server.cuts = OTHER, False, [100_000]
    assert digest(OTHER) in refused(server, path, one_line) and len(server.log) == 2


def test_a_wrong_file_in_place_is_named_and_stays(server: Server, path: Path, one_line: Any) -> None:
    """It may be somebody's own: it is for them to delete it."""
    path.parent.mkdir()
    path.write_bytes(OTHER)
    for _ in range(2):
        with pytest.raises(UserError) as error:
            fetch(server.url, path, digest(CONTENT), MOST)
        text = one_line(error)
        assert text.startswith(str(path)) and digest(OTHER) in text and digest(CONTENT) in text and "delete it" in text
    assert path.read_bytes() == OTHER and server.log == []


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final(server: Server, path: Path, one_line: Any, status: int) -> None:
    server.statuses = [status]
    text = refused(server, path, one_line)
    assert f"HTTP {status}" in text and "data.url" in text and str(path) in text and digest(CONTENT) in text
    assert len(server.log) == 1


def test_a_busy_server_is_asked_again(server: Server, path: Path) -> None:
    server.statuses = [503, 429, 500]
    fetch(server.url, path, digest(CONTENT), MOST)
    assert is_whole(path) and [entry[2] for entry in server.log] == [503, 429, 500, 200]


def test_a_server_that_stays_busy_is_given_up(server: Server, path: Path, one_line: Any) -> None:
    server.statuses = [503] * 50
    assert "HTTP 503" in refused(server, path, one_line) and len(server.log) == download.TRIES


def test_waits_grow(server: Server, path: Path, one_line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(download, "WAIT", 1.0)
    monkeypatch.setattr(download.time, "sleep", waits.append)
    server.statuses = [503] * 50
    refused(server, path, one_line)
    assert waits == [1, 2, 4, 8]


def test_nobody_there(server: Server, path: Path, one_line: Any) -> None:
    server.stop()
    text = refused(server, path, one_line)
    assert "Connection refused" in text and f"place the file by hand at {path} (sha256 {digest(CONTENT)})" in text


def test_no_network(path: Path, one_line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UserError) as error:
        fetch("https://example.org/photos.tar", path, digest(CONTENT), MOST)
    text = one_line(error)
    assert "Temporary failure in name resolution" in text and "https://example.org/photos.tar" in text
    assert f"place the file by hand at {path} (sha256 {digest(CONTENT)})" in text


def test_a_length_that_is_not_told(server: Server, path: Path) -> None:
    server.lengths = False
    fetch(server.url, path, digest(CONTENT), MOST)
    assert is_whole(path)


@pytest.mark.parametrize("lengths", [True, False])
def test_too_large_a_file_is_not_kept(server: Server, path: Path, one_line: Any, lengths: bool) -> None:
    server.lengths = lengths
    assert "more than the 299999 bytes" in refused(server, path, one_line, most=299_999)
    assert (path.parent / "photos.tar.part").stat().st_size == 0
    fetch(server.url, path, digest(CONTENT), 300_000)
    assert is_whole(path)


def test_a_redirection(server: Server, path: Path, one_line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """To http it is followed; to a file of this machine or another protocol it is not."""
    secret = path.parent.parent / "secret"
    secret.write_bytes(CONTENT)
    plain = server.answer
    to = [server.url]

    def answer(h: http.server.BaseHTTPRequestHandler) -> None:
        if h.path == "/set/photos.tar":
            return plain(h)
        h.send_response(302)
        h.send_header("Location", to[0])
        h.send_header("Content-Length", "0")
        h.end_headers()

    server.answer = answer  # type: ignore[method-assign]
    start = server.url.replace("/set/photos.tar", "/moved")
    for to[0] in (secret.as_uri(), "ftp://127.0.0.1/x"):
        with pytest.raises(UserError) as error:
            fetch(start, path, digest(CONTENT), MOST)
        one_line(error)
        assert not path.exists()
    to[0] = server.url
    server.cuts = [70_000]
    fetch(start, path, digest(CONTENT), MOST)
    assert is_whole(path) and server.asked == [None, "bytes=70000-"]


def test_a_file_of_this_machine(path: Path, tmp_path: Path, one_line: Any) -> None:
    source = tmp_path / "a set %.tar"
    source.write_bytes(CONTENT)
    fetch(source.as_uri(), path, digest(CONTENT), MOST)
    assert is_whole(path)
    with pytest.raises(UserError) as error:
        fetch((tmp_path / "none.tar").as_uri(), path.with_name("other"), digest(CONTENT), MOST)
    assert "none.tar" in one_line(error)


def start(server: Server, path: Path) -> subprocess.Popen[str]:
    """Another process that fetches it."""
    code = "import sys; from pathlib import Path; from directcm.datasets.download import fetch; fetch(sys.argv[1], Path(sys.argv[2]), sys.argv[3], 10**8)"
    return subprocess.Popen(
        [sys.executable, "-c", code, server.url, str(path), digest(CONTENT)], stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_two_processes_fetch_it_once(server: Server, path: Path) -> None:
    """The second waits for the first, also where the first has to resume, and takes what that has put in place."""
    begun, go = threading.Event(), threading.Event()

    def answer(number: int) -> None:
        begun.set()
        if number == 0:
            go.wait(PATIENCE)

    server.cuts, server.on_request = [150_000], answer
    first = start(server, path)
    assert begun.wait(PATIENCE)
    second = start(server, path)
    # It says that it waits: only then does the first get an answer.
    assert second.stderr is not None and "another process fetches" in second.stderr.readline()
    go.set()
    for process in (first, second):
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
    assert is_whole(path) and server.served == 300_000 and len(server.log) == 2


def test_who_waited_goes_on_where_the_other_gave_up(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the other had is resumed, or, where it was set aside as wrong, nothing is left of it."""
    waits = threading.Event()
    lock = fcntl.flock

    def flock(file: Any, how: int) -> None:
        if how == fcntl.LOCK_EX:
            waits.set()
        lock(file, how)

    monkeypatch.setattr(download.fcntl, "flock", flock)
    for aside in (False, True):
        partial(path, CONTENT[:1000], {"url": server.url, "version": {"ETag": '"one"'}, "size": 300_000})
        part = path.with_name("photos.tar.part")
        waits.clear()
        with open(part, "ab") as file:
            lock(file, fcntl.LOCK_EX)
            thread = threading.Thread(target=fetch, args=(server.url, path, digest(CONTENT), MOST))
            thread.start()
            assert waits.wait(PATIENCE)
            if aside:
                os.replace(part, path.with_name("photos.tar.wrong"))
        thread.join(PATIENCE)
        assert path.read_bytes() == CONTENT and not part.exists()
        assert server.log[-1][:3] == ((None, None, 200) if aside else ("bytes=1000-", '"one"', 206))
        path.unlink()


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_what_came(server: Server, path: Path) -> None:
    hang, reached = threading.Event(), threading.Event()

    def answer(number: int) -> None:
        if number == 1:
            reached.set()
            hang.wait(PATIENCE)

    server.cuts, server.on_request = [90_000, 0], answer
    process = start(server, path)
    assert reached.wait(PATIENCE)
    process.kill()
    process.communicate(timeout=PATIENCE)
    hang.set()
    assert not path.exists()
    server.on_request, server.cuts = None, []
    fetch(server.url, path, digest(CONTENT), MOST)
    assert is_whole(path) and sha256(path) == digest(CONTENT)
    assert ("bytes=90000-", '"one"', 206, 210_000) in server.log


def test_a_file_system_without_locks(
    server: Server, path: Path, one_line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: Any) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(download.fcntl, "flock", flock)
    text = refused(server, path, one_line)
    assert "cannot be locked" in text and "data.path" in text


def test_only_http_and_files_are_opened() -> None:
    handlers = {type(h) for h in download._opener().handlers}
    assert urllib.request.HTTPSHandler in handlers
    assert not handlers & {urllib.request.FTPHandler, urllib.request.DataHandler}
