"""A plan made ready to run: checked, expanded to stages, each with its key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comparison.planning.check import plan_problems, sound_regimes, usable
from comparison.planning.check_stages import data_problems, uneven, unfair
from comparison.planning.keys import Keys
from comparison.planning.plan import Plan, Regime
from comparison.planning.resolve import Resolver, digest_json
from comparison.planning.stages import Stage, Training, expand
from comparison.planning.task import Task

SELECTION = ("root", "patch_size", "candidate_stride", "criterion", "features", "pseudo_labels", "selector")
"""Options that the time of writing a distilled set depends on."""


class PlanError(ValueError):
    """A plan that cannot be run, with all that is wrong in it."""

    def __init__(self, problems: Sequence[str]) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = [f"the plan has {count}, and nothing was run:", *(f"  - {line}" for line in problems)]
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class Prepared:
    """What a plan comes to.

    Attributes:
        regimes: with their chains, by name.
        trainings: all SR trainings.
        tasks: all stages in order of dependency, ready for the runner.
        configs: resolved configuration of each stage, by name.
    """

    regimes: Mapping[str, Regime]
    trainings: list[Training]
    tasks: list[Task]
    configs: Mapping[str, Mapping[str, Any]]

    @property
    def keys(self) -> dict[str, str]:
        """Of the stages, by name."""
        return {task.stage.name: task.key for task in self.tasks}


def prepare(plan: Plan, memo: Path) -> Prepared:
    """Checks and expands a plan; runs nothing.

    Args:
        plan: to run.
        memo: folder for what is remembered of configurations and files.

    Raises:
        PlanError: with everything that is wrong.
    """
    regimes, problems = sound_regimes(plan)
    problems += plan_problems(plan, regimes)
    stages, trainings, of_stages = expand(usable(plan, regimes), regimes)
    resolver = Resolver(memo / "resolved" / f"{digest_json(plan.name)[:16]}.json")
    keys = Keys(resolver, memo / "files")
    keys.add(stages)
    resolver.save()
    problems += [*of_stages, *(f"{name}: {problem}" for problem, name in keys.problems.items())]
    resolved = [training for training in trainings if training.train in keys.configs]
    if problems := [
        *problems,
        *data_problems(keys.configs),
        *uneven(resolved, keys.configs),
        *unfair(resolved, keys.configs),
    ]:
        raise PlanError(problems)
    tasks = [_task(stage, keys.by_stage[stage.name], keys.configs[stage.name]) for stage in stages]
    return Prepared(regimes, trainings, tasks, keys.configs)


def _task(stage: Stage, key: str, config: Mapping[str, Any]) -> Task:
    updates = config["trainer"]["max_steps"] if stage.command == "fit" else -1
    return Task(stage, key, _signature(stage, config), updates if updates > 0 else None)


def _signature(stage: Stage, config: Mapping[str, Any]) -> str:
    """Stages with the same one take about the same time: seeds, budgets and augmentations matter little."""
    model, data, trainer = config["model"], config["data"]["init_args"], config["trainer"]
    parts: list[Any] = [stage.command, model["class_path"], model["init_args"].get("network"), data["scale"]]
    if stage.command == "fit":
        parts += [data["patch_size"], data["batch_size"], trainer["max_steps"], trainer["precision"]]
    elif stage.command == "test":
        parts += [data["benchmarks"], *filter(None, [data.get("degradation")])]  # a test set for each task
    else:
        parts += [data.get(option) for option in SELECTION]
    return digest_json(parts)[:16]
