"""Paths as keys: they agree with Snakemake's Paramspace, and name everything that a configuration makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from snakemake.utils import Paramspace

from directcm.analysis.data.selection import main_runs
from directcm.cli import plan
from directcm.config import Axes, Config, load_config, parse, paths
from directcm.config.exhibits import exhibits
from directcm.errors import UserError

ROOT = Path(__file__).parents[1]


def kinds(folders: list[str]) -> Counter[str]:
    return Counter(folder.split("/")[0].removesuffix(".tsv") for folder in folders)


def instances(runs: Sequence[Axes]) -> list[str]:
    """The keys as Snakemake spells them."""
    space = Paramspace(pd.DataFrame([run.spelled for run in runs]), filename_params="*", filename_sep=",")
    return list(space.instance_patterns)


def test_keys_are_paramspace_instances() -> None:
    config = parse(Config, {"students": [{"N": [10, 50], "w": [1, 2.5], "lr": [1e-5], "pool": [64], "seed": [0, 3]}]})
    runs = config.runs()
    own = [run.key for run in runs]
    assert instances(runs) == own
    assert "lr~0.00001," in own[0] and "w~2.5," in own[-1] and ",pool~64,steps~250,seed~3" in own[-1]
    settings = [run.setting for run in runs]
    assert instances(settings) == [setting.key for setting in settings]
    assert own[0] == f"method~cm,{settings[0].key},seed~0" and settings[0].key.startswith(f"{runs[0].ode.key},adapter~")


DEFAULT = "solver~ddim,N~50,w~3"


def test_the_embedded_default() -> None:
    config = Config()
    runs = config.runs()
    assert len(config.grid()) == len(runs) + 8
    assert config.ode.key == DEFAULT
    odes = paths.odes(config, runs)
    assert odes == [
        DEFAULT,
        *(f"solver~ddim,N~{n},w~3" for n in (10, 20, 100)),
        *(f"solver~ddim,N~50,w~{w}" for w in (1, 5, 8)),
        *(f"solver~{s},N~50,w~3" for s in ("euler", "heun")),
    ]
    # Pools of 4,000 in shards of 2,000; the long runs of the main ODE need 8,000.
    assert paths.pools(config, runs) == {ode: 4 if ode == DEFAULT else 2 for ode in odes}
    found = paths.measured(config, runs)
    assert {name: len(folders) for name, folders in found.items()} == {
        # Ten of the students are sampled in more steps, too, and compared in them; the same ten, their teacher and its floor have
        # further metrics.
        "metrics": 3 * 9 + 116 + 10 + 12,
        "students": 116,
        "targets": 8 * 2 + 4,
        "errors": 28,
        # One table of contrasts, one of further metrics.
        "comparisons": 14 + 1 + 1 + 1,
    }
    assert found["metrics"][0] == f"metrics/teacher/{DEFAULT}" and f"metrics/floor/{odes[-1]}" in found["metrics"]
    assert found["targets"][:4] == [f"targets/{DEFAULT}/shard~{i}" for i in range(4)]
    assert found["comparisons"][0] == (
        "comparisons/solver~ddim,N~50,w~3,adapter~lora4,loss~mse,lr~0.0001,batch_size~16,pool~4000,steps~250.csv"
    )
    folders = paths.artefacts(config, runs)
    # Four shards of 9 teachers under either noise; features of data, teachers and students; the ends of four ODEs and the
    # refined one, 1,000 start points in one shard.
    assert kinds(folders) == {
        **dict.fromkeys(("data", "teacher", "latents", "noise", "floor_noise", "trajectories", "extractors"), 1),
        **{"reference": 36, "floor": 36, "targets": 20, "endpoints": 5, "students": 116, "errors": 28, "samples": 126},
        # Of two further extractors the data, teacher and floor of one ODE, and ten students. The teacher, its floor and the baselines
        # of each ODE are measured, too.
        **{"features": 1 + 18 + 126 + 2 * (1 + 2 + 10), "metrics": 27 + 126 + 12},
    }
    refined = f"solver~{config.errors.refined.solver},N~{config.errors.refined.N},w~3"
    assert [f for f in folders if f.startswith("endpoints/")] == [
        f"endpoints/{ode}/shard~0" for ode in (DEFAULT, refined, *odes[1:4])
    ]


def of_seed(folder: str) -> str:
    """The teacher's folder that a path has in it, or "" of the default teacher."""
    return next((f"{part}/" for part in folder.split("/") if part.startswith("teacher_seed~")), "")


