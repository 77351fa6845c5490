"""Editing without training: what each model makes of a part of the same held-out images, and how far that is from the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from PIL import Image

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.analysis.figures.chart import place_of
from directcm.analysis.page import plain
from directcm.errors import UserError
from directcm.runtime.artifacts import Artifact

EXHIBITS = {
    "editing": {
        "title": "Editing without training",
        "takes": "edits columns",
        "needs": "edits",
        "section": "Samples",
        "place": 7,
    }
}

COLUMNS = ["edit", "level", "row", "rmse", "se", "known_error", "n"]
TITLES = {
    "inpainting": "Inpainting",
    "colourisation": "Colourisation",
    "super_resolution": "Super-resolution",
    "sdedit": "SDEdit, from strokes",
    "interpolation": "Interpolation between two noises",
}
DENOISING = "denoising_"
# Panels side by side; with many models, where three abreast are taller than a page, four, and the interpolation beside the last.
BLOCKS, MORE_BLOCKS = 3, 4
TALLEST = 9.0
# With many models the figure is taller than a page rather than its pictures smaller than this.
SMALLEST = 0.2
LEFT, GAP, NUMBERS, BETWEEN, HEAD, LOWER = 0.66, 0.03, 0.4, 0.1, 0.34, 0.14
# Rows beside the models': without a model.
TRUTH, INPUT, MEAN, FADE = "truth", "input", "mean fill", "cross-fade"
# Where the mean fill stands among a panel's rows, and the room for "cross-fade" beside the paths' row there.
_MEAN_ROW, ASIDE = 2, 0.55


@dataclass(frozen=True)
class Strip:
    """One row of pictures (m, 3, h, w) with its name, and its error as (rmse, se) where it has one."""

    name: str
    pictures: np.ndarray
    error: tuple[float, float] | None = None


@dataclass(frozen=True)
class Panel:
    """One edit: a title, what is said under it, and its rows."""

    title: str
    note: str
    strips: list[Strip]


def level_text(level: float) -> str:
    """A noise level in two digits: "0.53", "2.2", "80"."""
    return f"{level:.2g}"


def note(entry: Mapping[str, Any]) -> str:
    """What is said of an edit's known part, or of the noise that it starts from."""
    known = entry["known_error"]
    if known is None:
        return f"from noise of σ = {level_text(entry['level'])}"
    return (
        f"known part kept to {known:.0e}".replace("e-0", "e−").replace("e-", "e−")
        if known
        else "known part kept exactly"
    )


def _error(entry: Mapping[str, Any]) -> tuple[float, float] | None:
    return None if entry["rmse"] is None else (float(entry["rmse"]), float(entry["se"]))


def panels(
    arrays: Mapping[str, Mapping[str, np.ndarray]], numbers: Mapping[str, Mapping[str, Any]], columns: int
) -> list[Panel]:
    """A panel per edit but interpolation: the truth, what goes in, the known part of a mean image, and every model's.

    `arrays` and `numbers` (edit → entry of edits.json) by model, in the order of drawing.
    """
    own = next(iter(arrays.values()))
    out = []
    for name, entry in next(iter(numbers.values())).items():
        if name == "interpolation":
            continue
        strips = [
            Strip(TRUTH, own["truth"][:columns]),
            Strip(INPUT, own[f"{name}.input"][:columns], _error(entry["input"])),
            Strip(MEAN, own[f"{name}.mean"][:columns], _error(entry["mean"])),
            *(Strip(row, arrays[row][name][:columns], _error(numbers[row][name])) for row in arrays),
        ]
        if name.startswith(DENOISING):
            out.append(Panel(f"Denoising, σ = {level_text(entry['level'])}", "", strips))
        else:
            worst = max((numbers[row][name] for row in arrays), key=lambda e: e["known_error"] or 0.0)
            out.append(Panel(TITLES[name], note(worst), strips))
    return out


