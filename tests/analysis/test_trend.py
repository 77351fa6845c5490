"""Contrasts, equivalence and families of tests: against least squares, cases worked by hand, and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from directcm.errors import UserError
from directcm.statistics.equivalence import equivalent, one_sided
from directcm.statistics.families import gatekept, left_over, truncated_holm
from directcm.statistics.frechet import frechet_distance
from directcm.statistics.inference import crossed, frechet_difference_test, holm
from directcm.statistics.trend import frechet_influence, mean_weights, slope_weights

# ----------------------------------------------------------------- contrasts


def test_a_slope_by_hand():
    """x = 0, 1, 2, 3: x̄ = 1.5, Σ(x − x̄)² = 5; y = 1, 3, 2, 6 has slope (−1.5 − 1.5 + 1 + 9)/5 = 1.4."""
    assert slope_weights([0, 1, 2, 3]) == pytest.approx([-0.3, -0.1, 0.1, 0.3])
    assert slope_weights([0, 1, 2, 3]) @ [1, 3, 2, 6] == pytest.approx(1.4)
    # Two values, coded 0 and 1: their difference.
    assert slope_weights([0, 1]).tolist() == [-1, 1]
    assert mean_weights(4) @ [1, 3, 2, 6] == pytest.approx(3)


def test_slopes_are_those_of_scipy_and_numpy():
    g = np.random.default_rng(0)
    x, y = np.log2([10, 20, 50, 100]), g.normal(size=(5, 4))
    own = y @ slope_weights(x)
    assert own == pytest.approx([stats.linregress(x, row).slope for row in y], rel=1e-12)
    assert own == pytest.approx(np.polyfit(x, y.T, 1)[0], rel=1e-9)


@pytest.mark.parametrize("x", [[1.0], [2.0, 2.0], [1.0, math.nan]])
def test_a_slope_needs_two_values(x, one_line):
    with pytest.raises(UserError, match="two finite values") as error:
        slope_weights(x)
    one_line(error)


def test_a_known_slope_is_found_with_its_interval():
    """Gaps of 1 + 0.5 log₂ N with seeds' noise: slopes per seed, then a plain t-test over them; 95 % of intervals hold the slope."""
    g = np.random.default_rng(3)
    x = np.log2([10, 20, 50, 100])
    held = []
    for _ in range(400):
        gaps = 1 + 0.5 * x + 0.05 * g.normal(size=(5, 4))
        # No noise over prompts.
        found = crossed(gaps @ slope_weights(x), 0.0, 2, 0.95)
        held.append(found.low < 0.5 < found.high)
        reference = stats.ttest_1samp([np.polyfit(x, row, 1)[0] for row in gaps], 0.48)
        p = 2 * stats.t.sf(abs(found.difference - 0.48) / found.se_seeds, found.df)
        assert (p, found.df) == (pytest.approx(reference.pvalue, rel=1e-6), pytest.approx(4))
    assert 0.92 < np.mean(held) < 0.98


# ----------------------------------------------------------------- a prompt's part of a Fréchet distance


