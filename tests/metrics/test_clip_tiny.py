from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from directcm.config import ClipTiny
from directcm.errors import UserError
from directcm.evaluation.metrics import clip_tiny
from directcm.evaluation.metrics.clip_tiny import (
    CaptionTokenizer,
    contrastive_loss,
    degraded,
    make_extractor,
    schedule,
    shifted,
    train_tokenizer,
)
from directcm.evaluation.metrics.extractors import ClipTinyExtractor, build_extractor
from directcm.runtime import rng
from directcm.runtime.artifacts import open_artifact
from directcm.runtime.progress import Progress

TINY = ClipTiny(width=16, layers=1, patch=4, steps=6, batch_size=16, head_steps=4)


@pytest.mark.slow
def test_reads_digits(tmp_path, build):
    images, labels = build.digits(16)
    order = rng.permutation(0, "split", len(images))
    images, labels = [images[i] for i in order], [labels[i] for i in order]
    data = build.data(tmp_path / "data", images, [f"a handwritten digit {x}" for x in labels], labels, 359)
    # Two layers and half the batch of the default, which takes three times as long and reads no better.
    content = make_extractor("clip_tiny", data, ClipTiny(layers=2, steps=300, batch_size=64), 0, tmp_path / "out")
    assert content["held_out_zero_shot_accuracy"] > 0.9
    # A head that always said the mean would be 3 off.
    assert content["head_held_out_mae"] < 1.5
    extractor = build_extractor("clip_tiny", open_artifact(tmp_path / "out", "extractor"), device="cpu")
    held_out, truth = images[-100:], labels[-100:]
    texts = [f"a handwritten digit {x}" for x in truth]
    clean = extractor.extract(held_out, texts)
    worse = extractor.extract(build.noisy(held_out, 0, 80), texts)
    assert clean["score"].mean() > worse["score"].mean() + 2
    unit = {k: v / np.linalg.norm(v, axis=1, keepdims=True) for k, v in clean.items() if k != "score"}
    wrong = np.roll(unit["text"], 1, axis=0)
    assert (unit["image"] * unit["text"]).sum(1).mean() > (unit["image"] * wrong).sum(1).mean() + 0.2


@pytest.mark.slow
def test_twice_gives_the_same_bytes(tmp_path, digit_data, monkeypatch):
    seen = []

    class Seen(Progress):
        def update(self, count=1, note=""):
            super().update(count, note)
            seen.append((self.done, self.total, float(note.removeprefix("loss "))))

    monkeypatch.setattr(clip_tiny, "Progress", Seen)
    contents = [make_extractor("clip_tiny", digit_data, TINY, 3, tmp_path / name) for name in "ab"]
    first, second = (open_artifact(tmp_path / name, "extractor").verify() for name in "ab")
    assert first.fingerprint == second.fingerprint and contents[0] == contents[1]
    assert set(first.checksums) == {"clip.safetensors", "head.safetensors", "tokenizer.json", "extractor.json"}
    assert [a[:2] for a in seen] == 2 * [(i + 1, 6) for i in range(6)] and all(math.isfinite(a[2]) for a in seen)
    make_extractor("clip_tiny", digit_data, TINY, 4, tmp_path / "c")
    assert open_artifact(tmp_path / "c", "extractor").fingerprint != first.fingerprint


@pytest.mark.slow
def test_torchs_generator_is_left_alone(tmp_path, digit_data):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    make_extractor("clip_tiny", digit_data, TINY, 0, tmp_path / "a")
    ClipTinyExtractor(open_artifact(tmp_path / "a", "extractor"), "cpu")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.slow
def test_generic_folder_of_few_images_and_any_captions(tmp_path, build):
    images, _ = build.digits(8)
    texts = ["", "猫が座っている", "a " * 300, "émoji 🐈‍⬛ <end> <pad>", "\x00\n\ttabs", "مرحبا", "last"]
    data = build.data(tmp_path / "data", images[:7], texts, [""] * 7, 2)
    content = make_extractor("clip_tiny", data, TINY, 0, tmp_path / "out")
    assert content["captions"] == 7 and 0 <= content["held_out_zero_shot_accuracy"] <= 1
    assert content["config"]["text_cfg"]["context_length"] == 77
    extractor = build_extractor("clip_tiny", open_artifact(tmp_path / "out", "extractor"), device="cpu")
    found = extractor.extract(images[:7], texts)
    assert {k: v.shape for k, v in found.items()} == {"image": (7, 16), "text": (7, 16), "score": (7,)}
    assert all(np.isfinite(v).all() for v in found.values())


