"""Sampling times of a student: grid indices, and the timesteps its network gets there."""

from __future__ import annotations


def step_indices(intervals: int, steps: int) -> list[int]:
    """Grid indices of `steps` student steps: round(linspace(0, N, steps, endpoint=False)), as in the released code of 2411.08954."""
    return [round(i * (intervals / steps)) for i in range(steps)]


def told(timesteps: int, intervals: int, steps: int) -> list[int]:
    """The `timesteps` to pass to diffusers for so many student steps on a process of `timesteps`: s - 1 at time s."""
    return [timesteps - timesteps // intervals * i - 1 for i in step_indices(intervals, steps)]
