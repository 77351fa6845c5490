"""The smoke preset through real Snakemake: what it leaves, what re-runs and what does not, what stock diffusers makes of it."""

from __future__ import annotations

import csv
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from directcm import paths
from directcm.config import load_config
from tests.pipeline.conftest import SMOKE, make_run, planned

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]
COLUMNS = ["row", "steps", "metric", "reference", "mean", "sd", "n_seeds", "n_samples", "paper"]


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_table_1_is_tidy_and_complete(smoke: Path) -> None:
    table = rows(smoke / "results/smoke/tables/table1.csv")
    assert list(table[0]) == COLUMNS
    assert {r["row"] for r in table} == {"Teacher", "CM", "Direct CM"}
    students = [r for r in table if r["row"] != "Teacher"]
    assert {r["steps"] for r in students} == {"1", "2"}
    # The teacher has no distance to itself; everybody has one to the data.
    assert ("Teacher", "fd_tiny", "teacher") not in {(r["row"], r["metric"], r["reference"]) for r in table}
    assert ("Teacher", "fd_tiny", "data") in {(r["row"], r["metric"], r["reference"]) for r in table}
    for r in table:
        float(r["mean"])
        assert r["n_seeds"] == "1"
    # The paper's FID stands beside FD-tiny against the teacher, one step, and nowhere else.
    paper = {(r["row"], r["steps"], r["reference"]): r["paper"] for r in table if r["metric"] == "fd_tiny"}
    assert float(paper["CM", "1", "teacher"]) == 95.3 and float(paper["Direct CM", "1", "teacher"]) == 166.0
    assert paper["CM", "2", "teacher"] == "" and paper["CM", "1", "data"] == ""


def test_everything_that_was_promised_is_there(smoke: Path) -> None:
    out = smoke / "results/smoke"
    for name in (
        "tables/table1.tex",
        "tables/table1.html",
        "tables/table1.json",
        "tables/paired.csv",
        "tables/curves.csv",
        "figures/samples.pdf",
        "figures/samples.png",
        "figures/curves.pdf",
        "figures/results.pdf",
        "provenance.html",
        "costs.csv",
    ):
        assert (out / name).stat().st_size > 0, name
    cards = list(out.glob("students/*/README.md"))
    assert len(cards) == 2
    for card in cards:
        text = card.read_text(encoding="utf-8")
        for word in ("data", "teacher", "method", "budget", "FD-tiny", "load_lora_weights"):
            assert word in text
    assert list(out.glob("tensorboard/*/events*"))


def test_progress_says_which_of_how_many(smoke: Path) -> None:
    assert "steps (100%) done" in (smoke / "smoke.log").read_text()


def test_only_live_rows_were_evaluated(smoke: Path) -> None:
    costs = {r["step"]: r for r in rows(smoke / "results/smoke/costs.csv")}
    for step in ("targets", "reference", "train"):
        assert int(costs[step]["teacher_forwards"]) == int(costs[step]["teacher_forwards_minimum"]) > 0


def test_every_benchmark_is_in_the_costs(smoke: Path) -> None:
    config = load_config(smoke / "config.yaml", smoke / "workflow/presets/smoke.yaml")
    folder = smoke / "results/smoke/benchmarks"
    made = {path.relative_to(folder).as_posix() for path in folder.rglob("*.tsv")}
    assert made - {"provenance.tsv"} == set(paths.benchmarks(config))
    costs = {r["step"]: int(r["jobs"]) for r in rows(smoke / "results/smoke/costs.csv")}
    assert costs["evaluate"] == 5 and costs["train"] == 2 and costs["features"] == 6


def test_a_second_run_finds_nothing_to_do(smoke: Path) -> None:
    done = make_run(smoke)("snakemake", "--cores", "2", *SMOKE)
    assert done.returncode == 0
    assert "Nothing to be done" in done.stderr + done.stdout


