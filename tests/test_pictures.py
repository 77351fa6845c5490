"""Pictures in every orientation, and damaged in every format: pixels, or one line that names the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from directcm.errors import UserError
from tests.outside.test_images import BAD, SIDE, made

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_in_every_format(orientation: int, suffix: str, tmp_path: Path) -> None:
    """Quarters of four greys, stored as the orientation says (Exif 2.32, 4.6.4 A), come out as they were."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    upright = np.zeros((32, 32, 3), np.uint8)
    upright[:16, :16], upright[:16, 16:], upright[16:, :16], upright[16:, 16:] = 20, 90, 160, 230
    # What turns the upright picture into the stored one.
    stored = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, 3),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(folder / f"o.{suffix}", exif=exif)
    (pixels,) = made(folder, f"o.{suffix}")
    found = [pixels[y : y + 4, x : x + 4].mean() for y, x in ((2, 2), (2, 10), (10, 2), (10, 10))]
    assert np.abs(np.subtract(found, (20, 90, 160, 230))).max() < 6, found


def _whole(folder: Path) -> list[tuple[str, bytes]]:
    noise = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)
    out = []
    for suffix in ("png", "jpg", "gif", "tif", "bmp", "webp", "tga", "ppm", "ico", "sgi", "pcx", "jp2", "dds"):
        # A photo with a bad entry of EXIF is sound: only its pixels and its orientation are needed.
        Image.fromarray(noise).save(folder / f"sound.{suffix}", **({"exif": BAD} if suffix == "jpg" else {}))
        out.append((suffix, (folder / f"sound.{suffix}").read_bytes()))
        (folder / f"sound.{suffix}").unlink()
    return out


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_damage_ends_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever bytes are changed in whatever format: pixels, or one line that names the file."""
    where = tmp_path_factory.mktemp("damage") / "pictures"
    where.mkdir()
    suffix, content = data.draw(st.sampled_from(_whole(where)), label="format")
    bytes_ = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        bytes_[data.draw(st.integers(0, len(bytes_) - 1))] = data.draw(st.integers(0, 255))
    del bytes_[data.draw(st.integers(1, len(bytes_))) :]
    (where / f"damaged.{suffix}").write_bytes(bytes(bytes_))
    try:
        made(where, f"damaged.{suffix}")
    except UserError as error:
        assert f"damaged.{suffix}" in str(error) and len(str(error).splitlines()) == 1
