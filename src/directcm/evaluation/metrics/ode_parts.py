"""The ODE error taken apart (`statistics.error_parts`): bias², gain and 1 − ρ², which add up to it, and its share in the principal
directions of the teacher's samples. Means are those of each label, of all rows where the data have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from directcm.evaluation.metrics.ode_error import matched
from directcm.statistics.error_parts import Directions, Parts, parts, spectrum

SHARED = {
    "rank": 50, "better": "lower", "references": ("teacher",), "same_noise": True, "decimals": 4, "bounds": (0.0, None),
    "takes": ("latents", "rows", "reference.latents", "reference.rows", "groups", "reference.directions"),
    "function": "ode_parts", "part_of": "ode_error",
}  # fmt: skip
METRICS = {
    "ode_bias": {"title": "Bias²", "part": "bias", "rank": 50, "unit": "{space} MSE"},
    "ode_gain": {"title": "Gain", "part": "gain", "rank": 51, "unit": "{space} MSE"},
    "ode_scatter": {"title": "Scatter (1 − ρ²)", "part": "scatter", "rank": 52, "unit": "{space} MSE"},
    "ode_correlation": {
        "title": "Correlation ρ", "part": "correlation", "rank": 53, "better": "higher", "bounds": (-1.0, 1.0),
        "decimals": 3,
    },
    "ode_variance": {"title": "Variance ratio", "part": "variance_ratio", "rank": 54, "better": "neither", "decimals": 3},
}  # fmt: skip


@dataclass(frozen=True)
class Apart(Parts):
    """The parts, the number of components, and the error by band of directions as the table "directions"."""

    dim: int = 0
    flags: tuple[str, ...] = ()
    tables: Mapping[str, list[dict[str, float]]] = field(default_factory=dict)


def ode_parts(
    student: np.ndarray,
    student_rows: np.ndarray,
    teacher: np.ndarray,
    teacher_rows: np.ndarray,
    groups: np.ndarray,
    directions: Directions,
) -> Apart:
    """The parts of the ODE error of final latents (n, c, h, w), matched by row, with groups (n,) in the students' order."""
    other = matched(student, student_rows, teacher, teacher_rows)
    found = parts(student, other, groups)
    return Apart(**vars(found), dim=directions.dim, tables={"directions": spectrum(student, other, directions)})
