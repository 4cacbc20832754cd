"""Reading plans: types, unknown keys, and where files are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from comparison.app import _parser
from comparison.planning.plan import (
    NETWORKS,
    ROOT,
    DistillationStage,
    Overrides,
    Plan,
    Recipe,
    Regime,
    find_config,
    network_name,
)


def read(text: str, folder: Path, *args: str) -> Plan:
    """As the command line reads it."""
    file = folder / "plan.yaml"
    file.write_text(text)
    parser = _parser()
    given = parser.instantiate_classes(parser.parse_args(["--config", str(file), *args]))
    return Plan(**{name: given[name] for name in Plan.__dataclass_fields__})


def test_a_plan_is_typed(tmp_path: Path) -> None:
    plan = read(
        """\
name: study
regimes:
  full: {}
  own:
    distill:
    - name: learn
      command: fit
      set: {trainer.max_steps: 5, model.init_args.optimizer.init_args.lr: 1e-5}
    - configs: [a.yaml]
      set: {data.init_args.budget.percent: "{budget}", flag: true, nothing: null, deep: {list: [1, 0.5]}}
budgets: [2, 0.68]
recipes: {plain: {budgets: [2], set: {trainer.max_steps: 9}}}
relabelling: [false, true]
teacher: {weight: 1}
""",
        tmp_path,
    )
    learn = {"trainer.max_steps": 5, "model.init_args.optimizer.init_args.lr": 1e-5}
    select = {"data.init_args.budget.percent": "{budget}", "flag": True, "nothing": None, "deep": {"list": [1, 0.5]}}
    assert plan.regimes == {
        "full": Regime(),
        "own": Regime(
            distill=[
                DistillationStage([], learn, "learn", "fit"),
                DistillationStage(["a.yaml"], select, "select", "predict"),
            ]
        ),
    }
    assert plan.budgets == [2.0, 0.68]
    assert [type(budget) for budget in plan.budgets] == [float, float]
    assert plan.recipes == {"plain": Recipe([], {"trainer.max_steps": 9}, [2.0])}
    assert plan.teacher.weight == 1.0
    assert (plan.networks, plan.seeds, plan.crops) == (["edsr_tiny"], [0], 4)
    assert (plan.reference, plan.baseline) == ("full", "random")


def test_the_command_line_wins(tmp_path: Path) -> None:
    plan = read("{name: a, regimes: {full: {}}, seeds: [1, 2]}", tmp_path, "--seeds", "[3]", "--name", "b")
    assert (plan.name, plan.seeds) == ("b", [3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{name: a, regimes: {}, budgts: [2]}", "there is no option 'budgts'; did you mean 'budgets'?"),
        ("{name: a, regimes: {full: {titel: x}}}", "regimes: Regime has no option 'titel'; did you mean 'title'?"),
        (
            "{name: a, regimes: {own: {distill: [{comand: fit}]}}}",
            "regimes.distill: DistillationStage has no option 'comand'; did you mean 'command'?",
        ),
        ("{name: a, regimes: {}, recipes: {r: {sett: {a: 1}}}}", "Recipe has no option 'sett.a'; did you mean 'set'?"),
        ("{name: a, regimes: {}, teacher: {wieght: 1}}", "'teacher.wieght'; did you mean 'teacher.weight'?"),
        ("{name: a, regimes: {}, budgets: 2}", "budgets: got 2, expected list"),
        ("{name: a, regimes: {}, budgets: [much]}", "budgets: got much, expected float"),
        ("{name: a, regimes: {}, seeds: [0.5]}", "seeds: got 0.5, expected int"),
        ("{regimes: {}}", "name must be given"),
        ("{name: a}", "regimes must be given"),
    ],
)
def test_what_is_no_plan_is_told_in_a_line(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        read(text, tmp_path)
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_settings_start_empty_in_each() -> None:
    """Mutable defaults would let one recipe change another."""
    one, other = Overrides(), Overrides()
    one.set["a"] = 1
    one.configs.append("x")
    assert other == Overrides([], {})


def test_a_name_of_the_framework_goes_before_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edsr_tiny").write_text("{}")
    assert find_config("edsr_tiny", NETWORKS) == NETWORKS / "edsr_tiny.yaml"


def test_files_are_looked_for_in_the_working_folder_then_in_the_framework(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("configs/data/bsd.yaml") == ROOT / "configs/data/bsd.yaml"
    own = tmp_path / "configs" / "data" / "bsd.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("{}")
    found = find_config("configs/data/bsd.yaml")
    assert found is not None
    assert found.absolute() == own
    assert find_config(str(own)) == own
    assert find_config("configs/data") is None
    assert find_config("nowhere.yaml") is None
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_config("~/configs/data/bsd.yaml") == own


def test_a_network_is_named_after_its_file() -> None:
    assert [network_name(given) for given in ("span", "nets/span.yaml", "/a/b/my_net.yml")] == [
        "span",
        "span",
        "my_net",
    ]
