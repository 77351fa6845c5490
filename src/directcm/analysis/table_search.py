"""The table of sampling times: even ones beside those that `directcm search` found, both on the evaluation's own noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from directcm.analysis.page import plain, write_page
from directcm.analysis.selection import describe, steps_label
from directcm.analysis.table import REFERENCE, UNDER, embolden, fixed, latex, shown_p, write_tex
from directcm.artifacts import Artifact, write_csv
from directcm.config import Config
from directcm.errors import UserError
from directcm.specs import METHODS, METRICS

COLUMNS = [
    "row", "seed", "steps", "metric", "reference", "even_times", "even", "found_times", "found", "difference", "p", "n", "dim",
    "even_search", "found_search", "n_search", "probes",
]  # fmt: skip


def times(values: Sequence[float]) -> str:
    """Times in words, three digits of each: "80, 2.41", "1000, 480"."""
    return ", ".join(f"{t:.0f}" if t >= 100 else f"{t:.3g}" for t in values)


BODY = """
<div class="scroll" role="region" aria-label="{{ title }}" tabindex="0">
<table role="table">
<caption>{{ what }} (↓ lower is better) of each student at even and at found times. Settings: <bdi>{{ settings }}</bdi>.</caption>
<thead role="rowgroup">
<tr role="row" class="over">
<td role="cell"></td>
<th scope="colgroup" role="columnheader" class="group" colspan="2"><span class="bar">Even times</span></th>
<th scope="colgroup" role="columnheader" class="group" colspan="2"><span class="bar">Found times</span></th>
<td role="cell" colspan="2"></td>
</tr>
<tr role="row">
<th scope="col" role="columnheader">Model</th>
{% for label, text in heads %}
<th scope="col" role="columnheader"{% if loop.index not in (1, 3) %} class="n"{% endif %}>{{ text }}</th>
{% endfor %}
</tr>
</thead>
{% for rows in groups %}
<tbody role="rowgroup">
{% for row in rows %}
<tr role="row">
<th scope="row" role="rowheader">{{ row.name }}<br><span class="small">{{ row.detail }}</span></th>
{% for label, text, bold in row.cells %}
<td role="cell"{% if loop.index not in (1, 3) %} class="n"{% endif %} data-label="{{ label }}"><span class="value">{% if bold %}<strong>{{ text }}</strong><span class="hidden"> (significantly better)</span>{% else %}{{ text }}{% endif %}</span></td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
{% endfor %}
</table>
</div>
<h2>How to read it</h2>
<ul>
{% for note in notes %}
<li>{{ note }}</li>
{% endfor %}
</ul>
"""


def table_search(searches: Sequence[Artifact], config: Config, out_csv: str | Path) -> list[dict[str, Any]]:
    """Write the table of these search artefacts as CSV (COLUMNS), LaTeX and HTML, side by side; returns the CSV's lines.

    Raises UserError where there is none, or where they differ in metric, reference or the number of samples.
    """
    if not searches:
        raise UserError("search: no search artefact was given; set search in the configuration and run it")
    found = [artifact.json("search.json") for artifact in searches]
    common = ("metric", "reference", "n", "n_search", "dim")
    for artifact, content in zip(searches, found, strict=True):
        if any(content[name] != found[0][name] for name in common):
            raise UserError(
                f"{artifact.folder}: another metric, reference or number of samples than {searches[0].folder}; search again"
            )
    rows = [
        {
            "row": METHODS[content["run"]["method"]], "seed": content["run"]["seed"], "steps": result["steps"],
            **{name: content[name] for name in common}, "difference": result["difference"], "p": result["p"],
            "probes": result["probes"],
            **{f"{label}_times": times(result[label]["times"]) for label in ("even", "found")},
            **{label: result[label]["value"] for label in ("even", "found")},
            **{f"{label}_search": result[label]["search"] for label in ("even", "found")},
        }
        for content in found
        for result in content["results"]
    ]  # fmt: skip
    write_csv(out_csv, [{c: _short(row[c]) for c in COLUMNS} for row in rows], COLUMNS)
    path, notes = Path(out_csv), _notes(rows, config)
    _html(path.with_suffix(".html"), rows, notes, config)
    _tex(path.with_suffix(".tex"), rows, notes, config)
    return rows


def _short(x: Any) -> Any:
    """Ten significant digits of a number with a point."""
    return float(f"{x:.10g}") if isinstance(x, float) else x


def _cells(row: dict[str, Any], alpha: float) -> dict[str, tuple[str, bool]]:
    """Column → (text, bold)."""
    decimals = METRICS[row["metric"]].decimals
    sure = row["p"] is not None and row["p"] < alpha
    return {
        "Even times": (row["even_times"], False),
        "Even": (fixed(row["even"], decimals), sure and row["difference"] > 0),
        "Found times": (row["found_times"], False),
        "Found": (fixed(row["found"], decimals), sure and row["difference"] < 0),
        "Found − even": (fixed(row["difference"], decimals, True), False),
        "p": (shown_p(math.nan if row["p"] is None else row["p"]), sure),
    }


def _what(row: dict[str, Any]) -> str:
    return f"{METRICS[row['metric']].title} {REFERENCE[row['reference']]}"


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


def _html(path: Path, rows: Sequence[dict[str, Any]], notes: Sequence[str], config: Config) -> None:
    groups: dict[str, list[dict[str, Any]]] = {}
    spec = METRICS[rows[0]["metric"]]
    texts = ("Times", spec.title, "Times", spec.title, "Found − even", "p")
    for row in rows:
        cells = _cells(row, config.statistics.alpha)
        groups.setdefault(row["row"], []).append(
            {
                "name": row["row"], "detail": steps_label(row["steps"]),
                "cells": [
                    (f"{label}, {spec.title}" if label in ("Even", "Found") else label, text, bold)
                    for label, (text, bold) in cells.items()
                ],
            }
        )  # fmt: skip
    write_page(
        path, BODY, title="Sampling times, even and found", what=_what(rows[0]), groups=list(groups.values()), notes=notes,
        heads=list(zip(_cells(rows[0], 0), texts, strict=True)), settings=plain(describe(config)),
    )  # fmt: skip


def _tex(path: Path, rows: Sequence[dict[str, Any]], notes: Sequence[str], config: Config) -> None:
    title = latex(f"{METRICS[rows[0]['metric']].title} ↓")
    body = [
        r" & & \multicolumn{2}{c}{Even times} & \multicolumn{2}{c}{Found times} & & \\",
        r"\cmidrule(lr){3-4}\cmidrule(lr){5-6}",
        rf"Model & Steps & Times & {title} & Times & {title} & {latex('Found − even')} & $p$ \\",
        r"\midrule",
    ]
    before = ""
    for row in rows:
        if before and row["row"] != before:
            body.append(r"\addlinespace")
        texts = [
            rf"\textbf{{{embolden(latex(text))}}}" if bold else latex(text)
            for text, bold in _cells(row, config.statistics.alpha).values()
        ]
        name = latex(row["row"]) if row["row"] != before else ""
        body.append(" & ".join([name, str(row["steps"]), *texts]) + r" \\")
        before = row["row"]
    under = UNDER[rows[0]["reference"]]
    caption = rf"Even and found sampling times: {latex(METRICS[rows[0]['metric']].title)} to the {under}."
    below = [latex(f"Settings: {describe(config)}."), *map(latex, notes)]
    write_tex(path, "table_search", caption, "lrlrlrrr", body, below)
