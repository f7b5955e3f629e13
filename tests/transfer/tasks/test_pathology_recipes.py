"""Pathology data sets in their published layouts: the commands that are printed run, and patients or slides stay together."""

import numpy as np
import pytest

from encoders.store.store import Store
from tests.encoders.ingest.wsi.slide_files import draw_slide, write_slide
from tests.transfer.tasks.published import add_published, parts_of_people, people_of, picture, table


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def test_bach_takes_classes_from_its_folders(here):
    root = here / "ICIAR2018_BACH_Challenge"
    for kind, short in (("Normal", "n"), ("Benign", "b"), ("InSitu", "is"), ("Invasive", "iv")):
        for i in range(8):
            picture(root / "Photos" / kind / f"{short}{i + 1:03d}.tif", 100 * ord(short[-1]) + i, (64, 48), colour=True)
    (root / "Photos" / "microscopy_ground_truth.csv").write_text("n001.tif,Normal\n")
    loaded, _ = add_published("bach", here)
    assert loaded.task.classes == ["Benign", "InSitu", "Invasive", "Normal"]
    assert loaded.y.sum(axis=0).tolist() == [8] * 4
    assert Store.open("bach.h5").column("mpp")[0] == pytest.approx(0.42 * 64 / 512)


def test_breakhis_groups_by_the_patient_in_the_name_and_keeps_the_magnification(here):
    slides = [("benign", "adenosis", "A", n) for n in ("22549AB", "22549CD", "9133", "4659")]
    slides += [("benign", "fibroadenoma", "F", n) for n in ("21998EF", "14134", "25197", "29960AB")]
    slides += [("malignant", "ductal_carcinoma", "DC", n) for n in ("13412", "2523", "16875", "12204", "5694")]
    slides += [("malignant", "lobular_carcinoma", "LC", n) for n in ("13412", "15570", "12461", "16196", "13411F")]
    for seed, (kind, folder, code, number) in enumerate(slides):
        short = f"SOB_{kind[0].upper()}_{code}"
        home = here / "BreaKHis_v1/histology_slides/breast" / kind / "SOB" / folder / f"{short}_14-{number}"
        for zoom in (40, 100, 200, 400):
            picture(home / f"{zoom}X" / f"{short}-14-{number}-{zoom}-001.png", 1000 * seed + zoom, colour=True)
    loaded, _ = add_published("breakhis", here)
    people = people_of(loaded)
    assert len(people) == 8 + 9  # 14-13412 is under two types of malignant tumours
    assert len(people["14-13412"]) == 8
    assert len(people["14-22549AB"]) == 4
    assert all(len(parts) == 1 for parts in parts_of_people(loaded).values())
    assert loaded.task.classes == ["label=malignant"]
    assert loaded.y.sum() == 40
    store = Store.open("breakhis.h5")
    assert {str(m): int((store.column("magnification") == m).sum()) for m in set(store.column("magnification"))} == dict.fromkeys(
        ("40X", "100X", "200X", "400X"), 18
    )
    assert set(store.column("type")) == {"adenosis", "fibroadenoma", "ductal_carcinoma", "lobular_carcinoma"}


def test_mhist_uses_its_partition_and_the_majority_of_seven(here):
    rows = []
    for i in range(40):
        name = f"MHIST_{chr(97 + i // 26)}{chr(97 + i % 26)}a.png"
        picture(here / "images" / name, i, (24, 24), colour=True)
        votes = i % 8
        rows.append([name, "SSA" if votes > 3 else "HP", votes, "test" if i >= 30 else "train"])
    table(here / "annotations.csv", "Image Name,Majority Vote Label,Number of Annotators who Selected SSA (Out of 7),Partition", rows)
    loaded, _ = add_published("mhist", here)
    assert loaded.counts()["test"] == {"images": 10, "patients": 10}
    assert loaded.counts()["val"]["images"] == 6
    assert loaded.y.sum() == 20
    assert loaded.task.classes == ["Majority Vote Label=SSA"]
    assert Store.open("mhist.h5").column("Number of Annotators who Selected SSA (Out of 7)").max() == 7


