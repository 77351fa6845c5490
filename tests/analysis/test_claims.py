"""Claims and verdicts: signs, every and some, Holm, what cannot be said, and text that must not break a page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from directcm.analysis.data.contrasts import Contrast, plan
from directcm.analysis.data.tidy import COMPARISON_COLUMNS as COMPARISONS
from directcm.analysis.tables import claims as module
from directcm.analysis.tables.claim import Claim, Compared, about, beside, compared, contrasted, read_claims
from directcm.analysis.tables.claims import COLUMNS, FAILS, HOLDS, NOT_RUN, UNDECIDED, UNTESTABLE, claims
from directcm.config import Config, load_config, parse
from directcm.config.registry import FIRST
from directcm.config.specs import METHODS, METRICS
from directcm.errors import UserError
from directcm.runtime.artifacts import read_csv, write_csv

SHIPPED = Path(__file__).resolve().parents[2] / "workflow" / "claims.yaml"
STAR = {"N": 50, "w": 3.0, "adapter": "lora4", "steps": 250}
GRID = [
    {"seed": [0, 1, 2, 3, 4], "sampling_steps": [1, 2, 4]},
    {"seed": [0, 1, 2], "N": [10, 20]},
    {"seed": [0, 1, 2], "w": [1, 8]},
    {"seed": [0, 1, 2], "solver": ["euler"]},
    {"seed": [0, 1, 2], "adapter": ["lora4", "full"], "pool": [16000], "steps": [1000], "snapshots": [62, 250]},
    {"seed": [0, 1, 2], "lr": [1e-3]},
    {"seed": [0, 1, 2], "loss": ["pseudo_huber"]},
]


def grid(**changes: Any) -> Config:
    return parse(Config, {"ode": {"N": 50, "w": 3}, "train": {"adapter": "lora4"}, "students": GRID} | changes)


def table(
    config: Config,
    effect: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda row: {},
    claims_yaml: Path | None = None,
) -> list[dict[str, Any]]:
    """comparisons.csv of a grid: every difference +10 % (later − earlier, too), very sure; `effect` may change or drop a line.

    With the contrasts that the claims of `claims_yaml` need.
    """
    rows: list[dict[str, Any]] = []
    for run in config.runs():
        if run.method != "cm" and run.at(method="cm") in config.runs():
            continue
        setting = run.setting.axes()
        if any(setting.items() <= r.items() for r in rows):
            continue
        seeds = {m: {r.seed for r in config.runs() if (r.method, r.setting) == (m, run.setting)} for m in FIRST}
        sets = config.sets(run)
        pairs: list[tuple[str, str, str, int, int, int, int]] = []
        if both := seeds["cm"] & seeds["direct_cm"]:
            pairs += [("method", "CM", "Direct CM", step, step, k, len(both)) for step, k in sets]
        for method, label in ((m, METHODS[m]) for m in FIRST):
            if seeds[method]:
                pairs += [
                    ("along", label, label, run.steps, s, k, len(seeds[method])) for s, k in sets if s != run.steps
                ]
        for what, a, b, a_step, b_step, k, n_seeds in pairs:
            for metric in config.metric_names():
                for reference in METRICS[metric].references:
                    row = setting | {
                        "what": what, "a": a, "b": b, "a_step": a_step, "b_step": b_step, "sampling_steps": k, "metric": metric,
                        "reference": reference, "mean_b": 2.0, "difference": 0.2, "level": 0.95, "se_seeds": 1e-4,
                        "se_prompts": 1e-4, "df": 9, "p": 1e-6, "test": "bootstrap", "p_prompts": 1e-6, "n": 1024,
                        "n_seeds": n_seeds, "dim": 64, "seeds_agree": n_seeds,
                    }  # fmt: skip
                    change = effect(row)
                    if change is not None:
                        rows.append(finished(row | change))
    for contrast in contrasted(read_claims(claims_yaml), config) if claims_yaml else ():
        row = line_over(contrast, config)
        change = effect(row)
        if change is not None:
            rows.append(finished(row | change))
    return rows


def finished(row: dict[str, Any]) -> dict[str, Any]:
    """A line with its means and interval."""
    ends = {"low": row["difference"] - 0.05, "high": row["difference"] + 0.05}
    return row | ends | {"mean_a": row["mean_b"] + row["difference"]}


def line_over(contrast: Contrast, config: Config) -> dict[str, Any]:
    """A contrast's line, +0.2 and very sure."""
    place = plan(contrast, config)
    assert place is not None
    steps = {"a_step": place.setting.steps, "b_step": place.setting.steps, "sampling_steps": 1}
    return place.setting.axes() | steps | {
        "what": contrast.what, "a": METHODS[contrast.a], "b": METHODS[contrast.b or contrast.a], "metric": contrast.metric,
        "reference": contrast.reference, "mean_b": 2.0 if contrast.b else 0.0, "difference": 0.2, "level": 0.95,
        "se_seeds": 1e-4, "se_prompts": 1e-4, "df": 9, "p": 1e-6, "test": "bootstrap", "p_prompts": 1e-6, "n": 1024,
        "n_seeds": len(place.seeds), "dim": None, "seeds_agree": len(place.seeds),
    }  # fmt: skip


