"""The verb `warm`: run a command in which every `directcm VERB` starts in a tenth of a second instead of several.

    directcm warm -- ./my_experiments.sh

Snakemake has one without being asked where jobs run on this machine and there is no GPU (`accompany`).

Most of a short job's time is the import of torch, diffusers and their like. A helper imports them once; each verb that is
started beneath the command asks it, over a Unix socket, for a fork of itself, which imports our own modules afresh, runs the
verb with the caller's arguments, folder, environment and standard streams, and ends. A job is a process of its own as
before and makes the same bytes. The caller waits, passes signals on and returns the exit status; if it is killed, so is its
fork. Where the helper cannot stand in for a fresh start (another environment, another copy of this package, no helper any
more) the verb simply starts by itself.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

SOCKET = "DIRECTCM_WARM"
PROGRAM = "directcm.cli:main"
# Verbs that import torch or its like, and whose artefacts record their own memory: Snakemake's benchmark sees the caller's alone.
VERBS = frozenset(
    [
        "encode",
        "noise",
        "targets",
        "endpoints",
        "trajectories",
        "train",
        "sample",
        "search",
        "error_by_time",
        "edit",
        "extractor",
        "features",
        "evaluate",
        "convergence",
    ]
)
# Third-party modules that most of them need; none of ours, so that an edited module is read anew by the next job.
MODULES = (
    "torch",
    "numpy",
    "scipy.linalg",
    "accelerate",
    "safetensors.torch",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl",
    "peft",
    "peft.tuners.lora",
    "open_clip.model",
)
# Variables that libraries read while they are imported begin so: with other values a verb starts by itself.
READ_EARLY = (
    "OMP_",
    "GOMP_",
    "KMP_",
    "MKL_",
    "GOTO_",
    "OPENBLAS_",
    "VECLIB_",
    "NUMEXPR_",
    "LD_",
    "PYTHON",
    "VIRTUAL_ENV",
    "HOME",
    "XDG_",
    "TORCH",
    "PYTORCH",
    "CUDA",
    "CUBLAS",
    "NVIDIA",
    "HF_",
    "HUGGINGFACE",
    "TRANSFORMERS",
    "DIFFUSERS",
    "ACCELERATE",
    "MPL",
    "USE_",
)
# What threadpoolctl and scikit-learn set for those who start a verb, once they have imported them.
SET_BY_LIBRARIES = ("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK")
# In a fork: its artefacts' provenance says so.
FORKED = "DIRECTCM_FORKED"
# Read while libraries are imported; Snakemake sets them to a rule's threads. A verb with more than one starts by itself.
THREADS = tuple(
    f"{name}_THREADS" for name in ("OMP_NUM", "GOTO_NUM", "OPENBLAS_NUM", "MKL_NUM", "VECLIB_MAXIMUM", "NUMEXPR_NUM")
)
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_LENGTH = struct.Struct("!I")
_told: set[str] = set()


def _package() -> str:
    import directcm

    return str(Path(str(directcm.__file__)).resolve().parent)


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that a fork cannot change any more."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(READ_EARLY) and name not in SET_BY_LIBRARIES
    }


def _send(connection: socket.socket, message: Any, fds: Sequence[int] = ()) -> None:
    data = json.dumps(message).encode()
    header = _LENGTH.pack(len(data))
    if fds:
        socket.send_fds(connection, [header], fds)
    else:
        connection.sendall(header)
    connection.sendall(data)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _receive(connection: socket.socket) -> Any:
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    return json.loads(_exactly(connection, length))


# ----------------------------------------------------------------- the caller


def ask(argv: Sequence[str]) -> int | None:
    """Have the helper run a verb; its exit status, or None where there is no helper that may."""
    address = os.environ.get(SOCKET)
    if not address or not argv or argv[0] not in VERBS:
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(address)
        request = {
            "argv": list(argv),
            "folder": os.getcwd(),
            "umask": _umask(),
            "package": _package(),
            "prefix": sys.prefix,
            "environment": dict(os.environ),
        }
        _send(connection, request, [0, 1, 2])
        answer = _receive(connection)
    except (OSError, EOFError, ValueError):
        connection.close()
        return None
    if answer.get("pid") is None:
        connection.close()
        return None
    pid = int(answer["pid"])

    def pass_on(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    before = {number: signal.signal(number, pass_on) for number in PASSED_ON}
    try:
        status = int(_receive(connection)["status"])
    except (OSError, EOFError, ValueError):
        print("directcm: the warm helper ended before the job did", file=sys.stderr)
        status = 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        connection.close()
    if status < 0:
        # Ended by a signal: end by the same one, so that whoever waits sees what happened.
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# ----------------------------------------------------------------- the helper


def _child(
    connection: socket.socket, request: dict[str, Any], fds: Sequence[int], run: Callable[[Sequence[str]], int]
) -> None:
    """In the fork: become what a fresh interpreter would be, run the verb, end."""
    status = 1
    try:
        for number in (*PASSED_ON, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.set_wakeup_fd(-1)
        for target, fd in enumerate(fds):
            os.dup2(fd, target)
            os.close(fd)
        sys.stdin, sys.stdout, sys.stderr = (
            open(fd, mode, encoding="utf-8", errors=errors, buffering=1, closefd=False)  # noqa: SIM115
            for fd, mode, errors in ((0, "r", "strict"), (1, "w", "strict"), (2, "w", "backslashreplace"))
        )
        os.chdir(request["folder"])
        os.umask(request["umask"])
        os.environ.clear()
        os.environ.update(request["environment"])
        os.environ[FORKED] = "1"
        sys.argv = ["directcm", *request["argv"]]

        def end_with_the_caller() -> None:
            with contextlib.suppress(OSError):
                connection.recv(1)
            os.kill(os.getpid(), signal.SIGKILL)

        threading.Thread(target=end_with_the_caller, daemon=True).start()
        status = run(request["argv"])
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        # By itself, for the helper may be gone by now.
        with contextlib.suppress(OSError):
            _send(connection, {"status": status})
        os._exit(status)


def _run(argv: Sequence[str]) -> int:
    # By name, in the fork: the helper itself must not hold any of our code.
    return int(pkgutil.resolve_name(PROGRAM)(argv))


def serve(listener: socket.socket, mine: dict[str, str], life: int, run: Callable[[Sequence[str]], int] = _run) -> None:
    """Fork for every request on the listening socket, until the pipe `life` is closed at its other end.

    `mine` is what this process read of its environment.
    """
    waiting: dict[int, socket.socket] = {}
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        selector.register(life, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj == life:
                    return
                if key.fileobj is woken:
                    with contextlib.suppress(BlockingIOError):
                        while woken.recv(4096):
                            pass
                    for pid, connection in list(waiting.items()):
                        done, status = os.waitpid(pid, os.WNOHANG)
                        if done:
                            # One that could not say so itself.
                            if (code := os.waitstatus_to_exitcode(status)) < 0:
                                with contextlib.suppress(OSError):
                                    _send(connection, {"status": code})
                            waiting.pop(pid).close()
                else:
                    connection, _ = listener.accept()
                    forked = _fork(connection, mine, run, [listener, woken, wake, *waiting.values()])
                    if forked is None:
                        connection.close()
                    else:
                        waiting[forked] = connection


def _tell(mine: Mapping[str, str], theirs: Mapping[str, str], here: bool) -> None:
    """Say once why verbs start by themselves; not of those that ask for more threads, which are meant to."""
    names = sorted(n for n in {*mine, *theirs} - set(THREADS) if mine.get(n) != theirs.get(n))
    why = f"another {', '.join(names)}" if here else "another environment or copy of directcm"
    if (names or not here) and why not in _told:
        _told.add(why)
        print(f"directcm warm: a verb starts by itself, it has {why} than its helper", file=sys.stderr, flush=True)


def _fork(
    connection: socket.socket,
    mine: dict[str, str],
    run: Callable[[Sequence[str]], int],
    others: Sequence[socket.socket],
) -> int | None:
    """The fork that serves one request; None where the request is not one for this helper."""
    fds: list[int] = []
    try:
        connection.settimeout(10)
        header, fds, _, _ = socket.recv_fds(connection, _LENGTH.size, 3)
        header += _exactly(connection, _LENGTH.size - len(header))
        request = json.loads(_exactly(connection, _LENGTH.unpack(header)[0]))
        connection.settimeout(None)
        theirs = _early(request["environment"])
        here = (request["package"], request["prefix"]) == (_package(), sys.prefix)
        if len(fds) != 3 or not here or theirs != mine:
            _send(connection, {"pid": None})
            _tell(mine, theirs, here)
            return None
        pid = os.fork()
        if pid == 0:
            for other in others:
                other.close()
            _child(connection, request, fds, run)
        _send(connection, {"pid": pid})
        return pid
    except (OSError, EOFError, ValueError, KeyError):
        return None
    finally:
        for fd in fds:
            with contextlib.suppress(OSError):
                os.close(fd)


def _helper(listening: int, ready: int, life: int, folder: str, modules: Sequence[str]) -> None:
    """The helper's process: imports, says so, serves; ends with whoever started it, however that ended, and removes its folder."""
    gc.disable()
    mine = _early(os.environ)
    # As every verb does before it imports anything; read anew by each, as all of our modules are.
    from directcm import environment

    environment.start()
    del sys.modules[environment.__name__]
    try:
        for name in modules:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        # What was imported is there for good: forks need not look through it, and so share its pages.
        gc.freeze()
        gc.enable()
        with contextlib.suppress(BrokenPipeError):
            os.write(ready, b"1")
        os.close(ready)
        serve(socket.socket(fileno=listening), mine, life)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class _Started:
    """A helper under way: its socket's address, the pipe that tells when it has imported, the one that it lives by."""

    address: str
    ready: int
    alive: int
    process: subprocess.Popen[bytes]


