"""The verbs that compare, and make tables, figures and pages of numbers that are there."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from directcm import config
from directcm.cli import options as o
from directcm.config.exhibits import names
from directcm.config.registry import FIRST
from directcm.config.specs import METHODS
from directcm.errors import UserError

Settings = Annotated[config.Config, o.block("configuration")]
Table = Annotated[Path, o.Option(metavar="CSV", filled="input.NAME")]
Claims = Annotated[Path, o.Option("claims.yaml", filled="input.NAME")]
Experiments = Annotated[Path, o.Option("why.yaml", filled="input.NAME")]


def _baselines(path: str) -> dict[str, o.Artifact]:
    from directcm.runtime.artifacts import open_collection

    return open_collection(path, "metrics")


def compare(
    *,
    settings: Annotated[config.Statistics, o.block("statistics")],
    setting: Annotated[o.Json, "all axes but method and seed"],
    pairs: Annotated[Sequence[o.Methods], "the methods to compare"] = (FIRST,),
    stepwise: Annotated[Sequence[o.Method], "methods to compare in more steps with the fewest"] = (),
    along: Annotated[Sequence[o.Method], "methods to compare along training"] = tuple(METHODS),
    claimed: Annotated[
        Sequence[o.Claimed] | None, "what is compared of other pairs than the paper's; all without"
    ] = None,
    beyond: Annotated[o.Index, "compare sets of more sampling steps than this alone"] = 0,
    threads: Annotated[o.Threads, "tests at once"] = 1,
    others: Annotated[
        Sequence[o.Across],
        "settings of another value of one axis, whose students of a method are compared with this setting's",
    ] = (),
    metrics: Annotated[
        Sequence[str], o.Option("collections of metrics of the setting's students", least=1, filled="input.NAME")
    ],
    features: Annotated[Sequence[o.Extracted], "their features"] = (),
    teacher: Annotated[Sequence[o.Extracted], "the teacher's features"] = (),
    data: Annotated[Sequence[o.Extracted], "the data's features"] = (),
    other_noise: Annotated[Sequence[o.Extracted], "features of the teacher's samples of another noise"] = (),
    baselines: Annotated[
        dict[str, o.Artifact] | None,
        o.Option("the baselines of the setting's ODE", read=str, opened=lambda path: _baselines(path)),
    ] = None,
    job: o.Seeded,
) -> None:
    """Compare students: methods, later with earlier, more steps with few, two values of an axis."""
    from directcm.analysis.data import compare

    theirs: dict[str, list[str]] = {}
    for name, path in features:
        theirs.setdefault(name, []).append(path)
    compare.compare(
        config.Setting.of(setting, "compare: the setting"),
        metrics,
        theirs,
        dict(teacher),
        dict(data),
        settings,
        job.seed,
        job.out,
        pairs=pairs,
        stepwise=stepwise,
        along=along,
        others=others,
        claimed=claimed,
        beyond=beyond,
        other_noise=dict(other_noise),
        threads=threads,
        progress=o.counted("compare", "test"),
        baselines=baselines,
    )


def contrasts(
    *,
    settings: Settings,
    contrasts: Annotated[Sequence[o.Contrasts], "what is compared over which axis, mean, log, linear or from"] = (),
    space: Annotated[Literal["latent", "pixel"], "what errors by start time are in"] = "latent",
    metrics: Annotated[Sequence[str], o.Option("collections of metrics of the students", filled="input.NAME")] = (),
    features: Annotated[Sequence[o.Extracted], "features of students, teacher and data"] = (),
    errors: Annotated[Sequence[str], o.Option("errors of the students by start time", filled="input.NAME")] = (),
    job: o.Seeded,
) -> None:
    """Compare over an axis: trends of a difference between methods, and its mean."""
    from directcm.analysis.data.contrasts import contrasts as write

    progress = o.counted("contrasts", "contrast")
    write(contrasts, settings, metrics, features, errors, job.seed, job.out, space=space, progress=progress)


def collect(
    *,
    settings: Settings,
    results: o.Results,
    scope: Annotated[
        Literal["main", "paper", "teachers"], "the main comparison, the whole grid, or its students over teachers"
    ],
    job: o.Job,
) -> None:
    """Put all numbers of a scope into tidy tables."""
    from directcm.analysis.data import collect
    from directcm.config import paths

    wanted = paths.measured(settings, o.tabled(settings, scope), scope)
    found = {name: [results / path for path in given] for name, given in wanted.items()}
    collect.collect(**found, out=job.out, several=scope == "teachers")


def table(
    name: Annotated[str, o.Option(choices=names("table"))],
    /,
    *,
    settings: Settings,
    metrics: Annotated[Path | None, o.tidy("metrics")] = None,
    comparisons: Annotated[Path | None, o.tidy("comparisons")] = None,
    students_table: Annotated[Path | None, o.tidy("students")] = None,
    correlations: Annotated[Path | None, o.tidy("correlations")] = None,
    teachers: Annotated[Table | None, "comparisons.csv over teachers"] = None,
    searches: Annotated[Sequence[o.Artifact], o.artefact("search", "the searches of sampling times")] = (),
    job: o.Job,
) -> None:
    """Write a table as CSV, LaTeX and HTML; Table 1 as JSON too."""
    module, taken = _exhibit("table", name, locals())
    module.write(*taken, settings, job.out)


def claims(
    *,
    claims: Claims,
    settings: Settings,
    comparisons: Annotated[Path, o.tidy("comparisons")],
    teachers: Annotated[Table | None, "comparisons.csv over teachers, with a column teacher_seed"] = None,
    job: o.Job,
) -> None:
    """Turn claims into verdicts: CSV, LaTeX, HTML and JSON."""
    from directcm.analysis.tables.claims import claims as write

    tex, page, words = (job.out.with_suffix(end) for end in (".tex", ".html", ".json"))
    write(claims, comparisons, settings, job.out, tex, page, words, teachers)


def figure(
    name: Annotated[str, o.Option(choices=names("figure"))],
    /,
    *,
    trajectories: Annotated[o.Artifact | None, o.artefact("trajectories")] = None,
    convergence: Annotated[o.Artifact | None, o.artefact("convergence")] = None,
    fixed_points: Annotated[o.Artifact | None, o.artefact("fixed_points")] = None,
    noise: o.Noise | None = None,
    samples: Annotated[Sequence[o.Placed] | None, "whose samples lie where"] = None,
    edits: Annotated[Sequence[o.Placed] | None, "whose edits lie where"] = None,
    columns: Annotated[o.Natural, "how many pictures side by side"] = 10,
    students: Annotated[Sequence[o.Student] | None, "the students"] = None,
    table: Annotated[Table | None, "table1.csv"] = None,
    metrics: Annotated[Path | None, o.tidy("metrics")] = None,
    comparisons: Annotated[Path | None, o.tidy("comparisons")] = None,
    errors: Annotated[Path | None, o.tidy("errors")] = None,
    directions: Annotated[Path | None, o.tidy("directions")] = None,
    students_table: Annotated[Path | None, o.tidy("students")] = None,
    arms: Annotated[
        Sequence[Path] | None, o.Option("what `why` wrote of an experiment's arms", metavar="CSV", filled="input.NAME")
    ] = None,
    tests: Annotated[
        Sequence[Path] | None, o.Option("what `why` wrote of its tests", metavar="CSV", filled="input.NAME")
    ] = None,
    axis: Annotated[Literal["N", "w"] | None, "what is swept"] = None,
    setting: Annotated[o.Json | None, "the main setting: all axes but method and seed"] = None,
    alpha: Annotated[float, "level of significance"] = 0.05,
    space: Annotated[Literal["latent", "pixel"], "what the teacher diffuses"] = "latent",
    paper_scale: Annotated[Sequence[str], o.Option("metrics on the paper's own scale", metavar="METRIC")] = (),
    job: o.Job,
) -> None:
    """Draw a figure as PDF, PNG and the CSV of what is drawn."""
    module, taken = _exhibit("figure", name, locals())
    files = (job.out, job.out.with_suffix(".png"), job.out.with_suffix(".csv"))
    asked = inspect.signature(module.draw).parameters
    more = {"paper": paper_scale, "alpha": alpha, "space": space}
    module.draw(*taken, *files, **{key: value for key, value in more.items() if key in asked})


def _exhibit(verb: str, name: str, given: Mapping[str, Any]) -> tuple[Any, list[Any]]:
    """The module of a figure or table, and what it takes of the flags that were given (`directcm.config.exhibits`)."""
    from directcm.runtime.artifacts import open_artifact

    made: dict[str, Callable[[Any], Any]] = {
        "setting": lambda axes: config.Setting.of(axes, f"{verb} {name}: --setting"),
        "samples": _samples_of,
        "edits": lambda placed: {row: open_artifact(path, "edits") for row, path in placed},
    }
    module = import_module(f"directcm.analysis.{'tables.' if verb == 'table' else 'figures.figure_'}{name}")
    taken = next(iter(module.EXHIBITS.values()))["takes"].split()
    if lacking := [flag for flag in taken if given[flag] is None]:
        raise UserError(f"{verb} {name}: --{lacking[0].replace('_', '-')} is missing")
    return module, [made.get(flag, lambda value: value)(given[flag]) for flag in taken]


def _samples_of(items: Sequence[tuple[str, str]]) -> dict[str, list[Any]]:
    """Row → its samples: the teacher's shards, and of a student's collection the finished student in the fewest steps."""
    from directcm.runtime.artifacts import COLLECTION, MANIFEST, open_artifact, open_collection, read_json

    sets: dict[str, list[Any]] = {}
    for row, path in items:
        folder = Path(path).parent if Path(path).name == MANIFEST else Path(path)
        if read_json(folder / MANIFEST).get("kind") == COLLECTION:
            sets.setdefault(row, []).append(next(iter(open_collection(folder, "samples").values())))
        else:
            sets.setdefault(row, []).append(open_artifact(folder, "samples"))
    return sets


def opening(
    *,
    settings: Settings,
    claims: Claims,
    metrics: Annotated[Path, o.tidy("metrics")],
    comparisons: Annotated[Path, o.tidy("comparisons")],
    compared: Annotated[Table, "comparisons.csv of the main comparison"],
    drawn: Annotated[Table, "Figure 2's own CSV"],
    samples: Annotated[Sequence[o.Placed], "what Figure 2 is drawn from"],
    teachers: Annotated[Table | None, "comparisons.csv over teachers, with a column teacher_seed"] = None,
    job: o.Job,
) -> None:
    """Write the report's first page: Table 1, Figure 2 and the verdicts."""
    from directcm.analysis.pages import opening

    opening.opening(metrics, compared, claims, comparisons, drawn, _samples_of(samples), settings, job.out, teachers)