class Desk:
    """Writes claims and comparisons, and reads the verdicts."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def files(self) -> dict[str, Path]:
        return {f"out_{kind}": self.root / f"claims.{kind}" for kind in ("csv", "tex", "html", "json")}

    def judge(
        self, items: list[dict[str, Any]] | Path, rows: list[dict[str, Any]], config: Config
    ) -> dict[str, module.Verdict]:
        path = items if isinstance(items, Path) else self.root / "claims.yaml"
        if not isinstance(items, Path):
            path.write_text(yaml.safe_dump({"claims": items}, allow_unicode=True), encoding="utf-8")
        write_csv(self.root / "comparisons.csv", rows, COMPARISONS)
        out = claims(path, self.root / "comparisons.csv", config, **self.files())
        return {v.claim.id: v for v in out}

    def text(self, kind: str) -> str:
        return (self.root / f"claims.{kind}").read_text(encoding="utf-8")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def claim(
    id_: str = "c", metric: Any = "fd_tiny", better: str = "CM", reference: str = "teacher", **more: Any
) -> dict[str, Any]:
    test = {"metric": metric, "reference": reference, "better": better}
    return {"id": id_, "says": f"{better} is better.", "source": "ours", "tests": [test]} | more


def along(id_: str, method: str, **directions: str) -> dict[str, Any]:
    tests = [{"metric": m, "reference": "teacher", "method": method, "direction": d} for m, d in directions.items()]
    return {"id": id_, "says": "It moves.", "source": "ours", "tests": tests, "also": ["steps", "pool"]}


# ----------------------------------------------------------------- signs


@pytest.mark.parametrize(
    ("metric", "reference"),
    [("ode_error", "teacher"), ("fd_tiny", "data"), ("clip_tiny", "prompt"), ("quality_tiny", "none")],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_wrong_sign_is_caught(desk, metric, reference, sign):
    """CM − Direct CM > 0 is CM worse where lower is better, and CM better where higher is."""
    config = grid()
    rows = table(config, lambda row: {"difference": 0.2 * sign})
    found = desk.judge(
        [claim("cm", metric, "CM", reference), claim("direct", metric, "Direct CM", reference)], rows, config
    )
    cm_better = (sign > 0) == (METRICS[metric].better == "higher")
    assert found["cm"].verdict == (HOLDS if cm_better else FAILS)
    assert found["direct"].verdict == (FAILS if cm_better else HOLDS)


@pytest.mark.parametrize("sign", [1, -1])
def test_along_training(desk, sign):
    """Later − earlier > 0 is a metric that rises, of the method that is named and no other."""
    config = grid()

    def effect(row):
        return {"difference": 0.2 * sign * (1 if row["a"] == "CM" else -1)} if row["what"] == "along" else {}

    found = desk.judge(
        [along("cm-rises", "CM", fd_tiny="rises"), along("direct-rises", "Direct CM", fd_tiny="rises"),
         along("cm-both", "CM", fd_tiny="rises", ode_error="falls")],
        table(config, effect), config,
    )  # fmt: skip
    assert found["cm-rises"].verdict == (HOLDS if sign > 0 else FAILS)
    assert found["direct-rises"].verdict == (FAILS if sign > 0 else HOLDS)
    # Both rise or both fall: the claim that they part is contradicted either way.
    assert found["cm-both"].verdict == FAILS
    # The earliest snapshot against the finished student, of the one path there is.
    (line,) = found["cm-rises"].lines
    assert (line.row["b_step"], line.row["a_step"], line.row["adapter"], line.row["steps"]) == (
        62,
        1000,
        "lora4",
        1000,
    )


def test_every_and_some(desk):
    """One contrary value of N among three."""
    config = grid()
    rows = table(config, lambda row: {"difference": 0.2 if row["N"] == 20 else -0.2})
    items = [
        claim("every", over=["N"]), claim("some", over=["N"], quantifier="some"),
        claim("every-other", better="Direct CM", over=["N"]), claim("some-other", better="Direct CM", over=["N"], quantifier="some"),
        claim("every-w", over=["w"]), claim("some-w", better="Direct CM", over=["w"], quantifier="some"),
    ]  # fmt: skip
    found = desk.judge(items, rows, config)
    assert [v.verdict for v in found.values()] == [FAILS, HOLDS, FAILS, HOLDS, HOLDS, FAILS]
    assert [(v.settings, v.agree) for v in found.values()] == [(3, 2), (3, 2), (3, 1), (3, 1), (3, 3), (3, 0)]
    assert found["every"].decisive.row["N"] == 20
    assert found["some-other"].decisive.row["N"] == 20


def test_one_unsure_setting_leaves_every_undecided_and_some_alone(desk):
    config = grid()
    rows = table(config, lambda row: {"difference": -0.2, **({"p": 0.4} if row["N"] == 10 else {})})
    found = desk.judge([claim("every", over=["N"]), claim("some", over=["N"], quantifier="some")], rows, config)
    assert found["every"].verdict == UNDECIDED
    assert found["every"].p_for == pytest.approx(0.2)
    assert found["some"].verdict == HOLDS
    assert found["every"].decisive.row["N"] == 10
    assert found["some"].decisive.row["N"] != 10


def test_p_values_by_hand(desk):
    """Intersection-union for every and for several tests, Bonferroni for what any of them may say."""
    config = grid()
    p = {10: 0.01, 20: 0.03, 50: 0.02}
    rows = table(config, lambda row: {"difference": -0.2, "p": p[row["N"]], "p_prompts": None})
    two = claim("two", over=["N"])
    two["tests"].append({"metric": "ode_error", "reference": "teacher", "better": "Direct CM"})
    some = {**two, "id": "some", "quantifier": "some"}
    found = desk.judge(
        [claim("every", over=["N"]), claim("one", over=["N"], quantifier="some"), two, some], rows, config
    )
    assert (found["every"].p_for, found["every"].p_against) == pytest.approx((0.015, 1))
    assert (found["one"].p_for, found["one"].p_against) == pytest.approx((3 * 0.005, 1))
    # The second test points the wrong way everywhere.
    assert (found["two"].p_for, found["two"].p_against) == pytest.approx((1, 3 * 2 * 0.005))
    assert (found["some"].p_for, found["some"].p_against) == pytest.approx((1, 2 * 0.015))
    assert found["two"].decisive.metric == "ode_error"


@pytest.mark.parametrize(
    "change",
    [{"p": 0.2}, {"se_seeds": 0.15}, {"se_prompts": 0.15}],
    ids=["crossed", "cautious-seeds", "cautious-prompts"],
)
def test_both_kinds_of_chance_must_be_excluded(desk, change):
    config = grid()
    assert desk.judge([claim()], table(config, lambda row: {"difference": -0.2}), config)["c"].verdict == HOLDS
    found = desk.judge([claim()], table(config, lambda row: {"difference": -0.2, **change}), config)
    assert found["c"].verdict == UNDECIDED
    assert found["c"].p >= 0.15


def test_no_difference_decides_nothing(desk):
    config = grid()
    found = desk.judge(
        [claim()], table(config, lambda row: {"difference": 0.0, "se_seeds": 0, "se_prompts": 0, "p": 1}), config
    )
    assert (found["c"].verdict, found["c"].p) == (UNDECIDED, 1)


def test_holm_is_applied(desk):
    """p = 0.03 is enough for one claim alone, and not beside four others."""
    config = grid()
    rows = table(config, lambda row: {"difference": -0.2, "p": 0.03 if row["metric"] == "fd_tiny" else 0.5})
    alone = desk.judge([claim()], rows, config)["c"]
    assert (alone.verdict, alone.p_adjusted) == (HOLDS, pytest.approx(0.03))
    others = [claim(f"o{i}", "ode_error") for i in range(4)]
    untested = [claim(f"u{i}", "fid") for i in range(4)]
    beside = desk.judge([claim(), *others, *untested], rows, config)
    assert (beside["c"].verdict, beside["c"].p_adjusted) == (UNDECIDED, pytest.approx(0.15))
    assert beside["o0"].p_adjusted == 1
    # Untested claims cost nothing; what stays undecided says what would have been shown, at a fifth of α.
    assert beside["c"].level == pytest.approx(0.01) and beside["u0"].level is None
    strict = grid(statistics={"alpha": 0.02})
    assert desk.judge([claim()], rows, strict)["c"].verdict == UNDECIDED


# ----------------------------------------------------------------- what cannot be said


def test_a_metric_that_is_not_evaluated(desk):
    config = grid()
    items = [claim("dino", "fd_dino"), claim("joint")]
    items[1]["tests"].append({"metric": "fd_dino", "reference": "teacher", "better": "CM"})
    found = desk.judge(items, table(config), config)
    for v in found.values():
        assert (v.verdict, v.p, v.p_adjusted) == (UNTESTABLE, None, None)
        assert "FD-DINO was not evaluated in this run" in v.reason
        assert "dinov2_vitl14" in v.reason
    no_labels = grid(data={"kind": "folder", "path": "x"}, metrics=["ode_error", "prompt_accuracy"])
    v = desk.judge([claim("c", "prompt_accuracy", reference="prompt")], table(no_labels), no_labels)["c"]
    assert (v.verdict, v.reason) == (
        UNTESTABLE,
        "prompt accuracy was not evaluated in this run: the images have no labels",
    )


def test_a_setting_without_a_p_value(desk):
    config = grid(metrics=["precision_tiny", "fd_tiny"])
    rows = table(config, lambda row: {"p": None, "p_prompts": None, "se_prompts": None} if row["N"] == 20 else {})
    found = desk.judge([claim("c", "precision_tiny", over=["N"]), claim("main", "precision_tiny")], rows, config)
    assert found["c"].verdict == UNTESTABLE
    assert "no p-value in 1 of 3 settings" in found["c"].reason
    assert found["main"].verdict == HOLDS
    gone = table(config, lambda row: None if row["N"] == 20 and row["metric"] == "precision_tiny" else {})
    assert desk.judge([claim("c", "precision_tiny", over=["N"])], gone, config)["c"].verdict == UNTESTABLE


def test_what_this_scope_has_not_run(desk):
    """The main comparison alone: sweeps wait for make paper, and say so."""
    config = grid()
    rows = table(
        config,
        lambda row: (
            {}
            if row["N"] == 50
            and row["w"] == 3
            and row["steps"] == 250
            and row["lr"] == 1e-4
            and row["solver"] == "ddim"
            and row["loss"] == "mse"
            else None
        ),
    )
    assert rows
    items = [
        claim("main"),
        claim("n", over=["N"]),
        claim("map", over=["adapter", "step"], also=["steps", "pool"], quantifier="some"),
        along("a", "CM", fd_tiny="falls"),
    ]
    found = desk.judge(items, rows, config)
    assert found["main"].verdict == FAILS
    assert [found[k].verdict for k in ("n", "map", "a")] == [NOT_RUN] * 3
    assert found["n"].reason == "2 of 3 settings are not in this run (N = 10, …); make paper runs the whole grid"
    assert "adapter = lora4" in found["map"].reason
    assert "1 of 1 settings is not in this run (start points = 16000, steps = 1000)" in found["a"].reason
    # An empty table: a heading alone.
    assert {v.verdict for v in desk.judge(items, [], config).values()} == {NOT_RUN}


def test_a_sweep_with_one_value_is_not_run(desk):
    config = grid(students=[{"seed": [0, 1]}])
    items = [
        claim("n", over=["N"]),
        claim("k", over=["sampling_steps"]),
        claim("s", over=["step"]),
        along("a", "CM", fd_tiny="falls"),
    ]
    found = desk.judge(items, table(config), config)
    assert {v.verdict for v in found.values()} == {NOT_RUN}
    assert "one value of N only (50)" in found["n"].reason
    assert "one value of sampling_steps only" in found["k"].reason
    assert "add snapshots" in found["s"].reason
    assert "no line of the grid has snapshots along training" in found["a"].reason
    single = grid(students=[{"method": ["cm"], "seed": [0]}])
    v = desk.judge([claim()], table(single), single)["c"]
    assert (v.verdict, "both methods" in v.reason) == (NOT_RUN, True)


def test_settings_that_differ_in_more_than_the_axis_stay_out(desk):
    config = grid(students=[*GRID, {"seed": [0, 1, 2], "N": [20, 100], "w": [8]}])
    rows = table(config, lambda row: {"difference": 0.2 if row["N"] == 20 and row["w"] == 8 else -0.2})
    found = desk.judge(
        [
            claim("n", over=["N"]),
            claim("w", over=["w"]),
            claim("both", over=["N"], also=["w"]),
            claim("k", over=["sampling_steps"]),
        ],
        rows,
        config,
    )
    assert (found["n"].verdict, found["n"].settings) == (HOLDS, 3)
    assert (found["w"].verdict, found["w"].settings) == (HOLDS, 3)
    assert (found["both"].verdict, found["both"].settings) == (FAILS, 7)
    assert found["k"].settings == 3
    # Snapshots and more sampling steps are settings only where the claim names them.
    steps = desk.judge([claim("s", over=["step", "adapter"], also=["steps", "pool"])], rows, config)["s"]
    assert {(x.row["adapter"], x.row["steps"], x.row["a_step"]) for x in steps.lines} == {
        ("lora4", 250, 250), *((a, 1000, s) for a in ("lora4", "full") for s in (62, 250, 1000))
    }  # fmt: skip


def test_a_single_seed_says_so(desk):
    config = grid(students=[{"seed": [0]}])
    rows = table(config, lambda row: {"se_seeds": None})
    assert desk.judge([claim()], rows, config)["c"].verdict == FAILS
    assert "1 seed: nothing about other seeds" in desk.text("html")
    assert "says nothing about other seeds" in desk.text("html")


# ----------------------------------------------------------------- stand-ins


def test_a_stand_in_is_named_and_never_by_the_real_name(desk):
    config = grid()
    found = desk.judge([claim("c", ["fid", "fd_tiny"]), claim("o", "ode_error")], table(config), config)
    own, other = (module.words(found[k], config) for k in ("c", "o"))
    assert own.text == "refuted here for FD-tiny"
    assert own.stand_in == "FD-tiny stands in for FID, which it is not"
    assert (other.text, other.stand_in) == ("refuted here", "")
    assert not any(re.search(r"\bFID\b", text) for text in own.basis)
    assert "refuted here for FD-tiny" in desk.text("html")
    (line,) = [r for r in read_csv(desk.root / "claims.csv") if r["id"] == "c"]
    assert (line["metric"], line["stands_in_for"]) == ("fd_tiny", "FID")
    real = grid(metrics=["fid", "fd_tiny"])
    v = desk.judge([claim("c", ["fid", "fd_tiny"])], table(real), real)["c"]
    assert (v.metrics, module.words(v, real).text) == (["fid"], "refuted here")


def test_the_first_sentence_says_what_here_is(desk):
    config = grid()
    desk.judge([claim()], table(config), config)
    for kind in ("html", "tex"):
        text = desk.text(kind)
        assert "digits, 16 px" in text
        assert "none says anything about SDXL" in text
    assert desk.text("html").index("is this run alone") < desk.text("html").index("<table")
    sdxl = parse(
        Config,
        {
            "teacher": {"kind": "diffusers", "diffusers": {"path": "x"}},
            "students": [{"seed": [0, 1]}],
            "metrics": ["ode_error"],
        },
    )
    assert "SDXL" not in module.scale(sdxl)


# ----------------------------------------------------------------- what is written


def test_files(desk):
    config = grid()
    found = desk.judge(SHIPPED, table(config, claims_yaml=SHIPPED), config)
    assert json.loads(desk.text("json")) == {k: v.verdict for k, v in found.items()}
    lines = read_csv(desk.root / "claims.csv")
    assert list(lines[0]) == COLUMNS
    assert list(dict.fromkeys(r["id"] for r in lines)) == list(found)
    for key, v in found.items():
        own = [r for r in lines if r["id"] == key]
        assert len(own) == max(1, len(v.lines))
        assert sum(r["decisive"] == "yes" for r in own) == (v.decisive is not None)
    (line,) = [r for r in lines if r["id"] == "fid"]
    assert (line["difference"], line["relative_percent"], line["n"], line["n_seeds"], line["claimed_sign"]) == (
        "0.2", "10.0", "1024", "5", "-",
    )  # fmt: skip
    assert line["p_adjusted"] and line["p_cautious"] and line["p_crossed"] == "1e-06"
    html, tex = desk.text("html"), desk.text("tex")
    assert "<script" not in html
    assert html.count('scope="row"') == len(found)
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{table*}", r"\end{table*}"):
        assert tex.count(rule) == 2
    tex.encode("latin-1")
    before = {kind: desk.text(kind) for kind in ("csv", "tex", "html", "json")}
    desk.judge(SHIPPED, table(config, claims_yaml=SHIPPED)[::-1], config)
    assert {k: desk.text(k) for k in ("html", "tex", "json")} == {k: v for k, v in before.items() if k != "csv"}


HOSTILE = "<script>alert(1)</script> & \\input{x} {{ 7*7 }} {% for x in y %} {# c #} 100 % $x_1^2$ `a`_ |s| **b** </td></table> \u202e ]]> 🎲"


def test_hostile_text_is_escaped(desk):
    config = grid()
    items = [
        claim("c", says=HOSTILE, source="paper", where=HOSTILE),
        claim("d", says="..\n\n.. include:: /etc/passwd\n\n.. raw:: html"),
    ]
    desk.judge(items, table(config), config)
    html, tex = desk.text("html"), desk.text("tex")
    assert "<script" not in html and "&lt;script&gt;" in html
    assert html.count("</table>") == 2
    assert r"\input" not in tex
    assert r"\textbackslash{}input\{x\}" in tex
    assert r"\$x\_1\textasciicircum{}2\$" in tex
    assert tex.isascii()
    assert json.loads(desk.text("json")) == {"c": FAILS, "d": FAILS}


@pytest.mark.browser
def test_pages_fit_a_phone(desk, browser):
    """The page is never wider than 400 pixels, whatever a claim says."""
    config = grid()
    long = "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichenverleihungsurkunde" * 3
    desk.judge([claim("c", says=long), *yaml.safe_load(SHIPPED.read_text())["claims"]], table(config), config)
    for width in (400, 1400):
        page = browser.new_page(viewport={"width": width, "height": 900})
        messages: list[str] = []
        page.on("console", lambda m, messages=messages: messages.append(m.text))
        page.goto((desk.root / "claims.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, width
        assert messages == []
        page.close()


# ----------------------------------------------------------------- the shipped claims


def test_shipped_claims_on_the_default_grid(desk):
    """Each is tested, or says why not; on the embedded default only a published network and other teachers are out of reach."""
    config = load_config(SHIPPED.parents[1] / "config.yaml")
    found = desk.judge(SHIPPED, table(config, claims_yaml=SHIPPED), config)
    assert {k for k, v in found.items() if v.verdict == UNTESTABLE} == {"fd-dino"}
    assert {k for k, v in found.items() if v.verdict == NOT_RUN} == {k for k in found if k.endswith("-teachers")}
    assert all(v.reason for v in found.values() if v.p is None)
    own = {k: v.claim for k, v in found.items()}
    assert [k for k, c in own.items() if c.family == "primary"] == [
        "ode-error",
        "fid",
        "fd-dino",
        "clip-score",
        "aesthetic",
    ]
    paper = [c for c in own.values() if c.source == "paper"]
    assert len(paper) == 5 + 4 + 6 and all(c.where for c in paper)
    # A mean or a trend in place of every and some; nobody says level, equal or no difference without a margin.
    assert not any(c.over or c.quantifier == "some" for c in own.values())
    equal = [c for c in own.values() if any(w in c.says.lower() for w in ("level", "same", "equal", "no difference"))]
    assert len(equal) == 3 and all(t.margin for c in equal for t in c.tests)


@pytest.mark.slow
def test_shipped_claims_follow_the_signs(desk):
    """A world as the paper reports it and as we expect its trends, and its opposite."""
    config = load_config(SHIPPED.parents[1] / "config.yaml")

    def world(sign):
        def effect(row):
            ode, how = row["metric"] == "ode_error", row["what"].split("~")[0]
            if how in ("log", "linear"):
                # Of CM − Direct CM both rise: Direct CM's lead in ODE error grows, CM's in FD shrinks. Of one method the ODE error falls.
                return {"difference": 0.2 * sign * (-1 if ode and row["a"] == row["b"] else 1)}
            lower = METRICS[row["metric"]].better == "lower"
            return {"difference": 0.4 * sign * (-1 if lower != ode else 1)}

        found = desk.judge(SHIPPED, table(config, effect, SHIPPED), config)
        return {k: v.verdict for k, v in found.items() if v.verdict not in (NOT_RUN, UNTESTABLE)}

    papers, opposite = world(1), world(-1)
    # A difference of 20 % is within no margin, in either world.
    equal = {"ode-error-equal", "fid-equal-two-steps", "fid-equal-twice-the-steps"}
    assert {k for k, v in papers.items() if v != HOLDS} == equal and {papers[k] for k in equal} == {FAILS}
    assert {k for k, v in opposite.items() if v != FAILS} == set() and len(opposite) > 25


# ----------------------------------------------------------------- trends, means and margins


def over(id_: str = "t", **more: Any) -> dict[str, Any]:
    test = {"metric": "fd_tiny", "reference": "teacher", **more}
    return {"id": id_, "says": "It changes.", "source": "ours", "tests": [test]}


def written(desk: Desk, *items: dict[str, Any]) -> Path:
    path = desk.root / "own.yaml"
    path.write_text(yaml.safe_dump({"claims": list(items)}))
    return path


@pytest.mark.parametrize("sign", [1, -1])
def test_a_lead_that_grows_or_shrinks(desk, sign):
    """CM's lead in FD is Direct CM − CM: it shrinks where CM − Direct CM rises over the axis; Direct CM's then grows."""
    config = grid()
    path = written(
        desk,
        over("cm-shrinks", better="CM", trend={"axis": "N", "scale": "log", "lead": "shrinks"}),
        over("cm-grows", better="CM", trend={"axis": "N", "scale": "log", "lead": "grows"}),
        over("direct-grows", better="Direct CM", trend={"axis": "N", "scale": "log", "lead": "grows"}),
        over("rises", method="CM", direction="rises", trend={"axis": "step", "scale": "log"}),
        over("clip", metric="clip_tiny", reference="prompt", better="CM", trend={"axis": "w", "scale": "linear", "lead": "grows"}),
        over("mean", better="CM", mean="N"),
        over("loss", better="CM", trend={"axis": "loss", "values": ["mse", "pseudo_huber"], "lead": "grows"}),
    )  # fmt: skip
    rows = table(config, lambda row: {"difference": 0.2 * sign}, path)
    found = {k: v.verdict for k, v in desk.judge(path, rows, config).items()}
    up, down = (HOLDS, FAILS) if sign > 0 else (FAILS, HOLDS)
    assert found == {
        "cm-shrinks": up, "cm-grows": down, "direct-grows": up, "rises": up, "clip": up, "mean": down, "loss": down,
    }  # fmt: skip
    html = desk.text("html")
    assert "FD-tiny to the teacher, per doubling of N" in html and "CLIP-tiny, per unit of w" in html
    assert "mean over N" in html and "pseudo-Huber less MSE" in html and "per doubling of training steps: CM" in html
    assert "FD-tiny, per doubling of training steps, CM: " in module.text(desk.root / "claims.csv")


def test_a_trend_the_grid_has_not_says_so(desk):
    config = grid(students=[{"seed": [0, 1]}])
    path = written(
        desk,
        over("n", better="CM", mean="N"),
        over("rank", better="CM", trend={"axis": "adapter", "scale": "log", "lead": "shrinks"}),
        over("k", method="CM", direction="falls", trend={"axis": "sampling_steps", "scale": "log"}),
        over("two", better="CM", trend={"axis": "loss", "values": ["mse", "pseudo_huber"], "lead": "grows"}),
    )
    found = desk.judge(path, table(config, claims_yaml=path), config)
    assert {v.verdict for v in found.values()} == {NOT_RUN}
    assert "has not both methods at two values of N or more" in found["n"].reason
    assert "has not CM at two values of sampling_steps" in found["k"].reason
    assert "at loss mse and pseudo_huber" in found["two"].reason
    # The grid has it, and this run has not.
    rows = table(grid())
    assert "make paper" in desk.judge(path, rows, grid())["n"].reason


@pytest.mark.parametrize(
    ("difference", "se", "margin", "verdict", "p_for"),
    [
        # 5 seeds: t₄ at the nearer bound is 20, 1 and −20.
        (0.1, 0.01, 0.3, HOLDS, 1.844e-5), (-0.1, 0.01, 0.3, HOLDS, 1.844e-5), (0.2, 0.01, "15 %", HOLDS, 2.81e-4),
        (0.1, 0.01, 0.11, UNDECIDED, 0.1869), (0.5, 0.01, 0.3, FAILS, 0.99998), (-0.5, 0.01, 0.3, FAILS, 0.99998),
    ],
)  # fmt: skip
def test_equality_within_a_margin(desk, difference, se, margin, verdict, p_for):
    """Two one-sided tests, by hand: p for is P(t₄ > (margin − |D|)/se). 15 % of the second's mean, 2, is 0.3: t₄ = 10."""
    config = grid()
    rows = table(config, lambda row: {"difference": difference, "se_seeds": se, "se_prompts": 0, "df": 4})
    v = desk.judge([over(equal=["CM", "Direct CM"], margin=margin)], rows, config)["t"]
    assert (v.verdict, v.p_for) == (verdict, pytest.approx(p_for, rel=2e-3))
    assert v.agree == (abs(difference) < (0.11 if margin == 0.11 else 0.3))
    (line,) = read_csv(desk.root / "claims.csv")
    assert line["claimed_sign"] == "=" and float(line["margin"]) == pytest.approx(0.3 if margin != 0.11 else 0.11)
    assert "margin ±0." in desk.text("html")


