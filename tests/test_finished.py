"""A SLURM job of several parts that is started again: what is finished is taken as it is, and only what it may."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from directcm.runtime import finished
from directcm.runtime.artifacts import new_artifact, open_artifact, write_text
from directcm.runtime.stop import NOTES, OWN_JOB, mark_own_job


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The manifests of a → b → c, each made from the one before it, and noted."""
    monkeypatch.setenv(NOTES, str(tmp_path / "notes"))
    manifests: list[Path] = []
    for name in "abc":
        before = {str(path): open_artifact(path, "test") for path in manifests[-1:]}
        with new_artifact(tmp_path / name, "test", settings={"name": name}, inputs=before) as made:
            write_text(made / "text", name)
        manifests.append(tmp_path / name / "manifest.json")
        flags = [word for path in before for word in ("--from", path)]
        finished.note([tmp_path / name], [*flags, "--out", str(manifests[-1]), "--log", "manifest.json"])
    return manifests


def test_a_manifest_comes_back_as_it_was(chain: list[Path]) -> None:
    before = [path.read_bytes() for path in chain]
    for path in chain:
        path.unlink()
    # In any order: what others are made from first.
    assert finished.left([[path] for path in reversed(chain)]) == [0]
    assert [path.read_bytes() for path in chain] == before
    open_artifact(chain[2], "test").verify()


def test_what_is_left(chain: list[Path], tmp_path: Path) -> None:
    chain[0].unlink()
    other = tmp_path / "d/manifest.json"
    assert finished.left([[chain[0]], [other], [chain[1]]]) == [1]
    assert finished.left([[chain[0], other], [chain[1]]]) == [0]
    # Snakemake is to be given one: the last that was made.
    for at, path in enumerate(chain):
        os.utime(finished._place(path), (at, at))
    assert finished.left([[path] for path in chain]) == [2]


def test_only_in_a_job_of_our_own(chain: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NOTES)
    finished.note([chain[0].parent], [])
    assert finished.left([[path] for path in chain]) == [0, 1, 2]
    # Another run of Snakemake makes what it is asked for.
    monkeypatch.setenv(NOTES, str(tmp_path / "other"))
    assert finished.left([[path] for path in chain]) == [0, 1, 2]
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("damage", ["its input is another", "its files are others", "its files are gone"])
def test_what_is_not_what_it_was_is_made_again(chain: list[Path], damage: str) -> None:
    first, second, third = chain
    if damage == "its input is another":
        first.write_text(first.read_text().replace('"name": "a"', '"name": "A"'))
        # A stale note of the changed one would put the old manifest back; it is made anew, and noted anew.
        finished.note([first.parent], [])
    else:
        (second.parent / "checksums.csv").unlink()
    if damage == "its files are others":
        (second.parent / "checksums.csv").write_text("path,size,sha256\n")
    second.unlink()
    assert finished.left([[first], [second], [third]]) == [1, 2]
    assert not second.exists()


def test_what_one_job_makes_together_is_no_input_of_itself(chain: list[Path]) -> None:
    first, second, third = chain
    arguments = ["--from", str(first), "--out", str(second), str(third)]
    finished.note([second.parent, third.parent], arguments)
    second.unlink()
    third.unlink()
    assert finished.left([[second, third], [first.parent / "other/manifest.json"]]) == [1]
    assert second.is_file() and third.is_file()


def words(*jobs: str, rules: str = "sample features evaluate") -> list[str]:
    return ["--snakefile", "S", "--target-jobs", *jobs, "--allowed-rules", *rules.split(), "--cores", "2", "--force"]


def test_snakemakes_arguments_without_what_is_finished(chain: list[Path], capsys: pytest.CaptureFixture) -> None:
    places = {"sample": chain[0], "features": chain[1], "evaluate": chain[0].parent / "none/manifest.json"}
    seen = []

    def made(rule: str, wildcards: dict[str, str]) -> list[Path]:
        seen.append((rule, wildcards))
        return [places[rule]]

    jobs = ["features:extractor=x,more=,w=3", "evaluate:w=3", "sample:"]
    assert finished.trimmed(words(*jobs), made) == words("evaluate:w=3", rules="evaluate")
    assert seen == [("features", {"extractor": "x", "more": "", "w": "3"}), ("evaluate", {"w": "3"}), ("sample", {})]
    assert "finished by an earlier start of this job: features, sample" in capsys.readouterr().err
    # Of one job there is nothing to leave out, nor where none is finished, nor without such a flag.
    assert finished.trimmed(words("sample:"), made) is None
    assert finished.trimmed(words("evaluate:w=3", "evaluate:w=1"), made) is None
    assert finished.trimmed(["--cores", "2"], made) is None


def test_the_whole_jobs_notes_lie_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snakemake starts itself again in a step of the job, which bears another name or none."""
    for name, value in {OWN_JOB: "6", NOTES: "old", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "run"}.items():
        monkeypatch.setenv(name, value)
    mark_own_job(tmp_path)
    monkeypatch.setenv("SLURM_JOB_NAME", "python")
    mark_own_job(tmp_path)
    assert os.environ[OWN_JOB] == "7" and os.environ[NOTES] == str(tmp_path / "run")
