"""Reading the tidy tables: rows by setting, means over seeds, and which rows belong to one path of training.

A tidy table has one row per value; an empty field is not defined and becomes NaN. Numbers are compared as numbers: 1e-4 and
0.0001 are one learning rate. Tables are made of pandas frames (`frame`), figures of rows of text (`read`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from directcm.config import ODE_AXES, RUN_AXES, SETTING_AXES, Setting, spell
from directcm.config.registry import FIRST
from directcm.config.specs import BASELINES, METHODS, METRICS
from directcm.errors import UserError
from directcm.runtime.artifacts import read_csv, write_csv

if TYPE_CHECKING:
    import pandas as pd

TEACHER = "Teacher"
FLOOR = "Teacher, other noise"
STUDENTS = tuple(METHODS.values())
PAIR = tuple(METHODS[name] for name in FIRST)
# The ODE error of these is what a student has to beat.
TO_BEAT = tuple(BASELINES.values())
# Rows of an ODE alone: no training stands behind them.
UNTRAINED = (TEACHER, FLOOR, *TO_BEAT)
ROWS = (*UNTRAINED, *STUDENTS)
ALPHA = 0.05
# What the training path may differ in: a longer run of the same setting draws its further start points from a larger pool.
BUDGET_AXES = ("steps", "pool")
# Fréchet distances, and how well images fit their prompts; figures show the first that a run has.
DISTANCES = tuple(m.name for m in METRICS.values() if m.test == "frechet" and m.headline)
ALIGNMENTS = tuple(m.name for m in METRICS.values() if m.takes == ("image", "text"))
AGAINST = {"teacher": "to teacher", "other_noise": "to teacher, other noise", "data": "to data"}
ARROWS = {"lower": "↓", "higher": "↑"}
METRIC_COLUMNS = [
    "row", "method", *SETTING_AXES, "seed", "step", "sampling_steps", "metric", "reference", "value", "low", "high", "n",
    "n_reference", "dim", "flags",
]  # fmt: skip
STUDENT_COLUMNS = [
    "method", *SETTING_AXES, "seed", "step", "trainable_parameters", "pairs", "distinct_pairs", "student_forwards",
    "student_backwards", "teacher_forwards", "target_forwards", "seconds", "target_seconds",
]  # fmt: skip
# A term of an errors artefact → its column. Not "solver": that is the name of an axis of the setting.
ERROR_TERMS = {"student": "student_error", "solver": "solver_error", "total": "total_error", "cross": "cross_term"}
ERROR_COLUMNS = ["method", *SETTING_AXES, "seed", "time", "space", *ERROR_TERMS.values(), "n"]
COMPARISON_COLUMNS = [
    "what", "a", "b", *SETTING_AXES, "a_step", "b_step", "sampling_steps", "metric", "reference", "mean_a", "mean_b",
    "difference", "low", "high", "level", "se_seeds", "se_prompts", "df", "p", "test", "p_prompts", "n", "n_seeds", "dim",
    "seeds_agree",
]  # fmt: skip
SET_COLUMNS = ["row", "method", *SETTING_AXES, "seed", "step", "sampling_steps"]
# Bands of principal directions of the teacher's samples, by rank: variances and the ODE error in them, which add up over bands.
DIRECTION_COLUMNS = [*SET_COLUMNS, "first", "last", "reference_variance", "variance", "error"]
# Rank correlation of the ODE error of single samples with another metric of theirs.
CORRELATION_COLUMNS = [*SET_COLUMNS, "metric", "rho", "n"]
TABLES = {
    "metrics.csv": METRIC_COLUMNS,
    "students.csv": STUDENT_COLUMNS,
    "errors.csv": ERROR_COLUMNS,
    "comparisons.csv": COMPARISON_COLUMNS,
    "directions.csv": DIRECTION_COLUMNS,
    "correlations.csv": CORRELATION_COLUMNS,
}
# Of those that every evaluation writes for itself, the first column that is a value.
FIRST_VALUE = {"directions.csv": "reference_variance", "correlations.csv": "rho"}
# The columns of tidy tables that are text; all others are numbers.
TEXTS = (
    "row", "method", "what", "a", "b", "solver", "adapter", "loss", "space", "metric", "reference", "test", "flags",
)  # fmt: skip
# Of the numbers, those that are spelled as in paths, and those that count something.
SPELLED = (*RUN_AXES, "time")
WHOLE = (
    "step", "a_step", "b_step", "sampling_steps", "n", "n_reference", "n_seeds", "dim", "seeds_agree", "trainable_parameters",
    "pairs", "distinct_pairs", "student_forwards", "student_backwards", "teacher_forwards", "target_forwards",
    "n_settings", "settings_agree", "test", "first", "last",
)  # fmt: skip

Row = Mapping[str, str]


# ----------------------------------------------------------------- reading


def read(path: str | Path, columns: Collection[str]) -> list[dict[str, str]]:
    """A tidy table's rows; raises UserError where a column is missing or there is no row."""
    rows = read_csv(path)
    if not rows:
        raise UserError(f"{path}: holds no rows; make it again")
    missing = [c for c in columns if c not in rows[0]]
    if missing:
        raise UserError(f"{path}: lacks the columns {', '.join(missing)}; make it again")
    return rows


