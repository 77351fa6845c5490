"""The verb `compare`: differences within one setting: pairs of methods, later against earlier in training, more sampling steps
against the fewest; and between it and a setting that differs in one axis: one method with another solver, or another loss.

One setting is all axes but method and seed. Seeds are matched by number, prompts by row: what two students share (start
points, their order, the noise and prompt they are judged on) cancels in the difference. A seed that only one side has is
left out of that comparison; where no seed is left, there is no row. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from directcm.config import ODE_AXES, SETTING_AXES, Run, Setting, Statistics, spell
from directcm.config.registry import FIRST
from directcm.config.specs import METHODS, METRICS
from directcm.errors import UserError
from directcm.runtime.artifacts import Artifact, open_artifact, open_collection, write_csv

if TYPE_CHECKING:
    import numpy as np

METHOD, ALONG, SAMPLING = "method", "along", "sampling"
PAIRS = (FIRST,)
# (method, axis, value): the setting's students of a method against those whose setting has another value of one axis.
Across = tuple[str, str, str]
BOOTSTRAP, PERMUTATION, SEEDS = "bootstrap", "permutation", "seeds"
COLUMNS = [
    "what", "a", "b", *SETTING_AXES, "a_step", "b_step", "sampling_steps", "metric", "reference", "mean_a", "mean_b",
    "difference", "low", "high", "level", "se_seeds", "se_prompts", "df", "p", "test", "p_prompts", "n", "n_seeds", "dim",
    "seeds_agree",
]  # fmt: skip

# What a metric is in `inference`; a distance that is neither (FD∞, precision …) is judged by seeds alone.
DISTANCES = {m.name: m.test for m in METRICS.values() if m.test}


def across(axis: str, value: object) -> str:
    """`what` of a line whose b is of another setting: that axis and its value there, spelled as in paths."""
    return f"{axis}~{spell(value)}"


class Features:
    """A features artefact's image features, read when first asked for."""

    def __init__(self, artifact: Artifact, extractor: str) -> None:
        if artifact.settings.get("extractor") != extractor:
            raise UserError(
                f"{artifact.folder}: features of {artifact.settings.get('extractor')}, expected {extractor}; pass that extractor's"
            )
        self.artifact = artifact

    @cached_property
    def rows(self) -> list[int]:
        """Evaluation rows, in the order of `image`."""
        return [int(line["row"]) for line in self.artifact.csv("rows.csv")]

    @cached_property
    def image(self) -> np.ndarray:
        """Image features (n, D)."""
        arrays = self.artifact.arrays("features.safetensors")
        if "image" not in arrays or len(arrays["image"]) != len(self.rows):
            raise UserError(f"{self.artifact.folder}: has no image features for each of its rows; make them again")
        return arrays["image"]


@dataclass(frozen=True)
class Evaluation:
    """One evaluated set of one run: its metrics by (metric, reference), and its artefact."""

    row: str
    seed: int
    step: int
    sampling_steps: int
    finished: bool
    run: Run
    values: Mapping[tuple[str, str], Mapping[str, Any]]
    fingerprints: Mapping[str, str]
    artifact: Artifact

    @property
    def path(self) -> Path:
        """The file that a message names."""
        return self.artifact.folder / "metrics.json"

    @cached_property
    def columns(self) -> dict[str, dict[int, str]]:
        """Per-prompt values as text: metric → row → value."""
        path = self.artifact.folder / "per_sample.csv"
        table = self.artifact.csv("per_sample.csv")
        try:
            rows = [int(line["row"]) for line in table]
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{path}: has lines without a row number; evaluate it again") from None
        if len(set(rows)) != len(rows):
            raise UserError(f"{path}: has repeated rows; evaluate it again")
        names = [name for name in (table[0] if table else {}) if name != "row"]
        return {name: {row: line[name] for row, line in zip(rows, table, strict=True)} for name in names}

    def per_sample(self, metric: str, rows: Sequence[int] | None) -> tuple[list[int], list[float]]:
        """Rows, ascending, and a metric's values there; UserError unless they are `rows` (where given) and all finite."""
        path = self.artifact.folder / "per_sample.csv"
        column = self.columns.get(metric)
        if column is None:
            raise UserError(f"{path}: has no column {metric!r}; evaluate it again")
        try:
            values = {row: float(text) for row, text in column.items()}
        except (TypeError, ValueError):
            raise UserError(f"{path}: a value of {metric} is not a number; evaluate it again") from None
        if not all(math.isfinite(v) for v in values.values()):
            raise UserError(f"{path}: {metric} has values that are not finite; evaluate it again")
        own = sorted(values)
        if rows is not None and own != list(rows):
            raise UserError(f"{path}: holds other rows than the sets it is compared with; evaluate all on all rows")
        return own, [values[row] for row in own]


