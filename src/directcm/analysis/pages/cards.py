"""The verb `cards`: students' model cards, README.md in the folder of each: data, teacher, method, budget, metrics.

One job writes all of a scope: a job per student would be a fifth of a large grid's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from directcm.config import Run, lora_rank, number
from directcm.config.specs import METHODS, METRICS, SOLVERS, TEACHERS, TeacherKind
from directcm.runtime.artifacts import Artifact, open_artifact, open_collection, read_json, write_csv, write_text
from directcm.runtime.times import told


def _escape(text: str) -> str:
    """Text that cannot open markup, a link or a table cell in Markdown."""
    return "".join("\\" + c if c in r"\`*_{}[]<>()#+!|$" else c for c in " ".join(text.split()))


# Student steps that a card's second call takes, where the student's grid has as many.
SEVERAL = 4


def _use(kind: TeacherKind, lora: bool, run: Run, teacher: Mapping[str, Any], caption: str) -> list[str]:
    """Lines of Python with which stock diffusers loads a student, and makes images with one on latents."""
    if not kind.latent:
        return [
            f"from diffusers import {kind.network}",
            "",
            f'unet = {kind.network}.from_pretrained("<this folder>", subfolder="unet")',
        ]
    variant, vae_variant = (
        f', variant="{teacher[key]}"' if teacher.get(key) else "" for key in ("variant", "vae_variant")
    )
    own_vae = teacher.get("vae_path") or teacher.get("vae_id")
    names = (
        ["AutoencoderKL"] * bool(own_vae)
        + ["LCMScheduler", "StableDiffusionXLPipeline"]
        + ["UNet2DConditionModel"] * (not lora)
    )
    loaded = 'pipe.unet = UNet2DConditionModel.from_pretrained("<this folder>", subfolder="unet")'
    lines = [
        f"from diffusers import {', '.join(names)}",
        "",
        f'pipe = StableDiffusionXLPipeline.from_pretrained("<teacher folder>"{variant})',
        *([f'pipe.vae = AutoencoderKL.from_pretrained("<its VAE\'s folder>"{vae_variant})'] if own_vae else []),
        "pipe.scheduler = LCMScheduler.from_config(",
        f"    pipe.scheduler.config, original_inference_steps={run.N}, clip_sample=False",
        ")",
        'pipe.load_lora_weights("<this folder>")' if lora else loaded,
    ]
    process = teacher["process"]
    if process["time_input"] == "one_based":
        return [*lines, "# It was told t itself, which stock schedulers do not tell: take a step by the formula below."]
    # As a Python text that cannot close the block of code around it.
    prompt = json.dumps(caption, ensure_ascii=False).replace("`", "\\x60")
    several = min(SEVERAL, run.N)
    says = {
        several: f"# {several} steps, at the times of this student's grid; from num_inference_steps diffusers takes others.",
        1: "# One step, without guidance, which the student has learnt already.",
    }
    for steps in sorted({1, several}):
        times = told(int(process["timesteps"]), run.N, steps)
        lines += [says[steps], f"image = pipe({prompt}, timesteps={times}, guidance_scale=1.0).images[0]"]
    return lines


_ON_CLEAN = "One step from noise x at t = T: f(x, T) = c_skip·x + c_out·(x − σ·ε̂)/α, without guidance."


def _formula(teacher: Mapping[str, Any]) -> str:
    """How a network on pixels makes an image under a teacher's process (processes.py)."""
    process = teacher["process"]
    classes = (
        "the classes in order, the last is none."
        if teacher.get("conditional", True)
        else "class_labels are 0, it knows no class."
    )
    if process["kind"] == "vp":
        return f"{_ON_CLEAN} The noise is ε̂ = unet(x, t − 1, class_labels); pixels in [−1, 1], {classes}"
    k = process["karras"]
    return (
        f"One step from noise x at t = T = {number(k['sigma_max'])}: f(x, T) = c_skip·x + c_out·F, without guidance; "
        f"with σ_d = {number(k['sigma_data'])}: F = unet(x/√(t² + σ_d²), 250·ln t, class_labels); "
        f"pixels in [−1, 1], {classes}"
    )


