"""Where the error is: three errors and the cross term with its sign, of the main setting over N."""

from __future__ import annotations

import pytest

from directcm.analysis.figures import figure_error
from directcm.errors import UserError
from directcm.runtime.artifacts import read_csv, write_csv
from tests.analysis import tidy_tables as tables
from tests.analysis.tidy_tables import MAIN, alike, outputs, spy


@pytest.mark.slow
def test_errors_by_time(tmp_path, monkeypatch):
    e = tables.errors(tmp_path / "e.csv")
    saved = spy(monkeypatch)
    for name in "ab":
        figure_error.draw(e, MAIN, *outputs(tmp_path, name))
    assert alike(tmp_path, "a", "b")
    given, rows = read_csv(e), read_csv(tmp_path / "a.csv")
    assert {r["N"] for r in rows} == {"10", "20", "50", "100"}
    columns = {"student": "student_error", "total": "total_error"}
    for r in (r for r in rows if not r["seed"] and r["quantity"] in columns):
        method = {"CM": "cm", "Direct CM": "direct_cm"}[r["row"]]
        own = [
            float(g[columns[r["quantity"]]])
            for g in given
            if (g["method"], g["N"], g["space"], g["time"], g["adapter"])
            == (method, r["N"], r["space"], r["time"], "lora64")
        ]
        assert len(own) == 3 and float(r["value"]) == pytest.approx(sum(own) / 3)
    shares = [r for r in rows if r["quantity"] == "cross / total" and not r["seed"]]
    assert {float(r["value"]) > 0 for r in shares if int(r["time"]) > 600} == {True}
    assert {float(r["value"]) < 0 for r in shares if int(r["time"]) < 600} == {True}
    seed = next(r for r in rows if r["quantity"] == "cross / total" and r["seed"] == "1")
    g = next(
        g
        for g in given
        if (g["method"], g["N"], g["seed"], g["space"], g["time"])
        == ("cm", seed["N"], "1", seed["space"], seed["time"])
    )
    assert float(seed["value"]) == pytest.approx(100 * float(g["cross_term"]) / float(g["total_error"]))
    # Latents above, pixels below, each with its cross term; columns by N.
    assert [a.get_title() for a in saved[0].axes[:4]] == ["N = 10", "N = 20", "N = 50", "N = 100"]
    assert [a.get_yscale() for a in saved[0].axes[::4]] == ["log", "linear", "log", "linear"]


@pytest.mark.slow
def test_solver_error_is_one_line(tmp_path, monkeypatch):
    e = tables.errors(tmp_path / "e.csv", [50], [3])
    spy(monkeypatch)
    figure_error.draw(e, MAIN, *outputs(tmp_path, "f"))
    rows = [r for r in read_csv(tmp_path / "f.csv") if r["quantity"] == "solver"]
    assert [(r["space"], int(r["time"]), r["row"]) for r in rows] == [
        (space, t, "") for space in ("latent", "pixel") for t in range(100, 1001, 100)
    ]
    assert float(rows[9]["value"]) == pytest.approx(0.35 * (10 / 50) ** 1.6)


def test_no_errors_of_the_main_setting(tmp_path):
    e = tables.errors(tmp_path / "e.csv", [50], [0])
    with pytest.raises(UserError, match=r"no errors of the main setting.*key students of config.yaml"):
        figure_error.draw(e, MAIN.at(lr=1.0), *outputs(tmp_path, "f"))


@pytest.mark.slow
def test_times_that_bunch_towards_the_data_have_a_log_axis(tmp_path, monkeypatch):
    e = tables.errors(tmp_path / "e.csv", [50], [3])
    rows = read_csv(e)
    for r in rows:
        r["time"] = str(80 * (int(r["time"]) / 1000) ** 7)
    write_csv(tmp_path / "karras.csv", [r for r in rows if r["space"] == "pixel"], list(rows[0]))
    saved = spy(monkeypatch)
    figure_error.draw(tmp_path / "karras.csv", MAIN, *outputs(tmp_path, "k"))
    figure_error.draw(e, MAIN, *outputs(tmp_path, "v"))
    assert [a.get_xscale() for a in saved[0].axes] == ["log", "log"]
    assert saved[0].axes[0].get_ylabel().startswith("error in pixels")
    assert {a.get_xscale() for a in saved[1].axes} == {"linear"}
