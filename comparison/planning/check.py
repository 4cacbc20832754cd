"""What is wrong with a plan, found before anything runs, and told all at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cli.explain import closest
from comparison.planning.plan import NETWORKS, ROOT, Plan, Regime, find_config, network_name
from comparison.planning.regimes import find_regime
from comparison.planning.stages import AXES, mentioned
from comparison.running.store import FOLDERS

NAME = re.compile(r"\w[\w-]*")
"""Of what stages are named after: a folder on every system, and no option on a command line."""

SEEDS = range(2**32)
"""Those that numpy takes."""


def sound_regimes(plan: Plan) -> tuple[dict[str, Regime], list[str]]:
    """The plan's regimes with their chains, by name, and one line for each thing that is wrong in the others."""
    sound, problems = {}, []
    for name in plan.regimes:
        try:
            regime = find_regime(name, plan.regimes)
        except ValueError as error:
            problems.append(str(error))
            continue
        wrong = [f"regimes.{name}{line}" for line in (*_chain(regime), *_budget(regime, plan), *_files(regime))]
        problems += wrong
        if not wrong:
            sound[name] = regime
    return sound, problems


def plan_problems(plan: Plan, regimes: Mapping[str, Regime]) -> list[str]:
    """One line for each thing in the plan itself that cannot be meant.

    Args:
        plan: to look at.
        regimes: its sound ones, with their chains.
    """
    return [
        *_numbers(plan),
        *_lists(plan),
        *_names(plan),
        *_roles(plan),
        *_networks(plan),
        *(_teacher(plan, regimes) if True in plan.relabelling else ()),
        *_recipes(plan),
    ]


def usable(plan: Plan, regimes: Mapping[str, Regime]) -> Plan:
    """The plan without what cannot be expanded, so that problems in the rest are found as well."""
    teacher = plan.teacher.regime in regimes and not any(_teacher(plan, regimes))
    return replace(
        plan,
        configs=_there(plan.configs),
        recipes={name: replace(recipe, configs=_there(recipe.configs)) for name, recipe in plan.recipes.items()},
        budgets=[budget for budget in plan.budgets if 0 < budget < 100],
        networks=[network for network in plan.networks if find_config(network, NETWORKS)],
        relabelling=[given for given in plan.relabelling if teacher or not given],
    )


def _numbers(plan: Plan) -> Iterator[str]:
    for budget in plan.budgets:
        if not 0 < budget < 100:
            yield f"budgets: {budget:g} is no percentage above 0 and below 100 (100 is the regime full)"
    for name, recipe in plan.recipes.items():
        yield from _restriction(f"recipes.{name}", recipe.budgets, plan)
    for seed in plan.seeds:
        if seed not in SEEDS:
            yield f"seeds: {seed} is no seed; expected 0 to {SEEDS[-1]}"
    if plan.crops < 0:
        yield f"crops: {plan.crops}; expected the number of test images to show, 0 for none"


def _restriction(key: str, budgets: Iterable[float] | None, plan: Plan) -> Iterator[str]:
    for budget in sorted({*(budgets or [])} - {*plan.budgets}):
        yield f"{key}.budgets: {budget:g} is none of the plan's budgets; leave it out, or add it to budgets"


def _lists(plan: Plan) -> Iterator[str]:
    for key in ("regimes", "networks", "recipes", "seeds", "relabelling"):
        if not getattr(plan, key):
            yield f"{key}: nothing is given; expected at least one"
    for key in ("networks", "seeds", "relabelling"):
        yield from _twice(key, map(str, getattr(plan, key)))
    yield from _twice("budgets", (f"{budget:g}" for budget in plan.budgets))


def _twice(key: str, names: Iterable[str]) -> Iterator[str]:
    given = list(names)
    for name in sorted({name for name in given if given.count(name) > 1}):
        yield f"{key}: {name} is given twice; leave one out"


def _names(plan: Plan) -> Iterator[str]:
    networks = [("networks", network_name(network)) for network in plan.networks]
    of_maps = [("regimes", name) for name in plan.regimes] + [("recipes", name) for name in plan.recipes]
    for key, name in [("name", plan.name), *of_maps, *networks]:
        if not NAME.fullmatch(name):
            yield f"{key}: '{name}' is no name of letters, digits, - and _, which folders are named after"
    if plan.name in FOLDERS:
        yield f"name: '{plan.name}' is a folder that all comparisons share; choose another name"


