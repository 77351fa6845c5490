"""The verb `sample`: what the teacher (many ODE steps) or a student (one or a few) makes of the shared noise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from directcm import rng, students
from directcm.artifacts import Artifact, new_artifact, save_tensors
from directcm.blocks import block_ranges, clear, work
from directcm.config import Evaluation
from directcm.encode import Latents
from directcm.errors import UserError
from directcm.progress import Progress
from directcm.solvers import make_solver, solve
from directcm.sources import digest
from directcm.students import Student
from directcm.teachers import Conditioning, load
from directcm.teachers.latent_diffusion import decode, load_vae


def step_indices(intervals: int, steps: int) -> list[int]:
    """Grid indices of `steps` student steps: round(linspace(0, N, steps, endpoint=False)) (METHODS.md, "Evaluation")."""
    return [int(i) for i in np.round(np.linspace(0, intervals, steps, endpoint=False))]


@torch.no_grad()
def sample_student(
    student: Student, noise: Tensor, cond: Conditioning, intervals: int, steps: int, seed: int, rows: range
) -> Tensor:
    """Latents (B, …) of `steps` student steps from noise (B, …): between two steps, fresh noise α x̂ + σ ε, keyed by row."""
    device = student.teacher.device
    process = student.process
    grid = process.grid(intervals).to(device)
    x = process.prior(noise).to(device)
    out = x
    for n, index in enumerate(step_indices(intervals, steps)):
        t = grid[index].expand(len(x))
        if n:
            eps = rng.normal(seed, "step_noise", rows, x.shape[1:], steps, n).to(device)
            x = process.diffuse(out, eps, t)
        out = student(x, t, cond)
    return out


def make(
    settings: Evaluation,
    teacher: Artifact,
    latents: Artifact,
    noise: Artifact,
    ode: Mapping[str, Any],
    shard: int,
    shards: int,
    student: Artifact | None,
    steps: int | None,
    seed: int,
    device: str,
    scratch: Path,
    out: Path,
) -> None:
    """Write a samples artefact: `latents.safetensors` (latents, rows) and images/<row>.png.

    Without `student`: the teacher's ODE under `ode` (solver, N, w). With it: `steps` student steps on that N's grid.
    """
    if noise.manifest["inputs"].get("latents") != latents.fingerprint:
        raise UserError(f"{noise.folder}: made for other latents; delete it and run again")
    precision = settings.precision
    model = load(teacher, device, precision)
    pool = Latents(latents)
    prompts = [pool.text[r["text"]] for r in noise.csv("prompts.csv")]
    ids_of_caption = {int(c): i for i, c in reversed(list(enumerate(pool.caption.tolist())))}
    ids = torch.tensor([ids_of_caption[c] for c in prompts])
    initial = noise.tensors("noise.safetensors")["noise"]
    vae = load_vae(teacher, device, precision)
    if student is not None:
        if student.manifest["inputs"]["teacher"] != teacher.fingerprint:
            raise UserError(f"{student.folder}: distilled from another teacher; train it again")
        who = students.load(model, student)
    blocks = block_ranges(len(initial), settings.block, shard, shards)
    rows_here = sum(len(b) for b in blocks)
    name = "sample: teacher" if student is None else "sample: student"
    progress = Progress(
        name, rows_here * (ode["N"] if student is None else 1), "ODE step" if student is None else "sample"
    )

    def block(rows: range) -> dict[str, Tensor]:
        index = torch.tensor(list(rows))
        made = minimum = 0
        if student is None:
            x = model.process.prior(initial[index])
            latent, count = solve(
                model,
                make_solver(ode["solver"]),
                x,
                torch.zeros(len(x), dtype=torch.long),
                ode["N"],
                pool.conditioning(ids[index]),
                ode["w"],
                settings.batch_size,
                progress.update,
            )
            made, minimum = count.made, count.minimum
        else:
            assert steps is not None
            parts = []
            for start in range(rows.start, rows.stop, settings.batch_size):
                some = range(start, min(start + settings.batch_size, rows.stop))
                here = torch.tensor(list(some))
                cond = pool.conditioning(ids[here]).to(device)
                parts.append(sample_student(who, initial[here], cond, ode["N"], steps, seed, some).float().cpu())
                progress.update(len(some))
            latent = torch.cat(parts)
        if not bool(torch.isfinite(latent).all()):
            bad = int(torch.nonzero(~torch.isfinite(latent).flatten(1).all(1))[0])
            raise UserError(f"sample: row {rows[bad]} is not finite; use evaluation.precision no or bf16")
        return {"latents": latent.cpu(), "rows": index, "forwards": torch.tensor([[made, minimum]])}

    key = {
        "code": digest("sampling"),
        "block": settings.block,
        "batch_size": settings.batch_size,
        "precision": precision,
        "ode": dict(ode),
        "steps": steps,
        "seed": seed,
        "teacher": teacher.fingerprint,
        "noise": noise.fingerprint,
        "student": student.fingerprint if student else None,
    }
    each = ode["N"] if student is None else 1
    done = work(scratch, key, blocks, block, lambda rows: progress.update(len(rows) * each))
    forwards = done.pop("forwards").sum(0).tolist()
    inputs = {"teacher": teacher, "latents": latents, "noise": noise} | ({"student": student} if student else {})
    public = {k: v for k, v in key.items() if k not in ("code", "teacher", "noise", "student")}
    with new_artifact(out, "samples", settings=public, inputs=inputs) as art:
        save_tensors(art / "latents.safetensors", done)
        drawn = Progress(f"{name}, decoding", rows_here, "image")
        first = blocks[0].start
        for rows in blocks:
            # By block, as they were solved: which rows share a batch must not depend on the number of shards.
            for start in range(rows.start, rows.stop, settings.batch_size):
                some = range(start, min(start + settings.batch_size, rows.stop))
                latents_ = done["latents"][some.start - first : some.stop - first]
                for row, image in zip(some, decode(vae, latents_), strict=True):
                    image.save(art / f"images/{row:05d}.png")
                drawn.update(len(some))
        art.counts = {"samples": rows_here}
        if student is None:
            art.counts |= {"teacher_forwards": forwards[0], "teacher_forwards_minimum": forwards[1]}
        else:
            art.counts |= {"student_forwards": rows_here * int(steps or 0)}
    clear(scratch)
