"""Image files whose bytes were changed.

Formats with a checksum of every byte (PNG, and the strips of TIFF in Deflate and LZMA) accept only the pixels of the original. Of the
others (JPEG, TIFF without compression or in LZW and PackBits), what is accepted is what an independent decoder reads from the same bytes,
and never a file that was cut off.
"""

import io
import warnings
from pathlib import Path
from random import Random

import numpy as np
import tifffile
from PIL import Image, PngImagePlugin

from encoders.ingest.decode import decode_file
from encoders.ingest.source import Unreadable
from tests.encoders.ingest.image_files import jpeg_bytes, png_bytes, texture
from tests.fuzz.harness import FuzzClass, Refused, SilentlyWrong, require_equal
from tests.fuzz.mutators import keep_one_file, mutate_bytes

GRAY, COLOUR, DEEP = texture(40, 48), texture(40, 48, 3), texture(40, 48, top=65535, dtype=np.uint16)


class ImageFiles(FuzzClass):
    """One of several files is changed in each input."""

    names_input = False  # the quarantine names the file
    suffix = ""

    def make_files(self) -> dict[str, bytes]:
        """Name to the content of each file."""
        raise NotImplementedError

    def prepare(self, folder: Path) -> None:
        self.truth, self.cut = {}, False
        for name, data in self.make_files().items():
            (folder / f"{name}{self.suffix}").write_bytes(data)
            self.truth[name] = decode_file(folder / f"{name}{self.suffix}").pixels

    def change(self, data: bytes, rng: Random) -> tuple[bytes, str]:
        """Changed content, and what was changed."""
        return mutate_bytes(data, rng)

    def mutate(self, folder: Path, rng: Random) -> str:
        path = keep_one_file(folder, rng)
        data = path.read_bytes()
        changed, how = self.change(data, rng)
        self.cut = data.startswith(changed) and changed != data
        path.write_bytes(changed)
        return f"{path.name}: {how}"

    def check(self, folder: Path) -> None:
        for path in sorted(folder.iterdir()):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    pixels = decode_file(path).pixels
                except Unreadable as error:
                    if "\n" in str(error):
                        raise RuntimeError(f"the reason is not one line: {error}") from error
                    self.check_accepted(path)
                    raise Refused(str(error)) from error
            self.compare(path, pixels)

    def check_accepted(self, path: Path) -> None:
        """A damaged file is decoded or refused with one reason on --accept-damaged, too."""
        try:
            accepted = decode_file(path, accept_damaged=True)
        except Unreadable:
            return
        if not accepted.remarks:
            raise SilentlyWrong(f"{path.name} is accepted without a remark")

    def compare(self, path: Path, pixels: np.ndarray) -> None:
        """Raises SilentlyWrong unless the accepted pixels are those of the original file."""
        require_equal(pixels, self.truth[path.stem], path.name)


class PngFiles(ImageFiles):
    name = "image, PNG"
    suffix = ".png"

    def make_files(self) -> dict[str, bytes]:
        text = PngImagePlugin.PngInfo()
        text.add_text("comment", "nothing " * 9)
        every = {"gray": (GRAY, {"pnginfo": text}), "colour": (COLOUR, {}), "deep": (DEEP, {}), "alpha": (np.dstack([COLOUR, GRAY]), {})}
        files = {name: encode(Image.fromarray(pixels), "PNG", **options) for name, (pixels, options) in every.items()}
        files["palette"] = encode(Image.fromarray(COLOUR).convert("P"), "PNG", transparency=3)
        files["transparent"] = encode(Image.fromarray(COLOUR), "PNG", transparency=tuple(COLOUR[5, 5].tolist()), gamma=0.45)
        files["deep colour"] = png_bytes(texture(20, 24, 3, top=65535, dtype=np.uint16))
        return files


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


class JpegFiles(ImageFiles):
    name = "image, JPEG"
    suffix = ".jpg"

    def make_files(self) -> dict[str, bytes]:
        kinds = {"420": {"subsampling": 2}, "444": {"subsampling": 0}, "progressive": {"progressive": True}, "rgb": {"keep_rgb": True}}
        files = {name: jpeg_bytes(COLOUR, **options) for name, options in kinds.items()}
        return files | {"gray": jpeg_bytes(GRAY), "restart": jpeg_bytes(GRAY, restart_marker_blocks=3)}

    def compare(self, path: Path, pixels: np.ndarray) -> None:
        if np.array_equal(pixels, self.truth[path.stem]):
            return
        if self.cut:
            raise SilentlyWrong(f"{path.name} was cut off, and is accepted with other pixels")
        with Image.open(path) as image:
            upright = {3: 2, 6: 3, 8: 1}.get(image.getexif().get(274, 1), 0)
            want = np.asarray(image.convert("L" if image.mode == "L" else "RGB"))
        require_equal(pixels, np.rot90(want.reshape(*want.shape[:2], -1), upright), path.name)


class TiffFiles(ImageFiles):
    """The strips, or the end of the file, are changed: tags have no checksum."""

    suffix = ".tif"

    def __init__(self, checked: bool):
        self.checked, self.name = checked, f"image, TIFF {'with' if checked else 'without'} a checksum"

    def make_files(self) -> dict[str, bytes]:
        kinds = ("zlib", "lzma") if self.checked else (None, "lzw", "packbits")
        files = {f"colour {kind}": tiff_bytes(COLOUR, compression=kind, photometric="rgb", rowsperstrip=16) for kind in kinds}
        files |= {f"deep {kind}": tiff_bytes(DEEP, compression=kind, tile=(16, 32)) for kind in kinds}
        if self.checked:
            files["colour zlib predictor"] = encode(Image.fromarray(COLOUR), "TIFF", compression="tiff_deflate")
        return files

    def change(self, data: bytes, rng: Random) -> tuple[bytes, str]:
        if rng.random() < 0.2:
            keep = rng.randrange(len(data))
            return data[:keep], f"cut to {keep}"
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages.first
            place = rng.randrange(len(page.dataoffsets))
            start, count = page.dataoffsets[place], page.databytecounts[place]
        changed, how = mutate_bytes(data[start : start + count], rng)
        return data[:start] + changed[:count].ljust(count, b"\0") + data[start + count :], f"strip {place}: {how}"

    def compare(self, path: Path, pixels: np.ndarray) -> None:
        if self.checked or self.cut or np.array_equal(pixels, self.truth[path.stem]):
            super().compare(path, pixels)
        else:
            want = tifffile.imread(path)
            require_equal(pixels, want.reshape(*want.shape[:2], -1), path.name)


def tiff_bytes(pixels: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, pixels, **options)
    return out.getvalue()


CLASSES = [PngFiles(), JpegFiles(), TiffFiles(True), TiffFiles(False)]
