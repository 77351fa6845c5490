"""Table 3, the number of student sampling steps, of the main comparison."""

from __future__ import annotations

from pathlib import Path

from directcm.analysis.data.selection import sampling_numbers
from directcm.analysis.data.tidy import TO_BEAT
from directcm.analysis.tables import grid
from directcm.analysis.tables.cells import Value, headline
from directcm.config import Config
from directcm.errors import UserError

EXHIBITS = {
    "table3": {
        "title": "Table 3, student sampling steps",
        "scope": "paper",
        "takes": "metrics comparisons",
        "needs": "headline and several_sampling_steps",
        "place": 3,
    }
}


def write(metrics: str | Path, comparisons: str | Path, config: Config, out: Path) -> list[Value]:
    """Write it as CSV (cells.COLUMNS), LaTeX and HTML; UserError where there is one number of steps."""
    numbers = sampling_numbers(config)
    if len(numbers) < 2:
        raise UserError(
            f"students: sampling_steps of the main comparison is {numbers[0]} alone, so Table 3 has nothing to compare; "
            "add sampling_steps: [1, 2, 4, 8] to its line"
        )

    titles = {k: f"{k} sampling step{'s' * (k != 1)}" for k in numbers}
    selection = {
        "numbers": numbers, "names": headline(config), "groups": ["The teacher", "Without training", *titles.values()],
        "group": lambda rows: (
            rows["sampling_steps"].map(titles).where(rows["step"].notna(), "The teacher")
            .mask(rows["row"].isin(TO_BEAT), "Without training")
        ),
    }  # fmt: skip
    return grid.make(
        metrics, comparisons, config, out, selection, title="Table 3. Sampling steps of the students",
        caption="One row per number of student steps and model, one column per metric",
        tex_caption=r"Sampling steps of the students: mean $\pm$ sd over $n$ training seeds.",
    )  # fmt: skip
