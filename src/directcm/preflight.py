"""What can be found missing before the first job: a data folder or archive, a teacher's weights, an extractor's or a distance's weights."""

from __future__ import annotations

from pathlib import Path

from directcm.artifacts import read_json
from directcm.config import Config
from directcm.datasets import TRAIN, split
from directcm.errors import UserError
from directcm.specs import DISTANCES, EXTRACTORS, TEACHERS


def check(config: Config, results: Path | None = None) -> None:
    """Raise a UserError that says what is missing, from where it comes, and how to place it by hand.

    `results`: the preset's folder; of data that lie there already the number of images is known.
    """
    made = results / "data/data.json" if results is not None else None
    if made is not None and made.is_file() and (train := read_json(made)["n_train"]) < config.least():
        raise UserError(
            f"{made.parent}: {train} images are trained on; {config.why_least()} at least {config.least()} of these: add images, "
            "lower data.held_out, or leave those metrics out"
        )
    if config.data.kind == "folder":
        from directcm.datasets import folder

        rows = len(folder.table(folder.check(config.data)))
        if rows < 2:
            raise UserError(
                f"{folder.check(config.data) / folder.MARK}: lists {rows} image(s), at least 2 are needed (one to train on, one held out)"
            )
        train = split(rows, config.data.held_out, config.seed).count(TRAIN)
        if train < config.least():
            raise UserError(
                f"{folder.check(config.data) / folder.MARK}: lists {rows} images, of which {train} are trained on; "
                f"{config.why_least()} at least {config.least()} of these: add images, lower data.held_out, or leave those metrics out"
            )
        if not TEACHERS[config.teacher.kind].latent:
            folder.check_labels(config.data)
    if config.data.kind == "archive":
        from directcm.datasets import archive

        archive.check(config.data)
    if config.teacher.kind == "diffusers":
        from directcm.teachers import diffusers

        diffusers.locate(config.teacher.diffusers, config.data.resolution)
    needed = [EXTRACTORS[name].weights for name in config.extractor_names()]
    needed += [d.weights for d in DISTANCES.values() if any(run.loss == d.name for run in config.runs())]
    for file in dict.fromkeys(name for files in needed for name in files):
        from directcm.weights import weights_file

        weights_file(file)
