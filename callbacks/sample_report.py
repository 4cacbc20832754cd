"""SampleReport: how what a generative model sampled compares with the patches that it learned from."""

from __future__ import annotations

import json
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn
from PIL import Image

from callbacks.distilled_writer import DistilledWriter
from callbacks.run_folder import run_folder
from callbacks.run_summary import summarise
from callbacks.sample_comparison import Comparison, compare, feature_extractor
from callbacks.sample_figures import ABOUT, figures
from callbacks.sample_plots import psnr_plot, spectra_plot
from callbacks.sample_sheet import sample_sheet
from datamodules.distilled import DistilledSet
from datamodules.fingerprint import write_atomic


class SampleReport(Callback):
    """At the end of `predict` of a method that synthesises patches, compares them with real ones.

    Stands after DistilledWriter in the list of callbacks. Written to `diagnostics/` and W&B are `samples.png` (samples
    of each pseudo-class above their nearest real patches), `spectra.png` (radial power spectra), `psnr_bicubic.png`
    (histograms of what bicubic loses) and `diagnostics.json` (distances between the two distributions, memorisation,
    high frequencies; with what each figure means).

    Args:
        patches: samples shown in `samples.png`; 0 draws and writes nothing.

    Raises:
        ValueError: when it is negative.
    """

    def __init__(self, patches: int = 64) -> None:
        if patches < 0:
            raise ValueError(f"sample_report: patches {patches}; expected the number to show, 0 for no report")
        self.patches = patches

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds out where to write."""
        self._folder = run_folder(trainer) / "diagnostics"

    @rank_zero_only
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compares, draws and writes; what cannot be compared is a warning, for the set is complete without."""
        written = _written(trainer)
        if not self.patches or written is None or not getattr(pl_module, "synthesises", False):
            return
        try:
            self._report(trainer, written)
        except (OSError, ValueError, ImportError) as error:
            rank_zero_warn(f"no diagnostics of the samples: {error}")

    def _report(self, trainer: Trainer, written: DistilledSet) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        comparison = compare(written, data, trainer.strategy.root_device)
        numbers = figures(comparison)
        features = feature_extractor(data).identity()
        text = json.dumps({**numbers, "features": features, "about": ABOUT}, indent=2)
        write_atomic(self._folder / "diagnostics.json", text + "\n")
        summarise(trainer, "diagnostics", numbers)
        for name, picture in pictures(comparison, self.patches).items():
            picture.save(self._folder / f"{name}.png")
            for logger in trainer.loggers:
                if hasattr(logger, "log_image"):
                    logger.log_image(f"diagnostics/{name}", [picture], step=trainer.global_step)


def pictures(comparison: Comparison, patches: int) -> dict[str, Image.Image]:
    """Pictures of a comparison by name.

    Args:
        comparison: to draw.
        patches: samples shown on the sheet.
    """
    sampled, real = comparison.psnr
    counts = f"{len(sampled):,} sampled and {len(real):,} real patches"
    return {
        "samples": sample_sheet(comparison, patches),
        "spectra": spectra_plot(comparison.spectra, comparison.scale, [f"Radial power spectra: {counts}"]),
        "psnr_bicubic": psnr_plot(real, sampled, [f"What bicubic loses at x{comparison.scale}: {counts}"]),
    }


def _written(trainer: Trainer) -> DistilledSet | None:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((each.written for each in callbacks if isinstance(each, DistilledWriter)), None)
