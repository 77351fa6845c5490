"""The verb `sample`: samples of the teacher (many ODE steps) or of a student (few steps) from the shared noise."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from directcm.config import Evaluation, Ode
from directcm.diffusion.processes import Process
from directcm.diffusion.solvers import make_solver, solve
from directcm.diffusion.starts import pure_noise
from directcm.diffusion.teachers import Conditioning, Teacher, load, load_codec, loader
from directcm.diffusion.teachers.codec import Codec, to_images
from directcm.distill import students
from directcm.distill.encode import Latents
from directcm.distill.students import Student
from directcm.errors import UserError
from directcm.evaluation.common import check_finite, check_teacher
from directcm.runtime import rng
from directcm.runtime.artifacts import Artifact, new_artifact, new_collection, save_tensors
from directcm.runtime.blocks import batches, block_ranges, clear, work
from directcm.runtime.progress import Progress
from directcm.runtime.sources import digest
from directcm.runtime.threads import ahead
from directcm.runtime.times import step_indices

# What samples depend on, of the configuration's block "evaluation".
DRAWN = {"block", "batch_size", "precision"}
# (process, x at times t, the student's prediction `end`, t, s) → x at times s.
Jump = Callable[[Process, Tensor, Tensor, Tensor, Tensor], Tensor]


def set_name(step: int, sampling_steps: int) -> str:
    """The name of a set of samples in its run's collections: optimiser step and number of sampling steps."""
    return f"step~{step},sampling_steps~{sampling_steps}"


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
    """Latents (B, …) after student steps from noise (B, …) at these grid indices, ascending.

    The first is of pure noise, told its own time: where that is not the grid's first, of the noise that stands for x there (`pure_noise`).
    Between two steps: the method's `jump`, or else fresh noise, keyed by purpose, row, number of steps and step, not by the times.
    """
    device = student.teacher.device
    process = student.process
    grid = process.grid(intervals).to(device)
    x = pure_noise(process, noise.to(device), grid[indices[0]].expand(len(noise)))
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

    def settings_for(self, ode: Ode, **more: Any) -> dict[str, Any]:
        """The settings that all samples depend on, and more."""
        return {**self.settings.model_dump(include=DRAWN), "ode": ode.axes(), "seed": self.seed, **more}

    def inputs(self) -> dict[str, Artifact]:
        return {"teacher": self.teacher, "latents": self.latents, "noise": self.noise}

    def draw(
        self,
        student: Student,
        intervals: int,
        indices: Sequence[int],
        rows: range,
        purpose: str = "step_noise",
        jump: Jump | None = None,
    ) -> Iterator[tuple[range, Tensor]]:
        """Each batch of these rows, and a student's latents of it (B, …) on the CPU; see `sample_at`."""
        for some in batches(rows, self.settings.batch_size):
            here = torch.tensor(some)
            cond = self.pool.conditioning(self.ids[here]).to(self.device)
            noise = self.initial[here]
            made = sample_at(student, noise, cond, intervals, indices, self.seed, some, purpose, jump)
            yield some, made.float().cpu()


