"""Plots: what they show, read back from matplotlib's artists; and that they are fit for print and for a page."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.markers import CARETDOWN
from PIL import Image

from comparison.pictures.spectra import Spectrum
from comparison.plots import draw_all, save_png, to_svg
from comparison.plots.architectures import cross_architecture
from comparison.plots.cost import cost_bars
from comparison.plots.decibels import Trace, psnr_range
from comparison.plots.learning import learning_curves
from comparison.plots.panels import Panel, arrange, common_budget
from comparison.plots.quality import psnr_against_budget, psnr_against_time
from comparison.plots.scales import brief_duration, power_of_ten, spaced
from comparison.plots.spectral import spectra_plot
from comparison.plots.style import INK, MUTED, Palette
from comparison.results.formatting import MINUS, MISSING
from comparison.results.rows import MEAN, Cell
from comparison.results.statistics import Group, Summary, summarise

FULL = 28.5
FIVE = ("edsr_tiny", "edsr_baseline", "rcan_small", "swinir_light", "srformer_light")
PALETTE = Palette(["full", "random", "sharpening"])
NAMES = ["psnr_against_budget", "psnr_against_time", "cost_bars", "cross_architecture", "learning_curves", "spectra"]


def line(regime, budget, psnr, teacher=False, recipe="plain", network="edsr_tiny", std=0.02, seconds=(20.0, 60.0)):
    """A line of the table; what no plot looks at is made up."""
    return Summary(
        group=Group(regime, teacher, recipe, network, budget, MEAN),
        seeds=3, test_images=19, psnr_y=psnr, psnr_y_std=std, ssim_y=0.8, ssim_y_std=None, lpips=None,
        psnr_y_bicubic=26.4, ssim_y_bicubic=0.74, gap_to_full=psnr - FULL, gap_to_best_full=None,
        gain_over_random=None, gain_interval=None, kept=None, images=9, bytes=9, percent=budget or 100.0,
        distillation_seconds=seconds[0], training_seconds=seconds[1], peak_memory_mib=900, updates=2000,
    )  # fmt: skip


def small_study(**changed):
    """Full data, random and `sharpening` at two budgets, as lines of one panel."""
    values = {("random", 0.68): 27.8, ("random", 5.0): 28.0, ("sharpening", 0.68): 27.9, ("sharpening", 5.0): 28.2}
    return [line("full", None, FULL, **changed), *(line(*key, psnr, **changed) for key, psnr in values.items())]


def large_study(regimes=5, budgets=(0.68, 2.0, 5.0, 10.0), networks=("edsr_tiny", "swinir_light"), teachers=2):
    names = ["random", *(f"regime_{number:02d}" for number in range(1, regimes - 1))]
    return [
        line(
            name, budget, 27.5 + 0.1 * number + 0.02 * (budget or 0), bool(teacher), recipe, network, None, (30.0, 400)
        )
        for network in networks
        for recipe in ("plain", "strong")
        for teacher in range(teachers)
        for number, name in enumerate(["full", *names] if not teacher else names)
        for budget in ([None] if name == "full" else budgets)
    ]


def spectra(names):
    frequencies = np.arange(1, 33) / 64
    return {name: Spectrum(frequencies, 2.0**number / frequencies**2) for number, name in enumerate(names)}


def panels(figure):
    """Axes by title."""
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def texts(axes):
    return [text.get_text() for text in axes.texts]


def write_log(folder, values, step=lambda number: 100 * number + 99):
    """As Lightning's CSVLogger: training and validation in lines of their own."""
    folder.mkdir(parents=True)
    lines = [f"0,0.001,{step(number)},0.02,\n,,{step(number)},,{value}\n" for number, value in enumerate(values)]
    (folder / "metrics.csv").write_text("epoch,lr-Adam,step,train/loss,val/psnr_y\n" + "".join(lines))


@pytest.fixture
def trained(row, tmp_path):
    """Rows of full data and two regimes, three seeds each, and the folder with their logs."""
    rows = []
    for regime, level in {"full": 28.0, "random": 27.0, "sharpening": 27.5}.items():
        for seed in range(3):
            cell = Cell(regime, False, "plain", "edsr_tiny", None if regime == "full" else 0.68, seed)
            write_log(tmp_path / f"{regime}{seed}", [20.0, level + 0.1 * seed, level + 0.3 * seed, level + 1])
            rows += [row(cell, name, 28.0, train_folder=f"{regime}{seed}") for name in ("Set5", "Set14")]
    return rows, tmp_path


