"""Pure noise that stands for x_t at another time than the process's start: what a student starts from that is told a later time.

No method of `Process`, for teachers, which depend on that module's code, know nothing of it.
"""

from __future__ import annotations

import functools

from torch import Tensor

from directcm.diffusion.processes import Process, VarianceExploding, expand


@functools.singledispatch
def pure_noise(process: Process, noise: Tensor, t: Tensor) -> Tensor:
    """x (B, …) at times t (B,) from standard normal noise (B, …), of the scale that a network knows there; at `start` it is `Process.prior`.

    On VP, where x_t of data of unit variance has unit variance at every t, it is the noise itself; on VE t·noise, x_t without its data.
    A choice, and no sample of the process: at t < start x_t has a part of the data, which pure noise has not.
    """
    return process.prior(noise)


@pure_noise.register
def _(process: VarianceExploding, noise: Tensor, t: Tensor) -> Tensor:
    return expand(process.sigma(t), noise) * noise
