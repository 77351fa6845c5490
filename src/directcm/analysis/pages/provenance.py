"""What ran: commits, versions, machines and the resolved configuration on one page, what each step cost on another."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from directcm.analysis.page import plain, write_page
from directcm.config import Config
from directcm.config.paths import VARIANTS, split
from directcm.errors import UserError
from directcm.runtime.artifacts import COLLECTION, MANIFEST, PROVENANCE, read_json, write_csv
from directcm.runtime.unchanged import adoptions, because

COLUMNS = ["step", "jobs", "seconds", "max_rss_mb", "teacher_forwards", "teacher_forwards_minimum"]
# Artefacts whose kind is not the name of the step (the rule) that makes them.
STEP_OF_KIND = {
    "latents": "encode", "student": "train", "samples": "sample", "metrics": "evaluate", "errors": "error_by_time", "edits": "edit",
}  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """What one step took. Seconds and memory are None where nothing measured them."""

    step: str
    jobs: int
    seconds: float | None
    max_rss_mb: float | None
    teacher_forwards: int | None
    teacher_forwards_minimum: int | None

    @property
    def ratio(self) -> float | None:
        """Teacher forwards over their minimum."""
        made, least = self.teacher_forwards, self.teacher_forwards_minimum
        return made / least if made is not None and least else None


@dataclass(frozen=True)
class Record:
    """One artefact's manifest, provenance and notes of `directcm adopt`. `floor` says that it was made from the floor's noise."""

    folder: Path
    manifest: Mapping[str, Any]
    provenance: Mapping[str, Any]
    adopted: Sequence[Mapping[str, Any]]
    floor: bool = False

    def _block(self, name: str) -> Mapping[str, Any]:
        found = self.manifest.get(name)
        return found if isinstance(found, Mapping) else {}

    @property
    def kind(self) -> str:
        """The artefact's kind; that of its parts where it is a collection."""
        kind = str(self.manifest.get("kind"))
        return str(self._block("settings").get("of")) if kind == COLLECTION else kind

    @property
    def parts(self) -> int | None:
        """How many artefacts a collection holds; None where it is none."""
        parts = self._block("settings").get("parts")
        return len(parts) if self.manifest.get("kind") == COLLECTION and isinstance(parts, list) else None

    @property
    def step(self) -> str:
        """The rule that made it."""
        if self.kind == "noise" and (purpose := self._block("settings").get("purpose")) in ("floor", "search"):
            return f"{purpose}_noise"
        if self.kind == "metrics" and self.folder.parent.name == "baselines":
            return "baselines"
        if self.kind == "samples" and VARIANTS.rstrip("/") in self.folder.parts:
            return "variants"
        if self.kind == "samples" and "student" not in self._block("inputs"):
            return "floor" if self.floor else "reference"
        return STEP_OF_KIND.get(self.kind, self.kind)


def read_record(path: str | Path) -> Record:
    """An artefact's folder (or its manifest.json or provenance.json) as a Record; provenance may be missing."""
    path = Path(path)
    folder = path.parent if path.name in (MANIFEST, PROVENANCE) else path
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or "kind" not in manifest:
        raise UserError(f"{folder / MANIFEST}: not a manifest; delete the folder and run again")
    beside = folder / PROVENANCE
    provenance = read_json(beside) if beside.is_file() else {}
    return Record(folder, manifest, provenance if isinstance(provenance, dict) else {}, adoptions(folder))


def read_records(paths: Iterable[str | Path]) -> list[Record]:
    """Records of artefacts; those made from the floor's noise, if that is among them, are marked."""
    records = [read_record(path) for path in paths]
    floors = {r.manifest.get("checksums_sha256") for r in records if r.step == "floor_noise"}
    return [replace(r, floor=True) if r.manifest.get("inputs", {}).get("noise") in floors else r for r in records]


