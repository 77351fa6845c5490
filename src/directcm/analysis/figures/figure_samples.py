"""Figures 2 and 5: what each model makes of the same noise and prompts."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from directcm.analysis.figures import style
from directcm.analysis.figures.chart import place_of
from directcm.analysis.figures.pictures import choose_rows, images_of, shorten
from directcm.analysis.page import plain
from directcm.errors import UserError
from directcm.runtime.artifacts import Artifact, write_csv

EXHIBITS = {
    "samples": {
        "title": "Figure 2, samples from the same noise",
        "short": "Figure 2. Samples from the same noise",
        "takes": "noise samples columns",
        "section": "Samples",
        "place": 2,
    },
    "gallery": {
        "title": "Figure 5, samples over all prompts",
        "short": "Figure 5. Samples over all prompts",
        "takes": "noise samples columns",
        "section": "Samples",
        "place": 3,
    },
}

BAND = 10
TALLEST = 9.0
# Cells as narrow as NARROW have their prompts written upwards, in UPWARDS inches; none is smaller than SMALLEST.
NARROW, SMALLEST, UPWARDS = 0.4, 0.16, 1.15
# Inches at the right edge and between bands; prompts in points.
RIGHT, BETWEEN, FINE = 0.03, 0.12, 5.6
COLUMNS = ["band", "column", "row", "prompt", "model"]


def _picture(artifact: Artifact, row: int, inches: float) -> np.ndarray:
    """An evaluation row's image as `style.at_print_size` has it."""
    with Image.open(artifact.file(f"images/{row:05d}.png")) as file:
        return style.at_print_size(file.convert("RGB"), inches)


class _Band(NamedTuple):
    """One round of pictures: evaluation rows, whether their prompts were said above, and the inches that these take."""

    rows: list[int]
    said: bool
    head: float


class _Layout(NamedTuple):
    """How pictures are spread: columns of a band, inches of a cell and a gap, whether prompts are written upwards, prompts, height."""

    wide: int
    cell: float
    gap: float
    upwards: bool
    labels: dict[int, str]
    bands: list[_Band]
    height: float

    @property
    def shown(self) -> int:
        """How many evaluation rows it has a place for."""
        return sum(len(band.rows) for band in self.bands)


