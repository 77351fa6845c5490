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


# The kinds that have a layout.
OUTSIDE = [name for name, spec in DATA_SETS.items() if spec.lies_in in ("folder", "archive")]


class Data(Block):
    """Images and captions."""

    kind: DataKind = Field("digits", description="; ".join(f"{name}: {spec.about}" for name, spec in DATA_SETS.items()))
    path: str | None = Field(
        None,
        description="folder: the folder of the data set; archive: the archive, placed by hand or where the download is kept, "
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
        description=f"what folder or archive hold: {', or '.join(layout.about for layout in LAYOUTS.values())}",
    )
    caption: str | None = newer(
        None,
        description="caption of every image, of a layout that has none: "
        f"{', '.join(name for name, layout in LAYOUTS.items() if not layout.captions)}",
    )
    crop: Positive | None = newer(
        None,
        description="side, pixels, of the middle square that is cut out before an image is resized; null: the shorter side",
    )
    most: Annotated[int, Field(ge=2)] | None = newer(
        None, description="folder and archive: at most so many images, evenly spaced over those there are; null: all"
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
        spec, layout, outside = DATA_SETS[self.kind], LAYOUTS[self.layout], self.kind in OUTSIDE
        side, most = self.resolution, layout.largest if outside else None
        for keys, why in spec.needs:
            missing = f"{' and '.join(keys)} {'is' if len(keys) == 1 else 'are'} missing"
            require(any(getattr(self, key) for key in keys), f"{missing}: data.kind {self.kind} needs {why}")
        small = most is None or side <= most
        require(small, f"resolution is {side}, but data.layout {layout.name} has images of {most} pixels")
        require(side % 8 == 0, f"resolution is {side}, expected a multiple of 8")
        said = outside and not layout.captions
        require(self.caption is None or said, f"caption: {self._laid_out} has captions of its own; leave it out")
        cut = outside and layout.largest is None
        require(self.crop is None or cut, f"crop: {self._laid_out} has square images of one size; leave it out")
        require(self.crop is None or self.crop >= side, f"crop = {self.crop} is less than resolution = {side}")
        require(self.most is None or outside, f"most: {self._laid_out} is small; leave it out")
        return self

    @property
    def _laid_out(self) -> str:
        """What says how the images come, for messages."""
        return f"layout {self.layout}" if self.kind in OUTSIDE else f"kind {self.kind}"

    @property
    def embedded(self) -> bool:
        """Whether data.path names nothing: the images come with the project, or are drawn from a font of the system's."""
        return DATA_SETS[self.kind].lies_in in ("", "font")

    @property
    def labelled(self) -> bool:
        """Whether it is known beforehand that all images have labels."""
        return DATA_SETS[self.kind].labels

    @property
    def can_have_labels(self) -> bool:
        """Whether its images can have labels at all: of a layout without a place for them they have none."""
        return self.kind not in OUTSIDE or LAYOUTS[self.layout].labels


if not TYPE_CHECKING:
    Data = with_blocks(Data, [spec for spec in DATA_SETS.values() if spec.settings])
