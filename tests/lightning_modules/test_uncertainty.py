"""How unsure a model is, against a plain loop in NumPy; and that asking it leaves no trace."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from lightning_modules.losses.pixel import L1
from lightning_modules.uncertainty import sample_losses, symmetry_variance, undisturbed


def test_variance_under_symmetries_is_that_of_a_plain_loop():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)).requires_grad_(False)
    images = torch.rand(4, 3, 6, 8)
    found = symmetry_variance(lambda lr: network(lr)[:, [0, 1, 2]], images)
    for image, variance in zip(images.numpy(), found.tolist(), strict=True):
        outputs = []
        for mirror in (False, True):
            for turns in range(4):
                seen = np.rot90(image[:, ::-1] if mirror else image, turns, (1, 2))
                output = network(torch.from_numpy(seen.copy())[None])[0].numpy()
                back = np.rot90(output, -turns, (1, 2))
                outputs.append(back[:, ::-1] if mirror else back)
        plain = np.stack(outputs).astype(np.float64).var(axis=0).mean()
        assert abs(variance - plain) < 1e-6 * plain


def test_a_network_that_treats_all_alike_is_sure():
    images = torch.rand(2, 3, 5, 7)
    assert symmetry_variance(lambda lr: 3 * lr.repeat_interleave(2, -1).repeat_interleave(2, -2), images).max() == 0


def test_losses_of_samples_are_their_own():
    prediction, target = torch.rand(3, 3, 4, 4), torch.rand(3, 3, 4, 4)
    expected = (prediction - target).abs().mean((1, 2, 3))
    torch.testing.assert_close(sample_losses(L1(), prediction, target), expected)


def test_asking_leaves_no_trace():
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout(0.5), nn.BatchNorm2d(3))
    network[2].eval()  # as a frozen part is
    before, generator = {name: value.clone() for name, value in network.state_dict().items()}, torch.get_rng_state()
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    with undisturbed(network, torch.device("cpu")):
        assert torch.equal(network(images), network(images))
        assert not network(images).requires_grad
        torch.rand(3)  # a network that draws while it infers
    assert [part.training for part in network.modules()] == [True, True, True, False]
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.is_grad_enabled()
