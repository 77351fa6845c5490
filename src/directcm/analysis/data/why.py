"""The verb `why`: the tests of one experiment on why (`experiments`), judged over units and prompts, and every number of its arms.

Writes <letter>.csv, a line a test (TESTS), and <letter>_arms.csv, a line a value of an arm's unit (ARMS). Imports no torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from directcm.analysis.data.compare import Evaluation, metrics_of
from directcm.analysis.data.contrasts import Held, Reader, features_of, influence
from directcm.analysis.data.experiments import (
    DISPLACEMENT,
    REFUTED,
    SUPPORTED,
    UNDECIDED,
    UNTESTABLE,
    Experiment,
    Rule,
    Test,
    better,
    read_experiments,
)
from directcm.analysis.data.places import Grid, Place, axis_value, missing, needed, present
from directcm.config import Config, Run, paths, spell
from directcm.config.specs import METRICS
from directcm.errors import UserError
from directcm.runtime.artifacts import Artifact, open_artifact, open_collection, write_csv

if TYPE_CHECKING:
    import numpy as np

    from directcm.statistics.hypotheses import Judged

SHOWN, CONTRARY = "shown", "the opposite is shown"
TESTS = [
    "experiment", "test", "says", "deciding", "verdict", "metric", "reference", "claim", "contrast", "estimate", "low", "high", "level",
    "margin", "p", "p_for", "p_against", "p_holm", "unit", "n_units", "units", "n_prompts", "se_units", "se_prompts", "detectable", "reason",
]  # fmt: skip
# What an arm is, by column: of a student its axes, of a fixed point its cell.
OF_AN_ARM = [
    "method", "N", "adapter", "lr", "steps", "pool", "k", "share", "density", "weight", "labels", "ema", "step", "sampling_steps",
    "start", "scaling", "relay", "at", "process", "dimension", "kind", "m", "tau",
]  # fmt: skip
ARMS = ["experiment", "arm", "by", "unit", *OF_AN_ARM, "metric", "reference", "value", "n"]
# Of a test that stays undecided: the difference that as many units and prompts would have shown with this probability.
POWER = 0.8
# The polynomial in log displacement that is adjusted for.
DEGREE = 2


# ----------------------------------------------------------------- values


@dataclass
class Values:
    """Per-prompt values of an experiment's arms: a row (prompts,) for each arm and unit, each read once.

    `results`: the results folder, of which only what `experiments.needed` names is read.
    """

    results: Path
    experiment: Experiment
    grid: Grid
    held: Held
    by_place: Mapping[Place, Evaluation]
    kept: dict[Any, Any] = field(default_factory=dict)

    def once(self, key: Any, made: Callable[[], Any]) -> Any:
        """What is made of it, kept."""
        if key not in self.kept:
            self.kept[key] = made()
        return self.kept[key]

    def item(self, arm: str, unit: int, by: str) -> tuple[Place, Evaluation]:
        """The set of an arm and unit, and its evaluation."""
        place = self.grid.place(self.experiment, arm, unit, by)
        if place not in self.by_place:
            raise UserError(
                f"{self.results}: no metrics of {place.collection} after {place.step} steps; evaluate it first"
            )
        return place, self.by_place[place]

    def row(self, arm: str, unit: int, by: str, metric: str, reference: str) -> np.ndarray | None:
        """(prompts,) of one arm and unit; None where the metric is not defined there."""
        place, item = self.item(arm, unit, by)
        # How far a student travelled has no reference.
        key = (place, metric, "teacher" if metric == DISPLACEMENT else reference)
        return self.once(key, lambda: self._read(place, item, metric, reference))

    def _read(self, place: Place, item: Evaluation, metric: str, reference: str) -> np.ndarray | None:
        if metric == DISPLACEMENT:
            return self._displacement(place, item)
        spec = METRICS[metric]
        if spec.per_sample or spec.test == "frechet":
            return Reader(self.held, {}).of(item, metric, reference)
        entry = item.values.get((metric, reference))
        if entry is None:
            raise UserError(f"{item.path}: lacks {metric} against {reference}; evaluate it again")
        if entry["value"] is None:
            return None
        if spec.part_of == "ode_error":
            return float(entry["value"]) + self._parts(place, item)[spec.part]
        return influence_of_part(self.held, item, metric, reference, int(entry["n"]))

    def _latents(self, place: Place, item: Evaluation) -> tuple[np.ndarray, np.ndarray]:
        """(rows, latents) of a set, by ascending row: of the samples that it was evaluated on."""
        folder = self.results / "samples" / place.collection
        wanted = {value for key, value in item.fingerprints.items() if key.startswith("samples_")}
        parts = self.once(folder, lambda: open_collection(folder, "samples"))
        found = [part for part in parts.values() if part.fingerprint in wanted]
        if not found:
            raise UserError(f"{folder}: holds none of the samples that {item.path} is of; evaluate it again")
        return latents_of(found)

    def _displacement(self, place: Place, item: Evaluation) -> np.ndarray:
        """Mean squared difference to the untrained start's samples of the same noise, by row (n,)."""
        import numpy as np

        rows, own = self._latents(place, item)
        folder = self.results / "untrained" / paths.taught(self.grid.config, place.run.ode).key
        other_rows, other = self.once(folder, lambda: latents_of([open_artifact(folder, "untrained")]))
        if not np.array_equal(rows, other_rows) or own.shape != other.shape:
            raise UserError(f"{folder}: its rows are not those of {item.path}; make both from the same noise")
        return ((own.astype(np.float64) - other) ** 2).reshape(len(own), -1).mean(axis=1)

    def _parts(self, place: Place, item: Evaluation) -> dict[str, np.ndarray]:
        """What each row adds to each part of the ODE error, (n,) by its name."""
        return self.once((place, "parts"), lambda: self._parts_anew(place, item))

    def _parts_anew(self, place: Place, item: Evaluation) -> dict[str, np.ndarray]:
        import numpy as np

        from directcm.statistics.baselines import indexed
        from directcm.statistics.error_parts import influences

        rows, own = self._latents(place, item)
        ode, shards = paths.taught(self.grid.config, place.run.ode).key, self.grid.config.evaluation.jobs
        folders = [self.results / "reference" / ode / f"shard~{i}" for i in range(shards)]
        other_rows, other = self.once(
            ("reference", ode), lambda: latents_of([open_artifact(f, "samples") for f in folders])
        )
        if not np.array_equal(rows, other_rows) or own.shape != other.shape:
            raise UserError(f"{folders[0]}: its rows are not those of {item.path}; make both from the same noise")
        prompts = self.once("prompts", lambda: open_artifact(self.results / "noise", "noise").csv("prompts.csv"))
        groups = indexed([line["label"] or "" for line in prompts])[rows]
        return influences(own.astype(np.float64), other.astype(np.float64), groups)

    def matrix(
        self, arms: Sequence[str], units: Sequence[int], by: str, metric: str, reference: str
    ) -> np.ndarray | None:
        """(arms, units, prompts); None where the metric is not defined somewhere. All are of one noise, and of the same rows."""
        import numpy as np

        noises: dict[Any, Path] = {}
        out = []
        for arm in arms:
            rows = []
            for unit in units:
                _, item = self.item(arm, unit, by)
                values = self.row(arm, unit, by, metric, reference)
                if values is None:
                    return None
                noises.setdefault((item.fingerprints.get("noise"), len(values)), item.path)
                if len(noises) > 1:
                    one, other = noises.values()
                    raise UserError(f"{other}: evaluated on other noise or another n than {one}; evaluate all alike")
                rows.append(values)
            out.append(rows)
        return np.array(out)


