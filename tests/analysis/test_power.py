"""Power of the crossed test: against scipy's noncentral t, against repetitions, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from directcm.runtime.rng import generator
from directcm.statistics.inference import cautious_p, critical
from directcm.statistics.power import detectable, power


def noncentral(effect: float, se: float, df: int, alpha: float) -> float:
    """The textbook power of a two-sided t-test."""
    least = stats.t.isf(alpha / 2, df)
    return float(stats.nct.sf(least, df, effect / se) + stats.nct.cdf(-least, df, effect / se))


@pytest.mark.parametrize("alpha", [0.05, 0.0025])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_with_seeds_alone_it_is_the_t_tests(seeds, alpha):
    assert power(0.5, 0.2, None, seeds, 100, alpha) == pytest.approx(noncentral(0.5, 0.2, seeds - 1, alpha), abs=2e-3)
    assert power(-0.5, 0.2, 0.0, seeds, 100, alpha) == pytest.approx(noncentral(0.5, 0.2, seeds - 1, alpha), abs=2e-3)


def test_published_power():
    """Cohen 1988, Table 2.3.5 as in every power calculator: paired t-test, d = 0.5, n = 34, two-sided 0.05: power 0.80 (0.807 exactly)."""
    assert power(0.5, 1 / math.sqrt(34), None, 34, 100, 0.05) == pytest.approx(0.8078, abs=2e-3)
    assert detectable(1 / math.sqrt(34), None, 34, 100, 0.05) == pytest.approx(0.495, abs=2e-3)


def test_with_prompts_alone():
    assert power(0.3, None, 0.1, 1, 50, 0.05) == pytest.approx(noncentral(0.3, 0.1, 49, 0.05), rel=1e-9)
    # A spread between seeds that one seed cannot have had is left out.
    assert power(0.3, 0.4, 0.1, 1, 50, 0.05) == power(0.3, None, 0.1, 1, 50, 0.05)


@pytest.mark.parametrize(("seeds", "se_seeds", "se_prompts"), [(3, 0.2, 0.1), (5, 0.1, 0.2), (2, 0.1, 0.1)])
def test_it_is_the_rate_of_rejections(seeds, se_seeds, se_prompts):
    """Repetitions: a difference drawn around the effect, both spreads estimated anew."""
    runs, n, effect = 2000, 400, 0.8
    g = generator(seeds, "power simulation")
    found = 0
    for _ in range(runs):
        own = se_seeds * math.sqrt(g.chisquare(seeds - 1) / (seeds - 1))
        prompts = se_prompts * math.sqrt(g.chisquare(n - 1) / (n - 1))
        found += (
            cautious_p(effect + math.hypot(se_seeds, se_prompts) * g.standard_normal(), own, prompts, seeds, n) <= 0.05
        )
    expected = power(effect, se_seeds, se_prompts, seeds, n, 0.05)
    assert found / runs == pytest.approx(expected, abs=3 * math.sqrt(expected * (1 - expected) / runs) + 1e-3)


def test_the_detectable_effect_is_the_inverse():
    for wanted in (0.5, 0.8, 0.95):
        effect = detectable(0.2, 0.1, 5, 1024, 0.01, wanted)
        assert power(effect, 0.2, 0.1, 5, 1024, 0.01) == pytest.approx(wanted, abs=1e-6)
    # In the metric's unit: it scales with the spread, and more seeds find less.
    assert detectable(2.0, 1.0, 5, 1024, 0.05) == pytest.approx(10 * detectable(0.2, 0.1, 5, 1024, 0.05), rel=1e-6)
    fewer, more = (detectable(0.5 / math.sqrt(s), 0.1, s, 1024, 0.05) for s in (3, 10))
    assert more < fewer / 2
    with pytest.raises(ValueError, match="between alpha"):
        detectable(0.2, 0.1, 5, 1024, 0.05, 0.01)


def test_without_a_spread_there_is_none():
    assert power(1.0, None, None, 3, 10, 0.05) is None
    assert power(1.0, 0.0, 0.0, 3, 10, 0.05) is None
    assert power(1.0, 0.2, None, 1, 10, 0.05) is None
    assert detectable(None, None, 3, 10, 0.05) is None
    assert detectable(0.0, 0.0, 3, 10, 0.05) is None


@pytest.mark.parametrize(("n", "alpha"), [(8, 0.001), (24, 1e-4), (1024, 0.001)])
def test_one_seed_far_out(n, alpha):
    """Where SciPy's nct.cdf of the far tail is NaN, as at n = 8, alpha = 0.001 and effects of 6.3 standard errors."""
    found = [power(shift, None, 1.0, 1, n, alpha) for shift in np.linspace(0, 20, 401)]
    assert np.isfinite(found).all() and (np.diff(found) > -1e-9).all()
    assert (found[0], found[-1]) == (pytest.approx(alpha), pytest.approx(1, abs=0.01))
    smallest = detectable(None, 1.0, 1, n, alpha)
    g = np.random.default_rng(1)
    t = (smallest + g.standard_normal(200_000)) / np.sqrt(g.chisquare(n - 1, 200_000) / (n - 1))
    assert np.mean(2 * stats.t.sf(abs(t), n - 1) <= alpha) == pytest.approx(0.8, abs=0.01)


def test_no_effect_is_found_at_the_tests_size():
    """At an effect of 0: never above alpha (Behrens–Fisher), and exactly alpha where one source is all."""
    assert power(0.0, 0.2, None, 3, 1024, 0.05) == pytest.approx(0.05, abs=1e-3)
    assert power(0.0, 1e-6, 0.2, 3, 1024, 0.05) == pytest.approx(0.05, abs=1e-3)
    for share in np.linspace(0.05, 0.95, 7):
        assert 0.01 < power(0.0, math.sqrt(share), math.sqrt(1 - share), 3, 1024, 0.05) <= 0.05


@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_the_critical_size_has_the_ps_level(alpha):
    for se_seeds, se_prompts, seeds in ((0.2, 0.1, 3), (1e-3, 1.0, 2), (1.0, 1e-3, 5), (0.3, None, 4), (None, 0.3, 1)):
        size = critical(se_seeds, se_prompts, seeds, 200, alpha)
        assert cautious_p(size, se_seeds, se_prompts, seeds, 200) == pytest.approx(alpha, rel=1e-6)
