"""Tiled upscaling and self-ensemble."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_modules.networks import EDSR
from lightning_modules.upscaling import upscale


@pytest.fixture(scope="module")
def tiny():
    """EDSR-tiny with a receptive radius of 11 LR pixels; its last layer is drawn, since zeros would hide seams."""
    torch.manual_seed(0)
    network = EDSR(scale=4, n_feats=8, n_resblocks=4, direct_shuffle=True, bicubic_skip=True)
    for parameter in network.tail.parameters():
        nn.init.normal_(parameter, std=0.5)
    return network.eval().requires_grad_(False)


class Nearest(nn.Module):
    """Without parameters; records what it was given."""

    def __init__(self, scale):
        super().__init__()
        self.scale, self.shapes = scale, []

    def forward(self, x):
        self.shapes.append(tuple(x.shape))
        return F.interpolate(x, scale_factor=self.scale, mode="nearest")


@pytest.mark.parametrize(("height", "width"), [(64, 96), (37, 101), (90, 20)])
@pytest.mark.parametrize(("tile", "overlap"), [(48, 12), (50, 16), (47, 14)])
def test_tiles_give_the_whole_image_beyond_the_receptive_radius(tiny, height, width, tile, overlap):
    lr = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(upscale(tiny, lr, 4, tile=tile, overlap=overlap), tiny(lr), atol=1e-5, rtol=0)


def test_too_little_overlap_is_visible(tiny):
    """Guards the test above: with less context than the receptive radius the tiles must differ."""
    lr = torch.rand(1, 3, 64, 64)
    assert (upscale(tiny, lr, 4, tile=40, overlap=2) - tiny(lr)).abs().max() > 1e-3


@pytest.mark.parametrize("overlap", [0, 1, 2, 3, 8])
@pytest.mark.parametrize("scale", [1, 3])
def test_weights_add_up_to_one_everywhere(scale, overlap):
    lr = torch.rand(1, 3, 53, 31)
    found = upscale(Nearest(scale), lr, scale, tile=23, overlap=overlap)
    torch.testing.assert_close(found, Nearest(scale)(lr), atol=1e-6, rtol=0)


def test_every_tile_has_full_size_where_the_image_allows_it():
    network = Nearest(2)
    upscale(network, torch.rand(1, 3, 70, 13), 2, tile=24, overlap=4)
    assert set(network.shapes) == {(1, 3, 24, 13)}


@pytest.mark.parametrize("tile", [None, 41, 200])
def test_image_smaller_than_tile_and_overlap_runs_whole(tiny, tile):
    lr = torch.rand(1, 3, 7, 9)
    assert torch.equal(upscale(tiny, lr, 4, tile=tile), tiny(lr))


def test_blending_is_linear_across_the_seam():
    """A network that answers with its tile's first pixel: along the seam the answer must go from one to the other."""

    class FirstPixel(nn.Module):
        def forward(self, x):
            return x[..., :1, :1].expand_as(x)

    lr = torch.arange(20.0).expand(1, 3, 20, 20)
    row = upscale(FirstPixel(), lr, 1, tile=14, overlap=4)[0, 0, 0]
    # tiles [0, 14), [4, 18) and [6, 20): context 4, blended strip 2, so the first one rules up to pixel 7
    assert torch.equal(row[:8], torch.zeros(8))
    assert (row.diff() >= 0).all()
    assert row.diff().max() < 6
    assert row[-4:].unique().tolist() == [6.0]


def test_images_of_a_batch_do_not_mix(tiny):
    first, second = torch.rand(1, 3, 60, 50), torch.rand(1, 3, 60, 50)
    both = upscale(tiny, torch.cat([first, second]), 4, tile=45)
    alone = torch.cat([upscale(tiny, first, 4, tile=45), upscale(tiny, second, 4, tile=45)])
    torch.testing.assert_close(both, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("tile", [None, 45])
def test_self_ensemble_is_equivariant(tiny, tile):
    lr = torch.rand(1, 3, 48, 33)
    expected = upscale(tiny, lr, 4, tile=tile, self_ensemble=True)
    assert (expected - tiny(lr)).abs().max() > 1e-3
    for symmetry in (lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.rot90(1, (-2, -1))):
        found = upscale(tiny, symmetry(lr), 4, tile=tile, self_ensemble=True)
        torch.testing.assert_close(found, symmetry(expected), atol=1e-5, rtol=0)


def test_self_ensemble_is_the_mean_of_eight():
    """For a network that commutes with the symmetries the mean changes nothing."""
    lr = torch.rand(2, 3, 5, 8)
    network = Nearest(2)
    torch.testing.assert_close(upscale(network, lr, 2, self_ensemble=True), Nearest(2)(lr))
    assert sorted(network.shapes) == [(2, 3, 5, 8)] * 4 + [(2, 3, 8, 5)] * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tile": 40}, "tile of 40 pixels is too small for overlap 16: at least 41"),
        ({"overlap": -1}, "overlap -1 is negative"),
        ({"scale": 0}, "scale 0 is not"),
        ({"lr": torch.rand(3, 8, 8)}, r"not torch.float32 \(3, 8, 8\)"),
        ({"lr": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)}, "not torch.uint8"),
        ({"scale": 3}, r"\(1, 3, 16, 16\), not x3"),
    ],
)
def test_bad_values_are_named(changes, message):
    arguments = {"network": Nearest(2), "lr": torch.rand(1, 3, 8, 8), "scale": 2} | changes
    with pytest.raises(ValueError, match=message):
        upscale(**arguments)
