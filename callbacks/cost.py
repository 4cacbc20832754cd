"""CostTracker: what a stage costs in time, memory and energy."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.run_folder import run_folder
from callbacks.run_summary import summarise
from datamodules.fingerprint import write_atomic
from datamodules.pair import PairBatch

RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")


class CostTracker(Callback):
    """Wall time, samples per second, peak memory and, where the device tells, energy; written to `cost.json`.

    Seconds, samples and joules of a resumed run include what the runs before it spent. Time in validation and in
    start-up is part of the wall time, but not of the training time, which the throughput is counted by.

    Written keys: `seconds`, `training_seconds` (with waiting for data), `samples`, `samples_per_second`,
    `optimizer_steps`, `peak_rss_mib` (main process), `peak_gpu_mib` (null without GPU), `joules` (null where unknown),
    `devices`. W&B's summary has the numbers among them as `cost/seconds` and so on.
    """

    def __init__(self) -> None:
        self._spent = {"seconds": 0.0, "training_seconds": 0.0, "samples": 0.0, "joules": 0.0}
        self._start = self._tick = time.perf_counter()
        self._energy_start: float | None = None
        self._training = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Starts the clocks."""
        self._stage = stage
        self._folder = run_folder(trainer)
        self._start = time.perf_counter()
        self._energy_start = joules()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock of training."""
        self._training = True
        self._tick = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves out the time of validation."""
        self._tick = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Counts a batch."""
        now = time.perf_counter()
        self._spent["training_seconds"] += now - self._tick
        self._tick = now
        self._spent["samples"] += trainer.world_size * (len(batch) if isinstance(batch, PairBatch) else 1)

    def state_dict(self) -> dict[str, float]:
        """What was spent so far."""
        return self._total()

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Goes on counting, when training goes on; the cost of a test is its own."""
        if self._stage == "fit":
            self._spent = dict(state_dict)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Writes what a failed or interrupted training has cost."""
        if self._training:
            self._write(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes `cost.json`."""
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            report = self.report(trainer)
            write_atomic(self._folder / "cost.json", json.dumps(report, indent=2) + "\n")
            summarise(trainer, "cost", report)

    def report(self, trainer: Trainer) -> dict[str, Any]:
        """The figures that `cost.json` holds."""
        total = self._total()
        busy = total["training_seconds"]
        cuda = torch.cuda.is_available()
        return {
            **total,
            "joules": total["joules"] if self._energy_start is not None else None,
            "samples_per_second": total["samples"] / busy if busy else None,
            "optimizer_steps": trainer.global_step,
            "peak_rss_mib": peak_rss_mib(),
            "peak_gpu_mib": torch.cuda.max_memory_allocated() / 2**20 if cuda else None,
            "devices": trainer.world_size,
        }

    def _total(self) -> dict[str, float]:
        energy = joules()
        used = energy - self._energy_start if energy is not None and self._energy_start is not None else 0.0
        return {
            **self._spent,
            "seconds": self._spent["seconds"] + time.perf_counter() - self._start,
            "joules": self._spent["joules"] + used,
        }


def peak_rss_mib() -> float:
    """Peak resident memory of this process in MiB."""
    try:
        import resource
    except ImportError:  # Windows
        return float(psutil.Process().memory_info().peak_wset) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if psutil.MACOS else peak / 2**10


def joules() -> float | None:
    """Energy counter of the first GPU, else of the first CPU package; null where neither can be read."""
    if torch.cuda.is_available():
        try:
            import pynvml

            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device())
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
        except Exception:  # not installed, or a device without the counter: energy is simply unknown
            return None
    try:
        return int(RAPL.read_text()) / 1e6
    except OSError:
        return None
