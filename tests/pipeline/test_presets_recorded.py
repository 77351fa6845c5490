"""A preset's run, every table and figure of it, recorded with one command and restored elsewhere, images and targets left out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.pipeline.dvc import change, commit, installed, ok
from tests.runs import SMOKE, planned

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]


def test_the_preset_smoke(smoke: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    # With times, or Snakemake would find everything changed; without what a clone has not either.
    shutil.copytree(smoke, folder, ignore=shutil.ignore_patterns("scratch", "tensorboard"))
    run = installed(folder)
    ok(run("git", "init", "--quiet"))
    commit(run, "start")
    refused = run("make", "record", "WITHOUT=data targets")
    assert refused.returncode == 2 and "WITHOUT goes with PRESET" in refused.stderr
    assert "git add records/smoke/dvc.yaml records/smoke/dvc.lock" in ok(
        run("make", "record", "PRESET=smoke", "WITHOUT=data targets")
    )
    stages = yaml.safe_load((folder / "records/smoke/dvc.yaml").read_text())["stages"]
    outs = {name for stage in stages.values() for each in stage.get("outs", []) for name in each}
    assert {"results/smoke/students", "report-smoke.html"} <= outs
    assert not {"results/smoke/targets", "results/smoke/data"} & outs
    # The run made everything, so that is what its stages would make.
    assert stages["results"]["cmd"][1] == "snakemake paper --cores 2 --configfile workflow/presets/smoke.yaml"
    ok(run("dvc", "remote", "add", "--default", "store", str(tmp_path / "store")))
    commit(run, "recorded")
    ok(run("dvc", "push"))
    # The default preset, of which nothing is there, is no hindrance.
    assert "up to date" in ok(run("dvc", "status", "records/smoke/dvc.yaml"))

    ok(run("git", "clone", "--quiet", ".", str(tmp_path / "clone")))
    elsewhere = installed(tmp_path / "clone")
    said = ok(elsewhere("make", "restore", "PRESET=smoke"))
    shards = len(list((folder / "results/smoke/targets").rglob("manifest.json")))
    assert f"results/smoke/targets: {shards} by their manifests" in said and "results/smoke/data: 1 by their" in said
    results = tmp_path / "clone/results/smoke"
    for name in ("tables/table2.csv", "figures/sweep_N.png", "claims/paper.csv", "claims/main.csv"):
        assert (results / name).read_bytes() == (folder / "results/smoke" / name).read_bytes()
    manifests = json.loads((results / "record/manifests.json").read_text())
    assert manifests["left_out"] == ["data", "targets"] and len(manifests["files"]) == 3 * (shards + 1)
    for scope in ("all", "paper"):
        assert planned(ok(elsewhere("snakemake", scope, "-n", *SMOKE))) == {}
    assert "table1.json" in ok(elsewhere("dvc", "metrics", "show"))
    plots = json.loads(elsewhere("dvc", "plots", "show", "--json").stdout)["data"]
    assert {"Table 1", "training loss"} <= {name.removeprefix("records/smoke/dvc.yaml::") for name in plots}

    change(tmp_path / "clone", {"statistics": {"level": 0.9}}, "workflow/presets/smoke.yaml")
    jobs = planned(ok(elsewhere("snakemake", "paper", "-n", *SMOKE)))
    assert jobs["table2"] == 1 and not jobs.keys() & {"targets", "train", "sample", "teacher"}
