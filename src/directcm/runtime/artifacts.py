"""Artefacts: folders that are written whole or not at all, and checked before they are trusted.

A folder holds its files, `checksums.csv` (path, size, sha256 of each) and `manifest.json`, which is
small, free of times and machine names, and covers `checksums.csv`; equal bytes give equal manifests.
`provenance.json` (commit, versions, machine, seconds since the process began) lies beside them, not covered.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import platform
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from directcm.config import Run
from directcm.errors import UserError
from directcm.runtime import environment

if TYPE_CHECKING:
    import numpy as np
    import torch

# A caption may be long; the default stops at 131,072 characters.
csv.field_size_limit(2**31 - 1)
FORMAT = 1
_STARTED = time.time()
_NODE = re.sub(r"[^A-Za-z0-9]+", "", platform.node()) or "here"
MANIFEST = "manifest.json"
CHECKSUMS = "checksums.csv"
PROVENANCE = "provenance.json"
LOCATION = "location.json"
# What `directcm adopt` has noted on the files of a folder.
NOTES = "adopted.json"
# Digests of older code whose unfinished work this process goes on with, for its provenance (directcm.runtime.unchanged).
CONTINUED: list[str] = []
# The variable that says where this process's log lies, for its provenance.
LOG = "DIRECTCM_LOG"
# Of data read from outside the project: name, size and sha256 of each file that it was.
SOURCES = "sources.csv"
# Not covered by the manifest: where files outside the folder lie on this machine, what they were (the same pictures from
# another archive are the same data), and a student's model card, which is written into its folder later, when its metrics are known.
_UNCOVERED = {MANIFEST, CHECKSUMS, PROVENANCE, LOCATION, SOURCES, NOTES, "README.md"}


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Have a file's bytes, or a folder's names, on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file atomically: a temporary name in the same folder, flushed, then renamed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def dumps(value: Any) -> str:
    """Canonical JSON: sorted keys, two spaces, no NaN, a final newline."""
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def write_json(path: str | Path, value: Any) -> None:
    """Write canonical JSON atomically."""
    write_text(path, dumps(value))


@contextmanager
def _reading(path: str | Path, what: str, *damage: type[Exception]) -> Iterator[None]:
    """While the block reads a file: that it is missing, or not `what`, is a UserError naming it. `damage`: errors that say so."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the step that makes it") from None
    except damage as error:
        raise UserError(f"{path}: not {what} ({error}); delete it and run again") from None


def read_json(path: str | Path) -> Any:
    """Read JSON; a missing or malformed file is a UserError naming it."""
    with _reading(path, "valid JSON", OSError, ValueError, RecursionError):
        return json.loads(Path(path).read_text(encoding="utf-8"))


def write_csv(path: str | Path, rows: list[dict[str, Any]], columns: list[str]) -> None:
    """Write rows as CSV atomically: UTF-8, \\n line ends, None as an empty field."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    # A lone \r ends a row for readers, but is not a reason to quote for the writer.
    careful = csv.DictWriter(buffer, columns, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    for row in rows:
        (careful if any("\r" in str(value) for value in row.values()) else writer).writerow(row)
    write_text(path, buffer.getvalue())


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """Read CSV rows as dictionaries of text; a missing or malformed file is a UserError naming it."""
    with (
        _reading(path, "a readable CSV file", OSError, csv.Error, UnicodeDecodeError),
        open(path, newline="", encoding="utf-8") as file,
    ):
        return list(csv.DictReader(file))


def save_tensors(path: str | Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors to one safetensors file atomically."""
    from safetensors.torch import save

    write_bytes(path, save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, {"format": "pt"}))


def load_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file; damage is a UserError naming the file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with _reading(path, "a readable safetensors file", OSError, SafetensorError):
        return load_file(str(path))


def load_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Read a safetensors file as numpy arrays, without importing torch."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    # AttributeError: a dtype that numpy has not.
    with _reading(path, "a readable safetensors file", OSError, SafetensorError, AttributeError):
        return load_file(str(path))


