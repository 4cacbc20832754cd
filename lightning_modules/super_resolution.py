"""SuperResolution: trains, evaluates and upscales with any SR network; at scale 1 it restores."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datamodules.evaluation import EvaluationSet, UpscaleInput
from datamodules.image_files import UnreadableImage
from datamodules.pair import PairBatch
from lightning_modules.losses.pixel import L1, PixelLoss
from lightning_modules.metrics import SRMetrics
from lightning_modules.networks import NetworkSpec, build_network, check_spec, load_weights
from lightning_modules.schedule import Schedule
from lightning_modules.upscaling import baseline, baseline_name, upscale

DEFAULT_NETWORK = NetworkSpec("EDSR")


class SuperResolution(L.LightningModule):
    """Any SR network with its loss, optimiser, evaluation protocol and way of upscaling.

    Where the data have scale 1 and a degradation, it is a restoration network (denoising, deblurring and so on): `SR`
    is then the restored image, as large as its LR.

    The network is built when the run starts, because the scale comes from the data. Checkpoints keep its weights under
    `network.`, and plain values only; `weights.safetensors` of the run folder has bare keys.

    Args:
        network: architecture and options; the scale is filled in.
        scale: integer factor; null takes it from the datamodule, another value than the datamodule's is refused.
        loss: between SR and HR; null is L1.
        optimizer: any torch optimiser.
        lr_scheduler: any torch scheduler, stepped as `lr_interval` says; null keeps the learning rate. A length left
            open (`total_steps: null`, `T_max: -1`, `total_iters: -1`) is the run's number of optimiser steps.
            `lightning.pytorch.cli.ReduceLROnPlateau` is stepped after each validation.
        lr_interval: what other schedulers count: optimiser steps or epochs.
        init_from: weights to start from, a .safetensors or checkpoint file (not the same as resuming: no optimiser
            state, step 0).
        compile: compile the network in place, so that no key gets a prefix.
        channels_last: memory layout that convolutions are faster in.
        protocol: of PSNR and SSIM: `basicsr` or `matlab` (Y rounded to uint8); at scale 1 both are measured on RGB
            too, and nothing is cropped; see `metrics.Protocol`.
        lpips: also report LPIPS in tests (needs AlexNet weights).
        dists: also report DISTS in tests (needs VGG-16 weights).
        tile: LR side of tiles in pixels, outside training; null does each image in one piece.
        tile_overlap: LR pixels that a tile sees beyond what it contributes; blended along a strip half as wide.
        self_ensemble: mean over the eight flips and rotations, outside training; takes eight times as long.

    Raises:
        ValueError: for an unknown architecture or option, or a scale that is not the datamodule's.
    """

    def __init__(
        self,
        network: NetworkSpec = DEFAULT_NETWORK,
        scale: int | None = None,
        loss: PixelLoss | None = None,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["step", "epoch"] = "step",
        init_from: str | None = None,
        compile: bool = False,  # noqa: A002  # the key that users know
        channels_last: bool = False,
        protocol: str = "basicsr",
        lpips: bool = False,
        dists: bool = False,
        tile: int | None = None,
        tile_overlap: int = 16,
        self_ensemble: bool = False,
    ) -> None:
        super().__init__()
        self.spec = NetworkSpec(**network) if isinstance(network, dict) else network
        check_spec(self.spec)
        self.scale = scale
        self.loss = loss or L1()
        self.schedule = Schedule(optimizer, lr_scheduler, lr_interval)
        self.init_from = init_from
        self.compile_network = compile
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.tiling: dict[str, Any] = {"tile": tile, "overlap": tile_overlap, "self_ensemble": self_ensemble}
        self.validation_metrics = SRMetrics(protocol)
        self.test_metrics = SRMetrics(protocol, lpips=lpips, dists=dists)
        self.network: nn.Module | None = None
        self.save_hyperparameters({"network": dataclasses.asdict(self.spec), "scale": scale})

    def setup(self, stage: str) -> None:
        """Refuses weights of other precision than the pixels, which are float32.

        Of half precision, neither Adam's small steps nor an average of weights would survive.

        Raises:
            ValueError: for such a `trainer.precision`.
        """
        if self.trainer.precision not in ("32-true", "16-mixed", "bf16-mixed"):
            raise ValueError(
                f"trainer.precision is {self.trainer.precision}, but weights and images are float32; use 32-true, "
                "bf16-mixed, or 16-mixed on a GPU without bfloat16"
            )

    def configure_model(self) -> None:
        """Builds the network for the data's scale, and loads `init_from`."""
        if self.network is not None:
            return
        self.scale = self._agreed_scale()
        self.hparams["scale"] = self.scale
        self.network = build_network(self.spec, self.scale).to(memory_format=self.memory_format)
        if self.init_from is not None:
            load_weights(self.network, Path(self.init_from))
        if self.compile_network:
            self.network.compile()

    def forward(self, lr: Tensor) -> Tensor:
        """SR of LR images: float in [0, 1], (B, 3, H, W) -> (B, 3, scale * H, scale * W), not clipped."""
        assert self.network is not None
        sr: Tensor = self.network(lr.contiguous(memory_format=self.memory_format))
        return sr

    def upscale(self, lr: Tensor) -> Tensor:
        """SR as in evaluation and predict: tiled and self-ensembled as set, clipped to [0, 1], float32."""
        assert self.scale is not None
        return upscale(self, lr, self.scale, **self.tiling).float().clamp(0, 1)

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        loss: Tensor = self.loss(self(batch.lr), batch.hr)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: PairBatch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Measures whole validation images; returns their SR for callbacks to draw."""
        assert self.trainer.val_dataloaders is not None
        return self._measure(self.validation_metrics, self.trainer.val_dataloaders, batch, dataloader_idx)

    def test_step(self, batch: PairBatch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Measures whole test images; returns their SR for callbacks to draw."""
        assert self.trainer.test_dataloaders is not None
        return self._measure(self.test_metrics, self.trainer.test_dataloaders, batch, dataloader_idx)

    def predict_step(self, batch: UpscaleInput | UnreadableImage, batch_idx: int) -> Tensor | None:
        """SR of one image; the prediction writer saves it, or reports that there was none."""
        return None if isinstance(batch, UnreadableImage) else self.upscale(batch.lr)

    def on_validation_epoch_start(self) -> None:
        """Forgets the last epoch's images."""
        self.validation_metrics.reset()

    def on_test_epoch_start(self) -> None:
        """Forgets the last test's images."""
        self.test_metrics.reset()

    def on_validation_epoch_end(self) -> None:
        """Logs `val/psnr_y` and the like; with several sets, `val/Set5/psnr_y`."""
        means = self.validation_metrics.compute()
        prefixes = {name: "val" if len(means) == 1 else f"val/{name}" for name in means}
        logged = {f"{prefixes[name]}/{metric}": v for name, values in means.items() for metric, v in values.items()}
        self._log_means(logged)
        self.schedule.after_validation(self, logged)

    def on_test_epoch_end(self) -> None:
        """Logs `test/Set5/psnr_y` and the like."""
        means = self.test_metrics.compute()
        self._log_means({f"test/{name}/{metric}": v for name, values in means.items() for metric, v in values.items()})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimiser over the trainable parameters, with its scheduler."""
        return self.schedule.configure(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what tells at resume whether optimiser and schedule are still the same."""
        self.schedule.save(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of another network, and lets the command line win over its learning rate.

        Raises:
            ValueError: when network or scale are not the checkpoint's.
            ScheduleError: when the optimiser cannot take over.
        """
        self._refuse_another_network(checkpoint.get("hyper_parameters", {}))
        self.schedule.load(checkpoint, self)

    def _measure(
        self, metrics: SRMetrics, loaders: DataLoader | list[DataLoader], batch: PairBatch, dataloader_idx: int
    ) -> Tensor:
        images = (loaders[dataloader_idx] if isinstance(loaders, list) else loaders).dataset
        if not isinstance(images, EvaluationSet):
            raise TypeError(
                f"evaluation needs an EvaluationSet, which names its images, but the loader reads a "
                f"{type(images).__name__}; wrap it as datamodules.evaluation shows"
            )
        # Rounding to bfloat16 costs hundredths of a decibel: figures are measured in full precision.
        with torch.autocast(self.device.type, enabled=False):
            sr = self.upscale(batch.lr)
        names = [images.names[index] for index in batch.index.tolist()]
        outputs = {"": sr, f"_{baseline_name(batch.scale)}": baseline(batch.lr, batch.scale)}
        metrics.update(images.name, names, batch.index, outputs, hr=batch.hr, scale=batch.scale)
        return sr

    def _log_means(self, means: dict[str, float]) -> None:
        for name, value in means.items():
            bar = name.endswith(("psnr_y", "psnr_rgb"))
            self.log(name, value, prog_bar=bar, sync_dist=True)  # equal on all processes, but Lightning cannot know

    def _agreed_scale(self) -> int:
        of_data = getattr(getattr(self._trainer, "datamodule", None), "scale", None)
        if self.scale is None and of_data is None:
            raise ValueError("the scale is not known: use a datamodule with a scale, or set model.init_args.scale")
        if None not in (self.scale, of_data) and self.scale != of_data:
            raise ValueError(
                f"model.init_args.scale is {self.scale} but data.init_args.scale is {of_data}; "
                "set data.init_args.scale only, the model takes it from there"
            )
        scale = of_data if self.scale is None else self.scale
        assert scale is not None
        return scale

    def _refuse_another_network(self, saved: dict[str, Any]) -> None:
        mine = {"network": dataclasses.asdict(self.spec), "scale": self.scale}
        if "network" not in saved:
            raise ValueError(
                "the file is no checkpoint of SuperResolution: weights alone are given with --model.init_args.init_from"
            )
        for key, value in mine.items():
            if saved[key] not in (value, None):
                raise ValueError(
                    f"the checkpoint holds {key} {saved[key]}, but the configuration asks for {value}; "
                    "give the --config files that it was trained with"
                )
