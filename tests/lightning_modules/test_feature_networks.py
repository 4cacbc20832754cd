"""Feature networks, against plain formulas on the same weights, and by what they let through and refuse."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from datamodules.bicubic import downscale
from datamodules.selection.features import Descriptor
from lightning_modules.feature_networks import EncoderFeatures, RandomConvNet, SRFeatures
from lightning_modules.networks.build import NetworkSpec, build_network
from lightning_modules.networks.weights import export_weights

CPU = torch.device("cpu")


@pytest.fixture
def patches():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def trained(tmp_path):
    """Writes a network with random weights as a finished run would; returns it and its file."""

    def make(architecture, named=True, **options):
        torch.manual_seed(0)
        spec = {"architecture": architecture, "options": options}
        network = build_network(NetworkSpec(**spec), 4).eval()
        header = {"network": json.dumps(spec), "scale": "4"} if named else None
        path = tmp_path / f"{architecture.rpartition('.')[2]}.safetensors"
        export_weights(network, path, header)
        return network, str(path)

    return make


def gradient_of(network, patches):
    """Of the features of the patches, which come along."""
    leaf = patches.clone().requires_grad_()
    vectors = network(leaf)
    (gradient,) = torch.autograd.grad(vectors.square().sum(), leaf)
    return vectors.detach(), gradient


def plain_convnet(network, patches):
    """As in the authors' code: GroupNorm with a group per channel is their instance normalisation."""
    x = (patches - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    for weight in network.parameters():
        x = F.avg_pool2d(F.relu(F.group_norm(F.conv2d(x, weight, padding=1), len(weight))), 2)
    return x.reshape(len(x), -1)


def test_random_convnet_is_the_published_one(patches):
    network = RandomConvNet(width=8).network(0, 0, CPU)
    vectors, gradient = gradient_of(network, patches)
    assert vectors.shape == (3, 8 * 4 * 4)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors, plain_convnet(network, patches))
    leaf = patches.clone().requires_grad_()
    plain_convnet(network, leaf).square().sum().backward()
    torch.testing.assert_close(gradient, leaf.grad)
    assert not any(weight.requires_grad for weight in network.parameters())


def test_random_weights_are_kaimings():
    """Normal, with variance 2 / fan-in (He et al., ICCV 2015)."""
    for weight in RandomConvNet().network(0, 0, CPU).parameters():
        assert weight.std().item() == pytest.approx((2 / weight[0].numel()) ** 0.5, rel=0.05)
        assert abs(weight.mean().item()) < 0.1 * weight.std().item()


def test_random_convnet_is_a_function_of_seed_and_step(patches):
    features = RandomConvNet(width=4)
    state = torch.get_rng_state()
    first = features.network(7, 1, CPU)(patches)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert torch.equal(RandomConvNet(width=4).network(7, 1, CPU)(patches), first)
    for step, seed in ((8, 1), (7, 2)):
        assert not torch.allclose(features.network(step, seed, CPU)(patches), first)


def test_a_patch_has_the_same_features_in_any_batch(patches):
    network = RandomConvNet(width=4).network(0, 0, CPU)
    torch.testing.assert_close(network(patches)[1:2], network(patches[1:2]))


@pytest.mark.parametrize("settings", [{"width": 0}, {"depth": 0}])
def test_random_convnet_refuses_no_layers(settings):
    with pytest.raises(ValueError, match=r"of RandomConvNet is 0; expected 1 or more"):
        RandomConvNet(**settings)


def test_patches_too_small_to_halve_are_refused(patches):
    with pytest.raises(ValueError, match=r"patches of 32 pixels are too small .* data\.patch_size to 64 or more"):
        RandomConvNet(width=2, depth=6).network(0, 0, CPU)(patches)
    assert RandomConvNet(width=2, depth=5).network(0, 0, CPU)(patches).shape == (3, 2)


def statistics(maps):
    return torch.cat([maps.mean((2, 3)), maps.std((2, 3), correction=0)], dim=1)


@pytest.mark.parametrize("direct_shuffle", [True, False])
def test_sr_features_of_edsr_are_what_its_tail_gets(trained, patches, direct_shuffle):
    network, path = trained("EDSR", n_feats=6, n_resblocks=1, direct_shuffle=direct_shuffle)
    vectors, gradient = gradient_of(SRFeatures(path).network(0, 0, CPU), patches)

    def plain(patches):
        shallow = network.head(network.sub_mean(downscale(patches, 4) * network.rgb_range))
        return statistics(network.body(shallow) + shallow)

    torch.testing.assert_close(vectors, plain(patches).detach(), rtol=1e-4, atol=1e-4)
    leaf = patches.clone().requires_grad_()
    plain(leaf).square().sum().backward()
    torch.testing.assert_close(gradient, leaf.grad, rtol=1e-3, atol=1e-4 * leaf.grad.abs().max().item())


def test_sr_features_of_esrgan_leave_its_last_block(trained, patches):
    network, path = trained("spandrel.architectures.ESRGAN.ESRGAN", num_filters=8, num_blocks=2)
    trunk = network.model[1].sub  # blocks and a convolution, skipped by an addition
    with torch.no_grad():
        expected = statistics(trunk[:-1](network.model[0](downscale(patches, 4))))
        vectors = SRFeatures(path).network(0, 0, CPU)(patches)
    torch.testing.assert_close(vectors, expected, rtol=1e-4, atol=1e-5)


