"""Paths as keys: where a configuration's artefacts and benchmark files lie below its results folder.

The rules of workflow/rules/ and the provenance page spell them through these functions, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from directcm.config import TEACHER_SEED, Config, Ode, Run, Setting
from directcm.config.exhibits import exhibits
from directcm.config.registry import FIRST, methods
from directcm.config.specs import EXTRACTORS, METRICS, TEACHERS


def unique(items: Iterable[str]) -> list[str]:
    """Without repetitions, in order."""
    return list(dict.fromkeys(items))


def refined(config: Config, ode: Ode) -> Ode:
    """The refined ODE of the same teacher under the same guidance."""
    return ode.at(solver=config.errors.refined.solver, N=config.errors.refined.N)


def pinned(config: Config) -> bool:
    """Whether the teacher exists already: another `teacher_seed` draws the start points again, and no other teacher."""
    return TEACHERS[config.teacher.kind].pinned


def taught(config: Config, ode: Ode) -> Ode:
    """An ODE as the teacher's own artefacts spell it: of a teacher that exists already there is one, whatever the start points."""
    return ode.at(teacher_seed=0) if pinned(config) else ode


def redrawn(config: Config, runs: Iterable[Run]) -> list[str]:
    """The folders of these runs' teachers and their like, of those that are drawn again: "teacher_seed~1/" …"""
    return [folder for folder in unique(taught(config, run.ode).redrawn for run in runs) if folder]


def split(folder: str) -> tuple[str, str, str]:
    """(teacher's folder, kind, rest) of an artefact: teacher_seed~1/latents → teacher_seed~1/, latents, ""; targets/x → "", targets, x."""
    own = "/".join(folder.split("/")[1:]) if folder.startswith(f"{TEACHER_SEED}~") else folder
    kind, _, rest = own.partition("/")
    return folder.removesuffix(own), kind, rest


