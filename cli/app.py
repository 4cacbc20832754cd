"""LightningCLI for srdistill: what LightningCLI leaves to chance, settled once for every command."""

from __future__ import annotations

import logging
import pkgutil
import warnings
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from rich.console import Console

import datamodules  # noqa: F401  # lets YAMLs name our classes without their packages
import lightning_modules  # noqa: F401
from callbacks import (
    EMA,
    CheckpointSettings,
    CostTracker,
    Curriculum,
    DistilledWriter,
    ImageGrid,
    NaNGuard,
    PredictionWriter,
    Provenance,
    Results,
    RNGState,
    SampleGrid,
    SampleReport,
    SelectionSheet,
    WeightsExport,
    checkpoint_callbacks,
)
from cli.errors import is_ours
from cli.loggers import finish_wandb, run_loggers
from cli.parser import FriendlyParser, RaisingParser
from cli.run_folders import RunSettings, find_checkpoint, release, reserve
from lightning_modules import Distiller

PREDICT = (
    "Upscales the images of data.predict_root with trained weights; or, where the model is a method of distillation, "
    "writes a distilled set into distilled.folder. PatchSelection and Relabelling need no --ckpt_path, "
    "LoRADiffusion, GANInversion and DistributionAlignment one or model.init_args.init_from."
)
GROUPS = (
    *("run", "checkpoint", "ema", "curriculum", "image_grid", "selection_sheet", "sample_grid", "distilled"),
    *("sample_report", "trainer"),
)


class SRDistillCLI(LightningCLI):
    """LightningCLI with a run folder of its own for every run, and callbacks that no YAML list can lose.

    Args:
        args: command line without the program's name; begins with the command.

    Attributes:
        run_dir: folder that this run writes to.
    """

    run_dir: Path

    def __init__(self, args: list[str]) -> None:
        self._command = args[0]
        described = {"predict": {"description": PREDICT}} if self._command == "predict" else {}
        try:
            super().__init__(
                LightningModule,
                save_config_callback=Provenance,
                save_config_kwargs={"command": ["main.py", *args]},
                seed_everything_default=0,
                parser_class=FriendlyParser,
                parser_kwargs={"allow_abbrev": False, **described},
                subclass_mode_model=True,
                subclass_mode_data=True,
                auto_configure_optimizers=False,
                args=args,
            )
        except BaseException:
            finish_wandb(exit_code=1)
            if hasattr(self, "run_dir"):
                release(self.run_dir)
            raise
        finish_wandb(exit_code=0)

    # Only one command: the options of the others would be made for nothing.
    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The command given, and which of its arguments are no options: these are set in the method of its name."""
        ours = {"ckpt_path", "weights_only", "verbose", "return_predictions"}
        return {self._command: LightningCLI.subcommands()[self._command] | ours}

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds all options."""
        add_options(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Takes `--ckpt_path` aside: LightningCLI would let the checkpoint's hyperparameters win over the user's."""
        super().parse_arguments(parser, args)
        self._given_checkpoint = self._settings.pop("ckpt_path", None)

    def before_instantiate_classes(self) -> None:
        """Refuses what cannot work, finds the checkpoint and reserves the run folder."""
        settings, stage = self._settings, str(self.config.subcommand)
        _refuse_lists(settings)
        _refuse_two_scales(settings)
        run, model = RunSettings(**settings.run), pkgutil.resolve_name(settings.model.class_path)
        if stage != "predict" and issubclass(model, Distiller):
            _refuse_untrainable(model)
        if self._given_checkpoint is not None:
            settings.ckpt_path = find_checkpoint(self._given_checkpoint, run)
        elif stage != "fit" and getattr(model, "needs_checkpoint", True):
            _refuse_untrained(settings, stage)
        if stage == "predict" and issubclass(model, Distiller):
            DistilledWriter(**settings.distilled).refuse_existing()
        self.run_dir = reserve(run, stage)
        settings.run.name = None  # config.yaml can be given to --config again, for a run of its own
        settings.trainer.default_root_dir = str(self.run_dir)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds our loggers and callbacks to whatever the configuration has.

        Raises:
            ValueError: when the Trainer refuses its options.
        """
        settings = self._settings
        given = self.config_init[self.subcommand].trainer
        callbacks = [*_as_list(given.callbacks), *self._callbacks()]
        loggers: list[Logger] = [
            *run_loggers(self.run_dir, RunSettings(**settings.run), str(self.subcommand)),
            *(logger for logger in _as_list(given.logger) if isinstance(logger, Logger)),
        ]
        try:
            return super().instantiate_trainer(logger=loggers, callbacks=callbacks, **kwargs)
        except (ValueError, TypeError, MisconfigurationException) as error:
            raise ValueError(f"trainer: {error}") from error

    def fit(self, **arguments: Any) -> None:
        """Trains; with a checkpoint, goes on from it."""
        self.trainer.fit(**arguments, **self._weights)
        self._tell(f"weights, checkpoints, logs and pictures: {self.run_dir}")

    def validate(self, **arguments: Any) -> None:
        """Measures on the validation images."""
        self.trainer.validate(**arguments, **self._weights, verbose=False)  # the Results callback has the better table

    def test(self, **arguments: Any) -> None:
        """Measures on the test sets."""
        self.trainer.test(**arguments, **self._weights, verbose=False)

    def predict(self, **arguments: Any) -> None:
        """Upscales, or makes a distilled set; the pictures go to files, and are not kept in memory."""
        self.trainer.predict(**arguments, **self._weights, return_predictions=False)
        if not isinstance(self.model, Distiller):  # its writer tells
            self._tell(f"upscaled images: {self.run_dir / 'predictions'}")

    def _tell(self, line: str) -> None:
        if self.trainer.is_global_zero:
            Console().print(line, highlight=False, soft_wrap=True)

    @property
    def _weights(self) -> dict[str, Any]:
        return {"ckpt_path": self._settings.get("ckpt_path"), "weights_only": True}  # never unpickle

    @property
    def _settings(self) -> Any:
        return self.config[self.config.subcommand]

    def _callbacks(self) -> list[Callback]:
        """Order matters: EMA swaps weights before others look at them; checkpoints come last by Lightning's rule."""
        settings = self._settings
        initialised = self.config_init[self.subcommand]
        return [
            initialised.ema,
            initialised.curriculum,
            initialised.image_grid,
            initialised.selection_sheet,
            initialised.sample_grid,
            initialised.distilled,
            initialised.sample_report,
            NaNGuard(),
            CostTracker(),
            RNGState(),
            LearningRateMonitor(logging_interval="step"),
            Results(),
            WeightsExport(),
            PredictionWriter(),
            *checkpoint_callbacks(CheckpointSettings(**settings.checkpoint), self.run_dir),
        ]


def add_options(parser: LightningArgumentParser) -> None:
    """Adds the options of every command, what users set most first."""
    parser.usage = "%(prog)s [--config FILE ...] [--KEY VALUE ...]"
    parser.add_argument(
        "--ckpt_path", type=str | None, help="`last` or `best` of the experiment's newest fit, or a checkpoint file"
    )
    parser.add_class_arguments(RunSettings, "run")
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    parser.add_class_arguments(CheckpointSettings, "checkpoint")
    parser.add_class_arguments(EMA, "ema")
    parser.add_class_arguments(Curriculum, "curriculum")
    parser.add_class_arguments(ImageGrid, "image_grid")
    parser.add_class_arguments(SelectionSheet, "selection_sheet")
    parser.add_class_arguments(SampleGrid, "sample_grid")
    parser.add_class_arguments(DistilledWriter, "distilled")
    parser.add_class_arguments(SampleReport, "sample_report")
    parser.add_lightning_class_args(Trainer, "trainer")
    groups: Any = parser.groups
    groups["model"].title = "What is trained or distils (--model.help SuperResolution lists a class's options)"
    groups["data"].title = "What it learns from and is tested on (--data.help RealImages lists its options)"
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


def options_parser() -> RaisingParser:
    """A parser of what stands after `fit`, `test` and the like, for those who look at runs without making one."""
    parser = RaisingParser(allow_abbrev=False)
    parser.add_argument("-c", "--config", action=ActionConfigFile)
    parser.add_argument("--seed_everything", type=bool | int, default=0)
    add_options(parser)
    return parser


def _as_list(given: Any) -> list[Any]:
    """A value, a list of values or nothing, as a list."""
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]