def test_the_reference_is_ink_and_the_baseline_grey_and_all_regimes_look_different():
    names = [f"regime{number}" for number in range(24)]
    palette = Palette([*names, "random", "full"])
    looks = [palette[name] for name in palette.names]
    assert palette.names[:2] == ["full", "random"]
    assert len(set(looks)) == 26
    assert (palette["full"].colour, palette["random"].colour) == (INK, MUTED)
    assert INK not in {palette[name].colour for name in names}


def test_looks_follow_from_the_names_in_any_order():
    names = ["gsdd", "random", "sharpening", "diffusion"]
    one, other = Palette(names), Palette(names[::-1] * 2)
    assert [one[name] for name in names] == [other[name] for name in names]
    assert one.sort(["sharpening", "random", "diffusion"]) == ["random", "diffusion", "sharpening"]
    assert Palette(names, "none", "gsdd").sort(names)[0] == "gsdd"


@pytest.mark.parametrize("background", ["white", "#111111"])
def test_colours_stand_out_from_a_light_and_a_dark_page(background):
    """Contrast by WCAG 2.2; orange on white is the weakest of M. Okabe and K. Ito's six."""

    def luminance(colour):
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in to_rgb(colour)]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear)) + 0.05

    palette = Palette([str(number) for number in range(6)])
    page = luminance(background)
    for colour in [palette[name].colour for name in palette.names] + [MUTED]:
        assert max(page / luminance(colour), luminance(colour) / page) > 2.2


def test_a_network_begins_a_row_unless_each_has_a_single_panel():
    a, b, c, d = (Panel(name, "plain", False) for name in "abcd")
    assert arrange([a]) == [[a]]
    assert arrange([a, b, c]) == [[a, b, c]]
    assert arrange([a, b, c, d]) == [[a, b], [c, d]]
    strong, taught = a._replace(recipe="strong"), a._replace(teacher=True)
    assert arrange([a, taught, strong, b]) == [[a, strong, taught], [b]]


def test_the_common_budget_is_the_smallest_that_most_lines_have():
    def budgets(**lines):
        return common_budget(line(name, budget, 28.0).group for name, values in lines.items() for budget in values)

    assert budgets(full=[None], random=[0.68, 2.0, 5.0], gsdd=[2.0, 5.0]) == 2.0
    assert budgets(random=[0.68, 5.0], gsdd=[5.0, 0.68]) == 0.68
    assert budgets(full=[None]) is None


def test_ticks_keep_their_distance():
    assert spaced([0.68, 0.7, 2.0, 5.0, 5.1, 200.0], 0.5, 10.0, 0.15) == [0.68, 2.0, 5.0]
    assert spaced([5.0, 1.0, 1.0], 1.0, 10.0, 0.1) == [1.0, 5.0]


def test_figures_on_axes_are_short():
    seconds = {0: "0 s", 0.25: "0.2 s", 45: "45 s", 119: "119 s", 306: "5.1 min", 3700: "62 min", 11_400: "3.2 h"}
    assert {value: brief_duration(value) for value in seconds} == seconds
    assert [power_of_ten(value) for value in (1e-3, 1.0, 1e12)] == ["10⁻³", "10⁰", "10¹²"]


def test_each_point_of_the_budget_plot_is_a_line_of_the_table():
    figure = psnr_against_budget(small_study(), PALETTE)
    (axes,) = figure.axes
    found = {}
    for container in axes.containers:
        points, _, (bars,) = container.lines
        found[points.get_color(), points.get_marker()] = points.get_xydata()
        ends = np.array([segment[:, 1] for segment in bars.get_segments()], dtype=float)
        np.testing.assert_allclose(ends.mean(1), points.get_ydata().astype(float))
        np.testing.assert_allclose(np.ptp(ends, axis=1), 2 * 0.02)
    for regime, expected in {"random": [27.8, 28.0], "sharpening": [27.9, 28.2]}.items():
        points = found[PALETTE[regime].colour, PALETTE[regime].marker]
        np.testing.assert_allclose(points[:, 1], expected)
        np.testing.assert_allclose(points[:, 0], [0.68, 5.0], rtol=0.2)  # moved aside, never far
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.68", "5"]


