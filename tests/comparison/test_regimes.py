"""Regimes by name, from files, and as variants of one another."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from comparison.planning.plan import REGIMES, DistillationStage, Overrides, Regime
from comparison.planning.regimes import find_regime, read_regime, shipped

OWN = Regime(title="own", distill=[DistillationStage(set={"a": 1})], train=Overrides(["x.yaml"], {"b": 2, "c": 3}))


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_regime_is_what_its_file_says(name: str) -> None:
    given = yaml.safe_load((REGIMES / f"{name}.yaml").read_text())
    found = find_regime(name, {name: Regime()})
    assert found.title == given["title"]
    assert found.extends is None
    assert [vars(stage) for stage in found.distill] == [
        {"name": "select", "command": "predict", "configs": [], "set": {}, **stage}
        for stage in given.get("distill", [])
    ]
    assert vars(found.train) == {"configs": [], "set": {}, **given.get("train", {})}


def test_full_data_has_no_chain_and_the_others_end_in_a_set() -> None:
    chains = {name: read_regime(REGIMES / f"{name}.yaml").distill for name in shipped()}
    assert [name for name, chain in chains.items() if not chain] == ["full"]
    assert {chain[-1].command for chain in chains.values() if chain} == {"predict"}


def test_a_chain_of_its_own_is_taken_as_it_is() -> None:
    assert find_regime("random", {"random": OWN}) is OWN


def test_what_the_plan_adds_lies_on_top() -> None:
    given = Regime(extends="gain", train=Overrides(["y.yaml"], {"c": 4}), set={"scorer": {"trainer.max_steps": 7}})
    found = find_regime("quick", {"quick": given})
    gain = read_regime(REGIMES / "gain.yaml")
    assert found.distill == gain.distill
    assert found.title == gain.title
    assert found.train == given.train
    assert found.set == given.set


def test_a_variant_of_a_regime_of_the_plan_has_all_that_it_has() -> None:
    middle = Regime(extends="own", title="middle", set={"select": {"a": 2, "d": 5}, "train": {"e": 6}})
    last = Regime(extends="middle", train=Overrides(["y.yaml"], {"c": 4}), set={"select": {"a": 9}})
    found = find_regime("last", {"last": last, "own": OWN, "middle": middle})
    assert found.title == "middle"
    assert found.distill == OWN.distill
    assert found.train == Overrides(["x.yaml", "y.yaml"], {"b": 2, "c": 4})
    assert found.set == {"select": {"a": 9, "d": 5}, "train": {"e": 6}}


def test_the_plan_goes_before_the_files() -> None:
    """A plan that changes `random` means its own where a variant names it."""
    changed = Regime(set={"select": {"data.init_args.patch_size": 32}})
    found = find_regime("variant", {"random": changed, "variant": Regime(extends="random")})
    assert found.set == changed.set
    assert found.distill == read_regime(REGIMES / "random.yaml").distill


def test_neither_plan_nor_file_is_changed() -> None:
    given = {"own": OWN, "variant": Regime(extends="own", set={"select": {"a": 2}})}
    before = repr(given)
    find_regime("variant", given)
    assert repr(given) == before


def test_a_file_named_like_a_regime_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "random").write_text("title: a file that happens to lie here")
    monkeypatch.chdir(tmp_path)
    assert find_regime("random", {"random": Regime()}).distill


def test_a_regime_by_path(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("title: mine\ndistill: [{set: {a: '{budget}'}}]")
    found = find_regime("m", {"m": Regime(extends=str(file))})
    assert found.title == "mine"
    assert found.distill == [DistillationStage(set={"a": "{budget}"})]


@pytest.mark.parametrize(
    ("regimes", "line"),
    [
        (
            {"randon": Regime()},
            "regimes.randon: there is no regime 'randon'; did you mean 'random'?; known are band, cluster_balanced, ",
        ),
        ({"a": Regime(extends="sharp")}, "regimes.a: there is no regime 'sharp'; did you mean 'sharpening'?; "),
        (
            {"a": Regime(extends="b"), "b": Regime(extends="a")},
            "regimes.b.extends: a extends b; one of them needs stages under distill",
        ),
        (
            {"a": Regime(extends="full", distill=OWN.distill)},
            "regimes.a: it has both extends and distill; leave one of them out",
        ),
    ],
)
def test_a_regime_that_is_none(regimes: dict[str, Regime], line: str) -> None:
    with pytest.raises(ValueError, match="regimes") as raised:
        find_regime("a" if "a" in regimes else "randon", regimes)
    assert str(raised.value).startswith(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("titel: x", "there is no option 'titel'; did you mean 'title'?"),
        ("distill: [{comand: fit}]", "comand"),
        ("distill: [{command: predit}]", "did you mean 'predict'?"),
        ("title: a: b", "line 1: no valid YAML: mapping values are not allowed"),
        ("[1, 2]", "expected options"),
        ("extends: random", "extends is for the regimes of a plan; give the whole chain under distill"),
    ],
)
def test_a_file_that_is_no_regime(text: str, line: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match="mine") as raised:
        read_regime(file)
    assert str(raised.value).startswith(str(file))
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)
