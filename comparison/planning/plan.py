"""The plan of a comparison: which regimes, budgets, networks, recipes and seeds, as a typed YAML file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[2]
"""Of the framework: configurations that the plan names are looked up in the working folder, then here."""

CONFIGS = ROOT / "configs"
REGIMES = CONFIGS / "compare" / "regimes"
NETWORKS = CONFIGS / "sr" / "network"


@dataclass
class Overrides:
    """Settings on top of others: files in order, then single keys.

    Attributes:
        configs: YAML files, as for `--config`.
        set: values by dotted key, as for `--KEY VALUE`, such as `trainer.max_steps: 1000`.
    """

    configs: list[str] = field(default_factory=list)
    set: dict[str, Any] = field(default_factory=dict)


@dataclass
class DistillationStage(Overrides):
    """One step of the way from photographs to a distilled set.

    Values may hold `{budget}` (percent), `{network}`, `{recipe}`, `{seed}` and `{NAME}`: what the stage of that name
    has written, the run folder of a fit or the distilled set of a predict. A stage runs once for all trainings that
    agree in what it mentions.

    Attributes:
        name: of the stage in its regime.
        command: `fit` learns something, `predict` writes a distilled set.
    """

    name: str = "select"
    command: Literal["fit", "predict"] = "predict"


@dataclass
class Regime:
    """How training data are made, and what is special in training on them.

    Attributes:
        title: a few words for the report.
        extends: name of another regime, of the plan or of configs/compare/regimes, whose chain this one takes.
        distill: stages before the SR training, in order; the last one writes the distilled set that is trained on.
            Without any, training is on the photographs.
        train: settings of the SR training that belong to the regime; never what the recipes set.
        set: values by stage name and dotted key on top of the chain's, for variants (`train` is the SR training).
    """

    title: str = ""
    extends: str | None = None
    distill: list[DistillationStage] = field(default_factory=list)
    train: Overrides = field(default_factory=Overrides)
    set: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Recipe(Overrides):
    """How all regimes are trained.

    Attributes:
        budgets: the only ones that it is used at; None is all of the plan's.
    """

    budgets: list[float] | None = None


@dataclass
class Teacher:
    """The trained network that relabels targets.

    Attributes:
        regime: that trains it.
        network: None is the network of each training itself.
        recipe: None is the recipe of each training itself.
        seed: of its training.
        weight: its share in the new targets, above 0 and up to 1.
        budgets: the only ones at which it relabels; None is all of the plan's.
    """

    regime: str = "full"
    network: str | None = None
    recipe: str | None = None
    seed: int = 0
    weight: float = 0.5
    budgets: list[float] | None = None


@dataclass
class Plan:
    """A comparison: every regime x budget x network x recipe x seed is trained and tested alike.

    Attributes:
        name: of the comparison: folder of its results, W&B's group.
        title: heading of the report.
        regimes: by name; `{}` stands for the regime of that name in configs/compare/regimes.
        budgets: percent of the full set's pixels, above 0 and below 100.
        networks: names in configs/sr/network, or YAML files.
        recipes: how all regimes are trained (updates, optimiser, batch, augmentation ...), by name.
        seeds: of data, initial weights, crops and augmentations.
        relabelling: whether distilled sets are trained on as they are (false), with targets mixed with a teacher's
            (true), or both; the two are never ranked together.
        teacher: who relabels.
        configs: files for every stage: data, trainer.
        set: values for every stage.
        reference: regime that gaps are counted from; empty where the plan has no full data.
        baseline: regime that gains are counted from; empty where the plan has no such regime.
        crops: test images that the report shows crops of.
    """

    name: str
    regimes: dict[str, Regime]
    title: str = ""
    budgets: list[float] = field(default_factory=list)
    networks: list[str] = field(default_factory=lambda: ["edsr_tiny"])
    recipes: dict[str, Recipe] = field(
        default_factory=lambda: {"default": Recipe(set={"data.init_args.augmentation": "strong"})}
    )
    seeds: list[int] = field(default_factory=lambda: [0])
    relabelling: list[bool] = field(default_factory=lambda: [False])
    teacher: Teacher = field(default_factory=Teacher)
    configs: list[str] = field(default_factory=list)
    set: dict[str, Any] = field(default_factory=dict)
    reference: str = "full"
    baseline: str = "random"
    crops: int = 4


def find_config(given: str, folder: Path = ROOT) -> Path | None:
    """A YAML file by name in a folder of the framework, or by path; None where there is none."""
    candidates = [folder / f"{given}.yaml", Path(given).expanduser(), ROOT / given]
    return next((path for path in candidates if path.is_file()), None)


def network_name(given: str) -> str:
    """The name that a network has in tables: of its file, without suffix."""
    return Path(given).stem
