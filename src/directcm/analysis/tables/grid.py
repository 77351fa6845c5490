"""The tables of mean ± sd: lines and cells as a `Sheet`, models down or metrics down, with the notes that a reader needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from directcm.analysis.data.selection import describe
from directcm.analysis.data.tidy import FLOOR, TO_BEAT
from directcm.analysis.page import plain
from directcm.analysis.tables.cells import BEATEN, COLUMNS, A, B, Key, Line, Value, csv_rows, same_scale, select
from directcm.analysis.tables.sheet import Cell, Head, Row, Sheet, Tex
from directcm.analysis.tables.sheet import write as write_sheets
from directcm.analysis.tables.text import REFERENCE, UNDER, fixed, listed
from directcm.config import Config
from directcm.config.specs import METRICS
from directcm.runtime.artifacts import write_csv

FLAGS = {
    "rank_deficient": "fewer samples than feature dimensions, so the covariance is singular and the distance unreliable",
    "weak_classifier": "the classifier that reads the samples is itself weak on held-out real images",
}
# What the features are of a metric whose title ends in a space's name, but for those that are trained here.
SPACES = {
    "efficientnet_lite0": "EfficientNet-lite0, a classifier of ImageNet's photographs that no run has trained",
    "pixels16": "the images themselves at 16 × 16 pixels",
}
UNTESTED = "No value is bold: no test of CM against Direct CM belongs to this table."


# ----------------------------------------------------------------- the paper's numbers


def _paper(own: Value) -> str:
    """As the paper prints it: 95.3, 166.0, 1148."""
    assert own.paper is not None
    return f"{own.paper:.0f}" if own.paper >= 1000 else str(float(own.paper))


def paper_full(own: Value, comparable: bool) -> str:
    return f"paper: {METRICS[own.metric].paper_name} {_paper(own)} (SDXL{'' if comparable else '; another scale'})"


def paper_brief(own: Value, comparable: bool) -> str:
    """Only where it may be compared with ours, in few letters."""
    return f"paper {_paper(own)}" if comparable else ""


def paper_tex(own: Value, comparable: bool) -> str:
    return f"[{METRICS[own.metric].paper_name} {_paper(own)}]{'' if comparable else '†'}"


class Form(NamedTuple):
    """How much a table says: what its references are called, what stands of the paper's number, comparable with ours or not, and
    whether an error says how many baselines it beats.
    """

    against: dict[str, str]
    paper: Callable[[Value, bool], str]
    beats: bool = True


# In LaTeX what stands under the values is a line of the paper's numbers.
PAGE, TEX = Form(REFERENCE, paper_full), Form(UNDER, paper_tex, beats=False)
# Fields of a Sheet, from a table's lines.
Shape = Callable[[Sequence[Line], Config, Form], dict[str, Any]]


# ----------------------------------------------------------------- shapes


def _cells(values: Iterable[Value | None], config: Config, form: Form) -> list[Cell]:
    out = []
    for own in values:
        if own is None or own.mean is None:
            out.append(Cell(None))
            continue
        decimals = METRICS[own.metric].decimals
        note = "" if own.paper is None else form.paper(own, same_scale(own.metric, config))
        if own.to_beat and form.beats:
            note = f"beats {sum(verdict == BEATEN for _, verdict in own.to_beat)} of {len(own.to_beat)} baselines"
        out.append(Cell(fixed(own.mean, decimals), own.best, "" if own.sd is None else fixed(own.sd, decimals), note))
    return out


def columns_of(lines: Sequence[Line]) -> list[Key]:
    """The (metric, reference) pairs of a table, in the order that its cells were filled in."""
    order = dict.fromkeys(key for line in sorted(lines, key=lambda line: -len(line.values)) for key in line.values)
    names = dict.fromkeys(metric for metric, _ in order)
    return [(m, r) for m in names for r in METRICS[m].references if (m, r) in order]


def metric_head(metric: str, **more: Any) -> Head:
    spec = METRICS[metric]
    return Head(spec.title, "" if spec.better == "neither" else spec.better, **more)


def models_down(lines: Sequence[Line], config: Config, form: Form) -> dict[str, Any]:
    """One row per model, one column per metric."""
    columns = columns_of(lines)
    names = [metric for metric, _ in columns]
    groups: dict[str, list[Row]] = {}
    for line in lines:
        cells = _cells(map(line.values.get, columns), config, form)
        groups.setdefault(line.group, []).append(Row(Head(line.row, small=line.detail), cells))
    return {
        "corner": "Model", "small": True, "groups": list(groups.items()),
        "over": [metric_head(m, span=names.count(m)) for m in dict.fromkeys(names)],
        "heads": [Head(form.against[r], label=f"{metric_head(m).full} {REFERENCE[r]}".strip()) for m, r in columns],
    }  # fmt: skip


def metrics_down(lines: Sequence[Line], config: Config, form: Form) -> dict[str, Any]:
    """One row per metric, one column per model."""
    rows = []
    for metric, reference in columns_of(lines):
        cells = _cells((line.values.get((metric, reference)) for line in lines), config, form)
        rows.append(Row(metric_head(metric, small=form.against[reference]), cells))
    return {
        "corner": "Metric", "small": True, "groups": [("", rows)], "over": [Head(line.row) for line in lines],
        "heads": [Head(line.detail, label=line.row) for line in lines],
    }  # fmt: skip


def write(
    out: Path,
    lines: Sequence[Line],
    notes: Sequence[str],
    config: Config,
    *,
    title: str,
    caption: str,
    tex_caption: str,
    shape: Shape = models_down,
) -> None:
    """Write lines as HTML and LaTeX beside the CSV `out`."""
    about: dict[str, Any] = {"name": out.stem, "title": title, "settings": plain(describe(config)), "notes": notes}
    full, short = shape(lines, config, PAGE), shape(lines, config, TEX)
    other = any("†" in cell.note for _, rows in short["groups"] for row in rows for cell in row.cells)
    marks = ["†The paper's number, on another scale: not to be compared with ours."] * other
    caption = f"{caption} (↓ lower is better, ↑ higher is better)."
    write_sheets(
        out, Sheet(**about, **full, caption=caption), Sheet(**about, **short, caption=Tex(tex_caption), marks=marks)
    )


def make(
    metrics: str | Path,
    comparisons: str | Path,
    config: Config,
    out: Path,
    selection: dict[str, Any],
    columns: Sequence[str] = COLUMNS,
    **sheet: Any,
) -> list[Value]:
    """A table of `select`ed lines as CSV, HTML and LaTeX; returns its values."""
    lines, tested = select(metrics, comparisons, config, **selection)
    write_csv(out, csv_rows(lines, columns), list(columns))
    write(out, lines, notes(lines, config, tested), config, **sheet)
    return [own for line in lines for own in line.values.values()]


# ----------------------------------------------------------------- notes


def notes(lines: Sequence[Line], config: Config, tested: int) -> list[str]:
    """What a reader must know to read the numbers, as plain text."""
    values = [own for line in lines for own in line.values.values()]
    students = [line for line in lines if line.row in (A, B)]
    columns = columns_of(lines)
    out = [
        f"Students: mean ± sample standard deviation (n − 1) over training seeds; number of seeds: {_seeds(students)}. "
        "The teacher is one fixed model and has no sd.",
        f"Samples behind each value: {samples(values)}; all rows from the same initial noise and prompts, but for “{FLOOR}”.",
        f"“{FLOOR}” is the teacher itself on a second draw of noise for the same prompts. Its distance to the teacher's samples "
        "is the floor: how far apart two equal models are at this n. Its distance to the data is that of the teacher once more.",
    ]
    out += baselines(lines, config.statistics.alpha)
    sizes: dict[str, list[str]] = {}
    for metric in dict.fromkeys(metric for metric, _ in columns):
        own = {v.reference: v for v in values if v.metric == metric and v.dim is not None}
        against = [
            f"{own[r].n_reference:,} {REFERENCE[r].removeprefix('to ')}"
            for r in METRICS[metric].references
            if r in own and own[r].n_reference is not None
        ]
        if own:
            size = f"D = {next(iter(own.values())).dim}"
            size += f", reference of {' and '.join(against)}" if against else ""
            sizes.setdefault(size, []).append(METRICS[metric].title)
    if sizes:
        each = "; ".join(f"{size} ({listed(names)})" for size, names in sizes.items())
        out.append(f"Dimension D of what is compared: {each}. Distances at another n or D are not comparable.")
    out += stand_ins(values)
    if any(v.paper is not None for v in values):
        out.append(
            "The paper's numbers (arXiv 2411.08954: SDXL, one step; its students' distances are to teacher samples) stand "
            "beside ours for orientation; “another scale” means that the two must not be compared."
        )
    if any(v is None or v.mean is None for line in lines for v in map(line.values.get, columns)):
        errors = any(v.metric == "ode_error" for v in values)
        other = "; the floor's other noise has no sample-by-sample error" if errors else ""
        out.append(
            f"–: not defined. The teacher is its own reference, so it has no distance to its own samples{other}."
        )
    return [*out, *cautions(values), _bold(students, config.statistics.alpha, tested)]


WHAT = {
    "Conditional mean": "the mean of the teacher's samples under the row's prompt or label",
    "Affine map of the noise": "that mean and one factor on the noise",
    "Untrained start": "the student's network before training",
    "One guided step": "the clean sample that the guided teacher sees in pure noise",
}


def baselines(lines: Sequence[Line], alpha: float) -> list[str]:
    """What the baselines are, and which of them each student's ODE error is below; nothing where the table has none."""
    shown = [name for name in TO_BEAT if any(line.row == name for line in lines)]
    if not shown:
        return []
    out = [
        f"Baselines, of which nothing is decoded: {'; '.join(f'“{name}” is {WHAT[name]}' for name in shown)}. Those without a network "
        f"are fitted on the samples of “{FLOOR}”, never on the noise that they are judged on."
    ]
    said = [(line, own.to_beat) for line in lines for own in line.values.values() if own.to_beat]
    if said:
        each = "; ".join(f"{line.row} ({line.detail}) {_beats(found)}" for line, found in said)
        out.append(f"ODE error against the baselines, at p < {alpha:g} as for bold: {each}.")
    return out


