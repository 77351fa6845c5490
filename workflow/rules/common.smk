"""Validation, paths, and what rules have in common. A path is the key of what it holds."""

import functools
import gc
import importlib
import inspect
import itertools
import json
import os
import re
import sys
from pathlib import Path

from snakemake.io import apply_wildcards

from directcm import datasets
from directcm.config import paths
from directcm.cli import preflight
from directcm.runtime import finished, warm
from directcm.analysis.tables.claim import beside, compared, contrasted, read_claims
from directcm.analysis.needs import available
from directcm.analysis.data.contrasts import TIME, plan
from directcm.analysis.data.experiments import read_experiments
from directcm.analysis.data.places import missing, needed, present
from directcm.analysis.data.selection import base_setting, main_runs, main_setting
from directcm.analysis.tables.cells import same_scale
from directcm.cli.rules import command
from directcm.config import RUN_AXES, TEACHER_SEED, VARIED, Config, Ode, Run, Setting, number
from directcm.config import parse as validated
from directcm.errors import UserError
from directcm.config.exhibits import exhibits
from directcm.config.specs import DISTANCES, EXTRACTORS, METHODS, METRICS, TEACHERS
from directcm.config.registry import START_POINTS, methods
from directcm.runtime.sources import stamp
from directcm.runtime.stop import mark_own_job

# Of a job that the SLURM executor submitted: a verb that is stopped puts this one back into the queue, and no other.
if workflow.remote_exec:
    mark_own_job(Path(".snakemake/slurm_logs/finished").absolute())

# A verb takes its shell's place, so that a signal to the job reaches it and the shell does not end before it.
shell.prefix("set -euo pipefail; exec ")


def leave_finished():
    """Start Snakemake anew, in a SLURM job of several parts, without the parts that an earlier start of the job has finished."""

    def made(rule, wildcards):
        return [Path(apply_wildcards(path, wildcards)) for path in workflow.get_rule(rule).output]

    if (arguments := finished.trimmed(sys.argv[1:], made)) is not None:
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, "-m", "snakemake", *arguments])


def stop(error):
    """A user's mistake: one line, exit code 2, no traceback."""
    print(f"directcm: error: {error}", file=sys.stderr, flush=True)
    sys.exit(2)


# As the user named them: a mistake is in one of these.
_files = ["config.yaml", *map(os.path.relpath, workflow.overwrite_configfiles)]
try:
    CONFIG = validated(Config, config, " + ".join(_files))
    MAIN_RUNS = main_runs(CONFIG)
    # What has to be compared is what the claims are about.
    _claims = read_claims("workflow/claims.yaml")
    COMPARED = compared(_claims, CONFIG)
    ACROSS = beside(_claims, CONFIG)
    CONTRASTS = contrasted(_claims, CONFIG)
    # Of the experiments on why: what is declared, what this grid has by letter, and why not of the others.
    WHY = read_experiments("workflow/why.yaml")
    WITHOUT = missing(WHY, CONFIG)
    EXPERIMENTS = present(WHY, CONFIG, WITHOUT)
except UserError as error:
    stop(error)
# Captions and the report see every key, defaults included.
config.clear()
config.update(CONFIG.model_dump(mode="json"))
# A verb's line; where the two keys are "auto" nothing is said of them.
verb = functools.partial(
    command,
    everywhere={
        key: "on" if value else "off"
        for key, value in CONFIG.model_dump(include={"compile", "deterministic"}).items()
        if value != "auto"
    },
)
# What the teacher diffuses and ODE errors are in.
SPACE = "latent" if TEACHERS[CONFIG.teacher.kind].latent else "pixel"
config["space"] = SPACE
config["editing"] = CONFIG.editing.model_dump(mode="json")
# The report's first page: that of the target that was asked for by its name, else that of the scope that was made last.
_openings = sorted(
    Path(f"results/{CONFIG.preset}/opening").glob("*.html"),
    key=lambda path: (path.stem in sys.argv, path.stat().st_mtime),
)
config["opening"] = str(_openings[-1].resolve()) if _openings else None


onstart:
    try:
        preflight.check(CONFIG, Path(OUT))
    except UserError as error:
        stop(error)
    # On a CPU most of a short job is the import of torch: a helper does it once.
    if workflow.is_main_process and workflow.local_exec:
        warm.accompany(job.rule.name for job in workflow.dag.needrun_jobs())