def _other(run: Run, setting: Setting, others: Sequence[Across]) -> Across | None:
    """Which of `others` a run of another setting is."""
    for method, axis, value in others:
        if run.method == method and run.setting == setting.at(**{axis: value}):
            return method, axis, value
    return None


def _read(artifact: Artifact, setting: Setting, others: Sequence[Across] = ()) -> tuple[Across | None, Evaluation]:
    """A metrics artefact of a student of this setting, or which of `others` it is; UserError where it is neither or not readable."""
    path = artifact.folder / "metrics.json"
    content = artifact.json("metrics.json")
    wanted = ("row", "step", "steps", "run", "metrics", "fingerprints")
    missing = [k for k in wanted if not isinstance(content, dict) or k not in content]
    if missing:
        raise UserError(f"{path}: lacks {', '.join(missing)}; delete the folder and evaluate again")
    if content["row"] not in METHODS.values():
        raise UserError(f"{path}: row is {content['row']!r}, expected one of {', '.join(METHODS.values())}")
    run = Run.of(content["run"], f"{path}: its run", "evaluate it again")
    other = _other(run, setting, others)
    for axis, own in run.setting.axes().items():
        if other is None and own != getattr(setting, axis):
            raise UserError(
                f"{path}: {axis} is {own}, but the setting compared has {getattr(setting, axis)}; pass the runs of one setting"
            )
    for item in content["metrics"]:
        spec = METRICS.get(item["metric"])
        if spec is None or item["reference"] not in spec.references:
            raise UserError(f"{path}: unknown metric {item['metric']!r} against {item['reference']!r}; evaluate again")
    return other, Evaluation(
        content["row"], run.seed, int(content["step"]), int(content["steps"]), int(content["step"]) == run.steps, run,
        {(item["metric"], item["reference"]): item for item in content["metrics"]}, content["fingerprints"], artifact,
    )  # fmt: skip


