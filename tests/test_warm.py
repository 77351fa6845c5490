"""A verb in a fork of the import helper is the verb: the same output, exit status, signals; and where it may not be, a fresh start."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from directcm import cli
from directcm.runtime import warm
from tests.patience import PATIENCE, until

DIRECTCM = [sys.executable, "-m", "directcm.cli"]
KEY = b"of the tests"


def start(**variables: str) -> dict[str, str]:
    """An environment that a helper of these tests can stand in for."""
    return {**os.environ, **dict.fromkeys(warm.THREADS, "1"), **variables}


@pytest.fixture(scope="module", autouse=True)
def measured() -> Iterator[None]:
    """The helper and its forks are measured where the tests are (`make test`): coverage's own hook reads these two."""
    import coverage

    with pytest.MonkeyPatch.context() as patch:
        if coverage.Coverage.current() is not None:
            top = Path(__file__).parents[1]
            patch.setenv("COVERAGE_PROCESS_START", str(top / "pyproject.toml"))
            patch.setenv("COVERAGE_FILE", str(top / ".coverage"))
        yield


@pytest.fixture(scope="module")
def address(measured: None) -> Iterator[str]:
    """A helper that imports nothing, as fast as can be; as DIRECTCM_WARM names it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(warm.HELPER, raising=False)
        patch.setattr(warm, "has_gpu", lambda: False)
        assert warm.accompany(["train", "train"], modules="json")
        process = warm._started.pop()
        yield os.environ[warm.HELPER]
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
        process.stdout.close()


@pytest.fixture
def call(address: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*argv: str, warm_: bool = True) -> subprocess.CompletedProcess[str]:
        environment = start(**{warm.HELPER: address})
        if not warm_:
            del environment[warm.HELPER]
        return subprocess.run(
            [*DIRECTCM, *argv], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    return run


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int | None]:
    """A caller in this very process."""
    for name in warm.THREADS:
        monkeypatch.setenv(name, "1")

    def run(where: str, *argv: str) -> int | None:
        monkeypatch.setenv(warm.HELPER, where)
        status = warm.ask(argv)
        assert warm.HELPER not in os.environ
        return status

    return run


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    "argv, status",
    [
        (["noise", "--help"], 0),
        (["targets", "--help"], 0),
        (["targets"], 2),
        (
            [
                "encode",
                *["--settings", "{", "--teacher", "a", "--data", "b", "--seed", "1", "--scratch", "s", "--out", "o"],
            ],
            2,
        ),
    ],
)
def test_output_and_status_are_those_of_a_fresh_start(call: Any, argv: list[str], status: int) -> None:
    forked, fresh = call(*argv), call(*argv, warm_=False)
    assert (forked.returncode, forked.stdout, forked.stderr) == (fresh.returncode, fresh.stdout, fresh.stderr)
    assert forked.returncode == status and forked.stdout + forked.stderr


@contextlib.contextmanager
def server(tmp_path: Path, main: Callable[[Any], int]) -> Iterator[tuple[int, str]]:
    """A helper forked from here, in whose forks another thing runs than a verb; its pid, and how DIRECTCM_WARM names it."""
    life, living = os.pipe()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(living)
                cli.main = main  # type: ignore[assignment]
                warm.serve(listener, life, KEY, warm.fixed(start()))
            finally:
                os._exit(1)
    os.close(life)
    try:
        yield pid, f"{KEY.hex()}:{tmp_path / 'socket'}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(living)


def test_folder_environment_arguments_and_streams_are_the_callers(tmp_path: Path) -> None:
    """What the fork sees, by a verb's place taken by one that tells."""

    def tell(argv: Any) -> int:
        print(os.getcwd(), os.environ.get("SAID"), oct(os.umask(0)), list(argv), sys.argv[1:], input())
        print(warm.HELPER in os.environ, os.getpid(), file=sys.stderr)
        return 7

    with server(tmp_path, tell) as (_, where):
        told = subprocess.run(
            [*DIRECTCM, "train", "a b", "ü"], cwd=tmp_path, env=start(SAID="so", **{warm.HELPER: where}), umask=0o27,
            input="in\n", capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
    assert told.returncode == 7
    assert told.stdout == f"{tmp_path} so 0o27 ['train', 'a b', 'ü'] ['train', 'a b', 'ü'] in\n"
    named, pid = told.stderr.split()
    assert named == "False" and int(pid) != os.getpid()


@contextlib.contextmanager
def sleeping(tmp_path: Path, **more: Any) -> Iterator[tuple[int, subprocess.Popen[str], int]]:
    """A helper, a caller and its fork, which sleeps: pid, process, pid."""
    note = tmp_path / "pid"

    def sleep(argv: Any) -> int:
        note.with_suffix(".new").write_text(str(os.getpid()))
        note.with_suffix(".new").rename(note)
        time.sleep(PATIENCE)
        return 0

    with server(tmp_path, sleep) as (helper, where):
        caller = subprocess.Popen(
            [*DIRECTCM, "train"], env=start(**{warm.HELPER: where}), stderr=subprocess.PIPE, text=True, **more
        )
        until("the fork runs", note.exists)
        fork = int(note.read_text())
        try:
            assert alive(fork)
            yield helper, caller, fork
        finally:
            caller.kill()
            caller.communicate(timeout=PATIENCE)
            until("the fork ends", lambda: not alive(fork))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL])
