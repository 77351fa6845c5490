"""The verb `collect`: every metric, student, error and comparison of a run in tidy tables, with errors along directions and correlations.

Tables of several teachers begin with the column `teacher_seed`; tables of the default teacher alone have none. Each table has one line per value, numbers at ten significant digits, and an empty field where something is not defined.
What is tabulated side by side must be comparable, so this is where other noise and other sizes are refused.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from directcm.analysis.data import tidy
from directcm.analysis.data.compare import metrics_of
from directcm.config import RUN_AXES, SETTING_AXES, TEACHER_SEED, Axes, Ode, Run, spell
from directcm.config.registry import START_POINTS, methods
from directcm.config.specs import BASELINES, METHODS, METRICS, REFERENCES
from directcm.errors import UserError
from directcm.runtime.artifacts import (
    COLLECTION,
    MANIFEST,
    PROVENANCE,
    Artifact,
    open_artifact,
    open_collection,
    read_json,
)

if TYPE_CHECKING:
    import pandas as pd

SIZES = ("n", "n_reference", "dim")
# Names that are sorted as they are declared.
ORDERS: dict[str, Sequence[str]] = {
    "row": tidy.ROWS, "method": tuple(METHODS), "metric": tuple(METRICS), "reference": REFERENCES,
    "space": ("latent", "pixel"),
}  # fmt: skip
A = TypeVar("A", bound=Axes)


def _ordered(column: pd.Series) -> pd.Series:
    """A column to sort by: declared names in their order, then others by a number at their end (lora4 before lora64), then as text."""
    if column.name not in tidy.TEXTS:
        return column
    known = ORDERS.get(str(column.name), ())

    def place(name: str) -> tuple[int, float, str]:
        digits = re.search(r"\d+$", name)
        return known.index(name) if name in known else len(known), float(digits[0]) if digits else math.inf, name

    return column.astype("category").cat.set_categories(sorted(set(column), key=place), ordered=True)


def _table(lines: Sequence[Mapping[str, Any]] | pd.DataFrame, columns: Sequence[str], value: str) -> pd.DataFrame:
    """A tidy table of these lines, sorted by its columns before the first value.

    The teacher's seed is the first column where some line has one; lines without are of the default teacher.
    """
    import pandas as pd

    table = pd.DataFrame(lines)
    if TEACHER_SEED in table:
        table[TEACHER_SEED] = table[TEACHER_SEED].fillna(0).astype(int)
        columns = [TEACHER_SEED, *columns]
    keys = list(columns[: columns.index(value)])
    return table.reindex(columns=columns).sort_values(keys, key=_ordered, kind="stable", ignore_index=True)


def _joined(tables: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """Tables of these columns one after the other, with the file that each line is from as its `path`."""
    import pandas as pd

    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*columns, "path"])


def _once(given: dict[Any, Path], what: Any, path: Path, named: str = "run") -> None:
    if what in given:
        raise UserError(f"{path}: the same {named} as {given[what]}; give each run once")
    given[what] = path


# ----------------------------------------------------------------- metrics


def _run_of(kind: type[A], content: Any, path: Path) -> A:
    """The run, or the ODE, of a file's "run"."""
    run = content.get("run") if isinstance(content, dict) else None
    if not isinstance(run, dict):
        raise UserError(f"{path}: has no run; delete the folder and run again")
    return kind.of(run, f"{path}: its run", "delete the folder and run again")


def _set_of(name: str, where: Path) -> tuple[int, int]:
    """(optimiser step, sampling steps) of a part "step~250,sampling_steps~1"."""
    found = re.fullmatch(r"step~(\d+),sampling_steps~(\d+)", name)
    if not found:
        raise UserError(f"{where}: holds {name!r}, expected step~…,sampling_steps~…; delete it and evaluate again")
    return int(found[1]), int(found[2])


def _evaluated(path: Path) -> list[tuple[Artifact, tuple[int, int] | None]]:
    """The metrics artefacts behind a path, each with its set: those of a student's collection, or the teacher's or the baselines' own."""
    folder = path.parent if path.name == MANIFEST else path
    manifest = read_json(folder / MANIFEST)
    if isinstance(manifest, dict) and manifest.get("kind") == COLLECTION:
        parts = open_collection(path, "metrics")
        if parts.keys() <= BASELINES.keys():
            return [(part, None) for part in parts.values()]
        return [(part, _set_of(name, folder)) for name, part in parts.items()]
    return [(open_artifact(path, "metrics"), None)]


