"""Two teachers in one run: what is drawn again, what is the same for both, and that the first stays where it was."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import pytest

from directcm.runtime.artifacts import Artifact, open_artifact, read_csv
from tests.runs import SMOKE, copy_repository, make_run, planned

pytestmark = pytest.mark.pipeline

# The latent error alone, so that neither extractor nor floor is made.
OVERLAY = """\
students: [{method: [cm, direct_cm]}, {method: [cm, direct_cm], teacher_seed: [2]}]
teacher: {micro_sdxl: {vae: {steps: 3}, unet: {steps: 3}}}
metrics: [ode_error]
targets: {shard: 64}
evaluation: {samples: 16, shards: 1, block: 16, batch_size: 16}
"""
ODE = "solver~ddim,N~10,w~3"
RUN = f"method~{{}},{ODE},adapter~lora4,loss~mse,lr~0.0001,batch_size~16,pool~64,steps~6,seed~0"


def checksums(one: Artifact, ending: str) -> set[str]:
    found = {digest for name, (_, digest) in one.checksums.items() if name.endswith(ending)}
    assert found
    return found


def test_a_teacher_is_drawn_again(tmp_path: Path) -> None:
    repository = copy_repository(tmp_path)
    run = make_run(repository)
    overlay = repository / "teachers.yaml"
    overlay.write_text(OVERLAY)
    table = "results/smoke/tables/table_teachers.csv"
    done = run("snakemake", table, "--cores", "2", *SMOKE, str(overlay))
    assert done.returncode == 0, done.stderr[-5000:] + done.stdout[-2000:]
    results = repository / "results/smoke"

    def both(kind: str, first: str, second: str) -> tuple[Artifact, Artifact]:
        a, b = (open_artifact(results / name, kind).verify() for name in (first, second))
        return a, b

    # Autoencoder, network, latents, start points and students are other ones …
    again = "teacher_seed~2"
    teachers, latents = both("teacher", "teacher", f"{again}/teacher"), both("latents", "latents", f"{again}/latents")
    for part in ("vae/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.safetensors"):
        assert checksums(teachers[0], part).isdisjoint(checksums(teachers[1], part))
    assert checksums(latents[0], "latents-00000.safetensors").isdisjoint(
        checksums(latents[1], "latents-00000.safetensors")
    )
    targets = both("targets", f"targets/{ODE}/shard~0", f"targets/{again}/{ODE}/shard~0")
    solved = [one.tensors("targets.safetensors") for one in targets]
    assert (
        solved[0]["time"].tolist() != solved[1]["time"].tolist()
        and solved[0]["id"].tolist() != solved[1]["id"].tolist()
    )
    # … and the split of the data, captions, prompts and initial noise are not.
    for name in ("images.csv", "captions.csv"):
        assert checksums(latents[0], name) == checksums(latents[1], name)
    noises = both("noise", "noise", f"{again}/noise")
    assert (
        noises[0].fingerprint == noises[1].fingerprint
        and noises[1].manifest["inputs"]["latents"] == latents[1].fingerprint
    )
    # Manifests say whose they are, those of the default teacher as ever.
    settings: list[Any] = [one.settings for one in (*targets, *teachers)]
    assert [one.get("teacher_seed") for one in settings] == [None, 2, None, None]
    assert settings[0]["seed"] == settings[2]["seed"] == 24 != settings[3]["seed"] == settings[1]["seed"]
    for method in ("cm", "direct_cm"):
        key = RUN.format(method)
        students = both("student", f"students/{key}", f"students/{again}/{key}")
        assert [one.run.key for one in students] == [key, f"{again}/{key}"]
        assert students[0].fingerprint != students[1].fingerprint
        assert [one.manifest["inputs"]["teacher"] for one in students] == [one.fingerprint for one in teachers]
    # A student is measured against its own teacher.
    found = [r for r in read_csv(results / "collected/teachers/comparisons.csv") if r["metric"] == "ode_error"]
    assert [line["teacher_seed"] for line in found] == ["0", "2"]
    metrics = [r for r in read_csv(results / "collected/teachers/metrics.csv") if r["metric"] == "ode_error"]
    for line in found:
        own = {
            r["method"]: float(r["value"]) for r in metrics if r["teacher_seed"] == line["teacher_seed"] and r["method"]
        }
        assert math.isclose(float(line["difference"]), own["cm"] - own["direct_cm"], rel_tol=0, abs_tol=1e-8)
    (row,) = (r for r in read_csv(repository / table) if r["metric"] == "ode_error")
    mean = sum(float(line["difference"]) for line in found) / 2
    assert math.isclose(float(row["difference"]), mean, rel_tol=0, abs_tol=1e-8) and row["n_teachers"] == "2"
    # Over prompts by each teacher's own comparison, of one seed: s/√n of its per-prompt differences.
    for line in found:
        folder = results / f"metrics/students/{'' if line['teacher_seed'] == '0' else f'{again}/'}"
        each = [
            {r["row"]: float(r["ode_error"]) for r in read_csv(next((folder / RUN.format(m)).rglob("per_sample.csv")))}
            for m in ("cm", "direct_cm")
        ]
        error = statistics.stdev(each[0][i] - each[1][i] for i in each[0]) / math.sqrt(len(each[0]))
        assert math.isclose(float(line["se_prompts"]), error, rel_tol=1e-6)
    assert 0 < float(row["p"]) <= 1 and float(row["low"]) < float(row["difference"]) < float(row["high"])
    # Without the second teacher all of the first's is there.
    overlay.write_text(OVERLAY.replace(", {method: [cm, direct_cm], teacher_seed: [2]}", ""))
    folders = [f"results/smoke/metrics/students/{RUN.format(method)}/manifest.json" for method in ("cm", "direct_cm")]
    alone = run("snakemake", *folders, "-n", *SMOKE, str(overlay))
    assert alone.returncode == 0 and planned(alone.stdout + alone.stderr) == {}, alone.stdout + alone.stderr


def test_of_a_teacher_that_exists_the_start_points_alone_are_drawn_again(repository: Path, tmp_path: Path) -> None:
    run = make_run(repository)
    overlay = tmp_path / "pinned.yaml"
    jobs, commands = [], []
    for line in ("{seed: [0]}", "{seed: [0], teacher_seed: [0, 1, 2]}"):
        overlay.write_text(f"students: [{line}]\n")
        done = run("snakemake", "paper", "-n", "-p", "--configfile", "workflow/presets/paper.yaml", str(overlay))
        assert done.returncode == 0, done.stderr
        jobs.append(planned(done.stdout + done.stderr))
        commands.append((done.stdout + done.stderr).splitlines())
    one, three = jobs
    assert all(
        three[rule] == one[rule] for rule in ("teacher", "encode", "reference", "evaluate_teacher", "features_teacher")
    )
    assert all(three[rule] == 3 * one[rule] for rule in ("targets", "train", "sample", "evaluate", "features"))
    assert (one.get("table_teachers"), three["table_teachers"], three["collect"]) == (None, 1, one["collect"] + 1)
    # Each teacher is compared by itself, and the claims about teachers are judged by the table of all.
    assert (three["compare"], three["baselines"]) == (one["compare"] + 2, one["baselines"])
    for verb in ("claims", "opening"):
        given = [sum(f"directcm {verb} " in line and " --teachers " in line for line in lines) for lines in commands]
        assert given == [0, 1], verb
