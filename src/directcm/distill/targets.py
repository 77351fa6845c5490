"""The verb `targets`: start points (latent, noise, time), and the ODE solved from each once: its first step and its endpoint.

CM and Direct CM train on the same start points in the same order; only the target differs. Direct CM's target is the endpoint.
CM's is the student at the first step Φ¹(x_s), so a CM that reads it needs no teacher. The pool of start points is infinite: a
student uses the first `pool` of them, and a shard is a contiguous part.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from directcm.config import Errors, Ode, Targets
from directcm.diffusion.processes import Process
from directcm.diffusion.solvers import Count, Solved, Solver, make_solver, solve
from directcm.diffusion.teachers import Teacher, load, loader
from directcm.distill.encode import Latents
from directcm.errors import UserError
from directcm.runtime import rng
from directcm.runtime.artifacts import Artifact, new_artifact, save_tensors
from directcm.runtime.blocks import batches, clear, work
from directcm.runtime.progress import Progress
from directcm.runtime.sources import digest


class Starts:
    """The pool of start points (image id, grid index, x_s), each determined by its index j alone.

    The image is the j-th of an endless shuffled stream of the training images. The grid index is ⌊u_j·N⌋ with u_j uniform, so
    the time s is uniform over the N grid times above the end; with a `density` that share of them is in the noisiest tenth
    (`noisy_index`). The noise is keyed by j.
    """

    def __init__(
        self, latents: Latents, process: Process, intervals: int, seed: int, density: str | float = "uniform"
    ) -> None:
        self.latents, self.process, self.intervals, self.seed = latents, process, intervals, seed
        self.density = density
        self.grid = process.grid(intervals)

    def ids(self, index: Sequence[int]) -> Tensor:
        """Image ids (B,) of pool indices."""
        train = self.latents.train
        low = min(index)
        stream = rng.stream(self.seed, "start_image", low, max(index) + 1 - low, len(train))
        return torch.tensor([train[stream[j - low]] for j in index])

    def grid_index(self, index: Sequence[int]) -> Tensor:
        """Indices into the grid (B,): 0 is pure noise, N − 1 the last time above the end."""
        u = rng.uniform(self.seed, "start_time", index)
        if isinstance(self.density, str):
            return torch.from_numpy(np.floor(u * self.intervals).astype(np.int64))
        return torch.from_numpy(noisy_index(u, self.intervals, self.density))

    def pairs(self, index: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """(image ids (B,), images x₀ (B, c, h, w), noises ε of the same shape)."""
        ids = self.ids(index)
        x0 = self.latents.latents(ids)
        return ids, x0, rng.normal(self.seed, "start_noise", index, x0.shape[1:])

    def __call__(self, index: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """(image ids (B,), grid indices (B,), x_s = α_s x₀ + σ_s ε (B, c, h, w))."""
        (ids, x0, eps), k = self.pairs(index), self.grid_index(index)
        return ids, k, self.process.diffuse(x0, eps, self.grid[k])


def noisy_index(u: np.ndarray, intervals: int, share: float) -> np.ndarray:
    """Grid indices (B,) of uniform numbers u in [0, 1): this share of them in the noisiest tenth, uniform within either part.

    The tenth ends with index N/10, which is in it: t ≥ 900 of 1000 on VP. A grid of one interval has one time.
    """
    noisy = min(intervals // 10 + 1, intervals)
    if noisy == intervals:
        return np.floor(u * intervals).astype(np.int64)
    first, rest = u / share * noisy, noisy + (u - share) / (1 - share) * (intervals - noisy)
    return np.clip(np.floor(np.where(u < share, first, rest)), 0, intervals - 1).astype(np.int64)


class FromPrior(Starts):
    """Start points "prior": pure noise at the first time, with the conditioning of the j-th image."""

    def grid_index(self, index: Sequence[int]) -> Tensor:
        return torch.zeros(len(index), dtype=torch.int64)

    def __call__(self, index: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        ids, _, eps = self.pairs(index)
        return ids, self.grid_index(index), self.process.prior(eps)


class OnTrajectories(FromPrior):
    """Start points "trajectory": index j is point j mod N of the teacher's trajectory j div N from pure noise."""

    def trajectories(self, index: Sequence[int]) -> list[int]:
        """The trajectories (B,) on which these start points lie."""
        return [j // self.intervals for j in index]

    def grid_index(self, index: Sequence[int]) -> Tensor:
        return torch.tensor([j % self.intervals for j in index])


STARTS = {"forward": Starts, "prior": FromPrior, "trajectory": OnTrajectories}


def follow(
    starts: OnTrajectories,
    solver: Solver,
    rows: Sequence[int],
    model: Teacher,
    w: float,
    batch_size: int,
    progress: Callable[[int], None],
) -> tuple[Tensor, Tensor, Tensor, Solved]:
    """(image ids, grid indices, x, solution) for start points on trajectories; each trajectory is solved once."""
    numbers = sorted(set(starts.trajectories(rows)))
    place = {number: i for i, number in enumerate(numbers)}
    ids, _, x = FromPrior.__call__(starts, numbers)
    grid, before = starts.grid.to(model.device), model.rows_evaluated
    states = torch.empty((starts.intervals + 1, *x.shape))
    states[0] = x
    with torch.no_grad():
        for first in range(0, len(numbers), batch_size):
            part = slice(first, first + batch_size)
            cond = starts.latents.conditioning(ids[part]).to(model.device)
            state = x[part].to(model.device)
            for step in range(starts.intervals):
                t, s = (grid[i].expand(len(state)) for i in (step, step + 1))
                state = solver.step(model, state, t, s, cond, w).float()
                states[step + 1, part] = state.cpu()
                progress(len(state))
    k = starts.grid_index(rows)
    which = torch.tensor([place[number] for number in starts.trajectories(rows)])
    made = model.rows_evaluated - before
    return ids[which], k, states[k, which], Solved(states[-1, which], states[k + 1, which], Count(made, made))


def first_steps(
    starts: Starts,
    solver: Solver,
    rows: Sequence[int],
    model: Teacher,
    w: float,
    batch_size: int,
    progress: Callable[[int], None],
) -> tuple[Tensor, Tensor, Tensor]:
    """(image ids (B,), grid indices (B,), x_next (B, c, h, w)): one step from each start point, whatever comes after."""
    ids, k, x = starts(rows)
    grid, states = starts.grid.to(model.device), []
    for some in batches(range(len(rows)), batch_size):
        part = slice(some.start, some.stop)
        at, cond = k[part].to(model.device), starts.latents.conditioning(ids[part]).to(model.device)
        with torch.no_grad():
            state = solver.step(model, x[part].to(model.device), grid[at], grid[at + 1], cond, w)
        states.append(state.float().cpu())
        progress(len(some))
    return ids, k, torch.cat(states)


def solve_starts(
    kind: str,
    starts: Any,
    sizes: Targets | Errors,
    shard: int,
    total: int | None,
    ode: Ode,
    model: Teacher,
    batch_size: int,
    key: Mapping[str, Any],
    inputs: Mapping[str, Artifact],
    scratch: Path,
    out: Path,
    first_step: bool = False,
) -> None:
    """Solve the ODE from a shard of start points; write `<kind>.safetensors`: index, id, time (B,), endpoint (B, c, h, w).

    `sizes` says how many start points are in a shard and in a block; a stopped job resumes after its last whole block. There are
    `total` of them in all (None: infinitely many). Targets also have x_next (B, c, h, w), the state one grid time after the start, and for start points on trajectories x itself;
    with `first_step` they have no endpoint, for the solve stops there.
    `starts(index)` gives (image ids, grid indices, x), `starts.latents` the conditioning by image id. `key` holds everything else
    that the result depends on: it is the artefact's settings and, with code and inputs, the key of unfinished work.
    """
    blocks = blocks_of(shard, sizes.shard, sizes.block, total)
    if not blocks:
        raise UserError(f"{kind}: shard {shard} is beyond the last; there are fewer start points")
    method, intervals = make_solver(ode.solver), ode.N
    grid = model.process.grid(intervals)

    def steps_of(rows: range) -> int:
        if first_step:
            return len(rows)
        if isinstance(starts, OnTrajectories):
            return intervals * len(set(starts.trajectories(rows)))
        return int((intervals - starts.grid_index(list(rows))).sum())

    progress = Progress(f"{kind}: shard {shard}", sum(map(steps_of, blocks)), "ODE step")

    def block(rows: range) -> dict[str, Tensor]:
        begun = time.perf_counter()
        found: dict[str, Tensor] = {}
        if first_step:
            before, per_step = model.rows_evaluated, method.evaluations_per_step * model.rows_per_prediction(ode.w)
            ids, k, x = first_steps(starts, method, list(rows), model, ode.w, batch_size, progress.update)
            solved = Solved(x, x, Count(model.rows_evaluated - before, len(rows) * per_step))
        elif isinstance(starts, OnTrajectories):
            ids, k, found["x"], solved = follow(starts, method, rows, model, ode.w, batch_size, progress.update)
        else:
            ids, k, x = starts(list(rows))
            solved = solve(
                model, method, x, k, intervals, starts.latents.conditioning(ids), ode.w, batch_size, progress.update
            )
        if kind == "targets":
            found["x_next"] = solved.first
        if not first_step:
            found["endpoint"] = solved.ends
        broken = torch.nonzero(~torch.isfinite(solved.ends).flatten(1).all(1)).flatten().tolist()
        if broken:
            raise UserError(
                f"{kind}: start point {rows[broken[0]]} ends in a number that is not finite; use precision no or bf16"
            )
        return {
            "index": torch.tensor(list(rows)),
            "id": ids,
            "time": grid[k],
            **found,
            "forwards": torch.tensor([[solved.forwards.made, solved.forwards.minimum]]),
            "seconds": torch.tensor([time.perf_counter() - begun], dtype=torch.float64),
        }

    settings = {**key, **ode.axes(), "block": sizes.block, "batch_size": batch_size}
    whole = {
        **settings,
        "code": digest(type(starts).__module__.removeprefix("directcm."), loader(inputs["teacher"])),
        **{name: item.fingerprint for name, item in inputs.items()},
    }
    done = work(scratch, whole, blocks, block, lambda rows: progress.skip(steps_of(rows)))
    made, minimum = done.pop("forwards").sum(0).tolist()
    seconds = float(done.pop("seconds").sum())
    with new_artifact(out, kind, settings=settings, inputs=inputs) as art:
        save_tensors(art / f"{kind}.safetensors", done)
        art.counts = {kind: len(done["index"]), "teacher_forwards": made, "teacher_forwards_minimum": minimum}
        # Only the solving, summed over blocks whichever attempt solved them: the targets' part of a student's cost.
        art.provenance["solving_seconds"] = round(seconds, 3)
    clear(scratch)


def blocks_of(shard: int, size: int, block: int, total: int | None = None) -> list[range]:
    """The blocks of shard `shard`, with `size` start points a shard and `total` in all (None: infinitely many)."""
    stop = (shard + 1) * size
    return batches(range(shard * size, stop if total is None else min(stop, total)), block)


def make(
    settings: Targets,
    ode: Ode,
    shard: int,
    teacher: Artifact,
    latents: Artifact,
    seed: int,
    device: str,
    precision: str,
    scratch: Path,
    out: Path,
    start_points: str = "forward",
    first_step: bool = False,
    density: str | float = "uniform",
) -> None:
    """Solve one shard's targets: start points shard·size … (shard + 1)·size − 1 of an infinite pool (STARTS).

    `first_step`: of noised images the first step alone, which is all that a CM asks the teacher for. `density`: of their times.
    """
    for flag, given in (("--first-step", first_step), ("--density", density != "uniform")):
        if given and start_points != "forward":
            raise UserError(f"targets: {flag} is of start points forward, not of {start_points}")
    model = load(teacher, device, precision)
    # The default is left out, so that older artefacts keep their fingerprint.
    other: dict[str, Any] = {} if start_points == "forward" else {"coupling": start_points}
    other |= {"first_step": True} if first_step else {}
    other |= {} if density == "uniform" else {"density": density}
    latent = Latents(latents)
    starts = (
        Starts(latent, model.process, ode.N, seed, density)
        if start_points == "forward"
        else STARTS[start_points](latent, model.process, ode.N, seed)
    )
    solve_starts(
        "targets",
        starts,
        settings,
        shard,
        None,
        ode,
        model,
        settings.batch_size,
        {"seed": seed, "precision": precision, **other},
        {"teacher": teacher, "latents": latents},
        scratch,
        out,
        first_step,
    )


def join(shards: Sequence[Artifact], kind: str = "targets", count: int | None = None) -> dict[str, Tensor]:
    """The first `count` rows of all shards, by index; UserError if the shards do not belong together or rows are missing."""
    first = shards[0]
    for shard in shards[1:]:
        if shard.settings != first.settings or shard.manifest["inputs"] != first.manifest["inputs"]:
            raise UserError(
                f"{shard.folder}: not solved with the settings of {first.folder}; delete both and run again"
            )
    parts = [s.tensors(f"{kind}.safetensors") for s in shards]
    joined = {k: torch.cat([p[k] for p in parts]) for k in parts[0]}
    order = torch.argsort(joined["index"])
    want = len(order) if count is None else count
    joined = {k: v[order][:want] for k, v in joined.items()}
    if not torch.equal(joined["index"], torch.arange(want)):
        raise UserError(
            f"{first.folder.parent}: the shards hold {len(order)} rows, not the first {want} that are needed; run the missing shards"
        )
    return joined
