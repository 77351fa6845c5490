"""Progressive distillation (Salimans & Ho 2202.00512): in every stage one student step learns two steps of its teacher.

In stage j the grid has N/2ʲ intervals. Two teacher steps lead from x_t to x₃ at t₃; the target D is the prediction whose single step
gets there: D = x_t − l_t·(x₃ − x_t)/(l₃ − l_t) with α = 1 and l = t (their Algorithm 2). The weight is max(α²/σ², 1), on Karras's process
max(1/t², 1). In the first stage the teacher is the guided solver, in later ones the student at the end of the stage before.

For k sampling steps the student is taken from the end of the stage with k intervals, and the sampler is its own `jump`, without noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from directcm.diffusion.processes import Process, expand
from directcm.distill.methods import Batch, Context, scale
from directcm.distill.students import Student

LABEL = "PD"
TEACHER, TARGETS, FORWARDS = True, "", 3
# N is 2, 4, 8 …: every stage halves it, until the student takes one step.
HALVES = True


def stage_of(step: int, steps: int, intervals: int) -> int:
    """The stage of a step, 0 … log₂ N − 1; all stages are equally long."""
    return min(step, steps - 1) * (intervals.bit_length() - 1) // steps


def decay(step: int, steps: int, context: Context) -> float:
    """0 at the end of a stage, where the student becomes the teacher of the next; else 1."""
    ends = stage_of(step + 1, steps, context.intervals) != stage_of(step, steps, context.intervals)
    return 0.0 if ends else 1.0


def ready(sampling_steps: int, steps: int, intervals: int) -> int:
    """The last step of the stage with `sampling_steps` intervals, or with the next larger number: 4 for 3. 0: only the teacher has it."""
    halvings = (intervals // sampling_steps).bit_length() - 1
    return -(-halvings * steps // (intervals.bit_length() - 1))


def student_forwards(step: int, steps: int, context: Context) -> int:
    """1, and in all stages but the first 2 more of the previous stage's student, which is the teacher."""
    return 1 if stage_of(step, steps, context.intervals) == 0 else FORWARDS


def teacher_steps(step: int, steps: int, context: Context) -> int:
    """2 in the first stage, then 0."""
    return 2 if stage_of(step, steps, context.intervals) == 0 else 0


def jump(process: Process, x: Tensor, end: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """DDIM's step to times s (B,) for a student that predicts `end` from x at times t (B,)."""
    ratio = expand(process.level(s) / process.level(t), x)
    return expand(process.alpha(s), x) * end + ratio * (x - expand(process.alpha(t), x) * end)


def aim(process: Process, x: Tensor, there: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The `end` with which `jump` leads from x at times t to `there` at times s."""
    ratio = process.level(s) / process.level(t)
    return (there - expand(ratio, x) * x) / expand(process.alpha(s) - ratio * process.alpha(t), x)


def loss(student: Student, batch: Batch, context: Context) -> Tensor:
    """Per-sample losses (B,)."""
    assert batch.x0 is not None and batch.eps is not None and batch.u is not None
    assert context.teacher is not None and context.ema_target is not None
    process, cond = student.process, batch.data_cond
    stage = stage_of(batch.step, batch.steps, context.intervals)
    intervals = context.intervals >> stage
    grid = process.grid(intervals).to(batch.u.device)
    first = 2 * (batch.u * (intervals // 2)).long()
    t, middle, last = grid[first], grid[first + 1], grid[first + 2]
    x = process.diffuse(batch.x0, batch.eps, t)
    with torch.no_grad():
        if stage == 0:
            half = context.solver.step(context.teacher, x, t, middle, cond, context.w)
            there = context.solver.step(context.teacher, half, middle, last, cond, context.w)
        else:
            half = jump(process, x, context.ema_target(x, t, cond), t, middle)
            there = jump(process, half, context.ema_target(half, middle, cond), middle, last)
        target = aim(process, x, there.to(x), t, last)
    weight = ((process.alpha(t) / process.sigma(t)) ** 2).clamp(min=1)
    return scale(weight, context.distance(student(x, t, cond), target))
