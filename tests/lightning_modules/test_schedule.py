"""Optimisers and schedules from the command line and at a resume."""

from __future__ import annotations

import copy
import math
from functools import partial
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.cli import ReduceLROnPlateau as Plateau
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader

from callbacks import LastCheckpoint
from callbacks.checkpoints import BestCheckpoint
from lightning_modules import SuperResolution
from lightning_modules.networks import NetworkSpec
from lightning_modules.schedule import Schedule, ScheduleError, build_scheduler, signature, step_plateau, take_over
from main import main
from tests.run_records import logged

MODEL = "--model.init_args."
NETWORK = NetworkSpec("EDSR", {"n_feats": 4, "n_resblocks": 1})
ADAM = partial(torch.optim.Adam, lr=0.01)
HALVES = partial(StepLR, step_size=1, gamma=0.5)


def scheduler(class_path: str, **init_args: object) -> list[str]:
    options = [f"--model.init_args.lr_scheduler.init_args.{key}={value}" for key, value in init_args.items()]
    return [f"{MODEL}lr_scheduler", class_path, *options]


def optimizer(class_path: str, **init_args: object) -> list[str]:
    options = [f"--model.init_args.optimizer.init_args.{key}={value}" for key, value in init_args.items()]
    return [f"{MODEL}optimizer", class_path, *options]


def adam(lr: float = 0.1) -> torch.optim.Adam:
    return torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))], lr=lr)


def trainer_of(steps: float) -> SimpleNamespace:
    return SimpleNamespace(estimated_stepping_batches=steps)


def train(make_trainer, data, tmp_path=None, *, schedule=None, optimiser=ADAM, steps=4, resume=False, **options):
    """Trains and, with a folder, keeps the checkpoint there and resumes from it."""
    interval = options.pop("interval", "step")
    model = SuperResolution(NETWORK, optimizer=optimiser, lr_scheduler=schedule, lr_interval=interval)
    trainer = make_trainer(max_steps=steps, **{"limit_val_batches": 0, **options})
    trainer.fit(model, data, ckpt_path=tmp_path / "last.ckpt" if resume else None)
    if tmp_path is not None:
        trainer.save_checkpoint(tmp_path / "last.ckpt")
    return trainer


def rate(trainer) -> float:
    return trainer.optimizers[0].param_groups[0]["lr"]


def test_optimiser_and_schedule_from_the_command_line(tiny):
    given = [*optimizer("torch.optim.SGD", lr=0.02, momentum=0.9), *scheduler("StepLR", step_size=1, gamma=0.5)]
    cli = main(["fit", *tiny, "--trainer.limit_val_batches", "0", *given])
    made = cli.trainer.optimizers[0]
    assert type(made) is torch.optim.SGD
    assert made.param_groups[0]["momentum"] == 0.9
    assert rate(cli.trainer) == pytest.approx(0.02 / 2**2)


def test_one_cycle_takes_the_length_of_the_run(tiny):
    cli = main(["fit", *tiny, "--trainer.max_steps", "6", *scheduler("OneCycleLR", max_lr=0.01, pct_start=0.5)])
    assert cli.trainer.lr_scheduler_configs[0].scheduler.total_steps == 6
    rates = logged(cli.run_dir, "lr-Adam")
    # torch's definition: from max_lr / 25 up to max_lr at step pct_start * total - 1, down to max_lr / 25 / 1e4.
    assert rates[0] == pytest.approx(0.01 / 25)
    assert rates[2] == pytest.approx(0.01)
    assert rates[5] == pytest.approx(0.01 / 25 / 1e4)


def test_cosine_takes_the_length_of_the_run(quick_trainer, tiny_images):
    trainer = train(quick_trainer, tiny_images, schedule=partial(CosineAnnealingLR, T_max=-1))
    assert rate(trainer) == pytest.approx(0, abs=1e-12)
    trainer = train(quick_trainer, tiny_images, schedule=partial(CosineAnnealingLR, T_max=16))
    assert rate(trainer) == pytest.approx(0.005 * (1 + math.cos(math.pi * 4 / 16)))


@pytest.mark.parametrize(("interval", "expected"), [("step", 0.01 / 2**4), ("epoch", 0.01 / 2**2)])
def test_interval(quick_trainer, tiny_images, interval, expected):
    options = {"interval": interval, "limit_train_batches": 2}
    assert rate(train(quick_trainer, tiny_images, schedule=HALVES, **options)) == pytest.approx(expected)


def test_accumulated_batches_are_one_step_of_the_schedule(quick_trainer, tiny_images):
    trainer = train(quick_trainer, tiny_images, schedule=HALVES, accumulate_grad_batches=2)
    assert rate(trainer) == pytest.approx(0.01 / 2**4)


# An improvement of 1000 % is asked for, so that each validation after the first halves the rate.
NEVER_ENOUGH = {"monitor": "val/psnr_y", "mode": "max", "patience": 0, "factor": 0.5, "threshold": 10.0}


