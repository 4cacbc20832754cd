"""Classes by folder, against the paths of the photographs; what is recorded, cached and refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cli.errors import message_for_users
from datamodules import SelectedPatches
from datamodules.distilled import read_distilled
from datamodules.selection import (
    Budget,
    ClusterBalanced,
    Descriptor,
    FolderLabels,
    Herding,
    PseudoLabels,
    PSNRBicubic,
    Random,
    Rule,
    Threshold,
)
from main import main

NAMES = ("water/1.png", "animal/2.png", "animal/deep/3.png", "Zoo/4.png", "water/5.png", "Zoo/6.png", "animal/7.png")


@pytest.fixture
def root(photographs) -> Path:
    return photographs(*NAMES, size=(64, 64))


def prepared(root: Path, **options) -> SelectedPatches:
    """Four 32-pixel patches of each photograph but one; which is held out depends on names alone."""
    given = {"pseudo_labels": FolderLabels(), "validation": 1, "patch_size": 32, "seed": 0, **options}
    data = SelectedPatches(root=str(root), **given)
    data.prepare_data()
    data.setup("fit")
    return data


def folder_of(patch) -> str:
    return Path(patch.metadata["source"]).parts[0]


def test_classes_are_the_first_folders_in_order(root):
    """By pathlib; "Zoo" comes before "animal", as code points have it."""
    data = prepared(root)
    selection, patches = data.selection, list(data.distilled_patches())
    assert selection.class_names == ("Zoo", "animal", "water")
    assert {folder_of(patch) for patch in patches} == {"Zoo", "animal", "water"}
    for patch, label in zip(patches, selection.labels.tolist(), strict=True):
        assert patch.metadata["pseudo_label"] == label == ["Zoo", "animal", "water"].index(folder_of(patch))
    photographs = Counter(Path(name).parts[0] for _, name in data.training_images)
    assert selection.class_sizes.tolist() == [4 * photographs[name] for name in ("Zoo", "animal", "water")]
    assert selection.silhouette is None
    assert data.training_patches().labels.tolist() == selection.labels.tolist()


def test_records_name_the_classes(root):
    record = prepared(root).preparation
    assert record["rule"] == "PSNRBicubic(colour=grey) -> Random() in classes by folder"
    assert record["classes"] == ["Zoo", "animal", "water"]


def test_as_many_of_each_folder(root):
    patches = list(prepared(root, budget=Budget(ipc=3)).distilled_patches())
    assert Counter(map(folder_of, patches)) == {"Zoo": 3, "animal": 3, "water": 3}


def test_features_cost_nothing_where_nobody_asks(root, monkeypatch):
    monkeypatch.setattr(Descriptor, "__call__", lambda *_: pytest.fail("computed"))
    assert len(prepared(root, budget=Budget(ipc=1), selector=ClusterBalanced()).training_patches()) == 3


def test_selectors_within_a_folder_may_need_features(root):
    assert len(prepared(root, budget=Budget(ipc=2), selector=Herding()).training_patches()) == 6


def test_features_of_the_chosen_alone_are_computed_when_asked_for(root):
    data = prepared(root, budget=Budget(ipc=1))
    data.with_features = True
    pixels = np.stack([patch.hr for patch in data.distilled_patches()])
    expected = Descriptor()(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255)
    found = data.training_patches().features
    torch.testing.assert_close(torch.from_numpy(np.array(found)), expected, rtol=1e-4, atol=1e-4)
    (file,) = (data.cache / "features").glob("*.npy")
    assert np.load(file).shape == (3, expected.shape[1])


def test_a_choice_is_read_again_until_a_folder_has_another_name(root, monkeypatch):
    first = prepared(root).selection
    (root / "animal").rename(root / "plant")
    renamed = prepared(root, validation=1).selection
    assert renamed.class_names == ("Zoo", "plant", "water")
    (root / "plant").rename(root / "animal")
    monkeypatch.setattr(FolderLabels, "assign", lambda *_: pytest.fail("made again"))
    again = prepared(root).selection
    assert (again.class_names, again.fingerprint) == (first.class_names, first.fingerprint)
    np.testing.assert_array_equal(again.labels, first.labels)


@pytest.mark.parametrize(("selector", "features"), [(Random(), False), (Herding(), True), (ClusterBalanced(), False)])
def test_features_count_for_the_cache_only_where_they_decide(selector, features):
    by_folder, by_k_means = (
        Rule(PSNRBicubic(), (), Descriptor(), labels, selector, Budget(patches=1), 0)
        for labels in (FolderLabels(), PseudoLabels(3))
    )
    assert by_folder.labelled
    assert by_folder.needs_features == features == (by_folder.identity()["features"] is not None)
    assert by_k_means.needs_features
    assert by_folder.identity()["pseudo_labels"] == {"class": "FolderLabels"}


def test_a_folder_of_which_filters_leave_nothing_keeps_its_number(root):
    """The filter leaves out exactly what bicubic does best; flat pictures of water, that is."""
    for name in ("water/1.png", "water/5.png"):
        make_flat(root / name)
    selection = prepared(root, filters=[Threshold(below=60)]).selection
    assert selection.class_names == ("Zoo", "animal", "water")
    assert selection.class_sizes.tolist()[2] == 0
    assert set(selection.labels.tolist()) == {0, 1}


def make_flat(path: Path) -> None:
    Image.new("RGB", (64, 64), (90, 120, 200)).save(path)


@pytest.mark.parametrize(
    ("flat", "ipc", "message"),
    [
        (False, 13, r"class \d \(\w+\) of 3 has \d+ patches but 13 of each are wanted; ask for at most \d+ images"),
        (True, 1, r"class 2 \(water\) of 3 has 0 patches but 1 of each are wanted; let more .* pass data\.filters"),
    ],
)
def test_a_class_too_small_for_the_budget_is_named(root, flat, ipc, message):
    for name in ("water/1.png", "water/5.png") if flat else ():
        make_flat(root / name)
    candidates = {"candidate_stride": 16} if not flat else {"filters": [Threshold(below=60)]}
    with pytest.raises(ValueError, match=message) as error:
        _ = prepared(root, budget=Budget(ipc=ipc), **candidates).selection
    assert "\n" not in str(error.value)


MISTAKES = [
    (("a.png", "b.png", "animal/c.png"), r"\d of the \d training photographs lie in none, such as [ab]\.png; move"),
    (("OST/animal/1.png", "OST/sky/2.png", "OST/sky/3.png"), r"but all 2 training photographs lie in OST; name that"),
]


@pytest.mark.parametrize(("names", "message"), MISTAKES, ids=["in no folder", "in one folder"])
def test_folders_that_are_no_classes_are_told_before_any_work(photographs, monkeypatch, names, message):
    monkeypatch.setattr(PSNRBicubic, "__call__", lambda *_: pytest.fail("scored"))
    with pytest.raises(ValueError, match=rf"^data\.pseudo_labels FolderLabels .*{message}") as error:
        prepared(photographs(*names))
    assert message_for_users(error.value) is not None
    assert "\n" not in str(error.value)


# --- the command line ---


@pytest.fixture
def command(root, tiny, tmp_path) -> list[str]:
    network = tiny.index("--model.init_args.network")
    options = [*tiny[:network], *tiny[network + 2 :], "--data", "SelectedPatches", "--data.init_args.root", str(root)]
    return [*options, "--model", "PatchSelection", "--distilled.folder", str(tmp_path / "set")]


def test_a_distilled_set_of_folders(command, tmp_path):
    main(["predict", *command, "--data.pseudo_labels", "FolderLabels", "--data.budget.ipc", "2"])
    written = read_distilled(tmp_path / "set")
    names = written.provenance["preparation"]["classes"]
    assert names == ["Zoo", "animal", "water"]
    assert [names[line["pseudo_label"]] for line in written.metadata] == [
        Path(line["source"]).parts[0] for line in written.metadata
    ]
    assert "| classes | 0 Zoo, 1 animal, 2 water |" in (tmp_path / "set" / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"class_path": "datamodules.selection.PseudoLabels", "classes": 3}),
        (["--data.pseudo_labels.classes", "5"], {"class_path": "datamodules.selection.PseudoLabels", "classes": 5}),
        (["--data.pseudo_labels", "FolderLabels"], {"class_path": "datamodules.selection.FolderLabels"}),
    ],
)
def test_options_without_a_class_are_those_of_k_means(command, tmp_path, capsys, options, expected):
    (tmp_path / "classes.yaml").write_text("data: {init_args: {pseudo_labels: {classes: 3}}}")
    with pytest.raises(SystemExit, match="0"):
        main(["predict", *command, "--config", str(tmp_path / "classes.yaml"), *options, "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]["pseudo_labels"]
    kept = {key: value for key, value in printed.get("init_args", {}).items() if key == "classes"}
    assert {"class_path": printed["class_path"], **kept} == expected
