"""Table 2, the teacher's solver: as Table 1, per solver of the grid."""

from __future__ import annotations

from pathlib import Path

from directcm.analysis.data.selection import sampling_numbers, swept
from directcm.analysis.tables import grid
from directcm.analysis.tables.cells import COLUMNS, Value, headline
from directcm.config import Config
from directcm.config.specs import SOLVERS
from directcm.errors import UserError

EXHIBITS = {
    "table2": {
        "title": "Table 2, the solver",
        "scope": "paper",
        "takes": "metrics comparisons",
        "needs": "headline and several_solver",
        "place": 2,
    }
}


def write(metrics: str | Path, comparisons: str | Path, config: Config, out: Path) -> list[Value]:
    """Write it as CSV (the solver, then cells.COLUMNS), LaTeX and HTML; UserError where the grid has one solver."""
    solvers = swept(config, "solver")
    if len(solvers) < 2:
        raise UserError(
            f"students: no line varies solver, all have {solvers[0]}, so Table 2 has nothing to compare; "
            "add a line with solver: [euler, heun]"
        )
    selection = {
        "axis": "solver", "numbers": sampling_numbers(config)[:1], "names": headline(config),
        # A solver that is not swept has lines of the teacher alone: they come last.
        "groups": [SOLVERS[name] for name in sorted(SOLVERS, key=lambda name: name not in solvers)],
        "group": lambda rows: rows["solver"].map(SOLVERS),
    }  # fmt: skip
    return grid.make(
        metrics, comparisons, config, out, selection, ["solver", *COLUMNS], title="Table 2. The teacher's solver",
        caption="One row per solver of the teacher's ODE and model, one column per metric",
        tex_caption=r"The solver of the teacher's ODE: mean $\pm$ sd over $n$ training seeds.",
    )  # fmt: skip
