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
        bytes: on disk: of the photographs as they are, or of the patches as PNG, with their LR where it is stored.
        percent: of the full set's HR pixels, 0 to 100; None where the full set is not known.
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
        share = "" if self.percent is None else f", {self.percent:.3g} % of the full set"
        teacher = "" if self.teacher is None else f", targets of a teacher ({self.teacher})"
        images = "1 image" if self.images == 1 else f"{self.images} images"
        return f"{images}, {self.pixels / 1e6:.2f} MP, {self.bytes / 1e6:.2f} MB{share}{teacher}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)
