"""The proxy of downstream PSNR: what it trains on, that it repeats, and that it tells good sets from bad ones."""

from __future__ import annotations

import random
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from datamodules.bicubic import downscale
from datamodules.distilled import DistilledPatch, write_distilled
from datamodules.evaluation import EvaluationSet
from datamodules.pair import PairBatch
from datamodules.patch_store import Source, open_store
from lightning_modules import SuperResolution
from lightning_modules.gan import proxy
from lightning_modules.gan.proxy import Proxy, measure
from lightning_modules.metrics import SRMetrics
from lightning_modules.networks import NetworkSpec

CPU = torch.device("cpu")
SMALL = NetworkSpec("EDSR", {"n_feats": 4, "n_resblocks": 1})
QUICK = Proxy(SMALL, steps=3, batch_size=4)


def noise(count=4, side=16):
    """Patches beyond [0, 1], as a generator's may be."""
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.5


def photograph(pixels):
    return torch.from_numpy(np.ascontiguousarray(pixels[..., :3])).permute(2, 0, 1)


def cut(image, side):
    return image.unfold(1, side, side).unfold(2, side, side).flatten(1, 2).transpose(0, 1)


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


class OnePhotograph(EvaluationSet):
    """skimage's cup of coffee; sides are multiples of 4."""

    name, names = "photographs", ["coffee"]

    def read(self, index):
        hr = data.coffee()
        return downscale(photograph(hr), 4).permute(1, 2, 0).numpy(), hr


def psnr_after(patches):
    """PSNR-Y of the cup in dB, after a second on patches."""
    lr, hr, index = OnePhotograph()[0]
    batch = PairBatch(lr[None], hr[None], torch.tensor([index])).to_float()
    metrics = SRMetrics()
    measure(Proxy(steps=40, batch_size=8).train(patches, 4, 32, 0, CPU), batch, OnePhotograph(), metrics)
    return metrics.compute()["photographs"]["psnr_y"]


def test_photographs_are_worth_more_than_flat_patches():
    """By 0.28 dB; seeds differ by some thousandths."""
    patches = torch.cat([cut(photograph(data.astronaut()), 64), cut(photograph(data.chelsea()), 64)])
    flat = patches.float().mean((2, 3), keepdim=True).expand_as(patches) / 255
    assert psnr_after(patches) > psnr_after(flat) + 0.2


@pytest.fixture
def plain(monkeypatch):
    """No augmentation, so that a test can do what training does."""
    monkeypatch.setattr(proxy, "AUGMENTATION", "none")


def from_disk(patches, scale, folder):
    """LR and HR of a distilled set as training on it reads them, float."""
    hr = np.clip(np.rint(patches.double().numpy() * 255), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    written = write_distilled(folder / "set", [DistilledPatch(pixels) for pixels in hr], scale, {"method": "test"})
    names = [line["file_name"] for line in written.metadata]
    store = open_store([Source(name, written.folder / name) for name in names], scale, folder / "cache")
    sides = (store.lr, store.hr)
    return [torch.stack([photograph(read(i).copy()) for i in range(len(names))]).float() / 255 for read in sides]


def test_trains_as_on_the_set_on_disk(plain, tmp_path):
    """Against a loop written here, on what a distilled set of these patches is once it is written and read."""
    patches = noise()
    lr, hr = from_disk(patches, 2, tmp_path)
    network = proxy._untrained(SMALL, 2, seed=5)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=3)
    for _ in range(3):
        optimizer.zero_grad()
        (network(lr) - hr).abs().mean().backward()
        optimizer.step()
        schedule.step()
    trained = Proxy(SMALL, steps=3, batch_size=4, learning_rate=0.01).train(patches, 2, 16, 5, CPU)
    for ours, theirs in zip(trained.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-3, atol=1e-5)
    assert not trained.training
    assert not any(parameter.requires_grad for parameter in trained.parameters())


def test_crops_lie_in_register_and_each_patch_comes_once_a_round(plain):
    """A crop of noise is found at one place only."""
    pairs = proxy._pairs(noise(3, 12), 2)
    batches = list(proxy._batches(pairs, crop=8, steps=40, batch_size=3, seed=0))
    places = list(product(range(3), range(3), range(3)))
    crops = [pairs.hr[row, :, 2 * top : 2 * top + 8, 2 * left : 2 * left + 8] / 255 for row, top, left in places]
    found = []
    for lr, hr in ((lr, hr) for batch in batches for lr, hr in zip(batch.lr, batch.hr, strict=True)):
        (place,) = (place for place, crop in zip(places, crops, strict=True) if torch.equal(crop, hr))
        row, top, left = place
        torch.testing.assert_close(lr, pairs.lr[row, :, top : top + 4, left : left + 4] / 255, rtol=0, atol=1e-7)
        found.append(place)
    rounds = [[row for row, *_ in found[start : start + 3]] for start in range(0, 120, 3)]
    assert all(sorted(rows) == [0, 1, 2] for rows in rounds)
    assert any(first != second for first, second in pairwise(rounds))
    assert {(top, left) for _, top, left in found} == set(product(range(3), range(3)))


