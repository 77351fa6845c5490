"""DVC over the same main job, with small budgets: repro, metrics, plots, and nothing lost on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from directcm.config import merge
from tests.pipeline.conftest import copy_repository, make_run, planned

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]


def test_repro_metrics_and_plots(tmp_path: Path) -> None:
    folder = copy_repository(tmp_path / "copy")
    base = yaml.safe_load((folder / "config.yaml").read_text())
    small = yaml.safe_load((folder / "workflow/presets/smoke.yaml").read_text())
    # One seed is enough here; two numbers of sampling steps, because Table 3 is among the outputs.
    small["students"] = [{"method": ["cm", "direct_cm"], "seed": [0], "sampling_steps": [1, 2], "errors": True}]
    (folder / "config.yaml").write_text(yaml.safe_dump({**merge(base, small), "preset": "embedded"}))
    run = make_run(folder)
    for command in (
        ("git", "init", "--quiet"),
        ("git", "add", "--all"),
        ("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--message", "start"),
    ):
        assert run(*command).returncode == 0
    # As typed, but for the helper that spares each job the import of torch.
    done = run("directcm", "warm", "--", "dvc", "repro")
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-2000:]
    assert (folder / "report.html").is_file()

    shown = run("dvc", "metrics", "show", "--json")
    assert shown.returncode == 0, shown.stderr
    table = json.loads((folder / "results/embedded/tables/table1.json").read_text())
    content = json.loads(shown.stdout)[""]["data"]["results/embedded/tables/table1.json"]["data"]
    assert content == table and content["CM"]["ode_error"] > 0

    plots = run("dvc", "plots", "show")
    assert plots.returncode == 0, plots.stderr
    assert "loss" in (folder / "dvc_plots/index.html").read_text()

    # A second repro does nothing; what Snakemake made is not touched, checkpoints' folder included.
    scratch = folder / "results/embedded/scratch/students"
    checkpoints = sorted(p for p in scratch.rglob("checkpoint-*") if p.is_dir())
    assert checkpoints
    again = run("dvc", "repro")
    assert again.returncode == 0 and "up to date" in again.stdout + again.stderr
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    settings["statistics"]["bootstrap"] = 300
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    changed = run("dvc", "repro")
    assert changed.returncode == 0, changed.stderr[-3000:]
    assert "directcm train" not in changed.stdout + changed.stderr
    assert "Rule: train" not in changed.stdout + changed.stderr
    assert sorted(p for p in scratch.rglob("checkpoint-*") if p.is_dir()) == checkpoints

    # The bytes go to a remote and come back in another clone, where Snakemake then finds nothing to do.
    for command in (
        ("dvc", "remote", "add", "--default", "store", str(tmp_path / "store")),
        ("dvc", "push"),
        ("git", "add", "--all"),
        ("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--message", "recorded"),
        ("git", "clone", "--quiet", ".", str(tmp_path / "clone")),
    ):
        done = run(*command)
        assert done.returncode == 0, done.stderr
    elsewhere = make_run(tmp_path / "clone")
    for command in (("dvc", "pull"), ("snakemake", "--quiet", "all", "--touch", "--forceall", "--cores", "1")):
        done = elsewhere(*command)
        assert done.returncode == 0, done.stderr[-3000:]
    planned_again = elsewhere("snakemake", "-n")
    assert planned(planned_again.stdout + planned_again.stderr) == {}
    assert (tmp_path / "clone/report.html").read_bytes() == (folder / "report.html").read_bytes()
