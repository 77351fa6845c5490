"""Two one-sided tests: is a difference smaller than a margin (Schuirmann 1987)?"""

from __future__ import annotations

from directcm.statistics.inference import cautious_p


def one_sided(p: float, difference: float, sign: int) -> tuple[float, float]:
    """(p for, p against) a difference of this sign, from a two-sided p and the difference that was found."""
    if difference * sign > 0:
        return p / 2, 1 - p / 2
    if difference * sign < 0:
        return 1 - p / 2, p / 2
    return max(0.5, p / 2), max(0.5, p / 2)


def equivalent(
    difference: float, margin: float, se_seeds: float | None, se_prompts: float | None, seeds: int, n: int
) -> tuple[float, float] | None:
    """(p for, p against) |D| < margin of a crossed difference (`inference.crossed`); None where nothing estimates a spread.

    For: the larger p of the two one-sided tests of D > −margin and D < margin, so that an interval at 1 − 2p lies within the margin. Against:
    twice the smaller p of D > margin and D < −margin, at most 1. Each is half of `cautious_p`, or what is left of 1.
    """
    if not margin > 0:
        raise ValueError(f"a margin is above 0, found {margin:g}")
    if not se_seeds and not se_prompts:
        return None
    inside, outside = [], []
    for bound, sign in ((-margin, 1), (margin, -1)):
        shifted = difference - bound
        p = cautious_p(shifted, se_seeds, se_prompts, seeds, n)
        if p is None:
            return None
        within, beyond = one_sided(p, shifted, sign)
        inside.append(within)
        outside.append(beyond)
    return max(inside), min(1.0, 2 * min(outside))
