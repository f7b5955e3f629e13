"""The charts of a task under one legend: label efficiency, ranking and calibration."""

from encoders.runtime.html import Html, collapsible_section, join_html, tag
from transfer.report import plots
from transfer.report.context import Block, ReportContext, leak_warnings
from transfer.report.curve_bands import BAND_RESAMPLES
from transfer.report.panels import BESIDE_LEAD, MAX_BANDS, MAX_CURVES, draw_legend
from transfer.report.tables import protocol_title
from transfer.tables.rows import rows_with_most_labels


def label_efficiency_section(block: Block, context: ReportContext) -> Html | None:
    """AUROC over the number of labeled patients; None if all rows have the same label fraction."""
    charts = [chart for s in block for chart in plots.label_efficiency_charts(s, context)]
    if not charts:
        return None
    note = "Whiskers: 95 % intervals over test patients. The results table gives the standard deviation over draws (sd)."
    legend = draw_legend(block, context)
    return join_html([*leak_warnings(block, context), legend, tag("div", *charts, class_="grid"), tag("p", note, class_="note")])


def ranking_and_calibration_section(block: Block, context: ReportContext) -> Html:
    """ROC, precision-recall, reliability and risk-coverage curves, and calibration in numbers."""
    many = len(context.pens) > MAX_CURVES
    rows = []
    for i, s in enumerate(block):
        charts = [
            *plots.ranking_charts(s, context),
            *plots.reliability_charts(s, context),
            *plots.reliability_charts(s, context, tempered=True),
            *plots.risk_charts(s, context),
        ]
        grid = tag("div", *charts, class_="grid")
        rows.append(grid if i == 0 or not many else collapsible_section(f"Curves, {protocol_title(s)}", grid))
    numbers = collapsible_section("Calibration in numbers", plots.calibration_table(block, context))
    return join_html([*leak_warnings(block, context), draw_legend(block, context), *rows, *curve_notes(block, context), numbers])


def curve_notes(block: Block, context: ReportContext) -> list[Html]:
    """How to read the curves."""
    meta = block[0].rows[0].records[0].meta
    mean = "Mean curve over the classes. " if len(meta.classes) > 1 else ""
    many, names = len(context.pens) > MAX_CURVES, context.display_names
    limit = f"Every panel shows {names[next(iter(context.pens))]} and up to {BESIDE_LEAD} other encoders. " if many else ""
    most = max(len(rows_with_most_labels(s)) for s in block)
    bands = f"Bands (of {MAX_BANDS} encoders, and of the one under the pointer)" if most > MAX_BANDS else "Bands"
    chosen_class = " of the predicted class" if meta.kind == "multiclass" else ""
    lines = [
        f"{mean}{limit}{bands}: pointwise 95 % intervals from {BAND_RESAMPLES} resamples of the test patients.",
        f"Reliability: probability{chosen_class} in ten bins with equal numbers of predictions; below the dotted line the probabilities "
        "are too high. Tempered: after temperature scaling on validation patients.",
        "Risk and coverage: error of the predictions that remain when the least confident ones are deferred to a person.",
    ]
    return [tag("p", line, class_="note") for line in lines]
