"""What can be found missing before the first job: a data folder, archive or font, a teacher's weights, an extractor's or a distance's weights."""

from __future__ import annotations

import importlib
from pathlib import Path

from directcm.config import Config
from directcm.config.specs import DATA_SETS, DISTANCES, EXTRACTORS, TEACHERS
from directcm.datasets import module_of
from directcm.errors import UserError
from directcm.runtime.artifacts import read_json


def check(config: Config, results: Path | None = None) -> None:
    """Raise a UserError that says what is missing, from where it comes, and how to place it by hand.

    `results`: the preset's folder; of data that lie there already the number of images is known.
    """
    made = results / "data/data.json" if results is not None else None
    there = made is not None and made.is_file()
    if made is not None and there and (train := read_json(made)["n_train"]) < config.least():
        raise UserError(
            f"{made.parent}: {train} images are trained on; {config.why_least()} at least {config.least()} of these: add images, "
            "lower data.held_out, or leave those metrics out"
        )
    # Not of the configuration itself: tables read it without how the teacher is trained.
    if config.teacher.told_classes and not config.data.can_have_labels:
        told = config.teacher.kind
        remedy = "conditional: false" if hasattr(getattr(config.teacher, told), "conditional") else "another kind"
        raise UserError(
            f"data.layout {config.data.layout} has no labels, and teacher.kind {told} is told the class of each image; set {remedy} in the block teacher"
        )
    if lies_in := DATA_SETS[config.data.kind].lies_in:
        data = module_of(config.data)
        # What a font was drawn for once needs no font: results of another machine go on here.
        if not (lies_in == "font" and there and not data.files(config.data)):
            data.ready(config)
    if TEACHERS[config.teacher.kind].pinned:
        teacher = importlib.import_module(f"directcm.diffusion.teachers.{config.teacher.kind}")
        teacher.locate(getattr(config.teacher, config.teacher.kind), config.data.resolution)
    needed = [EXTRACTORS[name].weights for name in config.all_extractors()]
    needed += [d.weights for d in DISTANCES.values() if any(run.loss == d.name for run in config.grid())]
    for file in dict.fromkeys(name for files in needed for name in files):
        from directcm.runtime.weights import weights_file

        weights_file(file)
