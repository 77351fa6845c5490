"""Table 1: Teacher, CM, Direct CM: mean ± sd over training seeds, n, and the paper's number beside ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from directcm.analysis.page import plain, write_page
from directcm.analysis.selection import TEACHER, Evaluated, by_row, describe, main_runs, select, steps_label
from directcm.artifacts import Artifact, write_csv, write_json, write_text
from directcm.config import Config
from directcm.errors import UserError
from directcm.specs import METRICS

__all__ = ["COLUMNS", "Cell", "cells", "main_runs", "mean_sd", "table1"]

PAPER_RESOLUTION = 1024
COLUMNS = ["row", "steps", "metric", "reference", "mean", "sd", "n_seeds", "n_samples", "paper"]
REFERENCE = {"teacher": "to teacher samples", "data": "to data images", "prompt": "with prompt", "none": ""}

FLAGS = {
    "rank_deficient": "fewer samples than feature dimensions, so the covariance is singular and the distance unreliable",
    "weak_classifier": "the classifier that reads the samples is itself weak on held-out real images",
}


@dataclass(frozen=True)
class Cell:
    """One metric of one row. `mean` is None where a seed's value is undefined, `sd` also for a single seed."""

    row: str
    steps: int
    metric: str
    reference: str
    mean: float | None
    sd: float | None
    n_seeds: int
    n_samples: int
    paper: float | None
    n_reference: int | None = None
    dim: int | None = None
    flags: tuple[str, ...] = ()


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (ddof 1; None for one value)."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def paper_value(row: str, steps: int, metric: str, reference: str) -> float | None:
    """What the paper reports for this cell: one step, and students' distances only against teacher samples."""
    if steps != 1 or reference == "data":
        return None
    return METRICS[metric].paper.get(row)


def cells(items: Sequence[Evaluated], config: Config) -> list[Cell]:
    """Table 1's cells: rows, sampling steps ascending, metrics in the configuration's order, references."""
    out = []
    for (row, steps), group in by_row(items).items():
        for metric in config.metric_names():
            for reference in METRICS[metric].references:
                found = [e.values[metric, reference] for e in group if (metric, reference) in e.values]
                if not found:
                    continue
                if len(found) < len(group):
                    lacking = next(e for e in group if (metric, reference) not in e.values)
                    raise UserError(
                        f"{lacking.artifact.folder / 'metrics.json'}: lacks {metric} against {reference}, "
                        f"which other seeds have; evaluate it again"
                    )
                values = [f["value"] for f in found]
                mean, sd = (None, None) if None in values else mean_sd(values)
                flags = tuple(dict.fromkeys(str(flag) for f in found for flag in f.get("flags") or ()))
                first = found[0]
                out.append(
                    Cell(
                        row, steps, metric, reference, mean, sd, len(found), first["n"],
                        paper_value(row, steps, metric, reference), first.get("n_reference"), first.get("dim"), flags,
                    )
                )  # fmt: skip
    return out


def metric_key(metric: str, reference: str) -> str:
    """The metric's key in JSON: its name, with the reference where there are several."""
    return f"{metric}_{reference}" if len(METRICS[metric].references) > 1 else metric


def _shown(value: float | None, decimals: int) -> str:
    """A number at fixed decimals with a true minus sign; no negative zero."""
    if value is None:
        return "–"
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def _paper_number(value: float) -> str:
    """As the paper prints it: 95.3, 166.0, 1148."""
    return f"{value:.0f}" if value >= 1000 else str(float(value))


def same_scale(metric: str, config: Config) -> bool:
    """Whether the paper's number and ours are on one scale: its own extractor, on a teacher and at a size like its own."""
    own = config.teacher.kind == "diffusers" and config.data.resolution == PAPER_RESOLUTION
    return METRICS[metric].same_scale_as_paper and own


def _paper_text(cell: Cell, config: Config) -> str:
    """The paper's number as it stands beside ours; empty where the paper has none."""
    if cell.paper is None:
        return ""
    spec = METRICS[cell.metric]
    scale = "SDXL" if same_scale(cell.metric, config) else "SDXL; another scale"
    return f"paper: {spec.paper_name} {_paper_number(cell.paper)} ({scale})"


@dataclass(frozen=True)
class _Wide:
    """The human table: columns, and per row its cells by column."""

    columns: list[tuple[str, str]]
    rows: list[tuple[str, int, int, dict[tuple[str, str], Cell]]]
    config: Config


