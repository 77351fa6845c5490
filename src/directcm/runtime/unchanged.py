"""What a release declares unchanged: older code that gives the results of later code, byte for byte (workflow/unchanged.yaml).

Unfinished work of such code is continued (`older`), finished results are kept by `directcm adopt`, which leaves a note of it
beside each file (`adoptions`). Code is named as in Snakemake's records: its modules and their digest (`sources.stamp`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from directcm.config import Block, parse, read_yaml
from directcm.runtime import sources
from directcm.runtime.artifacts import CONTINUED, MANIFEST, NOTES, read_json, sha256

FILE = Path("workflow/unchanged.yaml")
STAMP = rf"[a-z_][\w.]*(?: [a-z_][\w.]*)* @[0-9a-f]{{{sources.DIGITS}}}"
Stamp = Annotated[str, Field(pattern=f"^{STAMP}$")]
Line = Annotated[str, Field(pattern=r"^\S[^\n]*$")]


class Code(Block):
    """Code of other modules or another digest."""

    was: Stamp
    now: Stamp


class Command(Block):
    """A rule's shell command in other words; Snakemake compares it on its own."""

    rule: Line
    was: Line
    now: Line


class Release(Block):
    """What a person has compared."""

    release: Line
    compared: Line = Field(description="How: which runs, on what, by which digest.")
    code: tuple[Code, ...] = ()
    commands: tuple[Command, ...] = ()


class Declarations(Block):
    """The whole file, oldest release first."""

    releases: list[Release]


def declared(root: Path | None = None) -> list[Release]:
    """The releases of workflow/unchanged.yaml; none where there is no such file. Raises UserError for a malformed one."""
    path = (sources.PACKAGE_ROOT if root is None else root) / FILE
    return parse(Declarations, read_yaml(path), str(path)).releases if path.is_file() else []


def older(code: str) -> set[str]:
    """Digests of code that is declared to give the results of code with the digest `code`, by one release or several."""
    pairs = [(pair.was[-sources.DIGITS :], pair.now[-sources.DIGITS :]) for each in declared() for pair in each.code]
    found, before = set[str](), {code}
    while before:
        before = {was for was, now in pairs if now in before} - found - {code}
        found |= before
    return found


def made_by(key: Mapping[str, Any], matches: Callable[[Mapping[str, Any]], bool]) -> list[str] | None:
    """Whether work has a key that `matches`: [] if this one, [its code] if one that has older code, None if neither."""
    if matches(key):
        return []
    codes = older(key["code"]) if "code" in key else ()
    return next(([code] for code in codes if matches({**key, "code": code})), None)


def continued(name: str, codes: list[str]) -> None:
    """Say that work of `codes` is gone on with, here and in the provenance of what this process makes."""
    if new := [code for code in codes if code not in CONTINUED]:
        CONTINUED.extend(new)
        print(f"{name}: begun by code @{', @'.join(new)}, which {FILE} declares the same", file=sys.stderr, flush=True)


def later(code: str, releases: list[Release]) -> Iterator[tuple[str, Release]]:
    """From a stamp on: what is declared the same, release by release."""
    met = {code}
    while step := next(((p.now, each) for each in releases for p in each.code if p.was == code), None):
        if step[0] in met:
            return
        met.add(code := step[0])
        yield step


def adoptions(folder: Path, name: str = MANIFEST) -> list[dict[str, Any]]:
    """The notes of `directcm adopt` on a file as it is now, oldest first; on a collection's part those on the collection."""
    for place in (folder, folder.parent):
        if (place / NOTES).is_file() and (place / name).is_file():
            content = sha256(place / name)
            return [note for note in read_json(place / NOTES).get(name, []) if note["sha256"] == content]
    return []


def because(note: Mapping[str, Any]) -> str:
    """Who says that a file's code gives the results of later code, and how that was compared."""
    return " and ".join(f"release {each['release']} ({each['compared']})" for each in note["declared"])
