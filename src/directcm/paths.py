"""Paths as keys: where a configuration's artefacts and benchmark files lie below its results folder.

The rules of workflow/rules/ and the provenance page spell them through these functions, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from directcm.config import ODE_AXES, RUN_AXES, Config, number
from directcm.sources import PACKAGE_ROOT, declares
from directcm.specs import EXTRACTORS


def key(axes: Mapping[str, Any], names: Sequence[str]) -> str:
    """name~value,name~value … as Snakemake's Paramspace spells it; numbers without exponents."""
    return ",".join(f"{n}~{number(axes[n]) if isinstance(axes[n], float) else axes[n]}" for n in names)


def unique(items: Iterable[str]) -> list[str]:
    """Without repetitions, in order."""
    return list(dict.fromkeys(items))


def default_ode(config: Config) -> dict[str, Any]:
    """The axes of the `ode` block: the teacher's row of Table 1."""
    return {n: getattr(config.ode, n) for n in ODE_AXES}


def runs(config: Config) -> list[str]:
    """Keys of all students."""
    return [key(run, RUN_AXES) for run in config.runs()]


def odes(config: Config) -> list[str]:
    """Keys of all ODEs whose reference samples are needed."""
    return unique(key(axes, ODE_AXES) for axes in (default_ode(config), *config.runs()))


def target_odes(config: Config) -> list[str]:
    """Keys of the ODEs that some method of the grid needs solved targets of."""
    root = str(PACKAGE_ROOT)
    return unique(key(r, ODE_AXES) for r in config.runs() if declares(r["method"], "TARGETS", root=root))


def sets(config: Config) -> list[str]:
    """What is evaluated: teacher/<ode>, and students/<run>/sampling_steps~<k>."""
    students = [f"students/{run}/sampling_steps~{k}" for run in runs(config) for k in config.evaluation.steps]
    return [f"teacher/{key(default_ode(config), ODE_AXES)}", *students]


def trained_extractors(config: Config) -> list[str]:
    """The extractors that are trained here."""
    return [name for name in config.extractor_names() if not EXTRACTORS[name].weights]


def artefacts(config: Config) -> list[str]:
    """Folders of the artefacts whose provenance the report shows, below the results folder."""
    return [
        *("data", "teacher", "latents", "noise"),
        *(f"extractors/{name}" for name in trained_extractors(config)),
        *(f"reference/{ode}/shard~{i}" for ode in odes(config) for i in range(config.evaluation.shards)),
        *(f"targets/{ode}/shard~{i}" for ode in target_odes(config) for i in range(config.targets.shards)),
        *(f"students/{run}" for run in runs(config)),
        *(f"metrics/{what}" for what in sets(config)),
    ]


def benchmarks(config: Config) -> list[str]:
    """Snakemake's benchmark files of this configuration's jobs, below results/<preset>/benchmarks."""
    evaluated = unique([*sets(config), *(f"teacher/{ode}" for ode in odes(config)), "data"])
    names = [
        *("data", "teacher", "encode", "noise", "table", "paired", "figure_samples", "figure_curves", "figure_results"),
        *(f"extractor/{name}" for name in trained_extractors(config)),
        *(f"reference/{ode}/shard~{i}" for ode in odes(config) for i in range(config.evaluation.shards)),
        *(f"targets/{ode}/shard~{i}" for ode in target_odes(config) for i in range(config.targets.shards)),
        *(f"train/{run}" for run in runs(config)),
        *(f"sample/{run}/sampling_steps~{k}" for run in runs(config) for k in config.evaluation.steps),
        *(f"features/{name}/{what}" for name in config.extractor_names() for what in evaluated),
        *(f"evaluate/{what.removeprefix('students/')}" for what in sets(config)),
        *(f"card/{run}" for run in runs(config)),
    ]
    return [f"{name}.tsv" for name in names]
