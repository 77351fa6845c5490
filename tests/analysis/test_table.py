"""The tables: their numbers and columns, the paper's numbers, what may be bold, escaping, equal bytes."""

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

from directcm.analysis import needs
from directcm.analysis.data.selection import main_runs
from directcm.analysis.data.tidy import FLOOR
from directcm.analysis.tables.cells import COLUMNS, paper_value
from directcm.analysis.tables.sheet import latex
from directcm.analysis.tables.table1 import text
from directcm.analysis.tables.table_comparison import COLUMNS as COMPARISON_COLUMNS
from directcm.analysis.tables.table_comparison import reading
from directcm.analysis.tables.text import fixed, shown_p
from directcm.errors import UserError
from tests.analysis.tidy_tables import available, table

HOSTILE = '<script>alert("x")</script> $5_a$ 100% & #1 ~^\\ {🎉} مرحبا \u202e'
HEADLINE = ["ode_error", "fd_tiny", "kid_tiny", "clip_tiny", "quality_tiny", "prompt_accuracy"]
SMALL = [{"seed": [0, 1, 2]}]


def run(make, config, tmp_path, name="table1", where="out", **more):
    metrics, comparisons = make.tidy(config, further=name == "table_further", **more)
    table(name, metrics, comparisons, config, tmp_path / where / f"{name}.csv")
    return {kind: tmp_path / where / f"{name}.{kind}" for kind in ("csv", "tex", "html", "json")}


def of_both(config):
    """The tables that are made of metrics.csv and comparisons.csv."""
    return [one.name for one in needs.available(config) if one.kind == "table" and one.takes == "metrics comparisons"]


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def strong(html):
    """(row, label, value) of each bold value."""
    found = []
    for line in re.findall(r'<tr role="row">\n<th scope="row".*?</tr>', html, re.DOTALL):
        name = re.search(r'rowheader">(.*?)(&nbsp;|<br>)', line)[1]
        found += [
            (name, label, value)
            for label, value in re.findall(
                r'data-label="([^"]*)"><span><span class="value"><strong>(.*?)</strong>', line
            )
        ]
    return found


