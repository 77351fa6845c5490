"""The verb `contrasts`: how a difference between two methods, or one method's value, changes over an axis, and its mean over it.

A claim that a gap grows with N, or falls along training, is one number: the slope over log₂ N, or the mean over all N. It is taken seed by
seed, of the seeds that all its settings share, and prompt by prompt; so seeds and prompts are as random as in any other comparison, and
its line in comparisons.csv is judged as any other. Imports no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from directcm.analysis.data.compare import BOOTSTRAP, Evaluation, Features, metrics_of
from directcm.analysis.data.selection import main_setting
from directcm.analysis.data.tidy import COMPARISON_COLUMNS, frame, save
from directcm.config import SETTING_AXES, Config, Run, Setting, lora_rank, spell
from directcm.config.specs import METHODS, METRICS
from directcm.errors import UserError
from directcm.runtime.artifacts import COLLECTION, MANIFEST, Artifact, open_artifact, open_collection, read_json

if TYPE_CHECKING:
    import numpy as np

MEAN, LOG, LINEAR, FROM = "mean", "log", "linear", "from"
STEP, SAMPLING, TIME = "step", "sampling_steps", "time"
OVER = (*SETTING_AXES, STEP, SAMPLING, TIME)
# How the variance over prompts of a Fréchet distance is found.
INFLUENCE = "influence"


def number_of(axis: str, value: object) -> float | None:
    """A value of an axis as a number: a LoRA's rank; None where it is none, such as the solver's or that of all weights."""
    if axis == "adapter":
        return lora_rank(str(value))
    try:
        return float(str(value))
    except ValueError:
        return None


@dataclass(frozen=True)
class Contrast:
    """What is compared: methods a and b (b None: a alone), over which axis and how, in which metric, where else than in the main setting.

    `how`: MEAN, LOG (slope per doubling), LINEAR (slope per unit), or FROM, the second of `values` less the first.
    `at`: axes that differ from the main setting's, and sampling_steps, with their values.
    """

    a: str
    b: str | None
    how: str
    axis: str
    values: tuple[str, ...]
    metric: str
    reference: str
    at: tuple[tuple[str, str], ...] = ()

    @property
    def what(self) -> str:
        """The `what` of its line: log~N, mean~solver, from~loss~mse~pseudo_huber."""
        return "~".join([self.how, self.axis, *self.values])

    @property
    def key(self) -> str:
        """It as one word: cm:direct_cm:log~N:fd_tiny:teacher, with :sampling_steps~2 and the like at its end."""
        parts = [self.a, self.b or self.a, self.what, self.metric, self.reference]
        return ":".join([*parts, *(f"{axis}~{value}" for axis, value in self.at)])

    @classmethod
    def parse(cls, key: str) -> Self:
        """What a word spells; ValueError where it is none of these."""
        parts = key.split(":")
        found = (
            re.fullmatch(rf"({MEAN}|{LOG}|{LINEAR}|{FROM})~(\w+)((?:~[^~]+)*)", parts[2]) if len(parts) > 4 else None
        )
        at = tuple((name, value) for name, _, value in (part.partition("~") for part in parts[5:]))
        if found is None or found[2] not in OVER or any(name not in OVER or not value for name, value in at):
            raise ValueError(key)
        a, b, _, metric, reference = parts[:5]
        values = tuple(found[3].split("~")[1:])
        if not {a, b} <= METHODS.keys() or metric not in METRICS or reference not in METRICS[metric].references:
            raise ValueError(key)
        if len(values) != (2 if found[1] == FROM else 0):
            raise ValueError(key)
        return cls(a, None if a == b else b, found[1], found[2], values, metric, reference, at)

    def x(self, value: Hashable) -> float | None:
        """The axis's value on the contrast's scale; None where it has none there."""
        if self.how == FROM:
            text = spell(value)
            return float(self.values.index(text)) if text in self.values else None
        if self.how == MEAN:
            return 0.0
        found = number_of(self.axis, value)
        return (
            math.log2(found)
            if found is not None and self.how == LOG and found > 0
            else found
            if self.how == LINEAR
            else None
        )

    def weights(self, x: Sequence[float]) -> np.ndarray:
        """Of each value in the contrast."""
        from directcm.statistics.trend import mean_weights, slope_weights

        return mean_weights(len(x)) if self.how == MEAN else slope_weights(x)


@dataclass(frozen=True)
class Cell:
    """One value of the axis: its place on the scale, and the students' setting, optimiser step and sampling steps there."""

    x: float
    setting: Setting
    step: int
    sampling_steps: int


