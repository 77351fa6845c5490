"""The import helper: short jobs on a CPU share one import of torch, which is most of their time.

Snakemake starts a helper where jobs run on this machine and there is no GPU (`accompany`). It imports torch, diffusers and their
like once. Each verb asks it for a fork of itself (`ask`). The fork reads our own modules afresh, runs the verb with the caller's
arguments, folder, environment and standard streams, and ends. A job is a process of its own as before and makes the same bytes.
The caller waits, passes signals on and returns the exit status; if it is killed, so is its fork. Where the helper cannot stand
in for a fresh start (another environment, another copy of this package, no helper any more) the verb starts by itself.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pkgutil
import re
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from multiprocessing import AuthenticationError, get_context, reduction
from multiprocessing.connection import Client, Connection, answer_challenge, deliver_challenge, wait
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

# The helper's key and its socket's address, KEY:ADDRESS. A user sets it empty to have no helper.
HELPER = "DIRECTCM_WARM"
# In a fork: its artefacts' provenance says so.
FORKED = "DIRECTCM_FORKED"
# Verbs that are worth a helper: they import torch or its like. Their artefacts record their memory, as Snakemake's benchmark sees the
# caller's alone.
VERBS = (
    "states|variants|untrained|"
    "encode|noise|targets|endpoints|trajectories|train|sample|search|error_by_time|edit|extractor|features|evaluate|baselines|"
    "convergence|fixed_points"
)
# Verbs that use a helper which others are worth: matplotlib, seaborn and pandas are two seconds.
ALSO = "figure|table|contrasts|claims|opening|collect|why|outcomes"
# Third-party modules that several of them need; none of ours, so that an edited module is read anew by the next job.
MODULES = (
    "torch scipy.linalg scipy.stats scipy.ndimage scipy.spatial.distance sklearn.svm peft.tuners.lora open_clip.model"
    " diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl seaborn matplotlib.backends.backend_pdf"
    " pydantic.root_model grimp torch.utils.tensorboard.writer"
)
# Variables that libraries read while they are imported begin so: with other values a verb starts by itself.
READ_EARLY = re.compile(
    "OMP_|GOMP_|KMP_|MKL_|GOTO_|OPENBLAS_|VECLIB_|NUMEXPR_|LD_|PYTHON|VIRTUAL_ENV|HOME|XDG_|TORCH|PYTORCH|CUDA|CUBLAS|"
    "NVIDIA|HF_|HUGGINGFACE|TRANSFORMERS|DIFFUSERS|ACCELERATE|MPL|USE_"
)
# What threadpoolctl and scikit-learn set for those who start a verb, once they have imported them.
SET_BY_LIBRARIES = ("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK")
# Snakemake sets them to a rule's threads. The helper has one; a verb with more starts by itself.
THREADS = tuple(
    f"{name}_THREADS" for name in ("OMP_NUM", "GOTO_NUM", "OPENBLAS_NUM", "MKL_NUM", "VECLIB_MAXIMUM", "NUMEXPR_NUM")
)
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# Helpers of this process. Each ends when its standard input is closed.
_started: list[Popen[bytes]] = []


def _say(text: str) -> None:
    print(f"directcm: {text}", file=sys.stderr, flush=True)


def _without(error: Exception) -> None:
    _say(f"jobs start without the import helper, each some seconds slower: {type(error).__name__}: {error}")


def fixed(environment: Mapping[str, str]) -> dict[str, str]:
    """What a fork cannot change of its helper's start: part of the environment, the interpreter, this package."""
    early = {n: v for n, v in environment.items() if READ_EARLY.match(n) and n not in SET_BY_LIBRARIES}
    return {**early, "environment or copy of directcm": f"{sys.prefix} {Path(__file__).resolve()}"}


