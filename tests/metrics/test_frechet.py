from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from directcm.errors import UserError
from directcm.runtime import rng
from directcm.statistics import frechet
from directcm.statistics.frechet import frechet_distance, frechet_infinite, infinite_sizes


def draw(key: int, n: int, dim: int) -> np.ndarray:
    return rng.generator(key, "test features", n, dim).standard_normal((n, dim))


def with_moments(features: np.ndarray, mean: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Features whose sample mean and covariance are exactly `mean` and root rootᵀ."""
    centred = features - features.mean(0)
    whitened = centred @ np.linalg.inv(np.linalg.cholesky(np.cov(centred.T))).T
    return whitened @ root.T + mean


def closed_form(mean1, cov1, mean2, cov2) -> float:
    root = linalg.sqrtm(cov1)
    return float(np.sum((mean1 - mean2) ** 2) + np.trace(cov1 + cov2 - 2 * linalg.sqrtm(root @ cov2 @ root).real))


def test_exact_on_samples_with_constructed_moments():
    mean1, mean2 = np.array([1.0, -2.0, 0.5]), np.array([0.0, 1.0, 2.0])
    root1, root2 = (
        np.array([[2, 0, 0], [0.5, 1, 0], [-1, 0.3, 0.7]]),
        np.array([[1, 0, 0], [-0.4, 3, 0], [0.2, 0.2, 0.1]]),
    )
    first = with_moments(draw(1, 50, 3), mean1, root1)
    second = with_moments(draw(2, 50, 3), mean2, root2)
    result = frechet_distance(first, second)
    assert result.value == pytest.approx(closed_form(mean1, root1 @ root1.T, mean2, root2 @ root2.T), rel=1e-10)
    assert (result.n, result.dim, result.flags) == (50, 3, ())


def test_commuting_covariances_by_hand():
    # Diagonal covariances: Σ (s1 − s2)² + |μ1 − μ2|² = 1 + 4 + 9
    first = with_moments(draw(3, 40, 2), np.zeros(2), np.diag([1.0, 5.0]))
    second = with_moments(draw(4, 40, 2), np.array([3.0, 0.0]), np.diag([2.0, 3.0]))
    assert frechet_distance(first, second).value == pytest.approx(14.0, rel=1e-12)


def test_large_samples_approach_the_populations_distance():
    first = 1.5 * draw(5, 40_000, 4)
    second = draw(6, 40_000, 4) + np.array([1.0, 0, 0, 0])
    assert frechet_distance(first, second).value == pytest.approx(1 + 4 * 0.25, rel=0.03)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("n", "dim"), [(300, 16), (200, 64), (65, 64)])
def test_agrees_with_clean_fid_at_full_rank(n, dim):
    from cleanfid.fid import frechet_distance as theirs

    first, second = draw(7, n, dim), 0.5 + 1.3 * draw(8, n, dim)
    expected = theirs(first.mean(0), np.cov(first.T), second.mean(0), np.cov(second.T))
    # At n = D + 1 the smallest eigenvalues are tiny, and it is their matrix square root that loses digits.
    assert frechet_distance(first, second).value == pytest.approx(expected, rel=1e-6 if n > 2 * dim else 1e-5)


@pytest.mark.parametrize(("n", "dim"), [(20, 64), (64, 64), (200, 8)])
def test_self_distance_symmetry_and_rank_flag(n, dim):
    first, second = draw(9, n, dim), draw(10, n, dim)
    assert frechet_distance(first, first).value == pytest.approx(0, abs=1e-10)
    forth, back = frechet_distance(first, second), frechet_distance(second, first)
    assert forth.value == pytest.approx(back.value, rel=1e-12)
    assert forth.flags == (("rank_deficient",) if n - 1 < dim else ())


def test_rank_deficient_value_is_exact():
    # In one-dimensional subspaces at an angle θ: tr √(Σ1Σ2) = σ1 σ2 |cos θ|.
    line = np.array([-1.0, 0.0, 1.0])
    direction = np.array([0.6, 0.8, 0, 0, 0])
    first = np.outer(line, [1.0, 0, 0, 0, 0])
    second = 2 * np.outer(line[::-1], direction)
    assert frechet_distance(first, second).value == pytest.approx(1 + 4 - 2 * 2 * 0.6, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(2, 40),
    dim=st.integers(1, 20),
    key=st.integers(0, 2**31),
    scale=st.floats(0.01, 100),
    shift=st.floats(-50, 50),
)
def test_properties(n, dim, key, scale, shift):
    first, second = draw(key, n, dim), draw(key + 1, n, dim)
    offset = shift * rng.generator(key, "offset").standard_normal(dim)
    assert frechet_distance(first, first + offset).value == pytest.approx(float(offset @ offset), rel=1e-8, abs=1e-8)
    base = frechet_distance(first, second).value
    assert base >= 0
    # Homogeneous of degree 2, blind to a common shift, to the order of rows and to a common rotation.
    assert frechet_distance(scale * first, scale * second).value == pytest.approx(scale**2 * base, rel=1e-6, abs=1e-9)
    assert frechet_distance(first + offset, second + offset).value == pytest.approx(base, rel=1e-6, abs=1e-7)
    rotation = np.linalg.qr(draw(key + 2, dim, dim))[0]
    assert frechet_distance(first[::-1] @ rotation, second @ rotation).value == pytest.approx(base, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (np.ones((5, 2)), np.ones((6, 2)), "equal numbers"),
        (np.ones((5, 2)), np.ones((5, 3)), "different extractors"),
        (np.ones((1, 2)), np.ones((1, 2)), "at least 2"),
        (np.ones(5), np.ones(5), "shape"),
        (np.full((5, 2), np.nan), np.ones((5, 2)), "row 0"),
        (np.ones((3, 1)), np.array([[1.0], [np.inf], [0.0]]), "row 1"),
        (np.array([[1e200], [-1e200]]), np.ones((2, 1)), "overflows"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_refusals(first, second, words):
    with pytest.raises(UserError, match=words) as error:
        frechet_distance(first, second)
    assert "\n" not in str(error.value)


def test_little_work_where_rank_is_low(monkeypatch):
    """Of 100 rows of 2,048 features the largest matrix that is decomposed has 100 rows and columns."""
    seen = []
    for name in ("svdvals", "qr"):
        whole = getattr(linalg, name)
        monkeypatch.setattr(
            frechet.linalg, name, lambda a, *rest, whole=whole, **more: seen.append(a.shape) or whole(a, *rest, **more)
        )
    result = frechet_distance(draw(11, 100, 2048), draw(12, 100, 2048))
    assert result.flags == ("rank_deficient",) and result.value > 0
    assert seen == [(100, 100)]


def test_infinite_sizes():
    # 15 from a tenth of the rows, as published, but no fewer than 2 D; over a factor of 2 at least.
    sizes = infinite_sizes(50_000, 2048)
    assert len(sizes) == 15 and (sizes[0], sizes[-1]) == (5000, 50_000)
    assert set(np.diff(sizes)) <= {3214, 3215}
    assert (infinite_sizes(1024, 64)[0], infinite_sizes(1024, 64)[-1]) == (128, 1024)
    assert infinite_sizes(256, 64)[0] == 128
    for n, dim in ((255, 64), (1024, 2048), (60, 16), (15, 1), (2, 1)):
        assert infinite_sizes(n, dim) == []
        if n * dim < 10_000:
            assert frechet_infinite(draw(1, n, dim), draw(2, n, dim), seed=0) is None
    for n in range(16, 400, 7):
        sizes = infinite_sizes(n, 3)
        assert not sizes or (len(set(sizes)) == 15 and sizes[-1] == n and 6 <= sizes[0] <= n / 2)


@pytest.mark.parametrize(("n", "scale", "shift"), [(256, 1.0, 0.0), (512, 1.1, 0.1), (1024, 1.2, 0.0)])
def test_infinite_is_nearer_to_the_populations_distance(n, scale, shift):
    dim, draws = 32, 12
    spectrum = np.exp(-np.arange(dim) / 16)
    truth = dim * shift**2 + float(((scale - 1) ** 2 * spectrum).sum())
    plain, infinite = [], []
    for i in range(draws):
        first = draw(1000 + i, n, dim) * np.sqrt(spectrum)
        second = shift + scale * draw(2000 + i, n, dim) * np.sqrt(spectrum)
        plain.append(frechet_distance(first, second).value)
        result = frechet_infinite(first, second, seed=0)
        assert result is not None and (result.n, result.dim, result.flags) == (n, dim, ())
        infinite.append(result.value)
    far, near = (np.sqrt(np.mean((np.array(v) - truth) ** 2)) for v in (plain, infinite))
    assert near < 0.6 * far
    # What is left of the bias is within the scatter, and a twentieth of what it was.
    left = abs(np.mean(infinite) - truth)
    assert left < 4 * np.std(infinite) / np.sqrt(draws) and np.mean(plain) - truth > 5 * left


def test_infinite_fits_the_line_of_means_over_subsets(monkeypatch):
    # Where FD_m is a + b/m on every subset, the intercept is a, whatever the subsets.
    seen = []

    def line(first, second):
        np.testing.assert_array_equal(first + 100, second)
        seen.append(tuple(first[:, 0]))
        return 3.0 + 40.0 / len(first)

    monkeypatch.setattr(frechet, "_distance", line)
    rows = np.arange(200.0).reshape(-1, 1)
    result = frechet_infinite(rows, rows + 100, seed=1)
    assert result is not None and result.value == pytest.approx(3.0, rel=1e-12)
    sizes = infinite_sizes(200, 1)
    assert [len(s) for s in seen] == [size for size in sizes[:-1] for _ in range(8)] + [200]
    # Without repetition; the first subsets of one size cut one permutation, so they share no row.
    assert all(len(set(s)) == len(s) for s in seen)
    assert sizes[0] == 20 and len({row for s in seen[:8] for row in s}) == 160
    assert len(set(seen)) == len(seen)


def test_infinite_is_deterministic_and_keyed():
    first, second = draw(1, 200, 8), 0.5 + draw(2, 200, 8)
    value = frechet_infinite(first, second, seed=3).value
    assert frechet_infinite(first, second, seed=3).value == value
    assert frechet_infinite(first, second, seed=4).value != value
    assert frechet_infinite(second, first, seed=3).value == pytest.approx(value, rel=1e-9)
    assert frechet_infinite(2 * first, 2 * second, seed=3).value == pytest.approx(4 * value, rel=1e-9)
    assert frechet_infinite(first, first, seed=3).value == pytest.approx(0, abs=1e-9)
    # A shift alone has no bias: every subset says the same.
    assert frechet_infinite(first, first + 2, seed=3).value == pytest.approx(32, rel=1e-9)


def test_infinite_refuses_what_the_distance_refuses():
    with pytest.raises(UserError, match="equal numbers"):
        frechet_infinite(draw(1, 100, 2), draw(1, 101, 2), seed=0)
    with pytest.raises(UserError, match="different extractors"):
        frechet_infinite(draw(1, 100, 2), draw(1, 100, 3), seed=0)
    with pytest.raises(UserError, match="row 0"):
        frechet_infinite(np.full((100, 2), np.nan), draw(1, 100, 2), seed=0)


@pytest.mark.parametrize("n", [12, 300])
def test_the_parts_add_up_to_the_distance(n):
    first, second = draw(11, n, 24), 0.7 * draw(12, n, 24) + 0.4
    found = frechet_distance(first, second)
    assert found.mean + found.covariance == pytest.approx(found.value, rel=1e-12)
    assert found.mean == pytest.approx(np.sum((first.mean(0) - second.mean(0)) ** 2), rel=1e-9)
    # Moving a set by a vector changes the means' part alone, by its length; equal covariances leave nothing else.
    moved = frechet_distance(first, first + 0.5)
    assert moved.mean == pytest.approx(24 * 0.25, rel=1e-9) and moved.covariance == pytest.approx(0, abs=1e-9)
    assert frechet_distance(first, second - second.mean(0) + first.mean(0)).value == pytest.approx(found.covariance)
