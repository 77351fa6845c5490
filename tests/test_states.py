"""States after k solver steps, and what a start point's density, a loss's weight and another student's labels change of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from directcm.config import Run
from directcm.diffusion.processes import VarianceExploding, VariancePreserving
from directcm.diffusion.solvers import make_solver
from directcm.diffusion.teachers import load
from directcm.distill import states as module
from directcm.distill import students, training
from directcm.distill.encode import Latents
from directcm.distill.targets import Starts, join, noisy_index
from directcm.errors import UserError
from directcm.runtime.artifacts import Artifact, open_collection

WEIGHTS = "pytorch_lora_weights.safetensors"


def solve(
    tiny: Any, folder: Path, ks: Sequence[int], density: str | float = "uniform", shard: int = 0
) -> list[Artifact]:
    """The states of a shard after each k."""
    module.make(
        tiny.targets_settings, tiny.student_run("k_step").ode, ks, shard, tiny.teacher, tiny.latents, tiny.seed, "cpu", "no",
        folder / "scratch", folder / "states", density,
    )  # fmt: skip
    parts = open_collection(folder / "states", "targets")
    assert [*parts] == [f"k~{k}" for k in ks]
    return [part.verify() for part in parts.values()]


@pytest.fixture(scope="module")
def states(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Artifact]]:
    """k → both shards of the states after it, of k = 1, 2 and N."""
    root = tmp_path_factory.mktemp("states")
    ks = [1, 2, tiny.N]
    found = [solve(tiny, root / f"{i}", ks, shard=i) for i in range(len(tiny.targets))]
    return dict(zip(ks, map(list, zip(*found, strict=True)), strict=True))


def test_with_all_steps_they_are_the_endpoints_to_the_byte_and_with_one_the_first(tiny: Any, states: Any) -> None:
    whole = join(tiny.targets)
    ends, first = join(states[tiny.N]), join(states[1])
    assert torch.equal(ends["x_next"], whole["endpoint"]) and torch.equal(first["x_next"], whole["x_next"])
    for name in ("index", "id", "time"):
        assert torch.equal(ends[name], whole[name]) and torch.equal(first[name], whole[name])


def test_they_are_steps_of_the_solver_one_after_the_other(tiny: Any, states: Any) -> None:
    """Row by row by hand: two steps, or the end where one is left."""
    model, pool = load(tiny.teacher), Latents(tiny.latents)
    starts = Starts(pool, model.process, tiny.N, tiny.seed)
    ids, k, x = starts(range(8))
    got = join(states[2])["x_next"][:8]
    solver, grid = make_solver("ddim"), starts.grid
    with torch.no_grad():
        for row in range(8):
            state, cond = x[row : row + 1], pool.conditioning(ids[row : row + 1])
            for i in range(int(k[row]), min(int(k[row]) + 2, tiny.N)):
                state = solver.step(model, state, grid[i : i + 1], grid[i + 1 : i + 2], cond, tiny.w).float()
            torch.testing.assert_close(got[row], state[0], rtol=1e-4, atol=1e-4)


def test_each_counts_the_steps_that_it_needs(tiny: Any, states: Any) -> None:
    left = tiny.N - Starts(Latents(tiny.latents), load(tiny.teacher).process, tiny.N, tiny.seed).grid_index(
        range(100000)
    )
    for k, shards in states.items():
        rows = sum(s.counts["targets"] for s in shards)
        want = 2 * int(left[:rows].clamp(max=k).sum())
        assert sum(s.counts["teacher_forwards"] for s in shards) == want
        assert all(s.settings["k"] == k and "density" not in s.settings for s in shards)


def test_what_is_no_k_is_refused(tiny: Any, tmp_path: Path, one_line: Any) -> None:
    for ks, said in (([1, 1], "names one twice"), ([tiny.N + 1], f"more than the grid's N = {tiny.N}")):
        with pytest.raises(UserError) as error:
            solve(tiny, tmp_path, ks)
        assert said in one_line(error)


# ----------------------------------------------------------------- students


def test_k_step_with_all_steps_is_direct_cm_to_the_byte_and_with_one_cm(tiny: Any, states: Any, tmp_path: Path) -> None:
    last = tiny.train(tmp_path / "last", "k_step", k=tiny.N, targets=states[tiny.N])
    assert last.file(WEIGHTS).read_bytes() == tiny.direct_cm.file(WEIGHTS).read_bytes()
    first = tiny.train(tmp_path / "first", "k_step", targets=states[1])
    own, theirs = (np.array([float(r["loss"]) for r in s.csv("curve.csv")]) for s in (first, tiny.cm))
    np.testing.assert_allclose(own, theirs, rtol=1e-4)
    between = tiny.train(tmp_path / "between", "k_step", k=2, targets=states[2])
    assert len({s.file(WEIGHTS).read_bytes() for s in (first, between, last)}) == 3
    # 2 − k/N forwards a pair, and the teacher's are the targets'.
    pairs, run = between.counts["pairs_drawn"], between.run
    assert run.k == 2 and between.counts["student_forwards"] == round(pairs * (2 - 2 / tiny.N))
    assert between.counts["teacher_forwards"] == 0 and between.settings["run"]["k"] == 2
    assert "k" not in first.settings["run"]


def test_states_of_another_k_are_refused(tiny: Any, states: Any, tmp_path: Path, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        tiny.train(tmp_path / "s", "k_step", k=2, targets=states[1])
    assert "'k': 1" in one_line(error) and "'k': 2" in one_line(error)


def test_labels_are_what_the_other_student_makes(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teaching = tiny.train(tmp_path / "cm", "cm", seed=1)
    seen: list[Any] = []
    real = training.methods.load("direct_cm").loss

    def watched(student: Any, batch: Any, context: Any) -> Any:
        seen.append(batch)
        return real(student, batch, context)

    monkeypatch.setattr(training.methods.load("direct_cm"), "loss", watched)
    learner = tiny.train(tmp_path / "s", "direct_cm", labels="cm", label_student=teaching, targets=[])
    assert learner.run.labelled_by == teaching.run and learner.manifest["inputs"]["labels"] == teaching.fingerprint
    f = students.load(load(tiny.teacher), teaching)
    with torch.no_grad():
        for batch in seen:
            torch.testing.assert_close(batch.endpoint, f(batch.x, batch.t, batch.cond))
    # One forward of its own and one for the label; no target is solved.
    assert learner.counts["student_forwards"] == 2 * learner.counts["pairs_drawn"]
    assert learner.json("student.json")["forwards"]["4"] == {"student": 32, "teacher": 0, "endpoints": 0}


def test_labels_of_another_student_than_the_named_are_refused(tiny: Any, tmp_path: Path, one_line: Any) -> None:
    for given_, labels, said in (
        (tiny.cm, "cm", "is not the student of this teacher"),
        (None, "cm", "need --label-student"),
        (tiny.cm, "ode", "take no --label-student"),
    ):
        with pytest.raises(UserError) as error:
            tiny.train(tmp_path / "s", "direct_cm", labels=labels, label_student=given_)
        assert said in one_line(error)


def test_an_average_that_a_run_asks_for_takes_the_settings_place(tiny: Any, tmp_path: Path) -> None:
    plain, averaged = (tiny.train(tmp_path / f"{ema}", "cm", ema=ema) for ema in (0.0, 0.5))
    assert plain.fingerprint == tiny.cm.fingerprint
    assert averaged.run.ema == 0.5 and averaged.file(WEIGHTS).read_bytes() != plain.file(WEIGHTS).read_bytes()
    assert averaged.file("curve.csv").read_bytes() == plain.file("curve.csv").read_bytes()


# ----------------------------------------------------------------- density and weight of start times


@given(
    u=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=50),
    intervals=st.integers(1, 1000),
    share=st.floats(0.001, 0.999),
)
def test_that_share_of_the_numbers_is_in_the_noisiest_tenth(u: list[float], intervals: int, share: float) -> None:
    index = noisy_index(np.array(u), intervals, share)
    assert index.min() >= 0 and index.max() < intervals
    if (noisy := intervals // 10 + 1) < intervals:
        assert ((index < noisy) == (np.array(u) < share)).all()
    # Later numbers are later times.
    assert (np.diff(index[np.argsort(u)]) >= 0).all()


def test_noisy_times_by_hand() -> None:
    """N = 50: six times from t = 1000 to 900 with a quarter of the mass, 44 with the rest; the share that uniform times have is 0.12."""
    u = (np.arange(120000) + 0.5) / 120000
    counts = np.bincount(noisy_index(u, 50, 0.25), minlength=50)
    assert counts[:6].tolist() == [5000] * 6 and np.abs(counts[6:] - 90000 / 44).max() <= 1
    assert (noisy_index(u, 50, 0.12) == np.floor(u * 50)).all()
    grid = VariancePreserving.scaled_linear().grid(50)
    assert grid[5] == 900 and grid[6] == 880


def test_start_points_of_another_density_are_the_same_images_and_noises(tiny: Any) -> None:
    pool, process = Latents(tiny.latents), VariancePreserving.scaled_linear()
    plain, noisy = Starts(pool, process, 50, 24), Starts(pool, process, 50, 24, 0.25)
    assert torch.equal(plain.ids(range(30)), noisy.ids(range(30)))
    _, x0, eps = plain.pairs(range(30))
    _, k, x = noisy(range(30))
    torch.testing.assert_close(x, process.diffuse(x0, eps, noisy.grid[k]))
    assert float((noisy.grid_index(range(4000)) < 6).double().mean()) == pytest.approx(0.25, abs=0.03)


def test_the_weight_is_the_signal_to_noise_ratio() -> None:
    losses = torch.tensor([2.0, 3.0])
    karras, vp = VarianceExploding(), VariancePreserving.scaled_linear()
    t = torch.tensor([2.0, 80.0]).double()
    torch.testing.assert_close(training.weighted(losses, "snr", karras, t), torch.tensor([2 / 4, 3 / 6400]))
    assert training.weighted(losses, "one", karras, t) is losses
    # With it x̂₀'s squared error is ε̂'s: x̂₀ = (x − σ ε̂)/α.
    t = torch.tensor([20.0, 900.0]).double()
    eps = torch.tensor([[0.3, -1.0], [2.0, 0.5]]).double()
    off = torch.tensor([[0.1, 0.2], [-0.4, 0.3]]).double()
    x = torch.zeros(2, 2).double()
    errors = ((vp.clean(x, eps + off, t) - vp.clean(x, eps, t)) ** 2).mean(1)
    torch.testing.assert_close(training.weighted(errors, "snr", vp, t), (off**2).mean(1))


def test_a_weight_and_a_density_change_a_training_and_nothing_else_does(tiny: Any, tmp_path: Path) -> None:
    made = {
        name: tiny.train(tmp_path / name, "cm", **own)
        for name, own in {"plain": {}, "snr": {"weight": "snr"}, "noisy": {"density": 0.25}}.items()
    }
    assert made["plain"].fingerprint == tiny.cm.fingerprint
    assert len({s.file(WEIGHTS).read_bytes() for s in made.values()}) == 3
    assert made["snr"].settings["run"]["weight"] == "snr" and made["noisy"].settings["run"]["density"] == 0.25


def test_a_run_says_whose_labels_it_learns() -> None:
    run = Run(
        method="direct_cm", solver="ddim", N=50, w=3, adapter="lora4", loss="mse", lr=1e-4, batch_size=16, pool=4000, steps=250,
        seed=2, labels="cm-full",
    )  # fmt: skip
    teaching = run.labelled_by
    assert teaching is not None and (teaching.method, teaching.adapter, teaching.seed) == ("cm", "full", 3)
    assert (
        teaching.labels == "ode"
        and teaching.labelled_by is None
        and teaching.setting.at(adapter="lora4") == run.setting.at(labels="ode")
    )
    assert run.key.endswith(",seed~2+labels~cm-full") and run.at(labels="cm").labelled_by == teaching.at(
        adapter="lora4"
    )
