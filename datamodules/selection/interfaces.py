"""What a criterion, a filter, a feature extractor, labels and a selector are, and what passes between them.

    candidates -Criterion-> scores -Filter-> fewer -Features-> vectors -Labels-> classes -Selector-> chosen

Every part is a class whose constructor arguments are plain values, given in YAML by class name. A new rule is one such
class; `datamodules.selection` lists them.
"""

from __future__ import annotations

import hashlib
import inspect
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.pair import PairBatch

if TYPE_CHECKING:
    from datamodules.selection.candidates import Candidates

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]
Indices = NDArray[np.int64]

_PARSER = threading.Lock()
"""CPython 3.11's parser, which `inspect.getsource` uses, may raise a SystemError in two threads at once."""


class Part:
    """Something with settings, which cached outcomes are keyed by."""

    def identity(self) -> dict[str, Any]:
        """Class and settings as plain values; a part that reads a file adds the file's content digest."""
        public = {key: value for key, value in vars(self).items() if not key.startswith("_")}
        settings = {key: value.identity() if isinstance(value, Part) else value for key, value in public.items()}
        return {"class": self.code(), **settings}

    def code(self) -> str:
        """Name of the class; of a user's own with a digest of its source, so that an edited formula counts as another.

        What else that source calls is not looked at: delete the cache after editing it.
        """
        cls = type(self)
        if cls.__module__.startswith("datamodules.selection."):
            return cls.__name__
        try:
            with _PARSER:
                source = inspect.getsource(cls)
        except (OSError, TypeError):  # typed into an interpreter
            source = ""
        return f"{cls.__module__}.{cls.__qualname__} {hashlib.sha256(source.encode()).hexdigest()[:16]}"


class Criterion(Part, ABC):
    """A score per patch.

    Attributes:
        label: what is measured and its unit, for the axis of a plot: "PSNR of bicubic [dB]".
        complex_when: which end of the scale complex patches lie at.
    """

    label: ClassVar[str]
    complex_when: ClassVar[Literal["low", "high"]]

    @abstractmethod
    def __call__(self, pairs: PairBatch) -> Tensor:
        """Scores of a batch of patches, on the batch's device.

        Args:
            pairs: uint8 (B, 3, side, side) HR in [0, 255], and its LR as training sees it.

        Returns:
            (B,), floating point.
        """

    def cost(self) -> dict[str, Any]:
        """What it took to get ready before the first score, for the record: of a trained network, its training."""
        return {}


class Filter(Part, ABC):
    """Leaves out candidates by their score alone, before features are computed."""

    @abstractmethod
    def keep(self, scores: Floats) -> NDArray[np.bool_]:
        """Which of the candidates stay.

        Args:
            scores: (N,), N at least 1.

        Raises:
            ValueError: when none would stay; the message gives the scores' quantiles.
        """


class Features(Part, ABC):
    """A vector per patch."""

    @abstractmethod
    def load(self, device: torch.device) -> None:
        """Gets weights ready on the device; called once before the first batch. No constructor reads a file."""

    @abstractmethod
    def __call__(self, hr: Tensor) -> Tensor:
        """Vectors of a batch of patches.

        Args:
            hr: float32 RGB in [0, 1], (B, 3, side, side), on the device of `load`.

        Returns:
            float32, (B, D).
        """


@dataclass(frozen=True)
class Classes:
    """The classes of some candidates.

    Attributes:
        labels: class of each candidate, 0 .. K - 1, int64 (N,).
        sizes: members of each class, int64 (K,).
        silhouette: of the classes, -1 to 1, NaN where it is not defined; None where features do not decide them.
    """

    labels: Indices
    sizes: Indices
    silhouette: float | None = None


class Labels(Part, ABC):
    """A class per patch.

    Attributes:
        needs_features: whether `assign` reads the vectors of the patches.
    """

    needs_features: ClassVar[bool] = True

    @abstractmethod
    def describe(self) -> str:
        """A few words for the line that tells the rule: "7 classes"."""

    @abstractmethod
    def count(self, candidates: Candidates) -> int:
        """K."""

    def names(self, candidates: Candidates) -> tuple[str, ...] | None:
        """What the classes are called, in their order; None where nobody has named them.

        Asked before anything is computed.

        Raises:
            ValueError: when these candidates have no such classes.
        """
        return None

    @abstractmethod
    def assign(self, candidates: Candidates, kept: Indices, features: Vectors | None, seed: int) -> Classes:
        """The class of each candidate that the filters left.

        Args:
            candidates: all of them.
            kept: numbers of those that are left, int64 (N,), ascending.
            features: float32 (N, D), in memory or memory-mapped; None unless `needs_features`.
            seed: of all random decisions.

        Raises:
            ValueError: when the classes cannot be made of them.
        """


@dataclass(frozen=True)
class Pool:
    """The candidates that a selector chooses from, in a fixed order.

    Attributes:
        scores: (N,), rounded to six digits, so that the last bits, in which machines differ, decide nothing.
        features: float32 (N, D), in memory or memory-mapped; None unless the selector needs them.
        labels: classes 0 .. K - 1, int64 (N,); None unless asked for.
        numbers: of the candidates, int64 (N,), which random decisions are keyed by: one candidate more or less at the
            edge of a filter changes no other's luck. None counts from 0.
        reference: what the choice should resemble, scored and embedded as the candidates are; None is the pool itself.
    """

    scores: Floats
    features: Vectors | None = None
    labels: Indices | None = None
    numbers: Indices | None = None
    reference: Pool | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def subset(self, indices: Indices) -> Pool:
        """Some of the candidates, in the order of `indices`."""
        return replace(
            self,
            scores=self.scores[indices],
            features=None if self.features is None else self.features[indices],
            labels=None if self.labels is None else self.labels[indices],
            numbers=indices if self.numbers is None else self.numbers[indices],
        )

    def of_class(self, label: int) -> Pool:
        """The candidates of a pseudo-class; the reference, where it has labels, is that of the class too."""
        assert self.labels is not None
        members = self.subset(np.flatnonzero(self.labels == label))
        if self.reference is None or self.reference.labels is None:
            return members
        return replace(members, reference=self.reference.of_class(label))


class Selector(Part, ABC):
    """Chooses a number of candidates.

    Attributes:
        needs_features: whether `Pool.features` must be there.
        needs_labels: whether `Pool.labels` must be there.
        matches_reference: whether the choice is made to resemble `Pool.reference`; others do not look at it.
    """

    needs_features: bool = False
    needs_labels: bool = False
    matches_reference: bool = False

    @abstractmethod
    def select(self, pool: Pool, count: int, seed: int) -> Indices:
        """Chooses candidates; the same pool, count and seed give the same choice on every machine.

        Pools are the same too, where scores are computed from pixels alone and features without a network; what a
        trained network or k-means computes in float32 may differ in its last digits on another kind of machine.

        Args:
            pool: candidates.
            count: how many to choose, from 1 to `len(pool)`.
            seed: of all random decisions.

        Returns:
            int64 (count,), distinct positions in the pool; in the order chosen where there is one.
        """
