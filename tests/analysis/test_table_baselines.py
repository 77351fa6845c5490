"""What a student has to beat, the parts of its error and its correlations, in tables, in Table 1 and in the figure of directions."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from directcm.analysis.data.selection import main_runs
from directcm.analysis.data.tidy import (
    CORRELATION_COLUMNS,
    DIRECTION_COLUMNS,
    FLOOR,
    TEACHER,
    TO_BEAT,
)
from directcm.analysis.figures import figure_directions, figure_results
from directcm.analysis.needs import available, facts
from directcm.analysis.pages.printed import _table1_text
from directcm.analysis.tables import table1, table_baselines, table_parts, table_within
from directcm.analysis.tables.cells import select
from directcm.config import Config
from directcm.config.specs import METHODS, METRICS
from directcm.errors import UserError
from directcm.runtime.artifacts import write_csv
from tests.analysis.tidy_tables import alike, outputs, spy

Lines = list[dict[str, Any]]
# CM's error is 0.24, Direct CM's 0.2, times 1, 1.03 and 1.06 for three seeds.
ERRORS = dict(zip(TO_BEAT, (1.15, 0.1, 1.3, 0.3), strict=True))
PARTS = ["ode_bias", "ode_gain", "ode_scatter", "ode_correlation", "ode_variance"]


@pytest.fixture
def config(configure: Callable[..., Config]) -> Config:
    return configure(students=[{"seed": [0, 1, 2]}])


def with_baselines(metrics: Lines, comparisons: Lines) -> None:
    """Every baseline with its ODE error, and a line for each method and baseline: not clear against One guided step."""
    base = next(line for line in metrics if line["row"] == TEACHER)
    for name, error in ERRORS.items():
        steps = 0 if name in TO_BEAT[:2] else 1
        own = {**base, "row": name, "sampling_steps": steps, "n": 8, "flags": "", "n_reference": None, "dim": None}
        metrics.append({**own, "metric": "ode_error", "reference": "teacher", "value": error})
        metrics += [{**own, "metric": part, "reference": "teacher", "value": error / 4} for part in PARTS]
    first = next(line for line in comparisons if line["metric"] == "ode_error")
    for method, mean in (("CM", 0.24), ("Direct CM", 0.2)):
        for name, error in ERRORS.items():
            p = 0.3 if name == "One guided step" else 0.001
            comparisons.append(
                {
                    **first, "what": "baseline", "a": method, "b": name, "b_step": None, "mean_a": mean, "mean_b": error,
                    "difference": mean - error, "low": mean - error - 0.1, "high": mean - error + 0.1, "p": p, "p_prompts": p,
                }
            )  # fmt: skip


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def text_of(page: Path) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.read_text(encoding="utf-8")))


def test_table1_has_a_row_for_each_and_says_who_is_beaten(make: Any, config: Config, tmp_path: Path) -> None:
    metrics, comparisons = make.tidy(config, change=with_baselines)
    table1.write(metrics, comparisons, config, tmp_path / "table1.csv")
    rows = rows_of(tmp_path / "table1.csv")
    assert list(dict.fromkeys(row["row"] for row in rows)) == [TEACHER, FLOOR, *TO_BEAT, "CM", "Direct CM"]
    own = {row["row"]: (row["metric"], float(row["mean"]), row["steps"]) for row in rows if row["row"] in TO_BEAT}
    assert own == {name: ("ode_error", error, "0" if name in TO_BEAT[:2] else "1") for name, error in ERRORS.items()}
    page = text_of(tmp_path / "table1.html")
    # Both beat two of four; the affine map is ahead, and one step is too near to tell.
    assert page.count("beats 2 of 4 baselines") == 2
    said = "is below conditional mean and untrained start, above affine map of the noise, not told from one guided step"
    assert f"CM (1 step, 3 seeds) {said}; Direct CM (1 step, 3 seeds) {said}." in page
    # In LaTeX the line under the values is the paper's.
    tex = (tmp_path / "table1.tex").read_text(encoding="utf-8")
    assert "beats 2 of" not in tex and "Affine map of the noise" in tex


def test_without_baselines_table1_is_what_it_was(make: Any, config: Config, tmp_path: Path) -> None:
    plain = make.tidy(config, name="plain")
    more = make.tidy(config, name="more", change=with_baselines)
    before, after = (table1.rows(*paths, config) for paths in (plain, more))
    assert [row for row in after if row["row"] not in TO_BEAT] == before and len(after) == len(before) + 4
    table1.write(*plain, config, tmp_path / "table1.csv")
    assert "baseline" not in text_of(tmp_path / "table1.html").lower()


def test_the_brief_table_says_it_in_a_note(make: Any, config: Config) -> None:
    sheet = table1.brief(*make.tidy(config, change=with_baselines), config)
    assert sheet is not None and sheet.corner == "Metric"
    assert [head.text for head in sheet.over] == [TEACHER, FLOOR, "CM", "Direct CM"]
    (errors,) = (note for note in sheet.notes if note.startswith("ODE error without training"))
    assert errors == (
        "ODE error without training: conditional mean 1.1500, affine map of the noise 0.1000, untrained start 1.3000, "
        "one guided step 0.3000."
    )
    assert sum("above affine map of the noise" in note for note in sheet.notes) == 1


def test_other_tables_have_no_line_without_a_value(make: Any, config: Config) -> None:
    paths = make.tidy(config, change=with_baselines)
    lines, _ = select(*paths, config, numbers=[1], names=["cmmd_tiny", "precision_tiny"])
    assert [line.row for line in lines] == [TEACHER, FLOOR, "CM", "Direct CM"]


def test_published_baselines_are_a_table_below(make: Any, config: Config) -> None:
    rows = [
        {k: "" if v is None else v for k, v in row.items()}
        for row in table1.rows(*make.tidy(config, change=with_baselines), config)
    ]
    first, second = _table1_text(rows).split("\n\n")
    assert "Conditional mean" not in first and first.count("\n") == 9
    assert (
        second.splitlines()[0]
        == "|without training|conditional mean|affine map of the noise|untrained start|one guided step|"
    )
    assert second.splitlines()[2] == "|ODE error to teacher samples ↓|1.1500|0.1000|1.3000|0.3000|"


def test_the_figure_of_table1_leaves_them_out(
    make: Any, configure: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy(monkeypatch)
    config = configure(students=[{"seed": [0, 1, 2]}], metrics=["ode_error", "fd_tiny"])
    for name, change in (("a", None), ("b", with_baselines)):
        table1.write(*make.tidy(config, name=name, change=change), config, tmp_path / f"{name}.csv")
        figure_results.draw(tmp_path / f"{name}.csv", *outputs(tmp_path / "figures", name))
    assert alike(tmp_path / "figures", "a", "b")


# ----------------------------------------------------------------- the table of baselines


def test_the_table_of_baselines(make: Any, config: Config, tmp_path: Path) -> None:
    _, comparisons = make.tidy(config, change=with_baselines)
    found = table_baselines.write(comparisons, config, tmp_path / "t.csv")
    assert [(row["row"], row["baseline"], row["verdict"]) for row in found] == [
        (method, name, verdict)
        for method in ("CM", "Direct CM")
        for name, verdict in zip(TO_BEAT, ("beaten", "ahead", "beaten", "no difference shown"), strict=True)
    ]
    assert [row["difference"] for row in found[:2]] == pytest.approx([0.24 - 1.15, 0.24 - 0.1])
    assert list(rows_of(tmp_path / "t.csv")[0]) == table_baselines.COLUMNS
    page = text_of(tmp_path / "t.html")
    assert "beats it" in page and "is worse" in page and "linear function of the noise" in page
    assert r"\label{tab:table_baselines}" in (tmp_path / "t.tex").read_text(encoding="utf-8")
    _, without = make.tidy(config, name="plain")
    with pytest.raises(UserError, match="no ODE error is compared with a baseline"):
        table_baselines.write(without, config, tmp_path / "t.csv")


def test_a_method_beats_by_p_over_seeds_and_prompts(make: Any, config: Config, tmp_path: Path) -> None:
    def change(metrics: Lines, comparisons: Lines) -> None:
        with_baselines(metrics, comparisons)
        for line in comparisons:
            if line["what"] == "baseline":
                line.update({"p": 0.2, "p_prompts": 0.001})

    _, comparisons = make.tidy(config, change=change)
    assert {row["verdict"] for row in table_baselines.rows(comparisons, config)} == {"no difference shown"}


# ----------------------------------------------------------------- parts


def test_the_table_of_parts(make: Any, config: Config, tmp_path: Path) -> None:
    assert table_parts.names_of(config) == ["ode_error", *PARTS, "fd_tiny", "fd_tiny_mean", "fd_tiny_covariance"]
    metrics, comparisons = make.tidy(config, change=with_baselines)
    table_parts.write(metrics, comparisons, config, tmp_path / "t.csv")
    rows = rows_of(tmp_path / "t.csv")
    assert {row["metric"] for row in rows if row["row"] == "CM"} == set(table_parts.names_of(config))
    assert {row["row"] for row in rows if row["metric"] == "ode_gain"} == {*TO_BEAT, "CM", "Direct CM"}
    page = (tmp_path / "t.html").read_text(encoding="utf-8")
    assert "Bias² + gain + scatter = ODE error" in page
    # What has no better end has no arrow.
    arrow = '&nbsp;<span aria-hidden="true">'
    assert f"Correlation ρ{arrow}↑" in page and "Variance ratio" in page and f"Variance ratio{arrow}" not in page


def test_parts_come_with_what_they_are_of(configure: Callable[..., Config]) -> None:
    config = configure(metrics=["ode_error", "clip_tiny"])
    assert config.metric_names() == ["ode_error", "clip_tiny", *PARTS]
    assert config.baseline_metrics() == ["ode_error", *PARTS] and config.floor_metrics() == ["clip_tiny"]
    alone = configure(metrics=["clip_tiny"])
    assert alone.metric_names() == ["clip_tiny"] and alone.baseline_metrics() == []
    known = facts(alone)
    assert not known["baselines"] and not known["parts"] and not known["within"] and not known["ode_error"]
    assert not {"table_baselines", "table_parts", "table_within", "directions"} & {one.name for one in available(alone)}
    assert all(METRICS[m].part_of in METRICS for m in METRICS if METRICS[m].part_of)


# ----------------------------------------------------------------- within a method


def correlations(path: Path, config: Config, rho: dict[tuple[str, str], tuple[float, ...]]) -> Path:
    rows = []
    for run in main_runs(config):
        for (method, metric), values in rho.items():
            if METHODS[run.method] == method:
                own = {"row": method, **run.spelled, "step": run.steps, "sampling_steps": 1}
                rows.append({**own, "metric": metric, "rho": values[run.seed], "n": 8})
                # More sampling steps and snapshots stay out.
                rows += [{**rows[-1], "sampling_steps": 4, "rho": 0.9}, {**rows[-1], "step": 100, "rho": 0.9}]
    write_csv(path, rows, CORRELATION_COLUMNS)
    return path


def test_within_and_between(make: Any, config: Config, tmp_path: Path) -> None:
    def change(metrics: Lines, comparisons: Lines) -> None:
        for line in comparisons:
            line["p"] = 0.2 if line["metric"] == "prompt_accuracy" else 0.01

    _, comparisons = make.tidy(config, change=change)
    rho = {
        ("CM", "clip_tiny"): (-0.2, -0.3, -0.4), ("Direct CM", "clip_tiny"): (-0.1, 0.1, -0.2),
        ("CM", "prompt_accuracy"): (0.1, 0.1, 0.1), ("Direct CM", "prompt_accuracy"): (0.3, 0.2, 0.1),
    }  # fmt: skip
    path = correlations(tmp_path / "correlations.csv", config, rho)
    found = table_within.write(comparisons, path, config, tmp_path / "t.csv")
    assert [(row["row"], row["metric"], row["within"], row["between"]) for row in found] == [
        # CM's error is larger and its CLIP score better: within CM the larger error is the worse sample.
        ("CM", "clip_tiny", "larger error, worse", "larger error, better"),
        ("Direct CM", "clip_tiny", "no common sign", "larger error, better"),
        ("CM", "prompt_accuracy", "larger error, better", "no difference shown"),
        ("Direct CM", "prompt_accuracy", "larger error, better", "no difference shown"),
    ]
    assert (found[0]["rho"], found[0]["sd"], found[0]["n_seeds"]) == (pytest.approx(-0.3), pytest.approx(0.1), 3)
    assert "methods differ" in text_of(tmp_path / "t.html") and "−0.300" in text_of(tmp_path / "t.html")
    write_csv(tmp_path / "none.csv", [row for row in rows_of(path) if row["step"] == "100"], CORRELATION_COLUMNS)
    with pytest.raises(UserError, match="none of the main comparison"):
        table_within.rows(comparisons, tmp_path / "none.csv", config)


# ----------------------------------------------------------------- along directions


def directions(path: Path, config: Config) -> Path:
    """Bands (1, 1), (2, 3), (4, 6): the teacher's variance 6, 3, 1; CM's error 1, 1, 2, Direct CM's 3, 1, 0, times 1 + seed."""
    rows = []
    errors = {"cm": (1, 1, 2), "direct_cm": (3, 1, 0)}
    bands = list(zip(((1, 1), (2, 3), (4, 6)), (6, 3, 1), range(3), strict=True))
    for run in main_runs(config):
        for (first, last), variance, i in bands:
            own = {
                "row": METHODS[run.method],
                **run.spelled,
                "step": run.steps,
                "sampling_steps": 1,
                "first": first,
                "last": last,
            }
            rows.append(
                {
                    **own,
                    "reference_variance": variance,
                    "variance": 2 * variance,
                    "error": errors[run.method][i] * (1 + run.seed),
                }
            )
            rows.append({**rows[-1], "sampling_steps": 2, "error": 99})
    for name in TO_BEAT:
        for (first, last), variance, _ in bands:
            own = {"row": name, **main_runs(config)[0].ode.spelled, "sampling_steps": 1, "first": first, "last": last}
            rows.append({**own, "reference_variance": variance, "variance": 0, "error": variance})
    write_csv(path, rows, DIRECTION_COLUMNS)
    return path


