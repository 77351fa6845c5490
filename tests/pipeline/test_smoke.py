"""The smoke preset through real Snakemake: what it leaves, what re-runs and what does not, what stock diffusers makes of it."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from directcm.analysis.data.selection import main_runs
from directcm.config import load_config, paths, read_yaml
from directcm.config.specs import BASELINES
from directcm.runtime.artifacts import open_artifact, open_collection
from tests import bars
from tests.patience import PATIENCE
from tests.runs import SMOKE, make_run, planned

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]
COLUMNS = ["row", "steps", "metric", "reference", "mean", "sd", "n_seeds", "n_samples", "paper"]


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_table_1_is_tidy_and_complete(smoke: Path) -> None:
    table = rows(smoke / "results/smoke/tables/table1.csv")
    assert list(table[0]) == COLUMNS
    assert {r["row"] for r in table} == {"Teacher", "Teacher, other noise", *BASELINES.values(), "CM", "Direct CM"}
    assert {r["metric"] for r in table if r["row"] in BASELINES.values()} == {"ode_error"}
    students = [r for r in table if r["row"] in ("CM", "Direct CM")]
    assert {r["steps"] for r in students} == {"1"} and {r["n_seeds"] for r in students} == {"2"}
    # The teacher has no distance to itself, but a floor; everybody has one to the data.
    fd = {(r["row"], r["reference"]) for r in table if r["metric"] == "fd_tiny"}
    assert ("Teacher", "teacher") not in fd and ("Teacher", "data") in fd
    assert {("Teacher, other noise", "teacher"), ("Teacher, other noise", "data")} <= fd
    for r in table:
        float(r["mean"])
    # The paper's FID stands beside FD-tiny against the teacher, one step, and nowhere else.
    paper = {(r["row"], r["reference"]): r["paper"] for r in table if r["metric"] == "fd_tiny"}
    assert float(paper["CM", "teacher"]) == 95.3 and float(paper["Direct CM", "teacher"]) == 166.0
    assert paper["CM", "data"] == ""


def test_the_teachers_bars_are_read_off_a_finished_run(smoke: Path, capsys: pytest.CaptureFixture) -> None:
    """This teacher of sixty steps misses two; FD-tiny on so small an extractor says nothing, and the reader reads real digits."""
    assert bars.main(str(smoke / "results/smoke")) == 1
    out, error = capsys.readouterr()
    assert [line.split(":")[0] for line in out.splitlines()] == ["prompts", "fd", "vae", "reader"]
    assert {line.split()[1] for line in error.splitlines()} - {"fd"} == {"prompts", "vae"}


def test_tables_2_and_3_have_their_sweeps(smoke: Path) -> None:
    tables = smoke / "results/smoke/tables"
    assert {r["solver"] for r in rows(tables / "table2.csv")} == {"ddim", "euler"}
    steps = {r["steps"] for r in rows(tables / "table3.csv") if r["row"] in ("CM", "Direct CM")}
    assert steps == {"1", "2"}
    # Each solver has baselines of its own ODE.
    own = [(r["solver"], r["row"], r["mean"]) for r in rows(tables / "table2.csv") if r["row"] in BASELINES.values()]
    assert len({(solver, row) for solver, row, _ in own}) == 8 and len({mean for *_, mean in own}) == 8


def test_the_parts_of_each_error_add_up(smoke: Path) -> None:
    """In the table, and along principal directions, of every model that has an ODE error."""
    out = smoke / "results/smoke"
    found = {(r["row"], r["metric"]): float(r["mean"]) for r in rows(out / "tables/table_parts.csv") if r["mean"]}
    models = [row for row, metric in found if metric == "ode_error"]
    assert models == [*BASELINES.values(), "CM", "Direct CM"]
    errors = {
        (
            r["row"],
            r["solver"],
            r["N"],
            r["w"],
            r["adapter"],
            r["loss"],
            r["steps"],
            r["seed"],
            r["step"],
            r["sampling_steps"],
        ): float(r["value"])
        for r in rows(out / "collected/paper/metrics.csv")
        if r["metric"] == "ode_error"
    }
    along: dict[tuple[str, ...], float] = {}
    for r in rows(out / "collected/paper/directions.csv"):
        key = tuple(
            r[name]
            for name in ("row", "solver", "N", "w", "adapter", "loss", "steps", "seed", "step", "sampling_steps")
        )
        along[key] = along.get(key, 0.0) + float(r["error"])
    assert along.keys() == errors.keys() and along == pytest.approx(errors, rel=1e-8)
    for row in models:
        parts = sum(found[row, part] for part in ("ode_bias", "ode_gain", "ode_scatter"))
        assert parts == pytest.approx(found[row, "ode_error"], rel=1e-8)
    for row in ("Teacher, other noise", "CM", "Direct CM"):
        parts = {
            r["metric"]: float(r["mean"])
            for r in rows(out / "tables/table_parts.csv")
            if (r["row"], r["reference"]) == (row, "data")
        }
        assert parts["fd_tiny_mean"] + parts["fd_tiny_covariance"] == pytest.approx(parts["fd_tiny"], rel=1e-6)


def test_every_student_is_judged_against_every_baseline(smoke: Path) -> None:
    lines = rows(smoke / "results/smoke/tables/table_baselines.csv")
    assert [(r["row"], r["baseline"]) for r in lines] == [
        (row, name) for row in ("CM", "Direct CM") for name in BASELINES.values()
    ]
    every = [r for r in rows(smoke / "results/smoke/collected/paper/comparisons.csv") if r["what"] == "baseline"]
    # Of each setting its finished students: of the main one in two numbers of sampling steps.
    assert len(every) == 4 * 2 * (7 + 1) and {r["metric"] for r in every} == {"ode_error"}


def test_everything_that_was_promised_is_there(smoke: Path) -> None:
    out = smoke / "results/smoke"
    tables = (
        "table1",
        "table2",
        "table3",
        "table_metrics",
        "table_further",
        "table_comparison",
        "table_parts",
        "table_baselines",
        "table_within",
    )
    figures = ("supervision", "samples", "gallery", "curves", "results", "sweep_N", "sweep_w", "frontier", "compute")
    figures += ("error", "budget", "sensitivity", "map", "directions")
    names = [f"tables/{name}.{suffix}" for name in tables for suffix in ("csv", "tex", "html")]
    names += [f"figures/{name}.{suffix}" for name in figures for suffix in ("pdf", "png", "csv")]
    for scope in ("main", "paper"):
        names += [f"claims/{scope}.{suffix}" for suffix in ("csv", "tex", "html", "json")]
        names += [
            f"opening/{scope}.html",
            f"gallery/{scope}.html",
            f"costs/{scope}.html",
            f"costs/{scope}.csv",
            f"provenance/{scope}.html",
        ]
    for name in [*names, "tables/table1.json", "figures/mean_curves.csv"]:
        assert (out / name).stat().st_size > 0, name
    cards = list(out.glob("students/*/README.md"))
    assert len(cards) == len(rows(out / "cards/paper.csv")) == 16
    for card in cards:
        text = card.read_text(encoding="utf-8")
        for word in ("data", "teacher", "method", "budget", "FD-tiny", "from_pretrained"):
            assert word in text
    assert list(out.glob("tensorboard/*/events*"))


def test_every_fd_carries_n_and_d_and_stands_beside_its_floor(smoke: Path) -> None:
    metrics = rows(smoke / "results/smoke/collected/paper/metrics.csv")
    fd = [r for r in metrics if r["metric"] == "fd_tiny"]
    assert fd and all(int(r["n"]) == int(r["n_reference"]) and int(r["dim"]) == 32 for r in fd)
    odes = {(r["solver"], r["N"], r["w"]) for r in fd if r["row"] == "CM"}
    floors = {
        (r["solver"], r["N"], r["w"]) for r in fd if r["row"] == "Teacher, other noise" and r["reference"] == "teacher"
    }
    assert odes == floors and len(odes) == 4


def test_further_metrics_stand_in_the_whole_grids_tables_alone(smoke: Path) -> None:
    out = smoke / "results/smoke"
    further = {"fd_lite0", "kid_lite0", "mmd_lite0", "precision_lite0", "recall_lite0", "is_lite0"}
    further |= {"fd_pixels16", "kid_pixels16", "fd_other_tiny"}
    assert not further & {r["metric"] for r in rows(out / "collected/main/metrics.csv")}
    found = [r for r in rows(out / "collected/paper/metrics.csv") if r["metric"] in further]
    # Two methods with two seeds, their teacher and its floor, of the main comparison's ODE and in the fewest sampling steps.
    assert {r["metric"] for r in found} == further
    assert len({(r["row"], r["seed"]) for r in found}) == 4 + 2
    assert {(r["N"], r["sampling_steps"]) for r in found} == {("10", "1"), ("10", "10")}
    table = rows(out / "tables/table_further.csv")
    assert {r["metric"] for r in table} == further
    cell = {(r["row"], r["metric"], r["reference"]): float(r["mean"]) for r in table}
    # Students of a few steps are near the teacher's samples of their own noise, and as far from those of the other as the teacher is.
    floor = cell["Teacher", "fd_pixels16", "other_noise"]
    assert cell["Teacher, other noise", "fd_pixels16", "teacher"] == pytest.approx(floor, rel=1e-6)
    assert cell["CM", "fd_pixels16", "teacher"] < floor / 4 and cell["CM", "fd_pixels16", "other_noise"] > floor / 2
    compared = [r for r in rows(out / "collected/paper/comparisons.csv") if r["metric"] in further]
    assert {r["test"] for r in compared if r["metric"] in ("kid_lite0", "fd_other_tiny")} == {"permutation"}
    assert {r["reference"] for r in compared} == {"teacher", "other_noise", "data", "none"}


def test_verdicts_say_what_was_not_run(smoke: Path) -> None:
    main = json.loads((smoke / "results/smoke/claims/main.json").read_text())
    paper = json.loads((smoke / "results/smoke/claims/paper.json").read_text())
    assert main.keys() == paper.keys()
    assert main["fid-mean-n"] == main["ode-lead-n"] == "not run" not in (paper["fid-mean-n"], paper["ode-lead-n"])
    assert main["fd-dino"] == paper["fd-dino"] == "cannot be tested at this scale"
    assert main["ode-error"] in ("shown here", "refuted here", "undecided")


def test_snapshots_are_evaluated(smoke: Path) -> None:
    folder = next((smoke / "results/smoke/samples").glob("method~cm,*adapter~lora4,*steps~8,seed~0"))
    parts = json.loads((folder / "manifest.json").read_text())["settings"]["parts"]
    assert parts == ["step~8,sampling_steps~1", "step~4,sampling_steps~1"]
    table = rows(smoke / "results/smoke/collected/paper/students.csv")
    cost = {(r["method"], r["step"]): r for r in table if r["adapter"] == "lora4" and r["steps"] == "8"}
    # 16 a step: CM asks its own network twice a pair and the teacher twice (guidance), Direct CM once and not at all.
    assert (cost["cm", "4"]["student_forwards"], cost["cm", "4"]["teacher_forwards"]) == ("128", "128")
    assert (cost["direct_cm", "8"]["student_forwards"], cost["direct_cm", "8"]["teacher_forwards"]) == ("128", "0")
    assert float(cost["direct_cm", "8"]["target_forwards"]) > 0 and float(cost["cm", "8"]["seconds"]) > 0


def test_jobs_were_forks_of_the_helper(smoke: Path) -> None:
    """All that may be: a plan's `snakemake` starts one, and nothing in the environment keeps the jobs from it."""
    made: dict[str, set[bool]] = {}
    for path in (smoke / "results/smoke").rglob("provenance.json"):
        of = path.relative_to(smoke / "results/smoke").parts
        if of[0] != "scratch":
            made.setdefault(of[0], set()).add(json.loads(path.read_text())["forked"])
    forked = {"latents", "targets", "endpoints", "students", "samples", "features", "metrics", "errors", "reference"}
    assert {name: found for name, found in made.items() if name in forked} == {
        name: {True} for name in forked & made.keys()
    }
    assert len(forked & made.keys()) >= 7 and made["teacher"] == {False}


