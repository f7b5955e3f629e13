"""A folder of NIfTI volumes (.nii, .nii.gz), stored as slices. An item is a volume, whose rows are its slices.

Shapes: X, Y, Z, C of the voxels in LPS; H, W, C of a slice.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from encoders.ingest.damage import report_damage
from encoders.ingest.geometry import describe_geometry, resize_bicubic, resize_to_square
from encoders.ingest.list_files import count_skipped, describe_skipped, list_files
from encoders.ingest.nifti.scaling import VoxelScaling, scale_to_gray
from encoders.ingest.nifti.segments import SegmentLabel, pair_segmentations, read_segmentation
from encoders.ingest.nifti.volume import (
    AXIS_NUMBERS,
    NIFTI_SUFFIXES,
    NOT_STATED,
    DamagedVolume,
    VolumeGeometry,
    check_channels,
    read_geometry,
    read_voxels,
    take_slice,
    volume_stem,
)
from encoders.ingest.nifti.volume_table import VolumeLabels, VolumeTable
from encoders.ingest.options import Codec, SliceAxis, SquareRule
from encoders.ingest.pattern import compile_pattern, extract_groups, refuse_two_origins, split_by_match, split_groups
from encoders.ingest.source import ImageRow, Remark, Source, Unreadable, Value, describe_default_dataset, file_stamp
from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.json_types import Json

SQUARE_PIXELS = 0.01  # pixels whose sides differ by more than this share are resampled to squares


class NiftiSource(Source[str]):
    """The slices of every volume below a folder. An item is the relative path of a volume."""

    codec: Codec = "raw"

    def __init__(
        self,
        folder: str | Path,
        labels: VolumeLabels | None = None,
        *,
        axis: SliceAxis = "axial",
        every: int = 1,
        scaling: VoxelScaling | None = None,
        channel: Sequence[int] | None = None,
        files: str | None = None,
        pattern: str | None = None,
        segmentation: tuple[str, str] | None = None,
        segments: Sequence[SegmentLabel] = (),
        min_segment: int = 1,
        min_foreground: float = 0.05,
        size: int = 256,
        resize: SquareRule = "pad",
        modality: str = "mr",
        dataset: str | None = None,
        accept_damaged: bool = False,
    ):
        """channel: of volumes with several, one or three numbers from 0.  files: shell pattern of relative paths.
        segmentation: (OLD, NEW) in the path.  min_segment: pixels of a positive slice, in voxels of the file.
        min_foreground: share of a slice's pixels above black; other slices are left out.
        accept_damaged: voxels that a damaged volume lacks are 0; a damaged segmentation is never accepted.

        Raises InputError for options that do not fit the folder, the table or the volumes."""
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"{folder} is not a folder; give the folder that holds the volumes")
        if modality == "ct" and scaling is None:
            raise InputError("--modality ct needs --window CENTER,WIDTH or a name such as lung, or --percentiles LOW,HIGH")
        if segments and segmentation is None:
            raise InputError("--segment needs --segmentation OLD=NEW, which names the segmentation of a volume")
        self.axis, self.every, self.scaling = axis, every, scaling or VoxelScaling()
        self.channel, self.channels = channel, 3 if channel is not None and len(channel) == 3 else 1
        self.segments = list(segments) or ([SegmentLabel("segment")] if segmentation else [])
        self.segmentation, self.min_segment, self.min_foreground = segmentation, min_segment, min_foreground
        self.size, self.resize, self.modality, self.accept_damaged = size, resize, modality, accept_damaged
        self.dataset = dataset or self.folder.resolve().name
        self.unit, self.geometry = self.scaling.unit, describe_geometry(size, resize) | {"axis": axis}
        self.pattern = compile_pattern(pattern) if pattern else None
        self.files, self.labels = files, labels
        self.notes: list[str] = [] if dataset else [describe_default_dataset(self.dataset)]
        self.left_out: dict[str, int] = {}
        self._items = self._list_volumes()
        self.table: VolumeTable | None = None
        if labels is not None:
            self.table = labels.join({name: str(self._groups(name).get("patient", "")) for name in self._items}, self.folder)
            self.notes += self.table.notes
            self._refuse_two_origins(self.table)
            if labels.only:
                self._leave_out("no row in the table", [name for name in self._items if name in self.table.rows])
        self.geometries = self._read_geometries()

    def _list_volumes(self) -> list[str]:
        names, others, self.broken = listed = list_files(self.folder, NIFTI_SUFFIXES)
        self.notes += describe_skipped(others)
        self.left_out |= count_skipped(others)
        if not names:
            raise InputError(f"{self.folder} holds no .nii or .nii.gz file, but {listed.describe_others()}")
        self.pairs = pair_segmentations(names, self.segmentation) if self.segmentation else {}
        return self._select_volumes(names)

    def _select_volumes(self, names: list[str]) -> list[str]:
        """The volumes that --files and --pattern select and that are not a segmentation; the others are counted in the notes."""
        masks = set(self.pairs.values())
        self._items = names
        chosen = self._leave_out("segmentation", [name for name in names if name not in masks])
        if self.files:
            kept = [name for name in chosen if fnmatchcase(name, self.files) or fnmatchcase(Path(name).name, self.files)]
            if not kept:
                raise InputError(f"--files {self.files!r} selects none of the {len(chosen)} volumes (first: {chosen[0] if chosen else ''})")
            self.notes.append(f"{len(chosen) - len(kept)} volumes are left out by --files {self.files}")
            chosen = self._leave_out("--files", kept)
        if self.pattern is not None:
            matched, others = split_by_match(self.pattern, chosen)
            chosen = self._leave_out("no match of --pattern", matched)
            self.notes.append(f"columns from the path: {', '.join(self.pattern.groupindex)}")
            if others:
                self.notes.append(f"{len(others)} volumes do not match --pattern and are left out (first: {others[0]})")
        if masks:
            without = sorted(set(chosen) - self.pairs.keys())
            self.notes.append(f"{len(chosen) - len(without)} volumes have a segmentation; {len(masks)} files are segmentations")
            if without:
                self.notes.append(f"{len(without)} volumes have no segmentation and no labels from it (first: {without[0]})")
        return sorted(chosen)

    def _leave_out(self, reason: str, kept: list[str]) -> list[str]:
        """Keeps these items, and counts the others."""
        if len(kept) < len(self._items):
            self.left_out[reason] = len(self._items) - len(kept)
        self._items = kept
        return kept

    def _read_geometries(self) -> dict[str, VolumeGeometry]:
        """The geometry of every volume with a readable header; the others are quarantined when they are read."""
        found, several = {}, Counter[int]()
        for name in self._items:
            try:
                geometry = found[name] = read_geometry(self.folder / name)
                several[geometry.channels] += 1
            except Unreadable:
                continue
        if self.channel is None and several and 1 not in several:
            counts = " or ".join(map(str, sorted(several)))
            raise InputError(f"the volumes have {counts} channels; choose one with --channel 0, or red, green, blue with --channel 0,2,3")
        planned = sum(len(self._slice_numbers(g)) for g in found.values())
        step = f" (one of {self.every})" if self.every > 1 else ""
        self.notes.append(f"{len(self._items)} volumes, {planned} {self.axis} slices{step}")
        if not (self.pattern and "patient" in self.pattern.groupindex):
            self.notes.append("patients are not in --pattern: without a column of patients every volume counts as a patient of its own")
        if unstated := [name for name, g in found.items() if g.orientation == NOT_STATED]:
            self.notes.append(f"warning: {len(unstated)} volumes state no orientation (first: {unstated[0]}): their slices may be turned")
        return found

    def _refuse_two_origins(self, table: VolumeTable) -> None:
        """Raises InputError if a column of the table has the role of a group of the pattern or the name of a segment."""
        refuse_two_origins(self.pattern.groupindex if self.pattern else (), table.roles)
        for segment in self.segments:
            if segment.name in table.roles.label:
                raise InputError(f"the label {segment.name!r} is in --segment and in a column of the table; rename the segment")

    def _slice_numbers(self, geometry: VolumeGeometry) -> range:
        """Every k-th slice, beginning half a step from the end, so that the middle is covered evenly."""
        return range((self.every - 1) // 2, geometry.slices(self.axis), self.every)

    def _groups(self, name: str) -> dict[str, str]:
        return extract_groups(self.pattern, name) if self.pattern else {}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_items": []}  # a worker receives the items that it reads

    def items(self) -> list[str]:
        return self._items

    def name(self, item: str) -> str:
        return item

    def stamp(self, item: str) -> str:
        parts = [item, *([self.pairs[item]] if item in self.pairs else [])]
        stamps = [file_stamp(self.folder / part) if (self.folder / part).is_file() else "missing" for part in parts]
        row = self.table.rows.get(item, {}) if self.table else {}
        return "+".join(stamps) + "".join(f"|{k}={v}" for k, v in row.items())

    def planned_slices(self, item: str) -> int:
        """Number of slices of a volume that `read` looks at; 0 if its header cannot be read."""
        return len(self._slice_numbers(self.geometries[item])) if item in self.geometries else 0

    def read(self, item: str) -> Iterator[ImageRow]:
        geometry = self.geometries.get(item) or read_geometry(self.folder / item)
        if self.channel is None and geometry.channels > 1:
            raise Unreadable(f"has {geometry.channels} channels; choose with --channel 0, or three for red, green and blue")
        channels = self.channel or [0]
        check_channels(geometry.channels, channels)
        voxels, remarks = self._read_voxels(item, channels)  # (X, Y, Z, C)
        limits = self.scaling.limits(voxels)
        mask = read_segmentation(self.folder / self.pairs[item], geometry)[..., None] if item in self.pairs else None
        index, meta, labels = self._volume_columns(item, geometry)
        for number in self._slice_numbers(geometry):
            image = scale_to_gray(cut := take_slice(voxels, self.axis, number), limits)
            if (image > 0).any(axis=2).mean() < self.min_foreground or image.min() == image.max():
                continue
            own: dict[str, Value] = {"slice": number, "not_finite": int((~np.isfinite(cut)).sum())}
            segments: dict[str, Value] = {}
            for segment in self.segments:
                pixels = segment.count(take_slice(mask, self.axis, number)) if mask is not None else None
                segments[segment.name] = None if pixels is None else int(pixels >= self.min_segment)
            square, pixel_mm = self.resize_slice(image, geometry.pixel_spacing(self.axis))
            key = f"{item}/{self.axis}_{number:04d}"
            yield ImageRow(square, {"key": key, **index}, {**meta, **own, "pixel_mm": round(pixel_mm, 4)}, {**labels, **segments}, remarks)

    def _read_voxels(self, item: str, channels: Sequence[int]) -> tuple[Array, list[Remark]]:
        """(X, Y, Z, C) voxels, and a remark if they are damaged. Raises Unreadable for damaged ones unless they are accepted."""
        try:
            return read_voxels(self.folder / item, channels), []
        except DamagedVolume as error:
            remark = report_damage(error.words, self.accept_damaged)
        return read_voxels(self.folder / item, channels, repaired=True), [remark]

    def _volume_columns(self, item: str, geometry: VolumeGeometry) -> tuple[dict[str, Value], dict[str, Value], dict[str, Value]]:
        """The columns of index, meta and labels that all slices of a volume share."""
        groups, labels, meta = split_groups(self._groups(item))
        index: dict[str, Value] = {"volume": item, "patient": volume_stem(item), **groups}
        meta |= {"slice_mm": round(geometry.spacing[AXIS_NUMBERS[self.axis]], 4), "orientation": geometry.orientation}
        if self.table is not None:
            row, roles = self.table.rows.get(item, {}), self.table.roles
            index |= {role: row[name] for role, name in roles.identity.items() if row}
            meta |= {name: row.get(name) for name in roles.meta}
            labels |= {name: row.get(name) for name in roles.label}
        return index, meta, labels

    def resize_slice(self, image: Array, spacing: tuple[float, float]) -> tuple[Array, float]:
        """(S, S, C) with square pixels, and their side in mm.  spacing: mm per row and column of `image` (H, W, C)."""
        side = min(spacing)
        if max(spacing) > side * (1 + SQUARE_PIXELS):
            height, width = (max(1, round(n * mm / side)) for n, mm in zip(image.shape[:2], spacing, strict=True))
            image = resize_bicubic(image, height, width)
        if self.size and not (self.resize == "squash" and image.shape[0] != image.shape[1]):
            side *= (min if self.resize == "crop" else max)(image.shape[:2]) / self.size
        elif self.size:
            side = float("nan")  # squashed pixels have two sides
        return resize_to_square(image, self.size, self.resize), side

    def recipe(self) -> dict[str, Json]:
        window = self.scaling.window
        settings: dict[str, Json] = {
            "command": "ingest nifti",
            "axis": self.axis,
            "every": self.every,
            "min_foreground": self.min_foreground,
            "window": [window.center, window.width] if window else None,
            "percentiles": None if window else list(self.scaling.percentiles),
            "channel": list(self.channel) if self.channel else None,
            "columns": None,
        }
        settings |= self.labels.recipe(self.table) if self.labels and self.table else {}
        if self.segmentation:
            values: dict[str, Json] = {s.name: list(s.values) for s in self.segments}
            settings |= {"segmentation": "=".join(self.segmentation), "segments": values, "min_segment": self.min_segment}
        optional: dict[str, Json] = {
            "accept_damaged": self.accept_damaged,
            "files": self.files,
            "pattern": self.pattern.pattern if self.pattern else None,
            "only": list(self.labels.only) if self.labels else None,
        }
        return settings | {name: value for name, value in optional.items() if value}


def parse_channels(text: str) -> list[int]:
    """The channels of `0` or `0,2,3`. Raises InputError unless there are one or three whole numbers."""
    parts = text.split(",")
    if len(parts) not in (1, 3) or not all(re.fullmatch(r"\s*[0-9]+\s*", part) for part in parts):
        raise InputError(f"--channel {text!r}: expected one number from 0, or three for red, green and blue, e.g. --channel 0,2,3")
    return [int(part) for part in parts]