# A plan of thousands of jobs is millions of small objects that all stay: looking for garbage among them is a fifth of the time.
gc.set_threshold(200_000, 50, 1000)
SEED = CONFIG.seed
OUT = f"results/{CONFIG.preset}"


def spelled_by(wildcards, kind=Run):
    """The run, setting or ODE whose axes the wildcards spell."""
    varied = dict(part.split("~") for part in wildcards.get("varied", "").split("+")[1:])
    return kind.of({**dict(wildcards.items()), **varied, TEACHER_SEED: teacher_seed(wildcards)}, "wildcards")


def teacher_seed(wildcards):
    """The seed of the teacher that {redrawn} spells; 0 where it is empty."""
    return int(wildcards.redrawn[:-1].rpartition("~")[2] or 0)


# Students of every teacher, and those of the default one, which tables and figures are about.
ALL_RUNS, TABLED = CONFIG.grid(), CONFIG.runs()
# Start points whose ODE is solved, by the pool's name.
ROWS_SOLVED = paths.rows_solved(ALL_RUNS)
# Of those of states, after how many steps.
STEPS = paths.states(ALL_RUNS)
# What is evaluated of a run: in the fewest sampling steps, and in more.
SETS = paths.sets(CONFIG)
# What is made: the main comparison for `snakemake`, everything for `snakemake paper`.
SCOPES = {"main": MAIN_RUNS, "paper": ALL_RUNS}
# What tidy tables are of: of each scope the default teacher's students, and students over teachers.
TABLES_OF = {"main": MAIN_RUNS, "paper": TABLED, "teachers": CONFIG.over_teachers()}
# Their wildcards carry the whole identity of a run, its ODE and its setting. {redrawn} stands first in each: the folder of a
# teacher that was drawn again, and nothing for the default one. {varied} stands last: what is not at its default of VARIED.
RUN, ODE, SETTING = Run.pattern(), Ode.pattern(), Setting.pattern()
# What a teacher and its own artefacts lie below: one that exists already is not drawn again.
REDRAWN = "" if paths.pinned(CONFIG) else "{redrawn}"
TAUGHT = ODE.replace("{redrawn}", REDRAWN)


wildcard_constraints:
    method="|".join(METHODS),
    solver="[a-z_]+",
    N="[0-9]+",
    w="[0-9.]+",
    adapter="full|lora[0-9]+",
    loss="|".join(DISTANCES),
    lr="[0-9.]+",
    batch_size="[0-9]+",
    pool="[0-9]+",
    steps="[0-9]+",
    seed="[0-9]+",
    redrawn="|teacher_seed~[1-9][0-9]*/",
    shard="[0-9]+",
    draw="reference|floor",
    extractor="|".join(EXTRACTORS),
    scope="|".join(SCOPES),
    axis="N|w",
    # Below what is evaluated of a run: sets in more sampling steps than the fewest, and those that are not plain.
    more=f"|{paths.MORE}|{paths.VARIANTS}",
    varied=rf"(\+({'|'.join(VARIED)})~[a-z0-9_.-]+)*",
    # Part of a pool's name; of noised images at times of uniform density, the default, solved to the end there is none.
    coupling=rf"(\+density~[0-9.]+)?({re.escape(paths.FIRST_STEP)})?|\+coupling~({'|'.join(START_POINTS[1:])})",
    spread=r"(\+density~[0-9.]+)?",


@functools.cache
def code(*modules):
    """The project's modules that a verb's result depends on and their digest: a parameter, so that editing one re-runs the right jobs.

    As inputs they would be most of all the files of a plan, and a third of its time.
    """
    return stamp(*modules, root=workflow.basedir)


def measuring(metrics):
    """The code of an evaluation by these metrics: each is a module of its own."""
    return code("evaluation.metrics.evaluate", *sorted({METRICS[m].module for m in metrics}))


# The module that reads the teacher: what is made with it depends on its code.
LOADER = f"diffusion.teachers.{TEACHERS[CONFIG.teacher.kind].loader}"


def settings(block, *unread):
    """A block of the configuration, without keys that a rule does not read, as the JSON that a verb's --settings takes."""
    return json.dumps(block.model_dump(mode="json", exclude={*unread}), sort_keys=True)