def test_progress_says_which_of_how_many(smoke: Path) -> None:
    assert "steps (100%) done" in (smoke / "paper.log").read_text()


def test_only_live_rows_were_evaluated(smoke: Path) -> None:
    costs = {r["step"]: r for r in rows(smoke / "results/smoke/costs/paper.csv")}
    for step in ("targets", "reference"):
        assert int(costs[step]["teacher_forwards"]) == int(costs[step]["teacher_forwards_minimum"]) > 0
    # Every CM of this grid reads its steps of the teacher from Direct CM's targets.
    assert costs["train"]["teacher_forwards"] == costs["train"]["teacher_forwards_minimum"] == "0"


def test_every_benchmark_is_in_the_costs(smoke: Path) -> None:
    config = load_config(smoke / "config.yaml", smoke / "workflow/presets/smoke.yaml")
    folder = smoke / "results/smoke/benchmarks"
    made = {path.relative_to(folder).as_posix() for path in folder.rglob("*.tsv")}
    late = {f"{page}/{scope}.tsv" for page in ("costs", "provenance") for scope in ("main", "paper")}
    known = {
        *paths.benchmarks(config, main_runs(config), "main"),
        *paths.benchmarks(config, config.runs(), "paper"),
    }
    # What this grid has not: it has the paper's two methods, on latents.
    others = {
        *("table4.tsv", "table_search.tsv", "table_teachers.tsv"),
        *("figure_training.tsv", "figure_editing.tsv", "figure_convergence.tsv"),
        "figure_fixed_points.tsv",
    }
    assert others <= known and made - late == known - others
    costs = {r["step"]: int(r["jobs"]) for r in rows(smoke / "results/smoke/costs/paper.csv")}
    # The four of the main comparison are sampled, measured and compared in two steps, too; they, their teacher and its floor have
    # further metrics.
    assert costs["evaluate"] == 16 + 2 * 4 + 4 + 6 and costs["train"] == 16 and costs["compare"] == 7 + 1 + 1


