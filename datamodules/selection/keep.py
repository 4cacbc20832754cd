"""Keep: of more patches than a set is to have, such as a generator makes, those that it keeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from datamodules.augmentation.counter_rng import derive_seed
from datamodules.bicubic import downscale
from datamodules.distilled import DistilledPatch, Pixels
from datamodules.pair import PairBatch
from datamodules.selection.candidates import BATCH_PIXELS
from datamodules.selection.computed import FEATURE_BITS, SCORE_BITS, exact_inference, rounded
from datamodules.selection.criteria import PSNRBicubic
from datamodules.selection.features import Descriptor
from datamodules.selection.interfaces import Criterion, Features, Filter, Floats, Indices, Pool, Selector, Vectors
from datamodules.selection.selectors import Random

LABEL = "pseudo_label"
"""Key of a patch's metadata."""

Numbers = TypeVar("Numbers", Floats, Vectors)


@dataclass(frozen=True)
class Keep:
    """How a method that makes more patches than its budget chooses among them.

    Attributes:
        criterion: gives each patch a score; None is the grey PSNR of bicubic.
        filters: leave out patches by their score, one filter after the other; quantiles are of the patches made.
        features: give each patch a vector where the selector needs one; None is the descriptor without weights.
        selector: chooses among what the filters left; None is at random.
        match_real: whether the choice is to resemble the real patches instead of all that were made.

    Raises:
        ValueError: when `match_real` is set and the selector cannot.
    """

    criterion: Criterion | None = None
    filters: Sequence[Filter] = ()
    features: Features | None = None
    selector: Selector | None = None
    match_real: bool = False

    def __post_init__(self) -> None:
        if self.match_real and not self._selector.matches_reference:
            raise ValueError(
                f"keep.match_real is true but {type(self._selector).__name__} does not look at real patches; "
                "set keep.selector to DistributionMatching, or match_real to false"
            )

    @property
    def _selector(self) -> Selector:
        return self.selector or Random()

    def pool(self, batches: Iterable[PairBatch], device: torch.device) -> Pool:
        """What the choice looks at of some patches, made or real; see `pool_of`."""
        features = (self.features or Descriptor()) if self._selector.needs_features else None
        return pool_of(self.criterion or PSNRBicubic(), features, batches, device)

    def choose(
        self,
        patches: Iterable[DistilledPatch],
        count: int | Mapping[int, int],
        seed: int,
        scale: int,
        device: torch.device,
        real: Pool | None = None,
    ) -> Indices:
        """Chooses; the same patches and arguments give the same choice.

        Args:
            patches: all that were made; streamed, their pixels never in memory together.
            count: how many to keep, or how many of each pseudo-label, each at least 1.
            seed: of the selector's random decisions.
            scale: of the LR that scores are computed with, where patches have none of their own.
            device: to score and embed on.
            real: `pool` of the real patches; read only with `match_real`. With a count of each label, and labels of
                its own, each class resembles the real patches of that class.

        Returns:
            int64, positions among `patches`, distinct; in the order chosen where there is one, class after class.

        Raises:
            ValueError: when fewer are left than wanted, real patches or pseudo-labels are missing, or a score or
                vector is not finite.
        """
        if self.match_real and real is None:
            raise ValueError("keep.match_real is true but there are no real patches to match; set it to false")
        pool = self.pool(as_pairs(patches, scale), device)
        if pool.labels is None and (self._selector.needs_labels or not isinstance(count, int)):
            raise ValueError(
                f"patches are to be kept by pseudo-label ({type(self._selector).__name__}) but their metadata has no "
                f"whole number {LABEL!r} for some; keep so many of all with another selector, or make them by label"
            )
        left = replace(self._filtered(pool), reference=real if self.match_real else None)
        if isinstance(count, int):
            return self._select(left, count, seed, "", len(pool))
        chosen = []
        for label, wanted in count.items():
            made = int(np.count_nonzero(pool.labels == label))
            own_seed = derive_seed(seed, label)
            chosen.append(self._select(left.of_class(label), wanted, own_seed, f" of pseudo-label {label}", made))
        return np.concatenate(chosen)

    def _filtered(self, pool: Pool) -> Pool:
        left = pool.subset(np.arange(len(pool), dtype=np.int64))
        for part in self.filters:
            left = left.subset(np.flatnonzero(part.keep(left.scores)))
        return left

    def _select(self, pool: Pool, count: int, seed: int, which: str, made: int) -> Indices:
        """Numbers of the chosen; `which` and `made`, before the filters, are for errors."""
        assert pool.numbers is not None
        if len(pool) < count:
            raise ValueError(
                f"{made} patches{which} were made and {len(pool)} are left by the filters, but {count} are to be kept; "
                "make more, lower the budget, or loosen keep.filters"
            )
        if pool.reference is not None and not len(pool.reference):
            raise ValueError(f"there are no real patches{which} to match; set keep.match_real to false")
        return pool.numbers[self._selector.select(pool, count, seed)]


