"""The figures: samples from the same noise, training curves, and the metrics as dots."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from directcm.analysis.page import plain
from directcm.analysis.selection import ROWS, TEACHER, steps_label
from directcm.artifacts import Artifact, read_csv, write_csv
from directcm.errors import UserError
from directcm.specs import METRICS

if TYPE_CHECKING:
    import numpy as np

CURVE_COLUMNS = ["method", "seed", "step", "loss", "grad_norm"]
BAND = 10
PRINT_DPI = 300
MOST_POINTS = 2000


# ----------------------------------------------------------------- samples


def choose_rows(prompts: Sequence[Mapping[str, str]], available: set[int], count: int) -> list[int]:
    """The first evaluation rows, ascending, preferring one of each prompt; at most `count` of those available."""
    ordered = sorted((int(p["row"]), p["text"]) for p in prompts)
    first: dict[str, int] = {}
    for row, text in ordered:
        if row in available:
            first.setdefault(text, row)
    chosen = list(first.values())[:count]
    rest = [row for row, _ in ordered if row in available and row not in set(chosen)]
    return sorted(chosen + rest[: count - len(chosen)])


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


def _rows_of(shards: Sequence[Artifact]) -> dict[int, Artifact]:
    """Evaluation row → the samples artefact that holds its image."""
    out: dict[int, Artifact] = {}
    for shard in shards:
        for name in shard.checksums:
            if name.startswith("images/") and name.endswith(".png"):
                out[int(Path(name).stem)] = shard
    return out


def _picture(artifact: Artifact, row: int, inches: float) -> np.ndarray:
    """An image (h, w, 3), uint8, at print resolution: small ones enlarged pixel by pixel, large ones averaged down."""
    import numpy as np
    from PIL import Image

    target = max(1, round(inches * PRINT_DPI))
    with Image.open(artifact.file(f"images/{row:05d}.png")) as file:
        image = file.convert("RGB")
        if max(image.size) > target:
            image.thumbnail((target, target), Image.Resampling.BOX)
        pixels = np.asarray(image)
    factor = -(-target // max(pixels.shape[:2])) if max(pixels.shape[:2]) < target else 1
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def samples_figure(
    noise: Artifact,
    samples: Mapping[str, Sequence[Artifact]],
    columns: int,
    out_pdf: str | Path,
    out_png: str | Path,
) -> list[int]:
    """Figure 2: what each model makes of the same noise and prompt, one row per model; returns the rows shown.

    `samples` maps "Teacher", "CM", "Direct CM" (drawn in this order) to samples artefacts: the teacher's shards, a
    student's first seed. More than 10 columns continue in a second band. Raises UserError where the sets share no row.
    """
    held = {name: _rows_of(shards) for name, shards in samples.items() if shards}
    if not held:
        raise UserError("samples: no sample sets given; sample the teacher and the students first")
    names = sorted(held, key=lambda name: ROWS.index(name) if name in ROWS else len(ROWS))
    shared = set.intersection(*(set(rows) for rows in held.values()))
    chosen = choose_rows(noise.csv("prompts.csv"), shared, columns)
    if not chosen:
        raise UserError(
            f"samples: {', '.join(names)} share no evaluation row of {noise.folder}; sample them from this noise"
        )
    texts = {int(p["row"]): p["text"] for p in noise.csv("prompts.csv")}

    from directcm.analysis.style import PAGE, save, styled

    with styled():
        import matplotlib.pyplot as plt
        from matplotlib.font_manager import FontProperties
        from matplotlib.textpath import text_to_path

        wide = min(len(chosen), BAND)
        left, gap, right = 0.62, 0.05, 0.03
        cell = min((PAGE - left - right - gap * (wide - 1)) / wide, 1.2)
        width = left + right + wide * cell + (wide - 1) * gap
        font = FontProperties(family="DejaVu Sans", size=5.6)

        def measure(text: str) -> float:
            return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72

        labels = {row: shorten(texts[row], cell + 0.4 * gap, 4, measure) for row in chosen}
        bands = [chosen[i : i + BAND] for i in range(0, len(chosen), BAND)]
        heads = [0.06 + 0.105 * max(labels[row].count("\n") + 1 for row in band) for band in bands]
        body = len(names) * cell + (len(names) - 1) * gap
        height = sum(heads) + len(bands) * body + (len(bands) - 1) * 0.12 + 0.03
        figure = plt.figure(figsize=(width, height))
        top = height
        for band, head in zip(bands, heads, strict=True):
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
                    if r == 0:
                        figure.text(
                            (x + cell / 2) / width, (top - head + 0.04) / height, labels[row], ha="center", va="bottom",
                            fontproperties=font, linespacing=1.1, parse_math=False,
                        )  # fmt: skip
            top -= head + body + 0.12
        save(figure, out_pdf, out_png)
    return chosen


# ----------------------------------------------------------------- training curves


@dataclass(frozen=True)
class Curve:
    """One student's training: `row` is "CM" or "Direct CM"; arrays (steps,), NaN where nothing was recorded."""

    row: str
    seed: int
    step: np.ndarray
    loss: np.ndarray
    grad_norm: np.ndarray


