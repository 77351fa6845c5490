"""Features and evaluation, on digits with noise as samples and a few-step CLIP as extractor."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from directcm.config import ClipTiny, Config, Ode, Statistics
from directcm.config.specs import METRICS
from directcm.errors import UserError
from directcm.evaluation.metrics import features as features_module
from directcm.evaluation.metrics import prompt_accuracy as module
from directcm.evaluation.metrics.clip_tiny import make_extractor
from directcm.evaluation.metrics.evaluate import FLOOR, Comparison, evaluate, evaluate_collection
from directcm.evaluation.metrics.extractors import FeatureExtractor, build_extractor
from directcm.evaluation.metrics.features import features, features_collection
from directcm.evaluation.metrics.prompt_accuracy import train_classifier
from directcm.runtime import rng
from directcm.runtime.artifacts import open_artifact, open_collection
from directcm.runtime.progress import Progress
from directcm.statistics.bootstrap import mean_interval
from directcm.statistics.class_score import class_score
from directcm.statistics.frechet import frechet_distance
from directcm.statistics.kernel import cmmd, kernel_distance
from directcm.statistics.manifold import manifold

# Some are quick, all together they are not: `make quick` is for what tells most in a minute.
pytestmark = pytest.mark.slow

NAMES = ["ode_error", "fd_tiny", "kid_tiny", "clip_tiny", "quality_tiny", "prompt_accuracy"]
MORE = ["fd_inf_tiny", "cmmd_tiny", "precision_tiny", "recall_tiny", "density_tiny", "coverage_tiny"]
RUN = Config().runs()[0]


@pytest.fixture(scope="module")
def world(tmp_path_factory, digit_data, digit_noise, make_samples) -> SimpleNamespace:
    """A student of one shard, a teacher of two, their features and those of the data."""
    folder = tmp_path_factory.mktemp("world")
    tiny = ClipTiny(width=16, layers=1, patch=4, steps=20, batch_size=32, head_steps=20)
    make_extractor("clip_tiny", digit_data, tiny, 0, folder / "extractor")
    extractor = open_artifact(folder / "extractor", "extractor")
    built = build_extractor("clip_tiny", extractor, device="cpu")
    sets = {
        "student": make_samples("student", 1, 60.0, 1),
        "teacher": make_samples("teacher", 2, 10.0, 2),
        "data": None,
    }
    out: dict[str, Any] = {
        "data": digit_data,
        "noise": digit_noise,
        "folder": folder,
        "extractor": extractor,
        "built": built,
    }
    for name, samples in sets.items():
        features([built], samples, digit_data, digit_noise, 16, [folder / f"features_{name}"])
        out[f"{name}_samples"] = samples
        out[f"{name}_features"] = {"clip_tiny": open_artifact(folder / f"features_{name}", "features")}
    return SimpleNamespace(**out)


def run(world: SimpleNamespace, out, **changes: Any) -> dict[str, Any]:
    arguments = {
        "samples": world.student_samples,
        "features": world.student_features,
        "data": world.data,
        "noise": world.noise,
        "data_features": world.data_features,
        "reference": world.teacher_samples,
        "reference_features": world.teacher_features,
        "metrics": NAMES,
        "row": "CM",
        "steps": 1,
        "run": RUN,
        "statistics": Statistics(bootstrap=200, level=0.9),
        "seed": 5,
        "out": out,
    }
    given = {**arguments, **changes}
    alone = {name: given.pop(name) for name in ("samples", "features", "out", "steps", "step") if name in given}
    return evaluate(Comparison(**given), **alone)


def find(content: dict[str, Any], metric: str, reference: str) -> dict[str, Any]:
    (entry,) = [m for m in content["metrics"] if (m["metric"], m["reference"]) == (metric, reference)]
    return entry


def test_features_of_samples_are_row_by_row(world):
    folder = world.teacher_features["clip_tiny"].verify()
    assert folder.settings["fingerprint"] == world.built.fingerprint
    assert set(folder.manifest["inputs"]) == {"noise", "extractor", "samples_0", "samples_1"}
    assert [int(r["row"]) for r in folder.csv("rows.csv")] == list(range(60))
    arrays = folder.arrays("features.safetensors")
    assert {k: (v.shape, v.dtype) for k, v in arrays.items()} == {
        "image": ((60, 16), np.float32),
        "text": ((60, 16), np.float32),
        "score": ((60,), np.float32),
    }
    # Row 7 lies in the second shard, third image of it.
    from PIL import Image

    prompts = world.noise.csv("prompts.csv")
    shown = Image.open(world.teacher_samples[1].file("images/00007.png")).convert("RGB")
    alone = world.built.extract([shown], [prompts[7]["text"]])
    for key in arrays:
        np.testing.assert_allclose(arrays[key][7], alone[key][0], atol=1e-5)


def test_features_of_data_are_the_prompts_images(world, tmp_path, build):
    assert world.data_features["clip_tiny"].settings["of"] == "data"
    # More rows than training images: unique images only.
    images, labels = build.digits(8)
    data = build.data(tmp_path / "data", images[:12], [f"digit {x}" for x in labels[:12]], labels[:12], 2)
    noise = build.noise(tmp_path / "noise", data, 25)
    features([world.built], None, data, noise, 4, [tmp_path / "out"])
    found = open_artifact(tmp_path / "out", "features")
    assert [int(r["row"]) for r in found.csv("rows.csv")] == list(range(10))
    alone = world.built.extract(images[3:4], [f"digit {labels[3]}"])
    np.testing.assert_allclose(found.arrays("features.safetensors")["image"][3], alone["image"][0], atol=1e-5)


def test_nan_features_name_the_row(world, tmp_path):
    class Broken(FeatureExtractor):
        name = "clip_tiny"

        def preprocessing(self):
            return {}

        def _prepare(self, image):
            return torch.zeros(1)

        def _extract(self, images, texts):
            return {}

        def of_prepared(self, prepared, texts):
            score = np.array([np.nan if "digit 5" in text else 0.0 for text in texts], dtype=np.float32)
            return {"score": score}

    prompts = world.noise.csv("prompts.csv")
    first = next(int(p["row"]) for p in prompts if p["text"] == "digit 5")
    with pytest.raises(UserError, match=rf"score of row {first} .*{first:05d}\.png.*NaN"):
        features([Broken("cpu")], world.student_samples, world.data, world.noise, 7, [tmp_path / "out"])
    assert not (tmp_path / "out").exists()


def test_student_row(world, tmp_path):
    content = run(world, tmp_path / "m")
    art = open_artifact(tmp_path / "m", "metrics").verify()
    assert art.json("metrics.json") == content
    assert (content["row"], content["steps"], content["step"], content["run"]) == ("CM", 1, None, RUN.axes())
    assert set(content) == {"row", "steps", "step", "run", "metrics", "checks", "fingerprints"}
    pairs = [(m["metric"], m["reference"]) for m in content["metrics"]]
    assert pairs == [(n, r) for n in NAMES for r in METRICS[n].references]
    keys = {"metric", "reference", "value", "low", "high", "n", "n_reference", "dim", "flags"}
    assert all(set(m) == keys for m in content["metrics"])
    student = world.student_features["clip_tiny"].arrays("features.safetensors")
    for against, folder in (("teacher", world.teacher_features), ("data", world.data_features)):
        other = folder["clip_tiny"].arrays("features.safetensors")["image"]
        fd, kid = find(content, "fd_tiny", against), find(content, "kid_tiny", against)
        assert fd["value"] == frechet_distance(student["image"], other).value
        assert kid["value"] == kernel_distance(student["image"], other).value
        for entry in (fd, kid):
            assert (entry["low"], entry["high"], entry["n"], entry["n_reference"], entry["dim"]) == (
                None,
                None,
                60,
                60,
                16,
            )
    columns = art.csv("per_sample.csv")
    assert list(columns[0]) == ["row", "ode_error", "clip_tiny", "quality_tiny", "prompt_accuracy"]
    assert [int(c["row"]) for c in columns] == list(range(60))
    for name in ("ode_error", "clip_tiny", "quality_tiny", "prompt_accuracy"):
        values = np.array([float(c[name]) for c in columns])
        entry = find(content, name, METRICS[name].references[0])
        assert entry["value"] == pytest.approx(values.mean())
        assert (entry["low"], entry["high"]) == pytest.approx(mean_interval(values, resamples=200, level=0.9, seed=5))
    student_x = world.student_samples[0].arrays("latents.safetensors")["latents"]
    teacher_x = np.empty_like(student_x)
    for shard in world.teacher_samples:
        arrays = shard.arrays("latents.safetensors")
        teacher_x[arrays["rows"]] = arrays["latents"]
    assert find(content, "ode_error", "teacher")["value"] == pytest.approx(
        float(((student_x - teacher_x) ** 2).mean()), rel=1e-6
    )
    assert find(content, "ode_error", "teacher")["dim"] == 16
    assert find(content, "prompt_accuracy", "prompt")["value"] > 0.5
    assert content["checks"]["prompt_accuracy_held_out"] > 0.9
    assert content["fingerprints"]["features_teacher_clip_tiny"] == world.teacher_features["clip_tiny"].fingerprint


def test_teacher_row_and_determinism(world, tmp_path):
    teacher = {
        "samples": world.teacher_samples,
        "features": world.teacher_features,
        "reference": None,
        "reference_features": None,
        "row": "Teacher",
        "steps": 50,
    }
    content = run(world, tmp_path / "a", **teacher)
    assert not [m for m in content["metrics"] if m["reference"] == "teacher"]
    assert "ode_error" not in open_artifact(tmp_path / "a", "metrics").csv("per_sample.csv")[0]
    run(world, tmp_path / "b", **teacher)
    first, second = (open_artifact(tmp_path / x, "metrics") for x in "ab")
    assert first.fingerprint == second.fingerprint
    # The teacher, with less noise in its images, is nearer to the data.
    student = run(world, tmp_path / "c")
    assert find(content, "fd_tiny", "data")["value"] < find(student, "fd_tiny", "data")["value"]


def test_data_distances_use_equal_n(world, tmp_path, build, make_samples):
    images, labels = build.digits(8)
    data = build.data(tmp_path / "data", images[:42], [f"digit {x}" for x in labels[:42]], labels[:42], 2)
    noise = build.noise(tmp_path / "noise", data, 50)
    latents = np.zeros((50, 4, 2, 2))
    shown = [images[i % 40] for i in range(50)]
    samples = [build.samples(tmp_path / "s", noise, range(50), latents, shown)]
    for name, chosen in (("own", samples), ("data", None)):
        features([world.built], chosen, data, noise, 16, [tmp_path / name])
    own, real = ({"clip_tiny": open_artifact(tmp_path / n, "features")} for n in ("own", "data"))
    changes = {"samples": samples, "features": own, "data": data, "noise": noise, "data_features": real}
    content = run(
        world,
        tmp_path / "m",
        **changes,
        reference=None,
        reference_features=None,
        row="Teacher",
        metrics=["fd_tiny", "clip_tiny"],
    )
    entry = find(content, "fd_tiny", "data")
    assert (entry["n"], entry["n_reference"]) == (40, 40)
    # The first 40 samples are the data themselves.
    assert entry["value"] == pytest.approx(0, abs=1e-6)
    assert find(content, "clip_tiny", "prompt")["n"] == 50


def refuse(world, tmp_path, words, **changes):
    with pytest.raises(UserError, match=words) as error:
        run(world, tmp_path / "m", **changes)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "m").exists()


def test_refuses_features_of_another_extractor(world, tmp_path):
    other = build_extractor("clip_tiny", world.extractor, device="cpu")
    other.version = "changed"
    features([other], world.teacher_samples, world.data, world.noise, 16, [tmp_path / "f"])
    changed = {"clip_tiny": open_artifact(tmp_path / "f", "features")}
    refuse(world, tmp_path, "two different versions", reference_features=changed)
    refuse(world, tmp_path, "missing", features={})


def test_refuses_swapped_sides(world, tmp_path):
    refuse(world, tmp_path, "are not the features of", features=world.teacher_features)
    refuse(world, tmp_path, "are not the features of", reference_features=world.student_features)
    refuse(world, tmp_path, "are not the features of", data_features=world.student_features)
    refuse(world, tmp_path, "are not the features of", features=world.data_features)
    refuse(world, tmp_path, "both the set and its reference", reference=world.student_samples)


def test_refuses_missing_shards_and_other_noise(world, tmp_path, build):
    refuse(world, tmp_path, "hold 30 of 60 rows", reference=world.teacher_samples[:1])
    refuse(world, tmp_path, "in two shards", reference=[world.teacher_samples[0]] * 2)
    noise = build.noise(tmp_path / "noise", world.data, 61)
    refuse(world, tmp_path, "another noise", noise=noise)


def test_refuses_wrong_requests(world, tmp_path):
    refuse(world, tmp_path, "takes no reference", row="Teacher")
    refuse(world, tmp_path, "needs the teacher's samples", reference=None)
    refuse(world, tmp_path, "unknown metric", metrics=["fid_tiny"])


def test_evaluate_needs_no_torch():
    code = "import sys, directcm.evaluation.metrics.evaluate as e; print(json.dumps([m for m in ('torch',) if m in sys.modules]))"
    result = subprocess.run([sys.executable, "-c", "import json; " + code], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == []


def test_distances_on_features_of_the_right_sides(world, tmp_path, monkeypatch):
    from directcm.statistics import frechet

    content = run(world, tmp_path / "m", metrics=MORE, step=250)
    # 60 rows of 16 features are too few for FD∞: no entry, and nothing else is missed.
    assert [(m["metric"], m["reference"]) for m in content["metrics"]] == [
        (name, against) for name in MORE[1:] for against in ("teacher", "data")
    ]
    settings = open_artifact(tmp_path / "m", "metrics").settings
    assert content["step"] == settings["step"] == 250 and settings["metrics"] == MORE
    monkeypatch.setattr(frechet, "_ROWS_PER_FEATURE", 1)
    infinite = run(world, tmp_path / "i", metrics=["fd_inf_tiny"])
    student = world.student_features["clip_tiny"].arrays("features.safetensors")["image"]
    for against, folder in (("teacher", world.teacher_features), ("data", world.data_features)):
        other = folder["clip_tiny"].arrays("features.safetensors")["image"]
        four = manifold(student, other)
        parts = ("precision", "recall", "density", "coverage")
        expected = {f"{part}_tiny": getattr(four, part) for part in parts}
        # The reference is the real side.
        assert expected["precision_tiny"] == manifold(other, student).recall
        expected["cmmd_tiny"] = cmmd(student, other).value
        assert {name: find(content, name, against)["value"] for name in expected} == expected
        entry = find(infinite, "fd_inf_tiny", against)
        assert entry["value"] == frechet.frechet_infinite(student, other, seed=5).value
        for one in (entry, *(find(content, name, against) for name in expected)):
            assert (one["n"], one["n_reference"], one["dim"], one["low"], one["high"], one["flags"]) == (
                60,
                60,
                16,
                None,
                None,
                [],
            )


def test_the_four_are_computed_once_a_side(world, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("directcm.statistics.manifold.manifold", lambda a, b: calls.append(1) or manifold(a, b))
    run(world, tmp_path / "m", metrics=MORE)
    assert len(calls) == 2


@pytest.fixture(scope="module")
def floor(world, tmp_path_factory, build, make_samples) -> dict[str, Any]:
    """What `evaluate` takes for the teacher's samples of a second noise."""
    folder = tmp_path_factory.mktemp("floor")
    noise = build.noise(folder / "noise", world.data, 60, seed=9)
    samples = make_samples("again", 3, 10.0, 2, noise)
    features([world.built], samples, world.data, noise, 16, [folder / "features"])
    return {
        "samples": samples,
        "features": {"clip_tiny": open_artifact(folder / "features", "features")},
        "noise": noise,
        "reference_noise": world.noise,
        "row": FLOOR,
        "steps": 50,
        "run": Ode(),
    }


