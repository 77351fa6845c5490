"""What docs/why.md has from the experiments on why: blocks that `directcm publish` writes from docs/data/<preset>/why.

    <!--outcomes:embedded/why-->    the outcomes, a line an experiment
    <!--tests:embedded/why/d-->     an experiment's tests
    <!--outcome:embedded/why/d-->   its outcome in a sentence
    <!--answer:embedded/why-->      what was said beforehand that these outcomes would mean
    <!--recipe:embedded/why/d-->    the best horizon by N and length of training
    <!--picture:embedded/why_dose-->   a figure

Before an experiment was run its blocks say so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from directcm.analysis.data.experiments import UNTESTABLE
from directcm.analysis.data.why import ARMS, TESTS
from directcm.analysis.tables.outcomes import (
    COLUMNS,
    OUTCOME,
    effect,
    estimate,
    interval,
    margin,
    number,
    power,
    sizes,
    titled,
)
from directcm.analysis.tables.text import fixed, shown_p
from directcm.config.specs import METRICS
from directcm.errors import UserError
from directcm.runtime.artifacts import read_csv

FOLDER = "why"
NOT_YET = "not run yet"
BLOCKS = ("outcomes", "tests", "outcome", "answer", "recipe", "picture")
FIGURES = ("why_anatomy", "fixed_points", "why_targets", "why_dose", "why_loss", "why_budget")
DISTANCES = ("fid", "fd_tiny")

Line = Mapping[str, str]


def taken(results: Path) -> list[Path]:
    """The files of a run's `why` that docs/data keeps: outcomes, tests by experiment, all arms; none of a single experiment's target."""
    found = sorted((results / FOLDER).glob("*.csv"))
    return [
        path for path in found if path.stem in ("outcomes", "arms") or (len(path.stem) == 1 and path.stem in "abcdef")
    ]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"|{'|'.join(cell.replace('|', chr(92) + '|') for cell in line)}|\n" for line in lines)


def read(path: Path, columns: Sequence[str]) -> list[dict[str, str]] | None:
    """A file's lines; None where it is not there. UserError where it has other columns."""
    if not path.is_file():
        return None
    lines = read_csv(path)
    if not lines or set(lines[0]) != set(columns):
        raise UserError(
            f"{path}: is none of `directcm why`; copy the run again: directcm publish --from results/<preset>"
        )
    return lines


def outcomes(folder: Path) -> str:
    lines = read(folder / "outcomes.csv", COLUMNS)
    if lines is None:
        return f"\nThe experiments were {NOT_YET}.\n"
    body = [
        [f"**{line['experiment']}. {line['title']}**", line["says"], f"**{line['outcome']}**", _p(line["p"]), _n(line)]
        for line in lines
    ]
    return "\n" + table(["experiment", "hypothesis", "outcome", "p", "n"], body)


def _p(text: str) -> str:
    return shown_p(number(text)) if text else "–"


def _n(line: Line) -> str:
    """The fewest units and prompts behind an outcome."""
    if not line["n_units"]:
        return "–"
    units = f"{line['n_units']} {line['unit']}s"
    return units + (f", {int(line['n_prompts']):,} prompts" if line["n_prompts"] else "")


def tests(path: Path) -> str:
    """Those that decide first."""
    lines = read(path, TESTS)
    if lines is None:
        return f"\nThis experiment was {NOT_YET}.\n"
    own = sorted((line for line in lines if line["test"] != OUTCOME), key=lambda line: line["deciding"] != "yes")
    body = []
    for line in own:
        says = f"**{line['says']}**" if line["deciding"] == "yes" else line["says"]
        if not line["estimate"]:
            body.append(
                [
                    says,
                    titled(line["metric"], line["reference"]) if line["metric"] else "",
                    "–",
                    "–",
                    "–",
                    line["reason"],
                ]
            )
            continue
        within = f" ({margin(line)})" if line["margin"] else ""
        decides = line["p_holm"] or line["p"]
        contrast = f"{estimate(line)} {interval(line)}{within}"
        body.append(
            [says, titled(line["metric"], line["reference"]), contrast, _p(decides), sizes(line), line["verdict"]]
        )
    return "\n" + table(["what is claimed", "metric", "contrast, interval (margin)", "p", "n", "found"], body)