def test_a_claim_that_stands_elsewhere(desk):
    """At two sampling steps, and at another learning rate, in place of the main setting's."""
    config = grid()
    rows = table(config, lambda row: {"difference": 0.2 if row["sampling_steps"] == 2 or row["lr"] == 1e-3 else -0.2})
    items = [
        claim("main"), claim("two", at={"sampling_steps": 2}), claim("lr", at={"lr": 0.001}), claim("none", at={"lr": 0.5}),
        claim("five", at={"sampling_steps": 5}),
    ]  # fmt: skip
    found = desk.judge(items, rows, config)
    assert [v.verdict for v in found.values()] == [HOLDS, FAILS, FAILS, NOT_RUN, NOT_RUN]
    assert "sampling steps = 2" in desk.text("html") and "learning rate = 0.001" in desk.text("html")
    fewest = [row for row in rows if row["sampling_steps"] == 1]
    assert "sampling steps = 2" in desk.judge(items, fewest, config)["two"].reason


def test_primary_claims_come_first(desk):
    """By hand: p of 0.01, 0.02 and 0.4 in the primary family, 0.004 and 0.03 in the secondary one, in any order of the file.

    Truncated Holm at ½ of three: 0.01 · 3 = 0.03; 0.02/(1/4 + 1/6) = 0.048; 0.4/(1/2 + 1/6) = 0.6. Two of three are decided: ½ · 2/3 = 1/3
    of α is left. Holm of the secondary: 0.008 and 0.03, and divided by 1/3: 0.024 and 0.09, no less than the 0.048 that opened the gate.
    """
    config = grid()
    p = {"ode_error": 0.01, "fd_tiny": 0.02, "clip_tiny": 0.4, "quality_tiny": 0.004, "prompt_accuracy": 0.03}
    references = {"ode_error": "teacher", "fd_tiny": "teacher", "quality_tiny": "none"}
    rows = table(config, lambda row: {"difference": -0.2, "p": p.get(row["metric"], 0.5)})
    items = [
        claim(name.replace("_", "-"), name, reference=references.get(name, "prompt"), family="primary" if i < 3 else "secondary")
        for i, name in enumerate(p)
    ]  # fmt: skip
    expected = {"ode-error": 0.03, "fd-tiny": 0.048, "clip-tiny": 0.6, "quality-tiny": 0.048, "prompt-accuracy": 0.09}
    for some in (items, items[::-1]):
        found = desk.judge(some, rows, config)
        assert {k: v.p_adjusted for k, v in found.items()} == pytest.approx(expected)
        assert {k for k, v in found.items() if v.verdict == UNDECIDED} == {"clip-tiny", "prompt-accuracy"}
    assert found["prompt-accuracy"].level == pytest.approx(0.05 / 3 / 2)
    assert "primary claim" in desk.text("html") and "(primary)" in desk.text("tex")
    assert "Here 2 are: the secondary claims are tested at 0.017 together" in desk.text("html")
    # No primary claim is decided: nothing is left, however small their p.
    rows = table(
        config, lambda row: {"difference": -0.2, "p": 0.3 if p.get(row["metric"], 0) in (0.01, 0.02, 0.4) else 1e-9}
    )
    found = desk.judge(items, rows, config)
    assert {v.verdict for v in found.values()} == {UNDECIDED}
    assert "nothing of α is left for it" in desk.text("html")


