"""Figures 2 and 5: what each model makes of the same noise and prompts."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.analysis.page import plain
from directcm.errors import UserError
from directcm.runtime.artifacts import Artifact, write_csv

if TYPE_CHECKING:
    import numpy as np

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
COLUMNS = ["band", "column", "row", "prompt", "model"]


def choose_rows(prompts: Sequence[Mapping[str, str]], available: set[int], count: int) -> list[int]:
    """At most `count` of the available evaluation rows, in rounds: the first of each prompt, then the second of each …

    Prompts keep the order of their first rows, so that in full rounds the same prompt stands in the same place.
    """
    own: dict[str, list[int]] = {}
    for row, text in sorted((int(p["row"]), p["text"]) for p in prompts):
        if row in available:
            own.setdefault(text, []).append(row)
    rounds = itertools.zip_longest(*own.values())
    return [row for group in rounds for row in group if row is not None][:count]


def shorten(text: str, width: float, lines: int, measure: Callable[[str], float] = len) -> str:
    """A prompt in at most `lines` lines of at most `width` as `measure` has it, cut with … where it is longer.

    Words are kept whole where they fit; a longer one, or a script without spaces, is broken between characters.
    """
    left = plain(text)
    out: list[str] = []
    while left and len(out) < lines:
        end = len(left)
        if measure(left) > width:
            end = next((i for i in range(1, len(left)) if measure(left[: i + 1]) > width), len(left))
            space = left.rfind(" ", 0, end + 1)
            end = space if space > 0 else end
        out.append(left[:end].rstrip())
        left = left[end:].lstrip()
    if left:
        last = out[-1]
        while last and measure(last + "…") > width:
            last = last[:-1].rstrip()
        out[-1] = last + "…"
    return "\n".join(out) or "(no prompt)"


def images_of(shards: Sequence[Artifact]) -> dict[int, Artifact]:
    """Evaluation row → the samples artefact that holds its image."""
    out: dict[int, Artifact] = {}
    for shard in shards:
        for name in shard.checksums:
            if name.startswith("images/") and name.endswith(".png"):
                out[int(Path(name).stem)] = shard
    return out


def _picture(artifact: Artifact, row: int, inches: float) -> np.ndarray:
    """An evaluation row's image as `style.at_print_size` has it."""
    from PIL import Image

    with Image.open(artifact.file(f"images/{row:05d}.png")) as file:
        return style.at_print_size(file.convert("RGB"), inches)


class _Layout(NamedTuple):
    """How pictures are spread: columns of a band, inches of a cell and a gap, prompts and bands (rows, named above, head), height."""

    wide: int
    cell: float
    gap: float
    upwards: bool
    labels: dict[int, str]
    bands: list[tuple[list[int], bool, float]]
    height: float

    @property
    def shown(self) -> int:
        """How many evaluation rows it has a place for."""
        return sum(len(band) for band, *_ in self.bands)


