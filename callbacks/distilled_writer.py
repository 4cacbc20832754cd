"""DistilledWriter: what a Distiller predicts, as a distilled-dataset folder with a record of how it was made."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console

from callbacks.cost import peak_rss_mib
from callbacks.run_folder import run_folder
from datamodules.distilled import DistilledPatch, DistilledSet, read_distilled, write_distilled
from lightning_modules.distiller import Distiller

INHERITED = ("method", "config", "seed", "budget", "seconds", "teacher", "made_from")
"""What the provenance of a set says of the one that it was made from."""


class DistilledWriter(Callback):
    """Writes the patches of `predict` as a distilled set, when the module is a Distiller.

    Each process puts its batches into files of the run folder as they come; at the end the first process reads them
    back one by one, in order. So the pixels never lie in memory together, and any number of processes can predict.

    Args:
        folder: of the set; null is `distilled` in the run folder.
        overwrite: replace a distilled set that lies there.
    """

    def __init__(self, folder: str | None = None, overwrite: bool = False) -> None:
        self.folder = folder
        self.overwrite = overwrite
        self._batches: Path | None = None
        self._start = time.perf_counter()  # choosing patches happens before any hook is called

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds out where to write, and refuses a folder that exists.

        Raises:
            FileExistsError: see `refuse_existing`.
        """
        if isinstance(pl_module, Distiller) and stage == "predict":
            self.refuse_existing()
            self._batches = run_folder(trainer) / "batches"

    def refuse_existing(self) -> None:
        """Before hours are spent on a set that has no place.

        Raises:
            FileExistsError: when the folder exists, and `overwrite` is not set or it is no distilled set.
        """
        if self.folder is None or not Path(self.folder).expanduser().exists():
            return
        if not self.overwrite:
            raise FileExistsError(
                f"distilled.folder {self.folder} exists and is not overwritten: give another folder, "
                "or add --distilled.overwrite true"
            )
        try:
            read_distilled(Path(self.folder).expanduser(), verify=False)
        except (OSError, ValueError) as error:
            raise FileExistsError(
                f"distilled.folder {self.folder} is not overwritten, because it is no distilled set ({error}); "
                "give another folder"
            ) from None

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Puts a batch aside."""
        if self._batches is not None:
            number = batch_idx * trainer.world_size + trainer.global_rank
            _put_aside(outputs, self._batches / f"{number:09d}.npz")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the set."""
        if self._batches is None or not isinstance(pl_module, Distiller):
            return
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            run, data = self._batches.parent, trainer.datamodule  # type: ignore[attr-defined]
            folder = run / "distilled" if self.folder is None else Path(self.folder).expanduser()
            provenance = {
                "method": pl_module.method,
                **_command(run),
                **_source(data),
                "seconds": time.perf_counter() - self._start,
                "peak_rss_mib": peak_rss_mib(),
                "peak_gpu_mib": torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None,
                **pl_module.record(),
            }
            written = write_distilled(folder, _put_together(self._batches), data.scale, provenance, self.overwrite)
            shutil.rmtree(self._batches)
            _tell(written)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Removes what was put aside."""
        if trainer.is_global_zero and self._batches is not None:
            shutil.rmtree(self._batches, ignore_errors=True)


def _command(run: Path) -> dict[str, Any]:
    """How the run was started, by the records in its folder; a run by Python alone has none."""
    config, record = run / "config.yaml", run / "provenance.json"
    begun = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    return {
        "command": begun.get("command"),
        "config": yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else None,
        "devices": begun.get("devices"),
    }


def _source(data: Any) -> dict[str, Any]:
    """What the patches were made from; from another distilled set, they have its teacher too, and its costs count."""
    budget, parent = data.data_budget, getattr(data, "distilled_set", None)
    of_parent = {} if parent is None else {key: parent.provenance[key] for key in INHERITED if key in parent.provenance}
    return {
        "seed": data.seed,
        "source_fingerprint": data.source_fingerprint,
        "full_pixels": round(100 * budget.pixels / budget.percent) if budget and budget.percent else None,
        "made_from": of_parent or None,
        "teacher": of_parent.get("teacher"),
    }


def _tell(written: DistilledSet) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"distilled set: {written.folder} ({written.budget.describe()})")
    training = f"--config configs/sr/distilled.yaml --data.init_args.distilled {shlex.quote(str(written.folder))}"
    console.print(f"train on it: python main.py fit {training}")


def _put_aside(patches: Sequence[DistilledPatch], path: Path) -> None:
    arrays: dict[str, Any] = {"metadata": np.array(json.dumps([dict(patch.metadata) for patch in patches]))}
    for number, patch in enumerate(patches):
        arrays[f"hr{number}"] = patch.hr
        if patch.lr is not None:
            arrays[f"lr{number}"] = patch.lr
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def _put_together(folder: Path) -> Iterator[DistilledPatch]:
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as saved:
            for number, metadata in enumerate(json.loads(str(saved["metadata"]))):
                yield DistilledPatch(saved[f"hr{number}"], saved.get(f"lr{number}"), metadata)
