"""The verb `baselines`: what is fitted never sees the evaluation's noise, and what is measured is what is computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from directcm.analysis.data.collect import metrics_table, read_sets, set_table
from directcm.analysis.data.tidy import TO_BEAT
from directcm.config import Config, Ode
from directcm.config.specs import BASELINES
from directcm.diffusion.solvers import make_solver, solve
from directcm.diffusion.teachers import load
from directcm.distill import noise, students
from directcm.errors import UserError
from directcm.evaluation import baselines
from directcm.evaluation.sampling import Evaluated, sample_at, sample_teacher
from directcm.runtime import rng
from directcm.runtime.artifacts import Artifact, new_artifact, open_artifact, open_collection, save_tensors

ROWS = 24
METRICS = Config().baseline_metrics()


class Run(SimpleNamespace):
    """Everything that the verb reads, by its parameters' names."""

    def make(self, out: Path, **changes: Any) -> dict[str, Artifact]:
        given = {**vars(self), **changes}
        order = (
            *(
                "settings",
                "statistics",
                "metrics",
                "ode",
                "data",
                "teacher",
                "latents",
                "noise",
                "floor_noise",
                "reference",
            ),
            "floor",
        )
        baselines.make(*(given[name] for name in order), 24, "cpu", out)
        return open_collection(out, "metrics")


def noise_of(tiny: Any, folder: Path, purpose: str) -> Artifact:
    noise.make(ROWS, purpose, tiny.data, tiny.latents, tiny.seed, folder)
    return open_artifact(folder, "noise")