def test_a_second_run_finds_nothing_to_do(smoke: Path) -> None:
    for target in ((), ("paper",)):
        done = make_run(smoke)("snakemake", *target, "--cores", "2", *SMOKE)
        assert done.returncode == 0 and "Nothing to be done" in done.stderr + done.stdout
    assert "Nothing to be done" in done.stderr + done.stdout


def test_touching_every_source_re_runs_nothing(smoke: Path) -> None:
    for path in (smoke / "src").rglob("*.py"):
        path.touch()
    done = make_run(smoke)("snakemake", "paper", "-n", *SMOKE)
    assert done.returncode == 0 and planned(done.stdout + done.stderr) == {}


def test_a_better_comment_re_runs_nothing(smoke: Path) -> None:
    path = smoke / "src/directcm/runtime/rng.py"
    before = path.read_text()
    try:
        path.write_text(before.replace('"""', '"""Better said. ', 1) + "\n\n\n# Nothing is computed here.\n")
        done = make_run(smoke)("snakemake", "paper", "-n", *SMOKE)
        assert done.returncode == 0 and planned(done.stdout + done.stderr) == {}
    finally:
        path.write_text(before)


def test_editing_direct_cm_plans_direct_cm_and_nothing_else(smoke: Path) -> None:
    path = smoke / "src/directcm/distill/methods/direct_cm.py"
    before = path.read_text()
    try:
        path.write_text(before + "\nEDITED = True\n")
        done = make_run(smoke)("snakemake", "-n", "--quiet", "host", *SMOKE)
        jobs = planned(done.stdout + done.stderr)
        assert jobs["train"] == 2 and jobs["sample"] == 2 and jobs["evaluate"] == 2 and jobs["table1"] == 1
        assert not {
            "data",
            "teacher",
            "encode",
            "noise",
            "targets",
            "reference",
            "extractor",
            "evaluate_teacher",
        } & set(jobs)
        text = done.stdout + done.stderr
        assert "train: direct_cm" in text and "train: cm" not in text
    finally:
        path.write_text(before)


