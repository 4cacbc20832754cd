"""Checkpoints: when they are written, what is in them, and what a resumed run takes over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from callbacks import CheckpointSettings, LastCheckpoint
from callbacks.checkpoints import BestCheckpoint
from cli.run_folders import RunSettings, find_checkpoint
from lightning_modules import SuperResolution
from lightning_modules.networks import NetworkSpec
from main import main

NETWORK = NetworkSpec("EDSR", {"n_feats": 4, "n_resblocks": 1})


class Spy(LastCheckpoint):
    """Notes the step, and the number of batches seen, at each write."""

    def __init__(self, folder: Path, every_n_steps: int) -> None:
        super().__init__(folder, every_n_steps)
        self.written: list[int] = []

    def _save(self, trainer):
        super()._save(trainer)
        self.written.append(trainer.global_step)


def fit(quick_trainer, data, callback, **options):
    trainer = quick_trainer(callbacks=[callback], enable_checkpointing=True, **options)
    trainer.fit(SuperResolution(NETWORK), data)


def test_last_is_written_every_few_steps_and_at_the_end(tiny_images, quick_trainer, tmp_path):
    spy = Spy(tmp_path, 2)
    fit(quick_trainer, tiny_images, spy, max_steps=5, limit_val_batches=0)
    assert spy.written == [2, 4, 5]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 5


def test_last_is_written_anew_after_a_validation_at_the_same_step(tiny_images, quick_trainer, tmp_path):
    spy = Spy(tmp_path, 2)
    fit(quick_trainer, tiny_images, spy, max_steps=4, val_check_interval=4)
    assert spy.written == [2, 4, 4]


def test_last_is_not_written_between_accumulated_batches(tiny_images, quick_trainer, tmp_path):
    spy = Spy(tmp_path, 1)
    fit(quick_trainer, tiny_images, spy, max_steps=3, accumulate_grad_batches=2, limit_val_batches=0)
    assert spy.written == [1, 2, 3]
    again = Spy(tmp_path / "again", 3)
    trainer = quick_trainer(
        callbacks=[again], enable_checkpointing=True, max_steps=4, accumulate_grad_batches=2, limit_val_batches=0
    )
    trainer.fit(SuperResolution(NETWORK), tiny_images, ckpt_path=tmp_path / "last.ckpt")
    assert again.written == [4]  # not at the first batch, although the step is still 3


def test_nothing_is_written_in_a_fast_dev_run(tiny_images, quick_trainer, tmp_path):
    fit(quick_trainer, tiny_images, LastCheckpoint(tmp_path, 1), fast_dev_run=True)
    assert not (tmp_path / "last.ckpt").exists()


def test_every_n_steps_must_be_positive():
    with pytest.raises(ValueError, match=r"checkpoint\.every_n_steps is 0; expected 1 or more"):
        CheckpointSettings(every_n_steps=0)


def best_of(cli) -> BestCheckpoint:
    return next(callback for callback in cli.trainer.callbacks if isinstance(callback, BestCheckpoint))


def test_best_survives_a_resume_that_only_gets_worse(tiny):
    first = main(["fit", *tiny])
    best = best_of(first)
    ruin = ["--model.init_args.optimizer", "torch.optim.Adam", "--model.init_args.optimizer.init_args.lr", "1.0"]
    second = main(["fit", *tiny, *ruin, "--trainer.max_steps", "4", "--ckpt_path", "last"])
    assert best_of(second).best_model_score == best.best_model_score
    assert second.run_dir != first.run_dir
    checkpoint = torch.load(second.run_dir / "checkpoints/best.ckpt", weights_only=True)
    assert checkpoint["global_step"] == torch.load(best.best_model_path, weights_only=True)["global_step"]
    assert second.trainer.callback_metrics["val/psnr_y"] < best.best_model_score
    # Had the second run been killed before its first last.ckpt, the copy would not hide the first run's.
    (second.run_dir / "checkpoints/last.ckpt").unlink()
    settings = RunSettings(root=str(first.run_dir.parents[2]))
    assert find_checkpoint("last", settings) == str(first.run_dir / "checkpoints/last.ckpt")


def test_best_is_replaced_by_a_better_one(tiny):
    first = main(["fit", *tiny, "--model.init_args.optimizer.init_args.lr", "1e-3"])
    more = ["--trainer.max_steps", "12", "--trainer.val_check_interval", "6"]
    second = main(["fit", *tiny, *more, "--ckpt_path", "last"])
    assert best_of(second).best_model_score > best_of(first).best_model_score
    checkpoint = torch.load(second.run_dir / "checkpoints/best.ckpt", weights_only=True)
    assert checkpoint["global_step"] > 2
    assert sorted(file.name for file in (second.run_dir / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_best_scores_what_its_weights_score(tiny):
    """Whoever takes the weights out of best.ckpt gets those that it was chosen for."""
    fit = main(["fit", *tiny, "--trainer.max_steps", "6"])
    best = best_of(fit)
    weights = ["--model.init_args.init_from", str(best.best_model_path)]
    validate = main(["validate", *tiny, *weights])
    assert validate.trainer.callback_metrics["val/psnr_y"] == pytest.approx(best.best_model_score.item(), abs=1e-5)


def test_evaluation_copies_no_checkpoint(tiny):
    main(["fit", *tiny])
    test = main(["test", *tiny, "--ckpt_path", "best"])
    assert not (test.run_dir / "checkpoints").exists()
