"""Figures 3 and 4: what is drawn is what the tables say, of the right runs only."""

from __future__ import annotations

import statistics

import pytest
from matplotlib.colors import to_hex

from directcm.analysis.figures import figure_sweep, style
from directcm.errors import UserError
from directcm.runtime.artifacts import read_csv
from tests.analysis import tidy_tables as tables
from tests.analysis.tidy_tables import MAIN, alike, outputs, spy, value


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tidy")
    return tables.metrics(folder / "m.csv"), tables.comparisons(folder / "c.csv")


@pytest.mark.slow
@pytest.mark.parametrize(("axis", "values"), [("N", [10, 20, 50, 100]), ("w", [1, 3, 5, 8])])
def test_means_and_seeds_of_the_sweep(inputs, tmp_path, monkeypatch, axis, values):
    saved = spy(monkeypatch)
    for name in "ab":
        figure_sweep.draw(*inputs, axis, MAIN, *outputs(tmp_path, name))
    assert alike(tmp_path, "a", "b")
    rows = read_csv(tmp_path / "a.csv")
    assert len({(r["metric"], r["reference"]) for r in rows}) == 8
    for method, label in (("cm", "CM"), ("direct_cm", "Direct CM")):
        own = [r for r in rows if (r["row"], r["metric"], r["reference"]) == (label, "fd_tiny", "data")]
        means = [r for r in own if not r["seed"]]
        assert [float(r["x"]) for r in means] == values
        for r in means:
            seeds = range(5) if float(r["x"]) == getattr(MAIN, axis) else range(3)
            setting = MAIN.at(**{axis: r["x"]})
            expected = [value(method, setting, s, 250, "fd_tiny", "data") for s in seeds]
            assert float(r["value"]) == pytest.approx(statistics.mean(expected))
            assert float(r["sd"]) == pytest.approx(statistics.stdev(expected))
            assert int(r["n_seeds"]) == len(expected)
            drawn = [float(s["value"]) for s in own if s["seed"] and s["x"] == r["x"]]
            assert drawn == pytest.approx(expected)
    # CM − Direct CM, as the comparison has it.
    cm = next(r for r in rows if r["row"] == "CM" and not r["seed"])
    direct = next(r for r in rows if r["row"] == "Direct CM" and not r["seed"])
    assert float(cm["difference"]) == pytest.approx(float(cm["value"]) - float(direct["value"]))
    # The lines on the canvas are the CSV's.
    axes = saved[0].axes[0]
    lines = [
        line
        for line in axes.lines
        if to_hex(line.get_color()) == style.LOOKS["CM"].color and line.get_linewidth() == 1.2
    ]
    assert list(lines[0].get_ydata()) == pytest.approx(
        [float(r["value"]) for r in rows if (r["row"], r["metric"], r["seed"]) == ("CM", "ode_error", "")]
    )
    assert axes.get_title("left") == "ODE error (latent MSE) ↓"
    assert axes.get_xscale() == ("log" if axis == "N" else "linear")


def test_open_markers_are_those_without_significance(tmp_path, monkeypatch):
    sets = [(MAIN, [0, 1], [250]), (MAIN.at(w=1.0), [0, 1], [250]), (MAIN.at(w=8.0), [0, 1], [250])]
    pairs = [("ode_error", "teacher")]
    m = tables.metrics(tmp_path / "m.csv", sets, pairs, {}, {})
    p = {
        ("lora64", 250, 1.0, "ode_error"): 0.049,
        ("lora64", 250, 3.0, "ode_error"): 0.051,
        ("lora64", 250, 8.0, "ode_error"): 0.9,
    }
    c = tables.comparisons(tmp_path / "c.csv", sets, pairs, p)
    saved = spy(monkeypatch)
    figure_sweep.draw(m, c, "w", MAIN, *outputs(tmp_path, "f"))
    marks = [s for s in saved[0].axes[0].collections if hasattr(s, "get_offsets") and len(s.get_offsets()) == 3]
    assert len(marks) == 2
    for own in marks:
        assert [to_hex(c) == "#ffffff" for c in own.get_facecolors()] == [False, True, True]


@pytest.mark.slow
def test_the_papers_values_stand_only_where_they_are_on_scale(tmp_path, monkeypatch):
    sets = [(MAIN.at(N=n), [0, 1], [250]) for n in (10, 50)]
    m = tables.metrics(tmp_path / "m.csv", sets, [("ode_error", "teacher"), ("fd_tiny", "teacher")], {}, {})
    c = tables.comparisons(tmp_path / "c.csv", sets, [("ode_error", "teacher")])
    saved = spy(monkeypatch)
    figure_sweep.draw(m, c, "N", MAIN, *outputs(tmp_path, "a"))
    figure_sweep.draw(m, c, "N", MAIN, *outputs(tmp_path, "b"), paper=["fd_tiny"])
    assert "paper" not in (tmp_path / "a.csv").read_text()
    assert {r["value"] for r in read_csv(tmp_path / "b.csv") if r["row"].startswith("paper")} == {"95.3", "166.0"}
    assert "↑ paper, CM 95.3" in saved[1].words and not any("paper" in word for word in saved[0].words)


def test_one_seed_no_teacher_and_holes(tmp_path, monkeypatch):
    sets = [(MAIN.at(N=n), [0], [250]) for n in (10, 50)]
    m = tables.metrics(tmp_path / "m.csv", sets, [("ode_error", "teacher"), ("fd_tiny", "teacher")], {}, {})
    text = m.read_text().splitlines()
    hole = next(i for i, line in enumerate(text) if "fd_tiny" in line and ",10," in line)
    cells = text[hole].split(",")
    cells[text[0].split(",").index("value")] = ""
    m.write_text("\n".join([*text[:hole], ",".join(cells), *text[hole + 1 :]]) + "\n")
    c = tables.comparisons(tmp_path / "c.csv", [sets[1]], [("ode_error", "teacher")])
    spy(monkeypatch)
    figure_sweep.draw(m, c, "N", MAIN, *outputs(tmp_path, "f"))
    rows = [r for r in read_csv(tmp_path / "f.csv") if r["metric"] == "fd_tiny" and not r["seed"]]
    assert [(r["row"], r["x"], r["sd"]) for r in rows] == [
        ("CM", "50", ""),
        ("Direct CM", "10", ""),
        ("Direct CM", "50", ""),
    ]


def test_no_sweep_is_an_error_that_names_the_key(inputs, tmp_path):
    with pytest.raises(
        UserError, match=r"1 value of N .* line with N: \[10, 20, 50, 100\] to the key students of config.yaml"
    ):
        figure_sweep.draw(*inputs, "N", MAIN.at(w=8.0), *outputs(tmp_path, "f"))
