"""Editing without training: what each model makes of a part of the same held-out images, and how far that is from the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from directcm.analysis import style, tidy
from directcm.analysis.page import plain
from directcm.artifacts import Artifact
from directcm.errors import UserError

if TYPE_CHECKING:
    import numpy as np

COLUMNS = ["edit", "level", "row", "rmse", "se", "known_error", "n"]
TITLES = {
    "inpainting": "Inpainting",
    "colourisation": "Colourisation",
    "super_resolution": "Super-resolution",
    "sdedit": "SDEdit, from strokes",
    "interpolation": "Interpolation between two noises",
}
DENOISING = "denoising_"
BLOCKS = 3
TALLEST = 9.0
# With many models the figure is taller than a page rather than its pictures smaller than this.
SMALLEST = 0.24
LEFT, GAP, NUMBERS, BETWEEN, HEAD, LOWER = 0.66, 0.03, 0.4, 0.1, 0.34, 0.14
# Rows beside the models': without a model.
TRUTH, INPUT, MEAN, FADE = "truth", "input", "mean fill", "cross-fade"


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
        "known part kept exactly"
        if known == 0
        else f"known part kept to {known:.0e}".replace("e-0", "e-").replace("e-", "e−")
    )


def _error(entry: Mapping[str, Any]) -> tuple[float, float] | None:
    return None if entry["rmse"] is None else (float(entry["rmse"]), float(entry["se"]))


def _title(name: str, entry: Mapping[str, Any]) -> str:
    return f"Denoising, σ = {level_text(entry['level'])}" if name.startswith(DENOISING) else TITLES[name]


def panels(
    arrays: Mapping[str, Mapping[str, np.ndarray]], numbers: Mapping[str, Mapping[str, Any]], columns: int
) -> list[Panel]:
    """A panel per edit but interpolation: the truth, what goes in, the known part of a mean image, and every model's.

    `arrays` and `numbers` (edit → entry of edits.json) by model, in the order of drawing.
    """
    first = next(iter(arrays))
    out = []
    for name, entry in numbers[first].items():
        if name == "interpolation":
            continue
        own = arrays[first]
        strips = [
            Strip(TRUTH, own["truth"][:columns]),
            Strip(INPUT, own[f"{name}.input"][:columns], _error(entry["input"])),
            Strip(MEAN, own[f"{name}.mean"][:columns], _error(entry["mean"])),
            *(Strip(row, arrays[row][name][:columns], _error(numbers[row][name])) for row in arrays),
        ]
        said = note(max((numbers[row][name] for row in arrays), key=lambda e: e["known_error"] or 0.0))
        out.append(Panel(_title(name, entry), "" if name.startswith(DENOISING) else said, strips))
    return out


def interpolation(
    arrays: Mapping[str, Mapping[str, np.ndarray]], numbers: Mapping[str, Mapping[str, Any]], room: int
) -> Panel:
    """As many whole paths as `room` pictures hold, side by side; where not one fits, points of the first, evenly."""
    import numpy as np

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


def draw(
    edits: Mapping[str, Artifact], columns: int, out_pdf: str | Path, out_png: str | Path, out_csv: str | Path
) -> None:
    """What teacher and students make of the same parts of the same held-out images, with root mean squared errors.

    `edits`: row → artefact of kind "edits". A panel per edit with up to `columns` images, below them interpolations. Raises
    UserError where the artefacts are not of the same images under the same settings.
    """
    if not edits:
        raise UserError("editing: no edits given; edit with the teacher and the students first")
    names = sorted(edits, key=lambda name: tidy.ROWS.index(name) if name in tidy.ROWS else len(tidy.ROWS))
    arrays, numbers = {}, {}
    public = None
    for name in names:
        settings = {k: v for k, v in edits[name].settings.items() if k != "run"}
        if public is not None and settings != public:
            raise UserError(
                f"{edits[name].folder}: edits with other settings than {edits[names[0]].folder}; run it again"
            )
        public = settings
        arrays[name] = edits[name].arrays("edits.safetensors")
        numbers[name] = {entry["edit"]: entry for entry in edits[name].json("edits.json")}
        if not (
            arrays[name]["id"].shape == arrays[names[0]]["id"].shape
            and (arrays[name]["id"] == arrays[names[0]]["id"]).all()
        ):
            raise UserError(f"{edits[name].folder}: edits of other images than {edits[names[0]].folder}; run it again")
    shown = min(columns, len(arrays[names[0]]["truth"]))
    found = panels(arrays, numbers, shown)
    lines = [found[i : i + BLOCKS] for i in range(0, len(found), BLOCKS)]
    # As wide as the longest name at 6.5 points.
    margin = max(LEFT, 0.11 + 0.051 * max(map(len, names)))
    block = (style.PAGE - margin - 0.02 - (BLOCKS - 1) * BETWEEN) / BLOCKS
    # As large as the page is wide, unless it would be too tall then.
    tall = [len(line[0].strips) for line in lines] + [len(names) + (tidy.TEACHER in names)]
    high = (TALLEST - len(tall) * (HEAD + LOWER)) / sum(tall) - GAP
    cell = min((block - NUMBERS - (shown - 1) * GAP) / shown, max(high, SMALLEST))
    room = int((style.PAGE - margin - NUMBERS - 0.02 + GAP) / (cell + GAP))
    lines.append([interpolation(arrays, numbers, room)])
    height = sum(HEAD + LOWER + rows * (cell + GAP) - GAP for rows in tall) - LOWER + 0.03
    with style.styled():
        import matplotlib.pyplot as plt
        from matplotlib.patches import Rectangle

        figure = plt.figure(figsize=(style.PAGE, height))
        # One pair of axes in inches for all pictures: hundreds of them would take minutes.
        page = figure.add_axes((0, 0, 1, 1))
        page.set_axis_off()

        def write(x: float, y: float, text: str, size: float, color: str = style.SOFT, ha: str = "center") -> None:
            figure.text(
                x / style.PAGE, y / height, text, fontsize=size, color=color, ha=ha, va="center", parse_math=False
            )

        top = height
        for line in lines:
            for b, panel in enumerate(line):
                left = margin + b * (block + BETWEEN)
                write(left, top - 0.13, panel.title, 7, style.INK, "left")
                write(left, top - 0.25, panel.note, style.SMALL, ha="left")
                beside = left + len(panel.strips[0].pictures) * (cell + GAP) - GAP + NUMBERS / 2
                for r, strip in enumerate(panel.strips):
                    bottom = top - HEAD - (r + 1) * cell - r * GAP
                    middle = bottom + cell / 2
                    look = style.LOOKS.get(strip.name)
                    if b == 0:
                        write(
                            margin - 0.07, middle, plain(strip.name), 6.5, look.color if look else style.SOFT, "right"
                        )
                    for c, picture in enumerate(strip.pictures):
                        x = left + c * (cell + GAP)
                        extent = (x, x + cell, bottom, bottom + cell)
                        page.imshow(_pixels(picture, cell), extent=extent, interpolation="none", aspect="auto")
                        frame = Rectangle((x, bottom), cell, cell, fill=False, linewidth=0.4, edgecolor="#b0b0b0")
                        page.add_patch(frame)
                    if strip.error is None:
                        # The first row has none: its place is the column's head.
                        write(beside, middle, "RMSE", style.SMALL)
                        continue
                    rmse, se = strip.error
                    both = cell > 0.25
                    write(beside, middle + 0.045 * both, f"{rmse:.3f}", 6.2, style.INK)
                    if both:
                        write(beside, middle - 0.055, f"± {se:.3f}", 5)
            top -= HEAD + LOWER + len(line[0].strips) * (cell + GAP) - GAP
        page.set(xlim=(0, style.PAGE), ylim=(0, height))
        style.save(figure, out_pdf, out_png)
    tidy.write(out_csv, _table(numbers), COLUMNS)


def _pixels(picture: np.ndarray, inches: float) -> np.ndarray:
    """A picture (3, h, w) in [−1, 1], clamped and rounded, at print resolution."""
    import numpy as np
    from PIL import Image

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
