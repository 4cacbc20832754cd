"""What DistributionAlignment computes: the full set's features, gradients in chunks, edited patches and their LR."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from callbacks.sample_grid import grid
from datamodules import SelectedPatches, SyntheticPatches
from datamodules.bicubic import downscale
from datamodules.distilled import DistilledPatch, write_distilled
from datamodules.selection import Budget, Descriptor, Entropy, Highest
from datamodules.selection.interfaces import Features
from lightning_modules import DistributionAlignment
from lightning_modules import full_set as full_set_module
from lightning_modules.feature_networks import RandomConvNet, SRFeatures
from lightning_modules.full_set import FullFeatures, Yardstick, full_features, moments
from lightning_modules.losses import MMD, Frechet, SlicedWasserstein
from lightning_modules.losses.distribution_distance import DistributionDistance, FullSet, Measure
from lightning_modules.network_features import NetworkFeatures
from lightning_modules.networks.editor import EditorSpec
from tests.gsdd_runs import write_sr

CPU = torch.device("cpu")
SIDE, KEPT, CANDIDATES = 32, 5, 27


@pytest.fixture
def data(tiny_photographs: Path) -> SelectedPatches:
    """The five most complex ones of nine patches of each of three pictures."""
    data = SelectedPatches(
        Budget(patches=KEPT),
        criterion=Entropy(),
        selector=Highest(),
        root=str(tiny_photographs),
        scale=4,
        patch_size=SIDE,
        seed=0,
    )
    data.prepare_data()
    data.setup("fit")
    return data


def ready(data: SelectedPatches, edited: bool = True, **options: object) -> DistributionAlignment:
    """Set up as the Trainer does it; with an editor that does something, unless told otherwise."""
    module = DistributionAlignment(editor=EditorSpec(channels=4, depth=2), **options)
    strategy = SimpleNamespace(root_device=CPU, reduce=lambda tensor, reduce_op: tensor)
    module._trainer = SimpleNamespace(
        datamodule=data,
        strategy=strategy,
        precision="32-true",
        accumulate_grad_batches=1,
        world_size=1,
        global_rank=0,
        global_step=0,
    )
    module.log = lambda *args, **kwargs: None
    module.setup("fit")
    torch.manual_seed(0)
    module.configure_model()
    if edited:
        torch.nn.init.normal_(module.editor.body[-1].weight, std=0.3)
        torch.nn.init.constant_(module.editor.body[-1].bias, 0.5)
    return module


def kept(data: SelectedPatches) -> Tensor:
    return data.training_patches().whole(range(KEPT)).to_float().hr


# --- the full set ---


@pytest.mark.parametrize("block", [1, 50, 10_000])
def test_moments_are_those_of_numpy(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of one row, of some, and of all; far from zero, where sums of squares would cancel."""
    monkeypatch.setattr(full_set_module, "BLOCK", block)
    rows = (np.random.default_rng(0).normal(size=(31, 6)) @ np.diag(range(1, 7)) + 1000).astype(np.float32)
    mean, covariance = moments(rows)
    np.testing.assert_allclose(mean, rows.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(rows.astype(np.float64), rowvar=False), rtol=1e-9, atol=1e-9)