def test_other_teachers_are_added_to_it() -> None:
    """What the default teacher's students need is the same with and without other teachers, in the same places and order."""
    config = Config()
    alone = parse(Config, {"students": [line.model_dump() for line in config.students[:-1]]})
    whole = paths.artefacts(config, config.grid())
    assert (
        [f for f in whole if not of_seed(f)]
        == paths.artefacts(alone, alone.grid())
        == paths.artefacts(config, config.runs())
    )
    assert paths.benchmarks(alone, alone.grid(), "paper") == [
        f for f in paths.benchmarks(config, config.grid(), "paper") if not of_seed(f) and f != "collect/teachers.tsv"
    ]
    assert paths.measured(config, config.runs()) == paths.measured(alone, alone.runs())
    # A teacher and its like; its samples under the evaluation's noise, but no floor; the pool of two students; what compares these two is for the table over teachers.
    ode, cm, direct = DEFAULT, *(run.key for run in config.grid()[-8:] if run.teacher_seed == 3)
    third = [f for f in whole if of_seed(f) == "teacher_seed~3/"]
    assert third == [
        *(f"teacher_seed~3/{name}" for name in ("teacher", "latents", "noise")),
        *(f"reference/teacher_seed~3/{ode}/shard~{i}" for i in range(4)),
        *(f"targets/teacher_seed~3/{ode}/shard~{i}" for i in range(2)),
        *(f"students/{key}" for key in (cm, direct)),
        *(f"samples/{key}" for key in (cm, direct)),
        f"features/clip_tiny/teacher/teacher_seed~3/{ode}",
        *(f"features/clip_tiny/students/{key}" for key in (cm, direct)),
        f"metrics/teacher/teacher_seed~3/{ode}",
        *(f"metrics/students/{key}" for key in (cm, direct)),
    ]
    assert not any(map(of_seed, paths.measured(config, config.grid())["comparisons"]))
    setting = config.grid()[-1].setting.at(teacher_seed=0).key
    seeds = ("", *(f"teacher_seed~{t}/" for t in (1, 2, 3, 4)))
    # The default teacher's students are sampled in more steps, too.
    assert paths.measured(config, config.over_teachers(), "teachers")["comparisons"] == [
        *(f"comparisons/{seed}{setting}.csv" for seed in seeds), f"comparisons/more_steps/{setting}.csv",
    ]  # fmt: skip
    assert paths.split("teacher_seed~3/latents") == ("teacher_seed~3/", "latents", "")
    assert paths.split(third[3]) == ("", "reference", f"teacher_seed~3/{ode}/shard~0")
    files = paths.benchmarks(config, config.grid(), "paper")
    assert {"teacher_seed~3/encode.tsv", "teacher_seed~3/teacher.tsv", f"train/{cm}.tsv"} <= set(files)
    assert [f for f in files if f.startswith("compare/teacher_seed")] == [
        f"compare/{s}{setting}.tsv" for s in seeds[1:]
    ]
    assert len(files) == len(set(files))


def test_of_a_teacher_that_exists_the_pool_alone_is_drawn_again() -> None:
    teacher = {"kind": "diffusers", "diffusers": {"path": "somewhere"}}
    config = parse(Config, {"teacher": teacher, "students": [{"errors": True}, {"teacher_seed": [1], "errors": True}]})
    again = [f for f in paths.artefacts(config, config.grid()) if of_seed(f)]
    assert kinds(again) == {
        "targets": 2,
        **dict.fromkeys(("students", "samples", "errors", "metrics"), 2),
        "features": 2,
    }
    assert not any("/teacher/" in f for f in again)


