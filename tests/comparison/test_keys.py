"""What changes the key of a stage, and what does not: by changing one thing and comparing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from comparison.planning.plan import ROOT, Plan, Recipe, Regime, Teacher
from comparison.planning.prepare import prepare
from datamodules.image_files import find_images

TRAIN, TEST, SELECT = "train", "test", "select"
Keys = dict[str, str]
Compute = Callable[..., Keys]


@pytest.fixture(scope="module")
def photographs(tiny_photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder: `train`, and the test sets `tiny` and `other`."""
    folder = tmp_path_factory.mktemp("photographs")
    for name in ("train", "tiny", "other"):
        shutil.copytree(tiny_photographs, folder / name)
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    file.write_text("{model: {init_args: {optimizer: {class_path: torch.optim.Adam, init_args: {lr: 1.0e-3}}}}}")
    return file


@pytest.fixture(scope="module")
def memo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the plan without changes, which each test starts from."""
    return tmp_path_factory.mktemp("memo")


@pytest.fixture
def keys(photographs: Path, recipe: Path, memo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compute:
    """Computes the keys of a plan with changes; each test starts from copies that it may change."""
    data, own = tmp_path / "data", tmp_path / "recipe.yaml"
    shutil.copytree(photographs, data)
    shutil.copy(recipe, own)
    monkeypatch.setenv("SRDISTILL_DATA", str(data))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(memo, tmp_path / "memo")

    def computed(*, at: str = "memo", **changed: Any) -> Keys:
        found = prepare(study(**changed), tmp_path / at).keys
        if not any(memo.iterdir()):
            shutil.copytree(tmp_path / at, memo, dirs_exist_ok=True)
        return found

    return computed


def study(**changed: Any) -> Plan:
    tests = {"data.init_args.benchmarks": {"sets": ["tiny"]}, "data.init_args.patch_size": 32}
    settings = {"trainer.max_steps": 4, "data.init_args.augmentation": "plain"}
    plan: dict[str, Any] = {
        "regimes": {"full": Regime(), "random": Regime()},
        "budgets": [2.0],
        "recipes": {"r": Recipe(["recipe.yaml"], {**settings, **changed.pop("recipe", {})})},
        "relabelling": [False, True],
        "set": {"data.init_args.root": "train", **tests, **changed.pop("settings", {})},
        **changed,
    }
    return Plan(**{"name": "study", **plan})


def changed(one: Keys, other: Keys) -> set[str]:
    """Names of stages whose keys differ; both plans have the same stages."""
    assert one.keys() == other.keys()
    return {name for name in one if one[name] != other[name]}


def of(names: Iterable[str], *steps: str) -> set[str]:
    return {name for name in names if any(f"-{step}-" in name for step in steps)}


ALL_STEPS = {
    "full-train-edsr_tiny-r-s0": TRAIN,
    "full-test-edsr_tiny-r-s0": TEST,
    "random-select-2-s0": SELECT,
    "random-train-2-edsr_tiny-r-s0": TRAIN,
    "random-test-2-edsr_tiny-r-s0": TEST,
    "random-teacher-relabel-2-edsr_tiny-r-s0": "relabel",
    "random-teacher-train-2-edsr_tiny-r-s0": TRAIN,
    "random-teacher-test-2-edsr_tiny-r-s0": TEST,
}


def test_stages_have_keys_of_their_own(keys: Compute) -> None:
    found = keys()
    assert found.keys() == ALL_STEPS.keys()
    assert len(set(found.values())) == len(found)
    assert {len(key) for key in found.values()} == {64}


def test_nothing_changed(keys: Compute, tmp_path: Path) -> None:
    """Another root, name, title and number of crops, files only touched, and stages of another plan beside them."""
    first = keys()
    assert keys(at="another") == first
    os.utime(tmp_path / "recipe.yaml", (1, 1))
    for file in (tmp_path / "data").rglob("*.png"):
        os.utime(file, (1, 1))
    assert keys(name="renamed", title="Another", crops=9) == first
    titled = {"full": Regime(title="everything"), "random": Regime(title="by chance")}
    wider = keys(regimes=titled, seeds=[0, 1])
    assert len(wider) == 2 * len(first)  # the teacher is of seed 0, but there is a full training of seed 1
    assert wider.items() >= first.items()


def test_another_working_folder(keys: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words name files relative to it, and photographs are found through the data folder, which has moved too."""
    first = keys()
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    shutil.copytree(tmp_path / "data", elsewhere / "photographs")
    shutil.copy(tmp_path / "recipe.yaml", elsewhere / "deep")
    monkeypatch.setenv("SRDISTILL_DATA", str(elsewhere / "photographs"))
    monkeypatch.chdir(elsewhere / "deep")
    assert keys() == first
    monkeypatch.chdir(ROOT)
    absolute = Recipe([str(tmp_path / "recipe.yaml")], study().recipes["r"].set)
    assert keys(recipes={"r": absolute}) == first


def test_more_updates_leave_selections(keys: Compute) -> None:
    """Relabelling reads the teacher, which is trained by the recipe too."""
    first, other = keys(), keys(recipe={"trainer.max_steps": 5})
    assert changed(first, other) == of(first, TRAIN, TEST, "relabel")
    assert other["random-select-2-s0"] == first["random-select-2-s0"]


