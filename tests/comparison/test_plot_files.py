"""Plots as files: PNG for print, SVG for a page that is light or dark."""

import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import pytest
from PIL import Image

from comparison.plots import draw_all, save_png, to_svg
from comparison.plots.quality import psnr_against_budget
from comparison.plots.style import INK, Palette
from comparison.results.formatting import MINUS
from tests.plot_studies import large_study, line, small_study, spectra


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """All plots of a large study; the palette is the widest that is asked for."""
    root = tmp_path_factory.mktemp("study")
    lines = large_study()
    return draw_all(lines, [], root, spectra(sorted({each.group.regime for each in lines})))


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