def test_students_over_teachers_are_those_that_several_have() -> None:
    lines = [
        {"seed": [0, 1, 2]},
        {"N": [10]},
        {"teacher_seed": [0, 2], "seed": [1]},
        {"teacher_seed": [5], "method": ["cm"]},
    ]
    config = parse(Config, {"students": lines})
    found = [(run.method, run.N, run.seed, run.teacher_seed) for run in config.over_teachers()]
    assert found == [
        ("cm", 50, 0, 0), ("cm", 50, 1, 0), ("direct_cm", 50, 1, 0),
        ("cm", 50, 1, 2), ("direct_cm", 50, 1, 2), ("cm", 50, 0, 5),
    ]  # fmt: skip
    assert len(config.runs()) == 8 and all(run.teacher_seed == 0 for run in config.runs())
    # A line's sampling steps, snapshots and errors are for its own teachers.
    own = parse(
        Config, {"students": [{"sampling_steps": [1, 4], "snapshots": [62]}, {"teacher_seed": [1], "errors": True}]}
    )
    first, other = own.grid()[0], own.grid()[2]
    assert (own.sets(first), own.measures_errors(first)) == ([(250, 1), (250, 4), (62, 1)], False)
    assert (own.sets(other), own.measures_errors(other)) == ([(250, 1)], True)


def test_the_main_comparison_is_a_part_of_it() -> None:
    config = Config()
    main = main_runs(config)
    assert len(main) == 10
    found = paths.measured(config, main, "main")
    assert found["metrics"][:2] == [f"metrics/teacher/{DEFAULT}", f"metrics/floor/{DEFAULT}"]
    assert {name: len(folders) for name, folders in found.items()} == {
        "metrics": 13,
        "students": 10,
        "targets": 2,
        # Errors by start time and more sampling steps are for the whole grid.
        "errors": 0,
        "comparisons": 1,
    }
    some, everything = paths.artefacts(config, main, "main"), paths.artefacts(config, config.runs())
    assert set(some) < set(everything)
    assert not any(f.startswith(("endpoints", "errors")) or paths.MORE in f for f in some)
    # In the order they are made: what a folder is made from comes before it.
    assert [f for f in everything if f in set(some)] == sorted(some, key=everything.index)
    assert set(paths.benchmarks(config, main, "main")) - set(paths.benchmarks(config, config.runs(), "paper")) == {
        f"{step}/main.tsv" for step in paths.OF_A_SCOPE
    }


