"""The verb `compare`: differences within one setting: pairs of methods, later against earlier in training, more sampling steps
against the fewest; and between it and a setting that differs in one axis: one method with another solver, or another loss.
Finished students are compared with the baselines of their ODE too, in ODE error.

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
from threading import Lock
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from directcm.analysis.data.tidy import COMPARISON_COLUMNS, ROWS, frame, save
from directcm.config import ODE_AXES, TEACHER_SEED, Ode, Run, Setting, Statistics, spell
from directcm.config.registry import FIRST
from directcm.config.specs import BASELINES, METHODS, METRICS
from directcm.errors import UserError
from directcm.runtime.artifacts import Artifact, open_artifact, open_collection

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

METHOD, ALONG, SAMPLING, BASELINE = "method", "along", "sampling", "baseline"
PAIRS = (FIRST,)
SET = ("row", "step", "sampling_steps")
# (method, axis, value): the setting's students of a method against those whose setting has another value of one axis.
Across = tuple[str, str, str]
BOOTSTRAP, PERMUTATION, HALVES, UNTESTED = "bootstrap", "permutation", "halves", "none"
# What a metric is in `inference`; what is neither per sample nor one of these has a variance from halves, or no p.
DISTANCES = {m.name: m.test for m in METRICS.values() if m.test}


def across(axis: str, value: object) -> str:
    """`what` of a line whose b is of another setting: that axis and its value there, spelled as in paths."""
    return f"{axis}~{spell(value)}"


class Features:
    """A features artefact's image features, read when first asked for; of what (`of`), where that is said."""

    def __init__(self, artifact: Artifact, extractor: str, of: str = "", side: str = "") -> None:
        if artifact.settings.get("extractor") != extractor:
            raise UserError(
                f"{artifact.folder}: features of {artifact.settings.get('extractor')}, expected {extractor}; pass that extractor's"
            )
        if of and artifact.settings.get("of") != of:
            raise UserError(
                f"{artifact.folder}: features of {artifact.settings.get('of')}, given as those of the {side}; "
                "teacher and data are swapped"
            )
        self.artifact = artifact

    @property
    def version(self) -> Any:
        """Of the extractor: its weights, preprocessing and code."""
        return self.artifact.settings.get("fingerprint")

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

    run: Run
    step: int
    sampling_steps: int
    values: Mapping[tuple[str, str], Mapping[str, Any]]
    fingerprints: Mapping[str, str]
    artifact: Artifact

    @property
    def path(self) -> Path:
        """The file that a message names."""
        return self.artifact.folder / "metrics.json"

    @cached_property
    def per_sample(self) -> pd.DataFrame:
        """Per-prompt values, a column per metric, by row."""
        path = self.artifact.file("per_sample.csv")
        table = frame(path, ("row",), empty=True, texts=())
        if table["row"].isna().any():
            raise UserError(f"{path}: has lines without a row number; evaluate it again")
        if table["row"].duplicated().any():
            raise UserError(f"{path}: has repeated rows; evaluate it again")
        return table.set_index("row").sort_index()


def _per_sample(items: Sequence[Evaluation], metric: str, rows: pd.Index) -> np.ndarray:
    """A metric of these sets (S, n), by row; UserError unless all have it at `rows` and there alone, and all finite."""
    import numpy as np

    for item in items:
        path = item.artifact.folder / "per_sample.csv"
        if metric not in item.per_sample:
            raise UserError(f"{path}: has no column {metric!r}; evaluate it again")
        if item.per_sample[metric].isna().any():
            raise UserError(f"{path}: {metric} has values that are not finite; evaluate it again")
        if not item.per_sample.index.equals(rows):
            raise UserError(f"{path}: holds other rows than the sets it is compared with; evaluate all on all rows")
    return np.array([item.per_sample[metric] for item in items])


