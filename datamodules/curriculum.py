"""A curriculum: simple windows first, complex and uncertain ones later, for whatever crops are drawn from.

The two-stage training of TripleD (Su et al., arXiv 2504.14826): "early: low-complexity samples; late: complex and
uncertain ones". Running numbers of samples stay as they are; what changes is the window that each is cut from. The main
process decides that, from the weights in force at the running number, because workers fetch ahead of the training loop:
new weights come into force a fixed number of batches after they are known, `LAG`, so that the stream is the same for
any number of workers and processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.augmentation.counter_rng import uniform
from datamodules.crops import CropDataset, shares_to_bounds, windows_at
from datamodules.loader import AHEAD
from datamodules.selection.interfaces import Floats

LAG = 32
"""Batches from the measurement of windows to the first sample that is drawn by it."""

MOST_WORKERS = LAG // AHEAD
"""That never fetch what is decided later."""

BLOCK = 1024
"""Samples that are drawn at a time: one by one they would cost half a millisecond a batch."""

UNKNOWN = -1.0
"""Rank of a window that was not measured yet."""


class WindowDraws:
    """Which window each sample is cut from: shares of the windows, each in force from a running number on.

    A sample's position in [0, 1) (`CropDataset.positions`) is looked up in the shares in force at its running number:
    draws are as evenly spread as without a curriculum, and with shares that are the windows' areas they are the same.

    Args:
        patches: whose windows are drawn.
    """

    def __init__(self, patches: CropDataset) -> None:
        self.patches = patches
        self._starts: list[int] = []
        self._bounds: list[Tensor] = []
        self._blocks: dict[int, Tensor] = {}

    def publish(self, start: int, shares: Floats) -> None:
        """Puts shares of the windows, (W,) of any sum, in force from a running number on, for good.

        No sample from `start` on may have been drawn before.
        """
        while self._starts and self._starts[-1] >= start:
            self._starts.pop()
            self._bounds.pop()
        self._starts.append(start)
        self._bounds.append(shares_to_bounds(shares))
        self._blocks.clear()

    def forget(self, position: int) -> None:
        """Drops what is no longer in force at a running number."""
        while len(self._starts) > 1 and self._starts[1] <= position:
            del self._starts[0], self._bounds[0]

    def __call__(self, numbers: Tensor) -> Tensor:
        """Number of the window that each sample is cut from.

        Args:
            numbers: running numbers, int64 (B,), from the first shares on that are not forgotten.

        Returns:
            int64, (B,).
        """
        blocks = numbers // BLOCK
        windows = torch.empty_like(numbers)
        for block in blocks.unique().tolist():
            here = blocks == block
            windows[here] = self._block(block)[numbers[here] % BLOCK]
        return windows

    def _block(self, block: int) -> Tensor:
        """Windows of the samples from block * BLOCK on, int64 (BLOCK,); any where nothing is in force."""
        if block not in self._blocks:
            while len(self._blocks) > 1:  # one for those who fetch ahead, one for those who look back
                del self._blocks[next(iter(self._blocks))]
            numbers = torch.arange(BLOCK) + block * BLOCK
            positions = self.patches.positions(numbers)
            valid = torch.searchsorted(torch.tensor(self._starts), numbers, right=True) - 1
            choices = [windows_at(positions, bounds) for bounds in self._bounds]
            self._blocks[block] = torch.stack(choices).gather(0, valid.clamp(min=0)[None])[0]
        return self._blocks[block]

    def state_dict(self) -> dict[str, Any]:
        """What is in force and pending."""
        return {"starts": list(self._starts), "bounds": torch.stack(self._bounds)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what was in force and pending."""
        self._starts, self._bounds = list(state["starts"]), list(state["bounds"])
        self._blocks.clear()


@dataclass(frozen=True)
class Shares:
    """How strongly the stages choose.

    Attributes:
        easy: share of all pixels, the least complex ones, that stage one draws from.
        hard: share of all pixels, the most complex and uncertain ones, that stage two draws from.
        everywhere: share of the draws, in both stages, that come from all windows as usual.
    """

    easy: float
    hard: float
    everywhere: float