def _start(modules: Sequence[str]) -> _Started:
    """Start a helper. Verbs may ask it at once: they wait until it has imported."""
    folder = tempfile.mkdtemp(prefix="directcm-")
    address = str(Path(folder) / "socket")
    reading, ready = os.pipe()
    life, alive = os.pipe()
    with contextlib.ExitStack() as undo, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        listener.bind(address)
        listener.listen(64)
        ours = (listener.fileno(), ready, life)
        code = f"from directcm import warm; warm._helper(*{ours!r}, {folder!r}, {tuple(modules)!r})"
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, **dict.fromkeys(THREADS, "1")},
            pass_fds=ours,
            stdin=subprocess.DEVNULL,
            # Ctrl-C is for the command; the helper ends after it.
            start_new_session=True,
        )
        undo.pop_all()
    os.close(ready)
    os.close(life)
    return _Started(address, reading, alive, process)


@contextlib.contextmanager
def helper(modules: Sequence[str] = MODULES) -> Iterator[str]:
    """A helper while the block lasts; yields its socket's address once it has imported."""
    started = _start(modules)
    try:
        with open(started.ready, "rb") as pipe:
            if not pipe.read():
                print("directcm warm: the helper did not start, so every verb starts by itself", file=sys.stderr)
        yield started.address
    finally:
        os.close(started.alive)
        started.process.wait()
        # Its own to remove, where it started.
        shutil.rmtree(Path(started.address).parent, ignore_errors=True)