def metrics_of(artifact: Artifact, *more: str) -> dict[str, Any]:
    """A metrics.json with the keys that the analysis relies on, and `more`; UserError where it is none."""
    path, content = artifact.folder / "metrics.json", artifact.json("metrics.json")
    wanted = ("row", "steps", "run", "metrics", *more)
    if missing := [k for k in wanted if not isinstance(content, dict) or k not in content]:
        raise UserError(f"{path}: lacks {', '.join(missing)}; delete the folder and evaluate again")
    if content["row"] not in ROWS:
        raise UserError(f"{path}: row is {content['row']!r}, expected one of {', '.join(ROWS)}")
    if not isinstance(content["metrics"], list) or not all(isinstance(item, dict) for item in content["metrics"]):
        raise UserError(f"{path}: metrics is not a list of values; delete the folder and evaluate again")
    for item in content["metrics"]:
        spec, named = METRICS.get(item.get("metric", "")), f"{item.get('metric')!r} against {item.get('reference')!r}"
        if spec is None or item.get("reference") not in spec.references:
            raise UserError(f"{path}: unknown metric {named}; evaluate again")
        if "value" not in item or not isinstance(item["value"], int | float | None):
            raise UserError(f"{path}: {named} has no number as its value; evaluate again")
    return content


def _read(artifact: Artifact, setting: Setting, others: Sequence[Across] = ()) -> tuple[Across | None, Evaluation]:
    """A metrics artefact of a student of this setting, or which of `others` it is; UserError where it is neither or not readable."""
    path, content = artifact.folder / "metrics.json", metrics_of(artifact, "step", "fingerprints")
    run = Run.of(content["run"], f"{path}: its run", "evaluate it again")
    if content["row"] != METHODS.get(run.method):
        raise UserError(f"{path}: row is {content['row']!r} but method {run.method!r}; evaluate again")
    crossed = ((one, setting.at(**{one[1]: one[2]})) for one in others if one[0] == run.method)
    other = next((one for one, theirs in crossed if run.setting == theirs), None)
    for axis, value in run.setting.axes().items():
        if other is None and value != getattr(setting, axis):
            raise UserError(
                f"{path}: {axis} is {value}, but the setting compared has {getattr(setting, axis)}; pass the runs of one setting"
            )
    values = {(item["metric"], item["reference"]): item for item in content["metrics"]}
    steps = int(content["step"]), int(content["steps"])
    return other, Evaluation(run, *steps, values, content["fingerprints"], artifact)


