"""Plans made ready: what is parsed and how often, what is remembered, and the tasks that come out."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from cli.app import SRDistillCLI
from comparison.planning import resolve
from comparison.planning.degradation import degradation_of
from comparison.planning.plan import Plan, Recipe, Regime, Teacher
from comparison.planning.prepare import PlanError, Prepared, prepare
from datamodules.degradation import Chain, GaussianNoise, Haze, OneOf
from main import main

Parsed = list[Sequence[str]]


def study(photographs: Path, **changed: Any) -> Plan:
    tests = {"root": str(photographs.parent), "sets": ["tiny"]}
    data = {"data.init_args.root": str(photographs), "data.init_args.patch_size": 32}
    plan: dict[str, Any] = {
        "regimes": {"full": Regime(), "random": Regime(), "sharpening": Regime()},
        "budgets": [2.0, 5.0],
        "recipes": {"r": Recipe(set={"trainer.max_steps": 4, "data.init_args.augmentation": "plain"})},
        "seeds": [0, 1],
        "relabelling": [False, True],
        "set": {**data, "data.init_args.benchmarks": tests},
        **changed,
    }
    return Plan(**{"name": "study", **plan})


@pytest.fixture(scope="module")
def memo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root") / "memo"


@pytest.fixture(scope="module")
def prepared(memo: Path, tiny_photographs: Path) -> tuple[Prepared, Parsed]:
    """A plan, and the command lines that were parsed for it."""
    with pytest.MonkeyPatch.context() as patch:
        parsed = counting(patch)
        return prepare(study(tiny_photographs), memo), parsed


def counting(patch: pytest.MonkeyPatch) -> Parsed:
    """Command lines as they are parsed."""
    lines: Parsed = []
    parse = resolve._parse
    patch.setattr(resolve, "_parse", lambda words: lines.append(words) or parse(words))
    return lines


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Parsed:
    return counting(monkeypatch)


@pytest.fixture
def copied(prepared: tuple[Prepared, Parsed], memo: Path, tmp_path: Path) -> Path:
    """The memo of that plan, to be changed."""
    return Path(shutil.copytree(memo, tmp_path / "memo"))


def test_what_differs_only_in_its_input_is_parsed_once(prepared: tuple[Prepared, Parsed]) -> None:
    """Trainings on photographs and on sets, each for two seeds; selections of two regimes, budgets and seeds; relabel.

    Tests are told what their trainings were, and trainings on different sets differ in nothing else.
    """
    found, parsed = prepared
    assert len(found.tasks) == 2 * (2 + 2 * 2 * 6)
    assert len(parsed) == 2 + 2 + 2 * 2 * 2 + 1
    assert not any("--ckpt_path" in words for words in parsed)


def test_a_second_time_nothing_is_parsed(
    prepared: tuple[Prepared, Parsed], copied: Path, tiny_photographs: Path, parsed: Parsed
) -> None:
    assert prepare(study(tiny_photographs), copied) == prepared[0]
    assert parsed == []


def test_one_more_seed_parses_what_is_new(copied: Path, tiny_photographs: Path, parsed: Parsed) -> None:
    prepare(study(tiny_photographs, seeds=[0, 1, 2]), copied)
    assert len(parsed) == 2 + 2 * 2


def test_plans_that_share_a_folder_do_not_make_each_other_forget(
    copied: Path, tiny_photographs: Path, parsed: Parsed
) -> None:
    prepare(study(tiny_photographs, name="other", regimes={"full": Regime()}, budgets=[], baseline=""), copied)
    assert len(parsed) == 2
    prepare(study(tiny_photographs), copied)
    assert len(parsed) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"a": 1}', "\ufffe\x00"])
def test_a_damaged_memo_is_made_anew(
    text: str, prepared: tuple[Prepared, Parsed], copied: Path, tiny_photographs: Path, parsed: Parsed
) -> None:
    """So is that of files, whose digests are the same when they are read again."""
    files = list(copied.rglob("*.json"))
    assert len(files) == 2
    (resolved,) = (copied / "resolved").iterdir()
    before = json.loads(resolved.read_text())
    for path in files:
        path.write_text(text)
    plan = study(tiny_photographs, relabelling=[False], regimes={"full": Regime()}, budgets=[], baseline="")
    assert prepare(plan, copied).keys.items() <= prepared[0].keys.items()
    assert len(parsed) == 2
    after = json.loads(resolved.read_text())
    assert len(after) == 2
    assert after.items() <= before.items()


def test_changed_code_is_parsed_anew(
    copied: Path, tiny_photographs: Path, parsed: Parsed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its defaults may be others."""
    monkeypatch.setattr(resolve, "code_digest", lambda: "changed")
    prepare(study(tiny_photographs, regimes={"full": Regime()}, budgets=[], baseline="", seeds=[0]), copied)
    assert len(parsed) == 1


