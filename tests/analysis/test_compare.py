"""The verb compare: signs, pairing, which test a metric gets, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from directcm.analysis.data.compare import DISTANCES, compare
from directcm.analysis.data.tidy import COMPARISON_COLUMNS
from directcm.config import SETTING_AXES, Setting, Statistics
from directcm.config.registry import FIRST
from directcm.config.specs import BASELINES, METHODS, METRICS
from directcm.errors import UserError
from directcm.evaluation.metrics import function
from directcm.runtime.artifacts import (
    Artifact,
    new_artifact,
    new_collection,
    open_artifact,
    read_csv,
    write_csv,
    write_json,
)
from directcm.runtime.rng import generator
from directcm.statistics.frechet import frechet_distance
from directcm.statistics.inference import (
    crossed,
    frechet_difference_test,
    halves_p,
    kernel_difference_test,
    paired_bootstrap,
)
from directcm.statistics.kernel import cmmd, kernel_distance
from directcm.statistics.manifold import manifold
from directcm.statistics.neighbours import manifold_difference_halves

# Some are quick, all together they are not: `make quick` is for what tells most in a minute.
pytestmark = pytest.mark.slow

SETTING = {
    "solver": "ddim", "N": 50, "w": 3.0, "adapter": "lora64", "loss": "mse", "lr": 1e-4, "batch_size": 16, "pool": 4000, "steps": 250,
}  # fmt: skip
N, DIM, N_DATA = 24, 3, 20
STATISTICS = Statistics(bootstrap=200, permutations=99)
FD = {"fd_tiny": frechet_distance, "kid_tiny": kernel_distance, "cmmd_tiny": cmmd}
Edit = Callable[[dict[str, Any]], None]


class World:
    """The collections of one setting on disk, with values that come from the features as in a real run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        g = generator(0, "world")
        self.prompt = g.standard_normal((N, DIM))
        self.teacher = self.features("teacher", self.prompt + 0.1 * g.standard_normal((N, DIM)))
        self.data = self.features(
            "data", 1.5 + self.prompt[:N_DATA] + 0.3 * g.standard_normal((N_DATA, DIM)), of="data"
        )
        self.metrics: list[Path] = []
        self.collections: list[Path] = []

    def features(
        self, name: str, image: np.ndarray, of: str = "samples", rows: list[int] | None = None, version: str = "v"
    ) -> Artifact:
        settings = {"extractor": "clip_tiny", "fingerprint": version, "of": of}
        with new_artifact(self.root / "features" / name, "features", settings=settings) as out:
            (out / "features.safetensors").write_bytes(save({"image": image.astype(np.float32)}))
            lines = range(len(image)) if rows is None else rows
            write_csv(out / "rows.csv", [{"row": row} for row in lines], ["row"])
        return open_artifact(self.root / "features" / name, "features")

    def image(self, method: str, seed: int, step: int, sampling: int) -> np.ndarray:
        """CM nearer to the teacher, Direct CM nearer to the data; both nearer to the teacher when finished."""
        g = generator(seed, method, step, sampling)
        offset = (0.5 if method == "cm" else 1.1) + (0.8 if step < 250 else 0.0)
        return self.prompt + offset + 0.05 * seed + 0.2 * g.standard_normal((N, DIM))

    def ode_error(self, method: str, seed: int, step: int, sampling: int, loss: str = "mse") -> np.ndarray:
        g = generator(seed, f"ode {method}", step, sampling)
        hard = 0.3 * np.abs(self.prompt[:, 0])
        level = (0.3 if method == "cm" else 0.2) + (0.4 if step < 250 else 0.0) + (0.0 if loss == "mse" else 0.1)
        return level + hard + 0.02 * seed + 0.02 * g.standard_normal(N)

    def add(
        self,
        method: str,
        seed: int,
        sets: tuple[tuple[int, int], ...] = ((250, 1), (62, 1)),
        *,
        setting: dict[str, Any] | None = None,
        edit: Edit | None = None,
        per_sample: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda rows: rows,
        own: Callable[..., Artifact] | None = None,
        noise: str = "n" * 64,
        name: str | None = None,
        teacher: str | None = None,
    ) -> None:
        run = {"method": method, **(SETTING if setting is None else setting), "seed": seed}
        key = name or f"{method}{seed}"
        for step, sampling in sets:
            part = f"step~{step},sampling_steps~{sampling}"
            image = self.image(method, seed, step, sampling).astype(np.float32)
            folder = f"students/{key}/{part}"
            features = self.features(folder, image) if own is None else own(folder, image)
            error = self.ode_error(method, seed, step, sampling, run["loss"])
            items = [self.item("ode_error", "teacher", error.mean(), N)]
            for against, reference in (("teacher", self.teacher), ("data", self.data)):
                other = reference.arrays("features.safetensors")["image"]
                m = min(N, len(other))
                items += [self.item(k, against, f(image[:m], other[:m]).value, m, DIM) for k, f in FD.items()]
                items.append(self.item("precision_tiny", against, manifold(image[:m], other[:m]).precision, m, DIM))
            content = {
                "row": METHODS[method], "step": step, "steps": sampling, "run": run, "metrics": items,
                "fingerprints": {
                    "noise": noise, "features_samples_clip_tiny": features.fingerprint,
                    "features_teacher_clip_tiny": teacher or self.teacher.fingerprint, "features_data_clip_tiny": self.data.fingerprint,
                },
            }  # fmt: skip
            if edit is not None:
                edit(content)
            with new_artifact(self.root / "metrics" / key / part, "metrics", settings={}) as out:
                write_json(out / "metrics.json", content)
                lines = per_sample([{"row": i, "ode_error": float(v)} for i, v in enumerate(error)])
                write_csv(out / "per_sample.csv", lines, ["row", "ode_error"])
        parts = [f"step~{step},sampling_steps~{sampling}" for step, sampling in sets]
        new_collection(self.root / "metrics" / key, "metrics", parts, settings={})
        new_collection(self.root / "features/students" / key, "features", parts, settings={})
        self.metrics.append(self.root / "metrics" / key / "manifest.json")
        self.collections.append(self.root / "features/students" / key / "manifest.json")

    @staticmethod
    def item(metric: str, reference: str, value: float, n: int, dim: int | None = None) -> dict[str, Any]:
        return {
            "metric": metric, "reference": reference, "value": float(value), "low": None, "high": None, "n": n,
            "n_reference": n, "dim": dim, "flags": [],
        }  # fmt: skip

    def compare(self, **changes: Any) -> list[dict[str, Any]]:
        arguments: dict[str, Any] = {
            "setting": SETTING, "metrics": self.metrics, "features": {"clip_tiny": self.collections},
            "teacher": {"clip_tiny": self.teacher.folder / "manifest.json"}, "data": {"clip_tiny": self.data.folder},
            "statistics": STATISTICS, "seed": 24, "out_csv": self.root / "comparisons.csv",
        }  # fmt: skip
        arguments |= changes
        return compare(Setting.of(arguments.pop("setting"), "compare: the setting"), **arguments)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two methods, three seeds, one snapshot; Direct CM has a fourth seed and another number of sampling steps."""
    world = World(tmp_path_factory.mktemp("whole"))
    for seed in (0, 1, 2):
        for method in FIRST:
            world.add(method, seed, ((250, 1), (62, 1), *(((250, 4),) if method == "direct_cm" else ())))
    world.add("direct_cm", 7)
    world.rows = world.compare()  # type: ignore[attr-defined]
    return world


def one(
    rows: list[dict[str, Any]], metric: str, reference: str = "teacher", what: str = "method", **more: Any
) -> dict[str, Any]:
    wanted = {"metric": metric, "reference": reference, "what": what, **more}
    (row,) = [r for r in rows if all(r[k] == v for k, v in wanted.items())]
    return row


# ----------------------------------------------------------------- what comes out


def test_sets_that_are_compared(whole):
    rows = whole.rows
    sets = {(r["what"], r["a"], r["b"], r["a_step"], r["b_step"], r["sampling_steps"], r["n_seeds"]) for r in rows}
    assert sets == {
        ("method", "CM", "Direct CM", 250, 250, 1, 3),
        ("method", "CM", "Direct CM", 62, 62, 1, 3),
        ("along", "CM", "CM", 250, 62, 1, 3),
        # A seed that CM lacks is left out where the methods are compared, and stays where Direct CM is alone.
        ("along", "Direct CM", "Direct CM", 250, 62, 1, 4),
    }
    assert len(rows) == 4 * 9
    written = read_csv(whole.root / "comparisons.csv")
    assert list(written[0]) == COMPARISON_COLUMNS
    assert len(written) == len(rows)
    assert {tuple(r[a] for a in SETTING_AXES) for r in rows} == {
        ("ddim", "50", "3", "lora64", "mse", "0.0001", "16", "4000", "250")
    }


def test_differences_are_first_minus_second(whole):
    rows = whole.rows
    ode = one(rows, "ode_error", a_step=250)
    assert ode["difference"] == pytest.approx(0.1, abs=0.02)
    assert ode["difference"] == pytest.approx(ode["mean_a"] - ode["mean_b"])
    assert ode["low"] > 0
    to_teacher, to_data = (one(rows, "fd_tiny", r, a_step=250) for r in ("teacher", "data"))
    # CM is nearer to the teacher, and farther from the data: swapped references would swap the signs.
    assert to_teacher["difference"] < 0 < to_data["difference"]
    assert (to_teacher["seeds_agree"], to_data["seeds_agree"]) == (3, 3)
    assert (to_teacher["n"], to_data["n"], to_teacher["dim"]) == (N, N_DATA, DIM)
    # Later minus earlier: training has brought both nearer.
    for row in map(METHODS.get, FIRST):
        assert one(rows, "ode_error", what="along", a=row)["difference"] == pytest.approx(-0.4, abs=0.03)
        fd = one(rows, "fd_tiny", what="along", a=row)
        # Refined, as every test of a distance is: of 99 permutations p would be no less than 0.01.
        assert fd["high"] < 0 and fd["p_prompts"] < 1 / (STATISTICS.permutations + 1)


def test_numbers_are_those_of_inference(whole):
    rows, seeds = whole.rows, (0, 1, 2)
    x, y = (
        np.array([whole.image(m, s, 250, 1) for s in seeds]).astype(np.float32).astype(float)
        for m in ("cm", "direct_cm")
    )
    for metric, of in DISTANCES.items():
        if metric not in FD:
            continue
        for reference in ("teacher", "data"):
            against = getattr(whole, reference).arrays("features.safetensors")["image"]
            n = min(N, len(against))
            args = (x[:, :n], y[:, :n], against[:n])
            test = (
                frechet_difference_test(*args, 99, 24) if of == "frechet" else kernel_difference_test(*args, of, 99, 24)
            )
            expected = crossed(test.per_seed, test.shared, n, 0.95)
            row = one(rows, metric, reference, a_step=250)
            assert row["test"] == "permutation"
            assert (row["p_prompts"], row["p"], row["low"], row["df"]) == pytest.approx(
                (test.p, expected.p, expected.low, expected.df), rel=1e-5
            )
            assert row["se_prompts"] == pytest.approx(math.sqrt(test.shared), rel=1e-5)
    a, b = (np.array([whole.ode_error(m, s, 250, 1) for s in seeds]) for m in ("cm", "direct_cm"))
    boot = paired_bootstrap(a, b, 200, 24)
    row = one(rows, "ode_error", a_step=250)
    assert (row["test"], row["p_prompts"]) == ("bootstrap", pytest.approx(boot.p))
    assert row["se_prompts"] == pytest.approx(math.sqrt(boot.shared))
    # Prompts that are hard for both cancel: unpaired, the standard error would be several times larger.
    assert row["se_prompts"] < math.sqrt((a.mean(0).var(ddof=1) + b.mean(0).var(ddof=1)) / N) / 3


def test_shares_of_sets_have_a_variance_over_prompts(whole):
    """Precision: both p-values and the interval from halves of the prompts, rows of both methods and the reference together."""
    row = one(whole.rows, "precision_tiny", a_step=250)
    x, y = (
        np.array([whole.image(m, s, 250, 1) for s in (0, 1, 2)]).astype(np.float32).astype(float)
        for m in ("cm", "direct_cm")
    )
    against = whole.teacher.arrays("features.safetensors")["image"]
    spread = manifold_difference_halves(x, y, against, 24)["precision"].count
    assert row["test"] == "halves"
    assert row["se_prompts"] == pytest.approx(math.sqrt(spread.shared), rel=1e-6)
    per_seed = [manifold(a, against).precision - manifold(b, against).precision for a, b in zip(x, y, strict=True)]
    assert spread.whole > 0 and any(per_seed)
    expected = crossed(np.array(per_seed), spread.shared, N, 0.95)
    assert (row["difference"], row["low"], row["p"]) == pytest.approx((expected.difference, expected.low, expected.p))
    assert row["p_prompts"] == halves_p(row["difference"], spread.whole, N, 100)


def test_shares_of_few_images_have_no_test(whole):
    """A half of ten prompts has no five neighbours: nothing says how precision varies over prompts, and seeds alone are no test."""
    made = manifold_difference_halves(*np.zeros((2, 3, 10, 2)), np.zeros((10, 2)), 0)
    assert made is None
    alone = crossed(np.array([0.1, 0.2, 0.3]), None, 10, 0.95)
    assert (alone.p, alone.low, alone.high) == (None, None, None)


def test_one_seed(world):
    for method in FIRST:
        world.add(method, 0)
    rows = world.compare()
    ode, precision = one(rows, "ode_error", a_step=250), one(rows, "precision_tiny", a_step=250)
    assert (ode["n_seeds"], ode["se_seeds"], ode["df"]) == (1, None, N - 1)
    assert ode["p"] is not None
    # Both are about prompts then, by Student's t with n − 1 = 23 degrees of freedom.
    assert precision["se_seeds"] is None and precision["p"] == pytest.approx(precision["p_prompts"])


def test_order_of_inputs_changes_no_byte(whole, tmp_path):
    again = tmp_path / "again.csv"
    whole.compare(
        metrics=whole.metrics[::-1], features={"clip_tiny": whole.collections[::-1]}, out_csv=again,
        setting={k: str(v) for k, v in SETTING.items()},
    )  # fmt: skip
    assert again.read_bytes() == (whole.root / "comparisons.csv").read_bytes()


def test_one_method_alone(world):
    world.add("cm", 0, ((250, 1),))
    assert world.compare() == []
    assert (world.root / "comparisons.csv").read_text() == ",".join(COMPARISON_COLUMNS) + "\n"


def test_methods_without_a_common_seed_are_not_compared(world):
    world.add("cm", 0)
    world.add("direct_cm", 1)
    assert {r["what"] for r in world.compare()} == {"along"}


def test_a_value_that_is_not_defined_has_no_row(world):
    def edit(content):
        content["metrics"][1]["value"] = None

    for method in FIRST:
        world.add(method, 0, ((250, 1),), edit=edit)
    rows = world.compare()
    assert not [r for r in rows if (r["metric"], r["reference"]) == ("fd_tiny", "teacher")]
    assert len(rows) == 8


def test_progress(world):
    for method in FIRST:
        world.add(method, 0, ((250, 1),))
    seen: list[tuple[int, int]] = []
    world.compare(progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 9) for i in range(1, 10)]


def test_every_distance_has_its_test():
    """The kernels and FDs of evaluate, and no others, are tested over prompts; but for two FDs of sizes at which it takes hours."""
    distances = {m.name for m in METRICS.values() if m.part == "value" and m.takes == ("image", "reference.image")}
    assert set(DISTANCES) == distances - {"fd_lite0", "fd_pixels16"}
    for name, of in DISTANCES.items():
        assert function(name) is {"frechet": frechet_distance, "kid": kernel_distance, "cmmd": cmmd}[of]
    assert not any(METRICS[name].per_sample for name in DISTANCES)


# ----------------------------------------------------------------- what is refused


def refused(world: World, match: str, one_line: Any, **changes: Any) -> None:
    with pytest.raises(UserError, match=match) as error:
        world.compare(**changes)
    one_line(error)
    assert not (world.root / "comparisons.csv").exists()


def test_teacher_and_data_swapped(world, one_line):
    for method in FIRST:
        world.add(method, 0, ((250, 1),))
    refused(world, "swapped", one_line, teacher={"clip_tiny": world.data.folder})
    refused(world, "swapped", one_line, data={"clip_tiny": world.teacher.folder})
    # Another teacher's samples: an ODE with another N, say.
    other = world.features("other", world.prompt + 3)
    refused(world, "other teacher features", one_line, teacher={"clip_tiny": other.folder})
    refused(world, "are missing", one_line, teacher={})


def test_features_of_other_samples(world, one_line):
    world.add("cm", 0, ((250, 1),))
    world.add("direct_cm", 0, ((250, 1),))
    refused(world, "not among those given", one_line, features={"clip_tiny": world.collections[:1]})
    refused(world, "not among those given", one_line, features={})
    refused(world, "expected fd_dino", one_line, features={"fd_dino": world.collections})


def test_other_noise(world, one_line):
    world.add("cm", 0, ((250, 1),))
    world.add("direct_cm", 0, ((250, 1),), noise="m" * 64)
    refused(world, "other noise", one_line)


def test_distances_to_the_teachers_samples_of_another_noise(world, one_line):
    """The test is that of the same distance to any other reference, whose features are found by their fingerprint."""
    floor = world.features("floor", world.prompt + 0.1 * generator(9, "floor").standard_normal((N, DIM)))
    reference = floor.arrays("features.safetensors")["image"]
    images: dict[str, list[np.ndarray]] = {"cm": [], "direct_cm": []}
    for method in images:
        for seed in (0, 1):
            image = world.image(method, seed, 250, 1).astype(np.float32)
            images[method].append(image)

            def edit(content, image=image):
                value = frechet_distance(image, reference).value
                content["metrics"] = [world.item("fd_other_tiny", "other_noise", value, N, DIM)]
                content["fingerprints"]["features_other_noise_clip_tiny"] = floor.fingerprint

            world.add(method, seed, ((250, 1),), edit=edit)
    (row,) = world.compare(other_noise={"clip_tiny": floor.folder})
    a, b = (np.stack(images[method]) for method in images)
    expected = frechet_difference_test(a, b, reference, STATISTICS.permutations, 24)
    assert (row["metric"], row["reference"], row["test"]) == ("fd_other_tiny", "other_noise", "permutation")
    assert row["difference"] == pytest.approx(expected.per_seed.mean()) and row["p_prompts"] == expected.p
    (world.root / "comparisons.csv").unlink()
    refused(world, "clip_tiny features of the other noise are missing", one_line)
    refused(
        world, "computed against other other_noise features", one_line, other_noise={"clip_tiny": world.teacher.folder}
    )


def test_another_n(world, one_line):
    def edit(content):
        content["metrics"][1]["n"] -= 1

    world.add("cm", 0, ((250, 1),))
    world.add("direct_cm", 0, ((250, 1),), edit=edit)
    refused(world, "not comparable", one_line)


def test_another_version_of_the_extractor(world, one_line):
    world.add("cm", 0, ((250, 1),))
    world.add("direct_cm", 0, ((250, 1),), own=lambda name, image: world.features(name, image, version="w"))
    refused(world, "two different versions", one_line)


def test_other_rows(world, one_line):
    world.add("cm", 0, ((250, 1),))
    rows = [1, 0, *range(2, N)]
    world.add("direct_cm", 0, ((250, 1),), own=lambda name, image: world.features(name, image, rows=rows))
    refused(world, "its first 24 rows", one_line)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda rows: rows[1:], "other rows|has n = 24"),
        (lambda rows: [*rows[:-1], rows[0]], "repeated rows"),
        (lambda rows: [{**r, "ode_error": "x"} for r in rows], "ode_error is 'x', expected a number"),
        (lambda rows: [{**r, "ode_error": ""} for r in rows], "not finite"),
        (lambda rows: [{**r, "ode_error": "nan"} for r in rows], "not finite"),
        (lambda rows: [{**r, "row": ""} for r in rows], "without a row number"),
        (lambda rows: [], "no column"),
        (lambda rows: [{**r, "ode_error": r["ode_error"] + 0.1} for r in rows], "evaluate again"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["cm", "direct_cm"])
def test_per_sample_files_that_do_not_hold(world, one_line, change, match, method):
    for own in FIRST:
        world.add(own, 0, ((250, 1),), **({"per_sample": change} if own == method else {}))
    refused(world, match, one_line)


def test_rows_pair_by_their_number_not_their_order(world, tmp_path):
    other = World(tmp_path / "other")
    for method in FIRST:
        world.add(method, 0, ((250, 1),))
        other.add(method, 0, ((250, 1),), per_sample=lambda rows: rows[::-1])
    assert world.compare() == other.compare()


def test_values_that_the_features_do_not_give(world, one_line):
    def edit(content):
        content["metrics"][1]["value"] += 0.01

    world.add("cm", 0, ((250, 1),))
    world.add("direct_cm", 0, ((250, 1),), edit=edit)
    refused(world, "differs by", one_line)


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda c: c.pop("step"), "lacks step"),
        (lambda c: c.update(row="Teacher"), "row is 'Teacher'"),
        (lambda c: c["run"].pop("N"), "its run lacks N"),
        (lambda c: c["metrics"][0].update(metric="fid_of_mine"), "unknown metric"),
        (lambda c: c["metrics"].pop(), "which other sets of this setting have"),
    ],
)
def test_metrics_that_cannot_be_read(world, one_line, edit, match):
    world.add("cm", 0, ((250, 1),))
    world.add("direct_cm", 0, ((250, 1),), edit=edit)
    refused(world, match, one_line)


def test_settings_and_runs(world, one_line):
    world.add("cm", 0, ((250, 1),))
    refused(world, "N is 50, but the setting compared has 20", one_line, setting={**SETTING, "N": 20})
    refused(world, "lacks solver", one_line, setting={k: v for k, v in SETTING.items() if k != "solver"})
    refused(world, "no metrics were given", one_line, metrics=[])
    refused(world, "the same set as", one_line, metrics=world.metrics * 2)


# ----------------------------------------------------------------- other pairs, more sampling steps


def test_any_pair_and_more_sampling_steps(world):
    for seed in (0, 1):
        world.add("direct_cm", seed, ((250, 1), (250, 2), (250, 4)))
        world.add("cm", seed, ((250, 1),))
    rows = world.compare(pairs=[("direct_cm", "cm"), ("ct", "cm")], stepwise=["direct_cm", "cm"])
    sets = {(r["what"], r["a"], r["b"], r["a_step"], r["b_step"], r["sampling_steps"], r["n_seeds"]) for r in rows}
    assert sets == {
        ("method", "Direct CM", "CM", 250, 250, 1, 2),
        ("sampling", "Direct CM", "Direct CM", 250, 250, 2, 2),
        ("sampling", "Direct CM", "Direct CM", 250, 250, 4, 2),
    }
    other = world.compare()
    assert one(rows, "ode_error")["difference"] == pytest.approx(-one(other, "ode_error")["difference"])
    assert not [r for r in other if r["what"] == "sampling"]


@pytest.mark.slow
def test_what_is_left_out_changes_nothing_else(world):
    """Along training and in other pairs, what claims are about alone; two threads make the bytes of one."""
    for seed in (0, 1):
        world.add("cm", seed, ((250, 1), (62, 1), (250, 2)))
        world.add("direct_cm", seed)
    asked = {"pairs": [FIRST, ("direct_cm", "cm")], "stepwise": ["cm"]}
    every = world.compare(**asked)
    written = (world.root / "comparisons.csv").read_bytes()
    assert world.compare(**asked, threads=2) == every and (world.root / "comparisons.csv").read_bytes() == written
    fewer = world.compare(**asked, along=["cm"], claimed=[("fd_tiny", "data")])
    assert fewer == [
        row
        for row in every
        if (row["what"] == "along" and row["a"] == "CM")
        or (row["what"] == "method" and row["a"] == "CM")
        or (row["what"] != "along" and (row["metric"], row["reference"]) == ("fd_tiny", "data"))
    ]
    assert {(r["what"], r["a"], r["b"]) for r in fewer} == {
        ("method", "CM", "Direct CM"),
        ("method", "Direct CM", "CM"),
        ("along", "CM", "CM"),
        ("sampling", "CM", "CM"),
    }


# ----------------------------------------------------------------- across settings


@pytest.mark.slow
def test_two_values_of_an_axis(world):
    """A loss and another: the first minus the second, of finished students with a seed in common."""
    huber = {**SETTING, "loss": "pseudo_huber"}
    for seed in (0, 1, 2):
        world.add("cm", seed)
    named = len(world.metrics)
    for seed in (1, 2, 3):
        world.add("cm", seed, ((250, 1), (62, 1), (250, 2)), setting=huber, name=f"huber{seed}")
    rows = world.compare(others=[("cm", "loss", "pseudo_huber")])
    across = [r for r in rows if r["what"] == "loss~pseudo_huber"]
    assert {
        (r["a"], r["b"], r["loss"], r["a_step"], r["b_step"], r["sampling_steps"], r["n_seeds"]) for r in across
    } == {("CM", "CM", "mse", 250, 250, 1, 2)}
    row = one(rows, "ode_error", what="loss~pseudo_huber")
    mine, theirs = (
        world.compare(metrics=world.metrics[:named]),
        world.compare(metrics=world.metrics[named:], setting=huber),
    )
    # Nothing else of the setting changes.
    assert [r for r in rows if r not in across] == mine
    assert {r["loss"] for r in theirs} == {"pseudo_huber"}
    errors = [
        [world.ode_error("cm", s, 250, 1, **more).mean() for s in (1, 2)] for more in ({}, {"loss": "pseudo_huber"})
    ]
    assert row["mean_a"] == pytest.approx(np.mean(errors[0])) and row["mean_b"] == pytest.approx(np.mean(errors[1]))
    assert row["difference"] == pytest.approx(np.mean(errors[0]) - np.mean(errors[1])) and row["difference"] < -0.05


@pytest.mark.slow
def test_two_odes_have_no_teacher_in_common(world):
    """Each student's reference is its own ODE's samples: what is measured against them cannot be compared."""
    for seed in (0, 1):
        world.add("cm", seed)
        world.add("cm", seed, setting={**SETTING, "solver": "heun"}, name=f"heun{seed}", teacher="another")
    rows = world.compare(others=[("cm", "solver", "heun")])
    assert {r["reference"] for r in rows if r["what"] == "solver~heun"} == {"data"}
    # Not asked for, it is a run of another setting.
    with pytest.raises(UserError, match="solver is heun, but the setting compared has ddim"):
        world.compare()
    with pytest.raises(UserError, match="solver is heun, but the setting compared has ddim"):
        world.compare(others=[("direct_cm", "solver", "heun"), ("cm", "N", "50")])


# ----------------------------------------------------------------- baselines


def add_baselines(world: World, ode: dict[str, Any], noise: str = "n" * 64, rows: int = N) -> dict[str, Artifact]:
    """Two baselines of an ODE: one worse than any student at every prompt, one that is as good on average."""
    hard = 0.3 * np.abs(world.prompt[:, 0])
    values = {"conditional_mean": 2.0 + hard, "affine_map": 0.25 + hard.mean() + 0.0 * hard}
    for name, value in values.items():
        with new_artifact(world.root / "baselines" / name, "metrics", settings={}) as out:
            item = world.item("ode_error", "teacher", value.mean(), N)
            content = {
                "row": BASELINES[name],
                "step": None,
                "steps": 0,
                "run": ode,
                "metrics": [item],
                "fingerprints": {"noise": noise},
            }
            write_json(out / "metrics.json", content)
            lines = [{"row": i, "ode_error": float(v)} for i, v in enumerate(value[:rows])]
            write_csv(out / "per_sample.csv", lines, ["row", "ode_error"])
    return {name: open_artifact(world.root / "baselines" / name, "metrics") for name in values}


OWN_ODE = {"solver": "ddim", "N": 50, "w": 3.0}


def test_students_are_compared_with_baselines(whole):
    found = whole.compare(baselines=add_baselines(whole, OWN_ODE))
    plain = [row for row in found if row["what"] != "baseline"]
    assert plain == whole.rows
    rows = [row for row in found if row["what"] == "baseline"]
    # Finished students in each number of sampling steps, with all of their seeds.
    assert [(r["a"], r["b"], r["a_step"], r["b_step"], r["sampling_steps"], r["n_seeds"]) for r in rows] == [
        (label, name, 250, None, steps, seeds)
        for label, steps, seeds in (("CM", 1, 3), ("Direct CM", 1, 4), ("Direct CM", 4, 3))
        for name in ("Conditional mean", "Affine map of the noise")
    ]
    errors = np.array([whole.ode_error("cm", seed, 250, 1) for seed in (0, 1, 2)])
    hard = 0.3 * np.abs(whole.prompt[:, 0])
    boot = paired_bootstrap(errors, np.broadcast_to(2.0 + hard, errors.shape), 200, 24)
    expected = crossed(boot.per_seed, boot.shared, N, 0.95)
    far, near = rows[:2]
    assert (far["difference"], far["p"], far["low"], far["p_prompts"]) == pytest.approx(
        (expected.difference, expected.p, expected.low, boot.p)
    )
    assert (far["mean_b"], far["seeds_agree"], far["test"]) == (pytest.approx(2 + hard.mean()), 3, "bootstrap")
    assert far["high"] < 0 and near["low"] < 0 < near["high"]
    # In more sampling steps alone: a table of its own.
    beyond = whole.compare(baselines=add_baselines(whole, OWN_ODE), beyond=1)
    assert {(r["a"], r["sampling_steps"]) for r in beyond if r["what"] == "baseline"} == {("Direct CM", 4)}


def test_baselines_of_another_ode_noise_or_rows(whole, one_line):
    for words, given in (
        ("is not of the setting's ODE", {"ode": OWN_ODE | {"N": 20}}),
        ("evaluated on other noise", {"ode": OWN_ODE, "noise": "m" * 64}),
        ("its rows are not those of", {"ode": OWN_ODE, "rows": N - 1}),
    ):
        with pytest.raises(UserError, match=words) as error:
            whole.compare(baselines=add_baselines(whole, **given))
        one_line(error)