class Balanced(HTMLParser):
    """Every element is closed in order."""

    def __init__(self, content):
        super().__init__()
        self.open, self.tags, self.attributes = [], [], []
        self.feed(content)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *a) for a in attrs]
        if tag not in ("meta", "br", "input", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


# ----------------------------------------------------------------- numbers


def test_table1_numbers_columns_and_order(make, configure, tmp_path):
    config = configure(students=[*SMALL, {"N": [10], "seed": [7]}, {"steps": [100], "snapshots": [50]}])
    rows = rows_of(run(make, config, tmp_path)["csv"])
    assert list(rows[0]) == COLUMNS
    assert ",".join(COLUMNS) == "row,steps,metric,reference,mean,sd,n_seeds,n_samples,paper"
    assert list(dict.fromkeys(r["row"] for r in rows)) == ["Teacher", FLOOR, "CM", "Direct CM"]
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
    floor = {(r["metric"], r["reference"]): float(r["mean"]) for r in rows if r["row"] == FLOOR}
    assert floor["fd_tiny", "teacher"] == pytest.approx(1.2)
    assert ("ode_error", "teacher") not in floor


def test_one_seed_has_no_sd(make, configure, tmp_path):
    out = run(make, configure(students=[{"seed": [5]}]), tmp_path)
    assert {r["sd"] for r in rows_of(out["csv"])} == {""}
    assert {r["n_seeds"] for r in rows_of(out["csv"])} == {"1"}
    assert "a test says nothing about other seeds" in out["html"].read_text()


def test_table2_has_every_solver_under_its_own_teacher(make, configure, tmp_path):
    config = configure(
        students=[*SMALL, {"solver": ["heun", "euler"], "seed": [0, 1]}, {"solver": ["heun"], "lr": [0.1]}]
    )
    out = run(make, config, tmp_path, "table2")
    rows = rows_of(out["csv"])
    assert list(rows[0]) == ["solver", *COLUMNS]
    lines = list(dict.fromkeys((r["solver"], r["row"], r["n_seeds"]) for r in rows))
    students = [("ddim", "3"), ("euler", "2"), ("heun", "2")]
    assert lines == [
        (s, row, n if row in ("CM", "Direct CM") else "1")
        for s, n in students
        for row in ("Teacher", FLOOR, "CM", "Direct CM")
    ]
    # The paper's main comparison is with DDIM.
    assert {r["solver"] for r in rows if r["paper"]} == {"ddim"}
    html = out["html"].read_text()
    assert re.findall(r'scope="rowgroup"[^>]*>(.*?)<', html) == ["DDIM", "Euler", "Heun"]
    assert r"\textit{Euler}" in out["tex"].read_text()
    assert "number of seeds: 2 to 3." in html


def test_table3_puts_the_methods_side_by_side_at_each_number_of_steps(make, configure, tmp_path):
    config = configure(students=[{"seed": [0, 1], "sampling_steps": [8, 1, 2]}])
    out = run(make, config, tmp_path, "table3")
    rows = rows_of(out["csv"])
    assert list(dict.fromkeys((r["row"], r["steps"]) for r in rows)) == [
        ("Teacher", "50"), (FLOOR, "50"), ("CM", "1"), ("Direct CM", "1"), ("CM", "2"), ("Direct CM", "2"), ("CM", "8"),
        ("Direct CM", "8"),
    ]  # fmt: skip
    assert {r["steps"] for r in rows if r["paper"]} == {"1"}
    cell = next(r for r in rows if (r["row"], r["steps"], r["metric"]) == ("Direct CM", "2", "ode_error"))
    assert float(cell["mean"]) == pytest.approx(0.2 * 1.015 / 2**0.25)
    # Table 1 is of the fewest steps alone.
    assert {r["steps"] for r in rows_of(run(make, config, tmp_path)["csv"])} == {"1", "50"}


UNEVEN = [
    {"method": ["cm", "direct_cm"], "seed": [0, 1], "sampling_steps": [1, 2]},
    {"method": ["cd"], "seed": [0]},
    {"method": ["cd"], "seed": [1], "sampling_steps": [1, 2, 4]},
]


def test_table3_has_of_each_run_the_sampling_steps_that_the_grid_has(make, configure, tmp_path):
    config = configure(students=UNEVEN, evaluation={"steps": [1]})
    rows = rows_of(run(make, config, tmp_path, "table3")["csv"])
    found = {(r["row"], r["steps"]): r["n_seeds"] for r in rows if r["steps"] != "50"}
    both = {(row, k): "2" for row in ("CM", "Direct CM") for k in ("1", "2")}
    assert found == {**both, ("CD", "1"): "2", ("CD", "2"): "1", ("CD", "4"): "1"}

    def place(row):
        return row["row"], row.get("seed"), row["sampling_steps"]

    def more(metrics, comparisons):
        metrics += [m | {"sampling_steps": 2} for m in metrics if place(m) == ("CD", "0", 1)]

    # What an older grid has left is not the grid's.
    assert rows_of(run(make, config, tmp_path, "table3", change=more)["csv"]) == rows

    def less(metrics, comparisons):
        metrics[:] = [m for m in metrics if place(m) != ("CD", "1", 2)]

    with pytest.raises(UserError, match=r"none of CD at 2 sampling steps with .*seed = 1; evaluate this student"):
        run(make, config, tmp_path, "table3", change=less)


def test_other_metrics_have_a_line_each(make, configure, tmp_path):
    config = configure(students=SMALL, metrics=["ode_error", "fd_tiny", "cmmd_tiny", "precision_tiny"])
    out = run(make, config, tmp_path, "table_metrics")
    assert {r["metric"] for r in rows_of(out["csv"])} == {"cmmd_tiny", "precision_tiny"}
    html = out["html"].read_text()
    assert html.count('scope="row"') == 4
    assert 'data-label="Direct CM"' in html
    assert {r["metric"] for r in rows_of(run(make, config, tmp_path)["csv"])} == {"ode_error", "fd_tiny"}


def test_what_the_grid_has_nothing_for_is_an_error_that_names_the_key(make, configure, tmp_path):
    config = configure(students=SMALL, evaluation={"steps": [1]}, metrics=["ode_error"])
    of_both = ["table1", "table_parts", "table_baselines"]
    assert available(config) == [*of_both, "table_further", "table_comparison"]
    assert available(config.model_copy(update={"further_metrics": []})) == [*of_both, "table_comparison"]
    for name, message in (
        ("table2", r"students: no line varies solver, all have ddim.*solver: \[euler, heun\]"),
        ("table3", r"students: sampling_steps of the main comparison is 1 alone.*sampling_steps: \[1, 2, 4, 8\]"),
        ("table_metrics", r"metrics: all of them stand in Table 1"),
    ):
        with pytest.raises(UserError, match=message) as error:
            run(make, config, tmp_path, name)
        assert len(str(error.value).splitlines()) == 1
    one = configure(students=[{"method": ["cm"], "seed": [0, 1]}])
    assert "table_comparison" not in available(one)
    with pytest.raises(UserError, match="students: method has only one"):
        run(make, one, tmp_path, "table_comparison")
    full = configure()
    assert available(full)[:3] == ["table1", "table2", "table3"]


def test_further_metrics_have_a_table_of_their_own(make, configure, tmp_path):
    config = configure(students=SMALL, further_metrics=["fd_lite0", "is_lite0", "fd_other_tiny", "prompt_accuracy"])

    def change(metrics, comparisons):
        for row in metrics:
            if row["metric"] == "fd_lite0":
                row["flags"], row["dim"] = "rank_deficient", 1280

    out = run(make, config, tmp_path, "table_further", change=change)
    rows = rows_of(out["csv"])
    # Students have both distances to the teacher, the teacher the one to its other noise; prompt accuracy is Table 1's already.
    own = [(r["metric"], r["reference"]) for r in rows if r["row"] == "CM"]
    assert own == [
        ("fd_lite0", "teacher"), ("fd_lite0", "other_noise"), ("fd_lite0", "data"), ("is_lite0", "none"),
        ("fd_other_tiny", "other_noise"),
    ]  # fmt: skip
    assert {(r["metric"], r["reference"]) for r in rows if r["row"] == "Teacher"} == {*own} - {("fd_lite0", "teacher")}
    # 0.5 times 1.2, seeds 3 % apart.
    cell = {(r["row"], r["metric"], r["reference"]): r for r in rows}
    seeds = SMALL[0]["seed"]
    assert float(cell["CM", "fd_lite0", "other_noise"]["mean"]) == pytest.approx(
        0.6 * (1 + 0.03 * sum(seeds) / len(seeds))
    )
    page = out["html"].read_text()
    assert "(rank 7 at most of 1,280)" in page and "FD-lite0 to teacher samples of other noise" in page
    assert "EfficientNet-lite0, a classifier of ImageNet" in page and "No published metric is computed on it" in page
    assert "ten splits" in page and "they share the prompts alone" in page
    assert "of the images themselves" not in page
    none = config.model_copy(update={"further_metrics": []})
    with pytest.raises(UserError, match="further_metrics: names none"):
        run(make, none, tmp_path, "table_further")


# ----------------------------------------------------------------- what is lacking


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        ({"row": "Teacher"}, "none of “Teacher” with solver = ddim, N = 50, w = 3; evaluate it"),
        ({"row": FLOOR}, "none of “Teacher, other noise”"),
        ({"row": "CM"}, r"none of CM at 1 sampling step with .*seed = 0; evaluate this student and collect again"),
        ({"row": "Direct CM", "seed": "2"}, r"none of Direct CM at 1 sampling step with .*seed = 2"),
        ({"row": "CM", "seed": "1", "metric": "fd_tiny"}, "CM, 1 step, 3 seeds, seed 1 lacks fd_tiny against teacher"),
    ],
)
def test_a_missing_line_is_an_error(make, configure, tmp_path, drop, message):
    def change(metrics, comparisons):
        metrics[:] = [m for m in metrics if not all(m.get(k) == v for k, v in drop.items())]

    with pytest.raises(UserError, match=message):
        run(make, configure(students=SMALL), tmp_path, change=change)


