"""Variances from halves of the prompts: by hand, against brute force and against repetitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from directcm.runtime.rng import generator
from directcm.statistics import neighbours
from directcm.statistics.frechet import SUBSETS, frechet_infinite, infinite_sizes
from directcm.statistics.halves import Halves, paired_halves
from directcm.statistics.inference import crossed, frechet_difference_halves, halves_p
from directcm.statistics.manifold import manifold
from directcm.statistics.neighbours import PARTS, manifold_difference_halves, manifold_on


def every_half(n: int) -> np.ndarray:
    """All halves of n prompts, and after them what each leaves out."""
    kept = np.array([[i in half for i in range(n)] for half in itertools.combinations(range(n), n // 2)])
    return np.concatenate([kept, ~kept])


# ----------------------------------------------------------------- the variance


def test_a_mean_by_hand():
    """1, 2, 4, 9 over four prompts: all six halves have the means 1½, 2½, 5, 3, 5½, 6½, and the variance of the mean is s²/4 = 38/12."""
    x = np.array([1.0, 2.0, 4.0, 9.0])
    values = np.array([[x[k].mean() for k in every_half(4)]])
    assert values[0, :6].tolist() == [1.5, 2.5, 5, 3, 5.5, 6.5]
    for spread in (Halves(values, 4).count, Halves(values, 4).distance):
        assert spread.whole == pytest.approx(38 / 12) and spread.shared == pytest.approx(38 / 12)


def test_the_interval_of_a_share_by_hand():
    """Of ten prompts three are held by a and not by b, in the one seed: difference 0.3, variance over all halves 0.3·0.7/9, t of
    9 degrees of freedom: 0.3 ± 2.262157·0.152753."""
    x = np.array([1.0] * 3 + [0.0] * 7)
    halves = Halves(np.array([[x[k].mean() for k in every_half(10)]]), 10)
    result = crossed(np.array([0.3]), halves.count.shared, 10, 0.95)
    assert halves.count.whole == pytest.approx(0.3 * 0.7 / 9)
    assert (result.low, result.high) == (
        pytest.approx(0.3 - 0.345550, abs=1e-6),
        pytest.approx(0.3 + 0.345550, abs=1e-6),
    )
    assert halves_p(0.3, halves.count.whole, 10, 252) == pytest.approx(2 * stats.t.sf(0.3 / 0.152753, 9), rel=1e-4)
    assert halves_p(0.3, halves.count.whole, 1024, 100) == pytest.approx(2 * stats.t.sf(0.3 / 0.152753, 100), rel=1e-4)
    assert (halves_p(0.0, 0.0, 10, 100), halves_p(0.1, 0.0, 10, 100)) == (1.0, None)


def test_what_seeds_share_by_hand():
    """Two seeds whose values at a prompt are x and y: whole s²(x + y)/4n, shared cov(x, y)/n; of opposite ones nothing is shared."""
    x, y = np.array([1.0, 2.0, 4.0, 9.0, 3.0, 5.0]), np.array([2.0, 1.0, 5.0, 7.0, 3.0, 0.0])
    kept = every_half(6)

    def halves(*rows: np.ndarray) -> Halves:
        return Halves(np.array([[row[k].mean() for k in kept] for row in rows]), 6)

    both = halves(x, y).count
    assert both.whole == pytest.approx(np.var((x + y) / 2, ddof=1) / 6)
    assert both.shared == pytest.approx(np.cov(x, y)[0, 1] / 6)
    assert (halves(x, x).count.shared, halves(x, -x).count.shared) == (pytest.approx(np.var(x, ddof=1) / 6), 0)
    assert halves(x, -x).count.whole == pytest.approx(0)


def test_a_degenerate_statistic_by_hand():
    """The mean of x_i x_j over pairs i ≠ j, x = ±1: its variance at n is 2/(n(n − 1)) over signs; halves without complements have 2/(m(m − 1))
    of a half, m = n/2, which scaled as a mean's (by ½) is twice as much and more."""
    n, found = 8, []
    m, kept = n // 2, every_half(n)
    for run in range(3000):
        sums = kept @ (2.0 * generator(run, "signs").integers(0, 2, n) - 1)
        found.append(Halves((sums**2 - m)[None] / (m * (m - 1)), n))
    odd, even = np.mean([halves._means(different=False) for halves in found], axis=0)
    assert odd == pytest.approx(1 / (m * (m - 1)), rel=0.1)
    assert odd - even == pytest.approx(2 / (n * (n - 1)), rel=0.2)
    assert np.mean([halves.distance.whole for halves in found]) >= odd - even