def influence_of_part(held: Held, item: Evaluation, metric: str, reference: str, n: int) -> np.ndarray:
    """Per-prompt parts of a Fréchet distance's term (n,), about its value."""
    whole = METRICS[metric].part_of
    own = influence(held, item, whole, reference, n, METRICS[metric].part)
    return own - float(item.values[whole, reference]["value"]) + float(item.values[metric, reference]["value"])


def latents_of(shards: Sequence[Artifact]) -> tuple[np.ndarray, np.ndarray]:
    """(rows, latents) of an artefact's shards by ascending row."""
    import numpy as np

    arrays = [shard.arrays("latents.safetensors") for shard in shards]
    rows = np.concatenate([one["rows"] for one in arrays]).astype(np.int64)
    order = np.argsort(rows, kind="stable")
    return rows[order], np.concatenate([one["latents"] for one in arrays])[order]


@dataclass
class Closed:
    """The same of fixed points: units share no prompts, so that each has one number."""

    experiment: Experiment
    grid: Grid
    rows: Mapping[tuple[Any, ...], Mapping[str, str]]
    seeds: Sequence[int]

    def value(self, arm: str, unit: int, metric: str) -> float | None:
        one = self.experiment.made[arm]
        row = self.rows.get((one.process, one.dimension, one.kind, one.m, one.k, one.tau, unit))
        text = None if row is None else row.get(metric)
        return float(text) if text else None

    def matrix(
        self, arms: Sequence[str], units: Sequence[int], by: str, metric: str, reference: str
    ) -> np.ndarray | None:
        """(arms, units, 1)."""
        import numpy as np

        found = [[self.value(arm, unit, metric) for unit in units] for arm in arms]
        if any(value is None or not math.isfinite(value) for row in found for value in row):
            return None
        return np.array(found, dtype=float)[..., None]


