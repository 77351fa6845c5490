"""The training loop: schedules, clipping, averaging, checkpoints that resume to the same bytes."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from directcm.errors import UserError
from directcm.runtime import loop, rng
from directcm.runtime.loop import CURVE, Job, constant, cosine, fit, make_accelerator
from tests.patience import PATIENCE


class Killed(BaseException):
    """Stands for a signal."""


def problem(
    stop: int | None = None, log: list[np.ndarray] | None = None, nan: int | None = None, **options: Any
) -> Job:
    """Fit y = sin of x with a small network, on rows drawn by position."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

    def loss(step: int, rows: np.ndarray) -> Tensor:
        if step == stop:
            raise Killed
        if log is not None:
            log.append(rows)
        x = rng.normal(0, "x", rows.tolist(), (3,))
        out = ((net(x)[:, 0] - x.sin().sum(1)) ** 2) * (float("nan") if step == nan else 1.0)
        return out

    defaults: dict[str, Any] = {
        "steps": 9,
        "batch_size": 4,
        "lr": cosine(1e-2, 9, 2),
        "checkpoint_every": 2,
        "key": {"a": 1},
    }
    return Job("test", {"net": net}, loss, **{**defaults, **options})


def train(job: Job) -> tuple[list[dict[str, float]], dict[str, Tensor], dict[str, Tensor]]:
    curve, average, *_ = fit(job, make_accelerator())
    return curve, average, {k: v.clone() for k, v in job.modules["net"].state_dict().items()}


def same(a: tuple, b: tuple) -> None:
    assert a[0] == b[0]
    for x, y in zip(a[1:], b[1:], strict=True):
        assert x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


def test_schedules() -> None:
    assert [constant(0.3)(s) for s in (0, 7)] == [0.3, 0.3]
    warm = cosine(1.0, 100, 4)
    assert [warm(s) for s in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert warm(4) == 1.0 and warm(52) == pytest.approx(0.5) and warm(100) == pytest.approx(0.0)
    assert warm(28) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert cosine(2.0, 10)(0) == 2.0
    assert cosine(1.0, 5, 5)(4) == 1.0


def test_curve_and_learning() -> None:
    rows: list[np.ndarray] = []
    curve, average, _ = train(problem(log=rows, steps=60, lr=constant(3e-2), batch_size=16))
    assert [r["step"] for r in curve] == list(range(60)) and list(curve[0]) == CURVE
    assert {r["lr"] for r in curve} == {3e-2} and average == {}
    assert np.mean([r["loss"] for r in curve[-10:]]) < 0.5 * np.mean([r["loss"] for r in curve[:5]])
    assert np.array_equal(np.concatenate(rows), np.arange(60 * 16))


def test_the_optimiser_is_adamw() -> None:
    job = problem(steps=5, lr=cosine(1e-2, 5), weight_decay=0.1)
    twin = problem()
    net = twin.modules["net"]
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.1)
    for step in range(5):
        optimizer.param_groups[0]["lr"] = cosine(1e-2, 5)(step)
        optimizer.zero_grad()
        twin.loss(step, np.arange(4 * step, 4 * step + 4)).mean().backward()
        optimizer.step()
    _, _, weights = train(job)
    # One kernel rounds otherwise than one operation after the other.
    for k, v in net.state_dict().items():
        torch.testing.assert_close(weights[k], v, rtol=1e-5, atol=1e-7)


def test_clipping() -> None:
    free, _, _ = train(problem(steps=1, lr=constant(1e-2)))
    # AdamW's first step does not see the gradient's size; the recorded norm is that before clipping.
    clipped, _, _ = train(problem(steps=1, grad_clip=1e-3))
    assert clipped[0]["grad_norm"] == free[0]["grad_norm"] > 1e-3
    job = problem(steps=1, grad_clip=1e-3)
    seen: list[float] = []

    class Watching(type(make_accelerator())):  # type: ignore[misc]
        def prepare_optimizer(self, optimizer: Any, **options: Any) -> Any:
            prepared = super().prepare_optimizer(optimizer, **options)
            step = prepared.step

            def watch() -> None:
                seen.append(float(torch.cat([p.grad.flatten() for p in job.modules["net"].parameters()]).norm()))
                step()

            prepared.step = watch
            return prepared

    fit(job, Watching())
    assert seen == [pytest.approx(1e-3, rel=1e-3)]


def test_average() -> None:
    weights: list[dict[str, Tensor]] = []
    job = problem(steps=4, ema=0.9)
    net, loss = job.modules["net"], job.loss

    def record(step: int, rows: np.ndarray) -> Tensor:
        weights.append({k: v.detach().clone() for k, v in net.named_parameters()})
        return loss(step, rows)

    job.loss = record
    _, average, last = train(job)
    for name in weights[0]:
        hand = weights[0][name].double()
        for w in [*weights[1:], last]:
            hand = 0.9 * hand + 0.1 * w[name].double()
        torch.testing.assert_close(average[f"net.{name}"].double(), hand, rtol=1e-5, atol=1e-7)


