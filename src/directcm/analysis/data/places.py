"""What a grid has of the experiments (`experiments`): where each arm's students and sets lie, and what an experiment needs of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from directcm.analysis.data.experiments import DISPLACEMENT, FILE, Experiment, Scalar, Test
from directcm.analysis.data.selection import main_setting
from directcm.config import Config, Run, lora_rank, paths, spell
from directcm.config.specs import METRICS
from directcm.errors import UserError


@dataclass(frozen=True)
class Place:
    """One set of one student: its run, optimiser step and sampling steps, and what it is tuned by (`Arm.tuned`)."""

    run: Run
    step: int
    sampling_steps: int
    tuned: tuple[tuple[str, Scalar], ...] = ()

    @property
    def collection(self) -> str:
        """Where its collection lies below samples/, features/<e>/students/ and the like."""
        return f"{paths.VARIANTS if self.tuned else ''}{self.run.key}"


class Grid:
    """What a configuration has of experiments: its students and their sets, and which metrics are evaluated."""

    def __init__(self, config: Config) -> None:
        self.config, self.runs = config, set(config.grid())
        self.base = main_setting(config)
        self.metrics = set(config.metric_names())
        self._sets: dict[Run, list[tuple[int, int]]] = {}

    def sets(self, run: Run) -> list[tuple[int, int]]:
        """The plain sets of a run, (optimiser step, sampling steps); none where the grid has it not."""
        if run not in self._sets:
            self._sets[run] = self.config.sets(run) if run in self.runs else []
        return self._sets[run]

    def metric(self, experiment: Experiment, test: Test) -> str | None:
        """The first of a test's metrics that is evaluated."""
        return next((m for m in test.metric if experiment.closed or m == DISPLACEMENT or m in self.metrics), None)

    def run(self, experiment: Experiment, name: str, unit: int, by: str) -> Run:
        """The student that an arm has for a unit, `by` seed or teacher; it need not be in the grid."""
        arm = experiment.made[name]
        if arm.labeller_of is not None:
            found = self.run(experiment, arm.labeller_of, unit, by).labelled_by
            assert found is not None
            return found
        seeds = {"seed": unit} if by == "seed" else {"seed": experiment.seed, "teacher_seed": unit}
        axes = {**self.base.axes(), **arm.varied, "method": arm.method, **seeds}
        if arm.share is not None:
            axes["k"] = max(1, round(arm.share * int(axes["N"])))
        return Run.of(axes, f"arm {name}")

    def place(self, experiment: Experiment, name: str, unit: int, by: str) -> Place:
        """The set that an arm has for a unit, `by` seed or teacher."""
        arm, run = experiment.made[name], self.run(experiment, name, unit, by)
        fewest = min((k for _, k in self.sets(run)), default=1)
        steps = arm.sampling_steps or (2 if arm.relay else fewest)
        return Place(run, arm.step or run.steps, steps, tuple(arm.tuned.items()))

    def has(self, place: Place) -> bool:
        """Whether the grid has a set."""
        if place.run not in self.runs:
            return False
        if place.tuned:
            return has_variant(self.config, place)
        return (place.step, place.sampling_steps) in self.sets(place.run)

    def units(self, experiment: Experiment, test: Test) -> list[int]:
        """The units for which the grid has all arms of a test, ascending."""
        by = experiment.by(test)
        candidates = {run.seed if by == "seed" else run.teacher_seed for run in self.runs}
        wanted = sorted(candidates if test.units is None else candidates & {*test.units})
        arms = experiment.arms_of(test)
        return [unit for unit in wanted if all(self.has(self.place(experiment, arm, unit, by)) for arm in arms)]

    def lacking(self, experiment: Experiment, name: str) -> str:
        """Why a test cannot be taken in this grid; "" where it can."""
        test = experiment.tests[name]
        if self.metric(experiment, test) is None:
            return f"test {name} is of {' or '.join(test.metric)}, which is not among this run's metrics"
        if experiment.closed:
            return self._lacking_cells(experiment, name)
        if len(found := self.units(experiment, test)) >= 2:
            return ""
        unit = (test.units or [0])[0]
        for arm in experiment.arms_of(test):
            place = self.place(experiment, arm, unit, experiment.by(test))
            if not self.has(place):
                return f"arm {arm} of test {name} needs {self._said(place)}, which the grid has not; add it to students"
        return f"test {name} has {len(found)} {experiment.by(test)}{'s' * (len(found) != 1)} of which the grid has every arm, and needs 2; add others to students"

    def _lacking_cells(self, experiment: Experiment, name: str) -> str:
        block = self.config.fixed_points
        if block is None:
            return "it needs fixed_points, which is null; name at least one of its keys"
        for arm in experiment.arms_of(experiment.tests[name]):
            cell = experiment.made[arm]
            sizes = "features" if cell.tau is None else "flow"
            asked = {
                "processes": cell.process,
                "dimensions": cell.dimension,
                "classes": cell.kind,
                "k": cell.k,
                sizes: cell.m,
            }
            for key, value in asked.items():
                if value not in getattr(block, key):
                    return f"arm {arm} of test {name} needs {value} in fixed_points.{key}; add it"
        return ""

    def _said(self, place: Place) -> str:
        main = self.base.at(teacher_seed=0).spelled
        own = {axis: value for axis, value in place.run.spelled.items() if main.get(axis) != value}
        parts = [f"{axis} {value}" for axis, value in own.items()]
        parts += [f"{name} {spell(value)}" for name, value in place.tuned]
        if place.run in self.runs and not place.tuned:
            parts += [f"a set after {place.step} steps in {place.sampling_steps}"]
        return "the student " + ", ".join(parts)

    def tests(self, experiment: Experiment) -> list[str]:
        """The tests that this grid can take."""
        return [name for name in experiment.tests if not self.lacking(experiment, name)]


