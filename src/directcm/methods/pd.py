"""Progressive distillation (Salimans & Ho 2202.00512): one step of the student matches two of its teacher, again and again.

In stage j the grid has N/2ʲ intervals. From x_t two steps lead to x₃ at t₃; the target D is what one step has to aim at,
D = x_t − l_t·(x₃ − x_t)/(l₃ − l_t) with α = 1 and l = t (their Algorithm 2), weight max(α²/σ², 1), Karras's max(1/t², 1). The teacher's own
guided solver makes the first stage's steps, the student as it was at the end of the stage before those of the next.

In k steps it is sampled as it was at the end of the stage that left k intervals, without noise, by the jumps that it was trained on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from directcm.methods import Batch, Context, scale
from directcm.processes import Process, expand
from directcm.students import Student

LABEL = "PD"
TEACHER, TARGETS, FORWARDS = True, "", 3
# N is 2, 4, 8 …: it halves until the student takes one step.
HALVES = True


def stage_of(step: int, steps: int, intervals: int) -> int:
    """Which halving a step belongs to, 0 … log₂ N − 1; all get the same number of steps."""
    return min(step, steps - 1) * (intervals.bit_length() - 1) // steps


def decay(step: int, steps: int, context: Context) -> float:
    """0 at the end of a stage, where the student becomes the next one's teacher."""
    ends = stage_of(step + 1, steps, context.intervals) != stage_of(step, steps, context.intervals)
    return 0.0 if ends else 1.0


def ready(sampling_steps: int, steps: int, intervals: int) -> int:
    """The end of the stage that leaves so many intervals, of numbers that are none's the one with more of them; 0: the teacher's own."""
    halvings = (intervals // sampling_steps).bit_length() - 1
    return -(-halvings * steps // (intervals.bit_length() - 1))


def student_forwards(step: int, steps: int, context: Context) -> int:
    """The student as it was makes two steps for its own one; in the first stage the teacher does."""
    return 1 if stage_of(step, steps, context.intervals) == 0 else FORWARDS


def teacher_steps(step: int, steps: int, context: Context) -> int:
    """The first stage's alone ask the teacher."""
    return 2 if stage_of(step, steps, context.intervals) == 0 else 0


def jump(process: Process, x: Tensor, end: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """x at times s (B,) on the step of a student that predicts `end` from x at times t (B,): DDIM's, down to the process's end."""
    ratio = expand(process.level(s) / process.level(t), x)
    return expand(process.alpha(s), x) * end + ratio * (x - expand(process.alpha(t), x) * end)


def aim(process: Process, x: Tensor, there: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The `end` whose jump from x at times t leads to `there` at times s."""
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