def why(
    *,
    experiments: Experiments,
    letter: Annotated[Literal["A", "B", "C", "D", "E", "F"], "which experiment"],
    settings: Settings,
    results: o.Results,
    job: o.Job,
) -> None:
    """Judge an experiment on why CMs work: its tests, and beside them its arms, as CSV."""
    from directcm.analysis.data import why

    why.why(experiments, letter, settings, results, job.out, progress=o.counted("why", "test"))


def outcomes(
    *,
    experiments: Experiments,
    settings: Settings,
    tests: Annotated[
        Sequence[Path], o.Option("what `why` wrote of each experiment", metavar="CSV", filled="input.NAME")
    ],
    opening: Annotated[Path, o.Option("where the report's first page goes", metavar="HTML", filled="output.NAME")],
    job: o.Job,
) -> None:
    """Write the outcomes of the experiments on why: CSV, LaTeX, HTML and JSON, all arms as CSV, and the report's first page."""
    from directcm.analysis.tables import outcomes

    outcomes.write(experiments, tests, settings, job.out, opening)


def gallery(
    *,
    pictures: Annotated[
        str, o.Option("a list of {path, title, caption, section}, or a file", metavar="JSON", filled=o.QUOTED)
    ],
    title: Annotated[str, o.Option(filled=o.QUOTED)] = "Gallery",
    job: o.Job,
) -> None:
    """Write a page of pictures that a click enlarges."""
    from directcm.analysis.pages import gallery

    gallery.gallery(gallery.read_items(pictures), job.out, title)


def costs(*, settings: Settings, results: o.Results, scope: o.Made, job: o.Job) -> None:
    """Write what each step cost, as a page and as CSV."""
    from directcm.analysis.pages import provenance
    from directcm.config import paths

    runs = o.runs_of(settings, scope)
    made = [results / name for name in paths.artefacts(settings, runs, scope)]
    timed = [results / "benchmarks" / name for name in paths.benchmarks(settings, runs, scope)]
    provenance.costs_page(settings, made, timed, job.out, job.out.with_suffix(".csv"))


def provenance(*, settings: Settings, results: o.Results, scope: o.Made, job: o.Job) -> None:
    """Write what ran, and from what."""
    from directcm.analysis.pages import provenance
    from directcm.config import paths

    made = [results / name for name in paths.artefacts(settings, o.runs_of(settings, scope), scope)]
    provenance.provenance_page(settings, made, job.out)


def cards(*, settings: Settings, results: o.Results, scope: o.Scope, job: o.Job) -> None:
    """Write each student's model card, and the list of them."""
    from directcm.analysis.pages import cards

    cards.cards(results, o.tabled(settings, scope), job.out)