def outcome(path: Path) -> str:
    """ "**supported** (p = 0.003): FD-tiny −0.28 [−0.35, −0.21] (5 teachers, 1,024 prompts); …"."""
    lines = read(path, TESTS)
    if lines is None:
        return f"\n**{NOT_YET}**\n"
    (whole,) = [line for line in lines if line["test"] == OUTCOME]
    deciding = [line for line in lines if line["deciding"] == "yes"]
    p = f" (p {'' if number(whole['p']) < 0.001 else '= '}{shown_p(number(whole['p']))})" if whole["p"] else ""
    said = [f"{line['says'][0].lower()}{line['says'][1:]}: {line['verdict']}, {effect(line)}" for line in deciding]
    more = [text for line in deciding if (text := power(line))]
    return f"\n**{whole['verdict']}**{p}. " + "; ".join([*said, *more]) + "\n"


def answer(folder: Path) -> str:
    """What the outcomes mean, as it was said before they were known."""
    lines = read(folder / "outcomes.csv", COLUMNS)
    if lines is None:
        return f"\nThe experiments were {NOT_YET}.\n"
    said = [
        f"{line['experiment']} is {line['outcome']}: {line['means']}" for line in lines if line["outcome"] != UNTESTABLE
    ]
    return "\n" + " ".join(said) + "\n"


def recipe(folder: Path) -> str:
    """Of each N and length of training the k whose mean Fréchet distance is least, beside both ends."""
    lines = read(folder / "arms.csv", ARMS)
    if lines is None:
        return f"\nThis experiment was {NOT_YET}.\n"
    found: dict[tuple[int, int, str], dict[int, list[float]]] = {}
    metric = next((name for name in DISTANCES if any(line["metric"] == name for line in lines)), None)
    for line in lines:
        if line["method"] == "k_step" and (line["metric"], line["reference"]) == (metric, "teacher") and line["value"]:
            cell = (int(line["N"]), int(line["step"]), line["by"])
            found.setdefault(cell, {}).setdefault(int(line["k"]), []).append(float(line["value"]))
    if not found or metric is None:
        raise UserError(f"{folder / 'arms.csv'}: has no arm of k_step, of which the recipe is")
    body = []
    for (n, step, by), own in sorted(found.items()):
        means = {k: math.fsum(values) / len(values) for k, values in own.items()}
        best = min(means, key=lambda k: means[k])
        ends = [fixed(means[k], METRICS[metric].decimals) if k in means else "–" for k in (1, n)]
        units = f"{len(own[best])} {by}{'s' * (len(own[best]) != 1)}"
        body.append(
            [
                str(n),
                f"{step:,}",
                str(best),
                f"{best / n:g}",
                fixed(means[best], METRICS[metric].decimals),
                *ends,
                units,
            ]
        )
    title = titled(metric)
    return "\n" + table(
        ["N", "training steps", "best k", "k/N", f"{title} there", f"{title} at k = 1", f"{title} at k = N", "n"], body
    )


def picture(name: str, preset: str, root: Path) -> str:
    """A figure of docs/images, where the run has been copied there."""
    file = f"{'' if preset == 'embedded' else f'{preset}_'}{name}.png"
    if not (root / "docs/images" / file).is_file():
        return f"\nThe figure {name} was {NOT_YET}.\n"
    return f"\n![{name}](images/{file})\n"


def block(name: str, place: str, data: Path, root: Path) -> str:
    """What stands between the comments of one of BLOCKS; `data` is docs/data."""
    preset, *more = place.split("/")
    folder = data / preset / FOLDER
    if name == "picture" and len(more) == 1:
        return picture(more[0], preset, root)
    if more[:1] != [FOLDER] or len(more) != (1 if name in ("outcomes", "answer") else 2):
        raise UserError(
            f"<!--{name}:{place}-->: its place is <preset>/{FOLDER}, and of one experiment <preset>/{FOLDER}/<letter>"
        )
    if len(more) == 1:
        return {"outcomes": outcomes, "answer": answer}[name](folder)
    if name == "recipe":
        return recipe(folder)
    return {"tests": tests, "outcome": outcome}[name](folder / f"{more[1]}.csv")