def literal(text):
    """A parameter as it stands: in plain text Snakemake takes {braces}, of a folder's name perhaps, for wildcards."""
    return known(lambda wildcards: text)


def known(function):
    """The function with its signature at hand: Snakemake asks for it three times a call, a twelfth of a large plan."""
    function.__signature__ = inspect.signature(function)
    return function


def later(small, large):
    """An amount between what 16-pixel digits and 1024-pixel SDXL need, by the number of pixels; more on each further try."""
    share = min(1.0, (CONFIG.data.resolution / 1024) ** 2)
    first = int(round(small + (large - small) * share))
    return known(lambda wildcards, attempt: first * attempt)


def on_gpu(memory, *minutes):
    """What a job that computes with networks asks for: `memory` in MB, for SDXL; minutes for digits, and for SDXL; one GPU."""
    return {"mem_mb": later(4000, memory), "runtime": later(*minutes), "gpu": 1}


def made(*folders):
    """The manifests of artefacts in these folders of the results."""
    return [f"{OUT}/{folder}/manifest.json" for folder in folders]


def shards(folder, count):
    """The manifests of an artefact in `count` shards."""
    return made(*(f"{folder}/shard~{i}" for i in range(count)))


# What most jobs compute with.
MODEL = {name: f"{OUT}/{REDRAWN}{name}/manifest.json" for name in ("teacher", "latents")}
# And those that are about the default teacher alone.
DEFAULT_MODEL = {name: f"{OUT}/{name}/manifest.json" for name in MODEL}
NEEDED = CONFIG.extractor_names()
# What the scope "paper" measures besides, of the main comparison, and with which extractors.
FURTHER = CONFIG.further_names()
FURTHER_NEEDED = CONFIG.extractor_names(FURTHER)
# One job makes the features of a set by all of a pass's extractors.
PASSES = paths.passes(CONFIG)


def pinned():
    """A digest of the files of a teacher that exists already; nothing where it is made here."""
    kind = CONFIG.teacher.kind
    if not TEACHERS[kind].pinned:
        return ""
    found = importlib.import_module(f"directcm.diffusion.teachers.{kind}")
    return found.content(getattr(CONFIG.teacher, kind), Path(OUT, "teacher"))


@known
def drawn_seed(wildcards):
    """--seed of what is drawn again for each teacher, with the flag for its own; the default one's command has no such flag."""
    own = teacher_seed(wildcards)
    return f"{SEED} --teacher-seed {own}" if own else SEED


@known
def targets_of(wildcards):
    pool = paths.pool_of(spelled_by(wildcards), ROWS_SOLVED)
    count = paths.jobs_of(pool, int(wildcards.pool), CONFIG) if pool else 0
    return shards(f"targets/{pool}", count)


@known
def solutions_of(wildcards, input):
    """--targets of a student: its pool's shards, of states those after its own number of steps."""
    run = spelled_by(wildcards)
    if not methods()[run.method].states:
        return f"--targets {input.targets}" if input.targets else ""
    return " ".join(["--targets", *(str(Path(path).parent / f"k~{run.k}") for path in input.targets)])


@known
def labels_of(wildcards):
    """The student whose outputs are a student's labels, where they are not the ODE's endpoints."""
    teaching = spelled_by(wildcards).labelled_by
    return made(f"students/{teaching.key}") if teaching else []


@known
def solving(wildcards):
    """The settings of a pool's targets: of first steps all are one shard."""
    name = f"{spelled_by(wildcards, Ode).key}{wildcards.coupling}"
    sizes = {"shard": ROWS_SOLVED[name]} if wildcards.coupling.endswith(paths.FIRST_STEP) else {}
    return settings(CONFIG.targets.model_copy(update=sizes))


@known
def solved_from(wildcards):
    """--start-points of a pool, and the flags for its first step alone and for its times' density where it has them.

    A parameter more would make all targets anew.
    """
    parts = dict(part.partition("~")[::2] for part in wildcards.coupling.split("+")[1:])
    flags = [parts.get("coupling", START_POINTS[0])]
    flags += ["--first-step"] if "first" in parts else []
    return " ".join([*flags, *density_of(parts.get("density"))])


