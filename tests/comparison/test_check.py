"""Bad plans: each problem is one line that says what to do, and all of them come at once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.errors import exit_with_message
from comparison.planning.check import plan_problems, sound_regimes, usable
from comparison.planning.check_stages import unfair
from comparison.planning.plan import CONFIGS, DistillationStage, Overrides, Plan, Recipe, Regime, Teacher
from comparison.planning.stages import Training
from comparison.results.rows import Cell
from main import main

BUDGET = DistillationStage(configs=["configs/distill/select.yaml"], set={"data.init_args.budget.percent": "{budget}"})


def plan(**settings: Any) -> Plan:
    regimes = {"full": Regime(), "random": Regime(), "sharpening": Regime()}
    return Plan(**{"name": "study", "regimes": regimes, "budgets": [2.0], **settings})


def problems(**settings: Any) -> list[str]:
    given = plan(**settings)
    regimes, lines = sound_regimes(given)
    return [*lines, *plan_problems(given, regimes)]


def own(*stages: DistillationStage, **settings: Any) -> dict[str, Any]:
    """A plan with a regime of its own."""
    return {"regimes": {"full": Regime(), "random": Regime(), "own": Regime(distill=list(stages), **settings)}}


def test_a_plan_without_problems() -> None:
    assert problems() == []
    assert problems(networks=["span", str(CONFIGS / "sr/network/compact.yaml")], relabelling=[False, True]) == []
    assert problems(**own(BUDGET, set={"select": {"a": 1}, "train": {"b": 2}})) == []
    assert problems(regimes={"full": Regime()}, budgets=[], baseline="", seeds=[0, 2**32 - 1], crops=0) == []


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"budgets": [0.0]}, "budgets: 0 is no percentage above 0 and below 100 (100 is the regime full)"),
        ({"budgets": [100.0]}, "budgets: 100 is no percentage above 0 and below 100 (100 is the regime full)"),
        ({"budgets": [float("nan")]}, "budgets: nan is no percentage above 0 and below 100 (100 is the regime full)"),
        ({"budgets": [2.0, 2.0000001]}, "budgets: 2 is given twice; leave one out"),
        ({"seeds": [1, 1]}, "seeds: 1 is given twice; leave one out"),
        ({"seeds": [-1]}, "seeds: -1 is no seed; expected 0 to 4294967295"),
        ({"relabelling": [False, False]}, "relabelling: False is given twice; leave one out"),
        ({"networks": ["span", "span"]}, "networks: span is given twice; leave one out"),
        ({"networks": []}, "networks: nothing is given; expected at least one"),
        ({"regimes": {}}, "regimes: nothing is given; expected at least one"),
        ({"recipes": {}}, "recipes: nothing is given; expected at least one"),
        ({"seeds": []}, "seeds: nothing is given; expected at least one"),
        ({"relabelling": []}, "relabelling: nothing is given; expected at least one"),
        ({"crops": -1}, "crops: -1; expected the number of test images to show, 0 for none"),
        (
            {"networks": ["edsr_tyni"]},
            "networks: there is no network 'edsr_tyni'; did you mean 'edsr_tiny'?; expected one of compact, ",
        ),
        (
            {"networks": ["span", str(CONFIGS / "sr/network/span.yaml")]},
            "networks: two are named 'span', which tables could not tell apart; rename one of the files",
        ),
        (
            {"recipes": {"plain": Recipe(budgets=[5.0])}},
            "recipes.plain.budgets: 5 is none of the plan's budgets; leave it out, or add it to budgets",
        ),
        (
            {"recipes": {"plain": Recipe(["no.yaml"])}},
            "recipes.plain.configs: there is no file no.yaml (looked in the ",
        ),
        ({"configs": ["no.yaml"]}, "configs: there is no file no.yaml (looked in the working folder, "),
        ({"name": "a/b"}, "name: 'a/b' is no name of letters, digits, - and _, which folders are named after"),
        ({"name": ".."}, "name: '..' is no name of letters"),
        ({"name": ""}, "name: '' is no name of letters"),
        ({"name": "a:b"}, "name: 'a:b' is no name of letters"),
        ({"name": "memo"}, "name: 'memo' is a folder that all comparisons share; choose another name"),
        ({"recipes": {"a b": Recipe()}}, "recipes: 'a b' is no name of letters, digits, - and _"),
        ({"recipes": {"--all": Recipe()}}, "recipes: '--all' is no name of letters, digits, - and _"),
        (
            {"reference": "ful"},
            "reference: the plan has no regime 'ful'; did you mean 'full'?; expected one of full, random, ",
        ),
        (
            {"baseline": "easiest"},
            "baseline: the plan has no regime 'easiest'; expected one of full, random, sharpening, or '' for none",
        ),
        ({"budgets": []}, "regimes.random: it makes a distilled set, but the plan has no budgets; give some, such as "),
    ],
)
def test_problems_of_the_plan(settings: dict[str, Any], line: str) -> None:
    assert any(problem.startswith(line) for problem in problems(**settings)), problems(**settings)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            own(BUDGET, BUDGET),
            "regimes.own: two stages are named 'select'; give each a name of its own",
        ),
        (
            own(DistillationStage(name="learn", command="fit", set={"a": "{budget}"})),
            "regimes.own: the last stage, 'learn', writes no distilled set; expected command: predict",
        ),
        (
            own(DistillationStage(name="a/b", set={"a": "{budget}"})),
            "regimes.own: a stage cannot be named 'a/b'; expected letters, digits, - and _, and no word of the plan",
        ),
        (own(DistillationStage(name="budget", set={"a": "{budget}"})), "regimes.own: a stage cannot be named 'budget'"),
        (
            own(BUDGET, set={"selct": {}}),
            "regimes.own.set: there is no stage 'selct'; did you mean 'select'?; expected one of select, train",
        ),
        (
            own(DistillationStage(configs=["configs/distill/select.yaml"])),
            'regimes.own: no stage mentions {budget}, so that all budgets would be the same set; write "{budget}" ',
        ),
        (
            own(DistillationStage(configs=["no.yaml"], set={"a": "{budget}"})),
            "regimes.own.distill.select.configs: there is no file no.yaml (looked in the working folder, ",
        ),
        (
            own(BUDGET, train=Overrides(["no.yaml"])),
            "regimes.own.train.configs: there is no file no.yaml (looked in the working folder, ",
        ),
        (
            {"regimes": {"full": Regime(), "random": Regime(), "sharp": Regime(extends="sharpenin")}},
            "regimes.sharp: there is no regime 'sharpenin'; did you mean 'sharpening'?; known are band, ",
        ),
        (
            {"regimes": {"full": Regime(), "random": Regime(), "a b": Regime(extends="random")}},
            "regimes: 'a b' is no name of letters, digits, - and _, which folders are named after",
        ),
    ],
)
def test_problems_of_regimes(settings: dict[str, Any], line: str) -> None:
    (problem,) = problems(**settings)
    assert problem.startswith(line)


@pytest.mark.parametrize(
    ("teacher", "line"),
    [
        (
            Teacher(regime="random"),
            "teacher.regime: 'random' trains on a distilled set; expected one that trains on photographs",
        ),
        (
            Teacher(regime="ful"),
            "teacher.regime: the plan has no regime 'ful'; did you mean 'full'?; expected one of full, random, ",
        ),
        (Teacher(recipe="strong"), "teacher.recipe: the plan has no recipe 'strong'; expected one of default"),
        (
            Teacher(network="spam"),
            "teacher.network: there is no network 'spam'; did you mean 'span'?; expected one of ",
        ),
        (Teacher(weight=0.0), "teacher.weight: 0 is no share above 0 and up to 1"),
        (Teacher(seed=-2), "teacher.seed: -2 is no seed; expected 0 to 4294967295"),
        (
            Teacher(budgets=[5.0]),
            "teacher.budgets: 5 is none of the plan's budgets; leave it out, or add it to budgets",
        ),
    ],
)
def test_problems_of_the_teacher_matter_where_one_relabels(teacher: Teacher, line: str) -> None:
    (problem,) = problems(teacher=teacher, relabelling=[False, True])
    assert problem.startswith(line)
    assert problems(teacher=teacher) == []


def test_what_is_left_can_be_expanded() -> None:
    given = plan(
        budgets=[2.0, 250.0],
        networks=["edsr_tiny", "edsr_tyni"],
        recipes={"r": Recipe(["no.yaml", "{network}.yaml"])},
        configs=["no.yaml", "configs/data/bsd.yaml"],
        relabelling=[False, True],
        teacher=Teacher(regime="nobody"),
    )
    left = usable(given, sound_regimes(given)[0])
    assert (left.budgets, left.networks, left.relabelling) == ([2.0], ["edsr_tiny"], [False])
    assert left.recipes == {"r": Recipe(["{network}.yaml"])}
    assert left.configs == ["configs/data/bsd.yaml"]
    assert given.budgets == [2.0, 250.0]


Refuse = Callable[..., list[str]]


@pytest.fixture
def refuse(tmp_path: Path, tiny_photographs: Path) -> Refuse:
    """Gives the command line a plan on tiny pictures with changes, and returns the problems that it ends with."""

    def told(**changed: Any) -> list[str]:
        data = {"data.init_args.root": str(tiny_photographs), "data.init_args.patch_size": 32}
        tests = {"data.init_args.benchmarks": {"root": str(tiny_photographs.parent), "sets": ["tiny"]}}
        regimes: dict[str, Any] = {"full": {}, "random": {}}
        given = {"name": "bad", "regimes": regimes, "budgets": [2], **changed}
        given["set"] = {**data, **tests, **changed.get("set", {})}
        file, root = tmp_path / "bad.yaml", tmp_path / "root"
        file.write_text(yaml.safe_dump(given))
        with pytest.raises(SystemExit) as stop, exit_with_message():
            main(["compare", "--config", str(file), "--root", str(root), "--wandb", "disabled"])
        assert {path.name for path in root.glob("*")} <= {"memo"}
        first, *lines = str(stop.value.code).split("\n")
        count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
        assert first == f"error: the plan has {count}, and nothing was run:"
        assert all(line.startswith("  - ") for line in lines)
        return [line.removeprefix("  - ") for line in lines]

    return told


def test_problems_of_all_kinds_come_at_once(refuse: Refuse, tmp_path: Path, tiny_photographs: Path) -> None:
    """Regime, budget, network, test images and a stage that does not parse; and four more."""
    (tmp_path / "sets" / "empty" / "HR").mkdir(parents=True)
    benchmarks = {"root": str(tmp_path / "sets"), "sets": ["empty", "gone"]}
    lines = refuse(
        regimes={
            "full": {},
            "random": {},
            "randon": {},
            "wrong": {"extends": "random", "set": {"select": {"data.init_args.bugdet.percent": 3}}},
            "odd": {"extends": "random", "set": {"select": {"data.init_args.select_seed": "{sed}"}}},
            "fast": {"extends": "random", "set": {"train": {"trainer.max_steps": 7}}},
        },
        budgets=[2, 250],
        networks=["edsr_tiny", "edsr_tyni"],
        recipes={"r": {"configs": ["nowhere.yaml"], "set": {"data.init_args.augmentation": "strong"}}},
        set={"data.init_args.benchmarks": benchmarks},
    )
    folder = tmp_path / "sets"
    for line, expected in zip(
        lines,
        [
            "regimes.randon: there is no regime 'randon'; did you mean 'random'?; known are ",
            "budgets: 250 is no percentage above 0 and below 100",
            "networks: there is no network 'edsr_tyni'; did you mean 'edsr_tiny'?; expected one of ",
            "recipes.r.configs: there is no file nowhere.yaml (looked in ",
            "regimes.odd.distill.select.set.data.init_args.select_seed: '{sed}' has an unknown {sed}; known here are ",
            "wrong-select-2-s0: data: SelectedPatches has no option 'bugdet.percent'; did you mean 'budget'?",
            f"data.benchmarks: {folder / 'empty' / 'HR'}: no images; expected PNG, ",
            f"data.benchmarks: test set gone: no folder {folder / 'gone'}; put its images into ",
            "fast is trained with trainer.max_steps 7, but full with 3000; regimes may differ in their data only: set ",
        ],
        strict=True,
    ):
        assert line.startswith(expected)


def test_a_stage_behind_a_problem_is_looked_at_too(refuse: Refuse) -> None:
    """Mending the selection must not bring up what is wrong with the training."""
    lines = refuse(
        regimes={"random": {"set": {"select": {"data.init_args.bugdet": 3}, "train": {"trainer.max_stepz": 7}}}},
        reference="",
    )
    train = "random-train-2-edsr_tiny-default-s0"
    assert lines == [
        "random-select-2-s0: data: SelectedPatches has no option 'bugdet'; did you mean 'budget'?",
        f"{train}: there is no option 'trainer.max_stepz'; did you mean 'trainer.max_steps'?",
    ]


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ({"data.init_args.root": "nowhere"}, "data.root: no folder nowhere or "),
        ({"data.init_args.benchmarks.sets": []}, "data.benchmarks.sets: no test set is given; expected at least one"),
        (
            {"data.init_args.benchmarks.sets": ["tiny", "./tiny"]},
            "data.benchmarks.sets: two test sets are named tiny; leave one out, or rename its folder",
        ),
        ({"data.init_args.patch_size": 30}, "full-train-edsr_tiny-default-s0: data.patch_size is 30; expected a mult"),
        ({"ema.decay": 2}, "full-train-edsr_tiny-default-s0: ema.decay is 2.0; expected"),
        ({"trainer.max_steps": "many"}, "full-train-edsr_tiny-default-s0: trainer.max_steps: got many, expected int"),
        (
            {"model.init_args.teachr": 1},
            "full-train-edsr_tiny-default-s0: model: SuperResolution has no option 'teachr'",
        ),
    ],
)
def test_problems_of_settings(setting: dict[str, Any], line: str, refuse: Refuse) -> None:
    (problem,) = refuse(regimes={"full": {}}, budgets=[], baseline="", set=setting)
    assert problem.startswith(line)


def test_a_test_set_with_the_name_of_the_mean(refuse: Refuse, tmp_path: Path, tiny_photographs: Path) -> None:
    (tmp_path / "mean").symlink_to(tiny_photographs)
    sets = {"data.init_args.benchmarks": {"root": str(tmp_path), "sets": ["mean"]}}
    (problem,) = refuse(regimes={"full": {}}, budgets=[], baseline="", set=sets)
    assert problem == "data.benchmarks.sets: 'mean' is what tables call the mean over test sets; rename the folder"


def test_networks_are_built_once_before_anything_runs(
    refuse: Refuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that exists, with an architecture that does not; and one whose package is not installed."""
    file = tmp_path / "mine.yaml"
    file.write_text("model: {init_args: {network: {architecture: EDSRR}}}")
    (problem,) = refuse(regimes={"full": {}}, budgets=[], baseline="", networks=[str(file)])
    assert problem.startswith("full-train-mine-default-s0: unknown network 'EDSRR' (did you mean 'EDSR'?)")
    for module in ("spandrel_extra_arches", "spandrel_extra_arches.architectures.SRFormer"):
        monkeypatch.setitem(sys.modules, module, None)
    (problem,) = refuse(regimes={"full": {}}, budgets=[], baseline="", networks=["srformer_light"])
    assert problem.startswith("full-train-srformer_light-default-s0: ")
    assert 'pip install "srdistill[extra-archs]"' in problem


