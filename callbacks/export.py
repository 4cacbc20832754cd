"""WeightsExport: the network alone, for use anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.ema import find_ema
from callbacks.run_folder import run_folder
from lightning_modules.networks import export_weights


class WeightsExport(Callback):
    """Writes `weights.safetensors` at the end of fit: bare keys, averaged weights where EMA is on.

    spandrel loads the file where it knows the architecture; `init_from` and `--model.init_args.init_from` take it too.
    The header names the architecture, its options and the scale. A module with an `export` method writes its own files
    instead, given the run's folder; others without a `network` are left alone.
    """

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file."""
        folder = run_folder(trainer)
        export = getattr(pl_module, "export", _export_network(pl_module))
        if not trainer.is_global_zero or export is None:
            return
        ema = find_ema(trainer)
        with ema.applied(pl_module) if ema else nullcontext():
            export(folder)


def _export_network(module: LightningModule) -> Callable[[Path], None] | None:
    network = getattr(module, "network", None)
    if network is None:
        return None
    header = {key: json.dumps(value) for key, value in module.hparams.items()}
    return lambda folder: export_weights(network, folder / "weights.safetensors", header)
