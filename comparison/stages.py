"""From a plan to stages: single commands of the command line, with what each of them reads of the others."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from comparison.plan import NETWORKS, DistillationStage, Overrides, Plan, Regime, find_config, network_name
from comparison.rows import Cell

PLACEHOLDER = re.compile(r"\{([A-Za-z_][\w-]*)\}")
OUTPUT = re.compile(r"\{output:([^}]*)\}")
AXES = ("budget", "network", "recipe", "seed")
"""What a stage may differ in, in the order of its name."""

ON_PHOTOGRAPHS, ON_DISTILLED = "configs/sr/full.yaml", "configs/sr/distilled.yaml"
LAST = "checkpoints/last.ckpt"
"""Of a fit: its last weights, averaged by EMA. Picking the best checkpoint favours whoever varies most."""

RELABELLING = DistillationStage(
    name="relabel",
    configs=["configs/distill/relabel.yaml"],
    set={
        "data.init_args.distilled": "{distilled}",
        "model.init_args.teacher": "{teacher}",
        "model.init_args.weight": "{weight}",
    },
)
"""The last stage of every chain where a teacher has a part."""


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        name: unique, safe as the name of a folder.
        command: of the command line.
        kind: `distill` before the SR training, `train`, `test`.
        words: of the command line, after the command; `{output:NAME}` stands for what the stage NAME has written.
        needs: stages that it reads.
        labels: what it is about, for W&B: regime, teacher and those of `AXES` that it differs in.
    """

    name: str
    command: Literal["fit", "predict", "test"]
    kind: Literal["distill", "train", "test"]
    words: tuple[str, ...]
    needs: tuple[str, ...]
    labels: Mapping[str, Any]

    def with_outputs(self, outputs: Mapping[str, str]) -> list[str]:
        """The words, with paths (or whatever else is given) in the place of what other stages have written."""
        return [OUTPUT.sub(lambda match: outputs[match[1]], word) for word in self.words]


@dataclass(frozen=True)
class Training:
    """One SR training of the plan, by the names of its stages.

    Attributes:
        cell: which.
        distill: all stages before it, in order, a teacher's training among them.
        distilled: the stage that wrote what it is trained on; None for photographs.
        train: its fit.
        test: its test.
    """

    cell: Cell
    distill: tuple[str, ...]
    distilled: str | None
    train: str
    test: str


def expand(plan: Plan, regimes: Mapping[str, Regime]) -> tuple[list[Stage], list[Training]]:
    """All stages, each after those that it needs, and the trainings that they make up.

    Args:
        plan: see `comparison.check` for what it has to fulfil.
        regimes: those of the plan by name, with their chains.

    Raises:
        ValueError: when a value has `{NAME}`, and NAME is no axis, no stage before it and not `teacher`.
    """
    expansion = _Expansion(plan, regimes)
    trainings = [expansion.training(cell) for cell in _cells(plan, regimes)]
    return list(expansion.stages.values()), trainings


def _cells(plan: Plan, regimes: Mapping[str, Regime]) -> Iterator[Cell]:
    """Seeds vary slowest, regimes fastest: whatever time allows is a whole table."""
    axes = (plan.seeds, [None, *plan.budgets], plan.networks, plan.recipes.items())
    for seed, budget, network, (recipe, settings) in itertools.product(*axes):
        if _used(settings.budgets, budget):
            for teacher in _relabelling(plan, budget):
                for name, regime in regimes.items():
                    if bool(regime.distill) == (budget is not None):
                        yield Cell(name, teacher, recipe, network_name(network), budget, seed)


def _used(budgets: list[float] | None, budget: float | None) -> bool:
    return budget is None or budgets is None or budget in budgets


def _relabelling(plan: Plan, budget: float | None) -> list[bool]:
    """Without and with a teacher; photographs as they are have none."""
    if budget is None:
        return [False]
    return [teacher for teacher in sorted(plan.relabelling) if not teacher or _used(plan.teacher.budgets, budget)]