def test_further_metrics_are_of_the_main_comparison_and_of_the_whole_grids_scope() -> None:
    config = Config()
    main, every = main_runs(config), config.runs()
    assert paths.further(config, main, "main") == [] and paths.further(config, every, "paper") == main
    assert config.further_names() == config.further_metrics and not {*config.further_metrics} & {*config.metrics}
    # The main scope knows nothing of them: its artefacts are those without them, path by path.
    without = parse(Config, {"further_metrics": []})
    assert paths.artefacts(config, main, "main") == paths.artefacts(without, main, "main")
    assert paths.benchmarks(config, main, "main") == paths.benchmarks(without, main, "main")
    before = set(paths.artefacts(without, every))
    added = [f for f in paths.artefacts(config, every) if f not in before]
    assert kinds(added) == {"features": 26, "metrics": 12}
    assert f"metrics/further/teacher/{DEFAULT}" in added and f"metrics/further/students/{main[0].key}" in added
    assert {f.split("/")[1] for f in added if f.startswith("features")} == {"efficientnet_lite0", "pixels16"}
    assert paths.from_other_noise(config.further_metrics) == ["clip_tiny", "efficientnet_lite0", "pixels16"]
    assert paths.from_other_noise(config.metrics) == []
    assert f"evaluate/further/students/{main[0].key}.tsv" in paths.benchmarks(config, every, "paper")
    # One pass for both extractors.
    assert paths.passes(config) == {
        "features": ["clip_tiny"], "features_further": ["efficientnet_lite0", "pixels16"],
    }  # fmt: skip
    files = paths.benchmarks(config, every, "paper")
    assert sum(f.startswith("features_further/") for f in files) == 13 and "features_further/data.tsv" in files
    assert not any(f.startswith("features_further/") for f in paths.benchmarks(config, main, "main"))
    both = parse(Config, {"metrics": [*config.metrics, "fd_lite0"]})
    assert paths.passes(both) == {"features": ["clip_tiny", "efficientnet_lite0"], "features_further": ["pixels16"]}
    assert paths.passes(without) == {"features": ["clip_tiny"]}
    # Where `metrics` needs neither extractor nor floor, they alone do, and of their own ODE.
    alone = parse(Config, {"metrics": ["ode_bias"]})
    assert paths.passes(alone) == {"features": ["clip_tiny", "efficientnet_lite0", "pixels16"]}
    found = paths.artefacts(alone, alone.runs())
    floors = {f.split("/")[1] for f in found if f.startswith("floor/")}
    assert floors == {DEFAULT} and "floor_noise" in found and "extractors/clip_tiny" in found
    some = paths.artefacts(alone, main_runs(alone), "main")
    assert not {"floor_noise", "extractors/clip_tiny"} & {*some}
    # Samples of another noise are drawn of another teacher where its students are measured against them, and else not.
    lines = {"students": [{"N": [50]}, {"teacher_seed": [1], "N": [50]}]}
    own, floor_noise = f"teacher_seed~1/{DEFAULT}", "teacher_seed~1/floor_noise"
    for given, there in ({}, False), ({"metrics": [*config.metrics, "fd_other_tiny"]}, True):
        one = parse(Config, {**lines, **given})
        found = {*paths.artefacts(one, one.grid())}
        assert f"reference/{own}/shard~0" in found and f"floor/{DEFAULT}/shard~0" in found
        assert {f"floor/{own}/shard~0" in found, floor_noise in found, f"features/clip_tiny/floor/{own}" in found} == {
            there
        }
        assert f"metrics/floor/{own}" not in found and paths.further(one, one.grid(), "paper") == one.main()
    # A trained extractor that is not there takes its metrics along, and labels do.
    bare = parse(Config, {"metrics": ["ode_error"], "extractors": {"clip_tiny": None}})
    assert "fd_other_tiny" not in bare.further_names() and "fd_lite0" in bare.further_names()
    given = {"metrics": ["ode_error"], "further_metrics": ["prompt_accuracy", "ode_error", "is_lite0"]}
    folder = parse(Config, {**given, "data": {"kind": "folder", "path": "somewhere"}})
    assert folder.further_names() == ["is_lite0"]
    for wrong, words in ((["is_lite0"] * 2, "further_metrics names one twice"), (["nothing"], "unknown metric")):
        with pytest.raises(UserError, match=words):
            parse(Config, {"further_metrics": wrong})


def test_the_smoke_preset() -> None:
    config = load_config(ROOT / "config.yaml", ROOT / "workflow/presets/smoke.yaml")
    runs = config.runs()
    assert len(runs) == 16
    found = paths.measured(config, runs)
    assert {name: len(folders) for name, folders in found.items()} == {
        "metrics": 3 * 4 + 16 + 4 + 6,
        "students": 16,
        "targets": 3 + 3 * 2,
        "errors": 6,
        "comparisons": 7 + 1 + 1 + 1,
    }
    # The pool of 96 takes three shards of 32 of the one ODE that it is trained on.
    assert paths.pools(config, runs) == {
        "solver~ddim,N~10,w~3": 3,
        "solver~ddim,N~20,w~3": 2,
        "solver~ddim,N~10,w~1": 2,
        "solver~euler,N~10,w~3": 2,
    }
    # 5 × 4 start points in shards of 10, of two ODEs and the refined one.
    assert paths.error_shards(config) == 2
    assert [f for f in paths.artefacts(config, runs) if f.startswith("endpoints/")] == [
        f"endpoints/{ode},w~3/shard~{i}"
        for ode in ("solver~ddim,N~10", "solver~edm_heun,N~50", "solver~ddim,N~20")
        for i in range(2)
    ]
    assert kinds(paths.artefacts(config, runs))["reference"] == 4 * 2


def test_on_pixels_images_are_edited() -> None:
    config = load_config(ROOT / "config.yaml", ROOT / "workflow/presets/smoke_edm.yaml")
    found = [f for f in paths.artefacts(config, config.runs()) if f.startswith("edits/")]
    assert found == [f for f in paths.artefacts(config, main_runs(config)) if f.startswith("edits/")]
    # Not progressive distillation's, which knows pure noise alone.
    first = [run for run in main_runs(config) if run.seed == 0 and run.method != "pd"]
    assert found == [
        "edits/teacher/solver~heun,N~8,w~3",
        *(f"edits/students/{run.key}" for run in first),
    ]
    assert kinds(paths.benchmarks(config, config.runs(), "paper"))["edit"] == 1 + len(first)
    assert paths.edits(config, config.runs()[1:2]) == []