@dataclass(frozen=True)
class _Inputs:
    """The features behind the metrics, found by the fingerprints that the metrics recorded.

    students     by extractor and fingerprint
    references   of "teacher", "data" and "other_noise", by extractor
    """

    students: Mapping[str, Mapping[str, Features]]
    references: Mapping[str, Mapping[str, Features]]

    def of(self, item: Evaluation, extractor: str) -> Features:
        """The features that a set's metrics were computed on."""
        found = self.students.get(extractor, {}).get(item.fingerprints.get(f"features_samples_{extractor}", ""))
        if found is None:
            raise UserError(
                f"{item.path}: the {extractor} features that it was computed on are not among those given; "
                "pass the features of the same runs, or evaluate again"
            )
        return found

    def stacked(
        self, groups: Sequence[Sequence[Evaluation]], extractor: str, against: str, n: int
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """The first n rows of each group's features, (S, n, D) each, and of their reference (n, D).

        UserError unless these are the features that every set's metrics were computed on and against.
        """
        import numpy as np

        reference = self.references[against].get(extractor)
        if reference is None:
            raise UserError(
                f"compare: {extractor} features of the {against.replace('_', ' ')} are missing; run the features step for them"
            )
        for item in (item for group in groups for item in group):
            if item.fingerprints.get(f"features_{against}_{extractor}") != reference.artifact.fingerprint:
                raise UserError(
                    f"{item.path}: was computed against other {against} features than {reference.artifact.folder}; "
                    "pass the right ones, or evaluate again"
                )
        arrays = []
        for group in groups:
            own = [self.of(item, extractor) for item in group]
            for features in own:
                if features.version != reference.version:
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


def _sets(items: Sequence[Evaluation]) -> pd.DataFrame:
    """A line per evaluation: the columns of SET, its seed, whether it is finished, and itself; UserError where one is there twice."""
    import pandas as pd

    lines = [(METHODS[i.run.method], i.step, i.sampling_steps, i.run.seed, i.step == i.run.steps, i) for i in items]
    sets = pd.DataFrame(lines, columns=[*SET, "seed", "finished", "item"])
    if (twice := sets.duplicated([*SET, "seed"])).any():
        again = sets[twice].iloc[0]
        first = sets[(sets[[*SET, "seed"]] == again[[*SET, "seed"]]).all(axis=1)].iloc[0]
        raise UserError(f"{again['item'].path}: the same set as {first['item'].path}; give each run once")
    return sets


def _matched(what: str, a: pd.DataFrame, b: pd.DataFrame, *alike: str) -> list[_Pairing]:
    """The sets of a and those of b that are `alike`, in their order, matched by seed."""
    both = a.merge(b, on=[*alike, "seed"], suffixes=("", "_b")).sort_values("seed")
    names = [name for column in SET for name in (column, f"{column}_b") if name in both]
    return [_Pairing(what, [*group["item"]], [*group["item_b"]]) for _, group in both.groupby(names)]


def _pairings(
    items: Sequence[Evaluation],
    pairs: Sequence[Sequence[str]],
    stepwise: Sequence[str],
    along: Sequence[str],
    others: Mapping[Across, Sequence[Evaluation]],
) -> list[_Pairing]:
    """All comparisons: `pairs` of methods by (step, sampling steps), then the methods `along` their training, then finished
    students of the methods `stepwise` in more sampling steps against the fewest, then finished students against those of `others`.
    """
    sets = _sets(items)
    finished, earlier = sets[sets["finished"]], sets[~sets["finished"]]
    of = {name: sets[sets["row"] == label] for name, label in METHODS.items()}
    out: list[_Pairing] = []
    for first, second in pairs:
        out += _matched(METHOD, of[first], of[second], "step", "sampling_steps")
    trained = finished[finished["row"].isin([METHODS[name] for name in along])]
    out += _matched(ALONG, trained, earlier, "row", "sampling_steps")
    for name in stepwise:
        own = of[name][of[name]["finished"]]
        fewest = own["sampling_steps"] == own["sampling_steps"].min()
        out += _matched(SAMPLING, own[~fewest], own[fewest], "row", "step")
    for (method, axis, value), found in others.items():
        theirs, own = _sets(found), of[method]
        out += _matched(across(axis, value), own[own["finished"]], theirs[theirs["finished"]], "sampling_steps")
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
        if not (apart and reference in ("teacher", "other_noise")) and not spec.part_of
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
    ours = pairing.what == ALONG or (
        pairing.what == METHOD and (pairing.a[0].run.method, pairing.b[0].run.method) == FIRST
    )
    return claimed is None or ours or key in claimed


class _Once:
    """What several metrics of a pairing share is made by the first that asks, while the others wait."""

    def __init__(self) -> None:
        self._lock, self._locks, self._made = Lock(), {}, {}  # type: ignore[var-annotated]

    def __call__(self, key: Any, make: Callable[[], Any]) -> Any:
        with self._lock:
            own = self._locks.setdefault(key, Lock())
        with own:
            if key not in self._made:
                self._made[key] = make()
            return self._made[key]


def _agree(found: np.ndarray, stated: np.ndarray, scale: np.ndarray, item: Evaluation, metric: str) -> None:
    """Raise a UserError where a difference computed here is not that of the metrics: these are not their features."""
    for place in (abs(found - stated) > 1e-5 * scale + 1e-9).nonzero()[0][:1]:
        raise UserError(
            f"{item.path}: {metric} differs by {stated[place]:.6g} in the metrics and by {found[place]:.6g} from their features or "
            "per_sample.csv; evaluate again"
        )


@dataclass(frozen=True)
class _Prompts:
    """What prompts alone say of a difference, given these students: which test, its p, and the variance that all seeds share.

    `per_seed` (S,): the differences from the features or per_sample.csv themselves, where they were computed.
    """

    test: str
    p: float | None = None
    shared: float | None = None
    per_seed: np.ndarray | None = None


def _over_prompts(
    pairing: _Pairing, key: tuple[str, str], inputs: _Inputs, statistics: Statistics, seed: int, once: _Once,
    difference: float, n: int,
) -> _Prompts:  # fmt: skip
    from directcm.statistics import inference, neighbours
    from directcm.statistics.frechet import SUBSETS, infinite_sizes

    (metric, reference), spec = key, METRICS[key[0]]
    if spec.per_sample:
        rows = pairing.a[0].per_sample.index
        a, b = (_per_sample(group, metric, rows) for group in (pairing.a, pairing.b))
        if len(rows) != n:
            raise UserError(
                f"{pairing.a[0].path}: {metric} has n = {n}, but per_sample.csv {len(rows)} rows; evaluate again"
            )
        mean = inference.paired_bootstrap(a, b, statistics.bootstrap, seed, statistics.level)
        return _Prompts(BOOTSTRAP, mean.p, mean.shared, mean.per_seed)
    kind = DISTANCES.get(metric, spec.function)
    if kind not in (*DISTANCES.values(), "frechet_infinite", "manifold"):
        return _Prompts(UNTESTED)
    assert spec.extractor is not None
    (x, y), against = inputs.stacked((pairing.a, pairing.b), spec.extractor, reference, n)
    place = (id(pairing), spec.extractor, reference, n)
    if kind == "manifold":
        parts = once(("manifold", *place), lambda: neighbours.manifold_difference_halves(x, y, against, seed))
        if parts is None:
            return _Prompts(UNTESTED)
        halves, spread = parts[spec.part], parts[spec.part].count
        return _Prompts(HALVES, inference.halves_p(difference, spread.whole, n, halves.pairs), spread.shared)
    if kind in ("frechet", "frechet_infinite"):
        halves = once(("frechet", *place), lambda: inference.frechet_difference_halves(x, y, against, seed))
        if kind == "frechet_infinite":
            spread = halves.extrapolated(infinite_sizes(*against.shape), SUBSETS)
            return _Prompts(HALVES, inference.halves_p(difference, spread.whole, n, halves.pairs), spread.shared)
        own = inference.frechet_difference_test(x, y, against, statistics.permutations, seed, halves=halves)
    else:
        own = inference.kernel_difference_test(x, y, against, kind, statistics.permutations, seed)
    return _Prompts(PERMUTATION, own.p, own.shared, own.per_seed)


def _row(
    pairing: _Pairing, key: tuple[str, str], inputs: _Inputs, statistics: Statistics, seed: int, once: _Once
) -> dict[str, Any] | None:
    """One line of the table; None where a value is not defined (FD∞ at a small n)."""
    import numpy as np

    from directcm.statistics import inference

    metric, reference = key
    entries_a, entries_b = ([item.values[key] for item in group] for group in (pairing.a, pairing.b))
    if any(e["value"] is None for e in (*entries_a, *entries_b)):
        return None
    values_a, values_b = (np.array([e["value"] for e in entries], float) for entries in (entries_a, entries_b))
    per_seed, scale = values_a - values_b, abs(values_a) + abs(values_b)
    n = int(entries_a[0]["n"])
    difference = math.fsum(per_seed) / len(per_seed)
    alone = _over_prompts(pairing, key, inputs, statistics, seed, once, difference, n)
    if alone.per_seed is not None:
        _agree(alone.per_seed, per_seed, scale, pairing.a[0], metric)
    whole = inference.crossed(per_seed, alone.shared, n, statistics.level)
    first, second = pairing.a[0], pairing.b[0]
    return {
        "what": pairing.what, "a": METHODS[first.run.method], "b": METHODS[second.run.method], **first.run.setting.spelled,
        "a_step": first.step, "b_step": second.step, "sampling_steps": first.sampling_steps, "metric": metric,
        "reference": reference, "mean_a": math.fsum(values_a) / len(values_a), "mean_b": math.fsum(values_b) / len(values_b),
        **{name: getattr(whole, name) for name in ("difference", "low", "high", "se_seeds", "se_prompts", "df", "p")},
        "level": statistics.level, "test": alone.test, "p_prompts": alone.p, "n": n, "n_seeds": len(per_seed),
        "dim": entries_a[0].get("dim"),
        "seeds_agree": int((np.sign(per_seed) == np.sign(whole.difference)).sum()) if whole.difference else 0,
    }  # fmt: skip


def _against_baselines(
    items: Sequence[Evaluation],
    baselines: Mapping[str, Artifact],
    setting: Setting,
    statistics: Statistics,
    seed: int,
    beyond: int,
) -> list[dict[str, Any]]:
    """ODE errors of finished students against those of the baselines, by method, number of sampling steps and baseline.

    A baseline has no seeds: the difference varies over the students' and over prompts.
    """
    import numpy as np

    from directcm.statistics import inference

    key = ("ode_error", "teacher")
    errors: dict[str, pd.Series] = {}
    for artifact in baselines.values():
        path, content = artifact.folder / "metrics.json", metrics_of(artifact, "fingerprints")
        if Ode.of(content["run"], f"{path}: its run", "make it again") != setting.ode:
            raise UserError(f"{path}: is not of the setting's ODE, {setting.ode.words}; pass its own baselines")
        if any(item.fingerprints.get("noise") != content["fingerprints"].get("noise") for item in items):
            raise UserError(f"{path}: evaluated on other noise than {items[0].path}; evaluate both on the same noise")
        table = frame(artifact.file("per_sample.csv"), ("row", key[0]), texts=())
        errors[content["row"]] = table.set_index("row")[key[0]].sort_index()
    sets = _sets(items)
    finished = sets[sets["finished"] & (sets["sampling_steps"] > beyond)].sort_values("seed")
    rows = []
    for (label, step, steps), group in finished.groupby([*SET]):
        own = [item for item in group["item"] if key in item.values]
        if not own:
            continue
        index = own[0].per_sample.index
        a = _per_sample(own, key[0], index)
        for name in (one for one in BASELINES.values() if one in errors):
            if not errors[name].index.equals(index):
                raise UserError(f"{own[0].path}: its rows are not those of “{name}”; evaluate both on all rows")
            b = np.broadcast_to(errors[name].to_numpy(), a.shape)
            result = inference.paired_bootstrap(a, b, statistics.bootstrap, seed, statistics.level)
            whole = inference.crossed(result.per_seed, result.shared, len(index), statistics.level)
            rows.append(
                {
                    "what": BASELINE, "a": label, "b": name, **setting.spelled, "a_step": step, "b_step": None,
                    "sampling_steps": steps, "metric": key[0], "reference": key[1], "mean_a": float(a.mean()),
                    "mean_b": float(b.mean()),
                    **{k: getattr(whole, k) for k in ("difference", "low", "high", "se_seeds", "se_prompts", "df", "p")},
                    "level": statistics.level, "test": BOOTSTRAP, "p_prompts": result.p, "n": len(index),
                    "n_seeds": len(own), "dim": own[0].values[key].get("dim"),
                    "seeds_agree": int((np.sign(result.per_seed) == np.sign(whole.difference)).sum()),
                }
            )  # fmt: skip
    return rows


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
    other_noise: Mapping[str, str | Path] | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
    baselines: Mapping[str, Artifact] | None = None,
) -> list[dict[str, Any]]:
    """Write one setting's lines of comparisons.csv (COMPARISON_COLUMNS), and return them; a header alone where nothing can be compared.

    Of a teacher that was drawn again teacher_seed is the first column.

    `pairs` of methods are compared, methods `along` their training, and methods `stepwise` with themselves in more sampling
    steps: there `sampling_steps` is the larger number, and b the fewest that were evaluated. `claimed` are the (metric,
    reference) of what is neither the paper's pair nor along a training; None: all of them. `beyond`: lines of more sampling
    steps than this alone. `threads` changes no byte. `others` are settings that differ in one axis, of which finished
    students are compared with this setting's: there `what` is `across(axis, value)`, and the axes are a's. `baselines` are those of the
    setting's ODE, by name: there `what` is "baseline", and b the baseline's row.

    `metrics` are the collections metrics/students/<run> of the setting's runs and of the others', all
    methods and seeds; `features` by extractor the collections features/<extractor>/students/<run> of the same runs, `teacher`, `data`
    and `other_noise` (the teacher's samples of the floor's noise) by extractor the reference's artefacts. Features are matched to metrics by fingerprint, so their order does not matter.

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
            name: {
                part.fingerprint: Features(part, name)
                for path in paths
                for part in open_collection(path, "features").values()
            }
            for name, paths in features.items()
        },
        {
            side: {name: Features(open_artifact(path, "features"), name, of, side) for name, path in given.items()}
            for side, of, given in (
                ("teacher", "samples", teacher),
                ("data", "data", data),
                ("other_noise", "samples", other_noise or {}),
            )
        },
    )
    pairings = [one for one in _pairings(items, pairs, stepwise, along, beside) if one.a[0].sampling_steps > beyond]
    jobs = [(one, key) for one in pairings for key in _common(one) if _wanted(one, key, claimed)]
    rows: list[dict[str, Any]] = []
    once = _Once()
    # Linear algebra on small matrices: as many tests at once as there are threads, each on one of them.
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        made = pool.map(lambda job: _row(job[0], job[1], inputs, statistics, seed, once), jobs)
        for done, row in enumerate(made, 1):
            rows += [row] if row is not None else []
            if progress is not None:
                progress(done, len(jobs))
    rows += _against_baselines(items, baselines or {}, setting, statistics, seed, beyond)
    save(out_csv, rows, [TEACHER_SEED, *COMPARISON_COLUMNS] if setting.teacher_seed else COMPARISON_COLUMNS)
    return rows
