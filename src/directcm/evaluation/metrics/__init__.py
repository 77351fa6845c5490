"""Measures of samples: features, distances between them, and per-sample scores.

A metric is a module here that declares it, in plain values (`specs.Metric` says which; SHARED holds for all of a module), and has
its function:

    METRICS = {"fid": {"title": "FID", "better": "lower", "references": ("teacher", "data"), "extractor": "inception_clean",
                       "takes": ("image", "reference.image"), "function": "frechet_distance"}}

`takes` names the arguments: arrays of the extractor (n, …), such as "image", and of the samples their final "latents", evaluation
"rows", PIL "images", "labels" and "groups", the labels as numbers (n,), one of all rows where the data have none; "reference.NAME" is
the reference's, "reference.directions" the principal directions of its latents; "data" is the data artefact, "seed" the run's. Features
of the samples and of a reference come with equally many rows. The function returns a number, or a result with the metric's `part`, `dim`
and `flags`, and perhaps `tables`, name → lines, that are written as NAME.csv beside the metrics; where it is `per_sample`, numbers (n,)
or `Scores`, or a result whose `part` they are; None, also as a `part` of these, where it is not defined. Metrics of one function and one
extractor share its result.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from directcm.config.specs import METRICS

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Scores:
    """Per-sample numbers (n,), what to know of them, and checks of what they rest on, by name."""

    values: np.ndarray
    flags: tuple[str, ...] = ()
    checks: Mapping[str, Any] = field(default_factory=dict)


def function(name: str) -> Callable[..., Any]:
    """The function of a metric."""
    spec = METRICS[name]
    return getattr(importlib.import_module(f"directcm.{spec.module}"), spec.function)