def test_touching_every_source_re_runs_nothing(smoke: Path) -> None:
    for path in (smoke / "src").rglob("*.py"):
        path.touch()
    done = make_run(smoke)("snakemake", "-n", *SMOKE)
    assert done.returncode == 0 and planned(done.stdout + done.stderr) == {}


def test_editing_direct_cm_plans_direct_cm_and_nothing_else(smoke: Path) -> None:
    path = smoke / "src/directcm/methods/direct_cm.py"
    before = path.read_text()
    try:
        path.write_text(before + "\n# edited\n")
        done = make_run(smoke)("snakemake", "-n", "--quiet", "host", *SMOKE)
        jobs = planned(done.stdout + done.stderr)
        assert jobs["train"] == 1 and jobs["sample"] == 2 and jobs["evaluate"] == 2 and jobs["table"] == 1
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


def test_editing_the_style_plans_figures_only(smoke: Path) -> None:
    path = smoke / "src/directcm/analysis/style.py"
    before = path.read_text()
    try:
        path.write_text(before + "\n# edited\n")
        done = make_run(smoke)("snakemake", "-n", *SMOKE)
        assert set(planned(done.stdout + done.stderr)) == {"figure_samples", "figure_curves", "figure_results"}
    finally:
        path.write_text(before)


def test_another_guidance_scale_plans_what_it_needs(smoke: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "w.yaml"
    overlay.write_text(
        "students:\n  - {method: [cm, direct_cm], seed: [0]}\n  - {method: [direct_cm], w: [2], seed: [0]}\n"
    )
    done = make_run(smoke)("snakemake", "-n", *SMOKE, str(overlay))
    jobs = planned(done.stdout + done.stderr)
    assert jobs["train"] == 1 and jobs["targets"] == 2 and jobs["reference"] == 2
    assert not {"teacher", "encode", "noise", "extractor", "data"} & set(jobs)


def test_stock_diffusers_gives_the_students_own_sample(smoke: Path) -> None:
    """Must hold in a session that has never heard of this project: max difference 1e-4 in latents."""
    script = textwrap.dedent(
        """
        import csv, glob, sys
        import torch
        from diffusers import StableDiffusionXLPipeline
        from safetensors.torch import load_file

        out, student = sys.argv[1], sys.argv[2]
        pipe = StableDiffusionXLPipeline.from_pretrained(f"{out}/teacher")
        pipe.load_lora_weights(f"{out}/students/{student}")
        noise = load_file(f"{out}/noise/noise.safetensors")["noise"][:16]
        prompts = [r["text"] for r in csv.DictReader(open(f"{out}/noise/prompts.csv", newline=""))][:16]
        saved = load_file(f"{out}/samples/{student}/sampling_steps~1/latents.safetensors")["latents"][:16]
        with torch.no_grad():
            embeds, _, pooled, _ = pipe.encode_prompt(prompts, do_classifier_free_guidance=False)
            side = pipe.unet.config.sample_size * pipe.vae_scale_factor
            ids = torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float32).expand(16, -1)
            eps = pipe.unet(
                noise, 999, encoder_hidden_states=embeds, added_cond_kwargs={"text_embeds": pooled, "time_ids": ids}
            ).sample
        bar = pipe.scheduler.alphas_cumprod[999].double()
        x0 = (noise - (1 - bar).sqrt().float() * eps) / bar.sqrt().float()
        t = 1000.0
        c_skip, c_out = 0.25 / ((10 * t) ** 2 + 0.25), 10 * t / ((10 * t) ** 2 + 0.25) ** 0.5
        print(float((c_skip * noise + c_out * x0 - saved).abs().max()))
        assert not any(name.startswith("directcm") for name in sys.modules)
        """
    )
    for folder in sorted((smoke / "results/smoke/students").iterdir()):
        done = subprocess.run(
            [sys.executable, "-c", script, str(smoke / "results/smoke"), folder.name],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert "inconsistency was discovered" not in done.stderr
        assert float(done.stdout.split()[-1]) <= 1e-4
