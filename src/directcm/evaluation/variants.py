"""The verb `variants`: a finished student's sets that are not plain, of the evaluation's noise: from other start times, scaled, or by
two students in turn.

A scaling (`statistics.scaling`) is fitted on the floor's noise: what the student makes of it in one step from the same start, against
the teacher's samples of it. It never sees the evaluation's noise, on which it is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from directcm.config import Ode, Variant, grid_index, passes
from directcm.diffusion.teachers import loader
from directcm.distill import students
from directcm.distill.students import Student
from directcm.errors import UserError
from directcm.evaluation.common import check_finite, check_teacher, numbered
from directcm.evaluation.metrics.samples import read_prompts, read_samples
from directcm.evaluation.sampling import Evaluated, write
from directcm.runtime import rng
from directcm.runtime.artifacts import Artifact, new_collection
from directcm.runtime.blocks import batches, block_ranges, clear, work
from directcm.runtime.progress import Progress
from directcm.runtime.sources import digest
from directcm.statistics.scaling import Scaling, fit

# Its own code, for the keys of unfinished work.
CODE = "evaluation.variants"


@dataclass(frozen=True)
class Floor:
    """What scalings are fitted on: the floor's noise, and all shards of the teacher's samples of it."""

    noise: Artifact
    samples: Sequence[Artifact]

    @cached_property
    def latents(self) -> np.ndarray:
        """The teacher's final latents (n, …), row by row; UserError where a row is missing."""
        rows = len(read_prompts(self.noise))
        found = read_samples(self.samples, self.noise, rows)
        if found.rows.size != rows:
            raise UserError(
                f"{self.samples[0].folder}: its {len(self.samples)} shard(s) hold {found.rows.size} of {rows} rows of "
                f"{self.noise.folder}; pass all shards"
            )
        return found.latents()

    def inputs(self) -> dict[str, Artifact]:
        return {"floor_noise": self.noise, **numbered("floor", self.samples)}

    def check(self, what: Evaluated, ode: Ode) -> None:
        """UserError where it is the evaluation's noise, has other prompts, or is of another teacher or ODE."""
        if self.noise.fingerprint == what.noise.fingerprint:
            raise UserError(
                f"{what.noise.folder}: is the floor's noise too; a scaling must not be fitted on what it is judged on"
            )
        if read_prompts(self.noise) != read_prompts(what.noise):
            raise UserError(
                f"{what.noise.folder} and {self.noise.folder}: two draws of noise need the same prompts row by row; "
                "run the noise steps again"
            )
        for shard in self.samples:
            whose = shard.manifest["inputs"].get("teacher")
            if shard.settings.get("ode") != ode.axes() or whose != what.teacher.fingerprint:
                raise UserError(f"{shard.folder}: is not of this teacher and ODE; delete it and run again")


def check(variants: Sequence[Variant], student: Artifact, relays: Sequence[Artifact], intervals: int) -> None:
    """UserError unless the sets are a finished student's and not plain, on the grid, and their relays' students there."""
    run = student.run
    if len(set(variants)) != len(variants):
        raise UserError("variants: a set is named twice; name each once")
    there = {relay.run.method: relay for relay in relays}
    for variant in variants:
        if not variant.varied:
            raise UserError(f"variants: {variant.name} is a plain set; `sample` makes those")
        if variant.step != run.steps:
            raise UserError(
                f"variants: {variant.name} is of optimiser step {variant.step}, the finished student's is {run.steps}"
            )
        try:
            grid_index(variant.start, intervals), grid_index(variant.at, intervals)
        except ValueError as error:
            raise UserError(f"variants: {variant.name}: {error}") from None
        if variant.relay and variant.relay not in there:
            raise UserError(f"variants: {variant.name} needs the student of {variant.relay}; pass it with --relays")
    for method, relay in there.items():
        if relay.run != run.at(method=method):
            raise UserError(
                f"{relay.folder}: is not of the setting and seed of {student.folder}, whose relay it would be"
            )


@dataclass(frozen=True)
class _Work:
    """What all sets of a student share: where its passes are kept, and how a set is written."""

    what: Evaluated
    ode: Ode
    student: Artifact
    scratch: Path
    out: Path
    progress: Progress

    @property
    def blocks(self) -> list[range]:
        return block_ranges(len(self.what.initial), self.what.settings.block, 0, 1)

    def passed(self, source: Evaluated, who: Student, index: int, name: str) -> Tensor:
        """One step of the student from a grid index of a noise, latents (n, …); kept in `scratch` under a name, block by block."""

        def block(rows: range) -> dict[str, Tensor]:
            parts = []
            for some, latents in source.draw(who, self.ode.N, [index], rows):
                for row, latent in zip(some, latents, strict=True):
                    check_finite(latent, f"variants: row {row} of {source.noise.folder}")
                parts.append(latents)
                self.progress.update(len(some))
            return {"latents": torch.cat(parts)}

        inputs = {**source.inputs(), "student": self.student}
        key = {
            **source.settings_for(self.ode, index=index),
            "code": digest(CODE, loader(source.teacher)),
            **{one: item.fingerprint for one, item in inputs.items()},
        }
        found = work(self.scratch / name, key, self.blocks, block, lambda rows: self.progress.skip(len(rows)))
        return found["latents"]

    def write(
        self,
        variant: Variant,
        latents: Callable[[range], Tensor],
        more: Mapping[str, Artifact] = MappingProxyType({}),
        per_row: int = 0,
        beside: Mapping[str, Mapping[str, Tensor]] = MappingProxyType({}),
    ) -> None:
        """Write a set, of the latents of its rows; `more`: inputs beside those of every sample, `per_row`: what each adds to `progress`."""
        steps, name = variant.sampling_steps, variant.name

        def block(rows: range) -> dict[str, Tensor]:
            # What the set takes by itself; the fit of a scaling apart.
            return {"latents": latents(rows), "forwards": torch.tensor([[len(rows) * steps]])}

        settings = self.what.settings_for(self.ode, step=variant.step, steps=steps, **variant.varied)
        inputs = {**self.what.inputs(), "student": self.student, **more}
        where = (self.scratch / name, self.out / name)
        counts = ["student_forwards"]
        write(
            self.what, name, self.blocks, settings, inputs, block, self.progress, per_row, counts, *where, CODE, beside=beside
        )  # fmt: skip
        clear(self.scratch / name)


