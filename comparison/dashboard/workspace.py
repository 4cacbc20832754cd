"""A W&B workspace with the panels of a comparison; needs `pip install wandb-workspaces` and a login.

    python -m comparison.dashboard.workspace ENTITY PROJECT [GROUP] --sets Set5 Set14

Once more with `--teacher`, it makes the view of trainings that a teacher had a part in.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import BarPlot
    from wandb_workspaces.workspaces import Section, Workspace

AXES = ("regime", "budget", "network", "recipe")
"""Labels that runs are grouped by; what is left are the seeds, which panels show the mean of."""

MOST = 100
"""Groups that a panel shows; W&B's own limit is 10."""

COSTS = {"cost/training_seconds": "Training [s]", "cost/seconds": "Stage [s]", "cost/peak_rss_mib": "Memory [MiB]"}


def comparison_workspace(
    entity: str, project: str, group: str | None, sets: Sequence[str], teacher: bool = False
) -> Workspace:
    """The workspace, which `save()` sends.

    Args:
        entity: user or team.
        project: of W&B.
        group: name of the plan; None shows all runs of the project.
        sets: test sets.
        teacher: show the trainings with a teacher, which are never ranked with the others, instead of those without.
    """
    import wandb_workspaces.workspaces as ws

    ours = ws.Or(ws.Config("teacher") == teacher, ws.Metric("JobType") == "summary")
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"{group or project}{', teacher' if teacher else ''}",
        sections=[_quality(sets), _learning(), _cost(), _summary(teacher)],
        settings=ws.WorkspaceSettings(x_axis="trainer/global_step", max_runs=MOST),
        runset_settings=ws.RunsetSettings(
            filters=ws.And(ws.Metric("Group") == group, ours) if group else ours,
            groupby=[ws.Config(axis) for axis in AXES],
        ),
    )


def _quality(sets: Sequence[str]) -> Section:
    import wandb_workspaces.reports.v2 as wr

    bars = [_bars(f"PSNR-Y on {name} [dB]", f"test/{name}/psnr_y") for name in sets]
    points = [
        wr.ScatterPlot(
            title=f"PSNR-Y on {name} [dB] against data [% of the full set]",
            x=wr.SummaryMetric("data/percent"),
            y=wr.SummaryMetric(f"test/{name}/psnr_y"),
            log_x=True,
        )
        for name in sets
    ]
    return _section("Quality", [*bars, *points])


def _learning() -> Section:
    import wandb_workspaces.reports.v2 as wr

    curves = {"val/psnr_y": "PSNR-Y on validation [dB]", "train/loss": "Loss"}
    panels = [wr.LinePlot(title=title, x="trainer/global_step", y=[name]) for name, title in curves.items()]
    return _section("Learning", panels)


def _cost() -> Section:
    return _section("Cost", [_bars(title, name) for name, title in COSTS.items()])


def _bars(title: str, metric: str) -> BarPlot:
    import wandb_workspaces.reports.v2 as wr

    return wr.BarPlot(title=title, metrics=[metric], max_runs_to_show=MOST, max_bars_to_show=MOST)


def _summary(teacher: bool) -> Section:
    import wandb_workspaces.reports.v2 as wr

    tables = ["summary_teacher" if teacher else "summary", "results"]
    panels = [wr.WeavePanelSummaryTable(table_name=name, layout=wr.Layout(w=24, h=12)) for name in tables]
    return _section("Summary", panels)


def _section(name: str, panels: list[Any]) -> Section:
    import wandb_workspaces.workspaces as ws

    return ws.Section(name=name, panels=panels, is_open=True)


def main(args: Sequence[str] | None = None) -> None:
    """Makes the workspace and prints its address."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entity", help="user or team")
    parser.add_argument("project", help="srdistill, unless --project said otherwise")
    parser.add_argument("group", nargs="?", help="name of the plan; all runs of the project without it")
    parser.add_argument("--sets", nargs="+", required=True, help="test sets of the plan")
    parser.add_argument("--teacher", action="store_true", help="show the trainings with a teacher, not those without")
    given = parser.parse_args(args)
    if importlib.util.find_spec("wandb_workspaces") is None:
        parser.error("the package wandb-workspaces is not installed: pip install wandb-workspaces")
    from wandb.errors import UsageError

    try:
        comparison_workspace(given.entity, given.project, given.group, given.sets, given.teacher).save()
    except UsageError as error:  # without a login
        parser.error(str(error))


if __name__ == "__main__":
    main()