def count(total: int, shard: int) -> int:
    """How many jobs of `shard` items hold `total`."""
    return -(-total // shard)


def trained_extractors(config: Config, scope: str = "paper") -> list[str]:
    """The extractors of a scope that are trained here."""
    names = config.metric_names() + (config.further_names() if scope in ("paper", WHY) else [])
    return [name for name in config.extractor_names(names) if EXTRACTORS[name].trained]


# After the ODE's key: of a pool of which each start point's first step alone is solved, and of one of states after several numbers of steps.
FIRST_STEP, STATES = "+first", "+states"


def started(run: Run) -> str:
    """The beginning of the folders below targets/ of a run's noised start points: its ODE, and their times' density where not uniform."""
    return run.ode.key + (f"+density~{run.spelled['density']}" if "density" in run.varied else "")


def solved(run: Run) -> str:
    """The folder below targets/ that a run needs: its ODE, and its start points if not noised images; "" if none."""
    start_points = methods()[run.method].targets
    if not start_points or run.labelled_by:
        return ""
    if methods()[run.method].states:
        return started(run) + STATES
    return started(run) if start_points == "forward" else f"{run.ode.key}+coupling~{start_points}"


def states(runs: Iterable[Run]) -> dict[str, list[int]]:
    """Name of each pool of states → the numbers k of steps after which some run needs them: one solve passes them all."""
    found: dict[str, set[int]] = {}
    for run in runs:
        if methods()[run.method].states:
            found.setdefault(solved(run), set()).add(run.k)
    return {pool: sorted(ks) for pool, ks in found.items()}


def _largest(pools: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Name → the largest number that stands with it; of names that are empty none."""
    out: dict[str, int] = {}
    for name, size in pools:
        if name:
            out[name] = max(out.get(name, 0), size)
    return out


def rows_solved(runs: Iterable[Run]) -> dict[str, int]:
    """Name of each pool of targets that is solved for these runs → rows of its largest.

    For those that learn from the solution (`solved`), all of it. For those that read its first step, that step alone where no
    whole solution has it and they would ask the teacher for as many steps, all of them together, as the pool has rows.
    """
    runs = list(runs)
    whole = _largest((solved(run), run.pool) for run in runs)
    alone = [run for run in runs if methods()[run.method].stored and not pool_of(run, whole)]
    first = _largest((started(run) + FIRST_STEP, run.pool) for run in alone)
    asked = {
        name: sum(run.steps * run.batch_size for run in alone if name == started(run) + FIRST_STEP) for name in first
    }
    return whole | {name: rows for name, rows in first.items() if asked[name] >= rows}


def pool_of(run: Run, rows: Mapping[str, int]) -> str:
    """The pool of solved targets that a run is trained with, of those that the grid solves (`rows_solved`); "" where it has none.

    A method whose teacher's steps can be read (STORED) reads them where its start points are solved for another student, or else
    from a solve of one step that its seeds share. Where neither is there it asks the teacher itself.
    """
    if (name := solved(run)) or not methods()[run.method].stored:
        return name
    found = (started(run), started(run) + FIRST_STEP)
    return next((name for name in found if rows.get(name, 0) >= run.pool), "")


def jobs_of(pool: str, rows: int, config: Config) -> int:
    """How many jobs solve as many rows of a pool: one all first steps, which are N/2 times as little work."""
    return 1 if pool.endswith(FIRST_STEP) else count(rows, config.targets.shard)


def pools(config: Config, runs: Sequence[Run]) -> dict[str, int]:
    """Name of each pool of solved targets that these runs of the grid are trained with → how many shards its largest takes."""
    rows = rows_solved(config.grid())
    return _largest((name, jobs_of(name, run.pool, config)) for run in runs for name in [pool_of(run, rows)])


def odes(config: Config, runs: Sequence[Run]) -> list[str]:
    """Keys of all ODEs that are sampled: the `ode` block's first, and those of the runs."""
    return unique([config.ode.key, *(taught(config, run.ode).key for run in runs)])


def plain(keys: Iterable[str]) -> list[str]:
    """Those of some ODEs' keys that are the default teacher's, of which alone floor and baselines are made."""
    return [key for key in keys if not key.startswith(f"{TEACHER_SEED}~")]


def default_scope(config: Config) -> str:
    """What `snakemake` makes without a target: the main comparison, or of more methods than the paper's two the whole grid."""
    return "main" if {run.method for run in config.runs()} <= set(FIRST) else "paper"


def teachers(config: Config, runs: Sequence[Run]) -> dict[str, list[str]]:
    """Whose samples are evaluated beside the students', and of which ODEs: the teacher's, and those of another noise where some
    metric reads them, of the default teacher."""
    found = odes(config, runs)
    return {"teacher": found, **({"floor": plain(found)} if config.floor_metrics() else {})}


# The scope of the experiments on why: the whole grid, and of its students the sets that are not plain (`Config.variants`).
WHY = "why"
# Where the metrics lie that the scopes of the whole grid have besides (`further_metrics`), below what they are.
FURTHER = "further/"


def further(config: Config, runs: Sequence[Run], scope: str) -> list[Run]:
    """The runs of a scope of the whole grid that have further metrics: those of the main comparison."""
    if scope not in ("paper", WHY) or not config.further_names():
        return []
    main = set(config.main())
    return [run for run in runs if run in main]


def further_teachers(config: Config, runs: Sequence[Run]) -> dict[str, list[str]]:
    """The same as `teachers` of further metrics, for the runs that have some (`further`)."""
    found = unique(run.ode.key for run in runs)
    return {"teacher": found, **({"floor": found} if config.floor_metrics(config.further_names()) else {})}


# The two passes over images that make features, as paths of logs and benchmark files have them.
FEATURES, FEATURES_FURTHER = "features", "features_further"


def passes(config: Config) -> dict[str, list[str]]:
    """The extractors of each pass over a set's images, which is one job: those of `metrics`, and what further metrics need besides.

    Where `metrics` needs none, the further ones are the first pass. One that would have no extractor is not there.
    """
    needed = config.extractor_names()
    besides = [name for name in config.extractor_names(config.further_names()) if name not in needed]
    found = {FEATURES: needed or besides, FEATURES_FURTHER: besides if needed else []}
    return {name: names for name, names in found.items() if names}


def leading(config: Config) -> list[str]:
    """The first extractor of each pass: what a job of features does counts with it."""
    return [names[0] for names in passes(config).values()]


def from_other_noise(names: Iterable[str]) -> list[str]:
    """The extractors whose features of the teacher's samples of another noise these metrics are measured against."""
    needed = {METRICS[m].extractor for m in names if "other_noise" in METRICS[m].references}
    return [name for name in EXTRACTORS if name in needed]


def drawn(config: Config, runs: Sequence[Run], scope: str) -> list[str]:
    """Keys of the ODEs of which metrics or baselines need the teacher's samples of the floor's noise.

    Of other teachers than the default one only where students are measured against them (the reference other_noise), or scaled to them.
    """
    found = odes(config, runs)
    if not from_other_noise(config.metric_names()):
        found = plain(found) if config.floor_metrics() or config.baseline_metrics() else []
    beyond = further_teachers(config, further(config, runs, scope)).get("floor", [])
    return unique([*found, *beyond, *(taught(config, run.ode).key for run in scaled(config, runs, scope))])


Sets = list[tuple[int, int]]
# Where sets in more sampling steps than the fewest lie, below what they are.
MORE = "more_steps/"


def sets(config: Config) -> dict[Run, tuple[Sets, Sets]]:
    """A run → its sets (optimiser step, sampling steps) in the fewest sampling steps, and those in more.

    The latter lie in a collection of their own, so that the main comparison, which is about the former, makes no others. Where
    the runs of one setting have not the same fewest steps, all of their sets lie in one.
    """
    found = {run: config.sets(run) for run in config.grid()}
    fewest: dict[Setting, set[int]] = {}
    for run, named in found.items():
        fewest.setdefault(run.setting, set()).add(min(k for _, k in named))
    out = {}
    for run, named in found.items():
        least = fewest[run.setting]
        more = [one for one in named if len(least) == 1 and one[1] not in least]
        out[run] = ([one for one in named if one not in more], more)
    return out


def in_more_steps(config: Config, runs: Sequence[Run], scope: str) -> list[Run]:
    """The runs of a scope that have a collection in more sampling steps: none in the main comparison."""
    if scope == "main":
        return []
    found = sets(config)
    return [run for run in runs if found[run][1]]


# Where sets from other start times, scaled, or by two students in turn lie (`Config.variants`), below what they are.
VARIANTS = "variants/"


def with_variants(config: Config, runs: Sequence[Run], scope: str) -> list[Run]:
    """The runs of a scope that have a collection of sets that are not plain: none but in the experiments on why."""
    return [run for run in runs if config.variants(run)] if scope == WHY else []


def scaled(config: Config, runs: Sequence[Run], scope: str) -> list[Run]:
    """Those of them that have scaled sets, which are fitted on the teacher's samples of the floor's noise."""
    return [run for run in with_variants(config, runs, scope) if any(one.scaled for one in config.variants(run))]


def untrained(config: Config, runs: Sequence[Run], scope: str) -> list[str]:
    """Keys of the ODEs of whose teachers it is kept what an untrained student makes of the evaluation's noise."""
    return odes(config, runs) if scope == WHY else []


def both(config: Config, ode: Ode) -> tuple[Ode, Ode]:
    """The ODEs that errors by start time are against: the student's own, and the refined one."""
    own = taught(config, ode)
    return own, refined(config, own)


def with_errors(config: Config, runs: Sequence[Run], scope: str) -> list[Run]:
    """The runs of a scope whose error by start time is measured: none in the main comparison."""
    return [run for run in runs if scope != "main" and config.measures_errors(run)]


def measured(config: Config, runs: Sequence[Run], scope: str = "paper") -> dict[str, list[str]]:
    """What the tidy tables are collected from, below the results folder, by the argument of `collect` that it is.

    Over teachers each is compared by itself, which says how much of its difference is due to the prompts. The experiments on why
    compare for themselves.
    """
    names = [run.key for run in runs]
    more = in_more_steps(config, runs, scope)
    besides = further(config, runs, scope)

    def settings(of: Sequence[Run]) -> list[str]:
        # What varies density, weight, labels or k is compared with what does not, by the experiments on it.
        return unique(run.setting.key for run in of if not run.varied and (scope == "teachers" or not run.teacher_seed))

    return {
        "metrics": [
            *(f"metrics/{who}/{ode}" for who, found in teachers(config, runs).items() for ode in found),
            *(f"metrics/baselines/{ode}" for ode in plain(odes(config, runs)) if config.baseline_metrics()),
            *(f"metrics/students/{name}" for name in names),
            *(f"metrics/students/{MORE}{run.key}" for run in more),
            *(f"metrics/students/{VARIANTS}{run.key}" for run in with_variants(config, runs, scope)),
            *(
                f"metrics/{FURTHER}{who}/{ode}"
                for who, found in further_teachers(config, besides).items()
                for ode in found
            ),
            *(f"metrics/{FURTHER}students/{run.key}" for run in besides),
        ],
        "students": [f"students/{name}" for name in names],
        "targets": [f"targets/{pool}/shard~{i}" for pool, shards in pools(config, runs).items() for i in range(shards)],
        "errors": [f"errors/{run.key}" for run in with_errors(config, runs, scope)],
        "comparisons": []
        if scope == WHY
        else [
            *(f"comparisons/{setting}.csv" for setting in settings(runs)),
            *(f"comparisons/{MORE}{setting}.csv" for setting in settings(more)),
            *(f"comparisons/{FURTHER}{setting}.csv" for setting in settings(besides)),
            # The main comparison varies nothing that a contrast could go over.
            *(["contrasts/paper.csv"] if scope == "paper" else []),
        ],
    }


def artefacts(config: Config, runs: Sequence[Run], scope: str = "paper") -> list[str]:
    """Folders of the artefacts behind some of the grid's runs, below the results folder, in the order they are made.

    Of the scope "why" those that its numbers are from: what only figures and tables of "paper" show is not among them.
    """
    extractors = config.extractor_names()
    besides = further(config, runs, scope)
    beyond = config.extractor_names(config.further_names()) if besides else []
    floors = drawn(config, runs, scope)
    tables = measured(config, runs, scope)
    more = [f"{MORE}{run.key}" for run in in_more_steps(config, runs, scope)]
    more += [f"{VARIANTS}{run.key}" for run in with_variants(config, runs, scope)]
    fitted = redrawn(config, scaled(config, runs, scope))
    wanted = with_errors(config, runs, scope)
    error_odes = unique(ode.key for run in wanted for ode in both(config, run.ode))
    whose, another = teachers(config, runs), bool(from_other_noise(config.metric_names()))
    if another:
        whose["floor"] = odes(config, runs)
    names = [run.key for run in runs]
    sought = searched(config, runs) if scope != WHY else []
    return [
        *("data", "teacher", "latents", "noise"),
        *(f"{folder}{name}" for folder in redrawn(config, runs) for name in ("teacher", "latents", "noise")),
        *(["floor_noise"] if plain(floors) else []),
        *(f"{folder}floor_noise" for folder in redrawn(config, runs) if another or folder in fitted),
        *(["trajectories"] if scope != WHY else []),
        *(["search_noise"] if sought else []),
        *(f"extractors/{name}" for name in trained_extractors(config, scope)),
        *(
            f"{draw}/{ode}/shard~{i}"
            for ode in odes(config, runs)
            for draw in (("reference", "floor") if ode in floors else ("reference",))
            for i in range(config.evaluation.jobs)
        ),
        *tables["targets"],
        *(f"endpoints/{ode}/shard~{i}" for ode in error_odes for i in range(error_shards(config))),
        *tables["students"],
        *tables["errors"],
        *(f"untrained/{ode}" for ode in untrained(config, runs, scope)),
        *(f"samples/{name}" for name in [*names, *more]),
        *unique(
            [
                *(f"features/{e}/data" for e in extractors),
                *(f"features/{e}/{who}/{ode}" for e in extractors for who, found in whose.items() for ode in found),
                *(f"features/{e}/students/{name}" for e in extractors for name in [*names, *more]),
                *(f"features/{e}/data" for e in beyond),
                *(
                    f"features/{e}/{who}/{ode}"
                    for e in beyond
                    for who, found in further_teachers(config, besides).items()
                    for ode in found
                ),
                *(f"features/{e}/students/{run.key}" for e in beyond for run in besides),
            ]
        ),
        *tables["metrics"],
        *(edits(config, runs) if scope != WHY else []),
        *(["convergence"] if config.convergence and scope != WHY else []),
        *(["fixed_points"] if config.fixed_points else []),
        *(f"search/{name}" for name in sought),
    ]


def edits(config: Config, runs: Sequence[Run]) -> list[str]:
    """The edits of the students among some runs that edit images, below the results folder, and before them their teacher's."""
    mine = [run for run in config.edited() if run in runs]
    return [
        *unique(f"edits/teacher/{run.ode.key}" for run in mine),
        *(f"edits/students/{run.key}" for run in mine),
    ]


def searched(config: Config, runs: Sequence[Run]) -> list[str]:
    """Keys of those of some runs whose sampling times are searched."""
    return [run.key for run in config.searched() if run in runs]


def error_shards(config: Config) -> int:
    """How many jobs solve one ODE from the start points of the errors by start time."""
    return count(config.errors.times * config.errors.points, config.errors.shard)


# The rule whose benchmark file a kind of result has, where it is not the result's own path.
_STEPS = {
    "latents": "encode",
    "extractors": "extractor",
    "students": "train",
    "errors": "error_by_time",
    "samples": "sample",
    "metrics": "evaluate",
    "edits": "edit",
    "comparisons": "compare",
}


def _benchmark(folder: str, passed: Mapping[str, str]) -> str:
    """The name of the benchmark file of the job that makes a folder; `passed`: the pass that each extractor is of."""
    whose, kind, rest = split(folder)
    step = _STEPS.get(kind, kind)
    if kind == "features":
        extractor, _, rest = rest.partition("/")
        step = passed[extractor]
    elif kind == "targets" and STATES in rest:
        step, rest = "states", rest.replace(STATES, "")
    elif kind == "samples" and rest.startswith(VARIANTS):
        step, rest = "variants", rest.removeprefix(VARIANTS)
    elif kind == "metrics" and rest.startswith("baselines/"):
        step, _, rest = rest.partition("/")
    return whose + "/".join(filter(None, (step, rest)))


# Rules of the analysis that run once for each scope, figures, tables and the pages on costs and provenance apart.
OF_A_SCOPE = ("collect", "cards", "claims", "opening", "gallery")


def benchmarks(config: Config, runs: Sequence[Run], scope: str) -> list[str]:
    """Snakemake's benchmark files of the jobs behind some of the grid's runs, below results/<preset>/benchmarks.

    Files of tables and figures that this grid has not may be among them; those of the pages on costs and provenance, which
    are made last, are not.
    """
    made = [*artefacts(config, runs, scope), *measured(config, runs, scope)["comparisons"]]
    others = scope != WHY and any(run.teacher_seed for run in runs)
    made += measured(config, config.over_teachers(), "teachers")["comparisons"] if others else []
    # Features of one set by the extractors of one pass are one job.
    step = {extractor: name for name, names in passes(config).items() for extractor in names}
    names = unique(_benchmark(folder.removesuffix(".csv"), step) for folder in made)
    if scope == WHY:
        return [f"{name}.tsv" for name in names]
    names += [f"{step}/{scope}" for step in OF_A_SCOPE]
    names += ["collect/teachers"] if others else []
    names += [one.job for exhibit in exhibits() for one in exhibit.each if not one.experiments]
    return [f"{name}.tsv" for name in names]
