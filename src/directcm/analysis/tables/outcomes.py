"""The verb `outcomes`: what came out of the experiments on why, as CSV, LaTeX, a page, JSON and the report's first page.

Its numbers are those of the verb `why`, a file an experiment; the words are workflow/why.yaml's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from directcm.analysis.data.experiments import (
    CLOSED,
    DISPLACEMENT,
    REFUTED,
    SUPPORTED,
    UNDECIDED,
    UNTESTABLE,
    Experiment,
    read_experiments,
)
from directcm.analysis.data.places import missing, present
from directcm.analysis.data.selection import describe
from directcm.analysis.data.why import ARMS, CONTRARY, POWER, SHOWN, TESTS
from directcm.analysis.page import plain, write_page
from directcm.analysis.tables.sheet import Cell, Groups, Head, Row, Sheet, Tex
from directcm.analysis.tables.sheet import write as write_sheets
from directcm.analysis.tables.text import fixed, shown_p
from directcm.config import Config
from directcm.config.specs import METRICS
from directcm.errors import UserError
from directcm.runtime.artifacts import read_csv, write_csv, write_json

COLUMNS = [
    "experiment", "name", "title", "says", "refuted_by", "outcome", "p", "p_holm", "unit", "n_units", "n_prompts", "decides", "means", "fresh",
    "changed",
]  # fmt: skip
SYMBOLS = {SUPPORTED: "✓", REFUTED: "✗", UNDECIDED: "?", UNTESTABLE: "–"}
OUTCOME = "outcome"
AGAINST = {"teacher": " to the teacher", "other_noise": " to the teacher under another noise", "data": " to the data"}

Line = Mapping[str, str]


def number(text: str | None) -> float:
    """A field as a number; NaN where it is empty."""
    return float(text) if text else math.nan


def titled(metric: str, reference: str = "") -> str:
    """ "FD-tiny to the data": a metric, and against what, where it has several references."""
    if metric == DISPLACEMENT:
        return "Distance travelled"
    if not reference:
        return CLOSED[metric][0] if metric in CLOSED else METRICS[metric].title
    spec = METRICS[metric]
    return spec.title + (AGAINST.get(reference, "") if len(spec.references) > 1 else "")


def decimals_of(line: Line) -> int:
    """How many decimals a test's numbers have: its metric's, or as many as its interval has two digits at."""
    own = METRICS[line["metric"]].decimals if line["metric"] in METRICS else 3
    half = (number(line["high"]) - number(line["low"])) / 2
    return own if not half > 0 else max(own, min(1 - math.floor(math.log10(half)), 6))


def estimate(line: Line) -> str:
    """ "−0.280"."""
    return fixed(number(line["estimate"]), decimals_of(line), True)


def interval(line: Line) -> str:
    """ "[−0.350, −0.210]"; "" where there is none."""
    if not line["low"]:
        return ""
    low, high = (fixed(number(line[name]), decimals_of(line), True) for name in ("low", "high"))
    return f"[{low}, {high}]"


def margin(line: Line) -> str:
    """ "±0.005"; "" where there is none."""
    return f"±{fixed(number(line['margin']), decimals_of(line))}" if line["margin"] else ""


def sizes(line: Line) -> str:
    """ "5 teachers, 1,024 prompts"."""
    if not line["n_units"]:
        return ""
    count = int(line["n_units"])
    units = f"{count} {line['unit']}{'s' * (count != 1)}"
    return units + (f", {int(line['n_prompts']):,} prompts" if line["n_prompts"] else "")


def effect(line: Line) -> str:
    """A test's number: what it is of, estimate, interval, margin, n; why there is none, where there is none."""
    if not line["estimate"]:
        return line["reason"]
    within = f", margin {margin(line)}" if line["margin"] else ""
    return f"{titled(line['metric'], line['reference'])} {estimate(line)} {interval(line)}{within} ({sizes(line)})"


def power(line: Line) -> str:
    """What an undecided test would have shown."""
    if not line["detectable"]:
        return ""
    size = f"{fixed(number(line['detectable']), decimals_of(line))} {titled(line['metric'])}"
    what = f"equality within {size}" if line["claim"] == "equal" else size
    return f"{what} would have been shown with {100 * POWER:g} % power"


