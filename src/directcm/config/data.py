"""The block `data`: images and captions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from directcm.config.base import Block, DataKind, DataLayout, Positive, newer, with_blocks
from directcm.config.registry import require
from directcm.config.specs import DATA_SETS, LAYOUTS


def embedded_images(kind: str, resolution: int) -> tuple[int, int]:
    """(images, groups that a split keeps together) of an embedded data set; groups are single images where there are none."""
    spec = DATA_SETS[kind]
    images, groups = (
        None if text is None else int(eval(str(text), {"__builtins__": {}}, {"resolution": resolution}))
        for text in (spec.images, spec.groups)
    )
    assert images is not None
    return images, images if groups is None else groups


class Data(Block):
    """Images and captions."""

    kind: DataKind = Field("digits", description="; ".join(f"{name}: {spec.about}" for name, spec in DATA_SETS.items()))
    path: str | None = Field(
        None,
        description="folder: the folder with metadata.csv; archive: the archive, placed by hand or where the download is kept, "
        "downloads/ and a name of its own where it is null",
    )
    url: str | None = newer(
        None,
        pattern=r"^(https?://|file:///)[!-~]+$",
        description="archive only: where it is fetched from, http, https or file; null where it is placed by hand",
    )
    sha256: str | None = newer(
        None,
        pattern=r"^[0-9a-fA-F]{64}$",
        description="archive only: SHA-256 of the archive, 64 hex digits, as sha256sum prints it",
    )
    layout: DataLayout = newer(
        "folder",
        description=f"archive only: what it holds: {', or '.join(layout.about for layout in LAYOUTS.values())}",
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
        there = parts.scheme == "file" or (parts.hostname is not None and parts.port != 0)
        require(there, "has no host, or no port there")
        user = "holds a user's name; settings are printed in the report, so fetch the archive by hand"
        require("@" not in parts.netloc, user)
        return value

    @field_validator("sha256")
    @classmethod
    def _lower(cls, value: str | None) -> str | None:
        return value and value.lower()

    @model_validator(mode="after")
    def _check(self) -> Data:
        spec, layout = DATA_SETS[self.kind], LAYOUTS[self.layout]
        side, most = self.resolution, layout.largest if spec.lies_in == "archive" else None
        for keys, why in spec.needs:
            missing = f"{' and '.join(keys)} {'is' if len(keys) == 1 else 'are'} missing"
            require(any(getattr(self, key) for key in keys), f"{missing}: data.kind {self.kind} needs {why}")
        small = most is None or side <= most
        require(small, f"resolution is {side}, but data.layout {layout.name} has images of {most} pixels")
        require(side % 8 == 0, f"resolution is {side}, expected a multiple of 8")
        return self

    @property
    def embedded(self) -> bool:
        """Whether data.path names nothing: the images come with the project, or are drawn from a font of the system's."""
        return DATA_SETS[self.kind].lies_in in ("", "font")

    @property
    def labelled(self) -> bool:
        """Whether it is known beforehand that all images have labels."""
        return DATA_SETS[self.kind].labels


if not TYPE_CHECKING:
    Data = with_blocks(Data, [spec for spec in DATA_SETS.values() if spec.settings])
