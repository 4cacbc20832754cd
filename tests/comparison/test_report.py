"""The report as text: what it holds, what it escapes, and that it loads nothing."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from comparison.pictures.picture import CropRow, Panel, Sample
from comparison.report import ReportContent, write_report
from comparison.report.columns import columns
from comparison.report.embed import embed_crop, embed_sheet
from comparison.report.figures import CAPTIONS
from comparison.report.key_figures import key_figures
from comparison.report.page import render
from comparison.report.tables import choices, tables
from comparison.results.statistics import summarise

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
VOID = {"meta", "link", "img", "br", "hr", "input"}
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 40" width="100%">'
    '<path d="M6 2V35H62" fill="none" stroke="currentColor"/></svg>'
)


def noise(seed, width=48, height=48):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def make_content(study, **changed):
    """A whole report on the rows of the fixture `study`."""
    rows, per_image = study
    labels = ("LR", "bicubic", "random", "sharpening", "HR")
    panels = tuple(Panel(label, f"{28 + number:.2f} dB", noise(number)) for number, label in enumerate(labels))
    values = {
        "title": "A study",
        "headline": "Sharpening keeps 90 % of what full data gains.",
        "generated": "2025-11-21T10:31:07+00:00",
        "summaries": summarise(rows, per_image, "full", "random", bootstrap=20),
        "rows": rows,
        "plots": dict.fromkeys(CAPTIONS, SVG),
        "samples": [Sample("random, 0.68 %", "95 patches.", noise(1, 400, 200))],
        "crops": [CropRow(f"Set5, img_{number}", panels) for number in range(2)],
        "commands": [("fit-0", "python main.py fit --seed_everything 0"), ("test-0", "python main.py test")],
        "environment": {"Python": "3.11"},
        "regimes": {"sharpening": "Patches that an SR network gains most on."},
        "plan": "name: study\nbudgets: [0.68, 5]\n",
    }
    return ReportContent(**{**values, **changed})


def make_hostile(study):
    """The same, with mark-up wherever a text may come from a plan, a path or a file name."""
    content = make_content(study)
    [panel] = content.crops[0].panels[:1]
    groups = [line.group._replace(network=EVIL, recipe=EVIL) for line in content.summaries]
    return replace(
        content,
        title=EVIL,
        headline=EVIL,
        summaries=[
            replace(line, group=group._replace(regime=EVIL) if group.regime == "sharpening" else group)
            for line, group in zip(content.summaries, groups, strict=True)
        ],
        rows=[replace(row, protocol=EVIL, device=EVIL, commit=EVIL) for row in content.rows],
        samples=[Sample(EVIL, EVIL, noise(0))],
        crops=[CropRow(EVIL, (replace(panel, label=EVIL, detail=EVIL),))],
        commands=[(EVIL, EVIL)],
        environment={EVIL: EVIL},
        regimes={EVIL: EVIL},
        plan=EVIL,
        failed=[(EVIL, EVIL)],
        notes=[EVIL],
    )


class Page(HTMLParser):
    """Elements with their attributes, scripts, texts; refuses tags that do not close in order."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.scripts, self.texts, self._open = [], [], [], []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        (self.scripts if self._open[-1:] == ["script"] else self.texts).append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def content(study):
    return make_content(study)


@pytest.fixture
def page(content):
    return Page(render(content))


def test_the_page_is_well_formed(page):
    headings = [int(tag[1]) for tag, _ in page.elements if tag in {"h1", "h2", "h3", "h4"}]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(headings)), "a level is skipped"
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {attributes["href"][1:] for attributes in page.all("a")}
    assert targets <= set(ids)
    labels = {attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes}
    assert labels <= set(ids)


