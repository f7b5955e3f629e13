"""DICOM files, NIfTI volumes and slides whose bytes were changed.

The pixels of DICOM have a length and, compressed, a structure, but no checksum: they are cut off, lengthened, or their fragments are left
out, doubled and exchanged. What is accepted of a JPEG or JPEG 2000 that was changed inside is what Pillow decodes.
Those of a slide are JPEG: what is accepted is what OpenSlide reads. Gzip has a checksum of every byte.
"""

import io
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random

import imagecodecs
import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_fragments
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from encoders.ingest.dicom.source import DicomSource
from encoders.ingest.nifti.source import NiftiSource
from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.slide import Slide
from tests.encoders.ingest.dicom_files import build_dicom, save_dicom
from tests.encoders.ingest.image_files import jpeg_bytes, texture
from tests.encoders.ingest.nifti.volume_files import head, save_volume
from tests.encoders.ingest.wsi.slide_files import jpeg_tile, tissue_like, write_jpeg_slide
from tests.fuzz.harness import FuzzClass, Refused, SilentlyWrong, require_equal
from tests.fuzz.mutators import keep_one_file, mutate_bytes, mutate_file

DEEP, GRAY = texture(40, 48, top=4095, dtype=np.uint16), texture(40, 48)
STREAMS: dict[str, tuple[str, Callable[[], bytes], np.ndarray, int]] = {
    "jpeg": (JPEGBaseline8Bit, lambda: jpeg_bytes(GRAY), GRAY, 8),
    "j2k": (JPEG2000Lossless, lambda: imagecodecs.jpeg2k_encode(DEEP, codecformat="j2k", level=0), DEEP, 12),
    "jls": (JPEGLSLossless, lambda: imagecodecs.jpegls_encode(DEEP), DEEP, 12),
    "ljpeg": (JPEGLosslessSV1, lambda: imagecodecs.ljpeg_encode(DEEP, bitspersample=12), DEEP, 12),
}


class DicomPixels(FuzzClass):
    """The pixel data of one of several files have another length, or other fragments; or the file is cut off."""

    name = "DICOM, pixels of another length"
    names_input = False  # the quarantine names the file
    inside = False  # a stream without a checksum was changed, and has its ends

    def prepare(self, folder: Path) -> None:
        save_dicom(build_dicom(DEEP, BitsStored=12), folder / "native.dcm")
        ds = dcmread(folder / "native.dcm")
        ds.compress(RLELossless)
        ds.save_as(folder / "rle.dcm")
        for name, (syntax, encode, pixels, bits) in STREAMS.items():
            stream = encode()
            ds = build_dicom(pixels, BitsStored=bits)
            ds.file_meta.TransferSyntaxUID = syntax
            ds.PixelData = encapsulate([stream], fragments_per_frame=4)
            ds["PixelData"].is_undefined_length, ds["PixelData"].VR = True, "OB"
            save_dicom(ds, folder / f"{name}.dcm")
        self.truth = {path.stem: read_one(folder, path.name) for path in folder.iterdir()}

    def mutate(self, folder: Path, rng: Random) -> str:
        path, self.inside = keep_one_file(folder, rng), False
        data = path.read_bytes()
        if rng.random() < 0.3:
            keep = rng.randrange(len(data))
            path.write_bytes(data[:keep])
            return f"{path.name}: cut to {keep}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = dcmread(path)
            ds.PixelData, change = change_fragments(ds.PixelData, rng) if path.stem != "native" else change_length(ds.PixelData, rng)
            ds.save_as(path)
        self.inside = path.stem in ("jpeg", "j2k") and not change.startswith("fragment 3") and change.endswith(("exchanged", "cut off"))
        return f"{path.name}: {change}"

    def check(self, folder: Path) -> None:
        for path in sorted(folder.iterdir()):
            try:
                found = read_one(folder, path.name)
                if self.inside and not np.array_equal(found, self.truth[path.stem]):
                    require_as_pillow(path, found)
                else:
                    require_equal(found, self.truth[path.stem], path.name)
            except Unreadable as error:
                if "\n" in str(error):
                    raise RuntimeError(f"the reason is not one line: {error}") from error
                raise Refused(str(error)) from error


def require_as_pillow(path: Path, found: np.ndarray) -> None:
    """Raises SilentlyWrong unless a JPEG or JPEG 2000 whose stream was changed inside, which no checksum tells, is what Pillow decodes.

    found: (H, W, 1), shades that are linear in the stored values. Decoders of JPEG round in their own ways, by up to two levels."""
    stream = b"".join(list(generate_fragments(dcmread(path).PixelData))[1:])
    try:
        with Image.open(io.BytesIO(stream)) as image:
            stored = np.asarray(image, dtype=np.float64).ravel()
    except Exception as error:
        raise SilentlyWrong(f"{path.name} is accepted, and Pillow says {error!r}") from error
    slope, start = np.polyfit(stored, found.ravel(), 1)
    if np.abs(found.ravel() - start - slope * stored).max() > 2.5 * abs(slope):
        raise SilentlyWrong(f"{path.name} has other pixels than Pillow decodes")


