"""Curriculum in training: what batches show, found again in the photographs by their pixels."""

from __future__ import annotations

import csv
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

import callbacks.curriculum
from callbacks import EMA, Curriculum
from datamodules import RealImages
from datamodules.degradation import Degradation, GaussianNoise
from datamodules.pair import to_uint8
from datamodules.selection import GreyEntropy, PSNRBicubic
from lightning_modules import SuperResolution
from lightning_modules.networks import NetworkSpec
from lightning_modules.uncertainty import symmetry_variance

NETWORK = NetworkSpec("EDSR", {"n_feats": 4, "n_resblocks": 1})
ONE = {"easy": 0.01, "hard": 0.01, "everywhere": 0.0}
"""Each stage draws from a single window."""


class Recorder(L.Callback):
    """The crops of each batch, uint8 (B, H, W, 3), the step that it ended with, and what was logged then."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, np.ndarray]] = []
        self.logged: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.batches.append((trainer.global_step, to_uint8(batch.hr).permute(0, 2, 3, 1).numpy()))
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def pictures_of(recorder: Recorder, folder: Path) -> list[tuple[int, set[str]]]:
    """Step and pictures of each batch, by search for the crops in all pictures."""
    pixels = {path.name: np.asarray(Image.open(path)) for path in sorted(folder.iterdir())}
    return [(step, {_holding(pixels, crop) for crop in crops}) for step, crops in recorder.batches]


def _holding(pixels: dict[str, np.ndarray], crop: np.ndarray) -> str:
    for name, picture in pixels.items():
        corners = np.argwhere((picture[: -crop.shape[0] + 1, : -crop.shape[1] + 1] == crop[0, 0]).all(-1))
        if any((picture[y : y + crop.shape[0], x : x + crop.shape[1]] == crop).all() for y, x in corners):
            return name
    pytest.fail("a crop that is in no picture")


def by_entropy(folder: Path, names: list[str]) -> list[str]:
    """From the least to the most complex, by scikit-image."""
    from skimage.measure import shannon_entropy

    return sorted(names, key=lambda name: shannon_entropy(np.asarray(Image.open(folder / name).convert("L"))))


@pytest.fixture
def data(tiny_photographs) -> RealImages:
    """Three pictures of nine patches each; 13 batches of 2 are an epoch."""
    return RealImages(str(tiny_photographs), scale=2, patch_size=32, batch_size=2, seed=0, augmentation="none")


def names_of(data: RealImages) -> list[str]:
    return [name for _, name in data.training_images]


@pytest.mark.parametrize(
    ("options", "trainer", "last_easy"),
    [
        pytest.param({"switch": 4}, {}, 4, id="a step"),
        pytest.param({"switch": 0.3}, {}, 3, id="a share of the steps"),
        pytest.param({"switch": 3}, {"accumulate_grad_batches": 2}, 3, id="a step of two batches"),
        pytest.param({"switch": 8}, {"accumulate_grad_batches": 2}, 8, id="beyond an epoch with an odd batch"),
        pytest.param({"at": "epoch", "switch": 2}, {"limit_train_batches": 3}, 6, id="an epoch"),
        pytest.param({"at": "epoch", "switch": 0.5}, {"limit_train_batches": 3}, 6, id="the epoch next to a share"),
    ],
)
def test_stage_two_begins_exactly_at_the_switch(
    data, quick_trainer, tiny_photographs, tmp_path, options, trainer, last_easy
):
    recorder = Recorder()
    curriculum = Curriculum(True, complexity=GreyEntropy(), **ONE, **options)
    fit = quick_trainer(callbacks=[curriculum, recorder], max_steps=10, limit_val_batches=0, **trainer)
    fit.fit(SuperResolution(NETWORK), data)
    ordered = by_entropy(tiny_photographs, names_of(data))
    shown = pictures_of(recorder, tiny_photographs)
    previous = [0, *(step for step, _ in shown)]
    for before, (_, names) in zip(previous, shown, strict=False):
        assert names == {ordered[0] if before < last_easy else ordered[-1]}
    assert shown[-1][0] == 10
    with (tmp_path / "curriculum" / "drawn.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["samples"]) for row in rows) == 2 * len(shown)
    assert [row["stage"] for row in rows] == sorted(row["stage"] for row in rows)
    assert sum(int(row["samples"]) for row in rows if row["stage"] == "1") == 2 * sum(
        before < last_easy for before in previous[:-1]
    )
    assert rows[0]["from_step"] == "1"
    assert next(row["from_step"] for row in rows if row["stage"] == "2") == str(last_easy + 1)
    with Image.open(tmp_path / "curriculum" / "drawn.png") as picture:
        assert picture.size == (1350, 675)


def test_a_loader_that_is_made_again_goes_on(data, quick_trainer):
    """As `trainer.reload_dataloaders_every_n_epochs` asks for: the crops are those of the loader that stays."""
    shown = []
    for epochs in (0, 1):
        recorder = Recorder()
        chosen = [Curriculum(True, switch=4, complexity=GreyEntropy(), **ONE), recorder]
        options = {"max_steps": 8, "limit_val_batches": 0, "limit_train_batches": 3}
        fit = quick_trainer(callbacks=chosen, reload_dataloaders_every_n_epochs=epochs, **options)
        fit.fit(SuperResolution(NETWORK), data)
        shown.append(np.stack([crops for _, crops in recorder.batches]))
        data.load_state_dict({"position": 0})
    assert np.array_equal(*shown)


@pytest.mark.parametrize("batches", [1, 2])
def test_logged_complexity_is_the_mean_of_what_was_drawn(data, quick_trainer, tiny_photographs, batches):
    recorder = Recorder()
    curriculum = Curriculum(True, switch=4, complexity=PSNRBicubic())
    options = {"max_steps": 6, "limit_val_batches": 0, "log_every_n_steps": 3, "accumulate_grad_batches": batches}
    quick_trainer(callbacks=[curriculum, recorder], **options).fit(SuperResolution(NETWORK), data)
    scores = dict(zip(names_of(data), curriculum._log._scores, strict=True))  # one window per picture
    pixels = {path.name: np.asarray(Image.open(path)) for path in sorted(tiny_photographs.iterdir())}
    drawn = [[scores[_holding(pixels, crop)] for crop in crops] for _, crops in recorder.batches]
    for first, last in ((0, 3 * batches), (3 * batches, 6 * batches)):
        logged = recorder.logged[last - 1]
        assert logged["curriculum/complexity"] == pytest.approx(np.mean(drawn[first:last]), rel=1e-5)
        assert logged["curriculum/stage"] == 1 + (first > 0)


def test_a_share_everywhere_of_one_is_training_as_usual(data, quick_trainer):
    weights = []
    for curriculum in (Curriculum(), Curriculum(True, everywhere=1.0, refresh_every=2)):
        model = SuperResolution(NETWORK)
        quick_trainer(callbacks=[curriculum]).fit(model, data)
        weights.append(model.state_dict())
        data.load_state_dict({"position": 0})
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_without_it_nothing_is_left(data, quick_trainer, tmp_path):
    trainer = quick_trainer(callbacks=[Curriculum()])
    trainer.fit(SuperResolution(NETWORK), data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert "Curriculum" not in torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]
    assert trainer.train_dataloader.stream.windows is None
    assert not (tmp_path / "curriculum").exists()


class Darker(Degradation):
    """Halves and darkens images, so that their LR is no bicubic one."""

    factor = 2

    def __call__(self, images, index, seed):
        return images[..., ::2, ::2] * 0.5


@pytest.mark.parametrize("degradation", [(), (Darker(),)])
def test_uncertainty_is_that_of_the_weights_under_training(tiny_photographs, quick_trainer, monkeypatch, degradation):
    """Known `LAG` batches before the switch, from the trained weights (not their average) and the LR of training."""
    monkeypatch.setattr(callbacks.curriculum, "LAG", 2)
    data = RealImages(
        str(tiny_photographs), scale=2, patch_size=32, batch_size=2, seed=0, sub_image=48, degradation=list(degradation)
    )
    curriculum = Curriculum(True, switch=5, refresh_every=100, refresh_windows=7)
    expected: dict[int, float] = {}
    known: dict[int, dict[int, float]] = {}

    class Before(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 3:
                numbers, windows = curriculum._stages.to_measure(7)
                crops = trainer.train_dataloader.dataset.__getitems__(torch.stack([numbers, windows], 1).tolist())
                lr = crops.to_float().lr if not degradation else crops.to_float().hr[..., ::2, ::2] * 0.5
                with torch.no_grad():
                    variance = symmetry_variance(pl_module, lr)
                expected.update(zip(windows.tolist(), variance.tolist(), strict=True))

    class After(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            ranks = enumerate(curriculum._stages.state_dict()["uncertainty"].tolist())
            known[trainer.global_step] = {window: rank for window, rank in ranks if rank >= 0}

    trained = [EMA(0.9), Before(), curriculum, After()]
    quick_trainer(callbacks=trained, max_steps=6, limit_val_batches=0).fit(SuperResolution(NETWORK), data)
    assert [len(known[step]) for step in range(1, 7)] == [0, 0, 7, 7, 7, 7]
    assert sorted(known[3], key=known[3].get) == sorted(expected, key=expected.get)
    assert sorted(known[3].values()) == pytest.approx([(position + 0.5) / 7 for position in range(7)])


def test_a_plateau_moves_the_switch_forward(data, quick_trainer, tiny_photographs, monkeypatch):
    monkeypatch.setattr(callbacks.curriculum, "LAG", 2)
    figures = iter([20.0, 21.0, 20.5, 21.0, 30.0, 30.0, 30.0, 30.0])

    class Scripted(SuperResolution):
        def on_validation_epoch_end(self):
            self.log("val/psnr_y", next(figures))

    recorder = Recorder()
    checkpoint = L.pytorch.callbacks.ModelCheckpoint(monitor="val/psnr_y", mode="max", save_on_train_epoch_end=False)
    curriculum = Curriculum(True, at="plateau", patience=2, switch=0.9, complexity=GreyEntropy(), **ONE)
    quick_trainer(
        callbacks=[curriculum, recorder, checkpoint], max_steps=16, val_check_interval=2, enable_checkpointing=True
    ).fit(Scripted(NETWORK), data)
    ordered = by_entropy(tiny_photographs, names_of(data))
    shown = [names for _, names in pictures_of(recorder, tiny_photographs)]
    easy, hard = {ordered[0]}, {ordered[-1]}  # 21 dB at step 4 was not beaten at steps 6 and 8
    assert shown == [easy] * (8 + 3) + [hard] * 5


def test_a_plateau_is_that_of_one_process(data, quick_trainer):
    """The loss of a training batch differs between processes; they go by what one of them tells."""
    checkpoint = L.pytorch.callbacks.ModelCheckpoint(monitor="train/loss", save_on_train_epoch_end=False)
    curriculum = Curriculum(True, at="plateau")
    trainer = quick_trainer(callbacks=[curriculum, checkpoint], enable_checkpointing=True)
    trainer.strategy.broadcast = lambda value, src=0: -1.0 if isinstance(value, float) else value
    trainer.fit(SuperResolution(NETWORK), data)
    assert curriculum.state_dict()["plateau"] == {"best": -1.0, "waited": 1}


def test_a_plateau_that_never_comes_leaves_the_latest_switch(data, quick_trainer):
    recorder = Recorder()
    checkpoint = L.pytorch.callbacks.ModelCheckpoint(monitor="val/psnr_y", save_on_train_epoch_end=False)
    curriculum = Curriculum(True, at="plateau", switch=0.5)
    fit = quick_trainer(
        callbacks=[curriculum, recorder, checkpoint], max_steps=8, enable_checkpointing=True, log_every_n_steps=1
    )
    fit.fit(SuperResolution(NETWORK), data)
    assert [logged["curriculum/stage"] for logged in recorder.logged] == [1] * 4 + [2] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"easy": 0}, r"curriculum\.easy is 0; expected a share above 0 and at most 1, such as 0\.5"),
        ({"hard": 1.1}, r"curriculum\.hard is 1\.1; expected a share above 0"),
        ({"everywhere": -0.1}, r"curriculum\.everywhere is -0\.1; expected a share from 0 to 1"),
        ({"switch": 0}, r"curriculum\.switch is 0; expected a share of the run below 1, or a whole number"),
        ({"switch": 2.5}, r"curriculum\.switch is 2\.5; expected"),
        ({"switch": float("nan")}, r"curriculum\.switch is nan; expected"),
        ({"patience": 0}, r"curriculum\.patience is 0; expected 1 or more"),
        ({"refresh_every": 0}, r"curriculum\.refresh_every is 0; expected 1 or more"),
        ({"refresh_windows": -1}, r"curriculum\.refresh_windows is -1; expected 1 or more"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        Curriculum(**options)


@pytest.mark.parametrize(
    ("options", "trainer", "message"),
    [
        (
            {"switch": 4},
            {},
            r"curriculum\.switch is 4, after optimiser step 4, but the run ends after step 4; expected",
        ),
        ({"at": "epoch", "switch": 1}, {}, r"curriculum\.switch is 1, after optimiser step 13, but the run ends"),
        ({}, {"max_steps": -1}, r"curriculum\.switch is 0\.5, a share of the run, but the run has no end; give"),
        ({}, {"overfit_batches": 2}, r"but trainer\.overfit_batches repeats the same batches"),
        ({"at": "plateau"}, {}, r"curriculum\.at is plateau but no metric is watched; set checkpoint\.monitor"),
    ],
)
def test_runs_that_have_no_curriculum(data, quick_trainer, options, trainer, message):
    fit = quick_trainer(callbacks=[Curriculum(True, **options)], limit_val_batches=0, **{"max_epochs": -1, **trainer})
    with pytest.raises(ValueError, match=message):
        fit.fit(SuperResolution(NETWORK), data)


def test_complexity_that_restoration_does_not_have(tiny_photographs, quick_trainer):
    data = RealImages(str(tiny_photographs), scale=1, patch_size=32, degradation=[GaussianNoise(25)])
    with pytest.raises(ValueError, match=r"curriculum\.complexity is PSNRBicubic, which .* set one of HR alone"):
        quick_trainer(callbacks=[Curriculum(True, complexity=PSNRBicubic())]).fit(SuperResolution(NETWORK), data)


def test_more_workers_than_are_decided_for(data, quick_trainer):
    data.num_workers = 17
    with pytest.raises(ValueError, match=r"data\.num_workers is 17; expected at most 16"):
        quick_trainer(callbacks=[Curriculum(True)]).fit(SuperResolution(NETWORK), data)


def test_another_module(data, quick_trainer):
    class Other(L.LightningModule):
        def training_step(self, *_):
            return None

        def configure_optimizers(self):
            return None

    with pytest.raises(ValueError, match="Other chooses its own data; leave it out, it is for SuperResolution"):
        quick_trainer(callbacks=[Curriculum(True)]).fit(Other(), data)
