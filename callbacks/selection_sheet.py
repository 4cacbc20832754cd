"""SelectionSheet: what a selection chose, to look at."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image

from callbacks.run_folder import run_folder
from callbacks.score_histogram import score_histogram
from callbacks.sheets import SheetRow, contact_sheet, in_rows, spread
from datamodules.augmentation.counter_rng import uniform
from datamodules.fingerprint import write_atomic
from datamodules.selection.interfaces import Indices

if TYPE_CHECKING:
    from datamodules.selection.choose import Selection

COLUMNS = 8
MEMBERS = 12
"""Of a class, that are shown."""
CLASSES = 32
"""That are shown."""
QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)


class SelectionSheet(Callback):
    """At the start of `fit` and `predict`, draws what a datamodule with a `selection` chose, in `selection/` and W&B.

    Written are `chosen.png`, `candidates.png` (as many at random, to compare), `scores.png` (where in the distribution
    of the scores the chosen lie), `classes.png` (a row per pseudo-class, where there are some) and `selection.json`.

    Args:
        patches: shown of the chosen and of the candidates; 0 draws and writes nothing.

    Raises:
        ValueError: when it is negative.
    """

    def __init__(self, patches: int = 64) -> None:
        if patches < 0:
            raise ValueError(f"selection_sheet: patches {patches}; expected the number to show, 0 for no pictures")
        self.patches = patches

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds out where to write."""
        self._folder = run_folder(trainer) / "selection"

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws."""
        self._draw(trainer)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws."""
        self._draw(trainer)

    @rank_zero_only
    def _draw(self, trainer: Trainer) -> None:
        data: Any = getattr(trainer, "datamodule", None)
        # Upscaling photographs with a selection's configuration does not make the selection.
        if not self.patches or not getattr(data, "reads_training_data", False):
            return
        selection: Selection | None = getattr(data, "selection", None)
        if selection is None:
            return
        write_atomic(self._folder / "selection.json", json.dumps(report(selection), indent=2) + "\n")
        for name, picture in pictures(selection, self.patches).items():
            picture.save(self._folder / f"{name}.png")
            for logger in trainer.loggers:
                if hasattr(logger, "log_image"):
                    logger.log_image(f"selection/{name}", [picture], step=trainer.global_step)


def report(selection: Selection) -> dict[str, Any]:
    """What was chosen, in plain values for JSON."""
    scores = selection.scores
    groups = {"candidates": scores, "kept": scores[selection.kept], "chosen": scores[selection.chosen]}
    return {
        "rule": selection.rule,
        "criterion": {"label": selection.criterion.label, "complex_when": selection.criterion.complex_when},
        "budget": {"text": selection.budget.describe(), **selection.budget.to_dict()},
        "count": {group: len(values) for group, values in groups.items()},
        "score_quantiles": {
            group: {f"{q:g}": float(value) for q, value in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)}
            for group, values in groups.items()
        },
        "classes": [{"kept": kept, "chosen": chosen} for kept, chosen in _class_counts(selection)],
        "silhouette": _silhouette(selection),
    }


def pictures(selection: Selection, patches: int) -> dict[str, Image.Image]:
    """Pictures of a selection by name; `classes` only where there are pseudo-classes.

    Args:
        selection: to draw.
        patches: at most so many are shown of the chosen and of the candidates, at least 1.
    """
    about = [selection.rule, selection.budget.describe(), f"below each patch: {selection.criterion.label}"]
    chosen = selection.chosen[spread(len(selection.chosen), patches)]
    some = _random(len(selection.scores), len(chosen))
    heading = f"{len(chosen):,} of the {len(selection.chosen):,} chosen patches, from the first chosen to the last"
    others = f"{len(some):,} of the {len(selection.scores):,} candidates, at random"
    drawn = {
        "chosen": contact_sheet(in_rows(*_shown(selection, chosen), COLUMNS), [heading, *about]),
        "candidates": contact_sheet(in_rows(*_shown(selection, some), COLUMNS), [others, *about[2:]]),
        "scores": _histogram(selection),
    }
    if selection.labels is not None:
        drawn["classes"] = _class_sheet(selection, about)
    return drawn


def _histogram(selection: Selection) -> Image.Image:
    scores, criterion = selection.scores, selection.criterion
    label = f"{criterion.label}, complex patches to the {'left' if criterion.complex_when == 'low' else 'right'}"
    title = [selection.rule, selection.budget.describe()]
    return score_histogram(scores, scores[selection.kept], scores[selection.chosen], title, label)


def _class_sheet(selection: Selection, about: list[str]) -> Image.Image:
    counts = _class_counts(selection)
    rows = []
    for label in spread(len(counts), CLASSES):
        members = selection.chosen[selection.labels == label]
        kept, chosen = counts[label]
        text = [
            f"class {label}",
            f"{chosen:,} chosen ({100 * chosen / len(selection.chosen):.0f} %)",
            f"of {kept:,} ({100 * kept / len(selection.kept):.0f} %)",
        ]
        rows.append(SheetRow(*_shown(selection, members[spread(len(members), MEMBERS)]), text))
    silhouette = _silhouette(selection)
    apart = "" if silhouette is None else f", silhouette {silhouette:.2f}"
    return contact_sheet(rows, [f"{len(rows)} of {len(counts)} pseudo-classes{apart}", *about])


def _class_counts(selection: Selection) -> list[tuple[int, int]]:
    """Members among the kept and among the chosen, by class; nothing where there are no classes."""
    if selection.labels is None or selection.class_sizes is None:
        return []
    chosen = np.bincount(selection.labels, minlength=len(selection.class_sizes))
    return list(zip(selection.class_sizes.tolist(), chosen.tolist(), strict=True))


def _silhouette(selection: Selection) -> float | None:
    """None where there are no classes, or it is not defined: NaN is no JSON."""
    silhouette = selection.silhouette
    return None if silhouette is None or math.isnan(silhouette) else silhouette


def _shown(selection: Selection, numbers: Indices) -> tuple[torch.Tensor, list[str]]:
    return selection.candidates.pairs(numbers).hr, [f"{score:#.3g}".rstrip(".") for score in selection.scores[numbers]]


def _random(count: int, wanted: int) -> Indices:
    """Different positions, the same on every machine."""
    draws = uniform(0, "selection sheet", torch.arange(count))[:, 0]
    return draws.argsort(stable=True)[:wanted].numpy()
