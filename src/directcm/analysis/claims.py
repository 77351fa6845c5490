"""The verb `claims`: claims as data, and what a run's comparisons say of each: holds here, does not hold here, undecided.

A claim is one or more tests that must all succeed, in every or in some of a set of settings. Every verdict is about this
run ("here"): its data set, its teacher, its size.

From a line of comparisons.csv to a verdict:

- The difference is turned into the claim's sense, whichever of the two methods comparisons.csv has first: what the claim
  names as better − the other.
- One-sided p for and against the claimed sign, each the largest over: seeds × prompts together (the crossed p, and
  `inference.cautious_p`, which keeps its size at small levels), and prompts given these students (bootstrap or permutation).
  The largest, because a claim should survive other seeds and other prompts both: each test alone leaves one of them out or
  trusts an approximation that the other does not need.
- Several tests at once: p_for is the largest (intersection-union, Berger 1982), p_against k times the smallest (Bonferroni).
- Every setting: p_for is again the largest, p_against k times the smallest; some setting: the other way round.
- p = 2 min(p_for, p_against), at most 1; Holm's adjustment over all claims of the run that could be tested; a verdict
  where it is at most `statistics.alpha`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from directcm.analysis.compare import Across, across
from directcm.analysis.page import plain, write_page
from directcm.analysis.selection import base_setting, describe, main_setting, sampling_numbers
from directcm.analysis.table import latex
from directcm.analysis.tidy import matches, value
from directcm.artifacts import read_csv, write_csv, write_json, write_text
from directcm.config import ODE_AXES, SETTING_AXES, Config, Run, Setting, number, read_yaml, spell
from directcm.errors import UserError
from directcm.specs import DISTANCES, METHODS, METRICS, SOLVERS

CM, DIRECT = METHODS["cm"], METHODS["direct_cm"]
NAMES = {label: name for name, label in METHODS.items()}
STEP, SAMPLING = "step", "sampling_steps"
AXES = (*SETTING_AXES, STEP, SAMPLING)
METHOD, ALONG, MORE = "method", "along", "sampling"

HOLDS = "holds here"
FAILS = "does not hold here"
UNDECIDED = "undecided"
UNTESTABLE = "cannot be tested at this scale"
NOT_RUN = "not run"
VERDICTS = (HOLDS, FAILS, UNDECIDED, UNTESTABLE, NOT_RUN)
SYMBOLS = {HOLDS: "✓", FAILS: "✗", UNDECIDED: "?", UNTESTABLE: "–", NOT_RUN: "○"}

COLUMNS = [
    "id", "source", "where", "says", "verdict", "reason", "quantifier", "p_for", "p_against", "p", "p_holm", "alpha",
    "n_settings", "settings_agree", "test", "metric", "stands_in_for", "reference", "claimed_sign", "what", "a", "b",
    *SETTING_AXES, "a_step", "b_step", "sampling_steps", "mean_a", "mean_b", "difference", "low", "high", "level",
    "relative_percent", "n", "n_seeds", "p_crossed", "p_cautious", "p_prompts", "p_test_for", "p_test_against", "decisive",
]  # fmt: skip
_NEEDED = [
    "what", "a", "b", *SETTING_AXES, "a_step", "b_step", "sampling_steps", "metric", "reference", "mean_a", "mean_b",
    "difference", "low", "high", "level", "se_seeds", "se_prompts", "p", "p_prompts", "n", "n_seeds",
]  # fmt: skip


# ----------------------------------------------------------------- claims as data


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Test(_Block):
    """One test: a metric against a reference, and either the better method, or a method whose metric falls or rises, or a method
    and an axis whose better value is better than another, all else equal.

    `than` may be left out where the better one is CM or Direct CM: it is the other.
    """

    __test__ = False  # not pytest's

    metric: list[str] = Field(min_length=1)
    reference: Literal["teacher", "data", "prompt", "none"]
    better: str | int | float | None = None
    than: str | int | float | None = None
    method: str | None = None
    axis: str | None = None
    direction: Literal["falls", "rises"] | None = None
    along: Literal["training", "sampling_steps"] = "training"

    @field_validator("metric", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Test:
        for name in self.metric:
            if name not in METRICS:
                raise ValueError(f"unknown metric {name!r}; there are {', '.join(METRICS)}")
            if self.reference not in METRICS[name].references:
                allowed = ", ".join(METRICS[name].references)
                raise ValueError(f"{name} has no reference {self.reference!r}; it has {allowed}")
        if self.axis is not None:
            return self._check_axis()
        if (self.better is None) == (self.method is None) or (self.method is None) != (self.direction is None):
            raise ValueError("a test has either better, or method and direction, or method, axis, better and than")
        for label in (self.better, self.than, self.method):
            if label is not None and label not in METHODS.values():
                raise ValueError(f"unknown method {plain(str(label))[:40]!r}; there are {', '.join(METHODS.values())}")
        if self.better is not None and self.than is None and self.better not in (CM, DIRECT):
            raise ValueError(f"better: {self.better} needs than, the method that it is compared with")
        if self.than is not None and (self.better is None or self.than == self.better):
            raise ValueError("than goes with better, and is another method")
        return self

    def _check_axis(self) -> Test:
        assert self.axis is not None
        if self.axis not in SETTING_AXES:
            raise ValueError(f"unknown axis {plain(self.axis)[:40]!r}; there are {', '.join(SETTING_AXES)}")
        if None in (self.method, self.better, self.than) or self.direction is not None:
            raise ValueError("a test with axis has method, better and than, and no direction")
        if self.method not in METHODS.values():
            raise ValueError(
                f"unknown method {plain(str(self.method))[:40]!r}; there are {', '.join(METHODS.values())}"
            )
        known = {"solver": list(SOLVERS), "loss": list(DISTANCES)}.get(self.axis)
        for given in (self.better, self.than):
            if known is not None and given not in known:
                raise ValueError(f"unknown {self.axis} {plain(str(given))[:40]!r}; there are {', '.join(known)}")
        if spell(self.better) == spell(self.than):
            raise ValueError("better and than are two values of the axis")
        if self.axis in ODE_AXES and self.reference == "teacher":
            raise ValueError(
                f"two values of {self.axis} are two ODEs, and each student is measured against its own: choose another reference"
            )
        return self

    @property
    def what(self) -> str:
        """Which lines of comparisons.csv it reads."""
        if self.axis is not None:
            return across(self.axis, self.than)
        if self.better is not None:
            return METHOD
        return ALONG if self.along == "training" else MORE

    @property
    def pair(self) -> tuple[str, str]:
        """The lines' a and b: two methods in their own order, or one twice."""
        if self.method is not None:
            return self.method, self.method
        other = self.than or (DIRECT if self.better == CM else CM)
        first, second = (label for label in METHODS.values() if label in (self.better, other))
        return first, second

    @property
    def turned(self) -> bool:
        """Whether comparisons.csv has the two methods the other way round: `better` is its b."""
        return self.axis is None and self.better is not None and self.better != self.pair[0]

    def sign(self, metric: str) -> int:
        """The sign that the claim gives to its difference: `better` − the other, later − earlier, more steps − fewest."""
        if self.direction is not None:
            return -1 if self.direction == "falls" else 1
        return -1 if METRICS[metric].better == "lower" else 1


