"""SampleGrid: rows, values, and when it draws; EMA weights in place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch import Tensor

from callbacks import EMA
from callbacks.drawing import CAPTION, GAP
from callbacks.sample_grid import SampleGrid, grid
from callbacks.sheets import CELL, MARGIN
from lightning_modules import SuperResolution
from lightning_modules.networks import NetworkSpec

ROW = CELL + CAPTION + 2 * GAP


class SamplerForTests(SuperResolution):
    """Notes what it is asked for, and with which weights."""

    def sample_grid(self, per_class: int) -> tuple[Tensor, list[int]]:
        assert not torch.is_grad_enabled()
        self.asked = [*getattr(self, "asked", []), per_class]
        self.weights = [*getattr(self, "weights", []), next(self.parameters()).clone()]
        return torch.rand(2 * per_class, 3, 16, 16), [0, 1] * per_class


class PictureLoggerForTests(CSVLogger):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.pictures: list[tuple[str, int]] = []

    def log_image(self, key: str, images: list[Image.Image], step: int) -> None:
        self.pictures.append((key, step))


@pytest.fixture
def module() -> SamplerForTests:
    return SamplerForTests(NetworkSpec("EDSR", {"n_feats": 4, "n_resblocks": 1}))


def test_draws_at_each_validation_of_fit(module, tiny_images, quick_trainer, tmp_path):
    logger = PictureLoggerForTests(tmp_path / "log")
    trainer = quick_trainer(callbacks=[SampleGrid(3)], logger=logger, num_sanity_val_steps=1)
    trainer.fit(module, tiny_images)
    trainer.validate(module, tiny_images, verbose=False)
    drawn = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert drawn == ["samples_00000002.png", "samples_00000004.png"]
    assert module.asked == [3, 3]
    assert logger.pictures == [("samples", 2), ("samples", 4)]


@pytest.mark.parametrize("first", [True, False])
def test_samples_come_from_averaged_weights(
    module: SamplerForTests, tiny_images, quick_trainer: Callable[..., L.Trainer], first: bool
):
    average = EMA(0.5)
    callbacks = [SampleGrid(1), average] if first else [average, SampleGrid(1)]
    quick_trainer(callbacks=callbacks, max_steps=2).fit(module, tiny_images)
    name, trained = next(iter(module.named_parameters()))
    assert torch.equal(module.weights[0], average.average[name])
    assert not torch.equal(module.weights[0], trained)


def test_draws_nothing_when_not_wanted_or_not_possible(module, tiny_images, quick_trainer, tmp_path):
    quick_trainer(callbacks=[SampleGrid(0)]).fit(module, tiny_images)
    plain = SuperResolution(NetworkSpec("EDSR", {"n_feats": 4, "n_resblocks": 1}))
    quick_trainer(callbacks=[SampleGrid()]).fit(plain, tiny_images)
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize("as_bytes", [True, False])
def test_a_row_per_class(as_bytes):
    levels = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    picture = np.asarray(grid(levels if as_bytes else levels / 255, [2, 0, 2, 0, 2]))
    left = picture.shape[1] - MARGIN - 3 * (CELL + GAP) + GAP
    for row, numbers in enumerate([[1, 3], [0, 2, 4]]):
        for column, number in enumerate(numbers):
            found = picture[row * ROW :, left + column * (CELL + GAP) :][:CELL, :CELL]
            np.testing.assert_array_equal(found[::4, ::4], levels[number].permute(1, 2, 0))
    assert (picture[:CELL, left + 2 * (CELL + GAP) :] == 255).all()


def test_values_out_of_range_are_clipped():
    images = torch.stack([torch.full((3, 32, 32), -0.2), torch.full((3, 32, 32), 1.2)])
    picture = np.asarray(grid(images, [0, 0]))
    left = picture.shape[1] - MARGIN - 2 * (CELL + GAP) + GAP
    assert (picture[:CELL, left : left + CELL] == 0).all()
    assert (picture[:CELL, left + CELL :] == 255).all()


def test_refuses_a_negative_number():
    with pytest.raises(ValueError, match="sample_grid: per_class -2; expected the number to draw, 0 for no pictures"):
        SampleGrid(-2)
