"""What a diffusion transformer is conditioned on: pseudo-classes, or feature vectors, and the null condition.

Every block of diffusers' DiT has a class embedder of its own, `transformer_blocks.i.norm1.emb.class_embedder`; the
last row of its table is the null class, which classifier-free guidance needs (Ho and Salimans, arXiv 2207.12598).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from diffusers import DiTTransformer2DModel


class FeatureEmbedding(nn.Module):
    """Stands in for diffusers' LabelEmbedding: embeds feature vectors in place of class numbers.

    A feature vector x becomes `base + W x / |x|`. W starts at zero (its gradient does not), so that training starts
    from `base`, the mean class of the pretrained model. A row of zeros means the null condition.

    Args:
        width: length D of a feature vector.
        base: embedding (H,) of every feature at the start.
        null: embedding (H,) of the null condition; None for a model that has none: rows of zeros then give `base`.
    """

    num_classes = 0

    def __init__(self, width: int, base: Tensor, null: Tensor | None) -> None:
        super().__init__()
        self.projection = nn.Linear(width, len(base), device=base.device, dtype=base.dtype)
        nn.init.zeros_(self.projection.weight)
        self.projection.bias = nn.Parameter(base.detach().clone())
        self.null = None if null is None else nn.Parameter(null.detach().clone())

    def forward(self, features: Tensor) -> Tensor:
        """Embeddings (B, H) of feature vectors (B, D) of any length."""
        projected = self.projection(F.normalize(features.to(self.projection.weight.dtype), dim=1))
        if self.null is None:
            return projected
        return torch.where((features == 0).all(dim=1, keepdim=True), self.null, projected)


def class_embedders(denoiser: DiTTransformer2DModel) -> list[Any]:
    """The class embedder of each block: diffusers' LabelEmbedding, which has no types, or FeatureEmbedding."""
    return [block.norm1.emb.class_embedder for block in denoiser.transformer_blocks]


def classes_of(denoiser: DiTTransformer2DModel) -> int:
    """Number of classes, without the null class; 0 where the model is conditioned on features."""
    return int(class_embedders(denoiser)[0].num_classes)


def has_null(denoiser: DiTTransformer2DModel) -> bool:
    """Whether the model knows a null condition, so that guidance can be used."""
    embedder = class_embedders(denoiser)[0]
    if isinstance(embedder, FeatureEmbedding):
        return embedder.null is not None
    return _null_row(embedder) is not None


def set_classes(denoiser: DiTTransformer2DModel, classes: int) -> None:
    """Changes the number of classes, in place; a model that has this number already is left alone.

    Each new row is the mean of the old class rows (they part while training); the null row is kept bit for bit.

    Args:
        denoiser: model with class tables.
        classes: the new number, without the null class.

    Raises:
        ValueError: when `classes` is below 1, or the model is conditioned on features.
    """
    if classes < 1:
        raise ValueError(f"classes is {classes}; a class-conditional model needs at least 1")
    if not classes_of(denoiser):
        raise ValueError("the model is conditioned on features and has no class table; set its classes before that")
    if classes == classes_of(denoiser):
        return
    for embedder in class_embedders(denoiser):
        null = _null_row(embedder)
        rows = [_mean_row(embedder)] * classes + ([] if null is None else [null])
        embedder.embedding_table = nn.Embedding.from_pretrained(torch.stack(rows), freeze=False)
        embedder.num_classes = classes
    denoiser.register_to_config(num_embeds_ada_norm=classes)


def condition_on_features(denoiser: DiTTransformer2DModel, width: int) -> None:
    """Replaces the class tables by FeatureEmbedding, in place: start from the mean class, keep the null row.

    Args:
        denoiser: model with class tables.
        width: length of a feature vector.

    Raises:
        ValueError: when `width` is below 1, or the model is conditioned on features already.
    """
    if width < 1:
        raise ValueError(f"feature vectors of {width} values cannot condition a model; at least 1 is needed")
    if not classes_of(denoiser):
        raise ValueError("the model is conditioned on features already")
    for block in denoiser.transformer_blocks:
        old = block.norm1.emb.class_embedder
        block.norm1.emb.class_embedder = FeatureEmbedding(width, _mean_row(old), _null_row(old))


def switch_off_dropout(denoiser: DiTTransformer2DModel) -> None:
    """Stops the model's own label dropout, which drops other samples in each block; the null rows stay."""
    for embedder in class_embedders(denoiser):
        if not isinstance(embedder, FeatureEmbedding):
            embedder.dropout_prob = 0.0


def null_condition(denoiser: DiTTransformer2DModel, like: Tensor) -> Tensor:
    """The null condition in the shape of `like`: class number K for labels (B,), zeros for features (B, D).

    Raises:
        ValueError: when the model has no null condition.
    """
    if not has_null(denoiser):
        raise ValueError("the model has no null class, so labels cannot be dropped nor guidance be used")
    return torch.full_like(like, classes_of(denoiser))


def blank_condition(denoiser: DiTTransformer2DModel, numbers: Tensor) -> Tensor:
    """The null condition of each sample; of a model that has none, its first class or the mean of all features.

    Args:
        denoiser: conditioned on labels or features.
        numbers: of the samples, (B,); only length and device count.
    """
    embedder = class_embedders(denoiser)[0]
    blank = numbers.new_zeros(len(numbers), dtype=torch.int64)
    if isinstance(embedder, FeatureEmbedding):
        blank = numbers.new_zeros(len(numbers), embedder.projection.in_features, dtype=torch.float32)
    return null_condition(denoiser, blank) if has_null(denoiser) else blank


def _mean_row(embedder: Any) -> Tensor:
    table: Tensor = embedder.embedding_table.weight.detach()
    return table[: embedder.num_classes].float().mean(dim=0).to(table.dtype)


def _null_row(embedder: Any) -> Tensor | None:
    table: Tensor = embedder.embedding_table.weight.detach()
    return table[-1].clone() if len(table) > embedder.num_classes else None