DENOISER = '''"""The image itself as the target: what a denoiser learns, and no map of the ODE."""

from __future__ import annotations

from torch import Tensor

from directcm.distill.methods import Batch, Context
from directcm.distill.students import Student

LABEL = "Denoiser"
TEACHER, TARGETS, FORWARDS = False, "", 1


def loss(student: Student, batch: Batch, context: Context) -> Tensor:
    """Per-sample losses (B,)."""
    assert batch.x0 is not None
    return context.distance(student(batch.x, batch.t, batch.cond), batch.x0)
'''


SAMPLES = '''"""How many samples stand behind each metric of the finished students.

Bars of one length mean that all metrics saw the same samples.
"""

from __future__ import annotations

from pathlib import Path

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.runtime.artifacts import write_csv
from directcm.config import Setting

EXHIBITS = {"counts": {"title": "Samples behind each metric", "takes": "metrics setting", "section": "Counted"}}


def draw(metrics: Path, main: Setting, out_pdf: Path, out_png: Path, out_csv: Path, *, space: str) -> None:
    rows = [r for r in tidy.finished(tidy.read(metrics, tidy.METRIC_COLUMNS)) if tidy.matches(r, main)]
    counts = {r["metric"]: int(r["n"]) for r in rows}
    with style.styled():
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots()
        axes.barh(list(counts), list(counts.values()))
        axes.set_xlabel(f"samples, by a teacher on {space}s")
        style.save(figure, out_pdf, out_png)
    write_csv(out_csv, [{"metric": m, "n": n, "space": space} for m, n in counts.items()], ["metric", "n", "space"])
'''
SEEDS = '''"""How many training seeds each method has."""

from __future__ import annotations

from pathlib import Path

from directcm.analysis.tables.sheet import Cell, Head, Row, Sheet, write as write_sheets
from directcm.runtime.artifacts import read_csv, write_csv
from directcm.config import Config

EXHIBITS = {
    "table_seeds": {"title": "Seeds", "takes": "students_table", "needs": "headline and not search", "scope": "paper"}
}


def write(students: Path, config: Config, out: Path) -> None:
    seeds: dict[str, set[str]] = {}
    for row in read_csv(students):
        seeds.setdefault(row["method"], set()).add(row["seed"])
    write_csv(out, [{"method": m, "seeds": len(found)} for m, found in seeds.items()], ["method", "seeds"])
    rows = [Row(Head(m), [Cell(str(len(found)))]) for m, found in seeds.items()]
    sheet = Sheet(name="table_seeds", title="Seeds", caption="Seeds.", settings="", corner="Method", heads=[Head("Seeds")],
                  groups=[("", rows)], notes=[])
    write_sheets(out, sheet, sheet)
'''


