"""LightningCLI for srdistill: what LightningCLI leaves to chance, settled once for every command."""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger

import datamodules  # noqa: F401  # lets YAMLs name our classes without their packages
import lightning_modules  # noqa: F401
from callbacks import (
    EMA,
    CheckpointSettings,
    CostTracker,
    ImageGrid,
    NaNGuard,
    PredictionWriter,
    Provenance,
    Results,
    RNGState,
    WeightsExport,
    checkpoint_callbacks,
)
from cli.parser import FriendlyParser
from cli.run_folders import RunSettings, find_checkpoint, release, reserve

NEEDS_WEIGHTS = ("validate", "test", "predict")


class SRDistillCLI(LightningCLI):
    """LightningCLI with a run folder of its own for every run, and callbacks that no YAML list can lose.

    Args:
        args: command line without the program's name.

    Attributes:
        run_dir: folder that this run writes to.
    """

    run_dir: Path

    def __init__(self, args: list[str]) -> None:
        try:
            super().__init__(
                LightningModule,
                save_config_callback=Provenance,
                seed_everything_default=0,
                parser_class=FriendlyParser,
                parser_kwargs={"allow_abbrev": False},
                subclass_mode_model=True,
                subclass_mode_data=True,
                auto_configure_optimizers=False,
                args=args,
            )
        except BaseException:
            if hasattr(self, "run_dir"):
                release(self.run_dir)
            raise

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds `run`, `checkpoint`, `ema` and `image_grid`; names the default model and data."""
        parser.add_class_arguments(RunSettings, "run")
        parser.add_class_arguments(CheckpointSettings, "checkpoint")
        parser.add_class_arguments(EMA, "ema")
        parser.add_class_arguments(ImageGrid, "image_grid")
        parser.set_defaults(
            {
                "model": {"class_path": "lightning_modules.SuperResolution"},
                "data": {"class_path": "datamodules.RealImages"},
                "trainer.max_epochs": -1,
                "trainer.max_steps": 10_000,
                "trainer.val_check_interval": 500,
                "trainer.check_val_every_n_epoch": None,
            }
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Takes `--ckpt_path` aside: LightningCLI would let the checkpoint's hyperparameters win over the user's."""
        super().parse_arguments(parser, args)
        self._given_checkpoint = self._settings.pop("ckpt_path", None)

    def before_instantiate_classes(self) -> None:
        """Finds the checkpoint, refuses to score random weights, and reserves the run folder."""
        settings, stage = self._settings, str(self.config.subcommand)
        run = RunSettings(**settings.run)
        if self._given_checkpoint is not None:
            settings["ckpt_path"] = find_checkpoint(self._given_checkpoint, run)
        elif stage in NEEDS_WEIGHTS and not settings.model.get("init_args", {}).get("init_from"):
            raise ValueError(
                f"{stage} needs trained weights: add --ckpt_path last (or best, or a file), "
                "or --model.init_args.init_from WEIGHTS.safetensors"
            )
        settings["weights_only"] = True  # never unpickle
        if stage in ("validate", "test"):
            settings["verbose"] = False  # the Results callback has the better table
        self.run_dir = reserve(run, stage)
        settings.trainer.default_root_dir = str(self.run_dir)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds our loggers and callbacks to whatever the configuration has."""
        settings = self._settings
        given = self.config_init[self.subcommand].trainer
        callbacks = given.callbacks or []
        callbacks = [*(callbacks if isinstance(callbacks, list) else [callbacks]), *self._callbacks()]
        loggers = [*_loggers(self.run_dir, RunSettings(**settings.run), str(self.subcommand)), *_as_list(given.logger)]
        return super().instantiate_trainer(logger=loggers, callbacks=callbacks, **kwargs)

    @property
    def _settings(self) -> Any:
        return self.config[self.config.subcommand]

    def _callbacks(self) -> list[Callback]:
        """Order matters: EMA swaps weights before others look at them; checkpoints come last by Lightning's rule."""
        settings = self._settings
        initialised = self.config_init[self.subcommand]
        return [
            initialised.ema,
            initialised.image_grid,
            NaNGuard(),
            CostTracker(),
            RNGState(),
            LearningRateMonitor(logging_interval="step"),
            Results(),
            WeightsExport(),
            PredictionWriter(),
            *checkpoint_callbacks(CheckpointSettings(**settings.checkpoint), self.run_dir),
        ]


def _as_list(logger: Logger | list[Logger] | bool | None) -> list[Logger]:
    if isinstance(logger, Logger):
        return [logger]
    return logger if isinstance(logger, list) else []


def _loggers(run_dir: Path, run: RunSettings, stage: str) -> list[Logger]:
    """CSV always; W&B as asked for."""
    loggers: list[Logger] = [CSVLogger(run_dir, name="", version="")]
    mode = run.wandb
    if mode == "auto":
        installed = importlib.util.find_spec("wandb") is not None
        mode = os.environ.get("WANDB_MODE", "offline") if installed else "disabled"  # type: ignore[assignment]
    if mode != "disabled":
        from lightning.pytorch.loggers import WandbLogger

        loggers.append(
            WandbLogger(
                name=run_dir.name,
                save_dir=run_dir,
                offline=mode == "offline",
                project=run.project,
                group=run.experiment,
                job_type=stage,
            )
        )
    return loggers


def run(args: list[str]) -> SRDistillCLI:
    """Runs one command of the command line; see `main.main`."""
    _quieten()
    return SRDistillCLI(args)


def _quieten() -> None:
    """Libraries' notes that a user can do nothing about."""
    warnings.filterwarnings("ignore", "(?s).*JsonargparseDeprecationWarning")
    warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", "LightningCLI's args parameter")  # args are always given
    warnings.filterwarnings("ignore", "The dirpath has changed")  # by design: a resumed run has its own folder
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.getMessage()
    )
