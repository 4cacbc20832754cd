"""GANInversion: finds latents of a frozen generator whose patches stand for the real ones, and decodes them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datamodules.base import SRDataModule
from datamodules.distilled import DistilledPatch
from datamodules.pair import PairBatch, to_uint8
from datamodules.selection import Budget
from lightning_modules.clock import clock
from lightning_modules.feature_networks import FeatureNetwork, MatchingFeatures, RandomConvNet
from lightning_modules.gan.augmentation import Siamese
from lightning_modules.gan.generator import Generator
from lightning_modules.gan.inversion import InversionTerms, inversion_gradient
from lightning_modules.gan.latent_set import LATENTS, LatentSet, load_latents, save_latents
from lightning_modules.gan.matching import Matching, RealPatches
from lightning_modules.gan.proxy import Proxy, measure
from lightning_modules.gan.sources import GeneratorSpec, load_generator, refuse_another
from lightning_modules.gan.start import (
    approximations,
    random_latents,
    real_patches,
    refuse_other_data,
    refuse_repetition,
    refuse_sides,
)
from lightning_modules.losses.distribution_matching import MatchingTerms, mean_pairwise_cosine
from lightning_modules.metrics import SRMetrics
from lightning_modules.requests import requests
from lightning_modules.run_parts import newest
from lightning_modules.schedule import Schedule
from lightning_modules.synthesis import Synthesis


class GANInversion(Synthesis):
    """GSDD (Zhang et al., AAAI 2024): distillation in the latent space of a generator.

    The latents are all that is trained. `fit` first inverts: each latent learns to reproduce a real patch. Then the
    features of each class's patches are matched with those of real ones (Zhao and Bilen, WACV 2023), under the same
    augmentation of both. `predict` decodes. Checkpoints and `latents/` hold the latents alone.

    Args:
        generator: frozen; null is that of the latents to start from.
        start: latents begin at real patches of their class, each at another one, or at random.
        inversion_steps: optimiser steps that invert, before matching begins; only for latents that start at real
            patches in this run.
        inversion: weights of the loss of inversion.
        matching: weights of the loss of matching.
        features: what is matched; null is a random ConvNet, drawn anew for each step.
        augmentation: of real and decoded patches alike, see `Siamese`.
        real_batch: real patches of each class and step.
        chunk: patches decoded or embedded at a time; bounds memory, changes nothing else.
        matching_rate: share of the learning rate that matching goes at. Its gradients are noisy, and at the full rate
            latents that were inverted walk away from anything that looks like a photograph.
        stored_as: dtype of the latents on disk.
        store: whether `predict` writes a set of images, or of latents, which `SyntheticPatches` decodes.
        proxy: small SR network that is trained on the patches at each validation; null does without.
        budget: of the set: ipc, patches, or percent of all HR pixels; null is 10 per class.
        sample_seed: of latents, real patches, networks and augmentation; null is the datamodule's seed.
        optimizer: any torch optimiser.
        lr_scheduler: any torch scheduler; see `SuperResolution`.
        lr_interval: what it counts: optimiser steps or epochs.
        init_from: latents to start from, or to decode: their folder, that of the run that found them, or of the run's
            experiment.

    Raises:
        ValueError: when a setting is out of range or contradicts another.
    """

    method: ClassVar[str] = "gsdd"
    latents: nn.Parameter  # from `configure_model` on
    inversion_psnr: Tensor

    def __init__(
        self,
        generator: GeneratorSpec | None = None,
        start: Literal["real", "random"] = "real",
        inversion_steps: int = 100,
        inversion: InversionTerms = InversionTerms(),  # noqa: B008
        matching: MatchingTerms = MatchingTerms(),  # noqa: B008
        features: MatchingFeatures | None = None,
        augmentation: str = "color_crop_cutout_flip_scale_rotate",
        real_batch: int = 64,
        chunk: int = 32,
        matching_rate: float = 0.05,
        stored_as: Literal["float16", "float32"] = "float16",
        store: Literal["images", "latents"] = "images",
        proxy: Proxy | None = None,
        budget: Budget | None = None,
        sample_seed: int | None = None,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["step", "epoch"] = "step",
        init_from: str | None = None,
    ) -> None:
        super().__init__(budget or Budget(ipc=10), sample_seed)
        for key, value, least in (
            ("inversion_steps", inversion_steps, 0),
            ("real_batch", real_batch, 1),
            ("chunk", chunk, 1),
        ):
            if value < least:
                raise ValueError(f"model.{key} is {value}; expected at least {least}")
        if not 0 < matching_rate < math.inf:
            raise ValueError(f"model.matching_rate is {matching_rate}; expected a number above 0, such as 0.05")
        if generator is None and init_from is None:
            raise ValueError("model.generator is not set: give {source: FILE_OR_FOLDER}, or latents by model.init_from")
        self.generator_spec = generator
        self.start = start
        self.inversion_steps = inversion_steps if start == "real" and init_from is None else 0
        self.inversion = inversion
        self.terms = matching
        self.features = features or RandomConvNet()
        self.siamese = Siamese(augmentation)
        self.real_batch = real_batch
        self.chunk = chunk
        self.matching_rate = matching_rate
        self.stored_as: torch.dtype = getattr(torch, stored_as)
        self.store = store
        self.proxy = proxy
        self.init_from = init_from
        self.schedule = Schedule(optimizer, lr_scheduler, lr_interval)
        self.validation_metrics = SRMetrics()
        self.generator: Generator | None = None
        self.register_buffer("inversion_psnr", torch.tensor(float("nan")))
        self._found: LatentSet  # with the latents as they were at first
        self._starts: list[int] = []
        self._proxy_network: nn.Module | None = None

    def setup(self, stage: str) -> None:
        """Learns what the real patches are.

        Raises:
            ValueError: for settings of the Trainer that latents cannot do with.
        """
        if self.trainer.precision in ("16-true", "bf16-true") or self.trainer.accumulate_grad_batches != 1:
            raise ValueError(
                f"trainer.precision is {self.trainer.precision} and trainer.accumulate_grad_batches "
                f"{self.trainer.accumulate_grad_batches}, but small steps of latents are lost in half precision, and "
                "every step is of all latents; use 32-true or a mixed precision, and 1"
            )
        super().setup(stage)

    def configure_model(self) -> None:
        """Loads the generator, and decides how many latents there are and where they begin.

        Raises:
            FileNotFoundError: when the generator, or the latents to start from, are not to be had.
            ValueError: when generator, data, budget and latents do not fit each other.
        """
        if self.generator is not None:
            return
        with torch.device("cpu"):  # Lightning's would be the GPU here, and moves the module there itself
            if self.init_from is None:
                self._begin()
            else:
                self._take_over(load_latents(newest(Path(self.init_from).expanduser(), LATENTS)))
        self.latents = nn.Parameter(self._found.latents.float())
        if self._found.inversion_psnr is not None:
            self.inversion_psnr.fill_(self._found.inversion_psnr)

    def fit_data(self, data: SRDataModule) -> DataLoader[Any]:
        """A clock: what a step is computed from follows from its number."""
        return clock()

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        """A number whose gradient is that of the loss, which was computed chunk by chunk."""
        inverts = self.global_step < self.inversion_steps
        gradient = self._invert() if inverts else self._match()
        diversity = torch.stack([mean_pairwise_cosine(self.latents[rows].flatten(1)) for rows in self._rows.values()])
        self.log("train/latent_cosine", diversity.detach().mean(), batch_size=1)
        loss = (self.latents * gradient).sum() * self.trainer.world_size  # DDP takes the mean over processes
        return loss if inverts else loss + self.terms.latent_diversity * diversity.sum()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Matching begins without the moments of inversion, whose gradients are of another size, and goes slower."""
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        if self.global_step == self.inversion_steps:
            optimizer.state.clear()
        rates = [group["lr"] for group in optimizer.param_groups]
        share = 1.0 if self.global_step < self.inversion_steps else self.matching_rate
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * share
        super().optimizer_step(*args, **kwargs)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def on_validation_epoch_start(self) -> None:
        """Trains the proxy on the patches as they are now."""
        self.validation_metrics.reset()
        if self.proxy is not None and not self.trainer.sanity_checking:
            count = min(len(self.latents), self.proxy.steps * self.proxy.batch_size)  # so many are looked at
            some = torch.linspace(0, len(self.latents) - 1, count).round().long().to(self.device)
            patches, data = self._decoded(self._stored()[some]), self._data
            self._proxy_network = self.proxy.train(patches, data.scale, data.patch_size, data.seed, self.device)

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Measures how well the proxy upscales held-out photographs."""
        if self._proxy_network is not None:
            images = self.trainer.val_dataloaders.dataset  # type: ignore[union-attr]
            measure(self._proxy_network, batch, images, self.validation_metrics)

    def on_validation_epoch_end(self) -> None:
        """Logs `val/psnr_y` and `val/ssim_y` of the proxy."""
        measured = {} if self._proxy_network is None else next(iter(self.validation_metrics.compute().values()))
        self._proxy_network = None
        logged = {f"val/{metric}": value for metric, value in measured.items()}
        self.log_dict(logged, prog_bar=True, sync_dist=True)  # equal on all processes, but Lightning cannot know
        self.schedule.after_validation(self, logged)

    def sample_grid(self, per_class: int) -> tuple[Tensor, list[int]]:
        """The first patches of each class, uint8 (N, 3, side, side), and their classes: always the same ones."""
        shown = torch.cat([rows[:per_class] for rows in self._rows.values()])
        return self._decoded(self._stored()[shown]), [self._found.labels[at] for at in shown.tolist()]

    def batches(self, data: SRDataModule) -> Iterable[list[int]]:
        """Positions of the latents to decode, `data.batch_size` at a time."""
        positions = range(len(self.latents))
        return [list(positions[at : at + data.batch_size]) for at in range(0, len(positions), data.batch_size)]

    def predict_step(self, batch: list[int], batch_idx: int) -> list[DistilledPatch]:
        """Decodes."""
        latents = self._stored()[batch]
        pixels = self._decoded(latents).permute(0, 2, 3, 1).cpu().numpy()
        kept = latents.to(self.stored_as).cpu().numpy() if self.store == "latents" else [None] * len(batch)
        return [
            DistilledPatch(hr, None, self._describe(at), latent)
            for at, hr, latent in zip(batch, pixels, kept, strict=True)
        ]

    def record(self) -> dict[str, Any]:
        """What the patches were decoded with, beside the configuration."""
        size = self.latents.numel() * self.stored_as.itemsize
        return {
            "generator": self._found.generator,
            "latents": {"latent_bytes": size, "inversion_psnr": self._psnr, "seed": self._found.seed},
        }

    def export(self, run: Path) -> None:
        """Writes `latents/` into a run's folder."""
        latents = self.latents.detach().to(self.stored_as)
        save_latents(run / LATENTS, replace(self._found, latents=latents, inversion_psnr=self._psnr))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimiser over the latents."""
        return self.schedule.configure(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves the generator out; adds which it was, and the optimiser's settings."""
        kept = ("latents", "inversion_psnr")
        checkpoint["state_dict"] = {key: checkpoint["state_dict"][key] for key in kept}
        checkpoint["gsdd"] = self._identity()
        self.schedule.save(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of other latents, and lets the command line win over its optimiser settings.

        Raises:
            ValueError: when the checkpoint is none of GANInversion, or its latents belong to something else.
        """
        if "gsdd" not in checkpoint:
            raise ValueError("the file is no checkpoint of GANInversion; give one, or latents with model.init_from")
        if checkpoint["gsdd"] != self._identity():
            raise ValueError(
                "the checkpoint's latents belong to another generator, or are of other classes or numbers; set "
                "model.generator, model.budget and data as in the run that wrote it"
            )
        self.schedule.load(checkpoint, self)

    @property
    def _decoder(self) -> Generator:
        assert self.generator is not None
        return self.generator

    @property
    def _psnr(self) -> float | None:
        psnr = float(self.inversion_psnr)
        return None if math.isnan(psnr) else psnr

    @cached_property
    def _rows(self) -> dict[int, Tensor]:
        """Positions of each class's latents, int64."""
        labels = torch.tensor(self._found.labels)
        return {label: (labels == label).nonzero()[:, 0].to(self.device) for label in labels.unique().tolist()}

    def _begin(self) -> None:
        """Latents at real patches or at random, as many of each class as the budget says."""
        assert self.generator_spec is not None
        self.generator = self.generator_spec.build(self._data.patch_size)
        wanted, real = self._quotas(self.generator.side), self._real
        refuse_sides(real, self.generator.side)
        if self.start == "real":
            refuse_repetition(wanted, self._class_sizes)
        asked = requests(wanted, 1, self._labels, self._seed)
        self._starts = [request.real for request in asked]
        random = self.start == "random"
        self._found = LatentSet(
            random_latents(self.generator, asked, self._seed)
            if random
            else approximations(self.generator, real, self._starts, self.chunk),
            [request.label for request in asked],
            self.generator_spec.record(self.generator),
            seed=self._seed,
            sources=None if random else [real.store.index.names[real.windows[at].image] for at in self._starts],
            data=self._data.source_fingerprint,
        )

    def _take_over(self, found: LatentSet) -> None:
        """Latents from disk, for the generator that they were made for."""
        if self.generator_spec is None:
            self.generator = load_generator(found.generator)
        else:
            self.generator = self.generator_spec.build(self._data.patch_size)
            refuse_another(self.generator_spec.record(self.generator), found.generator)
        refuse_sides(self._real, self.generator.side)
        refuse_other_data(found, self._class_sizes, self._data.source_fingerprint, bool(self.trainer.predicting))
        self._found = found

    def _invert(self) -> Tensor:
        """Gradient of this process's share of the latents, a share of the chunks."""
        positions = torch.arange(len(self.latents), device=self.device).split(self.chunk)
        share = positions[self.trainer.global_rank :: self.trainer.world_size]
        network = self._network() if self.inversion.feature else None
        gradient, psnr = inversion_gradient(
            self._decoder, self.latents.detach(), self._targets, share, self.inversion, network
        )
        self.inversion_psnr.copy_(self._sum(psnr).mean())
        self.log("train/inversion_psnr", self.inversion_psnr, prog_bar=True, batch_size=1)
        return gradient

    def _match(self) -> Tensor:
        """Gradient of this process's share of the latents, a share of the classes."""
        real = RealPatches(self._real, self._labels, self.real_batch, self._seed)
        matching = Matching(self._decoder, real, self.terms, self.siamese, self.chunk)
        network, latents = self._network(), self.latents.detach()
        gradient, losses = torch.zeros_like(latents), latents.new_zeros(len(self._rows))
        for number, (label, rows) in enumerate(self._rows.items()):
            if number % self.trainer.world_size == self.trainer.global_rank:
                gradient[rows], losses[number] = matching(latents[rows], label, network, self.global_step)
        losses = self._sum(losses)
        self.log("train/loss", losses.sum(), prog_bar=True, batch_size=1)
        self.log_dict({f"train/matching_{c}": loss for c, loss in zip(self._rows, losses, strict=True)}, batch_size=1)
        return gradient

    def _network(self) -> FeatureNetwork:
        return self.features.network(self.global_step, self._seed, self.device)

    def _sum(self, own: Tensor) -> Tensor:
        """Of all processes' tensors."""
        total: Tensor = self.trainer.strategy.reduce(own, reduce_op="sum")
        return total

    def _targets(self, positions: Tensor) -> Tensor:
        return real_patches(self._real, [self._starts[at] for at in positions.tolist()], positions.device)

    def _stored(self) -> Tensor:
        """The latents as they come back from disk."""
        return self.latents.detach().to(self.stored_as).float()

    def _decoded(self, latents: Tensor) -> Tensor:
        """Patches as files have them, uint8 (B, 3, side, side)."""
        with torch.no_grad():
            return torch.cat([to_uint8(self._decoder.decode(some)) for some in latents.split(self.chunk)])

    def _describe(self, at: int) -> dict[str, Any]:
        """Metadata of a patch."""
        own = {"pseudo_label": self._found.labels[at], "number": at, "seed": self._found.seed}
        return own if self._found.sources is None else {**own, "source": self._found.sources[at]}

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint's latents belong to."""
        found = self._found
        belongs = {"generator": self._decoder.fingerprint, "data": self._data.source_fingerprint}
        return {**belongs, "labels": found.labels, "starts": self._starts, "seed": found.seed}