@pytest.mark.slow
def test_the_figure_of_directions(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = spy(monkeypatch)
    path, main = directions(tmp_path / "d.csv", config), main_runs(config)[0].setting
    for name in "ab":
        figure_directions.draw(path, main, *outputs(tmp_path, name))
    assert alike(tmp_path, "a", "b")
    rows = rows_of(tmp_path / "a.csv")

    def means(quantity: str, row: str) -> list[float]:
        return [float(r["value"]) for r in rows if (r["quantity"], r["row"], r["seed"]) == (quantity, row, "")]

    assert means(figure_directions.SHARE, "CM") == pytest.approx([0.25, 0.5, 1])
    assert means(figure_directions.SHARE, "Direct CM") == pytest.approx([0.75, 1, 1])
    assert means("share of the variance", TEACHER) == pytest.approx([0.6, 0.9, 1])
    # The mean over seeds of 1 + seed is 2.
    assert means(figure_directions.ERROR, "CM") == pytest.approx([2 / 6, 2 / 3, 4])
    assert means(figure_directions.VARIANCE, "Direct CM") == pytest.approx([2, 2, 2])
    assert means(figure_directions.ERROR, "Conditional mean") == pytest.approx([1, 1, 1])
    assert [
        r["sd"]
        for r in rows
        if (r["quantity"], r["row"], r["first"], r["seed"]) == (figure_directions.ERROR, "CM", "1", "")
    ] == [f"{np.std([1 / 6, 2 / 6, 3 / 6], ddof=1):.10g}"]
    assert "the teacher's variance" in saved[0].words and "CM (3 seeds)" in saved[0].words
    write_csv(tmp_path / "none.csv", [r for r in rows_of(path) if r["row"] in TO_BEAT], DIRECTION_COLUMNS)
    with pytest.raises(UserError, match="no students of the main setting"):
        figure_directions.draw(tmp_path / "none.csv", main, *outputs(tmp_path, "c"))


def test_what_the_documents_can_show(make: Any, config: Config, tmp_path: Path) -> None:
    """The published blocks say what the tables' CSV has."""
    from directcm.analysis.pages.printed import BLOCKS, Tables

    metrics, comparisons = make.tidy(config, change=with_baselines)
    related = correlations(metrics.with_name("correlations.csv"), config, {("CM", "clip_tiny"): (-0.2, -0.3, -0.4)})
    tables = Tables(related.parent, config, tmp_path)
    shown = {
        name: BLOCKS[name].text(BLOCKS[name].rows(tables)).splitlines() for name in ("baselines", "parts", "within")
    }
    assert shown["baselines"][2] == ("|CM (1 step)|conditional mean|0.2400|1.1500|−0.9100|[−1.0100, −0.8100]|beaten|")
    assert len(shown["baselines"]) == 2 + 8
    assert shown["parts"][0].startswith(
        "||ODE error|Bias²|Gain|Scatter (1 − ρ²)|Correlation ρ|Variance ratio|FD-tiny|FD-tiny (means)|"
    )
    assert [line.split("|")[1] for line in shown["parts"][2:]] == [FLOOR, *TO_BEAT, "CM", "Direct CM"]
    assert shown["parts"][3].split("|")[2:4] == ["1.1500", "0.2875"]
    assert shown["within"][2].startswith("|CLIP-tiny|CM|−0.300 ± 0.100|larger error, worse|+")
    assert comparisons.name == "comparisons.csv"
