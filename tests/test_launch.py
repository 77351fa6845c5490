"""The launch line from an allocation, and two processes that train what one trains."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from directcm import cli
from directcm.errors import UserError
from directcm.runtime import launch
from directcm.runtime.artifacts import open_artifact
from tests.patience import PATIENCE

JOB = {"SLURM_JOB_ID": "31234", "SLURM_NODEID": "1", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7"}
TRAIN = ["train", "--steps", "3"]


def flags(command: list[str]) -> dict[str, str]:
    return {a: b for a, b in itertools.pairwise(command) if a.startswith("--")}


def test_the_line_of_one_node() -> None:
    command = launch.accelerate(4, 1, TRAIN, {})
    assert command[:4] == [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    assert command[-5:] == ["-m", "directcm.cli", *TRAIN]
    found = flags(command)
    # Port 0: any that is free.
    assert (found["--num_processes"], found["--num_machines"], found["--main_process_port"]) == ("4", "1", "0")
    assert "--main_process_ip" not in found


def test_the_line_of_the_second_of_two_nodes() -> None:
    found = flags(launch.accelerate(8, 2, TRAIN, JOB))
    assert (found["--num_processes"], found["--num_machines"], found["--machine_rank"]) == ("8", "2", "1")
    assert found["--main_process_ip"] == "10.0.0.7" and found["--main_process_port"] == str(10000 + 31234 % 20000)


def test_srun_starts_it_once_on_each_node() -> None:
    command = launch.srun(8, 2, TRAIN)
    assert command[0] == "srun" and {"--nodes=2", "--ntasks=2", "--ntasks-per-node=1"} <= set(command)
    at = command.index("launch")
    assert command[at:] == ["launch", "--processes", "8", "--nodes", "2", "--", *TRAIN]


@pytest.mark.parametrize(("processes", "nodes"), [(3, 2), (1, 2), (0, 1)])
def test_processes_spread_evenly(processes: int, nodes: int, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        launch.launch(processes, nodes, TRAIN)
    assert f"{processes} processes do not spread evenly over {nodes} nodes" in one_line(error)


def test_several_nodes_need_a_job(monkeypatch: pytest.MonkeyPatch, one_line: Any) -> None:
    for name in JOB:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError) as error:
        launch.launch(4, 2, TRAIN)
    assert "--nodes 2 needs a SLURM job" in one_line(error)
    with pytest.raises(UserError) as error:
        launch.accelerate(4, 2, TRAIN, {"SLURM_JOB_ID": "1"})
    assert "SLURM_NODEID is not set" in one_line(error)


@pytest.mark.slow
def test_two_processes_train_what_one_trains(tiny: Any, tmp_path: Path) -> None:
    """Through the command line: gloo on this machine's CPU, each process with half the batch."""
    run = tiny.student_run("cm")
    names = ("method", "solver", "N", "w", "adapter", "loss", "lr", "pool", "steps")
    flags = [flag for name in names for flag in (f"--{name}", run.spelled[name])]
    flags += ["--batch-size", str(run.batch_size), "--training-seed", "0", "--snapshots", "2", "--settings", "{}"]
    flags += ["--teacher", str(tiny.teacher.folder), "--latents", str(tiny.latents.folder), "--seed", "0"]

    def own(name: str) -> list[str]:
        folders = ["--scratch", str(tmp_path / f"scratch-{name}"), "--out", str(tmp_path / name)]
        return ["train", *flags, *folders, "--log", str(tmp_path / f"{name}.log")]

    # The one is this process, which has imported torch already.
    assert cli.main(own("one")) == 0
    done = subprocess.run(
        [sys.executable, "-m", "directcm.cli", "launch", "--processes", "2", "--", *own("two")],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    one, two = (open_artifact(tmp_path / name, "student") for name in ("one", "two"))
    for a, b in zip(one.csv("curve.csv"), two.csv("curve.csv"), strict=True):
        for column in ("loss", "grad_norm"):
            assert float(a[column]) == pytest.approx(float(b[column]), rel=1e-4)
    # The weights themselves: Adam makes a step of any gradient, also of one that is nothing but rounding.
    assert [n for n in one.checksums if n != "curve.csv"] == [n for n in two.checksums if n != "curve.csv"]
    assert one.counts == two.counts