@pytest.mark.parametrize("whom", ["caller", "fork", "caller without a helper"])
def test_who_is_ended_ends_both(tmp_path: Path, number: int, whom: str) -> None:
    with sleeping(tmp_path) as (helper, caller, fork):
        if "helper" in whom:
            os.kill(helper, signal.SIGKILL)
            until("the helper is gone", lambda: not alive(helper))
        os.kill(fork if whom == "fork" else caller.pid, number)
        # Only the helper knows what its fork ended by.
        lost = "helper" in whom and number != signal.SIGKILL
        assert caller.wait(PATIENCE) == (1 if lost else -number)
        until("the fork ends", lambda: not alive(fork))
        assert caller.stderr is not None
        assert ("the import helper ended before the job did" in caller.stderr.read()) == lost


def test_what_the_caller_ignores_its_fork_does_not_get(tmp_path: Path) -> None:
    """Under nohup: the terminal's end ends neither."""
    with sleeping(tmp_path, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as (_, caller, _fork):
        for number in (signal.SIGHUP, signal.SIGTERM):
            caller.send_signal(number)
        assert caller.wait(PATIENCE) == -signal.SIGTERM


def test_a_caller_that_says_nothing_keeps_no_other_waiting(tmp_path: Path, ask: Any) -> None:
    with server(tmp_path, lambda argv: 3) as (_, where), socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(tmp_path / "socket"))
        assert ask(where, "train") == 3
        assert ask(f"{b'another'.hex()}:{tmp_path / 'socket'}", "train") is None
        assert ask(where, "train") == 3


def test_without_room_for_a_fork_a_verb_starts_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Any
) -> None:
    class Full:
        def __init__(self, **_: Any) -> None:
            self.Process = Full

        def start(self) -> None:
            raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(warm, "get_context", lambda method: Full())
    with server(tmp_path, lambda argv: 0) as (helper, where):
        assert ask(where, "train") is None and alive(helper)


@pytest.mark.slow
def test_two_callers_at_once_and_each_its_own_status(tmp_path: Path) -> None:
    def run(argv: Any) -> int:
        time.sleep(float(argv[1]))
        return int(argv[2])

    with server(tmp_path, run) as (_, where):
        environment = start(**{warm.HELPER: where})
        callers = [subprocess.Popen([*DIRECTCM, "train", t, s], env=environment) for t, s in (("1", "3"), ("0", "4"))]
        assert [c.wait(PATIENCE) for c in callers] == [3, 4]


