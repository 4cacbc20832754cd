"""The high-frequency term against torch's own antialiased resize, and against the published formulation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.losses import HighFrequency

MARGIN = 8  # LR pixels of repeated border: torch's resize renormalises its weights at the edge, MATLAB's repeats pixels


def resized(x: Tensor, scale: float, margin: int) -> Tensor:
    """MATLAB's bicubic by way of torch: the antialiased kernel is the same, only the border is not."""
    padded = F.pad(x, [margin] * 4, mode="replicate")
    whole = F.interpolate(padded, scale_factor=scale, mode="bicubic", antialias=True)
    border = round(margin * scale)
    return whole[..., border:-border, border:-border]


def lost(x: Tensor, scale: int) -> Tensor:
    """h(x) of each sample, differentiable."""
    lr = resized(x, 1 / scale, MARGIN * scale)
    return (x - resized(lr, scale, MARGIN)).square().mean(dim=(1, 2, 3))


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("scale", "shape"), [(4, (2, 3, 24, 32)), (2, (1, 4, 8, 8)), (3, (2, 1, 12, 9))])
def test_value_and_gradient_are_the_formulas(scale, shape):
    x = drawn(0, *shape).requires_grad_()
    y = x.detach().double().requires_grad_()
    found, expected = HighFrequency(scale, clip=False)(x, torch.zeros(shape)), -lost(y, scale)
    assert found.shape == shape[:1]
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
    found.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(x.grad.double(), y.grad, rtol=0, atol=1e-5 * y.grad.abs().max())


def test_clip_stops_at_the_detail_of_the_real_patch():
    """Of three samples the first has less detail than its real patch, the second more, the third none."""
    noise = drawn(1, 1, 3, 16, 16)
    predicted = torch.cat((0.5 * noise, noise, torch.full_like(noise, 0.5))).requires_grad_()
    real = torch.cat((noise, 0.5 * noise, noise))
    found = HighFrequency()(predicted, real)
    half = lost(0.5 * noise.double(), 4).item()
    assert found.tolist() == pytest.approx([-half, -half, 0], rel=1e-5, abs=1e-9)
    found.sum().backward()
    below, above, _ = predicted.grad
    assert below.abs().max() > 1e-4
    assert above.tolist() == torch.zeros(3, 16, 16).tolist()


def test_gradient_descent_ends_at_the_detail_of_the_real_patch():
    real = drawn(2, 1, 1, 8, 8)
    predicted = (0.5 * drawn(3, 1, 1, 8, 8)).requires_grad_()
    optimiser = torch.optim.SGD([predicted], lr=1.0)  # 3 % longer a step
    for _ in range(40):
        optimiser.zero_grad()
        HighFrequency()(predicted, real).sum().backward()
        optimiser.step()
    assert lost(predicted.detach(), 4).item() == pytest.approx(lost(real, 4).item(), rel=0.07)


def test_no_gradient_flows_to_the_real_patch():
    predicted, real = drawn(4, 1, 3, 8, 8).requires_grad_(), drawn(5, 1, 3, 8, 8).requires_grad_()
    HighFrequency()(predicted, 2 * real).sum().backward()
    assert real.grad is None


def test_float32_under_autocast_and_from_bfloat16():
    predicted, real = drawn(6, 2, 3, 16, 16).bfloat16(), drawn(7, 2, 3, 16, 16).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = HighFrequency()(predicted, real)
    assert found.dtype == torch.float32
    assert torch.equal(found, HighFrequency()(predicted.float(), real.float()))


@pytest.mark.parametrize(
    ("predicted", "real", "message"),
    [
        ((1, 3, 8, 10), (1, 3, 8, 10), "8 x 10; .* scale 4"),
        ((1, 3, 6, 8), (1, 3, 6, 8), "6 x 8"),
        ((1, 3, 8, 8), (1, 4, 8, 8), r"\(1, 4, 8, 8\)"),
        ((3, 8, 8), (3, 8, 8), r"\(3, 8, 8\)"),
    ],
)
def test_bad_shapes_are_named(predicted, real, message):
    with pytest.raises(ValueError, match=message) as error:
        HighFrequency()(torch.zeros(predicted), torch.zeros(real))
    assert "\n" not in str(error.value)


def test_a_scale_that_loses_nothing_is_refused():
    with pytest.raises(ValueError, match="scale is 1"):
        HighFrequency(scale=1)


# --- the published formulation --------------------------------------------------------------------------------------


