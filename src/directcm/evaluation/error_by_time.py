"""The verb `error_by_time`: a student's error by start time, against its own ODE and a refined one, in latents and pixels.

If the teacher diffuses pixels, only in these, unclamped. With f the student, e its own ODE's endpoint and r the refined one,
E‖f − r‖² = E‖f − e‖² + E‖e − r‖² + 2 E⟨f − e, e − r⟩: total = student error + solver error + cross term.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from directcm.config import Errors, Ode
from directcm.diffusion.teachers import load, load_codec
from directcm.distill import students
from directcm.distill.encode import Latents
from directcm.distill.targets import join
from directcm.errors import UserError
from directcm.evaluation.endpoints import ErrorStarts
from directcm.runtime.artifacts import Artifact, new_artifact, write_csv
from directcm.runtime.progress import Progress

COLUMNS = ["time", "space", "student", "solver", "total", "cross", "n"]


def split(f: Tensor, end: Tensor, refined: Tensor) -> Tensor:
    """(student, solver, total): mean squared differences per row, float64 (n, 3), of tensors (n, …)."""
    pairs = ((f, end), (end, refined), (f, refined))
    return torch.stack([((a.double() - b.double()) ** 2).flatten(1).mean(1) for a, b in pairs], 1)


def make(
    settings: Errors,
    batch_size: int,
    precision: str,
    student: Artifact,
    teacher: Artifact,
    latents: Artifact,
    endpoints: Sequence[Artifact],
    refined: Sequence[Artifact],
    seed: int,
    device: str,
    out: Path,
) -> None:
    """Write errors.csv (COLUMNS: means over the points of a start time) and per_point.csv of a finished student."""
    run = student.run
    for shard in (*endpoints, *refined):
        if shard.manifest["inputs"] != {"teacher": teacher.fingerprint, "latents": latents.fingerprint}:
            raise UserError(f"{shard.folder}: solved by another teacher or on other latents; delete it and run again")
        want = {"times": settings.times, "points": settings.points, "seed": seed, "w": run.w}
        if {k: shard.settings[k] for k in want} != want:
            raise UserError(f"{shard.folder}: solved from other start points or under another guidance; run it again")
    if Ode.of(endpoints[0].settings, f"{endpoints[0].folder}: its settings") != run.ode:
        raise UserError(f"{endpoints[0].folder}: not this student's ODE ({run.solver}, N = {run.N})")
    if student.manifest["inputs"]["teacher"] != teacher.fingerprint:
        raise UserError(f"{student.folder}: distilled from another teacher; train it again")
    total = settings.times * settings.points
    ends, fine = join(endpoints, "endpoints", total), join(refined, "endpoints", total)
    model = load(teacher, device, precision)
    pool = Latents(latents)
    starts = ErrorStarts(pool, model.process, run.N, settings.times, settings.points, seed)
    who = students.load(model, student)
    codec = load_codec(teacher, device, precision)
    progress = Progress("error_by_time", total, "start point")
    latent: list[Tensor] = []
    pixel: list[Tensor] = []
    with torch.no_grad():
        for start in range(0, total, batch_size):
            index = list(range(start, min(start + batch_size, total)))
            ids, k, x = starts(index)
            if not torch.equal(starts.grid[k], ends["time"][index]) or not torch.equal(
                starts.grid[k], fine["time"][index]
            ):
                raise UserError(f"{refined[0].folder}: its start times are not those of {endpoints[0].folder}")
            cond = pool.conditioning(ids).to(device)
            f = who(x.to(device), starts.grid[k].to(device), cond).float().cpu()
            three = (f, ends["endpoint"][index], fine["endpoint"][index])
            if codec.latent:
                latent.append(split(*three))
            pixel.append(split(*(codec.decode(z).cpu() if codec.latent else z for z in three)))
            progress.update(len(index))
    times = [float(t) for t in ends["time"]]
    spaces = {name: torch.cat(parts) for name, parts in (("latent", latent), ("pixel", pixel)) if parts}
    rows, points = [], []
    for space, values in spaces.items():
        if not bool(torch.isfinite(values).all()):
            raise UserError(
                f"error_by_time: a {space} error of {student.folder} is not finite; use evaluation.precision no or bf16"
            )
        for t in sorted(set(times), reverse=True):
            here = values[[i for i, time in enumerate(times) if time == t]]
            a, b, c = here.mean(0).tolist()
            rows.append(
                {"time": t, "space": space, "student": a, "solver": b, "total": c, "cross": c - a - b, "n": len(here)}
            )
        for i, (t, three_) in enumerate(zip(times, values.tolist(), strict=True)):
            point = {"point": i // settings.times, "time": t, "space": space}
            points.append(point | dict(zip(("student", "solver", "total"), three_, strict=True)))
    inputs = {"student": student, "teacher": teacher, "latents": latents}
    inputs |= {f"endpoints_{i}": a for i, a in enumerate(endpoints)} | {
        f"refined_{i}": a for i, a in enumerate(refined)
    }
    public = {"run": run.axes(), **settings.model_dump(mode="json"), "seed": seed, "precision": precision}
    with new_artifact(out, "errors", settings=public, inputs=inputs) as art:
        write_csv(art / "errors.csv", rows, COLUMNS)
        write_csv(art / "per_point.csv", points, ["point", "time", "space", "student", "solver", "total"])
        art.counts = {"start_points": total, "student_forwards": total}
