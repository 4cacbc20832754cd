"""Data to restore: LR = degradation(HR), checked against the scale, other noise in training, the same in evaluation."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image

from datamodules import BenchmarkImages, PairBatch, RealImages, SelectedPatches, SyntheticPatches
from datamodules.augmentation import Compose, resolve
from datamodules.benchmarks import Benchmarks
from datamodules.bicubic import downscale
from datamodules.degradation import Bicubic, Chain, Degradation, GaussianNoise, OneOf
from datamodules.degraded import DegradedImages, degraded_sets
from datamodules.distilled import DistilledPatch, write_distilled
from datamodules.evaluation import PairedFile, PairedFiles
from datamodules.image_files import read_rgb
from datamodules.selection.criteria import Entropy, SharpeningGain


class Fade(Degradation):
    """Takes away a share that names the image: index / 100."""

    def __call__(self, images, index, seed):
        return images * (1 - index.view(-1, 1, 1, 1) / 100)


class Seeded(Degradation):
    """A flat grey that names the seed."""

    def __call__(self, images, index, seed):
        return torch.full_like(images, seed % 256 / 255)


def prepared(root: Path | str, **options) -> RealImages:
    data = RealImages(str(root), **{"scale": 1, "patch_size": 24, "batch_size": 4, "degradation": [Fade()], **options})
    data.prepare_data()
    data.setup("fit")
    return data


def transferred(data: RealImages, batch: PairBatch, training: bool = True) -> PairBatch:
    """The batch as a training step gets it."""
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        state=SimpleNamespace(fn=TrainerFn.FITTING), training=training, world_size=1, global_rank=0
    )
    return data.on_after_batch_transfer(batch, 0)


# --- what fits the scale ---


@pytest.mark.parametrize(
    ("scale", "degradation", "message"),
    [
        (
            1,
            [],
            r"data\.scale is 1, where LR is as large as HR, and data\.degradation is empty; say what is to be rest",
        ),
        (4, [Fade()], r"scale is 4 but .* reduces by 1; add {class_path: Bicubic, init_args: {scale: 4}} where the"),
        (
            4,
            [Bicubic(2), Fade()],
            r"data\.scale is 4 but .* reduces by 2; add {class_path: Bicubic, init_args: {scale: 2}}",
        ),
        (1, [Bicubic(4)], r"data\.scale is 1 but .* reduces by 4; set data\.scale to 4, or leave out what reduces"),
        (2, [Bicubic(3)], r"data\.scale is 2 but .* reduces by 3; set data\.scale to 3"),
    ],
)
@pytest.mark.parametrize("datamodule", [RealImages, BenchmarkImages])
def test_factors_that_are_not_the_scale(datamodule, scale, degradation, message):
    with pytest.raises(ValueError, match=message) as raised:
        datamodule(scale=scale, degradation=degradation)
    assert "\n" not in str(raised.value)


def test_factors_multiply(photographs):
    data = prepared(photographs("a.png", "b.png"), scale=4, degradation=[Bicubic(2), Fade(), Bicubic(2)])
    batch = transferred(data, next(iter(data.train_dataloader())))
    assert (batch.lr.shape, batch.scale) == ((4, 3, 6, 6), 4)


# --- training ---


def test_training_degrades_what_augmentation_made(photographs):
    """HR is augmented as ever; LR follows from it and from the sample's number."""
    root = photographs("a.png", "b.png")
    data = prepared(root, augmentation="strong", seed=7)
    given = data.training_patches().__getitems__(range(40, 44))
    expected = Compose(resolve("strong"), 7)(given.to_float()).hr
    batch = transferred(data, given)
    assert torch.equal(batch.hr, expected)
    torch.testing.assert_close(batch.lr, expected * torch.tensor([0.6, 0.59, 0.58, 0.57]).view(-1, 1, 1, 1))


def test_training_noise_follows_seed_and_number_not_the_batch(photographs):
    root = photographs("a.png", "b.png")

    def lr(numbers, seed=1) -> torch.Tensor:
        data = prepared(root, degradation=[GaussianNoise(25)], seed=seed, augmentation="none")
        batch = data.training_patches().__getitems__(numbers)
        changed = transferred(data, batch)
        return changed.lr - changed.hr

    together = lr([5, 6, 7, 8])
    assert torch.equal(together[1:3], lr([6, 7]))
    assert not torch.equal(together[:1], lr([6])), "each sample has noise of its own"
    assert not torch.equal(together, lr([5, 6, 7, 8], seed=2))


