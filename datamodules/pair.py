"""The batch that every datamodule yields: HR patches, their LR and an index that identifies each sample."""

from __future__ import annotations

from dataclasses import dataclass, replace

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

    Raises:
        ValueError: when the three do not fit together; the message gives the shapes.
    """

    lr: Tensor
    hr: Tensor
    index: Tensor

    def __post_init__(self) -> None:
        lr, hr = tuple(self.lr.shape), tuple(self.hr.shape)
        sound = len(lr) == len(hr) == 4 and lr[:2] == hr[:2] and min(lr[2:]) > 0 and self.index.shape == lr[:1]
        if not sound or hr[2] % lr[2] or hr[3] % lr[3] or hr[2] // lr[2] != hr[3] // lr[3]:
            raise ValueError(
                f"LR {lr}, HR {hr} and index {tuple(self.index.shape)} are not a batch of pairs: "
                "expected (B, C, H, W), (B, C, scale*H, scale*W) and (B,)"
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
        return PairBatch(*(t.to(device, non_blocking=non_blocking) for t in (self.lr, self.hr, self.index)))

    def pin_memory(self) -> PairBatch:
        """The batch in page-locked memory (DataLoader calls this)."""
        return PairBatch(self.lr.pin_memory(), self.hr.pin_memory(), self.index.pin_memory())

    def __len__(self) -> int:
        return self.lr.shape[0]


def collate_pairs(samples: list[tuple[Tensor, Tensor, int]]) -> PairBatch:
    """Stacks (lr, hr, index) samples, uint8 (3, H, W), into a batch of floats."""
    lr, hr, index = zip(*samples, strict=True)
    return PairBatch(torch.stack(lr), torch.stack(hr), torch.tensor(index)).to_float()
