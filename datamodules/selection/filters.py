"""Filters: which candidates stay, by their score alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datamodules.selection.interfaces import Filter, Floats

REPORTED = (0, 5, 25, 50, 75, 95, 100)
"""Percentiles of the scores that an error gives."""


class Threshold(Filter):
    """Keeps absolute scores, such as a PSNR of bicubic below 23 dB (Cho et al., IEEE SPL 2025, arXiv 2509.14777).

    Args:
        below: keep scores less than this, in the criterion's unit; null is no such bound.
        above: keep scores greater than this; null is no such bound.

    Raises:
        ValueError: when neither is given, or no number lies between the two.
    """

    def __init__(self, below: float | None = None, above: float | None = None) -> None:
        if below is None and above is None:
            raise ValueError("Threshold has neither `below` nor `above`; set one of them, such as below: 23")
        if below is not None and above is not None and below <= above:
            raise ValueError(
                f"Threshold keeps nothing below {below} and above {above}; set `below` larger than `above`"
            )
        self.below = below
        self.above = above

    def keep(self, scores: Floats) -> NDArray[np.bool_]:
        """Those between the bounds; see `Filter.keep`."""
        kept = np.ones(len(scores), dtype=np.bool_)
        if self.below is not None:
            kept &= scores < self.below
        if self.above is not None:
            kept &= scores > self.above
        if not kept.any():
            raise ValueError(
                f"Threshold(below={self.below}, above={self.above}) keeps none of {len(scores)} candidates; "
                f"their scores are {_quantiles(scores)}: set a bound within them"
            )
        return kept


class Band(Filter):
    """Keeps a band of the scores' quantiles, both ends included; never leaves nothing.

    Rules that it writes: 0.25 to 0.75, patches neither flat nor extreme; 0 to 0.95 of a network's loss, all but the
    hardest 5 %, which hurt (Moser et al., arXiv 2403.17083); 0.98 to 1 of the entropy, the most complex 2 % (TripleD,
    arXiv 2504.14826); 0.5 to 1 of the gradient magnitude (the first step of DCSR, IEEE SPL 2023).

    Args:
        low: quantile of the lowest score kept, from 0.
        high: quantile of the highest score kept, up to 1 and above `low`.

    Raises:
        ValueError: when the two are not in that order.
    """

    def __init__(self, low: float = 0.25, high: float = 0.75) -> None:
        if not 0 <= low < high <= 1:
            raise ValueError(f"Band(low={low}, high={high}): expected quantiles with 0 <= low < high <= 1")
        self.low = low
        self.high = high

    def keep(self, scores: Floats) -> NDArray[np.bool_]:
        """Those of the band, equal scores all alike; see `Filter.keep`."""
        # Scores that occur, not values between two of them: a narrow band of few candidates would hold none.
        lowest, highest = np.quantile(scores, [self.low, self.high], method="nearest")
        return (scores >= lowest) & (scores <= highest)


def _quantiles(scores: Floats) -> str:
    values = np.quantile(scores, [percent / 100 for percent in REPORTED], method="nearest")
    return ", ".join(f"{value:g} ({percent} %)" for percent, value in zip(REPORTED, values, strict=True))