@pytest.mark.parametrize("preset", [None, "smoke", "smoke_edm", "paper"])
def test_nothing_is_named_twice(preset: str | None) -> None:
    config = load_config(ROOT / "config.yaml", *([ROOT / f"workflow/presets/{preset}.yaml"] if preset else []))
    for scope, runs in (("main", main_runs(config)), ("paper", config.runs()), ("why", config.runs())):
        whole = paths.artefacts(config, runs, scope)
        assert len(whole) == len(set(whole))
        files = paths.benchmarks(config, runs, scope)
        assert len(files) == len(set(files)) and all(f.endswith(".tsv") for f in files)
        found = paths.measured(config, runs, scope)
        for folders in found.values():
            assert len(folders) == len(set(folders))
        # What tables are collected from is among what is made.
        made = set(whole)
        assert all(set(found[name]) <= made for name in ("metrics", "students", "targets", "errors"))
        kinds_of = [p.removesuffix(".csv").replace("comparisons/", "compare/") for p in found["comparisons"]]
        assert {f"{p}.tsv" for p in kinds_of} <= set(files)
        # One benchmark file per artefact, but one for the features of a set by all extractors of a pass, per comparison, and for the
        # analysis.
        exhibited = sum(len(exhibit.each) for exhibit in exhibits() if not exhibit.experiments)
        extracted = [folder for folder in whole if folder.startswith("features/")]
        passes = paths.passes(config)
        sets = {
            name: {folder.split("/", 2)[2] for folder in extracted if folder.split("/")[1] in names}
            for name, names in passes.items()
        }
        assert len(extracted) == sum(len(sets[name]) * len(names) for name, names in passes.items())
        jobs = len(whole) - len(extracted) + sum(map(len, sets.values()))
        analysed = 0 if scope == "why" else len(paths.OF_A_SCOPE) + exhibited
        assert len(files) == jobs + len(found["comparisons"]) + analysed
        for name, those in sets.items():
            assert {f"{name}/{of}.tsv" for of in those} == {f for f in files if f.startswith(f"{name}/")}


def test_one_student_per_method_of_the_main_setting_is_searched() -> None:
    config = parse(Config, {"search": {}, "students": [{"N": [10]}, {"seed": [7, 2], "N": [50, 10]}, {"lr": [1e-3]}]})
    first: dict[str, str] = {}
    for run in main_runs(config):
        first.setdefault(run.method, run.key)
    for runs in (main_runs(config), config.runs()):
        assert paths.searched(config, runs) == list(first.values()) and "seed~7" in first["cm"]
        found = kinds(paths.artefacts(config, runs))
        assert (found["search"], found["search_noise"]) == (2, 1)
    assert not {"search", "search_noise"} & kinds(paths.artefacts(Config(), Config().runs())).keys()


@pytest.mark.parametrize("preset", ["smoke", "smoke_edm"])
def test_benchmarks_are_named_after_their_rules(preset: str) -> None:
    config = load_config(ROOT / "config.yaml", ROOT / f"workflow/presets/{preset}.yaml")
    files = paths.benchmarks(config, config.runs(), "paper")
    rules = (ROOT / "workflow" / "rules").glob("*.smk")
    text = "\n".join(path.read_text(encoding="utf-8") for path in rules)
    named = {f for f in text.split('"') if f.startswith("{OUT}/benchmarks/")}
    for kind in kinds(files):
        # {redrawn} is a teacher's folder or nothing, {draw} is reference or floor, {noise} is noise or floor_noise, {_exhibit.job} a figure or table.
        spelled = {
            **dict.fromkeys(("reference", "floor"), "{{draw}}"),
            **dict.fromkeys(("noise", "floor_noise", "search_noise"), "{{redrawn}}{{noise}}"),
            **{step: f"{{{{redrawn}}}}{step}" for step in ("teacher", "encode")},
            **{one.job: "{_exhibit.job}" for exhibit in exhibits() for one in exhibit.each},
        }.get(kind, kind)
        assert any(
            f.startswith((f"{{OUT}}/benchmarks/{spelled}/", f"{{OUT}}/benchmarks/{spelled}.tsv")) for f in named
        ), kind
    assert kinds(files)["train"] == len(config.runs())
    assert kinds(files)["sample"] == len(config.runs()) + len(paths.in_more_steps(config, config.runs(), "paper"))