@dataclass(frozen=True)
class Plan:
    """Where a contrast is taken: the setting that its line stands at, its cells (none over start times) and the seeds they share."""

    setting: Setting
    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]

    def runs(self, contrast: Contrast) -> list[Run]:
        """The students that it needs."""
        settings = dict.fromkeys(cell.setting for cell in self.cells) or {self.setting: None}
        names = [name for name in (contrast.a, contrast.b) if name]
        return [Run(method=name, seed=seed, **s.axes()) for s in settings for name in names for seed in self.seeds]


def _seeds(config: Config, contrast: Contrast, measured: bool = False) -> dict[Setting, set[int]]:
    """Of each setting the seeds that both methods have; `measured`: whose error by start time is."""
    found: dict[Setting, dict[str, set[int]]] = {}
    for run in config.runs():
        if not measured or config.measures_errors(run):
            found.setdefault(run.setting, {}).setdefault(run.method, set()).add(run.seed)
    names = {contrast.a, contrast.b or contrast.a}
    both = {s: set.intersection(*(own[name] for name in names)) for s, own in found.items() if names <= own.keys()}
    return {setting: seeds for setting, seeds in both.items() if seeds}


def _sets(config: Config, contrast: Contrast, setting: Setting, seeds: Iterable[int]) -> list[tuple[int, int]]:
    """The (step, sampling steps) that all these students are evaluated at."""
    names = [name for name in (contrast.a, contrast.b) if name]
    runs = [Run(method=name, seed=seed, **setting.axes()) for name in names for seed in seeds]
    return sorted(set.intersection(*({*config.sets(run)} for run in runs)))


def plan(contrast: Contrast, config: Config) -> Plan | None:
    """Where a grid has what a contrast needs: two values of its axis or more with a seed in common, all else equal; None where it has not.

    Around the main setting, or, where its axis is not swept there, around that of most values; along training, in the setting that differs
    in steps and start points alone and has most snapshots, of these the longest.
    """
    at = dict(contrast.at)
    start = main_setting(config).at(**{axis: value for axis, value in at.items() if axis in SETTING_AXES})
    seeds = _seeds(config, contrast, contrast.axis == TIME)
    wanted = int(at[SAMPLING]) if SAMPLING in at else None

    def sets(setting: Setting, own: Iterable[int]) -> list[tuple[int, int]]:
        found = _sets(config, contrast, setting, own)
        least = min((k for _, k in found), default=0) if wanted is None else wanted
        return [(step, k) for step, k in found if contrast.axis == SAMPLING or k == least]

    if contrast.axis == TIME:
        return Plan(start, (), tuple(sorted(seeds[start]))) if start in seeds and config.errors.times > 1 else None
    if contrast.axis in SETTING_AXES:
        groups: dict[tuple[object, ...], list[Setting]] = {}
        for setting in seeds:
            if contrast.x(getattr(setting, contrast.axis)) is not None:
                groups.setdefault(setting.but(contrast.axis), []).append(setting)
        most = max(groups.values(), key=len, default=[])
        own = groups.get(start.but(contrast.axis), [])
        chosen = own if len(own) > 1 else most
        common = set.intersection(*(seeds[s] for s in chosen)) if chosen else set()
        last = [(s, [k for step, k in sets(s, common) if step == s.steps]) for s in chosen] if common else []
        cells = [Cell(contrast.x(getattr(s, contrast.axis)) or 0.0, s, s.steps, ks[0]) for s, ks in last if ks]
        base = start if start in chosen else chosen[0] if chosen else start
    elif contrast.axis == STEP:
        free = ("steps", "pool")
        paths = {s: sets(s, seeds[s]) for s in seeds if s.but(*free) == start.but(*free)}
        base = max(paths, key=lambda s: (len(paths[s]), s.steps, s.pool), default=start)
        common = seeds.get(base, set())
        cells = [Cell(contrast.x(step) or 0.0, base, step, k) for step, k in paths.get(base, [])]
    else:
        base, common = start, seeds.get(start, set())
        found = sets(base, common) if common else []
        cells = [Cell(contrast.x(k) or 0.0, base, step, k) for step, k in found if step == base.steps]
    if len(cells) < 2 or (contrast.how == FROM and len(cells) != 2):
        return None
    ordered = sorted(cells, key=lambda cell: (cell.x, cell.setting.key, cell.step, cell.sampling_steps))
    return Plan(base, tuple(ordered), tuple(sorted(common)))