def _beats(found: Sequence[tuple[str, str]]) -> str:
    """ "is below A and B, above C, not told from D"."""
    words = {"beaten": "below", "ahead": "above", "no difference shown": "not told from"}
    named = {word: [name for name, verdict in found if verdict == kind] for kind, word in words.items()}
    return "is " + ", ".join(f"{word} {listed([n.lower() for n in names])}" for word, names in named.items() if names)


def _seeds(students: Sequence[Line]) -> str:
    """ "5"; "3 to 5"; "5 for CM and 3 for Direct CM"."""
    found: dict[str, set[int]] = {}
    for line in students:
        found.setdefault(line.row, set()).add(line.seeds)
    counts = {row: " to ".join(str(n) for n in sorted({min(own), max(own)})) for row, own in found.items()}
    if len(set(counts.values())) == 1:
        return next(iter(counts.values()))
    return " and ".join(f"{n} for {row}" for row, n in counts.items())


def samples(values: Sequence[Value]) -> str:
    """How many samples are behind each value."""
    return " or ".join(f"{n:,}" for n in sorted({v.n_samples for v in values}))


def stand_ins(values: Sequence[Value]) -> list[str]:
    """That metrics on a network trained here, or on one of SPACES, are no published ones, where there are any."""
    names: dict[str | None, list[str]] = {}
    for metric in dict.fromkeys(v.metric for v in values):
        names.setdefault(METRICS[metric].extractor, []).append(METRICS[metric].title)
    out = []
    if tiny := names.get("clip_tiny"):
        several = len(tiny) > 1
        out.append(
            f"{listed(tiny)} use{'' if several else 's'} a small network trained on this run's own images. "
            f"{'They are' if several else 'It is'} not the published metric{'s' * several} (FID, KID, CLIP score, aesthetic score "
            "and others), and no number here reproduces one."
        )
    for extractor, what in SPACES.items():
        if found := names.get(extractor):
            out.append(
                f"{listed(found)}: of {what}. No published metric is computed on it, and no number here reproduces one."
            )
    return out