def test_a_process_is_accompanied_as_long_as_it_lasts() -> None:
    """Its verbs may ask at once, before the helper has imported; killed, it leaves neither helper nor folder."""
    code = (
        "import os, subprocess, sys, time\nfrom directcm.runtime import warm\nwarm.has_gpu = lambda: False\n"
        "print(warm.accompany(['train', 'features_teacher'], modules='json'), os.environ[warm.HELPER], warm._started[0].pid, flush=True)\n"
        f"print(subprocess.run([*{DIRECTCM!r}, 'targets'], capture_output=True).returncode, flush=True)\ntime.sleep({PATIENCE})"
    )
    environment = start()
    environment.pop(warm.HELPER, None)
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert starter.stdout is not None
    there, where, helper = starter.stdout.readline().split()
    assert there == "True" and starter.stdout.readline().strip() == "2"
    folder = Path(where.partition(":")[2]).parent
    assert alive(int(helper)) and folder.exists() and folder.stat().st_mode & 0o77 == 0
    starter.kill()
    starter.wait()
    starter.stdout.close()
    until("the helper is gone", lambda: not alive(int(helper)) and not folder.exists())


def test_why_a_verb_starts_by_itself_is_told_once(
    tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, ask: Any
) -> None:
    """Nothing is told of more threads, nor of what libraries set by themselves, which a fork may differ in."""
    with server(tmp_path, lambda argv: 0) as (_, where):
        monkeypatch.setenv("KMP_DUPLICATE_LIB_OK", "True")
        assert ask(where, "targets") == 0
        with monkeypatch.context() as patch:
            patch.setenv("OMP_NUM_THREADS", "2")
            assert ask(where, "targets") is None
        assert capfd.readouterr().err == ""
        monkeypatch.setenv("HF_HUB_CACHE", "/elsewhere")
        assert ask(where, "targets") is None and ask(where, "targets") is None
    assert capfd.readouterr().err == (
        "directcm: a verb starts by itself, it has another HF_HUB_CACHE than the import helper\n"
    )


def test_no_helper_where_none_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "Popen", lambda *_, **__: pytest.fail("started"))
    monkeypatch.delenv(warm.HELPER, raising=False)
    assert not warm.accompany(["data", "train", "figure_results", "table1"])
    monkeypatch.setenv(warm.HELPER, "")
    assert not warm.accompany(["train", "train"])
    monkeypatch.delenv(warm.HELPER)
    monkeypatch.setattr(warm, "has_gpu", lambda: True)
    assert not warm.accompany(["train", "train"])


@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "HF_HUB_CACHE", "PYTHONPATH", "CUDA_VISIBLE_DEVICES"])
def test_another_environment_is_a_fresh_start(
    address: str, monkeypatch: pytest.MonkeyPatch, variable: str, ask: Any
) -> None:
    assert ask(address, "targets") == 2
    monkeypatch.setenv(variable, "2")
    assert ask(address, "targets") is None


def test_another_copy_of_the_package_is_a_fresh_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Any, capfd: pytest.CaptureFixture
) -> None:
    with server(tmp_path, lambda argv: 0) as (_, where):
        monkeypatch.setattr(warm, "__file__", "/elsewhere/warm.py")
        assert ask(where, "targets") is None
    assert "it has another environment or copy of directcm than the import helper" in capfd.readouterr().err


def test_a_verb_that_needs_no_helper_and_a_helper_that_is_gone(address: str, tmp_path: Path, ask: Any) -> None:
    assert ask(address, "cards") is None and ask(address) is None
    for where in (f"00:{tmp_path / 'nothing'}", str(tmp_path / "nothing"), "no key:/there", ""):
        assert ask(where, "targets") is None
    assert warm.ask(["targets"]) is None


def test_every_warm_verb_is_a_verb() -> None:
    verbs = next(a for a in cli.parser()._actions if a.dest == "verb").choices
    assert set(verbs) > {*f"{warm.VERBS}|{warm.ALSO}".split("|")}
