"""What a distilled set is made of, in memory and by the names of its files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.budget import DataBudget

SCHEMA = 1
METADATA = "metadata.jsonl"
PROVENANCE = "provenance.json"
CARD = "README.md"
LATENTS = "latents.safetensors"
"""What a set of latents holds in place of images: one tensor."""

IMAGE_NAME = re.compile(r"(images|lr_x\d+)/\d{6,}\.png")
"""What the images of a set are called, relative to its folder."""

FILE_KEYS = ("file_name", "lr_file_name")
"""Keys of a line of metadata that name its files; `datasets` makes the image columns `image` and `lr` of them."""

AGAIN = "restore it from a copy, or write the set again"
"""What to do about a damaged set."""

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class DistilledPatch:
    """One image of a distilled set.

    Attributes:
        hr: uint8 RGB, (H, W, 3), sides multiples of the scale.
        lr: uint8 RGB, (H / scale, W / scale, 3); None where it is the bicubic reduction of `hr`.
        metadata: plain values for its line of metadata.jsonl, such as pseudo_label, score, source, seed; the same keys
            for all patches of a set. Names of files in it (of a set that the patch comes from) are passed over.
        latent: float16 or float32, what a generator makes `hr` of. Where all patches of a set have one, of one shape,
            the set holds these and no images; there is no `lr` then.
    """

    hr: Pixels
    lr: Pixels | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    latent: NDArray[np.floating[Any]] | None = None


@dataclass(frozen=True)
class DistilledSet:
    """A set on disk.

    Attributes:
        folder: where it lies, absolute.
        provenance: content of provenance.json.
        metadata: lines of metadata.jsonl, in order; each has `file_name` and, where LR is stored, `lr_file_name`;
            neither in a set of latents.
    """

    folder: Path
    provenance: dict[str, Any]
    metadata: list[dict[str, Any]]

    @property
    def budget(self) -> DataBudget:
        """How much data it is; bytes are those of the HR and LR files, or of the latents."""
        return DataBudget(**self.provenance["budget"])

    @property
    def holds_latents(self) -> bool:
        """Whether it holds latents in place of images."""
        return LATENTS in self.provenance["sha256"]

    @property
    def scale(self) -> int:
        """Factor between HR and the LR that it was made for."""
        return int(self.provenance["scale"])

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of HR in pixels, each that occurs once."""
        return [(height, width) for height, width in self.provenance["sizes"]]
