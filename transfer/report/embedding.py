"""Where an encoder puts the test images: a 2-D map coloured by label, patient and acquisition, and each image's nearest neighbours.

Only where a store is named and the encoder is here: features come from the cache, or are computed. A map shows what is near what; its
distances across the page mean nothing.

Shapes: M test images, D width.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.errors import InputError
from encoders.runtime.html import Html, join_html, tag
from encoders.runtime.svg import DIAGONAL_COLOUR, LINE_COLOURS, MARGIN_LEFT, Frame, LineStyle, draw_dots
from transfer.protocols import scores_slides
from transfer.records.record import Record
from transfer.report.images import THUMBNAIL_SIDE, render_thumbnail
from transfer.tables.rows import Row, Section
from transfer.tasks.group_columns import name_groups

MAX_POINTS = 800  # images on a map: more make a grey cloud and a heavy page
MAX_COLOURED_PATIENTS = len(LINE_COLOURS)  # those with most images get a colour of their own, without a name
QUERY_IMAGES, NEIGHBOURS_SHOWN = 6, 4  # images whose neighbours are shown, and how many


def embedding_section(block: Sequence[Section], store: Any | None, shown: Mapping[str, str]) -> Html | None:
    """Maps and neighbours of the first encoder of a task and of what it was compared with; None where the store is not the task's own."""
    rows = [row for s in block if not scores_slides(s.protocol) for row in s.rows if len(row.records) >= 1]
    if store is None or not rows or rows[0].records[0].identity.store != store.fingerprint:
        return None
    lead = next((row for row in rows if row.role == "encoder"), rows[0])
    pair = [lead, *(row for row in rows if row.encoder == lead.versus and row.protocol == lead.protocol)][:2]
    about = (
        f"t-SNE of the features of up to {MAX_POINTS} test images; near points are like each other, distances across the map mean nothing. "
        "Patients have colours and no names. If colours of acquisition or patients part more cleanly than those of the label, that is what "
        "the encoder sees first."
    )
    return join_html(
        [
            tag("h3", "What the encoder sees"),
            tag("p", about, class_="note"),
            *(_encoder_maps(row, store, shown, row is lead) for row in pair),
        ]
    )


def _encoder_maps(row: Row, store: Any, shown: Mapping[str, str], neighbours: bool) -> Html:
    record = row.records[0]
    where = {key: i for i, key in enumerate(store.column("key").astype(str).tolist())}
    at = np.array([where.get(str(k), -1) for k in record.arrays["test_key"]])
    known = np.flatnonzero(at >= 0)
    chosen = known[np.linspace(0, len(known) - 1, min(MAX_POINTS, len(known))).round().astype(int)]
    try:
        x = embed_rows(record, store, at[chosen])
    except InputError as wrong:
        return tag("p", f"{shown[row.encoder]} is not drawn: {wrong}", class_="note")
    parts = [
        tag("h4", shown[row.encoder]),
        tag("div", *(_draw_map(project_2d(x), *c) for c in list_colourings(record, chosen)), class_="grid"),
    ]
    if neighbours and len(chosen) > NEIGHBOURS_SHOWN:
        parts.append(_draw_neighbours(x, record, chosen, at, store))
    return join_html(parts)


def embed_rows(record: Record, store: Any, rows: NDArray[Any]) -> NDArray[np.float32]:
    """(M, D) features of the rows of the store. Raises InputError when the encoder is not here, or is another one by now."""
    from encoders.features.embed import default_device, extract_features
    from encoders.zoo import zoo

    encoder = zoo.load_encoder(record.identity.encoder, default_device())
    if encoder.sha256 != record.identity.encoder_sha256:
        raise InputError("the encoder of that name has other weights than those that were benched")
    return extract_features(encoder, store, index=rows)


