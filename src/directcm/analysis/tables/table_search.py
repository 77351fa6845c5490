"""The table of sampling times: even ones beside those that `directcm search` found, both on the evaluation's own noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from directcm.analysis.data.selection import describe, steps_label
from directcm.analysis.data.tidy import rounded
from directcm.analysis.page import plain
from directcm.analysis.tables.sheet import Cell, Head, Row, Sheet, Tex, latex
from directcm.analysis.tables.sheet import write as write_sheets
from directcm.analysis.tables.text import REFERENCE, UNDER, fixed, shown_p
from directcm.config import Config
from directcm.config.specs import METHODS, METRICS
from directcm.errors import UserError
from directcm.runtime.artifacts import Artifact, write_csv

EXHIBITS = {"table_search": {"title": "Sampling times, even and found", "takes": "searches", "needs": "search"}}

COLUMNS = [
    "row", "seed", "steps", "metric", "reference", "even_times", "even", "found_times", "found", "difference", "p", "n", "dim",
    "even_search", "found_search", "n_search", "probes",
]  # fmt: skip
# What all of them share.
COMMON = ("metric", "reference", "n", "n_search", "dim")


def times(values: Sequence[float]) -> str:
    """Times in words, three digits of each: "80, 2.41", "1000, 480"."""
    return ", ".join(f"{t:.0f}" if t >= 100 else f"{t:.3g}" for t in values)


def write(searches: Sequence[Artifact], config: Config, out: Path) -> list[dict[str, Any]]:
    """Write the table of these search artefacts as CSV (COLUMNS), LaTeX and HTML, side by side; returns the CSV's lines.

    Raises UserError where there is none, or where they differ in metric, reference or the number of samples.
    """
    if not searches:
        raise UserError("search: no search artefact was given; set search in the configuration and run it")
    found = [artifact.json("search.json") for artifact in searches]
    for artifact, content in zip(searches, found, strict=True):
        if any(content[name] != found[0][name] for name in COMMON):
            raise UserError(
                f"{artifact.folder}: another metric, reference or number of samples than {searches[0].folder}; search again"
            )
    rows = [
        {
            "row": METHODS[content["run"]["method"]], "seed": content["run"]["seed"],
            **{name: content[name] for name in COMMON}, **{name: result[name] for name in ("steps", "difference", "p", "probes")},
            **{f"{label}_times": times(result[label]["times"]) for label in ("even", "found")},
            **{label: result[label]["value"] for label in ("even", "found")},
            **{f"{label}_search": result[label]["search"] for label in ("even", "found")},
        }
        for content in found
        for result in content["results"]
    ]  # fmt: skip
    write_csv(out, [{c: rounded(row[c]) for c in COLUMNS} for row in rows], COLUMNS)
    write_sheets(out, _sheet(rows, config), _sheet(rows, config, narrow=True))
    return rows


def _cells(row: dict[str, Any], alpha: float) -> list[Cell]:
    decimals = METRICS[row["metric"]].decimals
    sure = row["p"] is not None and row["p"] < alpha
    return [
        Cell(row["even_times"]),
        Cell(fixed(row["even"], decimals), sure and row["difference"] > 0),
        Cell(row["found_times"]),
        Cell(fixed(row["found"], decimals), sure and row["difference"] < 0),
        Cell(fixed(row["difference"], decimals, True)),
        Cell(shown_p(row["p"]), sure),
    ]


def _sheet(rows: Sequence[dict[str, Any]], config: Config, narrow: bool = False) -> Sheet:
    """The table; narrow for LaTeX: numbers of steps in a column of their own, a model's name in its first line alone."""
    spec, reference = METRICS[rows[0]["metric"]], rows[0]["reference"]
    groups: dict[str, list[Row]] = {}
    for row in rows:
        own, cells = groups.setdefault(row["row"], []), _cells(row, config.statistics.alpha)
        if narrow:
            own.append(Row(Head("" if own else row["row"]), [Cell(str(row["steps"])), *cells]))
        else:
            own.append(Row(Head(row["row"], small=steps_label(row["steps"])), cells))
    over = [Head("Even times", span=2), Head("Found times", span=2), Head("", span=2)]
    title = f"{spec.title} ↓" if narrow else spec.title
    heads = [
        Head("Times", kind="text", label="Even times"), Head(title, label=f"Even, {spec.title}"),
        Head("Times", kind="text", label="Found times"), Head(title, label=f"Found, {spec.title}"),
        Head("Found − even", label="Found − even"), Head(Tex("$p$") if narrow else "p", label="p"),
    ]  # fmt: skip
    caption = f"{spec.title} {REFERENCE[reference]} (↓ lower is better) of each student at even and at found times."
    if narrow:
        over, heads = [Head(""), *over], [Head("Steps"), *heads]
        caption = Tex(f"Even and found sampling times: {latex(spec.title)} to the {UNDER[reference]}.")
    return Sheet(
        name="table_search", title="Sampling times, even and found", caption=caption, settings=plain(describe(config)),
        corner="Model", heads=heads, groups=[("", own) for own in groups.values()], notes=_notes(rows, config), over=over,
    )  # fmt: skip


def _notes(rows: Sequence[dict[str, Any]], config: Config) -> list[str]:
    """What a reader must know to read the numbers, as plain text."""
    first, spec = rows[0], METRICS[rows[0]["metric"]]
    probes: dict[str, int] = {}
    for row in rows:
        probes[row["row"]] = probes.get(row["row"], 0) + row["probes"]
    notes = [
        "Times are points of the grid of the student's own ODE, the first always pure noise; even ones are spaced evenly over its "
        "indices. Found ones were placed one after the other by a ternary search, and are the best of all that was probed, even ones "
        f"included ({' or '.join(str(n) for n in sorted(set(probes.values())))} probes a student at these numbers of steps).",
        f"The search saw {first['n_search']:,} samples of a noise and prompts of its own. Every value here is of the evaluation's {first['n']:,} "
        "noises and prompts, which it did not see: found times can be worse on these.",
        "p: permutation of the label within prompts (even and found times share noise and prompts), at least "
        f"{config.statistics.permutations} permutations, ten times as many where fewer than ten of them speak for chance; bold: the "
        f"better where p < {config.statistics.alpha:g}, not adjusted for the number of lines. “–”: the same times, nothing to test.",
        f"One student per method, training seed {' and '.join(str(s) for s in sorted({row['seed'] for row in rows}))}: nothing is said "
        "about other seeds.",
        f"n = {first['n']:,} samples on both sides, D = {first['dim']}; distances at another n or D are not comparable.",
    ]
    if spec.extractor == "clip_tiny":
        notes.append(
            f"{spec.title} uses a small network trained on this run's own images, and is not the published metric of a similar name."
        )
    return notes