class Claim(_Block):
    """One claim; the fields are explained in workflow/claims.yaml."""

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=40)
    says: str
    source: Literal["paper", "ours", "others"]
    where: str = ""
    tests: list[Test] = Field(min_length=1, max_length=4)
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
            if axis not in AXES:
                raise ValueError(f"over and also: unknown axis {plain(axis)[:40]!r}; there are {', '.join(AXES)}")
        if len(set(axes)) != len(axes):
            raise ValueError("over and also name an axis twice")
        if len({test.what for test in self.tests}) > 1:
            raise ValueError("tests are of one kind: all with better, or all with method and direction along the same")
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
        return self.tests[0].what

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
    return [claim for claim in chosen if claim.source != "others" or claim.axis is None or _twins(claim, config)]


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


def _evaluated(test: Test, config: Config) -> str | None:
    """The first of a test's metrics that a run evaluates."""
    return next((metric for metric in test.metric if metric in config.metric_names()), None)


def compared(claims: Sequence[Claim], config: Config) -> Compared:
    """What a grid's claims need compared within a setting."""
    own = about(claims, config)

    def methods(what: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(NAMES[claim.pair[0]] for claim in own if claim.what == what))

    pairs = [":".join(NAMES[label] for label in claim.pair) for claim in own if claim.what == METHOD]
    others = [claim for claim in own if claim.what != ALONG and (claim.what, claim.pair) != (METHOD, (CM, DIRECT))]
    tests = [(_evaluated(test, config), test.reference) for claim in others for test in claim.tests]
    claimed = [f"{metric}:{reference}" for metric, reference in tests if metric is not None]
    return Compared(tuple(dict.fromkeys(pairs)), methods(ALONG), methods(MORE), tuple(dict.fromkeys(claimed)))


def _twins(claim: Claim, config: Config) -> list[tuple[Run, Run]]:
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
    return [(*pair, claim.other) for claim in own if claim.other is not None for pair in _twins(claim, config)]


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


# ----------------------------------------------------------------- verdicts


@dataclass(frozen=True)
class Line:
    """One test in one setting: the comparison's line, and its one-sided p-values for and against the claim."""

    test: int
    metric: str
    sign: int
    row: Mapping[str, str]
    values: Mapping[str, float]
    setting: tuple[str, ...]
    p_cautious: float | None
    p_for: float
    p_against: float

    @property
    def relative(self) -> float:
        """Difference in per cent of the second value's size; NaN where that is 0."""
        base = abs(self.values["mean_b"])
        return 100 * self.values["difference"] / base if base > 0 else math.nan

    @property
    def effect(self) -> float:
        """The relative difference, positive in the claimed direction; the plain one's sign where it is not defined."""
        relative = self.relative
        return self.sign * (self.values["difference"] if math.isnan(relative) else relative)