def test_an_undefined_value_empties_the_mean_and_flags_are_kept(make, configure, tmp_path):
    def change(metrics, comparisons):
        for m in metrics:
            if (m["row"], m["metric"], m["reference"]) == ("CM", "fd_tiny", "data"):
                m["flags"] = f"rank_deficient;{HOSTILE.replace(';', '')}"
                m["value"] = None if m["seed"] == "1" else m["value"]

    out = run(make, configure(students=SMALL), tmp_path, change=change)
    cm = next(r for r in rows_of(out["csv"]) if (r["row"], r["metric"], r["reference"]) == ("CM", "fd_tiny", "data"))
    assert (cm["mean"], cm["sd"], cm["n_seeds"]) == ("", "", "3")
    html, tex = out["html"].read_text(), out["tex"].read_text()
    assert "Caution, FD-tiny to data images: fewer samples than feature dimensions" in html
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "\u202e" not in tex
    assert r"\$5\_a\$ 100\% \& \#1" in tex
    assert [line for line in text(out["csv"]).splitlines() if "FD-tiny" in line and "data" in line and " – " in line]


# ----------------------------------------------------------------- the paper's numbers


def test_paper_column_rules(make, configure, tmp_path):
    rows = rows_of(run(make, configure(students=[{"sampling_steps": [1, 4]}]), tmp_path, "table3")["csv"])
    got = {(r["row"], r["metric"], r["reference"]): float(r["paper"]) for r in rows if r["paper"]}
    assert got == {
        ("CM", "fd_tiny", "teacher"): 95.3, ("Direct CM", "fd_tiny", "teacher"): 166.0, ("CM", "clip_tiny", "prompt"): 0.21,
        ("Direct CM", "clip_tiny", "prompt"): 0.19, ("CM", "quality_tiny", "none"): 5.5, ("Direct CM", "quality_tiny", "none"): 5.0,
    }  # fmt: skip
    assert paper_value("CM", 4, "fid", "teacher") is None
    assert paper_value("CM", 1, "fid", "data") is None
    assert paper_value("Teacher", 1, "fid", "teacher") is None
    assert paper_value(FLOOR, 1, "fid", "teacher") is None