def test_floor(world, floor, tmp_path):
    content = run(world, tmp_path / "m", **floor, metrics=NAMES + MORE)
    pairs = [(m["metric"], m["reference"]) for m in content["metrics"]]
    # All but the ODE error (and FD∞, for which there are too few rows).
    assert pairs == [(n, r) for n in NAMES[1:] + MORE[1:] for r in METRICS[n].references]
    assert FLOOR == content["row"] == "Teacher, other noise"
    own = floor["features"]["clip_tiny"].arrays("features.safetensors")["image"]
    for against, folder in (("teacher", world.teacher_features), ("data", world.data_features)):
        other = folder["clip_tiny"].arrays("features.safetensors")["image"]
        assert find(content, "fd_tiny", against)["value"] == frechet_distance(own, other).value
    # Two draws of one distribution are nearer to each other than the student, with more noise in its images, is.
    student = run(world, tmp_path / "s")
    assert find(content, "fd_tiny", "teacher")["value"] < find(student, "fd_tiny", "teacher")["value"]
    inputs = open_artifact(tmp_path / "m", "metrics").manifest["inputs"]
    assert (inputs["noise"], inputs["reference_noise"]) == (floor["noise"].fingerprint, world.noise.fingerprint)
    assert content["fingerprints"]["reference_noise"] == world.noise.fingerprint
    assert "ode_error" not in open_artifact(tmp_path / "m", "metrics").csv("per_sample.csv")[0]


