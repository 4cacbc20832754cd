"""Augmentations in configurations: recipes, class names in YAML, and copies in worker processes."""

from __future__ import annotations

import pickle
import re

import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser

from datamodules.augmentation import RECIPES, Compose, Mixup, PairAugmentation, RandomFlip, ScaleJitter, resolve
from datamodules.pair import PairBatch

# The name that jsonargparse 4.39 has, as LightningCLI uses it; newer versions prefer another.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

YAML = """
data:
  augmentation:
  - class_path: RandomFlip
    init_args:
      probability: 0.25
  - class_path: ScaleJitter
    init_args: {factors: [0.5]}
  - class_path: datamodules.augmentation.Mixup
"""


class Data:
    def __init__(self, augmentation: str | list[PairAugmentation] = "plain") -> None:
        self.augmentation = augmentation


@pytest.fixture
def parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Data, "data")
    return parser


def test_recipes_have_the_named_augmentations():
    names = {recipe: [type(step).__name__ for step in resolve(recipe)] for recipe in RECIPES}
    assert names == {
        "none": [],
        "plain": ["RandomFlip", "RandomRotate90"],
        "strong": [
            "RandomFlip", "RandomRotate90", "RGBPermutation", "Contrast", "Brightness", "Inversion", "Mixup",
            "ScaleJitter",
        ],
    }  # fmt: skip


def test_lists_are_taken_as_they_are():
    steps = [RandomFlip(), Mixup()]
    assert resolve(steps) == steps
    assert resolve(steps) is not steps


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("stron", "augmentation is 'stron', did you mean 'strong'?; expected one of none, plain, strong, or a list"),
        ("xyz", "augmentation is 'xyz'; expected one of none, plain, strong, or a list"),
        ("[Mixup, Fliip]", "augmentation is '[Mixup, Fliip]', which is no list of known augmentations"),
        (None, "augmentation is None, did you mean 'none'?; expected one of"),  # `augmentation: null` in YAML
    ],
)
def test_what_is_neither_recipe_nor_list_gets_a_hint(given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        resolve(given)


def test_yaml_takes_short_class_names(parser):
    steps = parser.instantiate_classes(parser.parse_string(YAML)).data.augmentation
    assert [type(step) for step in steps] == [RandomFlip, ScaleJitter, Mixup]
    assert steps[0].probability == 0.25
    assert steps[1].factors == (0.5,)


def test_command_line_takes_recipes_and_appends_classes(parser):
    assert parser.parse_args(["--data.augmentation=strong"]).data.augmentation == "strong"
    steps = parser.instantiate_classes(parser.parse_args(["--data.augmentation=[RandomFlip, Mixup]"])).data.augmentation
    assert [type(step) for step in steps] == [RandomFlip, Mixup]
    appended = parser.parse_args(
        ["--data.augmentation+=RandomFlip", "--data.augmentation.probability=1", "--data.augmentation+=Mixup"]
    )
    steps = parser.instantiate_classes(appended).data.augmentation
    assert [type(step) for step in steps] == [RandomFlip, Mixup]
    assert steps[0].probability == 1


def test_saved_configurations_are_read_back(parser):
    config = parser.parse_string(YAML)
    assert parser.parse_string(parser.dump(config)).data == config.data


@pytest.mark.parametrize("bad", ["[Optimizer]", "[{class_path: Mixup, init_args: {alhpa: 1}}]", "7"])
def test_wrong_classes_and_options_are_refused(parser, bad):
    with pytest.raises(ArgumentError):
        parser.parse_string(f"data: {{augmentation: {bad}}}")
    # The command line has text only, which the type allows; resolve refuses it.
    with pytest.raises(ValueError, match="expected one of"):
        resolve(parser.parse_args([f"--data.augmentation={bad}"]).data.augmentation)


def test_copies_in_other_processes_do_the_same():
    images = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    batch = PairBatch(images[..., ::2, ::2], images, torch.arange(8))
    compose = Compose([*resolve("strong"), ScaleJitter()], seed=3)
    copy = pickle.loads(pickle.dumps(compose))  # noqa: S301 - our own bytes; what spawn does
    assert torch.equal(copy(batch).hr, compose(batch).hr)
