"""What is wrong with the stages of a plan: data that are not there, and trainings that are not alike."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from comparison.planning.degradation import degradation_of
from comparison.planning.stages import Training
from comparison.results.rows import MEAN
from datamodules.benchmarks import Benchmarks
from datamodules.paths import EMBEDDED, resolve_folder

SAME = ("network", "loss", "optimizer", "lr_scheduler", "lr_interval", "init_from", "protocol", "tile", "self_ensemble")
"""Options of the model that no regime may change."""

SAME_DATA = (
    *("scale", "degradation", "patch_size", "batch_size", "augmentation"),
    *("validation", "split_seed", "root", "benchmarks"),
)
SAME_TRAINER = ("max_steps", "max_epochs", "max_time", "accumulate_grad_batches", "gradient_clip_val", "precision")


def data_problems(configs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line for each folder of photographs or test set that is not there, in resolved configurations by stage."""
    options = [config["data"]["init_args"] for config in configs.values()]
    roots = {given.get("root", EMBEDDED): given for given in options if not given.get("download")}
    tests = {_asked(given): given for given in options if "benchmarks" in given}
    problems = [_root_problem(root) for root in roots]
    problems += [problem for given in tests.values() for problem in _test_problems(given)]
    return [problem for problem in dict.fromkeys(problems) if problem is not None]


def _asked(options: Mapping[str, Any]) -> str:
    """Looking into a test set takes time: once is enough for all stages that have the same."""
    return json.dumps([options["benchmarks"], options["scale"], options.get("degradation")])


def _root_problem(root: str) -> str | None:
    if root == EMBEDDED:
        return None
    try:
        resolve_folder(root, "data.root")
    except FileNotFoundError as error:
        return str(error)
    return None


def _test_problems(options: Mapping[str, Any]) -> Iterator[str]:
    benchmarks = Benchmarks(**options["benchmarks"])
    names = [Path(name).name for name in benchmarks.sets]
    if not names:
        yield "data.benchmarks.sets: no test set is given; expected at least one"
    if MEAN in names:
        yield f"data.benchmarks.sets: '{MEAN}' is what tables call the mean over test sets; rename the folder"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"data.benchmarks.sets: two test sets are named {name}; leave one out, or rename its folder"
    if not benchmarks.download:
        for name in benchmarks.sets:
            try:
                replace(benchmarks, sets=[name]).open(options["scale"], degradation_of(options))
            except (FileNotFoundError, ValueError) as error:
                yield f"data.benchmarks: {error}"


def uneven(trainings: Sequence[Training], configs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line for each recipe whose trainings may differ in length, and where recipes do not measure the same."""
    problems: dict[str, None] = {}
    for training in trainings:
        trainer = configs[training.train]["trainer"]
        if trainer["max_steps"] < 1 or trainer["max_epochs"] not in (None, -1) or trainer["max_time"] is not None:
            problems[
                f"recipes.{training.cell.recipe}: its length is not a number of updates, the same for all sizes of "
                "data; set trainer.max_steps, and neither trainer.max_epochs nor trainer.max_time"
            ] = None
    for option in ("scale", "degradation", "root", "benchmarks"):
        values = {json.dumps(configs[training.train]["data"]["init_args"].get(option)) for training in trainings}
        if len(values) > 1:
            problems[
                f"data.init_args.{option}: trainings differ ({', '.join(sorted(values))}) and do not "
                "compare; set it once, in the plan's set or configs"
            ] = None
    return list(problems)


def unfair(trainings: Sequence[Training], configs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line for each setting in which trainings differ that should be alike but for their data."""
    first: dict[tuple[str, str], Training] = {}
    problems: dict[str, None] = {}
    for training in trainings:
        same = first.setdefault((training.cell.network, training.cell.recipe), training)
        mine, theirs = (_recipe(configs[one.train]) for one in (training, same))
        for key in mine:
            if mine[key] != theirs[key]:
                problems[
                    f"{training.cell.regime} is trained with {key} {mine[key]}, but {same.cell.regime} with "
                    f"{theirs[key]}; regimes may differ in their data only: set it in the recipe"
                ] = None
    return list(problems)


def _recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """What trainings of one network and recipe have in common."""
    groups = {"model.init_args": SAME, "data.init_args": SAME_DATA, "trainer": SAME_TRAINER}
    values = {"model": config["model"]["class_path"], "ema": config["ema"], "checkpoint": config["checkpoint"]}
    for group, options in groups.items():
        of_group: Any = config
        for part in group.split("."):
            of_group = of_group[part]
        values |= {f"{group}.{option}": of_group.get(option) for option in options}
    return values
