#!/usr/bin/env python3
"""The gate of a refactoring: what a run's results folder holds, to be the same before and after.

    python tests/same_results.py write results/smoke results/smoke_edm --to before.json
    python tests/same_results.py compare results/smoke results/smoke_edm --with before.json

Of every CSV, TeX, HTML, JSON and Markdown file its content is hashed, of arrays, weights and images the bytes. What says when, where, how
fast and by which code is left out: seconds, memory, dates, commits, versions, digests of code, and a page's pictures, which lie beside it.
Exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

# Logs, timings, and Snakemake's own records.
APART = ("logs", "benchmarks", "scratch", "record", "tensorboard")
# Files that are about nothing else; the picture has seconds on one of its axes.
TIMED = ("provenance.json", "location.json", "compute.png")
HASHED = (".csv", ".tex", ".html", ".json", ".md", ".safetensors", ".npy", ".npz", ".png", ".txt")
# Keys and columns that say when, where, how fast, or by which code.
TOLD = re.compile(
    r"second|minute|hour|memory|rss|_mib|date|commit|dirty|code|version|platform|python|cpu|host|location|path"
)
# The same in pages: hexadecimal digests, dates, durations, sizes, release numbers.
IN_TEXT = re.compile(
    r"\b[0-9a-f]{7,64}\b|\d{4}-\d\d-\d\d(?:[T ][\d:]+Z?)?|\b\d[\d.,]*(?:e-?\d+)?\s?(?:ms|s|min|h|seconds?|minutes?|hours?|KiB|MiB|GiB|MB|kB)\b"
)


def without(value: Any) -> Any:
    """A JSON value without the keys of TOLD."""
    if isinstance(value, dict):
        return {k: without(v) for k, v in sorted(value.items()) if not TOLD.search(k.lower())}
    return [without(v) for v in value] if isinstance(value, list) else value


def content(path: Path, parts: tuple[str, ...]) -> bytes:
    """What of a file is hashed."""
    raw = path.read_bytes()
    if path.suffix not in (".csv", ".tex", ".html", ".json", ".md"):
        return raw
    text = raw.decode()
    if path.suffix == ".csv" and parts[0] != "cards":  # those are digests of pages that name commits
        rows = [row for row in csv.DictReader(io.StringIO(text)) if row.get("cost") != "seconds"]
        return json.dumps([without(row) for row in rows]).encode()
    if path.suffix == ".json":
        return json.dumps(without(json.loads(text)), sort_keys=True).encode()
    if parts[0] in ("costs", "provenance"):
        # A page of timings: a bare number is one too.
        text = re.sub(r">[\d.,\s]+<", "><", text)
    text = re.sub(r" with uncommitted changes|<p><strong>Some results were made with uncommitted.*?</p>", "", text)
    return IN_TEXT.sub("_", re.sub(r'"data:image/[^"]*"', "", text)).encode()


def digests(folders: list[Path]) -> dict[str, str]:
    """Name below the folder's parent → SHA-256."""
    found = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            parts = path.relative_to(folder).parts
            if path.is_file() and parts[0] not in APART and path.suffix in HASHED and path.name not in TIMED:
                found[path.relative_to(folder.parent).as_posix()] = hashlib.sha256(content(path, parts)).hexdigest()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("write", "compare"))
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--to", type=Path)
    parser.add_argument("--with", dest="before", type=Path)
    given = parser.parse_args()
    now = digests(given.results)
    if given.what == "write":
        given.to.write_text(json.dumps(now, indent=0, sort_keys=True))
        print(f"{len(now)} files written to {given.to}")
        return 0
    before = json.loads(given.before.read_text())
    differ = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    print(f"{len(before)} files before, {len(now)} now, {len(differ)} differ")
    for name in differ[:50]:
        print("gone" if name not in now else "new" if name not in before else "differs", name)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
