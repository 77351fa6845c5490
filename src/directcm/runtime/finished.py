"""What a SLURM job has finished is not made again when the job is started once more.

Of several jobs that are one SLURM job (`groups` in slurm/config.yaml) Snakemake knows only whether all are done: where one fails it
deletes the manifests of the others and starts all of them again, and so it does where SLURM has put the job back into its queue. So
each verb notes what it has finished, and what that was made from, in a folder (NOTES) of this run of Snakemake, so that what another
run asks for anew is made anew. Before a job starts, `left` says which of its parts still are to be made.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from directcm.runtime.artifacts import CHECKSUMS, MANIFEST, dumps, read_json, sha256, write_json, write_text
from directcm.runtime.stop import NOTES


def _place(manifest: Path) -> Path | None:
    folder = os.environ.get(NOTES)
    name = hashlib.sha256(os.path.abspath(manifest).encode()).hexdigest()
    return Path(folder, f"{name}.json") if folder else None


def note(outs: Sequence[Path], arguments: Sequence[str]) -> None:
    """Note that the artefacts in these folders are finished; `arguments`: the verb's, which name its inputs by their manifests."""
    made = [out / MANIFEST for out in outs]
    named = [Path(one) for one in arguments if Path(one).name == MANIFEST and Path(one) not in made]
    inputs = {str(path): sha256(path) for path in named if path.is_file()}
    for manifest in made:
        if (place := _place(manifest)) is not None and manifest.is_file():
            write_json(place, {"manifest": read_json(manifest), "inputs": inputs})


def restored(manifest: Path) -> bool:
    """Whether an artefact is noted as finished and is what it was, and so are its inputs; then its manifest is there again."""
    place = _place(manifest)
    if place is None or not place.is_file():
        return False
    noted = read_json(place)
    checksums = manifest.parent / CHECKSUMS
    files = [(checksums, noted["manifest"]["checksums_sha256"])]
    files += [(Path(path), digest) for path, digest in noted["inputs"].items()]
    if not all(path.is_file() and sha256(path) == digest for path, digest in files):
        return False
    if not manifest.is_file() or read_json(manifest) != noted["manifest"]:
        write_text(manifest, dumps(noted["manifest"]))
    return True


def left(jobs: Sequence[Sequence[Path]]) -> list[int]:
    """Which of these jobs, each the manifests that it makes, are not finished: all but those that are `restored`.

    Where all are it is the one that was finished last, for Snakemake has to be given one.
    """
    done: list[int] = []
    # An artefact is restored before what is made from it.
    while more := [i for i, made in enumerate(jobs) if i not in done and all(map(restored, made))]:
        done += more
    rest = [i for i in range(len(jobs)) if i not in done]
    return rest or [max(done, key=lambda i: max(place.stat().st_mtime for place in map(_place, jobs[i]) if place))]


def _words(arguments: Sequence[str], flag: str) -> slice:
    """Where a flag's values stand; they end at the next flag."""
    first = arguments.index(flag) + 1 if flag in arguments else len(arguments)
    last = next((i for i in range(first, len(arguments)) if arguments[i].startswith("--")), len(arguments))
    return slice(first, last)


def trimmed(arguments: Sequence[str], made: Callable[[str, Mapping[str, str]], Sequence[Path]]) -> list[str] | None:
    """Snakemake's arguments in a SLURM job, without jobs of --target-jobs that are finished; None where all are left.

    `made(rule, wildcards)`: the manifests that a job makes. --target-jobs RULE:NAME=VALUE,… names the jobs, and --allowed-rules
    the rules of all of them; both are as Snakemake 9 gives them.
    """
    at, allowed = _words(arguments, "--target-jobs"), _words(arguments, "--allowed-rules")
    jobs = []
    for job in arguments[at]:
        rule, _, pairs = job.partition(":")
        jobs.append((rule, dict(pair.split("=", 1) for pair in pairs.split(",") if pair)))
    if len(jobs) < 2 or len(rest := left([made(*job) for job in jobs])) == len(jobs):
        return None
    out = list(arguments)
    rules = {jobs[i][0] for i in rest}
    # The later one first, so that the other stays in its place.
    kept = [(at, [arguments[at][i] for i in rest]), (allowed, [rule for rule in arguments[allowed] if rule in rules])]
    for where, words in sorted(kept, key=lambda one: -one[0].start):
        out[where] = words
    gone = sorted({rule for rule, _ in jobs} - rules)
    print(f"directcm: finished by an earlier start of this job: {', '.join(gone) or 'some jobs'}", file=sys.stderr)
    return out
