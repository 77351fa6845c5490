"""A verb in a fork of the warm helper is the verb: the same output, exit status, signals; and where it may not be, a fresh start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from directcm import cli, warm
from tests.patience import PATIENCE, until

DIRECTCM = [sys.executable, "-m", "directcm.cli"]


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
    """A helper that imports nothing, as fast as can be."""
    with pytest.MonkeyPatch.context() as patch:
        for name in warm.THREADS:
            patch.setenv(name, "1")
        with warm.helper(modules=("json",)) as found:
            yield found


@pytest.fixture
def call(address: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*argv: str, warm_: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **dict.fromkeys(warm.THREADS, "1"), **variables}
        environment.pop(warm.SOCKET, None)
        if warm_:
            environment[warm.SOCKET] = address
        return subprocess.run(
            [*DIRECTCM, *argv], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

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


def test_folder_environment_and_arguments_are_the_callers(tmp_path: Path) -> None:
    """What the fork sees, by a verb's place taken by one that tells."""
    told = serve_here(
        tmp_path,
        lambda argv: print(os.getcwd(), os.environ.get("SAID"), list(argv), sys.argv[1:], os.getpid(), flush=True) or 7,
        ["train", "a b", "ü"],
        SAID="so",
        folder=tmp_path,
    )
    assert told.returncode == 7
    *seen, pid = told.stdout.strip().rsplit(" ", 1)
    assert seen == [f"{tmp_path} so ['train', 'a b', 'ü'] ['train', 'a b', 'ü']"] and int(pid) != os.getpid()


def start_server(tmp_path: Path, run: Callable[[Any], int]) -> tuple[int, str]:
    """A helper forked from here, with another thing to run than a verb; its pid and address."""
    import socket

    where = str(tmp_path / "socket")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(where)
    listener.listen()
    life, alive = os.pipe()
    mine = warm._early({**os.environ, **dict.fromkeys(warm.THREADS, "1")})
    pid = os.fork()
    if pid == 0:
        try:
            os.close(alive)
            warm.serve(listener, mine, life, run)
        finally:
            os._exit(1)
    listener.close()
    os.close(life)
    return pid, where


def serve_here(
    tmp_path: Path, run: Callable[[Any], int], argv: list[str], folder: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    pid, where = start_server(tmp_path, run)
    try:
        return subprocess.run(
            [*DIRECTCM, *argv], cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False,
            env={**os.environ, **dict.fromkeys(warm.THREADS, "1"), **variables, warm.SOCKET: where},
        )  # fmt: skip
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_caller_that_is_ended_ends_its_fork(tmp_path: Path, number: int, status: int) -> None:
    note = tmp_path / "pid"

    def sleep(argv: Any) -> int:
        note.with_suffix(".new").write_text(str(os.getpid()))
        note.with_suffix(".new").rename(note)
        time.sleep(PATIENCE)
        return 0

    server, where = start_server(tmp_path, sleep)
    try:
        caller = subprocess.Popen(
            [*DIRECTCM, "train"], env={**os.environ, **dict.fromkeys(warm.THREADS, "1"), warm.SOCKET: where}
        )
        until("the fork runs", note.exists)
        fork = int(note.read_text())
        assert alive(fork)
        caller.send_signal(number)
        assert caller.wait(PATIENCE) == status
        until("the fork ends", lambda: not alive(fork))
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)


@pytest.mark.slow
def test_two_callers_at_once_and_each_its_own_status(tmp_path: Path) -> None:
    def run(argv: Any) -> int:
        time.sleep(float(argv[1]))
        return int(argv[2])

    server, where = start_server(tmp_path, run)
    try:
        environment = {**os.environ, **dict.fromkeys(warm.THREADS, "1"), warm.SOCKET: where}
        callers = [subprocess.Popen([*DIRECTCM, "train", t, s], env=environment) for t, s in (("1", "3"), ("0", "4"))]
        assert [c.wait(PATIENCE) for c in callers] == [3, 4]
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)


def test_the_helper_ends_with_whoever_started_it(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom directcm import warm\n"
        f"with warm.helper(modules=()) as a:\n print(a, flush=True); time.sleep({PATIENCE})"
    )
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    where = starter.stdout.readline().strip()

    def helpers() -> list[str]:
        lines = (p.read_bytes().decode(errors="replace") for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists())
        return [line for line in lines if str(Path(where).parent) in line]

    assert len(helpers()) == 1
    starter.kill()
    starter.wait()
    starter.stdout.close()
    until("the helper ends", lambda: not helpers())
    assert not Path(where).parent.exists()


