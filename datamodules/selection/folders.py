"""FolderLabels: classes that whoever sorted the photographs into folders has named."""

from __future__ import annotations

import numpy as np

from datamodules.selection.candidates import Candidates
from datamodules.selection.interfaces import Classes, Indices, Labels, Vectors

OTHERWISE = "or set data.pseudo_labels to {classes: 7} for k-means"


class FolderLabels(Labels):
    """The first folder of a photograph's path below `data.root`, as in OutdoorScene: animal/, building/, ...

    Classes have the order of the folders' names (that of code points, the same on every machine), among the training
    photographs that candidates are cut from. Where filters leave nothing of a class, it stays, without members.
    """

    needs_features = False

    def describe(self) -> str:
        """See `Labels.describe`."""
        return "classes by folder"

    def count(self, candidates: Candidates) -> int:
        """See `Labels.count`; errors as for `names`."""
        return len(self.names(candidates))

    def names(self, candidates: Candidates) -> tuple[str, ...]:
        """The folders' names.

        Raises:
            ValueError: when photographs lie directly in `data.root`, or all in one folder.
        """
        photographs = [candidates.store.index.names[image] for image in np.unique(candidates.places[:, 0])]
        _refuse_loose(photographs)
        folders = sorted({_folder(name) for name in photographs})
        if len(folders) == 1:
            raise ValueError(
                "data.pseudo_labels FolderLabels makes a class of every folder in data.root, but all "
                f"{len(photographs)} training photographs lie in {folders[0]}; name that folder as data.root if the "
                f"classes are in it, {OTHERWISE}"
            )
        return tuple(folders)

    def assign(self, candidates: Candidates, kept: Indices, features: Vectors | None, seed: int) -> Classes:
        """See `Labels.assign`; errors as for `names`."""
        numbers = {name: number for number, name in enumerate(self.names(candidates))}
        photographs, of_photograph = np.unique(candidates.places[kept, 0], return_inverse=True)
        classes = [numbers[_folder(candidates.store.index.names[image])] for image in photographs]
        labels = np.array(classes, dtype=np.int64)[of_photograph]
        return Classes(labels, np.bincount(labels, minlength=len(numbers)))


def _folder(name: str) -> str:
    return name.partition("/")[0]


def _refuse_loose(photographs: list[str]) -> None:
    loose = [name for name in photographs if "/" not in name]
    if loose:
        raise ValueError(
            f"data.pseudo_labels FolderLabels makes a class of every folder in data.root, but {len(loose)} of the "
            f"{len(photographs)} training photographs lie in none, such as {loose[0]}; move them into folders, "
            f"{OTHERWISE}"
        )
