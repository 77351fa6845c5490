"""The verb `table`: which tables a grid has something for, and each by its module's name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from directcm.analysis.selection import main_runs, swept
from directcm.analysis.tables.cells import config_methods, headline, others
from directcm.config import Config
from directcm.errors import UserError
from directcm.registry import FIRST


def available(config: Config) -> list[str]:
    """The tables that the grid and the metrics of a configuration have something for, by name."""
    first = bool(headline(config))
    wanted = {
        "table1": first,
        "table2": first and len(swept(config, "solver")) > 1,
        "table3": first and len(swept(config, "sampling_steps")) > 1,
        "table4": first and not set(config_methods(config)) <= set(FIRST),
        "table_metrics": bool(others(config)),
        "table_comparison": {run.method for run in main_runs(config)} >= set(FIRST),
        "table_search": config.search is not None,
    }
    return [name for name, there in wanted.items() if there]


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
    more = {"students": students} if name == "table4" else {}
    if None in more.values():
        raise UserError("table table4: --students-table is missing")
    import_module(f"directcm.analysis.tables.{name}").write(metrics, comparisons, config, Path(out_csv), **more)