def published_l_sr(encoder: nn.Module, pixels: Tensor) -> Tensor:
    """The term as published code of arXiv 2509.14777 computes it: on the encoded real patch, enlarged first."""
    with torch.no_grad():
        latents = encoder(pixels)
        enlarged = F.interpolate(latents, scale_factor=4, mode="bicubic")
        return -(latents - F.interpolate(enlarged, scale_factor=0.25, mode="bicubic")).square().mean()


class Diffusion(nn.Module):
    """A tiny DiT with LoRA between the halves of a tiny autoencoder, as training uses them."""

    def __init__(self) -> None:
        import peft
        from diffusers import AutoencoderTiny, DiTTransformer2DModel

        super().__init__()
        torch.manual_seed(0)
        size = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "num_embeds_ada_norm": 4}
        data = {"in_channels": 4, "out_channels": 4, "sample_size": 8, "patch_size": 2}
        dit = DiTTransformer2DModel(**size, **data, norm_elementwise_affine=False, attention_bias=True).eval()
        targets = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]
        # Both halves of LoRA are random: the usual zeros of one would make the other's gradient zero.
        lora = peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
        self.dit = peft.inject_adapter_in_model(lora, dit)
        blocks = {"encoder_block_out_channels": (8, 8, 8), "decoder_block_out_channels": (8, 8, 8)}
        counts = {"num_encoder_blocks": (1, 1, 1), "num_decoder_blocks": (1, 1, 1)}
        self.autoencoder = AutoencoderTiny(**blocks, **counts).requires_grad_(False)

    def losses(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """L_simple of predicting the noise, and the clean latents predicted by the way."""
        latents = self.autoencoder.encode(pixels).latents.detach()
        noise, signal = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1)), 0.9
        noisy = signal**0.5 * latents + (1 - signal) ** 0.5 * noise
        labels = torch.arange(len(pixels))
        predicted = self.dit(noisy, timestep=torch.full_like(labels, 100), class_labels=labels).sample
        clean = (noisy - (1 - signal) ** 0.5 * predicted) / signal**0.5
        return F.mse_loss(predicted, noise), clean

    def lora_gradients(self, loss: Tensor) -> dict[str, Tensor]:
        weights = {name: weight for name, weight in self.named_parameters() if "lora_" in name}
        gradients = torch.autograd.grad(loss, list(weights.values()))
        return dict(zip(weights, gradients, strict=True))


@pytest.fixture(scope="module")
def diffusion():
    return Diffusion()


@pytest.fixture(scope="module")
def pixels():
    """White noise: more detail than any decoded prediction has, so that the clip stays out of it."""
    return drawn(8, 2, 3, 32, 32)


def test_published_term_trains_nothing(diffusion, pixels):
    """It has no graph, so that a thousandfold weight changes no gradient."""
    simple, _ = diffusion.losses(pixels)
    term = published_l_sr(lambda x: diffusion.autoencoder.encode(x).latents, pixels)
    assert term < 0
    assert not term.requires_grad
    assert term.grad_fn is None
    simple_again, _ = diffusion.losses(pixels)
    alone, with_term = diffusion.lora_gradients(simple), diffusion.lora_gradients(simple_again + 1000 * term)
    assert len(alone) == 12
    assert all(torch.equal(alone[name], with_term[name]) for name in alone)


def test_published_order_of_resizing_loses_next_to_nothing(pixels):
    """White noise loses nine tenths of its variance at scale 4, but hardly any when it is enlarged first."""
    published = published_l_sr(nn.Identity(), pixels)
    ours = HighFrequency(clip=False)(pixels, pixels).mean()
    assert ours.item() == pytest.approx(-pixels.var().item(), rel=0.1)
    assert abs(published) < 1e-3 * abs(ours)


def test_gradient_of_pixels_reaches_every_lora_weight(diffusion, pixels):
    _, clean = diffusion.losses(pixels)
    term = HighFrequency()(diffusion.autoencoder.decode(clean).sample, pixels)
    gradients = diffusion.lora_gradients(term.mean())
    assert len(gradients) == 12
    assert all(gradient.abs().max() > 0 for gradient in gradients.values())


def test_gradient_of_latents_reaches_every_lora_weight(diffusion, pixels):
    _, clean = diffusion.losses(pixels)
    gradients = diffusion.lora_gradients(HighFrequency()(clean, 2 * clean).mean())
    assert all(gradient.abs().max() > 0 for gradient in gradients.values())
