"""The verb `variants`: a finished student's sets that are not plain, of the evaluation's noise: from other start times, scaled, or by
two students in turn.

A scaling (`statistics.scaling`) is fitted on the floor's noise: what the student makes of it in one step from the same start, against
the teacher's samples of it. It never sees the evaluation's noise, on which it is judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

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
from directcm.statistics.scaling import fit

# Its own code, for the keys of unfinished work.
CODE = "evaluation.variants"


@dataclass(frozen=True)
class Floor:
    """What scalings are fitted on: the floor's noise, and all shards of the teacher's samples of it."""

    noise: Artifact
    samples: Sequence[Artifact]

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
    its latents there are in `scratch` until all sets are written.
    """
    check_teacher(student, what.teacher)
    check(variants, student, relays, ode.N)
    for relay in relays:
        check_teacher(relay, what.teacher)
    scaled = {variant.start for variant in variants if variant.scaled}
    if scaled and (floor is None or not floor.samples):
        raise UserError(
            "variants: a scaling is fitted on the floor's noise; pass it and the teacher's samples of it with --floor-noise and --floor"
        )
    if floor is not None and scaled:
        floor.check(what, ode)
    blocks = block_ranges(len(what.initial), what.settings.block, 0, 1)
    starts = sorted({variant.start for variant in variants})
    progress = Progress("sample: student", len(what.initial) * passes(variants), "sample")
    inputs = {**what.inputs(), "student": student}
    who, theirs = students.load(what.model, student), {relay.run.method: relay for relay in relays}

    def key(settings: Mapping[str, Any], used: Mapping[str, Artifact]) -> dict[str, Any]:
        prints = {name: item.fingerprint for name, item in used.items()}
        return {**settings, "code": digest(CODE, loader(what.teacher)), **prints}

    def passed(source: Evaluated, index: int, name: str) -> Tensor:
        """One step of the student from a grid index of a noise: latents (n, …)."""

        def block(rows: range) -> dict[str, Tensor]:
            parts = []
            for some, latents in source.draw(who, ode.N, [index], rows):
                for row, latent in zip(some, latents, strict=True):
                    check_finite(latent, f"variants: row {row} of {source.noise.folder}")
                parts.append(latents)
                progress.update(len(some))
            return {"latents": torch.cat(parts)}

        own = key(source.settings_for(ode, index=index), {**source.inputs(), "student": student})
        return work(scratch / name, own, blocks, block, lambda rows: progress.skip(len(rows)))["latents"]

    def written(
        variant: Variant,
        make_block: Any,
        used: Mapping[str, Artifact],
        per_row: int,
        beside: Mapping[str, Mapping[str, Tensor]] = MappingProxyType({}),
    ) -> None:
        name = variant.name
        settings = what.settings_for(ode, step=variant.step, steps=variant.sampling_steps, **variant.varied)
        write(
            what, name, blocks, settings, used, make_block, progress, per_row, ["student_forwards"], scratch / name, out / name, CODE,
            beside=beside,
        )  # fmt: skip
        clear(scratch / name)

    for start in starts:
        index = grid_index(start, ode.N)
        mine = passed(what, index, f"start-{index}")
        if start in scaled:
            assert floor is not None
            fitted_on, truth = passed(what.under(floor.noise), index, f"floor-{index}").numpy(), floor.latents()
        for variant in (one for one in variants if not one.relay and one.start == start):
            if not variant.scaled:
                written(variant, lambda rows, mine=mine: _counted(mine[_slice(rows)], 1), inputs, 0)
                continue
            assert floor is not None
            scaling = fit(variant.scaling, fitted_on, truth)
            about = {name: torch.from_numpy(getattr(scaling, name)) for name in ("source", "target", "gain")}

            def moved(rows: range, mine: Tensor = mine, scaling: Any = scaling) -> dict[str, Tensor]:
                made = scaling(mine[_slice(rows)].numpy())
                return _counted(torch.from_numpy(made.astype(np.float32)), 1)

            written(variant, moved, {**inputs, **floor.inputs()}, 0, {"scaling.safetensors": about})
        for variant in (one for one in variants if one.relay and start == 0):
            relay = theirs[variant.relay]
            second, at = students.load(what.model, relay), grid_index(variant.at, ode.N)

            def relayed(rows: range, mine: Tensor = mine, second: Student = second, at: int = at) -> dict[str, Tensor]:
                parts = []
                for some in batches(rows, what.settings.batch_size):
                    parts.append(_second(what, second, mine[_slice(some)], ode.N, at, some))
                    progress.update(len(some))
                return _counted(torch.cat(parts), 2)

            written(variant, relayed, {**inputs, "relay": relay}, 1)
    used = inputs | (floor.inputs() if floor is not None and scaled else {})
    used |= {f"relay_{method}": relay for method, relay in theirs.items()}
    new_collection(out, "samples", [variant.name for variant in variants], settings={}, inputs=used)
    clear(scratch)


def _slice(rows: range) -> slice:
    return slice(rows.start, rows.stop)


def _counted(latents: Tensor, steps: int) -> dict[str, Tensor]:
    """A block of a set: its latents, and the forwards that it takes by itself, the fit of a scaling apart."""
    return {"latents": latents, "forwards": torch.tensor([[len(latents) * steps]])}


@torch.no_grad()
def _second(what: Evaluated, student: Student, first: Tensor, intervals: int, index: int, rows: range) -> Tensor:
    """Latents (B, …) of the second of two steps, at a grid index, after a first one's, as `sample_at` makes it, fresh noise included."""
    device, process = student.teacher.device, student.process
    cond = what.pool.conditioning(what.ids[torch.tensor(rows)]).to(device)
    t = process.grid(intervals).to(device)[index].expand(len(first))
    eps = rng.normal(what.seed, "step_noise", rows, first.shape[1:], 2, 1).to(device)
    return student(process.renoise(first.to(device), eps, t), t, cond).float().cpu()
