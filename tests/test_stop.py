"""Being told to stop: at once in most work, after the step with a checkpoint in training, and back into SLURM's queue."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from directcm import cli
from directcm.cli import declare
from directcm.runtime import stop
from directcm.runtime.loop import fit, make_accelerator
from directcm.runtime.progress import Progress
from tests.test_loop import problem, same, train


@pytest.mark.parametrize("number", stop.SIGNALS)
def test_a_signal_raises_where_it_arrives(number: int) -> None:
    reached = []
    with pytest.raises(stop.Stopped) as stopped, stop.listening():
        reached.append(1)
        os.kill(os.getpid(), number)
        reached.append(2)
    assert reached == [1] and stopped.value.number == number and stop.asked() is None
    assert signal.Signals(number).name in str(stopped.value)


def test_the_handlers_are_those_from_before() -> None:
    before = [signal.getsignal(n) for n in stop.SIGNALS]
    with stop.listening():
        assert [signal.getsignal(n) for n in stop.SIGNALS] != before
    assert [signal.getsignal(n) for n in stop.SIGNALS] == before


def test_deferred_is_remembered_and_a_second_signal_changes_nothing() -> None:
    with stop.listening():
        assert stop.asked() is None
        with stop.deferred():
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.asked() == signal.SIGUSR1
        os.kill(os.getpid(), signal.SIGTERM)
    with stop.listening():
        assert stop.asked() is None


def test_a_signal_that_a_library_has_caught_stops_the_work_all_the_same() -> None:
    progress = Progress("test", 9)
    with pytest.raises(stop.Stopped) as stopped, stop.listening():
        progress.update()
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), signal.SIGTERM)
        with stop.deferred():
            progress.update()
        progress.update()
        progress.update()
    assert stopped.value.number == signal.SIGTERM and progress.done == 2
    progress.update()


def told_at(step: int, **options: Any) -> Any:
    """The training problem of test_loop, told to stop in the middle of a step."""
    job = problem(**options)
    loss = job.loss

    def tell(now: int, rows: np.ndarray) -> Tensor:
        if now == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(now, rows)

    job.loss = tell
    return job


@pytest.mark.parametrize("step", [0, 3, 7])
def test_training_ends_after_its_step_with_a_checkpoint(tmp_path: Path, step: int) -> None:
    options = {"ema": 0.9, "grad_clip": 0.5, "checkpoint_every": 100}
    whole = train(problem(**options))
    with pytest.raises(stop.Stopped) as stopped, stop.listening():
        train(told_at(step, scratch=tmp_path, **options))
    assert f"checkpoint of step {step + 1} " in str(stopped.value)
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == [f"checkpoint-{step + 1:08d}"]
    rows: list[np.ndarray] = []
    same(whole, train(problem(log=rows, scratch=tmp_path, **options)))
    assert len(rows) == 9 - (step + 1)


def test_told_in_the_last_step_it_is_done(tmp_path: Path) -> None:
    with stop.listening():
        assert len(fit(told_at(8, scratch=tmp_path), make_accelerator()).curve) == 9


def test_a_snapshot_of_the_step_it_stops_at_is_kept(tmp_path: Path) -> None:
    options = {"checkpoint_every": 100, "snapshots": [2, 4]}
    whole = fit(problem(scratch=tmp_path / "a", **options), make_accelerator())
    with pytest.raises(stop.Stopped), stop.listening():
        fit(told_at(3, scratch=tmp_path / "b", **options), make_accelerator())
    again = fit(problem(scratch=tmp_path / "b", **options), make_accelerator())
    for step in (2, 4):
        for name, value in whole.snapshots[step].items():
            assert (value == again.snapshots[step][name]).all()


def scontrol(folder: Path, state: str, requeue: int = 0) -> Path:
    """A stand-in for SLURM's scontrol that writes down what it is asked."""
    program = folder / "scontrol"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/asked\n'
        f'[ "$1" = show ] && echo "JobId=7 JobName=a b JobState={state} Reason=None" && exit 0\n'
        f'echo "slurm_requeue error: no" >&2; exit {requeue}\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return folder / "asked"


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv(stop.OWN_JOB, "7")
    monkeypatch.setattr(stop, "PATIENCE", 0.0)
    return tmp_path


def test_a_running_job_goes_back_into_the_queue(job: Path, capsys: pytest.CaptureFixture) -> None:
    asked = scontrol(job, "RUNNING")
    handlers = [signal.getsignal(n) for n in stop.SIGNALS]
    assert stop.leave() == stop.STATUS
    for number, handler in zip(stop.SIGNALS, handlers, strict=True):
        signal.signal(number, handler)
    assert asked.read_text().splitlines() == ["show job --oneliner 7", "requeue 7"]
    assert "job 7 is requeued" in capsys.readouterr().err


@pytest.mark.parametrize("state", ["CANCELLED", "TIMEOUT", "COMPLETING"])
def test_a_job_that_somebody_gave_up_does_not(job: Path, state: str) -> None:
    asked = scontrol(job, state)
    assert stop.leave() == stop.STATUS
    assert asked.read_text().splitlines() == ["show job --oneliner 7"]


def test_a_cluster_that_refuses_is_told_of(job: Path, capsys: pytest.CaptureFixture) -> None:
    scontrol(job, "RUNNING", requeue=1)
    assert not stop.requeue()
    assert "job 7 is not requeued: slurm_requeue error: no" in capsys.readouterr().err


def test_one_process_of_several_asks(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = scontrol(job, "RUNNING")
    monkeypatch.setenv("RANK", "1")
    assert not stop.requeue() and not asked.exists()


def test_outside_a_job_there_is_nothing_to_ask(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = scontrol(job, "RUNNING")
    monkeypatch.delenv("SLURM_JOB_ID")
    assert not stop.requeue() and not asked.exists()


def test_a_verb_that_is_told_to_stop_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(declare, "call", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert cli.main(["schema", "--out", str(tmp_path / "a.json")]) == stop.STATUS
    assert "directcm schema: stopped by SIGTERM" in capsys.readouterr().err
