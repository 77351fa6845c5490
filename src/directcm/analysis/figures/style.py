"""One look for every figure: sizes, fonts, and a colour, marker and line style per method, the same everywhere.

Colours differ in hue for colour-blind readers (dark blue against orange) and in lightness for greyscale prints;
markers and dashes carry the same distinction without any colour.
"""

from __future__ import annotations

import io
import itertools
import math
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from directcm.config.specs import METHODS
from directcm.runtime.artifacts import write_bytes

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from PIL.Image import Image

    from directcm.analysis.data.tidy import Point

# What matplotlib's settings say: fonts, ticks, grid, 200 dots an inch.
SETTINGS = Path(__file__).with_suffix(".mplstyle")
COLUMN = 3.25
PAGE = 6.75
PRINT_DPI = 300


@dataclass(frozen=True)
class Look:
    """How a row of the comparison is drawn."""

    color: str
    marker: str
    line: str | tuple[float, tuple[float, ...]]


LOOKS = {
    "Teacher": Look("#1a1a1a", "D", (0, (1, 1.2))),
    "Teacher, other noise": Look("#b0b0b0", "d", (0, (3, 1, 1, 1))),
    "CM": Look("#004c8c", "o", "-"),
    "Direct CM": Look("#d97400", "^", (0, (4, 1.6))),
}
# The other methods' in the order of their files: Okabe and Ito's colours that are left, a marker and a dash of their own each.
_COLORS = (
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#8c564b",
    "#b8a800",
    "#7f3fbf",
    "#e0524c",
    "#4d6b53",
    "#9a6a00",
    "#3c3cff",
    "#00606e",
)
_MARKERS = ("s", "v", "P", "X", "<", ">", "h", "p", "*", "8", "H")
_LINES = tuple((0, (length, gap)) for length, gap in itertools.product((6.0, 2.5, 0.8, 9.0), (1.2, 2.2, 3.4)))
for _i, _label in enumerate(label for label in METHODS.values() if label not in LOOKS):
    LOOKS[_label] = Look(_COLORS[_i % len(_COLORS)], _MARKERS[_i % len(_MARKERS)], _LINES[_i % len(_LINES)])
INK = "#1a1a1a"
SOFT = "#595959"
SMALL = 5.8
PAPER = (0, (1, 2.5))


def luminance(color: str) -> float:
    """CIE lightness L* (0 to 100) of "#rrggbb": what is left of a colour in greyscale."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    y = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib without a display, in this project's style, whatever the user's matplotlibrc says."""
    import matplotlib

    matplotlib.use("Agg")
    import seaborn

    with warnings.catch_warnings(), matplotlib.rc_context():
        # A caption may hold characters that no bundled font has; the box drawn instead says so.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        matplotlib.rcdefaults()
        seaborn.set_theme(
            context="paper",
            style="ticks",
            rc=matplotlib.rc_params_from_file(SETTINGS, use_default_template=False),
        )
        yield


def finish_steps(
    figure: Figure, grid: Any, entries: Sequence[Artist], steps: Sequence[float], marks: Sequence[Sequence[Reference]]
) -> None:
    """What panels over training steps end with: legend, frame, the steps as ticks, and each row's references (`marks`)."""
    import seaborn

    legend(figure, entries)
    seaborn.despine(figure)
    for axes in grid.flat:
        values_axis(axes, steps, log=True)
    for row, own in zip(grid, marks, strict=True):
        references(row, own)


def save(figure: Figure, pdf: str | Path, png: str | Path) -> None:
    """Write a figure as PDF and PNG, atomically and without dates: equal figures are equal bytes. Closes it."""
    import matplotlib.pyplot as plt

    for path, kind, metadata in (
        (pdf, "pdf", {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None}),
        (png, "png", {"Software": None}),
    ):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata)
        write_bytes(path, buffer.getvalue())
    plt.close(figure)


