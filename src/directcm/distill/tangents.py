"""Derivatives along the ODE, in forward mode: what the methods in continuous time share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from directcm.diffusion.distances import Distance
from directcm.diffusion.processes import Process, expand
from directcm.diffusion.teachers import Conditioning
from directcm.distill.students import Student
from directcm.runtime import compiled


def slope(process: Process, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """dx/dt = α′(t) x₀ + σ′(t) ε (B, …) at times t (B,).

    With x̂₀ and ε̂ of a teacher that is the ODE's, with those of an image an unbiased estimate of it (Song et al. 2303.01469, Lemma 1).
    """
    with forward_ad.dual_level():
        moving = process.diffuse(x0, eps, forward_ad.make_dual(t, torch.ones_like(t)))
        found: Tensor = forward_ad.unpack_dual(moving).tangent
    return found


# Of a gap relative to t: float32 resolves no derivative by differences at a smaller one.
SMALLEST = 1e-3


class Along(NamedTuple):
    """f (B, …) with its gradient, and without: its value, and its rate ḟ along the ODE per unit of time."""

    f: Tensor
    value: Tensor
    rate: Tensor


def derivative(
    student: Student, x: Tensor, t: Tensor, cond: Conditioning | None, dx: Tensor, gap: float = 0.0
) -> Along:
    """f(x, t) and ḟ = ∂f/∂t + ∂f/∂x·dx/dt, at x (B, …) with slope dx (B, …) and times t (B,).

    Two forwards, of the same dropout masks. The second, of value and derivative, records nothing for a backward pass: so activations
    may be computed again in that of the first, and a LoRA is merged. It has attention's plain kernel, the only one with forward mode,
    and the weights' own precision under autocast, because differences of nearly equal terms are what it is about.

    `gap`: ḟ's mean over the times from t(1 − gap) to t(1 + gap) on the tangent in place of ḟ at t, from a forward at each end. Less
    than `SMALLEST` is none.
    """
    # The generator's state is restored after each forward but the last, so that all draw the same masks.
    devices = [x.device] if x.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        f = student(x, t, cond)
    precise, plain = torch.autocast(x.device.type, enabled=False), sdpa_kernel(SDPBackend.MATH)
    if gap < SMALLEST:
        with torch.no_grad(), precise, plain, compiled.eager(), forward_ad.dual_level():
            # By ln t, then over t: the derivative of a network's time input, of 1/t, would overflow in half precision.
            moved = student(forward_ad.make_dual(x, expand(t, x) * dx), forward_ad.make_dual(t, t.clone()), cond)
            value, rate = forward_ad.unpack_dual(moved)
            return Along(f, value, rate / expand(t, rate))
    process = student.process
    late, early = (t * (1 + gap)).clamp(max=process.start), process.inner((t * (1 - gap)).clamp(min=process.end))
    with torch.no_grad(), precise:
        with torch.random.fork_rng(devices=devices):
            after = student(x + expand(late - t, x) * dx, late, cond)
        before = student(x + expand(early - t, x) * dx, early, cond)
        return Along(f, f.detach(), (after - before) / expand(late - early, x))


def free(f: Tensor) -> Tensor:
    """f − sg f: nothing in value, f in gradient."""
    return f - f.detach()


def curvature(distance: Distance, at: Tensor, v: Tensor) -> Tensor:
    """H v (B, …) for v (B, …), H the Hessian of d(y, at) in y at y = at (B, …)."""
    with torch.enable_grad():
        y = at.detach().requires_grad_()
        (first,) = torch.autograd.grad(distance(y, at.detach()).sum(), y, create_graph=True)
        return torch.autograd.grad(first, y, v)[0]
