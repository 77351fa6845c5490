"""The block `data`: images and captions."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from directcm.config.base import Block, Positive


def embedded_images(kind: str, resolution: int) -> tuple[int, int]:
    """(images, groups that a split keeps together) of an embedded data set; groups are single images where there are none."""
    if kind == "digits":
        return 1797, 1797
    # As datasets/photos.py cuts them: two photographs of 427×640 pixels in tiles of twice the resolution, 5×5 crops a tile.
    tiles = 2 * (427 // (2 * resolution)) * (640 // (2 * resolution))
    return 25 * tiles, tiles


class Data(Block):
    """Images and captions."""

    kind: Literal["digits", "photos", "folder", "archive"] = Field(
        "digits",
        description="digits: scikit-learn's 1,797 handwritten digits; photos: crops of its two photographs; "
        "folder: images with a metadata.csv (file_name,text, and label, the class, which teachers on pixels need); "
        "archive: the same in a tar (also .gz, .bz2, .xz) or zip",
    )
    path: str | None = Field(
        None,
        description="folder: the folder with metadata.csv; archive: the archive, placed by hand or where the download is kept, "
        "downloads/ and a name of its own where it is null",
    )
    # Left out of what is written where they are null: data that were made before these keys existed are not made anew.
    url: str | None = Field(
        None,
        pattern=r"^(https?://|file:///)[!-~]+$",
        exclude_if=lambda value: value is None,
        description="archive only: where it is fetched from, http, https or file; null where it is placed by hand",
    )
    sha256: str | None = Field(
        None,
        pattern=r"^[0-9a-fA-F]{64}$",
        exclude_if=lambda value: value is None,
        description="archive only: SHA-256 of the archive, 64 hex digits, as sha256sum prints it",
    )
    layout: Literal["folder", "cifar10"] = Field(
        "folder",
        exclude_if=lambda value: value == "folder",
        description="archive only: what it holds: folder, as data.kind folder has it, or cifar10, CIFAR-10's binary version, "
        "whose test batch is what is held out",
    )
    resolution: Positive = Field(
        16,
        description="side of the square RGB images, pixels; a folder's or an archive's are resized to it after a centre crop",
    )
    held_out: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="share of the images kept from all training, for checks"
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        # Both raise ValueError themselves where host or port cannot be read.
        parts = urlsplit(value)
        if (parts.hostname is None or parts.port == 0) and parts.scheme != "file":
            raise ValueError("has no host, or no port there")
        if "@" in parts.netloc:
            raise ValueError("holds a user's name; settings are printed in the report, so fetch the archive by hand")
        return value

    @field_validator("sha256")
    @classmethod
    def _lower(cls, value: str | None) -> str | None:
        return value and value.lower()

    @model_validator(mode="after")
    def _check(self) -> Data:
        if self.kind == "folder" and not self.path:
            raise ValueError("path is missing: data.kind folder needs the folder that holds metadata.csv")
        if self.kind == "archive" and not (self.url or self.path):
            raise ValueError("url and path are missing: data.kind archive needs one, to fetch it from or to find it at")
        if self.kind == "archive" and not self.sha256:
            raise ValueError("sha256 is missing: data.kind archive needs that of the archive, as sha256sum prints it")
        if self.kind == "archive" and self.layout == "cifar10" and self.resolution > 32:
            raise ValueError(f"resolution is {self.resolution}, but data.layout cifar10 has images of 32 pixels")
        if self.resolution % 8:
            raise ValueError(f"resolution is {self.resolution}, expected a multiple of 8")
        return self

    @property
    def embedded(self) -> bool:
        """Whether the images come with scikit-learn: their number is known beforehand, and they have labels."""
        return self.kind in ("digits", "photos")