def test_the_papers_number_is_marked_as_another_scale_unless_it_is_ours(make, configure, tmp_path):
    out = run(make, configure(students=SMALL, metrics=["fd_tiny", "fid"]), tmp_path)
    html, tex = out["html"].read_text(), out["tex"].read_text()
    # The run's teacher is the small one, so that even a real FID is on another scale than SDXL's.
    assert html.count("paper: FID 95.3 (SDXL; another scale)") == 2
    assert html.count("paper: FID 95.3 (SDXL)") == 0
    assert tex.count("FID 166.0{]}$^{\\dagger}$") == 2
    assert tex.count("FID 166.0{]}") == 2


def test_json_is_nested_by_row(make, configure, tmp_path):
    nested = json.loads(run(make, configure(students=[{"sampling_steps": [4, 2]}]), tmp_path)["json"].read_text())
    assert set(nested) == {"Teacher", FLOOR, "CM", "Direct CM"}
    assert nested["CM"]["fd_tiny_teacher"] == pytest.approx(12 * 1.2 / 2**0.25)
    assert set(nested["CM"]) == {
        "ode_error", "fd_tiny_teacher", "fd_tiny_data", "kid_tiny_teacher", "kid_tiny_data", "clip_tiny", "quality_tiny",
        "prompt_accuracy",
    }  # fmt: skip
    assert set(nested["Teacher"]) == {"fd_tiny_data", "kid_tiny_data", "clip_tiny", "quality_tiny", "prompt_accuracy"}


