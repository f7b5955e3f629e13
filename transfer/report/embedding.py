"""The embedding of the test images: 2-D maps coloured by label, patient and acquisition, and nearest neighbours.

Shown only if a store is given and the encoder is available locally; features come from the cache, or are computed.

Shapes: M test images, D feature width, K neighbours shown.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.arrays import Array, FloatArray, IntArray
from encoders.runtime.errors import InputError
from encoders.runtime.html import Html, join_html, tag
from encoders.runtime.svg import DIAGONAL_COLOUR, LINE_COLOURS, MARGIN_LEFT, Frame, LineStyle, draw_dots
from transfer.protocols import scores_slides
from transfer.records.record import Record
from transfer.records.record_ids import write_as_in
from transfer.report.context import Block, ReportContext
from transfer.report.images import THUMBNAIL_SIDE, render_thumbnail
from transfer.tables.rows import Row, rows_by_records
from transfer.tables.subgroups import list_shown_columns
from transfer.tasks.group_columns import name_groups
from transfer.tasks.options import TaskKind
from transfer.tasks.plain_classes import negative_class, plain_class

if TYPE_CHECKING:
    from encoders.store.store import Store

MAX_POINTS = 800  # images on a map; more would be unreadable and make a large page
MAX_COLOURED_PATIENTS = len(LINE_COLOURS)  # the patients with most images have a colour each, without a name
QUERY_IMAGES, NEIGHBOURS_SHOWN = 6, 4  # images whose neighbours are shown, and neighbours of each


def embedding_section(block: Block, context: ReportContext) -> Html | None:
    """Maps and neighbours of the task's first encoder, maps of its reference; None if the store is not that of the task."""
    store = context.store
    rows = [row for s in block if not scores_slides(s.protocol) for row in rows_by_records(s) if len(row.records) >= 1]
    if store is None or not rows or rows[0].records[0].identity.store != store.fingerprint:
        return None
    lead = next((row for row in rows if row.role == "encoder"), rows[0])
    pair = [lead, *(row for row in rows if row.encoder == lead.reference and row.protocol == lead.protocol)][:2]
    note = (
        f"t-SNE of the features of up to {MAX_POINTS} test images: nearby points are similar images, larger distances have no meaning. "
        "Patients are coloured without names. If acquisition or patients separate more clearly than labels, they dominate the embedding."
    )
    return join_html([tag("p", note, class_="note"), *(_encoder_maps(row, store, context, row is lead) for row in pair)])


def _encoder_maps(row: Row, store: "Store", context: ReportContext, with_neighbours: bool) -> Html:
    record, name = row.records[0], context.display_names[row.encoder]
    row_of = {key: i for i, key in enumerate(write_as_in(record, store.column("key")).tolist())}
    store_rows = np.array([row_of.get(str(k), -1) for k in record.arrays["test_key"]])
    known = np.flatnonzero(store_rows >= 0)
    chosen = known[np.linspace(0, len(known) - 1, min(MAX_POINTS, len(known))).round().astype(int)]
    try:
        x = embed_rows(record, store, store_rows[chosen])
    except InputError as error:
        return tag("p", f"{name} is not shown: {error}", class_="note")
    parts = [
        tag("h4", name),
        tag("div", *(_draw_map(project_2d(x), *c) for c in list_colourings(record, chosen)), class_="grid"),
    ]
    if with_neighbours and len(chosen) > NEIGHBOURS_SHOWN:
        parts.append(_draw_neighbours(x, record, chosen, store_rows, store))
    return join_html(parts)


def embed_rows(record: Record, store: "Store", rows: Array) -> NDArray[np.float32]:
    """(M, D) features of rows of the store. Raises InputError if the encoder is not available locally, or has other weights now."""
    from encoders.features.embed import extract_features
    from encoders.runtime.devices import resolve_device
    from encoders.zoo import zoo

    encoder = zoo.load_encoder(record.identity.encoder, resolve_device(fall_back=True)).with_precision(record.identity.precision)
    if encoder.sha256 != record.identity.encoder_sha256:
        raise InputError("the encoder of that name has other weights than the benchmarked one")
    return extract_features(encoder, store, index=rows)


