"""From candidates to the chosen patches: score, filter, embed, cluster, select; computed once and cached."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.budget import DataBudget
from datamodules.selection.candidates import Candidates
from datamodules.selection.clustering import PseudoLabels
from datamodules.selection.computed import cached_arrays, embed, features_path, score, scores_path, seconds_spent
from datamodules.selection.interfaces import (
    Criterion,
    Features,
    Filter,
    Floats,
    Indices,
    Part,
    Pool,
    Selector,
    Vectors,
)
from datamodules.selection.selectors.clustered import select_per_class

FORMAT = 1
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Budget:
    """How many patches to keep; exactly one is set, or none to keep all that the filters leave.

    Attributes:
        patches: their number.
        ipc: images per class: so many of each pseudo-class.
        percent: of the HR pixels of all training photographs, above 0.

    Raises:
        ValueError: when two are set, or one is out of range.
    """

    patches: int | None = None
    ipc: int | None = None
    percent: float | None = None

    def __post_init__(self) -> None:
        given = {key: value for key, value in asdict(self).items() if value is not None}
        if len(given) > 1:
            raise ValueError(f"data.budget has {' and '.join(given)}; set one of them and the others to null")
        for key, value in given.items():
            if value <= 0 or (key == "percent" and value > 100):
                limit = " and up to 100" if key == "percent" else ""
                raise ValueError(f"data.budget.{key} is {value}; expected a number above 0{limit}")

    def count(self, candidates: Candidates, left: int, classes: int) -> int:
        """The number of patches.

        Args:
            candidates: all of them.
            left: how many the filters left.
            classes: number of pseudo-classes.

        Raises:
            ValueError: when that is more than are left.
        """
        wanted = left
        if self.patches is not None:
            wanted = self.patches
        elif self.ipc is not None:
            wanted = self.ipc * classes
        elif self.percent is not None:
            wanted = max(1, round(self.percent / 100 * candidates.full_pixels / candidates.size**2))
        if wanted > left:
            raise ValueError(
                f"data.budget asks for {wanted} patches but there are {left} (of {len(candidates)} candidates); "
                "lower the budget, loosen data.filters, or set a smaller data.candidate_stride"
            )
        return wanted


@dataclass(frozen=True)
class Rule:
    """Everything that decides a choice.

    Attributes:
        criterion: gives the scores.
        filters: applied one after the other to what the one before left.
        features: read only where labels or the selector need them.
        pseudo_labels: None computes labels only where selector or budget need them, with the defaults.
        selector: chooses among what the filters left.
        budget: how many.
        seed: of clustering and of the selector.
    """

    criterion: Criterion
    filters: Sequence[Filter]
    features: Features
    pseudo_labels: PseudoLabels | None
    selector: Selector
    budget: Budget
    seed: int

    @property
    def labelled(self) -> bool:
        """Whether pseudo-labels are computed."""
        return self.pseudo_labels is not None or self.selector.needs_labels or self.budget.ipc is not None

    def describe(self) -> str:
        """One line for people."""
        filters = "".join(f"{_written(part)} -> " for part in self.filters)
        classes = f" in {(self.pseudo_labels or PseudoLabels()).classes} classes" if self.labelled else ""
        return f"{_written(self.criterion)} -> {filters}{_written(self.selector)}{classes}"

    def identity(self) -> dict[str, Any]:
        """Plain values that the cached outcome is keyed by."""
        used = self.labelled or self.selector.needs_features
        return {
            "criterion": self.criterion.identity(),
            "filters": [part.identity() for part in self.filters],
            "features": self.features.identity() if used else None,
            "pseudo_labels": (self.pseudo_labels or PseudoLabels()).identity() if self.labelled else None,
            "selector": self.selector.identity(),
            "budget": asdict(self.budget),
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Selection:
    """What was chosen, and from what.

    Attributes:
        candidates: all patches on the grid, N of them.
        criterion: that gave the scores.
        scores: float64 (N,).
        kept: candidate numbers that the filters left, int64, ascending.
        chosen: candidate numbers, int64, in the order chosen.
        labels: pseudo-label of each of the chosen, int64; None when there are no classes.
        class_sizes: members of each class among `kept`; None likewise.
        silhouette: of the classes, -1 to 1; None likewise.
        rule: one line for people.
        budget: how much data the chosen are.
        seconds: that scoring, features, clustering and selecting took when they were computed.
    """

    candidates: Candidates
    criterion: Criterion
    scores: Floats
    kept: Indices
    chosen: Indices
    labels: Indices | None
    class_sizes: Indices | None
    silhouette: float | None
    rule: str
    budget: DataBudget
    seconds: float

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the photographs' content and of the chosen places."""
        return hashlib.sha256(self.candidates.fingerprint.encode() + self.chosen.tobytes()).hexdigest()

    def record(self) -> dict[str, Any]:
        """What the choice is and what it cost, for provenance; `scorer` is what a criterion's network cost before."""
        scorer = self.criterion.cost()
        return {"rule": self.rule, "seconds": round(self.seconds, 3)} | ({"scorer": scorer} if scorer else {})


