"""Targets: the pool of start points, and endpoints that do not depend on how the work was cut."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from directcm.diffusion.processes import VariancePreserving
from directcm.diffusion.solvers import make_solver, solve
from directcm.diffusion.teachers import load
from directcm.distill import targets as module
from directcm.distill.encode import Latents
from directcm.distill.targets import Starts, blocks_of, join
from directcm.errors import UserError
from directcm.runtime.artifacts import new_artifact, open_artifact, save_tensors


@pytest.fixture
def starts(tiny: Any) -> Starts:
    return Starts(Latents(tiny.latents), VariancePreserving.scaled_linear(), 50, 24)


def test_a_start_point_is_its_index(starts: Starts) -> None:
    ids, k, x = starts(range(40))
    some = [17, 3, 39, 3]
    ids_, k_, x_ = starts(some)
    assert torch.equal(ids_, ids[some]) and torch.equal(k_, k[some]) and torch.equal(x_, x[some])


def test_start_points_are_diffused_training_latents(starts: Starts) -> None:
    from directcm.runtime import rng

    index = list(range(30))
    ids, k, x = starts(index)
    assert set(ids.tolist()) <= set(starts.latents.train)
    eps = rng.normal(24, "start_noise", index, (4, 8, 8))
    torch.testing.assert_close(x, starts.process.diffuse(starts.latents.latents(ids), eps, starts.grid[k]))


def test_every_training_image_once_per_epoch(starts: Starts) -> None:
    n = len(starts.latents.train)
    for epoch in range(3):
        assert sorted(starts.ids(range(epoch * n, epoch * n + n)).tolist()) == sorted(starts.latents.train)


def test_times_are_uniform_over_the_grid_above_the_end(starts: Starts) -> None:
    k = starts.grid_index(range(10000)).numpy()
    assert k.min() == 0 and k.max() == 49
    counts = np.bincount(k, minlength=50)
    # χ² with 49 degrees of freedom: 99.99 % below 97.
    assert ((counts - 200) ** 2 / 200).sum() < 97
    assert float(starts.grid[49]) == 20.0


def test_times_of_another_grid_are_the_same_draws(tiny: Any) -> None:
    pool, process = Latents(tiny.latents), VariancePreserving.scaled_linear()
    fine, coarse = Starts(pool, process, 100, 24), Starts(pool, process, 50, 24)
    assert torch.equal(fine.grid_index(range(50)) // 2, coarse.grid_index(range(50)))
    assert not torch.equal(fine.ids(range(30)), Starts(pool, process, 100, 25).ids(range(30)))


def test_endpoints_are_those_of_the_guided_ode(tiny: Any) -> None:
    solved = join(tiny.targets)
    teacher, pool = load(tiny.teacher), Latents(tiny.latents)
    starts = Starts(pool, teacher.process, tiny.N, tiny.seed)
    ids, k, x = starts(range(16))
    ends, first, count = solve(teacher, make_solver("ddim"), x, k, tiny.N, pool.conditioning(ids), tiny.w, 4)
    torch.testing.assert_close(solved["endpoint"], ends, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(solved["x_next"], first, rtol=1e-4, atol=1e-4)
    assert torch.equal(solved["id"], ids) and torch.equal(solved["time"], starts.grid[k])
    made = sum(t.counts["teacher_forwards"] for t in tiny.targets)
    assert (
        made
        == count.made
        == sum(t.counts["teacher_forwards_minimum"] for t in tiny.targets)
        == 2 * int((tiny.N - k).sum())
    )


def test_the_first_step_is_the_solvers(tiny: Any) -> None:
    """Φ¹(x_s), by the solver alone; of a start point one step from the end it is the endpoint."""
    solved = join(tiny.targets)
    teacher, pool = load(tiny.teacher), Latents(tiny.latents)
    ids, k, x = Starts(pool, teacher.process, tiny.N, tiny.seed)(range(16))
    grid = teacher.process.grid(tiny.N)
    with torch.no_grad():
        step = make_solver("ddim").step(teacher, x, grid[k], grid[k + 1], pool.conditioning(ids), tiny.w)
    torch.testing.assert_close(solved["x_next"], step, rtol=1e-5, atol=1e-5)
    last = k == tiny.N - 1
    assert last.any() and not last.all()
    assert torch.equal(solved["x_next"][last], solved["endpoint"][last])
    assert not torch.isclose(solved["x_next"][~last], solved["endpoint"][~last]).flatten(1).all(1).any()


@pytest.mark.parametrize("solver", ["ddim", "heun"])
def test_a_solve_that_stops_after_one_step_has_the_bytes_of_the_whole_ones_first(
    tiny: Any, tmp_path: Path, solver: str
) -> None:
    whole, first = (
        [tiny.solve(tmp_path / f"{alone}-{i}", i, solver=solver, first_step=alone) for i in range(2)]
        for alone in (False, True)
    )
    all_of_it, step = join(whole), join(first)
    assert step.keys() == all_of_it.keys() - {"endpoint"}
    assert all(torch.equal(step[k], all_of_it[k]) for k in step)
    # One step of each of 16 start points, guided: two rows an evaluation.
    rows = 16 * 2 * make_solver(solver).evaluations_per_step
    assert [sum(t.counts[f"teacher_forwards{k}"] for t in first) for k in ("", "_minimum")] == [rows, rows]
    assert all(t.settings == w.settings | {"first_step": True} for t, w in zip(first, whole, strict=True))


def test_one_step_is_of_noised_images(tiny: Any, tmp_path: Path, one_line: Any) -> None:
    from directcm.config import Ode
    from directcm.distill import targets

    what = (tiny.targets_settings, Ode(solver="ddim", N=tiny.N, w=3), 0, tiny.teacher, tiny.latents, 24, "cpu", "no")
    with pytest.raises(UserError) as error:
        targets.make(*what, tmp_path / "s", tmp_path / "t", "prior", first_step=True)
    assert "--first-step is of start points forward, not of prior" in one_line(error)


def test_shards_do_not_change_a_byte(tiny: Any, tmp_path: Path) -> None:
    for shard in (16, 4):
        parts = [tiny.solve(tmp_path / f"{shard}-{i}", i, shard=shard) for i in range(16 // shard)]
        one, two = join(parts[::-1]), join(tiny.targets)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[k], two[k]) for k in one)


def test_a_killed_shard_resumes_to_the_same_bytes(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = module.solve, []

    def dies(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, "solve", dies)
    with pytest.raises(KeyboardInterrupt):
        tiny.solve(tmp_path / "t", 0)
    assert not (tmp_path / "t").exists()
    resumed = tiny.solve(tmp_path / "t", 0)
    assert len(calls) == 3, "the first block is not solved again"
    assert (resumed.folder / "checksums.csv").read_bytes() == (tiny.targets[0].folder / "checksums.csv").read_bytes()
    assert (resumed.folder / "manifest.json").read_bytes() == (tiny.targets[0].folder / "manifest.json").read_bytes()


def test_other_settings_do_not_reuse_scratch(tiny: Any, tmp_path: Path) -> None:
    tiny.solve(tmp_path / "a", 0, scratch=tmp_path / "scratch")
    other = tiny.solve(tmp_path / "b", 0, scratch=tmp_path / "scratch", w=1.0)
    assert other.fingerprint == tiny.solve(tmp_path / "c", 0, w=1.0).fingerprint != tiny.targets[0].fingerprint


def test_the_pool_is_a_prefix_of_an_endless_one(tiny: Any, tmp_path: Path) -> None:
    """Whatever pool is asked for, its first points are the same: their images, times, noise, and endpoints."""
    whole = join(tiny.targets)
    first = join(tiny.targets, count=8)
    assert all(len(v) == 8 and torch.equal(v, whole[k][:8]) for k, v in first.items())
    assert all(torch.equal(v, first[k]) for k, v in join(tiny.targets[:1]).items())
    odd = join(tiny.targets[::-1], count=11)
    assert odd["index"].tolist() == list(range(11)) and torch.equal(odd["endpoint"], whole["endpoint"][:11])
    assert not torch.equal(whole["endpoint"][8:], whole["endpoint"][:8])
    # The pool goes on where it is: shard 2 is 16 … 23, whether or not anything solved the ones before.
    third = tiny.solve(tmp_path / "t", 2).tensors("targets.safetensors")
    assert third["index"].tolist() == list(range(16, 24))
    starts = Starts(Latents(tiny.latents), VariancePreserving.scaled_linear(), tiny.N, tiny.seed)
    assert torch.equal(third["id"], starts.ids(range(24))[16:])


def test_blocks_of_shards() -> None:
    assert blocks_of(0, 8, 4) == [range(0, 4), range(4, 8)] and blocks_of(3, 8, 4) == [range(24, 28), range(28, 32)]
    # The last shard of a list of 15, and one that ends with it.
    assert blocks_of(1, 8, 4, 15) == [range(8, 12), range(12, 15)] and blocks_of(1, 8, 4, 16) == blocks_of(1, 8, 4)


@settings(max_examples=60)
@given(block=st.integers(1, 7), blocks=st.integers(1, 4), total=st.integers(1, 60))
def test_shards_partition_what_there_is(block: int, blocks: int, total: int) -> None:
    size = block * blocks
    shards = [blocks_of(i, size, block, total) for i in range(-(-total // size))]
    assert [j for shard in shards for rows in shard for j in rows] == list(range(total))
    assert all(shard and all(0 < len(rows) <= block for rows in shard) for shard in shards)
    # Blocks decide bytes, and so must not depend on the size of the shards.
    assert [rows for shard in shards for rows in shard] == blocks_of(0, total * block, block, total)


@pytest.mark.parametrize("change", [{"w": 2.0}, {"seed": 25}, {"solver": "euler"}, {"batch_size": 2}])
def test_join_refuses_a_mixture(tiny: Any, tmp_path: Path, change: dict, one_line: Any) -> None:
    other = tiny.solve(tmp_path / "t", 1, **change)
    with pytest.raises(UserError) as error:
        join([tiny.targets[0], other])
    assert "not solved with the settings" in one_line(error) and str(other.folder) in str(error.value)


def test_join_refuses_other_inputs(tiny: Any, tmp_path: Path, one_line: Any) -> None:
    with new_artifact(
        tmp_path / "t", "targets", settings=tiny.targets[1].settings, inputs={"teacher": tiny.data}
    ) as art:
        save_tensors(art / "targets.safetensors", tiny.targets[1].tensors("targets.safetensors"))
    with pytest.raises(UserError):
        join([tiny.targets[0], open_artifact(tmp_path / "t", "targets")])


def test_join_refuses_gaps_and_repetitions(tiny: Any, one_line: Any) -> None:
    for parts in ([tiny.targets[1]], [tiny.targets[0]], [tiny.targets[0]] * 2, [*tiny.targets, tiny.targets[0]]):
        with pytest.raises(UserError) as error:
            join(parts, count=16)
        rows = 8 * len(parts)
        assert f"the shards hold {rows} rows, not the first 16 that are needed" in one_line(error)
    # Without a count the last rows may be lacking, and nothing else.
    for parts in ([tiny.targets[1]], [tiny.targets[0]] * 2):
        with pytest.raises(UserError) as error:
            join(parts)
        assert "run the missing shards" in one_line(error)


def test_an_endpoint_that_is_not_finite_names_its_start(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_line: Any
) -> None:
    real = module.solve

    def broken(*args: Any) -> Any:
        solved = real(*args)
        solved.ends[2, 0, 0, 0] = float("inf")
        return solved

    monkeypatch.setattr(module, "solve", broken)
    with pytest.raises(UserError) as error:
        tiny.solve(tmp_path / "t", 1)
    assert "start point 10 " in one_line(error)
    assert not (tmp_path / "t").exists()


def test_damaged_targets_are_refused(tiny: Any, tmp_path: Path, one_line: Any) -> None:
    shutil.copytree(tiny.targets[0].folder, tmp_path / "t")
    path = tmp_path / "t" / "targets.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError) as error:
        join([open_artifact(tmp_path / "t", "targets"), tiny.targets[1]])
    assert str(path) in one_line(error)
