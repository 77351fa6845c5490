"""ODE error, bootstrap, CLIP score, quality head, prompt accuracy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from directcm.errors import UserError
from directcm.evaluation.metrics.clip_score import cosine
from directcm.evaluation.metrics.extractors import read_state
from directcm.evaluation.metrics.ode_error import ode_error
from directcm.evaluation.metrics.prompt_accuracy import train_classifier
from directcm.evaluation.metrics.quality import QualityHead, head_from_state
from directcm.runtime import rng
from directcm.statistics.bootstrap import mean_interval


def test_ode_error_matches_rows_by_number():
    teacher = rng.generator(0, "teacher").standard_normal((5, 4, 2, 2)).astype(np.float32)
    offset = np.array([0.0, 1.0, 2.0, 3.0, 4.0], dtype=np.float32).reshape(-1, 1, 1, 1)
    order = np.array([3, 0, 4, 1, 2])
    error = ode_error((teacher + offset)[order], order + 10, teacher, np.arange(5) + 10)
    np.testing.assert_allclose(error, (order**2).astype(float), rtol=1e-5)


@pytest.mark.parametrize(
    ("student", "rows", "teacher", "teacher_rows", "words"),
    [
        (np.zeros((2, 1)), [0, 1], np.zeros((2, 1)), [0, 2], "not the same"),
        (np.zeros((2, 1)), [0, 1], np.zeros((3, 1)), [0, 1, 2], "not the same"),
        (np.zeros((2, 1)), [0, 1], np.zeros((2, 2)), [0, 1], "shapes"),
        (np.zeros((2, 1)), [0, 0], np.zeros((2, 1)), [0, 1], "twice"),
        (np.zeros((2, 1)), [0], np.zeros((2, 1)), [0, 1], "row numbers"),
        (np.array([[0.0], [np.nan]]), [0, 7], np.zeros((2, 1)), [0, 7], "row 7"),
        (np.zeros((0, 1)), [], np.zeros((0, 1)), [], "no samples"),
    ],
)
def test_ode_error_refuses(student, rows, teacher, teacher_rows, words):
    with pytest.raises(UserError, match=words):
        ode_error(student, np.array(rows, dtype=int), teacher, np.array(teacher_rows, dtype=int))


def test_bootstrap_covers_the_mean():
    hits = 0
    for i in range(200):
        values = rng.generator(i, "coverage").exponential(size=80)
        low, high = mean_interval(values, resamples=400, level=0.9, seed=i)
        assert low < values.mean() < high
        hits += low <= 1.0 <= high
    # Binomial(200, 0.9) less the percentile interval's known shortfall on a skewed mean
    assert 0.80 <= hits / 200 <= 0.96


def test_bootstrap_is_deterministic():
    values = rng.generator(0, "b").standard_normal(500)
    assert mean_interval(values, resamples=300, level=0.95, seed=1) == mean_interval(
        values, resamples=300, level=0.95, seed=1
    )
    assert mean_interval(values, resamples=300, level=0.95, seed=1) != mean_interval(
        values, resamples=300, level=0.95, seed=2
    )
    # A constant has no spread.
    low, high = mean_interval(np.full(500, 0.5), resamples=300, level=0.95, seed=1)
    assert low == pytest.approx(0.5) and high == pytest.approx(0.5)


def test_bootstrap_agrees_with_the_normal_interval():
    values = rng.generator(3, "b").standard_normal(2000)
    low, high = mean_interval(values, resamples=3000, level=0.95, seed=0)
    half = 1.96 * values.std(ddof=1) / np.sqrt(values.size)
    assert (high - low) / 2 == pytest.approx(half, rel=0.08)


def test_bootstrap_refuses():
    with pytest.raises(UserError, match="at least 2"):
        mean_interval(np.ones(1), resamples=100, level=0.9, seed=0)
    with pytest.raises(UserError, match="row 1"):
        mean_interval(np.array([1.0, np.nan]), resamples=100, level=0.9, seed=0)


def test_cosine():
    image = np.array([[3.0, 0.0], [1.0, 1.0], [0.0, -2.0]])
    text = np.array([[0.5, 0.0], [1.0, 0.0], [0.0, 5.0]])
    np.testing.assert_allclose(cosine(image, text), [1, np.sqrt(0.5), -1])
    with pytest.raises(UserError, match="row 0"):
        cosine(np.zeros((1, 2)), np.ones((1, 2)))
    with pytest.raises(UserError, match="row 1"):
        cosine(np.ones((2, 2)), np.array([[1.0, 1.0], [np.nan, 1.0]]))
    with pytest.raises(UserError, match="shapes"):
        cosine(np.ones((1, 2)), np.ones((2, 2)))


def test_quality_head_is_the_laion_architecture():
    head = QualityHead(768)
    shapes = {key: tuple(value.shape) for key, value in head.state_dict().items()}
    sizes = {0: (1024, 768), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)}
    expected = {f"layers.{i}.weight": size for i, size in sizes.items()} | {
        f"layers.{i}.bias": size[:1] for i, size in sizes.items()
    }
    assert shapes == expected
    dropouts = {i: layer.p for i, layer in enumerate(head.layers) if isinstance(layer, torch.nn.Dropout)}
    assert dropouts == {1: 0.2, 3: 0.2, 5: 0.1}
    assert {type(layer) for layer in head.layers} == {torch.nn.Linear, torch.nn.Dropout}


def test_quality_head_loads_and_normalises(tmp_path):
    state = QualityHead(8).state_dict()
    torch.save(state, tmp_path / "head.pth")
    head = head_from_state(read_state(tmp_path / "head.pth"), "head.pth")
    assert not head.training
    x = torch.from_numpy(rng.generator(0, "x").standard_normal((3, 8)).astype(np.float32))
    torch.testing.assert_close(head(x), head(17 * x))
    unit = x / x.norm(dim=1, keepdim=True)
    for i in (0, 2, 4, 6, 7):
        unit = unit @ state[f"layers.{i}.weight"].T + state[f"layers.{i}.bias"]
    torch.testing.assert_close(head(x), unit[:, 0])
    with pytest.raises(UserError, match="aesthetic head"):
        head_from_state({"layers.0.weight": torch.zeros(1024, 8)}, "x.pth")
    with pytest.raises(UserError, match="aesthetic head"):
        head_from_state({"other": torch.zeros(1)}, "x.pth")


def test_head_runs_no_pickled_code(tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    torch.save({"layers.0.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(pickle.UnpicklingError):
        read_state(tmp_path / "evil.pth")
    assert not (tmp_path / "pwned").exists()


def test_classifier_reads_real_digits_at_16_pixels(tmp_path, build):
    images, labels = build.digits(16)
    order = rng.permutation(0, "split", len(images))
    images, labels = [images[i] for i in order], [labels[i] for i in order]
    data = build.data(tmp_path / "data", images, ["" for _ in labels], labels, 359)
    classifier = train_classifier(data)
    assert classifier.held_out_accuracy is not None and classifier.held_out_accuracy >= 0.97
    held_out, truth = images[-359:], labels[-359:]
    right = classifier.correct(held_out, truth)
    assert right.mean() == pytest.approx(classifier.held_out_accuracy) and set(right) <= {0.0, 1.0}
    wrong = classifier.correct(held_out, [str((int(label) + 1) % 10) for label in truth])
    assert wrong.mean() < 0.03
    assert classifier.correct(build.noisy(held_out, 0, 200), truth).mean() < 0.8


def test_classifier_refuses(tmp_path, digit_data, build):
    images, _ = build.digits(8)
    unlabelled = build.data(tmp_path / "a", images[:10], ["x"] * 10, [""] * 10, 2)
    with pytest.raises(UserError, match="needs labels"):
        train_classifier(unlabelled)
    with pytest.raises(UserError, match="fewer than 2 labels"):
        train_classifier(build.data(tmp_path / "b", images[:10], ["x"] * 10, ["1"] * 10, 2))
    classifier = train_classifier(digit_data)
    with pytest.raises(UserError, match="16×16"):
        classifier.correct(build.digits(16)[0][:1], ["0"])
    with pytest.raises(UserError, match="no label"):
        classifier.correct(images[:1], [""])