@dataclass
class Verdict:
    """What a run says of a claim. `lines` are all tests in all settings; `decisive` is the one that the verdict hangs on."""

    claim: Claim
    verdict: str
    reason: str = ""
    metrics: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    decisive: Line | None = None
    p_for: float | None = None
    p_against: float | None = None
    p: float | None = None
    p_holm: float | None = None

    @property
    def settings(self) -> int:
        """How many settings were tested."""
        return len({line.setting for line in self.lines})

    @property
    def agree(self) -> int:
        """In how many of them all tests have the claimed sign."""
        wrong = {line.setting for line in self.lines if line.values["difference"] * line.sign <= 0}
        return self.settings - len(wrong)


def stand_in_for(metric: str, wanted: Sequence[str]) -> str:
    """The title of the metric that this one stands in for; "" where it is the one that is asked for."""
    real = METRICS[metric].stand_in_for
    if real in METRICS:
        return METRICS[real].title
    return "" if metric == wanted[0] else METRICS[wanted[0]].title


def _number(row: Mapping[str, str], name: str, path: str | Path) -> float:
    """A field as a number, NaN where it is empty."""
    text = row[name]
    try:
        value = float(text) if text else math.nan
    except ValueError:
        raise UserError(f"{path}: {name} is {plain(text)[:40]!r}, expected a number; make it again") from None
    return value


def _one_sided(p: float, difference: float, sign: int) -> tuple[float, float]:
    """(p for, p against) a sign, from a two-sided p and the difference."""
    if difference * sign > 0:
        return p / 2, 1 - p / 2
    if difference * sign < 0:
        return 1 - p / 2, p / 2
    return max(0.5, p / 2), max(0.5, p / 2)


def _setting_of(row: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in (*SETTING_AXES, "a_step", "b_step", "sampling_steps"))


def _line(row: Mapping[str, str], place: int, metric: str, test: Test, path: str | Path) -> Line | None:
    """A comparison's line as a test, its difference in the claim's sense; None where it holds no p-value at all."""
    from directcm.analysis.inference import cautious_p

    names = (
        "mean_a",
        "mean_b",
        "difference",
        "low",
        "high",
        "se_seeds",
        "se_prompts",
        "p",
        "p_prompts",
        "n",
        "n_seeds",
    )
    v = {name: _number(row, name, path) for name in names}
    sign = test.sign(metric)
    if any(math.isnan(v[name]) for name in ("difference", "mean_a", "mean_b", "n", "n_seeds")):
        raise UserError(f"{path}: a line of {metric} lacks its difference, means or n; make it again")
    for name in ("p", "p_prompts"):
        if not (math.isnan(v[name]) or 0 <= v[name] <= 1):
            raise UserError(f"{path}: {name} is {v[name]:g}, expected 0 to 1; make it again")
    if test.turned:
        # What the claim names as better comes first.
        row = {**row, "a": row["b"], "b": row["a"]}
        v |= {
            "mean_a": v["mean_b"],
            "mean_b": v["mean_a"],
            "difference": 0.0 - v["difference"],
            "low": 0.0 - v["high"],
            "high": 0.0 - v["low"],
        }
    se_seeds, se_prompts = (None if math.isnan(v[name]) else v[name] for name in ("se_seeds", "se_prompts"))
    cautious = None
    if not math.isnan(v["p"]):
        cautious = cautious_p(v["difference"], se_seeds, se_prompts, int(v["n_seeds"]), int(v["n"]))
    # What is judged by prompts alone, where seeds and prompts together give no p, is not judged.
    if math.isnan(v["p"]):
        return None
    found = [p for p in (v["p"], v["p_prompts"], cautious) if p is not None and not math.isnan(p)]
    sides = [_one_sided(p, v["difference"], sign) for p in found]
    return Line(
        place, metric, sign, row, v, _setting_of(row), cautious, max(s[0] for s in sides), max(s[1] for s in sides)
    )


def _step(row: Mapping[str, str]) -> float:
    try:
        return float(row["b_step"])
    except ValueError:
        raise UserError(
            f"comparisons: b_step is {plain(row['b_step'])[:40]!r}, expected a number; make them again"
        ) from None


def _base(claim: Claim, config: Config) -> Setting:
    """The setting that a claim's settings differ from in its own axes."""
    if claim.axis is not None:
        return main_setting(config).at(**{claim.axis: claim.tests[0].better})
    return base_setting(config, claim.over[0]) if claim.over in (["N"], ["w"]) else main_setting(config)


def _candidates(claim: Claim, rows: Sequence[Mapping[str, str]], config: Config) -> list[Mapping[str, str]]:
    """The lines that belong to a claim's settings, of all metrics."""
    main = _base(claim, config)
    # More steps than the fewest: the most, unless the claim is about every number of them.
    numbers = sampling_numbers(config)
    k = numbers[-1] if claim.what == MORE else numbers[0]
    out = [
        row
        for row in rows
        if row["what"] == claim.what
        and (row["a"], row["b"]) == claim.pair
        and matches(row, main, claim.free)
        and (SAMPLING in claim.free or value(row["sampling_steps"]) == k)
    ]
    if claim.axis is not None:
        return out
    if claim.what != ALONG:
        return [
            row
            for row in out
            if value(row["a_step"]) == value(row["b_step"])
            and (STEP in claim.free or value(row["a_step"]) == value(row["steps"]))
        ]
    if STEP in claim.free:
        return out
    first: dict[tuple[str, ...], float] = {}
    for row in out:
        own = tuple(row[axis] for axis in (*SETTING_AXES, "sampling_steps"))
        first[own] = min(first.get(own, math.inf), _step(row))
    return [r for r in out if _step(r) == first[tuple(r[axis] for axis in (*SETTING_AXES, "sampling_steps"))]]


