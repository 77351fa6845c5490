"""CM − Direct CM of the main setting: every metric of finished students in the fewest sampling steps, tested."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from directcm.analysis.data.selection import describe, main_runs, main_setting, sampling_numbers, select_axis
from directcm.analysis.data.tidy import COMPARISON_COLUMNS, FLOOR, METRIC_COLUMNS, frame, number, save, significant
from directcm.analysis.page import plain
from directcm.analysis.tables.cells import A, B, tests_of, winner
from directcm.analysis.tables.sheet import Cell, Head, Row, Sheet, Tex
from directcm.analysis.tables.sheet import write as write_sheets
from directcm.analysis.tables.text import REFERENCE, UNDER, fixed, listed, shown_p
from directcm.config import Config
from directcm.config.registry import FIRST
from directcm.config.specs import METRICS
from directcm.errors import UserError

EXHIBITS = {
    "table_comparison": {"title": "CM minus Direct CM, tested", "takes": "metrics comparisons", "needs": "pair"}
}

COLUMNS = [
    "steps", "metric", "reference", "cm", "direct_cm", "floor", "difference", "low", "high", "level", "p", "p_prompts",
    "test", "n", "n_seeds", "seeds_agree", "dim", "reading",
]  # fmt: skip
TESTS = {
    "bootstrap": "paired bootstrap over prompts",
    "permutation": "permutation of the method label for whole prompts, in all seeds together",
    "halves": "variance over halves of the prompts",
}
READING = "Reading"


def reading(comparison: Mapping[str, Any], alpha: float) -> str:
    """In plain words, what one comparison of CM and Direct CM says."""
    who, p = winner(comparison), comparison["p"]
    if math.isnan(p):
        return "not tested"
    if who is None:
        return "no difference shown"
    # One seed has no sd: what is shown then is about these two students.
    scope = " between these two students; nothing about other seeds" if comparison["n_seeds"] == 1 else ""
    if significant(comparison, alpha):
        return f"{who} is better{scope}"
    if comparison["p_prompts"] <= alpha:
        return f"no difference shown over seeds and prompts; {who} is better for these trained students alone{scope}"
    return f"no difference shown{scope}"


def rows(metrics: str | Path, comparisons: str | Path, config: Config) -> list[dict[str, Any]]:
    """The lines of its CSV (COLUMNS); nothing is written.

    `floor` is the teacher's distance to its own samples from other noise.
    """
    if not {run.method for run in main_runs(config)} >= set(FIRST):
        raise UserError("students: method has only one of cm and direct_cm, so there is nothing to compare; name both")
    main, fewest = main_setting(config), sampling_numbers(config)[0]
    found = {
        (row["metric"], row["reference"]): row
        for row in tests_of(select_axis(frame(comparisons, COMPARISON_COLUMNS), main)).values()
        if row["a_step"] == main.steps and row["sampling_steps"] == fewest
    }
    teachers = select_axis(frame(metrics, METRIC_COLUMNS), main)
    floors = teachers[(teachers["row"] == FLOOR) & (teachers["reference"] == "teacher")].set_index("metric")["value"]
    out = []
    for metric, reference in ((m, r) for m in config.metric_names() for r in METRICS[m].references if (m, r) in found):
        line = found[metric, reference]
        own = line | {
            "steps": fewest, "cm": line["mean_a"], "direct_cm": line["mean_b"], "reading": reading(line, config.statistics.alpha),
            "floor": floors.get(metric, math.nan) if reference == "teacher" else math.nan,
        }  # fmt: skip
        own |= {name: number(line[name]) for name in ("n", "n_seeds", "seeds_agree", "dim")}
        out.append({name: own[name] for name in COLUMNS})
    if not out:
        raise UserError(
            f"{comparisons}: no comparison of CM and Direct CM with {main.words}; compare this setting and collect again"
        )
    return out


def write(metrics: str | Path, comparisons: str | Path, config: Config, out: Path) -> list[dict[str, Any]]:
    """Write `rows` as CSV, LaTeX and HTML; returns them."""
    found = rows(metrics, comparisons, config)
    save(out, found, COLUMNS)
    alpha = config.statistics.alpha
    what = f"{found[0]['steps']} sampling step{'s' * (found[0]['steps'] != 1)}"
    level = " or ".join(dict.fromkeys(f"{100 * row['level']:g}" for row in found))
    about: dict[str, Any] = {
        "name": "table_comparison", "title": "CM minus Direct CM, paired by seed and prompt", "settings": plain(describe(config)),
        "corner": "Metric", "notes": _notes(found, config), "spoken": "",
    }  # fmt: skip

    def sheet(caption: str, against: dict[str, str], left_out: str = "") -> Sheet:
        lines = [(row, {k: v for k, v in _cells(row, alpha).items() if k != left_out}) for row in found]
        heads = [Head(name, label=name, kind="words" if name == READING else "number") for name in lines[0][1]]
        shown = [
            Row(Head(METRICS[m].title, METRICS[m].better, against[row["reference"]]), list(cells.values()))
            for row, cells in lines
            for m in (row["metric"],)
        ]
        return Sheet(**about, caption=caption, heads=heads, groups=[("", shown)])

    caption = f"CM − Direct CM, {what}, per metric (↓ lower is better, ↑ higher is better), with {level} % intervals."
    brief = Tex(rf"CM minus Direct CM, {what}, with {level}\,\% intervals.")
    write_sheets(out, sheet(caption, REFERENCE), sheet(brief, UNDER, READING))
    return found


def _cells(row: Mapping[str, Any], alpha: float) -> dict[str, Cell]:
    """Column → cell."""
    decimals = METRICS[row["metric"]].decimals
    sure, who = significant(row, alpha), winner(row)
    # A difference is smaller than what it is a difference of.
    difference, low, high = (fixed(row[name], decimals + 1, True) for name in ("difference", "low", "high"))
    return {
        A: Cell(fixed(row["cm"], decimals), sure and who == A),
        B: Cell(fixed(row["direct_cm"], decimals), sure and who == B),
        "Floor": Cell(fixed(row["floor"], decimals)),
        "CM − Direct CM": Cell(difference),
        "Interval": Cell(f"[{low}, {high}]"),
        "p": Cell(shown_p(row["p"]), sure),
        "p, prompts": Cell(shown_p(row["p_prompts"]), sure),
        "n": Cell("–" if row["n"] is None else f"{row['n']:,}"),
        "Seeds agree": Cell("–" if row["seeds_agree"] is None else f"{row['seeds_agree']} of {row['n_seeds']}"),
        READING: Cell(row["reading"]),
    }


def _notes(found: Sequence[Mapping[str, Any]], config: Config) -> list[str]:
    seeds = sorted({row["n_seeds"] for row in found})
    metrics = list(dict.fromkeys(row["metric"] for row in found))
    out = [
        "Difference: CM minus Direct CM of the mean over training seeds; the two share start points, their order and the starting weights, and "
        "are paired by seed and by prompt. Number of pairs of seeds: " + " or ".join(map(str, seeds)) + ".",
        "Interval and p: seeds × prompts, crossed. Both other seeds and other prompts are allowed for (Clark 1973), each with its own "
        "degrees of freedom (Behrens–Fisher). “Seeds agree” counts the seeds whose own difference has the sign of the mean one.",
    ]
    used = [words for test, words in TESTS.items() if any(row["test"] == test for row in found)]
    if used:
        out.append(
            f"p, prompts: for these trained students alone, {' or '.join(used)}. It says nothing about other seeds."
        )
    if any(row["test"] == "none" for row in found):
        out.append("No p: nothing says how the metric varies over prompts, so that it has neither interval nor test.")
    if seeds[0] == 1:
        out.append("With one seed the interval, too, is for these two students: it says nothing about other seeds.")
    out += [
        f"Bold: p ≤ {config.statistics.alpha:g} ; the better mean is bold then. It is the rule of the claims, too. The p-values are not adjusted for "
        "the number of metrics; the claims page adjusts its own.",
        "Floor: what the teacher itself scores against its own samples, from a second draw of noise. By this metric and at this n, a "
        "student at the floor cannot be told from the teacher.",
    ]
    sizes: dict[int, list[str]] = {}
    for metric in metrics:
        dims = [row["dim"] for row in found if row["metric"] == metric and row["dim"] is not None]
        if dims:
            sizes.setdefault(dims[0], []).append(METRICS[metric].title)
    each = "; ".join(f"D = {size} ({listed(names)})" for size, names in sizes.items())
    out.append("n counts prompts." + (f" Dimension of what is compared: {each}." if each else ""))
    tiny = [METRICS[m].title for m in metrics if METRICS[m].extractor == "clip_tiny"]
    if tiny:
        out.append(
            f"{listed(tiny)}: a small network trained on this run's own images, and not the published metrics of similar names."
        )
    return out
