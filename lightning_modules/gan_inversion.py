"""GANInversion: finds latents of a frozen generator whose patches stand for the real ones, and decodes them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from datamodules.augmentation.counter_rng import derive_seed
from datamodules.base import SRDataModule
from datamodules.distilled import DistilledPatch
from datamodules.pair import PairBatch
from datamodules.selection import Budget
from datamodules.selection.interfaces import Indices
from lightning_modules.gan.augmentation import Siamese
from lightning_modules.gan.chunks import split
from lightning_modules.gan.feature_networks import MatchingFeatures, RandomConvNet
from lightning_modules.gan.generator import Generator
from lightning_modules.gan.inversion import InversionTerms, inversion_gradient
from lightning_modules.gan.latent_set import LATENTS, LatentSet, load_latents, save_latents
from lightning_modules.gan.matching import Matching, RealPatches
from lightning_modules.gan.proxy import Proxy, measure
from lightning_modules.gan.sources import GeneratorSpec, load_generator, refuse_another
from lightning_modules.losses.distribution_matching import MatchingTerms, mean_pairwise_cosine
from lightning_modules.metrics import SRMetrics
from lightning_modules.randomness import noise
from lightning_modules.requests import Request, requests
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
        chunk: latents decoded at a time with gradients; bounds memory, changes nothing else.
        stored_as: dtype of the latents on disk.
        store: whether `predict` writes a set of images, or of latents, which `SyntheticPatches` decodes.
        proxy: small SR network that is trained on the patches at each validation; null does without.
        budget: of the set: ipc, patches, or percent of all HR pixels; null is 10 per class.
        sample_seed: of the choice of real patches and of random latents; null is the datamodule's seed.
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
        self.stored_as: torch.dtype = getattr(torch, stored_as)
        self.store = store
        self.proxy = proxy
        self.init_from = init_from
        self.schedule = Schedule(optimizer, lr_scheduler, lr_interval)
        self.validation_metrics = SRMetrics()
        self.generator: Generator | None = None
        self.register_buffer("inversion_psnr", torch.tensor(float("nan")))
        self._record: dict[str, Any] = {}  # of the generator
        self._starts: list[int] = []
        self._label_list: list[int] = []
        self._proxy_network: nn.Module | None = None

    def configure_model(self) -> None:
        """Loads the generator, and decides how many latents there are and where they begin.

        Raises:
            FileNotFoundError: when the generator, or the latents to start from, are not to be had.
            ValueError: when generator, data, budget and latents do not fit each other.
        """
        if self.generator is not None:
            return
        if self.init_from is not None:
            self._take_over(load_latents(newest(Path(self.init_from).expanduser(), LATENTS)))
            return
        assert self.generator_spec is not None
        self.generator = self.generator_spec.build(self._data.patch_size)
        self._refuse_sides(self.generator.side)
        self._record = self.generator_spec.record(self.generator)
        wanted = self._quotas(self.generator.side)
        if self.start == "real":
            self._refuse_repetition(wanted)
        asked = requests(wanted, 1, self._labels, self._seed)
        self._starts = [request.real for request in asked]
        self._label_list = [request.label for request in asked]
        self.latents = nn.Parameter(self._approximations() if self.start == "real" else self._random(asked))

    def fit_data(self, data: SRDataModule) -> DataLoader[Any]:
        """A clock: what a step is computed from follows from its number."""
        return DataLoader(_Clock(), batch_size=None)

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        """A number whose gradient is that of the loss, which was computed chunk by chunk."""
        inverts = self.global_step < self.inversion_steps
        gradient = self._invert() if inverts else self._match()
        diversity = self._latent_cosine()
        self.log("train/latent_cosine", diversity.detach() / len(set(self._label_list)), batch_size=1)
        loss = (self.latents * gradient).sum() * self.trainer.world_size  # DDP takes the mean over processes
        return loss if inverts else loss + self.terms.latent_diversity * diversity

    def on_validation_epoch_start(self) -> None:
        """Trains the proxy on the patches as they are now."""
        self.validation_metrics.reset()
        if self.proxy is not None and not self.trainer.sanity_checking:
            patches, data = self._decoded(self._stored()), self._data
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
        """The first patches of each class, float in [0, 1], (N, 3, side, side), and their classes: always the same."""
        labels = np.array(self._label_list)
        shown = np.concatenate([np.flatnonzero(labels == label)[:per_class] for label in np.unique(labels)])
        return self._decoded(self._stored()[torch.from_numpy(shown)]), labels[shown].tolist()

    def batches(self, data: SRDataModule) -> Iterable[list[int]]:
        """Positions of the latents to decode, `data.batch_size` at a time."""
        positions = range(len(self.latents))
        return [list(positions[at : at + data.batch_size]) for at in range(0, len(positions), data.batch_size)]

    def predict_step(self, batch: list[int], batch_idx: int) -> list[DistilledPatch]:
        """Decodes."""
        latents = self._stored()[batch]
        pixels = (self._decoded(latents) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        kept = latents.to(self.stored_as).cpu().numpy() if self.store == "latents" else [None] * len(batch)
        return [
            DistilledPatch(hr, None, {"pseudo_label": self._label_list[at], "number": at, "seed": self._seed}, latent)
            for at, hr, latent in zip(batch, pixels, kept, strict=True)
        ]

    def record(self) -> dict[str, Any]:
        """What the patches were decoded with, beside the configuration."""
        psnr = float(self.inversion_psnr)
        found = {
            "latent_bytes": self.latents.numel() * self.stored_as.itemsize,
            "inversion_psnr": None if math.isnan(psnr) else psnr,
        }
        return {"generator": self._record, "latents": found}

    def export(self, run: Path) -> None:
        """Writes `latents/` into a run's folder."""
        psnr = self.record()["latents"]["inversion_psnr"]
        found = LatentSet(self.latents.to(self.stored_as), self._label_list, self._record, psnr)
        save_latents(run / LATENTS, found)

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
    def _device_labels(self) -> Tensor:
        return torch.tensor(self._label_list, device=self.device)

    @property
    def _chunks(self) -> list[Tensor]:
        """This process's share."""
        return split(self._device_labels, self.chunk)[self.trainer.global_rank :: self.trainer.world_size]

    def _invert(self) -> Tensor:
        assert self.generator is not None
        network = self._network() if self.inversion.feature else None
        latents = self.latents.detach()
        gradient, psnr = inversion_gradient(
            self.generator, latents, self._targets, self._chunks, self.inversion, network
        )
        self.inversion_psnr.copy_(self._sum(psnr).mean())
        self.log("train/inversion_psnr", self.inversion_psnr, prog_bar=True, batch_size=1)
        return gradient

    def _match(self) -> Tensor:
        assert self.generator is not None
        real = RealPatches(self._real, self._labels, self.real_batch, self._data.seed)
        matching = Matching(self.generator, real, self.terms, self.siamese, self._sum)
        latents, labels = self.latents.detach(), self._device_labels
        gradient, losses = matching(latents, labels, self._chunks, self._network(), self.global_step)
        self.log("train/loss", torch.stack(list(losses.values())).sum(), prog_bar=True, batch_size=1)
        self.log_dict({f"train/matching_{label}": loss for label, loss in losses.items()}, batch_size=1)
        return gradient

    def _network(self) -> nn.Module:
        return self.features.network(self.global_step, self._data.seed, self.device)

    def _sum(self, own: Tensor) -> Tensor:
        """Of all processes' tensors."""
        total: Tensor = self.trainer.strategy.reduce(own, reduce_op="sum")
        return total

    def _targets(self, positions: Tensor) -> Tensor:
        """Real patches that latents start at, float32 in [0, 1]."""
        numbers = [self._starts[at] for at in positions.tolist()]
        return self._real.whole(numbers).to(positions.device).to_float().hr

    def _approximations(self) -> Tensor:
        assert self.generator is not None
        with torch.no_grad():
            chunks = torch.arange(len(self._starts)).split(self.chunk)
            return torch.cat([self.generator.approximate(self._targets(chunk)) for chunk in chunks])

    def _random(self, asked: Sequence[Request]) -> Tensor:
        assert self.generator is not None
        numbers = [(derive_seed(self._seed, request.label), torch.tensor([request.number])) for request in asked]
        drawn = torch.cat([noise(seed, "latents", number, self.generator.noise_shape) for seed, number in numbers])
        return self.generator.sample(drawn)

    def _latent_cosine(self) -> Tensor:
        """Mean cosine of all pairs of a class's latents, summed over the classes."""
        labels = self._device_labels
        return torch.stack([mean_pairwise_cosine(self.latents[labels == c].flatten(1)) for c in labels.unique()]).sum()

    def _stored(self) -> Tensor:
        """The latents as they come back from disk."""
        return self.latents.detach().to(self.stored_as).float()

    def _decoded(self, latents: Tensor) -> Tensor:
        assert self.generator is not None
        with torch.no_grad():
            return torch.cat([self.generator.decode(some).clamp(0, 1) for some in latents.split(self.chunk)])

    def _take_over(self, found: LatentSet) -> None:
        """Makes latents from disk this run's, for the generator they were made for."""
        if self.generator_spec is None:
            self.generator, self._record = load_generator(found.generator), found.generator
        else:
            self.generator = self.generator_spec.build(self._data.patch_size)
            self._record = self.generator_spec.record(self.generator)
            refuse_another(self._record, found.generator)
        self._refuse_sides(self.generator.side)
        unknown = sorted(set(found.labels) - set(np.flatnonzero(self._class_sizes).tolist()))
        if unknown:
            raise ValueError(
                f"model.init_from {self.init_from} has latents of class {unknown[0]}, which no patch of the data has; "
                "set data.pseudo_labels and data.filters as when they were made"
            )
        self._label_list = found.labels
        self.latents = nn.Parameter(found.latents.float())
        if found.inversion_psnr is not None:
            self.inversion_psnr.fill_(found.inversion_psnr)

    def _refuse_sides(self, side: int) -> None:
        for window in self._real.windows:
            if (window.height, window.width) != (side, side):
                raise ValueError(
                    f"the generator makes patches of {side} pixels but the data's are of {window.width} x "
                    f"{window.height}; use data SelectedPatches with patch_size and candidate_size {side}"
                )

    def _refuse_repetition(self, wanted: Indices) -> None:
        for label, (count, size) in enumerate(zip(wanted.tolist(), self._class_sizes.tolist(), strict=True)):
            if count > size:
                raise ValueError(
                    f"model.budget asks for {count} latents of class {label}, which has {size} real patches to start "
                    "at; lower the budget, set model.start random, or give more patches (data.candidate_stride)"
                )

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint's latents belong to."""
        assert self.generator is not None
        return {"generator": self.generator.fingerprint, "labels": self._label_list}


class _Clock(IterableDataset[int]):
    """Ticks without end."""

    def __iter__(self) -> Iterator[int]:
        return itertools.count()
