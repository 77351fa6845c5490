"""One look for every figure: sizes, fonts, and a colour, marker and line style per method, the same everywhere.

Colours differ in hue for colour-blind readers (dark blue against orange) and in lightness for greyscale prints;
markers and dashes carry the same distinction without any colour.
"""

from __future__ import annotations

import functools
import io
import itertools
import math
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import seaborn
from matplotlib.colors import to_rgb
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogFormatterSciNotation,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)
from matplotlib.transforms import Bbox
from PIL.Image import Resampling

from directcm.analysis.data import tidy
from directcm.config.specs import METHODS
from directcm.runtime.artifacts import write_bytes

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from PIL.Image import Image

# What matplotlib's settings say: fonts, ticks, grid, 200 dots an inch.
SETTINGS = Path(__file__).with_suffix(".mplstyle")
COLUMN = 3.25
PAGE = 6.75
PRINT_DPI = 300
ANY = (-math.inf, math.inf)


@dataclass(frozen=True)
class Look:
    """How one model is drawn."""

    color: str
    marker: str | tuple[int, Literal[0, 1, 2], int]
    line: str | tuple[float, tuple[float, ...]]


DOTTED = (0, (1, 1))
LOOKS = {
    "Teacher": Look("#1a1a1a", "D", (0, (1, 1.2))),
    "Teacher, other noise": Look("#b0b0b0", "d", (0, (3, 1, 1, 1))),
    "CM": Look("#004c8c", "o", "-"),
    "Direct CM": Look("#d97400", "^", (0, (4, 1.6))),
}
# The other methods' in the order of their files: Okabe and Ito's colours that are left, a marker and a dash of their own each.
_COLORS = (
    "#009e73", "#cc79a7", "#56b4e9", "#8c564b", "#b8a800", "#7f3fbf", "#e0524c", "#4d6b53", "#9a6a00", "#3c3cff", "#00606e",
    "#a0004c", "#7fbf3f", "#b07aa1", "#5f5f9f", "#ff9da7", "#2f8f8f", "#c05a00", "#86bcb6", "#6b8e23", "#d37295",
)  # fmt: skip
_DASHES = [
    (0, (length, gap)) for length, gap in itertools.product((6.0, 2.5, 0.8, 9.0, 4.2), (1.2, 2.2, 3.4, 4.8, 6.0))
]
# Not "<", which marks what leaves its axis. (corners, 1, degrees) are stars.
_MARKERS = (
    *"svPX>hp*8H", (4, 1, 0), (4, 1, 45), (6, 1, 0), (3, 1, 0), (3, 1, 180), (8, 1, 0), (7, 0, 0), (5, 0, 180), (5, 1, 180), (6, 0, 15),
    (7, 1, 0),
)  # fmt: skip
for _label, *_parts in zip(
    [label for label in METHODS.values() if label not in LOOKS],
    *map(itertools.cycle, (_COLORS, _MARKERS, _DASHES)),
    strict=False,
):
    LOOKS[_label] = Look(*_parts)
INK = "#1a1a1a"
SOFT = "#595959"
SMALL = 5.8
PAPER = (0, (1, 2.5))


def luminance(color: str | Sequence[float]) -> float:
    """CIE lightness L* (0 to 100) of a colour that matplotlib knows: what is left of it in greyscale."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]  # type: ignore[arg-type]
    y = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib without a display, in this project's style, whatever the user's matplotlibrc says. Also a decorator."""
    matplotlib.use("Agg")
    with warnings.catch_warnings(), matplotlib.rc_context():
        # A caption may hold characters that no bundled font has; the box drawn instead says so.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        matplotlib.rcdefaults()
        settings = matplotlib.rc_params_from_file(SETTINGS, use_default_template=False)
        seaborn.set_theme(context="paper", style="ticks", rc=settings)
        yield


def save(figure: Figure, pdf: str | Path, png: str | Path) -> None:
    """Write a figure as PDF and PNG, atomically and without dates: equal figures are equal bytes. Closes it."""
    undated = {
        pdf: ("pdf", dict.fromkeys(("CreationDate", "ModDate", "Creator", "Producer"))),
        png: ("png", {"Software": None}),
    }
    for path, (kind, metadata) in undated.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata)
        write_bytes(path, buffer.getvalue())
    plt.close(figure)


