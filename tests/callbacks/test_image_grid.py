"""ImageGrid and drawing: sizes, places, and the same crops at each validation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from callbacks import ImageGrid
from callbacks.drawing import CAPTION, ERROR_GAIN, GAP, busiest_crop, comparison_row, draw_rows
from datamodules.bicubic import downscale

SIDE = 40


def picture() -> torch.Tensor:
    """Flat, with detail around row 60 and column 20 only: (3, 96, 80)."""
    image = torch.full((3, 96, 80), 0.5)
    image[:, 50:70, 10:30] = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0))
    return image


def test_crop_lies_where_the_detail_is():
    top, left, height, width = busiest_crop(picture(), SIDE, 4)
    assert (height, width) == (SIDE, SIDE)
    assert top % 4 == left % 4 == 0
    assert top <= 50
    assert top + SIDE >= 70
    assert left <= 10
    assert left + SIDE >= 30


def test_crop_of_a_small_image_is_all_of_it():
    assert busiest_crop(torch.rand(3, 26, 33), SIDE, 4) == (0, 0, 24, 32)


def test_panels():
    hr = picture()
    lr = downscale(hr[None], 4)[0]
    sr = (hr + 0.1).clamp(0, 1)
    panels = comparison_row(lr, sr, hr, SIDE)
    assert list(panels) == ["LR", "bicubic", "SR", "HR", f"error x{ERROR_GAIN}"]
    top, left, *_ = busiest_crop(hr, SIDE, 4)
    window = (slice(None), slice(top, top + SIDE), slice(left, left + SIDE))
    assert torch.equal(panels["HR"], hr[window])
    assert torch.equal(panels["LR"][:, ::4, ::4], lr[:, top // 4 : top // 4 + 10, left // 4 : left // 4 + 10])
    expected = (np.abs(sr.numpy() - hr.numpy()) * ERROR_GAIN).clip(0, 1)[window]
    np.testing.assert_allclose(panels[f"error x{ERROR_GAIN}"].numpy(), expected, atol=1e-6)


def test_panels_of_restoration():
    hr = picture()
    noisy, restored = hr * 0.5, hr * 0.9
    panels = comparison_row(noisy, restored, hr, SIDE)
    assert list(panels) == ["input", "restored", "truth", f"error x{ERROR_GAIN}"]
    top, left, *_ = busiest_crop(hr, SIDE, 1)
    for label, whole in (("input", noisy), ("restored", restored), ("truth", hr)):
        assert torch.equal(panels[label], whole[:, top : top + SIDE, left : left + SIDE])


def test_rows_are_drawn_side_by_side_and_below_each_other():
    red, blue = torch.zeros(3, 20, 30), torch.zeros(3, 20, 30)
    red[0], blue[2] = 1, 1
    drawn = np.asarray(draw_rows([("one", {"a": red, "b": blue}), ("two", {"a": blue, "b": red})]))
    height = 2 * CAPTION + 20 + GAP
    assert drawn.shape == (2 * height, 2 * 30 + GAP, 3)
    for row, (first, second) in enumerate([((255, 0, 0), (0, 0, 255)), ((0, 0, 255), (255, 0, 0))]):
        top = row * height + 2 * CAPTION
        assert (drawn[top : top + 20, :30] == first).all()
        assert (drawn[top : top + 20, 30 + GAP :] == second).all()
        caption = drawn[row * height : top, :60]
        assert (caption < 128).any()  # something is written
    assert (drawn[2 * CAPTION : 2 * CAPTION + 20, 30 : 30 + GAP] == 255).all()


def test_the_same_crops_at_each_validation(runs):
    folder = runs.fit.run_dir / "images"
    assert sorted(path.name for path in folder.iterdir()) == [
        "step00000002-validation.png",
        "step00000004-validation.png",
    ]
    first, second = (np.asarray(Image.open(path)) for path in sorted(folder.iterdir()))
    assert first.shape == (2 * CAPTION + 96 + GAP, 5 * 96 + 4 * GAP, 3)
    for panel, same in enumerate([True, True, False, True, False]):
        left = panel * (96 + GAP)
        assert (first[:, left : left + 96] == second[:, left : left + 96]).all() == same


def test_the_test_draws_the_first_images_of_each_set(runs):
    picture = Image.open(runs.test.run_dir / "images" / "test-tiny.png")
    assert picture.height == 3 * (2 * CAPTION + 96 + GAP)


def test_nothing_is_drawn_when_not_wanted(tiny_images, quick_trainer, tmp_path):
    from lightning_modules import SuperResolution
    from lightning_modules.networks import NetworkSpec

    network = NetworkSpec("EDSR", {"n_feats": 4, "n_resblocks": 1})
    quick_trainer(callbacks=[ImageGrid(images=0)]).fit(SuperResolution(network), tiny_images)
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize("arguments", [{"images": -1}, {"side": 0}])
def test_bad_settings(arguments):
    with pytest.raises(ValueError, match=r"image_grid: images .* and side .*; expected 0 or more rows"):
        ImageGrid(**arguments)
