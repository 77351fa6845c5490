"""The configuration: every check names its key, numbers keep their value, overlays do what Snakemake's do."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from directcm.config import (
    Config,
    Data,
    Edm,
    Errors,
    MicroVae,
    Mixture,
    PixelUnet,
    Run,
    StudentAxes,
    Targets,
    Train,
    load_config,
    lora_rank,
    merge,
    number,
    parse,
    read_yaml,
    registry,
    schema,
    settings_argument,
)
from directcm.errors import UserError

ROOT = Path(__file__).parents[1]
PRESETS = sorted((ROOT / "workflow" / "presets").glob("*.yaml"))


def refused(content: Any, one_line: Any, model: Any = Config) -> str:
    with pytest.raises(UserError) as error:
        parse(model, content, "run.yaml")
    text = one_line(error)
    assert text.startswith("run.yaml: ")
    return text


def test_config_yaml_is_the_defaults() -> None:
    assert load_config(ROOT / "config.yaml").model_dump() == Config().model_dump() == load_config().model_dump()


@pytest.mark.parametrize("path", PRESETS, ids=lambda p: p.stem)
def test_presets(path: Path) -> None:
    config = load_config(ROOT / "config.yaml", path)
    # The experiments' overlays lie over another preset, whose results they share.
    assert config.preset == (path.stem if "preset" in read_yaml(path) else "embedded")
    assert config.runs() and config.metric_names()
    # A preset alone says the same: the default file holds nothing but defaults.
    assert load_config(path).model_dump() == config.model_dump()


def test_pixels_under_karras() -> None:
    c = parse(Config, {**PIXELS, "students": [{"N": [7, 18]}]})
    assert [r.N for r in c.runs()][:2] == [7, 18] and c.latent() == (3, 16)
    # Of the two kinds' keys those of this one are written, and they say the same again.
    assert c.model_dump()["process"].keys() == {"kind", "karras"}
    assert parse(Config, c.model_dump(mode="json")) == c
    exact = {**PIXELS, "teacher": {"kind": "mixture"}, "ode": {"N": 50}}
    for process in ("vp", "karras"):
        assert parse(Config, {**exact, "process": {"kind": process}}).teacher.pixel_unet == PixelUnet()


def test_what_was_made_before_these_keys_existed_is_made_with_the_same_settings() -> None:
    written = Config().model_dump(mode="json")
    assert written["process"] == {"kind": "vp", "timesteps": 1000, "time_input": "zero_based"}
    assert written["teacher"].keys() == {"kind", "micro_sdxl", "diffusers"}
    assert "editing" not in written and "editing" in parse(Config, {"editing": {"images": 8}}).model_dump()


def test_who_edits_images() -> None:
    """On pixels the first student of each method of the main comparison, whatever comes first in the grid; on latents none."""
    grid = {"students": [{"w": [1], "seed": [5]}, {"seed": [7, 0]}, {"method": ["cm"], "seed": [9]}]}
    config = parse(Config, {**PIXELS, **grid})
    assert [(r.method, r.seed, r.w) for r in config.edited()] == [("cm", 7, 3.0), ("direct_cm", 7, 3.0)]
    assert {r.seed for r in config.main()} == {7, 0, 9}
    assert parse(Config, grid).edited() == []
    # No run has the values of `ode`: the grid's first run's are the main ones.
    assert {r.w for r in parse(Config, {**PIXELS, "students": [{"w": [1]}, {"w": [5]}]}).edited()} == {1.0}


def test_the_papers_preset_is_the_papers() -> None:
    c = load_config(ROOT / "config.yaml", ROOT / "workflow/presets/paper.yaml")
    assert (c.ode.solver, c.ode.N, c.ode.w) == ("ddim", 100, 9.0)
    t = c.train
    assert (t.adapter, t.lr, t.weight_decay, t.grad_clip, t.batch_size, t.steps, t.loss) == (
        "lora64",
        1e-4,
        1e-2,
        1.0,
        16,
        250,
        "mse",
    )
    assert c.data.resolution == 1024 and 24 in c.students[0].seed
    assert c.teacher.diffusers.id == "stabilityai/stable-diffusion-xl-base-1.0"
    # 250 steps of 16 from 4,000 start points: each is used once, for every run of the grid.
    assert t.pool == 4000 == t.batch_size * t.steps
    assert all(r.pool == r.batch_size * r.steps for r in c.runs())


PIXELS: dict[str, Any] = {
    "process": {"kind": "karras"},
    "teacher": {"kind": "edm"},
    "ode": {"N": 18},
    "students": [{}],
}
DEEP = {"kind": "edm", "edm": {"unet": {"channels": [16] * 5}}}

CASES: list[tuple[dict[str, Any], str]] = [
    # One key alone
    ({"presett": "x"}, "presett: unknown key"),
    ({"data": {"colour": 1}}, "data.colour: unknown key"),
    ({"preset": "Über"}, 'preset: is "Über"'),
    ({"preset": "../x"}, "preset: is"),
    ({"seed": -1}, "seed: is -1"),
    ({"seed": 1.5}, "seed: is 1.5"),
    ({"seed": "x"}, 'seed: is "x"'),
    ({"seed": None}, "seed: is null"),
    ({"data": {"kind": "pictures"}}, 'data.kind: is "pictures"'),
    ({"data": 5}, "data: is 5"),
    ({"data": {"resolution": 0}}, "data.resolution: is 0"),
    ({"data": {"held_out": 1.0}}, "data.held_out: is 1.0"),
    ({"data": {"held_out": 0}}, "data.held_out: is 0"),
    ({"ode": {"w": -1}}, "ode.w: is -1"),
    ({"ode": {"w": 101}}, "ode.w: is 101"),
    ({"ode": {"solver": "rk4"}}, 'ode.solver: is "rk4"'),
    ({"process": {"time_input": "two_based"}}, "process.time_input: is"),
    ({"train": {"adapter": "lora0"}}, 'train.adapter: is "lora0"'),
    ({"train": {"precision": "fp8"}}, 'train.precision: is "fp8"'),
    ({"students": []}, "students: is []"),
    ({"students": [{"method": []}]}, "students.0.method: is []"),
    ({"students": [{"method": ["dmd"]}]}, "students.0.method.0: is"),
    ({"students": [{"seeds": [1]}]}, "students.0.seeds: unknown key"),
    ({"students": [{"teacher_seed": [1]}, {"N": [10], "teacher_seed": [2]}]}, "students: no line has teacher_seed 0"),
    ({"students": [{"teacher_seed": [0, -1]}]}, "students.0.teacher_seed.1: is -1"),
    ({"students": [{"teacher_seed": []}]}, "students.0.teacher_seed: is []"),
    ({"students": [{"teacher_seed": 1}]}, "students.0.teacher_seed: is 1"),
    ({"students": [{"teacher_seed": [True]}]}, "students.0: teacher_seed is true"),
    ({"ode": {"teacher_seed": 1}}, "ode.teacher_seed: unknown key"),
    (
        {"students": [{}, {"teacher_seed": [1], "batch_size": [9000]}]},
        "students: batch_size = 9000 is larger than pool",
    ),
    ({"students": [{"teacher_seed": [*range(20_000)]}]}, "students: 40,000 students, more than the 20,000"),
    ({"metrics": []}, "metrics: is []"),
    ({"statistics": {"level": 1}}, "statistics.level: is 1"),
    ({"teacher": {"diffusers": {"revision": "main"}}}, 'teacher.diffusers.revision: is "main"'),
    ({"teacher": {"micro_sdxl": {"unet": {"channels": [30, 64]}}}}, "channels are [30, 64], expected multiples of 16"),
    ({"teacher": {"micro_sdxl": {"vae": {"channels": [16]}}}}, "teacher.micro_sdxl.vae.channels"),
    ({"teacher": {"edm": {"unet": {"channels": [20]}}}}, "teacher.edm.unet.channels"),
    (
        {"teacher": {"edm": {"unet": {"attention": [0, 3]}}}},
        "attention names resolution 3, channels has those from 0 to 2",
    ),
    ({"teacher": {"edm": {"dropout": 1}}}, "teacher.edm.dropout: is 1"),
    ({"data": {"layout": "cifar100"}}, 'data.layout: is "cifar100"'),
    ({"teacher": {"mixture": {"scale": -0.1}}}, "teacher.mixture.scale: is -0.1"),
    ({"process": {"karras": {"sigma_min": 80}}}, "sigma_min = 80.0 is not below sigma_max = 80.0"),
    ({"process": {"karras": {"rho": 0}}}, "process.karras.rho: is 0"),
    ({"process": {"kind": "karras"}}, "process.kind is karras, but teacher.kind micro_sdxl needs vp"),
    ({"teacher": {"kind": "edm"}}, "process.kind is vp, but teacher.kind edm needs karras"),
    ({**PIXELS, "data": {"resolution": 8}, "teacher": DEEP}, "teacher.edm: channels has 5 resolutions, too many for"),
    ({**PIXELS, "editing": {"patch": 3}}, "editing.patch = 3 does not divide data.resolution = 16"),
    ({"editing": {"patch": 1}}, "editing.patch: is 1"),
    ({"editing": {"start": 1.0}}, "editing.start: is 1"),
    ({"editing": {"levels": [0]}}, "editing.levels.0: is 0"),
    ({"editing": {"points": 2}}, "editing.points: is 2"),
    ({**PIXELS, "students": [{"errors": True}]}, "errors.times = 10 does not divide N = 18"),
    ({"teacher": {"micro_sdxl": {"text": {"vocabulary": 500}}}}, "vocabulary: is 500"),
    # Between keys
    ({"data": {"kind": "folder"}}, "data: path is missing: data.kind folder needs"),
    ({"data": {"kind": "archive", "sha256": "a" * 64}}, "data: url and path are missing: data.kind archive needs one"),
    ({"data": {"kind": "archive", "path": "a.tar"}}, "data: sha256 is missing: data.kind archive needs"),
    ({"data": {"kind": "archive", "url": "https://example.org/a.tar"}}, "data: sha256 is missing"),
    ({"data": {"sha256": "a" * 63}}, 'data.sha256: is "aaa'),
    ({"data": {"sha256": "g" * 64}}, 'data.sha256: is "ggg'),
    ({"data": {"sha256": 12}}, "data.sha256: is 12"),
    ({"data": {"url": "ftp://example.org/a.tar"}}, 'data.url: is "ftp://example.org/a.tar"'),
    ({"data": {"url": "example.org/a.tar"}}, "data.url: is"),
    ({"data": {"url": "https://example.org/a b.tar"}}, "data.url: is"),
    ({"data": {"url": "file:a.tar"}}, "data.url: is"),
    ({"data": {"url": "https://:80/a.tar"}}, "data.url: has no host"),
    ({"data": {"url": "https://example.org:99999/a.tar"}}, "data.url: Port out of range"),
    ({"data": {"url": "https://me:secret@example.org/a.tar"}}, "data.url: holds a user's name"),
    ({"data": {"resolution": 20}}, "resolution is 20, expected a multiple of 8"),
    ({"data": {"resolution": 72}}, "data.resolution: digits come at 8, 16, 24"),
    ({"data": {"kind": "photos", "resolution": 72}}, "data.resolution: photos come at 8, 16, 24"),
    ({"teacher": {"kind": "diffusers"}}, "teacher: diffusers needs a path, or an id with its revision"),
    (
        {"teacher": {"kind": "diffusers", "diffusers": {"id": "a/b"}}},
        "diffusers needs a path, or an id with its revision",
    ),
    ({"teacher": {"diffusers": {"vae_id": "a/b"}}}, "diffusers.vae_revision is missing"),
    ({"ode": {"N": 7}, "students": [{}]}, "ode.N = 7 does not divide process.timesteps = 1000"),
    ({"students": [{"N": [50, 60]}]}, "students: N = 60 does not divide process.timesteps = 1000"),
    ({"process": {"timesteps": 999}, "students": [{}]}, "ode.N = 50 does not divide process.timesteps = 999"),
    ({"students": [{"batch_size": [9000]}]}, "students: batch_size = 9000 is larger than pool = 4000"),
    ({"train": {"batch_size": 9000}}, "students: batch_size = 9000 is larger than pool = 4000"),
    ({"train": {"pool": 15}, "students": [{}]}, "students: batch_size = 16 is larger than pool = 15"),
    ({"students": [{"pool": [4000, 15]}]}, "students: batch_size = 16 is larger than pool = 15"),
    ({"train": {"pool": 0}}, "train.pool: is 0"),
    ({"students": [{"pool": [0]}]}, "students.0.pool.0: is 0"),
    ({"students": [{"pool": []}]}, "students.0.pool: is []"),
    ({"targets": {"batch_size": 1001}}, "targets.batch_size = 1001 is larger than targets.block = 1000"),
    ({"targets": {"shard": 1500}}, "targets.block = 1000 does not divide targets.shard = 1500"),
    ({"targets": {"shard": 0}}, "targets.shard: is 0"),
    ({"targets": {"count": 8000}}, "targets.count: unknown key"),
    ({"targets": {"shards": 2}}, "targets.shards: unknown key"),
    ({"errors": {"block": 300}}, "errors.block = 300 does not divide errors.shard = 1000"),
    ({"errors": {"refined": {"N": 300}}}, "errors.refined.N = 300 does not divide process.timesteps = 1000"),
    ({"errors": {"refined": {"solver": "rk4"}}}, 'errors.refined.solver: is "rk4"'),
    ({"errors": {"points": 1}}, "errors.points: is 1"),
    ({"errors": {"times": 7}}, "errors.times = 7 does not divide N = 200 of a line with errors"),
    ({"errors": {"times": 20}}, "errors.times = 20 does not divide N = 50 of a line with errors"),
    (
        {"errors": {"times": 20}, "students": [{"N": [100, 10], "errors": True}]},
        "errors.times = 20 does not divide N = 10 of a line with errors",
    ),
    ({"students": [{"errors": "maybe"}]}, 'students.0.errors: is "maybe"'),
    ({"students": [{"snapshots": [0]}]}, "students.0.snapshots.0: is 0"),
    ({"students": [{"snapshots": [10, 20, 10]}]}, "students: snapshots names a number twice"),
    ({"students": [{"snapshots": None}]}, "students.0.snapshots: is null"),
    ({"students": [{"sampling_steps": []}]}, "students.0.sampling_steps: is []"),
    ({"students": [{"sampling_steps": [0]}]}, "students.0.sampling_steps.0: is 0"),
    ({"students": [{"sampling_steps": [2, 2]}]}, "students: sampling_steps names a number twice"),
    ({"students": [{"sampling_steps": [1, 51]}]}, "sampling steps: 51 are more than the grid's N = 50"),
    ({"figures": {"trajectories": 0}}, "figures.trajectories: is 0"),
    ({"convergence": {"N": [10, 20]}}, "convergence.N: "),
    ({"convergence": {"N": [10, 50, 20]}}, "convergence: N = [10, 50, 20] is not ascending"),
    ({"convergence": {"gaps": [20, 30, 50]}}, "convergence: gaps: 30 is not a multiple of 5 that divides 1000"),
    (
        {"convergence": {"fit_from": 100}},
        "convergence: fit_from = 100 leaves fewer than 3 of N = [10, 20, 50, 100, 200]",
    ),
    (
        {"fixed_points": {"k": [1, 5]}},
        "fixed_points: k = [1, 5] does not begin with 1 and end with N = 50, CM and Direct CM",
    ),
    ({"fixed_points": {"features": [16, 8]}}, "fixed_points: features = [16, 8] is not ascending"),
    ({"fixed_points": {"N": 30, "k": [1, 30]}}, "fixed_points: N = 30 does not divide the 1000 time steps of vp"),
    ({"fixed_points": {"points": 100}}, "fixed_points: points = 100 is not a power of two"),
    ({"fixed_points": {"flow": [8, 9]}}, "fixed_points: flow: [9] are not among features"),
    (
        {"fixed_points": {"features": [8], "flow": [], "points": 16}},
        "fixed_points: points = 16 is less than four times",
    ),
    ({"fixed_points": {"dimensions": [2, 2]}}, "fixed_points: dimensions = [2, 2] names a value twice"),
    ({"fixed_points": {"classes": ["linear"]}}, "fixed_points.classes.0: "),
    ({"statistics": {"permutations": 10}}, "statistics.permutations: is 10"),
    ({"statistics": {"alpha": 0}}, "statistics.alpha: is 0"),
    ({"evaluation": {"samples": 60, "block": 60}}, "evaluation.batch_size = 64 is larger than evaluation.samples = 60"),
    (
        {"evaluation": {"steps": [1, 51]}, "students": [{}]},
        "sampling steps: 51 are more than the grid's N = 50",
    ),
    ({"evaluation": {"steps": [1, 1]}}, "evaluation.steps names a number twice"),
    ({"students": [{"N": [2]}], "evaluation": {"steps": [4]}}, "sampling steps: 4 are more than the grid's N = 2"),
    ({"metrics": ["ode_error", "ode_error"]}, "metrics names one twice"),
    ({"metrics": ["fid_tiny"]}, "metrics: unknown metric 'fid_tiny'; there are ode_error"),
    ({"extractors": {"clip_tiny": None}}, "metrics: fd_tiny needs extractors.clip_tiny, which is null"),
    ({"evaluation": {"samples": 1439}}, "evaluation.samples = 1439 is more than the 1438 training images"),
    (
        {"teacher": {"micro_sdxl": {"unet": {"channels": [16] * 5}}}},
        "teacher.micro_sdxl.unet.channels has 5 resolutions, too many for 8×8",
    ),
    (
        {"teacher": {"micro_sdxl": {"vae": {"channels": [16] * 3}, "unet": {"channels": [16] * 4}}}},
        "teacher.micro_sdxl.unet.channels has 4 resolutions, too many for 4×4",
    ),
    (
        {"teacher": {"micro_sdxl": {"vae": {"channels": [16] * 6}}}},
        "teacher.micro_sdxl.vae.channels has 6 resolutions, too many for data.resolution = 16",
    ),
    (
        {"data": {"kind": "folder", "path": "x"}, "metrics": ["prompt_accuracy"]},
        "metrics: prompt_accuracy need labelled images (data.kind digits or photos)",
    ),
    (
        {"extractors": {"clip_tiny": {"patch": 5}}},
        "extractors.clip_tiny.patch = 5 does not divide data.resolution = 16",
    ),
]


@pytest.mark.parametrize(("content", "expected"), CASES, ids=[c[1][:40] for c in CASES])
def test_refusals(content: dict[str, Any], expected: str, one_line: Any) -> None:
    assert expected in refused(content, one_line)


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize(
    "key",
    [
        "seed",
        "data.resolution",
        "data.held_out",
        "ode.N",
        "ode.w",
        "train.lr",
        "targets.shard",
        "errors.times",
        "train.pool",
        "train.adapter",
        "preset",
    ],
)
def test_booleans_are_no_numbers_or_names(key: str, value: bool, one_line: Any) -> None:
    content: dict[str, Any] = {}
    *blocks, last = key.split(".")
    inner = content
    for block in blocks:
        inner = inner.setdefault(block, {})
    inner[last] = value
    assert f"{last} is {str(value).lower()}, expected a number or text" in refused(content, one_line)


@pytest.mark.parametrize(
    "content",
    [
        {"students": [{"seed": [True]}]},
        {"evaluation": {"steps": [True]}},
        {"students": [{"w": [True]}]},
        {"students": [{"snapshots": [True]}]},
        {"students": [{"sampling_steps": [True]}]},
        {"students": [{"pool": [True]}]},
    ],
)
def test_booleans_in_lists(content: dict, one_line: Any) -> None:
    refused(content, one_line)


def test_an_unquoted_no_is_a_precision(tmp_path: Path) -> None:
    """PyYAML reads it as false; tools that follow YAML 1.2, DVC's editor among them, write it so."""
    (tmp_path / "c.yaml").write_text("train: {precision: no}\nevaluation: {precision: no}\n")
    config = load_config(tmp_path / "c.yaml")
    assert config == Config() and config.train.precision == "no"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "path",
    [
        ("data", "held_out"),
        ("ode", "w"),
        ("train", "lr"),
        ("train", "weight_decay"),
        ("train", "grad_clip"),
        ("train", "huber_c"),
        ("statistics", "level"),
    ],
)
def test_numbers_that_are_not_finite(path: tuple[str, str], value: float, one_line: Any) -> None:
    assert f"{path[0]}.{path[1]}: is" in refused({path[0]: {path[1]: value}}, one_line)
    assert "students.0.lr.0: is" in refused({"students": [{"lr": [value]}]}, one_line)
    assert "students.0.w.0: is" in refused({"students": [{"w": [value]}]}, one_line)


