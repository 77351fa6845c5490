"""The table over teachers: means, intervals and p by hand and by simulation, as claims have them, and what it says of the design."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy import stats

from directcm.analysis.data.tidy import COMPARISON_COLUMNS, frame
from directcm.analysis.needs import available, facts
from directcm.analysis.tables import table_teachers
from directcm.analysis.tables.verdict import over_teachers
from directcm.config import Config
from directcm.errors import UserError
from directcm.runtime.artifacts import read_csv, write_csv

# Of five teachers: CM and Direct CM.
CM, DIRECT = [1.1, 0.9, 1.3, 1.0, 1.2], [0.8, 0.85, 0.9, 1.05, 0.9]
PAIRS = {("ode_error", "teacher"): (CM, DIRECT), ("fd_tiny", "data"): (DIRECT, CM)}


def table(tmp_path, config, pairs=PAIRS, **changes):
    """comparisons.csv over teachers: of the main setting in one and in two sampling steps, and of another setting."""
    main = config.runs()[0].setting
    rows = [
        {
            "teacher_seed": t, "what": "method", "a": "CM", "b": "Direct CM", **setting.spelled, "a_step": 250, "b_step": 250,
            "sampling_steps": steps, "metric": metric, "reference": reference, "mean_a": a + away, "mean_b": b,
            "difference": a + away - b, "se_prompts": 0.01 * (t + 1), "n": 64, "n_seeds": 1, **changes,
        }
        for setting, steps, away in ((main, 1, 0.0), (main, 2, 9.0), (main.at(N=10), 1, 9.0))
        for (metric, reference), both in pairs.items()
        for t, (a, b) in enumerate(zip(*both, strict=True))
    ]  # fmt: skip
    columns = ["teacher_seed", *COMPARISON_COLUMNS]
    write_csv(tmp_path / "comparisons.csv", [{c: row.get(c) for c in columns} for row in rows], columns)
    return tmp_path / "comparisons.csv"


def test_means_intervals_and_p_are_over_teachers(tmp_path):
    config = Config()
    found = table_teachers.write(table(tmp_path, config), config, tmp_path / "out.csv")
    assert [(r["metric"], r["reference"]) for r in found] == list(PAIRS)
    ode, fd = found
    # By hand: the differences 0.3, 0.05, 0.4, −0.05, 0.3 have mean 0.2, sum of squares about it 0.145, so se √(0.145/4/5) = 0.08515.
    assert (
        ode["difference"] == pytest.approx(0.2)
        and ode["cm"] == pytest.approx(1.1)
        and ode["direct_cm"] == pytest.approx(0.9)
    )
    # The prompts' standard errors are 0.01 to 0.05: 0.03 in the mean. P(|0.08515 T₄ + 0.03 T₆₃| ≥ 0.2), by simulation.
    g = np.random.default_rng(0)
    draws = np.abs(0.0851469 * g.standard_t(4, 400_000) + 0.03 * g.standard_t(63, 400_000))
    assert ode["p"] == pytest.approx(np.mean(draws >= 0.2), abs=0.002) and fd["p"] == pytest.approx(ode["p"])
    assert ode["high"] - ode["difference"] == pytest.approx(np.quantile(draws, 0.95), rel=0.01)
    assert ode["low"] + ode["high"] == pytest.approx(2 * ode["difference"])
    # More than Student's t over teachers alone, which takes the prompts that they share for fixed.
    own = stats.ttest_1samp([a - b for a, b in zip(CM, DIRECT, strict=True)], 0)
    assert ode["p"] > own.pvalue + 0.002 and ode["low"] < own.confidence_interval(0.95).low
    assert (ode["cm_sd"], ode["direct_cm_sd"]) == pytest.approx((np.std(CM, ddof=1), np.std(DIRECT, ddof=1)))
    assert (ode["teachers_agree"], ode["n_teachers"], ode["n_seeds"], ode["steps"]) == (4, 5, 1, 1)
    assert fd["difference"] == pytest.approx(-0.2) and fd["teachers_agree"] == 4
    lines = read_csv(tmp_path / "out.csv")
    assert [line["difference"] for line in lines] == ["0.2", "-0.2"] and list(lines[0]) == table_teachers.COLUMNS
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert (
        "4 of 5" in page and "5 teachers, each with 1 student seed of" in page and "an autoencoder, a network" in page
    )
    assert "+0.2000" in page and "<strong>" not in page and "Interval (95 %) and p" in page
    assert r"means $\pm$ standard deviations over teachers" in (tmp_path / "out.tex").read_text(encoding="utf-8")


def test_it_is_what_claims_are_judged_by(tmp_path):
    config = Config()
    path = table(tmp_path, config)
    pooled = over_teachers(frame(path, ("teacher_seed", *COMPARISON_COLUMNS)), 0.95)
    for row in table_teachers.rows(path, config):
        (own,) = (
            line for line in pooled.to_dict("records")
            if (line["metric"], line["sampling_steps"], line["N"]) == (row["metric"], 1, config.ode.N)
        )  # fmt: skip
        names = ("difference", "low", "high", "p")
        assert [row[name] for name in names] == [own[name] for name in names] and own["n_seeds"] == row["n_teachers"]


def test_without_a_variance_over_prompts_there_is_neither_interval_nor_p(tmp_path):
    config = Config()
    ode, fd = table_teachers.write(table(tmp_path, config, se_prompts=None), config, tmp_path / "out.csv")
    for row in (ode, fd):
        assert row["low"] is row["high"] is row["p"] is None and row["teachers_agree"] == 4
    assert ode["difference"] == pytest.approx(0.2)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", (tmp_path / "out.html").read_text(encoding="utf-8"), re.DOTALL)
    assert [re.sub(r"<[^>]+>|\s", "", cell) for cell in cells][2:5] == ["+0.20000", "–", "–"]


def test_an_undefined_value_empties_its_line(tmp_path):
    config = Config()
    pairs = {**PAIRS, ("fd_tiny", "data"): (CM, [*DIRECT[:4], float("nan")])}
    ode, fd = table_teachers.rows(table(tmp_path, config, pairs), config)
    assert ode["p"] is not None and fd["difference"] is fd["p"] is fd["teachers_agree"] is fd["cm"] is None
    table_teachers.write(tmp_path / "comparisons.csv", config, tmp_path / "out.csv")
    assert read_csv(tmp_path / "out.csv")[1]["p"] == ""


def test_what_is_no_table_over_teachers_is_one_line(tmp_path, one_line):
    config = Config()
    path = table(tmp_path, config, a="CM", b="CT")
    with pytest.raises(UserError) as error:
        table_teachers.rows(path, config)
    assert "no difference of CM and Direct CM" in one_line(error)
    with pytest.raises(UserError) as error:
        table_teachers.rows(table(tmp_path, config, teacher_seed=3), config)
    assert "ode_error against teacher is there twice for a teacher" in one_line(error)
    write_csv(tmp_path / "other.csv", [dict.fromkeys(COMPARISON_COLUMNS, "1")], COMPARISON_COLUMNS)
    with pytest.raises(UserError) as error:
        table_teachers.rows(tmp_path / "other.csv", config)
    assert "lacks the columns teacher_seed" in one_line(error)


@pytest.mark.parametrize(
    ("lines", "there"),
    [
        ([{}], False),
        ([{"seed": [0, 1]}, {"teacher_seed": [1]}], True),
        ([{"seed": [0, 1]}, {"teacher_seed": [1], "method": ["cm"]}], False),
        ([{"seed": [0, 1]}, {"teacher_seed": [1, 2], "seed": [5]}], True),
        ([{"seed": [0, 1]}, {"teacher_seed": [1], "seed": [5]}], False),
        ([{"seed": [0, 1]}, {"teacher_seed": [0, 1], "N": [10]}], False),
        ([{"method": ["cm"]}, {"method": ["cm"], "teacher_seed": [1]}], False),
    ],
)
def test_it_is_made_where_both_methods_have_several_teachers(configure, lines, there):
    config = configure(students=lines)
    assert facts(config)["several_teachers"] is there
    assert ("table_teachers" in [one.name for one in available(config)]) is there
