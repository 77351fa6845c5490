"""Samples: chosen rows, hostile captions, pictures pixel by pixel, equal bytes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from directcm.analysis.figures import figure_samples as figure
from directcm.analysis.page import plain
from directcm.config.specs import METHODS
from directcm.errors import UserError
from directcm.runtime.artifacts import read_csv
from tests.analysis.tidy_tables import alike, outputs, spy

CAPTIONS = [
    "a digit", "a digit", "<script>alert(1)</script>", "$x_1^2$ costs 100% & $5", "🎉 party \x07\n two lines", "مرحبا بالعالم \u202e",
    "数字の六は長い説明文を持っています", "W" * 300, "", r"\frac{1}{", "ordinary", "a digit",
]  # fmt: skip


def test_rows_are_the_first_with_new_prompts_then_further_rounds():
    prompts = [{"row": str(i), "text": t} for i, t in enumerate("aabacdb")]
    assert figure.choose_rows(prompts, set(range(7)), 3) == [0, 2, 4]
    assert figure.choose_rows(prompts, {1, 2, 3, 6}, 3) == [1, 2, 3]
    assert figure.choose_rows(prompts, set(range(7)), 7) == [0, 2, 4, 5, 1, 6, 3]
    assert figure.choose_rows(prompts, set(), 3) == []


def test_shorten_wraps_and_cuts():
    assert figure.shorten("a handwritten digit seven", 13, 2) == "a handwritten\ndigit seven"
    assert figure.shorten("a handwritten digit seven or nine", 13, 2) == "a handwritten\ndigit seven…"
    assert figure.shorten("x" * 50, 10, 2) == "x" * 10 + "\n" + "x" * 9 + "…"
    assert figure.shorten(" \n\t", 10, 2) == "(no prompt)"
    for text in CAPTIONS:
        lines = figure.shorten(text, 12, 3).split("\n")
        assert len(lines) <= 3
        assert all(len(line) <= 12 for line in lines)
    assert plain("a\x00b\n c\u2028d") == "ab c d"


def samples(make):
    rows = list(range(len(CAPTIONS)))
    sets = {
        "Direct CM": [make.samples("direct", rows)],
        "Teacher": [make.samples("shard0", rows[:5]), make.samples("shard1", rows[5:])],
        "CM": [make.samples("cm", rows[:-1])],
    }
    return make.noise(CAPTIONS), sets


@pytest.mark.slow
def test_any_caption_is_drawn_and_reproducible(make, tmp_path):
    noise, sets = samples(make)
    for name in "ab":
        shown = figure.draw(noise, sets, 12, *outputs(tmp_path, name))
    assert shown == [0, *range(2, 11), 1]
    assert alike(tmp_path, "a", "b")
    pdf = (tmp_path / "a.pdf").read_bytes()
    assert b"CreationDate" not in pdf
    assert b"/Type3" not in pdf
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == pytest.approx(6.75 * 200, abs=2)
        assert not image.info.keys() & {"Software", "Creation Time"}
    rows = read_csv(tmp_path / "a.csv")
    assert [int(r["row"]) for r in rows if r["model"] == "Teacher"] == shown
    assert [r["model"] for r in rows[::10][:3]] == ["Teacher", "CM", "Direct CM"]
    assert {r["prompt"] for r in rows if r["row"] == "3"} == {CAPTIONS[3]}


@pytest.mark.slow
def test_over_all_prompts_every_band_is_a_round(make, tmp_path, monkeypatch):
    saved = spy(monkeypatch)
    noise = make.noise([f"digit {i % 10}" for i in range(200)])
    held = {"CM": [make.samples("cm", list(range(200)))]}
    shown = figure.draw(noise, held, 200, *outputs(tmp_path, "a"))
    rows = read_csv(tmp_path / "a.csv")
    # All that were asked for, on one page; in every band the same prompts in the same places, named once.
    assert len(shown) == len(set(shown)) == 200
    assert {(r["column"], r["prompt"]) for r in rows} == {(str(i), f"digit {i}") for i in range(10)}
    assert saved[0].get_figheight() <= 9.0
    assert sorted(w for w in saved[0].words if w.startswith("digit")) == [f"digit {i}" for i in range(10)]


@pytest.mark.slow
def test_with_every_method_all_names_are_on_the_page(make, tmp_path, monkeypatch):
    saved = spy(monkeypatch)
    noise = make.noise([f"digit {i}" for i in range(10)])
    held = {row: [make.samples(row, list(range(10)))] for row in ("Teacher", *METHODS.values())}
    figure.draw(noise, held, 10, *outputs(tmp_path, "all"))
    assert set(held) <= set(saved[0].words) and saved[0].get_figwidth() <= 6.75


@pytest.mark.slow
def test_many_models_show_every_noise_that_was_asked_for(make, tmp_path, monkeypatch):
    saved = spy(monkeypatch)
    noise = make.noise([f"a handwritten digit {i % 10}" for i in range(40)])
    held = {row: [make.samples(row, list(range(40)), side=4)] for row in ("Teacher", *list(METHODS.values())[:7])}
    few = figure.draw(noise, held, 10, *outputs(tmp_path, "few"))
    more = figure.draw(noise, held, 30, *outputs(tmp_path, "more"))
    # Once the prompts are used up, further rows of the same noise with these prompts again.
    assert few == list(range(10)) and more == list(range(30))
    assert saved[1].get_figheight() <= figure.TALLEST and set(held) <= set(saved[1].words)
    sizes = [axes.get_position().width * saved[1].get_figwidth() for axes in saved[1].axes]
    assert min(sizes) >= figure.SMALLEST - 1e-9
    assert {w for w in saved[1].words if w.startswith("a hand")} == {f"a handwritten digit {i}" for i in range(10)}


def test_small_pictures_are_enlarged_pixel_by_pixel(make):
    artifact = make.samples("one", [3], side=16)
    with Image.open(artifact.file("images/00003.png")) as image:
        small = np.asarray(image)
    big = figure._picture(artifact, 3, 0.6)
    factor = big.shape[0] // 16
    assert big.shape[0] >= 180
    assert (big[::factor, ::factor] == small).all()
    assert (big == small.repeat(factor, 0).repeat(factor, 1)).all()
    assert figure._picture(make.samples("large", [0], side=512), 0, 0.6).shape == (180, 180, 3)


def test_samples_without_a_common_row_are_an_error(make, tmp_path):
    noise = make.noise(["a", "b"])
    sets = {"CM": [make.samples("x", [0])], "Direct CM": [make.samples("y", [1])]}
    with pytest.raises(UserError, match="share no evaluation row"):
        figure.draw(noise, sets, 2, *outputs(tmp_path, "a"))
    with pytest.raises(UserError, match="no sample sets"):
        figure.draw(noise, {"CM": []}, 2, *outputs(tmp_path, "a"))
