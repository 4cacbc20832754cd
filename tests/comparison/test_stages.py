"""Expansion of plans: counts by formula, names and words by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from comparison.planning.plan import ROOT, DistillationStage, Overrides, Plan, Recipe, Regime, Teacher
from comparison.planning.stages import Expanded, Stage, expand

PERCENT, SEED, NUMBER = "data.init_args.budget.percent", "data.init_args.select_seed", "data.init_args.num_workers"


def selection(**settings: Any) -> DistillationStage:
    return DistillationStage(configs=["configs/distill/select.yaml"], set=settings)


def distilled(*stages: DistillationStage, **settings: Any) -> Regime:
    return Regime(distill=list(stages) or [selection(**{PERCENT: "{budget}", SEED: "{seed}"})], **settings)


def expanded(regimes: Mapping[str, Regime], **settings: Any) -> Expanded:
    return expand(Plan("study", dict(regimes), **settings), regimes)


def stages(regimes: Mapping[str, Regime], **settings: Any) -> dict[str, Stage]:
    """By name; there are no problems."""
    found = expanded(regimes, **settings)
    assert not found.problems
    named = {stage.name: stage for stage in found.stages}
    assert len(named) == len(found.stages)
    return named


def values(stage: Stage) -> dict[str, str]:
    """The last value of each option."""
    pairs = [word.split("=", 1) for word in stage.words if re.match("--[^=]*=", word)]
    spaced = [word for word in stage.words if not re.match("--[^=]*=", word)]
    return {key.removeprefix("--"): value for key, value in [*zip(spaced[::2], spaced[1::2], strict=True), *pairs]}


def configs(stage: Stage) -> list[str]:
    return [value for key, value in zip(stage.words, stage.words[1:], strict=False) if key == "--config"]


WIDE: dict[str, Any] = {
    "budgets": [0.68, 2.0, 10.0],
    "networks": ["edsr_tiny", "span"],
    "recipes": {"plain": Recipe(), "strong": Recipe()},
    "seeds": [0, 7],
}
REGIMES = {"full": Regime(), "random": distilled(), "hard": distilled()}


def test_counts_of_a_product() -> None:
    """Seeds x networks x recipes x (full + 2 regimes x 3 budgets), each fit and test; sets are of budget and seed."""
    found = expanded(REGIMES, **WIDE)
    assert len(found.trainings) == 2 * 2 * 2 * (1 + 2 * 3) == 56
    assert len(found.stages) == 2 * 56 + 2 * 3 * 2
    assert {stage.kind for stage in found.stages if stage.command == "predict"} == {"distill"}
    assert len({training.cell for training in found.trainings}) == 56


def test_counts_with_a_teacher() -> None:
    """The teacher of each network and recipe, of seed 0, is one of the plan's trainings; each relabels each set."""
    found = expanded(REGIMES, **WIDE, relabelling=[False, True])
    with_teacher = 2 * 2 * 2 * 2 * 3
    assert len(found.trainings) == 56 + with_teacher == 104
    assert len(found.stages) == 2 * 104 + 12 + with_teacher
    assert sum(training.cell.teacher for training in found.trainings) == with_teacher


def test_counts_with_one_teacher_for_all() -> None:
    """A set is relabelled once for all networks and recipes; the teacher's network and seed are its own."""
    teacher = Teacher(network="compact", recipe="plain", seed=3)
    found = expanded(REGIMES, **WIDE, relabelling=[True], teacher=teacher)
    assert len(found.trainings) == 8 + 48  # full data have no teacher
    assert len(found.stages) == 2 * 56 + 12 + 12 + 1
    teachers = {need for stage in found.stages if stage.kind == "distill" for need in stage.needs if "train" in need}
    assert teachers == {"full-train-compact-plain-s3"}


def test_names_are_unique_and_folders_anywhere() -> None:
    """A letter first, then nothing that Windows or a shell reads as anything else, and no point last."""
    names = [stage.name for stage in expanded(REGIMES, **WIDE, relabelling=[False, True]).stages]
    assert len({name.casefold() for name in names}) == len(names)
    assert all(re.fullmatch(r"[a-z][\w.-]*\w", name, re.ASCII) for name in names)
    assert "random-select-0.68-s7" in names
    assert "hard-teacher-train-10-span-strong-s7" in names


