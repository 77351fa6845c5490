"""Training speed at CIFAR-10's size: CD, CT and Direct CM as this project steps them, against the same step written plainly.

    python benchmarks/pixels.py [--batch-size 512] [--channels 128 256 256 256] [--side 32] [--repeats 10] [--precision bf16] [--compile]

Random images of that shape and random labels; speed does not depend on what is on them. Both arms do the same arithmetic on the same
network: a guided step of Heun's solver by the teacher where the method has one, the student's forwards, a backward, gradient
clipping, AdamW and the average of the weights. "Plainly" is what a first script does: guidance in two forwards, an optimiser and an
average that go through the weights one by one, float32, nothing compiled. Prints a Markdown table of images per second.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import platform
from collections.abc import Callable
from typing import Any

import torch
from plain import TwoForwards
from rates import seconds

from directcm.config import PixelUnet, registry
from directcm.diffusion.processes import VarianceExploding
from directcm.diffusion.solvers import make_solver
from directcm.diffusion.teachers import Conditioning
from directcm.diffusion.teachers.pixel_diffusion import PixelDiffusion, make_unet
from directcm.distill import methods
from directcm.distill.students import Student

NAMES = ("cd", "ct", "direct_cm")
W = 2.0
CLASSES = 10


class Plain(TwoForwards, PixelDiffusion):
    """The same teacher with guidance in two forwards."""


def step_of(name: str, plain: bool, a: argparse.Namespace, device: str) -> Callable[[], None]:
    """One training step of a method, ready to be called."""
    process = VarianceExploding()
    torch.manual_seed(0)
    unet = make_unet(PixelUnet(channels=tuple(a.channels), layers_per_block=a.layers, head_dim=64), a.side, CLASSES).to(
        device
    )
    kind = Plain if plain else PixelDiffusion
    frozen = kind(copy.deepcopy(unet).requires_grad_(False).eval(), process)
    student = Student(kind(unet, process))
    follower = copy.deepcopy(unet).requires_grad_(False)
    ema_target = Student(kind(follower, process))
    if a.compile and not plain:
        for owner in (frozen, student.teacher, ema_target.teacher):
            owner.network = torch.compile(owner.network)
    parameters, following = list(unet.parameters()), list(follower.parameters())
    options: dict[str, Any] = {"foreach": False} if plain else {"fused": True}
    optimizer = torch.optim.AdamW(parameters, lr=4e-4, **options)
    method = methods.load(name)
    hparams = dict(registry.methods()[name].hparams)
    context = methods.Context(
        frozen if method.TEACHER else None, make_solver("heun"), W, methods.mse, 18, hparams, ema_target
    )
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(a.precision)
    shape = (a.batch_size, 3, a.side, a.side)
    x0, eps = torch.rand(shape, device=device) * 2 - 1, torch.randn(shape, device=device)
    grid = process.grid(18).to(device)
    k = torch.randint(0, 18, (a.batch_size,), device=device)
    cond = Conditioning({"label": torch.randint(0, CLASSES, (a.batch_size,), device=device)})
    u = torch.rand(a.batch_size, dtype=torch.float64, device=device)
    batch = methods.Batch(
        process.diffuse(x0, eps, grid[k]), grid[k], grid[k + 1], cond, x0, x0, eps, cond, u, u, 400_000, 800_000
    )

    def step() -> None:
        with contextlib.nullcontext() if plain or half is None else torch.autocast(device, half):
            loss = method.loss(student, batch, context).float().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=not plain)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if hasattr(method, "decay"):
            keep = method.decay(batch.step, batch.steps, context)
            with torch.no_grad():
                if plain:
                    for target, p in zip(following, parameters, strict=True):
                        target.mul_(keep).add_(p, alpha=1 - keep)
                else:
                    torch._foreach_lerp_(following, [p.detach() for p in parameters], 1 - keep)

    return step


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--batch-size", type=int, default=512)
    p.add_argument("--channels", type=int, nargs="+", default=[128, 256, 256, 256])
    p.add_argument("--layers", type=int, default=2)
    p.add_argument("--side", type=int, default=32)
    p.add_argument("--repeats", type=int, default=10)
    p.add_argument("--precision", default="bf16", choices=["no", "fp16", "bf16"])
    p.add_argument("--compile", action="store_true")
    p.add_argument("--methods", nargs="+", default=list(NAMES))
    a = p.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    called = (
        torch.cuda.get_device_name()
        if device == "cuda"
        else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    )
    print(
        f"{called}; torch {torch.__version__}; {a.side}x{a.side}, batch {a.batch_size}, precision {a.precision}, compile {a.compile}, n = {a.repeats}\n"
    )
    print(
        "| method | plainly, images/s | here, images/s | times | IQR of a step, plainly / here |\n|---|---|---|---|---|"
    )
    for name in a.methods:
        found = []
        for plain in (True, False):
            found.append(seconds(step_of(name, plain, a, device), a.repeats, device))
            torch.cuda.empty_cache()
        (slow, slow_spread), (fast, fast_spread) = found
        rates = [a.batch_size / slow, a.batch_size / fast]
        print(
            f"| {registry.methods()[name].label} | {rates[0]:,.0f} | {rates[1]:,.0f} | {rates[1] / rates[0]:.2f} "
            f"| {100 * slow_spread / slow:.0f} % / {100 * fast_spread / fast:.0f} % |",
            flush=True,
        )


if __name__ == "__main__":
    main()
