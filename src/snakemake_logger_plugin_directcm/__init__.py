"""Says what is wrong with a configuration file before Snakemake reads it, with file and line.

Snakemake reads `--configfile` before any Snakefile, and of a tab, an empty file or a list at its top it says neither which file nor
which line. Plugins are what it imports earlier still: this one looks at the files on the command line, in a folder of this
project alone, and ends with exit code 2 where one cannot be read. As a logger it does nothing, and nobody chooses it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from logging import LogRecord
from pathlib import Path

from snakemake_interface_logger_plugins.base import LogHandlerBase


class LogHandler(LogHandlerBase):
    """What a logger plugin has to have; it writes nothing."""

    writes_to_stream = writes_to_file = False
    has_filter = has_formatter = needs_rulegraph = True

    def emit(self, record: LogRecord) -> None:
        """Write nothing."""


def configfiles(argv: Sequence[str]) -> list[str]:
    """The files of --configfile on Snakemake's command line, which may be given several times and takes several."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--configfile", "--configfiles", nargs="*", action="extend", default=[])
    return parser.parse_known_args(argv)[0].configfile


def check(argv: Sequence[str]) -> None:
    """End with one line and exit code 2 where a configuration file of this project cannot be read."""
    # Another project's files may be meant otherwise.
    if not Path("workflow/claims.yaml").is_file():
        return
    from directcm.config import check_yaml
    from directcm.errors import UserError

    try:
        check_yaml(*(name for name in configfiles(argv) if Path(name).suffix in (".yaml", ".yml")))
    except UserError as error:
        print(f"directcm: error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


# Under another program, a test perhaps, there is no command line of Snakemake's.
if Path(sys.argv[0]).name in ("snakemake", "__main__.py"):
    check(sys.argv[1:])
