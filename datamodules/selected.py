"""SelectedPatches: train on a chosen few percent of a folder of photographs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from datamodules.budget import DataBudget
from datamodules.crops import CropDataset
from datamodules.distilled import DistilledPatch
from datamodules.real import RealImages
from datamodules.selection.candidates import Candidates
from datamodules.selection.choose import Budget, Rule, Selection, choose, chosen_features
from datamodules.selection.clustering import PseudoLabels
from datamodules.selection.criteria import Entropy, PSNRBicubic, SharpeningGain
from datamodules.selection.features import Descriptor
from datamodules.selection.interfaces import Criterion, Features, Filter, Labels, Selector, Vectors
from datamodules.selection.selectors import Random
from datamodules.selection.trained_criteria import TrainedCriterion

OF_LR = (PSNRBicubic, SharpeningGain, TrainedCriterion)
"""Criteria that measure what the bicubic reduction has lost."""


def refuse_criterion(option: str, criterion: Criterion, scale: int) -> None:
    """Checks that a criterion measures something where LR is as large as HR.

    Args:
        option: that it was given as, for the error.
        criterion: what was given.
        scale: integer factor between HR and LR.

    Raises:
        ValueError: at scale 1 for criteria of what LR has lost.
    """
    if scale == 1 and isinstance(criterion, OF_LR):
        raise ValueError(
            f"{option} is {type(criterion).__name__}, which measures what LR has lost to bicubic reduction: "
            "nothing at data.scale 1; set one of HR alone, such as Entropy"
        )


class SelectedPatches(RealImages):
    """Patches on a grid over the training photographs, of which a rule keeps a budget.

    Validation photographs are those of `RealImages` with the same root, so that regimes compare. Scores, features and
    the choice are cached beside the decoded photographs.

    Args:
        budget: how many patches to keep: one of `patches`, `ipc` (images per class) and `percent` (of all HR pixels);
            none of them keeps all that the filters leave.
        candidate_size: HR side of the candidates in pixels; null is the patch size. Crops of the patch size are drawn
            from larger candidates.
        candidate_stride: HR pixels from one candidate to the next; null is the size (no overlap).
        criterion: gives each candidate a score; null is the grey PSNR of bicubic, at scale 1 the entropy. The LR that
            criteria see is exact bicubic, whatever the degradation.
        filters: leave out candidates by their score, one filter after the other.
        features: give each candidate a vector, where selector or pseudo-labels need one; null is the descriptor
            without weights.
        pseudo_labels: classes of what the filters left, from k-means (`PseudoLabels`) or the folders that photographs
            lie in (`FolderLabels`); null makes 7 by k-means where selector or budget need some.
        selector: chooses among what the filters left; null is at random.
        select_seed: of clustering and selector; null is the datamodule's seed.
        options: see `RealImages`.

    Raises:
        ValueError: as the parts do, when the candidates are smaller than the training patches, and at scale 1 for
            criteria of what LR has lost.
    """

    def __init__(
        self,
        budget: Budget = Budget(),  # noqa: B008
        candidate_size: int | None = None,
        candidate_stride: int | None = None,
        criterion: Criterion | None = None,
        filters: Sequence[Filter] = (),
        features: Features | None = None,
        # k-means first: options without a class are its
        pseudo_labels: PseudoLabels | Labels | None = None,
        selector: Selector | None = None,
        select_seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if self.sub_image is not None:
            raise ValueError(
                f"data.sub_image is {self.sub_image} but candidates have data.candidate_size; leave sub_image out"
            )
        self.candidate_size = self.patch_size if candidate_size is None else candidate_size
        self.candidate_stride = self.candidate_size if candidate_stride is None else candidate_stride
        if self.candidate_size < self.patch_size:
            raise ValueError(
                f"data.candidate_size is {candidate_size} but training patches have {self.patch_size} pixels; "
                "set data.patch_size to at most the candidate size"
            )
        self._rule = Rule(
            self._criterion(criterion),
            tuple(filters),
            features or Descriptor(),
            pseudo_labels,
            selector or Random(),
            budget,
            self.seed if select_seed is None else select_seed,
        )

    def _criterion(self, given: Criterion | None) -> Criterion:
        if given is not None:
            refuse_criterion("data.criterion", given, self.scale)
            return given
        return PSNRBicubic() if self.scale > 1 else Entropy()

    @cached_property
    def selection(self) -> Selection:
        """What was chosen; computed on first use after `setup`, or read from the cache."""
        images = [image for image, _ in self.training_images]
        candidates = Candidates(self.store, images, self.candidate_size, self.candidate_stride)
        return choose(candidates, self._rule, self.cache, self._device)

    @property
    def feature_extractor(self) -> Features:
        """What gives the candidates their vectors."""
        return self._rule.features

    @property
    def fingerprint(self) -> str:
        """Content hash of the photographs and of the chosen places."""
        return self.selection.fingerprint

    @property
    def data_budget(self) -> DataBudget:
        """Of the chosen patches."""
        return self.selection.budget

    @property
    def preparation(self) -> dict[str, Any]:
        """Rule and cost of the choice."""
        return self.selection.record()

    def prepare_data(self) -> None:
        """Chooses, on one process; the others read the outcome."""
        super().prepare_data()
        validating = self.trainer is not None and self.trainer.validating
        if self.reads_training_data and not validating:
            self.setup("fit")
            _ = self.selection

    def training_patches(self) -> CropDataset:
        """Crops of the chosen patches; with pseudo-labels, and features if asked for, where the rule has classes."""
        selection = self.selection
        windows = selection.candidates.windows(selection.chosen)
        features = self._chosen_features if self.with_features and self._rule.labelled else None
        return CropDataset(self.store, windows, self.patch_size, self.seed, selection.labels, features)

    def distilled_patches(self) -> Iterator[DistilledPatch]:
        """The chosen patches whole, with score and pseudo-label."""
        selection = self.selection
        labels = [None] * len(selection.chosen) if selection.labels is None else selection.labels.tolist()
        scores = selection.scores[selection.chosen].tolist()
        for patch, label, score in zip(super().distilled_patches(), labels, scores, strict=True):
            yield DistilledPatch(patch.hr, patch.lr, {"pseudo_label": label, "score": score, **patch.metadata})

    @cached_property
    def _chosen_features(self) -> Vectors:
        return chosen_features(self.selection, self._rule, self.cache, self._device)