def at_print_size(image: Image, inches: float) -> np.ndarray:
    """An RGB image's pixels (h, w, 3), uint8, at print resolution: small ones enlarged pixel by pixel, large ones averaged down."""
    import numpy as np
    from PIL.Image import Resampling

    target = max(1, round(inches * PRINT_DPI))
    if max(image.size) > target:
        image = image.copy()
        image.thumbnail((target, target), Resampling.BOX)
    pixels = np.asarray(image)
    factor = -(-target // max(pixels.shape[:2])) if max(pixels.shape[:2]) < target else 1
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


# ----------------------------------------------------------------- series over seeds


def series(
    axes: Axes,
    group: Sequence[Point],
    look: Look,
    *,
    filled: Sequence[bool] | None = None,
    hollow: bool = False,
    thin: bool = True,
    band: bool = True,
    order: int = 0,
) -> None:
    """Draw means over seeds (line and markers), ± one sd as a band, and each seed as a thin line.

    `filled` says per point whether its marker is full; `hollow` makes all of them open. `order` lifts a series above
    those before it. One seed has neither band nor thin line.
    """
    import numpy as np

    if not group:
        return
    x = np.array([p.x for p in group])
    mean = np.array([p.mean for p in group])
    sd = np.array([p.sd for p in group])
    base = 4 + 3 * order
    if band and np.isfinite(sd).any():
        spread = np.nan_to_num(sd)
        axes.fill_between(x, mean - spread, mean + spread, color=look.color, alpha=0.16, linewidth=0, zorder=2)
    seeds = sorted({seed for p in group for seed in p.values})
    if thin and len(seeds) > 1:
        for seed in seeds:
            own = [p.values.get(seed, math.nan) for p in group]
            axes.plot(x, own, color=look.color, linewidth=0.35, alpha=0.45, zorder=3)
    # White under the line keeps it apart from the other method's.
    axes.plot(x, mean, color="white", linewidth=2.2, zorder=base)
    axes.plot(x, mean, color=look.color, linestyle=look.line, linewidth=1.2, zorder=base + 1)
    full = [not hollow] * len(group) if filled is None else list(filled)
    axes.scatter(
        x, mean, s=15, marker=look.marker, facecolors=[look.color if f else "white" for f in full],
        edgecolors=look.color, linewidths=0.9, zorder=base + 2,
    )  # fmt: skip


def crowded(
    axes: Axes,
    group: Sequence[Point],
    look: Look,
    *,
    over: bool = False,
    place: int = 0,
    count: int = 1,
    possible: tuple[float, float] = (-math.inf, math.inf),
    order: int = 0,
) -> list[float]:
    """Draw means over seeds and bars of ± one sd of one of many methods, so that no method lies hidden under another.

    A method that is built `over` another has a thin line and open marks, for its base's thicker ones to show under it. Marks
    stand at `place` of `count` places around their x, which is on a logarithmic axis. Bars end where values are not `possible`; returned are the
    x of bars that reach 0 or less, which a logarithmic axis cannot show: see `leaving`.
    """
    if not group:
        return []
    steps = sorted({p.x for p in group})
    gap = min((math.log(b / a) for a, b in itertools.pairwise(steps)), default=0.0)
    shift = math.exp(gap * min(0.42, 0.06 * (count - 1)) * (place / (count - 1) - 0.5)) if count > 1 else 1.0
    x, mean = [p.x * shift for p in group], [p.mean for p in group]
    width, base = (0.8, 40) if over else (1.9, 4)
    axes.plot(
        x, mean, color=look.color, linestyle=look.line, linewidth=width, alpha=1.0 if over else 0.8, zorder=base + order
    )
    gone = []
    for at, p in zip(x, group, strict=True):
        if not math.isfinite(p.sd):
            continue
        low, high = max(p.mean - p.sd, possible[0]), min(p.mean + p.sd, possible[1])
        axes.plot(
            [at, at],
            [low, high],
            color=look.color,
            linewidth=0.7,
            alpha=0.8,
            zorder=base + order,
            solid_capstyle="butt",
        )
        gone += [at] if low <= 0 else []
    axes.scatter(
        x, mean, s=9 if over else 13, marker=look.marker, facecolors="white" if over else look.color,
        edgecolors=look.color, linewidths=0.8, zorder=base + order + 20,
    )  # fmt: skip
    return gone


def leaving(axes: Axes, at: Iterable[tuple[float, str]], *, horizontal: bool = False) -> None:
    """An arrow head at the edge of a logarithmic axis for every bar (its place across, its colour) that goes on to 0 or less.

    To be called when the axis has its scale; on any other one the bar's end is there to be seen, and nothing is drawn.
    """
    if (axes.xaxis if horizontal else axes.yaxis).get_scale() != "log":
        return
    for place, color in at:
        xy, marker = ((0.0, place), "<") if horizontal else ((place, 0.0), "v")
        axes.plot(
            *([value] for value in xy), marker=marker, markersize=4.4, color=color, markeredgewidth=0, clip_on=False, zorder=80,
            transform=axes.get_yaxis_transform() if horizontal else axes.get_xaxis_transform(),
        )  # fmt: skip


def handle(look: Look, label: str, *, hollow: bool = False, marker: bool = True, linewidth: float = 1.2) -> Artist:
    """A legend's entry for a look."""
    from matplotlib.lines import Line2D

    line: Any = look.line
    return Line2D(
        [], [], color=look.color, linestyle=line, linewidth=linewidth, marker=look.marker if marker else "",
        markersize=3.9, markerfacecolor="white" if hollow else look.color, markeredgewidth=0.9, label=label,
    )  # fmt: skip


def method_handle(name: str, label: str, *, over: bool = False) -> Artist:
    """A method's entry in the legend of a figure of many methods, as `crowded` draws it: thin and open where it is built `over` another."""
    return handle(LOOKS[name], label, hollow=over, linewidth=0.8 if over else 1.9)


def open_handle(label: str, marker: str = "o") -> Artist:
    """A legend's entry for what an open marker means."""
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], linestyle="", marker=marker, markersize=3.9, markerfacecolor="white", markeredgecolor=SOFT,
        markeredgewidth=0.9, label=label,
    )  # fmt: skip