def test_nothing_is_loaded_from_anywhere(content, page):
    loading = ("src", "href", "srcset", "xlink:href", "action", "poster", "data")
    addresses = [attributes[key] for _, attributes in page.elements for key in loading if key in attributes]
    assert len(addresses) > 10
    assert all(address.startswith(("#", "data:")) for address in addresses)
    html = render(content)
    assert "@import" not in html
    assert "url(" not in html


def test_only_our_script_may_run(page):
    """The hash is that of the Content Security Policy, level 3, section 6.7.3.3: SHA-256 of the element's text."""
    [policy] = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    [script] = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy.split("; ")
    assert "default-src 'none'" in policy.split("; ")


def test_pictures_have_descriptions_and_sizes(page):
    pictures = page.all("img")
    assert len(pictures) == 1 + 2 * 5
    assert all(picture["alt"] and int(picture["width"]) and int(picture["height"]) for picture in pictures)


def test_texts_are_never_markup(study):
    page = Page(render(make_hostile(study)))
    assert len(page.all("script")) == 1
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    assert "".join(page.texts).count(EVIL) > 20


def test_lines_with_and_without_a_teacher_never_share_a_table(content):
    found = tables(content.summaries, columns(content.summaries, "full", "random"))
    assert [table.teacher for table in found] == [False, True]
    for table in found:
        assert {line.group.teacher for line in table.lines} == {table.teacher}
    assert sum(len(table.lines) for table in found) == len(content.summaries)


def test_the_best_at_each_budget_is_marked_once(content):
    """By the formula of `study`, sharpening is above random everywhere; full data has no rivals."""
    for table in tables(content.summaries, columns(content.summaries, "full", "random")):
        best = [line.group for line in table.lines if line.best]
        assert {group.regime for group in best} == {"sharpening"}
        assert len(best) == 2 * 2 * 3 * 2  # networks, recipes, sets and their mean, budgets


def test_lines_stand_by_budget_then_by_quality(content):
    table = tables(content.summaries, columns(content.summaries, "full", "random"))[0]
    shown = [
        line.group for line in table.lines if line.group[2:4] == ("strong", "edsr_tiny") and line.group.set == "mean"
    ]
    assert [(group.budget, group.regime) for group in shown] == [
        (0.68, "sharpening"),
        (0.68, "random"),
        (5.0, "sharpening"),
        (5.0, "random"),
        (None, "full"),
    ]


def test_the_first_view_prefers_strong_and_the_mean(content):
    assert {choice.key: choice.selected for choice in choices(content.summaries)} == {
        "network": "edsr_tiny",
        "recipe": "strong",
        "set": "mean",
    }
    plain = [line for line in content.summaries if line.group.recipe == "plain" and line.group.set != "mean"]
    assert [choice.selected for choice in choices(plain)] == ["edsr_tiny", "plain", "Set5"]


def test_key_figures_follow_the_formula(content):
    """`study`: full 2.1 dB over bicubic, sharpening 1.9 at 0.68 % and 2.0 at 5 %, plus 0.02 for the mean of seeds."""
    found = key_figures(content.summaries, choices(content.summaries), "full", "random")
    assert [figure.value for figure in found] == [
        "29.32 dB",
        f"{100 * 1.92 / 2.12:.1f} % kept",
        f"{100 * 2.02 / 2.12:.1f} % kept",
    ]
    assert "+0.20" in found[1].detail
    assert "teacher" not in str(found)


def test_a_gain_that_may_be_none_is_grey(content):
    lines = [replace(line, gain_interval=(-0.01, 0.3)) if line.gain_interval else line for line in content.summaries]
    shown = columns(lines, "full", "random")
    assert not any(line.unsure for table in tables(content.summaries, shown) for line in table.lines)
    unsure = {line.group.regime for table in tables(lines, shown) for line in table.lines if line.unsure}
    assert unsure == {"sharpening"}


