"""The verb contrasts: where they are taken, numbers against least squares and against compare's own lines, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from directcm.analysis.data.compare import compare
from directcm.analysis.data.contrasts import Contrast, contrasts, plan
from directcm.analysis.data.tidy import COMPARISON_COLUMNS
from directcm.config import Config, Run, Setting, load_config, parse
from directcm.config.registry import FIRST
from directcm.errors import UserError
from directcm.runtime.artifacts import new_artifact, open_artifact, read_csv, write_csv
from directcm.runtime.rng import generator
from directcm.statistics.frechet import frechet_distance
from directcm.statistics.inference import crossed, paired_bootstrap
from directcm.statistics.trend import frechet_influence, slope_weights
from tests.analysis.test_compare import SETTING, STATISTICS, World

ROOT = Path(__file__).resolve().parents[2]
SEEDS, VALUES = (0, 1, 2), (10, 20, 50)
BASE = {"ode": {"N": 50, "w": 3}, "train": {"adapter": "lora64"}, "statistics": STATISTICS.model_dump()}
CONFIG = parse(
    Config,
    {
        **BASE,
        "students": [
            {"seed": [0, 1, 2, 3], "sampling_steps": [1, 4], "snapshots": [62, 125], "errors": True},
            {"seed": [0, 1, 2], "N": [10, 20]},
        ],
    },
)


def one(text: str) -> Contrast:
    return Contrast.parse(text)


class Swept(World):
    """Settings of three N, whose gaps in ODE error and in features grow with log₂ N."""

    now = 50

    def ode_error(self, method: str, seed: int, step: int, sampling: int, loss: str = "mse") -> np.ndarray:
        gap = 0.1 * math.log2(self.now) * (method == "cm") * (1 + 0.1 * seed)
        return super().ode_error(method, seed, step, sampling, loss) + gap - 0.05 * math.log2(step)

    def image(self, method: str, seed: int, step: int, sampling: int) -> np.ndarray:
        return super().image(method, seed, step, sampling) + 0.2 * math.log2(self.now) * (method == "cm")

    def sweep(self, seeds: tuple[int, ...] = SEEDS, values: tuple[int, ...] = VALUES, **more: Any) -> None:
        for self.now in values:
            for method in FIRST:
                for seed in seeds:
                    sets = ((250, 1), (62, 1), (125, 1), (250, 4)) if self.now == 50 else ((250, 1),)
                    self.add(method, seed, sets, setting={**SETTING, "N": self.now}, name=f"{method}{seed}N{self.now}", **more)  # fmt: skip

    def errors(self, seeds: tuple[int, ...] = SEEDS, points: int = 12, edit: Any = lambda rows: rows) -> list[Path]:
        """Errors by start time: CM's lead over Direct CM is 0.3 t, by point and seed with noise of their own."""
        out = []
        for method in FIRST:
            for seed in seeds:
                g = generator(seed, "errors", int(method == "cm"))
                rows = [
                    {"point": p, "time": t, "space": space, "student": 1 + 0.3 * t / 1000 * (method == "cm") + 0.01 * p + 0.01 * g.normal(), "solver": 0.0, "total": 0.0}
                    for p in range(points) for t in (1000, 750, 500, 250) for space in ("latent", "pixel")
                ]  # fmt: skip
                run = Run.of({**SETTING, "method": method, "seed": seed}, "run")
                folder = self.root / "errors" / f"{method}{seed}"
                with new_artifact(folder, "errors", settings={"run": run.axes(), "seed": 24}) as made:
                    write_csv(made / "per_point.csv", edit(rows), list(rows[0]))
                out.append(folder / "manifest.json")
        return out

    def take(
        self, *texts: str, config: Config = CONFIG, errors: list[Path] | None = None, **changes: Any
    ) -> list[dict[str, Any]]:
        given = [("clip_tiny", str(path)) for path in [*self.collections, self.teacher.folder, self.data.folder]]
        arguments: dict[str, Any] = {
            "metrics": self.metrics, "features": given, "errors": errors or [], "seed": 24, "out_csv": self.root / "contrasts.csv",
        }  # fmt: skip
        arguments |= changes
        return contrasts([one(text) for text in texts], config, **arguments)