def test_floor_refuses_swapped_noises(world, floor, tmp_path, build):
    def refused(words, **changes):
        refuse(world, tmp_path, words, **{**floor, **changes})

    refused("another noise", noise=world.noise, reference_noise=floor["noise"])
    refused("is both the noise and the reference's", noise=world.noise)
    refused("needed there", reference_noise=None)
    refused("needed there", row="CM")
    refused("needed there", row="Teacher", reference=None)
    refused("needs the teacher's samples", reference=None)
    refused("another noise", samples=world.teacher_samples)
    refused("another noise", reference=floor["samples"], reference_features=floor["features"])
    refused("are not the features of", reference_features=floor["features"])
    refused("are not the features of", features=world.teacher_features)
    # The same images must stand behind the rows of both.
    other = build.noise(tmp_path / "other", world.data, 60, seed=9, first=1)
    refused("same prompts", noise=other)
    shorter = build.noise(tmp_path / "shorter", world.data, 59, seed=9)
    refused("same prompts", noise=shorter)
    # Data features of the second noise would be another reference than the students'.
    features([world.built], None, world.data, floor["noise"], 16, [tmp_path / "d"])
    refused("under", data_features={"clip_tiny": open_artifact(tmp_path / "d", "features")})


def test_floor_is_of_one_teacher(world, floor, tmp_path, make_samples):
    other = make_samples("other_ode", 3, 10.0, 1, floor["noise"], ode={"solver": "euler", "N": 50, "w": 3.0})
    features([world.built], other, world.data, floor["noise"], 16, [tmp_path / "f"])
    mine = {"clip_tiny": open_artifact(tmp_path / "f", "features")}
    refuse(world, tmp_path, "the teacher and the ODE", **{**floor, "samples": other, "features": mine})


