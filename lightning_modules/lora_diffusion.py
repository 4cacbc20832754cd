"""LoRADiffusion: fine-tunes a diffusion transformer on chosen patches, and samples a distilled set from it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from datamodules.base import SRDataModule
from datamodules.crops import CropDataset
from datamodules.distilled import DistilledPatch
from datamodules.pair import PairBatch
from datamodules.selection import Budget
from datamodules.selection.interfaces import Indices
from datamodules.selection.keep import Keep
from lightning_modules.diffusion.adaptation import Adaptation, LoRA
from lightning_modules.diffusion.adapter_file import (
    check_record,
    check_tensors,
    load_adapter,
    save_adapter,
    trainable_state,
)
from lightning_modules.diffusion.conditioning import condition_on_features, has_null, set_classes, switch_off_dropout
from lightning_modules.diffusion.held_out import held_out_error
from lightning_modules.diffusion.latent_diffusion import LatentDiffusion
from lightning_modules.diffusion.objective import LossTerms, Objective
from lightning_modules.diffusion.patch_sampler import PatchSampler, conditions, identity, starts
from lightning_modules.diffusion.pretrained import fingerprint, load_pretrained
from lightning_modules.diffusion.sample_cache import SampleCache, digest_tensors
from lightning_modules.diffusion.sampling import Sampler, grid_samples
from lightning_modules.requests import Request, requests
from lightning_modules.run_parts import newest
from lightning_modules.schedule import Schedule
from lightning_modules.synthesis import Synthesis

ADAPTER = "adapter"
"""Folder of a run that holds what it trained."""


class LoRADiffusion(Synthesis):
    """Diffusion-distilled patches (Cho et al., IEEE SPL 2025, arXiv 2509.14777), by parameter-efficient fine-tuning.

    `fit` adapts a pretrained model to the datamodule's patches with their pseudo-labels as classes; `predict` samples a
    distilled set, of which selection may keep the better part. Checkpoints and `adapter/` hold the adapter alone.

    Args:
        pretrained: id on the Hugging Face hub, folder of a diffusers pipeline, or folder of a run of DiffusionPrior, or
            of its experiment.
        autoencoder: another one than the pretrained model's: id on the hub, or folder.
        adaptation: what is trained; null is LoRA of rank 16.
        condition: `label` is the pseudo-class; `features` the vectors that the pseudo-classes were made of.
        losses: weights of the loss's terms.
        label_dropout: share of the conditions that are dropped, for guidance.
        budget: of the set: ipc, patches, or percent of all HR pixels; null is 10 per class.
        oversample: so many times the budget is sampled.
        keep: chooses the budget among them; null is at random.
        sampler: steps, guidance and start of sampling.
        sample_seed: of the samples; null is the datamodule's seed.
        optimizer: any torch optimiser.
        lr_scheduler: any torch scheduler; see `SuperResolution`.
        lr_interval: what it counts: optimiser steps or epochs.
        init_from: adapter to start from, or to sample with: its folder, that of the run that made it, or of the run's
            experiment.

    Raises:
        ValueError: when a setting is out of range or contradicts another.
    """

    method: ClassVar[str] = "diffusion"

    def __init__(
        self,
        pretrained: str,
        autoencoder: str | None = None,
        adaptation: Adaptation | None = None,
        condition: Literal["label", "features"] = "label",
        losses: LossTerms = LossTerms(),  # noqa: B008
        label_dropout: float = 0.1,
        budget: Budget | None = None,
        oversample: float = 1.0,
        keep: Keep | None = None,
        sampler: Sampler = Sampler(),  # noqa: B008
        sample_seed: int | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["step", "epoch"] = "step",
        init_from: str | None = None,
    ) -> None:
        super().__init__(budget or Budget(ipc=10), sample_seed)
        if not (0 <= label_dropout < 1 and 1 <= oversample < math.inf):
            raise ValueError(
                f"model.label_dropout is {label_dropout} and model.oversample {oversample}; expected a share from 0 to "
                "below 1, and at least 1"
            )
        self.pretrained = pretrained
        self.autoencoder = autoencoder
        self.adaptation = adaptation or LoRA()
        self.condition = condition
        self.losses = losses
        self.label_dropout = label_dropout
        self.oversample = oversample
        self.selection = keep
        self.sampler = sampler
        self.init_from = init_from
        self.schedule = Schedule(optimizer, lr_scheduler, lr_interval)
        self.diffusion: LatentDiffusion | None = None
        self.objective: Objective | None = None
        self._base = ""
        self._sample: PatchSampler | None = None
        self._made: dict[str, int] = {}

    def setup(self, stage: str) -> None:
        """Asks the data for features where they are the condition."""
        self._data.with_features = self.condition == "features"
        super().setup(stage)

    def configure_model(self) -> None:
        """Reads the pretrained model, gives it the data's classes, and adds what is trained.

        Raises:
            FileNotFoundError: when the model, or the adapter to start from, is not to be had.
            ValueError: when model, data and settings do not fit each other.
        """
        if self.diffusion is not None:
            return
        patches = self._real
        classes = _classes(patches)
        if self.condition == "features" and patches.features is None:
            raise ValueError(
                f"model.condition is features but {type(self._data).__name__} has none; use data SelectedPatches, or "
                "condition label"
            )
        diffusion = load_pretrained(self.pretrained, self.autoencoder)
        self._refuse_misfits(diffusion)
        set_classes(diffusion.denoiser, classes)
        if patches.features is not None:
            condition_on_features(diffusion.denoiser, patches.features.shape[1])
        switch_off_dropout(diffusion.denoiser)
        diffusion.codec.requires_grad_(False)
        self.adaptation.apply(diffusion.denoiser)
        self._base = fingerprint(self.pretrained, self.autoencoder)
        self.diffusion = diffusion.train()
        self.objective = Objective(self.losses, classes, diffusion.latent_shape, self._data.scale)
        # DDP would send the memories, which are equal on all processes, around at every step.
        self._ddp_params_and_buffers_to_ignore = [name for name in self._saved() if name.startswith("objective.")]
        if self.init_from is not None:
            folder = newest(Path(self.init_from).expanduser(), ADAPTER)
            load_adapter(folder, diffusion.denoiser, self.identity())

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        """Loss of one batch; the terms are logged unweighted."""
        assert self.diffusion is not None
        assert self.objective is not None
        with torch.no_grad():
            latents = self.diffusion.codec.encode(batch.hr)
        condition = batch.label if batch.features is None else batch.features
        assert condition is not None
        denoised = self.diffusion.denoise(latents, condition, batch.index, self._data.seed, self.label_dropout)
        losses = self.objective(denoised, batch, self.diffusion)
        loss = self.objective.total(losses)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch))
        self.log_dict({f"train/{name}": term for name, term in losses.items()}, batch_size=len(batch))
        return loss

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Logs the denoising error of held-out patches."""
        assert self.diffusion is not None
        error = held_out_error(self.diffusion, batch)
        if error is not None:
            self.log("val/denoising_loss", error, prog_bar=True, batch_size=1, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Steps a scheduler that watches the validation."""
        self.schedule.after_validation(self, {key: float(v) for key, v in self.trainer.callback_metrics.items()})

    def sample_grid(self, per_class: int) -> tuple[Tensor, list[int]]:
        """Samples to look at, float in [0, 1], (N, 3, side, side), and their classes; always from the same noise."""
        assert self.diffusion is not None
        wanted = requests(np.where(self._class_sizes > 0, per_class, 0), 1, self._labels, self._seed)
        condition = conditions(self._real, wanted, self.device)
        start = starts(self._real, wanted, self.diffusion, self.sampler, self.device)
        images = grid_samples(self.diffusion, self.sampler, condition, self._data.batch_size, start)
        return images, [request.label for request in wanted]

    def on_predict_start(self) -> None:
        """Looks for samples of these very weights that were made before."""
        assert self.diffusion is not None
        reads_real = self.condition == "features" or self.sampler.strength < 1
        weights = digest_tensors(trainable_state(self.diffusion.denoiser)) + self._base
        real = hashlib.sha256(self._data.fingerprint.encode() + self._labels.tobytes()).hexdigest()
        decides = identity(self.sampler, self._seed, weights, real if reads_real else None, str(self.trainer.precision))
        cache = SampleCache(self._data.cache, decides)
        self._sample = PatchSampler(self.diffusion, self.sampler, self._real, self._seed, cache)

    def batches(self, data: SRDataModule) -> Iterable[list[Request]]:
        """What to sample, `data.batch_size` at a time."""
        wanted = requests(self._wanted, self.oversample, self._labels, self._seed)
        return [wanted[at : at + data.batch_size] for at in range(0, len(wanted), data.batch_size)]

    def predict_step(self, batch: list[Request], batch_idx: int) -> list[DistilledPatch]:
        """Samples."""
        assert self._sample is not None
        pixels = self._sample(batch, self.device)
        return [
            DistilledPatch(hr, None, {"pseudo_label": request.label, "number": request.number, "seed": self._seed})
            for request, hr in zip(batch, pixels, strict=True)
        ]

    def on_predict_epoch_end(self) -> None:
        """Adds up what the processes have sampled and found."""
        assert self._sample is not None
        here = torch.tensor([*self._sample.made.values(), self._sample.seconds_before], device=self.device)
        *made, self.seconds_before = self.trainer.strategy.reduce(here, reduce_op="sum").tolist()
        self._made = dict(zip(self._sample.made, map(int, made), strict=True))

    def keep(self, patches: Callable[[], Iterator[DistilledPatch]]) -> Sequence[int] | None:
        """Chooses the budget among more samples: so many of each class by IPC, else so many of all."""
        if self.selection is None and self.oversample == 1:
            return None
        chooser = self.selection or Keep()
        quotas = {label: count for label, count in enumerate(self._wanted.tolist()) if count}
        count = quotas if self.budget.ipc is not None else sum(quotas.values())
        real = chooser.pool(self._real_batches(), self.device) if chooser.match_real else None
        chosen: list[int] = chooser.choose(patches(), count, self._seed, self._data.scale, self.device, real).tolist()
        return chosen

    def record(self) -> dict[str, Any]:
        """How the samples were made, beside the configuration."""
        return {"samples": {**self._made, "seconds_before": self.seconds_before}, "model": self.identity()}

    def identity(self) -> dict[str, Any]:
        """What an adapter belongs to: base model, what is trained of it, classes, condition, latents."""
        assert self.diffusion is not None
        return {
            "base": self._base,
            "adaptation": self.adaptation.identity(),
            "classes": len(self._class_sizes),
            "condition": self.condition,
            "latent_shape": list(self.diffusion.latent_shape),
            "prediction_type": self.diffusion.process.prediction_type,
        }

    def export(self, run: Path) -> None:
        """Writes `adapter/` into a run's folder."""
        assert self.diffusion is not None
        save_adapter(run / ADAPTER, trainable_state(self.diffusion.denoiser), self.identity())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimiser over the adapter."""
        return self.schedule.configure(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves the frozen weights out; adds what the adapter belongs to, and the optimiser's settings."""
        checkpoint["state_dict"] = {key: checkpoint["state_dict"][key] for key in self._saved()}
        checkpoint["adapter"] = self.identity()
        self.schedule.save(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of another model, and lets the command line win over its optimiser settings.

        Raises:
            ValueError: when the checkpoint is none of an adapter, or of one that does not fit.
        """
        if "adapter" not in checkpoint:
            raise ValueError("the file is no checkpoint of LoRADiffusion; give one, or an adapter with model.init_from")
        check_record("the checkpoint", checkpoint["adapter"], self.identity())
        saved, expected = checkpoint["state_dict"], self._saved()
        if not self.trainer.training:  # memories matter to nobody else
            expected = self._trained()
            saved = {key: value for key, value in saved.items() if not key.startswith("objective.")}
            checkpoint["state_dict"] = saved
        check_tensors("the checkpoint", saved, expected)
        self.schedule.load(checkpoint, self)

    @property
    def _wanted(self) -> Indices:
        assert self.diffusion is not None
        return self._quotas(self.diffusion.side)

    def _trained(self) -> dict[str, Tensor]:
        return {name: weight for name, weight in self.named_parameters() if weight.requires_grad}

    def _saved(self) -> dict[str, Tensor]:
        """What a checkpoint holds: the adapter, and the memories of the losses."""
        assert self.objective is not None
        memories = {f"objective.{name}": buffer for name, buffer in self.objective.named_buffers()}
        return {**self._trained(), **memories}

    def _refuse_misfits(self, diffusion: LatentDiffusion) -> None:
        side = self._data.patch_size
        if diffusion.side != side:
            raise ValueError(
                f"model.pretrained {self.pretrained} makes patches of {diffusion.side} pixels but data.patch_size is "
                f"{side}; set data.patch_size (and candidate_size) to {diffusion.side}, or give another model"
            )
        if self.sampler.strength < 1 and any((w.height, w.width) != (side, side) for w in self._real.windows):
            raise ValueError(
                f"model.sampler.strength is {self.sampler.strength:g} but patches that samples start from are not "
                f"{side} x {side} pixels; set data.candidate_size to data.patch_size, or strength to 1"
            )
        self.sampler.scheduler(diffusion.process.config)  # refuses more steps than there are noise levels
        guided = [
            key
            for key, on in (
                ("sampler.guidance above 1", self.sampler.guidance > 1),
                ("label_dropout above 0", self.label_dropout > 0),
            )
            if on
        ]
        if guided and not has_null(diffusion.denoiser):
            raise ValueError(
                f"model.{guided[0]} needs a null class, which {self.pretrained} has none of; set "
                "model.sampler.guidance to 1 and model.label_dropout to 0"
            )


def _classes(patches: CropDataset) -> int:
    if patches.labels is None:
        raise ValueError(
            "LoRADiffusion needs pseudo-labels: use data SelectedPatches with pseudo_labels, such as {classes: 7}, or "
            "a distilled set that has them"
        )
    return int(patches.labels.max()) + 1
