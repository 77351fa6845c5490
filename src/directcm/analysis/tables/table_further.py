"""The main comparison in feature spaces that the run did not train: a published classifier's, and pixels at 16 px.

A line per metric, a column per model. Distances to the teacher are given twice: to its samples of the students' own noise, as everywhere
else, and to its samples of another noise, which nobody shares. They are measured by `snakemake paper` alone (`further_metrics`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from directcm.analysis.data.selection import sampling_numbers
from directcm.analysis.tables import grid
from directcm.analysis.tables.cells import Value, csv_rows, select
from directcm.config import Config
from directcm.config.specs import METRICS
from directcm.errors import UserError
from directcm.runtime.artifacts import write_csv

EXHIBITS = {
    "table_further": {
        "title": "In feature spaces that the run did not train",
        "takes": "metrics comparisons",
        "scope": "paper",
        "needs": "further_metrics",
        "place": 9,
    }
}

OTHER = (
    "To teacher samples of other noise: students share their noise with the teacher's own samples, which moves a distance between them; "
    "with a second draw for the same prompts they share the prompts alone. Of the teacher and of its other noise both are the floor."
)
SPLITS = (
    "IS-lite0 is exp of the mean KL divergence of a sample's class probabilities from their mean, of ten splits of the samples, "
    "averaged: at most as large as a split has samples."
)


def selection(config: Config) -> dict[str, Any]:
    """What `cells.select` takes: finished students in the fewest sampling steps, further metrics."""
    return {"numbers": sampling_numbers(config)[:1], "names": config.further_names()}


def rows(metrics: str | Path, comparisons: str | Path, config: Config) -> list[dict[str, Any]]:
    """The lines of its CSV (cells.COLUMNS), from the tidy tables of the scope "paper"; nothing is written."""
    return csv_rows(select(metrics, comparisons, config, **selection(config))[0])


def write(metrics: str | Path, comparisons: str | Path, config: Config, out: Path) -> list[Value]:
    """Write it as CSV (cells.COLUMNS), LaTeX and HTML; UserError where there are no further metrics."""
    if not config.further_names():
        raise UserError("further_metrics: names none that data and extractors allow, so there is nothing to tabulate")
    lines, tested = select(metrics, comparisons, config, **selection(config))
    values = [own for line in lines for own in line.values.values()]
    write_csv(out, csv_rows(lines), grid.COLUMNS)
    notes = grid.notes(lines, config, tested)
    notes += [OTHER] * any(own.reference == "other_noise" for own in values)
    notes += [SPLITS] * any(METRICS[own.metric].function == "class_score" for own in values)
    grid.write(
        out, lines, notes, config, shape=grid.metrics_down,
        title="The main comparison in feature spaces that the run did not train",
        caption="One row per metric, one column per model",
        tex_caption=r"Feature spaces that the run did not train: mean $\pm$ sd over $n$ training seeds.",
    )  # fmt: skip
    return values
