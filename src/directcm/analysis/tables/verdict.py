"""Verdicts: what a run's comparisons say of each claim: holds here, does not hold here, undecided.

Every verdict is about this run ("here"): its data set, its teacher, its size. From a line of comparisons.csv to a verdict:

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
from typing import Any

from directcm.analysis.data.selection import base_setting, main_setting, sampling_numbers
from directcm.analysis.data.tidy import Row, matches, value
from directcm.analysis.page import plain
from directcm.analysis.tables.claim import (
    ALONG,
    METHOD,
    MORE,
    SAMPLING,
    STEP,
    Claim,
    Test,
    about,
    evaluated,
    read_claims,
    twins,
)
from directcm.config import SETTING_AXES, Config, Setting, number, spell
from directcm.config.specs import DISTANCES, METHODS, METRICS, SOLVERS
from directcm.errors import UserError
from directcm.runtime.artifacts import read_csv

HOLDS = "holds here"
FAILS = "does not hold here"
UNDECIDED = "undecided"
UNTESTABLE = "cannot be tested at this scale"
NOT_RUN = "not run"
_NUMBERS = ("mean_a", "mean_b", "difference", "low", "high", "se_seeds", "se_prompts", "p", "p_prompts", "n", "n_seeds")
_PLACE = (*SETTING_AXES, "a_step", "b_step", "sampling_steps")
NEEDED = ("what", "a", "b", *_PLACE, "metric", "reference", "level", *_NUMBERS)


@dataclass(frozen=True)
class Line:
    """One test in one setting: the comparison's line, and its one-sided p-values for and against the claim."""

    test: int
    metric: str
    sign: int
    row: Row
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


def _number(row: Row, name: str, path: str | Path) -> float:
    """A field as a number, NaN where it is empty."""
    try:
        return float(row[name]) if row[name] else math.nan
    except ValueError:
        raise UserError(f"{path}: {name} is {plain(row[name])[:40]!r}, expected a number; make it again") from None


def _one_sided(p: float, difference: float, sign: int) -> tuple[float, float]:
    """(p for, p against) a sign, from a two-sided p and the difference."""
    if difference * sign > 0:
        return p / 2, 1 - p / 2
    if difference * sign < 0:
        return 1 - p / 2, p / 2
    return max(0.5, p / 2), max(0.5, p / 2)


def _setting_of(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in _PLACE)


def _line(row: Row, place: int, metric: str, test: Test, path: str | Path) -> Line | None:
    """A comparison's line as a test, its difference in the claim's sense; None where it holds no p-value at all."""
    from directcm.statistics.inference import cautious_p

    v = {name: _number(row, name, path) for name in _NUMBERS}
    sign = test.sign(metric)
    if any(math.isnan(v[name]) for name in ("difference", "mean_a", "mean_b", "n", "n_seeds")):
        raise UserError(f"{path}: a line of {metric} lacks its difference, means or n; make it again")
    for name in ("p", "p_prompts"):
        if not (math.isnan(v[name]) or 0 <= v[name] <= 1):
            raise UserError(f"{path}: {name} is {v[name]:g}, expected 0 to 1; make it again")
    if test.turned:
        # What the claim names as better comes first.
        row = {**row, "a": row["b"], "b": row["a"]}
        swapped = {"mean_a": v["mean_b"], "mean_b": v["mean_a"]}
        v |= swapped | {"difference": 0.0 - v["difference"], "low": 0.0 - v["high"], "high": 0.0 - v["low"]}
    # What is judged by prompts alone, where seeds and prompts together give no p, is not judged.
    if math.isnan(v["p"]):
        return None
    se_seeds, se_prompts = (None if math.isnan(v[name]) else v[name] for name in ("se_seeds", "se_prompts"))
    cautious = cautious_p(v["difference"], se_seeds, se_prompts, int(v["n_seeds"]), int(v["n"]))
    found = [p for p in (v["p"], v["p_prompts"], cautious) if p is not None and not math.isnan(p)]
    sides = [_one_sided(p, v["difference"], sign) for p in found]
    return Line(
        place, metric, sign, row, v, _setting_of(row), cautious, max(s[0] for s in sides), max(s[1] for s in sides)
    )


def _step(row: Row) -> float:
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


