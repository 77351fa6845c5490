"""What DVC versions beside the results: Snakemake's own records of them, and a preset's dvc.yaml derived from the repository's.

Files that come back from a remote are new to Snakemake, and `snakemake --touch` would declare them made by whatever code and
configuration is there now. The records say what they were really made from, so that after a restore Snakemake plans exactly
what has changed since.
"""

from __future__ import annotations

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import yaml

from directcm.config import Config, Run, paths, read_yaml
from directcm.errors import UserError
from directcm.runtime.artifacts import (
    CHECKSUMS,
    MANIFEST,
    NOTES,
    PROVENANCE,
    read_csv,
    read_json,
    sha256,
    write_json,
    write_text,
)

FOLDER = "record"
# What an artefact says of itself.
PAPERS = (MANIFEST, CHECKSUMS, PROVENANCE)
# The results folder that dvc.yaml names.
TEMPLATE = "results/embedded"
SNAKEMAKE = Path(".snakemake")
# Steps between whose bytes a record may leave out: large, and wanted again only where something new is made from them.
KEPT_BY_CHOICE = ("data", "targets", "samples", "reference", "floor", "endpoints")
# Kinds of artefacts that not every configuration has.
DEPENDING = ("targets", "features", "extractors")


def _name(key: str) -> Path:
    """Snakemake's name of a file's record: URL-safe base64 in pieces that a file system takes."""
    text = urlsafe_b64encode(key.encode()).decode()
    *folders, last = (text[i : i + 254] for i in range(0, len(text), 254))
    return Path(*(f"@{folder}" for folder in folders), last)


def entries(root: Path) -> Iterator[tuple[str, Path]]:
    """Files that Snakemake has a record of, each with the record's path."""
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        text = "".join(part.removeprefix("@") for part in path.relative_to(root).parts)
        try:
            yield urlsafe_b64decode(text).decode(), path
        except ValueError:
            continue


def save(results: Path, snakemake: Path = SNAKEMAKE) -> None:
    """Write RESULTS/record: Snakemake's records of the files there, what jobs took, and manifests.

    The manifests (with checksums and provenance) are the targets' and those of the kinds whose bytes DVC does not keep.
    Raises UserError where Snakemake has made nothing in `results`.
    """
    records = {
        key: read_json(path)
        for key, path in entries(snakemake / "metadata")
        if PurePath(key).is_relative_to(results) and Path(key).is_file()
    }
    if not records:
        raise UserError(f"{results}: Snakemake has made nothing here; run snakemake first, from the repository's top")
    absent = left_out(results)
    manifests = {
        path.relative_to(results).as_posix(): path.read_text(encoding="utf-8")
        for kind in paths.unique(("targets", *absent))
        for name in (*PAPERS, NOTES)
        for path in sorted((results / kind).rglob(name))
    }
    benchmarks = {
        path.relative_to(results).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted((results / "benchmarks").rglob("*.tsv"))
    }
    write_json(results / FOLDER / "snakemake.json", records)
    write_json(results / FOLDER / "manifests.json", {"left_out": absent, "files": manifests})
    write_json(results / FOLDER / "benchmarks.json", benchmarks)
    write_text(_mark(results, snakemake), sha256(results / FOLDER / "snakemake.json"))


def restore(results: Path, changed: bool = False, snakemake: Path = SNAKEMAKE) -> str:
    """Give Snakemake its records of the files in `results` back; says how many, and what the record left out.

    `changed`: only where DVC has brought another record than the one last written or restored here; says nothing otherwise.
    Raises UserError where RESULTS/record is not there or broken, unless `changed`.
    """
    source = results / FOLDER / "snakemake.json"
    if changed and (not source.is_file() or _seen(results, snakemake) == sha256(source)):
        return ""
    records = read_json(source)
    # Where the bytes were left out the manifests stand for them: numbers are collected from these, and a job that reads more
    # says what is missing.
    recorded = read_json(results / FOLDER / "manifests.json")
    manifests = {k: v for k, v in recorded["files"].items() if PurePath(k).parts[0] in recorded["left_out"]}
    for name, text in {**manifests, **read_json(results / FOLDER / "benchmarks.json")}.items():
        if not (results / name).exists():
            write_text(results / name, text)
    there = {key: record for key, record in records.items() if Path(key).is_file()}
    # All of one time, and older than any source file: Snakemake then compares the sources' checksums with the recorded ones.
    time = min((record["starttime"] for record in records.values() if record.get("starttime")), default=0.0)
    # Without this folder Snakemake takes the records for an older version's.
    (snakemake / "incomplete").mkdir(parents=True, exist_ok=True)
    for key, record in there.items():
        write_json(snakemake / "metadata" / _name(key), record)
        (snakemake / "incomplete" / _name(key)).unlink(missing_ok=True)
        os.utime(key, (time, time))
    write_text(_mark(results, snakemake), sha256(source))
    lines = [
        f"{results}: {len(there)} of {len(records)} recorded files are here, and Snakemake knows what they were made from."
    ]
    for kind in recorded["left_out"]:
        sealed = [
            results / name for name in manifests if name.startswith(f"{kind}/") and name.endswith(f"/{CHECKSUMS}")
        ]
        if count := sum(not all((path.parent / row["path"]).is_file() for row in read_csv(path)) for path in sealed):
            lines.append(
                f"{results / kind}: {count} by their manifests alone, the bytes were left out; where a job says that it needs "
                "them, delete the folder, and Snakemake makes them again"
            )
    return "\n".join(lines)