def test_needs_come_first_and_are_what_words_read() -> None:
    seen: set[str] = set()
    for stage in expanded(REGIMES, **WIDE, relabelling=[False, True]).stages:
        assert set(stage.needs) <= seen
        assert set(stage.needs) == set(re.findall(r"\{output:(.*?)\}", " ".join(stage.words)))
        seen.add(stage.name)


def test_whole_tables_come_first() -> None:
    """Seeds vary slowest, then budgets; regimes fastest."""
    cells = [training.cell for training in expanded(REGIMES, **WIDE).trainings]
    assert [cell.seed for cell in cells] == [0] * 28 + [7] * 28
    assert [cell.budget for cell in cells[:28:4]] == [None, 0.68, 0.68, 2, 2, 10, 10]
    assert [cell.regime for cell in cells[4:8]] == ["random", "hard"] * 2


def test_words_of_a_selection_and_its_training() -> None:
    regime = distilled(train=Overrides(set={"trainer.log_every_n_steps": 5}), set={"train": {NUMBER: 1}})
    recipe = Recipe(set={"trainer.max_steps": 9})
    everywhere = {"configs": ["configs/trainer/cpu.yaml"], "set": {"data.init_args.scale": 2}}
    found = stages({"random": regime}, budgets=[2.0], recipes={"r": recipe}, seeds=[4], **everywhere)
    select = found["random-select-2-s4"]
    assert [str(Path(config)) for config in configs(select)] == names_of("configs/distill/select.yaml", "cpu")
    assert values(select) | {"config": ""} == {
        "config": "",
        "data.init_args.scale": "2",
        PERCENT: "2.0",
        SEED: "4",
    }
    train = found["random-train-2-edsr_tiny-r-s4"]
    assert configs(train) == names_of("configs/sr/distilled.yaml", "cpu", "configs/sr/network/edsr_tiny.yaml")
    assert values(train) | {"config": ""} == {
        "config": "",
        "trainer.log_every_n_steps": "5",
        "data.init_args.scale": "2",
        "trainer.max_steps": "9",
        NUMBER: "1",
        "data.init_args.distilled": "{output:random-select-2-s4}",
        "seed_everything": "4",
    }
    test = found["random-test-2-edsr_tiny-r-s4"]
    assert test.words[:-2] == train.words
    assert test.words[-2:] == ("--ckpt_path", "{output:random-train-2-edsr_tiny-r-s4}/checkpoints/last.ckpt")
    assert test.with_outputs({"random-train-2-edsr_tiny-r-s4": "run", "random-select-2-s4": "set"})[-3:] == [
        *("4", "--ckpt_path", "run/checkpoints/last.ckpt")
    ]


def names_of(*files: str) -> list[str]:
    """As words name files of the framework: relative to the working folder, which these tests run in."""
    paths = [ROOT / (f"configs/trainer/{file}.yaml" if "/" not in file else file) for file in files]
    return [str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path) for path in paths]


def test_files_are_absolute_in_another_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.yaml").write_text("{}")
    monkeypatch.chdir(tmp_path)
    found = stages({"full": Regime()}, configs=["own.yaml", "configs/trainer/cpu.yaml"])
    assert configs(found["full-train-edsr_tiny-default-s0"]) == [
        str(ROOT / "configs/sr/full.yaml"),
        "own.yaml",
        str(ROOT / "configs/trainer/cpu.yaml"),
        str(ROOT / "configs/sr/network/edsr_tiny.yaml"),
    ]


def test_a_network_by_path_is_named_after_its_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("{}")
    found = stages({"full": Regime()}, networks=[str(file)])
    assert configs(found["full-train-mine-default-s0"])[-1] == str(file)