@dataclass(frozen=True)
class Evaluated:
    """A metrics artefact: its values of the columns that say which set it is, and its entries."""

    artifact: Artifact
    own: Mapping[str, Any]
    items: Sequence[Mapping[str, Any]]


def metrics_table(paths: Sequence[str | Path]) -> pd.DataFrame:
    """metrics.csv of `read_sets`."""
    return _metrics(read_sets(paths))


def _metrics(sets: Sequence[Evaluated]) -> pd.DataFrame:
    out: list[dict[str, Any]] = []
    for one in sets:
        for item in one.items:
            flags = ";".join(dict.fromkeys(str(flag).replace(";", ",") for flag in item.get("flags") or ()))
            values = {name: item.get(name) for name in ("metric", "reference", "value", "low", "high", *SIZES)}
            out.append({**one.own, "flags": flags, **values})
    return _table(out, tidy.METRIC_COLUMNS, "value")


def set_table(sets: Sequence[Evaluated], name: str) -> pd.DataFrame:
    """directions.csv or correlations.csv, from the table of this name that an evaluation wrote beside its metrics, where it did."""
    columns, value = tidy.TABLES[name], tidy.FIRST_VALUE[name]
    own = [column for column in columns if column not in tidy.METRIC_COLUMNS or column in ("metric", "n")]
    out: list[dict[str, Any]] = []
    for one in sets:
        if not one.artifact.files(name):
            continue
        where = one.artifact.file(name)
        table = tidy.frame(where, own, texts=("metric",))
        out += [{**one.own, **line} for line in table[own].to_dict("records")]
    return _table(out, columns, value)


def read_sets(paths: Sequence[str | Path]) -> list[Evaluated]:
    """Metrics artefacts: students' collections, the teacher's and its floor's own folders, and the baselines' collections.

    Raises UserError where a set is given twice, where teacher and students were not evaluated on one noise (nor the floors
    on one of their own), and where n, n_reference or dim of one metric against one reference differ.
    """
    # The teacher has no training.
    unset = {"method": "", "adapter": "", "loss": ""}
    out: list[Evaluated] = []
    given: dict[Any, Path] = {}
    noises: dict[bool, tuple[str, Path]] = {}
    sizes: dict[tuple[str, str], tuple[tuple[Any, ...], Path]] = {}
    for artifact, part in (item for path in paths for item in _evaluated(Path(path))):
        path, content = artifact.folder / "metrics.json", metrics_of(artifact)
        row, steps = content["row"], content["steps"]
        teacher = row in tidy.UNTRAINED
        run = _run_of(Ode if teacher else Run, content, path)
        if isinstance(run, Run) and METHODS.get(run.method) != row:
            raise UserError(f"{path}: row is {row!r} but method {run.method!r}; evaluate again")
        step = None
        if part is not None:
            step = part[0]
            if teacher or (content.get("step", step), steps) != part:
                raise UserError(
                    f"{path}: does not belong in the set {artifact.folder.name}; delete it and evaluate again"
                )
        elif not teacher:
            raise UserError(f"{path}: is a set of {row} outside its run's collection; pass the collection's manifest")
        noise = (content.get("fingerprints") or {}).get("noise")
        if noise is not None:
            first, where = noises.setdefault(row == tidy.FLOOR, (noise, path))
            if first != noise:
                raise UserError(f"{path}: evaluated on other noise than {where}; evaluate both on the same noise")
        for item in content["metrics"]:
            what = (item["metric"], item["reference"])
            # Metrics of one set may lie in several artefacts, each once.
            _once(given, (row, run, step, steps, *what), path, "set")
            size = tuple(item.get(name) for name in SIZES)
            first_size, where = sizes.setdefault(what, (size, path))
            if first_size != size:
                raise UserError(
                    f"{path}: {what[0]} against {what[1]} has (n, n_reference, dim) = {size}, but {first_size} in {where}: "
                    f"not comparable; evaluate both alike"
                )
        own = {**unset, **run.axes(), "row": row, "step": step, "sampling_steps": steps}
        out.append(Evaluated(artifact, own, content["metrics"]))
    return out


