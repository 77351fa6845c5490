"""The verb `trajectories`: all states of ODE trajectories from a few start points of training (Figure 1)."""

from __future__ import annotations

from pathlib import Path

import torch

from directcm.config import Ode
from directcm.diffusion.processes import expand
from directcm.diffusion.solvers import make_solver
from directcm.diffusion.teachers import load
from directcm.distill.encode import Latents
from directcm.distill.targets import Starts
from directcm.runtime.artifacts import Artifact, new_artifact, save_tensors

BACKGROUND = 200
LOOK_AHEAD = 64


def choose(grid_index: list[int], intervals: int, count: int) -> list[int]:
    """Pool indices with evenly spread start times: the first point in each of `count` equal spans of [0, intervals).

    `grid_index`: the grid indices of the pool's first points. Spans without a point are left out.
    """
    spans = [range(span * intervals // count, (span + 1) * intervals // count) for span in range(count)]
    firsts = (next((j for j, k in enumerate(grid_index) if k in span), None) for span in spans)
    return [j for j in firsts if j is not None]


def make(
    count: int,
    ode: Ode,
    teacher: Artifact,
    latents: Artifact,
    seed: int,
    device: str,
    precision: str,
    out: Path,
) -> None:
    """Write `trajectories.safetensors`: states (m, N+1, c, h, w), zero before a trajectory's start; start (m,) grid indices;
    times (N+1,); index (m,) in the pool; x0 (m, c, h, w); background (q, c, h, w), other training latents.

    All are multiplied by the process's c_in at their time (data at the end), as for the network: on VP it is 1, on Karras's process
    it keeps noise and data in one picture."""
    model = load(teacher, device, precision)
    pool, intervals = Latents(latents), ode.N
    starts = Starts(pool, model.process, intervals, seed)
    # From the noisier two thirds of the times: the arrows of later starts are too short to see.
    noisy = max(count, 2 * intervals // 3)
    chosen = choose(starts.grid_index(range(LOOK_AHEAD * count)).tolist(), min(noisy, intervals), count)
    ids, k, x = starts(chosen)
    grid = model.process.grid(intervals).to(model.device)
    method = make_solver(ode.solver)
    states = torch.zeros((len(chosen), intervals + 1, *x.shape[1:]))
    states[torch.arange(len(chosen)), k] = x
    cond = pool.conditioning(ids)
    with torch.no_grad():
        for step in range(int(k.min()), intervals):
            rows = torch.nonzero(k <= step).flatten()
            here = states[rows, step].to(model.device)
            t, s = (grid[at].expand(len(rows)) for at in (step, step + 1))
            after = method.step(model, here, t, s, cond.rows(rows).to(model.device), ode.w)
            states[rows, step + 1] = after.float().cpu()
    seen = model.process.input_scale(grid).cpu()
    states *= expand(seen, states[0])[None].to(states)
    settings = {"count": count, **ode.axes(), "seed": seed, "precision": precision}
    with new_artifact(out, "trajectories", settings=settings, inputs={"teacher": teacher, "latents": latents}) as art:
        save_tensors(
            art / "trajectories.safetensors",
            {
                "states": states,
                "start": k,
                "times": grid.cpu(),
                "index": torch.tensor(chosen),
                "x0": pool.latents(ids) * float(seen[-1]),
                "background": pool.latents(torch.tensor(pool.train[:BACKGROUND])) * float(seen[-1]),
            },
        )
        art.counts = {"trajectories": len(chosen)}