def at_print_size(image: Image, inches: float) -> np.ndarray:
    """An RGB image's pixels (h, w, 3), uint8, at print resolution: small ones enlarged pixel by pixel, large ones averaged down."""
    target = max(1, round(inches * PRINT_DPI))
    if max(image.size) > target:
        image = image.copy()
        image.thumbnail((target, target), Resampling.BOX)
    pixels = np.asarray(image)
    factor = math.ceil(target / max(image.size))
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


# ----------------------------------------------------------------- series over seeds


def series(
    axes: Axes,
    group: Sequence[tidy.Point],
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
    if not group:
        return
    x, mean, sd = np.array([(p.x, p.mean, p.sd) for p in group]).T
    base = 4 + 3 * order
    if band and np.isfinite(sd).any():
        spread = np.nan_to_num(sd)
        axes.fill_between(x, mean - spread, mean + spread, color=look.color, alpha=0.16, linewidth=0, zorder=2)
    seeds = sorted({seed for p in group for seed in p.values})
    for seed in seeds if thin and len(seeds) > 1 else ():
        each = [p.values.get(seed, math.nan) for p in group]
        axes.plot(x, each, color=look.color, linewidth=0.35, alpha=0.45, zorder=3)
    # White under the line keeps it apart from the other method's.
    axes.plot(x, mean, color="white", linewidth=2.2, zorder=base)
    axes.plot(x, mean, color=look.color, linestyle=look.line, linewidth=1.2, zorder=base + 1)
    full = [not hollow] * len(group) if filled is None else filled
    axes.scatter(
        x, mean, s=15, marker=look.marker, facecolors=[look.color if f else "white" for f in full],
        edgecolors=look.color, linewidths=0.9, zorder=base + 2,
    )  # fmt: skip


# A bar that goes on to 0 or less: its panel, its place across, its colour.
Gone = tuple[Any, float, str]


def crowded(
    axes: Axes,
    group: Sequence[tidy.Point],
    look: Look,
    *,
    over: bool,
    order: int,
    place: int = 0,
    count: int = 1,
    possible: tuple[float, float] = ANY,
) -> list[Gone]:
    """Draw means over seeds and bars of ± one sd of one of many methods, so that no method lies hidden under another.

    A method that is built `over` another has a thin line and open marks, so that its base's thicker ones show under it. Marks
    stand at `place` of `count` places around their x, which is on a logarithmic axis. Bars end where values are not `possible`.
    Returns the bars that reach 0 or less, which a logarithmic axis cannot show: see `leaving`.
    """
    if not group:
        return []
    steps = sorted({p.x for p in group})
    gap = min((math.log(b / a) for a, b in itertools.pairwise(steps)), default=0.0)
    shift = math.exp(gap * min(0.42, 0.06 * (count - 1)) * (place / (count - 1) - 0.5)) if count > 1 else 1.0
    x, mean = [p.x * shift for p in group], [p.mean for p in group]
    width, base = (0.8, 40 + order) if over else (1.9, 4 + order)
    axes.plot(x, mean, color=look.color, linestyle=look.line, linewidth=width, alpha=1.0 if over else 0.8, zorder=base)
    gone: list[Gone] = []
    for at, p in zip(x, group, strict=True):
        if math.isfinite(p.sd):
            ends = [max(p.mean - p.sd, possible[0]), min(p.mean + p.sd, possible[1])]
            axes.plot([at, at], ends, color=look.color, linewidth=0.7, alpha=0.8, zorder=base, solid_capstyle="butt")
            gone += [(axes, at, look.color)] if ends[0] <= 0 else []
    axes.scatter(
        x, mean, s=9 if over else 13, marker=look.marker, facecolors="white" if over else look.color,
        edgecolors=look.color, linewidths=0.8, zorder=base + 20,
    )  # fmt: skip
    return gone


def leaving(bars: Iterable[Gone], *, horizontal: bool = False) -> None:
    """An arrow head at the edge of a logarithmic axis for every bar that goes on to 0 or less.

    To be called when the axes have their scales; on any other one the bar's end is there to be seen, and nothing is drawn.
    """
    for axes, place, color in bars:
        if (axes.xaxis if horizontal else axes.yaxis).get_scale() != "log":
            continue
        x, y, marker, transform = (
            (0.0, place, "<", axes.get_yaxis_transform())
            if horizontal
            else (place, 0.0, "v", axes.get_xaxis_transform())
        )
        axes.plot(
            [x], [y], marker=marker, markersize=4.4, color=color, markeredgewidth=0, clip_on=False, zorder=80, transform=transform
        )  # fmt: skip


# ----------------------------------------------------------------- the legend


def handle(look: Look, label: str, *, hollow: bool = False, marker: bool = True, linewidth: float = 1.2) -> Artist:
    """A legend's entry for a look."""
    line: Any = look.line
    return Line2D(
        [], [], color=look.color, linestyle=line, linewidth=linewidth, marker=look.marker if marker else "",
        markersize=3.9, markerfacecolor="white" if hollow else look.color, markeredgewidth=0.9, label=label,
    )  # fmt: skip


def method_handle(name: str, label: str, among: Collection[str] | None = None) -> Artist:
    """A method's entry. `among`: the methods of a figure of many, where it is thin and open if it is built over another of these."""
    if among is None:
        return handle(LOOKS[name], label)
    over = tidy.base(name) in among
    return handle(LOOKS[name], label, hollow=over, linewidth=0.8 if over else 1.9)


def mark_handle(label: str, marker: str = "o", **line: Any) -> Artist:
    """An entry for what a mark means: open and grey, unless `line`, in Line2D's words, says otherwise."""
    look: dict[str, Any] = {
        "linestyle": "", "markersize": 3.9, "markerfacecolor": "white", "markeredgecolor": SOFT, "markeredgewidth": 0.9,
    }  # fmt: skip
    return Line2D([], [], marker=marker, label=label, **(look | line))


@functools.cache
def inches(text: str, size: float, ismath: bool = False) -> float:
    """How wide a text is at a size in points."""
    font = FontProperties(family="DejaVu Sans", size=size)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=ismath)[0] / 72)


