"""What can be found missing before the first job: a data folder or archive, a teacher's weights, an extractor's or a distance's weights."""

from __future__ import annotations

from directcm.config import Config
from directcm.specs import DISTANCES, EXTRACTORS, TEACHERS


def check(config: Config) -> None:
    """Raise a UserError that says what is missing, from where it comes, and how to place it by hand."""
    if config.data.kind == "folder":
        from directcm.datasets import folder

        folder.check(config.data)
        if not TEACHERS[config.teacher.kind].latent:
            folder.check_labels(config.data)
    if config.data.kind == "archive":
        from directcm.datasets import archive

        archive.check(config.data)
    if config.teacher.kind == "diffusers":
        from directcm.teachers import diffusers

        diffusers.locate(config.teacher.diffusers)
    needed = [EXTRACTORS[name].weights for name in config.extractor_names()]
    needed += [d.weights for d in DISTANCES.values() if any(run["loss"] == d.name for run in config.runs())]
    for file in dict.fromkeys(name for files in needed for name in files):
        from directcm.weights import weights_file

        weights_file(file)
