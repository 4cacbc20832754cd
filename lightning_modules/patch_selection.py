"""PatchSelection: the patches that a datamodule trains on, written down as a distilled set."""

from __future__ import annotations

from typing import ClassVar

from datamodules.distilled import DistilledPatch
from lightning_modules.distiller import Distiller


class PatchSelection(Distiller):
    """Distills by choosing: `SelectedPatches` has the rule, and this hands on its choice.

    Each patch comes with the LR that lies in register with it in the photograph's LR, as training on the photographs
    sees it; the bicubic reduction of the patch alone would differ along its border.
    """

    method: ClassVar[str] = "selection"

    def predict_step(self, batch: list[DistilledPatch], batch_idx: int) -> list[DistilledPatch]:
        """The patches as they are."""
        return batch