def test_labels_hold_what_a_stage_differs_in() -> None:
    found = stages(REGIMES, **WIDE, relabelling=[True])
    assert found["random-select-2-s7"].labels == {"regime": "random", "teacher": False, "budget": 2.0, "seed": 7}
    assert found["full-test-span-plain-s0"].labels == {
        "regime": "full",
        "teacher": False,
        "network": "span",
        "recipe": "plain",
        "seed": 0,
    }
    relabel = found["random-teacher-relabel-2-span-plain-s7"]
    assert relabel.labels["teacher"] is True
    assert relabel.labels["network"] == "span"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["random-select"]),
        ({PERCENT: "{budget}"}, ["random-select-0.68", "random-select-2", "random-select-10"]),
        ({SEED: "{seed}"}, ["random-select-s0", "random-select-s7"]),
        ({"notes": ["for {network}"]}, ["random-select-edsr_tiny", "random-select-span"]),
        ({"notes": {"deep": "{recipe}"}}, ["random-select-plain", "random-select-strong"]),
    ],
)
def test_a_stage_is_shared_by_all_that_agree_in_what_it_mentions(settings: dict, expected: list[str]) -> None:
    found = stages({"random": distilled(selection(**settings))}, **WIDE)
    assert [name for name, stage in found.items() if stage.kind == "distill"] == expected
    assert sum(stage.kind == "train" for stage in found.values()) == 2 * 2 * 2 * 3


def test_what_the_whole_plan_mentions_counts_too() -> None:
    """Otherwise seed 7 would be given what was selected with seed 0."""
    found = stages(
        {"random": distilled(selection())}, seeds=[0, 7], budgets=[2.0], set={"data.init_args.seed": "{seed}"}
    )
    assert [name for name in found if "select" in name] == ["random-select-s0", "random-select-s7"]
    assert values(found["random-select-s7"])["data.init_args.seed"] == "7"


def test_a_chain_reads_the_stages_before_it_and_differs_in_what_they_do() -> None:
    scorer = DistillationStage(name="scorer", command="fit", set={"seed_everything": "{seed}"})
    reading = {PERCENT: "{budget}", "data.init_args.criterion.init_args.checkpoint": "{scorer}"}
    chain = distilled(scorer, selection(**reading))
    found = expanded({"gain": chain}, budgets=[2.0, 5.0], seeds=[0, 1])
    named = {stage.name: stage for stage in found.stages}
    assert [name for name in named if "scorer" in name] == ["gain-scorer-s0", "gain-scorer-s1"]
    select = named["gain-select-5-s1"]
    assert select.needs == ("gain-scorer-s1",)
    assert values(select)["data.init_args.criterion.init_args.checkpoint"] == "{output:gain-scorer-s1}"
    assert found.trainings[-1].distill == ("gain-scorer-s1", "gain-select-5-s1")
    assert found.trainings[-1].distilled == "gain-select-5-s1"


def test_a_teacher_is_the_full_training_of_the_same_network_and_recipe() -> None:
    found = expanded(REGIMES, **WIDE, relabelling=[False, True], teacher=Teacher(weight=0.25))
    named = {stage.name: stage for stage in found.stages}
    relabel = named["random-teacher-relabel-2-span-strong-s7"]
    assert relabel.needs == ("random-select-2-s7", "full-train-span-strong-s0")
    assert values(relabel)["model.init_args.teacher"] == "{output:full-train-span-strong-s0}"
    assert values(relabel)["model.init_args.weight"] == "0.25"
    (training,) = [one for one in found.trainings if one.train == "random-teacher-train-2-span-strong-s7"]
    assert training.cell == ("random", True, "strong", "span", 2.0, 7)
    assert training.distill == ("random-select-2-s7", "full-train-span-strong-s0", relabel.name)
    assert training.distilled == relabel.name


def test_photographs_as_they_are_have_no_teacher() -> None:
    for relabelling in ([True], [False, True]):
        cells = [training.cell for training in expanded(REGIMES, **WIDE, relabelling=relabelling).trainings]
        assert sum(cell.regime == "full" for cell in cells) == 8
        assert not any(cell.teacher for cell in cells if cell.regime == "full")
        assert all(cell.budget is None for cell in cells if cell.regime == "full")


