"""The verb `targets`: start points (latent, noise, time), and the ODE's endpoints from them, solved once.

CM and Direct CM train on the same start points in the same order; what differs is the target alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from directcm import rng
from directcm.artifacts import Artifact, new_artifact, save_tensors
from directcm.blocks import block_ranges, clear, work
from directcm.config import Targets
from directcm.encode import Latents
from directcm.errors import UserError
from directcm.processes import Process
from directcm.progress import Progress
from directcm.solvers import make_solver, solve
from directcm.sources import digest
from directcm.teachers import load


class Starts:
    """The pool of start points: index j gives (image id, grid index, x_s), whatever is asked for beside it.

    The image is the j-th of an endless shuffled stream over the training images; the grid index is ⌊u_j·N⌋ with u_j
    uniform, so that the time s is uniform over the N grid times above the end; the noise is keyed by j.
    """

    def __init__(self, latents: Latents, process: Process, intervals: int, seed: int) -> None:
        self.latents, self.process, self.seed = latents, process, seed
        self.grid = process.grid(intervals)
        self.intervals = intervals

    def ids(self, index: Sequence[int]) -> Tensor:
        """Image ids (B,) of pool indices."""
        n = len(self.latents.train)
        low, high = min(index), max(index) + 1
        stream = rng.stream(self.seed, "start_image", low, high - low, n)
        return torch.tensor([self.latents.train[stream[j - low]] for j in index])

    def grid_index(self, index: Sequence[int]) -> Tensor:
        """Indices into the grid (B,): 0 is pure noise, N − 1 the last time above the end."""
        return torch.from_numpy(np.floor(rng.uniform(self.seed, "start_time", index) * self.intervals).astype(np.int64))

    def __call__(self, index: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """(image ids (B,), grid indices (B,), x_s = α_s x₀ + σ_s ε (B, c, h, w))."""
        ids, k = self.ids(index), self.grid_index(index)
        x0 = self.latents.latents(ids)
        eps = rng.normal(self.seed, "start_noise", index, x0.shape[1:])
        return ids, k, self.process.diffuse(x0, eps, self.grid[k])


def make(
    settings: Targets,
    solver: str,
    intervals: int,
    w: float,
    shard: int,
    teacher: Artifact,
    latents: Artifact,
    seed: int,
    device: str,
    precision: str,
    scratch: Path,
    out: Path,
) -> None:
    """Solve one shard's targets: `targets.safetensors` with index, id, time (B,) and endpoint (B, c, h, w) float32."""
    model = load(teacher, device, precision)
    pool = Latents(latents)
    starts = Starts(pool, model.process, intervals, seed)
    method = make_solver(solver)
    blocks = block_ranges(settings.count, settings.block, shard, settings.shards)

    def steps_of(rows: range) -> int:
        return int((intervals - starts.grid_index(list(rows))).sum())

    progress = Progress(f"targets: shard {shard + 1} of {settings.shards}", sum(map(steps_of, blocks)), "ODE step")

    def block(rows: range) -> dict[str, Tensor]:
        ids, k, x = starts(list(rows))
        ends, count = solve(
            model, method, x, k, intervals, pool.conditioning(ids), w, settings.batch_size, progress.update
        )
        if not bool(torch.isfinite(ends).all()):
            bad = int(torch.nonzero(~torch.isfinite(ends).flatten(1).all(1))[0])
            raise UserError(
                f"targets: start point {rows[bad]} ends in a number that is not finite; use precision no or bf16"
            )
        return {
            "index": torch.tensor(list(rows)),
            "id": ids,
            "time": starts.grid[k],
            "endpoint": ends,
            "forwards": torch.tensor([[count.made, count.minimum]]),
        }

    key = {
        "code": digest("targets"),
        "count": settings.count,
        "block": settings.block,
        "batch_size": settings.batch_size,
        "solver": solver,
        "N": intervals,
        "w": w,
        "seed": seed,
        "precision": precision,
        "teacher": teacher.fingerprint,
        "latents": latents.fingerprint,
    }
    done = work(scratch, key, blocks, block, lambda rows: progress.update(steps_of(rows)))
    forwards = done.pop("forwards").sum(0).tolist()
    with new_artifact(
        out,
        "targets",
        settings={k: v for k, v in key.items() if k not in ("code", "teacher", "latents")},
        inputs={"teacher": teacher, "latents": latents},
    ) as art:
        save_tensors(art / "targets.safetensors", done)
        art.counts = {
            "targets": len(done["index"]),
            "teacher_forwards": forwards[0],
            "teacher_forwards_minimum": forwards[1],
        }
    clear(scratch)


def join(shards: Sequence[Artifact]) -> dict[str, Tensor]:
    """All shards' targets in pool order; a UserError where they do not belong together or leave gaps."""
    first = shards[0]
    for shard in shards[1:]:
        if shard.settings != first.settings or shard.manifest["inputs"] != first.manifest["inputs"]:
            raise UserError(
                f"{shard.folder}: not solved with the settings of {first.folder}; delete both and run again"
            )
    parts = [s.tensors("targets.safetensors") for s in shards]
    joined = {k: torch.cat([p[k] for p in parts]) for k in parts[0]}
    order = torch.argsort(joined["index"])
    joined = {k: v[order] for k, v in joined.items()}
    if not torch.equal(joined["index"], torch.arange(first.settings["count"])):
        raise UserError(
            f"{first.folder.parent}: the shards hold {len(order)} of {first.settings['count']} targets; run the missing shards"
        )
    return joined