def test_targets_are_for_methods_that_want_them() -> None:
    config = parse(Config, {"students": [{"method": ["cm"], "N": [10]}, {"method": ["direct_cm"], "N": [20]}]})
    runs = config.runs()
    # CM alone reads first steps, and no more is solved for it.
    pools = ["solver~ddim,N~10,w~3+first", "solver~ddim,N~20,w~3"]
    assert paths.pools(config, runs) == {pools[0]: 1, pools[1]: 2}
    assert [paths.pool_of(run, paths.rows_solved(runs)) for run in runs] == pools
    assert paths.odes(config, runs) == [f"solver~ddim,N~{n},w~3" for n in (50, 10, 20)]
    assert paths.odes(config, []) == [DEFAULT]


def test_the_largest_pool_of_an_ode_decides_its_shards() -> None:
    config = parse(
        Config, {"targets": {"shard": 100, "block": 50, "batch_size": 50}, "students": [{"pool": [101, 40, 300, 100]}]}
    )
    assert paths.pools(config, config.runs()) == {DEFAULT: 3}
    # CM reads the first steps of what Direct CM needs solved.
    assert paths.pools(config, config.runs()[:1]) == {DEFAULT: 2}
    assert paths.rows_solved(config.runs()) == {DEFAULT: 300}
    assert [paths.count(n, 100) for n in (1, 99, 100, 101, 300)] == [1, 1, 1, 2, 3]
    assert [f for f in paths.artefacts(config, config.runs()) if f.startswith("targets")] == [
        f"targets/{DEFAULT}/shard~{i}" for i in range(3)
    ]


def test_a_solve_of_one_step_is_shared_where_it_is_no_more_than_what_is_asked_for() -> None:
    """Seeds of CM alone, 250 steps of 16 rows: 4,000 pairs a seed."""
    size = {"steps": 250, "batch_size": 16}

    def content(pool: int, seeds: int, *others: str) -> Config:
        line = {"method": ["cm"], "seed": [*range(seeds)], "N": [10]}
        lines = [line, *({"method": [name], "N": [10], "pool": [pool - 1]} for name in others)]
        return parse(Config, {"train": size | {"pool": pool}, "targets": {"shard": 1000}, "students": lines})

    ode = "solver~ddim,N~10,w~3"
    for pool, seeds, wanted in ((8000, 2, {f"{ode}+first": 1}), (8001, 2, {}), (4000, 1, {f"{ode}+first": 1})):
        config = content(pool, seeds)
        assert paths.pools(config, config.runs()) == wanted
        asked = {job.folder: job.forwards for job in plan.jobs(config, config.runs()) if job.forwards}
        cm, shard = sum(n for f, n in asked.items() if f.startswith("students")), f"targets/{ode}+first/shard~0"
        # Two rows a step under guidance: of each start point once, or of each pair that is drawn.
        assert (cm, asked.get(shard)) == ((0, pool * 2) if wanted else (seeds * 4000 * 2, None))
    # Direct CM's own is too short for it by one: both are solved.
    config = content(4000, 3, "direct_cm")
    assert paths.pools(config, config.runs()) == {ode: 4, f"{ode}+first": 1}
    latents = {job.folder: job.latents for job in plan.jobs(config, config.runs()) if job.kind == "targets"}
    assert latents[f"targets/{ode}+first/shard~0"] == 4000 and latents[f"targets/{ode}/shard~3"] == 2000


