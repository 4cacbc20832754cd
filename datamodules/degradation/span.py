"""Strengths of degradations: one number for all samples, or a pair from between which each sample draws its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from datamodules.augmentation.counter_rng import uniform

Span = float | Sequence[float]
"""A number, or [low, high]."""


def checked_span(
    owner: object, name: str, value: Span, minimum: float = -math.inf, maximum: float = math.inf
) -> tuple[float, float]:
    """Both ends of a span; twice the same number where one was given.

    Args:
        owner: the degradation.
        name: of its argument.
        value: that was given.
        minimum: smallest number allowed.
        maximum: largest number allowed.

    Raises:
        ValueError: when it is neither a number nor an ascending pair within the limits; names class and argument.
    """
    ends = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(ends) != 2 or not minimum <= ends[0] <= ends[1] <= maximum or math.inf in map(abs, ends):
        given = list(value) if isinstance(value, Sequence) else value
        raise ValueError(
            f"{type(owner).__name__}: {name} is {given}; expected a number{_limits(minimum, maximum)}, or two of them "
            "as [low, high]"
        )
    return ends[0], ends[1]


def _limits(minimum: float, maximum: float) -> str:
    if math.isinf(minimum):
        return ""
    return f" of {minimum:g} or more" if math.isinf(maximum) else f" from {minimum:g} to {maximum:g}"


def drawn(span: tuple[float, float], seed: int, name: str, index: Tensor) -> Tensor:
    """Each sample's own number, uniform over the span.

    Args:
        span: both ends.
        seed: of the degradation.
        name: of what is drawn; different names are independent.
        index: int64 (B,), of the samples.

    Returns:
        float32 (B, 1, 1, 1), to be multiplied with images.
    """
    low, high = span
    return (low + (high - low) * uniform(seed, name, index)).view(-1, 1, 1, 1)
