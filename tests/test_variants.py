"""Sets that are not plain: their names, what the configuration makes of starts, scalings and relays, and how they are sampled."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from directcm import cli
from directcm.analysis.pages.provenance import Record
from directcm.cli import plan
from directcm.config import Config, Ode, Statistics, Variant, grid_index, parse, passes, paths
from directcm.config.base import SCALINGS
from directcm.config.specs import METHODS
from directcm.diffusion.processes import VarianceExploding, VariancePreserving
from directcm.diffusion.starts import pure_noise
from directcm.diffusion.teachers import load
from directcm.distill import noise as noise_verb
from directcm.distill import students
from directcm.errors import UserError
from directcm.evaluation import baselines, sampling, untrained, variants
from directcm.evaluation.metrics.evaluate import Comparison, evaluate_collection
from directcm.evaluation.sampling import sample_at, sample_teacher
from directcm.runtime import rng
from directcm.runtime.artifacts import Artifact, new_artifact, open_artifact, open_collection, save_tensors
from directcm.statistics.scaling import fit

# ----------------------------------------------------------------- names

SHARES = st.floats(0, 1, exclude_min=True, exclude_max=True) | st.sampled_from([0.02, 0.1, 1e-7])
STEPS = st.integers(1, 10**9)
VARIANTS = st.one_of(
    st.builds(Variant, STEPS, STEPS),
    st.builds(Variant, STEPS, st.just(1), start=st.just(0.0) | SHARES, scaling=st.sampled_from(SCALINGS)),
    st.builds(Variant, STEPS, st.just(2), relay=st.sampled_from(list(METHODS)), at=SHARES),
)


@given(variant=VARIANTS)
def test_what_is_spelled_is_read_back(variant: Variant) -> None:
    again = Variant.parse(variant.name)
    assert again == variant and hash(again) == hash(variant) and again.name == variant.name
    assert re.fullmatch(r"[a-z0-9_~,.]+", variant.name)


@given(one=VARIANTS, other=VARIANTS)
def test_equal_where_names_are(one: Variant, other: Variant) -> None:
    assert (one == other) is (one.name == other.name)


def test_defaults_stand_in_no_name() -> None:
    assert Variant(250, 1).name == sampling.set_name(250, 1) == "step~250,sampling_steps~1"
    assert Variant(250, 1, start=0.06, scaling="slope").name == "step~250,sampling_steps~1,start~0.06,scaling~slope"
    assert Variant(250, 2, relay="direct_cm", at=0.1).name == "step~250,sampling_steps~2,relay~direct_cm,at~0.1"
    assert Variant(250, 1, start=0.06).varied == {"start": 0.06} and Variant(250, 4).varied == {}
    assert Variant(250, 1, scaling="mean").scaled and not Variant(250, 1, start=0.06).scaled


@pytest.mark.parametrize(
    "name",
    [
        "",
        "step~250",
        "sampling_steps~1,step~250",
        "step~0,sampling_steps~1",
        "step~250,sampling_steps~1,start~0",
        "step~250,sampling_steps~1,start~0.060",
        "step~250,sampling_steps~1,start~1",
        "step~250,sampling_steps~1,start~-0.1",
        "step~250,sampling_steps~1,start~nan",
        "step~250,sampling_steps~1,scaling~raw",
        "step~250,sampling_steps~1,scaling~linear",
        "step~250,sampling_steps~2,start~0.06",
        "step~250,sampling_steps~1,relay~cm,at~0.1",
        "step~250,sampling_steps~2,relay~cm",
        "step~250,sampling_steps~2,at~0.1",
        "step~250,sampling_steps~2,relay~dm,at~0.1",
        "step~250,sampling_steps~2,scaling~mean,relay~cm,at~0.1",
        "step~250,sampling_steps~1,colour~red",
    ],
)
def test_a_malformed_name_is_named(name: str, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        Variant.parse(name)
    assert one_line(error).startswith(repr(name)) and "step~250,sampling_steps~1" in str(error.value)


def test_shares_of_a_grid() -> None:
    assert [grid_index(share, 50) for share in (0, 0.02, 0.06, 0.1, 0.2, 0.98)] == [0, 1, 3, 5, 10, 49]
    # 0.07 · 100 and 0.29 · 100 are no whole numbers in binary.
    assert [grid_index(share, 100) for share in (0.07, 0.29)] == [7, 29] and grid_index(0.0555556, 18) == 1
    for share, n in ((0.03, 50), (0.5, 5), (1, 50), (0.999999999, 50), (-0.02, 50)):
        with pytest.raises(ValueError, match="is no time of the grid before its end"):
            grid_index(share, n)
    grid = VariancePreserving.scaled_linear().grid(50)
    assert [float(grid[grid_index(s, 50)]) for s in (0, 0.02, 0.06, 0.1, 0.2)] == [1000, 980, 940, 900, 800]


# ----------------------------------------------------------------- configuration

ANATOMY = {"starts": [0, 0.02], "scalings": ["raw", "mean", "affine"], "relays": ["cm", "direct_cm"], "relay_at": [0.1]}


def test_the_sets_of_a_run() -> None:
    lines = [{"seed": [0, 1]}, {"seed": [0], **ANATOMY}, {"seed": [0], "method": ["cm"], "starts": [0.1]}]
    config = parse(Config, {"students": lines})
    cm, other, direct, _ = config.grid()
    names = [
        "scaling~mean", "scaling~affine", "start~0.02", "start~0.02,scaling~mean", "start~0.02,scaling~affine",
    ]  # fmt: skip
    relays = [f"step~250,sampling_steps~2,relay~{method},at~0.1" for method in ("cm", "direct_cm")]
    alone = [f"step~250,sampling_steps~1,{name}" for name in names]
    assert [one.name for one in config.variants(direct)] == [*alone, *relays]
    # Lines of one run add up; plain sets are not repeated, and none is there by default.
    assert [one.name for one in config.variants(cm)] == [*alone, "step~250,sampling_steps~1,start~0.1", *relays]
    assert config.variants(other) == [] and not any(Config().variants(run) for run in Config().grid())
    assert config.sets(cm) == [(250, 1)]
    assert config.relayed(cm, config.variants(cm)[-1]) == direct
    # From two starts and over the floor's noise from both, and a start more; two second steps.
    assert (passes(config.variants(direct)), passes(config.variants(cm))) == (2 + 2 + 2, 3 + 2 + 2)
    assert passes([Variant(250, 2, relay="cm", at=0.1)]) == 2


def test_at_their_defaults_nothing_says_them() -> None:
    plain = parse(Config, {"students": [{}]})
    said = parse(Config, {"students": [{"starts": [0], "scalings": ["raw"], "relays": [], "relay_at": [0.1]}]})
    assert plain.model_dump(mode="json") == said.model_dump(mode="json")
    assert not {"starts", "scalings", "relays", "relay_at"} & plain.model_dump()["students"][0].keys()


PD = {
    "process": {"kind": "karras"}, "teacher": {"kind": "edm"}, "ode": {"solver": "heun", "N": 16, "w": 2},
    "further_metrics": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"students": [{"starts": [0.03]}]}, "students: starts: 0.03 of N = 50 intervals is no time of the grid"),
        ({"students": [{"starts": [0.1], "N": [50, 5]}]}, "students: starts: 0.1 of N = 5 intervals"),
        ({"students": [{"starts": [1.0]}]}, "students.0.starts.0: is 1.0: input should be less than 1"),
        ({"students": [{"starts": [0, 0.1, 0.1]}]}, "students: starts names one twice"),
        ({"students": [{"scalings": ["mean", "mean"]}]}, "students: scalings names one twice"),
        ({"students": [{"scalings": ["linear"]}]}, "students.0.scalings.0: is \"linear\""),
        ({"students": [{"starts": []}]}, "students.0.starts: is []"),
        ({"students": [{"relays": ["cm"], "relay_at": [0]}]}, "students.0.relay_at.0: is 0: input should be greater than 0"),
        ({"students": [{"relays": ["cm"], "relay_at": [0.55]}]}, "students: relay_at: 0.55 of N = 50 intervals"),
        (
            {"students": [{"method": ["cm"], "relays": ["direct_cm"]}]},
            "students: cm: the second step of relay direct_cm is the student method~direct_cm,solver~ddim,N~50,w~3,adapter~lora4,"
            "loss~mse,lr~0.0001,batch_size~16,pool~4000,steps~250,seed~0's; add it to the grid",
        ),
        (
            {"students": [{"scalings": ["affine"]}], "evaluation": {"samples": 256}},
            "students: scaling affine needs more samples than latents have components: evaluation.samples = 256 is not above 256",
        ),
        ({**PD, "students": [{"method": ["pd"], "starts": [0.5]}]}, "students: pd halves N"),
        ({**PD, "students": [{"method": ["cm", "pd"]}, {"method": ["cm"], "relays": ["pd"]}]}, "students: pd halves N"),
    ],
)  # fmt: skip
def test_mistakes_of_the_configuration(content: dict[str, Any], words: str, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        parse(Config, {"metrics": ["ode_error"], **content})
    assert words in one_line(error)


def test_what_is_right_is_taken() -> None:
    enough = parse(Config, {"students": [{"scalings": ["affine"]}], "evaluation": {"samples": 257}})
    assert [one.scaling for one in enough.variants(enough.grid()[0])] == ["affine"]
    # Where no second step is taken its time is not looked at.
    assert parse(Config, {"students": [{"relay_at": [0.55]}]}).variants(enough.grid()[0]) == []


# ----------------------------------------------------------------- paths and plan

AGAIN = {"teacher_seed": [1], "method": ["cm"], "scalings": ["raw", "slope"]}


def test_the_scope_why_makes_them_and_no_other() -> None:
    lines = [{"seed": [0, 1], "sampling_steps": [1, 2]}, {"seed": [0], **ANATOMY}, AGAIN]
    config = parse(Config, {"students": lines, "convergence": {"fit_from": 20}})
    without = parse(
        Config, {"students": [lines[0], {"teacher_seed": [1], "method": ["cm"]}], "convergence": {"fit_from": 20}}
    )
    runs = config.grid()
    assert runs == without.grid()
    for scope, some in (("main", config.main()), ("paper", runs)):
        assert paths.artefacts(config, some, scope) == paths.artefacts(without, some, scope)
        assert paths.benchmarks(config, some, scope) == paths.benchmarks(without, some, scope)
        assert paths.measured(config, some, scope) == paths.measured(without, some, scope)
    before, whole = paths.artefacts(config, runs, "paper"), paths.artefacts(config, runs, "why")
    ode = "solver~ddim,N~50,w~3"
    cm, direct, again = (next(r.key for r in runs if config.variants(r) and r.method == m and r.teacher_seed == t)
                         for m, t in (("cm", 0), ("direct_cm", 0), ("cm", 1)))  # fmt: skip
    assert [f for f in whole if f not in before] == [
        "teacher_seed~1/floor_noise",
        *(f"floor/teacher_seed~1/{ode}/shard~{i}" for i in range(4)),
        *(f"untrained/{name}{ode}" for name in ("", "teacher_seed~1/")),
        *(f"{kind}/variants/{key}" for kind in ("samples", "features/clip_tiny/students", "metrics/students") for key in (cm, direct, again)),
    ]  # fmt: skip
    # What only figures and tables of "paper" show.
    assert [f for f in before if f not in whole] == ["trajectories", "convergence"]
    assert len(whole) == len(set(whole))
    # A teacher's floor is for those that are scaled to it.
    raw = parse(Config, {"students": [lines[0], {**AGAIN, "scalings": ["raw"], "starts": [0.02]}]})
    found = paths.artefacts(raw, raw.grid(), "why")
    assert f"samples/variants/{again}" in found and not any(
        f.startswith(("floor/teacher", "teacher_seed~1/floor")) for f in found
    )
    files = paths.benchmarks(config, runs, "why")
    assert {
        f"variants/{cm}.tsv",
        f"features/students/variants/{cm}.tsv",
        f"evaluate/students/variants/{again}.tsv",
    } <= {*files}
    assert f"untrained/teacher_seed~1/{ode}.tsv" in files and len(files) == len(set(files))
    assert not any(f.startswith(("compare", "collect", "contrasts", "figure", "table")) for f in files)
    assert paths.measured(config, runs, "why")["comparisons"] == []
    assert f"metrics/students/variants/{cm}" in paths.measured(config, runs, "why")["metrics"]


def test_of_a_pinned_teacher_there_is_one_floor() -> None:
    teacher = {"kind": "diffusers", "diffusers": {"path": "somewhere"}}
    config = parse(Config, {"teacher": teacher, "students": [{}, AGAIN]})
    found = paths.artefacts(config, config.grid(), "why")
    assert [f for f in found if f.startswith("floor/")] == [f"floor/solver~ddim,N~50,w~3/shard~{i}" for i in range(4)]
    assert "teacher_seed~1/floor_noise" not in found and "untrained/solver~ddim,N~50,w~3" in found


def test_their_work_by_hand() -> None:
    config = parse(Config, {"students": [{"seed": [0], **ANATOMY}, AGAIN]})
    jobs = {job.folder: job for job in plan.jobs(config, config.grid(), "why")}
    assert list(jobs) == paths.artefacts(config, config.grid(), "why")
    direct, again = (f"variants/{config.grid()[i].key}" for i in (1, 2))
    # Two starts, either over the floor's noise too, and two second steps; five sets of one step and two of two.
    assert (jobs[f"samples/{direct}"].drawn, jobs[f"samples/{direct}"].images) == (6 * 1024, 7 * 1024)
    assert (jobs[f"samples/{again}"].drawn, jobs[f"samples/{again}"].latents) == (2 * 1024, 1024)
    assert jobs[f"features/clip_tiny/students/{direct}"].seen == 7 * 1024
    assert jobs["untrained/solver~ddim,N~50,w~3"].drawn == 1024
    assert jobs["floor/teacher_seed~1/solver~ddim,N~50,w~3/shard~0"].forwards == 256 * 50 * 2


def test_their_costs_are_a_step_of_their_own() -> None:
    inputs = {"student": "a", "noise": "b"}
    collection = {"kind": "collection", "settings": {"of": "samples"}, "inputs": inputs}
    steps = {
        "samples/variants/key": (collection, "variants"),
        "samples/key": (collection, "sample"),
        "samples/variants/teacher_seed~1/key": (collection, "variants"),
        "untrained/ode": ({"kind": "untrained", "settings": {}, "inputs": {"noise": "b"}}, "untrained"),
    }
    for folder, (manifest, step) in steps.items():
        assert Record(Path("results/x", folder), manifest, {}, []).step == step


# ----------------------------------------------------------------- sampling

ROWS = 24


class World(SimpleNamespace):
    """Noises of the evaluation and the floor, and the teacher's samples of the floor's in two shards, of so many rows."""

    def make(
        self, out: Path, sets: list[Variant], student: Any = None, relays: Any = (), **changes: Any
    ) -> dict[str, Any]:
        given = {
            "noise": self.noise,
            "floor_noise": self.floor_noise,
            "floor": self.floor,
            "seed": self.tiny.seed,
            **changes,
        }
        what = sampling.Evaluated(
            self.settings, self.tiny.teacher, self.tiny.latents, given["noise"], given["seed"], "cpu"
        )
        floor = variants.Floor(given["floor_noise"], given["floor"]) if given["floor_noise"] else None
        who = self.tiny.direct_cm if student is None else student
        variants.make(
            what, given.get("ode", self.ode), who, sets, relays, floor, out.with_name(f"{out.name}-scratch"), out
        )
        return open_collection(out, "samples")


def world_of(tiny: Any, root: Path, rows: int, **changes: Any) -> World:
    settings = tiny.evaluation.model_copy(update=changes)
    ode = Ode(solver="ddim", N=tiny.N, w=tiny.w)
    drawn = {}
    for purpose in ("evaluation", "floor"):
        noise_verb.make(rows, purpose, tiny.data, tiny.latents, tiny.seed, root / purpose)
        drawn[purpose] = open_artifact(root / purpose, "noise")
    what = sampling.Evaluated(settings, tiny.teacher, tiny.latents, drawn["floor"], tiny.seed, "cpu")
    for i in range(2):
        sample_teacher(what, ode, i, 2, root / "scratch", root / f"floor-{i}")
    floor = [open_artifact(root / f"floor-{i}", "samples") for i in range(2)]
    return World(
        tiny=tiny, settings=settings, ode=ode, noise=drawn["evaluation"], floor_noise=drawn["floor"], floor=floor
    )


@pytest.fixture(scope="module")
def world(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> World:
    return world_of(tiny, tmp_path_factory.mktemp("variants"), ROWS)


# Of N = 5: the times 800 and 600.
SETS = [
    *(Variant(4, 1, scaling=kind) for kind in ("mean", "slope", "variance")),
    Variant(4, 1, start=0.2),
    Variant(4, 1, start=0.4, scaling="slope"),
    *(Variant(4, 2, relay=method, at=0.4) for method in ("cm", "direct_cm")),
]


@pytest.fixture(scope="module")
def made(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return world.make(tmp_path_factory.mktemp("made") / "v", SETS, relays=[world.tiny.cm, world.tiny.direct_cm])


def latents_of(*shards: Artifact) -> np.ndarray:
    return np.concatenate([shard.arrays("latents.safetensors")["latents"] for shard in shards])


def one_step(world: World, noise: Artifact, time: float) -> np.ndarray:
    """What the finished Direct CM makes of a noise, told a time, in one batch."""
    student = students.load(load(world.tiny.teacher), world.tiny.direct_cm)
    what = sampling.Evaluated(world.tiny.evaluation, world.tiny.teacher, world.tiny.latents, noise, 0, "cpu")
    with torch.no_grad():
        t = torch.full((len(what.initial),), time, dtype=torch.float64)
        return student(what.initial, t, what.pool.conditioning(what.ids)).numpy()


def test_there_is_a_set_for_each(world: World, made: dict[str, Artifact]) -> None:
    assert list(made) == [one.name for one in SETS]
    for variant, part in zip(SETS, made.values(), strict=True):
        part.verify()
        varied = {name: part.settings[name] for name in ("start", "scaling", "relay", "at") if name in part.settings}
        assert varied == variant.varied
        assert (part.settings["step"], part.settings["steps"]) == (4, variant.sampling_steps)
        assert part.counts == {"samples": ROWS, "student_forwards": ROWS * variant.sampling_steps}
        inputs = part.manifest["inputs"]
        assert ("floor_noise" in inputs, "floor_1" in inputs, "relay" in inputs) == (
            variant.scaled,
            variant.scaled,
            bool(variant.relay),
        )
        assert inputs["noise"] == world.noise.fingerprint and inputs["student"] == world.tiny.direct_cm.fingerprint
        assert len(part.files("images/")) == ROWS and np.array_equal(
            part.arrays("latents.safetensors")["rows"], np.arange(ROWS)
        )
    assert not next(iter(made.values())).folder.parent.with_name("v-scratch").exists()


def test_a_start_is_the_student_told_another_time_of_the_same_noise(world: World, made: dict[str, Artifact]) -> None:
    found = latents_of(made["step~4,sampling_steps~1,start~0.2"])
    np.testing.assert_allclose(found, one_step(world, world.noise, 800.0), rtol=1e-4, atol=1e-4)
    assert not np.allclose(found, one_step(world, world.noise, 1000.0), atol=1e-2)


def test_pure_noise_that_stands_for_another_time() -> None:
    """On VP it is the noise itself, on Karras's process t times it; and that is what a student gets."""
    z = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 2, 2, 2), dtype=np.float32))
    t = torch.full((3,), 700.0, dtype=torch.float64)
    vp, ve = VariancePreserving.scaled_linear(), VarianceExploding(start=80.0)
    assert torch.equal(pure_noise(vp, z, t), z) and torch.equal(pure_noise(ve, z, t), 700 * z)
    # At the start they are the processes' own, byte for byte.
    for process in (vp, ve, VarianceExploding(start=80.1, end=0.01)):
        assert torch.equal(pure_noise(process, z, torch.full_like(t, process.start)), process.prior(z))
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Told:
        teacher = SimpleNamespace(device="cpu")

        def __init__(self, process: Any) -> None:
            self.process = process

        def __call__(self, x: torch.Tensor, t: torch.Tensor, cond: Any) -> torch.Tensor:
            seen.append((x, t))
            return x

    for process in (vp, ve):
        for index in (0, 3):
            sample_at(Told(process), z, None, 10, [index], 0, range(3))  # type: ignore[arg-type]
            x, told = seen.pop()
            assert told.tolist() == [float(process.grid(10)[index])] * 3
            expected = z if process is vp else told[:1].float() * z
            torch.testing.assert_close(x, expected, rtol=1e-7, atol=0)


