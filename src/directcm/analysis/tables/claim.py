"""Claims as data: what workflow/claims.yaml says, and what a grid has to compare for them.

A claim is one or more tests that must all succeed. It is about one setting, about a contrast over an axis (its mean, a trend), or about every
or some of a set of settings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from directcm.analysis.data.compare import ALONG, METHOD, Across, across
from directcm.analysis.data.compare import SAMPLING as MORE
from directcm.analysis.data.contrasts import FROM, MEAN, OVER, SAMPLING, STEP, TIME, Contrast, plan
from directcm.analysis.page import plain
from directcm.config import ODE_AXES, SETTING_AXES, Config, Run, Setting, read_yaml, spell
from directcm.config.specs import DISTANCES, METHODS, METRICS, SOLVERS
from directcm.errors import UserError

CM, DIRECT = METHODS["cm"], METHODS["direct_cm"]
NAMES = {label: name for name, label in METHODS.items()}
AXES = (*SETTING_AXES, STEP, SAMPLING)
# `what` of a line of comparisons.csv whose units are teachers, each with a student or more of either method, in place of seeds.
TEACHERS = "teachers"
PRIMARY = "primary"
# References that each student has of its own ODE.
OF_THE_TEACHER = ("teacher", "other_noise")


# Any values of a setting, to check others beside.
_ANY = Setting(
    solver="ddim", N=1, w=1, adapter="full", loss="mse", lr=1e-4, batch_size=1, pool=1, steps=1
).axes()  # fmt: skip


def _known(kind: str, value: Any, names: Iterable[str], where: str = "") -> None:
    """ValueError where a value is none of these names."""
    if value not in (names := list(names)):
        raise ValueError(f"{where}unknown {kind} {plain(str(value))[:40]!r}; there are {', '.join(names)}")


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Trend(_Block):
    """Over which axis something changes: the slope over its logarithm (per doubling) or itself, or of two values the second less the first.

    `lead`: of two methods, whether the lead of the better one grows or shrinks.
    """

    axis: str
    scale: Literal["log", "linear"] | None = None
    values: list[str | int | float] | None = Field(None, min_length=2, max_length=2)
    lead: Literal["grows", "shrinks"] | None = None

    @model_validator(mode="after")
    def _check(self) -> Trend:
        _known("axis", self.axis, OVER)
        if (self.scale is None) == (self.values is None):
            raise ValueError("a trend has either scale, log or linear, or two values")
        if self.scale is not None and self.axis in ("solver", "loss"):
            raise ValueError(f"{self.axis} is no number and has no scale; give two of its values")
        if self.values is not None and self.axis not in SETTING_AXES:
            raise ValueError(f"{self.axis} has a scale, log or linear, and no values")
        if self.values is not None and spell(self.values[0]) == spell(self.values[1]):
            raise ValueError("values are two of the axis")
        return self


class Test(_Block):
    """One test: a metric against a reference, and either the better method, or two that are equal within a margin, or a method whose metric
    falls or rises, or a method and an axis whose better value is better than another, all else equal.

    `than` may be left out where the better one is CM or Direct CM: it is the other. `mean`: averaged over the values of an axis. `trend`: it
    is about how it changes over one. `margin`: in the metric's unit, or "5 %" of the second method's mean.
    """

    __test__ = False  # not pytest's

    metric: list[str] = Field(min_length=1)
    reference: Literal["teacher", "other_noise", "data", "prompt", "none"]
    better: str | int | float | None = None
    than: str | int | float | None = None
    equal: list[str] | None = Field(None, min_length=2, max_length=2)
    margin: str | int | float | None = None
    method: str | None = None
    axis: str | None = None
    direction: Literal["falls", "rises"] | None = None
    along: Literal["training", "sampling_steps"] = "training"
    mean: str | None = None
    trend: Trend | None = None

    @field_validator("metric", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Test:
        for name in self.metric:
            _known("metric", name, METRICS)
            if self.reference not in METRICS[name].references:
                allowed = ", ".join(METRICS[name].references)
                raise ValueError(f"{name} has no reference {self.reference!r}; it has {allowed}")
        self._check_margin()
        self._check_contrast()
        if self.axis is not None:
            return self._check_axis(self.axis)
        kinds = (self.better is not None, self.method is not None, self.equal is not None)
        if sum(kinds) != 1 or (self.method is None) != (self.direction is None):
            raise ValueError(
                "a test has either better, or equal and margin, or method and direction, or method, axis, better and than"
            )
        for label in (self.better, self.than, self.method, *(self.equal or ())):
            if label is not None:
                _known("method", label, METHODS.values())
        if self.better is not None and self.than is None and self.better not in (CM, DIRECT):
            raise ValueError(f"better: {self.better} needs than, the method that it is compared with")
        if self.than is not None and (self.better is None or self.than == self.better):
            raise ValueError("than goes with better, and is another method")
        if self.equal is not None and self.equal[0] == self.equal[1]:
            raise ValueError("equal: names one method twice")
        return self

    def _check_margin(self) -> None:
        if (self.equal is None) != (self.margin is None):
            raise ValueError("equal and margin go together: no difference is shown without a margin")
        if self.margin is None:
            return
        if self.share is None and len(self.metric) > 1:
            raise ValueError('a margin in a metric\'s unit is of one metric; give "5 %" or the like for several')
        if self.share is not None:
            unbounded = [name for name in self.metric if METRICS[name].bounds[0] != 0]
            if unbounded:
                raise ValueError(f"margin: {unbounded[0]} has no zero to be a share of; give it in the metric's unit")
            if self.trend is not None:
                raise ValueError("margin: of a trend it is in the metric's unit")

    @property
    def share(self) -> float | None:
        """The margin as a share of the second method's mean; None where it is in the metric's unit. ValueError unless it is above 0."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", self.margin) if isinstance(self.margin, str) else None
        number = float(found[1]) / 100 if found else self.margin
        if isinstance(number, bool | str | None) or not 0 < number < math.inf:
            raise ValueError(
                f'margin: {plain(str(self.margin))[:40]!r} is neither a number above 0 nor "5 %" or the like'
            )
        return float(number) if found else None

    def _check_contrast(self) -> None:
        """That `mean` and `trend` stand with what can be averaged or has a slope, and that the metric has values by prompt."""
        if self.mean is None and self.trend is None:
            return
        if self.mean is not None:
            _known("axis", self.mean, OVER)
        if (self.mean is not None and self.trend is not None) or self.axis is not None or self.along != "training":
            raise ValueError("a test has one of mean, trend, axis and along")
        if self.mean is not None and self.method is not None:
            raise ValueError("mean goes with better or equal: of one method it is compared with nothing")
        if self.trend is not None and (self.trend.lead is None) == (self.better is not None):
            raise ValueError("trend.lead, grows or shrinks, goes with better; of one method direction says it")
        over = self.mean if self.trend is None else self.trend.axis
        if over == TIME and (self.metric != ["ode_error"] or self.reference != "teacher"):
            raise ValueError(f"over {TIME} there is ode_error against the teacher alone")
        for name in self.metric:
            if not METRICS[name].per_sample and METRICS[name].test != "frechet":
                raise ValueError(
                    f"{name}: mean and trend are of metrics with a value for each prompt, and of Fréchet distances"
                )
        if self.method is not None and over in ODE_AXES and self.reference in OF_THE_TEACHER:
            raise ValueError(
                f"values of {over} are ODEs of their own, and each student is measured against its own: choose another reference"
            )

    def _check_axis(self, axis: str) -> Test:
        _known("axis", axis, SETTING_AXES)
        if None in (self.method, self.better, self.than) or self.direction is not None:
            raise ValueError("a test with axis has method, better and than, and no direction")
        _known("method", self.method, METHODS.values())
        values: dict[str, Iterable[str]] = {"solver": SOLVERS, "loss": DISTANCES}
        for value in (self.better, self.than) if axis in values else ():
            _known(axis, value, values[axis])
        if spell(self.better) == spell(self.than):
            raise ValueError("better and than are two values of the axis")
        if axis in ODE_AXES and self.reference in OF_THE_TEACHER:
            raise ValueError(
                f"two values of {axis} are two ODEs, and each student is measured against its own: choose another reference"
            )
        return self

    @property
    def over(self) -> tuple[str, str, tuple[str, ...]] | None:
        """Of a contrast: how it is taken, its axis, and two values of it; None where it is none."""
        if self.mean is not None:
            return MEAN, self.mean, ()
        if self.trend is None:
            return None
        values = tuple(spell(value) for value in self.trend.values or ())
        return self.trend.scale or FROM, self.trend.axis, values

    @property
    def what(self) -> str:
        """Which lines of comparisons.csv it reads."""
        if self.over is not None:
            how, axis, values = self.over
            return "~".join([how, axis, *values])
        if self.axis is not None:
            return across(self.axis, self.than)
        if self.method is None:
            return METHOD
        return ALONG if self.along == "training" else MORE

    @property
    def pair(self) -> tuple[str, str]:
        """The lines' a and b: two methods in their own order, or one twice."""
        if self.method is not None:
            return self.method, self.method
        other = self.than or (DIRECT if self.better == CM else CM)
        both = self.equal or (self.better, other)
        first, second = (label for label in METHODS.values() if label in both)
        return first, second

    @property
    def turned(self) -> bool:
        """Whether comparisons.csv has the two methods the other way round: `better` is its b."""
        return self.axis is None and self.better is not None and self.better != self.pair[0]

    def sign(self, metric: str) -> int:
        """The sign that the claim gives to its difference: `better` − the other, later − earlier, more steps − fewest; 0 for equal."""
        if self.equal is not None:
            return 0
        if self.direction is not None:
            return -1 if self.direction == "falls" else 1
        shrinks = self.trend is not None and self.trend.lead == "shrinks"
        return -1 if (METRICS[metric].better == "lower") != shrinks else 1

    def within(self, mean_b: float) -> float | None:
        """The margin in the metric's unit, where the second method's mean is this."""
        if self.margin is None:
            return None
        return float(self.margin) if self.share is None else self.share * abs(mean_b)