def test_kather2016_keeps_the_tiles_of_a_slide_together(here):
    kinds = ["01_TUMOR", "02_STROMA", "03_COMPLEX", "04_LYMPHO", "05_DEBRIS", "06_MUCOSA", "07_ADIPOSE", "08_EMPTY"]
    for k, kind in enumerate(kinds):
        for i in range(20):
            letter = "b" if i % 3 == 0 else ""
            name = f"{1000 + i:X}_CRC-Prim-HE-{1 + i % 10:02d}_{i:03d}{letter}.tif_Row_{150 * i + 1}_Col_1.tif"
            picture(here / "Kather_texture_2016_image_tiles_5000" / kind / name, 100 * k + i, (30, 30), colour=True)
    loaded, _ = add_published("kather2016", here)
    assert loaded.task.classes == sorted(kind[3:] for kind in kinds)
    assert {person: len(keys) for person, keys in people_of(loaded).items()} == {f"CRC-Prim-HE-{n:02d}": 16 for n in range(1, 11)}
    assert all(len(parts) == 1 for parts in parts_of_people(loaded).values())


def small_slide(path, seed, mpp=0.5):
    write_slide(path, [draw_slide(512, 512, [(0, 0, 512, 512)], seed=seed)], mpp=mpp)


def test_tcga_groups_slides_by_the_first_twelve_characters(here):
    for k in range(12):
        project = "LUAD" if k % 2 else "LUSC"
        case = f"TCGA-{'05' if k % 2 else '18'}-{4244 + k // 2 // 1:04d}" if k < 10 else "TCGA-05-4244"
        project = "LUAD" if case.startswith("TCGA-05") else "LUSC"
        uuid = f"{k:08x}-1111-2222-3333-444444444444"
        small_slide(here / f"TCGA-{project}" / uuid / f"{case}-01Z-00-DX{1 + k // 10 * (k - 9)}.{uuid.upper()}.svs", k)
    loaded, _ = add_published("tcga_nsclc", here)
    people = people_of(loaded)
    assert len(people) == 10
    assert len({key.split("/")[0] for key in people["TCGA-05-4244"]}) == 3
    assert all(len(parts) == 1 for parts in parts_of_people(loaded).values())
    assert loaded.task.classes == ["label=LUSC"]
    patients = np.array([str(p) for p in loaded.patient])
    np.testing.assert_array_equal(loaded.y[:, 0] == 1, np.char.startswith(patients, "TCGA-18"))


def test_panda_takes_the_grade_of_a_slide_and_keeps_the_centre(here):
    rows = []
    for k in range(18):
        image = f"{k:08x}{'f' * 24}"
        small_slide(here / "train_images" / f"{image}.tiff", k, mpp=0.5)
        rows.append([image, "karolinska" if k % 2 else "radboud", k % 6, "0+0"])
    table(here / "train.csv", "image_id,data_provider,isup_grade,gleason_score", rows)
    loaded, _ = add_published("panda", here)
    assert loaded.task.order == ["0", "1", "2", "3", "4", "5"]
    assert len(people_of(loaded)) == 18
    grades = {str(p): int(y.argmax()) for p, y in zip(loaded.patient, loaded.y, strict=True)}
    assert sorted(grades.values()) == sorted(k % 6 for k in range(18))
    assert set(Store.open("panda/*.h5").column("data_provider")) == {"karolinska", "radboud"}


def test_camelyon16_takes_labels_from_folders_and_tests_on_the_official_part(here):
    for kind in ("normal", "tumor"):
        for k in range(1, 11):
            small_slide(here / "training" / kind / f"{kind}_{k:03d}.tif", k + 10 * (kind == "tumor"))
    rows = []
    for k in range(1, 7):
        small_slide(here / "testing" / "images" / f"test_{k:03d}.tif", 50 + k)
        rows.append(f"test_{k:03d},{'Tumor,IDC,Macro' if k % 3 == 1 else 'Normal,None,None'}")
    (here / "testing" / "reference.csv").write_text("\n".join(rows) + "\n")
    loaded, said = add_published("camelyon16", here)
    assert loaded.counts()["test"]["patients"] == 6
    assert loaded.counts()["val"]["patients"] == 2
    assert loaded.task.classes == ["label=tumor"]
    truth = {f"{kind}_{k:03d}": kind == "tumor" for kind in ("normal", "tumor") for k in range(1, 11)}
    truth |= {f"test_{k:03d}": k % 3 == 1 for k in range(1, 7)}
    slides = [str(patient).partition(":")[2] for patient in loaded.patient]  # after the name of the data set
    assert {slide: bool(y) for slide, y in zip(slides, loaded.y[:, 0], strict=True)} == truth
    part = dict(zip(slides, loaded.split.part, strict=True))
    assert {name for name, where in part.items() if where == "test"} == {f"test_{k:03d}" for k in range(1, 7)}
    assert "classes of 'label' that differ only in case are one" in " ".join(said.split())