# ----------------------------------------------------------------- students


def _provenance(artifact: Artifact) -> dict[str, Any]:
    beside = artifact.folder / PROVENANCE
    found = read_json(beside) if beside.is_file() else {}
    return found if isinstance(found, dict) else {}


def _seconds(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None


def _count(artifact: Artifact, name: str) -> int:
    value = artifact.counts.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f"{artifact.folder / MANIFEST}: counts no {name}; delete the folder and run again")
    return value


def _solving(shards: Mapping[Artifact, Ode], student: Artifact, run: Run) -> tuple[float, float | None]:
    """(mean teacher forwards, mean seconds) per target of a student; seconds are None where a shard's are not recorded.

    Of the shards whose fingerprints the student's manifest names, else of all of its ODE and start points.
    """
    wanted = {value for key, value in student.manifest["inputs"].items() if key.startswith("targets")}
    start_points = methods()[run.method].targets
    alike = [s for s, ode in shards.items() if ode == run.ode]
    found = [shard for shard in shards if shard.fingerprint in wanted] or [
        shard for shard in alike if shard.settings.get("coupling", START_POINTS[0]) == start_points
    ]
    if not found:
        raise UserError(f"{student.folder}: its targets' manifests were not given; pass all targets of its ODE")
    solved = sum(_count(shard, "targets") for shard in found)
    if not solved:
        raise UserError(f"{found[0].folder}: holds no targets; delete the folder and run again")
    recorded = [_provenance(shard) for shard in found]
    # A process's own seconds hold its start-up too, which a student's do not.
    clocks = [_seconds(one.get("solving_seconds", one.get("seconds"))) for one in recorded]
    known = [clock for clock in clocks if clock is not None]
    seconds = math.fsum(known) / solved if len(known) == len(clocks) else None
    return sum(_count(shard, "teacher_forwards") for shard in found) / solved, seconds


def _solutions(path: str | Path) -> list[Artifact]:
    """The targets behind a path: an artefact, or of states a collection of them, one for each number of steps."""
    folder = Path(path).parent if Path(path).name == MANIFEST else Path(path)
    if read_json(folder / MANIFEST).get("kind") == COLLECTION:
        return list(open_collection(folder, "targets").values())
    return [open_artifact(folder, "targets")]


def _sets_of(evaluated: pd.DataFrame) -> list[tuple[Any, ...]]:
    """(axes of the run …, its teacher's seed, optimiser step) of each line of metrics.csv that is a student's."""
    students = evaluated.dropna(subset="step")
    teacher_seed = students.get(TEACHER_SEED, 0)
    return tidy.keys_of(students.assign(**{TEACHER_SEED: teacher_seed}), (*RUN_AXES, TEACHER_SEED, "step"))


def students_table(
    students: Sequence[str | Path], targets: Sequence[str | Path] = (), evaluated: pd.DataFrame | None = None
) -> pd.DataFrame:
    """students.csv: what each student had cost at its snapshots and at its end.

    Forwards and backwards count rows through a network. Those in training are what student.json says of its steps; one of the
    teacher's is the solver's evaluations per step, twice under guidance. Those behind solved targets are the endpoints
    used so far, none counted twice, times the mean over the targets of the shards trained on, and the same for the seconds: "solving_seconds"
    of the shards' provenance, else the whole processes'. A step is listed if the student's manifest or `evaluated` (metrics.csv) names it.
    """
    shards = {
        shard: _run_of(Ode, {"run": shard.settings}, shard.folder / MANIFEST)
        for path in targets
        for shard in _solutions(path)
    }
    steps_of: dict[tuple[Any, ...], set[int]] = {}
    for *axes, step in _sets_of(evaluated) if evaluated is not None else ():
        steps_of.setdefault(tuple(axes), set()).add(int(step))
    out: list[dict[str, Any]] = []
    given: dict[Run, Path] = {}
    for path in students:
        student = open_artifact(path, "student")
        where = student.folder / MANIFEST
        run = _run_of(Run, student.settings, where)
        if run.method not in methods():
            raise UserError(f"{where}: unknown method {run.method!r}; there are {', '.join(methods())}")
        _once(given, run, where)
        drawn, about = _count(student, "pairs_drawn"), student.json("student.json")
        clocks = _provenance(student).get("seconds_at")
        clocks = clocks if isinstance(clocks, dict) else {}
        declared = methods()[run.method]
        forwards, seconds = _solving(shards, student, run) if declared.targets else (0.0, 0.0)
        place = tuple(getattr(run, name) for name in (*RUN_AXES, TEACHER_SEED))
        steps = {*steps_of.get(place, ()), *(student.settings.get("snapshots") or ()), run.steps}
        for step in sorted(steps):
            pairs = drawn * step // run.steps
            distinct = min(pairs, run.pool) if declared.pool else pairs
            made = about["forwards"].get(str(step))
            if made is None:
                raise UserError(
                    f"{where}: what step {step} had cost is not recorded; train it again with this snapshot"
                )
            out.append(
                {
                    **run.axes(), "step": step, "trainable_parameters": _count(student, "trainable_parameters"), "pairs": pairs,
                    "distinct_pairs": distinct, "student_forwards": made["student"],
                    "student_backwards": pairs, "teacher_forwards": made["teacher"],
                    "target_forwards": round(made["endpoints"] * forwards), "seconds": _seconds(clocks.get(str(step))),
                    "target_seconds": None if seconds is None else made["endpoints"] * seconds,
                }
            )  # fmt: skip
    return _table(out, tidy.STUDENT_COLUMNS, "trainable_parameters")


