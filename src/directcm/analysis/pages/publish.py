"""The verb `publish`: the published tables, written into README.md and docs/results.md from docs/data.

A table stands between two comments that name it, its preset and its scope: `<!--table1:embedded/main-->`; what lies between
them is the command's. Its numbers come from the tidy tables in docs/data/<preset>/<scope>/, which `--from` copies out of a
finished run. Tables of older runs, whose tidy tables were not kept, come from docs/data/<preset>/published/<table>.csv for as
long as there is nothing newer.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from directcm.analysis.data import tidy
from directcm.analysis.data.selection import main_runs, main_setting, sampling_numbers, steps_label
from directcm.analysis.figures.figure_map import inverted
from directcm.analysis.tables import claims, table1, table4, table_comparison
from directcm.analysis.tables.claim import METHOD, about, read_claims
from directcm.analysis.tables.text import fixed, listed
from directcm.analysis.tables.verdict import FAILS, HOLDS, NOT_RUN, Verdict, judge
from directcm.config import Config, load_config, number, spell
from directcm.config.specs import DISTANCES, METHODS, METRICS, SOLVERS
from directcm.errors import UserError
from directcm.runtime.artifacts import PROVENANCE, read_csv, read_json, write_bytes, write_csv, write_json, write_text

DOCUMENTS = ("README.md", "docs/results.md")
DATA = Path("docs/data")
SCOPES = ("main", "paper")
# Of the whole grid's, two thirds of the lines are of metrics that no published table shows: they are left out.
BY_METRIC = ("metrics.csv", "comparisons.csv")
PUBLISHED, ABOUT, TIMES = "published", "run.json", "times.csv"
DEFAULT = "embedded"
# Figures of a run that the documents show, and their names in docs/images; other presets' names begin with the preset.
FIGURES = ("samples", "results", "map", "frontier", "training", "editing", "convergence")
CM, DIRECT = tidy.PAIR
MARK = re.compile(r"<!--([a-z0-9_]+):([a-z0-9_/]+)-->(.*?)<!--/\1:\2-->", re.DOTALL)
ANY_MARK = re.compile(r"<!--(/?)([a-z0-9_]+:[a-z0-9_/]+)-->")

Row = Mapping[str, Any]


# ----------------------------------------------------------------- a finished run's tables into docs/data


def relevant(config: Config) -> dict[str, Any]:
    """What Table 1 depends on in a configuration, as dotted key → value: not sizes of jobs, nor what other tables need.

    A key that is left out where it has its default (config/) is not among them.
    """
    kind = config.teacher.kind
    block = config.model_dump(
        mode="json",
        include={
            "seed": True, "data": True, "process": True, "teacher": {kind: True, "kind": True}, "encode": {"posterior"}, "methods": True,
            "train": {"weight_decay", "grad_clip", "ema", "huber_c", "precision"}, "evaluation": {"samples", "precision"},
            "extractors": True,
        },
    )  # fmt: skip
    runs = main_runs(config)
    block["students"] = main_setting(config).axes() | {
        METHODS[name]: f"seeds {', '.join(str(run.seed) for run in runs if run.method == name)}"
        for name in dict.fromkeys(run.method for run in runs)
    }
    return dict(sorted(_flat(block)))


def _flat(block: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    out: list[tuple[str, Any]] = []
    for key, value in block.items():
        if isinstance(value, Mapping):
            out += _flat(value, f"{above}{key}.")
        else:
            out.append((f"{above}{key}", value))
    return out


def _made(results: Path) -> dict[str, Any]:
    """Which commits, machine and versions a run's metrics were made by."""
    found = [read_json(path) for path in sorted((results / "metrics").rglob(PROVENANCE))]
    if not found:
        raise UserError(
            f"{results}/metrics: holds no {PROVENANCE}; name the folder of a finished run, results/<preset>"
        )
    last = max(found, key=lambda made: made["date"])
    return {
        "commit": last["commit"],
        "uncommitted_changes": any(made["dirty"] for made in found),
        "other_commits": sorted({made["commit"] for made in found} - {last["commit"]}),
        "date": last["date"],
        "platform": last["platform"],
        "cpus": last["cpus"],
        "python": last["python"],
        "versions": last["versions"],
    }


