"""PredictionWriter: upscaled images as PNG, with a metadata.jsonl beside them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from PIL import Image
from torch import Tensor

from callbacks.run_folder import run_folder
from datamodules.bicubic import upscale as bicubic_upscale
from datamodules.evaluation import ImagesToUpscale, UpscaleInput
from datamodules.fingerprint import write_atomic
from datamodules.image_files import UnreadableImage
from datamodules.pair import to_uint8


class PredictionWriter(Callback):
    """Writes each upscaled image as soon as it is there, below `predictions/` of the run folder.

    Subfolders are kept; `a/b.jpg` becomes `a/b.png`, or `a/b.jpg.png` where another file would become `a/b.png` too.
    Alpha is enlarged by bicubic. `metadata.jsonl` has a line per image: file_name, source, width, height, scale.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds out where to write."""
        self._folder = run_folder(trainer) / "predictions"
        self._lines: list[dict[str, Any]] = []
        self._skipped: list[str] = []
        self._names: dict[str, str] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Names the files to come."""
        images = getattr(trainer.predict_dataloaders, "dataset", None)
        if isinstance(images, ImagesToUpscale):
            self._names = output_names([path.relative_to(images.root).as_posix() for path in images.paths])

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Writes one image."""
        if isinstance(batch, UnreadableImage):
            self._skipped.append(str(batch))
        if not isinstance(batch, UpscaleInput):
            return
        name = self._names.get(batch.name, f"{batch.name}.png")
        save_png(outputs, batch.alpha, self._folder / name)
        height, width = outputs.shape[-2:]
        scale = width // batch.lr.shape[-1]
        line = {"file_name": name, "source": batch.name, "width": width, "height": height, "scale": scale}
        self._lines.append(line)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the metadata of all processes' images, and names the files that could not be read."""
        lines, skipped = _gathered(self._lines), sorted(set(_gathered(self._skipped)))
        if skipped:
            rank_zero_warn(f"left out, {len(skipped)} files that cannot be read:\n" + "\n".join(skipped))
        if trainer.is_global_zero and lines:
            ordered = sorted({line["file_name"]: line for line in lines}.values(), key=lambda line: line["file_name"])
            write_atomic(self._folder / "metadata.jsonl", "".join(json.dumps(line) + "\n" for line in ordered))


def output_names(names: Sequence[str]) -> dict[str, str]:
    """The PNG file of each input, no two the same.

    Args:
        names: of the inputs, relative paths, all different.
    """
    short = {name: PurePosixPath(name).with_suffix(".png").as_posix() for name in names}
    sharing = Counter(short.values())
    chosen = {name: path if sharing[path] == 1 else f"{name}.png" for name, path in short.items()}
    if len(set(chosen.values())) < len(chosen):  # a.png and a.jpg beside a.jpg.webp
        return {name: f"{name}.png" for name in names}
    return chosen


def save_png(sr: Tensor, alpha: Tensor | None, path: Path) -> None:
    """Writes (1, 3, H, W) in [0, 1], with alpha (1, 1, h, w) enlarged to it, under a temporary name first."""
    bands = [sr.cpu()]
    if alpha is not None:
        scale = sr.shape[-1] // alpha.shape[-1]
        bands.append(bicubic_upscale(alpha.float().cpu(), scale).clamp(0, 1))
    levels = to_uint8(torch.cat(bands, 1)[0]).permute(1, 2, 0).contiguous().numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        Image.fromarray(levels).save(temporary, format="PNG")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _gathered(lines: list[Any]) -> list[Any]:
    if not (dist.is_available() and dist.is_initialized()):
        return lines
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, lines)
    return [line for one in everyone for line in one]
