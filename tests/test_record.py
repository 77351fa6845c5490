"""Snakemake's records put among the results and given back; a preset's dvc.yaml derived from the repository's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.persistence.file import FilePersistence

from directcm.analysis.data.selection import main_runs
from directcm.cli import record
from directcm.config import Config, load_config, read_yaml
from directcm.errors import UserError
from directcm.runtime.artifacts import PROVENANCE, new_artifact, open_artifact, write_json, write_text

ROOT = Path(__file__).resolve().parents[1]
TABLE = "results/tiny/tables/table1.csv"
LONG = "results/tiny/students/" + ",".join(f"axis{i}~{i}" for i in range(24)) + "/manifest.json"
TARGETS = "results/tiny/targets/solver~ddim,N~10,w~3/shard~0/manifest.json"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results as Snakemake would have left them, its records written by its own code."""
    monkeypatch.chdir(tmp_path)
    persistence = FilePersistence(path=tmp_path / ".snakemake")
    for number, key in enumerate((TABLE, LONG, TARGETS, "results/other/data/manifest.json", "results/tiny/gone.csv")):
        write_text(key, key)
        inputs = [TARGETS] if key == LONG else []
        persistence._io_write(
            persistence._metadata_path, {"rule": f"r{number}", "input": inputs, "starttime": 1000.0 + number}, key
        )
    Path("results/tiny/gone.csv").unlink()
    Path("results/tiny/benchmarks").mkdir()
    Path("results/tiny/benchmarks/data.tsv").write_text("s\n1.5\n")
    return tmp_path


def rules(folder: Path) -> dict[str, Any]:
    """What Snakemake reads: file → the rule that made it."""
    persistence = FilePersistence(path=folder / ".snakemake")
    found = {key: persistence._io_read(persistence._metadata_path, key) for key in (TABLE, LONG, TARGETS)}
    return {key: content.get("rule") for key, content in found.items()}


def test_records_go_and_come_back(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record.save(Path("results/tiny"))
    kept = json.loads(Path("results/tiny/record/snakemake.json").read_text())
    assert {key: value["rule"] for key, value in kept.items()} == {TABLE: "r0", LONG: "r1", TARGETS: "r2"}
    assert json.loads(Path("results/tiny/record/benchmarks.json").read_text()) == {"benchmarks/data.tsv": "s\n1.5\n"}

    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "results").mkdir(parents=True)
    Path("results/tiny").rename(elsewhere / "results/tiny")
    monkeypatch.chdir(elsewhere)
    Path("results/tiny/benchmarks/data.tsv").unlink()
    mark = elsewhere / ".snakemake/incomplete" / record._name(TABLE)
    mark.parent.mkdir(parents=True)
    mark.write_text("{}")
    said = record.restore(Path("results/tiny"))
    assert said.startswith("results/tiny: 3 of 3 recorded files are here") and "\n" not in said
    assert rules(elsewhere) == {TABLE: "r0", LONG: "r1", TARGETS: "r2"} and not mark.exists()
    # All of one time, and that of the first job's start: sources are newer, and compared by checksum.
    assert {Path(key).stat().st_mtime for key in (TABLE, LONG, TARGETS)} == {1000.0}
    assert Path("results/tiny/benchmarks/data.tsv").read_text() == "s\n1.5\n"


