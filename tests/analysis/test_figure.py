"""Figures: chosen rows, hostile captions, smoothing, equal bytes, and a style that survives greyscale."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from directcm.analysis import figure
from directcm.analysis.page import plain
from directcm.analysis.style import LOOKS, luminance
from directcm.analysis.table import table1
from directcm.artifacts import read_csv, write_csv
from directcm.errors import UserError

CAPTIONS = [
    "a digit", "a digit", "<script>alert(1)</script>", "$x_1^2$ costs 100% & $5", "🎉 party \x07\n two lines", "مرحبا بالعالم \u202e",
    "数字の六は長い説明文を持っています", "W" * 300, "", r"\frac{1}{", "ordinary", "a digit",
]  # fmt: skip


def test_looks_differ_in_grey_and_without_colour():
    assert list(LOOKS) == ["Teacher", "CM", "Direct CM"]
    for a, b in itertools.combinations(LOOKS.values(), 2):
        assert abs(luminance(a.color) - luminance(b.color)) > 20
    assert len({look.marker for look in LOOKS.values()}) == len({look.line for look in LOOKS.values()}) == 3
    assert luminance("#ffffff") == pytest.approx(100, abs=0.1)
    assert luminance("#777777") == pytest.approx(50, abs=1)


def test_rows_are_the_first_with_new_prompts():
    prompts = [{"row": str(i), "text": t} for i, t in enumerate("aabacdb")]
    assert figure.choose_rows(prompts, set(range(7)), 3) == [0, 2, 4]
    assert figure.choose_rows(prompts, {1, 2, 3, 6}, 3) == [1, 2, 3]
    assert figure.choose_rows(prompts, set(range(7)), 6) == [0, 1, 2, 3, 4, 5]
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


def test_samples_figure_takes_any_caption_and_is_reproducible(make, tmp_path):
    noise, sets = samples(make)
    for name in "ab":
        shown = figure.samples_figure(noise, sets, 12, tmp_path / f"{name}.pdf", tmp_path / f"{name}.png")
    assert shown == list(range(11))
    for kind in ("pdf", "png"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    pdf = (tmp_path / "a.pdf").read_bytes()
    assert b"CreationDate" not in pdf
    assert b"/Type3" not in pdf
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == pytest.approx(6.75 * 200, abs=2)
        assert not image.info.keys() & {"Software", "Creation Time"}


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
        figure.samples_figure(noise, sets, 2, tmp_path / "a.pdf", tmp_path / "a.png")
    with pytest.raises(UserError, match="no sample sets"):
        figure.samples_figure(noise, {"CM": []}, 2, tmp_path / "a.pdf", tmp_path / "a.png")


def curves(make, steps=60):
    return [
        figure.read_curve(row, seed, make.curve(row, steps, level, seed))
        for row, level in (("Direct CM", 0.1), ("CM", 0.02))
        for seed in (1, 0)
    ]


def test_curves_table_is_tidy(make, tmp_path):
    figure.curves_table(curves(make), tmp_path / "c.csv")
    rows = read_csv(tmp_path / "c.csv")
    assert list(rows[0]) == ["method", "seed", "step", "loss", "grad_norm"]
    assert len(rows) == 240
    assert [(r["method"], r["seed"]) for r in rows[::60]] == [
        ("CM", "0"),
        ("CM", "1"),
        ("Direct CM", "0"),
        ("Direct CM", "1"),
    ]
    assert float(rows[7]["loss"]) == curves(make)[3].loss[7]


def test_smooth_is_a_geometric_mean_that_skips_gaps():
    constant = figure.smooth(np.full(30, 0.5), 7)
    assert constant == pytest.approx(np.full(30, 0.5))
    assert figure.smooth(np.array([1.0, 100.0, 1.0]), 3) == pytest.approx([10.0, 100 ** (1 / 3), 10.0])
    gaps = figure.smooth(np.array([np.nan, 4.0, 0.0, np.inf]), 1)
    assert gaps[1] == pytest.approx(4.0)
    assert np.isnan(gaps[[0, 2, 3]]).all()


def test_curves_figure_is_reproducible_and_bears_gaps(make, tmp_path):
    found = curves(make)
    found[0].loss[3:6] = (0.0, np.nan, np.inf)
    for name, order in (("a", found), ("b", found[::-1])):
        figure.curves_figure(order, tmp_path / f"{name}.pdf", tmp_path / f"{name}.png")
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    figure.curves_figure(found[:1], tmp_path / "one.pdf", tmp_path / "one.png")
    one = [figure.Curve("CM", 0, np.array([0]), np.array([0.0]), np.array([np.nan]))]
    figure.curves_figure(one, tmp_path / "flat.pdf", tmp_path / "flat.png")
    with pytest.raises(UserError, match="none given"):
        figure.curves_figure([], tmp_path / "c.pdf", tmp_path / "c.png")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no steps"),
        ([{"step": 1, "loss": "x", "grad_norm": 1}], "not a training curve"),
        ([{"step": 2, "loss": 1, "grad_norm": 1}, {"step": 1, "loss": 1, "grad_norm": ""}], "do not ascend"),
    ],
)
def test_a_broken_curve_is_an_error(tmp_path, rows, message):
    write_csv(tmp_path / "curve.csv", rows, ["step", "loss", "grad_norm"])
    with pytest.raises(UserError, match=message):
        figure.read_curve("CM", 0, tmp_path / "curve.csv")


@pytest.mark.parametrize("settings", [{}, {"evaluation": {"steps": [1, 4]}, "students": [{"seed": [0]}]}])
def test_results_figure(make, configure, tmp_path, settings):
    table1(
        make.main(configure(**settings)),
        configure(**settings),
        *(tmp_path / f"t.{k}" for k in ("csv", "tex", "html", "json")),
    )
    for name in "ab":
        figure.results_figure(tmp_path / "t.csv", tmp_path / f"{name}.pdf", tmp_path / f"{name}.png")
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
