"""Scalings: each by hand, and the affine one as the optimal transport between two Gaussians."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from directcm.errors import UserError
from directcm.statistics import baselines
from directcm.statistics.frechet import frechet_distance
from directcm.statistics.scaling import fit, transport

MADE, TRUTH = np.array([[0.0, 0], [2, 4]]), np.array([[1.0, 1], [2, 5]])
PROBE = np.array([[1.0, 2], [3, 2]])


def draw(seed: int, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Samples and others, (n, 3, 2, 2), correlated within and between, of variances from 1e-3 to 1e2."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 12))
    made = z @ (rng.normal(size=(12, 12)) * np.logspace(-1.5, 1, 12)) + rng.normal(size=12)
    truth = z @ rng.normal(size=(12, 12)) + 0.3 * rng.normal(size=(n, 12)) - 2
    return made.reshape(n, 3, 2, 2), truth.reshape(n, 3, 2, 2)


def test_mean_slope_and_variance_by_hand() -> None:
    # Their means are (1, 2) and (1.5, 3); about them rows are ∓(1, 2) and ∓(0.5, 2), so Σ⟨f̃, ỹ⟩ = 9, Σ‖f̃‖² = 10, Σ‖ỹ‖² = 8.5.
    np.testing.assert_allclose(fit("mean", MADE, TRUTH)(PROBE), [[1.5, 3], [3.5, 3]], rtol=1e-15)
    np.testing.assert_allclose(fit("slope", MADE, TRUTH)(PROBE), [[1, 2], [2.8, 2]], rtol=1e-15)
    gain = np.sqrt(0.85)
    np.testing.assert_allclose(fit("variance", MADE, TRUTH)(PROBE), [[1, 2], [1 + 2 * gain, 2]], rtol=1e-15)
    moved = fit("variance", MADE, TRUTH)(MADE)
    np.testing.assert_allclose(moved.var(0).sum(), TRUTH.var(0).sum(), rtol=1e-14)
    np.testing.assert_allclose(moved.mean(0), MADE.mean(0), rtol=1e-14)


def test_in_one_component_affine_is_mean_and_standard_deviation() -> None:
    rng = np.random.default_rng(0)
    made, truth = rng.normal(3, 2, (40, 1)), rng.normal(-1, 5, (40, 1))
    expected = truth.mean() + truth.std() / made.std() * (PROBE[:, :1] - made.mean())
    np.testing.assert_allclose(fit("affine", made, truth)(PROBE[:, :1]), expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_slope_is_the_least_squares_solution(seed: int) -> None:
    made, truth = draw(seed)
    f, y = ((a - a.mean(0)).reshape(-1, 1) for a in (made, truth))
    assert fit("slope", made, truth).gain == pytest.approx(np.linalg.lstsq(f, y[:, 0], rcond=None)[0][0], rel=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_affine_gives_the_teachers_mean_and_covariance(seed: int) -> None:
    made, truth = draw(seed)
    found = fit("affine", made, truth)
    moved = found(made).reshape(len(made), -1)
    y = truth.reshape(len(truth), -1)
    covariance = np.cov(y, rowvar=False)
    np.testing.assert_allclose(moved.mean(0), y.mean(0), atol=1e-8)
    np.testing.assert_allclose(np.cov(moved, rowvar=False), covariance, atol=1e-8 * covariance.max())
    # The one symmetric positive map that does, as Olkin and Pukelsheim write it from the other side; by scipy's square roots.
    mine, root = np.cov(made.reshape(len(made), -1), rowvar=False), scipy.linalg.sqrtm(covariance).real
    theirs = root @ np.linalg.inv(scipy.linalg.sqrtm(root @ mine @ root).real) @ root
    np.testing.assert_allclose(found.gain, theirs, rtol=1e-5, atol=1e-6 * abs(theirs).max())
    np.testing.assert_allclose(found.gain, found.gain.T, atol=1e-9 * abs(theirs).max())
    assert np.linalg.eigvalsh(found.gain)[0] > 0


def test_affine_moves_samples_no_farther_than_the_frechet_distance() -> None:
    """The mean squared way is W₂² of the two Gaussians, which is what a Fréchet distance is."""
    made, truth = draw(5)
    f, y = made.reshape(len(made), -1), truth.reshape(len(truth), -1)
    # The covariance part of a mean over rows, not n − 1.
    n = len(f)
    off = fit("affine", made, truth)(made).reshape(n, -1) - f
    gap = ((f.mean(0) - y.mean(0)) ** 2).sum()
    way = gap + ((off - off.mean(0)) ** 2).sum() / (n - 1)
    assert way == pytest.approx(frechet_distance(f, y).value, rel=1e-6)
    # Other maps to the same mean and covariance go farther: turned by the square roots' order.
    a, b = (np.linalg.cholesky(np.cov(x, rowvar=False)) for x in (f, y))
    other = (f - f.mean(0)) @ (b @ np.linalg.inv(a)).T - (f - f.mean(0))
    assert (other**2).sum() / (n - 1) + gap > way * 1.01


def test_parts_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made, truth = draw(1)
    whole = {kind: fit(kind, made, truth) for kind in ("mean", "slope", "variance", "affine")}
    monkeypatch.setattr(baselines, "_ELEMENTS", 12 * 7)
    for kind, one in whole.items():
        np.testing.assert_allclose(fit(kind, made, truth).gain, one.gain, rtol=1e-9)
    assert whole["affine"](made[:3].astype(np.float32)).shape == (3, 3, 2, 2)


def test_refusals(one_line: object) -> None:
    made, truth = draw(2)

    def refused(words: str, kind: str, *given: np.ndarray) -> None:
        with pytest.raises(UserError, match=words) as error:
            fit(kind, *given)
        assert len(str(error.value).splitlines()) == 1

    refused("do not belong together", "mean", made, truth[1:])
    refused("do not belong together", "mean", made[:1], truth[:1])
    refused("the 12 there are", "affine", made[:12], truth[:12])
    flat = np.concatenate([made[..., :1], made[..., :1]], axis=-1)
    refused("vary in all of their 12", "affine", flat, truth)
    refused("all the same", "slope", np.ones_like(made), truth)
    refused("'raw' is none", "raw", made, truth)
    broken = made.copy()
    broken[3, 1, 1, 1] = np.nan
    for kind in ("mean", "slope", "affine"):
        refused("not finite", kind, broken, truth)
    # Thirteen rows vary in twelve components, if barely.
    assert fit("affine", made[:13], truth[:13]).gain.shape == (12, 12)
    assert transport(np.zeros((2, 2)), np.eye(2)) is None
