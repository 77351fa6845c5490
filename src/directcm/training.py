"""The verb `train`: distil a teacher into a one-step student with a method of directcm.methods."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from directcm import methods, rng, students
from directcm.artifacts import Artifact, new_artifact, write_csv, write_json
from directcm.config import Train
from directcm.encode import Latents
from directcm.errors import UserError
from directcm.loop import CURVE, Job, constant, fit, make_accelerator
from directcm.solvers import make_solver
from directcm.sources import digest
from directcm.targets import Starts, join
from directcm.teachers import load


def make(
    run: Mapping[str, Any],
    settings: Train,
    snapshots: Sequence[int],
    teacher: Artifact,
    latents: Artifact,
    targets: Sequence[Artifact],
    seed: int,
    scratch: Path,
    tensorboard: Path | None,
    out: Path,
) -> None:
    """Train one student.

    `run` holds the axes (method, solver, N, w, adapter, loss, lr, batch_size, pool, steps, seed), `settings` the rest;
    `snapshots` are the optimiser steps after which the student is kept as well, in snapshots/step~<step>. `seed` draws the
    pool, run["seed"] its order and the LoRA's start. Writes the weights, `curve.csv` and `student.json`. Checkpoints stay in `scratch`; only a run of the same settings, inputs and code resumes from one.
    """
    method, pool = methods.load(run["method"]), run["pool"]
    snapshots = sorted(set(snapshots))
    if snapshots and not 0 < snapshots[0] <= snapshots[-1] < run["steps"]:
        raise UserError(f"train: snapshots {snapshots} are not steps before the last, {run['steps']}")
    accelerator = make_accelerator(settings.precision)
    device = str(accelerator.device)
    frozen = load(teacher, device, settings.precision)
    student = students.make_student(frozen, run["adapter"], run["seed"])
    unet = student.teacher.network
    assert unet is not None
    if settings.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    data = Latents(latents)
    starts = Starts(data, frozen.process, run["N"], seed)
    endpoints = None
    if method.TARGETS:
        if not targets:
            raise UserError(f"train: {run['method']} needs --targets, the solved endpoints of its start points")
        solved = join(targets, count=pool)
        want = {"solver": run["solver"], "N": run["N"], "w": run["w"], "seed": seed}
        have = {k: targets[0].settings[k] for k in want}
        if have != want:
            raise UserError(f"{targets[0].folder}: holds targets for {have}, this student needs {want}")
        if targets[0].manifest["inputs"] != {"teacher": teacher.fingerprint, "latents": latents.fingerprint}:
            raise UserError(
                f"{targets[0].folder}: solved by another teacher or on other latents; delete it and run again"
            )
        endpoints = solved["endpoint"]
    distance = methods.mse if run["loss"] == "mse" else methods.pseudo_huber(settings.huber_c)
    setting = methods.Setting(frozen if method.TEACHER else None, make_solver(run["solver"]), run["w"], distance)
    grid = starts.grid.to(device)

    def loss(step: int, rows: np.ndarray) -> Tensor:
        index = rng.stream(run["seed"], "train_order", int(rows[0]), len(rows), pool)
        ids, k, x = starts(index.tolist())
        k = k.to(device)
        batch = methods.Batch(
            x.to(device),
            grid[k],
            grid[k + 1],
            data.conditioning(ids).to(device),
            None if endpoints is None else endpoints[torch.from_numpy(index)].to(device),
        )
        return method.loss(student, batch, setting)

    key = {
        "code": digest("training", f"methods.{run['method']}"),
        "run": dict(run),
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "teacher": teacher.fingerprint,
        "latents": latents.fingerprint,
        "targets": [t.fingerprint for t in targets],
    }
    fitted = fit(
        Job(
            f"train: {run['method']} seed {run['seed']}",
            {"unet": unet},
            loss,
            run["steps"],
            run["batch_size"],
            constant(run["lr"]),
            weight_decay=settings.weight_decay,
            grad_clip=settings.grad_clip,
            checkpoint_every=settings.checkpoint_every,
            scratch=scratch,
            key=key,
            tensorboard=tensorboard,
            snapshots=snapshots,
        ),
        accelerator,
    )
    if not accelerator.is_main_process:
        return
    inputs = {"teacher": teacher, "latents": latents} | {f"targets_{i}": t for i, t in enumerate(targets)}
    with new_artifact(
        out,
        "student",
        settings={"run": dict(run), **settings.model_dump(mode="json"), "seed": seed, "snapshots": snapshots},
        inputs=inputs,
    ) as art:
        students.save(unet, run["adapter"], art.path)
        parameters = dict(unet.named_parameters())
        for step, weights in fitted.snapshots.items():
            with torch.no_grad():
                for name, value in weights.items():
                    parameters[name.removeprefix("unet.")].copy_(value)
            students.save(unet, run["adapter"], art.path / students.snapshot_folder(step))
        write_csv(art / "curve.csv", fitted.curve, CURVE)
        trained = [p.numel() for p in unet.parameters() if p.requires_grad]
        write_json(
            art / "student.json", {"run": dict(run), "trainable_parameters": sum(trained), "snapshots": snapshots}
        )
        drawn = run["steps"] * run["batch_size"]
        forwards = 0
        if method.TEACHER:
            # By count, not by counter: a resumed run has not made the forwards before its checkpoint itself.
            forwards = drawn * setting.solver.evaluations_per_step * frozen.rows_per_prediction(run["w"])
        art.counts = {
            "pairs_drawn": drawn,
            "distinct_pairs": min(drawn, pool),
            "trainable_parameters": sum(trained),
            "teacher_forwards": forwards,
            "teacher_forwards_minimum": forwards,
        }
        art.provenance["device"] = device
        art.provenance["seconds_at"] = {str(step): round(value, 3) for step, value in fitted.seconds.items()}
    for path in scratch.glob("snapshot-*"):
        shutil.rmtree(path)