def test_a_figure_and_a_table_are_one_file_each(smoke: Path, tmp_path: Path) -> None:
    """Nothing else is touched; they stand in rules, plan, costs, help, gallery and report."""
    folder = tmp_path / "copy"
    shutil.copytree(smoke, folder)
    analysis = folder / "src/directcm/analysis"
    (analysis / "figures/figure_counts.py").write_text(SAMPLES)
    (analysis / "tables/table_seeds.py").write_text(SEEDS)
    run = make_run(folder)
    done = run("snakemake", "--cores", "1", *SMOKE, "--", "paper")
    assert done.returncode == 0, done.stderr[-4000:]
    # What shows and counts all that there is, and nothing else that was there.
    pages = {"gallery", "costs", "provenance"}
    assert set(planned(done.stdout + done.stderr)) == {"figure_counts", "table_seeds", *pages}
    out = folder / "results/smoke"
    drawn = rows(out / "figures/counts.csv")
    assert len(drawn) >= 5 and {r["space"] for r in drawn} == {"latent"}
    assert {r["method"]: r["seeds"] for r in rows(out / "tables/table_seeds.csv")} == {"cm": "2", "direct_cm": "2"}
    assert all((out / f"tables/table_seeds.{end}").stat().st_size for end in ("html", "tex"))
    assert {"figure_counts", "table_seeds"} <= {r["step"] for r in rows(out / "costs/paper.csv")}
    page = (out / "gallery/paper.html").read_text()
    assert "Samples behind each metric" in page and "Counted" in page
    assert "counts" in run("directcm", "figure", "--help").stdout
    assert "table_seeds" in run("directcm", "table", "--help").stdout
    goals = [str(out / name) for name in ("figures/counts.png", "tables/table_seeds.html")]
    done = run("snakemake", "--report", "report.html", *SMOKE, "--", *(str(Path(g).relative_to(folder)) for g in goals))
    assert done.returncode == 0, done.stderr[-4000:]
    report = (folder / "report.html").read_text()
    for words in ("Samples behind each metric", "Bars of one length", "How many training seeds", "FD-tiny is not FID"):
        assert words in report


