"""The workspace is built and serialised as it would be sent; sending it needs a server."""

from __future__ import annotations

import json

import pytest

from comparison.dashboard.workspace import comparison_workspace, main

pytest.importorskip("wandb_workspaces")


def sent(teacher: bool) -> dict:
    """What `save()` would send, as plain values."""
    workspace = comparison_workspace("me", "srdistill", "quickstart", ["Set5", "Set14"], teacher)
    return json.loads(workspace._to_model().model_dump_json(by_alias=True, exclude_none=True))


def panels(teacher: bool) -> list[dict]:
    sections = sent(teacher)["spec"]["section"]["panelBankConfig"]["sections"]
    return [panel for section in sections for panel in section["panels"]]


def test_panels_show_the_metrics_that_runs_log():
    """Names as tests/test_wandb.py finds them in runs."""
    content = [panel["config"] for panel in panels(teacher=False)]
    bars = [config["metrics"] for config in content if "vertical" in config]
    assert bars[:3] == [["test/Set5/psnr_y"], ["test/Set14/psnr_y"], ["cost/training_seconds"]]
    assert {config["yAxis"]: config["xAxis"] for config in content if "yAxis" in config} == {
        f"summary:test/{name}/psnr_y": "summary:data/percent" for name in ("Set5", "Set14")
    }
    curves = [config for config in content if config.get("xAxis") == "trainer/global_step"]
    assert [config["metrics"] for config in curves] == [["val/psnr_y"], ["train/loss"]]


@pytest.mark.parametrize("teacher", [False, True])
def test_trainings_with_a_teacher_are_shown_apart(teacher):
    (runs,) = sent(teacher)["spec"]["section"]["runSets"]
    of_group, either = runs["filters"]["filters"]
    assert (of_group["key"]["name"], of_group["value"]) == ("group", "quickstart")
    conditions = {condition["key"]["name"]: condition["value"] for condition in either["filters"]}
    assert conditions == {"teacher": teacher, "jobType": "summary"}
    assert ("summary_teacher" in json.dumps(panels(teacher))) is teacher


def test_runs_are_grouped_down_to_seeds():
    (runs,) = sent(teacher=False)["spec"]["section"]["runSets"]
    assert [key["name"].removesuffix(".value") for key in runs["grouping"]] == ["regime", "budget", "network", "recipe"]


def test_sending_without_a_login_is_refused_in_a_line(monkeypatch, capsys):
    monkeypatch.setattr("wandb_workspaces.workspaces.Workspace.save", refuse)
    with pytest.raises(SystemExit):
        main(["me", "srdistill", "--sets", "Set5"])
    assert capsys.readouterr().err.splitlines()[-1].endswith("error: No API key configured")


def refuse(workspace):
    from wandb.errors import UsageError

    raise UsageError("No API key configured")
