"""TensorFlow's Inception v3 by its numbers: torch-fidelity's on the same weights and images, its resizing by hand, Song et al.'s k."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from directcm.config.specs import EXTRACTORS, METRICS
from directcm.errors import UserError
from directcm.evaluation.metrics.inception import InceptionLegacyTensorflow, resize
from directcm.runtime.weights import WEIGHTS
from directcm.statistics.class_score import class_score
from directcm.statistics.frechet import frechet_distance
from directcm.statistics.manifold import manifold, manifold_of_three
from tests.metrics.inception_state import inception_state

# Sizes that are enlarged, shrunk, and neither square nor alike.
SIZES = ((16, 16), (32, 32), (48, 64), (400, 310))


# What torch-fidelity 0.4.0 gives for these weights and pictures, rounded.
FEATURES = [
    [0.43130, 0.37823, 0.54840],
    [0.41672, 0.36609, 0.62699],
    [0.38779, 0.37083, 0.54538],
    [0.46881, 0.38799, 0.65669],
]
LOGITS = [
    [-9.77231, 3.36240, 4.31030],
    [-10.63633, 4.56415, 3.90159],
    [-11.28390, 4.47928, 4.77521],
    [-10.63349, 5.02704, 4.53865],
]
MEANS = [0.313043, 0.336149, 0.357420, 0.352181]
SCORE, BALLS, FID = (1.0131727104, 0.0158992133), (0.5833333, 1.0), 4.1277194


def picture(size: tuple[int, int], key: int) -> Image.Image:
    """Waves of a few pixels, of other frequencies and colours for each key; whole numbers of 8 bits."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    planes = [np.sin(0.9 * (c + 1 + key) * x / size[0] + 2.1 * key + 0.7 * (c + key) * y / size[1]) for c in range(3)]
    return Image.fromarray(np.round(127.5 * (1 + np.stack(planes, 2))).astype(np.uint8))


@pytest.fixture(scope="module")
def network() -> InceptionLegacyTensorflow:
    return InceptionLegacyTensorflow("cpu", state=inception_state())


def test_resizing_by_hand() -> None:
    """Output pixel i lies at i·n/side of the input: pixels of two to four."""
    line = np.array([[[10.0]], [[30.0]]], np.float32).transpose(1, 0, 2)
    assert resize(np.repeat(line, 2, 0), 4)[:, :, 0].tolist() == [[10, 20, 30, 30]] * 4
    # Four to two: every other pixel as it is, without a mean over what lies between.
    four = np.arange(16, dtype=np.float32).reshape(4, 4, 1)
    assert resize(four, 2)[:, :, 0].tolist() == [[0, 2], [8, 10]]
    same = np.random.default_rng(0).random((299, 299, 3)).astype(np.float32)
    assert np.array_equal(resize(same), same)
    # Rows and columns are not swapped.
    tall = np.arange(6, dtype=np.float32).reshape(3, 2, 1)
    expected = [[r, r + 1 / 3, r + 2 / 3, r + 1, r + 1, r + 1] for r in (0, 1, 2, 3, 4, 4)]
    np.testing.assert_allclose(resize(tall, 6)[:, :, 0], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_torch_fidelitys_numbers(network: InceptionLegacyTensorflow) -> None:
    """FeatureExtractorInceptionV3 of torch-fidelity 0.4.0 with these weights, its layers 2048 and logits_unbiased: the first numbers."""
    pictures = [picture(size, key) for key, size in enumerate(SIZES)]
    found = [network.extract([one], [""]) for one in pictures]
    features, logits = (np.concatenate([one[name] for one in found]) for name in ("image", "logits"))
    assert features.shape == (4, 2048) and logits.shape == (4, 1008)
    np.testing.assert_allclose(features[:, :3], FEATURES, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(logits[:, :3], LOGITS, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(features.mean(1), MEANS, rtol=1e-4)


@pytest.mark.slow
def test_the_metrics_are_torch_fidelitys_on_its_features(network: InceptionLegacyTensorflow) -> None:
    """isc_features_to_metric (in order), calculate_precision_recall_full and the FID of torch-fidelity 0.4.0, of 24 and 24 pictures."""
    first, second = (
        network.extract([picture((20, 20), key) for key in range(start, start + 24)], [""] * 24) for start in (0, 12)
    )
    score = class_score(first["logits"])
    assert (score.value, score.sd) == (pytest.approx(SCORE[0], rel=1e-4), pytest.approx(SCORE[1], rel=1e-3))
    balls = manifold_of_three(first["image"], second["image"])
    assert (balls.precision, balls.recall) == (pytest.approx(BALLS[0], abs=1e-6), pytest.approx(BALLS[1]))
    assert frechet_distance(first["image"], second["image"]).value == pytest.approx(FID, rel=1e-3)


def test_the_last_layers_bias_is_left_out(network: InceptionLegacyTensorflow) -> None:
    state = inception_state()
    assert float(state["fc.bias"].abs().max()) > 0.5
    with torch.inference_mode():
        found = network._extract(torch.zeros(1, 3, 299, 299), [""])
        torch.testing.assert_close(found["logits"], found["image"] @ state["fc.weight"].T)


def test_other_weights_are_one_line(one_line) -> None:
    for state, said in (({}, "None"), ({"fc.weight": torch.zeros(1000, 2048)}, "(1000, 2048)")):
        with pytest.raises(UserError) as error:
            InceptionLegacyTensorflow("cpu", state=state)
        assert f"fc.weight of the weights is {said}, expected (1008, 2048)" in one_line(error)


def test_what_is_declared() -> None:
    extractor = EXTRACTORS["inception_legacy_tensorflow"]
    assert extractor.arrays == ("image", "logits")
    # pytorch-fid's release carries the hash's first eight digits in its name.
    (file,) = extractor.weights
    assert WEIGHTS[file].sha256.startswith("6726825d") and "6726825d" in file
    for name in ("inception_score", "precision_inception", "recall_inception", "fid_legacy_tensorflow"):
        assert METRICS[name].extractor == extractor.name
    assert METRICS["inception_score"].title == "Inception score" and METRICS["inception_score"].references == ("none",)
    # A stand-in never bears the real one's name.
    assert METRICS["is_lite0"].title == "IS-lite0" and METRICS["is_lite0"].extractor != extractor.name


def test_balls_are_those_of_the_third_neighbour() -> None:
    """Kynkäänniemi et al. and OpenAI's evaluator have k = 3; at k = 5, as our other precision and recall, it is another number."""
    draw = np.random.default_rng(3)
    samples, reference = draw.standard_normal((60, 4)), draw.standard_normal((60, 4)) + 0.8
    three, five = manifold_of_three(samples, reference), manifold(samples, reference)
    assert three == manifold(samples, reference, k=3) and three.k == 3 and three.precision < five.precision
    assert METRICS["precision_inception"].least == METRICS["recall_inception"].least == 4
