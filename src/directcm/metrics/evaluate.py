"""The verb `evaluate`: every metric of one sample set, from its samples and features. Imports no torch.

Distances to the teacher use all rows, distances to data the first min(n, n_data) rows of both sides: a Fréchet
distance at another n is another number. Means of per-sample values carry a bootstrap interval; distances carry none,
because a plain bootstrap of them is invalid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from directcm.artifacts import Artifact, new_artifact, write_csv, write_json
from directcm.config import Statistics
from directcm.errors import UserError
from directcm.metrics.bootstrap import mean_interval
from directcm.metrics.clip_score import cosine
from directcm.metrics.frechet import FrechetResult, frechet_distance
from directcm.metrics.kernel import KernelResult, kernel_distance
from directcm.metrics.ode_error import ode_error
from directcm.metrics.prompt_accuracy import TRUSTED, open_image, train_classifier
from directcm.metrics.samples import Prompt, SampleSet, read_prompts, read_samples, samples_inputs
from directcm.specs import METRICS

TEACHER = "Teacher"

DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], FrechetResult | KernelResult]] = {
    "fd_tiny": frechet_distance,
    "fid": frechet_distance,
    "fid_legacy_pytorch": frechet_distance,
    "fd_dino": frechet_distance,
    "kid_tiny": kernel_distance,
    "kid": kernel_distance,
}
COSINES = ("clip_tiny", "clip_score")
SCORES = ("quality_tiny", "aesthetic")
assert {*DISTANCES, *COSINES, *SCORES, "ode_error", "prompt_accuracy"} == set(METRICS)


def _complete(shards: Sequence[Artifact], noise: Artifact, n: int) -> SampleSet:
    """A sample set that holds every row of the evaluation; a missing shard is a UserError."""
    joined = read_samples(shards, noise, n)
    if joined.rows.size != n:
        raise UserError(
            f"{shards[0].folder}: its {len(shards)} shard(s) hold {joined.rows.size} of {n} rows of {noise.folder}; "
            "pass all shards"
        )
    return joined


class _Features:
    """Checked features of one extractor, over a sample set or over the data reference."""

    def __init__(self, folder: Artifact, extractor: str) -> None:
        if folder.settings.get("extractor") != extractor:
            raise UserError(f"{folder.folder}: features of {folder.settings.get('extractor')}, expected {extractor}")
        self.folder = folder
        self.fingerprint = folder.settings["fingerprint"]
        self.rows = np.array([int(r["row"]) for r in folder.csv("rows.csv")], dtype=np.int64)
        self.arrays = folder.arrays("features.safetensors")
        for name, array in self.arrays.items():
            if array.shape[0] != self.rows.size:
                raise UserError(
                    f"{folder.folder}: {array.shape[0]} rows of {name}, {self.rows.size} row numbers; make them again"
                )

    def array(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            raise UserError(f"{self.folder.folder}: has no {name} features")
        return self.arrays[name]

    def of_samples(self, shards: Sequence[Artifact], rows: np.ndarray, noise: Artifact) -> _Features:
        """Self, if these are the features of just these shards, row by row."""
        inputs = self.folder.manifest["inputs"]
        stated = sorted(value for key, value in inputs.items() if key.startswith("samples_"))
        if self.folder.settings.get("of") != "samples" or stated != sorted(shard.fingerprint for shard in shards):
            raise UserError(
                f"{self.folder.folder}: are not the features of {shards[0].folder}; another set's were passed, "
                "or the samples were made anew"
            )
        if inputs.get("noise") != noise.fingerprint or not np.array_equal(self.rows, rows):
            raise UserError(
                f"{self.folder.folder}: its rows are not those of {shards[0].folder}; make the features again"
            )
        return self

    def of_data(self, data: Artifact, noise: Artifact) -> _Features:
        """Self, if these are the features of the data reference of this noise."""
        inputs = self.folder.manifest["inputs"]
        if (
            self.folder.settings.get("of") != "data"
            or inputs.get("data") != data.fingerprint
            or inputs.get("noise") != noise.fingerprint
        ):
            raise UserError(
                f"{self.folder.folder}: are not the features of {data.folder} under {noise.folder}; make them again"
            )
        if not np.array_equal(self.rows, np.arange(self.rows.size)):
            raise UserError(f"{self.folder.folder}: its rows are not 0 to m − 1; make the features again")
        return self

    def same_extractor(self, other: _Features) -> None:
        if self.fingerprint != other.fingerprint:
            raise UserError(
                f"{self.folder.folder} and {other.folder.folder}: features of two different versions of one extractor "
                "(other weights, preprocessing or code); make both again"
            )


def _pick(features: Mapping[str, Artifact] | None, extractor: str, side: str) -> _Features:
    if features is None or extractor not in features:
        raise UserError(f"evaluate: features of {side} by {extractor} are missing; run the features step for it")
    return _Features(features[extractor], extractor)


def evaluate(
    samples: Sequence[Artifact],
    features: Mapping[str, Artifact],
    data: Artifact,
    noise: Artifact,
    data_features: Mapping[str, Artifact],
    reference: Sequence[Artifact] | None,
    reference_features: Mapping[str, Artifact] | None,
    *,
    metrics: Sequence[str],
    row: str,
    steps: int,
    run: Mapping[str, Any],
    statistics: Statistics,
    seed: int,
    out: str | Path,
) -> dict[str, Any]:
    """Write the metrics artefact of one sample set, and return the content of its metrics.json.

    `samples` are the set's shards, which together hold every row of `noise`; `features`, `data_features` and
    `reference_features` are by extractor name. `reference` is the teacher's shards of the student's own ODE, None for
    the teacher's row, which has no distance to itself. `run` is the set's axes, recorded as they are.
    """
    if row == TEACHER and reference is not None:
        raise UserError("evaluate: the teacher's row takes no reference, it would be its own")
    for name in metrics:
        if name not in METRICS:
            raise UserError(f"evaluate: unknown metric {name!r}; there are {', '.join(METRICS)}")
        if row != TEACHER and reference is None and "teacher" in METRICS[name].references:
            raise UserError(f"evaluate: {name} of {row} needs the teacher's samples, none were given")
    prompts = read_prompts(noise)
    own = _complete(samples, noise, len(prompts))
    theirs = None if reference is None else _complete(reference, noise, len(prompts))
    if reference is not None and {s.fingerprint for s in samples} & {s.fingerprint for s in reference}:
        raise UserError(f"{samples[0].folder}: is both the set and its reference")

    entries: list[dict[str, Any]] = []
    columns: dict[str, np.ndarray] = {}
    checks: dict[str, Any] = {}
    used: dict[str, Artifact] = {
        "data": data,
        "noise": noise,
        **samples_inputs(samples),
        **samples_inputs(reference or (), "reference"),
    }

    def pick(side: str, extractor: str) -> _Features:
        if side == "data":
            found = _pick(data_features, extractor, "the data").of_data(data, noise)
        elif side == "teacher":
            assert reference is not None and theirs is not None
            found = _pick(reference_features, extractor, "the teacher's reference").of_samples(
                reference, theirs.rows, noise
            )
        else:
            found = _pick(features, extractor, "the samples").of_samples(samples, own.rows, noise)
        used[f"features_{side}_{extractor}"] = found.folder
        return found

    def add(name: str, against: str, value: float, **more: Any) -> None:
        entry = {
            "low": None,
            "high": None,
            "n": int(own.rows.size),
            "n_reference": None,
            "dim": None,
            "flags": [],
            **more,
        }
        entries.append({"metric": name, "reference": against, "value": value, **entry})

    def add_mean(name: str, against: str, values: np.ndarray, **more: Any) -> None:
        if not np.isfinite(values).all():
            raise UserError(
                f"{name}: the value of row {int(own.rows[np.argmin(np.isfinite(values))])} is NaN or infinite; "
                "make the samples again"
            )
        low, high = mean_interval(values, resamples=statistics.bootstrap, level=statistics.level, seed=seed)
        columns[name] = values
        add(name, against, float(values.mean()), low=low, high=high, **more)

    for name in metrics:
        extractor = METRICS[name].extractor
        if name in DISTANCES:
            assert extractor is not None
            mine = pick("samples", extractor)
            for against in METRICS[name].references:
                if against == "teacher" and theirs is None:
                    continue
                other = pick(against, extractor)
                mine.same_extractor(other)
                m = min(mine.rows.size, other.rows.size)
                result = DISTANCES[name](mine.array("image")[:m], other.array("image")[:m])
                add(name, against, result.value, n=m, n_reference=m, dim=result.dim, flags=list(result.flags))
        elif name in COSINES:
            assert extractor is not None
            mine = pick("samples", extractor)
            add_mean(
                name, "prompt", cosine(mine.array("image"), mine.array("text")), dim=int(mine.array("image").shape[1])
            )
        elif name in SCORES:
            assert extractor is not None
            add_mean(name, "none", pick("samples", extractor).array("score").astype(np.float64))
        elif name == "ode_error":
            if theirs is not None:
                latents = own.latents()
                values = ode_error(latents, own.rows, theirs.latents(), theirs.rows)
                add_mean(
                    name, "teacher", values, n_reference=int(theirs.rows.size), dim=int(np.prod(latents.shape[1:]))
                )
        else:
            values, held_out = _prompt_accuracy(own, prompts, data)
            checks["prompt_accuracy_held_out"] = held_out
            weak = held_out is None or held_out < TRUSTED
            add_mean(name, "prompt", values, flags=["weak_classifier"] if weak else [])

    content = {
        "row": row,
        "steps": steps,
        "run": dict(run),
        "metrics": entries,
        "checks": checks,
        "fingerprints": {key: item.fingerprint for key, item in sorted(used.items())},
    }
    settings = {
        "row": row,
        "steps": steps,
        "run": dict(run),
        "metrics": list(metrics),
        "statistics": statistics.model_dump(mode="json"),
        "seed": seed,
    }
    with new_artifact(out, "metrics", settings=settings, inputs=used) as art:
        write_json(art / "metrics.json", content)
        rows = [{"row": int(r), **{k: float(v[i]) for k, v in columns.items()}} for i, r in enumerate(own.rows)]
        write_csv(art / "per_sample.csv", rows, ["row", *columns])
        art.counts = {"rows": int(own.rows.size), "metrics": len(entries)}
    return content


def _prompt_accuracy(own: SampleSet, prompts: Sequence[Prompt], data: Artifact) -> tuple[np.ndarray, float | None]:
    """Per-row 0/1 correctness (n,), and the classifier's accuracy on held-out real images."""
    classifier = train_classifier(data)
    images = [open_image(*own.image(i)) for i in range(own.rows.size)]
    return classifier.correct(images, [prompts[int(r)].label for r in own.rows]), classifier.held_out_accuracy