def legend(figure: Figure, entries: Sequence[Artist], size: float = 6.5, handlelength: float = 2.8) -> None:
    """A legend above all panels, in as few rows as the width holds; fixes the layout, so that extents can be asked.

    Panels lose their upper and right frame.
    """
    labels = [str(entry.get_label()) for entry in entries]
    widths = [inches(label, size, "$" in label) + size * (handlelength + 1.6) / 72 for label in labels]

    def breadth(columns: int) -> float:
        # Matplotlib fills a legend column by column, the first ones fullest; a column is as wide as its widest entry.
        return sum(max(part) for part in np.array_split(widths, columns))

    columns = next((c for c in range(len(entries), 1, -1) if breadth(c) <= figure.get_figwidth() - 0.05), 1)
    rows = -(-len(entries) // columns)
    figure.set_figheight(figure.get_figheight() + (rows - 1) * 1.4 * size / 72)
    figure.legend(
        handles=list(entries), loc="outside upper center", ncols=columns, handlelength=handlelength, columnspacing=1.1,
        handletextpad=0.5, fontsize=size, labelspacing=0.35, borderpad=0.1,
    )  # fmt: skip
    figure.draw_without_rendering()
    seaborn.despine(figure)


# ----------------------------------------------------------------- reference lines


@dataclass(frozen=True)
class Reference:
    """A value that data are read against: one height, or one per x. `name` is written where it lies outside."""

    name: str
    look: Look
    y: tuple[float, ...]
    x: tuple[float, ...] = ()
    decimals: int | None = None


def constants(values: Mapping[str, float], decimals: int) -> list[Reference]:
    """Reference lines at one height each: the teacher, its floor, and the paper's values ("paper, CM") as it prints them."""
    out = []
    for name, y in values.items():
        row = name.removeprefix("paper, ")
        line, digits = (LOOKS[row].line, decimals) if row == name else (PAPER, None)
        look = Look(LOOKS[row].color, "", line)
        out.append(Reference(name.removeprefix("Teacher, "), look, (y,), decimals=digits))
    return out


def reference_handles(names: Collection[str], *, marker: bool = False) -> list[Artist]:
    """Legend entries of reference lines, by their full names, in the order of LOOKS."""
    papers = {f"paper, {name}": Look(look.color, "", PAPER) for name, look in LOOKS.items()}
    entries = (
        handle(look, name, marker=marker, linewidth=0.9) for name, look in (LOOKS | papers).items() if name in names
    )
    return list(entries)


def references(panels: Sequence[Axes], lines: Sequence[Reference]) -> None:
    """Draw reference lines in panels that share their y axis; one far outside the data is written at the edge instead.

    To be called when the data are drawn: their range decides what is far (further off than they are spread).
    What is far is written in the first panel only, with its value.
    """
    axes = panels[0]
    scale = axes.yaxis.get_transform()

    def warp(y: float) -> float:
        """Where a value lies along the axis."""
        return float(scale.transform([y])[0])

    def back(at: float) -> float:
        return float(scale.inverted().transform([at])[0])

    low, high = map(warp, axes.get_ylim())
    log = axes.get_yscale() == "log"
    span = high - low
    below: list[str] = []
    above: list[str] = []
    least, most = low, high
    for line in lines:
        heights = [warp(y) for y in line.y if math.isfinite(y) and (y > 0 or not log)]
        if not heights:
            continue
        if max(heights) < low - 0.7 * span or min(heights) > high + 0.7 * span:
            ends = (min(line.y), max(line.y))
            values = sorted({f"{y:g}" if line.decimals is None else f"{y:.{line.decimals}f}" for y in ends}, key=float)
            (below if max(heights) < low else above).append(f"{line.name} {' to '.join(values).replace('-', '−')}")
            continue
        least, most = min(least, min(heights) - 0.06 * span), max(most, max(heights) + 0.06 * span)
        look: dict[str, Any] = {"color": line.look.color, "linestyle": line.look.line, "linewidth": 0.9, "zorder": 2.5}
        for panel in panels:
            if line.x:
                panel.plot(line.x, line.y, marker=line.look.marker, markersize=3.2, **look)
            else:
                panel.axhline(line.y[0], **look)
    height = axes.get_window_extent().height * 72 / axes.figure.dpi
    # Each note is a line of its own, outside the data's range: so many points of the height, by which the range grows.
    taken = 9.5 * (len(below) + len(above))
    step = (most - least) * 9.5 / max(height - taken, height / 4)
    notes = [(least - step * (i + 1), f"↓ {text}") for i, text in enumerate(below)]
    notes += [(most + step * i, f"↑ {text}") for i, text in enumerate(above)]
    for at, text in notes:
        axes.annotate(
            text, (0.02, back(at)), xycoords=axes.get_yaxis_transform(), xytext=(0, 1.5), textcoords="offset points",
            fontsize=SMALL, color=SOFT, ha="left", va="bottom", zorder=20,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4},
        )  # fmt: skip
    axes.set_ylim(back(least - step * len(below)), back(most + step * len(above)))


