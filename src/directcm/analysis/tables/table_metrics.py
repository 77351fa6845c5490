"""All other metrics of the main comparison (FD∞, CMMD, precision …), a line per metric and a column per model."""

from __future__ import annotations

from pathlib import Path

from directcm.analysis.data.selection import sampling_numbers
from directcm.analysis.tables import grid
from directcm.analysis.tables.cells import Value, others
from directcm.config import Config
from directcm.errors import UserError

EXHIBITS = {
    "table_metrics": {
        "title": "All other metrics",
        "takes": "metrics comparisons",
        "needs": "other_metrics",
        "place": 5,
    }
}


def write(metrics: str | Path, comparisons: str | Path, config: Config, out: Path) -> list[Value]:
    """Write it as CSV (cells.COLUMNS), LaTeX and HTML; UserError where all metrics stand in Table 1."""
    names = others(config)
    if not names:
        raise UserError(
            "metrics: all of them stand in Table 1, so there are no others to tabulate; name more, such as cmmd_tiny"
        )
    selection = {"numbers": sampling_numbers(config)[:1], "names": names}
    return grid.make(
        metrics, comparisons, config, out, selection, shape=grid.metrics_down,
        title="All other metrics of the main comparison", caption="One row per metric, one column per model",
        tex_caption=r"All other metrics of the main comparison: mean $\pm$ sd over $n$ training seeds.",
    )  # fmt: skip