class Lite(FeatureExtractor):
    """EfficientNet-lite0's arrays in size and name, linear in the pixels: what is told apart here is sides, not images."""

    name = "efficientnet_lite0"

    def preprocessing(self):
        return {}

    def _prepare(self, image):
        return torch.from_numpy(np.array(image.resize((8, 8)), np.float32).ravel() / 255)

    def _extract(self, images, texts):
        weights = torch.from_numpy(rng.generator(0, "lite", 2280).standard_normal((192, 2280)).astype(np.float32))
        found = images @ weights
        return {"image": found[:, :1280], "logits": found[:, 1280:] / 4}


@pytest.fixture(scope="module")
def lite(world, floor, tmp_path_factory) -> dict[str, Any]:
    """Features of a stand-in for EfficientNet-lite0 and of pixels, of student, teacher, floor and data."""
    folder = tmp_path_factory.mktemp("lite")
    whose = {
        "student": (world.student_samples, world.noise), "teacher": (world.teacher_samples, world.noise),
        "floor": (floor["samples"], floor["noise"]), "data": (None, world.noise),
    }  # fmt: skip
    found: dict[str, Any] = {name: {} for name in whose}
    for extractor, built in (("efficientnet_lite0", Lite("cpu")), ("pixels16", build_extractor("pixels16"))):
        for name, (samples, noise) in whose.items():
            features([built], samples, world.data, noise, 30, [folder / extractor / name])
            found[name][extractor] = open_artifact(folder / extractor / name, "features")
    assert found["student"]["efficientnet_lite0"].manifest["inputs"].keys() == {"noise", "samples_0"}
    for name in found:
        tiny = {
            "student": world.student_features,
            "teacher": world.teacher_features,
            "floor": floor["features"],
            "data": world.data_features,
        }
        found[name] |= tiny[name]
    return found


