"""The page of a folder of explanations: measurements, then the pictures. It is local: it shows patients."""

from collections.abc import Sequence
from pathlib import Path

from encoders.runtime.html import Html, html_table, tag
from encoders.runtime.page import render_document
from transfer.explain.contract import Method
from transfer.explain.evaluate import Evaluation
from transfer.explain.evaluation_table import (
    FAITHFULNESS_HEADER,
    SANITY_HEADER,
    brief_sanity,
    describe_evaluation,
    faithfulness_cells,
    sanity_cells,
)
from transfer.explain.overlay import PATIENT_MARK
from transfer.explain.saved import CSV_NAME, MEANING, SavedExplanation, picture_element
from transfer.trained.predict import TrainedModel

MOST_PICTURES = 200  # on the page; the folder has all of them
EXPLANATION_STYLE = """
.explained { display: grid; gap: 18px; margin: 14px 0; }
.explained figure { border-top: 1px solid var(--rule); padding-top: 10px; }
.explained img { display: block; width: 100%; max-width: 940px; height: auto; background: #fff; border-radius: 3px; }
.explained figcaption { margin: 4px 0 0; }
"""


def render_explanations(
    model: TrainedModel,
    methods: Sequence[Method],
    mark: str,
    folder: Path,
    saved: Sequence[SavedExplanation],
    problems: Sequence[tuple[str, str]],
    evaluation: Evaluation | None,
    made_at: str,
) -> str:
    """The HTML of the page, with the pictures in `folder`."""
    alarm = tag("div", tag("b", "Images of patients. "), "Do not share this folder.", class_="alarm") if mark == PATIENT_MARK else None
    named = "; ".join(f"{method.title} ({method.source})" for method in methods)
    origin = f"{len(saved):,} images, task {model.head.task}{f', {made_at}' if made_at else ''}. {named}."
    header = tag(
        "header",
        tag("p", "isograft explanations", class_="kicker"),
        alarm,
        tag("h1", f"What {model.name} used"),
        tag("p", origin, class_="note"),
        tag("p", MEANING),
    )
    parts: list[Html] = [header]
    if evaluation is not None:
        parts.append(evaluation_section(evaluation))
    if problems:
        listed = tag("ul", *(tag("li", tag("code", key), f": {reason}") for key, reason in problems))
        parts.append(tag("section", tag("h2", f"{len(problems):,} images could not be read"), listed))
    parts.append(tag("section", tag("h2", "Images"), render_pictures(folder, saved)))
    return render_document(f"isograft explanations: {model.name}", *parts, style=EXPLANATION_STYLE)


def evaluation_section(evaluation: Evaluation) -> Html:
    """The measurements."""
    notes = [tag("p", line, class_="note") for line in describe_evaluation(evaluation)]
    sanity = html_table(SANITY_HEADER, [sanity_cells(row) for row in brief_sanity(evaluation)])
    return tag(
        "section",
        tag("h2", "Faithfulness"),
        *notes,
        html_table(FAITHFULNESS_HEADER, [faithfulness_cells(row) for row in evaluation.rows]),
        tag("h3", "Maps of the network with randomised weights, compared with those of the trained one"),
        sanity,
    )


def render_pictures(folder: Path, saved: Sequence[SavedExplanation]) -> Html:
    """The pictures, at most `MOST_PICTURES`."""
    figures: list[Html] = []
    for image in saved:
        for method, name in image.pictures.items():
            if len(figures) == MOST_PICTURES:
                note = f"The page shows {MOST_PICTURES} pictures; the folder has all of them."
                return tag("div", tag("p", note, class_="note"), tag("div", *figures, class_="explained"))
            caption = f"{image.number}: {image.label}, p {image.probability:.3f}, {image.decision}; {method}"
            figures.append(tag("figure", picture_element(folder / name, caption), tag("figcaption", caption)))
    note = f"The keys of the images are in {CSV_NAME}, by number."
    return tag("div", tag("p", note, class_="note"), tag("div", *figures, class_="explained"))
