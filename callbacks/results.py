"""Results: the figures of a validation or test, as a table on the screen and as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console, Group
from rich.table import Table

from callbacks.run_folder import run_folder
from datamodules.budget import DataBudget
from datamodules.fingerprint import write_atomic
from lightning_modules.networks.trained import training_record

if TYPE_CHECKING:
    from lightning_modules.metrics import SRMetrics

LABELS = {
    "psnr_y": ("PSNR-Y [dB]", 2),
    "ssim_y": ("SSIM-Y", 4),
    "psnr_rgb": ("PSNR-RGB [dB]", 2),
    "ssim_rgb": ("SSIM-RGB", 4),
    "lpips": ("LPIPS (lower is better)", 4),
    "dists": ("DISTS (lower is better)", 4),
}
"""Heading and decimals of each metric."""


class Results(Callback):
    """After `validate` and `test`: a table against bicubic, `results.json` (means) and `per_image.csv`.

    Where images are restored (scale 1), the table is against the degraded input.

    Where the weights' run folder says what they were trained on, table and JSON (`trained_on`) say it too.
    Works with any module that has `validation_metrics` and `test_metrics` of type SRMetrics.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds out where to write."""
        self._folder = run_folder(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finds out what the weights were trained on: a damaged record ends the command before hours of measuring."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self.on_test_start(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finds out what the weights were trained on."""
        self._budget = trained_on(trainer.ckpt_path or getattr(pl_module, "init_from", None))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reports the `validate` command (validation during fit is logged only)."""
        metrics: SRMetrics | None = getattr(pl_module, "validation_metrics", None)
        if metrics is not None and trainer.state.fn == TrainerFn.VALIDATING:
            self._report(trainer, metrics, "validation")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reports the `test` command."""
        metrics: SRMetrics | None = getattr(pl_module, "test_metrics", None)
        if metrics is not None:
            self._report(trainer, metrics, "test")

    def _report(self, trainer: Trainer, metrics: SRMetrics, title: str) -> None:
        means = metrics.compute()
        if not trainer.is_global_zero or not means:
            return
        rows = metrics.rows()
        sets = {name: {"images": sum(row["set"] == name for row in rows), **values} for name, values in means.items()}
        protocol = str(rows[0]["protocol"])
        budget = self._budget
        results = {"protocol": protocol, "sets": sets} | ({"trained_on": budget.to_dict()} if budget else {})
        write_atomic(self._folder / "results.json", json.dumps(results, indent=2) + "\n")
        metrics.write_csv(self._folder / "per_image.csv")
        console = Console()
        caption = f"{protocol}\ntrained on: {budget.describe()}" if budget else protocol
        console.print(results_tables(sets, title, caption))
        console.print(f"per image, pictures and provenance: {self._folder}", highlight=False, soft_wrap=True)


def trained_on(weights: str | Path | None) -> DataBudget | None:
    """What weights were trained on, by the run folder they lie in; None where none tells.

    Raises:
        ValueError: when a record in the run folder is damaged.
    """
    budget = None if weights is None else training_record(Path(weights).expanduser()).get("data_budget")
    return None if budget is None else DataBudget(**budget)


def results_tables(sets: dict[str, dict[str, float]], title: str, caption: str) -> Group:
    """A row per set; for each metric bicubic, SR and the difference (at scale 1 input, restored image and difference).

    Args:
        sets: means by metric name, with the number of images under `images`; all at one scale.
        title: above the table.
        caption: below the table.

    Returns:
        One table; where Y and RGB were both measured, one for each, since together they do not fit a terminal.
    """
    measured = [name for name in LABELS if any(name in values for values in sets.values())]
    rgb = [name for name in measured if name.endswith("_rgb")]
    others = [name for name in measured if name not in rgb]
    *first, last = (metrics for metrics in (others, rgb) if metrics)
    return Group(*(_table(sets, metrics, title, None) for metrics in first), _table(sets, last, title, caption))


def _table(sets: dict[str, dict[str, float]], metrics: Sequence[str], title: str, caption: str | None) -> Table:
    enlarged = any(f"{metrics[0]}_bicubic" in values for values in sets.values())
    # Sets of one task each differ in the end of their names, such as Set14-GaussianNoise: these need the space.
    table = Table(
        title=title, caption=caption, title_justify="left", caption_justify="left", padding=(0, 1 if enlarged else 0)
    )
    table.add_column("set", overflow="fold")
    table.add_column("images", justify="right")
    baseline, result = ("bicubic", "SR") if enlarged else ("input", "restored")
    for metric in metrics:
        for column in (f"{LABELS[metric][0]}\n{baseline}", f"\n{result}", "\ngain"):
            table.add_column(column, justify="right")
    for name, values in sets.items():
        cells = [cell for metric in metrics for cell in _cells(values, metric, baseline)]
        table.add_row(name, str(int(values["images"])), *cells)
    return table


def _cells(values: dict[str, float], metric: str, baseline: str) -> tuple[str, str, str]:
    digits = LABELS[metric][1]
    before, sr = values[f"{metric}_{baseline}"], values[metric]
    return f"{before:.{digits}f}", f"{sr:.{digits}f}", f"{sr - before:+.{digits}f}"