def test_one_problem_is_shown_and_the_rest_counted(one_line: Any) -> None:
    text = refused({"seed": -1, "colour": 1, "ode": {"w": -1}}, one_line)
    assert "(and 2 more)" in text


@pytest.mark.parametrize("content", [None, [], "text", 3])
def test_what_is_no_mapping(content: Any, one_line: Any) -> None:
    assert "expected a mapping" in refused(content, one_line)


def test_values_never_change_after_validation() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().ode.w = 2.0  # type: ignore[misc]


def test_yaml_numbers_in_scientific_writing(tmp_path: Path) -> None:
    # YAML 1.1 reads 1e-4 as text; it is a number all the same.
    (tmp_path / "c.yaml").write_text("train: {lr: 1e-4}\n")
    assert load_config(tmp_path / "c.yaml").train.lr == 1e-4


DECIMALS = st.builds(lambda k, d: k / 10**d, st.integers(0, 10**9), st.integers(0, 9))


@settings(max_examples=300)
@given(value=DECIMALS)
def test_number_round_trip(value: float) -> None:
    text = number(value)
    assert float(text) == value
    assert "e" not in text.lower() and "+" not in text and not text.endswith(".")
    assert number(float(text)) == text


def test_numbers_in_paths() -> None:
    assert [number(v) for v in (3.0, 3, 0.0001, 1e-8, 0.0, 9.5, 100, 1e6)] == [
        "3",
        "3",
        "0.0001",
        "0.00000001",
        "0",
        "9.5",
        "100",
        "1000000",
    ]


