"""The plan: forwards counted by hand and as the artefacts count them, hours from rates, what is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from directcm.analysis.data.selection import main_runs
from directcm.cli import plan
from directcm.config import Config, Ode, parse
from directcm.errors import UserError
from directcm.runtime.artifacts import new_artifact, new_collection, write_csv


def by_kind(config: Config, runs: list[dict[str, Any]]) -> dict[str, float]:
    out: dict[str, float] = {}
    for job in plan.jobs(config, runs):
        out[job.kind] = out.get(job.kind, 0) + job.forwards
    return out


def test_the_embedded_main_comparison_by_hand() -> None:
    config = Config()
    main = {job.kind for job in plan.jobs(config, main_runs(config), "main")}
    assert not main & {"endpoints", "errors"} and {"reference", "floor", "targets", "students"} <= main
    found = by_kind(config, main_runs(config))
    # 1,024 samples × 50 steps × 2 for guidance.
    assert found["reference"] == found["floor"] == 102_400
    # 4,000 start points × (50 + 1)/2 steps × 2; a measured run made 405,802 of twice as many.
    assert found["targets"] == 204_000
    # CM's step of the teacher is the first of Direct CM's targets.
    assert found["students"] == 0
    alone = parse(Config, {"students": [{"method": ["cm"], "seed": [0, 1, 2, 3, 4]}]})
    # Five CM students share a first step of each of 4,000 start points, guided, and so ask for none of 5 × 250 × 16.
    shared = by_kind(alone, alone.runs())
    assert (shared["targets"], shared["students"]) == (8_000, 0)
    # 1,000 start points, from 10 times: (50 + 45 + … + 5)/10 steps each, and the refined solution of 200 intervals by Heun.
    assert found["endpoints"] == 1000 * 27.5 * 2 + 1000 * 110 * 4


def test_edits_by_hand() -> None:
    pixels = {"process": {"kind": "karras"}, "teacher": {"kind": "edm"}, "ode": {"solver": "heun", "N": 18, "w": 2}}
    config = parse(Config, {**pixels, "editing": {"images": 10, "levels": [80.0]}, "students": [{"seed": [0, 1]}]})
    edits = [job for job in plan.jobs(config, config.runs()) if job.kind == "edits"]
    # Three edits from index 0, 4, 9 and 14 of 18, SDEdit from 9, 11, 13 and 16, denoising and seven interpolants from 0.
    steps = 3 * (18 + 14 + 9 + 4) + (9 + 7 + 5 + 2) + 18 + 7 * 18
    assert [job.forwards for job in edits] == [10 * steps * 4, 0, 0]
    assert [job.drawn for job in edits] == [0, 10 * (3 * 4 + 4 + 1 + 7), 10 * (3 * 4 + 4 + 1 + 7)]


def test_a_search_at_most_by_hand() -> None:
    config = parse(Config, {"ode": {"N": 5}, "students": [{}], "search": {"steps": [2, 3], "samples": 10}})
    found = [job for job in plan.jobs(config, main_runs(config)) if job.kind.startswith("search")]
    assert [(job.kind, job.latents) for job in found] == [("search_noise", 10), ("search", 0), ("search", 0)]
    # Of 4 indices the search of a time asks for 4 at most; then even times; even and found ones on 1,024 samples.
    assert found[1].drawn == 10 * (2 * 4 + 3 * 4 + 2 + 3) + 2 * 1024 * (2 + 3)


@pytest.mark.parametrize(("solver", "w", "rows"), [("ddim", 1, 1), ("ddim", 3, 2), ("heun", 1, 2), ("heun", 3, 4)])
def test_rows_of_a_step(solver: str, w: float, rows: int) -> None:
    assert plan.rows_per_step(Ode.of({"solver": solver, "N": 10, "w": w}, "test")) == rows


def test_every_artefact_is_planned_once() -> None:
    from directcm.config import paths

    config = Config()
    for runs in (main_runs(config), config.runs(), config.grid()):
        assert [job.folder for job in plan.jobs(config, runs)] == paths.artefacts(config, runs)


def test_another_teacher_costs_what_the_first_does() -> None:
    lines = [{"seed": [0]}, {"teacher_seed": [1, 2]}]
    config = parse(Config, {"students": lines})
    jobs = plan.jobs(config, config.grid())
    some = {kind: [job for job in jobs if job.kind == kind] for kind in ("teacher", "reference", "targets", "floor")}
    assert {kind: len(found) for kind, found in some.items()} == {
        "teacher": 3,
        "reference": 12,
        "targets": 6,
        "floor": 4,
    }
    # 1,024 samples × 50 steps × 2, and 4,000 start points × (50 + 1)/2 steps × 2, a teacher.
    assert sum(job.forwards for job in some["reference"]) == 3 * 102_400
    assert sum(job.forwards for job in some["targets"]) == 3 * 204_000
    assert not any(job.kind.startswith("teacher_seed") for job in jobs)


def test_hours() -> None:
    some = [
        plan.Job("targets", "a", forwards=7200.0),
        plan.Job("students", "b", forwards=100.0, method="cm", pairs=3600.0),
        plan.Job("samples", "c", drawn=3600.0),
        plan.Job("metrics", "d"),
    ]
    assert plan.hours(some, {"teacher": 2.0, "cm": 1.0}) == pytest.approx(1 + 1 + 0.5)
    assert plan.hours(some, {"teacher": 2.0}) is None and plan.hours(some, {"cm": 1.0}) is None
    assert plan.hours(some[3:], {}) == 0


def test_work_beside_the_unet() -> None:
    """Decoding, encoding, features and the starts of jobs, where a rehearsal has measured them; else without them."""
    measured = {"teacher": 10.0, "cm": 2.0, "direct_cm": 4.0, "student": 5.0, "decode": 8.0, "encode": 16.0}
    measured |= {"features": 32.0, plan.start_of("samples"): 0.5}
    some = [
        plan.Job("data", "data", seen=100.0),
        plan.Job("latents", "latents", latents=320.0, seen=320.0),
        plan.Job("targets", "targets", forwards=100.0, latents=64.0),
        plan.Job("students", "student", method="cm", pairs=60.0),
        plan.Job("samples", "samples", drawn=50.0, images=80.0),
        plan.Job("features", "features", seen=64.0),
    ]
    found = plan.spent(some, measured)
    assert found == {
        "encode": 20.0, "teacher": 10.0, "cm": 30.0, "student": 10.0, "decode": 10.0, plan.start_of("samples"): 2.0, "features": 2.0,
    }  # fmt: skip
    assert plan.hours(some, measured) == pytest.approx(84 / 3600)
    assert plan.unet_hours(some, measured) == pytest.approx(50 / 3600)
    assert plan.shares(some, measured) == "U-Net 0.01 h, 0.60 of it"
    fewer = {what: measured[what] for what in ("teacher", "cm")}
    # A student whose rate is not known samples at the teacher's.
    assert plan.spent(some, fewer) == {"teacher": 10.0, "cm": 30.0, "student": 5.0}
    assert plan.shares(some, fewer).endswith(
        "without encode, decode, features, starts of jobs, which were not measured"
    )


def test_a_set_is_read_once_for_all_extractors_of_a_pass() -> None:
    config = parse(Config, {"students": [{"method": ["cm"], "seed": [0], "sampling_steps": [1, 2, 4]}]})
    both = config.model_copy(update={"metrics": [*config.metrics, "kid"]})
    for one in (config, both):
        read = [job for job in plan.jobs(one, one.runs()) if job.kind == "features" and job.seen]
        # The data's, the teacher's, another noise's, and the student's in one step and in two others; then, for the two extractors
        # of further metrics together, all but the last.
        assert [job.seen for job in read] == [1024, 1024, 1024, 1024, 2048, *[1024] * 4]
        assert {job.folder.split("/")[1] for job in read} == {"clip_tiny", "efficientnet_lite0"}
        read = [job for job in plan.jobs(one, one.runs(), "main") if job.kind == "features" and job.seen]
        assert [job.seen for job in read] == [1024] * 4
    # Where `metrics` needs no extractor, those of further metrics are the one pass.
    bare = config.model_copy(update={"metrics": ["ode_error"]})
    read = [job for job in plan.jobs(bare, bare.runs()) if job.kind == "features" and job.seen]
    assert [job.folder.split("/")[1:3] for job in read] == [
        ["clip_tiny", who] for who in ("data", "teacher", "floor", "students")
    ]
    encoded = next(job for job in plan.jobs(config, config.runs()) if job.kind == "latents")
    assert encoded.seen == 1797
    folder = parse(Config, {"data": {"kind": "folder", "path": "x", "held_out": 0.2}})
    # Not known beforehand: at least as many as the samples, and those held out.
    assert plan.images_of(folder) == 1280


def rates(path: Path, *rows: tuple[str, str, str, Any]) -> Path:
    write_csv(
        path,
        [dict(zip(("device", "teacher", "what", "per_second"), r, strict=True)) | {"n": 1} for r in rows],
        plan.COLUMNS,
    )
    return path


def test_what_is_done_counts_no_more(tmp_path: Path) -> None:
    config = parse(Config, {"students": [{"method": ["cm", "direct_cm"], "seed": [0]}]})
    here = "micro_sdxl, 16 px"
    table = rates(tmp_path / "r.csv", ("A", here, "teacher", 10), ("A", here, "cm", 1), ("A", here, "direct_cm", 1))
    before = plan.plan(config, config.runs(), tmp_path, [table])
    with new_artifact(tmp_path / "targets/solver~ddim,N~50,w~3/shard~0", "targets", settings={}) as art:
        (art / "x").write_bytes(bytes(5000))
    after = plan.plan(config, config.runs(), tmp_path, [table])

    def line(text: str, word: str) -> list[str]:
        return next(row.split() for row in text.splitlines() if row.strip().startswith(word))

    # Nothing is there: 4,000 endpoints and first steps of 4 × 8 × 8 in float32.
    assert line(before, "targets")[1:] == ["2", "0", "204,000", "204,000", "0", "B", "8.2", "MB"]
    assert line(after, "targets")[1:] == ["2", "1", "204,000", "102,000", "5.0", "kB", "10.0", "kB"]
    saved = float(line(before, "A:")[-5]) - float(line(after, "A:")[-5])
    assert saved == pytest.approx(102_000 / 10 / 3600, abs=0.011)


def test_storage_beforehand() -> None:
    config = Config()
    # 8 × 8 × 4 latents in float32; images of 16 × 16 pixels.
    assert plan.row_bytes(config) == (1024, 768)
    found = {job.kind: job for job in plan.jobs(config, main_runs(config))}
    assert found["noise"].latents == 1024 and found["noise"].images == 0
    assert found["reference"].latents == found["reference"].images == 1024 / config.evaluation.shards
    # Table 3's numbers of sampling steps are sets of their own.
    run = next(run for run in main_runs(config) if len(config.sets(run)) > 1)
    plain, more = [job for job in plan.jobs(config, [run]) if job.kind == "samples"]
    assert (plain.images, plain.drawn, more.images, more.drawn) == (1024, 1024, 3 * 1024, (2 + 4 + 8) * 1024)
    sdxl = parse(
        Config,
        {
            "teacher": {"kind": "diffusers", "diffusers": {"path": "x"}},
            "data": {"kind": "folder", "path": "y", "resolution": 1024},
        },
    )
    assert plan.row_bytes(sdxl) == (4 * 4 * 128 * 128, 3 * 1024 * 1024)


def test_a_collection_is_as_large_as_its_parts(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with new_artifact(tmp_path / "samples/x" / name, "samples", settings={}) as part:
            (part / "x").write_bytes(bytes(700))
    new_collection(tmp_path / "samples/x", "samples", ["a", "b"], settings={})
    assert 1400 < plan.size(tmp_path / "samples/x") < 5000
    assert plan.size(tmp_path / "samples/none") is None


def test_another_teachers_rates_are_not_this_ones(tmp_path: Path) -> None:
    table = rates(tmp_path / "r.csv", ("A", "diffusers, 1024 px", "teacher", 10))
    assert "not measured on any device" in plan.plan(Config(), main_runs(Config()), tmp_path, [table])
    assert "not measured on any device" in plan.plan(Config(), main_runs(Config()), tmp_path, [tmp_path / "none.csv"])


@pytest.mark.parametrize("value", [0, -1, "fast", ""])
def test_a_rate_that_is_none(tmp_path: Path, value: Any, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        plan.read_rates(rates(tmp_path / "r.csv", ("A", "b", "teacher", value)))
    assert "line 2" in one_line(error)


def test_the_repositorys_own_rates() -> None:
    assert plan.read_rates(Path(__file__).parents[1] / plan.RATES)


def test_baselines_count_a_step_of_the_start_and_one_of_the_guided_teacher() -> None:
    config = Config()
    jobs = [job for job in plan.jobs(config, config.runs()) if job.kind == "baselines"]
    assert len(jobs) == 9 and all(job.folder.startswith("metrics/baselines/") for job in jobs)
    # One prediction, whatever the solver: two rows of 1,024 under guidance, one without.
    assert {job.forwards for job in jobs} == {1024.0, 2048.0} and {job.drawn for job in jobs} == {1024.0}
    assert [job.forwards for job in jobs if "w~1" in job.folder] == [1024.0]
    assert {job.forwards for job in jobs if "heun" in job.folder} == {2048.0}
