"""Numbers and lists as tables print them."""

from __future__ import annotations

import math
from collections.abc import Sequence

# What a metric is measured against: in full, and where there is little room.
REFERENCE = {
    "teacher": "to teacher samples",
    "other_noise": "to teacher samples of other noise",
    "data": "to data images",
    "prompt": "with prompt",
    "none": "",
}
UNDER = {"teacher": "teacher", "other_noise": "other noise", "data": "data", "prompt": "prompt", "none": ""}


def fixed(x: float | None, decimals: int, signed: bool = False) -> str:
    """A number at fixed decimals with a true minus sign; no negative zero."""
    if x is None or math.isnan(x):
        return "–"
    text = f"{x:{'+' if signed else ''}.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def shown_p(x: float | None) -> str:
    """A p-value at three decimals: 0.012, < 0.001."""
    if x is None or math.isnan(x):
        return "–"
    return "< 0.001" if x < 0.001 else f"{x:.3f}"


def defined(x: float) -> float | None:
    """The number, None for NaN."""
    return None if math.isnan(x) else x


def listed(names: Sequence[str]) -> str:
    """ "a, b and c"."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
