"""Size and coverage of every kind of test that the verb `compare` makes, by simulation. Prints a table; --write puts it into docs/statistics.md.

    python benchmarks/inference.py [--runs 600] [--dear 300] [--jobs 2] [--csv benchmarks/inference.csv] [--write] [--quick]

Simulated are prompts that all sets share, two methods with students of several seeds (or one student for each of several teachers), and a
reference, as features of 3 numbers at 96 prompts. Four worlds:

- near: the methods and the reference have one distribution, and students do not differ: every distance is degenerate there
- prompts: both methods lie off the reference; each has a way of its own with each prompt, the same in all seeds; students do not differ
- both: the same, and students differ about as much as prompts make of a mean
- apart: the same, and the methods differ: for the coverage of a difference that is not 0 (its truth is the mean over runs), and power

In the first three the two methods are exchangeable, so that every difference is 0: how often one is called significant is the
size of the rule that tables and claims share (p at most 0.05). Every number is a share of --runs
replications (--dear for what takes long: FD∞, precision, recall, density, coverage).
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from directcm.runtime import rng
from directcm.statistics import inference, neighbours
from directcm.statistics.frechet import SUBSETS, infinite_sizes
from directcm.statistics.manifold import manifold

ALPHA = 0.05
PROMPTS, DIM = 96, 3
# The p over prompts alone, which these are for, decides nothing.
PERMUTATIONS, RESAMPLES = 9, 9
# Pairs of halves: half as many as `compare` takes, and for precision and the like half of these, as there.
PAIRS = 100
# name: (units, whether each unit is a teacher).
DESIGNS = {"3 seeds": (3, False), "5 seeds": (5, False), "10 seeds": (10, False), "5 teachers": (5, True)}
# name: (offset from the reference, spread of students, a method's own way with a prompt, difference of the methods).
WORLDS = {
    "near": (0.0, 0.0, 0.0, 0.0),
    "prompts": (0.5, 0.0, 0.7, 0.0),
    "both": (0.5, 0.08, 0.7, 0.0),
    "apart": (0.5, 0.08, 0.7, 0.15),
}
NULLS = ("near", "prompts", "both")
CHEAP = {"mean": "mean per prompt", "frechet": "FD", "kid": "KID", "cmmd": "CMMD"}
DEAR = {"fd_inf": "FD∞", "precision": "precision", "recall": "recall", "density": "density", "coverage": "coverage"}
KINDS = CHEAP | DEAR
COLUMNS = ["design", "world", "kind", "runs", "size", "coverage", "truth", "sd", "half_width"]
MARKS = "<!--inference-->", "<!--/inference-->"
DOCS = Path(__file__).parents[1] / "docs/statistics.md"


def features(design: str, world: str, run: int, purpose: str = "") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sets a, b (S, n, D) and their reference: (n, D), or with teachers (S, n, D)."""
    units, teachers = DESIGNS[design]
    offset, spread, own, apart = WORLDS[world]
    g = rng.generator(run, f"inference {design} {world} {purpose}")
    prompt = g.standard_normal((PROMPTS, DIM))

    def noisy(size: tuple[int, ...], own: float) -> np.ndarray:
        """N(0, 1) per number: half of the variance is the prompt's, a share own² of the rest the same in all units."""
        repeated = g.standard_normal((*size[:1], 1, *size[2:])) if own else 0.0
        rest = own * repeated + math.sqrt(1 - own**2) * g.standard_normal(size)
        return math.sqrt(0.5) * (prompt + rest)

    # What a teacher makes of everything, its reference and its students.
    common = 0.3 * g.standard_normal((units, 1, DIM)) if teachers else np.zeros((1, 1, DIM))
    student = spread * g.standard_normal((2, units, 1, DIM))
    a, b = noisy((2, units, PROMPTS, DIM), own) + student + common + offset
    reference = noisy((1, units if teachers else 1, PROMPTS, DIM), 0.0)[0] + common
    return a + apart, b, reference if teachers else reference[0]


