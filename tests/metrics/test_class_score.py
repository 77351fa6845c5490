"""The score in the manner of the Inception score: cases by hand, torch-fidelity's numbers, the formula by scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from directcm.config.specs import METRICS
from directcm.errors import UserError
from directcm.runtime import rng
from directcm.statistics.class_score import SPLITS, class_score, split_score


def test_uniform_predictions_score_one():
    result = class_score(np.zeros((40, 7)))
    assert result.value == pytest.approx(1, abs=1e-12) and result.sd == pytest.approx(0, abs=1e-12)
    # Alike for all images, whatever they are: nothing is told apart.
    one = rng.generator(0, "logits", 1).standard_normal((1, 7))
    assert class_score(np.repeat(one, 40, axis=0)).value == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 5, 10])
def test_sure_predictions_score_the_number_of_classes(classes):
    # Each split holds each class twice.
    logits = 1000.0 * np.eye(classes)[np.tile(np.arange(classes), 2 * SPLITS)]
    result = class_score(logits)
    assert result.value == pytest.approx(classes, rel=1e-12) and result.sd == pytest.approx(0, abs=1e-9)
    assert split_score(1000.0 * np.eye(classes)) == pytest.approx(classes, rel=1e-12)


def test_two_classes_by_hand():
    # p = (3/4, 1/4) and (1/4, 3/4), mean (1/2, 1/2): KL = 3/4 ln 3/2 + 1/4 ln 1/2 for both.
    logits = np.log([[3.0, 1.0], [1.0, 3.0]])
    expected = np.exp(0.75 * np.log(1.5) + 0.25 * np.log(0.5))
    assert split_score(logits) == pytest.approx(expected, rel=1e-12) and expected == pytest.approx(1.139753528)
    result = class_score(np.tile(logits, (SPLITS, 1)))
    assert (result.value, result.sd) == (pytest.approx(expected), pytest.approx(0, abs=1e-12))


def test_torch_fidelitys_numbers():
    """isc_features_to_metric of torch-fidelity 0.4.0, without its shuffling."""
    i, j = np.meshgrid(np.arange(57), np.arange(12), indexing="ij")
    logits = 4 * np.sin(0.7 * i * (j + 1) + j)
    result = class_score(logits)
    assert (result.value, result.sd) == (pytest.approx(2.1402823117768723), pytest.approx(0.2604811862205912))
    assert class_score(logits, 1).value == pytest.approx(2.3754097403110532)
    assert result.checks == {"sd_over_splits": result.sd} and result.splits == 10 and result.dim is None


def test_the_formula_by_scipy():
    logits = rng.generator(1, "logits", 103).standard_normal((103, 9)) * 3
    p = softmax(logits, axis=1)
    scores = [
        np.exp(np.mean([entropy(row, part.mean(0)) for row in part]))
        for part in (p[k * 103 // 10 : (k + 1) * 103 // 10] for k in range(10))
    ]
    result = class_score(logits)
    assert result.value == pytest.approx(np.mean(scores), rel=1e-12)
    assert result.sd == pytest.approx(np.std(scores), rel=1e-9)
    # What is added to all logits of an image says nothing; float32 is near enough.
    shifted = logits + 100 * rng.generator(2, "shift", 103).standard_normal((103, 1))
    assert class_score(shifted).value == pytest.approx(result.value, rel=1e-10)
    assert class_score(logits.astype(np.float32)).value == pytest.approx(result.value, rel=1e-5)


def test_what_it_refuses():
    assert class_score(np.zeros((9, 4))) is None and class_score(np.zeros((10, 4))) is not None
    bad = np.zeros((20, 4))
    bad[13, 2] = np.nan
    with pytest.raises(UserError, match="row 13"):
        class_score(bad)
    with pytest.raises(UserError, match="expected"):
        class_score(np.zeros((20, 1)))
    with pytest.raises(UserError, match="expected"):
        class_score(np.zeros(20))


def test_it_never_bears_the_real_ones_name():
    spec = METRICS["is_lite0"]
    assert spec.extractor == "efficientnet_lite0" and spec.title == "IS-lite0" and spec.better == "higher"