def test_sr_features_of_a_transformer_that_pads(trained, patches):
    """24 channels before the pixel shuffle; windows of 8 divide neither LR of 12 pixels nor the features' maps."""
    options = {"embed_dim": 24, "depths": [2], "num_heads": [2], "window_size": 8, "upsampler": "pixelshuffledirect"}
    _, path = trained("spandrel.architectures.SwinIR.SwinIR", drop_path_rate=0.0, **options)
    vectors, gradient = gradient_of(SRFeatures(path).network(0, 0, CPU), F.interpolate(patches, 48))
    assert vectors.shape == (3, 48)
    assert gradient.flatten(1).abs().sum(1).min() > 0


def test_sr_features_of_a_file_that_only_spandrel_knows(trained, patches):
    """With a gradient, as with the network itself."""
    network, path = trained("spandrel.architectures.ESRGAN.ESRGAN", named=False, num_filters=64, num_blocks=1)
    vectors, gradient = gradient_of(SRFeatures(path).network(0, 0, CPU), patches)
    leaf = patches.clone().requires_grad_()
    expected = statistics(network.model[1].sub[:-1](network.model[0](downscale(leaf, 4))))
    torch.testing.assert_close(vectors, expected.detach(), rtol=1e-4, atol=1e-5)
    expected.square().sum().backward()
    torch.testing.assert_close(gradient, leaf.grad, rtol=1e-3, atol=1e-4 * leaf.grad.abs().max().item())


def test_flat_patches_have_finite_gradients(trained):
    """A channel without contrast is where a standard deviation has no derivative."""
    _, path = trained("EDSR", n_feats=4, n_resblocks=1)
    flat = torch.full((2, 3, 32, 32), 0.5)
    for features in (SRFeatures(path), RandomConvNet(width=4), EncoderFeatures(Descriptor())):
        assert gradient_of(features.network(0, 0, CPU), flat)[1].isfinite().all()


def test_sr_networks_are_read_once(trained, patches):
    _, path = trained("EDSR", n_feats=4, n_resblocks=1)
    features = SRFeatures(path)
    network = features.network(0, 0, CPU)
    assert features.network(5, 1, CPU) is network
    assert torch.equal(network(patches), network(patches))


def test_patches_without_an_lr_are_refused(trained, patches):
    _, path = trained("EDSR", n_feats=4, n_resblocks=1)
    with pytest.raises(ValueError, match=r"patches of 30 pixels have no LR .* upscales by 4; set data\.patch_size"):
        SRFeatures(path).network(0, 0, CPU)(patches[..., :30, :30])


class Enlarge(nn.Module):
    """Has no features at LR size."""

    def __init__(self, scale):
        super().__init__()
        self.last = nn.Conv2d(3, 3, 1)
        self.scale = scale

    def forward(self, x):
        return F.interpolate(self.last(x), scale_factor=self.scale)


def test_a_network_without_features_of_lr_size_is_refused(trained):
    _, path = trained(f"{__name__}.Enlarge")
    with pytest.raises(ValueError, match=r"Enlarge\.safetensors: no layer of its network is given feature maps"):
        SRFeatures(path).network(0, 0, CPU)


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"there is no none\.safetensors"):
        SRFeatures("none.safetensors").network(0, 0, CPU)


def test_descriptors_are_differentiated(patches):
    """Against differences: a descriptor is computed mostly in double precision, but returned in float32."""
    network = EncoderFeatures(Descriptor()).network(0, 0, CPU)
    with torch.no_grad():
        torch.testing.assert_close(network(patches), Descriptor()(patches), rtol=0, atol=0)
    _, gradient = gradient_of(network, patches)
    direction = torch.randn(patches.shape, generator=torch.Generator().manual_seed(1)) * 1e-3
    ends = [network(patches + sign * direction).double().square().sum() for sign in (1, -1)]
    assert (gradient * direction).sum().item() == pytest.approx((ends[0] - ends[1]).item() / 2, rel=0.02)


def test_descriptors_are_differentiated_after_inference():
    """What Lightning validates in; tensors kept from it cannot be used for gradients."""
    network = EncoderFeatures(Descriptor()).network(0, 0, CPU)
    patches = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(0))  # a side that no other test has
    with torch.inference_mode():
        network(patches)
    assert gradient_of(network, patches)[1].abs().sum() > 0


class Counted(Descriptor):
    def __init__(self):
        self.loaded = 0

    def load(self, device):
        self.loaded += 1


def test_encoders_are_loaded_once():
    features = Counted()
    encoder = EncoderFeatures(features)
    for step in range(3):
        encoder.network(step, 0, CPU)
    assert features.loaded == 1


def test_features_that_are_not_finite_are_refused(patches):
    network = RandomConvNet(width=2).network(0, 0, CPU)
    patches[1, 0, 3, 3] = torch.nan
    with pytest.raises(ValueError, match=r"features of 1 of 3 patches are not finite, nor are the patches: latents"):
        network(patches)
    patches[1, 0, 3, 3] = 0
    next(network.parameters()).data.fill_(torch.inf)
    with pytest.raises(ValueError, match=r"features of 3 of 3 patches are not finite, though the patches are; check"):
        network(patches)


def test_autocast_leaves_features_in_full_precision(patches):
    network = RandomConvNet(width=4).network(0, 0, CPU)
    expected = network(patches)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network(patches), expected)
