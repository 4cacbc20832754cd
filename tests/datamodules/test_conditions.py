"""Pseudo-labels and features that a method is conditioned on: they follow each sample from its window to the step."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import RealImages, SelectedPatches, SyntheticPatches
from datamodules.augmentation import CutBlur, CutMix, Mixup, PairAugmentation, RandomFlip, ScaleJitter, resolve
from datamodules.crops import CropDataset, Window, whole_images
from datamodules.distilled import DistilledPatch, write_distilled
from datamodules.loader import StreamLoader, StreamSampler
from datamodules.pair import PairBatch
from datamodules.selection import Band, Budget, Descriptor, Highest, PseudoLabels

PATCH = 24
CLASSES = 3


def pairs(count: int = 2, **conditions: Any) -> PairBatch:
    hr = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return PairBatch(hr[..., ::4, ::4].contiguous(), hr, torch.arange(count), **conditions)


def conditioned(count: int = 2) -> PairBatch:
    return pairs(count, label=torch.arange(count) + 5, features=torch.arange(4.0 * count).view(count, 4))


# --- the batch ---


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [("label", (3,), "(2)"), ("label", (2, 1), "(2)"), ("features", (2,), "(2, D)"), ("features", (1, 4), "(2, D)")],
)
def test_conditions_of_other_samples_are_refused_with_their_shape(name, shape, expected):
    with pytest.raises(ValueError, match=name) as error:
        pairs(2, **{name: torch.zeros(shape)})
    assert str(shape) in str(error.value)
    assert str(error.value).endswith(f"expected {expected}")


def test_new_pixels_keep_the_conditions():
    batch = conditioned()
    changed = PairBatch(batch.lr.mul(255).byte(), batch.hr.mul(255).byte(), batch.index, batch.label, batch.features)
    for after in (changed.to_float(), changed.with_images(torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 4, 4))):
        assert after.label is batch.label
        assert after.features is batch.features


def test_moving_takes_the_conditions_along(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.to("meta"))  # pinning needs a GPU
    for moved in (conditioned().to(torch.device("meta")), conditioned().pin_memory()):
        assert moved.label.is_meta
        assert moved.features.is_meta
        assert moved.features.shape == (2, 4)
    bare = pairs().to(torch.device("meta"))
    assert bare.label is None
    assert bare.features is None


@pytest.mark.parametrize("augmentation", [RandomFlip, Mixup, CutMix, CutBlur, ScaleJitter])
def test_augmented_samples_keep_the_conditions_of_the_one_they_start_from(augmentation):
    assert_kept([augmentation(probability=1.0)])


def test_all_of_the_strongest_recipe_keeps_conditions():
    assert_kept(resolve("strong"))


def assert_kept(augmentations: list[PairAugmentation]) -> None:
    before = after = conditioned(6)
    for augmentation in augmentations:
        after = augmentation(after, 1)
    assert not torch.equal(after.hr, before.hr)
    for name in ("index", "label", "features"):
        assert torch.equal(getattr(after, name), getattr(before, name))


# --- crops ---


@pytest.fixture
def crops(position_store, tmp_path) -> CropDataset:
    """Three windows in two images, labelled 7, 8, 9; features tell the window's image and left border."""
    windows = [Window(0, 0, 0, 48, 48), Window(0, 0, 48, 48, 48), Window(1, 4, 8, 48, 48)]
    np.save(tmp_path / "features.npy", np.float32([[window.image, window.left] for window in windows]))
    features = np.load(tmp_path / "features.npy", mmap_mode="r")
    store = position_store([(48, 96), (64, 64)])
    return CropDataset(store, windows, PATCH, 0, np.array([7, 8, 9]), features)


def test_crops_carry_label_and_features_of_the_window_around_them(crops):
    """Red of the first pixel is the image, blue the column."""
    batch = crops.__getitems__(range(60))
    image, left = batch.hr[:, 0, 0, 0].long(), batch.hr[:, 2, 0, 0].long()
    around = torch.where(image == 1, 2, (left >= 48).long())
    assert around.unique().tolist() == [0, 1, 2]
    assert torch.equal(batch.label, around + 7)
    assert torch.equal(batch.features, torch.tensor([[0.0, 0.0], [0.0, 48.0], [1.0, 8.0]])[around])
    assert (batch.label.dtype, batch.features.dtype) == (torch.int64, torch.float32)


