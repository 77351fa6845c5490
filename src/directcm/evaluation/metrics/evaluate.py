"""The verb `evaluate`: every metric of one sample set, or of all sets of a run, from samples and features. No torch.

Distances to the teacher use all rows, distances to data the first min(n, n_data) rows of both sides: a Fréchet
distance at another n is another number. Means of per-sample values carry a bootstrap interval; distances carry none,
because a plain bootstrap of them is invalid. A metric that n does not allow (FD∞) has no entry. What a metric is stands in its
own module (directcm.evaluation.metrics).

Beside the metrics: every per-sample value (per_sample.csv), the tables of metrics that have some, and how far samples with a larger ODE
error are worse or better in other metrics of single samples (correlations.csv).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from directcm.config import Ode, Run, Statistics
from directcm.config.specs import EXTRACTORS, METRICS, Metric
from directcm.errors import UserError
from directcm.evaluation.common import numbered
from directcm.evaluation.metrics import Scores, function
from directcm.evaluation.metrics.samples import (
    Prompt,
    SampleSet,
    open_image,
    read_prompts,
    read_samples,
)
from directcm.runtime.artifacts import Artifact, Writer, new_artifact, new_collection, write_csv, write_json
from directcm.statistics.baselines import indexed
from directcm.statistics.bootstrap import mean_interval
from directcm.statistics.error_parts import Directions, principal, rank_correlation

TEACHER = "Teacher"
FLOOR = "Teacher, other noise"
"""The row of the teacher against itself: how far apart two draws of one distribution are at this n."""
VARIED_SETS = ("start", "scaling", "relay", "at")
"""Settings of samples that are not a plain set of their student; each is left out where it is as in one."""


def _complete(shards: Sequence[Artifact], noise: Artifact, n: int) -> SampleSet:
    """A sample set that holds every row of the evaluation; a missing shard is a UserError."""
    joined = read_samples(shards, noise, n)
    if joined.rows.size != n:
        raise UserError(
            f"{shards[0].folder}: its {len(shards)} shard(s) hold {joined.rows.size} of {n} rows of {noise.folder}; "
            "pass all shards"
        )
    return joined


class Features:
    """Checked features of one extractor over `owners`: the shards of a sample set, or the data; row by row."""

    def __init__(
        self,
        features: Mapping[str, Artifact] | None,
        extractor: str,
        side: str,
        owners: Sequence[Artifact],
        noise: Artifact,
        rows: np.ndarray | None = None,
    ) -> None:
        if features is None or extractor not in features:
            raise UserError(f"evaluate: features of {side} by {extractor} are missing; run the features step for it")
        self.artifact = features[extractor]
        settings, inputs, here = self.artifact.settings, self.artifact.manifest["inputs"], self.artifact.folder
        if settings.get("extractor") != extractor:
            raise UserError(f"{here}: features of {settings.get('extractor')}, expected {extractor}")
        kind = owners[0].kind
        stated = sorted(value for key, value in inputs.items() if key.startswith(kind))
        if (settings.get("of"), stated) != (kind, sorted(owner.fingerprint for owner in owners)):
            raise UserError(
                f"{here}: are not the features of {owners[0].folder}; another set's were passed, or it was made anew; "
                "make them again"
            )
        if inputs.get("noise") != noise.fingerprint:
            raise UserError(f"{here}: are not the features of {owners[0].folder} under {noise.folder}; make them again")
        self.rows = np.array([int(r["row"]) for r in self.artifact.csv("rows.csv")], dtype=np.int64)
        if not np.array_equal(self.rows, np.arange(self.rows.size) if rows is None else rows):
            raise UserError(f"{here}: its rows are not those of {owners[0].folder}; make the features again")
        self.fingerprint = settings["fingerprint"]
        self.arrays = self.artifact.arrays("features.safetensors")
        for name in EXTRACTORS[extractor].arrays:
            if name not in self.arrays:
                raise UserError(f"{here}: has no {name} features; make them again")
            count = self.arrays[name].shape[0]
            if count != self.rows.size:
                raise UserError(f"{here}: {count} rows of {name}, {self.rows.size} row numbers; make them again")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How sample sets are measured, and what they are compared with: the teacher's reference, the data and the prompts.

    `row` says whose sets they are, `run` is their run (the teacher's: its ODE). `noise` is the sets' own. `reference` is the teacher's
    shards of the student's own ODE, None for the teacher's row, which has no distance to itself. Features are by extractor name.

    The row `FLOOR` is the teacher's samples of a second noise, with the same prompts, against its samples of the first,
    `reference_noise`, under which `reference` and `data_features` were made. It has every metric but the ODE error.

    The reference "other_noise" is the teacher's samples of a noise that is not the sets' own: `other`, of `other_noise` and the same
    prompts; of the row `FLOOR` its `reference`.
    """

    metrics: Sequence[str]
    row: str
    run: Run | Ode
    statistics: Statistics
    seed: int
    data: Artifact
    noise: Artifact
    data_features: Mapping[str, Artifact]
    reference: Sequence[Artifact] | None = None
    reference_features: Mapping[str, Artifact] | None = None
    reference_noise: Artifact | None = None
    other: Sequence[Artifact] = ()
    other_features: Mapping[str, Artifact] | None = None
    other_noise: Artifact | None = None
    _read: dict[tuple[str, str], Features] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.row == TEACHER and self.reference:
            raise UserError("evaluate: the teacher's row takes no reference, it would be its own")
        if (self.row == FLOOR) != (self.reference_noise is not None):
            raise UserError(
                f"evaluate: the noise of the reference is for the row {FLOOR!r} and needed there, the row is {self.row!r}"
            )
        for name in self.metrics:
            if name not in METRICS:
                raise UserError(f"evaluate: unknown metric {name!r}; there are {', '.join(METRICS)}")
            if self.row != TEACHER and not self.reference and "teacher" in METRICS[name].references:
                raise UserError(f"evaluate: {name} of {self.row} needs the teacher's samples, none were given")
            if self.row != FLOOR and not self.other and "other_noise" in METRICS[name].references:
                raise UserError(f"evaluate: {name} needs the teacher's samples of another noise, none were given")
        if self.other and (self.row == FLOOR or self.other_noise is None):
            raise UserError(
                f"evaluate: samples of another noise come with that noise, and are not for the row {FLOOR!r}, whose own they are"
            )
        if self.reference_noise is not None:
            self._second(self.reference_noise, f"is both the noise and the reference's; {FLOOR!r} needs a second draw")
        if self.other and self.other_noise is not None:
            self._second(self.other_noise, "is both the noise and the other one; a distance to it needs a second draw")

    def _second(self, other: Artifact, otherwise: str) -> None:
        """UserError unless a noise is a second draw for the same prompts."""
        if other.fingerprint == self.noise.fingerprint:
            raise UserError(f"{self.noise.folder}: {otherwise}")
        if read_prompts(other) != self.prompts:
            raise UserError(
                f"{self.noise.folder} and {other.folder}: two draws of noise need the same prompts row by row; "
                "run the noise steps again"
            )

    @cached_property
    def prompts(self) -> list[Prompt]:
        return read_prompts(self.noise)

    @cached_property
    def theirs(self) -> SampleSet | None:
        """The reference's samples."""
        return _complete(self.reference, self._noise, len(self.prompts)) if self.reference else None

    @cached_property
    def latents(self) -> np.ndarray | None:
        """Final latents of the reference, in the order of its rows."""
        return self.theirs.latents() if self.theirs else None

    @cached_property
    def directions(self) -> Directions:
        """The principal directions of the reference's final latents."""
        assert self.latents is not None
        return principal(self.latents)

    @cached_property
    def groups(self) -> np.ndarray:
        """The label of each row as a number (n,); one of all rows where there are none."""
        return indexed([prompt.label for prompt in self.prompts])

    @property
    def _noise(self) -> Artifact:
        return self.reference_noise or self.noise

    def features(self, side: str, extractor: str) -> Features:
        """The checked features of a side, "data", "teacher" or "other_noise"."""
        if (side, extractor) not in self._read:
            if side == "data":
                found = Features(self.data_features, extractor, "the data", [self.data], self._noise)
            elif side == "other_noise":
                assert self.other and self.other_noise
                rows = _complete(self.other, self.other_noise, len(self.prompts)).rows
                whose = ("the teacher's samples of another noise", self.other, self.other_noise, rows)
                found = Features(self.other_features, extractor, *whose)
            else:
                assert self.reference and self.theirs
                whose = ("the teacher's reference", self.reference, self._noise, self.theirs.rows)
                found = Features(self.reference_features, extractor, *whose)
            self._read[side, extractor] = found
        return self._read[side, extractor]

    def settings(self) -> dict[str, Any]:
        """The settings of the metrics of any set."""
        return {
            "row": self.row,
            "run": self.run.axes(),
            "metrics": list(self.metrics),
            "statistics": self.statistics.model_dump(mode="json"),
            "seed": self.seed,
        }

    def inputs(self) -> dict[str, Artifact]:
        """What the metrics of any set are made from, but for the set and features."""
        found = {"data": self.data, "noise": self.noise, **numbered("reference", self.reference or ())}
        if self.reference_noise is not None:
            found["reference_noise"] = self.reference_noise
        if self.other and self.other_noise is not None:
            found |= {**numbered("other", self.other), "other_noise": self.other_noise}
        return found