# ----------------------------------------------------------------- scales and ticks


def _set(axis: Axis, what: str, *values: Any, **more: Any) -> None:
    """Set the "scale" or the "lim" of an axis, which is its axes' to set."""
    getattr(axis.axes, f"set_{axis.axis_name}{what}")(*values, **more)  # type: ignore[attr-defined]


def log_axis(axis: Axis, values: Iterable[float], *, coarse: bool = False) -> None:
    """A logarithmic axis for such values, with labels at 1, 2, 5, or 1, 3, or 1 in each decade, by how many decades there are.

    `coarse`: from one decade on at the powers of ten alone, for a panel that holds few labels.
    """
    drawn = [v for v in values if math.isfinite(v) and v > 0]
    _set(axis, "scale", "log")
    decades = math.log10(max(drawn) / min(drawn)) if drawn else 0.0
    subs = (1, 2, 5) if decades < 0.8 else (1, 3) if decades < (1 if coarse else 1.6) else (1,)
    axis.set_major_locator(LogLocator(subs=subs))
    # Every one of these ticks, where the default labels the powers of ten alone.
    axis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(math.inf, math.inf)))
    axis.set_minor_formatter(NullFormatter())


def symlog_axis(axis: Axis, linear: float, largest: float, nbins: int = 5) -> None:
    """A logarithmic axis that is linear from −`linear` to `linear`, a power of ten: ticks at 0, ± it, and powers of ten."""
    _set(axis, "scale", "symlog", linthresh=linear, linscale=1.0)
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


