"""The published tables as Markdown: each one's lines from a scope's tidy tables, and how they are printed (verb `publish`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from directcm.analysis.data import tidy
from directcm.analysis.data.selection import main_setting, sampling_numbers, steps_label
from directcm.analysis.tables import (
    claims,
    table1,
    table4,
    table_baselines,
    table_comparison,
    table_further,
    table_parts,
    table_within,
)
from directcm.analysis.tables.claim import METHOD
from directcm.analysis.tables.text import fixed, listed
from directcm.analysis.tables.verdict import FAILS, HOLDS, NOT_RUN, Verdict, verdicts_of
from directcm.config import Config, number, spell
from directcm.config.registry import FIRST
from directcm.config.specs import DISTANCES, METRICS, SOLVERS
from directcm.errors import UserError

CM, DIRECT = tidy.PAIR
# The tidy table over teachers, of a grid that has several.
TEACHERS = "teachers"
Row = Mapping[str, Any]


# ----------------------------------------------------------------- Markdown


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"|{'|'.join(cell.replace('|', chr(92) + '|') for cell in line)}|\n" for line in lines)


def value_of(cell: Any) -> float:
    """A cell as a number; NaN where it is empty."""
    return math.nan if cell in (None, "") else float(cell)


def shown(mean: Any, sd: Any, decimals: int) -> str:
    """A cell as tables print it: "1.067 ± 0.126"; "–" where it is not defined."""
    value, spread = value_of(mean), value_of(sd)
    return fixed(value, decimals) + ("" if math.isnan(value) or math.isnan(spread) else f" ± {fixed(spread, decimals)}")


def _pair(row: Row, a: str, b: str, decimals: int) -> str:
    """CM's number and Direct CM's."""
    return f"{fixed(value_of(row[a]), decimals)} / {fixed(value_of(row[b]), decimals)}"


def line_name(metric: str, reference: str) -> str:
    """ "FD-tiny to data ↓": a line of Table 1."""
    spec = METRICS[metric]
    told = {"teacher": " to teacher samples", "other_noise": " to teacher samples of other noise", "data": " to data"}
    against = told.get(reference, "")
    return f"{spec.title}{against} {'↓' if spec.better == 'lower' else '↑'}"


def _p(cell: Any) -> str:
    value = value_of(cell)
    return "" if math.isnan(value) else f"{value:.2g}"


# ----------------------------------------------------------------- a scope's tidy tables


@dataclass(frozen=True)
class Tables:
    """The tidy tables of one scope of a preset, in a folder; its configuration; the repository."""

    folder: Path
    config: Config
    root: Path

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.csv"

    def differences(self, free: Collection[str], steps: int | None = None) -> list[dict[str, Any]]:
        """CM − Direct CM in the first Fréchet distance to the teacher, and the same in the ODE error as "ode", None where it is not there.

        `free` and `steps` as of `tidy.differences`.
        """
        distance = next((name for name in tidy.DISTANCES if name in self.config.metric_names()), None)
        if distance is None:
            raise UserError(f"metrics: none of {', '.join(tidy.DISTANCES)}, which the map and the sweeps show")
        rows = tidy.read(self.file("comparisons"), tidy.COMPARISON_COLUMNS)
        found = tidy.differences(rows, main_setting(self.config), free, steps)
        setting = itemgetter(*tidy.SETTING_AXES, "a_step")
        found = [row for row in found if row["reference"] == "teacher"]
        errors = {setting(row): row for row in found if row["metric"] == "ode_error"}
        return [{**row, "ode": errors.get(setting(row))} for row in found if row["metric"] == distance]


# ----------------------------------------------------------------- Table 1 and the differences


def _table1_text(rows: Sequence[Row]) -> str:
    cells = {(row["row"], row["metric"], row["reference"]): row for row in rows}
    steps = {row["row"]: int(row["steps"]) for row in reversed(rows)}
    columns = list(dict.fromkeys(row["row"] for row in rows if row["row"] not in tidy.TO_BEAT))
    lines = list(dict.fromkeys((row["metric"], row["reference"]) for row in rows))
    lines.sort(key=lambda line: (list(METRICS).index(line[0]), METRICS[line[0]].references.index(line[1])))
    head = ["metric", *(f"{c} ({'the floor' if c == tidy.FLOOR else steps_label(steps[c])})" for c in columns)]
    body, papers = [], []
    for metric, reference in lines:
        spec, own = METRICS[metric], [cells.get((column, metric, reference)) for column in columns]
        values = [shown(cell["mean"], cell["sd"], spec.decimals) if cell else "–" for cell in own]
        paper = [f"{value_of(cell['paper']):g}" for cell in own if cell and cell["paper"] not in (None, "")]
        body.append([line_name(metric, reference), *values])
        papers.append(f"{spec.paper_name} {' / '.join(paper)}" if paper else "")
    if any(papers):
        # Students of two methods have the paper's numbers, in the table's own order.
        scale = "" if all(METRICS[metric].same_scale_as_paper for metric, _ in lines) else ", **another scale**"
        head.append(f"the paper's {' / '.join(c for c in columns if c in tidy.PAIR)}{scale}")
        body = [[*line, paper] for line, paper in zip(body, papers, strict=True)]
    text = markdown(head, body)
    # Baselines have an ODE error and nothing else: a table of their own, below.
    if without := [row for row in rows if row["row"] in tidy.TO_BEAT]:
        values = [shown(row["mean"], row["sd"], METRICS[row["metric"]].decimals) for row in without]
        text += "\n" + markdown(
            ["without training", *(row["row"].lower() for row in without)],
            [[line_name(without[0]["metric"], without[0]["reference"]), *values]],
        )
    return text


def _baselines_text(rows: Sequence[Row]) -> str:
    decimals, body = METRICS["ode_error"].decimals, []
    for row in rows:
        difference, low, high = (fixed(value_of(row[name]), decimals, True) for name in ("difference", "low", "high"))
        who = f"{row['row']} ({steps_label(int(row['steps']))})"
        errors = [fixed(value_of(row[name]), decimals) for name in ("student", "without_training")]
        body.append([who, row["baseline"].lower(), *errors, difference, f"[{low}, {high}]", row["verdict"]])
    interval = f"{100 * value_of(rows[0]['level']):g} % interval"
    return markdown(["method", "baseline", "its ODE error", "the baseline's", "difference", interval, "verdict"], body)


def _parts_text(rows: Sequence[Row]) -> str:
    """Models down, the parts across: of distances those to the teacher's samples."""
    keys = dict.fromkeys(row["metric"] for row in rows if row["reference"] == "teacher")
    names = table_parts.order([name for name in METRICS if name in keys])
    cells = {(row["row"], row["metric"]): row for row in rows if row["reference"] == "teacher"}
    body = []
    for who in dict.fromkeys(row["row"] for row in rows if row["reference"] == "teacher"):
        own = [cells.get((who, name)) for name in names]
        body.append(
            [
                who,
                *(
                    shown(r["mean"], r["sd"], METRICS[n].decimals) if r else "–"
                    for n, r in zip(names, own, strict=True)
                ),
            ]
        )
    return markdown(["", *(METRICS[name].title for name in names)], body)


