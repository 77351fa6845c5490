"""CM and Direct CM of the main setting over several teachers: the mean of each, and of their difference within a teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from directcm.analysis.data.selection import describe, main_setting, select_axis, steps_label
from directcm.analysis.data.tidy import COMPARISON_COLUMNS, frame, number, save
from directcm.analysis.page import plain
from directcm.analysis.tables.cells import A, B
from directcm.analysis.tables.sheet import Cell, Head, Row, Sheet, Tex
from directcm.analysis.tables.sheet import write as write_sheets
from directcm.analysis.tables.text import REFERENCE, UNDER, fixed, shown_p
from directcm.analysis.tables.verdict import crossed_teachers
from directcm.config import TEACHER_SEED, Config
from directcm.config.specs import METRICS, TEACHERS
from directcm.errors import UserError

EXHIBITS = {
    "table_teachers": {
        "title": "CM minus Direct CM over teachers",
        "takes": "teachers",
        "scope": "paper",
        "needs": "several_teachers",
    }
}

COLUMNS = [
    "steps", "metric", "reference", "cm", "cm_sd", "direct_cm", "direct_cm_sd", "difference", "low", "high", "level", "p",
    "n_teachers", "n_seeds", "teachers_agree",
]  # fmt: skip


def rows(teachers: str | Path, config: Config) -> list[dict[str, Any]]:
    """The lines of its CSV (COLUMNS) from comparisons.csv over teachers; nothing is written.

    Finished students in the fewest sampling steps. Means and sample standard deviations are over teachers; interval and p of the mean
    difference within a teacher are `crossed_teachers`'s, as in claims; `teachers_agree` counts the differences of the mean's sign. All of
    them are None where a metric is not defined for some teacher, interval and p where no variance over prompts is known.
    """
    main, level = main_setting(config), config.statistics.level
    table = select_axis(frame(teachers, (TEACHER_SEED, *COMPARISON_COLUMNS)), main)
    table = table[(table["a"] == A) & (table["b"] == B) & (table["a_step"] == main.steps)]
    table = table[table["sampling_steps"] == table["sampling_steps"].min()]
    out = []
    for metric, reference in ((m, r) for m in config.metric_names() for r in METRICS[m].references):
        own = table[(table["metric"] == metric) & (table["reference"] == reference)]
        if own.empty:
            continue
        if own[TEACHER_SEED].duplicated().any():
            raise UserError(f"{teachers}: {metric} against {reference} is there twice for a teacher; collect again")
        line = dict.fromkeys(COLUMNS) | {
            "metric": metric,
            "reference": reference,
            "level": level,
            "n_teachers": len(own),
        }
        line |= {"steps": number(own["sampling_steps"].iloc[0]), "n_seeds": number(own["n_seeds"].min())}
        if own["difference"].notna().all():
            for name, column in (("cm", "mean_a"), ("direct_cm", "mean_b")):
                line |= {name: float(own[column].mean()), f"{name}_sd": float(own[column].std(ddof=1))}
            found = crossed_teachers(own, level)
            agree = int((np.sign(own["difference"]) == np.sign(found.difference)).sum())
            line |= {
                "difference": found.difference,
                "low": found.low,
                "high": found.high,
                "p": found.p,
                "teachers_agree": agree,
            }
        out.append(line)
    if not out:
        raise UserError(
            f"{teachers}: no difference of CM and Direct CM with {main.words}; evaluate these students of every teacher and "
            "collect again"
        )
    return out


def write(teachers: str | Path, config: Config, out: Path) -> list[dict[str, Any]]:
    """Write `rows` as CSV, LaTeX and HTML; returns them."""
    found = rows(teachers, config)
    save(out, found, COLUMNS)
    what = steps_label(found[0]["steps"]).replace("step", "sampling step")
    about: dict[str, Any] = {
        "name": "table_teachers", "title": "CM minus Direct CM over teachers", "settings": plain(describe(config)),
        "corner": "Metric", "notes": _notes(found, config), "spoken": "",
    }  # fmt: skip

    def sheet(caption: str, against: dict[str, str]) -> Sheet:
        lines = [(row, _cells(row)) for row in found]
        shown = [
            Row(Head(METRICS[m].title, METRICS[m].better, against[row["reference"]]), list(cells.values()))
            for row, cells in lines
            for m in (row["metric"],)
        ]
        return Sheet(
            **about, caption=caption, heads=[Head(name, label=name) for name in lines[0][1]], groups=[("", shown)]
        )

    caption = f"CM and Direct CM over teachers, {what} (↓ lower is better, ↑ higher is better): means ± standard deviations over teachers."
    brief = Tex(rf"CM and Direct CM over teachers, {what}: means $\pm$ standard deviations over teachers.")
    write_sheets(out, sheet(caption, REFERENCE), sheet(brief, UNDER))
    return found


def _cells(row: Mapping[str, Any]) -> dict[str, Cell]:
    """Column → cell."""
    decimals = METRICS[row["metric"]].decimals

    def mean(name: str) -> Cell:
        sd = row[f"{name}_sd"]
        return Cell(fixed(row[name], decimals), sd=None if sd is None or math.isnan(sd) else fixed(sd, decimals))

    # A difference is smaller than what it is a difference of.
    difference, low, high = (fixed(row[name], decimals + 1, True) for name in ("difference", "low", "high"))
    agree = row["teachers_agree"]
    return {
        A: mean("cm"),
        B: mean("direct_cm"),
        f"{A} − {B}": Cell(difference),
        "Interval": Cell("–" if row["low"] is None else f"[{low}, {high}]"),
        "p": Cell(shown_p(row["p"])),
        "Teachers agree": Cell("–" if agree is None else f"{agree} of {row['n_teachers']}"),
    }


def _notes(found: Sequence[Mapping[str, Any]], config: Config) -> list[str]:
    teachers, seeds = ([*dict.fromkeys(row[name] for row in found)] for name in ("n_teachers", "n_seeds"))
    pinned = TEACHERS[config.teacher.kind].pinned
    own = "start points of its own" if pinned else "an autoencoder, a network and start points of its own"
    return [
        f"{' or '.join(map(str, teachers))} teachers, each with {' or '.join(map(str, seeds))} student seed"
        f"{'s' * (max(seeds) > 1)} of either method. Every teacher has {own}; the split of the data, the prompts, the initial "
        "noise and the networks of the metrics are the same for all.",
        "A student is compared with its own teacher, or with the data. Difference: CM minus Direct CM within each teacher.",
        f"Interval ({100 * found[0]['level']:g} %) and p: teachers, one difference each, and the prompts that all of them share are both random "
        "(Behrens–Fisher). How alike teachers are prompt by prompt is not known: as if they were wholly alike, which is careful. The "
        "p-values are not adjusted for the number of metrics, and nothing is bold.",
        "“Teachers agree” counts the teachers whose own difference has the sign of the mean one.",
    ]