def project_2d(x: Array) -> FloatArray:
    """(M, 2) by PCA to 50 dimensions and t-SNE with a fixed seed; by PCA alone for fewer than ten images."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    x = np.asarray(x, np.float64)
    small = PCA(min(50, *x.shape), svd_solver="full").fit_transform(x - x.mean(axis=0))
    if len(x) < 10:
        padded: FloatArray = np.pad(small, ((0, 0), (0, 2)))[:, :2]
        return padded
    return np.asarray(TSNE(2, perplexity=min(30.0, (len(x) - 1) / 3), init="pca", random_state=0).fit_transform(small))


def list_colourings(record: Record, chosen: Array) -> list[tuple[str, Array, list[str]]]:
    """(title, (M,) group of each image, groups in order of colour): by label, by patient, and by each group column."""
    y, meta = record.arrays["test_y"][chosen], record.meta
    label = np.where(np.isnan(y).all(axis=1), "unknown", _label_names(y, meta.classes, meta.kind))
    colourings: list[tuple[str, Array, list[str]]] = [("by label", label, _most_common(label))]
    patient = record.arrays["test_patient"][chosen].astype(str)
    several = [p for p, n in Counter(patient.tolist()).most_common(MAX_COLOURED_PATIENTS) if n > 1]
    if several:
        number = {p: f"patient {i + 1}" for i, p in enumerate(several)}
        colourings.append(("by patient", np.array([number.get(p, "others") for p in patient]), list(number.values())))
    for column in list_shown_columns(record):
        names = name_groups(column, record.groups[column][chosen])
        if len(set(names.tolist())) > 1:
            colourings.append((f"by {column}", names, _most_common(names)))
    return colourings


def _label_names(y: Array, classes: Sequence[str], kind: TaskKind) -> Array:
    if kind == "multiclass":
        predicted: Array = np.array(classes)[np.nan_to_num(y).argmax(axis=1)]
        return predicted
    if len(classes) == 1:
        return np.where(y[:, 0] > 0.5, plain_class(classes[0]), negative_class(classes[0]))
    first = np.nan_to_num(y).argmax(axis=1)  # of several positive labels, the first
    return np.where(np.nan_to_num(y).max(axis=1) > 0.5, np.array(classes)[first], "no label")


def _most_common(names: Array) -> list[str]:
    return [name for name, _ in Counter(names.tolist()).most_common(MAX_COLOURED_PATIENTS)]


def _draw_map(points: FloatArray, title: str, names: Array, order: list[str]) -> Html:
    frame = Frame(_axis_range(points[:, 0]), _axis_range(points[:, 1]), width=320, height=320)
    marks: list[Html] = []
    for i, name in [(-1, None), *enumerate(order)]:
        own = ~np.isin(names, order) if name is None else names == name
        if own.any():
            style = LineStyle(DIAGONAL_COLOUR if name is None else LINE_COLOURS[i], None)
            marks += draw_dots(frame, points[own, 0], points[own, 1], style, radius=2.2)
    heading = tag("text", title, x=MARGIN_LEFT, y=15, text_anchor="start", font_weight="600")
    description = tag("title", f"map of test images {title}"), tag("desc", f"{len(points)} images in {len(order)} colours")
    picture = tag("svg", *description, heading, *marks, viewBox="0 0 320 320", role="img")
    keys = [tag("span", tag("span", "●", style=f"color: {LINE_COLOURS[i]}"), f" {name}") for i, name in enumerate(order)]
    keys += [tag("span", tag("span", "●", style=f"color: {DIAGONAL_COLOUR}"), " others")] if not np.isin(names, order).all() else []
    return tag("figure", picture, tag("p", *keys, class_="legend"))


def _axis_range(values: FloatArray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.03 * (high - low) or 1.0
    return low - margin, high + margin


def _draw_neighbours(x: Array, record: Record, chosen: Array, store_rows: Array, store: "Store") -> Html:
    """Some test images, each followed by its nearest images of other patients."""
    label = list_colourings(record, chosen)[0][1]
    patient = record.arrays["test_patient"][chosen].astype(str)
    order = find_neighbours(x, patient)
    queries = np.linspace(0, len(chosen) - 1, QUERY_IMAGES).round().astype(int)

    def figure(j: int, caption: str) -> Html:
        source = render_thumbnail(store, int(store_rows[chosen[j]]))
        thumbnail = tag("img", src=source, width=THUMBNAIL_SIDE, height=THUMBNAIL_SIDE, alt=str(label[j]))
        return tag("figure", thumbnail, tag("figcaption", caption, label[j]))

    strips = []
    for i in dict.fromkeys(queries.tolist()):
        figures = [figure(j, "query: " if j == i else "") for j in [i, *order[i]]]
        strips.append(tag("div", *figures, class_="thumbs near"))
    same = float(np.mean(label[order[:, 0]] == label))
    note = f"For {same:.0%} of {len(chosen)} test images, the nearest image of another patient (cosine similarity) has the same label."
    return join_html([tag("h4", "Nearest test images of other patients"), tag("p", note, class_="note"), *strips])


def find_neighbours(x: Array, patient: Array) -> IntArray:
    """(M, K) the nearest rows of other patients by cosine, nearest first; with fewer than K, the nearest one is repeated."""
    from encoders.features.nearest import l2_normalize

    rows = l2_normalize(x)
    similarity = rows @ rows.T
    similarity[patient[:, None] == patient[None, :]] = -np.inf
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :NEIGHBOURS_SHOWN]
    valid = np.isfinite(np.take_along_axis(similarity, order, axis=1))
    return np.where(valid, order, order[:, :1])