def _within_text(rows: Sequence[Row]) -> str:
    body = []
    for row in rows:
        spec = METRICS[row["metric"]]
        spread = value_of(row["sd"])
        rho = fixed(value_of(row["rho"]), 3, True) + ("" if math.isnan(spread) else f" ± {fixed(spread, 3)}")
        difference = fixed(value_of(row["difference"]), spec.decimals + 1, True)
        body.append([spec.title, row["row"], rho, row["within"], difference, row["between"]])
    return markdown(["metric", "method", "ρ with the ODE error", "within", f"{CM} − {DIRECT}", "between"], body)


def _comparison_text(rows: Sequence[Row]) -> str:
    body = []
    for row in rows:
        decimals = METRICS[row["metric"]].decimals
        difference, low, high = (fixed(value_of(row[name]), decimals, True) for name in ("difference", "low", "high"))
        agree = "" if row["seeds_agree"] in (None, "") else f"{row['seeds_agree']} of {row['n_seeds']}"
        p = _p(row["p"]) + (" †" if row["test"] == "seeds" else "")
        line = line_name(row["metric"], row["reference"])
        body.append([line, difference, f"[{low}, {high}]", p, _p(row["p_prompts"]), agree])
    interval = f"{100 * value_of(rows[0]['level']):g} % interval"
    return markdown(["metric", f"{CM} − {DIRECT}", interval, "p", "p, these students", "seeds that agree"], body)


