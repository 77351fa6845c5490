"""The verb `search`: sampling times of a student by a greedy ternary search (Song et al. 2303.01469, Algorithm 1).

Times are placed one at a time, each by a ternary search for the least distance of the samples so far to the data (or to the
teacher's samples). The search runs over indices of the grid of the student's ODE: these are the times on which it was trained, and
VP has no others. A distance of finitely many samples is noisy and can have several minima. So every probe is written, evenly spaced
times are probed first, and the result is the least value of all probes.

The minimum of many noisy values is biased low. So even and found times are measured and compared again on the evaluation's noise
and prompts, which the search has not used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from directcm import config
from directcm.config.registry import methods
from directcm.config.specs import METRICS
from directcm.diffusion.teachers import loader
from directcm.diffusion.teachers.codec import to_images
from directcm.distill import students
from directcm.distill.students import Student
from directcm.errors import UserError
from directcm.evaluation.common import check_finite, check_teacher
from directcm.evaluation.metrics import function
from directcm.evaluation.metrics.extractors import FeatureExtractor, build_extractor
from directcm.evaluation.metrics.samples import read_prompts
from directcm.evaluation.sampling import DRAWN, Evaluated
from directcm.runtime.artifacts import Artifact, new_artifact, write_csv, write_json
from directcm.runtime.blocks import block_ranges, clear, work
from directcm.runtime.sources import digest
from directcm.runtime.times import step_indices
from directcm.statistics.inference import frechet_difference_test, kernel_difference_test

K = TypeVar("K")
Times = tuple[int, ...]
PROBES = ["probe", "steps", "indices", "times", "value", "n"]


# ----------------------------------------------------------------- the search


class Probed(dict[K, float]):
    """The values of all probes, in order; none is measured twice."""

    def __init__(self, measure: Callable[[K], float]) -> None:
        super().__init__()
        self.measure = measure

    def at(self, key: K) -> float:
        """The value of a probe, which is measured if it has not been yet."""
        if key not in self:
            self[key] = self.measure(key)
        return self[key]


def ternary(low: int, high: int, value: Callable[[int], float]) -> int:
    """The index in low … high with the least probed value: the minimum if values strictly fall, then strictly rise.

    At most `most_probes(n)` of n indices are probed, none twice. If two probes are equal the search goes on between them, where
    the minimum of such values lies; on a plateau it need not.
    """
    probed = Probed(value)
    while high - low > 2:
        third = (high - low) // 3
        a, b = low + third, high - third
        one, other = probed.at(a), probed.at(b)
        low, high = low if one < other else a + 1, high if one > other else b - 1
    return min([*probed, *range(low, high + 1)], key=probed.at)


def most_probes(n: int) -> int:
    """The most probes of `ternary` on n indices: two for each cut to two thirds, then the at most three that are left."""
    asked = 0
    while n > 3:
        n, asked = -(-2 * (n - 1) // 3), asked + 2
    return asked + n


def greedy(intervals: int, numbers: Iterable[int], measure: Callable[[Times], float]) -> Probed[Times]:
    """Every probe in order, none twice: grid indices (ascending, 0 = pure noise) → value.

    For each number of steps k ≤ intervals, evenly spaced times come first. Then the second time is searched over the whole grid with
    two-step samples, the third after it with three-step samples, and so on up to k. If a found time leaves no room for those that
    follow, the last index that does is taken: of a function with one minimum it is the best of those allowed.
    """
    probed = Probed(measure)

    def after(placed: Times, follow: int) -> Times:
        """`placed` with the best next index that leaves room for `follow` more."""
        last = intervals - 1 - follow
        found = ternary(placed[-1] + 1, intervals - 1, lambda index: probed.at((*placed, index)))
        fits = [times for times in probed if times[:-1] == placed and times[-1] <= last]
        return min(fits if found <= last else [*fits, (*placed, last)], key=probed.at)

    for steps in sorted(numbers):
        probed.at(tuple(step_indices(intervals, steps)))
        times: Times = (0,)
        for follow in reversed(range(steps - 1)):
            times = after(times, follow)
    return probed


def best(probed: Probed[Times], steps: int) -> Times:
    """The grid indices with the least probed value for this number of steps."""
    return min((times for times in probed if len(times) == steps), key=probed.at)


# ----------------------------------------------------------------- what it measures


def _reference(artifact: Artifact, side: str, extractor: FeatureExtractor, noise: Artifact) -> np.ndarray:
    """Features (n, D) of the data or of the teacher's samples; UserError if they are of another side, extractor or noise."""
    of = {"data": "data", "teacher": "samples"}[side]
    if artifact.settings.get("of") != of or artifact.manifest["inputs"].get("noise") != noise.fingerprint:
        raise UserError(f"{artifact.folder}: are not the features of the {side} under {noise.folder}; make them again")
    if artifact.settings.get("fingerprint") != extractor.fingerprint:
        raise UserError(f"{artifact.folder}: made by another extractor than {extractor.name} here; make them again")
    rows = [int(r["row"]) for r in artifact.csv("rows.csv")]
    if rows != list(range(len(rows))):
        raise UserError(f"{artifact.folder}: its rows are not 0 to m − 1; make the features again")
    return artifact.arrays("features.safetensors")["image"]


