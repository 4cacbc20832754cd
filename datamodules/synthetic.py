"""SyntheticPatches: train on a distilled set."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from numpy.typing import NDArray

from datamodules.budget import DataBudget
from datamodules.crops import CropDataset, whole_images
from datamodules.distilled import DistilledPatch, DistilledSet, read_distilled
from datamodules.distilled.decoding import images_of
from datamodules.evaluation import StoredImages
from datamodules.patch_store import PatchStore, Source, open_store
from datamodules.paths import resolve_folder
from datamodules.real import RealImages


class SyntheticPatches(RealImages):
    """Patches of a distilled-dataset folder (`datamodules.distilled`), whatever method made it.

    LR is the stored one where the set has it at this scale, else the exact bicubic reduction of the patch. A set of
    latents is decoded once, into the cache, and needs the generator that its provenance names. Validation photographs
    are those of `RealImages` with the same root, so that regimes compare.

    Args:
        distilled: folder of the set.
        options: see `RealImages`.

    Raises:
        ValueError: when the patches do not fit patch size or scale, a file was altered, the generator of latents is
            another one now, or `sub_image` is set.
        FileNotFoundError: when the folder, one of its files, or the generator of latents does not exist.
    """

    def __init__(self, distilled: str, **options: Any) -> None:
        super().__init__(**options)
        if self.sub_image is not None:
            raise ValueError(
                f"data.sub_image is {self.sub_image} but only photographs are cut; "
                "set it to null, crops are drawn from whole patches of a distilled set"
            )
        self.distilled = distilled

    @cached_property
    def distilled_set(self) -> DistilledSet:
        """The set, its files not verified again."""
        return read_distilled(self._folder, verify=False)

    @cached_property
    def patch_store(self) -> PatchStore:
        """The decoded patches, in the order of the set."""
        store = open_store(self._sources(), self.scale, self.cache)
        for file in store.index.skipped:
            raise ValueError(f"{self.distilled}/{file.name} cannot be used: {file.reason}; write the set again")
        return store

    @property
    def fingerprint(self) -> str:
        """Content hash of the patches, their LR files and the scale."""
        return self.patch_store.index.fingerprint

    @property
    def source_fingerprint(self) -> str:
        """Of the photographs that the set was distilled from; its own where these are not known."""
        return self.distilled_set.provenance.get("source_fingerprint") or self.fingerprint

    @property
    def data_budget(self) -> DataBudget:
        """Of the set, as its provenance says."""
        return self.distilled_set.budget

    @property
    def preparation(self) -> dict[str, Any]:
        """Method and costs of the set, as its provenance says."""
        provenance = self.distilled_set.provenance
        return {key: provenance.get(key) for key in ("method", "seconds", "preparation", "teacher", "made_from")}

    def prepare_data(self) -> None:
        """Verifies the set, decodes latents, and builds the store; for the photographs see `RealImages`."""
        if self.reads_training_data:
            read_distilled(self._folder)
            self._refuse_sizes()
            images_of(self.distilled_set, self.cache, self._device, verify=True)
            _ = self.patch_store
        super().prepare_data()

    def training_patches(self) -> CropDataset:
        """Crops of the patches, with pseudo-labels where the set has one for each."""
        windows = whole_images(self.patch_store, range(len(self.patch_store)))
        return CropDataset(self.patch_store, windows, self.patch_size, self.seed, self._labels)

    def validation_images(self) -> StoredImages:
        """The photographs held out; warns when the set was distilled from them."""
        if leak := self._leak():
            rank_zero_warn(leak)
        return super().validation_images()

    def distilled_patches(self) -> Iterator[DistilledPatch]:
        """The patches whole, with the metadata that they have."""
        for patch, line in zip(super().distilled_patches(), self.distilled_set.metadata, strict=True):
            yield DistilledPatch(patch.hr, patch.lr, line)

    @cached_property
    def _images(self) -> DistilledSet:
        """The set, or what its latents stand for."""
        return images_of(self.distilled_set, self.cache, self._device)

    @property
    def _labels(self) -> NDArray[np.int64] | None:
        labels = [line.get("pseudo_label") for line in self.distilled_set.metadata]
        return np.array(labels, dtype=np.int64) if all(type(label) is int for label in labels) else None

    @property
    def _folder(self) -> Path:
        return resolve_folder(self.distilled, "data.distilled")

    def _sources(self) -> list[Source]:
        folder, stored = self._images.folder, self._images.scale == self.scale
        names = [(line["file_name"], line.get("lr_file_name")) for line in self._images.metadata]
        return [Source(hr, folder / hr, folder / lr if lr and stored else None) for hr, lr in names]

    def _refuse_sizes(self) -> None:
        for height, width in self.distilled_set.sizes:
            if min(height, width) < self.patch_size:
                raise ValueError(
                    f"data.patch_size is {self.patch_size} but {self.distilled} has patches of {width} x {height} "
                    f"pixels; set a patch size of at most {min(height, width)}"
                )
            if height % self.scale or width % self.scale:
                raise ValueError(
                    f"{self.distilled} has patches of {width} x {height} pixels, which are no multiples of data.scale "
                    f"{self.scale}; it was made for {self.distilled_set.scale}"
                )

    def _leak(self) -> str | None:
        """One line when photographs that validate may have been distilled from."""
        source, result = self.distilled_set.provenance.get("source_fingerprint"), "validation figures may be too good"
        if source is None or self.distilled_set.scale != self.scale:  # fingerprints of two scales do not compare
            return None
        if source != self.store.index.fingerprint:
            return (
                f"{self.distilled} was distilled from other photographs than those of data.root {self.root}; "
                f"where they overlap with the {len(self.held_out)} that validate, {result}"
            )
        sources = {str(line.get("source")) for line in self.distilled_set.metadata}
        seen = [name for _, name in self.held_out if name in sources]
        return (
            None
            if not seen
            else (
                f"{len(seen)} of the {len(self.held_out)} photographs that validate, such as {seen[0]}, are in "
                f"{self.distilled}, so {result}; set data.validation and data.split_seed as when it was distilled"
            )
        )
