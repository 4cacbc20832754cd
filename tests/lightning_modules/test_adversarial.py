"""Adversarial losses against torch's cross-entropy, penalties against closed forms and numerical derivatives."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.losses import discriminator_loss, generator_loss, path_length_penalty, r1_penalty


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_losses_are_the_cross_entropies():
    real, fake = 5 * drawn(0, 6, 1).float(), 5 * drawn(1, 4, 1).float()
    ones, zeros = torch.ones_like, torch.zeros_like
    cross_entropy = F.binary_cross_entropy_with_logits
    expected = cross_entropy(real, ones(real)) + cross_entropy(fake, zeros(fake))
    torch.testing.assert_close(discriminator_loss(real, fake), expected)
    torch.testing.assert_close(generator_loss(fake), cross_entropy(fake, ones(fake)))


def test_generator_learns_most_where_the_discriminator_is_sure():
    """Its gradient is -sigmoid(-logit) / B: near -1 / B, not 0, for what is certainly generated."""
    fake = torch.tensor([-20.0, 0.0, 20.0], requires_grad=True)
    generator_loss(fake).backward()
    assert fake.grad.tolist() == pytest.approx([-1 / 3, -1 / 6, 0], abs=1e-8)


def test_losses_of_half_precision_logits_are_computed_in_full():
    logits = torch.full((1000, 1), 0.1, dtype=torch.bfloat16)
    assert generator_loss(logits).item() == pytest.approx(math.log1p(math.exp(-float(logits[0]))), rel=1e-6)
    assert discriminator_loss(logits, logits).dtype == torch.float32


def test_r1_of_a_linear_discriminator_is_half_its_squared_weights():
    """logit = a . x + b has the gradient a at every image."""
    weight, images = drawn(2, 3 * 4 * 4), drawn(3, 5, 3, 4, 4).requires_grad_()
    logits = images.flatten(1) @ weight[:, None] + 7
    assert r1_penalty(images, logits).item() == pytest.approx(weight.square().sum().item() / 2, rel=1e-12)


def test_r1_trains_the_discriminator():
    """logit = k |x|^2 / 2 has the gradient k x: the penalty is k^2 mean |x|^2 / 2, its slope k mean |x|^2."""
    k, images = torch.tensor(3.0, dtype=torch.float64, requires_grad=True), drawn(4, 5, 3, 4, 4).requires_grad_()
    squared = images.detach().flatten(1).square().sum(1).mean().item()
    penalty = r1_penalty(images, k / 2 * images.flatten(1).square().sum(1))
    penalty.backward()
    assert penalty.item() == pytest.approx(9 / 2 * squared, rel=1e-12)
    assert k.grad.item() == pytest.approx(3 * squared, rel=1e-12)


def test_r1_has_the_numerical_gradient():
    images = drawn(5, 2, 3, 3, 3).requires_grad_()

    def penalty(weight: Tensor) -> Tensor:
        hidden = F.softplus(F.conv2d(images, weight, padding=1))
        return r1_penalty(images, hidden.square().mean(dim=(1, 2, 3)))

    assert torch.autograd.gradcheck(penalty, drawn(6, 2, 3, 3, 3).requires_grad_())


def linear(w: Tensor, matrix: Tensor) -> Tensor:
    """Images (B, 3, 4, 2) that are linear in w, (B, layers, width)."""
    return (w.flatten(1) @ matrix).view(-1, 3, 4, 2)


def test_path_length_of_a_linear_generator_is_known():
    """J^T y = matrix y: one length per image, the root of the mean over layers of its squares; a moves by 1 %."""
    w, matrix, noise = drawn(7, 5, 2, 6).requires_grad_(), drawn(8, 12, 24), drawn(9, 5, 3, 4, 2)
    products = noise.flatten(1) @ matrix.T / math.sqrt(4 * 2)
    lengths = products.view(5, 2, 6).square().sum(2).mean(1).sqrt()
    a = 0.99 * 2.5 + 0.01 * lengths.mean()
    start = torch.tensor(2.5, dtype=torch.float64)
    penalty, mean = path_length_penalty(linear(w, matrix), w, noise, start)
    assert mean.item() == pytest.approx(a.item(), rel=1e-12)
    assert penalty.item() == pytest.approx((lengths - a).square().mean().item(), rel=1e-12)
    assert not mean.requires_grad
    assert start.item() == 2.5


def test_path_length_trains_the_generator_towards_the_running_mean():
    """For images m w the length is m |y| / sqrt(HW): slope 2 (length - a) |y| / sqrt(HW), with a as a constant."""
    m = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    w, noise = drawn(10, 1, 1, 24).requires_grad_(), drawn(11, 1, 3, 4, 2)
    penalty, mean = path_length_penalty(
        m * w.view(1, 3, 4, 2), w, noise, running_mean=torch.tensor(1.0, dtype=torch.float64)
    )
    penalty.backward()
    unit = noise.square().sum().sqrt().item() / math.sqrt(8)
    assert m.grad.item() == pytest.approx(2 * (2 * unit - mean.item()) * unit, rel=1e-12)


def test_path_length_has_the_numerical_gradient():
    """A running mean that undoes the batch's share keeps a at 3: a is a constant, which differences would not see."""
    w, noise, zero = drawn(12, 3, 2, 2).requires_grad_(), drawn(13, 3, 3, 4, 2), torch.zeros((), dtype=torch.float64)

    def penalty(matrix: Tensor) -> Tensor:
        images = linear(w, matrix).tanh()
        share = path_length_penalty(images, w, noise, zero)[1]
        return path_length_penalty(images, w, noise, (3 - share) / 0.99)[0]

    assert torch.autograd.gradcheck(penalty, drawn(14, 4, 24).requires_grad_())


def test_path_length_of_images_that_do_not_move_has_a_gradient():
    """The derivative of a length is undefined at 0; it must not become not-a-number."""
    m = torch.zeros((), requires_grad=True)
    w = drawn(15, 1, 1, 24).float().requires_grad_()
    path_length_penalty(m * w.view(1, 3, 4, 2), w, torch.ones(1, 3, 4, 2), torch.ones(()))[0].backward()
    assert m.grad.item() == 0


def test_missing_gradients_are_named():
    images, w = torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4)
    with pytest.raises(ValueError, match=r"real_images needs no gradient; call real_images\.requires_grad_\(\)"):
        r1_penalty(images, images.sum((1, 2, 3)))
    with pytest.raises(ValueError, match=r"w needs no gradient; call w\.requires_grad_\(\)"):
        path_length_penalty(images, w, images, torch.zeros(()))
