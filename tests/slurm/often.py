"""`snakemake`, whose SLURM executor looks at the queue every second.

By itself it waits ten seconds longer after each look that finds no job ended, whatever it was told: on a test cluster most of a run is then
waiting for the next look. Nothing else is changed, and the jobs that it submits start the Snakemake that is installed.
"""

import sys

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor

Executor.next_seconds_between_status_checks = property(lambda self: 1, lambda self, seconds: None)

if __name__ == "__main__":
    sys.exit(main())