def test_a_method_is_one_file_and_one_line(smoke: Path, tmp_path: Path) -> None:
    """Nothing else is touched, nothing that is there is made again, and it stands in the table, the figure and the costs."""
    folder = tmp_path / "copy"
    shutil.copytree(smoke, folder)
    (folder / "src/directcm/distill/methods/denoiser.py").write_text(DENOISER)
    preset = folder / "workflow/presets/smoke.yaml"
    before = preset.read_text()
    assert before.count("\nevaluation:") == 1
    preset.write_text(before.replace("\nevaluation:", "\n  - {method: [denoiser], seed: [0]}\nevaluation:"))
    goals = [f"results/smoke/{name}" for name in ("tables/table1.csv", "figures/results.pdf", "costs/main.csv")]
    run = make_run(folder)
    done = run("snakemake", "-n", *SMOKE, "--", *goals)
    assert done.returncode == 0, done.stderr
    jobs = planned(done.stdout + done.stderr)
    assert all(jobs[name] == 1 for name in ("train", "sample", "features", "evaluate"))
    assert not {"data", "teacher", "encode", "noise", "targets", "reference", "extractor", "evaluate_teacher"} & set(
        jobs
    )
    done = run("snakemake", "--cores", "1", *SMOKE, "--", *goals)
    assert done.returncode == 0, done.stderr[-4000:]
    table = rows(folder / "results/smoke/tables/table1.csv")
    there = {(r["metric"], r["reference"]) for r in table if r["row"] == "CM"}
    assert {(r["metric"], r["reference"]) for r in table if r["row"] == "Denoiser"} == there
    assert "Denoiser" in {r["row"] for r in rows(folder / "results/smoke/figures/results.csv")}
    assert int({r["step"]: r for r in rows(folder / "results/smoke/costs/main.csv")}["train"]["jobs"]) == 5
    assert run("directcm", "train", "--help").stdout.count("denoiser") >= 1


FIGURES = {"supervision", "samples", "gallery", "curves", "results", "sweep", "frontier", "compute", "error", "budget"}
FIGURES |= {"sensitivity", "map", "directions"}


@pytest.mark.parametrize(
    ("module", "figures"),
    [
        ("figures/style", FIGURES),
        ("figures/figure_map", {"map"}),
        ("figures/figure_sweep", {"sweep"}),
        ("tables/cells", set()),
    ],
)
def test_editing_a_figure_plans_that_figure_only(smoke: Path, module: str, figures: set[str]) -> None:
    path = smoke / f"src/directcm/analysis/{module}.py"
    before = path.read_text()
    try:
        path.write_text(before + "\nEDITED = True\n")
        done = make_run(smoke)("snakemake", "paper", "-n", *SMOKE)
        jobs = set(planned(done.stdout + done.stderr))
        # The gallery shows the pictures; Table 1 has a picture of its own. The report's first page has Table 1 and Figure 2.
        tables = {"table1", "table2", "table3", "table_metrics", "table_further", "table_comparison"}
        tables |= {"table_parts", "table_baselines", "table_within", "figure_results"}
        wanted = {f"figure_{name}" for name in figures} if figures else tables
        assert jobs == wanted | {"gallery"} | ({"opening"} if module in ("figures/style", "tables/cells") else set())
    finally:
        path.write_text(before)


