"""Which runs stand in the main comparison, and which rows of the tidy tables differ from it in one axis alone.

A table averages over training seeds and over nothing else, so everything that differs in another axis stays out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from directcm.analysis.tidy import FLOOR, ROWS, TEACHER, same
from directcm.config import SETTING_AXES, Config, number
from directcm.errors import UserError
from directcm.specs import METHODS, SOLVERS, TEACHERS

__all__ = [
    "FLOOR", "ROWS", "TEACHER", "base_setting", "describe", "main_runs", "main_setting", "sampling_numbers", "select_axis", "spell",
    "steps_label", "swept",
]  # fmt: skip

R = TypeVar("R", bound=Mapping[str, Any])


def spell(axes: Mapping[str, Any], names: Sequence[str] = SETTING_AXES) -> str:
    """Axes in words: "solver = ddim, N = 50 …"."""
    return ", ".join(f"{n} = {number(axes[n]) if isinstance(axes[n], int | float) else axes[n]}" for n in names)


def select_axis(rows: Sequence[R], main: Mapping[str, Any], axis: str | Collection[str] = ()) -> list[R]:
    """The rows whose setting is the main one but for `axis` (an axis, several, or none), in their order.

    `rows` are runs of the grid or lines of a tidy table: values are compared as numbers where both are numbers, however they
    are spelled. The teacher's lines have empty training axes, so that their ODE alone decides.
    """
    free = {axis} if isinstance(axis, str) else set(axis)
    if not free <= set(SETTING_AXES):
        raise ValueError(f"{sorted(free - set(SETTING_AXES))} are no axes of a setting")
    fixed = [name for name in SETTING_AXES if name not in free]
    return [row for row in rows if all(row[n] in ("", None) or same(row[n], main[n]) for n in fixed)]


def main_runs(config: Config) -> list[dict[str, Any]]:
    """The grid runs of the main comparison: those whose axes but method and seed are `ode`'s and `train`'s.

    Where no run has these, the axes of the grid's first run take their place. Raises UserError where a method
    of the grid has no such run: its row would be empty, or would compare unlike trainings.
    """
    chosen = config.main()
    for method in dict.fromkeys(run["method"] for run in config.runs()):
        if not any(run["method"] == method for run in chosen):
            raise UserError(
                f"students: no run of {method} has {spell(chosen[0])}, so the main comparison has no "
                f"{METHODS[method]}; add a line with method: [{method}] and these values, or remove the method"
            )
    return chosen


def main_setting(config: Config) -> dict[str, Any]:
    """The axes of the main comparison without method and seed."""
    run = main_runs(config)[0]
    return {name: run[name] for name in SETTING_AXES}


def base_setting(config: Config, axis: str) -> dict[str, Any]:
    """The setting that a sweep over an axis varies: the main one, or, where nothing is swept around it, the one of most values.

    The paper sweeps ω at N = 50 while its main comparison has N = 100.
    """
    main = main_setting(config)
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for run in config.runs():
        groups.setdefault(tuple(run[name] for name in SETTING_AXES if name != axis), []).append(run)
    own = groups[tuple(main[name] for name in SETTING_AXES if name != axis)]
    most = max(groups.values(), key=lambda runs: len({run[axis] for run in runs}))
    chosen = own if len({run[axis] for run in own}) > 1 or len({run[axis] for run in most}) < 2 else most
    return main if chosen is own else {name: chosen[0][name] for name in SETTING_AXES}


def sampling_numbers(config: Config) -> list[int]:
    """The numbers of sampling steps that the main comparison's finished students are evaluated with, ascending."""
    return sorted({k for run in main_runs(config) for step, k in config.sets(run) if step == run["steps"]})


def swept(config: Config, axis: str) -> list[Any]:
    """The values of an axis (or "sampling_steps") among the runs that differ from the main setting in it alone.

    For N and w it is `base_setting` that they differ from.
    Solvers in their own order, numbers ascending, else as the grid has them. One value means that nothing is swept.
    """
    if axis == "sampling_steps":
        return sampling_numbers(config)
    base = base_setting(config, axis) if axis in ("N", "w") else main_setting(config)
    values = list(dict.fromkeys(run[axis] for run in select_axis(config.runs(), base, axis)))
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
        f"data: {source}, {config.data.resolution} px; teacher: {teacher}; ODE: {SOLVERS[run['solver']]}, "
        f"N = {run['N']}, w = {number(run['w'])}; students: {run['adapter']}, {run['loss']}, "
        f"learning rate {number(run['lr'])}, {run['steps']} steps of {run['batch_size']} from {run['pool']:,} start points"
    )


def steps_label(steps: int) -> str:
    """ "1 step", "4 steps"."""
    return f"{steps} step" + ("" if steps == 1 else "s")
