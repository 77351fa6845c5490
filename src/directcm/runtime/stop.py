"""Being told to stop: on SIGTERM and SIGUSR1 a verb ends where nothing is lost, and a SLURM job goes back into the queue.

SLURM sends SIGTERM before it preempts a job or ends it at its time limit, and whatever `sbatch --signal` asks for earlier.
Work in blocks loses the block under way; a training loop ends after its step and writes a checkpoint (`deferred`).
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
# EX_TEMPFAIL of sysexits.h: not an error, try again.
STATUS = 75
# How long a requeued job waits for SLURM to end it.
PATIENCE = 120.0
# The number of the SLURM job that was submitted for this verb.
OWN_JOB = "DIRECTCM_SLURM_JOB"
# The folder in which its verbs note what they have finished (directcm.runtime.finished).
NOTES = "DIRECTCM_FINISHED"


class Stopped(BaseException):
    """Told to stop by a signal; not an Exception, so that nothing on the way takes it for an error of its own."""

    def __init__(self, number: int, note: str = "") -> None:
        self.number = number
        super().__init__(f"stopped by {signal.Signals(number).name}{note and ', ' + note}; the same command goes on")


_deferring = False
_asked: int | None = None


def _handle(number: int, frame: FrameType | None) -> None:
    global _asked
    # Once is enough; a second one would cut off what the first one leads to.
    if _asked is None:
        _asked = number
        if not _deferring:
            raise Stopped(number)


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """While the block lasts the signals raise Stopped. Only in the main thread; elsewhere nothing changes."""
    global _asked
    _asked = None
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, _handle) for number in SIGNALS} if main else {}
    try:
        yield
    finally:
        _asked = None
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """While the block lasts a signal is only remembered (`asked`); it is for the block to act on it."""
    global _deferring
    _deferring = True
    try:
        yield
    finally:
        _deferring = False


def asked() -> int | None:
    """The signal that told this process to stop, if one did."""
    return _asked


def check() -> None:
    """Raise Stopped where a signal's was lost: libraries catch everything in places, while they are imported for instance."""
    if _asked is not None and not _deferring:
        raise Stopped(_asked)


def mark_own_job(notes: Path) -> None:
    """Say to the verbs below that the SLURM job this process runs in, if it does, was submitted for them.

    They note what they have finished below the folder `notes` (directcm.runtime.finished).
    """
    job = os.environ.get("SLURM_JOB_ID")
    # Snakemake starts itself twice in a job, and the second does not see the job's name, which is that of the whole run.
    if job is not None and os.environ.get(OWN_JOB) != job:
        os.environ[OWN_JOB] = job
        os.environ[NOTES] = str(notes / os.environ.get("SLURM_JOB_NAME", job))


def requeue() -> bool:
    """Put this SLURM job back into the queue; True where SLURM will end this process and start the job again.

    Only a job that Snakemake's executor submitted, which the Snakefile marks (OWN_JOB): another one, a notebook's or an
    interactive session that a verb was started in, is its user's.
    Only a job that still counts as running: one that was cancelled, or is over its time limit, is given up by whoever waits for it.
    """
    job = os.environ.get("SLURM_JOB_ID")
    # Of several processes the first asks for all.
    if job is None or os.environ.get(OWN_JOB) != job or os.environ.get("RANK", "0") != "0":
        return False
    scontrol = functools.partial(subprocess.run, capture_output=True, text=True, timeout=30, check=True)
    try:
        if "JobState=RUNNING" not in scontrol(["scontrol", "show", "job", "--oneliner", job]).stdout.split():
            return False
        scontrol(["scontrol", "requeue", job])
    except (OSError, subprocess.SubprocessError) as error:
        reason = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        print(f"directcm: job {job} is not requeued: {reason}", file=sys.stderr)
        return False
    print(f"directcm: job {job} is requeued", file=sys.stderr, flush=True)
    return True


def leave() -> int:
    """What a stopped verb ends with: under SLURM it is requeued and waits for its end, so that nobody takes it for failed."""
    if requeue():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        # SIGKILL comes; where it does not, an exit tells more than a job that hangs.
        time.sleep(PATIENCE)
    return STATUS