@pytest.mark.parametrize("value", [1e-13, 1 / 3])
def test_numbers_of_more_decimals(value: float) -> None:
    assert float(number(value)) == value


def test_runs() -> None:
    config = parse(
        Config,
        {
            "students": [
                {"method": ["cm", "direct_cm"], "seed": [0, 1]},
                {"method": ["cm"], "w": [1, 3.0], "lr": [1e-3]},
                {"method": ["cm"], "seed": [1]},
            ]
        },
    )
    runs = config.runs()
    base = "solver~ddim,N~50,w~3,adapter~lora4,loss~mse,lr~0.0001,batch_size~16,pool~4000,steps~250"
    assert [run.key for run in runs[:4]] == [f"method~{m},{base},seed~{s}" for m in ("cm", "direct_cm") for s in (0, 1)]
    assert {run.setting.key for run in runs[:4]} == {base}
    assert [(r.w, r.lr, r.seed) for r in runs[4:]] == [(1.0, 1e-3, 0), (3.0, 1e-3, 0)]


def test_the_embedded_grid() -> None:
    runs = Config().runs()
    assert len(runs) == 116 and len(set(runs)) == 116
    assert len({r.setting for r in runs}) == 14
    # Each setting has both methods with the same seeds, so that every comparison can be paired.
    for setting in {r.setting for r in runs}:
        seeds = {m: [r.seed for r in runs if (r.setting, r.method) == (setting, m)] for m in ("cm", "direct_cm")}
        assert seeds["cm"] == seeds["direct_cm"] and seeds["cm"] in ([0, 1, 2], [0, 1, 2, 3, 4])
    # Each start point is used once, whatever the budget.
    assert all(r.pool == r.steps * r.batch_size for r in runs)