def test_a_plan_with_a_problem_remembers_what_had_none(tiny_photographs: Path, tmp_path: Path, parsed: Parsed) -> None:
    only_full: dict[str, Any] = {"regimes": {"full": Regime()}, "budgets": [], "baseline": "", "seeds": [0]}
    bad = study(tiny_photographs, **only_full, networks=["edsr_tiny", "edsr_tyni"])
    with pytest.raises(PlanError, match="the plan has 1 problem, and nothing was run:\n  - networks: there is no"):
        prepare(bad, tmp_path)
    prepare(study(tiny_photographs, **only_full), tmp_path)
    assert len(parsed) == 1


def test_problems_are_counted() -> None:
    assert str(PlanError(["a", "b"])) == "the plan has 2 problems, and nothing was run:\n  - a\n  - b"


def test_every_stage_is_a_task(prepared: tuple[Prepared, Parsed]) -> None:
    found = prepared[0]
    by_name = {task.stage.name: task for task in found.tasks}
    assert by_name.keys() == found.configs.keys() == found.keys.keys()
    for training in found.trainings:
        for name in (*training.distill, training.train, training.test):
            assert by_name[name].stage.name == name
    assert {task.updates for task in found.tasks if task.stage.command == "fit"} == {4}
    assert {task.updates for task in found.tasks if task.stage.command != "fit"} == {None}


def test_lengths_in_epochs_are_refused(tiny_photographs: Path, tmp_path: Path) -> None:
    """An epoch of few patches is fewer updates than one of many: such a recipe would favour full data."""
    settings = {"trainer.max_steps": -1, "trainer.max_epochs": 2, "data.init_args.augmentation": "plain"}
    with pytest.raises(PlanError, match=r"recipes\.r: its length is not a number of updates"):
        prepare(study(tiny_photographs, recipes={"r": Recipe(set=settings)}), tmp_path)


def test_recipes_of_two_scales_are_refused(tiny_photographs: Path, tmp_path: Path) -> None:
    """Their PSNR would stand in one table, above one bicubic."""
    short = {"trainer.max_steps": 4, "data.init_args.augmentation": "plain"}
    recipes = {f"x{scale}": Recipe(set={**short, "data.init_args.scale": scale}) for scale in (2, 4)}
    with pytest.raises(PlanError, match=r"data\.init_args\.scale: trainings differ \(2, 4\)"):
        prepare(study(tiny_photographs, recipes=recipes), tmp_path)


RESTORING = {"data.init_args.scale": 1, "trainer.max_steps": 4, "data.init_args.augmentation": "plain"}


def noise(sigma: float) -> list[dict[str, Any]]:
    return [{"class_path": "GaussianNoise", "init_args": {"sigma": sigma}}]


def test_recipes_of_two_degradations_are_refused(tiny_photographs: Path, tmp_path: Path) -> None:
    """They are different tasks, the one harder than the other."""
    recipes = {
        f"sigma{sigma}": Recipe(set={**RESTORING, "data.init_args.degradation": noise(sigma)}) for sigma in (15, 50)
    }
    plan = study(tiny_photographs, regimes={"full": Regime()}, budgets=[], baseline="", recipes=recipes)
    with pytest.raises(PlanError, match="has 1 problem") as told:
        prepare(plan, tmp_path)
    (problem,) = str(told.value).splitlines()[1:]
    assert re.match(
        r"  - data\.init_args\.degradation: trainings differ \(.*15.*50.*\) and do not compare; set", problem
    )


def test_a_test_with_more_tasks_takes_longer(tiny_photographs: Path, tmp_path: Path) -> None:
    """Each choice is a test set of its own."""
    several = [{"class_path": "OneOf", "init_args": {"choices": [*noise(25), {"class_path": "JPEG"}]}}]
    signatures = []
    for degradation in (noise(25), several):
        recipe = Recipe(set={**RESTORING, "data.init_args.degradation": degradation})
        plan = study(tiny_photographs, regimes={"full": Regime()}, budgets=[], baseline="", recipes={"r": recipe})
        signatures.append({task.stage.command: task.signature for task in prepare(plan, tmp_path).tasks})
    assert signatures[0]["test"] != signatures[1]["test"]
    assert signatures[0]["fit"] == signatures[1]["fit"]


def test_degraded_test_sets_are_opened_as_the_runs_open_them(tiny_photographs: Path, tmp_path: Path) -> None:
    """LR files are of no concern where LR is made by a degradation: that one is missing is no problem of the plan."""
    folder = tmp_path / "sets" / "paired"
    shutil.copytree(tiny_photographs, folder / "HR")
    (folder / "LRbicx4").mkdir()
    shutil.copy(tiny_photographs / "0.png", folder / "LRbicx4")
    tests = {"root": str(folder.parent), "sets": ["paired"]}
    plan = study(tiny_photographs, regimes={"full": Regime()}, budgets=[], baseline="", seeds=[0])
    plan.set["data.init_args.benchmarks"] = tests
    with pytest.raises(PlanError, match=r"data\.benchmarks: test set paired: 4 HR images"):
        prepare(plan, tmp_path / "memo")
    blind = [{"class_path": "Bicubic", "init_args": {"scale": 4}}, *noise(5)]
    plan.set["data.init_args.degradation"] = blind
    assert prepare(plan, tmp_path / "memo").trainings


