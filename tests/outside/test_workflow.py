"""Through Snakemake: what lies outside is part of the DAG, limits are known before the first job, YAML is read as written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.runs import SMOKE, copy_repository, make_run, planned

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]

OWN = "data: {kind: folder, path: PATH, resolution: 16}\nmetrics: [ode_error, fd_tiny]\n"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which nothing but plans and data is made."""
    return copy_repository(tmp_path_factory.mktemp("bare"))


def overlay(folder: Path, text: str, name: str = "own.yaml") -> list[str]:
    (folder / name).write_text(text)
    return [*SMOKE, name]


def said(done: Any) -> str:
    """The one line of a user's mistake: exit code 2, no traceback, nothing made."""
    assert done.returncode == 2, done.stderr[-3000:]
    assert "Traceback" not in done.stderr and "WildcardError" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if "error:" in line]
    assert len(lines) == 1, done.stderr[-3000:]
    return lines[0]


def test_a_folder_with_braces_and_quotes_in_its_name(bare: Path, digit_folder: Any) -> None:
    digit_folder(bare / "my {digits} it's", 40)
    name = json.dumps("my {digits} it's")
    config = overlay(bare, OWN.replace("PATH", name) + "preset: braces\n")
    done = make_run(bare)("snakemake", "results/braces/data/manifest.json", "--cores", "1", "--configfile", *config[1:])
    assert done.returncode == 0, done.stderr[-3000:]
    whole = make_run(bare)("snakemake", "-n", "--configfile", *config[1:])
    assert whole.returncode == 0 and planned(whole.stdout + whole.stderr)["teacher"] == 1


def test_what_changes_outside_is_made_again_and_traced(bare: Path, digit_folder: Any) -> None:
    """An edited caption, another picture, one image more, one less; a time alone changes nothing."""
    run, folder = make_run(bare), digit_folder(bare / "watched", 40)
    files = ["--configfile", *overlay(bare, OWN.replace("PATH", "watched") + "preset: watched\n", "watched.yaml")[1:]]
    target = "results/watched/data/manifest.json"

    def pending() -> dict[str, int]:
        done = run("snakemake", target, "-n", *files)
        assert done.returncode == 0, done.stderr[-2000:]
        return planned(done.stdout + done.stderr)

    def make() -> None:
        done = run("snakemake", target, "--cores", "1", *files)
        assert done.returncode == 0, done.stderr[-3000:]

    def traced() -> str:
        return run("directcm", "trace", "results/watched/data", "--results", "results/watched").stdout

    make()
    os.utime(folder / "03.png", (1, 1))
    assert pending() == {} and "unchanged" in traced()
    table = folder / "metadata.csv"
    before = table.read_text()
    for change, words in (
        (lambda: table.write_text(before.replace("digit zero", "digit nought", 1)), "metadata.csv has changed"),
        (lambda: shutil.copy(folder / "04.png", folder / "05.png"), "05.png has changed"),
        (
            lambda: (
                shutil.copy(folder / "07.png", folder / "more.png"),
                table.write_text(table.read_text() + "more.png,one more\n"),
            ),
            "more.png is new",
        ),
    ):
        change()
        found = traced()
        assert "CHANGED" in found and words in found, found
    assert pending() == {"data": 1}
    make()
    assert "unchanged" in traced() and pending() == {}
    (folder / "06.png").unlink()
    assert pending() == {"data": 1} and "06.png is gone" in traced()
    # From wherever it is asked.
    elsewhere = make_run(bare)(
        "sh", "-c", f"cd / && directcm trace {bare}/results/watched/data --results {bare}/results/watched"
    )
    assert "06.png is gone" in elsewhere.stdout
    # Results that were brought from another machine, without the pictures: nothing is known to have changed.
    folder.rename(bare / "moved")
    assert pending() == {} and "unchanged" in traced()
    (bare / "moved").rename(folder)


def test_a_pinned_teachers_files_are_watched(bare: Path, tiny: Any, digit_folder: Any) -> None:
    run = make_run(bare)
    shutil.copytree(
        tiny.teacher.folder, bare / "pinned", ignore=shutil.ignore_patterns("*.csv", "manifest.json", "p*.json")
    )
    digit_folder(bare / "digits", 40)
    text = OWN.replace("PATH", "digits") + "preset: pinned\nteacher: {kind: diffusers, diffusers: {path: pinned}}\n"
    files = ["--configfile", *overlay(bare, text, "pinned.yaml")[1:]]
    target = "results/pinned/teacher/manifest.json"
    done = run("snakemake", target, "--cores", "1", *files)
    assert done.returncode == 0, done.stderr[-3000:]
    assert planned(run("snakemake", target, "-n", *files).stdout) == {}
    config = bare / "pinned/vae/config.json"
    config.write_text(config.read_text() + "\n")
    done = run("snakemake", target, "-n", *files)
    assert planned(done.stdout + done.stderr) == {"teacher": 1}
    found = run("directcm", "trace", "results/pinned/teacher", "--results", "results/pinned").stdout
    assert "CHANGED" in found and "vae/config.json has changed" in found


