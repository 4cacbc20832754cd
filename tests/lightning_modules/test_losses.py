"""Pixel losses against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_modules.losses.pixel import L1, MSE, Charbonnier, FFTLoss, PixelLoss

PREDICTION = torch.rand(2, 3, 9, 12, generator=torch.Generator().manual_seed(0))
TARGET = torch.rand(2, 3, 9, 12, generator=torch.Generator().manual_seed(1))
DIFFERENCE = PREDICTION.double().numpy() - TARGET.double().numpy()
SPECTRUM = np.fft.fft2(DIFFERENCE)[..., : 12 // 2 + 1]


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (L1(), np.abs(DIFFERENCE).mean()),
        (MSE(), (DIFFERENCE**2).mean()),
        (Charbonnier(), np.sqrt(DIFFERENCE**2 + 1e-6).mean()),
        (Charbonnier(eps=0.5), np.sqrt(DIFFERENCE**2 + 0.25).mean()),
        (
            FFTLoss(weight=0.2),
            np.abs(DIFFERENCE).mean() + 0.2 * np.stack([np.abs(SPECTRUM.real), np.abs(SPECTRUM.imag)]).mean(),
        ),
        (FFTLoss(weight=0.0), np.abs(DIFFERENCE).mean()),
    ],
)
def test_value_is_the_formulas(loss, expected):
    found = loss(PREDICTION, TARGET)
    assert found.shape == ()
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_frequency_term_of_a_constant_difference_is_its_sum():
    """Only the zero frequency holds anything: d * H * W, once among 2 * H * (W / 2 + 1) numbers."""
    prediction = torch.full((1, 1, 4, 6), 0.5)
    found = FFTLoss(weight=1.0)(prediction, torch.zeros_like(prediction))
    assert found.item() == pytest.approx(0.5 + 0.5 * 4 * 6 / (2 * 4 * 4))


@pytest.mark.parametrize("loss", [L1(), MSE(), Charbonnier(), FFTLoss()])
def test_gradient_is_finite_even_at_the_target(loss):
    prediction = TARGET.clone().requires_grad_()
    value = loss(prediction, TARGET)
    value.backward()
    assert prediction.grad.isfinite().all()
    assert value.item() <= 1e-3 + 1e-7


def test_frequency_loss_takes_bfloat16():
    found = FFTLoss()(PREDICTION.bfloat16(), TARGET.bfloat16())
    assert found.item() == pytest.approx(FFTLoss()(PREDICTION, TARGET).item(), rel=0.02)


@pytest.mark.parametrize(
    ("loss", "options", "message"), [(Charbonnier, {"eps": 0.0}, "eps"), (FFTLoss, {"weight": -1.0}, "weight")]
)
def test_bad_options_are_named(loss, options, message):
    with pytest.raises(ValueError, match=message):
        loss(**options)


def test_losses_are_chosen_by_their_short_name():
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--loss", type=PixelLoss)
    chosen = parser.instantiate(parser.parse_args(["--loss=Charbonnier", "--loss.eps=0.01"])).loss
    assert isinstance(chosen, Charbonnier)
    assert chosen.eps == 0.01
