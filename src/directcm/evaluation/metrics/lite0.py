"""EfficientNet-lite0, an ImageNet classifier that no run has trained or chosen: its pooled features and its logits.

The weights are a pinned package's (`runtime.weights`), the network is timm's `tf_efficientnet_lite0`. ImageNet's photographs are not a
small run's images: what is computed here compares samples with samples, and no number is that of a published metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from directcm.config import specs
from directcm.errors import UserError
from directcm.evaluation.metrics.extractors import Device, FeatureExtractor, State

EXTRACTORS = {
    "efficientnet_lite0": {
        "rank": 7, "arrays": ("image", "logits"), "weights": ("efficientnet-lite0-57934424.pth",),
        "made_by": "EfficientNetLite0",
    },
}  # fmt: skip

SIDE = 224
# As TensorFlow's lite models are fed: (x − 127)/128 of 8-bit pixels, which is nearly [−1, 1].
MEAN, STD = 0.498, 0.502


def lite0_state(published: State, names: Sequence[str]) -> dict[str, Tensor]:
    """The published state dict under the names of timm's network, `names` in their order.

    The tensors of the two stand in one order; names differ but for their last part (weight, running_mean …). UserError where the
    numbers or the last parts differ.
    """
    if len(published) != len(names):
        raise UserError(
            f"efficientnet_lite0: the weights hold {len(published)} tensors, tf_efficientnet_lite0 has {len(names)}"
        )
    for theirs, ours in zip(published, names, strict=True):
        if theirs.rpartition(".")[2] != ours.rpartition(".")[2]:
            raise UserError(
                f"efficientnet_lite0: the weights' {theirs} stands where tf_efficientnet_lite0 has {ours}; they are in another order"
            )
    return dict(zip(names, published.values(), strict=True))


class EfficientNetLite0(FeatureExtractor):
    """EfficientNet-lite0 (Tan & Le 2019, without squeeze-and-excite and with ReLU6): 1,280 pooled features, 1,000 logits.

    Preprocessing is timm's for evaluation without its margin (crop_pct 1): the shorter side to 224 by PIL's bicubic, which is
    antialiased where it shrinks, to 8 bits, then a centre crop. Of a square image nothing is cut off.
    """

    name = "efficientnet_lite0"
    weights = specs.EXTRACTORS["efficientnet_lite0"].weights[0]

    def __init__(self, device: Device = "cpu", *, state: State | None = None) -> None:
        super().__init__(device)
        import timm
        from timm.data import create_transform

        published = self._state(self.weights, state)
        # No weights are drawn only to be replaced; every tensor must come from the state dict (strict).
        with torch.device("meta"):
            model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        model.load_state_dict(lite0_state(published, [*model.state_dict()]), strict=True, assign=True)
        self.model = model.float().eval().to(self.device)
        self.transform = create_transform(
            (3, SIDE, SIDE), is_training=False, interpolation="bicubic", mean=(MEAN,) * 3, std=(STD,) * 3, crop_pct=1.0
        )

    def preprocessing(self) -> dict[str, Any]:
        return {
            "network": "timm tf_efficientnet_lite0",
            "side": SIDE,
            "resize": "timm: shorter side, PIL bicubic, centre crop, crop_pct 1",
            "mean": MEAN,
            "std": STD,
        }

    def _prepare(self, image: Image.Image) -> Tensor:
        return self.transform(image)

    def _extract(self, images: Tensor, texts: Sequence[str]) -> dict[str, Tensor]:
        features = self.model.global_pool(self.model.forward_features(images))
        return {"image": features, "logits": self.model.classifier(features)}