def test_what_regimes_must_have_in_common(refuse: Refuse) -> None:
    """`full` is trained first, so it is named second."""
    different = {
        "data.init_args.augmentation": "plain",
        "data.init_args.batch_size": 4,
        "data.init_args.num_workers": 1,
        "trainer.precision": "bf16-mixed",
        "trainer.gradient_clip_val": 0.5,
        "checkpoint.every_n_steps": 7,
        "model.init_args.optimizer.init_args.lr": 0.5,
    }
    lines = refuse(regimes={"full": {}, "random": {"set": {"train": different}}})
    told = {line.removeprefix("random is trained with ").split(" ", 1)[0]: line for line in lines}
    assert told.keys() == {
        *("data.init_args.augmentation", "data.init_args.batch_size", "trainer.precision"),
        *("trainer.gradient_clip_val", "checkpoint", "model.init_args.optimizer"),
    }
    assert told["data.init_args.batch_size"] == (
        "random is trained with data.init_args.batch_size 4, but full with 16; "
        "regimes may differ in their data only: set it in the recipe"
    )


def test_networks_and_recipes_may_differ() -> None:
    """Each has a fair comparison of its own."""
    cells = [Cell("full", False, *other, None, 0) for other in (("r", "a"), ("r", "b"), ("s", "a"))]
    trainings = [Training(cell, (), None, f"train{number}", "") for number, cell in enumerate(cells)]
    configs = {training.train: resolved(lr) for training, lr in zip(trainings, (1, 2, 3), strict=True)}
    assert unfair(trainings, configs) == []
    random = Training(Cell("random", True, "r", "b", 2.0, 5), (), "select", "other", "")
    assert unfair([*trainings, random], {**configs, "other": resolved(2)}) == []
    (line,) = unfair([*trainings, random], {**configs, "other": resolved(1)})
    assert line.startswith("random is trained with model.init_args.optimizer 1, but full with 2; ")


def resolved(lr: float) -> dict[str, Any]:
    """As much of a configuration as is compared."""
    model = {"class_path": "SuperResolution", "init_args": {"optimizer": lr}}
    return {"model": model, "data": {"init_args": {}}, "trainer": {}, "ema": {}, "checkpoint": {}}