# ----------------------------------------------------------------- values


@dataclass(frozen=True)
class Held:
    """What the artefacts hold: evaluations by run, step and sampling steps; features by their fingerprint; errors by run."""

    evaluations: Mapping[tuple[Run, int, int], Evaluation]
    features: Mapping[tuple[str, str], Features]
    errors: Mapping[Run, Artifact]

    def evaluation(self, run: Run, cell: Cell) -> Evaluation:
        found = self.evaluations.get((run, cell.step, cell.sampling_steps))
        if found is None:
            raise UserError(
                f"contrasts: no metrics of {run.key} after {cell.step} steps in {cell.sampling_steps}; evaluate it first"
            )
        return found

    def rows(self, item: Evaluation, extractor: str, of: str, n: int) -> tuple[np.ndarray, Features]:
        """The first n features that an evaluation was computed on (`of` "samples") or against."""
        fingerprint = item.fingerprints.get(f"features_{of}_{extractor}", "")
        found = self.features.get((extractor, fingerprint))
        if found is None:
            raise UserError(
                f"{item.path}: the {extractor} features of the {of} behind it are not among those given; pass them, or evaluate again"
            )
        if len(found.rows) < n:
            raise UserError(
                f"{found.artifact.folder}: has {len(found.rows)} rows, but {n} were evaluated; make it again"
            )
        return found.image[:n], found


def influence(held: Held, item: Evaluation, metric: str, reference: str, n: int, part: str = "whole") -> np.ndarray:
    """Per-prompt parts of one set's Fréchet distance (n,), about its value; `part`: or of its term "mean" or "covariance"."""
    from directcm.statistics.trend import frechet_influence

    extractor = METRICS[metric].extractor
    assert extractor is not None
    own, first = held.rows(item, extractor, "samples", n)
    other, second = held.rows(item, extractor, reference, n)
    if first.rows[:n] != second.rows[:n]:
        raise UserError(
            f"{first.artifact.folder}: its first {n} rows are not those of {second.artifact.folder}; make both from the same noise"
        )
    if first.version != second.version:
        raise UserError(
            f"{first.artifact.folder} and {second.artifact.folder}: features of two different versions of one extractor; make both again"
        )
    return float(item.values[metric, reference]["value"]) + frechet_influence(own, other, part)


@dataclass
class Reader:
    """Per-prompt values of sets, each computed once."""

    held: Held
    kept: dict[tuple[Path, str, str], np.ndarray | None]

    def of(self, item: Evaluation, metric: str, reference: str) -> np.ndarray | None:
        """(n,) of one set, in the order of its rows; None where the metric is not defined there."""
        key = (item.path, metric, reference)
        if key not in self.kept:
            self.kept[key] = self._read(item, metric, reference)
        return self.kept[key]

    def _read(self, item: Evaluation, metric: str, reference: str) -> np.ndarray | None:
        entry = item.values.get((metric, reference))
        if entry is None:
            raise UserError(f"{item.path}: lacks {metric} against {reference}; evaluate it again")
        if entry["value"] is None:
            return None
        n = int(entry["n"])
        if not METRICS[metric].per_sample:
            return influence(self.held, item, metric, reference, n)
        table, path = item.per_sample, item.artifact.folder / "per_sample.csv"
        if metric not in table or table[metric].isna().any() or len(table) != n:
            raise UserError(f"{path}: has not {n} finite values of {metric}; evaluate it again")
        values = table[metric].to_numpy(float)
        if abs(values.mean() - entry["value"]) > 1e-5 * abs(entry["value"]) + 1e-9:
            raise UserError(f"{path}: the mean of {metric} is not that of metrics.json; evaluate it again")
        return values


