"""Numbers and ranges: what is accepted, and what is drawn."""

from __future__ import annotations

import math

import pytest
import torch

from datamodules.degradation import JPEG, GaussianBlur, Haze, LowLight, MotionBlur, PoissonNoise, RainStreaks
from datamodules.degradation.span import checked_span, drawn


def test_a_number_is_a_range_of_one():
    assert checked_span(None, "x", 25) == (25, 25)
    assert checked_span(None, "x", [1, 2.5]) == (1, 2.5)
    assert drawn((25, 25), 0, "x", torch.arange(3)).tolist() == [[[[25.0]]]] * 3


def test_draws_are_uniform_over_the_range():
    values = drawn((5, 50), 1, "x", torch.arange(20_000)).flatten().double()
    assert values.min() >= 5
    assert values.max() <= 50
    assert values.mean().item() == pytest.approx(27.5, abs=4 * 45 / math.sqrt(12 * 20_000))
    assert values.std().item() == pytest.approx(45 / math.sqrt(12), rel=0.02)  # of a uniform distribution


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianBlur(-1), "GaussianBlur: sigma is -1; expected a number of 0 or more, or two of them"),
        (lambda: GaussianBlur(math.nan), "GaussianBlur: sigma is nan; expected a number of 0 or more"),
        (lambda: GaussianBlur(math.inf), "GaussianBlur: sigma is inf; expected a number of 0 or more"),
        (lambda: GaussianBlur([1]), "GaussianBlur: sigma is [1]; expected a number of 0 or more, or two of them"),
        (lambda: MotionBlur([3, 0.5]), "MotionBlur: length is [3, 0.5]; expected a number of 1 or more"),
        (lambda: MotionBlur(angle=(90, 0)), "MotionBlur: angle is [90, 0]; expected a number, or two of them"),
        (lambda: PoissonNoise(0), "PoissonNoise: photons is 0; expected a number of 1 or more"),
        (lambda: JPEG([0, 40]), "JPEG: quality is [0, 40]; expected a number from 1 to 100, or two of them"),
        (lambda: JPEG(30.5), "JPEG: quality is 30.5; expected whole numbers from 1 to 100"),
        (lambda: RainStreaks(density=2), "RainStreaks: density is 2; expected a number from 0 to 1"),
        (lambda: Haze(airlight=(0.5, 1.5)), "Haze: airlight is [0.5, 1.5]; expected a number from 0 to 1"),
        (lambda: LowLight(gamma=0.5), "LowLight: gamma is 0.5; expected a number of 1 or more"),
    ],
)
def test_mistakes_name_class_and_argument(make, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        make()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
