"""Chest radiographs in their published layouts: the commands that are printed run, and patients stay together."""

import gzip

import numpy as np
import pytest

from encoders.store.store import Store
from tests.encoders.ingest.dicom_files import build_dicom, ramp, save_dicom
from tests.transfer.tasks.published import add_published, parts_of_people, people_of, picture, table
from transfer.tasks.recipes import RECIPES

CHEXPERT = RECIPES["brax"].labels


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def compress(path):
    """FILE becomes FILE.gz."""
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


def radiograph(path, uid, seed, **tags):
    """A DICOM file with noise of its own."""
    pixels = ramp(shape=(24, 20)) + np.kron(np.random.default_rng(seed).integers(0, 900, (6, 5)), np.ones((4, 4))).astype(np.uint16)
    save_dicom(build_dicom(pixels, uid, **tags), path)


@pytest.mark.parametrize("tool", ["chexpert", "negbio"])
def test_mimic_cxr_jpg_joins_three_compressed_tables_and_keeps_its_parts(here, tool):
    split, meta, labels = [], [], []
    for study in range(30):
        subject = 10000032 + study // 2
        part = "train" if study < 20 else "validate" if study < 24 else "test"
        labels.append([subject, 50414267 + study, *(("1.0", "", "-1.0", "0.0")[(study + k) % 4] for k in range(14))])
        for view in ("PA", "LATERAL"):
            name = f"{study:08x}-{'0' if view == 'PA' else '1'}2345678-9abcdef0-12345678-9abcdef0"
            picture(here / "files" / f"p{str(subject)[:2]}" / f"p{subject}" / f"s{50414267 + study}" / f"{name}.jpg", 2 * study + len(view))
            split.append([name, 50414267 + study, subject, part])
            meta.append(
                [name, subject, 50414267 + study, "CHEST (PA AND LAT)", view, 3056, 2544, "21800506", "213014.531", "", "", "Erect"]
            )
    head = "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime"
    head += ",ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning"
    table(here / "mimic-cxr-2.0.0-split.csv", "dicom_id,study_id,subject_id,split", split)
    table(here / "mimic-cxr-2.0.0-metadata.csv", head, meta)
    table(here / f"mimic-cxr-2.0.0-{tool}.csv", "subject_id,study_id," + ",".join(CHEXPERT), labels)
    for kind in ("split", "metadata", tool):
        compress(here / f"mimic-cxr-2.0.0-{kind}.csv")
    loaded, _ = add_published("mimic_cxr_jpg" if tool == "chexpert" else "mimic_cxr_jpg_negbio", here)
    assert loaded.counts() == {
        "train": {"images": 20, "patients": 10},
        "val": {"images": 4, "patients": 2},
        "test": {"images": 6, "patients": 3},
    }
    assert loaded.task.classes == CHEXPERT
    by_key = {str(k).rsplit("/", 1)[-1]: y for k, y in zip(loaded.key, loaded.y, strict=True)}
    np.testing.assert_array_equal(by_key["00000000-02345678-9abcdef0-12345678-9abcdef0.jpg"][:4], [1, 0, np.nan, 0])
    assert all("-12345678-9abcdef0-12345678" not in key[8:] for key in by_key)  # no lateral view


def test_brax_reads_paths_and_frontal_views(here):
    rows = []
    for i in range(40):
        view = "L" if i % 4 == 3 else "PA"
        path = f"images/id_{i // 4:08x}/Study_{i // 2}.1/Series_{i}.2/image-{i}-{i}.png"
        picture(here / path, i)
        rows.append([path.replace("images", "Anonymized_DICOMs").replace(".png", ".dcm"), path, f"id_{i // 4:08x}", "F", "50", "20100101"])
        rows[-1] += [("1.0", "", "-1.0", "0.0")[(i + k) % 4] for k in range(14)] + [f"acc{i}", view, 2000, 2000, "Maker"]
    head = (
        "DicomPath,PngPath,PatientID,PatientSex,PatientAge,StudyDate,"
        + ",".join(CHEXPERT)
        + ",AccessionNumber,ViewPosition,Rows,Columns,Manufacturer"
    )
    table(here / "master_spreadsheet_update.csv", head, rows)
    loaded, _ = add_published("brax", here)
    assert len(loaded.key) == 30
    assert {len(keys) for keys in people_of(loaded).values()} == {3}
    assert all(len(parts) == 1 for parts in parts_of_people(loaded).values())
    assert set(Store.open("brax.h5").column("ViewPosition")) == {"PA"}