def _expected(claim: Claim, config: Config) -> list[Setting]:
    """The settings of the whole grid that a claim is about: those whose comparison the grid makes possible."""
    main = _base(claim, config)
    seeds: dict[Setting, dict[str, set[int]]] = {}
    for run in config.runs() if claim.axis is None else [first for first, _ in _twins(claim, config)]:
        if claim.what == ALONG and not config.snapshots(run):
            continue
        if claim.what == MORE and len({k for step, k in config.sets(run) if step == run.steps}) < 2:
            continue
        if run.setting.but(*claim.free) == main.but(*claim.free):
            seeds.setdefault(run.setting, {}).setdefault(METHODS[run.method], set()).add(run.seed)
    first, second = claim.pair
    return [setting for setting, found in seeds.items() if found.get(first, set()) & found.get(second, set())]


def _values(items: Iterable[Mapping[str, str]], axis: str, what: str) -> list[str]:
    """The different values of an axis among settings or lines, as text."""
    name = axis if axis != STEP else ("b_step" if what == ALONG else "a_step")
    return [_shown(axis, text) for text in dict.fromkeys(spell(item[name]) for item in items if name in item)]


def _shown(axis: str, value: Any) -> str:
    if axis == "solver":
        return SOLVERS.get(str(value), str(value))
    if axis == "loss" and str(value) in DISTANCES:
        return DISTANCES[str(value)].title
    try:
        return number(float(str(value)))
    except (ValueError, ArithmeticError):
        return str(value)


def _worded(axis: str, value: Any) -> str:
    names = {SAMPLING: "sampling steps", "lr": "learning rate", STEP: "step", "pool": "start points"}
    return f"{names.get(axis, axis)} {'' if axis in (STEP,) else '= '}{_shown(axis, value)}"


def _missing(claim: Claim, rows: Sequence[Mapping[str, str]], config: Config) -> str:
    """Why a claim was not run, "" where all its settings are there."""
    expected = _expected(claim, config)
    if not expected:
        test = claim.tests[0]
        kinds = {
            METHOD: "both methods with a seed in common",
            ALONG: "snapshots along training",
            MORE: "two numbers of sampling steps",
        }
        kind = kinds.get(
            claim.what, f"{test.method} with {claim.axis} {test.better} and with {test.than}, all else equal,"
        )
        return f"no line of the grid has {kind} at this claim's settings; add one to students"
    for axis in claim.over:
        if axis in SETTING_AXES and len(_values([e.spelled for e in expected], axis, claim.what)) < 2:
            return f"the grid has one value of {axis} only ({_shown(axis, expected[0].spelled[axis])}); add others to students"
    lacking = [e for e in expected if not any(matches(row, e) for row in rows)]
    if lacking:
        main = main_setting(config)
        values = lacking[0].spelled
        axes = [axis for axis in SETTING_AXES if axis in claim.over or values[axis] != main.spelled[axis]]
        first = ", ".join(_worded(axis, values[axis]) for axis in axes) or "the main setting"
        more = ", …" if len(lacking) > 1 else ""
        return (
            f"{len(lacking)} of {len(expected)} settings {'are' if len(lacking) > 1 else 'is'} not in this run ({first}{more}); "
            "make paper runs the whole grid"
        )
    for axis in claim.over:
        if axis not in SETTING_AXES and len(_values(rows, axis, claim.what)) < 2:
            name = "snapshots" if axis == STEP else "sampling_steps"
            return f"this run has one value of {axis} only; add {name} to students"
    return ""


def _combined(claim: Claim, lines: Sequence[Line]) -> tuple[float, float, Line]:
    """(p_for, p_against, decisive line) over tests and settings."""
    groups: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        groups.setdefault(line.setting, []).append(line)
    # Within a setting all tests must succeed, so the weakest speaks for it, and any of k may speak against it.
    own = [
        (
            max(line.p_for for line in group),
            min(1.0, len(group) * min(line.p_against for line in group)),
            max(group, key=lambda line: (line.p_for, -line.effect)),
            min(group, key=lambda line: (line.p_against, line.effect)),
        )
        for group in groups.values()
    ]
    k = len(own)
    if claim.quantifier == "every":
        p_for, p_against = max(o[0] for o in own), min(1.0, k * min(o[1] for o in own))
        weakest = max(own, key=lambda o: (o[0], -o[2].effect))[2]
        contrary = min(own, key=lambda o: (o[1], o[3].effect))[3]
    else:
        p_for, p_against = min(1.0, k * min(o[0] for o in own)), max(o[1] for o in own)
        weakest = min(own, key=lambda o: (o[0], -o[2].effect))[2]
        contrary = max(own, key=lambda o: (o[1], o[3].effect))[3]
    return p_for, p_against, contrary if p_against < p_for else weakest


