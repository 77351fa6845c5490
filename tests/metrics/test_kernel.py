from __future__ import annotations

import numpy as np
import pytest

from directcm import rng
from directcm.errors import UserError
from directcm.metrics import kernel
from directcm.metrics.kernel import kernel_distance


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
    assert (result.n, result.n_reference, result.dim) == (2, 2, 1)


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
