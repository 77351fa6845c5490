"""Costs summed per step, artefacts by step, hostile facts escaped; and the report's captions."""

from __future__ import annotations

from html import unescape
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from directcm.analysis.pages.provenance import (
    COLUMNS,
    costs_page,
    provenance_page,
    read_benchmark,
    read_records,
    step_of_benchmark,
)
from directcm.config import Convergence, Editing, FixedPoints
from directcm.config.exhibits import exhibits
from directcm.errors import UserError
from directcm.runtime.artifacts import new_artifact, new_collection, open_artifact, read_csv

HEADER = "s\th:m:s\tmax_rss\tmax_vms\n"
REPORT = Path(__file__).parents[2] / "workflow" / "report"


def artifact(root, name, kind, counts=None, provenance=None, settings=None, inputs=None):
    with new_artifact(root / name, kind, settings=settings or {}, inputs=inputs) as out:
        (out / "a.txt").write_text("x")
        (out / "name.txt").write_text(name)
        out.counts = counts or {}
        # None: the memory of the process that runs the tests is no job's.
        out.provenance = {"max_rss_mb": None} | (provenance or {})
    return root / name


def test_step_of_benchmark():
    assert step_of_benchmark("results/x/benchmarks/teacher_seed~1/teacher.tsv") == "teacher"
    assert step_of_benchmark("results/x/benchmarks/train/teacher_seed~1/method~cm,seed~0.tsv") == "train"
    assert step_of_benchmark("results/x/benchmarks/train/cm.tsv") == "train"
    assert step_of_benchmark("results/x/benchmarks/data.tsv") == "data"
    assert step_of_benchmark("elsewhere/noise.tsv") == "noise"


def test_costs(tmp_path, config):
    forwards = {"teacher_forwards": 100, "teacher_forwards_minimum": 80}
    folders = [
        artifact(tmp_path, "targets/0", "targets", forwards),
        artifact(tmp_path, "targets/1", "targets", forwards),
        artifact(tmp_path, "student", "student", {"teacher_forwards": 7}, {"seconds": 5.0}) / "manifest.json",
        artifact(tmp_path, "noise", "noise", {}, {"seconds": 1.5, "max_rss_mb": 250.5}) / "provenance.json",
    ]
    bench = tmp_path / "benchmarks" / "targets"
    bench.mkdir(parents=True)
    (bench / "0.tsv").write_text(HEADER + "10.5\t0:00:10\t300.0\t1\n")
    (bench / "1.tsv").write_text(HEADER + "2.25\t0:00:02\t-\t-\n")
    (tmp_path / "benchmarks" / "report.tsv").write_text(HEADER + "4\t0:00:04\tNA\tNA\n")
    paths = [bench / "0.tsv", bench / "1.tsv", tmp_path / "benchmarks" / "report.tsv", bench / "missing.tsv"]
    costs_page(config, folders, paths, tmp_path / "p.html", tmp_path / "costs.csv")
    rows = read_csv(tmp_path / "costs.csv")
    assert list(rows[0]) == COLUMNS
    found = {r["step"]: tuple(r[c] for c in COLUMNS[1:]) for r in rows}
    assert found == {
        "targets": ("2", "12.75", "300.0", "200", "160"),
        "train": ("1", "5.0", "", "7", ""),
        "noise": ("1", "1.5", "250.5", "", ""),
        "report": ("1", "4.0", "", "", ""),
    }
    html = (tmp_path / "p.html").read_text()
    assert "1.25" in html
    assert "All steps" in html
    # The student has no minimum, so that its forwards are no part of the total's ratio.
    assert "<span>200</span>" in html[html.index("All steps") :]


def test_artefacts_of_one_job_count_once(tmp_path, config):
    """Where no benchmark file is: features by two extractors were one job of 8 s, and another set's another of 3 s."""
    folders = []
    for name, log, seconds in (("a/x", "x", 7.5), ("b/x", "x", 8.0), ("a/y", "y", 3.0), ("b/y", "y", 2.75)):
        about = {"seconds": seconds, "log": f"logs/features/{log}.log"}
        folders.append(artifact(tmp_path, f"features/{name}", "features", {}, about))
    # Made by hand, without a log: a job each.
    folders += [artifact(tmp_path, f"noise/{i}", "noise", {}, {"seconds": 1.0, "log": None}) for i in range(2)]
    costs_page(config, folders, [], tmp_path / "p.html", tmp_path / "costs.csv")
    found = {r["step"]: (r["jobs"], r["seconds"]) for r in read_csv(tmp_path / "costs.csv")}
    assert found == {"features": ("2", "11.0"), "noise": ("2", "2.0")}
    provenance_page(config, folders, tmp_path / "q.html")
    assert "4 folders of features" in (page := (tmp_path / "q.html").read_text()) and "11.0 s" in page


