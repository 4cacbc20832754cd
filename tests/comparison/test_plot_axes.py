"""The axis of PSNR: what it holds, and what stands at its edges, read back from matplotlib's artists."""

import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.markers import CARETDOWN

from comparison.plots.decibels import Trace, psnr_range
from comparison.plots.learning import learning_curves
from comparison.plots.quality import psnr_against_budget, psnr_against_time
from comparison.plots.style import INK, Palette
from tests.plot_studies import FULL, PALETTE, line, panels, small_study, texts, write_log


def test_full_data_is_a_line_with_its_name_and_bicubic_a_remark_when_far_below():
    axes = psnr_against_budget(small_study(), PALETTE).axes[0]
    assert [each.get_ydata()[0] for each in axes.lines if each.get_color() == INK] == [FULL]
    (band,) = axes.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((FULL - 0.02, FULL + 0.02))
    assert texts(axes) == ["full 28.50", "bicubic 26.40 ↓"]
    assert axes.get_ylim()[0] > 27.5


@pytest.mark.parametrize(("bicubic", "remark"), [(27.7, "bicubic 27.70"), (29.5, "bicubic 29.50 ↑")])
def test_bicubic_is_a_dotted_line_where_it_squeezes_nothing(bicubic, remark):
    lines = [replace(each, psnr_y_untrained=bicubic) for each in small_study()]
    for plot in (psnr_against_budget, psnr_against_time):
        axes = plot(lines, PALETTE).axes[0]
        assert remark in texts(axes)
        dotted = [each.get_ydata()[0] for each in axes.lines if each.get_linestyle() == ":"]
        assert dotted == ([] if remark.endswith("↑") else [bicubic])


def test_restoration_names_the_input():
    lines = [replace(each, untrained="input") for each in small_study()]
    for plot in (psnr_against_budget, psnr_against_time):
        assert texts(plot(lines, PALETTE).axes[0])[-1] == "input 26.40 ↓"
    lines = [replace(each, psnr_y_untrained=27.7) for each in lines]
    assert texts(psnr_against_budget(lines, PALETTE).axes[0])[-1] == "input 27.70"


def trace(regime, *psnr, std=0.0):
    return Trace(regime, np.arange(float(len(psnr))), np.array(psnr), np.full(len(psnr), std))


@pytest.mark.parametrize(
    ("traces", "expected"),
    [
        ([("full", 28.5), ("random", 28.0), ("sharpening", 27.6)], (27.6, 28.5)),  # up to 0.5 dB below random
        ([("full", 28.5), ("random", 28.0), ("sharpening", 27.4)], (28.0, 28.5)),
        ([("full", 28.5), ("random", 28.4), ("sharpening", 28.2)], (28.2, 28.5)),  # up to 0.25 dB, at least
        ([("full", 28.5), ("random", 28.4), ("sharpening", 28.1)], (28.4, 28.5)),
        ([("full", 28.5), ("random", 28.0), ("sharpening", 29.9)], (28.0, 29.9)),
        ([("full", 28.5), ("sharpening", 25.0)], (25.0, 28.5)),  # nothing says what is far
        ([("random", 28.5)], (28.4, 28.5)),
    ],
)
def test_the_axis_holds_what_is_not_far_below_the_baseline(traces, expected):
    assert psnr_range([trace(*each) for each in traces], PALETTE) == pytest.approx(expected)


def test_error_bars_stretch_the_axis_no_further_than_the_bounds():
    wide = [trace("full", 28.5), trace("random", 28.0), trace("sharpening", 27.8, std=3.0)]
    assert psnr_range(wide, PALETTE) == pytest.approx((27.5, 29.0))
    far = [trace("full", 28.5), trace("random", 28.0), trace("sharpening", 27.0, std=3.0)]
    assert psnr_range(far, PALETTE) == pytest.approx((28.0, 28.5))


def marked(axes):
    """Colour and place of the markers that point down, in shares of the axes, with the values beside them."""
    carets = [each for each in axes.lines if each.get_marker() == CARETDOWN]
    assert all(each.get_transform() == axes.transAxes for each in carets)
    values = [text for text in texts(axes) if re.fullmatch(r"\d\d\.\d\d", text)]
    return [(each.get_color(), *each.get_xydata()[0], value) for each, value in zip(carets, values, strict=True)]


@pytest.mark.parametrize("plot", [psnr_against_budget, psnr_against_time])
def test_a_very_bad_regime_is_a_marker_at_the_lower_edge_and_squashes_nobody(plot):
    bad = line("worst", 0.68, 25.24, std=1.1)
    palette = Palette(["full", "random", "sharpening", "worst"])
    axes = plot([*small_study(), bad], palette).axes[0]
    low, high = axes.get_ylim()
    assert 27.5 < low < 27.78
    assert 28.52 < high < 28.8
    ((colour, x, y, value),) = marked(axes)
    assert (colour, y, value) == (palette["worst"].colour, 0, "25.24")
    points = [each for each in axes.lines if 25.24 in each.get_ydata() and each.get_marker() == palette["worst"].marker]
    (at,) = {float(each.get_xdata()[0]) for each in points}
    left, right = np.log(axes.get_xlim())
    assert x == pytest.approx((np.log(at) - left) / (right - left))
    assert texts(axes)[-1] == "bicubic 26.40 ↓"


def test_markers_at_the_lower_edge_do_not_overlap():
    names = [f"worst{number}" for number in range(4)]
    bad = [line(name, 0.68, 25 + 0.1 * number) for number, name in enumerate(names)]
    for plot in (psnr_against_budget, psnr_against_time):
        figure = plot([*small_study(), *bad], Palette(["full", "random", "sharpening", *names]))
        figure.draw_without_rendering()
        (axes,) = figure.axes
        assert {value for *_, value in marked(axes)} == {"25.00", "25.10", "25.20", "25.30"}
        boxes = [text.get_window_extent() for text in axes.texts]
        assert not any(one.overlaps(other) for number, one in enumerate(boxes) for other in boxes[:number])
        assert all(axes.bbox.padded(1).contains(box.x0, box.y0) and axes.bbox.contains(box.x1, box.y1) for box in boxes)


def test_a_panel_that_a_common_axis_would_squash_has_its_own():
    lines = [each for recipe in "pq" for each in small_study(recipe=recipe)]
    together = panels(psnr_against_budget(lines, PALETTE))
    assert together["edsr_tiny, p"].get_ylim() == together["edsr_tiny, q"].get_ylim()
    lines += [line("random", 0.2, 20.0, recipe="q")]
    apart = panels(psnr_against_budget(lines, PALETTE))
    assert apart["edsr_tiny, p"].get_ylim() == pytest.approx(together["edsr_tiny, p"].get_ylim())
    assert apart["edsr_tiny, q"].get_ylim()[0] < 20
    assert apart["edsr_tiny, q"].yaxis.get_tick_params()["labelleft"]


def test_a_learning_curve_that_falls_off_the_axis_has_its_last_value_there(trained):
    rows, root = trained
    for seed in range(3):
        (root / f"sharpening{seed}" / "metrics.csv").unlink()
        (root / f"sharpening{seed}").rmdir()
        write_log(root / f"sharpening{seed}", [20.0, 27.5, 25.0 - seed, 21.0 - seed])
    (axes,) = learning_curves(rows, root, PALETTE).axes
    ((colour, x, y, value),) = marked(axes)
    assert (colour, y, value) == (PALETTE["sharpening"].colour, 0, "20.00")
    assert x == pytest.approx(399 / axes.get_xlim()[1])
    assert 26 < axes.get_ylim()[0] < 27