def test_the_second_average_is_an_average_too_and_what_snapshots_hold(tmp_path: Path) -> None:
    """Beside one of another decay, killed in between, it is what the first is with its own; the weights are trained as without."""
    options = {"ema": 0.5, "ema_eval": 0.9, "scratch": tmp_path, "snapshots": [4]}
    with pytest.raises(Killed):
        fit(problem(stop=7, **options), make_accelerator())
    job = problem(**options)
    fitted = fit(job, make_accelerator())
    same(train(problem(ema=0.9)), (fitted.curve, fitted.ema_eval, dict(job.modules["net"].state_dict())))
    same_tensors(fitted.ema, train(problem(ema=0.5))[1])
    same_tensors(fitted.snapshots[4], train(problem(steps=4, ema=0.9))[1])
    assert fit(problem(), make_accelerator()).ema_eval == {}


@pytest.mark.parametrize("stop", [0, 1, 2, 5, 8])
@pytest.mark.parametrize("ema", [None, 0.9])
def test_stopped_and_resumed_is_as_never_stopped(tmp_path: Path, stop: int, ema: float | None) -> None:
    options = {"ema": ema, "grad_clip": 0.5, "weight_decay": 0.1}
    whole = train(problem(**options))
    with pytest.raises(Killed):
        train(problem(stop=stop, scratch=tmp_path, **options))
    rows: list[np.ndarray] = []
    resumed = train(problem(log=rows, scratch=tmp_path, **options))
    same(whole, resumed)
    first = stop // 2 * 2
    assert len(rows) == 9 - first and (rows[0][0] == first * 4)


def test_killed_again_and_again(tmp_path: Path) -> None:
    whole = train(problem(ema=0.5))
    for stop in (3, 5, 7):
        with pytest.raises(Killed):
            train(problem(stop=stop, ema=0.5, scratch=tmp_path))
    same(whole, train(problem(ema=0.5, scratch=tmp_path)))


def test_weights_without_a_gradient_resume(tmp_path: Path) -> None:
    def job(stop: int | None = None) -> Job:
        made = problem(stop=stop, scratch=tmp_path)
        made.modules = {**made.modules, "idle": nn.Linear(2, 2)}
        return made

    with pytest.raises(Killed):
        fit(job(5), make_accelerator())
    fit(job(), make_accelerator())


def keeping(tmp_path: Path, **options: Any) -> Job:
    """The problem with snapshots after steps 3 and 4, checkpoints after 2, 4, …"""
    return problem(scratch=tmp_path, snapshots=[3, 4], **options)


def weights(job: Job) -> dict[str, Tensor]:
    return {f"net.{k}": v.detach().clone() for k, v in job.modules["net"].named_parameters()}


