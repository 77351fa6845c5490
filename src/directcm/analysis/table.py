"""Tables 1 to 4, the table of all other metrics, and CM − Direct CM: from the tidy tables to CSV, LaTeX and HTML.

Students' entries are mean ± sample sd over training seeds. A value is bold only where comparisons.csv finds the difference
between CM and Direct CM of that setting, step, number of sampling steps, metric and reference significant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from directcm.analysis.collect import COMPARISONS_COLUMNS, METRICS_COLUMNS, STUDENTS_COLUMNS
from directcm.analysis.page import fragment, plain, write_page
from directcm.analysis.selection import (
    FLOOR,
    ROWS,
    TEACHER,
    describe,
    main_runs,
    main_setting,
    sampling_numbers,
    select_axis,
    select_runs,
    steps_label,
    swept,
)
from directcm.analysis.tidy import finished, mean_sd, read, value
from directcm.artifacts import read_csv, write_csv, write_json, write_text
from directcm.config import SETTING_AXES, Config, Ode, Run, Setting, spell
from directcm.errors import UserError
from directcm.registry import FIRST
from directcm.specs import METHODS, METRICS, SOLVERS

PAPER_RESOLUTION = 1024
PAPER_SOLVER = "ddim"
A, B = (METHODS[name] for name in FIRST)
COLUMNS = ["row", "steps", "metric", "reference", "mean", "sd", "n_seeds", "n_samples", "paper"]
COMPARISON_COLUMNS = [
    "steps", "metric", "reference", "cm", "direct_cm", "floor", "difference", "low", "high", "level", "p", "p_prompts",
    "test", "n", "n_seeds", "seeds_agree", "dim", "reading",
]  # fmt: skip
REFERENCE = {"teacher": "to teacher samples", "data": "to data images", "prompt": "with prompt", "none": ""}
UNDER = {"teacher": "teacher", "data": "data", "prompt": "prompt", "none": ""}

FLAGS = {
    "rank_deficient": "fewer samples than feature dimensions, so the covariance is singular and the distance unreliable",
    "weak_classifier": "the classifier that reads the samples is itself weak on held-out real images",
}
TESTS = {
    "bootstrap": "paired bootstrap over prompts",
    "permutation": "permutation of the method label within seed and prompt",
    "seeds": "over seeds alone",
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
    solver: str = ""
    best: bool = False


def paper_value(row: str, steps: int, metric: str, reference: str) -> float | None:
    """What the paper reports for this cell: one step, and students' distances only against teacher samples."""
    if steps != 1 or reference == "data":
        return None
    return METRICS[metric].paper.get(row)


def same_scale(metric: str, config: Config) -> bool:
    """Whether the paper's number and ours are on one scale: its own extractor, on a teacher and at a size like its own."""
    own = config.teacher.kind == "diffusers" and config.data.resolution == PAPER_RESOLUTION
    return METRICS[metric].same_scale_as_paper and own


# ----------------------------------------------------------------- what is significant


def _place(row: Mapping[str, Any], step: str) -> tuple[Any, ...]:
    """What a value and a comparison must share: setting, optimiser step, sampling steps, metric, reference."""
    spelled = (spell(row[name]) for name in (*SETTING_AXES, step, "sampling_steps"))
    return (*spelled, row["metric"], row["reference"])


def significant(comparison: Mapping[str, str], alpha: float) -> bool:
    """Whether a comparison's p is below alpha over seeds and prompts, and, where there is one, over prompts alone too."""
    p, conditional = value(comparison["p"]), value(comparison["p_prompts"])
    return p < alpha and (math.isnan(conditional) or conditional < alpha)


def winner(comparison: Mapping[str, str]) -> str | None:
    """ "CM" or "Direct CM", whichever the difference CM − Direct CM favours in the metric's own direction."""
    difference = value(comparison["difference"])
    if math.isnan(difference) or difference == 0 or METRICS[comparison["metric"]].better not in ("lower", "higher"):
        return None
    return A if (difference < 0) == (METRICS[comparison["metric"]].better == "lower") else B


def _tests(comparisons: Sequence[Mapping[str, str]]) -> dict[tuple[Any, ...], Mapping[str, str]]:
    """Comparisons of CM and Direct CM at the same step of training, by place."""
    return {
        _place(row, "a_step"): row
        for row in comparisons
        if row["what"] == "method" and (row["a"], row["b"]) == (A, B) and value(row["a_step"]) == value(row["b_step"])
    }


# ----------------------------------------------------------------- cells


@dataclass
class _Line:
    """One line of a table: a row of the comparison under one solver and number of sampling steps."""

    row: str
    steps: int
    solver: str
    group: str
    rows: list[Mapping[str, str]]
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)
    cost: float | None = None  # network evaluations, where the table has them

    @property
    def seeds(self) -> int:
        return len({row["seed"] for row in self.rows})

    @property
    def detail(self) -> str:
        """What stands under the row's name."""
        if self.row in (TEACHER, FLOOR):
            return f"{self.steps} solver steps"
        cost = "" if self.cost is None else f", {self.cost:,.0f} evaluations"
        return f"{steps_label(self.steps)}, {self.seeds} seed{'s' * (self.seeds != 1)}{cost}"


def _lines(rows: Sequence[Mapping[str, str]], group: Callable[[Mapping[str, str]], str]) -> list[_Line]:
    """Lines in the order of their groups' first appearance; within a group by number of sampling steps, then as ROWS has them."""
    found: dict[tuple[str, str, int, str], _Line] = {}
    for row in rows:
        steps = int(row["sampling_steps"])
        key = (group(row), row["row"], steps, row["solver"])
        found.setdefault(key, _Line(row["row"], steps, row["solver"], key[0], [])).rows.append(row)
    groups = list(dict.fromkeys(line.group for line in found.values()))
    students = tuple(METHODS.values())
    return sorted(
        found.values(),
        key=lambda line: (
            groups.index(line.group), line.row in students, line.steps if line.row in students else 0, ROWS.index(line.row)
        ),
    )  # fmt: skip