def test_features_stay_on_disk(crops):
    assert isinstance(crops.features, np.memmap)
    crops[0].features.zero_()  # the batch is a copy
    assert crops.features[1, 1] == 48


def test_conditions_do_not_change_the_stream(crops):
    bare = CropDataset(crops.store, crops.windows, PATCH, 0)
    batch, expected = crops.__getitems__(range(50)), bare.__getitems__(range(50))
    assert torch.equal(batch.hr, expected.hr)
    assert torch.equal(batch.index, expected.index)
    assert expected.label is expected.features is None


def test_workers_hand_conditions_over_from_any_position(crops):
    batches = list(StreamLoader(crops, StreamSampler(crops, 4, position=10), num_workers=2))
    assert [batch.index[0].item() for batch in batches] == [10, 14, 18]
    for batch in batches:
        expected = crops.__getitems__(batch.index.tolist())
        assert torch.equal(batch.label, expected.label)
        assert torch.equal(batch.features, expected.features)


@pytest.mark.parametrize("name", ["labels", "features"])
def test_conditions_of_other_windows_are_refused(crops, name):
    with pytest.raises(ValueError, match=f"2 {name} for 3 windows"):
        CropDataset(crops.store, crops.windows, PATCH, 0, **{name: np.zeros((2, 1))})


def test_windows_can_be_read_whole(crops):
    batch = crops.whole([2, 0])
    assert batch.hr.shape == (2, 3, 48, 48)
    assert batch.lr.shape == (2, 3, 12, 12)
    assert batch.hr.dtype == torch.uint8
    assert batch.hr[:, :, 0, 0].tolist() == [[1, 4, 8], [0, 0, 0]]
    assert batch.hr[:, 1:, -1, -1].tolist() == [[51, 55], [47, 47]]
    low = crops.store.lr(1)[1:13, 2:14]
    assert np.array_equal(batch.lr[0].permute(1, 2, 0), low)
    assert (batch.index.tolist(), batch.label.tolist()) == ([2, 0], [9, 7])
    assert batch.features.tolist() == [[1, 8], [0, 0]]


@pytest.mark.parametrize(
    ("numbers", "found"), [([0, 1], "48 x 48, 96 x 64"), ([1], "96 x 64"), ([], "none"), ([0, 2], "48 x 48, 64 x 64")]
)
def test_what_makes_no_batch_of_squares_is_not_read_whole(position_store, numbers, found):
    store = position_store([(48, 48), (96, 64), (64, 64)])
    with pytest.raises(ValueError, match=f"squares of one size; found {found} ") as error:
        CropDataset(store, whole_images(store, range(3)), PATCH, 0).whole(numbers)
    assert "\n" not in str(error.value)


# --- selected patches ---


def selected(photographs: Path, with_features: bool = True, **options: Any) -> SelectedPatches:
    """Nine 32-pixel patches of each of three pictures: six that bicubic does better than most, the best left out."""
    rule: dict[str, Any] = {"filters": [Band(0.2, 0.8)], "pseudo_labels": PseudoLabels(CLASSES), "selector": Highest()}
    rule["budget"] = Budget(patches=6)
    data = SelectedPatches(root=str(photographs), patch_size=32, batch_size=4, seed=0, **{**rule, **options})
    data.prepare_data()
    data.setup("fit")
    data.with_features = with_features
    return data


def chosen_pixels(data: SelectedPatches) -> torch.Tensor:
    """(chosen, 3, 32, 32) in [0, 1], cut from the files."""
    patches = []
    for image, top, left in data.selection.candidates.places[data.selection.chosen]:
        pixels = np.asarray(Image.open(Path(data.root) / data.store.index.names[image]))
        patches.append(pixels[top : top + 32, left : left + 32] / np.float32(255))
    return torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2)


def test_chosen_patches_carry_their_features_and_class(tiny_photographs):
    data = selected(tiny_photographs)
    kept, chosen = data.selection.kept, data.selection.chosen
    assert len(kept) < 27
    assert (np.diff(chosen) < 0).any()  # not in the order of the candidates
    whole = data.training_patches().whole(range(6))
    torch.testing.assert_close(whole.features, Descriptor()(chosen_pixels(data)), rtol=1e-5, atol=1e-5)
    vectors = Descriptor()(data.selection.candidates.pairs(kept).to_float().hr)
    classes = dict(zip(kept.tolist(), PseudoLabels(CLASSES).fit(vectors.numpy(), seed=0).labels.tolist(), strict=True))
    assert whole.label.tolist() == [classes[number] for number in chosen.tolist()]
    assert len(set(whole.label.tolist())) > 1