def same_tensors(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def whole_snapshots() -> dict[int, dict[str, Tensor]]:
    """What a snapshot after a step must hold: the weights of a run that ends there, under the same schedule."""
    out = {}
    for step in (3, 4):
        job = problem(steps=step)
        fit(job, make_accelerator())
        out[step] = weights(job)
    return out


def names(folder: Path, what: str) -> list[int]:
    return sorted(int(p.name.rsplit("-", 1)[1]) for p in folder.glob(f"{what}-*"))


def test_snapshots_are_the_weights_after_their_step(tmp_path: Path) -> None:
    job = keeping(tmp_path, ema=0.9)
    fitted = fit(job, make_accelerator())
    assert list(fitted.snapshots) == [3, 4]
    for step, expected in whole_snapshots().items():
        same_tensors(fitted.snapshots[step], expected)
    # What is kept does not change what is trained.
    plain = train(problem(ema=0.9))
    same(plain, (fitted.curve, fitted.ema, dict(job.modules["net"].state_dict())))
    assert not torch.equal(fitted.snapshots[3]["net.0.weight"], fitted.snapshots[4]["net.0.weight"])
    assert list(fitted.seconds) == [3, 4, 9]
    assert 0 < fitted.seconds[3] < fitted.seconds[4] < fitted.seconds[9]


@pytest.mark.parametrize("stop", [3, 4, 5, 8])
def test_stopped_after_a_snapshot_all_are_kept(tmp_path: Path, stop: int) -> None:
    """Stopped in step 3 (after the snapshot, before the next checkpoint) and later: the same weights, seconds that ascend."""
    with pytest.raises(Killed):
        fit(keeping(tmp_path, stop=stop), make_accelerator())
    rows: list[np.ndarray] = []
    job = keeping(tmp_path, log=rows)
    fitted = fit(job, make_accelerator())
    assert len(rows) == 9 - stop // 2 * 2
    for step, expected in whole_snapshots().items():
        same_tensors(fitted.snapshots[step], expected)
    same(train(problem()), (fitted.curve, fitted.ema, dict(job.modules["net"].state_dict())))
    assert list(fitted.seconds) == [3, 4, 9] and list(fitted.seconds.values()) == sorted(fitted.seconds.values())


@pytest.mark.parametrize("damage", ["gone", "truncated", "foreign"])
@pytest.mark.parametrize("lost", [3, 4])
def test_a_checkpoint_whose_snapshots_are_lost_is_passed_over(
    tmp_path: Path, damage: str, lost: int, capsys: pytest.CaptureFixture
) -> None:
    """Checkpoints 2 and 4 are there: without one of the snapshots 3 and 4 the run goes on from 2."""
    with pytest.raises(Killed):
        fit(keeping(tmp_path, stop=5), make_accelerator())
    assert names(tmp_path, "checkpoint") == [2, 4] and names(tmp_path, "snapshot") == [3, 4]
    path = tmp_path / f"snapshot-{lost:08d}"
    if damage == "gone":
        shutil.rmtree(path)
    elif damage == "truncated":
        data = (path / "weights.safetensors").read_bytes()
        (path / "weights.safetensors").write_bytes(data[:-9])
    else:
        with pytest.raises(Killed):
            fit(keeping(tmp_path / "other", stop=5, key={"a": 2}), make_accelerator())
        shutil.rmtree(path)
        shutil.copytree(tmp_path / "other" / path.name, path)
    rows: list[np.ndarray] = []
    fitted = fit(keeping(tmp_path, log=rows), make_accelerator())
    assert len(rows) == 9 - 2 and "passed over" in capsys.readouterr().out
    for step, expected in whole_snapshots().items():
        same_tensors(fitted.snapshots[step], expected)


def test_snapshots_asked_for_later_are_made(tmp_path: Path) -> None:
    """Checkpoints of a run that kept none are no use to one that keeps some before them."""
    with pytest.raises(Killed):
        fit(problem(stop=7, scratch=tmp_path), make_accelerator())
    rows: list[np.ndarray] = []
    fitted = fit(keeping(tmp_path, log=rows), make_accelerator())
    assert len(rows) == 9
    for step, expected in whole_snapshots().items():
        same_tensors(fitted.snapshots[step], expected)


def test_a_snapshot_damaged_while_the_run_goes_on_is_a_users_line(tmp_path: Path, one_line: Any) -> None:
    job = keeping(tmp_path)
    loss = job.loss

    def damaging(step: int, rows: np.ndarray) -> Tensor:
        if step == 6:
            (tmp_path / "snapshot-00000003" / "weights.safetensors").write_bytes(b"")
        return loss(step, rows)

    job.loss = damaging
    with pytest.raises(UserError) as error:
        fit(job, make_accelerator())
    assert "the snapshot of step 3" in one_line(error) and str(tmp_path) in str(error.value)
    # Running again, as the line says, mends it.
    fitted = fit(keeping(tmp_path), make_accelerator())
    same_tensors(fitted.snapshots[3], whole_snapshots()[3])


def test_snapshots_need_somewhere_to_lie() -> None:
    with pytest.raises(ValueError, match="scratch"):
        fit(problem(snapshots=[3]), make_accelerator())


def checkpoints(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.glob("checkpoint-*"))


def test_two_checkpoints_stay(tmp_path: Path) -> None:
    train(problem(scratch=tmp_path))
    assert checkpoints(tmp_path) == ["checkpoint-00000006", "checkpoint-00000008"]


@pytest.mark.parametrize("damage", ["truncate", "flip", "manifest", "empty"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, damage: str, capsys: pytest.CaptureFixture) -> None:
    whole = train(problem())
    with pytest.raises(Killed):
        train(problem(stop=7, scratch=tmp_path))
    newest = tmp_path / "checkpoint-00000006"
    state = newest / "state.safetensors"
    data = bytearray(state.read_bytes())
    if damage == "truncate":
        state.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[-3] ^= 4
        state.write_bytes(data)
    elif damage == "manifest":
        (newest / "manifest.json").write_text("{}")
    else:
        shutil.rmtree(newest)
        newest.mkdir()
    rows: list[np.ndarray] = []
    same(whole, train(problem(log=rows, scratch=tmp_path)))
    assert len(rows) == 5 and "damaged checkpoint" in capsys.readouterr().out


def test_all_checkpoints_damaged(tmp_path: Path) -> None:
    whole = train(problem())
    with pytest.raises(Killed):
        train(problem(stop=7, scratch=tmp_path))
    for path in tmp_path.glob("*/state.safetensors"):
        path.write_bytes(b"")
    same(whole, train(problem(scratch=tmp_path)))


def test_a_foreign_checkpoint_is_ignored(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    whole = train(problem())
    with pytest.raises(Killed):
        train(problem(stop=7, scratch=tmp_path, key={"a": 2}, lr=constant(0.5)))
    same(whole, train(problem(scratch=tmp_path)))
    assert "other settings" in capsys.readouterr().out


def test_a_key_with_tuples_is_still_its_own(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(problem(stop=7, scratch=tmp_path, key={"channels": (1, 2)}))
    rows: list[np.ndarray] = []
    train(problem(scratch=tmp_path, key={"channels": (1, 2)}, log=rows))
    assert len(rows) == 3


def test_a_loss_that_is_not_finite_stops_at_once(tmp_path: Path, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        train(problem(nan=5, scratch=tmp_path))
    text = one_line(error)
    assert "test: loss nan" in text and "at step 5:" in text and str(tmp_path) in text
    assert checkpoints(tmp_path) == ["checkpoint-00000002", "checkpoint-00000004"]
    with pytest.raises(UserError, match="step 0"):
        train(problem(nan=0))


def test_a_finished_run_starts_from_its_last_checkpoint(tmp_path: Path) -> None:
    whole = train(problem(scratch=tmp_path))
    rows: list[np.ndarray] = []
    same(whole, train(problem(log=rows, scratch=tmp_path)))
    assert len(rows) == 1


def test_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curve, _, _ = train(problem(tensorboard=tmp_path / "tb"))
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert [e.step for e in events.Scalars("loss")] == list(range(9))
    assert [e.value for e in events.Scalars("loss")] == pytest.approx([r["loss"] for r in curve], rel=1e-6)


class Processes:
    """One of several processes, as far as the loop asks: a reduce that averages what the others left behind."""

    scaler = None
    device = torch.device("cpu")

    def __init__(self, index: int, count: int) -> None:
        self.process_index, self.num_processes = index, count
        self.is_main_process = index == 0

    def prepare_model(self, m: nn.Module) -> nn.Module:
        return m

    def prepare_optimizer(self, o: Any) -> Any:
        return o


def test_a_batch_that_does_not_divide_is_refused(one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        fit(problem(), Processes(0, 3))
    assert "batch_size 4 is not a multiple of the 3 processes" in one_line(error)


SCRIPT = """
import accelerate, json, os, sys, torch, torch._dynamo
sys.path.insert(0, sys.argv[1])
from tests.test_loop import problem, fit, make_accelerator
torch.set_num_threads(1)
# The second process is a fork: to import all this (the optimiser would import torch._dynamo) takes far longer than what they do.
other = os.fork()
os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(int(other == 0))
acc = make_accelerator()
assert acc.num_processes == 2
curve = fit(problem(), acc).curve
if acc.is_main_process:
    json.dump(curve, open(sys.argv[2], "w"))
    assert os.waitpid(other, 0)[1] == 0
"""


@pytest.mark.slow
def test_two_processes_see_the_losses_of_one(tmp_path: Path) -> None:
    import json
    import os
    import socket
    import subprocess
    import sys

    (tmp_path / "run.py").write_text(SCRIPT)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    environment = {
        **os.environ,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(tmp_path / "run.py"), str(Path(__file__).parents[1]), str(tmp_path / "curve.json")]
    assert subprocess.run(command, env=environment, timeout=PATIENCE).returncode == 0
    curve, _, _ = train(problem())
    both = json.loads((tmp_path / "curve.json").read_text())
    for a, b in zip(both, curve, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5) and a["grad_norm"] == pytest.approx(
            b["grad_norm"], rel=1e-5
        )


@pytest.mark.parametrize("bucket", [1, 40, 1 << 20])
def test_gradients_are_averaged_in_buckets(monkeypatch: pytest.MonkeyPatch, bucket: int) -> None:
    """Every gradient becomes the mean with another process's, here its double, in as few messages as there are buckets."""
    monkeypatch.setattr(loop, "BUCKET", bucket)
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), (4,), (), (1, 1, 5), (7,))]
    for n, p in enumerate(parameters[:-1]):
        p.grad = torch.full_like(p, n + 1.0)
    messages = []

    class Two:
        def reduce(self, tensor: torch.Tensor, reduction: str) -> torch.Tensor:
            assert reduction == "mean"
            messages.append(tensor.numel())
            return (tensor + 2 * tensor) / 2

    loop.average_gradients(parameters, Two())
    for n, p in enumerate(parameters[:-1]):
        assert torch.equal(p.grad, torch.full_like(p, 1.5 * (n + 1)))
    assert parameters[-1].grad is None
    assert messages == {1: [6, 4, 1, 5], 40: [10, 6], 1 << 20: [16]}[bucket]
