"""The training loop of VAE, teacher and students.

It draws no random numbers: `loss(step, rows)` draws them from directcm.runtime.rng by position. So a run that was stopped and resumed,
or split over processes, sees the same numbers as an undisturbed one.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from directcm.errors import UserError
from directcm.runtime import compiled, stop
from directcm.runtime.artifacts import (
    PROVENANCE,
    Artifact,
    new_artifact,
    open_artifact,
    read_json,
    save_tensors,
    write_json,
)
from directcm.runtime.progress import Progress
from directcm.runtime.unchanged import continued, made_by

CURVE = ["step", "loss", "grad_norm", "lr"]


def constant(lr: float) -> Callable[[int], float]:
    """A constant learning rate."""
    return lambda step: lr


def warmed(lr: float, steps: int, warmup: int = 0) -> Callable[[int], float]:
    """Linear warm-up over `warmup` steps, then constant."""
    return lambda step: lr * min(1.0, (step + 1) / max(1, warmup))


def cosine(lr: float, steps: int, warmup: int = 0) -> Callable[[int], float]:
    """Linear warm-up over `warmup` steps, then half a cosine down to 0 at `steps`."""

    def schedule(step: int) -> float:
        if step < warmup:
            return lr * (step + 1) / warmup
        return lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return schedule


SCHEDULES = {"cosine": cosine, "constant": warmed}


@dataclass
class Job:
    """What to train and how.

    `loss(step, rows)`: per-row losses (B,) for the batch positions `rows` (B,) int64 of this process;
    position p = step·batch_size + offset counts through the whole training. `micro_batch`: rows of one backward pass (None: all
    of the process's); gradients of the parts add up to the batch's.
    `ema`: decay of an EMA of the weights, a number or a function of the step. `ema_target`: tensors by the names of weights
    ("module.weight") that hold this EMA during training, for a loss that reads it; of all of them, or of some. `ema_eval`: decay of a second EMA, which
    replaces the weights in snapshots and at the end. `changed` is called after each step, when weights and EMAs have changed.
    `note`: how a step uses its device, for the log.
    """

    name: str
    modules: Mapping[str, nn.Module]
    loss: Callable[[int, np.ndarray], Tensor]
    steps: int
    batch_size: int
    lr: Callable[[int], float]
    weight_decay: float = 0.0
    grad_clip: float = math.inf
    micro_batch: int | None = None
    ema: float | Callable[[int], float] | None = None
    ema_target: Mapping[str, Tensor] | None = None
    ema_eval: float | None = None
    changed: Callable[[], None] = lambda: None
    checkpoint_every: int = 200
    scratch: Path | None = None
    key: Mapping[str, Any] = field(default_factory=dict)
    tensorboard: Path | None = None
    snapshots: Sequence[int] = ()
    note: str = ""


class Fitted(NamedTuple):
    """The result of training.

    `curve`: one row per step (step, loss, grad_norm, lr). `ema`, `ema_eval`: the two EMAs by weight name, empty if not asked for.
    `snapshots`: optimiser step → the weights after it by name, those of `ema_eval` if there is one. `seconds`: wall seconds of
    training up to each snapshot and to the end; an attempt that was stopped counts up to its last checkpoint.
    """

    curve: list[dict[str, float]]
    ema: dict[str, Tensor]
    ema_eval: dict[str, Tensor]
    snapshots: dict[int, dict[str, Tensor]]
    seconds: dict[int, float]


@dataclass
class _State:
    """What changes while a job is trained, as a checkpoint holds it; `seconds`: wall seconds before this process."""

    weights: dict[str, nn.Parameter]
    ema: dict[str, Tensor]
    ema_eval: dict[str, Tensor]
    optimizer: Any
    scaler: Any
    curve: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0

    def _tensors(self) -> dict[str, Tensor]:
        parts: dict[str, Mapping[str, Tensor]] = {"model": self.weights, "ema": self.ema, "smooth": self.ema_eval}
        return {f"{part}.{name}": tensor for part, named in parts.items() for name, tensor in named.items()}

    @torch.no_grad()
    def load(self, found: Artifact) -> None:
        """Go on from a checkpoint."""
        state = found.tensors("state.safetensors")
        for name, tensor in self._tensors().items():
            tensor.copy_(state[name])
        # Keyed by position, as in torch's state_dict. A weight that never had a gradient has no state: SDXL does not use the
        # text encoders' last layer.
        slots = {
            i: {k: state[f"optimizer.{i}.{k}"] for k in ("step", "exp_avg", "exp_avg_sq")}
            for i in range(len(self.weights))
            if f"optimizer.{i}.step" in state
        }
        self.optimizer.load_state_dict({"state": slots, "param_groups": self.optimizer.state_dict()["param_groups"]})
        if self.scaler is not None:
            self.scaler.load_state_dict(found.json("scaler.json"))
        rows = state["curve"].double().tolist()
        self.curve = [{**dict(zip(CURVE, row, strict=True)), "step": int(row[0])} for row in rows]
        self.seconds = float(state["seconds"])

    def save(self, job: Job, seconds: float) -> None:
        """Write a checkpoint; `seconds` of training so far, in this and earlier processes."""
        state = self._tensors()
        for i, slot in self.optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{i}.{k}": torch.as_tensor(v) for k, v in slot.items()}
        state["seconds"] = torch.tensor(seconds, dtype=torch.float64)
        state["curve"] = torch.tensor([[row[k] for k in CURVE] for row in self.curve], dtype=torch.float64)
        new = _place(job, "checkpoint", len(self.curve))
        with new_artifact(new, "checkpoint", settings=job.key) as art:
            save_tensors(art / "state.safetensors", state)
            if self.scaler is not None:
                write_json(art / "scaler.json", self.scaler.state_dict())
            art.counts = {"step": len(self.curve)}
        # The last intact one before it stays too, in case the newest gets damaged.
        others = [path for path in _checkpoints(new.parent) if path != new]
        last = next((path for path in reversed(others) if path < new and _intact(path, "checkpoint")), None)
        for path in others:
            if path != last:
                shutil.rmtree(path)


def _place(job: Job, kind: str, step: int) -> Path:
    assert job.scratch is not None
    return job.scratch / f"{kind}-{step:08d}"


def _checkpoints(scratch: Path) -> list[Path]:
    return sorted(p for p in scratch.glob("checkpoint-*") if p.is_dir())


def _intact(path: Path, kind: str) -> Artifact | None:
    try:
        return open_artifact(path, kind).verify()
    except UserError:
        return None


def _found(job: Job, remove: bool) -> Artifact | None:
    """The newest intact checkpoint of this job; damaged ones are skipped, those with another key deleted if `remove`."""
    for path in reversed(_checkpoints(job.scratch)) if job.scratch is not None else ():
        try:
            found = open_artifact(path, "checkpoint").verify()
        except UserError as error:
            print(f"{job.name}: skipping a damaged checkpoint: {error}", flush=True)
            continue
        codes = _codes(job, found)
        if codes is None:
            if remove:
                print(f"{job.name}: {path} was made with other settings; starting afresh", flush=True)
                shutil.rmtree(path)
            continue
        if lost := [s for s in job.snapshots if s <= found.counts["step"] and _snapshot(job, s) is None]:
            print(f"{job.name}: {path} is passed over, the snapshot of step {lost[0]} before it is missing", flush=True)
            continue
        continued(job.name, codes)
        return found
    return None


def _snapshot(job: Job, step: int) -> Artifact | None:
    """An intact snapshot of this job in its scratch folder, or None."""
    found = _intact(_place(job, "snapshot", step), "snapshot")
    return found if found is not None and _codes(job, found) is not None else None


def _codes(job: Job, found: Artifact) -> list[str] | None:
    """Digests of older code with which it was made (directcm.runtime.unchanged); None where it has another key than the job."""
    codes = made_by(json.loads(json.dumps(dict(job.key))), lambda key: key == found.settings)
    beside = found.folder / PROVENANCE
    before = read_json(beside).get("continued", []) if beside.is_file() else []
    return None if codes is None else [*before, *codes]


def _agreed(loss: Tensor, norm: Tensor, accelerator: Any) -> tuple[float, float, bool]:
    """The mean loss over all processes, the gradient's norm, and whether any was told to stop: then all end after this step.

    All in one read, the only time in a step that the host waits for a GPU.
    """
    told = stop.asked() is not None
    if accelerator.num_processes == 1:
        value, length = torch.stack([loss.float(), norm.float()]).tolist()
        return value, length, told
    mine = torch.stack([loss.float(), norm.float(), torch.full_like(loss, float(told), dtype=torch.float32)])
    value, length, stopping = accelerator.reduce(mine, reduction="mean").tolist()
    return value, length, stopping > 0


# Gradients are averaged in pieces of about as many bytes: a LoRA has 1,600 tensors, most of them small.
BUCKET = 64 * 2**20


def average_gradients(parameters: Sequence[nn.Parameter], accelerator: Any) -> None:
    """Average the gradients of all processes, many tensors in one message."""
    grads = [p.grad for p in parameters if p.grad is not None]
    while grads:
        sizes = np.cumsum([g.numel() * g.element_size() for g in grads])
        bucket = grads[: max(1, int(np.searchsorted(sizes, BUCKET, side="right")))]
        grads = grads[len(bucket) :]
        mean = accelerator.reduce(torch.cat([g.flatten() for g in bucket]), reduction="mean")
        torch._foreach_copy_(
            bucket, [part.view_as(g) for part, g in zip(mean.split([g.numel() for g in bucket]), bucket, strict=True)]
        )


@torch.no_grad()
def put(modules: Mapping[str, nn.Module], weights: Mapping[str, Tensor]) -> None:
    """Copy weights, under the loop's names ("module.weight"), into the modules."""
    for name, value in weights.items():
        module, _, weight = name.partition(".")
        modules[module].get_parameter(weight).copy_(value)


@torch.no_grad()
def _towards(ema: Mapping[str, Tensor], parameters: Sequence[Tensor], keep: float) -> None:
    """ema ← keep·ema + (1 − keep)·parameters, in place."""
    torch._foreach_lerp_(list(ema.values()), [p.detach() for p in parameters], 1 - keep)


class _FirstSteps:
    """One line in the log: what the first step of this process took, how much of it to compile, and what the next ones take."""

    # Steps after the first that tell what a step takes.
    NEXT = 4

    def __init__(self, job: Job, quiet: bool) -> None:
        self.job, self.before, self.said = job, compiled.seconds(), quiet
        self.compiling = 0.0
        self.seconds: list[float] = []

    def took(self, seconds: float, last: bool) -> None:
        """A step took so long; `last`: of this process."""
        if self.said:
            return
        self.seconds.append(seconds)
        if len(self.seconds) == 1:
            self.compiling = compiled.seconds() - self.before
        if not last and len(self.seconds) <= self.NEXT:
            return
        self.said = True
        first, *later = self.seconds
        words = [f"{self.job.name}: the first step took {first:.3g} s"]
        if self.compiling:
            words.append(f", {self.compiling:.3g} s of it to compile")
        if later:
            words.append(f", the next {statistics.median(later):.3g} s")
        if self.job.note:
            words.append(f"; {self.job.note}")
        print("".join(words), file=sys.stderr, flush=True)


def fit(job: Job, accelerator: Any) -> Fitted:
    """Train a job; see Fitted.

    Snapshots stay in `scratch` until the end, for a run that is resumed. A loss that is not finite is a UserError that names the
    step; the last checkpoint stays. If told to stop (directcm.runtime.stop), it writes a checkpoint after the current step and ends.
    """
    if job.snapshots and job.scratch is None:
        raise ValueError("snapshots need a scratch folder")
    weights = {
        f"{module}.{name}": weight
        for module, network in job.modules.items()
        for name, weight in network.named_parameters()
        if weight.requires_grad
    }
    parameters = list(weights.values())
    ema: dict[str, Tensor] = {}
    if job.ema is not None:
        given = job.ema_target or {}
        ema = {k: given[k] if k in given else p.detach().clone() for k, p in weights.items()}
    ema_eval = {} if job.ema_eval is None else {k: p.detach().clone() for k, p in weights.items()}
    # Fused: one kernel for all weights. The plain optimiser is a twelfth of a small network's step.
    plain = torch.optim.AdamW(parameters, lr=job.lr(0), weight_decay=job.weight_decay, fused=True)
    # The modules stay unwrapped, because the loss closes over them; several processes average their gradients below.
    optimizer = accelerator.prepare_optimizer(plain)
    scaler = getattr(accelerator, "scaler", None)
    state = _State(weights, ema, ema_eval, optimizer, scaler)
    if (found := _found(job, remove=accelerator.is_main_process)) is not None:
        state.load(found)
    curve = state.curve
    for m in job.modules.values():
        m.train()

    if job.batch_size % accelerator.num_processes:
        raise UserError(f"batch_size {job.batch_size} is not a multiple of the {accelerator.num_processes} processes")
    share = job.batch_size // accelerator.num_processes
    first = accelerator.process_index * share
    progress = Progress(job.name, job.steps, done=len(curve))
    writer = None
    if job.tensorboard is not None and accelerator.is_main_process:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(job.tensorboard), purge_step=len(curve))

    first_steps = _FirstSteps(job, quiet=not accelerator.is_main_process)
    started = time.perf_counter()
    with stop.deferred():
        for step in range(len(curve), job.steps):
            begun = time.perf_counter()
            lr = job.lr(step)
            for group in optimizer.param_groups:
                group["lr"] = lr
            start = step * job.batch_size + first
            rows = np.arange(start, start + share, dtype=np.int64)
            loss = torch.zeros((), device=accelerator.device)
            for at in range(0, share, job.micro_batch or share):
                part = rows[at : at + (job.micro_batch or share)]
                with accelerator.autocast():
                    mean = job.loss(step, part).float().mean() * (len(part) / share)
                accelerator.backward(mean)
                loss += mean.detach()
            if accelerator.num_processes > 1:
                average_gradients(parameters, accelerator)
            if scaler is not None:
                accelerator.unscale_gradients(optimizer)
            length = nn.utils.clip_grad_norm_(parameters, job.grad_clip)
            value, norm, stopping = _agreed(loss, length, accelerator)
            if not math.isfinite(value) or (scaler is None and not math.isfinite(norm)):
                where = f"; the last checkpoint is in {job.scratch}" if job.scratch else ""
                raise UserError(
                    f"{job.name}: loss {value}, gradient norm {norm} at step {step}: training stops; lower the learning rate{where}"
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if ema:
                keep = job.ema(step) if callable(job.ema) else float(job.ema or 0.0)
                _towards(ema, parameters, keep)
            if job.ema_eval is not None:
                _towards(ema_eval, parameters, job.ema_eval)
            job.changed()
            curve.append({"step": step, "loss": value, "grad_norm": norm, "lr": lr})
            progress.update(1, f"loss {value:.4g}")
            if writer is not None:
                for tag in CURVE[1:]:
                    writer.add_scalar(tag, curve[-1][tag], step)
            done = step + 1
            # The host has waited for the step's loss: its time is the device's.
            first_steps.took(time.perf_counter() - begun, last=stopping or done == job.steps)
            spent = state.seconds + time.perf_counter() - started
            if done in job.snapshots and accelerator.is_main_process:
                with new_artifact(_place(job, "snapshot", done), "snapshot", settings=job.key) as art:
                    save_tensors(art / "weights.safetensors", ema_eval or weights)
                    save_tensors(art / "seconds.safetensors", {"seconds": torch.tensor(spent, dtype=torch.float64)})
            if done == job.steps:
                break
            if stopping or done % job.checkpoint_every == 0:
                if job.scratch is not None and accelerator.is_main_process:
                    state.save(job, spent)
                if stopping:
                    accelerator.wait_for_everyone()
                    kept_in = f"with a checkpoint of step {done} in {job.scratch}" if job.scratch else ""
                    raise stop.Stopped(stop.asked() or signal.SIGTERM, kept_in)
    seconds = {job.steps: state.seconds + time.perf_counter() - started}
    if writer is not None:
        writer.close()
    accelerator.wait_for_everyone()
    kept: dict[int, dict[str, Tensor]] = {}
    for step in job.snapshots:
        snapshot = _snapshot(job, step)
        if snapshot is None:
            raise UserError(f"{job.name}: the snapshot of step {step} in {job.scratch} is damaged; run again")
        kept[step] = snapshot.tensors("weights.safetensors")
        seconds[step] = float(snapshot.tensors("seconds.safetensors")["seconds"])
    # The caller removes the snapshots after writing the student: not before every process has read them.
    accelerator.wait_for_everyone()
    return Fitted(curve, ema, ema_eval, kept, dict(sorted(seconds.items())))


def make_accelerator(precision: str = "no") -> Any:
    """The job's Accelerator: the GPU if there is one, several processes under `accelerate launch`."""
    from accelerate import Accelerator

    if precision == "fp16" and not torch.cuda.is_available():
        raise UserError("precision fp16 needs a GPU, and there is none here; use no or bf16")
    # Both are given here, because accelerate reads what is not from the environment.
    return Accelerator(mixed_precision=precision, gradient_accumulation_steps=1)
