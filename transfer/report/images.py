"""Thumbnails of difficult and misclassified test images. They show patients, so a page has them only if a store is given.

Shapes: N test images, C target columns, A answers (one per image and known label).
"""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.html import Html, join_html, tag
from transfer.protocols import PROTOCOLS, scores_slides
from transfer.records.record import Record
from transfer.records.record_ids import write_as_in
from transfer.report.context import Block, ReportContext
from transfer.report.tables import protocol_title
from transfer.tables.row_estimates import youden_thresholds
from transfer.tables.rows import Row, rows_with_most_labels
from transfer.tasks.plain_classes import negative_class, plain_class

if TYPE_CHECKING:
    from encoders.store.store import Store

THUMBNAIL_SIDE, MAX_THUMBNAILS = 112, 12  # pixels of a thumbnail; images per strip


class Answers(NamedTuple):
    """The answers of one row, (A,) each: image in the test part, label, its true value, probability of the truth, misclassified."""

    image: Array
    label: Array
    truth: Array
    true_probability: Array
    wrong: Array


def open_report_store(paths: Sequence[str | Path], records: Sequence[Record]) -> "Store | None":
    """The store with the images of a report; None without paths. Raises InputError when no record was made from it."""
    from encoders.store.store import Store

    if not paths:
        return None
    store = Store.open(list(paths))
    if store.fingerprint not in {r.identity.store for r in records}:
        raise InputError(
            f"no record was made from {', '.join(map(str, paths))} (fingerprint {store.fingerprint[:12]}); give all files of the task's "
            "store in order (`transfer tasks show NAME` lists them)"
        )
    return store


def images_section(block: Block, context: ReportContext) -> Html | None:
    """The most difficult and the most confidently misclassified test images; None if the store is not that of the task."""
    order = [*PROTOCOLS]  # the last protocol of the registry adapts most to the labels
    sections = sorted(
        (s for s in block if s.rows and not scores_slides(s.protocol)),
        key=lambda s: order.index(s.protocol) if s.protocol in order else -1,
        reverse=True,
    )
    store = context.store
    if store is None or not sections or sections[0].rows[0].records[0].identity.store != store.fingerprint:
        return None
    section = sections[0]
    rows = rows_with_most_labels(section)
    lead = next((row for row in rows if row.role == "encoder"), rows[0])
    row_of = {key: i for i, key in enumerate(write_as_in(lead.records[0], store.column("key")).tolist())}
    answers = gather_answers(lead)
    comparable = all(_same_images(row, lead) for row in rows)
    mean = np.mean([gather_answers(row).true_probability for row in rows], axis=0) if comparable else answers.true_probability
    wrong = np.flatnonzero(answers.wrong)
    strips = [
        _image_strip(
            f"Most difficult for the {len(rows)} encoders" if len(rows) > 1 else "Most difficult",
            np.argsort(mean, kind="stable"),
            mean,
            answers,
            lead,
            store,
            row_of,
        ),
        _image_strip(
            f"Most confidently misclassified, {context.display_names[lead.encoder]}",
            wrong[np.argsort(answers.true_probability[wrong], kind="stable")],
            answers.true_probability,
            answers,
            lead,
            store,
            row_of,
        ),
    ]
    note = (
        f"Protocol: {protocol_title(section)}. The number below an image is its row in the store; p is the predicted probability of its "
        "true label. One image per patient."
    )
    return join_html([tag("p", note, class_="note"), *strips])


def gather_answers(row: Row) -> Answers:
    """All known answers of a row's records, concatenated."""
    parts: list[list[Array]] = []
    start = 0
    for record in row.records:
        y, s, _ = record.part("test")
        threshold = np.broadcast_to(youden_thresholds(record), (y.shape[1],))
        if record.meta.kind == "multiclass":
            known = np.flatnonzero(~np.isnan(y).any(axis=1))
            true = y[known].argmax(axis=1)
            parts.append([start + known, true, np.ones(len(known)), s[known, true], s[known].argmax(axis=1) != true])
        else:
            image, label = np.nonzero(~np.isnan(y))
            truth, score = y[image, label], s[image, label]
            probability = np.where(truth > 0.5, score, 1 - score)
            parts.append([start + image, label, truth, probability, (score >= threshold[label]) != (truth > 0.5)])
        start += len(y)
    return Answers(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _same_images(row: Row, other: Row) -> bool:
    """Whether two rows have the same test images in the same order."""
    ours, theirs = (np.concatenate([r.arrays["test_key"].astype(str) for r in one.records]) for one in (row, other))
    return np.array_equal(ours, theirs)


def _image_strip(title: str, order: Array, value: Array, answers: Answers, lead: Row, store: "Store", row_of: Mapping[str, int]) -> Html:
    keys = np.concatenate([r.arrays["test_key"].astype(str) for r in lead.records])
    patients = np.concatenate([r.arrays["test_patient"].astype(str) for r in lead.records])
    seen, figures = set(), []
    for i in order:
        image = int(answers.image[i])
        if patients[image] in seen or keys[image] not in row_of:
            continue
        seen.add(patients[image])
        row = row_of[keys[image]]
        caption = f"{describe_truth(answers, int(i), lead)}, p {value[i]:.2f}"
        thumbnail = tag("img", src=render_thumbnail(store, row), width=THUMBNAIL_SIDE, height=THUMBNAIL_SIDE, alt=caption)
        figures.append(tag("figure", thumbnail, tag("figcaption", caption, tag("br"), f"row {row}")))
        if len(figures) == MAX_THUMBNAILS:
            break
    return join_html([tag("h4", title), tag("div", *figures, class_="thumbs") if figures else tag("p", "None.")])


def describe_truth(answers: Answers, i: int, lead: Row) -> str:
    """The true label of an answer: `pneumonia`, or `not pneumonia`."""
    name = lead.records[0].meta.classes[int(answers.label[i])]
    return plain_class(name) if answers.truth[i] > 0.5 else negative_class(name)


def render_thumbnail(store: "Store", row: int) -> str:
    """The image as a PNG in a data URI, its longer side `THUMBNAIL_SIDE` pixels."""
    from PIL import Image

    image = store.unit_images([row])[0]  # (H, W, C)
    pixels = np.rint(np.clip(image[..., :3] if image.shape[2] >= 3 else image[..., 0], 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(pixels)
    scale = THUMBNAIL_SIDE / max(picture.size)
    picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