def test_degradation_of_a_resolved_configuration(tiny_photographs: Path, tmp_path: Path) -> None:
    """Nested choices too, with the options that the plan gives."""
    choices = [*noise(40), {"class_path": "Haze", "init_args": {"beta": 1.5}}]
    given = [{"class_path": "OneOf", "init_args": {"choices": choices}}]
    recipe = Recipe(set={**RESTORING, "data.init_args.degradation": given})
    plan = study(
        tiny_photographs, regimes={"full": Regime()}, budgets=[], baseline="", seeds=[0], recipes={"r": recipe}
    )
    config = prepare(plan, tmp_path).configs["full-test-edsr_tiny-r-s0"]["data"]["init_args"]
    chain = degradation_of(config)
    assert chain is not None
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = OneOf([GaussianNoise(sigma=40), Haze(beta=1.5)])
    for index in range(4):
        number = torch.tensor([index])
        assert torch.equal(chain(images, number, 3), Chain([expected])(images, number, 3))
    assert degradation_of({"scale": 4, "degradation": []}) is None


def test_signatures_are_of_what_takes_equally_long(copied: Path, tiny_photographs: Path) -> None:
    """Fits on photographs and on sets; tests; selections by one criterion, and by another; relabelling."""
    dense = Regime(extends="random", set={"select": {"data.init_args.candidate_stride": 8}})
    plan = study(tiny_photographs, regimes={**study(tiny_photographs).regimes, "lowest_psnr": Regime(), "dense": dense})
    groups: dict[str, set[str]] = {}
    for task in prepare(plan, copied).tasks:
        step = next(step for step in ("train", "test", "select", "relabel") if f"-{step}-" in task.stage.name)
        groups.setdefault(task.signature, set()).add(f"{task.stage.labels['regime']} " * (step == "select") + step)
    selections = [["dense select"], ["lowest_psnr select"], ["random select", "sharpening select"]]
    assert sorted(map(sorted, groups.values())) == [*selections, ["relabel"], ["test"], ["train"]]


def test_settings_arrive_in_the_order_that_the_plan_promises(tiny_photographs: Path, tmp_path: Path) -> None:
    """Plan below network below recipe below what belongs to a regime; small numbers stay numbers."""
    network = tmp_path / "mine.yaml"
    network.write_text(
        "{model: {init_args: {network: {architecture: EDSR, options: {n_feats: 4}}}}, ema: {decay: 0.2}}"
    )
    recipe = Recipe(set={"trainer.gradient_clip_val": 0.00002, "data.init_args.augmentation": "strong"})
    changes = {"train": {"data.init_args.num_workers": 1}}
    everywhere = {"ema.decay": 0.1, "trainer.gradient_clip_val": 0.1, "data.init_args.num_workers": 3}
    plan = study(
        tiny_photographs,
        regimes={"full": Regime(set=changes)},
        networks=[str(network)],
        recipes={"r": recipe},
        budgets=[],
        baseline="",
        seeds=[5],
    )
    plan.set.update(everywhere)
    config = prepare(plan, tmp_path / "memo").configs["full-train-mine-r-s5"]
    assert config["seed_everything"] == 5
    assert config["ema"]["decay"] == 0.2
    assert config["trainer"]["gradient_clip_val"] == 0.00002
    assert config["data"]["init_args"]["augmentation"] == "strong"
    assert config["data"]["init_args"]["num_workers"] == 1
    assert config["model"]["init_args"]["network"]["options"]["n_feats"] == 4


def test_resolved_is_what_a_run_writes(tiny: list[str], tmp_path: Path) -> None:
    """`config.yaml` of a run of the same words, but for where it writes."""
    words = [word for word in tiny if word not in {"--run.root", str(tmp_path / "runs")}]
    resolver = resolve.Resolver(tmp_path / "memo.json")
    resolved = resolver.resolve(["--config", "configs/sr/full.yaml", *words])
    cli = main(["fit", "--config", "configs/sr/full.yaml", *tiny])
    assert isinstance(cli, SRDistillCLI)
    written = yaml.safe_load((cli.run_dir / "config.yaml").read_text())
    written["trainer"]["default_root_dir"] = None
    assert {key: value for key, value in written.items() if key not in resolve.PLACES} == resolved


@pytest.mark.parametrize("network", [None, "edsr_tiny"])
def test_a_teacher_by_name_or_not(network: str | None, tiny_photographs: Path, copied: Path) -> None:
    """The only network of the plan is the same either way."""
    plan = study(tiny_photographs, seeds=[0], teacher=Teacher(network=network))
    relabel = [task for task in prepare(plan, copied).tasks if "relabel" in task.stage.name]
    assert {task.stage.needs[-1] for task in relabel} == {"full-train-edsr_tiny-r-s0"}