def density_of(density):
    return ["--density", density] if density else []


@known
def hparams_of(wildcards, input):
    """--hparams JSON, where the configuration changes some of a method's hyperparameters, and flags of what a run varies."""
    hparams, run = CONFIG.hparams(wildcards.method), spelled_by(wildcards)
    flags = [f"--hparams '{json.dumps(hparams, sort_keys=True)}'"] if hparams else []
    flags += [f"--{name} {run.spelled[name]}" for name in run.varied]
    flags += [f"--label-student {input.labels}"] if input.labels else []
    return " ".join(flags)


def if_any(name):
    """--NAME FILE …, where a rule's input of that name has any."""
    flag = name.replace("_", "-")
    return known(lambda wildcards, input: f"--{flag} {input[name]}" if input[name] else "")


@known
def relays_of(wildcards):
    """The students that take the second of two steps after a run's own (`Config.variants`)."""
    run = spelled_by(wildcards)
    names = (CONFIG.relayed(run, one).key for one in CONFIG.variants(run) if one.relay)
    return made(*(f"students/{name}" for name in paths.unique(names)))


def fitted_on(wildcards):
    """What a run's scalings are fitted on, where it has some: the floor's noise, and all shards of its teacher's samples of it."""
    run = spelled_by(wildcards)
    if not any(one.scaled for one in CONFIG.variants(run)):
        return []
    return [noise_of("floor", REDRAWN.format_map(wildcards)), *draw_of(paths.taught(CONFIG, run.ode).key, "floor")]


def endpoints_of(ode):
    """All shards of an ODE's endpoints."""
    return shards(f"endpoints/{ode.key}", paths.error_shards(CONFIG))


def draw_of(ode, draw="reference"):
    """All shards of what the teacher makes of the evaluation's noise, or of another draw of it ("floor")."""
    return shards(f"{draw}/{ode}", CONFIG.evaluation.jobs)


def noise_of(draw, redrawn=""):
    """The evaluation's noise, or another draw of it; every teacher's is the same, and has its own latents' size."""
    return f"{OUT}/{redrawn}{'floor_noise' if draw == 'floor' else 'noise'}/manifest.json"


EVALUATION = settings(CONFIG.evaluation, "samples", "steps", "shards")
ERRORS = settings(CONFIG.errors, "refined")
# Of the statistics; tests come later, so that another level re-runs no metric.
INTERVALS = settings(CONFIG.statistics, "permutations", "alpha")
# Whose features: the teacher's samples lie by the draw of their noise.
DRAWS = {"teacher": "reference", "floor": "floor"}


def trained(*names):
    """Those of these extractors that are trained here."""
    return made(*(f"extractors/{name}" for name in names if EXTRACTORS[name].trained))


def sought():
    """The metric that the search of sampling times minimises."""
    return METRICS[CONFIG.search_metric()]


def sought_in(wildcards):
    """The features that the search compares with."""
    data = CONFIG.search.reference == "data"
    who = "data" if data else f"teacher/{paths.taught(CONFIG, spelled_by(wildcards, Ode)).key}"
    return made(f"features/{sought().extractor}/{who}")


def extracting(names):
    """The code of these extractors' features."""
    return code("evaluation.metrics.features", *sorted({EXTRACTORS[name].module for name in names}))


def features_of(what, names=NEEDED):
    """Features by these extractors of one set's images."""
    return made(*(f"features/{name}/{what}" for name in names))


def another_noise(metrics, ode=ODE):
    """An evaluation's inputs: the teacher's samples of the floor's noise and their features, where metrics are measured against them."""
    names = paths.from_other_noise(metrics)
    return {
        "other_noise": [noise_of("floor")] if names else [],
        "other": draw_of(ode, "floor") if names else [],
        "other_features": features_of(f"floor/{ode}", names),
    }


@known
def other_of(wildcards, input):
    """--other-noise, --other and --other-features, where there are any."""
    if not input.other:
        return ""
    flags = ("other_noise", "other", "other_features")
    return " ".join(f"--{name.replace('_', '-')} {input[name]}" for name in flags)


def axes_of(wildcards, kind=Run):
    """The same as a verb's JSON."""
    return json.dumps(spelled_by(wildcards, kind).axes())
