"""Distances for losses: (a, b), each (B, …) → (B,)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from directcm.config import specs
from directcm.errors import UserError
from directcm.runtime.artifacts import sha256
from directcm.runtime.weights import weights_file

DISTANCES = {
    "mse": {"rank": 1, "title": "MSE", "function": "mse"},
    "pseudo_huber": {"rank": 2, "title": "pseudo-Huber", "function": "pseudo_huber", "takes": ("huber_c",)},
    "l1": {"rank": 3, "title": "ℓ1", "function": "l1"},
    "lpips": {
        "rank": 4, "title": "LPIPS", "function": "lpips", "takes": ("device",), "weights": ("vgg16-397923af.pth",),
        "images": True,
    },
}  # fmt: skip

Distance = Callable[[Tensor, Tensor], Tensor]

# The linear layers' weights that `lpips` 0.1.4 ships for VGG, version 0.1.
HEADS_SHA256 = "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"
# VGG's training resolution. Smaller images are upsampled to it, as in the release of Song et al. (2303.01469).
SIDE = 224


def make(name: str, huber_c: float, device: torch.device | str) -> Distance:
    """The distance with a name of `specs.DISTANCES`; UserError if its weights are missing."""
    spec, given = specs.DISTANCES[name], {"huber_c": huber_c, "device": device}
    found = globals()[spec.function]
    return found(*(given[word] for word in spec.takes)) if spec.takes else found


def mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference over everything but the first dimension, (B,)."""
    return ((a - b) ** 2).flatten(1).mean(1)


def l1(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference over everything but the first dimension, (B,)."""
    return (a - b).abs().flatten(1).mean(1)


def pseudo_huber(c: float) -> Distance:
    """mean(√(δ² + c²) − c) over everything but the first dimension (Charbonnier et al. 1997)."""
    return lambda a, b: (((a - b) ** 2 + c**2).sqrt() - c).flatten(1).mean(1)


def norm_huber(share: float) -> Distance:
    """√(‖δ‖² + c²) − c of the whole difference, c = share·√d for d components (Song & Dhariwal 2310.14189, Section 3.3)."""

    def distance(a: Tensor, b: Tensor) -> Tensor:
        delta = (a - b).flatten(1)
        c = share * delta.shape[1] ** 0.5
        square = (delta**2).sum(1)
        # Equal to √(square + c²) − c, without the cancellation that makes it negative in float32 for large c.
        return square / ((square + c**2).sqrt() + c)

    return distance


def lpips(device: torch.device | str, state: Mapping[str, Tensor] | None = None) -> Distance:
    """LPIPS 0.1 on VGG-16 (Zhang et al. 1801.03924), of RGB images (B, 3, H, W) in [−1, 1], in float32.

    This is the published LPIPS; the release of Song et al. (2303.01469) has another, with average pooling for max pooling.
    `state`: VGG-16's weights under torchvision's names, instead of those in the weights cache.
    """
    if state is None:
        # Of this sha256, and runs no pickled code.
        file = weights_file(specs.DISTANCES["lpips"].weights[0])
        state = torch.load(file, map_location="cpu", weights_only=True)
    network = lpips_network(state).to(device)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        if a.shape[1] != 3:
            raise UserError(
                f"loss lpips compares RGB images, these have {a.shape[1]} channels; use {' or '.join(d.name for d in specs.DISTANCES.values() if not d.images)}"
            )
        with torch.autocast(a.device.type, enabled=False):
            pairs = zip(_features(network, a), _features(network, b), network.lins, strict=True)
            return sum((layer((f - g) ** 2).mean(dim=(1, 2, 3)) for f, g, layer in pairs), a.new_zeros(()))

    return distance


def _features(network: Any, images: Tensor) -> list[Tensor]:
    """VGG's features of five layers, normalised along the channels.

    The library's forward has a norm whose gradient is NaN where all channels are 0.
    """
    images = images.float()
    if min(images.shape[2:]) < SIDE:
        images = nn.functional.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    found = network.net(network.scaling_layer(images))
    return [f / (torch.linalg.vector_norm(f, dim=1, keepdim=True) + 1e-10) for f in found]


def lpips_network(vgg: Mapping[str, Tensor]) -> Any:
    """The library's network, frozen, with the given weights of VGG-16; nothing is downloaded."""
    import lpips as library

    # On the meta device: the library would first initialise all of VGG at random, with an unused classifier of 500 MB. Its call
    # of torchvision warns.
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = library.LPIPS(pretrained=False, net="vgg", pnet_rand=True, verbose=False)
    network.scaling_layer = library.ScalingLayer()
    heads = Path(library.__file__).parent / "weights" / "v0.1" / "vgg.pth"
    if not heads.is_file() or sha256(heads) != HEADS_SHA256:
        raise UserError(f"{heads}: is not what lpips 0.1.4 ships; install the locked environment again: make install")
    state = dict(torch.load(heads, map_location="cpu", weights_only=True))
    for name in network.net.state_dict():
        # slice1.0.weight is torchvision's features.0.weight.
        theirs = f"features.{name.partition('.')[2]}"
        if theirs not in vgg:
            raise UserError(f"lpips: the weights have no {theirs}; they are not torchvision's VGG-16")
        state[f"net.{name}"] = vgg[theirs].float()
    network.load_state_dict(state, strict=False, assign=True)
    return network.requires_grad_(False).eval()
