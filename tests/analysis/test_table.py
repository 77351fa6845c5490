"""Table 1: its numbers, its nine columns, the paper's column, escaping, equal bytes."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from directcm.analysis.selection import main_runs
from directcm.analysis.table import COLUMNS, latex, mean_sd, paper_value, table1
from directcm.errors import UserError

HOSTILE = '<script>alert("x")</script> $5_a$ 100% & #1 ~^\\ {🎉} مرحبا \u202e'


def run(make, config, tmp_path, artifacts=None, name="out"):
    out = {kind: tmp_path / name / f"table1.{kind}" for kind in ("csv", "tex", "html", "json")}
    table1(artifacts or make.main(config), config, out["csv"], out["tex"], out["html"], out["json"])
    return out


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Balanced(HTMLParser):
    """Every element is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *a) for a in attrs]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_mean_and_sd():
    values = [0.1, 0.4, 0.25, 7.0]
    mean, sd = mean_sd(values)
    assert mean == pytest.approx(np.mean(values))
    assert sd == pytest.approx(np.std(values, ddof=1))
    assert mean_sd([3.0]) == (3.0, None)


def test_csv_numbers_columns_and_order(make, config, tmp_path):
    rows = rows_of(run(make, config, tmp_path)["csv"])
    assert list(rows[0]) == COLUMNS
    assert ",".join(COLUMNS) == "row,steps,metric,reference,mean,sd,n_seeds,n_samples,paper"
    assert list(dict.fromkeys(r["row"] for r in rows)) == ["Teacher", "CM", "Direct CM"]
    cm = [(r["metric"], r["reference"]) for r in rows if r["row"] == "CM"]
    assert cm == [
        ("ode_error", "teacher"), ("fd_tiny", "teacher"), ("fd_tiny", "data"), ("kid_tiny", "teacher"), ("kid_tiny", "data"),
        ("clip_tiny", "prompt"), ("quality_tiny", "none"), ("prompt_accuracy", "prompt"),
    ]  # fmt: skip
    cell = next(r for r in rows if (r["row"], r["metric"], r["reference"]) == ("CM", "fd_tiny", "teacher"))
    seeds = [12.0 * 1.2 * f for f in (1, 1.03, 1.06)]
    assert float(cell["mean"]) == pytest.approx(np.mean(seeds), rel=1e-9)
    assert float(cell["sd"]) == pytest.approx(np.std(seeds, ddof=1), rel=1e-9)
    assert (cell["n_seeds"], cell["n_samples"], cell["steps"]) == ("3", "8", "1")
    teacher = [r for r in rows if r["row"] == "Teacher"]
    assert all(r["sd"] == "" and r["n_seeds"] == "1" and r["paper"] == "" and r["steps"] == "50" for r in teacher)
    assert not [r for r in teacher if r["reference"] == "teacher"]


def test_one_seed_has_no_sd(make, configure, tmp_path):
    rows = rows_of(run(make, configure(students=[{"seed": [5]}]), tmp_path)["csv"])
    assert {r["sd"] for r in rows} == {""}
    assert {r["n_seeds"] for r in rows} == {"1"}


def test_paper_column_rules(make, configure, tmp_path):
    rows = rows_of(run(make, configure(evaluation={"steps": [1, 4]}), tmp_path)["csv"])
    got = {(r["row"], r["metric"], r["reference"]): float(r["paper"]) for r in rows if r["paper"]}
    assert got == {
        ("CM", "fd_tiny", "teacher"): 95.3, ("Direct CM", "fd_tiny", "teacher"): 166.0, ("CM", "clip_tiny", "prompt"): 0.21,
        ("Direct CM", "clip_tiny", "prompt"): 0.19, ("CM", "quality_tiny", "none"): 5.5, ("Direct CM", "quality_tiny", "none"): 5.0,
    }  # fmt: skip
    assert {r["steps"] for r in rows if r["paper"]} == {"1"}
    assert paper_value("CM", 4, "fid", "teacher") is None
    assert paper_value("CM", 1, "fid", "data") is None
    assert paper_value("Teacher", 1, "fid", "teacher") is None


def test_the_papers_number_is_marked_as_another_scale_unless_it_is_ours(make, configure, tmp_path):
    config = configure(metrics=["fd_tiny", "fid"])
    runs = main_runs(config)
    artifacts = [
        make.metrics("Teacher", {k: runs[0][k] for k in ("solver", "N", "w")}, {("fid", "data"): 20.0}, steps=50)
    ]
    for r in runs:
        row = "CM" if r["method"] == "cm" else "Direct CM"
        artifacts.append(
            make.metrics(row, r, {("fd_tiny", "teacher"): 3.0, ("fid", "teacher"): 99.0, ("fid", "data"): 101.0})
        )
    out = run(make, config, tmp_path, artifacts)
    html, tex = out["html"].read_text(), out["tex"].read_text()
    # The run's teacher is the small one, so that even a real FID is on another scale than SDXL's.
    assert html.count("paper: FID 95.3 (SDXL; another scale)") == 2
    assert html.count("paper: FID 95.3 (SDXL)") == 0
    assert tex.count("FID 166.0{]}$^{\\dagger}$") == 2
    assert tex.count("FID 166.0{]}") == 2


