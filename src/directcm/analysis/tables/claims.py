"""The verb `claims`: the verdicts on the claims in words, as CSV, LaTeX, a page and JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from directcm.analysis.data.contrasts import FROM, LINEAR, LOG, MEAN
from directcm.analysis.data.selection import describe, main_setting, sampling_numbers
from directcm.analysis.data.tidy import save
from directcm.analysis.page import plain, write_page
from directcm.analysis.tables.claim import ALONG, MORE, PRIMARY, SAMPLING, STEP, TEACHERS, TIME
from directcm.analysis.tables.sheet import write_tex
from directcm.analysis.tables.verdict import (
    FAILS,
    HOLDS,
    NOT_RUN,
    POWER,
    UNDECIDED,
    UNTESTABLE,
    Line,
    Verdict,
    shown,
    stand_in_for,
    verdicts_of,
    worded,
)
from directcm.config import SETTING_AXES, Config
from directcm.config.specs import METRICS
from directcm.runtime.artifacts import read_csv, write_json
from directcm.statistics.families import TRUNCATION

SYMBOLS = {HOLDS: "✓", FAILS: "✗", UNDECIDED: "?", UNTESTABLE: "–", NOT_RUN: "○"}
GROUPS = {"paper": "The paper's claims", "ours": "Our own", "others": "Claims of other papers"}
COLUMNS = [
    "id", "source", "where", "says", "family", "verdict", "reason", "unit", "quantifier", "p_for", "p_against", "p",
    "p_adjusted", "alpha", "detectable", "detectable_alpha", "n_settings", "settings_agree", "test", "metric", "stands_in_for", "reference", "claimed_sign", "margin", "what", "a", "b",
    *SETTING_AXES, "a_step", "b_step", "sampling_steps", "mean_a", "mean_b", "difference", "low", "high", "level",
    "relative_percent", "n", "n_seeds", "p_crossed", "p_cautious", "p_prompts", "p_test_for", "p_test_against", "decisive",
]  # fmt: skip


# ----------------------------------------------------------------- in words


def _digits(value: float, metric: str, signed: bool = False) -> str:
    """A value at its metric's decimals, with a true minus; one that would be rounded away at two significant digits."""
    decimals = METRICS[metric].decimals
    form = ".1e" if value and abs(value) < 5 * 10**-decimals else f".{decimals}f"
    return f"{value:{'+' if signed else ''}{form}}".replace("-", "−")


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


NAMED = {
    "adapter": "rank",
    "lr": "learning rate",
    "pool": "start points",
    SAMPLING: "sampling steps",
    STEP: "training steps",
    TIME: "start time",
}


def _over(row: Mapping[str, Any]) -> str:
    """What a contrast is taken over: "per doubling of N", "mean over solver"; "" of a line that is none."""
    what: list[str] = [*str(row["what"]).split("~"), ""]
    how, axis, values = what[0], what[1], what[2:]
    if how == MEAN:
        return f"mean over {NAMED.get(axis, axis) if axis != 'adapter' else axis}"
    if how == FROM:
        return f"{shown(axis, values[1])} less {shown(axis, values[0])}"
    name = NAMED.get(axis, axis)
    return {
        LOG: f"per doubling of {name}",
        LINEAR: "from the data to the largest time" if axis == TIME else f"per unit of {name}",
    }.get(how, "")


def _place(verdict: Verdict, line: Line, config: Config) -> str:
    """Which setting a line is of, in the axes that its claim varies."""
    claim, main = verdict.claim, main_setting(config)
    parts = []
    for axis in (*claim.over, *claim.also, *claim.at):
        if axis in SETTING_AXES and (axis in claim.over or line.row[axis] != getattr(main, axis)):
            parts.append(worded(axis, line.row[axis]))
        elif axis == SAMPLING:
            parts.append(worded(axis, line.row["sampling_steps"]))
        elif axis == STEP and claim.what != ALONG:
            parts.append(worded(axis, line.row["a_step"]))
    if claim.contrasted:
        # Around another setting, where the main one's axis is not swept; the axis itself has no value there.
        own = [axis for axis in SETTING_AXES if axis not in (*claim.at, claim.contrasted[0][1])]
        parts += [worded(axis, line.row[axis]) for axis in own if line.row[axis] != getattr(main, axis)]
        if claim.contrasted[0][1] == STEP:
            parts.append(f"step {line.row['b_step']:.0f} to {line.row['a_step']:.0f}")
    if claim.what == ALONG:
        parts.append(f"step {line.row['b_step']:.0f} to {line.row['a_step']:.0f}")
    if claim.axis is not None:
        parts.append(worded(claim.axis, line.row[claim.axis]) + f" against {shown(claim.axis, claim.tests[0].than)}")
    if claim.what == MORE and SAMPLING not in claim.free:
        parts.append(f"{line.row['sampling_steps']:.0f} sampling steps against {sampling_numbers(config)[0]}")
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
    power: str
    family: str
    p: str

    @property
    def basis(self) -> tuple[str, ...]:
        """What the verdict rests on, line by line."""
        return tuple(text for text in (*self.effects, self.place, self.sizes, self.power) if text)