class Claim(_Block):
    """One claim; the fields are explained in workflow/claims.yaml."""

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=40)
    says: str
    source: Literal["paper", "ours", "others"]
    where: str = ""
    tests: list[Test] = Field(min_length=1, max_length=4)
    family: Literal["primary", "secondary"] = "secondary"
    unit: Literal["seed", "teacher"] = "seed"
    at: dict[str, str | int | float] = {}
    over: list[str] = []
    also: list[str] = []
    quantifier: Literal["every", "some"] = "every"

    @field_validator("says", "where")
    @classmethod
    def _text(cls, value: str) -> str:
        return plain(value)

    @model_validator(mode="after")
    def _check(self) -> Claim:
        if not 1 <= len(self.says) <= 300:
            raise ValueError(f"says has {len(self.says)} characters, expected one sentence of 1 to 300")
        axes = [*self.over, *self.also]
        for axis in axes:
            _known("axis", axis, AXES, "over and also: ")
        if len(set(axes)) != len(axes):
            raise ValueError("over and also name an axis twice")
        for axis in self.at:
            _known("axis", axis, (*SETTING_AXES, SAMPLING), "at: ")
        if again := [axis for axis in (*axes, *(axis for _, axis, _ in self.contrasted)) if axis in self.at]:
            raise ValueError(f"at: {again[0]} is varied; a claim fixes it or varies it")
        try:
            Setting.of({**_ANY, **self.at}, "at")
        except UserError as error:
            raise ValueError(str(error)) from None
        steps = self.at.get(SAMPLING, 1)
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(f"at: {SAMPLING} is a whole number above 0")
        if self.contrasted and axes:
            raise ValueError("over and also: a mean or a trend says over which axis it is; leave them out")
        if self.unit == "teacher" and (self.contrasted or self.tests[0].what != METHOD or axes or self.at):
            raise ValueError("unit: teachers are compared in the main setting, by better or equal, alone")
        if len({test.what for test in self.tests}) > 1:
            raise ValueError(
                "tests are of one kind: all with better, or all with method and direction along the same, or over one axis alike"
            )
        if len({test.pair for test in self.tests}) > 1:
            raise ValueError("tests are of one pair of methods, or along training and sampling steps of one method")
        if len({(test.axis, test.better) for test in self.tests if test.axis}) > 1:
            raise ValueError("tests of two values of an axis are all of the same two")
        if self.axis in axes or (self.axis is not None and STEP in axes):
            raise ValueError(
                f"over and also: {self.axis} is what the tests compare, and finished students alone are compared in it"
            )
        return self

    @property
    def what(self) -> str:
        """Which lines of comparisons.csv it reads."""
        return TEACHERS if self.unit == "teacher" else self.tests[0].what

    @property
    def contrasted(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """How, over which axis and between which values its tests are contrasts; none where they are none."""
        return [test.over for test in self.tests if test.over is not None]

    @property
    def pair(self) -> tuple[str, str]:
        """The methods that it is about, twice the same where it is about one."""
        return self.tests[0].pair

    @property
    def axis(self) -> str | None:
        """The axis two values of which it compares."""
        return self.tests[0].axis

    @property
    def other(self) -> Across | None:
        """(method, axis, value) of the setting that the claim's own is compared with."""
        if self.axis is None:
            return None
        return NAMES[self.pair[0]], self.axis, self.what.removeprefix(f"{self.axis}~")

    @property
    def free(self) -> set[str]:
        """The axes in which its settings may differ from the main one."""
        return {*self.over, *self.also}


def about(claims: Sequence[Claim], config: Config) -> list[Claim]:
    """The claims that a grid is about: of the other papers' those alone whose methods, and values of an axis, it has."""
    there = {METHODS[run.method] for run in config.runs()}
    chosen = [claim for claim in claims if claim.source != "others" or set(claim.pair) <= there]
    return [claim for claim in chosen if claim.source != "others" or _there(claim, config)]


def _there(claim: Claim, config: Config) -> bool:
    """Whether a grid has the values of an axis that a claim compares, or goes over."""
    if claim.contrasted:
        return all(plan(contrast, config) is not None for contrast in contrasts_of(claim, config))
    return claim.axis is None or bool(twins(claim, config))


@dataclass(frozen=True)
class Compared:
    """What `compare` has to compare for a grid's claims, by methods' names.

    pairs      "first:second" of the pairs of methods
    along      the methods along their training
    stepwise   the methods in more sampling steps
    claimed    "metric:reference" of what is not about the paper's two methods
    """

    pairs: tuple[str, ...]
    along: tuple[str, ...]
    stepwise: tuple[str, ...]
    claimed: tuple[str, ...]


def evaluated(test: Test, config: Config) -> str | None:
    """The first of a test's metrics that a run evaluates."""
    return next((metric for metric in test.metric if metric in config.metric_names()), None)


def compared(claims: Sequence[Claim], config: Config) -> Compared:
    """What a grid's claims need compared within a setting."""
    own = about(claims, config)

    def methods(what: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(NAMES[claim.pair[0]] for claim in own if claim.what == what))

    pairs = [":".join(NAMES[label] for label in claim.pair) for claim in own if claim.what == METHOD]
    others = [claim for claim in own if claim.what in (METHOD, MORE) or claim.axis is not None]
    others = [claim for claim in others if (claim.what, claim.pair) != (METHOD, (CM, DIRECT))]
    tests = [(evaluated(test, config), test.reference) for claim in others for test in claim.tests]
    claimed = [f"{metric}:{reference}" for metric, reference in tests if metric is not None]
    return Compared(tuple(dict.fromkeys(pairs)), methods(ALONG), methods(MORE), tuple(dict.fromkeys(claimed)))


def contrasts_of(claim: Claim, config: Config) -> list[Contrast]:
    """What a claim's tests need of `contrasts`, whether or not the grid has it; nothing of a metric that is not evaluated."""
    first, second = (NAMES[label] for label in claim.pair)
    at = tuple((axis, spell(value)) for axis, value in claim.at.items())
    out = []
    for test in claim.tests:
        metric = evaluated(test, config)
        if test.over is not None and metric is not None:
            how, axis, values = test.over
            alone = None if first == second else second
            out.append(Contrast(first, alone, how, axis, values, metric, test.reference, at))
    return out


def contrasted(claims: Sequence[Claim], config: Config) -> list[Contrast]:
    """The contrasts that a grid's claims are about and its runs allow, each once."""
    found = dict.fromkeys(c for claim in about(claims, config) for c in contrasts_of(claim, config))
    return [contrast for contrast in found if plan(contrast, config) is not None]


def twins(claim: Claim, config: Config) -> list[tuple[Run, Run]]:
    """The grid's pairs of runs that differ in the claim's axis alone: with the better value, and with the other."""
    assert claim.axis is not None
    better, than = spell(claim.tests[0].better), spell(claim.tests[0].than)
    runs = [run for run in config.runs() if METHODS[run.method] == claim.pair[0]]
    seconds = {run.but(claim.axis): run for run in runs if run.spelled[claim.axis] == than}
    firsts = [(run, run.but(claim.axis)) for run in runs if run.spelled[claim.axis] == better]
    return [(run, seconds[rest]) for run, rest in firsts if rest in seconds]


def beside(claims: Sequence[Claim], config: Config) -> list[tuple[Run, Run, Across]]:
    """What a grid's claims need compared across settings: each a run, the one of another setting, and which that is."""
    own = [claim for claim in about(claims, config) if claim.axis is not None]
    return [(*pair, claim.other) for claim in own if claim.other is not None for pair in twins(claim, config)]


def _problem(error: ValidationError) -> str:
    """The first problem of a claim, in words."""
    first = error.errors(include_url=False)[0]
    key = plain(".".join(str(part) for part in first["loc"]))[:80]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{key}: unknown key; a claim has {', '.join(Claim.model_fields)}, a test {', '.join(Test.model_fields)}"
    if first["type"] not in ("value_error", "missing"):
        message = f"is {plain(str(first['input']))[:60]!r}: {message[0].lower()}{message[1:]}"
    return f"{key + ': ' if key else ''}{plain(message)}"


def read_claims(path: str | Path) -> list[Claim]:
    """The claims of a YAML file; the first mistake becomes a UserError of one line that names the claim."""
    content = read_yaml(path)
    items = content.get("claims")
    if set(content) != {"claims"} or not isinstance(items, list) or not items:
        raise UserError(f"{path}: expected the one key claims, with a list of claims")
    out: list[Claim] = []
    for place, item in enumerate(items, 1):
        if not isinstance(item, dict):
            raise UserError(f"{path}: claim {place}: expected keys and values, found a {type(item).__name__}")
        name = item.get("id")
        where = f"claim {plain(name)[:40]!r}" if isinstance(name, str) else f"claim {place}"
        try:
            claim = Claim.model_validate(item)
        except ValidationError as error:
            raise UserError(f"{path}: {where}: {_problem(error)}") from None
        if any(claim.id == other.id for other in out):
            raise UserError(f"{path}: {where}: the id is there twice; give each claim its own")
        out.append(claim)
    return out