def test_json_is_nested_by_row_and_suffixed_by_steps(make, configure, tmp_path):
    out = run(make, configure(evaluation={"steps": [4, 1]}), tmp_path)
    nested = json.loads(out["json"].read_text())
    assert set(nested) == {"Teacher", "CM", "Direct CM"}
    assert nested["CM"]["fd_tiny_teacher"] == pytest.approx(12 * 1.2 * 1.03)
    assert nested["CM"]["fd_tiny_teacher_k4"] == pytest.approx(12 * 1.2 * 1.03 / math.sqrt(2))
    assert {"ode_error", "clip_tiny", "kid_tiny_data", "ode_error_k4"} <= set(nested["Direct CM"])
    assert set(nested["Teacher"]) == {"fd_tiny_data", "kid_tiny_data", "clip_tiny", "quality_tiny", "prompt_accuracy"}


def test_a_seed_without_a_metric_is_an_error(make, config, tmp_path):
    first = main_runs(config)[0]
    artifacts = [a for a in make.main(config) if a.json("metrics.json")["run"] != first]
    with pytest.raises(UserError, match="lacks ode_error against teacher"):
        run(make, config, tmp_path, [*artifacts, make.metrics("CM", first, {("fd_tiny", "teacher"): 1.0})])


def test_an_undefined_value_empties_the_mean(make, configure, tmp_path):
    config = configure(metrics=["fd_tiny"], students=[{"seed": [0, 1]}])
    runs = main_runs(config)
    artifacts = [
        make.metrics("Teacher", {k: runs[0][k] for k in ("solver", "N", "w")}, {("fd_tiny", "data"): 20.0}, steps=50)
    ]
    for i, r in enumerate(runs):
        row = "CM" if r["method"] == "cm" else "Direct CM"
        artifacts.append(
            make.metrics(
                row,
                r,
                {("fd_tiny", "data"): 1.0 if i else None},
                flags={("fd_tiny", "data"): ["rank_deficient", HOSTILE]},
            )
        )
    out = run(make, config, tmp_path, artifacts)
    cm = next(r for r in rows_of(out["csv"]) if r["row"] == "CM")
    assert (cm["mean"], cm["sd"], cm["n_seeds"]) == ("", "", "2")
    html, tex = out["html"].read_text(), out["tex"].read_text()
    assert "fewer samples than feature dimensions" in html
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "\u202e" not in tex
    assert r"\$5\_a\$ 100\% \& \#1" in tex


def test_hostile_settings_are_escaped(make, configure, tmp_path):
    config = configure(data={"kind": "folder", "path": HOSTILE}, metrics=["ode_error", "clip_tiny"])
    out = run(make, config, tmp_path)
    html = out["html"].read_text()
    assert "<script" not in html
    assert "🎉" in html
    tex = out["tex"].read_text()
    assert "🎉" not in tex
    assert all(ord(c) < 256 for c in tex)
    assert tex.replace(r"\{", "").replace(r"\}", "").count("{") == tex.replace(r"\{", "").replace(r"\}", "").count("}")


def test_latex_escapes():
    assert latex("a_b 50% & $x^2$ {c} #1 ~ \\") == (
        r"a\_b 50\% \& \$x\textasciicircum{}2\$ \{c\} \#1 \textasciitilde{} \textbackslash{}"
    )
    assert latex("🎉é\n−1") == r"{[}U+1F389{]}é $-$1"


def test_html_is_one_readable_page(make, config, tmp_path):
    html = run(make, config, tmp_path)["html"].read_text()
    page = Balanced(html)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert ("meta", "name", "viewport") in page.attributes
    assert not [a for a in page.attributes if a[1] in ("src", "href")]
    assert "url(" not in html
    assert "@import" not in html
    assert page.tags.count("caption") == 1
    assert html.count('scope="row"') == 3
    assert "ODE error&nbsp;" in html
    assert "±" in html


def test_latex_has_one_shape(make, configure, tmp_path):
    tex = run(make, configure(evaluation={"steps": [1, 4]}), tmp_path)["tex"].read_text()
    body = tex[tex.index(r"\midrule") : tex.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 7
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {8}
    for command in (r"\toprule", r"\midrule", r"\bottomrule", r"\cmidrule(lr){3-4}", r"$\downarrow$", r"$\uparrow$"):
        assert command in tex


def test_equal_inputs_give_equal_bytes(make, config, tmp_path):
    artifacts = make.main(config)
    first = run(make, config, tmp_path, artifacts, "a")
    second = run(make, config, tmp_path, artifacts[::-1], "b")
    for kind in first:
        assert first[kind].read_bytes() == second[kind].read_bytes()


def test_the_analysis_never_imports_torch():
    code = (
        "import sys, directcm.analysis.table, directcm.analysis.paired, directcm.analysis.figure, directcm.analysis.provenance,"
        "directcm.analysis.style; print(*sys.modules)"
    )
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {"torch", "matplotlib", "pandas", "seaborn", "scipy"}
