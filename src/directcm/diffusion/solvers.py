"""Solvers of the probability-flow ODE on any process, and `solve`, which batches rows that start at different times.

A solver takes rows from times t to times s, one time per row. `ddim`, `euler` and `heun` are those of 2411.08954 and its
released code, `edm_heun` is that of Karras et al.; docs/methods.md has the formulas side by side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from directcm.diffusion.processes import expand
from directcm.diffusion.teachers import Conditioning, Teacher


class Solver(ABC):
    """One step of a probability-flow ODE solver."""

    order: int
    evaluations_per_step: int

    @abstractmethod
    def step(self, teacher: Teacher, x: Tensor, t: Tensor, s: Tensor, cond: Conditioning | None, w: float) -> Tensor:
        """x_s (B, …) from x_t (B, …) for times t > s (B,) under guidance w."""


class Ddim(Solver):
    """x_s = α_s x̂₀ + σ_s ε̂ (Song et al. 2010.02502); on the variance-exploding process this is Euler's step."""

    order = 1
    evaluations_per_step = 1

    def step(self, teacher: Teacher, x: Tensor, t: Tensor, s: Tensor, cond: Conditioning | None, w: float) -> Tensor:
        p = teacher.predict(x, t, cond, w)
        return teacher.process.diffuse(p.x0, p.eps, s)


class Euler(Solver):
    """x_s = x + (s − t)·dx/dt."""

    order = 1
    evaluations_per_step = 1

    def step(self, teacher: Teacher, x: Tensor, t: Tensor, s: Tensor, cond: Conditioning | None, w: float) -> Tensor:
        slope = teacher.process.velocity(x, teacher.predict(x, t, cond, w).eps, t)
        return x + expand(s - t, x) * slope


class Heun(Solver):
    """Euler's step, then the mean of the slopes at both ends."""

    order = 2
    evaluations_per_step = 2

    def step(self, teacher: Teacher, x: Tensor, t: Tensor, s: Tensor, cond: Conditioning | None, w: float) -> Tensor:
        process = teacher.process
        first = process.velocity(x, teacher.predict(x, t, cond, w).eps, t)
        guess = x + expand(s - t, x) * first
        # At the end σ is 0 on VP: noise and slope are evaluated at the last time above it instead.
        end = process.inner(s)
        told = {"told": s} if process.tells_end else {}
        second = process.velocity(guess, teacher.predict(guess, end, cond, w, **told).eps, end)
        return x + expand(s - t, x) * 0.5 * (first + second)


class EdmHeun(Solver):
    """Heun in u = σ/α on x/α, where the ODE is d(x/α)/du = ε̂ (Karras et al. 2206.00364, Algorithm 1 without noise).

    DDIM is Euler's method in these variables; this is its second-order refinement. Karras et al. end with an Euler step to
    σ = 0. There u falls as √t, and that step would leave a first-order error. So the last step here is Heun's to the last time
    where ε̂ is defined, then DDIM's: the same NFE, and order 2 to the end.
    """

    order = 2
    evaluations_per_step = 2

    def step(self, teacher: Teacher, x: Tensor, t: Tensor, s: Tensor, cond: Conditioning | None, w: float) -> Tensor:
        process = teacher.process
        inner = process.inner(s)
        p = teacher.predict(x, t, cond, w)
        second = teacher.predict(process.diffuse(p.x0, p.eps, inner), inner, cond, w).eps
        slope = 0.5 * (p.eps + second)
        there = process.diffuse(process.clean(x, slope, t), slope, inner)
        end = process.diffuse(process.clean(there, second, inner), second, s)
        return torch.where(expand((inner == s).double(), x).bool(), there, end)


SOLVERS = {
    "ddim": {"rank": 1, "title": "DDIM", "made_by": "Ddim"},
    "euler": {"rank": 2, "title": "Euler", "made_by": "Euler"},
    "heun": {"rank": 3, "title": "Heun", "made_by": "Heun"},
    "edm_heun": {"rank": 4, "title": "Heun (EDM)", "made_by": "EdmHeun"},
}


def make_solver(name: str) -> Solver:
    """A solver by its name in the configuration."""
    made: Solver = globals()[str(SOLVERS[name]["made_by"])]()
    return made


@dataclass
class Count:
    """Teacher forwards, in rows through the network: those made, and the minimum for this work."""

    made: int = 0
    minimum: int = 0


class Solved(NamedTuple):
    """Result of `solve`: the rows' endpoints (n, …), their states after the first step (n, …), and the forwards."""

    ends: Tensor
    first: Tensor
    forwards: Count


def solve(
    teacher: Teacher,
    solver: Solver,
    x: Tensor,
    starts: Tensor,
    intervals: int,
    cond: Conditioning | None,
    w: float,
    batch_size: int,
    progress: Callable[[int], None] | None = None,
    states: MutableMapping[int, Tensor] | None = None,
) -> Solved:
    """Endpoints of the guided ODE from rows x (n, …) that start at grid indices `starts` (n,) of grid(intervals).

    Index 0 is pure noise, index `intervals` the end. A batch holds up to `batch_size` rows, each at its own time; a finished row
    is replaced by a waiting one, so none is evaluated after its end. The results are float32 on x's device. `progress` is
    called with the row steps done.

    `states`: its keys are numbers k ≥ 1 of steps, and its values become the states (n, …) after them, or the end where fewer steps are
    left. No row is then solved further than the largest k, and its end is where it is there.
    """
    process = teacher.process
    grid = process.grid(intervals).to(teacher.device)
    left = intervals - starts.long()
    if bool((left < 1).any()) or bool((left > intervals).any()):
        raise ValueError("starts are grid indices from 0 to intervals - 1")
    if states:
        if min(states) < 1:
            raise ValueError("states are kept after 1 step or more")
        left = left.clamp(max=max(states))
    # Longest first, which keeps the batch full for longer.
    waiting = deque(torch.argsort(left, descending=True, stable=True).tolist())
    state = x.float().clone()
    first = torch.empty_like(state)
    kept = {k: torch.empty_like(state) for k in states or ()}
    index = starts.long().clone()
    before = teacher.rows_evaluated
    active: list[int] = []
    with torch.no_grad():
        while waiting or active:
            while waiting and len(active) < batch_size:
                active.append(waiting.popleft())
            rows = torch.tensor(active)
            t, s = grid[index[rows]], grid[index[rows] + 1]
            here = None if cond is None else cond.rows(rows).to(teacher.device)
            state[rows] = solver.step(teacher, state[rows].to(teacher.device), t, s, here, w).float().to(state.device)
            fresh = rows[index[rows] == starts[rows]]
            first[fresh] = state[fresh]
            index[rows] += 1
            for k, after in kept.items():
                # The last that is written is the state after k steps, or the end.
                there = rows[index[rows] - starts[rows] <= k]
                after[there] = state[there]
            if progress is not None:
                progress(len(active))
            active = [row for row in active if index[row] < starts[row] + left[row]]
    per_step = solver.evaluations_per_step * teacher.rows_per_prediction(w)
    if states:
        states.update(kept)
    return Solved(state, first, Count(teacher.rows_evaluated - before, int(left.sum()) * per_step))