_KINDS = {
    ("every", False): "weakest", ("every", True): "most contrary", ("some", False): "clearest", ("some", True): "least contrary",
}  # fmt: skip


def _sides(row: Mapping[str, str]) -> tuple[str, str]:
    """What a line's a and b are called: two methods, two values of an axis, or two ends of one method."""
    axis, _, other = row["what"].partition("~")
    if other and axis in SETTING_AXES:
        return shown(axis, row[axis]), shown(axis, other)
    names = {ALONG: ("later", "earlier"), MORE: ("more steps", "fewest")}
    return names.get(row["what"], (row["a"], row["b"]))


def _effect(line: Line) -> str:
    """Both values of a test, their difference with its interval and what it is of, and the difference in per cent, or its margin."""
    v, metric = line.row, line.metric
    first, second = _sides(line.row)
    side = {"teacher": " to the teacher", "other_noise": " to the teacher under another noise", "data": " to the data"}
    against = side.get(line.row["reference"], "") if len(METRICS[metric].references) > 1 else ""
    interval = ""
    if not (math.isnan(v["low"]) or math.isnan(v["high"])):
        interval = f" [{_digits(v['low'], metric, True)}, {_digits(v['high'], metric, True)}]"
    relative = "" if math.isnan(line.relative) else f" ({line.relative:+.0f} %)".replace("-", "−")
    over = _over(v)
    trend = bool(over) and not v["what"].startswith(MEAN)
    a, b = (_digits(v[name], metric, trend) for name in ("mean_a", "mean_b"))
    title = f"{METRICS[metric].title}{against}{', ' + over if over else ''}"
    within = "" if line.margin is None else f"; margin ±{_digits(line.margin, metric)}"
    if over and first == second:
        return f"{title}: {first} {_digits(v['difference'], metric, True)}{interval}{within}"
    return f"{title}: {first} {a}, {second} {b}; {first} − {second}: {_digits(v['difference'], metric, True)}{interval}{relative}{within}"


def _power(verdict: Verdict) -> str:
    """What an undecided claim's seeds and prompts would have shown."""
    line = verdict.decisive
    if verdict.level == 0:
        return "nothing of α is left for it: no primary claim is decided"
    if verdict.detectable is None or line is None or verdict.level is None:
        return ""
    smallest = f"{_digits(verdict.detectable, line.metric)} {METRICS[line.metric].title}"
    what = "a true difference" if line.margin is None else "equality within a margin"
    return f"shown with {100 * POWER:g} % power at α = {verdict.level:.2g}: {what} of {smallest} or more"


