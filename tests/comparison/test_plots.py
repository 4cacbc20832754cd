"""Plots: what they show, read back from matplotlib's artists; and that they are fit for print and for a page."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from comparison.plots import draw_all
from comparison.plots.architectures import cross_architecture
from comparison.plots.cost import cost_bars
from comparison.plots.learning import learning_curves
from comparison.plots.panels import Panel, arrange, common_budget
from comparison.plots.quality import psnr_against_budget, psnr_against_time
from comparison.plots.scales import brief_duration, power_of_ten, spaced
from comparison.plots.spectral import spectra_plot
from comparison.plots.style import INK, MUTED, Palette
from comparison.results.formatting import MINUS, MISSING
from comparison.results.statistics import summarise
from datamodules.spectra import Spectrum
from tests.plot_studies import FIVE, FULL, NAMES, PALETTE, large_study, line, panels, small_study, spectra, texts


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