def run_of(**axes: Any) -> Run:
    (run,) = parse(Config, {"students": [{k: [v] for k, v in {"method": "cm", **axes}.items()}]}).runs()
    return run


def test_sets_of_a_run_are_all_its_lines() -> None:
    config = parse(
        Config,
        {
            "students": [
                {"seed": [0, 1], "snapshots": [100, 20, 250, 400], "sampling_steps": [4, 2]},
                {"seed": [1], "snapshots": [20, 5], "sampling_steps": [8]},
                {"seed": [1, 2]},
                {"method": ["cm"], "seed": [0], "steps": [300], "snapshots": [250], "errors": True},
            ]
        },
    )
    sets = {k: config.sets(run_of(**dict(k))) for k in ((("seed", 0),), (("seed", 1),), (("seed", 2),))}
    # The finished student first, in all numbers of steps, ascending; its snapshots in the smallest of them.
    assert sets[(("seed", 0),)] == [(250, 2), (250, 4), (20, 2), (100, 2)]
    assert sets[(("seed", 1),)] == [(250, 1), (250, 2), (250, 4), (250, 8), (5, 1), (20, 1), (100, 1)]
    assert sets[(("seed", 2),)] == [(250, 1)]
    longer = run_of(seed=0, steps=300)
    assert config.sets(longer) == [(300, 1), (250, 1)], "250 is a snapshot of the longer run alone"
    assert config.snapshots(longer) == [250] and config.snapshots(run_of(seed=0)) == [20, 100]
    assert config.snapshots(run_of(seed=1)) == [5, 20, 100] and config.snapshots(run_of(seed=2)) == []
    assert [config.measures_errors(r) for r in (longer, run_of(seed=0))] == [True, False]