def test_training_batches_carry_them_through_workers(tiny_photographs):
    data = selected(tiny_photographs, num_workers=2)
    whole = data.training_patches().whole(range(6))
    for batch in data.train_dataloader():  # a crop of a candidate of the patch size is the candidate
        window = (batch.hr[:, None] == whole.hr).flatten(2).all(2).long().argmax(1)
        assert torch.equal(batch.label, whole.label[window])
        assert torch.equal(batch.features, whole.features[window])


def test_features_deleted_from_the_cache_come_again(tiny_photographs):
    before = selected(tiny_photographs)
    expected = before.training_patches().features
    shutil.rmtree(before.cache / "features")
    after = selected(tiny_photographs).training_patches()
    assert np.array_equal(after.features, expected)
    assert np.array_equal(after.labels, before.training_patches().labels)


def test_features_cost_nothing_where_nobody_asks(tiny_photographs, monkeypatch):
    data = selected(tiny_photographs, with_features=False)
    monkeypatch.setattr("datamodules.selected.chosen_features", lambda *_: pytest.fail("read"))
    batch = data.training_patches()[0]
    assert batch.label is not None
    assert batch.features is None


def test_without_classes_there_are_no_conditions(tiny_photographs):
    patches = selected(tiny_photographs, pseudo_labels=None).training_patches()
    assert patches.labels is patches.features is None


def test_extractor_of_generated_patches_is_that_of_the_real_ones(tiny_photographs, tiny_images):
    features = Descriptor()
    assert selected(tiny_photographs, features=features).feature_extractor is features
    assert isinstance(tiny_images.feature_extractor, Descriptor)


class Recorder(L.LightningModule):
    """Keeps the batches of its training steps."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.batches: list[PairBatch] = []

    def setup(self, stage: str) -> None:
        self.trainer.datamodule.with_features = True

    def training_step(self, batch: PairBatch) -> torch.Tensor:
        self.batches.append(batch)
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_module_that_asks_in_its_setup_gets_them_in_its_steps(tiny_photographs, quick_trainer):
    data = selected(tiny_photographs, with_features=False, augmentation="strong")
    module = Recorder()
    quick_trainer(limit_val_batches=0).fit(module, datamodule=data)
    assert len(module.batches) == 4
    for batch in module.batches:
        expected = data.training_patches().__getitems__(batch.index.tolist())
        assert batch.hr.dtype == torch.float32
        assert torch.equal(batch.label, expected.label)
        assert torch.equal(batch.features, expected.features)


# --- distilled sets ---


def synthetic(folder: Path, root: Path, labels: list[Any]) -> SyntheticPatches:
    """A set whose patch number n is of colour n, with these pseudo-labels."""
    patches = [
        DistilledPatch(np.full((48, 48, 3), number, dtype=np.uint8), None, {"pseudo_label": label})
        for number, label in enumerate(labels)
    ]
    write_distilled(folder, patches, 4, {})
    data = SyntheticPatches(str(folder), root=str(root), patch_size=32, seed=0)
    data.prepare_data()
    data.setup("fit")
    return data


def test_patches_of_a_distilled_set_carry_its_pseudo_labels(tmp_path, tiny_photographs):
    batch = synthetic(tmp_path / "set", tiny_photographs, [4, 0, 2]).training_patches().__getitems__(range(30))
    numbers = batch.hr[:, 0, 0, 0].long()
    assert numbers.unique().tolist() == [0, 1, 2]
    assert torch.equal(batch.label, torch.tensor([4, 0, 2])[numbers])
    assert batch.features is None


@pytest.mark.parametrize("odd", [None, True, 1.0, "1"])
def test_sets_without_a_class_for_each_patch_have_no_labels(tmp_path, tiny_photographs, odd):
    assert synthetic(tmp_path / "set", tiny_photographs, [1, odd]).training_patches().labels is None


def test_photographs_have_no_classes(tiny_images: RealImages):
    tiny_images.setup("fit")
    tiny_images.with_features = True
    batch = tiny_images.training_patches()[0]
    assert batch.label is batch.features is None