def _features(
    key: Mapping[str, Any],
    scratch: Path,
    student: Student,
    intervals: int,
    extractor: FeatureExtractor,
    what: Evaluated,
    name: str,
    purpose: str,
    indices: Times,
    n: int,
) -> np.ndarray:
    """Features (n, D) of a student's samples at these times, of the first n rows of the noise; blocks in `scratch` are reused."""
    texts = [p.text for p in read_prompts(what.noise)]

    def block(rows: range) -> dict[str, Tensor]:
        parts = []
        for some, latents in what.draw(student, intervals, indices, rows, purpose):
            which = f"rows {some.start} to {some.stop - 1} at grid indices {_words(indices)}"
            check_finite(latents, f"search: a sample of {which}")
            found = extractor.extract(to_images(what.codec.decode(latents)), texts[some.start : some.stop])
            parts.append(torch.from_numpy(found["image"]))
        return {"features": torch.cat(parts)}

    place = scratch / f"{name}~{'-'.join(map(str, indices))}"
    blocks = block_ranges(n, what.settings.block, 0, 1)
    return work(place, {**key, "n": n}, blocks, block)["features"].numpy()


def _words(values: Iterable[float | int]) -> str:
    return " ".join(f"{value:.6g}" for value in values)


def make(
    settings: config.Search,
    statistics: config.Statistics,
    evaluation: config.Evaluation,
    student: Artifact,
    teacher: Artifact,
    latents: Artifact,
    noise: Artifact,
    search_noise: Artifact,
    reference: Artifact,
    extractor_folder: Artifact | None,
    seed: int,
    device: str,
    scratch: Path,
    out: Path,
) -> None:
    """Write the search artefact of a finished student; `settings.metric` is a name.

    probes.csv (PROBES): every probe in order, from `search_noise`. search.json, per number of steps: even and found times, each with
    its value in the search ("search", n_search rows) and on the evaluation's `noise` ("value", n rows), and the difference found −
    even of the latter with the p of a permutation test within prompts. `reference`: features of the data or of the teacher's
    samples, of which the first n are used.
    """
    metric = settings.metric
    if metric not in config.SOUGHT:
        raise UserError(f"search: metric is {metric!r}, expected {', '.join(config.SOUGHT)}")
    check_teacher(student, teacher)
    if search_noise.settings.get("purpose") != "search":
        raise UserError(f"{search_noise.folder}: is not a draw for a search; times chosen on it would not be held out")
    run = student.run
    if methods()[run.method].halves:
        raise UserError(
            f"{student.folder}: {run.method} goes from one even time to the next; there are no times to search"
        )
    intervals = run.N
    if max(settings.steps) > intervals:
        raise UserError(f"search: more sampling steps than the N = {intervals} intervals of the grid that they lie on")
    name = METRICS[metric].extractor
    assert name is not None
    extractor = build_extractor(name, extractor_folder, device=device)
    against = _reference(reference, settings.reference, extractor, noise)
    here = Evaluated(evaluation, teacher, latents, search_noise, seed, device)
    there = here.under(noise)
    n_search, n = settings.samples, min(len(there.initial), len(against))
    if n_search > min(len(here.initial), len(against)):
        raise UserError(
            f"search.samples = {n_search} is more than the {min(len(here.initial), len(against))} rows of "
            f"{(search_noise if len(here.initial) < n_search else reference).folder}"
        )
    who = students.load(here.model, student)
    grid = who.process.grid(intervals).tolist()
    inputs = {**there.inputs(), "student": student, "search_noise": search_noise, "reference": reference}
    if extractor_folder is not None:
        inputs["extractor"] = extractor_folder
    key = {
        "code": digest("evaluation.search", loader(teacher), METRICS[metric].module),
        "evaluation": here.settings.model_dump(include=DRAWN),
        "seed": seed,
        "extractor": extractor.fingerprint,
        **{k: v.fingerprint for k, v in inputs.items()},
    }
    draw = partial(_features, key, scratch, who, intervals, extractor)
    searched = partial(draw, here, "search", "search_step_noise")
    held_out = partial(draw, there, "evaluation", "step_noise")

    def distance(features: np.ndarray) -> float:
        return float(function(metric)(features, against[: len(features)]).value)

    def measure(indices: Times) -> float:
        value = distance(searched(indices, n_search))
        print(f"search: times {_words(grid[i] for i in indices)}: {metric} {value:.6g}", file=sys.stderr, flush=True)
        return value

    probed = greedy(intervals, settings.steps, measure)
    results: list[dict[str, Any]] = []
    again: set[Times] = set()
    for steps in sorted(settings.steps):
        both = {"even": tuple(step_indices(intervals, steps)), "found": best(probed, steps)}
        features = {label: held_out(indices, n) for label, indices in both.items()}
        difference, p = 0.0, None
        if both["even"] != both["found"]:
            difference, p = _test(metric, features["found"], features["even"], against[:n], statistics, seed)
        result: dict[str, Any] = {"steps": steps, "probes": sum(len(times) == steps for times in probed)}
        for label, indices in both.items():
            times, value = [grid[i] for i in indices], distance(features[label])
            result[label] = {"indices": list(indices), "times": times, "search": probed[indices], "value": value}
        results.append({**result, "difference": difference, "p": p})
        again |= set(both.values())
    public = {
        **settings.model_dump(mode="json"),
        "run": run.axes(),
        "permutations": statistics.permutations,
        "seed": seed,
        "evaluation": key["evaluation"],
    }
    content = {"metric": metric, "reference": settings.reference, "n": n, "n_search": n_search}
    content |= {"dim": against.shape[1], "run": run.axes(), "results": results}
    fields = (
        (i, len(times), _words(times), _words(grid[t] for t in times), value, n_search)
        for i, (times, value) in enumerate(probed.items())
    )
    with new_artifact(out, "search", settings=public, inputs=inputs) as art:
        write_json(art / "search.json", content)
        write_csv(art / "probes.csv", [dict(zip(PROBES, row, strict=True)) for row in fields], PROBES)
        forwards = sum(map(len, probed)) * n_search + sum(map(len, again)) * n
        art.counts = {"probes": len(probed), "student_forwards": forwards}
    clear(scratch)


def _test(
    metric: str, a: np.ndarray, b: np.ndarray, reference: np.ndarray, statistics: config.Statistics, seed: int
) -> tuple[float, float]:
    """(difference of the distances of a and b to the reference, p of a permutation test within rows); features (n, D)."""
    kind, arguments = METRICS[metric].test, (a[None], b[None], reference)
    if kind == "frechet":
        test = frechet_difference_test(*arguments, statistics.permutations, seed)
    else:
        test = kernel_difference_test(*arguments, kind, statistics.permutations, seed)
    return test.difference, test.p
