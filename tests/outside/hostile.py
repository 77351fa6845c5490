#!/usr/bin/env python3
"""`make reproduce PRESET=smoke` in two fresh copies, one from a shell full of variables: the results have to be the same bytes.

    python tests/outside/hostile.py

Prints how many files were compared, and those that differ; logs, timings and what says when and where a run was are left out.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP))

from tests.runs import HOSTILE, copy_repository  # noqa: E402

MORE = {
    "PYTHONWARNINGS": "error",
    "PYTHONOPTIMIZE": "2",
    "LC_ALL": "C",
    "TZ": "Pacific/Kiritimati",
    "OMP_DYNAMIC": "true",
}
# Times, machines, and pages that name them.
APART = ("logs", "benchmarks", "scratch", "costs", "provenance", "record", "tensorboard")


def digest(path: Path) -> str:
    """SHA-256 of a file; of the table of students without how long each took."""
    content = path.read_bytes()
    if path.name == "students.csv":
        rows = list(csv.DictReader(content.decode().splitlines()))
        content = json.dumps([{k: v for k, v in row.items() if "seconds" not in k} for row in rows]).encode()
    return hashlib.sha256(content).hexdigest()


def results(folder: Path, variables: dict[str, str]) -> dict[str, str]:
    """File → SHA-256 of the results of one run."""
    environment = {k: v for k, v in os.environ.items() if k not in {**HOSTILE, **MORE}}
    # Both from one environment; `make` itself is what a user types.
    command = ["make", "reproduce", "PRESET=smoke", f"VENV={Path(sys.executable).parents[1]}"]
    environment |= {"PYTHONPATH": str(folder / "src"), **variables}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"exit code {done.returncode} with {sorted(variables)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    top = folder / "results/smoke"
    return {
        path.relative_to(top).as_posix(): digest(path)
        for path in sorted(top.rglob("*"))
        if path.is_file()
        and path.relative_to(top).parts[0] not in APART
        and path.name not in ("provenance.json", "location.json")
    }


def main() -> int:
    """Exit code 0 where both runs gave the same files with the same bytes."""
    with tempfile.TemporaryDirectory(prefix="directcm-hostile-") as made:
        clean = results(copy_repository(Path(made) / "clean"), {})
        hostile = results(copy_repository(Path(made) / "hostile"), {**HOSTILE, **MORE})
    differ = sorted(name for name in clean.keys() | hostile.keys() if clean.get(name) != hostile.get(name))
    print(
        f"{len(clean)} files compared, {len(differ)} differ, under {len(HOSTILE) + len(MORE)} variables: {', '.join([*HOSTILE, *MORE])}"
    )
    for name in differ[:20]:
        print(f"differs: {name}")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