def write(
    what: Evaluated,
    name: str,
    blocks: list[range],
    settings: Mapping[str, Any],
    inputs: Mapping[str, Artifact],
    make_block: Callable[[range], dict[str, Tensor]],
    progress: Progress,
    per_row: int,
    counts: Sequence[str],
    scratch: Path,
    out: Path,
    *code: str,
    beside: Mapping[str, Mapping[str, Tensor]] = MappingProxyType({}),
) -> None:
    """Compute the blocks, decode, and write the samples artefact.

    A block has latents (B, …) and forwards (1, len(counts)). `progress` counts `per_row` a row, here for blocks that were there.
    `code`: further modules that a block depends on. `beside`: further files of tensors.
    """
    key = {
        **settings,
        "code": digest("evaluation.sampling", loader(what.teacher), *code),
        **{k: v.fingerprint for k, v in inputs.items()},
    }

    def block(rows: range) -> dict[str, Tensor]:
        made = make_block(rows)
        for row, latent in zip(rows, made["latents"], strict=True):
            check_finite(latent, f"sample: row {row}")
        return {**made, "rows": torch.tensor(rows)}

    done = work(scratch, key, blocks, block, lambda rows: progress.skip(len(rows) * per_row))
    forwards = done.pop("forwards").sum(0).tolist()
    with new_artifact(out, "samples", settings=settings, inputs=inputs) as art:
        save_tensors(art / "latents.safetensors", done)
        for file, tensors in beside.items():
            save_tensors(art / file, tensors)
        drawn = Progress(f"sample: {name}, decoding", len(done["rows"]), "image")

        def images() -> Iterator[tuple[Path, Image]]:
            # Block by block: which rows share a batch must not depend on the number of shards.
            for some in itertools.chain(*(batches(rows, what.settings.batch_size) for rows in blocks)):
                latents = done["latents"][some.start - blocks[0].start : some.stop - blocks[0].start]
                for row, image in zip(some, to_images(what.codec.decode(latents)), strict=True):
                    yield art / f"images/{row:05d}.png", image

        # Compressing takes longer than the VAE on a GPU: threads do it meanwhile, and at the level that is twice as fast.
        for _ in ahead(lambda item: item[1].save(item[0], compress_level=1), images(), torch.get_num_threads()):
            drawn.update(1)
        art.counts = {"samples": len(done["rows"]), **dict(zip(counts, forwards, strict=True))}


def sample_teacher(what: Evaluated, ode: Ode, shard: int, shards: int, scratch: Path, out: Path) -> None:
    """The teacher's samples with `ode`: an artefact with latents.safetensors (latents, rows) and images/<row>.png."""
    blocks = block_ranges(len(what.initial), what.settings.block, shard, shards)
    progress = Progress("sample: teacher", sum(map(len, blocks)) * ode.N, "ODE step")
    solver, size = make_solver(ode.solver), what.settings.batch_size

    def block(rows: range) -> dict[str, Tensor]:
        index = torch.tensor(rows)
        x, cond = what.model.process.prior(what.initial[index]), what.pool.conditioning(what.ids[index])
        starts = torch.zeros(len(x), dtype=torch.long)
        solved = solve(what.model, solver, x, starts, ode.N, cond, ode.w, size, progress.update)
        return {
            "latents": solved.ends.cpu(),
            "forwards": torch.tensor([[solved.forwards.made, solved.forwards.minimum]]),
        }

    settings = what.settings_for(ode, step=None, steps=None)
    counts = ("teacher_forwards", "teacher_forwards_minimum")
    write(what, "teacher", blocks, settings, what.inputs(), block, progress, ode.N, counts, scratch, out)
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
    check_teacher(student, what.teacher)
    if len(set(sets)) != len(sets):
        raise UserError("sample: a set is named twice; name each optimiser step and number of sampling steps once")
    if any(steps > ode.N for _, steps in sets):
        raise UserError(f"sample: more sampling steps than the N = {ode.N} intervals of the grid that they lie on")
    blocks = block_ranges(len(what.initial), what.settings.block, 0, 1)
    progress = Progress("sample: student", len(what.initial) * len(sets), "sample")
    inputs = {**what.inputs(), "student": student}
    run = student.run
    # Imported by name, so that samples depend on the code of their own method alone.
    code = f"distill.methods.{run.method}"
    method = importlib.import_module(f"directcm.{code}")
    jump, ready = (getattr(method, name, None) for name in ("jump", "ready"))
    for step, steps in sets:
        at = min(step, ready(steps, run.steps, run.N)) if ready else step
        if not at:
            raise UserError(f"sample: {steps} steps are the teacher's own, no student of {run.method} takes as many")
        who = students.load(what.model, student, at)

        def block(rows: range, who: Student = who, steps: int = steps) -> dict[str, Tensor]:
            parts = []
            for some, latents in what.draw(who, ode.N, step_indices(ode.N, steps), rows, jump=jump):
                parts.append(latents)
                progress.update(len(some))
            return {"latents": torch.cat(parts), "forwards": torch.tensor([[len(rows) * steps]])}

        name = set_name(step, steps)
        settings = what.settings_for(ode, step=step, steps=steps)
        where = (scratch / name, out / name)
        write(what, name, blocks, settings, inputs, block, progress, 1, ["student_forwards"], *where, code)
    new_collection(out, "samples", [set_name(*one) for one in sets], settings={}, inputs=inputs)
    clear(scratch)