def test_power_stands_beside_what_is_undecided(desk):
    from directcm.statistics.power import detectable, power

    config = grid()
    errors = {"se_seeds": 0.1, "se_prompts": 0.05}
    rows = table(config, lambda row: {"difference": -0.2, "p": 0.3, **errors} if row["metric"] == "fd_tiny" else {})
    found = desk.judge([claim("c"), claim("o", "ode_error")], rows, config)
    assert found["o"].detectable is None
    smallest = found["c"].detectable
    assert smallest == pytest.approx(detectable(0.1, 0.05, 5, 1024, 0.025))
    assert power(smallest, 0.1, 0.05, 5, 1024, 0.025) == pytest.approx(0.8, abs=0.01)
    assert f"with 80 % power at α = 0.025: a true difference of {smallest:.3f} FD-tiny or more" in desk.text("html")
    lines = {row["id"]: row for row in read_csv(desk.root / "claims.csv")}
    assert float(lines["c"]["detectable"]) == pytest.approx(smallest) and lines["c"]["detectable_alpha"] == "0.025"
    assert lines["o"]["detectable"] == ""
    # The smallest margin in which equality would be shown, both of whose sides fail in a tenth.
    v = desk.judge([over(equal=["CM", "Direct CM"], margin=0.1)], rows, config)["t"]
    assert v.detectable == pytest.approx(detectable(0.1, 0.05, 5, 1024, 0.05, 0.9))


