"""The section that says what the difference between an encoder and its start is made of."""

from itertools import groupby

from encoders.runtime.html import Html, html_table, join_html, tag
from transfer.protocols import describe_protocol
from transfer.report.context import Block, ReportContext
from transfer.tables.diagnosis_rows import describe_diagnosis, gather_diagnoses
from transfer.tables.format import format_difference, format_p

HEADER = ("encoder", "protocol", "changed from its start", "AUROC difference [95 %]", "p (Holm)")
NOTE = (
    "An encoder with BatchNorm that was trained from another differs from it in weights and in running statistics. Each line is a "
    "difference on the same test patients. `Alone` is against the start; `after` is what is added when the other has changed already. All "
    "four encoders have the preprocessing of the encoder, except the start where its own cannot be changed."
)


def diagnosis_section(block: Block, context: ReportContext) -> Html | None:
    """What weights and statistics do to the AUROC, for every encoder of a block that was benchmarked with `--diagnose batchnorm`."""
    lines = gather_diagnoses(block)
    if not lines:
        return None
    names, sentences, rows = context.display_names, [], []
    for (encoder, start, protocol, labels), same in groupby(lines, lambda x: (x.encoder, x.start, x.protocol, x.labels_title)):
        group = list(same)
        who = f"{names.get(encoder, encoder)}, trained from {names.get(start, start)}, {describe_protocol(protocol)}{labels}"
        sentences.append(tag("li", f"{who}: {describe_diagnosis(group)}."))
        rows += [
            [
                names.get(encoder, encoder),
                protocol + labels,
                line.change,
                format_difference(line.difference),
                format_p(line.difference.holm_p),
            ]
            for line in group
        ]
    return join_html([tag("p", NOTE, class_="note"), tag("ul", *sentences), html_table(list(HEADER), rows, "small")])
