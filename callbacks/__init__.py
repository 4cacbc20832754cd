"""What happens around training: averaging, pictures, cost, provenance, checkpoints and reports."""

from callbacks.checkpoints import CheckpointSettings, LastCheckpoint, checkpoint_callbacks
from callbacks.cost import CostTracker
from callbacks.curriculum import Curriculum
from callbacks.distilled_writer import DistilledWriter
from callbacks.ema import EMA
from callbacks.export import WeightsExport
from callbacks.image_grid import ImageGrid
from callbacks.nan_guard import NaNGuard, TrainingDivergedError
from callbacks.prediction_writer import PredictionWriter
from callbacks.provenance import Provenance
from callbacks.results import Results
from callbacks.rng_state import RNGState
from callbacks.sample_grid import SampleGrid
from callbacks.sample_report import SampleReport
from callbacks.selection_sheet import SelectionSheet

__all__ = [
    "EMA",
    "CheckpointSettings",
    "CostTracker",
    "Curriculum",
    "DistilledWriter",
    "ImageGrid",
    "LastCheckpoint",
    "NaNGuard",
    "PredictionWriter",
    "Provenance",
    "RNGState",
    "Results",
    "SampleGrid",
    "SampleReport",
    "SelectionSheet",
    "TrainingDivergedError",
    "WeightsExport",
    "checkpoint_callbacks",
]