def test_what_dvc_does_not_keep_comes_back_as_manifests(run: Path, one_line: Any) -> None:
    folder = Path(TARGETS).parent
    shutil.rmtree(folder)
    with new_artifact(folder, "targets", settings={}) as writer:
        (writer / "targets.bin").write_bytes(b"targets")
    with new_artifact("results/tiny/samples/a", "samples", settings={}) as writer:
        (writer / "0.png").write_bytes(b"picture")
    papers = {name: (folder / name).read_bytes() for name in record.PAPERS}
    write_json("results/tiny/samples/a/adopted.json", {"manifest.json": []})
    write_text(
        "records/tiny/dvc.yaml", "stages: {results: {cmd: x, outs: [results/tiny/students, results/tiny/targets]}}"
    )
    record.save(Path("results/tiny"))
    kept = json.loads(Path("results/tiny/record/manifests.json").read_text())
    assert kept["left_out"] == ["samples"] and len(kept["files"]) == 7
    # Kept targets that did not come back are missing, and not to be stood for.
    shutil.rmtree(folder)
    assert "2 of 3 recorded files" in record.restore(Path("results/tiny")) and not folder.exists()

    with new_artifact(folder, "targets", settings={}) as writer:
        (writer / "targets.bin").write_bytes(b"targets")
    papers[PROVENANCE] = (folder / PROVENANCE).read_bytes()
    write_text("records/tiny/dvc.yaml", "stages: {results: {cmd: x, outs: [results/tiny/students: {persist: true}]}}")
    record.save(Path("results/tiny"))
    shutil.rmtree(folder)
    shutil.rmtree("results/tiny/samples")
    said = record.restore(Path("results/tiny")).splitlines()
    assert "3 of 3 recorded files" in said[0]
    assert [line.split(" manifests")[0] for line in said[1:]] == [
        f"results/tiny/{kind}: 1 by their" for kind in ("targets", "samples")
    ]
    assert Path("results/tiny/samples/a/adopted.json").is_file()
    # What it says of itself is there, byte for byte, and what it lacks is said where it is read.
    assert {name: (folder / name).read_bytes() for name in record.PAPERS} == papers
    with pytest.raises(UserError) as error:
        open_artifact(folder, "targets").file("targets.bin")
    assert "missing though its manifest lists it; delete the folder and run again" in one_line(error)
    # Where the bytes are, there is nothing to say.
    (folder / "targets.bin").write_bytes(b"targets")
    Path("results/tiny/samples/a/0.png").write_bytes(b"picture")
    assert len(record.restore(Path("results/tiny")).splitlines()) == 1


def test_restore_only_what_another_brought(run: Path) -> None:
    assert record.restore(Path("results/tiny"), changed=True) == ""
    record.save(Path("results/tiny"))
    assert record.restore(Path("results/tiny"), changed=True) == ""
    kept = json.loads(Path("results/tiny/record/snakemake.json").read_text())
    kept[TABLE]["rule"] = "another"
    write_json("results/tiny/record/snakemake.json", kept)
    assert record.restore(Path("results/tiny"), changed=True) != ""
    assert rules(run)[TABLE] == "another"
    assert record.restore(Path("results/tiny"), changed=True) == ""