class _Expansion:
    """Stages by name; one that several trainings share is there once."""

    def __init__(self, plan: Plan, regimes: Mapping[str, Regime]) -> None:
        self.plan = plan
        self.regimes = regimes
        self.stages: dict[str, Stage] = {}
        networks = [*plan.networks, *([plan.teacher.network] if plan.teacher.network else [])]
        self.networks = {network_name(network): network for network in networks}

    def training(self, cell: Cell) -> Training:
        """Adds the stages of one training."""
        train, distilled = self._trained(cell)
        words = [*self.stages[train].words, "--ckpt_path", f"{_output(train)}/{LAST}"]
        test = self._add(cell, "test", "test", "test", AXES, words)
        return Training(cell, self._chain(train), distilled, train, test)

    def _trained(self, cell: Cell) -> tuple[str, str | None]:
        """The stage that trains, and the one that writes what it trains on."""
        regime = self.regimes[cell.regime]
        values: dict[str, Any] = cell._asdict()
        distilled = None
        for spec in regime.distill:
            distilled = self._distill(cell._replace(teacher=False), regime, spec, values)
            values[spec.name] = _output(distilled)
        if cell.teacher and distilled is not None:
            teacher = {"teacher": _output(self._teacher(cell)), "weight": self.plan.teacher.weight}
            distilled = self._distill(cell, regime, RELABELLING, {**values, **teacher, "distilled": _output(distilled)})
        return self._train(cell, regime, distilled), distilled

    def _distill(self, cell: Cell, regime: Regime, spec: DistillationStage, values: Mapping[str, Any]) -> str:
        own = {**spec.set, **regime.set.get(spec.name, {})}
        given = [Overrides(spec.configs), Overrides(self.plan.configs, self.plan.set), Overrides(set=own)]
        words = _words(given, values, f"regime {cell.regime}, stage {spec.name}")
        return self._add(cell, spec.name, spec.command, "distill", _mentioned([spec.configs, own]), words)

    def _teacher(self, cell: Cell) -> str:
        teacher = self.plan.teacher
        network = network_name(teacher.network) if teacher.network else cell.network
        recipe = teacher.recipe or cell.recipe
        return self._trained(Cell(teacher.regime, False, recipe, network, None, teacher.seed))[0]

    def _train(self, cell: Cell, regime: Regime, distilled: str | None) -> str:
        plan, network = self.plan, find_config(self.networks[cell.network], NETWORKS)
        data = {} if distilled is None else {"data.init_args.distilled": _output(distilled)}
        given = [
            Overrides([ON_PHOTOGRAPHS if distilled is None else ON_DISTILLED]),
            regime.train,
            Overrides(plan.configs, plan.set),
            Overrides([str(network)]),
            plan.recipes[cell.recipe],
            Overrides(set={**regime.set.get("train", {}), **data, "seed_everything": cell.seed}),
        ]
        words = _words(given, cell._asdict(), f"regime {cell.regime}, training")
        return self._add(cell, "train", "fit", "train", AXES, words)

    def _add(
        self,
        cell: Cell,
        step: str,
        command: Literal["fit", "predict", "test"],
        kind: Literal["distill", "train", "test"],
        mentioned: Iterable[str],
        words: list[str],
    ) -> str:
        needs = tuple(dict.fromkeys(name for word in words for name in OUTPUT.findall(word)))
        differs = {*mentioned, *(axis for need in needs for axis in self.stages[need].labels)}
        of_cell = cell._asdict()
        values = {axis: of_cell[axis] for axis in AXES if axis in differs and of_cell[axis] is not None}
        name = "-".join([cell.regime, *(["teacher"] * cell.teacher), step, *map(_in_name, values.items())])
        labels = {"regime": cell.regime, "teacher": cell.teacher, **values}
        self.stages.setdefault(name, Stage(name, command, kind, tuple(words), needs, labels))
        return name

    def _chain(self, name: str) -> tuple[str, ...]:
        """What comes before a stage, in order."""
        before: dict[str, None] = {}
        for need in self.stages[name].needs:
            before |= dict.fromkeys([*self._chain(need), need])
        return tuple(before)


def _output(name: str) -> str:
    return f"{{output:{name}}}"


def _in_name(axis: tuple[str, Any]) -> str:
    name, value = axis
    return f"s{value}" if name == "seed" else f"{value:g}" if name == "budget" else str(value)


def _mentioned(values: Any) -> set[str]:
    """Names in braces, anywhere."""
    return set(PLACEHOLDER.findall(json.dumps(values)))


def _words(given: Iterable[Overrides], values: Mapping[str, Any], where: str) -> list[str]:
    """The command line of settings one on top of the other."""
    words = []
    for overrides in given:
        for config in overrides.configs:
            words += ["--config", _path(str(_filled(config, values, where)))]
        for key, value in overrides.set.items():
            words += [f"--{key}", _as_word(_filled(value, values, f"{where}, {key}"))]
    return words


def _path(given: str) -> str:
    """As short as it can be told from the working folder; an unknown file is left for the command line to refuse."""
    found = find_config(given)
    if found is None:
        return given
    return str(found.relative_to(Path.cwd())) if found.is_relative_to(Path.cwd()) else str(found)


def _filled(value: Any, values: Mapping[str, Any], where: str) -> Any:
    """A value with what its `{NAME}` stand for; one that is nothing else keeps the type of that."""
    if isinstance(value, dict):
        return {key: _filled(item, values, where) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, values, where) for item in value]
    if not isinstance(value, str):
        return value
    for name in PLACEHOLDER.findall(value):
        if name not in values:
            raise ValueError(f"{where}: {value} has an unknown {{{name}}}; known are {', '.join(sorted(values))}")
    whole = PLACEHOLDER.fullmatch(value)
    return values[whole[1]] if whole else PLACEHOLDER.sub(lambda match: str(values[match[1]]), value)


def _as_word(value: Any) -> str:
    """As the command line reads it: JSON is YAML, and a plain string needs no quotes."""
    return value if isinstance(value, str) else json.dumps(value)