def spread_axis(axis: Axis, values: Iterable[float], nbins: int = 5, possible: tuple[float, float] = ANY) -> None:
    """Scale and ticks of an axis of measured values: logarithmic where they are positive and the largest is 20 times the least.

    Where some are not (an unbiased estimate of a distance near 0) but the largest is decades beyond those, logarithmic with a
    linear part around 0. To be called when all is drawn: the axis ends where values are not `possible`, though a band of
    ± sd goes on.
    """
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
        _set(axis, "lim", *limits)


def values_axis(axes: Axes, values: Iterable[float], *, log: bool = False) -> None:
    """Ticks of the x axis at the values themselves, spelled plainly; a crowded one keeps every other."""
    if log:
        axes.set_xscale("log")
    ticks = sorted(set(values))
    warp = math.log10 if log else float
    width = warp(ticks[-1]) - warp(ticks[0]) or 1.0
    inches = axes.get_window_extent().width / axes.figure.dpi
    kept: list[float] = []
    for tick in reversed(ticks):
        room = 0.062 * (len(f"{tick:g}") + 1)
        if not kept or (warp(kept[-1]) - warp(tick)) / width * inches * 0.85 > room:
            kept.append(tick)
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
    figure: Any = axes.figure
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    scale = figure.dpi / 72
    dots = [np.zeros((0, 2))]
    for line in avoid:
        at = axes.transData.transform(np.array(line, dtype=float).reshape(-1, 2))
        at = at[np.isfinite(at).all(axis=1)]
        for a, b in itertools.pairwise(at):
            count = max(2, int(np.hypot(*(b - a)) / (2 * scale)))
            dots.append(a + (b - a) * np.linspace(0, 1, count)[:, None])
        dots.append(at)
    cloud, frame = np.concatenate(dots), axes.get_window_extent(renderer)
    taken: list[Bbox] = []
    for label in labels:
        point = np.array(axes.transData.transform((label.x, label.y)))
        probe = axes.text(label.x, label.y, label.text, fontsize=size)
        extent = np.array(probe.get_window_extent(renderer).size)
        probe.remove()
        taken.append(_free(point, extent, scale, cloud, frame, taken))
        offset = (taken[-1].corners().mean(axis=0) - point) / scale
        far = np.hypot(*offset) - 0.5 * np.hypot(*extent) / scale > 7
        note = axes.annotate(
            label.text, (label.x, label.y), xytext=tuple(offset), textcoords="offset points", fontsize=size, color=label.color,
            ha="center", va="center", zorder=30, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.3},
            arrowprops={"arrowstyle": "-", "color": label.color, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 3} if far else None,
        )  # fmt: skip
        note.set_in_layout(False)


def _free(
    point: np.ndarray, extent: np.ndarray, scale: float, cloud: np.ndarray, frame: Bbox, taken: list[Bbox]
) -> Bbox:
    """Where a text of such an extent costs least: near its point, off the cloud (n, 2), inside the frame, off what is taken (pixels)."""

    def box(radius: float, angle: float) -> Bbox:
        # The text's near edge, not its middle, is what lies at this distance.
        centre = point + (scale * radius + 0.5 * extent) * (math.cos(angle), math.sin(angle))
        return Bbox.from_bounds(*(centre - extent / 2), *extent)

    def cost(spot: tuple[float, float]) -> float:
        own = box(*spot)
        wide = own.padded(1.2 * scale)
        inside = ((cloud >= wide.min) & (cloud <= wide.max)).all(axis=1).sum()
        outside = own.x0 < frame.x0 or own.x1 > frame.x1 or own.y0 < frame.y0 or own.y1 > frame.y1
        return spot[0] + 6.0 * float(inside) + 400.0 * sum(wide.overlaps(t) for t in taken) + 1000.0 * outside

    spots = itertools.product((4.5, 7.0, 10.0, 14.0, 19.0, 25.0), (math.pi * (0.5 + turn / 8) for turn in range(16)))
    return box(*min(spots, key=cost))
