"""SDXL's size on one GPU, with random weights: the training steps against the same steps written plainly, and the work around them.

    python benchmarks/sdxl.py                  # an H100 or H200, at most six minutes; prints a Markdown table
    python benchmarks/sdxl.py --rehearse       # all of it, small, on a CPU

No weights, no network. "Plainly" is what a first script does: guidance in two forwards, the LoRA's own layers in every forward,
gradient checkpointing, nothing compiled, an optimiser that goes through the weights in groups. Both arms compute the same loss.
Every call is repeated after two that warm up; a row is the median. `--seconds` is what all of it may take: what does not fit any more is
named. The card's peak is measured by a product of two matrices; a row's arithmetic is counted by torch.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from plain import TwoForwards
from torch import Tensor, nn

from directcm.config import load_config
from directcm.config.specs import EXTRACTORS
from directcm.diffusion.distances import mse
from directcm.diffusion.processes import VariancePreserving
from directcm.diffusion.solvers import make_solver, solve
from directcm.diffusion.teachers import Conditioning
from directcm.diffusion.teachers.codec import to_images
from directcm.diffusion.teachers.latent_diffusion import LatentDiffusion
from directcm.diffusion.teachers.stand_in import FULL, SMALL, Sizes, make_unet, make_vae
from directcm.distill import methods, students
from directcm.distill.students import Student
from directcm.errors import UserError
from directcm.evaluation.metrics import stand_in
from directcm.evaluation.metrics.extractors import FeatureExtractor, build_extractors
from directcm.evaluation.metrics.features import features
from directcm.runtime import compiled, pace
from directcm.runtime.artifacts import new_artifact, open_artifact, provenance, write_csv, write_json
from directcm.runtime.loop import Job, constant, fit, make_accelerator
from directcm.runtime.pace import Pace
from directcm.runtime.threads import ahead
from directcm.runtime.weights import VARIABLE

W, N = 9.0, 100
ROOT = Path(__file__).parents[1]


class Plain(TwoForwards, LatentDiffusion):
    """The same teacher with guidance in two forwards."""


class Unmerged(Student):
    """A student that runs its LoRA in every forward."""

    def __call__(self, x: Tensor, t: Tensor, cond: Conditioning | None) -> Tensor:
        with torch.enable_grad() if torch.is_grad_enabled() else self._as_it_is():
            return super().__call__(x, t, cond)

    @contextmanager
    def _as_it_is(self) -> Iterator[None]:
        # The class merges where no gradient is recorded: it is recorded, on weights that ask for none.
        asked = [p for p in self.teacher.network.parameters() if p.requires_grad]
        for p in asked:
            p.requires_grad_(False)
        try:
            with torch.enable_grad():
                yield
        finally:
            for p in asked:
                p.requires_grad_(True)


@dataclass
class Bench:
    """The device, the sizes, and the rows measured so far."""

    sizes: Sizes
    resolution: int
    rows: int
    rank: int
    device: str
    precision: str
    until: float
    repeats: int
    workers: int
    peak: float = 0.0
    flop: float = 0.0
    table: list[dict[str, Any]] = field(default_factory=list)

    def sync(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def measure(self, what: str, call: Callable[[], object], rows: int, forwards: float | None = None) -> float | None:
        """Seconds of a call that handles `rows`, with `forwards` rows through the U-Net each; None if there is no time left."""
        if time.monotonic() > self.until:
            self.table.append({"what": f"{what}: not measured, no time left"})
            return None
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        taken: list[float] = []
        for n in range(self.repeats + 2):
            self.sync()
            begun = time.perf_counter()
            call()
            self.sync()
            if n >= 2:
                taken.append(time.perf_counter() - begun)
            if taken and time.monotonic() > self.until:
                break
        return self.note(what, statistics.median(taken), rows, forwards, len(taken))

    def note(self, what: str, seconds: float, rows: int, forwards: float | None, n: int) -> float:
        share = None if forwards is None or not self.peak else forwards * rows * self.flop / seconds / self.peak
        gib = torch.cuda.max_memory_allocated() / 2**30 if self.device == "cuda" else None
        self.table.append(
            {"what": what, "seconds": seconds, "rate": rows / seconds, "share": share, "gib": gib, "n": n}
        )
        print(self.line(self.table[-1]), flush=True)
        return seconds

    @staticmethod
    def line(row: dict[str, Any]) -> str:
        if "seconds" not in row:
            return f"| {row['what']} | | | | | |"
        share = "" if row["share"] is None else f"{row['share']:.2f}"
        gib = "" if row["gib"] is None else f"{row['gib']:.0f}"
        return f"| {row['what']} | {row['seconds']:.3f} | {row['rate']:.1f} | {share} | {gib} | {row['n']} |"

    def dtype(self) -> torch.dtype:
        return {"fp16": torch.float16, "bf16": torch.bfloat16, "no": torch.float32}[self.precision]

    def teacher(self, unet: Any, kind: type[LatentDiffusion] = LatentDiffusion) -> LatentDiffusion:
        return kind(unet, VariancePreserving.scaled_linear(), self.resolution)

    def batch(self, rows: int, endpoint: bool) -> methods.Batch:
        """Random rows; speed does not depend on what is on them."""
        side = self.resolution // 2 ** (len(self.sizes.vae) - 1)
        draw = torch.Generator(self.device).manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(rows, *shape, generator=draw, device=self.device)

        width = self.sizes.first.width + self.sizes.second.width
        cond = Conditioning(
            {"prompt_embeds": normal(self.sizes.tokens, width), "pooled": normal(self.sizes.second.width)}
        )
        t = torch.full((rows,), 500.0, dtype=torch.float64, device=self.device)
        x, other = normal(4, side, side), normal(4, side, side)
        return methods.Batch(x, t, t - 1000 // N, cond, other if endpoint else None, x_next=None if endpoint else other)


def matrix_peak(bench: Bench) -> None:
    """The card's arithmetic, in half precision: floating-point operations a second of a large matrix product."""
    size = 8192 if bench.device == "cuda" else 512
    kind = torch.bfloat16 if bench.device == "cuda" else torch.float32
    a = torch.randn(size, size, device=bench.device, dtype=kind)
    seconds = bench.measure(f"product of two {size} × {size} matrices ({kind})", lambda: a @ a, 1)
    assert seconds is not None
    bench.peak = 2 * size**3 / seconds
    print(f"  peak {bench.peak / 1e12:.1f} TFLOP/s", flush=True)


