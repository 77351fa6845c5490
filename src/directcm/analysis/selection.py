"""Which runs stand in the main comparison, and their metrics once checked to be comparable.

Table 1 averages over training seeds and over nothing else, so everything that differs in another axis stays out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from directcm.artifacts import Artifact
from directcm.config import ODE_AXES, RUN_AXES, Config, number
from directcm.errors import UserError
from directcm.specs import METHODS, METRICS, SOLVERS

TEACHER = "Teacher"
ROWS = (TEACHER, *METHODS.values())
SHARED_AXES = tuple(axis for axis in RUN_AXES if axis not in ("method", "seed"))


@dataclass(frozen=True)
class Evaluated:
    """One metrics artefact of the main comparison. `steps` are sampling steps; `seed` is None for the teacher."""

    row: str
    steps: int
    seed: int | None
    values: Mapping[tuple[str, str], Mapping[str, Any]]
    artifact: Artifact


def _text(value: Any) -> str:
    """An axis value as text, so that 3, 3.0 and what a path spells compare equal."""
    return number(value) if isinstance(value, int | float) else str(value)


def _same(run: Mapping[str, Any], axes: Mapping[str, Any], names: Sequence[str]) -> bool:
    return all(name in run and _text(run[name]) == _text(axes[name]) for name in names)


def _spell(axes: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{name} = {_text(axes[name])}" for name in names)


def main_runs(config: Config) -> list[dict[str, Any]]:
    """The grid runs of the main comparison: those whose axes but method and seed are `ode`'s and `train`'s.

    Where no run has these, the axes of the grid's first run take their place. Raises UserError where a method
    of the grid has no such run: its row would be empty, or would compare unlike trainings.
    """
    runs = config.runs()
    axes: Mapping[str, Any] = {n: getattr(config.ode if n in ODE_AXES else config.train, n) for n in SHARED_AXES}
    if not any(_same(run, axes, SHARED_AXES) for run in runs):
        axes = runs[0]
    chosen = [run for run in runs if _same(run, axes, SHARED_AXES)]
    for method in dict.fromkeys(run["method"] for run in runs):
        if not any(run["method"] == method for run in chosen):
            raise UserError(
                f"students: no run of {method} has {_spell(axes, SHARED_AXES)}, so the main comparison has no "
                f"{METHODS[method]}; add a line with method: [{method}] and these values, or remove the method"
            )
    return chosen


def describe(config: Config) -> str:
    """One line on the settings of the main comparison, as plain text (it may hold a user's paths)."""
    run = main_runs(config)[0]
    source = config.data.kind if config.data.kind == "digits" else f"folder {config.data.path}"
    d = config.teacher.diffusers
    teacher = (
        "small SDXL trained here"
        if config.teacher.kind == "micro_sdxl"
        else d.path or f"{d.id}@{(d.revision or '')[:7]}"
    )
    return (
        f"data: {source}, {config.data.resolution} px; teacher: {teacher}; ODE: {SOLVERS[run['solver']]}, "
        f"N = {run['N']}, w = {number(run['w'])}; students: {run['adapter']}, {run['loss']}, "
        f"learning rate {number(run['lr'])}, {run['steps']} steps of {run['batch_size']}"
    )


def _read(artifact: Artifact) -> dict[str, Any]:
    """A metrics.json with the keys that the analysis relies on."""
    path = artifact.folder / "metrics.json"
    content = artifact.json("metrics.json")
    missing = [k for k in ("row", "steps", "run", "metrics") if not isinstance(content, dict) or k not in content]
    if missing:
        raise UserError(f"{path}: lacks {', '.join(missing)}; delete the folder and evaluate again")
    if content["row"] not in ROWS:
        raise UserError(f"{path}: row is {content['row']!r}, expected one of {', '.join(ROWS)}")
    for item in content["metrics"]:
        spec = METRICS.get(item["metric"])
        if spec is None or item["reference"] not in spec.references:
            raise UserError(f"{path}: unknown metric {item['metric']!r} against {item['reference']!r}; evaluate again")
    return content


def select(metrics: Sequence[Artifact], config: Config) -> list[Evaluated]:
    """The main comparison among metrics artefacts: row order, sampling steps ascending, seeds ascending.

    Raises UserError where the teacher, or a method at a number of sampling steps, is missing; where a run is given
    twice; and where numbers are not comparable (other noise, other sample counts, other feature sizes).
    """
    runs = main_runs(config)
    methods = list(dict.fromkeys(run["method"] for run in runs))
    found: dict[tuple[str, int, int | None], Evaluated] = {}
    noises: dict[str, str] = {}
    for artifact in metrics:
        content = _read(artifact)
        path, row, run = artifact.folder / "metrics.json", content["row"], content["run"]
        if row == TEACHER:
            seed = None
            if not _same(run, runs[0], ODE_AXES):
                continue
        else:
            match = [r for r in runs if METHODS[r["method"]] == row and _same(run, r, RUN_AXES)]
            if not match or content["steps"] not in config.evaluation.steps:
                continue
            seed = match[0]["seed"]
        key = (row, int(content["steps"]), seed)
        if key in found:
            raise UserError(
                f"{path}: the same run as {found[key].artifact.folder / 'metrics.json'}; give each run once"
            )
        noise = content.get("fingerprints", {}).get("noise")
        if noise is not None:
            noises.setdefault(noise, str(path))
        values = {(item["metric"], item["reference"]): item for item in content["metrics"]}
        found[key] = Evaluated(row, key[1], seed, values, artifact)
    if len(noises) > 1:
        first, second = list(noises.values())[:2]
        raise UserError(f"{second}: evaluated on other noise than {first}; evaluate both on the same noise")
    wanted = [(METHODS[m], k) for m in methods for k in sorted(config.evaluation.steps)]
    for row, steps in wanted:
        if not any(key[:2] == (row, steps) for key in found):
            raise UserError(
                f"metrics: none of {row} at {steps} sampling step{'s' * (steps > 1)} with {_spell(runs[0], SHARED_AXES)}; "
                f"evaluate these students first"
            )
    if not any(key[0] == TEACHER for key in found):
        raise UserError(f"metrics: none of the teacher with {_spell(runs[0], ODE_AXES)}; evaluate it first")
    out = sorted(found.values(), key=lambda e: (ROWS.index(e.row), e.steps, -1 if e.seed is None else e.seed))
    _comparable(out)
    return out


def _comparable(items: Sequence[Evaluated]) -> None:
    """Sizes that a metric's value depends on must agree wherever its values stand side by side."""
    seen: dict[tuple[str, str], tuple[tuple[Any, ...], Evaluated]] = {}
    for item in items:
        for key, value in item.values.items():
            size = tuple(value.get(name) for name in ("n", "n_reference", "dim"))
            other, where = seen.setdefault(key, (size, item))
            if other != size:
                raise UserError(
                    f"{item.artifact.folder / 'metrics.json'}: {key[0]} against {key[1]} has (n, n_reference, dim) = {size}, "
                    f"but {other} in {where.artifact.folder / 'metrics.json'}: not comparable; evaluate both alike"
                )


def by_row(items: Sequence[Evaluated]) -> dict[tuple[str, int], list[Evaluated]]:
    """Evaluations grouped by (row, sampling steps), in the given order."""
    groups: dict[tuple[str, int], list[Evaluated]] = {}
    for item in items:
        groups.setdefault((item.row, item.steps), []).append(item)
    return groups


def steps_label(steps: int) -> str:
    """ "1 step", "4 steps"."""
    return f"{steps} step" + ("" if steps == 1 else "s")
