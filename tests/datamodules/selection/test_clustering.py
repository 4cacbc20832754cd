"""Pseudo-labels, against scikit-learn's own k-means, PCA and silhouette."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, silhouette_score
from threadpoolctl import threadpool_limits

from datamodules.selection import clustering
from datamodules.selection.clustering import PseudoLabels

PLAIN = {"normalise": False}


@pytest.fixture
def blobs():
    """Five groups of 300, 250, 200, 150 and 100, five times as far apart as they are wide."""
    points, group = make_blobs([300, 250, 200, 150, 100], 8, cluster_std=1.0, center_box=(-20, 20), random_state=3)
    return points.astype(np.float32), group


@pytest.fixture
def cloud():
    return np.random.default_rng(5).normal(size=(900, 6)).astype(np.float32)


def test_separate_groups_are_found_largest_first(blobs):
    points, group = blobs
    clusters = PseudoLabels(5, **PLAIN).fit(points, seed=0)
    assert np.array_equal(clusters.labels, group)  # the groups are made in falling size
    assert clusters.sizes.tolist() == [300, 250, 200, 150, 100]
    assert clusters.labels.dtype == np.int64


def test_inertia_is_close_to_full_kmeans_and_silhouette_is_sklearns(blobs, cloud):
    """Within a tenth even where there are no groups, which is the worst case for mini-batches."""
    for points, classes, slack in ((blobs[0], 5, 1.001), (cloud, 7, 1.1)):
        clusters = PseudoLabels(classes, **PLAIN).fit(points, seed=0)
        assert clusters.inertia <= slack * KMeans(classes, n_init=10, random_state=0).fit(points).inertia_
        assert clusters.silhouette == pytest.approx(silhouette_score(points, clusters.labels), abs=1e-6)


def test_labels_are_the_nearest_centres(cloud):
    clusters = PseudoLabels(7, **PLAIN).fit(cloud, seed=0)
    distances = np.sqrt(((cloud[:, None].astype(np.float64) - clusters.centres[None]) ** 2).sum(2))
    assert np.array_equal(clusters.labels, distances.argmin(1))
    np.testing.assert_allclose(clusters.distances, distances.min(1), rtol=1e-5)
    assert clusters.inertia == pytest.approx((distances.min(1) ** 2).sum(), rel=1e-5)
    assert clusters.sizes.tolist() == sorted(np.bincount(clusters.labels).tolist(), reverse=True)


def test_equal_sizes_are_ordered_by_first_member():
    points = np.repeat(np.array([[0, 9], [9, 0], [0, 0]], np.float32), 4, axis=0)[
        [8, 0, 4, 9, 5, 1, 10, 6, 2, 11, 7, 3]
    ]
    assert PseudoLabels(3, **PLAIN).fit(points, seed=1).labels.tolist() == [0, 1, 2, 0, 2, 1, 0, 2, 1, 0, 2, 1]


def test_normalised_vectors_are_classed_by_direction(cloud):
    length = np.random.default_rng(0).uniform(0.1, 10, size=(len(cloud), 1)).astype(np.float32)
    classes = [PseudoLabels(4).fit(vectors, seed=0).labels for vectors in (cloud, cloud * length)]
    assert adjusted_rand_score(*classes) > 0.99
    assert adjusted_rand_score(*(PseudoLabels(4, **PLAIN).fit(v, 0).labels for v in (cloud, cloud * length))) < 0.9


def test_pca_keeps_what_sklearns_exact_one_keeps(blobs):
    stretched = blobs[0] * np.array([1, 1, 1, 1, 1, 0.01, 0.01, 0.01], np.float32)
    clusters = PseudoLabels(5, pca=5, **PLAIN).fit(stretched, seed=0)
    assert clusters.centres.shape == (5, 5)
    exact = PCA(5, svd_solver="full").fit_transform(stretched)
    centres = np.stack([exact[clusters.labels == label].mean(0) for label in range(5)])
    between = np.linalg.norm(clusters.centres[:, None] - clusters.centres[None], axis=2)
    np.testing.assert_allclose(between, np.linalg.norm(centres[:, None] - centres[None], axis=2), atol=0.5)


def test_same_seed_same_labels_for_any_number_of_threads(cloud):
    outcomes = []
    for threads in (1, 2, 4):
        with threadpool_limits(threads):
            outcomes.append(PseudoLabels(7, pca=4).fit(cloud, seed=11))
    assert all(np.array_equal(outcomes[0].labels, other.labels) for other in outcomes[1:])
    assert all(np.array_equal(outcomes[0].centres, other.centres) for other in outcomes[1:])
    assert not np.array_equal(outcomes[0].labels, PseudoLabels(7, pca=4).fit(cloud, seed=12).labels)


def test_rest_is_assigned_when_only_a_sample_is_fitted(blobs, monkeypatch):
    monkeypatch.setattr(clustering, "FIT_ROWS", 200)
    monkeypatch.setattr(clustering, "ROWS_AT_A_TIME", 64)
    monkeypatch.setattr(clustering, "SILHOUETTE_ROWS", 300)
    clusters = PseudoLabels(5, **PLAIN).fit(blobs[0], seed=0)
    assert np.array_equal(clusters.labels, blobs[1])
    assert clusters.silhouette == pytest.approx(silhouette_score(*blobs), abs=0.05)


def test_memory_mapped_vectors_give_the_same(blobs, tmp_path):
    np.save(tmp_path / "x.npy", blobs[0])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert np.array_equal(PseudoLabels(5).fit(mapped, 0).labels, PseudoLabels(5).fit(blobs[0], 0).labels)


@pytest.mark.parametrize("where", [0.0, 1e3])
def test_no_class_is_empty_whatever_centres_come_out(cloud, monkeypatch, where):
    """All centres in one place, or all but one of them beyond every vector."""
    bad = np.full((7, 6), where, np.float32)
    bad[0] = 0
    monkeypatch.setattr(clustering, "_sklearn_centres", lambda *_: bad)
    clusters = PseudoLabels(7, **PLAIN).fit(cloud, seed=0)
    assert clusters.sizes.min() >= 1
    assert clusters.sizes.sum() == len(cloud)


@pytest.mark.parametrize("classes", [1, 5])
def test_one_class_and_as_many_as_vectors(classes):
    clusters = PseudoLabels(classes, **PLAIN).fit(np.eye(5, dtype=np.float32), seed=0)
    assert clusters.sizes.tolist() == [5 // classes] * classes
    assert math.isnan(clusters.silhouette)


@pytest.mark.parametrize("options", [{}, PLAIN, {"pca": 2}])
def test_fewer_different_vectors_than_classes_are_refused(options):
    repeated = np.repeat(np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32), 20, axis=0)
    with pytest.raises(
        ValueError, match=r"7 pseudo-classes .* 3 candidates .* data\.pseudo_labels\.classes to at most 3"
    ):
        PseudoLabels(7, **options).fit(repeated, seed=0)


def test_different_vectors_of_one_direction_are_refused_when_only_directions_count():
    one_ray = np.arange(1, 9, dtype=np.float32)[:, None] * np.array([[1, 2, 4]], np.float32)
    with pytest.raises(ValueError, match=r"at most 1"):
        PseudoLabels(2).fit(one_ray, seed=0)


def test_more_components_than_dimensions_are_refused(cloud):
    with pytest.raises(ValueError, match=r"data\.pseudo_labels\.pca is 7 .* 6 dimensions; set it to at most 6"):
        PseudoLabels(3, pca=7).fit(cloud, seed=0)


@pytest.mark.parametrize("settings", [{"classes": 0}, {"pca": -1}])
def test_numbers_below_one_are_refused(settings):
    with pytest.raises(ValueError, match=r"expected a positive number"):
        PseudoLabels(**settings)


def test_faiss_finds_the_same_groups(blobs, monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(clustering, "FAISS_FROM", 100)
    monkeypatch.setattr(clustering, "_sklearn_centres", None)
    runs = [PseudoLabels(5, **PLAIN).fit(blobs[0], seed=0) for _ in range(2)]
    assert np.array_equal(runs[0].labels, blobs[1])
    assert np.array_equal(runs[0].centres, runs[1].centres)