class _Inputs:
    """The features behind the metrics, found by the fingerprints that the metrics recorded."""

    def __init__(
        self,
        students: Mapping[str, Sequence[Artifact]],
        teacher: Mapping[str, Artifact],
        data: Mapping[str, Artifact],
    ) -> None:
        self.students = {
            extractor: {part.fingerprint: Features(part, extractor) for part in parts}
            for extractor, parts in students.items()
        }
        self.references = {
            "teacher": {extractor: Features(item, extractor) for extractor, item in teacher.items()},
            "data": {extractor: Features(item, extractor) for extractor, item in data.items()},
        }
        for side, of in (("teacher", "samples"), ("data", "data")):
            for item in self.references[side].values():
                if item.artifact.settings.get("of") != of:
                    raise UserError(
                        f"{item.artifact.folder}: features of {item.artifact.settings.get('of')}, given as those of the {side}; "
                        "teacher and data are swapped"
                    )

    def of(self, item: Evaluation, extractor: str) -> Features:
        """The features that a set's metrics were computed on."""
        stated = item.fingerprints.get(f"features_samples_{extractor}")
        found = self.students.get(extractor, {}).get(stated or "")
        if found is None:
            raise UserError(
                f"{item.path}: the {extractor} features that it was computed on are not among those given; "
                "pass the features of the same runs, or evaluate again"
            )
        return found

    def reference(self, items: Sequence[Evaluation], extractor: str, against: str) -> Features:
        """The reference features, if they are those that every set's metrics were computed against."""
        found = self.references[against].get(extractor)
        if found is None:
            raise UserError(
                f"compare: {extractor} features of the {against} are missing; run the features step for them"
            )
        for item in items:
            if item.fingerprints.get(f"features_{against}_{extractor}") != found.artifact.fingerprint:
                raise UserError(
                    f"{item.path}: was computed against other {against} features than {found.artifact.folder}; "
                    "pass the right ones, or evaluate again"
                )
        return found

    def stacked(
        self, groups: Sequence[Sequence[Evaluation]], extractor: str, against: str, n: int
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """The first n rows of each group's features, (S, n, D) each, and of their reference (n, D)."""
        import numpy as np

        reference = self.reference([item for group in groups for item in group], extractor, against)
        version = reference.artifact.settings.get("fingerprint")
        arrays = []
        for group in groups:
            own = [self.of(item, extractor) for item in group]
            for features in own:
                if features.artifact.settings.get("fingerprint") != version:
                    raise UserError(
                        f"{features.artifact.folder} and {reference.artifact.folder}: features of two different versions of "
                        "one extractor (other weights, preprocessing or code); make both again"
                    )
                if len(features.rows) < n or features.rows[:n] != reference.rows[:n]:
                    raise UserError(
                        f"{features.artifact.folder}: its first {n} rows are not those of {reference.artifact.folder}; "
                        "make both from the same noise"
                    )
            arrays.append(np.stack([features.image[:n] for features in own]))
        return arrays, reference.image[:n]


@dataclass(frozen=True)
class _Pairing:
    """Two groups of sets, matched by seed: what `what` says of a − b."""

    what: str
    a: Sequence[Evaluation]
    b: Sequence[Evaluation]


def _matched(what: str, a: Mapping[int, Evaluation], b: Mapping[int, Evaluation]) -> list[_Pairing]:
    seeds = sorted(set(a) & set(b))
    return [_Pairing(what, [a[s] for s in seeds], [b[s] for s in seeds])] if seeds else []


def _by_set(items: Sequence[Evaluation]) -> dict[tuple[str, int, int], dict[int, Evaluation]]:
    """The evaluations by (row, step, sampling steps), and there by seed; UserError where one is there twice."""
    sets: dict[tuple[str, int, int], dict[int, Evaluation]] = {}
    for item in items:
        group = sets.setdefault((item.row, item.step, item.sampling_steps), {})
        if item.seed in group:
            raise UserError(f"{item.path}: the same set as {group[item.seed].path}; give each run once")
        group[item.seed] = item
    return sets


def _crossings(items: Sequence[Evaluation], others: Mapping[Across, Sequence[Evaluation]]) -> list[_Pairing]:
    """Finished students of a method against those of another setting, by sampling steps."""
    own = _by_set([item for item in items if item.finished])
    out: list[_Pairing] = []
    for (method, axis, value), found in others.items():
        theirs = {
            sampling: group for (_, _, sampling), group in _by_set([item for item in found if item.finished]).items()
        }
        for row, step, sampling in sorted(own):
            if row == METHODS[method] and sampling in theirs:
                out += _matched(across(axis, value), own[row, step, sampling], theirs[sampling])
    return out


def _pairings(
    items: Sequence[Evaluation],
    pairs: Sequence[Sequence[str]] = PAIRS,
    stepwise: Sequence[str] = (),
    along: Sequence[str] = tuple(METHODS),
) -> list[_Pairing]:
    """All comparisons within the setting: `pairs` of methods by (step, sampling steps), then the methods `along` their training,
    then finished students of the methods `stepwise` in more sampling steps against the fewest.
    """
    sets = _by_set(items)
    out: list[_Pairing] = []
    for first, second in ((METHODS[a], METHODS[b]) for a, b in pairs):
        for row, step, sampling in sorted(sets):
            if row == first and (second, step, sampling) in sets:
                out += _matched(METHOD, sets[row, step, sampling], sets[second, step, sampling])
    last = {item.step for item in items if item.finished}
    for row, step, sampling in sorted(sets):
        for end in last - {step}:
            if (row, end, sampling) in sets and row in {METHODS[name] for name in along}:
                out += _matched(ALONG, sets[row, end, sampling], sets[row, step, sampling])
    for label in (METHODS[name] for name in stepwise):
        numbers = sorted(k for row, step, k in sets if row == label and step in last)
        for k in numbers[1:]:
            for end in last:
                if {(label, end, k), (label, end, numbers[0])} <= set(sets):
                    out += _matched(SAMPLING, sets[label, end, k], sets[label, end, numbers[0]])
    return out


def _common(pairing: _Pairing) -> list[tuple[str, str]]:
    """The metrics of a pairing in the order of specs.METRICS; one that some sets lack is a UserError.

    Between two ODEs none to the teacher: each student was compared with the samples of its own.
    """
    both = [*pairing.a, *pairing.b]
    apart = pairing.what.split("~")[0] in ODE_AXES
    keys = [
        (metric, reference)
        for metric, spec in METRICS.items()
        for reference in spec.references
        if not (apart and reference == "teacher")
        if any((metric, reference) in item.values for item in both)
    ]
    for key in keys:
        for item in both:
            if key not in item.values:
                raise UserError(
                    f"{item.path}: lacks {key[0]} against {key[1]}, which other sets of this setting have; evaluate it again"
                )
            sizes = [tuple(i.values[key].get(name) for name in ("n", "n_reference", "dim")) for i in (both[0], item)]
            if sizes[0] != sizes[1]:
                raise UserError(
                    f"{item.path}: {key[0]} against {key[1]} has (n, n_reference, dim) = {sizes[1]}, but {sizes[0]} in "
                    f"{both[0].path}: not comparable; evaluate both alike"
                )
    return keys


def _wanted(pairing: _Pairing, key: tuple[str, str], claimed: Sequence[tuple[str, str]] | None) -> bool:
    """Whether a metric of a pairing is compared: every one of the paper's two methods, of others those that a claim is about."""
    first = tuple(METHODS[name] for name in FIRST)
    ours = pairing.what == ALONG or (pairing.what == METHOD and (pairing.a[0].row, pairing.b[0].row) == first)
    return claimed is None or ours or key in claimed


def _agree(
    found: Sequence[float], stated: Sequence[float], scale: Sequence[float], item: Evaluation, metric: str
) -> None:
    """Raise a UserError where a difference computed here is not that of the metrics: these are not their features."""
    for mine, theirs, size in zip(found, stated, scale, strict=True):
        if abs(mine - theirs) > 1e-5 * size + 1e-9:
            raise UserError(
                f"{item.path}: {metric} differs by {theirs:.6g} in the metrics and by {mine:.6g} from their features or "
                "per_sample.csv; evaluate again"
            )


def _significant(value: float | None) -> float | None:
    """Ten significant digits: what the values carry, without the last bits' noise."""
    return None if value is None else float(f"{value:.10g}")


def _row(
    pairing: _Pairing, key: tuple[str, str], inputs: _Inputs, statistics: Statistics, seed: int
) -> dict[str, Any] | None:
    """One line of the table; None where a value is not defined (FD∞ at a small n)."""
    import numpy as np

    from directcm.statistics import inference

    metric, reference = key
    entries_a, entries_b = ([item.values[key] for item in group] for group in (pairing.a, pairing.b))
    if any(e["value"] is None for e in (*entries_a, *entries_b)):
        return None
    values_a, values_b = ([float(e["value"]) for e in entries] for entries in (entries_a, entries_b))
    per_seed = np.array(values_a) - np.array(values_b)
    scale = [abs(x) + abs(y) for x, y in zip(values_a, values_b, strict=True)]
    n = int(entries_a[0]["n"])
    test, p_prompts, variance = SEEDS, None, None
    if METRICS[metric].per_sample:
        rows, _ = pairing.a[0].per_sample(metric, None)
        a, b = (np.array([item.per_sample(metric, rows)[1] for item in group]) for group in (pairing.a, pairing.b))
        if len(rows) != n:
            raise UserError(
                f"{pairing.a[0].path}: {metric} has n = {n}, but per_sample.csv {len(rows)} rows; evaluate again"
            )
        result = inference.paired_bootstrap(a, b, statistics.bootstrap, seed, statistics.level)
        _agree(result.per_seed.tolist(), per_seed.tolist(), scale, pairing.a[0], metric)
        test, p_prompts, variance = BOOTSTRAP, result.p, result.variance
    elif metric in DISTANCES:
        extractor = METRICS[metric].extractor
        assert extractor is not None
        (x, y), against = inputs.stacked((pairing.a, pairing.b), extractor, reference, n)
        if DISTANCES[metric] == "frechet":
            own = inference.frechet_difference_test(x, y, against, statistics.permutations, seed)
        else:
            own = inference.kernel_difference_test(x, y, against, DISTANCES[metric], statistics.permutations, seed)
        _agree(own.per_seed.tolist(), per_seed.tolist(), scale, pairing.a[0], metric)
        test, p_prompts, variance = PERMUTATION, own.p, own.variance
    whole = inference.crossed(per_seed, variance, n, statistics.level)
    run, first, second = pairing.a[0].run, pairing.a[0], pairing.b[0]
    return {
        "what": pairing.what, "a": first.row, "b": second.row, **run.setting.spelled,
        "a_step": first.step, "b_step": second.step, "sampling_steps": first.sampling_steps,
        "metric": metric, "reference": reference,
        "mean_a": _significant(math.fsum(values_a) / len(values_a)),
        "mean_b": _significant(math.fsum(values_b) / len(values_b)),
        "difference": _significant(whole.difference), "low": _significant(whole.low), "high": _significant(whole.high),
        "level": statistics.level, "se_seeds": _significant(whole.se_seeds), "se_prompts": _significant(whole.se_prompts),
        "df": _significant(whole.df), "p": _significant(whole.p), "test": test, "p_prompts": _significant(p_prompts),
        "n": n, "n_seeds": len(per_seed), "dim": entries_a[0].get("dim"),
        "seeds_agree": int((np.sign(per_seed) == np.sign(whole.difference)).sum()) if whole.difference else 0,
    }  # fmt: skip


def compare(
    setting: Setting,
    metrics: Sequence[str | Path],
    features: Mapping[str, Sequence[str | Path]],
    teacher: Mapping[str, str | Path],
    data: Mapping[str, str | Path],
    statistics: Statistics,
    seed: int,
    out_csv: str | Path,
    *,
    pairs: Sequence[Sequence[str]] = PAIRS,
    stepwise: Sequence[str] = (),
    along: Sequence[str] = tuple(METHODS),
    others: Sequence[Across] = (),
    claimed: Sequence[tuple[str, str]] | None = None,
    beyond: int = 0,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Write one setting's lines of comparisons.csv (COLUMNS), and return them; a header alone where nothing can be compared.

    `pairs` of methods are compared, methods `along` their training, and methods `stepwise` with themselves in more sampling
    steps: there `sampling_steps` is the larger number, and b the fewest that were evaluated. `claimed` are the (metric,
    reference) of what is neither the paper's pair nor along a training; None: all of them. `beyond`: lines of more sampling
    steps than this alone. `threads` changes no byte. `others` are settings that differ in one axis, of which finished
    students are compared with this setting's: there `what` is `across(axis, value)`, and the axes are a's.

    `metrics` are the collections metrics/students/<run> of the setting's runs and of the others', all
    methods and seeds; `features` by extractor the collections features/<extractor>/students/<run> of the same runs, `teacher` and `data`
    by extractor the reference's artefacts. Features are matched to metrics by fingerprint, so their order does not matter.

    Raises UserError for a run of another setting, other noise, other n or size, features or references that the metrics
    were not computed on, and values that their own features do not give.
    """
    if not metrics:
        raise UserError("compare: no metrics were given; evaluate the setting's students first")
    found = [_read(part, setting, others) for path in metrics for part in open_collection(path, "metrics").values()]
    items = [item for other, item in found if other is None]
    beside = {wanted: [item for other, item in found if other == wanted] for wanted in others}
    noises = {item.fingerprints.get("noise"): item for _, item in found}
    if len(noises) > 1:
        first, second = list(noises.values())[:2]
        raise UserError(f"{second.path}: evaluated on other noise than {first.path}; evaluate both on the same noise")
    inputs = _Inputs(
        {
            extractor: [part for path in paths for part in open_collection(path, "features").values()]
            for extractor, paths in features.items()
        },
        {extractor: open_artifact(path, "features") for extractor, path in teacher.items()},
        {extractor: open_artifact(path, "features") for extractor, path in data.items()},
    )
    pairings = [*_pairings(items, pairs, stepwise, along), *_crossings(items, beside)]
    pairings = [one for one in pairings if one.a[0].sampling_steps > beyond]
    jobs = [(one, key) for one in pairings for key in _common(one) if _wanted(one, key, claimed)]
    rows = []
    # Linear algebra on small matrices: as many tests at once as there are threads, each on one of them.
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        made = pool.map(lambda job: _row(job[0], job[1], inputs, statistics, seed), jobs)
        for done, row in enumerate(made, 1):
            rows += [row] if row is not None else []
            if progress is not None:
                progress(done, len(jobs))
    write_csv(out_csv, rows, COLUMNS)
    return rows
