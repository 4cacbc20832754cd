"""What one has without a network, and what readers call it: bicubic upscaling, or where images are restored, the input.

All trainings of a comparison have one scale, and with it one name for this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from comparison.results.rows import Row
    from comparison.results.statistics import Summary

Untrained = Literal["bicubic", "input"]


class Wording(NamedTuple):
    """How texts speak of it.

    Attributes:
        label: beside a line, a figure or a picture.
        short: in a formula or half a sentence.
        phrase: in a sentence.
        training: the training of a network on a regime's data.
    """

    label: Untrained
    short: str
    phrase: str
    training: str

    @property
    def opening(self) -> str:
        """The phrase at the start of a sentence."""
        return self.phrase[0].upper() + self.phrase[1:]


_WORDINGS: dict[Untrained, Wording] = {
    "bicubic": Wording("bicubic", "bicubic", "bicubic upscaling", "SR training"),
    "input": Wording("input", "the input", "the degraded input", "training of the network"),
}


def untrained_of(values: Mapping[str, Any]) -> Untrained:
    """Which of the two the figures of a test set or image, by name as in `results.json`, are compared with."""
    return "bicubic" if "psnr_y_bicubic" in values else "input"


def wording(lines: Sequence[Row] | Sequence[Summary]) -> Wording:
    """The words for a comparison; without any lines those of super-resolution."""
    return _WORDINGS[lines[0].untrained if lines else "bicubic"]
