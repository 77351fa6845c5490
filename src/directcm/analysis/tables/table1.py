"""Table 1, the main comparison: finished students, fewest sampling steps, headline metrics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from directcm.analysis.data.selection import sampling_numbers
from directcm.analysis.data.tidy import TO_BEAT, rounded
from directcm.analysis.tables import grid
from directcm.analysis.tables.cells import Line, Value, csv_rows, headline, select
from directcm.analysis.tables.sheet import Sheet
from directcm.analysis.tables.text import REFERENCE, UNDER, fixed
from directcm.config import Config
from directcm.config.specs import METRICS
from directcm.runtime.artifacts import read_csv, write_json

EXHIBITS = {
    "table1": {
        "title": "Table 1, main comparison",
        "takes": "metrics comparisons",
        "needs": "headline",
        "also": {"json": "table1.json"},
        "place": 1,
    }
}

# As many models as have a legible column each in a third of a screen.
ABREAST = 5


def _selection(config: Config) -> dict[str, Any]:
    return {"numbers": sampling_numbers(config)[:1], "names": headline(config)}


def rows(metrics: str | Path, comparisons: str | Path, config: Config) -> list[dict[str, Any]]:
    """The lines of its CSV (cells.COLUMNS), from the tidy tables; nothing is written."""
    return csv_rows(select(metrics, comparisons, config, **_selection(config))[0])


def write(metrics: str | Path, comparisons: str | Path, config: Config, out: Path) -> list[Value]:
    """Write it as tidy CSV (cells.COLUMNS), LaTeX, HTML, and JSON {row: {metric: mean}}; returns its values.

    `metrics` and `comparisons` are metrics.csv and comparisons.csv of `directcm collect`; lines of other settings are left out.
    """
    values = grid.make(
        metrics, comparisons, config, out, _selection(config), title="Table 1. Teacher, CM and Direct CM",
        caption="One row per model, one column per metric",
        tex_caption=r"Teacher, CM and Direct CM: mean $\pm$ sd over $n$ training seeds.",
    )  # fmt: skip
    nested: dict[str, dict[str, float | None]] = {}
    for own in values:
        several = len(METRICS[own.metric].references) > 1
        key = f"{own.metric}_{own.reference}" if several else own.metric
        nested.setdefault(own.row, {})[key] = rounded(own.mean)
    write_json(out.with_suffix(".json"), nested)
    return values


def brief(metrics: str | Path, comparisons: str | Path, config: Config) -> Sheet | None:
    """Table 1 where there is little room, for the report's first page; None where no metric of the run stands in it.

    Metrics down, or models where there are too many to stand side by side (its corner is then "Model").
    """
    if not headline(config):
        return None
    whole, tested = select(metrics, comparisons, config, **_selection(config))
    # Baselines have one of the metrics: a note says of them what a column each would.
    lines = [line for line in whole if line.row not in TO_BEAT]
    values = [own for line in lines for own in line.values.values()]
    down = len(lines) > ABREAST
    shape: grid.Shape = grid.models_down if down else grid.metrics_down
    fields = shape(lines, config, grid.Form(UNDER if down else REFERENCE, grid.paper_brief))
    bold = grid.UNTESTED
    if any(own.best for own in values):
        bold = "Bold: the better of CM and Direct CM where they differ significantly."
    elif tested:
        bold = "No value is bold, because no difference between CM and Direct CM is significant."
    notes = [
        "↓ lower is better, ↑ higher is better. Students: mean ± sd over training seeds. "
        f"{grid.samples(values)} samples each. {bold}",
        *["Under a metric: what it compares the samples with."] * down,
        *_baselines(whole, config.statistics.alpha),
        *grid.stand_ins(values),
        *grid.cautions(values),
    ]
    return Sheet(name="table1", title="Table 1", caption="", settings="", notes=notes, **fields)


def _baselines(lines: Sequence[Line], alpha: float) -> list[str]:
    """The ODE errors of the baselines, and who is below them."""
    key = ("ode_error", "teacher")
    found = {line.row: line.values[key].mean for line in lines if line.row in TO_BEAT and key in line.values}
    if not found:
        return []
    each = ", ".join(f"{name.lower()} {fixed(mean, METRICS[key[0]].decimals)}" for name, mean in found.items())
    return [f"ODE error without training: {each}.", *grid.baselines(lines, alpha)[1:]]


def text(table_csv: str | Path) -> str:
    """Table 1 for a terminal: one line per row and metric, with the paper's number where there is one."""
    shown = [["", "steps", "metric", "against", "mean", "± sd", "seeds", "n", "paper (SDXL: another scale)"]]
    for r in read_csv(table_csv):
        spec = METRICS[r["metric"]]
        shown.append(
            [
                r["row"], r["steps"], spec.title, "" if r["reference"] == "none" else r["reference"],
                f"{float(r['mean']):.{spec.decimals}f}" if r["mean"] else "–",
                f"± {float(r['sd']):.{spec.decimals}f}" if r["sd"] else "", r["n_seeds"], r["n_samples"],
                f"{spec.paper_name} {r['paper']}" if r["paper"] else "",
            ]
        )  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in shown)