@dataclass(frozen=True)
class Found:
    """An experiment that was run: its name in why.yaml, what that says, its outcome's line, and its tests'."""

    name: str
    experiment: Experiment
    outcome: Line
    tests: Sequence[Line]

    @property
    def letter(self) -> str:
        return self.name[0]

    @property
    def deciding(self) -> list[Line]:
        return [line for line in self.tests if line["deciding"] == "yes"]

    @property
    def verdict(self) -> str:
        return self.outcome["verdict"]

    @property
    def meaning(self) -> str:
        """What was said beforehand that its outcome would mean."""
        return "" if self.verdict == UNTESTABLE else getattr(self.experiment.means, self.verdict)


def found_in(experiments_yaml: str | Path, tests: Sequence[str | Path], config: Config) -> list[Found]:
    """The experiments behind these files of `why`, by letter; UserError where a file is none, or is of no experiment of this grid."""
    known = read_experiments(experiments_yaml)
    here = present(known, config)
    out = []
    for path in tests:
        lines = read_csv(path)
        if (
            not lines
            or set(lines[0]) != set(TESTS)
            or lines[0]["test"] != OUTCOME
            or lines[0]["experiment"] not in here
        ):
            raise UserError(f"{path}: holds no outcome of an experiment of this grid; make it again: directcm why")
        name = here[lines[0]["experiment"]]
        own = [line["test"] for line in lines[1:]]
        if own != [*known[name].tests]:
            raise UserError(
                f"{path}: its tests are not those of {name} in {experiments_yaml}; make it again: directcm why"
            )
        out.append(Found(name, known[name], lines[0], lines[1:]))
    return sorted(out, key=lambda one: one.letter)


def rows(found: Sequence[Found]) -> list[dict[str, Any]]:
    """The lines of outcomes.csv (COLUMNS)."""
    from directcm.statistics.inference import holm

    known = [one for one in found if one.outcome["p"]]
    adjusted = dict(zip((one.name for one in known), holm([number(one.outcome["p"]) for one in known]), strict=True))
    out = []
    for one in found:
        units = [int(line["n_units"]) for line in one.deciding if line["n_units"]]
        prompts = [int(line["n_prompts"]) for line in one.deciding if line["n_prompts"]]
        out.append(
            {
                "experiment": one.letter, "name": one.name, "outcome": one.verdict, "p": one.outcome["p"],
                "p_holm": f"{adjusted[one.name]:.10g}" if one.name in adjusted else None,
                **{key: plain(getattr(one.experiment, key)) for key in ("title", "says", "refuted_by", "unit", "fresh")},
                "n_units": min(units, default=None), "n_prompts": min(prompts, default=None),
                "decides": "; ".join(f"{line['says']}: {line['verdict']}, {effect(line)}" for line in one.deciding),
                "means": plain(one.meaning), "changed": "; ".join(map(plain, one.experiment.changed)),
            }
        )  # fmt: skip
    return out


def test_row(line: Line) -> Row:
    """A test as a line of the table."""
    sure = line["verdict"] in (SHOWN, CONTRARY)
    decides = line["p_holm"] or line["p"]
    within = f" ({margin(line)})" if line["margin"] else ""
    cells = [
        Cell(titled(line["metric"], line["reference"]) if line["metric"] else None),
        Cell(estimate(line) + within if line["estimate"] else None, sure),
        Cell(interval(line) or None),
        Cell(shown_p(number(decides)) if decides else None, sure),
        Cell(sizes(line) or None),
        Cell(line["verdict"] if line["estimate"] else line["reason"]),
    ]
    return Row(Head(plain(line["says"])), cells)


HEADS = ["Metric", "Contrast (margin)", "Interval", "p", "n", "What is found"]


def sheet(found: Sequence[Found], config: Config, groups: Groups, caption: str) -> Sheet:
    kinds = ("words", "number", "number", "number", "words", "words")
    return Sheet(
        name="why", title="Why: the outcomes of the experiments", caption=caption, settings=plain(describe(config)),
        corner="What is claimed", heads=[Head(text, kind=kind, label=text) for text, kind in zip(HEADS, kinds, strict=True)],  # type: ignore[arg-type]
        groups=groups, notes=notes(found, config), spoken=" (shown)",
    )  # fmt: skip


