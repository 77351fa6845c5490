"""Training of students: what they see, what they refuse, and that a resumed one has the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from directcm.diffusion.teachers import load
from directcm.distill import methods, students, training
from directcm.distill.encode import Latents
from directcm.distill.methods import Batch, cm, direct_cm
from directcm.distill.targets import Starts, join
from directcm.errors import UserError
from directcm.runtime import rng
from directcm.runtime.artifacts import Artifact, open_artifact


class Killed(BaseException):
    pass


@pytest.mark.parametrize("method", ["cm", "direct_cm"])
def test_stopped_and_resumed_has_the_same_bytes(
    tiny: Any, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, calls = methods.load(method), []
    real = module.loss

    def dies(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise Killed
        return real(*args)

    monkeypatch.setattr(module, "loss", dies)
    with pytest.raises(Killed):
        tiny.train(tmp_path / "student", method)
    assert not (tmp_path / "student").exists()
    resumed = tiny.train(tmp_path / "student", method)
    assert len(calls) == 6, "two steps were in the checkpoint"
    whole: Artifact = getattr(tiny, method)
    for name in ("checksums.csv", "manifest.json", "pytorch_lora_weights.safetensors", "curve.csv"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


WEIGHTS = "pytorch_lora_weights.safetensors"


def seconds_at(student: Artifact) -> dict[str, float]:
    return json.loads((student.folder / "provenance.json").read_text())["seconds_at"]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "adapter"), [("cm", "lora4"), ("direct_cm", "lora4"), ("direct_cm", "full")])
def test_a_snapshot_has_the_bytes_of_a_run_that_ends_there(
    tiny: Any, tmp_path: Path, method: str, adapter: str
) -> None:
    long = tiny.train(tmp_path / "long", method, adapter=adapter, steps=5, snapshots=[4, 1])
    files = [WEIGHTS] if adapter == "lora4" else ["unet/diffusion_pytorch_model.safetensors", "unet/config.json"]
    for step in (1, 4):
        short = tiny.train(tmp_path / f"{step}", method, adapter=adapter, steps=step)
        for name in files:
            snapshot = long.file(f"snapshots/step~{step}/{name}")
            assert snapshot.read_bytes() == short.file(name).read_bytes(), (step, name)
    # The finished student is what it is without snapshots.
    plain = tiny.train(tmp_path / "plain", method, adapter=adapter, steps=5)
    for name in [*files, "curve.csv"]:
        assert long.file(name).read_bytes() == plain.file(name).read_bytes()
    assert long.verify().json("student.json")["snapshots"] == long.settings["snapshots"] == [1, 4]
    assert plain.json("student.json")["snapshots"] == []
    assert set(long.checksums) - set(plain.checksums) == {f"snapshots/step~{s}/{n}" for s in (1, 4) for n in files}
    assert list(seconds_at(long)) == ["1", "4", "5"] and list(seconds_at(plain)) == ["5"]
    spent = list(seconds_at(long).values())
    assert 0 <= spent[0] <= spent[1] <= spent[2] and spent[2] > 0
    # Work that is done leaves no weights behind.
    assert not list((tmp_path / "long-scratch").glob("snapshot-*"))


@pytest.mark.slow
@pytest.mark.parametrize("kill", [4, 5, 6])
def test_killed_between_a_snapshot_and_a_checkpoint(
    tiny: Any, tmp_path: Path, kill: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints after 2 and 4, snapshots after 1, 3 and 5: killed in the step after one of them, the bytes are the same."""
    whole = tiny.train(tmp_path / "whole", "cm", steps=6, snapshots=[1, 3, 5])
    calls: list[int] = []
    real = cm.loss

    def dies(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == kill:
            raise Killed
        return real(*args)

    monkeypatch.setattr(cm, "loss", dies)
    scratch = tmp_path / "scratch"
    with pytest.raises(Killed):
        tiny.train(tmp_path / "student", "cm", steps=6, snapshots=[1, 3, 5], scratch=scratch)
    kept = [f"snapshot-{s:08d}" for s in (1, 3, 5) if s < kill]
    assert sorted(p.name for p in scratch.glob("snapshot-*")) == kept
    resumed = tiny.train(tmp_path / "student", "cm", steps=6, snapshots=[1, 3, 5], scratch=scratch)
    assert len(calls) == kill + 6 - (kill - 1) // 2 * 2
    for name in ("checksums.csv", "manifest.json"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert {f"snapshots/step~{s}/{WEIGHTS}" for s in (1, 3, 5)} <= set(resumed.verify().checksums)
    assert list(seconds_at(resumed)) == ["1", "3", "5", "6"]
    assert list(seconds_at(resumed).values()) == sorted(seconds_at(resumed).values())
    assert not list(scratch.glob("snapshot-*"))


@pytest.mark.parametrize("snapshots", [[4], [5], [2, 9], [0], [-1, 2]])
def test_snapshots_that_are_not_before_the_end_are_refused(
    tiny: Any, tmp_path: Path, snapshots: list[int], one_line: Any
) -> None:
    with pytest.raises(UserError) as error:
        tiny.train(tmp_path / "s", "cm", snapshots=snapshots)
    assert str(sorted(snapshots)) in one_line(error) and "before the last, 4" in str(error.value)
    assert not (tmp_path / "s").exists() and not (tmp_path / "s-scratch").exists()


def test_a_smaller_pool_is_the_larger_ones_first(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool of 8 needs the first shard alone, takes no point beyond it, and a shard more does not change a byte."""
    seen = watch(monkeypatch, direct_cm)
    one = tiny.train(tmp_path / "one", "direct_cm", pool=8, targets=tiny.targets[:1])
    both = tiny.train(tmp_path / "both", "direct_cm", pool=8)
    assert one.file(WEIGHTS).read_bytes() == both.file(WEIGHTS).read_bytes()
    assert one.file(WEIGHTS).read_bytes() != tiny.direct_cm.file(WEIGHTS).read_bytes()
    starts = Starts(Latents(tiny.latents), load(tiny.teacher).process, tiny.N, tiny.seed)
    _, _, x = starts(range(8))
    for first in (0, 2, 4, 6):
        epoch = torch.cat([b.x for b in seen[first : first + 2]])
        # Every point of the pool once in two steps of four.
        assert sorted(epoch.flatten(1).sum(1).tolist()) == sorted(x.flatten(1).sum(1).tolist())
    assert (one.counts["pairs_drawn"], one.counts["distinct_pairs"]) == (16, 8)
    assert one.run.pool == 8


def watch(monkeypatch: pytest.MonkeyPatch, module: Any) -> list[Batch]:
    seen: list[Batch] = []
    real = module.loss

    def loss(student: Any, batch: Batch, context: Any) -> Any:
        seen.append(batch)
        return real(student, batch, context)

    monkeypatch.setattr(module, "loss", loss)
    return seen


@pytest.mark.slow
def test_both_methods_see_the_same_start_points(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = watch(monkeypatch, cm), watch(monkeypatch, direct_cm)
    tiny.train(tmp_path / "cm", "cm", steps=6)
    tiny.train(tmp_path / "direct", "direct_cm", steps=6)
    assert len(first) == len(second) == 6
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.x, b.x) and torch.equal(a.t, b.t) and torch.equal(a.t_next, b.t_next)
        assert all(torch.equal(v, b.cond.tensors[k]) for k, v in a.cond.tensors.items())
        assert a.endpoint is None and b.endpoint is not None


def test_batches_are_the_pool_in_shuffled_epochs(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch(monkeypatch, direct_cm)
    tiny.train(tmp_path / "s", "direct_cm", steps=5, seed=3)
    order = rng.stream(3, "train_order", 0, 20, 16)
    starts = Starts(Latents(tiny.latents), load(tiny.teacher).process, tiny.N, tiny.seed)
    _, k, x = starts(order.tolist())
    assert torch.equal(torch.cat([b.x for b in seen]), x)
    assert torch.equal(torch.cat([b.t for b in seen]), starts.grid[k])
    assert torch.equal(torch.cat([b.t_next for b in seen]), starts.grid[k + 1])
    assert torch.equal(torch.cat([b.endpoint for b in seen]), join(tiny.targets)["endpoint"][torch.from_numpy(order)])
    assert sorted(order[:16]) == list(range(16))


def test_first_loss_is_that_of_the_teachers_one_step(tiny: Any) -> None:
    # LoRA starts at 0, so the first row of the curve can be worked out without training.
    teacher, pool = load(tiny.teacher), Latents(tiny.latents)
    index = rng.stream(0, "train_order", 0, 4, 16)
    starts = Starts(pool, teacher.process, tiny.N, tiny.seed)
    ids, k, x = starts(index.tolist())
    with torch.no_grad():
        out = students.Student(teacher)(x, starts.grid[k], pool.conditioning(ids))
    expected = float(((out - join(tiny.targets)["endpoint"][torch.from_numpy(index)]) ** 2).mean())
    first = tiny.direct_cm.csv("curve.csv")[0]
    assert float(first["loss"]) == pytest.approx(expected, rel=1e-4)
    assert first["step"] == "0" and float(first["lr"]) == 1e-3 and float(first["grad_norm"]) > 0


def test_artefact(tiny: Any) -> None:
    for name, forwards in (("cm", 4 * 4 * 2), ("direct_cm", 0)):
        student: Artifact = getattr(tiny, name).verify()
        assert student.run == tiny.student_run(name) and student.json("student.json")["run"] == student.run.axes()
        assert student.counts["pairs_drawn"] == 16 and student.counts["distinct_pairs"] == 16
        assert student.counts["teacher_forwards"] == student.counts["teacher_forwards_minimum"] == forwards
        assert len(student.csv("curve.csv")) == 4
        assert student.manifest["inputs"]["teacher"] == tiny.teacher.fingerprint
    state = tiny.cm.tensors("pytorch_lora_weights.safetensors")
    assert sum(v.numel() for v in state.values()) == tiny.cm.counts["trainable_parameters"]
    assert {f"targets_{i}" for i in range(2)} <= tiny.direct_cm.manifest["inputs"].keys()
    assert tiny.cm.fingerprint != tiny.direct_cm.fingerprint


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"loss": "pseudo_huber"}, {"lr": 2e-3}, {"adapter": "lora2"}, {"pool": 15}, {"batch_size": 3}],
)
def test_every_axis_matters(tiny: Any, tmp_path: Path, change: dict) -> None:
    assert tiny.train(tmp_path / "s", "direct_cm", **change).fingerprint != tiny.direct_cm.fingerprint


@pytest.mark.parametrize("adapter", ["lora4", "full"])
def test_cm_from_stored_steps_is_cm_with_the_teacher(tiny: Any, tmp_path: Path, adapter: str) -> None:
    """To float32 rounding, which AdamW's first steps enlarge where a gradient is nearly 0: so the losses, and what the student says."""
    asked = tiny.train(tmp_path / "asked", "cm", adapter=adapter)
    stored = tiny.train(tmp_path / "stored", "cm", adapter=adapter, targets=tiny.targets)
    losses = ([float(row["loss"]) for row in student.csv("curve.csv")] for student in (asked, stored))
    for one, other in zip(*losses, strict=True):
        assert other == pytest.approx(one, rel=1e-5)
    pool, teacher = Latents(tiny.latents), load(tiny.teacher)
    ids, k, x = Starts(pool, teacher.process, tiny.N, tiny.seed)(range(16))
    with torch.no_grad():
        ends = [
            students.load(teacher, student)(x, teacher.process.grid(tiny.N)[k], pool.conditioning(ids))
            for student in (asked, stored)
        ]
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-4, atol=1e-4)
    # What it costs is what it costs: a step of the teacher's a pair, whoever made it; made were none here.
    assert stored.json("student.json")["forwards"] == asked.json("student.json")["forwards"]
    assert (asked.counts["teacher_forwards"], stored.counts["teacher_forwards"]) == (4 * 4 * 2, 0)
    assert stored.manifest["inputs"].keys() - asked.manifest["inputs"].keys() == {"targets_0", "targets_1"}


@pytest.mark.parametrize("adapter", ["lora4", "full"])
def test_cm_from_a_solve_of_one_step_has_the_bytes_of_cm_from_the_whole(
    tiny: Any, tmp_path: Path, adapter: str
) -> None:
    first = [tiny.solve(tmp_path / f"first-{i}", i, first_step=True) for i in range(2)]
    one, other = (
        tiny.train(tmp_path / name, "cm", adapter=adapter, targets=targets)
        for name, targets in (("one", first), ("other", tiny.targets))
    )
    assert one.checksums == other.checksums and one.counts == other.counts
    assert one.counts["teacher_forwards"] == 0


def test_direct_cm_needs_more_than_the_first_step(tiny: Any, tmp_path: Path, one_line: Any) -> None:
    first = [tiny.solve(tmp_path / f"first-{i}", i, first_step=True) for i in range(2)]
    with pytest.raises(UserError) as error:
        tiny.train(tmp_path / "s", "direct_cm", targets=first)
    assert "holds first steps alone, direct_cm needs the solved endpoints" in one_line(error)


def test_a_stored_step_of_another_ode_is_refused(tiny: Any, tmp_path: Path, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        tiny.train(tmp_path / "s", "cm", w=2.0, targets=tiny.targets)
    assert str(tiny.targets[0].folder) in one_line(error)


def test_cm_with_heun_counts_its_forwards(tiny: Any, tmp_path: Path) -> None:
    student = tiny.train(tmp_path / "s", "cm", solver="heun", w=1.0, steps=1)
    assert student.counts["teacher_forwards"] == 4 * 2


@pytest.mark.parametrize("change", [{"N": 10}, {"w": 2.0}, {"solver": "euler"}])
def test_targets_of_another_ode_are_refused(tiny: Any, tmp_path: Path, change: dict, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        tiny.train(tmp_path / "s", "direct_cm", **change)
    key, value = next(iter(change.items()))
    assert f"'{key}': {value!r}" in one_line(error) and str(tiny.targets[0].folder) in str(error.value)


def test_other_targets_are_refused(tiny: Any, tmp_path: Path, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        tiny.train(tmp_path / "a", "direct_cm", targets=[])
    assert "direct_cm needs --targets" in one_line(error)
    for pool, targets, rows in ((17, tiny.targets, 16), (16, tiny.targets[:1], 8), (8, tiny.targets[1:], 8)):
        with pytest.raises(UserError) as error:
            tiny.train(tmp_path / "b", "direct_cm", pool=pool, targets=targets)
        assert f"the shards hold {rows} rows, not the first {pool} that are needed" in one_line(error)


def test_targets_of_another_teacher_are_refused(tiny: Any, tmp_path: Path, one_line: Any) -> None:
    from directcm.config import Train

    other = open_artifact(tiny.teacher.folder, "teacher")
    other.manifest["checksums_sha256"] = "f" * 64
    with pytest.raises(UserError) as error:
        training.make(
            tiny.student_run("direct_cm"),
            Train(),
            [],
            other,
            tiny.latents,
            tiny.targets,
            tiny.seed,
            tmp_path / "x",
            None,
            tmp_path / "s",
        )
    assert "another teacher" in one_line(error)


@pytest.mark.slow
def test_direct_cm_learns(tiny: Any, tmp_path: Path) -> None:
    student = tiny.train(
        tmp_path / "s", "direct_cm", steps=60, adapter="full", lr=3e-3, batch_size=16, checkpoint_every=1000
    )
    losses = [float(r["loss"]) for r in student.csv("curve.csv")]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert (student.folder / "unet" / "config.json").is_file()
    assert student.counts["trainable_parameters"] == tiny.teacher.counts["unet_parameters"]


def test_gradient_checkpointing_changes_rounding_only(tiny: Any, tmp_path: Path) -> None:
    saving = tiny.train(tmp_path / "s", "direct_cm", gradient_checkpointing=True)
    for a, b in zip(saving.csv("curve.csv"), tiny.direct_cm.csv("curve.csv"), strict=True):
        assert float(a["loss"]) == pytest.approx(float(b["loss"]), rel=1e-4)


@pytest.mark.parametrize("method", ["cm", "direct_cm"])
@pytest.mark.parametrize("rows", [1, 3])
def test_parts_of_a_batch_change_rounding_only(tiny: Any, tmp_path: Path, rows: int, method: str) -> None:
    parts = tiny.train(tmp_path / "s", method, micro_batch=rows)
    for a, b in zip(parts.csv("curve.csv"), getattr(tiny, method).csv("curve.csv"), strict=True):
        for column in ("loss", "grad_norm"):
            assert float(a[column]) == pytest.approx(float(b[column]), rel=1e-4)
    assert json.loads((parts.folder / "provenance.json").read_text())["pace"] == {
        "gradient_checkpointing": False,
        "micro_batch": rows,
    }


@pytest.fixture
def fresh_accelerator() -> Any:
    """accelerate keeps the precision of the first Accelerator of a process."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_bf16_stays_close(tiny: Any, tmp_path: Path, fresh_accelerator: None) -> None:
    mixed = tiny.train(tmp_path / "s", "direct_cm", precision="bf16")
    assert float(mixed.csv("curve.csv")[0]["loss"]) == pytest.approx(
        float(tiny.direct_cm.csv("curve.csv")[0]["loss"]), rel=0.1
    )


def test_a_learning_rate_that_blows_up_ends_in_one_line(tiny: Any, tmp_path: Path, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        tiny.train(tmp_path / "s", "direct_cm", lr=1e30, steps=10, adapter="full")
    assert "train: direct_cm seed 0: loss" in one_line(error) and "at step" in str(error.value)
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
def test_unfinished_work_of_other_code_is_not_resumed(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edited method starts afresh: what re-runs because of an edit must not continue the old code's checkpoints."""
    seen = watch(monkeypatch, cm)
    tiny.train(tmp_path / "student", "cm")
    assert len(seen) == 4
    tiny.train(tmp_path / "student", "cm")
    assert len(seen) == 6, "the same code goes on from its checkpoint"
    monkeypatch.setattr(training, "digest", lambda *modules: "edited")
    tiny.train(tmp_path / "student", "cm")
    assert len(seen) == 10
