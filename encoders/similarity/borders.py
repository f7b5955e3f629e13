"""Uniform borders of an image, such as the bars that padding adds: where they end, to a fraction of a pixel.

A line of pixels at an edge is border while its mean distance from the median of the outermost line is at most 4/255 of the image's range.
That tolerates the ringing that JPEG leaves beside the content. Resizing blends the last line of the border with the first line of the
content; that line is replaced by its inner neighbour, and the box begins at the fraction of it that is content.

Only one border is removed, not the borders within it: an image that fades into black would be trimmed line by line. Copies that were padded
around a border of their own are found by comparing with the original as it is, and with the original without its border.

Shapes: H, W of one gray image.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BORDER_TOLERANCE = 4 / 255  # of the image's range
MIN_CONTENT = 0.25  # of either side; an image with less content than that is taken as it is
SHARP_EDGE = 4  # tolerances between a border and the content beside it
LINES_AT_ONCE = 16

Gray = NDArray[np.float32]


@dataclass(frozen=True)
class Content:
    """gray: (H', W') the image without its borders.  box: its left, top, right and bottom edge in `gray`, pixels."""

    gray: Gray
    box: tuple[float, float, float, float]

    @property
    def width(self) -> int:
        return round(self.box[2] - self.box[0])

    @property
    def height(self) -> int:
        return round(self.box[3] - self.box[1])

    def shrink_to(self, size: tuple[int, int]) -> "Content":
        """The content at `size` (width, height)."""
        from PIL import Image

        if (self.width, self.height) == size:
            return self
        small = Image.fromarray(self.gray).resize(size, Image.Resampling.BICUBIC, box=self.box)
        return Content(np.asarray(small), (0, 0, *size))


def trim_borders(gray: Gray) -> Content | None:
    """The content of an (H, W) image within its uniform borders; None if it has none."""
    tolerance = BORDER_TOLERANCE * float(np.ptp(gray))
    if tolerance == 0:
        return None
    sides = (gray.T, gray, gray.T[::-1], gray[::-1])  # left, top, right, bottom: lines from the edge inward
    left, top, right, bottom = widths = [border_width(lines, tolerance) for lines in sides]
    height, width = gray.shape[0] - top - bottom, gray.shape[1] - left - right
    if not any(widths) or height < max(MIN_CONTENT * gray.shape[0], 3) or width < max(MIN_CONTENT * gray.shape[1], 3):
        return None
    shares = [content_fraction(lines, n, tolerance) if n else 1.0 for lines, n in zip(sides, widths, strict=True)]
    return replace_blended_lines(gray[top : top + height, left : left + width], shares)


def border_width(lines: Gray, tolerance: float) -> int:
    """How many of the first lines (n, m) of an image are border."""
    value = np.median(lines[0])
    for start in range(0, len(lines), LINES_AT_ONCE):
        content = np.abs(lines[start : start + LINES_AT_ONCE] - value).mean(axis=1) > tolerance
        if content.any():
            return start + int(content.argmax())
    return len(lines)


def content_fraction(lines: Gray, width: int, tolerance: float) -> float:
    """The share of content in the first line after a border of `width` lines: its distance from the border, over that of the next line.

    1 where the image fades into the border, as at the edge of a field of radiation, because there is no edge to place."""
    value = np.median(lines[width - 1])
    first, second = (float(np.abs(lines[width + k] - value).mean()) for k in (0, 1))
    return min(first / second, 1.0) if second > SHARP_EDGE * tolerance else 1.0


def replace_blended_lines(trimmed: Gray, shares: list[float]) -> Content:
    """The trimmed image; a line at an edge of which only a share is content has the values of its inner neighbour."""
    out = np.array(trimmed)
    for lines, share in zip((out.T, out, out.T[::-1], out[::-1]), shares, strict=True):
        if share < 1:
            lines[0] = lines[1]
    left, top, right, bottom = shares
    return Content(out, (1 - left, 1 - top, out.shape[1] - 1 + right, out.shape[0] - 1 + bottom))
