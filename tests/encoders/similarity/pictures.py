"""Images and changes of them for the tests of copies."""

import io

import numpy as np
from PIL import Image


def textured(seed, size=96):
    """(size, size, 1) uint8 with structure at all scales, as radiographs have: noise blurred in Fourier space."""
    noise = np.random.default_rng(seed).normal(size=(size, size))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    image = np.fft.ifft2(np.fft.fft2(noise) / (frequency + 0.02)).real
    return (255 * (image - image.min()) / np.ptp(image)).astype(np.uint8)[..., None]


def resized(image, height, width=None):
    size = (width or height, height)
    return np.asarray(Image.fromarray(image.squeeze()).resize(size, Image.Resampling.BICUBIC)).reshape(size[1], size[0], -1)


def recompressed(image, quality=75):
    blob = io.BytesIO()
    Image.fromarray(image.squeeze()).save(blob, "JPEG", quality=quality)
    return np.asarray(Image.open(blob)).reshape(image.shape)


def inverted(image):
    return 255 - image


def padded(image, value=0, top=0.1, bottom=0.1, left=0.1, right=0.1):
    """Borders as shares of the height and the width."""
    height, width = image.shape[:2]
    rows, columns = (round(top * height), round(bottom * height)), (round(left * width), round(right * width))
    return np.pad(image, (rows, columns, (0, 0)), constant_values=value)


COPIES = {
    "mirrored": lambda i: i[:, ::-1],
    "upside down": lambda i: i[::-1],
    "rotated by 90 degrees": np.rot90,
    "rotated by 180 degrees": lambda i: np.rot90(i, 2),
    "rotated by 270 degrees": lambda i: np.rot90(i, 3),
    "transposed": lambda i: i.swapaxes(0, 1),
    "transposed and rotated by 180 degrees": lambda i: np.rot90(i, 2).swapaxes(0, 1),
    "inverted": inverted,
    "padded with black": padded,
    "padded with white": lambda i: padded(i, 255),
    "padded with gray on two sides": lambda i: padded(i, 128, top=0, bottom=0, left=0.2, right=0.2),
    "padded on one side": lambda i: padded(i, 255, top=0.15, bottom=0, left=0, right=0),
    "enlarged": lambda i: resized(i, 2 * len(i)),
    "resized, other aspect": lambda i: resized(i, len(i) // 2, len(i)),
    "mirrored, halved": lambda i: resized(i[:, ::-1], len(i) // 2),
    "inverted, padded": lambda i: padded(inverted(i)),
    "inverted, mirrored, recompressed": lambda i: recompressed(inverted(i)[:, ::-1]),
    "rotated, padded, recompressed": lambda i: recompressed(padded(np.rot90(i)), 75),
    "padded, enlarged": lambda i: resized(padded(i, 255), 3 * len(i) // 2),
    "rotated, inverted, padded, resized": lambda i: resized(padded(inverted(np.rot90(i))), len(i)),
}
