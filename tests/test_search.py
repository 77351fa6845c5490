"""The search of sampling times: what it finds and asks for, by hand and at random; what it is measured on; killed and resumed."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from directcm.config import ClipTiny, Config, Search, Statistics, parse
from directcm.diffusion.teachers import load
from directcm.diffusion.teachers.codec import to_images
from directcm.distill import noise as noise_verb
from directcm.distill import students
from directcm.errors import UserError
from directcm.evaluation import sampling, search
from directcm.evaluation.metrics import clip_tiny
from directcm.evaluation.metrics.extractors import build_extractor
from directcm.evaluation.metrics.features import features
from directcm.evaluation.search import best, greedy, most_probes, ternary
from directcm.runtime import rng
from directcm.runtime.artifacts import open_artifact
from directcm.statistics import frechet

# Some are quick, all together they are not: `make quick` is for what tells most in a minute.
pytestmark = pytest.mark.slow

# ----------------------------------------------------------------- one time


def asked(low: int, high: int, value: Any) -> tuple[int, list[int]]:
    """What `ternary` finds, and the indices it asked for."""
    seen: list[int] = []

    def spy(index: int) -> float:
        seen.append(index)
        return float(value(index))

    return ternary(low, high, spy), seen


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 17, 49, 99])
def test_every_minimiser_is_found_in_the_expected_number_of_probes(n: int) -> None:
    bound = n if n <= 3 else 2 * math.ceil(math.log(n / 3, 1.5)) + 3
    assert most_probes(n) <= bound
    for lowest in range(10, 10 + n):
        for skew in (0.2, 1.0, 5.0):
            found, seen = asked(10, 9 + n, lambda i, m=lowest, s=skew: (i - m) ** 2 * (s if i > m else 1))
            assert found == lowest
            assert len(seen) == len(set(seen)) <= most_probes(n)


def test_probes_of_17_times_by_hand() -> None:
    # 1 … 17: thirds at 6 and 12, then of 7 … 17 at 10 and 14, of 7 … 13 at 9 and 11, of 10 … 13 at 11 and 12, and nothing is left.
    found, seen = asked(1, 17, lambda i: abs(i - 11.4))
    assert (found, seen) == (11, [6, 12, 10, 14, 9, 11])


def test_plateaus_end_and_the_first_of_equals_is_taken() -> None:
    found, seen = asked(0, 99, lambda i: 1.0)
    assert found == seen[0] and len(seen) <= most_probes(100)
    # Flat where it is least: any of it is right.
    assert asked(0, 99, lambda i: max(abs(i - 50), 7))[0] in range(43, 58)
    assert asked(0, 99, lambda i: max(i, 90))[0] <= 90


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
@settings(max_examples=200, deadline=None)
def test_of_any_values_the_least_that_was_probed(values: list[float]) -> None:
    found, seen = asked(0, len(values) - 1, values.__getitem__)
    assert values[found] == min(values[i] for i in seen)
    assert len(set(seen)) == len(seen) <= most_probes(len(values))


# ----------------------------------------------------------------- several times


def test_greedy_places_one_time_after_the_other() -> None:
    aims = (0, 7, 12, 15)
    probed = greedy(18, [2, 4], lambda times: sum((t - a) ** 2 for t, a in zip(times, aims, strict=False)))
    assert best(probed, 2) == (0, 7) and best(probed, 4) == aims
    # Even times of either are the first of their length, and all that begins with the found second time shares its search.
    assert next(t for t in probed if len(t) == 4) == tuple(sampling.step_indices(18, 4))
    assert next(iter(probed)) == (0, 9)
    assert {t[:2] for t in probed if len(t) == 3} == {(0, 7)}
    most = most_probes(17) + 1 + most_probes(10) + most_probes(5) + 1
    assert len(probed) <= most


def test_what_follows_has_room() -> None:
    # Two steps want the last time; four leave it two more, and are those three then.
    probed = greedy(18, [2, 4], lambda times: -float(times[1]))
    assert best(probed, 2) == (0, 17)
    assert best(probed, 4) == (0, 15, 16, 17)
    # As many steps as times: there is one choice.
    probed = greedy(5, [5], lambda times: 0.0)
    assert best(probed, 5) == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("intervals", [2, 3])
def test_the_smallest_grids(intervals: int) -> None:
    probed = greedy(intervals, [2], lambda times: float(times[-1]))
    assert best(probed, 2) == (0, 1) and len(probed) <= intervals


@given(st.integers(2, 60), st.data())
@settings(max_examples=150, deadline=None)
def test_of_any_function_the_best_probed(intervals: int, data: st.DataObject) -> None:
    largest = min(intervals, 6)
    numbers = data.draw(st.lists(st.integers(2, largest), min_size=1, max_size=3, unique=True))
    levels = data.draw(st.integers(1, 50))
    seed = data.draw(st.integers(0, 2**32 - 1))
    calls: list[search.Times] = []

    def value(times: search.Times) -> float:
        calls.append(times)
        return float(rng.generator(seed, "value", *times).integers(levels))

    probed = greedy(intervals, numbers, value)
    assert calls == list(probed) and len(set(calls)) == len(calls)
    for times in probed:
        assert times[0] == 0 and times[-1] < intervals
        assert all(a < b for a, b in itertools.pairwise(times))
    for steps in numbers:
        even = tuple(sampling.step_indices(intervals, steps))
        found = best(probed, steps)
        assert probed[found] <= probed[even]
        assert probed[found] == min(v for t, v in probed.items() if len(t) == steps)
        # Even times are given up for nothing but a lower value.
        assert found == even or probed[found] < probed[even]
    assert greedy(intervals, numbers[::-1], value) == probed


def test_other_numbers_of_steps_change_nothing_of_one() -> None:
    def value(times: search.Times) -> float:
        return float(rng.generator(1, "value", *times).random())

    alone, both = greedy(18, [4], value), greedy(18, [2, 4], value)
    assert alone.items() <= both.items() and best(alone, 4) == best(both, 4)


# ----------------------------------------------------------------- a student


@pytest.fixture(scope="module")
def setting(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A search's noise, an extractor, and the data's and the teacher's features under the evaluation's noise."""
    root = tmp_path_factory.mktemp("search")
    noise_verb.make(5, "search", tiny.data, tiny.latents, tiny.seed, root / "noise")
    own = ClipTiny(width=16, layers=1, patch=4, steps=4, batch_size=8, head_steps=2)
    clip_tiny.make_extractor("clip_tiny", tiny.data, own, tiny.seed, root / "extractor")
    extractor = open_artifact(root / "extractor", "extractor")
    built = build_extractor("clip_tiny", extractor)
    for name, samples in (("data", None), ("teacher", tiny.reference)):
        features([built], samples, tiny.data, tiny.noise, 2, [root / name])
    found = {name: open_artifact(root / name, "features") for name in ("data", "teacher")}
    return SimpleNamespace(noise=open_artifact(root / "noise", "noise"), extractor=extractor, **found)


