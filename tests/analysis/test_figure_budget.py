"""Budget, capacity and sensitivity."""

from __future__ import annotations

import statistics

import pytest
from matplotlib.colors import to_hex

from directcm.analysis.figures import figure_budget, figure_sensitivity
from directcm.errors import UserError
from directcm.runtime.artifacts import read_csv
from tests.analysis import tidy_tables as tables
from tests.analysis.tidy_tables import MAIN, SNAPSHOTS, alike, outputs, spy, value


@pytest.mark.slow
def test_columns_are_adapters_by_capacity(tmp_path, monkeypatch):
    m = tables.metrics(tmp_path / "m.csv")
    saved = spy(monkeypatch)
    for name in "ab":
        figure_budget.draw(m, MAIN, *outputs(tmp_path, name))
    assert alike(tmp_path, "a", "b")
    rows = read_csv(tmp_path / "a.csv")
    assert [a.get_title() for a in saved[0].axes[:4]] == [
        "LoRA, rank 4",
        "LoRA, rank 16",
        "LoRA, rank 64",
        "all weights",
    ]
    long = MAIN.at(steps=1000, pool=16000)
    means = [r for r in rows if r["adapter"] and not r["seed"]]
    assert len(means) == 2 * 4 * 2 * len(SNAPSHOTS)
    for r in means:
        method = {"CM": "cm", "Direct CM": "direct_cm"}[r["row"]]
        setting = long.at(adapter=r["adapter"])
        own = [value(method, setting, s, int(r["step"]), r["metric"], r["reference"]) for s in range(3)]
        assert float(r["value"]) == pytest.approx(statistics.mean(own))
        assert float(r["sd"]) == pytest.approx(statistics.stdev(own))
    floor = [r for r in rows if r["row"] == "Teacher, other noise"]
    assert [(r["metric"], float(r["value"])) for r in floor] == [("fd_tiny", 0.09)]
    assert saved[0].axes[4].get_ylabel() == "FD-tiny to teacher\n← better"


def test_lengths_of_training_without_snapshots(tmp_path, monkeypatch):
    sets = [(MAIN.at(steps=k, pool=16 * k), [0], [k]) for k in (125, 250, 500)]
    m = tables.metrics(tmp_path / "m.csv", sets, [("ode_error", "teacher")], {}, {})
    spy(monkeypatch)
    figure_budget.draw(m, MAIN, *outputs(tmp_path, "f"))
    rows = read_csv(tmp_path / "f.csv")
    assert [(r["step"], r["steps"]) for r in rows if r["row"] == "CM" and not r["seed"]] == [
        (k, k) for k in ("125", "250", "500")
    ]


def test_one_budget_is_an_error(tmp_path):
    m = tables.metrics(tmp_path / "m.csv", [(MAIN.at(adapter=a), [0], [250]) for a in ("lora4", "full")])
    with pytest.raises(UserError, match=r"to a line of the key students of config\.yaml"):
        figure_budget.draw(m, MAIN, *outputs(tmp_path, "f"))


@pytest.mark.slow
def test_sensitivity_draws_the_comparisons(tmp_path, monkeypatch):
    c = tables.comparisons(tmp_path / "c.csv", p={("lora64", 250, 3.0, "ode_error"): 0.2})
    saved = spy(monkeypatch)
    for name in "ab":
        figure_sensitivity.draw(c, MAIN, *outputs(tmp_path, name))
    assert alike(tmp_path, "a", "b")
    rows = [r for r in read_csv(tmp_path / "a.csv") if (r["metric"], r["reference"]) == ("fd_tiny", "teacher")]
    assert [(r["axis"], r["setting"]) for r in rows] == [
        ("", "main: MSE, 0.0001"), ("loss", "pseudo-Huber"), ("lr", "learning rate 0.00003"), ("lr", "learning rate 0.0003"),
        ("lr", "learning rate 0.001"),
    ]  # fmt: skip
    for r, seeds in zip(rows, (5, 3, 3, 3, 3), strict=True):
        d = [
            value("cm", MAIN, s, 250, "fd_tiny", "teacher") - value("direct_cm", MAIN, s, 250, "fd_tiny", "teacher")
            for s in range(seeds)
        ]
        assert float(r["difference"]) == pytest.approx(statistics.mean(d))
        assert float(r["low"]) < float(r["difference"]) < float(r["high"])
    # CM − Direct CM > 0 speaks for Direct CM where lower is better, against it where higher is.
    labels = {a.get_title("left"): a.get_xlabel() for a in saved[0].axes}
    assert labels["ODE error (latent MSE) ↓"] == "CM − Direct CM\nDirect CM better →"
    assert labels["CLIP-tiny ↑"] == "CM − Direct CM\n← Direct CM better"
    dots = [line for line in saved[0].axes[0].lines if line.get_marker() == "s"]
    assert {to_hex(d.get_markerfacecolor()) for d in dots} == {"#ffffff"}
    dots = [line for line in saved[0].axes[1].lines if line.get_marker() == "s"]
    assert [d.get_xdata()[0] for d in dots] == pytest.approx([float(r["difference"]) for r in rows])
    assert "#ffffff" not in {to_hex(d.get_markerfacecolor()) for d in dots}


def test_sensitivity_without_variation_is_an_error(tmp_path):
    c = tables.comparisons(tmp_path / "c.csv", [(MAIN, [0, 1], [250]), (MAIN.at(w=8.0), [0, 1], [250])])
    with pytest.raises(UserError, match=r"key students of config\.yaml"):
        figure_sensitivity.draw(c, MAIN, *outputs(tmp_path, "f"))
