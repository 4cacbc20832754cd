"""DistributionAlignment: edits a few chosen patches until their features are distributed as those of all patches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recomputed
from torch.utils.data import DataLoader

from datamodules.augmentation.counter_rng import derive_seed, uniform
from datamodules.base import SRDataModule
from datamodules.bicubic import downscale
from datamodules.crops import CropDataset
from datamodules.distilled import DistilledPatch, Pixels
from datamodules.pair import to_uint8
from datamodules.real import RealImages
from datamodules.selection.interfaces import Features
from lightning_modules.clock import clock
from lightning_modules.distiller import Distiller
from lightning_modules.full_set import Yardstick, full_features
from lightning_modules.losses.distribution_distance import DistributionDistance, Frechet
from lightning_modules.networks.editor import EDITOR, EditorSpec, ResidualEditor, load_editor, save_editor
from lightning_modules.networks.trained import training_record
from lightning_modules.run_parts import newest, refuse_other_shapes
from lightning_modules.schedule import Schedule

HIGHEST_DB = 100.0
"""PSNR that a patch which was not edited at all counts with."""


class DistributionAlignment(Distiller):
    """TripleD's second step (Su et al., 2025, arXiv 2504.14826): a light CNN edits the kept patches, within a bound.

    `fit` minimises the distance between the features of the edited patches and those of all patches of the training
    photographs, plus `weight` times the edit's size, mean |x' - x| of pixels in [0, 1]. `predict` writes the edited
    patches; their LR moves along, so that it stays in register with the photograph's. Features are taken less the full
    set's mean and in units of its spread, the root mean squared distance from it, so that distances and weights compare
    between features.

    Args:
        distance: of the distributions; null is `Frechet`.
        features: what is compared; must be differentiable. Null is those of the data.
        weight: of the edit's size.
        editor: sizes and bound; null is those of `init_from`, or the defaults.
        batch_patches: patches that a step looks at, drawn anew each time; null takes all of them in every step.
        chunk: patches that a graph is built for at a time; bounds memory, changes nothing else.
        min_psnr: `predict` writes nothing when the mean PSNR of the edit, x' against x, is below, in dB.
        optimizer: any torch optimiser.
        lr_scheduler: any torch scheduler; see `SuperResolution`.
        lr_interval: what it counts: optimiser steps or epochs.
        init_from: trained editor: its file, the folder of the run that trained it, or of the run's experiment.

    Raises:
        ValueError: when a setting is out of range.
    """

    method: ClassVar[str] = "tripled"
    needs_checkpoint: ClassVar[bool] = True

    def __init__(
        self,
        distance: DistributionDistance | None = None,
        features: Features | None = None,
        weight: float = 1.0,
        editor: EditorSpec | None = None,
        batch_patches: int | None = None,
        chunk: int = 128,
        min_psnr: float = 30.0,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["step", "epoch"] = "step",
        init_from: str | None = None,
    ) -> None:
        super().__init__()
        for key, number, least in (("weight", weight, 0), ("chunk", chunk, 1), ("min_psnr", min_psnr, 0)):
            if not least <= number < math.inf:
                raise ValueError(f"model.{key} is {number}; expected at least {least}")
        if batch_patches is not None and batch_patches < 2:
            raise ValueError(f"model.batch_patches is {batch_patches}; expected at least 2, or null for all of them")
        self.distance = distance or Frechet()
        self.features = features
        self.weight = weight
        self.spec = editor
        self.batch_patches = batch_patches
        self.chunk = chunk
        self.min_psnr = min_psnr
        self.init_from = init_from
        self.schedule = Schedule(optimizer, lr_scheduler, lr_interval)
        self.editor: ResidualEditor | None = None
        self._patches: CropDataset
        self._yardstick: Yardstick
        self._made: dict[str, float] = {}

    def setup(self, stage: str) -> None:
        """Reads the features of the full set from the cache, or computes them.

        Raises:
            ValueError: for settings of the Trainer that do not fit, or data without patches of one size.
        """
        mixed = ("16-mixed", "bf16-mixed")
        if self.trainer.precision not in ("32-true", *mixed) or self.trainer.accumulate_grad_batches != 1:
            raise ValueError(
                f"trainer.precision is {self.trainer.precision} and trainer.accumulate_grad_batches "
                f"{self.trainer.accumulate_grad_batches}, but edits are small, and a step is a distance of whole sets; "
                f"use 32-true, {' or '.join(mixed)}, and 1"
            )
        if stage == "predict":
            self._data.setup("fit")
        if not isinstance(self._data, RealImages):
            raise ValueError(
                f"DistributionAlignment compares patches with the photographs they come from, which "
                f"{type(self._data).__name__} does not name; use data SelectedPatches or SyntheticPatches"
            )
        self._patches = self._data.training_patches()
        _refuse_misfits(self._patches, self.batch_patches, self._processes)
        device = self.trainer.strategy.root_device
        features = self._data.feature_extractor if self.features is None else self.features
        full = full_features(self._data, self._patches.windows[0].height, features, device)
        self._yardstick = Yardstick(full, features, self.distance, self._data.seed, device)

    def configure_model(self) -> None:
        """Makes the editor, or reads it.

        Raises:
            FileNotFoundError: when there is none to read.
            ValueError: when it is of other sizes than asked for.
        """
        if self.editor is not None:
            return
        if self.init_from is None:
            self.editor = ResidualEditor(self.spec or EditorSpec())
        else:
            self.editor = load_editor(self._source)
            if self.spec is not None:
                _refuse_another(asdict(self.editor.spec), self.spec, self.init_from)

    def fit_data(self, data: SRDataModule) -> DataLoader[int]:
        """What a step looks at follows from its number."""
        return clock()

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        """Distance and size of the edit; each process has the graph of its share of the patches."""
        drawn = self._drawn()
        own = drawn[self._rank :: self._processes]
        features, sizes = self._edited_features(own)
        distance = self._yardstick(self._of_all(features, len(drawn)), self.global_step)
        edit = sizes.sum() / len(drawn)
        total = self._sum(edit.detach())
        self.log("train/distance", distance.detach(), prog_bar=True, batch_size=1)
        self.log("train/edit_levels", 255 * total, prog_bar=True, batch_size=1)
        self.log("train/loss", distance.detach() + self.weight * total, batch_size=1)
        return (distance + self.weight * edit) * self._processes  # DDP takes the mean over processes

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing: what is measured are the training patches."""

    @torch.no_grad()
    def on_validation_epoch_end(self) -> None:
        """Logs how far the patches are from the full set as files would hold them, and how large the edit is."""
        measured = {f"val/{key}": value for key, value in self._report().items()}
        self.log_dict(measured, prog_bar=True, sync_dist=True)  # equal on all processes, but Lightning cannot know
        self.schedule.after_validation(self, measured)

    def sample_grid(self, per_class: int) -> tuple[Tensor, list[str]]:
        """Patches before and after, and what has changed: uint8 (3 N, 3, side, side), and the name of each row."""
        numbers = np.linspace(0, len(self._patches.windows) - 1, per_class).round().astype(int).tolist()
        before = self._read(numbers)
        after = self._edit(before)
        bound = self._editor.spec.bound
        change = 0.5 + (after - before) * 127.5 / bound
        names = ["before", "after", f"change, black to white: {-bound:g} to {bound:g} levels"]
        return to_uint8(torch.cat([before, after, change])), [name for name in names for _ in numbers]

    @torch.no_grad()
    def on_predict_start(self) -> None:
        """Measures the edit before anything is written.

        Raises:
            ValueError: when it changes the patches too much.
        """
        self._made = self._report()
        if self._made["edit_psnr"] < self.min_psnr:
            raise ValueError(
                f"the edited patches have {self._made['edit_psnr']:.2f} dB against the original ones, less than "
                f"model.min_psnr {self.min_psnr:g}, and nothing is written; train with a smaller model.editor.bound or "
                "a larger model.weight, or set model.min_psnr lower"
            )

    def predict_step(self, batch: list[DistilledPatch], batch_idx: int) -> list[DistilledPatch]:
        """The patches edited, their LR with them; at scale 1 there is none. Metadata stay."""
        before = _images([patch.hr for patch in batch], self.device)
        after = self._edit(before)
        pixels = _to_pixels(after)
        lrs: Sequence[Pixels | None] = [None] * len(batch)
        if self._data.scale > 1:
            lrs = _to_pixels(self._moved_lr(batch, after - before))
        return [replace(patch, hr=hr, lr=lr) for patch, hr, lr in zip(batch, pixels, lrs, strict=True)]

    def record(self) -> dict[str, Any]:
        """What was aligned to what, and how far it came, beside the configuration."""
        trained = self.trainer.ckpt_path or (self.init_from and self._source)  # a checkpoint's weights win
        known = training_record(Path(trained)) if trained else {}
        editor = {**asdict(self._editor.spec), **known}
        return {"alignment": {**self._yardstick.record(), **self._made, "editor": editor}}

    def export(self, run: Path) -> None:
        """Writes `editor.safetensors` into a run's folder."""
        save_editor(self._editor, run / EDITOR)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimiser over the editor."""
        return self.schedule.configure(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what editor it is of, and the optimiser's settings."""
        checkpoint["editor"] = asdict(self._editor.spec)
        self.schedule.save(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of another editor, and lets the command line win over its optimiser settings.

        Raises:
            ValueError: when the checkpoint is none of DistributionAlignment, or its editor has other sizes.
        """
        if "editor" not in checkpoint:
            raise ValueError(
                "the file is no checkpoint of DistributionAlignment; give one, or an editor with model.init_from"
            )
        _refuse_another(checkpoint["editor"], self._editor.spec, "the checkpoint")
        refuse_other_shapes(checkpoint["state_dict"], self, "model.editor")
        self.schedule.load(checkpoint, self)

    @property
    def _data(self) -> RealImages:
        data: RealImages = self.trainer.datamodule  # type: ignore[attr-defined]
        return data

    @property
    def _editor(self) -> ResidualEditor:
        assert self.editor is not None
        return self.editor

    @cached_property
    def _source(self) -> Path:
        """The file that `init_from` stands for, even if another run ends meanwhile."""
        assert self.init_from is not None
        return newest(Path(self.init_from).expanduser(), EDITOR)

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank

    @property
    def _processes(self) -> int:
        return self.trainer.world_size

    def _drawn(self) -> list[int]:
        """Numbers of the patches of this step, in ascending order; the same on all processes."""
        everything = torch.arange(len(self._patches.windows))
        if self.batch_patches is None or self.batch_patches >= len(everything):
            return everything.tolist()
        luck = uniform(derive_seed(self._data.seed, self.global_step), "patches to align", everything)[:, 0]
        return luck.argsort(stable=True)[: self.batch_patches].sort().values.tolist()

    def _edited_features(self, numbers: list[int]) -> tuple[Tensor, Tensor]:
        """Features of patches edited, (N, D), and each one's mean |x' - x|, (N,), with a graph.

        Where there are several chunks, a graph holds pixels alone, and backward computes each chunk again.
        """
        chunks = self._chunks(numbers)
        if len(chunks) == 1:
            return self._embed(self._read(numbers))
        exact: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}  # nothing is drawn
        parts = [recomputed(self._embed, self._read(some), **exact) for some in chunks]
        features, sizes = zip(*parts, strict=True)
        return torch.cat(features), torch.cat(sizes)

    def _embed(self, before: Tensor) -> tuple[Tensor, Tensor]:
        after = self._editor(before)
        return self._yardstick.embed(after), (after - before).abs().flatten(1).mean(1)

    def _of_all(self, own: Tensor, count: int) -> Tensor:
        """The features of all processes' patches in order, (count, D), of which this one's have a graph."""
        rows = slice(self._rank, None, self._processes)
        features = own.new_zeros(count, own.shape[1])
        features[rows] = own.detach()
        features = self._sum(features)
        if own.requires_grad:
            features[rows] = own
        return features

    def _report(self) -> dict[str, float]:
        """Distances of all patches before and after, and of as many at random; the edit's PSNR [dB] and size [levels].

        All are of 8-bit pixels.
        """
        own = range(len(self._patches.windows))[self._rank :: self._processes]
        parts = [self._compare(some) for some in self._chunks(own)]
        before, after, psnr, levels = (torch.cat(part) for part in zip(*parts, strict=True))
        count = len(self._patches.windows)
        return {
            "distance_before": self._yardstick(self._of_all(before, count), -1).item(),
            "distance_after": self._yardstick(self._of_all(after, count), -1).item(),
            "distance_random": self._yardstick.of_random(count),
            "edit_psnr": self._sum(psnr.sum()).item() / count,
            "edit_levels": self._sum(levels.sum()).item() / count,
        }

    def _compare(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of some patches: features before and after, PSNR, and mean |x' - x| in levels."""
        before = self._read(numbers)
        after = self._edit(before)
        apart = 255 * (after - before).double().flatten(1)
        psnr = 10 * torch.log10(255**2 / apart.square().mean(1)).clamp(max=HIGHEST_DB / 10)
        return self._yardstick.embed(before), self._yardstick.embed(after), psnr, apart.abs().mean(1)

    @torch.no_grad()
    def _edit(self, before: Tensor) -> Tensor:
        """Edited images as files hold them: multiples of 1 / 255, (B, 3, side, side).

        Computed without autocast, under which Lightning runs `predict_step` but no report: what is written is what was
        measured.
        """
        with torch.autocast(before.device.type, enabled=False):
            edited = [to_uint8(self._editor(some)) for some in before.split(self.chunk)]
        return torch.cat(edited).float() / 255

    def _moved_lr(self, batch: list[DistilledPatch], change: Tensor) -> Tensor:
        lrs = _images([patch.lr for patch in batch if patch.lr is not None], self.device)
        return lrs + downscale(change, self._data.scale)

    def _read(self, numbers: Sequence[int]) -> Tensor:
        return self._patches.whole(numbers).to(self.device).to_float().hr

    def _chunks(self, numbers: Sequence[int]) -> list[Sequence[int]]:
        return [numbers[at : at + self.chunk] for at in range(0, len(numbers), self.chunk)]

    def _sum(self, own: Tensor) -> Tensor:
        """Of all processes' tensors."""
        total: Tensor = self.trainer.strategy.reduce(own, reduce_op="sum")
        return total


def _refuse_another(found: Mapping[str, Any], asked: EditorSpec, where: str) -> None:
    """An editor of other sizes, or whose edits are bounded otherwise."""
    for key, value in asdict(asked).items():
        if found[key] != value:
            raise ValueError(
                f"{where} has an editor with {key} {found[key]} but model.editor.{key} is {value}; set it to "
                f"{found[key]}, or train another one"
            )


def _refuse_misfits(patches: CropDataset, batch: int | None, processes: int) -> None:
    sizes = sorted({(window.height, window.width) for window in patches.windows})
    if len(sizes) > 1 or sizes[0][0] != sizes[0][1]:
        raise ValueError(
            f"the data have patches of {sizes[0][1]} x {sizes[0][0]} pixels{' and other sizes' * (len(sizes) > 1)}, "
            "but DistributionAlignment compares squares of one size; use data SelectedPatches, or a distilled set of "
            "such"
        )
    if min(len(patches.windows), batch or len(patches.windows)) < processes:
        raise ValueError(
            f"a step has {batch or len(patches.windows)} of {len(patches.windows)} patches, fewer than the {processes} "
            "processes; raise data.budget and model.batch_patches, or lower trainer.devices"
        )


def _images(pixels: Sequence[Pixels], device: torch.device) -> Tensor:
    """float32 in [0, 1], (B, 3, H, W)."""
    return torch.from_numpy(np.stack(pixels)).to(device).permute(0, 3, 1, 2).float() / 255


def _to_pixels(images: Tensor) -> list[Pixels]:
    """uint8 (H, W, 3) each."""
    return list(to_uint8(images).permute(0, 2, 3, 1).cpu().numpy())