def _wide(table: Sequence[Cell], config: Config) -> _Wide:
    present = {(c.metric, c.reference) for c in table}
    columns = [(m, r) for m in config.metric_names() for r in METRICS[m].references if (m, r) in present]
    rows: dict[tuple[str, int], dict[tuple[str, str], Cell]] = {}
    for cell in table:
        rows.setdefault((cell.row, cell.steps), {})[cell.metric, cell.reference] = cell
    return _Wide(
        columns, [(row, steps, max(c.n_seeds for c in own.values()), own) for (row, steps), own in rows.items()], config
    )


def _notes(table: Sequence[Cell], config: Config, wide: _Wide) -> list[str]:
    """What a reader must know to read the numbers, as plain text."""
    seeds = {c.row: c.n_seeds for c in table if c.row != TEACHER}
    count = " and ".join(f"{n} for {row}" for row, n in seeds.items())
    if len(set(seeds.values())) == 1:
        count = str(next(iter(seeds.values())))
    samples = sorted({c.n_samples for c in table})
    notes = [
        (
            f"Students: mean ± sample standard deviation (n − 1) over training seeds; number of seeds: {count}. "
            "The teacher is one fixed model and has no sd."
        ),
        "Samples behind each value: "
        + " or ".join(f"{n:,}" for n in samples)
        + "; all rows from the same initial noise and prompts.",
    ]
    sizes: dict[str, list[str]] = {}
    for metric, reference in wide.columns:
        cell = next(c for c in table if (c.metric, c.reference) == (metric, reference))
        if cell.dim is not None:
            own = sizes.setdefault(f"{METRICS[metric].title}: D = {cell.dim}", [])
            if cell.n_reference is not None:
                own.append(f"{cell.n_reference:,} {REFERENCE[reference].removeprefix('to ')}")
    if sizes:
        listed = [name + (", reference of " + " and ".join(own) if own else "") for name, own in sizes.items()]
        notes.append(
            "Dimension D of what is compared: "
            + "; ".join(listed)
            + ". Distances at another n or D are not comparable."
        )
    if any(METRICS[m].extractor == "clip_tiny" for m, _ in wide.columns):
        notes.append(
            "FD-tiny, KID-tiny, CLIP-tiny and quality-tiny use a small network trained on this run's own images. "
            "They are not FID, KID, CLIP score or aesthetic score, and no number here reproduces one."
        )
    if any(c.paper is not None for c in table):
        notes.append(
            "The paper's numbers (arXiv 2411.08954: SDXL, one step; its students' distances are to teacher samples) stand "
            "beside ours for orientation; “another scale” means that the two must not be compared."
        )
    if any((m, r) not in own for *_, own in wide.rows for m, r in wide.columns):
        notes.append("–: not defined. The teacher is its own reference, so it has no distance to its own samples.")
    flagged: dict[str, dict[str, None]] = {}
    for c in table:
        for flag in c.flags:
            title = f"{METRICS[c.metric].title} {REFERENCE[c.reference]}".strip()
            flagged.setdefault(FLAGS.get(flag, plain(flag)), {})[title] = None
    notes += [f"Caution, {', '.join(titles)}: {flag}." for flag, titles in flagged.items()]
    notes.append("No value is marked as best: this table holds no test of a difference.")
    return notes


BODY = """
<div class="scroll" role="region" aria-label="Table 1" tabindex="0">
<table role="table">
<caption>One row per model, one column per metric (↓ lower is better, ↑ higher is better). Settings: <bdi>{{ settings }}</bdi>.</caption>
<thead role="rowgroup">
<tr role="row" class="over">
<td role="cell"></td>
{% for head in heads %}
<th scope="{{ 'colgroup' if head.span > 1 else 'col' }}" role="columnheader" class="{{ 'group' if head.span > 1 else 'n' }}" colspan="{{ head.span }}"><span class="{{ 'bar' if head.span > 1 else '' }}">{{ head.title }}&nbsp;<span aria-hidden="true">{{ head.arrow }}</span><span class="hidden">({{ head.better }} is better)</span></span></th>
{% endfor %}
</tr>
<tr role="row">
<th scope="col" role="columnheader">Model</th>
{% for text in under %}
<th scope="col" role="columnheader" class="n small">{{ text }}</th>
{% endfor %}
</tr>
</thead>
<tbody role="rowgroup">
{% for row in rows %}
<tr role="row">
<th scope="row" role="rowheader">{{ row.name }}<br><span class="small">{{ row.detail }}</span></th>
{% for cell in row.cells %}
<td role="cell" class="n" data-label="{{ cell.label }}">
{%- if cell.mean is none %}<span class="none"><span aria-hidden="true">–</span><span class="hidden">not defined</span></span>
{%- else %}<span><span class="value">{{ cell.mean }}{% if cell.sd %} <span class="pm">± {{ cell.sd }}</span>{% endif %}</span>
{%- if cell.paper %}<span class="paper">{{ cell.paper }}</span>{% endif %}</span>
{%- endif %}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
<h2>How to read it</h2>
<ul>
{% for note in notes %}
<li>{{ note }}</li>
{% endfor %}
</ul>
"""