# ----------------------------------------------------------------- bold


def only(metric, reference, **values):
    """Gives one metric's comparison these values and every other p = 0.5."""

    def change(metrics, comparisons):
        for c in comparisons:
            mine = (c["metric"], c["reference"]) == (metric, reference) and all(
                str(c[k]) == str(v) for k, v in values.items() if k in ("N", "sampling_steps", "solver")
            )
            c.update(
                {k: v for k, v in values.items() if k not in ("N", "sampling_steps", "solver")} if mine else {"p": 0.5}
            )

    return change


@pytest.mark.parametrize(
    ("metric", "reference", "values", "bold"),
    [
        # Lower is better: the smaller mean, which is Direct CM's here.
        ("ode_error", "teacher", {"p": 0.049, "p_prompts": 0.049}, [("Direct CM", "0.2060")]),
        ("fd_tiny", "data", {"p": 0.01, "p_prompts": 0.01}, [("Direct CM", "18.540")]),
        # Higher is better: CM's.
        ("clip_tiny", "prompt", {"p": 0.01, "p_prompts": 0.01}, [("CM", "0.383")]),
        ("clip_tiny", "prompt", {"p": 0.01, "p_prompts": None}, [("CM", "0.383")]),
        ("clip_tiny", "prompt", {"p": 0.051, "p_prompts": 0.01}, []),
        ("clip_tiny", "prompt", {"p": 0.01, "p_prompts": 0.051}, [("CM", "0.383")]),
        ("clip_tiny", "prompt", {"p": None, "p_prompts": 0.01}, []),
        # The test and the means say opposite things, as where seeds are not all paired.
        ("clip_tiny", "prompt", {"p": 0.01, "p_prompts": 0.01, "difference": -0.1}, []),
    ],
)
def test_only_a_significant_better_value_is_bold(make, configure, tmp_path, metric, reference, values, bold):
    out = run(make, configure(students=SMALL), tmp_path, change=only(metric, reference, **values))
    html, tex = out["html"].read_text(), out["tex"].read_text()
    assert [(row, value) for row, _, value in strong(html)] == bold
    assert re.findall(r"\\textbf\{(.*?)\}", tex) == [value for _, value in bold]
    assert ("Bold: the better of CM and Direct CM" in html) == bool(bold)
    assert ("No value is bold, because no difference" in html) == (not bold)
    assert "not adjusted for the number of values in the table" in html


def test_bold_follows_the_test_of_the_same_solver_and_the_same_steps(make, configure, tmp_path):
    config = configure(students=[{"sampling_steps": [1, 4]}, {"solver": ["euler"]}])
    html = run(make, config, tmp_path, "table2", change=only("ode_error", "teacher", solver="euler", p=0.01))["html"]
    page = html.read_text()
    euler = page.index(">Euler<")
    assert "<strong>" not in page[:euler]
    assert [row for row, *_ in strong(page[euler:])] == ["Direct CM"]
    change = only("ode_error", "teacher", solver="ddim", sampling_steps=4, p=0.01)
    page = run(make, config, tmp_path, "table3", change=change)["html"].read_text()
    four = page.index(">4 sampling steps<")
    assert "<strong>" not in page[:four]
    assert [row for row, *_ in strong(page[four:])] == ["Direct CM"]
    assert strong(run(make, config, tmp_path, "table1", change=change)["html"].read_text()) == []


def test_alpha_is_the_configurations(make, configure, tmp_path):
    config = configure(students=SMALL, statistics={"alpha": 0.001})
    assert strong(run(make, config, tmp_path, p=0.005, p_prompts=0.005)["html"].read_text()) == []
    assert len(strong(run(make, config, tmp_path, p=0.0005, p_prompts=0.0005)["html"].read_text())) == 8


def test_without_a_test_nothing_is_bold(make, configure, tmp_path):
    out = run(make, configure(students=SMALL), tmp_path, change=lambda metrics, comparisons: comparisons.clear())
    html = out["html"].read_text()
    assert strong(html) == []
    assert "no test of CM against Direct CM belongs to this table" in html


