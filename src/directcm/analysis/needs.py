"""Which figures and tables a configuration has something for."""

from __future__ import annotations

from directcm.analysis.data.selection import main_runs, select_runs, swept
from directcm.analysis.tables.cells import headline, others
from directcm.config import Config
from directcm.config.exhibits import Exhibit, exhibits
from directcm.config.registry import FIRST
from directcm.config.specs import METRICS


def facts(config: Config) -> dict[str, bool]:
    """What an exhibit may need of a configuration."""
    runs, main = config.runs(), main_runs(config)
    with_snapshots = {run.adapter for run in runs if config.snapshots(run)}

    def paired(axis: str) -> int:
        """How many values of an axis both of the paper's methods have, all else as in the main setting."""
        beside = select_runs(runs, main[0].setting, axis)
        return len(set.intersection(*({getattr(run, axis) for run in beside if run.method == m} for m in FIRST)))

    return {
        # Metrics of Tables 1 to 4, and others.
        "headline": bool(headline(config)),
        "other_metrics": bool(others(config)),
        "further_metrics": bool(config.further_names()),
        # The ODE error, which baselines are measured in; metrics that have parts; other metrics of single samples beside the ODE error.
        "ode_error": "ode_error" in config.metric_names(),
        "baselines": bool(config.baseline_metrics()),
        "parts": any(METRICS[m].part_of for m in config.metric_names()),
        "within": "ode_error" in config.metric_names()
        and sum(METRICS[m].per_sample for m in config.metric_names()) > 1,
        # Methods: both of the paper's in the main comparison, and more than these two.
        "pair": {run.method for run in main} >= set(FIRST),
        "other_methods": not {run.method for run in runs} <= set(FIRST),
        # Some student is evaluated along its training, and one with the main comparison's adapter.
        "snapshots": bool(with_snapshots),
        "paired_snapshots": any(config.snapshots(run) for run in runs if run.method in FIRST),
        "main_snapshots": main[0].adapter in with_snapshots,
        "errors": any(config.measures_errors(run) for run in main),
        "edits": bool(config.edited()),
        "search": config.search is not None,
        "convergence": config.convergence is not None,
        "fixed_points": config.fixed_points is not None,
        # The paper's two methods under several teachers, in the main setting.
        "several_teachers": several_teachers(config),
        # More than one value, all else as in the main setting.
        **{f"several_{axis}": len(swept(config, axis)) > 1 for axis in ("N", "w", "solver", "sampling_steps")},
        **{f"paired_{axis}": paired(axis) > 1 for axis in ("loss", "lr")},
    }


def several_teachers(config: Config) -> bool:
    """Whether both of the paper's methods have students of one seed, in the main setting, under more than one teacher."""
    main = main_runs(config)[0].setting
    by_seed: dict[int, dict[str, set[int]]] = {}
    for run in config.over_teachers():
        if run.setting.at(teacher_seed=0) == main:
            by_seed.setdefault(run.seed, {}).setdefault(run.method, set()).add(run.teacher_seed)
    return any(len(set.intersection(*(found.get(m, set()) for m in FIRST))) > 1 for found in by_seed.values())


def available(config: Config) -> list[Exhibit]:
    """The exhibits that there is something for, each value of a wildcard by itself. Raises ValueError where one needs no fact.

    Those of the experiments on why come with these, and are not among them.
    """
    known = facts(config)
    found = []
    for one in (one for exhibit in exhibits() for one in exhibit.each if not exhibit.experiments):
        try:
            there = eval(one.needs, {"__builtins__": {}}, known)
        except (NameError, SyntaxError) as error:
            raise ValueError(f"{one.module}: needs {one.needs!r} ({error}); facts are {', '.join(known)}") from None
        if there:
            found.append(one)
    return found
