"""The verb `evaluate`: every metric of one sample set, or of all sets of a run, from samples and features. No torch.

Distances to the teacher use all rows, distances to data the first min(n, n_data) rows of both sides: a Fréchet
distance at another n is another number. Means of per-sample values carry a bootstrap interval; distances carry none,
because a plain bootstrap of them is invalid. A metric that n does not allow (FD∞) has no entry. What a metric is stands in its
own module (directcm.evaluation.metrics).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from directcm.config import Ode, Run, Statistics
from directcm.config.specs import METRICS, Metric
from directcm.errors import UserError
from directcm.evaluation.metrics import Scores, function
from directcm.evaluation.metrics.samples import SampleSet, open_image, read_prompts, read_samples, samples_inputs
from directcm.runtime.artifacts import Artifact, new_artifact, new_collection, write_csv, write_json
from directcm.statistics.bootstrap import mean_interval

TEACHER = "Teacher"
FLOOR = "Teacher, other noise"
"""The row of the teacher against itself: how far apart two draws of one distribution are at this n."""


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


class _Sides:
    """What a set is compared with: the teacher's reference, the data and the prompts, opened and checked once.

    `noise` is the evaluated sets' own; the reference, and the rows of the data, are those of `reference_noise`.
    """

    def __init__(
        self,
        data: Artifact,
        noise: Artifact,
        data_features: Mapping[str, Artifact],
        reference: Sequence[Artifact] | None,
        reference_features: Mapping[str, Artifact] | None,
        reference_noise: Artifact | None,
        metrics: Sequence[str],
        row: str,
    ) -> None:
        reference = reference or None
        if row == TEACHER and reference is not None:
            raise UserError("evaluate: the teacher's row takes no reference, it would be its own")
        if (row == FLOOR) != (reference_noise is not None):
            raise UserError(
                f"evaluate: the noise of the reference is for the row {FLOOR!r} and needed there, the row is {row!r}"
            )
        if reference_noise is not None and reference_noise.fingerprint == noise.fingerprint:
            raise UserError(f"{noise.folder}: is both the noise and the reference's; {FLOOR!r} needs a second draw")
        for name in metrics:
            if name not in METRICS:
                raise UserError(f"evaluate: unknown metric {name!r}; there are {', '.join(METRICS)}")
            if row != TEACHER and reference is None and "teacher" in METRICS[name].references:
                raise UserError(f"evaluate: {name} of {row} needs the teacher's samples, none were given")
        self.row = row
        self.metrics = tuple(metrics)
        self.data = data
        self.noise = noise
        self.reference_noise = noise if reference_noise is None else reference_noise
        self.prompts = read_prompts(noise)
        if reference_noise is not None and read_prompts(reference_noise) != self.prompts:
            raise UserError(
                f"{noise.folder} and {reference_noise.folder}: two draws of noise need the same prompts row by row; "
                "run the noise steps again"
            )
        self.reference = reference
        self.theirs = None if reference is None else _complete(reference, self.reference_noise, len(self.prompts))
        self._features = {"data": data_features, "teacher": reference_features}
        self._picked: dict[tuple[str, str], _Features] = {}
        self.inputs: dict[str, Artifact] = {
            "data": data,
            "noise": noise,
            **samples_inputs(reference or (), "reference"),
        }
        if reference_noise is not None:
            self.inputs["reference_noise"] = reference_noise

    def pick(self, side: str, extractor: str) -> _Features:
        """The checked features of a side, "data" or "teacher"."""
        if (side, extractor) not in self._picked:
            if side == "data":
                found = _pick(self._features[side], extractor, "the data").of_data(self.data, self.reference_noise)
            else:
                assert self.reference is not None and self.theirs is not None
                found = _pick(self._features[side], extractor, "the teacher's reference").of_samples(
                    self.reference, self.theirs.rows, self.reference_noise
                )
            self._picked[side, extractor] = found
        return self._picked[side, extractor]

    @cached_property
    def latents(self) -> np.ndarray:
        """Final latents of the reference, in the order of its rows."""
        assert self.theirs is not None
        return self.theirs.latents()


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
    run: Run | Ode,
    statistics: Statistics,
    seed: int,
    out: str | Path,
    step: int | None = None,
    reference_noise: Artifact | None = None,
) -> dict[str, Any]:
    """Write the metrics artefact of one sample set, and return the content of its metrics.json.

    `samples` are the set's shards, which together hold every row of `noise`; `features`, `data_features` and
    `reference_features` are by extractor name. `reference` is the teacher's shards of the student's own ODE, None for
    the teacher's row, which has no distance to itself. `run` is the set's run, the teacher's its ODE; `steps` its
    number of sampling steps, `step` the optimiser step of its student (None for the teacher).

    The row `FLOOR` is the teacher's samples of a second noise, with the same prompts, against its samples of the first,
    `reference_noise`, under which `reference` and `data_features` were made. It has every metric but the ODE error.
    """
    sides = _Sides(data, noise, data_features, reference, reference_features, reference_noise, metrics, row)
    return _measure(
        sides, samples, features, steps=steps, step=step, run=run, statistics=statistics, seed=seed, out=out
    )


def evaluate_collection(
    samples: Mapping[str, Artifact],
    features: Mapping[str, Mapping[str, Artifact]],
    data: Artifact,
    noise: Artifact,
    data_features: Mapping[str, Artifact],
    reference: Sequence[Artifact],
    reference_features: Mapping[str, Artifact],
    *,
    metrics: Sequence[str],
    row: str,
    run: Run | Ode,
    statistics: Statistics,
    seed: int,
    out: str | Path,
) -> dict[str, dict[str, Any]]:
    """Write the metrics of a student run's sample sets as a collection; the contents of the metrics.json by set name.

    `samples` is set name → samples artefact, `features` extractor → set name → features artefact. The reference, the
    data and the prompt-accuracy classifier are opened once; out/<name> is what `evaluate` would write of that set, with
    `step` and `steps` from the settings of its samples. Sets without features, or features without a set, are a
    UserError.
    """
    if not samples:
        raise UserError("evaluate: the collection of samples is empty; run the sample step again")
    for extractor, parts in features.items():
        if set(parts) != set(samples):
            odd = sorted(set(parts) ^ set(samples))[0]
            raise UserError(
                f"evaluate: set {odd} is not in both the samples and their features by {extractor}; run the features step again"
            )
    sides = _Sides(data, noise, data_features, reference, reference_features, None, metrics, row)
    contents = {}
    for name, part in samples.items():
        contents[name] = _measure(
            sides,
            [part],
            {extractor: parts[name] for extractor, parts in features.items()},
            steps=_which(part, "steps"),
            step=_which(part, "step"),
            run=run,
            statistics=statistics,
            seed=seed,
            out=Path(out) / name,
        )
    settings = {
        "row": row,
        "run": run.axes(),
        "metrics": list(metrics),
        "statistics": statistics.model_dump(mode="json"),
        "seed": seed,
    }
    new_collection(Path(out), "metrics", list(samples), settings=settings, inputs=sides.inputs)
    return contents


def _which(samples: Artifact, name: str) -> int:
    """A number that says which set of its run this is."""
    value = samples.settings.get(name)
    if not isinstance(value, int):
        raise UserError(f"{samples.folder / 'manifest.json'}: has no setting {name!r}; run the sample step again")
    return value


def _origin(shards: Sequence[Artifact]) -> list[Any]:
    """What made each of the shards, noise apart; equal shards of one set count once."""
    found: list[Any] = []
    for shard in shards:
        one = [shard.settings.get("ode"), *(shard.manifest["inputs"].get(who) for who in ("teacher", "student"))]
        if one not in found:
            found.append(one)
    return found


def _measure(
    sides: _Sides,
    samples: Sequence[Artifact],
    features: Mapping[str, Artifact],
    *,
    steps: int,
    step: int | None,
    run: Run | Ode,
    statistics: Statistics,
    seed: int,
    out: str | Path,
) -> dict[str, Any]:
    own = _complete(samples, sides.noise, len(sides.prompts))
    theirs = sides.theirs
    if {s.fingerprint for s in samples} & {s.fingerprint for s in sides.reference or ()}:
        raise UserError(f"{samples[0].folder}: is both the set and its reference")
    if sides.row == FLOOR and _origin(samples) != _origin(sides.reference or ()):
        raise UserError(
            f"{samples[0].folder}: is not of the teacher and the ODE of its reference; {FLOOR!r} compares one with itself"
        )

    entries: list[dict[str, Any]] = []
    columns: dict[str, np.ndarray] = {}
    checks: dict[str, Any] = {}
    used: dict[str, Artifact] = {**sides.inputs, **samples_inputs(samples)}
    picked: dict[str, _Features] = {}
    results: dict[tuple[str | None, ...], Any] = {}

    def mine(extractor: str) -> _Features:
        if extractor not in picked:
            found = _pick(features, extractor, "the samples").of_samples(samples, own.rows, sides.noise)
            picked[extractor] = found
            used[f"features_samples_{extractor}"] = found.folder
        return picked[extractor]

    def labels() -> list[str]:
        return [sides.prompts[int(row)].label for row in own.rows]

    given: dict[str, Callable[[], Any]] = {
        "latents": own.latents,
        "rows": lambda: own.rows,
        "images": lambda: [open_image(*own.image(i)) for i in range(own.rows.size)],
        "labels": labels,
        "data": lambda: sides.data,
        "seed": lambda: seed,
        "reference.latents": lambda: sides.latents,
        "reference.rows": lambda: None if theirs is None else theirs.rows,
    }

    def taken(spec: Metric, against: str) -> tuple[list[Any], int, int | None]:
        """What a metric's function takes, and its rows of the samples and of the reference (None where it takes none)."""
        one = mine(spec.extractor) if spec.extractor else None
        other, rows, rows_there = None, int(own.rows.size), None
        compares = any(word.startswith("reference.") for word in spec.takes)
        if compares and spec.extractor and one is not None:
            other = sides.pick(against, spec.extractor)
            used[f"features_{against}_{spec.extractor}"] = other.folder
            one.same_extractor(other)
            rows = rows_there = min(one.rows.size, other.rows.size)
        elif compares and theirs is not None:
            rows_there = int(theirs.rows.size)

        def array(word: str) -> np.ndarray:
            side = other if word.startswith("reference.") else one
            assert side is not None
            return side.array(word.removeprefix("reference."))[:rows]

        return [given[word]() if word in given else array(word) for word in spec.takes], rows, rows_there

    def measure(spec: Metric, against: str) -> None:
        key = (spec.module, spec.function, spec.extractor, against)
        if key not in results:
            arguments, n, n_reference = taken(spec, against)
            shape = getattr(arguments[0], "shape", ())[1:]
            about = {"n": n, "n_reference": n_reference, "dim": int(np.prod(shape)) if shape else None}
            results[key] = function(spec.name)(*arguments), about
        result, about = results[key]
        if result is None:
            return
        entry = {"metric": spec.name, "reference": against, "value": None, "low": None, "high": None, **about}
        if spec.per_sample:
            found = result if isinstance(result, Scores) else Scores(result)
            values = found.values
            if not np.isfinite(values).all():
                raise UserError(
                    f"{spec.name}: the value of row {int(own.rows[np.argmin(np.isfinite(values))])} is NaN or infinite; "
                    "make the samples again"
                )
            low, high = mean_interval(values, resamples=statistics.bootstrap, level=statistics.level, seed=seed)
            columns[spec.name] = values
            checks.update(found.checks)
            entry |= {"value": float(values.mean()), "low": low, "high": high, "flags": list(found.flags)}
        elif isinstance(result, int | float):
            entry |= {"value": float(result), "flags": []}
        else:
            entry |= {"value": getattr(result, spec.part), "dim": result.dim, "flags": list(result.flags)}
        entries.append(entry)

    for spec in (METRICS[name] for name in sides.metrics):
        for against in spec.references:
            if against != "teacher" or not (theirs is None or (spec.same_noise and sides.row == FLOOR)):
                measure(spec, against)

    which = {"row": sides.row, "steps": steps, "step": step, "run": run.axes()}
    content = {
        **which,
        "metrics": entries,
        "checks": checks,
        "fingerprints": {key: item.fingerprint for key, item in sorted(used.items())},
    }
    settings = {
        **which,
        "metrics": list(sides.metrics),
        "statistics": statistics.model_dump(mode="json"),
        "seed": seed,
    }
    with new_artifact(out, "metrics", settings=settings, inputs=used) as art:
        write_json(art / "metrics.json", content)
        rows = [{"row": int(r), **{k: float(v[i]) for k, v in columns.items()}} for i, r in enumerate(own.rows)]
        write_csv(art / "per_sample.csv", rows, ["row", *columns])
        art.counts = {"rows": int(own.rows.size), "metrics": len(entries)}
    return content
