"""The verbs that make what students are trained with: data, teacher, latents, noise."""

from __future__ import annotations

import importlib
from typing import Annotated, Any, Literal

from directcm import config
from directcm.cli import options as o
from directcm.config.specs import TEACHERS


def data(
    *,
    settings: Annotated[config.Data, o.block("data")],
    least: Annotated[o.Natural, "training images that the metrics need"] = 1,
    classes: Annotated[bool, "each image needs a label: the teacher is told the class"] = False,
    job: o.Seeded,
) -> None:
    """Copy a data set into an artefact with a fixed split."""
    from directcm import datasets

    datasets.make(settings, job.seed, job.out, least, classes)


def teacher(
    *,
    kind: Annotated[str, o.Option(choices=tuple(TEACHERS))],
    settings: Annotated[str, o.Option(o.block("teacher.<kind>"), metavar="JSON", filled=o.QUOTED)],
    process: Annotated[config.Process, "the block process of the configuration"],
    data: o.Data,
    teacher_seed: o.TeacherSeed = 0,
    job: o.Long,
) -> None:
    """Train a small teacher, record an existing one, or make the exact one."""
    block: Any = config.Teacher.model_fields[kind].annotation
    module = importlib.import_module(f"directcm.diffusion.teachers.{kind}")
    seed = o.redrawn(job.seed, teacher_seed)
    module.make(config.settings_argument(block, settings), process, data, seed, job.scratch, job.out)


def encode(
    *,
    settings: Annotated[config.Encode, o.block("encode")],
    precision: o.Precision = "no",
    teacher: o.Teacher,
    data: o.Data,
    teacher_seed: o.TeacherSeed = 0,
    job: o.Long,
) -> None:
    """Encode images and captions once."""
    from directcm.distill import encode

    seed = o.redrawn(job.seed, teacher_seed)
    encode.make(settings, teacher, data, seed, job.device, precision, job.scratch, job.out)


def noise(
    *,
    samples: o.Natural,
    purpose: Literal["evaluation", "floor", "search"] = "evaluation",
    data: o.Data,
    latents: o.Latents,
    job: o.Work,
) -> None:
    """Draw the evaluation's noise and prompts."""
    from directcm.distill import noise

    noise.make(samples, purpose, data, latents, job.seed, job.out)
