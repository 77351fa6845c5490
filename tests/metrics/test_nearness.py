"""How near samples are to training images: by hand, against SciPy and scikit-learn, and through `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from directcm.config import Ode, Statistics
from directcm.evaluation.metrics.evaluate import TEACHER, Comparison, evaluate
from directcm.evaluation.metrics.nearness import distances, nearness, reduced, share_farther
from directcm.runtime import rng
from directcm.runtime.artifacts import Artifact, open_artifact


def flat(*levels: int) -> list[Image.Image]:
    return [Image.new("RGB", (8, 8), (level,) * 3) for level in levels]


def data_of(build: Any, folder: Path, train: list[Image.Image], held_out: list[Image.Image]) -> Artifact:
    n = len(train) + len(held_out)
    return build.data(folder / "data", train + held_out, ["a"] * n, ["0"] * n, len(held_out))


def test_by_hand(build, tmp_path):
    # Held-out images lie 51/255 = 0.2 and 102/255 = 0.4 from black, the median is 0.3; 205 lies 50/255 from white.
    data = data_of(build, tmp_path, flat(0, 255), flat(51, 102))
    found = nearness(flat(0, 51, 60, 102, 128, 205), data)
    np.testing.assert_allclose(found.nearer, [1, 0.75, 0.5, 0.25, 0, 1])
    levels = np.array([0, 51, 60, 102, 127, 50])
    np.testing.assert_allclose(found.distance, levels / 255 / 0.3, rtol=1e-12)


def test_one_channel_of_one_pixel():
    train = np.zeros((1, 12), np.uint8)
    image = train.copy()
    image[0, 5] = 255
    # One of twelve numbers differs by 1: the root of the mean square is √(1/12).
    assert distances(image, train) == pytest.approx([np.sqrt(1 / 12)], rel=1e-14)
    assert distances(train, train) == [0.0]


def test_against_scikit_learn(monkeypatch):
    from sklearn.neighbors import NearestNeighbors

    monkeypatch.setattr("directcm.evaluation.metrics.nearness._BLOCK", 17)
    draw = rng.generator(3, "nearness")
    train, images = (draw.integers(0, 256, (n, 192)).astype(np.uint8) for n in (100, 40))
    images[7] = train[93]
    nearest = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(train / 255).kneighbors(images / 255)[0][:, 0]
    found = distances(images, train)
    np.testing.assert_allclose(found, nearest / np.sqrt(192), atol=1e-7)
    assert found[7] == 0.0 and (np.delete(found, 7) > 0.1).all()


def test_the_mean_is_mann_whitneys_statistic():
    from scipy.stats import mannwhitneyu

    draw = rng.generator(4, "nearness")
    # Few values, so that many are equal.
    held_out, samples = np.sort(draw.integers(0, 12, 50) / 12), draw.integers(2, 15, 80) / 12
    wanted = mannwhitneyu(held_out, samples).statistic / (50 * 80)
    assert share_farther(samples, held_out).mean() == pytest.approx(wanted, rel=1e-12)


def test_new_images_are_as_near_as_held_out_ones_and_copies_nearest(build, tmp_path):
    images, _ = build.digits(8)
    data = data_of(build, tmp_path, images[:600], images[600:1000])
    new, copies = nearness(images[1000:1400], data), nearness(images[:50], data)
    # Mann–Whitney's standard error at 400 and 400 is 0.02; the digits are in the order in which people wrote them.
    assert new.nearer.mean() == pytest.approx(0.5, abs=0.1) and np.median(new.distance) == pytest.approx(1, abs=0.1)
    assert (copies.nearer == 1).all() and (copies.distance == 0).all()
    # Grey levels of noise take them away again, the more the farther.
    shares = [nearness(build.noisy(images[:200], 1, amount), data).nearer.mean() for amount in (5.0, 40.0, 120.0)]
    assert shares[0] > 0.9 > shares[1] > shares[2] and shares[2] < 0.1


def test_large_images_are_compared_at_32_pixels():
    image = np.zeros((64, 64, 3), np.uint8)
    image[:2, :2] = [[[10] * 3, [20] * 3], [[30] * 3, [40] * 3]]
    (row,) = reduced([Image.fromarray(image)], 64)
    assert row.shape == (3 * 32 * 32,) and row[:3].tolist() == [25] * 3 and not row[3:].any()
    assert reduced(flat(7), 8).shape == (1, 3 * 8 * 8)


def test_through_evaluate(build, digit_data, digit_noise, make_samples, tmp_path):
    names = ["nearer_than_held_out", "nearest_distance"]
    images, _ = build.digits(8)
    for amount in (0.0, 60.0):
        samples = make_samples(f"near{amount:.0f}", 2, amount, 1)
        compared = Comparison(
            metrics=names, row=TEACHER, run=Ode(solver="ddim", N=10, w=1), statistics=Statistics(bootstrap=100),
            seed=3, data=digit_data, noise=digit_noise, data_features={},
        )  # fmt: skip
        out = tmp_path / f"{amount}"
        content = evaluate(compared, samples, {}, out, steps=10)
        nearer, distance = content["metrics"]
        assert [(m["metric"], m["reference"], m["n"], m["n_reference"]) for m in content["metrics"]] == [
            (name, "data", 60, None) for name in names
        ]
        rows = open_artifact(out, "metrics").csv("per_sample.csv")
        assert list(rows[0]) == ["row", *names]
        if amount == 0:
            # The prompts' own images are training images.
            assert (nearer["value"], distance["value"]) == (1.0, 0.0)
            continue
        # Each of the 320 training images, pixel by pixel.
        shown = [np.asarray(Image.open(samples[0].file(f"images/{i:05d}.png")), dtype=float) for i in range(60)]
        real = [np.asarray(image, dtype=float) for image in images[:400]]
        mine, held = (
            np.array([min(np.sqrt(((x - y) ** 2).mean()) for y in real[:320]) for x in some])
            for some in (shown, real[320:])
        )
        wanted = mine / np.median(held)
        np.testing.assert_allclose([float(row["nearest_distance"]) for row in rows], wanted, rtol=1e-9)
        assert distance["value"] == pytest.approx(wanted.mean()) and distance["low"] < wanted.mean() < distance["high"]
        assert nearer["value"] == pytest.approx((held[None] > mine[:, None]).mean()) and 0 < nearer["value"] < 0.5


def test_no_distance_where_held_out_images_are_training_images(build, digit_noise, make_samples, tmp_path):
    found = nearness(flat(0, 9), data_of(build, tmp_path, flat(0, 255), flat(0, 0, 3)))
    assert found.distance is None
    np.testing.assert_allclose(found.nearer, [(1 + 1 / 2 + 1 / 2) / 3, 0])


@pytest.mark.parametrize(("train", "held_out"), [([0, 1], []), ([], [0, 1])])
def test_both_parts_are_needed(build, tmp_path, one_line, train, held_out):
    from directcm.errors import UserError

    with pytest.raises(UserError) as error:
        nearness(flat(3), data_of(build, tmp_path, flat(*train), flat(*held_out)))
    assert f"{len(train)} training and {len(held_out)} held-out images" in one_line(error)


def test_images_of_another_size_are_refused(build, tmp_path, one_line):
    from directcm.errors import UserError

    with pytest.raises(UserError) as error:
        nearness([Image.new("RGB", (16, 16))], data_of(build, tmp_path, flat(0), flat(1)))
    assert "image 0 is 16×16, the data's are 8×8" in one_line(error)
