"""DICOM files for the tests: one image with any tags, and a folder of good and broken files."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import BasicTextSRStorage, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, JPEGBaseline8Bit


def build_dicom(pixels, uid="1.2.3.4", **tags) -> FileDataset:
    """A data set with `pixels` (H, W) or (H, W, 3) as its stored values; `tags` by keyword, None removes one."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = uid
    ds = FileDataset("made.dcm", {}, file_meta=meta, preamble=b"\0" * 128)
    bits = 8 * pixels.dtype.itemsize
    defaults = {
        "SOPClassUID": DigitalXRayImageStorageForPresentation,
        "SOPInstanceUID": uid,
        "Modality": "DX",
        "PatientID": "P1",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 1 if pixels.ndim == 2 else 3,
        "PhotometricInterpretation": "MONOCHROME2" if pixels.ndim == 2 else "RGB",
        "BitsAllocated": bits,
        "BitsStored": tags.get("BitsStored", bits),
        "HighBit": tags.get("BitsStored", bits) - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }
    if pixels.ndim == 3:
        defaults["PlanarConfiguration"] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values that violate the standard are intended
        for keyword, value in {**defaults, **tags}.items():
            if value is not None:
                setattr(ds, keyword, value)
    ds.PixelData = np.ascontiguousarray(pixels).tobytes()
    ds["PixelData"].VR = "OB" if bits == 8 else "OW"
    return ds


def build_lut(entries, first, bits) -> Dataset:
    """An item of a modality or VOI LUT sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "US", list(map(int, entries)))
    return item


def compress_as_jpeg(ds: FileDataset, pixels) -> FileDataset:
    """`ds` with its (H, W) uint8 pixels as baseline JPEG."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    ds.PixelData = encapsulate([out.getvalue()])
    ds["PixelData"].is_undefined_length = True
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    return ds


def save_dicom(ds: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def ramp(dtype=np.uint16, low=0, high=4095, shape=(48, 40)):
    """Values from low to high, different enough that each step of the pipeline has a visible effect."""
    return np.linspace(low, high, shape[0] * shape[1]).round().astype(dtype).reshape(shape)


def mixed_folder(folder: Path) -> dict[str, list[str]]:
    """A folder as from an archive: three good files (two patients, PA, AP and lateral), six that cannot be read.

    Returns the names, relative, of the `good` and the `broken` ones."""
    uid = "1.2.826.0.1.3680043.10"
    save_dicom(build_dicom(ramp(), f"{uid}.1", BitsStored=12, PatientID="ana", ViewPosition="PA"), folder / "a" / "1.dcm")
    save_dicom(build_dicom(ramp()[::-1], f"{uid}.2", BitsStored=12, PatientID="ana", ViewPosition="LL"), folder / "a" / "2.dcm")
    eight = ramp(np.uint8, 0, 255)
    save_dicom(compress_as_jpeg(build_dicom(eight, f"{uid}.3", PatientID="bo", ViewPosition="AP"), eight), folder / "b" / "1")
    whole = (folder / "a" / "1.dcm").read_bytes()
    (folder / "b" / "native_cut.dcm").write_bytes(whole[: len(whole) - 1500])
    (folder / "b" / "header_cut.dcm").write_bytes(whole[:300])
    compressed = (folder / "b" / "1").read_bytes()
    (folder / "b" / "jpeg_cut.dcm").write_bytes(compressed[: len(compressed) - 200])
    report = build_dicom(ramp(), f"{uid}.4", SOPClassUID=BasicTextSRStorage)
    del report.PixelData
    save_dicom(report, folder / "b" / "report.dcm")
    save_dicom(build_dicom(np.full((48, 40), 7, np.uint16), f"{uid}.5", PatientID="cy"), folder / "c" / "flat.dcm")
    for name in ("c/text.dcm", "notes.txt"):  # the second is skipped
        (folder / name).write_text("these are the radiographs of the second visit\n" * 9)
    broken = ["b/native_cut.dcm", "b/header_cut.dcm", "b/jpeg_cut.dcm", "b/report.dcm", "c/flat.dcm", "c/text.dcm"]
    return {"good": ["a/1.dcm", "a/2.dcm", "b/1"], "broken": broken}