def take(results: Path, root: Path) -> list[Path]:
    """Copy a finished run's tidy tables into docs/data/<preset>/, with what they were made by, and its figures into docs/images.

    `results` is results/<preset>. Returns the folders written. Raises UserError where nothing is collected there, and where the
    tables are not those of the preset's configuration.
    """
    config = configuration(results.name, root)
    scopes = [scope for scope in SCOPES if (results / "collected" / scope / "metrics.csv").is_file()]
    if not scopes:
        raise UserError(f"{results}/collected: holds no {' or '.join(SCOPES)}; finish the run first: make reproduce")
    made = _made(results)
    # Before anything is replaced: the main comparison is there, with every metric that the configuration has.
    for scope in scopes:
        matching(results / "collected" / scope, config)
    written = []
    for scope in scopes:
        source, folder = results / "collected" / scope, root / DATA / results.name / scope
        for name, columns in tidy.TABLES.items():
            if scope == "main" or name not in BY_METRIC:
                write_bytes(folder / name, (source / name).read_bytes())
            else:
                write_csv(folder / name, [r for r in read_csv(source / name) if METRICS[r["metric"]].headline], columns)
        write_json(folder / ABOUT, {**made, "configuration": relevant(config)})
        written.append(folder)
    for name in FIGURES:
        picture = results / "figures" / f"{name}.png"
        own = name if config.preset == DEFAULT else f"{config.preset}_{name}"
        shown = root / "docs/images" / f"{own}.png"
        # The documents show some of a run's figures: those that are there already.
        if picture.is_file() and shown.is_file():
            shutil.copyfile(picture, shown)
    return written


def matching(folder: Path, config: Config, headline: bool = False) -> None:
    """UserError where a folder of tidy tables has other metrics than a configuration, or lacks a run of its main comparison.

    `headline`: it has the metrics of Table 1 alone, as docs/data keeps a whole grid.
    """
    metrics = folder / "metrics.csv"
    wanted = {name for name in config.metric_names() if METRICS[name].headline or not headline}
    found = {row["metric"] for row in read_csv(metrics)}
    if found != wanted:
        more, lacking = sorted(found - wanted), sorted(wanted - found)
        parts = [f"lacks {', '.join(lacking)}"] * bool(lacking) + [f"has {', '.join(more)} besides"] * bool(more)
        raise UserError(f"{metrics}: {' and '.join(parts)}, against the configuration's metrics; make the run again")
    table1.rows(metrics, folder / "comparisons.csv", config)


def configuration(preset: str, root: Path) -> Config:
    """The configuration of a preset: config.yaml, and workflow/presets/<preset>.yaml over it."""
    overlay = root / "workflow/presets" / f"{preset}.yaml"
    config = load_config(root / "config.yaml", *([] if preset == DEFAULT else [overlay]))
    if config.preset != preset:
        raise UserError(
            f"{overlay if preset != DEFAULT else root / 'config.yaml'}: its preset is {config.preset}, not {preset}"
        )
    return config


# ----------------------------------------------------------------- Markdown


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"|{'|'.join(cell.replace('|', chr(92) + '|') for cell in line)}|\n" for line in lines)


def _number(text: Any) -> float:
    return math.nan if text in (None, "") else float(text)


def shown(mean: Any, sd: Any, decimals: int) -> str:
    """A cell as tables print it: "1.067 ± 0.126"; "–" where it is not defined."""
    value, spread = _number(mean), _number(sd)
    if math.isnan(value):
        return "–"
    return fixed(value, decimals) + ("" if math.isnan(spread) else f" ± {fixed(spread, decimals)}")