def test_budgets_of_recipes_and_of_the_teacher() -> None:
    recipes = {"strong": Recipe(), "plain": Recipe(budgets=[0.68])}
    teacher = Teacher(recipe="strong", budgets=[10])
    found = expanded(REGIMES, budgets=[0.68, 10.0], recipes=recipes, relabelling=[False, True], teacher=teacher)
    random = [training.cell for training in found.trainings if training.cell.regime == "random"]
    assert {(cell.budget, cell.recipe, cell.teacher) for cell in random} == {
        (0.68, "strong", False),
        (0.68, "plain", False),
        (10.0, "strong", False),
        (10.0, "strong", True),
    }
    full = [training.cell.recipe for training in found.trainings if training.cell.regime == "full"]
    assert full == ["strong", "plain"]


def test_a_value_that_is_one_placeholder_keeps_its_type() -> None:
    own = {PERCENT: "{budget}", "a": "p{budget}", "b": ["{seed}", {"c": "{seed}-{network}"}], "d": None, "e": True}
    found = stages({"random": distilled(selection(**own))}, budgets=[0.68])
    given = values(found["random-select-0.68-edsr_tiny-s0"])
    assert given[PERCENT] == "0.68"
    assert given["a"] == "p0.68"
    assert given["b"] == '[0, {"c": "0-edsr_tiny"}]'
    assert given["d"] == "null"
    assert given["e"] == "true"


def test_a_negative_number_is_no_option() -> None:
    found = stages({"full": Regime()}, set={"ema.decay": -0.00001})
    assert "--ema.decay=-1e-05" in found["full-train-edsr_tiny-default-s0"].words


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"regimes": {"random": distilled(selection(**{PERCENT: "{bugdet}"}))}},
            f"regimes.random.distill.select.set.{PERCENT}: '{{bugdet}}' has an unknown {{bugdet}}; known here are bud",
        ),
        (
            {"regimes": {"random": distilled(DistillationStage(configs=["{later}.yaml"]), selection())}},
            "regimes.random.distill.select.configs: '{later}.yaml' has an unknown {later}; known here are budget, ",
        ),
        ({"set": {"a": "{select}"}}, "set.a: '{select}' has an unknown {select}; known here are budget, "),
        ({"recipes": {"r": Recipe(set={"b": "{teacher}"})}}, "recipes.r.set.b: '{teacher}' has an unknown {teacher}; "),
    ],
)
def test_an_unknown_placeholder_is_one_line(settings: dict, line: str) -> None:
    found = expanded(**{"regimes": {"random": distilled()}, "budgets": [2.0, 5.0], "seeds": [0, 1], **settings})
    (problem,) = found.problems
    assert problem.startswith(line)
    assert not found.trainings


def test_one_unknown_placeholder_leaves_other_trainings() -> None:
    bad = {"odd": distilled(selection(**{PERCENT: "{x}"})), "worse": distilled(selection(**{PERCENT: "{y}"}))}
    found = expanded({**REGIMES, **bad}, budgets=[2.0])
    assert len(found.problems) == 2
    assert [training.cell.regime for training in found.trainings] == ["full", "random", "hard"]


def test_names_that_run_together_are_refused(tmp_path: Path) -> None:
    """The relabelled `random` and a regime `random-teacher` would be one; so would x with y-z, and x-y with z."""
    regimes = {"full": Regime(), "random": distilled(), "random-teacher": distilled()}
    found = expanded(regimes, budgets=[2.0], relabelling=[False, True])
    assert any("two different stages have the name random-teacher-train-2-edsr_tiny" in line for line in found.problems)
    networks = [tmp_path / "x.yaml", tmp_path / "x-y.yaml"]
    for network in networks:
        network.write_text("{}")
    recipes = {"z": Recipe(), "y-z": Recipe()}
    (line,) = expanded({"full": Regime()}, networks=[str(network) for network in networks], recipes=recipes).problems
    assert line.startswith("two different stages have the name full-train-x-y-z-s0, made of the names of regime, ")