def draw(
    noise: Artifact,
    samples: Mapping[str, Sequence[Artifact]],
    columns: int,
    out_pdf: str | Path,
    out_png: str | Path,
    out_csv: str | Path,
) -> list[int]:
    """What each model makes of the same noise and prompt, one row per model; returns the evaluation rows shown.

    `samples` maps "Teacher", "CM", "Direct CM" (drawn in this order) to samples artefacts: the teacher's shards, a
    student's first seed. More columns than a page is wide continue in further bands, one per round over the prompts where
    these are few; where the bands of many models are taller than a page, smaller pictures in wider bands, down to SMALLEST, and
    as far as a page is tall with these. Raises UserError where the sets share no row.
    """
    held = {name: images_of(shards) for name, shards in samples.items() if shards}
    if not held:
        raise UserError("samples: no sample sets given; sample the teacher and the students first")
    names = sorted(held, key=lambda name: tidy.ROWS.index(name) if name in tidy.ROWS else len(tidy.ROWS))
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
    with style.styled():
        import matplotlib.pyplot as plt
        from matplotlib.font_manager import FontProperties
        from matplotlib.textpath import text_to_path

        titles = FontProperties(family="DejaVu Sans", size=7)
        longest = max(
            text_to_path.get_text_width_height_descent(plain(name), titles, ismath=False)[0] for name in names
        )
        # Room for the longest of the models' names.
        left, right, between = max(0.62, longest / 72 + 0.12), 0.03, 0.12
        font = FontProperties(family="DejaVu Sans", size=5.6)

        @functools.cache
        def measure(text: str) -> float:
            return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72

        def layout(wide: int, share: float) -> _Layout:
            """Bands of `wide` columns, of cells that fill a `share` of the width, and as many bands as a page holds."""
            gap = 0.05
            cell = share * min((style.PAGE - left - right - gap * (wide - 1)) / wide, 1.2)
            if cell < NARROW:
                # Narrow columns want narrow gaps.
                gap = 0.02
                cell = share * (style.PAGE - left - right - gap * (wide - 1)) / wide
            upwards = cell < NARROW
            room, lines = (UPWARDS, 1) if upwards else (cell + 0.4 * gap, 4)
            labels = {row: shorten(texts[row], room, lines, measure) for row in chosen}
            body = len(names) * cell + (len(names) - 1) * gap
            bands: list[tuple[list[int], bool, float]] = []
            height = 0.03
            for i in range(0, len(chosen), wide):
                band = chosen[i : i + wide]
                above = bands[-1][0] if bands else []
                # Prompts are not said again where each stands under itself.
                said = len(above) >= len(band) and all(texts[a] == texts[b] for a, b in zip(above, band, strict=False))
                tall = 0.03 + max(map(measure, labels.values())) if upwards else 0.0
                head = 0.06 + (tall or 0.105 * max(labels[row].count("\n") + 1 for row in band))
                head = 0.0 if said else head
                if bands and height + between + head + body > TALLEST:
                    break
                height += head + body + (between if bands else 0.0)
                bands.append((band, said, head))
            return _Layout(wide, cell, gap, upwards, labels, bands, height)

        tried = [layout(wide, 1.0)]
        if tried[0].shown < len(chosen):
            rounds = range(wide, len(chosen) + wide, wide)
            options = (layout(min(n, len(chosen)), share / 20) for share in range(19, 1, -1) for n in rounds)
            whole = [o for o in options if o.cell >= SMALLEST and o.shown == len(chosen)]
            # The largest pictures with which all fit; where none do, as many as a page holds.
            tried += [max(whole, key=lambda o: o.cell)] if whole else []
        wide, cell, gap, upwards, labels, bands, height = tried[-1]
        width = left + right + wide * cell + (wide - 1) * gap
        figure = plt.figure(figsize=(width, height))
        top = height
        out: list[dict[str, Any]] = []
        for index, (band, said, head) in enumerate(bands):
            for r, name in enumerate(names):
                bottom = top - head - (r + 1) * cell - r * gap
                figure.text(
                    (left - 0.08) / width, (bottom + cell / 2) / height, plain(name), ha="right", va="center", fontsize=7,
                    parse_math=False,
                )  # fmt: skip
                for c, row in enumerate(band):
                    x = left + c * (cell + gap)
                    axes = figure.add_axes((x / width, bottom / height, cell / width, cell / height))
                    axes.imshow(_picture(held[name][row], row, cell), interpolation="none", aspect="equal")
                    axes.set(xticks=[], yticks=[])
                    axes.grid(False)
                    for spine in axes.spines.values():
                        spine.set(linewidth=0.4, color="#b0b0b0")
                    if r == 0 and not said:
                        figure.text(
                            (x + cell / 2) / width, (top - head + 0.04) / height, labels[row], ha="center", va="bottom",
                            fontproperties=font, linespacing=1.1, parse_math=False, rotation=90 * upwards,
                        )  # fmt: skip
                    out.append({"band": index, "column": c, "row": row, "prompt": texts[row], "model": name})
            body = len(names) * cell + (len(names) - 1) * gap
            top -= head + body + between
        style.save(figure, out_pdf, out_png)
    write_csv(out_csv, out, COLUMNS)
    return [row for band, *_ in bands for row in band]
