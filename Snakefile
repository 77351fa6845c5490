import os
import sys

from snakemake.utils import min_version

from directcm.config import check_yaml
from directcm.errors import UserError

min_version("9.27")


try:
    # Snakemake reads them too: it passes over a key that is there twice, and says neither file nor line of what it cannot read.
    check_yaml("config.yaml", *map(os.path.relpath, workflow.overwrite_configfiles))
except UserError as error:
    print(f"directcm: error: {error}", file=sys.stderr, flush=True)
    sys.exit(2)


configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/teacher.smk"
include: "workflow/rules/targets.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/sample.smk"
include: "workflow/rules/edit.smk"
include: "workflow/rules/metrics.smk"
include: "workflow/rules/theory.smk"
include: "workflow/rules/scopes.smk"
include: "workflow/rules/analysis.smk"
include: "workflow/rules/experiments.smk"
include: "workflow/rules/why.smk"


if workflow.remote_exec:
    leave_finished()


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        results_of(DEFAULT_SCOPE),
    message:
        f"all: the results are in {OUT}"


rule paper:
    input:
        results_of("paper"),
    message:
        f"paper: every table and figure is in {OUT}"