def test_teachers_as_units(desk):
    """A line whose n_seeds counts teachers is judged as any other, and told apart from that of one teacher's seeds."""
    config = grid()
    rows = table(config, lambda row: {"difference": 0.2})
    items = [claim("seeds"), claim("teachers", unit="teacher")]
    # A grid of one teacher, and one of several whose main comparison alone is there.
    teachers = [*GRID, {"teacher_seed": [1, 2]}]
    for known, said in ((config, "teacher_seed in students adds others"), (grid(students=teachers), "make paper")):
        found = desk.judge(items, rows, known)["teachers"]
        assert found.verdict == NOT_RUN and said in found.reason
    (own,) = [
        row for row in rows if row["what"] == "method" and row["metric"] == "fd_tiny" and row["reference"] == "teacher"
        and row["sampling_steps"] == 1 and all(row[k] == v for k, v in {**STAR, "lr": 1e-4, "loss": "mse", "solver": "ddim"}.items())
    ]  # fmt: skip
    found = desk.judge(items, [*rows, finished({**own, "what": "teachers", "difference": -0.3})], config)
    assert [v.verdict for v in found.values()] == [FAILS, HOLDS]
    assert "1,024 prompts, 5 teachers" in desk.text("html") and "1,024 prompts, 5 seeds" in desk.text("html")


