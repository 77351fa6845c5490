"""A rehearsal of the paper's preset through real Snakemake: two students of SDXL's own classes, without any of its weights."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from tests.runs import copy_repository, make_run

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]
# Fewer students, and of the extractors those that a CPU is quick with.
FEWER = """
students: [{method: [cm, direct_cm], seed: [24]}]
metrics: [ode_error, fd_dino, clip_score]
evaluation: {batch_size: 8}
"""


def test_the_papers_preset(tmp_path: Path) -> None:
    folder = copy_repository(tmp_path / "copy")
    (folder / "fewer.yaml").write_text(FEWER)
    files = ("config.yaml", "workflow/presets/paper.yaml", "fewer.yaml")
    run = make_run(folder)
    done = run("directcm", "rehearse", "--size", "small", "--configfile", *files, "--", "--cores", "2")
    assert done.returncode == 0, done.stderr[-4000:]
    stages = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line and not line[0].isspace()}
    for stage, jobs in {
        "data": 1,
        "teacher": 1,
        "encode": 1,
        "targets": 1,
        "train": 2,
        "sample": 2,
        "evaluate": 4,
    }.items():
        assert int(stages[stage][1]) == jobs and float(stages[stage][2]) > 0
    assert "pairs/s cm" in done.stdout and "U-Net rows/s" in done.stdout and "Small stand-ins" in done.stdout
    # The whole of `all`: tables and figures too.
    results = folder / "results/rehearsal-paper-small"
    with open(results / "tables/table1.csv", newline="") as file:
        assert {"CM", "Direct CM"} <= {row["row"] for row in csv.DictReader(file)}
    with open(folder / "rehearsals/rates.csv", newline="") as file:
        rates = {row["what"]: row for row in csv.DictReader(file)}
    assert {"teacher", "student", "cm", "direct_cm", "decode", "encode", "features"} <= set(rates)
    assert all(float(row["per_second"]) > 0 and "small stand-in" in row["teacher"] for row in rates.values())
    plan = run("directcm", "plan", "main", "--configfile", *files[:2])
    assert plan.returncode == 0 and "not measured on any device" in plan.stdout, plan.stderr


def test_the_benchmark_of_its_size(tmp_path: Path) -> None:
    """Its every row, small: on a GPU it is one command, which nobody wants to see fail there."""
    run = make_run(copy_repository(tmp_path / "copy"))
    done = run(sys.executable, "benchmarks/sdxl.py", "--rehearse")
    assert done.returncode == 0, done.stderr[-4000:]
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    for what in ("teacher", "cm, one step", "direct_cm, one step", "features, one pass", "encode", "PNG"):
        assert any(what in row for row in rows), what
    assert "not measured" not in done.stdout
