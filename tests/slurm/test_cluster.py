"""The workflow on a real SLURM: the profile as typed, the bytes of a local run, and what a cluster does to its jobs."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from directcm.runtime.artifacts import PROVENANCE, open_artifact, read_json, sha256
from tests.patience import PATIENCE, until
from tests.runs import SMOKE, copy_repository, make_run
from tests.slurm.cluster import Cluster, processes
from tests.slurm.conftest import SNAKEMAKE, profile

pytestmark = [pytest.mark.pipeline, pytest.mark.slow, pytest.mark.slurm, pytest.mark.xdist_group("slurm")]
SUBMITTED = re.compile(r"Job (\S+) has been submitted with SLURM jobid (\d+) \(log: (.+?)\)")


def manifests(results: Path) -> dict[str, str]:
    """Every artefact's name and the digest of its manifest, which is equal for equal bytes."""
    return {
        path.parent.relative_to(results).as_posix(): sha256(path)
        for path in sorted(results.rglob("manifest.json"))
        if "scratch" not in path.relative_to(results).parts
    }


ODE = "solver~ddim,N~10,w~3"
STUDENT = f"method~cm,{ODE},adapter~lora4,loss~mse,lr~0.0001,batch_size~16,pool~64,steps~6,seed~0"


def copied(smoke: Path, to: Path, *names: str) -> Path:
    """A copy of the repository in which these of the smoke run's results are there."""
    folder = copy_repository(to)
    for name in names:
        shutil.copytree(smoke / "results/smoke" / name, folder / "results/smoke" / name)
    return folder


def submitted(slurm: Cluster, before: int) -> list[tuple[str, str, str]]:
    """(rule or group, partition, what it asked for) of each job since the first `before`; all of them have ended well."""
    seen = []
    for found in slurm.jobs()[before:]:
        rule, number = found["Comment"].partition("_wildcards")[0], found["JobId"]
        if "ArrayTaskId" in found:
            number += f" (task {found['ArrayTaskId']} of array {found['ArrayJobId']})"
        tres = found.get("TresPerJob", found.get("TresPerNode", ""))
        seen.append((rule, found["Partition"], tres))
        print(
            f"job {number}: {rule}, partition {seen[-1][1]}, {found['NodeList']}, {tres or 'no GPU'}, {found['JobState']}"
        )
        assert found["JobState"] == "COMPLETED"
    return seen


def same(folder: Path, smoke: Path) -> set[str]:
    """The kinds of artefacts in a folder; each has the bytes of the local run's."""
    here, there = manifests(folder / "results/smoke"), manifests(smoke / "results/smoke")
    assert here == {name: there[name] for name in here}
    return {name.split("/")[0] for name in here}


def test_the_profile_gives_the_bytes_of_a_local_run(slurm: Cluster, smoke: Path, tmp_path: Path) -> None:
    """One student from the start, and a figure: most of a job here is its start, for each starts by itself.

    That the whole run plans as typed is in tests/pipeline/test_configurations.py.
    """
    folder, before = copied(smoke, tmp_path / "copy"), len(slurm.jobs())
    goals = [f"results/smoke/students/{STUDENT}/manifest.json", "results/smoke/figures/supervision.png"]
    start = (*SNAKEMAKE, *profile(folder), "--slurm-array-jobs", "targets")
    done = make_run(folder)(*start, *SMOKE, "--", *goals)
    assert done.returncode == 0, done.stderr[-5000:] + done.stdout[-2000:]
    assert same(folder, smoke) == {"data", "teacher", "latents", "targets", "students", "trajectories"}
    assert (folder / goals[-1]).read_bytes() == (smoke / goals[-1]).read_bytes()
    # Which job ran where, with what: for the log, and for what the rules ask of SLURM.
    seen = submitted(slurm, before)
    assert sum("ArrayTaskId" in found for found in slurm.jobs()[before:]) == 2
    gpu = {rule for rule, _, tres in seen if "gpu" in tres}
    assert gpu == {"rule_teacher", "rule_encode", "rule_targets", "rule_train", "rule_trajectories"}
    assert {partition for _, partition, tres in seen if "gpu" in tres} == {"gpu"}
    assert {partition for rule, partition, _ in seen if rule == "rule_data"} == {"cpu"}
    # Figures and tables are no jobs at all.
    assert {rule for rule, *_ in seen} == gpu | {"rule_data"}