def test_plateau_steps_after_each_validation(tiny):
    run = ["--trainer.max_steps", "6", "--trainer.val_check_interval", "2", *optimizer("Adam", lr=0.01)]
    cli = main(["fit", *tiny, *run, *scheduler("lightning.pytorch.cli.ReduceLROnPlateau", **NEVER_ENOUGH)])
    assert rate(cli.trainer) == pytest.approx(0.01 / 2**2)


@pytest.mark.parametrize("name", ["last", "best"])
def test_plateau_resumes_exactly(quick_trainer, tiny_images, tmp_path, name):
    schedule = partial(Plateau, **NEVER_ENOUGH)
    options = {"limit_val_batches": 1, "enable_checkpointing": True, "schedule": schedule}
    keep = [BestCheckpoint(tmp_path, "val/psnr_y", "max"), LastCheckpoint(tmp_path, 2)]
    train(quick_trainer, tiny_images, steps=2, callbacks=keep, **options)
    if name == "best":
        (tmp_path / "best.ckpt").replace(tmp_path / "last.ckpt")
    trainer = train(quick_trainer, tiny_images, tmp_path, steps=6, resume=True, **options)
    assert rate(trainer) == pytest.approx(0.01 / 2**2)


def test_plateau_must_say_what_it_watches(quick_trainer, tiny_images):
    with pytest.raises(ScheduleError, match=r"use class_path lightning\.pytorch\.cli\.ReduceLROnPlateau with monitor"):
        train(quick_trainer, tiny_images, schedule=ReduceLROnPlateau)
    with pytest.raises(ScheduleError, match=r"monitors val/loss; validation measures val/psnr_y, "):
        train(quick_trainer, tiny_images, schedule=partial(Plateau, monitor="val/loss"), limit_val_batches=1)


def test_length_of_an_endless_run():
    with pytest.raises(ScheduleError, match=r"T_max is the run's length: set trainer\.max_steps"):
        build_scheduler(partial(CosineAnnealingLR, T_max=-1), adam(), trainer_of(float("inf")))


def test_length_of_a_schedule_in_epochs():
    with pytest.raises(ScheduleError, match=r"run's 100 optimiser steps, but lr_interval is epoch"):
        build_scheduler(partial(CosineAnnealingLR, T_max=-1), adam(), trainer_of(100), "epoch")


def test_given_lengths_are_kept():
    assert build_scheduler(partial(CosineAnnealingLR, T_max=7), adam(), trainer_of(100)).T_max == 7
    made = build_scheduler(partial(OneCycleLR, max_lr=0.1, epochs=2, steps_per_epoch=5), adam(), trainer_of(100))
    assert made.total_steps == 10
    assert build_scheduler(partial(OneCycleLR, max_lr=0.1), adam(), trainer_of(100)).total_steps == 100


def test_signature_tells_settings_apart():
    def of(lr=0.1, **options):
        made = adam(lr)
        return signature(made, StepLR(made, **{"step_size": 3, **options}))

    assert of() == of()
    assert (
        len({str(of(lr=0.2)), str(of(gamma=0.5)), str(of(step_size=4)), str(of()), str(signature(adam(), None))}) == 5
    )


@pytest.mark.parametrize("kind", ["StepLR", "CosineAnnealingLR", "OneCycleLR"])
def test_take_over_puts_the_new_schedule_where_the_old_one_stood(kind):
    """The rate after n steps equals that of an optimiser that had the new schedule from its start."""
    options = {
        "StepLR": {"step_size": 2},
        "CosineAnnealingLR": {"T_max": 20},
        "OneCycleLR": {"max_lr": 0.5, "total_steps": 20},
    }
    make = partial(getattr(torch.optim.lr_scheduler, kind), **options[kind])
    optimiser = adam(0.4)
    schedule = make(optimiser)
    for _ in range(7):
        optimiser.step()
        schedule.step()
    state = {"param_groups": [{"params": [0], "lr": 0.1, "eps": 1e-8}], "state": {}}
    checkpoint = {
        "schedule": signature(adam(), None),
        "global_step": 7,
        "optimizer_states": [state],
        "lr_schedulers": [],
    }
    fresh = adam(0.4)
    take_over(checkpoint, fresh, make(fresh))
    group = checkpoint["optimizer_states"][0]["param_groups"][0]
    assert group["lr"] == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-12)
    assert group["betas"] == pytest.approx(optimiser.param_groups[0]["betas"])
    assert group["params"] == [0]
    assert checkpoint["lr_schedulers"][0]["last_epoch"] == 7


