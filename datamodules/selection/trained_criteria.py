"""Criteria that ask a trained network: how hard a patch is for it, how much it helps there, how complex it finds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from datamodules.bicubic import upscale
from datamodules.fingerprint import digest_file
from datamodules.selection.criteria import PixelCriterion, mean_per_patch

if TYPE_CHECKING:
    from lightning_modules.networks.complexity_vit import ComplexityViT
    from lightning_modules.networks.trained import TrainedNetwork


class TrainedCriterion(PixelCriterion):
    """A criterion that looks at a trained network's SR.

    Scores agree to rounding errors of float32 between machines, not bit for bit.

    Args:
        checkpoint: a checkpoint of SuperResolution, exported weights, the folder of a run, or a file that spandrel
            recognises; read on first use.
    """

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint
        self._trained: TrainedNetwork | None = None

    def identity(self) -> dict[str, Any]:
        """Class name and the digest of the file, wherever it lies.

        Raises:
            FileNotFoundError: when there is no such file.
        """
        from lightning_modules.networks.trained import find_weights

        return {"class": self.code(), "sha256": digest_file(find_weights(self.checkpoint))}

    def cost(self) -> dict[str, Any]:
        """What is known of the network's training, as in `TrainedNetwork.record`, and the digest of the file."""
        from lightning_modules.networks.trained import load_trained

        trained = load_trained(self.checkpoint)
        return {"sha256": trained.sha256, **trained.record}

    @torch.no_grad()
    def super_resolved(self, lr: Tensor, hr: Tensor) -> Tensor:
        """The network's SR in grey levels, float32 in 0..255, as large as `hr`.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when it holds no network, or one for another scale.
        """
        network = self._loaded(hr.shape[-1] // lr.shape[-1]).network.to(hr.device)
        with torch.autocast(hr.device.type, enabled=False):
            sr: Tensor = network(lr.float() / 255)
        return sr.clamp(0, 1) * 255

    def _loaded(self, scale: int) -> TrainedNetwork:
        from lightning_modules.networks.trained import load_trained

        if self._trained is None:
            self._trained = load_trained(self.checkpoint)
        if self._trained.scale != scale:
            raise ValueError(
                f"{type(self).__name__}: {self.checkpoint} upscales x{self._trained.scale}, but the patches have "
                f"scale {scale}; give a network trained for x{scale}"
            )
        return self._trained


class SRLoss(TrainedCriterion):
    """Mean absolute error of the network's SR, in grey levels (RGB, clipped); the higher, the harder.

    The measure of Moser et al. (arXiv 2403.17083), whose hardest 5 % did harm.
    """

    label: ClassVar[str] = "L1 of the trained network [grey levels]"
    complex_when: ClassVar[Literal["low", "high"]] = "high"

    def score(self, lr: Tensor, hr: Tensor) -> Tensor:
        """See `PixelCriterion`."""
        return mean_per_patch((self.super_resolved(lr, hr) - hr).abs())


class SRGain(TrainedCriterion):
    """How much RMS error the network takes off bicubic's, in grey levels (may be negative); the higher, the better.

    RGB, clipped. The reducible loss of Mindermann et al. (RHO-LOSS, ICML 2022, arXiv 2206.07137): what is hard but
    cannot be learned scores low, as does what is easy. A few hundred updates are enough of a training for it.
    """

    label: ClassVar[str] = "error of bicubic that the trained network removes, RMS [grey levels]"
    complex_when: ClassVar[Literal["low", "high"]] = "high"

    def score(self, lr: Tensor, hr: Tensor) -> Tensor:
        """See `PixelCriterion`."""
        truth = hr.float()
        bicubic = upscale(lr.float(), hr.shape[-1] // lr.shape[-1]).clamp(0, 255)
        before, after = (
            mean_per_patch((truth - image).square()).sqrt() for image in (bicubic, self.super_resolved(lr, hr))
        )
        return before - after


class LearnedComplexity(PixelCriterion):
    """Entropy as a Vision Transformer estimates it, in bits; the higher, the more varied and the more textured.

    TripleD's measure of complexity (arXiv 2504.14826). What it was trained for is `Entropy`, which is exact, and faster
    on a CPU (benchmarks/complexity.py). Estimates agree to rounding errors of float32 between machines.

    Args:
        network: the folder of a run of ComplexityRegression, or of its experiment, whose newest run it is then, or
            `complexity/` or a file in it; read on first use.
    """

    label: ClassVar[str] = "estimated entropy of grey levels and gradients [bits]"
    complex_when: ClassVar[Literal["low", "high"]] = "high"

    def __init__(self, network: str) -> None:
        self.network = network
        self._loaded: tuple[ComplexityViT, int] | None = None

    def identity(self) -> dict[str, Any]:
        """Class name and the digest of the files, wherever they lie.

        Raises:
            FileNotFoundError: when there are no such files.
        """
        from lightning_modules.complexity_file import complexity_fingerprint

        return {"class": self.code(), "sha256": complexity_fingerprint(self.network)}

    def cost(self) -> dict[str, Any]:
        """What is known of the network's training, as in `TrainedNetwork.record`, and the digest of its files."""
        from lightning_modules.complexity_file import complexity_fingerprint, find_complexity
        from lightning_modules.networks.trained import training_record

        record = training_record(find_complexity(self.network))
        return {"sha256": complexity_fingerprint(self.network), **record}

    @torch.no_grad()
    def score(self, lr: Tensor, hr: Tensor) -> Tensor:
        """See `PixelCriterion`.

        Raises:
            FileNotFoundError: when there are no such files.
            ValueError: when they are damaged, or the network was trained on patches of another size.
        """
        network = self._for_patches(hr.shape[-1]).to(hr.device)
        with torch.autocast(hr.device.type, enabled=False):
            bits: Tensor = network(hr.float() / 255)
        return bits

    def _for_patches(self, side: int) -> ComplexityViT:
        from lightning_modules.complexity_file import load_complexity

        if self._loaded is None:
            network, config = load_complexity(self.network)
            self._loaded = network, config.patch_size
        network, trained_on = self._loaded
        if trained_on != side:
            raise ValueError(
                f"LearnedComplexity: {self.network} was trained on patches of {trained_on} pixels, but those to score "
                f"have {side}; set data.candidate_size to {trained_on}, or train it with data.patch_size {side}"
            )
        return network
