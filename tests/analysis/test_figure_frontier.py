"""The frontier: both coordinates of every point, the order of the path, and nothing of other settings."""

from __future__ import annotations

import statistics

import pytest

from directcm.analysis.figures import figure_frontier
from directcm.errors import UserError
from directcm.runtime.artifacts import read_csv
from tests.analysis import tidy_tables as tables
from tests.analysis.tidy_tables import MAIN, SNAPSHOTS, alike, outputs, spy, value


@pytest.mark.slow
def test_paths_are_means_of_both_metrics_along_training(tmp_path, monkeypatch):
    m = tables.metrics(tmp_path / "m.csv")
    saved = spy(monkeypatch)
    for name in "ab":
        figure_frontier.draw(m, MAIN, *outputs(tmp_path, name))
    assert alike(tmp_path, "a", "b")
    rows = read_csv(tmp_path / "a.csv")
    long = MAIN.at(steps=1000, pool=16000)
    for method, label in (("cm", "CM"), ("direct_cm", "Direct CM")):
        own = [r for r in rows if (r["row"], r["metric"], r["reference"]) == (label, "clip_tiny", "prompt")]
        means = [r for r in own if not r["seed"]]
        assert [int(r["step"]) for r in means] == list(SNAPSHOTS)
        assert {(r["steps"], r["pool"], r["adapter"], r["n_seeds"]) for r in means} == {
            ("1000", "16000", "lora64", "3")
        }
        for r in means:
            at = int(r["step"])
            x = [value(method, long, s, at, "ode_error", "teacher") for s in range(3)]
            y = [value(method, long, s, at, "clip_tiny", "prompt") for s in range(3)]
            assert float(r["ode_error"]) == pytest.approx(statistics.mean(x))
            assert float(r["value"]) == pytest.approx(statistics.mean(y))
            seeds = [s for s in own if s["seed"] and s["step"] == r["step"]]
            assert [float(s["ode_error"]) for s in seeds] == pytest.approx(x)
            assert [float(s["value"]) for s in seeds] == pytest.approx(y)
    # One panel per quality metric and reference; both axes say which way is better.
    assert len(saved[0].axes) == 7
    assert saved[0].axes[0].get_xlabel() == "ODE error (latent MSE)\n← better"
    assert saved[0].axes[0].get_title("left") == "FD-tiny to teacher ↓"
    assert {"62", "250", "1,000"} <= set(saved[0].words)


def test_stops_need_both_metrics_of_a_seed():
    errors = {(0, 10.0): 1.0, (1, 10.0): 3.0, (0, 20.0): 0.5}
    values = {(0, 10.0): 4.0, (2, 10.0): 9.0, (0, 20.0): 2.0, (0, 30.0): 1.0}
    first, second = figure_frontier.stops(errors, values)
    assert (first.step, first.x, first.y, dict(first.seeds)) == (10.0, 1.0, 4.0, {0: (1.0, 4.0)})
    assert (second.step, second.x, second.y) == (20.0, 0.5, 2.0)


def test_one_seed_and_one_metric(tmp_path, monkeypatch):
    pairs = [("ode_error", "teacher"), ("fd_tiny", "teacher")]
    m = tables.metrics(tmp_path / "m.csv", [(MAIN, [7], [10, 250])], pairs, {}, {})
    saved = spy(monkeypatch)
    figure_frontier.draw(m, MAIN, *outputs(tmp_path, "f"))
    assert len(saved[0].axes) == 1 and "CM (1 seed)" in saved[0].words


def test_errors_name_the_key(tmp_path):
    m = tables.metrics(tmp_path / "m.csv", [(MAIN, [0], [250])])
    with pytest.raises(UserError, match=r"snapshots: \[62, 125\] to a line of the key students of config.yaml"):
        figure_frontier.draw(m, MAIN, *outputs(tmp_path, "f"))
    m = tables.metrics(tmp_path / "m.csv", [(MAIN, [0], [10, 250])], [("fd_tiny", "teacher")])
    with pytest.raises(UserError, match=r"key metrics of config\.yaml"):
        figure_frontier.draw(m, MAIN, *outputs(tmp_path, "f"))
