"""Sampling times: where on a student's grid its steps are, and what its network is told there."""

from __future__ import annotations


def step_indices(intervals: int, steps: int) -> list[int]:
    """Grid indices of `steps` student steps: numpy's round(linspace(0, N, steps, endpoint=False)), as in 2411.08954's released code."""
    return [round(i * (intervals / steps)) for i in range(steps)]


def told(timesteps: int, intervals: int, steps: int) -> list[int]:
    """The times that a diffusers U-Net is told in so many student steps on a process of `timesteps`: s - 1 at time s."""
    return [timesteps - timesteps // intervals * i - 1 for i in step_indices(intervals, steps)]
