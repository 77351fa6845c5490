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
