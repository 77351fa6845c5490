"""What most figures are made of: panels, lines for their CSV, reference lines, a legend, and three files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from matplotlib.layout_engine import ConstrainedLayoutEngine

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.config import Setting
from directcm.config.specs import METHODS, METRICS
from directcm.errors import UserError

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass
class Chart:
    """A figure in the making.

    `grid`: its panels, an array (rows, columns), or of `tiles` (count,). `lines`: its CSV's. `shown`: the reference lines that its
    legend explains.
    """

    figure: Figure
    grid: Any
    lines: list[dict[str, Any]] = field(default_factory=list)
    shown: set[str] = field(default_factory=set)
    marks: list[tuple[Sequence[Axes], list[style.Reference]]] = field(default_factory=list)

    def constants(
        self, panels: Sequence[Axes], metric: str, reference: str, found: Mapping[str, float], **fields: str
    ) -> None:
        """Reference lines (`tidy.constants`) for panels that share their y axis; `fields` of their lines in the CSV."""
        self.shown |= set(found)
        self.lines += [fields | line for line in tidy.constant_rows(metric, reference, found)]
        self.marks.append((panels, style.constants(found, METRICS[metric].decimals)))

    def legend(self, entries: Sequence[Artist], **more: Any) -> None:
        """The legend, with the reference lines' entries after these; when all data are drawn."""
        style.legend(self.figure, [*entries, *style.reference_handles(self.shown, **more)])

    def references(self) -> None:
        """Draw the reference lines; when the legend is there."""
        for panels, lines in self.marks:
            style.references(panels, lines)

    def save(self, columns: Sequence[str], pdf: str | Path, png: str | Path, csv: str | Path) -> None:
        """Write PDF, PNG and the CSV of these columns."""
        style.save(self.figure, pdf, png)
        tidy.write(csv, self.lines, columns)


def panels(rows: int, columns: int, size: tuple[float, float], space: tuple[float, float], **more: Any) -> Chart:
    """A chart of panels: `size` of all in inches, `space` between them as a share of theirs; `more` as of `plt.subplots`."""
    layout = ConstrainedLayoutEngine(wspace=space[0], hspace=space[1])
    return Chart(*plt.subplots(rows, columns, figsize=size, squeeze=False, layout=layout, **more))


def tiles(
    count: int,
    height: float,
    space: tuple[float, float],
    *,
    abreast: int = 4,
    head: float = 0.0,
    least: float = style.COLUMN,
) -> tuple[Chart, int]:
    """A chart of `count` panels, and how many of them are side by side, at most `abreast`.

    A row of panels is `height` inches, below `head`; the figure is `least` inches wide or more.
    """  # fmt: skip
    columns = min(abreast, count)
    rows = math.ceil(count / columns)
    chart = panels(rows, columns, (max(style.PAGE * columns / abreast, least), head + height * rows), space)
    for axes in chart.grid.flat[count:]:
        axes.remove()
    chart.grid = chart.grid.flat[:count]
    return chart, columns


def title(axes: Axes, text: str) -> None:
    """A panel's title, above its left edge."""
    axes.set_title(text, loc="left", fontsize=6.8, pad=4)


def better(metric: str) -> str:
    """ "← better" or "better →": the way of the better values along a horizontal axis, or a turned title that is read upwards."""
    return "← better" if METRICS[metric].better == "lower" else "better →"


def of(rows: Iterable[tidy.Row], metric: str, reference: str, row: str | None = None) -> list[tidy.Row]:
    """The lines of a tidy table about one metric, and one model where `row` names it."""
    return [
        r for r in rows if (r["metric"], r["reference"]) == (metric, reference) and (row is None or r["row"] == row)
    ]


def place_of(row: str) -> int:
    """A model's place among all; one that has none comes last."""
    return tidy.ROWS.index(row) if row in tidy.ROWS else len(tidy.ROWS)


def names_of(rows: Iterable[tidy.Row]) -> list[str]:
    """The methods in a tidy table, in their order."""
    there = {r["row"] for r in rows}
    return [name for name in METHODS.values() if name in there]


def main_path(rows: Iterable[tidy.Row], main: Setting) -> tuple[list[tidy.Row], list[float]]:
    """The path of training (`tidy.path`) in the main setting, and its steps, ascending; UserError for fewer than two."""
    path = tidy.path(tidy.fewest(list(rows)), main)
    steps = sorted({tidy.value(r["step"]) for r in path})
    if len(steps) < 2:
        raise UserError(
            f"students: students of the main setting were evaluated after {len(steps)} number{'s' * (len(steps) != 1)} of steps, "
            "and this figure needs two; add snapshots: [62, 125] to a line of the key students of config.yaml"
        )
    return path, steps


def drawn_along(rows: Iterable[tidy.Row], group: Sequence[tidy.Point], **fields: str) -> list[dict[str, Any]]:
    """CSV lines of points along training, with what `steps` and `pool` the students of each step were trained for."""
    source = {tidy.value(r["step"]): r for r in rows}
    return [
        line | {name: source[float(line["step"])][name] for name in ("steps", "pool")}
        for line in tidy.drawn(group, "step", **fields)
    ]