def test_lines_of_several_teachers_become_one(desk, one_line):
    """By hand: d = −0.3, −0.2, −0.1 of three teachers, so s_d = 0.1 and se = 0.1/√3; prompts' errors of 0.01, 0.02, 0.03 count as 0.02."""
    config = grid()
    rows = table(config, lambda row: {"difference": 0.2})
    (own,) = [
        row for row in rows if row["what"] == "method" and row["metric"] == "fd_tiny" and row["reference"] == "teacher"
        and row["sampling_steps"] == 1 and all(row[k] == v for k, v in {**STAR, "lr": 1e-4, "loss": "mse", "solver": "ddim"}.items())
    ]  # fmt: skip
    each = [
        {"teacher_seed": t, **finished({**own, "difference": -0.3 + 0.1 * t, "se_seeds": None, "se_prompts": 0.01 * (t + 1), "n_seeds": 1})}
        for t in range(3)
    ]  # fmt: skip
    write_csv(desk.root / "comparisons.csv", rows, COMPARISONS)
    path, teachers = written(desk, claim("teachers", unit="teacher")), desk.root / "teachers.csv"

    def judged(lines):
        write_csv(teachers, lines, ["teacher_seed", *COMPARISONS])
        (found,) = claims(path, desk.root / "comparisons.csv", config, **desk.files(), teachers_csv=teachers)
        return found

    row = judged(each).decisive.row
    assert (row["difference"], row["se_seeds"], row["se_prompts"]) == pytest.approx((-0.2, 0.1 / 3**0.5, 0.02))
    assert (row["n_seeds"], row["n"], row["seeds_agree"], row["mean_b"], row["mean_a"]) == (
        3,
        1024,
        3,
        2.0,
        pytest.approx(1.8),
    )
    assert row["low"] < -0.2 < row["high"] and 0.05 < row["p"] < 0.2
    assert "1,024 prompts, 3 teachers" in desk.text("html")
    # One teacher is none to compare with; a teacher twice is a mistake.
    assert judged(each[:1]).verdict == NOT_RUN
    with pytest.raises(UserError, match="twice for a teacher") as error:
        judged([*each, each[0]])
    one_line(error)


# ----------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"id": "Not An Id"}, "claim 'Not An Id': id"),
        ({"id": 7}, "claim 1: id"),
        ({"says": ""}, "claim 'c': says"),
        ({"says": "x" * 301}, "301 characters"),
        ({"colour": "red"}, "colour: unknown key; a claim has id"),
        ({"tests": []}, "claim 'c': tests"),
        ({"source": "rumour"}, "claim 'c': source"),
        ({"over": ["hue"]}, "over and also: unknown axis 'hue'"),
        ({"over": ["N"], "also": ["N"]}, "an axis twice"),
        ({"quantifier": "most"}, "claim 'c': quantifier"),
        ({"tests": [{"metric": "fd", "reference": "teacher", "better": "CM"}]}, "unknown metric 'fd'"),
        ({"tests": [{"metric": "ode_error", "reference": "data", "better": "CM"}]}, "no reference 'data'"),
        ({"tests": [{"metric": "fid", "reference": "data"}]}, "either better, or equal"),
        ({"tests": [{"metric": "fid", "reference": "data", "better": "CM", "method": "CM", "direction": "falls"}]}, "either better"),
        ({"tests": [{"metric": "fid", "reference": "data", "method": "CM"}]}, "either better"),
        ({"tests": [{"metric": "fid", "reference": "data", "better": "GAN"}]}, "unknown method .GAN."),
        ({"tests": [{"metric": "fid", "reference": "data", "better": "CM", "p": 1}]}, "tests.0.p: unknown key"),
        ({"tests": [{"metric": "fid", "reference": "data", "better": "CM"}, {"metric": "fid", "reference": "data", "method": "CM", "direction": "falls"}]}, "one kind"),
        ({"tests": [{"metric": "fid", "reference": "data", "method": m, "direction": "falls"} for m in ("CM", "Direct CM")]}, "of one method"),
        ({"family": "tertiary"}, "claim 'c': family"),
        ({"unit": "prompt"}, "claim 'c': unit"),
        ({"unit": "teacher", "over": ["N"]}, "teachers are compared in the main setting"),
        ({"at": {"hue": 1}}, "at: unknown axis 'hue'"),
        ({"at": {"lr": -1}}, "at: lr"),
        ({"at": {"sampling_steps": 0}}, "whole number above 0"),
        ({"at": {"N": 10}, "over": ["N"]}, "at: N is varied"),
    ],
)  # fmt: skip
def test_mistakes_in_a_claim_name_it(tmp_path, one_line, change, match):
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump({"claims": [claim() | change]}))
    with pytest.raises(UserError, match=match) as error:
        read_claims(path)
    assert str(path) in one_line(error)


@pytest.mark.parametrize(
    "text", ["", "claims:", "claims: []", "claims: [1]", "other: 1\nclaims: []", "- a", "claims: {a: 1}", "claims: ["]
)
def test_mistakes_around_claims(tmp_path, one_line, text):
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_claims(path)
    assert str(path) in one_line(error)


