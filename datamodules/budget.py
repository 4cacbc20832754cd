"""How much data a set is: the figure beside which every result stands."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class DataBudget:
    """Size of a training set.

    Attributes:
        images: photographs or patches.
        pixels: HR pixels in all.
        bytes: on disk: of the photographs as they are, or of the patches as PNG, with their LR where it is stored, or
            of the latents that are stored in their place.
        percent: of the full set's HR pixels; None where the full set is not known. Pixels that patches share count once
            for each of them, here and in `pixels`, so that a choice among overlapping candidates can exceed 100.
        teacher: what trained teacher its targets were made with, in a few words; None without one. Rows with a teacher
            are never ranked among those without.
    """

    images: int
    pixels: int
    bytes: int
    percent: float | None
    teacher: str | None = None

    def describe(self) -> str:
        """One line: "97 images, 0.40 MP, 0.90 MB, 0.68 % of the full set"."""
        size = f", {self.pixels / 1e6:.2f} MP, {self.bytes / 1e6:.2f} MB"
        share = "" if self.percent is None else f"{self._share} of the full set"
        return f"{self._images}{size}{share}{self._teacher}"

    def brief(self) -> str:
        """Without the sizes: "97 images, 0.68 %"."""
        return f"{self._images}{self._share}{self._teacher}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @property
    def _images(self) -> str:
        return "1 image" if self.images == 1 else f"{self.images} images"

    @property
    def _share(self) -> str:
        return "" if self.percent is None else f", {self.percent:.3g} %"

    @property
    def _teacher(self) -> str:
        return "" if self.teacher is None else f", targets of a teacher ({self.teacher})"
