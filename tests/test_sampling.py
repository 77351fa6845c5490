"""Sampling: shards, the students' steps by hand, images, refusals."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from directcm.diffusion.teachers import load
from directcm.diffusion.teachers.codec import to_images
from directcm.diffusion.teachers.latent_diffusion import Latents, TextEncoders
from directcm.distill import noise as noise_verb
from directcm.distill import students
from directcm.errors import UserError
from directcm.evaluation import sampling
from directcm.runtime import rng
from directcm.runtime.artifacts import open_artifact
from directcm.runtime.times import step_indices, told


def test_step_indices() -> None:
    # numpy rounds halves to even: 12.5 → 12, 37.5 → 38.
    assert step_indices(50, 4) == [0, 12, 25, 38]
    assert step_indices(100, 1) == [0]
    assert step_indices(100, 2) == [0, 50]
    assert step_indices(100, 8) == [0, 12, 25, 38, 50, 62, 75, 88]
    assert step_indices(5, 5) == [0, 1, 2, 3, 4]
    for k in range(1, 51):
        indices = step_indices(50, k)
        assert len(set(indices)) == k and indices[0] == 0 and indices[-1] < 50


def test_noise_and_prompts(tiny: Any, tmp_path: Path) -> None:
    x = tiny.noise.tensors("noise.safetensors")["noise"]
    assert torch.equal(x, rng.normal(tiny.seed, "evaluation_noise", range(6), (4, 8, 8)))
    rows, images = tiny.noise.csv("prompts.csv"), tiny.data.csv("images.csv")
    assert [r["row"] for r in rows] == [str(i) for i in range(6)]
    assert all(images[int(r["id"])]["text"] == r["text"] and images[int(r["id"])]["split"] == "train" for r in rows)
    # More rows than images: the shuffled images come round again, and the first rows stay what they were.
    noise_verb.make(70, "evaluation", tiny.data, tiny.latents, tiny.seed, tmp_path / "noise")
    more = open_artifact(tmp_path / "noise", "noise")
    ids = [r["id"] for r in more.csv("prompts.csv")]
    n = tiny.data.json("data.json")["n_train"]
    assert ids[:6] == [r["id"] for r in rows] and ids[n:] == ids[: 70 - n] and len(set(ids[:n])) == n
    assert torch.equal(more.tensors("noise.safetensors")["noise"][:6], x)
    assert more.counts == {"samples": 70, "images": n}


def test_the_floor_has_the_same_prompts_and_other_noise(tiny: Any, tmp_path: Path) -> None:
    noise_verb.make(6, "floor", tiny.data, tiny.latents, tiny.seed, tmp_path / "floor")
    floor = open_artifact(tmp_path / "floor", "noise")
    assert floor.file("prompts.csv").read_bytes() == tiny.noise.file("prompts.csv").read_bytes()
    x, y = (n.tensors("noise.safetensors")["noise"] for n in (floor, tiny.noise))
    assert torch.equal(x, rng.normal(tiny.seed, "floor_noise", range(6), (4, 8, 8)))
    # No row of either is a row of the other, and they are as unlike as chance has it: |r| < 4/√1536.
    assert not any(torch.equal(a, b) for a in x for b in y)
    assert abs(float(torch.corrcoef(torch.stack([x.flatten(), y.flatten()]))[0, 1])) < 4 / 1536**0.5
    assert (floor.settings["purpose"], tiny.noise.settings["purpose"]) == ("floor", "evaluation")
    assert floor.fingerprint != tiny.noise.fingerprint
    with pytest.raises(KeyError):
        noise_verb.make(6, "both", tiny.data, tiny.latents, tiny.seed, tmp_path / "both")
    assert not (tmp_path / "both").exists()


def conditioning(tiny: Any) -> Any:
    return TextEncoders.load(tiny.teacher)([r["text"] for r in tiny.noise.csv("prompts.csv")])


def test_shards_of_the_reference_join_to_the_whole(tiny: Any, tmp_path: Path) -> None:
    whole = tiny.sample(tmp_path / "whole").tensors("latents.safetensors")
    parts = [r.tensors("latents.safetensors") for r in tiny.reference]
    assert torch.equal(torch.cat([p["rows"] for p in parts]), whole["rows"])
    assert torch.equal(torch.cat([p["latents"] for p in parts]), whole["latents"])
    assert whole["rows"].tolist() == list(range(6))
    # 3 rows × 5 steps × 2 for guidance.
    assert [r.counts["teacher_forwards"] for r in tiny.reference] == [30, 30]


def images_of_shards_and_whole(tiny: Any, folder: Path, batch: int) -> list[tuple[bytes, bytes]]:
    whole = tiny.sample(folder / "whole", batch_size=batch)
    parts = [tiny.sample(folder / str(i), shard=i, shards=2, batch_size=batch) for i in range(2)]
    names = [f"images/{i:05d}.png" for i in range(6)]
    return [(whole.file(n).read_bytes(), parts[i // 3].file(n).read_bytes()) for i, n in enumerate(names)]


def test_shards_do_not_change_an_image(tiny: Any, tmp_path: Path) -> None:
    assert all(a == b for a, b in images_of_shards_and_whole(tiny, tmp_path, 3))


def test_shards_do_not_change_an_image_where_batches_cross_blocks(tiny: Any, tmp_path: Path) -> None:
    assert all(a == b for a, b in images_of_shards_and_whole(tiny, tmp_path, 2))


def test_the_reference_is_ddim_by_hand(tiny: Any) -> None:
    teacher, cond = load(tiny.teacher), conditioning(tiny)
    x = tiny.noise.tensors("noise.safetensors")["noise"]
    abar = torch.cat([torch.ones(1), torch.cumprod(1 - teacher.process.betas, 0)]).float()
    for t in (1000, 800, 600, 400, 200):
        time = torch.full((6,), float(t))
        with torch.no_grad():
            without, with_ = (teacher.noise(x, time, c) for c in (teacher.unconditional(cond), cond))
        eps = without + 3.0 * (with_ - without)
        x0 = (x - (1 - abar[t]).sqrt() * eps) / abar[t].sqrt()
        x = abar[t - 200].sqrt() * x0 + (1 - abar[t - 200]).sqrt() * eps
    got = torch.cat([r.tensors("latents.safetensors")["latents"] for r in tiny.reference])
    torch.testing.assert_close(got, x, rtol=1e-3, atol=1e-3)


def test_one_step_is_the_students_formula(tiny: Any) -> None:
    student = students.load(load(tiny.teacher), tiny.direct_cm)
    x = tiny.noise.tensors("noise.safetensors")["noise"]
    with torch.no_grad():
        expected = student(x, torch.full((6,), 1000.0), conditioning(tiny))
    got = tiny.samples.tensors("latents.safetensors")
    torch.testing.assert_close(got["latents"], expected, rtol=1e-4, atol=1e-4)
    assert tiny.samples.counts == {"samples": 6, "student_forwards": 6}


def test_three_steps_by_hand(tiny: Any, tmp_path: Path) -> None:
    got = tiny.sample_student(tmp_path / "s", tiny.direct_cm, 3)
    student, cond = students.load(load(tiny.teacher), tiny.direct_cm), conditioning(tiny)
    process = student.process
    x = tiny.noise.tensors("noise.safetensors")["noise"]
    with torch.no_grad():
        out = student(x, torch.full((6,), 1000.0), cond)
        # N = 5: round(0, 5/3, 10/3) are indices 0, 2, 3, times 1000, 600, 400.
        for n, time in ((1, 600.0), (2, 400.0)):
            t = torch.full((6,), time)
            eps = rng.normal(tiny.seed, "step_noise", range(6), (4, 8, 8), 3, n)
            out = student(process.diffuse(out, eps, t), t, cond)
    torch.testing.assert_close(got.tensors("latents.safetensors")["latents"], out, rtol=1e-3, atol=1e-3)
    assert got.counts["student_forwards"] == 18


@pytest.mark.slow
def test_step_noise_does_not_depend_on_batches_or_blocks(tiny: Any, tmp_path: Path) -> None:
    whole = tiny.sample_student(tmp_path / "a", tiny.cm, 2).tensors("latents.safetensors")["latents"]
    for block, batch in ((6, 3), (4, 4), (1, 1)):
        other = tiny.sample_student(tmp_path / f"{block}", tiny.cm, 2, block=block, batch_size=batch)
        torch.testing.assert_close(other.tensors("latents.safetensors")["latents"], whole, rtol=1e-4, atol=1e-4)


def test_images_are_the_decoded_latents(tiny: Any) -> None:
    for art in (tiny.samples, tiny.reference[1]):
        content = art.tensors("latents.safetensors")
        images = to_images(Latents(tiny.teacher).decode(content["latents"]))
        for row, image in zip(content["rows"].tolist(), images, strict=True):
            stored = np.asarray(Image.open(art.file(f"images/{row:05d}.png"))).astype(int)
            assert stored.shape == (16, 16, 3)
            assert np.abs(stored - np.asarray(image).astype(int)).max() <= 1


def test_noise_of_other_latents_is_refused(tiny: Any, tmp_path: Path, one_line: Any) -> None:
    from directcm.config import Encode
    from directcm.distill import encode

    encode.make(
        Encode(posterior="mode"), tiny.teacher, tiny.data, 24, "cpu", "no", tmp_path / "x", tmp_path / "latents"
    )
    noise_verb.make(6, "evaluation", tiny.data, open_artifact(tmp_path / "latents", "latents"), 24, tmp_path / "noise")
    with pytest.raises(UserError) as error:
        tiny.sample(tmp_path / "s", noise=open_artifact(tmp_path / "noise", "noise"))
    assert str(tmp_path / "noise") in one_line(error) and "other latents" in str(error.value)


def test_a_student_of_another_teacher_is_refused(tiny: Any, tmp_path: Path, one_line: Any) -> None:
    shutil.copytree(tiny.cm.folder, tmp_path / "cm")
    student = open_artifact(tmp_path / "cm", "student")
    student.manifest["inputs"]["teacher"] = "0" * 64
    with pytest.raises(UserError) as error:
        tiny.sample_student(tmp_path / "s", student, 1)
    assert "another teacher" in one_line(error)


@pytest.fixture(scope="module")
def kept(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A student with a snapshot after step 2, which is as a student trained for 2 steps."""
    root = tmp_path_factory.mktemp("kept")
    return {
        "long": tiny.train(root / "long", "direct_cm", snapshots=[2], lr=1e-2),
        "short": tiny.train(root / "short", "direct_cm", steps=2, lr=1e-2),
    }


