"""Loss and learning rate: CM − Direct CM where one of them differs from the main setting, as dots with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.ticker import MaxNLocator

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.analysis.figures.chart import of, tiles, title
from directcm.config import Setting, number, spell
from directcm.config.specs import DISTANCES, METRICS
from directcm.errors import UserError

EXHIBITS = {
    "sensitivity": {
        "title": "Loss and learning rate",
        "scope": "paper",
        "takes": "comparisons setting",
        "needs": "paired_loss or paired_lr",
        "place": 13,
    }
}

COLUMNS = ["metric", "reference", "axis", "setting", "difference", "low", "high", "level", "p", "n", "n_seeds"]
NAMES = {"loss": "", "lr": "learning rate ", "batch_size": "batch ", "solver": "", "adapter": ""}
LOSSES = {d.name: d.title for d in DISTANCES.values()}


@style.styled()
def draw(
    comparisons_csv: str | Path,
    main: Setting,
    *files: str | Path,
    axes: Sequence[str] = ("loss", "lr"),
    alpha: float = tidy.ALPHA,
    space: str = "latent",
) -> None:
    """One panel per headline metric: the difference CM − Direct CM with its interval, main setting first.

    Rows of the figure are settings that differ from the setting `main` in one of `axes` alone, finished students;
    open where not significant at `alpha` (`tidy.significant`, unadjusted). `files`: PDF, PNG and CSV to write. `space`: what ODE errors are in, latent or pixel.
    Raises UserError where no such setting was compared.
    """
    rows = tidy.finished(tidy.read(comparisons_csv, (*tidy.COMPARISON_COLUMNS, "level", "n")), "a_step")
    found: dict[tuple[str, str], list[tidy.Row]] = {("", ""): tidy.differences(rows, main)}
    for axis in axes:
        varied = [r for r in tidy.differences(rows, main, (axis,)) if spell(r[axis]) != main.spelled[axis]]
        for text in sorted({r[axis] for r in varied}, key=lambda t: (tidy.value(t), t)):
            found[axis, text] = [r for r in varied if r[axis] == text]
    if len(found) < 2 or not found["", ""]:
        raise UserError(
            f"students: no comparison with another {' or '.join(axes)} than the main setting's, which this figure needs; add a "
            "line with loss: [mse, pseudo_huber] or lr: [3.0e-5, 3.0e-4] to the key students of config.yaml"
        )
    every = [r for lines in found.values() for r in lines]
    metrics = [key for key in tidy.keys([{**r, "value": r["difference"]} for r in every]) if of(found["", ""], *key)]
    labels = [_label(axis, text, main, axes) for axis, text in found]
    chart, abreast = tiles(len(metrics), 0.78 + 0.17 * len(found), (0.05, 0.08), head=0.25)
    for index, (panel, (metric, reference)) in enumerate(zip(chart.grid, metrics, strict=True)):
        for y, ((axis, _), lines) in enumerate(found.items()):
            line = next(iter(of(lines, metric, reference)), None)
            if line is None or math.isnan(tidy.value(line["difference"])):
                continue
            middle, low, high = (tidy.value(line[k]) for k in ("difference", "low", "high"))
            if math.isfinite(low) and math.isfinite(high):
                panel.plot([low, high], [y, y], color=style.INK, linewidth=1.1, solid_capstyle="butt", zorder=3)
            full = tidy.significant(line, alpha)
            panel.plot(
                middle, y, marker="s", markersize=4.2, markerfacecolor=style.INK if full else "white",
                markeredgecolor=style.INK, markeredgewidth=0.9, zorder=4,
            )  # fmt: skip
            numbers = {name: tidy.number(tidy.value(line[name])) for name in COLUMNS[4:]}
            fields = {"metric": metric, "reference": reference, "axis": axis, "setting": labels[y]}
            chart.lines.append(fields | numbers)
        panel.axvline(0, color=style.SOFT, linewidth=0.8, zorder=2)
        panel.set_yticks(range(len(found)), labels if index % abreast == 0 else [""] * len(found))
        panel.set_ylim(len(found) - 0.5, -0.5)
        panel.margins(x=0.12)
        panel.xaxis.set_major_locator(MaxNLocator(nbins=3, min_n_ticks=2))
        title(panel, tidy.title(metric, reference, space))
        ahead = "Direct CM better →" if METRICS[metric].better == "lower" else "← Direct CM better"
        panel.set_xlabel(f"CM − Direct CM\n{ahead}", linespacing=1.3)
    levels = sorted({tidy.value(r["level"]) for r in every} - {math.nan})
    percent = f"{100 * levels[0]:g} % interval, " if len(levels) == 1 else ""
    seeds = tidy.counted({int(r["n_seeds"]) for r in every})
    chart.legend(
        [
            style.handle(style.Look(style.INK, "s", "-"), f"difference ({percent}{seeds})"),
            style.mark_handle(f"not significant (p > {alpha:g})", "s"),
        ]
    )
    chart.save(COLUMNS, *files)


def _label(axis: str, text: str, main: Setting, axes: Sequence[str]) -> str:
    """ "main: MSE, 0.0001"; "pseudo-Huber"; "learning rate 0.001"."""

    def shown(value: object) -> str:
        plain = tidy.value(str(value))
        return LOSSES.get(str(value), str(value)) if math.isnan(plain) else number(plain)

    if not axis:
        return "main: " + ", ".join(shown(getattr(main, name)) for name in axes)
    return NAMES.get(axis, f"{axis} ") + shown(text)