def test_sets_of_the_embedded_grid() -> None:
    config = Config()
    runs = config.runs()
    main = [r for r in runs if config.sets(r) == [(250, 1), (250, 2), (250, 4), (250, 8)]]
    assert len(main) == 10 and {r.setting.key for r in main} == {
        "solver~ddim,N~50,w~3,adapter~lora4,loss~mse,lr~0.0001,batch_size~16,pool~4000,steps~250"
    }
    long = [r for r in runs if r.steps == 500]
    assert len(long) == 22
    assert all(config.sets(r) == [(500, 1), (62, 1), (125, 1), (250, 1)] for r in long)
    assert sum(len(config.sets(r)) for r in runs) == 10 * 4 + 22 * 4 + 84
    errors = [r for r in runs if config.measures_errors(r)]
    assert len(errors) == 10 + 18 and {(r.N, r.w) for r in errors} == {(n, 3.0) for n in (10, 20, 50, 100)}


def test_evaluation_steps_are_for_lines_that_name_none() -> None:
    config = parse(Config, {"evaluation": {"steps": [3, 2]}, "students": [{}, {"sampling_steps": [1]}, {"N": [10]}]})
    assert config.sets(config.runs()[0]) == [(250, 1), (250, 2), (250, 3)]
    assert config.sets(config.runs()[2]) == [(250, 2), (250, 3)]


LISTS = st.lists(st.integers(1, 400), unique=True, max_size=4)
LINE = st.fixed_dictionaries(
    {"method": st.just(["cm"])},
    optional={
        "seed": st.lists(st.integers(0, 2), min_size=1, max_size=3),
        "steps": st.lists(st.sampled_from([100, 250, 300]), min_size=1, max_size=2),
        "pool": st.lists(st.sampled_from([16, 4000]), min_size=1, max_size=2),
        "snapshots": LISTS,
        "sampling_steps": st.lists(st.integers(1, 50), unique=True, min_size=1, max_size=3),
        "errors": st.booleans(),
    },
)


@pytest.mark.parametrize(
    ("samples", "shards", "jobs"), [(1024, 4, 4), (1024, 5, 4), (600, 4, 3), (100, 4, 1), (1024, 1, 1)]
)
def test_a_job_has_a_block_at_least(samples: int, shards: int, jobs: int) -> None:
    block = {"samples": samples, "shards": shards}
    assert parse(Config, {"evaluation": block}).evaluation.jobs == jobs