def fd_infinite(sets: Sequence[np.ndarray], reference: np.ndarray, seed: int) -> np.ndarray:
    """FD∞ of each set (n, D), less what depends on the reference alone: `statistics.frechet.frechet_infinite`, all subsets at once."""
    n, dim = reference.shape
    sizes = infinite_sizes(n, dim)
    means = []
    for size in sizes:
        kept = np.zeros((SUBSETS if size < n else 1, n), dtype=bool)
        for subset, own in enumerate(kept):
            epoch, place = divmod(subset, n // size)
            own[rng.permutation(seed, f"fd_inf_{size}", n, epoch)[place * size : (place + 1) * size]] = True
        means.append(inference._frechet_halves(sets, reference, kept).mean(axis=1))
    design = np.stack([np.ones(len(sizes)), 1 / np.array(sizes, dtype=np.float64)], axis=1)
    return np.linalg.lstsq(design, np.array(means), rcond=None)[0][0]


def tested(kinds: Sequence[str], sets: tuple[np.ndarray, np.ndarray, np.ndarray], run: int) -> Iterator[tuple]:
    """(kind, its crossed difference), as `analysis.data.compare` has them."""
    a, b, reference = sets
    references = np.broadcast_to(reference, a.shape)

    frechet = parts = numbers = None
    if {"frechet", "fd_inf"} & {*kinds}:
        frechet = inference.frechet_difference_halves(a, b, reference, run, PAIRS)
    if {*neighbours.PARTS} & {*kinds}:
        parts = neighbours.manifold_difference_halves(a, b, reference, run, PAIRS // 2)
        both = [[manifold(x, r) for x, r in zip(side, references, strict=True)] for side in (a, b)]
        numbers = {p: np.array([[getattr(m, p) for m in side] for side in both]) for p in neighbours.PARTS}
    for kind in kinds:
        if kind == "mean":
            errors = [((side - references) ** 2).mean(axis=2) for side in (a, b)]
            mean = inference.paired_bootstrap(*errors, RESAMPLES, run)
            per, shared = mean.per_seed, mean.shared
        elif kind in ("frechet", "kid", "cmmd"):
            if kind == "frechet":
                own = inference.frechet_difference_test(a, b, reference, PERMUTATIONS, run, halves=frechet)
            else:
                own = inference.kernel_difference_test(a, b, reference, kind, PERMUTATIONS, run, pairs=PAIRS)
            per, shared = own.per_seed, own.shared
        else:
            if kind == "fd_inf":
                if reference.ndim == 2:
                    per = np.subtract(*np.split(fd_infinite([*a, *b], reference, run), 2))
                else:
                    each = zip(a, b, reference, strict=True)
                    per = np.array([np.subtract(*fd_infinite([x, y], r, run)) for x, y, r in each])
                spread = frechet.extrapolated(infinite_sizes(PROMPTS, DIM), SUBSETS)
            else:
                per, spread = numbers[kind][0] - numbers[kind][1], parts[kind].count
            shared = spread.shared
        yield kind, inference.crossed(per, shared, PROMPTS, 1 - ALPHA)


def cell(job: tuple[str, str, tuple[str, ...], int]) -> list[dict[str, object]]:
    """The lines of one design in one world."""
    design, world, kinds, runs = job
    found: dict[str, list[tuple]] = {kind: [] for kind in kinds}
    for run in range(runs):
        for kind, whole in tested(kinds, features(design, world, run), run):
            low, high = (-math.inf, math.inf) if whole.low is None else (whole.low, whole.high)
            found[kind].append((whole.difference, low, high, 1.0 if whole.p is None else whole.p))
    lines = []
    for kind, rows in found.items():
        difference, low, high, p = np.array(rows).T
        truth = 0.0 if world in NULLS else float(difference.mean())
        lines.append({
            "design": design, "world": world, "kind": kind, "runs": runs, "size": float(np.mean(p <= ALPHA)),
            "coverage": float(np.mean((low <= truth) & (truth <= high))), "truth": truth,
            "sd": float(difference.std(ddof=1)), "half_width": float(np.median((high - low) / 2)),
        })  # fmt: skip
    return lines


def jobs(runs: int, dear: int) -> list[tuple[str, str, tuple[str, ...], int]]:
    """The long ones first."""
    cells = [(design, world) for design in sorted(DESIGNS, key=lambda d: -DESIGNS[d][0]) for world in WORLDS]
    wanted = (((*DEAR,), dear), ((*CHEAP,), runs))
    return [(design, world, kinds, count) for kinds, count in wanted for design, world in cells]


def table(lines: Sequence[dict[str, str]]) -> str:
    """Size and coverage by kind and design, in Markdown: over all null worlds, and the one furthest off; power where methods differ."""
    out = [
        "| test | design | replications | size | in the worlds | coverage at 0 | coverage apart | power apart |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, title in KINDS.items():
        for design in DESIGNS:
            own = {line["world"]: line for line in lines if (line["kind"], line["design"]) == (kind, design)}
            nulls = [own[world] for world in NULLS if world in own]
            if not nulls:
                continue
            size, covered = (np.mean([float(line[name]) for line in nulls]) for name in ("size", "coverage"))
            each = ", ".join(f"{float(own[w]['size']):.3f}" if w in own else "–" for w in NULLS)
            apart = own.get("apart")
            last = f"{float(apart['coverage']):.3f} | {float(apart['size']):.2f}" if apart else "– | –"
            out.append(
                f"| {title} | {design} | {sum(int(line['runs']) for line in nulls):,} | {size:.3f} | {each} | {covered:.3f} | {last} |"
            )
    return "\n".join(out)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--runs", type=int, default=600, help="replications of a cell")
    p.add_argument("--dear", type=int, default=300, help="replications of a cell of the tests that take long")
    p.add_argument("--jobs", type=int, default=2)
    p.add_argument("--csv", type=Path, help="file to write every cell to")
    p.add_argument(
        "--write",
        action="store_true",
        help=f"put the table of --csv into {DOCS.name}; runs nothing where that file is there",
    )
    p.add_argument(
        "--quick", action="store_true", help="a few replications of everything, in seconds: says only that it runs"
    )
    a = p.parse_args()
    runs, dear = (4, 2) if a.quick else (a.runs, a.dear)
    if not (a.write and a.csv and a.csv.is_file()):
        os.environ["OMP_NUM_THREADS"] = "1"
        with ProcessPoolExecutor(a.jobs) as pool:
            lines = []
            for found in pool.map(cell, jobs(runs, dear)):
                lines += found
                print(f"{found[0]['design']}, {found[0]['world']}: {len(lines)} lines", file=sys.stderr, flush=True)
        if a.csv:
            with a.csv.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(lines)
    if a.csv:
        with a.csv.open(encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
    text = table(lines)
    print(text)
    if a.write:
        before, _, rest = DOCS.read_text(encoding="utf-8").partition(MARKS[0])
        _, _, after = rest.partition(MARKS[1])
        DOCS.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