def interpolation(
    arrays: Mapping[str, Mapping[str, np.ndarray]], numbers: Mapping[str, Mapping[str, Any]], room: int
) -> Panel:
    """As many whole paths as `room` pictures hold, side by side; where not one fits, points of the first, evenly."""
    points = next(iter(arrays.values()))["interpolation"].shape[1]
    chosen = np.round(np.linspace(0, points - 1, min(points, room))).astype(int)
    count = max(1, room // points)

    def side_by_side(paths: np.ndarray) -> np.ndarray:
        return np.concatenate(list(paths[:count, chosen]))

    strips = [
        Strip(row, side_by_side(own["interpolation"]), _error(numbers[row]["interpolation"]))
        for row, own in arrays.items()
    ]
    if tidy.TEACHER in arrays:
        path = arrays[tidy.TEACHER]["interpolation"]
        share = np.linspace(0, 1, points, dtype=np.float32)[:, None, None, None]
        fade = (1 - share) * path[:, :1] + share * path[:, -1:]
        strips.insert(1, Strip(FADE, side_by_side(fade), _error(numbers[tidy.TEACHER]["interpolation"]["input"])))
    return Panel(TITLES["interpolation"], "error against the teacher's at the same noise, between the ends", strips)


class _Layout(NamedTuple):
    """Panels in lines, the rows of each, whether the paths stand beside the last ones, inches of a block and of a picture."""

    lines: list[list[Panel]]
    tall: list[int]
    beside: bool
    block: float
    cell: float

    @property
    def height(self) -> float:
        """The whole figure's, in inches."""
        rows = sum(HEAD + LOWER + rows * (self.cell + GAP) - GAP for rows in self.tall)
        return rows - LOWER + 0.03


def _layout(found: Sequence[Panel], paths: int, shown: int, margin: float, blocks: int) -> _Layout:
    """`blocks` panels of `shown` pictures side by side, right of `margin` inches, and `paths` rows of interpolations."""
    lines = [list(found[i : i + blocks]) for i in range(0, len(found), blocks)]
    beside = blocks > BLOCKS and len(lines[-1]) <= blocks - 2
    tall = [len(line[0].strips) for line in lines] + [paths] * (not beside)
    block = (style.PAGE - margin - 0.02 - (blocks - 1) * BETWEEN) / blocks
    # As large as the page is wide, unless it would be too tall then.
    high = (TALLEST - len(tall) * (HEAD + LOWER)) / sum(tall) - GAP
    cell = min((block - NUMBERS - (shown - 1) * GAP) / shown, max(high, SMALLEST))
    return _Layout(lines, tall, beside, block, cell)


def _read(edits: Mapping[str, Artifact]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and numbers by model, in the order of drawing; UserError where they are not of the same images and settings."""
    names = sorted(edits, key=place_of)
    first = edits[names[0]]
    arrays = {name: edits[name].arrays("edits.safetensors") for name in names}
    for name in names:
        theirs, its = ({k: v for k, v in artifact.settings.items() if k != "run"} for artifact in (first, edits[name]))
        if its != theirs:
            raise UserError(f"{edits[name].folder}: edits with other settings than {first.folder}; run it again")
        if not np.array_equal(arrays[name]["id"], arrays[names[0]]["id"]):
            raise UserError(f"{edits[name].folder}: edits of other images than {first.folder}; run it again")
    return arrays, {name: {entry["edit"]: entry for entry in edits[name].json("edits.json")} for name in names}


@style.styled()
def draw(
    edits: Mapping[str, Artifact], columns: int, out_pdf: str | Path, out_png: str | Path, out_csv: str | Path
) -> None:
    """What teacher and students make of the same parts of the same held-out images, with root mean squared errors.

    `edits`: row → artefact of kind "edits". A panel per edit with up to `columns` images, below them interpolations. Raises
    UserError where the artefacts are not of the same images under the same settings.
    """
    if not edits:
        raise UserError("editing: no edits given; edit with the teacher and the students first")
    arrays, numbers = _read(edits)
    names = list(arrays)
    shown = min(columns, len(arrays[names[0]]["truth"]))
    # As wide as the longest name at 6.5 points.
    margin = max(LEFT, 0.11 + 0.051 * max(map(len, names)))
    found, paths = panels(arrays, numbers, shown), len(names) + (tidy.TEACHER in names)
    layout, narrow = (_layout(found, paths, shown, margin, blocks) for blocks in (BLOCKS, MORE_BLOCKS))
    if layout.height > TALLEST + 0.1 and narrow.cell >= 0.9 * SMALLEST:
        layout = narrow
    lines, height, cell, step = layout.lines, layout.height, layout.cell, layout.block + BETWEEN
    # Beside the last panels the paths stand in their models' rows, and one name is left to be written.
    taken = len(lines[-1]) * step + ASIDE if layout.beside else 0.0
    room = int((style.PAGE - margin - taken - NUMBERS - 0.02 + GAP) / (cell + GAP))
    along = interpolation(arrays, numbers, room)
    # Each panel: where its pictures start, the place of each of its rows, and whether these are named.
    places: list[list[tuple[float, Panel, Sequence[int], bool]]] = [
        [(margin + b * step, panel, range(len(panel.strips)), b == 0) for b, panel in enumerate(line)] for line in lines
    ]
    if layout.beside:
        rows_of = {strip.name: r for r, strip in enumerate(lines[-1][0].strips)} | {FADE: _MEAN_ROW}
        short = replace(along, note="error against the teacher's, between the ends")
        places[-1].append((margin + taken, short, [rows_of[strip.name] for strip in along.strips], False))
    else:
        places.append([(margin, along, range(len(along.strips)), True)])
    figure = plt.figure(figsize=(style.PAGE, height))
    # One pair of axes in inches for all pictures: hundreds of them would take minutes.
    page = figure.add_axes((0, 0, 1, 1))
    page.set_axis_off()
    top = height
    for places_of_line in places:
        for left, panel, at_rows, named in places_of_line:
            _draw_panel(page, left, top, panel, at_rows, named, cell)
        deepest = max(max(at_rows) for _, _, at_rows, _ in places_of_line)
        top -= HEAD + LOWER + (deepest + 1) * (cell + GAP) - GAP
    page.set(xlim=(0, style.PAGE), ylim=(0, height))
    style.save(figure, out_pdf, out_png)
    tidy.write(out_csv, _table(numbers), COLUMNS)


def _draw_panel(
    page: Any, left: float, top: float, panel: Panel, at_rows: Sequence[int], named: bool, cell: float
) -> None:
    """A panel whose pictures start at `left` below `top` (inches), each strip in its row."""
    width, height = page.figure.get_size_inches()

    def write(x: float, y: float, text: str, size: float, color: str = style.SOFT, ha: str = "center") -> None:
        page.figure.text(x / width, y / height, text, fontsize=size, color=color, ha=ha, va="center", parse_math=False)

    write(left, top - 0.13, panel.title, 7, style.INK, "left")
    write(left, top - 0.25, panel.note, style.SMALL, ha="left")
    beside = left + len(panel.strips[0].pictures) * (cell + GAP) - GAP + NUMBERS / 2
    if min(at_rows) > 0:
        write(beside, top - HEAD - min(at_rows) * (cell + GAP) + GAP + cell / 2, "RMSE", style.SMALL)
    for r, strip in zip(at_rows, panel.strips, strict=True):
        bottom = top - HEAD - (r + 1) * cell - r * GAP
        middle = bottom + cell / 2
        if named or strip.name == FADE:
            color = style.LOOKS[strip.name].color if strip.name in style.LOOKS else style.SOFT
            write(left - 0.07, middle, plain(strip.name), 6.5, color, "right")
        for c, picture in enumerate(strip.pictures):
            x = left + c * (cell + GAP)
            extent = (x, x + cell, bottom, bottom + cell)
            page.imshow(_pixels(picture, cell), extent=extent, interpolation="none", aspect="auto")
            page.add_patch(Rectangle((x, bottom), cell, cell, fill=False, linewidth=0.4, edgecolor="#b0b0b0"))
        if strip.error is None:
            # The first row has none: its place is the column's head.
            write(beside, middle, "RMSE" if r == min(at_rows) else "–", style.SMALL)
            continue
        rmse, se = strip.error
        both = cell > 0.19
        write(beside, middle + 0.045 * both, f"{rmse:.3f}", 6.2, style.INK)
        if both:
            write(beside, middle - 0.055, f"± {se:.3f}", 5)


def _pixels(picture: np.ndarray, inches: float) -> np.ndarray:
    """A picture (3, h, w) in [−1, 1], clamped and rounded, at print resolution."""
    array = ((picture.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 0)
    return style.at_print_size(Image.fromarray(np.ascontiguousarray(array)), inches)


def _table(numbers: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every number behind the figure: the two ways without a model once, then every model."""
    first = next(iter(numbers.values()))
    out = []
    for name, entry in first.items():
        ways = {"input": entry["input"], "mean": entry["mean"]} | {row: own[name] for row, own in numbers.items()}
        for row, values in ways.items():
            out.append(
                {
                    "edit": name, "level": tidy.number(entry["level"]), "row": row, "n": entry["n"],
                    "rmse": values["rmse"], "se": values["se"], "known_error": values.get("known_error"),
                }
            )  # fmt: skip
    return out