def test_limits_are_known_before_the_first_job(bare: Path, digit_folder: Any) -> None:
    run = make_run(bare)
    digit_folder(bare / "six", 6)
    text = OWN.replace("PATH", "six").replace("fd_tiny", "fd_tiny, precision_tiny") + "preset: six\n"
    text += "evaluation: {samples: 96}\n"
    done = run("snakemake", "--cores", "1", "--configfile", *overlay(bare, text, "six.yaml")[1:])
    line = said(done)
    assert "six/metadata.csv" in line and "6 images" in line and "precision_tiny" in line and "at least 6" in line
    assert not (bare / "results/six").exists()
    for text, words in (
        ("students: [{pool: [100000000]}]\n", ["pool = 100,000,000", "targets.shard"]),
        ("students: [{seed: SEEDS, lr: LRS}]\n", ["students", "shorten the lists"]),
        (
            "evaluation: {samples: 4, batch_size: 4}\nmetrics: [density_tiny]\n",
            ["evaluation.samples = 4", "density_tiny"],
        ),
    ):
        text = text.replace("SEEDS", str(list(range(400)))).replace("LRS", str([i / 1000 for i in range(1, 400)]))
        line = said(run("snakemake", "-n", "--configfile", *overlay(bare, text, "large.yaml")[1:]))
        assert all(word in line for word in words), line


def test_an_archive_is_counted_before_the_teacher_and_watched(bare: Path, digit_folder: Any) -> None:
    """What it holds is known when it is read, which is before any training."""
    import hashlib
    import tarfile

    run, archive = make_run(bare), bare / "few.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(digit_folder(bare / "few", 6), "few")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    text = f"preset: few\ndata: {{kind: archive, path: few.tar, sha256: {digest}, resolution: 16}}\n"
    files = ["--configfile", *overlay(bare, text + "metrics: [ode_error, precision_tiny]\n", "few.yaml")[1:]]
    done = run("snakemake", "--cores", "1", *files)
    assert done.returncode == 1 and "5 of 6 images are trained on, the metrics need at least 6" in done.stderr
    assert "teacher" not in [path.name for path in (bare / "results/few").iterdir()]
    files = ["--configfile", *overlay(bare, text + "metrics: [ode_error]\n", "few.yaml")[1:]]
    target = "results/few/data/manifest.json"
    assert run("snakemake", target, "--cores", "1", *files).returncode == 0
    assert planned(run("snakemake", target, "-n", *files).stdout) == {}
    archive.write_bytes(archive.read_bytes() + bytes(512))
    again = run("snakemake", target, "-n", *files)
    assert planned(again.stdout + again.stderr) == {"data": 1}
    assert "CHANGED" in run("directcm", "trace", "results/few/data", "--results", "results/few").stdout


def test_one_metric_alone_plans_nothing_that_has_nothing_to_do(bare: Path) -> None:
    done = make_run(bare)("snakemake", "-n", "--configfile", *overlay(bare, "metrics: [ode_error]\n", "one.yaml"))
    done = make_run(bare)("snakemake", "-n", *SMOKE, "one.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    jobs = planned(done.stdout + done.stderr)
    assert jobs["evaluate"] and jobs["reference"]
    assert not {"evaluate_floor", "extractor", "features", "features_data", "features_teacher"} & set(jobs)
    # The floor is what baselines of the ODE error are fitted on; without that metric there is none to fit.
    assert (jobs["baselines"], jobs["noise"]) == (1, 2)
    done = make_run(bare)("snakemake", "-n", *overlay(bare, "metrics: [clip_tiny]\n", "other.yaml"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "baselines" not in planned(done.stdout + done.stderr)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {steps: 5}\ntrain: {lr: 1}\n", ["own.yaml, line 2", "train is there twice", "line 1"]),
        ("train:\n  steps: 5\n  lr: 1\n  steps: 6\n", ["own.yaml, line 4", "steps is there twice"]),
        ("preset: 2024-11-08\n", ["preset: is 2024-11-08", "date", "quotes"]),
        ("train:\n\tsteps: 5\n", ["own.yaml, line 2", "tab"]),
        ("# nothing yet\n", ["own.yaml: has no keys"]),
        ("- train\n", ["own.yaml: expected keys and values"]),
        ("train:\n  steps: 0100\n", ["own.yaml, line 2", "0100 is 64 to YAML"]),
        ("train:\n  steps: 1:30\n", ["own.yaml, line 2", "1:30 is 90 to YAML"]),
        ("metrics: &a [*a]\n", ["own.yaml", "cannot be read"]),
        ("preset: no\n", ["preset is false", "quotes"]),
    ],
)
def test_yaml_says_file_and_line(text: str, words: list[str], bare: Path) -> None:
    line = said(make_run(bare)("snakemake", "-n", *overlay(bare, text)))
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train:\n\tsteps: 5\n", ["config.yaml, line 2", "tab"]),
        ("", ["config.yaml: has no keys"]),
        ("- train\n", ["config.yaml: expected keys and values"]),
        ("train: {steps: 5\n", ["config.yaml, line 2", "not valid YAML"]),
    ],
)
def test_config_yaml_itself_says_file_and_line(text: str, words: list[str], bare: Path) -> None:
    own = (bare / "config.yaml").read_text()
    try:
        (bare / "config.yaml").write_text(text)
        line = said(make_run(bare)("snakemake", "-n"))
    finally:
        (bare / "config.yaml").write_text(own)
    assert all(word in line for word in words), line


def test_an_exponent_is_a_number_for_every_key(bare: Path) -> None:
    student = "method~cm,solver~ddim,N~10,w~3,adapter~lora4,loss~mse,lr~0.001,batch_size~16,pool~64,steps~100,seed~0"
    target = f"results/smoke/students/{student}/manifest.json"
    files = overlay(bare, "train: {steps: 1e2, lr: 1e-3}\n")
    done = make_run(bare)("snakemake", target, "-n", "--configfile", *files[1:])
    assert done.returncode == 0, done.stderr[-2000:]
    assert planned(done.stdout + done.stderr)["train"] == 1