@settings(deadline=None, max_examples=60)
@given(lines=st.lists(LINE, min_size=1, max_size=3))
def test_sets_of_any_grid(lines: list[dict[str, Any]]) -> None:
    config = parse(Config, {"students": lines})
    runs = config.runs()
    assert len(set(runs)) == len(runs)
    for run in runs:
        mine = [
            line
            for line in lines
            if all(getattr(run, n) in line.get(n, [d]) for n, d in (("seed", 0), ("steps", 250), ("pool", 4000)))
        ]
        assert mine, "a run is of some line"
        numbers = sorted({k for line in mine for k in line.get("sampling_steps", [1])})
        kept = sorted({s for line in mine for s in line.get("snapshots", []) if s < run.steps})
        sets = config.sets(run)
        assert sets == [(run.steps, k) for k in numbers] + [(s, numbers[0]) for s in kept]
        assert len(set(sets)) == len(sets) and config.snapshots(run) == kept
        assert config.measures_errors(run) is any(line.get("errors", False) for line in mine)
    # What a configuration says survives its way through JSON, as verbs get it.
    assert parse(Config, json.loads(config.model_dump_json())) == config


def test_defaults_of_the_grid_follow_ode_and_train() -> None:
    config = parse(
        Config, {"ode": {"N": 25, "w": 2, "solver": "heun"}, "train": {"adapter": "full", "steps": 3}, "students": [{}]}
    )
    assert {(r.N, r.w, r.solver, r.adapter, r.steps, r.seed) for r in config.runs()} == {
        (25, 2.0, "heun", "full", 3, 0)
    }


def test_metrics_that_need_labels() -> None:
    folder = parse(Config, {"data": {"kind": "folder", "path": "x"}})
    assert "prompt_accuracy" in Config().metric_names() and "prompt_accuracy" not in folder.metric_names()
    assert Config().extractor_names() == ["clip_tiny"]
    paper = parse(Config, {"metrics": ["fid", "aesthetic", "ode_error"], "extractors": {"clip_tiny": None}})
    assert paper.extractor_names() == ["inception_clean", "aesthetic_laion"]


def test_keys_that_came_later_are_not_written_where_nobody_set_them() -> None:
    """What was made before there were any is not made anew."""
    new = {"layout", "attention", "dropout", "warm_up"}
    for block in (Data(), Data(kind="archive", path="x", sha256="a" * 64), Edm(), Mixture().student, PixelUnet()):
        text = block.model_dump_json()
        assert not any(f'"{key}"' in text for key in new), text
    assert (
        '"warm_up":0' in Edm(warm_up=0).model_dump_json()
        and '"attention":[1]' in PixelUnet(attention=(1,)).model_dump_json()
    )


def test_own_images_may_have_labels_for_a_teacher_on_pixels() -> None:
    """Whether they do is in their metadata.csv: preflight and the teacher's verb look."""
    config = parse(Config, {**PIXELS, "data": {"kind": "folder", "path": "x"}})
    assert config.latent() == (3, 16) and "prompt_accuracy" not in config.metric_names()


TREE = st.recursive(
    st.integers() | st.text(max_size=2) | st.none() | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
    max_leaves=8,
)
MAPPING = st.dictionaries(st.sampled_from("abc"), TREE, max_size=3)


@settings(deadline=None, max_examples=200)
@given(base=MAPPING, overlay=MAPPING)
def test_merge_is_snakemakes(base: dict, overlay: dict) -> None:
    from snakemake.utils import update_config

    theirs, before = copy.deepcopy(base), copy.deepcopy(base)
    update_config(theirs, copy.deepcopy(overlay))
    assert merge(base, overlay) == theirs
    assert base == before


def test_overlays_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: 1\node: {N: 10, w: 2}\n")
    (tmp_path / "b.yaml").write_text("ode: {w: 4}\nstudents:\n  - {seed: [5]}\n")
    config = load_config(tmp_path / "a.yaml", tmp_path / "b.yaml")
    assert (config.seed, config.ode.N, config.ode.w) == (1, 10, 4.0) and len(config.runs()) == 2
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_config(tmp_path / "empty.yaml") == Config()


def test_json_may_be_indented_with_tabs_and_names_a_key_once(tmp_path: Path, one_line: Any) -> None:
    path = tmp_path / "c.json"
    path.write_text('{\n\t"seed": 5\n}\n')
    assert load_config(path).seed == 5
    for indent in ("\t", " "):
        path.write_text(f'{{\n{indent}"seed": 5,\n{indent}"seed": 6\n}}\n')
        with pytest.raises(UserError) as error:
            load_config(path)
        assert "seed is there twice" in one_line(error) and str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: [1", "not valid YAML"),
        ("- 1\n- 2\n", "found a list"),
        ("seed: {", "line 1"),
        ("a: 1\n\tb: 2", "line 2"),
        ("preset: \0", "not valid YAML"),
        ("seed: !!python/object:os.system {}", "not valid YAML"),
        ("just text", "found a str"),
    ],
)
def test_malformed_yaml(tmp_path: Path, text: str, word: str, one_line: Any) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        load_config(tmp_path / "c.yaml")
    assert str(tmp_path / "c.yaml") in one_line(error) and word in str(error.value)


@pytest.mark.parametrize("text", ["preset: 2024-13-45\n", "data: {kind: {2020-01-01: x}}\n"])
def test_yaml_with_odd_dates(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError):
        load_config(tmp_path / "c.yaml")


def test_missing_and_binary_yaml(tmp_path: Path, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        read_yaml(tmp_path / "none.yaml")
    assert "no such configuration file" in one_line(error)
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError) as error:
        read_yaml(tmp_path / "b.yaml")
    assert "b.yaml" in one_line(error)


def test_settings_argument(tmp_path: Path, one_line: Any) -> None:
    assert settings_argument(Targets, '{"shard": 12}').shard == 12
    assert settings_argument(Targets, ' \n{"shard": 12}').shard == 12
    assert settings_argument(Targets, Targets().model_dump_json()) == Targets()
    assert settings_argument(Config, Config().model_dump_json()) == Config()
    (tmp_path / "t.json").write_text('{"shard": 13}')
    (tmp_path / "t.yaml").write_text("shard: 14\n")
    assert settings_argument(Targets, str(tmp_path / "t.json")).shard == 13
    assert settings_argument(Targets, str(tmp_path / "t.yaml")).shard == 14
    for text, word in (
        ('{"shard": }', "--settings: not valid JSON"),
        ('{"shards": 1}', "--settings: shards: unknown key"),
        ('{"shard": true}', "--settings: shard is true"),
        (str(tmp_path / "no.json"), "no.json: no such configuration file"),
        ("[1]", "[1]: no such"),
        ('{"shard": NaN}', "--settings: shard: is"),
    ):
        with pytest.raises(UserError) as error:
            settings_argument(Targets, text)
        assert word in one_line(error)


