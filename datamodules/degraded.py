"""Images to restore: LR that degradations make of HR, checked against the data's scale, and the same in every run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from datamodules.degradation import Chain, Degradation, OneOf
from datamodules.distilled.contents import Pixels
from datamodules.evaluation import EvaluationSet
from datamodules.pair import to_uint8

EVALUATION_SEED = 0
"""Of what validation and test images are degraded with: a constant, so that figures of all runs compare."""


def chain_to(scale: int, degradations: Sequence[Degradation]) -> Chain | None:
    """The degradations as one that makes LR of HR; None where there are none and LR is the exact bicubic reduction.

    Args:
        scale: integer factor between HR and LR.
        degradations: applied first to last.

    Raises:
        ValueError: when they do not reduce by the scale, or there are none at scale 1.
    """
    if not degradations:
        if scale == 1:
            raise ValueError(
                "data.scale is 1, where LR is as large as HR, and data.degradation is empty; say what is to be "
                "restored, for example with --config configs/restoration/denoise.yaml, or set data.scale to 2, 3 or 4"
            )
        return None
    chain = Chain(degradations)
    if chain.factor != scale:
        raise ValueError(
            f"data.scale is {scale} but data.degradation reduces by {chain.factor}; {_advice(scale, chain.factor)}"
        )
    return chain


def _advice(scale: int, factor: int) -> str:
    if scale % factor:
        return f"set data.scale to {factor}, or leave out what reduces the image"
    missing = f"{{class_path: Bicubic, init_args: {{scale: {scale // factor}}}}}"
    return f"add {missing} where the image is to be reduced"


def degrade(pixels: Pixels, degradation: Degradation, number: int, seed: int) -> Pixels:
    """One image as a file would hold it after a degradation.

    Args:
        pixels: uint8, (H, W, 3); sides are multiples of the degradation's factor.
        degradation: what to do to it.
        number: of the image, which random decisions are derived from.
        seed: of these decisions.

    Returns:
        uint8, (H / factor, W / factor, 3).
    """
    image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None].float() / 255
    lr = to_uint8(degradation(image, torch.tensor([number]), seed))[0]
    return lr.permute(1, 2, 0).contiguous().numpy()


class DegradedImages(EvaluationSet):
    """The images of another set with LR that a degradation makes, by `EVALUATION_SEED` and the image's position.

    Args:
        images: their HR is taken; an LR that the set has is never read.
        degradation: reduces by the set's scale.
        name: of the result; null is the set's.
    """

    def __init__(self, images: EvaluationSet, degradation: Degradation, name: str | None = None) -> None:
        self.name = images.name if name is None else name
        self.names = images.names
        self._images = images
        self._degradation = degradation

    def read_hr(self, index: int) -> np.ndarray:
        """See EvaluationSet."""
        return self._images.read_hr(index)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """See EvaluationSet."""
        hr = self.read_hr(index)
        return degrade(hr, self._degradation, index, EVALUATION_SEED), hr


def degraded_sets(images: EvaluationSet, degradation: Chain) -> list[EvaluationSet]:
    """A set as it is tested: one, or of a `OneOf` one for each choice, `Set14-Haze` and so on, with all images.

    Figures of several tasks in one would say little, and depend on which image meets which degradation.

    Args:
        images: the set.
        degradation: reduces by the set's scale.
    """
    one_of = degradation.degradations[0]
    if len(degradation.degradations) > 1 or not isinstance(one_of, OneOf):
        return [DegradedImages(images, degradation)]
    named = zip(_labels(one_of.choices), one_of.choices, strict=True)
    return [DegradedImages(images, choice, f"{images.name}-{label}") for label, choice in named]


def _labels(choices: Sequence[Degradation]) -> list[str]:
    """Class names, numbered where one comes again."""
    labels = [_label(choice) for choice in choices]
    before = [labels[:position].count(label) for position, label in enumerate(labels)]
    return [f"{label}{count + 1}" if count else label for label, count in zip(labels, before, strict=True)]


def _label(choice: Degradation) -> str:
    if not isinstance(choice, Chain):
        return type(choice).__name__
    return "+".join(_label(one) for one in choice.degradations) or "clean"