def test_collections_and_floors_count_for_the_step_that_made_them(tmp_path):
    noise = artifact(tmp_path, "noise", "noise", settings={"purpose": "evaluation"})
    floor = artifact(tmp_path, "floor_noise", "noise", settings={"purpose": "floor"})
    own = artifact(tmp_path, "reference/0", "samples", inputs={"noise": open_artifact(noise, "noise")})
    other = artifact(tmp_path, "elsewhere/0", "samples", inputs={"noise": open_artifact(floor, "noise")})
    collections = []
    for kind in ("samples", "features", "metrics"):
        artifact(tmp_path, f"{kind}/a/one", kind)
        artifact(tmp_path, f"{kind}/a/two", kind)
        inputs = {"student": open_artifact(noise, "noise")} if kind == "samples" else {}
        new_collection(tmp_path / kind / "a", kind, ["one", "two"], settings={}, inputs=inputs)
        collections.append(tmp_path / kind / "a" / "manifest.json")
    errors = artifact(tmp_path, "errors", "errors")
    records = read_records([noise, floor, own, other, *collections, errors])
    steps = ["noise", "floor_noise", "reference", "floor", "sample", "features", "evaluate", "error_by_time"]
    assert [r.step for r in records] == steps
    assert [r.parts for r in records] == [None] * 4 + [2] * 3 + [None]


def test_page_escapes_facts_and_configuration(tmp_path, configure):
    hostile = '</pre><script>alert("x")</script> $a_b$ 100% 🎉 مرحبا'
    config = configure(data={"kind": "folder", "path": hostile})
    facts = {"commit": hostile, "machine": "a", "dirty": True, "versions": {hostile: "1"}}
    folders = [
        artifact(tmp_path, "a", "data", {}, facts),
        artifact(tmp_path, "b", "noise", {}, {**facts, "commit": "f" * 40}),
    ]
    provenance_page(config, folders, tmp_path / "p.html")
    costs_page(config, folders, [], tmp_path / "c.html", tmp_path / "c.csv")
    assert "<script" not in (tmp_path / "c.html").read_text()
    html = (tmp_path / "p.html").read_text()
    assert "<script" not in html
    assert html.count("</pre>") == 1
    assert "made by 2 different commits" in html
    assert "uncommitted changes" in html
    assert 'name="viewport"' in html
    text = unescape(html[html.index("<pre") : html.index("</pre>")]).split(">", 1)[1]
    assert yaml.safe_load(text) == config.model_dump(mode="json")


def test_page_is_reproducible(tmp_path, config):
    folder = artifact(tmp_path, "a", "data")
    for name in "ab":
        provenance_page(config, [folder], tmp_path / f"{name}.html")
        costs_page(config, [folder], [], tmp_path / f"{name}c.html", tmp_path / f"{name}.csv")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert (tmp_path / "ac.html").read_bytes() == (tmp_path / "bc.html").read_bytes()


@pytest.mark.slow
def test_many_artefacts_stay_readable(tmp_path, config):
    folders = [artifact(tmp_path, f"students/{i:03d}", "student", provenance={"seconds": 1.5}) for i in range(30)]
    provenance_page(config, [*folders, artifact(tmp_path, "data", "data")], tmp_path / "p.html")
    html = (tmp_path / "p.html").read_text()
    assert html.count("<details>") == html.count("</details>") == 2
    assert "train: 30 folders of student" in html
    assert "45.0 s" in html
    assert "data: 1 folder of data" in html
    assert "31 folders by the step" in html
    assert "torch" in html


