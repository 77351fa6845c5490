"""The verb `error_by_time`: a student's error by start time, against its own ODE and a refined one, in latents and pixels.

If the teacher diffuses pixels, only in these, unclamped. With f the student, e its own ODE's endpoint and r the refined one,
E‖f − r‖² = E‖f − e‖² + E‖e − r‖² + 2 E⟨f − e, e − r⟩: total = student error + solver error + cross term.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from directcm.config import TEACHER_SEED, Errors, Ode
from directcm.diffusion.teachers import load, load_codec
from directcm.distill import students
from directcm.distill.encode import Latents
from directcm.distill.targets import join
from directcm.errors import UserError
from directcm.evaluation.common import check_finite, check_teacher, numbered
from directcm.evaluation.endpoints import ErrorStarts
from directcm.runtime.artifacts import Artifact, new_artifact, write_csv
from directcm.runtime.blocks import batches
from directcm.runtime.progress import Progress

COLUMNS = ["time", "space", "student", "solver", "total", "cross", "n"]
POINTS = ["point", "time", "space", "student", "solver", "total"]


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
    # Whether it is this student's teacher, and which, its fingerprint has said.
    ode = Ode.of(endpoints[0].settings, f"{endpoints[0].folder}: its settings")
    if ode.but(TEACHER_SEED) != run.ode.but(TEACHER_SEED):
        raise UserError(f"{endpoints[0].folder}: not this student's ODE ({run.solver}, N = {run.N})")
    check_teacher(student, teacher)
    total = settings.times * settings.points
    ends, fine = join(endpoints, "endpoints", total), join(refined, "endpoints", total)
    model = load(teacher, device, precision)
    pool = Latents(latents)
    starts = ErrorStarts(pool, model.process, run.N, settings.times, settings.points, seed)
    who = students.load(model, student)
    codec = load_codec(teacher, device, precision)
    progress = Progress("error_by_time", total, "start point")
    errors: dict[str, list[Tensor]] = {"latent": [], "pixel": []} if codec.latent else {"pixel": []}
    with torch.no_grad():
        for some in batches(range(total), batch_size):
            part = slice(some.start, some.stop)
            ids, k, x = starts(some)
            t = starts.grid[k]
            if any(not torch.equal(t, solved["time"][part]) for solved in (ends, fine)):
                raise UserError(f"{refined[0].folder}: its start times are not those of {endpoints[0].folder}")
            f = who(x.to(device), t.to(device), pool.conditioning(ids).to(device)).float().cpu()
            three = [f, ends["endpoint"][part], fine["endpoint"][part]]
            if codec.latent:
                errors["latent"].append(split(*three))
                three = [codec.decode(z).cpu() for z in three]
            errors["pixel"].append(split(*three))
            progress.update(len(some))
    # All start times of a point lie side by side, from the largest on.
    times = ends["time"][: settings.times].tolist()
    rows, points = [], []
    for space, parts in errors.items():
        values = torch.cat(parts)
        check_finite(values, f"error_by_time: a {space} error of {student.folder}")
        for i, time in enumerate(times):
            here = values[i :: settings.times].contiguous()
            to_own, own_to_fine, to_fine = here.mean(0).tolist()
            fields = (time, space, to_own, own_to_fine, to_fine, to_fine - to_own - own_to_fine, len(here))
            rows.append(dict(zip(COLUMNS, fields, strict=True)))
        for i, three_ in enumerate(values.tolist()):
            point, place = divmod(i, settings.times)
            points.append(dict(zip(POINTS, (point, times[place], space, *three_), strict=True)))
    inputs = {"student": student, "teacher": teacher, "latents": latents}
    inputs |= numbered("endpoints", endpoints) | numbered("refined", refined)
    public = {"run": run.axes(), **settings.model_dump(mode="json"), "seed": seed, "precision": precision}
    with new_artifact(out, "errors", settings=public, inputs=inputs) as art:
        write_csv(art / "errors.csv", rows, COLUMNS)
        write_csv(art / "per_point.csv", points, POINTS)
        art.counts = {"start_points": total, "student_forwards": total}