def test_a_scaling_is_fitted_on_the_floor_and_moves_the_evaluations_samples(
    world: World, made: dict[str, Artifact]
) -> None:
    truth = latents_of(*world.floor)
    for variant in (one for one in SETS if one.scaled):
        time = {0.0: 1000.0, 0.4: 600.0}[variant.start]
        scaling = fit(variant.scaling, one_step(world, world.floor_noise, time), truth)
        part = made[variant.name]
        about = part.arrays("scaling.safetensors")
        for name in ("source", "target", "gain"):
            np.testing.assert_allclose(about[name], getattr(scaling, name), rtol=1e-4, atol=1e-4)
            assert about[name].dtype == np.float64
        raw = one_step(world, world.noise, time)
        np.testing.assert_allclose(latents_of(part), scaling(raw), rtol=1e-3, atol=1e-3)
        assert not np.allclose(latents_of(part), raw, atol=1e-3)
    assert not made["step~4,sampling_steps~1,start~0.2"].files("scaling.safetensors")


@pytest.mark.slow
def test_affine_from_end_to_end(tiny: Any, tmp_path: Path) -> None:
    """257 rows of 4 × 8 × 8 components: on the floor's own noise the mean and covariance would be the teacher's."""
    world = world_of(tiny, tmp_path, 257, block=150, batch_size=75)
    (part,) = world.make(tmp_path / "v", [Variant(4, 1, scaling="affine")]).values()
    about = part.arrays("scaling.safetensors")
    assert about["gain"].shape == (256, 256)
    fitted = one_step(world, world.floor_noise, 1000.0).reshape(257, -1).astype(np.float64)
    moved, truth = (
        (fitted - about["source"]) @ about["gain"] + about["target"],
        latents_of(*world.floor).reshape(257, -1),
    )
    np.testing.assert_allclose(moved.mean(0), truth.mean(0, dtype=np.float64), atol=1e-5)
    # The student's smallest variances are of another batch's rounding, which the map enlarges.
    covariance = np.cov(truth, rowvar=False)
    assert np.linalg.norm(np.cov(moved, rowvar=False) - covariance) < 1e-3 * np.linalg.norm(covariance)
    raw = one_step(world, world.noise, 1000.0).reshape(257, -1).astype(np.float64)
    expected = (raw - about["source"]) @ about["gain"] + about["target"]
    off = latents_of(part).reshape(257, -1) - expected
    assert np.linalg.norm(off) < 1e-3 * np.linalg.norm(expected)


