"""What ran: commits, versions, machines and the resolved configuration on one page, what each step cost on another."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from directcm.analysis.page import plain, write_page
from directcm.config import Config
from directcm.errors import UserError
from directcm.runtime.artifacts import COLLECTION, MANIFEST, PROVENANCE, read_json, write_csv
from directcm.runtime.unchanged import adoptions, because

COLUMNS = ["step", "jobs", "seconds", "max_rss_mb", "teacher_forwards", "teacher_forwards_minimum"]
# Artefacts whose kind is not the name of the step (the rule) that makes them.
STEP_OF_KIND = {
    "latents": "encode",
    "student": "train",
    "samples": "sample",
    "metrics": "evaluate",
    "errors": "error_by_time",
    "edits": "edit",
}


@dataclass
class Cost:
    """What one step took. Seconds and memory are None where nothing measured them."""

    step: str
    jobs: int = 0
    seconds: float | None = None
    max_rss_mb: float | None = None
    teacher_forwards: int | None = None
    teacher_forwards_minimum: int | None = None


@dataclass(frozen=True)
class Record:
    """One artefact's manifest, provenance and notes of `directcm adopt`. `floor` says that it was made from the floor's noise."""

    folder: Path
    manifest: Mapping[str, Any]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    floor: bool = False
    adopted: Sequence[Mapping[str, Any]] = ()

    @property
    def kind(self) -> str:
        """The artefact's kind; that of its parts where it is a collection."""
        kind = str(self.manifest.get("kind"))
        return str(self._settings.get("of")) if kind == COLLECTION else kind

    @property
    def parts(self) -> int | None:
        """How many artefacts a collection holds; None where it is none."""
        parts = self._settings.get("parts")
        return len(parts) if self.manifest.get("kind") == COLLECTION and isinstance(parts, list) else None

    @property
    def step(self) -> str:
        """The rule that made it."""
        if self.kind == "noise" and (purpose := self._settings.get("purpose")) in ("floor", "search"):
            return f"{purpose}_noise"
        if self.kind == "samples" and "student" not in self._inputs:
            return "floor" if self.floor else "reference"
        return STEP_OF_KIND.get(self.kind, self.kind)

    @property
    def _settings(self) -> Mapping[str, Any]:
        found = self.manifest.get("settings")
        return found if isinstance(found, Mapping) else {}

    @property
    def _inputs(self) -> Mapping[str, Any]:
        found = self.manifest.get("inputs")
        return found if isinstance(found, Mapping) else {}


def read_record(path: str | Path) -> Record:
    """An artefact's folder (or its manifest.json or provenance.json) as a Record; provenance may be missing."""
    path = Path(path)
    folder = path.parent if path.name in (MANIFEST, PROVENANCE) else path
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or "kind" not in manifest:
        raise UserError(f"{folder / MANIFEST}: not a manifest; delete the folder and run again")
    beside = folder / PROVENANCE
    provenance = read_json(beside) if beside.is_file() else {}
    return Record(folder, manifest, provenance if isinstance(provenance, dict) else {}, adopted=adoptions(folder))


def read_records(paths: Iterable[str | Path]) -> list[Record]:
    """Records of artefacts; those made from the floor's noise, if that is among them, are marked."""
    records = [read_record(path) for path in paths]
    floors = {r.manifest.get("checksums_sha256") for r in records if r.step == "floor_noise"}
    return [replace(r, floor=True) if r.manifest.get("inputs", {}).get("noise") in floors else r for r in records]


def step_of_benchmark(path: str | Path) -> str:
    """benchmarks/train/cm_seed0.tsv → train, benchmarks/data.tsv → data: the rule that Snakemake measured."""
    parts = Path(path).parts
    if "benchmarks" in parts[:-1]:
        last = len(parts) - 1 - parts[::-1].index("benchmarks")
        return Path(parts[last + 1]).stem
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
    out: dict[str, Cost] = {}
    own: dict[str, list[Record]] = {}
    for record in records:
        own.setdefault(record.step, []).append(record)
        cost = out.setdefault(record.step, Cost(record.step))
        counts = record.manifest.get("counts") or {}
        for name in ("teacher_forwards", "teacher_forwards_minimum"):
            if counts.get(name) is not None:
                setattr(cost, name, (getattr(cost, name) or 0) + int(counts[name]))
    measured: dict[str, list[dict[str, float | None]]] = {}
    for path in benchmarks:
        measured.setdefault(step_of_benchmark(path), []).extend(read_benchmark(path))
    for step, jobs in measured.items():
        if jobs:
            cost = out.setdefault(step, Cost(step))
            cost.jobs = len(jobs)
            cost.seconds = _total(job["seconds"] for job in jobs)
            # A figure may have been drawn in a fork (directcm.runtime.warm), and records no memory of its own.
            if not step.startswith("figure"):
                cost.max_rss_mb = max((j["max_rss_mb"] for j in jobs if j["max_rss_mb"] is not None), default=None)
    for step, found in own.items():
        if not measured.get(step):
            out[step].jobs = len(found)
            out[step].seconds = _total(r.provenance.get("seconds") for r in found)
        # What the job knew of itself: of a fork (directcm.runtime.warm) the benchmark saw only who waited for it.
        peaks = [out[step].max_rss_mb, *(r.provenance.get("max_rss_mb") for r in found)]
        out[step].max_rss_mb = max((float(p) for p in peaks if p is not None), default=None)
    return list(out.values())