def ring_handle(label: str) -> Artist:
    """A legend's entry for what a ring around a mark means."""
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], linestyle="", marker="o", markersize=6.5, markerfacecolor="none", markeredgecolor=SOFT, markeredgewidth=0.8,
        label=label,
    )  # fmt: skip


def legend(figure: Figure, entries: Sequence[Artist], size: float = 6.5, handlelength: float = 2.8) -> None:
    """A legend above all panels, in as few rows as the width holds; fixes the layout, so that extents can be asked."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="DejaVu Sans", size=size)
    widths = [
        text_to_path.get_text_width_height_descent(str(label), font, ismath="$" in str(label))[0] / 72
        + size * (handlelength + 1.6) / 72
        for label in (entry.get_label() for entry in entries)
    ]
    room = figure.get_figwidth() - 0.05

    def breadth(columns: int) -> float:
        # Matplotlib fills a legend column by column, the first ones fullest; a column is as wide as its widest entry.
        short, longer = divmod(len(widths), columns)
        sizes = [short + (c < longer) for c in range(columns)]
        return sum(max(widths[sum(sizes[:c]) : sum(sizes[: c + 1])]) for c in range(columns))

    columns = next((c for c in range(len(entries), 1, -1) if breadth(c) <= room), 1)
    rows = -(-len(entries) // columns)
    figure.set_figheight(figure.get_figheight() + (rows - 1) * 1.4 * size / 72)
    figure.legend(
        handles=list(entries), loc="outside upper center", ncols=columns, handlelength=handlelength, columnspacing=1.1,
        handletextpad=0.5, fontsize=size, labelspacing=0.35, borderpad=0.1,
    )  # fmt: skip
    figure.draw_without_rendering()


@dataclass(frozen=True)
class Reference:
    """A value that data are read against: one height, or one per x. `name` is written where it lies outside."""

    name: str
    look: Look
    y: tuple[float, ...]
    x: tuple[float, ...] = ()
    decimals: int | None = None


def constants(values: Mapping[str, float], decimals: int) -> list[Reference]:
    """Reference lines at one height each: the teacher, its floor, and the paper's values ("paper, CM")."""
    out = []
    for name, y in values.items():
        own = LOOKS[name.removeprefix("paper, ")]
        look = Look(own.color, "", PAPER if name.startswith("paper, ") else own.line)
        # The paper's numbers as it prints them.
        digits = None if name.startswith("paper, ") else decimals
        out.append(Reference(name.removeprefix("Teacher, "), look, (y,), decimals=digits))
    return out


