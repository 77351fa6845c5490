"""Trajectories: every state is one solver step from the one before, and the ends are the targets of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from directcm.config import Ode
from directcm.diffusion.solvers import make_solver, solve
from directcm.diffusion.teachers import load
from directcm.distill.encode import Latents
from directcm.distill.targets import Starts, join
from directcm.evaluation import trajectories
from directcm.evaluation.trajectories import choose
from directcm.runtime.artifacts import open_artifact


def make(tiny: Any, out: Path, count: int = 4, solver: str = "ddim", intervals: int = 5, w: float = 3.0) -> Any:
    trajectories.make(
        count, Ode(solver=solver, N=intervals, w=w), tiny.teacher, tiny.latents, tiny.seed, "cpu", "no", out
    )
    return open_artifact(out, "trajectories")


@pytest.fixture(scope="module")
def made(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make(tiny, tmp_path_factory.mktemp("trajectories") / "t")


def test_choose() -> None:
    # Spans of 10 in 4: [0, 2), [2, 5), [5, 7), [7, 10).
    assert choose([9, 3, 0, 6, 1, 2, 8], 10, 4) == [2, 1, 3, 0]
    assert choose([9, 3, 3], 10, 4) == [1, 0], "spans that hold none are left out"
    assert choose([4, 4, 4], 5, 1) == [0] and choose([], 5, 3) == []
    # More spans than grid times: some are empty, none gives a point twice.
    assert choose([0, 1], 2, 4) == [0, 1]


@given(grid=st.lists(st.integers(0, 49), max_size=80), intervals=st.sampled_from([50, 100]), count=st.integers(1, 20))
def test_chosen_points_are_spread_and_the_first_of_their_span(grid: list[int], intervals: int, count: int) -> None:
    chosen = choose(grid, intervals, count)
    times = [grid[j] for j in chosen]
    assert times == sorted(times) and len(set(chosen)) == len(chosen) <= count
    spans = [next(s for s in range(count) if t < (s + 1) * intervals // count) for t in times]
    assert len(set(spans)) == len(spans)
    for j, span in zip(chosen, spans, strict=True):
        assert all(not span * intervals // count <= k < (span + 1) * intervals // count for k in grid[:j]), (
            "an earlier point of the span"
        )


def test_trajectories_start_as_training_does(tiny: Any, made: Any) -> None:
    content = made.verify().tensors("trajectories.safetensors")
    pool = Latents(tiny.latents)
    starts = Starts(pool, load(tiny.teacher).process, 5, tiny.seed)
    index = content["index"].tolist()
    # Of the grid's five times the four noisiest: two thirds of them would be fewer than the trajectories asked for.
    assert index == choose(starts.grid_index(range(256)).tolist(), 4, 4) and len(index) == 4
    ids, k, x = starts(index)
    assert torch.equal(content["start"], k) and k.tolist() == sorted(k.tolist())
    for row, start in enumerate(k.tolist()):
        assert torch.equal(content["states"][row, start], x[row])
        assert not content["states"][row, :start].any(), "nothing before the start"
    assert torch.equal(content["x0"], pool.latents(ids))
    assert content["times"].tolist() == [1000, 800, 600, 400, 200, 0]
    assert torch.equal(content["background"], pool.latents(torch.tensor(pool.train)))
    assert content["states"].shape == (4, 6, 4, 8, 8) and made.counts == {"trajectories": 4}


@pytest.mark.parametrize(("solver", "w"), [("ddim", 3.0), ("heun", 1.0)])
def test_each_state_is_one_step_from_the_one_before(
    tiny: Any, made: Any, tmp_path: Path, solver: str, w: float
) -> None:
    art = made if solver == "ddim" else make(tiny, tmp_path / "t", solver=solver, w=w)
    content = art.tensors("trajectories.safetensors")
    teacher, pool = load(tiny.teacher), Latents(tiny.latents)
    starts = Starts(pool, teacher.process, 5, tiny.seed)
    ids = starts.ids(content["index"].tolist())
    method = make_solver(solver)
    steps = 0
    for row in range(4):
        cond = pool.conditioning(ids[row : row + 1])
        for n in range(int(content["start"][row]), 5):
            here = content["states"][row : row + 1, n]
            t, s = content["times"][n : n + 1], content["times"][n + 1 : n + 2]
            with torch.no_grad():
                after = method.step(teacher, here, t, s, cond, w)
            torch.testing.assert_close(content["states"][row, n + 1], after[0], rtol=1e-4, atol=1e-4)
            assert not torch.equal(here[0], after[0])
            steps += 1
    assert steps == int((5 - content["start"]).sum())


def test_ends_are_the_endpoints_that_solve_gives(tiny: Any, made: Any) -> None:
    content = made.tensors("trajectories.safetensors")
    teacher, pool = load(tiny.teacher), Latents(tiny.latents)
    ids, k, x = Starts(pool, teacher.process, 5, tiny.seed)(content["index"].tolist())
    ends, *_ = solve(teacher, make_solver("ddim"), x, k, 5, pool.conditioning(ids), 3.0, 4)
    torch.testing.assert_close(content["states"][:, -1], ends, rtol=1e-4, atol=1e-4)
    # And so those that Direct CM is trained on, where the point is among them.
    solved = join(tiny.targets)["endpoint"]
    among = [(row, j) for row, j in enumerate(content["index"].tolist()) if j < 16]
    assert among
    for row, j in among:
        torch.testing.assert_close(content["states"][row, -1], solved[j], rtol=1e-4, atol=1e-4)


def test_more_trajectories_than_grid_times(tiny: Any, tmp_path: Path) -> None:
    content = make(tiny, tmp_path / "t", count=8).tensors("trajectories.safetensors")
    assert content["start"].tolist() == [0, 1, 2, 3, 4]


def test_the_same_bytes_again(tiny: Any, made: Any, tmp_path: Path) -> None:
    assert make(tiny, tmp_path / "t").fingerprint == made.fingerprint