def evaluate(
    compared: Comparison,
    samples: Sequence[Artifact],
    features: Mapping[str, Artifact],
    out: str | Path,
    *,
    steps: int,
    step: int | None = None,
    varied: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the metrics artefact of one sample set, and return the content of its metrics.json.

    `samples` are the set's shards, which together hold every row of the noise; `features` are by extractor name. `steps` is the
    set's number of sampling steps, `step` the optimiser step of its student (None for the teacher), `varied` what else is not as in
    a plain set (`VARIED_SETS`).
    """
    mine = _complete(samples, compared.noise, len(compared.prompts))
    if compared.theirs is not None and {s.fingerprint for s in samples} & {
        s.fingerprint for s in compared.reference or ()
    }:
        raise UserError(f"{samples[0].folder}: is both the set and its reference")
    if compared.row == FLOOR and _origin(samples) != _origin(compared.reference or ()):
        raise UserError(
            f"{samples[0].folder}: is not of the teacher and the ODE of its reference; {FLOOR!r} compares one with itself"
        )
    if compared.other and _origin(compared.other) != _origin(compared.reference or samples):
        raise UserError(
            f"{compared.other[0].folder}: is not of the teacher and the ODE of {(compared.reference or samples)[0].folder}; "
            "a distance to another noise is to the same teacher"
        )
    used = {**compared.inputs(), **numbered("samples", samples)}

    @cache
    def features_of(extractor: str) -> Features:
        return Features(features, extractor, "the samples", samples, compared.noise, mine.rows)

    found = measured(compared, mine, features_of, used)
    more = dict(varied or {})
    settings = compared.settings() | {"steps": steps, "step": step, **more}
    with new_artifact(out, "metrics", settings=settings, inputs=used) as art:
        return found.write(art, mine.rows, settings, used, **more)


class Set(Protocol):
    """A sample set, held or made: rows (m,) ascending, and what the metrics read of it."""

    @property
    def rows(self) -> np.ndarray: ...

    def latents(self) -> np.ndarray: ...

    def image(self, index: int) -> tuple[Artifact, str]: ...


@dataclass(frozen=True)
class Measured:
    """The metrics of one sample set: entries of metrics.json, per-sample columns, checks, and further tables by name."""

    entries: list[dict[str, Any]]
    columns: dict[str, np.ndarray]
    checks: dict[str, Any]
    tables: dict[str, list[dict[str, Any]]]

    def write(
        self, art: Writer, rows: np.ndarray, settings: Mapping[str, Any], used: Mapping[str, Artifact], **more: Any
    ) -> dict[str, Any]:
        """Write metrics.json, whose content is returned, per_sample.csv and the tables; `more` stands in metrics.json too."""
        content = {
            **{name: settings[name] for name in ("row", "steps", "step", "run")},
            "metrics": self.entries,
            "checks": self.checks,
            **more,
            "fingerprints": {key: item.fingerprint for key, item in used.items()},
        }
        write_json(art / "metrics.json", content)
        lines = [{"row": int(r), **{k: float(v[i]) for k, v in self.columns.items()}} for i, r in enumerate(rows)]
        write_csv(art / "per_sample.csv", lines, ["row", *self.columns])
        for name, table in self.tables.items():
            write_csv(art / f"{name}.csv", table, list(table[0]))
        art.counts = {"rows": int(rows.size), "metrics": len(self.entries)}
        return content


def measured(
    compared: Comparison, mine: Set, features_of: Callable[[str], Features], used: dict[str, Artifact]
) -> Measured:
    """The metrics of a sample set; the features that they are computed on are added to `used`."""
    theirs = compared.theirs
    entries: list[dict[str, Any]] = []
    columns: dict[str, np.ndarray] = {}
    checks: dict[str, Any] = {}
    tables: dict[str, list[dict[str, Any]]] = {}
    results: dict[tuple[str | None, ...], Any] = {}
    given: dict[str, Callable[[], Any]] = {
        "latents": mine.latents,
        "rows": lambda: mine.rows,
        "images": lambda: [open_image(*mine.image(i)) for i in range(mine.rows.size)],
        "labels": lambda: [compared.prompts[int(row)].label for row in mine.rows],
        "groups": lambda: compared.groups[mine.rows],
        "data": lambda: compared.data,
        "seed": lambda: compared.seed,
        "reference.latents": lambda: compared.latents,
        "reference.rows": lambda: None if theirs is None else theirs.rows,
        "reference.directions": lambda: compared.directions,
    }

    def computed(spec: Metric, against: str) -> tuple[Any, dict[str, int | None]]:
        """The result of a metric's function; its rows of the samples and of the reference (None: it takes none), and its dimension."""
        compares = any(word.startswith("reference.") for word in spec.takes)
        n, n_reference = mine.rows.size, theirs.rows.size if compares and theirs else None
        arrays: dict[str, np.ndarray] = {}
        if spec.extractor:
            one = features_of(spec.extractor)
            used[f"features_samples_{spec.extractor}"] = one.artifact
            arrays |= one.arrays
            if compares:
                other = compared.features(against, spec.extractor)
                used[f"features_{against}_{spec.extractor}"] = other.artifact
                if one.fingerprint != other.fingerprint:
                    raise UserError(
                        f"{one.artifact.folder} and {other.artifact.folder}: features of two different versions of one "
                        "extractor (other weights, preprocessing or code); make both again"
                    )
                n = n_reference = min(one.rows.size, other.rows.size)
                arrays |= {f"reference.{name}": array for name, array in other.arrays.items()}
        arguments = [given[word]() if word in given else arrays[word][:n] for word in spec.takes]
        shape = getattr(arguments[0], "shape", ())[1:]
        about = {"n": n, "n_reference": n_reference, "dim": int(np.prod(shape)) if shape else None}
        # Of `metrics` the configuration refuses it; further metrics are those that the data allow.
        return (None if compares and n < spec.least else function(spec.name)(*arguments)), about

    def measure(spec: Metric, against: str) -> None:
        # The floor's samples are of the other noise themselves: another than theirs is the reference's.
        side = "teacher" if against == "other_noise" and compared.row == FLOOR else against
        key = (spec.module, spec.function, spec.extractor, side)
        if key not in results:
            results[key] = computed(spec, side)
        result, about = results[key]
        if spec.per_sample and not isinstance(result, Scores | np.ndarray):
            result = getattr(result, spec.part, None)
        if result is None:
            return
        entry = {"metric": spec.name, "reference": against, "low": None, "high": None, "flags": [], **about}
        if spec.per_sample:
            found = result if isinstance(result, Scores) else Scores(result)
            columns[spec.name] = values = found.values
            finite = np.isfinite(values)
            if not finite.all():
                raise UserError(
                    f"{spec.name}: the value of row {int(mine.rows[np.argmin(finite)])} is NaN or infinite; "
                    "make the samples again"
                )
            checks.update(found.checks)
            options = compared.statistics
            low, high = mean_interval(values, resamples=options.bootstrap, level=options.level, seed=compared.seed)
            entry |= {"value": float(values.mean()), "low": low, "high": high, "flags": list(found.flags)}
        elif isinstance(result, int | float):
            entry |= {"value": float(result)}
        else:
            entry |= {"value": getattr(result, spec.part), "dim": result.dim, "flags": list(result.flags)}
            checks.update({f"{spec.name}_{key}": value for key, value in getattr(result, "checks", {}).items()})
            tables.update(getattr(result, "tables", {}))
        entries.append(entry)

    for spec in (METRICS[name] for name in compared.metrics):
        for against in spec.references:
            if against != "teacher" or not (theirs is None or (spec.same_noise and compared.row == FLOOR)):
                measure(spec, against)
    if related := correlations(columns):
        tables["correlations"] = related
    return Measured(entries, columns, checks, tables)


def correlations(columns: Mapping[str, np.ndarray], of: str = "ode_error") -> list[dict[str, Any]]:
    """Spearman's ρ between the ODE errors of single samples and every other column: metric, rho, n; a line where both vary."""
    if of not in columns:
        return []
    found = {name: rank_correlation(columns[of], own) for name, own in columns.items() if name != of}
    return [{"metric": name, "rho": rho, "n": columns[of].size} for name, rho in found.items() if rho is not None]


def evaluate_collection(
    compared: Comparison,
    samples: Mapping[str, Artifact],
    features: Mapping[str, Mapping[str, Artifact]],
    out: str | Path,
) -> dict[str, dict[str, Any]]:
    """Write the metrics of a student run's sample sets as a collection; the contents of the metrics.json by set name.

    `samples` is set name → samples artefact, `features` extractor → set name → features artefact. The reference, the
    data and the prompt-accuracy classifier are opened once; out/<name> is what `evaluate` would write of that set, with
    `step`, `steps` and what is varied from the settings of its samples. Sets without features, or features without a set, are a
    UserError.
    """
    if not samples:
        raise UserError("evaluate: the collection of samples is empty; run the sample step again")
    for extractor, parts in features.items():
        if odd := set(parts) ^ set(samples):
            raise UserError(
                f"evaluate: set {min(odd)} is not in both the samples and their features by {extractor}; run the features step again"
            )
    contents = {}
    for name, part in samples.items():
        steps, step = (_which(part, setting) for setting in ("steps", "step"))
        of_set = {extractor: parts[name] for extractor, parts in features.items()}
        varied = {key: part.settings[key] for key in VARIED_SETS if key in part.settings}
        contents[name] = evaluate(compared, [part], of_set, Path(out) / name, steps=steps, step=step, varied=varied)
    new_collection(Path(out), "metrics", list(samples), settings=compared.settings(), inputs=compared.inputs())
    return contents


def _which(samples: Artifact, name: str) -> int:
    """A number that says which set of its run this is."""
    value = samples.settings.get(name)
    if not isinstance(value, int):
        raise UserError(f"{samples.folder / 'manifest.json'}: has no setting {name!r}; run the sample step again")
    return value


def _origin(shards: Sequence[Artifact]) -> list[Any]:
    """What made each of the shards, noise apart; equal shards of one set count once."""
    found = [
        [shard.settings.get("ode"), *(shard.manifest["inputs"].get(who) for who in ("teacher", "student"))]
        for shard in shards
    ]
    return [one for i, one in enumerate(found) if one not in found[:i]]