def test_no_fit_reads_the_evaluations_noise(world: World, made: dict[str, Artifact], tmp_path: Path) -> None:
    """Another noise of the evaluation: other samples, and not a byte of the fits."""
    prompts = world.noise.file("prompts.csv").read_bytes()
    inputs = {"data": world.tiny.data, "latents": world.tiny.latents}
    with new_artifact(tmp_path / "noise", "noise", settings={"samples": ROWS}, inputs=inputs) as art:
        save_tensors(art / "noise.safetensors", {"noise": rng.normal(99, "other", range(ROWS), (4, 8, 8))})
        (art / "prompts.csv").write_bytes(prompts)
    scaled = [one for one in SETS if one.scaled]
    again = world.make(tmp_path / "again", scaled, noise=open_artifact(tmp_path / "noise", "noise"))
    for variant in scaled:
        first, second = made[variant.name], again[variant.name]
        assert first.file("scaling.safetensors").read_bytes() == second.file("scaling.safetensors").read_bytes()
        assert not np.allclose(latents_of(first), latents_of(second), atol=1e-2)


def test_a_relay_is_two_steps_with_the_same_fresh_noise(
    world: World, made: dict[str, Artifact], tmp_path: Path
) -> None:
    tiny = world.tiny
    # To its own method: the bytes of ordinary sampling at two times, which of N = 5 at 0.4 are the even ones.
    own = made["step~4,sampling_steps~2,relay~direct_cm,at~0.4"]
    what = tiny.evaluated(noise=world.noise)
    sampling.sample_students(what, world.ode, tiny.direct_cm, [(4, 2)], tmp_path / "x", tmp_path / "plain")
    (plain,) = open_collection(tmp_path / "plain", "samples").values()
    assert own.file("latents.safetensors").read_bytes() == plain.file("latents.safetensors").read_bytes()
    assert own.fingerprint == plain.fingerprint
    # At another time, which no even ones are, too.
    (late,) = world.make(
        tmp_path / "late", [Variant(4, 2, relay="direct_cm", at=0.8)], relays=[tiny.direct_cm]
    ).values()
    student = students.load(load(tiny.teacher), tiny.direct_cm)
    blocks = [some for rows in (range(i, i + 3) for i in range(0, ROWS, 3)) for some in (rows[:2], rows[2:])]
    parts = [
        sample_at(student, what.initial[torch.tensor(some)], what.pool.conditioning(what.ids[torch.tensor(some)]), 5, [0, 4], tiny.seed, some)
        for some in blocks
    ]  # fmt: skip
    assert (tiny.evaluation.block, tiny.evaluation.batch_size) == (3, 2)
    assert np.array_equal(latents_of(late), torch.cat(parts).numpy())
    # To CM: Direct CM's first step, CM's second, by hand.
    other = latents_of(made["step~4,sampling_steps~2,relay~cm,at~0.4"])
    first, second = torch.from_numpy(one_step(world, world.noise, 1000.0)), students.load(load(tiny.teacher), tiny.cm)
    t = torch.full((ROWS,), 600.0)
    eps = rng.normal(tiny.seed, "step_noise", range(ROWS), (4, 8, 8), 2, 1)
    with torch.no_grad():
        expected = second(second.process.diffuse(first, eps, t), t, what.pool.conditioning(what.ids))
    np.testing.assert_allclose(other, expected.numpy(), rtol=1e-3, atol=1e-3)
    assert not np.array_equal(other, latents_of(own))


