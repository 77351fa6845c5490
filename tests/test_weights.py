from __future__ import annotations

import dataclasses
import hashlib
import re
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from directcm.config.specs import DISTANCES, EXTRACTORS
from directcm.errors import UserError
from directcm.runtime import weights
from directcm.runtime.weights import WEIGHTS, WeightsFile, weights_file, weights_folder


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DIRECTCM_WEIGHTS", str(tmp_path))
    known = WeightsFile("small.bin", hashlib.sha256(b"good").hexdigest(), "https://example.org/small.bin", 4)
    monkeypatch.setitem(WEIGHTS, "small.bin", known)
    return tmp_path


def test_table_covers_the_extractors_and_distances():
    assert {name for e in [*EXTRACTORS.values(), *DISTANCES.values()] for name in e.weights} == set(WEIGHTS)
    for known in WEIGHTS.values():
        assert re.fullmatch(r"[0-9a-f]{64}", known.sha256)
        assert known.url.startswith("https://") and known.size
    # torch's naming rule: the hash's first eight digits end the name
    assert WEIGHTS["pt_inception-2015-12-05-6726825d.pth"].sha256.startswith("6726825d")
    assert WEIGHTS["vgg16-397923af.pth"].sha256.startswith("397923af")
    assert WEIGHTS["ViT-L-14.pt"].sha256 in WEIGHTS["ViT-L-14.pt"].url


def test_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("DIRECTCM_WEIGHTS", raising=False)
    assert weights_folder() == Path("weights")
    monkeypatch.setenv("DIRECTCM_WEIGHTS", str(tmp_path))
    assert weights_folder() == tmp_path


@pytest.mark.parametrize("name", sorted(name for name, known in WEIGHTS.items() if not known.package))
def test_missing_file_is_one_line_that_says_everything(name, tmp_path, monkeypatch):
    monkeypatch.setenv("DIRECTCM_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError) as error:
        weights_file(name)
    message = str(error.value)
    assert "\n" not in message
    for part in (name, WEIGHTS[name].url, str(tmp_path), WEIGHTS[name].sha256, "DIRECTCM_WEIGHTS"):
        assert part in message


PACKAGED = [known for known in WEIGHTS.values() if known.package]


@pytest.mark.parametrize("known", PACKAGED, ids=lambda known: known.name)
def test_a_package_holds_the_published_bytes(known):
    """The one that the lock pins: what is installed here is what is used, checked like a placed file."""
    path = weights_file(known.name)
    assert path.name == known.name and path.stat().st_size == known.size
    assert hashlib.sha256(path.read_bytes()).hexdigest() == known.sha256
    # torch's naming rule: the hash's first eight digits end the name
    assert known.sha256.startswith(known.name.rpartition("-")[2].removesuffix(".pth"))
    # The version that is installed is the one that is pinned.
    version, top = metadata.version(known.package), Path(__file__).parents[1]
    assert f'"{known.package}=={version}"' in (top / "pyproject.toml").read_text(encoding="utf-8")
    assert f"\n{known.package.replace('_', '-')}=={version} \\\n" in (top / "envs/lock.txt").read_text(encoding="utf-8")


def test_a_package_that_is_missing_or_holds_other_bytes(monkeypatch, tmp_path):
    (known,) = PACKAGED
    monkeypatch.setitem(WEIGHTS, known.name, dataclasses.replace(known, package="no_such_package"))
    with pytest.raises(UserError, match="is not installed; say make install") as error:
        weights_file(known.name)
    assert "\n" not in str(error.value) and known.sha256 in str(error.value)

    # A package of its own: its record says where its files lie.
    info = tmp_path / "tiny_weights-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
    (tmp_path / "tiny").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    sha256 = hashlib.sha256(b"good").hexdigest()
    own = WeightsFile("a.pth", sha256, known.url, 4, package="tiny_weights", inside="tiny/a.pth")
    monkeypatch.setitem(WEIGHTS, "a.pth", own)
    with pytest.raises(UserError, match=r"missing weights; install the package .*tiny_weights==1\.0"):
        weights_file("a.pth")
    (tmp_path / "tiny/a.pth").write_bytes(b"evil")
    with pytest.raises(UserError, match=r"--force-reinstall tiny_weights==1\.0") as error:
        weights_file("a.pth")
    assert hashlib.sha256(b"evil").hexdigest() in str(error.value) and "\n" not in str(error.value)
    (tmp_path / "tiny/a.pth").write_bytes(b"good")
    assert weights_file("a.pth") == tmp_path / "tiny/a.pth"


def test_wrong_bytes_and_wrong_size(cache):
    (cache / "small.bin").write_bytes(b"evil")
    with pytest.raises(UserError, match=hashlib.sha256(b"evil").hexdigest()) as error:
        weights_file("small.bin")
    assert "\n" not in str(error.value) and "example.org" in str(error.value)
    (cache / "small.bin").write_bytes(b"longer")
    with pytest.raises(UserError, match="6 bytes, 4 are usual"):
        weights_file("small.bin")


def test_checked_once_until_it_changes(cache, monkeypatch):
    import os

    (cache / "small.bin").write_bytes(b"good")
    calls = []
    real = weights.digest
    monkeypatch.setattr(weights, "digest", lambda path: calls.append(path) or real(path))
    assert weights_file("small.bin") == weights_file("small.bin") == cache / "small.bin"
    assert len(calls) == 1
    (cache / "small.bin").write_bytes(b"evil")
    os.utime(cache / "small.bin", ns=(1, 1))
    with pytest.raises(UserError):
        weights_file("small.bin")
    assert len(calls) == 2


def test_stand_ins_of_a_rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_line) -> None:
    """Every file that a user places has one, the extractors take them, and another file in their place is refused."""
    from directcm.evaluation.metrics import stand_in
    from directcm.evaluation.metrics.extractors import build_extractor

    # A pinned package's file is there, so that none stands in for it.
    assert set(stand_in._MAKERS) == {name for name, known in WEIGHTS.items() if not known.package}
    monkeypatch.setenv("DIRECTCM_WEIGHTS", str(tmp_path))
    names = ["dinov2_vitl14_pretrain.pth", "ViT-L-14.pt", "sac+logos+ava1-l14-linearMSE.pth", "inception-2015-12-05.pt"]
    stand_in.save(tmp_path, names, True)
    images = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    shapes = {"dinov2_vitl14": 64, "clip_vitl14": 768, "inception_clean": 2048}
    for name, size in shapes.items():
        found = build_extractor(name).extract(images, ["a", "b"])["image"]
        assert found.shape == (2, size) and np.isfinite(found).all() and not np.allclose(found[0], found[1])
    assert build_extractor("aesthetic_laion").extract(images, ["a", "b"])["score"].shape == (2,)
    weights_file("ViT-L-14.pt")
    stand_in.save(tmp_path / "again", names[:2], True)
    assert (tmp_path / "again" / names[0]).read_bytes() == (tmp_path / names[0]).read_bytes()
    (tmp_path / "ViT-L-14.pt").write_bytes(b"another")
    with pytest.raises(UserError) as error:
        weights_file("ViT-L-14.pt")
    assert "sha256" in one_line(error)
    # Without the list they are no stand-ins, but wrong files.
    (tmp_path / "stand-ins.json").unlink()
    with pytest.raises(UserError, match="has sha256"):
        weights_file("dinov2_vitl14_pretrain.pth")