def run(tiny: Any, setting: Any, out: Path, **changes: Any) -> Any:
    """A search of Direct CM's times, N = 5."""
    own = {"student": tiny.direct_cm, "search_noise": setting.noise}
    own |= {k: changes.pop(k) for k in list(changes) if k in own}
    block = Search(**{"steps": [2, 3], "samples": 4, "metric": "fd_tiny"} | changes)
    search.make(
        block,
        Statistics(permutations=99),
        tiny.evaluation,
        own["student"],
        tiny.teacher,
        tiny.latents,
        tiny.noise,
        own["search_noise"],
        getattr(setting, block.reference),
        setting.extractor,
        tiny.seed,
        "cpu",
        out.with_name(out.name + "-scratch"),
        out,
    )
    return open_artifact(out, "search")


@pytest.fixture(scope="module")
def made(tiny: Any, setting: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run(tiny, setting, tmp_path_factory.mktemp("made") / "search")


def test_search_has_a_noise_of_its_own(tiny: Any, setting: Any) -> None:
    x, y = (n.tensors("noise.safetensors")["noise"] for n in (setting.noise, tiny.noise))
    assert torch.equal(x, rng.normal(tiny.seed, "search_noise", range(5), (4, 8, 8)))
    assert not any(torch.equal(a, b) for a in x for b in y)
    ids = [[r["id"] for r in n.csv("prompts.csv")] for n in (setting.noise, tiny.noise)]
    assert ids[0] != ids[1][:5]


def test_what_is_written(tiny: Any, made: Any) -> None:
    content, probes = made.json("search.json"), made.csv("probes.csv")
    assert (content["metric"], content["reference"], content["n"], content["n_search"]) == ("fd_tiny", "data", 6, 4)
    assert [r["steps"] for r in content["results"]] == [2, 3]
    by_length: dict[int, list[float]] = {}
    for i, probe in enumerate(probes):
        indices, times = ([float(x) for x in probe[name].split()] for name in ("indices", "times"))
        # VP: index i of N = 5 is time 1000 − 200 i.
        assert times == [1000 - 200 * x for x in indices] and times[0] == 1000
        assert all(a > b for a, b in itertools.pairwise(times)) and times[-1] > 0
        assert int(probe["probe"]) == i and int(probe["steps"]) == len(times) and probe["n"] == "4"
        by_length.setdefault(len(times), []).append(float(probe["value"]))
    for result in content["results"]:
        even, found = result["even"], result["found"]
        assert even["indices"] == sampling.step_indices(5, result["steps"])
        assert found["search"] == min(by_length[result["steps"]]) <= even["search"]
        assert result["probes"] == len(by_length[result["steps"]])
        assert result["difference"] == pytest.approx(found["value"] - even["value"], abs=1e-6)
        assert (result["p"] is None) == (even["indices"] == found["indices"])
    drawn = sum(k * 4 * len(v) for k, v in by_length.items())
    again = {tuple(r[label]["indices"]) for r in content["results"] for label in ("even", "found")}
    assert made.counts == {"probes": len(probes), "student_forwards": drawn + 6 * sum(map(len, again))}


def test_a_probe_by_hand(tiny: Any, setting: Any, made: Any) -> None:
    """The first probe, even times of two steps, on the search's noise; and the same on the evaluation's as `sample` makes it."""
    student = students.load(load(tiny.teacher), tiny.direct_cm)
    what = tiny.evaluated(noise=setting.noise)
    x, cond = what.initial[:4], what.pool.conditioning(what.ids[:4])
    grid, process = student.process.grid(5), student.process
    (probe, *_) = made.csv("probes.csv")
    assert probe["indices"] == "0 2"
    with torch.no_grad():
        t = torch.full((4,), float(grid[0]))
        out = student(x, t, cond)
        t = torch.full((4,), float(grid[2]))
        eps = rng.normal(tiny.seed, "search_step_noise", range(4), (4, 8, 8), 2, 1)
        out = student(process.diffuse(out, eps, t), t, cond)
    extractor = build_extractor("clip_tiny", setting.extractor, device="cpu")
    texts = [r["text"] for r in setting.noise.csv("prompts.csv")][:4]
    got = extractor.extract(to_images(what.codec.decode(out.float())), texts)["image"]
    against = setting.data.arrays("features.safetensors")["image"]
    expected = frechet.frechet_distance(got, against[:4]).value
    assert float(probe["value"]) == pytest.approx(expected, rel=1e-3)


def test_even_times_on_the_evaluations_noise_are_the_samples_of_the_tables(
    tiny: Any, setting: Any, made: Any, tmp_path: Path
) -> None:
    samples = tiny.sample_student(tmp_path / "s", tiny.direct_cm, 3)
    built = build_extractor("clip_tiny", setting.extractor)
    features([built], [samples], tiny.data, tiny.noise, 2, [tmp_path / "f"])
    own = open_artifact(tmp_path / "f", "features").arrays("features.safetensors")["image"]
    against = setting.data.arrays("features.safetensors")["image"]
    value = made.json("search.json")["results"][1]["even"]["value"]
    assert value == pytest.approx(frechet.frechet_distance(own, against).value, rel=1e-5)


@pytest.mark.slow
def test_killed_and_resumed_is_undisturbed(
    tiny: Any, setting: Any, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = sampling.sample_at, []

    def dies(*args: Any) -> Any:
        calls.append((tuple(args[4]), args[6], args[7]))
        if len(calls) == 8:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(sampling, "sample_at", dies)
    with pytest.raises(KeyboardInterrupt):
        run(tiny, setting, tmp_path / "s")
    assert not (tmp_path / "s").exists()
    resumed = run(tiny, setting, tmp_path / "s")
    assert (resumed.folder / "manifest.json").read_bytes() == (made.folder / "manifest.json").read_bytes()
    # Blocks of 3 rows in batches of 2: a block that was under way is begun again, and nothing else is made twice.
    twice = [call for call in set(calls) if calls.count(call) > 1]
    assert 1 <= len(twice) <= 2 and calls[7] in twice
    assert not (tmp_path / "s-scratch").exists()


def test_the_teacher_as_reference_and_another_metric(tiny: Any, setting: Any, tmp_path: Path) -> None:
    found = run(tiny, setting, tmp_path / "s", reference="teacher", metric="kid_tiny", steps=[2])
    content = found.json("search.json")
    assert (content["metric"], content["reference"]) == ("kid_tiny", "teacher")
    assert found.manifest["inputs"]["reference"] == setting.teacher.fingerprint


def test_refusals(tiny: Any, setting: Any, tmp_path: Path, one_line: Any) -> None:
    other = SimpleNamespace(**{**vars(setting), "data": setting.teacher})
    for given_, changes, word in (
        (setting, {"search_noise": tiny.noise}, "is not a draw for a search"),
        (other, {}, "are not the features of the data"),
        (setting, {"steps": [6]}, "more sampling steps than the N = 5"),
        (setting, {"samples": 6}, "more than the 5 rows"),
        (setting, {"metric": None}, "metric is None"),
    ):
        with pytest.raises(UserError) as error:
            run(tiny, given_, tmp_path / "s", **changes)
        assert word in one_line(error)
    assert not (tmp_path / "s").exists()


def test_a_sample_that_is_not_finite_is_named(
    tiny: Any, setting: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_line: Any
) -> None:
    monkeypatch.setattr(sampling, "sample_at", lambda student, noise, *args: noise * np.nan)
    with pytest.raises(UserError) as error:
        run(tiny, setting, tmp_path / "s")
    assert "rows 0 to 1 at grid indices 0 2 is not finite" in one_line(error)


# ----------------------------------------------------------------- the configuration


def test_who_is_searched() -> None:
    config = parse(Config, {"search": {}})
    assert [(r.method, r.seed, r.N) for r in config.searched()] == [("cm", 0, 50), ("direct_cm", 0, 50)]
    assert config.search_metric() == "fd_tiny" and Config().searched() == []
    assert "search" not in Config().model_dump() and "search" in config.model_dump()
    # Where no line has the values of ode and train, the first run's are the main setting.
    config = parse(Config, {"search": {}, "students": [{"N": [20, 10], "seed": [3, 1]}]})
    assert [(r.method, r.seed, r.N) for r in config.searched()] == [("cm", 3, 20), ("direct_cm", 3, 20)]


@pytest.mark.parametrize(
    ("block", "word"),
    [
        ({"steps": [2, 2]}, "search.steps names a number twice"),
        ({"steps": [1]}, "greater than or equal to 2"),
        ({"steps": [51]}, "51 are more than the grid's N = 50"),
        ({"samples": 2000}, "is more than evaluation.samples = 1024"),
        ({"metric": "fid"}, "expected a distance among metrics: fd_tiny, kid_tiny"),
        ({"reference": "prompt"}, "data"),
    ],
)
def test_mistakes_in_the_block(block: dict[str, Any], word: str, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        parse(Config, {"search": block}, "run.yaml")
    assert word in one_line(error)


def test_no_frechet_distance_to_take(one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        parse(Config, {"search": {}, "metrics": ["ode_error", "kid_tiny"]}, "run.yaml")
    assert "search.metric is null" in one_line(error)
    assert parse(Config, {"search": {"metric": "kid_tiny"}, "metrics": ["kid_tiny"]}).search_metric() == "kid_tiny"