def test_chexpert_of_aimi_finds_images_in_batches_and_tests_on_the_set_of_2022(here):
    head = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding," + ",".join(CHEXPERT[:4] + CHEXPERT[9:10])
    tables = {"train": [], "valid": [], "test": []}
    for i in range(36):
        part = "train" if i < 24 else "valid" if i < 28 else "test"
        who = i // 2 + {"train": 1, "valid": 64540, "test": 64741}[part]
        tail = f"patient{who:05d}/study{1 + i % 2}/view1_frontal.jpg"
        batch = {
            "train": f"CheXpert-v1.0 batch {2 + i // 8} (train {1 + i // 8})",
            "valid": "CheXpert-v1.0 batch 1 (validate & csv)/valid",
            "test": "CheXpert/test",
        }[part]
        picture(here / batch / tail, i)
        values = [("1.0", "0.0", "-1.0" if part == "train" else "0.0", "")[(i // 2 + k) % 4] for k in range(5)]
        tables[part].append([f"CheXpert-v1.0/{part}/{tail}", "Male", 60, "Frontal", "AP", "", *values])
    for part, rows in tables.items():
        home = here / "CheXpert" / "test_labels.csv" if part == "test" else here / "CheXpert-v1.0 batch 1 (validate & csv)" / f"{part}.csv"
        table(home, head, rows)
    loaded, _ = add_published("chexpert_aimi", here)
    assert loaded.counts() == {
        "train": {"images": 24, "patients": 12},
        "val": {"images": 4, "patients": 2},
        "test": {"images": 8, "patients": 4},
    }
    assert np.isfinite(loaded.y).all()  # uncertain is present, blank absent


def test_rsna_merges_the_rows_of_the_boxes_of_an_image(here):
    labels, classes = [], []
    for i in range(30):
        uid = f"{i:08x}-5d34-4f5c-b2e4-1f2f5fd3a5a1"
        radiograph(here / "stage_2_train_images" / f"{uid}.dcm", f"1.2.276.{i}", i, PatientID=uid)
        for box in range(2 if i % 3 == 0 else 1):
            labels.append([uid, *([100 + box, 150, 80, 90, 1] if i % 3 == 0 else ["", "", "", "", 0])])
            classes.append([uid, "Lung Opacity" if i % 3 == 0 else "Normal"])
    table(here / "stage_2_train_labels.csv", "patientId,x,y,width,height,Target", labels)
    table(here / "stage_2_detailed_class_info.csv", "patientId,class", classes)
    loaded, said = add_published("rsna_pneumonia", here)
    assert len(loaded.key) == len(people_of(loaded)) == 30
    assert loaded.y.sum() == 10
    assert "repeated rows merged" in said
    assert set(Store.open("rsna_pneumonia.h5").column("class")) == {"Lung Opacity", "Normal"}


def test_siim_acr_reads_minus_one_as_none_and_merges_several_masks(here):
    rows = []
    for i in range(24):
        uid = f"1.2.276.0.7230010.3.1.4.8323329.{i}.1517875160.1"
        home = here / "dicom-images-train" / uid.replace("1.4.", "1.2.") / uid.replace("1.4.", "1.3.")
        radiograph(home / f"{uid}.dcm", uid, i, PatientID=f"{i:08x}-aaaa")
        codes = [" -1"] if i % 4 else [f"{387620 + i} 23 996 33 {k}" for k in range(1 + i % 8 // 4)]
        rows += [[uid, code] for code in codes]
    table(here / "train-rle.csv", "ImageId, EncodedPixels", rows)
    loaded, _ = add_published("siim_acr", here)
    assert len(loaded.key) == 24
    assert loaded.y.sum() == 6
    assert len(people_of(loaded)) == 24


def test_vindr_counts_the_majority_of_three_readers_and_stores_their_agreement(here):
    names = RECIPES["vindr_cxr"].labels
    extra = ["Clavicle fracture", "Edema"]
    rows = []
    for i in range(30):
        image = f"{i:032x}"
        radiograph(here / "train" / f"{image}.dicom", f"1.2.{i}", i, PatientID="")
        for r in range(3):
            votes = [int(r < (i + k) % 4) for k in range(len(names))]
            rows.append([image, f"R{1 + (i + r) % 17}", *votes, 0, 0, 0])
    table(here / "annotations" / "image_labels_train.csv", "image_id,rad_id," + ",".join([*names, *extra]) + ",Other diseases", rows)
    rows = []
    for i in range(9):
        image = f"{i + 1000:032x}"
        radiograph(here / "test" / f"{image}.dicom", f"1.3.{i}", 100 + i, PatientID="")
        rows.append([image, *(int((i + k) % 2) for k in range(len(names))), 0, 0, 0])
    table(here / "annotations" / "image_labels_test.csv", "image_id," + ",".join([*names, *extra]) + ",Other disease", rows)
    loaded, _ = add_published("vindr_cxr", here)
    assert loaded.task.classes == names
    counts = {part: c["images"] for part, c in loaded.counts().items()}
    assert (counts["train"] + counts["val"], counts["test"]) == (30, 9)
    train = Store.open("vindr_cxr_train.h5")
    np.testing.assert_array_equal(train.labels(names[0]), [int(i % 4 >= 2) for i in range(30)])
    np.testing.assert_allclose(train.column(f"{names[0]}_agreement")[:4], [1, 2 / 3, 2 / 3, 1], atol=1e-3)
    assert len(people_of(loaded)) == 39


def test_openi_joins_reports_to_frontal_images_and_reads_lists_of_problems(here):
    problems = [
        "normal",
        "Cardiomegaly;Pulmonary Artery",
        "Opacity;Pulmonary Atelectasis",
        "Nodule",
        "Pleural Effusion;Cardiomegaly",
        "Calcified Granuloma",
    ]
    views, reports = [], []
    for uid in range(1, 31):
        reports.append([uid, "x", problems[uid % 6], "PA", "none", "", "clear, normal", "No acute disease."])
        for k, view in enumerate(("Frontal", "Lateral")):
            name = f"{uid}_IM-{uid:04d}-{(k + 3) * 1000 + 1}.dcm.png"
            picture(here / "images" / "images_normalized" / name, 2 * uid + k)
            views.append([uid, name, view])
    table(here / "indiana_projections.csv", "uid,filename,projection", views)
    table(here / "indiana_reports.csv", "uid,MeSH,Problems,image,indication,comparison,findings,impression", reports)
    loaded, _ = add_published("openi", here)
    assert len(loaded.key) == len(people_of(loaded)) == 30
    assert dict(zip(loaded.task.classes, loaded.y.sum(axis=0), strict=True))["Cardiomegaly"] == 10


def test_covid_collection_takes_radiographs_with_a_finding_and_groups_by_patient(here):
    rows, findings = [], ["Pneumonia/Viral/COVID-19", "Pneumonia/Bacterial/Streptococcus", "No Finding", "todo", "Unknown"]
    for i in range(50):
        name = f"{i:06d}.jpg"
        picture(here / "images" / name, i)
        modality = "CT" if i >= 45 else "X-ray"
        rows.append(
            [str(i // 2), i, "M", 65, findings[i // 2 % 5], "Y", "PA", modality, "January 22, 2020", "Hanoi", "images", name, "CC BY"]
        )
    head = "patientid,offset,sex,age,finding,survival,view,modality,date,location,folder,filename,license"
    table(here / "metadata.csv", head, rows)
    loaded, _ = add_published("covid_chestxray", here)
    people = people_of(loaded)
    kept = [i for i in range(45) if i // 2 % 5 < 3]
    assert len(loaded.key) == len(kept)
    assert len(people) == len({i // 2 for i in kept})
    assert loaded.y.sum() == sum(i // 2 % 5 == 0 for i in kept)
    assert all(len(parts) == 1 for parts in parts_of_people(loaded).values())


@pytest.mark.parametrize(
    ("name", "folder", "code"), [("shenzhen", "ChinaSet_AllFiles", "CHNCXR"), ("montgomery", "MontgomerySet", "MCUCXR")]
)
def test_the_tuberculosis_sets_have_their_label_in_the_name(here, name, folder, code):
    for i in range(1, 25):
        stem = f"{code}_{i:04d}_{int(i > 12)}"
        picture(here / folder / "CXR_png" / f"{stem}.png", i)
        (here / folder / "ClinicalReadings").mkdir(exist_ok=True)
        (here / folder / "ClinicalReadings" / f"{stem}.txt").write_text("male 45yrs\nnormal\n")
    loaded, _ = add_published(name, here)
    assert loaded.task.classes == ["label"]
    assert loaded.y.sum() == 12
    assert set(people_of(loaded)) == {f"{code}_{i:04d}" for i in range(1, 25)}


def test_tbx11k_uses_its_lists_and_leaves_unlabeled_images_out(here):
    root, lists = here / "TBX11K", {"train": [], "val": []}
    for kind, short in (("health", "h"), ("sick", "s"), ("tb", "tb")):
        for i in range(1, 15):
            name = f"{kind}/{short}{i:04d}.png"
            picture(root / "imgs" / name, 100 * len(kind) + i)
            lists["train" if i < 11 else "val"].append(name)
    picture(root / "imgs" / "test" / "test_0001.png", 1)
    picture(root / "imgs" / "extra" / "da" / "train" / "health_p001.png", 2)
    (root / "lists").mkdir()
    for part, names in lists.items():
        (root / "lists" / f"TBX11K_{part}.txt").write_text("\n".join(names) + "\n")
    loaded, _ = add_published("tbx11k", here)
    assert loaded.task.classes == ["health", "sick", "tb"]
    assert {part: c["images"] for part, c in loaded.counts().items()} == {"train": 27, "val": 3, "test": 12}


def test_padchest_reads_python_lists_of_frontal_views(here):
    lists = ["['cardiomegaly', 'pleural effusion']", "['pneumonia']", "['normal']", "['COPD signs', 'pleural effusion', 'nodule']", ""]
    names = RECIPES["padchest"].labels
    rows = []
    for i in range(60):
        image = f"2168408409{i:04d}_s1.png"
        picture(here / str(i % 3) / image, i)
        text = lists[i // 2 % 5] if i < 50 else str(names)
        rows.append(
            [
                i,
                image,
                i % 3,
                "20140915",
                f"2014{i // 2}",
                f"8395{i // 4}",
                "1930",
                "M",
                "POSTEROANTERIOR",
                "PA" if i % 4 else "L",
                "Physician",
                text,
            ]
        )
    head = (
        ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,MethodLabel,Labels"
    )
    table(here / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", head, rows)
    loaded, _ = add_published("padchest", here)
    kept = [i for i in range(60) if i % 4]
    assert loaded.task.classes == names
    assert len(loaded.key) == len(kept)
    assert len(people_of(loaded)) == 15
    effusion = sum(i >= 50 or i // 2 % 5 in (0, 3) for i in kept)
    assert loaded.y[np.isfinite(loaded.y[:, 1]), 1].sum() == effusion
    assert np.isnan(loaded.y[:, 0]).sum() == sum(i < 50 and i // 2 % 5 == 4 for i in kept)
    assert all(len(parts - {""}) == 1 for parts in parts_of_people(loaded).values())


def test_vindr_of_kaggle_counts_readers_and_not_boxes(here):
    names = RECIPES["vindr_cxr_kaggle"].labels
    rows = []
    for i in range(30):
        image = f"{i:032x}"
        radiograph(here / "train" / f"{image}.dicom", f"1.2.{i}", i, PatientID="")
        for r in range(3):
            drawn = [names[(i + k) % 14] for k in range(4 - r)]
            rows += [[image, name, names.index(name), f"R{r + 8}", 10, 20, 30, 40] for name in drawn * 2] if i % 5 else []
        rows += [[image, "No finding", 14, f"R{r + 8}", "", "", "", ""] for r in range(3)] if i % 5 == 0 else []
    table(here / "train.csv", "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max", rows)
    loaded, _ = add_published("vindr_cxr_kaggle", here)
    assert len(loaded.key) == 30
    truth = [{names[(i + k) % 14] for k in range(3)} if i % 5 else set() for i in range(30)]  # two of three readers drew the first three
    for i, wanted in enumerate(truth):
        row = loaded.y[[str(k).startswith(f"{i:032x}") for k in loaded.key]][0]
        assert {name for name, y in zip(names, row, strict=True) if y == 1} == wanted
