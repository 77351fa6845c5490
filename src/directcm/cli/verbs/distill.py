"""The verbs that solve the teacher's ODE for students, and train them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from directcm import config
from directcm.cli import options as o
from directcm.config import registry
from directcm.config.specs import DISTANCES
from directcm.errors import UserError

Targets = Annotated[o.Artifact, o.artefact("targets")]


def targets(
    *,
    settings: Annotated[config.Targets, o.block("targets")],
    ode: o.Ode,
    start_points: Annotated[
        str, o.Option("where start points come from", choices=registry.START_POINTS, was="--coupling")
    ] = registry.START_POINTS[0],
    first_step: Annotated[bool, "stop after one step, which is all that a CM reads"] = False,
    density: o.Density = "uniform",
    shard: o.Index,
    precision: o.Precision = "no",
    teacher: o.Teacher,
    latents: o.Latents,
    teacher_seed: o.TeacherSeed = 0,
    job: o.Long,
) -> None:
    """Solve the ODE from a shard of the start points."""
    from directcm.distill import targets

    what = (settings, ode.value.at(teacher_seed=teacher_seed), shard, teacher, latents)
    seed = o.redrawn(job.seed, teacher_seed)
    targets.make(*what, seed, job.device, precision, job.scratch, job.out, start_points, first_step, density)


def states(
    *,
    settings: Annotated[config.Targets, o.block("targets")],
    ode: o.Ode,
    k: Annotated[Sequence[o.Natural], o.Option("numbers of solver steps", least=1)],
    density: o.Density = "uniform",
    shard: o.Index,
    precision: o.Precision = "no",
    teacher: o.Teacher,
    latents: o.Latents,
    teacher_seed: o.TeacherSeed = 0,
    job: o.Long,
) -> None:
    """Solve the ODE from a shard of the start points for k steps, of several k at once."""
    from directcm.distill import states

    what = (settings, ode.value.at(teacher_seed=teacher_seed), k, shard, teacher, latents)
    seed = o.redrawn(job.seed, teacher_seed)
    states.make(*what, seed, job.device, precision, job.scratch, job.out, density)


def endpoints(
    *,
    settings: Annotated[config.Errors, o.block("errors")],
    ode: o.Ode,
    shard: o.Index,
    batch_size: Annotated[o.Natural, "rows of one teacher evaluation"],
    precision: o.Precision = "no",
    teacher: o.Teacher,
    latents: o.Latents,
    job: o.Long,
) -> None:
    """Solve the ODE from a shard of the start points of the errors by start time."""
    from directcm.evaluation import endpoints

    endpoints.make(
        settings, ode.value, shard, batch_size, teacher, latents, job.seed, job.device, precision, job.scratch, job.out
    )


def trajectories(
    *, ode: o.Ode, count: o.Natural, precision: o.Precision = "no", teacher: o.Teacher, latents: o.Latents, job: o.Torch
) -> None:
    """Keep whole ODE trajectories from a few start points of training."""
    from directcm.evaluation import trajectories

    trajectories.make(count, ode.value, teacher, latents, job.seed, job.device, precision, job.out)


def _hparams(text: str | None, method: str) -> dict[str, float]:
    """A method's hyperparameters from --hparams. Raises UserError for an unknown one or one out of range."""
    try:
        found = json.loads(text or "{}")
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or any(
        not isinstance(v, int | float) or isinstance(v, bool) for v in found.values()
    ):
        raise UserError(f"--hparams is {text}, expected a JSON object of numbers, such as '{{\"mu\": 0.9}}'")
    if wrong := registry.methods()[method].refused(found):
        raise UserError(f"--hparams: {wrong}")
    return found


def train(
    *,
    settings: Annotated[config.Train, o.block("train")],
    method: o.Method,
    ode: o.Ode,
    adapter: Annotated[str, f"full or loraR ({config.ADAPTER})"],
    loss: Annotated[str, o.Option(choices=tuple(DISTANCES))],
    lr: float,
    batch_size: o.Natural,
    steps: o.Natural,
    training_seed: o.Index,
    pool: Annotated[o.Natural, "number of start points"],
    snapshots: Annotated[Sequence[o.Natural], "steps after which the student is kept too"] = (),
    targets: Annotated[Sequence[Targets], "the shards of solved targets"] = (),
    tensorboard: Annotated[Path | None, "folder for TensorBoard's events"] = None,
    hparams: Annotated[
        str | None, o.Option("the method's hyperparameters as JSON, where not its file's", was="--own", filled=o.QUOTED)
    ] = None,
    k: Annotated[o.Natural, "solver steps to the target of k_step"] = 1,
    density: o.Density = "uniform",
    weight: Annotated[Literal["one", "snr"], "weight of the loss by start time"] = "one",
    labels: Annotated[
        str, o.Option("what takes the endpoints' place", metavar="ode, METHOD or METHOD-ADAPTER")
    ] = "ode",
    ema: Annotated[
        float, "decay of the weight average that is kept in the last weights' place; 0: as --settings says"
    ] = 0.0,
    label_student: Annotated[o.Student | None, "the finished student that the labels are of"] = None,
    teacher: o.Teacher,
    latents: o.Latents,
    teacher_seed: o.TeacherSeed = 0,
    job: o.Long,
) -> None:
    """Distil the teacher into a student."""
    from directcm.distill import training

    sizes = {"lr": lr, "batch_size": batch_size, "pool": pool, "steps": steps, "seed": training_seed}
    axes = {"method": method, **ode.value.axes(), "adapter": adapter, "loss": loss, **sizes}
    varied = {"k": k, "density": density, "weight": weight, "labels": labels, "ema": ema}
    run = config.Run.of({**axes, **varied, "teacher_seed": teacher_seed}, "train")
    what = (run, settings, snapshots, teacher, latents, targets)
    seed = o.redrawn(job.seed, teacher_seed)
    training.make(*what, seed, job.scratch, tensorboard, job.out, _hparams(hparams, method), label_student)
