"""What can be found missing before the first job: a data folder, a teacher's weights, an extractor's weights."""

from __future__ import annotations

from directcm.config import Config
from directcm.specs import EXTRACTORS


def check(config: Config) -> None:
    """Raise a UserError that says what is missing, from where it comes, and how to place it by hand."""
    if config.data.kind == "folder":
        from directcm.datasets import folder

        folder.check(config.data)
    if config.teacher.kind == "diffusers":
        from directcm.teachers import diffusers

        diffusers.locate(config.teacher.diffusers)
    for name in config.extractor_names():
        for file in EXTRACTORS[name].weights:
            from directcm.metrics.weights import weights_file

            weights_file(file)
