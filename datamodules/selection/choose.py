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
    Classes,
    Criterion,
    Features,
    Filter,
    Floats,
    Indices,
    Labels,
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
        ipc: images per class: so many of each class.
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
            raise ValueError(f"budget has {' and '.join(given)}; set one of them and the others to null")
        for key, value in given.items():
            if value <= 0 or (key == "percent" and value > 100):
                limit = " and up to 100" if key == "percent" else ""
                raise ValueError(f"budget.{key} is {value}; expected a number above 0{limit}")

    def count(self, candidates: Candidates, left: int, classes: int) -> int:
        """The number of patches.

        Args:
            candidates: all of them.
            left: how many the filters left.
            classes: how many; 0 where there are none.

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
        pseudo_labels: gives the classes; None is k-means with its defaults, where selector or budget need classes.
        selector: chooses among what the filters left.
        budget: how many.
        seed: of clustering and of the selector.
    """

    criterion: Criterion
    filters: Sequence[Filter]
    features: Features
    pseudo_labels: Labels | None
    selector: Selector
    budget: Budget
    seed: int

    @property
    def labels(self) -> Labels | None:
        """What gives the classes; None where nothing asks for any."""
        asked = self.pseudo_labels is not None or self.selector.needs_labels or self.budget.ipc is not None
        return (self.pseudo_labels or PseudoLabels()) if asked else None

    @property
    def labelled(self) -> bool:
        """Whether there are classes."""
        return self.labels is not None

    @property
    def needs_features(self) -> bool:
        """Whether the choice depends on features."""
        return self.selector.needs_features or (self.labels is not None and self.labels.needs_features)

    def describe(self) -> str:
        """One line for people."""
        filters = "".join(f"{_written(part)} -> " for part in self.filters)
        classes = "" if self.labels is None else f" in {self.labels.describe()}"
        return f"{_written(self.criterion)} -> {filters}{_written(self.selector)}{classes}"

    def identity(self) -> dict[str, Any]:
        """Plain values that the cached outcome is keyed by."""
        return {
            "criterion": self.criterion.identity(),
            "filters": [part.identity() for part in self.filters],
            "features": self.features.identity() if self.needs_features else None,
            "pseudo_labels": None if self.labels is None else self.labels.identity(),
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
        labels: class of each of the chosen, int64; None when there are no classes.
        class_sizes: members of each class among `kept`; None likewise.
        silhouette: of the classes, -1 to 1; None likewise, and where features do not decide them.
        rule: one line for people.
        budget: how much data the chosen are.
        seconds: that scoring, features, clustering and selecting took when they were computed.
        class_names: what the classes are called, in their order; None where nobody has named them.
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
    class_names: tuple[str, ...] | None = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the photographs' content and of the chosen places."""
        return hashlib.sha256(self.candidates.fingerprint.encode() + self.chosen.tobytes()).hexdigest()

    def record(self) -> dict[str, Any]:
        """What the choice is and what it cost, for provenance.

        `scorer` is what a criterion's network cost before, and `classes` are the names of the classes, in their order;
        each only where there is such a thing.
        """
        known = {"scorer": self.criterion.cost(), "classes": list(self.class_names or ())}
        there = {key: value for key, value in known.items() if value}
        return {"rule": self.rule, "seconds": round(self.seconds, 3), **there}


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
    names = None if rule.labels is None else rule.labels.names(candidates)  # its errors before hours of scoring
    scores = score(rule.criterion, candidates, cache, device)
    kept = _filtered(scores, rule.filters)
    content = [FORMAT, candidates.fingerprint, candidates.store.folder.name, rule.identity()]
    path = cache / "selections" / f"{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]}.npz"
    outcome = cached_arrays(path, lambda: _choose(candidates, rule, scores, kept, cache, device))
    return _selection(candidates, rule, scores, kept, names, outcome)


def chosen_features(selection: Selection, rule: Rule, cache: Path, device: torch.device = CPU) -> Vectors:
    """Vectors of the chosen, from the cache; computed where they are not there.

    Where the choice depends on features, `choose` has left there those of all that the filters left.

    Args:
        selection: what `choose` returned.
        rule: given to `choose`.
        cache: likewise.
        device: to embed on.

    Returns:
        float32 (chosen, D), in the order chosen.

    Raises:
        OSError: when the cache cannot be written.
        ValueError: when the cache is damaged.
    """
    embedded = selection.kept if rule.needs_features else np.sort(selection.chosen)
    vectors = embed(rule.features, selection.candidates, embedded, cache, device)
    return vectors[np.searchsorted(embedded, selection.chosen)]


def _filtered(scores: Floats, filters: Sequence[Filter]) -> Indices:
    kept = np.arange(len(scores))
    for part in filters:
        kept = kept[part.keep(scores[kept])]
    return kept


def _choose(
    candidates: Candidates, rule: Rule, scores: Floats, kept: Indices, cache: Path, device: torch.device
) -> dict[str, Any]:
    labels = rule.labels
    seconds = seconds_spent(scores_path(rule.criterion, candidates, cache))
    count = rule.budget.count(candidates, len(kept), 0 if labels is None else labels.count(candidates))
    features = None
    if rule.needs_features:
        features = embed(rule.features, candidates, kept, cache, device)
        seconds += seconds_spent(features_path(rule.features, candidates, kept, cache))
    start = time.perf_counter()
    classes = None if labels is None else labels.assign(candidates, kept, features, rule.seed)
    pool = Pool(scores[kept], features, None if classes is None else classes.labels, kept)
    if rule.budget.ipc is not None:
        names = None if labels is None else labels.names(candidates)
        chosen = select_per_class(rule.selector, pool, rule.budget.ipc, rule.seed, names)
    elif rule.budget == Budget():
        chosen = np.arange(count)
    else:
        chosen = rule.selector.select(pool, count, rule.seed)
    outcome = {} if classes is None else _of_classes(classes, chosen)
    seconds += time.perf_counter() - start
    size = candidates.png_bytes(kept[chosen])
    return {**outcome, "chosen": kept[chosen], "bytes": np.int64(size), "seconds": np.float64(seconds)}


def _of_classes(classes: Classes, chosen: Indices) -> dict[str, Any]:
    silhouette = {} if classes.silhouette is None else {"silhouette": np.float64(classes.silhouette)}
    return {"labels": classes.labels[chosen], "class_sizes": classes.sizes, **silhouette}


def _selection(
    candidates: Candidates,
    rule: Rule,
    scores: Floats,
    kept: Indices,
    names: tuple[str, ...] | None,
    outcome: dict[str, Any],
) -> Selection:
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
        names,
    )


def _written(part: Part) -> str:
    settings = {key: value for key, value in vars(part).items() if not key.startswith("_") and value is not None}
    words = (f"{key}={_written(value) if isinstance(value, Part) else value}" for key, value in settings.items())
    return f"{type(part).__name__}({', '.join(words)})"