def read_one(folder: Path, name: str) -> np.ndarray:
    """The stored image of a file."""
    source = DicomSource(folder, size=0)
    return source.read(next(item for item in source.items() if item.name == name)).image


def change_length(pixels: bytes, rng: Random) -> tuple[bytes, str]:
    """Native pixel data with another even length."""
    if rng.random() < 0.5:
        more = bytes(2 * rng.randint(1, 3000))
        return pixels + more, f"{len(more)} bytes more"
    keep = 2 * rng.randrange(len(pixels) // 2)
    return pixels[:keep], f"cut to {keep} bytes"


def change_fragments(data: bytes, rng: Random) -> tuple[bytes, str]:
    """Encapsulated pixel data with a fragment left out, doubled, cut, emptied or exchanged with another, or with another offset table."""
    parts, at = [], 0
    while at < len(data) and data[at : at + 4] == b"\xfe\xff\x00\xe0":
        (length,) = struct.unpack_from("<I", data, at + 4)
        parts.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    table, fragments = parts[0], parts[1:]
    i, j = rng.randrange(len(fragments)), rng.randrange(len(fragments))
    match rng.randrange(7):
        case 0:
            del fragments[i]
            change = f"fragment {i} left out"
        case 1:
            fragments.insert(i, fragments[i])
            change = f"fragment {i} doubled"
        case 2:
            fragments[i] = fragments[i][: 2 * rng.randrange(len(fragments[i]) // 2)]
            change = f"fragment {i} cut off"
        case 3:
            fragments[i] = b""
            change = f"fragment {i} empty"
        case 4:
            fragments[i], fragments[j] = fragments[j], fragments[i]
            change = f"fragments {i} and {j} exchanged"
        case 5:
            table = struct.pack("<II", 0, rng.randrange(9999))
            change = "an offset table of two images"
        case _:
            fragments *= 2
            change = "all fragments doubled"
    return b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(part)) + part for part in (table, *fragments)), change


class NiftiGzip(FuzzClass):
    """A compressed volume whose bytes were changed."""

    name = "NIfTI, gzip"
    names_input = False

    def prepare(self, folder: Path) -> None:
        save_volume(folder / "v.nii.gz", head())
        self.truth = [row.image for row in NiftiSource(folder, size=0).read("v.nii.gz")]

    def check(self, folder: Path) -> None:
        try:
            rows = list(NiftiSource(folder, size=0).read("v.nii.gz"))
        except Unreadable as error:
            raise Refused(str(error)) from error
        require_equal([row.image for row in rows], self.truth, "slices")

    def mutate(self, folder: Path, rng: Random) -> str:
        return mutate_file(folder / "v.nii.gz", rng)


class SlideTiles(FuzzClass):
    """Bytes of one JPEG tile of a slide are changed."""

    name = "slide, JPEG tiles"
    names_input = False

    def prepare(self, folder: Path) -> None:
        self.tiles = [jpeg_tile(tissue_like(64, 64, seed)) for seed in range(4)]
        self.write(folder, self.tiles)
        self.truth = self.read(folder)

    def write(self, folder: Path, tiles: list[bytes]) -> None:
        write_jpeg_slide(folder / "a.tiff", [(128, 128)], tiles, lambda level: np.arange(4).reshape(2, 2), side=64)

    def read(self, folder: Path) -> list[np.ndarray]:
        slide = Slide(folder / "a.tiff")
        try:
            return [np.asarray(slide.read(*at, 0, 64, 64)) for at in ((0, 0), (64, 0), (0, 64), (64, 64))]
        finally:
            slide.close()

    def mutate(self, folder: Path, rng: Random) -> str:
        tiles, i = list(self.tiles), rng.randrange(4)
        tiles[i], how = mutate_bytes(tiles[i], rng)
        self.cut = bool(tiles[i]) and self.tiles[i].startswith(tiles[i]) and tiles != self.tiles  # one of 0 bytes is a tile left empty
        self.write(folder, tiles)
        return f"tile {i}: {how}"

    def check(self, folder: Path) -> None:
        import openslide

        try:
            found = self.read(folder)
        except Unreadable as error:
            raise Refused(str(error)) from error
        if not all(map(np.array_equal, found, self.truth)):
            if self.cut:
                raise SilentlyWrong("a tile was cut off, and is accepted with other pixels")
            with openslide.OpenSlide(folder / "a.tiff") as slide:
                places = ((0, 0), (64, 0), (0, 64), (64, 64))
                white = Image.new("RGBA", (64, 64), "white")  # behind a tile that is left empty
                want = [np.asarray(Image.alpha_composite(white, slide.read_region(at, 0, (64, 64))).convert("RGB")) for at in places]
            require_equal(found, want, "tiles")


CLASSES = [DicomPixels(), NiftiGzip(), SlideTiles()]