def _refuse_lists(settings: Namespace) -> None:
    """The parser takes any value for a group of options."""
    for group in GROUPS:
        if not isinstance(settings[group], Namespace):
            raise ValueError(f"{group} is {settings[group]!r}; expected a mapping of its options")


def _refuse_two_scales(settings: Namespace) -> None:
    """The model checks this too, but only when the data are there, which may take minutes."""
    model, data = settings.get("model.init_args.scale"), settings.get("data.init_args.scale")
    if None not in (model, data) and model != data:
        raise ValueError(
            f"model.init_args.scale is {model} but data.init_args.scale is {data}; "
            "set data.init_args.scale only, the model takes it from there"
        )


def _refuse_untrainable(model: type[Distiller]) -> None:
    if model.training_step is Distiller.training_step:
        raise ValueError(f"{model.__name__} only predicts: python main.py predict --config ...")


def _refuse_untrained(settings: Namespace, stage: str) -> None:
    if not settings.model.get("init_args.init_from"):
        raise ValueError(
            f"{stage} needs trained weights: add --ckpt_path last (or best, or a file), "
            "or --model.init_args.init_from with a file or folder of them"
        )


def run(args: list[str]) -> SRDistillCLI:
    """Runs one command of the command line; see `main.main`."""
    quieten()
    return SRDistillCLI(args)


def quieten() -> None:
    """Libraries' notes that a user can do nothing about."""
    warnings.formatwarning = _format_warning
    warnings.filterwarnings("ignore", "(?s).*JsonargparseDeprecationWarning")
    warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", "LightningCLI's args parameter")  # args are always given
    warnings.filterwarnings("ignore", "Experiment logs directory .* exists")  # it is the run's own
    warnings.filterwarnings("ignore", "Using `DistributedSampler` with the dataloaders")  # metrics count images once
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.getMessage()
    )


_format_library_warning = warnings.formatwarning


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Our own warnings are for users: without file, line and code."""
    if is_ours(filename):
        return f"warning: {message}\n"
    return _format_library_warning(message, category, filename, lineno, line)