def line_name(metric: str, reference: str) -> str:
    """ "FD-tiny to data ↓": a line of Table 1."""
    spec = METRICS[metric]
    against = {"teacher": " to teacher samples", "data": " to data"}.get(reference, "")
    return f"{spec.title}{against} {'↓' if spec.better == 'lower' else '↑'}"


def _p(text: Any) -> str:
    value = _number(text)
    return "" if math.isnan(value) else f"{value:.2g}"


# ----------------------------------------------------------------- Table 1 and the differences


def _table1(folder: Path, config: Config) -> list[dict[str, Any]]:
    return table1.rows(folder / "metrics.csv", folder / "comparisons.csv", config)


def _table1_text(rows: Sequence[Row]) -> str:
    cells = {(row["row"], row["metric"], row["reference"]): row for row in rows}
    columns = list(dict.fromkeys(row["row"] for row in rows))
    lines = list(dict.fromkeys((row["metric"], row["reference"]) for row in rows))
    lines.sort(key=lambda line: (list(METRICS).index(line[0]), METRICS[line[0]].references.index(line[1])))
    head = ["metric"]
    for column in columns:
        steps = next(int(row["steps"]) for row in rows if row["row"] == column)
        head.append(f"{column} (the floor)" if column == tidy.FLOOR else f"{column} ({steps_label(steps)})")
    body = []
    for metric, reference in lines:
        spec, own = METRICS[metric], [cells.get((column, metric, reference)) for column in columns]
        values = [shown(cell["mean"], cell["sd"], spec.decimals) if cell else "–" for cell in own]
        paper = [f"{_number(cell['paper']):g}" for cell in own if cell and cell["paper"] not in (None, "")]
        body.append([line_name(metric, reference), *values, f"{spec.paper_name} {' / '.join(paper)}" if paper else ""])
    if any(line[-1] for line in body):
        # Students of two methods have the paper's numbers, in the table's own order.
        scale = "" if all(METRICS[metric].same_scale_as_paper for metric, _ in lines) else ", **another scale**"
        head.append(f"the paper's {' / '.join(c for c in columns if c in tidy.PAIR)}{scale}")
    else:
        body = [line[:-1] for line in body]
    return markdown(head, body)


def _comparison(folder: Path, config: Config) -> list[dict[str, Any]]:
    return table_comparison.rows(folder / "metrics.csv", folder / "comparisons.csv", config)


def _comparison_text(rows: Sequence[Row]) -> str:
    body = []
    for row in rows:
        decimals = METRICS[row["metric"]].decimals
        difference, low, high = (fixed(_number(row[name]), decimals, True) for name in ("difference", "low", "high"))
        agree = "" if row["seeds_agree"] in (None, "") else f"{row['seeds_agree']} of {row['n_seeds']}"
        body.append(
            [
                line_name(row["metric"], row["reference"]), difference, f"[{low}, {high}]",
                _p(row["p"]) + (" †" if row["test"] == "seeds" else ""), _p(row["p_prompts"]), agree,
            ]
        )  # fmt: skip
    level = 100 * _number(rows[0]["level"])
    return markdown(
        ["metric", f"{CM} − {DIRECT}", f"{level:g} % interval", "p", "p, these students", "seeds that agree"], body
    )


# ----------------------------------------------------------------- verdicts


def _judged(folder: Path, config: Config, root: Path) -> list[Verdict]:
    own = about(read_claims(root / "workflow/claims.yaml"), config)
    path = folder / "comparisons.csv"
    return judge(own, tidy.frame(path, tidy.COMPARISON_COLUMNS), config, path)


def _verdicts(folder: Path, config: Config, root: Path) -> list[dict[str, Any]]:
    out = []
    for verdict in _judged(folder, config, root):
        words = claims.words(verdict, config)
        out.append(
            {
                "source": verdict.claim.source, "says": words.says, "verdict": words.verdict,
                "effect": "; ".join([*words.effects, *([words.place] if words.place else [])]), "p": verdict.p_holm,
            }
        )  # fmt: skip
    return out


