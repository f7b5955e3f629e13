"""A saved W&B workspace and report that compare encoders; needs the optional package wandb-workspaces."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import wandb

WORKSPACE_TITLE = "Encoders side by side"


def save_workspace(run: "wandb.Run", metrics: Sequence[str]) -> str | None:
    """Saves both in the run's project, and returns the URL of the report; None if wandb-workspaces is not installed.

    metrics: names of summary scalars, e.g. `bench/pneumonia/linear/auroc`; one bar chart each, with one bar per encoder."""
    try:
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
    except ModuleNotFoundError:
        return None
    bars = [reports.BarPlot(title=name, metrics=[reports.SummaryMetric(name)]) for name in metrics]
    runs = reports.Runset(entity=run.entity, project=run.project, name="benchmarks", filters="Config('encoder.sha256') != ''")
    workspaces.Workspace(
        entity=run.entity,
        project=run.project,
        name=WORKSPACE_TITLE,
        sections=[workspaces.Section(name="benchmarks", panels=[*bars, reports.RunComparer()], is_open=True)],
    ).save()
    page = reports.Report(
        entity=run.entity,
        project=run.project,
        title=WORKSPACE_TITLE,
        description="Created by `transfer compare --wandb`; intervals and verdicts are in the table `leaderboard`.",
        blocks=[reports.PanelGrid(runsets=[runs], panels=[*bars, reports.WeavePanelSummaryTable(table_name="leaderboard")])],
    )
    page.save()
    return str(page.url)
