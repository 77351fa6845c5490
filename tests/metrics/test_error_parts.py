"""A mean squared error taken apart: the parts add up, and are what they say they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from directcm.errors import UserError
from directcm.evaluation.metrics.ode_error import ode_error
from directcm.evaluation.metrics.ode_parts import ode_parts
from directcm.statistics import baselines
from directcm.statistics.error_parts import bands, parts, principal, rank_correlation, spectrum

SHAPE = (3, 2, 2)


def draw(seed: int, n: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples, what they should be, and groups: correlated, with means and spreads of their own."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(n, *SHAPE)) * rng.uniform(0.1, 3, SHAPE) + rng.normal(size=SHAPE)
    f = rng.uniform(-1, 2) * y + rng.uniform(0, 2) * rng.normal(size=y.shape) + rng.normal(size=SHAPE)
    return f.astype(np.float32), y.astype(np.float32), rng.integers(0, 4, n)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 60), one=st.booleans())
def test_the_parts_add_up_to_the_error(seed: int, n: int, one: bool) -> None:
    f, y, groups = draw(seed, n)
    groups = np.unique(groups, return_inverse=True)[1] * (not one)
    found = parts(f, y, groups)
    whole = np.mean((f.astype(np.float64) - y.astype(np.float64)) ** 2)
    assert found.bias + found.gain + found.scatter == pytest.approx(whole, rel=1e-10, abs=1e-14)
    assert found.error == pytest.approx(whole, rel=1e-10, abs=1e-14)
    assert min(found.bias, found.gain, found.scatter) >= 0


def test_the_parts_are_what_they_say() -> None:
    f, y, groups = draw(5)
    inside = [groups == g for g in range(4)]
    f0, y0 = (np.concatenate([a[rows] - a[rows].mean(0, dtype=np.float64) for rows in inside]).ravel() for a in (f, y))
    found = parts(f, y, groups)
    rho = stats.pearsonr(f0, y0).statistic
    assert found.correlation == pytest.approx(rho, rel=1e-9)
    assert found.variance_ratio == pytest.approx(f0.var() / y0.var(), rel=1e-9)
    # Scatter is what the best line through the deviations leaves, by a library; gain what its slope differs from 1 by.
    line = stats.linregress(f0, y0)
    assert found.scatter == pytest.approx(np.mean((y0 - line.slope * f0) ** 2), rel=1e-9)
    assert found.gain == pytest.approx((1 - line.slope) ** 2 * f0.var(), rel=1e-9)
    means = [np.mean((f[rows].mean(0, dtype=np.float64) - y[rows].mean(0, dtype=np.float64)) ** 2) for rows in inside]
    assert found.bias == pytest.approx(np.average(means, weights=[rows.sum() for rows in inside]), rel=1e-9)


def test_each_part_alone() -> None:
    _, y, groups = draw(6)
    y = y.astype(np.float64)
    moved = parts(y + 2, y, groups)
    assert (moved.bias, moved.gain, moved.scatter) == pytest.approx((4, 0, 0), abs=1e-9)
    deviations = y - np.array([y[groups == g].mean(0) for g in range(4)])[groups]
    wide = parts(y + 0.5 * deviations, y, groups)
    assert (wide.bias, wide.scatter) == pytest.approx((0, 0), abs=1e-9)
    assert wide.gain == pytest.approx(0.25 * np.mean(deviations**2)) and wide.variance_ratio == pytest.approx(2.25)
    flat = parts(y - deviations, y, groups)
    assert (flat.bias, flat.gain) == pytest.approx((0, 0), abs=1e-9)
    assert flat.scatter == pytest.approx(np.mean(deviations**2)) and flat.variance_ratio == pytest.approx(0, abs=1e-9)


def test_what_does_not_vary_has_no_correlation() -> None:
    y = np.arange(12.0).reshape(3, 4)
    zeros = np.zeros(3, dtype=int)
    still = parts(np.zeros_like(y), y, zeros)
    assert still.correlation is None and still.variance_ratio == 0 and still.gain == 0
    assert still.bias + still.scatter == pytest.approx(np.mean(y**2))
    constant = parts(y, np.ones_like(y), zeros)
    assert (constant.correlation, constant.variance_ratio) == (None, None)
    with pytest.raises(UserError, match="do not belong together"):
        parts(y, y[:2], zeros)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    f, y, groups = draw(7)
    whole, along = parts(f, y, groups), spectrum(f, y, principal(y))
    monkeypatch.setattr(baselines, "_ELEMENTS", 40)
    again = parts(f, y, groups)
    assert vars(again) == pytest.approx(vars(whole), rel=1e-12)
    for one, other in zip(spectrum(f, y, principal(y)), along, strict=True):
        assert one == pytest.approx(other, rel=1e-9)


# ----------------------------------------------------------------- directions


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 60), most=st.sampled_from([1, 5, 1024]))
def test_errors_along_directions_sum_to_the_error(seed: int, n: int, most: int) -> None:
    # 12 components: with fewer rows than that the directions do not span the space, and the rest is a band of its own.
    f, y, _ = draw(seed, n)
    lines = spectrum(f, y, principal(y, most))
    wide = [a.astype(np.float64) for a in (f, y)]
    sums = {name: sum(line[name] for line in lines) for name in ("error", "variance", "reference_variance")}
    assert sums["error"] == pytest.approx(np.mean((wide[0] - wide[1]) ** 2), rel=1e-10)
    assert sums["variance"] == pytest.approx(wide[0].var(0).mean(), rel=1e-10)
    assert sums["reference_variance"] == pytest.approx(wide[1].var(0).mean(), rel=1e-10)
    assert [line["first"] for line in lines][1:] == [line["last"] + 1 for line in lines][:-1]
    assert (lines[0]["first"], lines[-1]["last"]) == (1, 12)


@pytest.mark.parametrize("n", [8, 200])
def test_directions_are_those_of_numpy(n: int) -> None:
    _, y, _ = draw(8, n)
    found = principal(y)
    flat = y.reshape(n, -1).astype(np.float64)
    values = np.linalg.eigvalsh(np.cov(flat.T, bias=True))[::-1]
    count = min(12, n - 1)
    assert found.axes.shape == (count, 12)
    np.testing.assert_allclose(found.axes @ found.axes.T, np.eye(count), atol=1e-10)
    np.testing.assert_allclose(found.variances * 12, values[:count], rtol=1e-8)
    assert found.variance * 12 == pytest.approx(values.sum())


def test_from_the_first_rows_alone() -> None:
    _, y, _ = draw(9, 30)
    few = principal(y, rows=20)
    np.testing.assert_allclose(abs(few.axes @ principal(y[:20]).axes.T), np.eye(12), atol=1e-8)
    # Mean and variances are of all rows.
    assert few.variance == pytest.approx(y.astype(np.float64).var(0).mean())


def test_bands_are_octaves() -> None:
    assert bands(9, 9) == [(1, 1), (2, 3), (4, 7), (8, 9)]
    assert bands(4, 9) == [(1, 1), (2, 3), (4, 4), (5, 9)]
    assert bands(0, 3) == [(1, 3)]


def test_an_error_in_one_direction_lies_in_its_band() -> None:
    _, y, _ = draw(10, 50)
    found = principal(y)
    f = y.astype(np.float64) + 3 * found.axes[4].reshape(SHAPE)
    lines = spectrum(f, y.astype(np.float64), found)
    assert {line["first"]: line["error"] for line in lines} == pytest.approx({1: 0, 2: 0, 4: 9 / 12, 8: 0}, abs=1e-9)
    assert all(line["variance"] == pytest.approx(line["reference_variance"]) for line in lines)


# ----------------------------------------------------------------- the metric


def test_the_metric_matches_rows() -> None:
    f, y, groups = draw(11)
    rows = np.arange(40)
    other = np.random.default_rng(0).permutation(40)
    plain = ode_parts(f, rows, y, rows, groups, principal(y))
    shuffled = ode_parts(f, rows, y[other], other, groups, principal(y))
    assert shuffled.error == plain.error
    assert plain.error == pytest.approx(ode_error(f, rows, y, rows).mean(), rel=1e-12)
    assert plain.dim == 12 and shuffled.tables == plain.tables
    with pytest.raises(UserError, match="are not the same"):
        ode_parts(f, rows + 1, y, rows, groups, principal(y))


def test_rank_correlation() -> None:
    a, b = np.array([1.0, 2, 3, 4, 5]), np.array([2.0, 1, 4, 3, 5])
    # 1 − 6 Σd²/(n(n² − 1)) = 1 − 6·4/120.
    assert rank_correlation(a, b) == pytest.approx(0.8)
    assert rank_correlation(a, -(b**3)) == pytest.approx(-0.8)
    assert rank_correlation(a, np.ones(5)) is None
