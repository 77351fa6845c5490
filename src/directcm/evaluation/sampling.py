"""The verb `sample`: samples of the teacher (many ODE steps) or of a student (few steps) from the shared noise."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from directcm.config import Evaluation, Ode
from directcm.diffusion.processes import Process
from directcm.diffusion.solvers import make_solver, solve
from directcm.diffusion.teachers import Conditioning, Teacher, load, load_codec, loader
from directcm.diffusion.teachers.codec import Codec, to_images
from directcm.distill import students
from directcm.distill.encode import Latents
from directcm.distill.students import Student
from directcm.errors import UserError
from directcm.runtime import rng
from directcm.runtime.artifacts import Artifact, new_artifact, new_collection, save_tensors
from directcm.runtime.blocks import block_ranges, clear, work
from directcm.runtime.progress import Progress
from directcm.runtime.sources import digest
from directcm.runtime.times import step_indices

# (process, x at times t, the student's prediction `end`, t, s) → x at times s.
Jump = Callable[[Process, Tensor, Tensor, Tensor, Tensor], Tensor]


def set_name(step: int, sampling_steps: int) -> str:
    """The name of a set of samples in its run's collections: optimiser step and number of sampling steps."""
    return f"step~{step},sampling_steps~{sampling_steps}"


def sample_student(
    student: Student,
    noise: Tensor,
    cond: Conditioning,
    intervals: int,
    steps: int,
    seed: int,
    rows: range,
    jump: Jump | None = None,
) -> Tensor:
    """Latents (B, …) after `steps` student steps from noise (B, …), at evenly spaced times (`step_indices`)."""
    return sample_at(student, noise, cond, intervals, step_indices(intervals, steps), seed, rows, jump=jump)


@torch.no_grad()
def sample_at(
    student: Student,
    noise: Tensor,
    cond: Conditioning,
    intervals: int,
    indices: Sequence[int],
    seed: int,
    rows: range,
    purpose: str = "step_noise",
    jump: Jump | None = None,
) -> Tensor:
    """Latents (B, …) after student steps from noise (B, …) at these grid indices, ascending from 0.

    Between two steps the method's `jump`, or else fresh noise, keyed by purpose, row, number of steps and step, not by the times.
    """
    device = student.teacher.device
    process = student.process
    grid = process.grid(intervals).to(device)
    x = process.prior(noise).to(device)
    out, before = x, grid[0].expand(len(x))
    for n, index in enumerate(indices):
        t = grid[index].expand(len(x))
        if n and jump:
            x = jump(process, x, out, before, t)
        elif n:
            eps = rng.normal(seed, purpose, rows, x.shape[1:], len(indices), n).to(device)
            x = process.renoise(out, eps, t)
        out, before = student(x, t, cond), t
    return out


@dataclass(frozen=True)
class Evaluated:
    """The inputs of sampling: the teacher, the prompts' conditioning and the initial noise."""

    settings: Evaluation
    teacher: Artifact
    latents: Artifact
    noise: Artifact
    seed: int
    device: str

    def __post_init__(self) -> None:
        if self.noise.manifest["inputs"].get("latents") != self.latents.fingerprint:
            raise UserError(f"{self.noise.folder}: made for other latents; delete it and run again")

    def under(self, noise: Artifact) -> Evaluated:
        """The same with another noise; teacher, codec and latents are shared."""
        other = replace(self, noise=noise)
        vars(other).update({name: getattr(self, name) for name in ("model", "codec", "pool")})
        return other

    @cached_property
    def model(self) -> Teacher:
        return load(self.teacher, self.device, self.settings.precision)

    @cached_property
    def codec(self) -> Codec:
        return load_codec(self.teacher, self.device, self.settings.precision)

    @cached_property
    def pool(self) -> Latents:
        return Latents(self.latents)

    @cached_property
    def ids(self) -> Tensor:
        """Per row the first image in the pool with the row's prompt."""
        prompts = [self.pool.text[r["text"]] for r in self.noise.csv("prompts.csv")]
        ids_of_caption = {int(c): i for i, c in reversed(list(enumerate(self.pool.caption.tolist())))}
        return torch.tensor([ids_of_caption[c] for c in prompts])

    @cached_property
    def initial(self) -> Tensor:
        return self.noise.tensors("noise.safetensors")["noise"]

    def key(self, ode: Ode) -> dict[str, Any]:
        """The settings that all samples depend on."""
        return {
            "block": self.settings.block,
            "batch_size": self.settings.batch_size,
            "precision": self.settings.precision,
            "ode": ode.axes(),
            "seed": self.seed,
        }

    def inputs(self) -> dict[str, Artifact]:
        return {"teacher": self.teacher, "latents": self.latents, "noise": self.noise}


