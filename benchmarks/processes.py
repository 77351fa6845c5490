"""One process against two that share each batch: both loss curves in one plot, and by how much they differ.

    python benchmarks/processes.py [--results results/embedded] [--method cm] [--steps 250] [--processes 2] --out docs/images/processes.png

Needs a finished run's teacher and latents (and targets, for a method that learns from them). Runs `directcm train` and
`directcm launch --processes 2 -- train` as a cluster's job would, on CPUs by gloo, on GPUs by NCCL.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from directcm.analysis.figures import style
from directcm.runtime.artifacts import Artifact, open_artifact


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--results", type=Path, default=Path("results/embedded"))
    p.add_argument("--method", default="cm")
    p.add_argument("--steps", type=int, default=250)
    p.add_argument("--batch-size", type=int, default=16)
    p.add_argument("--processes", type=int, default=2)
    p.add_argument("--out", type=Path, required=True)
    a = p.parse_args()
    axes = {"method": a.method, "solver": "ddim", "N": 50, "w": 3, "adapter": "lora4", "loss": "mse", "lr": 1e-4}
    axes |= {"batch-size": a.batch_size, "steps": a.steps, "pool": a.steps * a.batch_size, "training-seed": 0}
    flags = [word for name, value in axes.items() for word in (f"--{name}", str(value))]
    flags += ["--snapshots", "--settings", "{}", "--seed", "0", "--threads", "1"]
    flags += ["--teacher", str(a.results / "teacher"), "--latents", str(a.results / "latents")]
    targets = sorted((a.results / "targets/solver~ddim,N~50,w~3").glob("shard~*"))
    if a.method == "direct_cm":
        flags += ["--targets", *map(str, targets)]
    students: dict[int, Artifact] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for count in (1, a.processes):
            start = [] if count == 1 else ["launch", "--processes", str(count), "--"]
            own = ["--scratch", f"{temporary}/scratch{count}", "--out", f"{temporary}/{count}"]
            began = time.perf_counter()
            subprocess.run([sys.executable, "-m", "directcm.cli", *start, "train", *flags, *own], check=True)
            print(f"{count} process(es): {time.perf_counter() - began:.1f} s")
            students[count] = open_artifact(Path(temporary) / str(count), "student")
        curves = {count: student.csv("curve.csv") for count, student in students.items()}
    draw(curves, a.method, a.out)


def draw(curves: dict[int, list[dict[str, str]]], method: str, out: Path) -> None:
    """The curves above, their relative difference below; prints the largest one."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    (_, one), (count, many) = sorted(curves.items())
    steps = [int(row["step"]) for row in one]
    losses = [[float(row["loss"]) for row in rows] for rows in (one, many)]
    # Equal losses are gaps in a logarithmic plot.
    apart = [abs(a - b) / abs(a) or math.nan for a, b in zip(*losses, strict=True)]
    known = sorted(value for value in apart if not math.isnan(value)) or [0.0]
    with style.styled():
        figure, (top, bottom) = plt.subplots(
            2, 1, figsize=(6, 4), sharex=True, height_ratios=[2, 1], layout="constrained"
        )
        top.plot(steps, losses[0], color="#0072B2", linewidth=2.5, label="1 process")
        top.plot(steps, losses[1], color="#D55E00", linewidth=1, linestyle="--", label=f"{count} processes")
        top.set_ylabel("training loss")
        top.legend(frameon=False)
        bottom.semilogy(steps, apart, color="black", linewidth=0.8)
        bottom.set_ylabel("relative difference")
        bottom.set_xlabel("optimiser step")
        figure.savefig(out, dpi=150)
    print(
        f"{method}: {len(steps)} steps, relative difference of the loss at most {known[-1]:.2g}, median {known[len(known) // 2]:.2g}"
    )


if __name__ == "__main__":
    main()
