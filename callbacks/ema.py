"""EMA: an exponential moving average of the trainable weights, for validation, tests and export."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class EMA(Callback):
    """Averages trainable weights after every optimiser step; evaluation and the exported weights use the average.

    The decay starts low and rises as (1 + n) / (10 + n) with the steps n, so that short runs profit too. Frozen weights
    and buffers are not copied. The `state_dict` of a checkpoint holds the average, which whoever opens the file wants
    and which its score was measured with; the weights under training are kept in this callback's state.

    Args:
        decay: upper limit in [0, 1); 0 switches the average off.

    Raises:
        ValueError: when the decay lies outside.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ema.decay is {decay}; expected at least 0 (off) and below 1, such as 0.999")
        self.decay = decay
        self.average: dict[str, Tensor] = {}
        self.updates = 0
        self._trained: dict[str, Tensor] = {}
        self._resumed: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts from the module's weights; a resumed module holds the average, and goes on with the trained ones."""
        self.average = _copy(pl_module) if self.decay else {}
        _load(pl_module, self._resumed)
        self._resumed = {}

    @torch.no_grad()
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Moves the average, once per optimiser step however many batches that took."""
        if not self.decay or trainer.global_step <= self.updates:
            return
        self.updates = trainer.global_step
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, weight in _trainable(pl_module):
            self.average[name].lerp_(weight, 1 - decay)

    @contextmanager
    def applied(self, pl_module: LightningModule) -> Iterator[None]:
        """The module with averaged weights, for the length of a block."""
        self._swap_in(pl_module)
        try:
            yield
        finally:
            self._swap_out(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates the average."""
        self._swap_in(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Goes back to the trained weights, before a checkpoint is written."""
        self._swap_out(pl_module)

    on_test_start = on_predict_start = on_validation_start
    on_test_end = on_predict_end = on_validation_end

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Goes back to the trained weights when evaluation was interrupted."""
        self._swap_out(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Number of updates; `on_save_checkpoint` adds the trained weights."""
        return {"updates": self.updates, "trained": {}}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Puts the average where everybody looks for weights."""
        weights = checkpoint["state_dict"]
        checkpoint["callbacks"][self.state_key]["trained"] = {name: weights[name] for name in self.average}
        weights.update(self.average)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the trained weights until training starts; until then the module holds the average itself."""
        self.updates, self._resumed, self.average = state_dict["updates"], state_dict["trained"], {}

    def _swap_in(self, module: LightningModule) -> None:
        if self.average and not self._trained:
            self._trained = _copy(module)
            _load(module, self.average)

    def _swap_out(self, module: LightningModule) -> None:
        _load(module, self._trained)
        self._trained = {}


def find_ema(trainer: Trainer) -> EMA | None:
    """The Trainer's EMA callback, if it has one."""
    return next((callback for callback in trainer.callbacks if isinstance(callback, EMA)), None)  # type: ignore[attr-defined]


def _trainable(module: LightningModule) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, weight) for name, weight in module.named_parameters() if weight.requires_grad]


def _copy(module: LightningModule) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in _trainable(module)}


@torch.no_grad()
def _load(module: LightningModule, weights: dict[str, Tensor]) -> None:
    if weights:
        for name, weight in _trainable(module):
            weight.copy_(weights[name])
