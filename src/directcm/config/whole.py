"""The whole configuration: its blocks, what they ask of each other, and the grid of runs that they make."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field, model_validator

from directcm.config.base import Block, Count
from directcm.config.data import Data, embedded_images
from directcm.config.evaluation import (
    FRECHET,
    SOUGHT,
    Convergence,
    Editing,
    Errors,
    Evaluation,
    Extractors,
    Figures,
    Search,
    Statistics,
)
from directcm.config.registry import methods
from directcm.config.runs import ODE_AXES, RUN_AXES, SETTING_AXES, Ode, Run, Setting
from directcm.config.specs import DATA_SETS, DISTANCES, EXTRACTORS, METRICS, TEACHERS
from directcm.config.students import StudentAxes, Targets, Train, paper_grid
from directcm.config.teacher import Encode, Process, Teacher

# Of one plan: students, and jobs of one ODE.
MOST_JOBS, MOST_SHARDS = 20_000, 2_000


class Config(Block):
    """A whole run."""

    preset: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")] = Field(
        "embedded", description="name of the results folder"
    )
    seed: Count = Field(24, description="seed of everything but the students' training")
    data: Data = Data()
    process: Process = Process()
    teacher: Teacher = Teacher()
    encode: Encode = Encode()
    ode: Ode = Ode()
    targets: Targets = Targets()
    train: Train = Train()
    # Left out of what is written where it is empty, so that what was made before it existed stays.
    methods: dict[str, dict[str, Annotated[float, Field(strict=True)]]] = Field(
        {},
        exclude_if=lambda value: not value,
        description="a method's hyperparameters (SETTINGS in its file) that differ from its defaults: {ct: {s1: 40}}",
    )
    students: list[StudentAxes] = Field(default_factory=lambda: paper_grid(), min_length=1)
    evaluation: Evaluation = Evaluation()
    metrics: list[str] = Field(
        default_factory=lambda: [
            *("ode_error", "fd_tiny", "kid_tiny", "clip_tiny", "quality_tiny", "prompt_accuracy"),
            *("fd_inf_tiny", "cmmd_tiny", "precision_tiny", "recall_tiny", "density_tiny", "coverage_tiny"),
        ],
        min_length=1,
    )
    extractors: Extractors = Extractors()
    errors: Errors = Errors()
    # Left out of what is written where it is null: tables that were made before this key existed are not made anew.
    search: Search | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="search sampling times too: a block of steps, samples, metric and reference; null: even times alone",
    )
    statistics: Statistics = Statistics()
    # As the teachers' own blocks: what was made before it existed stays.
    editing: Editing = Field(default=Editing(), exclude_if=lambda value: value == Editing())
    figures: Figures = Figures()
    # Left out of what is written where it is null: what was made before it existed stays.
    convergence: Convergence | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="null: not measured; a preset that wants it names at least one of its keys",
    )

    @model_validator(mode="after")
    def _check(self) -> Config:
        self._check_size()
        total, divides = self.process.timesteps, self.process.divides
        if not divides(self.ode.N):
            raise ValueError(f"ode.N = {self.ode.N} does not divide process.timesteps = {total}")
        for axes in self.students:
            for n in axes.N or []:
                if not divides(n):
                    raise ValueError(f"students: N = {n} does not divide process.timesteps = {total}")
            if axes.errors:
                for n in [self.errors.refined.N, *(axes.N or [self.ode.N])]:
                    if n % self.errors.times:
                        raise ValueError(
                            f"errors.times = {self.errors.times} does not divide N = {n} of a line with errors"
                        )
        for block, key, limit_key, limit in (
            (self.targets, "targets.batch_size", "targets.block", self.targets.block),
            (self.evaluation, "evaluation.batch_size", "evaluation.samples", self.evaluation.samples),
        ):
            if block.batch_size > limit:
                raise ValueError(f"{key} = {block.batch_size} is larger than {limit_key} = {limit}")
        for key, sized in (("targets", self.targets), ("errors", self.errors)):
            if sized.shard % sized.block:
                raise ValueError(f"{key}.block = {sized.block} does not divide {key}.shard = {sized.shard}")
        if not divides(self.errors.refined.N):
            raise ValueError(f"errors.refined.N = {self.errors.refined.N} does not divide process.timesteps = {total}")
        for run in self.runs():
            if run.batch_size > run.pool:
                raise ValueError(f"students: batch_size = {run.batch_size} is larger than pool = {run.pool}")
            for _, steps in self.sets(run):
                if steps > run.N:
                    raise ValueError(f"sampling steps: {steps} are more than the grid's N = {run.N}")
        for where, numbers in (
            ("evaluation.steps", self.evaluation.steps),
            *(("students: sampling_steps", a.sampling_steps or []) for a in self.students),
            *(("students: snapshots", a.snapshots) for a in self.students),
        ):
            if len(set(numbers)) != len(numbers):
                raise ValueError(f"{where} names a number twice")
        if len(set(self.metrics)) != len(self.metrics):
            raise ValueError("metrics names one twice")
        for name in self.metrics:
            if name not in METRICS:
                raise ValueError(f"metrics: unknown metric {name!r}; there are {', '.join(METRICS)}")
            metric = METRICS[name]
            if metric.extractor == "clip_tiny" and self.extractors.clip_tiny is None:
                raise ValueError(f"metrics: {name} needs extractors.clip_tiny, which is null")
        if not self.metric_names():
            raise ValueError(
                f"metrics: {', '.join(self.metrics)} need labelled images (data.kind {' or '.join(name for name, spec in DATA_SETS.items() if spec.labels)}); name others too"
            )
        about = DATA_SETS[self.data.kind]
        if about.largest is not None and self.data.resolution > about.largest:
            raise ValueError(f"data.resolution: {about.name} come at 8, 16, 24 … {about.largest} pixels")
        if about.images is not None:
            whole, groups = embedded_images(self.data.kind, self.data.resolution)
            held_out = min(max(round(groups * self.data.held_out), 1), groups - 1)
            images = whole - held_out * (whole // groups)
            if self.evaluation.samples > images:
                raise ValueError(
                    f"evaluation.samples = {self.evaluation.samples} is more than the {images} training images that are the data reference"
                )
        self._check_teacher()
        self._check_methods()
        self._check_search()
        if self.teacher.kind == "micro_sdxl":
            factor = self.teacher.micro_sdxl.vae.factor
            if self.data.resolution % factor:
                raise ValueError(
                    f"teacher.micro_sdxl.vae.channels has {len(self.teacher.micro_sdxl.vae.channels)} resolutions, too many "
                    f"for data.resolution = {self.data.resolution}"
                )
            latent = self.data.resolution // factor
            down = 2 ** (len(self.teacher.micro_sdxl.unet.channels) - 1)
            if latent % down:
                raise ValueError(
                    f"teacher.micro_sdxl.unet.channels has {len(self.teacher.micro_sdxl.unet.channels)} resolutions, too many for {latent}×{latent} latents"
                )
        tiny = self.extractors.clip_tiny
        if (
            tiny is not None
            and self.data.resolution % tiny.patch
            and any(METRICS[m].extractor == "clip_tiny" for m in self.metrics)
        ):
            raise ValueError(
                f"extractors.clip_tiny.patch = {tiny.patch} does not divide data.resolution = {self.data.resolution}"
            )
        return self

    def _check_size(self) -> None:
        """Whether the plan is one that can be made: thousands of jobs take Snakemake minutes, millions for ever."""
        students = sum(math.prod(len(self._values(axes, name)) for name in RUN_AXES) for axes in self.students)
        if students > MOST_JOBS:
            raise ValueError(
                f"students: {students:,} students, more than the {MOST_JOBS:,} of one plan; shorten the lists"
            )
        largest = max(pool for axes in self.students for pool in self._values(axes, "pool"))
        for key, items, sized in (
            ("targets", largest, self.targets),
            ("errors", self.errors.times * self.errors.points, self.errors),
        ):
            shards = -(-items // sized.shard)
            if shards > MOST_SHARDS:
                what = f"pool = {items:,}" if key == "targets" else f"errors.times · errors.points = {items:,}"
                raise ValueError(
                    f"{what} at {key}.shard = {sized.shard:,} makes {shards:,} jobs, more than {MOST_SHARDS:,}; raise {key}.shard, or lower it"
                )
        if self.evaluation.samples < self.least():
            raise ValueError(
                f"evaluation.samples = {self.evaluation.samples} is too few: {self.why_least()} at least {self.least()}"
            )

    def least(self) -> int:
        """How many images on either side the metrics need."""
        return max(
            (METRICS[m].least for m in self.metrics if m in METRICS and "data" in METRICS[m].references), default=1
        )

    def why_least(self) -> str:
        """Which metrics need the most images, as the beginning of a sentence."""
        those = [METRICS[m] for m in self.metrics if m in METRICS and "data" in METRICS[m].references]
        names = [metric.name for metric in those if metric.least >= self.least()]
        return f"{', '.join(names[:4])}{' …' if len(names) > 4 else ''} need{'s' if len(names) == 1 else ''}"

    def _check_teacher(self) -> None:
        """What a kind of teacher asks of process, data and students."""
        kind = TEACHERS[self.teacher.kind]
        if self.process.kind not in kind.processes:
            raise ValueError(
                f"process.kind is {self.process.kind}, but teacher.kind {kind.name} needs {' or '.join(kind.processes)}"
            )
        if kind.latent:
            for loss in {run.loss for run in self.runs()}:
                if DISTANCES[loss].images:
                    others = ", ".join(d.name for d in DISTANCES.values() if not d.images)
                    raise ValueError(
                        f"loss {loss} compares images, but what teacher.kind {kind.name} diffuses are latents; use {others}, "
                        "or a teacher on pixels"
                    )
            return
        unet = self.teacher.pixel_unet
        levels = len(unet.channels) if unet else 1
        if self.data.resolution % 2 ** (levels - 1):
            raise ValueError(
                f"teacher.{kind.name}: channels has {levels} resolutions, too many for data.resolution = {self.data.resolution}"
            )
        if self.data.resolution % self.editing.patch:
            raise ValueError(
                f"editing.patch = {self.editing.patch} does not divide data.resolution = {self.data.resolution}"
            )

    def _check_methods(self) -> None:
        """What methods ask of process and grid, and that their settings are theirs."""
        for name, given in self.methods.items():
            if name not in methods():
                raise ValueError(f"methods: unknown method {name!r}; there are {', '.join(methods())}")
            # Some of these would fail, or mean nothing, after the teacher has been trained.
            if wrong := methods()[name].refused(given):
                raise ValueError(f"distill.methods.{name}: {wrong}")
        for run in self.runs():
            method = methods()[run.method]
            if self.process.kind not in method.processes:
                raise ValueError(
                    f"students: method {run.method} needs process.kind {' or '.join(method.processes)}, it is {self.process.kind}"
                )
            if method.halves and (run.N == 1 or run.N.bit_count() != 1):
                raise ValueError(
                    f"students: method {run.method} halves N until it is 1, but N = {run.N} is not 2, 4, 8 …"
                )
            for _, k in self.sets(run) if method.halves else ():
                if k.bit_count() != 1 or k >= run.N:
                    raise ValueError(
                        f"students: method {run.method} halves N = {run.N}, so that its sampling_steps are powers of 2 below it, not {k}"
                    )

    def hparams(self, name: str) -> dict[str, float]:
        """A method's hyperparameters: its defaults with those of `methods`; whole numbers stay integers."""
        hparams = {**methods()[name].hparams, **self.methods.get(name, {})}
        return {
            k: int(v) if v == int(v) and isinstance(methods()[name].hparams[k], int) else v for k, v in hparams.items()
        }

    def _check_search(self) -> None:
        """What a search of sampling times asks of grid, metrics and evaluation."""
        search = self.search
        if search is None:
            return
        if len(set(search.steps)) != len(search.steps):
            raise ValueError("search.steps names a number twice")
        for run in self.searched():
            if max(search.steps) > run.N:
                raise ValueError(f"search.steps: {max(search.steps)} are more than the grid's N = {run.N}")
        if search.samples > self.evaluation.samples:
            raise ValueError(
                f"search.samples = {search.samples} is more than evaluation.samples = {self.evaluation.samples}, the reference's"
            )
        there = [m for m in self.metric_names() if m in SOUGHT]
        if search.metric is None and not set(there) & set(FRECHET):
            raise ValueError(
                f"search.metric is null, and metrics has no Fréchet distance; there are {', '.join(FRECHET)}"
            )
        if search.metric is not None and search.metric not in there:
            raise ValueError(
                f"search.metric is {search.metric!r}, expected a distance among metrics: {', '.join(there) or 'it has none'}"
            )

    def search_metric(self) -> str:
        """What the search of sampling times minimises."""
        assert self.search is not None
        return self.search.metric or next(m for m in self.metric_names() if m in FRECHET)

    def latent(self) -> tuple[int, int]:
        """(channels, side) of what the teacher diffuses."""
        if not TEACHERS[self.teacher.kind].latent:
            return 3, self.data.resolution
        # SDXL's VAE and its likes have 4 channels of an eighth of the side.
        factor = self.teacher.micro_sdxl.vae.factor if self.teacher.kind == "micro_sdxl" else 8
        return 4, self.data.resolution // factor

    @cached_property
    def _grid(self) -> tuple[Run, ...]:
        return tuple(dict.fromkeys(run for axes in self.students for run in self._product(axes)))

    def runs(self) -> list[Run]:
        """The grid of students, without repetitions, in the order of `students`."""
        return list(self._grid)

    def searched(self) -> list[Run]:
        """The runs whose sampling times are searched: of the main setting, the first of each method; none without `search`.

        The main setting is that of `ode` and `train`, or of the first run where no run has it. A method that halves N has learnt to go
        from one even time to the next, and has no others to choose from.
        """
        return self._firsts() if self.search is not None else []

    def _firsts(self) -> list[Run]:
        """Of the main comparison the first run of each method that does not halve N."""
        first: dict[str, Run] = {}
        for run in self.main():
            if not methods()[run.method].halves:
                first.setdefault(run.method, run)
        return list(first.values())

    def _values(self, axes: StudentAxes, name: str) -> list[Any]:
        given = getattr(axes, name)
        return [self._default(name)] if given is None else given

    def _product(self, axes: StudentAxes) -> Iterator[Run]:
        for combination in itertools.product(*(self._values(axes, name) for name in RUN_AXES)):
            yield Run(**dict(zip(RUN_AXES, combination, strict=True)))

    def _lines(self, run: Run) -> list[StudentAxes]:
        return [
            axes for axes in self.students if all(value in self._values(axes, n) for n, value in run.axes().items())
        ]

    def snapshots(self, run: Run) -> list[int]:
        """The optimiser steps before its last after which a run's student is kept, ascending."""
        return sorted({s for axes in self._lines(run) for s in axes.snapshots if s < run.steps})

    def sets(self, run: Run) -> list[tuple[int, int]]:
        """What is evaluated of a run: (optimiser step, sampling steps), the finished student first, then its snapshots.

        Snapshots are sampled in the smallest of the numbers of sampling steps alone.
        """
        lines = self._lines(run)
        numbers = sorted(
            {k for axes in lines for k in (axes.sampling_steps or self.evaluation.steps)} or set(self.evaluation.steps)
        )
        return [(run.steps, k) for k in numbers] + [(s, numbers[0]) for s in self.snapshots(run)]

    def main(self) -> list[Run]:
        """The runs of the main comparison: their setting is that of `ode` and `train`, or else the first run's."""
        runs = self.runs()
        given = Setting(**{name: self._default(name) for name in SETTING_AXES})
        return [run for run in runs if run.setting == given] or [run for run in runs if run.setting == runs[0].setting]

    def edited(self) -> list[Run]:
        """The runs whose students edit images: where the teacher works on pixels, of the main comparison's methods the first of each.

        Not those that halve N: such a student knows pure noise alone, no image under less of it.
        """
        return [] if TEACHERS[self.teacher.kind].latent else self._firsts()

    def measures_errors(self, run: Run) -> bool:
        """Whether some line asks for this run's error by start time."""
        return any(axes.errors for axes in self._lines(run))

    def _default(self, axis: str) -> Any:
        return getattr(self.ode if axis in ODE_AXES else self.train, axis)

    def metric_names(self) -> list[str]:
        """The metrics that this run's data allow: those that need labels only where the data set has them."""
        return [m for m in self.metrics if not METRICS[m].needs_labels or self.data.labelled]

    def floor_metrics(self) -> list[str]:
        """Those of the teacher under another noise: samples of two noises have no error sample by sample."""
        return [m for m in self.metric_names() if not METRICS[m].same_noise]

    def extractor_names(self) -> list[str]:
        """The extractors that the metrics need, in the registry's order."""
        needed = {METRICS[m].extractor for m in self.metric_names()}
        return [name for name in EXTRACTORS if name in needed]
