"""Whether a larger ODE error means a worse sample: within a method, sample by sample, beside the difference between CM and Direct CM.

Within: Spearman's rank correlation of the ODE error of single samples with another metric of theirs, in the fewest sampling steps. The
two need not agree: within each method the samples of larger error can be the worse ones while the method with the smaller error is worse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from directcm.analysis.data.selection import describe, main_setting, sampling_numbers, select_axis
from directcm.analysis.data.tidy import COMPARISON_COLUMNS, CORRELATION_COLUMNS, ROWS, frame, mean_sd, save
from directcm.analysis.page import plain
from directcm.analysis.tables.cells import A, B, significant, tests_of, winner
from directcm.analysis.tables.sheet import Cell, Head, Row, Sheet, Tex
from directcm.analysis.tables.sheet import write as write_sheets
from directcm.analysis.tables.text import UNDER, fixed
from directcm.config import Config
from directcm.config.specs import METRICS
from directcm.errors import UserError

EXHIBITS = {
    "table_within": {
        "title": "ODE error and quality, sample by sample",
        "takes": "comparisons correlations",
        "needs": "within",
        "place": 8,
    }
}

COLUMNS = [
    "row",
    "metric",
    "rho",
    "sd",
    "low",
    "high",
    "n_seeds",
    "n",
    "within",
    "ode_difference",
    "difference",
    "between",
]
WORSE, BETTER, NEITHER = "larger error, worse", "larger error, better", "no common sign"


def within(metric: str, rho: Sequence[float]) -> str:
    """What the correlations of a method's seeds say: they have a sign if all seeds have it."""
    signs = {math.copysign(1, value) for value in rho}
    if len(signs) > 1 or 0.0 in rho:
        return NEITHER
    return WORSE if (signs == {-1.0}) == (METRICS[metric].better == "higher") else BETTER


def between(error: Mapping[str, Any] | None, other: Mapping[str, Any] | None, alpha: float) -> str:
    """What the difference of CM and Direct CM in a metric says beside that in ODE error, from their lines in comparisons.csv."""
    if error is None or other is None:
        return "not compared"
    if not (significant(error, alpha) and significant(other, alpha)):
        return "no difference shown" if significant(error, alpha) else "no difference in error shown"
    return WORSE if winner(error) == winner(other) else BETTER


def rows(comparisons: str | Path, correlations: str | Path, config: Config) -> list[dict[str, Any]]:
    """The lines of its CSV (COLUMNS), a method and metric each; nothing is written."""
    main, fewest = main_setting(config), sampling_numbers(config)[0]
    found = select_axis(frame(correlations, CORRELATION_COLUMNS), main)
    found = found[(found["step"] == main.steps) & (found["sampling_steps"] == fewest)]
    if found.empty:
        raise UserError(f"{correlations}: none of the main comparison; evaluate its students and collect again")
    tests = {
        line["metric"]: line
        for line in tests_of(select_axis(frame(comparisons, COMPARISON_COLUMNS, empty=True), main)).values()
        if line["a_step"] == main.steps and line["sampling_steps"] == fewest
    }
    error, out = tests.get("ode_error"), []
    for (row, metric), own in found.groupby(["row", "metric"]):
        mean, sd = mean_sd(own["rho"])
        test = tests.get(metric)
        out.append(
            {
                "row": row, "metric": metric, "rho": mean, "sd": sd, "low": own["rho"].min(), "high": own["rho"].max(),
                "n_seeds": len(own), "n": int(own["n"].iloc[0]), "within": within(metric, [*own["rho"]]),
                "ode_difference": error["difference"] if error else None, "difference": test["difference"] if test else None,
                "between": between(error, test, config.statistics.alpha),
            }
        )  # fmt: skip
    return sorted(out, key=lambda line: ([*METRICS].index(line["metric"]), ROWS.index(line["row"])))


def write(comparisons: str | Path, correlations: str | Path, config: Config, out: Path) -> list[dict[str, Any]]:
    """Write `rows` as CSV, LaTeX and HTML; returns them."""
    found = rows(comparisons, correlations, config)
    save(out, found, COLUMNS)
    names = list(dict.fromkeys(row["row"] for row in sorted(found, key=lambda row: ROWS.index(row["row"]))))
    cells = {(row["row"], row["metric"]): row for row in found}
    lines = []
    for metric in dict.fromkeys(row["metric"] for row in found):
        own = [cells.get((name, metric)) for name in names]
        first = next(row for row in own if row is not None)
        said = {row["within"] for row in own if row is not None}
        shown = [Cell(None) if row is None else Cell(fixed(row["rho"], 3, True), sd=_sd(row["sd"])) for row in own]
        spec = METRICS[metric]
        shown += [
            Cell(next(iter(said)) if len(said) == 1 else "methods differ"),
            Cell(fixed(first["difference"], spec.decimals + 1, True)),
            Cell(first["between"]),
        ]
        lines.append(Row(Head(spec.title, spec.better, UNDER[spec.references[0]]), shown))
    heads = [Head(name, label=f"{name}, ρ within") for name in names]
    heads += [Head("In words", kind="words", label="Within, in words"), Head(f"{A} − {B}", label=f"{A} − {B}")]
    heads += [Head("In words", kind="words", label="Between, in words")]
    about: dict[str, Any] = {
        "name": "table_within", "title": "ODE error and quality, sample by sample", "settings": plain(describe(config)), "corner": "Metric",
        "over": [Head("Within a method, ρ with the ODE error", span=len(names) + 1), Head("Between the two", span=2)],
        "heads": heads, "groups": [("", lines)], "notes": _notes(found, config),
    }  # fmt: skip
    caption = "Rank correlation of single samples' ODE errors with another metric of theirs, beside the difference between methods."
    write_sheets(
        out,
        Sheet(**about, caption=caption),
        Sheet(**about, caption=Tex("ODE error and quality within and between methods.")),
    )
    return found


def _sd(sd: float) -> str | None:
    return None if math.isnan(sd) else fixed(sd, 3)


def _notes(found: Sequence[Mapping[str, Any]], config: Config) -> list[str]:
    seeds = " or ".join(str(n) for n in sorted({row["n_seeds"] for row in found}))
    error = found[0]["ode_difference"]
    notes = [
        f"ρ: Spearman's, over {found[0]['n']:,} samples of a student, mean ± sd over {seeds} seeds. In words where all seeds have one sign: "
        "“larger error, worse” is of samples whose metric is the worse the larger their ODE error.",
        f"Between: {A} − {B} of the mean; in words, whether the method with the larger ODE error is the worse in it, where both differences "
        f"have p < {config.statistics.alpha:g} (seeds × prompts).",
        "Prompts differ in how hard they are, which correlations within a method hold too.",
    ]
    if error is not None:
        notes.insert(2, f"{A} − {B} in ODE error: {fixed(error, METRICS['ode_error'].decimals, True)}.")
    return notes
