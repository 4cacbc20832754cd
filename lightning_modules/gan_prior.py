"""GANPrior: a compact style-based generator from scratch, where no checkpoint can be had."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from datamodules.augmentation.counter_rng import derive_seed
from datamodules.pair import PairBatch
from datamodules.randomness import noise
from lightning_modules.diffusion.latent_diffusion import held_out_patches
from lightning_modules.gan.augmentation import DiffAugment
from lightning_modules.gan.sample_quality import HeldOutFeatures
from lightning_modules.gan.style_file import GENERATOR, save_style_generator
from lightning_modules.losses.adversarial import discriminator_loss, generator_loss, path_length_penalty, r1_penalty
from lightning_modules.networks.discriminator import Discriminator
from lightning_modules.networks.style_generator import StyleGenerator, StyleSpec
from lightning_modules.run_parts import refuse_other_shapes
from lightning_modules.schedule import ScheduleError, signature, take_over

COMPARED = 256
"""Samples that are compared with held-out patches of each photograph."""


class GANPrior(L.LightningModule):
    """Trains a style-based generator against a discriminator on the training patches.

    At the end of fit the run folder holds `generator/` with averaged weights, which `GANInversion` starts from.
    Optimiser steps, of which trainer.max_steps and the like are numbers, are those of the generator; the discriminator
    makes as many. Two processes end with the weights of one that has twice the batch, where each has whole groups of
    four patches (see `discriminator.with_deviation`) and `path_weight` is 0.

    Args:
        networks: sizes of generator and discriminator.
        augmentation: of what the discriminator sees, real and generated (DiffAugment): names of color, translation and
            cutout, joined by commas, or none.
        r1_weight: gamma of R1 (Mescheder et al., ICML 2018), for pixels in [-1, 1]; 0 leaves it out.
        r1_every: steps from one R1 to the next, which weighs so much the more.
        path_weight: of the path length's regularisation (Karras et al., CVPR 2020), 2 in its paper; 0 leaves it out.
        path_every: as `r1_every`.
        gradient_clip: greatest norm of the gradient of each network; null leaves gradients as they are.
        optimizer: any torch optimiser, of the generator; in the shipped configurations Adam without momentum, as
            published: betas [0, 0.99].
        discriminator_optimizer: of the discriminator; likewise.

    Raises:
        ValueError: when a setting is out of range.
    """

    path_length: Tensor

    def __init__(
        self,
        networks: StyleSpec = StyleSpec(),  # noqa: B008
        augmentation: str = "color,translation,cutout",
        r1_weight: float = 1.0,
        r1_every: int = 16,
        path_weight: float = 0.0,
        path_every: int = 4,
        gradient_clip: float | None = None,
        optimizer: OptimizerCallable = torch.optim.Adam,
        discriminator_optimizer: OptimizerCallable = torch.optim.Adam,
    ) -> None:
        super().__init__()
        for key, weight, every in (("r1", r1_weight, r1_every), ("path", path_weight, path_every)):
            if not 0 <= weight < math.inf or every < 1:
                raise ValueError(
                    f"model.{key}_weight is {weight} and model.{key}_every {every}; expected a weight of 0 or more, "
                    "and 1 step or more"
                )
        if gradient_clip is not None and not gradient_clip > 0:
            raise ValueError(
                f"model.gradient_clip is {gradient_clip}; expected a norm above 0, or null for no clipping"
            )
        self.spec = networks
        self.augment = DiffAugment(augmentation)
        self.r1_weight, self.r1_every = r1_weight, r1_every
        self.path_weight, self.path_every = path_weight, path_every
        self.gradient_clip = gradient_clip
        self._factories = {"optimizer": optimizer, "discriminator_optimizer": discriminator_optimizer}
        self._signatures: list[dict[str, str]] = []
        self.generator: StyleGenerator | None = None
        self.discriminator: Discriminator | None = None
        self.register_buffer("path_length", torch.zeros(()))

    def setup(self, stage: str) -> None:
        """Refuses settings of the Trainer that two optimisers cannot go by.

        Raises:
            ValueError: for these; the message says what to set instead.
        """
        trainer = self.trainer
        if trainer.precision not in ("32-true", "bf16-mixed"):
            raise ValueError(
                f"trainer.precision is {trainer.precision}, in which gradients of GANPrior would be too small for "
                "their format; use 32-true or bf16-mixed"
            )
        if trainer.gradient_clip_val is not None:
            raise ValueError(
                f"trainer.gradient_clip_val is {trainer.gradient_clip_val}, but GANPrior clips the gradients of its "
                "two networks itself; set model.gradient_clip instead"
            )
        if trainer.accumulate_grad_batches != 1:
            raise ValueError(
                f"trainer.accumulate_grad_batches is {trainer.accumulate_grad_batches}, which GANPrior has no use for; "
                "set data.batch_size instead"
            )
        # Not in the constructor: Lightning would refuse clipping itself, without a word on what to set instead.
        self.automatic_optimization = False

    def configure_model(self) -> None:
        """Builds both networks for the data's patch size.

        Raises:
            ValueError: when a generator cannot make patches of that size.
        """
        if self.generator is None:
            side = int(self.trainer.datamodule.patch_size)  # type: ignore[attr-defined]
            self.generator = StyleGenerator(self.spec, side)
            self.discriminator = Discriminator(self.spec, side)

    def training_step(self, batch: PairBatch, batch_idx: int) -> None:
        """One step of the discriminator, then one of the generator, which made its patches once for both."""
        generator, _ = self._networks
        z = noise(self._seed, "latents", batch.index, (generator.z_dim,))
        styles = generator.spread(generator.mapping(z))
        fakes = generator.synthesis(styles).float()
        self._train_discriminator(batch, fakes.detach())
        self._train_generator(batch.index, styles, fakes)

    def on_validation_epoch_start(self) -> None:
        """Gets ready for features of held-out patches."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        training = data.training_patches().__getitems__(list(range(COMPARED))).hr.to(self.device).float() / 255
        self._held_out = HeldOutFeatures(data.feature_extractor, training)

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Collects held-out patches of one image."""
        self._held_out.add(int(batch.index[0]), held_out_patches(batch.hr, self._networks[0].side, most=COMPARED))

    def on_validation_epoch_end(self) -> None:
        """Logs how far samples are from held-out patches."""
        distance = self._held_out.distance(self._sample(COMPARED))
        if distance is not None:
            self.log("val/kernel_distance", distance, prog_bar=True, sync_dist=True)

    def sample_grid(self, per_class: int) -> tuple[Tensor, list[int]]:
        """Samples to look at, float in [0, 1], (N, 3, side, side), of the one class; always of the same noise."""
        return self._sample(per_class), [0] * per_class

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One optimiser for each network, the generator's first."""
        optimizers = self._fresh_optimizers()
        self._signatures = [signature(optimizer, None) for optimizer in optimizers]
        return optimizers

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the optimisers' settings, for resuming with others."""
        checkpoint["schedules"] = self._signatures

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of another model, and lets the command line win over its optimiser settings.

        Raises:
            ValueError: when the checkpoint is not of this model, or settings are refused.
        """
        refuse_other_shapes(checkpoint["state_dict"], self, "networks and patch size")
        if not self.trainer.training:
            return
        parts = zip(self._fresh_optimizers(), checkpoint["schedules"], checkpoint["optimizer_states"], strict=True)
        for optimizer, before, state in parts:
            if signature(optimizer, None) != before:
                take_over({"schedule": before, "optimizer_states": [state]}, optimizer, None)

    def export(self, run: Path) -> None:
        """Writes `generator/` into a run's folder."""
        save_style_generator(self._networks[0], run / GENERATOR)

    @property
    def _networks(self) -> tuple[StyleGenerator, Discriminator]:
        assert self.generator is not None
        assert self.discriminator is not None
        return self.generator, self.discriminator

    @property
    def _seed(self) -> int:
        return int(self.trainer.datamodule.seed)  # type: ignore[attr-defined]

    def _train_discriminator(self, batch: PairBatch, fakes: Tensor) -> None:
        _, discriminator = self._networks
        regularises = self.r1_weight > 0 and self.global_step % self.r1_every == 0
        real = self._seen(batch.hr * 2 - 1, batch.index, "real").requires_grad_(regularises)
        real_logits = discriminator(real)
        loss = discriminator_loss(real_logits, discriminator(self._seen(fakes, batch.index, "generated")))
        self.log("train/discriminator_loss", loss, prog_bar=True, batch_size=len(batch))
        if regularises:
            penalty = r1_penalty(real, real_logits)
            self.log("train/r1", penalty, batch_size=len(batch))
            loss = loss + self.r1_weight * self.r1_every * penalty
        optimizer = self.optimizers(use_pl_optimizer=False)[1]  # type: ignore[index]
        self._set_gradients(discriminator, loss)
        # Lightning counts the steps of its own wrapper, and calls the callbacks there.
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            callback.on_before_optimizer_step(self.trainer, self, optimizer)
        optimizer.step()

    def _train_generator(self, numbers: Tensor, styles: Tensor, fakes: Tensor) -> None:
        generator, discriminator = self._networks
        loss = generator_loss(discriminator(self._seen(fakes, numbers, "judged")))
        self.log("train/generator_loss", loss, prog_bar=True, batch_size=len(numbers))
        if self.path_weight > 0 and self.global_step % self.path_every == 0:
            directions = noise(self._seed, "path length", numbers, fakes.shape[1:])
            penalty, length = path_length_penalty(fakes, styles, directions, self.path_length)
            self.path_length.copy_(self._mean_of_processes(length))
            self.log("train/path_length", self.path_length, batch_size=len(numbers))
            loss = loss + self.path_weight * self.path_every * penalty
        self._set_gradients(generator, loss)
        self.optimizers()[0].step()  # type: ignore[index]

    def _seen(self, patches: Tensor, numbers: Tensor, what: str) -> Tensor:
        """Patches in [-1, 1] as the discriminator sees them: augmented, each kind by draws of its own."""
        return self.augment((patches + 1) / 2, derive_seed(self._seed, what), numbers) * 2 - 1

    def _set_gradients(self, network: nn.Module, loss: Tensor) -> None:
        """Of the loss's mean over all processes, clipped.

        Not by `backward`, for which DDP would wait until the other network has gradients too.
        """
        parameters = list(network.parameters())
        gradients = torch.autograd.grad(loss, parameters)
        mean = self._mean_of_processes(torch.cat([gradient.flatten() for gradient in gradients]))
        for parameter, part in zip(parameters, mean.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)
        if self.gradient_clip is not None:
            nn.utils.clip_grad_norm_(parameters, self.gradient_clip)

    def _mean_of_processes(self, values: Tensor) -> Tensor:
        mean: Tensor = self.trainer.strategy.reduce(values, reduce_op="mean")
        return mean

    def _sample(self, count: int) -> Tensor:
        """The first of an endless row of samples, in [0, 1], in steps of 1 / 255, as files would have them."""
        generator, parts = self._networks[0], []
        for numbers in torch.arange(count, device=self.device).split(self.trainer.datamodule.batch_size):  # type: ignore[attr-defined]
            patches = generator(noise(0, "samples to look at", numbers, (generator.z_dim,))).float()
            parts.append(((patches + 1) / 2).clamp(0, 1).mul(255).round() / 255)
        return torch.cat(parts)

    def _fresh_optimizers(self) -> list[Optimizer]:
        optimizers = []
        for network, (key, factory) in zip(self._networks, self._factories.items(), strict=True):
            try:
                optimizers.append(factory(network.parameters()))
            except (ValueError, TypeError) as error:
                raise ScheduleError(f"model.init_args.{key}: {error}") from error
        return optimizers