LITE = [
    "fd_lite0",
    "kid_lite0",
    "mmd_lite0",
    "precision_lite0",
    "recall_lite0",
    "is_lite0",
    "fd_pixels16",
    "kid_pixels16",
]


def other(world, floor, lite) -> dict[str, Any]:
    """What `evaluate` takes for distances to the teacher's samples of another noise."""
    return {
        "features": lite["student"], "data_features": lite["data"], "reference_features": lite["teacher"],
        "other": floor["samples"], "other_features": lite["floor"], "other_noise": floor["noise"],
        "metrics": [*LITE, "fd_other_tiny"],
    }  # fmt: skip


def test_spaces_that_no_run_trained_and_another_noise(world, floor, lite, tmp_path):
    given = other(world, floor, lite)
    content = run(world, tmp_path / "m", **given)
    pairs = [(m["metric"], m["reference"]) for m in content["metrics"]]
    assert pairs == [(n, r) for n in given["metrics"] for r in METRICS[n].references]

    def image(who: str, extractor: str) -> np.ndarray:
        return lite[who][extractor].arrays("features.safetensors")["image"]

    sides = {"teacher": "teacher", "other_noise": "floor", "data": "data"}
    for extractor, name in (("efficientnet_lite0", "lite0"), ("pixels16", "pixels16")):
        mine = image("student", extractor)
        for against, who in sides.items():
            theirs = image(who, extractor)
            entry = find(content, f"fd_{name}", against)
            assert entry["value"] == frechet_distance(mine, theirs).value
            assert (entry["n"], entry["n_reference"], entry["dim"]) == (60, 60, mine.shape[1])
            # 60 samples have a covariance of rank 59 at most.
            assert entry["flags"] == ["rank_deficient"]
            assert find(content, f"kid_{name}", against)["value"] == kernel_distance(mine, theirs).value
    mine = image("student", "efficientnet_lite0")
    assert find(content, "mmd_lite0", "other_noise")["value"] == cmmd(mine, image("floor", "efficientnet_lite0")).value
    balls = manifold(mine, image("teacher", "efficientnet_lite0"))
    for part in ("precision", "recall"):
        assert find(content, f"{part}_lite0", "teacher")["value"] == getattr(balls, part)
    tiny = frechet_distance(image("student", "clip_tiny"), image("floor", "clip_tiny")).value
    assert find(content, "fd_other_tiny", "other_noise")["value"] == tiny
    # Of ten splits of six samples.
    score = class_score(lite["student"]["efficientnet_lite0"].arrays("features.safetensors")["logits"])
    entry = find(content, "is_lite0", "none")
    assert entry["value"] == score.value and 1 < score.value < 6
    assert (entry["n"], entry["n_reference"], entry["dim"], entry["low"]) == (60, None, None, None)
    assert content["checks"] == {"is_lite0_sd_over_splits": score.sd}
    inputs = open_artifact(tmp_path / "m", "metrics").manifest["inputs"]
    assert inputs["other_noise"] == floor["noise"].fingerprint and {"other_0", "other_1"} <= set(inputs)
    assert content["fingerprints"]["features_other_noise_pixels16"] == lite["floor"]["pixels16"].fingerprint