# ----------------------------------------------------------------- verdicts


def _judged(tables: Tables) -> list[Verdict]:
    teachers = tables.file(TEACHERS)
    return verdicts_of(
        tables.root / "workflow/claims.yaml",
        tables.file("comparisons"),
        tables.config,
        teachers if teachers.is_file() else None,
    )


def _verdicts(tables: Tables) -> list[dict[str, Any]]:
    out = []
    for verdict in _judged(tables):
        words = claims.words(verdict, tables.config)
        out.append(
            {
                "source": verdict.claim.source, "says": words.says, "verdict": words.verdict,
                "effect": "; ".join([*words.effects, *([words.place] if words.place else [])]), "p_adjusted": verdict.p_adjusted,
            }
        )  # fmt: skip
    return out


def _verdicts_text(rows: Sequence[Row]) -> str:
    run = [row for row in rows if row["verdict"] != NOT_RUN]
    # What was published before claims had families was adjusted by Holm's method alone.
    p, title = ("p_adjusted", "adjusted p") if "p_adjusted" in rows[0] else ("p", "p (Holm)")
    body = [[row["says"], row["source"], f"**{row['verdict']}**", row["effect"], _p(row[p])] for row in run]
    text = markdown(["claim", "source", "verdict", "what decides it", title], body)
    if absent := len(rows) - len(run):
        text += f"\n{absent} further claim{'s were' if absent > 1 else ' was'} not run: the grid has not what they compare.\n"
    return text


def reading(tables: Tables) -> str:
    """The claims about the main comparison in one sentence: who is ahead in what, by the adjusted p."""
    ahead: dict[str, list[str]] = {DIRECT: [], CM: [], "": []}
    for verdict in _judged(tables):
        line = verdict.decisive
        claim = verdict.claim
        if claim.what != METHOD or claim.pair != tidy.PAIR or line is None or verdict.settings > 1:
            continue
        if claim.over or len(claim.tests) > 1 or line.margin is not None or claim.at:
            continue
        who = {HOLDS: line.row["a"], FAILS: line.row["b"]}.get(verdict.verdict, "")
        name = line_name(line.metric, line.row["reference"])[:-2].replace("to teacher samples", "to the teacher")
        # The ODE error has one reference; the sentence need not say it.
        ahead[who].append(name.removesuffix(" to the teacher") if name.startswith("ODE") else name)
    said = [f"{who} is ahead in {listed(ahead[who])}" for who in (DIRECT, CM) if ahead[who]]
    text = " and ".join(said) or "neither method is ahead in anything"
    return text + (f"; undecided: {listed(ahead[''])}" if ahead[""] else "")


# ----------------------------------------------------------------- the grid: map, sweeps, errors


def _map(tables: Tables) -> list[dict[str, Any]]:
    """A line per regime: budget × capacity along training, and guidance at the main budget."""
    # Drawing libraries take two seconds, and most tables need none.
    from directcm.analysis.figures.figure_map import inverted

    main = main_setting(tables.config)
    rows = tables.differences((*tidy.BUDGET_AXES, "adapter", "w"))
    panels: list[tuple[str, Row]] = []
    for adapter in sorted({row["adapter"] for row in rows}, key=tidy.adapter_order):
        path = tidy.path([r for r in rows if r["adapter"] == adapter], main.at(adapter=adapter), step="a_step")
        panels += [("budget", row) for row in sorted(path, key=lambda r: float(r["a_step"]))]
    guided = [r for r in tidy.finished(rows, "a_step") if tidy.matches(r, main, ("w",))]
    panels += [("guidance", row) for row in sorted(guided, key=lambda r: float(r["w"]))]
    return [
        {
            "panel": panel, "adapter": row["adapter"], "w": row["w"], "step": row["a_step"], "metric": row["metric"],
            "cm": row["mean_a"], "direct_cm": row["mean_b"], "n_seeds": row["n_seeds"],
            "inversion": "yes" if inverted(row["ode"], row, tables.config.statistics.alpha) else "no",
        }
        for panel, row in panels
    ]  # fmt: skip