def test_settings_of_a_file_name_the_file(tmp_path: Path, one_line: Any) -> None:
    (tmp_path / "t.yaml").write_text("shard: -1\n")
    with pytest.raises(UserError) as error:
        settings_argument(Targets, str(tmp_path / "t.yaml"))
    assert one_line(error).startswith(f"{tmp_path / 't.yaml'}: shard: is -1")


BLOCKS = (Train, Targets, Errors, StudentAxes)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.text(max_size=2), st.integers(), max_size=1)
)


@settings(deadline=None, max_examples=300)
@given(
    case=st.sampled_from(BLOCKS).flatmap(
        lambda block: st.tuples(
            st.just(block),
            st.dictionaries(st.sampled_from([*block.model_fields, "colour", ""]), VALUES, max_size=4),
        )
    )
)
def test_anything_parses_or_gives_one_line(case: tuple[Any, dict]) -> None:
    block, content = case
    try:
        made = parse(block, content)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert parse(block, json.loads(made.model_dump_json())) == made


@settings(deadline=None, max_examples=150)
@given(line=st.dictionaries(st.sampled_from([*StudentAxes.model_fields, "colour"]), VALUES, max_size=3))
def test_any_line_of_students_parses_or_gives_one_line(line: dict) -> None:
    try:
        config = parse(Config, {"students": [line]})
    except UserError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert all(config.sets(run) for run in config.runs())


@settings(deadline=None, max_examples=100)
@given(text=st.text(max_size=40))
def test_any_settings_text_gives_one_line(text: str) -> None:
    try:
        settings_argument(MicroVae, "{" + text)
    except UserError as error:
        assert len(str(error).splitlines()) == 1


def test_adapters() -> None:
    assert lora_rank("full") is None and lora_rank("lora64") == 64 and lora_rank("lora1") == 1


def test_schema_is_a_schema_and_takes_the_defaults() -> None:
    import jsonschema

    made = schema()
    jsonschema.Draft202012Validator.check_schema(made)
    validator = jsonschema.Draft202012Validator(made)
    validator.validate(yaml.safe_load((ROOT / "config.yaml").read_text()))
    for path in PRESETS:
        validator.validate(yaml.safe_load(path.read_text()))
    for wrong in ({"presett": 1}, {"ode": {"solver": "rk4"}}, {"train": {"lr": 0}}):
        assert not validator.is_valid(wrong)


def test_resolutions_of_the_vae() -> None:
    assert [MicroVae(channels=(16,) * n).factor for n in (2, 3, 4)] == [2, 4, 8]
    base = {"kind": "photos", "resolution": 32, "held_out": 0.1}
    config = parse(Config, {"data": base, "teacher": {"micro_sdxl": {"vae": {"channels": [32, 32, 64]}}}})
    assert config.teacher.micro_sdxl.vae.factor == 4


def test_data_model_alone() -> None:
    assert Data(kind="folder", path="x", resolution=1024).resolution == 1024


def test_an_archive() -> None:
    found = Data(kind="archive", url="https://example.org/a.tar", sha256="AB" * 32)
    assert found.sha256 == "ab" * 32
    assert Data.model_validate_json(found.model_dump_json()) == found


def test_data_that_are_no_archive_are_written_as_before_there_were_archives() -> None:
    """Else Snakemake would make them anew: they are the parameters of a rule."""
    assert Data().model_dump(mode="json") == {"kind": "digits", "path": None, "resolution": 16, "held_out": 0.2}
    assert Config().model_dump(mode="json")["data"] == Data().model_dump(mode="json")


@settings(deadline=None, max_examples=300)
@given(
    url=st.none() | st.text(max_size=8).map("https://".__add__) | st.text(max_size=12) | st.integers(),
    path=st.none() | st.text(max_size=3),
    sha256=st.none() | st.text("0123456789abcdefABCDEF", min_size=63, max_size=65) | st.text(max_size=3),
)
def test_any_archive_is_taken_or_refused_in_one_line(url: Any, path: Any, sha256: Any) -> None:
    content = {"kind": "archive", "url": url, "path": path, "sha256": sha256}
    try:
        found = parse(Data, content)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert (found.url or found.path) and re.fullmatch("[0-9a-f]{64}", found.sha256 or "")
        assert found.url is None or (found.url.isascii() and found.url.isprintable() and urlsplit(found.url).hostname)


# ----------------------------------------------------------------- methods

KARRAS = {"process": {"kind": "karras"}, "teacher": {"kind": "edm"}, "ode": {"solver": "heun", "N": 16}}


def of_methods(*names: str, **changes: Any) -> dict[str, Any]:
    return {**KARRAS, "students": [{"method": list(names)}], **changes}


