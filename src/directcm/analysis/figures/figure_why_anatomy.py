"""Why, A: the gap between CM and Direct CM, by what their samples are given of the teacher's (above, from pure noise) and by where on the grid the one
step starts (below). Positive: CM is better. Means with 95 % intervals over training seeds (Student's t, prompts fixed); small: each seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from directcm.analysis.data.experiments import better
from directcm.analysis.figures import arms as of_arms
from directcm.analysis.figures import chart, style
from directcm.analysis.figures.arms import Arm
from directcm.config import number
from directcm.errors import UserError

EXHIBITS = {
    "why_anatomy": {
        "title": "Why, A: the gap's anatomy",
        "takes": "arms",
        "experiments": "A",
        "category": "1 Why",
        "place": 51,
    }
}

NAMES = {
    "raw": "as they are", "mean": "the teacher's mean", "slope": "least-squares slope", "variance": "the teacher's variance",
    "affine": "its mean and covariance",
}  # fmt: skip


@style.styled()
def draw(arms_csv: Sequence[str | Path], *files: str | Path, space: str = "latent") -> None:
    """Two panels a metric: the gap by scaling, and by start. `files`: PDF, PNG and CSV to write."""
    found = of_arms.read(arms_csv)
    panels = [key for key in of_arms.shown(found) if key[0] != "ode_error"]
    pairs = {(_scaling(arm), _start(arm), arm.fields["method"]): arm for arm in found}
    scalings = [name for name in NAMES if (name, 0.0, "cm") in pairs and (name, 0.0, "direct_cm") in pairs]
    starts = sorted({start for _, start, _ in pairs})
    if not panels or len(scalings) < 2:
        raise UserError(f"{arms_csv[0]}: has no scaled samples of both methods, which this figure shows")
    rows = 2 if len(starts) > 1 else 1
    made = chart.panels(
        rows, len(panels), (style.PAGE, 0.6 + 0.55 + 0.2 * len(scalings) + 1.6 * (rows - 1)), (0.08, 0.12)
    )
    color = style.INK
    for column, (metric, reference) in enumerate(panels):
        axes = made.grid[0, column]
        sign = 1 if better(metric, False) == "higher" else -1

        def gap(
            scaling: str, start: float, key: tuple[str, str] = (metric, reference), sign: int = sign
        ) -> Mapping[int, float]:
            """CM's lead by seed, in the metric's unit."""
            sides = [pairs[scaling, start, name].of(*key) for name in ("cm", "direct_cm")]
            return {unit: sign * (sides[0][unit] - sides[1][unit]) for unit in sides[0].keys() & sides[1].keys()}

        for y, scaling in enumerate(scalings):
            own = gap(scaling, 0.0)
            ends = of_arms.dots(axes, y, [*own.values()], color)
            made.lines.append(_line("by scaling", scaling, metric, reference, 0.0, ends, len(own)))
        axes.axvline(0, color=style.SOFT, linewidth=0.8, zorder=1)
        axes.set_yticks(
            range(len(scalings)), [NAMES[name] for name in scalings] if column == 0 else [""] * len(scalings)
        )
        axes.set_ylim(len(scalings) - 0.5, -0.5)
        chart.title(axes, of_arms.title(metric, reference, space).rstrip(" ↑↓"))
        axes.set_xlabel("CM's lead")
        if rows == 1:
            continue
        axes = made.grid[1, column]
        for order, scaling in enumerate(
            [name for name in ("raw", "mean" if sign < 0 else "variance", "affine") if name in scalings]
        ):
            points = [
                (start, gap(scaling, start))
                for start in starts
                if all((scaling, start, name) in pairs for name in ("cm", "direct_cm"))
            ]
            of_arms.curve(axes, points, of_arms.SHADES[_SHADE[scaling]], order=order)
            for start, own in points:
                made.lines.append(
                    _line("by start", scaling, metric, reference, start, of_arms.interval([*own.values()]), len(own))
                )
        axes.axhline(0, color=style.SOFT, linewidth=0.8, zorder=1)
        axes.set_xlabel("start, share of the grid from pure noise")
        axes.set_ylabel("CM's lead" if column == 0 else "")
    handles = [style.handle(style.Look(color, "s", "-"), f"CM's lead ({of_arms.units_of(found)})")]
    if rows > 1:
        handles += [style.handle(of_arms.SHADES[i], NAMES[name]) for name, i in _SHADE.items() if name in scalings]
    made.legend(handles)
    made.lines = of_arms.written(made.lines)
    made.save(of_arms.COLUMNS, *files)


_SHADE = {"raw": 2, "mean": 0, "variance": 1, "affine": 3}


def _scaling(arm: Arm) -> str:
    return arm.fields["scaling"] or "raw"


def _start(arm: Arm) -> float:
    return float(number(float(arm.fields["start"] or 0)))


def _line(
    panel: str, scaling: str, metric: str, reference: str, x: float, ends: tuple[float, float, float], n: int
) -> dict[str, object]:
    return {"panel": panel, "series": scaling, "metric": metric, "reference": reference, "x": x, "n": n} | dict(
        zip(("mean", "low", "high"), ends, strict=True)
    )
