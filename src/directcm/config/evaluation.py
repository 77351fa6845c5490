"""The blocks of what is measured of students and teacher, and how it is shown."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from directcm.config.base import ONE_SOLVER, Block, Fraction, Positive, Precision, Rate, Solver
from directcm.config.registry import require
from directcm.config.specs import METRICS


class Evaluation(Block):
    """Samples from one shared noise, by teacher and students alike."""

    samples: Annotated[int, Field(ge=2)] = Field(1024, description="initial noises, each with a prompt")
    steps: list[Positive] = Field([1], min_length=1, description="numbers of student steps")
    shards: Positive = Field(
        4, description="jobs the teacher's samples are spread over, at most one a block; does not change a byte"
    )
    block: Positive = Field(256, description="samples made in one go, the unit of resuming")
    batch_size: Positive = Field(64, description="rows of one evaluation")
    precision: Precision = Field("no", description="precision of encoding, solving and sampling: no, fp16 or bf16")

    @property
    def jobs(self) -> int:
        """How many jobs the teacher's samples are spread over."""
        return min(self.shards, -(-self.samples // self.block))


class Refined(Block):
    """The high-accuracy solution that splits a student's error from its solver's."""

    solver: Solver = Field("edm_heun", description=ONE_SOLVER)
    N: Positive = Field(200, description="intervals; on vp it divides process.timesteps")


class Errors(Block):
    """Where the error is: students against their own ODE's endpoints and against a refined solution, by start time."""

    times: Positive = Field(
        10, description="start times, evenly spaced, the first the largest; divides every N they are used with"
    )
    points: Annotated[int, Field(ge=2)] = Field(100, description="start points a time, from held-out images")
    shard: Positive = Field(1000, description="start points a job; does not change a byte")
    block: Positive = Field(500, description="start points solved in one go; divides shard")
    refined: Refined = Refined()


class ClipTiny(Block):
    """The small CLIP that is trained on the run's own captioned images."""

    width: Positive = Field(64, description="transformer width and embedding size")
    layers: Positive = Field(3, description="layers of each tower")
    patch: Positive = Field(4, description="patch side, pixels")
    steps: Positive = Field(400, description="optimiser steps")
    batch_size: Annotated[int, Field(ge=2)] = Field(128, description="pairs a step")
    lr: Rate = Field(1e-3, description="peak learning rate, cosine decay")
    head_steps: Positive = Field(600, description="optimiser steps of the quality head")


class Extractors(Block):
    """Feature extractors that are trained here."""

    clip_tiny: ClipTiny | None = ClipTiny()


# What `search` can minimise: distances to teacher and data with a test of their own, the Fréchet ones first.
_SOUGHT = [m for m in METRICS.values() if m.test and {"teacher", "data"} <= set(m.references)]
FRECHET = tuple(m.name for m in _SOUGHT if m.test == "frechet")
SOUGHT = tuple(m.name for test in dict.fromkeys(m.test for m in _SOUGHT) for m in _SOUGHT if m.test == test)


class Search(Block):
    """Sampling times of one student per method of the main setting, found by a greedy ternary search."""

    steps: list[Annotated[int, Field(ge=2, strict=True)]] = Field(
        [2, 4],
        min_length=1,
        description="numbers of student steps whose times are searched; the first is always pure noise",
    )
    samples: Annotated[int, Field(ge=2, strict=True)] = Field(
        512, description="samples a probe, of a noise and prompts that are not the evaluation's"
    )
    metric: str | None = Field(
        None, description=f"what is minimised: {', '.join(SOUGHT)}; null: the first Fréchet distance among metrics"
    )
    reference: Literal["data", "teacher"] = Field(
        "data", description="distance to the data's images or to the teacher's samples of the evaluation"
    )


class Statistics(Block):
    """Intervals and tests."""

    bootstrap: Annotated[int, Field(ge=100)] = Field(2000, description="resamples of the paired bootstrap")
    permutations: Annotated[int, Field(ge=99)] = Field(999, description="permutations of the tests of FD, KID and CMMD")
    level: Annotated[float, Field(gt=0, lt=1)] = Field(0.95, description="confidence level of intervals")
    alpha: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.05, description="family-wise error rate of the claims' verdicts, and level of bold type and hatching"
    )


class Editing(Block):
    """Editing without training, where the teacher works on pixels: the finished students of the main comparison, first seeds."""

    images: Positive = Field(64, description="held-out images that are edited, at most")
    steps: Positive = Field(4, description="student steps of an edit")
    patch: Annotated[int, Field(ge=2, strict=True)] = Field(
        4, description="super-resolution knows the means of patches of this side, pixels; divides data.resolution"
    )
    start: Fraction = Field(
        0.5,
        description="SDEdit starts after this share of the grid: 0 is pure noise, 0.9 leaves the strokes nearly as they are",
    )
    levels: list[Rate] = Field(
        [0.5, 2.0],
        min_length=1,
        description="standard deviations of the noise that denoising starts from; the nearest time of the grid is taken",
    )
    points: Annotated[int, Field(ge=3, strict=True)] = Field(
        7, description="points of an interpolation, its ends included"
    )


class Figures(Block):
    """Figures and tables."""

    samples: Positive = Field(10, description="columns of Figure 2, samples from the same noise")
    gallery: Positive = Field(30, description="columns of Figure 5, samples over all prompts; the prompts come first")
    trajectories: Positive = Field(8, description="trajectories of Figure 1, the two supervisions")
    editing: Positive = Field(4, description="images of each edit in the figure on editing, at most")


class Convergence(Block):
    """What theory predicts as N grows, measured on exact teachers of its own: no data, no network."""

    N: list[Positive] = Field(
        [10, 20, 50, 100, 200],
        min_length=3,
        description="numbers of ODE intervals, ascending; multiples of 5 that divide 1000",
    )
    gaps: list[Positive] = Field(
        [20, 50, 100, 200, 500, 1000],
        min_length=3,
        description="the same where CT is compared with CD at a student as it stands",
    )
    fit_from: Positive = Field(20, description="slopes are fitted over these N from here on, 3 or more of them")
    points: Annotated[int, Field(ge=2)] = Field(400, description="points that an error is measured at, per start time")

    @model_validator(mode="after")
    def _check(self) -> Convergence:
        for key, sizes in (("N", self.N), ("gaps", self.gaps)):
            require(sizes == sorted(set(sizes)), f"{key} = {sizes} is not ascending")
            for n in sizes:
                require(n % 5 == 0 and 1000 % n == 0, f"{key}: {n} is not a multiple of 5 that divides 1000")
            fitted = sum(n >= self.fit_from for n in sizes)
            require(fitted >= 3, f"fit_from = {self.fit_from} leaves fewer than 3 of {key} = {sizes}")
        return self


class FixedPoints(Block):
    """Fixed points of k-step targets in classes of random features, on exact mixtures of its own: no data, no network."""

    processes: list[Literal["vp", "karras"]] = Field(
        ["vp", "karras"], min_length=1, description="noise processes: vp is SDXL's discrete one, karras Karras's"
    )
    dimensions: list[Positive] = Field([2, 8], min_length=1, description="dimensions of the mixtures")
    components: Annotated[int, Field(ge=2, strict=True)] = Field(6, description="Gaussians of a mixture")
    spread: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.3, description="a component's standard deviation over that of the whole mixture"
    )
    solver: Solver = Field("ddim", description=ONE_SOLVER)
    N: Positive = Field(50, description="ODE intervals; on vp a divisor of 1000")
    k: list[Positive] = Field(
        [1, 2, 5, 10, 50],
        min_length=2,
        description="steps of the targets, ascending: from 1, which is CM, to N, which is Direct CM",
    )
    classes: list[Literal["shared", "plain", "per_time"]] = Field(
        ["shared", "plain", "per_time"],
        min_length=1,
        description="shared: the denoiser plus features, weights shared over times; plain: features alone; per_time: as shared, with "
        "weights of each time's own",
    )
    features: list[Positive] = Field(
        [8, 16, 32, 64, 128, 256, 512], min_length=1, description="random features m, ascending"
    )
    frequency: Rate = Field(2.0, description="standard deviation of the features' inner weights")
    starts: Literal["data", "trajectory"] = Field(
        "data", description="start points: data, diffused and drawn anew at each time; trajectory, the solver's own"
    )
    points: Annotated[int, Field(ge=8, strict=True)] = Field(
        512, description="start points at each time of the grid, a power of two; per_time has m up to a quarter of it"
    )
    samples: Annotated[int, Field(ge=16, strict=True)] = Field(2048, description="noises that students are measured at")
    directions: Positive = Field(32, description="directions of the sliced distance")
    seeds: Annotated[int, Field(ge=2, strict=True)] = Field(
        10, description="draws of mixture, features, start points and noise, the units of inference"
    )
    flow: list[Positive] = Field(
        [8, 32, 128],
        description="the m of the gradient flow; [] for none; per_time has none",
    )
    decades: Annotated[int, Field(ge=1, le=12, strict=True)] = Field(
        6, description="the flow is followed over so many decades of time"
    )

    def own(self) -> list[int]:
        """The m of the class "per_time": each time's weights have four start points or more each."""
        return [m for m in self.features if 4 * m <= self.points]

    @model_validator(mode="after")
    def _check(self) -> FixedPoints:
        for key, values in (("processes", self.processes), ("dimensions", self.dimensions), ("classes", self.classes)):
            require(len(set(values)) == len(values), f"{key} = {values} names a value twice")
        for key, sizes in (("k", self.k), ("features", self.features), ("flow", self.flow)):
            require(sizes == sorted(set(sizes)), f"{key} = {sizes} is not ascending")
        require(
            self.k[0] == 1 and self.k[-1] == self.N,
            f"k = {self.k} does not begin with 1 and end with N = {self.N}, CM and Direct CM",
        )
        require(
            "vp" not in self.processes or 1000 % self.N == 0, f"N = {self.N} does not divide the 1000 time steps of vp"
        )
        require(self.points & (self.points - 1) == 0, f"points = {self.points} is not a power of two")
        lacking = sorted(set(self.flow) - set(self.features))
        require(not lacking, f"flow: {lacking} are not among features = {self.features}")
        require(
            "per_time" not in self.classes or bool(self.own()),
            f"points = {self.points} is less than four times the smallest of features = {self.features}, which per_time needs",
        )
        return self
