"""From a plan to stages: single commands of the command line, with what each of them reads of the others."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from comparison.planning.plan import NETWORKS, DistillationStage, Overrides, Plan, Regime, find_config, network_name
from comparison.results.rows import Cell

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


class Expanded(NamedTuple):
    """What a plan comes to.

    Attributes:
        stages: each after those that it needs.
        trainings: that they make up.
        problems: one line for each `{NAME}` that is no axis and no stage before it, and for stages of equal names; the
            trainings behind them are left out.
    """

    stages: list[Stage]
    trainings: list[Training]
    problems: list[str]


def expand(plan: Plan, regimes: Mapping[str, Regime]) -> Expanded:
    """All stages and trainings.

    Args:
        plan: see `comparison.planning.check` for what it has to fulfil.
        regimes: those of the plan by name, with their chains.
    """
    expansion = _Expansion(plan, regimes)
    trainings: list[Training] = []
    problems: dict[str, None] = {}
    for cell in _cells(plan, regimes):
        try:
            trainings.append(expansion.training(cell))
        except ValueError as error:
            problems[str(error)] = None
    return Expanded(list(expansion.stages.values()), trainings, list(problems))


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
        self.teachers: set[str] = set()  # their seed, say, is the plan's, not that of the training they relabel for
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
        values = _axes(cell)
        distilled = None
        for spec in regime.distill:
            distilled = self._distill(cell._replace(teacher=False), regime, spec, values)
            values[spec.name] = _output(distilled)
        if cell.teacher and distilled is not None:
            distilled = self._relabel(cell, regime, distilled)
        return self._train(cell, regime, distilled), distilled

    def _distill(
        self,
        cell: Cell,
        regime: Regime,
        spec: DistillationStage,
        values: Mapping[str, Any],
        also: frozenset[str] = frozenset(),
    ) -> str:
        """Adds a stage before the training, which differs in the axes that it mentions, and in others too."""
        own = {**spec.set, **regime.set.get(spec.name, {})}
        where, of_all = f"regimes.{cell.regime}.distill.{spec.name}.", Overrides(self.plan.configs, self.plan.set)
        words = _words([(where, Overrides(spec.configs)), ("", of_all), (where, Overrides(set=own))], values)
        differs = also | mentioned([spec.configs, own, of_all.configs, of_all.set])
        return self._add(cell, spec.name, spec.command, "distill", differs, words)

    def _relabel(self, cell: Cell, regime: Regime, distilled: str) -> str:
        teacher = self._teacher(cell)
        self.teachers.add(teacher)
        values = {"distilled": _output(distilled), "teacher": _output(teacher), "weight": self.plan.teacher.weight}
        own = frozenset(axis for axis in ("network", "recipe") if getattr(self.plan.teacher, axis) is None)
        return self._distill(cell, regime, RELABELLING, {**_axes(cell), **values}, own)

    def _teacher(self, cell: Cell) -> str:
        teacher = self.plan.teacher
        network = network_name(teacher.network) if teacher.network else cell.network
        recipe = teacher.recipe or cell.recipe
        return self._trained(Cell(teacher.regime, False, recipe, network, None, teacher.seed))[0]

    def _train(self, cell: Cell, regime: Regime, distilled: str | None) -> str:
        plan, network = self.plan, find_config(self.networks[cell.network], NETWORKS)
        data = {} if distilled is None else {"data.init_args.distilled": _output(distilled)}
        where = f"regimes.{cell.regime}.train."
        given = [
            ("", Overrides([ON_PHOTOGRAPHS if distilled is None else ON_DISTILLED])),
            (where, regime.train),
            ("", Overrides(plan.configs, plan.set)),
            ("", Overrides([str(network)])),
            (f"recipes.{cell.recipe}.", plan.recipes[cell.recipe]),
            (where, Overrides(set={**regime.set.get("train", {}), **data, "seed_everything": cell.seed})),
        ]
        return self._add(cell, "train", "fit", "train", AXES, _words(given, _axes(cell)))

    def _add(
        self,
        cell: Cell,
        step: str,
        command: Literal["fit", "predict", "test"],
        kind: Literal["distill", "train", "test"],
        axes: Iterable[str],
        words: list[str],
    ) -> str:
        needs = tuple(dict.fromkeys(name for word in words for name in OUTPUT.findall(word)))
        read = [need for need in needs if need not in self.teachers]
        differs = {*axes, *(axis for need in read for axis in self.stages[need].labels)}
        values = {axis: value for axis, value in _axes(cell).items() if axis in differs and value is not None}
        name = "-".join([cell.regime, *(["teacher"] * cell.teacher), step, *map(_in_name, values.items())])
        labels = {"regime": cell.regime, "teacher": cell.teacher, **values}
        stage = Stage(name, command, kind, tuple(words), needs, labels)
        if self.stages.setdefault(name, stage) != stage:
            raise ValueError(
                f"two different stages have the name {name}, made of the names of regime, stage, network and recipe; "
                "rename one of these"
            )
        return name

    def _chain(self, name: str) -> tuple[str, ...]:
        """What comes before a stage, in order."""
        before: dict[str, None] = {}
        for need in self.stages[name].needs:
            before |= dict.fromkeys([*self._chain(need), need])
        return tuple(before)


def _axes(cell: Cell) -> dict[str, Any]:
    return {axis: getattr(cell, axis) for axis in AXES}


def _output(name: str) -> str:
    return f"{{output:{name}}}"


def _in_name(axis: tuple[str, Any]) -> str:
    name, value = axis
    return f"s{value}" if name == "seed" else f"{value:g}" if name == "budget" else str(value)


def mentioned(values: Any) -> set[str]:
    """Names in braces, anywhere in lists and mappings."""
    return set(PLACEHOLDER.findall(json.dumps(values)))


def _words(given: Iterable[tuple[str, Overrides]], values: Mapping[str, Any]) -> list[str]:
    """The command line of settings one on top of the other, each with the place in the plan where they are."""
    words = []
    for where, overrides in given:
        for config in overrides.configs:
            words += ["--config", _path(str(_filled(config, values, f"{where}configs")))]
        for key, value in overrides.set.items():
            word = _as_word(_filled(value, values, f"{where}set.{key}"))
            words += [f"--{key}={word}"] if word.startswith("-") else [f"--{key}", word]  # -1e-05 looks like an option
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
            raise ValueError(f"{where}: '{value}' has an unknown {{{name}}}; known here are {', '.join(values)}")
    whole = PLACEHOLDER.fullmatch(value)
    return values[whole[1]] if whole else PLACEHOLDER.sub(lambda match: str(values[match[1]]), value)


def _as_word(value: Any) -> str:
    """As the command line reads it: JSON is YAML, and a plain string needs no quotes."""
    return value if isinstance(value, str) else json.dumps(value)
