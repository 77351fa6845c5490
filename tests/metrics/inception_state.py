"""Weights of FID's Inception v3 that are the same everywhere and let images through: He's initialisation from a keyed generator."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from directcm.runtime import rng


def inception_state() -> dict[str, torch.Tensor]:
    """A state dict under pytorch-fid's names: convolutions and the last layer random, normalisations the identity but for an offset."""
    from directcm.evaluation.metrics.stand_in import _inception

    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        shapes = {name: tuple(value.shape) for name, value in _inception().items()}
    state = {}
    for name, shape in shapes.items():
        draw = rng.generator(0, f"inception {name}").standard_normal(shape).astype(np.float32)
        if name.endswith("conv.weight"):
            value = draw * (2 / np.prod(shape[1:])) ** 0.5
        elif name.startswith("fc."):
            value = 0.3 * draw
        elif name.endswith(("bn.weight", "running_var")):
            value = np.ones(shape, np.float32)
        elif name.endswith("num_batches_tracked"):
            value = np.zeros(shape, np.int64)
        else:
            value = 0.1 * draw
        state[name] = torch.from_numpy(np.asarray(value))
    return state
