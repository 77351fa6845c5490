"""The block `data`: images and captions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from directcm.config.base import Block, DataKind, DataLayout, Positive, with_own
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
    layout: DataLayout = Field(
        "folder",
        exclude_if=lambda value: value == "folder",
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
        spec, layout = DATA_SETS[self.kind], LAYOUTS[self.layout]
        for keys, why in spec.needs:
            if not any(getattr(self, key) for key in keys):
                missing = f"{' and '.join(keys)} {'is' if len(keys) == 1 else 'are'} missing"
                raise ValueError(f"{missing}: data.kind {self.kind} needs {why}")
        if spec.lies_in == "archive" and self.resolution > (layout.largest or self.resolution):
            raise ValueError(
                f"resolution is {self.resolution}, but data.layout {layout.name} has images of {layout.largest} pixels"
            )
        if self.resolution % 8:
            raise ValueError(f"resolution is {self.resolution}, expected a multiple of 8")
        return self

    @property
    def embedded(self) -> bool:
        """Whether the images come with the project: nothing outside it is read."""
        return not DATA_SETS[self.kind].lies_in

    @property
    def labelled(self) -> bool:
        """Whether it is known beforehand that all images have labels."""
        return DATA_SETS[self.kind].labels


if not TYPE_CHECKING:
    Data = with_own(Data, [spec for spec in DATA_SETS.values() if spec.settings])