def _total(values: Iterable[float | None]) -> float | None:
    known = [float(v) for v in values if v is not None]
    return round(math.fsum(known), 3) if known else None


def _facts(records: Sequence[Record]) -> list[tuple[str, list[str]]]:
    """Commit, versions, machines …, each with every value that occurs."""

    def values(*keys: str) -> list[str]:
        found = []
        for record in records:
            value: Any = record.provenance
            for key in keys:
                value = value.get(key) if isinstance(value, Mapping) else None
            if value is not None:
                found.append(plain(value))
        return list(dict.fromkeys(found))

    commits = []
    for record in records:
        commit = record.provenance.get("commit")
        if commit:
            commits.append(plain(commit) + (" with uncommitted changes" if record.provenance.get("dirty") else ""))
    dates = sorted(values("date"))
    packages = dict.fromkeys(k for r in records for k in (r.provenance.get("versions") or {}))
    versions = [f"{plain(name)} {' and '.join(values('versions', name))}" for name in packages]
    adopted: dict[str, int] = {}
    for record in records:
        for note in record.adopted:
            said = f"made by code {note['was']}, kept by {because(note)}"
            adopted[said] = adopted.get(said, 0) + 1
    facts = [
        ("Commit", list(dict.fromkeys(commits)) or ["not recorded: not a git checkout"]),
        ("Made between", [" and ".join(dict.fromkeys((dates[0], dates[-1])))] if dates else []),
        ("Machine", values("machine")),
        ("System", values("platform")),
        ("CPUs", values("cpus")),
        ("Device", values("device")),
        ("Python", values("python")),
        ("Packages", versions),
        ("Adopted", [f"{n:,} folder{'s' * (n != 1)} {plain(said)}" for said, n in adopted.items()]),
        ("Continued from code", values("continued")),
    ]
    return [(name, found) for name, found in facts if found]


def _show(value: float | None, decimals: int = 0) -> str:
    return "–" if value is None else f"{value:,.{decimals}f}"


# ----------------------------------------------------------------- costs


def _ratio(cost: Cost) -> float | None:
    made, least = cost.teacher_forwards, cost.teacher_forwards_minimum
    return made / least if made is not None and least else None


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

    def total(values: Iterable[int | None]) -> int | None:
        known = [v for v in values if v is not None]
        return sum(known) if known else None

    # Only steps with both counts make up the total's ratio.
    counted = [c for c in table if c.teacher_forwards is not None and c.teacher_forwards_minimum is not None]
    whole = Cost(
        "All steps",
        sum(c.jobs for c in table),
        _total(c.seconds for c in table),
        max((c.max_rss_mb for c in table if c.max_rss_mb is not None), default=None),
        total(c.teacher_forwards for c in counted),
        total(c.teacher_forwards_minimum for c in counted),
    )
    rows = [
        {
            "step": plain(cost.step),
            "cells": [
                ("Jobs", f"{cost.jobs:,}"),
                ("Seconds", _show(cost.seconds, 1)),
                ("Peak memory, MB", _show(cost.max_rss_mb)),
                ("Teacher forwards", _show(cost.teacher_forwards)),
                ("Minimum", _show(cost.teacher_forwards_minimum)),
                ("Ratio", _show(_ratio(cost), 2)),
            ],
        }
        for cost in (*table, whole)
    ]
    facts = dict(_facts(records))
    machines = [
        ", ".join((*facts.get("Machine", []), *facts.get("System", []), *(f"{n} CPUs" for n in facts.get("CPUs", []))))
    ]
    write_page(
        out_html, "pages/provenance.costs.html", title="Costs", preset=config.preset, costs=rows, heads=[label for label, _ in rows[0]["cells"]],
        machines=[m for m in machines if m],
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
    """Records by step, in order of appearance."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.step, []).append(record)
    out = []
    for step, own in found.items():
        parts = [r.parts for r in own if r.parts is not None]
        said = [
            f"{len(own):,} folder{'s' * (len(own) != 1)} of {' and '.join(dict.fromkeys(plain(r.kind) for r in own))}"
        ]
        if parts:
            said.append(f"{len(parts):,} of them collections of {sum(parts):,} sets in all")
        sizes = [r.manifest.get("bytes") for r in own if r.parts is None]
        known = [size for size in sizes if isinstance(size, int)]
        if known:
            said.append(_bytes(sum(known)))
        seconds = _total(r.provenance.get("seconds") for r in own)
        if seconds is not None:
            said.append(f"{seconds:,.1f} s")
        rows = [
            {
                "folder": plain(r.folder), "fingerprint": plain(r.manifest.get("checksums_sha256", ""))[:12],
                "seconds": _show(r.provenance.get("seconds"), 1), "log": _log(r.provenance),
            }
            for r in own
        ]  # fmt: skip
        out.append({"step": plain(step), "summary": "; ".join(said), "artefacts": rows})
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