# ----------------------------------------------------------------- CM − Direct CM


def test_comparison(make, configure, tmp_path):
    config = configure(students=[{"seed": [0, 1], "sampling_steps": [1, 4]}, {"N": [10]}], metrics=HEADLINE)

    def change(metrics, comparisons):
        for c in comparisons:
            if c["metric"] == "kid_tiny":
                c.update(p=0.3)
            if c["metric"] == "quality_tiny":
                c.update(p_prompts=0.2)
            if c["metric"] == "prompt_accuracy":
                c.update(p=0.2, p_prompts=0.2)

    out = run(make, config, tmp_path, "table_comparison", change=change)
    rows = rows_of(out["csv"])
    assert list(rows[0]) == COMPARISON_COLUMNS
    assert {r["steps"] for r in rows} == {"1"}
    assert [(r["metric"], r["reference"], r["reading"]) for r in rows] == [
        ("ode_error", "teacher", "Direct CM is better"),
        ("fd_tiny", "teacher", "Direct CM is better"),
        ("fd_tiny", "data", "Direct CM is better"),
        *(
            (
                "kid_tiny",
                r,
                "no difference shown over seeds and prompts; Direct CM is better for these trained students alone",
            )
            for r in ("teacher", "data")
        ),
        ("clip_tiny", "prompt", "CM is better"),
        (
            "quality_tiny",
            "none",
            "CM is better",
        ),
        ("prompt_accuracy", "prompt", "no difference shown"),
    ]
    fd = rows[1]
    assert float(fd["floor"]) == pytest.approx(1.2)
    assert float(fd["difference"]) == pytest.approx(float(fd["cm"]) - float(fd["direct_cm"]))
    assert (rows[2]["floor"], rows[0]["floor"]) == ("", "")
    html, tex = out["html"].read_text(), out["tex"].read_text()
    Balanced(html)
    assert "[+1.2360, +3.7080]" in html
    assert html.count('scope="row"') == 8
    assert "3 of 3" in html
    assert r"\textbf{12.360}" in tex
    assert "Reading" not in tex


def test_a_single_seeds_reading_says_so():
    row = {"metric": "fd_tiny", "difference": -1.0, "p": 0.001, "p_prompts": 0.001, "n_seeds": 1.0}
    assert reading(row, 0.05) == "CM is better between these two students; nothing about other seeds"
    assert reading({**row, "p": float("nan")}, 0.05) == "not tested"
    assert reading({**row, "difference": 0.0, "p": 1.0}, 0.05) == "no difference shown"
    assert reading({**row, "metric": "clip_tiny", "n_seeds": 3.0}, 0.05) == "Direct CM is better"


def test_no_comparison_of_the_main_setting_is_an_error(make, configure, tmp_path):
    def change(metrics, comparisons):
        comparisons[:] = [c for c in comparisons if c["N"] == "10"]

    with pytest.raises(UserError, match="no comparison of CM and Direct CM with solver = ddim, N = 50"):
        run(make, configure(students=[*SMALL, {"N": [10]}]), tmp_path, "table_comparison", change=change)


# ----------------------------------------------------------------- pages, LaTeX, bytes


def test_hostile_settings_are_escaped(make, configure, tmp_path):
    config = configure(
        data={"kind": "folder", "path": HOSTILE}, metrics=["ode_error", "clip_tiny", "cmmd_tiny"], students=SMALL
    )
    for name in of_both(config):
        out = run(make, config, tmp_path, name)
        html = out["html"].read_text()
        assert "<script" not in html
        assert "🎉" in html
        tex = out["tex"].read_text()
        assert "🎉" not in tex
        assert all(ord(c) < 256 for c in tex)
        bare = tex.replace(r"\{", "").replace(r"\}", "")
        assert bare.count("{") == bare.count("}")


