"""Relabelling: targets mixed with what a trained SR network makes of the LR, an edit that any training set can get."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from datamodules.distilled import DistilledPatch, Pixels
from datamodules.pair import to_uint8
from lightning_modules.distiller import Distiller
from lightning_modules.networks.trained import TrainedNetwork, find_weights, load_trained
from lightning_modules.upscaling import upscale

AT_ONCE = 2**18
"""LR pixels that the teacher gets at once at most: 64 patches of 64 x 64, or four tiles."""

TILE, OVERLAP = 256, 32
"""LR pixels: larger images go through the teacher in such tiles (see `upscale`)."""


class Relabelling(Distiller):
    """New targets for the patches of a datamodule: HR' = (1 - weight) HR + weight teacher(LR); the LR stays.

    The detail that LR cannot tell, and that a small set would be learned by heart, shrinks by 1 - weight; with 1 this
    is distillation of the teacher alone (Hinton et al., arXiv 1503.02531). The teacher was trained on data of its own,
    so that a set made this way is marked with them, and its results are compared with one another only.

    Args:
        teacher: a checkpoint, weights, or the folder of a run.
        weight: share of the teacher in the new targets, above 0 and up to 1.
        self_ensemble: the teacher's answer is the mean over the eight flips and rotations; takes eight times as long.

    Raises:
        ValueError: when the weight is out of range.
    """

    method: ClassVar[str] = "relabelling"

    def __init__(self, teacher: str, weight: float = 0.5, self_ensemble: bool = False) -> None:
        super().__init__()
        if not 0 < weight <= 1:
            raise ValueError(f"model.weight is {weight}; expected the teacher's share, above 0 and up to 1")
        self.teacher = teacher
        self.weight = weight
        self.self_ensemble = self_ensemble
        self.network: torch.nn.Module | None = None
        self._trained: TrainedNetwork | None = None

    def setup(self, stage: str) -> None:
        """Reads the teacher.

        Raises:
            FileNotFoundError: when it is not there.
            ValueError: when it is no SR network, or one for another scale than the data's.
        """
        trained = load_trained(self.teacher)
        scale = self.trainer.datamodule.scale  # type: ignore[attr-defined]
        if trained.scale != scale:
            raise ValueError(
                f"model.teacher {self.teacher} upscales x{trained.scale} but data.scale is {scale}; "
                "give a teacher trained at the data's scale"
            )
        self._trained, self.network = trained, trained.network

    def predict_step(self, batch: list[DistilledPatch], batch_idx: int) -> list[DistilledPatch]:
        """The patches with new targets."""
        assert self._trained is not None
        relabelled = list(batch)
        for numbers in _groups(batch, self._trained.scale):
            targets = self._targets([batch[number] for number in numbers])
            for number, hr in zip(numbers, targets, strict=True):
                relabelled[number] = replace(batch[number], hr=hr)
        return relabelled

    def record(self) -> dict[str, Any]:
        """The teacher: file, digest, share, and what its training cost and learned from, where its run tells."""
        assert self._trained is not None
        name = Path(*find_weights(self.teacher).parts[-3:])  # RUN/checkpoints/best.ckpt says more than best.ckpt
        teacher = {"file": name.as_posix(), "sha256": self._trained.sha256, "weight": self.weight}
        return {"teacher": {**teacher, **self._trained.record}}

    def _targets(self, patches: Sequence[DistilledPatch]) -> Pixels:
        assert self._trained is not None
        hr = self._images(patch.hr for patch in patches)
        lr = self._images(patch.lr for patch in patches)
        network, scale = self._trained.network, self._trained.scale
        answer = upscale(network, lr, scale, tile=TILE, overlap=OVERLAP, self_ensemble=self.self_ensemble)
        mixed = (1 - self.weight) * hr + self.weight * answer
        return to_uint8(mixed).permute(0, 2, 3, 1).cpu().numpy()

    def _images(self, pixels: Iterable[Pixels | None]) -> Tensor:
        """float32 in [0, 1], (B, 3, H, W), on the module's device."""
        stacked = np.stack([image for image in pixels if image is not None])
        return torch.from_numpy(stacked).to(self.device).permute(0, 3, 1, 2).float() / 255


def _groups(patches: Sequence[DistilledPatch], scale: int) -> Iterator[list[int]]:
    """Positions of the patches: those of one size together, as many as the teacher may get at once."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    for number, patch in enumerate(patches):
        sizes.setdefault(patch.hr.shape[:2], []).append(number)
    for (height, width), numbers in sizes.items():
        count = max(1, AT_ONCE * scale**2 // (height * width))
        yield from (numbers[at : at + count] for at in range(0, len(numbers), count))
