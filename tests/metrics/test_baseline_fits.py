"""The fits of baselines are least squares, and their condition is what predicts best."""

from __future__ import annotations

import numpy as np
import pytest

from directcm.errors import UserError
from directcm.statistics.baselines import best, fit, indexed, members


def draw(seed: int, n: int = 30, conditions: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n, 2, 3)).astype(np.float32)
    groups = np.concatenate(
        [np.arange(conditions), np.arange(conditions), rng.integers(0, conditions, n - 2 * conditions)]
    )
    means = rng.normal(size=(conditions, 2, 3))
    x = means[groups] + 0.8 * noise + 0.3 * rng.normal(size=noise.shape)
    return x.astype(np.float32), noise, groups


def test_the_conditional_mean_by_hand() -> None:
    x = np.array([[1.0, 2], [3, 4], [10, 0], [20, 0], [30, 6]])
    found = fit(x, np.zeros_like(x), np.array([0, 0, 1, 1, 1]), gain=False)
    np.testing.assert_allclose(found.means, [[2, 3], [20, 2]])
    assert found.gain == 0
    # Left out, row 0 is predicted by row 1: residuals double, those of three rows grow by 3/2.
    assert found.left_out == pytest.approx((4 * (4 * 1) + 9 / 4 * (200 + 4 + 4 + 16)) / 10)
    np.testing.assert_array_equal(found.predict(np.array([1, 0]), np.ones((2, 2))), np.float32([[20, 2], [2, 3]]))


@pytest.mark.parametrize("seed", range(3))
def test_the_affine_map_is_the_least_squares_solution(seed: int) -> None:
    x, noise, groups = draw(seed)
    found = fit(x, noise, groups, gain=True)
    # One column for each condition and component, and one for the noise.
    n, size = len(x), 6
    design = np.zeros((n * size, 3 * size + 1))
    for i, j in np.ndindex(n, size):
        design[i * size + j, groups[i] * size + j] = 1
    design[:, -1] = noise.reshape(-1)
    solution, *_ = np.linalg.lstsq(design, x.reshape(-1).astype(np.float64), rcond=None)
    assert found.gain == pytest.approx(solution[-1], rel=1e-9)
    np.testing.assert_allclose(found.means.reshape(-1), solution[:-1], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.predict(groups, noise).reshape(-1), design @ solution, rtol=1e-4, atol=1e-5)


def test_the_error_left_out_is_that_of_fits_without_each_row() -> None:
    x, noise, groups = draw(4)
    found = fit(x, noise, groups, gain=False)
    errors = []
    for i in range(len(x)):
        kept = np.arange(len(x)) != i
        other = fit(x[kept], noise[kept], groups[kept], gain=False) if np.bincount(groups[kept]).min() > 1 else None
        mean = other.means[groups[i]] if other else x[kept][groups[kept] == groups[i]].mean(0)
        errors.append(np.mean((x[i] - mean) ** 2))
    assert found.left_out == pytest.approx(np.mean(errors), rel=1e-6)


def test_the_condition_that_predicts_best() -> None:
    x, noise, groups = draw(5, 300)
    rows = len(x)
    everything = np.zeros(rows, dtype=int)
    pairs = np.arange(rows) // 2
    # Three conditions that matter; pairs of rows cost more than they tell.
    by, found = best(x, noise, {"all": everything, "label": groups, "prompt": pairs}, gain=True)
    assert by == "label" and len(found.means) == 3 and found.gain == pytest.approx(0.8, abs=0.05)
    # Conditions that say nothing lose to all rows together; equal ones leave the coarser.
    rng = np.random.default_rng(0)
    assert best(noise, noise * 0, {"all": everything, "prompt": rng.permutation(pairs)}, gain=False)[0] == "all"
    assert best(x, noise, {"label": groups, "prompt": groups}, gain=True)[0] == "label"
    # A prompt of a single row cannot be left out.
    assert best(x, noise, {"all": everything, "prompt": np.arange(rows)}, gain=False)[0] == "all"


def test_names_become_numbers() -> None:
    np.testing.assert_array_equal(indexed(["b", "a", "b", ""]), [2, 1, 2, 0])
    assert [list(rows) for rows in members(np.array([1, 0, 1]))] == [[1], [0, 2]]


def test_what_cannot_be_fitted() -> None:
    x, noise, groups = draw(6)
    with pytest.raises(UserError, match="do not belong together"):
        fit(x, noise[1:], groups, gain=True)
    with pytest.raises(UserError, match="fewer than two rows"):
        fit(x[:3], noise[:3], np.array([0, 0, 1]), gain=True)
    x[0, 0, 0] = np.nan
    with pytest.raises(UserError, match="not finite"):
        fit(x, noise, groups, gain=True)
    with pytest.raises(UserError, match=r"raise evaluation\.samples"):
        best(x[:1], noise[:1], {"all": np.zeros(1, dtype=int)}, gain=False)