def _by_step(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Records by step, in order of appearance."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.step, []).append(record)
    return found


def _seconds(records: Iterable[Record]) -> list[float | None]:
    """Seconds of each job by the clocks of what it made: artefacts of one job, such as the features by several extractors, share a log."""
    jobs: dict[Any, list[float]] = {}
    for record in records:
        job = jobs.setdefault(record.provenance.get("log") or record.folder, [])
        job += [float(taken)] if (taken := record.provenance.get("seconds")) is not None else []
    return [max(taken, default=None) for taken in jobs.values()]


def step_of_benchmark(path: str | Path) -> str:
    """benchmarks/train/cm_seed0.tsv → train, benchmarks/data.tsv and benchmarks/teacher_seed~1/data.tsv → data: the rule that
    Snakemake measured."""
    parts = Path(path).parts
    if "benchmarks" in parts[:-1]:
        return Path(split("/".join(parts[-parts[::-1].index("benchmarks") :]))[1]).stem
    return Path(path).stem


def _measured(text: str | None) -> float | None:
    """A benchmark's field; "-" and "NA" mean that the job was too short to measure."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def read_benchmark(path: str | Path) -> list[dict[str, float | None]]:
    """Seconds and peak memory (MB) of each job in a Snakemake benchmark file; empty where there is no file."""
    path = Path(path)
    if not path.is_file():  # a step whose outputs came from the cache was never measured here
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    if any("s" not in row or "max_rss" not in row for row in rows):
        raise UserError(f"{path}: not a Snakemake benchmark; delete it and run the step again")
    return [{"seconds": _measured(row["s"]), "max_rss_mb": _measured(row["max_rss"])} for row in rows]


def costs(records: Sequence[Record], benchmarks: Iterable[str | Path]) -> list[Cost]:
    """Cost per step, in order of appearance: artefacts first, then steps that only a benchmark knows.

    Jobs and seconds are Snakemake's where a benchmark exists (start-up included), else the artefacts' own clocks.
    """
    made = _by_step(records)
    measured: dict[str, list[dict[str, float | None]]] = {}
    for path in benchmarks:
        if jobs := read_benchmark(path):
            measured.setdefault(step_of_benchmark(path), []).extend(jobs)
    out = []
    for step in dict.fromkeys((*made, *measured)):
        own, jobs = made.get(step, []), measured.get(step, [])
        seconds = [job["seconds"] for job in jobs] if jobs else _seconds(own)
        # What a job knew of itself: of a fork (directcm.runtime.warm) the benchmark saw only who waited for it. So a figure, which
        # may have been drawn in one and records no memory of its own, has none.
        peaks = [r.provenance.get("max_rss_mb") for r in own]
        peaks += [] if step.startswith("figure") else [job["max_rss_mb"] for job in jobs]
        counts = [r.manifest.get("counts") or {} for r in own]
        forwards = [_known(sum, (count.get(name) for count in counts)) for name in COLUMNS[-2:]]
        out.append(Cost(step, len(seconds), _known(_total, seconds, float), _known(max, peaks, float), *forwards))
    return out


def _known(function: Callable[[list[Any]], Any], values: Iterable[Any], kind: Callable[[Any], Any] = int) -> Any:
    """A function of the values that are known, each as this kind of number; None where none is."""
    known = [kind(value) for value in values if value is not None]
    return function(known) if known else None


def _total(values: Iterable[float]) -> float:
    return round(math.fsum(values), 3)


def _facts(records: Sequence[Record]) -> list[tuple[str, list[str]]]:
    """Commit, versions, machines …, each with every value that occurs."""
    made = [record.provenance for record in records]

    def values(name: str, blocks: Iterable[Mapping[str, Any]] = made) -> list[str]:
        return list(dict.fromkeys(plain(block[name]) for block in blocks if block.get(name) is not None))

    commits = [plain(p["commit"]) + _uncommitted(p) for p in made if p.get("commit")]
    dates = sorted(values("date"))
    versions = [p.get("versions") or {} for p in made]
    packages = dict.fromkeys(name for block in versions for name in block)
    notes = [note for record in records for note in record.adopted]
    adopted = Counter(f"made by code {note['was']}, kept by {because(note)}" for note in notes)
    facts = [
        ("Commit", list(dict.fromkeys(commits)) or ["not recorded: not a git checkout"]),
        ("Made between", [" and ".join(dict.fromkeys((dates[0], dates[-1])))] if dates else []),
        ("Machine", values("machine")),
        ("System", values("platform")),
        ("CPUs", values("cpus")),
        ("Device", values("device")),
        ("Python", values("python")),
        ("Packages", [f"{plain(name)} {' and '.join(values(name, versions))}" for name in packages]),
        ("Adopted", [f"{n:,} folder{'s' * (n != 1)} {plain(said)}" for said, n in adopted.items()]),
        ("Continued from code", values("continued")),
    ]
    return [(name, found) for name, found in facts if found]


def _uncommitted(provenance: Mapping[str, Any]) -> str:
    return " with uncommitted changes" if provenance.get("dirty") else ""


def _show(value: float | None, decimals: int = 0) -> str:
    return "–" if value is None else f"{value:,.{decimals}f}"


# ----------------------------------------------------------------- costs


def costs_page(
    config: Config,
    artifacts: Sequence[str | Path],
    benchmarks: Sequence[str | Path],
    out_html: str | Path,
    out_csv: str | Path,
) -> list[Cost]:
    """Write the costs by step (HTML) and costs.csv (COLUMNS); returns them.

    `artifacts`: artefact folders, or their manifest.json or provenance.json; `benchmarks`: Snakemake benchmark files
    `…/benchmarks/RULE.tsv` or `…/benchmarks/RULE/ANYTHING.tsv`, of which some may not exist.
    """
    records = read_records(artifacts)
    table = costs(records, benchmarks)
    write_csv(out_csv, [{name: getattr(cost, name) for name in COLUMNS} for cost in table], COLUMNS)

    # Only steps with both counts make up the total's ratio.
    counted = [c for c in table if c.teacher_forwards is not None and c.teacher_forwards_minimum is not None]
    whole = Cost(
        "All steps",
        sum(c.jobs for c in table),
        _known(_total, (c.seconds for c in table), float),
        _known(max, (c.max_rss_mb for c in table), float),
        _known(sum, (c.teacher_forwards for c in counted)),
        _known(sum, (c.teacher_forwards_minimum for c in counted)),
    )
    heads = ["Jobs", "Seconds", "Peak memory, MB", "Teacher forwards", "Minimum", "Ratio"]
    rows = []
    for cost in (*table, whole):
        numbers = (*(getattr(cost, name) for name in COLUMNS[1:]), cost.ratio)
        cells = [_show(value, decimals) for value, decimals in zip(numbers, (0, 1, 0, 0, 0, 2), strict=True)]
        rows.append({"step": plain(cost.step), "cells": list(zip(heads, cells, strict=True))})
    facts = dict(_facts(records))
    machine = (*facts.get("Machine", []), *facts.get("System", []), *(f"{n} CPUs" for n in facts.get("CPUs", [])))
    write_page(
        out_html, "pages/provenance.costs.html", title="Costs", preset=config.preset, costs=rows, heads=heads,
        machine=", ".join(machine),
    )  # fmt: skip
    return table


# ----------------------------------------------------------------- provenance


def _bytes(size: int) -> str:
    """ "12.3 MB"."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


def _log(provenance: Mapping[str, Any]) -> str:
    """Where a job's log lies, and which SLURM job it was."""
    job, node = provenance.get("slurm_job"), provenance.get("slurm_node")
    where = f"SLURM job {job}" + (f" on {node}" if node else "") if job else ""
    return "; ".join(plain(part) for part in (provenance.get("log"), where) if part) or "–"


def _groups(records: Sequence[Record]) -> list[dict[str, Any]]:
    """What the page says of each step and its artefacts."""
    out = []
    for step, own in _by_step(records).items():
        parts = [r.parts for r in own if r.parts is not None]
        kinds = " and ".join(dict.fromkeys(plain(r.kind) for r in own))
        sizes = [size for r in own if r.parts is None and isinstance(size := r.manifest.get("bytes"), int)]
        seconds = _known(_total, _seconds(own), float)
        said = [
            f"{len(own):,} folder{'s' * (len(own) != 1)} of {kinds}",
            f"{len(parts):,} of them collections of {sum(parts):,} sets in all" if parts else "",
            _bytes(sum(sizes)) if sizes else "",
            "" if seconds is None else f"{seconds:,.1f} s",
        ]
        rows = [
            {
                "folder": plain(r.folder), "fingerprint": plain(r.manifest.get("checksums_sha256", ""))[:12],
                "seconds": _show(r.provenance.get("seconds"), 1), "log": _log(r.provenance),
            }
            for r in own
        ]  # fmt: skip
        out.append({"step": plain(step), "summary": "; ".join(filter(None, said)), "artefacts": rows})
    return out


def provenance_page(config: Config, artifacts: Sequence[str | Path], out_html: str | Path) -> None:
    """Write the provenance page (HTML). `artifacts`: artefact folders, or their manifest.json or provenance.json."""
    import yaml

    records = read_records(artifacts)
    warnings = []
    commits = {r.provenance.get("commit") for r in records if r.provenance.get("commit")}
    if len(commits) > 1:
        warnings.append(f"These results were made by {len(commits)} different commits.")
    if any(r.provenance.get("dirty") for r in records):
        warnings.append("Some results were made with uncommitted changes to the code.")
    write_page(
        out_html, "pages/provenance.html", title="Provenance", preset=config.preset, warnings=warnings, facts=_facts(records),
        groups=_groups(records), count=len(records),
        yaml=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100, default_flow_style=None),
    )  # fmt: skip
