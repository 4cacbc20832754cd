"""RealImages: train on a folder of photographs, all of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from datamodules.base import SRDataModule
from datamodules.budget import DataBudget
from datamodules.crops import CropDataset, Window, sub_images, whole_images
from datamodules.evaluation import StoredImages
from datamodules.image_files import find_images
from datamodules.patch_store import PatchStore, Skipped, Source, open_store
from datamodules.paths import (
    EMBEDDED,
    EMBEDDED_TRAIN,
    cache_folder,
    data_folder,
    embedded_photographs,
    find_folder,
    resolve_folder,
)

SHOWN = 100


class RealImages(SRDataModule):
    """Photographs, decoded once into a memory-mapped store of HR and exact bicubic LR.

    Args:
        root: folder of images, searched recursively; "embedded" is photographs that installed wheels carry.
        download: fetch the root when it is the name of a public set, such as DIV2K_train_HR, and not there yet.
        validation: images held out for validation: a share below 1 or a number of images.
        split_seed: chooses them by name: when other images come and go, an image changes sides only to make room.
        sub_image: side in HR pixels of overlapping squares that crops are drawn from; null draws from whole images.
        strict: stop when a file cannot be used, instead of leaving it out with a summary.
        cache_dir: folder of stores; null is $SRDISTILL_CACHE or the user's cache folder.
        options: see `SRDataModule`.

    Raises:
        ValueError: when no image is left to train on, when `strict` meets an unusable file, or for bad settings.
        FileNotFoundError: when the root does not exist.
    """

    def __init__(
        self,
        root: str = EMBEDDED,
        download: bool = False,
        validation: float = 0.1,
        split_seed: int = 0,
        sub_image: int | None = None,
        strict: bool = False,
        cache_dir: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if validation <= 0 or (validation > 1 and validation % 1):
            raise ValueError(f"data.validation is {validation}; expected a share in (0, 1) or a number of images")
        if sub_image is not None and (sub_image < self.patch_size or sub_image % self.scale):
            raise ValueError(
                f"data.sub_image is {sub_image}; expected a multiple of the scale {self.scale}, "
                f"at least the patch size {self.patch_size}"
            )
        self.root = root
        self.download = download
        self.validation = validation
        self.split_seed = split_seed
        self.sub_image = sub_image
        self.strict = strict
        self.cache = cache_folder(cache_dir)

    @cached_property
    def store(self) -> PatchStore:
        """The decoded photographs; opened (and built when need be) on first use."""
        return open_store(self._files[0], self.scale, self.cache)

    @property
    def fingerprint(self) -> str:
        """Content hash of the photographs and the scale."""
        return self.store.index.fingerprint

    @property
    def data_budget(self) -> DataBudget:
        """Of the photographs that are not held out."""
        names = {name for _, name in self.training_images}
        sizes = [self.store.index.sizes[image] for image, _ in self.training_images]
        files = [source.path for source in self._files[0] if source.name in names]
        pixels = sum(height * width for height, width in sizes)
        return DataBudget(len(names), pixels, sum(path.stat().st_size for path in files), 100.0)

    def prepare_data(self) -> None:
        """Builds the store, fetches missing test sets where asked to, and reports files that cannot be used.

        `test` and `predict` do not touch the photographs, which need not be on the machine then.
        """
        super().prepare_data()
        if not self.reads_training_data:
            return
        if self.download and self.root != EMBEDDED and find_folder(self.root) is None:
            from datamodules.download import fetch

            fetch(self.root, data_folder())
        skipped = self._skipped()
        if skipped and self.strict:
            raise ValueError(f"data.strict is set and {self._summary(skipped)}")
        if skipped:
            rank_zero_warn(f"left out: {self._summary(skipped)}")

    def setup(self, stage: str) -> None:
        """Splits the usable images."""
        if stage in ("fit", "validate"):
            usable = self._usable()
            if 1 < len(usable) <= self.validation:
                raise ValueError(
                    f"data.validation is {self.validation:g} but {self.root} has {len(usable)} usable images and some "
                    "must be left to train on; set a smaller number, or a share such as 0.1"
                )
            self.training_images, self.held_out = split(usable, self.validation, self.split_seed)

    def training_patches(self) -> CropDataset:
        """Crops of the photographs that are not held out."""
        return CropDataset(self.store, self._windows(), self.patch_size, self.seed)

    def validation_images(self) -> StoredImages:
        """The photographs held out."""
        return StoredImages("validation", self.store, [image for image, _ in self.held_out])

    @property
    def _device(self) -> torch.device:
        """Where to compute what has to be known of the data before training."""
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def _windows(self) -> list[Window]:
        images = [image for image, _ in self.training_images]
        if self.sub_image is None:
            return whole_images(self.store, images)
        return sub_images(self.store, images, self.sub_image)

    @cached_property
    def _files(self) -> tuple[list[Source], list[Skipped]]:
        """Photographs, and files of the root that are none; listed once, which takes seconds where there are many."""
        if self.root == EMBEDDED:
            return [Source(path.name, path) for path in embedded_photographs(EMBEDDED_TRAIN)], []
        root = resolve_folder(self.root, "data.root")
        found = find_images(root)
        sources = [Source(path.relative_to(root).as_posix(), path) for path in found.images]
        others = [Skipped(path.relative_to(root).as_posix(), "not an image format") for path in found.others]
        return sources, others

    def _skipped(self) -> list[Skipped]:
        index = self.store.index
        small = [
            Skipped(name, f"too small: {width} x {height} pixels, patch size {self.patch_size}")
            for name, (height, width) in zip(index.names, index.sizes, strict=True)
            if min(height, width) < self.patch_size
        ]
        return sorted([*index.skipped, *small, *self._files[1]], key=lambda file: file.name)

    def _usable(self) -> list[tuple[int, str]]:
        index = self.store.index
        usable = [(image, name) for image, name in enumerate(index.names) if min(index.sizes[image]) >= self.patch_size]
        if len(usable) < 2:
            skipped = self._skipped()
            raise ValueError(
                f"data.root {self.root}: {len(usable)} usable images of {len(index.names) + len(index.skipped)}; "
                f"at least 2 (one to train on, one to validate on) with sides of {self.patch_size} pixels or more "
                f"are needed{'; ' + self._summary(skipped) if skipped else ''}"
            )
        return usable

    def _summary(self, skipped: list[Skipped]) -> str:
        lines = [f"  {file.name}: {file.reason}" for file in skipped[:SHOWN]]
        if len(skipped) > SHOWN:
            lines.append(f"  ... and {len(skipped) - SHOWN} more")
        return f"{len(skipped)} of the files in {self.root} cannot be used:\n" + "\n".join(lines)


def split(
    images: Sequence[tuple[int, str]], validation: float, seed: int
) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """Splits (number, name) pairs into training and validation by a hash of seed and name.

    Args:
        images: at least two.
        validation: share below 1, or number of images; at least one image stays on either side.
        seed: another one, another split.
    """
    wanted = math.ceil(validation * len(images)) if validation < 1 else int(validation)
    count = min(max(1, wanted), len(images) - 1)

    def draw(image: tuple[int, str]) -> bytes:
        # File names that are no valid Unicode reach Python as lone surrogates.
        return hashlib.sha256(f"{seed}:{image[1]}".encode(errors="surrogateescape")).digest()

    order = sorted(images, key=draw)
    held_out = set(order[:count])
    return [image for image in images if image not in held_out], [image for image in images if image in held_out]