@pytest.fixture
def world(tmp_path: Path) -> Swept:
    return Swept(tmp_path)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    made = Swept(tmp_path_factory.mktemp("swept"))
    made.sweep()
    return made


# ----------------------------------------------------------------- where


def test_a_contrast_is_one_word() -> None:
    words = (
        "cm:direct_cm:log~N:fd_tiny:teacher", "cm:cm:linear~w:fd_tiny:data", "cm:direct_cm:mean~solver:ode_error:teacher",
        "cm:direct_cm:from~loss~mse~pseudo_huber:ode_error:teacher:lr~0.001:sampling_steps~2",
    )  # fmt: skip
    assert [one(word).key for word in words] == list(words)
    assert one(words[1]).b is None and one(words[3]).at == (("lr", "0.001"), ("sampling_steps", "2"))
    wrong = (
        "", "cm:direct_cm:N:fd_tiny:teacher", "cm:gan:log~N:fd_tiny:teacher", "cm:cm:log~hue:fd_tiny:teacher", "cm:cm:log~N:fd_tiny",
        "cm:cm:log~N:fd_tiny:prompt", "cm:cm:log~N~10:fd_tiny:teacher", "cm:cm:from~loss~mse:fd_tiny:data", "cm:cm:log~N:fd_tiny:data:hue~1",
    )  # fmt: skip
    for word in wrong:
        with pytest.raises(ValueError):
            one(word)


def test_where_the_default_grid_is_swept() -> None:
    config = load_config(ROOT / "config.yaml")
    expected = {
        "log~N": ([10, 20, 50, 100], 5, {}), "linear~w": ([1, 3, 5, 8], 5, {}), "log~lr": ([1e-4, 1e-3], 3, {}),
        "log~sampling_steps": ([1, 2, 4, 8], 5, {}), "log~step": ([62, 125, 250, 500], 5, {"steps": 500, "pool": 8000}),
        "log~adapter": ([4, 64], 3, {"steps": 500, "pool": 8000}),
    }  # fmt: skip
    main = config.main()[0].setting
    for how, (values, seeds, at) in expected.items():
        place = plan(one(f"cm:direct_cm:{how}:fd_tiny:teacher"), config)
        scale = math.log2 if how.startswith("log") else float
        assert place is not None and [cell.x for cell in place.cells] == pytest.approx([scale(v) for v in values])
        assert (len(place.seeds), place.setting) == (seeds, main.at(**at))
    assert len(plan(one("cm:direct_cm:mean~solver:fd_tiny:teacher"), config).cells) == 3  # type: ignore[union-attr]
    two = plan(one("cm:direct_cm:from~loss~mse~pseudo_huber:fd_tiny:teacher"), config)
    assert two is not None and [(c.x, c.setting.loss) for c in two.cells] == [(0, "mse"), (1, "pseudo_huber")]
    # A seed that one setting lacks is left out of all.
    assert two.seeds == (0, 1, 2)
    for absent in ("log~batch_size", "from~loss~mse~l1", "log~pool"):
        assert plan(one(f"cm:direct_cm:{absent}:fd_tiny:teacher"), config) is None
    assert plan(one("cd:cd:log~step:fd_tiny:data"), config) is None


def test_the_students_that_a_contrast_needs() -> None:
    contrast = one("cm:direct_cm:log~N:fd_tiny:teacher")
    place = plan(contrast, CONFIG)
    assert place is not None and place.seeds == (0, 1, 2)
    runs = place.runs(contrast)
    assert len(runs) == 3 * 2 * 3 and {run.N for run in runs} == {10, 20, 50}
    alone = one("cm:cm:log~step:fd_tiny:teacher")
    place = plan(alone, CONFIG)
    assert place is not None and {run.method for run in place.runs(alone)} == {"cm"} and len(place.seeds) == 4


