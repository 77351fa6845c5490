"""Table 1 as dots: every cell at its place, with the floor's row."""

from __future__ import annotations

import pytest
from matplotlib.colors import to_hex

from directcm.analysis.figures import figure_results as figure
from directcm.analysis.figures import style
from directcm.errors import UserError
from directcm.runtime.artifacts import read_csv, write_csv
from tests.analysis.tidy_tables import FLOOR, MAIN, PAIRS, TEACHER, alike, outputs, spy, value


def table(path, sampling=(1,), sd=0.01):
    rows = [
        {"row": name, "steps": 50, "metric": m, "reference": r, "mean": v, "n_seeds": 1, "n_samples": 1024}
        for name, own in (("Teacher", TEACHER), ("Teacher, other noise", FLOOR))
        for (m, r), v in own.items()
    ]
    rows += [
        {
            "row": label, "steps": k, "metric": m, "reference": r, "mean": value(method, MAIN, 0, 250, m, r) / k**0.25,
            "sd": sd, "n_seeds": 3, "n_samples": 1024,
        }
        for method, label in (("cm", "CM"), ("direct_cm", "Direct CM"))
        for k in sampling
        for m, r in PAIRS
    ]  # fmt: skip
    write_csv(path, [{c: row.get(c) for c in figure.COLUMNS} for row in rows], list(figure.COLUMNS))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("sampling", "sd"), [((1,), 0.01), ((1, 4), None)])
def test_every_cell_is_drawn(tmp_path, monkeypatch, sampling, sd):
    t = table(tmp_path / "t.csv", sampling, sd)
    saved = spy(monkeypatch)
    for name in "ab":
        figure.draw(t, *outputs(tmp_path, name))
    assert alike(tmp_path, "a", "b")
    given, drawn = read_csv(t), read_csv(tmp_path / "a.csv")
    assert len(drawn) == len(given) and all(row in given for row in drawn)
    panel = next(a for a in saved[0].axes if a.get_xlabel() == "FD-tiny to teacher\n← better")
    dots = {to_hex(line.get_color()): float(line.get_xdata()[0]) for line in panel.lines if line.get_marker() in "dDo^"}
    for row in ("CM", "Direct CM", "Teacher, other noise"):
        cell = [r for r in given if (r["row"], r["metric"], r["reference"]) == (row, "fd_tiny", "teacher")][-1]
        assert dots[style.LOOKS[row].color] == pytest.approx(float(cell["mean"]))
    # The teacher has no distance to itself, but the floor has.
    assert style.LOOKS["Teacher"].color not in dots and "is the reference" in saved[0].words
    assert "Teacher, other noise" in saved[0].words


def test_an_unknown_row_is_an_error(tmp_path):
    t = table(tmp_path / "t.csv")
    t.write_text(t.read_text().replace("Direct CM", "Other"))
    with pytest.raises(UserError, match="unknown row 'Other'"):
        figure.draw(t, *outputs(tmp_path, "f"))