def test_mistakes_are_one_line(run: Path, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        record.save(Path("results/nothing"))
    assert "run snakemake first" in one_line(error)
    with pytest.raises(UserError) as error:
        record.restore(Path("results/nothing"))
    assert "results/nothing/record/snakemake.json" in one_line(error)
    config = Config(preset="mine")
    with pytest.raises(UserError) as error:
        record.write_stages(config, main_runs(config), Path("workflow/presets/yours.yaml"), "main")
    assert "'mine'" in one_line(error)
    with pytest.raises(UserError) as error:
        record.write_stages(config, main_runs(config), Path("mine.yaml"), "main", ["students"])
    assert "'students'" in one_line(error) and "targets" in one_line(error)


def derived(preset: str, scope: str, without: tuple[str, ...] = ()) -> tuple[Config, dict[str, Any]]:
    overlay = Path(f"workflow/presets/{preset}.yaml")
    config = load_config(ROOT / "config.yaml", ROOT / overlay)
    runs = main_runs(config) if scope == "main" else config.runs()
    return config, record.stages(read_yaml(ROOT / "dvc.yaml"), config, runs, ROOT / overlay, scope, without)


def outputs(stages: dict[str, Any]) -> set[str]:
    return {name for stage in stages["stages"].values() for each in stage["outs"] for name in each}


def test_a_search_is_versioned_where_it_is_asked_for() -> None:
    _, found = derived("smoke_edm", "main")
    assert {"results/smoke_edm/search", "results/smoke_edm/search_noise"} <= outputs(found)
    _, found = derived("smoke", "main")
    assert not {name for name in outputs(found) if "search" in name}


def test_each_other_teacher_is_versioned_in_a_folder_of_its_own(tmp_path: Path) -> None:
    overlay = tmp_path / "mine.yaml"
    overlay.write_text("preset: mine\nstudents: [{seed: [0]}, {teacher_seed: [1, 2]}]\n")
    config = load_config(ROOT / "config.yaml", overlay)
    base = read_yaml(ROOT / "dvc.yaml")
    whole, main = (
        outputs(record.stages(base, config, runs, overlay, scope))
        for scope, runs in (("paper", config.grid()), ("main", main_runs(config)))
    )
    assert whole - main == {"results/mine/teacher_seed~1", "results/mine/teacher_seed~2"} and main < whole


def test_the_preset_of_sdxl() -> None:
    _, found = derived("paper", "paper", ("targets", "samples"))
    own = {name.removeprefix("results/paper/") for name in outputs(found)}
    base = {
        name.removeprefix("results/embedded/")
        for stage in read_yaml(ROOT / "dvc.yaml")["stages"].values()
        for each in stage["outs"]
        for name in each
    }
    # It trains no extractor, and was told to leave two out.
    assert base - own == {"extractors", "targets", "samples", "report.html"}
    assert own - base == {"report-paper.html"}
    stages = found["stages"]
    overlay = f"--configfile {ROOT}/workflow/presets/paper.yaml"
    assert stages["results"]["cmd"] == [
        "directcm restore --changed results/paper",
        f"snakemake paper --cores 2 {overlay}",
        f"snakemake paper --quiet all --report report-paper.html {overlay}",
        "directcm record results/paper",
    ]
    assert stages["teacher"]["cmd"][1] == (
        f"snakemake --cores 2 results/paper/noise/manifest.json results/paper/latents/manifest.json {overlay}"
    )
    assert {stage["wdir"] for stage in stages.values()} == {"../.."}
    assert all(flags == {"persist": True} for s in stages.values() for each in s["outs"] for flags in each.values())
    # The overlay's `students` replace those of config.yaml; its `train` is laid over them.
    own_keys, overlaid = (next(iter(block.values())) for block in stages["results"]["params"])
    assert "students" not in own_keys and "students" in overlaid and "train" in own_keys and "train" in overlaid
    assert "preset" not in stages["data"]["params"][0]["config.yaml"]
    assert found["metrics"] == ["../../results/paper/tables/table1.json"]
    assert "embedded" not in yaml.safe_dump(found)


def test_without_the_images_their_stage_has_no_output() -> None:
    _, found = derived("photos", "main", ("data",))
    assert "outs" not in found["stages"]["data"] and "results/photos/data" not in found["stages"]["teacher"]["deps"]
    assert found["stages"]["data"]["cmd"][1].startswith("snakemake --cores 2 results/photos/data/manifest.json ")


def test_dvc_yaml_names_what_the_default_makes() -> None:
    """Each output and input of a stage is a folder of the default configuration, or the report."""
    from directcm.config import paths

    config = load_config(ROOT / "config.yaml")
    base = read_yaml(ROOT / "dvc.yaml")
    made = {folder.split("/")[0] for folder in paths.artefacts(config, main_runs(config), "main")}
    # What is made from the artefacts.
    made |= {
        "comparisons",
        "collected",
        "cards",
        "claims",
        "figures",
        "opening",
        "gallery",
        "costs",
        "provenance",
        "tables",
        "record",
    }
    assert outputs(base) == {f"results/embedded/{name}" for name in made} | {"report.html"}
    # Every block of the configuration is a parameter of the first stage that reads it.
    named = [key.split(".")[0] for stage in base["stages"].values() for key in stage["params"][0]["config.yaml"]]
    assert set(named) == set(Config.model_fields)


def test_what_the_default_has_none_of_is_versioned_too() -> None:
    _, found = derived("edm", "main")
    last = [name for each in found["stages"]["results"]["outs"] for name in each]
    assert "results/edm/edits" in last and "results/edm/students" in last
    assert not any("edits" in name for name in outputs(derived("photos", "main")[1]))


def test_what_the_default_has_not_is_an_output_where_it_is_made() -> None:
    _, found = derived("edm", "main")
    assert {"results/edm/convergence": {"persist": True}} in found["stages"]["results"]["outs"]
    assert "results/photos/convergence" not in outputs(derived("photos", "main")[1])


def test_photographs_keep_their_extractor() -> None:
    config, found = derived("photos", "main")
    assert "results/photos/extractors" in outputs(found) and "results/photos/errors" not in outputs(found)
    assert "results/photos/extractors" in found["stages"]["results"]["deps"]
    assert config.preset == "photos" and found["stages"]["results"]["cmd"][1].startswith(
        "snakemake --cores 2 --configfile "
    )
