"""A saved W&B workspace and report that lay encoders side by side; needs the optional package wandb-workspaces."""

from collections.abc import Sequence
from typing import Any

WORKSPACE_TITLE = "Encoders side by side"


def save_workspace(run: Any, metrics: Sequence[str]) -> str | None:
    """Saves both in the run's project, and returns the report's address; None where wandb-workspaces is not installed.

    metrics: names of summary scalars, e.g. `bench/pneumonia/linear/auroc`; a bar chart each, a bar an encoder."""
    try:
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
    except ModuleNotFoundError:
        return None
    about = {"entity": run.entity, "project": run.project}
    bars = [reports.BarPlot(title=name, metrics=[reports.SummaryMetric(name)]) for name in metrics]
    runs = reports.Runset(**about, name="benchmarks", filters="Config('encoder.sha256') != ''")
    workspaces.Workspace(
        **about, name=WORKSPACE_TITLE, sections=[workspaces.Section(name="benchmarks", panels=[*bars, reports.RunComparer()], is_open=True)]
    ).save()
    page = reports.Report(
        **about,
        title=WORKSPACE_TITLE,
        description="Made by `transfer compare --wandb`; intervals and verdicts are in the table `leaderboard`.",
        blocks=[reports.PanelGrid(runsets=[runs], panels=[*bars, reports.WeavePanelSummaryTable(table_name="leaderboard")])],
    )
    page.save()
    return str(page.url)
