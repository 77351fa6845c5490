"""The drill: verbs are killed with -9 at random moments and started again, until their artefacts are there, byte for byte.

make drill                                              # 24 kills over six verbs, the table on the screen
python -m tests.faults.drill FOLDER --kills 4 --seed 1  # FOLDER: a copy of the repository in which the smoke preset has run
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from directcm.errors import UserError
from directcm.runtime.artifacts import MANIFEST, open_artifact, read_json, sha256
from tests.runs import SMOKE, copy_repository, make_run

VERBS = ("teacher", "encode", "targets", "train", "sample", "features")


@dataclass
class Outcome:
    """What a verb went through: `moments` in seconds after its start, `found` what lay there after each kill."""

    verb: str
    moments: list[float] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    seconds: float = 0.0
    bytes: int = 0
    bytes_lost: int = 0
    leftovers: list[str] = field(default_factory=list)


def commands(folder: Path) -> dict[str, str]:
    """Verb → the shell command of its first job in the smoke preset, as Snakemake would run it."""
    done = make_run(folder)("snakemake", "-n", "--cores", "2", "--forceall", "--printshellcmds", *SMOKE)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, str] = {}
    for line in (done.stdout + done.stderr).splitlines():
        match = re.match(r"(?:Shell command: )?\s*directcm (\w+) ", line)
        if match:
            found.setdefault(match[1], line[line.index("directcm") :])
    return {verb: found[verb] for verb in VERBS}


def option(argv: Sequence[str], name: str) -> str | None:
    """The value of a flag."""
    return argv[argv.index(name) + 1] if name in argv else None


def differing(a: Path, b: Path) -> int:
    """Bytes of the files that artefact `a` lists which `b` has not, or not so."""
    lost = 0
    for name, (size, digest) in open_artifact(a, read_json(a / MANIFEST)["kind"]).checksums.items():
        other = b / name
        if not other.is_file() or sha256(other) != digest:
            lost += size
    return lost


def state(out: Path) -> str:
    """What lies at an artefact's place: nothing, or a whole one; a part of one fails the drill."""
    if not out.exists():
        return "nothing"
    open_artifact(out, read_json(out / MANIFEST)["kind"]).verify()
    return "whole"


def finished(scratch: Path) -> int:
    """Blocks and checkpoints that the next start finds."""
    if not scratch.exists():
        return 0
    return sum(1 for _ in scratch.rglob("block-*.json")) + sum(p.is_dir() for p in scratch.rglob("checkpoint-*"))


def strays(out: Path, scratch: Path | None) -> list[str]:
    """Temporary files and folders that were left behind."""
    near = [*out.parent.glob(f".{out.name}.tmp*"), *out.rglob(".*.tmp*")] if out.exists() else []
    return [p.name for p in near] + ([p.name for p in scratch.rglob(".*.tmp*")] if scratch and scratch.exists() else [])


def drill(folder: Path, verb: str, command: str, kills: int, chance: random.Random) -> Outcome:
    """Run one verb undisturbed, then kill it `kills` times at moments drawn over the rest of that after its imports, then let it end; compare."""
    argv = shlex.split(command)
    # Rules name an artefact by its manifest.
    out, scratch = folder / str(option(argv, "--out")).removesuffix(f"/{MANIFEST}"), option(argv, "--scratch")
    place = folder / scratch if scratch else None
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    outcome = Outcome(verb)

    def forget() -> None:
        shutil.rmtree(out, ignore_errors=True)
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            argv, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )

    def finish() -> None:
        running = start()
        _, error = running.communicate()
        assert running.returncode == 0, error.decode()[-2000:]

    with tempfile.TemporaryDirectory() as kept:
        forget()
        began = time.monotonic()
        finish()
        outcome.seconds = time.monotonic() - began
        undisturbed = Path(kept) / "artefact"
        shutil.copytree(out, undisturbed)
        outcome.bytes = sum(
            size for size, _ in open_artifact(out, read_json(out / MANIFEST)["kind"]).checksums.values()
        )
        forget()
        for _ in range(kills):
            # Before that a verb only imports.
            moment = chance.uniform(0.3, 1) * outcome.seconds
            running = start()
            time.sleep(moment)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.communicate()
            outcome.moments.append(moment)
            outcome.found.append(f"{state(out)}, {finished(place)} kept" if place is not None else state(out))
            # The next kill is to hit work again, not a command that has nothing left to do.
            if out.exists():
                forget()
        finish()
        state(out)
        outcome.bytes_lost = differing(undisturbed, out)
        if sha256(undisturbed / MANIFEST) != sha256(out / MANIFEST):
            outcome.bytes_lost = max(outcome.bytes_lost, 1)
        outcome.leftovers = strays(out, place)
    return outcome


def table(outcomes: Sequence[Outcome]) -> str:
    """The drill as a Markdown table."""
    lines = [
        "| verb | alone, s | killed with -9 after, s | at its place after each, blocks and checkpoints in scratch | artefact, bytes | bytes lost |",
        "|---|---|---|---|---|---|",
    ]
    for o in outcomes:
        moments = ", ".join(f"{m:.1f}" for m in o.moments)
        lines.append(
            f"| {o.verb} | {o.seconds:.1f} | {moments} | {'; '.join(o.found)} | {o.bytes:,} | {o.bytes_lost} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="a copy of the repository where the smoke preset has run")
    parser.add_argument("--kills", type=int, default=4, help="per verb")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    a = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="directcm-drill-") as temporary:
        folder = a.folder
        if folder is None:
            folder = copy_repository(Path(temporary) / "copy")
            done = make_run(folder)("snakemake", "--cores", "2", *SMOKE)
            if done.returncode:
                print(done.stderr[-3000:], file=sys.stderr)
                return 1
        chance = random.Random(a.seed)
        outcomes = []
        for verb, command in commands(folder).items():
            try:
                outcomes.append(drill(folder, verb, command, a.kills, chance))
            except UserError as error:
                print(f"{verb}: after a kill: {error}", file=sys.stderr)
                return 1
            print(f"{verb}: {a.kills} kills, {outcomes[-1].bytes_lost} bytes lost", file=sys.stderr, flush=True)
        print(table(outcomes))
    return int(any(o.bytes_lost or o.leftovers for o in outcomes))


if __name__ == "__main__":
    raise SystemExit(main())