def _fill(
    lines: Sequence[_Line],
    names: Sequence[str],
    tests: Mapping[tuple[Any, ...], Mapping[str, str]],
    alpha: float,
    where: str | Path,
) -> None:
    """Fill the lines' cells from their rows, marking the better of CM and Direct CM where the difference is significant."""
    for line in lines:
        by_value: dict[tuple[str, str], list[Mapping[str, str]]] = {}
        for row in line.rows:
            by_value.setdefault((row["metric"], row["reference"]), []).append(row)
        for metric in names:
            for reference in METRICS[metric].references:
                found = by_value.get((metric, reference), [])
                if not found:
                    continue
                if len(found) < line.seeds:
                    lacking = {row["seed"] for row in line.rows} - {row["seed"] for row in found}
                    raise UserError(
                        f"{where}: {line.row}, {line.detail}, seed {min(lacking)} lacks {metric} against {reference}, "
                        f"which other seeds have; evaluate it again"
                    )
                values = [value(row["value"]) for row in found]
                mean, sd = (math.nan, math.nan) if any(map(math.isnan, values)) else mean_sd(values)
                flags = tuple(dict.fromkeys(flag for row in found for flag in row["flags"].split(";") if flag))
                paper = paper_value(line.row, line.steps, metric, reference) if line.solver == PAPER_SOLVER else None
                test = tests.get(_place(found[0], "step")) if found[0]["step"] else None
                best = test is not None and significant(test, alpha) and winner(test) == line.row
                line.cells[metric, reference] = Cell(
                    line.row, line.steps, metric, reference, _defined(mean), _defined(sd), len(found), int(found[0]["n"]),
                    paper, _whole(found[0]["n_reference"]), _whole(found[0]["dim"]), flags, line.solver, best,
                )  # fmt: skip
    # The test pairs seeds, a mean has all of them: where they disagree on which is better, nothing is marked.
    for line in lines:
        for key, cell in line.cells.items():
            other = next((x for x in lines if _pair(line, x)), None)
            against = other.cells.get(key) if other else None
            if cell.best and not _better(cell, against):
                line.cells[key] = Cell(**{**cell.__dict__, "best": False})


def _pair(a: _Line, b: _Line) -> bool:
    """Whether two lines are CM and Direct CM under the same conditions."""
    return {a.row, b.row} == {A, B} and (a.group, a.steps, a.solver) == (b.group, b.steps, b.solver)


def _better(cell: Cell, other: Cell | None) -> bool:
    if other is None or cell.mean is None or other.mean is None:
        return False
    return cell.mean < other.mean if METRICS[cell.metric].better == "lower" else cell.mean > other.mean


def _defined(x: float) -> float | None:
    return None if math.isnan(x) else x


def _whole(text: str) -> int | None:
    return int(float(text)) if text else None


def _significant_digits(x: float | None) -> float | None:
    """Ten significant digits: what the values carry, without the last bits' noise."""
    return None if x is None else float(f"{x:.10g}")


# ----------------------------------------------------------------- text of numbers


def metric_key(metric: str, reference: str) -> str:
    """The metric's key in JSON: its name, with the reference where there are several."""
    return f"{metric}_{reference}" if len(METRICS[metric].references) > 1 else metric


def fixed(x: float | None, decimals: int, signed: bool = False) -> str:
    """A number at fixed decimals with a true minus sign; no negative zero."""
    if x is None or math.isnan(x):
        return "–"
    text = f"{x:{'+' if signed else ''}.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def shown_p(x: float) -> str:
    """A p-value at three decimals: 0.012, < 0.001."""
    if math.isnan(x):
        return "–"
    return "< 0.001" if x < 0.001 else f"{x:.3f}"


def _paper_number(x: float) -> str:
    """As the paper prints it: 95.3, 166.0, 1148."""
    return f"{x:.0f}" if x >= 1000 else str(float(x))


def _paper_text(cell: Cell, config: Config) -> str:
    """The paper's number as it stands beside ours; empty where the paper has none."""
    if cell.paper is None:
        return ""
    spec = METRICS[cell.metric]
    scale = "SDXL" if same_scale(cell.metric, config) else "SDXL; another scale"
    return f"paper: {spec.paper_name} {_paper_number(cell.paper)} ({scale})"


def _paper_brief(cell: Cell, config: Config) -> str:
    """The paper's number where it may be compared with ours, in few letters."""
    return f"paper {_paper_number(cell.paper)}" if cell.paper is not None and same_scale(cell.metric, config) else ""


def _arrow(metric: str) -> str:
    return {"lower": "↓", "higher": "↑"}.get(METRICS[metric].better, "")


def _title_of(metric: str, reference: str) -> str:
    return f"{METRICS[metric].title} {REFERENCE[reference]}".strip()


# ----------------------------------------------------------------- the table as people read it


@dataclass(frozen=True)
class _Head:
    title: str
    better: str = ""
    arrow: str = ""
    span: int = 1


@dataclass(frozen=True)
class _Row:
    group: str
    name: str
    detail: str
    cells: list[tuple[str, Cell | None]]
    head: _Head | None = None


@dataclass(frozen=True)
class _Grid:
    """Columns (over and under), rows, and where each cell's value stands: models down, or metrics down."""

    corner: str
    heads: list[_Head]
    under: list[str]
    rows: list[_Row]


def _metric_head(metric: str, span: int = 1) -> _Head:
    return _Head(METRICS[metric].title, METRICS[metric].better, _arrow(metric), span)


def _columns(lines: Sequence[_Line]) -> list[tuple[str, str]]:
    """The (metric, reference) pairs of a table, in the order that its cells were filled in."""
    order: list[tuple[str, str]] = []
    for line in sorted(lines, key=lambda line: -len(line.cells)):
        order += [key for key in line.cells if key not in order]
    names = list(dict.fromkeys(metric for metric, _ in order))
    return [(m, r) for m in names for r in METRICS[m].references if (m, r) in order]


def _models_down(lines: Sequence[_Line]) -> _Grid:
    columns = _columns(lines)
    names = list(dict.fromkeys(metric for metric, _ in columns))
    heads = [_metric_head(m, sum(metric == m for metric, _ in columns)) for m in names]
    labels = [f"{METRICS[m].title} {_arrow(m)} {REFERENCE[r]}".strip() for m, r in columns]
    rows = [
        _Row(
            line.group,
            line.row,
            line.detail,
            [(x, line.cells.get(key)) for x, key in zip(labels, columns, strict=True)],
        )
        for line in lines
    ]
    return _Grid("Model", heads, [REFERENCE[r] for _, r in columns], rows)


def _metrics_down(lines: Sequence[_Line]) -> _Grid:
    rows = []
    for metric, reference in _columns(lines):
        cells = [(line.row, line.cells.get((metric, reference))) for line in lines]
        head = _metric_head(metric)
        rows.append(_Row("", head.title, REFERENCE[reference], cells, head))
    return _Grid("Metric", [_Head(line.row) for line in lines], [line.detail for line in lines], rows)


