"""Thumbnails of test images that went wrong, from the task's store. Pictures of patients: only where a store is named.

Shapes: N test images, C columns of the target.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from encoders.runtime.errors import InputError
from encoders.runtime.html import Html, join_html, tag
from transfer.protocols import PROTOCOLS, scores_slides
from transfer.report.tables import protocol_title
from transfer.report.verdict import rows_with_most_labels
from transfer.tables.rows import Row, Section, thresholded_balanced_accuracy

THUMBNAIL_SIDE, MAX_THUMBNAILS = 112, 12  # pixels of a thumbnail; images a strip


class Answers(NamedTuple):
    """Of one row, an entry an image and label: place in the test part, label, truth, probability of the truth, was it decided wrongly."""

    image: np.ndarray
    label: np.ndarray
    truth: np.ndarray
    right: np.ndarray
    wrong: np.ndarray


def open_report_store(paths: Sequence[Any], records: Sequence[Any]) -> Any | None:
    """The store that pictures come from. Raises InputError when no record was made from it."""
    from encoders.store.store import Store

    if not paths:
        return None
    store = Store.open(list(paths))
    if store.fingerprint not in {r.identity.store for r in records}:
        raise InputError(
            f"no record was made from {', '.join(map(str, paths))} (fingerprint {store.fingerprint[:12]}); name the store of the task, "
            "all of its files in order (`transfer tasks show NAME` lists them)"
        )
    return store


def images_section(block: Sequence[Section], store: Any | None, shown: Mapping[str, str]) -> Html | None:
    """Hardest and most confidently wrong test images of a task; None where the store is not its own."""
    with_rows = sorted(
        (s for s in block if s.rows and not scores_slides(s.protocol)),
        key=lambda s: [*PROTOCOLS].index(s.protocol) if s.protocol in PROTOCOLS else -1,
        reverse=True,
    )
    if store is None or not with_rows or with_rows[0].rows[0].records[0].identity.store != store.fingerprint:
        return None
    chosen = with_rows[0]
    rows = rows_with_most_labels(chosen)
    where = {key: i for i, key in enumerate(store.column("key").astype(str).tolist())}
    lead = next((row for row in rows if row.role == "encoder"), rows[0])
    own = gather_answers(lead)
    together = np.mean([gather_answers(row).right for row in rows], axis=0) if all(_same_images(row, lead) for row in rows) else own.right
    sure = np.flatnonzero(own.wrong)
    hardest = (f"Hardest for the {len(rows)} encoders" if len(rows) > 1 else "Hardest"), np.argsort(together, kind="stable"), together
    wrong = f"Most confidently wrong, {shown[lead.encoder]}", sure[np.argsort(own.right[sure], kind="stable")], own.right
    strips = [_image_strip(title, order, value, own, lead, store, where) for title, order, value in (hardest, wrong)]
    about = "The number below an image is its row in the store; p is the probability that was given to its true label. One image a patient."
    return join_html([tag("h3", f"Images, {protocol_title(chosen)}"), tag("p", about, class_="note"), *strips])


def gather_answers(row: Row) -> Answers:
    """Every known answer of a row's records, behind each other."""
    parts: list[list[np.ndarray]] = []
    start = 0
    for record in row.records:
        y, s, _ = record.part("test")
        cut = np.broadcast_to(thresholded_balanced_accuracy(record).keywords["threshold"], (y.shape[1],))  # type: ignore[attr-defined]
        if record.meta.kind == "multiclass":
            known = np.flatnonzero(~np.isnan(y).any(axis=1))
            true = y[known].argmax(axis=1)
            parts.append([start + known, true, np.ones(len(known)), s[known, true], s[known].argmax(axis=1) != true])
        else:
            image, label = np.nonzero(~np.isnan(y))
            truth, score = y[image, label], s[image, label]
            parts.append([start + image, label, truth, np.where(truth > 0.5, score, 1 - score), (score >= cut[label]) != (truth > 0.5)])
        start += len(y)
    return Answers(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _same_images(row: Row, lead: Row) -> bool:
    """Whether two rows answer the same images in the same order."""
    mine, theirs = (np.concatenate([r.arrays["test_key"].astype(str) for r in of.records]) for of in (row, lead))
    return np.array_equal(mine, theirs)


def _image_strip(title: str, order: np.ndarray, value: np.ndarray, of: Answers, lead: Row, store: Any, where: Mapping[str, int]) -> Html:
    keys = np.concatenate([r.arrays["test_key"].astype(str) for r in lead.records])
    patients = np.concatenate([r.arrays["test_patient"].astype(str) for r in lead.records])
    seen, pictures = set(), []
    for i in order:
        image = int(of.image[i])
        if patients[image] in seen or keys[image] not in where:
            continue
        seen.add(patients[image])
        place = where[keys[image]]
        told = f"{describe_truth(of, int(i), lead)}, p {value[i]:.2f}"
        picture = tag("img", src=render_thumbnail(store, place), width=THUMBNAIL_SIDE, height=THUMBNAIL_SIDE, alt=told)
        pictures.append(tag("figure", picture, tag("figcaption", told, tag("br"), f"row {place}")))
        if len(pictures) == MAX_THUMBNAILS:
            break
    return join_html([tag("h4", title), tag("div", *pictures, class_="thumbs") if pictures else tag("p", "None.")])


def describe_truth(of: Answers, i: int, lead: Row) -> str:
    """What the image shows: `pneumonia`, or `not pneumonia`."""
    name = lead.records[0].meta.classes[int(of.label[i])]
    return name if of.truth[i] > 0.5 else f"not {name}"


def render_thumbnail(store: Any, row: int) -> str:
    """The image as a PNG in a data URI, its longer side `SIDE` pixels."""
    from PIL import Image

    image = store.unit_images([row])[0]  # (H, W, C)
    bytes_ = np.rint(np.clip(image[..., :3] if image.shape[2] >= 3 else image[..., 0], 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(bytes_)
    scale = THUMBNAIL_SIDE / max(picture.size)
    picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