@pytest.fixture(scope="module")
def world(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("baselines")
    config = Config()
    ode = Ode(solver="ddim", N=tiny.N, w=tiny.w)
    drawn = {purpose: noise_of(tiny, root / purpose, purpose) for purpose in ("evaluation", "floor")}

    def sample(purpose: str) -> list[Artifact]:
        what = Evaluated(tiny.evaluation, tiny.teacher, tiny.latents, drawn[purpose], tiny.seed, "cpu")
        out = [root / f"{purpose}-{i}" for i in range(2)]
        for i, folder in enumerate(out):
            sample_teacher(what, ode, i, 2, root / "scratch" / folder.name, folder)
        return [open_artifact(folder, "samples") for folder in out]

    return Run(
        settings=tiny.evaluation, statistics=config.statistics.model_copy(update={"bootstrap": 100}), metrics=METRICS, ode=ode,
        data=tiny.data, teacher=tiny.teacher, latents=tiny.latents, noise=drawn["evaluation"], floor_noise=drawn["floor"],
        reference=sample("evaluation"), floor=sample("floor"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(world: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return world.make(tmp_path_factory.mktemp("made") / "baselines")


def latents_of(shards: list[Artifact]) -> np.ndarray:
    return np.concatenate([shard.arrays("latents.safetensors")["latents"] for shard in shards]).astype(np.float64)


def errors_of(part: Artifact) -> np.ndarray:
    return np.array([float(line["ode_error"]) for line in part.csv("per_sample.csv")])


def initial(artifact: Artifact) -> np.ndarray:
    return artifact.arrays("noise.safetensors")["noise"].astype(np.float64)


def test_there_is_a_part_for_each(made: dict[str, Artifact]) -> None:
    assert list(made) == list(BASELINES) and METRICS[:2] == ["ode_error", "ode_bias"]
    for name, part in made.items():
        content = part.json("metrics.json")
        assert (content["row"], content["steps"]) == (BASELINES[name], baselines.STEPS[name])
        assert [item["metric"] for item in content["metrics"]] == METRICS
        assert content["metrics"][0]["value"] == pytest.approx(errors_of(part).mean(), rel=1e-12)
        assert sum(item["value"] for item in content["metrics"][1:4]) == pytest.approx(
            errors_of(part).mean(), rel=1e-10
        )
        lines = part.csv("directions.csv")
        assert sum(float(line["error"]) for line in lines) == pytest.approx(errors_of(part).mean(), rel=1e-10)


def test_fits_are_of_the_floor_and_judged_on_the_evaluation(world: Run, made: dict[str, Artifact]) -> None:
    x, z, truth = latents_of(world.floor), initial(world.floor_noise), latents_of(world.reference)
    for name, gain in baselines.GAIN.items():
        part = made[name]
        fit, about = part.arrays("fit.safetensors"), part.json("metrics.json")["fit"]
        groups = fit["condition"]
        names = [line["text" if about["by"] == "prompt" else "label"] for line in world.noise.csv("prompts.csv")]
        if about["by"] == "all":
            assert set(groups) == {0}
        else:
            assert len(set(zip(groups.tolist(), names, strict=True))) == len(set(names)) == about["conditions"]
        # By numpy's own least squares, on the floor alone.
        rows = np.eye(about["conditions"])[groups]
        one = np.linalg.lstsq(
            rows, np.stack([x.reshape(ROWS, -1), z.reshape(ROWS, -1)]).swapaxes(0, 1).reshape(ROWS, -1), rcond=None
        )
        left_x, left_z = (one[0].reshape(about["conditions"], 2, -1)[:, i] for i in (0, 1))
        xt, zt = x.reshape(ROWS, -1) - rows @ left_x, z.reshape(ROWS, -1) - rows @ left_z
        slope = float((xt * zt).sum() / (zt**2).sum()) if gain else 0.0
        assert about["gain"] == pytest.approx(slope, rel=1e-6)
        made_here = rows @ (left_x - slope * left_z) + slope * initial(world.noise).reshape(ROWS, -1)
        expected = ((made_here - truth.reshape(ROWS, -1)) ** 2).mean(1)
        np.testing.assert_allclose(errors_of(part), expected, rtol=1e-4)


def test_the_untrained_start_is_a_student_before_training(tiny: Any, world: Run, made: dict[str, Artifact]) -> None:
    model = load(tiny.teacher)
    what = Evaluated(tiny.evaluation, tiny.teacher, tiny.latents, world.noise, tiny.seed, "cpu")
    cond, x = what.pool.conditioning(what.ids), torch.from_numpy(initial(world.noise)).float()
    truth = latents_of(world.reference)
    for adapter in ("lora4", "full"):
        student = students.make_student(model, adapter, 7)
        found = sample_at(student, x, cond, tiny.N, [0], 0, range(ROWS)).double().numpy()
        expected = ((found - truth) ** 2).reshape(ROWS, -1).mean(1)
        np.testing.assert_allclose(errors_of(made["untrained"]), expected, rtol=1e-3)
    # x̂₀ is where DDIM ends in a single step.
    ends = (
        solve(model, make_solver("ddim"), x, torch.zeros(ROWS, dtype=torch.long), 1, cond, tiny.w, 4)
        .ends.double()
        .numpy()
    )
    expected = ((ends - truth) ** 2).reshape(ROWS, -1).mean(1)
    np.testing.assert_allclose(errors_of(made["guided_step"]), expected, rtol=1e-3)
    assert not np.allclose(errors_of(made["guided_step"]), errors_of(made["untrained"]), rtol=1e-2)


def test_no_fit_reads_the_evaluations_noise(world: Run, made: dict[str, Artifact], tiny: Any, tmp_path: Path) -> None:
    """Another noise of the evaluation, and its samples: errors change, and not a byte of the fits."""
    prompts = world.noise.file("prompts.csv").read_bytes()
    inputs = {"data": tiny.data, "latents": tiny.latents}
    with new_artifact(tmp_path / "noise", "noise", settings={"samples": ROWS}, inputs=inputs) as art:
        save_tensors(art / "noise.safetensors", {"noise": rng.normal(99, "other", range(ROWS), (4, 8, 8))})
        (art / "prompts.csv").write_bytes(prompts)
    other = open_artifact(tmp_path / "noise", "noise")
    what = Evaluated(tiny.evaluation, tiny.teacher, tiny.latents, other, tiny.seed, "cpu")
    sample_teacher(what, world.ode, 0, 1, tmp_path / "scratch", tmp_path / "reference")
    again = world.make(tmp_path / "again", noise=other, reference=[open_artifact(tmp_path / "reference", "samples")])
    for name in baselines.GAIN:
        first, second = (parts[name].file("fit.safetensors").read_bytes() for parts in (made, again))
        assert first == second
        assert made[name].json("metrics.json")["fit"] == again[name].json("metrics.json")["fit"]
        assert not np.allclose(errors_of(made[name]), errors_of(again[name]))


def test_twice_the_same_bytes(world: Run, made: dict[str, Artifact], tmp_path: Path) -> None:
    again = world.make(tmp_path / "again")
    for name, part in made.items():
        assert again[name].manifest["checksums_sha256"] == part.manifest["checksums_sha256"]


def test_they_stand_in_the_tidy_tables(made: dict[str, Artifact]) -> None:
    folder = next(iter(made.values())).folder.parent
    table = metrics_table([folder])
    assert [*table["row"].unique()] == list(TO_BEAT) and set(table["method"]) == {""}
    errors = table[table["metric"] == "ode_error"]
    assert [*errors["sampling_steps"]] == [0, 0, 1, 1] and errors["low"].notna().all() and errors["step"].isna().all()
    along = set_table(read_sets([folder]), "directions.csv")
    assert [*along["row"].unique()] == list(TO_BEAT) and along["first"].min() == 1
    assert len(set_table(read_sets([folder]), "correlations.csv")) == 0


def test_refusals(world: Run, tiny: Any, tmp_path: Path, one_line: Callable[..., str]) -> None:
    def refused(words: str, **changes: Any) -> None:
        with pytest.raises(UserError, match=words) as error:
            world.make(tmp_path / "x", **changes)
        assert one_line(error)
        assert not (tmp_path / "x" / "manifest.json").exists()

    refused("must not be fitted on what it is judged on", floor_noise=world.noise, floor=world.reference)
    refused("pass all shards", floor=world.floor[:1])
    refused("made from another noise", floor=world.reference)
    refused("not of this teacher and ODE", ode=world.ode.at(N=10))
    refused("no image is made of them", metrics=["ode_error", "fd_tiny"])
    noise.make(ROWS, "search", tiny.data, tiny.latents, tiny.seed, tmp_path / "search")
    refused("the same prompts", floor_noise=open_artifact(tmp_path / "search", "noise"))