def judge(
    claims: Sequence[Claim], rows: Sequence[Mapping[str, str]], config: Config, path: str | Path
) -> list[Verdict]:
    """The verdicts, in the claims' order; `path` is the comparisons file that `rows` come from, for messages."""
    from directcm.analysis.inference import holm

    out = []
    for claim in claims:
        chosen = [_evaluated(test, config) for test in claim.tests]
        if None in chosen:
            wanted = claim.tests[chosen.index(None)].metric
            names = " or ".join(METRICS[m].title for m in wanted)
            needs = METRICS[wanted[0]]
            why = f"its extractor is {needs.extractor}" if needs.extractor else "it is not among this run's metrics"
            if needs.needs_labels and wanted[0] in config.metrics:
                why = "the images have no labels"
            out.append(Verdict(claim, UNTESTABLE, f"{names} was not evaluated in this run: {why}"))
            continue
        metrics = [m for m in chosen if m is not None]
        # In a fixed order: which of two equal settings is shown must not depend on that of the file.
        candidates = sorted(_candidates(claim, rows, config), key=_setting_of)
        reason = _missing(claim, candidates, config)
        if reason:
            out.append(Verdict(claim, NOT_RUN, reason, metrics))
            continue
        verdict = Verdict(claim, UNDECIDED, "", metrics)
        settings = {_setting_of(row) for row in candidates}
        for place, (test, metric) in enumerate(zip(claim.tests, metrics, strict=True), 1):
            found: dict[tuple[str, ...], Line] = {}
            for row in candidates:
                if (row["metric"], row["reference"]) != (metric, test.reference):
                    continue
                line = _line(row, place, metric, test, path)
                if line is not None and line.setting in found:
                    raise UserError(
                        f"{path}: {metric} against {test.reference} is there twice for one setting; make it again"
                    )
                if line is not None:
                    found[line.setting] = line
            verdict.lines += found.values()
            if len(found) < len(settings):
                title = METRICS[metric].title
                lacking = len(settings) - len(found)
                verdict.verdict = UNTESTABLE
                verdict.reason = (
                    f"{title} has no p-value in {lacking} of {len(settings)} setting{'s' * (len(settings) > 1)}: it is not "
                    "defined there, or one seed says nothing"
                )
        if verdict.verdict == UNTESTABLE:
            verdict.lines = []
        else:
            verdict.p_for, verdict.p_against, verdict.decisive = _combined(claim, verdict.lines)
            verdict.p = min(1.0, 2 * min(verdict.p_for, verdict.p_against))
        out.append(verdict)
    tested = [v for v in out if v.p is not None]
    for verdict, adjusted in zip(tested, holm([v.p for v in tested if v.p is not None]), strict=True):
        verdict.p_holm = adjusted
        assert verdict.p_for is not None and verdict.p_against is not None
        if adjusted <= config.statistics.alpha:
            verdict.verdict = HOLDS if verdict.p_for < verdict.p_against else FAILS
    return out


# ----------------------------------------------------------------- in words


def _digits(value: float, metric: str, signed: bool = False) -> str:
    """A value at its metric's decimals, with a true minus; one that would be rounded away at two significant digits."""
    decimals = METRICS[metric].decimals
    text = f"{value:{'+' if signed else ''}.{decimals}f}"
    if value and abs(value) < 5 * 10**-decimals:
        text = f"{value:{'+' if signed else ''}.1e}"
    return text.replace("-", "−")


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _place(verdict: Verdict, line: Line, config: Config) -> str:
    """Which setting a line is of, in the axes that its claim varies."""
    claim, main = verdict.claim, main_setting(config)
    parts = []
    for axis in (*claim.over, *claim.also):
        if axis in SETTING_AXES and (axis in claim.over or spell(line.row[axis]) != main.spelled[axis]):
            parts.append(_worded(axis, line.row[axis]))
        elif axis == SAMPLING:
            parts.append(_worded(axis, line.row["sampling_steps"]))
        elif axis == STEP and claim.what != ALONG:
            parts.append(_worded(axis, line.row["a_step"]))
    if claim.what == ALONG:
        parts.append(f"step {line.row['b_step']} to {line.row['a_step']}")
    if claim.axis is not None:
        parts.append(_worded(claim.axis, line.row[claim.axis]) + f" against {_shown(claim.axis, claim.tests[0].than)}")
    if claim.what == MORE and SAMPLING not in claim.free:
        parts.append(f"{line.row['sampling_steps']} sampling steps against {sampling_numbers(config)[0]}")
    return ", ".join(plain(part) for part in parts)


@dataclass(frozen=True)
class Words:
    """A verdict in words, as every page shows it: plain text, to be escaped by each."""

    verdict: str
    symbol: str
    text: str
    says: str
    where: str
    stand_in: str
    effects: tuple[str, ...]
    place: str
    sizes: str
    p: str

    @property
    def basis(self) -> tuple[str, ...]:
        """What the verdict rests on, line by line."""
        return tuple(text for text in (*self.effects, self.place, self.sizes) if text)