def test_every_method_on_karras_process() -> None:
    config = parse(Config, of_methods(*registry.methods()))
    assert {run.method for run in config.runs()} == set(registry.methods())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"students": [{"method": ["ct"]}]}, "method ct needs process.kind karras, it is vp"),
        (of_methods("pd", ode={"N": 18}), "method pd halves N until it is 1, but N = 18"),
        (of_methods("pd", ode={"N": 1}, errors={"times": 1}), "N = 1 is not 2, 4, 8"),
        (of_methods("cd", methods={"gan": {}}), "methods: unknown method 'gan'"),
        (of_methods("cd", methods={"cd": {"nu": 1}}), "methods.cd: unknown setting 'nu'; it has mu"),
        (of_methods("cm", methods={"cm": {"mu": 1}}), "which has none of its own"),
        (of_methods("cd", methods={"cd": {"mu": 1.5}}), "methods.cd: mu = 1.5, expected 0 ≤ mu ≤ 1"),
        (of_methods("cd", methods={"cd": {"mu": True}}), "methods.cd.mu: is true: input should be a valid number"),
        # Of a method that no student has, and beside the default of a number that is not named.
        (of_methods("cd", methods={"ict": {"s1": 5}}), "methods.ict: s0 = 10 and s1 = 5, expected 1 ≤ s0 ≤ s1 ≤ 10000"),
    ],
)
def test_what_a_method_cannot(content: dict[str, Any], words: str, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        parse(Config, content)
    assert words in one_line(error)


@given(data=st.data())
def test_any_number_of_a_methods_own_is_accepted_or_refused_in_one_line(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([name for name, method in registry.methods().items() if method.hparams]))
    method = registry.methods()[name]
    anything = st.one_of(st.integers(), st.floats(), st.floats(0, 1), st.integers(0, 200))
    own = data.draw(st.dictionaries(st.sampled_from(sorted(method.hparams)), anything, min_size=1))
    try:
        config = parse(Config, of_methods("cd", methods={name: own}))
    except UserError as error:
        text = str(error)
        assert len(text.splitlines()) == 1 and f"distill.methods.{name}" in text and any(key in text for key in own)
    else:
        now = config.hparams(name)
        assert now == {**method.hparams, **own} and method.refused(now) is None


def test_a_methods_own_numbers() -> None:
    config = parse(Config, of_methods("ct", "cd", methods={"ct": {"s1": 40, "mu0": 1}}))
    assert config.hparams("ct") == {"s0": 2, "s1": 40, "mu0": 1.0}
    assert [type(v) for v in config.hparams("ct").values()] == [int, int, float]
    assert config.hparams("cd") == {"mu": 0.95} and config.hparams("cm") == {}
    # A configuration that changes none says nothing of them: what was made before stays.
    assert "methods" not in Config().model_dump(mode="json")
    assert config.model_dump(mode="json")["methods"] == {"ct": {"s1": 40, "mu0": 1}}


# As a user writes them; tests/pipeline/test_configurations.py has some of them through Snakemake.
MALFORMED = {
    "odee: {N: 50}": "odee",
    "ode: {N: 30}": "ode.N",
    "ode: {solver: rk45}": "ode.solver",
    "ode: {w: -1}": "ode.w",
    "train: {batch_size: many}": "train.batch_size",
    "train: {batch_size: 9000}": "batch_size",
    "train: {pool: 0}": "train.pool",
    "students: [{snapshots: [50, 50]}]": "snapshots",
    "students: [{N: [5], errors: true}]": "errors.times",
    "targets: {block: 300}": "targets.block",
    "train: {precision: half}": "train.precision",
    "train: {adapter: lora0}": "train.adapter",
    "students: [{method: [gan]}]": "students.0.method",
    "students: [{method: [pd]}]": "halves N",
    "methods: {cd: {mu: 1.5}}": "methods.cd: mu = 1.5, expected 0 ≤ mu ≤ 1",
    "students: [{N: [7]}]": "students",
    "data: {kind: folder}": "data",
    "data: {kind: archive, url: 'https://example.org/a.tar'}": "sha256",
    "teacher: {kind: diffusers}": "teacher",
    "teacher: {kind: edm}": "process.kind is vp, but teacher.kind edm needs karras",
    "process: {kind: karras}": "process.kind",
    "metrics: [fidd]": "fidd",
    "extractors: {clip_tiny: null}": "extractors.clip_tiny",
    "evaluation: {samples: 5000}": "evaluation.samples",
    "evaluation: {batch_size: 2000}": "evaluation.batch_size",
    "evaluation: {steps: [100]}": "sampling steps",
    "seed: -3": "seed",
    "preset: ../up": "preset",
}


@pytest.mark.parametrize(("text", "key"), MALFORMED.items())
def test_malformed_overlays_name_the_key_and_the_files(tmp_path: Path, one_line: Any, text: str, key: str) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(text + "\n")
    with pytest.raises(UserError) as error:
        load_config(ROOT / "config.yaml", overlay)
    said = one_line(error)
    assert said.startswith(f"{ROOT / 'config.yaml'} + {overlay}: ") and key in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"method": ["cm"], "k": [2]}, "students: cm has no k; k_step has"),
        ({"method": ["k_step"], "k": [51]}, "students: k_step: k = 51 is more than the grid's N = 50"),
        ({"method": ["straight"], "density": [0.25]}, "students: straight has start times of its own, and no density"),
        ({"method": ["pd"], "N": [2], "weight": ["snr"]}, "students: pd has start times of its own, and no weight"),
        ({"method": ["straight"], "weight": ["snr"]}, "students: straight has start times of its own, and no weight"),
        (
            {"method": ["cm"], "labels": ["cm"]},
            "students: cm does not learn from endpoints alone, and has no labels but ode",
        ),
        (
            {"method": ["direct_cm"], "labels": ["cm-full"]},
            "students: labels cm-full of seed 0 are those of the student method~cm",
        ),
        ({"method": ["direct_cm"], "labels": ["sgd"]}, "labels"),
        ({"density": [1.5]}, "density"),
        ({"weight": ["edm"]}, "weight"),
        ({"ema": [1]}, "ema"),
    ],
)
def test_what_is_varied_has_to_fit_method_and_grid(line: dict[str, Any], said: str, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        parse(Config, {"students": [{"method": ["cm", "direct_cm"]}, line]})
    assert said in one_line(error)