def choose(candidates: Candidates, rule: Rule, cache: Path, device: torch.device = CPU) -> Selection:
    """Applies a rule, or reads its outcome from the cache.

    Scores, features and the choice are cached one by one: another selector on the same features costs no second pass.

    Args:
        candidates: to choose from.
        rule: what decides.
        cache: folder; deleting it is always safe.
        device: to score and embed on.

    Raises:
        OSError: when the cache cannot be written.
        ValueError: when filters leave nothing, budget or classes ask for more than there is, or the cache is damaged.
    """
    scores = score(rule.criterion, candidates, cache, device)
    kept = _filtered(scores, rule.filters)
    content = [FORMAT, candidates.fingerprint, candidates.store.folder.name, rule.identity()]
    path = cache / "selections" / f"{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]}.npz"
    outcome = cached_arrays(path, lambda: _choose(candidates, rule, scores, kept, cache, device))
    return _selection(candidates, rule, scores, kept, outcome)


def chosen_features(selection: Selection, features: Features, cache: Path, device: torch.device = CPU) -> Vectors:
    """Vectors of the chosen, from the cache that `choose` filled; computed again when they were deleted from it.

    Args:
        selection: what `choose` returned.
        features: those of its rule.
        cache: folder given to `choose`.
        device: to embed on.

    Returns:
        float32 (chosen, D), in the order chosen.

    Raises:
        OSError: when the cache cannot be written.
        ValueError: when the cache is damaged.
    """
    vectors = embed(features, selection.candidates, selection.kept, cache, device)
    return vectors[np.searchsorted(selection.kept, selection.chosen)]


def _filtered(scores: Floats, filters: Sequence[Filter]) -> Indices:
    kept = np.arange(len(scores))
    for part in filters:
        kept = kept[part.keep(scores[kept])]
    return kept


def _choose(
    candidates: Candidates, rule: Rule, scores: Floats, kept: Indices, cache: Path, device: torch.device
) -> dict[str, Any]:
    outcome: dict[str, Any] = {}
    seconds = seconds_spent(scores_path(rule.criterion, candidates, cache))
    classes = (rule.pseudo_labels or PseudoLabels()).classes
    count = rule.budget.count(candidates, len(kept), classes)
    features, labels = None, None
    if rule.labelled or rule.selector.needs_features:
        features = embed(rule.features, candidates, kept, cache, device)
        seconds += seconds_spent(features_path(rule.features, candidates, kept, cache))
    start = time.perf_counter()
    if rule.labelled and features is not None:
        clusters = (rule.pseudo_labels or PseudoLabels()).fit(features, rule.seed)
        labels = clusters.labels
        outcome = {"class_sizes": clusters.sizes, "silhouette": np.float64(clusters.silhouette)}
    pool = Pool(scores[kept], features, labels, kept)
    if rule.budget.ipc is not None:
        chosen = select_per_class(rule.selector, pool, rule.budget.ipc, rule.seed)
    elif rule.budget == Budget():
        chosen = np.arange(count)
    else:
        chosen = rule.selector.select(pool, count, rule.seed)
    if labels is not None:
        outcome["labels"] = labels[chosen]
    seconds += time.perf_counter() - start
    size = candidates.png_bytes(kept[chosen])
    return {**outcome, "chosen": kept[chosen], "bytes": np.int64(size), "seconds": np.float64(seconds)}


def _selection(candidates: Candidates, rule: Rule, scores: Floats, kept: Indices, outcome: dict[str, Any]) -> Selection:
    count = len(outcome["chosen"])
    pixels = count * candidates.size**2
    budget = DataBudget(count, pixels, int(outcome["bytes"]), 100 * pixels / candidates.full_pixels)
    silhouette = outcome.get("silhouette")
    return Selection(
        candidates,
        rule.criterion,
        scores,
        kept,
        outcome["chosen"],
        outcome.get("labels"),
        outcome.get("class_sizes"),
        None if silhouette is None else float(silhouette),
        rule.describe(),
        budget,
        float(outcome["seconds"]),
    )


def _written(part: Part) -> str:
    settings = {key: value for key, value in vars(part).items() if not key.startswith("_") and value is not None}
    words = (f"{key}={_written(value) if isinstance(value, Part) else value}" for key, value in settings.items())
    return f"{type(part).__name__}({', '.join(words)})"
