"""Compressed DICOM streams: padding after the end is read, damage is found by strict decoders; indices and unknown patients."""

import io

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, MediaStorageDirectoryStorage

from encoders.ingest.dicom.labels import DicomLabels
from encoders.ingest.dicom.source import DicomSource
from encoders.ingest.dicom.stored_values import decode_stored_values
from encoders.ingest.dicom.stream_check import find_stream_damage
from encoders.ingest.shards import ingest
from encoders.store.store import Store
from tests.encoders.ingest.dicom_files import build_dicom, ramp, save_dicom
from tests.encoders.ingest.image_files import flip_until_warned, jpeg_bytes, texture

DEEP = texture(96, 112, top=4095, dtype=np.uint16)
STREAMS = {
    "J2K": (JPEG2000Lossless, lambda: imagecodecs.jpeg2k_encode(DEEP, codecformat="j2k", level=0)),
    "JP2": (JPEG2000, lambda: imagecodecs.jpeg2k_encode(DEEP, codecformat="jp2", level=0)),
    "JPEG-LS": (JPEGLSLossless, lambda: imagecodecs.jpegls_encode(DEEP)),
    "lossless JPEG": (JPEGLosslessSV1, lambda: imagecodecs.ljpeg_encode(DEEP, bitspersample=12)),
}
PADDING = [b"\0" * 2, b"\0" * 70, b"\0" * 5000, b"\xff" * 300, bytes(range(200)), b"\0\0\xff\xff" * 40]


def compressed(stream, syntax, pixels=DEEP, bits=12, fragments=1, **tags):
    ds = build_dicom(pixels, BitsStored=bits, **tags)
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([stream], fragments_per_frame=fragments)
    ds["PixelData"].is_undefined_length = True
    ds["PixelData"].VR = "OB"
    return ds


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("fragments", [1, 3])
def test_padding_after_the_end_of_a_stream_is_read(kind, fragments):
    syntax, encode = STREAMS[kind]
    stream = encode()
    for pad in PADDING:
        np.testing.assert_array_equal(decode_stored_values(compressed(stream + pad, syntax, fragments=fragments)), DEEP)


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_without_its_end_is_refused_whatever_follows(kind):
    syntax, encode = STREAMS[kind]
    stream = encode()
    for pad in (b"", b"\0" * 5000):
        assert "no end marker" in find_stream_damage(compressed(stream[: len(stream) * 2 // 3] + pad, syntax))


def test_damage_in_a_stream_is_found_and_accepted_on_request(tmp_path):
    gray, ls = texture(96, 112), imagecodecs.jpegls_encode(DEEP)
    whole = {"a": compressed(jpeg_bytes(gray), JPEGBaseline8Bit, gray, 8), "b": compressed(ls, JPEGLSLossless)}
    rgb = texture(96, 112, 3)
    changed = bytearray(ls)
    changed[len(ls) // 2] ^= 255
    broken = {
        "c": compressed(flip_until_warned(jpeg_bytes(gray)), JPEGBaseline8Bit, gray, 8),
        "d": compressed(jpeg_bytes(gray)[:-1500] + b"\xff\xd9", JPEGBaseline8Bit, gray, 8),
        "e": compressed(bytes(changed), JPEGLSLossless),
        "f": compressed(flip_until_warned(jpeg_bytes(rgb)), JPEGBaseline8Bit, rgb, 8, PhotometricInterpretation="YBR_FULL_422"),
    }
    for name, ds in (whole | broken).items():
        save_dicom(ds, tmp_path / "in" / f"{name}.dcm")
    summary = ingest(DicomSource(tmp_path / "in", size=64), tmp_path / "o.h5")
    assert [name for name, _ in summary.quarantined] == ["c.dcm", "d.dcm", "e.dcm", "f.dcm"]
    assert all("damaged compressed pixels: " in reason for _, reason in summary.quarantined)
    accepted = ingest(DicomSource(tmp_path / "in", size=64, channels=3, accept_damaged=True), tmp_path / "p.h5")
    stored = 6 - len(accepted.quarantined)  # a decoder may refuse what another one warns about
    assert stored >= 3
    assert any(f"{stored - 2} images: damaged, and stored as decoded" in note for note in accepted.notes)
    assert Store.open(tmp_path / "p.h5").attrs["recipe"]["accept_damaged"] is True


def test_an_index_of_a_medium_is_skipped_under_any_name(tmp_path):
    save_dicom(build_dicom(ramp(), BitsStored=12), tmp_path / "a.dcm")
    index = build_dicom(ramp(), SOPClassUID=MediaStorageDirectoryStorage)
    index.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    del index.PixelData
    for name in ("DICOMDIR", "dicomdir.dcm", "index.dcm"):
        save_dicom(index, tmp_path / name)
    source = DicomSource(tmp_path)
    assert [source.name(item) for item in source.items()] == ["a.dcm"]
    assert source.left_out["skipped: DICOMDIR"] == 3


def test_placeholders_of_a_header_are_unknown_patients(tmp_path):
    ids = ["ANONYMOUS", "", "0", "0000", "Anonymized^Patient", "UNKNOWN", None, "P7", "P7", "ANON_12"]
    for k, patient in enumerate(ids):
        save_dicom(build_dicom(ramp(high=4000 - k), f"1.2.3.{k}", BitsStored=12, PatientID=patient), tmp_path / "in" / f"{k}.dcm")
    summary = ingest(DicomSource(tmp_path / "in", size=32), tmp_path / "o.h5")
    store = Store.open(tmp_path / "o.h5")
    assert store.names_patient().tolist() == [False] * 7 + [True] * 3
    assert summary.patients == 9
    patients = store.column("patient")
    assert patients[7] == patients[8] != patients[9]
    assert any("'0' 1, '0000' 1" in note for note in summary.notes)


@pytest.mark.parametrize(("column", "known"), [(["0", "1", "0"], [True] * 3), (["0", "P1", "0"], [False, True, False])])
def test_a_zero_of_a_table_is_a_patient_where_patients_are_numbered(tmp_path, column, known):
    for k in range(3):
        save_dicom(build_dicom(ramp(high=4000 - k), f"1.2.3.{k}", BitsStored=12, PatientID="ANON"), tmp_path / "in" / f"{k}.dcm")
    (tmp_path / "t.csv").write_text("file,who\n" + "".join(f"{k}.dcm,{who}\n" for k, who in enumerate(column)))
    ingest(DicomSource(tmp_path / "in", DicomLabels(tmp_path / "t.csv", patient="who"), size=32), tmp_path / "o.h5")
    assert Store.open(tmp_path / "o.h5").names_patient().tolist() == known


def test_a_progressive_stream_without_damage_is_no_damage(tmp_path):
    gray, out = texture(96, 112), io.BytesIO()
    Image.fromarray(gray).save(out, "JPEG", quality=90, optimize=True)
    save_dicom(compressed(out.getvalue() + b"\0" * 99, JPEGBaseline8Bit, gray, 8), tmp_path / "in" / "a.dcm")
    assert ingest(DicomSource(tmp_path / "in", size=64), tmp_path / "o.h5").rows == 1