def read_curve(row: str, seed: int, path: str | Path) -> Curve:
    """Read a student's curve.csv (columns step, loss, grad_norm and more; one line per optimiser step)."""
    import numpy as np

    lines = read_csv(path)
    if not lines:
        raise UserError(f"{path}: holds no steps; train the student again")
    try:
        step = np.array([int(line["step"]) for line in lines])
        loss = np.array([float(line["loss"]) for line in lines])
        grad = np.array([float(line["grad_norm"] or "nan") for line in lines])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a training curve ({error}); train the student again") from None
    if (np.diff(step) <= 0).any():
        raise UserError(f"{path}: steps do not ascend; train the student again")
    return Curve(row, seed, step, loss, grad)


def curves_table(curves: Sequence[Curve], out_csv: str | Path) -> None:
    """Write the curves as one tidy CSV (CURVE_COLUMNS), for `dvc plots` and for anyone's own figure."""
    rows = []
    for curve in _ordered(curves):
        for step, loss, grad in zip(curve.step, curve.loss, curve.grad_norm, strict=True):
            rows.append(
                {
                    "method": curve.row,
                    "seed": curve.seed,
                    "step": int(step),
                    "loss": float(loss) if math.isfinite(loss) else None,
                    "grad_norm": float(grad) if math.isfinite(grad) else None,
                }
            )
    write_csv(out_csv, rows, CURVE_COLUMNS)


def mean_curves_table(curves: Sequence[Curve], out_csv: str | Path) -> None:
    """Write the mean curves over seeds, a column per method and quantity ("loss_CM" …): the shape `dvc plots` draws."""
    names = list(dict.fromkeys(curve.row for curve in _ordered(curves)))
    steps = sorted({int(step) for curve in curves for step in curve.step})
    columns: dict[str, dict[int, float]] = {}
    for quantity in ("loss", "grad_norm"):
        for name in names:
            values: dict[int, list[float]] = {}
            for curve in (c for c in curves if c.row == name):
                for step, value in zip(curve.step, getattr(curve, quantity), strict=True):
                    if math.isfinite(value):
                        values.setdefault(int(step), []).append(float(value))
            label = f"{quantity}_{name.replace(' ', '_')}"
            columns[label] = {step: math.fsum(v) / len(v) for step, v in values.items()}
    rows = [{"step": step, **{label: column.get(step) for label, column in columns.items()}} for step in steps]
    write_csv(out_csv, rows, ["step", *columns])