def _verdicts_text(rows: Sequence[Row]) -> str:
    run = [row for row in rows if row["verdict"] != NOT_RUN]
    body = [[row["says"], row["source"], f"**{row['verdict']}**", row["effect"], _p(row["p"])] for row in run]
    text = markdown(["claim", "source", "verdict", "what decides it", "p (Holm)"], body)
    if absent := len(rows) - len(run):
        text += f"\n{absent} further claim{'s were' if absent > 1 else ' was'} not run: the grid has not what they compare.\n"
    return text


def _reading(folder: Path, config: Config, root: Path) -> str:
    """The claims about the main comparison in one sentence: who is ahead in what, by Holm's adjusted p."""
    ahead: dict[str, list[str]] = {DIRECT: [], CM: [], "": []}
    for verdict in _judged(folder, config, root):
        line = verdict.decisive
        if verdict.claim.what != METHOD or verdict.claim.pair != tidy.PAIR or line is None or verdict.settings > 1:
            continue
        if verdict.claim.over or len(verdict.claim.tests) > 1:
            continue
        row = line.row
        who = {HOLDS: row["a"], FAILS: row["b"]}.get(verdict.verdict, "")
        ahead[who].append(line_name(line.metric, row["reference"])[:-2].replace("to teacher samples", "to the teacher"))
    # The ODE error has one reference; the sentence need not say it.
    parts = {
        who: [name.removesuffix(" to the teacher") if name.startswith("ODE") else name for name in names]
        for who, names in ahead.items()
    }
    text = " and ".join(f"{who} is ahead in {listed(parts[who])}" for who in (DIRECT, CM) if parts[who])
    text = text or "neither method is ahead in anything"
    return text + (f"; undecided: {listed(parts[''])}" if parts[""] else "")


# ----------------------------------------------------------------- the grid: map, sweeps, errors


def _differences(
    folder: Path, config: Config, metric: str, free: Sequence[str], steps: int | None = None
) -> list[tidy.Row]:
    rows = tidy.read(folder / "comparisons.csv", tidy.COMPARISON_COLUMNS)
    found = tidy.differences(rows, main_setting(config), free, steps)
    return [row for row in found if (row["metric"], row["reference"]) == (metric, "teacher")]


def _distance(config: Config) -> str:
    found = next((name for name in tidy.DISTANCES if name in config.metric_names()), None)
    if found is None:
        raise UserError(f"metrics: none of {', '.join(tidy.DISTANCES)}, which the map and the sweeps show")
    return found


def _map(folder: Path, config: Config) -> list[dict[str, Any]]:
    """A line per regime: budget × capacity along training, and guidance at the main budget."""
    main, fd = main_setting(config), _distance(config)
    free = (*tidy.BUDGET_AXES, "adapter", "w")
    found = {metric: _differences(folder, config, metric, free) for metric in (fd, "ode_error")}
    out = []

    def line(panel: str, row: tidy.Row, ode: Sequence[tidy.Row]) -> dict[str, Any]:
        names = (*tidy.SETTING_AXES, "a_step")
        twin = next((r for r in ode if all(r[n] == row[n] for n in names)), None)
        return {
            "panel": panel, "adapter": row["adapter"], "w": row["w"], "step": row["a_step"], "metric": fd, "cm": row["mean_a"],
            "direct_cm": row["mean_b"], "n_seeds": row["n_seeds"],
            "inversion": "yes" if inverted(twin, row, config.statistics.alpha) else "no",
        }  # fmt: skip

    for adapter in sorted({row["adapter"] for row in found[fd]}, key=tidy.adapter_order):
        own = tidy.path([r for r in found[fd] if r["adapter"] == adapter], main.at(adapter=adapter), step="a_step")
        out += [line("budget", row, found["ode_error"]) for row in sorted(own, key=lambda r: float(r["a_step"]))]
    guided = [r for r in tidy.finished(found[fd], "a_step") if tidy.matches(r, main, ("w",))]
    out += [line("guidance", row, found["ode_error"]) for row in sorted(guided, key=lambda r: float(r["w"]))]
    return out


