"""Precision, recall, density, coverage: by hand, by definition, against published numbers of prdc, and by invariance."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from directcm.errors import UserError
from directcm.runtime import rng
from directcm.statistics import manifold as module
from directcm.statistics.manifold import NEIGHBOURS, manifold


def draw(key: int, n: int, dim: int) -> np.ndarray:
    return rng.generator(key, "test manifold", n, dim).standard_normal((n, dim))


def four(result) -> tuple[float, float, float, float]:
    return result.precision, result.recall, result.density, result.coverage


def by_definition(samples: np.ndarray, reference: np.ndarray, k: int) -> tuple[float, float, float, float]:
    """The four formulas, one pair of rows at a time."""
    n = len(samples)

    def radius(of: np.ndarray, i: int) -> float:
        return sorted(float(np.linalg.norm(of[i] - of[j])) for j in range(n) if j != i)[k - 1]

    real, own = ([radius(of, i) for i in range(n)] for of in (reference, samples))
    gap = {(i, j): float(np.linalg.norm(reference[i] - samples[j])) for i, j in itertools.product(range(n), repeat=2)}
    precision = sum(any(gap[i, j] <= real[i] for i in range(n)) for j in range(n)) / n
    recall = sum(any(gap[i, j] <= own[j] for j in range(n)) for i in range(n)) / n
    density = sum(gap[i, j] <= real[i] for i in range(n) for j in range(n)) / (k * n)
    coverage = sum(any(gap[i, j] <= real[i] for j in range(n)) for i in range(n)) / n
    return precision, recall, density, coverage


def test_by_hand():
    # k = 1 on a line. Reference 0, 1, 10, 14 has radii 1, 1, 4, 4; samples 0.5, 3, 13, 40 have radii 2.5, 2.5, 10, 27.
    reference = np.array([[0.0], [1.0], [10.0], [14.0]])
    samples = np.array([[0.5], [3.0], [13.0], [40.0]])
    result = manifold(samples, reference, k=1)
    # In balls of the reference: 0.5 in two, 3 in none, 13 in two, 40 in none; every ball of the reference is hit.
    # In balls of the samples: 0 and 1 (around 0.5), 10 and 14 (around 13).
    assert four(result) == (0.5, 1.0, 1.0, 1.0)
    # The other way round: 0 is in the balls of 0.5 only, 1 of 0.5 and 3, 10 of 13, 14 of 13 and 40.
    assert four(manifold(reference, samples, k=1)) == (1.0, 0.5, 1.5, 1.0)
    assert (result.n, result.dim, result.k) == (4, 1, 1)


def test_sides_are_not_swapped():
    # Samples in one of the reference's two clusters: all are precise, half of the reference is recalled and covered.
    reference = draw(1, 40, 3) + np.repeat([[0.0], [100.0]], 20, axis=0)
    samples = draw(1, 40, 3)[:20].repeat(2, axis=0) + 1e-3 * draw(2, 40, 3)
    result = manifold(samples, reference)
    assert (result.precision, result.coverage) == (1.0, 0.5) and result.recall <= 0.5
    # Samples around the reference and as many elsewhere: half are precise, all is covered.
    samples = np.concatenate([reference[::2] + 1e-3, reference[1::2] + 1e6])
    result = manifold(samples, reference)
    assert (result.precision, result.coverage) == (0.5, 1.0)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(4, 14),
    dim=st.integers(1, 4),
    k=st.integers(1, 3),
    key=st.integers(0, 2**31),
    scale=st.floats(0.2, 3),
    shift=st.floats(-2, 2),
    whole=st.booleans(),
)
def test_agrees_with_the_definition(n, dim, k, key, scale, shift, whole):
    samples, reference = shift + scale * draw(key, n, dim), draw(key + 1, n, dim)
    if whole:
        # On a lattice distances tie with radii and rows repeat.
        samples, reference = np.round(samples), np.round(reference)
    assert four(manifold(samples, reference, k=k)) == pytest.approx(by_definition(samples, reference, k), rel=1e-12)


@pytest.mark.parametrize(
    ("n", "dim", "shift", "scale", "expected"),
    [
        (60, 3, 0.5, 1.0, (58 / 60, 59 / 60, 266 / 300, 1.0)),
        (200, 8, 0.0, 1.3, (0.685, 0.985, 0.438, 0.79)),
        (150, 16, 0.3, 0.6, (1.0, 17 / 150, 3206 / 750, 149 / 150)),
    ],
)
def test_agrees_with_prdc(n, dim, shift, scale, expected):
    # What prdc 0.2, the package of Naeem et al., gives with nearest_k=5 on these arrays (it was installed once to ask).
    reference, samples = draw(1, n, dim), shift + scale * draw(2, n, dim)
    assert NEIGHBOURS == 5
    assert four(manifold(samples, reference)) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(8, 60), dim=st.integers(1, 12), key=st.integers(0, 2**31), scale=st.floats(0.1, 10))
def test_invariances(n, dim, key, scale):
    samples, reference = draw(key, n, dim), 0.2 + 1.2 * draw(key + 1, n, dim)
    # A ball holds its centre and k neighbours, so that density is (k + 1)/k.
    equal = manifold(samples, samples)
    assert four(equal) == pytest.approx((1.0, 1.0, 6 / 5, 1.0), rel=1e-12)
    base = manifold(samples, reference)
    swapped = manifold(reference, samples)
    assert (swapped.precision, swapped.recall) == (base.recall, base.precision)
    shuffled = manifold(samples[rng.permutation(key, "first", n)], reference[rng.permutation(key, "second", n)])
    assert four(shuffled) == four(base)
    power = 2.0 ** round(np.log2(scale))
    assert four(manifold(power * samples, power * reference)) == four(base)
    assert all(0 <= value <= 1 for value in (base.precision, base.recall, base.coverage)) and base.density >= 0


def test_equal_distributions_give_what_is_known():
    # Naeem et al., section 3: E density = 1, E coverage = 1 − Π (n − i)/(2n − i).
    n, k, draws = 60, 5, 60
    results = [manifold(draw(100 + i, n, 2), draw(5000 + i, n, 2), k=k) for i in range(draws)]
    for name, expected in (
        ("density", 1.0),
        ("coverage", 1 - np.prod([(n - i) / (2 * n - i) for i in range(1, k + 1)])),
    ):
        values = np.array([getattr(r, name) for r in results])
        assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(draws), name


def test_rows_that_repeat_lie_in_their_own_balls():
    # Six equal rows have radius 0; a ball of radius 0 still holds its centre.
    same = np.repeat(draw(1, 5, 3), 6, axis=0)
    assert four(manifold(same, same)) == (1.0, 1.0, 6 / 5, 1.0)


def test_blocks_change_nothing(monkeypatch):
    samples, reference = draw(1, 50, 6), 0.4 + draw(2, 50, 6)
    whole = manifold(samples, reference)
    for elements in (1, 50 * 7):
        monkeypatch.setattr(module, "_ELEMENTS", elements)
        assert manifold(samples, reference) == whole


@pytest.mark.parametrize(
    ("samples", "reference", "words"),
    [
        (np.ones((9, 2)), np.ones((8, 2)), "equal numbers"),
        (np.ones((9, 2)), np.ones((9, 3)), "different extractors"),
        (np.ones((5, 2)), np.ones((5, 2)), "at least 6"),
        (np.full((9, 2), np.nan), np.ones((9, 2)), "samples: features of row 0"),
        (np.ones((9, 2)), np.full((9, 2), np.inf), "reference: features of row 0"),
        (1e200 * draw(1, 9, 2), draw(2, 9, 2), "overflows"),
    ],
)
def test_refusals(samples, reference, words):
    with pytest.raises(UserError, match=words) as error:
        manifold(samples, reference)
    assert "\n" not in str(error.value)
