"""Synthetic slides of several files that OpenSlide reads: Hamamatsu VMS and VMU, DICOM series, MIRAX.

The layouts are those that OpenSlide 4 parses (openslide-vendor-hamamatsu.c, -dicom.c, -mirax.c).
"""

import struct

from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage

from tests.encoders.ingest.wsi.slide_files import halve_image, jpeg_tile


def write_vmu(path, image, mpp=0.25):
    """image: (H, W, 3).  Writes NAME.vmu, NAME.ngr and NAME_map.ngr."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix, level in (("", image), ("_map", halve_image(halve_image(image)))):
        height, width = level.shape[:2]
        header = struct.pack("<2sHiii", b"GN", 0, width, height, width) + bytes(8) + struct.pack("<i", 28)
        path.with_name(f"{path.stem}{suffix}.ngr").write_bytes(header + (level.astype("<u2") << 4).tobytes())
    path.write_text(
        "[Uncompressed Virtual Microscope Specimen]\nNoLayers=1\nBitsPerPixel=36\nPixelOrder=RGB\n"
        f"ImageFile={path.stem}.ngr\nMapFile={path.stem}_map.ngr\n{_physical_size(image, mpp)}"
    )
    return path


def write_vms(path, image, mpp=0.25):
    """image: (H, W, 3).  Writes NAME.vms, "NAME (0,0).jpg" and NAME_map.jpg."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, level in ((f"{path.stem} (0,0).jpg", image), (f"{path.stem}_map.jpg", halve_image(halve_image(image)))):
        Image.fromarray(level).save(path.with_name(name), "JPEG", quality=95, subsampling=0, restart_marker_blocks=8)
    path.write_text(
        "[Virtual Microscope Specimen]\nNoLayers=1\nNoJpegColumns=1\nNoJpegRows=1\n"
        f"ImageFile={path.stem} (0,0).jpg\nMapFile={path.stem}_map.jpg\n{_physical_size(image, mpp)}"
    )
    return path


def _physical_size(image, mpp):
    height, width = image.shape[:2]
    return f"PhysicalWidth={round(width * mpp * 1000)}\nPhysicalHeight={round(height * mpp * 1000)}\n"


def write_dicom_series(folder, levels, mpp=0.25, series="1.2.826.0.1.3680043.8.498.1", largest="level_0"):
    """levels: (H, W, 3), the largest first, sides multiples of 256.  Writes level_1.dcm, level_2.dcm, ..., and the largest by its name."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, level in enumerate(levels):
        height, width = level.shape[:2]
        tiles = level.reshape(height // 256, 256, width // 256, 256, 3).swapaxes(1, 2).reshape(-1, 256, 256, 3)
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = VLWholeSlideMicroscopyImageStorage
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = f"{series}.{number}"
        ds.SeriesInstanceUID, ds.Modality, ds.VolumetricProperties = series, "SM", "VOLUME"
        ds.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "NONE" if number == 0 else "RESAMPLED"]
        ds.SamplesPerPixel, ds.PlanarConfiguration, ds.PhotometricInterpretation = 3, 0, "YBR_FULL_422"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
        ds.Rows, ds.Columns, ds.NumberOfFrames, ds.DimensionOrganizationType = 256, 256, len(tiles), "TILED_FULL"
        ds.TotalPixelMatrixRows, ds.TotalPixelMatrixColumns, ds.TotalPixelMatrixFocalPlanes = height, width, 1
        groups, measures = Dataset(), Dataset()
        measures.PixelSpacing = [mpp / 1000 * levels[0].shape[0] / height] * 2
        groups.PixelMeasuresSequence, ds.SharedFunctionalGroupsSequence = [measures], [groups]
        ds.PixelData = encapsulate([jpeg_tile(tile, 95) for tile in tiles])
        ds["PixelData"].is_undefined_length = True
        ds.save_as(folder / f"{f'level_{number}' if number else largest}.dcm", enforce_file_format=True)
    return folder / f"{largest}.dcm"


def write_mirax(path, levels, mpp=0.25, slide_id="00112233445566778899AABBCCDDEEFF"):
    """levels: (H, W, 3), each half of the one before, sides multiples of 256.  Writes NAME.mrxs and a folder NAME with a file per level."""
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    path.touch()
    across, down = levels[0].shape[1] // 256, levels[0].shape[0] // 256
    head = f"01.02{slide_id}".encode()
    index = bytearray(head + struct.pack("<ii", len(head) + 8, 0) + bytes(4 * len(levels)))
    for number, level in enumerate(levels):
        data, entries = bytearray(b"data file"), []
        for y in range(level.shape[0] // 256):
            for x in range(level.shape[1] // 256):
                blob = jpeg_tile(level[y * 256 : (y + 1) * 256, x * 256 : (x + 1) * 256], 95)
                entries.append(((y * across + x) << number, len(data), len(blob), number))
                data += blob
        (folder / f"Data{number:04d}.dat").write_bytes(data)
        struct.pack_into("<i", index, len(head) + 8 + 4 * number, len(index))
        index += (
            struct.pack("<ii", 0, len(index) + 8)
            + struct.pack("<ii", len(entries), 0)
            + b"".join(struct.pack("<iiii", *e) for e in entries)
        )
    (folder / "Index.dat").write_bytes(index)
    names = [f"HIER_0_VAL_{k}_SECTION=LEVEL_{k}" for k in range(len(levels))]
    sections = [
        f"[LEVEL_{k}]\nOVERLAP_X=0\nOVERLAP_Y=0\nMICROMETER_PER_PIXEL_X={mpp * 2**k}\nMICROMETER_PER_PIXEL_Y={mpp * 2**k}\n"
        f"IMAGE_FORMAT=JPEG\nIMAGE_FILL_COLOR_BGR=16777215\nDIGITIZER_WIDTH=256\nDIGITIZER_HEIGHT=256\nIMAGE_CONCAT_FACTOR={int(k > 0)}"
        for k in range(len(levels))
    ]
    lines = [
        "[GENERAL]", "SLIDE_VERSION=01.02", f"SLIDE_ID={slide_id}", f"IMAGENUMBER_X={across}", f"IMAGENUMBER_Y={down}",
        "CameraImageDivisionsPerSide=1", "OBJECTIVE_MAGNIFICATION=40",
        "[HIERARCHICAL]", "HIER_COUNT=1", "HIER_0_NAME=Slide zoom level", f"HIER_0_COUNT={len(levels)}", *names,
        "NONHIER_COUNT=0", "INDEXFILE=Index.dat",
        "[DATAFILE]", f"FILE_COUNT={len(levels)}", *(f"FILE_{k}=Data{k:04d}.dat" for k in range(len(levels))), *sections,
    ]  # fmt: skip
    (folder / "Slidedat.ini").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())  # as the scanner writes it, with a byte order mark
    return path
