"""The matching loss of each class and its gradient, against a plain implementation of Zhao and Bilen's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datamodules.crops import CropDataset, Window
from datamodules.real import RealImages
from lightning_modules.feature_networks import RandomConvNet
from lightning_modules.gan.augmentation import Siamese
from lightning_modules.gan.matching import Matching, RealPatches
from lightning_modules.gan.sr_generator import SRGenerator
from lightning_modules.losses.distribution_matching import MatchingTerms
from tests.gsdd_runs import SIDE, Pixels, write_sr

CPU = torch.device("cpu")
SEED, STEP = 3, 7
LABELS = torch.tensor([0, 0, 0, 2, 2])
"""Of the latents: class 1 has none."""


@pytest.fixture(scope="module")
def patches(tiny_photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> CropDataset:
    """A grid over three pictures of 96 pixels: 108."""
    cache = str(tmp_path_factory.mktemp("cache"))
    data = RealImages(str(tiny_photographs), scale=4, patch_size=SIDE, batch_size=2, seed=0, cache_dir=cache)
    data.prepare_data()
    data.setup("fit")
    grid = range(0, 96, SIDE)
    windows = [Window(image, top, left, SIDE, SIDE) for image in range(3) for top in grid for left in grid]
    return CropDataset(data.store, windows, SIDE, 0)


@pytest.fixture(scope="module")
def real(patches: CropDataset) -> RealPatches:
    """Class 0 has 101 patches, class 1 four, class 2 three."""
    labels = np.zeros(len(patches.windows), dtype=np.int64)
    labels[[1, 5, 50, 70]], labels[[2, 6, 90]] = 1, 2
    return RealPatches(patches, labels, 6, SEED)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> SRGenerator:
    return SRGenerator(str(write_sr(tmp_path_factory.mktemp("sr") / "sr.safetensors")), SIDE)


@pytest.fixture
def latents() -> Tensor:
    return torch.rand(len(LABELS), 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network() -> nn.Module:
    return RandomConvNet(width=4, depth=2).network(0, 0, CPU)


def numbers_of(real: RealPatches, drawn: Tensor) -> list[int]:
    """Which patches these are."""
    everything = real.patches.whole(range(len(real.labels))).hr.float() / 255
    return [int((everything - one).abs().amax((1, 2, 3)).argmin()) for one in drawn]


def test_real_patches_are_of_the_class_and_different(real: RealPatches) -> None:
    for label in (0, 1, 2):
        numbers = numbers_of(real, real.draw(label, STEP, CPU))
        assert {real.labels[number] for number in numbers} == {label}
        assert len(set(numbers)) == len(numbers) == min(6, int((real.labels == label).sum()))


def test_real_patches_change_with_the_step_alone(real: RealPatches) -> None:
    first, again, later = (real.draw(0, step, CPU) for step in (STEP, STEP, STEP + 1))
    assert torch.equal(first, again)
    assert set(numbers_of(real, first)) != set(numbers_of(real, later))
    other = RealPatches(real.patches, real.labels, real.batch, SEED + 1)
    assert set(numbers_of(real, first)) != set(numbers_of(real, other.draw(0, STEP, CPU)))


def test_every_real_patch_has_its_turn(real: RealPatches, monkeypatch: pytest.MonkeyPatch) -> None:
    """6 of 101 in 200 steps: the chance that one is never drawn is below 101 (95/101)^200 = 5e-4."""
    asked: list[int] = []
    whole = real.patches.whole
    monkeypatch.setattr(real.patches, "whole", lambda numbers: asked.extend(numbers) or whole(numbers[:1]))
    for step in range(200):
        real.draw(0, step, CPU)
    counts = np.bincount(asked, minlength=len(real.labels))[real.labels == 0]
    assert counts.min() > 0
    assert counts.max() < 30  # of 12 on average, standard deviation 3.4


@pytest.mark.parametrize("chunk", [1, 2, 100])
@pytest.mark.parametrize("strategy", ["none", "color_crop_cutout_flip_scale_rotate"])
def test_loss_and_gradient_are_those_of_a_plain_implementation(
    strategy: str, chunk: int, real: RealPatches, generator: SRGenerator, latents: Tensor, network: nn.Module
) -> None:
    """Squared distance of the means of features, both sides augmented by one draw."""
    siamese = Siamese(strategy)
    matching = Matching(generator, real, MatchingTerms(mean=1), siamese, chunk)
    for label in (0, 2):
        leaf = latents[label == LABELS].requires_grad_()
        of_real = network(siamese(real.draw(label, STEP, CPU), SEED, STEP, label)).mean(0)
        own = network(siamese(generator.decode(leaf), SEED, STEP, label)).mean(0)
        expected = ((of_real - own) ** 2).sum()
        (plain,) = torch.autograd.grad(expected, leaf)
        gradient, loss = matching(leaf.detach(), label, network, STEP)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        assert not loss.requires_grad
        torch.testing.assert_close(gradient, plain, rtol=1e-4, atol=1e-4 * plain.abs().max().item())


def test_the_patches_themselves_match(patches: CropDataset, network: nn.Module) -> None:
    """Latents that decode to all real patches of their class have no loss, under any augmentation."""
    real = RealPatches(patches, np.arange(len(patches.windows)) // 54, 1000, SEED)
    latents, labels = patches.whole(range(108)).to_float().hr, torch.from_numpy(real.labels)
    matching = Matching(Pixels(), real, MatchingTerms(), Siamese(), 20)
    for step in range(3):
        for label in (0, 1):
            gradient, loss = matching(latents[labels == label], label, network, step)
            assert loss < 1e-8
            assert gradient.abs().max() < 1e-6


def test_a_step_down_the_gradient_lowers_the_loss(
    real: RealPatches, generator: SRGenerator, latents: Tensor, network: nn.Module
) -> None:
    """By what the gradient promises, for every term that features have."""
    terms = MatchingTerms(mean=1, second_moment=0.01, feature_diversity=5)
    matching = Matching(generator, real, terms, Siamese(), 2)
    own = latents[LABELS == 0]
    gradient, before = matching(own, 0, network, STEP)
    size = 0.001 * before / gradient.square().sum()
    _, after = matching(own - size * gradient, 0, network, STEP)
    assert (before - after).item() == pytest.approx(0.001 * before.item(), rel=0.1)
