"""The verb `untrained`: what a student before any training makes of the evaluation's noise in one step; latents alone, no images.

Every student starts there, whatever its adapter, for a LoRA's B is 0: ‖f − f_init‖² is how far training has moved what it samples.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from directcm.config import Ode
from directcm.diffusion.teachers import loader
from directcm.distill.students import Student
from directcm.evaluation.common import check_finite
from directcm.evaluation.sampling import Evaluated
from directcm.runtime.artifacts import new_artifact, save_tensors
from directcm.runtime.blocks import block_ranges, clear, work
from directcm.runtime.progress import Progress
from directcm.runtime.sources import digest


def make(what: Evaluated, ode: Ode, scratch: Path, out: Path) -> None:
    """Write the artefact: latents.safetensors with latents (n, …), float32, and rows (n,); row by row the noise's."""
    student = Student(what.model.start)
    blocks = block_ranges(len(what.initial), what.settings.block, 0, 1)
    progress = Progress("untrained", len(what.initial), "sample")

    def block(rows: range) -> dict[str, Tensor]:
        parts = []
        for some, latents in what.draw(student, ode.N, [0], rows):
            for row, latent in zip(some, latents, strict=True):
                check_finite(latent, f"untrained: row {row}")
            parts.append(latents)
            progress.update(len(some))
        return {"latents": torch.cat(parts), "rows": torch.tensor(rows)}

    settings, inputs = what.settings_for(ode), what.inputs()
    key = {
        **settings,
        "code": digest("evaluation.untrained", loader(what.teacher)),
        **{name: item.fingerprint for name, item in inputs.items()},
    }
    done = work(scratch, key, blocks, block, lambda rows: progress.skip(len(rows)))
    with new_artifact(out, "untrained", settings=settings, inputs=inputs) as art:
        save_tensors(art / "latents.safetensors", done)
        art.counts = {"samples": len(done["rows"]), "student_forwards": len(done["rows"])}
    clear(scratch)