def overlay_of(smoke: Path, tmp_path: Path, change: str, value: object) -> Path:
    """The smoke preset with one more value in the line of its grid that sweeps an axis."""
    preset = yaml.safe_load((smoke / "workflow/presets/smoke.yaml").read_text())
    line = next(axes for axes in preset["students"] if change in axes and "steps" not in axes)
    line[change].append(value)
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"students": preset["students"]}))
    return tmp_path / "more.yaml"


def test_one_more_value_of_n_plans_only_what_that_value_needs(smoke: Path, tmp_path: Path) -> None:
    done = make_run(smoke)("snakemake", "paper", "-n", *SMOKE, str(overlay_of(smoke, tmp_path, "N", 5)))
    assert done.returncode == 0, done.stderr
    jobs = planned(done.stdout + done.stderr)
    made = {
        "train": 2,
        "targets": 2,
        "reference": 4,  # two shards, and two of the floor
        "endpoints": 2,
        "error_by_time": 2,
        "sample": 2,
        "features": 2,
        "features_teacher": 2,
        "evaluate": 2,
        "evaluate_teacher": 1,
        "evaluate_floor": 1,
        "baselines": 1,
        "cards": 1,
        "compare": 1,
        "collect": 1,
    }
    assert {name: jobs[name] for name in made} == made
    assert not {"teacher", "encode", "noise", "extractor", "data", "trajectories"} & set(jobs)
    # What only the main comparison feeds stays as it is.
    assert not {"table1", "figure_results", "figure_samples", "figure_curves"} & set(jobs)


def test_sets_that_are_not_plain_are_made_beside_what_is_there(smoke: Path, tmp_path: Path) -> None:
    """From other starts, scaled, and by two students in turn; nothing that was made is made anew, no table reads them."""
    overlay = read_yaml(smoke / "workflow/presets/smoke.yaml")
    anatomy = {"starts": [0, 0.1], "scalings": ["raw", "slope"], "relays": ["cm"], "relay_at": [0.5]}
    overlay["students"].append({"method": ["direct_cm"], "seed": [0], **anatomy})
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"students": overlay["students"]}), encoding="utf-8")
    config = load_config(smoke / "config.yaml", smoke / "workflow/presets/smoke.yaml", tmp_path / "more.yaml")
    run = next(run for run in config.runs() if config.variants(run))
    out = smoke / "results/smoke"
    whole = [f"results/smoke/{folder}/manifest.json" for folder in paths.artefacts(config, config.grid(), "why")]
    snakemake = make_run(smoke)
    files = [*SMOKE, str(tmp_path / "more.yaml")]
    plain = snakemake("snakemake", "paper", "-n", *files)
    assert not {"sample", "features", "evaluate", "compare", "variants"} & set(planned(plain.stdout + plain.stderr))
    done = snakemake("snakemake", *whole, "-n", *files)
    jobs = planned(done.stdout + done.stderr)
    jobs.pop("untrained")
    assert jobs == {"variants": 1, "features": 1, "evaluate": 1}
    wanted = [f"metrics/students/variants/{run.key}", f"untrained/{run.ode.key}"]
    done = snakemake("snakemake", *(f"results/smoke/{name}/manifest.json" for name in wanted), "--cores", "2", *files)
    assert done.returncode == 0, done.stderr[-5000:]
    parts = open_collection(out / wanted[0], "metrics")
    assert list(parts) == [one.name for one in config.variants(run)] and len(parts) == 4
    for variant in config.variants(run):
        content = parts[variant.name].json("metrics.json")
        assert {
            name: content[name] for name in ("start", "scaling", "relay", "at") if name in content
        } == variant.varied
        assert {item["metric"] for item in content["metrics"]} >= {"ode_error", "fd_tiny", "clip_tiny"}
    untrained = open_artifact(out / wanted[1], "untrained").arrays("latents.safetensors")
    samples = open_collection(out / "samples" / run.key, "samples")["step~6,sampling_steps~1"].arrays(
        "latents.safetensors"
    )
    assert untrained["latents"].shape == samples["latents"].shape and (untrained["rows"] == samples["rows"]).all()
    for folder in ("benchmarks/variants", "benchmarks/untrained"):
        assert list((out / folder).glob("*.tsv"))
    for kind in ("samples/variants", "features/clip_tiny/students/variants", "metrics/students/variants", "untrained"):
        shutil.rmtree(out / kind)
    for name in ("variants", "untrained", "features/students/variants", "evaluate/students/variants"):
        shutil.rmtree(out / "benchmarks" / name)