def test_full_set_is_every_patch_of_the_training_photographs(data: SelectedPatches, tiny_photographs: Path) -> None:
    names = [name for _, name in data.training_images]
    pictures = [np.asarray(Image.open(tiny_photographs / name)) for name in names]
    squares = [
        picture[top : top + SIDE, left : left + SIDE]
        for picture in pictures
        for top in range(0, 96, SIDE)
        for left in range(0, 96, SIDE)
    ]
    expected = Descriptor()(torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float() / 255)
    full = full_features(data, SIDE, Descriptor(), CPU)
    assert len(full.rows) == CANDIDATES
    np.testing.assert_allclose(full.rows, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(full.mean, full.rows.astype(np.float64).mean(0))


def test_full_set_is_computed_once(data: SelectedPatches, monkeypatch: pytest.MonkeyPatch) -> None:
    first = full_features(data, SIDE, Descriptor(), CPU)
    monkeypatch.setattr(Descriptor, "__call__", lambda *_: pytest.fail("computed again"))
    monkeypatch.setattr(full_set_module, "moments", lambda *_: pytest.fail("computed again"))
    again = full_features(data, SIDE, Descriptor(), CPU)
    np.testing.assert_array_equal(first.rows, again.rows)
    np.testing.assert_array_equal(first.covariance, again.covariance)


def test_relative_features_have_mean_zero_and_variance_one_in_all() -> None:
    rows = np.random.default_rng(0).normal(3, 2, size=(50, 4)).astype(np.float32)
    full = FullFeatures(rows, *moments(rows))
    relative = full.relative(torch.from_numpy(rows))
    torch.testing.assert_close(relative.mean(0), torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)
    assert relative.var(0).sum().item() == pytest.approx(1)
    about = full.full_set(20, 0, CPU)
    assert about.rows.shape == (20, 4)
    assert len(about.rows.unique(dim=0)) == 20
    torch.testing.assert_close(about.covariance, torch.cov(relative.T))
    assert torch.equal(full.full_set(10, 0, CPU).rows.unique(dim=0), full.full_set(10, 0, CPU).rows.unique(dim=0))
    assert not torch.equal(full.full_set(20, 1, CPU).rows, about.rows)


def test_photographs_that_are_all_the_same() -> None:
    rows = np.ones((5, 3), dtype=np.float32)
    assert FullFeatures(rows, *moments(rows)).relative(torch.ones(2, 3)).abs().max() == 0


# --- features of networks ---


@pytest.fixture
def patches() -> Tensor:
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_network_features_are_means_and_deviations_of_its_maps(patches: Tensor) -> None:
    features = NetworkFeatures(RandomConvNet(width=8, depth=2), seed=4)
    features.load(CPU)
    flat = RandomConvNet(width=8, depth=2).network(0, 4, CPU)(patches).view(3, 8, 16)
    expected = torch.cat([flat.mean(2), flat.std(2, correction=0)], dim=1)
    torch.testing.assert_close(features(patches), expected)


def test_network_features_of_vectors_are_these(patches: Tensor, tmp_path: Path) -> None:
    file = str(write_sr(tmp_path / "sr.safetensors"))
    features = NetworkFeatures(SRFeatures(file))
    features.load(CPU)
    torch.testing.assert_close(features(patches), SRFeatures(file).network(0, 0, CPU)(patches))


def test_identity_tells_settings_and_weights_apart(tmp_path: Path) -> None:
    """The file is another one where its content is."""
    file = tmp_path / "sr.safetensors"
    same = [NetworkFeatures(SRFeatures(str(write_sr(file, seed=0)))).identity() for _ in range(2)]
    other = NetworkFeatures(SRFeatures(str(write_sr(file, seed=1)))).identity()
    random = [NetworkFeatures(RandomConvNet(width, 2), seed).identity() for width, seed in ((8, 0), (8, 1), (9, 0))]
    assert same[0] == same[1]
    assert len({str(one) for one in (same[0], other, *random)}) == 5
    used = NetworkFeatures(RandomConvNet(8, 2))
    used.load(CPU)
    assert used.identity() == random[0]


@pytest.mark.parametrize(
    "features", [Descriptor(), NetworkFeatures(RandomConvNet(4, 2))], ids=["descriptor", "network"]
)
def test_features_let_gradients_through(features: Features) -> None:
    """Each feature's, against central differences along a random direction."""
    features.load(CPU)
    if isinstance(features, NetworkFeatures):
        features._loaded.double()
    generator = torch.Generator().manual_seed(0)
    patches = 0.3 + 0.4 * torch.rand(2, 3, 16, 16, generator=generator, dtype=torch.float64)
    direction = torch.randn(patches.shape, generator=generator, dtype=torch.float64)
    leaf = patches.clone().requires_grad_()
    sums = features(leaf).sum(0)
    slopes = torch.stack([(torch.autograd.grad(one, leaf, retain_graph=True)[0] * direction).sum() for one in sums])
    ends = [features(patches + step * direction).double().sum(0) for step in (1e-4, -1e-4)]
    expected = (ends[0] - ends[1]) / 2e-4
    torch.testing.assert_close(slopes, expected, rtol=0, atol=0.01 * float(expected.abs().max()))


def test_features_of_flat_patches_have_a_gradient() -> None:
    """The deviation of a channel that does not vary has none."""
    features = NetworkFeatures(RandomConvNet(4, 2))
    features.load(CPU)
    flat = torch.full((2, 3, 16, 16), 0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(features(flat).sum(), flat)
    assert gradient.isfinite().all()


# --- the module ---


@pytest.mark.parametrize("distance", [Frechet(), MMD(rows=20), SlicedWasserstein(rows=20)], ids=["F", "MMD", "SW"])
def test_loss_is_distance_and_size_of_the_edit(distance: object, data: SelectedPatches) -> None:
    """From the pixels, with the editor and the measure used by hand."""
    module = ready(data, distance=distance, weight=3.0)
    before = kept(data)
    after = module.editor(before)
    full = full_features(data, SIDE, Descriptor(), CPU)
    measure = distance.against(full.full_set(distance.rows, 0, CPU))
    expected = measure(full.relative(Descriptor()(after)), 0) + 3 * (after - before).abs().mean()
    assert module.training_step(0, 0).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("chunk", [1, 2])
def test_chunks_change_no_gradient(chunk: int, data: SelectedPatches) -> None:
    gradients = []
    for size in (chunk, 100):
        module = ready(data, chunk=size)
        module.training_step(0, 0).backward()
        gradients.append([parameter.grad for parameter in module.editor.parameters()])
    for first, second in zip(*gradients, strict=True):
        assert second.abs().max() > 0
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-7)


def test_chunks_keep_no_graph_of_the_networks(data: SelectedPatches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each chunk is computed once forward, and once more by backward; with one chunk, once."""
    calls: list[int] = []
    describe = Descriptor.__call__
    for chunk, expected in ((2, [2, 2, 1, 2, 2, 1]), (100, [KEPT])):
        module = ready(data, chunk=chunk)
        monkeypatch.setattr(Descriptor, "__call__", lambda self, hr: (calls.append(len(hr)), describe(self, hr))[1])
        calls.clear()
        module.training_step(0, 0).backward()
        assert sorted(calls) == sorted(expected)


def test_batches_of_a_step_follow_from_its_number(data: SelectedPatches) -> None:
    module = ready(data, batch_patches=3)
    drawn = []
    for step in range(40):
        module._trainer.global_step = step
        drawn.append(module._drawn())
        assert module._drawn() == drawn[-1]
        assert drawn[-1] == sorted({*drawn[-1]})
        assert len(drawn[-1]) == 3
    counts = np.bincount(np.concatenate(drawn), minlength=KEPT)
    assert counts.min() > 10
    assert ready(data, batch_patches=50)._drawn() == list(range(KEPT))


def test_report(data: SelectedPatches) -> None:
    """Of pixels as files have them; PSNR per patch, then the mean."""
    module = ready(data)
    before = (kept(data) * 255).round()
    with torch.no_grad():
        after = (module.editor(before / 255) * 255).round()
    psnr = [10 * np.log10(255**2 / float((a - b).square().mean())) for a, b in zip(after, before, strict=True)]
    found = module._report()
    assert found["edit_psnr"] == pytest.approx(np.mean(psnr), rel=1e-5)
    assert found["edit_levels"] == pytest.approx((after - before).abs().mean().item(), rel=1e-5)
    full = full_features(data, SIDE, Descriptor(), CPU)
    measure = Frechet().against(full.full_set(0, 0, CPU))
    for key, pixels in (("distance_before", before), ("distance_after", after)):
        expected = measure(full.relative(Descriptor()(pixels / 255)), 0).item()
        assert found[key] == pytest.approx(expected, rel=1e-6)


class Means(DistributionDistance):
    """Squared distance of the means."""

    def against(self, full: FullSet) -> Measure:
        return lambda features, _: (features.mean(0) - full.mean).square().sum()


def test_patches_at_random_are_as_far_as_a_sample_is() -> None:
    """Without replacement, the mean of N of M values has the variance S^2 / N (1 - N / M): Cochran (1977), 2.5."""
    rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    full = FullFeatures(rows, *moments(rows))
    found = [Yardstick(full, Descriptor(), Means(), seed, CPU).of_random(10) for seed in range(2000)]
    assert np.mean(found) == pytest.approx(1 / 10 * (1 - 10 / 40), rel=0.05)
    assert Yardstick(full, Descriptor(), Frechet(), 0, CPU).of_random(40) == pytest.approx(0, abs=1e-6)


def test_autocast_writes_what_was_measured(data: SelectedPatches) -> None:
    """Lightning runs `predict_step` under it, but nothing that measures."""
    module = ready(data)
    batch = list(data.distilled_patches())
    plain = module.predict_step(batch, 0)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = module.predict_step(batch, 0)
    for first, second in zip(plain, mixed, strict=True):
        np.testing.assert_array_equal(first.hr, second.hr)
        np.testing.assert_array_equal(first.lr, second.lr)


def test_untrained_editor_changes_no_patch(data: SelectedPatches) -> None:
    module = ready(data, edited=False)
    batch = list(data.distilled_patches())
    for patch, edited in zip(batch, module.predict_step(batch, 0), strict=True):
        np.testing.assert_array_equal(edited.hr, patch.hr)
        np.testing.assert_array_equal(edited.lr, patch.lr)
        assert edited.metadata == patch.metadata
    assert module._report()["edit_psnr"] == 100


def test_lr_stays_in_register(data: SelectedPatches) -> None:
    """In the interior, where only pixels of the patch matter, the edited LR is what bicubic makes of the edited patch.

    But for rounding, and where MATLAB's uint8 mode clips after the first of its two passes. The change alone is
    reduced by torch's bicubic, which has the same kernel.
    """
    module = ready(data)
    batch = list(data.distilled_patches())
    edited = module.predict_step(batch, 0)
    hr, lr, before, before_lr = (
        torch.from_numpy(np.stack(some)).permute(0, 3, 1, 2)
        for some in zip(*((e.hr, e.lr, p.hr, p.lr) for e, p in zip(edited, batch, strict=True)), strict=True)
    )
    inner = np.s_[..., 2:-2, 2:-2]
    change = F.interpolate(hr.float() - before.float(), scale_factor=0.25, mode="bicubic", antialias=True)
    assert (lr - (before_lr + change).round().clamp(0, 255))[inner].abs().max() <= 1e-3
    apart = (downscale(hr, 4).int() - lr.int())[inner].abs()
    assert (apart <= 1).float().mean() > 0.98
    assert (before_lr.int() - lr.int())[inner].abs().float().mean() > 2


def test_no_lr_at_scale_1(data: SelectedPatches) -> None:
    module = ready(data)
    batch = list(data.distilled_patches())
    data.scale = 1
    assert [patch.lr for patch in module.predict_step(batch, 0)] == [None] * KEPT


def test_pictures_are_before_after_and_change(data: SelectedPatches) -> None:
    module = ready(data)
    images, names = module.sample_grid(2)
    before, after, change = images.chunk(3)
    assert torch.equal(before, (kept(data)[[0, KEPT - 1]] * 255).round().byte())
    levels = after.int() - before.int()
    expected = (127.5 + levels * 127.5 / 8).clamp(0, 255)
    assert (change - expected).abs().max() <= 1
    assert levels.abs().max() > 2
    assert names[::2] == names[1::2] == ["before", "after", "change, black to white: -8 to 8 levels"]
    picture = grid(images, names)
    alone = grid(images[:2], names[:2])
    assert (picture.width, picture.height) >= (alone.width, 2 * alone.height)


def test_distilled_set_in_place_of_a_selection(data: SelectedPatches, tiny_photographs: Path, tmp_path: Path) -> None:
    """The full set are the photographs all the same, and metadata stay."""
    patches = [DistilledPatch(patch.hr, None, {"pseudo_label": n}) for n, patch in enumerate(data.distilled_patches())]
    write_distilled(tmp_path / "set", patches, 4, {"method": "none"})
    synthetic = SyntheticPatches(
        str(tmp_path / "set"), root=str(tiny_photographs), scale=4, patch_size=SIDE, batch_size=2, seed=0
    )
    synthetic.setup("fit")
    module, other = ready(synthetic), ready(data)
    assert module._report() == pytest.approx(other._report())
    edited = module.predict_step(list(synthetic.distilled_patches()), 0)
    assert [patch.metadata["pseudo_label"] for patch in edited] == list(range(KEPT))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weight": -1}, "model.weight is -1; expected at least 0"),
        ({"chunk": 0}, "model.chunk is 0; expected at least 1"),
        ({"min_psnr": float("nan")}, "model.min_psnr is nan"),
        ({"batch_patches": 1}, "model.batch_patches is 1; expected at least 2, or null"),
    ],
)
def test_settings_out_of_range(options: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DistributionAlignment(**options)
