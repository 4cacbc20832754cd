"""DistilledWriter: what a Distiller predicts, as a distilled-dataset folder with a record of how it was made."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console

from callbacks.cost import peak_rss_mib
from callbacks.run_folder import run_folder
from datamodules.distilled import DistilledPatch, DistilledSet, refuse_existing, write_distilled
from lightning_modules.distiller import Distiller

INHERITED = ("method", "config", "seed", "budget", "seconds", "preparation", "teacher", "made_from")
"""What the provenance of a set says of the one that it was made from."""

RECORD = "provenance.json"
"""Beside the batches, once all are there."""

KEPT = "kept"
"""Key of that record: positions of the patches that the set consists of; not there, or null, for all."""


class DistilledWriter(Callback):
    """Writes the patches of `predict` as a distilled set, when the module is a Distiller.

    Each process puts its batches into files of the run folder as they come; at the end the first process reads them
    back one by one, in order: the method chooses which to keep (`Distiller.keep`), and these are written. So the pixels
    never lie in memory together, and any number of processes can predict. Should the set not be written,
    `write_batches` does it later from these files.

    Args:
        folder: of the set; null is `distilled` in the run folder.
        overwrite: replace a distilled set that lies there.

    Attributes:
        written: the set, on the first process once it lies there; None before.
    """

    def __init__(self, folder: str | None = None, overwrite: bool = False) -> None:
        self.folder = folder
        self.overwrite = overwrite
        self.written: DistilledSet | None = None
        self._batches: Path | None = None  # while there is something to put aside
        self._start = time.perf_counter()  # choosing patches happens before any hook is called

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds out where to write, and refuses a folder that exists.

        Raises:
            FileExistsError: see `refuse_existing`; or when the run folder holds patches of another prediction.
        """
        if not isinstance(pl_module, Distiller) or stage != "predict":
            return
        run = run_folder(trainer)
        refuse_existing(self._place(run), self.overwrite)
        if (run / "batches").exists():
            raise FileExistsError(
                f"{run / 'batches'} holds patches of another prediction; remove it, or predict in another folder"
            )
        self._batches = run / "batches"

    def refuse_existing(self) -> None:
        """Before hours are spent on a set that has no place.

        Raises:
            FileExistsError: see `datamodules.distilled.refuse_existing`.
        """
        if self.folder is not None:  # a new run's folder holds no set
            refuse_existing(Path(self.folder).expanduser(), self.overwrite)

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
        """Writes the set.

        Raises:
            RuntimeError: when it cannot be written, or the patches to keep cannot be chosen; says where the patches
                are, and how to write them later.
        """
        if self._batches is None or not isinstance(pl_module, Distiller):
            return
        trainer.strategy.barrier()
        batches, self._batches = self._batches, None  # complete: no failure removes them from here on
        if trainer.is_global_zero:
            kept = self._choose(trainer, pl_module, batches)
            self._write(batches, self._provenance(trainer, pl_module, batches.parent), kept)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Removes what was put aside of an unfinished prediction."""
        if trainer.is_global_zero and self._batches is not None:
            shutil.rmtree(self._batches, ignore_errors=True)

    def _place(self, run: Path) -> Path:
        return run / "distilled" if self.folder is None else Path(self.folder).expanduser()

    def _provenance(self, trainer: Trainer, pl_module: Distiller, run: Path) -> dict[str, Any]:
        data = trainer.datamodule  # type: ignore[attr-defined]
        return {
            "method": pl_module.method,
            "scale": data.scale,
            **_command(run),
            **_source(data),
            "seconds": time.perf_counter() - self._start + pl_module.seconds_before,
            "peak_rss_mib": peak_rss_mib(),
            "peak_gpu_mib": torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None,
            **pl_module.record(),
        }

    def _choose(self, trainer: Trainer, pl_module: Distiller, batches: Path) -> list[int] | None:
        """Positions of the patches to keep; None is all."""
        try:
            kept = pl_module.keep(lambda: _put_together(batches))
        except (OSError, ValueError, RuntimeError, ImportError) as error:  # such as memory, or a package, that is short
            _note(batches, self._provenance(trainer, pl_module, batches.parent) | {"keep_failed": str(error)}, None)
            raise RuntimeError(
                f"{error}; all the patches that were made are in {batches}: write every one of them with "
                f"{self._by_hand(batches)}"
            ) from error
        return None if kept is None else [int(position) for position in kept]  # NumPy's do not fit in JSON

    def _write(self, batches: Path, provenance: dict[str, Any], kept: list[int] | None) -> None:
        try:
            _note(batches, provenance, kept)
            self.written = write_batches(batches, self._place(batches.parent), self.overwrite)
        except (OSError, ValueError) as error:
            raise RuntimeError(
                f"{error}; the patches are kept in {batches}: when that is mended, write them with "
                f"{self._by_hand(batches)}"
            ) from error
        _tell(self.written)

    def _by_hand(self, batches: Path) -> str:
        """The words of a shell for `write_batches`; strings of JSON are strings of Python."""
        places = (batches, self._place(batches.parent))
        paths = ", ".join(json.dumps(str(path.absolute()), ensure_ascii=False) for path in places)
        call = f"write_batches({paths}, overwrite={self.overwrite})"
        return shlex.join(["python", "-c", f"from callbacks.distilled_writer import write_batches; {call}"])


def write_batches(batches: str | Path, folder: str | Path, overwrite: bool = False) -> DistilledSet:
    """Writes the patches that a prediction has put aside, those that it chose to keep, and removes them all there.

    Args:
        batches: `batches` in the run folder of a complete prediction.
        folder: of the set; see `write_distilled`.
        overwrite: replace a distilled set that lies there.

    Raises:
        FileNotFoundError: when the prediction is not complete.
        FileExistsError: see `write_distilled`.
        ValueError: see `write_distilled`.
    """
    batches = Path(batches)
    provenance = json.loads((batches / RECORD).read_text(encoding="utf-8"))
    patches = _put_together(batches, provenance.pop(KEPT, None))
    written = write_distilled(Path(folder), patches, provenance["scale"], provenance, overwrite)
    shutil.rmtree(batches)
    return written


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
        "preparation": None if of_parent else data.preparation,
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
        for name, array in (("lr", patch.lr), ("latent", patch.latent)):
            if array is not None:
                arrays[f"{name}{number}"] = array
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def _note(batches: Path, provenance: dict[str, Any], kept: list[int] | None) -> None:
    """Puts all that `write_batches` has to know beside the batches, which are complete then."""
    batches.mkdir(exist_ok=True)  # a method may have given no patch at all
    (batches / RECORD).write_text(json.dumps({**provenance, KEPT: kept}), encoding="utf-8")


def _put_together(folder: Path, kept: Collection[int] | None = None) -> Iterator[DistilledPatch]:
    """The patches put aside, in order: those at some positions, or all."""
    wanted = None if kept is None else frozenset(kept)
    made = given = 0
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as saved:
            for number, metadata in enumerate(json.loads(str(saved["metadata"]))):
                if wanted is None or made in wanted:
                    lr, latent = saved.get(f"lr{number}"), saved.get(f"latent{number}")
                    yield DistilledPatch(saved[f"hr{number}"], lr, metadata, latent)
                    given += 1
                made += 1
    if kept is not None and given < len(kept):
        raise ValueError(f"keep gave {len(kept)} positions but {given} are distinct and among the {made} patches made")
