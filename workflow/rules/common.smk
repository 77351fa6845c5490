"""Validation, paths, and what rules have in common. A path is the key of what it holds."""

import functools
import json
import sys
from pathlib import Path

import pandas as pd
from snakemake.utils import Paramspace

from directcm import preflight
from directcm.config import ODE_AXES, RUN_AXES, Config, number
from directcm.config import parse as validated
from directcm.errors import UserError
from directcm.specs import EXTRACTORS, METHODS, METRICS
from directcm.sources import sources


def stop(error):
    """A user's mistake: one line, exit code 2, no traceback."""
    print(f"directcm: error: {error}", file=sys.stderr, flush=True)
    sys.exit(2)


try:
    CONFIG = validated(Config, config)
except UserError as error:
    stop(error)
# Captions and the report see every key, defaults included.
config.clear()
config.update(CONFIG.model_dump(mode="json"))


onstart:
    try:
        preflight.check(CONFIG)
    except UserError as error:
        stop(error)


SEED = CONFIG.seed
OUT = f"results/{CONFIG.preset}"


def key(axes, names):
    """name~value,… as Paramspace spells it."""
    return ",".join(
        f"{n}~{number(axes[n]) if isinstance(axes[n], float) else axes[n]}"
        for n in names
    )


def grid(runs, names):
    """A Paramspace over runs: its wildcards carry the whole identity of a run."""
    rows = {key(run, names): run for run in runs}.values()
    text = [
        {
            n: number(run[n]) if isinstance(run[n], float) else str(run[n])
            for n in names
        }
        for run in rows
    ]
    return Paramspace(
        pd.DataFrame(text, columns=list(names)), filename_params="*", filename_sep=","
    )


RUNS = grid(CONFIG.runs(), RUN_AXES)
DEFAULT_ODE = {n: getattr(CONFIG.ode, n) for n in ODE_AXES}
ODES = grid([DEFAULT_ODE, *CONFIG.runs()], ODE_AXES)
RUN = RUNS.wildcard_pattern
ODE = ODES.wildcard_pattern
TEACHER_SET = f"teacher/{key(DEFAULT_ODE, ODE_AXES)}"
STUDENT_SETS = [
    f"students/{run}/sampling_steps~{k}"
    for run in RUNS.instance_patterns
    for k in CONFIG.evaluation.steps
]
SETS = [TEACHER_SET, *STUDENT_SETS]


wildcard_constraints:
    method="|".join(METHODS),
    solver="[a-z]+",
    N="[0-9]+",
    w="[0-9.]+",
    adapter="full|lora[0-9]+",
    loss="[a-z_]+",
    lr="[0-9.]+",
    batch_size="[0-9]+",
    steps="[0-9]+",
    seed="[0-9]+",
    shard="[0-9]+",
    sampling_steps="[0-9]+",
    extractor="|".join(EXTRACTORS),


def code(*modules):
    """The project's modules that a verb's result depends on: inputs, so that editing one re-runs the right jobs."""
    return sources(*modules, root=workflow.basedir)


def settings(block):
    """A block of the configuration as the JSON that a verb's --settings takes."""
    return json.dumps(block.model_dump(mode="json"), sort_keys=True)


def scaled(small, large):
    """An amount between what 16-pixel digits and 1024-pixel SDXL need, by the number of pixels."""
    share = min(1.0, (CONFIG.data.resolution / 1024) ** 2)
    return int(round(small + (large - small) * share))


def later(small, large):
    """The same, and more on each further try."""
    return lambda wildcards, attempt: scaled(small, large) * attempt


def shards(pattern, count):
    """All shards of a scattered step."""
    return expand(pattern, shard=range(count), allow_missing=True)


REFERENCE = f"{OUT}/reference/{ODE}/shard~{{shard}}/manifest.json"
TARGETS = f"{OUT}/targets/{ODE}/shard~{{shard}}/manifest.json"
