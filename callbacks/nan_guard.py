"""NaNGuard: a step whose gradient is not finite is skipped; too many in a row end the run."""

from __future__ import annotations

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer


class TrainingDivergedError(RuntimeError):
    """Loss or gradient stayed infinite or NaN."""


class NaNGuard(Callback):
    """Skips optimiser steps with a gradient that is not finite, counts them, and gives up after several in a row.

    Gradients are looked at after they were averaged over processes, so that all of them decide alike. Skipping means
    that the optimiser finds no gradient: neither weights nor moments change, while the schedule goes on.

    Args:
        patience: steps in a row that are skipped before training stops.

    Raises:
        TrainingDivergedError: from the training loop, when the patience is spent.
    """

    def __init__(self, patience: int = 10) -> None:
        self.patience = patience
        self.skipped = 0
        self._in_a_row = 0

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Drops a gradient that is not finite."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not gradients or torch.nn.utils.get_total_norm(gradients).isfinite():
            self._in_a_row = 0
            return
        self.skipped += 1
        self._in_a_row += 1
        optimizer.zero_grad(set_to_none=True)
        pl_module.log("train/skipped_steps", float(self.skipped), prog_bar=True)
        if self._in_a_row >= self.patience:
            raise TrainingDivergedError(
                f"loss or gradient was not finite for {self.patience} steps in a row, up to step "
                f"{trainer.global_step + 1}: lower the learning rate, set trainer.gradient_clip_val, or use precision "
                "32-true or bf16-mixed"
            )

    def state_dict(self) -> dict[str, int]:
        """Steps skipped so far."""
        return {"skipped": self.skipped, "in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Goes on counting."""
        self.skipped, self._in_a_row = state_dict["skipped"], state_dict["in_a_row"]