def test_full_data_is_a_line_with_its_name_and_bicubic_a_remark_when_far_below():
    axes = psnr_against_budget(small_study(), PALETTE).axes[0]
    assert [each.get_ydata()[0] for each in axes.lines if each.get_color() == INK] == [FULL]
    (band,) = axes.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((FULL - 0.02, FULL + 0.02))
    assert texts(axes) == ["full 28.50", "bicubic 26.40 ↓"]
    assert axes.get_ylim()[0] > 27.5


@pytest.mark.parametrize(("bicubic", "remark"), [(27.7, "bicubic 27.70"), (29.5, "bicubic 29.50 ↑")])
def test_bicubic_is_a_dotted_line_where_it_squeezes_nothing(bicubic, remark):
    lines = [replace(each, psnr_y_bicubic=bicubic) for each in small_study()]
    for plot in (psnr_against_budget, psnr_against_time):
        axes = plot(lines, PALETTE).axes[0]
        assert remark in texts(axes)
        dotted = [each.get_ydata()[0] for each in axes.lines if each.get_linestyle() == ":"]
        assert dotted == ([] if remark.endswith("↑") else [bicubic])


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


@pytest.mark.parametrize("plot", [psnr_against_budget, psnr_against_time])
def test_no_panel_mixes_teachers_recipes_or_networks(plot):
    variants = [(teacher, recipe, network) for teacher in (False, True) for recipe in "pq" for network in "ab"]
    lines = [line("full", None, 29.0, False, recipe, network) for recipe in "pq" for network in "ab"]
    lines += [line("random", 2.0, 27 + 0.1 * number, *variant) for number, variant in enumerate(variants)]
    drawn = panels(plot(lines, PALETTE))
    assert len(drawn) == 8
    for number, (teacher, recipe, network) in enumerate(variants):
        axes = drawn[f"{network}, {recipe}" + ", with teacher" * teacher]
        grey = {value for each in axes.lines if each.get_marker() == "o" for value in each.get_ydata()}
        assert grey == {27 + 0.1 * number}
        limits = {other.get_ylim() for name, other in drawn.items() if name.startswith(network)}
        assert limits == {axes.get_ylim()}
    if plot is psnr_against_budget:
        assert texts(drawn["a, p, with teacher"])[0] == "full 29.00, no teacher"


def test_one_seed_has_no_error_bars_and_one_regime_is_enough():
    axes = psnr_against_budget([line("random", 2.0, 27.9, std=None)], PALETTE).axes[0]
    (segments,) = axes.containers[0].lines[2][0].get_segments()
    assert not len(segments)
    assert texts(axes) == ["bicubic 26.40 ↓"]
    assert psnr_against_time([line("random", 2.0, 27.9, std=None)], PALETTE) is not None


def test_points_of_the_time_plot_grow_with_the_budget_along_total_seconds():
    lines = [line("full", None, FULL, seconds=(0.0, 90.0)), *small_study(seconds=(30.0, 60.0))[1:]]
    (axes,) = psnr_against_time(lines, PALETTE).axes
    points = [each for each in axes.lines if each.get_marker() != "None"]
    found = {(each.get_marker(), each.get_ydata()[0]): each for each in points}
    assert len(found) == 5
    assert {each.get_xdata()[0] for each in points} == {90.0}
    assert found["o", 27.8].get_markersize() < found["o", 28.0].get_markersize() == found["s", 28.2].get_markersize()
    low, high = axes.get_xlim()
    assert low < 90 < high
    assert high / low == pytest.approx(4)


