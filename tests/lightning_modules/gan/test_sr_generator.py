"""SR networks as generators: weights that spandrel recognises, and runs of SuperResolution."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from datamodules.bicubic import downscale
from lightning_modules.gan.sr_generator import SRGenerator
from main import main
from tests.gsdd_runs import SIDE, photographs, write_sr


@pytest.fixture
def latents() -> Tensor:
    return torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def plain(state: dict[str, Tensor], lr: Tensor, scale: int = 4) -> Tensor:
    """Real-ESRGAN's compact network (SRVGGNetCompact), written out: convolutions on top of nearest neighbours."""
    x = F.prelu(F.conv2d(lr, state["body.0.weight"], state["body.0.bias"], padding=1), state["body.1.weight"])
    x = F.prelu(F.conv2d(x, state["body.2.weight"], state["body.2.bias"], padding=1), state["body.3.weight"])
    x = F.conv2d(x, state["body.4.weight"], state["body.4.bias"], padding=1)
    return F.pixel_shuffle(x, scale) + F.interpolate(lr, scale_factor=scale, mode="nearest")


def test_weights_that_spandrel_recognises(latents: Tensor, tmp_path: Path) -> None:
    """It decodes what the network makes, and gradients reach the latents alone."""
    file = write_sr(tmp_path / "sr.safetensors")
    generator, leaf = SRGenerator(str(file), SIDE).eval(), latents.clone().requires_grad_()
    assert (generator.scale, generator.side, generator.latent_shape) == (4, SIDE, (3, 4, 4))
    patches, unclipped = generator.decode(leaf), plain(load_file(file), leaf)
    torch.testing.assert_close(patches, unclipped.clamp(0, 1), rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(patches.square().sum(), leaf)
    (of_plain,) = torch.autograd.grad((2 * patches.detach() * unclipped).sum(), leaf)  # as if nothing were clipped
    torch.testing.assert_close(gradient, of_plain, rtol=1e-4, atol=1e-5)
    assert gradient.abs().min() > 0
    assert not any(weight.requires_grad for weight in generator.parameters())


def test_esrgan_as_the_paper_has_it(latents: Tensor, tmp_path: Path) -> None:
    """Of one block, under the wrapping that published files have."""
    from spandrel.architectures.ESRGAN import ESRGAN

    torch.manual_seed(0)
    network = ESRGAN(num_filters=8, num_blocks=1, scale=4).eval()
    torch.save({"params_ema": network.state_dict()}, tmp_path / "esrgan.pth")
    generator, leaf = SRGenerator(str(tmp_path / "esrgan.pth"), SIDE).eval(), latents.clone().requires_grad_()
    patches = generator.decode(leaf)
    torch.testing.assert_close(patches, network(latents).clamp(0, 1), rtol=1e-5, atol=1e-6)
    weight = torch.rand(patches.shape, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((patches * weight).sum(), leaf)
    assert gradient.abs().max() > 0


@pytest.fixture(scope="module")
def finished(tiny_in, tmp_path_factory) -> Path:
    """Folder of a run of SuperResolution at scale 4."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRDISTILL_CACHE", str(root / "cache"))
        return main(["fit", *tiny_in(root), "--data.init_args.scale", "4"]).run_dir


@pytest.mark.parametrize("file", ["", "weights.safetensors", "checkpoints/last.ckpt"])
def test_a_finished_run(file: str, finished: Path, latents: Tensor) -> None:
    """Of its folder, exported weights or checkpoint, which all hold the same network after so short a run."""
    from lightning_modules.networks import NetworkSpec, build_network

    network: nn.Module = build_network(NetworkSpec("EDSR", {"n_feats": 4, "n_resblocks": 1}), 4)
    network.load_state_dict(load_file(finished / "weights.safetensors"))
    generator = SRGenerator(str(finished / file), SIDE)
    assert generator.scale == 4
    if file:
        torch.testing.assert_close(generator.decode(latents), network(latents).clamp(0, 1), rtol=1e-5, atol=1e-6)
    leaf = latents.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(generator.decode(leaf).sum(), leaf)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("recognised", [False, True], ids=["run", "spandrel"])
def test_what_is_clipped_keeps_its_gradient(recognised: bool, finished: Path, tmp_path: Path) -> None:
    """Latents that decode to white and beyond can come back."""
    source = write_sr(tmp_path / "sr.safetensors") if recognised else finished
    generator = SRGenerator(str(source), SIDE)
    leaf = torch.full((1, 3, 4, 4), 3.0).requires_grad_()
    patches = generator.decode(leaf)
    assert patches.max() <= 1
    assert torch.autograd.grad(patches.sum(), leaf)[0].abs().min() > 0


def test_bfloat16_is_near_float32(latents: Tensor, tmp_path: Path) -> None:
    """Latents and patches stay float32; bf16 has 8 bits, of which rounding in each layer loses a few."""
    file = str(write_sr(tmp_path / "sr.safetensors"))
    exact, rounded = SRGenerator(file, SIDE), SRGenerator(file, SIDE, torch.bfloat16)
    assert {weight.dtype for weight in rounded.parameters()} == {torch.bfloat16}
    with torch.autocast("cpu", dtype=torch.bfloat16):  # the weights decide, not the trainer
        assert torch.equal(exact.decode(latents), exact.decode(latents.clone()))
        patches, expected = rounded.decode(latents), exact.decode(latents)
    torch.testing.assert_close(expected, plain(load_file(file), latents).clamp(0, 1), rtol=1e-5, atol=1e-6)
    assert patches.dtype == torch.float32
    assert 0 < (patches - expected).abs().max() < 0.02
    assert rounded.fingerprint == exact.fingerprint


def test_first_guess_is_the_exact_bicubic(tmp_path: Path) -> None:
    """The framework's own, which is that of the literature; a network that is close to identity decodes near it."""
    generator, hr = SRGenerator(str(write_sr(tmp_path / "sr.safetensors")), SIDE), photographs(4)
    assert torch.equal(generator.approximate(hr), downscale(hr, 4))


def test_random_latents(tmp_path: Path) -> None:
    """Grey on average, and mostly in the range of pixels."""
    generator = SRGenerator(str(write_sr(tmp_path / "sr.safetensors")), SIDE)
    noise = torch.randn(200, *generator.noise_shape, generator=torch.Generator().manual_seed(0))
    drawn = generator.sample(noise)
    assert drawn.shape == (200, 3, 4, 4)
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.01)
    assert ((drawn > 0) & (drawn < 1)).float().mean() > 0.9


def test_fingerprint_is_of_weights_and_side(tmp_path: Path) -> None:
    """Of the content, wherever it lies."""
    for name, seed in (("one", 0), ("copy", 0), ("other", 1)):
        write_sr(tmp_path / f"{name}.safetensors", seed=seed)
    one, copy, other = (
        SRGenerator(str(tmp_path / f"{name}.safetensors"), SIDE).fingerprint for name in ("one", "copy", "other")
    )
    larger = SRGenerator(str(tmp_path / "one.safetensors"), 2 * SIDE).fingerprint
    assert one == copy
    assert len({one, other, larger}) == 3


@pytest.mark.parametrize(
    ("scale", "side", "expected"),
    [
        (4, 18, "upscales by 4, which does not fit patches of 18 pixels; set data.patch_size 16"),
        (4, 2, "upscales by 4, which does not fit patches of 2 pixels; set data.patch_size 4"),
        (1, 16, "upscales by 1, which does not fit patches of 16 pixels; give a network that upscales"),
    ],
)
def test_scale_that_does_not_fit(scale: int, side: int, expected: str, tmp_path: Path) -> None:
    file = write_sr(tmp_path / "sr.safetensors", scale)
    with pytest.raises(ValueError, match=expected) as error:
        SRGenerator(str(file), side)
    assert str(file) in str(error.value)


@pytest.mark.parametrize("content", ["tensors", "bytes", "empty"])
def test_file_that_spandrel_does_not_know(content: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    if content == "tensors":
        save_file({"layer.weight": torch.zeros(3, 3)}, file)
    else:
        file.write_bytes(b"not a network" if content == "bytes" else b"")
    with pytest.raises(ValueError, match=r"spandrel does not know them|cannot be read as a file of tensors") as error:
        SRGenerator(str(file), SIDE)
    assert "\n" not in str(error.value)
    assert str(file) in str(error.value)
