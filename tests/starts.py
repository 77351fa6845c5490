"""Snakemake in a fork of a process that has imported it: of a plan's two seconds of work, importing the same libraries is more than half.

The fork becomes what a shell would start: its arguments, folder, environment, streams and module path are the caller's, and of this
project nothing was imported before. The process that forks runs this file by itself, and takes a request a line.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import select
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

# Snakemake, and what it imports later for any workflow.
LIBRARIES = (
    "snakemake.cli",
    "snakemake.profiles",
    "docutils.frontend",
    "docutils.parsers.rst.directives",
    "grimp",
    "jinja2",
    "pydantic.root_model",
    "pygments.formatters.html",
    "requests",
    "smart_open",
    "yte",
)
# This process's own, started with the first request; it ends when its standard input does.
_servers: list[subprocess.Popen[str]] = []


def _run(argv: Sequence[str], folder: str, environment: Mapping[str, str], streams: Sequence[str]) -> int:
    """In the fork: go where a shell would have started it, and run; its exit status."""
    for fd, path in enumerate((os.devnull, *streams)):
        file = os.open(path, os.O_RDWR)
        os.dup2(file, fd)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.path_importer_cache.clear()
    sys.argv = list(argv)
    from snakemake.cli import main

    assert not any(name.split(".")[0] == "directcm" for name in sys.modules)
    try:
        main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        # As at an interpreter's end.
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def serve() -> None:
    """Fork for every line: a JSON list of what `_run` takes. Answers with its exit status."""
    for name in LIBRARIES:
        # One that a later version does without costs time, and nothing else.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = _run(*json.loads(line))
            except BaseException:
                traceback.print_exc()
            os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def snakemake(
    argv: Sequence[str], folder: Path, environment: Mapping[str, str], patience: float
) -> subprocess.CompletedProcess[str]:
    """Run `snakemake …` in a folder with an environment, as `subprocess.run` would."""
    if not _servers:
        # -P: this file's folder is nothing that may be imported from. PYTHONPATH is the requests'.
        own = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
        _servers.append(
            subprocess.Popen(
                [sys.executable, "-P", __file__],
                env=own,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
    to, back = _servers[0].stdin, _servers[0].stdout
    assert to is not None and back is not None
    with tempfile.TemporaryDirectory() as kept:
        streams = [Path(kept, "stdout"), Path(kept, "stderr")]
        for path in streams:
            path.touch()
        print(json.dumps([argv, str(folder), dict(environment), [str(path) for path in streams]]), file=to, flush=True)
        if not select.select([back], [], [], patience)[0]:
            _servers.pop().kill()
            raise subprocess.TimeoutExpired(list(argv), patience)
        status = int(back.readline())
        out, error = (path.read_text(encoding="utf-8") for path in streams)
    return subprocess.CompletedProcess(list(argv), status, out, error)


if __name__ == "__main__":
    serve()
