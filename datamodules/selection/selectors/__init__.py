"""Selectors: which of the candidates are chosen; see `datamodules.selection.interfaces.Selector`."""

from __future__ import annotations

from datamodules.selection.selectors.by_score import Highest, Lowest, Random, Stratified
from datamodules.selection.selectors.clustered import ClusterBalanced
from datamodules.selection.selectors.deduplicated import Deduplicated
from datamodules.selection.selectors.greedy import Herding, KCentre
from datamodules.selection.selectors.matching import DistributionMatching

__all__ = [
    "ClusterBalanced",
    "Deduplicated",
    "DistributionMatching",
    "Herding",
    "Highest",
    "KCentre",
    "Lowest",
    "Random",
    "Stratified",
]
