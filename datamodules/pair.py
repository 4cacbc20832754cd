"""The batch that every datamodule yields: HR patches, their LR and an index that identifies each sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass
class PairBatch:
    """HR images or patches and their LR counterparts, in register.

    Pixels are float32 in [0, 1]; only training batches on their way to the device are uint8, a quarter of the traffic
    (`SRDataModule.on_after_batch_transfer` makes them floats).

    Attributes:
        lr: (B, 3, H, W).
        hr: (B, 3, H * scale, W * scale) for an integer scale.
        index: int64, (B,). In training, the running number of the sample since the start of the run, from which every
            random decision about it is derived; in evaluation, the image's position in its set.
        label: pseudo-labels, int64 (B,); None where there are no classes.
        features: vectors of the patches that the samples come from, float32 (B, D); None unless asked for.

    Raises:
        ValueError: when they do not fit together; the message gives the shapes.
    """

    lr: Tensor
    hr: Tensor
    index: Tensor
    label: Tensor | None = None
    features: Tensor | None = None

    def __post_init__(self) -> None:
        self._check_pixels()
        self._check_conditions()

    def _check_pixels(self) -> None:
        lr, hr = tuple(self.lr.shape), tuple(self.hr.shape)
        sound = len(lr) == len(hr) == 4 and lr[:2] == hr[:2] and min(lr[2:]) > 0 and self.index.shape == lr[:1]
        if not sound or hr[2] % lr[2] or hr[3] % lr[3] or hr[2] // lr[2] != hr[3] // lr[3]:
            raise ValueError(
                f"LR {lr}, HR {hr} and index {tuple(self.index.shape)} are not a batch of pairs: "
                "expected (B, C, H, W), (B, C, scale*H, scale*W) and (B,)"
            )

    def _check_conditions(self) -> None:
        for name, values, dims in (("label", self.label, 1), ("features", self.features, 2)):
            if values is not None and (values.dim() != dims or len(values) != len(self)):
                expected = (len(self), "D")[:dims]
                raise ValueError(
                    f"{name} {tuple(values.shape)} does not fit a batch of {len(self)} pairs: "
                    f"expected ({', '.join(map(str, expected))})"
                )

    @property
    def scale(self) -> int:
        """Side of HR divided by side of LR."""
        return self.hr.shape[-1] // self.lr.shape[-1]

    def with_images(self, lr: Tensor, hr: Tensor) -> PairBatch:
        """The same samples with other pixels (what an augmentation returns)."""
        return replace(self, lr=lr, hr=hr)

    def to_float(self) -> PairBatch:
        """uint8 pixels as float32 in [0, 1]; float pixels as they are."""
        if self.hr.dtype != torch.uint8:
            return self
        return self.with_images(self.lr.float().div_(255), self.hr.float().div_(255))

    def to(self, device: torch.device, non_blocking: bool = False) -> PairBatch:
        """The batch on another device (Lightning calls this)."""
        return self._moved(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> PairBatch:
        """The batch in page-locked memory (DataLoader calls this)."""
        return self._moved(Tensor.pin_memory)

    def _moved(self, move: Callable[[Tensor], Tensor]) -> PairBatch:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {name: None if tensor is None else move(tensor) for name, tensor in tensors.items()}
        return replace(self, **moved)

    def __len__(self) -> int:
        return self.lr.shape[0]


def collate_pairs(samples: list[tuple[Tensor, Tensor, int]]) -> PairBatch:
    """Stacks (lr, hr, index) samples, uint8 (3, H, W), into a batch of floats."""
    lr, hr, index = zip(*samples, strict=True)
    return PairBatch(torch.stack(lr), torch.stack(hr), torch.tensor(index)).to_float()


def to_uint8(images: Tensor) -> Tensor:
    """Pixels as an image file holds them: clipped to [0, 1] and rounded to the nearest of 256 steps.

    Args:
        images: any shape, finite floating point numbers of any range; 1 is white.

    Returns:
        uint8 of the same shape, on the same device.
    """
    return (images.float().clamp(0, 1) * 255).round().to(torch.uint8)