def test_teacher_and_floor_are_equally_far_apart_both_ways(world, floor, lite, tmp_path):
    teachers = {"samples": world.teacher_samples, "features": lite["teacher"], "row": "Teacher", "reference": None}
    teachers |= {"reference_features": None, "steps": 50, "run": Ode()}
    teacher = run(world, tmp_path / "t", **{**other(world, floor, lite), **teachers})
    own = {**floor, "features": lite["floor"], "data_features": lite["data"], "reference_features": lite["teacher"]}
    under = run(world, tmp_path / "f", **own, metrics=["fd_lite0", "kid_lite0", "fd_other_tiny"])
    assert [(m["metric"], m["reference"]) for m in under["metrics"]] == [
        (n, r) for n in ("fd_lite0", "kid_lite0", "fd_other_tiny") for r in METRICS[n].references
    ]
    for name in ("fd_lite0", "kid_lite0", "fd_other_tiny"):
        value = find(under, name, "other_noise")["value"]
        assert find(teacher, name, "other_noise")["value"] == pytest.approx(value, rel=1e-9)
        if name != "fd_other_tiny":
            assert find(under, name, "teacher")["value"] == value
    assert not [m for m in teacher["metrics"] if m["reference"] == "teacher"]


def test_another_noise_refuses_what_does_not_belong(world, floor, lite, tmp_path, build, make_samples):
    given = other(world, floor, lite)

    def refused(words, **changes):
        refuse(world, tmp_path, words, **{**given, **changes})

    refused("samples of another noise, none were given", other=(), other_noise=None)
    refused("come with that noise", other_noise=None)
    refused("is both the noise and the other one", other=world.teacher_samples, other_noise=world.noise)
    refused("are missing", other_features={})
    refused("are not the features of", other_features=lite["teacher"])
    refused("same prompts", other_noise=build.noise(tmp_path / "n", world.data, 60, seed=9, first=1))
    refused("come with that noise", **{**floor, "features": lite["floor"]})
    another = make_samples("another_ode", 3, 10.0, 1, floor["noise"], ode={"solver": "euler", "N": 50, "w": 3.0})
    refused("a distance to another noise is to the same teacher", other=another)