def test_what_is_no_manifest_or_benchmark_is_an_error(tmp_path, config):
    (tmp_path / "x.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(UserError, match="not a Snakemake benchmark"):
        read_benchmark(tmp_path / "x.tsv")
    with pytest.raises(UserError, match="no such file"):
        provenance_page(config, [tmp_path], tmp_path / "p.html")


CAPTIONS = sorted(path.stem for path in REPORT.glob("*.rst"))


def test_every_result_has_a_caption():
    """Pages by name; a figure or table without one would have the common one, as those of the experiments on why do."""
    pages = ["claims", "costs", "exhibit", "gallery_page", "provenance", "why", "workflow"]
    assert sorted([*pages, *(one.stem for one in exhibits() if not one.experiments)]) == CAPTIONS


REAL = {
    "teacher": {"kind": "diffusers", "diffusers": {"path": "x"}},
    "data": {"kind": "folder", "path": "y"},
    "metrics": ["ode_error", "fid"],
}
MANY = {
    "process": {"kind": "karras"},
    "teacher": {"kind": "edm"},
    "ode": {"solver": "heun", "N": 16, "w": 2},
    "train": {"adapter": "full"},
    "students": [
        {"method": ["cm", "direct_cm", "ct", "ict", "gc_ct", "gc_ict", "ect"], "snapshots": [64]},
        {"method": ["direct_cm"], "pool": [1024], "steps": [325]},
    ],
}
PHOTOS = {"data": {"kind": "photos", "resolution": 32}}


@pytest.mark.parametrize("name", CAPTIONS)
@pytest.mark.parametrize("settings", [{}, REAL, PHOTOS, MANY], ids=["digits", "real", "photos", "methods"])
@pytest.mark.parametrize("axis", ["N", "w"])
def test_captions_render(configure, name, settings, axis):
    docutils = pytest.importorskip("docutils.core")
    words = caption(configure, name, settings, axis, docutils)
    assert "system-message" not in words
    assert "**" not in words
    if name == "sweep":
        assert ("w = 3" if axis == "N" else "N = 50") in words
    if name == "workflow":
        assert words.count("<li>") == 5 and "Table 1, Figure 2 and the verdicts are not there yet" in words
    if name in ("convergence", "fixed_points"):
        assert {"convergence": "exact teachers", "fixed_points": "over 10 seeds"}[name] in words
    elif settings is not REAL:
        assert "SDXL" in words
        assert "not FID" in words
    else:
        assert "FD-tiny" not in words


def caption(configure, name, settings, axis, docutils):
    """A caption as HTML, on one line."""
    from jinja2 import Environment, StrictUndefined

    more = {"search": {}} if name == "table_search" else {}
    config = configure(**settings, **more).model_dump(mode="json") | {"opening": None, "space": "latent"}
    config["captions"] = {"figure_new": "What is drawn."}
    config["convergence"] = Convergence().model_dump(mode="json")
    config["fixed_points"] = FixedPoints().model_dump(mode="json")
    config["editing"] = Editing().model_dump(mode="json")
    text = (REPORT / f"{name}.rst").read_text(encoding="utf-8")
    assert name == "sweep" or "wildcards" not in text
    assert "{{ claims" not in text
    wildcards, params = SimpleNamespace(axis=axis), SimpleNamespace(fixed="w = 3" if axis == "N" else "N = 50")
    # As Snakemake has it.
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(text + "\n\n.. _Workflow: javascript:x\n")
    about = {"config": config, "wildcards": wildcards, "params": params, "rule": "figure_new"}
    text = template.render(snakemake=SimpleNamespace(**about))
    html = docutils.publish_parts(text, writer="html", settings_overrides={"halt_level": 2})["html_body"]
    return " ".join(html.split())


@pytest.mark.parametrize(
    ("name", "pair", "many"),
    [
        ("compute", "has two, with the cost of solving them, and without it", "with the cost of solving them. Targets"),
        ("frontier", "written at the ends", "the larger the mark the later"),
        ("budget", "a column per adapter from few trainable weights", "of the one adapter of this grid"),
        ("budget", "bands: ± one sample standard deviation; thin: each seed", "Methods' marks stand side by side"),
        ("map", "in a panel of its own, over ω", "over optimiser steps. Above 0"),
        ("map", "× adapter", "over optimiser steps. Above 0"),
        ("curves", "CM: the student itself one ODE step on", "a norm of whole images, not its square"),
        ("table4", "Here every student has 4000 or more", "direct_cm (1024 start points instead of 4000)"),
    ],
)
def test_captions_say_what_their_figure_shows(configure, name, pair, many):
    """Of the paper's two methods, and of more, in one adapter and at one ω."""
    docutils = pytest.importorskip("docutils.core")
    two, more = (caption(configure, name, settings, "N", docutils) for settings in ({}, MANY))
    assert pair in two and pair not in more
    assert many in more and many not in two


@pytest.mark.parametrize("name", ["table_comparison", "table_search"])
def test_captions_say_that_small_p_are_refined(configure, name):
    from directcm.statistics import inference

    assert inference.FEW == inference.REFINE == 10
    words = caption(configure, name, {}, "N", pytest.importorskip("docutils.core"))
    assert "(at least 999 permutations, ten times as many where fewer than ten of them speak for chance" in words


def test_the_page_says_where_logs_lie_and_which_slurm_jobs_they_were(tmp_path, config):
    here = {"log": "results/x/logs/train/a.log", "slurm_job": "17", "slurm_node": "node2"}
    folders = [artifact(tmp_path, "a", "student", provenance=here), artifact(tmp_path, "b", "data")]
    provenance_page(config, folders, tmp_path / "p.html")
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "results/x/logs/train/a.log; SLURM job 17 on node2" in page