def ask(argv: Sequence[str]) -> int | None:
    """Have the helper run a verb; its exit status, or None where there is no helper that may."""
    # Taken out: it is for this verb alone, and its key for no provenance.
    key, _, address = os.environ.pop(HELPER, "").partition(":")
    if not address or not argv or not re.fullmatch(f"{VERBS}|{ALSO}", argv[0]):
        return None
    os.umask(mask := os.umask(0))
    try:
        connection = Client(address, "AF_UNIX", bytes.fromhex(key))
        connection.send((fixed(os.environ), list(argv), os.getcwd(), mask, dict(os.environ)))
        for fd in range(3):
            reduction.send_handle(connection, fd, 0)
        pid = connection.recv()["pid"]
    except (OSError, EOFError, KeyError, ValueError, AuthenticationError):
        return None

    def pass_on(number: int, frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    # What the caller was told to ignore, by nohup for example, is not for its fork either.
    before = {n: signal.signal(n, pass_on) for n in PASSED_ON if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        status = int(connection.recv()["status"])
    except (OSError, EOFError):
        _say("the import helper ended before the job did")
        status = 1
    for number, handler in before.items():
        signal.signal(number, handler)
    if status < 0:
        # Ended by a signal: end by the same one, so that whoever waits sees what happened.
        os.kill(os.getpid(), -status)
    return status


def fork(connection: Connection, key: bytes, mine: Mapping[str, str], listener: socket.socket, others: Any) -> None:
    """In the fork: hear the caller, become the interpreter that it would start, run the verb; or end, where it cannot."""
    folder = Path(listener.getsockname()).parent
    for other in (listener, *others):
        other.close()
    try:
        deliver_challenge(connection, key)
        answer_challenge(connection, key)
        theirs, argv, where, mask, environment = connection.recv()
        handles = [reduction.recv_handle(connection) for _ in range(3)]
    except (OSError, EOFError, ValueError, AuthenticationError):
        return
    if theirs != mine:
        # Verbs that ask for more threads are meant to start by themselves. Of others it is said once: a file remembers it.
        if why := ", ".join(sorted(n for n in {*mine, *theirs} - set(THREADS) if mine.get(n) != theirs.get(n))):
            with contextlib.suppress(OSError):
                (folder / why[:200]).touch(exist_ok=False)
                _say(f"a verb starts by itself, it has another {why} than the import helper")
        return
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        os.dup2(handles[fd], fd)
        os.close(handles[fd])
        encoding = getattr(sys, f"__{name}__").encoding
        setattr(sys, name, open(fd, "w" if fd else "r", buffering=1, encoding=encoding, closefd=False))  # noqa: SIM115
    os.chdir(where)
    os.umask(mask)
    os.environ.clear()
    os.environ.update(environment, **{FORKED: "1"})
    sys.argv = ["directcm", *argv]
    done = threading.Event()

    def end_with_the_caller() -> None:
        # It sends nothing more: what there is to read is its end.
        connection.poll(None)
        if not done.is_set():
            os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=end_with_the_caller, daemon=True).start()
    connection.send({"pid": os.getpid()})
    try:
        # By name: the helper itself must not hold any of our code.
        status = pkgutil.resolve_name("directcm.cli:main")(argv)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    done.set()
    # By itself, for the helper may be gone by now.
    with contextlib.suppress(OSError):
        sys.stderr.flush()
        sys.stdout.flush()
        connection.send({"status": status})
    sys.exit(status)


def serve(listener: socket.socket, life: int, key: bytes, mine: Mapping[str, str]) -> None:
    """Fork for every caller at the socket, until the pipe `life` is closed at its other end; `mine` is what its start fixed."""
    # By their sentinels.
    jobs: dict[Any, tuple[Any, Connection]] = {}
    while life not in (ready := wait([listener, life, *jobs])):
        for one in ready:
            if one is listener:
                connection = Connection(listener.accept()[0].detach())
                seen = (connection, key, mine, listener, [other for _, other in jobs.values()])
                process = get_context("fork").Process(target=fork, args=seen)
                try:
                    process.start()
                    jobs[process.sentinel] = process, connection
                except OSError:
                    # No room for a fork: the verb starts by itself.
                    connection.close()
            else:
                process, connection = jobs.pop(one)
                process.join()
                # Of a fork that could not say so itself.
                with connection, contextlib.suppress(OSError):
                    connection.send({"status": process.exitcode})


def helper(modules: str) -> None:
    """The helper's process: says where it listens, imports, serves; ends when its standard input does, and removes its folder."""
    gc.disable()
    mine, key = fixed(os.environ), os.urandom(16)
    try:
        with tempfile.TemporaryDirectory(prefix="directcm-") as folder, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"{folder}/socket")
            listener.listen(64)
            # Verbs may ask at once: they wait until it has imported.
            print(f"{key.hex()}:{folder}/socket", flush=True)
            os.dup2(2, 1)
            # As every verb does before it imports anything; read anew by each, as all of our modules are.
            pkgutil.resolve_name("directcm.runtime.environment:start")()
            del sys.modules["directcm.runtime.environment"]
            for name in modules.split():
                with contextlib.suppress(ImportError):
                    __import__(name)
            # What was imported is there for good: forks need not look through it, and so share its pages.
            gc.freeze()
            gc.enable()
            serve(listener, 0, key, mine)
    except Exception as error:
        _without(error)


def has_gpu() -> bool:
    """Whether this machine has one of NVIDIA's; asked of its devices, so that nothing is imported."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def accompany(rules: Iterable[str], modules: str = MODULES) -> bool:
    """A helper for as long as this process lasts, if jobs of these rules gain by it; whether there is one now.

    A rule is named after its verb, or begins with it. None is started for a single job, where there is a GPU (whose jobs are long,
    and whose driver bears no fork), or where the environment has one already or an empty DIRECTCM_WARM, which asks for none.
    """
    gain = sum(re.fullmatch(f"({VERBS})(_.*)?", rule) is not None for rule in rules)
    if gain < 2 or HELPER in os.environ or has_gpu():
        return False
    command = [sys.executable, "-P", "-c", f"from directcm.runtime import warm; warm.helper({modules!r})"]
    environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
    try:
        # In a session of its own: Ctrl-C is for Snakemake and its jobs, and the helper ends after them.
        process = Popen(command, env=environment, stdin=PIPE, stdout=PIPE, start_new_session=True)
        where = process.stdout.readline().decode().strip() if process.stdout else ""
        # What it finds wrong it says itself, and ends with 0.
        if not where and process.wait():
            raise RuntimeError(f"it ended with status {process.returncode}")
    # It only saves time: whatever is wrong with it, jobs run as well without.
    except Exception as error:
        _without(error)
        return False
    if where:
        os.environ[HELPER] = where
        _started.append(process)
    return bool(where)