def _sampled(contrast: Contrast, place: Plan, reader: Reader) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Per-prompt contrasts of a and of b, (S, n) each; None where a value is not defined."""
    import numpy as np

    weights = contrast.weights([cell.x for cell in place.cells])
    out: list[np.ndarray] = []
    noises: dict[Any, Evaluation] = {}
    rows: dict[tuple[int, ...], Evaluation] = {}
    for method in (name for name in (contrast.a, contrast.b) if name):
        whole = []
        for seed in place.seeds:
            found = []
            for cell in place.cells:
                item = reader.held.evaluation(Run(method=method, seed=seed, **cell.setting.axes()), cell)
                noises.setdefault(item.fingerprints.get("noise"), item)
                if METRICS[contrast.metric].per_sample:
                    rows.setdefault(tuple(item.per_sample.index), item)
                found.append(reader.of(item, contrast.metric, contrast.reference))
            if any(values is None for values in found):
                return None
            if len({len(values) for values in found if values is not None}) > 1 or len(noises) > 1 or len(rows) > 1:
                raise UserError(
                    f"{item.path}: evaluated on other noise, rows or n than the other settings of {contrast.what}; evaluate all alike"
                )
            whole.append(weights @ np.array(found))
        out.append(np.array(whole))
    return out[0], out[1] if len(out) > 1 else None


def _timed(contrast: Contrast, place: Plan, held: Held, space: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Per-point contrasts over start times of a and of b, (S, points) each, from the students' errors against their own ODE."""
    import numpy as np

    out: list[np.ndarray] = []
    grids: dict[tuple[Any, ...], Path] = {}
    for method in (name for name in (contrast.a, contrast.b) if name):
        whole = []
        for seed in place.seeds:
            run = Run(method=method, seed=seed, **place.setting.axes())
            if run not in held.errors:
                raise UserError(f"contrasts: no errors by start time of {run.key}; measure them first")
            path = held.errors[run].file("per_point.csv")
            table = frame(path, ("point", "time", "space", "student"), texts=("space",))
            own = table[table["space"] == space].pivot(index="point", columns="time", values="student").sort_index()
            if own.empty or own.isna().any(axis=None):
                raise UserError(f"{path}: has no {space} error of some point at some time; measure it again")
            grids.setdefault((tuple(own.columns), tuple(own.index), held.errors[run].settings.get("seed")), path)
            if len(grids) > 1:
                raise UserError(
                    f"{path}: its start points are not those of {next(iter(grids.values()))}; measure both alike"
                )
            times = own.columns.to_numpy(float)
            # From the data to the largest start time is one unit. There a little of the image is left on vp, as in training.
            x = np.log2(times) if contrast.how == LOG else times / times.max()
            whole.append(own.to_numpy(float) @ contrast.weights(list(x)))
        out.append(np.array(whole))
    return out[0], out[1] if len(out) > 1 else None


# ----------------------------------------------------------------- the verb