def _map_text(rows: Sequence[Row]) -> str:
    spec = METRICS[rows[0]["metric"]]

    def cell(row: Row | None) -> str:
        if row is None:
            return "–"
        text = _pair(row, "cm", "direct_cm", spec.decimals)
        return f"**{text}**" if row["inversion"] == "yes" else text

    title = f"{spec.title} to the teacher, {CM} / {DIRECT}"
    budget, guidance = ([row for row in rows if row["panel"] == panel] for panel in ("budget", "guidance"))
    text = []
    if budget:
        cells = {(row["adapter"], int(row["step"])): row for row in reversed(budget)}
        steps = sorted({step for _, step in cells})
        lines = [
            [tidy.adapter_title(adapter), *(cell(cells.get((adapter, step))) for step in steps)]
            for adapter in dict.fromkeys(row["adapter"] for row in budget)
        ]
        text.append(markdown([title, *(f"{step} steps" for step in steps)], lines))
    if guidance:
        name = f"{tidy.adapter_title(guidance[0]['adapter'])}, {guidance[0]['step']} steps"
        head = [title, *(f"ω = {value_of(row['w']):g}" for row in guidance)]
        text.append(markdown(head, [[name, *map(cell, guidance)]]))
    return "\n".join(text)


def _sweeps(tables: Tables) -> list[dict[str, Any]]:
    """A line per setting that differs from the main one in N, solver, loss, learning rate or the number of sampling steps."""
    main = main_setting(tables.config)
    names: dict[str, Callable[[tidy.Row], str]] = {
        "N": lambda row: f"N = {row['N']}" + (", the main comparison" if row["N"] == main.spelled["N"] else ""),
        "solver": lambda row: SOLVERS[row["solver"]],
        "loss": lambda row: DISTANCES[row["loss"]].title,
        "lr": lambda row: f"learning rate {row['lr']}",
    }
    found: list[tuple[str, Row]] = []
    for axis, name in names.items():
        rows = sorted(tables.differences((axis,)), key=lambda row, axis=axis: (tidy.value(row[axis]), row[axis]))  # type: ignore[misc]
        found += [(name(row), row) for row in rows if axis == "N" or spell(row[axis]) != main.spelled[axis]]
    for k in sampling_numbers(tables.config)[1:]:
        found += [(f"{k} sampling steps", row) for row in tables.differences((), k)]
    return [
        {
            "setting": setting, "metric": row["metric"], "ode_cm": row["ode"] and row["ode"]["mean_a"],
            "ode_direct_cm": row["ode"] and row["ode"]["mean_b"], "cm": row["mean_a"], "direct_cm": row["mean_b"], "n_seeds": row["n_seeds"],
        }
        for setting, row in found if tidy.finished([row], "a_step")
    ]  # fmt: skip


def _sweeps_text(rows: Sequence[Row]) -> str:
    ode, fd = METRICS["ode_error"], METRICS[rows[0]["metric"]]
    body = [
        [row["setting"], str(row["n_seeds"]), _pair(row, "ode_cm", "ode_direct_cm", ode.decimals - 1), _pair(row, "cm", "direct_cm", fd.decimals)]
        for row in rows
    ]  # fmt: skip
    return markdown(["setting", "seeds", f"{ode.title}, {CM} / {DIRECT}", f"{fd.title} to the teacher"], body)


