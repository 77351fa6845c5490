"""Code that a release declares unchanged: finished results are kept, unfinished work is continued, and both are noted."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from snakemake.persistence.file import FilePersistence

from directcm import cli
from directcm.analysis.pages import trace
from directcm.analysis.pages.provenance import provenance_page
from directcm.cli import adopt
from directcm.config import Config, parse
from directcm.errors import UserError
from directcm.runtime import blocks, loop, sources, unchanged
from directcm.runtime.artifacts import CONTINUED, NOTES, new_artifact, new_collection, open_artifact
from directcm.runtime.artifacts import provenance as provenance_of
from tests.runs import SMOKE, copy_repository, make_run, planned

OLD, OLDER, OTHER = "0" * 16, "1" * 16, "2" * 16
RESULTS = Path("results/tiny")
COMPARED = "two runs, by SHA-256"


def declare(folder: Path, *releases: dict[str, Any]) -> None:
    (folder / "workflow").mkdir(exist_ok=True)
    found = [{"release": f"0.{i}", "compared": COMPARED, **each} for i, each in enumerate(releases, 1)]
    (folder / unchanged.FILE).write_text(yaml.safe_dump({"releases": found}))


def code(was: str, now: str) -> dict[str, Any]:
    return {"code": [{"was": was, "now": now}]}


def record(folder: Path, name: str, rule: str, stamp: str, command: str = "make it") -> None:
    """As Snakemake writes it, beside other parameters."""
    persistence = FilePersistence(path=folder / ".snakemake")
    params = sorted([repr(stamp), "'--seed 3'", "7"])
    made = {"rule": rule, "params": params, "code": command, "starttime": 1.0}
    persistence._io_write(persistence._metadata_path, made, f"{RESULTS}/{name}")


def recorded(folder: Path, name: str) -> dict[str, Any]:
    persistence = FilePersistence(path=folder / ".snakemake")
    return persistence._io_read(persistence._metadata_path, f"{RESULTS}/{name}")


def artefact(folder: Path, kind: str, text: str = "x") -> None:
    with new_artifact(folder, kind, settings={}) as art:
        (art / "a.txt").write_text(text)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with data made by older code, its noise by today's, a table by code that nobody knows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "PACKAGE_ROOT", tmp_path)
    monkeypatch.setattr(adopt, "PACKAGE_ROOT", tmp_path)
    monkeypatch.setattr(sources, "digest", lambda *modules, root=None: today(*modules))
    artefact(RESULTS / "data", "data")
    artefact(RESULTS / "noise", "noise")
    (RESULTS / "tables").mkdir()
    (RESULTS / "tables/table1.csv").write_text("row\n")
    record(tmp_path, "data/manifest.json", "data", f"datasets datasets.digits @{OLD}")
    record(tmp_path, "noise/manifest.json", "noise", f"noise @{today('noise')}")
    record(tmp_path, "tables/table1.csv", "table1", f"analysis.table @{OTHER}")
    return tmp_path


def today(*modules: str) -> str:
    if "gone" in modules:
        raise ValueError("directcm.gone is not a module")
    return {"datasets": "d", "noise": "e", "analysis.table": "f"}[modules[0]] * 16


NOW = f"datasets datasets.digits @{'d' * 16}"
WAS = f"datasets datasets.digits @{OLD}"
LEFT = (
    f"left: table1, 1 file of code analysis.table @{OTHER}: today's is @{'f' * 16}, "
    "and workflow/unchanged.yaml does not declare the two the same; snakemake makes them again"
)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_is_declared_is_kept_and_noted_and_nothing_else(here: Path) -> None:
    declare(here, code(WAS, NOW))
    before = everything(here)
    said = [f"data, 1 file of code {WAS}, the same as {NOW} by release 0.1", LEFT]
    assert adopt.adopt(RESULTS, dry_run=True) == [f"would be adopted: {said[0]}", LEFT] and everything(here) == before
    assert adopt.adopt(RESULTS) == [f"adopted: {said[0]}", LEFT]
    assert recorded(here, "data/manifest.json")["params"] == sorted([repr(NOW), "'--seed 3'", "7"])
    after = everything(here)
    note = str(RESULTS / "data" / NOTES)
    assert {name for name in after if after[name] != before.get(name)} == {
        note,
        next(name for name in before if name.startswith(".snakemake/metadata") and WAS in before[name].decode()),
    }
    (found,) = unchanged.adoptions(RESULTS / "data")
    assert (found["was"], found["now"]) == (WAS, NOW)
    assert found["declared"] == [{"release": "0.1", "compared": COMPARED}]
    # The artefact is whole, and twice is once.
    open_artifact(RESULTS / "data", "data").verify()
    assert adopt.adopt(RESULTS) == [LEFT, f"{RESULTS}: nothing to adopt"] and everything(here) == after


def test_from_release_to_release_by_moved_modules(here: Path) -> None:
    moved = f"gone gone.digits @{OLDER}"
    record(here, "data/manifest.json", "data", moved)
    assert f"left: data, 1 file of code {moved}: its modules are no more" in adopt.adopt(RESULTS)[0]
    declare(here, code(moved, WAS), code(WAS, NOW))
    assert adopt.adopt(RESULTS)[0].endswith(f"of code {moved}, the same as {NOW} by release 0.1, 0.2")
    (found,) = unchanged.adoptions(RESULTS / "data")
    assert [each["release"] for each in found["declared"]] == ["0.1", "0.2"]


def test_declared_code_that_was_edited_since_is_left(here: Path) -> None:
    declare(here, code(WAS, f"datasets datasets.digits @{OLDER}"))
    lines = adopt.adopt(RESULTS)
    assert lines[0].startswith(f"left: data, 1 file of code {WAS}: today's is @{'d' * 16}") and len(lines) == 3
    assert recorded(here, "data/manifest.json")["params"] == sorted([repr(WAS), "'--seed 3'", "7"])


def test_a_circle_ends(here: Path) -> None:
    declare(here, code(WAS, f"datasets datasets.digits @{OLDER}"), code(f"datasets datasets.digits @{OLDER}", WAS))
    assert adopt.adopt(RESULTS)[0].startswith("left: data")
    assert unchanged.older(OLD) == {OLDER}
    # Today's code is one of the circle: what the other made is kept, what it made itself is left alone.
    declare(
        here,
        code(WAS, NOW),
        code(NOW, f"datasets datasets.digits @{OLDER}"),
        code(f"datasets datasets.digits @{OLDER}", NOW),
    )
    assert adopt.adopt(RESULTS)[0].startswith(f"adopted: data, 1 file of code {WAS}, the same as {NOW} by release 0.1")
    assert adopt.adopt(RESULTS)[-1].endswith("nothing to adopt")


def test_a_shell_command_in_other_words(here: Path) -> None:
    words = {"commands": [{"rule": "noise", "was": "make it", "now": "make it so"}]}
    declare(here, words)
    assert "noise, 1 file of code noise @eeeeeeeeeeeeeeee, whose shell command reads" in adopt.adopt(RESULTS)[0]
    assert recorded(here, "noise/manifest.json")["code"] == "make it so"
    assert recorded(here, "data/manifest.json")["code"] == "make it"
    assert adopt.adopt(RESULTS)[-1].endswith("nothing to adopt")


def test_interrupted_between_note_and_record(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(here, code(WAS, NOW))
    write, calls = adopt.write_json, []

    def stopped(path: Path, value: Any) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(path, value)

    monkeypatch.setattr(adopt, "write_json", stopped)
    with pytest.raises(KeyboardInterrupt):
        adopt.adopt(RESULTS)
    assert calls[0].name == NOTES and repr(WAS) in recorded(here, "data/manifest.json")["params"]
    monkeypatch.setattr(adopt, "write_json", write)
    assert adopt.adopt(RESULTS)[0].startswith("adopted: data, 1 file")
    assert len(unchanged.adoptions(RESULTS / "data")) == 1


def test_a_note_is_of_the_file_as_it_was(here: Path) -> None:
    declare(here, code(f"analysis.table @{OTHER}", f"analysis.table @{'f' * 16}"), code(WAS, NOW))
    adopt.adopt(RESULTS)
    assert len(unchanged.adoptions(RESULTS / "tables", "table1.csv")) == 1
    (RESULTS / "tables/table1.csv").write_text("made again\n")
    assert unchanged.adoptions(RESULTS / "tables", "table1.csv") == []
    artefact(RESULTS / "data", "data")
    assert not (RESULTS / "data" / NOTES).exists()


def test_a_collections_parts_share_its_notes(here: Path) -> None:
    artefact(RESULTS / "samples/cm/step~1", "samples")
    new_collection(RESULTS / "samples/cm", "samples", ["step~1"], settings={})
    record(here, "samples/cm/manifest.json", "sample", WAS)
    declare(here, code(WAS, NOW))
    adopt.adopt(RESULTS)
    part = unchanged.adoptions(RESULTS / "samples/cm/step~1")
    assert part == unchanged.adoptions(RESULTS / "samples/cm") and len(part) == 1
    new_collection(RESULTS / "samples/cm", "samples", ["step~1"], settings={})
    assert unchanged.adoptions(RESULTS / "samples/cm") == []


def test_trace_and_the_provenance_page_say_it(here: Path) -> None:
    config = parse(Config, {})
    declare(here, code(WAS, NOW))
    provenance_page(config, [RESULTS / "data"], here / "before.html")
    adopt.adopt(RESULTS)
    (link,) = trace.chain(RESULTS / "data")
    assert trace.text(link).count(f"by release 0.1 ({COMPARED})") == 1 and "adopted 20" in trace.text(link)
    provenance_page(config, [RESULTS / "data"], here / "after.html")
    assert f"1 folder made by code {WAS}, kept by release 0.1 ({COMPARED})" in (here / "after.html").read_text()
    assert "Adopted" not in (here / "before.html").read_text()


def test_what_cannot_be_adopted(here: Path, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        adopt.adopt(Path("results/none"))
    assert "results/none: Snakemake has made nothing here" in one_line(error)
    record(here, "noise/manifest.json", "noise", "0123456789abcdef")
    assert "left: noise, 1 file of code whose modules no record names" in adopt.adopt(RESULTS)[1]
    (here / ".snakemake/locks").mkdir(exist_ok=True)
    (here / ".snakemake/locks/0.input.lock").write_text("")
    adopt.adopt(RESULTS, dry_run=True)
    with pytest.raises(UserError) as error:
        adopt.adopt(RESULTS)
    assert "Snakemake is at work here" in one_line(error)


def test_the_verb(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    declare(here, code(WAS, NOW))
    assert cli.main(["adopt", str(RESULTS), "--declare", "old"]) == 2
    assert "--declare needs --release and --compared" in capsys.readouterr().err
    (RESULTS / "record").mkdir()
    assert cli.main(["adopt", str(RESULTS), "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("would be adopted: data, ")
    assert cli.main(["adopt", str(RESULTS)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("adopted: data, ") and lines[1:] == [
        LEFT,
        f"{RESULTS}/record: is older than this; make record writes it anew",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("releases: [{release: 1.0.0}]", "compared"),
        ("releases: [{release: a, compared: b, codes: []}]", "codes"),
        ("releases: [{release: a, compared: b, code: [{was: training, now: training}]}]", "was"),
        ("releases: [{release: a, compared: ''}]", "compared"),
        ("{", "line"),
    ],
)
def test_a_malformed_declaration_is_one_line(here: Path, one_line: Any, text: str, words: str) -> None:
    declare(here)
    (here / unchanged.FILE).write_text(text)
    with pytest.raises(UserError) as error:
        adopt.adopt(RESULTS)
    assert "workflow/unchanged.yaml" in one_line(error) and words in one_line(error)


@pytest.fixture
def two(here: Path) -> tuple[Path, Path]:
    """The checkout and an older one: data by other code and the same bytes, noise by other code and other bytes."""
    there = here / "there"
    for name in ("results", ".snakemake"):
        shutil.copytree(name, there / name)
    record(here, "data/manifest.json", "data", NOW, "make it so")
    record(there, "noise/manifest.json", "noise", f"noise @{OLD}")
    artefact(there / RESULTS / "noise", "noise", "y")
    shutil.copytree(Path(__file__).parents[1] / "workflow", here / "workflow", ignore=shutil.ignore_patterns("rules"))
    return there / RESULTS, RESULTS


def test_a_declaration_is_made_from_two_runs(two: tuple[Path, Path], here: Path, one_line: Any) -> None:
    head = (here / unchanged.FILE).read_text().removesuffix("releases: []\n")
    assert adopt.declare(*two, "0.2.0", COMPARED) == [
        f"declared: {WAS} → {NOW}, 1 file with the same bytes",
        "declared: the shell command of data",
        f"not declared: noise @{OLD} → noise @{'e' * 16}, noise/manifest.json differs",
    ]
    text = (here / unchanged.FILE).read_text()
    assert text.startswith(head + "releases:\n- release: 0.2.0\n")
    (found,) = unchanged.declared(here)
    assert found.model_dump(mode="json") == {
        "release": "0.2.0",
        "compared": COMPARED,
        "code": [{"was": WAS, "now": NOW}],
        "commands": [{"rule": "data", "was": "make it", "now": "make it so"}],
    }
    # Another is added below, and comments stay.
    adopt.declare(*two, "0.3.0", COMPARED)
    assert [each.release for each in unchanged.declared(here)] == ["0.2.0", "0.3.0"]
    assert (here / unchanged.FILE).read_text().startswith(head)
    with pytest.raises(UserError) as error:
        adopt.declare(two[1], two[1], "0.4.0", COMPARED)
    assert "no code differs and gives the same bytes" in one_line(error)
    with pytest.raises(UserError) as error:
        adopt.declare(*two, "0.4.0", "two\nlines")
    assert "compared" in one_line(error)


def test_one_file_that_differs_is_enough(two: tuple[Path, Path], here: Path, one_line: Any) -> None:
    old, new = two
    for top, stamp in ((old.parents[1], WAS), (here, NOW)):
        artefact(top / RESULTS / "again", "data", stamp)
        record(top, "again/manifest.json", "data", stamp)
    with pytest.raises(UserError) as error:
        adopt.declare(old, new, "0.2.0", COMPARED)
    assert f"not declared: {WAS} → {NOW}, again/manifest.json differs" in one_line(error)


@pytest.mark.pipeline
@pytest.mark.slow
def test_snakemake_keeps_what_is_adopted(tmp_path: Path) -> None:
    folder = copy_repository(tmp_path / "copy")
    run, goal = make_run(folder), "results/smoke/data/manifest.json"
    options = [*SMOKE, "--", goal]

    def again() -> dict[str, int]:
        done = run("snakemake", "-n", *options)
        assert done.returncode == 0, done.stderr
        return planned(done.stdout + done.stderr)

    assert run("snakemake", "--cores", "1", *options).returncode == 0
    old = folder / "old"
    shutil.copytree(folder / "results", old / "results")
    shutil.copytree(folder / ".snakemake", old / ".snakemake")
    # A release changes code and command, and makes the same bytes.
    module, rules = folder / "src/directcm/datasets/digits.py", folder / "workflow/rules/data.smk"
    module.write_text(module.read_text() + "\nEDITED = True\n")
    text = rules.read_text()
    assert text.count('verb("data",') == 1
    rules.write_text(text.replace('verb("data",', '"env " + verb("data",'))
    assert again() == {"data": 1}
    undeclared = run("directcm", "adopt", "results/smoke")
    assert undeclared.stdout.startswith("left: data, 1 file of code datasets datasets.digits @")
    assert undeclared.returncode == 0 and again() == {"data": 1}
    assert run("snakemake", "--cores", "1", *options).returncode == 0
    assert run("directcm", "adopt", "results/smoke", "--declare", "old/results/smoke").returncode == 2
    words = ("--release", "0.2.0", "--compared", COMPARED)
    declared = run("directcm", "adopt", "results/smoke", "--declare", "old/results/smoke", *words)
    assert declared.returncode == 0 and declared.stdout.count("declared: ") == 2, declared.stdout + declared.stderr
    # Someone who has the old results updates.
    for name in ("results", ".snakemake"):
        shutil.rmtree(folder / name)
        shutil.move(old / name, folder / name)
    manifest = (folder / goal).read_bytes()
    assert again() == {"data": 1}
    assert "would be adopted: data, 1 file" in run("directcm", "adopt", "--dry-run", "results/smoke").stdout
    assert again() == {"data": 1}
    assert "adopted: data, 1 file" in run("directcm", "adopt", "results/smoke").stdout
    done = run("snakemake", "--cores", "1", *options)
    assert "Nothing to be done" in done.stdout + done.stderr and (folder / goal).read_bytes() == manifest
    assert f"by release 0.2.0 ({COMPARED})" in run("directcm", "trace", "results/smoke/data").stdout
    # Another edit, that nobody has compared.
    module.write_text(module.read_text() + "\nEDITED_AGAIN = True\n")
    assert again() == {"data": 1}
    assert "nothing to adopt" in run("directcm", "adopt", "results/smoke").stdout and again() == {"data": 1}


@pytest.fixture
def same(here: Path) -> Iterator[None]:
    """OLD is declared to give the results of OLDER, and that those of OTHER. What this process goes on with is forgotten after."""
    declare(here, code(f"a @{OLD}", f"a @{OLDER}"), code(f"b @{OLDER}", f"b.c @{OTHER}"))
    yield
    CONTINUED.clear()


def test_blocks_of_declared_code_are_continued(same: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made: list[int] = []

    def make(rows: range) -> dict[str, torch.Tensor]:
        made.append(rows.start)
        return {"x": torch.tensor(list(rows))}

    def work(code: str | None, **key: int) -> list[int]:
        made.clear()
        blocks.work(
            tmp_path / "s", {**key, **({} if code is None else {"code": code})}, [range(0, 2), range(2, 4)], make
        )
        return list(made)

    assert work(OLD, a=1) == [0, 2] and work(OTHER, a=1) == [] == work(OTHER, a=1)
    assert capsys.readouterr().err == (
        f"{tmp_path / 's'}: begun by code @{OLD}, which workflow/unchanged.yaml declares the same\n"
    )
    assert provenance_of()["continued"] == [OLD]
    # Another process goes on, and knows it too.
    CONTINUED.clear()
    assert "continued" not in provenance_of()
    assert work(OTHER, a=1) == [] and provenance_of()["continued"] == [OLD]
    # Later code's work is not older code's, and other settings are other settings.
    assert work(OLD, a=1) == [0, 2] and work(OTHER, a=2) == [0, 2] and work(None, a=2) == [0, 2] == work("3" * 16, a=2)
    assert json.loads((tmp_path / "s/key.json").read_text()).keys() == {"key"}


def test_training_of_declared_code_is_continued(same: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def train(code: str, until: int | None = None, seed: int = 1) -> int:
        """The number of steps taken; killed before step `until`."""
        taken: list[int] = []
        net = torch.nn.Linear(1, 1)

        def loss(step: int, rows: np.ndarray) -> torch.Tensor:
            if step == until:
                raise KeyboardInterrupt
            taken.append(step)
            return (net(torch.ones(len(rows), 1)) ** 2).mean(1)

        key = {"code": code, "seed": seed}
        job = loop.Job(
            "test", {"net": net}, loss, 6, 2, loop.constant(0.1), checkpoint_every=2, snapshots=[1], scratch=tmp_path / "s", key=key
        )  # fmt: skip
        with contextlib.suppress(KeyboardInterrupt):
            loop.fit(job, loop.make_accelerator())
        return len(taken)

    assert train(OLD, until=2) == 2
    assert train(OTHER, until=4) == 2
    assert capsys.readouterr().err.count(f"test: begun by code @{OLD}, which") == 1
    # The later code's own checkpoint says what it comes from; another process continues that.
    CONTINUED.clear()
    assert train(OTHER, until=5) == 1 and provenance_of()["continued"] == [OLD]
    assert train(OTHER, until=1, seed=2) == 1
