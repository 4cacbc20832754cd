"""CostTracker: sums of one run and of resumed ones."""

from __future__ import annotations

import json
import time

import lightning as L
import psutil
import pytest

from callbacks import CostTracker
from callbacks import cost as module
from lightning_modules import SuperResolution
from lightning_modules.networks import NetworkSpec
from main import main

NETWORK = NetworkSpec("EDSR", {"n_feats": 4, "n_resblocks": 1})


def costs(cli) -> dict:
    return json.loads((cli.run_dir / "cost.json").read_text())


def test_fields(runs):
    fit = costs(runs.fit)
    assert (fit["samples"], fit["optimizer_steps"], fit["devices"]) == (8, 4, 1)
    assert 0 < fit["training_seconds"] < fit["seconds"] < 60
    assert fit["samples_per_second"] == pytest.approx(8 / fit["training_seconds"])
    assert 50 < fit["peak_rss_mib"] <= psutil.Process().memory_info().rss / 2**20 * 10
    assert fit["peak_gpu_mib"] is None


def test_a_test_has_its_own_cost(runs):
    test = costs(runs.test)
    assert test["samples"] == 0
    assert test["samples_per_second"] is None
    assert test["seconds"] < 60


def test_a_resumed_run_goes_on_counting(runs):
    more = main(["fit", *runs.arguments, "--trainer.max_steps", "6", "--ckpt_path", "last"])
    before, after = costs(runs.fit), costs(more)
    assert (after["samples"], after["optimizer_steps"]) == (12, 6)
    assert after["training_seconds"] > before["training_seconds"]
    assert after["seconds"] > before["training_seconds"]


def test_waiting_for_data_counts_and_validation_does_not(tiny_images, quick_trainer):
    class SlowValidation(L.Callback):
        def on_validation_batch_start(self, *_):
            time.sleep(0.5)

    class SlowData(L.Callback):
        def on_train_batch_start(self, *_):
            time.sleep(0.1)

    cost = CostTracker()
    quick_trainer(callbacks=[SlowValidation(), SlowData(), cost]).fit(SuperResolution(NETWORK), tiny_images)
    spent = cost.state_dict()
    assert 0.4 < spent["training_seconds"] < 0.9
    assert spent["seconds"] > 1.0 + spent["training_seconds"]


def test_written_after_a_failure(tiny_images, quick_trainer, tmp_path):
    class Broken(SuperResolution):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        quick_trainer(callbacks=[CostTracker()]).fit(Broken(NETWORK), tiny_images)
    assert json.loads((tmp_path / "cost.json").read_text())["samples"] == 0


def test_energy_is_a_difference_of_the_counter(monkeypatch, tmp_path, tiny_images, quick_trainer):
    counter = tmp_path / "energy_uj"
    counter.write_text("5000000\n")
    monkeypatch.setattr(module, "RAPL", counter)

    class Draw(L.Callback):
        def on_train_batch_end(self, *_):
            counter.write_text(str(int(counter.read_text()) + 1_500_000))

    quick_trainer(callbacks=[Draw(), CostTracker()], limit_val_batches=0).fit(SuperResolution(NETWORK), tiny_images)
    assert json.loads((tmp_path / "cost.json").read_text())["joules"] == pytest.approx(6.0)
