"""The verbs that make what students are trained with: data, teacher, latents, noise."""

from __future__ import annotations

from typing import Annotated, Literal

from directcm import config
from directcm.cli import options as o
from directcm.specs import TEACHERS


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
    job: o.Long,
) -> None:
    """Train a small teacher, record an existing one, or make the exact one."""
    job.prepare()
    read = config.settings_argument
    if kind == "micro_sdxl":
        from directcm.teachers import micro_sdxl

        micro_sdxl.make(read(config.MicroSdxl, settings), process, data, job.seed, job.scratch, job.out)
    elif kind == "edm":
        from directcm.teachers import edm

        edm.make(read(config.Edm, settings), process, data, job.seed, job.scratch, job.out)
    elif kind == "mixture":
        from directcm.teachers import mixture

        mixture.make(read(config.Mixture, settings), process, data, job.seed, job.out)
    else:
        from directcm.teachers import diffusers

        resolution = data.json("data.json")["resolution"]
        diffusers.make(read(config.Diffusers, settings), process, resolution, job.out)


def encode(
    *,
    settings: Annotated[config.Encode, o.block("encode")],
    precision: o.Precision = "no",
    teacher: o.Teacher,
    data: o.Data,
    job: o.Long,
) -> None:
    """Encode images and captions once."""
    job.prepare()
    from directcm import encode

    encode.make(settings, teacher, data, job.seed, job.device, precision, job.scratch, job.out)


def noise(
    *,
    samples: o.Natural,
    purpose: Literal["evaluation", "floor", "search"] = "evaluation",
    data: o.Data,
    latents: o.Latents,
    job: o.Work,
) -> None:
    """Draw the evaluation's noise and prompts."""
    from directcm import noise

    noise.make(samples, purpose, data, latents, job.seed, job.out)
