"""NaNGuard: gradients that are not finite, injected by the loss at chosen steps."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.precision import MixedPrecision

from callbacks import EMA, NaNGuard, TrainingDivergedError
from lightning_modules import SuperResolution
from lightning_modules.losses.pixel import PixelLoss
from lightning_modules.networks import NetworkSpec
from tests.run_records import logged

NETWORK = NetworkSpec("EDSR", {"n_feats": 4, "n_resblocks": 1})
INF, NAN = float("inf"), float("nan")


class Poisoned(PixelLoss):
    """MSE, multiplied at chosen calls."""

    def __init__(self, factors: dict[int, float]) -> None:
        super().__init__()
        self.factors, self.calls = factors, 0

    def forward(self, prediction, target):
        self.calls += 1
        return (prediction - target).square().mean() * self.factors.get(self.calls, 1.0)


class Recorder(L.Callback):
    """Weights, Adam's moments and learning rate after each batch."""

    def __init__(self) -> None:
        self.states: list[list[torch.Tensor]] = []
        self.rates: list[float] = []

    def on_train_start(self, trainer, pl_module):
        self.states.append(everything(trainer, pl_module))

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.states.append(everything(trainer, pl_module))
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def everything(trainer, module):
    moments = [value for state in trainer.optimizers[0].state.values() for value in state.values()]
    return [tensor.detach().clone() for tensor in [*module.parameters(), *moments]]


def same(first, second):
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def half_precision() -> MixedPrecision:
    """What the Trainer makes of 16-mixed on a GPU, but on the CPU; a scale small enough not to overflow by itself."""
    return MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))


@pytest.mark.parametrize(
    "options",
    [{}, {"gradient_clip_val": 0.5}, {"precision": "bf16-mixed"}, {"plugins": "half"}],
    ids=["plain", "clipped", "bf16", "fp16"],
)
@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_bad_step_changes_nothing_and_is_counted(tiny_images, quick_trainer, options, bad):
    if "plugins" in options:
        options = {"plugins": half_precision()}
    guard, recorder = NaNGuard(), Recorder()
    model = SuperResolution(NETWORK, loss=Poisoned({2: bad, 3: bad}))
    trainer = quick_trainer(callbacks=[guard, recorder], max_steps=5, limit_val_batches=0, **options)
    trainer.fit(model, tiny_images)
    changes = [not same(a, b) for a, b in zip(recorder.states, recorder.states[1:], strict=False)]
    assert changes == [True, False, False, True, True]
    assert guard.skipped == 2
    assert trainer.global_step == 5
    assert trainer.callback_metrics["train/skipped_steps"] == 2
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_one_bad_batch_spoils_the_whole_step(tiny_images, quick_trainer):
    guard, recorder = NaNGuard(), Recorder()
    model = SuperResolution(NETWORK, loss=Poisoned({3: NAN}))
    trainer = quick_trainer(callbacks=[guard, recorder], max_steps=3, accumulate_grad_batches=2, limit_val_batches=0)
    trainer.fit(model, tiny_images)
    changes = [not same(a, b) for a, b in zip(recorder.states, recorder.states[1:], strict=False)]
    assert changes == [False, True, False, False, False, True]
    assert guard.skipped == 1


def test_average_and_schedule_go_on(tiny_images, quick_trainer):
    ema, recorder = EMA(), Recorder()
    model = SuperResolution(
        NETWORK,
        loss=Poisoned({2: NAN}),
        lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5),
    )
    trainer = quick_trainer(callbacks=[NaNGuard(), ema, recorder], max_steps=3, limit_val_batches=0)
    trainer.fit(model, tiny_images)
    assert recorder.rates == pytest.approx([5e-4, 2.5e-4, 1.25e-4])
    assert ema.updates == 3
    assert all(weight.isfinite().all() for weight in ema.average.values())


def test_stops_after_ten_in_a_row(tiny_images, quick_trainer):
    guard = NaNGuard()
    model = SuperResolution(NETWORK, loss=Poisoned(dict.fromkeys(range(3, 99), NAN)))
    trainer = quick_trainer(callbacks=[guard], max_steps=50, limit_val_batches=0)
    message = (
        r"not finite for 10 steps in a row, up to step 12: lower the learning rate, set trainer\.gradient_clip_val"
    )
    with pytest.raises(TrainingDivergedError, match=message):
        trainer.fit(model, tiny_images)
    assert guard.skipped == 10


def test_a_good_step_starts_the_count_anew(tiny_images, quick_trainer):
    guard = NaNGuard(patience=3)
    bad = {step: NAN for step in range(1, 12) if step % 3}
    quick_trainer(callbacks=[guard], max_steps=12, limit_val_batches=0).fit(
        SuperResolution(NETWORK, loss=Poisoned(bad)), tiny_images
    )
    assert guard.skipped == 8


def test_the_count_is_logged(tiny_images, quick_trainer, tmp_path):
    logger = CSVLogger(tmp_path, name="", version="")
    model = SuperResolution(NETWORK, loss=Poisoned({2: NAN}))
    options = {"logger": logger, "log_every_n_steps": 4, "max_steps": 4, "limit_val_batches": 0}
    quick_trainer(callbacks=[NaNGuard()], **options).fit(model, tiny_images)
    assert logged(tmp_path, "train/skipped_steps") == [1]


def test_the_count_survives_a_resume():
    before, after = NaNGuard(), NaNGuard()
    before.skipped = 7
    after.load_state_dict(before.state_dict())
    assert after.skipped == 7