def test_columns_without_figures_are_left_out(content):
    keys = [column.key for column in columns(content.summaries, "full", "random")]
    assert "lpips" not in keys
    assert "gap-best" in keys
    strong = [replace(line, lpips=0.2) for line in content.summaries if line.group.recipe == "strong"]
    keys = [column.key for column in columns(strong, "full", "random")]
    assert "lpips" in keys
    assert "gap-best" not in keys


def test_crops_keep_every_pixel():
    picture = noise(3, 33, 21)
    embedded = embed_crop(picture)
    decoded = Image.open(io.BytesIO(base64.b64decode(embedded.src.partition(",")[2])))
    assert embedded[1:] == (33, 21)
    np.testing.assert_array_equal(np.asarray(decoded.convert("RGB")), np.asarray(picture))


def test_contact_sheets_are_bounded():
    embedded = embed_sheet(Image.new("RGB", (2400, 800)))
    assert embedded[1:] == (1200, 400)
    assert Image.open(io.BytesIO(base64.b64decode(embedded.src.partition(",")[2]))).size == (1200, 400)
    assert embed_sheet(Image.new("RGB", (300, 100)))[1:] == (300, 100), "small ones are not enlarged"


def test_failures_are_said_plainly(content):
    texts = "".join(Page(render(replace(content, failed=[("gsdd-5-0", "stages/gsdd/log.txt")]))).texts)
    assert "1 stage failed: rows are missing below" in texts
    assert "stages/gsdd/log.txt" in texts
    assert "failed" not in "".join(Page(render(content)).texts)


def test_a_comparison_without_results_has_a_report(content):
    empty = replace(content, summaries=[], rows=[], plots={}, samples=[], crops=[])
    page = Page(render(empty))
    assert "No training has been tested yet." in "".join(page.texts)
    assert not page.all("table")


def test_a_plot_without_caption_is_refused(content):
    with pytest.raises(ValueError, match="plot 'pie' has no caption"):
        render(replace(content, plots={"pie": SVG}))


def test_a_report_replaces_the_older_one(tmp_path, content):
    path = tmp_path / "report.html"
    path.write_text("old")
    write_report(path, content)
    assert path.read_text(encoding="utf-8") == render(content)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_report_on_restoration_says_what_it_is_against(content, denoising):
    """Wherever the report on super-resolution says bicubic, it names the input."""
    rows, images = denoising
    summaries = summarise(rows, images, "full", "random", bootstrap=20)
    panels = tuple(Panel(label, "", noise(0)) for label in ("input", "full", "random", "truth"))
    restored = replace(content, rows=rows, summaries=summaries, crops=[CropRow("Set5, img_0", panels)])
    texts = "".join(Page(render(restored)).texts)
    assert "icubic" in "".join(Page(render(content)).texts)
    for word in ("icubic", "LR", "(HR)", "SR training"):
        assert word not in texts
    for text in (
        "kept is the share of what full gains over the degraded input with the same recipe.",
        "from the degraded input to the truth. These windows",
        "The degraded input is measured on the same images in the same way.",
        "gains over the degraded input that is left: PSNR-Y minus the input, divided by full minus the input, with",
        "dB over the input, in",
        "Time of all stages before the training of the network, each",
    ):
        assert text in texts


def test_feet_of_tables_are_named_after_what_they_are(content, denoising):
    summaries = summarise(*denoising, "full", "random", bootstrap=20)
    html = render(replace(content, summaries=summaries))
    foot = html.partition("<tfoot>")[2].partition("</tfoot>")[0]
    assert foot.count('class="regime">input</th>') == 3
    assert "28.40" in foot


def test_psnr_of_rgb_has_a_column_where_it_was_measured(content, denoising):
    assert "psnr-rgb" not in {column.key for column in columns(content.summaries, "full", "random")}
    summaries = summarise(*denoising, "full", "random", bootstrap=20)
    (column,) = (each for each in columns(summaries, "full", "random") if each.key == "psnr-rgb")
    assert [column.value(line) for line in summaries] == pytest.approx([line.psnr_y - 1.5 for line in summaries])