def _map_text(rows: Sequence[Row]) -> str:
    decimals = METRICS[rows[0]["metric"]].decimals

    def cell(row: Row | None) -> str:
        if row is None:
            return "–"
        text = f"{fixed(_number(row['cm']), decimals)} / {fixed(_number(row['direct_cm']), decimals)}"
        return f"**{text}**" if row["inversion"] == "yes" else text

    title = f"{METRICS[rows[0]['metric']].title} to the teacher, {CM} / {DIRECT}"
    budget, guidance = ([row for row in rows if row["panel"] == panel] for panel in ("budget", "guidance"))
    text = []
    if budget:
        steps = sorted({int(row["step"]) for row in budget})
        lines = [
            [tidy.adapter_title(adapter), *(cell(next((r for r in budget if (r["adapter"], int(r["step"])) == (adapter, step)), None)) for step in steps)]
            for adapter in dict.fromkeys(row["adapter"] for row in budget)
        ]  # fmt: skip
        text.append(markdown([title, *(f"{step} steps" for step in steps)], lines))
    if guidance:
        name = f"{tidy.adapter_title(guidance[0]['adapter'])}, {guidance[0]['step']} steps"
        text.append(
            markdown([title, *(f"ω = {_number(row['w']):g}" for row in guidance)], [[name, *map(cell, guidance)]])
        )
    return "\n".join(text)


def _sweeps(folder: Path, config: Config) -> list[dict[str, Any]]:
    """A line per setting that differs from the main one in N, solver, loss, learning rate or the number of sampling steps."""
    main, fd = main_setting(config), _distance(config)
    out = []

    def lines(axis: str, name: Callable[[tidy.Row], str], steps: int | None = None) -> None:
        free = (axis,) if axis else ()
        own = {
            metric: tidy.finished(_differences(folder, config, metric, free, steps), "a_step")
            for metric in (fd, "ode_error")
        }
        for row in sorted(own[fd], key=lambda r: (tidy.value(r[axis]) if axis else 0.0, r.get(axis, ""))):
            if axis and axis != "N" and spell(row[axis]) == main.spelled[axis]:
                continue
            ode = next((r for r in own["ode_error"] if not axis or spell(r[axis]) == spell(row[axis])), None)
            out.append(
                {
                    "setting": name(row), "metric": fd, "ode_cm": ode and ode["mean_a"], "ode_direct_cm": ode and ode["mean_b"],
                    "cm": row["mean_a"], "direct_cm": row["mean_b"], "n_seeds": row["n_seeds"],
                }
            )  # fmt: skip

    lines("N", lambda row: f"N = {row['N']}" + (", the main comparison" if row["N"] == main.spelled["N"] else ""))
    lines("solver", lambda row: SOLVERS[row["solver"]])
    lines("loss", lambda row: DISTANCES[row["loss"]].title)
    lines("lr", lambda row: f"learning rate {row['lr']}")
    for k in sampling_numbers(config)[1:]:
        lines("", lambda row, k=k: f"{k} sampling steps", k)  # type: ignore[misc]
    return out


def _sweeps_text(rows: Sequence[Row]) -> str:
    ode, fd = METRICS["ode_error"], METRICS[rows[0]["metric"]]

    def pair(row: Row, a: str, b: str, decimals: int) -> str:
        return f"{fixed(_number(row[a]), decimals)} / {fixed(_number(row[b]), decimals)}"

    body = [
        [row["setting"], str(row["n_seeds"]), pair(row, "ode_cm", "ode_direct_cm", ode.decimals - 1), pair(row, "cm", "direct_cm", fd.decimals)]
        for row in rows
    ]  # fmt: skip
    return markdown(["setting", "seeds", f"{ode.title}, {CM} / {DIRECT}", f"{fd.title} to the teacher"], body)