def _arrow(metric: str) -> str:
    return "↓" if METRICS[metric].better == "lower" else "↑"


def _html(path: str | Path, wide: _Wide, notes: Sequence[str], settings: str) -> None:
    heads: list[dict[str, Any]] = []
    for metric, _ in wide.columns:
        title = METRICS[metric].title
        if heads and heads[-1]["title"] == title:
            heads[-1]["span"] += 1
        else:
            heads.append({"title": title, "arrow": _arrow(metric), "better": METRICS[metric].better, "span": 1})
    rows = []
    for row, steps, seeds, own in wide.rows:
        shown: list[dict[str, str | None]] = []
        for metric, reference in wide.columns:
            cell, spec = own.get((metric, reference)), METRICS[metric]
            label = f"{spec.title} {_arrow(metric)} {REFERENCE[reference]}".strip()
            if cell is None or cell.mean is None:
                shown.append({"label": label, "mean": None})
                continue
            sd = "" if cell.sd is None else _shown(cell.sd, spec.decimals)
            shown.append(
                {
                    "label": label,
                    "mean": _shown(cell.mean, spec.decimals),
                    "sd": sd,
                    "paper": _paper_text(cell, wide.config),
                }
            )
        detail = (
            f"{steps} solver steps" if row == TEACHER else f"{steps_label(steps)}, {seeds} seed{'s' * (seeds != 1)}"
        )
        rows.append({"name": row, "detail": detail, "cells": shown})
    under = [REFERENCE[reference] for _, reference in wide.columns]
    write_page(
        path, BODY, title="Table 1. Teacher, CM and Direct CM", heads=heads, under=under, rows=rows, notes=notes,
        settings=plain(settings),
    )  # fmt: skip


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': r"\textquotedbl{}", "−": r"$-$", "–": "--", "±": r"$\pm$", "×": r"$\times$", "…": r"\ldots{}", "“": "``",
    "”": "''", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "[": "{[}", "]": "{]}",
}  # fmt: skip


def latex(text: object) -> str:
    """Text for LaTeX. What pdfLaTeX cannot set (beyond Latin-1) is spelled as its code point, [U+1F600]."""
    out = []
    for character in plain(text):
        if character in _LATEX:
            out.append(_LATEX[character])
        elif ord(character) < 127 or (0xA1 <= ord(character) <= 0xFF and ord(character) != 0xAD):
            out.append(character)
        else:
            out.append(f"{{[}}U+{ord(character):04X}{{]}}")
    return "".join(out)


