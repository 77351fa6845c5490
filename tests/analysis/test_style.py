"""The style: looks that survive greyscale, reference lines far and near, labels that keep clear of data."""

from __future__ import annotations

import itertools

import pytest

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.analysis.figures.style import LOOKS, luminance
from directcm.config.specs import BASELINES
from tests.analysis import tidy_tables as tables


def test_looks_differ_in_grey_and_without_colour():
    papers = dict(itertools.islice(LOOKS.items(), 4))
    assert (
        tuple(papers)
        == tuple(row for row in tidy.ROWS if row in LOOKS)[:4]
        == ("Teacher", "Teacher, other noise", "CM", "Direct CM")
    )
    for (a, first), (b, second) in itertools.combinations(papers.items(), 2):
        # The floor is a teacher's, never a student's: marker and dash tell it apart where its grey is near an orange's.
        assert abs(luminance(first.color) - luminance(second.color)) > (12 if tidy.FLOOR in (a, b) else 20)
    # Further methods are too many for greys: each has a colour, a marker and a dash of its own.
    # Baselines are lines of tables alone.
    assert set(LOOKS) == set(tidy.ROWS) - set(BASELINES.values())
    for part in ("color", "marker", "line"):
        assert len({getattr(look, part) for look in LOOKS.values()}) == len(LOOKS), part
    assert luminance("#ffffff") == pytest.approx(100, abs=0.1)
    assert luminance("#777777") == pytest.approx(50, abs=1)


@pytest.fixture
def axes():
    with style.styled():
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(figsize=(2, 1.6), layout="constrained")
        yield axes
        plt.close(figure)


def test_a_near_reference_is_a_line_and_a_far_one_is_written(axes):
    axes.plot([0, 1], [1.0, 2.0])
    look = style.Look("#1a1a1a", "", "-")
    marks = [("near", 2.3), ("far", 9.0), ("deep", -7.5), ("none", float("nan"))]
    style.references([axes], [style.Reference(name, look, (y,), decimals=2) for name, y in marks])
    assert {t.get_text() for t in axes.texts} == {"↑ far 9.00", "↓ deep −7.50"}
    assert [line.get_ydata()[0] for line in axes.lines[1:]] == [2.3]
    low, high = axes.get_ylim()
    assert low > -1 and 2.3 < high < 3.5
    tables.legible(axes.figure)


def test_references_on_a_log_axis_leave_out_what_it_cannot_show(axes):
    axes.plot([0, 1], [1.0, 100.0])
    axes.set_yscale("log")
    look = style.Look("#1a1a1a", "", "-")
    style.references([axes], [style.Reference("zero", look, (0.0,)), style.Reference("far", look, (1e9,), decimals=0)])
    assert [t.get_text() for t in axes.texts] == ["↑ far 1000000000"]


def test_labels_keep_off_each_other_and_the_data(axes):
    line = [(x / 10, (x / 10) ** 2) for x in range(11)]
    axes.plot(*zip(*line, strict=True))
    labels = [style.Label(*line[i], f"{10 * i:,}", "#000000") for i in (0, 1, 2, 9, 10)]
    style.place(axes, labels, [line])
    tables.legible(axes.figure)
    frame = axes.get_window_extent()
    pixels = axes.transData.transform(line)
    for text, box in tables.texts(axes.figure):
        if any(text == label.text for label in labels) and frame.overlaps(box):
            assert not any(box.x0 < x < box.x1 and box.y0 < y < box.y1 for x, y in pixels), text


def test_ticks_stand_at_the_values_and_thin_out_where_crowded(axes):
    axes.plot([10, 20, 50, 100], [1, 2, 3, 4])
    axes.figure.draw_without_rendering()
    style.values_axis(axes, [10, 20, 50, 100], log=True)
    assert [t.get_text() for t in axes.get_xticklabels()] == ["10", "20", "50", "100"]
    axes.cla()
    axes.plot([1, 199], [0, 1])
    style.values_axis(axes, [float(v) for v in range(1, 200)])
    shown = [t.get_text() for t in axes.get_xticklabels()]
    assert 3 <= len(shown) < 30 and shown[-1] == "199"
    tables.legible(axes.figure)


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1.0, 21.0], "log"),
        ([1.0, 19.0], "linear"),
        ([-0.1, 21.0], "linear"),
        ([0.0, 21.0], "linear"),
        ([0.5, float("nan"), 200.0], "log"),
        ([-0.03, 0.02, 2.4], "symlog"),
        ([-0.03, 0.02, 0.9], "linear"),
        ([-2.4, 0.02, 2.4], "linear"),
        ([], "linear"),
    ],
)
def test_values_far_apart_have_a_logarithmic_axis(axes, values, scale):
    style.spread_axis(axes.yaxis, values)
    assert axes.get_yscale() == scale and axes.get_xscale() == "linear"


def test_a_reference_on_a_symmetrical_logarithmic_axis_lies_at_its_value(axes):
    axes.plot([0, 1, 2], [-0.03, 0.02, 2.4])
    style.spread_axis(axes.yaxis, [-0.03, 0.02, 2.4])
    assert [t.get_text() for t in axes.get_yticklabels()] == ["0", "$10^{-1}$", "$10^{0}$", "$10^{1}$"]
    look = style.Look("#1a1a1a", "", "-")
    style.references(
        [axes], [style.Reference("near", look, (-0.05,)), style.Reference("far", look, (1e6,), decimals=0)]
    )
    assert [line.get_ydata()[0] for line in axes.lines[1:]] == [-0.05]
    assert [t.get_text() for t in axes.texts] == ["↑ far 1000000"]
    low, high = axes.get_ylim()
    assert -1 < low < -0.05 and 2.4 < high < 1e4
    tables.legible(axes.figure)


@pytest.mark.parametrize(
    ("band", "possible", "low", "high"),
    [
        ((-0.6, 1.4), (0.0, 1.0), -0.08, 1.08),
        ((-0.6, 0.8), (0.0, float("inf")), -0.07, 0.87),
        ((0.2, 0.8), (0.0, 1.0), 0.17, 0.83),
    ],
)
def test_an_axis_ends_where_values_cannot_be(axes, band, possible, low, high):
    axes.fill_between([0, 1], *band)
    style.spread_axis(axes.yaxis, [0.4, 0.6], possible=possible)
    assert axes.get_ylim() == pytest.approx((low, high), abs=0.03)


@pytest.mark.parametrize("high", [0.02, 0.05, 0.2, 0.5, 3.0, 90.0])
@pytest.mark.parametrize("width", [1.3, 3.0])
def test_labels_of_a_logarithmic_axis_are_there_and_keep_clear_of_each_other(high, width):
    import matplotlib.pyplot as plt

    with style.styled():
        figure, panel = plt.subplots(figsize=(width, 1.5), layout="constrained")
        panel.plot([0.01, high], [0, 1])
        style.log_axis(panel.xaxis, [0.01, high])
        figure.draw_without_rendering()
        low, top = panel.get_xlim()
        renderer = figure.canvas.get_renderer()
        shown = [t for t in panel.get_xticklabels() if t.get_text() and low <= t.get_position()[0] <= top]
        boxes = sorted((t.get_window_extent(renderer) for t in shown), key=lambda box: box.x0)
        assert len(boxes) >= 2 or high <= 0.02
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))
        assert not [t for t in panel.get_xticklabels(minor=True) if t.get_text()]
        plt.close(figure)