def test_without_a_degradation_lr_is_exact_bicubic(photographs):
    data = prepared(photographs("a.png", "b.png"), scale=4, degradation=(), augmentation="plain", seed=3)
    given = data.training_patches().__getitems__(range(4))
    expected = Compose(resolve("plain"), 3)(given.to_float())
    batch = transferred(data, given)
    assert torch.equal(batch.lr, expected.lr)
    assert torch.equal(batch.hr, expected.hr)


# --- evaluation ---


def test_validation_images_are_degraded_by_position_and_rounded(photographs):
    data = prepared(photographs("a.png", "b.png", "c.png"), validation=2)
    for position, batch in enumerate(data.val_dataloader()):
        levels = batch.lr * 255
        assert (levels - levels.round()).abs().max() < 1e-4
        assert (levels - batch.hr * 255 * (1 - position / 100)).abs().max() < 0.501


def test_evaluation_noise_is_the_same_for_every_seed(photographs, monkeypatch):
    root = photographs("HR/a.png", "HR/b.png", folder="sets/Set").parent
    read = []
    for seed in (1, 2):
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
        benchmarks = Benchmarks(["Set"], str(root))
        for data in (
            prepared(root / "Set", degradation=[Seeded()], seed=seed, benchmarks=benchmarks),
            BenchmarkImages(1, benchmarks, degradation=[Seeded()]),
        ):
            (loader,) = data.test_dataloader()
            read += [
                batch.lr[0, 0, 0, 0].item() for loaders in (loader, data.val_dataloader()) for batch in _flat(loaders)
            ]
    assert len(set(read)) == 1
    assert len(read) == 2 * (2 + 1 + 2 + 2)


def _flat(loaders):
    return [batch for loader in (loaders if isinstance(loaders, list) else [loaders]) for batch in loader]


def test_lr_files_are_not_read_where_images_are_degraded(photographs):
    root = photographs("HR/a.png", folder="sets/Set", size=(50, 66)).parent
    (root / "Set" / "LRbicx4").mkdir()
    Image.new("RGB", (1, 1)).save(root / "Set" / "LRbicx4" / "a.png")  # of a size that reading would refuse
    (images,) = Benchmarks(["Set"], str(root)).open(4, Chain([Bicubic(4)]))
    lr, hr, _ = images[0]
    assert hr.shape == (3, 48, 64)
    expected = downscale(hr.double() / 255, 4).clamp(0, 1) * 255
    assert (lr - expected).abs().max() < 0.51


def test_sigma_25_by_its_formula(photographs):
    """PSNR of an image in the middle of the range, so that nothing is clipped: 20 log10(255 / 25) = 20.17 dB."""
    (path,) = (photographs("a.png", size=(256, 256)) / "a.png",)
    Image.new("RGB", (256, 256), (128, 128, 128)).save(path)
    images = DegradedImages(PairedFiles("Set", [PairedFile("a.png", path, None)], 1), Chain([GaussianNoise(25)]))
    lr, hr = (pixels.astype(np.float64) for pixels in images.read(0))
    assert 10 * np.log10(255**2 / ((lr - hr) ** 2).mean()) == pytest.approx(20.17, abs=0.03)


@pytest.mark.realdata
def test_sigma_25_on_set14(data_root):
    """Photographs have black and white places, where clipping takes some of the noise away: a little above 20.17 dB."""
    (images,) = Benchmarks(["Set14"], str(data_root)).open(1, Chain([GaussianNoise(25)]))
    squares = [np.square(np.subtract(*images.read(at), dtype=np.float64)).mean() for at in range(len(images))]
    decibels = 10 * np.log10(255**2 / np.array(squares))
    assert 20.1 < decibels.min() < decibels.mean() < 21.5