def has_gpu() -> bool:
    """Whether this machine has one of NVIDIA's; asked of its devices, so that nothing is imported."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def _without(error: Exception) -> None:
    print(
        f"directcm: jobs start without the import helper, each some seconds slower: {type(error).__name__}: {error}",
        file=sys.stderr,
        flush=True,
    )


def accompany(rules: Iterable[str], modules: Sequence[str] = MODULES) -> bool:
    """A helper for as long as this process lasts, if jobs of these rules gain by it; whether there is one now.

    A rule is named after its verb, or begins with it. None is started for a single job, where there is a GPU (whose jobs are long,
    and whose driver bears no fork), or where the environment has one already or an empty DIRECTCM_WARM, which asks for none.
    """
    gain = sum(any(rule == verb or rule.startswith(f"{verb}_") for verb in VERBS) for rule in rules)
    if gain < 2 or SOCKET in os.environ or has_gpu():
        return False
    try:
        started = _start(modules)
    # It only saves time: whatever is wrong with it, jobs run as well without.
    except Exception as error:
        _without(error)
        return False
    os.close(started.ready)
    # `alive` stays open in this process alone, and is closed by its end.
    os.environ[SOCKET] = started.address
    return True


def run(command: Sequence[str]) -> int:
    """Run a command with a helper; its exit status."""
    with contextlib.ExitStack() as stack:
        variables = dict(os.environ)
        try:
            variables[SOCKET] = stack.enter_context(helper())
        except Exception as error:
            _without(error)
        done = subprocess.Popen(command, env=variables)
        before = {
            n: signal.signal(n, lambda number, frame: done.send_signal(number))
            for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
        }
        # Ctrl-C reaches the command by itself; it decides how to end.
        before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            status = done.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return status if status >= 0 else 128 - status