EVERY = 10


class Training:
    """One student of the smoke preset, trained long enough to be disturbed, in a copy where all before it is there."""

    def __init__(self, smoke: Path, to: Path, steps: int = 100) -> None:
        self.folder = copied(smoke, to, "data", "teacher", "latents", "targets")
        overlay = (self.folder / "workflow/presets/smoke.yaml").read_text()
        overlay = overlay.replace("steps: 6, checkpoint_every: 3", f"steps: {steps}, checkpoint_every: {EVERY}")
        assert f"steps: {steps}" in overlay
        (self.folder / "workflow/presets/smoke.yaml").write_text(overlay)
        results = self.folder / "results/smoke"
        run = STUDENT.replace("steps~6", f"steps~{steps}")
        self.target = f"results/smoke/students/{run}/manifest.json"
        self.scratch = results / "scratch/students" / run
        self.log = results / "logs/train" / f"{run}.log"

    def command(self, *flags: str, start: Sequence[str] = ("snakemake",)) -> list[str]:
        return [*start, *flags, *SMOKE, "--rerun-triggers", "mtime", "--", self.target]

    def checkpoints(self) -> list[int]:
        return sorted(int(path.name.split("-")[1]) for path in self.scratch.glob("checkpoint-*"))


@pytest.fixture(scope="module")
def undisturbed(smoke: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """The student as it comes out when nobody disturbs it, on this machine."""
    training = Training(smoke, tmp_path_factory.mktemp("undisturbed") / "copy")
    done = make_run(training.folder)(*training.command("--cores", "1"))
    assert done.returncode == 0, done.stderr[-4000:]
    return training


class Submitted:
    """A training under way on the test cluster: Snakemake, and the SLURM job that it waits for."""

    def __init__(self, slurm: Cluster, training: Training | Small, *flags: str) -> None:
        self.slurm, self.training, self.log = slurm, training, training.folder.parent / "log"
        environment = {**os.environ, "PYTHONPATH": str(training.folder / "src")}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        with open(self.log, "w") as log:
            command = training.command(*profile(training.folder), *flags, start=SNAKEMAKE)
            # A shell that runs tests in the background has its children ignore Ctrl-C.
            heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
            self.process = subprocess.Popen(
                command, cwd=training.folder, env=environment, stdout=log, stderr=log, preexec_fn=heed
            )
        until("the job is submitted", lambda: SUBMITTED.search(self.log.read_text()) is not None)
        self.number = SUBMITTED.findall(self.log.read_text())[0][1]

    @property
    def job(self) -> dict[str, str]:
        return self.slurm.job(self.number)

    def requeued(self, times: int) -> None:
        """Wait for it, and let the job start at once: SLURM holds a requeued one back for two minutes."""
        until("the job is requeued", lambda: self.job.get("Restarts") == str(times))
        until("the job is in the queue", lambda: self.job["JobState"] == "PENDING")
        self.slurm.run("scontrol", "update", f"JobId={self.number}", "StartTime=now")

    def goes_on(self, after: int) -> None:
        until("it runs", lambda: self.job["JobState"] == "RUNNING")
        self.find()
        # Looked at often, for what comes next is to meet it in the middle of its work.
        until("it goes on", lambda: max(self.training.checkpoints()) > after, pause=0.01)

    def first_checkpoint(self) -> None:
        self.find()
        until("a first checkpoint", lambda: bool(self.training.checkpoints()), pause=0.01)

    def find(self) -> None:
        """Wait for the training's process, and remember it: to look for it takes too long in the middle of its work."""

        def there() -> bool:
            self.training_processes = processes(self.number, "train", "--scratch")
            return bool(self.training_processes)

        until("the training starts", there)

    def hold(self) -> int:
        """Let the training stand still, so that it does not end before something has happened to it; its process."""
        (process,) = self.training_processes
        os.kill(process, signal.SIGSTOP)
        return process

    def told_to_stop(self) -> int:
        """Send SLURM's warning before preemption or a time limit once there is a checkpoint; the step it stopped after."""
        self.first_checkpoint()
        self.slurm.run("scancel", "--signal=TERM", self.number)
        self.requeued(1)
        return self.stopped_at()

    def near_its_limit(self) -> int:
        """Once there is a checkpoint, let SLURM find that the job's time is nearly over; the step it stopped after."""
        self.first_checkpoint()
        # It stands still until the warning, which lets it go on. The profile asks for one two minutes before the limit; SLURM looks
        # every half minute.
        self.hold()
        hours, minutes, _ = (int(n) for n in self.job["RunTime"].split("-")[-1].split(":"))
        self.slurm.run("scontrol", "update", f"JobId={self.number}", f"TimeLimit={60 * hours + minutes + 2}")
        until("the job is requeued", lambda: self.job.get("Restarts") == "1")
        self.slurm.run("scontrol", "update", f"JobId={self.number}", "TimeLimit=600")
        self.requeued(1)
        return self.stopped_at()

    def stopped_at(self) -> int:
        """The step of the checkpoint that the training wrote when it was told to stop."""
        stopped = self.training.log.read_text()
        found = re.search(r"stopped by SIGTERM, with a checkpoint of step (\d+)", stopped)
        # That it asked to be requeued the job's restarts tell: SLURM may end it before it can say so.
        assert found, stopped
        at = int(found[1])
        assert at >= EVERY and at in self.training.checkpoints()
        return at

    def wait(self) -> None:
        assert self.process.wait(PATIENCE) == 0, self.log.read_text()[-4000:]


class Small:
    """A student's small jobs, all before them finished, in a copy; the data's features, which only `evaluate` reads, are damaged."""

    def __init__(self, smoke: Path, to: Path) -> None:
        read = [
            "data",
            "teacher",
            "latents",
            "targets",
            "noise",
            f"reference/{ODE}",
            "extractors",
            f"students/{STUDENT}",
        ]
        read += [f"features/clip_tiny/{of}" for of in ("data", f"teacher/{ODE}")]
        self.folder = copied(smoke, to, *read)
        self.results = self.folder / "results/smoke"
        self.damaged = self.results / "features/clip_tiny/data/features.safetensors"
        self.whole = self.damaged.read_bytes()
        self.damaged.write_bytes(self.whole[:-1])
        self.made = [f"samples/{STUDENT}", f"features/clip_tiny/students/{STUDENT}", f"metrics/students/{STUDENT}"]
        self.evaluate_log = self.results / f"logs/evaluate/students/{STUDENT}.log"

    def features_log(self) -> list[Path]:
        return list(self.results.glob(f"logs/features/**/{STUDENT}.log"))

    def command(self, *flags: str, start: Sequence[str] = ("snakemake",)) -> list[str]:
        goal = f"results/smoke/{self.made[-1]}/manifest.json"
        return [*start, *flags, *SMOKE, "--rerun-triggers", "mtime", "--", goal]

    def provenance(self, name: str) -> dict[str, Any]:
        return read_json(self.results / name / PROVENANCE)


def test_a_students_small_jobs_are_one_that_goes_on_where_it_was_stopped_or_failed(
    slurm: Cluster, smoke: Path, tmp_path: Path
) -> None:
    small = Small(smoke, tmp_path / "copy")
    running = Submitted(slurm, small)
    # Told to stop while the second of the three works: back into the queue.
    until("features are extracted", lambda: bool(small.features_log()), pause=0.01)
    (process,) = processes(running.number, "features", "--collection")
    os.kill(process, signal.SIGSTOP)
    samples, timed = small.provenance(small.made[0]), small.results / f"benchmarks/sample/{STUDENT}.tsv"
    took = timed.read_text()
    slurm.run("scancel", "--signal=TERM", running.number)
    os.kill(process, signal.SIGCONT)
    running.requeued(1)
    (log,) = small.features_log()
    assert "features: stopped by SIGTERM" in log.read_text()
    # The third fails, and Snakemake's next try finds its input mended.
    until("evaluation fails", lambda: small.evaluate_log.is_file() and "checksum" in small.evaluate_log.read_text())
    small.damaged.write_bytes(small.whole)
    running.wait()

    assert {"samples", "features", "metrics"} <= same(small.folder, smoke)
    numbers = dict.fromkeys(number for _, number, _ in SUBMITTED.findall(running.log.read_text()))
    first, second = map(slurm.job, numbers)
    assert (first["JobState"], first["Restarts"], second["JobState"]) == ("FAILED", "1", "COMPLETED")
    # Nothing was made twice.
    assert small.provenance(small.made[0]) == samples and timed.read_text() == took
    assert [small.provenance(name)["slurm_job"] for name in small.made] == [
        first["JobId"],
        first["JobId"],
        second["JobId"],
    ]
    # One GPU for all, the most memory that one of them needs, the sum of their minutes, of a second try twice as much.
    for job, attempt in ((first, 1), (second, 2)):
        asked = f"{job.get('TresPerJob', '')} {job.get('TresPerNode', '')}"
        assert job["Partition"] == "gpu" and re.findall(r"gpu\S*[:=](\d+)", asked) == ["1"], asked
        assert job["MinMemoryNode"] == f"{4011 * attempt}M"
        assert job["TimeLimit"] == {1: "01:10:00", 2: "02:20:00"}[attempt]
    print(f"jobs {first['JobId']}, requeued, and {second['JobId']}: samples and features made once, the same bytes")


def test_a_job_near_its_time_limit_requeued_and_whose_node_dies_gives_the_same_bytes(
    slurm: Cluster, smoke: Path, undisturbed: Training, tmp_path: Path
) -> None:
    training = Training(smoke, tmp_path / "copy")
    running = Submitted(slurm, training)
    # A checkpoint of the very step, back into the queue, and on.
    at = running.near_its_limit()
    running.goes_on(at)

    # An administrator's requeue gives no warning.
    running.hold()
    before = max(training.checkpoints())
    slurm.run("scontrol", "requeue", running.number)
    running.requeued(2)
    running.goes_on(before)

    # The node dies with all that runs on it.
    running.hold()
    node = running.job["NodeList"]
    slurm.kill_node(node)
    until("SLURM notices", lambda: running.job.get("Restarts") == "3")
    slurm.start_node(node)
    running.requeued(3)
    running.wait()
    ours, theirs = (open_artifact(t.folder / t.target, "student") for t in (training, undisturbed))
    assert ours.checksums == theirs.checksums
    print(
        f"job {running.number} on {node}: at its time limit stopped at step {at}, requeued, its node killed: the same bytes"
    )


def test_a_student_trained_on_two_nodes(slurm: Cluster, smoke: Path, undisturbed: Training, tmp_path: Path) -> None:
    """The entry of the profile that docs/slurm.md names, on the command line: a process on each node, half the batch each."""
    training = Training(smoke, tmp_path / "copy")
    entry = {"gpu": 2, "processes": 2, "nodes": 2, "mpi": "srun", "tasks": 2, "tasks_per_gpu": 0}
    page = (training.folder / "docs/slurm.md").read_text()
    assert all(f"{key}: {value}" in page for key, value in entry.items() if key not in ("gpu", "processes"))
    running = Submitted(slurm, training, "--set-resources", *(f"train:{key}={value}" for key, value in entry.items()))
    at = running.told_to_stop()
    running.goes_on(at)
    found = running.job
    assert found["NumNodes"] == "2" and found["NodeList"] == "node[1-2]"
    running.wait()
    ours, theirs = (open_artifact(t.folder / t.target, "student") for t in (training, undisturbed))
    assert ours.counts == theirs.counts
    apart = [
        abs(float(a["loss"]) / float(b["loss"]) - 1)
        for a, b in zip(ours.csv("curve.csv"), theirs.csv("curve.csv"), strict=True)
    ]
    assert max(apart) < 1e-3
    print(
        f"job {running.number} on {found['NodeList']}: told to stop at step {at}, the losses of one process within {max(apart):.1e}"
    )


def test_a_cancelled_job_is_not_requeued(slurm: Cluster, smoke: Path, tmp_path: Path) -> None:
    """Although it is told to stop in the same way: by Ctrl-C in Snakemake's terminal."""
    training = Training(smoke, tmp_path / "copy")
    running = Submitted(slurm, training)
    running.first_checkpoint()
    process = running.hold()
    running.process.send_signal(signal.SIGINT)
    # SLURM lets what it ends go on.
    running.process.wait(PATIENCE)
    until("the job ends", lambda: running.job["JobState"] in ("CANCELLED", "FAILED", "PENDING", "COMPLETED"))
    # COMPLETING goes before: then nothing of the job is left that might ask for more.
    assert not Path(f"/proc/{process}").exists()
    assert running.job["JobState"] == "CANCELLED" and running.job["Restarts"] == "0"
    assert training.checkpoints() and not (training.folder / training.target).exists()
    print(f"job {running.number}: cancelled it stays so")