@dataclass(eq=False)
class Artifact:
    """A checked artefact folder, as `open_artifact` returns it."""

    folder: Path
    manifest: dict[str, Any]
    _checked: set[str] = field(default_factory=set)

    @property
    def kind(self) -> str:
        """What it is: "data", "teacher", "latents" …"""
        return self.manifest["kind"]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over every file's checksum: equal for equal bytes."""
        return self.manifest["checksums_sha256"]

    @property
    def counts(self) -> dict[str, Any]:
        """What was counted while it was made (items, teacher forwards …)."""
        return self.manifest["counts"]

    @property
    def run(self) -> Run:
        """The run that a student is of."""
        return Run.of(self.json("student.json").get("run"), f"{self.folder}: its run", "train it again")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings it was made with."""
        return self.manifest["settings"]

    @cached_property
    def checksums(self) -> dict[str, tuple[int, str]]:
        """Relative path → (size in bytes, sha256)."""
        return {row["path"]: (int(row["size"]), row["sha256"]) for row in read_csv(self.folder / CHECKSUMS)}

    def file(self, name: str) -> Path:
        """The path of a file whose size and sha256 have been checked (once per Artifact)."""
        path = self.folder / name
        if name not in self.checksums:
            raise UserError(f"{path}: not listed in {self.folder / CHECKSUMS}; run the step again")
        if name not in self._checked:
            size, digest = self.checksums[name]
            if not path.is_file():
                raise UserError(f"{path}: missing though its manifest lists it; delete the folder and run again")
            if path.stat().st_size != size or sha256(path) != digest:
                raise UserError(
                    f"{path}: does not match its checksum (truncated or changed); delete the folder and run again"
                )
            self._checked.add(name)
        return path

    def files(self, prefix: str = "") -> list[str]:
        """The names of all files whose names begin so, each checked."""
        names = [name for name in self.checksums if name.startswith(prefix)]
        for name in names:
            self.file(name)
        return names

    def verify(self) -> Artifact:
        """Check every file; returns self."""
        self.files()
        return self

    def json(self, name: str) -> Any:
        """A checked JSON file's content."""
        return read_json(self.file(name))

    def csv(self, name: str) -> list[dict[str, str]]:
        """A checked CSV file's rows."""
        return read_csv(self.file(name))

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        """A checked safetensors file's tensors."""
        return load_tensors(self.file(name))

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """A checked safetensors file's tensors as numpy arrays."""
        return load_arrays(self.file(name))


def open_artifact(path: str | Path, kind: str) -> Artifact:
    """Open a folder (or its manifest.json) as an artefact of a kind; raises UserError where it is not one."""
    path = Path(path)
    folder = path.parent if path.name == MANIFEST else path
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{folder / MANIFEST}: not a manifest of format {FORMAT}; delete the folder and run again")
    for key, what in (("settings", dict), ("inputs", dict), ("counts", dict), ("checksums_sha256", str)):
        if not isinstance(manifest.get(key), what):
            raise UserError(f"{folder / MANIFEST}: has no {key}; delete the folder and run again")
    if manifest.get("kind") != kind:
        raise UserError(f"{folder / MANIFEST}: is a {manifest.get('kind')!r}, expected a {kind!r}")
    if not (folder / CHECKSUMS).is_file() or sha256(folder / CHECKSUMS) != manifest.get("checksums_sha256"):
        raise UserError(f"{folder / CHECKSUMS}: does not match its manifest; delete the folder and run again")
    return Artifact(folder, manifest)


@dataclass
class Writer:
    """A folder being made, as `new_artifact` yields it: write files under `path`, set `counts` and `provenance`."""

    path: Path
    counts: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __truediv__(self, name: str) -> Path:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


@contextmanager
def new_artifact(
    folder: str | Path,
    kind: str,
    *,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Artifact] | None = None,
) -> Iterator[Writer]:
    """Make an artefact folder: all of it appears under its name, or nothing does.

    `settings` (JSON) says what it was made with, `inputs` what it was made from: their fingerprints
    are recorded. Leftovers of killed runs of the same folder are removed.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for stale in folder.parent.glob(f".{folder.name}.tmp-*"):
        if not _alive(stale):
            shutil.rmtree(stale, ignore_errors=True)
    temporary = folder.parent / f".{folder.name}.tmp-{_NODE}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    writer = Writer(temporary)
    try:
        yield writer
        names = sorted(p.relative_to(temporary).as_posix() for p in temporary.rglob("*") if p.is_file())
        covered = [name for name in names if name not in _UNCOVERED]
        _seal(temporary, kind, covered, settings, inputs, writer.counts, writer.provenance)
        # Side by side, for a file system commits many at once: a thousand PNGs in a fifth of a second in place of one to four.
        with ThreadPoolExecutor(32) as pool:
            list(pool.map(sync, [temporary / name for name in names]))
        _put(temporary, folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _seal(
    folder: Path,
    kind: str,
    names: Sequence[str],
    settings: Mapping[str, Any],
    inputs: Mapping[str, Artifact] | None,
    counts: Mapping[str, Any],
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write the checksums of files of a folder, provenance (`more`: of its own), and last the manifest, which makes it an artefact."""
    from directcm.runtime.progress import counted

    files = [(name, folder / name) for name in names]
    rows = [{"path": name, "size": path.stat().st_size, "sha256": sha256(path)} for name, path in files]
    write_csv(folder / CHECKSUMS, rows, ["path", "size", "sha256"])
    seconds = round(time.time() - _STARTED, 3)
    made = {"seconds": seconds, **({"counted": work} if (work := counted()) else {})}
    write_json(folder / PROVENANCE, {**provenance(), **made, **(more or {})})
    write_json(
        folder / MANIFEST,
        {
            "format": FORMAT,
            "kind": kind,
            "files": len(rows),
            "bytes": sum(row["size"] for row in rows),
            "checksums_sha256": sha256(folder / CHECKSUMS),
            "settings": dict(settings),
            "inputs": {name: item.fingerprint for name, item in (inputs or {}).items()},
            "counts": counts,
        },
    )