def pool_of(
    criterion: Criterion, features: Features | None, batches: Iterable[PairBatch], device: torch.device
) -> Pool:
    """Scores, vectors and pseudo-labels of patches, rounded as those of candidates are (`computed.score`, `embed`).

    Args:
        criterion: gives the scores.
        features: give the vectors; None is none.
        batches: uint8, in the order of the pool; labels are the pool's where every batch has some.
        device: to compute on.

    Raises:
        ValueError: when there is no patch, or a score or vector is not finite.
    """
    if features is not None:
        features.load(device)
    scores: list[Floats] = []
    vectors: list[Vectors] = []
    labels: list[Tensor | None] = []
    for pairs in (batch.to(device) for batch in batches):
        with exact_inference():
            scores.append(rounded(criterion(pairs).cpu().double().numpy(), SCORE_BITS))
            if features is not None:
                vectors.append(rounded(features(pairs.to_float().hr).float().cpu().numpy(), FEATURE_BITS))
        labels.append(pairs.label)
    if not scores:
        raise ValueError("there are no patches to choose among, or to match; give photographs, or raise the budget")
    known = [label.cpu() for label in labels if label is not None]
    return Pool(
        _finite(np.concatenate(scores), criterion),
        None if features is None else _finite(np.concatenate(vectors), features),
        torch.cat(known).numpy() if len(known) == len(labels) else None,
    )


def as_pairs(patches: Iterable[DistilledPatch], scale: int) -> Iterator[PairBatch]:
    """Patches as batches of bounded memory, each of one size.

    Args:
        patches: in any sizes.
        scale: of the bicubic reduction that is the LR of those without.

    Returns:
        uint8 batches in the order given; `index` is the patch's position, `label` its pseudo-label where all of the
        batch have one.
    """
    for (shape, _), group in groupby(enumerate(patches), key=lambda item: (item[1].hr.shape, item[1].lr is None)):
        step = max(1, BATCH_PIXELS // (shape[0] * shape[1]))
        while some := list(islice(group, step)):
            yield _pairs(some, scale)


def _pairs(numbered: Sequence[tuple[int, DistilledPatch]], scale: int) -> PairBatch:
    hr = _images([patch.hr for _, patch in numbered])
    stored = [patch.lr for _, patch in numbered if patch.lr is not None]
    labels = [patch.metadata.get(LABEL) for _, patch in numbered]
    return PairBatch(
        _images(stored) if stored else downscale(hr, scale),
        hr,
        torch.tensor([number for number, _ in numbered]),
        torch.tensor(labels) if all(isinstance(label, int) for label in labels) else None,
    )


def _images(pixels: Sequence[Pixels]) -> Tensor:
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()


def _finite(values: Numbers, part: Criterion | Features) -> Numbers:
    if not np.isfinite(values).all():
        raise ValueError(f"{type(part).__name__} is not a finite number for some patches; use another in keep")
    return values
