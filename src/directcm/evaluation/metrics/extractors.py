"""The feature extractors: one class each, alike to use, with a fingerprint of what its numbers depend on.

Published extractors take their weights from checked files (`weights.py`) and download nothing. Each can be given other
weights (`state`, `given`), and where the architecture can be smaller a size: tests go the same way as real runs.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from directcm.config import specs
from directcm.errors import UserError
from directcm.runtime.artifacts import Artifact, sha256
from directcm.runtime.weights import expected, weights_file

# What each gives, the files of published weights that it needs or that it is trained here, and its class. Others have modules of their own.
EXTRACTORS = {
    "clip_tiny": {
        "rank": 1, "arrays": ("image", "text", "score"), "trained": True, "made_by": "ClipTinyExtractor",
    },
    "inception_clean": {
        "rank": 2, "arrays": ("image",), "weights": ("inception-2015-12-05.pt",), "made_by": "InceptionClean",
    },
    "inception_legacy_pytorch": {
        "rank": 3, "arrays": ("image",), "weights": ("pt_inception-2015-12-05-6726825d.pth",),
        "made_by": "InceptionLegacyPytorch",
    },
    "dinov2_vitl14": {
        "rank": 4, "arrays": ("image",), "weights": ("dinov2_vitl14_pretrain.pth",), "made_by": "Dinov2",
    },
    "clip_vitl14": {"rank": 5, "arrays": ("image", "text"), "weights": ("ViT-L-14.pt",), "made_by": "ClipVitL14"},
    "aesthetic_laion": {
        "rank": 6, "arrays": ("score",), "weights": ("ViT-L-14.pt", "sac+logos+ava1-l14-linearMSE.pth"),
        "made_by": "AestheticLaion",
    },
}  # fmt: skip

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


Device = str | torch.device
State = Mapping[str, Tensor]


class FeatureExtractor(ABC):
    """Images (RGB) and their texts → the arrays of `specs.EXTRACTORS[name].arrays`, float32, one row per image.

    `version` names the code below: it is raised whenever a change here changes numbers.
    """

    name: str
    version: str = "1"
    # Where it was trained here; published ones have none.
    folder: Artifact | None = None
    # The extractor whose network one of this class can take (`network`) where both are asked for, and the one that it took it of.
    network_of: str = ""
    shares: FeatureExtractor | None = None

    def __init__(self, device: Device = "cpu") -> None:
        self.device = torch.device(device)
        self._checksums: dict[str, str] = {}

    @property
    def fingerprint(self) -> str:
        """SHA-256 over weights' checksums, preprocessing and version: features are comparable where it is equal."""
        content = {
            "name": self.name,
            "version": self.version,
            "weights": self._checksums,
            "preprocessing": self.preprocessing(),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @abstractmethod
    def preprocessing(self) -> dict[str, Any]:
        """The parameters of preprocessing and architecture, as JSON."""

    @abstractmethod
    def _prepare(self, image: Image.Image) -> Tensor:
        """What `_extract` takes of one RGB image, on the CPU."""

    @abstractmethod
    def _extract(self, images: Tensor, texts: Sequence[str]) -> dict[str, Tensor]:
        """The arrays of one batch of prepared images."""

    def prepare(self, image: Image.Image) -> Tensor:
        """An image resized and so on, on the CPU: many threads may do it at once."""
        return self._prepare(image.convert("RGB"))

    def extract(self, images: Sequence[Image.Image], texts: Sequence[str]) -> dict[str, np.ndarray]:
        """The arrays of n ≥ 1 images and n texts: those it has of image (n, D), text (n, D), score (n,)."""
        return self.of_prepared([*map(self.prepare, images)], texts)

    def batch(self, prepared: Sequence[Tensor]) -> Tensor:
        """Images that went through `prepare`, as one tensor on the device."""
        return torch.stack([*prepared]).to(self.device)

    def of_prepared(self, prepared: Sequence[Tensor] | Tensor, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """`extract` of images that went through `prepare`, or of a `batch` of them."""
        if len(prepared) != len(texts) or not len(prepared):
            raise ValueError(f"{len(prepared)} images and {len(texts)} texts, expected equal numbers, at least one")
        images = prepared if isinstance(prepared, Tensor) else self.batch(prepared)
        # TF32 convolutions would make features depend on the generation of the GPU.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            arrays = self._extract(images, list(texts))
        return {key: arrays[key].float().cpu().numpy() for key in specs.EXTRACTORS[self.name].arrays}

    def _weights(self, name: str) -> Path:
        path = weights_file(name)
        self._checksums[name] = expected(name)
        return path

    def _state(self, name: str, given: State | None) -> State:
        """The state dict of a file of the cache, or the one given in its place."""
        if given is None:
            return read_state(self._weights(name))
        digest = hashlib.sha256()
        for key in sorted(given):
            digest.update(key.encode())
            digest.update(given[key].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        self._checksums[name] = digest.hexdigest()
        return given


def read_state(path: Path) -> dict[str, Tensor]:
    """A published state dict, of which the sha256 has been checked; no pickled code is run."""
    return torch.load(path, map_location="cpu", weights_only=True)


class InceptionClean(FeatureExtractor):
    """clean-fid's "clean" mode: Inception v3's 2,048 pool features of images resized with PIL's bicubic, not rounded.

    The resizing and the network's wrapper are clean-fid's own; only the weights' place differs (clean-fid would fetch
    them, unchecked, into the system's temporary folder).
    """

    name = "inception_clean"
    mode = "clean"
    weights = specs.EXTRACTORS["inception_clean"].weights[0]

    def __init__(self, device: Device = "cpu", *, given: Any = None) -> None:
        """`given`: a folder with a stand-in `inception-2015-12-05.pt` (tests): not checked, but in the fingerprint."""
        super().__init__(device)
        # Building a resizer silences all warnings of the process; this keeps that inside.
        with warnings.catch_warnings():
            from cleanfid.resize import build_resizer

            self.resize = build_resizer(self.mode)
        self.model = self._network(given).eval().to(self.device)

    def _network(self, given: Any) -> nn.Module:
        from cleanfid.inception_torchscript import InceptionV3W

        # A TorchScript archive holds a program, not only numbers: it is loaded because its sha256 is pinned.
        if given is None:
            given = self._weights(self.weights).parent
        else:
            self._checksums[self.weights] = sha256(given / self.weights)
        return InceptionV3W(str(given), download=False, resize_inside=False)

    def preprocessing(self) -> dict[str, Any]:
        return {"library": "clean-fid", "mode": self.mode, "size": 299}

    def _forward(self, batch: Tensor) -> Tensor:
        return self.model(batch)

    def _prepare(self, image: Image.Image) -> Tensor:
        resized = self.resize(np.array(image)).transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(resized, dtype=np.float32))

    def _extract(self, images: Tensor, texts: Sequence[str]) -> dict[str, Tensor]:
        return {"image": self._forward(images)}


class InceptionLegacyPytorch(InceptionClean):
    """clean-fid's "legacy_pytorch" mode: pytorch-fid's network on images resized bilinearly without antialiasing.

    `given` is a state dict here.
    """

    name = "inception_legacy_pytorch"
    mode = "legacy_pytorch"
    weights = specs.EXTRACTORS["inception_legacy_pytorch"].weights[0]

    def _network(self, given: Any) -> nn.Module:
        return legacy_inception(self._state(self.weights, given))

    def _forward(self, batch: Tensor) -> Tensor:
        return self.model(batch / 255)[0].squeeze(-1).squeeze(-1)


def legacy_inception(state: State, normalize: bool = True) -> nn.Module:
    """clean-fid's port of pytorch-fid's network, up to the pool features, with a state dict of FID's Inception v3.

    It takes pixels in [0, 1] and brings them to [−1, 1] itself; not `normalize`: what the network takes as it is.
    """
    from cleanfid import inception_pytorch

    # The constructor always fetches its weights by this name; for its duration the name stands for those in hand.
    fetch = inception_pytorch.load_state_dict_from_url
    inception_pytorch.load_state_dict_from_url = lambda *args, **kwargs: dict(state)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return inception_pytorch.InceptionV3(output_blocks=[3], resize_input=False, normalize_input=normalize)
    finally:
        inception_pytorch.load_state_dict_from_url = fetch


@dataclass(frozen=True)
class DinoSize:
    """Architecture of a DINOv2: `pretrained_grid` patches a side in the weights, `size` pixels a side here."""

    hidden: int = 1024
    layers: int = 24
    heads: int = 16
    patch: int = 14
    pretrained_grid: int = 37
    size: int = 224

    @classmethod
    def of(cls, hub: State) -> DinoSize:
        """That of a hub's state dict, whose heads are 64 wide as in every DINOv2; of another's the ViT-L/14's."""
        patch, positions = hub.get("patch_embed.proj.weight"), hub.get("pos_embed")
        if patch is None or positions is None:
            return cls()
        blocks = {key.split(".")[1] for key in hub if key.startswith("blocks.")}
        grid = round((positions.shape[1] - 1) ** 0.5)
        return cls(patch.shape[0], len(blocks), max(1, patch.shape[0] // 64), patch.shape[-1], grid)


def interpolate_positions(positions: Tensor, grid: int, offset: float = 0.1) -> Tensor:
    """Position embeddings (1, 1 + g², D) of a g × g grid → (1, 1 + grid², D), as DINOv2's hub code does.

    The scale factor handed to the bicubic interpolation is (grid + offset)/g, not grid/g, and there is no
    antialiasing: sample points differ from those of a plain resize, and so do the features.
    """
    cls, patches = positions[:, :1].float(), positions[:, 1:].float()
    side = round(patches.shape[1] ** 0.5)
    if grid == side:
        return positions.float()
    image = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = (grid + offset) / side
    image = nn.functional.interpolate(image, scale_factor=(scale, scale), mode="bicubic", antialias=False)
    return torch.cat([cls, image.permute(0, 2, 3, 1).reshape(1, grid * grid, -1)], dim=1)


def dino_state(hub: State, size: DinoSize) -> dict[str, Tensor]:
    """The hub's DINOv2 state dict under the names of transformers' Dinov2Model; a missing tensor is a UserError."""
    names = {
        "cls_token": ["embeddings.cls_token"],
        "mask_token": ["embeddings.mask_token"],
        "pos_embed": ["embeddings.position_embeddings"],
        "patch_embed.proj.weight": ["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": ["embeddings.patch_embeddings.projection.bias"],
        "norm.weight": ["layernorm.weight"],
        "norm.bias": ["layernorm.bias"],
    }
    layer = {
        "norm1": ["norm1"],
        # The hub stacks queries, keys and values in one projection.
        "attn.qkv": ["attention.q_proj", "attention.k_proj", "attention.v_proj"],
        "attn.proj": ["attention.o_proj"],
        "norm2": ["norm2"],
        "mlp.fc1": ["mlp.fc1"],
        "mlp.fc2": ["mlp.fc2"],
    }
    for i in range(size.layers):
        for (theirs, ours), kind in itertools.product(layer.items(), ("weight", "bias")):
            names[f"blocks.{i}.{theirs}.{kind}"] = [f"encoder.layer.{i}.{our}.{kind}" for our in ours]
        for k in (1, 2):
            names[f"blocks.{i}.ls{k}.gamma"] = [f"encoder.layer.{i}.layer_scale{k}.lambda1"]
    if missing := names.keys() - hub.keys():
        raise UserError(f"dinov2: the weights have no {min(missing)}; they are not DINOv2's ViT-L/14 backbone")
    if unused := hub.keys() - names.keys():
        raise UserError(f"dinov2: the weights hold {min(unused)}, which a {size.layers}-layer DINOv2 has not")
    out: dict[str, Tensor] = {}
    for theirs, ours in names.items():
        parts = [part.clone() for part in hub[theirs].chunk(len(ours))]
        out.update(zip(ours, parts, strict=True))
    out["embeddings.position_embeddings"] = interpolate_positions(hub["pos_embed"], size.size // size.patch)
    return out


class Dinov2(FeatureExtractor):
    """DINOv2 ViT-L/14 (Oquab et al. 2023): the class token after the final layer norm, of images squeezed to 224 × 224.

    The whole image is resized, without a crop, by PIL's bicubic to 8 bits, as Stein et al. 2023 do for FD-DINO.
    """

    name = "dinov2_vitl14"
    weights = specs.EXTRACTORS["dinov2_vitl14"].weights[0]

    def __init__(self, device: Device = "cpu", *, size: DinoSize | None = None, state: State | None = None) -> None:
        super().__init__(device)
        from transformers import Dinov2Config, Dinov2Model

        hub = self._state(self.weights, state)
        self.size = size or DinoSize.of(hub)
        config = Dinov2Config(
            hidden_size=self.size.hidden,
            num_hidden_layers=self.size.layers,
            num_attention_heads=self.size.heads,
            image_size=self.size.size,
            patch_size=self.size.patch,
        )
        # No weights are drawn only to be replaced; every tensor must come from the state dict (strict).
        with torch.device("meta"):
            model = Dinov2Model(config)
        model.load_state_dict(dino_state(hub, self.size), strict=True, assign=True)
        self.model = model.float().eval().to(self.device)

    def preprocessing(self) -> dict[str, Any]:
        return {
            **asdict(self.size),
            "resize": "PIL bicubic, no crop",
            "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
            "position_offset": 0.1,
        }

    def _prepare(self, image: Image.Image) -> Tensor:
        """(3, size, size), resized and normalised with ImageNet's mean and standard deviation."""
        side = (self.size.size, self.size.size)
        array = np.asarray(image.resize(side, Image.Resampling.BICUBIC), dtype=np.float32) / 255
        array = (array - np.array(IMAGENET_MEAN, np.float32)) / np.array(IMAGENET_STD, np.float32)
        return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))

    def _extract(self, images: Tensor, texts: Sequence[str]) -> dict[str, Tensor]:
        return {"image": self.model(pixel_values=images).last_hidden_state[:, 0]}


class ClipVitL14(FeatureExtractor):
    """OpenAI's CLIP ViT-L/14 in open_clip, float32: image and text embeddings, not normalised.

    Preprocessing and tokenizer are open_clip's (shortest side to 224 by bicubic, centre crop; text cut to 77 tokens).
    OpenAI's weights need QuickGELU: with a plain GELU open_clip runs all the same, and every score is wrong.
    """

    name = "clip_vitl14"
    weights = "ViT-L-14.pt"

    def __init__(self, device: Device = "cpu", *, state: State | None = None) -> None:
        super().__init__(device)
        from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
        from open_clip.model import build_model_from_openai_state_dict
        from open_clip.openai import load_openai_model
        from open_clip.tokenizer import SimpleTokenizer
        from open_clip.transform import image_transform

        if state is None:
            # A TorchScript archive holds a program, not only numbers: it is loaded because its sha256 is pinned.
            model = load_openai_model(str(self._weights(self.weights)), precision="fp32", device="cpu")
        else:
            given = dict(self._state(self.weights, state))
            model = build_model_from_openai_state_dict(given, quick_gelu=True, cast_dtype=None)
        self.model = model.float().eval().to(self.device)
        require_quick_gelu(self.model)
        self.side = int(self.model.visual.image_size[0])
        self.mean, self.std = OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
        self.transform = image_transform(self.side, is_train=False, mean=self.mean, std=self.std)
        self.tokenizer = SimpleTokenizer(context_length=self.model.context_length)
        self._last: tuple[Tensor, Tensor] | None = None

    def embedding(self, images: Tensor) -> Tensor:
        """The image embeddings of a batch. Who shares the network and asks for the same batch next gets these."""
        if self._last is None or self._last[0] is not images:
            self._last = (images, self.model.encode_image(images))
        return self._last[1]

    def preprocessing(self) -> dict[str, Any]:
        return {
            "side": self.side,
            "resize": "open_clip: shortest side, bicubic, centre crop",
            "mean": list(self.mean),
            "std": list(self.std),
            "context": self.model.context_length,
            "activation": "quick_gelu",
        }

    def _prepare(self, image: Image.Image) -> Tensor:
        return self.transform(image)

    def _extract(self, images: Tensor, texts: Sequence[str]) -> dict[str, Tensor]:
        return {
            "image": self.embedding(images),
            "text": self.model.encode_text(self.tokenizer(list(texts)).to(self.device)),
        }


def require_quick_gelu(model: Any) -> None:
    """UserError unless every block of both towers of an open_clip CLIP has QuickGELU."""
    from open_clip.transformer import QuickGELU

    blocks = [*model.visual.transformer.resblocks, *model.transformer.resblocks]
    if not all(isinstance(block.mlp.gelu, QuickGELU) for block in blocks):
        raise UserError(
            "clip_vitl14: open_clip built the model without QuickGELU, which OpenAI's weights need; "
            "install open_clip_torch 3.3"
        )


class AestheticLaion(ClipVitL14):
    """LAION's aesthetic score (about 1 to 10): CLIP ViT-L/14's normalised image embedding, and the published head."""

    name = "aesthetic_laion"
    head_weights = "sac+logos+ava1-l14-linearMSE.pth"
    network_of = "clip_vitl14"
    shares: ClipVitL14 | None = None

    def __init__(
        self,
        device: Device = "cpu",
        *,
        state: State | None = None,
        head_state: State | None = None,
        network: ClipVitL14 | None = None,
    ) -> None:
        """`network`: a CLIP ViT-L/14 that is loaded already, whose embeddings are scored; it is not loaded again then."""
        if network is None:
            super().__init__(device, state=state)
        else:
            vars(self).update(vars(network), _checksums={**network._checksums}, shares=network)
        from directcm.evaluation.metrics.quality import head_from_state

        head = head_from_state(self._state(self.head_weights, head_state), self.head_weights)
        self.head = head.float().to(self.device)

    def _extract(self, images: Tensor, texts: Sequence[str]) -> dict[str, Tensor]:
        return {"score": self.head((self.shares or self).embedding(images))}


class ClipTinyExtractor(FeatureExtractor):
    """The small CLIP trained on the run's own images: embeddings, not normalised, and the quality head's score."""

    name = "clip_tiny"

    def __init__(self, folder: Artifact, device: Device = "cpu") -> None:
        super().__init__(device)
        from directcm.evaluation.metrics.clip_tiny import load_extractor

        self.folder = folder
        self.model, self.head, self.tokenizer, self.content = load_extractor(folder, self.device)
        self.side = int(self.content["config"]["vision_cfg"]["image_size"])
        self._checksums = {name: digest for name, (_, digest) in folder.checksums.items() if name != "extractor.json"}

    def preprocessing(self) -> dict[str, Any]:
        return {"config": self.content["config"], "code": self.content["version"], "range": [-1, 1]}

    def _prepare(self, image: Image.Image) -> Tensor:
        if image.size != (self.side, self.side):
            raise UserError(
                f"clip_tiny: an image is {image.size[0]}×{image.size[1]}, it was trained on {self.side}×{self.side}"
            )
        return torch.from_numpy(np.array(image))

    def _extract(self, images: Tensor, texts: Sequence[str]) -> dict[str, Tensor]:
        from directcm.evaluation.metrics.clip_tiny import pixels

        embedding = self.model.encode_image(pixels(images.cpu().numpy(), self.device))
        text = self.model.encode_text(self.tokenizer(texts).to(self.device))
        return {"image": embedding, "text": text, "score": self.head(embedding)}


def build_extractor(
    name: str,
    folder: Artifact | None = None,
    *,
    device: Device = "cpu",
    loaded: Mapping[str, FeatureExtractor] | None = None,
) -> FeatureExtractor:
    """The extractor of a name: a trained one from its artefact `folder`, any other from published weights or none.

    `loaded`: extractors by name, one of which may have the network that this one needs, on the same device.
    """
    if name not in specs.EXTRACTORS:
        raise UserError(f"extractor: unknown name {name!r}; there are {', '.join(specs.EXTRACTORS)}")
    spec = specs.EXTRACTORS[name]
    made_by = getattr(importlib.import_module(f"directcm.{spec.module}"), spec.made_by)
    if spec.trained:
        if folder is None:
            raise UserError(
                f"{name}: the trained extractor's folder is missing; run the extractor step and pass its folder"
            )
        return made_by(folder, device)
    if folder is not None:
        raise UserError(f"{name}: is not trained here, so it takes nothing from the folder {folder.folder}")
    network = (loaded or {}).get(made_by.network_of)
    return made_by(device) if network is None else made_by(device, network=network)


def build_extractors(
    names: Sequence[str], folders: Sequence[Artifact] = (), *, device: Device = "cpu"
) -> list[FeatureExtractor]:
    """The extractors of several names, in that order; two that need one network share it.

    `folders`: the artefacts of those that are trained here. A name given twice, or a folder of none of them, is a UserError.
    """
    if len({*names}) != len(names):
        raise UserError(f"extractor: {' '.join(names)} has one twice")
    trained: dict[str, Artifact] = {}
    for folder in folders:
        name = str(folder.settings.get("name"))
        if name not in names or name in trained:
            why = "was given twice" if name in trained else f"is not among {', '.join(names)}"
            raise UserError(f"extractor: {folder.folder} is a {name}, which {why}")
        trained[name] = folder
    built: dict[str, FeatureExtractor] = {}
    # In the registry's order: the one that shares a network comes after the one that has it.
    for name in sorted(names, key=[*specs.EXTRACTORS, *names].index):
        built[name] = build_extractor(name, trained.get(name), device=device, loaded=built)
    return [built[name] for name in names]