def test_another_learning_rate_in_a_file(keys: Compute, tmp_path: Path) -> None:
    first, file = keys(), tmp_path / "recipe.yaml"
    file.write_text(file.read_text().replace("1.0e-3", "1.0e-4"))
    assert changed(first, keys()) == of(first, TRAIN, TEST, "relabel")


def test_a_comment_in_a_file(keys: Compute, tmp_path: Path) -> None:
    first, file = keys(), tmp_path / "recipe.yaml"
    file.write_text(f"# the same settings\n{file.read_text()}")
    assert keys() == first


def test_another_test_set_trains_nothing_again(keys: Compute) -> None:
    first = keys()
    for sets in (["tiny", "other"], ["other"]):
        other = keys(settings={"data.init_args.benchmarks": {"sets": sets}})
        assert changed(first, other) == of(first, TEST)


def test_where_test_sets_lie_does_not_matter_but_what_they_hold(keys: Compute, tmp_path: Path) -> None:
    first = keys()
    shutil.copytree(tmp_path / "data" / "tiny", tmp_path / "sets" / "tiny")
    there = {"data.init_args.benchmarks": {"sets": ["tiny"], "root": str(tmp_path / "sets")}}
    assert keys(settings=there) == first
    shutil.copy(tmp_path / "sets" / "tiny" / "0.png", tmp_path / "sets" / "tiny" / "1.png")
    assert changed(first, keys(settings=there)) == of(first, TEST)


def test_whether_lr_is_read_or_made(keys: Compute) -> None:
    first = keys()
    made = {"data.init_args.benchmarks": {"sets": ["tiny"], "lr_files": False}}
    assert changed(first, keys(settings=made)) == of(first, TEST)


def test_a_changed_photograph_changes_all(keys: Compute, tmp_path: Path) -> None:
    """Test stages read what training has written, and trainings validate on photographs."""
    first = keys()
    folder = tmp_path / "data" / "train"
    one, other = find_images(folder).images[:2]
    shutil.copy(one, other)
    assert changed(first, keys()) == set(first)
    other.rename(folder / "renamed.png")
    assert changed(first, keys()) == set(first)


def test_one_changed_bit_of_the_same_size_and_time(keys: Compute, tmp_path: Path) -> None:
    first = keys()
    file = tmp_path / "data" / "train" / "0.png"
    before, content = file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert changed(first, keys()) == set(first)


def test_another_regime_or_teacher_changes_its_own(keys: Compute) -> None:
    first = keys()
    changes = {"select": {"data.init_args.candidate_stride": 16}}
    other = keys(regimes={"full": Regime(), "random": Regime(set=changes)})
    assert changed(first, other) == {name for name in first if name.startswith("random")}
    other = keys(teacher=Teacher(weight=0.75))
    assert changed(first, other) == {name for name in first if name.startswith("random-teacher")}


def test_where_decoded_photographs_are_kept(keys: Compute, tmp_path: Path) -> None:
    """It is filled by the first run; a key that changed with it would never be found again."""
    first, cache = keys(), tmp_path / "cache"
    there = {"data.init_args.cache_dir": str(cache)}
    assert keys(settings=there) == first
    cache.mkdir()
    (cache / "store.npy").write_text("decoded")
    assert keys(settings=there) == first


def test_before_and_after_a_download(keys: Compute, tmp_path: Path) -> None:
    settings = {
        "data.init_args.root": "DIV2K_train_HR",
        "data.init_args.download": True,
        "data.init_args.benchmarks": {"sets": ["Set5"], "download": True},
    }
    first = keys(settings=settings)
    for name in ("DIV2K_train_HR", "Set5"):
        shutil.copytree(tmp_path / "data" / "tiny", tmp_path / "data" / name)
    assert keys(settings=settings) == first


def test_weights_that_training_starts_from(keys: Compute, tmp_path: Path) -> None:
    """By content, wherever a setting names a file."""
    first, weights = keys(), tmp_path / "weights.safetensors"
    weights.write_bytes(b"one")
    there = {"model.init_args.init_from": str(weights)}
    one = keys(recipe=there)
    weights.write_bytes(b"two")
    two = keys(recipe=there)
    for before, after in ((first, one), (one, two)):
        assert changed(before, after) == of(first, TRAIN, TEST, "relabel")


def test_texts_that_cannot_be_files(keys: Compute) -> None:
    """A long text, and the home of nobody."""
    texts = {"data.init_args.predict_root": "a prompt " * 40, "model.init_args.init_from": "~nobody-of-that-name"}
    only_full: dict[str, Any] = {"regimes": {"full": Regime()}, "budgets": [], "baseline": "", "relabelling": [False]}
    assert keys(**only_full) != keys(**only_full, settings=texts)


def test_source_of_a_class_of_the_users(keys: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that a configuration names by its import path is an input; the framework's own are told by the commit."""
    mine = tmp_path / "own_criterion.py"
    mine.write_text("from datamodules.selection import GreyEntropy\n\nclass Mine(GreyEntropy): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    regime = Regime(extends="random", set={"select": {"data.init_args.criterion": "own_criterion.Mine"}})
    regimes = {"regimes": {"full": Regime(), "random": Regime(), "own": regime}}
    before = keys(**regimes)
    mine.write_text(mine.read_text() + "    label = 'mine'\n")
    different = changed(keys(**regimes), before)
    assert different
    assert all(name.startswith("own-") for name in different)