def test_refusals(tmp_path, build, digit_data):
    images, _ = build.digits(8)
    with pytest.raises(UserError, match="only clip_tiny"):
        make_extractor("fid", digit_data, TINY, 0, tmp_path / "x")
    with pytest.raises(UserError, match="does not divide"):
        make_extractor("clip_tiny", digit_data, ClipTiny(patch=3), 0, tmp_path / "x")
    with pytest.raises(UserError, match="at least 2"):
        make_extractor(
            "clip_tiny", build.data(tmp_path / "d", images[:3], ["a"] * 3, [""] * 3, 2), TINY, 0, tmp_path / "x"
        )
    assert not (tmp_path / "x").exists()
    make_extractor("clip_tiny", digit_data, TINY, 0, tmp_path / "out")
    extractor = build_extractor("clip_tiny", open_artifact(tmp_path / "out", "extractor"), device="cpu")
    with pytest.raises(UserError, match="16×16"):
        extractor.extract(build.digits(16)[0][:1], ["a"])


@pytest.fixture(scope="module")
def tokenizer() -> CaptionTokenizer:
    return train_tokenizer(["a handwritten digit one", "a handwritten digit two"] * 5)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(text=st.text())
def test_tokenizer_takes_any_text(tokenizer, text):
    ids = tokenizer([text])
    assert ids.shape == (1, tokenizer.context) and int(ids[0, 0]) == tokenizer.start
    assert int((ids == tokenizer.end).sum()) == 1
    end = int((ids == tokenizer.end).int().argmax())
    assert (ids[0, end + 1 :] == tokenizer.pad).all() and int(ids.max()) < tokenizer.vocabulary
    again = CaptionTokenizer(tokenizer.text, 400)
    if len(again.tokens(text)) <= 398:
        assert again._tokenizer.decode(again.tokens(text)) == text or "<" in text


def test_tokenizer_is_small_and_keeps_captions_apart(tokenizer):
    ids = tokenizer(["a handwritten digit one", "a handwritten digit two"])
    assert not torch.equal(ids[0], ids[1])
    assert tokenizer.context <= 8 and 259 <= tokenizer.vocabulary <= clip_tiny.VOCABULARY
    # A caption that spells a special token is not one.
    assert tokenizer.end not in tokenizer.tokens("<end>")


def test_equal_captions_are_no_negatives():
    image = torch.nn.functional.normalize(torch.eye(3)[[0, 0, 1]], dim=1)
    text = torch.eye(3)[:2]
    scale = torch.tensor(50.0)
    good = contrastive_loss(image, text, torch.tensor([0, 0, 1]), scale)
    # Perfect embeddings: only the even split of a caption over its two images costs anything, ln 2 of one row in two.
    assert float(good) == pytest.approx(0.5 * 0.5 * math.log(2), abs=1e-6)
    assert float(contrastive_loss(image, text, torch.tensor([1, 0, 1]), scale)) > 5


def test_shifts_move_whole_pixels():
    images = rng.generator(0, "i").integers(0, 255, size=(3, 5, 5, 3)).astype(np.uint8)
    moved = shifted(images, np.array([[0, 0], [1, 0], [0, -1]]))
    np.testing.assert_array_equal(moved[0], images[0])
    np.testing.assert_array_equal(moved[1][:-1], images[1][1:])
    np.testing.assert_array_equal(moved[1][-1], images[1][-1])
    np.testing.assert_array_equal(moved[2][:, 1:], images[2][:, :-1])


def test_degradation_grows():
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, 8:] = 255
    np.testing.assert_array_equal(degraded(image, 0.0, rng.generator(0, "d")), image)
    errors = [np.abs(degraded(image, u, rng.generator(0, "d")) - image).mean() for u in (0, 0.25, 0.5, 0.75, 1)]
    assert errors == sorted(errors) and errors[-1] > 40
    assert degraded(image, 1.0, rng.generator(0, "d")).min() >= 0


def test_schedule_warms_up_and_ends_near_zero():
    values = [schedule(i, 100) for i in range(100)]
    assert values[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert values[5:] == sorted(values[5:], reverse=True) and 0 < values[-1] < 1e-3
    assert schedule(0, 1) == 1
