"""The report in a real browser: it opens in silence, sorts, filters, enlarges, and fits a phone."""

from __future__ import annotations

import math
import re
import shutil

import pytest
from test_report import make_content, make_hostile

from comparison.report import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome in PATH")

FIRST = "table.ranking >> nth=0"
READ = """rows => rows.filter(row => !row.hidden).map(row => [...row.cells].map(cell => cell.innerText.trim()))"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def content(study):
    return make_content(study)


@pytest.fixture
def visit(browser, tmp_path):
    """Opens a report; whatever the browser complains of or tries to load fails the test that opened it."""
    complaints, contexts = [], []

    def open_report(content, width=1280, scheme="light"):
        path = tmp_path / "report.html"
        write_report(path, content)
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(request.url))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: _note_request(request.url, path, complaints))
        page.goto(path.as_uri())
        return page

    yield open_report
    for context in contexts:
        context.close()
    assert complaints == []


def _note_request(url, path, complaints):
    if url != path.as_uri() and not url.startswith("data:"):
        complaints.append(url)


def regimes(page, table=0):
    """Regime and budget of the lines that are shown, from top to bottom."""
    rows = page.locator("table.ranking").nth(table).locator("tbody tr").evaluate_all(READ)
    return [(row[0].partition("\n")[0], row[1]) for row in rows]


def header(page, name, table=0):
    return page.locator("table.ranking").nth(table).locator(f"thead th.{name}")


def choose(page, name, option):
    page.locator(f"select[name={name}]").select_option(label=option)


def first_view(content):
    """The lines that the first table shows at first, in its order."""
    lines = [line for line in content.summaries if line.group[1:4] == (False, "strong", "edsr_tiny")]
    lines = [line for line in lines if line.group.set == "mean"]
    return sorted(lines, key=lambda line: (line.group.budget or math.inf, -line.psnr_y))


def named(lines):
    budget = {0.68: "0.68 %", 5.0: "5 %", None: "all"}
    return [(line.group.regime, budget[line.group.budget]) for line in lines]


def test_every_picture_is_there(visit, content):
    page = visit(content)
    widths = page.locator("img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert widths == [400] + [48] * 10
    boxes = page.locator(".plot svg").evaluate_all("plots => plots.map(plot => plot.getBoundingClientRect().width)")
    assert len(boxes) == 6
    assert min(boxes) > 300


SORTED = {
    "psnr": lambda line: line.psnr_y,
    "kept": lambda line: line.kept,
    "total": lambda line: line.total_seconds,
    "size": lambda line: line.bytes,
    "regime": lambda line: line.group.regime,
}


@pytest.mark.parametrize("name", SORTED)
def test_a_click_sorts_and_another_one_reverses(visit, content, name):
    """Against Python's stable sort of the summaries' own values: as text, 125.7 MB would stand before 6.3 MB."""
    page = visit(content)
    lines = first_view(content)
    assert regimes(page) == named(lines)
    for _ in range(2):
        header(page, name).locator("button").click()
        direction = header(page, name).get_attribute("aria-sort")
        assert page.locator(f"{FIRST} >> th[aria-sort]").count() == 1
        assert regimes(page) == named(sorted(lines, key=SORTED[name], reverse=direction == "descending"))
    assert regimes(page, table=1)[0] == ("sharpening", "0.68 %"), "the other table stays as it was"


def test_missing_figures_stand_last_in_both_directions(visit, content):
    """Random has no gain over itself, and full data none at all."""
    page = visit(content)
    for expected in ("descending", "ascending"):
        header(page, "gain").locator("button").click()
        assert header(page, "gain").get_attribute("aria-sort") == expected
        assert {regime for regime, _ in regimes(page)[:2]} == {"sharpening"}
        assert {regime for regime, _ in regimes(page)[2:]} == {"random", "full"}


def test_the_keyboard_sorts_too(visit, content):
    page = visit(content)
    header(page, "psnr").locator("button").focus()
    page.keyboard.press("Enter")
    assert header(page, "psnr").get_attribute("aria-sort") == "descending"
    assert regimes(page)[0] == ("full", "all")
    page.keyboard.press("Enter")
    assert regimes(page)[-1] == ("full", "all")


def test_filters_choose_lines_and_columns(visit, content):
    page = visit(content)
    assert len(regimes(page)) == 5
    assert not header(page, "network").is_visible()
    choose(page, "network", "all")
    assert header(page, "network").is_visible()
    assert len(regimes(page)) == 10
    choose(page, "recipe", "plain")
    choose(page, "set", "Set14")
    shown = page.locator(f"{FIRST} >> tbody tr:visible")
    assert shown.count() == 10
    assert set(shown.evaluate_all("rows => rows.map(row => row.dataset.recipe + row.dataset.set)")) == {"plainSet14"}
    assert page.locator(f"{FIRST} >> tfoot tr:visible").all_inner_texts()[0].split() == ["bicubic", "26.00", "0.7500"]


def test_a_choice_without_lines_says_so(visit, study):
    content = make_content(study)
    lines = [line for line in content.summaries if not (line.group.teacher and line.group.network == "swinir_light")]
    page = visit(make_content(study, summaries=lines))
    choose(page, "network", "swinir_light")
    assert page.locator("table.ranking").nth(0).is_visible()
    assert not page.locator("table.ranking").nth(1).is_visible()
    assert page.get_by_text("This choice has no lines.").locator("visible=true").count() == 1


def test_a_click_enlarges_and_escape_closes(visit, content):
    page = visit(content)
    dialog = page.locator("dialog")
    page.locator(".panels button").nth(1).click()
    assert dialog.is_visible()
    assert dialog.locator(".label").inner_text() == "Set5, img_0 · bicubic · 29.00 dB"
    assert dialog.locator("img").evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"
    assert dialog.locator("img").bounding_box()["width"] > 400
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert dialog.locator(".label").inner_text() == "Set5, img_0 · HR · 32.00 dB"
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


def test_commands_are_copied(visit, content):
    page = visit(content)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_text("Commands of all 2 stages").click()
    page.get_by_role("button", name="Copy").first.click()
    page.get_by_role("button", name="Copied").wait_for()
    expected = "# fit-0\npython main.py fit --seed_everything 0\n\n# test-0\npython main.py test\n"
    assert page.evaluate("navigator.clipboard.readText()") == expected


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_the_page_never_scrolls_sideways(visit, content, width):
    page = visit(content, width)
    page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    for name in ("network", "recipe", "set"):
        choose(page, name, "all")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator(".scroll").first.evaluate("box => box.scrollWidth > box.clientWidth"), "the table does"


TEXTS = (
    "body",
    ".small",
    ".kicker",
    "nav a",
    ".alert h2",
    ".notes li",
    "figcaption",
    "td.gain",
    ".best td.psnr",
    "dd",
    "pre",
)
COLOURS = """element => {
    let behind = element;
    while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
    return [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_in_both_schemes(visit, study, scheme):
    page = visit(make_content(study, failed=[("a", "b")], notes=["Mixed."]), scheme=scheme)
    lightness = luminance(page.locator("body").evaluate(COLOURS)[1])
    assert lightness < 0.05 if scheme == "dark" else lightness > 0.9
    contrasts = {text: contrast(*page.locator(text).first.evaluate(COLOURS)) for text in TEXTS}
    assert min(contrasts.values()) >= 4.5, contrasts


def test_the_button_switches_the_scheme(visit, content):
    page = visit(content, scheme="dark")
    dark = page.locator("body").evaluate(COLOURS)
    page.locator("#theme").click()
    assert luminance(page.locator("body").evaluate(COLOURS)[1]) > 0.9
    page.locator("#theme").click()
    assert page.locator("body").evaluate(COLOURS) == dark


def test_names_do_not_run(visit, study):
    page = visit(make_hostile(study))
    page.locator(".zoom").first.click()
    assert "<script>alert(1)</script>" in page.locator("dialog .label").inner_text()
    assert page.title().startswith("<script>")


def test_without_scripts_everything_is_shown(browser, tmp_path, content):
    path = tmp_path / "report.html"
    write_report(path, content)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator("tbody tr:visible").count() == len(content.summaries)
    assert not page.locator(".filters").is_visible()
    context.close()


def luminance(colour):
    """Relative luminance as WCAG 2.2 defines it."""
    channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(*colours):
    """Contrast ratio as WCAG 2.2 defines it; 4.5 is level AA."""
    dark, light = sorted(map(luminance, colours))
    return (light + 0.05) / (dark + 0.05)
