"""The whole configuration: its blocks, what they ask of each other, and the grid of runs that they make."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from directcm.config.base import SCALINGS, Block, Count, Positive, newer
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
    FixedPoints,
    Search,
    Statistics,
)
from directcm.config.registry import methods, require
from directcm.config.runs import ODE_AXES, RUN_AXES, SETTING_AXES, TEACHER_SEED, VARIED, OdeBlock, Run, Setting
from directcm.config.specs import DATA_SETS, DISTANCES, EXTRACTORS, METHODS, METRICS, TEACHERS, Metric
from directcm.config.students import StudentAxes, Targets, Train, paper_grid
from directcm.config.teacher import Encode, Process, Teacher
from directcm.config.variants import PLAIN, Variant, grid_index

# Of one plan: students, and jobs of one ODE.
MOST_JOBS, MOST_SHARDS = 20_000, 2_000
# What a line of `students` lists values of.
LISTED = (*RUN_AXES, TEACHER_SEED, *VARIED)


def _with_k() -> list[str]:
    return [name for name, method in methods().items() if method.states]


def once(key: str, numbers: Sequence[int]) -> None:
    """ValueError where a list names a number twice."""
    require(len(set(numbers)) == len(numbers), f"{key} names a number twice")


def _check_levels(key: str, channels: Sequence[int], side: int, of: str) -> None:
    """Each resolution of a network after the first halves the side."""
    whole = side % 2 ** (len(channels) - 1) == 0
    require(whole, f"{key} has {len(channels)} resolutions, too many for {of}")


def _check_patch(key: str, patch: int, side: int) -> None:
    require(side % patch == 0, f"{key} = {patch} does not divide data.resolution = {side}")


class Config(Block):
    """A whole run."""

    preset: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")] = Field(
        "embedded", description="name of the results folder"
    )
    seed: Count = Field(24, description="seed of everything but the students' training")
    compile: bool | Literal["auto"] = newer(
        "auto", description="have torch compile the blocks that a network repeats; auto: on a GPU"
    )
    deterministic: bool | Literal["auto"] = newer(
        "auto", description="the same bytes every time; auto: on a CPU, for on a GPU a step takes a tenth longer"
    )
    image_threads: Positive = newer(
        1,
        description="CPU threads of a job that reads or writes images; beside a GPU 8 to 16, on a CPU they are its torch's too",
    )
    data: Data = Data()
    process: Process = Process()
    teacher: Teacher = Teacher()
    encode: Encode = Encode()
    ode: OdeBlock = OdeBlock()
    targets: Targets = Targets()
    train: Train = Train()
    methods: dict[str, dict[str, Annotated[float, Field(strict=True)]]] = newer(
        {},
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
    further_metrics: list[str] = newer(
        [
            *("fd_lite0", "kid_lite0", "mmd_lite0", "precision_lite0", "recall_lite0", "is_lite0"),
            *("fd_pixels16", "kid_pixels16", "fd_other_tiny"),
        ],
        description="what `snakemake paper` alone measures besides, of the main comparison in its fewest sampling steps: metrics on "
        "networks that take a CPU minutes; of these what data and extractors allow; [] for none",
    )
    extractors: Extractors = Extractors()
    errors: Errors = Errors()
    search: Search | None = newer(
        None,
        description="search sampling times too: a block of steps, samples, metric and reference; null: even times alone",
    )
    statistics: Statistics = Statistics()
    editing: Editing = newer(Editing())
    figures: Figures = Figures()
    convergence: Convergence | None = newer(
        None, description="null: not measured; a preset that wants it names at least one of its keys"
    )
    fixed_points: FixedPoints | None = newer(
        None, description="null: not computed; a preset that wants them names at least one of its keys"
    )

    @model_validator(mode="after")
    def _check(self) -> Config:
        """What the blocks ask of each other. Each message names the keys, and what would be right."""
        self._check_size()
        require(
            bool(self.runs()),
            "students: no line has teacher_seed 0, the teacher of tables and figures, with k, density, weight and labels at their defaults; add one",
        )
        self._check_grid()
        self._check_metrics()
        self._check_data()
        self._check_teacher()
        self._check_methods()
        self._check_variants()
        self._check_search()
        return self

    def _check_grid(self) -> None:
        """What sizes ask of each other: intervals, shards, batches, sampling steps."""
        self._check_intervals("ode.N", self.ode.N)
        times, refined = self.errors.times, self.errors.refined.N
        for axes in self.students:
            for n in axes.N or []:
                self._check_intervals("students: N", n)
            for n in [refined, *(axes.N or [self.ode.N])] if axes.errors else []:
                require(n % times == 0, f"errors.times = {times} does not divide N = {n} of a line with errors")
        for key, size, limit_key, limit in (
            ("targets.batch_size", self.targets.batch_size, "targets.block", self.targets.block),
            ("evaluation.batch_size", self.evaluation.batch_size, "evaluation.samples", self.evaluation.samples),
        ):
            require(size <= limit, f"{key} = {size} is larger than {limit_key} = {limit}")
        for key, sized in (("targets", self.targets), ("errors", self.errors)):
            whole = sized.shard % sized.block == 0
            require(whole, f"{key}.block = {sized.block} does not divide {key}.shard = {sized.shard}")
        self._check_intervals("errors.refined.N", refined)
        for run in self.grid():
            fits = run.batch_size <= run.pool
            require(fits, f"students: batch_size = {run.batch_size} is larger than pool = {run.pool}")
            for _, steps in self.sets(run):
                require(steps <= run.N, f"sampling steps: {steps} are more than the grid's N = {run.N}")
        once("evaluation.steps", self.evaluation.steps)
        for axes in self.students:
            once("students: sampling_steps", axes.sampling_steps or [])
        for axes in self.students:
            once("students: snapshots", axes.snapshots)

    def _check_intervals(self, key: str, n: int) -> None:
        total = self.process.timesteps
        require(self.process.divides(n), f"{key} = {n} does not divide process.timesteps = {total}")

    def _check_metrics(self) -> None:
        """What metrics ask of extractors and data."""
        tiny = self.extractors.clip_tiny
        for key, given in (("metrics", self.metrics), ("further_metrics", self.further_metrics)):
            require(len(set(given)) == len(given), f"{key} names one twice")
            for name in given:
                require(name in METRICS, f"{key}: unknown metric {name!r}; there are {', '.join(METRICS)}")
                there = METRICS[name].extractor != "clip_tiny" or tiny is not None
                require(there or key != "metrics", f"{key}: {name} needs extractors.clip_tiny, which is null")
        labelled = " or ".join(name for name, spec in DATA_SETS.items() if spec.labels)
        names = ", ".join(self.metrics)
        require(self.metric_names(), f"metrics: {names} need labelled images (data.kind {labelled}); name others too")

    def _check_data(self) -> None:
        """What the data's number and resolution ask of the others."""
        about, side = DATA_SETS[self.data.kind], self.data.resolution
        small = about.largest is None or side <= about.largest
        require(small, f"data.resolution: {about.name} come at 8, 16, 24 … {about.largest} pixels")
        if about.images is not None:
            whole, groups = embedded_images(self.data.kind, side)
            held_out = min(max(round(groups * self.data.held_out), 1), groups - 1)
            images, samples = whole - held_out * (whole // groups), self.evaluation.samples
            require(
                samples <= images,
                f"evaluation.samples = {samples} is more than the {images} training images that are the data reference",
            )

    def _check_size(self) -> None:
        """Whether the plan is one that can be made: thousands of jobs take Snakemake minutes, millions for ever."""
        students = sum(math.prod(len(self._values(axes, name)) for name in LISTED) for axes in self.students)
        require(
            students <= MOST_JOBS,
            f"students: {students:,} students, more than the {MOST_JOBS:,} of one plan; shorten the lists",
        )
        pool = max(pool for axes in self.students for pool in self._values(axes, "pool"))
        starts = self.errors.times * self.errors.points
        for key, what, items, shard in (
            ("targets.shard", "pool", pool, self.targets.shard),
            ("errors.shard", "errors.times · errors.points", starts, self.errors.shard),
        ):
            shards = -(-items // shard)
            require(
                shards <= MOST_SHARDS,
                f"{what} = {items:,} at {key} = {shard:,} makes {shards:,} jobs, more than {MOST_SHARDS:,}; raise {key}, or lower it",
            )
        samples, least = self.evaluation.samples, self.least()
        require(samples >= least, f"evaluation.samples = {samples} is too few: {self.why_least()} at least {least}")

    def least(self) -> int:
        """How many images on either side the metrics need."""
        return max((metric.least for metric in self._against_data()), default=1)

    def why_least(self) -> str:
        """Which metrics need the most images, as the beginning of a sentence."""
        names = [metric.name for metric in self._against_data() if metric.least >= self.least()]
        return f"{', '.join(names[:4])}{' …' if len(names) > 4 else ''} need{'s' if len(names) == 1 else ''}"

    def _against_data(self) -> list[Metric]:
        return [METRICS[m] for m in self.metrics if m in METRICS and "data" in METRICS[m].references]

    def _check_teacher(self) -> None:
        """What a kind of teacher, and what else knows the images' side, ask of process, data and students."""
        kind, side = TEACHERS[self.teacher.kind], self.data.resolution
        require(
            self.process.kind in kind.processes,
            f"process.kind is {self.process.kind}, but teacher.kind {kind.name} needs {' or '.join(kind.processes)}",
        )
        others = ", ".join(d.name for d in DISTANCES.values() if not d.images)
        for loss in {run.loss for run in self.grid()}:
            require(
                not (kind.latent and DISTANCES[loss].images),
                f"loss {loss} compares images, but what teacher.kind {kind.name} diffuses are latents; use {others}, "
                "or a teacher on pixels",
            )
        if kind.name == "micro_sdxl":
            vae, unet = self.teacher.micro_sdxl.vae, self.teacher.micro_sdxl.unet
            _check_levels("teacher.micro_sdxl.vae.channels", vae.channels, side, f"data.resolution = {side}")
            latent = side // vae.factor
            _check_levels("teacher.micro_sdxl.unet.channels", unet.channels, latent, f"{latent}×{latent} latents")
        if not kind.latent:
            pixels = self.teacher.pixel_unet
            channels = pixels.channels if pixels else (1,)
            _check_levels(f"teacher.{kind.name}: channels", channels, side, f"data.resolution = {side}")
            _check_patch("editing.patch", self.editing.patch, side)
        if kind.name == "dit":
            _check_patch("teacher.dit.transformer.patch", self.teacher.dit.transformer.patch, side)
        if not kind.latent and not self.teacher.told_classes:
            for w in {run.w for run in self.grid()}:
                unguided = (
                    f"teacher.{kind.name}.conditional is false: there is nothing to guide by, so w is 1, not {w:g}"
                )
                require(w == 1, unguided)
        tiny = self.extractors.clip_tiny
        if tiny is not None and any(METRICS[m].extractor == "clip_tiny" for m in self.metrics):
            _check_patch("extractors.clip_tiny.patch", tiny.patch, side)

    def _check_methods(self) -> None:
        """What methods ask of process and grid, and that their settings are theirs."""
        for name, given in self.methods.items():
            require(name in methods(), f"methods: unknown method {name!r}; there are {', '.join(methods())}")
            # Some of these would fail, or mean nothing, after the teacher has been trained.
            wrong = methods()[name].refused(given)
            require(wrong is None, f"distill.methods.{name}: {wrong}")
        for run in self.grid():
            method = methods()[run.method]
            needed, given_kind = " or ".join(method.processes), self.process.kind
            require(
                given_kind in method.processes,
                f"students: method {run.method} needs process.kind {needed}, it is {given_kind}",
            )
            self._check_varied(run)
            if method.halves:
                require(
                    run.N > 1 and run.N.bit_count() == 1,
                    f"students: method {run.method} halves N until it is 1, but N = {run.N} is not 2, 4, 8 …",
                )
                for _, k in self.sets(run):
                    require(
                        k.bit_count() == 1 and k < run.N,
                        f"students: method {run.method} halves N = {run.N}, so that its sampling_steps are powers of 2 below it, not {k}",
                    )

    def _check_varied(self, run: Run) -> None:
        """What k, density, weight and labels ask of a method and of the grid."""
        method, start = methods()[run.method], f"students: {run.method}"
        require(run.k == 1 or method.states, f"{start} has no k; {', '.join(_with_k())} has")
        require(run.k <= run.N, f"{start}: k = {run.k} is more than the grid's N = {run.N}")
        # What halves N, or learns in continuous time, draws its times itself.
        noised = method.pool and method.targets in ("", "forward") and not (method.tangent or method.halves)
        for name in ("density", "weight"):
            drawn = f"{start} has start times of its own, and no {name}; leave it at {VARIED[name]}"
            require(name not in run.varied or noised, drawn)
        if method.tangent:
            curved = (
                f"students: method {run.method} needs a distance with a second derivative, and l1 has none; use mse"
            )
            require(run.loss != "l1", curved)
        teaching = run.labelled_by
        if teaching is None:
            return
        learns = method.targets == "forward" and not method.teacher and not method.states
        require(learns, f"{start} does not learn from endpoints alone, and has no labels but ode")
        require(
            teaching in self._grid,
            f"students: labels {run.labels} of seed {run.seed} are those of the student {teaching.key}; add it to the grid",
        )

    def _check_variants(self) -> None:
        """What starts, scalings and relays ask of grid, methods and evaluation."""
        for axes in self.students:
            for key in ("starts", "scalings", "relays", "relay_at"):
                given = getattr(axes, key)
                require(len(set(given)) == len(given), f"students: {key} names one twice")
        channels, side = self.latent()
        samples, components = self.evaluation.samples, channels * side**2
        for run in self.grid():
            for variant in self.variants(run):
                where = f"students: {run.method}"
                halves = [name for name in (run.method, variant.relay) if name and methods()[name].halves]
                require(
                    not halves,
                    f"students: {', '.join(halves[:1])} halves N, and knows the times of its own steps alone; leave starts, scalings and relays away",
                )
                for key, share in (("starts", variant.start), ("relay_at", variant.at)):
                    try:
                        grid_index(share, run.N)
                    except ValueError as error:
                        raise ValueError(f"students: {key}: {error}") from None
                require(
                    variant.scaling != "affine" or samples > components,
                    f"students: scaling affine needs more samples than latents have components: evaluation.samples = {samples} is not above {components}",
                )
                if variant.relay:
                    other = self.relayed(run, variant)
                    require(
                        other in self._grid,
                        f"{where}: the second step of relay {variant.relay} is the student {other.key}'s; add it to the grid",
                    )

    def hparams(self, name: str) -> dict[str, float]:
        """A method's hyperparameters: its defaults with those of `methods`; whole numbers stay integers."""
        hparams = {**methods()[name].hparams, **self.methods.get(name, {})}
        return {
            k: int(v) if v == int(v) and isinstance(methods()[name].hparams[k], int) else v for k, v in hparams.items()
        }

    def _check_search(self) -> None:
        """What a search of sampling times asks of grid, metrics and evaluation."""
        search, most = self.search, self.evaluation.samples
        if search is None:
            return
        once("search.steps", search.steps)
        for run in self.searched():
            require(
                max(search.steps) <= run.N, f"search.steps: {max(search.steps)} are more than the grid's N = {run.N}"
            )
        require(
            search.samples <= most,
            f"search.samples = {search.samples} is more than evaluation.samples = {most}, the reference's",
        )
        there = [m for m in self.metric_names() if m in SOUGHT]
        require(
            search.metric is not None or not set(FRECHET).isdisjoint(there),
            f"search.metric is null, and metrics has no Fréchet distance; there are {', '.join(FRECHET)}",
        )
        require(
            search.metric is None or search.metric in there,
            f"search.metric is {search.metric!r}, expected a distance among metrics: {', '.join(there) or 'it has none'}",
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
        products = (itertools.product(*(self._values(axes, name) for name in LISTED)) for axes in self.students)
        values = itertools.chain.from_iterable(products)
        return tuple(dict.fromkeys(Run(**dict(zip(LISTED, one, strict=True))) for one in values))

    def grid(self) -> list[Run]:
        """The grid of students, of every teacher, without repetitions, in the order of `students`."""
        return list(self._grid)

    def runs(self) -> list[Run]:
        """Those of the default teacher with VARIED at their defaults, which tables, figures and claims are about."""
        return [run for run in self._grid if not run.teacher_seed and not run.varied]

    def over_teachers(self) -> list[Run]:
        """Those of other teachers, and before them the default teacher's with the same axes but for the teacher's seed."""
        others = [run for run in self._grid if run.teacher_seed and not run.varied]
        alike = {run.at(teacher_seed=0) for run in others}
        return [*(run for run in self.runs() if run in alike), *others]

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

    def _lines(self, run: Run) -> list[StudentAxes]:
        return [
            axes for axes in self.students if all(getattr(run, name) in self._values(axes, name) for name in LISTED)
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

    def variants(self, run: Run) -> list[Variant]:
        """The sets of a run's finished student that are not plain, each in the fewest sampling steps: one, and two of relays.

        By start and scaling, then by the relays' time and method; raw from pure noise is the plain set, and not among them.
        """
        lines = self._lines(run)
        alone = {(start, scaling) for axes in lines for start in axes.starts for scaling in axes.scalings}
        both = {(at, relay) for axes in lines for relay in axes.relays for at in axes.relay_at}
        return [
            *(
                Variant(run.steps, 1, start=start, scaling=scaling)
                for start, scaling in sorted(alone - {PLAIN}, key=lambda one: (one[0], SCALINGS.index(one[1])))
            ),
            *(
                Variant(run.steps, 2, relay=relay, at=at)
                for at, relay in sorted(both, key=lambda one: (one[0], [*METHODS].index(one[1])))
            ),
        ]

    @staticmethod
    def relayed(run: Run, variant: Variant) -> Run:
        """The student that takes the second step of a run's relay: of the same setting and seed."""
        return run.at(method=variant.relay)

    def _default(self, axis: str) -> Any:
        return getattr(self.ode if axis in ODE_AXES else self.train, axis)

    def metric_names(self) -> list[str]:
        """The metrics that this run's data allow: those that need labels only where the data set has them.

        After those that `metrics` names, the parts of them (`Metric.part_of`).
        """
        return self._with_parts([m for m in self.metrics if not METRICS[m].needs_labels or self.data.labelled])

    def _with_parts(self, named: list[str]) -> list[str]:
        return named + [m for m, spec in METRICS.items() if spec.part_of in named and m not in named]

    def baseline_metrics(self) -> list[str]:
        """Those of the baselines: none of a run without an ODE error, which is what they are for."""
        return [m for m in self.metric_names() if METRICS[m].of_latents] if "ode_error" in self.metrics else []

    def floor_metrics(self, names: Sequence[str] | None = None) -> list[str]:
        """Those of the teacher under another noise, of `names` or all: samples of two noises have no error sample by sample."""
        return [m for m in (self.metric_names() if names is None else names) if not METRICS[m].same_noise]

    def further_names(self) -> list[str]:
        """The metrics that the scope "paper" alone has, those that this run's data and extractors allow and `metrics` has not."""
        tiny, measured = self.extractors.clip_tiny is not None, self.metric_names()
        allowed = [
            m
            for m in self.further_metrics
            if not METRICS[m].needs_labels or self.data.labelled
            if tiny or METRICS[m].extractor != "clip_tiny"
        ]
        return [m for m in self._with_parts(allowed) if m not in measured]

    def extractor_names(self, names: Sequence[str] | None = None) -> list[str]:
        """The extractors that metrics need, `names` or those of `metrics`, in the registry's order."""
        needed = {METRICS[m].extractor for m in (self.metric_names() if names is None else names)}
        return [name for name in EXTRACTORS if name in needed]

    def all_extractors(self) -> list[str]:
        """The extractors that `metrics` or further metrics need."""
        return self.extractor_names([*self.metric_names(), *self.further_names()])
