"""What every training datamodule shares: the stream of random crops, augmentation on the device, evaluation loaders."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader

from datamodules.augmentation import Compose, PairAugmentation, resolve
from datamodules.augmentation.counter_rng import derive_seed
from datamodules.benchmarks import Benchmarks
from datamodules.budget import DataBudget
from datamodules.crops import CropDataset, Window
from datamodules.degradation import Degradation
from datamodules.degraded import DegradedImages, chain_to, degrade
from datamodules.distilled import DistilledPatch, Pixels
from datamodules.evaluation import (
    EvaluationSet,
    ImagesToUpscale,
    evaluation_loader,
)
from datamodules.image_files import find_images
from datamodules.loader import StreamLoader, StreamSampler, repeating_loader
from datamodules.pair import PairBatch
from datamodules.patch_store import PatchStore
from datamodules.paths import resolve_folder

if TYPE_CHECKING:
    from datamodules.selection.interfaces import Features

SCALES = (1, 2, 3, 4)


class SRDataModule(L.LightningDataModule):
    """Base of the datamodules; a subclass says what to train on and what to validate on.

    Args:
        scale: integer factor between HR and LR: 2, 3 or 4; 1 with a degradation only.
        patch_size: HR side of a training patch in pixels, a multiple of the scale.
        batch_size: patches per process and step.
        augmentation: name of a recipe (`none`, `plain`, `strong`) or a list of augmentations.
        num_workers: processes that fetch patches; crops come from memory, so 0 is fast enough without a GPU.
        seed: of crops and augmentations; null is the run's `seed_everything`.
        benchmarks: the test sets.
        predict_root: folder or file that `predict` upscales.
        degradation: makes LR of HR, applied first to last: in training on the device after augmentation, other noise
            each time a patch is seen; in validation and test the same for all runs. Its factors multiply to the scale.
            None is the exact bicubic reduction.

    Attributes:
        degradation: the degradations as one; None for the exact bicubic reduction.
        with_features: whether training batches carry features beside pseudo-labels, where there are classes; false,
            because computing and reading them costs time. A LightningModule that needs them sets it in its `setup`,
            before `training_patches` is called.

    Raises:
        ValueError: when the scale is none of 1, 2, 3, 4 or not what the degradation reduces by, the patch size is not
            a positive multiple of it, or a number of samples or workers makes no sense.
    """

    def __init__(
        self,
        scale: int = 4,
        patch_size: int = 64,
        batch_size: int = 16,
        augmentation: str | list[PairAugmentation] = "plain",
        num_workers: int = 0,
        seed: int | None = None,
        benchmarks: Benchmarks = Benchmarks(),  # noqa: B008
        predict_root: str | None = None,
        degradation: Sequence[Degradation] = (),
    ) -> None:
        super().__init__()
        if scale not in SCALES:
            raise ValueError(f"data.scale is {scale}; expected one of {', '.join(map(str, SCALES))}")
        if patch_size <= 0 or patch_size % scale:
            raise ValueError(
                f"data.patch_size is {patch_size}; expected a multiple of the scale {scale}, "
                f"such as {max(1, patch_size // scale) * scale}"
            )
        if batch_size < 1 or num_workers < 0:
            raise ValueError(
                f"data.batch_size is {batch_size} and data.num_workers {num_workers}; "
                "expected at least 1 patch and at least 0 workers"
            )
        self.scale = scale
        self.patch_size = patch_size
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.benchmarks = benchmarks
        self.predict_root = predict_root
        self.degradation = chain_to(scale, degradation)
        self.with_features = False
        self._seed = seed
        self._position = 0
        self._stream: StreamSampler | None = None
        self._augmentations = resolve(augmentation)

    @property
    def seed(self) -> int:
        """Seed of the sample stream."""
        return int(os.environ.get("PL_GLOBAL_SEED", "0")) if self._seed is None else self._seed

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 that identifies the training data's content."""

    @abstractmethod
    def training_patches(self) -> CropDataset:
        """What training draws from; called after `setup`."""

    @abstractmethod
    def validation_images(self) -> EvaluationSet:
        """What validation measures on; called after `setup`."""

    @property
    def source_fingerprint(self) -> str:
        """SHA-256 that identifies the photographs which the training data come from; called after `setup`."""
        return self.training_patches().store.index.fingerprint

    @property
    def feature_extractor(self) -> Features:
        """What gives patches the vectors in which distances mean something; by default the one without weights."""
        from datamodules.selection.features import Descriptor

        return Descriptor()

    @property
    def data_budget(self) -> DataBudget | None:
        """How much is trained on; called after `setup`. None where that is not known."""
        return None

    @property
    def preparation(self) -> dict[str, Any] | None:
        """How the training data were made and what that cost, as plain values; None for photographs as they are."""
        return None

    @property
    def reads_training_data(self) -> bool:
        """Whether the run needs what `training_patches` draws from; `test` and upscaling do without."""
        if self.trainer is None:
            return True
        return self.trainer.state.fn in (TrainerFn.FITTING, TrainerFn.VALIDATING) or self._distiller is not None

    def distilled_patches(self) -> Iterator[DistilledPatch]:
        """What training draws from, whole and in order, as a distilled set holds it; called after `setup("fit")`.

        Yields:
            HR and, always, its LR (with a degradation what it makes of the patch); metadata: source (the image's name),
            top and left (HR pixels).
        """
        patches = self.training_patches()
        for number, window in enumerate(patches.windows):
            patch = _patch(patches.store, window)
            patches.store.release()
            if self.degradation is not None:
                patch = replace(patch, lr=degrade(patch.hr, self.degradation, number, self._degradation_seed))
            yield patch

    def prepare_data(self) -> None:
        """Fetches missing test sets where asked to."""
        self.benchmarks.prepare()

    def train_dataloader(self) -> DataLoader[PairBatch]:
        """The endless stream of training batches, from the position that a checkpoint left it at.

        A Distiller may bring other ones.
        """
        own: DataLoader[PairBatch] | None = None if self._distiller is None else self._distiller.fit_data(self)
        if own is not None:
            return own
        patches = self.training_patches()
        if getattr(self.trainer, "overfit_batches", 0):
            return repeating_loader(patches, self.batch_size)
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        self._stream = StreamSampler(patches, self.batch_size, self.state_dict()["position"], world, rank)
        return StreamLoader(patches, self._stream, self.num_workers)

    def state_dict(self) -> dict[str, Any]:
        """Running number of the next training sample."""
        return {"position": self._stream.position if self._stream else self._position}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lets training continue where `state_dict` was taken."""
        self._position = state_dict["position"]
        self._stream = None

    def val_dataloader(self) -> DataLoader[PairBatch]:
        """Whole validation images."""
        images = self.validation_images()
        if self.degradation is not None:
            images = DegradedImages(images, self.degradation)
        return evaluation_loader(images, self.num_workers)

    def test_dataloader(self) -> list[DataLoader[PairBatch]]:
        """One loader per test set."""
        sets = self.benchmarks.open(self.scale, self.degradation)
        return [evaluation_loader(images, self.num_workers) for images in sets]

    def predict_dataloader(self) -> DataLoader[Any]:
        """Images to upscale, one per batch; or, for a Distiller, what it makes patches from.

        Raises:
            FileNotFoundError: when `predict_root` is not there or holds no image.
            ValueError: when it is not set.
        """
        if self._distiller is not None:
            self.setup("fit")
            loader: DataLoader[Any] = self._distiller.predict_data(self)
            return loader
        if self.predict_root is None:
            raise ValueError("predict needs images to upscale: add --data.init_args.predict_root FILE_OR_FOLDER")
        path = Path(self.predict_root).expanduser()
        if path.is_file():
            images = ImagesToUpscale(path.parent, [path])
        else:
            root = resolve_folder(self.predict_root, "data.predict_root")
            images = ImagesToUpscale(root, find_images(root).images)
        return DataLoader(images, batch_size=None, num_workers=self.num_workers)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Moves tensors; what a Distiller predicts from stays where it is, and it moves what it computes with."""
        if self._distiller is not None and self.trainer is not None and self.trainer.predicting:
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    @property
    def _distiller(self) -> Any:
        """The run's module, if it is a Distiller (by its method: the class is defined on top of this one)."""
        module = getattr(self.trainer, "lightning_module", None)
        return module if hasattr(module, "predict_data") else None

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Makes pixels floats on the device and, in training, augments the pair and degrades HR there."""
        if not isinstance(batch, PairBatch):
            return batch
        batch = batch.to_float()
        if self.trainer is None or not self.trainer.training:
            return batch
        return self.degraded(Compose(self._augmentations, self.seed)(batch))

    def degraded(self, batch: PairBatch) -> PairBatch:
        """A batch with the LR that training sees: what the degradation makes of HR, or what the batch has already.

        Args:
            batch: floats, on any device; what is random follows from its index.
        """
        if self.degradation is None:
            return batch
        return batch.with_images(self.degradation(batch.hr, batch.index, self._degradation_seed), batch.hr)

    @property
    def _degradation_seed(self) -> int:
        return derive_seed(self.seed, "degradation")


def _patch(store: PatchStore, window: Window) -> DistilledPatch:
    hr = _cut(store.hr(window.image), window, 1)
    lr = _cut(store.lr(window.image), window, store.index.scale)
    return DistilledPatch(hr, lr, {"source": store.index.names[window.image], "top": window.top, "left": window.left})


def _cut(pixels: Pixels, window: Window, scale: int) -> Pixels:
    top, left, height, width = (length // scale for length in (window.top, window.left, window.height, window.width))
    return pixels[top : top + height, left : left + width].copy()