def test_augments_as_training_on_a_distilled_set_does():
    batches = list(proxy._batches(proxy._pairs(noise(), 2), 16, steps=8, batch_size=4, seed=0))
    whole = proxy._pairs(noise(), 2).hr / 255
    untouched = [any(torch.equal(patch, hr) for patch in whole) for batch in batches for hr in batch.hr]
    assert sum(untouched) < len(untouched) / 4


def test_the_same_seed_gives_the_same_weights_and_leaves_the_generators_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = QUICK.train(noise(), 2, 16, 7, CPU)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002
    torch.manual_seed(1)
    assert same(first, QUICK.train(noise(), 2, 16, 7, CPU))
    assert not same(first, QUICK.train(noise(), 2, 16, 8, CPU))


@pytest.mark.parametrize(
    "context", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)]
)
def test_trains_inside_the_hooks_of_a_validation(context):
    expected = QUICK.train(noise(), 2, 16, 7, CPU)
    with context():
        patches = noise()
        inside = QUICK.train(patches, 2, 16, 7, CPU)
        assert inside(patches).shape == (4, 3, 32, 32)
    assert same(inside, expected)


def test_patches_with_a_gradient_and_pixels_that_lie_there_already():
    patches = noise().requires_grad_()
    trained = QUICK.train(patches, 2, 16, 7, CPU)
    assert patches.grad is None
    pixels = (patches.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    assert same(trained, QUICK.train(pixels, 2, 16, 7, CPU))


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_few_steps_and_patches_smaller_than_the_crop(steps):
    trained = Proxy(SMALL, steps=steps, batch_size=4).train(noise(), 4, 64, 0, CPU)
    untrained = proxy._untrained(SMALL, 4, 0)
    assert not same(trained, untrained)


def test_measures_as_super_resolution_validates(tiny_images, quick_trainer):
    """The figure that a SuperResolution with the same weights logs."""
    network = QUICK.train(noise(), 2, 16, 0, CPU)
    model = SuperResolution(SMALL, scale=2)
    model.configure_model()
    model.network.load_state_dict(network.state_dict())
    (expected,) = quick_trainer().validate(model, tiny_images, verbose=False)
    loader, metrics = tiny_images.val_dataloader(), SRMetrics()
    for batch in loader:
        measure(network, batch, loader.dataset, metrics)
    (means,) = metrics.compute().values()
    assert means["psnr_y"] == pytest.approx(expected["val/psnr_y"], abs=1e-4)


def test_the_network_is_that_of_the_configuration():
    """As configs/sr/network/edsr_tiny.yaml has it."""
    import yaml

    file = Path(__file__).parents[3] / "configs/sr/network/edsr_tiny.yaml"
    written = yaml.safe_load(file.read_text(encoding="utf-8"))["model"]["init_args"]["network"]
    assert Proxy().network == NetworkSpec(**written)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "model.proxy.steps is 0; expected at least 1"),
        ({"batch_size": -1}, "model.proxy.batch_size is -1"),
        ({"learning_rate": 0.0}, "model.proxy.learning_rate is 0.0"),
        ({"learning_rate": float("nan")}, "model.proxy.learning_rate is nan"),
        ({"network": NetworkSpec("EDSRR")}, "model.proxy.network: unknown network 'EDSRR'"),
    ],
)
def test_refuses_values_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        Proxy(**options)


@pytest.mark.parametrize(
    ("shape", "crop", "message"),
    [
        ((4, 3, 16, 20), 16, r"patches \(N, 3, side, side\), not \(4, 3, 16, 20\)"),
        ((0, 3, 16, 16), 16, r"not \(0, 3, 16, 16\)"),
        ((4, 3, 18, 18), 16, "patches have a side of 18 pixels; expected a multiple of scale 4"),
        ((4, 3, 16, 16), 10, "crops have a side of 10 pixels"),
        ((4, 3, 16, 16), 0, "crops have a side of 0 pixels"),
    ],
)
def test_refuses_patches_that_do_not_fit(shape, crop, message):
    with pytest.raises(ValueError, match=message):
        QUICK.train(torch.zeros(shape), 4, crop, 0, CPU)
