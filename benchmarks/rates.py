"""Rates of the three things that cost: teacher forwards, CM and Direct CM training steps. Prints a Markdown table.

With --csv benchmarks/rates.csv the rates are written there too, which `directcm plan` reads; older ones of the same device and
teacher are replaced.

    python benchmarks/rates.py [--results results/embedded] [--rows 250] [--batch-size 32] [--repeats 20] [--threads 1]

On a GPU the same command measures the GPU. Needs a finished run (its teacher and latents).
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from directcm.cli.plan import COLUMNS, read_rates
from directcm.diffusion.solvers import make_solver
from directcm.diffusion.teachers import load
from directcm.distill import methods, students
from directcm.distill.encode import Latents
from directcm.distill.targets import Starts
from directcm.runtime.artifacts import open_artifact, provenance, write_csv


def seconds(call: Callable[[], object], repeats: int, device: str) -> tuple[float, float]:
    """Median and interquartile range of one call, after three warm-ups."""
    taken = []
    for i in range(repeats + 3):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        if i >= 3:
            taken.append(time.perf_counter() - start)
    low, middle, high = statistics.quantiles(taken, n=4)
    return middle, high - low


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--results", type=Path, default=Path("results/embedded"))
    p.add_argument("--rows", type=int, default=250)
    p.add_argument("--batch-size", type=int, default=32)
    p.add_argument("--repeats", type=int, default=20)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--adapter", default="lora64")
    p.add_argument("--precision", default="no", choices=["no", "fp16", "bf16"])
    p.add_argument("--csv", type=Path, help="file of rates to write to")
    p.add_argument("--device", help="what the device is called there; default: what it calls itself")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    artefact = open_artifact(a.results / "teacher", "teacher")
    teacher = load(artefact, device, a.precision)
    pool = Latents(open_artifact(a.results / "latents", "latents"))
    starts = Starts(pool, teacher.process, 50, 0)
    ids, k, x = starts(list(range(a.rows)))
    cond, x, t = pool.conditioning(ids).to(device), x.to(device), starts.grid[k].to(device)

    def forward() -> None:
        with torch.no_grad():
            teacher.predict(x, t, cond, 3.0)

    table, rates = [], []
    middle, spread = seconds(forward, a.repeats, device)
    table.append(
        (f"teacher, guided forward of {a.rows} rows", middle, spread, f"{2 * a.rows / middle:,.0f} U-Net rows/s")
    )
    rates.append(("teacher", 2 * a.rows / middle, f"guided forward of {a.rows} rows"))
    student = students.make_student(teacher, a.adapter, 0)
    optimizer = torch.optim.AdamW([p for p in student.teacher.network.parameters() if p.requires_grad], lr=1e-4)
    rows = slice(0, a.batch_size)
    end = (starts.grid[k + 1])[rows].to(device)
    some = methods.Batch(x[rows], t[rows], end, cond.rows(torch.arange(a.batch_size)), x[rows].clone())
    context = methods.Context(teacher, make_solver("ddim"), 3.0, methods.mse)
    for name in ("cm", "direct_cm"):
        method = methods.load(name)

        def step(method: object = method) -> None:
            method.loss(student, some, context).mean().backward()  # type: ignore[attr-defined]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        middle, spread = seconds(step, a.repeats, device)
        table.append((f"{name}, one step of {a.batch_size}", middle, spread, f"{a.batch_size / middle:,.0f} pairs/s"))
        rates.append((name, a.batch_size / middle, f"one step of {a.batch_size}, {a.adapter}"))
    facts = provenance()
    where = (
        torch.cuda.get_device_name()
        if device == "cuda"
        else f"{platform.processor() or platform.machine()}, {a.threads} thread(s)"
    )
    print(
        f"{facts['date']}, commit {(facts['commit'] or '?')[:12]}, {where}, torch {torch.__version__}, n = {a.repeats} each\n"
    )
    print("| what | median s | IQR s | rate |\n|---|---|---|---|")
    for name, middle, spread, rate in table:
        print(f"| {name} | {middle:.4f} | {spread:.4f} | {rate} |")
    if a.csv is not None:
        own = {
            "date": facts["date"][:10],
            "commit": (facts["commit"] or "?")[:12],
            "device": a.device or where,
            "teacher": f"{artefact.settings['kind']}, {artefact.json('teacher.json')['resolution']} px",
        }
        kept = [r for r in read_rates(a.csv) if (r["device"], r["teacher"]) != (own["device"], own["teacher"])]
        new = [
            {**own, "what": what, "per_second": f"{rate:.4g}", "n": a.repeats, "note": f"{note}, {a.precision}"}
            for what, rate, note in rates
        ]
        write_csv(a.csv, [*kept, *new], COLUMNS)


if __name__ == "__main__":
    main()