_KINDS = {
    ("every", False): "weakest", ("every", True): "most contrary", ("some", False): "clearest", ("some", True): "least contrary",
}  # fmt: skip


def _sides(row: Mapping[str, str]) -> tuple[str, str]:
    """What a line's a and b are called: two methods, two values of an axis, or two ends of one method."""
    axis, _, other = row["what"].partition("~")
    if other:
        return _shown(axis, row[axis]), _shown(axis, other)
    names = {ALONG: ("later", "earlier"), MORE: ("more steps", "fewest")}
    return names.get(row["what"], (row["a"], row["b"]))


def _effect(line: Line) -> str:
    """Both values of a test, their difference with its interval and what it is of, and the difference in per cent."""
    v, metric = line.values, line.metric
    first, second = _sides(line.row)
    side = {"teacher": " to the teacher", "data": " to the data"}
    against = side.get(line.row["reference"], "") if len(METRICS[metric].references) > 1 else ""
    interval = ""
    if not (math.isnan(v["low"]) or math.isnan(v["high"])):
        interval = f" [{_digits(v['low'], metric, True)}, {_digits(v['high'], metric, True)}]"
    relative = "" if math.isnan(line.relative) else f" ({line.relative:+.0f} %)".replace("-", "−")
    return (
        f"{METRICS[metric].title}{against}: {first} {_digits(v['mean_a'], metric)}, {second} {_digits(v['mean_b'], metric)}; "
        f"{first} − {second}: {_digits(v['difference'], metric, True)}{interval}{relative}"
    )


def words(verdict: Verdict, config: Config) -> Words:
    """A verdict in words. One on a stand-in metric says on which, and is never put in the real one's name."""
    claim, line = verdict.claim, verdict.decisive
    pairs = list(zip(verdict.metrics, claim.tests, strict=False))
    replaced = {METRICS[m].title: stand_in_for(m, test.metric) for m, test in pairs if stand_in_for(m, test.metric)}
    tested = verdict.verdict in (HOLDS, FAILS, UNDECIDED)
    text = verdict.verdict
    if tested and replaced:
        text += " for " + " and ".join(dict.fromkeys(METRICS[m].title for m in verdict.metrics))
    stand_in = (
        "; ".join(f"{own} stands in for {real}, which it is not" for own, real in replaced.items()) if tested else ""
    )
    effects: list[str] = [] if line else [verdict.reason]
    place = sizes = ""
    if line is not None:
        effects = [_effect(x) for x in verdict.lines if x.setting == line.setting]
        where = _place(verdict, line, config)
        place = where
        if verdict.settings > 1:
            contrary = (verdict.p_against or 0) < (verdict.p_for or 0)
            kind = _KINDS[claim.quantifier, contrary]
            place = f"{kind} of {verdict.settings} settings: {where}; sign as claimed in {verdict.agree}"
        seeds = [int(x.values["n_seeds"]) for x in verdict.lines]
        count = f"{min(seeds)}" if min(seeds) == max(seeds) else f"{min(seeds)} to {max(seeds)}"
        sizes = f"{int(min(x.values['n'] for x in verdict.lines)):,} prompts, {count} seed{'s' * (max(seeds) > 1)}"
        if min(seeds) == 1:
            sizes += ": nothing about other seeds"
    return Words(
        verdict.verdict, SYMBOLS[verdict.verdict], text, claim.says, claim.where, stand_in, tuple(effects), place, sizes,
        _p(verdict.p_holm),
    )  # fmt: skip


def scale(config: Config) -> str:
    """The sentence that stands above all verdicts: what "here" is."""
    small = ", and none says anything about SDXL" if config.teacher.kind != "diffusers" else ""
    return (
        f"“Here” is this run alone ({plain(describe(config))}): no verdict reaches beyond its data set, its teacher and its "
        f"image size{small}."
    )


def _counts(verdicts: Sequence[Verdict]) -> str:
    found = {name: sum(v.verdict == name for v in verdicts) for name in VERDICTS}
    plural = {HOLDS: "hold here", FAILS: "do not hold here", UNTESTABLE: "cannot be tested at this scale"}
    parts = [f"{n} {plural.get(name, name) if n > 1 else name}" for name, n in found.items() if n]
    return f"{len(verdicts)} claim{'s' * (len(verdicts) != 1)}: " + ", ".join(parts)


def stand_ins(verdicts: Sequence[Verdict]) -> list[str]:
    """Which metrics stand in for which, where any do."""
    replaced = {
        METRICS[m].title: stand_in_for(m, test.metric)
        for v in verdicts
        for m, test in zip(v.metrics, v.claim.tests, strict=False)
        if stand_in_for(m, test.metric)
    }
    named = ", ".join(f"{own} for {real}" for own, real in replaced.items())
    sentence = f"Metrics on a small network trained on this run's own images stand in for the paper's: {named}. They are not these."
    return [sentence] if replaced else []


