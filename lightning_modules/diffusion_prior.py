"""DiffusionPrior: a diffusion transformer from scratch, and its autoencoder, where no checkpoint can be had."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from datamodules.pair import PairBatch
from datamodules.randomness import noise
from lightning_modules.diffusion.codec import Autoencoder, AutoencoderSpec, Codec, PixelSpace
from lightning_modules.diffusion.conditioning import classes_of, switch_off_dropout
from lightning_modules.diffusion.held_out import held_out_error, reconstruction_psnr
from lightning_modules.diffusion.latent_diffusion import LatentDiffusion
from lightning_modules.diffusion.pretrained import PIPELINE, load_autoencoder, save_pretrained
from lightning_modules.diffusion.process import NoiseProcess, scheduler_config
from lightning_modules.diffusion.sampling import Sampler, grid_samples
from lightning_modules.perceptual import perceptual_network
from lightning_modules.run_parts import refuse_other_shapes
from lightning_modules.schedule import Schedule


@dataclass(frozen=True)
class DenoiserSpec:
    """A DiTTransformer2DModel to train from scratch (Peebles and Xie, ICCV 2023).

    Attributes:
        layers: transformer blocks.
        heads: of attention.
        head_width: numbers per head; the width is heads * head_width.
        patch: positions of the latent along a side of one token.

    Raises:
        ValueError: when a number is not positive.
    """

    layers: int = 6
    heads: int = 6
    head_width: int = 32
    patch: int = 2

    def __post_init__(self) -> None:
        for key, value in dataclasses.asdict(self).items():
            if value < 1:
                raise ValueError(f"model.denoiser.{key} is {value}; expected at least 1")

    def build(self, channels: int, size: int, classes: int) -> Any:
        """A fresh one for latents (channels, size, size), with a null class.

        Raises:
            ValueError: when the size is no multiple of the patch.
        """
        from diffusers import DiTTransformer2DModel

        if size % self.patch:
            raise ValueError(
                f"model.denoiser.patch is {self.patch}, which does not divide the {size} positions along a latent's "
                "side; set another patch, or another data.patch_size"
            )
        return DiTTransformer2DModel(
            num_attention_heads=self.heads,
            attention_head_dim=self.head_width,
            in_channels=channels,
            out_channels=channels,  # DiTPipeline cannot do without
            num_layers=self.layers,
            sample_size=size,
            patch_size=self.patch,
            num_embeds_ada_norm=classes,
            norm_type="ada_norm_zero",
            norm_elementwise_affine=False,
            activation_fn="gelu-approximate",
            attention_bias=True,
        )


class DiffusionPrior(L.LightningModule):
    """Trains an autoencoder, then a diffusion transformer on its latents, on the training patches.

    At the end of fit the run folder holds `pipeline/`, a diffusers pipeline of the averaged weights, which
    `LoRADiffusion` starts from. Its classes are the data's pseudo-labels; without those there is one.

    Args:
        denoiser: sizes of the transformer.
        autoencoder: one to train; a hub id or folder of a trained one; null works on pixels.
        autoencoder_steps: optimiser steps that train the autoencoder alone, before the denoiser begins.
        kl_weight: of the divergence of the latents from standard normal ones, per number.
        perceptual_weight: of LPIPS (Zhang et al., CVPR 2018; needs AlexNet weights) beside L1.
        prediction: what the denoiser predicts.
        noise_schedule: of the betas.
        zero_snr: leave no signal at the last noise level (not with epsilon, which then cannot be predicted from it).
        min_snr: gamma of min-SNR weighting, 5 in its paper; null weighs all noise levels alike.
        label_dropout: share of the labels that are dropped, for guidance.
        sampler: of the grids of samples.
        optimizer: any torch optimiser.
        lr_scheduler: any torch scheduler; see `SuperResolution`.
        lr_interval: what it counts: optimiser steps or epochs.

    Raises:
        ValueError: when a setting is out of range or contradicts another.
    """

    latent_variance: Tensor

    def __init__(
        self,
        denoiser: DenoiserSpec = DenoiserSpec(),
        autoencoder: AutoencoderSpec | str | None = None,
        autoencoder_steps: int = 2000,
        kl_weight: float = 1e-6,
        perceptual_weight: float = 0.0,
        prediction: Literal["epsilon", "v_prediction", "sample"] = "v_prediction",
        noise_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "squaredcos_cap_v2",
        zero_snr: bool = False,
        min_snr: float | None = None,
        label_dropout: float = 0.1,
        sampler: Sampler = Sampler(steps=20, guidance=1.0),  # noqa: B008
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["step", "epoch"] = "step",
    ) -> None:
        super().__init__()
        if zero_snr and prediction == "epsilon":
            raise ValueError("model.zero_snr leaves nothing to predict noise from; set model.prediction v_prediction")
        given = {"autoencoder_steps": autoencoder_steps, "kl_weight": kl_weight, "perceptual_weight": perceptual_weight}
        for key, value in given.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"model.{key} is {value}; expected 0 or more")
        if not 0 <= label_dropout < 1 or (min_snr is not None and not min_snr > 0):
            raise ValueError(
                f"model.label_dropout is {label_dropout} and model.min_snr {min_snr}; expected a share from 0 to below "
                "1, and a positive gamma or null"
            )
        self.denoiser_spec = denoiser
        self.autoencoder = autoencoder
        self.autoencoder_steps = autoencoder_steps if isinstance(autoencoder, AutoencoderSpec) else 0
        self.kl_weight = kl_weight
        self.perceptual_weight = perceptual_weight
        self.process_config = scheduler_config(prediction, noise_schedule, zero_snr, clip=autoencoder is None)
        self.min_snr = min_snr
        self.label_dropout = label_dropout
        self.sampler = sampler
        self.schedule = Schedule(optimizer, lr_scheduler, lr_interval)
        self.diffusion: LatentDiffusion | None = None
        self._lpips: list[nn.Module] = []  # in a list: its weights are no part of this module's
        self.register_buffer("latent_variance", torch.ones(()))

    def setup(self, stage: str) -> None:
        """Learns how many classes the data have.

        Raises:
            ValueError: when the run is over before the denoiser begins.
        """
        if 0 < self.trainer.max_steps <= self.autoencoder_steps:
            raise ValueError(
                f"trainer.max_steps is {self.trainer.max_steps} but model.autoencoder_steps {self.autoencoder_steps}, "
                "after which the denoiser begins; set more max_steps"
            )
        labels = self.trainer.datamodule.training_patches().labels  # type: ignore[attr-defined]
        self._classes = 1 if labels is None else int(labels.max()) + 1

    def configure_model(self) -> None:
        """Builds what is trained, for the data's patch size and classes.

        Raises:
            ValueError: when sizes do not fit each other, or DDP would wait for gradients that never come.
        """
        if self.diffusion is not None:
            return
        side = int(self.trainer.datamodule.patch_size)  # type: ignore[attr-defined]
        codec = self._codec(side)
        if side % codec.factor:
            raise ValueError(
                f"data.patch_size is {side}; the autoencoder needs a multiple of {codec.factor}, "
                f"such as {max(1, side // codec.factor) * codec.factor}"
            )
        denoiser = self.denoiser_spec.build(codec.channels, side // codec.factor, self._classes)
        switch_off_dropout(denoiser)
        self.diffusion = LatentDiffusion(codec, denoiser, NoiseProcess(self.process_config))
        self._refuse_waiting()

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        """Loss of one batch: the autoencoder's, or the denoiser's."""
        trains_autoencoder = self.global_step < self.autoencoder_steps
        loss = self._reconstruction(batch) if trains_autoencoder else self._denoising(batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch))
        return loss

    def on_train_batch_start(self, batch: PairBatch, batch_idx: int) -> None:
        """Gives the autoencoder its averaged weights before the denoiser learns its latents, which are final then.

        Averages bring patches back better than the last weights of a learning rate that is still high.
        """
        if self.global_step != self.autoencoder_steps or not self.autoencoder_steps:
            return
        for average in (getattr(callback, "average", {}) for callback in self.trainer.callbacks):  # type: ignore[attr-defined]
            for name, weight in self._diffusion.codec.named_parameters():
                if (averaged := average.get(f"diffusion.codec.{name}")) is not None:
                    weight.data.copy_(averaged)

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Logs the denoising error of held-out patches, and how well the autoencoder brings them back."""
        self._register_scale()  # a checkpoint has the variance that it follows from, not the scale
        error, psnr = held_out_error(self._diffusion, batch), reconstruction_psnr(self._diffusion, batch)
        if error is not None:
            self.log("val/denoising_loss", error, prog_bar=True, batch_size=1, sync_dist=True)
        if psnr is not None:
            self.log("val/reconstruction_psnr", psnr, batch_size=1, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Steps a scheduler that watches the validation."""
        self.schedule.after_validation(self, {key: float(v) for key, v in self.trainer.callback_metrics.items()})

    def sample_grid(self, per_class: int) -> tuple[Tensor, list[int]]:
        """Samples to look at, float in [0, 1], (N, 3, side, side), and their classes; always from the same noise."""
        labels = [label for label in range(classes_of(self._diffusion.denoiser)) for _ in range(per_class)]
        condition = torch.tensor(labels, device=self.device)
        at_once = self.trainer.datamodule.batch_size  # type: ignore[attr-defined]
        return grid_samples(self._diffusion, self.sampler, condition, at_once), labels

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One optimiser over everything that is trained."""
        return self.schedule.configure(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the optimiser's settings, for resuming with others."""
        self.schedule.save(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of another model, and lets the command line win over its optimiser settings.

        Raises:
            ValueError: when the checkpoint is not of this model.
        """
        refuse_other_shapes(checkpoint["state_dict"], self, "denoiser, autoencoder, patch size and classes")
        self.schedule.load(checkpoint, self)

    def export(self, run: Path) -> None:
        """Writes `pipeline/` into a run's folder."""
        self._register_scale()
        save_pretrained(self._diffusion, run / PIPELINE)

    @property
    def _diffusion(self) -> LatentDiffusion:
        assert self.diffusion is not None
        return self.diffusion

    @property
    def _seed(self) -> int:
        return int(self.trainer.datamodule.seed)  # type: ignore[attr-defined]

    def _codec(self, side: int) -> Codec:
        if self.autoencoder is None:
            return PixelSpace()
        if isinstance(self.autoencoder, AutoencoderSpec):
            return self.autoencoder.build(side)
        codec = load_autoencoder(self.autoencoder)
        codec.requires_grad_(False)
        return codec

    def _reconstruction(self, batch: PairBatch) -> Tensor:
        codec = self._diffusion.codec
        assert isinstance(codec, Autoencoder)
        shape = (codec.channels, *(side // codec.factor for side in batch.hr.shape[2:]))
        latents, divergence = codec.raw(batch.hr, noise(self._seed, "posterior", batch.index, shape))
        decoded = codec.from_raw(latents)
        self.latent_variance.lerp_(latents.detach().float().var(), 0.01 if self.global_step else 1.0)
        loss = F.l1_loss(decoded, batch.hr) + self.kl_weight * divergence.mean()
        if self.perceptual_weight:
            loss = loss + self.perceptual_weight * self._perceptual(decoded, batch.hr)
        self.log("train/reconstruction", loss, batch_size=len(batch))
        return loss

    def _denoising(self, batch: PairBatch) -> Tensor:
        self._register_scale()
        with torch.no_grad():
            latents = self._diffusion.codec.encode(batch.hr)
        labels = torch.zeros_like(batch.index) if batch.label is None else batch.label
        denoised = self._diffusion.denoise(latents, labels, batch.index, self._seed, self.label_dropout)
        return self._diffusion.weighted_error(denoised, self.min_snr)

    def _register_scale(self) -> None:
        """Brings the latents of an autoencoder trained here to variance 1, once it is trained."""
        codec = self._diffusion.codec
        if not isinstance(codec, Autoencoder) or not isinstance(self.autoencoder, AutoencoderSpec):
            return
        scale = float(self.latent_variance.clamp_min(1e-12) ** -0.5)
        if codec.model.config.scaling_factor != scale:
            codec.model.register_to_config(scaling_factor=scale)

    def _perceptual(self, decoded: Tensor, hr: Tensor) -> Tensor:
        if not self._lpips:
            self._lpips = [perceptual_network("lpips").to(self.device)]
        distance: Tensor = self._lpips[0](decoded.clamp(0, 1), hr, normalize=True)
        return distance.mean()

    def _refuse_waiting(self) -> None:
        strategy = self.trainer.strategy
        plain = isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get("find_unused_parameters")  # noqa: SLF001
        if plain and self.trainer.world_size > 1 and isinstance(self.autoencoder, AutoencoderSpec):
            raise ValueError(
                "autoencoder and denoiser are trained one after the other, so that some gradients are always missing; "
                "set trainer.strategy to ddp_find_unused_parameters_true"
            )