def test_cm_reads_stored_steps_where_its_whole_pool_is_solved() -> None:
    lines = [{"method": ["cm", "cd", "ct"], "pool": [500, 1000, 8001]}, {"method": ["direct_cm"], "pool": [1000]}]
    config = parse(
        Config,
        {
            "process": {"kind": "karras"},
            "teacher": {"kind": "edm"},
            "ode": {"solver": "heun", "N": 16},
            "students": lines,
        },
    )
    rows = paths.rows_solved(config.runs())
    found = {(r.method, r.pool): paths.pool_of(r, rows) for r in config.runs()}
    ode = "solver~heun,N~16,w~3"
    assert found == {
        **{(m, p): ode for m in ("cm", "cd") for p in (500, 1000)}, **{(m, 8001): "" for m in ("cm", "cd")},
        **{("ct", p): "" for p in (500, 1000, 8001)}, ("direct_cm", 1000): ode,
    }  # fmt: skip
    asked = {job.folder: job.forwards for job in plan.jobs(config, config.runs()) if job.kind == "students"}
    # A pair of Heun's under guidance is four rows, where the teacher is asked at all.
    assert {folder.split(",")[0] for folder, forwards in asked.items() if forwards} == {
        "students/method~cm",
        "students/method~cd",
    }
    assert sorted(asked.values())[-2:] == [250 * 16 * 4.0] * 2 and sum(asked.values()) == 2 * 250 * 16 * 4


def test_sets_in_more_steps_lie_apart() -> None:
    config = parse(Config, {"students": [{"seed": [0, 1], "sampling_steps": [1, 4], "snapshots": [62]}, {"N": [10]}]})
    found = paths.sets(config)
    keys = [run.key for run in config.runs()]
    assert found[config.runs()[0]] == ([(250, 1), (62, 1)], [(250, 4)])
    assert found[config.runs()[5]] == ([(250, 1)], [])
    samples = [f for f in paths.artefacts(config, config.runs()) if f.startswith("samples/")]
    assert samples == [f"samples/{keys[i]}" for i in range(6)] + [f"samples/{paths.MORE}{keys[i]}" for i in range(4)]
    # Seeds of one setting with other fewest steps: one collection each.
    mixed = parse(Config, {"students": [{"seed": [0], "sampling_steps": [1, 4]}, {"seed": [1], "sampling_steps": [4]}]})
    assert {more == [] for _, more in paths.sets(mixed).values()} == {True}


def test_errors_are_measured_where_a_line_asks_for_them() -> None:
    config = parse(
        Config,
        {
            "errors": {"points": 130, "refined": {"N": 50}},
            "students": [{"seed": [0, 1]}, {"seed": [1], "errors": True}, {"w": [2], "errors": True, "method": ["cm"]}],
        },
    )
    runs = config.runs()
    wanted = [r for r in runs if (r.w, r.seed) == (3.0, 1) or r.w == 2.0]
    assert paths.measured(config, runs)["errors"] == [f"errors/{r.key}" for r in wanted]
    # 1,300 start points in shards of 1,000; the refined ODE of each guidance.
    assert [f for f in paths.artefacts(config, runs) if f.startswith("endpoints")] == [
        f"endpoints/solver~{solver},N~50,w~{w}/shard~{i}"
        for w in (3, 2)
        for solver in ("ddim", "edm_heun")
        for i in range(2)
    ]
    plain = parse(Config, {"students": [{}]})
    assert not any(f.startswith(("errors", "endpoints")) for f in paths.artefacts(plain, plain.runs()))


def test_each_coupling_has_its_own_pool_of_targets() -> None:
    content = {
        "process": {"kind": "karras"}, "teacher": {"kind": "edm"}, "ode": {"solver": "heun", "N": 16, "w": 2},
        "targets": {"shard": 1000}, "train": {"pool": 2000},
        "students": [{"method": ["direct_cm", "straight", "cmt", "direct_cm_trajectory", "ct"]}],
    }  # fmt: skip
    config = parse(Config, content)
    ode = "solver~heun,N~16,w~2"
    assert paths.pools(config, config.runs()) == {
        ode: 2, f"{ode}+coupling~prior": 2, f"{ode}+coupling~trajectory": 2,
    }  # fmt: skip
    found = {job.folder: job.forwards for job in plan.jobs(config, config.runs()) if job.kind == "targets"}
    # Heun under guidance: four rows a step; 8.5 steps on average, 16 from pure noise, one for each point of a trajectory.
    assert found[f"targets/{ode}/shard~0"] == 1000 * 8.5 * 4
    assert found[f"targets/{ode}+coupling~prior/shard~1"] == 1000 * 16 * 4
    assert found[f"targets/{ode}+coupling~trajectory/shard~1"] == 1000 * 4