def _tex(path: str | Path, wide: _Wide, notes: Sequence[str], settings: str) -> None:
    groups: list[list[Any]] = []
    for metric, _ in wide.columns:
        if groups and groups[-1][0] == metric:
            groups[-1][1] += 1
        else:
            groups.append([metric, 1])
    head, rules, at = ["Model"], [], 2
    for metric, span in groups:
        title = f"{latex(METRICS[metric].title)} {latex(_arrow(metric))}"
        head.append(title if span == 1 else rf"\multicolumn{{{span}}}{{c}}{{{title}}}")
        if span > 1:
            rules.append(rf"\cmidrule(lr){{{at}-{at + span - 1}}}")
        at += span
    under = {"teacher": "teacher", "data": "data", "prompt": "prompt", "none": ""}
    lines = []
    other_scale = False
    for row, steps, seeds, own in wide.rows:
        count = "" if row == TEACHER else f", $n={seeds}$"
        ours, papers = [rf"{latex(row)} {{\scriptsize({steps_label(steps)}{count})}}"], []
        for metric, reference in wide.columns:
            cell, spec = own.get((metric, reference)), METRICS[metric]
            if cell is None or cell.mean is None:
                ours.append("--")
                papers.append("")
                continue
            sd = "" if cell.sd is None else rf"\,{{\scriptsize$\pm$\,{latex(_shown(cell.sd, spec.decimals))}}}"
            ours.append(latex(_shown(cell.mean, spec.decimals)) + sd)
            if cell.paper is None:
                papers.append("")
            else:
                mark = "" if same_scale(cell.metric, wide.config) else r"$^{\dagger}$"
                other_scale = other_scale or not same_scale(cell.metric, wide.config)
                papers.append(
                    rf"\textit{{\scriptsize{{[}}{latex(spec.paper_name)} {_paper_number(cell.paper)}{{]}}{mark}}}"
                )
        lines.append(" & ".join(ours) + r" \\")
        if any(papers):
            lines.append(" & ".join([r"\quad\textit{\scriptsize paper, SDXL}", *papers]) + r" \\")
    below = [latex(f"Settings: {settings}."), *map(latex, notes)]
    if other_scale:
        below.insert(0, r"$^{\dagger}$The paper's number, on another scale: not to be compared with ours.")
    text = "\n".join(
        [
            "% Needs \\usepackage{booktabs}. Written by `directcm table`; do not edit.",
            r"\begin{table*}",
            r"\centering",
            r"\footnotesize",
            r"\setlength{\tabcolsep}{3pt}",
            r"\caption{Teacher, CM and Direct CM: mean $\pm$ sd over $n$ training seeds.}",
            r"\label{tab:table1}",
            r"\begin{tabular}{@{}l" + "r" * len(wide.columns) + "@{}}",
            r"\toprule",
            " & ".join(head) + r" \\",
            *(["".join(rules)] if rules else []),
            " & ".join(["", *(under[reference] for _, reference in wide.columns)]) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\par\smallskip",
            r"\parbox{\linewidth}{\scriptsize\raggedright",
            *below,
            "}",
            r"\end{table*}",
            "",
        ]
    )
    write_text(path, text)


def _number(value: float | None) -> float | None:
    """Ten significant digits: what the values carry, without the last bits' noise."""
    return None if value is None else float(f"{value:.10g}")


def table1(
    metrics: Sequence[Artifact],
    config: Config,
    out_csv: str | Path,
    out_tex: str | Path,
    out_html: str | Path,
    out_json: str | Path,
) -> list[Cell]:
    """Write Table 1 as tidy CSV (COLUMNS), LaTeX, HTML, and JSON {row: {metric: mean}}; returns its cells.

    `metrics` may hold other runs of the grid: only the main comparison's are used (see `selection`).
    """
    items = select(metrics, config)
    table = cells(items, config)
    if not table:
        raise UserError("metrics: none of the configuration's metrics has been evaluated; check the key metrics")
    write_csv(
        out_csv,
        [
            {
                "row": c.row, "steps": c.steps, "metric": c.metric, "reference": c.reference, "mean": _number(c.mean),
                "sd": _number(c.sd), "n_seeds": c.n_seeds, "n_samples": c.n_samples, "paper": c.paper,
            }
            for c in table
        ],
        COLUMNS,
    )  # fmt: skip
    wide, settings = _wide(table, config), describe(config)
    notes = _notes(table, config, wide)
    _html(out_html, wide, notes, settings)
    _tex(out_tex, wide, notes, settings)
    first = {c.row: min(d.steps for d in table if d.row == c.row) for c in table}
    nested: dict[str, dict[str, float | None]] = {}
    for c in table:
        suffix = "" if c.steps == first[c.row] else f"_k{c.steps}"
        nested.setdefault(c.row, {})[metric_key(c.metric, c.reference) + suffix] = _number(c.mean)
    write_json(out_json, nested)
    return table


def text(table_csv: str | Path) -> str:
    """Table 1 for a terminal: one line per row and metric, with the paper's number where there is one."""
    from directcm.artifacts import read_csv

    rows = [["", "steps", "metric", "against", "mean", "± sd", "seeds", "n", "paper (SDXL: another scale)"]]
    for r in read_csv(table_csv):
        spec = METRICS[r["metric"]]
        sd = f"± {float(r['sd']):.{spec.decimals}f}" if r["sd"] else ""
        paper = f"{spec.paper_name} {r['paper']}" if r["paper"] else ""
        against = "" if r["reference"] == "none" else r["reference"]
        rows.append(
            [
                r["row"],
                r["steps"],
                spec.title,
                against,
                f"{float(r['mean']):.{spec.decimals}f}",
                sd,
                r["n_seeds"],
                r["n_samples"],
                paper,
            ]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