def count_flop(bench: Bench, unet: Any) -> None:
    """One row's forward, counted by torch."""
    from torch.utils.flop_counter import FlopCounterMode

    one = bench.batch(1, False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        bench.teacher(unet).noise(one.x, one.t, one.cond)
    bench.flop = float(counter.get_total_flops())
    print(f"  {bench.flop / 1e12:.3f} TFLOP a row", flush=True)


def teacher_rows(bench: Bench, unet: Any) -> float | None:
    """The guided teacher, eager and compiled, and through `solve()`. Seconds of a compiled guided step of a batch."""
    batch = bench.batch(bench.rows, False)
    name = f"teacher, guided, {bench.rows} ({2 * bench.rows} rows)"

    def guided(teacher: LatentDiffusion) -> None:
        with torch.no_grad():
            teacher.predict(batch.x, batch.t, batch.cond, W)

    eager = bench.teacher(unet)
    bench.measure(f"{name}, eager", lambda: guided(eager), 2 * bench.rows, 1)
    fast = bench.teacher(students.share(unet))
    compiled.blocks(fast.network)
    step = bench.measure(f"{name}, blocks compiled", lambda: guided(fast), 2 * bench.rows, 1)
    x, intervals = batch.x.cpu(), 10
    starts = torch.full((bench.rows,), intervals - 2)
    cond = Conditioning({k: v.cpu() for k, v in batch.cond.tensors.items()})
    ddim = make_solver("ddim")

    def solved() -> None:
        solve(fast, ddim, x, starts, intervals, cond, W, bench.rows)

    bench.measure("the same through solve(), two steps", solved, 4 * bench.rows, 1)
    return step


def student_rows(bench: Bench, unet: Any) -> None:
    """One student forward without gradient: its LoRA's own layers, and merged."""
    batch = bench.batch(bench.rows, False)
    for what, kind in (("LoRA in its own layers, eager", Unmerged), ("LoRA merged, blocks compiled", Student)):
        compiled.enable("on" if kind is Student else "off", bench.device, backend())
        student = kind(students.make_student(bench.teacher(unet), f"lora{bench.rank}", 0).teacher)

        def forward(student: Student = student) -> None:
            with torch.no_grad(), autocast(bench):
                student(batch.x, batch.t, batch.cond)

        bench.measure(f"student forward, {bench.rows}, {what}", forward, bench.rows, 1)


def backend() -> str:
    """torch's compiler on a GPU; on a CPU the graphs are traced and run as they are."""
    return "inductor" if torch.cuda.is_available() else "eager"


@contextmanager
def autocast(bench: Bench) -> Iterator[None]:
    with torch.autocast(bench.device, dtype=bench.dtype(), enabled=bench.precision != "no"):
        yield


def plain_step(bench: Bench, unet: Any, name: str) -> float | None:
    """A training step as a first script has it; from given points, so that CM's guided step is a part of it."""
    method, endpoint = methods.load(name), name == "direct_cm"
    teacher = bench.teacher(unet, Plain)
    student = Unmerged(students.make_student(bench.teacher(unet), f"lora{bench.rank}", 0).teacher)
    network = student.teacher.network
    network.enable_gradient_checkpointing()
    network.train()
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    scaler = torch.amp.GradScaler(bench.device, enabled=bench.precision == "fp16" and bench.device == "cuda")
    given = bench.batch(bench.rows, endpoint)
    batch = methods.Batch(given.x, given.t, given.t_next, given.cond, given.endpoint)
    context = methods.Context(teacher, make_solver("ddim"), W, mse)

    def step() -> None:
        with autocast(bench):
            loss = method.loss(student, batch, context).float().mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(trained, 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    forwards = 3.0 if endpoint else 6.0
    return bench.measure(f"{name}, one step of {bench.rows}, plain", step, bench.rows, forwards)


def our_step(bench: Bench, unet: Any, name: str) -> float | None:
    """The training loop itself, from stored steps or endpoints, at the pace that it chooses."""
    if time.monotonic() > bench.until:
        bench.table.append({"what": f"{name}: not measured, no time left"})
        return None
    compiled.enable("on", bench.device, backend())
    method, endpoint = methods.load(name), name == "direct_cm"
    student = students.make_student(bench.teacher(unet), f"lora{bench.rank}", 0)
    network = student.teacher.network
    network.train()
    whole = bench.batch(bench.rows, endpoint)
    context = methods.Context(None, make_solver("ddim"), W, mse)
    accelerator = make_accelerator(bench.precision)

    def loss(step: int, rows: np.ndarray) -> Tensor:
        index = torch.as_tensor(rows % bench.rows, device=bench.device)

        def some(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[index]

        part = methods.Batch(
            whole.x[index],
            whole.t[index],
            whole.t_next[index],
            whole.cond.rows(index),
            some(whole.endpoint),
            x_next=some(whole.x_next),
        )
        return method.loss(student, part, context)

    def tried(at: Pace) -> float | None:
        seconds = pace.measured(partial(pace.attempt, network, loss, accelerator), at)
        print(f"  {at}: {'does not fit' if seconds is None else f'{seconds * at.micro_batch:.2f} s'}", flush=True)
        return seconds

    chosen = pace.choose(bench.rows, "auto", "auto", tried if bench.device == "cuda" else None)
    pace.checkpoint(network, chosen.gradient_checkpointing)
    if bench.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    at: list[float] = []

    def changed() -> None:
        student.changed()
        at.append(time.perf_counter())

    fit(
        Job(
            name,
            {"unet": network},
            loss,
            bench.repeats + 3,
            bench.rows,
            constant(1e-4),
            weight_decay=1e-2,
            grad_clip=1.0,
            micro_batch=chosen.micro_batch,
            changed=changed,
        ),
        accelerator,
    )
    forwards = 3.0 if endpoint else 4.0
    how = f"checkpointing {'on' if chosen.gradient_checkpointing else 'off'}, {chosen.micro_batch} rows a pass"
    taken = np.diff(at)[2:].tolist()
    return bench.note(
        f"{name}, one step of {bench.rows}, ours ({how})", statistics.median(taken), bench.rows, forwards, len(taken)
    )


def around(bench: Bench, unet: Any) -> None:
    """Encoding images, and a student's one-step samples to PNG files, with threads for what the CPU does."""
    vae = make_vae(bench.sizes, bench.resolution).to(bench.device, bench.dtype()).requires_grad_(False).eval()
    compiled.enable("on", bench.device, backend())
    student = students.make_student(bench.teacher(unet), f"lora{bench.rank}", 0)
    batch = bench.batch(bench.rows, False)
    rounds = 4

    def decoded(latents: Tensor) -> Tensor:
        parts = latents.to(bench.dtype()).split(bench.rows)
        return torch.cat([vae.decode(part / 0.13025).sample for part in parts])

    with tempfile.TemporaryDirectory() as folder:

        def images() -> Iterator[tuple[Path, Any]]:
            with torch.no_grad():
                for n in range(rounds):
                    with autocast(bench):
                        latents = student(batch.x, batch.t, batch.cond)
                    for i, image in enumerate(to_images(decoded(latents))):
                        yield Path(folder) / f"{n * bench.rows + i:05d}.png", image

        def sample() -> None:
            for _ in ahead(lambda item: item[1].save(item[0], compress_level=1), images(), bench.workers):
                pass

        count = rounds * bench.rows
        bench.measure(f"one-step samples to PNG, {count} images, {bench.workers} threads", sample, count)

        def read(path: Path) -> Tensor:
            from PIL import Image

            return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)

        def encode() -> None:
            waiting: list[Tensor] = []
            with torch.no_grad():
                for pixels in ahead(read, sorted(Path(folder).glob("*.png")), bench.workers):
                    waiting.append(pixels)
                    if len(waiting) == 8:
                        x = torch.stack(waiting).to(bench.device).to(bench.dtype()) / 127.5 - 1
                        vae.encode(x).latent_dist.mean.cpu()
                        waiting.clear()

        bench.measure(f"encode from PNG, {count} images, {bench.workers} threads", encode, count)
        one_pass(bench, Path(folder))


def one_pass(bench: Bench, folder: Path) -> None:
    """The verb `features` on the PNG files of a folder, by all extractors of the preset `paper`, whose weights are random here."""
    if time.monotonic() > bench.until:
        bench.table.append({"what": "features: not measured, no time left"})
        return
    torch.set_num_threads(bench.workers)
    built = random_extractors(bench, folder)
    files = 2 * sorted(folder.glob("*.png"))
    rows = [
        {"id": i, "row": i, "file_name": f"images/{i:05d}.png", "text": f"image {i}", "label": "", "split": "train"}
        for i in range(len(files))
    ]
    with new_artifact(folder / "data", "data", settings={}) as art:
        for row, path in zip(rows, files, strict=True):
            (art / row["file_name"]).hardlink_to(path)
        write_csv(art / "images.csv", rows, [*rows[0]])
        write_json(art / "data.json", {"n_train": len(rows)})
    with new_artifact(folder / "noise", "noise", settings={}) as art:
        write_csv(art / "prompts.csv", rows, [*rows[0]])

    def extract(extractors: Sequence[FeatureExtractor]) -> None:
        # Opened each time: a job checks every image that it reads.
        data, noise = open_artifact(folder / "data", "data"), open_artifact(folder / "noise", "noise")
        outs = [folder / "features" / one.name for one in extractors]
        features(extractors, None, data, noise, bench.rows, outs)

    about = f"{len(files)} images, {bench.workers} threads"
    names = f"features, one pass for all {len(built)} extractors of the preset (random weights), {about}"
    bench.measure(names, lambda: extract(built), len(files))
    bench.measure(f"features, the same by {built[0].name} alone, {about}", lambda: extract(built[:1]), len(files))


def random_extractors(bench: Bench, folder: Path) -> list[FeatureExtractor]:
    """The five extractors of the preset `paper` with random weights: of the published sizes on a GPU, else small ones."""
    names = load_config(ROOT / "config.yaml", ROOT / "workflow/presets/paper.yaml").extractor_names()
    weights = dict.fromkeys(file for name in names for file in EXTRACTORS[name].weights)
    stand_in.save(folder / "weights", weights, bench.device != "cuda")
    with patch.dict(os.environ, {VARIABLE: str(folder / "weights")}):
        return build_extractors(names, device=bench.device)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rehearse", action="store_true", help="all of it, small, on a CPU")
    p.add_argument("--seconds", type=float, default=330, help="what all of it may take")
    p.add_argument("--memory", type=float, help="GiB of the card that may be used, 78 for an H100's")
    p.add_argument("--precision", default="fp16", choices=["fp16", "bf16"])
    p.add_argument("--repeats", type=int, default=4)
    p.add_argument("--workers", type=int, default=16)
    a = p.parse_args()
    until = time.monotonic() + a.seconds
    if a.rehearse:
        bench = Bench(SMALL, 64, 2, 4, "cpu", "no", until, 1, 2)
    elif torch.cuda.is_available():
        bench = Bench(FULL, 1024, 16, 64, "cuda", a.precision, until, a.repeats, a.workers)
        if a.memory:
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, a.memory * 2**30 / total))
    else:
        raise SystemExit("sdxl: there is no GPU here; --rehearse runs all of it small on a CPU")
    facts = provenance()
    card = torch.cuda.get_device_name() if bench.device == "cuda" else platform.machine()
    print(
        f"{facts['date'][:10]}, commit {(facts['commit'] or '?')[:12]}, {card}, torch {torch.__version__}, {bench.precision}"
    )
    print("\n| what | seconds | rows or images/s | share of peak | GiB | n |\n|---|---|---|---|---|---|", flush=True)
    compiled.enable("on", bench.device, backend())
    torch.manual_seed(0)
    matrix_peak(bench)
    with torch.device(bench.device):
        unet = make_unet(bench.sizes, bench.resolution)
    unet.to(bench.dtype()).requires_grad_(False).eval()
    count_flop(bench, unet)
    first_step = teacher_rows(bench, unet)
    ratios = []
    for name in ("cm", "direct_cm"):
        try:
            plain, ours = plain_step(bench, unet, name), our_step(bench, unet, name)
        except (torch.OutOfMemoryError, UserError) as error:
            bench.table.append({"what": f"{name}: {str(error).splitlines()[0]}"})
            continue
        if plain and ours:
            ratios.append(f"{name}: {plain / ours:.2f} times as fast as the plain step")
            if name == "cm" and first_step:
                ratios.append(f"cm, with the solve's first step added: {plain / (ours + first_step):.2f} times")
    student_rows(bench, unet)
    around(bench, unet)
    print("\n| what | seconds | rows or images/s | share of peak | GiB | n |\n|---|---|---|---|---|---|")
    print("\n".join(bench.line(row) for row in bench.table))
    print("\n" + "\n".join(ratios))


if __name__ == "__main__":
    main()