def _line(
    contrast: Contrast, place: Plan, values: tuple[np.ndarray, np.ndarray | None], statistics: Any, seed: int
) -> dict[str, Any]:
    """The line of comparisons.csv: of the contrasts of a and b, (S, n) each."""
    import numpy as np

    from directcm.statistics import inference

    first = values[0]
    second = np.zeros_like(first) if values[1] is None else values[1]
    n = first.shape[1]
    found = inference.paired_bootstrap(first, second, statistics.bootstrap, seed, statistics.level)
    whole = inference.crossed(found.per_seed, found.shared, n, statistics.level)
    exact = METRICS[contrast.metric].per_sample
    last = place.cells[-1] if place.cells else Cell(0.0, place.setting, place.setting.steps, 1)
    return {
        "what": contrast.what, "a": METHODS[contrast.a], "b": METHODS[contrast.b or contrast.a], **place.setting.spelled,
        "a_step": last.step, "b_step": place.cells[0].step if place.cells else last.step,
        "sampling_steps": last.sampling_steps, "metric": contrast.metric, "reference": contrast.reference,
        "mean_a": float(first.mean()), "mean_b": float(second.mean()),
        **{name: getattr(whole, name) for name in ("difference", "low", "high", "se_seeds", "se_prompts", "df", "p")},
        "level": statistics.level, "test": BOOTSTRAP if exact else INFLUENCE,
        # A bootstrap of first-order parts would say no more than the variance does.
        "p_prompts": found.p if exact else None, "n": n, "n_seeds": len(place.seeds), "dim": None,
        "seeds_agree": int((np.sign(found.per_seed) == np.sign(whole.difference)).sum()) if whole.difference else 0,
    }  # fmt: skip


def contrasts(
    wanted: Sequence[Contrast],
    config: Config,
    metrics: Sequence[str | Path],
    features: Sequence[tuple[str, str]],
    errors: Sequence[str | Path],
    seed: int,
    out_csv: str | Path,
    *,
    space: str = "latent",
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Write the lines of these contrasts (COMPARISON_COLUMNS), and return them; a header alone where there are none.

    `mean_a` and `mean_b` are the contrasts of either method, b's 0 where a stands alone. `metrics`: collections of the students' metrics;
    `features`: (extractor, artefact or collection) of students, teacher and data, found by the fingerprints that the metrics recorded;
    `errors`: errors by start time. Slopes are per doubling of the axis (log), per unit of it (linear), and over start times from the data to
    the largest. Raises UserError where something behind a contrast is missing, of another noise or of another size.
    """
    evaluations: dict[tuple[Run, int, int], Evaluation] = {}
    for path in metrics:
        for part in open_collection(path, "metrics").values():
            content = metrics_of(part, "step", "fingerprints")
            run = Run.of(content["run"], f"{part.folder}: its run", "evaluate it again")
            values = {(item["metric"], item["reference"]): item for item in content["metrics"]}
            step, steps = int(content["step"]), int(content["steps"])
            evaluations[run, step, steps] = Evaluation(run, step, steps, values, content["fingerprints"], part)
    held = Held(evaluations, features_of(features), _errors(errors))
    reader, rows = Reader(held, {}), []
    for done, contrast in enumerate(wanted, 1):
        place = plan(contrast, config)
        if place is None:
            raise UserError(f"contrasts: the grid has nothing for {contrast.key}; leave it out")
        timed = contrast.axis == TIME
        found = _timed(contrast, place, held, space) if timed else _sampled(contrast, place, reader)
        rows += [_line(contrast, place, found, config.statistics, seed)] if found is not None else []
        if progress is not None:
            progress(done, len(wanted))
    save(out_csv, rows, COMPARISON_COLUMNS)
    return rows


def _errors(given: Sequence[str | Path]) -> dict[Run, Artifact]:
    """Errors by start time by their runs."""
    found = [open_artifact(path, "errors") for path in given]
    return {Run.of(one.settings.get("run"), f"{one.folder}: its run", "measure it again"): one for one in found}


def features_of(given: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Features]:
    """Features by extractor and fingerprint, of artefacts and of collections of them."""
    out = {}
    for extractor, path in given:
        folder = Path(path).parent if Path(path).name == MANIFEST else Path(path)
        whole = read_json(folder / MANIFEST).get("kind") == COLLECTION
        for part in open_collection(folder, "features").values() if whole else [open_artifact(folder, "features")]:
            out[extractor, part.fingerprint] = Features(part, extractor)
    return out


def needed(wanted: Iterable[Contrast], config: Config) -> list[tuple[Contrast, Plan]]:
    """Those that the grid can take, each with where."""
    found = [(contrast, plan(contrast, config)) for contrast in wanted]
    return [(contrast, place) for contrast, place in found if place is not None]
