#!/usr/bin/env python3
"""Time `make reproduce` as a newcomer meets it: a fresh clone, nothing cached, then the same command once more.

    python benchmarks/reproduce.py                                  # HEAD
    python benchmarks/reproduce.py 9829fa5 --env PIP_NO_DEPS=1      # its own pip call fails since an index moved
    python benchmarks/reproduce.py 9829fa5 --env PIP_NO_DEPS=1 HEAD # one after the other, and their ratio

Prints, for each commit and call, seconds, CPU seconds of the whole machine meanwhile (jobs that Snakemake's helper forks
are nobody's children) and its load before and after: on a machine that does nothing else. Package caches are empty at the start of each commit, so that no one profits from who came before. Uses the
standard library alone, for it runs where nothing is installed yet.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]


def busy() -> float:
    """CPU seconds that all cores of the machine have spent since it started, idling and waiting for disks apart."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    # user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted in user already.
    return (sum(fields[:8]) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def call(command: list[str], folder: Path, env: dict[str, str], log: Path) -> dict[str, float]:
    """Seconds, CPU seconds of the machine meanwhile, and its loads before and after one command."""
    load, spent = os.getloadavg()[0], busy()
    start = time.monotonic()
    with log.open("wb") as file:
        done = subprocess.run(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    seconds = time.monotonic() - start
    if done.returncode:
        tail = log.read_text(errors="replace").splitlines()[-20:]
        sys.exit(f"{' '.join(command)} in {folder}: exit code {done.returncode}\n" + "\n".join(tail))
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(busy() - spent, 1),
        "load_before": round(load, 2),
        "load_after": round(os.getloadavg()[0], 2),
    }


def measure(commit: str, extra: dict[str, str], target: list[str], keep: Path | None) -> list[dict[str, float]]:
    """Two calls of `make` in a fresh clone of a commit, with caches of its own."""
    where = Path(tempfile.mkdtemp(prefix="reproduce-", dir=keep))
    try:
        clone, caches = where / "directcm", where / "cache"
        subprocess.run(["git", "clone", "--quiet", "--no-local", str(TOP), str(clone)], check=True)
        subprocess.run(["git", "checkout", "--quiet", "--detach", commit], cwd=clone, check=True)
        env = {
            **os.environ,
            "XDG_CACHE_HOME": str(caches),
            "PIP_CACHE_DIR": str(caches / "pip"),
            "UV_CACHE_DIR": str(caches / "uv"),
            **extra,
        }
        calls = [call(["make", *target], clone, env, where / f"call{i}.log") for i in (1, 2)]
        print((where / "call1.log").read_text(errors="replace")[-3000:])
        return calls
    finally:
        if keep is None:
            shutil.rmtree(where, ignore_errors=True)
        else:
            print(f"kept: {where}")


def cpu() -> str:
    """The processor's name as the kernel has it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main() -> None:
    """Parse `COMMIT [--env NAME=VALUE …] …`; an `--env` belongs to the commit before it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="keep the clones and logs in this folder")
    parser.add_argument("--target", default="reproduce", help="what make is asked for")
    options, rest = parser.parse_known_args()
    asked: list[tuple[str, dict[str, str]]] = []
    words = iter(rest or ["HEAD"])
    for word in words:
        if word == "--env":
            name, _, value = next(words).partition("=")
            asked[-1][1][name] = value
        else:
            asked.append((word, {}))
    rows = []
    for commit, extra in asked:
        name = subprocess.run(
            ["git", "rev-parse", "--short", commit], cwd=TOP, check=True, capture_output=True, text=True
        ).stdout.strip()
        for number, one in enumerate(measure(name, extra, options.target.split(), options.keep), 1):
            rows.append({"commit": name, "call": number, **one})
            print(json.dumps(rows[-1]), flush=True)
    print(f"\n{cpu()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}, make {options.target}")
    print(f"{'commit':10}{'call':>5}{'seconds':>10}{'CPU s':>10}{'load before':>13}{'load after':>12}")
    for row in rows:
        print(
            f"{row['commit']:10}{row['call']:>5}{row['seconds']:>10.1f}{row['cpu_seconds']:>10.1f}"
            f"{row['load_before']:>13.2f}{row['load_after']:>12.2f}"
        )
    if len(asked) == 2:
        print(f"ratio of the first calls: {rows[2]['seconds'] / rows[0]['seconds']:.3f}")


if __name__ == "__main__":
    main()
