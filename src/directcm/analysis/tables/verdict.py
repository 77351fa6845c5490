"""Verdicts: what a run's comparisons say of each claim: shown here, refuted here, undecided.

Every verdict is about this run ("here"): its data set, its teacher, its size. From a line of comparisons.csv to a verdict:

- The difference is turned into the claim's sense, whichever of the two methods comparisons.csv has first: what the claim
  names as better − the other. A line is a difference in one setting, or a contrast over an axis: its mean, or its slope.
- One-sided p for and against the claimed sign, over seeds × prompts together (`inference.cautious_p`): a claim should survive other seeds
  and other prompts both. For a claim that two are equal: two one-sided tests against its margin.
- Several tests at once: p_for is the largest (intersection-union, Berger 1982), p_against k times the smallest (Bonferroni).
- Every setting: p_for is again the largest, p_against k times the smallest; some setting: the other way round.
- p = 2 min(p_for, p_against), at most 1. Claims are in two families: those of the primary one are adjusted by truncated Holm, those of
  the secondary one by Holm at what the primary leaves of α (`families.gatekept`). A verdict where it is at most `statistics.alpha`.
- Where a claim stays undecided: the smallest true difference that this number of seeds and prompts would have shown with a power of 80 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from directcm.analysis.data.contrasts import FROM, LINEAR, LOG, TIME, Plan, plan
from directcm.analysis.data.selection import base_setting, main_setting, sampling_numbers, select_axis
from directcm.analysis.data.tidy import COMPARISON_COLUMNS, frame, keys_of
from directcm.analysis.tables.claim import (
    ALONG,
    METHOD,
    MORE,
    PRIMARY,
    SAMPLING,
    STEP,
    TEACHERS,
    Claim,
    Test,
    about,
    contrasts_of,
    evaluated,
    read_claims,
    twins,
)
from directcm.analysis.tables.text import defined
from directcm.config import SETTING_AXES, Config, Setting, number, spell
from directcm.config.specs import DISTANCES, METHODS, METRICS, SOLVERS
from directcm.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from directcm.statistics.inference import Crossed

HOLDS = "shown here"
FAILS = "refuted here"
UNDECIDED = "undecided"
UNTESTABLE = "cannot be tested at this scale"
NOT_RUN = "not run"
_PLACE = [*SETTING_AXES, "a_step", "b_step", SAMPLING]


# The power that the smallest detectable difference is found with.
POWER = 0.8


@dataclass(frozen=True)
class Line:
    """One test in one setting, or one contrast: the comparison in the claim's sense, and its one-sided p-values for and against the claim.

    `sign` is 0 where the claim is that two are equal, within `margin` (in the metric's unit).
    """

    test: int
    metric: str
    sign: int
    row: Mapping[str, Any]
    p_cautious: float | None
    p_for: float
    p_against: float
    margin: float | None = None

    @property
    def setting(self) -> tuple[Any, ...]:
        """Its setting, steps and sampling steps."""
        return tuple(self.row[name] for name in _PLACE)

    @property
    def relative(self) -> float:
        """Difference in per cent of the second value's size; NaN where that is 0, and of a trend: a slope has no size to be a share of."""
        base = abs(self.row["mean_b"])
        trend = self.row["what"].partition("~")[0] in (LOG, LINEAR, FROM)
        return 100 * self.row["difference"] / base if base > 0 and not trend else math.nan

    @property
    def effect(self) -> float:
        """The relative difference, positive in the claimed direction, or the smaller the better; the plain one where it is not defined."""
        found = self.row["difference"] if math.isnan(self.relative) else self.relative
        return self.sign * found if self.sign else -abs(found)

    @property
    def agrees(self) -> bool:
        """Whether the difference has the claimed sign, or lies within the margin."""
        found = self.row["difference"]
        return found * self.sign > 0 if self.margin is None else abs(found) < self.margin


@dataclass
class Verdict:
    """What a run says of a claim. `lines` are all tests in all settings; `decisive` is the one that the verdict hangs on.

    `detectable`, of one that is undecided: the smallest true difference of the decisive line that would be shown with a power of POWER at
    `level`, in the metric's unit; of a claim that two are equal the smallest margin, were there no difference at all.
    """

    claim: Claim
    verdict: str
    reason: str = ""
    metrics: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    decisive: Line | None = None
    p_for: float | None = None
    p_against: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    detectable: float | None = None
    level: float | None = None

    @property
    def settings(self) -> int:
        """How many settings were tested."""
        return len({line.setting for line in self.lines})

    @property
    def agree(self) -> int:
        """In how many of them all tests have the claimed sign."""
        wrong = {line.setting for line in self.lines if not line.agrees}
        return self.settings - len(wrong)


def stand_in_for(metric: str, wanted: Sequence[str]) -> str:
    """The title of the metric that this one stands in for; "" where it is the one that is asked for."""
    real = METRICS[metric].stand_in_for
    if real in METRICS:
        return METRICS[real].title
    return "" if metric == wanted[0] else METRICS[wanted[0]].title


def _line(row: dict[str, Any], place: int, metric: str, test: Test) -> Line:
    """A comparison's line as a test, its difference in the claim's sense."""
    from directcm.statistics.equivalence import equivalent, one_sided
    from directcm.statistics.inference import cautious_p

    if test.turned:
        # What the claim names as better comes first.
        row |= {"a": row["b"], "b": row["a"], "mean_a": row["mean_b"], "mean_b": row["mean_a"]}
        row |= {name: 0.0 - row[of] for name, of in (("difference", "difference"), ("low", "high"), ("high", "low"))}
    difference, sign = row["difference"], test.sign(metric)
    errors = (defined(row["se_seeds"]), defined(row["se_prompts"]))
    sizes = int(row["n_seeds"]), int(row["n"])
    cautious = cautious_p(difference, *errors, *sizes)
    margin = test.within(row["mean_b"])
    if margin is not None:
        # Without a spread nothing is shown, nor is anything within a margin of 0 % of nothing.
        both = equivalent(difference, margin, *errors, *sizes) if margin > 0 else None
        return Line(place, metric, sign, row, cautious, *(both or (1.0, 1.0)), margin)
    # The line's own p is the same. One that was compared before it was has Satterthwaite's, which is too small at few seeds.
    found = [p for p in (row["p"], cautious) if p is not None and not math.isnan(p)]
    sides = [one_sided(p, difference, sign) for p in found]
    return Line(place, metric, sign, row, cautious, max(s[0] for s in sides), max(s[1] for s in sides))


def _check(rows: pd.DataFrame, metric: str, path: str | Path) -> None:
    """UserError where a comparison lacks what a test needs, or has no possible p."""
    if rows[["difference", "mean_a", "mean_b", "n", "n_seeds"]].isna().any(axis=None):
        raise UserError(f"{path}: a line of {metric} lacks its difference, means or n; make it again")
    for name in ("p", "p_prompts"):
        if len(wrong := rows[name][~rows[name].fillna(0).between(0, 1)]):
            raise UserError(f"{path}: {name} is {wrong.iloc[0]:g}, expected 0 to 1; make it again")
    if rows.duplicated(_PLACE).any():
        against = rows["reference"].iloc[0]
        raise UserError(f"{path}: {metric} against {against} is there twice for one setting; make it again")


def _base(claim: Claim, config: Config) -> Setting:
    """The setting that a claim's settings differ from in its own axes."""
    if place := _place_of(claim, config):
        return place.setting
    main = main_setting(config).at(**{axis: value for axis, value in claim.at.items() if axis in SETTING_AXES})
    if claim.axis is not None:
        return main.at(**{claim.axis: claim.tests[0].better})
    return base_setting(config, claim.over[0]) if claim.over in (["N"], ["w"]) else main


def _place_of(claim: Claim, config: Config) -> Plan | None:
    """Where a claim's contrast is taken; None where it is about none, or the grid has it not."""
    found = contrasts_of(claim, config)
    return plan(found[0], config) if found else None


def _candidates(claim: Claim, rows: pd.DataFrame, config: Config) -> pd.DataFrame:
    """The lines that belong to a claim's settings, of all metrics."""
    first, second = claim.pair
    own = rows[(rows["what"] == claim.what) & (rows["a"] == first) & (rows["b"] == second)]
    own = select_axis(own, _base(claim, config), claim.free & {*SETTING_AXES})
    if claim.contrasted:
        return own
    if SAMPLING in claim.at:
        own = own[own[SAMPLING] == claim.at[SAMPLING]]
    elif SAMPLING not in claim.free:
        # More steps than the fewest: the most, unless the claim is about every number of them.
        own = own[own[SAMPLING] == sampling_numbers(config)[-1 if claim.what == MORE else 0]]
    if claim.axis is None and claim.what != ALONG:
        own = own[own["a_step"] == own["b_step"]]
    if claim.axis is None and STEP not in claim.free:
        # Along training from the first snapshot alone; else finished students.
        start = own.groupby([*SETTING_AXES, SAMPLING])["b_step"].transform("min")
        own = own[own["b_step"] == (start if claim.what == ALONG else own["steps"])]
    # In a fixed order: which of two equal settings is shown must not depend on that of the file.
    return own.sort_values(_PLACE, key=lambda column: column.map(spell), kind="stable")


def _expected(claim: Claim, config: Config) -> list[Setting]:
    """The settings of the whole grid that a claim is about: those whose comparison the grid makes possible."""
    if claim.contrasted:
        return [place.setting] if (place := _place_of(claim, config)) else []
    main = _base(claim, config)
    seeds: dict[Setting, dict[str, set[int]]] = {}
    for run in config.runs() if claim.axis is None else [first for first, _ in twins(claim, config)]:
        if claim.what == ALONG and not config.snapshots(run):
            continue
        if claim.what == MORE and len({k for step, k in config.sets(run) if step == run.steps}) < 2:
            continue
        if SAMPLING in claim.at and (run.steps, claim.at[SAMPLING]) not in config.sets(run):
            continue
        if run.setting.but(*claim.free) == main.but(*claim.free):
            seeds.setdefault(run.setting, {}).setdefault(METHODS[run.method], set()).add(run.seed)
    first, second = claim.pair
    return [setting for setting, found in seeds.items() if found.get(first, set()) & found.get(second, set())]


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
    names = {
        SAMPLING: "sampling steps",
        "lr": "learning rate",
        STEP: "step",
        "pool": "start points",
        TIME: "start time",
    }
    return f"{names.get(axis, axis)} {'' if axis in (STEP,) else '= '}{shown(axis, value)}"


def _missing(claim: Claim, rows: pd.DataFrame, config: Config) -> str:
    """Why a claim was not run, "" where all its settings are there."""
    if claim.unit == "teacher":
        if len(rows):
            return ""
        alike = [run for run in config.over_teachers() if run.setting.at(teacher_seed=0) == _base(claim, config)]
        if {METHODS[run.method] for run in alike if run.teacher_seed} >= {*claim.pair}:
            return "the students of other teachers are not in this run; make paper runs the whole grid"
        return "this run compares one teacher's students alone; teacher_seed in students adds others"
    expected = _expected(claim, config)
    if not expected:
        test = claim.tests[0]
        if claim.contrasted:
            _, axis, values = claim.contrasted[0]
            which = f"{axis} {' and '.join(values)}" if values else f"two values of {axis} or more"
            who = "both methods" if claim.pair[0] != claim.pair[1] else claim.pair[0]
            return f"the grid has not {who} at {which}, all else equal, with a seed in common; add them to students"
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
        if axis in SETTING_AXES and len({getattr(e, axis) for e in expected}) < 2:
            return f"the grid has one value of {axis} only ({shown(axis, getattr(expected[0], axis))}); add others to students"
    if claim.contrasted and rows.empty:
        return "what it goes over is not in this run; make paper runs the whole grid"
    there = {*keys_of(rows, SETTING_AXES)}
    lacking = [e for e in expected if tuple(e.axes().values()) not in there]
    if lacking:
        main = main_setting(config).axes()
        wanted = lacking[0].axes()
        axes = [axis for axis in SETTING_AXES if axis in claim.over or wanted[axis] != main[axis]]
        parts = [worded(axis, wanted[axis]) for axis in axes]
        parts += [worded(SAMPLING, claim.at[SAMPLING])] if SAMPLING in claim.at else []
        first = ", ".join(parts) or "the main setting"
        more = ", …" if len(lacking) > 1 else ""
        return (
            f"{len(lacking)} of {len(expected)} settings {'are' if len(lacking) > 1 else 'is'} not in this run ({first}{more}); "
            "make paper runs the whole grid"
        )
    for axis in claim.over:
        name = {STEP: "b_step"}.get(axis, axis)
        if axis not in SETTING_AXES and rows[name].nunique() < 2:
            name = "snapshots" if axis == STEP else "sampling_steps"
            return f"this run has one value of {axis} only; add {name} to students"
    return ""


def _combined(claim: Claim, lines: Sequence[Line]) -> tuple[float, float, Line]:
    """(p_for, p_against, decisive line) over tests and settings."""
    groups: dict[tuple[Any, ...], list[Line]] = {}
    for line in lines:
        groups.setdefault(line.setting, []).append(line)
    # Within a setting all tests must succeed, so the weakest speaks for it, and any of k may speak against it.
    weak = [max(group, key=lambda line: (line.p_for, -line.effect)) for group in groups.values()]
    strong = [min(group, key=lambda line: (line.p_against, line.effect)) for group in groups.values()]
    against = [min(1.0, len(g) * line.p_against) for g, line in zip(groups.values(), strong, strict=True)]
    # Of k settings the hardest counts where all must hold, k times the easiest where one will do.
    every = claim.quantifier == "every"
    weakest = (max if every else min)(weak, key=lambda line: (line.p_for, -line.effect))
    contrary = (min if every else max)(zip(against, strong, strict=True), key=lambda found: (found[0], found[1].effect))
    p_for = min(1.0, weakest.p_for * (1 if every else len(weak)))
    p_against = min(1.0, contrary[0] * (len(weak) if every else 1))
    return p_for, p_against, contrary[1] if p_against < p_for else weakest


def _judged(claim: Claim, rows: pd.DataFrame, config: Config, path: str | Path) -> Verdict:
    """A claim's verdict before the families are adjusted: undecided where it was tested."""
    chosen = [evaluated(test, config) for test in claim.tests]
    metrics = [metric for metric in chosen if metric is not None]
    if None in chosen:
        wanted = claim.tests[chosen.index(None)].metric
        needs = METRICS[wanted[0]]
        why = f"its extractor is {needs.extractor}" if needs.extractor else "it is not among this run's metrics"
        if needs.needs_labels and wanted[0] in config.metrics:
            why = "the images have no labels"
        names = " or ".join(METRICS[m].title for m in wanted)
        return Verdict(claim, UNTESTABLE, f"{names} was not evaluated in this run: {why}")
    candidates = _candidates(claim, rows, config)
    if reason := _missing(claim, candidates, config):
        return Verdict(claim, NOT_RUN, reason, metrics)
    settings = len(candidates.drop_duplicates(_PLACE))
    lines: list[Line] = []
    for place, (test, metric) in enumerate(zip(claim.tests, metrics, strict=True), 1):
        own = candidates[(candidates["metric"] == metric) & (candidates["reference"] == test.reference)]
        _check(own, metric, path)
        # What is judged by prompts alone, where seeds and prompts together give no p, is not judged.
        tested = own[own["p"].notna()].to_dict("records")
        lines += [_line(row, place, metric, test) for row in tested]
        if lacking := settings - len(tested):
            reason = (
                f"{METRICS[metric].title} has no p-value in {lacking} of {settings} setting{'s' * (settings > 1)}: "
                "it is not defined there, or one seed says nothing"
            )
    if reason:
        return Verdict(claim, UNTESTABLE, reason, metrics)
    p_for, p_against, decisive = _combined(claim, lines)
    p = min(1.0, 2 * min(p_for, p_against))
    return Verdict(claim, UNDECIDED, "", metrics, lines, decisive, p_for, p_against, p)


def _detectable(verdict: Verdict, level: float) -> float | None:
    """The smallest true difference, or margin, that would be shown with a power of POWER at a level, by the decisive line's spread."""
    from directcm.statistics.power import detectable

    assert verdict.decisive is not None
    row = verdict.decisive.row
    # Where two are equal both one-sided tests have to succeed: each in half of the cases in which one fails.
    wanted = POWER if verdict.decisive.margin is None else (1 + POWER) / 2
    errors = (defined(row["se_seeds"]), defined(row["se_prompts"]))
    return detectable(*errors, int(row["n_seeds"]), int(row["n"]), level, wanted)


def judge(claims: Sequence[Claim], rows: pd.DataFrame, config: Config, path: str | Path) -> list[Verdict]:
    """The verdicts, in the claims' order, from comparisons.csv's `rows`; `path` is that file, for messages."""
    from directcm.statistics.families import gatekept, left_over

    out = [_judged(claim, rows, config, path) for claim in claims]
    alpha = config.statistics.alpha
    tested = [v for v in out if v.p is not None]
    first, second = ([v for v in tested if (v.claim.family == PRIMARY) == own] for own in (True, False))
    found = gatekept([v.p for v in first if v.p is not None], [v.p for v in second if v.p is not None])
    part = left_over(sum(p <= alpha for p in found[0]), len(first)) if first else 1.0
    # What a family has of α, and each of its claims surely: a share of it.
    for family, adjusted, has in ((first, found[0], alpha), (second, found[1], alpha * part)):
        for verdict, p in zip(family, adjusted, strict=True):
            verdict.p_adjusted, verdict.level = p, has / len(family)
            assert verdict.p_for is not None and verdict.p_against is not None
            if p <= alpha:
                verdict.verdict = HOLDS if verdict.p_for < verdict.p_against else FAILS
            elif verdict.level > 0:
                verdict.detectable = _detectable(verdict, verdict.level)
    return out


def crossed_teachers(group: pd.DataFrame, level: float) -> Crossed:
    """The mean of one comparison's differences under T teachers, a line each, with teachers and prompts both random.

    The differences d_t stand in for those of seeds: V = s_d²/T + v_p. All teachers share the prompts, and how alike they are there is not
    in the table: v_p is the square of the mean of their standard errors over prompts, as if they were wholly alike, which errs upwards.
    No interval and no p where one of these is not known.
    """
    from directcm.statistics.inference import crossed

    errors = group["se_prompts"]
    shared = None if errors.isna().any() else float(errors.mean()) ** 2
    return crossed(group["difference"].to_numpy(), shared, int(group["n"].min()), level)


def over_teachers(rows: pd.DataFrame, level: float) -> pd.DataFrame:
    """One line for the lines of several teachers: comparisons of methods with a column teacher_seed → lines whose units are teachers.

    Each by `crossed_teachers`. A line of one teacher, or without a spread over prompts, has none here.
    """
    import pandas as pd

    out = []
    own = rows[rows["what"] == METHOD]
    for _, group in own.groupby([*_PLACE, "a", "b", "metric", "reference"], sort=False):
        if len(group) < 2 or group["difference"].isna().any() or group["se_prompts"].isna().any():
            continue
        whole = crossed_teachers(group, level)
        found = {
            name: getattr(whole, name) for name in ("difference", "low", "high", "se_seeds", "se_prompts", "df", "p")
        }
        means = {name: group[name].mean() for name in ("mean_a", "mean_b")}
        sizes = {
            "n": group["n"].min(),
            "n_seeds": len(group),
            "seeds_agree": (group["difference"] * whole.difference > 0).sum(),
        }
        out.append(
            {
                **group.iloc[0],
                **found,
                **means,
                **sizes,
                "level": level,
                "what": TEACHERS,
                "test": TEACHERS,
                "p_prompts": math.nan,
            }
        )
    return pd.DataFrame(out, columns=COMPARISON_COLUMNS)


def verdicts_of(
    claims_yaml: str | Path, comparisons_csv: str | Path, config: Config, teachers_csv: str | Path | None = None
) -> list[Verdict]:
    """The verdicts on the claims of a file that are about this run, from a scope's comparisons.csv, and from that over teachers.

    `teachers_csv` has the columns of comparisons.csv and teacher_seed, a line for each teacher. Raises UserError for a claim that is not
    one, and for a table that lacks columns or holds no numbers, or a teacher twice.
    """
    import pandas as pd

    asked = about(read_claims(claims_yaml), config)
    rows = frame(comparisons_csv, COMPARISON_COLUMNS, empty=True)
    if teachers_csv is not None:
        each = frame(teachers_csv, ("teacher_seed", *COMPARISON_COLUMNS), empty=True)
        if each.duplicated(["teacher_seed", "what", *_PLACE, "a", "b", "metric", "reference"]).any():
            raise UserError(f"{teachers_csv}: a comparison is there twice for a teacher; collect again")
        pooled = over_teachers(each, config.statistics.level)
        rows = pd.concat([rows, pooled], ignore_index=True) if len(pooled) else rows
    return judge(asked, rows, config, comparisons_csv)
