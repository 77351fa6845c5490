"""The verb `states`: each start point's state after k solver steps, for all k that k_step students need, by one solve.

The start points are those of `targets`, and each k's states an artefact of the kind targets, k~<k> in a collection: x_next is the state k
grid times on, or the endpoint where fewer steps are left. With k = N they are the endpoints, byte for byte.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from directcm.config import Ode, Targets
from directcm.diffusion.solvers import make_solver, solve
from directcm.diffusion.teachers import load, loader
from directcm.distill.encode import Latents
from directcm.distill.targets import Starts, blocks_of
from directcm.errors import UserError
from directcm.runtime.artifacts import Artifact, new_artifact, new_collection, save_tensors
from directcm.runtime.blocks import clear, work
from directcm.runtime.progress import Progress
from directcm.runtime.sources import digest


def make(
    settings: Targets,
    ode: Ode,
    steps: Sequence[int],
    shard: int,
    teacher: Artifact,
    latents: Artifact,
    seed: int,
    device: str,
    precision: str,
    scratch: Path,
    out: Path,
    density: str | float = "uniform",
) -> None:
    """Solve a shard's start points to the largest of `steps` (each k ≤ N), and write a collection with an artefact for each.

    targets.safetensors: index, id, time (B,), x_next (B, c, h, w). An artefact counts the forwards of k steps alone, a student's part
    of the solve that all share. A stopped job resumes after its last whole block. The last bits depend on the largest k, with
    which the batches change.
    """
    if len(set(steps)) != len(steps):
        raise UserError(f"states: k = {', '.join(map(str, steps))} names one twice")
    if max(steps) > ode.N:
        raise UserError(f"states: k = {max(steps)} is more than the grid's N = {ode.N}")
    model = load(teacher, device, precision)
    solver = make_solver(ode.solver)
    starts = Starts(Latents(latents), model.process, ode.N, seed, density)
    blocks = blocks_of(shard, settings.shard, settings.block)
    most = max(steps)

    def left(rows: range) -> Tensor:
        return ode.N - starts.grid_index(list(rows))

    progress = Progress(f"states: shard {shard}", sum(int(left(b).clamp(max=most).sum()) for b in blocks), "ODE step")

    def block(rows: range) -> dict[str, Tensor]:
        begun = time.perf_counter()
        ids, k, x = starts(list(rows))
        cond = starts.latents.conditioning(ids)
        states = dict.fromkeys(steps, x)
        solve(model, solver, x, k, ode.N, cond, ode.w, settings.batch_size, progress.update, states)
        for state in states.values():
            broken = torch.nonzero(~torch.isfinite(state).flatten(1).all(1)).flatten().tolist()
            if broken:
                raise UserError(
                    f"states: start point {rows[broken[0]]} becomes a number that is not finite; use precision no or bf16"
                )
        return {
            "index": torch.tensor(list(rows)),
            "id": ids,
            "time": starts.grid[k],
            **{f"after_{n}": state for n, state in states.items()},
            "seconds": torch.tensor([time.perf_counter() - begun], dtype=torch.float64),
        }

    # The default is left out, as `targets` leaves it.
    own = {} if density == "uniform" else {"density": density}
    about = {"seed": seed, "precision": precision, **own, **ode.axes(), "block": settings.block}
    about |= {"batch_size": settings.batch_size}
    inputs = {"teacher": teacher, "latents": latents}
    whole = {
        **about,
        "steps": list(steps),
        "code": digest("distill.states", loader(teacher)),
        **{name: item.fingerprint for name, item in inputs.items()},
    }
    done = work(scratch, whole, blocks, block, lambda rows: progress.skip(int(left(rows).clamp(max=most).sum())))
    seconds = float(done.pop("seconds").sum())
    asked = {k: int(sum(left(b).clamp(max=k).sum() for b in blocks)) for k in steps}
    per_step = solver.evaluations_per_step * model.rows_per_prediction(ode.w)
    common = {name: done[name] for name in ("index", "id", "time")}
    for k in steps:
        with new_artifact(out / f"k~{k}", "targets", settings={**about, "k": k}, inputs=inputs) as art:
            save_tensors(art / "targets.safetensors", {**common, "x_next": done[f"after_{k}"]})
            forwards = asked[k] * per_step
            art.counts = {
                "targets": len(done["index"]),
                "teacher_forwards": forwards,
                "teacher_forwards_minimum": forwards,
            }
            # Its share of the solve, which took all of them together `seconds`.
            art.provenance["solving_seconds"] = round(seconds * asked[k] / asked[most], 3)
    new_collection(out, "targets", [f"k~{k}" for k in steps], settings={}, inputs=inputs)
    clear(scratch)
