"""Why, D: one-step quality against the horizon k/N of the target, from CM (k = 1) to Direct CM (k = N). Above, by the length of training; below,
where there are several, by N. Means with 95 % intervals over units (Student's t, prompts fixed); thin: each unit. Crosses: CD, whose target is averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.ticker import NullLocator

from directcm.analysis.figures import arms as of_arms
from directcm.analysis.figures import chart, style
from directcm.analysis.figures.arms import Arm
from directcm.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EXHIBITS = {
    "why_dose": {
        "title": "Why, D: the horizon k",
        "takes": "arms",
        "experiments": "D",
        "category": "1 Why",
        "place": 54,
    }
}


@style.styled()
def draw(arms_csv: Sequence[str | Path], *files: str | Path, space: str = "latent") -> None:
    """Panels ODE error, Fréchet distance and fit to the prompt, against k/N. `files`: PDF, PNG and CSV to write."""
    found = of_arms.read(arms_csv)
    steps = [arm for arm in found if arm.fields["method"] == "k_step"]
    if not steps:
        raise UserError(f"{arms_csv[0]}: has no arm of k_step, which this figure shows")
    # The N of most arms is the main one, by length of training; the others at theirs.
    sizes = sorted({arm.number("N") for arm in steps})
    main = max(sizes, key=lambda n: sum(arm.number("N") == n for arm in steps))
    lengths = sorted({arm.number("step") for arm in steps if arm.number("N") == main})
    shortest = lengths[0]
    rows: list[dict[str, list[Arm]]] = [{f"{n:.0f} steps": _of(steps, main, n) for n in lengths}]
    if len(sizes) > 1:
        rows.append({f"N = {n:.0f}": _of(steps, n, shortest) for n in sizes})
    panels = of_arms.shown(steps)
    made = chart.panels(len(rows), len(panels), (style.PAGE, 0.75 + 1.75 * len(rows)), (0.06, 0.1))
    for i, series in enumerate(rows):
        for axes, (metric, reference) in zip(made.grid[i], panels, strict=True):
            for order, (name, own) in enumerate(series.items()):
                look = _looks(i)[order % len(of_arms.SHADES)]
                points = [(arm.number("k") / arm.number("N"), arm.of(metric, reference)) for arm in own]
                of_arms.curve(axes, points, look, order=order)
                for arm in own:
                    x = arm.number("k") / arm.number("N")
                    made.lines.append(
                        of_arms.line(arm, metric, reference, x, panel="by length" if i == 0 else "by N", series=name)
                    )
                for arm in found:
                    if i == 0 and arm.fields["method"] == "cd" and name == f"{arm.number('step'):.0f} steps":
                        mean, *_ = of_arms.interval([*arm.of(metric, reference).values()])
                        axes.plot(
                            0.72 / main,
                            mean,
                            marker="x",
                            markersize=4.5,
                            color=look.color,
                            markeredgewidth=1.2,
                            zorder=20,
                        )
                        made.lines.append(
                            of_arms.line(arm, metric, reference, 1 / main, panel="by length", series=f"CD, {name}")
                        )
            _shares(axes, {arm.number("k") / arm.number("N") for own in series.values() for arm in own})
            chart.title(axes, of_arms.title(metric, reference, space))
            axes.set_xlabel("horizon k/N" if i == len(rows) - 1 else "")
    handles = []
    for i, series in enumerate(rows):
        for order, (name, own) in enumerate(series.items()):
            # All lengths are of the same units.
            units = f" ({of_arms.units_of(own)})" if i or not order else ""
            handles.append(style.handle(_looks(i)[order % len(of_arms.SHADES)], name + units))
    if any(arm.fields["method"] == "cd" for arm in found):
        handles.append(style.handle(style.Look(style.INK, "x", ""), "CD"))
    made.legend(handles)
    made.lines = of_arms.written(made.lines)
    made.save(of_arms.COLUMNS, *files)


def _of(arms: Sequence[Arm], n: float, step: float) -> list[Arm]:
    """Those of an N and a length; of one N by the units that most of them have."""
    own = [arm for arm in arms if arm.number("N") == n and arm.number("step") == step]
    by = max({arm.by for arm in own}, key=lambda one: sum(arm.by == one for arm in own), default="")
    return [arm for arm in own if arm.by == by]


def _shares(axes: Axes, values: set[float]) -> None:
    """A tick at each share, with its number where there is room: at the ends, a tenth and a half."""
    ticks = sorted(values)
    named = {ticks[0], 0.1, 0.5, 1.0}
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, [f"{tick:g}" if round(tick, 6) in named else "" for tick in ticks])


def _looks(row: int) -> Sequence[style.Look]:
    """Shades by length above; below, other hues by N."""
    if row == 0:
        return of_arms.SHADES
    return [
        style.Look(color, look.marker, look.line)
        for color, look in zip(("#b2182b", "#4d4d4d", "#2166ac", "#762a83"), of_arms.SHADES, strict=True)
    ]