def _closed(path: Path, experiment: Experiment, grid: Grid) -> Closed:
    """The fixed points, and the flow from their start, of an artefact."""
    art = open_artifact(path, "fixed_points")
    out: dict[tuple[Any, ...], Mapping[str, str]] = {}
    for name in ("fixed_points.csv", "flow.csv"):
        for line in art.csv(name):
            try:
                tau = float(line["tau"]) if "tau" in line else None
                key = (line["process"], int(line["dimension"]), line["class"], int(line["m"]), int(line["k"]), tau)
                out[(*key, int(line["seed"]))] = line
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(f"{art.folder / name}: has no {error}, or it is no number; make it again") from None
    return Closed(experiment, grid, out, sorted({key[-1] for key in out}))


def _held(results: Path, wanted: Mapping[str, Sequence[str]]) -> tuple[Held, dict[Place, Evaluation]]:
    """Evaluations by the set that they are of, and features by their fingerprint."""
    found: dict[Place, Evaluation] = {}
    for folder in wanted["metrics"]:
        for part in open_collection(results / folder, "metrics").values():
            content = metrics_of(part, "step", "fingerprints")
            run = Run.of(content["run"], f"{part.folder}: its run", "evaluate it again")
            values = {(item["metric"], item["reference"]): item for item in content["metrics"]}
            step, steps = int(content["step"]), int(content["steps"])
            tuned = tuple(
                (name, content[name]) for name in ("start", "scaling", "relay", "at") if content.get(name) is not None
            )
            found[Place(run, step, steps, tuned)] = Evaluation(run, step, steps, values, content["fingerprints"], part)
    given = [(folder.split("/")[1], str(results / folder)) for folder in wanted.get("features", ())]
    return Held({}, features_of(given), {}), found


# ----------------------------------------------------------------- contrasts


def weights_of(values: Values | Closed, test: Test, arms: Sequence[str], units: Sequence[int]) -> np.ndarray:
    """The coefficient of each arm for each unit, (arms, units). UserError where a slope or an adjustment has nothing to go by."""
    import numpy as np

    from directcm.statistics.hypotheses import adjusted_weights, product_weights

    experiment, out = values.experiment, np.zeros((len(arms), len(units)))
    if test.contrast is not None:
        for pattern, coefficient in test.contrast.items():
            own = experiment.matching(pattern)
            for name in own:
                out[arms.index(name)] += coefficient / len(own)
        return out
    if test.slope is not None:
        own = experiment.matching(test.slope.arms)
        axes = [
            [axis_value(values.grid, experiment, name, axis, units[0], experiment.by(test)) for name in own]
            for axis in test.slope.over
        ]
        found = product_weights([np.array(axis) for axis in axes])
        for name, weight in zip(own, found, strict=True):
            out[arms.index(name)] = weight
        return out
    assert test.adjusted is not None
    own = experiment.matching(test.adjusted.arms)
    group = np.array([getattr(experiment.made[name], test.adjusted.factor) == test.adjusted.values[1] for name in own])
    far = values.matrix(own, units, experiment.by(test), test.adjusted.given, "teacher")
    assert far is not None
    for place in range(len(units)):
        found = adjusted_weights(np.log(far[:, place].mean(axis=1)), group.astype(float), DEGREE)
        for name, weight in zip(own, found, strict=True):
            out[arms.index(name), place] = weight
    return out