# ----------------------------------------------------------------- numbers


def values(world: Swept, method: str, metric: str) -> np.ndarray:
    """Per-prompt ODE errors (S, N values, n), or FDs (S, N values)."""
    out = []
    for seed in SEEDS:
        line = []
        for world.now in VALUES:
            if metric == "ode_error":
                line.append(world.ode_error(method, seed, 250, 1))
            else:
                image = world.image(method, seed, 250, 1).astype(np.float32)
                line.append(frechet_distance(image, world.teacher.arrays("features.safetensors")["image"]).value)
        out.append(line)
    return np.array(out)


def shared_error(parts: np.ndarray) -> float:
    """√ of the mean covariance of two seeds' parts by prompt (S, n), over n: what seeds share; the rest is among them already."""
    seeds, n = parts.shape
    covariances = np.cov(parts)[~np.eye(seeds, dtype=bool)]
    return math.sqrt(max(0.0, covariances.mean()) / n)


def test_a_slope_of_a_mean_by_prompt(swept: Swept) -> None:
    (row,) = swept.take("cm:direct_cm:log~N:ode_error:teacher")
    a, b = (values(swept, method, "ode_error") for method in FIRST)
    x = np.log2(VALUES)
    slopes = [stats.linregress(x, line).slope for line in (a - b).mean(axis=2)]
    assert row["difference"] == pytest.approx(np.mean(slopes)) and row["difference"] == pytest.approx(0.11, abs=0.02)
    assert row["mean_a"] - row["mean_b"] == pytest.approx(row["difference"])
    assert row["se_seeds"] == pytest.approx(np.std(slopes, ddof=1) / math.sqrt(3))
    by_prompt = np.array([[stats.linregress(x, line).slope for line in own.T] for own in a - b])
    assert row["se_prompts"] == pytest.approx(shared_error(by_prompt))
    whole = crossed(np.array(slopes), row["se_prompts"] ** 2, 24, 0.95)
    assert (row["low"], row["high"], row["p"], row["df"]) == pytest.approx((whole.low, whole.high, whole.p, whole.df))
    weights = slope_weights(list(x))
    boot = paired_bootstrap(np.einsum("j,sjn->sn", weights, a), np.einsum("j,sjn->sn", weights, b), 200, 24)
    assert (row["test"], row["p_prompts"]) == ("bootstrap", boot.p)
    assert (row["what"], row["n"], row["n_seeds"], row["seeds_agree"], row["N"]) == ("log~N", 24, 3, 3, "50")


def test_a_slope_of_a_distance(swept: Swept) -> None:
    (row,) = swept.take("cm:direct_cm:log~N:fd_tiny:teacher")
    a, b = (values(swept, method, "fd_tiny") for method in FIRST)
    x = np.log2(VALUES)
    slopes = np.polyfit(x, (a - b).T, 1)[0]
    assert row["difference"] == pytest.approx(slopes.mean(), rel=1e-5)
    assert row["se_seeds"] == pytest.approx(slopes.std(ddof=1) / math.sqrt(3), rel=1e-4)
    # Over prompts: the slope of each prompt's part.
    against, weights = swept.teacher.arrays("features.safetensors")["image"], slope_weights(list(x))
    parts = np.zeros((len(SEEDS), 24))
    for j, swept.now in enumerate(VALUES):
        for sign, method in ((1, "cm"), (-1, "direct_cm")):
            images = [swept.image(method, seed, 250, 1).astype(np.float32) for seed in SEEDS]
            parts += sign * weights[j] * np.array([frechet_influence(image, against) for image in images])
    assert row["se_prompts"] == pytest.approx(shared_error(parts), rel=1e-5)
    assert (row["test"], row["p_prompts"]) == ("influence", None)


