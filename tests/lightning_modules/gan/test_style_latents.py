"""The style-based generator as a generator of patches: w and w+, against its network used by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_modules.gan.style_file import load_style_generator
from lightning_modules.gan.style_latents import StyleLatents
from tests.gsdd_runs import SIDE, STYLE, write_style


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_style(tmp_path / "generator")


def drawn(generator: StyleLatents, count: int = 3) -> Tensor:
    return generator.sample(torch.randn(count, *generator.noise_shape, generator=torch.Generator().manual_seed(0)))


def test_shapes(folder: Path) -> None:
    network = load_style_generator(folder)
    for space, shape in (("w", (STYLE.w_dim,)), ("w_plus", (network.layers, STYLE.w_dim))):
        generator = StyleLatents(str(folder), SIDE, space)  # type: ignore[arg-type]
        assert (generator.latent_shape, generator.noise_shape, generator.side) == (shape, (STYLE.z_dim,), SIDE)
        assert drawn(generator).shape == (3, *shape)
        assert generator.decode(drawn(generator)).shape == (3, 3, SIDE, SIDE)


def test_patches_are_the_networks(folder: Path) -> None:
    """Which works on [-1, 1]; w and w+ of the same style give the same patch."""
    network, z = load_style_generator(folder), torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        styles = network.mapping(z)
        expected = (network.synthesis(styles[:, None].expand(-1, network.layers, -1)) + 1) / 2
    w, w_plus = StyleLatents(str(folder), SIDE, "w"), StyleLatents(str(folder), SIDE, "w_plus")
    torch.testing.assert_close(w.sample(z), styles)
    torch.testing.assert_close(w.generate(styles), expected)
    torch.testing.assert_close(w_plus.generate(w_plus.sample(z)), expected)
    torch.testing.assert_close(w_plus.decode(w_plus.sample(z)), expected.clamp(0, 1))


def test_styles_of_the_layers_can_become_different(folder: Path) -> None:
    """Also in place, as optimisers write: none is a view of another."""
    latents = drawn(StyleLatents(str(folder), SIDE))
    before = latents.clone()
    latents[:, 0] += 1
    assert torch.equal(latents[:, 1:], before[:, 1:])


@pytest.mark.parametrize("space", ["w", "w_plus"])
def test_gradients_reach_every_style(space: str, folder: Path) -> None:
    generator = StyleLatents(str(folder), SIDE, space)  # type: ignore[arg-type]
    leaf = drawn(generator).requires_grad_()
    (gradient,) = torch.autograd.grad(generator.decode(leaf).square().sum(), leaf)
    assert gradient.flatten(0, -2).abs().amax(1).min() > 0
    assert not any(weight.requires_grad for weight in generator.parameters())


def test_first_guess_finds_its_own_patches(folder: Path) -> None:
    """What the generator made comes back nearly, and nearer than other patches; the same guesses for every call."""
    generator = StyleLatents(str(folder), SIDE)
    with torch.no_grad():
        hr = generator.decode(drawn(generator, 6))
        guess = generator.decode(generator.approximate(hr))
    distances = torch.cdist(guess.flatten(1), hr.flatten(1))
    average = torch.cdist(hr.flatten(1), hr.flatten(1)).sum() / (6 * 5)
    assert distances.diagonal().mean() < 0.5 * average
    assert torch.equal(generator.approximate(hr[2:4]), generator.approximate(hr)[2:4])


def test_bfloat16_is_near_float32(folder: Path) -> None:
    exact = StyleLatents(str(folder), SIDE)
    rounded = StyleLatents(str(folder), SIDE, dtype=torch.bfloat16)
    latents = drawn(exact)
    assert {weight.dtype for weight in rounded.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        patches, expected = rounded.decode(latents), exact.decode(latents)
    assert patches.dtype == drawn(rounded).dtype == torch.float32
    assert 0 < (patches - expected).abs().max() < 0.05
    assert rounded.fingerprint == exact.fingerprint


def test_fingerprint_is_of_weights_and_space(tmp_path: Path) -> None:
    folders = [write_style(tmp_path / name, seed) for name, seed in (("one", 0), ("copy", 0), ("other", 1))]
    one, copy, other = (StyleLatents(str(folder), SIDE).fingerprint for folder in folders)
    of_w = StyleLatents(str(folders[0]), SIDE, "w").fingerprint
    larger = StyleLatents(str(write_style(tmp_path / "larger", side=32)), 32).fingerprint
    assert one == copy
    assert len({one, other, of_w, larger}) == 4


def test_another_side(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"makes patches of 16 pixels but data.patch_size is 32; set data.patch_size"):
        StyleLatents(str(folder), 32)
