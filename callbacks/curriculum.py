"""Curriculum: simple windows first, complex and uncertain ones later."""

from __future__ import annotations

import json
import math
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn
from torch import Tensor

from callbacks.curriculum_plan import monitored, refuse_run, refuse_values, running_number, stream_of, switch_step
from callbacks.draw_log import DrawLog, draw_map
from callbacks.run_folder import run_folder
from datamodules.curriculum import LAG, Shares, TwoStages
from datamodules.fingerprint import write_atomic
from datamodules.loader import StreamSampler
from datamodules.selection.criteria import Entropy
from datamodules.selection.interfaces import Criterion
from datamodules.window_scores import digest_windows, window_scores
from lightning_modules.super_resolution import SuperResolution
from lightning_modules.uncertainty import sample_losses, symmetry_variance, undisturbed

INTERVALS = 50
"""About as many are drawn in the picture."""


class Curriculum(Callback):
    """Two-stage training (TripleD, arXiv 2504.14826): crops of simple windows, then of complex and uncertain ones.

    Windows are what crops are drawn from: patches of a distilled set or a selection, photographs, or their
    `sub_image`s. What was drawn is logged as `curriculum/complexity` (mean score since the last log) and
    `curriculum/stage`, and lies in `curriculum/drawn.csv` and `drawn.png`.

    Args:
        enabled: whether to choose; without, all windows are drawn evenly.
        at: what ends stage one: a `step`, an `epoch`, or a `plateau` of the metric that `checkpoint.monitor` names.
        switch: a share of the run below 1, else a number of optimiser steps, or of epochs; for a plateau the latest.
        patience: validations without a better metric that make a plateau.
        easy: share of all pixels, the least complex ones, that stage one draws from.
        hard: share of all pixels, those highest in complexity and uncertainty together, that stage two draws from.
        everywhere: share of the draws that come from all windows in both stages, so that none is forgotten; may be 0.
        complexity: score of a window; null is the entropy of grey levels and gradients.
        uncertainty: of the model under training: `variance` of its outputs under the eight flips and rotations, or its
            `loss`, which costs an eighth.
        refresh_every: optimiser steps between measurements of uncertainty; the first is made in time for stage two.
        refresh_windows: windows that are measured at a time, one crop of each; all get their turn.

    Raises:
        ValueError: when a value makes no sense, alone or in this run.
    """

    def __init__(
        self,
        enabled: bool = False,
        at: Literal["step", "epoch", "plateau"] = "step",
        switch: float = 0.5,
        patience: int = 3,
        easy: float = 0.5,
        hard: float = 0.5,
        everywhere: float = 0.25,
        complexity: Criterion | None = None,
        uncertainty: Literal["variance", "loss"] = "variance",
        refresh_every: int = 500,
        refresh_windows: int = 256,
    ) -> None:
        counts = {"patience": patience, "refresh_every": refresh_every, "refresh_windows": refresh_windows}
        refuse_values({"easy": easy, "hard": hard}, everywhere, counts, switch)
        self.enabled = enabled
        self.at = at
        self.switch = switch
        self.patience = patience
        self.shares = Shares(easy, hard, everywhere)
        self.complexity = complexity or Entropy()
        self.uncertainty = uncertainty
        self.refresh_every = refresh_every
        self.refresh_windows = refresh_windows
        self._stages: TwoStages | None = None
        self._resumed: dict[str, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses what has no stream of crops to choose from, and finds out where to write."""
        if self.enabled and stage == "fit":
            refuse_run(trainer, pl_module, self.complexity)
            if self.at == "plateau":
                monitored(trainer)
            self._folder = run_folder(trainer) / "curriculum"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Scores the windows and takes over the choice, before the first batch is fetched."""
        if not self.enabled:
            return
        stream, patches = stream_of(trainer)
        step = switch_step(trainer, self.at, self.switch)
        switch = running_number(step, trainer, stream)
        scores = window_scores(self.complexity, patches, trainer.strategy.root_device)
        upwards = scores if self.complexity.complex_when == "high" else -scores
        self._stages = TwoStages(patches, upwards, self.shares, switch)
        self._log = DrawLog(scores, patches.areas, self._interval(trainer))
        self._logged = self._steps = trainer.global_step
        self._due = max(stream.position, switch - LAG * stream.global_batch)
        self._plateau: dict[str, Any] = {"best": None, "waited": 0}
        data = [patches.store.index.fingerprint, digest_windows(patches), stream.global_batch]
        self._plan = json.dumps([step, vars(self.shares), self.complexity.identity(), data], sort_keys=True)
        if self._resumed.get("plan") == self._plan:
            self._resume()
        else:
            if self._resumed:
                rank_zero_warn("the curriculum begins afresh here: its settings, or the data, are not the checkpoint's")
            self._stages.begin(stream.position)
        self._resumed = {}
        stream.windows = self._stages.draws

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes over the choice again where the Trainer has asked for a new loader."""
        if self._stages is not None:
            stream, _ = stream_of(trainer)
            stream.windows = self._stages.draws

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs what was drawn and, when it is time, asks the model what it is unsure of."""
        if self._stages is None:
            return
        stream, _ = stream_of(trainer)
        self._record(trainer, pl_module, stream)
        self._stages.draws.forget(stream.position)
        if stream.position >= self._due:
            self._due = stream.position + self.refresh_every * trainer.accumulate_grad_batches * stream.global_batch
            self._refresh(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks for a plateau; the model is measured after the next batch, in training again."""
        if self._stages is None or self.at != "plateau" or trainer.sanity_checking:
            return
        if trainer.state.fn != TrainerFn.FITTING or not self._plateau_found(trainer):
            return
        stream, _ = stream_of(trainer)
        self._stages.switch_at(stream.position + (LAG + 1) * stream.global_batch)
        self._due = min(self._due, stream.position)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes table and picture."""
        self._write(trainer)
        self._draw(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Writes what was drawn until training failed or was interrupted."""
        self.on_train_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """What is known of the windows, what is in force and pending, and what was drawn; nothing when not enabled."""
        if self._stages is None:
            return self._resumed
        parts = {"stages": self._stages.state_dict(), "log": self._log.state_dict()}
        return {"plan": self._plan, "due": self._due, "plateau": dict(self._plateau), **parts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the state until training starts; with other settings or data the curriculum starts afresh there."""
        self._resumed = dict(state_dict) if self.enabled else {}

    def _resume(self) -> None:
        assert self._stages is not None
        self._stages.load_state_dict(self._resumed["stages"])
        self._log.load_state_dict(self._resumed["log"])
        self._due, self._plateau = self._resumed["due"], dict(self._resumed["plateau"])

    def _interval(self, trainer: Trainer) -> int:
        total = trainer.estimated_stepping_batches
        return self.refresh_every if math.isinf(total) else max(1, math.ceil(total / INTERVALS))

    def _record(self, trainer: Trainer, module: LightningModule, stream: StreamSampler) -> None:
        """Of all processes: which windows they drew is known without asking them."""
        assert self._stages is not None
        windows = self._stages.draws(torch.arange(stream.position - stream.global_batch, stream.position))
        stage = self._stages.stage(stream.position - 1)
        if self._log.add(windows, self._steps + 1, stage):
            self._write(trainer)
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        self._steps = step = trainer.global_step
        if every > 0 and step % every == 0 and step > self._logged:
            self._logged = step
            means = {"curriculum/complexity": self._log.read_mean(), "curriculum/stage": float(stage)}
            module.log_dict(means, batch_size=len(windows))

    def _refresh(self, trainer: Trainer, module: LightningModule) -> None:
        assert self._stages is not None
        assert isinstance(module, SuperResolution)
        stream, patches = stream_of(trainer)
        numbers, windows = self._stages.to_measure(self.refresh_windows)
        data: Any = getattr(trainer, "datamodule", None)
        device = trainer.strategy.root_device
        measured = torch.zeros(len(windows), device=device)
        mine = torch.arange(trainer.global_rank, len(windows), trainer.world_size)
        with undisturbed(module, device):
            for start in range(0, len(mine), stream.batch_size):  # of few windows, a process may have none
                some = mine[start : start + stream.batch_size]
                batch = patches.__getitems__(torch.stack([numbers[some], windows[some]], 1).tolist())
                batch = data.degraded(batch.to(device).to_float())
                measured[some] = self._measure(module, batch.lr, batch.hr)
        together = trainer.strategy.reduce(measured, reduce_op="sum")
        self._stages.learn(windows, together, stream.position + LAG * stream.global_batch)

    def _measure(self, module: SuperResolution, lr: Tensor, hr: Tensor) -> Tensor:
        if self.uncertainty == "variance":
            return symmetry_variance(module, lr)
        return sample_losses(module.loss, module(lr), hr)

    def _plateau_found(self, trainer: Trainer) -> bool:
        """Whether this is the validation at which patience ends."""
        metric, mode = monitored(trainer)
        if metric not in trainer.callback_metrics:  # ModelCheckpoint says so
            return False
        # Of one process: a metric of training is not the same on all, but they must switch together.
        value = trainer.strategy.broadcast(float(trainer.callback_metrics[metric]))
        best = self._plateau["best"]
        if best is None or (value > best if mode == "max" else value < best):
            self._plateau = {"best": value, "waited": 0}
        else:
            self._plateau["waited"] += 1
        return bool(self._plateau["waited"] == self.patience)

    @rank_zero_only
    def _write(self, trainer: Trainer) -> None:
        if self._stages is not None and len(self._log.table):
            write_atomic(self._folder / "drawn.csv", self._log.csv())

    @rank_zero_only
    def _draw(self, trainer: Trainer) -> None:
        if self._stages is None or not len(self._log.table):
            return
        picture = draw_map(self._log, self.complexity, "windows that training crops were drawn from")
        picture.save(self._folder / "drawn.png")
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image("curriculum/drawn", [picture], step=trainer.global_step)
