"""The same rules on pixels under Karras's process: preset smoke_edm, to its tables, figures, gallery and report; presets that plan."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from directcm.config.registry import methods
from directcm.config.specs import BASELINES
from tests.runs import copy_repository, make_run, planned

pytestmark = pytest.mark.pipeline
PIXELS = ["--configfile", "workflow/presets/smoke_edm.yaml"]


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_pixels_go_through_to_the_report(tmp_path: Path) -> None:
    from diffusers import UNet2DModel

    folder = copy_repository(tmp_path / "copy")
    run = make_run(folder)
    done = run("snakemake", "paper", "--cores", "2", *PIXELS)
    assert done.returncode == 0, done.stderr[-4000:]
    again = run("snakemake", "paper", "--cores", "2", *PIXELS)
    assert "Nothing to be done" in again.stderr + again.stdout
    report = run("snakemake", "paper", "--quiet", "all", "--report", "report.html", *PIXELS)
    assert report.returncode == 0, report.stderr[-3000:]
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "a small class-conditional EDM on pixels" in text and "noise of standard deviation t, from 80.0 down" in text

    out = folder / "results/smoke_edm"
    table = rows(out / "tables/table1.csv")
    every = {method.label for method in methods().values()}
    assert {r["row"] for r in table} == {"Teacher", "Teacher, other noise", *BASELINES.values(), *every}
    assert {"ode_error", "fd_tiny", "clip_tiny", "prompt_accuracy"} <= {r["metric"] for r in table}
    # 8 intervals, guided: 32 rows a sample with Heun, and 16 with Euler, for the claim about CD's solvers.
    costs = {r["step"]: r for r in rows(out / "costs/paper.csv")}
    assert (
        costs["reference"]["teacher_forwards"] == costs["reference"]["teacher_forwards_minimum"] == str(96 * (32 + 16))
    )
    both = rows(out / "tables/table4.csv")
    # Twelve steps of CT cost what six of CM do, a pair of its guided Heun teacher taking four rows: 2 + 2 + 4 and 2 + 2.
    costs_of = {(r["part"], r["row"]): int(r["evaluations"]) for r in both}
    assert {row for part, row in costs_of if part == "Without training"} == {*BASELINES.values()}
    assert {row for part, row in costs_of if part == "At equal student updates"} == every
    assert costs_of["At equal compute", "CT"] == costs_of["At equal compute", "CM"] == 8 * 6 * 16
    verdicts = {r["id"]: r["source"] for r in rows(out / "claims/paper.csv")}
    assert verdicts["gc-ends-better-ct"] == verdicts["cd-heun-beats-euler"] == "others" and verdicts["fid"] == "paper"
    # Claims about two settings: CD's Heun and Euler, two seeds each.
    across = [r for r in rows(out / "collected/paper/comparisons.csv") if r["what"] == "solver~euler"]
    assert {(r["a"], r["b"], r["solver"], r["n_seeds"]) for r in across} == {("CD", "CD", "heun", "2")}
    assert "fd_tiny" in {r["metric"] for r in across} and "teacher" not in {r["reference"] for r in across}
    errors = rows(out / "collected/paper/errors.csv")
    assert {r["space"] for r in errors} == {"pixel"}
    times = sorted({float(r["time"]) for r in errors})
    assert len(times) == 4 and times[-1] == 80.0 and times[0] < 1
    for name in (
        "supervision",
        "samples",
        "gallery",
        "results",
        "curves",
        "error",
        "editing",
        "convergence",
        "training",
        "frontier",
    ):
        assert (out / f"figures/{name}.png").stat().st_size > 0
    # As the network sees them: noise of standard deviation 80 beside data, and none runs off.
    drawn = rows(out / "figures/supervision.csv")
    reach = {kind: max(abs(float(r["pc1"])) for r in drawn if r["kind"] == kind) for kind in ("data", "trajectory")}
    assert reach["trajectory"] < 2 * reach["data"]
    # Known parts stay, and every edit has a number of teacher and students.
    edited = rows(out / "figures/editing.csv")
    free = {label for label in every if label != "PD"}
    assert {r["row"] for r in edited} == {"input", "mean", "Teacher", *free} and {r["n"] for r in edited} == {"8"}
    known = {r["edit"]: float(r["known_error"]) for r in edited if r["known_error"]}
    assert known.keys() == {"inpainting", "colourisation", "super_resolution", "interpolation"}
    assert known["inpainting"] == 0 and max(known.values()) <= 1e-6
    assert all(float(r["rmse"]) > 0 for r in edited if (r["edit"], r["row"]) != ("interpolation", "Teacher"))
    assert int(costs["edit"]["jobs"]) == 1 + len(free) and "Editing without training" in text
    found = rows(out / "tables/table_search.csv")
    assert sorted((r["row"], r["seed"], r["steps"]) for r in found) == sorted((name, "0", "2") for name in free)
    for row in found:
        assert float(row["found_search"]) <= float(row["even_search"]) and row["found_times"].startswith("80, ")
        assert (row["n"], row["n_search"], row["reference"]) == ("96", "48", "data")
    # Two even steps are what the student was sampled in for Table 3.
    metrics = rows(out / "collected/paper/metrics.csv")
    two = next(
        r
        for r in metrics
        if (r["row"], r["seed"], r["sampling_steps"], r["metric"], r["reference"])
        == ("CM", "0", "2", "fd_tiny", "data")
    )
    assert float(found[0]["even"]) == pytest.approx(float(two["value"]), rel=1e-4)
    assert (out / "tables/table_search.html").stat().st_size and (out / "tables/table_search.tex").stat().st_size
    student = next(out.glob("students/method~cm,*seed~0"))
    unet = UNet2DModel.from_pretrained(student / "unet")
    with torch.no_grad():
        assert unet(torch.zeros(1, 3, 16, 16), 250.0, class_labels=torch.tensor([10])).sample.shape == (1, 3, 16, 16)
    assert json.loads((out / "teacher/teacher.json").read_text())["loader"] == "pixel_diffusion"


def test_the_edm_preset_plans_with_the_same_rules(repository: Path) -> None:
    done = make_run(repository)("snakemake", "-n", "--configfile", "workflow/presets/edm.yaml")
    assert done.returncode == 0, done.stderr
    digits = make_run(repository)("snakemake", "-n")
    jobs = planned(done.stdout + done.stderr)
    # All but those that ask what lies between CM and Direct CM.
    asking = {"k_step", "cm_above", "direct_cm_above", "cm_then_direct"}
    count = len(methods().keys() - asking)
    # Three pools in four shards, and the first steps that all CDs share.
    assert jobs["train"] >= 3 * count and jobs["targets"] == 13
    own = {
        "search",
        "table_search",
        "table4",
        "figure_training",
        "edit_teacher",
        "edit",
        "figure_editing",
        "convergence",
        "figure_convergence",
    }
    assert own <= jobs.keys() - planned(digits.stdout + digits.stderr).keys()
    assert (
        jobs["convergence"] == jobs["figure_convergence"] == jobs["edit_teacher"] == 1
        # Progressive distillation has no times of its choice.
        and jobs["edit"] == jobs["search"] == count - 1
    )


@pytest.mark.parametrize("process", ["vp", "karras"])
def test_the_exact_teacher_plans_on_both_processes(repository: Path, tmp_path: Path, process: str) -> None:
    overlay = tmp_path / "exact.yaml"
    students = "students: [{method: [cm, direct_cm]}]\nerrors: {times: 5, refined: {N: 50}}"
    overlay.write_text(f"process: {{kind: {process}}}\nteacher: {{kind: mixture}}\node: {{N: 10}}\n{students}\n")
    done = make_run(repository)("snakemake", "-n", *PIXELS, str(overlay))
    assert done.returncode == 0, done.stderr
    assert planned(done.stdout + done.stderr)["teacher"] == 1
