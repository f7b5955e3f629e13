"""Heat maps of a trained network in the section of its task: only those of folders that the command names, as they show patients."""

from collections.abc import Sequence
from pathlib import Path

from encoders.runtime.errors import InputError
from encoders.runtime.html import Html, join_html, tag
from transfer.explain.saved import MEANING, SavedFolder, picture_element, read_explanations
from transfer.records.record import Record
from transfer.report.context import Block, ReportContext

MOST_EXPLAINED = 12  # pictures of a folder on the page


def open_explanations(folders: Sequence[Path], records: Sequence[Record]) -> list[SavedFolder]:
    """The folders that `transfer explain` wrote. Raises InputError for one of a task that the report does not have."""
    tasks, opened = {record.identity.task for record in records}, [read_explanations(folder) for folder in folders]
    for saved in opened:
        if saved.task not in tasks:
            raise InputError(f"{saved.folder} is of task {saved.task}, and the report is of {', '.join(sorted(tasks))}; leave it out")
    return opened


def explanations_section(block: Block, context: ReportContext) -> Html | None:
    """The maps of the networks that were trained on the task; None without a folder of theirs."""
    own = [saved for saved in context.explanations if saved.task == block[0].task]
    if not own:
        return None
    return join_html([tag("p", MEANING, class_="note"), *(_render_folder(saved) for saved in own)])


def _render_folder(saved: SavedFolder) -> Html:
    """The first pictures of a folder."""
    figures: list[Html] = []
    for image in saved.images:
        for method, name in image.pictures.items():
            caption = f"{image.number}: {image.label}, p {image.probability:.3f}, {image.decision}; {method}"
            figures.append(tag("figure", picture_element(saved.folder / name, caption), tag("figcaption", caption)))
    shown = figures[:MOST_EXPLAINED]
    count = f"{len(figures)} pictures" if len(shown) == len(figures) else f"the first {len(shown)} of {len(figures)} pictures"
    title = tag("h4", f"{saved.model}: {count}")
    return join_html([title, tag("div", *shown, class_="explained")])
