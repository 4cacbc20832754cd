"""Lists of augmentations with a name, for one word in a configuration."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from datamodules.augmentation.base import PairAugmentation
from datamodules.augmentation.colour import Brightness, Contrast, Inversion, RGBPermutation
from datamodules.augmentation.geometric import RandomFlip, RandomRotate90
from datamodules.augmentation.mixing import Mixup
from datamodules.augmentation.resampling import ScaleJitter


def _none() -> list[PairAugmentation]:
    return []


def _plain() -> list[PairAugmentation]:
    return [RandomFlip(), RandomRotate90()]


def _strong() -> list[PairAugmentation]:
    return [*_plain(), RGBPermutation(), Contrast(), Brightness(), Inversion(), Mixup(), ScaleJitter(probability=0.3)]


RECIPES: dict[str, Callable[[], list[PairAugmentation]]] = {"none": _none, "plain": _plain, "strong": _strong}
"""`none`; `plain`: the eight symmetries of the square; `strong`: plain, colour, mixup and smaller scales, for
small training sets."""


def resolve(augmentation: str | list[PairAugmentation]) -> list[PairAugmentation]:
    """The augmentations that a configuration asks for.

    Args:
        augmentation: name of a recipe, or the augmentations themselves.

    Returns:
        A new list, for `Compose`.

    Raises:
        ValueError: when it is neither; the message gives the nearest recipe and all of them.
    """
    if isinstance(augmentation, list):
        return list(augmentation)
    if augmentation not in RECIPES:
        raise ValueError(
            f"augmentation is {augmentation!r}{_hint(str(augmentation))}; expected one of {', '.join(RECIPES)}, "
            "or a list such as [RandomFlip, Mixup]"
        )
    return RECIPES[augmentation]()


def _hint(name: str) -> str:
    # jsonargparse hands over a list it cannot build as the text it is, since the type allows a str.
    if name.startswith(("[", "{")):
        return ", which is no list of known augmentations with options that they have"
    nearest = difflib.get_close_matches(name, RECIPES, n=1)
    return f", did you mean {nearest[0]!r}?" if nearest else ""
