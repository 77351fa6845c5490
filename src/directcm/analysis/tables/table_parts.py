"""The ODE error and the Fréchet distance taken apart, students beside what they have to beat.

ODE error = bias² + gain + scatter (Murphy 1988): the squared difference of the means of each label (of all rows where the data have no
labels); what one factor on the deviations from these means would take away; and (1 − ρ²) times the teacher's variance, which no factor
takes away, ρ the correlation with the teacher's samples. A variance ratio above 1 is of samples that are spread further than the
teacher's. FD = the squared distance of the means + a distance of the covariances.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from directcm.analysis.data.selection import sampling_numbers
from directcm.analysis.tables import grid
from directcm.analysis.tables.cells import COLUMNS, Value, csv_rows, select
from directcm.config import Config
from directcm.config.specs import METRICS
from directcm.errors import UserError
from directcm.runtime.artifacts import write_csv

EXHIBITS = {
    "table_parts": {
        "title": "ODE error and Fréchet distance taken apart",
        "takes": "metrics comparisons",
        "needs": "parts",
        "place": 6,
    }
}


def order(names: Sequence[str]) -> list[str]:
    """Of these metrics each that has parts, and after it its parts."""
    whole = [m for m in names if any(METRICS[part].part_of == m for part in names)]
    return [name for m in whole for name in (m, *(part for part in names if METRICS[part].part_of == m))]


def names_of(config: Config) -> list[str]:
    """The metrics of its columns."""
    return order(config.metric_names())


def rows(metrics: str | Path, comparisons: str | Path, config: Config) -> list[dict[str, Any]]:
    """The lines of its CSV (cells.COLUMNS), from the tidy tables; nothing is written."""
    return csv_rows(
        select(metrics, comparisons, config, numbers=sampling_numbers(config)[:1], names=names_of(config))[0]
    )


def write(metrics: str | Path, comparisons: str | Path, config: Config, out: Path) -> list[Value]:
    """Write it as CSV (cells.COLUMNS), LaTeX and HTML; UserError where no metric of the run has parts."""
    names = names_of(config)
    if not names:
        raise UserError("metrics: none of them has parts; name ode_error or a Fréchet distance")
    lines, tested = select(metrics, comparisons, config, numbers=sampling_numbers(config)[:1], names=names)
    write_csv(out, csv_rows(lines), list(COLUMNS))
    grid.write(
        out, lines, [*_notes(names), *grid.notes(lines, config, tested)], config, title="The parts of an error",
        caption="The ODE error, its parts, and those of the Fréchet distance, one column per model",
        tex_caption=r"The parts of the ODE error and of the Fréchet distance: mean $\pm$ sd over $n$ training seeds.",
        # Of more metrics than models.
        shape=grid.metrics_down if len(lines) <= len(grid.columns_of(lines)) else grid.models_down,
    )  # fmt: skip
    return [own for line in lines for own in line.values.values()]


def _notes(names: list[str]) -> list[str]:
    out = []
    if "ode_error" in names:
        out += [
            "Bias² + gain + scatter = ODE error (Murphy 1988). With the means of each label removed, s the standard deviation of the samples, "
            "r the teacher's and ρ their correlation: gain is (s − ρ r)², scatter is (1 − ρ²) r², the variance ratio s²/r². "
            "Where the data have no labels the means are those of all rows.",
            "Gain is what one factor on the samples' deviations would take away: large where they are spread too far for how well they "
            "know the teacher's. The best factor is ρ r/s.",
        ]
    if any(name.endswith("_mean") for name in names):
        out.append("Means and covariances of the features add up to the Fréchet distance.")
    return out
