"""The kernel distance of samples, against the estimator written out pair by pair."""

from __future__ import annotations

import itertools

import pytest
import torch

from datamodules.selection.interfaces import Features
from lightning_modules.gan.sample_quality import HeldOutFeatures


class MeanColour(Features):
    """Three numbers that can be told by hand."""

    def load(self, device: torch.device) -> None:
        pass

    def __call__(self, hr: torch.Tensor) -> torch.Tensor:
        return hr.mean((2, 3))


def test_distance_is_that_of_the_formula() -> None:
    """Equation 3 of Gretton et al. (JMLR 2012), with KID's kernel, of numbers standardised by the training patches."""
    torch.manual_seed(0)
    real, samples, training = torch.rand(5, 3, 4, 4), torch.rand(4, 3, 4, 4) * 0.5, torch.rand(6, 3, 4, 4)
    held_out = HeldOutFeatures(MeanColour(), training)
    held_out.add(1, real[:2])
    held_out.add(0, real[2:])
    colours = training.mean((2, 3)).double()
    x, y = ((p.mean((2, 3)).double() - colours.mean(0)) / colours.std(0, correction=0) for p in (samples, real))

    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        return (float(a @ b) / 3 + 1) ** 3

    within = [sum(kernel(a, b) for a, b in itertools.permutations(s, 2)) / len(s) / (len(s) - 1) for s in (x, y)]
    between = sum(kernel(a, b) for a in x for b in y) / len(x) / len(y)
    assert held_out.distance(samples) == pytest.approx(sum(within) - 2 * between, rel=1e-4)


def test_nothing_to_compare_with() -> None:
    """Photographs smaller than a patch, and a single patch."""
    held_out = HeldOutFeatures(MeanColour(), torch.rand(6, 3, 4, 4))
    held_out.add(0, torch.empty(0, 3, 4, 4))
    assert held_out.distance(torch.rand(4, 3, 4, 4)) is None
    held_out.add(1, torch.rand(1, 3, 4, 4))
    assert held_out.distance(torch.rand(4, 3, 4, 4)) is None
