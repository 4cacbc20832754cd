"""What is learned from: photographs, patches and benchmark sets as LightningDataModules."""

from datamodules.base import SRDataModule
from datamodules.benchmarks import BenchmarkImages, Benchmarks
from datamodules.pair import PairBatch
from datamodules.real import RealImages
from datamodules.selected import SelectedPatches
from datamodules.synthetic import SyntheticPatches

__all__ = [
    "BenchmarkImages",
    "Benchmarks",
    "PairBatch",
    "RealImages",
    "SRDataModule",
    "SelectedPatches",
    "SyntheticPatches",
]