def has_variant(config: Config, place: Place) -> bool:
    """Whether the grid has a set that is not a plain one."""
    return any(
        (one.step, one.sampling_steps, one.varied) == (place.step, place.sampling_steps, dict(place.tuned))
        for one in config.variants(place.run)
    )


def missing(experiments: Mapping[str, Experiment], config: Config) -> dict[str, str]:
    """Of the experiments that a configuration has not: why not, by name. Those that it has have all tests that decide them."""
    grid = Grid(config)
    out = {}
    for name, experiment in experiments.items():
        reasons = [reason for test in experiment.deciding if (reason := grid.lacking(experiment, test))]
        if reasons:
            out[name] = reasons[0]
    return out


def present(
    experiments: Mapping[str, Experiment], config: Config, absent: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Letter → name of the experiments that a configuration has; UserError where two of one letter are there. `absent`: `missing`, if known."""
    absent = missing(experiments, config) if absent is None else absent
    out: dict[str, str] = {}
    for name in experiments:
        if name in absent:
            continue
        if name[0] in out:
            raise UserError(
                f"{FILE}: {out[name[0]]} and {name} are both in this grid; one experiment of a letter goes into a run"
            )
        out[name[0]] = name
    return out


def needed(experiment: Experiment, config: Config) -> dict[str, list[str]]:
    """What an experiment reads, folders below the results by kind: metrics, features, latents (samples, reference, untrained), noise.

    Of all tests that the grid can take, secondary ones too.
    """
    if experiment.closed:
        return {"fixed_points": ["fixed_points"]}
    grid = Grid(config)
    out: dict[str, dict[str, None]] = {
        key: {} for key in ("metrics", "features", "samples", "reference", "untrained", "noise")
    }
    shards = config.evaluation.jobs
    for name in grid.tests(experiment):
        test = experiment.tests[name]
        metric = grid.metric(experiment, test)
        assert metric is not None
        for arm, unit in itertools.product(experiment.arms_of(test), grid.units(experiment, test)):
            place = grid.place(experiment, arm, unit, experiment.by(test))
            ode = paths.taught(config, place.run.ode)
            out["metrics"][f"metrics/students/{place.collection}"] = None
            if DISPLACEMENT in (metric, test.adjusted and test.adjusted.given):
                out["samples"][f"samples/{place.collection}"] = None
                out["untrained"][f"untrained/{ode.key}"] = None
            if metric == DISPLACEMENT:
                continue
            spec = METRICS[metric]
            frechet = spec.part_of or metric
            if spec.part_of == "ode_error":
                out["samples"][f"samples/{place.collection}"] = None
                out["reference"] |= dict.fromkeys(f"reference/{ode.key}/shard~{i}" for i in range(shards))
                out["noise"]["noise"] = None
            elif METRICS[frechet].test == "frechet":
                extractor = METRICS[frechet].extractor
                out["features"][f"features/{extractor}/students/{place.collection}"] = None
                whose = {"data": "data", "teacher": f"teacher/{ode.key}", "other_noise": f"floor/{ode.key}"}[
                    test.reference
                ]
                out["features"][f"features/{extractor}/{whose}"] = None
    return {key: list(found) for key, found in out.items() if found}


def axis_value(grid: Grid, experiment: Experiment, name: str, axis: str, unit: int, by: str) -> float:
    """log₂ of an axis's value of an arm, as slopes are over it."""
    arm = experiment.made[name]
    if arm.closed:
        return math.log2(getattr(arm, axis))
    place = grid.place(experiment, name, unit, by)
    value: Any = place.step if axis == "step" else getattr(place.run, axis)
    found = lora_rank(str(value)) if axis == "adapter" else float(value)
    if found is None:
        raise UserError(f"{FILE}: a slope over adapter needs LoRA ranks, {name} trains all weights")
    return math.log2(found)