def spelled(test: Test) -> str:
    """A contrast in words, for the CSV: "+1 k5 at 250, -1 k1 at 250"."""
    if test.contrast is not None:
        return ", ".join(f"{value:+g} {name}" for name, value in test.contrast.items())
    if test.slope is not None:
        return f"slope of {test.slope.arms} over log2 of {' and '.join(test.slope.over)}"
    assert test.adjusted is not None
    first, second = test.adjusted.values
    return f"{second} less {first} of {test.adjusted.arms} at equal {test.adjusted.given}"


def sign_of(test: Test, metric: str, closed: bool) -> int:
    """−1 or 1 that is claimed of a contrast; 0 for equality."""
    if test.claim == "better":
        return -1 if better(metric, closed) == "lower" else 1
    return {"lower": -1, "higher": 1, "equal": 0, "not_lower": 1, "not_higher": -1}[test.claim]


@dataclass(frozen=True)
class Tested:
    """A test and what was found of it; `judged` is None where it could not be taken, and `reason` says why."""

    name: str
    test: Test
    metric: str | None
    judged: Judged | None
    units: Sequence[int] = ()
    margin: float | None = None
    reason: str = ""

    @property
    def known(self) -> bool:
        return self.judged is not None and self.judged.p is not None

    def side(self, shown: bool) -> float:
        """The one-sided p of its claim, or of the opposite."""
        assert self.judged is not None and self.judged.p_for is not None and self.judged.p_against is not None
        return self.judged.p_for if shown else self.judged.p_against


def take(values: Values | Closed, name: str, units: Sequence[int], config: Config) -> Tested:
    """One test over these units."""
    import numpy as np

    from directcm.statistics.hypotheses import judge

    experiment, grid = values.experiment, values.grid
    test = experiment.tests[name]
    metric = grid.metric(experiment, test)
    assert metric is not None
    arms = experiment.arms_of(test)
    found = values.matrix(arms, units, experiment.by(test), metric, test.reference)
    if found is None:
        return Tested(name, test, metric, None, units, reason=f"{metric} is not defined for some arm")
    try:
        weights = weights_of(values, test, arms, units)
    except UserError as error:
        return Tested(name, test, metric, None, units, reason=str(error))
    contrast = np.einsum("au,aun->un", weights, found)
    margin: np.ndarray | float | None = None
    if test.share is not None:
        share, pattern = test.share
        margin = share * np.mean([found[arms.index(arm)] for arm in experiment.matching(pattern)], axis=0)
    elif test.margin is not None:
        margin = float(test.margin)
    judged = judge(contrast, config.statistics.level, sign_of(test, metric, experiment.closed), margin)
    reason = "" if judged.p is not None else "its units do not vary: nothing estimates a spread"
    return Tested(name, test, metric, judged, units, None if margin is None else float(np.mean(margin)), reason)


# ----------------------------------------------------------------- the outcome


def p_of(rule: Rule, tested: Mapping[str, Tested]) -> float | None:
    """The one-sided p that a rule is true: of all the largest, of any the smallest times their number; None where a test of it has none."""
    from directcm.statistics.hypotheses import p_of_all, p_of_any

    found: list[float] = []
    for part in rule.parts:
        if isinstance(part, Rule):
            own = p_of(part, tested)
        else:
            one = tested[part.removeprefix("not ")]
            own = one.side(not part.startswith("not ")) if one.known else None
        if own is None:
            return None
        found.append(own)
    return p_of_all(found) if rule.all is not None else p_of_any(found)


