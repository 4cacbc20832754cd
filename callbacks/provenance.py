"""Provenance: everything needed to repeat a run, beside its results."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer.states import TrainerFn

from callbacks.results import trained_on
from callbacks.run_folder import run_folder
from callbacks.run_summary import summarise, summarise_best
from datamodules.fingerprint import write_atomic
from datamodules.software import describe_software

SCHEMA = 1


class Provenance(SaveConfigCallback):
    """Writes `config.yaml` (resolved, can be given to `--config` again) and `provenance.json` into the run folder.

    `provenance.json` holds: schema version, stage, command, seed, checkpoint that was read, fingerprint and budget of
    the training data, git commit and whether the tree had changes, package versions, Python, platform, devices,
    precision.

    W&B's config gets the configuration and, beside it, the labels; its summary gets `data/images`, `data/percent` ...:
    how much data the run trains on or, in a test, its weights were trained on.

    Args:
        args: see SaveConfigCallback.
        command: that started the run; its first word may be a path.
        kwargs: see SaveConfigCallback.
    """

    def __init__(self, *args: Any, command: Sequence[str] = sys.argv, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "save_to_log_dir": False})
        self.command = list(command)
        self._labels: dict[str, Any] = {}

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called once per run, on the first process, before anything else happens."""
        folder = Path(trainer.default_root_dir)
        text = self.parser.dump(self.config, skip_none=False)
        write_atomic(folder / "config.yaml", text)
        resolved = yaml.safe_load(text)
        self._labels = resolved.get("run", {}).get("labels", {})
        _log_config(trainer, resolved)
        if stage == "fit" and "checkpoint" in resolved:
            summarise_best(trainer, resolved["checkpoint"]["monitor"], resolved["checkpoint"]["mode"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the provenance of `fit`, if validation did not do so before."""
        self._write(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the provenance of `validate` and, at the sanity check, of `fit`."""
        self._write(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the provenance of `test`."""
        self._write(trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the provenance of `predict`."""
        self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        path = run_folder(trainer) / "provenance.json"
        if trainer.is_global_zero and not path.exists():
            record = describe_run(trainer, self.command)
            write_atomic(path, json.dumps(record, indent=2) + "\n")
            if self._labels:  # only now: Lightning logs the module's hyperparameters, such as `network`, after `setup`
                _log_config(trainer, self._labels)
            summarise(trainer, "data", record["data_budget"] or _budget_of_tested(trainer, pl_module))


def _log_config(trainer: Trainer, config: dict[str, Any]) -> None:
    for logger in trainer.loggers:
        if not isinstance(logger, CSVLogger):  # there, config.yaml is the record
            logger.log_hyperparams(config)


def describe_run(trainer: Trainer, command: Sequence[str]) -> dict[str, Any]:
    """The content of `provenance.json`."""
    data = getattr(trainer, "datamodule", None) if trainer.state.fn == TrainerFn.FITTING else None
    budget = getattr(data, "data_budget", None)
    return {
        "schema": SCHEMA,
        "stage": trainer.state.fn.value if trainer.state.fn else None,
        "command": [Path(command[0]).name, *command[1:]],
        "seed": int(os.environ["PL_GLOBAL_SEED"]) if "PL_GLOBAL_SEED" in os.environ else None,
        "checkpoint": None if trainer.ckpt_path is None else str(trainer.ckpt_path),
        "data_fingerprint": getattr(data, "fingerprint", None),
        "data_budget": None if budget is None else budget.to_dict(),
        "data_preparation": getattr(data, "preparation", None),
        **describe_software(),
        "devices": [str(device) for device in _device_names(trainer)],
        "precision": str(trainer.precision),
    }


def _budget_of_tested(trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
    """What the weights of a validation or test were trained on; empty where nothing tells."""
    if trainer.state.fn not in (TrainerFn.VALIDATING, TrainerFn.TESTING):
        return {}
    budget = trained_on(trainer.ckpt_path or getattr(pl_module, "init_from", None))
    return {} if budget is None else budget.to_dict()


def _device_names(trainer: Trainer) -> list[str]:
    if trainer.strategy.root_device.type == "cuda":
        return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return [platform.processor() or platform.machine()] * trainer.world_size