def test_a_mean_is_that_of_compare_s_own_lines(swept: Swept) -> None:
    found = {
        row["metric"]: row
        for row in swept.take("cm:direct_cm:mean~N:ode_error:teacher", "cm:direct_cm:mean~N:fd_tiny:data")
    }
    lines = []
    for value in VALUES:
        chosen = [i for i, path in enumerate(swept.metrics) if f"N{value}/" in str(path)]
        lines += compare(
            Setting.of({**SETTING, "N": value}, "setting"), [swept.metrics[i] for i in chosen],
            {"clip_tiny": [swept.collections[i] for i in chosen]}, {"clip_tiny": swept.teacher.folder},
            {"clip_tiny": swept.data.folder}, STATISTICS, 24, swept.root / "compared.csv", along=(),
        )  # fmt: skip
    for metric, reference in (("ode_error", "teacher"), ("fd_tiny", "data")):
        own = [
            line for line in lines
            if (line["metric"], line["reference"], line["a_step"], line["sampling_steps"]) == (metric, reference, 250, 1)
        ]  # fmt: skip
        assert len(own) == 3
        for name in ("difference", "mean_a", "mean_b"):
            assert found[metric][name] == pytest.approx(np.mean([line[name] for line in own]), rel=1e-9)
        # The three settings share their seeds: the error of the mean is no larger than the mean of their errors.
        assert found[metric]["se_seeds"] <= np.mean([line["se_seeds"] for line in own]) + 1e-12


def test_along_training_and_over_sampling_steps(swept: Swept) -> None:
    config = parse(
        Config,
        {
            **BASE,
            "students": [
                {"seed": [0, 1, 2], "sampling_steps": [1, 4], "snapshots": [62, 125]},
                {"seed": [0], "N": [10]},
            ],
        },
    )
    rows = swept.take(
        "cm:cm:log~step:ode_error:teacher", "cm:direct_cm:log~sampling_steps:fd_tiny:teacher", config=config
    )
    falls, sampled = rows
    # −0.05 per doubling, and 0.4 less when it is finished.
    x = np.log2([62, 125, 250])
    swept.now = 50
    y = [[swept.ode_error("cm", seed, step, 1).mean() for step in (62, 125, 250)] for seed in SEEDS]
    assert (
        falls["difference"] == pytest.approx(np.mean([stats.linregress(x, line).slope for line in y]))
        and falls["difference"] < -0.2
    )
    assert (falls["a"], falls["b"], falls["mean_b"], falls["a_step"], falls["b_step"]) == ("CM", "CM", 0, 250, 62)
    assert sampled["sampling_steps"] == 4 and sampled["what"] == "log~sampling_steps"
    # Two values two doublings apart: half the difference of their differences.
    fd = {
        (m, k): np.mean([frechet_distance(swept.image(m, s, 250, k).astype(np.float32), swept.teacher.arrays("features.safetensors")["image"]).value for s in SEEDS])
        for m in FIRST for k in (1, 4)
    }  # fmt: skip
    expected = ((fd["cm", 4] - fd["direct_cm", 4]) - (fd["cm", 1] - fd["direct_cm", 1])) / 2
    assert sampled["difference"] == pytest.approx(expected, rel=1e-5)


def test_over_start_times(world: Swept) -> None:
    config = parse(Config, {**BASE, "students": [{"seed": [0, 1, 2], "errors": True}]})
    (row,) = world.take(
        "cm:direct_cm:linear~time:ode_error:teacher", config=config, errors=world.errors(), metrics=[], features=[]
    )
    # The lead is 0.3 t with t from 0 at the data to 1 at the largest.
    assert row["difference"] == pytest.approx(0.3, abs=0.02) and row["low"] < 0.3 < row["high"]
    assert (row["n"], row["n_seeds"], row["what"], row["test"]) == (12, 3, "linear~time", "bootstrap")


