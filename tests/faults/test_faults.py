"""What a machine does to a run: full and read-only disks, another time zone, two runs at once, kills at random moments."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from directcm import cli
from directcm.runtime.artifacts import open_artifact, sha256
from tests.faults import drill
from tests.patience import PATIENCE, until
from tests.runs import ROOT, SMOKE, copy_repository, make_run

pytestmark = pytest.mark.faults


@pytest.fixture
def mount() -> Iterator[Callable[..., None]]:
    """Mounts that end with the test."""
    made: list[Path] = []

    def call(*arguments: str, at: Path) -> None:
        done = subprocess.run(["mount", *arguments, str(at)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"needs the right to mount: {done.stderr.strip()}")
        made.append(at)

    yield call
    for at in reversed(made):
        subprocess.run(["umount", str(at)], check=True)


def verb(*argv: str) -> SimpleNamespace:
    """A verb as the command line runs it: returncode, stdout, stderr. In this process, which has imported torch already."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        status = cli.main(argv)
    return SimpleNamespace(returncode=status, stdout=out.getvalue(), stderr=error.getvalue())


def noise_flags(tiny: Any, out: Path, samples: int = 64) -> list[str]:
    data, latents = str(tiny.data.folder), str(tiny.latents.folder)
    return ["noise", "--samples", str(samples), "--data", data, "--latents", latents, "--seed", "0", "--out", str(out)]


def train_flags(
    tiny: Any, tmp_path: Path, method: str = "cm", out: Path | None = None, steps: int = 4, **folders: Path
) -> list[str]:
    """The verb `train`; `teacher`, `latents` and `targets` may lie elsewhere."""
    run = tiny.student_run(method, steps=steps)
    names = ("method", "solver", "N", "w", "adapter", "loss", "lr", "pool", "steps")
    flags = ["train", *(flag for name in names for flag in (f"--{name}", run.spelled[name]))]
    flags += ["--batch-size", str(run.batch_size), "--training-seed", "0", "--snapshots", "--seed", "0"]
    flags += ["--settings", '{"checkpoint_every": 2}']
    flags += ["--teacher", str(folders.get("teacher", tiny.teacher.folder))]
    flags += ["--latents", str(folders.get("latents", tiny.latents.folder))]
    if method == "direct_cm":
        flags += ["--targets", str(folders.get("targets", tiny.targets[0].folder)), str(tiny.targets[1].folder)]
    return [*flags, "--scratch", str(tmp_path / "scratch"), "--out", str(out or tmp_path / "student")]


def line(done: SimpleNamespace) -> str:
    """The one line of a user's mistake."""
    lines = [text for text in done.stderr.splitlines() if "error:" in text]
    assert done.returncode == 2 and len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    return lines[0]