def _errors(tables: Tables) -> list[dict[str, Any]]:
    """Errors by start time in latents, means over seeds: the first, the middle and the last of the times."""
    path, main = tables.file("errors"), main_setting(tables.config)
    rows = [r for r in tidy.read(path, tidy.ERROR_COLUMNS) if tidy.matches(r, main) and r["space"] == "latent"]
    if not rows:
        raise UserError(f"{path}: none of the main comparison; add errors: true to its line of students")
    times = sorted({tidy.value(row["time"]) for row in rows})
    out = []
    for time in dict.fromkeys((times[0], times[(len(times) - 1) // 2], times[-1])):
        here = [row for row in rows if tidy.value(row["time"]) == time]
        terms = {
            f"{name}_{term}": _mean((row for row in here if row["method"] == name), term)
            for name in FIRST
            for term in ("student_error", "total_error")
        }
        out.append({"time": number(time), **terms, "solver_error": _mean(here, "solver_error")})
    return out


def _mean(rows: Iterable[Row], column: str) -> float:
    return tidy.mean_sd([tidy.value(row[column]) for row in rows])[0]


def _errors_text(rows: Sequence[Row]) -> str:
    names = ["cm_student_error", "cm_total_error", "direct_cm_student_error", "direct_cm_total_error", "solver_error"]
    head = ["t", f"{CM}: student", f"{CM}: total", f"{DIRECT}: student", f"{DIRECT}: total", "solver"]
    return markdown(head, [[str(row["time"]), *(fixed(value_of(row[name]), 4) for name in names)] for row in rows])


# ----------------------------------------------------------------- every method


def _table4_text(rows: Sequence[Row]) -> str:
    """Two tables, one per part: what each method makes in one step, and its distance to the data in more."""
    distance = next((name for name in tidy.DISTANCES if any(row["metric"] == name for row in rows)), "")
    numbers = sorted({int(row["steps"]) for row in rows})
    first = [("ode_error", "teacher", 4), (distance, "teacher", 2), (distance, "data", 2)]
    columns = [(*key, numbers[0]) for key in first if any((r["metric"], r["reference"]) == key[:2] for r in rows)]
    columns += [(distance, "data", 2, k) for k in numbers[1:]] + [("prompt_accuracy", "prompt", 3, numbers[0])]
    heads = [f"{line_name(metric, reference)[:-2]}, {steps_label(k)}" for metric, reference, _, k in columns]
    text = []
    for part in dict.fromkeys(row["part"] for row in rows):
        body = []
        for name in dict.fromkeys(row["row"] for row in rows if row["part"] == part):
            own = [row for row in rows if (row["part"], row["row"]) == (part, name)]
            cells = {(row["metric"], row["reference"], int(row["steps"])): row for row in own}
            found = [(cells.get((metric, reference, k)), decimals) for metric, reference, decimals, k in columns]
            values = [shown(cell["mean"], cell["sd"], decimals) if cell else "–" for cell, decimals in found]
            body.append([name, f"{int(own[0]['evaluations']):,}", str(own[0]["n_seeds"]), *values])
        text.append(f"{part}:\n\n" + markdown(["method", "network evaluations", "seeds", *heads], body))
    return "\n".join(text)


def _plain_text(rows: Sequence[Row]) -> str:
    """A table as its CSV has it."""
    return markdown(list(rows[0]), [list(row.values()) for row in rows])


class Block(NamedTuple):
    """One kind of table: its lines from tidy tables (None: no tidy table has them), and its lines as Markdown."""

    rows: Callable[[Tables], list[dict[str, Any]]] | None
    text: Callable[[Sequence[Row]], str]


BLOCKS = {
    "table1": Block(lambda t: table1.rows(t.file("metrics"), t.file("comparisons"), t.config), _table1_text),
    "further": Block(lambda t: table_further.rows(t.file("metrics"), t.file("comparisons"), t.config), _table1_text),
    "comparison": Block(
        lambda t: table_comparison.rows(t.file("metrics"), t.file("comparisons"), t.config), _comparison_text
    ),
    "baselines": Block(lambda t: table_baselines.rows(t.file("comparisons"), t.config), _baselines_text),
    "parts": Block(lambda t: table_parts.rows(t.file("metrics"), t.file("comparisons"), t.config), _parts_text),
    "within": Block(lambda t: table_within.rows(t.file("comparisons"), t.file("correlations"), t.config), _within_text),
    "verdicts": Block(_verdicts, _verdicts_text),
    "map": Block(_map, _map_text),
    "sweeps": Block(_sweeps, _sweeps_text),
    "errors": Block(_errors, _errors_text),
    "table4": Block(lambda t: table4.rows(t.file("metrics"), t.config, t.file("students")), _table4_text),
    "slopes": Block(None, _plain_text),
}
