"""The verb `publish`: the published tables, written into README.md and docs/results.md from docs/data.

A table stands between two comments that name it, its preset and its scope: `<!--table1:embedded/main-->`; what lies between
them is the command's. Its numbers come from the tidy tables in docs/data/<preset>/<scope>/, which `--from` copies out of a
finished run. Tables of older runs, whose tidy tables were not kept, come from docs/data/<preset>/published/<table>.csv for as
long as there is nothing newer.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from directcm.analysis.data import tidy
from directcm.analysis.data.selection import main_runs, main_setting
from directcm.analysis.pages import why
from directcm.analysis.pages.printed import BLOCKS, TEACHERS, Row, Tables, reading
from directcm.analysis.tables import (
    table1,
)
from directcm.config import Config, load_config
from directcm.config.specs import METHODS, METRICS
from directcm.errors import UserError
from directcm.runtime.artifacts import PROVENANCE, read_csv, read_json, write_bytes, write_csv, write_json, write_text

DOCUMENTS = ("README.md", "docs/results.md", "docs/why.md")
DATA = Path("docs/data")
SCOPES = ("main", "paper")
# Of the whole grid's, two thirds of the lines are of metrics that no published table shows: they are left out, and so is what each
# evaluation writes for itself.
BY_METRIC = ("metrics.csv", "comparisons.csv")
PUBLISHED, ABOUT, TIMES = "published", "run.json", "times.csv"
DEFAULT = "embedded"
# Figures of a run that the documents show, and their names in docs/images; other presets' names begin with the preset.
FIGURES = ("samples", "results", "map", "frontier", "training", "editing", "convergence")
CM, DIRECT = tidy.PAIR
MARK = re.compile(r"<!--([a-z0-9_]+):([a-z0-9_/]+)-->(.*?)<!--/\1:\2-->", re.DOTALL)
ANY_MARK = re.compile(r"<!--(/?)([a-z0-9_]+:[a-z0-9_/]+)-->")

# ----------------------------------------------------------------- a finished run's tables into docs/data


def relevant(config: Config) -> dict[str, Any]:
    """What Table 1 depends on in a configuration, as dotted key → value: not sizes of jobs, nor what other tables need.

    A key that is left out where it has its default (config/) is not among them.
    """
    kind = config.teacher.kind
    runs = main_runs(config)
    block = config.model_dump(
        mode="json",
        include={
            "seed": True, "data": True, "process": True, "teacher": {kind: True, "kind": True}, "encode": {"posterior"}, "methods": True,
            "train": {"weight_decay", "grad_clip", "ema", "huber_c", "precision"}, "evaluation": {"samples", "precision"},
            "extractors": True,
        },
    )  # fmt: skip
    seeds = {
        METHODS[name]: f"seeds {', '.join(str(run.seed) for run in runs if run.method == name)}"
        for name in dict.fromkeys(run.method for run in runs)
    }
    return dict(sorted(_flat(block | {"students": main_setting(config).axes() | seeds})))


def _flat(block: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in block.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _made(results: Path) -> dict[str, Any]:
    """Which commits, machine and versions a run's metrics were made by."""
    found = [read_json(path) for path in sorted((results / "metrics").rglob(PROVENANCE))]
    if not found:
        raise UserError(
            f"{results}/metrics: holds no {PROVENANCE}; name the folder of a finished run, results/<preset>"
        )
    last = max(found, key=lambda made: made["date"])
    return {
        **{key: last[key] for key in ("commit", "date", "platform", "cpus", "python", "versions")},
        "uncommitted_changes": any(made["dirty"] for made in found),
        "other_commits": sorted({made["commit"] for made in found} - {last["commit"]}),
    }


