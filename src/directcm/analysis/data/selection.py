"""Which runs stand in the main comparison, and which rows of the tidy tables differ from it in one axis alone.

A table averages over training seeds and over nothing else, so everything that differs in another axis stays out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from directcm.config import SETTING_AXES, Config, Run, Setting, number
from directcm.config.specs import METHODS, SOLVERS, TEACHERS
from directcm.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def select_axis(rows: pd.DataFrame, main: Setting, axis: str | Collection[str] = ()) -> pd.DataFrame:
    """The rows of a tidy table whose setting is the main one but for `axis` (an axis, several, or none), in their order.

    The teacher's rows have no training axes, so that their ODE alone decides.
    """
    free = {axis} if isinstance(axis, str) else {*axis}
    if more := free - {*SETTING_AXES}:
        raise ValueError(f"{sorted(more)} are no axes of a setting")
    fixed = [name for name in SETTING_AXES if name not in free]
    own = rows[fixed]
    same = own.eq([getattr(main, name) for name in fixed]) | own.isna() | own.eq("")
    return rows[same.all(axis=1)]


def select_runs(runs: Sequence[Run], main: Setting, axis: str | Collection[str] = ()) -> list[Run]:
    """The runs of the grid of which the same is true."""
    free = [axis] if isinstance(axis, str) else axis
    return [run for run in runs if run.setting.but(*free) == main.but(*free)]


def main_runs(config: Config) -> list[Run]:
    """The grid runs of the main comparison: those whose axes but method and seed are `ode`'s and `train`'s.

    Where no run has these, the axes of the grid's first run take their place. Raises UserError where a method
    of the grid has no such run: its row would be empty, or would compare unlike trainings.
    """
    chosen = config.main()
    for method in dict.fromkeys(run.method for run in config.runs()):
        if not any(run.method == method for run in chosen):
            raise UserError(
                f"students: no run of {method} has {chosen[0].setting.words}, so the main comparison has no "
                f"{METHODS[method]}; add a line with method: [{method}] and these values, or remove the method"
            )
    return chosen


def main_setting(config: Config) -> Setting:
    """The setting of the main comparison."""
    return main_runs(config)[0].setting


def base_setting(config: Config, axis: str) -> Setting:
    """The setting that a sweep over an axis varies: the main one, or, where nothing is swept around it, the one of most values.

    The paper sweeps ω at N = 50 while its main comparison has N = 100.
    """
    main = main_setting(config)
    groups: dict[tuple[object, ...], list[Setting]] = {}
    for setting in dict.fromkeys(run.setting for run in config.runs()):
        groups.setdefault(setting.but(axis), []).append(setting)
    # Settings are here once each, and those of a group differ in the axis alone.
    own, most = groups[main.but(axis)], max(groups.values(), key=len)
    return main if len(own) > 1 or len(most) < 2 else most[0]


def sampling_numbers(config: Config) -> list[int]:
    """The numbers of sampling steps that the main comparison's finished students are evaluated with, ascending."""
    return sorted({k for run in main_runs(config) for step, k in config.sets(run) if step == run.steps})


def swept(config: Config, axis: str) -> list[Any]:
    """The values of an axis (or "sampling_steps") among the runs that differ from the main setting in it alone.

    For N and w it is `base_setting` that they differ from.
    Solvers in their own order, numbers ascending, else as the grid has them. One value means that nothing is swept.
    """
    if axis == "sampling_steps":
        return sampling_numbers(config)
    base = base_setting(config, axis) if axis in ("N", "w") else main_setting(config)
    values = list(dict.fromkeys(getattr(run, axis) for run in select_runs(config.runs(), base, axis)))
    if axis == "solver":
        return sorted(values, key=list(SOLVERS).index)
    return sorted(values) if all(isinstance(v, int | float) for v in values) else values


def describe(config: Config) -> str:
    """One line on the settings of the main comparison, as plain text (it may hold a user's paths)."""
    run = main_runs(config)[0]
    data = config.data
    source = data.kind if data.embedded else f"{data.kind} {data.path or data.url}"
    d, teacher = config.teacher.diffusers, TEACHERS[config.teacher.kind].title
    if config.teacher.kind == "diffusers":
        teacher = d.path or f"{d.id}@{(d.revision or '')[:7]}"
    return (
        f"data: {source}, {config.data.resolution} px; teacher: {teacher}; ODE: {SOLVERS[run.solver]}, "
        f"N = {run.N}, w = {number(run.w)}; students: {run.adapter}, {run.loss}, "
        f"learning rate {number(run.lr)}, {run.steps} steps of {run.batch_size} from {run.pool:,} start points"
    )


def steps_label(steps: int) -> str:
    """ "1 step", "4 steps"."""
    return f"{steps} step" + ("" if steps == 1 else "s")
