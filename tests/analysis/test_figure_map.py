"""The map: signs, hatching, and the paper's inversion."""

from __future__ import annotations

import pytest

from directcm.analysis.figures import figure_map, style
from directcm.errors import UserError
from directcm.runtime.artifacts import read_csv
from tests.analysis import tidy_tables as tables
from tests.analysis.tidy_tables import MAIN, SNAPSHOTS, alike, outputs, spy, value

BOTH = [("ode_error", "teacher"), ("fd_tiny", "teacher")]
LONG = MAIN.at(steps=1000, pool=16000)


@pytest.mark.parametrize(
    ("ode", "fd", "p_ode", "p_fd", "inverted"),
    [
        (0.1, -0.1, 0.01, 0.01, True),
        (-0.1, 0.1, 0.01, 0.01, False),
        (0.1, 0.1, 0.01, 0.01, False),
        (-0.1, -0.1, 0.01, 0.01, False),
        (0.1, -0.1, 0.051, 0.01, False),
        (0.1, -0.1, 0.01, 0.051, False),
        (0.1, -0.1, "", 0.01, False),
    ],
)
def test_inversion_is_direct_cm_ahead_in_ode_error_and_cm_in_fd(ode, fd, p_ode, p_fd, inverted):
    rows = [{"difference": str(d), "p": str(p)} for d, p in ((ode, p_ode), (fd, p_fd))]
    assert figure_map.inverted(*rows) is inverted
    assert not figure_map.inverted(None, rows[1]) and not figure_map.inverted(rows[0], None)


@pytest.mark.slow
def test_cells_are_the_comparisons(tmp_path, monkeypatch):
    c = tables.comparisons(tmp_path / "c.csv")
    saved = spy(monkeypatch)
    for name in "ab":
        figure_map.draw(c, MAIN, *outputs(tmp_path, name))
    assert alike(tmp_path, "a", "b")
    rows = read_csv(tmp_path / "a.csv")
    budget = [r for r in rows if r["panel"] == "budget"]
    assert len(budget) == 2 * 4 * len(SNAPSHOTS)
    for r in budget:
        setting = LONG.at(adapter=r["adapter"])
        d = [
            value("cm", setting, s, int(r["step"]), r["metric"], "teacher")
            - value("direct_cm", setting, s, int(r["step"]), r["metric"], "teacher")
            for s in range(3)
        ]
        assert float(r["difference"]) == pytest.approx(sum(d) / 3)
    assert {float(r["w"]) for r in rows if r["panel"] == "guidance"} == {1, 3, 5, 8}
    # By construction Direct CM's FD turns up late with few weights.
    assert {(r["adapter"], r["step"]) for r in budget if r["inversion"] == "1"} == {
        ("lora4", "500"),
        ("lora4", "1000"),
        ("lora16", "1000"),
    }
    assert "the paper's inversion" in saved[0].words and "> 0: Direct CM better" in saved[0].words
    assert any("−0.941" in word for word in saved[0].words)
    # How deep a colour is says the root of how large a difference is, and the bars say so.
    assert saved[0].words.count("root scale") == 2


def test_hatching_and_outline(tmp_path, monkeypatch):
    sets = [(LONG.at(adapter=a), [0, 1, 2], [62, 1000]) for a in ("lora4", "full")]
    p = {
        ("lora4", 62, 3.0, "fd_tiny"): 0.051,
        ("lora4", 1000, 3.0, "fd_tiny"): 0.04,
        ("lora4", 1000, 3.0, "ode_error"): 0.04,
        ("full", 62, 3.0, "fd_tiny"): "",
    }
    c = tables.comparisons(tmp_path / "c.csv", sets, BOTH, p)
    saved = spy(monkeypatch)
    figure_map.draw(c, MAIN.at(steps=1000, pool=16000), *outputs(tmp_path, "f"))
    rows = {(r["metric"], r["adapter"], r["step"]): r for r in read_csv(tmp_path / "f.csv")}
    assert rows["fd_tiny", "lora4", "62"]["significant"] == rows["fd_tiny", "full", "62"]["significant"] == "0"
    assert rows["fd_tiny", "lora4", "1000"]["significant"] == "1"
    panel = saved[0].axes[0]
    hatched = {(round(q.get_x() + 0.5), round(q.get_y() + 0.5)) for q in panel.patches if q.get_hatch()}
    assert {(0, 0), (0, 1)} <= hatched and (1, 0) not in hatched
    bold = [q for q in panel.patches if q.get_linewidth() == 1.8]
    assert [(round(q.get_x() + 0.46), round(q.get_y() + 0.46)) for q in bold] == [(1, 0)]
    # Colours lean to the method that is ahead.
    from matplotlib.colors import to_rgb

    filled = {
        (round(q.get_x() + 0.5), round(q.get_y() + 0.5)): q.get_facecolor()
        for q in panel.patches
        if q.get_width() == 1 and not q.get_hatch()
    }
    for at, method in (((0, 0), "Direct CM"), ((1, 0), "CM")):
        ours, other = (to_rgb(style.LOOKS[n].color) for n in (method, {"CM": "Direct CM", "Direct CM": "CM"}[method]))
        distance = [sum((a - b) ** 2 for a, b in zip(filled[at][:3], c, strict=True)) for c in (ours, other)]
        assert distance[0] < distance[1]


def test_no_inversion_is_said(tmp_path, monkeypatch):
    c = tables.comparisons(tmp_path / "c.csv", [(LONG, [0, 1, 2], [62, 125])], BOTH)
    saved = spy(monkeypatch)
    figure_map.draw(c, MAIN, *outputs(tmp_path, "f"))
    assert "the paper's inversion: no such cell" in saved[0].words


def test_guidance_alone(tmp_path, monkeypatch):
    c = tables.comparisons(tmp_path / "c.csv", [(MAIN.at(w=w), [0, 1], [250]) for w in (1.0, 3.0, 8.0)], BOTH)
    spy(monkeypatch)
    figure_map.draw(c, MAIN, *outputs(tmp_path, "f"))
    assert {r["panel"] for r in read_csv(tmp_path / "f.csv")} == {"guidance"}


def test_nothing_to_map_is_an_error(tmp_path):
    c = tables.comparisons(tmp_path / "c.csv", [(MAIN, [0, 1], [250])], BOTH)
    with pytest.raises(UserError, match=r"key students of config\.yaml"):
        figure_map.draw(c, MAIN, *outputs(tmp_path, "f"))
    c = tables.comparisons(tmp_path / "c.csv", [(LONG, [0, 1], [62, 125])], [("clip_tiny", "prompt")])
    with pytest.raises(UserError, match=r"key metrics of config\.yaml"):
        figure_map.draw(c, MAIN, *outputs(tmp_path, "f"))