def weighted(rows: np.ndarray, reference: np.ndarray, weights: np.ndarray) -> float:
    """FD of two weighted samples, by scipy's matrix root."""
    from scipy.linalg import sqrtm

    means, covariances = [], []
    for x in (rows, reference):
        mean = weights @ x
        means.append(mean)
        covariances.append(np.einsum("n,ni,nj->ij", weights, x - mean, x - mean))
    root = sqrtm(covariances[0] @ covariances[1]).real
    return float(((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root))


def correlated(g: np.random.Generator, n: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    common = g.normal(size=(n, dim))
    mix = np.diag(np.linspace(0.5, 2, dim)) + 0.2
    return common @ mix + 0.3 * g.normal(size=(n, dim)) + 0.4, common + 0.5 * g.normal(size=(n, dim))


def test_influence_is_the_derivative_in_a_prompt_s_weight():
    g = np.random.default_rng(1)
    rows, reference = correlated(g, 60, 4)
    own = frechet_influence(rows, reference)
    n, step = len(rows), 1e-5
    base = np.full(n, 1 / n)
    found = np.array([(weighted(rows, reference, (1 - step) * base + step * np.eye(n)[i]) - weighted(rows, reference, (1 + step) * base - step * np.eye(n)[i])) / (2 * step) for i in range(n)])  # fmt: skip
    # The derivative is of covariances over n; ours are over n − 1.
    assert own == pytest.approx(found * n / (n - 1), abs=0.03 * np.abs(found).max())
    assert np.corrcoef(own, found)[0, 1] > 0.9999
    assert abs(own.mean()) < 1e-12


def test_the_variance_over_prompts_is_that_of_new_prompts():
    g = np.random.default_rng(2)
    distances, variances = [], []
    for _ in range(400):
        rows, reference = correlated(g, 300, 4)
        distances.append(frechet_distance(rows, reference).value)
        variances.append(frechet_influence(rows, reference).var(ddof=1) / 300)
    assert np.mean(variances) == pytest.approx(np.var(distances, ddof=1), rel=0.15)


def test_a_difference_s_variance_is_the_jackknife_s_within_its_error():
    """Far from the null, where both are right."""
    g = np.random.default_rng(4)
    rows, reference = correlated(g, 400, 6)
    other = rows * 1.4 + 0.5 + 0.3 * g.normal(size=rows.shape)
    own = frechet_influence(other, reference) - frechet_influence(rows, reference)
    test = frechet_difference_test(other[None], rows[None], reference, 99, 0, refine=1)
    assert own.var(ddof=1) / 400 == pytest.approx(test.variance, rel=0.35)


def test_influence_where_rows_are_fewer_than_features(one_line):
    g = np.random.default_rng(5)
    rows, reference = correlated(g, 12, 30)
    assert np.isfinite(frechet_influence(rows, reference)).all()
    # One distribution twice: nothing to first order.
    assert frechet_influence(rows, rows) == pytest.approx(np.zeros(12), abs=1e-6)
    with pytest.raises(UserError, match="paired rows") as error:
        frechet_influence(rows, reference[:5])
    one_line(error)


# ----------------------------------------------------------------- equivalence


def test_two_one_sided_tests_by_hand():
    """Five seeds, D = 0.1, se = 0.05, margin 0.25: t₄ = 3 at the near bound and 7 at the far one."""
    se = 0.05
    p_for, p_against = equivalent(0.1, 0.25, se, None, 5, 100)
    assert p_for == pytest.approx(stats.t.sf(3, 4), rel=1e-9)
    # D > 0.25 has p = P(t₄ > −3); twice that is 1.
    assert p_against == 1
    assert equivalent(-0.1, 0.25, se, None, 5, 100) == pytest.approx((p_for, 1))
    # Outside by 3 standard errors: the other way round.
    p_for, p_against = equivalent(0.4, 0.25, se, None, 5, 100)
    assert (p_for, p_against) == pytest.approx((stats.t.cdf(3, 4), 2 * stats.t.sf(3, 4)))
    # On the bound it is a coin.
    assert equivalent(0.25, 0.25, se, None, 5, 100)[0] == pytest.approx(0.5)


def test_two_one_sided_tests_are_scipy_s():
    g = np.random.default_rng(6)
    d = g.normal(0.02, 0.1, 8)
    found = crossed(d, None, 50, 0.95)
    sides = [stats.ttest_1samp(d, b, alternative=a).pvalue for b, a in ((-0.15, "greater"), (0.15, "less"))]
    assert equivalent(found.difference, 0.15, found.se_seeds, None, 8, 50)[0] == pytest.approx(max(sides))


def test_equivalence_counts_prompts_too():
    alone = equivalent(0.0, 0.2, 0.05, None, 5, 100)
    both = equivalent(0.0, 0.2, 0.05, 0.05, 5, 100)
    assert both[0] > alone[0]
    # By simulation: P(0.05 T₄ + 0.05 T₉₉ ≥ 0.2), the Behrens–Fisher one and no other.
    g = np.random.default_rng(7)
    draws = 0.05 * (g.standard_t(4, 400_000) + g.standard_t(99, 400_000))
    assert both == (pytest.approx(np.mean(draws >= 0.2), rel=0.03), 1)
    # One seed: prompts alone.
    assert equivalent(0.0, 0.2, None, 0.05, 1, 100)[0] == pytest.approx(stats.t.sf(4, 99))
    assert equivalent(0.0, 0.2, None, None, 5, 100) is None
    with pytest.raises(ValueError, match="above 0"):
        equivalent(0.0, 0.0, 0.1, None, 5, 100)


def test_one_sided():
    assert one_sided(0.04, 2.0, 1) == one_sided(0.04, -2.0, -1) == (0.02, 0.98)
    assert one_sided(0.04, -2.0, 1) == (0.98, 0.02)
    assert one_sided(1.0, 0.0, 1) == (0.5, 0.5)


# ----------------------------------------------------------------- families


def test_truncated_holm_by_hand():
    """m = 4, share ½: α is divided by 4; the critical values are α/4, α·7/24, α·3/8, α·5/8."""
    p = [0.03, 0.011, 0.5, 0.014]
    expected = [0.03 / (3 / 8), 0.011 * 4, 0.5 / (5 / 8), max(0.044, 0.014 / (7 / 24))]
    assert truncated_holm(p, 0.5) == pytest.approx([expected[0], expected[1], 0.8, expected[3]])
    assert truncated_holm(p) == pytest.approx(holm(p))
    assert truncated_holm(p, 0.0) == pytest.approx([min(1, 4 * v) for v in p])
    assert truncated_holm([]) == []
    for bad in ([1.5], [-0.1]):
        with pytest.raises(ValueError):
            truncated_holm(bad)


def test_gatekeeping_by_hand():
    """Two of three primary claims are shown at 0.05: of α, ½ · 2/3 = 1/3 goes on to two secondary claims."""
    gate, own = gatekept([0.001, 0.002, 0.4], [0.006, 0.01])
    assert [value <= 0.05 for value in gate] == [True, True, False]
    # Holm of the second: 0.012, 0.012; divided by 1/3.
    assert own == pytest.approx([0.036, 0.036])
    # All shown: the second is Holm with all of α, but never below what the first took.
    gate, own = gatekept([0.001, 0.002, 0.02], [0.006, 0.01])
    assert max(gate) == pytest.approx(0.03) and own == pytest.approx([0.03, 0.03])
    # None shown: none is.
    assert gatekept([0.4, 0.6], [1e-9])[1] == [pytest.approx(0.8)]
    # No first family.
    assert gatekept([], [0.01, 0.04]) == ([], pytest.approx([0.02, 0.04]))
    assert [left_over(r, 3) for r in range(4)] == pytest.approx([0, 1 / 6, 1 / 3, 1])


def decided(first, second, alpha, share=0.5):
    """The procedure itself, step by step at one α: which of both families are rejected."""
    m, rejected = len(first), []
    for i, k in enumerate(sorted(range(m), key=first.__getitem__)):
        if first[k] > alpha * (share / (m - i) + (1 - share) / m):
            break
        rejected.append(k)
    rest = alpha * (1.0 if len(rejected) == m else (1 - share) * len(rejected) / m)
    n, later = len(second), []
    for i, k in enumerate(sorted(range(n), key=second.__getitem__)):
        if rest == 0 or second[k] > rest / (n - i):
            break
        later.append(k)
    return set(rejected), set(later)


def test_adjusted_values_say_what_the_procedure_decides():
    g = np.random.default_rng(7)
    for _ in range(300):
        first, second = (list(g.uniform(size=k) ** 4) for k in (int(g.integers(0, 5)), int(g.integers(1, 5))))
        gate, own = gatekept(first, second)
        for alpha in (0.01, 0.05, 0.2):
            both = [{i for i, v in enumerate(values) if v <= alpha} for values in (gate, own)]
            assert tuple(both) == decided(first, second, alpha)


def test_any_wrong_verdict_in_both_families_is_rare():
    """Every pattern of true and false nulls, equally correlated statistics: an error in at most 5 % of cases, and in some nearly so."""
    g = np.random.default_rng(8)
    worst = 0.0
    for pattern in itertools.product((0.0, 5.0), repeat=4):
        z = np.sqrt(0.5) * (g.normal(size=(3000, 1)) + g.normal(size=(3000, 4))) + np.array(pattern)
        p = 2 * stats.norm.sf(np.abs(z))
        wrong = 0
        for row in p:
            gate, own = gatekept(row[:2], row[2:])
            wrong += any(v <= 0.05 and shift == 0 for v, shift in zip([*gate, *own], pattern, strict=True))
        worst = max(worst, wrong / len(p))
    assert 0.03 < worst < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 3000)
