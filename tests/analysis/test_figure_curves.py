"""Training curves: tidy tables, smoothing by hand, gaps, equal bytes."""

from __future__ import annotations

import numpy as np
import pytest

from directcm.analysis.figures import figure_curves as figure
from directcm.config.specs import METHODS
from directcm.errors import UserError
from directcm.runtime.artifacts import read_csv, write_csv
from tests.analysis.tidy_tables import alike, outputs, spy


def curves(make, steps=60):
    return [
        figure.read_curve(row, seed, make.curve(row, steps, level, seed))
        for row, level in (("Direct CM", 0.1), ("CM", 0.02))
        for seed in (1, 0)
    ]


def test_the_table_is_tidy(make, tmp_path):
    figure.table(curves(make), tmp_path / "c.csv")
    rows = read_csv(tmp_path / "c.csv")
    assert list(rows[0]) == ["method", "seed", "step", "loss", "grad_norm"]
    assert len(rows) == 240
    ends = [(r["method"], r["seed"]) for r in rows[::60]]
    assert ends == [("CM", "0"), ("CM", "1"), ("Direct CM", "0"), ("Direct CM", "1")]
    assert float(rows[7]["loss"]) == curves(make)[3].loss[7]


def test_mean_curves_by_hand(make, tmp_path):
    found = curves(make, 5)
    found[2].loss[1] = np.nan
    figure.mean_table(found, tmp_path / "m.csv")
    rows = read_csv(tmp_path / "m.csv")
    assert list(rows[0]) == ["step", "loss_CM", "loss_Direct_CM", "grad_norm_CM", "grad_norm_Direct_CM"]
    assert float(rows[0]["loss_CM"]) == pytest.approx((found[2].loss[0] + found[3].loss[0]) / 2)
    assert float(rows[1]["loss_CM"]) == pytest.approx(found[3].loss[1])


def test_smooth_is_a_geometric_mean_that_skips_gaps():
    constant = figure.smooth(np.full(30, 0.5), 7)
    assert constant == pytest.approx(np.full(30, 0.5))
    assert figure.smooth(np.array([1.0, 100.0, 1.0]), 3) == pytest.approx([10.0, 100 ** (1 / 3), 10.0])
    gaps = figure.smooth(np.array([np.nan, 4.0, 0.0, np.inf]), 1)
    assert gaps[1] == pytest.approx(4.0)
    assert np.isnan(gaps[[0, 2, 3]]).all()


@pytest.mark.slow
def test_the_figure_is_reproducible_and_bears_gaps(make, tmp_path, monkeypatch):
    spy(monkeypatch)
    found = curves(make)
    found[0].loss[3:6] = (0.0, np.nan, np.inf)
    for name, order in (("a", found), ("b", found[::-1])):
        figure.plot(order, *outputs(tmp_path, name))
    assert alike(tmp_path, "a", "b")
    figure.plot(found[:1], *outputs(tmp_path, "one"))
    one = [figure.Curve("CM", 0, np.array([0]), np.array([0.0]), np.array([np.nan]))]
    figure.plot(one, *outputs(tmp_path, "flat"))
    with pytest.raises(UserError, match="none given"):
        figure.plot([], *outputs(tmp_path, "c"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no steps"),
        ([{"step": 1, "loss": "x", "grad_norm": 1}], "not a training curve"),
        ([{"step": 2, "loss": 1, "grad_norm": 1}, {"step": 1, "loss": 1, "grad_norm": ""}], "do not ascend"),
    ],
)
def test_a_broken_curve_is_an_error(tmp_path, rows, message):
    write_csv(tmp_path / "curve.csv", rows, ["step", "loss", "grad_norm"])
    with pytest.raises(UserError, match=message):
        figure.read_curve("CM", 0, tmp_path / "curve.csv")


@pytest.mark.slow
def test_with_every_method_all_text_is_on_the_page(make, tmp_path, monkeypatch):
    saved = spy(monkeypatch)
    rows = list(METHODS.values())
    figure.plot([figure.read_curve(row, 0, make.curve(row, 20, 0.1, 0)) for row in rows], *outputs(tmp_path, "all"))
    assert {f"{row} (1 seed)" for row in rows} <= set(saved[0].words)