def _notes(lines: Sequence[_Line], config: Config, tested: int) -> list[str]:
    """What a reader must know to read the numbers, as plain text."""
    cells = [cell for line in lines for cell in line.cells.values()]
    students = [line for line in lines if line.row in (A, B)]
    seeds: dict[str, set[int]] = {}
    for line in students:
        seeds.setdefault(line.row, set()).add(line.seeds)
    counts = {row: " to ".join(str(n) for n in sorted({min(own), max(own)})) for row, own in seeds.items()}
    count = " and ".join(f"{n} for {row}" for row, n in counts.items())
    if len(set(counts.values())) == 1:
        count = next(iter(counts.values()))
    samples = sorted({cell.n_samples for cell in cells})
    notes = [
        (
            f"Students: mean ± sample standard deviation (n − 1) over training seeds; number of seeds: {count}. "
            "The teacher is one fixed model and has no sd."
        ),
        "Samples behind each value: "
        + " or ".join(f"{n:,}" for n in samples)
        + f"; all rows from the same initial noise and prompts, but for “{FLOOR}”.",
        f"“{FLOOR}” is the teacher itself on a second draw of noise for the same prompts. Its distance to the teacher's samples "
        "is the floor: how far apart two equal models are at this n. Its distance to the data is that of the teacher once more.",
    ]
    sizes: dict[str, list[str]] = {}
    for metric in dict.fromkeys(metric for metric, _ in _columns(lines)):
        own = {c.reference: c for c in cells if c.metric == metric and c.dim is not None}
        if own:
            against = [
                f"{own[r].n_reference:,} {REFERENCE[r].removeprefix('to ')}"
                for r in METRICS[metric].references
                if r in own and own[r].n_reference is not None
            ]
            size = f"D = {next(iter(own.values())).dim}" + (
                f", reference of {' and '.join(against)}" if against else ""
            )
            sizes.setdefault(size, []).append(METRICS[metric].title)
    if sizes:
        notes.append(
            "Dimension D of what is compared: "
            + "; ".join(f"{size} ({_listed(names)})" for size, names in sizes.items())
            + ". Distances at another n or D are not comparable."
        )
    notes += _stand_ins(cells)
    if any(cell.paper is not None for cell in cells):
        notes.append(
            "The paper's numbers (arXiv 2411.08954: SDXL, one step; its students' distances are to teacher samples) stand "
            "beside ours for orientation; “another scale” means that the two must not be compared."
        )
    if any(cell is None or cell.mean is None for line in lines for cell in map(line.cells.get, _columns(lines))):
        other = (
            "; the floor's other noise has no sample-by-sample error"
            if any(c.metric == "ode_error" for c in cells)
            else ""
        )
        notes.append(
            f"–: not defined. The teacher is its own reference, so it has no distance to its own samples{other}."
        )
    notes += _cautions(cells)
    notes.append(_bold_note(students, config.statistics.alpha, tested))
    return notes


def _stand_ins(cells: Sequence[Cell]) -> list[str]:
    """That metrics on a network trained here are no published ones, where there are any."""
    tiny = [METRICS[m].title for m in dict.fromkeys(c.metric for c in cells) if METRICS[m].extractor == "clip_tiny"]
    if not tiny:
        return []
    several = len(tiny) > 1
    return [
        f"{_listed(tiny)} use{'' if several else 's'} a small network trained on this run's own images. "
        f"{'They are' if several else 'It is'} not the published metric{'s' * several} (FID, KID, CLIP score, aesthetic score "
        "and others), and no number here reproduces one."
    ]


def _cautions(cells: Sequence[Cell]) -> list[str]:
    """What speaks against a number, by kind, with the metrics that it is about."""
    flagged: dict[str, dict[str, None]] = {}
    for cell in cells:
        for flag in cell.flags:
            flagged.setdefault(FLAGS.get(flag, plain(flag)), {})[_title_of(cell.metric, cell.reference)] = None
    return [f"Caution, {', '.join(titles)}: {flag}." for flag, titles in flagged.items()]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _bold_note(students: Sequence[_Line], alpha: float, tested: int) -> str:
    if not tested:
        return "No value is bold: no test of CM against Direct CM belongs to this table."
    bold = sum(cell.best for line in students for cell in line.cells.values())
    rule = (
        f"p < {alpha:g} both over seeds and prompts together (crossed design, Satterthwaite's degrees of freedom) and, where it "
        "can be had, for these trained students alone (paired bootstrap over prompts; for distances, permutation of the method "
        "label within seed and prompt)"
    )
    start = f"Bold: the better of CM and Direct CM where they differ significantly, {rule}."
    if not bold:
        start = f"No value is bold, because no difference between CM and Direct CM is significant: {rule}."
    end = " These p-values are not adjusted for the number of values in the table; the claims page adjusts its own (Holm)."
    if any(line.seeds == 1 for line in students):
        end += " With one training seed a test says nothing about other seeds."
    return start + end


# ----------------------------------------------------------------- HTML

GRID = """
<thead role="rowgroup">
<tr role="row" class="over">
<td role="cell"></td>
{% for head in grid.heads %}
<th scope="{{ 'colgroup' if head.span > 1 else 'col' }}" role="columnheader" class="{{ 'group' if head.span > 1 else 'n' }}" colspan="{{ head.span }}"><span class="{{ 'bar' if head.span > 1 else '' }}">{{ head.title }}{% if head.better %}&nbsp;<span aria-hidden="true">{{ head.arrow }}</span><span class="hidden">({{ head.better }} is better)</span>{% endif %}</span></th>
{% endfor %}
</tr>
<tr role="row">
<th scope="col" role="columnheader">{{ grid.corner }}</th>
{% for text in grid.under %}
<th scope="col" role="columnheader" class="n small">{{ text }}</th>
{% endfor %}
</tr>
</thead>
{% for group, rows in groups %}
<tbody role="rowgroup">
{% if group %}
<tr role="row" class="part"><th scope="rowgroup" role="rowheader" colspan="{{ grid.under | length + 1 }}">{{ group }}</th></tr>
{% endif %}
{% for row in rows %}
<tr role="row">
<th scope="row" role="rowheader">{{ row.name }}{% if row.head %}&nbsp;<span aria-hidden="true">{{ row.head.arrow }}</span><span class="hidden">({{ row.head.better }} is better)</span>{% endif %}<br><span class="small">{{ row.detail }}</span></th>
{% for cell in row.cells %}
<td role="cell" class="n" data-label="{{ cell.label }}">
{%- if cell.mean is none %}<span class="none"><span aria-hidden="true">–</span><span class="hidden">not defined</span></span>
{%- else %}<span><span class="value">{% if cell.best %}<strong>{{ cell.mean }}</strong><span class="hidden"> (significantly better)</span>{% else %}{{ cell.mean }}{% endif %}{% if cell.sd %} <span class="pm">± {{ cell.sd }}</span>{% endif %}</span>
{%- if cell.paper %}<span class="paper">{{ cell.paper }}</span>{% endif %}</span>
{%- endif %}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
{% endfor %}
"""
BODY = (
    """
<div class="scroll" role="region" aria-label="{{ title }}" tabindex="0">
<table role="table">
<caption>{{ caption }} (↓ lower is better, ↑ higher is better). Settings: <bdi>{{ settings }}</bdi>.</caption>"""
    + GRID
    + """</table>
</div>
<h2>How to read it</h2>
<ul>
{% for note in notes %}
<li>{{ note }}</li>
{% endfor %}
</ul>
"""
)


