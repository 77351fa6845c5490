"""Linear contrasts of several arms with units and prompts both random, and what follows from several of them together.

A unit is a training seed, or a teacher with one student of each arm. An arm's values are (units, prompts): per-prompt values, or of a
Fréchet distance its value and its first-order part by prompt (`trend.frechet_influence`). A contrast Σ_j c_j y_j is taken unit by unit and
prompt by prompt, so that what arms share cancels, and `inference.crossed` judges it like any other difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from directcm.errors import UserError
from directcm.statistics.equivalence import one_sided
from directcm.statistics.inference import Crossed, crossed


def shared_variance(values: np.ndarray) -> float:
    """The variance over prompts of the mean of values (units, n), as far as the units share it: their mean covariance over n, at least 0.

    What a prompt does in one unit alone is among the differences of units already. One unit: all of its variance. One column: 0, the
    units have no prompts in common.
    """
    units, n = values.shape
    if n == 1:
        return 0.0
    whole = float(values.mean(axis=0).var(ddof=1)) / n
    each = float(values.var(axis=1, ddof=1).mean()) / n
    return whole if units == 1 else max(0.0, (units * whole - each) / (units - 1))


@dataclass(frozen=True)
class Judged:
    """A contrast over units and prompts (`found`), with one-sided p for and against what is claimed of it; None without a spread.

    `units` and `n`: how many units, and prompts that they share (1 where they share none).
    """

    found: Crossed
    p_for: float | None
    p_against: float | None
    units: int
    n: int

    @property
    def p(self) -> float | None:
        """Two-sided: twice the smaller."""
        return None if self.p_for is None or self.p_against is None else min(1.0, 2 * min(self.p_for, self.p_against))


def _crossed(values: np.ndarray, level: float) -> Crossed:
    # Of units without prompts in common n is of no account, for there is no variance over prompts.
    return crossed(values.mean(axis=1), shared_variance(values), max(values.shape[1], 2), level)


def _sides(values: np.ndarray, level: float, sign: int) -> tuple[float, float] | None:
    """(p for, p against) of the sign of the mean of values (units, n); None where nothing estimates a spread."""
    found = _crossed(values, level)
    return None if found.p is None else one_sided(found.p, found.difference, sign)


def judge(values: np.ndarray, level: float, sign: int, margin: np.ndarray | float | None = None) -> Judged:
    """Whether the mean D of a contrast's values (units, n) has a sign (−1 or 1), or lies within ± a margin M (sign 0).

    With a sign and a margin: whether it is not on the other side by more than it, D > −M or D < M (non-inferiority). The margin is a
    number in the metric's unit, or (units, n), values of which it is a share, times that share: it is then estimated too, and judged within
    one contrast, D − M or D + M (Fieller 1954). Of equality, for: the larger p of D < M and D > −M (Schuirmann 1987); against: twice
    the smaller of those of D > M and D < −M, at most 1. The interval is of D itself.
    """
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise UserError(f"a contrast: expected finite values (units, prompts), found shape {values.shape}")
    if sign == 0 and margin is None:
        raise ValueError("equality needs a margin")
    if margin is not None and not np.mean(margin) > 0:
        raise UserError(f"a margin is above 0, found {float(np.mean(margin)):g}")
    found = _crossed(values, level)
    units, n = values.shape
    if sign:
        one = _sides(values if margin is None else values + sign * margin, level, sign)
        p_for, p_against = one or (None, None)
        return Judged(found, p_for, p_against, units, n)
    assert margin is not None
    below, above = _sides(values - margin, level, -1), _sides(values + margin, level, 1)
    if below is None or above is None:
        return Judged(found, None, None, units, n)
    return Judged(found, max(below[0], above[0]), min(1.0, 2 * min(below[1], above[1])), units, n)


def product_weights(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Least-squares weights (arms,) of the product of these centred columns (arms,) in a full factorial: a slope of one, an interaction of two.

    In a full factorial the product is orthogonal to the constant and to each column, so that Σ c_j y_j is the coefficient of the
    product in the regression of y on all of them. UserError where the arms are no full factorial, or a column does not vary.
    """
    levels = [np.unique(column) for column in columns]
    cells = {tuple(row) for row in np.column_stack(columns).tolist()}
    if any(own.size < 2 for own in levels):
        raise UserError("a slope needs two values of its axis or more")
    if len(cells) != len(columns[0]) or len(cells) != math.prod(own.size for own in levels):
        raise UserError("a slope over two axes needs every combination of their values once")
    whole = np.prod([column - own.mean() for column, own in zip(columns, levels, strict=True)], axis=0)
    return np.asarray(whole / (whole @ whole))


def adjusted_weights(covariate: np.ndarray, group: np.ndarray, degree: int = 2) -> np.ndarray:
    """Weights (arms,) whose contrast is what the second group (1) has more than the first (0) at an equal covariate.

    The coefficient of the group in the least-squares fit of y on 1, c, …, c^degree and the group (analysis of covariance): linear in y.
    UserError where the two groups' covariates do not overlap, or there are too few arms for the fit.
    """
    centred = covariate - covariate.mean()
    design = np.column_stack([*(centred**power for power in range(degree + 1)), group])
    first, second = (covariate[group == one] for one in (0, 1))
    if not first.size or not second.size or max(first.min(), second.min()) >= min(first.max(), second.max()):
        raise UserError("the two groups have no displacement in common: nothing is equal to compare at")
    if len(covariate) <= design.shape[1] or np.linalg.matrix_rank(design) < design.shape[1]:
        raise UserError(f"{len(covariate)} arms are too few to adjust for a polynomial of degree {degree}")
    return np.asarray(np.linalg.pinv(design)[-1])


def p_of_all(p: Sequence[float]) -> float:
    """The p that all of these are true: the largest (an intersection–union test; Berger 1982). It needs no correction."""
    return max(p)


def p_of_any(p: Sequence[float]) -> float:
    """The p that at least one of these is true: the smallest times their number, at most 1 (Bonferroni)."""
    return min(1.0, len(p) * min(p))
