"""Editing: orthonormal bases, a known part that stays, the exact flow finds its own points again, numbers against numpy."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from directcm import cli, config, datasets
from directcm.config import Config, Data, Editing, Encode, Ode, Process
from directcm.datasets import digits
from directcm.diffusion import processes
from directcm.diffusion.processes import VarianceExploding, VariancePreserving
from directcm.diffusion.solvers import make_solver, solve
from directcm.diffusion.teachers import Conditioning, load, mixture
from directcm.diffusion.teachers.mixture import Mixture
from directcm.distill import encode, students
from directcm.distill.encode import Latents
from directcm.errors import UserError
from directcm.evaluation import editing
from directcm.evaluation.editing import (
    Part,
    colourisation,
    inpainting,
    reflection,
    spherical,
    strokes,
    super_resolution,
    whole,
)
from directcm.runtime import rng
from directcm.runtime.artifacts import Artifact, new_artifact, open_artifact, write_json

# Some are quick, all together they are not: `make quick` is for what tells most in a minute.
pytestmark = pytest.mark.slow

SEED = 24
SHAPE = (3, 16, 16)
ODE: dict[str, Any] = {"solver": "heun", "N": 5, "w": 2.0}
SETTINGS = Editing(images=5, steps=2, levels=[0.5, 5.0], points=4)
PARTS = {
    "inpainting": inpainting(SHAPE),
    "colourisation": colourisation(SHAPE),
    "super_resolution": super_resolution(SHAPE, 4),
}


def matrix(part: Part, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """A as a matrix, by what it does to every unit vector."""
    size = int(np.prod(shape))
    return part.transform(torch.eye(size, dtype=torch.float64).reshape(-1, *shape)).reshape(size, size)


def images(count: int = 4, shape: tuple[int, ...] = SHAPE, purpose: str = "images") -> Tensor:
    return 0.6 * rng.normal(0, purpose, range(count), shape)


# ----------------------------------------------------------------- what is known


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=20).filter(lambda v: sum(x * x for x in v) > 1e-3))
def test_a_reflection_is_orthogonal_symmetric_and_starts_as_told(first: list[float]) -> None:
    u = torch.tensor(first, dtype=torch.float64)
    q = reflection(u)
    assert float((q @ q.T - torch.eye(len(u))).abs().max()) < 1e-12 and float((q - q.T).abs().max()) == 0
    assert torch.allclose(q[0], u / u.norm(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", PARTS)
def test_bases_are_orthonormal(name: str) -> None:
    a = matrix(PARTS[name], SHAPE)
    assert float((a @ a.T - torch.eye(len(a))).abs().max()) < 1e-12
    assert float((a @ a - torch.eye(len(a))).abs().max()) < 1e-12, "its own inverse"


def test_what_each_edit_knows() -> None:
    x = images().double()
    luma = colourisation(SHAPE).transform(x)[:, 0]
    weights = np.array([0.2989, 0.587, 0.114])
    torch.testing.assert_close(
        luma, torch.einsum("c,bchw->bhw", torch.from_numpy(weights / np.linalg.norm(weights)), x)
    )
    for patch in (2, 4, 8):
        part = super_resolution(SHAPE, patch)
        means = x.reshape(4, 3, 16 // patch, patch, 16 // patch, patch).mean((3, 5))
        known = part.transform(x)[:, ~part.unknown].reshape(means.shape)
        torch.testing.assert_close(known, patch * means)
        # The known part alone is every patch's mean, all over it.
        flat = part.put_back(x, torch.zeros_like(x))
        torch.testing.assert_close(flat, means.repeat_interleave(patch, 2).repeat_interleave(patch, 3))
    hole = inpainting(SHAPE).unknown
    assert hole.sum() == 3 * 8 * 8 and hole[:, 4:12, 4:12].all()
    assert whole(SHAPE).unknown.all() and whole(SHAPE).known_error(x, x) is None
    grey = x[:, :1].expand_as(x)
    assert float((colourisation(SHAPE).put_back(grey, grey) - grey).abs().max()) < 1e-12


@pytest.mark.parametrize("name", PARTS)
def test_the_known_part_stays_and_the_rest_is_new(name: str) -> None:
    part, y, x = PARTS[name], images(), 5 * images(purpose="other")
    got = part.put_back(y, x)
    assert part.known_error(got, y) <= (0 if name == "inpainting" else 1e-12)
    assert float(part.squares(got, x).max()) < 1e-24
    a = matrix(part).numpy()
    off = (a @ (x - y).double().reshape(4, -1).numpy().T).T[:, part.unknown.flatten().numpy()]
    assert part.squares(got, y).numpy() == pytest.approx((off**2).mean(1))


def test_strokes_are_few_tones_of_the_surroundings() -> None:
    x = torch.full((1, 3, 16, 16), 0.9)
    x[..., 8:] = -0.8
    got = strokes(x)
    assert {round(v, 5) for v in got.flatten().tolist()} <= {-1.0, -0.33333, 0.33333, 1.0}
    assert (got[..., :7] == 1).all() and (got[..., 9:] == -1).all()


# ----------------------------------------------------------------- noises and times


@pytest.mark.parametrize("points", [3, 7])
def test_interpolation_ends_at_the_ends_and_keeps_to_the_sphere(points: int) -> None:
    a, b = (rng.normal(0, "z", range(4), SHAPE, i) for i in (0, 1))
    assert torch.equal(spherical(a, b, 0.0), a.double()) and torch.equal(spherical(a, b, 1.0), b.double())
    # Of equal length: on the sphere, in equal angles.
    b = b * (a.flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).reshape(-1, 1, 1, 1)
    way = [spherical(a, b, i / (points - 1)).flatten(1) for i in range(points)]
    angles = [torch.acos((p * q).sum(1) / p.norm(dim=1) / q.norm(dim=1)) for p, q in itertools.pairwise(way)]
    for other in angles:
        assert torch.allclose(other, angles[0], rtol=1e-5) and bool((other > 0.1).all())
    for point in way:
        assert torch.allclose(point.norm(dim=1), a.double().flatten(1).norm(dim=1), rtol=1e-6)


def test_the_nearest_time_of_a_noise_level() -> None:
    process = VarianceExploding()
    grid = process.grid(18)
    assert editing.nearest(process, grid, 80.0) == editing.nearest(process, grid, 1e9) == 0
    assert editing.nearest(process, grid, 1e-6) == 17, "never the end itself"
    for level in (0.5, 2.0):
        ratio = [max(t / level, level / t) for t in grid[:-1].tolist()]
        assert editing.nearest(process, grid, level) == int(np.argmin(ratio))
    vp = VariancePreserving.scaled_linear()
    t = vp.grid(50)[editing.nearest(vp, vp.grid(50), 1.0)]
    assert float(editing.noise_level(vp, t.reshape(1))) == pytest.approx(1.0, abs=0.1)


def test_times_are_those_of_sampling_and_of_the_middle() -> None:
    process, y = VarianceExploding(), images()
    found = {one.name: one for one in editing.listed(Editing(steps=4, start=0.5), process, 18, y)}
    assert found["inpainting"].indices == found["colourisation"].indices == [0, 4, 9, 14]
    assert found["sdedit"].indices == [9, 11, 13, 16] and torch.equal(found["sdedit"].start, strokes(y))
    assert len(found["denoising_1"].indices) == 1 and found["denoising_1"].start is y
    levels = [float(process.grid(18)[found[f"denoising_{i}"].indices[0]]) for i in (1, 2)]
    assert levels == sorted(levels)
    # Fewer times than steps, levels that fall together: once each.
    few = {
        one.name: one.indices for one in editing.listed(Editing(steps=9, start=0.9, levels=[1.0, 1.1]), process, 2, y)
    }
    assert few["inpainting"] == [0, 1] and few["sdedit"] == [1] and "denoising_2" not in few
    calls, steps = editing.evaluations(Editing(steps=4, start=0.5, points=7), process, 18, 16)
    ends = [18 - found[f"denoising_{i}"].indices[0] for i in (1, 2)]
    assert calls == 3 * 4 + 4 + 2 + 7 and steps == 3 * (18 + 14 + 9 + 4) + (9 + 7 + 5 + 2) + sum(ends) + 7 * 18


# ----------------------------------------------------------------- the exact flow


def exact(process: processes.Process, points: Tensor, intervals: int) -> Any:
    """The solved ODE of the exact score of some points, as the edits call it."""
    teacher = Mixture(process, points, 0.0)

    def flow(x: Tensor, index: int, cond: Conditioning | None) -> Tensor:
        starts = torch.full((len(x),), index)
        return solve(teacher, make_solver("ddim"), x.float(), starts, intervals, cond, 1.0, 64)[0]

    return flow


def told_apart_by(name: str) -> Tensor:
    """Eight points that differ more in the part that an edit knows than in the rest: where they do not, no such edit finds them."""
    if name == "colourisation":
        return images(8)[:, :1].expand(-1, 3, -1, -1).contiguous()
    if name == "super_resolution":
        flat = super_resolution(SHAPE, 4).put_back(4 * images(8), torch.zeros(8, *SHAPE))
        return (flat + 0.2 * images(8, purpose="detail")).float()
    return images(8)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("kind", ["ve", "vp"])
def test_the_exact_flow_finds_its_own_points_again(kind: str, name: str) -> None:
    """Of eight points the known part tells which: the rest of it comes back."""
    intervals = 20
    process: processes.Process = VarianceExploding() if kind == "ve" else VariancePreserving.scaled_linear()
    points, part = told_apart_by(name), PARTS[name]
    grid, indices = process.grid(intervals), editing.step_indices(intervals, 10)
    y = points[:5]

    def put_back(x: Tensor) -> Tensor:
        return part.put_back(y, x)

    def noise(step: int) -> Tensor:
        return rng.normal(3, "n", range(len(y)), SHAPE, step)

    start = put_back(torch.zeros_like(y))
    flow = exact(process, points, intervals)
    got = editing.edit(flow, process, grid, indices, start, None, noise, put_back)  # type: ignore[arg-type]
    known = part.known_error(got, y)
    assert known is not None and known < 1e-12
    assert float(part.squares(got, y).sqrt().max()) < 0.02 < float(part.squares(start, y).sqrt().min())
    # Without the known part it ends in any of the points.
    free = editing.edit(flow, process, grid, [0], torch.zeros_like(y), None, noise, lambda x: x)  # type: ignore[arg-type]
    which = torch.cdist(free.flatten(1).double(), points.flatten(1).double()).argmin(1)
    assert which.tolist() != list(range(5))


def test_denoising_by_the_exact_flow_of_one_point() -> None:
    process = VarianceExploding()
    point = images(1)
    grid = process.grid(10)
    x = editing.edit(
        exact(process, point, 10), process, grid, [6], point, None,  # type: ignore[arg-type]
        lambda n: rng.normal(0, "e", range(1), SHAPE, n), lambda x: x,
    )  # fmt: skip
    # The flow of a point shrinks the noise in proportion to the time: ε/t of t·z is left.
    z = rng.normal(0, "e", range(1), SHAPE, 0)
    torch.testing.assert_close(x, point + process.end * z, rtol=1e-4, atol=1e-4)


# ----------------------------------------------------------------- the verb


@pytest.fixture(scope="module", params=["karras", "vp"])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """40 digits, their exact teacher, an untrained student of it, and the edits of both."""
    root = tmp_path_factory.mktemp(f"editing_{request.param}")
    items = list(itertools.islice(digits.items(Data())[1], 40))
    datasets.write(len(items), items, Data(), SEED, root / "data")
    s = SimpleNamespace(root=root, data=open_artifact(root / "data", "data"), kind=request.param)
    own = config.parse(config.Mixture, {"scale": 0.05, "student": {"channels": [16, 16]}})
    mixture.make(own, Process(kind=request.param), s.data, SEED, root / "scratch", root / "teacher")
    s.teacher = open_artifact(root / "teacher", "teacher")
    encode.make(Encode(), s.teacher, s.data, SEED, "cpu", "no", root / "e", root / "latents")
    s.latents = open_artifact(root / "latents", "latents")
    s.student = untrained(s.teacher, root / "student")
    s.reference = run(s, root / "edits")
    s.edits = run(s, root / "mine", s.student, s.reference)
    return s


def untrained(teacher: Artifact, folder: Path) -> Artifact:
    with new_artifact(folder, "student", settings={}, inputs={"teacher": teacher}) as art:
        who = students.make_student(load(teacher), "full", 0)
        with torch.no_grad():
            for i, p in enumerate(who.teacher.network.parameters()):
                p.add_(0.05 * rng.normal(1, "shake", [i], tuple(p.shape))[0])
        students.save(who.teacher.network, "full", art.path)
        run = Config().runs()[0].at(**ODE, adapter="full", steps=4)
        write_json(art / "student.json", {"run": run.axes(), "snapshots": []})
    return open_artifact(folder, "student")


def run(
    s: Any, out: Path, student: Artifact | None = None, reference: Artifact | None = None, **changes: Any
) -> Artifact:
    o = {**ODE, "batch_size": 3, "settings": SETTINGS, "seed": SEED, "teacher": s.teacher} | changes
    editing.make(
        o["settings"], Ode.of(o, "test"), o["batch_size"], "no", o["teacher"], s.latents, student, reference, o["seed"], "cpu",
        out,
    )  # fmt: skip
    return open_artifact(out, "edits")


def numbers(artifact: Artifact) -> dict[str, dict[str, Any]]:
    return {entry["edit"]: entry for entry in artifact.json("edits.json")}


def test_the_artefact(small: Any) -> None:
    pool = Latents(small.latents)
    for edits in (small.reference, small.edits):
        content, found = edits.verify().tensors("edits.safetensors"), numbers(edits)
        names = ["inpainting", "colourisation", "super_resolution", "sdedit", "denoising_1", "denoising_2"]
        assert list(found) == [*names, "interpolation"]
        assert content["interpolation"].shape == (5, 4, *SHAPE)
        ids = content["id"]
        assert set(ids.tolist()) <= set(pool.held_out) and len(set(ids.tolist())) == 5
        y, mean = pool.latents(ids), pool.latents(torch.tensor(pool.train)).mean(0)
        assert torch.equal(content["truth"], y)
        for name in names:
            part = PARTS.get(name, whole(SHAPE))
            entry = found[name]
            if name in PARTS:
                assert entry["known_error"] <= 1e-6 and part.known_error(content[name], y) <= 1e-5
                assert torch.allclose(content[f"{name}.input"], part.put_back(y, torch.zeros_like(y)).float())
            else:
                assert entry["known_error"] is None
            for where, key in ((entry, name), (entry["input"], f"{name}.input"), (entry["mean"], f"{name}.mean")):
                squares = part.squares(content[key], y).numpy()
                assert where["rmse"] == pytest.approx(np.sqrt(squares.mean()), rel=1e-4)
                assert where["se"] == pytest.approx(squares.std(ddof=1) / np.sqrt(5) / 2 / where["rmse"], rel=1e-3)
            assert torch.allclose(content[f"{name}.mean"], part.put_back(y, mean.expand_as(y)).float(), atol=1e-5)
            assert entry["n"] == 5
        assert torch.equal(content["sdedit.input"], strokes(y))
        table = edits.csv("per_image.csv")
        assert len(table) == 5 * 7 and table[0].keys() == set(editing.COLUMNS)


def test_denoising_against_numpy(small: Any) -> None:
    content, entry = small.edits.tensors("edits.safetensors"), numbers(small.edits)["denoising_1"]
    process = load(small.teacher).process
    y = content["truth"].numpy().astype(float)
    z = np.stack(
        [rng.generator(SEED, "edit_denoising_1", 0, i).standard_normal(SHAPE, dtype=np.float32) for i in range(5)]
    )
    # The image under noise of the level, on the image's own scale.
    assert content["denoising_1.input"].numpy() == pytest.approx(y + entry["level"] * z, abs=1e-4)
    assert entry["input"]["rmse"] == pytest.approx(entry["level"] * np.sqrt((z.astype(float) ** 2).mean()), rel=1e-3)
    got = content["denoising_1"].numpy().astype(float)
    assert entry["rmse"] == pytest.approx(np.sqrt(((got - y) ** 2).mean()), rel=1e-6)
    # And it is the student itself, at that time of its grid.
    grid = process.grid(5)
    index = editing.nearest(process, grid, 0.5)
    t = grid[index].expand(5)
    who = students.load(load(small.teacher), small.student)
    x = process.diffuse(torch.from_numpy(y).float(), torch.from_numpy(z), t)
    with torch.no_grad():
        want = who(x, t, Latents(small.latents).conditioning(content["id"]))
    torch.testing.assert_close(content["denoising_1"], want, rtol=1e-4, atol=1e-4)


def test_interpolations_are_held_against_the_teachers(small: Any) -> None:
    theirs, mine = (e.tensors("edits.safetensors")["interpolation"].double() for e in (small.reference, small.edits))
    found, teacher = numbers(small.edits)["interpolation"], numbers(small.reference)["interpolation"]
    assert found["known_error"] == teacher["known_error"] == 0 and teacher["rmse"] is None
    assert found["rmse"] == pytest.approx(float(((mine - theirs)[:, 1:-1] ** 2).mean().sqrt()), rel=1e-6)
    third = torch.tensor([1 / 3, 2 / 3], dtype=torch.float64)[:, None, None, None]
    fade = (1 - third) * theirs[:, :1] + third * theirs[:, -1:]
    assert found["input"]["rmse"] == pytest.approx(float(((fade - theirs[:, 1:-1]) ** 2).mean().sqrt()), rel=1e-5)
    assert found["input"] == teacher["input"] and found["mean"] == teacher["mean"]


def test_forwards_are_counted(small: Any) -> None:
    calls, steps = editing.evaluations(SETTINGS, load(small.teacher).process, 5, 16)
    # Heun, guided: four rows a step.
    assert small.reference.counts == {
        "images": 5, "teacher_forwards": 5 * steps * 4, "teacher_forwards_minimum": 5 * steps * 4,
    }  # fmt: skip
    assert small.edits.counts == {"images": 5, "student_forwards": 5 * calls}


def test_the_batch_does_not_change_the_images(small: Any, tmp_path: Path) -> None:
    other = run(small, tmp_path / "r", batch_size=2)
    again = run(small, tmp_path / "s", small.student, other, batch_size=2)
    for name, made in again.tensors("edits.safetensors").items():
        torch.testing.assert_close(made, small.edits.tensors("edits.safetensors")[name], rtol=1e-4, atol=1e-4)
    assert run(small, tmp_path / "t").fingerprint == small.reference.fingerprint


def test_the_command_line_does_what_the_module_does(small: Any, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    ode = ["--solver", "heun", "--N", "5", "--w", "2", "--batch-size", "3", "--seed", str(SEED)]
    given = ["--settings", json.dumps(SETTINGS.model_dump(mode="json")), *ode]
    given += ["--teacher", str(small.teacher.folder), "--latents", str(small.latents.folder)]
    who = ["--student", str(small.student.folder)]
    for name, more, same in (
        ("a", [], small.reference),
        ("b", [*who, "--reference", str(small.reference.folder)], small.edits),
    ):
        assert cli.main(["edit", *given, *more, "--out", str(tmp_path / name)]) == 0, capsys.readouterr().err
        assert open_artifact(tmp_path / name, "edits").fingerprint == same.fingerprint
    assert cli.main(["edit", *given, *who, "--out", str(tmp_path / "c")]) == 2
    assert "--reference is missing" in capsys.readouterr().err


def test_what_does_not_belong_together_is_one_line(small: Any, tmp_path: Path, tiny: Any, one_line: Any) -> None:
    def refused(**given: Any) -> str:
        with pytest.raises(UserError) as error:
            run(small, tmp_path / "x", **given)
        assert not (tmp_path / "x").exists()
        return one_line(error)

    assert "trained on another ODE" in refused(student=small.student, reference=small.reference, N=4)
    assert "other settings" in refused(student=small.student, reference=small.reference, seed=1)
    assert "other settings" in refused(
        student=small.student, reference=small.reference, settings=SETTINGS.model_copy(update={"points": 5})
    )
    assert "another teacher" in refused(student=tiny.cm, reference=small.reference)
    assert "diffuses latents" in refused(teacher=tiny.teacher)
