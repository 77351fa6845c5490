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
    known: dict[str, Any] = {}
    if kept is not None:
        with suppress(UserError):
            found = read_json(kept)
            known = found if isinstance(found, dict) else {}

    def row(item: tuple[str, Path]) -> tuple[str, list[Any]]:
        path = item[1].resolve()
        stat = path.stat()
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        old = known.get(str(path))
        if isinstance(old, list) and len(old) == 5 and old[:4] == stamp:
            return str(path), old
        return str(path), [*stamp, sha256(path)]

    with ThreadPoolExecutor(8) as pool:
        found_rows = list(pool.map(row, files))
    fresh = dict(found_rows)
    if kept is not None and any(known.get(path) != entry for path, entry in fresh.items()):
        # A run that may not write here reads them again next time.
        with suppress(OSError):
            write_text(kept, json.dumps({**known, **fresh}))
    return [
        {"name": name, "size": entry[0], "sha256": entry[4]}
        for (name, _), (_, entry) in zip(files, found_rows, strict=True)
    ]


def digest(found: Iterable[Mapping[str, Any]]) -> str:
    """One SHA-256 over rows' names and digests."""
    total = hashlib.sha256()
    for row in found:
        total.update(f"{row['name']}\0{row['sha256']}\0".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


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
    if not any(place is not None and Path(place).is_dir() for place in places.values()):
        return None
    out = []
    for row in pinned.csv("files.csv"):
        folder = places.get(row["part"])
        if folder is None or not Path(folder).is_dir():
            continue
        path = Path(folder) / row["path"]
        if not path.is_file():
            out.append(f"{path} is gone")
        elif sha256(path) != row["sha256"]:
            out.append(f"{path} has changed")
    return out
