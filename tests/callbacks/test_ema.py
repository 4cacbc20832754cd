"""EMA: against a plain recomputation from the weights of every step."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from safetensors.torch import load_file

from callbacks import EMA, WeightsExport
from lightning_modules import SuperResolution
from lightning_modules.networks import NetworkSpec
from main import main

NETWORK = NetworkSpec("EDSR", {"n_feats": 4, "n_resblocks": 1})


class Recorder(L.Callback):
    """The trained weights after each optimiser step, and those that validation sees."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []
        self.evaluated: list[dict[str, torch.Tensor]] = []

    def on_train_start(self, trainer, pl_module):
        self.steps = [weights_of(pl_module)]

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == len(self.steps):
            self.steps.append(weights_of(pl_module))

    def on_validation_batch_start(self, trainer, pl_module, *_):
        self.evaluated.append(weights_of(pl_module))

    on_test_batch_start = on_validation_batch_start


def weights_of(module: L.LightningModule) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in module.named_parameters() if weight.requires_grad}


def averaged(steps: list[dict[str, torch.Tensor]], decay: float) -> dict[str, torch.Tensor]:
    """a_n = d_n a_(n-1) + (1 - d_n) w_n with d_n = min(decay, (1 + n) / (10 + n)), in float64."""
    average = {name: weight.double() for name, weight in steps[0].items()}
    for n, weights in enumerate(steps[1:], start=1):
        d = min(decay, (1 + n) / (10 + n))
        average = {name: d * average[name] + (1 - d) * weights[name].double() for name in average}
    return average


def assert_close(first, second):
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name].double(), second[name].double(), rtol=0, atol=1e-7, msg=name)


def assert_equal(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("accumulate", "decay"), [(1, 0.999), (2, 0.3)])
def test_average_moves_once_per_optimiser_step(tiny_images, quick_trainer, accumulate, decay):
    ema, recorder = EMA(decay), Recorder()
    model = SuperResolution(NETWORK)
    quick_trainer(callbacks=[ema, recorder], accumulate_grad_batches=accumulate).fit(model, tiny_images)
    assert ema.updates == 4
    assert len(recorder.steps) == 5
    assert_close(ema.average, averaged(recorder.steps, decay))
    assert_equal(weights_of(model), recorder.steps[-1])  # swapped back


def test_validation_and_test_see_the_average(tiny_images, quick_trainer):
    ema, recorder = EMA(), Recorder()
    model = SuperResolution(NETWORK)
    trainer = quick_trainer(callbacks=[ema, recorder])
    trainer.fit(model, tiny_images)
    at_steps = [averaged(recorder.steps[: step + 1], 0.999) for step in (2, 4)]
    for seen, expected in zip(recorder.evaluated, at_steps, strict=True):
        assert_close(seen, expected)
    recorder.evaluated.clear()
    trainer.test(model, tiny_images, verbose=False)
    assert_close(recorder.evaluated[0], at_steps[-1])
    assert_equal(weights_of(model), recorder.steps[-1])


def test_frozen_weights_are_not_averaged(tiny_images, quick_trainer):
    class Frozen(SuperResolution):
        def configure_model(self):
            super().configure_model()
            self.network.body.requires_grad_(False)

    ema, model = EMA(), Frozen(NETWORK)
    quick_trainer(callbacks=[ema]).fit(model, tiny_images)
    assert ema.average
    assert not any("body" in name for name in ema.average)


def test_checkpoint_holds_the_average_and_resumes_with_the_trained_weights(tiny_images, quick_trainer, tmp_path):
    ema, recorder = EMA(), Recorder()
    trainer = quick_trainer(callbacks=[ema, recorder])
    trainer.fit(SuperResolution(NETWORK), tiny_images)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    parameters = {name: checkpoint["state_dict"][name] for name in ema.average}
    assert_equal(parameters, ema.average)
    assert_equal(checkpoint["callbacks"]["EMA"]["trained"], recorder.steps[-1])

    resumed, later = EMA(), Recorder()
    trainer = quick_trainer(callbacks=[resumed, later], max_steps=6)
    trainer.fit(SuperResolution(NETWORK), tiny_images, ckpt_path=tmp_path / "last.ckpt")
    assert_equal(later.steps[0], recorder.steps[-1])
    assert resumed.updates == 6


def test_a_checkpoint_of_an_averaged_run_resumes_without_the_average(tiny_images, quick_trainer, tmp_path):
    first = Recorder()
    trainer = quick_trainer(callbacks=[EMA(), first])
    trainer.fit(SuperResolution(NETWORK), tiny_images)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    ema, later = EMA(0), Recorder()
    trainer = quick_trainer(callbacks=[ema, later], max_steps=5)
    trainer.fit(SuperResolution(NETWORK), tiny_images, ckpt_path=tmp_path / "last.ckpt")
    assert_equal(later.steps[0], first.steps[-1])
    assert not ema.average


def test_interrupted_validation_leaves_the_trained_weights(tiny_images, quick_trainer):
    class Broken(SuperResolution):
        def validation_step(self, *_):
            raise RuntimeError("broken")

    recorder, model = Recorder(), Broken(NETWORK)
    with pytest.raises(RuntimeError, match="broken"):
        quick_trainer(callbacks=[EMA(), recorder]).fit(model, tiny_images)
    assert_equal(weights_of(model), recorder.steps[-1])


def test_export_and_evaluation_from_the_command_line(tiny, tmp_path):
    fit = main(["fit", *tiny])
    ema = next(callback for callback in fit.trainer.callbacks if isinstance(callback, EMA))
    exported = load_file(fit.run_dir / "weights.safetensors")
    average = {name.removeprefix("network."): weight for name, weight in ema.average.items()}
    assert_equal({name: exported[name] for name in average}, average)
    assert exported.keys() == fit.model.network.state_dict().keys()
    test = main(["test", *tiny, "--ckpt_path", "last"])
    assert_equal(weights_of(test.model), ema.average)


def test_export_without_average(tiny_images, quick_trainer, tmp_path):
    model = SuperResolution(NETWORK)
    quick_trainer(callbacks=[WeightsExport()]).fit(model, tiny_images)
    assert_equal(load_file(tmp_path / "weights.safetensors"), dict(model.network.state_dict()))


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_decay_out_of_range(decay):
    with pytest.raises(ValueError, match=r"ema\.decay is .*; expected at least 0 \(off\) and below 1"):
        EMA(decay)
