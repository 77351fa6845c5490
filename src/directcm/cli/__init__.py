"""The command line: one verb per rule. Parse, call, report errors; no logic."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import traceback
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import IO, Any

from directcm.errors import UserError
from directcm.runtime import environment, stop

# What needs the models of the configuration is imported inside functions: a job that the import helper runs for its caller spares
# the caller that.


class _Tee:
    """Standard error that is written to a log as well."""

    def __init__(self, *streams: IO[str]) -> None:
        self.streams = streams

    def write(self, text: str) -> int:
        for stream in self.streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self.streams:
            stream.flush()

    def isatty(self) -> bool:
        return False


class _Version(argparse.Action):
    """The version, which stands in pyproject.toml and so in the package's metadata. Looked up only where it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"directcm {version('directcm')}")
        except PackageNotFoundError:
            parser.exit(2, "directcm: error: the package is not installed, so its version is not known; make install\n")
        parser.exit()


def parser(wanted: Collection[str] | None = None) -> argparse.ArgumentParser:
    """All verbs, and the flags of those that are wanted: of all, unless told."""
    from directcm.cli import declare
    from directcm.cli.verbs import VERBS

    top = declare.Parser(prog="directcm", description=(__doc__ or "").partition("\n")[0])
    top.add_argument("--version", action=_Version, nargs=0, help="print the version")
    each = top.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=declare.Parser)
    for name, verb in VERBS.items():
        text = (verb.__doc__ or "").partition("\n")[0].removesuffix(".")
        text = text[:1].lower() + text[1:]
        one = each.add_parser(name, help=text, description=text)
        if wanted is None or name in wanted:
            declare.add(one, verb)
            one.add_argument("--log", type=Path, help="file that gets what is printed as well")
    return top


def _of_the_system(error: Exception, out: Path | Sequence[Path] | None) -> str | None:
    """What the system refused, as a user's line; None where it is something else."""
    out = out[0] if isinstance(out, list) else out
    # Libraries pass a full disk on in errors of their own, without a file's name.
    if any(word in str(error) for word in ("No space left on device", "Disk quota exceeded")):
        return f"{getattr(error, 'filename', None) or out}: the disk is full; make room and run again, what is finished stays"
    if isinstance(error, OSError) and error.filename is not None and not isinstance(error, ConnectionError):
        return f"{error.filename}: {error.strerror}"
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; 0 on success, 2 on a user's mistake (one line), 75 when told to stop, 1 on anything else (traceback)."""
    # torch and diffusers make a million objects while they are imported: looking for garbage among them every 700 is a
    # quarter of a job's start.
    gc.set_threshold(200_000)
    environment.start()
    from directcm.cli import declare
    from directcm.cli.verbs import VERBS

    argv = sys.argv[1:] if argv is None else argv
    arguments = parser(argv).parse_args(argv)
    plain = sys.stderr
    log = None
    try:
        # Of several processes the first writes the log; the others' lines come through their launcher.
        if arguments.log is not None and os.environ.get("RANK", "0") == "0":
            arguments.log.parent.mkdir(parents=True, exist_ok=True)
            log = open(arguments.log, "w", encoding="utf-8")  # noqa: SIM115
            os.environ["DIRECTCM_LOG"] = str(arguments.log)
            sys.stderr = _Tee(plain, log)
        with stop.listening():
            declare.call(VERBS[arguments.verb], vars(arguments))
        if stop.NOTES in os.environ:
            from directcm.runtime import finished

            out = getattr(arguments, "out", None)
            # Of a verb that makes several artefacts there are several.
            finished.note([one for one in (out if isinstance(out, list) else [out]) if isinstance(one, Path)], argv)
        return 0
    except stop.Stopped as stopped:
        print(f"directcm {arguments.verb}: {stopped}", file=sys.stderr, flush=True)
        return stop.leave()
    except UserError as error:
        print(f"directcm {arguments.verb}: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 1
    except Exception as error:
        line = _of_the_system(error, getattr(arguments, "out", None))
        if line is None:
            traceback.print_exc(file=sys.stderr)
            return 1
        print(f"directcm {arguments.verb}: error: {line}", file=sys.stderr)
        return 2
    finally:
        sys.stderr = plain
        if log is not None:
            log.close()


def entry() -> int:
    """The program: a verb in a fork of the import helper (directcm.runtime.warm) where there is one, else here."""
    if "DIRECTCM_WARM" in os.environ:
        from directcm.runtime import warm

        status = warm.ask(sys.argv[1:])
        if status is not None:
            return status
    return main()
