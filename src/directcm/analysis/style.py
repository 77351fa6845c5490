"""One look for every figure: sizes, fonts, and a colour, marker and line style per method, the same everywhere.

Colours differ in hue for colour-blind readers (dark blue against orange) and in lightness for greyscale prints;
markers and dashes carry the same distinction without any colour.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from directcm.artifacts import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMN = 3.25
PAGE = 6.75
PNG_DPI = 200


@dataclass(frozen=True)
class Look:
    """How a row of the comparison is drawn."""

    color: str
    marker: str
    line: str | tuple[float, tuple[float, ...]]


LOOKS = {
    "Teacher": Look("#1a1a1a", "D", (0, (1, 1.2))),
    "CM": Look("#004c8c", "o", "-"),
    "Direct CM": Look("#d97400", "^", (0, (4, 1.6))),
}
SOFT = "#595959"


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
            rc={
                "font.family": ["DejaVu Sans"],
                "font.size": 7,
                "axes.labelsize": 7,
                "axes.titlesize": 7,
                "xtick.labelsize": 6.5,
                "ytick.labelsize": 6.5,
                "legend.fontsize": 7,
                "axes.linewidth": 0.6,
                "xtick.major.width": 0.6,
                "ytick.major.width": 0.6,
                "xtick.minor.width": 0.4,
                "ytick.minor.width": 0.4,
                "xtick.major.size": 2.5,
                "ytick.major.size": 2.5,
                "xtick.minor.size": 1.5,
                "ytick.minor.size": 1.5,
                "axes.grid": True,
                "grid.color": "#e4e4e4",
                "grid.linewidth": 0.5,
                "axes.axisbelow": True,
                "lines.linewidth": 1.2,
                "legend.frameon": False,
                "text.usetex": False,
                "pdf.fonttype": 42,
                "ps.fonttype": 42,
                "figure.dpi": PNG_DPI,
                "savefig.dpi": PNG_DPI,
            },
        )
        yield


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
