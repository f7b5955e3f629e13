"""Inputs in which every private thing has a word of its own: people, dates, identifiers, hosts, users, folders and files.

What a user names to be shown (data set, label, licence) holds a script instead, which no page may run.
"""

import csv
import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from tests.encoders.ingest.dicom_files import build_dicom
from tests.encoders.ingest.wsi.slide_files import draw_slide, write_slide

HOST, USER, FOLDER = "radnode77.kranichsteig.example", "drwintermute", "Klinik_Kranichsteig"
NAMES = ("Zwetschgenbauer", "Quillfeather")
STORE_FILE = "Hagebutten_19610507.h5"  # of a store that somebody named after a patient
BIRTHDAY, STUDY_DAY = "19610507", "20240229"
HOSPITAL, STATION, ACCESSION = "Sankt_Aurelius", "STATION_OMBRA", "ACC5550199"
SCRIPT_WORD = "PLANTED-SCRIPT-RAN"
SCRIPT = f"\"'><script>console.log('{SCRIPT_WORD}')</script><img src=x onerror=\"console.log('{SCRIPT_WORD}')\">"
PEOPLE, EACH, SIDE = 30, 2, 32


def patient_id(i: int) -> str:
    return f"MRN77{i:04d}"


def write_images(folder: Path) -> Path:
    """PNG files named after patients, with their table of labels; some files of different patients show nearly the same."""
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True)
    rows, shown = [], []
    for i in range(PEOPLE):
        for k in range(EACH):
            stripes = 40 * (i % 2) * np.sin(np.arange(SIDE) * np.pi / 2)[None, :]
            coarse = draw.normal(100 + 2 * i, 40, (SIDE // 8, SIDE // 8)).repeat(8, 0).repeat(8, 1)
            shown.append(np.clip(coarse + draw.normal(0, 4, (SIDE, SIDE)) + stripes, 0, 250).astype(np.uint8))
            name = f"{NAMES[i % 2]}_{patient_id(i)}_{STUDY_DAY}_{k}.png"
            rows.append([name, patient_id(i), i % 2, NAMES[i % 2], f"1961-05-{1 + i % 2:02d}", f"{HOSPITAL} {i % 2}", SCRIPT + str(i % 3)])
    parts = ["train"] * 20 + ["val"] * 4 + ["test"] * 6
    for row, part in zip(rows, np.repeat(parts, EACH).tolist(), strict=True):
        row.append(part)
    for near, of in ((2, 25), (4, 26), (22, 27)):  # images of one part that nearly equal one of the test part
        shown[near * EACH] = shown[of * EACH] + (np.arange(SIDE) % 2).astype(np.uint8)
    for row, pixels in zip(rows, shown, strict=True):
        Image.fromarray(pixels).save(folder / row[0])
    (folder / f"{NAMES[1]}_{BIRTHDAY}_broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    rows.append([f"{NAMES[1]}_{BIRTHDAY}_broken.png", patient_id(99), 1, NAMES[1], "1961-05-07", HOSPITAL, "x", "train"])
    with open(folder / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file", "patient_id", "sick", "name", "birth", "hospital", "view", "split"], *rows])
    return folder


def write_dicoms(folder: Path, count: int = 4) -> Path:
    """DICOM files with names, dates and identifiers in their tags, and one that is none."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(1)
    for i in range(count):
        tags = {
            "PatientName": f"{NAMES[0]}^{NAMES[1]}", "PatientID": patient_id(i), "PatientBirthDate": BIRTHDAY, "StudyDate": STUDY_DAY,
            "InstitutionName": HOSPITAL, "StationName": STATION, "AccessionNumber": ACCESSION, "StudyInstanceUID": f"1.2.99.{i}",
        }  # fmt: skip
        pixels = draw.integers(0, 4000, (SIDE, SIDE)).astype(np.uint16)
        build_dicom(pixels, uid=f"1.2.77.{i}", **tags).save_as(folder / f"{NAMES[1]}_{STUDY_DAY}_{i}.dcm", enforce_file_format=True)
    (folder / f"{NAMES[0]}_{BIRTHDAY}.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"broken")
    return folder


def write_slides(folder: Path) -> Path:
    """Two slides named after patients, one of them empty."""
    write_slide(folder / f"{NAMES[0]}_{patient_id(1)}.tif", [draw_slide(512, 512, [(64, 64, 384, 384)])])
    (folder / f"{NAMES[1]}_{BIRTHDAY}.svs").write_bytes(b"")
    return folder


def list_private_words(root: Path) -> dict[str, list[str]]:
    """What must not leave: kind -> words.  root: the folder above all folders."""
    return {
        "name": [*NAMES, "Hagebutten"],
        "date": [BIRTHDAY, STUDY_DAY, "1961-05-0", "2024-02-29"],
        "identifier": ["MRN77", ACCESSION, "1.2.77.", "1.2.99."],
        "place": [STATION, "Kranichsteig"],
        "host": [HOST.split(".")[0]],
        "user": [USER],
        "path": [str(root)],
    }


def find_private_words(content: bytes, words: dict[str, list[str]]) -> list[str]:
    """`kind: word: what surrounds it`, once a word, in the bytes of a file."""
    found = []
    for kind, listed in words.items():
        for word in listed:
            if match := re.search(re.escape(word.encode()), content, re.IGNORECASE):
                around = content[max(0, match.start() - 70) : match.end() + 50]
                found.append(f"{kind}: {word}: {around.decode('utf-8', 'replace')!r}")
    return found


def read_with_text_chunks(path: Path) -> bytes:
    """The bytes of a file; of a PNG also its text chunks, which may be compressed."""
    content = path.read_bytes()
    if path.suffix == ".png":
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            content += "\n".join(f"{k}: {v}" for k, v in picture.info.items()).encode()
    return content
