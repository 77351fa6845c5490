"""Several tests in two families, the second judged with what the first leaves of α."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# The share of α that a first family of which something is not rejected keeps to itself: 1 is Holm, which then leaves nothing.
TRUNCATION = 0.5


def truncated_holm(p: Sequence[float], share: float = 1.0) -> list[float]:
    """Adjusted p-values in the given order, by the truncated Holm procedure (Dmitrienko, Tamhane & Wiens 2008, Biometrical J. 50).

    The i-th smallest of m is compared with α (share/(m − i + 1) + (1 − share)/m), as long as all before it are rejected: Holm (1979) where
    `share` is 1, Bonferroni where it is 0. Rejecting where the adjusted p is ≤ α errs in any with probability ≤ α, however they depend.
    """
    if any(not 0 <= value <= 1 for value in p) or not 0 <= share <= 1:
        raise ValueError("p-values and the share lie in [0, 1]")
    m = len(p)
    order = np.argsort(p, kind="stable")
    factors = [share / (m - i) + (1 - share) / m for i in range(m)]
    adjusted = np.maximum.accumulate(np.asarray(p, dtype=float)[order] / factors).clip(max=1.0)
    return adjusted[np.argsort(order)].tolist()


def left_over(rejected: int, of: int, share: float = TRUNCATION) -> float:
    """The part of α that goes on to the next family: all of it where everything is rejected, else (1 − share) · rejected/of."""
    return 1.0 if rejected == of else (1 - share) * rejected / of


def gatekept(
    first: Sequence[float], second: Sequence[float], share: float = TRUNCATION
) -> tuple[list[float], list[float]]:
    """Adjusted p-values of both families, each in its order: multistage gatekeeping (Dmitrienko, Tamhane & Wiens 2008).

    The first family is tested at α by truncated Holm; the second by Holm at what `left_over` says. All together a true null is rejected
    with probability ≤ α, however the tests depend. Without a first family, the second has all of α; where nothing of the first is rejected,
    nothing of the second is.
    """
    gate = truncated_holm(first, share)
    # At α ≥ the r-th smallest of the first family's, r are rejected there, and the second is tested at α · left_over(r).
    steps = [(level, left_over(r, len(gate), share)) for r, level in enumerate([0.0, *sorted(gate)])]
    own = truncated_holm(second)
    return gate, [min(1.0, min(max(level, p / part) for level, part in steps if part > 0)) for p in own]