def cautions(values: Sequence[Value]) -> list[str]:
    """What speaks against a number, by kind, with the metrics that it is about."""
    flagged: dict[str, dict[str, None]] = {}
    for own in values:
        title = f"{METRICS[own.metric].title} {REFERENCE[own.reference]}".strip()
        for flag in own.flags:
            said = FLAGS.get(flag, plain(flag))
            if flag == "rank_deficient" and own.dim is not None:
                said += f" (rank {own.n_samples - 1:,} at most of {own.dim:,})"
            flagged.setdefault(said, {})[title] = None
    return [f"Caution, {', '.join(titles)}: {flag}." for flag, titles in flagged.items()]


def _bold(students: Sequence[Line], alpha: float, tested: int) -> str:
    if not tested:
        return UNTESTED
    rule = (
        f"p ≤ {alpha:g} over seeds and prompts together (crossed design, Behrens–Fisher; the variance over prompts of distances, precision "
        "and the like is that over halves of them)"
    )
    start = f"No value is bold, because no difference between CM and Direct CM is significant: {rule}."
    if any(v.best for line in students for v in line.values.values()):
        start = f"Bold: the better of CM and Direct CM where they differ significantly, {rule}."
    end = " These p-values are not adjusted for the number of values in the table; the claims page adjusts its own."
    if any(line.seeds == 1 for line in students):
        end += " With one training seed a test says nothing about other seeds."
    return start + end
