"""Experiments as data: what workflow/why.yaml says, and how it is read; what a grid has of them says `places`.

An experiment is a hypothesis with arms, tests and a rule by which the tests decide it. An arm is a student of each unit (a training seed, or a
teacher), at an optimiser step, in so many sampling steps, from a start and with a scaling; or a cell of the fixed points in closed form. A
test is a linear contrast of arms in one metric (`statistics.hypotheses`).
"""

from __future__ import annotations

import itertools
import math
import re
import string
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from directcm.config import VARIED, Run, Setting, read_yaml, spell
from directcm.config.specs import METHODS, METRICS
from directcm.errors import UserError

FILE = "workflow/why.yaml"
LETTERS = "ABCDEF"
SUPPORTED, REFUTED, UNDECIDED, UNTESTABLE = "supported", "refuted", "undecided", "not testable"
# How far a student's samples lie from those of the untrained start: mean squared difference of final latents, by prompt.
DISPLACEMENT = "displacement"
# Metrics of the fixed points (`evaluation/fixed_points.py`), with their titles and which way is better.
CLOSED = {
    "ode_error": ("ODE error", "lower"), "path_error": ("Error over all times", "lower"), "bias": ("Bias²", "lower"),
    "gain": ("Gain", "lower"), "scatter": ("Scatter (1 − ρ²)", "lower"), "correlation": ("Correlation ρ", "higher"),
    "variance_ratio": ("Variance ratio", "neither"), "sw2_teacher": ("Sliced W₂ to the teacher", "lower"),
    "sw2_matched": ("Sliced W₂ at the teacher's mean and variance", "lower"),
    "sw2_mixture": ("Sliced W₂ to the mixture", "lower"), "log_p0": ("log p₀", "higher"),
}  # fmt: skip
TUNED = ("start", "scaling", "relay", "at")
Scalar = str | int | float


def plain(text: object) -> str:
    """Text on one line, without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def require(good: object, otherwise: str) -> None:
    if not good:
        raise ValueError(otherwise)


# ----------------------------------------------------------------- arms


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Arm(_Block):
    """One arm: axes of a run that differ from the main setting, and which of its sets; or a cell of the fixed points.

    `share`: k as a share of N, in place of k. `step`: of the optimiser; the finished student without. `labeller_of`: the student whose outputs
    are the labels of another arm's. `start`: how far down the grid it is sampled from, a share of N; `relay`: the method whose student takes over `at` a share of N.
    `tau`: how long the gradient flow ran; the fixed point without.
    """

    method: str | None = None
    solver: str | None = None
    N: int | None = None
    w: float | None = None
    adapter: str | None = None
    loss: str | None = None
    lr: float | None = None
    batch_size: int | None = None
    pool: int | None = None
    steps: int | None = None
    k: int | None = None
    share: float | None = Field(None, gt=0, le=1)
    density: str | float | None = None
    weight: str | None = None
    labels: str | None = None
    ema: float | None = None
    step: int | None = Field(None, ge=1)
    sampling_steps: int | None = Field(None, ge=1)
    start: float = Field(0.0, ge=0, lt=1)
    scaling: Literal["raw", "mean", "slope", "variance", "affine"] = "raw"
    relay: str | None = None
    at: float | None = Field(None, gt=0, lt=1)
    labeller_of: str | None = None
    process: Literal["vp", "karras"] | None = None
    dimension: int | None = None
    kind: Literal["shared", "plain", "per_time"] | None = None
    m: int | None = None
    tau: float | None = None

    @model_validator(mode="after")
    def _check(self) -> Arm:
        for name in ("method", "relay"):
            value = getattr(self, name)
            require(
                value is None or value in METHODS,
                f"{name}: unknown method {plain(value)[:40]!r}; there are {', '.join(METHODS)}",
            )
        require(
            (self.relay is None) == (self.at is None),
            "relay and at go together: another method's student, and from where on",
        )
        require(self.k is None or self.share is None, "an arm has k or share, not both")
        closed = [name for name in ("process", "dimension", "kind", "m") if getattr(self, name) is not None]
        if closed or self.tau is not None:
            require(len(closed) == 4, "a fixed point has process, dimension, kind, m and k")
            require(self.k is not None and self.method is None, "a fixed point has k, and no method")
        else:
            require(
                (self.method is None) != (self.labeller_of is None),
                "an arm has a method, or labeller_of, or is a fixed point",
            )
        if self.labeller_of is None and self.method is not None:
            try:
                Run.of({**_ANY, **self.varied, "method": self.method, "seed": 0, "k": self.k or 1}, "axes")
            except UserError as error:
                raise ValueError(str(error)) from None
        return self

    @property
    def closed(self) -> bool:
        """Whether it is a fixed point, and no student."""
        return self.process is not None

    @property
    def varied(self) -> dict[str, Any]:
        """Its axes of a setting that are not the main one's, share apart."""
        names = [name for name in Setting.model_fields if name in type(self).model_fields]
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def tuned(self) -> dict[str, Any]:
        """What its set is beside the plain one: start, scaling, relay and at, where not at their defaults."""
        found: dict[str, Any] = {
            "start": self.start or None,
            "scaling": None if self.scaling == "raw" else self.scaling,
        }
        found |= {"relay": self.relay, "at": self.at}
        return {name: value for name, value in found.items() if value is not None}