def frame(
    path: str | Path, columns: Collection[str], empty: bool = False, texts: Collection[str] = TEXTS
) -> pd.DataFrame:
    """A tidy table: numbers as float64, NaN where not defined or not finite; the columns `texts` as text.

    `empty`: it may hold no rows. Raises UserError where it does and may not, where a column is missing, and where a number is none.
    """
    import pandas as pd

    rows = read_csv(path) if empty else read(path, columns)
    table = pd.DataFrame(rows, columns=None if rows else list(columns), dtype=object)
    if missing := [name for name in columns if name not in table or table[name].isna().any()]:
        raise UserError(f"{path}: lacks the columns {', '.join(missing)}; make it again")
    for name in table.columns.difference(list(texts)):
        try:
            numbers = pd.Series([float(text or "nan") for text in table[name]], table.index, float)
        except ValueError as error:
            text = str(error).partition(": ")[2]
            raise UserError(f"{path}: {name} is {text:.40}, expected a number; make it again") from None
        table[name] = numbers.replace([math.inf, -math.inf], math.nan)
    return table


def save(
    path: str | Path, rows: pd.DataFrame | Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> None:
    """Write rows as CSV, as `frame` reads it: axes as paths spell them, counts as whole numbers, ten digits of all else.

    `columns`: theirs, in order. A field that a row lacks is empty.
    """
    import pandas as pd
    from pandas.api.types import is_numeric_dtype

    shown: dict[Any, Callable[[Any], Any]] = dict.fromkeys(SPELLED, spell) | dict.fromkeys(WHOLE, number)
    table, fields = pd.DataFrame(rows, columns=columns), []
    for name in table:
        own = shown.get(name, rounded) if is_numeric_dtype(table[name]) else str
        fields.append([None if pd.isna(x) else own(x) for x in table[name]])
    write_csv(path, [dict(zip(table, row, strict=True)) for row in zip(*fields, strict=True)], list(table))


def keys_of(table: pd.DataFrame, columns: Iterable[str]) -> list[tuple[Any, ...]]:
    """These columns of each row, as a tuple: for sets, dictionaries and joins."""
    return list(table[list(columns)].itertuples(index=False, name=None))


def value(text: str | None) -> float:
    """A field as a number; NaN where it is empty or not finite."""
    try:
        number = float(text) if text else math.nan
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def significant(row: Mapping[str, Any], alpha: float) -> bool:
    """Whether a line of comparisons.csv is significant at alpha: the rule of bold type, markers, hatching and, before Holm, of claims.

    p over seeds and prompts together is at most alpha. It has both kinds of chance in it, so that p over prompts alone decides nothing.
    """
    return row.get("p") not in ("", None) and float(row["p"]) <= alpha


def matches(row: Row, setting: Setting, free: Collection[str] = (), names: Sequence[str] = SETTING_AXES) -> bool:
    """Whether a row's axes are those of a setting, but for those in `free`."""
    return all(name in free or spell(row[name]) == setting.spelled[name] for name in names)


def fewest(rows: Sequence[Row]) -> list[Row]:
    """The students' rows with the smallest number of sampling steps among them."""
    students = [row for row in rows if row["row"] in STUDENTS]
    least = min((value(row["sampling_steps"]) for row in students), default=math.nan)
    return [row for row in students if value(row["sampling_steps"]) == least]


def finished(rows: Iterable[Row], step: str = "step") -> list[Row]:
    """Rows of finished students: no snapshots."""
    return [row for row in rows if value(row[step]) == value(row["steps"])]


def differences(
    rows: Iterable[Row], main: Setting, free: Collection[str] = (), sampling_steps: float | None = None
) -> list[Row]:
    """CM − Direct CM at the same step of training, in settings that differ from `main` in `free` only.

    At `sampling_steps`, or where it is None at the smallest number of sampling steps found.
    """
    found = [
        r
        for r in rows
        if r["what"] == "method"
        and (r["a"], r["b"]) == PAIR
        and value(r["a_step"]) == value(r["b_step"])
        and matches(r, main, free)
    ]
    least = (
        min((value(r["sampling_steps"]) for r in found), default=math.nan) if sampling_steps is None else sampling_steps
    )
    return [r for r in found if value(r["sampling_steps"]) == least]


def base(row: str) -> str | None:
    """The method that another one is built over, by their names: "CT" of "GC (CT)"; None where the name says none."""
    name = row[row.rfind("(") + 1 : -1] if row.endswith(")") else ""
    return name if name in STUDENTS and name != row else None


def layered(rows: Iterable[str]) -> list[str]:
    """Names in the order of drawing: a method that is built over another comes after all that are not, and so lies on its base."""
    return sorted(rows, key=lambda row: base(row) is not None)


def teacher(rows: Iterable[Row], setting: Setting, free: Collection[str] = ()) -> list[Row]:
    """The rows of the teacher and of its floor at a setting's solver, N and w, but for those in `free`."""
    return [r for r in rows if r["row"] in (TEACHER, FLOOR) and matches(r, setting, free, ODE_AXES)]


# ----------------------------------------------------------------- metrics


def headline() -> list[str]:
    """The metrics that figures show, in the order of specs.METRICS."""
    return [name for name, spec in METRICS.items() if spec.headline]


def keys(rows: Iterable[Row], metrics: Collection[str] | None = None) -> list[tuple[str, str]]:
    """The (metric, reference) pairs with a value, in the order of specs.METRICS; of `metrics`, else of the headline ones."""
    wanted = headline() if metrics is None else metrics
    present = {(r["metric"], r["reference"]) for r in rows if not math.isnan(value(r["value"]))}
    return [(m, r) for m, spec in METRICS.items() if m in wanted for r in spec.references if (m, r) in present]


def first_of(names: Sequence[str], pairs: Iterable[tuple[str, str]], reference: str) -> str | None:
    """The first of `names` that is among `pairs` with this reference."""
    found = set(pairs)
    return next((name for name in names if (name, reference) in found), None)


def name_of(metric: str, reference: str) -> str:
    """ "FD-tiny to teacher", "ODE error": the reference is named where there are several."""
    spec = METRICS[metric]
    against = AGAINST.get(reference, "") if len(spec.references) > 1 else ""
    return f"{spec.title} {against}".rstrip()


def title(metric: str, reference: str, space: str = "latent") -> str:
    """ "ODE error (latent MSE) ↓": name, unit, and which way is better, for a horizontal title.

    `space`: what ODE errors are in, latent or pixel.
    """
    spec = METRICS[metric]
    unit = f" ({spec.unit.format(space=space)})" if spec.unit else ""
    return f"{name_of(metric, reference)}{unit} {ARROWS.get(spec.better, '')}".rstrip()


def constants(
    rows: Iterable[Row], main: Setting, metric: str, reference: str, paper: Collection[str]
) -> dict[str, float]:
    """What a metric is read against in the setting `main`: row → value of the teacher, its floor, and "paper, <row>"."""
    found = {
        r["row"]: value(r["value"]) for r in teacher(rows, main) if (r["metric"], r["reference"]) == (metric, reference)
    }
    own = {row: found[row] for row in (TEACHER, FLOOR) if row in found and not math.isnan(found[row])}
    return own | paper_values(metric, reference, paper)


def constant_rows(metric: str, reference: str, found: Mapping[str, float]) -> list[dict[str, Any]]:
    """What a figure's CSV holds of the reference lines (`constants`) of one panel."""
    return [{"metric": metric, "reference": reference, "row": row, "value": number(y)} for row, y in found.items()]


def paper_values(metric: str, reference: str, paper: Collection[str]) -> dict[str, float]:
    """ "paper, CM" → the paper's value, for a metric in `paper` (those on its scale) and not against data, as it reports."""
    if metric not in paper or reference == "data":
        return {}
    return {f"paper, {row}": number for row, number in METRICS[metric].paper.items()}


def possible(metric: str) -> tuple[float, float]:
    """The least and the largest value that a metric can have."""
    low, high = METRICS[metric].bounds if metric in METRICS else (None, None)
    return -math.inf if low is None else low, math.inf if high is None else high


# ----------------------------------------------------------------- means over seeds


@dataclass(frozen=True)
class Point:
    """Seeds' values at one x: their mean, their sample standard deviation (NaN for one), and each of them."""

    x: float
    mean: float
    sd: float
    values: Mapping[int, float]

    @property
    def n(self) -> int:
        return len(self.values)


def mean_sd(values: Collection[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n − 1); NaN for fewer than two values."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def points(
    rows: Iterable[Row], x: str | Callable[[Row], float], y: str | Callable[[Row], float] = "value"
) -> list[Point]:
    """Means over seeds by x, ascending; rows whose x or y is not defined are left out."""
    found: dict[float, dict[int, float]] = {}
    for row in rows:
        at = value(row[x]) if isinstance(x, str) else x(row)
        own = value(row[y]) if isinstance(y, str) else y(row)
        if not (math.isnan(at) or math.isnan(own)):
            found.setdefault(at, {})[int(value(row["seed"])) if row["seed"] else 0] = own
    return [Point(at, *mean_sd(found[at].values()), dict(sorted(found[at].items()))) for at in sorted(found)]


def paired(a: Iterable[Point], b: Iterable[Point], level: float = 1 - ALPHA) -> list[tuple[Point, float, float]]:
    """a − b at every x that both have, by the seeds that both have, with Student's interval over these (NaN for one seed)."""
    others = {p.x: p for p in b}
    out = []
    for p in a:
        shared = others[p.x].values if p.x in others else {}
        own = {seed: v - shared[seed] for seed, v in p.values.items() if seed in shared}
        if not own:
            continue
        mean, sd = mean_sd(own.values())
        half = math.nan
        if len(own) > 1:
            from scipy.stats import t

            half = float(t.ppf(0.5 + level / 2, len(own) - 1)) * sd / math.sqrt(len(own))
        out.append((Point(p.x, mean, sd, own), mean - half, mean + half))
    return out


def counted(counts: Collection[int]) -> str:
    """ "5 seeds", "3–5 seeds", "1 seed"."""
    if not counts:
        return "no seeds"
    low, high = min(counts), max(counts)
    return f"{low} seed{'s' * (low != 1)}" if low == high else f"{low}–{high} seeds"


def seeds(groups: Iterable[Sequence[Point]]) -> str:
    """How many seeds stand behind series of points, in words."""
    return counted([p.n for group in groups for p in group])


# ----------------------------------------------------------------- along training


def path(rows: Sequence[Row], main: Setting, free: Collection[str] = (), step: str = "step") -> list[Row]:
    """Rows along training: of all settings that differ from `main` in steps, pool and `free` only, those of one path.

    One path is one setting with its snapshots: the one with most steps that were evaluated, or among equals the main one,
    then the longest. Where no setting has snapshots, finished students of several lengths make the path, of each length
    those of the main pool, else of the largest.
    """
    candidates = [r for r in rows if matches(r, main, (*BUDGET_AXES, *free))]
    groups: dict[tuple[float, float], list[Row]] = {}
    for row in candidates:
        groups.setdefault((value(row["steps"]), value(row["pool"])), []).append(row)
    if not groups:
        return []

    def rank(key: tuple[float, float]) -> tuple[int, bool, float, float]:
        own = key == (main.steps, main.pool)
        return len({value(r[step]) for r in groups[key]}), own, *key

    best = max(groups, key=rank)
    if rank(best)[0] > 1:
        return groups[best]
    chosen: dict[float, tuple[float, float]] = {}
    for key in sorted(groups, key=lambda k: (k[1] == main.pool, k[1])):
        chosen[key[0]] = key
    return [row for key in sorted(chosen.values()) for row in groups[key]]


def adapter_order(name: str) -> tuple[int, float, str]:
    """Sorts adapters by capacity: LoRA by rank, then all weights."""
    rank = name.removeprefix("lora")
    return (0, float(rank), name) if rank != name and rank.isdigit() else (1, 0.0, name)


def adapter_title(name: str) -> str:
    """ "LoRA, rank 64"; "all weights"."""
    rank = name.removeprefix("lora")
    return f"LoRA, rank {rank}" if rank != name and rank.isdigit() else {"full": "all weights"}.get(name, name)


# ----------------------------------------------------------------- writing what is drawn


def number(x: float) -> float | int | None:
    """For a CSV: ten significant digits, whole numbers as such, None for NaN."""
    if not math.isfinite(x):
        return None
    return int(x) if float(x).is_integer() and abs(x) < 1e15 else float(f"{x:.10g}")


def rounded(x: Any) -> Any:
    """Ten significant digits of a float: what values carry, without the last bits' noise. None where it is not finite; else as it is."""
    if not isinstance(x, float):
        return x
    return float(f"{x:.10g}") if math.isfinite(x) else None


def signed(x: float, decimals: int) -> str:
    """A difference with its sign, at fixed decimals: "+0.12", "−0.03", "0.00"."""
    text = f"{x:+.{decimals}f}"
    return (text[1:] if float(text) == 0 else text).replace("-", "−")


DRAWN = ["seed", "value", "sd", "n_seeds"]


def drawn(group: Iterable[Point], x: str, **fields: Any) -> list[dict[str, Any]]:
    """A series as CSV rows: per x its mean (seed empty, with sd and n_seeds), then each seed's value."""
    out: list[dict[str, Any]] = []
    for p in group:
        out.append({**fields, x: number(p.x), "value": number(p.mean), "sd": number(p.sd), "n_seeds": p.n})
        out += [{**fields, x: number(p.x), "seed": seed, "value": number(v)} for seed, v in p.values.items()]
    return out


def write(path: str | Path, rows: list[dict[str, Any]], columns: Sequence[str]) -> None:
    """Write what is drawn; a field that a row lacks is empty."""
    write_csv(path, [{c: row.get(c) for c in columns} for row in rows], list(columns))
