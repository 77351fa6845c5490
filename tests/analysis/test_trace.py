"""From a result back to the data: every link named, and each that has changed since told."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from directcm import cli
from directcm.analysis.pages import trace
from directcm.errors import UserError
from directcm.runtime.artifacts import Artifact, new_artifact, new_collection, open_artifact


def make(folder: Path, kind: str, text: str, **inputs: Artifact) -> Artifact:
    with new_artifact(folder, kind, settings={"of": text}, inputs=inputs) as art:
        (art / f"{kind}.txt").write_text(text)
    return open_artifact(folder, kind)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """data → teacher → samples (a collection of one) → metrics, whose data is named twice."""
    out = tmp_path / "results" / "run"
    data = make(out / "data", "data", "digits")
    teacher = make(out / "teacher", "teacher", "weights", data=data)
    part = make(out / "samples" / "cm" / "step~1", "samples", "pictures", teacher=teacher)
    new_collection(out / "samples" / "cm", "samples", ["step~1"], settings={}, inputs={"teacher": teacher})
    make(out / "metrics" / "cm", "metrics", "numbers", samples=part, data=data)
    make(out / "scratch" / "teacher", "teacher", "half a teacher", data=data)
    return out


def states(path: Path, **options: Any) -> list[tuple[int, str, str, bool]]:
    return [(link.depth, link.name, link.state, link.seen) for link in trace.chain(path, **options)]


WHOLE = [
    (0, "metrics", "unchanged", False),
    (1, "data", "unchanged", False),
    (1, "samples", "unchanged", False),
    (2, "teacher", "unchanged", False),
    (3, "data", "unchanged", True),
]


@pytest.mark.parametrize("name", ["metrics.txt", "manifest.json", "."])
def test_the_whole_chain_from_any_file_of_an_artefact(results: Path, name: str) -> None:
    assert states(results / "metrics/cm" / name) == WHOLE
    folders = [link.folder for link in trace.chain(results / "metrics/cm" / name)]
    assert folders[1:] == [results / n for n in ("data", "samples/cm/step~1", "teacher", "data")]


def test_a_link_says_commit_settings_and_fingerprint(results: Path) -> None:
    link = list(trace.chain(results / "metrics/cm"))[3]
    said = trace.text(link)
    assert link.manifest is not None and link.provenance is not None
    assert link.fingerprint == open_artifact(results / "teacher", "teacher").fingerprint
    for part in (link.fingerprint[:12], str(results / "teacher"), '{"of": "weights"}', link.provenance["date"]):
        assert part in said
    assert ("commit " in said) == bool(link.provenance["commit"])


def test_a_changed_byte_is_told_wherever_the_link_occurs(results: Path) -> None:
    (results / "data/data.txt").write_text("digitS")
    assert [(n, s) for _, n, s, _ in states(results / "metrics/cm")] == [
        ("metrics", "unchanged"), ("data", "CHANGED"), ("samples", "unchanged"), ("teacher", "unchanged"), ("data", "CHANGED"),
    ]  # fmt: skip
    link = next(link for link in trace.chain(results / "metrics/cm") if link.state == trace.CHANGED)
    assert "data.txt" in link.reason and "checksum" in link.reason


def test_what_was_made_again_since_is_told(results: Path) -> None:
    data = open_artifact(results / "data", "data")
    make(results / "teacher", "teacher", "other weights", data=data)
    found = list(trace.chain(results / "metrics/cm"))
    assert [(link.name, link.state) for link in found] == [
        ("metrics", "unchanged"), ("data", "unchanged"), ("samples", "unchanged"), ("teacher", "GONE"),
    ]  # fmt: skip
    assert found[-1].folder is None and "made again" in found[-1].reason


def test_a_part_of_a_collection_that_is_damaged(results: Path) -> None:
    (results / "samples/cm/step~1/samples.txt").write_text("half a pict")
    assert states(results / "samples/cm")[0] == (0, "collection", "CHANGED", False)


def test_scratch_is_no_place_to_come_from(results: Path) -> None:
    shutil.rmtree(results / "teacher")
    assert (2, "teacher", "GONE", False) in states(results / "metrics/cm")


def test_elsewhere_than_in_the_results(results: Path, tmp_path: Path, one_line: Any) -> None:
    shutil.copytree(results / "metrics/cm", tmp_path / "copy")
    assert states(tmp_path / "copy", results=results) == WHOLE
    with pytest.raises(UserError) as error:
        list(trace.chain(tmp_path / "copy"))
    assert "--results" in one_line(error)


@pytest.mark.parametrize("name, said", [("table.csv", "lies in no artefact"), ("nothing.csv", "no such file")])
def test_files_that_are_in_no_artefact(tmp_path: Path, name: str, said: str, one_line: Any) -> None:
    (tmp_path / "table.csv").write_text("metric,value\n")
    with pytest.raises(UserError) as error:
        list(trace.chain(tmp_path / name))
    assert said in one_line(error) and name in one_line(error)


def test_the_verb(results: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["trace", str(results / "metrics/cm")]) == 0
    assert capsys.readouterr().out.count("unchanged") == 5
    (results / "teacher/teacher.txt").unlink()
    assert cli.main(["trace", str(results / "metrics/cm")]) == 2
    told = capsys.readouterr()
    assert "CHANGED" in told.out and told.err.count("\n") == 1 and "first teacher" in told.err
