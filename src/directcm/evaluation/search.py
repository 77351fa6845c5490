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
from dataclasses import dataclass
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
from directcm.evaluation.metrics import function
from directcm.evaluation.metrics.extractors import FeatureExtractor, build_extractor
from directcm.evaluation.metrics.samples import read_prompts
from directcm.evaluation.sampling import Evaluated, sample_at
from directcm.runtime.artifacts import Artifact, new_artifact, write_csv, write_json
from directcm.runtime.blocks import block_ranges, clear, work
from directcm.runtime.sources import digest
from directcm.runtime.times import step_indices
from directcm.statistics.inference import frechet_difference_test, kernel_difference_test

K = TypeVar("K")
Times = tuple[int, ...]
PROBES = ["probe", "steps", "indices", "times", "value", "n"]


# ----------------------------------------------------------------- the search


def ternary(low: int, high: int, value: Callable[[int], float]) -> int:
    """The index in low … high with the least probed value: the minimum if values strictly fall, then strictly rise.

    At most `most_probes(n)` of n indices are probed, none twice. If two probes are equal the search goes on between them, where
    the minimum of such values lies; on a plateau it need not.
    """
    probed: dict[int, float] = {}

    def at(index: int) -> float:
        if index not in probed:
            probed[index] = value(index)
        return probed[index]

    while high - low > 2:
        third = (high - low) // 3
        a, b = low + third, high - third
        one, other = at(a), at(b)
        low, high = low if one < other else a + 1, high if one > other else b - 1
    for index in range(low, high + 1):
        at(index)
    return least(probed)


