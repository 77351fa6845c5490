"""The verb `edit`: zero-shot editing of held-out images by a finished student (Song et al. 2303.01469, Algorithm 4 and Appendix D).

A part of an image y is known: some coefficients A y in an orthonormal basis, which are put back after every step. They are pixels
outside a square (inpainting), luma (colourisation) or means of patches (super-resolution). Nothing is known in SDEdit, which starts
from strokes at a middle time, and in denoising. Interpolation is spherical, from one noise to another. The teacher does the same
with its solved ODE in the student's place: the error that it makes too is not due to distillation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from directcm.config import Editing, Ode
from directcm.config.registry import methods
from directcm.diffusion.processes import Process
from directcm.diffusion.solvers import Count, make_solver, solve
from directcm.diffusion.teachers import Conditioning, Teacher, load, load_codec
from directcm.distill import students
from directcm.distill.encode import Latents
from directcm.errors import UserError
from directcm.evaluation.common import check_finite, check_teacher
from directcm.runtime import rng
from directcm.runtime.artifacts import Artifact, new_artifact, save_tensors, write_csv, write_json
from directcm.runtime.progress import Progress
from directcm.runtime.times import step_indices

# Weights of red, green and blue in luma, as in Song et al. (ITU-R BT.601).
LUMA = (0.2989, 0.5870, 0.1140)
TONES = 4
INTERPOLATION = "interpolation"
COLUMNS = ["image", "edit", "mse", "input_mse", "mean_mse"]

# (x (B, …), its grid index, its conditioning) → the endpoint of the ODE through x.
Flow = Callable[[Tensor, int, Conditioning], Tensor]


# ----------------------------------------------------------------- what is known


def reflection(first: Tensor) -> Tensor:
    """A symmetric orthogonal float64 (n, n) matrix whose first row u is `first` (n,), normalised.

    Householder's ±(2wwᵀ/‖w‖² − I) with w = u ± e₁; the sign is that of u₁, against cancellation.
    """
    unit = first.double() / first.double().norm()
    eye = torch.eye(len(unit), dtype=torch.float64)
    sign = 1.0 if unit[0] >= 0 else -1.0
    w = unit + sign * eye[0]
    return sign * (2 * torch.outer(w, w) / (w @ w) - eye)


@dataclass(frozen=True)
class Part:
    """The unknown coefficients Ω, bool (c, h, w), of A x, where `transform` is A: orthogonal and its own inverse."""

    transform: Callable[[Tensor], Tensor]
    unknown: Tensor

    def put_back(self, y: Tensor, x: Tensor) -> Tensor:
        """A⁻¹[(A y)(1 − Ω) + (A x)Ω] (B, c, h, w), float64: the known part from y, the rest from x."""
        return self.transform(torch.where(self.unknown, self.transform(x.double()), self.transform(y.double())))

    def known_error(self, x: Tensor, y: Tensor) -> float | None:
        """The largest |A x − A y| on the known part; None where nothing is known."""
        off = (self.transform(x.double()) - self.transform(y.double()))[:, ~self.unknown]
        return float(off.abs().max()) if off.numel() else None

    def squares(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean of (A x − A y)² over the unknown part per row, float64 (B,)."""
        return ((self.transform(x.double()) - self.transform(y.double()))[:, self.unknown] ** 2).mean(1)


def whole(shape: tuple[int, ...]) -> Part:
    """Nothing is known."""
    return Part(lambda x: x, torch.ones(shape, dtype=torch.bool))


