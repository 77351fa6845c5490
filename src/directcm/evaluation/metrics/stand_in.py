"""Random weights in the files of published extractors and distances: what a rehearsal measures with (`directcm rehearse`).

Full ones have the published networks' sizes, so time and memory are the real thing's. Small ones are what the same code takes that
is smaller: only pytorch-fid's Inception comes in one size.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from directcm.evaluation.metrics.extractors import DinoSize, legacy_inception
from directcm.evaluation.metrics.quality import QualityHead
from directcm.runtime import rng
from directcm.runtime.artifacts import sha256, write_json
from directcm.runtime.weights import STAND_INS

State = dict[str, Tensor]
SMALL_DINO = DinoSize(hidden=64, layers=2, heads=1)
EMBEDDING = 768


def save(folder: Path, names: Iterable[str], small: bool, seed: int = 0) -> None:
    """Write stand-ins of these files of the weights cache into `folder`, and stand-ins.json; the same bytes for the same seed."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for name in names:
        rng.seed_torch(seed, f"stand_in {name}")
        _MAKERS[name](folder / name, small)
        made[name] = sha256(folder / name)
    write_json(folder / STAND_INS, made)


def _state(make: Callable[[bool], State]) -> Callable[[Path, bool], None]:
    return lambda path, small: torch.save(make(small), path)


def _inception(small: bool = False) -> State:
    """pytorch-fid's Inception v3, as clean-fid builds it before it fetches weights."""
    from cleanfid import inception_pytorch as published

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = published._inception_v3(num_classes=1008, aux_logits=False, pretrained=False)
    network.Mixed_5b = published.FIDInceptionA(192, pool_features=32)
    network.Mixed_5c = published.FIDInceptionA(256, pool_features=64)
    network.Mixed_5d = published.FIDInceptionA(288, pool_features=64)
    for name, channels in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        setattr(network, name, published.FIDInceptionC(768, channels_7x7=channels))
    network.Mixed_7b, network.Mixed_7c = published.FIDInceptionE_1(1280), published.FIDInceptionE_2(2048)
    return network.state_dict()


class _PoolFeatures(nn.Module):
    """Called as NVIDIA's TorchScript is: `layers` maps (b, 3, 299, 299) to 2,048 features."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class _Pooled(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)[0].flatten(1)


def _script(path: Path, small: bool) -> None:
    """Inception v3 as TorchScript: where it may be small a mean of pixels and a linear layer."""
    image = torch.zeros(2, 3, 299, 299)
    if small:
        layers: nn.Module = nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(3 * 64, 2048))
    else:
        layers = _Pooled(legacy_inception(_inception()))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(_PoolFeatures(layers.eval()), image, check_trace=False), str(path))


def _dino(small: bool) -> State:
    """DINOv2's backbone under its hub's names."""
    size = SMALL_DINO if small else DinoSize()
    d, p = size.hidden, size.patch
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, d),
        "mask_token": (1, d),
        "pos_embed": (1, 1 + size.pretrained_grid**2, d),
        "patch_embed.proj.weight": (d, 3, p, p),
        "patch_embed.proj.bias": (d,),
        "norm.weight": (d,),
        "norm.bias": (d,),
    }
    layers = {"attn.qkv": (3 * d, d), "attn.proj": (d, d), "mlp.fc1": (4 * d, d), "mlp.fc2": (d, 4 * d)}
    for block in (f"blocks.{i}" for i in range(size.layers)):
        for name, shape in layers.items():
            shapes |= {f"{block}.{name}.weight": shape, f"{block}.{name}.bias": shape[:1]}
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma"):
            shapes[f"{block}.{name}"] = (d,)
    return {
        name: torch.ones(shape) if "norm" in name and name.endswith("weight") else 0.02 * torch.randn(shape)
        for name, shape in shapes.items()
    }


def _clip(small: bool) -> State:
    """CLIP ViT-L/14 under OpenAI's names; the small one embeds into as many dimensions, which the aesthetic head takes."""
    from open_clip.model import CLIP

    vision: dict[str, Any] = {"image_size": 224, "layers": 24, "width": 1024, "patch_size": 14, "head_width": 64}
    text: dict[str, Any] = {"context_length": 77, "vocab_size": 49408, "width": 768, "heads": 12, "layers": 12}
    if small:
        vision |= {"layers": 2, "width": 64, "patch_size": 32}
        text |= {"layers": 2, "width": 64, "heads": 1}
    return CLIP(EMBEDDING, vision, text, quick_gelu=True).state_dict()


def _head(small: bool) -> State:
    return QualityHead(EMBEDDING).state_dict()


def _vgg(small: bool) -> State:
    from torchvision.models import vgg16

    return vgg16(weights=None).state_dict()


_MAKERS: dict[str, Callable[[Path, bool], None]] = {
    "inception-2015-12-05.pt": _script,
    "pt_inception-2015-12-05-6726825d.pth": _state(_inception),
    "dinov2_vitl14_pretrain.pth": _state(_dino),
    "ViT-L-14.pt": _state(_clip),
    "sac+logos+ava1-l14-linearMSE.pth": _state(_head),
    "vgg16-397923af.pth": _state(_vgg),
}
