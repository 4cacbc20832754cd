"""Selection without near-duplicates, balanced over pseudo-classes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from datamodules.selection.interfaces import Floats, Indices, Pool, Selector
from datamodules.selection.selectors.clustered import class_sizes, equal_quotas
from datamodules.selection.selectors.draws import random_order
from datamodules.selection.selectors.vectors import Standardised

BLOCK = 256
"""Candidates compared with the kept ones at a time."""


class Deduplicated(Selector):
    """Equal shares of each pseudo-class at random, near-duplicates within the class left out (DCSR, IEEE SPL 2023).

    DCSR drops the half of low gradient first: `filters: [{class_path: Band, init_args: {low: 0.5, high: 1}}]` with the
    criterion `SobelMagnitude`. Candidates are drawn in random order, and one that is too similar to a patch already
    kept of its class is passed over; what a class lacks goes to the others. Duplicates fill up the budget only when
    nothing else is left in any class. Where those are few, time is O(N D + count^2 D / K).

    Args:
        similarity: cosine similarity of standardised features, in (0, 1), above which two patches are duplicates.

    Raises:
        ValueError: when it is out of range.
    """

    needs_features = True
    needs_labels = True

    def __init__(self, similarity: float = 0.95) -> None:
        if not 0 < similarity < 1:
            raise ValueError(
                f"Deduplicated.similarity is {similarity}; expected a number between 0 and 1, such as 0.95"
            )
        self.similarity = similarity

    def select(self, pool: Pool, count: int, seed: int) -> Indices:
        """See `Selector.select`."""
        assert pool.features is not None
        assert pool.labels is not None
        points = Standardised(pool.features)
        order = random_order(seed, "Deduplicated", pool)
        sizes = class_sizes(pool)
        sources = [_distinct(points, order[pool.labels[order] == k], self.similarity) for k in range(len(sizes))]
        chosen = np.concatenate(_share_out(sources, sizes, count))
        duplicates = order[~np.isin(order, chosen)]
        return np.concatenate([chosen, duplicates[: count - len(chosen)]])


def _share_out(sources: list[Iterator[int]], sizes: Indices, count: int) -> list[Indices]:
    """Equal quotas taken from each source; one that runs dry hands its share on to the others."""
    kept: list[list[int]] = [[] for _ in sources]
    room = sizes.copy()
    while True:
        quotas = equal_quotas(room, min(count, int(room.sum())))
        for members, source, quota in zip(kept, sources, quotas.tolist(), strict=True):
            members.extend(islice(source, quota - len(members)))
        found = np.array([len(members) for members in kept])
        if (found == quotas).all():
            return [np.array(members, dtype=np.int64) for members in kept]
        room = np.where(found < quotas, found, room)


def _distinct(points: Standardised, members: Indices, similarity: float) -> Iterator[int]:
    """Members one by one, in their order, but for those similar to one given before."""
    kept: list[Floats] = []
    for start in range(0, len(members), BLOCK):
        block = members[start : start + BLOCK]
        units = _units(points.rows(block))
        fresh = np.ones(len(block), dtype=np.bool_)
        for earlier in kept:
            fresh &= (units @ earlier.T).max(axis=1, initial=-1) <= similarity
        alike = units @ units.T > similarity
        for row in range(len(block)):
            fresh[row] &= not (alike[row, :row] & fresh[:row]).any()
            if fresh[row]:
                yield int(block[row])
        kept.append(units[fresh])


def _units(vectors: Floats) -> Floats:
    """Vectors scaled to length 1; zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