def _candidates(claim: Claim, rows: Sequence[Row], config: Config) -> list[Row]:
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
    # From the first snapshot alone.
    steps: dict[tuple[str, ...], list[float]] = {}
    own = [tuple(row[axis] for axis in (*SETTING_AXES, SAMPLING)) for row in out]
    for row, setting in zip(out, own, strict=True):
        steps.setdefault(setting, []).append(_step(row))
    return [row for row, setting in zip(out, own, strict=True) if _step(row) == min(steps[setting])]


def _expected(claim: Claim, config: Config) -> list[Setting]:
    """The settings of the whole grid that a claim is about: those whose comparison the grid makes possible."""
    main = _base(claim, config)
    seeds: dict[Setting, dict[str, set[int]]] = {}
    for run in config.runs() if claim.axis is None else [first for first, _ in twins(claim, config)]:
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
    return [shown(axis, text) for text in dict.fromkeys(spell(item[name]) for item in items if name in item)]


def shown(axis: str, value: Any) -> str:
    if axis == "solver":
        return SOLVERS.get(str(value), str(value))
    if axis == "loss" and str(value) in DISTANCES:
        return DISTANCES[str(value)].title
    try:
        return number(float(str(value)))
    except (ValueError, ArithmeticError):
        return str(value)


def worded(axis: str, value: Any) -> str:
    names = {SAMPLING: "sampling steps", "lr": "learning rate", STEP: "step", "pool": "start points"}
    return f"{names.get(axis, axis)} {'' if axis in (STEP,) else '= '}{shown(axis, value)}"


def _missing(claim: Claim, rows: Sequence[Row], config: Config) -> str:
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
            return f"the grid has one value of {axis} only ({shown(axis, expected[0].spelled[axis])}); add others to students"
    lacking = [e for e in expected if not any(matches(row, e) for row in rows)]
    if lacking:
        main = main_setting(config)
        values = lacking[0].spelled
        axes = [axis for axis in SETTING_AXES if axis in claim.over or values[axis] != main.spelled[axis]]
        first = ", ".join(worded(axis, values[axis]) for axis in axes) or "the main setting"
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
    # Of k settings the hardest counts where all must hold, k times the easiest where one will do.
    every = claim.quantifier == "every"
    weakest = (max if every else min)(own, key=lambda o: (o[0], -o[2].effect))
    contrary = (min if every else max)(own, key=lambda o: (o[1], o[3].effect))
    p_for = min(1.0, weakest[0] * (1 if every else len(own)))
    p_against = min(1.0, contrary[1] * (len(own) if every else 1))
    return p_for, p_against, contrary[3] if p_against < p_for else weakest[2]


def judge(claims: Sequence[Claim], rows: Sequence[Row], config: Config, path: str | Path) -> list[Verdict]:
    """The verdicts, in the claims' order; `path` is the comparisons file that `rows` come from, for messages."""
    from directcm.statistics.inference import holm

    out = []
    for claim in claims:
        chosen = [evaluated(test, config) for test in claim.tests]
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
            own = [row for row in candidates if (row["metric"], row["reference"]) == (metric, test.reference)]
            lines = [line for row in own if (line := _line(row, place, metric, test, path)) is not None]
            lacking = len(settings) - len({line.setting for line in lines})
            if len(settings) - lacking < len(lines):
                raise UserError(
                    f"{path}: {metric} against {test.reference} is there twice for one setting; make it again"
                )
            verdict.lines += lines
            if lacking:
                verdict.verdict = UNTESTABLE
                verdict.reason = (
                    f"{METRICS[metric].title} has no p-value in {lacking} of {len(settings)} setting{'s' * (len(settings) > 1)}: "
                    "it is not defined there, or one seed says nothing"
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


def verdicts_of(claims_yaml: str | Path, comparisons_csv: str | Path, config: Config) -> list[Verdict]:
    """The verdicts on the claims of a file that are about this run, from a scope's comparisons.csv.

    Raises UserError for a claim that is not one, and for a comparisons.csv that lacks columns or holds no numbers.
    """
    own = about(read_claims(claims_yaml), config)
    rows = read_csv(comparisons_csv)
    lacking = [name for name in NEEDED if rows and rows[0].get(name) is None]
    if lacking:
        raise UserError(f"{comparisons_csv}: lacks the columns {', '.join(lacking)}; make it again")
    return judge(own, rows, config, comparisons_csv)
