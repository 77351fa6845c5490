"""What the verbs of evaluation share: checks of what they read and of what they compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from directcm.errors import UserError
from directcm.runtime.artifacts import Artifact

if TYPE_CHECKING:
    from torch import Tensor


def numbered(name: str, artifacts: Sequence[Artifact]) -> dict[str, Artifact]:
    """Artefacts as manifests record them: NAME_0, NAME_1 …"""
    return {f"{name}_{i}": artifact for i, artifact in enumerate(artifacts)}


def check_teacher(student: Artifact, teacher: Artifact) -> None:
    """UserError unless the student was distilled from this teacher."""
    if student.manifest["inputs"]["teacher"] != teacher.fingerprint:
        raise UserError(f"{student.folder}: distilled from another teacher; train it again")


def check_finite(values: Tensor, what: str) -> None:
    """UserError that names `what` if a value is NaN or infinite."""
    if not bool(values.isfinite().all()):
        raise UserError(f"{what} is not finite; use evaluation.precision no or bf16")