class TwoStages:
    """The curriculum over the windows of a dataset: what is known of them, and which are drawn when.

    Uncertainty is kept as rank among the windows that were measured together, so that measurements of different times
    compare although the model has become surer of everything. A window that was not measured yet goes by its
    complexity alone.

    Args:
        patches: whose windows are drawn.
        complexity: of each window, (W,), the higher, the more complex.
        shares: how strongly the stages choose.
        switch: running number of the first sample of stage two.
    """

    def __init__(self, patches: CropDataset, complexity: Floats, shares: Shares, switch: int) -> None:
        self.draws = WindowDraws(patches)
        self.switch = switch
        self._patches = patches
        self._shares = shares
        self._complexity = complexity
        self._uncertainty = np.full(len(complexity), UNKNOWN)
        self._measured = 0

    def begin(self, position: int) -> None:
        """Puts both stages in force, from a running number on; nothing may have been drawn beyond it."""
        self.draws.publish(position, self._easy())
        self.draws.publish(max(position, self.switch), self._hard())

    def stage(self, number: int) -> int:
        """1 or 2: of the sample with a running number."""
        return 1 + (number >= self.switch)

    def to_measure(self, most: int) -> tuple[Tensor, Tensor]:
        """The windows whose turn it is: all of them get theirs equally often, those of one turn lie anywhere.

        Args:
            most: windows at a time, at least 1.

        Returns:
            Running numbers to cut them by, which no training sample has, and the windows, all different; int64 (N,).
        """
        count = len(self._complexity)
        turns = torch.arange(self._measured, self._measured + min(most, count))
        order = uniform(self._patches.seed, "measured windows", torch.arange(count))[:, 0].argsort(stable=True)
        return -1 - turns, order[turns % count]

    def learn(self, windows: Tensor, uncertainty: Tensor, number: int) -> None:
        """Draws stage two by what was measured, from a running number on, but not before the switch.

        Args:
            windows: that were measured, as `to_measure` gave them, int64 (N,).
            uncertainty: of each, (N,), in any unit.
            number: `LAG` batches after what the training loop has taken.
        """
        self._uncertainty[windows.numpy()] = ranks(uncertainty.double().cpu().numpy())
        self._measured += len(windows)
        self.draws.publish(max(number, self.switch), self._hard())

    def switch_at(self, number: int) -> None:
        """Moves the switch forward to a running number, `LAG` batches after what the training loop has taken."""
        if number < self.switch:
            self.switch = number
            self.draws.publish(number, self._hard())

    def state_dict(self) -> dict[str, Any]:
        """All that is not told by the constructor's arguments."""
        known = {"switch": self.switch, "measured": self._measured, "uncertainty": torch.from_numpy(self._uncertainty)}
        return {**known, "draws": self.draws.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self.switch, self._measured = state["switch"], state["measured"]
        self._uncertainty = state["uncertainty"].numpy().copy()
        self.draws.load_state_dict(state["draws"])

    def _easy(self) -> Floats:
        return favouring(self._patches.areas, -self._complexity, self._shares.easy, self._shares.everywhere)

    def _hard(self) -> Floats:
        complexity = ranks(self._complexity)
        uncertainty = np.where(self._uncertainty == UNKNOWN, complexity, self._uncertainty)
        both = (complexity + uncertainty) / 2
        return favouring(self._patches.areas, both, self._shares.hard, self._shares.everywhere)


def favouring(areas: Floats, scores: Floats, share: float, everywhere: float) -> Floats:
    """Shares of the draws that windows get: some go to all by their area, the others to those with the highest scores.

    Args:
        areas: of the windows in pixels, (W,).
        scores: of the windows, (W,); of equal ones the first count as higher.
        share: of all pixels, in (0, 1]: the fewest windows with the highest scores that have as many are favoured.
        everywhere: share of the draws that go to all windows, in [0, 1].

    Returns:
        (W,), of sum 1.
    """
    order = np.argsort(-scores, kind="stable")
    covered = np.cumsum(areas[order])
    count = int(np.searchsorted(covered, share * covered[-1] * (1 - 1e-12))) + 1
    favoured = np.zeros_like(areas)
    favoured[order[:count]] = areas[order[:count]]
    shares: Floats = everywhere * areas / areas.sum() + (1 - everywhere) * favoured / favoured.sum()
    return shares


def ranks(values: Floats) -> Floats:
    """Share of the values below each, between 0 and 1; equal values count half: (N,) to (N,)."""
    ordered = np.sort(values)
    ranked: Floats = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2
    return ranked / len(values)
