"""The table of even and found sampling times: its lines, what is bold, pages and LaTeX."""

from __future__ import annotations

import csv
import re

import pytest

from directcm.analysis.tables.table_search import COLUMNS, times, write
from directcm.config import Config
from directcm.errors import UserError
from directcm.runtime.artifacts import new_artifact, open_artifact, write_json


def side(value, indices, own):
    return {"indices": indices, "times": own, "search": value + 0.5, "value": value}


def search(folder, method, p=(0.2, 0.004), **changes):
    """A search artefact: two steps, hardly better, and four, where found times are 1 better."""
    results = [
        {
            "steps": 2, "probes": 11, "even": side(3.0, [0, 9], [80.0, 2.4089]), "found": side(2.9, [0, 11], [80.0, 0.9654]),
            "difference": -0.1, "p": p[0],
        },
        {
            "steps": 4, "probes": 5, "even": side(2.5, [0, 4, 9, 14], [80.0, 20.1, 2.4089, 0.2]),
            "found": side(1.5, [0, 11, 12, 13], [80.0, 0.9654, 0.64, 0.4]), "difference": -1.0, "p": p[1],
        },
    ]  # fmt: skip
    content = {"metric": "fd_tiny", "reference": "data", "n": 1024, "n_search": 512, "dim": 64}
    content |= {"run": {"method": method, "seed": 3}, "results": results} | changes
    with new_artifact(folder, "search", settings={}) as art:
        write_json(art / "search.json", content)
    return open_artifact(folder, "search")


@pytest.fixture
def both(tmp_path):
    return [search(tmp_path / method, method) for method in ("cm", "direct_cm")]


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_line_per_student_and_number_of_steps(both, tmp_path):
    rows = write(both, Config(), tmp_path / "t.csv")
    found = read(tmp_path / "t.csv")
    assert list(found[0]) == COLUMNS and len(rows) == len(found) == 4
    assert [(r["row"], r["steps"]) for r in found] == [(m, k) for m in ("CM", "Direct CM") for k in ("2", "4")]
    assert found[0] == {
        "row": "CM", "seed": "3", "steps": "2", "metric": "fd_tiny", "reference": "data", "even_times": "80, 2.41", "even": "3.0",
        "found_times": "80, 0.965", "found": "2.9", "difference": "-0.1", "p": "0.2", "n": "1024", "dim": "64",
        "even_search": "3.5", "found_search": "3.4", "n_search": "512", "probes": "11",
    }  # fmt: skip
    assert times([1000.0, 480.0, 20.0]) == "1000, 480, 20"


def test_bold_where_the_difference_is_significant(both, tmp_path):
    write(both, Config(), tmp_path / "t.csv")
    html = (tmp_path / "t.html").read_text()
    assert re.findall(r'data-label="([^"]*)"><span class="value"><strong>(.*?)<', html) == 2 * [
        ("Found, FD-tiny", "1.500"),
        ("p", "0.004"),
    ]
    assert "<strong>2.900" not in html and "−1.000" in html
    write([search(tmp_path / "x", "cm", p=(None, 0.3))], Config(), tmp_path / "n.csv")
    html = (tmp_path / "n.html").read_text()
    assert "<strong>" not in html and ">–<" in html


def test_notes_say_what_was_held_out(both, tmp_path):
    write(both, Config(), tmp_path / "t.csv")
    for suffix in ("html", "tex"):
        text = " ".join((tmp_path / f"t.{suffix}").read_text().split())
        for words in ("512 samples of a noise and prompts of its own", "which it did not see", "16 probes a student"):
            assert words in text, (suffix, words)
        assert "training seed 3" in text and "is not the published metric" in text


def test_latex_has_one_shape(both, tmp_path):
    write(both, Config(), tmp_path / "t.csv")
    tex = (tmp_path / "t.tex").read_text()
    body = tex[tex.index(r"\midrule") : tex.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 4 and {line.count("&") for line in lines} == {7}
    assert r"\begin{tabular}{@{}lrlrlrrr@{}}" in tex and r"\label{tab:table_search}" in tex


def test_equal_inputs_give_equal_bytes(both, tmp_path):
    for name in "ab":
        write(both, Config(), tmp_path / f"{name}.csv")
    for suffix in ("csv", "tex", "html"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_unlike_searches_and_none_are_refused(both, tmp_path):
    other = search(tmp_path / "other", "direct_cm", n=512)
    with pytest.raises(UserError, match="another metric, reference or number of samples"):
        write([both[0], other], Config(), tmp_path / "t.csv")
    with pytest.raises(UserError, match="no search artefact"):
        write([], Config(), tmp_path / "t.csv")