def test_what_too_few_samples_do_not_allow_has_no_entry(world, tmp_path, build, make_samples):
    images, labels = build.digits(8)
    data = build.data(tmp_path / "data", images[:6], [f"digit {x}" for x in labels[:6]], labels[:6], 1)
    noise = build.noise(tmp_path / "noise", data, 60)
    samples = [build.samples(tmp_path / "samples", noise, range(60), np.zeros((60, 4, 2, 2)), images[:60])]
    built = Lite("cpu")
    mine, theirs = {}, {}
    for side, of, found in (("mine", samples, mine), ("theirs", None, theirs)):
        features([built], of, data, noise, 30, [tmp_path / side])
        found["efficientnet_lite0"] = open_artifact(tmp_path / side, "features")
    changes = {"samples": samples, "features": mine, "data": data, "noise": noise, "data_features": theirs}
    changes |= {"row": "Teacher", "reference": None, "reference_features": None, "run": Ode(), "steps": 50}
    # Five of the data's images are trained on: none has a fifth neighbour.
    content = run(world, tmp_path / "m", **changes, metrics=["precision_lite0", "is_lite0"])
    assert [m["metric"] for m in content["metrics"]] == ["is_lite0"]


SETS = ("step~125,sampling_steps~1", "step~250,sampling_steps~1", "step~250,sampling_steps~4")


@pytest.fixture(scope="module")
def collection(world, tmp_path_factory, make_samples) -> SimpleNamespace:
    """A run's three sets and their features, in collections."""
    folder = tmp_path_factory.mktemp("collection")
    samples = {}
    for i, name in enumerate(SETS):
        step, steps = (int(part.split("~")[1]) for part in name.split(","))
        samples[name] = make_samples(name, 20 + i, 40.0 + 10 * i, 1, step=step, steps=steps)[0]
    seen: list[tuple[int, int]] = []

    class Seen(Progress):
        def update(self, count: int = 1, note: str = "") -> None:
            super().update(count, note)
            seen.append((self.done, self.total))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features_module, "Progress", Seen)
        features_collection([world.built], samples, world.data, world.noise, 16, [folder / "features"])
    assert seen[0] == (16, 180) and seen[-1] == (180, 180) and seen == sorted(seen)
    return SimpleNamespace(samples=samples, folder=folder / "features")


def collect(world, collection, out, **changes):
    arguments = {
        "samples": collection.samples,
        "features": {"clip_tiny": open_collection(collection.folder, "features")},
        "data": world.data,
        "noise": world.noise,
        "data_features": world.data_features,
        "reference": world.teacher_samples,
        "reference_features": world.teacher_features,
        "metrics": NAMES + MORE,
        "row": "CM",
        "run": RUN,
        "statistics": Statistics(bootstrap=200, level=0.9),
        "seed": 5,
        "out": out,
    }
    given = {**arguments, **changes}
    alone = {name: given.pop(name) for name in ("samples", "features", "out")}
    return evaluate_collection(Comparison(**given), **alone)


def test_features_of_a_collection_are_those_of_its_sets(world, collection, tmp_path):
    parts = open_collection(collection.folder, "features")
    assert tuple(parts) == SETS
    for name, part in parts.items():
        features([world.built], [collection.samples[name]], world.data, world.noise, 16, [tmp_path / name])
        alone = open_artifact(tmp_path / name, "features")
        assert alone.manifest == part.verify().manifest
    manifest = open_artifact(collection.folder, "collection").manifest
    assert manifest["settings"]["extractor"] == "clip_tiny"
    assert manifest["inputs"]["extractor"] == world.extractor.fingerprint
    with pytest.raises(UserError, match="empty"):
        features_collection([world.built], {}, world.data, world.noise, 16, [tmp_path / "none"])