def test_a_new_learning_rate_takes_effect_and_keeps_the_moments(quick_trainer, tiny_images, tmp_path):
    first = train(quick_trainer, tiny_images, tmp_path)
    slower = {"optimiser": partial(torch.optim.Adam, lr=0.003), "resume": True}
    same = train(quick_trainer, tiny_images, tmp_path, **slower)  # no step is left: what was restored is seen as it is
    assert rate(same) == 0.003
    before, after = first.optimizers[0].state_dict()["state"], same.optimizers[0].state_dict()["state"]
    assert all(torch.equal(before[i][moment], after[i][moment]) for i in before for moment in ("exp_avg", "exp_avg_sq"))
    more = train(quick_trainer, tiny_images, tmp_path, steps=6, **slower)
    assert rate(more) == 0.003
    assert more.optimizers[0].state_dict()["state"][0]["step"] == 6


def test_a_longer_run_stretches_its_schedule(quick_trainer, tiny_images, tmp_path):
    schedule = partial(OneCycleLR, max_lr=0.01)
    train(quick_trainer, tiny_images, tmp_path, schedule=schedule)
    trainer = train(quick_trainer, tiny_images, tmp_path, schedule=schedule, steps=8, resume=True)
    assert trainer.lr_scheduler_configs[0].scheduler.total_steps == 8
    assert trainer.global_step == 8


def test_a_schedule_can_be_added_and_taken_away(quick_trainer, tiny_images, tmp_path):
    train(quick_trainer, tiny_images, tmp_path)
    added = train(quick_trainer, tiny_images, tmp_path, schedule=HALVES, steps=5, resume=True)
    assert rate(added) == pytest.approx(0.01 / 2**5)
    without = train(quick_trainer, tiny_images, tmp_path, steps=6, resume=True)
    assert rate(without) == pytest.approx(0.01)


def test_another_optimiser_is_refused(quick_trainer, tiny_images, tmp_path):
    train(quick_trainer, tiny_images, tmp_path)
    with pytest.raises(ScheduleError, match="trained with Adam, another optimiser than SGD: resume with Adam"):
        train(quick_trainer, tiny_images, tmp_path, optimiser=partial(torch.optim.SGD, lr=0.01), steps=6, resume=True)


def test_a_schedule_that_is_over_is_refused(quick_trainer, tiny_images, tmp_path):
    train(quick_trainer, tiny_images, tmp_path)
    schedule = partial(OneCycleLR, max_lr=0.01, total_steps=3)
    with pytest.raises(ScheduleError, match="the schedule ends before step 4"):
        train(quick_trainer, tiny_images, tmp_path, schedule=schedule, steps=6, resume=True)


def test_step_plateau_leaves_other_schedulers_alone():
    step_plateau(StepLR(adam(), 1), {})
    step_plateau(None, {})
    plateau = ReduceLROnPlateau(adam(), mode="max", patience=0)
    plateau.monitor = "val/psnr_y"
    step_plateau(plateau, {"val/psnr_y": 30.0})
    assert plateau.best == 30.0


class Line(L.LightningModule):
    """Another module than SuperResolution: a trainable and a frozen weight, fitted to zero."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.frozen = torch.nn.Parameter(torch.ones(1), requires_grad=False)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return (self.weight * batch).square().sum()

    def configure_optimizers(self):
        return self.schedule.configure(self)

    def on_save_checkpoint(self, checkpoint):
        self.schedule.save(checkpoint)

    def on_load_checkpoint(self, checkpoint):
        self.schedule.load(checkpoint, self)


def fit_line(make_trainer, schedule: Schedule, steps: int, ckpt_path=None):
    trainer = make_trainer(max_steps=steps, limit_val_batches=0)
    trainer.fit(Line(schedule), DataLoader(torch.ones(8, 1)), ckpt_path=ckpt_path)
    return trainer


def test_any_module_trains_what_requires_a_gradient_and_takes_new_settings(quick_trainer, tmp_path):
    path = tmp_path / "last.ckpt"
    first = fit_line(quick_trainer, Schedule(ADAM), 2)
    first.save_checkpoint(path)
    (group,) = first.optimizers[0].param_groups
    assert [id(parameter) for parameter in group["params"]] == [id(first.lightning_module.weight)]
    assert rate(fit_line(quick_trainer, Schedule(ADAM, HALVES), 3, path)) == pytest.approx(0.01 / 2**3)


def test_settings_do_not_matter_outside_training(quick_trainer, tmp_path):
    """Neither another optimiser nor one that cannot be made keeps a file from being read."""
    path = tmp_path / "last.ckpt"
    fit_line(quick_trainer, Schedule(ADAM), 2).save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    before = copy.deepcopy(checkpoint)
    Schedule(partial(torch.optim.SGD, lr=-1.0)).load(checkpoint, Line(Schedule(ADAM)))
    assert checkpoint == before


def test_nothing_is_saved_before_there_is_an_optimiser():
    checkpoint: dict[str, object] = {}
    Schedule(ADAM).save(checkpoint)
    assert checkpoint == {}