def test_an_id_is_there_once(tmp_path, one_line):
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump({"claims": [claim(), claim()]}))
    with pytest.raises(UserError, match="twice") as error:
        read_claims(path)
    one_line(error)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.dates()
    | st.sampled_from(["fid", "CM", "teacher", "N", "every", "falls", "paper"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers() | st.sampled_from(["metric", "better"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def mutated() -> Iterator[st.SearchStrategy[dict[str, Any]]]:
    keys = [*Claim.model_fields, "extra"]
    yield st.builds(lambda key, value: claim() | {key: value}, st.sampled_from(keys), values)
    yield st.dictionaries(st.sampled_from(keys), values)


@pytest.mark.slow
@given(st.one_of(*mutated()) | values, st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_yaml_is_claims_or_one_line(tmp_path_factory, item, whole):
    path = tmp_path_factory.mktemp("claims") / "claims.yaml"
    path.write_text(yaml.safe_dump(item if whole else {"claims": [item]}), encoding="utf-8", errors="surrogatepass")
    try:
        found = read_claims(path)
    except UserError as error:
        text = str(error)
        assert len(text.splitlines()) == 1 and text.startswith(str(path))
        text.encode()
    else:
        assert all(isinstance(c, Claim) for c in found)
        "".join(c.says + c.where for c in found).encode()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"difference": "x"}, "difference is 'x'"),
        ({"p": 1.5}, "p is 1.5"),
        ({"n": None}, "lacks its difference"),
        ({"mean_b": None}, "lacks its difference"),
    ],
)
def test_comparisons_that_are_none(desk, one_line, change, match):
    config = grid()
    rows = [row | change for row in table(config)]
    with pytest.raises(UserError, match=match) as error:
        desk.judge([claim()], rows, config)
    one_line(error)


def test_comparisons_twice_or_of_other_columns(desk, one_line):
    config = grid()
    rows = table(config)
    with pytest.raises(UserError, match="twice for one setting") as error:
        desk.judge([claim()], [*rows, *rows], config)
    one_line(error)
    write_csv(desk.root / "comparisons.csv", [{"what": "method"}], ["what"])
    with pytest.raises(UserError, match="lacks the columns a, b") as error:
        claims(SHIPPED, desk.root / "comparisons.csv", config, **desk.files())
    one_line(error)


# ----------------------------------------------------------------- claims of other papers

OTHERS = [
    {
        "id": "gc", "says": "GC is better.", "source": "others",
        "tests": [{"metric": "fd_tiny", "reference": "data", "better": "GC (CT)", "than": "CT"}],
    },
    {
        "id": "steps", "says": "CT's FD falls.", "source": "others",
        "tests": [
            {"metric": "fd_tiny", "reference": "data", "method": "CT", "direction": "falls", "along": "sampling_steps"}
        ],
    },
]  # fmt: skip
TWO = {"process": {"kind": "karras"}, "teacher": {"kind": "edm"}, "ode": {"solver": "heun", "N": 16}}


def lines(config: Config, ct_minus_gc: float, more_minus_one: float) -> list[dict[str, Any]]:
    """Comparisons of CT with GC, and of CT in two and four steps with one."""
    setting = config.runs()[0].setting.axes()
    steps = setting["steps"]
    common = {
        **setting, "a_step": steps, "b_step": steps, "metric": "fd_tiny", "reference": "data", "mean_b": 2.0, "level": 0.95,
        "se_seeds": 1e-4, "se_prompts": 1e-4, "df": 9, "p": 1e-6, "test": "permutation", "p_prompts": 1e-6, "n": 1024,
        "n_seeds": 3, "dim": 64, "seeds_agree": 3,
    }  # fmt: skip

    def line(what: str, a: str, b: str, k: int, difference: float) -> dict[str, Any]:
        ends = {"low": difference - 0.01, "high": difference + 0.01, "mean_a": 2 + difference}
        return {**common, "what": what, "a": a, "b": b, "sampling_steps": k, "difference": difference, **ends}

    return [
        line("method", "CT", "GC (CT)", 1, ct_minus_gc),
        line("sampling", "CT", "CT", 2, -more_minus_one),
        line("sampling", "CT", "CT", 4, more_minus_one),
    ]


def test_claims_of_other_papers(tmp_path: Path) -> None:
    students = [{"method": ["ct", "gc_ct"], "seed": [0, 1, 2], "sampling_steps": [1, 2, 4]}]
    config = parse(Config, {**TWO, "students": students})
    own = Desk(tmp_path)
    found = own.judge(OTHERS, lines(config, 0.3, -0.3), config)
    # CT − GC is above 0, so GC's is the lower; and from one step to the most, not to those between.
    assert (found["gc"].verdict, found["steps"].verdict) == (module.HOLDS, module.HOLDS)
    assert "GC (CT) 2.000, CT 2.300; GC (CT) − CT: −0.300 [−0.310, −0.290]" in own.text("html")
    assert "more steps" in own.text("html")
    found = own.judge(OTHERS, lines(config, -0.3, 0.3), config)
    assert (found["gc"].verdict, found["steps"].verdict) == (module.FAILS, module.FAILS)
    read = read_claims(tmp_path / "claims.yaml")
    assert compared(read, config) == Compared(("ct:gc_ct",), (), ("ct",), ("fd_tiny:data",))


@pytest.mark.parametrize(("better", "sign"), [("CM", 1), ("Direct CM", -1)])
def test_a_difference_is_the_claimed_better_less_the_other(desk: Desk, better: str, sign: int) -> None:
    config = grid()
    desk.judge([claim(better=better)], table(config), config)
    (line,) = read_csv(desk.root / "claims.csv")
    other = {"CM": "Direct CM", "Direct CM": "CM"}[better]
    # comparisons.csv has CM − Direct CM = 0.2 [0.15, 0.25]; where less is better a claim that is right has a difference below 0.
    assert (line["a"], line["b"], line["claimed_sign"], line["verdict"]) == (
        better, other, "-", module.FAILS if sign > 0 else module.HOLDS,
    )  # fmt: skip
    numbers = [float(line[name]) for name in ("difference", "low", "high")]
    assert numbers == pytest.approx([0.2, 0.15, 0.25] if sign > 0 else [-0.2, -0.25, -0.15])
    assert float(line["mean_a"]) - float(line["mean_b"]) == pytest.approx(0.2 * sign)
    assert f"{better} − {other}: {'+' if sign > 0 else '−'}0.200" in desk.text("html")
    assert f"{better} − {other}: {'+' if sign > 0 else '-'}0.200" in module.text(desk.root / "claims.csv")


def test_what_a_grid_has_not_is_left_out_of_the_others_claims(tmp_path: Path) -> None:
    config = parse(Config, {**TWO, "students": [{"method": ["ct"], "seed": [0, 1, 2], "sampling_steps": [1, 2]}]})
    assert list(Desk(tmp_path).judge(OTHERS, lines(config, 0.3, -0.3)[:2], config)) == ["steps"]


SOLVER = {
    "id": "heun", "says": "Heun is better.", "source": "others",
    "tests": [
        {"metric": "fd_tiny", "reference": "data", "method": "CT", "axis": "solver", "better": "heun", "than": "euler"}
    ],
}  # fmt: skip


def test_a_claim_about_two_values_of_an_axis(tmp_path: Path) -> None:
    """Heun − Euler below 0 is Heun's lower distance; the setting is Heun's, wherever the grid's own ODE is."""
    both = [{"method": ["ct"], "solver": ["euler", "heun"], "seed": [0, 1, 2]}]
    config = parse(Config, {**TWO, "ode": {"solver": "euler", "N": 16}, "students": both})
    own = Desk(tmp_path)
    for difference, verdict in ((-0.3, module.HOLDS), (0.3, module.FAILS)):
        (line, *_) = lines(config, difference, 0.1)
        row = line | {"what": "solver~euler", "b": "CT", "solver": "heun"}
        found = own.judge([SOLVER], [row], config)
        assert found["heun"].verdict == verdict
        assert f"Heun {2 + difference:.3f}, Euler 2.000" in own.text("html")
        assert "solver = Heun against Euler" in own.text("html")
    # The other way round it is another line, which nobody made.
    turned = {**SOLVER["tests"][0], "better": "euler", "than": "heun"}
    found = own.judge([{**SOLVER, "tests": [turned]}], [row], config)
    assert found["heun"].verdict == module.NOT_RUN


def test_which_runs_a_claim_about_an_axis_needs(tmp_path: Path) -> None:
    students = [
        {"method": ["ct"], "solver": ["heun", "euler"], "seed": [0, 1]},
        {"method": ["ct"], "solver": ["euler"], "loss": ["l1"], "seed": [0]},
        {"method": ["cd"], "seed": [0]},
    ]
    config = parse(Config, {**TWO, "students": students})
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump({"claims": [SOLVER]}))
    pairs = beside(read_claims(path), config)
    assert [(a.solver, b.solver, a.seed, b.seed, other) for a, b, other in pairs] == [
        ("heun", "euler", seed, seed, ("ct", "solver", "euler")) for seed in (0, 1)
    ]
    assert all(a.at(solver="euler") == b for a, b, _ in pairs)
    # Another's claim about what a grid has not is none of its claims.
    one = parse(Config, {**TWO, "students": [{"method": ["ct"], "seed": [0]}]})
    assert about(read_claims(path), one) == [] and beside(read_claims(path), one) == []


