"""Selection balanced over pseudo-classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from datamodules.augmentation.counter_rng import derive_seed
from datamodules.selection.interfaces import Indices, Pool, Selector
from datamodules.selection.selectors.by_score import Random


class ClusterBalanced(Selector):
    """A quota of each pseudo-class, filled by another selector; class by class.

    Args:
        inner: chooses within a class; null is at random.
        shares: "equal" gives each class as many, what a class lacks going to the others; "proportional" as many as
            its part of the pool.

    Raises:
        ValueError: when `shares` is something else.
    """

    needs_labels = True

    def __init__(self, inner: Selector | None = None, shares: Literal["equal", "proportional"] = "equal") -> None:
        if shares not in ("equal", "proportional"):
            raise ValueError(f"ClusterBalanced.shares is {shares!r}; expected 'equal' or 'proportional'")
        self.inner = inner or Random()
        self.shares = shares

    @property
    def needs_features(self) -> bool:  # type: ignore[override]
        """Whether the inner selector does."""
        return self.inner.needs_features

    def select(self, pool: Pool, count: int, seed: int) -> Indices:
        """See `Selector.select`."""
        share = equal_quotas if self.shares == "equal" else proportional_quotas
        return _fill(self.inner, pool, share(class_sizes(pool), count), seed)


def select_per_class(
    inner: Selector, pool: Pool, per_class: int, seed: int, names: Sequence[str] | None = None
) -> Indices:
    """As many of every class: budgets given as images per class (IPC).

    Args:
        inner: chooses within a class.
        pool: with labels.
        per_class: how many of each class, at least 1.
        seed: of all random decisions.
        names: of the classes, where they have some; one without members in the pool counts, too.

    Returns:
        int64 (classes * per_class,), distinct positions in the pool, class by class.

    Raises:
        ValueError: when a class has fewer.
    """
    assert pool.labels is not None
    sizes = np.bincount(pool.labels, minlength=len(names or ()))
    if sizes.min() < per_class:
        raise _too_small(sizes, per_class, names)
    return _fill(inner, pool, np.full(len(sizes), per_class), seed)


def _too_small(sizes: Indices, per_class: int, names: Sequence[str] | None) -> ValueError:
    least, fewest = int(sizes.argmin()), int(sizes.min())
    name = "" if names is None else f" ({names[least]})"
    fewer = f"ask for at most {fewest} images per class (IPC), or " if fewest else ""
    more = "for fewer classes" if names is None else "let more of its patches pass data.filters"
    return ValueError(
        f"class {least}{name} of {len(sizes)} has {fewest} patches but {per_class} of each are wanted; {fewer}{more}"
    )


def class_sizes(pool: Pool) -> Indices:
    """Members of each pseudo-class, int64 (K,)."""
    assert pool.labels is not None
    return np.bincount(pool.labels).astype(np.int64)


def equal_quotas(sizes: Indices, count: int) -> Indices:
    """Shares as equal as the classes' sizes allow.

    Args:
        sizes: members of each class, int64 (K,).
        count: to share out, at most `sizes.sum()`.

    Returns:
        int64 (K,), summing to `count`, none above its size. What does not divide goes to the classes with the most
        members left, equal ones by number.
    """
    quotas = np.zeros_like(sizes)
    while left := count - int(quotas.sum()):
        open_classes = np.flatnonzero(quotas < sizes)
        each = left // len(open_classes)
        if not each:
            most = np.argsort(quotas[open_classes] - sizes[open_classes], kind="stable")
            quotas[open_classes[most[:left]]] += 1
        else:
            quotas[open_classes] = np.minimum(quotas[open_classes] + each, sizes[open_classes])
    return quotas


def proportional_quotas(sizes: Indices, count: int) -> Indices:
    """Shares in proportion to the classes' sizes, by largest remainders (Hamilton); arguments as for `equal_quotas`."""
    quotas, remainders = np.divmod(sizes * count, sizes.sum())
    most = np.argsort(-remainders, kind="stable")[: count - int(quotas.sum())]
    quotas[most] += 1
    return quotas


def _fill(inner: Selector, pool: Pool, quotas: Indices, seed: int) -> Indices:
    assert pool.labels is not None
    chosen = []
    for label in np.flatnonzero(quotas).tolist():
        members = np.flatnonzero(pool.labels == label)
        own_seed = derive_seed(seed, label)
        chosen.append(members[inner.select(pool.subset(members), int(quotas[label]), own_seed)])
    return np.concatenate(chosen)
