"""The compact generator and its discriminator, against formulas written out sample by sample."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from lightning_modules.networks.discriminator import Discriminator, with_deviation
from lightning_modules.networks.equalised import EqualisedLinear
from lightning_modules.networks.style_generator import ModulatedConv, StyleGenerator, StyleSpec, upsample

SPEC = StyleSpec(z_dim=6, w_dim=5, mapping_layers=3, channels=8)


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("kernel", [1, 3])
def test_modulated_convolution_has_weights_of_its_own_for_each_sample(kernel: int, demodulate: bool) -> None:
    """Equations 1 and 3 of Karras et al. (CVPR 2020), one convolution for each sample; values and gradients."""
    torch.manual_seed(0)
    conv = ModulatedConv(4, 6, kernel, w_dim=5, demodulate=demodulate).double()
    x, w = torch.randn(3, 4, 7, 5).double().requires_grad_(), torch.randn(3, 5).double().requires_grad_()
    expected = []
    for one, style in zip(x, w, strict=True):
        scales = style @ conv.affine.weight.T / math.sqrt(5) + conv.affine.bias
        weight = conv.weight / math.sqrt(4 * kernel**2) * scales[None, :, None, None]
        if demodulate:
            weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        expected.append(F.conv2d(one[None], weight, padding=kernel // 2))
    wanted, given = torch.cat(expected), conv(x, w)
    torch.testing.assert_close(given, wanted)
    chosen, inputs = torch.randn_like(wanted), [x, w, conv.weight, conv.affine.weight, conv.affine.bias]
    for ours, theirs in zip(
        torch.autograd.grad((given * chosen).sum(), inputs),
        torch.autograd.grad((wanted * chosen).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_upsampling_is_the_published_filter() -> None:
    """Zeros between the pixels, then [1, 3, 3, 1] / 4 along either axis; borders aside."""
    x = torch.randn(1, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    spaced = torch.zeros(1, 1, 12, 12)
    spaced[..., ::2, ::2] = x
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    filtered = F.conv2d(F.pad(spaced, (2, 1, 2, 1)), (taps[:, None] * taps)[None, None])
    torch.testing.assert_close(upsample(x)[..., 1:-1, 1:-1], filtered[..., 1:-1, 1:-1])


@pytest.mark.parametrize("rate", [1.0, 0.01])
def test_equalised_rate(rate: float) -> None:
    """Of a unit input the output has variance 1, and gradients of the stored weights are smaller by the rate."""
    torch.manual_seed(0)
    layer = EqualisedLinear(400, 300, bias=0.5, rate=rate)
    output = layer(torch.randn(200, 400))
    assert output.std().item() == pytest.approx(1, abs=0.02)
    assert output.mean().item() == pytest.approx(0.5, abs=0.05)
    output.sum().backward()
    torch.testing.assert_close(layer.bias.grad, torch.full((300,), 200 * rate))


@pytest.mark.parametrize(("side", "layers"), [(4, 2), (8, 4), (64, 10)])
def test_sizes(side: int, layers: int) -> None:
    """Of styles 2 log2(side) - 2, as in the authors' code (18 for 1024)."""
    generator, discriminator = StyleGenerator(SPEC, side), Discriminator(SPEC, side)
    z = torch.randn(3, 6)
    assert (generator.z_dim, generator.w_dim, generator.layers, generator.side) == (6, 5, layers, side)
    assert generator.mapping(z).shape == (3, 5)
    patches = generator(z)
    assert patches.shape == (3, 3, side, side)
    torch.testing.assert_close(patches, generator.synthesis(generator.mapping(z)[:, None].repeat(1, layers, 1)))
    assert discriminator(patches).shape == (3,)


def test_channels() -> None:
    spec = StyleSpec(channels=64)
    assert [spec.at(side) for side in (4, 8, 16, 32, 64, 128)] == [64, 64, 32, 16, 8, 8]


def test_every_style_and_parameter_matters() -> None:
    """Each changes something, and none gets no gradient, which DDP and autograd.grad would stumble over."""
    torch.manual_seed(0)
    generator, discriminator = StyleGenerator(SPEC, 16), Discriminator(SPEC, 16)
    styles = generator.spread(generator.mapping(torch.randn(4, 6))).contiguous().detach().requires_grad_()
    (gradient,) = torch.autograd.grad(generator.synthesis(styles).square().sum(), styles)
    assert (gradient.abs().sum((0, 2)) > 0).all()
    parameters = [*generator.parameters(), *discriminator.parameters()]
    gradients = torch.autograd.grad(discriminator(generator(torch.randn(4, 6))).square().sum(), parameters)
    assert all(one.abs().sum() > 0 for one in gradients)


def test_only_the_direction_of_z_matters() -> None:
    generator, z = StyleGenerator(SPEC, 8), torch.randn(2, 6)
    torch.testing.assert_close(generator.mapping(3 * z), generator.mapping(z))


@pytest.mark.parametrize(("size", "group"), [(8, 4), (4, 4), (6, 3), (2, 2), (5, 1)])
def test_deviation_within_groups(size: int, group: int) -> None:
    """The mean over all numbers of their standard deviation over neighbours."""
    x = torch.randn(size, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    channel = with_deviation(x)[:, 3]
    for start in range(0, size, group):
        expected = x[start : start + group].std(0, correction=0).mean()
        torch.testing.assert_close(
            channel[start : start + group], expected.expand(group, 2, 2), atol=2e-4, rtol=0, check_stride=False
        )


def test_deviation_of_neighbours_alone() -> None:
    """Halves of a batch, as two processes have them, are as in the whole."""
    x = torch.randn(16, 3, 2, 2)
    assert torch.equal(with_deviation(x), torch.cat([with_deviation(half) for half in x.split(8)]))


@pytest.mark.parametrize(("side", "nearest"), [(48, 64), (44, 32), (3, 4), (65, 64), (0, 4)])
def test_side_that_there_is_not(side: int, nearest: int) -> None:
    for network in (StyleGenerator, Discriminator):
        with pytest.raises(ValueError, match=rf"not of {side}; set data.patch_size to {nearest}, "):
            network(SPEC, side)


@pytest.mark.parametrize(("key", "value"), [("channels", 7), ("z_dim", 0), ("mapping_layers", 0)])
def test_spec_too_small(key: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{key} {value}; expected at least"):
        StyleSpec(**{key: value})
