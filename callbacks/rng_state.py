"""RNGState: random generators as part of the checkpoint, so that dropout and the like resume exactly."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer


class RNGState(Callback):
    """Saves the states of Python's, NumPy's and torch's generators of every process, and restores them at resume."""

    def __init__(self) -> None:
        self._restored: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """States of all processes, as tensors and plain values."""
        states: list[Any] = [_capture()]
        if dist.is_available() and dist.is_initialized():
            states = [None] * dist.get_world_size()
            dist.all_gather_object(states, _capture())
        return {"states": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the states until training starts."""
        self._restored = state_dict["states"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores, last thing before the first batch; a process that the checkpoint does not know keeps its own."""
        if trainer.global_rank < len(self._restored):
            _restore(self._restored[trainer.global_rank])
        self._restored = []


def _capture() -> dict[str, Any]:
    algorithm, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002  # the global generator is meant
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": random.getstate(),
        "numpy": (algorithm, [int(key) for key in keys], int(position), int(has_gauss), float(cached)),
        "torch": torch.get_rng_state(),
        "cuda": cuda,
    }


def _restore(state: dict[str, Any]) -> None:
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    algorithm, keys, *rest = state["numpy"]
    np.random.set_state((algorithm, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([generator.cpu() for generator in state["cuda"]])
