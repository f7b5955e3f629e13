"""A saved W&B workspace and report that compare encoders; needs the optional package wandb-workspaces.

The report shows the overview (encoders x tasks, with intervals and verdicts), headline numbers, label-efficiency curves, AUROC against the
number of pretraining images, one bar chart per task and protocol, and the lineage of each encoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import wandb
    import wandb_workspaces.reports.v2 as reports
    from wandb_workspaces.reports.v2 import interface

WORKSPACE_TITLE = "Encoders side by side"
BENCH_FILTER = "Config('encoder.sha256') != ''"  # runs of benchmarks
WIDE, HALF = 24, 12  # of the 24 columns of a grid
LINE_CHART = "wandb/lineseries/v0"  # W&B's preset: one line per value of `lineKey`


@dataclass(frozen=True)
class ComparisonView:
    """What the workspace and the report show.

    metrics: summary scalars, e.g. `bench/pneumonia/linear/auroc`; one bar chart each.  headline: summary scalars that are shown first.
    columns: settings that the table of runs shows, e.g. `encoder.method`.  overview: Markdown of the matrix.  page: name of the same as
    HTML.  curves: tables with the columns labels, auroc and encoder, by title.  scale: the setting and the scalars of the scatter plots.
    lineage: Markdown.  artifacts: names of the encoders' artifacts.  leaderboard: name of the table."""

    metrics: Sequence[str]
    headline: Sequence[str] = ()
    columns: Sequence[str] = ()
    overview: str = ""
    page: str = "overview"
    curves: Sequence[tuple[str, str]] = ()  # (title, table)
    scale: tuple[str, Sequence[str]] = ("", ())
    lineage: str = ""
    artifacts: Sequence[str] = ()
    leaderboard: str = "leaderboard"


def save_views(run: "wandb.Run", view: ComparisonView) -> str | None:
    """Saves both in the run's project, and returns the URL of the report; None if wandb-workspaces is not installed."""
    try:
        import wandb_workspaces.workspaces as workspaces
    except ModuleNotFoundError:
        return None
    sections = [
        workspaces.Section(name="overview", panels=[*_overview_panels(view), *_scale_panels(view)], is_open=True, pinned=True),
        workspaces.Section(name="label efficiency", panels=_curve_panels(view), is_open=True),
        workspaces.Section(name="benchmarks", panels=[*_bar_panels(view), *_comparer()], is_open=True),
    ]
    workspaces.Workspace(
        entity=run.entity,
        project=run.project,
        name=WORKSPACE_TITLE,
        sections=[section for section in sections if section.panels],
        settings=workspaces.WorkspaceSettings(x_axis="Step", max_runs=50),
        runset_settings=workspaces.RunsetSettings(pinned_columns=_columns(view)),
    ).save()
    page = build_report(run.entity, run.project, view)
    page.save()
    return str(page.url)


def build_report(entity: str, project: str, view: ComparisonView) -> "reports.Report":
    """The report, not saved yet."""
    import wandb_workspaces.reports.v2 as reports

    runs = reports.Runset(entity=entity, project=project, name="benchmarks", filters=BENCH_FILTER, pinned_columns=_columns(view))
    everything = reports.Runset(entity=entity, project=project, name="all runs")  # the tables are in the run of the comparison
    blocks: list[interface.BlockTypes] = [reports.TableOfContents()]
    if view.overview:
        blocks += [reports.H2(text="Overview"), reports.MarkdownBlock(text=view.overview)]
    blocks.append(reports.PanelGrid(runsets=[runs], panels=_overview_panels(view)))
    if view.curves:
        blocks += [reports.H2(text="Label efficiency"), reports.PanelGrid(runsets=[everything], panels=_curve_panels(view))]
    if view.scale[1]:
        blocks += [reports.H2(text="Pretraining images"), reports.PanelGrid(runsets=[runs], panels=_scale_panels(view))]
    table = reports.WeavePanelSummaryTable(table_name=view.leaderboard)
    blocks += [reports.H2(text="Tasks"), reports.PanelGrid(runsets=[runs], panels=_bar_panels(view))]
    blocks += [reports.H2(text="Leaderboard"), reports.PanelGrid(runsets=[everything], panels=[table])]
    if view.lineage:
        blocks += [reports.H2(text="Lineage"), reports.MarkdownBlock(text=view.lineage)]
        blocks += [reports.WeaveBlockArtifact(entity=entity, project=project, artifact=name, tab="lineage") for name in view.artifacts]
    return reports.Report(
        entity=entity,
        project=project,
        title=WORKSPACE_TITLE,
        description="Created by `transfer compare --wandb`. Intervals are over test patients, verdicts are corrected (Holm, 5 %).",
        blocks=blocks,
    )


def _columns(view: ComparisonView) -> list[str]:
    """The pinned columns of the table of runs, as W&B addresses them."""
    settings = [name.split(".", 1) for name in view.columns]
    return [f"summary:{name}" for name in view.headline] + [
        f"config:{first}.value{'.' if rest else ''}{'.'.join(rest)}" for first, *rest in settings
    ]


def _overview_panels(view: ComparisonView) -> "list[interface.PanelTypes]":
    """The matrix as a page, and one bar chart for each headline number."""
    import wandb_workspaces.reports.v2 as reports

    matrix = reports.MediaBrowser(title="AUROC by task", media_keys=[view.page], num_columns=1, layout=reports.Layout(w=WIDE, h=12))
    bars = [
        reports.BarPlot(title=name, metrics=[reports.SummaryMetric(name)], layout=reports.Layout(w=HALF, h=8)) for name in view.headline
    ]
    return [*([matrix] if view.overview else []), *bars]


def _curve_panels(view: ComparisonView) -> "list[interface.PanelTypes]":
    import wandb_workspaces.reports.v2 as reports

    panels: list[interface.PanelTypes] = []
    for title, table in view.curves:
        chart = reports.CustomChart.from_table(
            table,
            chart_fields={"step": "labels", "lineVal": "auroc", "lineKey": "encoder"},
            chart_strings={"title": title, "xname": "labeled patients or share of the labels"},
        )
        chart.chart_name, chart.layout = LINE_CHART, reports.Layout(w=HALF, h=8)
        panels.append(chart)
    return panels


def _scale_panels(view: ComparisonView) -> "list[interface.PanelTypes]":
    import wandb_workspaces.reports.v2 as reports

    setting, scalars = view.scale
    return [
        reports.ScatterPlot(
            title=f"{name} by {setting}",
            x=reports.Config(setting),
            y=reports.SummaryMetric(name),
            log_x=True,
            legend_template="${run:displayName}",
            layout=reports.Layout(w=HALF, h=8),
        )
        for name in scalars
    ]


def _bar_panels(view: ComparisonView) -> "list[interface.PanelTypes]":
    import wandb_workspaces.reports.v2 as reports

    return [reports.BarPlot(title=name, metrics=[reports.SummaryMetric(name)]) for name in view.metrics]


def _comparer() -> "list[interface.PanelTypes]":
    import wandb_workspaces.reports.v2 as reports

    return [reports.RunComparer()]