def outcome(experiment: Experiment, tested: Mapping[str, Tested], alpha: float) -> tuple[str, float | None]:
    """(outcome, two-sided p): supported or refuted where the rule's one-sided p is at most α/2, so that either error has α in all."""
    sides = [p_of(rule, tested) for rule in (experiment.supported_if, experiment.refuted_if)]
    known = [p for p in sides if p is not None]
    if len(known) < 2:
        return UNTESTABLE, None
    supported, refuted = known
    p = min(1.0, 2 * min(known))
    if p > alpha:
        return UNDECIDED, p
    return (SUPPORTED if supported <= refuted else REFUTED), p


def _lines(letter: str, experiment: Experiment, tested: Mapping[str, Tested], config: Config) -> list[dict[str, Any]]:
    """TESTS: a deciding test's verdict is by its own p, for its rule corrects where it must; others' by Holm's among themselves."""
    from directcm.statistics.inference import holm
    from directcm.statistics.power import detectable

    alpha, out = config.statistics.alpha, []
    others = [name for name, one in tested.items() if name not in experiment.deciding and one.known]
    found = [tested[name].judged for name in others]
    adjusted = dict(zip(others, holm([one.p for one in found if one is not None and one.p is not None]), strict=True))
    for name, one in tested.items():
        test, judged, deciding = one.test, one.judged, name in experiment.deciding
        line: dict[str, Any] = {
            "experiment": letter, "test": name, "says": test.says, "deciding": "yes" if deciding else "no", "metric": one.metric,
            "reference": "" if experiment.closed else test.reference, "claim": test.claim, "contrast": spelled(test), "level": config.statistics.level,
            "margin": one.margin, "unit": experiment.by(test), "n_units": len(one.units), "units": " ".join(map(str, one.units)), "reason": one.reason,
            "verdict": UNTESTABLE,
        }  # fmt: skip
        if judged is not None:
            crossed = judged.found
            line |= {
                "estimate": crossed.difference, "low": crossed.low, "high": crossed.high, "p": judged.p, "p_for": judged.p_for,
                "p_against": judged.p_against, "p_holm": adjusted.get(name), "n_prompts": judged.n if judged.n > 1 else None,
                "se_units": crossed.se_seeds, "se_prompts": crossed.se_prompts,
            }  # fmt: skip
            if judged.p is not None:
                decides = judged.p if deciding else adjusted[name]
                assert judged.p_for is not None and judged.p_against is not None
                ahead = SHOWN if judged.p_for < judged.p_against else CONTRARY
                line["verdict"] = ahead if decides <= alpha else UNDECIDED
                if line["verdict"] == UNDECIDED:
                    errors = (crossed.se_seeds, crossed.se_prompts, judged.units, max(judged.n, 2), alpha)
                    # Where two are equal both one-sided tests have to succeed.
                    line["detectable"] = detectable(*errors, (1 + POWER) / 2 if test.claim == "equal" else POWER)
        out.append(line)
    return out


def _arm_fields(grid: Grid, experiment: Experiment, name: str, unit: int, by: str) -> dict[str, Any]:
    """What an arm is, by column."""
    arm = experiment.made[name]
    if arm.closed:
        found = {key: getattr(arm, key) for key in ("process", "dimension", "kind", "m", "k", "tau")}
        block = grid.config.fixed_points
        return found | {"share": arm.k / block.N if block is not None and arm.k else None}
    place = grid.place(experiment, name, unit, by)
    own = {key: spell(getattr(place.run, key)) for key in OF_AN_ARM if key in Run.model_fields}
    share = place.run.k / place.run.N if place.run.method == "k_step" else None
    return own | {"share": share, "step": place.step, "sampling_steps": place.sampling_steps, **dict(place.tuned)}