def _groups(
    grid: _Grid, config: Config, paper: Callable[[Cell, Config], str] = _paper_text
) -> list[tuple[str, list[dict[str, Any]]]]:
    """A grid's rows by group, each cell as the text that GRID shows, with the paper's number as `paper` puts it."""
    groups: list[tuple[str, list[dict[str, Any]]]] = []
    for row in grid.rows:
        cells: list[dict[str, Any]] = []
        for label, cell in row.cells:
            if cell is None or cell.mean is None:
                cells.append({"label": label, "mean": None})
                continue
            decimals = METRICS[cell.metric].decimals
            cells.append(
                {
                    "label": label, "mean": fixed(cell.mean, decimals), "best": cell.best,
                    "sd": "" if cell.sd is None else fixed(cell.sd, decimals), "paper": paper(cell, config),
                }
            )  # fmt: skip
        if not groups or groups[-1][0] != row.group:
            groups.append((row.group, []))
        groups[-1][1].append({"name": row.name, "detail": row.detail, "head": row.head, "cells": cells})
    return groups


def _html(path: str | Path, grid: _Grid, title: str, caption: str, notes: Sequence[str], config: Config) -> None:
    write_page(
        path,
        BODY,
        title=title,
        caption=caption,
        grid=grid,
        groups=_groups(grid, config),
        notes=notes,
        settings=plain(describe(config)),
    )


# ----------------------------------------------------------------- LaTeX

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': r"\textquotedbl{}", "−": r"$-$", "–": "--", "±": r"$\pm$", "×": r"$\times$", "…": r"\ldots{}", "“": "``",
    "”": "''", "’": "'", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "∞": r"$\infty$", "≥": r"$\geq$", "≤": r"$\leq$",
    "[": "{[}", "]": "{]}",
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


def _tex(path: str | Path, grid: _Grid, name: str, caption: str, notes: Sequence[str], config: Config) -> None:
    head, rules, at = [grid.corner], [], 2
    for one in grid.heads:
        title = latex(f"{one.title} {one.arrow}".strip())
        head.append(title if one.span == 1 else rf"\multicolumn{{{one.span}}}{{c}}{{{title}}}")
        if one.span > 1:
            rules.append(rf"\cmidrule(lr){{{at}-{at + one.span - 1}}}")
        at += one.span
    short = {REFERENCE[key]: UNDER[key] for key in REFERENCE}
    lines: list[str] = []
    group, other_scale = "", False
    for row in grid.rows:
        if row.group != group:
            lines += [r"\addlinespace"] * bool(lines)
            lines.append(rf"\multicolumn{{{len(grid.under) + 1}}}{{@{{}}l}}{{\textit{{{latex(row.group)}}}}} \\")
            group = row.group
        title = latex(f"{row.name} {row.head.arrow if row.head else ''}".strip())
        ours, papers = [rf"{title} {{\scriptsize({latex(short.get(row.detail, row.detail))})}}"], []
        if not row.detail:
            ours = [title]
        for _, cell in row.cells:
            if cell is None or cell.mean is None:
                ours.append("--")
                papers.append("")
                continue
            spec = METRICS[cell.metric]
            mean = latex(fixed(cell.mean, spec.decimals))
            sd = "" if cell.sd is None else rf"\,{{\scriptsize$\pm$\,{latex(fixed(cell.sd, spec.decimals))}}}"
            ours.append((rf"\textbf{{{embolden(mean)}}}" if cell.best else mean) + sd)
            if cell.paper is None:
                papers.append("")
            else:
                mark = "" if same_scale(cell.metric, config) else r"$^{\dagger}$"
                other_scale = other_scale or bool(mark)
                papers.append(
                    rf"\textit{{\scriptsize{{[}}{latex(spec.paper_name)} {_paper_number(cell.paper)}{{]}}{mark}}}"
                )
        lines.append(" & ".join(ours) + r" \\")
        if any(papers):
            lines.append(" & ".join([r"\quad\textit{\scriptsize paper, SDXL}", *papers]) + r" \\")
    below = [latex(f"Settings: {describe(config)}."), *map(latex, notes)]
    if other_scale:
        below.insert(0, r"$^{\dagger}$The paper's number, on another scale: not to be compared with ours.")
    under = ["", *(latex(short.get(text, text)) for text in grid.under)]
    body = [
        " & ".join(head) + r" \\",
        *(["".join(rules)] if rules else []),
        " & ".join(under) + r" \\",
        r"\midrule",
        *lines,
    ]
    write_tex(path, name, caption, "l" + "r" * len(grid.under), body, below)


def embolden(number_: str) -> str:
    r"""A minus sign in math is not made bold by \textbf."""
    return number_.replace("$-$", r"$\boldsymbol{-}$")


