"""DVC over one run of the main job with small budgets: repro, the round trip by folder and by SSH, two commits compared, an experiment."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from directcm.config.specs import BASELINES
from tests.pipeline.dvc import change, commit, installed, ok
from tests.pipeline.ssh import Server, Unavailable
from tests.runs import Run, copy_repository, make_run, planned

pytestmark = [pytest.mark.pipeline, pytest.mark.slow, pytest.mark.xdist_group("dvc")]

TABLE1 = "results/embedded/tables/table1.json"
# What measures and what is made of the numbers; no sample is drawn for it again.
ANALYSIS = {
    **dict.fromkeys(("compare", "collect", "claims", "cards", "table1", "table_comparison"), 1),
    **dict.fromkeys(("figure_results", "opening", "gallery", "costs", "provenance"), 1),
    **dict.fromkeys(("table_baselines", "table_parts", "table_within", "figure_directions"), 1),
}
MEASURED_AGAIN = ANALYSIS | {"baselines": 1, "evaluate": 2, "evaluate_teacher": 1, "evaluate_floor": 1}
NEW_STUDENTS = dict.fromkeys(("train", "sample", "features", "evaluate"), 2)
ONE_MORE_SEED = ANALYSIS | NEW_STUDENTS | {"figure_curves": 1}


def checkpoints(folder: Path) -> set[Path]:
    scratch = folder / "results/embedded/scratch/students"
    return {p.relative_to(folder) for p in scratch.rglob("checkpoint-*") if p.is_dir()}


def what_is_planned(run: Run) -> dict[str, int]:
    return planned(ok(run("snakemake", "-n")))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A repository in which `dvc repro` has made the small job; committed and tagged `one`."""
    folder = copy_repository(tmp_path_factory.mktemp("dvc") / "made")
    small = yaml.safe_load((folder / "workflow/presets/smoke.yaml").read_text())
    del small["preset"]
    # One seed, one shard, a teacher of a few steps: every kind of output that dvc.yaml names, and no more.
    small["students"] = [{"method": ["cm", "direct_cm"], "seed": [0], "errors": True}]
    small["metrics"] = ["ode_error", "fd_tiny", "clip_tiny"]
    small["targets"] = {"shard": 64, "block": 64, "batch_size": 64}
    small["evaluation"] |= {"shards": 1, "block": 96}
    small["errors"] |= {"shard": 20}
    for part in ("vae", "unet"):
        small["teacher"]["micro_sdxl"][part]["steps"] = 10
    change(folder, small)
    run = installed(folder)
    ok(run("git", "init", "--quiet"))
    commit(run, "start")
    # As typed, but for the helper that spares each job the import of torch.
    output = ok(run("dvc", "repro"))
    commit(run, "one")
    return SimpleNamespace(folder=folder, run=run, output=output, checkpoints=checkpoints(folder))


