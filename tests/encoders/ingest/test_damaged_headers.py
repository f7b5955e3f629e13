"""Lengths and headers that contradict the rest of a file, found by changed bytes: each is one sentence."""

import io
import zipfile

import imagecodecs
import numpy as np
import pytest
import tifffile

from encoders.ingest.decode import decode_file
from encoders.ingest.medmnist.source import MedMNISTSource
from encoders.ingest.source import Unreadable
from encoders.runtime.errors import InputError
from encoders.runtime.npz_file import load_npz

HEADERS = {  # of an array: what NumPy gives to the tokenizer of Python
    "an open bracket": "{'descr': '|u1', 'fortran_order': False, 'shape': (4, 32, 32, }",
    "an open text": "{'descr': '''|u1, 'fortran_order': False, 'shape': (4, 32, 32), }",
    "no dictionary": "import os",
}


def write_archive(path, header):
    """An archive whose checksums are right, and one array of which has another header."""
    arrays = {f"{split}_{kind}": np.zeros((4, 32, 32) if kind == "images" else (4, 1), np.uint8)
              for split in ("train", "val", "test") for kind in ("images", "labels")}  # fmt: skip
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            out = io.BytesIO()
            np.save(out, array)
            data = out.getvalue()
            if name == "val_images":
                text = header.encode().ljust(117) + b"\n"
                data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + array.tobytes()
            archive.writestr(f"{name}.npy", data)


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_header_that_python_cannot_read_is_one_sentence(tmp_path, header):
    path = tmp_path / "pneumoniamnist.npz"
    write_archive(path, header)
    with pytest.raises(InputError, match=r"pneumoniamnist\.npz is a damaged \.npz file: [^\n]+$"):
        MedMNISTSource(path, tmp_path / "spool")
    with pytest.raises(InputError, match=r"^[^\n]*pneumoniamnist\.npz[^\n]*$"):
        load_npz(path, "copy it again")


@pytest.mark.parametrize(("rows", "accepted"), [(6, True), (16, True), (7, False), (15, False), (17, False), (5, False)])
def test_the_last_strip_has_its_rows_or_those_of_the_others(tmp_path, rows, accepted):
    pixels = np.repeat(np.arange(38, dtype=np.uint8)[:, None] * 3, 40, axis=1)
    strips = [pixels[0:16], pixels[16:32], np.resize(pixels[32:], (rows, 40))]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, compression="packbits", rowsperstrip=16)
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        tag, last = page.tags["StripByteCounts"], page.dataoffsets[-1]
        counts, at, code = list(page.databytecounts), tag.valueoffset, {3: "<u2", 4: "<u4"}[int(tag.dtype)]
    packed = imagecodecs.packbits_encode(strips[2], axis=-1)
    data = bytearray(path.read_bytes()[:last] + packed)
    data[at : at + 3 * np.dtype(code).itemsize] = np.array([*counts[:2], len(packed)], code).tobytes()
    path.write_bytes(data)
    if accepted:
        np.testing.assert_array_equal(decode_file(path).pixels[..., 0], pixels)
    else:
        with pytest.raises(Unreadable, match=r"damaged PACKBITS data: [\d,]+ bytes, expected 240"):
            decode_file(path)
