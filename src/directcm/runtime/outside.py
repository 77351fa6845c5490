"""Files outside the results that a run is made from: what they were, so that a changed one is noticed.

A row says a file's name, its size in bytes and its SHA-256; a data artefact keeps its rows in sources.csv. Reading every
picture on every start of Snakemake would take long, so digests are kept by path, size and times (`kept`), as git keeps them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from directcm.errors import UserError
from directcm.runtime.artifacts import LOCATION, Artifact, read_json, sha256, write_text

SOURCE_COLUMNS = ["name", "size", "sha256"]
# Beside Snakemake's own records in the working folder; deleting it costs one reading.
KEPT = Path(".snakemake/directcm/digests.json")


def rows(files: Sequence[tuple[str, Path]], kept: Path | None = None) -> list[dict[str, Any]]:
    """Name, size and SHA-256 of each (name, path), in order; those of unchanged files from `kept`, which is brought up to date."""
    found: Any = {}
    if kept is not None:
        with suppress(UserError):
            found = read_json(kept)
    known = found if isinstance(found, dict) else {}
    paths = [path.resolve() for _, path in files]

    def entry(path: Path) -> list[Any]:
        stat = path.stat()
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        old = known.get(str(path))
        return old if isinstance(old, list) and len(old) == 5 and old[:4] == stamp else [*stamp, sha256(path)]

    with ThreadPoolExecutor(8) as pool:
        entries = list(pool.map(entry, paths))
    now = known | dict(zip(map(str, paths), entries, strict=True))
    if kept is not None and now != known:
        # A run that may not write here reads them again next time.
        with suppress(OSError):
            write_text(kept, json.dumps(now))
    return [{"name": name, "size": e[0], "sha256": e[4]} for (name, _), e in zip(files, entries, strict=True)]


def digest(found: Iterable[Mapping[str, Any]]) -> str:
    """One SHA-256 over rows' names and digests."""
    text = "".join(f"{row['name']}\0{row['sha256']}\0" for row in found)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def differences(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[str]:
    """What has changed between two lists of rows, a phrase per file."""
    then = {row["name"]: row["sha256"] for row in before}
    here = {row["name"]: row["sha256"] for row in now}
    return [
        *(f"{name} has changed" for name in then if name in here and here[name] != then[name]),
        *(f"{name} is gone" for name in then if name not in here),
        *(f"{name} is new" for name in here if name not in then),
    ]


def changes(pinned: Artifact) -> list[str] | None:
    """What has changed of the files that a pinned teacher's artefact names, a phrase each; None where none of its folders is here."""
    places = read_json(pinned.folder / LOCATION)
    here = {part: Path(place) for part, place in places.items() if place is not None and Path(place).is_dir()}
    if not here:
        return None
    files = [(here[row["part"]] / row["path"], row["sha256"]) for row in pinned.csv("files.csv") if row["part"] in here]
    return [
        f"{path} has changed" if path.is_file() else f"{path} is gone"
        for path, digest in files
        if not path.is_file() or sha256(path) != digest
    ]