def project_2d(x: NDArray[Any]) -> NDArray[np.float64]:
    """(M, 2) by PCA to 50 dimensions and t-SNE, with a fixed seed; by PCA alone for fewer than ten images."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    x = np.asarray(x, np.float64)
    small = PCA(min(50, *x.shape), svd_solver="full").fit_transform(x - x.mean(axis=0))
    if len(x) < 10:
        return np.pad(small, ((0, 0), (0, 2)))[:, :2]
    return np.asarray(TSNE(2, perplexity=min(30.0, (len(x) - 1) / 3), init="pca", random_state=0).fit_transform(small))


def list_colourings(record: Record, chosen: NDArray[Any]) -> list[tuple[str, NDArray[Any], list[str]]]:
    """(title, name of each image's group, groups in order of colour): by label, by patient, and by each column of acquisition."""
    y, meta = record.arrays["test_y"][chosen], record.meta
    label = np.where(np.isnan(y).all(axis=1), "unknown", _label_names(y, meta.classes, meta.kind))
    found = [("by label", label, _most_common(label))]
    patient = record.arrays["test_patient"][chosen].astype(str)
    several = [p for p, n in Counter(patient.tolist()).most_common(MAX_COLOURED_PATIENTS) if n > 1]
    if several:
        number = {p: f"patient {i + 1}" for i, p in enumerate(several)}
        found.append(("by patient", np.array([number.get(p, "others") for p in patient]), list(number.values())))
    for column, values in sorted(record.groups.items()):
        names = name_groups(column, values[chosen])
        if len(set(names.tolist())) > 1:
            found.append((f"by {column}", names, _most_common(names)))
    return found


def _label_names(y: NDArray[Any], classes: Sequence[str], kind: str) -> NDArray[Any]:
    if kind == "multiclass":
        return np.array(classes)[np.nan_to_num(y).argmax(axis=1)]
    if len(classes) == 1:
        return np.where(y[:, 0] > 0.5, classes[0], f"not {classes[0]}")
    first = np.nan_to_num(y).argmax(axis=1)  # of several labels, the first that is so
    return np.where(np.nan_to_num(y).max(axis=1) > 0.5, np.array(classes)[first], "none of them")


def _most_common(names: NDArray[Any]) -> list[str]:
    return [name for name, _ in Counter(names.tolist()).most_common(MAX_COLOURED_PATIENTS)]


def _draw_map(points: NDArray[np.float64], title: str, names: NDArray[Any], order: list[str]) -> Html:
    frame = Frame(_axis_range(points[:, 0]), _axis_range(points[:, 1]), width=320, height=320)
    marks: list[Html] = []
    for i, name in [(-1, None), *enumerate(order)]:
        mine = ~np.isin(names, order) if name is None else names == name
        if mine.any():
            marks += draw_dots(
                frame, points[mine, 0], points[mine, 1], LineStyle(DIAGONAL_COLOUR if name is None else LINE_COLOURS[i], None), radius=2.2
            )
    title_ = tag("text", title, x=MARGIN_LEFT, y=15, text_anchor="start", font_weight="600")
    told = tag("title", f"map of test images {title}"), tag("desc", f"{len(points)} images in {len(order)} colours")
    picture = tag("svg", *told, title_, *marks, viewBox="0 0 320 320", role="img")
    keys = [tag("span", tag("span", "●", style=f"color: {LINE_COLOURS[i]}"), f" {name}") for i, name in enumerate(order)]
    keys += [tag("span", tag("span", "●", style=f"color: {DIAGONAL_COLOUR}"), " others")] if not np.isin(names, order).all() else []
    return tag("figure", picture, tag("p", *keys, class_="legend"))


def _axis_range(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    spare = 0.03 * (high - low) or 1.0
    return low - spare, high + spare


def _draw_neighbours(x: NDArray[Any], record: Record, chosen: NDArray[Any], at: NDArray[Any], store: Any) -> Html:
    """Some test images, each before those of other patients that are nearest to it."""
    label = list_colourings(record, chosen)[0][1]
    patient = record.arrays["test_patient"][chosen].astype(str)
    order = find_neighbours(x, patient)
    asked = np.linspace(0, len(chosen) - 1, QUERY_IMAGES).round().astype(int)
    strips = []
    for i in dict.fromkeys(asked.tolist()):
        pictures = [tag("figure", tag("img", src=render_thumbnail(store, int(at[chosen[j]])), width=THUMBNAIL_SIDE, height=THUMBNAIL_SIDE, alt=str(label[j])),
                        tag("figcaption", "asked: " if j == i else "", label[j])) for j in [i, *order[i]]]  # fmt: skip
        strips.append(tag("div", *pictures, class_="thumbs near"))
    alike = float(np.mean(label[order[:, 0]] == label))
    told = f"The nearest image of another patient has the same label for {alike:.0%} of {len(chosen)} test images (cosine)."
    return join_html([tag("h4", "Nearest test images of other patients"), tag("p", told, class_="note"), *strips])


def find_neighbours(x: NDArray[Any], patient: NDArray[Any]) -> NDArray[np.int64]:
    """(M, NEAR) the nearest rows by cosine among those of other patients, nearest first; fewer patients repeat the last one."""
    from encoders.features.nearest import l2_normalize

    rows = l2_normalize(x)
    near = rows @ rows.T
    near[patient[:, None] == patient[None, :]] = -np.inf
    order = np.argsort(-near, axis=1, kind="stable")[:, :NEIGHBOURS_SHOWN]
    sure = np.isfinite(np.take_along_axis(near, order, axis=1))
    return np.where(sure, order, order[:, :1])