def notes(found: Sequence[Found], config: Config) -> list[str]:
    """What a reader must know, as plain text."""
    alpha, level = config.statistics.alpha, 100 * config.statistics.level
    out = [
        f"Each number is a linear contrast of arms, taken for each unit (a training seed, or a teacher) and each prompt; {level:g} % intervals and p are over "
        "units and prompts together (Behrens–Fisher). Equality: two one-sided tests (Schuirmann 1987); a margin that is a share of an arm is estimated with it.",
        f"An outcome follows from its deciding tests by the rule in workflow/why.yaml: of tests that must all succeed the largest p counts, of tests any of "
        f"which will do the smallest times their number. Supported or refuted where the one-sided p is at most {alpha / 2:g}. Further tests are adjusted by "
        "Holm's method within their experiment. Outcomes are each at α; outcomes.csv has them adjusted for one another too.",
        "Undecided is no sign of equality: an equality is shown against its margin alone.",
    ]
    changed = [f"{one.letter}: {plain(text)}" for one in found for text in one.experiment.changed]
    out.append("Changed after a look: " + ("; ".join(changed) if changed else "nothing") + ".")
    return out + [
        f"{one.letter}, what had been looked at before: {plain(one.experiment.fresh)}"
        for one in found
        if one.experiment.fresh
    ]


def heading(one: Found) -> str:
    return f"{one.letter}. {plain(one.experiment.title)}: {one.verdict}"


def write(
    experiments_yaml: str | Path, tests: Sequence[str | Path], config: Config, out_csv: Path, opening: Path
) -> None:
    """Write outcomes.csv (COLUMNS) with LaTeX, a page and JSON beside it, NAME_arms.csv with every arm's numbers, and the report's first page."""
    found = found_in(experiments_yaml, tests, config)
    lines = rows(found)
    write_csv(out_csv, lines, COLUMNS)
    write_json(out_csv.with_suffix(".json"), {one.letter: one.verdict for one in found})
    arms = [line for path in tests for line in read_csv(Path(path).with_name(f"{Path(path).stem}_arms.csv"))]
    write_csv(out_csv.with_name(out_csv.name.replace("outcomes", "arms")), arms, ARMS)
    short = [(f"{heading(one)}. {plain(one.experiment.says)}", [*map(test_row, one.deciding)]) for one in found]
    further = [
        (f"{one.letter}, further tests", [test_row(line) for line in one.tests if line["deciding"] != "yes"])
        for one in found
    ]
    caption = "The experiments on why CMs work, their hypotheses, and the tests that decide them."
    page = sheet(found, config, [*short, *(group for group in further if group[1])], caption)
    write_sheets(out_csv, page, sheet(found, config, short, Tex("Why: experiments and their outcomes.")))
    absent = dict(missing(read_experiments(experiments_yaml), config).items())
    letters = {one.letter for one in found}
    others = [f"{name}: {plain(reason)}" for name, reason in absent.items() if name[0] not in letters]
    shown = [
        {
            "head": f"{one.letter}. {plain(one.experiment.title)}", "says": plain(one.experiment.says), "verdict": one.verdict,
            "symbol": SYMBOLS[one.verdict], "p": shown_p(number(one.outcome["p"])) if one.outcome["p"] else "",
            "effects": [(plain(line["says"]), line["verdict"], effect(line), power(line)) for line in one.deciding],
            "means": plain(one.meaning),
        }
        for one in found
    ]  # fmt: skip
    write_page(
        opening, "tables/outcomes.html", title=f"Why do consistency models work? Preset {plain(config.preset)}", rows=shown,
        settings=plain(describe(config)), notes=notes(found, config)[:4], absent=others,
    )  # fmt: skip


def text(outcomes_csv: str | Path) -> str:
    """The outcomes for a terminal: a line each, and below it what decides it."""
    lines = []
    for row in read_csv(outcomes_csv):
        lines.append(f"{row['outcome']:<14}{row['experiment']}. {row['title']}: {row['says']}")
        lines += [f"{'':<14}{part}" for part in row["decides"].split("; ")]
    return "\n".join(lines)