def _arms(values: Values | Closed, letter: str, tests: Sequence[str]) -> list[dict[str, Any]]:
    """ARMS: of every arm and unit that is there, each metric of its evaluation, and the displacement where a test read it."""
    experiment, grid = values.experiment, values.grid
    units: dict[str, set[int]] = {}
    for name in tests:
        test = experiment.tests[name]
        own = values.seeds if isinstance(values, Closed) else grid.units(experiment, test)
        units.setdefault(experiment.by(test), set()).update(own)
    out: list[dict[str, Any]] = []
    seen: set[tuple[str, Any]] = set()
    kinds = {
        arm: {
            experiment.by(experiment.tests[name]) for name in tests if arm in experiment.arms_of(experiment.tests[name])
        }
        for arm in experiment.made
    }
    for arm, by in itertools.product(experiment.made, units):
        # What no test is about, by whatever is there.
        for unit in sorted(units[by]) if by in (kinds[arm] or units) else ():
            about = {"experiment": letter, "arm": arm, "by": by, "unit": unit}
            about |= _arm_fields(grid, experiment, arm, unit, by)
            if isinstance(values, Closed):
                metrics = dict.fromkeys(m for name in tests for m in experiment.tests[name].metric)
                found = {metric: values.value(arm, unit, metric) for metric in metrics}
                out += [
                    about | {"metric": metric, "value": value} for metric, value in found.items() if value is not None
                ]
                continue
            place = grid.place(experiment, arm, unit, by)
            item = values.by_place.get(place)
            # One student of teacher 0 may be there by seed and by teacher.
            if item is None or (arm, place) in seen:
                continue
            seen.add((arm, place))
            for (metric, reference), entry in item.values.items():
                out.append(about | {"metric": metric, "reference": reference, "value": entry["value"], "n": entry["n"]})
            far = values.kept.get((place, DISPLACEMENT, "teacher"))
            if far is not None:
                more = {"metric": DISPLACEMENT, "reference": "none", "value": float(far.mean()), "n": len(far)}
                out.append(about | more)
    return out


def why(
    experiments_yaml: str | Path,
    letter: str,
    config: Config,
    results: Path,
    out_csv: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Write the tests of the experiment of a letter, and its arms beside; returns the lines of the former.

    Raises UserError where this grid has no such experiment, or an artefact behind it is missing, of another noise or of another size.
    """
    found = read_experiments(experiments_yaml)
    name = present(found, config).get(letter)
    if name is None:
        absent = {key: reason for key, reason in missing(found, config).items() if key[0] == letter}
        said = "; ".join(f"{key}: {reason}" for key, reason in absent.items()) or f"there is no experiment {letter}"
        raise UserError(f"{experiments_yaml}: {said}")
    experiment, grid = found[name], Grid(config)
    tests = grid.tests(experiment)
    values: Values | Closed
    if experiment.closed:
        values = _closed(results / "fixed_points", experiment, grid)
    else:
        held, by_place = _held(results, needed(experiment, config))
        values = Values(results, experiment, grid, held, by_place)
    tested: dict[str, Tested] = {}
    for done, (key, test) in enumerate(experiment.tests.items(), 1):
        if key in tests:
            units = values.seeds if isinstance(values, Closed) else grid.units(experiment, test)
            tested[key] = take(values, key, units, config)
        else:
            tested[key] = Tested(key, test, grid.metric(experiment, test), None, reason=grid.lacking(experiment, key))
        if progress is not None:
            progress(done, len(experiment.tests))
    lines = _lines(letter, experiment, tested, config)
    verdict, p = outcome(experiment, tested, config.statistics.alpha)
    whole = {
        "experiment": letter, "test": "outcome", "says": experiment.says, "deciding": "outcome", "verdict": verdict, "p": p,
        "unit": experiment.unit, "level": config.statistics.level,
    }  # fmt: skip
    write_csv(out_csv, [rounded(line, TESTS) for line in [whole, *lines]], TESTS)
    arms = _arms(values, letter, tests)
    write_csv(out_csv.with_name(f"{out_csv.stem}_arms.csv"), [rounded(line, ARMS) for line in arms], ARMS)
    return [whole, *lines]


def rounded(line: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """A line with ten digits of each number that is not whole; what it lacks is empty."""
    out: dict[str, Any] = {}
    for name in columns:
        value = line.get(name)
        number = isinstance(value, float)
        out[name] = (
            None if value is None or (number and not math.isfinite(value)) else f"{value:.10g}" if number else value
        )
    return out