def left_out(results: Path) -> list[str]:
    """Kinds in `results` that its dvc.yaml does not name, records/<preset>/ before the repository's; none where it names nothing."""
    recorded = Path("records", results.name, "dvc.yaml")
    file = recorded if recorded.is_file() else Path("dvc.yaml")
    stages = read_yaml(file).get("stages", {}) if file.is_file() else {}
    outs = [each if isinstance(each, str) else next(iter(each)) for s in stages.values() for each in s.get("outs", [])]
    if not any(PurePath(out).is_relative_to(results) for out in outs):
        return []
    return [kind for kind in KEPT_BY_CHOICE if (results / kind).is_dir() and (results / kind).as_posix() not in outs]


def _mark(results: Path, snakemake: Path) -> Path:
    """Where it stands which record was last written or restored here."""
    return snakemake / "directcm" / results.name


def _seen(results: Path, snakemake: Path) -> str:
    mark = _mark(results, snakemake)
    return mark.read_text(encoding="utf-8") if mark.is_file() else ""


def _within(block: Mapping[str, Any], dotted: str) -> Any:
    """A configuration's value by its dotted name; None where it says nothing."""
    value: Any = block
    for part in dotted.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def stages(
    base: Mapping[str, Any],
    config: Config,
    runs: Sequence[Run],
    overlay: Path,
    scope: str,
    without: Sequence[str] = (),
) -> dict[str, Any]:
    """dvc.yaml of a preset, for records/<preset>/: the stages of `base` over that preset's folder, overlay and report.

    `runs` are the scope's; outputs that they do not have, and those `without`, are left out.
    """
    folder = f"results/{config.preset}"
    made = {name.split("/")[0] for name in paths.artefacts(config, runs, scope)}
    absent = {*DEPENDING} - made
    changed = read_yaml(overlay)

    def path(text: str) -> str:
        return f"report-{config.preset}.html" if text == "report.html" else text.replace(TEMPLATE, folder)

    def kind(text: str) -> str:
        """Of a path among the base's results the kind of artefact."""
        return PurePath(text).relative_to(TEMPLATE).parts[0] if text.startswith(f"{TEMPLATE}/") else ""

    def kept(text: str) -> bool:
        return kind(text) not in absent.union(without)

    def command(text: str) -> str:
        words = [path(word) for word in text.split() if kind(word) not in absent]
        if words[0] == "snakemake":
            if scope == "paper" and not any(word.startswith("results/") for word in words):
                words.insert(1, "paper")
            words += ["--configfile", overlay.as_posix()]
        return " ".join(words)

    out: dict[str, Any] = {"stages": {}}
    for name, stage in base["stages"].items():
        keys = stage["params"][0]["config.yaml"]
        # What the overlay replaces whole is no dependency on config.yaml.
        whole = [k for k in keys if (value := _within(changed, k)) is not None and not isinstance(value, Mapping)]
        overlaid = [k for k in keys if _within(changed, k) is not None]
        params = [{"config.yaml": [k for k in keys if k not in whole]}, {overlay.as_posix(): overlaid}]
        cmd = stage["cmd"]
        derived = {
            "desc": stage["desc"],
            "wdir": "../..",
            "cmd": command(cmd) if isinstance(cmd, str) else [command(line) for line in cmd],
            "params": [block for block in params if any(block.values())],
            "deps": [path(dep) for dep in stage["deps"] if kept(dep)],
            "outs": [{path(o): dict(f) for o, f in each.items()} for each in stage["outs"] if all(map(kept, each))],
        }
        out["stages"][name] = {key: value for key, value in derived.items() if value}
    # What the default's stages have not, such as edits and errors by time: all of it is made in the last stage.
    named = {
        next(iter(each)).removeprefix(f"{TEMPLATE}/") for stage in base["stages"].values() for each in stage["outs"]
    }
    out["stages"][name]["outs"] += [
        {f"{folder}/{name}": {"persist": True}} for name in sorted(made - named - {*without})
    ]
    out["metrics"] = [f"../../{path(each)}" for each in base["metrics"]]

    def plot(each: Any) -> Any:
        if isinstance(each, str):
            return f"../../{path(each)}"
        return {
            title: {**how, "y": {f"../../{path(file)}": columns for file, columns in how["y"].items()}}
            for title, how in each.items()
        }

    out["plots"] = [plot(each) for each in base["plots"]]
    return out


def write_stages(
    config: Config,
    runs: Sequence[Run],
    overlay: Path,
    scope: str,
    without: Sequence[str] = (),
    base: Path = Path("dvc.yaml"),
) -> None:
    """Write `stages` as records/<preset>/dvc.yaml.

    Raises UserError where the overlay is not named after its preset: Snakemake and `make` would look in different folders.
    """
    if wrong := [kind for kind in without if kind not in KEPT_BY_CHOICE]:
        raise UserError(f"--without: {wrong[0]!r} is none of what can be left out: {', '.join(KEPT_BY_CHOICE)}")
    if config.preset != overlay.stem:
        raise UserError(f"{overlay}: preset is {config.preset!r} there; the file and its preset must bear one name")
    found = stages(read_yaml(base), config, runs, overlay, scope, without)
    text = yaml.safe_dump(found, sort_keys=False, width=120, allow_unicode=True)
    head = f"# Made from dvc.yaml by `make record PRESET={config.preset}`, which writes it anew: edit dvc.yaml.\n"
    write_text(Path("records", config.preset, "dvc.yaml"), head + text)