def test_a_process_is_accompanied_as_long_as_it_lasts(tmp_path: Path) -> None:
    """Its verbs may ask at once, before the helper has imported; killed, it leaves neither helper nor folder."""
    code = (
        "import os, subprocess, sys, time\nfrom directcm import warm\n"
        "print(warm.accompany(['train', 'features_teacher'], modules=('json',)), os.environ[warm.SOCKET], flush=True)\n"
        f"print(subprocess.run([*{DIRECTCM!r}, 'targets'], capture_output=True).returncode, flush=True)\ntime.sleep({PATIENCE})"
    )
    environment = {**os.environ, **dict.fromkeys(warm.THREADS, "1")}
    environment.pop(warm.SOCKET, None)
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert starter.stdout is not None
    there, where = starter.stdout.readline().split()
    assert there == "True" and starter.stdout.readline().strip() == "2"
    assert Path(where).exists()
    starter.kill()
    starter.wait()
    starter.stdout.close()
    until("the helper is gone", lambda: not Path(where).parent.exists())


def test_why_a_verb_starts_by_itself_is_told_once(
    tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is told of more threads, nor of what libraries set by themselves, which a fork may differ in."""
    monkeypatch.setattr(warm, "_told", set())
    server, where = start_server(tmp_path, lambda argv: 0)

    def ask(**variables: str) -> int | None:
        code = "import sys; from directcm import warm; print(warm.ask(['targets']))"
        environment = {**os.environ, **dict.fromkeys(warm.THREADS, "1"), **variables, warm.SOCKET: where}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=PATIENCE
        )
        return None if done.stdout.strip() == "None" else int(done.stdout)

    try:
        assert ask(KMP_DUPLICATE_LIB_OK="True") == 0
        assert ask(OMP_NUM_THREADS="2") is None
        assert capfd.readouterr().err == ""
        assert ask(HF_HUB_CACHE="/elsewhere") is None and ask(HF_HUB_CACHE="/elsewhere") is None
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
    assert capfd.readouterr().err == (
        "directcm warm: a verb starts by itself, it has another HF_HUB_CACHE than its helper\n"
    )


def test_no_helper_where_none_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "_start", lambda modules: pytest.fail("started"))
    monkeypatch.delenv(warm.SOCKET, raising=False)
    assert not warm.accompany(["data", "train", "figure_results", "table1"])
    monkeypatch.setenv(warm.SOCKET, "")
    assert not warm.accompany(["train", "train"])
    monkeypatch.delenv(warm.SOCKET)
    monkeypatch.setattr(warm, "has_gpu", lambda: True)
    assert not warm.accompany(["train", "train"])


def test_a_helper_that_cannot_start_is_told_of(capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with warm.helper(modules=()) as where:
        monkeypatch.setenv(warm.SOCKET, where)
        assert warm.ask(["targets"]) is None
    assert "did not start" in capfd.readouterr().err


@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "HF_HUB_CACHE", "PYTHONPATH", "CUDA_VISIBLE_DEVICES"])
def test_another_environment_is_a_fresh_start(address: str, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    for name in warm.THREADS:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv(warm.SOCKET, address)
    assert warm.ask(["targets"]) == 2
    monkeypatch.setenv(variable, "2")
    assert warm.ask(["targets"]) is None


def test_a_verb_that_needs_no_helper_and_a_helper_that_is_gone(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in warm.THREADS:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv(warm.SOCKET, address)
    assert warm.ask(["figure"]) is None and warm.ask([]) is None
    monkeypatch.setenv(warm.SOCKET, str(tmp_path / "nothing"))
    assert warm.ask(["targets"]) is None
    monkeypatch.delenv(warm.SOCKET)
    assert warm.ask(["targets"]) is None


def test_the_verb_passes_status_and_helper_on(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(warm, "helper", lambda: warm_nothing())
    with pytest.raises(SystemExit) as stop:
        cli.main(["warm", "--", "sh", "-c", f"echo ${warm.SOCKET}; exit 5"])
    assert stop.value.code == 5 and capfd.readouterr().out == "/there\n"
    assert cli.main(["warm", "--"]) == 2


class warm_nothing:
    def __enter__(self) -> str:
        return "/there"

    def __exit__(self, *error: object) -> None:
        return None


def test_every_warm_verb_is_a_verb() -> None:
    verbs = next(a for a in cli.parser()._actions if a.dest == "verb").choices
    assert set(verbs) > warm.VERBS
