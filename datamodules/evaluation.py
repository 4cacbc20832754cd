"""Whole images to evaluate on, and images to upscale: one per batch, each with a name."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.bicubic import downscale
from datamodules.image_files import UnreadableImage, read_rgb, read_rgba
from datamodules.pair import PairBatch, collate_pairs
from datamodules.patch_store import PatchStore


class EvaluationSet(Dataset[tuple[Tensor, Tensor, int]]):
    """A named set of whole images; samples are (lr, hr, index) with uint8 (3, H, W) pixels.

    Attributes:
        name: what its metrics are called by, such as Set5.
        names: of the images, in the order of their indices.
    """

    name: str
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        lr, hr = self.read(index)
        return _to_tensor(lr), _to_tensor(hr), index

    @abstractmethod
    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """LR and HR of one image, uint8 (H, W, 3); HR is exactly scale times as large."""

    def read_hr(self, index: int) -> np.ndarray:
        """HR of one image alone, which is less work where LR would be made from it."""
        return self.read(index)[1]


class StoredImages(EvaluationSet):
    """Images of a patch store, such as the validation split.

    Args:
        name: of the set.
        store: pixels.
        images: image numbers in the store.
    """

    def __init__(self, name: str, store: PatchStore, images: list[int]) -> None:
        self.name = name
        self.names = [store.index.names[image] for image in images]
        self._store = store
        self._images = images

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """See EvaluationSet."""
        image = self._images[index]
        lr, hr = self._store.lr(image).copy(), self._store.hr(image).copy()
        self._store.release()
        return lr, hr

    def read_hr(self, index: int) -> np.ndarray:
        """See EvaluationSet."""
        hr = self._store.hr(self._images[index]).copy()
        self._store.release()
        return hr


@dataclass(frozen=True)
class PairedFile:
    """An HR file and, where the set has one, its LR file."""

    name: str
    hr: Path
    lr: Path | None


class PairedFiles(EvaluationSet):
    """Images read from files; LR is read too, or made by exact bicubic in MATLAB's uint8 mode.

    Args:
        name: of the set.
        files: one entry per image.
        scale: integer factor between HR and LR; HR is cropped to multiples of it.
    """

    def __init__(self, name: str, files: list[PairedFile], scale: int) -> None:
        self.name = name
        self.names = [file.name for file in files]
        self._files = files
        self._scale = scale

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """See EvaluationSet.

        Raises:
            ValueError: when an LR file does not have the size that its HR asks for.
        """
        file, scale = self._files[index], self._scale
        hr = self.read_hr(index)
        height, width = hr.shape[:2]
        if file.lr is None:
            return downscale(_to_tensor(hr), scale).permute(1, 2, 0).numpy(), hr
        lr = read_rgb(file.lr)
        if lr.shape[:2] != (height // scale, width // scale):
            raise ValueError(
                f"{file.lr}: LR is {lr.shape[1]} x {lr.shape[0]} pixels but {file.hr.name} at x{scale} "
                f"asks for {width // scale} x {height // scale}; mend or remove the LR file"
            )
        return lr, hr

    def read_hr(self, index: int) -> np.ndarray:
        """See EvaluationSet."""
        hr = read_rgb(self._files[index].hr)
        height, width = (side - side % self._scale for side in hr.shape[:2])
        return hr[:height, :width]


def evaluation_loader(images: EvaluationSet, num_workers: int) -> DataLoader[PairBatch]:
    """One image per batch, in order."""
    return DataLoader(images, batch_size=1, num_workers=num_workers, collate_fn=collate_pairs)  # type: ignore[arg-type]


@dataclass
class UpscaleInput:
    """An image to upscale.

    Attributes:
        lr: float32 in [0, 1], (1, 3, H, W).
        alpha: float32 in [0, 1], (1, 1, H, W); None for an opaque image.
        name: path relative to the root, with its suffix.
    """

    lr: Tensor
    alpha: Tensor | None
    name: str


class ImagesToUpscale(Dataset[UpscaleInput | UnreadableImage]):
    """Images without a truth, for `predict`; a file that cannot be read yields the error, and the others go on.

    Args:
        root: that names are relative to.
        paths: image files below it.
    """

    def __init__(self, root: Path, paths: list[Path]) -> None:
        self.root = root
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> UpscaleInput | UnreadableImage:
        try:
            rgb, alpha = read_rgba(self.paths[index])
        except UnreadableImage as error:
            return error
        transparency = None if alpha is None else _to_tensor(alpha[..., None])[None].float() / 255
        name = self.paths[index].relative_to(self.root).as_posix()
        return UpscaleInput(_to_tensor(rgb)[None].float() / 255, transparency, name)


def _to_tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