def _replaced(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """Title of a metric that was tested → that of the one that it stands in for."""
    pairs = [pair for v in verdicts for pair in zip(v.metrics, v.claim.tests, strict=False)]
    return {METRICS[m].title: real for m, test in pairs if (real := stand_in_for(m, test.metric))}


def words(verdict: Verdict, config: Config) -> Words:
    """A verdict in words. One on a stand-in metric says on which, and is never put in the real one's name."""
    claim, line = verdict.claim, verdict.decisive
    replaced = _replaced([verdict])
    tested = verdict.verdict in (HOLDS, FAILS, UNDECIDED)
    text = verdict.verdict
    if tested and replaced:
        text += " for " + " and ".join(dict.fromkeys(METRICS[m].title for m in verdict.metrics))
    named = [f"{own} stands in for {real}, which it is not" for own, real in replaced.items() if tested]
    effects: list[str] = [] if line else [verdict.reason]
    place = sizes = ""
    if line is not None:
        effects = [_effect(x) for x in verdict.lines if x.setting == line.setting]
        place = _place(verdict, line, config)
        if verdict.settings > 1:
            contrary = (verdict.p_against or 0) < (verdict.p_for or 0)
            kind = _KINDS[claim.quantifier, contrary]
            place = f"{kind} of {verdict.settings} settings: {place}; sign as claimed in {verdict.agree}"
        seeds = [int(x.row["n_seeds"]) for x in verdict.lines]
        count = f"{min(seeds)}" if min(seeds) == max(seeds) else f"{min(seeds)} to {max(seeds)}"
        points = "start points" if line.row["what"].endswith(f"~{TIME}") else "prompts"
        unit = "teacher" if claim.what == TEACHERS else "seed"
        sizes = f"{int(min(x.row['n'] for x in verdict.lines)):,} {points}, {count} {unit}{'s' * (max(seeds) > 1)}"
        if min(seeds) == 1 and unit == "seed":
            sizes += ": nothing about other seeds"
    return Words(
        verdict.verdict, SYMBOLS[verdict.verdict], text, claim.says, claim.where, "; ".join(named), tuple(effects), place, sizes,
        _power(verdict), claim.family, _p(verdict.p_adjusted),
    )  # fmt: skip


def scale(config: Config) -> str:
    """The sentence that stands above all verdicts: what "here" is."""
    small = ", and none says anything about SDXL" if config.teacher.kind != "diffusers" else ""
    return (
        f"“Here” is this run alone ({plain(describe(config))}): no verdict reaches beyond its data set, its teacher and its "
        f"image size{small}."
    )


def _counts(verdicts: Sequence[Verdict]) -> str:
    found = {name: sum(v.verdict == name for v in verdicts) for name in SYMBOLS}
    parts = [f"{n} {name}" for name, n in found.items() if n]
    return f"{len(verdicts)} claim{'s' * (len(verdicts) != 1)}: " + ", ".join(parts)


def stand_ins(verdicts: Sequence[Verdict]) -> list[str]:
    """Which metrics stand in for which, where any do."""
    replaced = _replaced(verdicts)
    named = ", ".join(f"{own} for {real}" for own, real in replaced.items())
    sentence = f"Metrics on a small network trained on this run's own images stand in for the paper's: {named}. They are not these."
    return [sentence] if replaced else []


def notes(verdicts: Sequence[Verdict], config: Config) -> list[str]:
    """What a reader must know to read the verdicts, as plain text."""
    alpha, level = config.statistics.alpha, 100 * config.statistics.level
    families = {
        own: [v for v in verdicts if v.p is not None and (v.claim.family == PRIMARY) == own] for own in (True, False)
    }
    decided = sum(v.verdict in (HOLDS, FAILS) for v in families[True])
    share = sum(v.level or 0.0 for v in families[False])
    out = [
        (
            f"A claim is shown here, or refuted, where its adjusted p is at most {alpha:g}: the chance of any wrong verdict among all of "
            f"them is at most {100 * alpha:g} %. Undecided says that these seeds and prompts do not settle it; it is no sign of equality, "
            "which is shown against a margin alone."
        ),
        (
            f"The {len(families[True])} primary claims tested are adjusted by truncated Holm (share {TRUNCATION:g}), the "
            f"{len(families[False])} secondary ones by Holm at what is left of α: multistage gatekeeping (Dmitrienko, Tamhane and Wiens "
            f"2008, Biometrical Journal 50). All of it where every primary claim is decided, else {1 - TRUNCATION:g} times the share of "
            f"them that is. Here {decided} are: the secondary claims are tested at {share:.2g} together."
        ),
        (
            "p is over training seeds and prompts together (Behrens–Fisher): a claim must survive other seeds and other prompts. That two are equal within a margin is shown by "
            "two one-sided tests (Schuirmann 1987), and refuted where the difference is significantly beyond it."
        ),
        (
            "A trend is the slope of each seed's values, or differences, over the axis, and a mean over an axis is taken seed by seed "
            "too: one number a seed, of the seeds that all values of the axis have. Its variance over prompts is that of the same contrast "
            "prompt by prompt, of distances to first order (Rippl, Munk and Sturm 2016). Claims with several tests need all of "
            "them; a claim about every setting holds in each, one about some setting after Bonferroni's correction. Numbers are those of "
            "the test that decides."
        ),
        (
            f"In brackets: {level:g} % interval of this one difference over seeds and prompts, not adjusted for the number of "
            "claims. In per cent: of the second value's size. Differences are what the claim names as better − the other, later − "
            "earlier in training, or more sampling steps − the fewest: where less of a metric is better, one below 0 speaks for a "
            "method that is claimed to be better, and where more is, one above 0. That a lead grows is a slope of that same sign."
        ),
        (
            f"Power, where a claim stays undecided: the smallest true difference that as many seeds and prompts show in {100 * POWER:g} % of "
            "cases, at the part of α that the claim has whatever the others say, and with the spread that was found, which a few "
            "seeds tell only roughly."
        ),
    ]  # fmt: skip
    out += stand_ins(verdicts)
    if any(line.row["n_seeds"] == 1 for v in verdicts for line in v.lines):
        out.append(
            "Where there is one seed, the verdict is about these trained students and says nothing about other seeds."
        )
    out.append("Every number behind a verdict, setting by setting, is in the CSV file of the same name.")
    return out


def in_groups(verdicts: Sequence[Verdict], config: Config) -> list[dict[str, Any]]:
    """The verdicts in words, by whose claims they are on: title, counts and rows."""
    groups = [(title, [v for v in verdicts if v.claim.source == source]) for source, title in GROUPS.items()]
    return [
        {"title": title, "counts": _counts(group), "rows": [words(v, config) for v in group]}
        for title, group in groups
        if group
    ]


# ----------------------------------------------------------------- files


def _rows(verdict: Verdict, alpha: float) -> list[dict[str, Any]]:
    """A claim's lines of claims.csv: one per test and setting, or one alone where it was not tested."""
    claim = verdict.claim
    whole = {name: getattr(claim, name) for name in ("id", "source", "where", "says", "family", "unit", "quantifier")}
    whole |= {
        name: getattr(verdict, name)
        for name in ("verdict", "reason", "p_for", "p_against", "p", "p_adjusted", "detectable")
    }
    whole |= {
        "alpha": alpha,
        "detectable_alpha": None if verdict.detectable is None else verdict.level,
        "n_settings": verdict.settings,
        "settings_agree": verdict.agree,
    }
    if not verdict.lines:
        return [whole | {"n_settings": None, "settings_agree": None}]
    return [
        {
            **line.row, **whole, "test": line.test, "stands_in_for": stand_in_for(line.metric, claim.tests[line.test - 1].metric),
            "claimed_sign": "=" if line.sign == 0 else "+" if line.sign > 0 else "-", "margin": line.margin, "relative_percent": line.relative, "p_crossed": line.row["p"],
            "p_cautious": line.p_cautious, "p_test_for": line.p_for, "p_test_against": line.p_against,
            "decisive": "yes" if line is verdict.decisive else "no",
        }
        for line in verdict.lines
    ]  # fmt: skip


def claims(
    claims_yaml: str | Path,
    comparisons_csv: str | Path,
    config: Config,
    out_csv: str | Path,
    out_tex: str | Path,
    out_html: str | Path,
    out_json: str | Path,
    teachers_csv: str | Path | None = None,
) -> list[Verdict]:
    """Write the verdicts: every number as CSV (COLUMNS), LaTeX, a page, and {id: verdict} as JSON. Errors: `verdicts_of`."""
    verdicts = verdicts_of(claims_yaml, comparisons_csv, config, teachers_csv)
    groups, sentence, remarks = in_groups(verdicts, config), scale(config), notes(verdicts, config)
    save(out_csv, [row for v in verdicts for row in _rows(v, config.statistics.alpha)], COLUMNS)
    write_tex(out_tex, "tables/claims.tex", groups=groups, scale=sentence, notes=remarks)
    title = "The claims, and what is shown here"
    write_page(out_html, "tables/claims.html", title=title, scale=sentence, groups=groups, notes=remarks)
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
            over = f", {found}" if (found := _over(row)) else ""
            sides = f"{first} − {second}" if first != second else first
            unit = "teacher" if row["what"] == TEACHERS else "seed"
            count = f"{row['n_seeds']} {unit}{'s' * (row['n_seeds'] != '1')}"
            effect = f"  ({spec.title}{over}, {sides}: {a} [{low}, {high}], {count})"
        lines.append(f"{row['verdict']:<30}  {row['says']}{effect}")
    return "\n".join(lines)