def write_tex(
    path: str | Path, name: str, caption: str, columns: str, body: Sequence[str], below: Sequence[str]
) -> None:
    """Write a LaTeX table* of booktabs: `columns` as tabular takes them, `body` from the head on, `below` in small type under it."""
    text = "\n".join(
        [
            "% Needs \\usepackage{booktabs,amsmath}. Written by `directcm table`; do not edit.",
            r"\begin{table*}",
            r"\centering",
            r"\footnotesize",
            r"\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{caption}}}",
            rf"\label{{tab:{name}}}",
            rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
            r"\toprule",
            *body,
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


# ----------------------------------------------------------------- the tables


@dataclass(frozen=True)
class Out:
    """Where a table is written. `json` is for Table 1 alone."""

    csv: Path
    tex: Path
    html: Path
    json: Path | None = None


def _require(rows: Sequence[Mapping[str, str]], runs: Sequence[Run], numbers: Sequence[int], path: str | Path) -> None:
    """UserError where a run of the grid, its teacher or its floor has no line in metrics.csv."""
    have = {(Run.of(r, f"{path}: a line"), int(r["sampling_steps"])) for r in rows if r["method"]}
    teachers = {(r["row"], Ode.of(r, f"{path}: a line")) for r in rows}
    for run in runs:
        for k in numbers:
            if (run, k) not in have:
                raise UserError(
                    f"{path}: none of {METHODS[run.method]} at {k} sampling step{'s' * (k > 1)} with {run.setting.words}, "
                    f"seed = {run.seed}; evaluate this student and collect again"
                )
        # Of errors sample by sample alone neither has a line: the teacher has none to itself, another noise no counterpart.
        for row in (TEACHER, FLOOR) if any(r["metric"] != "ode_error" for r in rows) else ():
            if (row, run.ode) not in teachers:
                raise UserError(f"{path}: none of “{row}” with {run.ode.words}; evaluate it and collect again")


def _headline(config: Config) -> list[str]:
    return [m for m in config.metric_names() if METRICS[m].headline]


def _others(config: Config) -> list[str]:
    return [m for m in config.metric_names() if not METRICS[m].headline]


def available(config: Config) -> list[str]:
    """The tables that the grid and the metrics of a configuration have something for, by name."""
    both = {run.method for run in main_runs(config)} >= set(FIRST)
    wanted = {
        "table1": bool(_headline(config)),
        "table2": bool(_headline(config)) and len(swept(config, "solver")) > 1,
        "table3": bool(_headline(config)) and len(swept(config, "sampling_steps")) > 1,
        "table4": bool(_headline(config)) and not set(config_methods(config)) <= set(FIRST),
        "table_metrics": bool(_others(config)),
        "table_comparison": both,
        "table_search": config.search is not None,
    }
    return [name for name, there in wanted.items() if there]


def _chosen(
    metrics: str | Path,
    comparisons: str | Path,
    config: Config,
    *,
    numbers: Sequence[int],
    names: Sequence[str],
    axis: str | tuple[str, ...] = (),
    group: Callable[[Mapping[str, str]], str] = lambda row: "",
    order: Callable[[Mapping[str, str]], Any] = lambda row: 0,
) -> tuple[list[_Line], int]:
    """A table's lines with their cells, and how many of the students' values have a test."""
    main = main_setting(config)
    rows = select_axis(read(metrics, METRICS_COLUMNS), main, axis)
    students = [row for row in finished([r for r in rows if r["step"]]) if int(row["sampling_steps"]) in numbers]
    chosen = sorted([*(row for row in rows if not row["step"]), *students], key=order)
    _require(chosen, select_runs(config.runs(), main, axis), numbers, metrics)
    lines = _lines(chosen, group)
    tests = _tests(read_csv(comparisons))
    _fill(lines, names, tests, config.statistics.alpha, metrics)
    if not any(line.cells for line in lines):
        raise UserError(f"metrics: none of {', '.join(names)} has been evaluated; check the key metrics")
    return lines, sum(_place(row, "step") in tests for row in students if row["metric"] in names)


def _csv_row(cell: Cell, columns: Sequence[str]) -> dict[str, Any]:
    """A cell as a line of its table's CSV."""
    numbers = {"mean": _significant_digits(cell.mean), "sd": _significant_digits(cell.sd)}
    return {c: numbers[c] if c in numbers else getattr(cell, c) for c in columns}


def _make(
    metrics: str | Path,
    comparisons: str | Path,
    config: Config,
    out: Out,
    *,
    name: str,
    title: str,
    caption: str,
    tex_caption: str,
    grid: Callable[[Sequence[_Line]], _Grid] = _models_down,
    columns: Sequence[str] = COLUMNS,
    **selection: Any,
) -> list[Cell]:
    lines, tested = _chosen(metrics, comparisons, config, **selection)
    cells = [cell for line in lines for cell in line.cells.values()]
    notes = _notes(lines, config, tested)
    write_csv(out.csv, [_csv_row(cell, columns) for cell in cells], list(columns))
    shape = grid(lines)
    _html(out.html, shape, title, caption, notes, config)
    _tex(out.tex, shape, name, tex_caption, notes, config)
    if out.json is not None:
        nested: dict[str, dict[str, float | None]] = {}
        for cell in cells:
            nested.setdefault(cell.row, {})[metric_key(cell.metric, cell.reference)] = _significant_digits(cell.mean)
        write_json(out.json, nested)
    return cells


def _table1_selection(config: Config) -> dict[str, Any]:
    return {"numbers": sampling_numbers(config)[:1], "names": _headline(config)}


def table1_rows(metrics: str | Path, comparisons: str | Path, config: Config) -> list[dict[str, Any]]:
    """The lines of Table 1's CSV (COLUMNS), from the tidy tables; nothing is written."""
    lines, _ = _chosen(metrics, comparisons, config, **_table1_selection(config))
    return [_csv_row(cell, COLUMNS) for line in lines for cell in line.cells.values()]


def table1(metrics: str | Path, comparisons: str | Path, config: Config, out: Out) -> list[Cell]:
    """Table 1, the main comparison: finished students, fewest sampling steps, headline metrics; returns its cells.

    Written as tidy CSV (COLUMNS), LaTeX, HTML, and JSON {row: {metric: mean}}. `metrics` and `comparisons` are metrics.csv and
    comparisons.csv of `directcm collect`; lines of other settings are left out.
    """
    return _make(
        metrics, comparisons, config, out, name="table1", title="Table 1. Teacher, CM and Direct CM",
        caption="One row per model, one column per metric",
        tex_caption=r"Teacher, CM and Direct CM: mean $\pm$ sd over $n$ training seeds.", **_table1_selection(config),
    )  # fmt: skip


@dataclass(frozen=True)
class Brief:
    """Table 1 where there is little room: HTML without a page, what must be known to read it, its columns of values, and whether
    models stand below one another, for there are too many to stand side by side.
    """

    html: str
    notes: list[str]
    columns: int
    models_down: bool


# As many models as have a legible column each in a third of a screen.
ABREAST = 5


def brief(metrics: str | Path, comparisons: str | Path, config: Config) -> Brief | None:
    """Table 1 for the report's first page, of the same cells as `table1`; None where no metric of the run stands in it."""
    names = _headline(config)
    if not names:
        return None
    lines, tested = _chosen(metrics, comparisons, config, numbers=sampling_numbers(config)[:1], names=names)
    cells = [cell for line in lines for cell in line.cells.values()]
    down = len(lines) > ABREAST
    grid = _metrics_down(lines)
    if down:
        grid = replace(_models_down(lines), under=[UNDER[reference] for _, reference in _columns(lines)])
    bold = "No value is bold: no test of CM against Direct CM belongs to this table."
    if any(cell.best for cell in cells):
        bold = "Bold: the better of CM and Direct CM where they differ significantly."
    elif tested:
        bold = "No value is bold, because no difference between CM and Direct CM is significant."
    samples = " or ".join(f"{n:,}" for n in sorted({cell.n_samples for cell in cells}))
    notes = [
        f"↓ lower is better, ↑ higher is better. Students: mean ± sd over training seeds. {samples} samples each. {bold}",
        *(["Under a metric: what it compares the samples with."] if down else []),
        *_stand_ins(cells),
        *_cautions(cells),
    ]
    html = fragment(f'<table role="table">{GRID}</table>', grid=grid, groups=_groups(grid, config, _paper_brief))
    return Brief(html, notes, len(grid.under), down)


def table2(metrics: str | Path, comparisons: str | Path, config: Config, out: Out) -> list[Cell]:
    """Table 2, the teacher's solver: as Table 1, per solver of the grid; its CSV begins with the solver.

    Raises UserError where the grid has one solver.
    """
    solvers = swept(config, "solver")
    if len(solvers) < 2:
        raise UserError(
            f"students: no line varies solver, all have {solvers[0]}, so Table 2 has nothing to compare; "
            "add a line with solver: [euler, heun]"
        )
    return _make(
        metrics, comparisons, config, out, name="table2", title="Table 2. The teacher's solver",
        caption="One row per solver of the teacher's ODE and model, one column per metric",
        tex_caption=r"The solver of the teacher's ODE: mean $\pm$ sd over $n$ training seeds.",
        axis="solver", numbers=sampling_numbers(config)[:1], names=_headline(config),
        group=lambda row: SOLVERS[row["solver"]], order=lambda row: [*solvers, row["solver"]].index(row["solver"]),
        columns=["solver", *COLUMNS],
    )  # fmt: skip


def table3(metrics: str | Path, comparisons: str | Path, config: Config, out: Out) -> list[Cell]:
    """Table 3, the number of student sampling steps, of the main comparison. Raises UserError where there is one number."""
    numbers = sampling_numbers(config)
    if len(numbers) < 2:
        raise UserError(
            f"students: sampling_steps of the main comparison is {numbers[0]} alone, so Table 3 has nothing to compare; "
            "add sampling_steps: [1, 2, 4, 8] to its line"
        )

    def group(row: Mapping[str, str]) -> str:
        k = int(row["sampling_steps"])
        return f"{k} sampling step{'s' * (k != 1)}" if row["step"] else "The teacher"

    return _make(
        metrics, comparisons, config, out, name="table3", title="Table 3. Sampling steps of the students",
        caption="One row per number of student steps and model, one column per metric",
        tex_caption=r"Sampling steps of the students: mean $\pm$ sd over $n$ training seeds.",
        numbers=numbers, names=_headline(config), group=group,
        order=lambda row: int(row["sampling_steps"]) if row["step"] else 0,
    )  # fmt: skip


def table_metrics(metrics: str | Path, comparisons: str | Path, config: Config, out: Out) -> list[Cell]:
    """All other metrics of the main comparison (FD∞, CMMD, precision …), a line per metric and a column per model."""
    names = _others(config)
    if not names:
        raise UserError(
            "metrics: all of them stand in Table 1, so there are no others to tabulate; name more, such as cmmd_tiny"
        )
    return _make(
        metrics, comparisons, config, out, name="table_metrics", title="All other metrics of the main comparison",
        caption="One row per metric, one column per model",
        tex_caption=r"All other metrics of the main comparison: mean $\pm$ sd over $n$ training seeds.",
        numbers=sampling_numbers(config)[:1], names=names, grid=_metrics_down,
    )  # fmt: skip


# ----------------------------------------------------------------- Table 4


UPDATES, COMPUTE = "At equal student updates", "At equal compute"
# How far from the common budget a training may end and still be called equal.
WITHIN = 0.1


def evaluations(student: Mapping[str, str]) -> float:
    """Rows through a U-Net that a student had cost at a step (a line of students.csv): its own forwards, backwards as two
    forwards each, the teacher's in training, and those that solved its targets.
    """
    parts = [value(student[name]) for name in ("student_forwards", "teacher_forwards", "target_forwards")]
    return math.fsum(parts) + 2 * value(student["student_backwards"])


def equal_compute(
    students: Sequence[Mapping[str, str]], main: Setting, budget: float
) -> dict[str, tuple[tuple[str, ...], float]]:
    """Method → (steps, pool, step) whose cost is nearest to the budget, and its cost: of those within WITHIN of it.

    `students` are lines of students.csv that differ from the main setting in steps and pool alone. Seeds cost the same.
    """
    found: dict[str, tuple[tuple[str, ...], float]] = {}
    for row in select_axis(students, main, ("steps", "pool")):
        cost, place = evaluations(row), (row["steps"], row["pool"], row["step"])
        best = found.get(row["method"])
        if abs(cost / budget - 1) <= WITHIN and (best is None or abs(cost - budget) < abs(best[1] - budget)):
            found[row["method"]] = (place, cost)
    return found


TABLE4_COLUMNS = ["part", *(c for c in COLUMNS if c != "paper"), "evaluations"]


def _table4(metrics: str | Path, config: Config, students: str | Path) -> tuple[list[_Line], list[str]]:
    """Table 4's lines with their cells, each line's part its group, and the notes."""
    main, numbers = main_setting(config), sampling_numbers(config)
    if set(config_methods(config)) <= set(FIRST):
        raise UserError("students: method has cm and direct_cm alone, so Table 4 has nothing to add; name others too")
    costs = read(students, STUDENTS_COLUMNS)
    own = {r["method"]: evaluations(r) for r in select_axis(costs, main) if value(r["step"]) == main.steps}
    reference = FIRST[0] if FIRST[0] in own else next(iter(own))
    compute = equal_compute(costs, main, own[reference])
    rows = select_axis(read(metrics, METRICS_COLUMNS), main, ("steps", "pool"))
    parts: list[tuple[str, list[Mapping[str, str]]]] = [
        (UPDATES, [r for r in finished(select_axis(rows, main)) if r["step"]]),
        (
            COMPUTE,
            [
                r
                for r in rows
                if r["step"] and compute.get(r["method"], ((), 0))[0] == (r["steps"], r["pool"], r["step"])
            ],
        ),
    ]
    _require(parts[0][1] + [r for r in rows if not r["step"]], select_runs(config.runs(), main), numbers, metrics)
    lines: list[_Line] = []
    names = {label: name for name, label in METHODS.items()}
    for part, found in parts:
        for line in _lines([r for r in found if int(r["sampling_steps"]) in numbers], lambda row, part=part: part):  # type: ignore[misc]
            line.cost = own[names[line.row]] if part == UPDATES else compute[names[line.row]][1]
            lines.append(line)
    wanted = _headline(config)
    _fill(lines, wanted, {}, config.statistics.alpha, metrics)
    absent = [METHODS[name] for name in own if name not in compute]
    notes = [
        "Students: mean ± sample standard deviation (n − 1) over training seeds. All from the same initial noise and prompts.",
        f"{UPDATES}: {main.steps} steps of {main.batch_size}. {COMPUTE}: as many evaluations as {METHODS[reference]} "
        f"took there, within {WITHIN:.0%}; fewer or more steps, and for solved targets fewer start points too. An evaluation is a row "
        "through a U-Net: the student's forwards, its backwards as two each, the teacher's, and those that solved targets.",
        *(
            [f"No training of {_listed(absent)} cost as much; a line of students with other steps would."]
            if absent
            else []
        ),
        "Nothing is bold: more than two methods are compared, and the tests of some pairs stand in the claims.",
        "Methods that ask no teacher learn from the data, without guidance; the others learn the guided teacher.",
    ]
    return lines, notes


def _table4_csv(lines: Sequence[_Line]) -> list[dict[str, Any]]:
    return [
        {**_csv_row(cell, TABLE4_COLUMNS[1:-1]), "part": line.group, "evaluations": round(line.cost or 0)}
        for line in lines
        for cell in line.cells.values()
    ]


def table4_rows(metrics: str | Path, config: Config, students: str | Path) -> list[dict[str, Any]]:
    """The lines of Table 4's CSV (TABLE4_COLUMNS), from the tidy tables; nothing is written."""
    return _table4_csv(_table4(metrics, config, students)[0])


def table4(metrics: str | Path, comparisons: str | Path, config: Config, out: Out, students: str | Path) -> list[Cell]:
    """Table 4, every method in each number of sampling steps: after as many updates, and for as much compute.

    The first part holds the finished students of the main setting; the second those that differ from it in steps and pool and
    whose cost (`evaluations`) is nearest to CM's in the first part. Its CSV begins with the part and ends with the cost.
    Raises UserError where there are no methods but CM and Direct CM.
    """
    lines, notes = _table4(metrics, config, students)
    write_csv(out.csv, _table4_csv(lines), TABLE4_COLUMNS)
    shape = _models_down(lines)
    _html(
        out.html,
        shape,
        "Table 4. Every method",
        "One row per method and number of steps, one column per metric",
        notes,
        config,
    )
    _tex(out.tex, shape, "table4", r"Every method: mean $\pm$ sd over training seeds.", notes, config)
    return [cell for line in lines for cell in line.cells.values()]


def config_methods(config: Config) -> list[str]:
    """The methods of a grid, in their own order."""
    used = {run.method for run in config.runs()}
    return [name for name in METHODS if name in used]


# ----------------------------------------------------------------- CM − Direct CM


def reading(comparison: Mapping[str, str], alpha: float) -> str:
    """In plain words, what one comparison of CM and Direct CM says."""
    who, p, conditional = winner(comparison), value(comparison["p"]), value(comparison["p_prompts"])
    if math.isnan(p):
        return "not tested"
    if who is None:
        return "no difference shown"
    # One seed has no sd: what is shown then is about these two students.
    scope = " between these two students; nothing about other seeds" if value(comparison["n_seeds"]) == 1 else ""
    if significant(comparison, alpha):
        return f"{who} is better{scope}"
    if p < alpha:
        return f"undecided: over seeds and prompts {who} is better, over prompts alone no difference is shown{scope}"
    if conditional < alpha:
        return f"no difference shown over seeds and prompts; {who} is better for these trained students alone{scope}"
    return f"no difference shown{scope}"


COMPARISON = """
<div class="scroll" role="region" aria-label="{{ title }}" tabindex="0">
<table role="table">
<caption>CM − Direct CM, {{ steps }}, per metric (↓ lower is better, ↑ higher is better), with {{ level }} % intervals.
Settings: <bdi>{{ settings }}</bdi>.</caption>
<thead role="rowgroup"><tr role="row">
<th scope="col" role="columnheader">Metric</th>
{% for head in heads %}
<th scope="col" role="columnheader" class="{{ 'n' if not loop.last else '' }}">{{ head }}</th>
{% endfor %}
</tr></thead>
<tbody role="rowgroup">
{% for row in rows %}
<tr role="row">
<th scope="row" role="rowheader">{{ row.title }}&nbsp;<span aria-hidden="true">{{ row.arrow }}</span><span class="hidden">({{ row.better }} is better)</span><br><span class="small">{{ row.against }}</span></th>
{% for label, text, bold in row.cells %}
<td role="cell" class="{{ 'n' if not loop.last else '' }}" data-label="{{ label }}"><span{% if label != 'Reading' %} class="value"{% endif %}>{% if bold %}<strong>{{ text }}</strong>{% else %}{{ text }}{% endif %}</span></td>
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


def comparison_rows(metrics: str | Path, comparisons: str | Path, config: Config) -> list[dict[str, Any]]:
    """CM − Direct CM of the main setting, finished students, fewest sampling steps, every metric: lines of COMPARISON_COLUMNS.

    `floor` is the teacher's distance to its own samples from other noise.
    """
    if not {run.method for run in main_runs(config)} >= set(FIRST):
        raise UserError("students: method has only one of cm and direct_cm, so there is nothing to compare; name both")
    main, alpha, fewest = main_setting(config), config.statistics.alpha, sampling_numbers(config)[0]
    found = {
        (row["metric"], row["reference"]): row
        for row in _tests(select_axis(read(comparisons, COMPARISONS_COLUMNS), main)).values()
        if value(row["a_step"]) == main.steps and value(row["sampling_steps"]) == fewest
    }
    keys = [(m, r) for m in config.metric_names() for r in METRICS[m].references if (m, r) in found]
    if not keys:
        raise UserError(
            f"{comparisons}: no comparison of CM and Direct CM with {main.words}; compare this setting and collect again"
        )
    floors = {
        (row["metric"], row["reference"]): value(row["value"])
        for row in select_axis(read(metrics, METRICS_COLUMNS), main)
        if row["row"] == FLOOR and row["reference"] == "teacher"
    }
    rows: list[dict[str, Any]] = []
    for key in keys:
        line = found[key]
        numbers = {
            name: _defined(value(line[name])) for name in ("difference", "low", "high", "level", "p", "p_prompts")
        }
        whole = {name: _whole(line[name]) for name in ("n", "n_seeds", "seeds_agree", "dim")}
        rows.append(
            {
                "steps": fewest, "metric": key[0], "reference": key[1], "cm": _defined(value(line["mean_a"])),
                "direct_cm": _defined(value(line["mean_b"])), "floor": _defined(floors.get(key, math.nan)), **numbers,
                "test": line["test"], **whole, "reading": reading(line, alpha),
            }
        )  # fmt: skip
    return rows


def table_comparison(metrics: str | Path, comparisons: str | Path, config: Config, out: Out) -> list[dict[str, Any]]:
    """Write `comparison_rows` as CSV, LaTeX and HTML; returns them."""
    rows = comparison_rows(metrics, comparisons, config)
    write_csv(out.csv, rows, COMPARISON_COLUMNS)
    notes = _comparison_notes(rows, config)
    _comparison_html(out.html, rows, notes, config, rows[0]["steps"])
    _comparison_tex(out.tex, rows, notes, config, rows[0]["steps"])
    return rows


def _comparison_notes(rows: Sequence[Mapping[str, Any]], config: Config) -> list[str]:
    seeds = sorted({row["n_seeds"] for row in rows})
    notes = [
        "Difference: CM minus Direct CM of the mean over training seeds; the two share start points, their order and the starting weights, and "
        "are paired by seed and by prompt. Number of pairs of seeds: " + " or ".join(map(str, seeds)) + ".",
        "Interval and p: seeds × prompts, crossed. Both other seeds and other prompts are allowed for (Clark 1973), with "
        "Satterthwaite's degrees of freedom. “Seeds agree” counts the seeds whose own difference has the sign of the mean one.",
    ]
    used = [TESTS[t] for t in TESTS if any(row["test"] == t for row in rows) and t != "seeds"]
    if used:
        notes.append(
            f"p, prompts: for these trained students alone, {' or '.join(used)}. It says nothing about other seeds."
        )
    if seeds[0] == 1:
        notes.append("With one seed the interval, too, is for these two students: it says nothing about other seeds.")
    notes += [
        f"Bold: p < {config.statistics.alpha:g} in both columns; the better mean is bold then. The p-values are not adjusted for "
        "the number of metrics; the claims page adjusts its own (Holm).",
        "Floor: what the teacher itself scores against its own samples, from a second draw of noise. By this metric and at this n, a "
        "student at the floor cannot be told from the teacher.",
    ]
    sizes: dict[str, list[str]] = {}
    for metric in dict.fromkeys(r["metric"] for r in rows):
        dims = [r["dim"] for r in rows if r["metric"] == metric and r["dim"] is not None]
        if dims:
            sizes.setdefault(f"D = {dims[0]}", []).append(METRICS[metric].title)
    listed = "; ".join(f"{size} ({_listed(names)})" for size, names in sizes.items())
    notes.append("n counts prompts." + (f" Dimension of what is compared: {listed}." if listed else ""))
    tiny = [METRICS[m].title for m in dict.fromkeys(r["metric"] for r in rows) if METRICS[m].extractor == "clip_tiny"]
    if tiny:
        notes.append(
            f"{_listed(tiny)}: a small network trained on this run's own images, and not the published metrics of similar names."
        )
    return notes


def _comparison_cells(row: Mapping[str, Any], alpha: float) -> dict[str, tuple[str, bool]]:
    """Column → (text, bold)."""
    decimals = METRICS[row["metric"]].decimals
    lower = METRICS[row["metric"]].better == "lower"
    sure = row["p"] is not None and row["p"] < alpha and (row["p_prompts"] is None or row["p_prompts"] < alpha)
    better = row["difference"] is not None and (row["difference"] < 0) == lower
    interval = f"[{fixed(row['low'], decimals + 1, True)}, {fixed(row['high'], decimals + 1, True)}]"
    agree = "–" if row["seeds_agree"] is None else f"{row['seeds_agree']} of {row['n_seeds']}"
    return {
        A: (fixed(row["cm"], decimals), sure and better),
        B: (fixed(row["direct_cm"], decimals), sure and not better),
        "Floor": (fixed(row["floor"], decimals), False),
        "CM − Direct CM": (
            fixed(row["difference"], decimals + 1, True),
            False,
        ),  # smaller than what it is a difference of
        "Interval": (interval, False),
        "p": (shown_p(math.nan if row["p"] is None else row["p"]), sure),
        "p, prompts": (shown_p(math.nan if row["p_prompts"] is None else row["p_prompts"]), sure),
        "n": ("–" if row["n"] is None else f"{row['n']:,}", False),
        "Seeds agree": (agree, False),
        "Reading": (row["reading"], False),
    }


def _comparison_html(
    path: str | Path, rows: Sequence[Mapping[str, Any]], notes: Sequence[str], config: Config, steps: int
) -> None:
    shown = []
    for row in rows:
        spec = METRICS[row["metric"]]
        cells = _comparison_cells(row, config.statistics.alpha)
        shown.append(
            {
                "title": spec.title, "arrow": _arrow(row["metric"]), "better": spec.better, "against": REFERENCE[row["reference"]],
                "cells": [(label, text, bold) for label, (text, bold) in cells.items()],
            }
        )  # fmt: skip
    write_page(
        path, COMPARISON, title="CM minus Direct CM, paired by seed and prompt", rows=shown, notes=notes,
        heads=[label for label, *_ in shown[0]["cells"]], level=_level(rows), settings=plain(describe(config)),
        steps=f"{steps} sampling step{'s' * (steps != 1)}",
    )  # fmt: skip


def _level(rows: Sequence[Mapping[str, Any]]) -> str:
    return " or ".join(dict.fromkeys(f"{100 * row['level']:g}" for row in rows if row["level"] is not None))


def _comparison_tex(
    path: str | Path, rows: Sequence[Mapping[str, Any]], notes: Sequence[str], config: Config, steps: int
) -> None:
    body: list[str] = []
    for row in rows:
        cells = _comparison_cells(row, config.statistics.alpha)
        del cells["Reading"]
        if not body:
            body += [" & ".join(["Metric", *map(latex, cells)]) + r" \\", r"\midrule"]
        against = UNDER[row["reference"]]
        title = latex(f"{METRICS[row['metric']].title} {_arrow(row['metric'])}")
        small = rf" {{\scriptsize({against})}}" if against else ""
        texts = [rf"\textbf{{{embolden(latex(text))}}}" if bold else latex(text) for text, bold in cells.values()]
        body.append(" & ".join([title + small, *texts]) + r" \\")
    caption = rf"CM minus Direct CM, {steps} sampling step{'s' * (steps != 1)}, with {_level(rows)}\,\% intervals."
    below = [latex(f"Settings: {describe(config)}."), *map(latex, notes)]
    write_tex(path, "table_comparison", caption, "l" + "r" * (body[0].count("&")), body, below)


TABLES: dict[str, Callable[..., Any]] = {
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "table_metrics": table_metrics,
    "table_comparison": table_comparison,
}


def table(
    name: str,
    metrics: str | Path,
    comparisons: str | Path,
    config: Config,
    out_csv: str | Path,
    students: str | Path | None = None,
) -> None:
    """Write the table of a name: the CSV `out_csv`, and beside it LaTeX (.tex), HTML and, of Table 1, JSON.

    `students` is students.csv, for Table 4.
    """
    path = Path(out_csv)
    json = path.with_suffix(".json") if name == "table1" else None
    out = Out(path, path.with_suffix(".tex"), path.with_suffix(".html"), json)
    if name == "table4":
        if students is None:
            raise UserError("table table4: --students-table is missing")
        table4(metrics, comparisons, config, out, students)
    else:
        TABLES[name](metrics, comparisons, config, out)


def text(table_csv: str | Path) -> str:
    """Table 1 for a terminal: one line per row and metric, with the paper's number where there is one."""
    rows = [["", "steps", "metric", "against", "mean", "± sd", "seeds", "n", "paper (SDXL: another scale)"]]
    for r in read_csv(table_csv):
        spec = METRICS[r["metric"]]
        rows.append(
            [
                r["row"], r["steps"], spec.title, "" if r["reference"] == "none" else r["reference"],
                f"{float(r['mean']):.{spec.decimals}f}" if r["mean"] else "–",
                f"± {float(r['sd']):.{spec.decimals}f}" if r["sd"] else "", r["n_seeds"], r["n_samples"],
                f"{spec.paper_name} {r['paper']}" if r["paper"] else "",
            ]
        )  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