# ----------------------------------------------------------------- errors


def errors_table(paths: Sequence[str | Path]) -> pd.DataFrame:
    """errors.csv from errors artefacts: mean squared errors by start time, n alike for all students."""
    found: list[pd.DataFrame] = []
    given: dict[Any, Path] = {}
    for path in paths:
        artifact = open_artifact(path, "errors")
        where = artifact.file("errors.csv")
        named = artifact.settings if "run" in artifact.settings else artifact.json("student_error.json")
        run = _run_of(Run, named, artifact.folder / MANIFEST)
        _once(given, run, where)
        table = tidy.frame(where, ("time", "space", *tidy.ERROR_TERMS, "n"), empty=True, texts=("space",))
        if len(wrong := table["space"][~table["space"].isin(ORDERS["space"])]):
            raise UserError(f"{where}: space is {wrong.iloc[0]!r}, expected latent or pixel; measure it again")
        found.append(table.rename(columns=tidy.ERROR_TERMS).assign(**run.axes(), path=where))
    whole = _joined(found, tidy.ERROR_COLUMNS)
    first = whole.groupby(["time", "space"])[["n", "path"]].transform("first")
    if len(wrong := whole[whole["n"] != first["n"]]):
        other, line = wrong.iloc[0], first.loc[wrong.index[0]]
        raise UserError(
            f"{other['path']}: n = {other['n']:.0f} start points at time {spell(other['time'])}, but {line['n']:.0f} in "
            f"{line['path']}: not comparable; measure both alike"
        )
    return _table(whole, tidy.ERROR_COLUMNS, "student_error")


# ----------------------------------------------------------------- comparisons


def comparisons_table(paths: Sequence[str | Path]) -> pd.DataFrame:
    """comparisons.csv: the settings' own comparison tables, one after the other."""
    tables = [tidy.frame(path, tidy.COMPARISON_COLUMNS, empty=True).assign(path=path) for path in paths]
    whole = _joined(tables, tidy.COMPARISON_COLUMNS)
    keys = tidy.COMPARISON_COLUMNS[: tidy.COMPARISON_COLUMNS.index("mean_a")]
    if TEACHER_SEED in whole:
        # Those of the default teacher say nothing of it.
        whole, keys = whole.fillna({TEACHER_SEED: 0}), [TEACHER_SEED, *keys]
    if (twice := whole.duplicated(keys)).any():
        first = whole.groupby(keys)["path"].transform("first")
        raise UserError(
            f"{whole['path'][twice].iloc[0]}: compares what {first[twice].iloc[0]} compares; give each setting once"
        )
    return _table(whole, tidy.COMPARISON_COLUMNS, "mean_a")


def _prompt_errors(compared: pd.DataFrame) -> dict[tuple[str, ...], float]:
    """Standard errors over prompts of two methods' differences after equal steps, by `_place`; NaN where there is none."""
    own = compared[(compared["what"] == "method") & (compared["a_step"] == compared["b_step"])]
    own = own.rename(columns={"a_step": "step"})
    return {_place(row, row["a"], row["b"]): row["se_prompts"] for row in own.to_dict("records")}


