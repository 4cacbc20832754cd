"""Distribution matching: how far the features of synthetic patches are from those of real ones, class by class.

All functions take features of ONE class: real (M, D) and synthetic (N, D), floating point, M and N at least 1. They
compute in float32, also under autocast, and differentiate in both. D may be large: nothing of size D x D is made.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache

import torch
from torch import Tensor

from datamodules.randomness import noise

FREQUENCIES = 256
"""Directions in feature space that a step looks along; they change from step to step."""

_TINY = 1e-12  # a vector no longer than this has no direction


def mean_distance(real: Tensor, synthetic: Tensor) -> Tensor:
    """Squared Euclidean distance of the means: || mean(real) - mean(synthetic) ||^2.

    The loss of Zhao and Bilen, "Dataset Condensation with Distribution Matching", WACV 2023 (arXiv 2110.04181), which
    GSDD matches with (AAAI 2024). A sum over features, not a mean, as published.
    """
    return (real.float().mean(0) - synthetic.float().mean(0)).square().sum()


def second_moment_distance(real: Tensor, synthetic: Tensor) -> Tensor:
    """Squared Frobenius distance of the covariances: || Cov(real) - Cov(synthetic) ||_F^2.

    Covariances are divided by the number of samples, sum((x - mean)(x - mean)^T) / N, so that one sample has the
    covariance 0. The distance is the sum over all D x D entries, not divided by their number, and grows with the fourth
    power of the features' scale: its weight depends on the feature network.

    With the centred samples A / sqrt(M) and B / sqrt(N) it is || A A^T ||^2 + || B B^T ||^2 - 2 || A B^T ||^2, of
    matrices as large as the number of samples. What cancels leaves errors of about 1e-6 of the first two.
    """
    own, other = _centred(real), _centred(synthetic)
    products = [_products(*pair).square().sum() for pair in ((own, own), (other, other), (own, other))]
    return products[0] + products[1] - 2 * products[2]


def fourier_distance(real: Tensor, synthetic: Tensor, frequencies: Tensor) -> Tensor:
    """Mean squared distance of the empirical characteristic functions, in [0, 4].

    mean over w of | mean_x exp(i w.x) - mean_y exp(i w.y) |^2: random Fourier features (Rahimi and Recht, NIPS 2007) of
    whole distributions. For normal frequencies of standard deviation s it estimates the squared maximum mean
    discrepancy with the kernel exp(-s^2 |x - y|^2 / 2), which sees all moments.

    With the vectors at all places of feature maps as samples (`local_vectors`) these are the random local Fourier
    features of IDC (arXiv 2505.21099), at its group level: of all patches of a class together.

    Args:
        real: (M, D).
        synthetic: (N, D).
        frequencies: w, (F, D).
    """
    centre = real.detach().float().mean(0)  # turns both functions alike; small phases are the more exact
    phases = [_products(features.float() - centre, frequencies) for features in (real, synthetic)]
    cosine, sine = (wave(phases[0]).mean(0) - wave(phases[1]).mean(0) for wave in (torch.cos, torch.sin))
    return (cosine.square() + sine.square()).mean()


def local_vectors(features: Tensor, channels: int) -> Tensor:
    """Vectors at the places of feature maps, each a sample: (N, channels * places) to (N * places, channels).

    Args:
        features: flattened maps (N, channels, H, W).
        channels: of the maps.
    """
    return features.unflatten(1, (channels, -1)).transpose(1, 2).flatten(0, 1)


@torch.no_grad()
def draw_frequencies(features: Tensor, count: int, seed: int, step: int) -> Tensor:
    """Frequencies at which the phases of these features, around their mean, have variance 1.

    Normal in every direction, with standard deviation 1 / sqrt(trace of the features' covariance); 1 where the features
    are all the same.

    Args:
        features: (N, D).
        count: how many.
        seed: of the run.
        step: of the run; the same seed and step give the same directions.

    Returns:
        float32 (count, D), without gradient.
    """
    spread = features.float().var(0, correction=0).sum().sqrt()
    directions = _directions(count, features.shape[1], seed, step, features.device)
    return directions / torch.where(spread > 0, spread, 1)


def mean_pairwise_cosine(vectors: Tensor) -> Tensor:
    """Mean cosine similarity of all pairs of different rows, in [-1, 1]: 1 where all have collapsed onto one direction.

    The mean over pairs follows from the sum of the unit vectors, so that no pair is looked at. A vector of zeros is
    similar to none, and gets no gradient.

    Args:
        vectors: (N, D).

    Returns:
        A number; 0 for fewer than two vectors.
    """
    vectors = vectors.float()
    lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    units = vectors / torch.where(lengths > _TINY, lengths, math.inf)
    of_all_pairs = units.sum(0).square().sum() - units.square().sum()
    return of_all_pairs / max(1, len(vectors) * (len(vectors) - 1))


@dataclass(frozen=True)
class MatchingTerms:
    """Weights of the matching loss of a class; 0 switches a term off.

    Attributes:
        mean: of `mean_distance`, the published term.
        second_moment: of `second_moment_distance`.
        fourier: of `fourier_distance`, of the vectors at all places where features are flattened maps.
        latent_diversity: of `mean_pairwise_cosine` of a class's latents, GSDD's regulariser R; `of_features` leaves it
            to whoever has the latents. It is at most 1, where `mean_distance` of random ConvNets is some hundreds.
        feature_diversity: of `mean_pairwise_cosine` of the features of its synthetic patches.

    Raises:
        ValueError: when a weight is negative or not finite, or no distance has one.
    """

    mean: float = 1.0
    second_moment: float = 0.0
    fourier: float = 0.0
    latent_diversity: float = 1.0
    feature_diversity: float = 0.0

    def __post_init__(self) -> None:
        for key, value in asdict(self).items():
            if not 0 <= value < math.inf:
                raise ValueError(f"model.matching.{key} is {value}; expected 0 (off) or more")
        if not (self.mean or self.second_moment or self.fourier):
            raise ValueError(
                "model.matching has weights of 0 for mean, second_moment and fourier, which matches nothing; set one"
            )

    def of_features(
        self, real: Tensor, synthetic: Tensor, step: int, seed: int = 0, channels: int | None = None
    ) -> dict[str, Tensor]:
        """The weighted terms that are switched on, as numbers by their names.

        Args:
            real: (M, D).
            synthetic: (N, D).
            step: of the run, which decides the frequencies.
            seed: of the frequencies.
            channels: of the feature maps that vectors are flattened from; None where they are none.
        """
        terms = {}
        if self.mean:
            terms["mean"] = mean_distance(real, synthetic)
        if self.second_moment:
            terms["second_moment"] = second_moment_distance(real, synthetic)
        if self.fourier:
            here, there = (local_vectors(one, channels) if channels else one for one in (real, synthetic))
            # scaled to both: where synthetic features are far away, the real ones' own scale would give chance phases
            frequencies = draw_frequencies(torch.cat([here, there]), FREQUENCIES, seed, step)
            terms["fourier"] = fourier_distance(here, there, frequencies)
        if self.feature_diversity:
            terms["feature_diversity"] = mean_pairwise_cosine(synthetic)
        return {name: getattr(self, name) * term for name, term in terms.items()}


@lru_cache(maxsize=1)  # the classes of a step have the same
def _directions(count: int, width: int, seed: int, step: int, device: torch.device) -> Tensor:
    return noise(seed, "fourier frequencies", torch.tensor([step], device=device), (count, width))[0]


def _centred(features: Tensor) -> Tensor:
    features = features.float()
    return (features - features.mean(0)) / math.sqrt(len(features))


def _products(rows: Tensor, others: Tensor) -> Tensor:
    """Of each pair of rows: (M, D) and (N, D) to (M, N), float32."""
    with torch.autocast(rows.device.type, enabled=False):
        return rows.float() @ others.float().T