def reference_handles(names: Collection[str], *, marker: bool = False) -> list[Artist]:
    """Legend entries of reference lines, by their full names, in the order of LOOKS."""
    own = [handle(LOOKS[n], n, marker=marker, linewidth=0.9) for n in LOOKS if n in names]
    paper = [
        handle(Look(look.color, "", PAPER), f"paper, {n}", linewidth=0.9)
        for n, look in LOOKS.items()
        if f"paper, {n}" in names
    ]
    return own + paper


def _warp(axis: Axis) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """Along an axis of any scale: where a value lies, and which value lies there."""
    if axis.get_scale() == "linear":
        return float, float
    transform = axis.get_transform()
    inverse = transform.inverted()
    return lambda v: float(transform.transform([v])[0]), lambda v: float(inverse.transform([v])[0])


def references(panels: Sequence[Axes], lines: Sequence[Reference]) -> None:
    """Draw reference lines in panels that share their y axis; one far outside the data is written at the edge instead.

    To be called when the data are drawn: their range decides what is far (further off than they are spread).
    What is far is written in the first panel only, with its value.
    """
    axes = panels[0]
    low, high = axes.get_ylim()
    log = axes.get_yscale() == "log"
    warp, back = _warp(axes.yaxis)
    low, high = warp(low), warp(high)
    span = high - low
    notes: dict[str, list[str]] = {"↓": [], "↑": []}
    least, most = low, high
    for line in lines:
        heights = [warp(y) for y in line.y if math.isfinite(y) and (y > 0 or not log)]
        if not heights:
            continue
        if max(heights) < low - 0.7 * span or min(heights) > high + 0.7 * span:
            ends = (min(line.y), max(line.y))
            values = sorted({f"{y:g}" if line.decimals is None else f"{y:.{line.decimals}f}" for y in ends}, key=float)
            notes["↓" if max(heights) < low else "↑"].append(f"{line.name} {' to '.join(values).replace('-', '−')}")
            continue
        least, most = min(least, min(heights) - 0.06 * span), max(most, max(heights) + 0.06 * span)
        look = line.look
        for panel in panels:
            if line.x:
                panel.plot(
                    line.x, line.y, color=look.color, linestyle=look.line, marker=look.marker, markersize=3.2,
                    linewidth=0.9, zorder=2.5,
                )  # fmt: skip
            else:
                panel.axhline(line.y[0], color=look.color, linestyle=look.line, linewidth=0.9, zorder=2.5)
    height = axes.get_window_extent().height * 72 / axes.figure.dpi
    taken = 9.5 * sum(map(len, notes.values()))
    # So many points of the height are for notes: the data's range grows by as much.
    step = (most - least) * 9.5 / max(height - taken, height / 4)
    for arrow, texts in notes.items():
        for text in texts:
            # A line of its own, outside the data's range.
            if arrow == "↓":
                least -= step
                at = least
            else:
                at = most
                most += step
            axes.annotate(
                f"{arrow} {text}", (0.02, back(at)), xycoords=axes.get_yaxis_transform(), xytext=(0, 1.5),
                textcoords="offset points", fontsize=SMALL, color=SOFT, ha="left", va="bottom", zorder=20,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4},
            )  # fmt: skip
    axes.set_ylim(back(least), back(most))