def test_another_guidance_scale_plans_what_it_needs(smoke: Path, tmp_path: Path) -> None:
    done = make_run(smoke)("snakemake", "paper", "-n", *SMOKE, str(overlay_of(smoke, tmp_path, "w", 2)))
    jobs = planned(done.stdout + done.stderr)
    assert jobs["train"] == 2 and jobs["targets"] == 2 and jobs["reference"] == 4 and "endpoints" not in jobs
    assert not {"teacher", "encode", "noise", "extractor", "data"} & set(jobs)


def test_stock_diffusers_gives_the_students_own_sample(smoke: Path) -> None:
    """Must hold in a session that has never heard of this project: max difference 1e-4 in latents."""
    script = textwrap.dedent(
        """
        import csv, sys
        import torch
        from diffusers import StableDiffusionXLPipeline
        from safetensors.torch import load_file

        out = sys.argv[1]
        pipe = StableDiffusionXLPipeline.from_pretrained(f"{out}/teacher")
        noise = load_file(f"{out}/noise/noise.safetensors")["noise"][:16]
        prompts = [r["text"] for r in csv.DictReader(open(f"{out}/noise/prompts.csv", newline=""))][:16]
        embeds, _, pooled, _ = pipe.encode_prompt(prompts, do_classifier_free_guidance=False)
        side = pipe.unet.config.sample_size * pipe.vae_scale_factor
        ids = torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float32).expand(16, -1)
        bar = pipe.scheduler.alphas_cumprod[999].double()
        t = 1000.0
        c_skip, c_out = 0.25 / ((10 * t) ** 2 + 0.25), 10 * t / ((10 * t) ** 2 + 0.25) ** 0.5
        for student in sys.argv[2:]:
            pipe.load_lora_weights(f"{out}/students/{student}")
            steps = dict(part.split("~") for part in student.split(","))["steps"]
            saved = load_file(f"{out}/samples/{student}/step~{steps},sampling_steps~1/latents.safetensors")["latents"][:16]
            with torch.no_grad():
                eps = pipe.unet(
                    noise, 999, encoder_hidden_states=embeds, added_cond_kwargs={"text_embeds": pooled, "time_ids": ids}
                ).sample
            x0 = (noise - (1 - bar).sqrt().float() * eps) / bar.sqrt().float()
            print("difference", float((c_skip * noise + c_out * x0 - saved).abs().max()))
            pipe.unload_lora_weights()
        assert not any(name.startswith("directcm") for name in sys.modules)
        """
    )
    folders = sorted(
        (smoke / "results/smoke/students").glob("*N~10,w~3,adapter~lora4,loss~mse,lr~0.0001,*steps~6,seed~0")
    )
    assert len(folders) == 4  # both methods, two solvers
    done = subprocess.run(
        [sys.executable, "-c", script, str(smoke / "results/smoke"), *(folder.name for folder in folders)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "inconsistency was discovered" not in done.stderr
    differences = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("difference")]
    assert len(differences) == 4 and max(differences) <= 1e-4, differences
