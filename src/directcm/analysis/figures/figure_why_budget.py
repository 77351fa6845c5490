"""Why, F: ODE error and Fréchet distance against the distance that a student has travelled from its start, by method and rank. A line is one learning
rate along training; means over teachers, with 95 % intervals (Student's t, prompts fixed).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from directcm.analysis.data.experiments import DISPLACEMENT
from directcm.analysis.figures import arms as of_arms
from directcm.analysis.figures import chart, style
from directcm.analysis.figures.arms import Arm
from directcm.config.specs import METHODS
from directcm.errors import UserError

EXHIBITS = {
    "why_budget": {
        "title": "Why, F: the distance travelled",
        "takes": "arms",
        "experiments": "F",
        "category": "1 Why",
        "place": 56,
    }
}

FAR = (DISPLACEMENT, "none")
# A rank's marks, small ranks open.
MARKERS = ("o", "s", "D", "^")


@style.styled()
def draw(arms_csv: Sequence[str | Path], *files: str | Path, space: str = "latent") -> None:
    """Panels ODE error, Fréchet distance and fit to the prompt, against displacement. `files`: PDF, PNG and CSV to write."""
    found = [arm for arm in of_arms.read(arms_csv) if arm.of(*FAR)]
    if not found:
        raise UserError(f"{arms_csv[0]}: no arm says how far its students travelled, which this figure shows")
    adapters = sorted({arm.fields["adapter"] for arm in found}, key=lambda name: (len(name), name))
    panels = of_arms.shown(found)
    made = chart.panels(1, len(panels), (style.PAGE, 2.6), (0.06, 0.05))
    paths: dict[tuple[str, str, str], list[Arm]] = {}
    for arm in found:
        paths.setdefault((arm.fields["method"], arm.fields["adapter"], arm.fields["lr"]), []).append(arm)
    for axes, (metric, reference) in zip(made.grid[0], panels, strict=True):
        for (method, adapter, _), own in paths.items():
            look, full = style.LOOKS[METHODS[method]], adapters.index(adapter) > 0
            marker = MARKERS[adapters.index(adapter) % len(MARKERS)]
            points = []
            for arm in sorted(own, key=lambda one: one.number("step")):
                x, *_ = of_arms.interval([*arm.of(*FAR).values()])
                mean, low, high = of_arms.interval([*arm.of(metric, reference).values()])
                points.append((x, mean, low, high))
                made.lines.append(
                    of_arms.line(arm, metric, reference, x, panel=metric, series=f"{METHODS[method]}, {adapter}")
                )
            for (x, mean, _, _), (x2, mean2, _, _) in itertools.pairwise(points):
                axes.plot(
                    [x, x2],
                    [mean, mean2],
                    color=look.color,
                    linestyle="-" if full else (0, (2, 1.2)),
                    linewidth=0.8,
                    zorder=4,
                )
            for x, mean, low, high in points:
                axes.plot([x, x], [low, high], color=look.color, linewidth=0.6, alpha=0.55, zorder=3)
                axes.plot(
                    x,
                    mean,
                    marker=marker,
                    markersize=4,
                    color=look.color,
                    markerfacecolor=look.color if full else "white",
                    markeredgewidth=0.9,
                    zorder=6,
                )
        style.log_axis(axes.xaxis, [of_arms.interval([*arm.of(*FAR).values()])[0] for arm in found])
        chart.title(axes, of_arms.title(metric, reference, space))
        axes.set_xlabel("distance travelled, ‖f − f at the start‖²")
    handles = [
        style.handle(
            style.Look(style.LOOKS[METHODS[method]].color, MARKERS[i % len(MARKERS)], "-" if i else (0, (2, 1.2))),
            f"{METHODS[method]}, rank {adapter.removeprefix('lora')}",
            hollow=i == 0,
        )
        for method in dict.fromkeys(arm.fields["method"] for arm in found)
        for i, adapter in enumerate(adapters)
    ]
    handles.append(style.mark_handle(of_arms.units_of(found), ""))
    made.legend(handles)
    made.lines = of_arms.written(made.lines)
    made.save(of_arms.COLUMNS, *files)