@pytest.mark.parametrize("n", [8, 9])
def test_halves_are_halves(n):
    kept = paired_halves(n, 50, 3)
    first, second = np.split(kept, 2)
    assert kept.shape == (100, n) and (kept.sum(axis=1) == n // 2).all()
    assert not (first & second).any()
    assert ((first | second).sum(axis=1) == 2 * (n // 2)).all()
    assert np.array_equal(paired_halves(n, 50, 3), kept) and not np.array_equal(paired_halves(n, 50, 4), kept)
    # Every prompt is in about half of them.
    assert (abs(first.sum(axis=0) - 25 * 2 * (n // 2) / n) < 15).all()


@pytest.mark.parametrize("n", [6, 7])
def test_an_odd_number_of_prompts(n):
    """Means over random halves against s²/n, which does not ask whether n is even."""
    x = generator(1, "odd").standard_normal(n)
    halves = Halves(np.array([[x[k].mean() for k in paired_halves(n, 20_000, 0)]]), n)
    assert halves.count.whole == pytest.approx(np.var(x, ddof=1) / n, rel=0.03)
    assert halves.distance.whole == pytest.approx(np.var(x, ddof=1) / n, rel=0.06)


# ----------------------------------------------------------------- precision, recall, density, coverage


@pytest.mark.parametrize(("spread", "offset"), [(1.0, 0.0), (0.3, 0.5), (2.0, 0.0), (1.0, 30.0)])
def test_subsets_of_rows_are_what_the_metric_gives(spread, offset, monkeypatch):
    """Each subset against `manifold` itself: on the whole, on halves, on small ones that need many neighbours, in chunks of one."""
    monkeypatch.setattr(neighbours, "_NEAREST", 7)
    monkeypatch.setattr(neighbours, "_ELEMENTS", 900)
    g = generator(0, "manifold", int(10 * spread))
    n = 41
    reference = g.standard_normal((n, 3))
    sets = [spread * g.standard_normal((n, 3)) + offset, np.repeat(g.standard_normal((n, 3)), 2, axis=0)[:n]]
    kept = np.concatenate([paired_halves(n, 5, 0), np.ones((1, n), dtype=bool), np.arange(n)[None] < 6])
    for rows, found in zip(sets, manifold_on(sets, reference, kept), strict=True):
        for subset, values in zip(kept, found.T, strict=True):
            expected = manifold(rows[subset], reference[subset])
            assert dict(zip(PARTS, values, strict=True)) == {
                part: pytest.approx(getattr(expected, part)) for part in PARTS
            }


def test_differences_by_seed_and_by_teacher():
    g = generator(0, "manifold differences")
    a, b, references = g.standard_normal((3, 2, 30, 2))
    b = 0.7 * b
    own = manifold_difference_halves(a, b, references, 4, pairs=3)
    kept = paired_halves(30, 3, 4)
    for s, (part, halves) in itertools.product(range(2), own.items()):
        expected = [
            getattr(manifold(a[s][k], references[s][k]), part) - getattr(manifold(b[s][k], references[s][k]), part)
            for k in kept
        ]
        assert halves.values[s] == pytest.approx(expected)
    one = manifold_difference_halves(a, b, references[0], 4, pairs=3)
    assert one["recall"].values[0] == pytest.approx(own["recall"].values[0])
    # Ten rows: a half of them has no five neighbours.
    assert manifold_difference_halves(a[:, :10], b[:, :10], references[0, :10], 4) is None


# ----------------------------------------------------------------- against repetitions


def world(run: int, n: int, offset: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two methods of one seed with one distribution, and a reference `offset` away, at shared prompts."""
    g = generator(run, "halves simulation")
    prompt = g.standard_normal((n, 3))
    a, b, reference = 0.5 * prompt + g.standard_normal((3, n, 3))
    return a[None] + offset, b[None] + offset, reference


@pytest.mark.slow
@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_the_variance_is_that_of_repetitions(offset):
    """Of FD∞ and the four shares: the mean of what halves say against the variance over fresh prompts.

    Within a factor of 1.6 for 96 prompts: near the reference coverage is close to its largest value, which depends on n, and FD∞'s
    variance errs upwards. The sizes of the tests are in docs/statistics.md.
    """
    n, differences, said = 96, [], []
    for run in range(120):
        a, b, reference = world(run, n, offset)
        values = [manifold(x[0], reference) for x in (a, b)]
        extrapolated = [frechet_infinite(x[0], reference, 1).value for x in (a, b)]
        own = [getattr(values[0], part) - getattr(values[1], part) for part in PARTS]
        differences.append([*own, extrapolated[0] - extrapolated[1]])
        if run < 40:
            parts = manifold_difference_halves(a, b, reference, run, pairs=20)
            frechet = frechet_difference_halves(a, b, reference, run, pairs=20)
            said.append(
                [parts[p].count.whole for p in PARTS] + [frechet.extrapolated(infinite_sizes(n, 3), SUBSETS).whole]
            )
    ratio = np.mean(said, axis=0) / np.var(differences, axis=0, ddof=1)
    assert (ratio > 1 / 1.6).all() and (ratio < 1.6).all(), ratio


def test_the_extrapolations_variance_by_hand():
    """Sizes 4 and 8 of n = 8: the line through FD(4) and FD(8) meets 0 at 2 FD(8) − FD(4). A linear statistic of variance V at n has at
    one subset of 4 the variance V(2 − 1) around its whole, so 2 − 1 times it in all: V + V/1 for one subset; for two without common
    rows nothing is drawn, and V is left."""
    x = generator(0, "extrapolated").standard_normal(8)
    halves = Halves(np.array([[x[k].mean() for k in every_half(8)]]), 8)
    v = np.var(x, ddof=1) / 8
    assert halves.extrapolated([4, 8], 1).whole == pytest.approx(2 * v)
    assert halves.extrapolated([4, 8], 2).whole == pytest.approx(v)
    # Three: two without common rows, and one more, of weight 1/3.
    assert halves.extrapolated([4, 8], 3).whole == pytest.approx(v + v / 9)
