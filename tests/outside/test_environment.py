"""The caller's environment: what would act on numbers does not, what is another's job is left alone, what only saves time ends no run."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from directcm.runtime import stop, warm
from directcm.runtime.artifacts import open_artifact, read_json
from tests.patience import PATIENCE
from tests.runs import HOSTILE

# Some are quick, all together they are not: `make quick` is for what tells most in a minute.
pytestmark = pytest.mark.slow

SRC = str(Path(stop.__file__).parents[2])


def environment(**variables: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if k not in HOSTILE and not k.startswith(("ACCELERATE_", "DIRECTCM_"))}
    return {**clean, "PYTHONPATH": SRC, **variables}


def train(tiny: Any, out: Path, **variables: str) -> Any:
    """A CM of four steps by the verb, in a process of its own."""
    run = tiny.student_run("cm")
    flags = [
        str(part)
        for k, v in run.axes().items()
        if k not in ("method", "seed")
        for part in (f"--{k.replace('_', '-')}", v)
    ]
    command = [sys.executable, "-m", "directcm.cli", "train", "--method", "cm", *flags, "--training-seed", "0"]
    command += ["--settings", json.dumps({"checkpoint_every": 2}), "--teacher", str(tiny.teacher.folder)]
    command += ["--latents", str(tiny.latents.folder), "--seed", str(tiny.seed), "--scratch", f"{out}-scratch"]
    done = subprocess.run(
        [*command, "--out", str(out)], env=environment(**variables), capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return open_artifact(out, "student")


@pytest.mark.slow
def test_a_shell_full_of_variables_trains_the_same_student(tiny: Any, tmp_path: Path) -> None:
    clean, hostile = (
        train(tiny, tmp_path / "clean"),
        train(tiny, tmp_path / "hostile", PYTHONWARNINGS="error", **HOSTILE),
    )
    assert clean.fingerprint == hostile.fingerprint
    said = read_json(hostile.folder / "provenance.json")["environment"]
    assert {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "RANK", "ATEN_CPU_CAPABILITY"} <= set(said["taken_out"])
    assert said["set_by_the_user"]["SLURM_JOB_ID"] == "77"


def test_a_job_that_nobody_submitted_for_a_verb_is_not_requeued(tmp_path: Path) -> None:
    """A signal to a verb that was started in a notebook on a node: its session's job goes on."""
    asked = tmp_path / "asked"
    for name in ("scontrol", "sbatch"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> {asked}\necho "JobId=77 JobState=RUNNING"\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    script = textwrap.dedent(
        f"""
        import os, signal, sys
        from directcm import cli
        from directcm.cli import declare
        from directcm.runtime import stop
        stop.PATIENCE = 0
        def told(*_):
            os.kill(os.getpid(), {int(signal.SIGTERM)})
            raise SystemExit("not stopped")
        declare.call = told
        sys.exit(cli.main(["show", "x.csv"]))
        """
    )
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "77"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(**variables), capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == stop.STATUS, done.stderr
    assert not asked.exists(), asked.read_text()


def test_a_helper_that_is_killed_costs_no_finished_work(tmp_path: Path) -> None:
    """By the kernel, short of memory: the verb goes on in its fork, and its own status is what counts."""
    script = tmp_path / "killed.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, signal, socket, subprocess, sys, threading, time
            from directcm import cli
            from directcm.runtime import warm
            where = sys.argv[1]
            def work(argv):
                os.kill(os.getppid(), signal.SIGKILL)
                time.sleep(1)
                print("finished", flush=True)
                return 7
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(where)
            listener.listen()
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(writing)
                cli.main = work
                warm.serve(listener, reading, b"key", warm.fixed(os.environ))
                os._exit(0)
            os.environ[warm.HELPER] = f"{b'key'.hex()}:{where}"
            print(warm.ask(["convergence"]), flush=True)
            """
        )
    )
    variables = environment(**dict.fromkeys(warm.THREADS, "1"))
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "s")],
        env=variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stdout.split() == ["finished", "7"], done.stderr


def test_the_commit_is_that_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from directcm.runtime.artifacts import provenance

    subprocess.run(["git", "init", "--quiet", str(tmp_path / "dotfiles")], check=True)
    before = provenance()["commit"]
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "dotfiles/.git"))
    assert provenance()["commit"] == before


@pytest.mark.parametrize("how", ["a long TMPDIR", "no sockets", "no processes", "no interpreter", "no import"])
def test_whatever_is_wrong_with_the_import_helper_jobs_run(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv(warm.HELPER, raising=False)
    monkeypatch.setattr(warm, "has_gpu", lambda: False)
    # In the helper's own process, before anything else runs there.
    faults = {
        "no sockets": "import socket\ndef refuse(*_, **__): raise PermissionError(1, 'Operation not permitted')\nsocket.socket = refuse",
        "no import": "import sys\nsys.modules['torch'] = None\nclass Broken:\n def find_spec(self, name, *_):\n"
        "  if name == 'scipy': raise RuntimeError('broken')\nsys.meta_path.insert(0, Broken())",
    }
    (tmp_path / "sitecustomize.py").write_text(faults.get(how, ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), SRC]))
    long = tmp_path / ("x" * 120)
    long.mkdir()
    if how == "a long TMPDIR":
        monkeypatch.setenv("TMPDIR", str(long))
    elif how == "no processes":

        def refuse(*_: Any, **__: Any) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(warm, "Popen", refuse)
    elif how == "no interpreter":
        monkeypatch.setattr(sys, "executable", "/bin/false")
    # What it finds only while it imports it says when it has started; whoever asks it then starts by himself.
    assert warm.accompany(["train", "train"], modules="torch scipy json") == (how == "no import")
    if how == "no import":
        assert warm._started.pop().wait(PATIENCE) == 0
        assert warm.ask(["targets"]) is None
    assert warm.HELPER not in os.environ
    said = capfd.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "without the import helper" in said[0], said
    assert not list(long.iterdir())
