"""Contrasts over units and prompts, against cases by hand and other ways to the same number."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from directcm.errors import UserError
from directcm.runtime.rng import generator
from directcm.statistics.error_parts import influences, parts
from directcm.statistics.frechet import frechet_distance
from directcm.statistics.hypotheses import (
    adjusted_weights,
    judge,
    p_of_all,
    p_of_any,
    product_weights,
    shared_variance,
)
from directcm.statistics.inference import crossed, paired_bootstrap
from directcm.statistics.trend import frechet_influence, slope_weights


def values(mean: float, units: int = 5, n: int = 60, unit: float = 0.1, own: float = 0.3, seed: int = 0) -> np.ndarray:
    """(units, n) with spreads of their own over units, prompts and both."""
    g = generator(seed, "hypotheses")
    return mean + unit * g.normal(size=(units, 1)) + own * g.normal(size=(1, n)) + 0.2 * g.normal(size=(units, n))


def test_a_contrast_is_judged_as_every_other_difference() -> None:
    a, b = values(1.0), values(0.7, seed=1)
    found = judge(a - b, 0.95, 1)
    boot = paired_bootstrap(a, b, 50, 0)
    assert shared_variance(a - b) == pytest.approx(boot.shared)
    assert found.found == crossed((a - b).mean(axis=1), shared_variance(a - b), 60, 0.95)
    assert found.p == pytest.approx(found.found.p) and found.p_for == pytest.approx(found.found.p / 2)
    assert judge(a - b, 0.95, -1).p_for == pytest.approx(1 - found.p_for)
    assert judge(b - a, 0.95, 1).p_against == pytest.approx(found.p_for)
    # One unit: prompts alone; one column: units alone, by Student's t.
    assert shared_variance(a[:1]) == pytest.approx(a[0].var(ddof=1) / 60)
    alone = judge(a.mean(axis=1, keepdims=True), 0.95, 1)
    t = stats.ttest_1samp(a.mean(axis=1), 0)
    assert alone.p == pytest.approx(t.pvalue) and (alone.found.low, alone.found.high) == pytest.approx(
        tuple(t.confidence_interval(0.95))
    )
    assert (alone.n, alone.units) == (1, 5)


def test_margins() -> None:
    d = values(0.02, unit=0.01, own=0.02)
    for margin in (0.05, 0.5):
        found = judge(d, 0.95, 0, margin)
        below, above = judge(d - margin, 0.95, -1), judge(d + margin, 0.95, 1)
        assert found.p_for == max(below.p_for, above.p_for) and found.found.difference == pytest.approx(d.mean())
        assert judge(d, 0.95, 1, margin).p_for == above.p_for and judge(d, 0.95, -1, margin).p_for == below.p_for
    assert judge(d, 0.95, 0, 0.5).p_for < 1e-4
    far = judge(d + 3, 0.95, 0, 0.5)
    assert far.p_for > 0.5 > 1e-4 > far.p_against
    # A margin that is a share of another arm is estimated with it: D < s·R is one contrast.
    other = values(2.0, unit=0.3, seed=2)
    shared = judge(d, 0.95, 0, 0.1 * other)
    assert shared.p_for == max(judge(d - 0.1 * other, 0.95, -1).p_for, judge(d + 0.1 * other, 0.95, 1).p_for)
    assert shared.p_for != judge(d, 0.95, 0, 0.1 * other.mean()).p_for
    for wrong in (0.0, -1.0, -0.1 * other):
        with pytest.raises(UserError, match="above 0"):
            judge(d, 0.95, 0, wrong)


def test_without_a_spread_there_is_no_p(one_line: Any) -> None:
    assert judge(np.full((3, 1), 0.4), 0.95, 1).p is None
    assert judge(np.full((3, 1), 0.4), 0.95, 0, 1.0).p is None
    for wrong in (np.zeros(3), np.zeros((0, 4)), np.array([[math.nan, 1.0]])):
        with pytest.raises(UserError) as error:
            judge(wrong, 0.95, 1)
        one_line(error)


def test_weights_of_slopes_and_interactions_are_those_of_least_squares() -> None:
    k, step = (np.log2(x) for x in ([1, 2, 5, 10, 25, 50], [250, 500, 1000]))
    cells = np.array([*itertools.product(k, step)])
    g = generator(0, "slopes")
    y = g.normal(size=len(cells))
    x, z = cells.T
    design = np.column_stack([np.ones_like(x), x, z, (x - k.mean()) * (z - step.mean())])
    fitted = np.linalg.lstsq(design, y, rcond=None)[0]
    assert product_weights([x, z]) @ y == pytest.approx(fitted[3])
    # By hand: 2 × 2 cells, the difference of two differences.
    two = np.array([*itertools.product([0.0, 1.0], [0.0, 1.0])])
    assert product_weights([two[:, 0], two[:, 1]]) == pytest.approx([1, -1, -1, 1])
    assert product_weights([k]) == pytest.approx(slope_weights(list(k)))
    # One cell lacking, one twice, and an axis of one value.
    for wrong in ([x[1:], z[1:]], [np.append(x, x[0]), np.append(z, z[0])], [np.ones(3)]):
        with pytest.raises(UserError):
            product_weights(wrong)


def test_what_a_group_has_more_at_an_equal_covariate() -> None:
    g = generator(0, "adjusted")
    c, group = g.uniform(-1, 2, 18), np.arange(18) % 2.0
    weights = adjusted_weights(c, group)
    # A parabola and a constant gap: the gap comes out, whatever the parabola.
    assert weights @ (3 - 2 * c + 0.7 * c**2 + 0.4 * group) == pytest.approx(0.4)
    y = g.normal(size=18)
    design = np.column_stack([np.ones(18), c, c**2, group])
    assert weights @ y == pytest.approx(np.linalg.lstsq(design, y, rcond=None)[0][3])
    # The raw difference of means is another number: one group travels farther.
    far = np.where(group > 0, c + 2, c)
    assert adjusted_weights(far, group) @ far**2 == pytest.approx(0, abs=1e-9)
    with pytest.raises(UserError, match="in common"):
        adjusted_weights(np.where(group > 0, 5 + c, c), group)
    with pytest.raises(UserError, match="too few"):
        adjusted_weights(np.array([0.0, 1.0, 0.5, 0.7]), np.array([0.0, 0, 1, 1]))


def test_several_tests_together() -> None:
    assert p_of_all([0.01, 0.04, 0.02]) == 0.04
    assert p_of_any([0.01, 0.04, 0.02]) == pytest.approx(0.03) and p_of_any([0.6, 0.7]) == 1


def test_rules_keep_their_level() -> None:
    """Under the null of all tests a rule of any is true with probability α at most, and one of all too."""
    g = generator(1, "level")
    p = g.uniform(size=(20000, 3))
    assert np.mean([p_of_any(row) <= 0.05 for row in p]) <= 0.053
    assert np.mean([p_of_all(row) <= 0.05 for row in p]) <= 0.05


def test_parts_of_the_error_by_row_are_those_of_the_jackknife() -> None:
    g = generator(0, "parts")
    y, groups = g.normal(size=(150, 2, 3)), g.integers(0, 4, 150)
    f = 0.3 + 0.7 * y + 0.5 * g.normal(size=y.shape) + 0.2 * groups[:, None, None]
    found = influences(f, y, groups)
    assert set(found) == {"bias", "gain", "scatter", "correlation", "variance_ratio"}
    for name, own in found.items():
        left = np.array([getattr(parts(*(np.delete(x, i, 0) for x in (f, y, groups))), name) for i in range(150)])
        pseudo = -149 * (left - left.mean())
        assert np.corrcoef(pseudo, own)[0, 1] > 0.999 and own.mean() == pytest.approx(0, abs=1e-12)
        assert pseudo.std() == pytest.approx(own.std(), rel=0.04)
    still = influences(np.ones_like(y), y, groups)
    assert not any(still[name].any() for name in ("gain", "scatter", "correlation", "variance_ratio"))


def test_a_distances_terms_by_row_add_up() -> None:
    g = generator(0, "terms")
    reference = g.normal(size=(120, 3))
    rows = 1.2 * reference + 0.3 + 0.4 * g.normal(size=(120, 3))
    mean, covariance = (frechet_influence(rows, reference, part) for part in ("mean", "covariance"))
    assert mean + covariance == pytest.approx(frechet_influence(rows, reference), abs=1e-12)
    whole = [frechet_distance(np.delete(rows, i, 0), np.delete(reference, i, 0)) for i in range(120)]
    for own, name in ((mean, "mean"), (covariance, "covariance")):
        left = np.array([getattr(one, name) for one in whole])
        assert np.corrcoef(-119 * (left - left.mean()), own)[0, 1] > 0.995