SETS = [(4, 1), (4, 3), (2, 1)]


@pytest.mark.slow
def test_sets_are_what_each_would_be_alone(tiny: Any, kept: Any, tmp_path: Path) -> None:
    parts = tiny.sample_sets(tmp_path / "s", kept["long"], SETS)
    assert list(parts) == [sampling.set_name(*one) for one in SETS]
    assert list(parts)[2] == "step~2,sampling_steps~1"
    alone = [
        tiny.sample_student(tmp_path / "a", kept["long"], 1),
        tiny.sample_student(tmp_path / "b", kept["long"], 3),
        tiny.sample_student(tmp_path / "c", kept["short"], 1),
    ]
    for (step, steps), got, want in zip(SETS, parts.values(), alone, strict=True):
        assert got.verify().fingerprint == want.fingerprint, (step, steps)
        assert (got.settings["step"], got.settings["steps"]) == (step, steps)
        assert got.counts == {"samples": 6, "student_forwards": 6 * steps}
        assert got.manifest["inputs"]["student"] == kept["long"].fingerprint
    assert len({p.fingerprint for p in parts.values()}) == 3
    assert not (tmp_path / "s-scratch").exists()


@pytest.mark.slow
def test_sets_killed_between_two_resume_to_the_same_bytes(
    tiny: Any, kept: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tiny.sample_sets(tmp_path / "whole", kept["long"], SETS)
    real, calls = sampling.sample_at, []

    def dies(*args: Any) -> Any:
        calls.append(len(args[4]))
        if len(calls) == 7:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(sampling, "sample_at", dies)
    with pytest.raises(KeyboardInterrupt):
        tiny.sample_sets(tmp_path / "s", kept["long"], SETS)
    # Rows 0–2 and 3–5 in batches of 2: four calls a set; the second set was under way.
    assert calls == [1, 1, 1, 1, 3, 3, 3] and not (tmp_path / "s" / "manifest.json").exists()
    resumed = tiny.sample_sets(tmp_path / "s", kept["long"], SETS)
    assert calls[7:] == [3, 3, 1, 1, 1, 1], "the first set's blocks and the first block of the second are there"
    assert {n: a.fingerprint for n, a in resumed.items()} == {n: a.fingerprint for n, a in whole.items()}
    assert (tmp_path / "s" / "manifest.json").read_bytes() == (tmp_path / "whole" / "manifest.json").read_bytes()


@pytest.mark.slow
def test_fewer_sets_leave_nothing_of_the_others(tiny: Any, kept: Any, tmp_path: Path) -> None:
    tiny.sample_sets(tmp_path / "s", kept["long"], SETS)
    assert list(tiny.sample_sets(tmp_path / "s", kept["long"], SETS[:1])) == ["step~4,sampling_steps~1"]
    assert sorted(p.name for p in (tmp_path / "s").iterdir() if p.is_dir()) == ["step~4,sampling_steps~1"]


def test_a_step_that_was_not_kept_is_a_users_line(tiny: Any, kept: Any, tmp_path: Path, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        tiny.sample_sets(tmp_path / "s", kept["long"], [(4, 1), (3, 1)])
    assert "no snapshot of step 3" in one_line(error)
    assert not (tmp_path / "s" / "manifest.json").exists()


def test_other_noise_gives_other_samples_of_the_same_prompts(tiny: Any, tmp_path: Path) -> None:
    noise_verb.make(6, "floor", tiny.data, tiny.latents, tiny.seed, tmp_path / "floor")
    floor = tiny.sample(tmp_path / "s", noise=open_artifact(tmp_path / "floor", "noise"))
    same = tiny.sample(tmp_path / "t")
    a, b = (s.tensors("latents.safetensors") for s in (floor, same))
    assert torch.equal(a["rows"], b["rows"]) and not torch.equal(a["latents"], b["latents"])
    assert floor.counts == same.counts and floor.settings == same.settings
    assert floor.manifest["inputs"]["noise"] != same.manifest["inputs"]["noise"]


def test_shards_that_are_not_there(tiny: Any, tmp_path: Path, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        tiny.sample(tmp_path / "s", shard=2, shards=2)
    assert "shard 2 of 2" in one_line(error)


def test_a_killed_run_resumes_to_the_same_bytes(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = sampling.sample_at, []

    def dies(*args: Any) -> Any:
        calls.append(args[6])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(sampling, "sample_at", dies)
    with pytest.raises(KeyboardInterrupt):
        tiny.sample_student(tmp_path / "s", tiny.direct_cm, 1)
    resumed = tiny.sample_student(tmp_path / "s", tiny.direct_cm, 1)
    assert calls == [range(0, 2), range(2, 3), range(3, 5), range(3, 5), range(5, 6)]
    assert (resumed.folder / "manifest.json").read_bytes() == (tiny.samples.folder / "manifest.json").read_bytes()


def test_a_sample_that_is_not_finite_is_named(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_line: Any
) -> None:
    def broken(student: Any, noise: torch.Tensor, *args: Any) -> torch.Tensor:
        out = noise.clone()
        if args[4].start == 3:
            out[1] = float("nan")
        return out

    monkeypatch.setattr(sampling, "sample_at", broken)
    with pytest.raises(UserError) as error:
        tiny.sample_student(tmp_path / "s", tiny.direct_cm, 1)
    assert "row 4 is not finite" in one_line(error)


def test_step_indices_are_numpys() -> None:
    import numpy as np

    for intervals in range(1, 130):
        for steps in range(1, intervals + 1):
            theirs = np.round(np.linspace(0, intervals, steps, endpoint=False)).astype(int)
            assert step_indices(intervals, steps) == theirs.tolist()


def test_the_times_that_stock_diffusers_must_be_told() -> None:
    """Of N = 50 four: the release and we round, where diffusers' own choice of four floors, and takes 259 for 239."""
    from diffusers import LCMScheduler

    assert told(1000, 50, 4) == [999, 759, 499, 239]
    assert told(1000, 50, 1) == [999]
    scheduler = LCMScheduler(original_inference_steps=50)
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [999, 759, 499, 259]
    scheduler.set_timesteps(timesteps=told(1000, 50, 4))
    assert scheduler.timesteps.tolist() == [999, 759, 499, 239]
