"""The verb `train`: distil a teacher into a student with a method of directcm.distill.methods."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from directcm.config import Run, Train
from directcm.config.registry import methods as declared
from directcm.diffusion import distances
from directcm.diffusion.processes import Process
from directcm.diffusion.solvers import make_solver
from directcm.diffusion.teachers import Teacher, load, loader
from directcm.distill import methods, students
from directcm.distill.encode import Latents
from directcm.distill.targets import STARTS, Starts, join
from directcm.errors import UserError
from directcm.runtime import compiled, pace, rng
from directcm.runtime.artifacts import Artifact, new_artifact, read_json, write_csv, write_json
from directcm.runtime.loop import CURVE, Job, constant, fit, make_accelerator, put
from directcm.runtime.pace import Pace
from directcm.runtime.sources import digest


def make(
    run: Run,
    settings: Train,
    snapshots: Sequence[int],
    teacher: Artifact,
    latents: Artifact,
    targets: Sequence[Artifact],
    seed: int,
    scratch: Path,
    tensorboard: Path | None,
    out: Path,
    hparams: Mapping[str, float] | None = None,
    labels: Artifact | None = None,
) -> None:
    """Train one student.

    `run` says which one; `settings` is shared by all runs. `hparams` replaces values of the method's SETTINGS. `labels`: the finished
    student whose outputs at the start points take the endpoints' place, where run.labels names one. The student is also
    kept after each optimiser step in `snapshots`, in snapshots/step~<step>. `seed` draws the pool; run.seed draws its order, the
    initial LoRA and, for methods that learn from data alone, fresh pairs of image and noise, none twice. Writes the weights,
    `curve.csv` and `student.json`. Checkpoints stay in `scratch`; a run resumes only from those of the same settings, inputs and code.
    """
    method, pool = methods.load(run.method), run.pool
    snapshots = sorted(set(snapshots))
    if snapshots and not 0 < snapshots[0] <= snapshots[-1] < run.steps:
        raise UserError(f"train: snapshots {snapshots} are not steps before the last, {run.steps}")
    accelerator = make_accelerator(settings.precision)
    device = str(accelerator.device)
    frozen = load(teacher, device, settings.precision)
    if declared()[run.method].tangent:
        for one in (frozen, frozen.start):
            one.process = one.process.continuous
    student = students.make_student(frozen, run.adapter, run.seed)
    unet = student.teacher.network
    assert unet is not None
    data = Latents(latents)
    declaration = declared()[run.method]
    start_points, pooled = method.TARGETS or "forward", declaration.pool
    images = Starts(data, frozen.process, run.N, seed if pooled else run.seed, run.density)
    starts = images if start_points == "forward" and pooled else STARTS[start_points](data, frozen.process, run.N, seed)
    labelling = _labelling(run, frozen, teacher, labels)
    solved: dict[str, Tensor] = {}
    if (method.TARGETS and labelling is None) or (declaration.stored and targets):
        if not targets:
            raise UserError(f"train: {run.method} needs --targets, the solved endpoints of its start points")
        solved = join(targets, count=pool)
        defaults = {"coupling": "forward", "density": "uniform", "k": 1}
        want = {**run.ode.axes(), "seed": seed, "coupling": start_points, "density": run.density, "k": run.k}
        have = {k: targets[0].settings.get(k, defaults.get(k)) for k in want}
        if have != want:
            raise UserError(f"{targets[0].folder}: holds targets for {have}, this student needs {want}")
        if method.TARGETS and not declaration.states and "endpoint" not in solved:
            raise UserError(f"{targets[0].folder}: holds first steps alone, {run.method} needs the solved endpoints")
        if targets[0].manifest["inputs"] != {"teacher": teacher.fingerprint, "latents": latents.fingerprint}:
            raise UserError(
                f"{targets[0].folder}: solved by another teacher or on other latents; delete it and run again"
            )
    # The teacher's steps are read, not made.
    stored = (declaration.stored or declaration.states) and bool(solved)
    hparams = {**getattr(method, "SETTINGS", {}), **(hparams or {})}
    dropouts = [module for module in unet.modules() if isinstance(module, torch.nn.Dropout)]
    for module in dropouts:
        module.p = float(hparams.get("dropout", 0))
    decay = getattr(method, "decay", None)
    ema_target = students.Student(student.teacher.twin(students.share(unet))) if decay else None
    own = method.own(student.process).to(device) if hasattr(method, "own") else None
    context = methods.Context(
        frozen if method.TEACHER and not stored else None,
        make_solver(run.solver),
        run.w,
        distances.make(run.loss, settings.huber_c, device),
        run.N,
        hparams,
        ema_target,
        run.k,
        own,
    )
    grid = starts.grid.to(device)
    share = run.batch_size // accelerator.num_processes

    def changed() -> None:
        for one in filter(None, (student, ema_target)):
            one.changed()

    def loss(step: int, rows: np.ndarray) -> Tensor:
        index = rng.stream(run.seed, "train_order", int(rows[0]), len(rows), pool)
        ids, x0, eps = images.pairs((index if pooled else rows).tolist())
        k = starts.grid_index(index.tolist())
        cond = data.conditioning(ids).to(device)
        known = {name: v[torch.from_numpy(index)] for name, v in solved.items()}
        cond_x = cond
        if start_points == "trajectory":
            x, cond_x = known["x"], data.conditioning(known["id"]).to(device)
        elif start_points == "prior":
            x = frozen.process.prior(eps)
        else:
            x = frozen.process.diffuse(x0, eps, starts.grid[k])
        draws = rng.generator(run.seed, "method_draws", step).random((run.batch_size, 2))
        u, v = torch.from_numpy(draws[rows - step * run.batch_size]).to(device).unbind(1)
        k = k.to(device)
        x, t = x.to(device), grid[k]
        endpoint = known["endpoint"].to(device) if "endpoint" in known and method.TARGETS else None
        if labelling is not None:
            with torch.no_grad():
                endpoint = labelling(x, t, cond_x)
        batch = methods.Batch(
            x,
            t,
            grid[(k + run.k).clamp(max=run.N)],
            cond_x,
            endpoint,
            x0.to(device),
            eps.to(device),
            cond,
            u,
            v,
            step,
            run.steps,
            known["x_next"].to(device) if stored else None,
        )
        if any(module.p > 0 for module in dropouts):
            # Each part of a batch has masks of its own.
            part = int(rows[0]) - step * run.batch_size - accelerator.process_index * share
            rng.seed_torch(run.seed, "dropout", step, accelerator.process_index, *([part] if part else []))
        return weighted(method.loss(student, batch, context), run.weight, frozen.process, t)

    trained = [p for p in unet.parameters() if p.requires_grad]

    others = {} if own is None else {"own": own}
    attempt = None
    if device.startswith("cuda"):
        attempt = partial(pace.attempt, unet, loss, accelerator, others=list(others.values()))
    chosen, how = _pace(settings, share, attempt, scratch, accelerator)
    pace.checkpoint(unet, chosen.gradient_checkpointing)
    # The name that manifests have for them.
    named = {"own": hparams} if hparams else {}
    key = {
        "code": digest("distill.training", loader(teacher), f"distill.methods.{run.method}"),
        "run": run.axes(),
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "teacher": teacher.fingerprint,
        "latents": latents.fingerprint,
        "targets": [t.fingerprint for t in targets],
        **({} if labels is None else {"labels": labels.fingerprint}),
        **named,
    }
    ready = getattr(method, "ready", None)
    stages = [ready(k, run.steps, run.N) for k in range(1, run.N + 1)] if ready else []
    kept = sorted({*snapshots, *stages} - {0, run.steps})
    fitted = fit(
        Job(
            f"train: {run.method} seed {run.seed}",
            {"unet": unet} | others,
            loss,
            run.steps,
            run.batch_size,
            constant(run.lr),
            weight_decay=settings.weight_decay,
            grad_clip=settings.grad_clip,
            micro_batch=chosen.micro_batch,
            checkpoint_every=settings.checkpoint_every,
            scratch=scratch,
            key=key,
            tensorboard=tensorboard,
            snapshots=kept,
            ema_eval=run.ema or settings.ema,
            ema=None if decay is None else lambda step: decay(step, run.steps, context),
            ema_target=None if ema_target is None else _free(ema_target, unet),
            changed=changed,
            note=chosen.text(share) + how,
        ),
        accelerator,
    )
    if not accelerator.is_main_process:
        return
    put({"unet": unet} | others, fitted.ema_eval)
    inputs = {"teacher": teacher, "latents": latents} | {f"targets_{i}": t for i, t in enumerate(targets)}
    inputs |= {} if labels is None else {"labels": labels}
    about = {"run": run.axes(), **settings.model_dump(mode="json"), "seed": seed, "snapshots": snapshots, **named}
    with new_artifact(out, "student", settings=about, inputs=inputs) as art:
        students.save(unet, run.adapter, art.path)
        for step, weights in fitted.snapshots.items():
            put({"unet": unet} | others, weights)
            students.save(unet, run.adapter, art.path / students.snapshot_folder(step))
        write_csv(art / "curve.csv", fitted.curve, CURVE)
        trainable = sum(p.numel() for p in trained)
        drawn = run.steps * run.batch_size
        forwards = _forwards(method, context, frozen, run, [*snapshots, run.steps])
        write_json(
            art / "student.json",
            {"run": run.axes(), "trainable_parameters": trainable, "snapshots": kept, "forwards": forwards},
        )
        last = forwards[str(run.steps)]
        made = 0 if stored else last["teacher"]
        art.counts = {
            "pairs_drawn": drawn,
            "distinct_pairs": min(drawn, pool) if pooled else drawn,
            "trainable_parameters": trainable,
            "student_forwards": last["student"],
            # Solver steps read from stored targets were counted by `targets`. As a cost of the method they are in `student.json`.
            "teacher_forwards": made,
            "teacher_forwards_minimum": made,
        }
        art.provenance["device"] = device
        art.provenance["pace"] = chosen._asdict()
        art.provenance["seconds_at"] = {str(step): round(value, 3) for step, value in fitted.seconds.items()}
    for path in scratch.glob("snapshot-*"):
        shutil.rmtree(path)


def _labelling(run: Run, frozen: Teacher, teacher: Artifact, labels: Artifact | None) -> students.Student | None:
    """The student whose outputs are a run's labels, None where those are the ODE's endpoints; UserError where it is not the one named."""
    if (labels is None) != (run.labelled_by is None):
        raise UserError(f"train: labels {run.labels} {'need' if labels is None else 'take no'} --label-student")
    if labels is None:
        return None
    if labels.run != run.labelled_by or labels.manifest["inputs"].get("teacher") != teacher.fingerprint:
        raise UserError(
            f"{labels.folder}: is not the student of this teacher that labels {run.labels} of seed {run.seed} name"
        )
    return students.load(frozen, labels)


def weighted(losses: Tensor, weight: str, process: Process, t: Tensor) -> Tensor:
    """Per-sample losses (B,) at times t (B,), with weight "snr" times α²/σ²: then x̂₀'s squared error is ε̂'s."""
    if weight == "one":
        return losses
    return methods.scale((process.alpha(t) / process.sigma(t)) ** 2, losses)


def _pace(
    settings: Train, share: int, attempt: Callable[[Pace], None] | None, scratch: Path, accelerator: Any
) -> tuple[Pace, str]:
    """How the step uses this card; measured once for a training, so that what is resumed goes on in the same way.

    And, for the log, what the measuring took.
    """
    from accelerate.utils import broadcast_object_list

    again, rows = settings.gradient_checkpointing, settings.micro_batch
    if attempt is None or "auto" not in (again, rows):
        return pace.choose(share, again, rows, None), ""
    kept = scratch / "pace.json"
    card = [torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory]
    about = {"rows": share, "gradient_checkpointing": again, "micro_batch": rows, "card": card}
    found = read_json(kept) if kept.is_file() else {}
    how, begun, before = ", as measured when it began", time.perf_counter(), compiled.seconds()
    if found.get("about") != about:
        found = {"about": about, "pace": pace.choose(share, again, rows, partial(pace.measured, attempt))}
        compiling = compiled.seconds() - before
        how = f", measured in {time.perf_counter() - begun:.3g} s"
        how += f", {compiling:.3g} s of it to compile" if compiling else ""
    # One for all: the first process's.
    (found,) = broadcast_object_list([found])
    if accelerator.is_main_process:
        scratch.mkdir(parents=True, exist_ok=True)
        write_json(kept, found)
    return Pace(*found["pace"]), how


def _forwards(
    method: Any, context: methods.Context, teacher: Teacher, run: Run, steps: Sequence[int]
) -> dict[str, dict[str, int]]:
    """Up to each of these steps: rows through the student's and the teacher's network, and the solved endpoints used.

    These are the method's costs: a teacher's step counts even if it was read from targets. They are computed, not counted, because a
    resumed run has not made the forwards before its checkpoint.
    """
    total, size = run.steps, run.batch_size
    passed = getattr(method, "student_forwards", lambda *_: method.FORWARDS)
    # A label is one forward of another student's network.
    labelled = int(run.labelled_by is not None)
    asked = getattr(method, "teacher_steps", lambda *_: int(method.TEACHER))
    solved = getattr(method, "endpoints", lambda *_: bool(method.TARGETS) and not labelled)
    rows = context.solver.evaluations_per_step * teacher.rows_per_prediction(run.w)
    student, solver, used = (
        np.cumsum([each(step, total, context) for step in range(total)]) * size for each in (passed, asked, solved)
    )
    return {
        str(n): {
            "student": round(float(student[n - 1])) + labelled * n * size,
            "teacher": round(float(solver[n - 1]) * rows),
            "endpoints": min(int(used[n - 1]), run.pool),
        }
        for n in steps
    }


def _free(ema_target: students.Student, unet: Any) -> dict[str, Tensor]:
    """The EMA target's weights, without gradients, under the names of the trained weights that they follow."""
    weights = dict(ema_target.teacher.network.requires_grad_(False).train().named_parameters())
    return {f"unet.{name}": weights[name] for name, p in unet.named_parameters() if p.requires_grad}