def _roles(plan: Plan) -> Iterator[str]:
    """Regimes that others are compared with."""
    for role, name in {"reference": plan.reference, "baseline": plan.baseline}.items():
        if name and name not in plan.regimes and plan.regimes:
            yield f"{role}: the plan has no regime '{name}'{_expected(name, plan.regimes)}, or '' for none"


def _expected(name: str, known: Iterable[str]) -> str:
    return f"{closest(name, known)}; expected one of {', '.join(known)}"


def _networks(plan: Plan) -> Iterator[str]:
    for network in plan.networks:
        yield from _network("networks", network)
    files = dict.fromkeys([*plan.networks, *([plan.teacher.network] if plan.teacher.network else [])])
    names = [network_name(network) for network in files]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"networks: two are named '{name}', which tables could not tell apart; rename one of the files"


def _network(key: str, network: str) -> Iterator[str]:
    if find_config(network, NETWORKS) is None:
        shipped = sorted(path.stem for path in NETWORKS.glob("*.yaml"))
        yield f"{key}: there is no network '{network}'{_expected(network, shipped)}, or a YAML file"


def _teacher(plan: Plan, regimes: Mapping[str, Regime]) -> Iterator[str]:
    teacher = plan.teacher
    if teacher.regime not in plan.regimes:
        yield f"teacher.regime: the plan has no regime '{teacher.regime}'{_expected(teacher.regime, plan.regimes)}"
    elif teacher.regime in regimes and regimes[teacher.regime].distill:
        yield f"teacher.regime: '{teacher.regime}' trains on a distilled set; expected one that trains on photographs"
    if teacher.recipe is not None and teacher.recipe not in plan.recipes:
        yield f"teacher.recipe: the plan has no recipe '{teacher.recipe}'{_expected(teacher.recipe, plan.recipes)}"
    if teacher.network is not None:
        yield from _network("teacher.network", teacher.network)
    if teacher.seed not in SEEDS:
        yield f"teacher.seed: {teacher.seed} is no seed; expected 0 to {SEEDS[-1]}"
    if not 0 < teacher.weight <= 1:
        yield f"teacher.weight: {teacher.weight:g} is no share above 0 and up to 1"
    yield from _restriction("teacher", teacher.budgets, plan)


def _recipes(plan: Plan) -> Iterator[str]:
    yield from _missing("configs", plan.configs)
    for name, recipe in plan.recipes.items():
        yield from _missing(f"recipes.{name}.configs", recipe.configs)


def _chain(regime: Regime) -> Iterator[str]:
    """What is wrong with the stages of a regime; lines go on behind its name."""
    stages = [stage.name for stage in regime.distill]
    for stage in sorted({stage for stage in stages if stages.count(stage) > 1}):
        yield f": two stages are named '{stage}'; give each a name of its own"
    for stage in stages:
        if not NAME.fullmatch(stage) or stage in {*AXES, "train", "test", "relabel"}:
            yield f": a stage cannot be named '{stage}'; expected letters, digits, - and _, and no word of the plan"
    if regime.distill and regime.distill[-1].command != "predict":
        yield f": the last stage, '{stages[-1]}', writes no distilled set; expected command: predict"
    for stage in regime.set:
        if stage not in {*stages, "train"}:
            yield f".set: there is no stage '{stage}'{_expected(stage, [*stages, 'train'])}"


def _budget(regime: Regime, plan: Plan) -> Iterator[str]:
    if not regime.distill:
        return
    if not plan.budgets:
        yield ": it makes a distilled set, but the plan has no budgets; give some, such as budgets: [2]"
    settings = [[stage.configs, stage.set] for stage in regime.distill]
    if "budget" not in mentioned([settings, regime.set, plan.configs, plan.set]):
        yield (
            ': no stage mentions {budget}, so that all budgets would be the same set; write "{budget}" where its size '
            "is set, such as data.init_args.budget.percent"
        )


def _files(regime: Regime) -> Iterator[str]:
    yield from _missing(".train.configs", regime.train.configs)
    for stage in regime.distill:
        yield from _missing(f".distill.{stage.name}.configs", stage.configs)


def _missing(where: str, configs: Sequence[str]) -> Iterator[str]:
    for config in configs:
        if config not in _there(configs):
            yield f"{where}: there is no file {config} (looked in the working folder, {Path.cwd()}, and in {ROOT})"


def _there(configs: Sequence[str]) -> list[str]:
    return [config for config in configs if "{" in config or find_config(config)]
