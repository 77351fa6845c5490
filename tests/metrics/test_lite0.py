"""EfficientNet-lite0 with its real weights, and pixels at 16 px: names, numbers of the authors' own network, preprocessing by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from directcm.config.specs import EXTRACTORS
from directcm.errors import UserError
from directcm.evaluation.metrics import lite0
from directcm.evaluation.metrics.extractors import build_extractor, read_state
from directcm.evaluation.metrics.lite0 import EfficientNetLite0, lite0_state
from directcm.evaluation.metrics.pixels16 import Pixels16
from directcm.runtime import rng
from directcm.runtime.weights import weights_file

FILE = EXTRACTORS["efficientnet_lite0"].weights[0]


def image(side: int, width: int | None = None, key: int = 0) -> Image.Image:
    array = rng.generator(key, "image", side, width or side).integers(0, 256, size=(side, width or side, 3))
    return Image.fromarray(array.astype(np.uint8))


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    return build_extractor("efficientnet_lite0")


def test_every_tensor_is_the_published_one(network):
    published = read_state(weights_file(FILE))
    found = network.model.state_dict()
    # 247 are numbers, 49 count the batches of a normalisation's training.
    assert len(published) == len(found) == 296
    assert sum(not name.endswith("num_batches_tracked") for name in published) == 247
    for theirs, (ours, value) in zip(published, found.items(), strict=True):
        assert theirs.rpartition(".")[2] == ours.rpartition(".")[2]
        assert torch.equal(published[theirs], value)
    assert sum(p.numel() for p in network.model.parameters()) == 4_652_008
    assert not network.model.training


def test_other_weights_are_refused():
    published = read_state(weights_file(FILE))
    names = list(published)
    with pytest.raises(UserError, match="295 tensors, tf_efficientnet_lite0 has 296"):
        lite0_state({name: published[name] for name in names[1:]}, names)
    swapped = [names[0], names[2], names[1], *names[3:]]
    with pytest.raises(UserError, match=f"{names[2]} stands where tf_efficientnet_lite0 has {names[1]}"):
        lite0_state({name: published[name] for name in swapped}, names)
    with pytest.raises(UserError, match="another order"):
        EfficientNetLite0(state={name: published[name] for name in swapped})


def test_it_says_what_the_photographs_show(network):
    """The authors' own network, package efficientnet_lite_pytorch 0.1.0, gives these logits' bits too."""
    from sklearn.datasets import load_sample_images
    from timm.data.imagenet_info import ImageNetInfo

    bunch = load_sample_images()
    shown = {
        name.rpartition("/")[2]: Image.fromarray(pixels)
        for name, pixels in zip(bunch.filenames, bunch.images, strict=True)
    }
    words = ImageNetInfo()
    said = {}
    for name, photograph in shown.items():
        logits = torch.from_numpy(network.extract([photograph], [""])["logits"][0])
        values, places = logits.softmax(0).topk(3)
        said[name] = [
            (words.index_to_description(int(i)).split(",")[0], round(float(v), 2))
            for v, i in zip(values, places, strict=True)
        ]
    # The tower above the Summer Palace, and a flower.
    assert said == {
        "china.jpg": [("palace", 0.31), ("bell cote", 0.16), ("monastery", 0.11)],
        "flower.jpg": [("daisy", 0.21), ("mushroom", 0.12), ("bee", 0.05)],
    }


def test_features_are_those_of_the_authors_network(network):
    """Numbers of efficientnet_lite_pytorch 0.1.0, which published the weights, for x_k = sin(k/100)."""
    pixels = torch.sin(0.01 * torch.arange(3 * 224 * 224, dtype=torch.float64)).float().reshape(1, 3, 224, 224)
    found = network.of_prepared([pixels[0]], [""])
    features, logits = found["image"][0], found["logits"][0]
    assert {name: (array.shape, array.dtype) for name, array in found.items()} == {
        "image": ((1, 1280), np.float32), "logits": ((1, 1000), np.float32),
    }  # fmt: skip
    np.testing.assert_allclose(
        logits[:6], [-1.454248, -0.258251, -1.776300, -2.690330, -0.211678, -0.170828], atol=2e-4
    )
    assert (int(logits.argmax()), float(logits.max())) == (905, pytest.approx(6.137662, abs=2e-4))
    assert float(features.sum()) == pytest.approx(192.550385, abs=1e-2)
    np.testing.assert_allclose(features[:6], [0.138443, 0, 0.005007, 0, 0, 0], atol=2e-5)
    # The pooled features are ReLU6's means, and the logits the classifier's of them.
    assert features.min() >= 0 and features.max() <= 6
    with torch.inference_mode():
        maps = network.model.forward_features(pixels)
        assert maps.shape == (1, 1280, 7, 7)
        np.testing.assert_allclose(features, maps.mean((2, 3))[0].numpy(), atol=1e-5)
        np.testing.assert_allclose(logits, network.model(pixels)[0].numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("size", "resized", "box"), [((16, 16), (224, 224), (0, 0)), ((448, 448), (224, 224), (0, 0)),
                                 ((300, 400), (298, 224), (37, 0)), ((90, 60), (224, 336), (0, 56))],
)  # fmt: skip
def test_preprocessing_by_hand(network, size, resized, box):
    """(height, width) → the shorter side to 224 by PIL's bicubic, antialiased, to 8 bits; the middle; (x − 0.498)/0.502."""
    height, width = size
    shown = image(height, width)
    by_hand = shown.resize(resized, Image.Resampling.BICUBIC).crop((*box, box[0] + 224, box[1] + 224))
    expected = (np.asarray(by_hand).astype(np.float64) / 255 - 0.498) / 0.502
    found = network.prepare(shown)
    assert found.shape == (3, 224, 224)
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_black_and_white_and_grey(network):
    for level, value in ((0, -0.992032), (255, 1.0), (127, 0.000078)):
        prepared = network.prepare(Image.new("L", (16, 16), level))
        assert prepared.min() == prepared.max() == pytest.approx(value, abs=1e-6)


