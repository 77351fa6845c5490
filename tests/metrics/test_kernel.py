from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from directcm.errors import UserError
from directcm.runtime import rng
from directcm.statistics import kernel
from directcm.statistics.kernel import cmmd, kernel_distance


def draw(key: int, n: int, dim: int) -> np.ndarray:
    return rng.generator(key, "test kernel", n, dim).standard_normal((n, dim))


@pytest.mark.parametrize(("n", "dim"), [(64, 16), (200, 8), (10, 128)])
def test_agrees_with_clean_fid_over_one_subset_of_everything(n, dim):
    from cleanfid.fid import kernel_distance as theirs

    first, second = draw(1, n, dim), 0.3 + draw(2, n, dim)
    expected = theirs(first, second, num_subsets=1, max_subset_size=n)
    assert kernel_distance(first, second).value == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_by_hand():
    # D = 1, k(x, y) = (xy + 1)³; X = {0, 1}, Y = {0, 2}: 1 + 1 − 2·(1 + 1 + 1 + 27)/4
    result = kernel_distance(np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]]))
    assert result.value == pytest.approx(2 - 15)
    assert (result.n, result.dim) == (2, 1)


def test_unbiased_under_equality():
    values = [kernel_distance(draw(3 + i, 30, 4), draw(5000 + i, 30, 4)).value for i in range(400)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))
    assert min(values) < 0


def test_blocks_change_nothing(monkeypatch):
    first, second = draw(1, 50, 6), draw(2, 50, 6)
    whole = kernel_distance(first, second).value
    monkeypatch.setattr(kernel, "_BLOCK", 7)
    assert kernel_distance(first, second).value == pytest.approx(whole, rel=1e-12)


def test_refusals():
    with pytest.raises(UserError, match="row 0"):
        kernel_distance(np.full((4, 2), np.nan), np.ones((4, 2)))
    with pytest.raises(UserError, match="different extractors"):
        kernel_distance(np.ones((4, 2)), np.ones((4, 3)))
    with pytest.raises(UserError, match="at least 2"):
        kernel_distance(np.ones((1, 2)), np.ones((4, 2)))


def gaussian(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The kernel of CMMD between normalised rows, by definition: exp(−|x − y|²/(2·10²))."""
    first, second = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (first, second))
    return np.exp(-cdist(first, second, "sqeuclidean") / 200)


def test_cmmd_by_hand():
    # e1, e2 against −e1, e2 (any length): |e1 − e2|² = 2, |e1 + e1|² = 4, |e2 − e2|² = 0.
    first = np.array([[3.0, 0.0], [0.0, 0.5]])
    second = np.array([[-1.0, 0.0], [0.0, 7.0]])
    near, far = np.exp(-2 / 200), np.exp(-4 / 200)
    expected = 1000 * (near + near - 2 * (far + near + near + 1) / 4)
    result = cmmd(first, second)
    assert result.value == pytest.approx(expected, rel=1e-10)
    assert (result.n, result.dim, result.flags) == (2, 2, ())


@pytest.mark.parametrize(("n", "m", "dim"), [(40, 40, 16), (25, 60, 8), (3, 4, 128)])
def test_cmmd_by_definition_and_against_the_published_estimator(n, m, dim):
    first, second = 0.3 + draw(1, n, dim), draw(2, m, dim)
    xx, yy, xy = gaussian(first, first), gaussian(second, second), gaussian(first, second)
    off_xx, off_yy = xx[~np.eye(n, dtype=bool)].mean(), yy[~np.eye(m, dtype=bool)].mean()
    value = cmmd(first, second).value
    assert value == pytest.approx(1000 * (off_xx + off_yy - 2 * xy.mean()), rel=1e-7, abs=1e-9)
    # The published code takes the means over all pairs, i = j too (its σ is 10, its scale 1000).
    published = 1000 * (xx.mean() + yy.mean() - 2 * xy.mean())
    assert value == pytest.approx(published - 1000 * ((1 - off_xx) / n + (1 - off_yy) / m), rel=1e-7, abs=1e-9)
    assert published > value


def test_cmmd_is_unbiased_under_equality():
    values = [cmmd(draw(3 + i, 30, 4), draw(5000 + i, 30, 4)).value for i in range(400)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))
    assert min(values) < 0


def test_cmmd_blocks_change_nothing(monkeypatch):
    first, second = draw(1, 50, 6), draw(2, 50, 6)
    whole = cmmd(first, second).value
    monkeypatch.setattr(kernel, "_BLOCK", 7)
    assert cmmd(first, second).value == pytest.approx(whole, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 30),
    m=st.integers(2, 30),
    dim=st.integers(1, 12),
    key=st.integers(0, 2**31),
    scale=st.floats(1e-3, 1e3),
)
def test_properties(n, m, dim, key, scale):
    first, second = draw(key, n, dim), 0.5 + draw(key + 1, m, dim)
    rotation = np.linalg.qr(draw(key + 2, dim, dim))[0]
    lengths = np.exp(draw(key + 3, n, 1))
    for distance in (kernel_distance, cmmd):
        base = distance(first, second).value
        close = {"rel": 1e-8, "abs": 1e-8}
        assert distance(second, first).value == pytest.approx(base, **close)
        assert distance(first[::-1] @ rotation, second @ rotation).value == pytest.approx(base, **close)
    # CMMD sees directions only.
    assert cmmd(lengths * first, scale * second).value == pytest.approx(cmmd(first, second).value, rel=1e-8, abs=1e-8)


def test_cmmd_refusals():
    with pytest.raises(UserError, match="second set: the embedding of row 1 is zero"):
        cmmd(np.ones((4, 2)), np.array([[1.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(UserError, match="row 0"):
        cmmd(np.full((4, 2), np.nan), np.ones((4, 2)))
    with pytest.raises(UserError, match="different extractors"):
        cmmd(np.ones((4, 2)), np.ones((4, 3)))
    # Very large and very small entries are no reason to refuse.
    assert cmmd(1e200 * draw(1, 9, 3), 1e-200 * draw(2, 9, 3)).value == pytest.approx(
        cmmd(draw(1, 9, 3), draw(2, 9, 3)).value, rel=1e-8
    )