def _ordered(curves: Sequence[Curve]) -> list[Curve]:
    return sorted(curves, key=lambda c: (ROWS.index(c.row) if c.row in ROWS else len(ROWS), c.row, c.seed))


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Centred moving geometric mean, (n,): what a log axis shows as an average. Values ≤ 0 and NaN are left out."""
    import numpy as np

    positive = np.isfinite(values) & (values > 0)
    logs = np.where(positive, np.log(np.where(positive, values, 1.0)), 0.0)
    half = window // 2
    total = np.concatenate([[0.0], np.cumsum(logs)])
    count = np.concatenate([[0], np.cumsum(positive)])
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    n = count[high] - count[low]
    return np.where(n > 0, np.exp((total[high] - total[low]) / np.maximum(n, 1)), np.nan)


def curves_figure(curves: Sequence[Curve], out_pdf: str | Path, out_png: str | Path) -> None:
    """Training loss and gradient norm against optimiser steps, log axes, one colour and dash per method.

    Thin: every seed as recorded. Bold: the geometric mean over seeds of the smoothed curves; band: their range.
    """
    if not curves:
        raise UserError("curves: none given; train a student first")
    import numpy as np

    from directcm.analysis.style import LOOKS, PAGE, SOFT, save, styled

    with styled():
        import matplotlib.pyplot as plt
        import seaborn
        from matplotlib.ticker import MaxNLocator

        figure, both = plt.subplots(1, 2, figsize=(PAGE, 2.5), layout="constrained")
        groups: dict[str, list[Curve]] = {}
        for curve in _ordered(curves):
            groups.setdefault(curve.row, []).append(curve)
        for axes, name, label in ((both[0], "loss", "training loss"), (both[1], "grad_norm", "gradient norm")):
            drawn = []
            for order, (row, group) in enumerate(groups.items()):
                look = LOOKS[row]
                window = 2 * (max(len(c.step) for c in group) // 40) + 1
                smoothed = []
                for curve in group:
                    values = getattr(curve, name)
                    stride = -(-len(values) // MOST_POINTS)
                    shown = np.where(np.isfinite(values) & (values > 0), values, np.nan)
                    drawn.append(shown)
                    axes.plot(
                        curve.step[::stride], shown[::stride], color=look.color, linewidth=0.35, alpha=0.3, zorder=2
                    )
                    smoothed.append(smooth(values, window))
                # Seeds of one method have the same steps; a run that is still short ends the average early.
                length = min(len(s) for s in smoothed)
                stack = np.array([s[:length] for s in smoothed])
                steps = group[0].step[:length]
                with np.errstate(all="ignore"):
                    middle = np.exp(np.log(stack).mean(axis=0))
                if len(group) > 1:
                    axes.fill_between(
                        steps, stack.min(axis=0), stack.max(axis=0), color=look.color, alpha=0.2, linewidth=0, zorder=3
                    )
                # White under the line keeps it apart from the thin ones of the other method.
                axes.plot(steps, middle, color="white", linewidth=2.0, zorder=4 + 2 * order)
                axes.plot(
                    steps, middle, color=look.color, linestyle=look.line, marker=look.marker, markersize=3.2,
                    markevery=(order * max(1, length // 16), max(1, length // 8)), linewidth=1.3, zorder=5 + 2 * order,
                    label=f"{row} ({len(group)} seed{'s' * (len(group) != 1)})",
                )  # fmt: skip
            if any(np.isfinite(values).any() for values in drawn):
                axes.set_yscale("log")
            axes.set(xlabel="optimiser step", ylabel=label)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            axes.margins(x=0.02)
            axes.tick_params(which="minor", labelsize=5.5, labelcolor=SOFT)
        figure.legend(
            *both[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(groups), handlelength=3.2
        )
        seaborn.despine(figure)
        save(figure, out_pdf, out_png)


# ----------------------------------------------------------------- results


def _value(text: str) -> float:
    return float(text) if text else math.nan


def results_figure(table_csv: str | Path, out_pdf: str | Path, out_png: str | Path) -> None:
    """Table 1 as dots: one small panel with its own axis per metric and reference, ± sd over seeds as bars."""
    lines = read_csv(table_csv)
    if not lines:
        raise UserError(f"{table_csv}: holds no rows; make the table again")
    panels: dict[tuple[str, str], list[dict[str, str]]] = {}
    for line in lines:
        panels.setdefault((line["metric"], line["reference"]), []).append(line)
    panels = dict(sorted(panels.items(), key=lambda item: _order(item[0], lines)))
    names = list(dict.fromkeys((line["row"], int(line["steps"])) for line in lines))
    names.sort(key=lambda name: (ROWS.index(name[0]), name[1]))
    several = len({steps for row, steps in names if row != TEACHER}) > 1

    from directcm.analysis.style import LOOKS, PAGE, SOFT, save, styled

    with styled():
        import matplotlib.pyplot as plt
        import seaborn
        from matplotlib.layout_engine import ConstrainedLayoutEngine
        from matplotlib.ticker import MaxNLocator

        columns = min(4, len(panels))
        rows = -(-len(panels) // columns)
        height = rows * (0.72 + 0.2 * len(names))
        figure, grid = plt.subplots(
            rows,
            columns,
            figsize=(max(PAGE * columns / 4, 2.4), height),
            layout=ConstrainedLayoutEngine(wspace=0.06, hspace=0.08),
            squeeze=False,
        )
        labels = [f"{row}, {steps_label(steps)}" if several and row != TEACHER else row for row, steps in names]
        for index, axes in enumerate(grid.flat):
            if index >= len(panels):
                axes.remove()
                continue
            (metric, reference), found = list(panels.items())[index]
            spec = METRICS[metric]
            values = {(line["row"], int(line["steps"])): line for line in found}
            for y, name in enumerate(names):
                look, own = LOOKS[name[0]], values.get(name)
                mean = _value(own["mean"]) if own else math.nan
                if own is None or not math.isfinite(mean):
                    note = "is the reference" if name[0] == TEACHER and reference == "teacher" else "not defined"
                    axes.text(
                        0.5, y, note, transform=axes.get_yaxis_transform(), ha="center", va="center", fontsize=6,
                        style="italic", color=SOFT,
                    )  # fmt: skip
                    continue
                sd = _value(own["sd"])
                axes.errorbar(
                    mean, y, xerr=None if math.isnan(sd) else sd, color=look.color, marker=look.marker, markersize=4.5,
                    linewidth=0, elinewidth=1.1, capsize=2.2, capthick=1.1, zorder=3,
                )  # fmt: skip
            axes.set_yticks(range(len(names)), labels if index % columns == 0 else [""] * len(names))
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.margins(x=0.18)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=3, min_n_ticks=2))
            against = {"teacher": " to teacher", "data": " to data"}.get(reference, "")
            if len(spec.references) == 1:
                against = ""
            better = "← better" if spec.better == "lower" else "better →"
            axes.set_xlabel(f"{spec.title}{against}\n{better}", linespacing=1.3)
        seaborn.despine(figure)
        save(figure, out_pdf, out_png)


def _order(key: tuple[str, str], lines: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Panels as the students' lines of the table list them: the teacher's lack some."""
    metrics = list(dict.fromkeys(line["metric"] for line in lines if line["row"] != TEACHER))
    return metrics.index(key[0]) if key[0] in metrics else len(metrics), METRICS[key[0]].references.index(key[1])