def notes(verdicts: Sequence[Verdict], config: Config) -> list[str]:
    """What a reader must know to read the verdicts, as plain text."""
    alpha, level = config.statistics.alpha, 100 * config.statistics.level
    tested = sum(v.p is not None for v in verdicts)
    out = [
        (
            f"A claim holds here, or does not, where its p, adjusted by Holm's method over the {tested} claims tested, is at "
            f"most {alpha:g}: the chance of any wrong verdict among them is at most {100 * alpha:g} %. Undecided says that these "
            "seeds and prompts do not settle it; it is no sign of equality."
        ),
        (
            "p is the largest of those over training seeds and prompts together (Satterthwaite's, and the Behrens–Fisher one, which "
            "holds at small levels too) and over prompts given these trained students (paired bootstrap, or permutation for "
            "distances between sets). A claim must survive other seeds and other prompts."
        ),
        (
            "A claim about every setting holds where it holds in each, and does not where it is contradicted in one; a claim "
            "about some setting the other way round. Claims with several tests need all of them. Numbers are those of the "
            "setting that decides."
        ),
        (
            f"In brackets: {level:g} % interval of this one difference over seeds and prompts, not adjusted for the number of "
            "claims. In per cent: of the second value's size. Differences are what the claim names as better − the other, later − "
            "earlier in training, or more sampling steps − the fewest: where less of a metric is better, one below 0 speaks for a "
            "method that is claimed to be better, and where more is, one above 0."
        ),
    ]  # fmt: skip
    out += stand_ins(verdicts)
    if any(line.values["n_seeds"] == 1 for v in verdicts for line in v.lines):
        out.append(
            "Where there is one seed, the verdict is about these trained students and says nothing about other seeds."
        )
    out.append("Every number behind a verdict, setting by setting, is in the CSV file of the same name.")
    return out


GROUPS = {"paper": "The paper's claims", "ours": "Our own", "others": "Claims of other papers"}


def _grouped(verdicts: Sequence[Verdict]) -> list[tuple[str, list[Verdict]]]:
    groups = [(title, [v for v in verdicts if v.claim.source == source]) for source, title in GROUPS.items()]
    return [(title, group) for title, group in groups if group]


def in_groups(verdicts: Sequence[Verdict], config: Config) -> list[dict[str, Any]]:
    """The verdicts in words, by whose claims they are on: title, counts and rows."""
    return [
        {"title": title, "counts": _counts(group), "rows": [words(v, config) for v in group]}
        for title, group in _grouped(verdicts)
    ]


# ----------------------------------------------------------------- files

BODY = """
<p><strong><bdi>{{ scale }}</bdi></strong></p>
{% for group in groups %}
<h2>{{ group.title }}</h2>
<p>{{ group.counts }}.</p>
<table role="table">
<thead role="rowgroup"><tr role="row">
<th scope="col" role="columnheader" style="width: 32%">Claim</th>
<th scope="col" role="columnheader" style="width: 18%">Verdict</th>
<th scope="col" role="columnheader">What it rests on</th>
<th scope="col" role="columnheader" class="n" style="width: 7%">p (Holm)</th>
</tr></thead>
<tbody role="rowgroup">
{% for row in group.rows %}
<tr role="row">
<th scope="row" role="rowheader" style="white-space: normal; overflow-wrap: anywhere"><bdi>{{ row.says }}</bdi>{% if row.where %}<br><span class="small"><bdi>{{ row.where }}</bdi></span>{% endif %}</th>
<td role="cell" data-label="Verdict"><span><span aria-hidden="true">{{ row.symbol }}</span>&nbsp;<strong>{{ row.text }}</strong></span></td>
<td role="cell" class="wide" style="overflow-wrap: anywhere">{% for text in row.effects %}{% if not loop.first %}<br>{% endif %}{{ text }}{% endfor %}{% for more in (row.place, row.sizes, row.stand_in) if more %}<br><span class="small">{{ more }}</span>{% endfor %}</td>
<td role="cell" class="n" data-label="p (Holm)"><span class="value">{{ row.p or "–" }}</span></td>
</tr>
{% endfor %}
</tbody>
</table>
{% endfor %}
<h2>How to read it</h2>
<ul>
{% for note in notes %}
<li>{{ note }}</li>
{% endfor %}
</ul>
"""


def _tex(groups: Sequence[Mapping[str, Any]], sentence: str, remarks: Sequence[str]) -> str:
    out = [r"% Needs \usepackage{booktabs}. Written by `directcm claims`; do not edit."]
    for place, group in enumerate(groups):
        out += [
            r"\begin{table*}",
            r"\centering",
            r"\footnotesize",
            rf"\caption{{{latex(group['title'])}, tested in this run ({latex(group['counts'])}).}}",
            rf"\label{{tab:claims-{place + 1}}}",
            r"\begin{tabular}{@{}p{0.31\linewidth}p{0.17\linewidth}p{0.37\linewidth}r@{}}",
            r"\toprule",
            r"Claim & Verdict & What it rests on & $p$ (Holm) \\",
            r"\midrule",
        ]
        for row in group["rows"]:
            rests = ". ".join(latex(text) for text in (*row.basis, row.stand_in) if text)
            p = row.p.replace("<", "$<$") if row.p else "--"
            cells = (latex(row.says), latex(row.text), rf"{{\scriptsize {rests}}}", p)
            out.append(" & ".join(rf"\raggedright {cell}" if i < 3 else cell for i, cell in enumerate(cells)) + r" \\")
        out += [
            r"\bottomrule",
            r"\end{tabular}",
            r"\par\smallskip",
            r"\parbox{\linewidth}{\scriptsize\raggedright",
            latex(sentence),
            *(map(latex, remarks) if place == len(groups) - 1 else ()),
            "}",
            r"\end{table*}",
        ]
    return "\n".join([*out, ""])


