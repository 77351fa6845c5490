"""What the default preset's teacher has to reach, in one place, and a look at a finished run.

    python -m tests.bars results/embedded    # one line a bar; status 1 where one is missed

A run of that size takes minutes, so no test makes one: tests/test_gates.py holds the published numbers to the bars, and trains smaller
teachers to bars of their own.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

# Held-out reconstruction of pixels in [-1, 1]: mean squared error.
VAE_MSE = 1e-3
# Share of guided samples that read as the prompted digit.
PROMPTS = 0.995
# FD-tiny of guided samples to the data.
FD = 0.85
# Share of real held-out digits that the reader of prompts reads right, or it could not judge samples.
READER = 0.97


def missed(values: Mapping[str, float]) -> list[str]:
    """The bars that these values miss, of those that they have: `vae`, `prompts`, `fd`, `reader`."""
    least = {"prompts": PROMPTS, "reader": READER}
    most = {"vae": VAE_MSE, "fd": FD}
    # So written that NaN misses too.
    out = [
        f"{k} = {values[k]:.4g}, at least {bar:g}" for k, bar in least.items() if k in values and not values[k] >= bar
    ]
    out += [
        f"{k} = {values[k]:.4g}, at most {bar:g}" for k, bar in most.items() if k in values and not values[k] <= bar
    ]
    return out


def of_rows(rows: Iterable[Mapping[str, str]]) -> dict[str, float]:
    """The teacher's values among tidy metrics (collected/<scope>/metrics.csv)."""
    found = {(r["metric"], r["reference"]): float(r["value"]) for r in rows if r["row"] == "Teacher"}
    return {"prompts": found["prompt_accuracy", "prompt"], "fd": found["fd_tiny", "data"]}


def of_run(results: Path) -> dict[str, float]:
    """The teacher's values of a finished run."""
    with open(results / "collected/main/metrics.csv", newline="", encoding="utf-8") as file:
        values = of_rows(csv.DictReader(file))
    values["vae"] = json.loads((results / "teacher/manifest.json").read_text())["counts"]["vae_held_out_mse"]
    for path in sorted(results.glob("metrics/teacher/*/metrics.json")):
        values["reader"] = json.loads(path.read_text())["checks"]["prompt_accuracy_held_out"]
    return values


def main(folder: str) -> int:
    values = of_run(Path(folder))
    for name, value in values.items():
        print(f"{name}: {value:.4g}")
    wrong = missed(values)
    for line in wrong:
        print(f"missed: {line}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