@pytest.fixture(scope="module")
def store(made: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as remote, to which the run was pushed."""
    store = tmp_path_factory.mktemp("store")
    ok(made.run("dvc", "remote", "add", "--default", "store", str(store)))
    ok(made.run("dvc", "push"))
    commit(made.run, "pushed")
    return store


@pytest.fixture(scope="module")
def clone(made: SimpleNamespace, store: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Another clone, restored with one command, as typed."""
    folder = tmp_path_factory.mktemp("elsewhere") / "clone"
    ok(made.run("git", "clone", "--quiet", ".", str(folder)))
    run = installed(folder)
    said = ok(run("make", "restore"))
    return SimpleNamespace(folder=folder, run=run, said=said)


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An SSH server on the loopback; skipped where there is none, which CI counts as a failure."""
    server = Server(tmp_path_factory.mktemp("ssh"))
    try:
        server.start()
    except Unavailable as error:
        pytest.skip(f"no SSH server: {error}")
    yield server
    server.stop()


def test_repro_runs_once_and_metrics_and_plots_show_it(made: SimpleNamespace) -> None:
    assert (made.folder / "report.html").is_file() and made.checkpoints
    table = json.loads((made.folder / TABLE1).read_text())
    content = json.loads(made.run("dvc", "metrics", "show", "--json").stdout)[""]["data"][TABLE1]["data"]
    assert content == table and content["CM"]["ode_error"] > 0
    ok(made.run("dvc", "plots", "show"))
    page = (made.folder / "dvc_plots/index.html").read_text()
    assert all(word in page for word in ("Table 1", "training loss", "gradient norm", "results.png"))
    # Neither of the two finds anything to do.
    assert "up to date" in ok(made.run("dvc", "repro")) and what_is_planned(made.run) == {}
    assert checkpoints(made.folder) == made.checkpoints


def test_a_run_by_snakemake_is_recorded_with_one_command(made: SimpleNamespace) -> None:
    before = (made.folder / "dvc.lock").read_bytes()
    (made.folder / "dvc.lock").unlink()
    assert "git add dvc.yaml dvc.lock" in ok(made.run("make", "record"))
    # The same bytes as `dvc repro` noted, the report's among them.
    assert (made.folder / "dvc.lock").read_bytes() == before
    table = made.folder / "results/embedded/tables/table1.csv"
    content = table.read_bytes()
    table.unlink()
    refused = made.run("make", "record")
    table.write_bytes(content)
    assert refused.returncode == 2 and "results/embedded is not finished" in refused.stderr
    assert (made.folder / "dvc.lock").read_bytes() == before


def test_round_trip_through_a_folder(made: SimpleNamespace, clone: SimpleNamespace) -> None:
    # Nothing but the two remotes' lines differs between the clones, and DVC agrees with Snakemake.
    assert what_is_planned(clone.run) == {}
    assert "up to date" in ok(clone.run("dvc", "status"))
    for name in ("report.html", TABLE1, "results/embedded/latents/manifest.json"):
        assert (clone.folder / name).read_bytes() == (made.folder / name).read_bytes()
    assert {p.name for p in (clone.folder / "results/embedded").iterdir()} >= {"targets", "students", "reference"}
    # What jobs took came along: the page on costs can be written anew.
    assert (clone.folder / "results/embedded/benchmarks/teacher.tsv").is_file()


def test_in_the_clone_a_change_plans_what_depends_on_it(clone: SimpleNamespace) -> None:
    before = (clone.folder / "config.yaml").read_text()
    change(clone.folder, {"statistics": {"bootstrap": 300}})
    assert what_is_planned(clone.run) == MEASURED_AGAIN
    (clone.folder / "config.yaml").write_text(before)
    lines = yaml.safe_load(before)["students"]
    change(clone.folder, {"students": [lines[0] | {"seed": [0, 1]}]})
    assert what_is_planned(clone.run) == ONE_MORE_SEED
    (clone.folder / "config.yaml").write_text(before)
    # Code as well, because the records say what the files were made from.
    module = clone.folder / "src/directcm/analysis/figures/figure_curves.py"
    text = module.read_text()
    module.write_text(text + "\nEDITED = True\n")
    assert what_is_planned(clone.run) == {"figure_curves": 1, "gallery": 1}
    module.write_text(text)
    assert what_is_planned(clone.run) == {}


def test_targets_left_out_are_made_again_where_they_are_read(clone: SimpleNamespace) -> None:
    kept = {name: (clone.folder / name).read_text() for name in ("config.yaml", "dvc.yaml")}
    targets, away = clone.folder / "results/embedded/targets", clone.folder / "away"
    lines = "      - results/embedded/targets:\n          persist: true\n"
    assert lines in kept["dvc.yaml"]
    (clone.folder / "dvc.yaml").write_text(kept["dvc.yaml"].replace(lines, ""))
    ok(clone.run("directcm", "record", "results/embedded"))
    targets.rename(away)
    said = ok(clone.run("directcm", "restore", "results/embedded"))
    assert "results/embedded/targets: 1 by their manifests alone" in said
    assert what_is_planned(clone.run) == {}
    # Nothing that is counted or measured wants them, …
    change(clone.folder, {"statistics": {"bootstrap": 300}})
    assert what_is_planned(clone.run) == MEASURED_AGAIN
    # … new students do. On its own Snakemake would train the old two again as well.
    (clone.folder / "config.yaml").write_text(kept["config.yaml"])
    change(clone.folder, {"students": [yaml.safe_load(kept["config.yaml"])["students"][0] | {"seed": [0, 1]}]})
    shutil.rmtree(targets)
    assert what_is_planned(clone.run)["train"] == 4
    ok(clone.run("snakemake", "--cores", "2", "--until", "targets"))
    assert what_is_planned(clone.run) == ONE_MORE_SEED
    for name in ("manifest.json", "targets.safetensors"):
        (again,), (once,) = targets.glob(f"*/*/{name}"), away.glob(f"*/*/{name}")
        assert again.read_bytes() == once.read_bytes()
    for name, text in kept.items():
        (clone.folder / name).write_text(text)
    shutil.rmtree(away)
    ok(clone.run("directcm", "record", "results/embedded"))


def test_round_trip_over_ssh(made: SimpleNamespace, ssh: Server, tmp_path: Path) -> None:
    run = make_run(made.folder)
    home = {"HOME": str(ssh.home)}
    ok(run("dvc", "remote", "add", "--local", "far", f"ssh://store{tmp_path}/bytes", **home))
    ok(run("dvc", "push", "--remote", "far", **home))
    assert sum(1 for p in (tmp_path / "bytes/files/md5").rglob("*") if p.is_file()) > 100
    ok(run("git", "clone", "--quiet", ".", str(tmp_path / "clone")))
    elsewhere = installed(tmp_path / "clone")
    ok(elsewhere("dvc", "remote", "add", "--force", "--default", "store", f"ssh://store{tmp_path}/bytes"))
    ok(elsewhere("make", "restore", **home))
    assert what_is_planned(elsewhere) == {}
    change(tmp_path / "clone", {"statistics": {"bootstrap": 300}})
    assert what_is_planned(elsewhere) == MEASURED_AGAIN
    assert (tmp_path / "clone" / TABLE1).read_bytes() == (made.folder / TABLE1).read_bytes()


@pytest.mark.parametrize("remote", [None, "missing", "ssh"])
def test_without_the_remote_restore_says_what_is_missing_and_its_cost(
    made: SimpleNamespace, tmp_path: Path, remote: str | None
) -> None:
    ok(made.run("git", "clone", "--quiet", "--branch", "one", ".", str(tmp_path / "clone")))
    run = installed(tmp_path / "clone")
    if remote is not None:
        # Port 9 discards on the few machines that have it; SSH it is not.
        url = {"missing": str(tmp_path / "nothing"), "ssh": f"ssh://127.0.0.1:9{tmp_path}/nothing"}[remote]
        ok(run("dvc", "remote", "add", "--default", "store", url))
    done = run("make", "restore", HOME=str(tmp_path))
    assert done.returncode == 2
    assert "What is missing here, and what making it again costs" in done.stderr
    assert "embedded: 2 students, 24 artefacts, 0 of them done" in done.stderr
    # (10 + 1)/2 steps of two rows from each of 64 start points.
    targets = next(line for line in done.stderr.splitlines() if line.startswith("targets"))
    assert targets.split()[1:4] == ["1", "0", "704"]
    assert "make reproduce" in done.stderr and "Traceback" not in done.stderr + done.stdout


def test_restore_where_nothing_is_recorded(made: SimpleNamespace, tmp_path: Path) -> None:
    ok(made.run("git", "clone", "--quiet", "--branch", "start", ".", str(tmp_path / "clone")))
    run = installed(tmp_path / "clone")
    for preset, lock in ((), "dvc.lock"), (("PRESET=photos",), "records/photos/dvc.lock"):
        done = run("make", "restore", *preset)
        assert done.returncode == 2 and f"there is no {lock}" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 2  # ours, and make's own


def test_an_experiment_and_two_commits_compared(made: SimpleNamespace, clone: SimpleNamespace) -> None:
    """`dvc exp run` in the restored clone: two more steps of training."""
    run = clone.run
    config = (clone.folder / "config.yaml").read_text()
    before = json.loads((clone.folder / TABLE1).read_text())
    said = ok(run("dvc", "exp", "run", "--name", "longer", "-S", "config.yaml:train.steps=8"))
    # The teacher, its samples and the targets are those that came from the remote.
    jobs = planned(said)
    assert {k: jobs[k] for k in ("train", "sample", "evaluate")} == {"train": 2, "sample": 2, "evaluate": 2}
    assert not jobs.keys() & {"data", "teacher", "encode", "noise", "targets", "reference", "extractor", "endpoints"}
    # Comments and all other values survive DVC's editing; lists take a line an item.
    edited = (clone.folder / "config.yaml").read_text()
    assert edited.count("#") == config.count("#")
    expected = yaml.safe_load(config)
    expected["train"]["steps"] = 8
    # DVC takes the quotes away, and what is left is what PyYAML reads as false; the configuration knows that.
    for block in ("train", "evaluation"):
        assert expected[block]["precision"] == "no" and yaml.safe_load(edited)[block].pop("precision") is False
    got = yaml.safe_load(edited)
    for block in ("train", "evaluation"):
        got[block]["precision"] = "no"
    assert got == expected

    # Its results lie where every run's do, and DVC shows them beside the ones before.
    after = json.loads((clone.folder / TABLE1).read_text())
    assert after["CM"]["ode_error"] != before["CM"]["ode_error"] and after["Teacher"] == before["Teacher"]
    shown = json.loads(run("dvc", "exp", "show", "--json").stdout)
    experiment = next(e for row in shown for e in row["experiments"] or [] if e["name"] == "longer")
    data = experiment["revs"][0]["data"]
    assert data["metrics"][TABLE1]["data"] == after
    assert data["params"]["config.yaml"]["data"]["train"]["steps"] == 8

    commit(run, "two")
    difference = json.loads(run("dvc", "metrics", "diff", "one", "two", "--json").stdout)
    ours = (difference.get("diff", difference))[TABLE1]
    for row in ("CM", "Direct CM"):
        found = ours[f"{row}.ode_error"]
        assert (found["old"], found["new"]) == (before[row]["ode_error"], after[row]["ode_error"])
        assert found["diff"] == pytest.approx(after[row]["ode_error"] - before[row]["ode_error"])
    assert not any(name.startswith("Teacher") for name in ours)
    params = json.loads(run("dvc", "params", "diff", "one", "two", "--json").stdout)
    changed = params.get("diff", params)["config.yaml"]
    assert {name: (v["old"], v["new"]) for name, v in changed.items()} == {"train.steps": (6, 8)}

    plots = json.loads(run("dvc", "plots", "diff", "one", "two", "--json").stdout)["data"]
    rows = {
        (v["rev"], v["row"], v["metric"]): float(v["mean"])
        for v in plots["Table 1"][0]["content"]["data"]["values"]
        if v["metric"] == "ode_error" and v["row"] not in BASELINES.values()
    }
    assert rows == {
        (rev, row, "ode_error"): pytest.approx(table[row]["ode_error"])
        for rev, table in (("one", before), ("two", after))
        for row in ("CM", "Direct CM")
    }
    curves = [v for v in plots["training loss"][0]["content"]["data"]["values"] if v["field"] == "loss_CM"]
    assert {rev: sum(v["rev"] == rev for v in curves) for rev in ("one", "two")} == {"one": 6, "two": 8}
    pictures = {r for each in plots["results/embedded/figures/results.png"] for r in each["revisions"]}
    assert pictures == {"one", "two"}

    # Back to the commit before: its results come from the cache, and Snakemake knows them again.
    ok(run("git", "checkout", "--quiet", "one"))
    ok(run("make", "restore"))
    assert json.loads((clone.folder / TABLE1).read_text()) == before and what_is_planned(run) == {}
    assert checkpoints(made.folder) == made.checkpoints


def test_stages_find_out_by_themselves_that_dvc_brought_other_files(
    made: SimpleNamespace, clone: SimpleNamespace
) -> None:
    """A temporary folder of `dvc exp run --temp` has the files alone: a stage's first command gives Snakemake its records."""
    folder = clone.folder.with_name("bare")
    ok(made.run("git", "clone", "--quiet", "--branch", "pushed", ".", str(folder)))
    run = installed(folder)
    ok(run("dvc", "pull"))
    # In which order DVC brought the files is chance; that this one came last asks for everything after it.
    os.utime(folder / "results/embedded/teacher/manifest.json")
    assert what_is_planned(run).keys() >= {"targets", "train"}
    ok(run("directcm", "restore", "--changed", "results/embedded"))
    assert what_is_planned(run) == {}
    # A second time there is nothing to restore, and what Snakemake has noted since stays.
    stamp = {p: os.stat(p).st_mtime_ns for p in (folder / ".snakemake/metadata").rglob("*") if p.is_file()}
    assert ok(run("directcm", "restore", "--changed", "results/embedded")) == ""
    assert stamp == {p: os.stat(p).st_mtime_ns for p in stamp}