def test_what_is_written(swept: Swept, tmp_path: Path) -> None:
    texts = ("cm:direct_cm:log~N:ode_error:teacher", "cm:direct_cm:log~N:fd_tiny:teacher")
    swept.take(*texts, out_csv=tmp_path / "a.csv")
    lines = read_csv(tmp_path / "a.csv")
    assert list(lines[0]) == COMPARISON_COLUMNS and len(lines) == 2
    # The order of what is given changes no byte, and an empty one is a header.
    swept.take(*texts, out_csv=tmp_path / "b.csv", metrics=swept.metrics[::-1])
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert swept.take(out_csv=tmp_path / "c.csv", metrics=[], features=[]) == []
    assert (tmp_path / "c.csv").read_text() == ",".join(COMPARISON_COLUMNS) + "\n"


def test_a_value_that_is_not_defined_has_no_line(world: Swept) -> None:
    def edit(content: dict[str, Any]) -> None:
        content["metrics"][1]["value"] = None

    world.sweep(edit=edit)
    texts = ("cm:direct_cm:log~N:fd_tiny:teacher", "cm:direct_cm:log~N:ode_error:teacher")
    assert [row["metric"] for row in world.take(*texts)] == ["ode_error"]


# ----------------------------------------------------------------- what is refused

ODE, FD = "cm:direct_cm:log~N:ode_error:teacher", "cm:direct_cm:log~N:fd_tiny:teacher"


def refused(world: Swept, match: str, one_line: Any, *texts: str, **changes: Any) -> None:
    with pytest.raises(UserError, match=match) as error:
        world.take(*texts, **changes)
    one_line(error)


def test_what_is_missing_is_named(swept: Swept, one_line: Any) -> None:
    refused(
        swept,
        "no metrics of method~cm,.*seed~2",
        one_line,
        ODE,
        metrics=[p for p in swept.metrics if "cm2N20" not in str(p)],
    )
    refused(swept, "the grid has nothing for cm:direct_cm:log~w", one_line, "cm:direct_cm:log~w:ode_error:teacher")
    some = [("clip_tiny", str(path)) for path in swept.collections]
    refused(swept, "features of the teacher behind it", one_line, FD, features=some)
    refused(
        swept, "features of the samples behind it", one_line, FD, features=[("clip_tiny", str(swept.teacher.folder))]
    )
    refused(swept, "no errors by start time", one_line, "cm:direct_cm:linear~time:ode_error:teacher", errors=[])


def test_what_cannot_be_compared_is_refused(world: Swept, one_line: Any) -> None:
    world.sweep(values=(10, 20))
    world.sweep(values=(50,), noise="m" * 64)
    refused(world, "evaluated on other noise", one_line, ODE)


def test_values_of_other_prompts_are_refused(world: Swept, one_line: Any) -> None:
    world.sweep(values=(10, 20))
    world.sweep(values=(50,), per_sample=lambda rows: [{**row, "ode_error": row["ode_error"] + 0.1} for row in rows])
    refused(world, "is not that of metrics.json", one_line, ODE)


def test_start_points_that_differ_are_refused(world: Swept, one_line: Any) -> None:
    config = parse(Config, {**BASE, "students": [{"seed": [0, 1], "errors": True}]})
    text = "cm:direct_cm:linear~time:ode_error:teacher"
    given = world.errors((0, 1))
    other = Swept(world.root / "other").errors((1,), points=5)
    wrong = [*(p for p in given if not str(p.parent).endswith("1")), *other]
    refused(world, "its start points are not those of", one_line, text, config=config, errors=wrong)
    holes = Swept(world.root / "holes").errors((0, 1), edit=lambda rows: rows[2:])
    refused(world, "no latent error of some point", one_line, text, config=config, errors=holes)
    assert open_artifact(given[0], "errors").settings["seed"] == 24