def test_bars_are_distillation_and_training_averaged_over_recipes():
    lines = [
        line("random", 2.0, 27.9, recipe="plain", seconds=(10.0, 50.0)),
        line("random", 2.0, 27.9, recipe="strong", seconds=(10.0, 70.0)),
        line("full", None, FULL, seconds=(0.0, 80.0)),
        line("random", 2.0, 27.9, teacher=True, seconds=(100.0, 500.0)),
    ]
    drawn = panels(cost_bars(lines, PALETTE))
    plain, taught = drawn["edsr_tiny"], drawn["edsr_tiny, with teacher"]
    assert [(bar.get_x(), bar.get_width()) for bar in plain.patches] == [(0, 0), (0, 80), (0, 10), (10, 60)]
    assert [label.get_text() for label in plain.get_yticklabels()] == ["full", "random 2 %"]
    assert texts(plain) == ["80 s", "70 s"]
    np.testing.assert_allclose(
        [(bar.get_x(), bar.get_width()) for bar in taught.patches], np.array([[0, 1], [1, 5]]) / 0.6
    )
    assert taught.patches[0].get_y() == plain.patches[2].get_y()
    assert (plain.get_xlabel(), taught.get_xlabel()) == ("time [s]", "time [min]")


def test_the_heat_map_has_the_gap_of_each_regime_and_network():
    lines = [*small_study(), *small_study(network="swinir_light")[:-2], *small_study(teacher=True)[1:]]
    drawn = panels(cross_architecture(lines, PALETTE))
    assert drawn.keys() == {"plain", "plain, with teacher"}
    (mesh,) = drawn["plain"].collections
    gaps = mesh.get_array()
    np.testing.assert_allclose(gaps.filled(np.nan), [[-0.7, -0.7], [-0.6, np.nan]], atol=1e-9)
    assert mesh.norm.vmin == -mesh.norm.vmax
    assert texts(drawn["plain"]) == [f"{MINUS}0.70", f"{MINUS}0.70", f"{MINUS}0.60", MISSING]
    assert texts(drawn["plain, with teacher"]) == [f"{MINUS}0.70", MISSING, f"{MINUS}0.60", MISSING]
    assert [label.get_text() for label in drawn["plain"].get_yticklabels()] == ["random", "sharpening"]


def test_the_heat_map_needs_two_networks_and_full_data():
    lines = [*small_study(), *small_study(network="swinir_light")]
    assert cross_architecture(small_study(), PALETTE) is None
    assert cross_architecture([replace(each, gap_to_full=None) for each in lines], PALETTE) is None
    assert "with 0.68 % of its pixels" in cross_architecture(lines, PALETTE).get_supxlabel()


def test_learning_curves_are_means_over_seeds_with_a_band_of_one_deviation(trained):
    rows, root = trained
    (axes,) = learning_curves(rows, root, PALETTE).axes
    curves = {each.get_color(): each for each in axes.lines}
    assert list(curves) == [PALETTE[name].colour for name in ("full", "random", "sharpening")]
    np.testing.assert_array_equal(curves[MUTED].get_xdata(), [99, 199, 299, 399])
    np.testing.assert_allclose(curves[MUTED].get_ydata(), [20.0, 27.1, 27.3, 28.0])
    corners = axes.collections[1].get_paths()[0].vertices
    band = [corners[corners[:, 0] == 299, 1].min(), corners[corners[:, 0] == 299, 1].max()]
    np.testing.assert_allclose(band, [27.3 - 0.3, 27.3 + 0.3])  # of 27, 27.3 and 27.6 with n - 1
    assert 26 < axes.get_ylim()[0] < 27, "the climb from 20 dB must not squeeze the rest"


def test_learning_curves_leave_out_what_has_no_log(trained):
    rows, root = trained
    for seed in range(3):
        (root / f"full{seed}" / "metrics.csv").unlink()
    (root / "random1" / "metrics.csv").unlink()
    (root / "random2" / "metrics.csv").write_text("epoch,step,val/psnr_y\n0,199,27.5\n0,299,nan\n0,399,\n0,199,27.7\n")
    (axes,) = learning_curves(rows, root, PALETTE).axes
    curves = {each.get_color(): each.get_xydata().tolist() for each in axes.lines}
    assert curves.keys() == {PALETTE["random"].colour, PALETTE["sharpening"].colour}
    assert curves[MUTED] == [[199, pytest.approx((27.0 + 27.7) / 2)]]  # at steps of both seeds, the later value
    assert learning_curves(rows, root / "elsewhere", PALETTE) is None