def log_axis(axis: Axis, values: Iterable[float], *, coarse: bool = False) -> None:
    """A logarithmic axis for such values, with labels at 1, 2, 5, or 1, 3, or 1 in each decade, by how many decades there are.

    `coarse`: from one decade on at the powers of ten alone, for a panel that holds few labels.
    """
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

    drawn = [v for v in values if math.isfinite(v) and v > 0]
    axes = axis.axes
    (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
    decades = math.log10(max(drawn) / min(drawn)) if drawn else 0.0
    subs = (1, 2, 5) if decades < 0.8 else (1, 3) if decades < (1 if coarse else 1.6) else (1,)
    axis.set_major_locator(LogLocator(subs=subs))
    # Every one of these ticks, where the default labels the powers of ten alone.
    axis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(math.inf, math.inf)))
    axis.set_minor_formatter(NullFormatter())


def symlog_axis(axis: Axis, linear: float, largest: float, nbins: int = 5) -> None:
    """A logarithmic axis that is linear from −`linear` to `linear`, a power of ten: ticks at 0, ± it, and powers of ten."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    axes = axis.axes
    (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("symlog", linthresh=linear, linscale=1.0)
    first, last = round(math.log10(linear)), math.ceil(math.log10(largest))
    stride = max(1, math.ceil((last - first) / max(1, nbins - 2)))
    ticks = [0.0, *(10.0**k for k in range(first, last + 1, stride))]
    # Below 0 the last power of ten that a bar passes.
    low = axis.get_data_interval()[0]
    if low < -linear:
        ticks.insert(0, -(10.0 ** math.floor(math.log10(-low))))

    def spelled(v: float, _: int) -> str:
        return "0" if v == 0 else f"${'-' if v < 0 else ''}10^{{{round(math.log10(abs(v)))}}}$"

    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(spelled))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def spread_axis(
    axis: Axis, values: Iterable[float], nbins: int = 5, possible: tuple[float, float] = (-math.inf, math.inf)
) -> None:
    """Scale and ticks of an axis of measured values: logarithmic where they are positive and the largest is 20 times the least.

    Where some are not (an unbiased estimate of a distance near 0) but the largest is decades beyond those, logarithmic with a
    linear part around 0. To be called when all is drawn: the axis ends where values are not `possible`, though a band of
    ± sd goes on.
    """
    from matplotlib.ticker import MaxNLocator

    drawn = [v for v in values if math.isfinite(v)]
    if drawn and min(drawn) > 0 and max(drawn) / min(drawn) > 20:
        log_axis(axis, drawn, coarse=nbins < 4)
        return
    positive = [v for v in drawn if v > 0]
    if positive and min(drawn) <= 0:
        # A power of ten above what the logarithmic part cannot show, and above its least value.
        linear = 10.0 ** math.ceil(math.log10(max(-min(drawn), min(positive))))
        if max(drawn) / linear > 10:
            symlog_axis(axis, linear, max(drawn), nbins)
            return
    axis.set_major_locator(MaxNLocator(nbins=nbins, min_n_ticks=2))
    low, high = axis.get_view_interval()
    margin = 0.08 * (min(high, possible[1]) - max(low, possible[0]))
    limits = max(low, possible[0] - margin), min(high, possible[1] + margin)
    if limits != (low, high):
        axes = axis.axes
        (axes.set_xlim if axis is axes.xaxis else axes.set_ylim)(*limits)


def values_axis(axes: Axes, values: Sequence[float], *, log: bool = False) -> None:
    """Ticks of the x axis at the values themselves, spelled plainly; a crowded one keeps every other."""
    from matplotlib.ticker import FixedLocator, NullLocator

    if log:
        axes.set_xscale("log")
    ticks = sorted(set(values))
    warp = math.log10 if log else float
    kept: list[float] = []
    width = warp(ticks[-1]) - warp(ticks[0]) or 1.0
    inches = axes.get_window_extent().width / axes.figure.dpi
    for tick in reversed(ticks):
        room = 0.062 * (len(f"{tick:g}") + 1)
        if not kept or (warp(kept[-1]) - warp(tick)) / width * inches * 0.85 > room:
            kept.append(tick)
    axes.xaxis.set_major_locator(FixedLocator(kept[::-1]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(kept[::-1], [f"{int(t)}" if float(t).is_integer() else f"{t:g}" for t in kept[::-1]])


# ----------------------------------------------------------------- labels that keep clear of data


@dataclass(frozen=True)
class Label:
    """A text that belongs to a point (data coordinates)."""

    x: float
    y: float
    text: str
    color: str


def place(
    axes: Axes, labels: Sequence[Label], avoid: Sequence[Sequence[tuple[float, float]]], size: float = SMALL
) -> None:
    """Write labels near their points, off the lines `avoid` (data coordinates), off each other, and inside the axes.

    Greedy and without chance: of the places around each point the cheapest is taken. The layout must be final but for
    these labels, which take no part in it.
    """
    import numpy as np
    from matplotlib.transforms import Bbox

    figure: Any = axes.figure
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    scale = figure.dpi / 72
    dots: list[Any] = []
    for line in avoid:
        at = axes.transData.transform(np.array(line, dtype=float).reshape(-1, 2))
        at = at[np.isfinite(at).all(axis=1)]
        for a, b in itertools.pairwise(at):
            count = max(2, int(np.hypot(*(b - a)) / (2 * scale)))
            dots.append(a + (b - a) * np.linspace(0, 1, count)[:, None])
        dots.append(at)
    cloud = np.concatenate(dots) if dots else np.zeros((0, 2))
    frame = axes.get_window_extent(renderer)
    taken: list[Bbox] = []
    for label in labels:
        point = axes.transData.transform((label.x, label.y))
        probe = axes.text(label.x, label.y, label.text, fontsize=size)
        extent = probe.get_window_extent(renderer)
        probe.remove()
        best: tuple[float, float, float, Bbox] | None = None
        for radius in (4.5, 7.0, 10.0, 14.0, 19.0, 25.0):
            for turn in range(16):
                angle = math.pi * (0.5 + turn / 8)
                dx, dy = radius * math.cos(angle), radius * math.sin(angle)
                # The text's near edge, not its middle, is what lies at this distance.
                centre = point + scale * np.array([dx, dy])
                centre[0] += 0.5 * extent.width * math.cos(angle)
                centre[1] += 0.5 * extent.height * math.sin(angle)
                box = Bbox.from_bounds(
                    centre[0] - extent.width / 2, centre[1] - extent.height / 2, extent.width, extent.height
                )
                wide = box.padded(1.2 * scale)
                inside = ((cloud >= wide.min) & (cloud <= wide.max)).all(axis=1).sum() if len(cloud) else 0
                outside = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1
                cost = radius + 6.0 * float(inside) + 400.0 * sum(wide.overlaps(t) for t in taken) + 1000.0 * outside
                if best is None or cost < best[0]:
                    best = (cost, (centre[0] - point[0]) / scale, (centre[1] - point[1]) / scale, box)
        assert best is not None
        _, dx, dy, box = best
        taken.append(box)
        far = math.hypot(dx, dy) - 0.5 * math.hypot(extent.width, extent.height) / scale > 7
        note = axes.annotate(
            label.text, (label.x, label.y), xytext=(dx, dy), textcoords="offset points", fontsize=size, color=label.color,
            ha="center", va="center", zorder=30, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.3},
            arrowprops={"arrowstyle": "-", "color": label.color, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 3} if far else None,
        )  # fmt: skip
        note.set_in_layout(False)