def _place(row: Mapping[Any, Any], a: str, b: str) -> tuple[str, ...]:
    """What two methods are compared in, and their rows, whichever is first."""
    key = (*SETTING_AXES, "step", "sampling_steps", "metric", "reference")
    return (spell(row.get(TEACHER_SEED, 0)), *(spell(row[name]) for name in key), *sorted((a, b)))


def over_teachers(measured: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    """comparisons.csv of several teachers, from their metrics.csv: two methods' difference a − b within each teacher.

    A line for each teacher, setting, pair of methods, optimiser step, number of sampling steps, metric and reference that several
    teachers have. Means are over the training seeds that all of these have of both methods (`n_seeds`). A student is measured
    against its own teacher, or against the data. What is random is the teacher, so that no line has a test of its own. `se_prompts` is
    that of each teacher's own comparison (`compared`, comparisons.csv of them all), which is over all seeds that this one has.
    """
    import pandas as pd

    key = [*SETTING_AXES, "step", "sampling_steps", "metric", "reference"]
    students = measured.dropna(subset="step")
    if TEACHER_SEED not in students:
        students = students.assign(**{TEACHER_SEED: 0})
    out, errors = [], _prompt_errors(compared)
    present = [name for name in METHODS if name in {*students["method"]}]
    by_method = {name: students[students["method"] == name] for name in present}
    for a, b in itertools.combinations(present, 2):
        both = by_method[a].merge(by_method[b], on=[*key, "seed", TEACHER_SEED], suffixes=("_a", "_b"))
        teachers, with_seed = (both.groupby(by)[TEACHER_SEED].transform("nunique") for by in (key, [*key, "seed"]))
        for place, rows in both[(teachers > 1) & (with_seed == teachers)].groupby([TEACHER_SEED, *key]):
            own = dict(zip([TEACHER_SEED, *key], place, strict=True))
            mean_a, mean_b = rows["value_a"].mean(skipna=False), rows["value_b"].mean(skipna=False)
            error = errors.get(_place(own, METHODS[a], METHODS[b]), math.nan)
            first, step = rows.iloc[0], own.pop("step")
            out.append(
                {
                    **own, "what": "method", "a": METHODS[a], "b": METHODS[b], "a_step": step, "b_step": step, "mean_a": mean_a,
                    "mean_b": mean_b, "difference": mean_a - mean_b, "se_prompts": error, "n": first["n_a"], "n_seeds": len(rows), "dim": first["dim_a"],
                }
            )  # fmt: skip
    return _table(out or pd.DataFrame(columns=[TEACHER_SEED]), tidy.COMPARISON_COLUMNS, "mean_a")


# ----------------------------------------------------------------- the verb


def collect(
    metrics: Sequence[str | Path],
    students: Sequence[str | Path],
    targets: Sequence[str | Path],
    errors: Sequence[str | Path],
    comparisons: Sequence[str | Path],
    out: str | Path,
    several: bool = False,
) -> dict[str, int]:
    """Write the tidy tables (tidy.TABLES) into the folder `out`; returns their numbers of lines.

    `metrics`: students' and baselines' collections and the teacher's and its floor's metrics artefacts; `students`, `targets`, `errors`:
    artefacts of these kinds; each as folder or manifest.json, in any order. `comparisons`: CSV files of tidy.COMPARISON_COLUMNS.
    `several`: these are students of several teachers, of which comparisons.csv has the differences within each (`over_teachers`).
    A table with no line has its heading alone. Nothing is written where something cannot be compared (UserError).
    """
    sets = read_sets(metrics)
    measured, compared = _metrics(sets), comparisons_table(comparisons)
    tables = {
        "metrics.csv": measured,
        "students.csv": students_table(students, targets, measured),
        "errors.csv": errors_table(errors),
        "comparisons.csv": over_teachers(measured, compared) if several else compared,
        **{name: set_table(sets, name) for name in tidy.FIRST_VALUE},
    }
    for name, table in tables.items():
        tidy.save(Path(out) / name, table)
    return {name: len(table) for name, table in tables.items()}
