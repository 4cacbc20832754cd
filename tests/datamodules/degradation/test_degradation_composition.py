"""Chains and choices: order, seeds, factors, and what a configuration may say."""

from __future__ import annotations

import pytest
import torch
from jsonargparse import ArgumentParser

from datamodules.bicubic import imresize
from datamodules.degradation import (
    JPEG,
    Bicubic,
    Chain,
    Degradation,
    GaussianBlur,
    GaussianNoise,
    Haze,
    LowLight,
    OneOf,
    seeds_of,
)


@pytest.fixture
def clean() -> torch.Tensor:
    return torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_bicubic_is_matlabs_and_clipped():
    edge = (torch.arange(32) >= 14).float().expand(1, 3, 32, 32)
    exact = imresize(edge, 0.25)
    assert exact.min() < 0  # the cubic kernel overshoots
    assert torch.equal(Bicubic(4)(edge, torch.arange(1), 0), exact.clamp(0, 1))
    assert torch.equal(Bicubic(1)(edge, torch.arange(1), 0), edge)


def test_a_chain_applies_its_links_in_order(clean):
    links = [GaussianBlur(2.0), Bicubic(2), GaussianNoise(10), JPEG(50)]
    index = torch.arange(64)
    expected = clean
    for link, seed in zip(links, seeds_of(links, 9), strict=True):
        expected = link(expected, index, seed)
    assert torch.equal(Chain(links)(clean, index, 9), expected)
    reverse = Chain(links[::-1])
    assert reverse.factor == 2
    assert not torch.equal(reverse(clean, index, 9), expected)


def test_two_alike_links_decide_differently():
    grey, index = torch.full((1, 3, 128, 128), 0.5), torch.arange(1)
    once = GaussianNoise(10)(grey, index, 0) - 0.5
    twice = Chain([GaussianNoise(10), GaussianNoise(10)])(grey, index, 0) - 0.5
    assert twice.std() / once.std() == pytest.approx(2**0.5, rel=0.02)  # variances of independent noises add up


def test_an_empty_chain_leaves_images_clean(clean):
    assert Chain([]).factor == 1
    assert torch.equal(Chain([])(clean, torch.arange(64), 0), clean)


def test_each_sample_gets_its_choice(clean):
    choices = [GaussianNoise(25), Chain([Haze(), JPEG(20)]), Chain([]), LowLight()]
    one, index = OneOf(choices), torch.arange(64) + 500
    degraded, choice = one(clean, index, 3), one.choice(index, 3)
    for row in range(64):
        number = int(choice[row])
        alone = choices[number](clean[row : row + 1], index[row : row + 1], seeds_of(choices, 3)[number])
        assert torch.equal(degraded[row : row + 1], alone)
    assert set(choice.tolist()) == {0, 1, 2, 3}


def test_choices_are_equally_likely():
    one = OneOf([GaussianNoise(), Haze(), LowLight()])
    counts = one.choice(torch.arange(30_000), 4).bincount(minlength=3)
    assert ((counts - 10_000).abs() < 4 * (30_000 * 2 / 9) ** 0.5).all()  # four binomial standard deviations


def test_the_choice_is_known_inside_a_chain(clean):
    one, index = OneOf([Chain([]), LowLight(gain=0.0, sigma=0.0)]), torch.arange(64)
    chain = Chain([Bicubic(2), one])
    dark = chain(clean, index, 8).flatten(1).amax(1) == 0
    assert torch.equal(dark, one.choice(index, seeds_of(chain.degradations, 8)[1]) == 1)


def test_choices_may_shrink_alike(clean):
    one = OneOf([Bicubic(2), Chain([GaussianBlur(1.0), Bicubic(2)])])
    assert one.factor == 2
    assert one(clean, torch.arange(64), 0).shape == (64, 3, 4, 4)


def test_mistakes_are_one_sentence():
    with pytest.raises(ValueError, match=r"^OneOf: choices is empty; expected one degradation or more"):
        OneOf([])
    with pytest.raises(ValueError, match=r"^OneOf: choices shrink by different factors \(Bicubic 2, Haze 1\)"):
        OneOf([Bicubic(2), Haze()])
    for scale in (0, 1.5):
        with pytest.raises(ValueError, match=rf"^Bicubic: scale is {scale}; expected a whole number of 1 or more$"):
            Bicubic(scale)  # type: ignore[arg-type]


def parsed(text: str) -> list[Degradation]:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--degradation", type=list[Degradation])
    return parser.instantiate(parser.parse_args(["--degradation", text])).degradation


def test_yaml_takes_numbers_pairs_and_nested_lists():
    noise, jpeg, one = parsed(
        "[{class_path: GaussianNoise, init_args: {sigma: [5, 50]}}, {class_path: JPEG, init_args: {quality: 30}}, "
        "{class_path: OneOf, init_args: {choices: [Haze, {class_path: Chain, init_args: {degradations: [LowLight]}}]}}]"
    )
    assert isinstance(noise, GaussianNoise)
    assert noise.sigma == (5, 50)
    assert isinstance(jpeg, JPEG)
    assert jpeg.quality == (30, 30)
    assert isinstance(one, OneOf)
    assert [type(choice) for choice in one.choices] == [Haze, Chain]


def test_yaml_with_a_wrong_pair_says_so():
    with pytest.raises(ValueError, match=r"GaussianNoise: sigma is \[50.0, 5.0\]; expected a number of 0 or more"):
        parsed("[{class_path: GaussianNoise, init_args: {sigma: [50, 5]}}]")
