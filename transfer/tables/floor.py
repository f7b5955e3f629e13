"""A warning where statistics of the image without a network recognise the label: the classes may differ in how images were acquired."""

from encoders.doctor.report import HIGH_FLOOR
from transfer.tables.rows import Row


def describe_high_floor(row: Row, protocol: str) -> list[str]:
    """The warning for a row of the floor whose AUROC is above HIGH_FLOOR; [] for every other row."""
    value = row.metrics["auroc"].value
    if row.role != "floor" or not value > HIGH_FLOOR:
        return []
    return [
        f"{row.encoder}, {protocol}{row.labels_title}: histogram and thumbnail alone, without a network, have an AUROC of {value:.3f}: the "
        "classes may differ in how the images were acquired, and results close to this do not show that disease is recognised"
    ]