@style.styled()
def draw(
    noise: Artifact, samples: Mapping[str, Sequence[Artifact]], columns: int, out_pdf: str | Path, out_png: str | Path,
    out_csv: str | Path,
) -> list[int]:  # fmt: skip
    """What each model makes of the same noise and prompt, one row per model; returns the evaluation rows shown.

    `samples` maps "Teacher", "CM", "Direct CM" (drawn in this order) to samples artefacts: the teacher's shards, a
    student's first seed. More columns than a page is wide continue in further bands, one per round over the prompts where
    these are few; where the bands of many models are taller than a page, smaller pictures in wider bands, down to SMALLEST, and
    as far as a page is tall with these. Raises UserError where the sets share no row.
    """
    held = {name: images_of(shards) for name, shards in samples.items() if shards}
    if not held:
        raise UserError("samples: no sample sets given; sample the teacher and the students first")
    names = sorted(held, key=place_of)
    shared = set.intersection(*(set(rows) for rows in held.values()))
    prompts = noise.csv("prompts.csv")
    chosen = choose_rows(prompts, shared, columns)
    if not chosen:
        raise UserError(
            f"samples: {', '.join(names)} share no evaluation row of {noise.folder}; sample them from this noise"
        )
    texts = {int(p["row"]): p["text"] for p in prompts}
    distinct = len({texts[row] for row in chosen})
    wide = distinct if BAND / 2 <= distinct < len(chosen) and distinct <= BAND + 2 else min(len(chosen), BAND)
    # Room for the longest of the models' names.
    left = max(0.62, max(style.inches(plain(name), 7) for name in names) + 0.12)
    layout = functools.partial(_layout, chosen, texts, len(names), style.PAGE - left - RIGHT)
    chart = layout(wide, 1.0)
    if chart.shown < len(chosen):
        rounds = range(wide, len(chosen) + wide, wide)
        options = (layout(min(n, len(chosen)), share / 20) for share in range(19, 1, -1) for n in rounds)
        # The largest pictures with which all fit; where none do, as many as a page holds.
        whole = [option for option in options if option.cell >= SMALLEST and option.shown == len(chosen)]
        chart = max(whole, key=lambda option: option.cell, default=chart)
    cell, gap, height = chart.cell, chart.gap, chart.height
    width = left + RIGHT + chart.wide * cell + (chart.wide - 1) * gap
    figure = plt.figure(figsize=(width, height))
    write = functools.partial(figure.text, parse_math=False)
    top = height
    out: list[dict[str, Any]] = []
    for index, band in enumerate(chart.bands):
        for r, name in enumerate(names):
            bottom = top - band.head - (r + 1) * cell - r * gap
            write((left - 0.08) / width, (bottom + cell / 2) / height, plain(name), ha="right", va="center", fontsize=7)
            for c, row in enumerate(band.rows):
                x = left + c * (cell + gap)
                axes = figure.add_axes((x / width, bottom / height, cell / width, cell / height))
                axes.imshow(_picture(held[name][row], row, cell), interpolation="none", aspect="equal")
                axes.set(xticks=[], yticks=[])
                axes.grid(False)
                for spine in axes.spines.values():
                    spine.set(linewidth=0.4, color="#b0b0b0")
                if r == 0 and not band.said:
                    write(
                        (x + cell / 2) / width, (top - band.head + 0.04) / height, chart.labels[row], ha="center", va="bottom",
                        family="DejaVu Sans", size=FINE, linespacing=1.1, rotation=90 * chart.upwards,
                    )  # fmt: skip
                out.append({"band": index, "column": c, "row": row, "prompt": texts[row], "model": name})
        top = bottom - BETWEEN
    style.save(figure, out_pdf, out_png)
    write_csv(out_csv, out, COLUMNS)
    return [row for band in chart.bands for row in band.rows]


def _layout(
    chosen: Sequence[int], texts: Mapping[int, str], models: int, room: float, wide: int, share: float
) -> _Layout:
    """Bands of `wide` columns, of cells that fill a `share` of `room` inches, and as many bands as a page holds.

    `chosen`: evaluation rows, `texts`: their prompts, `models`: how many stand below one another.
    """
    gap = 0.05
    cell = share * min((room - gap * (wide - 1)) / wide, 1.2)
    if cell < NARROW:
        # Narrow columns want narrow gaps.
        gap = 0.02
        cell = share * (room - gap * (wide - 1)) / wide
    upwards = cell < NARROW
    across, lines = (UPWARDS, 1) if upwards else (cell + 0.4 * gap, 4)
    labels = {row: shorten(texts[row], across, lines, lambda text: style.inches(text, FINE)) for row in chosen}
    body = models * cell + (models - 1) * gap
    bands: list[_Band] = []
    height = 0.03
    for i in range(0, len(chosen), wide):
        rows, above = chosen[i : i + wide], bands[-1].rows if bands else []
        # Prompts are not said again where each stands under itself.
        said = len(above) >= len(rows) and all(texts[a] == texts[b] for a, b in zip(above, rows, strict=False))
        if upwards:
            head = 0.09 + max(style.inches(label, FINE) for label in labels.values())
        else:
            head = 0.06 + 0.105 * max(labels[row].count("\n") + 1 for row in rows)
        head = 0.0 if said else head
        if bands and height + BETWEEN + head + body > TALLEST:
            break
        height += head + body + (BETWEEN if bands else 0.0)
        bands.append(_Band(list(rows), said, head))
    return _Layout(wide, cell, gap, upwards, labels, bands, height)