def test_learning_curves_are_drawn_at_one_budget(trained):
    rows, root = trained
    more = [replace(row, cell=row.cell._replace(budget=5.0)) for row in rows if row.cell.regime == "sharpening"]
    figure = learning_curves([*rows, *more], root, PALETTE)
    assert len(figure.axes[0].lines) == 3
    assert figure.get_supxlabel() == "optimiser steps, with 0.68 % of the data"


def test_spectra_are_shown_as_they_are_and_against_the_reference():
    power, ratio = spectra_plot(spectra(["full", "random", "sharpening"]), PALETTE).axes
    assert (power.get_xscale(), power.get_yscale()) == ("log", "log")
    np.testing.assert_allclose(power.lines[1].get_ydata(), 2.0 / (np.arange(1, 33) / 64) ** 2)
    levels = [each.get_ydata() for each in ratio.lines]
    np.testing.assert_allclose(levels, np.outer([0, 3.0103, 6.0206], np.ones(32)), atol=1e-4)  # 10 log10 of 1, 2, 4
    assert ratio.get_ylabel() == "power relative to full [dB]"


def test_spectra_of_other_sides_or_without_a_reference():
    flat = Spectrum(np.array([0.25, 0.5]), np.zeros(2))
    coarse = Spectrum(np.array([1, 2, 3, 4]) / 8, np.array([1.0, 1.0, 1.0, 1.0]))
    fine = Spectrum(np.array([1, 2, 4, 8]) / 16, np.array([9.0, 10.0, 10.0, 10.0]))
    _, ratio = spectra_plot({"random": coarse, "sharpening": fine, "full": flat}, PALETTE).axes
    np.testing.assert_allclose(ratio.lines[1].get_xydata(), [[1 / 8, 10], [2 / 8, 10], [4 / 8, 10]])
    assert len(spectra_plot({"sharpening": fine}, PALETTE).axes) == 1
    assert spectra_plot({"full": flat}, PALETTE) is None


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """All plots of a large study; the palette is the widest that is asked for."""
    root = tmp_path_factory.mktemp("study")
    lines = large_study()
    return draw_all(lines, [], root, spectra(sorted({each.group.regime for each in lines})))


def test_a_study_gets_all_plots_and_a_regime_one_look(study, trained):
    rows, images = study
    logged, root = trained
    drawn = draw_all(summarise(rows, images, "full", "random", 10), logged, root, spectra(["random", "sharpening"]))
    assert list(drawn) == NAMES
    assert len({figure.get_label() for figure in drawn.values()}) == len(NAMES)
    blue = PALETTE["sharpening"].colour
    for name in ("psnr_against_budget", "psnr_against_time", "learning_curves", "spectra"):
        (legend,) = drawn[name].legends
        entries = {text.get_text(): handle for text, handle in zip(legend.texts, legend.legend_handles, strict=True)}
        assert entries["sharpening"].get_color() == blue
        assert entries["random"].get_color() == MUTED


def test_nothing_to_show_is_no_figure(tmp_path):
    assert draw_all([], [], tmp_path, {}) == {}
    assert draw_all([line("full", None, FULL), line("random", 2.0, float("nan"))], [], tmp_path, {}).keys() == {
        "cost_bars"
    }


def tick_labels(axis):
    low, high = sorted(axis.get_view_interval())
    return [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high and tick.label1.get_text()]


def visible_texts(figure):
    around = [*figure.texts, *(text for legend in figure.legends for text in legend.texts), figure._supxlabel]
    inside = [
        text for axes in figure.axes for text in (*axes.texts, axes._left_title, axes.xaxis.label, axes.yaxis.label)
    ]
    ticks = [label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in tick_labels(axis)]
    return [text for text in around + inside + ticks if text is not None and text.get_text()]