def test_features_of_a_collection_leave_nothing_old(world, collection, tmp_path):
    arguments = (world.data, world.noise, 16, [tmp_path / "f"])
    features_collection([world.built], collection.samples, *arguments)
    fewer = {name: collection.samples[name] for name in SETS[1:]}
    features_collection([world.built], fewer, *arguments)
    assert tuple(open_collection(tmp_path / "f", "features")) == SETS[1:]
    assert sorted(p.name for p in (tmp_path / "f").iterdir() if p.is_dir()) == list(SETS[1:])
    again = open_collection(tmp_path / "f", "features")[SETS[1]]
    assert again.fingerprint == open_collection(collection.folder, "features")[SETS[1]].fingerprint


def test_evaluation_of_a_collection_is_that_of_its_sets(world, collection, tmp_path, monkeypatch):
    trained = []
    module.classifier_of.cache_clear()
    monkeypatch.setattr(module, "train_classifier", lambda data: trained.append(1) or train_classifier(data))
    contents = collect(world, collection, tmp_path / "c")
    assert len(trained) == 1 and tuple(contents) == SETS
    parts = open_collection(tmp_path / "c", "metrics")
    assert tuple(parts) == SETS
    assert [(c["step"], c["steps"]) for c in contents.values()] == [(125, 1), (250, 1), (250, 4)]
    whole = open_artifact(tmp_path / "c", "collection")
    assert whole.settings["row"] == "CM" and whole.settings["run"] == RUN.axes() and whole.settings["seed"] == 5
    features_parts = open_collection(collection.folder, "features")
    for name, part in parts.items():
        run(
            world,
            tmp_path / "one",
            samples=[collection.samples[name]],
            features={"clip_tiny": features_parts[name]},
            metrics=NAMES + MORE,
            steps=contents[name]["steps"],
            step=contents[name]["step"],
        )
        alone = open_artifact(tmp_path / "one", "metrics")
        assert part.verify().manifest == alone.manifest
        assert part.json("metrics.json") == contents[name]
        assert part.settings["step"] == contents[name]["step"]


def test_a_collection_refuses_what_does_not_belong_together(world, collection, tmp_path, make_samples):
    parts = open_collection(collection.folder, "features")

    def refused(words, **changes):
        with pytest.raises(UserError, match=words) as error:
            collect(world, collection, tmp_path / "m", **changes)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "m" / "manifest.json").exists()

    swapped = dict(zip(SETS, (parts[SETS[1]], parts[SETS[0]], parts[SETS[2]]), strict=True))
    refused("are not the features of", features={"clip_tiny": swapped})
    refused("sampling_steps~4 is not in both", features={"clip_tiny": {n: parts[n] for n in SETS[:2]}})
    refused("is not in both", samples={n: collection.samples[n] for n in SETS[:2]})
    refused("missing", features={})
    refused("empty", samples={})
    refused("needs the teacher's samples", reference=[])
    refused("needed there", row=FLOOR)
    unnamed = make_samples("unnamed", 30, 40.0)[0]
    features([world.built], [unnamed], world.data, world.noise, 16, [tmp_path / "f"])
    of_it = {"clip_tiny": {"x": open_artifact(tmp_path / "f", "features")}}
    refused("has no setting 'steps'", samples={"x": unnamed}, features=of_it)
    # A set that was made anew after its features.
    other = {**collection.samples, SETS[0]: make_samples("anew", 40, 40.0, 1, step=125, steps=1)[0]}
    refused("made anew", samples=other)


def test_the_table_of_metrics():
    headline = [name for name, metric in METRICS.items() if metric.headline]
    assert headline == [*NAMES, "fid", "kid", "fd_dino", "clip_score", "aesthetic"]
    for name, metric in METRICS.items():
        assert (metric.extractor == "clip_tiny") == bool(metric.stand_in_for), name
        if metric.stand_in_for:
            real = METRICS[metric.stand_in_for]
            assert (real.better, real.per_sample) == (metric.better, metric.per_sample)
            assert real.references == metric.references or metric.references == ("other_noise",)
            assert not metric.same_scale_as_paper and real.extractor != "clip_tiny"
            # A stand-in never bears the real one's name or title.
            assert metric.title != real.title and "tiny" in metric.title and "tiny" in name
    assert METRICS["fd_tiny"].stand_in_for == "fid" and METRICS["precision_tiny"].stand_in_for == "precision_dino"
    titles = [metric.title for metric in METRICS.values()]
    assert len(set(titles)) == len(titles)
    assert METRICS["coverage_tiny"].title == "coverage-tiny" and METRICS["density_dino"].title == "density (DINOv2)"