def _finish(
    what: Evaluated,
    name: str,
    blocks: list[range],
    key: Mapping[str, Any],
    inputs: Mapping[str, Artifact],
    make_block: Callable[[range], dict[str, Tensor]],
    found: Callable[[range], None],
    scratch: Path,
    out: Path,
    counts: Callable[[int, int], dict[str, int]],
    *code: str,
) -> None:
    """Compute the blocks, decode, and write the samples artefact; `code`: further modules that the blocks depend on."""
    whole = {
        **key,
        "code": digest("evaluation.sampling", loader(what.teacher), *code),
        **{k: v.fingerprint for k, v in inputs.items()},
    }

    def block(rows: range) -> dict[str, Tensor]:
        made = make_block(rows)
        if not bool(torch.isfinite(made["latents"]).all()):
            bad = int(torch.nonzero(~torch.isfinite(made["latents"]).flatten(1).all(1))[0])
            raise UserError(f"sample: row {rows[bad]} is not finite; use evaluation.precision no or bf16")
        return {**made, "rows": torch.tensor(list(rows))}

    done = work(scratch, whole, blocks, block, found)
    forwards = done.pop("forwards").sum(0).tolist()
    rows_here = sum(len(b) for b in blocks)
    with new_artifact(out, "samples", settings=key, inputs=inputs) as art:
        save_tensors(art / "latents.safetensors", done)
        drawn = Progress(f"{name}, decoding", rows_here, "image")
        first = blocks[0].start
        for rows in blocks:
            # Block by block: which rows share a batch must not depend on the number of shards.
            for start in range(rows.start, rows.stop, what.settings.batch_size):
                some = range(start, min(start + what.settings.batch_size, rows.stop))
                latents = done["latents"][some.start - first : some.stop - first]
                for row, image in zip(some, to_images(what.codec.decode(latents)), strict=True):
                    image.save(art / f"images/{row:05d}.png")
                drawn.update(len(some))
        art.counts = {"samples": rows_here, **counts(*forwards)}


def sample_teacher(what: Evaluated, ode: Ode, shard: int, shards: int, scratch: Path, out: Path) -> None:
    """The teacher's samples with `ode`: an artefact with latents.safetensors (latents, rows) and images/<row>.png."""
    blocks = block_ranges(len(what.initial), what.settings.block, shard, shards)
    progress = Progress("sample: teacher", sum(len(b) for b in blocks) * ode.N, "ODE step")

    def block(rows: range) -> dict[str, Tensor]:
        index = torch.tensor(list(rows))
        x = what.model.process.prior(what.initial[index])
        solved = solve(
            what.model,
            make_solver(ode.solver),
            x,
            torch.zeros(len(x), dtype=torch.long),
            ode.N,
            what.pool.conditioning(what.ids[index]),
            ode.w,
            what.settings.batch_size,
            progress.update,
        )
        return {
            "latents": solved.ends.cpu(),
            "forwards": torch.tensor([[solved.forwards.made, solved.forwards.minimum]]),
        }

    _finish(
        what,
        "sample: teacher",
        blocks,
        {**what.key(ode), "step": None, "steps": None},
        what.inputs(),
        block,
        lambda rows: progress.update(len(rows) * ode.N),
        scratch,
        out,
        lambda made, minimum: {"teacher_forwards": made, "teacher_forwards_minimum": minimum},
    )
    clear(scratch)


def sample_students(
    what: Evaluated,
    ode: Ode,
    student: Artifact,
    sets: Sequence[tuple[int, int]],
    scratch: Path,
    out: Path,
) -> None:
    """A run's sets (optimiser step, sampling steps), each a samples artefact in a collection; times are on `ode`'s grid.

    If the method has `ready` (progressive distillation), the student for k sampling steps is taken from that training step.
    """
    if student.manifest["inputs"]["teacher"] != what.teacher.fingerprint:
        raise UserError(f"{student.folder}: distilled from another teacher; train it again")
    if len(set(sets)) != len(sets):
        raise UserError("sample: a set is named twice; name each optimiser step and number of sampling steps once")
    if any(steps > ode.N for _, steps in sets):
        raise UserError(f"sample: more sampling steps than the N = {ode.N} intervals of the grid that they lie on")
    blocks = block_ranges(len(what.initial), what.settings.block, 0, 1)
    rows_all = len(what.initial)
    progress = Progress("sample: student", rows_all * len(sets), "sample")
    inputs = {**what.inputs(), "student": student}
    run = student.run
    # Imported by name, so that samples depend on the code of their own method alone.
    method = importlib.import_module(f"directcm.distill.methods.{run.method}")
    jump, ready = (getattr(method, name, None) for name in ("jump", "ready"))
    for step, steps in sets:
        at = min(step, ready(steps, run.steps, run.N)) if ready else step
        if not at:
            raise UserError(f"sample: {steps} steps are the teacher's own, no student of {run.method} takes as many")
        who = students.load(what.model, student, at)

        def block(rows: range, who: Student = who, steps: int = steps) -> dict[str, Tensor]:
            parts = []
            for start in range(rows.start, rows.stop, what.settings.batch_size):
                some = range(start, min(start + what.settings.batch_size, rows.stop))
                here = torch.tensor(list(some))
                cond = what.pool.conditioning(what.ids[here]).to(what.device)
                made = sample_student(who, what.initial[here], cond, ode.N, steps, what.seed, some, jump)
                parts.append(made.float().cpu())
                progress.update(len(some))
            return {"latents": torch.cat(parts), "forwards": torch.tensor([[len(rows) * steps, len(rows) * steps]])}

        name = set_name(step, steps)
        _finish(
            what,
            f"sample: {name}",
            blocks,
            {**what.key(ode), "step": step, "steps": steps},
            inputs,
            block,
            lambda rows: progress.update(len(rows)),
            scratch / name,
            out / name,
            lambda made, minimum: {"student_forwards": made},
            f"distill.methods.{run.method}",
        )
    new_collection(out, "samples", [set_name(*one) for one in sets], settings={}, inputs=inputs)
    clear(scratch)