def test_every_claim_s_pair_is_of_methods_there_are() -> None:
    read = read_claims(Path(__file__).parents[2] / "workflow/claims.yaml")
    assert {claim.source for claim in read} == {"paper", "ours", "others"}
    assert all(claim.pair[0] in METHODS.values() and claim.pair[1] in METHODS.values() for claim in read)


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ({"better": "CT"}, "better: CT needs than"),
        ({"better": "CT", "than": "CT"}, "is another method"),
        ({"method": "CT", "direction": "falls", "than": "CM"}, "than goes with better"),
        ({"method": "CT", "axis": "colour", "better": "red", "than": "blue"}, "unknown axis 'colour'"),
        ({"method": "CT", "axis": "solver", "better": "heun", "than": "rk45"}, "unknown solver 'rk45'"),
        ({"method": "CT", "axis": "loss", "better": "mse", "than": "mse"}, "two values of the axis"),
        ({"method": "XY", "axis": "loss", "better": "mse", "than": "l1"}, "unknown method 'XY'"),
        ({"axis": "loss", "better": "mse", "than": "l1"}, "has method, better and than"),
        ({"method": "CT", "axis": "N", "better": 16, "than": 4, "reference": "teacher"}, "are two ODEs"),
    ],
)
def test_mistakes_in_a_pair(tmp_path: Path, test: dict[str, Any], words: str) -> None:
    path = tmp_path / "claims.yaml"
    item = {
        "id": "c",
        "says": "It is so.",
        "source": "others",
        "tests": [{"metric": "fd_tiny", "reference": "data", **test}],
    }
    path.write_text(yaml.safe_dump({"claims": [item]}))
    with pytest.raises(UserError, match=words):
        read_claims(path)


TREND = {"axis": "N", "scale": "log", "lead": "grows"}


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ({"equal": ["CM", "Direct CM"]}, "equal and margin go together"),
        ({"better": "CM", "margin": 0.1}, "equal and margin go together"),
        ({"equal": ["CM", "CM"], "margin": 0.1}, "names one method twice"),
        ({"equal": ["CM", "XY"], "margin": 0.1}, "unknown method 'XY'"),
        ({"equal": ["CM", "Direct CM"], "margin": 0}, "neither a number above 0"),
        ({"equal": ["CM", "Direct CM"], "margin": "five"}, "neither a number above 0"),
        ({"equal": ["CM", "Direct CM"], "margin": "-5 %"}, "neither a number above 0"),
        ({"equal": ["CM", "Direct CM"], "margin": 0.1, "metric": ["fid", "fd_tiny"]}, "is of one metric"),
        ({"equal": ["CM", "Direct CM"], "margin": "5 %", "metric": "kid_tiny"}, "kid_tiny has no zero to be a share of"),
        ({"equal": ["CM", "Direct CM"], "margin": "5 %", "trend": {"axis": "N", "scale": "log"}}, "of a trend it is in the metric's unit"),
        ({"equal": ["CM", "Direct CM"], "margin": 0.1, "better": "CM"}, "either better, or equal"),
        ({"better": "CM", "mean": "hue"}, "unknown axis 'hue'"),
        ({"better": "CM", "mean": "N", "trend": TREND}, "one of mean, trend, axis and along"),
        ({"method": "CM", "direction": "falls", "mean": "N"}, "mean goes with better or equal"),
        ({"better": "CM", "trend": {"axis": "N", "scale": "log"}}, "trend.lead, grows or shrinks, goes with better"),
        ({"method": "CM", "direction": "falls", "trend": {"axis": "step", "scale": "log", "lead": "grows"}}, "goes with better"),
        ({"method": "CM", "direction": "falls", "trend": {"axis": "N", "scale": "log"}, "reference": "teacher"}, "ODEs of their own"),
        ({"better": "CM", "trend": {**TREND, "values": [10, 20]}}, "either scale, log or linear, or two values"),
        ({"better": "CM", "trend": {**TREND, "axis": "loss"}}, "loss is no number"),
        ({"better": "CM", "trend": {"axis": "step", "values": [1, 2], "lead": "grows"}}, "step has a scale"),
        ({"better": "CM", "trend": {"axis": "loss", "values": ["mse", "mse"], "lead": "grows"}}, "values are two of the axis"),
        ({"better": "CM", "trend": {**TREND, "axis": "time"}}, "over time there is ode_error"),
        ({"better": "CM", "trend": TREND, "metric": "precision_tiny"}, "of metrics with a value for each prompt"),
        ({"better": "CM", "trend": {**TREND, "scale": "square"}}, "scale"),
    ],
)  # fmt: skip
def test_mistakes_in_a_trend_or_a_margin(tmp_path: Path, one_line: Any, test: dict[str, Any], words: str) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump({"claims": [over(**{"reference": "data", **test})]}))
    with pytest.raises(UserError, match=words) as error:
        read_claims(path)
    assert str(path) in one_line(error)


def test_a_trend_says_its_axis_alone(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    for more in ({"over": ["w"]}, {"also": ["pool"]}):
        path.write_text(yaml.safe_dump({"claims": [over(better="CM", mean="N") | more]}))
        with pytest.raises(UserError, match="leave them out"):
            read_claims(path)