def test_a_oneof_is_tested_choice_by_choice(photographs):
    path = photographs("a.png") / "a.png"
    images = PairedFiles("Set", [PairedFile("a.png", path, None)], 1)
    choices = [GaussianNoise(15), Fade(), GaussianNoise(50), Chain([]), Chain([Fade(), Seeded()]), GaussianNoise(70)]
    opened = degraded_sets(images, Chain([OneOf(choices)]))
    labels = ["GaussianNoise", "Fade", "GaussianNoise2", "clean", "Fade+Seeded", "GaussianNoise3"]
    assert [one.name for one in opened] == [f"Set-{label}" for label in labels]
    assert [one.names for one in opened] == [["a.png"]] * 6
    clean = read_rgb(path)
    assert np.array_equal(opened[3].read(0)[0], clean)
    first, second = (np.abs(opened[at].read(0)[0].astype(int) - clean).mean() for at in (0, 2))
    assert second > 2 * first
    assert [one.name for one in degraded_sets(images, Chain([OneOf(choices), Fade()]))] == ["Set"]


# --- the store and distilled sets at scale 1 ---


def test_no_photograph_is_stored_twice(photographs):
    data = prepared(photographs("a.png", "b.png"))
    assert sorted(path.name for path in data.store.folder.iterdir()) == ["hr.u8", "index.json"]
    assert (data.store.folder / "hr.u8").stat().st_size == 2 * 48 * 64 * 3
    assert np.array_equal(data.store.lr(1), data.store.hr(1))
    batch = data.training_patches().__getitems__([0, 1])
    assert torch.equal(batch.lr, batch.hr)


def test_patches_to_distil_come_with_degraded_lr(photographs):
    """Which a teacher needs; the same whenever they are asked for."""
    data = prepared(photographs("a.png", "b.png", "c.png"))
    first, second = data.distilled_patches()
    assert np.array_equal(first.lr, first.hr)  # Fade takes nothing from number 0
    assert np.abs(second.lr - second.hr * 0.99).max() < 0.501
    assert [
        np.array_equal(one.lr, again.lr) for one, again in zip((first, second), data.distilled_patches(), strict=True)
    ]


def test_a_distilled_set_of_scale_1(photographs, tmp_path):
    root = photographs("a.png", "b.png", "c.png")
    data = prepared(root)
    written = write_distilled(tmp_path / "set", data.distilled_patches(), 1, {"method": "test"})
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [
        "README.md", "images", "metadata.jsonl", "provenance.json",
    ]  # fmt: skip
    assert "A distilled dataset for image restoration" in (tmp_path / "set" / "README.md").read_text()
    assert all("lr_file_name" not in line for line in written.metadata)
    options = {"root": str(root), "scale": 1, "patch_size": 24, "batch_size": 2, "augmentation": "none"}
    synthetic = SyntheticPatches(str(tmp_path / "set"), degradation=[Fade()], **options)
    synthetic.prepare_data()
    synthetic.setup("fit")
    assert [
        np.array_equal(a.hr, b.hr) for a, b in zip(data.distilled_patches(), synthetic.distilled_patches(), strict=True)
    ]
    batch = transferred(synthetic, synthetic.training_patches().__getitems__([50, 51]))
    torch.testing.assert_close(batch.lr, batch.hr * torch.tensor([0.5, 0.49]).view(-1, 1, 1, 1))


def test_a_set_for_super_resolution_serves_restoration(photographs, tmp_path):
    """Its LR files are passed over."""
    root = photographs("a.png", "b.png")
    hr = read_rgb(root / "a.png")
    patch = DistilledPatch(hr, np.zeros((12, 16, 3), np.uint8))
    write_distilled(tmp_path / "set", [patch], 4, {"method": "test"})
    data = SyntheticPatches(
        str(tmp_path / "set"), root=str(root), scale=1, patch_size=24, batch_size=2, degradation=[Fade()]
    )
    data.prepare_data()
    (again,) = data.distilled_patches()
    assert np.array_equal(again.lr, hr)


def test_criteria_at_scale_1():
    options = {"scale": 1, "degradation": [Fade()]}
    with pytest.raises(
        ValueError, match=r"SharpeningGain, which measures what LR has lost .* at data.scale 1; set one"
    ):
        SelectedPatches(criterion=SharpeningGain(), **options)
    assert isinstance(SelectedPatches(**options)._rule.criterion, Entropy)