def test_a_full_disk(tiny: Any, tmp_path: Path, mount: Callable[..., None]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=256k", "tmpfs", at=disk)
    out = disk / "noise"
    assert "the disk is full; make room and run again" in line(verb(*noise_flags(tiny, out, samples=20_000)))
    assert not out.exists() and not list(disk.iterdir())
    # Once there is room the same command does it.
    assert verb(*noise_flags(tiny, out)).returncode == 0
    open_artifact(out, "noise").verify()


def test_a_disk_that_fills_while_a_student_is_saved(tiny: Any, tmp_path: Path, mount: Callable[..., None]) -> None:
    """The libraries' own writers."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=16k", "tmpfs", at=disk)
    done = verb(*train_flags(tiny, tmp_path, out=disk / "student"))
    assert "the disk is full" in line(done)
    assert not (disk / "student").exists() and not list(disk.iterdir())


def test_a_folder_that_may_not_be_written(tiny: Any, tmp_path: Path, mount: Callable[..., None]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "ro", "tmpfs", at=disk)
    said = line(verb(*noise_flags(tiny, disk / "noise")))
    assert str(disk) in said and "Read-only file system" in said


def test_a_data_set_that_may_not_be_written(digit_folder: Any, tmp_path: Path, mount: Callable[..., None]) -> None:
    digit_folder(tmp_path / "images", 12)
    kept = {p.name: sha256(p) for p in (tmp_path / "images").iterdir()}
    mount("--bind", str(tmp_path / "images"), at=tmp_path / "images")
    subprocess.run(["mount", "-o", "remount,bind,ro", str(tmp_path / "images")], check=True)
    settings = '{"kind": "folder", "path": "%s", "resolution": 16}' % (tmp_path / "images")
    done = verb("data", "--settings", settings, "--seed", "0", "--out", str(tmp_path / "data"))
    assert done.returncode == 0, done.stderr
    open_artifact(tmp_path / "data", "data").verify()
    assert kept == {p.name: sha256(p) for p in (tmp_path / "images").iterdir()}


def copied(artifact: Any, to: Path) -> Path:
    shutil.copytree(artifact.folder, to)
    return to


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_damaged_shard_of_targets(tiny: Any, tmp_path: Path, damage: str) -> None:
    folder = copied(tiny.targets[0], tmp_path / "targets")
    path = folder / "targets.safetensors"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "flipped":
        flip(path)
    else:
        path.unlink()
    said = line(verb(*train_flags(tiny, tmp_path, "direct_cm", targets=folder)))
    assert str(path) in said or str(folder) in said
    assert not (tmp_path / "student").exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_picture_of_the_data(tiny: Any, tmp_path: Path, damage: str) -> None:
    folder = copied(tiny.data, tmp_path / "data")
    path = sorted((folder / "images").iterdir())[3]
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-20])
    else:
        flip(path, 60)
    flags = ["--settings", "{}", "--precision", "no", "--teacher", str(tiny.teacher.folder), "--data", str(folder)]
    own = ["--seed", "0", "--scratch", str(tmp_path / "scratch"), "--out", str(tmp_path / "latents")]
    assert str(path) in line(verb("encode", *flags, *own))
    assert not (tmp_path / "latents").exists()


def test_nan_in_the_weights(tiny: Any, tmp_path: Path) -> None:
    """From a teacher whose manifest is right: the damage was done before it was sealed."""
    import torch

    from directcm.runtime.artifacts import new_artifact

    with new_artifact(tmp_path / "teacher", "teacher", settings=tiny.teacher.settings) as art:
        for path in sorted(tiny.teacher.folder.iterdir()):
            if path.name not in ("manifest.json", "checksums.csv", "provenance.json"):
                (shutil.copytree if path.is_dir() else shutil.copy)(path, art / path.name)
        art.counts = tiny.teacher.counts
        for path in Path(art / ".").rglob("unet/*.safetensors"):
            weights = load_file(path)
            next(iter(weights.values())).view(-1)[0] = torch.nan
            save_file(weights, path, metadata={"format": "pt"})
    with new_artifact(
        tmp_path / "latents",
        "latents",
        settings=tiny.latents.settings,
        inputs={"teacher": open_artifact(tmp_path / "teacher", "teacher")},
    ) as art:
        for path in tiny.latents.folder.iterdir():
            if path.name not in ("manifest.json", "checksums.csv", "provenance.json"):
                shutil.copy(path, art / path.name)
        art.counts = tiny.latents.counts
    said = line(verb(*train_flags(tiny, tmp_path, teacher=tmp_path / "teacher", latents=tmp_path / "latents")))
    assert "loss nan" in said and "at step 0" in said
    assert not (tmp_path / "student").exists()


def test_a_checkpoint_of_another_configuration(tiny: Any, tmp_path: Path) -> None:
    """Unfinished work of other settings is started anew, and said so; the result is that of a clean folder."""
    first = train_flags(tiny, tmp_path)
    assert verb(*first).returncode == 0
    assert list((tmp_path / "scratch").glob("checkpoint-*"))
    other = train_flags(tiny, tmp_path, out=tmp_path / "other")
    other[other.index("--lr") + 1] = "0.002"
    done = verb(*other)
    assert done.returncode == 0 and "was made with other settings; starting afresh" in done.stdout
    clean = [*other[:-3], str(tmp_path / "clean-scratch"), "--out", str(tmp_path / "clean")]
    assert verb(*clean).returncode == 0
    assert sha256(tmp_path / "other/manifest.json") == sha256(tmp_path / "clean/manifest.json")


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/St_Johns", "nowhere"])
def test_a_clock_in_another_zone(tiny: Any, tmp_path: Path, zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, where in (("a", "UTC"), ("b", zone)):
        monkeypatch.setenv("TZ", where)
        time.tzset()
        assert verb(*noise_flags(tiny, tmp_path / name)).returncode == 0
    monkeypatch.undo()
    time.tzset()
    assert sha256(tmp_path / "a/manifest.json") == sha256(tmp_path / "b/manifest.json")


@pytest.mark.slow
@pytest.mark.pipeline
def test_two_runs_at_once_in_one_folder(tmp_path: Path) -> None:
    """The second ends at once and says why; the first goes on to its end."""
    folder = copy_repository(tmp_path / "copy")
    run = make_run(folder)
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    target = "results/smoke/extractors/clip_tiny/manifest.json"
    first = subprocess.Popen(
        ["snakemake", "--cores", "1", *SMOKE, "--", target], cwd=folder, env=environment, stderr=subprocess.DEVNULL
    )
    until("the first has locked the folder", lambda: bool(list((folder / ".snakemake").glob("locks/*"))))
    # The first holds still until the second has looked.
    first.send_signal(signal.SIGSTOP)
    second = run("snakemake", "--cores", "1", *SMOKE, "--", target)
    first.send_signal(signal.SIGCONT)
    assert second.returncode != 0 and "cannot be locked" in second.stderr and "Traceback" not in second.stderr
    assert first.wait(PATIENCE) == 0
    open_artifact(folder / target, "extractor").verify()


@pytest.mark.slow
@pytest.mark.pipeline
def test_two_verbs_at_once_with_one_place(tiny: Any, tmp_path: Path) -> None:
    """As when SLURM requeues a job whose node it merely lost sight of: both may write, and the bytes are the same."""
    flags = noise_flags(tiny, tmp_path / "noise")
    both = [subprocess.Popen([sys.executable, "-m", "directcm.cli", *flags]) for _ in range(2)]
    assert [p.wait(PATIENCE) for p in both] == [0, 0]
    assert verb(*noise_flags(tiny, tmp_path / "alone")).returncode == 0
    open_artifact(tmp_path / "noise", "noise").verify()
    assert sha256(tmp_path / "noise/manifest.json") == sha256(tmp_path / "alone/manifest.json")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["targets", "train"])
def test_a_part_of_the_drill(tiny: Any, tmp_path: Path, name: str) -> None:
    """On artefacts of this size most of a verb is its start; `make drill` does it for every verb of the smoke preset, and more often."""
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    flags = train_flags(tiny, tmp_path, out=out, steps=40)
    if name == "targets":
        settings = tiny.targets_settings.model_copy(update={"shard": 32})
        flags = [
            "targets",
            "--settings",
            settings.model_dump_json(),
            "--precision",
            "no",
            "--shard",
            "0",
            "--seed",
            "0",
        ]
        flags += ["--solver", "ddim", "--N", "50", "--w", "3", "--teacher", str(tiny.teacher.folder)]
        flags += ["--latents", str(tiny.latents.folder), "--scratch", str(scratch), "--out", str(out)]
    outcome = drill.drill(ROOT, name, shlex.join(["directcm", *flags]), 2, random.Random(1))
    assert outcome.bytes_lost == 0 and outcome.leftovers == [] and len(outcome.moments) == 2
    print(drill.table([outcome]))
