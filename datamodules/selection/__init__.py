"""Which patches to learn from: criteria, filters, features, labels and selectors; see `interfaces`."""

from __future__ import annotations

from datamodules.selection.choose import Budget, Rule, Selection, choose
from datamodules.selection.clustering import PseudoLabels
from datamodules.selection.criteria import (
    Entropy,
    GradientEntropy,
    GreyEntropy,
    HighFrequencyEnergy,
    PSNRBicubic,
    SharpeningGain,
    SobelMagnitude,
)
from datamodules.selection.features import Descriptor, OpenCLIP, TimmBackbone
from datamodules.selection.filters import Band, Threshold
from datamodules.selection.folders import FolderLabels
from datamodules.selection.keep import Keep, pool_of
from datamodules.selection.selectors import (
    ClusterBalanced,
    Deduplicated,
    DistributionMatching,
    Herding,
    Highest,
    KCentre,
    Lowest,
    Random,
    Stratified,
)
from datamodules.selection.trained_criteria import LearnedComplexity, SRGain, SRLoss

__all__ = [
    "Band",
    "Budget",
    "ClusterBalanced",
    "Deduplicated",
    "Descriptor",
    "DistributionMatching",
    "Entropy",
    "FolderLabels",
    "GradientEntropy",
    "GreyEntropy",
    "Herding",
    "HighFrequencyEnergy",
    "Highest",
    "KCentre",
    "Keep",
    "LearnedComplexity",
    "Lowest",
    "OpenCLIP",
    "PSNRBicubic",
    "PseudoLabels",
    "Random",
    "Rule",
    "SRGain",
    "SRLoss",
    "Selection",
    "SharpeningGain",
    "SobelMagnitude",
    "Stratified",
    "Threshold",
    "TimmBackbone",
    "choose",
    "pool_of",
]