def test_killed_between_two_sets_it_resumes_to_the_same_bytes(
    world: World, made: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, names, calls = variants.write, [], []
    drawn = sampling.sample_at

    def dies(what: Any, name: str, *args: Any, **more: Any) -> None:
        names.append(name)
        if len(names) == 3:
            raise KeyboardInterrupt
        real(what, name, *args, **more)

    def counted(*args: Any) -> Any:
        calls.append(args[4])
        return drawn(*args)

    monkeypatch.setattr(variants, "write", dies)
    monkeypatch.setattr(sampling, "sample_at", counted)
    relays = [world.tiny.cm, world.tiny.direct_cm]
    with pytest.raises(KeyboardInterrupt):
        world.make(tmp_path / "v", SETS, relays=relays)
    # From pure noise, of either noise: eight blocks in two batches each.
    assert calls == [[0]] * 2 * 16 and not (tmp_path / "v" / "manifest.json").exists()
    again = world.make(tmp_path / "v", SETS, relays=relays)
    # One start of the evaluation's noise alone, and one of both; none of what was there.
    assert calls[32:] == [[1]] * 16 + [[2]] * 32
    assert {name: part.fingerprint for name, part in again.items()} == {
        name: part.fingerprint for name, part in made.items()
    }


def test_metrics_say_what_is_varied(world: World, made: dict[str, Artifact], tmp_path: Path) -> None:
    tiny = world.tiny
    what = tiny.evaluated(noise=world.noise)
    sample_teacher(what, world.ode, 0, 1, tmp_path / "scratch", tmp_path / "reference")
    sampling.sample_students(what, world.ode, tiny.direct_cm, [(4, 1)], tmp_path / "x", tmp_path / "plain")
    compared = Comparison(
        metrics=["ode_error"], row="Direct CM", run=tiny.direct_cm.run, statistics=Statistics(bootstrap=100), seed=1, data=tiny.data,
        noise=world.noise, data_features={}, reference=[open_artifact(tmp_path / "reference", "samples")],
    )  # fmt: skip
    plain = open_collection(tmp_path / "plain", "samples")
    contents = evaluate_collection(compared, made, {}, tmp_path / "m")
    keys = ("start", "scaling", "relay", "at")
    for variant in SETS:
        content = contents[variant.name]
        assert json.loads((tmp_path / "m" / variant.name / "metrics.json").read_text()) == content
        assert {name: content[name] for name in keys if name in content} == variant.varied
        assert (content["step"], content["steps"]) == (4, variant.sampling_steps)
        settings = open_artifact(tmp_path / "m" / variant.name, "metrics").settings
        assert {name: settings[name] for name in keys if name in settings} == variant.varied
    (content,) = evaluate_collection(compared, plain, {}, tmp_path / "p").values()
    assert not set(keys) & content.keys()


def test_refusals(world: World, tiny: Any, tmp_path: Path, one_line: Any) -> None:
    mean, relay = Variant(4, 1, scaling="mean"), Variant(4, 2, relay="cm", at=0.4)

    def refused(words: str, sets: list[Variant], **changes: Any) -> None:
        with pytest.raises(UserError, match=words) as error:
            world.make(tmp_path / "x", sets, **changes)
        assert one_line(error)
        assert not (tmp_path / "x" / "manifest.json").exists()

    refused("must not be fitted on what it is judged on", [mean], floor_noise=world.noise)
    refused("pass it and the teacher's samples of it", [mean], floor_noise=None)
    refused("pass it and the teacher's samples of it", [mean], floor=[])
    refused("pass all shards", [mean], floor=world.floor[:1])
    refused("not of this teacher and ODE", [mean], ode=world.ode.at(N=10))
    noise_verb.make(ROWS, "search", tiny.data, tiny.latents, tiny.seed, tmp_path / "search")
    refused("the same prompts", [mean], floor_noise=open_artifact(tmp_path / "search", "noise"))
    refused("the 24 there are", [Variant(4, 1, scaling="affine")])
    refused("is a plain set", [Variant(4, 1)])
    refused("named twice", [mean, mean])
    refused("optimiser step 3, the finished student's is 4", [Variant(3, 1, scaling="mean")])
    refused("0.1 of N = 5 intervals is no time", [Variant(4, 1, start=0.1)])
    refused("needs the student of cm", [relay])
    other = tiny.train(tmp_path / "other", "cm", seed=7)
    refused("not of the setting and seed", [relay], relays=[other])


# ----------------------------------------------------------------- untrained, and the command line


def test_the_untrained_start(world: World, tmp_path: Path) -> None:
    tiny = world.tiny
    what = tiny.evaluated(noise=world.noise)
    untrained.make(what, world.ode, tmp_path / "scratch", tmp_path / "u")
    art = open_artifact(tmp_path / "u", "untrained").verify()
    found = art.arrays("latents.safetensors")
    assert found["latents"].shape == (ROWS, 4, 8, 8) and np.array_equal(found["rows"], np.arange(ROWS))
    # A student of any adapter before its first step, and the baseline of that name.
    fresh = students.make_student(load(tiny.teacher), "lora8", 3)
    with torch.no_grad():
        expected = fresh(what.initial, torch.full((ROWS,), 1000.0), what.pool.conditioning(what.ids))
    np.testing.assert_allclose(found["latents"], expected.numpy(), rtol=1e-3, atol=1e-3)
    start = students.Student(what.model.start)
    theirs = baselines.one_step(what, lambda x, t, cond: start(x, t, cond), SimpleNamespace(update=lambda n: None))  # type: ignore[arg-type]
    np.testing.assert_allclose(found["latents"], theirs, rtol=1e-4, atol=1e-4)
    assert art.counts == {"samples": ROWS, "student_forwards": ROWS} and not (tmp_path / "scratch").exists()
    # Training has moved what it samples.
    assert ((latents_of(tiny.samples) - found["latents"][:6]) ** 2).mean() > 1e-6


def test_the_verbs_do_what_modules_do(
    world: World, made: dict[str, Artifact], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tiny = world.tiny

    def run(verb: str, name: str, *flags: Any) -> int:
        common = ["--settings", tiny.evaluation.model_dump_json(), "--solver", "ddim", "--N", tiny.N, "--w", tiny.w]
        inputs = {"teacher": tiny.teacher, "latents": tiny.latents, "noise": world.noise}
        folders = [word for flag, one in inputs.items() for word in (f"--{flag}", one.folder)]
        own = ["--seed", tiny.seed, "--scratch", tmp_path / f"{name}-scratch", "--out", tmp_path / name]
        return cli.main([verb, *map(str, [*common, *folders, *own, *flags])])

    student = ["--student", tiny.direct_cm.folder]
    names = ["--sets", *(one.name for one in SETS)]
    floor = ["--floor-noise", world.floor_noise.folder, "--floor", *(shard.folder for shard in world.floor)]
    relays = ["--relays", tiny.cm.folder, tiny.direct_cm.folder]
    assert run("variants", "v", *student, *names, *floor, *relays) == 0, capsys.readouterr().err
    found = open_collection(tmp_path / "v", "samples")
    assert {name: part.fingerprint for name, part in found.items()} == {
        name: part.fingerprint for name, part in made.items()
    }
    assert run("untrained", "u") == 0
    assert open_artifact(tmp_path / "u", "untrained").counts["samples"] == ROWS
    capsys.readouterr()
    for flags, words in (
        ([*student, *names, *floor], "needs the student of cm; pass it with --relays"),
        ([*student, *names, *relays], "--floor-noise and --floor"),
        ([*student, "--sets", "step~4,sampling_steps~1"], "is a plain set"),
    ):
        assert run("variants", "w", *flags) == 2
        err = capsys.readouterr().err
        assert words in err and len([line for line in err.splitlines() if "error:" in line]) == 1
    with pytest.raises(SystemExit) as stop:
        run("variants", "w", *student, "--sets", "step~4,start~0.2")
    assert stop.value.code == 2 and "'step~4,start~0.2' is no set of samples" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()