def make(
    what: Evaluated,
    ode: Ode,
    student: Artifact,
    variants: Sequence[Variant],
    relays: Sequence[Artifact],
    floor: Floor | None,
    scratch: Path,
    out: Path,
) -> None:
    """Write the sets of a finished student, each a samples artefact in a collection, its name the variant's; times are on `ode`'s grid.

    `relays`: the students that take second steps, this one among them where it is its own control. A set that is scaled has
    scaling.safetensors: source and target (D,), and gain, () or (D, D), float64. A student passes once over the noise from each start;
    its latents there are in `scratch` until all sets are written. Raises UserError where a set is none of these, where scalings have no
    floor or one that must not be theirs, and where a relay's student is not of the same setting and seed.
    """
    check(variants, student, relays, ode.N)
    for one in (student, *relays):
        check_teacher(one, what.teacher)
    scaled = {variant.start for variant in variants if variant.scaled}
    if scaled:
        if floor is None or not floor.samples:
            raise UserError(
                "variants: a scaling is fitted on the floor's noise; pass it and the teacher's samples of it with --floor-noise and --floor"
            )
        floor.check(what, ode)
    progress = Progress("sample: student", len(what.initial) * passes(variants), "sample")
    doing = _Work(what, ode, student, scratch, out, progress)
    who = students.load(what.model, student)
    for start in sorted({variant.start for variant in variants}):
        index = grid_index(start, ode.N)
        mine = doing.passed(what, who, index, f"start-{index}")
        alike = [variant for variant in variants if variant.start == start]
        for variant in alike:
            if not variant.scaled and not variant.relay:
                doing.write(variant, _rows_of(mine))
        if start in scaled:
            assert floor is not None
            fitted_on = doing.passed(what.under(floor.noise), who, index, f"floor-{index}").numpy()
            for variant in alike:
                if variant.scaled:
                    scaling = fit(variant.scaling, fitted_on, floor.latents)
                    about = {name: torch.tensor(getattr(scaling, name)) for name in ("source", "target", "gain")}
                    doing.write(variant, _scaled(mine, scaling), floor.inputs(), beside={"scaling.safetensors": about})
        for relay in relays:
            second = None
            for variant in alike:
                if variant.relay == relay.run.method:
                    second = second or students.load(what.model, relay)
                    latents = _relayed(doing, mine, second, grid_index(variant.at, ode.N))
                    doing.write(variant, latents, {"relay": relay}, per_row=1)
    used = {**what.inputs(), "student": student, **(floor.inputs() if floor is not None and scaled else {})}
    used |= {f"relay_{relay.run.method}": relay for relay in relays}
    new_collection(out, "samples", [variant.name for variant in variants], settings={}, inputs=used)
    clear(scratch)


def _rows_of(latents: Tensor) -> Callable[[range], Tensor]:
    return lambda rows: latents[rows.start : rows.stop]


def _scaled(latents: Tensor, scaling: Scaling) -> Callable[[range], Tensor]:
    return lambda rows: torch.from_numpy(scaling(latents[rows.start : rows.stop].numpy()).astype(np.float32))


def _relayed(doing: _Work, first: Tensor, student: Student, index: int) -> Callable[[range], Tensor]:
    """Of rows the latents of the second of two steps, at a grid index, after a first one's: as `sample_at` makes it, fresh noise included."""
    what, process, device = doing.what, student.process, student.teacher.device

    @torch.no_grad()
    def latents(rows: range) -> Tensor:
        parts = []
        for some in batches(rows, what.settings.batch_size):
            cond = what.pool.conditioning(what.ids[torch.tensor(some)]).to(device)
            out = first[some.start : some.stop].to(device)
            t = process.grid(doing.ode.N).to(device)[index].expand(len(some))
            eps = rng.normal(what.seed, "step_noise", some, out.shape[1:], 2, 1).to(device)
            parts.append(student(process.renoise(out, eps, t), t, cond).float().cpu())
            doing.progress.update(len(some))
        return torch.cat(parts)

    return latents