# Any values of a setting, to check others beside.
_ANY = Setting(
    solver="ddim", N=1, w=1, adapter="full", loss="mse", lr=1e-4, batch_size=1, pool=1, steps=1
).axes()  # fmt: skip


def _expanded(name: str, fields: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A family of arms, one for each combination of its lists, named by {placeholders}; or the one arm that it is."""
    listed = {key: value for key, value in fields.items() if isinstance(value, list)}
    named = {part for _, part, _, _ in string.Formatter().parse(name) if part}
    require(named <= fields.keys(), f"{{{min(named - fields.keys(), default='')}}} in the name is no key of the arm")
    for key, value in fields.items():
        scalars = all(isinstance(one, str | int | float) for one in (value if isinstance(value, list) else [value]))
        require(scalars, f"{key} is {plain(value)[:40]!r}, expected a value or a list of values")
    for key, value in listed.items():
        require(key in named, f"{key} has several values: the arm's name needs {{{key}}}")
        require(value, f"{key} is an empty list")
    for values in itertools.product(*listed.values()):
        one = {**fields, **dict(zip(listed, values, strict=True))}
        yield name.format(**{part: spell(one[part]) for part in named}), one


# ----------------------------------------------------------------- tests


class Adjusted(_Block):
    """What arms with the second value of `factor` have more than those with the first at equal `given`, by analysis of covariance."""

    arms: str
    factor: Literal["adapter", "method"]
    values: tuple[str, str]
    given: Literal["displacement"] = "displacement"

    @model_validator(mode="after")
    def _check(self) -> Adjusted:
        require(self.values[0] != self.values[1], "values are two of the factor")
        return self


class Slope(_Block):
    """The slope of arms per doubling of an axis, or, of two axes, how the slope over the first changes per doubling of the second."""

    arms: str
    over: list[Literal["k", "step", "steps", "N", "m", "adapter", "lr"]] = Field(min_length=1, max_length=2)

    @field_validator("over", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class Test(_Block):
    """One test: a contrast of arms in a metric, and what is claimed of it.

    `metric`: or several, of which the first that a run evaluates is taken. `contrast`: arm, or pattern of arms (* stands for anything), → its
    coefficient, of a pattern shared out among the arms; or `slope`, or `adjusted`. `claim`: lower or higher than 0; better, of which
    a positive coefficient has the better arm; equal, within `margin`; not_lower or not_higher, by more than it: in the metric's unit, or
    "15 % of ARM". `unit`: where not the experiment's. `units`: these alone.
    """

    __test__ = False  # not pytest's

    says: str
    metric: list[str] = Field(min_length=1)
    reference: Literal["teacher", "other_noise", "data", "prompt", "none"] = "teacher"
    contrast: dict[str, float] | None = None
    slope: Slope | None = None
    adjusted: Adjusted | None = None
    claim: Literal["lower", "higher", "better", "equal", "not_lower", "not_higher"]
    margin: str | float | None = None
    unit: Literal["seed", "teacher"] | None = None
    units: list[int] | None = Field(None, min_length=2)

    @field_validator("metric", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Test:
        require(1 <= len(plain(self.says)) <= 200, "says is one sentence of 1 to 200 characters")
        kinds = [self.contrast, self.slope, self.adjusted]
        require(sum(kind is not None for kind in kinds) == 1, "a test has one of contrast, slope and adjusted")
        bounded = self.claim in ("equal", "not_lower", "not_higher")
        require(
            bounded == (self.margin is not None), "margin goes with equal, not_lower and not_higher, and these with it"
        )
        require(self.claim != "better" or self.contrast is not None, "better goes with a contrast")
        for value in (self.contrast or {}).values():
            require(math.isfinite(value) and value != 0, "a coefficient is a number, and not 0")
        self.share  # noqa: B018 — a margin that cannot be read is refused here
        return self

    @property
    def share(self) -> tuple[float, str] | None:
        """(share, pattern of arms) of a margin that is a share of arms' mean; None where it is in the metric's unit."""
        if not isinstance(self.margin, str):
            require(self.margin is None or 0 < self.margin < math.inf, "margin is above 0")
            return None
        found = re.fullmatch(r"(\d+(?:\.\d+)?) ?% of (.+)", self.margin)
        require(found and float(found[1]) > 0, 'margin is a number above 0 or "15 % of ARM"')
        assert found is not None
        return float(found[1]) / 100, found[2]

    @property
    def patterns(self) -> list[str]:
        """The names and patterns of arms that it is about."""
        own = [*(self.contrast or {})]
        own += [one.arms for one in (self.slope, self.adjusted) if one is not None]
        return own + ([self.share[1]] if self.share else [])


# ----------------------------------------------------------------- experiments


class Rule(_Block):
    """Which tests must come out, all of them or any: "name" where it is shown, "not name" where the opposite is; or rules in turn."""

    all: list[str | Rule] | None = Field(None, min_length=1)
    any: list[str | Rule] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Rule:
        require((self.all is None) != (self.any is None), "a rule has all or any")
        return self

    @property
    def parts(self) -> list[str | Rule]:
        return self.all or self.any or []

    @property
    def names(self) -> list[str]:
        """The tests in it."""
        found = [[part.removeprefix("not ")] if isinstance(part, str) else part.names for part in self.parts]
        return list(dict.fromkeys(itertools.chain(*found)))


class Readings(_Block):
    """What follows from each outcome, said before it is known."""

    supported: str
    refuted: str
    undecided: str


class Experiment(_Block):
    """One experiment. `seed`: of the students where teachers are the units. `changed`: what was changed after a look, each with its date."""

    title: str
    says: str
    refuted_by: str
    unit: Literal["seed", "teacher"] = "seed"
    seed: int = Field(0, ge=0)
    arms: dict[str, dict[str, Any]] = Field(min_length=1)
    tests: dict[str, Test] = Field(min_length=1)
    supported_if: Rule
    refuted_if: Rule
    means: Readings
    fresh: str = ""
    changed: list[str] = []

    @field_validator("tests")
    @classmethod
    def _names(cls, value: dict[str, Test]) -> dict[str, Test]:
        for name in value:
            require(
                re.fullmatch(r"[a-z][a-z0-9_]*", name),
                f"{plain(name)[:40]!r} is no name of a test: small letters, digits and _",
            )
        return value

    @model_validator(mode="after")
    def _check(self) -> Experiment:
        made = self.made
        require(len({arm.closed for arm in made.values()}) == 1, "arms: students and fixed points do not go together")
        for name, arm in made.items():
            other = made.get(arm.labeller_of or "")
            good = arm.labeller_of is None or (other is not None and other.labels not in (None, VARIED["labels"]))
            require(good, f"arms.{name}: labeller_of names no arm that has labels")
        for name, test in self.tests.items():
            self._check_test(f"tests.{name}", test)
        for key, rule in (("supported_if", self.supported_if), ("refuted_if", self.refuted_if)):
            for name in rule.names:
                require(
                    name in self.tests,
                    f"{key}: there is no test {plain(name)[:40]!r}; there are {', '.join(self.tests)}",
                )
        return self

    def _check_test(self, where: str, test: Test) -> None:
        for pattern in test.patterns:
            require(
                self.matching(pattern),
                f"{where}: no arm is called {plain(pattern)[:60]!r}; there are {', '.join(self.made)}",
            )
        for metric in test.metric:
            if self.closed:
                require(
                    metric in CLOSED,
                    f"{where}: fixed points have no {plain(metric)[:40]!r}; they have {', '.join(CLOSED)}",
                )
            elif metric != DISPLACEMENT:
                require(
                    metric in METRICS,
                    f"{where}: unknown metric {plain(metric)[:40]!r}; there are {DISPLACEMENT}, {', '.join(METRICS)}",
                )
                spec = METRICS[metric]
                require(
                    test.reference in spec.references,
                    f"{where}: {metric} has no reference {test.reference!r}; it has {', '.join(spec.references)}",
                )
                usable = spec.per_sample or spec.test == "frechet" or by_parts(metric)
                require(
                    usable,
                    f"{where}: {metric} has no values by prompt, and is no Fréchet distance or part of one: prompts could not be random",
                )
        if test.claim == "better":
            for metric in test.metric:
                require(
                    better(metric, self.closed) != "neither",
                    f"{where}: of {metric} neither way is better; say lower or higher",
                )
        if test.slope is not None:
            for axis in test.slope.over:
                for name in self.matching(test.slope.arms):
                    known = getattr(self.made[name], axis) is not None or (
                        axis == "k" and self.made[name].share is not None
                    )
                    require(known, f"{where}: arm {name} says no {axis}, over which the slope is")
        if test.adjusted is not None:
            for name in self.matching(test.adjusted.arms):
                value = getattr(self.made[name], test.adjusted.factor)
                require(
                    value in test.adjusted.values,
                    f"{where}: arm {name} has {test.adjusted.factor} {value}, which is none of {', '.join(test.adjusted.values)}",
                )

    @cached_property
    def made(self) -> dict[str, Arm]:
        """Every arm by its name, families expanded."""
        out: dict[str, Arm] = {}
        for name, fields in self.arms.items():
            try:
                for own, values in _expanded(name, fields):
                    require(own not in out, f"there are two arms {plain(own)!r}")
                    out[own] = Arm.model_validate(values)
            except ValidationError as error:
                raise ValueError(f"arms.{plain(name)[:60]}: {problem(error, Arm)}") from None
            except (ValueError, KeyError, IndexError) as error:
                raise ValueError(f"arms.{plain(name)[:60]}: {error}") from None
        return out

    @property
    def closed(self) -> bool:
        """Whether its arms are fixed points."""
        return next(iter(self.made.values())).closed

    def matching(self, pattern: str) -> list[str]:
        """The arms of a name, or of a pattern with *."""
        return [name for name in self.made if name == pattern or fnmatchcase(name, pattern)]

    def arms_of(self, test: Test) -> list[str]:
        """All arms of a test."""
        return list(dict.fromkeys(itertools.chain(*(self.matching(pattern) for pattern in test.patterns))))

    def by(self, test: Test) -> str:
        """What a test's units are: seed or teacher."""
        return test.unit or self.unit

    @property
    def deciding(self) -> list[str]:
        """The tests that its outcome follows from."""
        named = {*self.supported_if.names, *self.refuted_if.names}
        return [name for name in self.tests if name in named]


def by_parts(metric: str) -> bool:
    """Whether it is a part of the ODE error, or of a Fréchet distance, whose parts by prompt are known."""
    of = METRICS[metric].part_of
    return of == "ode_error" or (bool(of) and METRICS[of].test == "frechet")


def better(metric: str, closed: bool) -> str:
    """Which way of a metric is better: lower, higher or neither."""
    if closed:
        return CLOSED[metric][1]
    return "neither" if metric == DISPLACEMENT else METRICS[metric].better


def problem(error: ValidationError, kind: type[BaseModel]) -> str:
    """The first problem, in words: which key, and what is wrong with it."""
    first = error.errors(include_url=False)[0]
    key = plain(
        ".".join(str(part) for part in first["loc"] if part not in ("str", "Rule", "function-after[_check(), Rule]"))
    )[:80]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return (
            f"{key}: unknown key; there are {', '.join(kind.model_fields)}" if "." not in key else f"{key}: unknown key"
        )
    if first["type"] == "missing":
        return f"{key}: is missing"
    if first["type"] != "value_error":
        message = f"is {plain(first['input'])[:60]!r}: {message[0].lower()}{message[1:]}"
    return f"{key + ': ' if key else ''}{plain(message)}"


def read_experiments(path: str | Path) -> dict[str, Experiment]:
    """The experiments of a YAML file by their names, a letter and perhaps more (D, D-natural); a mistake is a UserError of one line."""
    content = read_yaml(path)
    items = content.get("experiments")
    if set(content) != {"experiments"} or not isinstance(items, dict) or not items:
        raise UserError(f"{path}: expected the one key experiments, with experiments by their names")
    out = {}
    for name, item in items.items():
        if not re.fullmatch(rf"[{LETTERS}](-[a-z0-9]+)*", str(name)):
            raise UserError(
                f"{path}: {plain(name)[:40]!r} is no name of an experiment: one of {', '.join(LETTERS)}, and perhaps -more"
            )
        if not isinstance(item, dict):
            raise UserError(f"{path}: {name}: expected keys and values, found a {type(item).__name__}")
        try:
            out[str(name)] = Experiment.model_validate(item)
        except ValidationError as error:
            raise UserError(f"{path}: {name}: {problem(error, Experiment)}") from None
    return out
