"""Pseudo-labels: classes that nobody named, from k-means on features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from datamodules.augmentation.counter_rng import derive_seed
from datamodules.selection.candidates import Candidates
from datamodules.selection.interfaces import Classes, Floats, Indices, Labels, Vectors

FIT_ROWS = 100_000
"""Most vectors that PCA and k-means are fitted on; all others are then assigned. Bounds memory and time."""

ROWS_AT_A_TIME = 16_384

SILHOUETTE_ROWS = 5_000
"""The silhouette compares every pair."""

FAISS_FROM = 200_000
"""Vectors from which faiss, where it is installed, takes the place of scikit-learn."""

INITIALISATIONS = 10
BATCH = 4_096
SAME = 1e-6
"""Vectors that are closer than this part of the largest coordinate are the same but for rounding."""

Prepare = Callable[[Vectors], Vectors]


@dataclass(frozen=True)
class Clusters:
    """Classes 0 .. K - 1 by falling size (equal sizes: by first member), none of them empty.

    Attributes:
        labels: class of each vector, that of the nearest centre, int64 (N,).
        centres: float32 (K, D'), in the space of the vectors as prepared: scaled, reduced.
        distances: Euclidean, of each vector, as prepared, to its centre, float64 (N,).
        sizes: members of each class, int64 (K,).
        inertia: sum of the squared distances.
        silhouette: mean over at most 5,000 vectors, -1 to 1, greater for classes that are better apart; NaN where it is
            not defined: for one class, or as many as vectors.
    """

    labels: Indices
    centres: Vectors
    distances: Floats
    sizes: Indices
    inertia: float
    silhouette: float


@dataclass(frozen=True)
class PseudoLabels(Labels):
    """k-means on features.

    Vectors are scaled to unit length and then reduced by PCA, each if asked for. Centres come from scikit-learn's
    MiniBatchKMeans, from the best of ten initialisations, or from faiss where that is installed and there are more than
    200,000 vectors; both see at most 100,000 vectors, drawn by the seed. Computed on one thread, so that the number of
    threads changes nothing.

    Attributes:
        classes: K.
        pca: principal components to keep; None leaves the vectors as they are.
        normalise: whether vectors are scaled to unit length, so that their direction alone counts.

    Raises:
        ValueError: when classes or pca are not positive.
    """

    classes: int = 7
    pca: int | None = None
    normalise: bool = True

    def __post_init__(self) -> None:
        for key, value in (("classes", self.classes), ("pca", self.pca)):
            if value is not None and value <= 0:
                raise ValueError(f"data.pseudo_labels.{key} is {value}; expected a positive number")

    def identity(self) -> dict[str, Any]:
        """Settings, and whether faiss is there, which finds other centres."""
        return {**super().identity(), "faiss": find_spec("faiss") is not None}

    def describe(self) -> str:
        """See `Labels.describe`."""
        return f"{self.classes} classes"

    def count(self, candidates: Candidates) -> int:
        """See `Labels.count`."""
        return self.classes

    def assign(self, candidates: Candidates, kept: Indices, features: Vectors | None, seed: int) -> Classes:
        """See `Labels.assign`."""
        assert features is not None
        clusters = self.fit(features, seed)
        return Classes(clusters.labels, clusters.sizes, clusters.silhouette)

    def fit(self, features: Vectors, seed: int) -> Clusters:
        """Classes of vectors.

        Args:
            features: float32 (N, D), in memory or memory-mapped; read a part at a time.
            seed: of all random decisions.

        Raises:
            ValueError: when there are fewer different vectors than classes, or fewer dimensions than components.
        """
        from threadpoolctl import threadpool_limits

        count = _distinct(features, self.classes)
        if count < self.classes:
            raise _too_few(count, self.classes)
        library = _library(len(features))
        with threadpool_limits(1):
            drawn = features[_draw(len(features), FIT_ROWS, derive_seed(seed, "fit"))]
            prepare = self._preparation(drawn, derive_seed(seed, "pca"))
            centres = library(prepare(drawn), self.classes, derive_seed(seed, "k-means"))
            rows = _Rows(features, prepare)
            labels, distances = _fill(rows, centres)
            order = _order(labels)
            shown = _draw(len(features), SILHOUETTE_ROWS, derive_seed(seed, "silhouette"))
            silhouette = _silhouette(prepare(features[shown]), labels[shown])
        labels = np.argsort(order)[labels]
        sizes = np.bincount(labels)
        return Clusters(labels, centres[order], distances, sizes, float(np.square(distances).sum()), silhouette)

    def _preparation(self, drawn: Vectors, seed: int) -> Prepare:
        """What is done to vectors before they are compared, learned from some of them."""
        scale = _unit_length if self.normalise else _as_they_are
        if self.pca is None:
            return scale
        if self.pca > min(drawn.shape):
            raise ValueError(
                f"data.pseudo_labels.pca is {self.pca} but there are {drawn.shape[0]} vectors of {drawn.shape[1]} "
                f"dimensions; set it to at most {min(drawn.shape)}, or to null"
            )
        from sklearn.decomposition import PCA

        reduction = PCA(self.pca, svd_solver="randomized", random_state=seed % 2**32).fit(scale(drawn))
        return lambda vectors: np.ascontiguousarray(reduction.transform(scale(vectors)))


def _unit_length(vectors: Vectors) -> Vectors:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(length, np.finfo(np.float32).tiny)


def _as_they_are(vectors: Vectors) -> Vectors:
    return np.ascontiguousarray(vectors)


@dataclass(frozen=True)
class _Rows:
    """Vectors as prepared, a bounded number at a time."""

    features: Vectors
    prepare: Prepare

    def __iter__(self) -> Iterator[Vectors]:
        for start in range(0, len(self.features), ROWS_AT_A_TIME):
            yield self.prepare(self.features[start : start + ROWS_AT_A_TIME])

    def row(self, number: int) -> Vectors:
        return self.prepare(self.features[number : number + 1])[0]


def _draw(count: int, most: int, seed: int) -> Indices:
    """At most so many of the numbers below `count`, ascending."""
    if count <= most:
        return np.arange(count, dtype=np.int64)
    return np.sort(np.random.default_rng(seed % 2**64).choice(count, most, replace=False))


def _distinct(features: Vectors, enough: int) -> int:
    """How many different vectors there are, counted up to `enough`."""
    seen: set[bytes] = set()
    for vector in features:
        seen.add(vector.tobytes())
        if len(seen) == enough:
            break
    return len(seen)


def _too_few(count: int, classes: int) -> ValueError:
    return ValueError(
        f"{classes} pseudo-classes cannot be made of {count} candidates with different features; "
        f"set data.pseudo_labels.classes to at most {count}, or let more candidates pass data.filters"
    )


def _library(count: int) -> Callable[[Vectors, int, int], Vectors]:
    """k-means for so many vectors; imports what it needs, so that its threads can be limited."""
    from sklearn.cluster import MiniBatchKMeans

    if count > FAISS_FROM and find_spec("faiss"):
        import faiss

        return partial(_faiss_centres, faiss.Kmeans)
    return partial(_sklearn_centres, MiniBatchKMeans)


def _sklearn_centres(algorithm: Any, vectors: Vectors, classes: int, seed: int) -> Vectors:
    kmeans = algorithm(classes, n_init=INITIALISATIONS, batch_size=BATCH, random_state=seed % 2**32)
    return kmeans.fit(vectors).cluster_centers_


def _faiss_centres(algorithm: Any, vectors: Vectors, classes: int, seed: int) -> Vectors:
    # All vectors count: they are a sample already.
    limits = {"min_points_per_centroid": 1, "max_points_per_centroid": len(vectors)}
    kmeans = algorithm(vectors.shape[1], classes, nredo=INITIALISATIONS, seed=seed % 2**31, **limits)
    kmeans.train(vectors)
    return kmeans.centroids


def _fill(rows: _Rows, centres: Vectors) -> tuple[Indices, Floats]:
    """Nearest centres and distances; the centre of an empty class moves to the vector farthest from its own, in place.

    It ends: a moved centre lies on a vector, which stays in its class, so that each round fills one class for good.

    Raises:
        ValueError: when too few vectors differ.
    """
    while True:
        labels, distances = _nearest(rows, centres)
        empty = np.setdiff1d(np.arange(len(centres)), labels)
        if not len(empty):
            return labels, distances
        farthest = int(distances.argmax())
        if distances[farthest] <= SAME * np.abs(centres).max():
            raise _too_few(len(centres) - len(empty), len(centres))
        centres[empty[0]] = rows.row(farthest)


def _nearest(rows: _Rows, centres: Vectors) -> tuple[Indices, Floats]:
    from sklearn.metrics import pairwise_distances_argmin_min

    parts = [pairwise_distances_argmin_min(some, centres) for some in rows]
    labels, distances = (np.concatenate(part) for part in zip(*parts, strict=True))
    return labels.astype(np.int64), distances.astype(np.float64)


def _order(labels: Indices) -> Indices:
    """Classes by falling size, equal ones by their first member."""
    _, first, sizes = np.unique(labels, return_index=True, return_counts=True)
    return np.lexsort((first, -sizes))


def _silhouette(vectors: Vectors, labels: Indices) -> float:
    from sklearn.metrics import silhouette_score

    if not 2 <= len(np.unique(labels)) < len(labels):
        return float("nan")
    return float(silhouette_score(vectors, labels))
