"""WeightsExport: the network alone, for use anywhere."""

from __future__ import annotations

import json
from contextlib import nullcontext

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.ema import find_ema
from callbacks.run_folder import run_folder
from lightning_modules.networks import export_weights


class WeightsExport(Callback):
    """Writes `weights.safetensors` at the end of fit: bare keys, averaged weights where EMA is on.

    spandrel loads the file where it knows the architecture; `init_from` and `--model.init_args.init_from` take it too.
    The header names the architecture, its options and the scale. Modules without a `network` are left alone.
    """

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file."""
        folder = run_folder(trainer)
        if not trainer.is_global_zero or getattr(pl_module, "network", None) is None:
            return
        ema = find_ema(trainer)
        header = {key: json.dumps(value) for key, value in pl_module.hparams.items()}
        with ema.applied(pl_module) if ema else nullcontext():
            export_weights(pl_module.network, folder / "weights.safetensors", header)  # type: ignore[arg-type]