def _errors(folder: Path, config: Config) -> list[dict[str, Any]]:
    """Errors by start time in latents, means over seeds: the first, the middle and the last of the times."""
    rows = [r for r in tidy.read(folder / "errors.csv", tidy.ERROR_COLUMNS) if tidy.matches(r, main_setting(config))]
    rows = [row for row in rows if row["space"] == "latent"]
    if not rows:
        raise UserError(f"{folder}/errors.csv: none of the main comparison; add errors: true to its line of students")
    times = sorted({tidy.value(row["time"]) for row in rows})
    out = []
    for time in dict.fromkeys((times[0], times[(len(times) - 1) // 2], times[-1])):
        line: dict[str, Any] = {"time": number(time)}
        for name, label in METHODS.items():
            if label in tidy.PAIR:
                own = [row for row in rows if row["method"] == name and tidy.value(row["time"]) == time]
                for term in ("student_error", "total_error"):
                    line[f"{name}_{term}"] = tidy.mean_sd([tidy.value(row[term]) for row in own])[0]
        solver = [tidy.value(row["solver_error"]) for row in rows if tidy.value(row["time"]) == time]
        out.append({**line, "solver_error": tidy.mean_sd(solver)[0]})
    return out


def _errors_text(rows: Sequence[Row]) -> str:
    names = ["cm_student_error", "cm_total_error", "direct_cm_student_error", "direct_cm_total_error", "solver_error"]
    head = ["t", f"{CM}: student", f"{CM}: total", f"{DIRECT}: student", f"{DIRECT}: total", "solver"]
    return markdown(head, [[str(row["time"]), *(fixed(_number(row[name]), 4) for name in names)] for row in rows])


# ----------------------------------------------------------------- every method


def _table4(folder: Path, config: Config) -> list[dict[str, Any]]:
    return table4.rows(folder / "metrics.csv", config, folder / "students.csv")


def _table4_text(rows: Sequence[Row]) -> str:
    """Two tables, one per part: what each method makes in one step, and its distance to the data in more."""
    distance = next((name for name in tidy.DISTANCES if any(row["metric"] == name for row in rows)), "")
    numbers = sorted({int(row["steps"]) for row in rows})
    first = [("ode_error", "teacher", 4), (distance, "teacher", 2), (distance, "data", 2)]
    columns = [(*key, numbers[0]) for key in first if any((r["metric"], r["reference"]) == key[:2] for r in rows)]
    columns += [(distance, "data", 2, k) for k in numbers[1:]] + [("prompt_accuracy", "prompt", 3, numbers[0])]
    text = []
    for part in dict.fromkeys(row["part"] for row in rows):
        own = {(r["row"], r["metric"], r["reference"], int(r["steps"])): r for r in rows if r["part"] == part}
        body = []
        for name in dict.fromkeys(key[0] for key in own):
            any_ = next(row for key, row in own.items() if key[0] == name)
            found = [(own.get((name, metric, reference, k)), decimals) for metric, reference, decimals, k in columns]
            values = [shown(row["mean"], row["sd"], decimals) if row else "–" for row, decimals in found]
            body.append([name, f"{int(any_['evaluations']):,}", str(any_["n_seeds"]), *values])
        heads = [f"{line_name(metric, reference)[:-2]}, {steps_label(k)}" for metric, reference, _, k in columns]
        text.append(f"{part}:\n\n" + markdown(["method", "network evaluations", "seeds", *heads], body))
    return "\n".join(text)


def _plain_text(rows: Sequence[Row]) -> str:
    """A table as its CSV has it."""
    return markdown(list(rows[0]), [list(row.values()) for row in rows])


# ----------------------------------------------------------------- the documents


@dataclass(frozen=True)
class Block:
    """One kind of table: its lines from a folder of tidy tables (None: no tidy table has them), and its lines as Markdown."""

    rows: Callable[[Path, Config, Path], list[dict[str, Any]]] | None
    text: Callable[[Sequence[Row]], str]


BLOCKS = {
    "table1": Block(lambda folder, config, root: _table1(folder, config), _table1_text),
    "comparison": Block(lambda folder, config, root: _comparison(folder, config), _comparison_text),
    "verdicts": Block(_verdicts, _verdicts_text),
    "map": Block(lambda folder, config, root: _map(folder, config), _map_text),
    "sweeps": Block(lambda folder, config, root: _sweeps(folder, config), _sweeps_text),
    "errors": Block(lambda folder, config, root: _errors(folder, config), _errors_text),
    "table4": Block(lambda folder, config, root: _table4(folder, config), _table4_text),
    "slopes": Block(None, _plain_text),
}
# Within a line of text: a sentence, a commit, a command's minutes.
INLINE = ("reading", "source", "minutes")


def _about(folder: Path) -> str:
    """By which commit a folder's tables were made, in words."""
    about = read_json(folder / ABOUT)
    if not isinstance(about, dict) or not isinstance(about.get("commit"), str):
        raise UserError(
            f"{folder / ABOUT}: names no commit; copy the run again: directcm publish --from results/<preset>"
        )
    text = f"commit `{about['commit'][:7]}`" + (" with uncommitted changes" if about.get("uncommitted_changes") else "")
    return text + (f", as printed at {about['printed']}, digit by digit" if about.get("printed") else "")


def _block(name: str, place: str, root: Path) -> str:
    """What stands between the comments of one block."""
    if name == "minutes":
        minutes = {row["command"]: row["minutes"] for row in read_csv(root / DATA / TIMES)}
        if place not in minutes:
            raise UserError(f"{root / DATA / TIMES}: has no line of {place}, which <!--minutes:{place}--> asks for")
        return minutes[place]
    preset, _, scope = place.partition("/")
    folder, older = root / DATA / preset / scope, root / DATA / preset / PUBLISHED
    there = scope in SCOPES and (folder / "metrics.csv").is_file()
    if name == "source":
        return _about(folder if there else older)
    if name == "reading":
        return _reading(folder, configuration(preset, root), root)
    if name not in BLOCKS:
        raise UserError(f"<!--{name}:{place}-->: there is no such table; there are {', '.join((*BLOCKS, *INLINE))}")
    block = BLOCKS[name]
    if there and block.rows is not None:
        rows: Sequence[Row] = block.rows(folder, configuration(preset, root), root)
    else:
        rows = read_csv(older / f"{name}.csv")
    if not rows:
        raise UserError(f"{folder}: nothing in it for <!--{name}:{place}-->")
    return f"\n{block.text(rows)}"


def filled(text: str, where: str | Path, root: Path) -> str:
    """A document's text with every block written anew. Raises UserError for a comment that opens nothing or is not closed."""
    marks = ANY_MARK.findall(text)
    for opening, closing in zip(marks[::2], [*marks[1::2], ("", "")], strict=False):
        if opening[0] or closing != ("/", opening[1]):
            raise UserError(f"{where}: <!--{opening[0]}{opening[1]}--> is not followed by <!--/{opening[1]}-->")

    def write(match: re.Match[str]) -> str:
        name, place = match[1], match[2]
        try:
            return f"<!--{name}:{place}-->{_block(name, place, root)}<!--/{name}:{place}-->"
        except UserError as error:
            raise UserError(f"{where}: {name}:{place}: {error}") from None

    return MARK.sub(write, text)


def publish(root: Path = Path(), results: Path | None = None) -> list[str]:
    """Write every block of the documents below `root` anew, from a run's tables where `results` names one; returns what changed."""
    changed = [str(folder) for folder in take(results, root)] if results is not None else []
    texts = {root / name: (root / name).read_text(encoding="utf-8") for name in DOCUMENTS}
    new = {path: filled(text, path.relative_to(root), root) for path, text in texts.items()}
    for path, text in new.items():
        if text != texts[path]:
            write_text(path, text)
            changed.append(str(path))
    return changed