def take(results: Path, root: Path) -> list[Path]:
    """Copy a finished run's tidy tables into docs/data/<preset>/, with what they were made by, and its figures into docs/images.

    `results` is results/<preset>. Returns the folders written. Raises UserError where nothing is collected there, and where the
    tables are not those of the preset's configuration.
    """
    config = configuration(results.name, root)
    scopes = [scope for scope in SCOPES if (results / "collected" / scope / "metrics.csv").is_file()]
    experiments = why.taken(results)
    if not scopes and not experiments:
        raise UserError(f"{results}/collected: holds no {' or '.join(SCOPES)}; finish the run first: make reproduce")
    made = _made(results)
    # Before anything is replaced: the main comparison is there, with every metric that the configuration has.
    for scope in scopes:
        matching(results / "collected" / scope, config)
    for scope in scopes:
        source, folder = results / "collected" / scope, root / DATA / results.name / scope
        for name, columns in tidy.TABLES.items():
            if name in tidy.FIRST_VALUE and (scope != "main" or not (source / name).is_file()):
                continue
            if scope == "main" or name not in BY_METRIC:
                write_bytes(folder / name, (source / name).read_bytes())
            else:
                kept = {m for m, spec in METRICS.items() if spec.headline} | {*config.further_names()}
                write_csv(folder / name, [r for r in read_csv(source / name) if r["metric"] in kept], columns)
        if scope == "paper":
            theirs, copy = results / "collected/teachers/comparisons.csv", folder / f"{TEACHERS}.csv"
            if theirs.is_file():
                write_bytes(copy, theirs.read_bytes())
            else:
                # Another run's would be judged with this one's.
                copy.unlink(missing_ok=True)
        write_json(folder / ABOUT, {**made, "configuration": relevant(config)})
    if experiments:
        folder = root / DATA / results.name / why.FOLDER
        for path in folder.glob("*.csv"):
            # Of an experiment that this run has not: another run's.
            path.unlink()
        for path in experiments:
            write_bytes(folder / path.name, path.read_bytes())
        write_json(folder / ABOUT, {**made, "configuration": relevant(config)})
        for name in why.FIGURES:
            drawn = results / "figures" / f"{name}.png"
            if drawn.is_file():
                own = drawn.name if config.preset == DEFAULT else f"{config.preset}_{drawn.name}"
                write_bytes(root / "docs/images" / own, drawn.read_bytes())
    for name in FIGURES:
        picture = results / "figures" / f"{name}.png"
        shown = root / "docs/images" / (picture.name if config.preset == DEFAULT else f"{config.preset}_{picture.name}")
        # The documents show some of a run's figures: those that are there already.
        if picture.is_file() and shown.is_file():
            shutil.copyfile(picture, shown)
    return [root / DATA / results.name / scope for scope in [*scopes, *([why.FOLDER] if experiments else [])]]


def matching(folder: Path, config: Config, headline: bool = False) -> None:
    """UserError where a folder of tidy tables has other metrics than a configuration, or lacks a run of its main comparison.

    `headline`: it has the metrics of Table 1 alone, as docs/data keeps a whole grid. The scope "paper", by the folder's name, has the
    further metrics too.
    """
    metrics = folder / "metrics.csv"
    wanted = {name for name in config.metric_names() if METRICS[name].headline or not headline}
    wanted |= {*config.further_names()} if folder.name != "main" else set()
    found = {row["metric"] for row in read_csv(metrics)}
    # Parts come with what they are parts of: older runs have none.
    parts = {name for name in wanted | found if name in METRICS and METRICS[name].part_of}
    wanted, found = wanted - parts, found - parts
    if found != wanted:
        more, lacking = sorted(found - wanted), sorted(wanted - found)
        said = [f"lacks {', '.join(lacking)}"] * bool(lacking) + [f"has {', '.join(more)} besides"] * bool(more)
        raise UserError(f"{metrics}: {' and '.join(said)}, against the configuration's metrics; make the run again")
    table1.rows(metrics, folder / "comparisons.csv", config)


def configuration(preset: str, root: Path) -> Config:
    """The configuration of a preset: config.yaml, and workflow/presets/<preset>.yaml over it."""
    base, overlay = root / "config.yaml", root / "workflow/presets" / f"{preset}.yaml"
    files = [base] if preset == DEFAULT else [base, overlay]
    config = load_config(*files)
    if config.preset != preset:
        raise UserError(f"{files[-1]}: its preset is {config.preset}, not {preset}")
    return config


# ----------------------------------------------------------------- the documents


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
    if name in why.BLOCKS:
        return why.block(name, place, root / DATA, root)
    preset, _, scope = place.partition("/")
    folder, older = root / DATA / preset / scope, root / DATA / preset / PUBLISHED
    there = scope in SCOPES and (folder / "metrics.csv").is_file()
    if name == "source":
        return _about(folder if there else older)
    if name == "reading":
        return reading(Tables(folder, configuration(preset, root), root))
    if name not in BLOCKS:
        there_are = ", ".join((*BLOCKS, *INLINE, *why.BLOCKS))
        raise UserError(f"<!--{name}:{place}-->: there is no such table; there are {there_are}")
    lines_of, text = BLOCKS[name]
    rows: Sequence[Row]
    if there and lines_of is not None:
        rows = lines_of(Tables(folder, configuration(preset, root), root))
    else:
        rows = read_csv(older / f"{name}.csv")
    if not rows:
        raise UserError(f"{folder}: nothing in it for <!--{name}:{place}-->")
    return f"\n{text(rows)}"


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