def inpainting(shape: tuple[int, ...]) -> Part:
    """A central square of half the side is unknown."""
    unknown = torch.zeros(shape, dtype=torch.bool)
    _, h, w = shape
    unknown[:, h // 4 : h // 4 + h // 2, w // 4 : w // 4 + w // 2] = True
    return Part(lambda x: x, unknown)


def colourisation(shape: tuple[int, ...]) -> Part:
    """Every pixel's luma is known, the first of three orthonormal colour coordinates."""
    colours = reflection(torch.tensor(LUMA, dtype=torch.float64))
    unknown = torch.ones(shape, dtype=torch.bool)
    unknown[0] = False
    return Part(lambda x: torch.einsum("ij,bjhw->bihw", colours, x), unknown)


def super_resolution(shape: tuple[int, ...], patch: int) -> Part:
    """The mean of every patch × patch pixels is known, the first of its patch² orthonormal coefficients."""
    within = reflection(torch.ones(patch**2))
    c, h, w = shape

    def transform(x: Tensor) -> Tensor:
        tiles = x.reshape(-1, c, h // patch, patch, w // patch, patch).transpose(3, 4)
        mixed = (tiles.reshape(*tiles.shape[:4], patch**2) @ within).reshape(tiles.shape)
        return mixed.transpose(3, 4).reshape(x.shape)

    unknown = torch.ones(shape, dtype=torch.bool)
    unknown[:, ::patch, ::patch] = False
    return Part(transform, unknown)


def strokes(x: Tensor) -> Tensor:
    """A stroke painting of images (B, c, h, w) in [−1, 1]: local means, rounded to TONES levels."""
    brush = 2 * (x.shape[-1] // 16) + 1
    broad = functional.avg_pool2d(x, brush, 1, brush // 2, count_include_pad=False)
    return ((broad.clamp(-1, 1) + 1) / 2 * (TONES - 1)).round() / (TONES - 1) * 2 - 1


# ----------------------------------------------------------------- the edits


def edit(
    flow: Flow,
    process: Process,
    grid: Tensor,
    indices: list[int],
    start: Tensor,
    cond: Conditioning,
    noise: Callable[[int], Tensor],
    put_back: Callable[[Tensor], Tensor],
) -> Tensor:
    """Algorithm 4 of Song et al. at the grid's `indices`, from `start` (B, …); `put_back` restores the known part after every step.

    `noise(n)` is the standard normal noise of step n. On the VE process the first step is x ~ N(start, t₁² I), every later one
    x ~ N(x, (t_n² − ε²) I); other processes use their `diffuse` and `renoise`.
    """
    x = start
    for n, index in enumerate(indices):
        t = grid[index].expand(len(x))
        x = put_back(flow((process.renoise if n else process.diffuse)(x, noise(n), t), index, cond))
    return x


def spherical(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Spherical interpolation of noises (B, …), float64 (B, …): a at share 0, b at 1 (Song et al., Appendix D)."""
    a, b = a.double(), b.double()
    flat, other = a.flatten(1), b.flatten(1)
    angle = ((flat * other).sum(1) / (flat.norm(dim=1) * other.norm(dim=1))).clamp(-1, 1).acos()
    angle = angle.reshape(-1, *([1] * (a.dim() - 1)))
    return torch.sin((1 - share) * angle) / angle.sin() * a + torch.sin(share * angle) / angle.sin() * b


def noise_level(process: Process, t: Tensor) -> Tensor:
    """σ(t)/α(t), float64 (B,): the standard deviation of the noise at the data's scale."""
    return process.sigma(t) / process.alpha(t)


def nearest(process: Process, grid: Tensor, level: float) -> int:
    """The grid index, above the end, whose noise level is nearest to `level` in log scale."""
    return int((noise_level(process, grid[:-1]).log() - math.log(level)).abs().argmin())


@dataclass(frozen=True)
class Edit:
    """One edit of images (n, c, h, w): grid indices, unknown part, and the image that is noised first (None: the known part)."""

    name: str
    indices: list[int]
    part: Part
    start: Tensor | None = None


def listed(settings: Editing, process: Process, intervals: int, images: Tensor) -> list[Edit]:
    """All edits but interpolation, at the times of sampling, from pure noise or from SDEdit's start."""
    shape = tuple(images.shape[1:])
    grid = process.grid(intervals)
    times = step_indices(intervals, min(settings.steps, intervals))
    begin = min(round(settings.start * intervals), intervals - 1)
    later = [begin + k for k in step_indices(intervals - begin, min(settings.steps, intervals - begin))]
    levels = sorted({nearest(process, grid, level) for level in settings.levels}, reverse=True)
    return [
        Edit("inpainting", times, inpainting(shape)),
        Edit("colourisation", times, colourisation(shape)),
        Edit("super_resolution", times, super_resolution(shape, settings.patch)),
        Edit("sdedit", later, whole(shape), strokes(images)),
        *(Edit(f"denoising_{i}", [index], whole(shape), images) for i, index in enumerate(levels, 1)),
    ]


def evaluations(settings: Editing, process: Process, intervals: int, side: int) -> tuple[int, int]:
    """The edits' cost per image: (calls of a student, ODE steps if the teacher does them)."""
    blank = torch.zeros(1, 3, side, side)
    indices = [index for one in listed(settings, process, intervals, blank) for index in one.indices]
    indices += [0] * settings.points
    return len(indices), sum(intervals - index for index in indices)


def summary(squares: Tensor | None) -> dict[str, float | None]:
    """The root of the mean over images of mean squares (n,), and its standard error by the delta method."""
    if squares is None:
        return {"rmse": None, "se": None}
    rmse = float(squares.mean().sqrt())
    se = float(squares.std()) / math.sqrt(len(squares)) / (2 * rmse) if rmse and len(squares) > 1 else 0.0
    return {"rmse": rmse, "se": se}


# ----------------------------------------------------------------- the verb


def mean_image(pool: Latents, block: int = 1024) -> Tensor:
    """The mean of the training images (c, h, w), float32."""
    total = sum(
        pool.latents(torch.tensor(pool.train[i : i + block])).double().sum(0) for i in range(0, len(pool.train), block)
    )
    return (torch.as_tensor(total) / len(pool.train)).float()


def _of_student(who: students.Student, grid: Tensor, batch_size: int) -> Flow:
    device = who.teacher.device

    def flow(x: Tensor, index: int, cond: Conditioning) -> Tensor:
        parts = []
        for rows in torch.arange(len(x)).split(batch_size):
            t = grid[index].to(device).expand(len(rows))
            parts.append(who(x[rows].float().to(device), t, cond.rows(rows).to(device)).float().cpu())
        return torch.cat(parts)

    return flow


def _of_teacher(model: Teacher, ode: Ode, batch_size: int, count: Count) -> Flow:
    method = make_solver(ode.solver)

    def flow(x: Tensor, index: int, cond: Conditioning) -> Tensor:
        starts = torch.full((len(x),), index)
        ends, _, made = solve(model, method, x.float(), starts, ode.N, cond, ode.w, batch_size)
        count.made, count.minimum = count.made + made.made, count.minimum + made.minimum
        return ends

    return flow


@torch.no_grad()
def make(
    settings: Editing,
    ode: Ode,
    batch_size: int,
    precision: str,
    teacher: Artifact,
    latents: Artifact,
    student: Artifact | None,
    reference: Artifact | None,
    seed: int,
    device: str,
    out: Path,
) -> None:
    """Write the edits of a finished student, or of the teacher's ODE if there is none; `reference`: the teacher's edits, for a student.

    `edits.safetensors`: truth (n, c, h, w); for every edit NAME its result (n, c, h, w), its input NAME.input, and NAME.mean, the mean
    training image with the known part put back; interpolation (n, points, c, h, w). `edits.json`: errors and their standard errors,
    from the mean squares in `per_image.csv` (COLUMNS). They are on the unknown part, against the truth. Interpolations are compared
    between their ends with the teacher's from the same noise; their "input" is the cross-fade of the teacher's ends.
    """
    intervals = ode.N
    public = {
        **settings.model_dump(mode="json"),
        **ode.axes(),
        "batch_size": batch_size,
        "precision": precision,
        "seed": seed,
    }
    inputs = {"teacher": teacher, "latents": latents}
    if load_codec(teacher, device, precision).latent:
        raise UserError(
            f"{teacher.folder}: diffuses latents; only a teacher on pixels has images to edit (teacher.kind edm or mixture)"
        )
    model = load(teacher, device, precision)
    process, pool = model.process, Latents(latents)
    count = Count()
    run = None
    if student is None:
        flow = _of_teacher(model, ode, batch_size, count)
    else:
        run = student.run
        if methods()[run.method].halves:
            raise UserError(
                f"{student.folder}: {run.method} knows pure noise alone, no image under less of it; it cannot edit"
            )
        check_teacher(student, teacher)
        if run.ode != ode:
            raise UserError(f"{student.folder}: trained on another ODE ({run.solver}, N = {run.N}, w = {run.w})")
        if reference is None:
            raise UserError("--reference is missing: the teacher's edits under the student's ODE")
        theirs = {k: v for k, v in reference.settings.items() if k != "run"}
        if theirs != public or reference.manifest["inputs"] != {k: v.fingerprint for k, v in inputs.items()}:
            raise UserError(
                f"{reference.folder}: edits of other images, or with other settings; delete it and run again"
            )
        inputs |= {"student": student, "reference": reference}
        flow = _of_student(students.load(model, student), process.grid(intervals), batch_size)
    held = pool.held_out
    ids = torch.tensor([held[i] for i in rng.permutation(seed, "edit_image", len(held))[: settings.images]])
    y, cond = pool.latents(ids), pool.conditioning(ids)
    n, shape, grid = len(y), tuple(y.shape[1:]), process.grid(intervals)
    mean = mean_image(pool).expand_as(y)
    todo = listed(settings, process, intervals, y)
    calls = sum(len(one.indices) for one in todo) + settings.points
    progress = Progress("edit", n * calls, "image")
    tensors = {"truth": y, "id": ids}
    numbers: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []

    def counted(x: Tensor, index: int, cond: Conditioning) -> Tensor:
        ends = flow(x, index, cond)
        progress.update(len(x))
        return ends

    def note(name: str, level: float, steps: int, known: float | None, *squares: Tensor | None) -> None:
        """Record an edit: mean squares (n,) of its result (None: not compared), of its input and of the mean image."""
        mine, raw, plain = map(summary, squares)
        about = {"edit": name, "level": level, "steps": steps, "n": n, "known_error": known}
        numbers.append({**about, **mine, "input": raw, "mean": plain})
        for i, image in enumerate(ids.tolist()):
            values = [None if each is None else float(each[i]) for each in squares]
            rows.append(dict(zip(COLUMNS, (image, name, *values), strict=True)))

    for one in todo:

        def noise(step: int, name: str = one.name) -> Tensor:
            return rng.normal(seed, f"edit_{name}", range(n), shape, step)

        def put_back(x: Tensor, part: Part = one.part) -> Tensor:
            return part.put_back(y, x)

        start = put_back(torch.zeros_like(y)) if one.start is None else one.start
        made = edit(counted, process, grid, one.indices, start, cond, noise, put_back)
        t = grid[one.indices[0]].expand(n)
        raw = process.clean(process.diffuse(y, noise(0), t), torch.zeros_like(y), t) if one.start is y else start
        plain = put_back(mean)
        level = float(noise_level(process, t[:1]))
        squares = [one.part.squares(x, y) for x in (made, raw, plain)]
        note(one.name, level, len(one.indices), one.part.known_error(made, y), *squares)
        tensors |= {one.name: made.float(), f"{one.name}.input": raw.float(), f"{one.name}.mean": plain.float()}

    a, b = (rng.normal(seed, "edit_interpolation", range(n), shape, end) for end in (0, 1))
    shares = [i / (settings.points - 1) for i in range(settings.points)]
    way = [spherical(a, b, share) for share in shares]
    ends_off = max(float((way[0] - a).abs().max()), float((way[-1] - b).abs().max()))
    path = torch.stack([counted(process.prior(z.float()), 0, cond) for z in way], 1)
    truth = path if reference is None else reference.tensors("edits.safetensors")[INTERPOLATION]
    fade = torch.stack([(1 - s) * truth[:, 0] + s * truth[:, -1] for s in shares], 1)
    between = truth[:, 1:-1].double()
    others = (fade[:, 1:-1], mean[:, None].expand_as(between))
    mine, *squares = (((x.double() - between) ** 2).flatten(1).mean(1) for x in (path[:, 1:-1], *others))
    compared = None if reference is None else mine
    note(INTERPOLATION, float(noise_level(process, grid[:1])), 1, ends_off, compared, *squares)
    tensors |= {INTERPOLATION: path.float()}
    for name, made in tensors.items():
        check_finite(made, f"edit: {name}")
    with new_artifact(out, "edits", settings={**public, "run": run and run.axes()}, inputs=inputs) as art:
        save_tensors(art / "edits.safetensors", tensors)
        write_json(art / "edits.json", numbers)
        write_csv(art / "per_image.csv", rows, COLUMNS)
        art.counts = {"images": n}
        if student is None:
            art.counts |= {"teacher_forwards": count.made, "teacher_forwards_minimum": count.minimum}
        else:
            art.counts |= {"student_forwards": n * calls}