def test_same_bytes_and_rows_by_themselves(network):
    images = [image(16, key=i) for i in range(4)]
    first, again = (network.extract(images, [""] * 4) for _ in range(2))
    assert all(first[name].tobytes() == again[name].tobytes() for name in first)
    for i, one in enumerate(images):
        alone = network.extract([one], [""])
        for name in first:
            np.testing.assert_allclose(alone[name][0], first[name][i], atol=1e-4)
    assert not np.allclose(first["image"][0], first["image"][1], atol=1e-2)


def test_fingerprint_is_of_weights_and_preprocessing(network, monkeypatch):
    before = network.fingerprint
    assert before == EfficientNetLite0().fingerprint
    monkeypatch.setattr(lite0, "MEAN", 0.5)
    assert network.fingerprint != before


def test_pixels_are_the_means_of_what_they_cover():
    pixels = build_extractor("pixels16")
    same, larger = image(16), image(32, key=1)
    found = pixels.extract([same, larger], ["", ""])["image"]
    assert found.shape == (2, 768) and found.dtype == np.float32
    array = np.asarray(same).astype(np.float64) / 255
    np.testing.assert_allclose(found[0].reshape(3, 16, 16), array.transpose(2, 0, 1), atol=1e-6)
    # Not rounded to 8 bits: means of 2 × 2 in steps of a quarter of a level.
    blocks = np.asarray(larger).astype(np.float64).reshape(16, 2, 16, 2, 3).mean((1, 3)) / 255
    np.testing.assert_allclose(found[1].reshape(3, 16, 16), blocks.transpose(2, 0, 1), atol=1e-6)
    assert abs(found[1] * 255 - np.round(found[1] * 255)).max() == pytest.approx(0.5, abs=1e-3)
    # 24 px: a pixel of 16 covers one and a half each way.
    wide = image(24, key=2)
    first = np.asarray(wide).astype(np.float64)[:2, :2]
    weights = np.outer([1, 0.5], [1, 0.5]) / 2.25
    expected = (first * weights[:, :, None]).sum((0, 1)) / 255
    np.testing.assert_allclose(Pixels16().prepare(wide)[:, 0, 0].numpy(), expected, atol=1e-5)
    # PIL's box filter, of floats, where 16 divides both sides; 8 px are repeated.
    oblong = image(32, 48, key=3)
    box = [one.convert("F").resize((16, 16), Image.Resampling.BOX) for one in oblong.split()]
    np.testing.assert_allclose(Pixels16().prepare(oblong).numpy(), np.stack(box) / 255, atol=1e-6)
    tiny = image(8, key=4)
    repeated = np.asarray(tiny).repeat(2, axis=0).repeat(2, axis=1).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(Pixels16().prepare(tiny).numpy(), repeated, atol=1e-6)
    assert Pixels16().fingerprint == pixels.fingerprint


def test_neither_takes_a_folder(digit_data):
    for name in ("efficientnet_lite0", "pixels16"):
        with pytest.raises(UserError, match="is not trained here"):
            build_extractor(name, digit_data)