def _rows(verdict: Verdict, alpha: float) -> list[dict[str, Any]]:
    """A claim's lines of claims.csv: one per test and setting, or one alone where it was not tested."""

    def rounded(value: float | None) -> float | None:
        return None if value is None or math.isnan(value) else float(f"{value:.10g}")

    claim = verdict.claim
    whole = {
        "id": claim.id, "source": claim.source, "where": claim.where, "says": claim.says, "verdict": verdict.verdict,
        "reason": verdict.reason, "quantifier": claim.quantifier, "p_for": rounded(verdict.p_for),
        "p_against": rounded(verdict.p_against), "p": rounded(verdict.p), "p_holm": rounded(verdict.p_holm), "alpha": alpha,
        "n_settings": verdict.settings or None, "settings_agree": verdict.agree if verdict.lines else None,
    }  # fmt: skip
    if not verdict.lines:
        return [dict.fromkeys(COLUMNS) | whole]
    out = []
    for line in verdict.lines:
        test = claim.tests[line.test - 1]
        kept = ("what", "a", "b", *SETTING_AXES, "a_step", "b_step", "sampling_steps", "reference", "level")
        numbers = ("mean_a", "mean_b", "difference", "low", "high", "p_prompts")
        out.append(
            {
                **whole, "test": line.test, "metric": line.metric, "stands_in_for": stand_in_for(line.metric, test.metric),
                "claimed_sign": "+" if line.sign > 0 else "-", **{name: line.row[name] for name in kept},
                **{name: rounded(line.values[name]) for name in numbers}, "relative_percent": rounded(line.relative),
                "n": int(line.values["n"]), "n_seeds": int(line.values["n_seeds"]), "p_crossed": rounded(line.values["p"]),
                "p_cautious": rounded(line.p_cautious), "p_test_for": rounded(line.p_for), "p_test_against": rounded(line.p_against),
                "decisive": "yes" if line is verdict.decisive else "no",
            }
        )  # fmt: skip
    return out


def verdicts_of(claims_yaml: str | Path, comparisons_csv: str | Path, config: Config) -> list[Verdict]:
    """The verdicts on the claims of a file that are about this run, from a scope's comparisons.csv.

    Raises UserError for a claim that is not one, and for a comparisons.csv that lacks columns or holds no numbers.
    """
    own = about(read_claims(claims_yaml), config)
    rows = read_csv(comparisons_csv)
    lacking = [name for name in _NEEDED if rows and rows[0].get(name) is None]
    if lacking:
        raise UserError(f"{comparisons_csv}: lacks the columns {', '.join(lacking)}; make it again")
    return judge(own, rows, config, comparisons_csv)


def claims(
    claims_yaml: str | Path,
    comparisons_csv: str | Path,
    config: Config,
    out_csv: str | Path,
    out_tex: str | Path,
    out_html: str | Path,
    out_json: str | Path,
) -> list[Verdict]:
    """Write the verdicts: every number as CSV (COLUMNS), LaTeX, a page, and {id: verdict} as JSON. Errors: `verdicts_of`."""
    verdicts = verdicts_of(claims_yaml, comparisons_csv, config)
    groups, sentence, remarks = in_groups(verdicts, config), scale(config), notes(verdicts, config)
    write_csv(out_csv, [row for v in verdicts for row in _rows(v, config.statistics.alpha)], COLUMNS)
    write_text(out_tex, _tex(groups, sentence, remarks))
    write_page(out_html, BODY, title="The claims, and what holds here", scale=sentence, groups=groups, notes=remarks)
    write_json(out_json, {v.claim.id: v.verdict for v in verdicts})
    return verdicts


def text(claims_csv: str | Path) -> str:
    """The verdicts for a terminal: one line per claim, with the effect that decided it."""
    lines = []
    seen: set[str] = set()
    for row in read_csv(claims_csv):
        if row["id"] in seen or row["decisive"] not in ("yes", ""):
            continue
        seen.add(row["id"])
        effect = ""
        if row["difference"]:
            spec = METRICS[row["metric"]]
            numbers = (float(row[name]) for name in ("difference", "low", "high"))
            a, low, high = (f"{x:+.{spec.decimals}f}" for x in numbers if math.isfinite(x))
            first, second = _sides(row)
            count = f"{row['n_seeds']} seed{'s' * (row['n_seeds'] != '1')}"
            effect = f"  ({spec.title}, {first} − {second}: {a} [{low}, {high}], {count})"
        lines.append(f"{row['verdict']:<30}  {row['says']}{effect}")
    return "\n".join(lines)