COLLECTION = "collection"


def new_collection(
    folder: str | Path,
    of: str,
    parts: Sequence[str],
    *,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Artifact] | None = None,
) -> None:
    """Seal artefacts of kind `of`, the sub-folders `parts` of a folder, as one: its manifest covers their manifests.

    A sub-folder that is none of them is removed, so that nothing old can be taken for a part.
    """
    folder = Path(folder)
    if len(set(parts)) != len(parts):
        raise ValueError("a part is named twice")
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith(".") and path.name not in parts:
            shutil.rmtree(path)
    for name in parts:
        open_artifact(folder / name, of)
    for name in (MANIFEST, NOTES):
        (folder / name).unlink(missing_ok=True)
    manifests = [f"{name}/{MANIFEST}" for name in parts]
    settings = {"of": of, "parts": list(parts), **settings}
    _seal(folder, COLLECTION, manifests, settings, inputs, {"parts": len(parts)})


def open_collection(path: str | Path, of: str) -> dict[str, Artifact]:
    """The parts of a collection by name, in order, each checked; UserError where it is not a collection of kind `of`."""
    whole = open_artifact(path, COLLECTION)
    if whole.settings.get("of") != of:
        raise UserError(f"{whole.folder / MANIFEST}: is a collection of {whole.settings.get('of')!r}, expected {of!r}")
    names = whole.settings.get("parts")
    if not isinstance(names, list) or sorted(whole.checksums) != sorted(f"{n}/{MANIFEST}" for n in names):
        raise UserError(
            f"{whole.folder / MANIFEST}: its parts are not those of {CHECKSUMS}; delete the folder and run again"
        )
    return {name: open_artifact(whole.file(f"{name}/{MANIFEST}"), of) for name in names}


def _put(made: Path, folder: Path) -> None:
    """Rename a finished folder to its place; what is there, put there a moment ago by another process perhaps, makes way."""
    trash = made.with_name(f"{made.name}-old")
    while True:
        try:
            os.rename(made, folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        with suppress(FileNotFoundError):
            os.rename(folder, trash)
        shutil.rmtree(trash, ignore_errors=True)


def _alive(temporary: Path) -> bool:
    """Whether a temporary folder's process may still be writing it. Another machine's is given a day."""
    node, _, pid = temporary.name.partition(".tmp-")[2].removesuffix("-old").rpartition("-")
    try:
        if node != _NODE:
            return time.time() - temporary.stat().st_mtime < 86_400
        with suppress(PermissionError):
            os.kill(int(pid), 0)
    except (ValueError, OSError):
        return False
    return True


def _gpu() -> dict[str, Any]:
    """The GPU of this process, its memory and the most that tensors took of it, GiB; nothing where none was used."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    about = torch.cuda.get_device_properties(torch.cuda.current_device())
    gib = {"gpu_gib": about.total_memory, "gpu_peak_gib": torch.cuda.max_memory_allocated()}
    return {"gpu": about.name, **{name: round(found / 2**30, 2) for name, found in gib.items()}}


def provenance() -> dict[str, Any]:
    """Commit, versions and machine of this process: facts that do not belong in a manifest."""
    import resource
    import subprocess
    from importlib.metadata import version

    def git(*args: str) -> str | None:
        try:
            # Of the folder that we are in: a hook's or a dotfile manager's GIT_DIR names another repository.
            clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
            done = subprocess.run(["git", *args], capture_output=True, text=True, check=True, timeout=10, env=clean)
            return done.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return None

    status = git("status", "--porcelain", "--untracked-files=no")
    return {
        "commit": git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": platform.node(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "environment": environment.acting(),
        "log": os.environ.get(LOG),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "slurm_node": os.environ.get("SLURMD_NODENAME"),
        # A fork of the import helper (directcm.runtime.warm).
        "forked": "DIRECTCM_FORKED" in os.environ,
        **({"continued": list(CONTINUED)} if CONTINUED else {}),
        # Kilobytes on Linux.
        "max_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        **_gpu(),
        "python": platform.python_version(),
        "versions": {
            name: version(name)
            for name in ("directcm", "torch", "diffusers", "transformers", "accelerate", "peft", "snakemake", "numpy")
        },
    }