def test_pools_names_can_be_handed_to_a_clusters_job() -> None:
    """Snakemake says which job a cluster's one is as RULE:NAME=VALUE,…, so that no wildcard's value may hold a comma."""
    from snakemake.target_jobs import parse_target_jobs_cli_args

    lines = [{"method": ["cm", "straight", "cmt"], "seed": [0]}, {"method": ["cm"], "N": [10], "seed": [0]}]
    config = parse(
        Config, {"process": {"kind": "karras"}, "teacher": {"kind": "edm"}, "ode": {"N": 18}, "students": lines}
    )
    names = paths.pools(config, config.runs())
    rest = [
        name.removeprefix(next(run.ode.key for run in config.runs() if name.startswith(run.ode.key))) for name in names
    ]
    assert {"+coupling~prior", "+coupling~trajectory"} <= set(rest)
    for part in rest:
        (job,) = parse_target_jobs_cli_args([f"targets:N=18,coupling={part},shard=0"])
        assert job.wildcards_dict["coupling"] == part


def varied(*lines: dict[str, object]) -> Config:
    return parse(Config, {"students": [{"method": ["cm", "direct_cm"]}, *lines]})


def test_states_after_k_steps_have_places_of_their_own_and_one_benchmark() -> None:
    config = varied(
        {"method": ["k_step"], "k": [1, 5, 50], "teacher_seed": [0, 1]},
        {"method": ["k_step"], "N": [10], "k": [2]},
        {"method": ["k_step"], "k": [5], "density": [0.25]},
    )
    other, ten = f"teacher_seed~1/{DEFAULT}+states", "solver~ddim,N~10,w~3+states"
    own = {f"{DEFAULT}+states": [1, 5, 50], other: [1, 5, 50], ten: [2], f"{DEFAULT}+density~0.25+states": [5]}
    assert paths.states(config.grid()) == own
    pools = paths.pools(config, config.grid())
    assert {pool: count for pool, count in pools.items() if "+states" in pool} == dict.fromkeys(own, 2)
    # CM's first steps are read from the endpoints' solve, as before.
    assert f"{DEFAULT}+first" not in pools and pools[DEFAULT] == 2
    files = paths.benchmarks(config, config.grid(), "paper")
    assert files.count(f"states/{DEFAULT}/shard~0.tsv") == 1 and f"states/{DEFAULT}+density~0.25/shard~1.tsv" in files
    assert f"states/teacher_seed~1/{DEFAULT}/shard~0.tsv" in files and not any("+states" in f for f in files)


def test_what_is_varied_stands_in_no_table_and_in_no_comparison() -> None:
    config = varied({"method": ["cm", "direct_cm"], "weight": ["snr"], "teacher_seed": [0, 1]}, {"k": [1]})
    assert len(config.grid()) == 6 and len(config.runs()) == 2 and config.over_teachers() == []
    made = paths.measured(config, config.grid())
    assert len(made["comparisons"]) == 3 and not any("weight" in path for path in made["comparisons"])
    assert sum("weight~snr" in path for path in made["metrics"]) == 4


def test_labels_need_no_targets_and_other_start_times_have_their_own() -> None:
    config = varied(
        {"method": ["cm"], "seed": [1]},
        {"method": ["direct_cm"], "labels": ["cm"]},
        {"method": ["cm", "direct_cm"], "density": [0.25]},
    )
    rows = paths.rows_solved(config.grid())
    pools = {run.key: paths.pool_of(run, rows) for run in config.grid()}
    assert [pool for key, pool in pools.items() if "labels" in key] == [""]
    assert {pool for key, pool in pools.items() if "density" in key} == {f"{DEFAULT}+density~0.25"}
    assert {pool for key, pool in pools.items() if "+" not in key} == {DEFAULT}


def test_the_plan_counts_one_solve_for_all_k() -> None:
    config = varied({"method": ["k_step"], "k": [1, 5, 25]})
    jobs = {job.folder: job for job in plan.jobs(config, config.grid())}
    found = jobs[f"targets/{DEFAULT}+states/shard~0"]
    # 2,000 start points, two rows a step; with n steps left, n = 1 … 50 alike often, min(n, 25) of them. Three states of each are kept.
    assert found.forwards == 2 * 2000 * (sum(range(1, 25)) + 25 * 26) / 50 and found.latents == 6000