def overlapping(labels):
    boxes = sorted((label.get_window_extent() for label in labels if label.get_text()), key=lambda box: box.x0)
    return [1 for left, right in pairwise(boxes) if left.x1 > right.x0 and left.y0 < right.y1 and right.y0 < left.y1]


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"regimes": 15, "budgets": (0.2, 0.68, 1, 2, 5, 10, 50), "networks": ("edsr_tiny",), "teachers": 1},
        {"regimes": 3, "budgets": (0.68, 1.0), "networks": FIVE, "teachers": 1},
        {"regimes": 2, "budgets": (2.0,), "networks": ("edsr_tiny",), "teachers": 1},
    ],
)
def test_text_is_large_enough_inside_the_figure_and_ticks_do_not_overlap(shape, tmp_path):
    lines = large_study(**shape)
    for figure in draw_all(lines, [], tmp_path, spectra({each.group.regime for each in lines})).values():
        assert figure.get_figwidth() == 7
        whole = figure.bbox.padded(1)
        for text in visible_texts(figure):
            box = text.get_window_extent()
            assert text.get_fontsize() >= 9
            assert whole.contains(box.x0, box.y0), text
            assert whole.contains(box.x1, box.y1), text
        for axes in figure.axes:
            labels = tick_labels(axes.xaxis)
            assert any(label.get_rotation() for label in labels) or not overlapping(labels)
            assert len(labels) > 1 or len(shape.get("budgets", [])) == 1


def test_settings_of_matplotlib_are_left_alone(figures):
    before = dict(mpl.rcParams)
    draw_all(small_study(), [], None, {})
    to_svg(figures["spectra"])
    assert dict(mpl.rcParams) == before


def test_png_is_white_and_a_thousand_pixels_wide(figures, tmp_path):
    save_png(figures["spectra"], tmp_path / "plots" / "spectra.png")
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["spectra.png"]
    with Image.open(tmp_path / "plots" / "spectra.png") as image:
        assert image.width == 7 * 150
        assert image.convert("RGB").getpixel((1, 1)) == (255, 255, 255)


def test_svg_fits_into_a_page(figures):
    svg = to_svg(figures["spectra"])
    root = ET.fromstring(svg)  # noqa: S314 (ours)
    assert svg.startswith("<svg ")
    assert root.attrib.items() >= {"width": "100%", "role": "img"}.items()
    assert root.attrib["viewBox"].split()[:3] == ["0", "0", "504"]  # 7 inches of 72 points
    assert "height" not in root.attrib
    names = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert names.isdisjoint({"style", "script", "metadata", "image"})
    words = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"spatial frequency [cycles / pixel]", "0.02", "random"} <= set(words)
    title = root.find("{http://www.w3.org/2000/svg}title")
    assert (title.text, title.attrib["id"]) == ("Power spectra", root.attrib["aria-labelledby"])


def test_svg_takes_its_ink_from_the_page_and_has_no_background(figures):
    svg = to_svg(figures["psnr_against_budget"])
    assert INK not in svg
    assert "currentColor" in svg
    assert not re.search(r"fill: (#ffffff|white)", svg)


def test_figures_in_cells_stay_as_they_are_on_any_page(figures):
    cells = re.findall(rf"<text style=\"([^\"]*)\"[^>]*>{MINUS}0\.\d\d<", to_svg(figures["cross_architecture"]))
    assert cells
    assert not any("currentColor" in style for style in cells)
    # Black is what text has that says nothing, and a page may say something else.
    assert all("fill: #" in style for style in cells)


def test_ids_of_all_figures_of_a_page_differ_and_all_references_lead_somewhere(figures):
    page = "".join(to_svg(figure) for figure in figures.values())
    ids = re.findall(r"\bid=\"([^\"]+)\"", page)
    assert len(ids) == len(set(ids)) > 100
    references = re.findall(r"(?:xlink:href=\"#|url\(#)([^\")]+)", page)
    assert references
    assert set(references) <= set(ids)


def test_svg_of_the_same_lines_is_the_same_text(tmp_path):
    one, other = (draw_all(small_study(), [], tmp_path, {}) for _ in range(2))
    for name, figure in one.items():
        svg = to_svg(figure)
        save_png(figure, tmp_path / "plot.png")
        assert to_svg(figure) == svg == to_svg(other[name])


def test_names_are_escaped_and_no_formula():
    odd = "a<b & $x_1$"
    figure = psnr_against_budget([line(odd, 2.0, 27.9), line("random", 2.0, 27.9)], Palette([odd, "random"]))
    figure.set_label("x < y")
    svg = to_svg(figure)
    root = ET.fromstring(svg)  # noqa: S314 (ours)
    assert odd in {"".join(element.itertext()) for element in root.iter()}
    assert root[0].text == "x < y"
