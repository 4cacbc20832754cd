"""Lists of augmentations with a name, for one word in a configuration."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from datamodules.augmentation.base import PairAugmentation
from datamodules.augmentation.colour import Brightness, Contrast, Inversion, RGBPermutation
from datamodules.augmentation.geometric import RandomFlip, RandomRotate90
from datamodules.augmentation.mixing import Mixup


def _none() -> list[PairAugmentation]:
    return []


def _plain() -> list[PairAugmentation]:
    return [RandomFlip(), RandomRotate90()]


def _strong() -> list[PairAugmentation]:
    return [*_plain(), RGBPermutation(), Contrast(), Brightness(), Inversion(), Mixup()]


RECIPES: dict[str, Callable[[], list[PairAugmentation]]] = {"none": _none, "plain": _plain, "strong": _strong}
"""`none`; `plain`: the eight symmetries of the square; `strong`: plain, colour and mixup, for small training sets."""


def resolve(augmentation: str | list[PairAugmentation]) -> list[PairAugmentation]:
    """The augmentations that a configuration asks for.

    Args:
        augmentation: name of a recipe, or the augmentations themselves.

    Returns:
        A new list, for `Compose`.

    Raises:
        ValueError: when there is no recipe of that name; the message gives the nearest one and all of them.
    """
    if not isinstance(augmentation, str):
        return list(augmentation)
    if augmentation not in RECIPES:
        nearest = difflib.get_close_matches(augmentation, RECIPES, n=1)
        hint = f"did you mean '{nearest[0]}'? " if nearest else ""
        raise ValueError(
            f"no augmentation recipe is called '{augmentation}': {hint}Choose one of {', '.join(RECIPES)}, "
            "or give a list of augmentations such as [{class_path: RandomFlip}]"
        )
    return RECIPES[augmentation]()