def card(student: Artifact, teacher: Artifact, data: Artifact, metrics: Sequence[Artifact]) -> str:
    """The card in Markdown, from the artefacts' own manifests; every number in it was measured by this run."""
    run = student.run
    counts, settings = student.counts, student.settings
    made = read_json(student.folder / "provenance.json")
    about = data.json("data.json")
    lora = lora_rank(run.adapter) is not None
    kind = teacher.settings["kind"]
    pinned = kind == "diffusers"
    origin = kind
    if pinned:
        origin = teacher.settings["path"] or f"{teacher.settings['id']} at revision {teacher.settings['revision']}"
    caption = next(row["text"] for row in data.csv("images.csv") if row["split"] == "train")
    lines = [
        "---",
        "library_name: diffusers",
        # A student of somebody's teacher is under that teacher's licence.
        f"license: {'other' if pinned else 'apache-2.0'}",
        "tags: [consistency-model, distillation" + (", lora]" if lora else "]"),
        "---",
        "",
        f"# {METHODS[run.method]}, one step, seed {run.seed}",
        "",
        "A student of *Inconsistencies In Consistency Models* (arXiv 2411.08954), made by this repository's pipeline.",
        "",
        "| | |",
        "|---|---|",
        f"| data | {_escape(about['name'])}, {about['n_train']} training images at {about['resolution']} px, fingerprint `{data.fingerprint[:16]}` |",
        f"| teacher | {_escape(origin)}, fingerprint `{teacher.fingerprint[:16]}` |",
        f"| method | {METHODS[run.method]}; {SOLVERS[run.solver]}, N = {run.N}, w = {number(run.w)}; loss {run.loss} |",
        f"| weights | {run.adapter}, {counts['trainable_parameters']:,} trained |",
        f"| budget | {run.steps} steps of {run.batch_size}, AdamW, lr {number(run.lr)}, weight decay {number(settings['weight_decay'])}, "
        f"gradient clip {number(settings['grad_clip'])}, precision {settings['precision']} |",
        f"| pairs | {counts['pairs_drawn']:,} drawn, {counts['distinct_pairs']:,} distinct |",
        f"| commit | `{(made['commit'] or 'unknown')[:12]}` |",
        "",
        "## Use",
        "",
        "```python",
        *_use(TEACHERS[kind], lora, run, teacher.settings, caption),
        "```",
        "",
        _ON_CLEAN if TEACHERS[kind].latent else _formula(teacher.settings),
        "",
        "## Metrics of this student",
        "",
        "| trained for | sampling steps | metric | reference | value | interval | n |",
        "|---|---|---|---|---|---|---|",
    ]
    for artifact in metrics:
        content = artifact.json("metrics.json")
        for m in content["metrics"]:
            spec = METRICS[m["metric"]]
            interval = "" if m["low"] is None else f"{m['low']:.{spec.decimals}f} to {m['high']:.{spec.decimals}f}"
            lines.append(
                f"| {content['step']} | {content['steps']} | {spec.title} | {m['reference']} | {m['value']:.{spec.decimals}f} | {interval} | {m['n']} |"
            )
    lines += [
        "",
        "A metric called *-tiny* stands on a small network trained on this run's own images; it is not the metric it is named after.",
        "",
    ]
    return "\n".join(lines)


def cards(results: Path, runs: Sequence[Run], out: Path) -> int:
    """Write README.md into the folder of each run's student, and into the CSV `out` which student has which; returns how many.

    `results` is the folder of the preset, with data, teacher, students and their metrics. A card that is there and would be
    the same stays untouched.
    """
    data, teacher = open_artifact(results / "data", "data"), open_artifact(results / "teacher", "teacher")
    rows = []
    for run in runs:
        student = open_artifact(results / "students" / run.key, "student")
        metrics = open_collection(results / "metrics/students" / run.key, "metrics")
        text = card(student, teacher, data, list(metrics.values()))
        file = student.folder / "README.md"
        if not file.is_file() or file.read_bytes() != text.encode("utf-8"):
            write_text(file, text)
        rows.append({"student": run.key, "sha256": hashlib.sha256(text.encode("utf-8")).hexdigest()})
    write_csv(out, rows, ["student", "sha256"])
    return len(rows)
