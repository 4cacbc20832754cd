"""What is wrong with a plan, found before anything runs, and told all at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cli.explain import closest
from comparison.plan import NETWORKS, ROOT, Plan, find_config, network_name
from comparison.regimes import find_regime
from comparison.stages import Training
from datamodules.benchmarks import Benchmarks
from datamodules.paths import EMBEDDED, resolve_folder

SAME = ("network", "loss", "optimizer", "lr_scheduler", "lr_interval", "init_from", "protocol", "tile", "self_ensemble")
"""Options of the model that no regime may change."""

SAME_DATA = ("scale", "patch_size", "batch_size", "augmentation", "validation", "split_seed", "root", "benchmarks")
SAME_TRAINER = ("max_steps", "max_epochs", "max_time", "accumulate_grad_batches", "gradient_clip_val", "precision")


def plan_problems(plan: Plan) -> list[str]:
    """One line for each thing in the plan itself that cannot be meant."""
    return [*_numbers(plan), *_lists(plan), *_names(plan), *_regimes(plan), *_networks(plan), *_recipes(plan)]


def _numbers(plan: Plan) -> Iterator[str]:
    for budget in plan.budgets:
        if not 0 < budget < 100:
            yield f"budgets: {budget:g} is no percentage above 0 and below 100 (100 is the regime full)"
    for key, budgets in _restrictions(plan):
        for budget in sorted({*(budgets or [])} - {*plan.budgets}):
            yield f"{key}.budgets: {budget:g} is none of the plan's budgets"
    if True in plan.relabelling and not 0 < plan.teacher.weight <= 1:
        yield f"teacher.weight: {plan.teacher.weight:g} is no share above 0 and up to 1"
    if plan.crops < 0:
        yield f"crops: {plan.crops}; expected the number of test images to show, 0 for none"


def _restrictions(plan: Plan) -> Iterator[tuple[str, list[float] | None]]:
    yield "teacher", plan.teacher.budgets
    for name, recipe in plan.recipes.items():
        yield f"recipes.{name}", recipe.budgets


def _lists(plan: Plan) -> Iterator[str]:
    for key in ("regimes", "networks", "recipes", "seeds", "relabelling"):
        if not getattr(plan, key):
            yield f"{key}: nothing is given; expected at least one"
    for key in ("budgets", "networks", "seeds", "relabelling"):
        values = getattr(plan, key)
        for value in sorted({value for value in values if values.count(value) > 1}):
            yield f"{key}: {value} is given twice"


def _names(plan: Plan) -> Iterator[str]:
    known = list(plan.regimes)
    roles = {"reference": plan.reference, "baseline": plan.baseline}
    if True in plan.relabelling:
        roles["teacher.regime"] = plan.teacher.regime
    for role, name in roles.items():
        if name and name not in plan.regimes:
            yield f"{role}: the plan has no regime '{name}'{closest(name, known)}; it has {', '.join(known)}"
    if True in plan.relabelling and plan.teacher.recipe not in {None, *plan.recipes}:
        yield f"teacher.recipe: the plan has no recipe '{plan.teacher.recipe}'; it has {', '.join(plan.recipes)}"
    for kind in ("regimes", "recipes"):
        for name in getattr(plan, kind):
            if not name or not name.replace("_", "").replace("-", "").isalnum():
                yield f"{kind}: '{name}' is no name of letters, digits, - and _"
    if not plan.name or Path(plan.name).name != plan.name:
        yield f"name: '{plan.name}' is no name of a folder"


def _regimes(plan: Plan) -> Iterator[str]:
    for name, given in plan.regimes.items():
        try:
            regime = find_regime(name, given)
        except ValueError as error:
            yield str(error)
            continue
        stages = [stage.name for stage in regime.distill]
        for stage in sorted({stage for stage in stages if stages.count(stage) > 1}):
            yield f"regimes.{name}: two stages are named '{stage}'; give each a name of its own"
        if regime.distill and regime.distill[-1].command != "predict":
            yield f"regimes.{name}: the last stage, '{stages[-1]}', writes no distilled set; expected command: predict"
        for stage in regime.set:
            if stage not in {*stages, "train"}:
                yield f"regimes.{name}.set: there is no stage '{stage}'; there are {', '.join([*stages, 'train'])}"
        if regime.distill and not plan.budgets:
            yield f"regimes.{name}: it makes a distilled set, but the plan has no budgets"


def _networks(plan: Plan) -> Iterator[str]:
    given = [*plan.networks, *([plan.teacher.network] if plan.teacher.network else [])]
    shipped = sorted(path.stem for path in NETWORKS.glob("*.yaml"))
    for network in given:
        if find_config(network, NETWORKS) is None:
            yield (
                f"networks: there is no network '{network}'{closest(network, shipped)}; "
                f"expected one of {', '.join(shipped)}, or a YAML file"
            )
    names = [network_name(network) for network in plan.networks]
    for name in sorted({name for name in names if names.count(name) > 1 and plan.networks.count(name) < 2}):
        yield f"networks: two files are named '{name}', which tables could not tell apart"


def _recipes(plan: Plan) -> Iterator[str]:
    for name, recipe in plan.recipes.items():
        yield from _files(f"recipes.{name}", recipe.configs)
    yield from _files("configs", plan.configs)
    for name, regime in plan.regimes.items():
        yield from _files(f"regimes.{name}.train", regime.train.configs)
        for stage in regime.distill:
            yield from _files(f"regimes.{name}.distill.{stage.name}", stage.configs)


def _files(where: str, configs: Sequence[str]) -> Iterator[str]:
    for config in configs:
        if "{" not in config and find_config(config) is None:
            yield f"{where}: there is no file {config} (looked in the working folder and in {ROOT})"


def data_problems(configs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line for each folder of photographs or test set that is not there, in resolved configurations by stage."""
    options = [config["data"]["init_args"] for config in configs.values()]
    roots = (_root_problem(given) for given in options)
    tests = (problem for given in options for problem in _benchmark_problems(given))
    return [problem for problem in dict.fromkeys([*roots, *tests]) if problem is not None]


def _root_problem(options: Mapping[str, Any]) -> str | None:
    root = options.get("root", EMBEDDED)
    if root == EMBEDDED or options.get("download"):
        return None
    try:
        resolve_folder(root, "data.root")
    except FileNotFoundError as error:
        return str(error)
    return None


def _benchmark_problems(options: Mapping[str, Any]) -> Iterator[str]:
    benchmarks = Benchmarks(**options["benchmarks"])
    if not benchmarks.sets:
        yield "data.benchmarks.sets: no test set is given; expected at least one"
    if benchmarks.download:
        return
    for name in benchmarks.sets:
        try:
            (images,) = replace(benchmarks, sets=[name]).open(options["scale"])
        except (FileNotFoundError, ValueError) as error:
            yield str(error)
        else:
            if not len(images):
                yield f"test set {name}: {benchmarks.folder / name} has no images"


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
    values = {"ema": config["ema"], "checkpoint": config["checkpoint"]}
    for group, options in groups.items():
        of_group: Any = config
        for part in group.split("."):
            of_group = of_group[part]
        values |= {f"{group}.{option}": of_group.get(option) for option in options}
    return values
