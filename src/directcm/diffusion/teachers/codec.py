"""Between data and what a teacher diffuses: images to latents and back, and what a caption or a label conditions on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from directcm.diffusion.teachers import Conditioning

if TYPE_CHECKING:
    from PIL.Image import Image

    from directcm.runtime.artifacts import Artifact

Draw = Callable[[tuple[int, ...]], Tensor]


def to_tensor(images: Sequence[Image]) -> Tensor:
    """RGB images of one size to (B, 3, H, W) float32 in [−1, 1]."""
    import numpy as np

    pixels = np.stack([np.asarray(image.convert("RGB"), dtype=np.float32) for image in images])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1.0


def open_image(data: Artifact, row: Mapping[str, str]) -> Image:
    """The image of a row of a data set's images.csv, read into memory."""
    from PIL import Image

    with Image.open(data.file(row["file_name"])) as image:
        return image.convert("RGB")


def read_pixels(data: Artifact, rows: Sequence[Mapping[str, str]]) -> Tensor:
    """The images of rows of a data set's images.csv, (B, 3, H, W) float32 in [−1, 1]."""
    return to_tensor([open_image(data, row) for row in rows])


def to_images(pixels: Tensor) -> list[Image]:
    """(B, 3, H, W) in [−1, 1] to RGB images, clamped and rounded."""
    from PIL import Image

    array = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(a, mode="RGB") for a in array]


class Codec(ABC):
    """What belongs to a teacher beside its network.

    `latent`: what is diffused is something other than pixels.
    """

    latent: bool

    @abstractmethod
    def encode(self, images: Tensor, draw: Draw | None) -> Tensor:
        """Images (B, 3, H, W) in [−1, 1] to what is diffused, float32 on the CPU.

        `draw(shape)` gives standard normal noise (B, *shape) where encoding is random; None asks for its mode.
        """

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """What is diffused to pixels (B, 3, H, W), float32 on the codec's device, clamped to [−1, 1]."""

    @abstractmethod
    def condition(self, texts: Sequence[str], labels: Sequence[str]) -> Conditioning:
        """The conditioning of captions and of the classes of their images ("" where there is none), row by row."""
