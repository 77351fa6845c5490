"""The verb `trace`: from one file back to the data, link by link, and whether each link still is what was used.

An artefact's manifest holds the fingerprints of what it was made from; where an artefact with that fingerprint lies is
looked up among the results. Imports no torch and writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from directcm import datasets
from directcm.analysis.page import plain
from directcm.errors import UserError
from directcm.runtime import outside
from directcm.runtime.artifacts import COLLECTION, LOCATION, MANIFEST, PROVENANCE, Artifact, open_artifact, read_json
from directcm.runtime.unchanged import adoptions, because

UNCHANGED, CHANGED, GONE = "unchanged", "CHANGED", "GONE"


@dataclass(frozen=True)
class Link:
    """One artefact of a chain, `depth` steps back from the file asked for.

    `name`: what it was to the step that used it. `state`: unchanged; CHANGED, its bytes are no longer those that its manifest
    records, or those of pictures, archive or weights outside that it was made from; or GONE, no artefact of this fingerprint is among the results (`folder` is None).
    `adopted`: notes of `directcm adopt` on it.
    """

    depth: int
    name: str
    fingerprint: str
    state: str
    reason: str = ""
    folder: Path | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    seen: bool = False
    adopted: Sequence[Mapping[str, Any]] = ()


def artifact_of(path: str | Path) -> Path:
    """The artefact folder that a file belongs to, or that is the path itself; a UserError where there is none."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    for folder in (path, *path.resolve().parents):
        if folder.is_dir() and (folder / MANIFEST).is_file():
            return folder
    raise UserError(
        f"{path}: lies in no artefact (a folder with a {MANIFEST}); trace one of those it was made from, such as "
        "metrics/students/RUN/SET/metrics.json"
    )


def results_of(folder: Path) -> Path:
    """The results folder around an artefact: the one that holds data/manifest.json."""
    for parent in folder.resolve().parents:
        if (parent / "data" / MANIFEST).is_file():
            return parent
    raise UserError(f"{folder}: lies in no results folder (one with data/{MANIFEST}); name it with --results")


def _manifest(path: Path) -> Mapping[str, Any] | None:
    try:
        found = read_json(path)
    except UserError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("checksums_sha256"), str) else None


def index(results: Path) -> dict[str, Path]:
    """Fingerprint → artefact folder, of all results but scratch."""
    found: dict[str, Path] = {}
    for path in sorted(results.rglob(MANIFEST)):
        if "scratch" in path.relative_to(results).parts or path.parent.name.startswith("."):
            continue
        manifest = _manifest(path)
        if manifest is not None:
            found.setdefault(manifest["checksums_sha256"], path.parent)
    return found


def _state(folder: Path, manifest: Mapping[str, Any]) -> tuple[str, str]:
    """Whether every file is as the manifest says; the first that is not."""
    try:
        artifact: Artifact = open_artifact(folder, str(manifest.get("kind")))
        artifact.verify()
        if artifact.kind == COLLECTION:
            for name in artifact.checksums:
                open_artifact((folder / name).parent, str(artifact.settings.get("of"))).verify()
        found = _outside(artifact)
    except UserError as error:
        return CHANGED, str(error)
    if found is None:
        return UNCHANGED, "what it was made from is not here to compare"
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return (CHANGED, f"what it was made from: {', '.join(found[:3])}{more}") if found else (UNCHANGED, "")


def _outside(artifact: Artifact) -> list[str] | None:
    """What has changed, since an artefact was made, of the files outside the results that it was made from; None where they are not here."""
    if artifact.kind == "data":
        return datasets.changes(artifact)
    if artifact.kind == "teacher" and (artifact.folder / LOCATION).is_file():
        return outside.changes(artifact)
    return []


def chain(path: str | Path, results: str | Path | None = None) -> Iterator[Link]:
    """The artefact of `path` and all it was made from, depth first; what was met before is named again, not followed again."""
    start = artifact_of(path)
    places = index(Path(results) if results is not None else results_of(start))
    met: dict[str, Link] = {}

    def follow(folder: Path | None, name: str, fingerprint: str, depth: int) -> Iterator[Link]:
        if fingerprint in met:
            yield replace(met[fingerprint], depth=depth, name=name, seen=True, adopted=())
            return
        manifest = _manifest(folder / MANIFEST) if folder is not None else None
        if folder is None or manifest is None:
            reason = "made again since, or removed" if folder is None else f"{folder / MANIFEST}: not readable"
            link = Link(depth, name, fingerprint, GONE, reason)
        else:
            beside = folder / PROVENANCE
            provenance = read_json(beside) if beside.is_file() else {}
            state = _state(folder, manifest)
            link = Link(depth, name, fingerprint, *state, folder, manifest, provenance, adopted=adoptions(folder))
        met[fingerprint] = link
        yield link
        inputs = link.manifest.get("inputs")
        for used, its in sorted(inputs.items()) if isinstance(inputs, dict) else ():
            yield from follow(places.get(its), used, str(its), depth + 1)

    manifest = _manifest(start / MANIFEST)
    if manifest is None:
        raise UserError(f"{start / MANIFEST}: not a readable manifest; delete the folder and run again")
    yield from follow(start, str(manifest.get("kind")), manifest["checksums_sha256"], 0)


def text(link: Link) -> str:
    """A link in one line, and its settings in a second where it is met for the first time."""
    indent = "  " * link.depth
    parts = [f"{indent}{plain(link.name)}", link.fingerprint[:12], link.state]
    if link.reason:
        parts.append(f"({plain(link.reason)})")
    if link.seen:
        return "  ".join([*parts, "as above"])
    if link.folder is not None:
        parts.append(str(link.folder))
    made = link.provenance
    if made.get("commit"):
        parts.append(f"commit {plain(made['commit'])[:12]}{' with uncommitted changes' if made.get('dirty') else ''}")
    if made.get("date"):
        parts.append(plain(made["date"]))
    parts += [f"adopted {plain(note['date'])} by {plain(because(note))}" for note in link.adopted]
    line = "  ".join(parts)
    if settings := link.manifest.get("settings"):
        line += f"\n{indent}  settings {json.dumps(settings, sort_keys=True, ensure_ascii=False)}"
    return line
