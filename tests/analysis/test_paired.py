"""The paired comparison: its sign, its readings, what it refuses to pair."""

from __future__ import annotations

import numpy as np
import pytest

from directcm.analysis.paired import COLUMNS, paired, reading
from directcm.analysis.selection import main_runs
from directcm.artifacts import new_artifact, open_artifact, read_csv, write_csv, write_json
from directcm.errors import UserError


def build(make, config, columns):
    """Teacher and students whose per-sample columns are columns(method, seed)."""
    runs = main_runs(config)
    out = [make.metrics("Teacher", {k: runs[0][k] for k in ("solver", "N", "w")}, {}, steps=runs[0]["N"])]
    for run in runs:
        samples = columns(run["method"], run["seed"])
        values = {
            ({"ode_error": ("ode_error", "teacher")}.get(n) or (n, "prompt")): float(np.mean(v))
            for n, v in samples.items()
        }
        row = {"cm": "CM", "direct_cm": "Direct CM"}[run["method"]]
        out.append(make.metrics(row, run, values, samples=samples))
    return out


def test_difference_is_cm_minus_direct_cm(make, config, tmp_path):
    wiggle = np.sin(np.arange(40))

    def columns(method, seed):
        ode = 0.30 if method == "cm" else 0.10
        clip = 0.40 if method == "cm" else 0.35
        return {
            "ode_error": list(ode + 0.01 * seed + 0.01 * wiggle * (method == "cm")),
            "clip_tiny": list(clip + 0.02 * wiggle * (method == "cm")),
            "prompt_accuracy": [float(i % 2) for i in range(40)],
        }

    rows = {
        r["metric"]: r for r in paired(build(make, config, columns), config, tmp_path / "p.csv", tmp_path / "p.html")
    }
    ode, clip, accuracy = rows["ode_error"], rows["clip_tiny"], rows["prompt_accuracy"]
    assert ode["difference"] == pytest.approx(0.2 + 0.01 * wiggle.mean())
    assert ode["cm"] == pytest.approx(0.31 + 0.01 * wiggle.mean())
    assert ode["direct_cm"] == pytest.approx(0.11)
    assert ode["low"] < ode["difference"] < ode["high"]
    assert ode["low"] > 0
    assert ode["reading"] == "Direct CM solves the ODE better here: the interval excludes 0"
    assert clip["difference"] > 0
    assert clip["reading"] == "CM is better in CLIP-tiny here: the interval excludes 0"
    assert (accuracy["difference"], accuracy["reading"]) == (0, "no difference shown: the interval contains 0")
    written = read_csv(tmp_path / "p.csv")
    assert list(written[0]) == COLUMNS
    assert [r["metric"] for r in written] == ["ode_error", "clip_tiny", "prompt_accuracy"]
    assert (written[0]["n"], written[0]["n_seeds_cm"], written[0]["pair"]) == ("40", "3", "CM - Direct CM")
    html = (tmp_path / "p.html").read_text()
    assert "over prompts, for these seeds" in html
    assert "<script" not in html
    assert html.count('scope="row"') == 3


def test_readings():
    assert reading("ode_error", -2, -1).startswith("CM solves the ODE better")
    assert reading("ode_error", 1, 2).startswith("Direct CM solves the ODE better")
    assert reading("quality_tiny", -2, -1).startswith("Direct CM is better in quality-tiny")
    assert reading("quality_tiny", 0, 1) == "no difference shown: the interval contains 0"


def test_rows_pair_by_their_number_not_their_order(make, configure, tmp_path):
    config = configure(students=[{"seed": [0]}], metrics=["ode_error"])
    artifacts = build(make, config, lambda method, seed: {"ode_error": [1.0, 2.0, 3.0, 4.0]})
    folder, content = artifacts[2].folder, artifacts[2].json("metrics.json")
    with new_artifact(folder, "metrics", settings={}) as out:
        write_json(out / "metrics.json", content)
        write_csv(
            out / "per_sample.csv", [{"row": i, "ode_error": i + 1.0} for i in (3, 1, 0, 2)], ["row", "ode_error"]
        )
    artifacts[2] = open_artifact(folder, "metrics")
    (row,) = paired(artifacts, config, tmp_path / "p.csv", tmp_path / "p.html")
    assert (row["difference"], row["low"], row["high"]) == (0, 0, 0)


def test_equal_inputs_give_equal_bytes(make, config, tmp_path):
    artifacts = make.main(config)
    for name, order in (("a", artifacts), ("b", artifacts[::-1])):
        paired(order, config, tmp_path / f"{name}.csv", tmp_path / f"{name}.html")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_other_rows_are_an_error(make, config, tmp_path):
    artifacts = build(make, config, lambda method, seed: {"ode_error": [1.0] * (8 if method == "cm" else 7)})
    with pytest.raises(UserError, match="holds other rows"):
        paired(artifacts, config, tmp_path / "p.csv", tmp_path / "p.html")


@pytest.mark.parametrize("bad", ["", "nan", "x"])
def test_a_value_that_is_no_number_is_an_error(make, config, tmp_path, bad):
    artifacts = build(make, config, lambda method, seed: {"ode_error": [1.0, 2.0]})
    run = main_runs(config)[0]
    keep = [a for a in artifacts if a.json("metrics.json")["run"] != run]
    keep.append(make.metrics("CM", run, {("ode_error", "teacher"): 1.0}, samples={"ode_error": [1.0, bad]}))
    with pytest.raises(UserError, match=r"not a number|not finite"):
        paired(keep, config, tmp_path / "p.csv", tmp_path / "p.html")


def test_one_method_alone_gives_an_empty_table_that_says_so(make, configure, tmp_path):
    config = configure(students=[{"method": ["cm"], "seed": [0]}])
    assert paired(make.main(config), config, tmp_path / "p.csv", tmp_path / "p.html") == []
    assert (tmp_path / "p.csv").read_text() == ",".join(COLUMNS) + "\n"
    assert "only one of the two methods" in (tmp_path / "p.html").read_text()
