"""ComplexityRegression: a Vision Transformer learns to tell how complex a patch is."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from datamodules.pair import PairBatch, to_uint8
from datamodules.selection.criteria import Entropy
from lightning_modules.complexity_file import COMPLEXITY, ComplexityConfig, save_complexity
from lightning_modules.diffusion.latent_diffusion import held_out_patches
from lightning_modules.gan.sample_quality import of_all_processes
from lightning_modules.networks.complexity_vit import ComplexityViT, ViTSpec
from lightning_modules.run_parts import refuse_other_shapes
from lightning_modules.schedule import Schedule

COMPARED = 256
"""Most patches of a held-out photograph that are compared, and training patches that give entropies their unit."""

SMALLEST = 16
"""Pixels: a patch with fewer than 256 of them cannot have all grey levels, and its entropy tells its size."""


class ComplexityRegression(L.LightningModule):
    """Trains a Vision Transformer to estimate the entropy of a patch, as TripleD has it (arXiv 2504.14826).

    The target is `Entropy` of the very 8-bit pixels that the network sees a copy of, after augmentation. At the end of
    fit the run folder holds `complexity/` with averaged weights, which the criterion `LearnedComplexity` reads.

    Validation logs, over patches of `data.patch_size` on a grid in the held-out photographs, `val/spearman` (rank
    correlation of estimate and exact entropy), `val/rmse` in bits, and how many patches a second each of the two
    took on one process: `val/patches_per_second` and `val/exact_patches_per_second`.

    Args:
        vit: the Vision Transformer, and the side of the copies that it sees.
        pretrained: true starts from the weights that timm names for the model (from the Hugging Face hub), a path from
            those of a .safetensors file, or of a folder that holds one; false from random ones.
        head_only: train the last layer alone; needs `pretrained`.
        grey_weight: of the entropy of grey levels in the target.
        gradient_weight: of the entropy of gradient magnitudes.
        optimizer: any torch optimiser.
        lr_scheduler: any torch scheduler, stepped after each optimiser step; null keeps the learning rate.

    Raises:
        ValueError: for weights of the target that `Entropy` refuses, and `head_only` on random weights.
    """

    def __init__(
        self,
        vit: ViTSpec = ViTSpec(),  # noqa: B008
        pretrained: bool | str = False,
        head_only: bool = False,
        grey_weight: float = 1.0,
        gradient_weight: float = 1.0,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        if head_only and pretrained is False:
            raise ValueError(
                "model.head_only is true, but model.pretrained is false: the rest would stay random; set "
                "model.pretrained to true or to a file of weights"
            )
        self.spec = vit
        self.pretrained = pretrained
        self.head_only = head_only
        self.exact = Entropy(grey_weight, gradient_weight)
        self.schedule = Schedule(optimizer, lr_scheduler)
        self.network: ComplexityViT | None = None

    def setup(self, stage: str) -> None:
        """Refuses precisions that do not fit pixels, and patches that are too small.

        Raises:
            ValueError: for such a `trainer.precision` or `data.patch_size`.
        """
        mixed = ("16-mixed", "bf16-mixed")
        if self.trainer.precision not in ("32-true", *mixed):
            raise ValueError(
                f"trainer.precision is {self.trainer.precision}, but pixels come in float32, and in half precision "
                f"neither they nor their entropy are exact; use 32-true, {' or '.join(mixed)}"
            )
        if self._patch_size < SMALLEST:
            raise ValueError(
                f"data.patch_size is {self._patch_size}, too small for an entropy of 256 grey levels; expected "
                f"{SMALLEST} or more"
            )

    def configure_model(self) -> None:
        """Builds the network, and takes the unit of its estimates from training patches."""
        if self.network is not None:
            return
        self.network = ComplexityViT(self.spec, self.pretrained)
        if self.head_only:
            self.network.vit.requires_grad_(False)
            self.network.vit.get_classifier().requires_grad_(True)
        if self.trainer.state.fn == TrainerFn.FITTING:
            patches = self.trainer.datamodule.training_patches()  # type: ignore[attr-defined]
            self.network.set_unit(self._exact(patches.__getitems__(list(range(COMPARED))).hr))

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        """Mean squared error of a batch, in standard deviations of the entropy of training patches."""
        pixels = to_uint8(batch.hr)
        error = self._estimate(pixels) - self._exact(pixels).to(torch.float32)
        loss = (error / self._built.deviation).square().mean()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forgets the last validation."""
        self._held_out: dict[int, Tensor] = {}
        self._seconds, self._patches = [0.0, 0.0], 0

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Estimates and measures patches of one image."""
        pixels = to_uint8(held_out_patches(batch.hr, self._patch_size, most=COMPARED))
        if not len(pixels):
            return
        with torch.autocast(self.device.type, enabled=False):  # ranks, too, are measured in full precision
            values = [self._timed(which, pixels) for which in range(2)]
        self._held_out[int(batch.index[0])] = torch.stack(values)
        self._patches += len(pixels)

    def on_validation_epoch_end(self) -> None:
        """Logs how well estimates and entropies agree over the patches of all processes.

        Raises:
            ValueError: when there are not two patches to compare.
        """
        of_images = of_all_processes(self._held_out)
        count = sum(values.shape[1] for values in of_images.values())
        if count < 2 and self.trainer.sanity_checking:
            return
        if count < 2:
            raise ValueError(
                f"the held-out photographs have {count} patches of {self._patch_size} pixels, of which no rank "
                "correlation can be computed; set a larger data.validation or a smaller data.patch_size"
            )
        metrics = agreement(*torch.cat([of_images[image] for image in sorted(of_images)], dim=1))
        for name, value in {**metrics, **self._speeds()}.items():
            self.log(name, value, prog_bar=name in metrics, sync_dist=True)
        self.schedule.after_validation(self, metrics)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimiser over the trainable parameters, with its scheduler."""
        return self.schedule.configure(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what tells at resume whether optimiser and schedule are still the same."""
        self.schedule.save(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of another network, and lets the command line win over its learning rate.

        Raises:
            ValueError: when the checkpoint is not of this network.
            ScheduleError: when the optimiser cannot take over.
        """
        refuse_other_shapes(checkpoint["state_dict"], self, "model.vit")
        self.schedule.load(checkpoint, self)

    def export(self, run: Path) -> None:
        """Writes `complexity/` into a run's folder."""
        config = ComplexityConfig(self.spec, self._patch_size, self.exact.grey_weight, self.exact.gradient_weight)
        save_complexity(self._built, config, run / COMPLEXITY)

    @property
    def _built(self) -> ComplexityViT:
        assert self.network is not None
        return self.network

    @property
    def _patch_size(self) -> int:
        return int(self.trainer.datamodule.patch_size)  # type: ignore[attr-defined]

    def _estimate(self, pixels: Tensor) -> Tensor:
        estimates: Tensor = self._built(pixels.float() / 255)
        return estimates

    def _exact(self, pixels: Tensor) -> Tensor:
        return self.exact(PairBatch(pixels, pixels, torch.arange(len(pixels), device=pixels.device)))

    def _timed(self, which: int, pixels: Tensor) -> Tensor:
        """Estimate (0) or exact entropy (1), float64 on the CPU, for which a GPU has to be ready."""
        measure: Callable[[Tensor], Tensor] = (self._estimate, self._exact)[which]
        start = time.perf_counter()
        values = measure(pixels).double().cpu()
        self._seconds[which] += time.perf_counter() - start
        return values

    def _speeds(self) -> dict[str, float]:
        names = ("val/patches_per_second", "val/exact_patches_per_second")
        return {name: self._patches / max(spent, 1e-9) for name, spent in zip(names, self._seconds, strict=True)}


def agreement(estimates: Tensor, exact: Tensor) -> dict[str, float]:
    """How well estimates agree with exact entropies, both float64 (N,) in bits, N at least 2.

    Returns:
        `val/spearman`: Spearman's rank correlation, -1 to 1, with the mean rank for ties; 0 where either is constant.
        `val/rmse`: root mean squared error in bits.
    """
    from torchmetrics.functional import spearman_corrcoef

    rank_correlation = spearman_corrcoef(estimates, exact)
    return {"val/spearman": rank_correlation.item(), "val/rmse": (estimates - exact).square().mean().sqrt().item()}
