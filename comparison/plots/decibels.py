"""The y axis of PSNR: made for what a reader compares, so that one very bad regime does not squash all others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from comparison.plots.panels import Panel
from comparison.plots.remarks import ROW, Floor, Remark, floor_remark, mark_floor, rows, value_remark, write
from comparison.plots.style import Palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FAR = 1.0
"""A value is far below the baseline from this many times the spread of the baseline and the reference on."""

_LEAST_FAR = 0.25
"""No value less than this below the baseline, in dB, is far: baseline and reference may lie side by side."""

_LEAST_RANGE = 0.1
"""Of an axis, in dB: less of a difference is not to look like one."""

_IN_RANGE = 0.15
"""What one has without a network is a line where it lies outside the other values by at most this share of their range,
else a remark."""

_LEAST_SHARE = 0.3
"""Of a common axis that each panel fills; where one would not, the network's panels have axes of their own."""

_BOTTOM, _TOP = 0.06, 0.14  # shares of an axis without values; the name of full data is at the top


class Trace(NamedTuple):
    """A curve, or a single point, that an axis is made for.

    Attributes:
        regime: that it is about.
        x: where its points are, (N,).
        psnr: means over seeds, in dB, (N,).
        std: half the height of its error bars or its band, in dB, (N,).
    """

    regime: str
    x: NDArray[np.float64]
    psnr: NDArray[np.float64]
    std: NDArray[np.float64]


class Range(NamedTuple):
    """The values that an axis has to hold, in dB."""

    low: float
    high: float

    @property
    def size(self) -> float:
        """In dB."""
        return self.high - self.low


def psnr_range(traces: Sequence[Trace], palette: Palette) -> Range:
    """The values that matter: the reference, the baseline, and whatever is not far below them.

    Far is as far below the baseline's lowest value as the baseline and the reference are apart (times `_FAR`), and
    never less than `_LEAST_FAR`. Error bars count no further than that to either side, and those of values that are
    far below do not count. Without a baseline everything matters.

    Args:
        traces: at least one.
        palette: that knows the reference and the baseline.
    """
    psnr = np.concatenate([trace.psnr for trace in traces])
    std = np.concatenate([trace.std for trace in traces])
    bottom, top = _bounds(traces, palette)
    near = psnr >= bottom
    low = float(np.maximum(psnr - std, bottom)[near].min())
    high = max(float(psnr.max()), float(np.minimum(psnr + std, top)[near].max()))
    return Range(min(low, high - _LEAST_RANGE), high)


def _bounds(traces: Sequence[Trace], palette: Palette) -> tuple[float, float]:
    if all(trace.regime != palette.baseline for trace in traces):
        return -math.inf, math.inf
    held = np.concatenate([trace.psnr for trace in traces if trace.regime in (palette.reference, palette.baseline)])
    far = max(_FAR * float(np.ptp(held)), _LEAST_FAR)
    return float(held.min()) - far, float(held.max()) + far


def scale_psnr(
    axes: Mapping[Panel, Axes],
    traces: Mapping[Panel, Sequence[Trace]],
    palette: Palette,
    floor: Floor | None = None,
) -> None:
    """The same y axis for all panels of a network, as long as each of them fills enough of it; else each its own.

    A trace whose last value is below the axis has a marker at the lower edge there, with the value beside it.

    Args:
        axes: of a figure's panels, with their final x axes.
        traces: of each panel, at least one.
        palette: with all their regimes.
        floor: what one has without a network: a line where that squeezes nothing, else a remark in the corner.
    """
    for network in dict.fromkeys(panel.network for panel in axes):
        own = {axes[panel]: traces[panel] for panel in axes if panel.network == network}
        ranges = {each: psnr_range(group, palette) for each, group in own.items()}
        common = Range(min(held.low for held in ranges.values()), max(held.high for held in ranges.values()))
        if min(held.size for held in ranges.values()) >= _LEAST_SHARE * common.size:
            _limit(own, common, palette, floor)
            continue
        for each, group in own.items():
            _limit({each: group}, ranges[each], palette, floor)
            each.tick_params(labelleft=True)


def _limit(panels: Mapping[Axes, Sequence[Trace]], held: Range, palette: Palette, floor: Floor | None) -> None:
    """Panels with the same axis: its limits, with room for the remarks at the lower edge, and these."""
    if floor is not None and abs(floor.psnr - (held.low + held.high) / 2) <= (0.5 + _IN_RANGE) * held.size:
        held = Range(min(held.low, floor.psnr), max(held.high, floor.psnr))
    remarks = {axes: _below(axes, traces, held.low, palette) for axes, traces in panels.items()}
    if floor is not None and floor.psnr < held.low:
        remarks = {axes: [*below, floor_remark(floor)] for axes, below in remarks.items()}
    bottom = _BOTTOM + ROW * max(1 + max(rows(axes, below), default=-1) for axes, below in remarks.items())
    unit = held.size / (1 - bottom - _TOP)
    end = held.low - bottom * unit
    for axes, below in remarks.items():
        axes.set_ylim(end, held.high + _TOP * unit)
        needed = [remark for remark in below if remark.psnr < end]  # the room for remarks may show a value itself
        for remark, row in zip(needed, rows(axes, needed), strict=True):
            write(axes, remark, row)
        if floor is not None and floor.psnr >= held.low:
            mark_floor(axes, floor)


def _below(axes: Axes, traces: Sequence[Trace], low: float, palette: Palette) -> list[Remark]:
    """The last values of the traces that end below what the axis has to hold, from left to right."""
    to_shares = axes.transScale + axes.transLimits
    found = [
        value_remark(float(to_shares.transform((trace.x[-1], 1.0))[0]), trace.psnr[-1], palette[trace.regime].colour)
        for trace in traces
        if trace.psnr[-1] < low
    ]
    return sorted(found, key=lambda remark: remark.x)