def most_probes(n: int) -> int:
    """The most probes of `ternary` on n indices: two for each cut to two thirds, then the at most three that are left."""
    asked = 0
    while n > 3:
        n, asked = -(-2 * (n - 1) // 3), asked + 2
    return asked + n


def least(probed: Mapping[K, float]) -> K:
    """The key of the least value; of equal values the first that was probed."""
    return min(probed, key=probed.__getitem__)


def greedy(intervals: int, numbers: Iterable[int], measure: Callable[[Times], float]) -> dict[Times, float]:
    """Every probe in order, none twice: grid indices (ascending, 0 = pure noise) → value.

    For each number of steps k ≤ intervals, evenly spaced times come first. Then the second time is searched over the whole grid with
    two-step samples, the third after it with three-step samples, and so on up to k. If a found time leaves no room for those that
    follow, the last index that does is taken: of a function with one minimum it is the best of those allowed.
    """
    probed: dict[Times, float] = {}

    def at(times: Times) -> float:
        if times not in probed:
            probed[times] = measure(times)
        return probed[times]

    def after(placed: Times, follow: int) -> Times:
        """`placed` with the best next index that leaves room for `follow` more."""
        last = intervals - 1 - follow
        if ternary(placed[-1] + 1, intervals - 1, lambda index: at((*placed, index))) > last:
            at((*placed, last))
        fits = {t: v for t, v in probed.items() if t[:-1] == placed and t[-1] <= last}
        return least(fits)

    for steps in sorted(numbers):
        at(tuple(step_indices(intervals, steps)))
        times: Times = (0,)
        for follow in reversed(range(steps - 1)):
            times = after(times, follow)
    return probed


def best(probed: Mapping[Times, float], steps: int) -> Times:
    """The grid indices with the least probed value for this number of steps."""
    return least({times: value for times, value in probed.items() if len(times) == steps})


# ----------------------------------------------------------------- what it measures


@dataclass(frozen=True)
class _Reference:
    """Features (n, D) of the data or of the teacher's samples, with which samples are compared."""

    artifact: Artifact
    features: np.ndarray

    @classmethod
    def read(cls, artifact: Artifact, side: str, extractor: FeatureExtractor, noise: Artifact) -> _Reference:
        """Read features; UserError if they belong to another side, extractor or noise."""
        of = {"data": "data", "teacher": "samples"}[side]
        if artifact.settings.get("of") != of or artifact.manifest["inputs"].get("noise") != noise.fingerprint:
            raise UserError(
                f"{artifact.folder}: are not the features of the {side} under {noise.folder}; make them again"
            )
        if artifact.settings.get("fingerprint") != extractor.fingerprint:
            raise UserError(f"{artifact.folder}: made by another extractor than {extractor.name} here; make them again")
        rows = [int(r["row"]) for r in artifact.csv("rows.csv")]
        if rows != list(range(len(rows))):
            raise UserError(f"{artifact.folder}: its rows are not 0 to m − 1; make the features again")
        return cls(artifact, artifact.arrays("features.safetensors")["image"])


@dataclass(frozen=True)
class _Sampler:
    """A student with one initial noise: features of its samples at given times."""

    name: str
    what: Evaluated
    student: Student
    intervals: int
    extractor: FeatureExtractor
    purpose: str
    key: Mapping[str, Any]
    scratch: Path

    def features(self, indices: Times, n: int) -> np.ndarray:
        """Features (n, D) of the first n rows; blocks in `scratch` are reused."""
        what, size = self.what, self.what.settings.batch_size
        texts = [p.text for p in read_prompts(what.noise)]

        def block(rows: range) -> dict[str, Tensor]:
            parts = []
            for start in range(rows.start, rows.stop, size):
                some = range(start, min(start + size, rows.stop))
                here = torch.tensor(list(some))
                cond = what.pool.conditioning(what.ids[here]).to(what.device)
                made = sample_at(
                    self.student, what.initial[here], cond, self.intervals, indices, what.seed, some, self.purpose
                )
                latents = made.float().cpu()
                if not bool(torch.isfinite(latents).all()):
                    raise UserError(
                        f"search: a sample of rows {some.start} to {some.stop - 1} at grid indices {_words(indices)} is not "
                        "finite; use evaluation.precision no or bf16"
                    )
                images = to_images(what.codec.decode(latents))
                parts.append(torch.from_numpy(self.extractor.extract(images, [texts[i] for i in some])["image"]))
            return {"features": torch.cat(parts)}

        place = self.scratch / f"{self.name}~{'-'.join(map(str, indices))}"
        blocks = block_ranges(n, what.settings.block, 0, 1)
        return work(place, {**self.key, "n": n}, blocks, block)["features"].numpy()


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
    if student.manifest["inputs"]["teacher"] != teacher.fingerprint:
        raise UserError(f"{student.folder}: distilled from another teacher; train it again")
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
    extractor = build_extractor(name, extractor_folder, device=device, batch_size=evaluation.batch_size)
    against = _Reference.read(reference, settings.reference, extractor, noise)
    here = Evaluated(evaluation, teacher, latents, search_noise, seed, device)
    there = here.under(noise)
    n_search, n = settings.samples, min(len(there.initial), len(against.features))
    if n_search > min(len(here.initial), len(against.features)):
        raise UserError(
            f"search.samples = {n_search} is more than the {min(len(here.initial), len(against.features))} rows of "
            f"{(search_noise if len(here.initial) < n_search else reference).folder}"
        )
    who = students.load(here.model, student)
    grid = who.process.grid(intervals).tolist()
    inputs = {
        "student": student, "teacher": teacher, "latents": latents, "noise": noise, "search_noise": search_noise,
        "reference": reference, **({} if extractor_folder is None else {"extractor": extractor_folder}),
    }  # fmt: skip
    key = {
        "code": digest("evaluation.search", loader(teacher), METRICS[metric].module),
        "evaluation": {k: getattr(evaluation, k) for k in ("block", "batch_size", "precision")},
        "seed": seed,
        "extractor": extractor.fingerprint,
        **{k: v.fingerprint for k, v in inputs.items()},
    }
    searched = _Sampler("search", here, who, intervals, extractor, "search_step_noise", key, scratch)
    held_out = _Sampler("evaluation", there, who, intervals, extractor, "step_noise", key, scratch)

    def distance(features: np.ndarray) -> float:
        return float(function(metric)(features, against.features[: len(features)]).value)

    def measure(indices: Times) -> float:
        value = distance(searched.features(indices, n_search))
        print(f"search: times {_words(grid[i] for i in indices)}: {metric} {value:.6g}", file=sys.stderr, flush=True)
        return value

    probed = greedy(intervals, settings.steps, measure)
    results: list[dict[str, Any]] = []
    for steps in sorted(settings.steps):
        even, found = tuple(step_indices(intervals, steps)), best(probed, steps)
        one, other = (held_out.features(indices, n) for indices in (even, found))
        difference, p = (
            (0.0, None) if even == found else _test(metric, other, one, against.features[:n], statistics, seed)
        )
        results.append(
            {
                "steps": steps,
                "probes": sum(len(times) == steps for times in probed),
                **{
                    label: {
                        "indices": list(indices), "times": [grid[i] for i in indices], "search": probed[indices],
                        "value": distance(features),
                    }
                    for label, indices, features in (("even", even, one), ("found", found, other))
                },
                "difference": difference,
                "p": p,
            }
        )  # fmt: skip
    public = {
        "run": run.axes(),
        **settings.model_dump(mode="json"),
        "permutations": statistics.permutations,
        "seed": seed,
    }
    public |= {"evaluation": key["evaluation"]}
    with new_artifact(out, "search", settings=public, inputs=inputs) as art:
        content = {"metric": metric, "reference": settings.reference, "n": n, "n_search": n_search}
        write_json(
            art / "search.json", {**content, "dim": against.features.shape[1], "run": run.axes(), "results": results}
        )
        rows = [
            {
                "probe": i, "steps": len(times), "indices": _words(times), "times": _words(grid[t] for t in times),
                "value": value, "n": n_search,
            }
            for i, (times, value) in enumerate(probed.items())
        ]  # fmt: skip
        write_csv(art / "probes.csv", rows, PROBES)
        drawn = sum(len(times) for times in probed) * n_search
        again = {tuple(r[label]["indices"]) for r in results for label in ("even", "found")}
        art.counts = {"probes": len(probed), "student_forwards": drawn + sum(map(len, again)) * n}
    clear(scratch)


def _test(
    metric: str, a: np.ndarray, b: np.ndarray, reference: np.ndarray, statistics: config.Statistics, seed: int
) -> tuple[float, float]:
    """(difference of the distances of a and b to the reference, p of a permutation test within rows); features (n, D)."""
    one, other, count = a[None], b[None], statistics.permutations
    if METRICS[metric].test == "frechet":
        test = frechet_difference_test(one, other, reference, count, seed)
    else:
        test = kernel_difference_test(one, other, reference, METRICS[metric].test, count, seed)
    return test.difference, test.p