def test_latex_escapes():
    assert latex("a_b 50% & $x^2$ {c} #1 ~ \\") == (
        r"a\_b 50\% \& \$x\textasciicircum{}2\$ \{c\} \#1 \textasciitilde{} \textbackslash{}"
    )
    assert latex("🎉é\n−1") == r"{[}U+1F389{]}é $-$1"
    assert latex("FD∞") == r"FD$\infty$"


def test_numbers_as_shown():
    assert fixed(-0.00004, 4) == "0.0000"
    assert fixed(-0.25, 2, True) == "−0.25"
    assert fixed(0.25, 2, True) == "+0.25"
    assert fixed(math.nan, 2) == "–"
    assert [shown_p(p) for p in (0.0004, 0.0123, 1.0, math.nan)] == ["< 0.001", "0.012", "1.000", "–"]


def test_html_is_one_readable_page(make, configure, tmp_path):
    config = configure(
        students=[{"seed": [0, 1], "sampling_steps": [1, 2]}, {"solver": ["heun"]}], metrics=["fd_tiny", "cmmd_tiny"]
    )
    for name in of_both(config):
        html = run(make, config, tmp_path, name)["html"].read_text()
        page = Balanced(html)
        assert "script" not in page.tags
        assert "link" not in page.tags
        assert ("meta", "name", "viewport") in page.attributes
        assert not [a for a in page.attributes if a[1] in ("src", "href")]
        assert "url(" not in html
        assert "@import" not in html
        assert page.tags.count("caption") == 1
        assert "is not the published metric" in html or "not the published metrics" in html


@pytest.mark.parametrize(("name", "columns", "lines"), [("table1", 9, 6), ("table3", 9, 8), ("table_metrics", 5, 2)])
def test_latex_has_one_shape(make, configure, tmp_path, name, columns, lines):
    config = configure(students=[{"seed": [0, 1], "sampling_steps": [1, 4]}], metrics=[*HEADLINE, "cmmd_tiny"])
    tex = run(make, config, tmp_path, name)["tex"].read_text()
    body = tex[tex.index(r"\midrule") : tex.index(r"\bottomrule")]
    found = [line for line in body.splitlines() if line.endswith(r"\\") and r"\multicolumn" not in line]
    assert len(found) == lines
    assert {len(re.findall(r"(?<!\\)&", line)) for line in found} == {columns - 1}
    for command in (r"\toprule", r"\midrule", r"\bottomrule", r"$\downarrow$"):
        assert command in tex
    assert (r"\cmidrule(lr){3-4}" in tex) == (name != "table_metrics")


def test_equal_inputs_give_equal_bytes(make, configure, tmp_path):
    config = configure(students=[*SMALL, {"solver": ["euler"]}])
    for name in ("table1", "table2", "table_comparison"):
        first = run(make, config, tmp_path, name, "a")
        second = run(make, config, tmp_path, name, "b")
        for kind in ("csv", "tex", "html"):
            assert first[kind].read_bytes() == second[kind].read_bytes()


def test_show_prints_table1(make, configure, tmp_path):
    shown = text(run(make, configure(students=SMALL), tmp_path)["csv"])
    assert "FID 166.0" in shown
    assert "± 0.432" in shown
    assert main_runs(configure(students=SMALL))


@pytest.mark.slow
def test_the_analysis_never_imports_torch():
    """And its pages and tables nothing heavy at all."""

    def loaded(code):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    every = (
        "import sys, pkgutil, importlib, directcm.analysis as a\n"
        "for m in pkgutil.walk_packages(a.__path__, 'directcm.analysis.'): importlib.import_module(m.name)\n"
        "print(*sys.modules)"
    )
    light = "import sys\nfrom directcm.analysis import needs\nfrom directcm.analysis.data import collect, selection\nfrom directcm.analysis.pages import gallery, provenance\nfrom directcm.analysis.tables import claims, table1, table4\nprint(*sys.modules)"
    assert "torch" not in loaded(every)
    assert not loaded(light) & {"torch", "matplotlib", "pandas", "seaborn", "scipy"}
