"""`compare` on restoration: a plan of denoising from its files to the pictures in its report."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.compare_runs import compare, read_csv, write_plan

SIGMA = 25
LUMA = (65.481, 128.553, 24.966)  # BT.601, studio range


@pytest.fixture(scope="module")
def restored(tmp_path_factory, tiny_photographs):
    """Two regimes, run once, with the configuration and the network that the framework has for the task."""
    folder = tmp_path_factory.mktemp("restoration")
    entropy = {"select": {"data.init_args.criterion": "Entropy"}}
    plan = write_plan(
        folder,
        tiny_photographs,
        configs=["configs/restoration/denoise.yaml"],
        networks=["nafnet_tiny"],
        regimes={"full": {}, "random": {"set": entropy}},
        relabelling=[False],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRDISTILL_CACHE", str(folder / "cache"))
        compare(plan, folder / "root")
    return SimpleNamespace(plan=plan, root=folder / "root", folder=folder / "root" / "study")


@pytest.fixture
def rows(restored):
    """Lines of results.csv by regime."""
    return {line["regime"]: line for line in read_csv(restored.folder / "results.csv")}


def test_figures_are_those_of_the_tests(restored, rows):
    assert rows.keys() == {"full", "random"}
    for row in rows.values():
        tested = restored.root / row["test_folder"]
        figures = json.loads((tested / "results.json").read_text())["sets"]["tiny"]
        assert (float(row["psnr_y"]), float(row["ssim_y"])) == (figures["psnr_y"], figures["ssim_y"])
        assert float(row["psnr_y_untrained"]) == figures["psnr_y_input"]
        assert float(row["ssim_y_untrained"]) == figures["ssim_y_input"]
        assert (row["untrained"], float(row["psnr_rgb"])) == ("input", figures["psnr_rgb"])
    (same,) = {row["psnr_y_untrained"] for row in rows.values()}
    per_image = read_csv(restored.folder / "per_image.csv")
    assert np.mean([float(line["psnr_y_untrained"]) for line in per_image]) == pytest.approx(float(same))


def test_the_input_is_as_noisy_as_its_standard_deviation_says(rows):
    """Luma is a weighted sum of three independent noises; that pixels are clipped takes some of it away."""
    of_luma = SIGMA / 255 * math.hypot(*LUMA)
    expected = 20 * math.log10(255 / of_luma)
    assert expected == pytest.approx(24.99, abs=0.01)
    assert expected - 0.1 < float(rows["full"]["psnr_y_untrained"]) < expected + 0.6


def test_nothing_says_bicubic(restored):
    table, latex, page = ((restored.folder / name).read_text() for name in ("table.md", "table.tex", "report.html"))
    psnr = float(read_csv(restored.folder / "summary.csv")[0]["psnr_y_untrained"])
    assert f"The degraded input: {psnr:.2f} dB (tiny)." in table
    for text in (table, latex, page):
        assert "icubic" not in text
        assert "over the degraded input" in " ".join(text.split())
    foot = page.partition("<tfoot>")[2].partition("</tfoot>")[0]
    assert 'class="regime">input</th>' in foot
    assert f"{psnr:.2f}" in foot
    assert '<th scope="col" class="psnr-rgb number"' in page


class _Crops(HTMLParser):
    """Captions and pictures of what is enlarged without smoothing."""

    def __init__(self, page):
        super().__init__()
        self.found, self._caption = [], None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "button":
            self._caption = attributes.get("data-caption") if "pixels" in attributes.get("class", "") else None
        elif tag == "img" and self._caption is not None:
            data = base64.b64decode(attributes["src"].partition(",")[2])
            self.found.append((self._caption, np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))))


def test_crops_are_of_input_trainings_and_truth(restored, tiny_photographs):
    crops = _Crops((restored.folder / "report.html").read_text()).found
    labels = [caption.split(" · ")[1:] for caption, _ in crops]
    assert [label[0] for label in labels] == ["input", "full", "random", "truth"]
    caption = crops[0][0]
    name = re.match(r"tiny, (.*\.png): ", caption)[1]
    height, width, top, left = map(
        int, re.search(r"(\d+) x (\d+) pixels from row (\d+), column (\d+);", caption).groups()
    )
    with Image.open(tiny_photographs / name) as photograph:
        truth = np.asarray(photograph)[top : top + height, left : left + width]
    np.testing.assert_array_equal(crops[-1][1], truth)
    inner = (truth > 3 * SIGMA) & (truth < 255 - 3 * SIGMA)  # where nothing is clipped
    assert np.std((crops[0][1].astype(float) - truth)[inner]) == pytest.approx(SIGMA, rel=0.05)

    images = {line["regime"]: line for line in read_csv(restored.folder / "per_image.csv") if line["image"] == name}
    assert labels[0][1] == f"{float(images['full']['psnr_y_untrained']):.2f} dB"
    for regime, detail in labels[1:3]:
        assert detail == f"{float(images[regime]['psnr_y']):.2f} dB"
    with Image.open(restored.folder / "pictures" / "crops.png") as sheet:
        assert sheet.width >= 4 * width


def test_a_second_call_has_nothing_to_do(restored, capsys):
    compare(restored.plan, restored.root, "--dry_run")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["done"] * 5
